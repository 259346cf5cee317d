"""Association negotiation: what a requestor proposes, what an acceptor answers, and what both have agreed on.

Theory of operation
-------------------
Three pure functions. :func:`request` spells a proposal as an A-ASSOCIATE-RQ; :func:`answer` decides on one as the
acceptor, asking ``support`` once for each context; :func:`outcome` reads the A-ASSOCIATE-AC as the requestor. The last
two give the same :class:`Negotiated`, each from its own side. The rules are those of PS3.8 9.3.2 and 9.3.3
(presentation contexts), PS3.8 D.1 (maximum length) and PS3.7 D.3.3 (everything else), and one principle holds them
together: nothing is agreed on that was not proposed, whatever the peer answers.

Those who associate mostly do so again and again, with the same proposal and the same answer. So what was made of the last
ones is remembered: of our own proposals, and of PDUs of a peer that :func:`asyncdicom.protocol.pdu.decode` remembers, which
are small; never of any with credentials, on either side.

Whom to talk to at all (AE titles, user identity, limits) is decided by whoever calls :func:`answer`, before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from ..exceptions import LocalProtocolError, RemoteProtocolError
from ..sop import (
    APPLICATION_CONTEXT,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from . import pdu
from .extended import read_information
from .pdu import (
    AbortReason,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    AsyncOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    UserIdentityAC,
    UserIdentityRQ,
    UserInformation,
)
from .values import frozen

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

__all__ = [
    "MINIMUM_LENGTH",
    "AcceptedContext",
    "Negotiated",
    "PresentationContext",
    "Support",
    "Window",
    "answer",
    "outcome",
    "request",
]

#: The least maximum length in bytes that can carry anything: a PDV header of 6 bytes and an even fragment.
MINIMUM_LENGTH = 8

#: Presentation context IDs are the odd numbers of an octet (PS3.8 Table 9-13).
_MOST_CONTEXTS = 128

# Results of a presentation context (PS3.8 Table 9-18).
_ACCEPTANCE = 0
_USER_REJECTION = 1
_NO_REASON = 2
_ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
_TRANSFER_SYNTAXES_NOT_SUPPORTED = 4

# Rejections (PS3.8 Table 9-21).
_NO_REASON_GIVEN = AssociateRJ(result=1, source=1, reason=1)
_APPLICATION_CONTEXT_NOT_SUPPORTED = AssociateRJ(result=1, source=1, reason=2)
_PROTOCOL_VERSION_NOT_SUPPORTED = AssociateRJ(result=1, source=2, reason=2)

#: Our preference among transfer syntaxes: these first, then any other, then the last resorts.
_FIRST = (str(EXPLICIT_VR_LITTLE_ENDIAN), str(IMPLICIT_VR_LITTLE_ENDIAN))
_LAST = (str(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN), str(EXPLICIT_VR_BIG_ENDIAN))

#: A UID as far as we care (PS3.5 9.1): leading zeros are tolerated, also by us.
_is_uid = re.compile(r"(?=[0-9.]{1,64}\Z)[0-9]+(?:\.[0-9]+)*").fullmatch

_EMPTY: Mapping[str, bytes] = MappingProxyType({})

#: How many proposals, answers and outcomes are remembered, of each.
_REMEMBERED = 64

_Item = TypeVar("_Item", RoleSelection, ExtendedNegotiation)
_Made = TypeVar("_Made")


@frozen
class PresentationContext:
    """A presentation context to propose (PS3.8 9.3.2.2), public as ``asyncdicom.PresentationContext``.

    :ivar abstract_syntax: a SOP class UID.
    :ivar transfer_syntaxes: at least one UID, in order of preference.
    :ivar scu_role: whether we propose to be SCU; ``None`` is the default of PS3.7 D.3.3.4, yes.
    :ivar scp_role: whether we propose to be SCP; ``None`` is the default, no.

    Roles are negotiated if either is not ``None``. They belong to the SOP class, not to the context: contexts of the
    same class share the roles that any of them asks for.
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    scu_role: bool | None = None
    scp_role: bool | None = None


