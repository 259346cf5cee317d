"""Command sets: golden bytes of every message, round trips, leniency, and InvalidCommandSet for all the rest."""

from __future__ import annotations

import re
import string
from dataclasses import MISSING, fields, replace
from typing import Any

import pydicom
import pynetdicom.dimse_messages
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from asyncdicom.exceptions import LocalProtocolError
from asyncdicom.protocol.commands import (
    ELEMENTS,
    MESSAGES,
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    CStoreRQ,
    CStoreRSP,
    InvalidCommandSet,
    Message,
    NActionRQ,
    NActionRSP,
    NCreateRQ,
    NCreateRSP,
    NDeleteRQ,
    NDeleteRSP,
    NEventReportRQ,
    NEventReportRSP,
    NGetRQ,
    NGetRSP,
    NSetRQ,
    NSetRSP,
    Priority,
    UnknownCommandField,
    decode,
    encode,
)

#: (message, whether a data set follows, one line of octets for each element: tag, length, value).
GOLDEN: list[tuple[Message, bool, str]] = [
    (
        CStoreRQ(
            message_id=7,
            affected_sop_class_uid="1.2.3",
            affected_sop_instance_uid="1.2.34",
            priority=Priority.HIGH,
            move_originator_ae_title="WS1",
            move_originator_message_id=9,
        ),
        True,
        """
        00 00 00 00 04 00 00 00 5a 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 01 00
        00 00 10 01 02 00 00 00 07 00
        00 00 00 07 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 00
        00 00 00 10 06 00 00 00 31 2e 32 2e 33 34
        00 00 30 10 04 00 00 00 57 53 31 20
        00 00 31 10 02 00 00 00 09 00
        """,
    ),
    (
        CStoreRSP(
            message_id_being_responded_to=7,
            status=0,
            affected_sop_class_uid="1.2.3",
            affected_sop_instance_uid="1.2.34",
        ),
        False,
        """
        00 00 00 00 04 00 00 00 44 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 01 80
        00 00 20 01 02 00 00 00 07 00
        00 00 00 08 02 00 00 00 01 01
        00 00 00 09 02 00 00 00 00 00
        00 00 00 10 06 00 00 00 31 2e 32 2e 33 34
        """,
    ),
    (
        CGetRQ(message_id=0x0102, affected_sop_class_uid="1.2.3"),
        True,
        """
        00 00 00 00 04 00 00 00 36 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 10 00
        00 00 10 01 02 00 00 00 02 01
        00 00 00 07 02 00 00 00 00 00
        00 00 00 08 02 00 00 00 01 00
        """,
    ),
    (
        CGetRSP(
            message_id_being_responded_to=0x0102,
            status=0xFF00,
            affected_sop_class_uid="1.2.3",
            number_of_remaining_suboperations=4,
            number_of_completed_suboperations=3,
            number_of_failed_suboperations=2,
            number_of_warning_suboperations=1,
        ),
        False,
        """
        00 00 00 00 04 00 00 00 5e 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 10 80
        00 00 20 01 02 00 00 00 02 01
        00 00 00 08 02 00 00 00 01 01
        00 00 00 09 02 00 00 00 00 ff
        00 00 20 10 02 00 00 00 04 00
        00 00 21 10 02 00 00 00 03 00
        00 00 22 10 02 00 00 00 02 00
        00 00 23 10 02 00 00 00 01 00
        """,
    ),
    (
        CFindRQ(message_id=8, affected_sop_class_uid="1.2.3", priority=Priority.LOW),
        True,
        """
        00 00 00 00 04 00 00 00 36 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 20 00
        00 00 10 01 02 00 00 00 08 00
        00 00 00 07 02 00 00 00 02 00
        00 00 00 08 02 00 00 00 01 00
        """,
    ),
    (
        CFindRSP(
            message_id_being_responded_to=8,
            status=0xA900,
            affected_sop_class_uid="1.2.3",
            offending_element=(0x00080052, 0x0020000D),
            error_comment="no level",
        ),
        False,
        """
        00 00 00 00 04 00 00 00 56 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 20 80
        00 00 20 01 02 00 00 00 08 00
        00 00 00 08 02 00 00 00 01 01
        00 00 00 09 02 00 00 00 00 a9
        00 00 01 09 08 00 00 00 08 00 52 00 20 00 0d 00
        00 00 02 09 08 00 00 00 6e 6f 20 6c 65 76 65 6c
        """,
    ),
    (
        CMoveRQ(message_id=8, affected_sop_class_uid="1.2.3", move_destination="WS1"),
        True,
        """
        00 00 00 00 04 00 00 00 42 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 21 00
        00 00 10 01 02 00 00 00 08 00
        00 00 00 06 04 00 00 00 57 53 31 20
        00 00 00 07 02 00 00 00 00 00
        00 00 00 08 02 00 00 00 01 00
        """,
    ),
    (
        CMoveRSP(
            message_id_being_responded_to=8,
            status=0xB000,
            affected_sop_class_uid="1.2.3",
            number_of_completed_suboperations=1,
            number_of_failed_suboperations=0x0203,
            number_of_warning_suboperations=0,
        ),
        True,
        """
        00 00 00 00 04 00 00 00 54 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 21 80
        00 00 20 01 02 00 00 00 08 00
        00 00 00 08 02 00 00 00 01 00
        00 00 00 09 02 00 00 00 00 b0
        00 00 21 10 02 00 00 00 01 00
        00 00 22 10 02 00 00 00 03 02
        00 00 23 10 02 00 00 00 00 00
        """,
    ),
    (
        CEchoRQ(message_id=65535, affected_sop_class_uid="1.2.3"),
        False,
        """
        00 00 00 00 04 00 00 00 2c 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 30 00
        00 00 10 01 02 00 00 00 ff ff
        00 00 00 08 02 00 00 00 01 01
        """,
    ),
    (
        CEchoRSP(message_id_being_responded_to=65535, status=0, affected_sop_class_uid="1.2.3"),
        False,
        """
        00 00 00 00 04 00 00 00 36 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 30 80
        00 00 20 01 02 00 00 00 ff ff
        00 00 00 08 02 00 00 00 01 01
        00 00 00 09 02 00 00 00 00 00
        """,
    ),
    (
        CCancelRQ(message_id_being_responded_to=5),
        False,
        """
        00 00 00 00 04 00 00 00 1e 00 00 00
        00 00 00 01 02 00 00 00 ff 0f
        00 00 20 01 02 00 00 00 05 00
        00 00 00 08 02 00 00 00 01 01
        """,
    ),
    (
        NEventReportRQ(
            message_id=1, affected_sop_class_uid="1.2.3", affected_sop_instance_uid="1.2.34", event_type_id=2
        ),
        True,
        """
        00 00 00 00 04 00 00 00 44 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 00 01
        00 00 10 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 00
        00 00 00 10 06 00 00 00 31 2e 32 2e 33 34
        00 00 02 10 02 00 00 00 02 00
        """,
    ),
    (
        NEventReportRSP(
            message_id_being_responded_to=1,
            status=0x0113,
            affected_sop_class_uid="1.2.3",
            affected_sop_instance_uid="1.2.34",
            event_type_id=2,
        ),
        False,
        """
        00 00 00 00 04 00 00 00 4e 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 00 81
        00 00 20 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 01
        00 00 00 09 02 00 00 00 13 01
        00 00 00 10 06 00 00 00 31 2e 32 2e 33 34
        00 00 02 10 02 00 00 00 02 00
        """,
    ),
    (
        NGetRQ(
            message_id=1,
            requested_sop_class_uid="1.2.3",
            requested_sop_instance_uid="1.2.34",
            attribute_identifier_list=(0x00100010, 0x21100010),
        ),
        False,
        """
        00 00 00 00 04 00 00 00 4a 00 00 00
        00 00 03 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 10 01
        00 00 10 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 01
        00 00 01 10 06 00 00 00 31 2e 32 2e 33 34
        00 00 05 10 08 00 00 00 10 00 10 00 10 21 10 00
        """,
    ),
    (
        NGetRSP(
            message_id_being_responded_to=1,
            status=0x0107,
            affected_sop_class_uid="1.2.3",
            affected_sop_instance_uid="1.2.34",
            attribute_identifier_list=(0x21100010,),
        ),
        True,
        """
        00 00 00 00 04 00 00 00 50 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 10 81
        00 00 20 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 00
        00 00 00 09 02 00 00 00 07 01
        00 00 00 10 06 00 00 00 31 2e 32 2e 33 34
        00 00 05 10 04 00 00 00 10 21 10 00
        """,
    ),
    (
        NSetRQ(message_id=1, requested_sop_class_uid="1.2.3", requested_sop_instance_uid="1.2.34"),
        True,
        """
        00 00 00 00 04 00 00 00 3a 00 00 00
        00 00 03 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 20 01
        00 00 10 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 00
        00 00 01 10 06 00 00 00 31 2e 32 2e 33 34
        """,
    ),
    (
        NSetRSP(
            message_id_being_responded_to=1,
            status=0x0110,
            affected_sop_class_uid="1.2.3",
            affected_sop_instance_uid="1.2.34",
            error_comment="busy",
            error_id=0xA710,
        ),
        False,
        """
        00 00 00 00 04 00 00 00 5a 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 20 81
        00 00 20 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 01
        00 00 00 09 02 00 00 00 10 01
        00 00 02 09 04 00 00 00 62 75 73 79
        00 00 03 09 02 00 00 00 10 a7
        00 00 00 10 06 00 00 00 31 2e 32 2e 33 34
        """,
    ),
    (
        NActionRQ(message_id=1, requested_sop_class_uid="1.2.3", requested_sop_instance_uid="1.2.34", action_type_id=1),
        True,
        """
        00 00 00 00 04 00 00 00 44 00 00 00
        00 00 03 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 30 01
        00 00 10 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 00
        00 00 01 10 06 00 00 00 31 2e 32 2e 33 34
        00 00 08 10 02 00 00 00 01 00
        """,
    ),
    (
        NActionRSP(
            message_id_being_responded_to=1,
            status=0,
            affected_sop_class_uid="1.2.3",
            affected_sop_instance_uid="1.2.34",
            action_type_id=1,
        ),
        False,
        """
        00 00 00 00 04 00 00 00 4e 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 30 81
        00 00 20 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 01
        00 00 00 09 02 00 00 00 00 00
        00 00 00 10 06 00 00 00 31 2e 32 2e 33 34
        00 00 08 10 02 00 00 00 01 00
        """,
    ),
    (
        NCreateRQ(message_id=1, affected_sop_class_uid="1.2.3"),
        True,
        """
        00 00 00 00 04 00 00 00 2c 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 40 01
        00 00 10 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 00
        """,
    ),
    (
        NCreateRSP(
            message_id_being_responded_to=1,
            status=0,
            affected_sop_class_uid="1.2.3",
            affected_sop_instance_uid="1.2.34",
        ),
        True,
        """
        00 00 00 00 04 00 00 00 44 00 00 00
        00 00 02 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 40 81
        00 00 20 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 00
        00 00 00 09 02 00 00 00 00 00
        00 00 00 10 06 00 00 00 31 2e 32 2e 33 34
        """,
    ),
    (
        NDeleteRQ(message_id=1, requested_sop_class_uid="1.2.3", requested_sop_instance_uid="1.2.34"),
        False,
        """
        00 00 00 00 04 00 00 00 3a 00 00 00
        00 00 03 00 06 00 00 00 31 2e 32 2e 33 00
        00 00 00 01 02 00 00 00 50 01
        00 00 10 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 01
        00 00 01 10 06 00 00 00 31 2e 32 2e 33 34
        """,
    ),
    (
        NDeleteRSP(message_id_being_responded_to=1, status=0x0112),
        False,
        """
        00 00 00 00 04 00 00 00 28 00 00 00
        00 00 00 01 02 00 00 00 50 81
        00 00 20 01 02 00 00 00 01 00
        00 00 00 08 02 00 00 00 01 01
        00 00 00 09 02 00 00 00 12 01
        """,
    ),
]


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


