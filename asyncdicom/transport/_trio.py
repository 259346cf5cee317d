"""Sockets on trio."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from ..protocol.framing import RECEIVE_SIZE
from ._base import QUICKACK, Transport, keep_alive, lost, peer_name

if TYPE_CHECKING:
    import trio

__all__ = ["TrioTransport"]


class TrioTransport(Transport):
    """A socket on trio."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        keep_alive(sock)
        over_tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        if over_tcp:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._quickack = over_tcp and QUICKACK is not None
        self._peer = peer_name(sock)
        # anyio's scope on trio is one around two of trio's own: too much for each message.
        self._scope: type[trio.CancelScope] = sys.modules["trio"].CancelScope
        self._receiving: trio.CancelScope | None = None

    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes | memoryview:
        if acknowledge and self._quickack:
            assert QUICKACK is not None
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        with self._scope(deadline=deadline) as self._receiving:
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
        with self._scope(deadline=deadline):
            try:
                while rest:
                    sent = await self._socket.send(rest)
                    rest = self.unsent = rest[sent:]
            except (OSError, self._closed_error()) as exc:
                self.error = exc
                raise lost(exc) from exc
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
