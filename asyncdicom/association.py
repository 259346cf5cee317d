"""One association, as requestor or as acceptor: the verbs of an SCU, and the requests to an SCP (PS3.7, PS3.8).

Theory of operation
-------------------
Everything that is outstanding is an :class:`~asyncdicom.operations.Exchange`: its Message ID, and a box in which its
responses are filed. A verb takes a slot of the asynchronous operations window, sends its request, and waits at its box; if
nobody else reads, it reads. A verb that is cancelled leaves its exchange behind: the late response frees the slot when it
comes. Requests of the peer are filed in a box of their own, as many as the window lets it have performed at once; others
are held back until a response frees a slot.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope

from . import dataset as _dataset
from . import disk, instrument, sop, threads
from .connection import Box, Connection, IncomingDataSet, current_task
from .exceptions import (
    AssociationAborted,
    AssociationClosed,
    ConcurrencyError,
    LocalProtocolError,
    NoPresentationContext,
    OperationTimeout,
    RemoteProtocolError,
    StatusError,
)
from .fitting import fit
from .identifiers import make_identifier
from .instances import Instance, PreparedInstance, ReceivedInstance, SourceOutgoing, prepare
from .operations import Exchange, Find, Get, Move, Start, SubOperation
from .protocol import commands
from .protocol.commands import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
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
    NActionRSP,
    NCreateRQ,
    NCreateRSP,
    NDeleteRQ,
    NDeleteRSP,
    NEventReportRQ,
    NEventReportRSP,
    NGetRQ,
    NGetRSP,
    NSetRQ,
    NSetRSP,
)
from .protocol.dimse import Dimse, UnknownMessageReceived
from .protocol.negotiation import AcceptedContext, Negotiated
from .requests import EchoRequest, FindRequest, NRequest, Request, RetrieveRequest, StoreRequest
from .responses import Response
from .settings import Limits, PeerProfile, Timeouts, validate_ae_title
from .status import DUPLICATE_INVOCATION, SOP_CLASS_NOT_SUPPORTED, UNRECOGNISED_OPERATION, Status
from .transport import Transport

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Association", "Peer"]

logger = logging.getLogger("asyncdicom.association")

_RESPONSES: Mapping[type[Message], type[Message]] = MappingProxyType(
    {
        CEchoRQ: CEchoRSP,
        CStoreRQ: CStoreRSP,
        CFindRQ: CFindRSP,
        CGetRQ: CGetRSP,
        CMoveRQ: CMoveRSP,
        NEventReportRQ: NEventReportRSP,
        NGetRQ: NGetRSP,
        NSetRQ: NSetRSP,
        NActionRQ: NActionRSP,
        NCreateRQ: NCreateRSP,
        NDeleteRQ: NDeleteRSP,
    }
)
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

Query = "Dataset | Mapping[str, object] | bytes | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end.

    :ivar ae_title: its AE title, as it was called or as it calls itself.
    :ivar address: its (host, port), the path of a UNIX socket, or ``None``.
    """

    ae_title: str
    address: tuple[str, int] | str | None = None
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None


