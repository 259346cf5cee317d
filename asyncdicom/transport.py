"""Byte transports: TCP and UNIX sockets on asyncio and trio, TLS, any anyio byte stream, and listeners.

Theory of operation
-------------------
A :class:`Transport` is five things: receive, send, what a cancelled send left undone, close, and what is known of the
peer. The errors of sockets, TLS and streams become ours here and nowhere else: a connection that is lost is the end of
the bytes (``receive`` returns ``b""``) with the cause kept in :attr:`Transport.error`.

*A cancelled send is exact.* A message must never be left half-written, so whoever cancels a send must be able to learn
how far it got. :attr:`Transport.unsent` holds what remains, :meth:`Transport.flush` finishes it, and
:attr:`Transport.broken` says that this cannot be known (a foreign stream), so that the connection is worthless.

*Nothing is paid per call.* When bytes are there, or the socket takes them, no task switch, timer or scope is needed. A
task that never has to wait still yields every few milliseconds, so that others get their turn.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import errno
import math
import os
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from .exceptions import AssociationClosed, ConnectError, OperationTimeout
from .protocol.framing import RECEIVE_SIZE

if TYPE_CHECKING:
    import trio
    from anyio.abc import ByteStream

__all__ = ["Listener", "StreamTransport", "TLSTransport", "Transport", "listen", "open_tcp", "wrap_socket"]

#: A task that finds its bytes ready yields to others after this time, in seconds.
_TIME_SLICE = 0.005
#: Connections that are accepted before those that were are served.
_ACCEPT_BURST = 32
#: Received bytes that may wait in an asyncio transport before the socket is no longer read.
_HIGH_WATER = RECEIVE_SIZE
#: Seconds that closing may take; what has not gone out by then is dropped.
_CLOSE_TIME = 1.0

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Transport(abc.ABC):
    """A connected byte transport.

    :ivar error: why the connection was lost, if it was by an error.
    :ivar unsent: what a cancelled or timed-out :meth:`send` has not handed over.
    :ivar broken: a send was cut short at a place that is not known.
    """

    error: BaseException | None = None
    unsent: memoryview | None = None
    broken: bool = False

    @abc.abstractmethod
    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes:
        """Return the next bytes, at most about 256 KiB, or ``b""`` at the end of the stream.

        :param deadline: the time of :func:`anyio.current_time` at which to give up, in seconds.
        :param acknowledge: acknowledge at once what has been received, because the peer has more to say: stock peers
            write each PDU in two parts with Nagle's algorithm on, and the second waits for the ACK of the first.
        :raises TimeoutError: the deadline passed.

        Cancelling it loses nothing.
        """

    @abc.abstractmethod
    async def send(self, data: bytes | bytearray | memoryview, deadline: float = math.inf) -> None:
        """Hand all of ``data`` to the operating system.

        :raises TimeoutError: the deadline passed; :attr:`unsent` or :attr:`broken` tells what is left.
        :raises AssociationClosed: the connection is lost.
        """

    async def flush(self, deadline: float = math.inf) -> None:
        """Finish a send that was cut short."""
        rest = self.unsent
        if rest is not None:
            self.unsent = None
            await self.send(rest, deadline)

    def send_nowait(self, data: bytes) -> bool:
        """Send a few bytes without waiting, if all of them can go out at once; tell whether they did."""
        return False

    def watch(self, callback: Callable[[], None]) -> bool:
        """Have ``callback`` called when something can be received and nobody waits for it, if that is possible.

        It may then take what there is by :meth:`receive_nowait`.
        """
        return False

    def receive_nowait(self) -> bytes | None:
        """Return bytes that are here already, ``b""`` at the end of the stream, ``None`` if there is nothing now."""
        return None

    @property
    @abc.abstractmethod
    def is_receiving(self) -> bool:
        """Whether somebody is in :meth:`receive`."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Let whoever is in :meth:`receive` go, with a ``TimeoutError`` unless something has come."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Close at once, without waiting; what was not sent is lost."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close, bounded in time."""

    @property
    def socket(self) -> Any:
        """The socket below, if there is one (for its options only)."""
        return None

    @property
    def peer_address(self) -> tuple[str, int] | str | None:
        """The peer's (host, port), the path of a UNIX socket, or ``None``."""
        return _peer_name(self.socket)

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        """Our own (host, port), the path of a UNIX socket, or ``None``."""
        return _local_name(self.socket)

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session, if there is one."""
        return None


def _peer_name(sock: Any) -> tuple[str, int] | str | None:
    if sock is None:
        return None
    try:
        return _plain_address(sock.getpeername())
    except OSError:
        return None


def _local_name(sock: Any) -> tuple[str, int] | str | None:
    if sock is None:
        return None
    try:
        return _plain_address(sock.getsockname())
    except OSError:
        return None


def _plain_address(address: Any) -> tuple[str, int] | str | None:
    if isinstance(address, tuple):
        return str(address[0]), int(address[1])
    return os.fsdecode(address) if address else None


def _lost(cause: BaseException | None) -> AssociationClosed:
    error = AssociationClosed(f"the connection was lost: {cause}" if cause else "the connection was closed")
    error.__cause__ = cause
    return error


def _on_trio() -> bool:
    module: Any = sys.modules.get("trio")
    return module is not None and bool(module.lowlevel.in_trio_task())


class _AsyncioTransport(asyncio.Protocol, Transport):
    """A socket on asyncio (also uvloop), through a protocol of our own.

    anyio's stream would do, but a cancelled ``send`` of it is ambiguous, it passes through the event loop on every call,
    and it registers and unregisters the socket for every wait.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._reading = True
        self._eof = False
        self._receiver: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None
        self._writable = True
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._slice = 0.0
        self._quickack: Callable[[], None] | None = None
        self._watcher: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf

    # asyncio's side.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        # send() returns once everything is with the operating system: a buffer may then be used again.
        transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        _set_options(sock)
        if _QUICKACK is not None and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            set_option = sock.setsockopt
            quickack = _QUICKACK

            def acknowledge() -> None:
                with contextlib.suppress(OSError):
                    set_option(socket.IPPROTO_TCP, quickack, 1)

            self._quickack = acknowledge

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER and self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._notify()

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

    def receive_nowait(self) -> bytes | None:
        if self._chunks:
            return self._take()
        return b"" if self._eof else None

    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes:
        chunks = self._chunks
        if not chunks:
            if self._eof:
                return b""
            if acknowledge and self._quickack is not None:
                self._quickack()
            waiter = self._receiver = self._loop.create_future()
            try:
                await self._wait(waiter, deadline)
            finally:
                self._receiver = None
            if not chunks:
                if self._eof:
                    return b""
                raise TimeoutError
        elif time.perf_counter() - self._slice > _TIME_SLICE:
            await checkpoint()
            self._slice = time.perf_counter()
        return self._take()

    @property
    def is_receiving(self) -> bool:
        return self._receiver is not None

    def interrupt(self) -> None:
        _wake(self._receiver)

    def _take(self) -> bytes:
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
            raise _lost(self.error)
        # The transport takes all of it, so a send that is cancelled from here on still goes out whole.
        self._transport.write(data)
        if not self._writable:
            await self._drain(deadline)
        elif time.perf_counter() - self._slice > _TIME_SLICE:
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
                raise _lost(self.error)
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

    async def _wait(self, waiter: asyncio.Future[None], deadline: float) -> None:
        """Wait for ``waiter``; wake it at the deadline. One timer is kept and only moved when it is too late."""
        self._deadline = deadline
        if deadline != math.inf and (self._timer is None or self._timer.when() > deadline):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expire)
        try:
            await waiter
        finally:
            self._deadline = math.inf
        self._slice = time.perf_counter()

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
        try:
            with anyio.move_on_after(_CLOSE_TIME, shield=True):
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
        return _plain_address(self._transport.get_extra_info("peername"))

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        return _plain_address(self._transport.get_extra_info("sockname"))


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


