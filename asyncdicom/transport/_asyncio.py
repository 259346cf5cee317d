"""Sockets on asyncio, and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from ..protocol.framing import RECEIVE_SIZE
from . import _base
from ._base import QUICKACK, TIME_SLICE, Transport, lost, plain_address

__all__ = ["AsyncioTransport"]

#: Received bytes that may wait before the socket is no longer read. An image of 512 KiB fits, which takes three receives:
#: to pause for each of them, and to go on after it, costs several calls of the system.
_HIGH_WATER = 3 * RECEIVE_SIZE

#: Bytes of one receive that are handed on where they were received; fewer are copied, so that they hold no more memory
#: than they are.
_IN_BULK = RECEIVE_SIZE // 2

#: Buffers that are remembered while they are looked at.
_LENT = 4


class _Arrivals:
    """Memory to receive into, for all sockets of a thread (:func:`_of_thread`): what came in bulk is handed on without a copy.

    A buffer is used again once nobody looks at any piece of it. New memory for every receive would cost more than the
    copying: the system clears each page of it.
    """

    def __init__(self) -> None:
        self._current: bytearray | None = None
        self._lent: deque[bytearray] = deque()

    def buffer(self) -> bytearray:
        """Return what the next bytes are to be received into."""
        current = self._current
        if current is None:
            current = self._current = self._returned() or _new_buffer()
        return current

    def take(self, count: int) -> bytes | memoryview:
        """Return the bytes that were received; they do not change any more."""
        current = self._current
        assert current is not None
        view = memoryview(current)[:count]
        if count < _IN_BULK:
            return bytes(view)
        self._current = None
        self._lent.append(current)
        if len(self._lent) > _LENT:
            self._lent.popleft()
        return view.toreadonly()

    def _returned(self) -> bytearray | None:
        for _ in range(len(self._lent)):
            buffer = self._lent.popleft()
            try:
                # This is refused while there is a view of it.
                buffer.append(0)
            except BufferError:
                self._lent.append(buffer)
            else:
                buffer.pop()
                return buffer
        return None


def _new_buffer() -> bytearray:
    buffer = bytearray(RECEIVE_SIZE + 1)
    buffer.pop()  # leaves room for one more
    return buffer


_threads = threading.local()


def _of_thread() -> _Arrivals:
    """Return the arrivals of the thread that runs."""
    try:
        found: _Arrivals = _threads.arrivals
    except AttributeError:
        found = _threads.arrivals = _Arrivals()
    return found


class AsyncioTransport(asyncio.BufferedProtocol, Transport):
    """A socket on asyncio (also uvloop), through a protocol of our own.

    anyio's stream would do, but a cancelled ``send`` of it is ambiguous, it passes through the event loop on every call,
    and it registers and unregisters the socket for every wait.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._arrivals = _of_thread()  # an event loop stays in its thread
        self._chunks: deque[bytes | memoryview] = deque()
        self._buffered = 0
        self._reading = True
        self._eof = False
        self._receiver: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None
        self._writable = True
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._slice = time.perf_counter()
        self._quickack: Callable[[], None] | None = None
        self._watcher: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf
        self._peer: tuple[str, int] | str | None = None

    # asyncio's side.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        # send() returns once everything is with the operating system: a buffer may then be used again.
        transport.set_write_buffer_limits(high=0)
        # Both kinds of event loop set TCP_NODELAY themselves. What a socket is asked or told through uvloop costs another
        # socket each time, so it is asked for its peer once; only those of TCP are at a host and port.
        self._peer = plain_address(transport.get_extra_info("peername"))
        if QUICKACK is not None and isinstance(self._peer, tuple):
            set_option = transport.get_extra_info("socket").setsockopt
            quickack = QUICKACK

            def acknowledge() -> None:
                try:
                    set_option(socket.IPPROTO_TCP, quickack, 1)
                except OSError:
                    pass

            self._quickack = acknowledge

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._arrivals.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._chunks.append(self._arrivals.take(nbytes))
        self._buffered += nbytes
        if self._buffered > _HIGH_WATER and self._reading:
            self._reading = False
            self._transport.pause_reading()
        receiver = self._receiver
        if receiver is None or receiver.done():
            self._notify()
        else:
            receiver.set_result(None)

    def eof_received(self) -> bool:
        self._eof = True
        self._notify()
        return True  # we may still have something to say

    def _notify(self) -> None:
        receiver = self._receiver
        if receiver is not None:
            if not receiver.done():
                receiver.set_result(None)
        elif self._watcher is not None:
            self._watcher()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self._salvage()
        self._eof = True
        if exc is not None and self.error is None:
            self.error = exc
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _wake(self._sender)
        _wake(self._closed)
        self._notify()

    def _salvage(self) -> None:
        """Take what the peer sent before it reset the connection, such as an A-ABORT while we were sending.

        A write that fails makes asyncio close the socket without reading what has arrived; here it is still open.
        """
        with contextlib.suppress(OSError, ValueError):
            descriptor = self._transport.get_extra_info("socket").fileno()
            while self._buffered <= _HIGH_WATER and (data := os.read(descriptor, RECEIVE_SIZE)):
                self._chunks.append(data)
                self._buffered += len(data)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        _wake(self._sender)

    # Our side.

    def watch(self, callback: Callable[[], None]) -> bool:
        self._watcher = callback
        return True

    @property
    def has_received(self) -> bool:
        return bool(self._chunks) or self._eof

    def receive_nowait(self) -> bytes | memoryview | None:
        if self._chunks:
            return self._take()
        return b"" if self._eof else None

    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes | memoryview:
        chunks = self._chunks
        if not chunks:
            if self._eof:
                return b""
            if acknowledge and self._quickack is not None:
                self._quickack()
            waiter = self._receiver = self._loop.create_future()
            if deadline != math.inf:
                self._wake_at(deadline)
            try:
                await waiter
            finally:
                self._receiver = None
                self._deadline = math.inf
            self._slice = time.perf_counter()
            if not chunks:
                if self._eof:
                    return b""
                raise TimeoutError
        elif time.perf_counter() - self._slice > TIME_SLICE:
            await checkpoint()
            self._slice = time.perf_counter()
        return self._take()

    @property
    def is_receiving(self) -> bool:
        return self._receiver is not None

    def interrupt(self) -> None:
        _wake(self._receiver)

    def _take(self) -> bytes | memoryview:
        chunks = self._chunks
        data = chunks.popleft()
        self._buffered -= len(data)
        if not self._reading and not chunks:
            self._reading = True
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    async def send(self, data: bytes | bytearray | memoryview, deadline: float = math.inf) -> None:
        if self._closed.done() or self._transport.is_closing():
            raise lost(self.error)
        # The transport takes all of it, so a send that is cancelled from here on still goes out whole.
        self._transport.write(data)
        if not self._writable:
            await self._drain(deadline)
        elif time.perf_counter() - self._slice > TIME_SLICE:
            await checkpoint()
            self._slice = time.perf_counter()

    async def flush(self, deadline: float = math.inf) -> None:
        if not self._writable:
            await self._drain(deadline)

    def send_nowait(self, data: bytes) -> bool:
        if self._closed.done() or self._transport.is_closing() or not self._writable:
            return False
        self._transport.write(data)
        return True

    async def _drain(self, deadline: float) -> None:
        while not self._writable:
            if self._closed.done():
                raise lost(self.error)
            waiter = self._sender = self._loop.create_future()
            # Whoever waits for room holds the one write door, so this timer does not compete with the reader's.
            timer = None if deadline == math.inf else self._loop.call_at(deadline, _wake, waiter)
            try:
                await waiter
            finally:
                self._sender = None
                if timer is not None:
                    timer.cancel()
            if not self._writable and not self._closed.done():
                raise TimeoutError
        self._slice = time.perf_counter()

    def _wake_at(self, deadline: float) -> None:
        """Wake the receiver at a deadline. One timer is kept, and only moved when it is too late."""
        self._deadline = deadline
        timer = self._timer
        if timer is None or timer.when() > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        deadline = self._deadline
        if self._receiver is None or deadline == math.inf:
            return
        if deadline <= self._loop.time() + 0.001:
            _wake(self._receiver)
        else:
            self._timer = self._loop.call_at(deadline, self._expire)

    def abort(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed.done():
            return
        self._transport.close()
        if self._writable:
            return  # nothing is left to be sent: the event loop closes the socket in its next round
        try:
            with anyio.move_on_after(_base.CLOSE_TIME, shield=True):
                if not self._closed.done():
                    await asyncio.shield(self._closed)
        finally:
            if not self._closed.done():
                self._transport.abort()

    @property
    def socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    @property
    def peer_address(self) -> tuple[str, int] | str | None:
        return self._peer

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        return plain_address(self._transport.get_extra_info("sockname"))


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
