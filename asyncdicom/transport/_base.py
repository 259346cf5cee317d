"""What a transport is, and what all of them share."""

from __future__ import annotations

import abc
import math
import os
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

from ..exceptions import AssociationClosed

__all__ = [
    "CLOSE_TIME",
    "QUICKACK",
    "TIME_SLICE",
    "Transport",
    "keep_alive",
    "local_name",
    "lost",
    "on_trio",
    "peer_name",
    "plain_address",
]

#: A task that finds its bytes ready yields to others after this time, in seconds.
TIME_SLICE = 0.005

#: Seconds that closing may take; what has not gone out by then is dropped.
CLOSE_TIME = 1.0

#: The socket option of Linux that acknowledges at once; ``None`` elsewhere.
QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


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
    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes | memoryview:
        """Return the next bytes, at most about 256 KiB, or ``b""`` at the end of the stream.

        They do not change as long as anybody has a view of them.

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

    @property
    def has_received(self) -> bool:
        """Whether something, or the end, was taken off the socket that nobody has received."""
        return False

    def receive_nowait(self) -> bytes | memoryview | None:
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
        return peer_name(self.socket)

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        """Our own (host, port), the path of a UNIX socket, or ``None``."""
        return local_name(self.socket)

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session, if there is one."""
        return None


def peer_name(sock: Any) -> tuple[str, int] | str | None:
    if sock is None:
        return None
    try:
        return plain_address(sock.getpeername())
    except OSError:
        return None


def local_name(sock: Any) -> tuple[str, int] | str | None:
    if sock is None:
        return None
    try:
        return plain_address(sock.getsockname())
    except OSError:
        return None


def plain_address(address: Any) -> tuple[str, int] | str | None:
    if isinstance(address, tuple):
        return str(address[0]), int(address[1])
    return os.fsdecode(address) if address else None


def lost(cause: BaseException | None) -> AssociationClosed:
    error = AssociationClosed(f"the connection was lost: {cause}" if cause else "the connection was closed")
    error.__cause__ = cause
    return error


def on_trio() -> bool:
    module: Any = sys.modules.get("trio")
    return module is not None and bool(module.lowlevel.in_trio_task())


def keep_alive(sock: Any) -> None:
    """Let the system find out whether the peer of a socket is still there, when nothing is said for hours."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except (OSError, ValueError):
        pass  # the connection is lost already; the first use of it will say so
