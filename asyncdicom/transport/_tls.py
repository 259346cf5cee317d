"""TLS over any transport, by memory BIOs."""

from __future__ import annotations

import contextlib
import math
import ssl
from typing import Any

import anyio

from ..exceptions import AssociationClosed
from ..protocol.framing import RECEIVE_SIZE
from . import _base
from ._base import Transport, lost

__all__ = ["TLSTransport"]


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
                    raise lost(self._inner.error) from self._inner.error
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

    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes | memoryview:
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
            raise lost(exc) from exc
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
            with anyio.move_on_after(_base.CLOSE_TIME, shield=True):
                with contextlib.suppress(AssociationClosed, TimeoutError):
                    await self._send_pending(math.inf)
        await self._inner.aclose()

    @property
    def socket(self) -> Any:
        return self._inner.socket

    @property
    def has_received(self) -> bool:
        return bool(self._incoming.pending or self._ssl.pending()) or self._inner.has_received

    @property
    def peer_address(self) -> tuple[str, int] | str | None:
        return self._inner.peer_address

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        return self._inner.local_address

    @property
    def tls(self) -> ssl.SSLObject | None:
        return self._ssl