class _TrioTransport(Transport):
    """A socket on trio."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        _set_options(sock)
        self._quickack = _QUICKACK is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
        self._peer = _peer_name(sock)
        self._receiving: anyio.CancelScope | None = None

    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes:
        if acknowledge and self._quickack:
            assert _QUICKACK is not None
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        with anyio.CancelScope(deadline=deadline) as self._receiving:
            try:
                return await self._socket.recv(RECEIVE_SIZE)
            except (OSError, self._closed_error()) as exc:
                self.error = exc
                return b""
            finally:
                self._receiving = None
        raise TimeoutError

    @property
    def is_receiving(self) -> bool:
        return self._receiving is not None

    def interrupt(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()

    async def send(self, data: bytes | bytearray | memoryview, deadline: float = math.inf) -> None:
        rest = self.unsent = memoryview(data)
        with anyio.CancelScope(deadline=deadline):
            try:
                while rest:
                    sent = await self._socket.send(rest)
                    rest = self.unsent = rest[sent:]
            except (OSError, self._closed_error()) as exc:
                self.error = exc
                raise _lost(exc) from exc
            self.unsent = None
            return
        raise TimeoutError

    def send_nowait(self, data: bytes) -> bool:
        if self.unsent is not None or self._socket.fileno() < 0 or os.name != "posix":
            return False
        try:
            return os.write(self._socket.fileno(), data) == len(data)
        except OSError:
            return False

    @staticmethod
    def _closed_error() -> type[Exception]:
        module: Any = sys.modules["trio"]
        error: type[Exception] = module.ClosedResourceError
        return error

    def abort(self) -> None:
        self._socket.close()

    async def aclose(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()

    @property
    def socket(self) -> Any:
        return self._socket

    @property
    def peer_address(self) -> tuple[str, int] | str | None:
        return self._peer


class StreamTransport(Transport):
    """Any anyio byte stream as a transport.

    :param stream: an :class:`anyio.abc.ByteStream`; it is closed with the transport.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._receiving: anyio.CancelScope | None = None
        self._sending: anyio.CancelScope | None = None
        self._aborted = False

    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes:
        if self._aborted:
            return b""
        with anyio.CancelScope(deadline=deadline) as scope:
            self._receiving = scope
            try:
                return bytes(await self._stream.receive(RECEIVE_SIZE))
            except anyio.EndOfStream:
                return b""
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
                self.error = exc
                return b""
            finally:
                self._receiving = None
        if self._aborted:
            return b""
        raise TimeoutError

    @property
    def is_receiving(self) -> bool:
        return self._receiving is not None

    def interrupt(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()

    async def send(self, data: bytes | bytearray | memoryview, deadline: float = math.inf) -> None:
        # Nobody knows how far a cancelled send of a foreign stream got. So it runs in a task of its own, which gets a
        # moment to finish when whoever waits for it is cancelled.
        self.broken = True
        error: Exception | None = None
        done = anyio.Event()
        scope = anyio.CancelScope(shield=True, deadline=deadline)

        async def send_all() -> None:
            nonlocal error
            with scope:
                try:
                    await self._stream.send(bytes(data))
                    self.broken = False
                except Exception as exc:
                    error = exc
            done.set()

        if self._aborted:
            raise _lost(self.error)
        self._sending = scope
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_all)
                try:
                    await done.wait()
                finally:
                    if not done.is_set():
                        scope.deadline = min(scope.deadline, anyio.current_time() + _CLOSE_TIME)
        finally:
            self._sending = None
        if error is None and self.broken and not self._aborted:
            raise TimeoutError
        if error is not None or self.broken:
            self.error = error
            raise _lost(error) from error

    def send_nowait(self, data: bytes) -> bool:
        send: Any = getattr(self._stream, "send_nowait", None)
        if send is None or self.broken:
            return False
        try:
            send(data)
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    def abort(self) -> None:
        self._aborted = True
        for scope in (self._receiving, self._sending):
            if scope is not None:
                scope.cancel()
        close: Any = getattr(self._stream, "close", None)
        if close is not None:
            close()

    async def aclose(self) -> None:
        with anyio.move_on_after(_CLOSE_TIME, shield=True):
            with contextlib.suppress(anyio.BrokenResourceError, OSError):
                await self._stream.aclose()

    @property
    def peer_address(self) -> tuple[str, int] | str | None:
        return _plain_address(self._stream.extra(anyio.abc.SocketAttribute.remote_address, None))

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        return _plain_address(self._stream.extra(anyio.abc.SocketAttribute.local_address, None))


