"""The requestor: connect to an application entity and associate (PS3.8 7.1)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from anyio import current_time

from . import sop
from .association import Association
from .exceptions import (
    AssociationAborted,
    AssociationClosed,
    AssociationRejected,
    LocalProtocolError,
    OperationTimeout,
    RemoteProtocolError,
)
from .protocol import negotiation, pdu
from .protocol.dimse import Dimse
from .protocol.negotiation import PresentationContext
from .protocol.upper_layer import (
    AbortIndication,
    AssociateConfirmation,
    AssociateRejection,
    ProviderAbort,
    Role,
    TransportLost,
    UpperLayer,
)
from .settings import (
    DEFAULT_MAXIMUM_LENGTH,
    DEFAULT_PROFILE,
    Address,
    Limits,
    PeerProfile,
    Timeouts,
    UserIdentity,
    validate_ae_title,
)
from .transport import StreamTransport, Transport, open_tcp

if TYPE_CHECKING:
    import ssl as _ssl

    from anyio.abc import ByteStream

    from .services import Services

__all__ = ["DEFAULT_CALLING", "associate", "connect", "default_contexts", "make_contexts"]

logger = logging.getLogger("asyncdicom.association")

#: Our AE title unless another is given.
DEFAULT_CALLING = "ASYNCDICOM"

# What is used where nothing else is given.
_TIMEOUTS = Timeouts()
_LIMITS = Limits()

Context = str | PresentationContext


def default_contexts() -> list[Context]:
    """Return what is proposed when nothing is named.

    Verification, the nine Patient Root, Study Root and Patient/Study Only classes, and ``STORAGE_COMMON`` in both roles.
    """
    return [
        sop.VERIFICATION,
        sop.PATIENT_ROOT_FIND,
        sop.PATIENT_ROOT_MOVE,
        sop.PATIENT_ROOT_GET,
        sop.STUDY_ROOT_FIND,
        sop.STUDY_ROOT_MOVE,
        sop.STUDY_ROOT_GET,
        sop.PATIENT_STUDY_ONLY_FIND,
        sop.PATIENT_STUDY_ONLY_MOVE,
        sop.PATIENT_STUDY_ONLY_GET,
        *sop.STORAGE_COMMON,
    ]


def make_contexts(contexts: Iterable[Context] | None, profile: PeerProfile | None = None) -> list[PresentationContext]:
    """Turn SOP classes and UIDs into presentation contexts.

    A bare class is one context with Explicit and Implicit VR Little Endian. When a GET class is among them, storage
    contexts without explicit roles are proposed with both roles, unless the profile of the peer says otherwise.

    :raises LocalProtocolError: there are none, or more than 128.
    """
    given = default_contexts() if contexts is None else list(contexts)
    made = [
        item if isinstance(item, PresentationContext) else PresentationContext(abstract_syntax=item) for item in given
    ]
    if not 1 <= len(made) <= 128:
        raise LocalProtocolError(f"{len(made)} presentation contexts: an association has 1 to 128 (PS3.8 9.3.2.2)")
    roles = "both" if profile is None else profile.storage_roles
    if roles != "none" and any(context.abstract_syntax in _GET for context in made):
        made = [
            PresentationContext(
                abstract_syntax=context.abstract_syntax,
                transfer_syntaxes=context.transfer_syntaxes,
                scu_role=roles == "both",
                scp_role=True,
            )
            if context.scu_role is None and context.scp_role is None and sop.is_storage(context.abstract_syntax)
            else context
            for context in made
        ]
    return made


_GET = frozenset(sop.GET)


class connect:  # noqa: N801 - used as a function: `async with asyncdicom.connect(...)`
    """Connect and associate; ``async with connect(...) as assoc`` gives an :class:`asyncdicom.Association`.

    :param address: ``"AET@host:port"`` or an :class:`asyncdicom.Address`.
    :param calling: our AE title.
    :param contexts: SOP classes, UIDs or :class:`asyncdicom.PresentationContext`; ``None`` is :func:`default_contexts`.
    :param ssl: an :class:`ssl.SSLContext` for TLS.
    :param server_hostname: the name to verify in the peer's certificate instead of the address's host.
    :param user_identity: a :class:`asyncdicom.UserIdentity` (PS3.7 D.3.3.7).
    :param async_operations: how many operations we want to have outstanding, and can perform, at once; 0 is unlimited.
    :param maximum_length: the longest P-DATA-TF PDU in bytes that we receive; 0 is unlimited.
    :param extended_negotiation: by SOP class UID: :class:`asyncdicom.FindNegotiation`,
        :class:`~asyncdicom.RetrieveNegotiation`, :class:`~asyncdicom.StorageNegotiation`, or bytes (PS3.7 D.3.3.5).
    :param services: :class:`asyncdicom.Services` for requests of the peer on this association.
    :param stream: a connected anyio byte stream to use instead of TCP.
    :param timeouts: deadlines.
    :param limits: bounds.
    :param strict_roles: refuse C-GET sub-operations on contexts without a negotiated SCP role.
    :param profile: an :class:`asyncdicom.PeerProfile` that says what the peer cannot do, or does not take.
    :raises ValueError: the address or AE title is not valid.
    :raises LocalProtocolError: the proposal breaks the standard; no connection was made.
    :raises ConnectError: no connection could be made.
    :raises AssociationRejected: the peer rejected the association.
    :raises OperationTimeout: it did not answer.

    Leaving the block normally cancels what is open and releases the association, which is aborted if the peer does not confirm
    that in time; leaving it by an exception aborts it.
    Both are bounded in time. Nothing of ours stays open in the task meanwhile: exceptions arrive as they are.
    """

    def __init__(
        self,
        address: str | Address,
        *,
        calling: str = DEFAULT_CALLING,
        contexts: Iterable[Context] | None = None,
        ssl: _ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        user_identity: UserIdentity | None = None,
        async_operations: tuple[int, int] = (1, 1),
        maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
        extended_negotiation: Mapping[str, bytes] | None = None,
        common_extended_negotiation: Sequence[pdu.CommonExtendedNegotiation] = (),
        services: Services | None = None,
        stream: ByteStream | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        strict_roles: bool = False,
        profile: PeerProfile | None = None,
    ) -> None:
        self._profile = profile = profile or DEFAULT_PROFILE
        self._address = Address.parse(address)
        self._ssl = ssl
        self._server_hostname = server_hostname
        self._services = services
        self._stream = stream
        self._timeouts = timeouts or _TIMEOUTS
        self._limits = limits or _LIMITS
        self._strict_roles = strict_roles
        self._maximum_length = profile.most(maximum_length)
        identity = None
        if user_identity is not None:
            identity = pdu.UserIdentityRQ(
                type=user_identity.type,
                primary=user_identity.primary,
                secondary=user_identity.secondary,
                positive_response_requested=user_identity.positive_response_requested,
            )
        self._request = negotiation.request(
            called=self._address.ae_title,
            calling=validate_ae_title(calling),
            contexts=make_contexts(contexts, profile),
            maximum_length=self._maximum_length,
            async_operations=async_operations if profile.async_window else (1, 1),
            extended_negotiation=extended_negotiation,
            common_extended_negotiation=common_extended_negotiation,
            user_identity=identity,
        )
        self._association: Association | None = None

    async def __aenter__(self) -> Association:
        if self._association is not None:
            raise LocalProtocolError("a connect() object is used once; make another one")
        timeouts = self._timeouts
        transport: Transport
        if self._stream is not None:
            transport = StreamTransport(self._stream)
        else:
            transport = await open_tcp(
                self._address.host,
                self._address.port,
                ssl_context=self._ssl,
                server_hostname=self._server_hostname,
                connect_timeout=timeouts.connect,
                tls_timeout=timeouts.tls,
            )
        self._association = await associate(
            transport,
            self._request,
            maximum_length=self._maximum_length,
            timeouts=timeouts,
            limits=self._limits,
            services=self._services,
            strict_roles=self._strict_roles,
            profile=self._profile,
        )
        return self._association

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        association = self._association
        if association is None:
            return
        if exc is None:
            try:
                await association.release()
            except OperationTimeout as late:
                if late.kind != "release":
                    raise
                # Everything that was to be done is done, and stays so.
                logger.info("%r did not confirm the release in time", association.peer.ae_title)
        else:
            await association.abort()


async def associate(
    transport: Transport,
    request: pdu.AssociateRQ,
    *,
    maximum_length: int = DEFAULT_MAXIMUM_LENGTH,
    timeouts: Timeouts,
    limits: Limits,
    services: Services | None = None,
    strict_roles: bool = False,
    profile: PeerProfile | None = None,
) -> Association:
    """Associate over a connected transport, which is closed if that fails.

    :raises AssociationRejected: the peer rejected the association.
    :raises AssociationAborted: it aborted.
    :raises AssociationClosed: it closed the connection without an answer.
    :raises OperationTimeout: of kind ``"associate"``.
    """
    upper_layer = UpperLayer(
        Role.REQUESTOR,
        associate_pdu=limits.associate_pdu,
        maximum_length=maximum_length,
        slack=limits.pdu_slack,
    )
    core = Dimse(upper_layer, command_set=limits.command_set)
    try:
        upper_layer.associate(request)
        upper_layer.transport_connected()
        deadline = math.inf if timeouts.associate is None else current_time() + timeouts.associate
        answer = await _answer(transport, upper_layer, deadline, timeouts)
        negotiated = negotiation.outcome(request, answer)
    except RemoteProtocolError:
        if upper_layer.can_abort:
            upper_layer.abort()
        transport.send_nowait(b"".join(upper_layer.data_to_send()))
        await transport.aclose()
        raise
    except AssociationRejected:
        await transport.aclose()
        raise
    except BaseException:
        if upper_layer.can_abort:
            upper_layer.abort()
        if not transport.broken and transport.unsent is None:
            transport.send_nowait(b"".join(upper_layer.data_to_send()))
            await transport.aclose()
        else:
            transport.abort()
        raise
    perform: Any = None if services is None else services.perform
    association = Association(
        transport,
        core,
        negotiated,
        requestor=True,
        timeouts=timeouts,
        limits=limits,
        perform=perform,
        strict_roles=strict_roles,
        profile=profile,
    )
    logger.debug("associated with %r: %d contexts", association.peer.ae_title, len(negotiated.contexts))
    return association


async def _answer(
    transport: Transport, upper_layer: UpperLayer, deadline: float, timeouts: Timeouts
) -> pdu.AssociateAC:
    try:
        for buffer in upper_layer.data_to_send():
            await transport.send(buffer, deadline)
        while True:
            event = upper_layer.next_event()
            match event:
                case None:
                    data = await transport.receive(deadline)
                    if data:
                        upper_layer.receive_data(data)
                    else:
                        upper_layer.receive_eof()
                case AssociateConfirmation(accept=accept):
                    return accept
                case AssociateRejection(reject=reject):
                    raise AssociationRejected(reject.result, reject.source, reject.reason)
                case AbortIndication(source=source, reason=reason):
                    raise AssociationAborted(source, reason)
                case ProviderAbort(reason=reason, message=message):
                    raise RemoteProtocolError(f"the association was aborted: {message}", reason)
                case TransportLost():
                    raise AssociationClosed(
                        "the peer closed the connection before it answered the association request"
                    ) from transport.error
                case _:
                    raise RemoteProtocolError("the association was aborted: unexpected event", 2)
    except OperationTimeout:
        raise
    except TimeoutError:
        raise OperationTimeout("associate", timeouts.associate) from None
