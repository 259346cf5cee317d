"""What goes out on an association: the door that one message passes at a time, and messages that are read on their way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import anyio

from .protocol.framing import recycle

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Door", "Outgoing", "Writer"]


class Door:
    """A lock that costs nothing when nobody is inside. Waiters enter in turn; cancelling one changes nothing."""

    __slots__ = ("_locked", "_waiters")

    def __init__(self) -> None:
        self._locked = False
        self._waiters: deque[anyio.Event] = deque()

    def locked(self) -> bool:
        return self._locked

    def enter(self) -> bool:
        """Enter at once if nobody is inside, and tell whether that was so; else :meth:`wait`."""
        if self._locked:
            return False
        self._locked = True
        return True

    async def wait(self) -> None:
        """Enter when it is one's turn, after those who are waiting."""
        event = anyio.Event()
        self._waiters.append(event)
        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                self.leave()
            else:
                self._waiters.remove(event)
            raise

    def leave(self) -> None:
        """Open the door, or hold it for the next in turn."""
        if self._waiters:
            self._waiters.popleft().set()
        else:
            self._locked = False

    async def __aenter__(self) -> None:
        if not self.enter():
            await self.wait()

    async def __aexit__(self, *exc: object) -> None:
        self.leave()


class Outgoing(Protocol):
    """A data set to send that is not in memory."""

    @property
    def size(self) -> int | None:
        """Bytes that are left, ``None`` if that is not known."""

    async def fill(self, limit: int) -> tuple[memoryview | bytes | None, bool]:
        """Return up to ``limit`` more bytes and whether they are the last.

        Cancelling it loses nothing: the next call returns the same bytes.
        """

    async def fill_gaps(self, gaps: list[memoryview]) -> None:
        """Read exactly as many bytes as the gaps hold into them; called only when :attr:`size` is known."""


class Writer:
    """A message on its way out whose data set is not in memory."""

    def __init__(
        self,
        connection: Connection,
        source: Outgoing,
        context_id: int,
        prefix: bytes,
        begun: Callable[[], None] | None,
    ) -> None:
        self._connection = connection
        self._source = source
        self._context_id = context_id
        self._prefix = prefix
        self._begun = begun
        self._done = False
        self.started = False
        self.reading = False  # from the source, whose errors are not those of the transport

    @property
    def remaining(self) -> float:
        """Bytes of the data set that have not been handed to the transport."""
        if self._done:
            return 0
        size = self._source.size
        return math.inf if size is None else size

    async def run(self) -> None:
        connection = self._connection
        core = connection.core
        now = connection.now
        limit = connection.timeouts.write
        while not self._done:
            self.reading = True
            buffer, last = await self._next()
            self.reading = False
            if connection.ended:
                raise connection.error()
            core.send_buffer(buffer, last=last)
            self._done = last
            self._prefix = b""
            for piece in core.upper_layer.data_to_send():
                if not self.started:
                    self.started = True
                    if self._begun is not None:
                        self._begun()
                connection._sent = True
                await connection.transport.send(piece, math.inf if limit is None else now() + limit)
                recycle(piece)

    async def finish(self) -> None:
        """Go on after a cancelled :meth:`run`."""
        await self._connection.transport.flush()
        await self.run()

    async def _next(self) -> tuple[memoryview, bool]:
        layout = self._connection.core.layout
        size = self._source.size
        if size is not None:
            take = layout.portion(size)
            buffer, gaps = layout.place(self._context_id, take, last=take == size, prefix=self._prefix)
            await self._source.fill_gaps(gaps)
            return buffer, take == size
        data, last = await self._source.fill(layout.buffer_payload)
        view = memoryview(data or b"")
        buffer, gaps = layout.place(self._context_id, len(view), last=last, prefix=self._prefix)
        start = 0
        for gap in gaps:
            gap[:] = view[start : start + len(gap)]
            start += len(gap)
        return buffer, last