@frozen
class AcceptedContext:
    """A presentation context that both sides agreed on, and the roles of the association-requestor in it."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    requestor_is_scu: bool
    requestor_is_scp: bool


@frozen
class Window:
    """How many operations may be outstanding (PS3.7 D.3.3.3), seen from this side; 0 is unlimited.

    :ivar invoked: those that we invoke on the peer.
    :ivar performed: those that the peer invokes on us.
    """

    invoked: int = 1
    performed: int = 1


@frozen
class Negotiated:
    """What the two sides agreed on, seen from one of them.

    :ivar contexts: the accepted presentation contexts by ID.
    :ivar rejected: abstract syntaxes that were proposed and of which no context was accepted, with the result of the
        first (PS3.8 Table 9-18; 2, no reason, if the peer gave none or accepted what we did not propose).
    :ivar maximum_length: the longest variable field of a P-DATA-TF PDU that the *peer* receives, in bytes; 0 is
        unlimited.
    :ivar extended_negotiation: the acceptor's answers by SOP class UID, those of known service classes to be read by name
        (:mod:`.extended`).
    :ivar common_extended_negotiation: what the requestor told; there are no answers to it.
    :ivar user_identity_response: the acceptor's response (59H), if the requestor wanted one. Not in the ``repr``.
    """

    contexts: Mapping[int, AcceptedContext]
    rejected: Mapping[str, int]
    maximum_length: int
    window: Window
    extended_negotiation: Mapping[str, bytes]
    common_extended_negotiation: tuple[CommonExtendedNegotiation, ...]
    peer_implementation_class_uid: str | None
    peer_implementation_version_name: str | None
    user_identity_response: bytes | None = field(repr=False)
    called_ae_title: str
    calling_ae_title: str


@frozen
class Support:
    """What an acceptor supports for an abstract syntax.

    :ivar transfer_syntaxes: those that it can take; ``None`` is any, private ones too.
    :ivar requestor_scu: whether the requestor may be SCU.
    :ivar requestor_scp: whether the requestor may be SCP, if it proposes that.
    :ivar prefer_proposed_order: take the first proposed transfer syntax that is supported, as suits storage; else our
        own preference decides: Explicit VR Little Endian, Implicit VR Little Endian, the rest, Deflated, Big Endian.
    """

    transfer_syntaxes: tuple[str, ...] | None
    requestor_scu: bool = True
    requestor_scp: bool = False
    prefer_proposed_order: bool = False


# The requestor proposes.


def request(
    *,
    called: str,
    calling: str,
    contexts: Sequence[PresentationContext],
    maximum_length: int,
    async_operations: tuple[int, int] = (1, 1),
    extended_negotiation: Mapping[str, bytes] | None = None,
    common_extended_negotiation: Sequence[CommonExtendedNegotiation] = (),
    user_identity: UserIdentityRQ | None = None,
    implementation_class_uid: str = IMPLEMENTATION_CLASS_UID,
    implementation_version_name: str | None = IMPLEMENTATION_VERSION_NAME,
) -> AssociateRQ:
    """Make the A-ASSOCIATE-RQ that proposes ``contexts``, with the IDs 1, 3, 5 and so on in their order.

    :param called: AE title of the acceptor, 1 to 16 characters.
    :param calling: AE title of the requestor, 1 to 16 characters.
    :param contexts: 1 to 128 presentation contexts.
    :param maximum_length: the longest variable field of a P-DATA-TF PDU that we receive, in bytes: 0 (unlimited), or 8
        and more.
    :param async_operations: how many operations we want to invoke, and can perform, at once; 0 is unlimited. The
        default of PS3.7 D.3.3.3, (1, 1), is not sent.
    :param extended_negotiation: service-class-application-information by SOP class UID (PS3.7 D.3.3.5).
    :raises LocalProtocolError: a value breaks a rule of the standard or does not fit into its field.
    """
    asked = (
        called,
        calling,
        tuple(contexts),
        maximum_length,
        async_operations,
        tuple((extended_negotiation or _EMPTY).items()),
        tuple(common_extended_negotiation),
        user_identity,
        implementation_class_uid,
        implementation_version_name,
    )
    return _request(*asked) if user_identity is not None else _again(_request_again, *asked)


def _request(
    called: str,
    calling: str,
    contexts: tuple[PresentationContext, ...],
    maximum_length: int,
    async_operations: tuple[int, int],
    extended_negotiation: tuple[tuple[str, bytes], ...],
    common_extended_negotiation: tuple[CommonExtendedNegotiation, ...],
    user_identity: UserIdentityRQ | None,
    implementation_class_uid: str,
    implementation_version_name: str | None,
) -> AssociateRQ:
    if not 1 <= len(contexts) <= _MOST_CONTEXTS:
        raise LocalProtocolError(f"{len(contexts)} presentation contexts; an association has 1 to {_MOST_CONTEXTS}")
    if maximum_length and maximum_length < MINIMUM_LENGTH:
        raise LocalProtocolError(
            f"maximum length {maximum_length}; 0 (unlimited) or {MINIMUM_LENGTH} and more is possible"
        )
    if implementation_version_name is not None:
        _check_name(implementation_version_name, "implementation version name")
    if user_identity is not None and not 1 <= user_identity.type <= 5:
        raise LocalProtocolError(f"user identity type {user_identity.type}; 1 to 5 are defined")
    invoked, performed = async_operations
    for common in common_extended_negotiation:
        _check_uids(
            (common.sop_class_uid, common.service_class_uid, *common.related_sop_class_uids),
            "common extended negotiation",
        )
    proposal = AssociateRQ(
        called_ae_title=_check_ae_title(called, "called"),
        calling_ae_title=_check_ae_title(calling, "calling"),
        application_context=APPLICATION_CONTEXT,
        presentation_contexts=tuple(_propose(2 * index + 1, context) for index, context in enumerate(contexts)),
        user_information=UserInformation(
            maximum_length=maximum_length,
            implementation_class_uid=_check_uid(implementation_class_uid, "implementation class UID"),
            implementation_version_name=implementation_version_name,
            async_operations=None
            if (invoked, performed) == (1, 1)
            else AsyncOperationsWindow(invoked=invoked, performed=performed),
            roles=_propose_roles(contexts),
            extended_negotiation=tuple(
                ExtendedNegotiation(sop_class_uid=_check_uid(uid, "extended negotiation"), information=information)
                for uid, information in extended_negotiation
            ),
            common_extended_negotiation=common_extended_negotiation,
            user_identity=user_identity,
        ),
    )
    pdu.encode(proposal)  # whatever does not fit into its field is found now, before a connection is made
    return proposal


_request_again = lru_cache(_REMEMBERED)(_request)


def _propose(context_id: int, context: PresentationContext) -> PresentationContextRQ:
    if not context.transfer_syntaxes:
        raise LocalProtocolError(f"no transfer syntax proposed for {context.abstract_syntax!a}")
    return PresentationContextRQ(
        context_id=context_id,
        abstract_syntax=_check_uid(context.abstract_syntax, "abstract syntax"),
        transfer_syntaxes=_check_uids(context.transfer_syntaxes, "transfer syntax"),
    )


def _propose_roles(contexts: Iterable[PresentationContext]) -> tuple[RoleSelection, ...]:
    """Return one role item for each SOP class with a context that states a role."""
    roles: dict[str, tuple[bool, bool]] = {}
    for context in contexts:
        if context.scu_role is None and context.scp_role is None:
            continue
        scu = True if context.scu_role is None else context.scu_role
        scp = False if context.scp_role is None else context.scp_role
        if not (scu or scp):
            raise LocalProtocolError(f"neither the SCU nor the SCP role proposed for {context.abstract_syntax}")
        before = roles.get(context.abstract_syntax, (False, False))
        roles[context.abstract_syntax] = (scu or before[0], scp or before[1])
    return tuple(RoleSelection(sop_class_uid=uid, scu=scu, scp=scp) for uid, (scu, scp) in roles.items())


def _check_ae_title(title: str, which: str) -> str:
    stripped = title.strip(" ")
    _check_name(stripped, f"{which} AE title")
    if "\\" in stripped:
        raise LocalProtocolError(f"{which} AE title {title!a} has a backslash")
    return stripped


def _check_name(name: str, what: str) -> None:
    if not (1 <= len(name) <= 16 and name.isascii() and name.isprintable()):
        raise LocalProtocolError(f"{what} {name!a} is not 1 to 16 printable ASCII characters")


def _check_uid(uid: str, what: str) -> str:
    if not _is_uid(uid):
        raise LocalProtocolError(f"{what}: {uid!a} is not a UID")
    return str(uid)


def _check_uids(uids: Iterable[str], what: str) -> tuple[str, ...]:
    return tuple(_check_uid(uid, what) for uid in uids)


# The acceptor answers.


def answer(
    rq: AssociateRQ,
    *,
    support: Callable[[str], Support | None],
    maximum_length: int,
    async_operations: tuple[int, int] = (1, 1),
    extended_negotiation: Mapping[str, bytes] | None = None,
    user_identity_response: bytes | None = None,
    implementation_class_uid: str = IMPLEMENTATION_CLASS_UID,
    implementation_version_name: str | None = IMPLEMENTATION_VERSION_NAME,
) -> tuple[AssociateAC, Negotiated] | AssociateRJ:
    """Decide on a request: the A-ASSOCIATE-AC with what it agrees on (seen from us), or an A-ASSOCIATE-RJ.

    :param support: says what we support for an abstract syntax; ``None`` if it is none of ours.
    :param maximum_length: the longest variable field of a P-DATA-TF PDU in bytes that we receive; 0 is unlimited.
    :param async_operations: the most operations that the peer may have outstanding with us, and that we will have with
        the peer; 0 is unlimited. Not sent if the peer proposed nothing.
    :param extended_negotiation: our answers by SOP class UID; sent for accepted classes whose negotiation was proposed.
    :param user_identity_response: our response (59H) to an identity that was accepted, sent if the peer asked for one;
        ``None`` is none.
    """
    asked = (
        rq,
        tuple(
            support(context.abstract_syntax) if _is_uid(context.abstract_syntax) else None
            for context in rq.presentation_contexts
        ),
        maximum_length,
        async_operations,
        tuple((extended_negotiation or _EMPTY).items()),
        user_identity_response,
        implementation_class_uid,
        implementation_version_name,
    )
    return _again(_answer_again, *asked) if pdu.recurs(rq) else _answer(*asked)


def _answer(
    rq: AssociateRQ,
    supported: tuple[Support | None, ...],
    maximum_length: int,
    async_operations: tuple[int, int],
    extended_negotiation: tuple[tuple[str, bytes], ...],
    user_identity_response: bytes | None,
    implementation_class_uid: str,
    implementation_version_name: str | None,
) -> tuple[AssociateAC, Negotiated] | AssociateRJ:
    # A receiver "shall only test that bit 0 is set" (PS3.8 Table 9-11).
    if not rq.protocol_version & 1:
        return _PROTOCOL_VERSION_NOT_SUPPORTED
    if rq.application_context != APPLICATION_CONTEXT:
        return _APPLICATION_CONTEXT_NOT_SUPPORTED
    peer = rq.user_information
    if not rq.presentation_contexts or 0 < (peer.maximum_length or 0) < MINIMUM_LENGTH:
        return _NO_REASON_GIVEN
    contexts, roles, classes = _answer_contexts(rq, supported)
    replies = dict(extended_negotiation)
    wants_response = peer.user_identity is not None and peer.user_identity.positive_response_requested
    ac = AssociateAC(
        called_ae_title=rq.called_ae_title,
        calling_ae_title=rq.calling_ae_title,
        application_context=APPLICATION_CONTEXT,
        presentation_contexts=contexts,
        user_information=UserInformation(
            maximum_length=maximum_length,
            implementation_class_uid=implementation_class_uid,
            implementation_version_name=implementation_version_name,
            async_operations=_answer_window(peer.async_operations, async_operations),
            roles=roles,
            extended_negotiation=tuple(
                ExtendedNegotiation(sop_class_uid=uid, information=replies[uid])
                for uid in _first_by_class(peer.extended_negotiation)
                if uid in classes and uid in replies
            ),
            user_identity_response=UserIdentityAC(response=user_identity_response)
            if wants_response and user_identity_response is not None
            else None,
        ),
    )
    return ac, _agree(rq, ac, requestor=False)


_answer_again = lru_cache(_REMEMBERED)(_answer)


def _answer_contexts(
    rq: AssociateRQ, supported: Sequence[Support | None]
) -> tuple[tuple[PresentationContextAC, ...], tuple[RoleSelection, ...], frozenset[str]]:
    """Return the answer to each proposed context, the roles granted where proposed, and the accepted classes."""
    proposed = _first_by_class(rq.user_information.roles)
    contexts: list[PresentationContextAC] = []
    accepted: dict[str, RoleSelection] = {}
    for context, row in zip(rq.presentation_contexts, supported, strict=True):
        uid = context.abstract_syntax
        # An answer has one transfer syntax sub-item, also where the context is rejected and it is not significant
        # (PS3.8 Table 9-18): the first proposed one then, for want of a better.
        first = context.transfer_syntaxes[:1]
        transfer_syntax = first[0] if first and _is_uid(first[0]) else str(IMPLICIT_VR_LITTLE_ENDIAN)
        result = _ABSTRACT_SYNTAX_NOT_SUPPORTED
        if row is not None:
            granted = _grant(proposed.get(uid) or RoleSelection(sop_class_uid=uid, scu=True, scp=False), row)
            chosen = _choose(context.transfer_syntaxes, row)
            if chosen is None:
                result = _TRANSFER_SYNTAXES_NOT_SUPPORTED
            elif not (granted.scu or granted.scp):
                result = _USER_REJECTION
            else:
                result, transfer_syntax = _ACCEPTANCE, chosen
                accepted[uid] = granted
        contexts.append(
            PresentationContextAC(context_id=context.context_id, result=result, transfer_syntax=transfer_syntax)
        )
    roles = tuple(role for uid, role in accepted.items() if uid in proposed)
    return tuple(contexts), roles, frozenset(accepted)


def _choose(proposed: Sequence[str], support: Support) -> str | None:
    """Return the transfer syntax to accept. Linear in ``proposed``, which is the peer's."""
    supported = support.transfer_syntaxes
    if supported is None:
        # Any UID, but not any text: what we accept ends up in meta headers and logs.
        candidates: Iterable[str] = filter(_is_uid, proposed)
    elif support.prefer_proposed_order:
        candidates = filter(frozenset(supported).__contains__, proposed)
    else:
        candidates = filter(frozenset(proposed).__contains__, supported)
    if support.prefer_proposed_order:
        return next(iter(candidates), None)

    def common(uid: str) -> bool:
        return uid in proposed and (supported is None or uid in supported)

    return (
        next(filter(common, _FIRST), None)
        or next((uid for uid in candidates if uid not in _FIRST and uid not in _LAST), None)
        or next(filter(common, _LAST), None)
    )