class TLSTransport(Transport):
    """TLS over another transport, with up to 256 KiB a call in each direction.

    Encryption is synchronous and in memory, so what a cancelled send left undone stays as exact as it is below.
    """

    def __init__(self, inner: Transport, context: ssl.SSLContext, *, server_side: bool, hostname: str | None) -> None:
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=None if server_side else hostname
        )
        self._lock = anyio.Lock(fast_acquire=True)

    async def handshake(self, deadline: float = math.inf) -> None:
        """Do the handshake.

        :raises ssl.SSLError: it failed.
        :raises TimeoutError: the deadline passed.
        """
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_pending(deadline)
                data = await self._inner.receive(deadline)
                if not data:
                    raise _lost(self._inner.error) from self._inner.error
                self._incoming.write(data)
            except ssl.SSLError:
                with contextlib.suppress(AssociationClosed, TimeoutError):
                    await self._send_pending(min(deadline, anyio.current_time() + 1))  # the alert
                raise
            else:
                await self._send_pending(deadline)
                return

    async def _send_pending(self, deadline: float) -> None:
        """Send what is encrypted; whoever is cancelled meanwhile leaves it, in order, to the next one."""
        if self._outgoing.pending or self._inner.unsent is not None:
            async with self._lock:
                await self._inner.flush(deadline)
                data = self._outgoing.read()
                if data:
                    await self._inner.send(data, deadline)

    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes:
        while True:
            pieces = []
            size = 0
            try:
                while size < RECEIVE_SIZE:
                    piece = self._ssl.read(RECEIVE_SIZE - size)
                    if not piece:
                        break  # close_notify
                    pieces.append(piece)
                    size += len(piece)
            except ssl.SSLWantReadError:
                if not pieces:
                    if self._outgoing.pending:
                        await self._send_pending(deadline)
                    data = await self._inner.receive(deadline, acknowledge=acknowledge)
                    if data:
                        self._incoming.write(data)
                    else:
                        self.error = self._inner.error
                        self._incoming.write_eof()
                    continue
            except ssl.SSLError as exc:
                if not pieces:
                    # An end without close_notify is an end: DICOM has a framing of its own.
                    if not isinstance(exc, ssl.SSLEOFError) and self.error is None:
                        self.error = exc
                    return b""
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def send(self, data: bytes | bytearray | memoryview, deadline: float = math.inf) -> None:
        # Encrypted before anything is waited for, so that it is taken whole also if the wait is cancelled.
        try:
            view = memoryview(data)
            while view:
                view = view[self._ssl.write(view) :]
        except ssl.SSLError as exc:
            self.error = exc
            raise _lost(exc) from exc
        await self._send_pending(deadline)

    async def flush(self, deadline: float = math.inf) -> None:
        await self._send_pending(deadline)
        await self._inner.flush(deadline)

    def send_nowait(self, data: bytes) -> bool:
        if self._lock.locked() or self._inner.unsent is not None:
            return False
        try:
            self._ssl.write(data)
        except ssl.SSLError:
            return False
        return self._inner.send_nowait(self._outgoing.read())

    @property
    def is_receiving(self) -> bool:
        return self._inner.is_receiving

    def interrupt(self) -> None:
        self._inner.interrupt()

    @property
    def broken(self) -> bool:  # type: ignore[override]
        return self._inner.broken

    @property
    def unsent(self) -> memoryview | None:  # type: ignore[override]
        return self._inner.unsent

    def abort(self) -> None:
        self._inner.abort()

    async def aclose(self) -> None:
        with contextlib.suppress(ssl.SSLError, AssociationClosed, TimeoutError, OSError):
            self._ssl.unwrap()
        if not self._inner.broken and self._inner.unsent is None:
            with anyio.move_on_after(_CLOSE_TIME, shield=True):
                with contextlib.suppress(AssociationClosed, TimeoutError):
                    await self._send_pending(math.inf)
        await self._inner.aclose()

    @property
    def socket(self) -> Any:
        return self._inner.socket

    @property
    def peer_address(self) -> tuple[str, int] | str | None:
        return self._inner.peer_address

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        return self._inner.local_address

    @property
    def tls(self) -> ssl.SSLObject | None:
        return self._ssl


