"""A relay that does to a connection what bad networks do."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections import deque
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from types import TracebackType

import anyio
from anyio import BrokenResourceError, CancelScope, ClosedResourceError, EndOfStream
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from .served import on_trio

__all__ = ["FaultyRelay", "Line"]

#: Bytes that are received at once.
_CHUNK = 65_536

#: Seconds that the relay gets to end.
_PATIENCE = 10.0

#: SO_LINGER for a close that is an RST.
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one direction of a connection does to the bytes that pass.

    Positions are counted in bytes from the beginning of the connection, from 0.

    :param delay: seconds that each byte takes to arrive; there is no limit of how many are on their way.
    :param bytes_per_second: no more pass than that; ``None`` is any number.
    :param chunk: bytes that arrive at once, at most.
    :param corrupt_at: the position of a byte that arrives with all its bits turned.
    :param stall_at: nothing arrives from this position on, and the connection stays open.
    :param close_at: both connections are closed (FIN) when so many bytes have arrived.
    :param reset_at: both are reset (RST) when so many bytes have arrived.
    """

    delay: float = 0.0
    bytes_per_second: float | None = None
    chunk: int | None = None
    corrupt_at: int | None = None
    stall_at: int | None = None
    close_at: int | None = None
    reset_at: int | None = None


class _Reset(Exception):
    """The connection is to be reset."""


class _Close(Exception):
    """The connection is to be closed."""


class FaultyRelay(AbstractAsyncContextManager["FaultyRelay"]):
    """Stand between a client and a server, and do what bad networks do.

    ``async with FaultyRelay("127.0.0.1", server_port, down=Line(reset_at=5000)) as relay`` listens on a free port of
    127.0.0.1, ``relay.port``, and connects each connection to the server.

    :param host: the server's host.
    :param port: the server's port.
    :param up: what happens from the client to the server.
    :param down: what happens from the server to the client.

    :ivar up: may be changed; connections that are made afterwards have it.
    :ivar down: likewise.
    :ivar port: where the relay listens.
    :ivar connections: how many connections are open.
    :ivar accepted: how many there have been.

    It can be entered and left in different tasks on asyncio, and an exception of the body arrives as it is. Leaving it
    closes the connections that are open.
    """

    def __init__(self, host: str, port: int, *, up: Line | None = None, down: Line | None = None) -> None:
        self.up = up or Line()
        self.down = down or Line()
        self.port = 0
        self.connections = 0
        self.accepted = 0
        self._host = host
        self._server_port = port
        self._scopes: set[CancelScope] = set()
        self._stop = anyio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> FaultyRelay:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        if on_trio():
            self._tasks = await anyio.create_task_group().__aenter__()
            self._tasks.start_soon(self._run, listener)
        else:
            self._task = asyncio.create_task(self._run(listener))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._task is not None:
            with CancelScope(shield=True):
                await asyncio.wait([self._task], timeout=_PATIENCE)
                self._task.cancel()
                await asyncio.wait([self._task])
        elif self._tasks is not None:
            tasks, self._tasks = self._tasks, None
            tasks.cancel_scope.shield = True
            tasks.cancel_scope.deadline = anyio.current_time() + _PATIENCE
            await tasks.__aexit__(None, None, None)

    def drop(self) -> None:
        """Reset the connections that are open (RST on both sides)."""
        for scope in self._scopes:
            scope.cancel()

    async def _run(self, listener: socket.socket) -> None:
        with listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._accept, listener, tasks)
                await self._stop.wait()
                tasks.cancel_scope.cancel()

    async def _accept(self, listener: socket.socket, tasks: TaskGroup) -> None:
        while True:
            await anyio.wait_readable(listener)
            with suppress(BlockingIOError, ConnectionError):
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                self.accepted += 1
                tasks.start_soon(self._relay, accepted)

    async def _relay(self, accepted: socket.socket) -> None:
        self.connections += 1
        client: SocketStream | None = None
        server: SocketStream | None = None
        reset = True
        try:
            with suppress(OSError), CancelScope() as scope:
                self._scopes.add(scope)
                client = await SocketStream.from_socket(accepted)
                server = await anyio.connect_tcp(self._host, self._server_port)
                for stream in (client, server):
                    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                reset = await _both_ways(client, server, self.up, self.down)
        finally:
            self._scopes.discard(scope)
            self.connections -= 1
            for stream_or_none in (client, server):
                if stream_or_none is not None:
                    _close(stream_or_none, reset)
                    with CancelScope(shield=True):
                        await anyio.aclose_forcefully(stream_or_none)


async def _both_ways(client: SocketStream, server: SocketStream, up: Line, down: Line) -> bool:
    """Relay until both directions have ended; tell whether the connections are to be reset."""
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_Direction(client, server, up).run)
            tasks.start_soon(_Direction(server, client, down).run)
    except BaseExceptionGroup as group:
        reset, rest = group.split(_Reset)
        _, rest = rest.split(_Close) if rest is not None else (None, None)
        if rest is not None:
            raise rest from None
        return reset is not None
    return False


class _Direction:
    """One direction of a connection."""

    def __init__(self, source: SocketStream, target: SocketStream, line: Line) -> None:
        self._source = source
        self._target = target
        self._line = line
        self._position = 0
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._came = anyio.Event()

    async def run(self) -> None:
        """Relay to the end of the stream."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._receive)
            await self._deliver()

    async def _receive(self) -> None:
        data = b"."
        while data:
            try:
                data = await self._source.receive(_CHUNK)
            except EndOfStream:
                data = b""
            except (BrokenResourceError, ClosedResourceError):
                raise _Reset from None
            self._waiting.append((anyio.current_time() + self._line.delay, data))
            self._came.set()

    async def _deliver(self) -> None:
        while True:
            while not self._waiting:
                self._came = anyio.Event()
                await self._came.wait()
            due, data = self._waiting.popleft()
            await anyio.sleep_until(due)
            if not data:
                with suppress(BrokenResourceError, ClosedResourceError, OSError):
                    await self._target.send_eof()
                return
            while data:
                piece, data = self._cut(data)
                await self._send(piece)

    def _cut(self, data: bytes) -> tuple[bytes, bytes]:
        """Divide bytes into what arrives at once, and the rest."""
        line, size = self._line, len(data)
        if line.chunk is not None:
            size = min(size, line.chunk)
        for at in (line.stall_at, line.close_at, line.reset_at):
            if at is not None and self._position < at:
                size = min(size, at - self._position)
        return data[:size], data[size:]

    async def _send(self, piece: bytes) -> None:
        line, begin = self._line, self._position
        if line.stall_at is not None and begin >= line.stall_at:
            await anyio.sleep(math.inf)
        if line.corrupt_at is not None and begin <= line.corrupt_at < begin + len(piece):
            turned = bytearray(piece)
            turned[line.corrupt_at - begin] ^= 0xFF
            piece = bytes(turned)
        if line.bytes_per_second is not None:
            await anyio.sleep(len(piece) / line.bytes_per_second)
        try:
            await self._target.send(piece)
        except (BrokenResourceError, ClosedResourceError):
            raise _Reset from None
        self._position += len(piece)
        if line.reset_at is not None and self._position >= line.reset_at:
            raise _Reset
        if line.close_at is not None and self._position >= line.close_at:
            raise _Close


def _close(stream: SocketStream, reset: bool) -> None:
    if reset:
        with suppress(OSError):
            stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