def _grant(proposed: RoleSelection, support: Support) -> RoleSelection:
    return RoleSelection(
        sop_class_uid=proposed.sop_class_uid,
        scu=proposed.scu and support.requestor_scu,
        scp=proposed.scp and support.requestor_scp,
    )


def _answer_window(proposed: AsyncOperationsWindow | None, able: tuple[int, int]) -> AsyncOperationsWindow | None:
    if proposed is None:
        return None
    return AsyncOperationsWindow(
        invoked=_least(proposed.invoked, able[0]), performed=_least(proposed.performed, able[1])
    )


# What both agreed on.


def outcome(rq: AssociateRQ, ac: AssociateAC) -> Negotiated:
    """Return what the acceptor's answer to our request agrees on, seen from us.

    Contexts and transfer syntaxes that we did not propose are ignored, what we proposed and the answer lacks counts as
    rejected, and roles and windows are cut to what we proposed.

    :raises RemoteProtocolError: the acceptor's maximum length cannot carry a fragment; abort the association.
    """
    length = ac.user_information.maximum_length
    if length is not None and 0 < length < MINIMUM_LENGTH:
        raise RemoteProtocolError(
            f"the acceptor announced a maximum length of {length} bytes, which cannot carry a fragment",
            AbortReason.INVALID_VALUE,
        )
    if pdu.recurs(ac) and rq.user_information.user_identity is None:
        return _again(_agree_again, rq, ac, True)
    return _agree(rq, ac, requestor=True)