def _set_options(sock: Any) -> None:
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def open_tcp(
    host: str,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    connect_timeout: float | None = None,
    tls_timeout: float | None = None,
) -> Transport:
    """Connect to a host, over IPv6 or IPv4, whichever answers first.

    :param host: a name or an address; a path that starts with ``/`` is a UNIX socket.
    :param ssl_context: do a TLS handshake with it.
    :param server_hostname: the name to verify instead of ``host``.
    :param connect_timeout: seconds for the connection.
    :param tls_timeout: seconds for the handshake.
    :raises ConnectError: refused, unreachable, name or TLS failure; cancelling it closes what was opened.
    :raises OperationTimeout: of kind ``"connect"`` or ``"tls"``.
    """
    transport: Transport | None = None
    try:
        with anyio.CancelScope(deadline=_deadline(connect_timeout)):
            transport = await _connect(host, port)
    except OSError as exc:
        raise ConnectError(f"cannot connect to {_show(host, port)}: {_reason(exc)}") from exc
    except UnicodeError as exc:
        raise ConnectError(f"cannot connect to {_show(host, port)}: not a host name") from exc
    if transport is None:
        raise OperationTimeout("connect", connect_timeout)
    if ssl_context is None:
        return transport
    return await start_tls(
        transport,
        ssl_context,
        server_side=False,
        hostname=server_hostname or host,
        timeout=tls_timeout,
    )


