"""What is outstanding on an association, and to whom what comes belongs (PS3.7, PS3.8).

Theory of operation
-------------------
Everything that is outstanding is an :class:`~asyncdicom.operations.Exchange`: its Message ID, and a box in which its
responses are filed. A verb takes a slot of the asynchronous operations window, sends its request, and waits at its box; if
nobody else reads, it reads. A verb that is cancelled leaves its exchange behind: the late response frees the slot when it
comes. Requests of the peer are filed in a box of their own, as many as the window lets it have performed at once; others
are held back until a response frees a slot.
"""

from __future__ import annotations

import abc
import logging
import math
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from anyio import CancelScope

from . import instrument
from .connection import Connection, current_task
from .exceptions import (
    AssociationAborted,
    AssociationClosed,
    ConcurrencyError,
    LocalProtocolError,
    RemoteProtocolError,
)
from .incoming import Box, IncomingDataSet
from .instances import ReceivedInstance, SourceOutgoing
from .operations import Exchange, Get, SubOperation
from .protocol.commands import (
    RESPONSES,
    CCancelRQ,
    CEchoRQ,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    CStoreRQ,
    CStoreRSP,
    Message,
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
)
from .protocol.dimse import Dimse
from .protocol.negotiation import AcceptedContext, Negotiated
from .protocol.values import frozen
from .requests import EchoRequest, QueryRequest, Request, StoreRequest, UnknownRequest
from .responses import Response
from .settings import DEFAULT_PROFILE, Limits, PeerProfile, Timeouts
from .status import SOP_CLASS_NOT_SUPPORTED, Status
from .transport import Transport

if TYPE_CHECKING:
    from .forwarding import ReceivedOutgoing

__all__ = ["Dispatch", "Peer"]

logger = logging.getLogger("asyncdicom.association")

#: The DIMSE services by their requests (PS3.7 Table E.1-1), for the log.
_NAMES: Mapping[type[Message], str] = MappingProxyType(
    {
        CEchoRQ: "C-ECHO",
        CStoreRQ: "C-STORE",
        CFindRQ: "C-FIND",
        CGetRQ: "C-GET",
        CMoveRQ: "C-MOVE",
        NEventReportRQ: "N-EVENT-REPORT",
        NGetRQ: "N-GET",
        NSetRQ: "N-SET",
        NActionRQ: "N-ACTION",
        NCreateRQ: "N-CREATE",
        NDeleteRQ: "N-DELETE",
    }
)
_SEVERAL_RESPONSES = frozenset({CFindRSP, CGetRSP, CMoveRSP})

#: The most requests of ours that are outstanding when the window is unlimited: Message IDs have 16 bits.
_UNLIMITED = 65_000

#: Bytes of responses that wait for a slow consumer, at most, while others read on; then they have to wait for it, too.
_MOST_HELD = 1 << 20


@frozen
class Peer:
    """Who is at the other end.

    :ivar ae_title: its AE title, as it was called or as it calls itself.
    :ivar address: its (host, port), the path of a UNIX socket, or ``None``.
    """

    ae_title: str
    address: tuple[str, int] | str | None = None
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None