def element(number: int, value: bytes, length: int | None = None, group: int = 0) -> bytes:
    """Lay out one element in Implicit VR Little Endian, its length field right unless one is given."""
    size = len(value) if length is None else length
    return b"".join(
        (group.to_bytes(2, "little"), number.to_bytes(2, "little"), size.to_bytes(4, "little"), value),
    )


def us(number: int, value: int) -> bytes:
    return element(number, value.to_bytes(2, "little"))


#: A C-ECHO-RQ in pieces.
CLASS, FIELD, ID, NO_DATA = (
    element(0x0002, b"1.2.840.10008.1.1\0"),
    us(0x0100, 0x0030),
    us(0x0110, 7),
    us(0x0800, 0x0101),
)
ECHO = CEchoRQ(message_id=7, affected_sop_class_uid="1.2.840.10008.1.1")


def wire_fields(message: Message | type[Message]) -> list[str]:
    return [field.name for field in fields(message) if field.name != "unknown"]


# The tables.


def test_there_are_23_messages_each_under_its_command_field() -> None:
    assert len(MESSAGES) == 23
    assert {type(message) for message, _, _ in GOLDEN} == set(MESSAGES.values())
    for command_field, message in MESSAGES.items():
        assert message.command_field == command_field
        assert message.is_response == (command_field & 0x8000 != 0) == message.__name__.endswith("RSP")