async def start_tls(
    transport: Transport,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    hostname: str | None = None,
    timeout: float | None = None,
) -> TLSTransport:
    """Do a TLS handshake over a transport, which is closed when it fails.

    :raises ConnectError: the handshake failed.
    :raises OperationTimeout: of kind ``"tls"``.
    """
    try:
        tls = TLSTransport(transport, context, server_side=server_side, hostname=hostname)
        await tls.handshake(_deadline(timeout))
    except (ssl.SSLError, ValueError) as exc:
        await transport.aclose()
        raise ConnectError(f"TLS handshake failed: {_reason(exc)}") from exc
    except AssociationClosed as exc:
        await transport.aclose()
        raise ConnectError("TLS handshake failed: the connection was closed") from exc
    except TimeoutError:
        transport.abort()
        raise OperationTimeout("tls", timeout) from None
    except BaseException:
        transport.abort()
        raise
    return tls


def _deadline(seconds: float | None) -> float:
    return math.inf if seconds is None else anyio.current_time() + seconds


def _show(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else host if host.startswith("/") else f"{host}:{port}"


def _reason(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).replace("_", " ").lower()
    if isinstance(exc, socket.gaierror):
        return "the name cannot be resolved"
    if isinstance(exc, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(_reason(inner) for inner in exc.exceptions))
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno).lower()
    if isinstance(exc.__cause__, BaseExceptionGroup):
        return _reason(exc.__cause__)
    return str(exc)


