"""Responses: what is read from their command sets and data sets, and several of them taken as one."""

from __future__ import annotations

from typing import Any

import pytest

import asyncdicom
from asyncdicom import sop
from asyncdicom.identifiers import encode_failed_list
from asyncdicom.incoming import Oversized
from asyncdicom.protocol.commands import CEchoRSP, CFindRSP, CGetRSP, CMoveRSP, Message, NCreateRSP
from asyncdicom.protocol.negotiation import AcceptedContext
from asyncdicom.responses import Progress, Response, add, merge

from .harness import identifier

CONTEXT = AcceptedContext(
    context_id=1,
    abstract_syntax=sop.STUDY_ROOT_GET,
    transfer_syntax=sop.EXPLICIT_VR_LITTLE_ENDIAN,
    requestor_is_scu=True,
    requestor_is_scp=False,
)


def response(message: Message, data: bytes | None = None) -> Response:
    return Response(message, CONTEXT, data)


def get_response(
    status: int,
    completed: int | None = None,
    failed: int | None = None,
    warning: int | None = None,
    remaining: int | None = None,
    uids: list[str] | None = None,
) -> Response:
    """A C-GET-RSP with counters and a list of failed instances."""
    message = CGetRSP(
        message_id_being_responded_to=1,
        status=status,
        number_of_remaining_suboperations=remaining,
        number_of_completed_suboperations=completed,
        number_of_failed_suboperations=failed,
        number_of_warning_suboperations=warning,
    )
    return response(message, None if uids is None else encode_failed_list(uids, CONTEXT.transfer_syntax))


# What one response says.


def test_what_a_command_set_does_not_have_is_none() -> None:
    bare = response(CEchoRSP(message_id_being_responded_to=7, status=0))
    assert (bare.message_id, bare.status) == (7, 0)
    assert (bare.error_comment, bare.error_id, bare.affected_sop_instance_uid) == (None, None, None)
    assert bare.offending_element == ()
    assert (bare.data_set, bare.data_set_bytes) == (None, None)
    assert bare.progress == Progress(None, None, None, None)
    assert bare.failed_sop_instance_uids == []
    assert repr(bare) == "<Response Status(0x0000) to message 7>"


def test_what_a_command_set_has_is_told() -> None:
    message = NCreateRSP(
        message_id_being_responded_to=7,
        status=0x0110,
        affected_sop_instance_uid="1.2.3",
        error_comment="no room",
        error_id=12,
    )
    said = response(message)
    assert said.message is message
    assert (said.error_comment, said.error_id, said.affected_sop_instance_uid) == ("no room", 12, "1.2.3")
    found = CFindRSP(message_id_being_responded_to=7, status=0xA900, offending_element=(0x00100020, 0x0020000D))
    assert response(found).offending_element == (0x00100020, 0x0020000D)


@pytest.mark.parametrize("kind", [CFindRSP, CGetRSP])
def test_a_data_set_is_decoded_once(kind: Any) -> None:
    said = response(kind(message_id_being_responded_to=1, status=0xFF00), identifier("42"))
    assert said.data_set_bytes == identifier("42")
    assert said.transfer_syntax_uid == sop.EXPLICIT_VR_LITTLE_ENDIAN
    assert said.data_set is not None
    assert said.data_set.PatientID == "42"
    assert said.data_set is said.data_set


#: Data set -> why it cannot be decoded.
UNREADABLE: list[tuple[bytes, str | None]] = [
    (b"\x10\x00\x20\x00LO\xff\xff", None),
    (Oversized(), "longer than Limits.identifier"),
]


@pytest.mark.parametrize(("data", "why"), UNREADABLE)
def test_a_data_set_that_cannot_be_decoded_is_an_error_when_it_is_looked_at(data: bytes, why: str | None) -> None:
    said = response(CGetRSP(message_id_being_responded_to=1, status=0xA702), data)
    assert said.status == 0xA702
    for _ in range(2):
        with pytest.raises(asyncdicom.DataSetError, match=why):
            said.data_set  # noqa: B018
        with pytest.raises(asyncdicom.DataSetError, match=why):
            said.failed_sop_instance_uids  # noqa: B018


