"""The registry of an SCP's handlers, keyed by operation and SOP class."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from anyio import get_cancelled_exc_class

from .. import sop
from ..exceptions import LocalProtocolError
from ..protocol.commands import (
    CEchoRQ,
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
from ..protocol.negotiation import Support
from ..requests import EchoRequest, Request, StoreRequest
from ..settings import Address, Limits, Timeouts
from .results import is_stray

if TYPE_CHECKING:
    import ssl as _ssl

__all__ = ["Claimant", "Environment", "Handler", "Services"]

Handler = Callable[[Any], Any]
H = TypeVar("H", bound=Handler)

Resolve = Callable[[str], Any]

#: What performs requests; it is loaded with the first of them.
_perform: Callable[[Services, Request, Environment], Coroutine[Any, Any, None]] | None = None

#: How data sets other than instances are encoded, in our order of preference.
_NATIVE = (
    str(sop.EXPLICIT_VR_LITTLE_ENDIAN),
    str(sop.IMPLICIT_VR_LITTLE_ENDIAN),
    str(sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    str(sop.EXPLICIT_VR_BIG_ENDIAN),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What performers need to know of the server that they serve.

    :ivar ae_title: our AE title towards the destinations of C-MOVE.
    :ivar resolve: gives the address of a C-MOVE destination, or ``None``; may be async.
    :ivar ssl: the context for TLS towards destinations, or a function that gives it for the address of one.
    :ivar saturate_counters: answer a C-GET or C-MOVE of more than 65 535 sub-operations, with counters that stop there;
        otherwise it is refused with 0xC416 or 0xC516.
    :ivar destination_window: sub-operations outstanding at once towards a destination.
    :ivar profile: gives the :class:`asyncdicom.PeerProfile` of a C-MOVE destination, or ``None``; may be async.
    """

    ae_title: str = "ASYNCDICOM"
    resolve: Resolve = field(default=lambda _title: None)
    ssl: _ssl.SSLContext | Callable[[Address], _ssl.SSLContext | None] | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    destination_window: int = 8
    profile: Resolve = field(default=lambda _title: None)
    saturate_counters: bool = True


class Claimant(Protocol):
    """Who may take C-STORE requests before the handlers do, such as a retrieval by C-MOVE to ourselves."""

    def claim(self, request: StoreRequest) -> Handler | None:
        """Return the handler of a request that is for it, ``None`` for any other."""