async def _connect(host: str, port: int) -> Transport:
    if _on_trio():
        import trio

        if host.startswith("/"):
            stream = await trio.open_unix_socket(host)
        else:
            stream = await trio.open_tcp_stream(host, port)
        return _TrioTransport(stream.socket)
    loop = asyncio.get_running_loop()
    if host.startswith("/"):
        _, protocol = await loop.create_unix_connection(_AsyncioTransport, host)
    else:
        # An address needs no race between addresses, and uvloop tries those of a name one after the other.
        races = not _is_address(host) and not type(loop).__module__.startswith("uvloop")
        eyeballs: dict[str, Any] = {"happy_eyeballs_delay": 0.25} if races else {}
        _, protocol = await loop.create_connection(_AsyncioTransport, host, port, **eyeballs)
    return protocol


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


async def wrap_socket(sock: socket.socket) -> Transport:
    """Return a transport for a connected, non-blocking socket, which it owns from now on."""
    if _on_trio():
        import trio

        return _TrioTransport(trio.socket.from_stdlib_socket(sock))
    loop = asyncio.get_running_loop()
    try:
        _, protocol = await loop.connect_accepted_socket(_AsyncioTransport, sock)
    except BaseException:
        sock.close()
        raise
    return protocol


class Listener:
    """Listening sockets, from which connections are accepted one by one.

    :param sockets: non-blocking sockets that listen; the listener owns them.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self.sockets = tuple(sockets)
        self._closed = False

    @property
    def addresses(self) -> tuple[tuple[str, int] | str, ...]:
        """The addresses in use, with the ports that the system picked."""
        return tuple(address for sock in self.sockets if (address := _local_name(sock)) is not None)

    async def accept(self, sock: socket.socket) -> AsyncIterator[socket.socket]:
        """Yield the connections to one of the sockets, as they come.

        When the process is out of descriptors, accepting pauses for a moment and goes on.
        """
        while not self._closed:
            try:
                await anyio.wait_readable(sock)
            except (anyio.ClosedResourceError, OSError, ValueError):
                return
            for _ in range(_ACCEPT_BURST):
                try:
                    connection, _ = sock.accept()
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    break
                except OSError as exc:
                    if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        await anyio.sleep(0.1)
                        break
                    if self._closed or exc.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK):
                        return
                    break  # a connection that died in the queue is not our fault
                connection.setblocking(False)
                yield connection
                if self._closed:
                    return
            else:
                await checkpoint()  # those that were accepted get their turn

    def close(self) -> None:
        """Stop listening."""
        if not self._closed:
            self._closed = True
            for sock in self.sockets:
                with contextlib.suppress(OSError):
                    # Whoever waits for a connection must let go first: the descriptor's number may be used again.
                    anyio.notify_closing(sock)
                    sock.close()


def listen(host: str | None, port: int, *, backlog: int = 2048, reuse_port: bool = False) -> list[socket.socket]:
    """Open the listening sockets for a host, IPv4 and IPv6.

    :param host: a name, an address, ``None`` or ``""`` for every interface, or the path of a UNIX socket.
    :param port: 0 lets the system pick one, the same for all addresses.
    :param backlog: connections that may wait to be accepted.
    :param reuse_port: share the port with other processes (``SO_REUSEPORT``).
    :raises OSError: the address cannot be used.
    """
    if host and host.startswith("/"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        return [_bind(sock, host, backlog, reuse_port=False)]
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, proto, _, address in dict.fromkeys(infos):
            if family not in (socket.AF_INET, socket.AF_INET6):
                continue
            try:
                sock = socket.socket(family, kind, proto)
            except OSError:
                continue  # a family that this machine does not have
            if sockets and port == 0:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sockets.append(_bind(sock, address, backlog, reuse_port=reuse_port))
            except OSError as exc:
                if exc.errno == errno.EADDRNOTAVAIL and len(infos) > 1:
                    continue
                raise
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind(sock: socket.socket, address: Any, backlog: int, *, reuse_port: bool) -> socket.socket:
    try:
        sock.setblocking(False)
        if sock.family != getattr(socket, "AF_UNIX", None):
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock
