"""Requests that a peer makes of us: what service handlers are given, and what ``async for request in assoc`` yields."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anyio import CancelScope

from . import dataset as _dataset
from .exceptions import DataSetError, StatusError
from .incoming import IncomingDataSet, Oversized
from .instances import ReceivedData
from .protocol.commands import (
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    CStoreRQ,
    Message,
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
)
from .protocol.dimse import UnknownMessageReceived
from .protocol.negotiation import AcceptedContext
from .status import OUT_OF_RESOURCES, UNRECOGNISED_OPERATION, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydicom import Dataset

    from .association import Association
    from .responses import Progress

__all__ = [
    "EchoRequest",
    "FindRequest",
    "NRequest",
    "QueryRequest",
    "Request",
    "RetrieveRequest",
    "StoreRequest",
    "UnknownRequest",
]


class Request:
    """One request of the peer.

    :cvar log_level: the level at which its end is logged: those that come by the thousand at DEBUG.

    :ivar association: the association that it came on.
    :ivar context: the accepted presentation context that it came on.
    :ivar message: its command set.
    :ivar message_id: its Message ID (0000,0110).
    :ivar cancelled: whether the peer has sent C-CANCEL for it (PS3.7 9.3.2.3).
    :ivar responded: whether its final response was sent, with :attr:`final_status`.
    :ivar responses: pending responses that were sent.
    :ivar started: when it came, on the event loop's clock, in seconds.
    :ivar refusal: the status to answer without performing it, if it may not be performed.
    """

    log_level = logging.DEBUG

    def __init__(self, association: Association, context: AcceptedContext, message: Message) -> None:
        self.association = association
        self.context = context
        self.message = message
        self.message_id: int = getattr(message, "message_id")  # noqa: B009 - a union of messages
        self.cancelled = False
        self.responded = False
        self.responses = 0
        self.final_status: int | None = None
        self.started = association.now()
        self.refusal: Status | None = None
        self._scope: CancelScope | None = None
        self._may_interrupt = False

    @property
    def priority(self) -> int:
        """The Priority (0000,0700): 0 medium, 1 high, 2 low; 0 where the message has none."""
        return int(getattr(self.message, "priority", 0) or 0)

    @property
    def sop_class_uid(self) -> str:
        """The SOP Class UID that the request names, or that of the context if it names none."""
        message = self.message
        uid = getattr(message, "affected_sop_class_uid", None) or getattr(message, "requested_sop_class_uid", None)
        return str(uid or self.context.abstract_syntax)

    @property
    def transfer_syntax_uid(self) -> str:
        """The transfer syntax of the context: how data sets of the request and of its responses are encoded."""
        return self.context.transfer_syntax

    def expire_data(self) -> None:
        """End the validity of the data set, once the request has its response."""

    def cancel(self) -> None:
        """Cancel whoever performs the request, at its next await."""
        self.cancelled = True
        if self._scope is not None and self._may_interrupt:
            self._scope.cancel()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let a C-CANCEL cancel what is done in the block.

        That is the handler, but never a message of ours on its way out: the association could not be used any more.
        """
        self._may_interrupt = True
        try:
            yield
        finally:
            self._may_interrupt = False

    async def respond(
        self,
        status: int,
        data_set: Dataset | bytes | None = None,
        *,
        error_comment: str | None = None,
        offending_element: Iterable[int] | None = None,
        error_id: int | None = None,
    ) -> None:
        """Send a response: the primitive that service handlers spare you.

        :param status: the status; a pending one leaves the request open, any other ends it.
        :param data_set: what goes with it; encoded in :attr:`transfer_syntax_uid` unless it is bytes.
        :param error_comment: printable text, cut to 64 characters.
        :raises DataSetError: the data set cannot be encoded.
        :raises AssociationError: the association has ended.
        """
        fields = {"error_comment": error_comment, "offending_element": offending_element, "error_id": error_id}
        await self._answer(Status(status), data_set, fields)

    async def _answer(self, status: Status, data_set: Dataset | bytes | None, fields: Mapping[str, Any]) -> None:
        """Send a response with what of the command set is not empty."""
        if data_set is not None and not isinstance(data_set, bytes):
            data_set = _dataset.encode_data_set(data_set, self.transfer_syntax_uid)
        tags = fields["offending_element"]
        await self.association._respond(
            self, status, data_set, **{**fields, "offending_element": tuple(tags) if tags else None}
        )


