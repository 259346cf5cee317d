"""The two ways that instances come: by C-GET over the same association, and by C-MOVE to a storage SCP of ours."""

from __future__ import annotations

import abc
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from ..association import Association
from ..client import connect
from ..exceptions import (
    AssociationAborted,
    DicomNetworkError,
    LocalProtocolError,
    NoPresentationContext,
    StatusError,
)
from ..instances import ReceivedInstance
from ..operations import Get, Move, SubOperation
from ..protocol.commands import CGetRQ, CMoveRQ
from ..protocol.negotiation import PresentationContext
from ..responses import Response
from ..services import Services
from ..settings import Address, Limits, PeerProfile, Timeouts
from ..status import SOP_CLASS_NOT_SUPPORTED, SUCCESS, UNRECOGNISED_OPERATION
from .background import Hosted
from .inventory import Inventory
from .ledger import Ledger
from .plan import Plan
from .query import Model, Part, Query, parts_of
from .reception import Awaited, Delivery, Reception

__all__ = ["ByGet", "ByMove", "Connector", "Route", "UnsuitedError", "close_now", "first_parts", "release"]

logger = logging.getLogger("asyncdicom.retrieval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """How to associate with the peer.

    :ivar options: of :func:`asyncdicom.connect`.
    """

    address: Address
    calling: str
    timeouts: Timeouts
    limits: Limits
    profile: PeerProfile
    options: dict[str, Any]

    async def associate(self, contexts: Iterable[str | PresentationContext]) -> Association:
        """Return a new association."""
        return await connect(
            self.address,
            calling=self.calling,
            contexts=contexts,
            timeouts=self.timeouts,
            limits=self.limits,
            profile=self.profile,
            **self.options,
        ).__aenter__()

    async def renew(self, association: Association, contexts: Iterable[str | PresentationContext]) -> Association:
        """Return an association that takes one more operation: the given one, or a new one instead of it."""
        if association.operations_left != 0:
            return association
        await release(association)
        return await self.associate(contexts)


async def release(association: Association | None) -> None:
    """Release an association; how it ends does not matter any more."""
    if association is not None:
        try:
            await association.release()
        except DicomNetworkError as exc:
            logger.debug("an association did not end well: %s", exc)


def close_now(association: Association | None) -> None:
    """Abort an association and close its transport, without waiting."""
    if association is not None:
        association.close_now(
            lambda: AssociationAborted(0, 0, "the association was aborted: the retrieval was left before it ended")
        )


class UnsuitedError(Exception):
    """The peer cannot do it this way."""

    def __init__(self, reason: DicomNetworkError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Route(abc.ABC):
    """A way for instances to come.

    :ivar hosted: the server that runs for it alone, if it needs one.
    """

    hosted: Hosted | None = None

    @abc.abstractmethod
    async def next(self) -> ReceivedInstance | None:
        """Answer the last instance, and return the next one; ``None`` at the end."""

    @property
    @abc.abstractmethod
    def current(self) -> ReceivedInstance | None:
        """The instance that was returned last, if it was not answered."""

    @abc.abstractmethod
    async def leave(self) -> None:
        """End: C-CANCEL if there is anything to cancel, and release."""

    @abc.abstractmethod
    def abort(self) -> None:
        """End at once, without waiting."""


def first_parts(model: Model, query: Query, inventory: Inventory, profile: PeerProfile) -> Sequence[Part]:
    """Return what is asked for at first: the query, or each instance for models that know no level above."""
    each = model.is_flat and not query.names_instances
    return parts_of(inventory.places, {}, lists=profile.uid_lists) if each else query.split()


def _failure(response: Response) -> StatusError:
    return StatusError(response.status, response.error_comment, response)


class _Get(Get):
    """A C-GET that keeps a ledger, and takes nothing twice.

    :param known: UIDs of instances that are there already.
    """

    def __init__(self, *arguments: Any, ledger: Ledger, known: Iterable[str], **options: Any) -> None:
        super().__init__(*arguments, check=False, **options)
        self._ledger = ledger
        self._known = known

    @property
    def current(self) -> ReceivedInstance | None:
        return None if self._current is None else self._current[1]

    def _pending(self, response: Response) -> None:
        super()._pending(response)
        self._ledger.pending(response.progress)

    async def _sub_operation(self, request: SubOperation) -> ReceivedInstance | None:
        if request.message.affected_sop_instance_uid in self._known:
            if request.incoming is not None:
                await request.incoming.discard()
            await self._association._answer_store(request, SUCCESS)
            return None
        return await super()._sub_operation(request)


class ByGet(Route):
    """C-GET (PS3.4 C.4.3), on as many associations as it takes to propose what is needed.

    :param find: the C-FIND class that the peer accepted, empty if none.
    """

    def __init__(
        self,
        connector: Connector,
        model: Model,
        find: str,
        query: Query,
        inventory: Inventory,
        ledger: Ledger,
        *,
        priority: int,
    ) -> None:
        self._connector = connector
        self._model = model
        self._find = find
        self._query = query
        self._inventory = inventory
        self._ledger = ledger
        self._priority = priority
        self._plan = Plan(inventory.classes, complete=inventory.knows_classes)
        self._parts: deque[Part] = deque()
        self._rounds = 0
        self._proposed: list[str | PresentationContext] = []
        self._association: Association | None = None
        self._get: _Get | None = None
        self._part: Part | None = None

    @property
    def current(self) -> ReceivedInstance | None:
        return None if self._get is None else self._get.current

    async def next(self) -> ReceivedInstance | None:
        while True:
            if self._get is None and not await self._begin():
                return None
            assert self._get is not None
            try:
                instance = await self._get.__anext__()
            except StopAsyncIteration:
                self._end()
                continue
            self._ledger.deliver(instance.sop_instance_uid)
            return instance

    async def _begin(self) -> bool:
        """Make the next request; tell whether there is one."""
        ledger = self._ledger
        while not self._parts:
            if self._rounds:
                if self._inventory.is_complete:
                    ledger.compare(self._inventory.places)
                if not (ledger.missing or ledger.unnamed):
                    return False
            if not await self._associate():
                return False
            parts = await self._to_ask()
            ledger.plan(parts, again=len(ledger.missing) + ledger.unnamed)
            self._parts.extend(parts)
        assert self._association is not None
        association = await self._renew(self._association)
        part = self._part = self._parts.popleft()
        self._ledger.begin(part)
        model = self._model.get
        self._get = _Get(
            association,
            lambda: association._query(CGetRQ, part.identifier, model, None, {}, self._priority),
            ledger=self._ledger,
            known=self._ledger.delivered if self._rounds > 1 else (),
        )
        return True

    async def _associate(self) -> bool:
        """Associate with contexts that were not yet proposed; ``False`` if there are no more that the peer accepts.

        :raises UnsuitedError: it accepts none at all.
        """
        besides = [uid for uid in (self._model.get, self._find) if uid]
        room = min(self._connector.limits.contexts, 128) - len(besides)
        if room < 1:
            raise LocalProtocolError(f"Limits.contexts is {self._connector.limits.contexts}: none is left for storage")
        while contexts := self._plan.take(room):
            previous, self._association = self._association, None
            await release(previous)
            self._proposed = [*besides, *contexts]
            association = self._association = await self._connector.associate(self._proposed)
            accepted = [
                context
                for context in association.accepted_contexts
                if context.abstract_syntax not in besides and (context.requestor_is_scp or not association.strict_roles)
            ]
            logger.debug("%d of %d storage contexts accepted for C-GET", len(accepted), len(contexts))
            if accepted:
                self._rounds += 1
                return True
            if not self._rounds:
                proposed = contexts[0].abstract_syntax
                reason = NoPresentationContext(proposed, "the peer accepts no storage SOP class for a C-GET")
                raise UnsuitedError(reason)
        return False

    async def _renew(self, association: Association) -> Association:
        association = self._association = await self._connector.renew(association, self._proposed)
        return association

    async def _to_ask(self) -> Sequence[Part]:
        """Return what to ask for on a new association: everything, or what is missing."""
        query, model, ledger, inventory = self._query, self._model, self._ledger, self._inventory
        if self._rounds == 1:
            return first_parts(model, query, inventory, self._connector.profile)
        if query.names_instances:
            return query.narrowed(ledger.missing)
        if model.is_flat:
            return parts_of(ledger.missing, {}, lists=self._connector.profile.uid_lists)
        if "IMAGE" in model.levels:
            if ledger.unnamed or not inventory.places.keys() >= ledger.missing.keys():
                await self._locate()
            if not ledger.unnamed and inventory.places.keys() >= ledger.missing.keys():
                return parts_of(ledger.missing, inventory.places, lists=self._connector.profile.uid_lists)
        # Nobody knows what or where they are: all is asked for again, and what is there already is not taken twice.
        return query.split()

    async def _locate(self) -> None:
        """Ask for the unique keys above every instance, which a request for single ones needs (PS3.4 C.4.3.1.3.1)."""
        association = self._association
        assert association is not None
        if self._find and not self._inventory.is_complete:
            try:
                association.find_context(self._find)
                await self._inventory.take(association, self._find, self._query, each=True, renew=self._renew)
                self._ledger.compare(self._inventory.places)
            except DicomNetworkError as exc:
                (self._association or association).check()
                logger.debug("the missing instances could not be located: %s", exc)

    def _end(self) -> None:
        """Judge the final response of a request.

        :raises StatusError: it failed.
        :raises UnsuitedError: the peer has no C-GET after all.
        """
        get, part = self._get, self._part
        self._get = self._part = None
        assert get is not None
        assert part is not None
        response = get.response
        assert response is not None
        if self._ledger.finish(response, part) or self._rounds > 1:
            return
        failure = _failure(response)
        unsuited = response.status in (SOP_CLASS_NOT_SUPPORTED, UNRECOGNISED_OPERATION)
        raise UnsuitedError(failure) if unsuited and not self._ledger.received else failure

    async def leave(self) -> None:
        if self._get is not None:
            await self._get.aclose()
            self._ledger.note(self._get.response)
        association, self._association = self._association, None
        try:
            await release(association)
        except BaseException:
            self._association = association
            raise

    def abort(self) -> None:
        association, self._association = self._association, None
        close_now(association)


class _Move(Move):
    """A C-MOVE whose next response can be waited for without taking it."""

    async def begin(self) -> None:
        """Send the request."""
        if self._exchange is None:
            await self._begin()

    async def ready(self) -> None:
        """Wait until a response is there; cancelling it changes nothing."""
        assert self._exchange is not None
        await self._association._wait_exchange(self._exchange)

    @property
    def is_ready(self) -> bool:
        """Whether a response is there."""
        return self._exchange is not None and bool(self._exchange.items)

    @property
    def is_over(self) -> bool:
        """Whether the response that is there is the last one."""
        assert self._exchange is not None
        return self._exchange.done and len(self._exchange.items) == 1


class ByMove(Route):
    """C-MOVE (PS3.4 C.4.2) to a storage SCP of ours.

    :param association: the one to ask on; it is released at the end.
    :param connector: makes another one, if that one takes no more operations.
    :param services: of the server that the instances are sent to.
    :param hosted: that server, if it is there for this retrieval alone: it is stopped at the end.
    :param destination: what the peer knows it by.
    """

    def __init__(
        self,
        association: Association,
        connector: Connector,
        model: Model,
        parts: Sequence[Part],
        ledger: Ledger,
        services: Services,
        hosted: Hosted | None,
        destination: str,
        *,
        priority: int,
    ) -> None:
        self._association = association
        self._connector = connector
        self._model = model
        self._ledger = ledger
        self._services = services
        self.hosted = hosted
        self._destination = destination
        self._priority = priority
        self._parts = deque(parts)
        ledger.plan(parts)
        self._part: Part | None = None
        self._move: _Move | None = None
        self._awaited: Awaited | None = None
        self._reception: Reception | None = None
        self._delivery: Delivery | None = None

    @property
    def current(self) -> ReceivedInstance | None:
        return None if self._delivery is None else self._delivery.instance

    async def next(self) -> ReceivedInstance | None:
        self._settle()
        while True:
            if self._move is None:
                if not self._parts:
                    return None
                await self._begin()
            assert self._awaited is not None
            delivery = self._delivery = self._awaited.pop()
            if delivery is not None:
                self._ledger.deliver(delivery.instance.sop_instance_uid)
                return delivery.instance
            await self._wait()

    def _settle(self) -> None:
        """Answer the instance that was returned last."""
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.answer(delivery.instance.verdict)

    async def _begin(self) -> None:
        model, destination = self._model.move, self._destination
        association = self._association = await self._connector.renew(self._association, [model])
        part = self._part = self._parts.popleft()
        self._ledger.begin(part)
        self._awaited = Awaited(association, self._connector.calling)
        self._reception = Reception.add(self._services, self._awaited, is_exclusive=self.hosted is not None)
        self._move = _Move(
            association,
            lambda: association._query(
                CMoveRQ, part.identifier, model, None, {}, self._priority, move_destination=destination
            ),
            check=False,
        )
        await self._move.begin()

    async def _wait(self) -> None:
        """Wait for a sub-operation or a response, whichever comes first.

        :raises StatusError: the C-MOVE failed.
        """
        move, awaited = self._move, self._awaited
        assert move is not None
        assert awaited is not None
        failure: Exception | None = None

        async def watch() -> None:
            nonlocal failure
            try:
                await move.ready()
            except Exception as exc:
                failure = exc
            tasks.cancel_scope.cancel()

        if not move.is_ready:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                await awaited.wait()
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        # What has come before the last response comes first.
        if move.is_ready and not (move.is_over and awaited.has_deliveries):
            try:
                self._ledger.pending(await move.__anext__())
            except StopAsyncIteration:
                self._end()

    def _end(self) -> None:
        """Judge the final response of a request.

        :raises StatusError: it failed.
        """
        move, part, awaited = self._move, self._part, self._awaited
        assert move is not None
        assert part is not None
        assert awaited is not None
        self._move = self._part = None
        awaited.refuse()
        self._forget()
        response = move.response
        assert response is not None
        if not self._ledger.finish(response, part):
            raise _failure(response)

    async def leave(self) -> None:
        if self._awaited is not None:
            self._awaited.refuse()
        self._settle()
        if self._move is not None:
            await self._move.aclose()
            self._ledger.note(self._move.response)
        self._forget()
        await release(self._association)
        if self.hosted is not None:
            await self.hosted.stop()

    def abort(self) -> None:
        if self._awaited is not None:
            self._awaited.refuse()
        self._settle()
        self._forget()
        close_now(self._association)
        if self.hosted is not None:
            self.hosted.stop_soon()

    def _forget(self) -> None:
        if self._awaited is not None and self._reception is not None:
            self._reception.remove(self._awaited)
            self._awaited = None