@pytest.mark.parametrize("row", ELEMENTS, ids=lambda row: row.field)
def test_an_element_has_the_keyword_and_representation_of_the_standard(row: Any) -> None:
    keyword = keyword_for_tag(row.number).replace("ApplicationEntityTitle", "AETitle")
    assert row.field.replace("_", "") == keyword.lower()
    assert row.vr == dictionary_VR(row.number)


def test_the_elements_are_ascending() -> None:
    numbers = [row.number for row in ELEMENTS]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: message.__name__)
def test_a_message_has_all_the_elements_that_pynetdicom_gives_it(message: type[Message]) -> None:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=^[CN])", "_", message.__name__).upper()
    theirs = {data_element.tag.element for data_element in getattr(pynetdicom.dimse_messages, name)().command_set}
    structural = {"command_group_length", "command_field", "command_data_set_type"}
    ours = {row.number for row in ELEMENTS if row.field in wire_fields(message) or row.field in structural}
    assert theirs <= ours


# Golden bytes.


@pytest.mark.parametrize(("message", "has_data_set", "expected"), GOLDEN)
def test_a_message_encodes_to_these_octets(message: Message, has_data_set: bool, expected: str) -> None:
    assert encode(message, has_data_set=has_data_set).hex(" ") == octets(expected).hex(" ")


