"""The exceptions that asyncdicom raises.

.. code-block:: text

    DicomNetworkError(Exception)
    ├── ProtocolError
    │   ├── LocalProtocolError      you did something that PS3.7 or PS3.8 forbid; nothing was sent
    │   └── RemoteProtocolError     the peer did; the association was aborted
    ├── AssociationError
    │   ├── AssociationRejected     the peer answered A-ASSOCIATE-RJ (or a policy wants us to)
    │   ├── AssociationAborted      an A-ABORT was received, or we sent one
    │   ├── AssociationClosed       released, or the transport was lost
    │   └── NoPresentationContext   the operation needs a context that was not proposed or not accepted
    ├── ConcurrencyError            another operation is in progress
    ├── ConnectError                (also OSError) no transport connection could be made
    ├── OperationTimeout            (also TimeoutError) a deadline of ``Timeouts`` passed
    ├── DataSetError                (also ValueError) a data set cannot be decoded or encoded
    └── StatusError                 a failure status; handlers raise it to answer one

Messages say what happened with which values; they never hold patient data or credentials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .responses import Response
    from .status import Status

__all__ = [
    "AssociationAborted",
    "AssociationClosed",
    "AssociationError",
    "AssociationRejected",
    "ConcurrencyError",
    "ConnectError",
    "DataSetError",
    "DicomNetworkError",
    "LocalProtocolError",
    "NoPresentationContext",
    "OperationTimeout",
    "ProtocolError",
    "RemoteProtocolError",
    "StatusError",
]


class DicomNetworkError(Exception):
    """The root of every exception that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Copied and unpickled without __init__: its arguments are not those that Exception keeps.
        return _blank, (type(self), self.args), self.__dict__


def _blank(kind: type[DicomNetworkError], args: tuple[object, ...]) -> DicomNetworkError:
    """Return an exception to which :mod:`pickle` and :mod:`copy` give the attributes of another one."""
    exc = kind.__new__(kind, *args)
    exc.args = args
    return exc


class ProtocolError(DicomNetworkError):
    """A rule of PS3.7 or PS3.8 was broken."""


class LocalProtocolError(ProtocolError):
    """You asked for something that the standard forbids; nothing was sent and nothing changed."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule of the standard and the association was aborted.

    :ivar reason: the reason field of the A-ABORT that answered it (PS3.8 Table 9-26).
    """

    def __init__(self, message: str, reason: int = 0) -> None:
        super().__init__(message)
        self.reason = reason


class AssociationError(DicomNetworkError):
    """The association cannot be used: it was refused, has ended, or lacks what is needed."""


#: PS3.8 Table 9-21, result -> text.
_RESULTS = {1: "rejected permanently", 2: "rejected transiently"}

#: PS3.8 Table 9-21, (source, reason) -> text.
_REJECT_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}

#: PS3.8 Table 9-26, reason of a provider's A-ABORT -> text.
_ABORT_REASONS = {
    0: "reason not specified",
    1: "unrecognized PDU",
    2: "unexpected PDU",
    4: "unrecognized PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter value",
}


class AssociationRejected(AssociationError):
    """The association was rejected (PS3.8 9.3.4).

    A client sees it when the peer answers A-ASSOCIATE-RJ; a server's ``on_associate`` policy raises it to send one.

    :ivar result: 1 permanent, 2 transient.
    :ivar source: 1 service user, 2 service provider (ACSE), 3 service provider (presentation).
    :ivar reason: depends on the source, PS3.8 Table 9-21.
    """

    def __init__(self, result: int = 1, source: int = 1, reason: int = 1) -> None:
        text = _REJECT_REASONS.get((source, reason), "reason unknown")
        kind = _RESULTS.get(result, "rejected")
        super().__init__(f"association {kind}: {text} (result {result}, source {source}, reason {reason})")
        self.result = result
        self.source = source
        self.reason = reason


class AssociationAborted(AssociationError):
    """The association was aborted (PS3.8 9.3.8), by the peer or by us.

    :ivar source: 0 service user, 2 service provider.
    :ivar reason: PS3.8 Table 9-26; 0 when the source is the user.
    """

    def __init__(self, source: int = 0, reason: int = 0, message: str | None = None) -> None:
        if message is None:
            if source == 2:
                text = _ABORT_REASONS.get(reason, "reason unknown")
                message = f"association aborted by the service provider: {text} (source {source}, reason {reason})"
            else:
                message = f"association aborted by the service user (source {source}, reason {reason})"
        super().__init__(message)
        self.source = source
        self.reason = reason


class AssociationClosed(AssociationError):
    """The association has ended: it was released, or its transport was lost (then ``__cause__`` says how)."""


class NoPresentationContext(AssociationError):
    """No accepted presentation context fits the operation.

    :ivar abstract_syntax: the SOP class UID that was needed.
    """

    def __init__(self, abstract_syntax: str, message: str) -> None:
        super().__init__(message)
        self.abstract_syntax = abstract_syntax


class ConcurrencyError(DicomNetworkError):
    """Another operation of the task is in progress, and this one would wait for it for ever.

    The negotiated window leaves no room for it, or nothing more is read before what came for the other one was taken.
    """


class ConnectError(DicomNetworkError, OSError):
    """No transport connection could be made: refused, unreachable, name or TLS failure."""


class OperationTimeout(DicomNetworkError, TimeoutError):
    """A deadline of :class:`asyncdicom.Timeouts` passed.

    :ivar kind: the name of the deadline: ``"connect"``, ``"tls"``, ``"associate"``, ``"message"``, ``"response"``,
        ``"retrieve"``, ``"idle"``, ``"release"``, ``"cancel"``, ``"abort"`` or ``"write"``.
    """

    def __init__(self, kind: str, seconds: float | None = None) -> None:
        after = "" if seconds is None else f" after {seconds:g} s"
        super().__init__(f"timed out{after} ({kind})")
        self.kind = kind
        self.seconds = seconds


class DataSetError(DicomNetworkError, ValueError):
    """A data set, a Part 10 file or a command set cannot be decoded or encoded."""


def _escaped(text: str) -> str:
    """Escape what a peer could do to a terminal or a log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class StatusError(DicomNetworkError):
    """A DIMSE operation ended with a failure status (PS3.7 Annex C).

    Verbs raise it for a failure status of the peer; handlers raise it to answer one:
    ``raise StatusError(0xA700, "disk full")``, ``raise StatusError(0xA900, "no level", offending_elements=[0x00080052])``.

    :ivar status: the :class:`asyncdicom.Status`.
    :ivar comment: the Error Comment (0000,0902), or ``None``.
    :ivar response: the whole response, when a peer sent it.
    :ivar offending_elements: the tags of Offending Element (0000,0901).
    """

    def __init__(
        self,
        status: int,
        comment: str | None = None,
        response: Response | None = None,
        *,
        offending_elements: Iterable[int] = (),
    ) -> None:
        from .status import Status

        self.status: Status = Status(status)
        self.comment = comment
        self.response = response
        self.offending_elements = tuple(offending_elements) or (() if response is None else response.offending_element)
        text = f"status {self.status:#06x} ({self.status.meaning})"
        super().__init__(f"{text}: {_escaped(comment)}" if comment else text)