class Dispatch(Connection):
    """What is outstanding on an association, of ours and of the peer, and where what comes belongs.

    :ivar peer: the :class:`Peer`.
    :ivar strict_roles: answer C-GET sub-operations on contexts without a negotiated SCP role with a failure.
    :ivar profile: how the peer is treated.
    """

    def __init__(
        self,
        transport: Transport,
        core: Dimse,
        negotiated: Negotiated,
        *,
        requestor: bool,
        timeouts: Timeouts,
        limits: Limits,
        perform: Callable[[Request], Awaitable[None]] | None = None,
        strict_roles: bool = False,
        profile: PeerProfile | None = None,
    ) -> None:
        super().__init__(transport, core, timeouts, limits)
        self.negotiated = negotiated
        self.is_requestor = requestor
        self.profile = profile = profile or DEFAULT_PROFILE
        self.strict_roles = strict_roles or profile.strict_roles
        self.peer = Peer(
            ae_title=negotiated.called_ae_title if requestor else negotiated.calling_ae_title,
            address=transport.peer_address,
            implementation_class_uid=negotiated.peer_implementation_class_uid,
            implementation_version_name=negotiated.peer_implementation_version_name,
        )
        self._perform = perform
        #: Its number among the associations of the server that accepted it; 0 for a requestor.
        self.number = 0
        self._by_class: dict[str, list[AcceptedContext]] = {}
        for context in negotiated.contexts.values():
            self._by_class.setdefault(context.abstract_syntax, []).append(context)
        # As SCU.
        self._exchanges: dict[int, Exchange] = {}
        self._operations = 0  # that were begun
        self._last_message_id = 0
        self._reserved: set[int] = set()  # Message IDs of what is made ready ahead of the window
        self._slot_waiters: deque[Box[None]] = deque()
        self._zombies: set[Exchange] = set()
        self._full: set[Exchange] = set()  # those whose consumer is so slow that nothing more is read
        self._thread = threading.get_ident()
        self._orphans: list[tuple[SubOperation, ReceivedInstance]] = []
        self._cleaning = False
        # As SCP.
        self._requests: Box[Request] = Box()
        self._performing: dict[int, Request] = {}
        self._active = 0
        self._held: deque[Request] = deque()
        self._refusals: deque[tuple[int, int, Status]] = deque()
        self._room: anyio.Event | None = None
        #: The scope of a server's workers, how many there are, and how many of them wait for a request.
        self.worker_scope: CancelScope | None = None
        self.workers = 0
        self._resting = 0
        self.wanted: Callable[[], None] | None = None
        self._last_activity: float | None = None
        core.establish(negotiated.contexts, negotiated.maximum_length)

    # Exchanges: slots, Message IDs, and what becomes of them.

    @property
    def _window(self) -> int:
        return self.negotiated.window.invoked or _UNLIMITED

    async def _open_exchange(
        self, context: AcceptedContext, expects: type[Message], message_id: int | None = None
    ) -> Exchange:
        """Wait for a slot of the window and allot a Message ID, unless one was reserved."""
        self.check()
        if self._exchanges or self._orphans or self._slot_waiters:
            await self._wait_for_turn()
        if self.operations_left == 0:
            raise LocalProtocolError(
                f"the peer's profile allows {self.profile.operations} operations on an association: associate again"
            )
        exchange = Exchange(message_id or self._next_message_id(), context, expects)
        self._exchanges[exchange.message_id] = exchange
        self._operations += 1
        return exchange

    async def _wait_for_turn(self) -> None:
        """Wait until one more request may be outstanding."""
        if self._orphans or any(exchange.abandoned for exchange in self._exchanges.values()):
            await self._clean_abandoned()
        if self.baton_held or len(self._exchanges) >= self._window:
            self._check_own_task(current_task())
        if self._slot_waiters or len(self._exchanges) >= self._window:
            await self._wait_for_slot()

    @property
    def operations_left(self) -> int | None:
        """How many operations the peer's profile still allows on this association; ``None`` is any number."""
        most = self.profile.operations
        return None if most is None else max(0, most - self._operations)

    @property
    def may_begin(self) -> bool:
        """Whether one more request could be sent at once: the association lives, and no other has to be answered before."""
        return not (self.ended or self._slot_waiters) and len(self._exchanges) < self._window

    async def _wait_for_slot(self) -> None:
        """Wait in turn until fewer requests than the window allows are outstanding."""
        while True:
            box: Box[None] = Box()
            self._slot_waiters.append(box)
            try:
                await self.wait(box, None, "response")
            except BaseException:
                if box in self._slot_waiters:
                    self._slot_waiters.remove(box)
                else:
                    self._free_slot()  # it was our turn: let the next one have it
                raise
            if len(self._exchanges) < self._window:
                return

    def _check_own_task(self, task: object) -> None:
        for exchange in self._exchanges.values():
            operation = exchange.operation() if exchange.operation is not None else None
            if operation is None or exchange.consumer is not task or operation._closed:
                continue
            if len(self._exchanges) >= self._window or (self.baton_held and isinstance(operation, Get)):
                raise ConcurrencyError(
                    f"a {operation._verb} of this task is still open: finish it, or leave it with aclose() or "
                    "`async with`, before the next operation (or negotiate a larger async_operations window)"
                )

    def _next_message_id(self) -> int:
        message_id = self._last_message_id
        while True:
            message_id = message_id % 65535 + 1
            if message_id not in self._exchanges and message_id not in self._reserved:
                self._last_message_id = message_id
                return message_id

    def _reserve_message_id(self) -> int:
        """Allot a Message ID for a request that is made ready before there is room for it in the window."""
        message_id = self._next_message_id()
        self._reserved.add(message_id)
        return message_id

    def _return_message_id(self, message_id: int) -> None:
        """Give a reserved Message ID back; the exchange that it was reserved for does so itself when it ends."""
        self._reserved.discard(message_id)

    def _free_slot(self) -> None:
        if self._slot_waiters and len(self._exchanges) < self._window:
            self._slot_waiters.popleft().put(None)

    def _remove(self, exchange: Exchange) -> None:
        if self._exchanges.pop(exchange.message_id, None) is not None:
            exchange.done = True
            if self._zombies:
                self._zombies.discard(exchange)
            if self._reserved:
                self._reserved.discard(exchange.message_id)
            if self._full:
                self._not_full(exchange)
            if self._slot_waiters:
                self._free_slot()

    def _forget(self, exchange: Exchange) -> None:
        """Give up on an exchange: its slot frees when its response comes, or now if nothing was sent."""
        exchange.items.clear()
        self._not_full(exchange)
        if not exchange.sent:
            self._operations -= 1
        if not exchange.sent or self.ended:
            self._remove(exchange)
        elif not exchange.done:
            exchange.discard = True
            seconds = self.timeouts.response
            exchange.deadline = math.inf if seconds is None else self.now() + seconds
            self._zombies.add(exchange)

    def pending_deadline(self) -> float:
        if not self._zombies:
            return math.inf
        return min(exchange.deadline for exchange in self._zombies)

    def expired(self, box: Box[Any], seconds: float | None, kind: str) -> float:
        if self._zombies and self.pending_deadline() <= self.now():
            seconds, kind = self.timeouts.response, "response"
        elif box is self._requests:
            if self._performing:
                return self.now() + (seconds or 0)
            since = self._last_activity
            if seconds is not None and since is not None and since + seconds > self.now() + 0.01:
                return since + seconds
        return super().expired(box, seconds, kind)

    @property
    def seconds_idle(self) -> float:
        """Seconds since anything was in progress; 0 while something is."""
        if self._performing or self._exchanges or self.core.mid_message:
            return 0.0
        if self._last_activity is None:
            self._last_activity = self.now()
        return max(0.0, self.now() - self._last_activity)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is outstanding on it, in either direction: it can be left to somebody else."""
        return not (
            self.ended
            or self._exchanges
            or self._slot_waiters
            or self._orphans
            or self._performing
            or self.baton_held
            or self.core.mid_message
            or self._send_lock.locked()
        )

    def _send_request(
        self,
        exchange: Exchange,
        message: Message,
        data: bytes | SourceOutgoing | ReceivedOutgoing | list[memoryview] | None,
    ) -> Awaitable[None]:
        return self.send(exchange.context.context_id, message, data, exchange.begin)

    def _wait_exchange(self, exchange: Exchange) -> Awaitable[None]:
        if exchange.expects is CGetRSP or exchange.expects is CMoveRSP:
            return self.wait(exchange, self.timeouts.retrieve, "retrieve")
        return self.wait(exchange, self.timeouts.response, "response")

    async def _send_cancel(self, exchange: Exchange) -> None:
        await self.send(exchange.context.context_id, CCancelRQ(message_id_being_responded_to=exchange.message_id), None)

    def _abort_operation(self, verb: str) -> None:
        self.abort_now(
            lambda: AssociationAborted(0, 0, f"the association was aborted: a cancelled {verb} did not end in time")
        )

    def _orphan(self, request: SubOperation, instance: ReceivedInstance) -> None:
        self._orphans.append((request, instance))

    async def _answer_store(self, request: SubOperation, status: Status) -> None:
        message = request.message
        await self.send(
            request.context.context_id,
            CStoreRSP(
                message_id_being_responded_to=message.message_id,
                affected_sop_class_uid=message.affected_sop_class_uid,
                affected_sop_instance_uid=message.affected_sop_instance_uid,
                status=int(status),
            ),
        )

    async def _clean_abandoned(self) -> None:
        """Cancel and drain the operations whose iterators were dropped, bounded."""
        seconds = self.timeouts.cancel
        clean = False
        try:
            with CancelScope(shield=True, deadline=math.inf if seconds is None else self.now() + seconds):
                for request, instance in self._orphans:
                    # Whoever still has it must not take what is left of it for the whole.
                    instance.expire()
                    if request.incoming is not None:
                        await request.incoming.discard()
                    await self._answer_store(request, instance.verdict)
                self._orphans.clear()
                for exchange in [exchange for exchange in self._exchanges.values() if exchange.abandoned]:
                    if exchange.expects is CStoreRSP:
                        self._forget(exchange)  # nothing cancels it, and nothing comes but its response
                        exchange.abandoned = False
                        continue
                    if self.profile.cancel:
                        await self._send_cancel(exchange)
                    await self._drain(exchange)
                clean = True
        finally:
            if not clean and not self.ended:
                self._abort_operation("operation")

    async def _drain(self, exchange: Exchange) -> None:
        while not exchange.done or exchange.items:
            if not exchange.items:
                await self.wait(exchange, None, "cancel")
            entry = self._take(exchange)
            if isinstance(entry, SubOperation):
                if entry.incoming is not None:
                    await entry.incoming.discard()
                await self._answer_store(entry, Status(0xA700))

    # Filing what comes.

    def file(self, context_id: int, message: Message, data: bytes | IncomingDataSet | None) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("received %s on context %d", type(message).__name__, context_id)
        context = self.negotiated.contexts[context_id]
        if message.is_response:
            assert not isinstance(data, IncomingDataSet)
            self._file_response(message, data)
        elif isinstance(message, CCancelRQ):
            request = self._performing.get(message.message_id_being_responded_to)
            if request is not None and not isinstance(request, StoreRequest):
                request.cancel()
        elif isinstance(message, CStoreRQ) and (exchange := self._retrieving(message)) is not None:
            assert data is None or isinstance(data, IncomingDataSet)
            exchange.put(SubOperation(context, message, data))
        else:
            self._file_request(context, message, data)

    def _file_response(self, message: Message, data: bytes | None) -> None:
        message_id = getattr(message, "message_id_being_responded_to", None)
        exchange = self._exchanges.get(message_id) if message_id is not None else None
        if exchange is None:
            logger.debug("a response to message %s, which is not outstanding, was ignored", message_id)
            return
        if type(message) is not exchange.expects:
            text = f"a {type(message).__name__} answers a request for a {exchange.expects.__name__}"
            self.abort_now(lambda: RemoteProtocolError(f"the association was aborted: {text}"))
            return
        if exchange.expects is CStoreRSP:
            data = None  # has none (PS3.7 Table 9.3-2), and a window full of answers would hold what the peer likes
        response = Response(message, exchange.context, data)
        pending = exchange.expects in _SEVERAL_RESPONSES and response.status.is_pending
        if not pending:
            self._remove(exchange)
        if not exchange.discard and not (pending and exchange.abandoned):
            exchange.put(response)
            if pending and exchange.size > _MOST_HELD:
                self._full.add(exchange)

    def _take(self, exchange: Exchange) -> Response | SubOperation:
        """Take what was filed first, and read on if that was held up."""
        item = exchange.take()
        if self._full and exchange.size <= _MOST_HELD:
            self._not_full(exchange)
        return item

    def _not_full(self, exchange: Exchange) -> None:
        if exchange in self._full:
            self._full.discard(exchange)
            if self._room is not None and self.may_read():
                self._room.set()

    def _abandon(self, exchange: Exchange) -> None:
        """Note that an operation was dropped: called while its iterator is destroyed."""
        exchange.abandoned = True
        if self._full and threading.get_ident() == self._thread:
            self._not_full(exchange)

    def _retrieving(self, message: CStoreRQ) -> Exchange | None:
        """Return the C-GET of ours that a C-STORE request belongs to: the one it names, or the oldest."""
        oldest = None
        for exchange in self._exchanges.values():
            if exchange.expects is CGetRSP:
                if exchange.message_id == message.move_originator_message_id:
                    return exchange
                oldest = oldest or exchange
        return oldest

    @abc.abstractmethod
    def _file_request(self, context: AcceptedContext, message: Message, data: bytes | IncomingDataSet | None) -> None:
        """File a request of the peer, to be performed when the window has room for it."""

    def may_read(self) -> bool:
        return len(self._held) < self.limits.outstanding and not self._full

    def on_held(self, seconds: float) -> None:
        for exchange in self._zombies:
            exchange.deadline += seconds

    def on_surplus(self) -> None:
        if self._requests.items and self.wanted is not None:
            self.wanted()

    async def before_reading(self) -> None:
        while not self.may_read() and not self.ended:
            self.check_room()
            self._room = anyio.Event()
            await self._room.wait()

    def check_room(self) -> None:
        task = current_task() if self._full else None
        for exchange in self._full:
            operation = exchange.operation() if exchange.operation is not None else None
            if operation is not None and exchange.consumer is task:
                raise ConcurrencyError(
                    f"nothing more is read before this task takes what its {operation._verb} has: take all of it first, or "
                    "leave it with aclose() or `async with`, before the next operation"
                )

    def on_end(self) -> None:
        # A lone worker that waits for a request notices the end itself, which costs less.
        lone = self.workers == self._resting == 1 and not self._requests.items
        if self.worker_scope is not None and not lone:
            self.worker_scope.cancel()
        for request in list(self._performing.values()):
            if request._scope is not None:
                request._scope.cancel()
        for exchange in self._exchanges.values():
            exchange.done = True
        for box in list(self._slot_waiters):
            if box.event is not None:
                box.event.set()
        if self._room is not None:
            self._room.set()

    # Requests of the peer.

    @property
    def has_requests(self) -> bool:
        """Whether :meth:`next_request` would return at once."""
        return bool(self._requests.items)

    async def next_request(self, *, idle: float | None = None) -> Request:
        """Return the next request of the peer.

        :param idle: seconds without any operation after which the association is aborted.
        :raises AssociationError: the association ended.
        """
        while True:
            if not self._requests.items:
                self._last_activity = self.now()
                self._resting += 1
                try:
                    await self.wait(self._requests, idle, "idle")
                finally:
                    self._resting -= 1
            request = self._requests.items.popleft()
            refusal = request.refusal
            if refusal is None:
                return request
            await self._refuse(request, refusal)

    async def _refuse(self, request: Request, status: Status) -> None:
        if isinstance(request, StoreRequest):
            await request.discard()
        await request.respond(status)

    def __aiter__(self) -> AsyncIterator[Request]:
        return self

    async def __anext__(self) -> Request:
        """Return the next request of the peer; ends when the association is released.

        :raises AssociationAborted: it was aborted.
        """
        try:
            return await self.next_request()
        except AssociationClosed:
            raise StopAsyncIteration from None

    def _has_own(self, box: Box[Any]) -> bool:
        return bool(self._requests.items) and box is not self._requests and self.is_requestor

    async def serve_own(self, box: Box[Any]) -> bool:
        if not self._has_own(box):
            return False
        request = self._requests.items.popleft()
        if request.refusal is not None:
            await self._refuse(request, request.refusal)
        elif self._perform is not None:
            await self._perform(request)
        elif isinstance(request, EchoRequest):
            await request.respond(0)
        else:
            await self._refuse(request, SOP_CLASS_NOT_SUPPORTED)
        return True

    async def _respond(self, request: Request, status: Status, data: bytes | None, **fields: Any) -> None:
        if request.responded:
            raise LocalProtocolError(f"request {request.message_id} has its final response already")
        final = not (isinstance(request, QueryRequest) and status.is_pending)
        message = request.message
        if isinstance(request, UnknownRequest):
            response: Message = request.response
        else:
            response = _response(message, status, fields)
        if final:
            request.responded = True
            request.final_status = int(status)
        else:
            request.responses += 1
        try:
            await self.send(request.context.context_id, response, data)
        finally:
            if final:
                self._performed(request)

    def _performed(self, request: Request) -> None:
        """Free the slot of a request that has its final response."""
        if self._performing.get(request.message_id) is request:
            del self._performing[request.message_id]
        self._active -= 1
        self._last_activity = self.now()
        if instrument.enabled() or logger.isEnabledFor(request.log_level):
            self._report(request)
        if self._held:
            self._active += 1
            self._requests.put(self._held.popleft())
            if self._room is not None and self.may_read():
                self._room.set()
            if self._watching:
                self.poll()

    def _report(self, request: Request) -> None:
        """Tell that an operation is done."""
        operation = _NAMES.get(type(request.message), "unknown")
        seconds = self.now() - request.started
        status = request.final_status or 0
        logger.log(
            request.log_level,
            "association %d %s message %d: status %#06x, %d pending responses, %.3f s",
            self.number,
            operation,
            request.message_id,
            status,
            request.responses,
            seconds,
        )
        if instrument.enabled():
            instrument.emit(
                instrument.OperationDone(
                    association=self.number,
                    operation=operation,
                    sop_class_uid=request.context.abstract_syntax,
                    status=status,
                    responses=request.responses,
                    seconds=seconds,
                )
            )

    @asynccontextmanager
    async def operation_scope(self, request: Request) -> AsyncIterator[CancelScope]:
        """Run the performer of a request in a scope that a C-CANCEL, or the end of the association, cancels."""
        with CancelScope() as scope:
            request._scope = scope
            if request.cancelled:
                scope.cancel()
            try:
                with request._interruptible():
                    yield scope
            finally:
                request._scope = None


class _Plan(NamedTuple):
    """How the response to a kind of request is made.

    :ivar uids: fields of the response, and those of the request where their values are.
    :ivar copied: fields that both have.
    :ivar names: all fields of the response.
    """

    kind: type[Message]
    uids: tuple[tuple[str, str], ...]
    copied: tuple[str, ...]
    names: frozenset[str]


def _make_plan(request: type[Message]) -> _Plan:
    kind = RESPONSES[request]
    own, names = ({field.name for field in fields(one)} for one in (request, kind))
    uids = []
    for name in ("sop_class_uid", "sop_instance_uid"):
        source = f"affected_{name}" if f"affected_{name}" in own else f"requested_{name}"
        if f"affected_{name}" in names and source in own:
            uids.append((f"affected_{name}", source))
    copied = tuple(name for name in ("event_type_id", "action_type_id") if name in own & names)
    return _Plan(kind, tuple(uids), copied, frozenset(names))


_PLANS: Mapping[type[Message], _Plan] = MappingProxyType({request: _make_plan(request) for request in RESPONSES})


def _response(message: Message, status: Status, more: Mapping[str, Any]) -> Message:
    plan = _PLANS[type(message)]
    values: dict[str, Any] = {
        "message_id_being_responded_to": getattr(message, "message_id"),  # noqa: B009
        "status": int(status),
    }
    for name, source in plan.uids:
        if uid := getattr(message, source):
            values[name] = uid
    for name in plan.copied:
        value = getattr(message, name)
        if value is not None:
            values[name] = value
    for name, value in more.items():
        if value is not None and name in plan.names:
            values[name] = value
    return plan.kind(**values)
