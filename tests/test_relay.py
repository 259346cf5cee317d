"""The relay that does what bad networks do."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketStream

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import FaultyRelay, Line

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def _echoing() -> AsyncIterator[int]:
    """Serve a port that sends back what it gets."""

    async def echo(stream: SocketStream) -> None:
        try:
            async with stream:
                async for data in stream:
                    await stream.send(data)
        except (anyio.BrokenResourceError, ConnectionError):
            pass

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()
    await listener.aclose()


async def _gather(stream: SocketStream) -> tuple[bytes, str]:
    """Receive to the end; return what came, and how it ended."""
    got = b""
    while True:
        try:
            with anyio.fail_after(5):
                got += await stream.receive()
        except anyio.EndOfStream:
            return got, "closed"
        except anyio.BrokenResourceError:
            return got, "reset"


DATA = bytes(range(256)) * 40


# What is down the line, what arrives of DATA, and how it ends.
@pytest.mark.parametrize(
    ("line", "arrives", "end"),
    [
        (Line(), DATA, "closed"),
        (Line(chunk=100), DATA, "closed"),
        (Line(delay=0.01), DATA, "closed"),
        (Line(bytes_per_second=10e6), DATA, "closed"),
        (Line(corrupt_at=0), b"\xff" + DATA[1:], "closed"),
        (Line(corrupt_at=5000, chunk=7), DATA[:5000] + bytes([DATA[5000] ^ 0xFF]) + DATA[5001:], "closed"),
        (Line(close_at=1234), DATA[:1234], "closed"),
        (Line(reset_at=1), DATA[:1], "reset"),
    ],
)
async def test_a_line_does_to_the_bytes_what_it_says(line: Line, arrives: bytes, end: str) -> None:
    async with _echoing() as port, FaultyRelay("127.0.0.1", port, down=line) as relay:
        async with await anyio.connect_tcp("127.0.0.1", relay.port) as stream:
            await stream.send(DATA)
            await stream.send_eof()
            got, how = await _gather(stream)
        assert how == end
        # A reset may overtake the last bytes.
        assert got == arrives or (end == "reset" and arrives.startswith(got))
        assert relay.accepted == 1


async def test_a_stalled_line_stays_open_and_is_reset_when_it_is_dropped() -> None:
    async with _echoing() as port, FaultyRelay("127.0.0.1", port, down=Line(stall_at=10)) as relay:
        async with await anyio.connect_tcp("127.0.0.1", relay.port) as stream:
            await stream.send(DATA)
            got = b""
            while len(got) < 10:
                got += await stream.receive()
            with anyio.move_on_after(0.05) as scope:
                await stream.receive()
            assert (got, scope.cancelled_caught, relay.connections) == (DATA[:10], True, 1)
            relay.drop()
            assert await _gather(stream) == (b"", "reset")


async def test_a_relay_to_nowhere_resets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with FaultyRelay("127.0.0.1", port) as relay:
        async with await anyio.connect_tcp("127.0.0.1", relay.port) as stream:
            assert await _gather(stream) == (b"", "reset")


async def test_an_exception_of_the_body_arrives_bare() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with FaultyRelay("127.0.0.1", 9):
            raise ValueError("mine")


async def test_an_association_over_a_bad_line_ends_with_the_reason() -> None:
    services = asyncdicom.Services()

    @services.echo()
    async def echo(request: asyncdicom.EchoRequest) -> None: ...

    async with (
        asyncdicom.Server(services, "A@127.0.0.1:0") as server,
        FaultyRelay("127.0.0.1", server.addresses[0].port, up=Line(chunk=1)) as relay,
    ):
        async with asyncdicom.connect(f"A@127.0.0.1:{relay.port}", contexts=[sop.VERIFICATION]) as association:
            await association.echo()
        relay.down = Line(reset_at=100)
        with pytest.raises((asyncdicom.AssociationClosed, asyncdicom.ConnectError)):
            async with asyncdicom.connect(f"A@127.0.0.1:{relay.port}", contexts=[sop.VERIFICATION]):
                pass
