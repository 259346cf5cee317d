"""Events for metrics and traces: what happens to associations and operations, without any patient data.

``unsubscribe = asyncdicom.instrument.subscribe(listener)`` has ``listener`` called, in the event loop's thread, with each
:data:`Event`; it must not block, and its exceptions are logged. Nothing is made while nobody listens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "AssociationEnded",
    "AssociationOpened",
    "AssociationRejected",
    "Event",
    "OperationDone",
    "emit",
    "enabled",
    "subscribe",
]

logger = logging.getLogger("asyncdicom.instrument")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationOpened:
    """An association was established.

    :ivar association: its number in this process.
    :ivar requestor: whether we asked for it.
    :ivar peer_ae_title: who the peer says it is: not to be used as a label unchecked.
    """

    association: int
    requestor: bool
    peer_ae_title: str
    peer_address: tuple[str, int] | str | None
    contexts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRejected:
    """We rejected an association (PS3.8 Table 9-21)."""

    result: int
    source: int
    reason: int
    peer_address: tuple[str, int] | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationEnded:
    """An association ended.

    :ivar how: ``"released"``, ``"aborted"``, ``"lost"`` or ``"timed out"``.
    :ivar seconds: how long it lasted.
    """

    association: int
    requestor: bool
    how: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationDone:
    """An operation that we performed as SCP has its final response.

    :ivar operation: ``"C-STORE"``, ``"C-FIND"``, ...
    :ivar status: of the final response.
    :ivar responses: pending responses before it.
    :ivar seconds: from its request to its final response.
    """

    association: int
    operation: str
    sop_class_uid: str
    status: int
    responses: int
    seconds: float


Event = AssociationOpened | AssociationRejected | AssociationEnded | OperationDone
Listener = Callable[[Event], None]

#: By what stands for each subscription: the same listener may subscribe more than once.
_listeners: dict[object, Listener] = {}


def subscribe(listener: Listener) -> Callable[[], None]:
    """Have ``listener`` called with each event; return the function that ends that."""
    subscription = object()
    _listeners[subscription] = listener

    def unsubscribe() -> None:
        _listeners.pop(subscription, None)

    return unsubscribe


def enabled() -> bool:
    """Tell whether anybody listens."""
    return bool(_listeners)


def emit(event: Event) -> None:
    """Give an event to all listeners."""
    for listener in list(_listeners.values()):
        try:
            listener(event)
        except Exception:
            logger.exception("a listener failed")