@pytest.mark.parametrize(("message", "has_data_set", "expected"), GOLDEN)
def test_these_octets_decode_to_the_message(message: Message, has_data_set: bool, expected: str) -> None:
    assert decode(octets(expected)) == (message, has_data_set)
    assert decode(memoryview(octets(expected))) == (message, has_data_set)


@pytest.mark.parametrize(("message", "has_data_set", "expected"), GOLDEN)
def test_pydicom_encodes_a_message_to_the_same_octets(message: Message, has_data_set: bool, expected: str) -> None:
    data_set = pydicom.Dataset()
    for row in ELEMENTS:
        value = getattr(message, row.field, None)
        if value is not None:
            data_set.add_new(row.number, row.vr, list(value) if isinstance(value, tuple) else value)
    data_set.CommandField = message.command_field
    data_set.CommandDataSetType = 0x0001 if has_data_set else 0x0101
    stream = DicomBytesIO()
    stream.is_little_endian = stream.is_implicit_VR = True
    write_dataset(stream, data_set)
    body = stream.getvalue()
    assert element(0x0000, len(body).to_bytes(4, "little")) + body == octets(expected)


# Round trips.

uids = st.text("0123456789.", max_size=64) | st.text(st.characters(max_codepoint=255), max_size=70).map(
    lambda text: text.rstrip("\0 ")
)
ae_titles = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=16).map(str.strip)
comments = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=64).map(
    str.strip
)
tag_lists = st.lists(st.integers(0, 0xFFFFFFFF), max_size=5).map(tuple)
by_vr = {"US": st.integers(0, 0xFFFF), "UI": uids, "AE": ae_titles, "LO": comments, "AT": tag_lists}
unknown_numbers = st.integers(1, 0xFFFF).filter(lambda number: number not in {row.number for row in ELEMENTS})
unknown_elements = st.dictionaries(
    unknown_numbers, st.binary(max_size=20).filter(lambda value: value[:4] != b"\xfe\xff\x00\xe0"), max_size=3
).map(lambda found: tuple(sorted(found.items())))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Make any message, with any of its optional elements and a few unknown ones."""
    message = draw(st.sampled_from(sorted(MESSAGES.values(), key=lambda cls: cls.command_field)))
    vr = {row.field: row.vr for row in ELEMENTS}
    values: dict[str, Any] = {"unknown": draw(unknown_elements)}
    for field in fields(message):
        if field.name != "unknown":
            strategy: st.SearchStrategy[Any] = by_vr[vr[field.name]]
            values[field.name] = draw(strategy if field.default is not None else st.none() | strategy)
    return message(**values)


@given(messages(), st.booleans())
def test_what_was_encoded_decodes_to_the_same_message(message: Message, has_data_set: bool) -> None:
    assert decode(encode(message, has_data_set=has_data_set)) == (message, has_data_set)


@given(messages(), st.booleans())
def test_the_group_length_is_right_the_tags_ascend_and_lengths_are_even(message: Message, has_data_set: bool) -> None:
    data = encode(replace(message, unknown=()), has_data_set=has_data_set)
    assert data[:12] == element(0x0000, (len(data) - 12).to_bytes(4, "little"))
    numbers = []
    position = 0
    while position < len(data):
        assert data[position : position + 2] == b"\0\0"
        numbers.append(int.from_bytes(data[position + 2 : position + 4], "little"))
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        assert length % 2 == 0
        position += 8 + length
    assert position == len(data)
    assert numbers == sorted(set(numbers))


def test_unknown_elements_are_sent_in_their_places() -> None:
    message = replace(ECHO, unknown=((0x5010, b"ab"), (0x0001, b"\1\2\3\4"), (0x0105, b"")))
    body = element(0x0001, b"\1\2\3\4") + CLASS + FIELD + element(0x0105, b"") + ID + NO_DATA + element(0x5010, b"ab")
    data = encode(message, has_data_set=False)
    assert data[12:] == body
    assert decode(data)[0] == replace(message, unknown=((0x0001, b"\1\2\3\4"), (0x0105, b""), (0x5010, b"ab")))


# What we send.


@pytest.mark.parametrize(
    ("comment", "sent"),
    [
        ("disk full", b"disk full "),
        ("x" * 65, b"x" * 64),
        ("x" * 10_000, b"x" * 64),
        ("a\nb\tc\x1bd\x7f", b"a?b?c?d?"),
        ("M\u00fcller \u2192 \U0001f480", b"M?ller ? ? "),
        ("C:\\x", b"C:?x"),
        ("", b""),
    ],
)
def test_an_error_comment_is_cut_to_64_printable_characters(comment: str, sent: bytes) -> None:
    message = CEchoRSP(message_id_being_responded_to=1, status=0x0110, error_comment=comment)
    data = encode(message, has_data_set=False)
    assert data.endswith(element(0x0902, sent.rstrip(b" ") + b" " * (len(sent.rstrip(b" ")) % 2)))
    decode(data)


@pytest.mark.parametrize(
    ("uid", "sent"),
    [
        ("1.2", b"1.2\0"),
        ("1.23", b"1.23"),
        ("", b""),
        ("1." + "0" * 69, b"1." + b"0" * 69 + b"\0"),
        ("\xe4/../", b"\xe4/../\0"),
    ],
)
def test_a_uid_is_sent_as_it_is_and_padded_by_nul(uid: str, sent: bytes) -> None:
    message = CEchoRSP(message_id_being_responded_to=1, status=0, affected_sop_class_uid=uid)
    assert element(0x0002, sent) in encode(message, has_data_set=False)


@pytest.mark.parametrize(
    ("message", "tag"),
    [
        (CEchoRQ(message_id=65536, affected_sop_class_uid="1.2"), "(0000,0110)"),
        (CEchoRQ(message_id=-1, affected_sop_class_uid="1.2"), "(0000,0110)"),
        (CEchoRQ(message_id="1", affected_sop_class_uid="1.2"), "(0000,0110)"),  # type: ignore[arg-type]
        (CEchoRQ(message_id=1, affected_sop_class_uid="\u2192"), "(0000,0002)"),
        (CEchoRQ(message_id=1, affected_sop_class_uid=12), "(0000,0002)"),  # type: ignore[arg-type]
        (
            NGetRQ(
                message_id=1,
                requested_sop_class_uid="",
                requested_sop_instance_uid="",
                attribute_identifier_list=(1 << 32,),
            ),
            "(0000,1005)",
        ),
        (CEchoRQ(message_id=1, affected_sop_class_uid="1.2", unknown=((1 << 16, b""),)), "(0000,10000)"),
    ],
)
def test_a_value_that_does_not_fit_is_a_local_error_that_names_it(message: Message, tag: str) -> None:
    with pytest.raises(LocalProtocolError, match=re.escape(tag)):
        encode(message, has_data_set=False)


def test_an_element_that_must_be_sent_and_is_none_is_left_out() -> None:
    message = CStoreRQ(message_id=7, affected_sop_class_uid="1.2", affected_sop_instance_uid="1.3")
    data = encode(message, has_data_set=True)
    assert b"\x00\x00\x30\x10" not in data
    assert b"\x00\x00\x31\x10" not in data


# What we tolerate.


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(CLASS + FIELD + ID + NO_DATA, id="no group length"),
        pytest.param(element(0, b"\xff\xff\xff\xff") + CLASS + FIELD + ID + NO_DATA, id="a wrong group length"),
        pytest.param(element(0, b"") + CLASS + FIELD + ID + NO_DATA, id="an empty group length"),
        pytest.param(element(0, b"\x01\x02") + CLASS + FIELD + ID + NO_DATA, id="a group length of two octets"),
        pytest.param(NO_DATA + ID + FIELD + CLASS, id="descending tags"),
        pytest.param(element(2, b"1.2.840.10008.1.1") + FIELD + ID + NO_DATA, id="an odd UID"),
        pytest.param(element(2, b"1.2.840.10008.1.1 ") + FIELD + ID + NO_DATA, id="a UID padded by a space"),
        pytest.param(element(2, b"1.2.840.10008.1.1\0\0 \0") + FIELD + ID + NO_DATA, id="a UID padded lavishly"),
        pytest.param(CLASS + CLASS + FIELD + ID + ID + NO_DATA, id="repeated elements"),
    ],
)
def test_a_sloppy_command_set_decodes_all_the_same(data: bytes) -> None:
    assert decode(data) == (ECHO, False)


@pytest.mark.parametrize("data_set_type", [0x0000, 0x0001, 0x0100, 0x0102, 0xFEFE, 0xFFFF])
def test_anything_but_0101_says_that_a_data_set_follows(data_set_type: int) -> None:
    assert decode(CLASS + FIELD + ID + us(0x0800, data_set_type)) == (ECHO, True)


@pytest.mark.parametrize(
    ("value", "title"),
    [
        (b"WS1 ", "WS1"),
        (b" WS1", "WS1"),
        (b"WS1" + b" " * 13, "WS1"),
        (b"WS1\0\0\0", "WS1"),
        (b"", ""),
        (b"../\x1b", "../\x1b"),
    ],
)
def test_an_ae_title_loses_its_padding_only(value: bytes, title: str) -> None:
    message, _ = decode(CLASS + us(0x0100, 0x0021) + ID + element(0x0600, value) + us(0x0700, 0) + us(0x0800, 1))
    assert isinstance(message, CMoveRQ)
    assert message.move_destination == title


@pytest.mark.parametrize(
    "uid", ["../../x", "/etc/passwd", "..", "1\0002", "1." * 40, "01.002.3", "a\r\nb", "\xff\xfe", " 1.2", ""]
)
def test_a_hostile_uid_is_kept_for_the_layer_above_to_judge_and_echoed_octet_by_octet(uid: str) -> None:
    data = (
        element(2, b"1.2\0")
        + us(0x0100, 1)
        + ID
        + us(0x0700, 0)
        + us(0x0800, 1)
        + element(0x1000, uid.encode("latin-1"))
    )
    message, _ = decode(data)
    assert isinstance(message, CStoreRQ)
    assert message.affected_sop_instance_uid == uid
    response = CStoreRSP(message_id_being_responded_to=7, status=0x0117, affected_sop_instance_uid=uid)
    padded = uid.encode("latin-1") + b"\0" * (len(uid) % 2)
    assert encode(response, has_data_set=False).endswith(element(0x1000, padded))


def test_elements_of_other_messages_and_unknown_ones_are_kept_as_they_came() -> None:
    foreign = us(0x0700, 2) + NO_DATA + element(0x1000, b"1.2.3") + element(0x5010, b"\xff")
    message, has_data_set = decode(CLASS + FIELD + ID + foreign)
    assert message == replace(ECHO, unknown=((0x0700, b"\2\0"), (0x1000, b"1.2.3"), (0x5010, b"\xff")))
    assert not has_data_set
    assert decode(encode(message, has_data_set=False)) == (message, False)


def test_a_priority_that_is_reserved_is_kept() -> None:
    message, _ = decode(CLASS + us(0x0100, 0x0020) + ID + us(0x0700, 77) + us(0x0800, 0))
    assert message == CFindRQ(message_id=7, affected_sop_class_uid="1.2.840.10008.1.1", priority=77)


def test_a_known_priority_equals_its_name() -> None:
    message, _ = decode(CLASS + us(0x0100, 0x0020) + ID + us(0x0700, 1) + us(0x0800, 0))
    assert isinstance(message, CFindRQ)
    assert message.priority == Priority.HIGH


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: message.__name__)
def test_a_message_with_no_more_than_its_number_and_status_decodes(message: type[Message]) -> None:
    data = us(0x0100, message.command_field) + NO_DATA
    if "message_id" in wire_fields(message):
        data += us(0x0110, 3)
    if "message_id_being_responded_to" in wire_fields(message):
        data += us(0x0120, 3)
    if message.is_response:
        data += us(0x0900, 0)
    decoded, _ = decode(data)
    assert type(decoded) is message
    for field in fields(message):
        value = getattr(decoded, field.name)
        if field.default is not MISSING:
            assert value == field.default
        else:
            assert value in {"", 0, 3}
    decode(encode(decoded, has_data_set=False))


def test_an_empty_number_is_as_good_as_none() -> None:
    data = us(0x0100, 0x8021) + us(0x0120, 3) + NO_DATA + us(0x0900, 0xB000) + element(0x1020, b"") + us(0x1021, 4)
    message, _ = decode(data)
    assert message == CMoveRSP(message_id_being_responded_to=3, status=0xB000, number_of_completed_suboperations=4)


# What we refuse.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "command_field", id="nothing at all"),
        pytest.param(b"\0", "left", id="one octet"),
        pytest.param(element(0, b"\0\0\0\0"), "command_field", id="a group length and nothing else"),
        pytest.param(CLASS + ID + NO_DATA, "command_field", id="no Command Field"),
        pytest.param(CLASS + element(0x0100, b"") + ID + NO_DATA, "command_field", id="an empty Command Field"),
        pytest.param(CLASS + FIELD + NO_DATA, "message_id", id="no Message ID"),
        pytest.param(CLASS + FIELD + element(0x0110, b"") + NO_DATA, "message_id", id="an empty Message ID"),
        pytest.param(us(0x0100, 0x0FFF) + ID + NO_DATA, "message_id_being_responded_to", id="a cancel of nothing"),
        pytest.param(us(0x0100, 0x8030) + us(0x0900, 0) + NO_DATA, "message_id_being", id="a response to nothing"),
        pytest.param(us(0x0100, 0x8030) + us(0x0120, 7) + NO_DATA, "status", id="a response without Status"),
        pytest.param(CLASS + FIELD + ID, "command_data_set_type", id="no Command Data Set Type"),
        pytest.param(CLASS + FIELD + ID + NO_DATA + b"\0\0\2", "left", id="half an element at the end"),
        pytest.param(CLASS + FIELD + ID + NO_DATA[:-1], "past the end", id="an element cut short"),
        pytest.param(CLASS + FIELD + ID + NO_DATA[:-2], "past the end", id="an element without its value"),
        pytest.param(FIELD + ID + NO_DATA + element(2, b"1.2", 4), "past the end", id="a UID that runs past the end"),
        pytest.param(FIELD + ID + NO_DATA + element(2, b"1.2\0", 1 << 31), "past the end", id="a UID of 2 GiB"),
        pytest.param(element(2, b"1.2\0", 0xFFFFFFFF) + FIELD + ID + NO_DATA, "past the end", id="an undefined length"),
        pytest.param(element(0, b"", 0xFFFFFFFF) + FIELD + ID + NO_DATA, "past the end", id="a group length of 4 GiB"),
        pytest.param(CLASS + element(0x0100, b"\x30") + ID + NO_DATA, "1 bytes", id="a Command Field of one octet"),
        pytest.param(CLASS + FIELD + element(0x0110, b"\1\0\0\0") + NO_DATA, "4 bytes", id="a Message ID of four"),
        pytest.param(
            us(0x0100, 0x8030) + us(0x0120, 7) + NO_DATA + us(0x0900, 0) + element(0x0901, b"\0\0\0"),
            "3 bytes",
            id="three quarters of a tag",
        ),
        pytest.param(
            CLASS + FIELD + ID + NO_DATA + element(0x0018, b"1.2\0", group=8), "0008,0018", id="another group"
        ),
        pytest.param(
            CLASS + FIELD + ID + NO_DATA + element(0x1140, b"", 0xFFFFFFFF, group=8) + octets("feff00e0 00000000"),
            "0008,1140",
            id="a sequence of another group",
        ),
        pytest.param(
            CLASS + FIELD + ID + NO_DATA + element(0x5555, element(0xE000, CLASS, group=0xFFFE)),
            "sequence",
            id="a sequence of defined length",
        ),
        pytest.param(
            CLASS + FIELD + ID + NO_DATA + element(0x5555, b"", 0xFFFFFFFF) + octets("feff00e0 ffffffff") * 5000,
            "sequence",
            id="5000 nested sequences",
        ),
        pytest.param(b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 8000, "E000", id="8000 items"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "4547", id="something else"),
    ],
)
def test_a_broken_command_set_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidCommandSet, match=reason) as caught:
        decode(data)
    assert not isinstance(caught.value, UnknownCommandField)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("command_field", [0x0000, 0x0002, 0x0FFE, 0x7FFF, 0x8FFF, 0xFFFF])
@pytest.mark.parametrize("has_data_set", [False, True])
def test_an_unknown_command_field_can_be_answered(command_field: int, has_data_set: bool) -> None:
    with pytest.raises(UnknownCommandField, match=f"0x{command_field:04X}") as caught:
        decode(CLASS + us(0x0100, command_field) + ID + us(0x0800, 1 if has_data_set else 0x0101))
    assert (caught.value.command_field, caught.value.message_id) == (command_field, 7)
    assert caught.value.has_data_set == has_data_set


def test_an_unknown_command_field_may_come_without_a_message_id() -> None:
    with pytest.raises(UnknownCommandField) as caught:
        decode(us(0x0100, 0x4321) + NO_DATA)
    assert caught.value.message_id is None


def decodes_or_is_refused(data: bytes) -> None:
    """Decode; whatever decodes must survive another round, and nothing but InvalidCommandSet may be raised."""
    try:
        message, has_data_set = decode(data)
    except InvalidCommandSet:
        return
    again = encode(message, has_data_set=has_data_set)
    assert encode(decode(again)[0], has_data_set=has_data_set) == again


@given(st.binary(max_size=200))
@example(b"\0\0\0\1\0\0\0\0")
def test_random_octets_are_refused_or_decode(data: bytes) -> None:
    decodes_or_is_refused(data)


any_number = st.sampled_from([row.number for row in ELEMENTS]) | st.integers(0, 0xFFFF)
any_element = st.builds(
    element,
    any_number,
    st.binary(max_size=12) | st.sampled_from([number.to_bytes(2, "little") for number in MESSAGES]),
    st.none() | st.none() | st.none() | st.integers(0, 40) | st.integers(0, 0xFFFFFFFF),
    st.sampled_from([0, 0, 0, 0, 0, 0, 8, 0xFFFE]),
)


@given(st.lists(any_element | st.sampled_from([CLASS, FIELD, ID, NO_DATA]), max_size=12).map(b"".join))
def test_random_elements_are_refused_or_decode(data: bytes) -> None:
    decodes_or_is_refused(data)


@given(messages(), st.data())
def test_a_mutilated_command_set_is_refused_or_decodes(message: Message, data: st.DataObject) -> None:
    whole = encode(message, has_data_set=True)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 8)))
    decodes_or_is_refused(whole[:start] + data.draw(st.binary(max_size=8)) + whole[stop:])


@pytest.mark.parametrize(("message", "has_data_set", "expected"), GOLDEN)
def test_a_command_set_may_be_cut_anywhere(message: Message, has_data_set: bool, expected: str) -> None:
    data = octets(expected)
    for size in range(len(data)):
        decodes_or_is_refused(data[:size])


def test_the_characters_of_an_error_comment_are_not_judged_on_receipt() -> None:
    comment = bytes(range(1, 256)).replace(b" ", b"")
    data = us(0x0100, 0x8030) + us(0x0120, 7) + NO_DATA + us(0x0900, 0x0110) + element(0x0902, comment)
    message, _ = decode(data)
    assert isinstance(message, CEchoRSP)
    assert message.error_comment == comment.decode("latin-1")
    sent = encode(message, has_data_set=False)
    assert set(sent[-64:].decode()) <= set(string.printable)
