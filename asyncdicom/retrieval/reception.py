"""The storage SCP's side of a C-MOVE to ourselves: which C-STORE belongs to which retrieval (PS3.4 C.4.2, PS3.7 9.1.1).

Theory of operation
-------------------
A :class:`Reception` belongs to the services of a server. While a retrieval waits for instances there, it is one of the
reception's :class:`Awaited`, and C-STORE requests that name its Move Originator AE Title and Message ID are its own. The
server's task that performs such a request puts a :class:`Delivery` in its inbox and waits; the task that iterates takes
it, reads the data set off the association itself, and gives it the status to answer. Nothing is copied or queued: what is
not taken stays in the sockets.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

import anyio

from ..instances import ReceivedInstance
from ..services import Services
from ..status import NOT_AUTHORISED, OUT_OF_RESOURCES, Status

if TYPE_CHECKING:
    from ..association import Association
    from ..requests import StoreRequest
    from ..services.registry import Handler

__all__ = ["Awaited", "Delivery", "Reception", "exclusive_services"]


class _MessageIds:
    """Message IDs for C-MOVE requests of ours.

    They begin anywhere: what a C-MOVE of a process before us has set in motion shall not be taken for ours.
    """

    def __init__(self) -> None:
        self._last = random.randrange(0xFFFF)

    def next(self) -> int:
        self._last = self._last % 0xFFFF + 1
        return self._last


_message_ids = _MessageIds()


class Delivery:
    """A C-STORE sub-operation that has come, and the instance that it brings."""

    def __init__(self, request: StoreRequest) -> None:
        self._answered = anyio.Event()
        self._status = OUT_OF_RESOURCES
        self.is_gone = False
        self.instance = ReceivedInstance(
            request._incoming,
            request.sop_class_uid,
            request.sop_instance_uid,
            request.transfer_syntax_uid,
            source_ae_title=request.association.peer.ae_title,
        )

    def answer(self, status: Status) -> None:
        """End it: the instance is not valid any more, and the sub-operation is answered."""
        self.instance.expire()
        self._status = status
        self._answered.set()

    async def wait(self) -> Status:
        """Return the status to answer, once it is known."""
        try:
            await self._answered.wait()
        except BaseException:
            self.is_gone = True  # the association that it came on has ended
            raise
        return self._status


class Awaited:
    """A C-MOVE of ours whose sub-operations are to come.

    :param association: the one that the C-MOVE is sent on.
    :param calling: our AE title on it: the Move Originator AE Title of the sub-operations.
    """

    def __init__(self, association: Association, calling: str) -> None:
        self.message_id = _message_ids.next()
        self._calling = calling
        self._peer = association.peer
        self._waiting: deque[Delivery] = deque()
        self._arrived = anyio.Event()
        self._is_over = False
        # The next Message ID of the association is ours.
        association._last_message_id = self.message_id - 1

    def matches(self, request: StoreRequest) -> bool:
        """Tell whether a request names this C-MOVE as its origin, as far as it names any."""
        title = (request.move_originator_ae_title or "").strip()
        number = request.move_originator_message_id
        # Some name themselves, not whom they act for.
        return number in (self.message_id, None) and title in (self._calling, self._peer.ae_title, "")

    def is_from_peer(self, request: StoreRequest) -> bool:
        """Tell whether a request comes from whom the instances were asked of."""
        return request.association.peer.ae_title == self._peer.ae_title

    async def take(self, request: StoreRequest) -> Status:
        """Perform a request: hand it over, and return what to answer."""
        if self._is_over:
            return OUT_OF_RESOURCES
        delivery = Delivery(request)
        self._waiting.append(delivery)
        self._arrived.set()
        return await delivery.wait()

    def pop(self) -> Delivery | None:
        """Return the next delivery, if one is waiting."""
        while self._waiting:
            delivery = self._waiting.popleft()
            if not delivery.is_gone:
                return delivery
        return None

    @property
    def has_deliveries(self) -> bool:
        """Whether a delivery is waiting."""
        return bool(self._waiting)

    async def wait(self) -> None:
        """Wait until a delivery has come."""
        if not self._waiting:
            self._arrived = anyio.Event()
            await self._arrived.wait()

    def refuse(self) -> None:
        """Answer what waits, and what still comes, with 0xA700: nobody is interested any more."""
        self._is_over = True
        while self._waiting:
            self._waiting.popleft().answer(OUT_OF_RESOURCES)


class Reception:
    """Whose sub-operations the services of a server await; it is among their claims as long as there are any.

    :param is_exclusive: the server is there for one retrieval alone.
    """

    def __init__(self, services: Services, *, is_exclusive: bool) -> None:
        self._services = services
        self._is_exclusive = is_exclusive
        self._awaited: list[Awaited] = []

    @classmethod
    def add(cls, services: Services, awaited: Awaited, *, is_exclusive: bool = False) -> Reception:
        """Begin to claim requests for a C-MOVE; return the reception that does."""
        found = next((claimant for claimant in services.claims if isinstance(claimant, Reception)), None)
        if found is None:
            found = cls(services, is_exclusive=is_exclusive)
            services.claims.append(found)
        found._awaited.append(awaited)
        return found

    def remove(self, awaited: Awaited) -> None:
        """Claim nothing for it any more."""
        if awaited in self._awaited:
            self._awaited.remove(awaited)
        if not self._awaited and self in self._services.claims:
            self._services.claims.remove(self)

    def claim(self, request: StoreRequest) -> Handler | None:
        """Return who performs a request, if it is for us."""
        if request.move_originator_message_id is not None or (request.move_originator_ae_title or "").strip():
            found = [awaited for awaited in self._awaited if awaited.matches(request)]
        else:
            # It does not say. With one C-MOVE outstanding it can be for no other, if it may be a sub-operation at all.
            found = [awaited for awaited in self._awaited if self._is_exclusive or awaited.is_from_peer(request)]
        return found[0].take if len(found) == 1 else None


def exclusive_services() -> Services:
    """Return the services of a server that takes nothing but what is claimed."""
    services = Services()

    @services.store("*", unknown=True)
    async def refuse(request: StoreRequest) -> Status:
        return NOT_AUTHORISED

    return services
