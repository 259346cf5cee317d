"""Listening sockets, and what is accepted from them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from ._base import local_name

__all__ = ["Listener", "listen"]

#: Connections that are accepted before those that were are served.
_ACCEPT_BURST = 32


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
        return tuple(address for sock in self.sockets if (address := local_name(sock)) is not None)

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