class EchoRequest(Request):
    """A C-ECHO request (PS3.7 9.1.5)."""

    message: CEchoRQ


class StoreRequest(ReceivedData, Request):
    """A C-STORE request (PS3.7 9.1.1) whose data set is still on its way.

    :ivar sop_instance_uid: the Affected SOP Instance UID, checked to be a valid UID (so it is safe in a file name).
    """

    message: CStoreRQ

    def __init__(
        self, association: Association, context: AcceptedContext, message: CStoreRQ, incoming: IncomingDataSet | None
    ) -> None:
        Request.__init__(self, association, context, message)
        ReceivedData.__init__(self, incoming)
        self.sop_instance_uid = message.affected_sop_instance_uid or ""

    @property
    def has_no_data(self) -> bool:
        """Whether the request came without a data set."""
        return self._incoming is None

    def expire_data(self) -> None:
        self.expire()

    @property
    def sop_class_uid(self) -> str:  # type: ignore[override]
        """The Affected SOP Class UID."""
        return self.message.affected_sop_class_uid or self.context.abstract_syntax

    @property
    def transfer_syntax_uid(self) -> str:  # type: ignore[override]
        """The transfer syntax of the data set."""
        return self.context.transfer_syntax

    @property
    def move_originator_ae_title(self) -> str | None:
        """The AE title that asked for the C-MOVE that this is a sub-operation of."""
        return self.message.move_originator_ae_title

    @property
    def move_originator_message_id(self) -> int | None:
        """The Message ID of the C-MOVE that this is a sub-operation of."""
        return self.message.move_originator_message_id


class _DataRequest(Request):
    """A request whose data set was collected before it is handed out."""

    _limits = _dataset.DataSetLimits()

    def __init__(
        self, association: Association, context: AcceptedContext, message: Message, data: bytes | None
    ) -> None:
        super().__init__(association, context, message)
        self._data = data
        self._decoded: Dataset | None = None

    def _bytes(self) -> bytes:
        if isinstance(self._data, Oversized):
            raise StatusError(OUT_OF_RESOURCES, "the identifier is too long")
        return self._data or b""

    def _decode(self) -> Dataset:
        if self._decoded is None:
            self._decoded = _dataset.decode_data_set(self._bytes(), self.transfer_syntax_uid, limits=self._limits)
        return self._decoded


class QueryRequest(_DataRequest):
    """A request with an identifier: C-FIND, C-GET or C-MOVE."""

    message: CFindRQ | CGetRQ | CMoveRQ
    log_level = logging.INFO
    # It is decoded in the event loop's thread, so it may not be large.
    _limits = _dataset.DataSetLimits(nesting=16, elements=20_000, inflated=16 << 20)

    @property
    def has_no_identifier(self) -> bool:
        """Whether the request came without an identifier, which PS3.7 does not allow."""
        return self._data is None

    @property
    def identifier_bytes(self) -> bytes:
        """The identifier, encoded in :attr:`transfer_syntax_uid`."""
        return self._bytes()

    @property
    def identifier(self) -> Dataset:
        """The identifier, decoded on first access.

        :raises DataSetError: it cannot be decoded; a handler that lets it pass answers 0xCx10.
        """
        if self.has_no_identifier:
            raise DataSetError("the request has no identifier")
        return self._decode()

    @property
    def level(self) -> str:
        """The Query/Retrieve Level (0008,0052), empty if there is none.

        :raises DataSetError: the identifier cannot be decoded.
        """
        return str(self.identifier.get("QueryRetrieveLevel") or "").strip()


class FindRequest(QueryRequest):
    """A C-FIND request (PS3.7 9.1.2)."""

    message: CFindRQ


