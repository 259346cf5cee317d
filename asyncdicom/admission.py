"""Who may associate: limits, AE titles, and the policy of the application.

A connection is counted as an association from before the policy is asked, and until its association has ended.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope, current_time

from .association import Association
from .exceptions import AssociationRejected
from .protocol import pdu
from .protocol.states import State
from .protocol.upper_layer import UpperLayer
from .services.registry import Services, call
from .settings import Limits, UserIdentity, validate_ae_title
from .transport import Transport

if TYPE_CHECKING:
    import ssl as _ssl

__all__ = ["Admission", "AssociationRequest", "Connection", "Decision", "is_title"]

logger = logging.getLogger("asyncdicom.server")

#: Seconds that a connection may take to associate before others are let in its place, when there are too many.
_PATIENCE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """What a peer asks for: what an ``on_associate`` policy decides on.

    :ivar called_ae_title: the AE title that it calls.
    :ivar calling_ae_title: its own AE title, as it claims.
    :ivar address: where it connects from.
    :ivar tls: its TLS session, for example for ``tls.getpeercert()``.
    :ivar user_identity: who it claims to be (PS3.7 D.3.3.7).
    :ivar contexts: the presentation contexts that it proposes.
    """

    called_ae_title: str
    calling_ae_title: str
    address: tuple[str, int] | str | None
    tls: _ssl.SSLObject | None = field(repr=False)
    user_identity: UserIdentity | None = field(repr=False)
    contexts: tuple[pdu.PresentationContextRQ, ...]
    request: pdu.AssociateRQ = field(repr=False)


@dataclass(slots=True)
class Connection:
    """One connection of a server.

    :ivar calling: the AE title that it counts for, since it was let through to the policy.
    """

    number: int
    scope: CancelScope
    address: str | None
    association: Association | None = None
    started: float = 0.0
    calling: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """An accepted association, and the response to the user's identity, if any."""

    response: bytes | None


