"""Tests of association negotiation: tables of cases from both sides, then properties that hold for any proposal."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom import sop
from asyncdicom.exceptions import LocalProtocolError, RemoteProtocolError
from asyncdicom.protocol.negotiation import (
    AcceptedContext,
    Negotiated,
    PresentationContext,
    Support,
    Window,
    answer,
    outcome,
    request,
)
from asyncdicom.protocol.pdu import (
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
    decode,
    encode,
)

ECHO = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PRIVATE = "1.3.46.670589.5.0.1"

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
J2K = "1.2.840.10008.1.2.4.90"

ANY = Support(transfer_syntaxes=None)


def propose(*contexts: PresentationContext, **changes: Any) -> AssociateRQ:
    """Make a request with defaults."""
    values: dict[str, Any] = {
        "called": "ARCHIVE",
        "calling": "WORKSTATION",
        "contexts": contexts or (PresentationContext(abstract_syntax=ECHO),),
        "maximum_length": 16384,
    }
    return request(**values | changes)


def accept(
    rq: AssociateRQ, support: Support | dict[str, Support] = ANY, **changes: Any
) -> tuple[AssociateAC, Negotiated]:
    """Answer a request, which is accepted."""
    values: dict[str, Any] = {
        "support": support.get if isinstance(support, dict) else lambda uid: support,
        "maximum_length": 131072,
    }
    result = answer(rq, **values | changes)
    assert not isinstance(result, AssociateRJ)
    return result


def with_user(rq: AssociateRQ, **changes: Any) -> AssociateRQ:
    """Change the user information of a request."""
    return replace(rq, user_information=replace(rq.user_information, **changes))


# What we propose.


def test_a_request_is_spelled_as_the_standard_wants_it() -> None:
    identity = UserIdentityRQ(type=1, primary=b"anna")
    common = CommonExtendedNegotiation(sop_class_uid=CT, service_class_uid="1.2.840.10008.4.2")
    rq = request(
        called="  ARCHIVE ",
        calling="WORKSTATION",
        contexts=[
            PresentationContext(abstract_syntax=sop.VERIFICATION),
            PresentationContext(abstract_syntax=CT, transfer_syntaxes=(JPEG,), scp_role=True),
        ],
        maximum_length=0,
        async_operations=(8, 0),
        extended_negotiation={FIND: b"\1\0\1"},
        common_extended_negotiation=[common],
        user_identity=identity,
        implementation_class_uid="1.2.3",
        implementation_version_name="NAME",
    )
    assert rq == AssociateRQ(
        called_ae_title="ARCHIVE",
        calling_ae_title="WORKSTATION",
        application_context="1.2.840.10008.3.1.1.1",
        presentation_contexts=(
            PresentationContextRQ(context_id=1, abstract_syntax=ECHO, transfer_syntaxes=(EXPLICIT, IMPLICIT)),
            PresentationContextRQ(context_id=3, abstract_syntax=CT, transfer_syntaxes=(JPEG,)),
        ),
        user_information=UserInformation(
            maximum_length=0,
            implementation_class_uid="1.2.3",
            implementation_version_name="NAME",
            async_operations=AsyncOperationsWindow(invoked=8, performed=0),
            roles=(RoleSelection(sop_class_uid=CT, scu=True, scp=True),),
            extended_negotiation=(ExtendedNegotiation(sop_class_uid=FIND, information=b"\1\0\1"),),
            common_extended_negotiation=(common,),
            user_identity=identity,
        ),
    )


def test_a_request_names_our_implementation_and_leaves_defaults_out() -> None:
    assert propose().user_information == UserInformation(
        maximum_length=16384,
        implementation_class_uid=sop.IMPLEMENTATION_CLASS_UID,
        implementation_version_name=sop.IMPLEMENTATION_VERSION_NAME,
    )


def test_128_contexts_get_the_odd_numbers() -> None:
    rq = propose(*[PresentationContext(abstract_syntax=f"1.2.{index}") for index in range(128)])
    assert [context.context_id for context in rq.presentation_contexts] == list(range(1, 256, 2))


ROLE_PROPOSALS: list[tuple[list[tuple[bool | None, bool | None]], tuple[bool, bool] | None]] = [
    # (scu_role, scp_role) of the contexts of a class -> (scu, scp) on the wire
    ([(None, None)], None),
    ([(True, None)], (True, False)),
    ([(None, False)], (True, False)),
    ([(None, True)], (True, True)),
    ([(False, True)], (False, True)),
    ([(True, True)], (True, True)),
    ([(True, False)], (True, False)),
    ([(None, None), (False, True)], (False, True)),
    ([(True, False), (False, True)], (True, True)),
    ([(False, True), (False, True)], (False, True)),
]


@pytest.mark.parametrize(("contexts", "roles"), ROLE_PROPOSALS)
def test_contexts_of_a_class_share_the_roles_that_any_of_them_asks_for(
    contexts: list[tuple[bool | None, bool | None]], roles: tuple[bool, bool] | None
) -> None:
    rq = propose(*[PresentationContext(abstract_syntax=CT, scu_role=scu, scp_role=scp) for scu, scp in contexts])
    expected = () if roles is None else (RoleSelection(sop_class_uid=CT, scu=roles[0], scp=roles[1]),)
    assert rq.user_information.roles == expected


ONE = PresentationContext(abstract_syntax=ECHO)


@pytest.mark.parametrize(
    "changes",
    [
        {"contexts": []},
        {"contexts": [ONE] * 129},
        {"contexts": [replace(ONE, transfer_syntaxes=())]},
        {"contexts": [replace(ONE, transfer_syntaxes=("",))]},
        {"contexts": [replace(ONE, transfer_syntaxes=(EXPLICIT, "1..2"))]},
        {"contexts": [replace(ONE, transfer_syntaxes=(EXPLICIT + "\n",))]},
        {"contexts": [replace(ONE, transfer_syntaxes=("1.2.3" * 12,) * 2000)]},
        {"contexts": [replace(ONE, abstract_syntax="")]},
        {"contexts": [replace(ONE, abstract_syntax="CTImageStorage")]},
        {"contexts": [replace(ONE, abstract_syntax="1." * 32 + "1")]},
        {"contexts": [replace(ONE, abstract_syntax="../../x")]},
        {"contexts": [replace(ONE, abstract_syntax="1.\u0662")]},
        {"contexts": [replace(ONE, scu_role=False)]},
        {"contexts": [replace(ONE, scu_role=False, scp_role=False)]},
        {"called": ""},
        {"called": "   "},
        {"called": "SEVENTEEN LETTERS"},
        {"called": "BACK\\SLASH"},
        {"calling": "NEW\nLINE"},
        {"calling": "\u00c4RCHIV"},
        {"calling": "A\0"},
        {"maximum_length": -1},
        {"maximum_length": 7},
        {"maximum_length": 1 << 32},
        {"async_operations": (65536, 1)},
        {"async_operations": (1, -1)},
        {"implementation_class_uid": "ours"},
        {"implementation_version_name": ""},
        {"implementation_version_name": "SEVENTEEN LETTERS"},
        {"extended_negotiation": {"FIND": b""}},
        {"extended_negotiation": {FIND: bytes(70000)}},
        {"common_extended_negotiation": [CommonExtendedNegotiation(sop_class_uid=CT, service_class_uid="")]},
        {
            "common_extended_negotiation": [
                CommonExtendedNegotiation(sop_class_uid=CT, service_class_uid="1", related_sop_class_uids=("x",))
            ]
        },
        {"user_identity": UserIdentityRQ(type=0, primary=b"")},
        {"user_identity": UserIdentityRQ(type=6, primary=b"")},
        {"user_identity": UserIdentityRQ(type=4, primary=bytes(65536))},
    ],
)
def test_a_request_that_the_standard_forbids_raises_a_local_error(changes: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        propose(**changes)


# What we answer: rejections.


@pytest.mark.parametrize(
    ("changes", "rejection"),
    [
        ({"protocol_version": 0}, (1, 2, 2)),
        ({"protocol_version": 0xFFFE}, (1, 2, 2)),
        ({"protocol_version": 3}, None),
        ({"protocol_version": 0xFFFF}, None),
        ({"application_context": None}, (1, 1, 2)),
        ({"application_context": ""}, (1, 1, 2)),
        ({"application_context": "1.2.840.10008.3.1.1.2"}, (1, 1, 2)),
        ({"application_context": None, "protocol_version": 2}, (1, 2, 2)),
        ({"presentation_contexts": ()}, (1, 1, 1)),
        ({"user_information": UserInformation(maximum_length=1)}, (1, 1, 1)),
        ({"user_information": UserInformation(maximum_length=7)}, (1, 1, 1)),
        ({"user_information": UserInformation(maximum_length=8)}, None),
        ({"user_information": UserInformation(maximum_length=0)}, None),
        ({"user_information": UserInformation(maximum_length=0xFFFFFFFF)}, None),
        ({"user_information": UserInformation()}, None),
    ],
)
def test_an_acceptor_rejects_what_it_cannot_speak(
    changes: dict[str, Any], rejection: tuple[int, int, int] | None
) -> None:
    result = answer(replace(propose(), **changes), support=lambda uid: ANY, maximum_length=16384)
    if rejection is None:
        assert not isinstance(result, AssociateRJ)
    else:
        assert result == AssociateRJ(result=rejection[0], source=rejection[1], reason=rejection[2])


# What we answer: contexts.

STORE = Support(transfer_syntaxes=(EXPLICIT, IMPLICIT, JPEG, DEFLATED, BIG_ENDIAN), prefer_proposed_order=True)
QUERY = Support(transfer_syntaxes=(BIG_ENDIAN, DEFLATED, J2K, JPEG, IMPLICIT, EXPLICIT))

CONTEXTS: list[tuple[str, Support | None, tuple[str, ...], tuple[int, str]]] = [
    # what | support | proposed transfer syntaxes | result and transfer syntax of the answer
    ("unknown abstract syntax", None, (EXPLICIT, IMPLICIT), (3, EXPLICIT)),
    ("no common transfer syntax", QUERY, (PRIVATE,), (4, PRIVATE)),
    ("no transfer syntax at all", QUERY, (), (4, IMPLICIT)),
    ("none at all of any", ANY, (), (4, IMPLICIT)),
    ("an empty one", QUERY, ("",), (4, IMPLICIT)),
    ("an empty one of any", ANY, ("", EXPLICIT), (0, EXPLICIT)),
    ("explicit first though proposed last", QUERY, (BIG_ENDIAN, DEFLATED, JPEG, IMPLICIT, EXPLICIT), (0, EXPLICIT)),
    ("implicit second", QUERY, (BIG_ENDIAN, DEFLATED, JPEG, IMPLICIT), (0, IMPLICIT)),
    ("the rest in the order of support", QUERY, (BIG_ENDIAN, DEFLATED, JPEG, J2K), (0, J2K)),
    ("deflated before big endian", QUERY, (BIG_ENDIAN, DEFLATED), (0, DEFLATED)),
    ("big endian last", QUERY, (BIG_ENDIAN,), (0, BIG_ENDIAN)),
    ("storage takes the first", STORE, (BIG_ENDIAN, JPEG, EXPLICIT), (0, BIG_ENDIAN)),
    ("storage takes the first that it supports", STORE, (PRIVATE, J2K, JPEG, EXPLICIT), (0, JPEG)),
    ("any takes our preference", ANY, (PRIVATE, BIG_ENDIAN, JPEG, IMPLICIT), (0, IMPLICIT)),
    ("any takes the first of the rest", ANY, (BIG_ENDIAN, PRIVATE, JPEG), (0, PRIVATE)),
    ("any takes the first for storage", replace(ANY, prefer_proposed_order=True), (PRIVATE, EXPLICIT), (0, PRIVATE)),
    ("any is no text", replace(ANY, prefer_proposed_order=True), ("../x", "1\n", JPEG), (0, JPEG)),
    ("twice the same", STORE, (JPEG, JPEG), (0, JPEG)),
    ("text is not sent back", None, ("\x1b[2J",), (3, IMPLICIT)),
]


@pytest.mark.parametrize(
    ("support", "proposed", "expected"), [row[1:] for row in CONTEXTS], ids=[row[0] for row in CONTEXTS]
)
def test_a_context_is_answered(support: Support | None, proposed: tuple[str, ...], expected: tuple[int, str]) -> None:
    rq = replace(
        propose(),
        presentation_contexts=(
            PresentationContextRQ(context_id=7, abstract_syntax=CT, transfer_syntaxes=proposed),
            PresentationContextRQ(context_id=9, abstract_syntax=ECHO, transfer_syntaxes=(EXPLICIT,)),
        ),
    )
    table = {ECHO: ANY} | ({} if support is None else {CT: support})
    ac, negotiated = accept(rq, table)
    result, transfer_syntax = expected
    assert ac.presentation_contexts == (
        PresentationContextAC(context_id=7, result=result, transfer_syntax=transfer_syntax),
        PresentationContextAC(context_id=9, result=0, transfer_syntax=EXPLICIT),
    )
    assert set(negotiated.contexts) == ({7, 9} if result == 0 else {9})
    assert negotiated.rejected == ({} if result == 0 else {CT: result})


@pytest.mark.parametrize("uid", ["", "\x1b[2J", "../../etc", "1..2", "1." * 32 + "1", "1.2\n"])
def test_an_abstract_syntax_that_is_no_uid_is_never_supported(uid: str) -> None:
    rq = replace(
        propose(),
        presentation_contexts=(
            PresentationContextRQ(context_id=1, abstract_syntax=uid, transfer_syntaxes=(EXPLICIT,)),
        ),
    )
    asked: list[str] = []

    def support(uid: str) -> Support:
        asked.append(uid)
        return ANY

    result = answer(rq, support=support, maximum_length=0)
    assert not isinstance(result, AssociateRJ)
    assert result[0].presentation_contexts[0].result == 3
    assert asked == []


def test_every_proposed_context_is_answered_in_order() -> None:
    rq = propose(*[PresentationContext(abstract_syntax=f"1.2.{index}") for index in range(128)])
    ac, _ = accept(rq, {f"1.2.{index}": ANY for index in range(0, 128, 3)})
    assert [context.context_id for context in ac.presentation_contexts] == list(range(1, 256, 2))
    assert [context.result for context in ac.presentation_contexts] == [0 if i % 3 == 0 else 3 for i in range(128)]


def test_a_class_in_several_contexts_is_rejected_only_if_all_of_them_are() -> None:
    rq = propose(
        PresentationContext(abstract_syntax=CT, transfer_syntaxes=(PRIVATE,)),
        PresentationContext(abstract_syntax=CT, transfer_syntaxes=(JPEG,)),
        PresentationContext(abstract_syntax=CT, transfer_syntaxes=(EXPLICIT,)),
        PresentationContext(abstract_syntax=MR, transfer_syntaxes=(PRIVATE,)),
    )
    ac, acceptor = accept(rq, {CT: STORE, MR: STORE})
    for negotiated in (acceptor, outcome(rq, ac)):
        assert [(row.context_id, row.transfer_syntax) for row in negotiated.contexts.values()] == [
            (3, JPEG),
            (5, EXPLICIT),
        ]
        assert negotiated.rejected == {MR: 4}


# Roles.


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """A row: what is proposed, what is supported, and what comes of it (None: no item; result not 0: rejected)."""

    proposed: tuple[bool, bool] | None
    supported: tuple[bool, bool]
    answered: tuple[bool, bool] | None
    result: int = 0


ROLES = [
    # No proposal: the requestor is SCU, and no item comes back.
    Roles(proposed=None, supported=(True, False), answered=None),
    Roles(proposed=None, supported=(True, True), answered=None),
    Roles(proposed=None, supported=(False, True), answered=None, result=1),
    Roles(proposed=None, supported=(False, False), answered=None, result=1),
    # SCU only.
    Roles(proposed=(True, False), supported=(True, False), answered=(True, False)),
    Roles(proposed=(True, False), supported=(True, True), answered=(True, False)),
    Roles(proposed=(True, False), supported=(False, True), answered=None, result=1),
    # SCP only, as for C-GET or storage commitment results.
    Roles(proposed=(False, True), supported=(True, True), answered=(False, True)),
    Roles(proposed=(False, True), supported=(False, True), answered=(False, True)),
    Roles(proposed=(False, True), supported=(True, False), answered=None, result=1),
    # Both.
    Roles(proposed=(True, True), supported=(True, True), answered=(True, True)),
    Roles(proposed=(True, True), supported=(True, False), answered=(True, False)),
    Roles(proposed=(True, True), supported=(False, True), answered=(False, True)),
    Roles(proposed=(True, True), supported=(False, False), answered=None, result=1),
    # Neither.
    Roles(proposed=(False, False), supported=(True, True), answered=None, result=1),
]


@pytest.mark.parametrize("row", ROLES, ids=str)
def test_roles_are_granted_where_proposed_and_supported(row: Roles) -> None:
    rq = propose(PresentationContext(abstract_syntax=CT), ONE)
    if row.proposed is not None:
        role = RoleSelection(sop_class_uid=CT, scu=row.proposed[0], scp=row.proposed[1])
        rq = with_user(rq, roles=(role,))
    scu, scp = row.supported
    ac, acceptor = accept(rq, {CT: replace(ANY, requestor_scu=scu, requestor_scp=scp), ECHO: ANY})
    assert ac.presentation_contexts[0].result == row.result
    expected: tuple[RoleSelection, ...] = ()
    if row.answered is not None:
        expected = (RoleSelection(sop_class_uid=CT, scu=row.answered[0], scp=row.answered[1]),)
    assert ac.user_information.roles == expected
    for negotiated in (acceptor, outcome(rq, ac)):
        if row.result:
            assert negotiated.rejected == {CT: row.result}
        else:
            context = negotiated.contexts[1]
            assert (context.requestor_is_scu, context.requestor_is_scp) == (row.answered or (True, False))
        assert negotiated.contexts[3].requestor_is_scu


def test_role_items_for_classes_that_were_not_proposed_or_accepted_are_not_answered() -> None:
    rq = with_user(
        propose(ONE, PresentationContext(abstract_syntax=MR)),
        roles=tuple(RoleSelection(sop_class_uid=uid, scu=True, scp=True) for uid in (CT, MR, "", "../x")),
    )
    ac, _ = accept(rq, {ECHO: ANY, CT: replace(ANY, requestor_scp=True)})
    assert ac.user_information.roles == ()


def test_of_two_role_items_for_a_class_the_first_counts() -> None:
    rq = with_user(
        propose(PresentationContext(abstract_syntax=CT)),
        roles=(
            RoleSelection(sop_class_uid=CT, scu=False, scp=True),
            RoleSelection(sop_class_uid=CT, scu=True, scp=False),
        ),
    )
    ac, _ = accept(rq, replace(ANY, requestor_scp=True))
    assert ac.user_information.roles == (RoleSelection(sop_class_uid=CT, scu=False, scp=True),)


ROLE_ANSWERS: list[tuple[tuple[bool, bool] | None, tuple[bool, bool] | None, tuple[bool, bool]]] = [
    # proposed | answered | agreed
    (None, None, (True, False)),
    (None, (True, True), (True, False)),
    (None, (False, True), (True, False)),
    (None, (False, False), (True, False)),
    ((True, True), None, (True, False)),
    ((False, True), None, (True, False)),
    ((False, True), (False, True), (False, True)),
    ((False, True), (True, True), (False, True)),
    ((False, True), (True, False), (False, False)),
    ((True, False), (True, True), (True, False)),
    ((True, True), (True, True), (True, True)),
    ((True, True), (False, True), (False, True)),
    ((True, True), (False, False), (False, False)),
]


@pytest.mark.parametrize(("proposed", "answered", "agreed"), ROLE_ANSWERS)
def test_a_requestor_has_the_roles_that_it_proposed_and_the_acceptor_granted(
    proposed: tuple[bool, bool] | None, answered: tuple[bool, bool] | None, agreed: tuple[bool, bool]
) -> None:
    def items(roles: tuple[bool, bool] | None) -> tuple[RoleSelection, ...]:
        return () if roles is None else (RoleSelection(sop_class_uid=CT, scu=roles[0], scp=roles[1]),)

    rq = with_user(propose(PresentationContext(abstract_syntax=CT)), roles=items(proposed))
    ac, _ = accept(propose(PresentationContext(abstract_syntax=CT)))
    ac = replace(ac, user_information=replace(ac.user_information, roles=items(answered)))
    context = outcome(rq, ac).contexts[1]
    assert (context.requestor_is_scu, context.requestor_is_scp) == agreed


# Asynchronous operations window. (invoked, performed) as the requestor sees it; None is no item.

WINDOWS: list[tuple[tuple[int, int] | None, tuple[int, int], tuple[int, int] | None, tuple[int, int]]] = [
    # proposed | (peer on us, we on the peer) that the acceptor is able to do | answered | requestor's window
    (None, (1, 1), None, (1, 1)),
    (None, (8, 8), None, (1, 1)),
    (None, (0, 0), None, (1, 1)),
    ((1, 1), (8, 8), (1, 1), (1, 1)),
    ((4, 2), (8, 8), (4, 2), (4, 2)),
    ((8, 8), (4, 2), (4, 2), (4, 2)),
    ((8, 1), (4, 4), (4, 1), (4, 1)),
    ((1, 8), (4, 4), (1, 4), (1, 4)),
    ((0, 0), (4, 2), (4, 2), (4, 2)),
    ((4, 2), (0, 0), (4, 2), (4, 2)),
    ((0, 0), (0, 0), (0, 0), (0, 0)),
    ((0, 1), (0, 0), (0, 1), (0, 1)),
    ((0, 5), (1, 1), (1, 1), (1, 1)),
    ((65535, 65535), (0, 65534), (65535, 65534), (65535, 65534)),
]


def window(pair: tuple[int, int] | None) -> AsyncOperationsWindow | None:
    return None if pair is None else AsyncOperationsWindow(invoked=pair[0], performed=pair[1])


@pytest.mark.parametrize(("proposed", "able", "answered", "agreed"), WINDOWS)
def test_the_operations_window_is_the_smaller_one(
    proposed: tuple[int, int] | None,
    able: tuple[int, int],
    answered: tuple[int, int] | None,
    agreed: tuple[int, int],
) -> None:
    rq = with_user(propose(), async_operations=window(proposed))
    ac, acceptor = accept(rq, async_operations=able)
    assert ac.user_information.async_operations == window(answered)
    assert outcome(rq, ac).window == Window(invoked=agreed[0], performed=agreed[1])
    assert acceptor.window == Window(invoked=agreed[1], performed=agreed[0])


@pytest.mark.parametrize(
    ("proposed", "answered", "agreed"),
    [
        # Absent in the answer is (1, 1); an answer above the proposal is clamped; one without a proposal is ignored.
        ((8, 8), None, (1, 1)),
        ((0, 0), None, (1, 1)),
        ((4, 2), (8, 8), (4, 2)),
        ((4, 2), (0, 0), (4, 2)),
        ((0, 0), (8, 0), (8, 0)),
        (None, (8, 8), (1, 1)),
        (None, (0, 0), (1, 1)),
    ],
)
def test_a_requestor_clamps_the_operations_window_to_its_proposal(
    proposed: tuple[int, int] | None, answered: tuple[int, int] | None, agreed: tuple[int, int]
) -> None:
    ac, _ = accept(propose())
    ac = replace(ac, user_information=replace(ac.user_information, async_operations=window(answered)))
    rq = with_user(propose(), async_operations=window(proposed))
    assert outcome(rq, ac).window == Window(invoked=agreed[0], performed=agreed[1])


# Extended negotiation, user identity, and the rest of the user information.


def test_extended_negotiation_is_answered_for_accepted_classes_that_asked() -> None:
    rq = propose(
        PresentationContext(abstract_syntax=FIND),
        PresentationContext(abstract_syntax=CT),
        PresentationContext(abstract_syntax=MR),
        extended_negotiation={FIND: b"\1\1\1", CT: b"\1", PRIVATE: b"\1"},
    )
    ours = {FIND: b"\1\0\1", MR: b"\2", CT: b"\3", PRIVATE: b"\4"}
    ac, acceptor = accept(rq, {FIND: ANY, MR: ANY}, extended_negotiation=ours)
    assert ac.user_information.extended_negotiation == (ExtendedNegotiation(sop_class_uid=FIND, information=b"\1\0\1"),)
    assert acceptor.extended_negotiation == {FIND: b"\1\0\1"}
    assert outcome(rq, ac).extended_negotiation == {FIND: b"\1\0\1"}


def test_extended_negotiation_that_was_not_proposed_is_ignored_in_an_answer() -> None:
    rq = propose(PresentationContext(abstract_syntax=FIND), extended_negotiation={FIND: b"\1"})
    ac, _ = accept(rq)
    items = ((CT, b"\1"), (FIND, b"\0"), (FIND, b"\1"))
    extended = tuple(ExtendedNegotiation(sop_class_uid=uid, information=information) for uid, information in items)
    ac = replace(ac, user_information=replace(ac.user_information, extended_negotiation=extended))
    assert outcome(rq, ac).extended_negotiation == {FIND: b"\0"}


def test_common_extended_negotiation_is_known_to_both_and_not_answered() -> None:
    common = (
        CommonExtendedNegotiation(
            sop_class_uid=PRIVATE, service_class_uid="1.2.840.10008.4.2", related_sop_class_uids=(CT,)
        ),
    )
    rq = propose(common_extended_negotiation=common)
    ac, acceptor = accept(rq)
    assert ac.user_information.common_extended_negotiation == ()
    assert acceptor.common_extended_negotiation == outcome(rq, ac).common_extended_negotiation == common


@pytest.mark.parametrize(
    ("asked", "ours", "sent"),
    [
        (None, b"ticket", None),
        (False, b"ticket", None),
        (True, None, None),
        (True, b"", b""),
        (True, b"ticket", b"ticket"),
    ],
)
def test_a_user_identity_response_is_sent_to_who_asked(
    asked: bool | None, ours: bytes | None, sent: bytes | None
) -> None:
    identity = None
    if asked is not None:
        identity = UserIdentityRQ(type=3, primary=b"x", positive_response_requested=asked)
    rq = propose(user_identity=identity)
    ac, acceptor = accept(rq, user_identity_response=ours)
    assert ac.user_information.user_identity_response == (None if sent is None else UserIdentityAC(response=sent))
    assert acceptor.user_identity_response == outcome(rq, ac).user_identity_response == sent
    assert "ticket" not in repr(acceptor)


def test_a_user_identity_response_that_nobody_asked_for_is_ignored() -> None:
    ac, _ = accept(propose())
    information = replace(ac.user_information, user_identity_response=UserIdentityAC(response=b"ticket"))
    assert outcome(propose(), replace(ac, user_information=information)).user_identity_response is None


def test_each_side_knows_the_other_ones_maximum_length_and_implementation() -> None:
    rq = propose(implementation_class_uid="1.2.3", implementation_version_name="REQUESTOR")
    ac, acceptor = accept(rq, implementation_class_uid="1.2.4", implementation_version_name=None)
    requestor = outcome(rq, ac)
    assert (acceptor.maximum_length, requestor.maximum_length) == (16384, 131072)
    assert acceptor.peer_implementation_class_uid == "1.2.3"
    assert acceptor.peer_implementation_version_name == "REQUESTOR"
    assert requestor.peer_implementation_class_uid == "1.2.4"
    assert requestor.peer_implementation_version_name is None


def test_ae_titles_come_back_as_they_were_received() -> None:
    rq = replace(propose(), called_ae_title="A\r\nB", calling_ae_title="\u00c4")
    ac, acceptor = accept(rq)
    assert (ac.called_ae_title, ac.calling_ae_title) == ("A\r\nB", "\u00c4")
    assert (acceptor.called_ae_title, acceptor.calling_ae_title) == ("A\r\nB", "\u00c4")
    # What the acceptor writes there "shall not be tested when received".
    mine = outcome(propose(), replace(ac, called_ae_title="", calling_ae_title="OTHER"))
    assert (mine.called_ae_title, mine.calling_ae_title) == ("ARCHIVE", "WORKSTATION")


# What a requestor tolerates in an answer.

OURS = (
    PresentationContext(abstract_syntax=CT, transfer_syntaxes=(EXPLICIT, IMPLICIT)),
    PresentationContext(abstract_syntax=MR, transfer_syntaxes=(JPEG,)),
)

OUTCOMES: list[tuple[str, list[tuple[int, int, str | None]], dict[int, str], dict[str, int]]] = [
    # what | (ID, result, transfer syntax) in the answer | accepted | rejected
    ("all accepted", [(1, 0, EXPLICIT), (3, 0, JPEG)], {1: EXPLICIT, 3: JPEG}, {}),
    ("in another order", [(3, 0, JPEG), (1, 0, IMPLICIT)], {1: IMPLICIT, 3: JPEG}, {}),
    ("one rejected", [(1, 0, EXPLICIT), (3, 4, JPEG)], {1: EXPLICIT}, {MR: 4}),
    ("one rejected without a transfer syntax", [(1, 0, EXPLICIT), (3, 3, None)], {1: EXPLICIT}, {MR: 3}),
    ("one rejected with a reserved result", [(1, 0, EXPLICIT), (3, 200, None)], {1: EXPLICIT}, {MR: 200}),
    ("one without an answer", [(1, 0, EXPLICIT)], {1: EXPLICIT}, {MR: 2}),
    ("no answers", [], {}, {CT: 2, MR: 2}),
    ("a context never proposed", [(1, 0, EXPLICIT), (3, 0, JPEG), (5, 0, JPEG)], {1: EXPLICIT, 3: JPEG}, {}),
    ("only contexts never proposed", [(5, 0, JPEG), (255, 0, EXPLICIT)], {}, {CT: 2, MR: 2}),
    ("a transfer syntax never proposed", [(1, 0, JPEG), (3, 0, JPEG)], {3: JPEG}, {CT: 2}),
    ("accepted without a transfer syntax", [(1, 0, None), (3, 0, JPEG)], {3: JPEG}, {CT: 2}),
    ("all rejected", [(1, 3, None), (3, 1, JPEG)], {}, {CT: 3, MR: 1}),
]


@pytest.mark.parametrize(
    ("answers", "accepted", "rejected"), [row[1:] for row in OUTCOMES], ids=[row[0] for row in OUTCOMES]
)
def test_a_requestor_takes_from_an_answer_what_it_proposed(
    answers: list[tuple[int, int, str | None]], accepted: dict[int, str], rejected: dict[str, int]
) -> None:
    ac = AssociateAC(
        called_ae_title="X",
        calling_ae_title="Y",
        application_context=None,
        presentation_contexts=tuple(
            PresentationContextAC(context_id=context_id, result=result, transfer_syntax=uid)
            for context_id, result, uid in answers
        ),
    )
    negotiated = outcome(propose(*OURS), ac)
    assert {key: context.transfer_syntax for key, context in negotiated.contexts.items()} == accepted
    assert negotiated.rejected == rejected
    assert negotiated.maximum_length == 0
    assert negotiated.window == Window(invoked=1, performed=1)


def test_an_accepted_context_knows_its_abstract_syntax() -> None:
    rq = propose(*OURS)
    ac, _ = accept(rq)
    assert outcome(rq, ac).contexts[3] == AcceptedContext(
        context_id=3, abstract_syntax=MR, transfer_syntax=JPEG, requestor_is_scu=True, requestor_is_scp=False
    )


@pytest.mark.parametrize("length", [1, 7])
def test_an_acceptor_whose_maximum_length_carries_nothing_is_an_error(length: int) -> None:
    ac, _ = accept(propose(), maximum_length=length)
    with pytest.raises(RemoteProtocolError) as caught:
        outcome(propose(), ac)
    assert caught.value.reason == 6


@pytest.mark.parametrize("length", [0, 8, 9, 0xFFFFFFFF])
def test_an_acceptor_may_announce_any_other_maximum_length(length: int) -> None:
    ac, _ = accept(propose(), maximum_length=length)
    assert outcome(propose(), ac).maximum_length == length


# What is remembered.


def test_the_same_proposal_is_made_once() -> None:
    contexts = [PresentationContext(abstract_syntax=uid) for uid in (ECHO, CT)]
    assert propose(*contexts) is propose(*[replace(context) for context in contexts])


@pytest.mark.parametrize(
    "change",
    [
        {"called": "ARCHIVE2"},
        {"calling": "WORKSTATION2"},
        {"contexts": [PresentationContext(abstract_syntax=CT)]},
        {"contexts": [PresentationContext(abstract_syntax=ECHO, transfer_syntaxes=(IMPLICIT,))]},
        {"contexts": [PresentationContext(abstract_syntax=ECHO, scp_role=True)]},
        {"maximum_length": 0},
        {"async_operations": (2, 1)},
        {"extended_negotiation": {FIND: b"\1"}},
        {"common_extended_negotiation": [CommonExtendedNegotiation(sop_class_uid=CT, service_class_uid=CT)]},
        {"user_identity": UserIdentityRQ(type=1, primary=b"anna")},
        {"implementation_class_uid": "1.2.3"},
        {"implementation_version_name": "OTHER"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_differs_makes_another_proposal(change: dict[str, Any]) -> None:
    assert encode(propose(**change)) != encode(propose())
    assert propose(**change) == propose(**change)


def test_a_list_of_transfer_syntaxes_counts_as_it_is_when_it_is_proposed() -> None:
    syntaxes = [EXPLICIT]
    context = PresentationContext(abstract_syntax=CT, transfer_syntaxes=syntaxes)  # type: ignore[arg-type]
    assert propose(context).presentation_contexts[0].transfer_syntaxes == (EXPLICIT,)
    syntaxes.append(JPEG)
    assert propose(context).presentation_contexts[0].transfer_syntaxes == (EXPLICIT, JPEG)


def test_the_same_request_of_a_peer_is_answered_once_while_the_same_is_supported() -> None:
    rq = decode(1, encode(propose())[6:])
    assert isinstance(rq, AssociateRQ)
    ac, agreed = accept(rq)
    assert accept(rq)[0] is ac
    assert accept(rq, {})[1].rejected == {ECHO: 3}
    assert accept(rq, Support(transfer_syntaxes=(IMPLICIT,)))[1].contexts[1].transfer_syntax == IMPLICIT
    assert accept(rq, Support(transfer_syntaxes=[EXPLICIT]))[1] == agreed  # type: ignore[arg-type]
    assert accept(rq, maximum_length=0)[0].user_information.maximum_length == 0
    assert accept(rq)[1] is agreed


def test_the_same_outcome_is_read_once() -> None:
    rq = propose()
    ac = decode(2, encode(accept(rq)[0])[6:])
    assert isinstance(ac, AssociateAC)
    assert outcome(rq, ac) is outcome(rq, ac)
    assert outcome(propose(called="OTHER"), ac).called_ae_title == "OTHER"


def test_nothing_with_credentials_is_remembered() -> None:
    identity = UserIdentityRQ(type=2, primary=b"anna", secondary=b"s3cret", positive_response_requested=True)
    rq = propose(user_identity=identity)
    assert propose(user_identity=identity) is not rq
    received = decode(1, encode(rq)[6:])
    assert isinstance(received, AssociateRQ)
    ac, agreed = accept(received, user_identity_response=b"ticket")
    assert accept(received, user_identity_response=b"ticket")[0] is not ac
    answered = decode(2, encode(ac)[6:])
    assert isinstance(answered, AssociateAC)
    assert agreed.user_identity_response == b"ticket"
    assert outcome(rq, answered) is not outcome(rq, answered)
    assert outcome(rq, answered).user_identity_response == b"ticket"


# Time. The bounds are generous; a quadratic algorithm misses them by far.


@pytest.mark.parametrize("support", [ANY, STORE, QUERY, replace(ANY, prefer_proposed_order=True)], ids=str)
def test_a_quarter_million_transfer_syntaxes_are_decided_in_linear_time(support: Support) -> None:
    syntaxes = (*(f"1.2.826.0.1.3680043.{index}" for index in range(2000)), "x", EXPLICIT)
    rq = replace(
        propose(),
        presentation_contexts=tuple(
            PresentationContextRQ(context_id=context_id, abstract_syntax=CT, transfer_syntaxes=syntaxes)
            for context_id in range(1, 256, 2)
        ),
    )
    start = time.process_time()
    ac, _ = accept(rq, support)
    outcome(rq, ac)
    assert time.process_time() - start < 10


# Properties.

UIDS = st.sampled_from([ECHO, CT, MR, FIND, PRIVATE])
SYNTAXES = st.sampled_from([IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, JPEG, J2K, PRIVATE])
NUMBERS = st.sampled_from([0, 1, 2, 3, 65535])
PAIRS = st.tuples(NUMBERS, NUMBERS)

CONTEXT_LISTS = st.lists(
    st.builds(
        PresentationContext,
        abstract_syntax=UIDS,
        transfer_syntaxes=st.lists(SYNTAXES, min_size=1, max_size=5).map(tuple),
        scu_role=st.sampled_from([None, True]),
        scp_role=st.sampled_from([None, True, False]),
    ),
    min_size=1,
    max_size=8,
)
PROPOSALS = st.builds(
    request,
    called=st.just("ARCHIVE"),
    calling=st.just("WORKSTATION"),
    contexts=CONTEXT_LISTS,
    maximum_length=st.sampled_from([0, 8, 16384]),
    async_operations=PAIRS,
    extended_negotiation=st.dictionaries(UIDS, st.binary(max_size=4)),
    common_extended_negotiation=st.lists(
        st.builds(CommonExtendedNegotiation, sop_class_uid=UIDS, service_class_uid=UIDS), max_size=2
    ),
    user_identity=st.none()
    | st.builds(UserIdentityRQ, type=st.integers(1, 5), primary=st.binary(), positive_response_requested=st.booleans()),
)
SUPPORTS = st.dictionaries(
    UIDS,
    st.builds(
        Support,
        transfer_syntaxes=st.none() | st.lists(SYNTAXES, max_size=7).map(tuple),
        requestor_scu=st.booleans(),
        requestor_scp=st.booleans(),
        prefer_proposed_order=st.booleans(),
    ),
)
EXTENDED = st.dictionaries(UIDS, st.binary(max_size=4))
RESPONSES = st.none() | st.binary(max_size=4)


def over_the_wire(ac: AssociateAC) -> AssociateAC:
    pdu = decode(2, encode(ac)[6:])
    assert isinstance(pdu, AssociateAC)
    return pdu


@given(PROPOSALS, SUPPORTS, PAIRS, EXTENDED, RESPONSES)
def test_both_sides_agree_and_nothing_is_granted_that_was_not_proposed(
    rq: AssociateRQ,
    supports: dict[str, Support],
    able: tuple[int, int],
    extended: dict[str, bytes],
    response: bytes | None,
) -> None:
    wire = decode(1, encode(rq)[6:])
    assert wire == rq
    ac, acceptor = accept(
        rq, supports, async_operations=able, extended_negotiation=extended, user_identity_response=response
    )
    requestor = outcome(rq, over_the_wire(ac))
    # Both sides agree; what is seen from a side is mirrored.
    assert requestor.contexts == acceptor.contexts
    assert requestor.rejected == acceptor.rejected
    assert requestor.window == Window(invoked=acceptor.window.performed, performed=acceptor.window.invoked)
    assert requestor.extended_negotiation == acceptor.extended_negotiation
    assert requestor.common_extended_negotiation == acceptor.common_extended_negotiation
    assert requestor.user_identity_response == acceptor.user_identity_response
    _check_within_proposal(rq, requestor)
    # Every proposed context is answered, and only those.
    assert [c.context_id for c in ac.presentation_contexts] == [c.context_id for c in rq.presentation_contexts]
    accepted = {context.abstract_syntax for context in requestor.contexts.values()}
    assert accepted <= set(supports)
    assert set(requestor.rejected) == {context.abstract_syntax for context in rq.presentation_contexts} - accepted


ANSWERS = st.builds(
    AssociateAC,
    called_ae_title=st.just("X"),
    calling_ae_title=st.just("Y"),
    application_context=st.none(),
    presentation_contexts=st.lists(
        st.builds(
            PresentationContextAC,
            context_id=st.sampled_from([1, 3, 5, 7, 255]),
            result=st.sampled_from([0, 0, 0, 1, 4, 255]),
            transfer_syntax=st.none() | SYNTAXES,
        ),
        unique_by=lambda context: context.context_id,
    ).map(tuple),
    user_information=st.builds(
        UserInformation,
        maximum_length=st.none() | st.sampled_from([0, 8, 16384]),
        async_operations=st.none() | PAIRS.map(window),
        roles=st.lists(
            st.builds(RoleSelection, sop_class_uid=UIDS, scu=st.booleans(), scp=st.booleans()), max_size=4
        ).map(tuple),
        extended_negotiation=st.lists(
            st.builds(ExtendedNegotiation, sop_class_uid=UIDS, information=st.binary(max_size=2)), max_size=4
        ).map(tuple),
        user_identity_response=st.none() | st.builds(UserIdentityAC, response=st.binary(max_size=4)),
    ),
)


@given(PROPOSALS, ANSWERS)
def test_no_answer_grants_what_was_not_proposed(rq: AssociateRQ, ac: AssociateAC) -> None:
    _check_within_proposal(rq, outcome(rq, ac))


def _check_within_proposal(rq: AssociateRQ, requestor: Negotiated) -> None:
    proposed = {context.context_id: context for context in rq.presentation_contexts}
    roles = {role.sop_class_uid: role for role in rq.user_information.roles}
    for context_id, context in requestor.contexts.items():
        assert context.context_id == context_id
        assert context.abstract_syntax == proposed[context_id].abstract_syntax
        assert context.transfer_syntax in proposed[context_id].transfer_syntaxes
        role = roles.get(context.abstract_syntax)
        if role is None:
            assert (context.requestor_is_scu, context.requestor_is_scp) == (True, False)
        else:
            assert role.scp or not context.requestor_is_scp
    window = rq.user_information.async_operations or AsyncOperationsWindow(invoked=1, performed=1)
    for agreed, most in ((requestor.window.invoked, window.invoked), (requestor.window.performed, window.performed)):
        assert most == 0 or 1 <= agreed <= most
    asked = {item.sop_class_uid for item in rq.user_information.extended_negotiation}
    assert set(requestor.extended_negotiation) <= asked
    identity = rq.user_information.user_identity
    if identity is None or not identity.positive_response_requested:
        assert requestor.user_identity_response is None