@pytest.mark.parametrize("uids", [[], ["1.2.3"], ["1.2.3", "1.2.4", "1.2.5"]])
def test_failed_instances_are_a_list_however_many_there_are(uids: list[str]) -> None:
    assert get_response(0xB000, uids=uids).failed_sop_instance_uids == uids


def test_a_data_set_without_the_list_names_no_failed_instances() -> None:
    message = CGetRSP(message_id_being_responded_to=1, status=0xB000)
    assert response(message, identifier()).failed_sop_instance_uids == []


# Counters (PS3.7 9.1.3.1).

#: Remaining, completed, failed, warning -> total.
TOTALS: list[tuple[Progress, int | None]] = [
    (Progress(), None),
    (Progress(None, 3, 2, 1), None),
    (Progress(4, None, None, None), 4),
    (Progress(4, 3, 2, 1), 10),
    (Progress(4, 3), 7),
    (Progress(0, 0, 0, 0), 0),
]


@pytest.mark.parametrize(("progress", "total"), TOTALS)
def test_the_total_is_known_if_what_remains_is(progress: Progress, total: int | None) -> None:
    assert progress.total == total


SUMS: list[tuple[list[Progress], Progress]] = [
    ([], Progress()),
    ([Progress(1, 2, 3, 4)], Progress(1, 2, 3, 4)),
    ([Progress(1, 2, 3, 4), Progress(10, 20, 30, 40)], Progress(11, 22, 33, 44)),
    ([Progress(1, None, 3, None), Progress(None, None, 30, 40)], Progress(1, None, 33, 40)),
    ([Progress(0, 0, 0, 0), Progress()], Progress(0, 0, 0, 0)),
]


@pytest.mark.parametrize(("counters", "expected"), SUMS)
def test_counters_are_added_where_they_are_known(counters: list[Progress], expected: Progress) -> None:
    assert add(counters) == add(iter(counters)) == expected


# Several final responses as one.

#: Statuses -> the index of the worst: failure over cancel over warning over success, and the first of equals.
WORST: list[tuple[list[int], int]] = [
    ([0x0000], 0),
    ([0x0000, 0x0000], 0),
    ([0x0000, 0xB000], 1),
    ([0xB000, 0x0000], 0),
    ([0xB000, 0xFE00, 0x0000], 1),
    ([0xFE00, 0xA702, 0xB000], 1),
    ([0xA702, 0xA801, 0xC000], 0),
    ([0x0000, 0x0122], 1),
]


@pytest.mark.parametrize(("statuses", "worst"), WORST)
def test_the_worst_of_several_is_what_they_are_together(statuses: list[int], worst: int) -> None:
    several = [response(CFindRSP(message_id_being_responded_to=n, status=s)) for n, s in enumerate(statuses, 1)]
    assert merge(several) is several[worst]
    assert merge([get_response(status) for status in statuses]).status == statuses[worst]


def test_one_response_is_left_as_it_is() -> None:
    one = get_response(0xB000, 1, 1, 0, uids=["1.2.3"])
    assert merge([one]) is one


def test_counters_and_failed_instances_of_all_are_told_together() -> None:
    merged = merge(
        [
            get_response(0x0000, 10, 0, 0),
            get_response(0xB000, 5, 2, 1, uids=["1.2.3", "1.2.4"]),
            get_response(0xA702, 0, 2, 0, uids=["1.2.4", "1.2.5"]),
        ]
    )
    assert merged.status == 0xA702
    assert merged.progress == Progress(None, 15, 4, 1)
    assert merged.failed_sop_instance_uids == ["1.2.3", "1.2.4", "1.2.5"]


def test_a_list_that_cannot_be_read_hides_no_other() -> None:
    broken = response(CGetRSP(message_id_being_responded_to=1, status=0xB000), b"\x08\x00\x58\x00UI\xff\xff")
    merged = merge([broken, get_response(0xA702, 0, 1, 0, uids=["1.2.3"])])
    assert merged.failed_sop_instance_uids == ["1.2.3"]


def test_moves_are_taken_together_as_gets_are() -> None:
    one = CMoveRSP(message_id_being_responded_to=1, status=0x0000, number_of_completed_suboperations=2)
    other = CMoveRSP(message_id_being_responded_to=2, status=0x0000, number_of_completed_suboperations=3)
    merged = merge([response(one), response(other)])
    assert merged.progress.completed == 5
    assert merged.message_id == 1
    assert merged.data_set_bytes is None
