"""pynetdicom's SCP against our client: one that runs all the while, with handlers that each test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, build_context, evt

import asyncdicom
from asyncdicom import Category, sop

from .peers import pynetdicom_scp

__all__ = ["Scp", "category", "running_scp"]

#: What the SCP offers besides Verification and storage.
CLASSES = (
    *sop.FIND,
    *sop.GET,
    *sop.MOVE,
    sop.MODALITY_WORKLIST_INFORMATION_MODEL_FIND,
    sop.MODALITY_PERFORMED_PROCEDURE_STEP,
    sop.STORAGE_COMMITMENT_PUSH_MODEL,
    sop.BASIC_FILM_SESSION,
    sop.PRINTER,
)

_EVENTS = {
    "echo": evt.EVT_C_ECHO,
    "store": evt.EVT_C_STORE,
    "find": evt.EVT_C_FIND,
    "get": evt.EVT_C_GET,
    "move": evt.EVT_C_MOVE,
    "n_action": evt.EVT_N_ACTION,
    "n_create": evt.EVT_N_CREATE,
    "n_delete": evt.EVT_N_DELETE,
    "n_event_report": evt.EVT_N_EVENT_REPORT,
    "n_get": evt.EVT_N_GET,
    "n_set": evt.EVT_N_SET,
    "user_identity": evt.EVT_USER_ID,
    "window": evt.EVT_ASYNC_OPS,
    "extended": evt.EVT_SOP_EXTENDED,
    "common": evt.EVT_SOP_COMMON,
}
_GENERATORS = ("find", "get", "move")
_NEGOTIATIONS = ("user_identity", "window", "extended", "common")

Handler = Callable[[Any], Any]


class Scp:
    """A pynetdicom SCP and its handlers by the names of the operations.

    :ivar requests: the events that its handlers were given, by the names of the operations.
    """

    def __init__(self) -> None:
        self.port = 0
        self.handlers: dict[str, Handler] = {}
        self.requests: list[Any] = []
        self.ae: AE | None = None

    @property
    def address(self) -> asyncdicom.Address:
        return asyncdicom.Address("PYNETDICOM", "127.0.0.1", self.port)

    def connect(self, contexts: Any, **options: Any) -> asyncdicom.connect:
        """Associate with it."""
        return asyncdicom.connect(self.address, contexts=contexts, **options)

    def reset(self) -> None:
        self.handlers = {}
        self.requests = []

    def answers(self, operation: str, *items: Any) -> None:
        """Let a handler return one item, or yield several; an exception among them is raised."""

        def yields(event: Any) -> Iterator[Any]:
            for item in items:
                yield _value(item, event)

        self.handlers[operation] = yields if operation in _GENERATORS else lambda event: _value(items[0], event)

    def _dispatch(self, operation: str) -> Handler:
        def one(event: Any) -> Any:
            if operation not in _NEGOTIATIONS:
                self.requests.append(event)
            handler = self.handlers.get(operation)
            return (handler or _DEFAULTS.get(operation, _succeed))(event)

        def several(event: Any) -> Iterator[Any]:
            yield from one(event)

        return several if operation in _GENERATORS else one


def _value(item: Any, event: Any) -> Any:
    if isinstance(item, Exception):
        raise item
    return item(event) if callable(item) else item


def _succeed(event: Any) -> int:
    return 0x0000


_DEFAULTS: dict[str, Handler] = {
    "find": lambda event: iter([(0x0000, None)]),
    "get": lambda event: iter([0]),
    "move": lambda event: iter([(None, None)]),
    "user_identity": lambda event: (True, None),
    "window": lambda event: (event.nr_invoked, event.nr_performed),
    "extended": lambda event: {},
    "common": lambda event: event.items,
}


@contextmanager
def running_scp(**options: Any) -> Iterator[Scp]:
    """Run an SCP for everything until the block is left."""
    scp = Scp()

    def configure(ae: AE) -> None:
        scp.ae = ae

    contexts = [build_context(uid) for uid in CLASSES]
    handlers = [(event, scp._dispatch(name)) for name, event in _EVENTS.items()]
    with pynetdicom_scp(contexts, handlers, storage=True, configure=configure, **options) as scp.port:
        yield scp


#: The categories of the statuses that the tests provoke (PS3.7 Annex C).
CATEGORIES = {0x0000: Category.SUCCESS, 0xFE00: Category.CANCEL, 0xFF00: Category.PENDING, 0xFF01: Category.PENDING}


def category(code: int) -> Category:
    if code in CATEGORIES:
        return CATEGORIES[code]
    return Category.WARNING if code in (0x0001, 0x0107, 0x0116) or code >> 12 == 0xB else Category.FAILURE
