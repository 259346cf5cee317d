"""A server that the adversary reaches in memory, over TCP or over TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import ByteStream, TaskGroup

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import memory_stream_pair

from ..interop.conftest import Certificates
from .wire import RELEASE, RELEASE_RESPONSE, statuses

__all__ = ["TRANSPORTS", "Stand", "receive", "receive_all", "standing"]

TRANSPORTS = ("memory", "plain", "tls")

#: Everything that waits for the adversary runs out soon, but not before a busy machine has done its part.
TIMEOUTS = asyncdicom.Timeouts(associate=1, tls=2, message=1, abort=1, write=1.5, cancel=2)

#: What reading from a peer that is gone gives.
GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


@dataclass(slots=True)
class Stand:
    """A running server.

    :ivar stored: the data sets that it was sent.
    :ivar ended: how many of its C-FIND handlers have run their ``finally``.
    """

    server: asyncdicom.Server
    transport: str
    tasks: TaskGroup
    client_tls: ssl.SSLContext | None
    stored: list[bytes] = field(default_factory=list)
    begun: int = 0
    ended: int = 0

    async def connect(self) -> ByteStream:
        """Connect as an adversary."""
        if self.transport == "memory":
            ours, theirs = memory_stream_pair()
            self.tasks.start_soon(self.server.serve_stream, theirs)
            return ours
        address = self.server.addresses[0]
        if self.client_tls is None:
            return await anyio.connect_tcp(address.host, address.port)
        return await anyio.connect_tcp(
            address.host, address.port, ssl_context=self.client_tls, tls_standard_compatible=False
        )

    async def say(self, data: bytes) -> bytes:
        """Connect, send, and return all that comes until the server closes."""
        async with await self.connect() as stream:
            await stream.send(data)
            return await receive_all(stream)

    async def converse(self, data: bytes, responses: int) -> bytes:
        """Connect, send, wait for responses, release; return all that came.

        A release that does not wait for them would cut them off, as it should.
        """
        async with await self.connect() as stream:
            await stream.send(data)
            received = b""
            with anyio.fail_after(30):
                while len(statuses(received)) < responses:
                    received += await stream.receive()
                await stream.send(RELEASE)
                while not received.endswith(RELEASE_RESPONSE):
                    received += await stream.receive()
            return received

    async def check_echo(self) -> None:
        """Associate and echo as a good client does."""
        with anyio.fail_after(30):
            stream = await self.connect() if self.transport == "memory" else None
            async with asyncdicom.connect(
                self.server.addresses[0] if stream is None else "SERVER@memory:0",
                contexts=[sop.VERIFICATION],
                ssl=self.client_tls,
                stream=stream,
            ) as association:
                await association.echo()


async def receive_all(stream: ByteStream) -> bytes:
    """Return all that comes until the other side closes."""
    received = b""
    try:
        with anyio.fail_after(30):
            while True:
                received += await stream.receive()
    except GONE:
        return received


async def receive(stream: ByteStream, enough: int) -> bytes:
    """Return what comes, at least so many bytes."""
    received = b""
    with anyio.fail_after(30):
        while len(received) < enough:
            received += await stream.receive()
    return received


@asynccontextmanager
async def standing(
    transport: str, certificates: Certificates, *, services: asyncdicom.Services | None = None, **options: Any
) -> AsyncIterator[Stand]:
    """Serve; its C-STORE keeps what comes, its C-FIND never ends."""
    tls = transport == "tls"
    registered = services or asyncdicom.Services()
    server = asyncdicom.Server(
        registered,
        "SERVER@127.0.0.1:0",
        ssl=certificates.server if tls else None,
        drain=0,
        **{"timeouts": TIMEOUTS, **options},
    )
    async with server, anyio.create_task_group() as tasks:
        stand = Stand(server, transport, tasks, certificates.client if tls else None)

        async def store(request: asyncdicom.StoreRequest) -> None:
            stand.stored.append(await request.read())

        async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
            stand.begun += 1
            try:
                await anyio.sleep_forever()
                yield b""
            finally:
                stand.ended += 1

        if services is None:
            registered.store("*")(store)
            registered.find(sop.STUDY_ROOT_FIND)(find)
        yield stand
        tasks.cancel_scope.cancel()