class Admission:
    """Decides who may associate, and counts who is.

    :param called: AE titles that peers may call; ``None`` is any.
    :param calling: AE titles that peers may have; ``None`` is any.
    :ivar is_stopping: nobody may any more.
    """

    def __init__(
        self, services: Services, limits: Limits, *, called: Iterable[str] | None, calling: Iterable[str] | None
    ) -> None:
        self.is_stopping = False
        self._services = services
        self._limits = limits
        self._called = _titles(called)
        self._calling = _titles(calling)
        self._unassociated: dict[int, Connection] = {}
        self._addresses: Counter[str] = Counter()
        self._ae_titles: Counter[str] = Counter()
        self._accepted = 0

    def enter(self, connection: Connection) -> None:
        """Note a connection that has not associated; another one may have to go for it."""
        self._unassociated[connection.number] = connection
        self._shed()

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._unassociated.pop(connection.number, None)
        self.uncount(connection)

    def count(self, connection: Connection, calling: str) -> None:
        """Count a connection as an association, from before the policy is asked: a slow one is no way past the limits."""
        self._unassociated.pop(connection.number, None)
        connection.calling = calling
        self._accepted += 1
        self._ae_titles[calling] += 1
        if connection.address is not None:
            self._addresses[connection.address] += 1

    def uncount(self, connection: Connection) -> None:
        """Count a connection no longer, if it was counted; nothing is remembered of who has left."""
        calling, connection.calling = connection.calling, None
        if calling is None:
            return
        self._accepted -= 1
        for counter, key in ((self._ae_titles, calling), (self._addresses, connection.address)):
            if key is not None:
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]

    def _shed(self) -> None:
        """Close the oldest connection that has not associated, when there are too many of them.

        One that came a moment ago gets its chance: a burst of honest peers is no attack, until it is far too large.
        """
        limit = self._limits.unassociated
        if limit is None or len(self._unassociated) <= limit:
            return
        oldest = next(iter(self._unassociated.values()))
        if current_time() - oldest.started > _PATIENCE or len(self._unassociated) > 8 * limit:
            del self._unassociated[oldest.number]
            oldest.scope.cancel()

    def judge(self, request: pdu.AssociateRQ, connection: Connection) -> pdu.AssociateRJ | None:
        """Apply the built-in rules."""
        limits = self._limits
        calling = request.calling_ae_title
        if self.is_stopping:
            return pdu.AssociateRJ(result=2, source=3, reason=1)
        if limits.associations is not None and self._accepted >= limits.associations:
            return pdu.AssociateRJ(result=2, source=3, reason=2)
        if (
            limits.associations_per_address is not None
            and connection.address is not None
            and self._addresses[connection.address] >= limits.associations_per_address
        ):
            return pdu.AssociateRJ(result=2, source=3, reason=2)
        if (
            limits.associations_per_ae_title is not None
            and self._ae_titles[calling] >= limits.associations_per_ae_title
        ):
            return pdu.AssociateRJ(result=2, source=3, reason=2)
        if self._called is not None and request.called_ae_title not in self._called:
            return pdu.AssociateRJ(result=1, source=1, reason=7)
        if not is_title(calling) or (self._calling is not None and calling not in self._calling):
            return pdu.AssociateRJ(result=1, source=1, reason=3)
        if not is_title(request.called_ae_title):
            return pdu.AssociateRJ(result=1, source=1, reason=7)
        return None

    async def decide(
        self, request: pdu.AssociateRQ, transport: Transport, upper_layer: UpperLayer, deadline: float
    ) -> pdu.AssociateRJ | Decision | None:
        """Ask the policy, watching the connection meanwhile; it fails closed."""
        policy = self._services.policy
        if policy is None:
            return Decision(None)
        identity = request.user_information.user_identity
        asked = AssociationRequest(
            called_ae_title=request.called_ae_title,
            calling_ae_title=request.calling_ae_title,
            address=transport.peer_address,
            tls=transport.tls,
            user_identity=None
            if identity is None
            else UserIdentity(
                identity.type, identity.primary, identity.secondary, identity.positive_response_requested
            ),
            contexts=request.presentation_contexts,
            request=request,
        )
        decision: pdu.AssociateRJ | Decision | None = None
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                # Anything but silence before our answer is a breach (Sta3); a closed connection ends the question.
                with CancelScope(deadline=deadline):
                    while True:
                        if upper_layer.next_event() is not None or upper_layer.should_close:
                            break
                        data = await transport.receive()
                        if data:
                            upper_layer.receive_data(data)
                        else:
                            upper_layer.receive_eof()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            decision = await _ask(policy, asked, identity is not None)
            tasks.cancel_scope.cancel()
        if upper_layer.state is not State.STA3:
            return None
        if decision is None:
            logger.error("the policy did not decide in time")
            return _failed_closed(identity is not None)
        return decision


async def _ask(
    policy: Callable[[AssociationRequest], Any], asked: AssociationRequest, has_identity: bool
) -> pdu.AssociateRJ | Decision:
    try:
        result = await call(policy, asked)
    except AssociationRejected as exc:
        return pdu.AssociateRJ(result=exc.result, source=exc.source, reason=exc.reason)
    except Exception as exc:
        logger.error("the policy failed: %s", type(exc).__name__, exc_info=exc)
        return _failed_closed(has_identity)
    if isinstance(result, bytes):
        return Decision(result)
    return Decision(b"" if has_identity else None)


def _failed_closed(has_identity: bool) -> pdu.AssociateRJ:
    """Reject because nobody decided; an identity that was not checked is refused by the ACSE (PS3.7 D.3.3.7.1)."""
    return pdu.AssociateRJ(result=1, source=2 if has_identity else 1, reason=1)


def _titles(titles: Iterable[str] | None) -> frozenset[str] | None:
    if titles is None:
        return None
    return frozenset(validate_ae_title(title) for title in ([titles] if isinstance(titles, str) else titles))


def is_title(title: str) -> bool:
    """Say whether a text is an AE title."""
    try:
        validate_ae_title(title)
    except ValueError:
        return False
    return True
