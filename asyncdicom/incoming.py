"""What comes in on an association: boxes in which messages are filed, and data sets that are still on their way."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from .exceptions import DataSetError
from .protocol.dimse import DataSetReceived
from .protocol.framing import RECEIVE_SIZE
from .protocol.upper_layer import Pause

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["TURN", "Box", "IncomingDataSet", "Oversized"]

#: After so many events others get their turn: a chunk of 256 KiB can hold thousands of messages and pieces.
TURN = 256

T = TypeVar("T")


class Box(Generic[T]):
    """Where messages are filed for one waiter."""

    __slots__ = ("event", "items")

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.event: anyio.Event | None = None

    def put(self, item: T) -> None:
        """File something and wake who waits for it."""
        self.items.append(item)
        if self.event is not None:
            self.event.set()


class Oversized(bytes):
    """Stands for a data set that was longer than ``Limits.identifier`` and was discarded."""


class IncomingDataSet:
    """The data set of a C-STORE request on its way in; it holds the baton of its association until it ends."""

    __slots__ = ("_connection", "_limit", "_streak", "done", "failed", "since", "size")

    def __init__(self, connection: Connection, limit: int | None) -> None:
        self._connection = connection
        self._limit = math.inf if limit is None else limit
        self._streak = 0
        self.since = connection.now()
        self.done = False
        self.failed = False
        self.size = 0

    @property
    def inline_file_io(self) -> bool:
        """Whether small pieces may be written in the event loop."""
        return self._connection.limits.inline_file_io

    async def gather(self, size: int) -> list[memoryview]:
        """Return the next piece, and those behind it that are here already until they are *size* bytes; none at the end.

        :raises DataSetError: it is longer than ``Limits.data_set``.
        :raises AssociationError: the association ended first.
        :raises OperationTimeout: the peer sent nothing for ``Timeouts.message``.

        Cancelling it loses nothing.
        """
        pieces: list[memoryview] = []
        if self.done:
            return pieces
        connection = self._connection
        next_event = connection.core.next_event
        left = size
        streak = self._streak
        while left > 0:
            if streak >= TURN:
                if pieces:  # nothing is awaited with them in hand: it could be cancelled
                    break
                streak = 0
                await checkpoint()
            streak += 1
            event = next_event()
            if type(event) is DataSetReceived:
                data, last = event
                if data:
                    pieces.append(data)
                    left -= len(data)
                if last:
                    self._finish()
                    break
            elif event is None:
                if pieces:
                    break
                if connection.ended:
                    self._finish()
                    raise connection.error()
                await connection.receive_some(math.inf)
            elif type(event) is Pause:
                streak = TURN
            else:
                connection.handle(event)
                if connection.ended:
                    self._finish()
                    await connection.flush_control()
                    raise connection.error()
        self._streak = streak
        self.size += size - left
        if self.size > self._limit:
            self.failed = True
            raise DataSetError(f"a data set of more than {self._limit} bytes")
        return pieces

    async def discard(self) -> None:
        """Read to the end and forget it."""
        self._limit = math.inf
        while not self.done:
            await self.gather(RECEIVE_SIZE)

    def _finish(self) -> None:
        if not self.done:
            self.done = True
            self._connection.incoming_done(self)
