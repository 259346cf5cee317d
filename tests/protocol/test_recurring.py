"""Command sets that recur: encoded and decoded as if they were the first of their kind, in fewer steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncdicom.exceptions import LocalProtocolError
from asyncdicom.protocol import commands, recurring
from asyncdicom.protocol.commands import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRSP,
    CGetRSP,
    CMoveRQ,
    CStoreRQ,
    CStoreRSP,
    InvalidCommandSet,
    Message,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
    UnknownCommandField,
)

from .test_commands import element, us

ECHO = CEchoRQ(message_id=7, affected_sop_class_uid="1.2.840.10008.1.1")
STORE = CStoreRQ(message_id=7, affected_sop_class_uid="1.2.3", affected_sop_instance_uid="1.2.34")
STORED = CStoreRSP(
    message_id_being_responded_to=7, affected_sop_class_uid="1.2.3", affected_sop_instance_uid="1.2.34", status=0
)

#: Messages whose command sets are remembered.
RECURRING: list[Message] = [
    ECHO,
    CEchoRSP(message_id_being_responded_to=7, status=0),
    STORE,
    replace(STORE, move_originator_ae_title="WS1", move_originator_message_id=9),
    STORED,
    replace(STORED, affected_sop_class_uid=None),
    CFindRSP(message_id_being_responded_to=7, affected_sop_class_uid="1.2.3", status=0xFF00),
    CMoveRQ(message_id=7, affected_sop_class_uid="1.2.3", move_destination="WS1"),
    CCancelRQ(message_id_being_responded_to=7),
    NEventReportRQ(message_id=7, affected_sop_class_uid="1.2.3", affected_sop_instance_uid="1.2.34", event_type_id=1),
]

#: Messages of which nothing may be remembered: what they tell is of one patient, or differs each time.
SINGULAR: list[Message] = [
    replace(STORED, status=0x0110, error_comment="no room for DOE^JANE"),
    replace(STORED, status=0x0110, offending_element=(0x00100010,)),
    CGetRSP(message_id_being_responded_to=7, status=0xFF00, number_of_remaining_suboperations=0),
    NGetRQ(message_id=7, requested_sop_class_uid="1.2.3", requested_sop_instance_uid="1.2.34"),
    NSetRQ(message_id=7, requested_sop_class_uid="1.2.3", requested_sop_instance_uid="1.2.34"),
    replace(ECHO, unknown=((0x5555, b"ab"),)),
    replace(ECHO, affected_sop_class_uid="1." * 200),
]


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> None:
    recurring._encoded.clear()
    recurring._decoded.clear()


def number_of(message: Message) -> str:
    return "message_id" if hasattr(message, "message_id") else "message_id_being_responded_to"


def like(message: Message, number: int, uid: str) -> Message:
    """Make a message of the same kind."""
    values: dict[str, Any] = {number_of(message): number}
    if getattr(message, "affected_sop_instance_uid", None) is not None:
        values["affected_sop_instance_uid"] = uid
    return replace(message, **values)


@pytest.mark.parametrize("message", [*RECURRING, *SINGULAR], ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("uid", ["1.2.345", "1.2.3456", "", "1." * 120 + "1"])
@pytest.mark.parametrize("has_data_set", [False, True])
def test_what_recurs_is_coded_as_the_first_was(message: Message, uid: str, has_data_set: bool) -> None:
    for one in (message, like(message, 0x1234, uid), like(message, 65_535, "1.2"), message):
        whole = recurring.encode(one, has_data_set=has_data_set)
        assert whole == commands.encode(one, has_data_set=has_data_set)
        assert recurring.decode(whole) == commands.decode(whole)
        assert recurring.decode(memoryview(whole[12:])) == (one, has_data_set)


@pytest.mark.parametrize("message", RECURRING, ids=lambda message: type(message).__name__)
def test_a_kind_of_message_is_remembered_once(message: Message) -> None:
    for number in range(1, 9):
        recurring.decode(recurring.encode(like(message, number, "1.2" * number), has_data_set=False))
    assert (len(recurring._encoded), len(recurring._decoded)) == (1, 1)


@pytest.mark.parametrize("message", RECURRING, ids=lambda message: type(message).__name__)
def test_no_instance_is_remembered(message: Message) -> None:
    recurring.decode(recurring.encode(like(message, 7, "1.2.98765.4"), has_data_set=False))
    assert "98765" not in f"{recurring._encoded} {recurring._decoded}"


@pytest.mark.parametrize("message", SINGULAR, ids=lambda message: type(message).__name__)
def test_what_is_singular_is_not_remembered(message: Message) -> None:
    recurring.decode(recurring.encode(message, has_data_set=False))
    assert not recurring._encoded
    assert not recurring._decoded


def test_no_more_than_a_few_command_sets_are_remembered() -> None:
    for status in range(2000):
        message = CEchoRSP(message_id_being_responded_to=7, status=status)
        recurring.decode(recurring.encode(message, has_data_set=False))
    assert 0 < len(recurring._encoded) <= 256
    assert 0 < len(recurring._decoded) <= 256


@pytest.mark.parametrize(
    ("message", "values", "tag"),
    [
        (ECHO, {"message_id": 65_536}, "0110"),
        (ECHO, {"message_id": -1}, "0110"),
        (ECHO, {"message_id": "7"}, "0110"),
        (STORE, {"affected_sop_instance_uid": "€"}, "1000"),
        (STORE, {"affected_sop_instance_uid": 7}, "1000"),
    ],
)
def test_a_value_that_does_not_fit_is_named_also_if_the_rest_is_remembered(
    message: Message, values: dict[str, Any], tag: str
) -> None:
    recurring.encode(message, has_data_set=False)
    with pytest.raises(LocalProtocolError, match=tag):
        recurring.encode(replace(message, **values), has_data_set=False)


def test_values_that_cannot_be_looked_up_are_encoded() -> None:
    tags: Any = [0x00100010]
    message = replace(STORED, status=0x0110, offending_element=tags)
    assert recurring.encode(message, has_data_set=False) == commands.encode(message, has_data_set=False)


#: What the IDs and the SOP Instance UID begin with: in a value, they may be taken for these.
REQUEST_ID, RESPONSE_ID, UID = us(0x0110, 0)[:8], us(0x0120, 0)[:8], element(0x1000, b"")[:4]

#: Elements of requests and responses, and such as may mislead whoever looks for others.
PIECES = [
    element(0x0000, b"\0\0\0\0"),
    element(0x0002, b"1.2.3\0"),
    element(0x0002, UID + b"\2\0\0\0"),
    *(us(0x0100, command_field) for command_field in (0x0001, 0x0030, 0x8001, 0x8030, 0x0FFF, 0x4321)),
    us(0x0110, 7),
    us(0x0120, 7),
    us(0x0700, 0x1000),
    us(0x0800, 0x0101),
    us(0x0800, 1),
    us(0x0900, 0),
    us(0x0900, 0x1000),
    element(0x0902, REQUEST_ID + b"ab"),
    element(0x0902, RESPONSE_ID + b"ab"),
    element(0x1000, b"1.2\0"),
    element(0x1000, b"1.2\0", 40),
    element(0x1000, REQUEST_ID + b"ab"),
    element(0x1030, UID + b"\0\0\0\0"),
    us(0x1031, 0x1000),
    element(0x5555, b"ab"),
]


def outcome(data: bytes, codec: Any) -> object:
    try:
        return codec.decode(data)
    except UnknownCommandField as exc:
        return exc.command_field, exc.message_id, exc.has_data_set
    except InvalidCommandSet as exc:
        return str(exc)


def each_with_another(data: bytes, head: bytes, value: bytes) -> list[bytes]:
    """Return the data with each of its elements that a head begins, or what looks like one, given another value."""
    found = []
    place = data.find(head)
    while place >= 0:
        start = place + 8
        end = start + (2 if len(head) == 8 else int.from_bytes(data[place + 4 : start], "little"))
        found.append(data[:place] + head[:4] + len(value).to_bytes(4, "little") + value + data[end:])
        place = data.find(head, place + 1)
    return found


@given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=9).map(b"".join),
    st.integers(0, 0xFFFF),
    st.binary(max_size=9),
)
@example(us(0x0100, 0x8030) + us(0x0110, 5) + us(0x0120, 6) + us(0x0800, 0x0101) + us(0x0900, 0), 7, b"")
@example(b"".join(PIECES[index] for index in (1, 3, 9, 11, 13, 18)), 7, b"1.2.3\0")
def test_a_command_set_that_recurs_decodes_as_if_it_came_first(data: bytes, number: int, uid: bytes) -> None:
    identifier = number.to_bytes(2, "little")
    variants = [data, data]
    for one in (data, *each_with_another(data, UID, uid)):
        variants.append(one)
        for head in (REQUEST_ID, RESPONSE_ID):
            variants.extend(each_with_another(one, head, identifier))
    for variant in (*variants, *variants):
        assert outcome(variant, recurring) == outcome(variant, commands)


@pytest.mark.parametrize("message", [STORE, STORED])
@pytest.mark.parametrize("cut", range(1, 20))
def test_a_command_set_that_recurs_and_was_cut_short_is_refused(message: Message, cut: int) -> None:
    whole = recurring.encode(message, has_data_set=False)
    recurring.decode(whole)
    assert outcome(whole[:-cut], recurring) == outcome(whole[:-cut], commands)
