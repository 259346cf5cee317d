"""Send on what is being received, piece by piece as it comes: the data set of a C-STORE, to another association."""

from __future__ import annotations

from .instances import ReceivedData

__all__ = ["ReceivedOutgoing"]


class ReceivedOutgoing:
    """A data set that is coming in, as something to send. Never more of it is in memory than fits in a buffer, twice.

    :param data: it must not have been consumed yet, and is consumed by this.
    :raises LocalProtocolError: it was, or is over.
    """

    #: Nobody knows how long it is before its end has come.
    size = None

    def __init__(self, data: ReceivedData) -> None:
        data._begin()
        self._data = data
        self._pieces: list[memoryview] = []
        self._held = 0
        self._ended = False

    async def fill(self, limit: int) -> tuple[bytes, bool]:
        """Return up to ``limit`` more bytes and whether they are the last.

        :raises AssociationError: the association that it comes from ended first.

        Cancelling it loses nothing.
        """
        # One byte more than is asked for tells that these are not the last.
        while self._held <= limit and not self._ended:
            pieces = await self._data._gather(limit + 1 - self._held)
            self._ended = not pieces
            self._pieces += pieces
            self._held += sum(map(len, pieces))
        joined = b"".join(self._pieces)
        rest = memoryview(joined)[limit:]
        self._pieces = [rest] if rest else []
        self._held = len(rest)
        data = joined[:limit]
        last = self._ended and not rest
        if last:
            self._data.consumed = True
            data += b"\0" * (len(data) % 2)
        return data, last

    async def fill_gaps(self, gaps: list[memoryview]) -> None:
        """Not called, as the size is not known."""
        raise NotImplementedError