class Services:
    """The handlers of an SCP; the presentation contexts that are accepted follow from them.

    Each method is a decorator for a handler, an async function or async generator that takes one request. Registering
    a handler for a class twice replaces it. A C-ECHO is answered also without a handler.
    """

    def __init__(self) -> None:
        self._handlers: dict[tuple[type[Message], str], Handler] = {}
        self._syntaxes: dict[str, tuple[str, ...] | None] = {}
        self._any_storage: Handler | None = None
        self._any_storage_unknown = False
        self._any_syntaxes: tuple[str, ...] | None = None
        #: Who takes C-STORE requests first; while there is anybody, every storage SOP class is accepted.
        self.claims: list[Claimant] = []
        self.policy: Callable[[Any], Any] | None = None
        self.association_handler: Callable[[Any], Any] | None = None
        self.authorise: Callable[[Request], Awaitable[Any]] | None = None
        #: Whether counters of sub-operations may stop at 65 535; otherwise larger retrievals get 0xC416 or 0xC516.
        self.saturate_counters = True
        #: Our answers to SOP class extended negotiation, by SOP class UID: bytes, or a function of the proposal. Both can be
        #: of the classes whose fields have names, such as :class:`asyncdicom.FindNegotiation`.
        self.extended_negotiation: dict[str, bytes | Callable[[bytes], bytes | None]] = {}

    # Decorators.

    def echo(self) -> Callable[[H], H]:
        """Register a C-ECHO handler: ``async def handler(request)``; ``None`` means Success."""
        return self._register((CEchoRQ,), (sop.VERIFICATION,))

    def store(
        self, *classes: str, transfer_syntaxes: Iterable[str] | None = None, unknown: bool = False
    ) -> Callable[[H], H]:
        """Register a C-STORE handler.

        :param classes: storage SOP classes, or ``"*"`` for any.
        :param transfer_syntaxes: those that are accepted; ``None`` is all that are proposed, private ones too.
        :param unknown: with ``"*"``, accept classes that are not known too, such as private ones.
        """
        syntaxes = None if transfer_syntaxes is None else tuple(transfer_syntaxes)
        if "*" in classes:

            def decorate(handler: H) -> H:
                self._any_storage = _checked(handler)
                self._any_storage_unknown = unknown
                self._any_syntaxes = syntaxes
                return handler

            return decorate
        return self._register((CStoreRQ,), classes, syntaxes, any_syntax=syntaxes is None)

    def find(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register a C-FIND handler, an async generator of identifiers or ``(status, identifier)`` pairs."""
        return self._register((CFindRQ,), classes, transfer_syntaxes)

    def retrieve(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register one handler for C-GET and C-MOVE: an async generator of instances."""
        return self._register((CGetRQ, CMoveRQ), classes, transfer_syntaxes)

    def get(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register a C-GET handler."""
        return self._register((CGetRQ,), classes, transfer_syntaxes)

    def move(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register a C-MOVE handler."""
        return self._register((CMoveRQ,), classes, transfer_syntaxes)

    def n_event_report(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register an N-EVENT-REPORT handler: it returns a status or ``(status, data set)``."""
        return self._register((NEventReportRQ,), classes, transfer_syntaxes)

    def n_get(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register an N-GET handler."""
        return self._register((NGetRQ,), classes, transfer_syntaxes)

    def n_set(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register an N-SET handler."""
        return self._register((NSetRQ,), classes, transfer_syntaxes)

    def n_action(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register an N-ACTION handler."""
        return self._register((NActionRQ,), classes, transfer_syntaxes)

    def n_create(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register an N-CREATE handler."""
        return self._register((NCreateRQ,), classes, transfer_syntaxes)

    def n_delete(self, *classes: str, transfer_syntaxes: Iterable[str] | None = None) -> Callable[[H], H]:
        """Register an N-DELETE handler."""
        return self._register((NDeleteRQ,), classes, transfer_syntaxes)

    def on_associate(self, policy: H) -> H:
        """Register the policy that decides on each association.

        It gets an :class:`~asyncdicom.AssociationRequest` and returns to accept (bytes are the response to a user
        identity), or raises :class:`~asyncdicom.AssociationRejected`. Any other exception, and a timeout, reject.
        """
        self.policy = policy
        return policy

    def on_association(self, handler: H) -> H:
        """Register a handler for whole associations, for proxies and gateways: ``async def handler(association)``.

        It iterates over the requests, ``async for request in association``, and answers each by ``request.respond()``.
        What it does not answer stays unanswered; when it returns, the association is closed. Other handlers decide which
        presentation contexts are accepted, but are not called.
        """
        self.association_handler = handler
        return handler

    def on_request(self, authorise: H) -> H:
        """Register a check of each request before its handler runs; returning ``False`` answers 0x0124."""
        self.authorise = authorise
        return authorise

    def _register(
        self,
        messages: tuple[type[Message], ...],
        classes: tuple[str, ...],
        transfer_syntaxes: Iterable[str] | None = None,
        *,
        any_syntax: bool = False,
    ) -> Callable[[H], H]:
        if not classes or not all(isinstance(uid, str) for uid in classes):
            raise LocalProtocolError("name at least one SOP class, as in @services.find(sop.STUDY_ROOT_FIND)")
        syntaxes = None if any_syntax else tuple(transfer_syntaxes) if transfer_syntaxes is not None else _NATIVE

        def decorate(handler: H) -> H:
            _checked(handler)
            for uid in classes:
                for message in messages:
                    self._handlers[message, str(uid)] = handler
                self._syntaxes[str(uid)] = syntaxes
            return handler

        return decorate

    # What follows from them.

    def handler(self, message: type[Message], sop_class: str) -> Handler | None:
        """Return the handler for an operation on a SOP class."""
        found = self._handlers.get((message, sop_class))
        if found is None and message is CStoreRQ and self._takes_any(sop_class):
            return self._any_storage
        if found is None and message is CEchoRQ and sop_class == sop.VERIFICATION:
            return _echo
        return found

    def claimed(self, request: StoreRequest) -> Handler | None:
        """Return the handler of whoever claims a request, if anybody does."""
        for claimant in self.claims:
            handler = claimant.claim(request)
            if handler is not None:
                return handler
        return None

    def has_class(self, sop_class: str) -> bool:
        """Tell whether any operation on a SOP class has a handler."""
        return any(uid == sop_class for _, uid in self._handlers)

    @property
    def serves_get(self) -> bool:
        """Whether there is a C-GET handler, so that requestors may be SCP of storage classes."""
        return any(message is CGetRQ for message, _ in self._handlers)

    def _takes_any(self, sop_class: str) -> bool:
        if self._any_storage is None:
            return False
        if sop.is_storage(sop_class):
            return True
        return self._any_storage_unknown and not sop.lookup(sop_class).keyword

    def support(self, sop_class: str) -> Support | None:
        """Tell what is supported for an abstract syntax, for negotiation."""
        serves_get = self.serves_get
        if (CStoreRQ, sop_class) in self._handlers:
            return Support(
                transfer_syntaxes=self._syntaxes[sop_class], requestor_scp=serves_get, prefer_proposed_order=True
            )
        if self._takes_any(sop_class):
            return Support(transfer_syntaxes=self._any_syntaxes, requestor_scp=serves_get, prefer_proposed_order=True)
        if sop_class in self._syntaxes:
            return Support(transfer_syntaxes=self._syntaxes[sop_class], requestor_scp=False)
        if sop_class == sop.VERIFICATION:
            return Support(transfer_syntaxes=_NATIVE)
        if (serves_get or self.claims) and sop.is_storage(sop_class):
            return Support(transfer_syntaxes=None, requestor_scp=serves_get, prefer_proposed_order=True)
        return None

    def extended(self, proposed: Mapping[str, bytes]) -> dict[str, bytes]:
        """Answer SOP class extended negotiation."""
        answers = {}
        for uid, information in proposed.items():
            answer = self.extended_negotiation.get(uid)
            value = answer(information) if callable(answer) else answer
            if value is not None:
                answers[uid] = value
        return answers

    def perform(self, request: Request, environment: Environment | None = None) -> Coroutine[Any, Any, None]:
        """Perform one request to its final response: what a server does with each.

        :raises AssociationError: the association ended meanwhile.
        """
        global _perform
        if _perform is None:
            from .performers import perform

            _perform = perform
        return _perform(self, request, environment or Environment())


def _checked(handler: H) -> H:
    if not callable(handler):
        raise TypeError(f"{handler!r} is not a handler: expected an async function or async generator of one request")
    return handler


async def _echo(request: EchoRequest) -> None:
    """Answer Success."""


def resolve_address(found: Any) -> Address | None:
    """Turn what a resolver returned into an address; ``None`` stays ``None``.

    :raises ValueError: it is no address.
    """
    if found is None or isinstance(found, Address):
        return found
    if isinstance(found, str):
        return Address.parse(found)
    raise ValueError("not an address")


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that may be async."""
    result = function(*arguments)
    try:
        return await result if inspect.isawaitable(result) else result
    except get_cancelled_exc_class() as exc:
        if not is_stray(exc):
            raise
        raise RuntimeError(f"what {getattr(function, '__name__', 'it')} awaited was cancelled") from exc
