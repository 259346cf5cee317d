"""What a peer answers: responses, the counters in them, and several of them taken together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import dataset as _dataset
from .exceptions import DataSetError
from .identifiers import encode_failed_list
from .incoming import Oversized
from .protocol.commands import CFindRSP, Message
from .protocol.negotiation import AcceptedContext
from .status import CANCEL, SUCCESS, Status

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Progress", "Response", "add", "merge"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The sub-operation counters of a C-GET or C-MOVE response (PS3.7 9.1.3.1); ``None`` where the peer gave none."""

    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None

    @property
    def total(self) -> int | None:
        """All sub-operations, if enough counters are known."""
        if self.remaining is None:
            return None
        return self.remaining + (self.completed or 0) + (self.failed or 0) + (self.warning or 0)


class Response:
    """One response of the peer.

    :ivar status: its :class:`asyncdicom.Status`.
    :ivar message_id: the Message ID of the request that it answers.
    :ivar message: the whole command set.
    :ivar data_set_bytes: its data set as it came, or ``None``.
    """

    __slots__ = ("_context", "_decoded", "_raw", "data_set_bytes", "message", "message_id", "status")

    def __init__(self, message: Message, context: AcceptedContext, data: bytes | None) -> None:
        # Matches come by the thousand, and few of their values are ever looked at.
        self._raw = type(message) is CFindRSP
        self.message = message
        self.message_id: int = getattr(message, "message_id_being_responded_to")  # noqa: B009
        code: int = getattr(message, "status")  # noqa: B009
        self.status = Status(code) if code else SUCCESS
        self.data_set_bytes = data
        self._context = context
        self._decoded: Dataset | None = None

    @property
    def transfer_syntax_uid(self) -> str:
        """How the data set is encoded."""
        return self._context.transfer_syntax

    @property
    def data_set(self) -> Dataset | None:
        """The data set, decoded on first access; ``None`` if there is none.

        :raises DataSetError: it cannot be decoded.
        """
        if self._decoded is None and self.data_set_bytes is not None:
            if isinstance(self.data_set_bytes, Oversized):
                raise DataSetError("the data set of the response is longer than Limits.identifier")
            self._decoded = _dataset.decode_data_set(self.data_set_bytes, self.transfer_syntax_uid, raw=self._raw)
        return self._decoded

    @property
    def error_comment(self) -> str | None:
        """The Error Comment (0000,0902), if there is one."""
        return getattr(self.message, "error_comment", None)

    @property
    def offending_element(self) -> tuple[int, ...]:
        """The tags of Offending Element (0000,0901)."""
        return tuple(getattr(self.message, "offending_element", None) or ())

    @property
    def error_id(self) -> int | None:
        """The Error ID (0000,0903), if there is one."""
        return getattr(self.message, "error_id", None)

    @property
    def progress(self) -> Progress:
        """The sub-operation counters."""
        message = self.message
        return Progress(
            getattr(message, "number_of_remaining_suboperations", None),
            getattr(message, "number_of_completed_suboperations", None),
            getattr(message, "number_of_failed_suboperations", None),
            getattr(message, "number_of_warning_suboperations", None),
        )

    @property
    def affected_sop_instance_uid(self) -> str | None:
        """The Affected SOP Instance UID, such as the one that an N-CREATE was given."""
        return getattr(self.message, "affected_sop_instance_uid", None)

    @property
    def failed_sop_instance_uids(self) -> list[str]:
        """The Failed SOP Instance UID List (0008,0058) of a retrieval's response.

        :raises DataSetError: the data set cannot be decoded.
        """
        data_set = self.data_set
        value = None if data_set is None else data_set.get("FailedSOPInstanceUIDList")
        if not value:
            return []
        return [str(value)] if isinstance(value, str) else [str(uid) for uid in value]

    def __repr__(self) -> str:
        return f"<Response {self.status!r} to message {self.message_id}>"


def merge(responses: Sequence[Response]) -> Response:
    """Return the worst of final responses, with the counters and the failed instances of all of them."""
    worst = max(responses, key=lambda response: _badness(response.status))
    if len(responses) == 1 or not hasattr(worst.message, "number_of_completed_suboperations"):
        return worst
    counts = add(response.progress for response in responses)
    failed: dict[str, None] = {}
    for response in responses:
        with suppress(DataSetError):
            failed.update(dict.fromkeys(response.failed_sop_instance_uids))
    message: Any = worst.message
    merged = replace(
        message,
        number_of_remaining_suboperations=counts.remaining,
        number_of_completed_suboperations=counts.completed,
        number_of_failed_suboperations=counts.failed,
        number_of_warning_suboperations=counts.warning,
    )
    data = encode_failed_list(failed, worst.transfer_syntax_uid) if failed else worst.data_set_bytes
    return Response(merged, worst._context, data)


def _badness(status: Status) -> int:
    """Order statuses: success, warning, cancel, failure."""
    return 3 if status.is_failure else 2 if status == CANCEL else 1 if status.is_warning else 0


def add(counters: Iterable[Progress]) -> Progress:
    """Add counters up; ``None`` where none is known."""
    sums: list[int | None] = [None] * 4
    for progress in counters:
        each = (progress.remaining, progress.completed, progress.failed, progress.warning)
        sums = [old if new is None else (old or 0) + new for old, new in zip(sums, each, strict=True)]
    return Progress(*sums)
