"""One association, as requestor or as acceptor: what was negotiated, the verbs, and its end (PS3.7, PS3.8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import dataset as _dataset
from . import sop
from .dispatch import Dispatch, Peer
from .exceptions import (
    AssociationAborted,
    AssociationClosed,
    LocalProtocolError,
    NoPresentationContext,
    OperationTimeout,
    StatusError,
)
from .fitting import fit
from .forwarding import ReceivedOutgoing
from .identifiers import make_identifier
from .incoming import Box, IncomingDataSet
from .instances import ReceivedData
from .operations import Find, Get, Move, Start
from .protocol import commands
from .protocol.commands import (
    RESPONSES,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
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
from .protocol.dimse import UnknownMessageReceived
from .protocol.negotiation import AcceptedContext
from .requests import EchoRequest, FindRequest, NRequest, Request, RetrieveRequest, StoreRequest, UnknownRequest
from .responses import Response
from .settings import validate_ae_title
from .status import DUPLICATE_INVOCATION, UNRECOGNISED_OPERATION
from .storing import NO_CONTEXT, StoreMany, StoreOptions, make_ready

if TYPE_CHECKING:
    from pydicom import Dataset

    from .storing import Storable

__all__ = ["Association", "Peer"]

Query = "Dataset | Mapping[str, object] | bytes | None"


class Association(Dispatch):
    """An established association; :func:`asyncdicom.connect` and :class:`asyncdicom.Server` make them.

    :ivar peer: the :class:`Peer`.
    :ivar strict_roles: answer C-GET sub-operations on contexts without a negotiated SCP role with a failure.
    :ivar profile: how the peer is treated.
    """

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

    # Requests of the peer.

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
        self._requests.put(UnknownRequest(self, self.negotiated.contexts[message.context_id], message, response))
        self._active += 1

    # The verbs.

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
        what: Storable | StoreRequest,
        *,
        priority: int = 0,
        convert: bool = True,
        check: bool = True,
        move_originator: tuple[str, int] | None = None,
        bulk_data: bool = True,
    ) -> Response:
        """Send an instance, by C-STORE (PS3.7 9.1.1).

        :param what: the path of a DICOM file, a data set, or an :class:`asyncdicom.Instance`. The SOP Class and Instance
            UIDs are those of the data set; its bytes are sent as they are. An instance that is being received, by C-GET or
            as a :class:`asyncdicom.StoreRequest`, is sent on as it comes, under the UIDs that it came with; it is not
            converted.
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
        options = StoreOptions(priority=priority, convert=convert, bulk_data=bulk_data, move_originator=move_originator)
        exchange = await self._open_exchange(NO_CONTEXT, CStoreRSP)
        try:
            if isinstance(what, ReceivedData):
                exchange.context = self.find_context(what.sop_class_uid, what.transfer_syntax_uid)
                request = options.request(exchange.message_id, what.sop_class_uid, what.sop_instance_uid)
                await self._send_request(exchange, request, ReceivedOutgoing(what))
                await self._wait_exchange(exchange)
            else:
                ready = await make_ready(self, what, exchange.message_id, options)
                try:
                    exchange.context = ready.context
                    await self._send_request(exchange, ready.message, ready.data)
                    await self._wait_exchange(exchange)
                finally:
                    ready.close()
            response = self._take(exchange)
        except BaseException:
            self._forget(exchange)
            raise
        assert isinstance(response, Response)
        return _checked(response, check)

    def store_many(
        self,
        what: Iterable[Storable],
        *,
        priority: int = 0,
        convert: bool = True,
        bulk_data: bool = True,
    ) -> StoreMany:
        """Send instances one behind the other, by C-STORE (PS3.7 9.1.1), and iterate over what became of them.

        ::

            async for stored in assoc.store_many(folder.glob("*.dcm")):
                print(stored.what, stored.error or "stored")

        While the peer is busy with one, the next is opened and read, and as many are sent as the asynchronous operations
        window allows (``connect(async_operations=(16, 1))``): several times faster than :meth:`store` in a loop where
        instances are small or the network is slow.

        :param what: paths of DICOM files, data sets and :class:`asyncdicom.Instance` objects, taken as they are needed.
        :param priority: 0 medium, 1 high, 2 low.
        :param convert: as with :meth:`store`.
        :param bulk_data: as with :meth:`store`.
        :returns: a :class:`asyncdicom.StoreMany`, which yields an :class:`asyncdicom.Stored` for each, in the order given.
            One that cannot be sent, or that the peer refuses, is no reason to stop: its ``error`` says why.
        :raises TypeError: ``what`` is one instance.
        :raises AssociationError: when iterating: the association ended; ``pending`` was sent and has no outcome.
        :raises OperationTimeout: when iterating: the peer did not answer; the association is aborted.

        These, and what the iterable or an instance of your own raises otherwise, come behind the outcomes that are known.

        Cancelling it while iterating, or leaving the loop, sends no more and leaves the association intact.
        """
        options = StoreOptions(priority=priority, convert=convert, bulk_data=bulk_data)
        return StoreMany(self, what, options)

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
            RESPONSES[verb],
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

        If the association has ended already, the transport is just closed. Cancelling it aborts the association.

        :raises OperationTimeout: of kind ``"release"``: the peer did not answer, and was aborted.
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


def _checked(response: Response, check: bool) -> Response:
    # Success is 0; whatever else comes is rare enough to be looked up.
    if check and response.status and response.status.is_failure:
        raise StatusError(response.status, response.error_comment, response)
    return response


_SUFFIXES: Mapping[type[Message], str] = MappingProxyType({CFindRQ: "Find", CGetRQ: "Get", CMoveRQ: "Move"})

_MODELS: Mapping[type[Message], tuple[sop.SOPClass, ...]] = MappingProxyType(
    {
        CFindRQ: (sop.STUDY_ROOT_FIND, *(model for model in sop.FIND if model != sop.STUDY_ROOT_FIND)),
        CGetRQ: (sop.STUDY_ROOT_GET, *(model for model in sop.GET if model != sop.STUDY_ROOT_GET)),
        CMoveRQ: (sop.STUDY_ROOT_MOVE, *(model for model in sop.MOVE if model != sop.STUDY_ROOT_MOVE)),
    }
)