def _agree(rq: AssociateRQ, ac: AssociateAC, requestor: bool) -> Negotiated:
    """Read a request and its answer, the same way on both sides."""
    ours, theirs = rq.user_information, ac.user_information
    peer = theirs if requestor else ours
    contexts, rejected = _agree_contexts(rq, ac)
    proposed = {item.sop_class_uid for item in ours.extended_negotiation}
    wants_response = ours.user_identity is not None and ours.user_identity.positive_response_requested
    response = theirs.user_identity_response if wants_response else None
    return Negotiated(
        contexts=MappingProxyType(contexts),
        rejected=MappingProxyType(rejected),
        # No item says the same as 0: no maximum is specified (PS3.8 D.1).
        maximum_length=peer.maximum_length or 0,
        window=_agree_window(ours.async_operations, theirs.async_operations, requestor=requestor),
        extended_negotiation=MappingProxyType(
            {
                uid: read_information(uid, item.information)
                for uid, item in _first_by_class(theirs.extended_negotiation).items()
                if uid in proposed
            }
        ),
        common_extended_negotiation=ours.common_extended_negotiation,
        peer_implementation_class_uid=peer.implementation_class_uid,
        peer_implementation_version_name=peer.implementation_version_name,
        user_identity_response=None if response is None else response.response,
        called_ae_title=rq.called_ae_title,
        calling_ae_title=rq.calling_ae_title,
    )


