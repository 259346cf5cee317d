"""Listening sockets, and what is accepted from them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from ._base import local_name, on_trio

__all__ = ["Listener", "listen"]

#: Connections that are accepted before those that were are served.
_ACCEPT_BURST = 32

#: Seconds that accepting pauses when the process is out of descriptors.
_PAUSE = 0.1


class Listener:
    """Listening sockets, from which connections are accepted one by one.

    :param sockets: non-blocking sockets that listen; the listener owns them.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self.sockets = tuple(sockets)
        self._closed = False
        self._readers: dict[socket.socket, _Reader] = {}

    @property
    def addresses(self) -> tuple[tuple[str, int] | str, ...]:
        """The addresses in use, with the ports that the system picked."""
        return tuple(address for sock in self.sockets if (address := local_name(sock)) is not None)

    async def accept(self, sock: socket.socket, take: Callable[[socket.socket], object]) -> None:
        """Give the connections to one of the sockets away as they come, until it is closed.

        When the process is out of descriptors, accepting pauses for a moment and goes on.

        :param take: takes a connection, a non-blocking socket; it is also called where no task runs.
        """
        if self._closed:
            return
        if not on_trio():
            try:
                reader = _Reader(self, sock, take)
            except NotImplementedError:
                pass  # an event loop that watches no sockets of others (Windows)
            else:
                self._readers[sock] = reader
                await reader.wait()
                return
        while not self._closed:
            try:
                await anyio.wait_readable(sock)
            except (anyio.ClosedResourceError, OSError, ValueError):
                return
            try:
                goes_on = self.take_some(sock, take)
            except OSError:
                return
            if goes_on:
                await checkpoint()  # those that were accepted get their turn
            else:
                await anyio.sleep(_PAUSE)

    def take_some(self, sock: socket.socket, take: Callable[[socket.socket], object]) -> bool:
        """Accept what has come, but no more than a burst; ``False``: the process is out of descriptors.

        :raises OSError: the socket listens no more.
        """
        for _ in range(_ACCEPT_BURST):
            if self._closed:
                break
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as exc:
                if exc.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK):
                    raise
                # Otherwise a connection died in the queue, which is not our fault.
                return exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
            connection.setblocking(False)
            take(connection)
        return True

    def close(self) -> None:
        """Stop listening."""
        if not self._closed:
            self._closed = True
            for sock in self.sockets:
                # Whoever waits for a connection must let go first: the descriptor's number may be used again.
                reader = self._readers.pop(sock, None)
                if reader is not None:
                    reader.close()
                with contextlib.suppress(OSError):
                    if reader is None:
                        anyio.notify_closing(sock)
                    sock.close()


class _Reader:
    """Accepts in the event loop itself (asyncio): the socket is registered once, not for each connection anew."""

    def __init__(self, listener: Listener, sock: socket.socket, take: Callable[[socket.socket], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._sock = sock
        self._take = take
        self._timer: asyncio.TimerHandle | None = None
        self._ended = self._loop.create_future()
        self._begin()

    def _begin(self) -> None:
        self._timer = None
        self._loop.add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        try:
            goes_on = self._listener.take_some(self._sock, self._take)
        except OSError:
            self.close()
            return
        if not goes_on:
            self._loop.remove_reader(self._sock)
            self._timer = self._loop.call_later(_PAUSE, self._begin)

    async def wait(self) -> None:
        """Wait until the socket is closed. Cancelling it ends accepting."""
        try:
            await self._ended
        finally:
            self.close()

    def close(self) -> None:
        """Accept no more."""
        if not self._ended.done():
            self._ended.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._sock.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._sock)


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