class RetrieveRequest(QueryRequest):
    """A C-GET or C-MOVE request (PS3.7 9.1.3, 9.1.4).

    :ivar total: the number of sub-operations; a handler sets it before it yields its first instance (or yields it).
    """

    message: CGetRQ | CMoveRQ

    def __init__(
        self, association: Association, context: AcceptedContext, message: CGetRQ | CMoveRQ, data: bytes | None
    ) -> None:
        super().__init__(association, context, message, data)
        self.total: int | None = None
        self._pairs: dict[tuple[str, str], None] = {}

    @property
    def is_move(self) -> bool:
        """Whether it is a C-MOVE."""
        return isinstance(self.message, CMoveRQ)

    @property
    def destination(self) -> str | None:
        """The Move Destination, an AE title; ``None`` for C-GET."""
        return self.message.move_destination if isinstance(self.message, CMoveRQ) else None

    def expect(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Tell beforehand which (SOP class, transfer syntax) pairs will be yielded.

        A C-MOVE then opens one association that proposes them all, instead of another one whenever a new pair appears.
        """
        for pair in pairs:
            self._pairs[pair] = None

    async def respond(
        self,
        status: int,
        data_set: Dataset | bytes | None = None,
        *,
        progress: Progress | None = None,
        error_comment: str | None = None,
        offending_element: Iterable[int] | None = None,
        error_id: int | None = None,
    ) -> None:
        """Send a response, see :meth:`Request.respond`.

        :param progress: the counters of sub-operations, 0 unless they are given. Those which remain are told in a pending
            response and a Cancel only (PS3.4 C.4.2.1.6, C.4.3.1.6); numbers over 65 535 are told as that.
        """
        code = Status(status)
        counters = {
            f"number_of_{name}_suboperations": min(getattr(progress, name, None) or 0, 0xFFFF)
            for name in ("remaining", "completed", "failed", "warning")
            if name != "remaining" or code.is_pending or code.is_cancel
        }
        fields = {"error_comment": error_comment, "offending_element": offending_element, "error_id": error_id}
        await self._answer(code, data_set, fields | counters)


class NRequest(_DataRequest):
    """An N-EVENT-REPORT, N-GET, N-SET, N-ACTION, N-CREATE or N-DELETE request (PS3.7 chapter 10)."""

    message: NEventReportRQ | NGetRQ | NSetRQ | NActionRQ | NCreateRQ | NDeleteRQ

    @property
    def sop_instance_uid(self) -> str | None:
        """The SOP Instance UID that the request names, if any."""
        message = self.message
        uid = getattr(message, "affected_sop_instance_uid", None) or getattr(
            message, "requested_sop_instance_uid", None
        )
        return None if uid is None else str(uid)

    @property
    def data_set_bytes(self) -> bytes | None:
        """The data set of the request, encoded, if it has one."""
        return None if self._data is None else self._bytes()

    @property
    def data_set(self) -> Dataset | None:
        """The data set of the request, decoded on first access.

        :raises DataSetError: it cannot be decoded.
        """
        return None if self._data is None else self._decode()

    @property
    def event_type_id(self) -> int | None:
        """The Event Type ID of an N-EVENT-REPORT."""
        return getattr(self.message, "event_type_id", None)

    @property
    def action_type_id(self) -> int | None:
        """The Action Type ID of an N-ACTION."""
        return getattr(self.message, "action_type_id", None)

    @property
    def attribute_identifiers(self) -> tuple[int, ...]:
        """The Attribute Identifier List of an N-GET, as tags; empty asks for all."""
        return tuple(getattr(self.message, "attribute_identifier_list", None) or ())


class UnknownRequest(Request):
    """A request with a Command Field that does not exist; it is refused."""

    def __init__(
        self,
        association: Association,
        context: AcceptedContext,
        message: UnknownMessageReceived,
        response: CEchoRSP,
    ) -> None:
        super().__init__(association, context, CEchoRQ(message_id=message.message_id or 0, affected_sop_class_uid=""))
        self.response = response
        self.refusal = UNRECOGNISED_OPERATION