_agree_again = lru_cache(_REMEMBERED)(_agree)


def _agree_contexts(rq: AssociateRQ, ac: AssociateAC) -> tuple[dict[int, AcceptedContext], dict[str, int]]:
    answers = {context.context_id: context for context in ac.presentation_contexts}
    proposed_roles = _first_by_class(rq.user_information.roles)
    accepted_roles = _first_by_class(ac.user_information.roles)
    contexts: dict[int, AcceptedContext] = {}
    rejected: dict[str, int] = {}
    for context in rq.presentation_contexts:
        uid = context.abstract_syntax
        reply = answers.get(context.context_id)
        if reply is None or reply.result != _ACCEPTANCE:
            rejected.setdefault(uid, _NO_REASON if reply is None else reply.result)
            continue
        if not reply.transfer_syntax or reply.transfer_syntax not in context.transfer_syntaxes:
            rejected.setdefault(uid, _NO_REASON)
            continue
        # No proposal, or no answer to it: the default roles (PS3.7 D.3.3.4).
        scu, scp = True, False
        if uid in proposed_roles and uid in accepted_roles:
            scu = proposed_roles[uid].scu and accepted_roles[uid].scu
            scp = proposed_roles[uid].scp and accepted_roles[uid].scp
        contexts[context.context_id] = AcceptedContext(
            context_id=context.context_id,
            abstract_syntax=uid,
            transfer_syntax=reply.transfer_syntax,
            requestor_is_scu=scu,
            requestor_is_scp=scp,
        )
    for accepted in contexts.values():
        rejected.pop(accepted.abstract_syntax, None)
    return contexts, rejected


def _agree_window(
    proposed: AsyncOperationsWindow | None, accepted: AsyncOperationsWindow | None, *, requestor: bool
) -> Window:
    if proposed is None or accepted is None:
        return Window()
    invoked = _least(proposed.invoked, accepted.invoked)
    performed = _least(proposed.performed, accepted.performed)
    return Window(invoked=invoked, performed=performed) if requestor else Window(invoked=performed, performed=invoked)


def _least(one: int, other: int) -> int:
    """Return the smaller number of operations, 0 being unlimited and larger than any other."""
    return min(one, other) if one and other else one or other


def _again(function: _lru_cache_wrapper[_Made], *arguments: Any) -> _Made:
    """Call a function that remembers what it returned. A list where a tuple is due does as well, but it could be changed."""
    try:
        return function(*arguments)
    except TypeError:
        return function.__wrapped__(*arguments)


def _first_by_class(items: Iterable[_Item]) -> dict[str, _Item]:
    """Return the items by SOP class UID; of several for a class the first counts."""
    found: dict[str, _Item] = {}
    for item in items:
        found.setdefault(item.sop_class_uid, item)
    return found
