"""Notice that a peer is gone although the handler of its C-STORE does not read what it sent.

Theory of operation
-------------------
Whoever has a C-STORE request holds the baton of its association until the data set was read, and nobody else looks at what
comes: that is the backpressure. So the end of the connection, which stands behind the data set, is seen by whoever reads. A
handler that waits for something else would hold a dead connection, and its slot among the associations, for as long as it
waits. The operating system knows better: it tells that a peer has closed while there is still something to read. It is asked
once a second, and only for data sets of which nothing was read in that second.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable
from typing import Any

import anyio

from ..association import Association
from ..incoming import IncomingDataSet

__all__ = ["Lookout", "has_hung_up"]

#: How often is asked, in seconds.
_INTERVAL = 1.0


class Lookout:
    """The eye that a server has on the associations whose data sets are not read.

    :param associations: gives those that are established.
    """

    def __init__(self, associations: Callable[[], Iterable[Association]]) -> None:
        self._associations = associations
        self._begun = anyio.Event()

    def note(self) -> None:
        """Say that a data set has begun to come in."""
        if not self._begun.is_set():
            self._begun.set()

    async def run(self) -> None:
        """Look until cancelled; does nothing while no data set is coming in."""
        while True:
            await self._begun.wait()
            before: dict[IncomingDataSet, int] = {}
            while True:
                await anyio.sleep(_INTERVAL)
                unread = self._look(before)
                if not unread:
                    break
                before = unread
            self._begun = anyio.Event()

    def _look(self, before: dict[IncomingDataSet, int]) -> dict[IncomingDataSet, int]:
        """End what is lost; return how much was read of each data set that is coming in."""
        unread: dict[IncomingDataSet, int] = {}
        for association in self._associations():
            incoming = association.incoming
            if incoming is None:
                continue
            if before.get(incoming) == incoming.size and has_hung_up(association.transport.socket):
                association.lose()
            else:
                unread[incoming] = incoming.size
        return unread


def has_hung_up(sock: Any) -> bool:
    """Tell whether the peer of a socket has closed it, whatever is still to be read; ``False`` where nobody can say."""
    if sock is None:
        return False
    descriptor = sock.fileno()
    if descriptor < 0:
        # asyncio has closed it, as it was reset.
        return True
    if not hasattr(select, "POLLRDHUP"):
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return bool(poll.poll(0))
