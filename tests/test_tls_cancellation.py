"""A cancelled TLS write must never leave half a record, or lose one: the lock below, the socket, the reader's own writes."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trustme
from anyio import CancelScope

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import MemoryStream, memory_stream_pair
from asyncdicom.transport import StreamTransport, TLSTransport

from .harness import CONTEXTS, PATIENCE, ct_instance, identifier

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts of a client and a server that trust each other."""
    authority = trustme.CA()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    return client, server


@asynccontextmanager
async def pair(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], max_buffer: int = 100_000
) -> AsyncIterator[tuple[TLSTransport, TLSTransport, MemoryStream]]:
    """Two TLS transports that are connected, and the stream below the second."""
    ours, theirs = memory_stream_pair(max_buffer)
    one = TLSTransport(StreamTransport(ours), contexts[0], server_side=False, hostname="localhost")
    other = TLSTransport(StreamTransport(theirs), contexts[1], server_side=True, hostname=None)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.handshake)
            await other.handshake()
        yield one, other, theirs
        one.abort()
        other.abort()


async def receive_exactly(transport: TLSTransport, size: int) -> bytes:
    received = b""
    while len(received) < size:
        data = await transport.receive()
        assert data, "the connection ended"
        received += data
    return received


async def test_a_send_that_is_cancelled_while_another_writes_is_not_lost(contexts: Any) -> None:
    async with pair(contexts) as (one, other, _):
        scope = CancelScope()

        async def send() -> None:
            with scope:
                await one.send(b"taken")

        # What the reader does when the peer updates its keys.
        async with one._lock, anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while not one._lock.statistics().tasks_waiting:
                await anyio.lowlevel.checkpoint()
            scope.cancel()
        assert scope.cancelled_caught
        await one.flush()
        await one.send(b", and more")
        assert await receive_exactly(other, 15) == b"taken, and more"


async def test_a_send_that_is_cancelled_while_it_is_written_goes_on_where_it_was(contexts: Any) -> None:
    data = bytes(range(256)) * 400
    async with pair(contexts, 10_000) as (one, other, theirs):
        received = b""
        async with anyio.create_task_group() as tasks:
            scope = CancelScope()

            async def send() -> None:
                with scope:
                    await one.send(data)
                await one.flush()
                await one.send(b"the end")

            tasks.start_soon(send)
            while theirs.buffered < 10_000:
                await anyio.lowlevel.checkpoint()
            scope.cancel()
            received = await receive_exactly(other, len(data) + 7)
        assert received == data + b"the end"


@pytest.mark.parametrize("size", [100_000, 900_000])
async def test_over_tls_a_cancelled_store_leaves_a_working_association(
    contexts: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncdicom.connection._FINISH_TIME", PATIENCE)
    services = asyncdicom.Services()
    stored: list[int] = []

    @services.store(sop.CT_IMAGE_STORAGE)
    async def store(request: asyncdicom.StoreRequest) -> None:
        stored.append(len(await request.read()))

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        while True:
            yield identifier()

    async with asyncdicom.Server(services, "ASYNCDICOM@127.0.0.1:0", ssl=contexts[1], drain=0) as server:
        async with asyncdicom.connect(server.addresses[0], contexts=CONTEXTS, ssl=contexts[0]) as assoc:
            for turn in range(5):
                with CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:

                        async def cancel(scope: CancelScope, turn: int) -> None:
                            for _ in range(turn):
                                await anyio.lowlevel.checkpoint()
                            scope.cancel()

                        tasks.start_soon(cancel, scope, turn)
                        await assoc.store(ct_instance(size))
                assert (await assoc.echo()).status == 0
            async with assoc.find(identifier()) as matches:
                async for _ in matches:
                    break
            assert matches.response is not None
            assert matches.response.status == 0xFE00
            assert (await assoc.store(ct_instance(size))).status == 0
    # Whatever was begun came whole.
    assert len(set(stored)) == 1