class Association(Connection):
    """An established association; :func:`asyncdicom.connect` and :class:`asyncdicom.Server` make them.

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
        self.profile = profile = profile or PeerProfile()
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
        self.worker_scopes: set[CancelScope] = set()
        self.wanted: Callable[[], None] | None = None
        self._last_activity: float | None = None
        core.establish(negotiated.contexts, negotiated.maximum_length)

    # What was negotiated.

    @property
    def accepted_contexts(self) -> tuple[AcceptedContext, ...]:
        """The presentation contexts that were accepted, in the order of their IDs."""
        return tuple(self.negotiated.contexts[key] for key in sorted(self.negotiated.contexts))

    @property
    def async_operations(self) -> tuple[int, int]:
        """The asynchronous operations window seen from us: how many we may have outstanding, and the peer with us."""
        window = self.negotiated.window
        return window.invoked, window.performed

    @property
    def extended_negotiation(self) -> Mapping[str, bytes]:
        """The acceptor's answers to SOP class extended negotiation, by SOP class UID (PS3.7 D.3.3.5).

        They are bytes that can be read by name for the classes of Query/Retrieve and Storage:
        :class:`asyncdicom.FindNegotiation`, :class:`~asyncdicom.RetrieveNegotiation`, :class:`~asyncdicom.StorageNegotiation`.
        """
        return self.negotiated.extended_negotiation

    def find_context(
        self, abstract_syntax: str, transfer_syntax: str | None = None, *, scp: bool = False
    ) -> AcceptedContext:
        """Return an accepted context in which we can be SCU (or SCP) of a SOP class.

        :raises NoPresentationContext: there is none; the message says whether it was proposed.
        """
        contexts = self._by_class.get(abstract_syntax, ())
        role_missing = False
        for context in contexts:
            if not self._may_invoke(context, scp=scp):
                role_missing = True
            elif transfer_syntax is None or context.transfer_syntax == transfer_syntax:
                return context
        raise NoPresentationContext(
            abstract_syntax, self._why_no_context(abstract_syntax, transfer_syntax, bool(contexts), role_missing)
        )

    def _why_no_context(self, uid: str, transfer_syntax: str | None, accepted: bool, role_missing: bool) -> str:
        name = sop.lookup(uid).name or uid[:64]
        if role_missing:
            cure = ": store on an association without a C-GET class, or set PeerProfile.assume_roles"
            return f"the role for {name} was not accepted{cure if self.is_requestor and sop.is_storage(uid) else ''}"
        if accepted:
            return f"{name} was accepted, but not with transfer syntax {(transfer_syntax or '')[:64]}"
        result = self.negotiated.rejected.get(uid)
        if result is None:
            return f"{name} was not proposed"
        text = {1: "user rejection", 3: "abstract syntax not supported", 4: "transfer syntaxes not supported"}
        return f"{name} was proposed but not accepted: {text.get(result, f'result {result}')}"

    # Exchanges: slots, Message IDs, and what becomes of them.

    @property
    def _window(self) -> int:
        return self.negotiated.window.invoked or _UNLIMITED

    async def _open_exchange(self, context: AcceptedContext, expects: type[Message]) -> Exchange:
        """Wait for a slot of the window and allot a Message ID."""
        self.check()
        if self._orphans or any(exchange.abandoned for exchange in self._exchanges.values()):
            await self._clean_abandoned()
        if self.baton_held or len(self._exchanges) >= self._window:
            self._check_own_task(current_task())
        if self._slot_waiters or len(self._exchanges) >= self._window:
            await self._wait_for_slot()
        if self.operations_left == 0:
            raise LocalProtocolError(
                f"the peer's profile allows {self.profile.operations} operations on an association: associate again"
            )
        exchange = Exchange(self._next_message_id(), context, expects)
        self._exchanges[exchange.message_id] = exchange
        self._operations += 1
        return exchange

    @property
    def operations_left(self) -> int | None:
        """How many operations the peer's profile still allows on this association; ``None`` is any number."""
        most = self.profile.operations
        return None if most is None else max(0, most - self._operations)

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
            if message_id not in self._exchanges:
                self._last_message_id = message_id
                return message_id

    def _free_slot(self) -> None:
        if self._slot_waiters and len(self._exchanges) < self._window:
            self._slot_waiters.popleft().put(None)

    def _remove(self, exchange: Exchange) -> None:
        if self._exchanges.pop(exchange.message_id, None) is not None:
            exchange.done = True
            self._zombies.discard(exchange)
            self._not_full(exchange)
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

    async def _send_request(
        self, exchange: Exchange, message: Message, data: bytes | SourceOutgoing | list[memoryview] | None
    ) -> None:
        await self.send(exchange.context.context_id, message, data, exchange.begin)

    async def _wait_exchange(self, exchange: Exchange) -> None:
        if not exchange.items:
            retrieves = exchange.expects is CGetRSP or exchange.expects is CMoveRSP
            kind = "retrieve" if retrieves else "response"
            await self.wait(exchange, getattr(self.timeouts, kind), kind)

    async def _call(
        self,
        context: AcceptedContext,
        make: Callable[[int], Message],
        expects: type[Message],
        data: bytes | None = None,
        check: bool = True,
    ) -> Response:
        """Send a request that has one response, and return it."""
        exchange = await self._open_exchange(context, expects)
        try:
            await self._send_request(exchange, make(exchange.message_id), data)
            await self._wait_exchange(exchange)
            response = self._take(exchange)
        except BaseException:
            self._forget(exchange)
            raise
        assert isinstance(response, Response)
        return _checked(response, check)

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
        response = Response(message, exchange.context, data)
        pending = response.status.is_pending and exchange.expects in _SEVERAL_RESPONSES
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

    def _file_request(self, context: AcceptedContext, message: Message, data: bytes | IncomingDataSet | None) -> None:
        request: Request
        if isinstance(message, CStoreRQ):
            assert data is None or isinstance(data, IncomingDataSet)
            request = StoreRequest(self, context, message, data)
            request._source_ae_title = self.peer.ae_title
        else:
            assert not isinstance(data, IncomingDataSet)
            match message:
                case CEchoRQ():
                    request = EchoRequest(self, context, message)
                case CFindRQ():
                    request = FindRequest(self, context, message, data)
                case CGetRQ() | CMoveRQ():
                    request = RetrieveRequest(self, context, message, data)
                case _:
                    request = NRequest(self, context, message, data)
        if request.message_id in self._performing:
            request.refusal = DUPLICATE_INVOCATION
        else:
            self._performing[request.message_id] = request
        performed = self.negotiated.window.performed
        if performed and self._active >= performed:
            self._held.append(request)
        else:
            self._active += 1
            self._requests.put(request)

    def file_unknown(self, message: UnknownMessageReceived) -> None:
        """Answer 0x0211 to a command that does not exist (PS3.7 C.5.23); the association survives."""
        if message.message_id is None or message.command_field & 0x8000:
            return
        response = commands.CEchoRSP(
            message_id_being_responded_to=message.message_id, status=int(UNRECOGNISED_OPERATION)
        )
        self._requests.put(_UnknownRequest(self, self.negotiated.contexts[message.context_id], message, response))
        self._active += 1

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
            self._room = anyio.Event()
            await self._room.wait()

    def on_end(self) -> None:
        for scope in self.worker_scopes:
            scope.cancel()
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
                await self.wait(self._requests, idle, "idle")
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
        several = isinstance(request, FindRequest | RetrieveRequest)
        final = not (several and status.is_pending)
        message = request.message
        if isinstance(request, _UnknownRequest):
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

    # The verbs.

    async def echo(self, *, check: bool = True) -> Response:
        """Verify that the peer answers, by C-ECHO (PS3.7 9.1.5).

        :param check: raise for a failure status instead of returning it.
        :raises NoPresentationContext: Verification was not accepted.
        :raises StatusError: the peer answered a failure.
        :raises OperationTimeout: it did not answer; the association is aborted.

        Cancelling it leaves the association intact; the late response is discarded.
        """
        context = self.find_context(sop.VERIFICATION)
        return await self._call(
            context, lambda i: CEchoRQ(message_id=i, affected_sop_class_uid=sop.VERIFICATION), CEchoRSP, None, check
        )

    async def store(
        self,
        what: str | os.PathLike[str] | Dataset | Instance,
        *,
        priority: int = 0,
        convert: bool = True,
        check: bool = True,
        move_originator: tuple[str, int] | None = None,
        bulk_data: bool = True,
    ) -> Response:
        """Send an instance, by C-STORE (PS3.7 9.1.1).

        :param what: the path of a DICOM file, a data set, or an :class:`asyncdicom.Instance`. The SOP Class and Instance
            UIDs are those of the data set; its bytes are sent as they are.
        :param priority: 0 medium, 1 high, 2 low.
        :param convert: convert a native (uncompressed) instance to another native transfer syntax if only that was
            accepted for its class.
        :param check: raise for a failure status instead of returning it.
        :param move_originator: AE title and Message ID of the C-MOVE that this is a sub-operation of.
        :param bulk_data: ``False`` leaves out the elements of PS3.4 Z.1.3.
        :raises DataSetError: not a DICOM file, or not a storable data set; nothing was sent.
        :raises OSError: the file cannot be read.
        :raises NoPresentationContext: its class and transfer syntax were not accepted.
        :raises StatusError: the peer answered a failure.

        Cancelled before the first byte is out, nothing was sent; later the message is finished if that is quick, or the
        association is aborted; cancelled while waiting for the response, the association stays intact.
        """
        exchange = await self._open_exchange(_NO_CONTEXT, CStoreRSP)
        prepared: PreparedInstance | None = None
        try:
            choose = partial(self._choose_store, convert=convert)
            message: CStoreRQ | None = None

            def compose(ready: PreparedInstance) -> None:
                nonlocal message
                message = CStoreRQ(
                    message_id=exchange.message_id,
                    affected_sop_class_uid=ready.sop_class_uid,
                    affected_sop_instance_uid=ready.sop_instance_uid,
                    priority=priority,
                    move_originator_ae_title=move_originator[0] if move_originator else None,
                    move_originator_message_id=move_originator[1] if move_originator else None,
                )
                ready.lay_out(self.core.layout, message)

            ready = partial(prepare, what, choose, bulk_data=bulk_data, compose=compose)
            path = what if isinstance(what, str | os.PathLike) else what.path if isinstance(what, Instance) else None
            folder = None if path is None else os.path.dirname(path)
            if folder is not None:
                prepared = await disk.run(folder, partial(ready, wait=False), ready, PreparedInstance.close)
            elif isinstance(what, Instance) and what.in_memory:
                prepared = ready()
            else:
                prepared = await threads.run(ready, PreparedInstance.close)
            exchange.context = prepared.context
            assert message is not None
            await self._send_request(exchange, message, prepared.buffers or SourceOutgoing(prepared.source, folder))
            await self._wait_exchange(exchange)
            response = self._take(exchange)
        except BaseException:
            self._forget(exchange)
            raise
        finally:
            if prepared is not None:
                prepared.close()
        assert isinstance(response, Response)
        return _checked(response, check)

    def _choose_store(self, sop_class: str, syntax: str, *, convert: bool = True) -> tuple[AcceptedContext, bool]:
        try:
            return self.find_context(sop_class, syntax), False
        except NoPresentationContext:
            if convert and sop.transfer_syntax(syntax).is_native:
                for context in self._by_class.get(sop_class, ()):
                    if sop.transfer_syntax(context.transfer_syntax).is_native and self._may_invoke(context):
                        return context, True
            raise

    def _may_invoke(self, context: AcceptedContext, *, scp: bool = False) -> bool:
        """Tell whether we have the SCU role (or the SCP role) in a context."""
        if context.requestor_is_scu if self.is_requestor is not scp else context.requestor_is_scp:
            return True
        return self.profile.assume_roles and not scp and sop.is_storage(context.abstract_syntax)

    def _query(
        self,
        verb: type[CFindRQ] | type[CGetRQ] | type[CMoveRQ],
        query: Any,
        model: str | None,
        level: str | None,
        keys: Mapping[str, object],
        priority: int,
        **fields: Any,
    ) -> Start:
        uid = model or self._infer_model(verb)
        context = self.find_context(uid)
        identifiers: list[Any] = (
            [query] if isinstance(query, bytes) else fit(make_identifier(query, keys, level, uid), self.profile)
        )
        left = self.operations_left
        if left is not None and 1 < len(identifiers) > left:
            raise LocalProtocolError(
                f"the query takes {len(identifiers)} requests, and the peer's profile allows {left} on this association"
            )
        return Start(
            context,
            lambda i: verb(message_id=i, affected_sop_class_uid=uid, priority=priority, **fields),
            _RESPONSES[verb],
            identifiers,
        )

    def _infer_model(self, verb: type[CFindRQ] | type[CGetRQ] | type[CMoveRQ]) -> str:
        """Return the only model that fits, Study Root if there are several."""
        preferred, *others = _MODELS[verb]
        accepted = [model for model in (preferred, *others) if self._by_class.get(model)]
        if accepted:
            return accepted[0]
        # No Query/Retrieve class: perhaps a worklist or another class with such an operation, by its keyword.
        fitting = [uid for uid in self._by_class if sop.lookup(uid).keyword.endswith(_SUFFIXES[verb])]
        return fitting[0] if len(fitting) == 1 else preferred

    def find(
        self,
        query: Any = None,
        model: str | None = None,
        *,
        level: str | None = None,
        limit: int | None = None,
        priority: int = 0,
        check: bool = True,
        **keys: object,
    ) -> Find:
        """Query, by C-FIND (PS3.7 9.1.2, PS3.4 C.4.1): iterate over the matches.

        What does not fit into one request takes several, one after the other: a list of UIDs that is longer than a value may
        be, or what the peer's :class:`~asyncdicom.PeerProfile` says that it does not understand. One key of a query may.

        :param query: the identifier: a data set, a mapping of keywords to values, or encoded bytes, which are sent as they
            are.
        :param model: the information model's SOP class; inferred from what was accepted, Study Root preferred.
        :param level: the Query/Retrieve Level, if the identifier has none.
        :param limit: deliver at most so many matches, then cancel.
        :param priority: 0 medium, 1 high, 2 low.
        :param check: raise for a failure status instead of ending.
        :param keys: more keys of the identifier, by keyword.
        :returns: a :class:`~asyncdicom.operations.Find`, which yields data sets; leaving it early sends C-CANCEL.
        """
        return Find(self, lambda: self._query(CFindRQ, query, model, level, keys, priority), limit=limit, check=check)

    def get(
        self,
        query: Any = None,
        model: str | None = None,
        *,
        level: str | None = None,
        limit: int | None = None,
        priority: int = 0,
        check: bool = True,
        **keys: object,
    ) -> Get:
        """Retrieve over this association, by C-GET (PS3.7 9.1.3, PS3.4 C.4.3): iterate over the instances.

        The arguments are those of :meth:`find`. An instance is valid until the next one is asked for.

        :returns: a :class:`~asyncdicom.operations.Get`; leaving it early sends C-CANCEL.
        """
        return Get(
            self,
            lambda: self._query(CGetRQ, query, model, level, keys, priority),
            limit=limit,
            check=check,
        )

    def move(
        self,
        query: Any = None,
        model: str | None = None,
        *,
        destination: str,
        level: str | None = None,
        priority: int = 0,
        check: bool = True,
        **keys: object,
    ) -> Move:
        """Have instances sent to an AE, by C-MOVE (PS3.7 9.1.4, PS3.4 C.4.2): iterate over the progress.

        :param destination: the AE title that the peer shall send to.
        :returns: a :class:`~asyncdicom.operations.Move`; leaving it early sends C-CANCEL.
        :raises ValueError: ``destination`` is not an AE title.
        """
        title = validate_ae_title(destination)
        return Move(
            self,
            lambda: self._query(CMoveRQ, query, model, level, keys, priority, move_destination=title),
            check=check,
        )

    async def n_event_report(
        self,
        data_set: Dataset | bytes | None,
        event_type: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> Response:
        """Report an event (PS3.7 10.1.1). ``context`` names the abstract syntax if it is not the SOP class."""
        return await self._n_call(
            context or sop_class_uid,
            data_set,
            lambda i: NEventReportRQ(
                message_id=i,
                affected_sop_class_uid=sop_class_uid,
                affected_sop_instance_uid=sop_instance_uid,
                event_type_id=event_type,
            ),
            NEventReportRSP,
            check,
            scp=True,
        )

    async def n_get(
        self,
        attributes: Iterable[int],
        sop_class_uid: str,
        sop_instance_uid: str,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> Response:
        """Get attributes of a SOP instance (PS3.7 10.1.2): tags, or none for all."""
        tags = tuple(int(tag) for tag in attributes)
        return await self._n_call(
            context or sop_class_uid,
            None,
            lambda i: NGetRQ(
                message_id=i,
                requested_sop_class_uid=sop_class_uid,
                requested_sop_instance_uid=sop_instance_uid,
                attribute_identifier_list=tags or None,
            ),
            NGetRSP,
            check,
        )

    async def n_set(
        self,
        data_set: Dataset | bytes,
        sop_class_uid: str,
        sop_instance_uid: str,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> Response:
        """Set attributes of a SOP instance (PS3.7 10.1.3)."""
        return await self._n_call(
            context or sop_class_uid,
            data_set,
            lambda i: NSetRQ(
                message_id=i, requested_sop_class_uid=sop_class_uid, requested_sop_instance_uid=sop_instance_uid
            ),
            NSetRSP,
            check,
        )

    async def n_action(
        self,
        data_set: Dataset | bytes | None,
        action_type: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> Response:
        """Ask for an action on a SOP instance (PS3.7 10.1.4)."""
        return await self._n_call(
            context or sop_class_uid,
            data_set,
            lambda i: NActionRQ(
                message_id=i,
                requested_sop_class_uid=sop_class_uid,
                requested_sop_instance_uid=sop_instance_uid,
                action_type_id=action_type,
            ),
            NActionRSP,
            check,
        )

    async def n_create(
        self,
        data_set: Dataset | bytes | None,
        sop_class_uid: str,
        sop_instance_uid: str | None = None,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> Response:
        """Create a SOP instance (PS3.7 10.1.5)."""
        return await self._n_call(
            context or sop_class_uid,
            data_set,
            lambda i: NCreateRQ(
                message_id=i, affected_sop_class_uid=sop_class_uid, affected_sop_instance_uid=sop_instance_uid
            ),
            NCreateRSP,
            check,
        )

    async def n_delete(
        self, sop_class_uid: str, sop_instance_uid: str, *, context: str | None = None, check: bool = True
    ) -> Response:
        """Delete a SOP instance (PS3.7 10.1.6)."""
        return await self._n_call(
            context or sop_class_uid,
            None,
            lambda i: NDeleteRQ(
                message_id=i, requested_sop_class_uid=sop_class_uid, requested_sop_instance_uid=sop_instance_uid
            ),
            NDeleteRSP,
            check,
        )

    async def _n_call(
        self,
        abstract_syntax: str,
        data_set: Dataset | bytes | None,
        make: Callable[[int], Message],
        expects: type[Message],
        check: bool,
        *,
        scp: bool = False,
    ) -> Response:
        try:
            context = self.find_context(abstract_syntax)
        except NoPresentationContext:
            if not scp:
                raise
            context = self.find_context(abstract_syntax, scp=True)
        data = data_set
        if data is not None and not isinstance(data, bytes):
            data = _dataset.encode_data_set(data, context.transfer_syntax)
        return await self._call(context, make, expects, data, check)

    # The end.

    async def release(self) -> None:
        """Release the association (PS3.8 7.2), after cancelling and draining operations that are still open.

        If the peer does not answer in time, or the association has ended already, the transport is just closed. Cancelling
        it aborts the association.
        """
        if self.ended:
            await self.close_transport(0)
            return
        released = False
        try:
            await self._leave_operations()
            if not self.ended:
                async with self._send_lock:
                    self.core.upper_layer.release()
                    await self._transmit(self.core.upper_layer.data_to_send())
                box: Box[None] = Box()
                try:
                    await self.wait(box, self.timeouts.release, "release")
                except OperationTimeout:
                    raise
                except AssociationClosed:
                    pass
            released = True
        except (AssociationClosed, AssociationAborted):
            released = True
        finally:
            if not released:
                self.abort_now(lambda: AssociationAborted(0, 0, "the association was aborted while it was released"))
            await self.close_transport(0)

    async def _leave_operations(self) -> None:
        for exchange in list(self._exchanges.values()):
            operation = exchange.operation() if exchange.operation is not None else None
            if operation is not None and not operation._closed and not operation._running:
                await operation.aclose()
        if self._orphans or any(exchange.abandoned for exchange in self._exchanges.values()):
            await self._clean_abandoned()

    async def abort(self) -> None:
        """Abort the association (PS3.8 7.3), bounded by ``Timeouts.abort``."""
        if not self.ended:
            self.end(lambda: AssociationAborted(0, 0))
            upper_layer = self.core.upper_layer
            if upper_layer.can_abort:
                upper_layer.abort()
        await self.close_transport(self.timeouts.abort)

    async def wait_closed(self) -> None:
        """Wait until the association has ended, whatever ends it, reading meanwhile.

        Cancelling it changes nothing.
        """
        box: Box[None] = Box()
        while not self.ended:
            try:
                await self.wait(box, None, "idle")
            except Exception:
                if not self.ended:
                    raise

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


class _UnknownRequest(Request):
    """A request with a Command Field that does not exist; it is refused."""

    def __init__(
        self,
        association: Association,
        context: AcceptedContext,
        message: UnknownMessageReceived,
        response: commands.CEchoRSP,
    ) -> None:
        super().__init__(association, context, CEchoRQ(message_id=message.message_id or 0, affected_sop_class_uid=""))
        self.response = response
        self.refusal = UNRECOGNISED_OPERATION


def _response(message: Message, status: Status, fields: Mapping[str, Any]) -> Message:
    kind: Any = _RESPONSES[type(message)]
    names = kind.__dataclass_fields__
    values: dict[str, Any] = {
        "message_id_being_responded_to": getattr(message, "message_id"),  # noqa: B009
        "status": int(status),
    }
    for name in ("sop_class_uid", "sop_instance_uid"):
        uid = getattr(message, f"affected_{name}", None) or getattr(message, f"requested_{name}", None)
        if uid is not None and f"affected_{name}" in names:
            values[f"affected_{name}"] = uid
    for name in ("event_type_id", "action_type_id"):
        if name in names and getattr(message, name, None) is not None:
            values[name] = getattr(message, name)
    values.update((name, value) for name, value in fields.items() if value is not None and name in names)
    response: Message = kind(**values)
    return response


def _checked(response: Response, check: bool) -> Response:
    if check and response.status.is_failure:
        raise StatusError(response.status, response.error_comment, response)
    return response


_NO_CONTEXT = AcceptedContext(
    context_id=0, abstract_syntax="", transfer_syntax="", requestor_is_scu=True, requestor_is_scp=False
)

_SUFFIXES: Mapping[type[Message], str] = MappingProxyType({CFindRQ: "Find", CGetRQ: "Get", CMoveRQ: "Move"})

_MODELS: Mapping[type[Message], tuple[sop.SOPClass, ...]] = MappingProxyType(
    {
        CFindRQ: (sop.STUDY_ROOT_FIND, *(model for model in sop.FIND if model != sop.STUDY_ROOT_FIND)),
        CGetRQ: (sop.STUDY_ROOT_GET, *(model for model in sop.GET if model != sop.STUDY_ROOT_GET)),
        CMoveRQ: (sop.STUDY_ROOT_MOVE, *(model for model in sop.MOVE if model != sop.STUDY_ROOT_MOVE)),
    }
)
