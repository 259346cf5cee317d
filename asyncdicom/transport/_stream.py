"""Any byte stream of anyio."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import anyio

from ..protocol.framing import RECEIVE_SIZE
from . import _base
from ._base import Transport, lost, plain_address

if TYPE_CHECKING:
    from anyio.abc import ByteStream

__all__ = ["StreamTransport"]


class StreamTransport(Transport):
    """Any anyio byte stream as a transport.

    :param stream: an :class:`anyio.abc.ByteStream`; it is closed with the transport.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._receiving: anyio.CancelScope | None = None
        self._sending: anyio.CancelScope | None = None
        self._aborted = False

    async def receive(self, deadline: float = math.inf, *, acknowledge: bool = False) -> bytes | memoryview:
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
            raise lost(self.error)
        self._sending = scope
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_all)
                try:
                    await done.wait()
                finally:
                    if not done.is_set():
                        scope.deadline = min(scope.deadline, anyio.current_time() + _base.CLOSE_TIME)
        finally:
            self._sending = None
        if error is None and self.broken and not self._aborted:
            raise TimeoutError
        if error is not None or self.broken:
            self.error = error
            raise lost(error) from error

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
        with anyio.move_on_after(_base.CLOSE_TIME, shield=True):
            with contextlib.suppress(anyio.BrokenResourceError, OSError):
                await self._stream.aclose()

    @property
    def peer_address(self) -> tuple[str, int] | str | None:
        return plain_address(self._stream.extra(anyio.abc.SocketAttribute.remote_address, None))

    @property
    def local_address(self) -> tuple[str, int] | str | None:
        return plain_address(self._stream.extra(anyio.abc.SocketAttribute.local_address, None))
