"""Opening the sockets that a server listens on, before there is an event loop if that is wanted."""

from __future__ import annotations

import errno
import os
import socket
import stat

from .exceptions import ConnectError
from .settings import Address
from .transport import listen as open_sockets

__all__ = ["listen"]


def listen(address: str | Address, *, reuse_port: bool = False) -> list[socket.socket]:
    """Open listening sockets, for the ``sockets`` of a :class:`~asyncdicom.Server`. It blocks, for names are looked up.

    A program that has to give up its rights, or to share a port among processes, listens first and serves later. The path of
    a UNIX socket that nobody listens on any more is used again.

    :param address: an AE title and where to listen, as for a server.
    :param reuse_port: let other processes listen on the same port, and the system choose between them (``SO_REUSEPORT``).
    :return: non-blocking sockets, one for each address of a host name.
    :raises ConnectError: the address cannot be used.
    """
    where = Address.parse(address)
    try:
        try:
            return open_sockets(where.host, where.port, reuse_port=reuse_port)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not _is_left_over(where.host):
                raise
        os.unlink(where.host)
        return open_sockets(where.host, where.port)
    except OSError as exc:
        raise ConnectError(f"cannot listen on {where}: {(exc.strerror or str(exc)).lower()}") from exc


def _is_left_over(host: str) -> bool:
    """Say whether a host is the path of a UNIX socket whose server has ended."""
    if not host.startswith("/"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        try:
            return stat.S_ISSOCK(os.stat(host).st_mode) and sock.connect_ex(host) == errno.ECONNREFUSED
        except OSError:
            return False
