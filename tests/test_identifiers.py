"""Identifiers: what keywords, mappings and data sets become, what is refused, and the one list that responses carry."""

from __future__ import annotations

import datetime
import zlib
from collections.abc import Mapping
from typing import Any

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from asyncdicom import DataSetError, LocalProtocolError, sop
from asyncdicom.dataset import decode_data_set, encode_data_set
from asyncdicom.identifiers import encode_failed_list, is_data_set, make_identifier

FIND = sop.STUDY_ROOT_FIND


def made(query: Any = None, level: str | None = None, /, **keys: object) -> pydicom.Dataset:
    """Make an identifier of keyword arguments."""
    return make_identifier(query, keys, level, FIND)


# What a key becomes.

#: Keyword, value as it is given -> value as it is in the identifier.
VALUES: list[tuple[str, object, object]] = [
    ("PatientID", "1", "1"),
    ("PatientID", "", ""),
    ("PatientID", None, ""),
    ("PatientID", "*", "*"),
    ("PatientName", "DOE^J*", "DOE^J*"),
    ("StudyDate", "20240101-20241231", "20240101-20241231"),
    ("StudyInstanceUID", "1.2.3", "1.2.3"),
    ("StudyInstanceUID", ["1.2.3", "1.2.4"], ["1.2.3", "1.2.4"]),
    ("StudyInstanceUID", ("1.2.3", "1.2.4"), ["1.2.3", "1.2.4"]),
    ("StudyInstanceUID", (uid for uid in ("1.2.3", "1.2.4")), ["1.2.3", "1.2.4"]),
    ("StudyInstanceUID", [], ""),
    ("ModalitiesInStudy", "CT\\MR", ["CT", "MR"]),
    ("InstanceNumber", 7, "7"),
    ("InstanceNumber", "7", "7"),
    ("InstanceNumber", "", ""),
    ("Rows", 512, 512),
]


@pytest.mark.parametrize(("keyword", "given", "expected"), VALUES)
def test_a_keyword_is_an_attribute_of_its_vr(keyword: str, given: object, expected: object) -> None:
    identifier = made(**{keyword: given})
    element = identifier[keyword]
    assert dictionary_VR(keyword) == element.VR
    value = element.value
    if expected == "":
        assert not value
    elif isinstance(expected, list):
        assert [str(each) for each in value] == expected
    else:
        assert str(value) == str(expected)
    assert set(identifier.keys()) == {tag_for_keyword(keyword)}


#: A tag as text.
TAGS = ["00100020", "0010,0020", "(0010,0020)"]


@pytest.mark.parametrize("key", TAGS)
def test_a_tag_may_be_given_instead_of_a_keyword(key: str) -> None:
    assert made({key: "1"}).PatientID == "1"
    assert make_identifier(None, {key: "1"}, None, FIND).PatientID == "1"


def test_hexadecimal_digits_of_a_tag_may_be_of_either_case() -> None:
    assert 0x0020000D in made({"0020,000d": "1.2.3"})
    assert 0x0020000D in made({"0020,000D": "1.2.3"})


def test_a_tag_that_no_dictionary_knows_is_of_unknown_vr() -> None:
    assert made({"0009,1001": b"xy"})[0x00091001].VR == "UN"


def test_dates_and_times_may_be_given_as_those_of_python() -> None:
    identifier = made(StudyDate=datetime.date(2024, 1, 31), StudyTime=datetime.time(12, 30))
    encoded = encode_data_set(identifier, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    dataset = decode_data_set(encoded, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    assert (dataset.StudyDate, dataset.StudyTime) == ("20240131", "123000")


def test_a_sequence_is_given_as_data_sets() -> None:
    item = pydicom.Dataset()
    item.Modality = "CT"
    assert made(ScheduledProcedureStepSequence=[item]).ScheduledProcedureStepSequence[0].Modality == "CT"
    assert len(made(ScheduledProcedureStepSequence=None).ScheduledProcedureStepSequence) == 0
    assert len(made(ScheduledProcedureStepSequence=[]).ScheduledProcedureStepSequence) == 0


UNKNOWN = ["NoSuchKeyword", "patientid", "", "0010", "0010,002", "001000200", "0010 0020", "x" * 10_000]


@pytest.mark.parametrize("key", UNKNOWN)
def test_what_is_neither_keyword_nor_tag_is_refused(key: str) -> None:
    with pytest.raises(LocalProtocolError, match="is no attribute: expected a keyword or a tag") as caught:
        make_identifier(None, {key: "1"}, None, FIND)
    assert len(str(caught.value)) < 200


UNSUITABLE: list[tuple[str, object]] = [
    ("InstanceNumber", "seven"),
    ("ScheduledProcedureStepSequence", "text"),
    ("ScheduledProcedureStepSequence", [1]),
    ("ScheduledProcedureStepSequence", 1),
]


@pytest.mark.parametrize(("keyword", "value"), UNSUITABLE)
def test_a_value_that_does_not_suit_its_attribute_is_refused(keyword: str, value: object) -> None:
    with pytest.raises(DataSetError, match=f"the value given for {keyword} does not suit its VR"):
        made(**{keyword: value})


# Where keys come from.


def patient(**values: str) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


#: Query, level, keyword arguments -> the identifier.
SOURCES: list[tuple[Any, str | None, dict[str, object], dict[str, str]]] = [
    (None, "STUDY", {}, {"QueryRetrieveLevel": "STUDY"}),
    (None, "study", {"PatientID": "1"}, {"QueryRetrieveLevel": "STUDY", "PatientID": "1"}),
    ({"PatientID": "1"}, None, {}, {"PatientID": "1"}),
    ({"PatientID": "1"}, None, {"PatientID": "2"}, {"PatientID": "2"}),
    ({"PatientID": "1"}, None, {"AccessionNumber": "2"}, {"PatientID": "1", "AccessionNumber": "2"}),
    (patient(PatientID="1"), None, {}, {"PatientID": "1"}),
    (patient(PatientID="1"), None, {"PatientID": "2"}, {"PatientID": "2"}),
    (patient(QueryRetrieveLevel="SERIES"), None, {}, {"QueryRetrieveLevel": "SERIES"}),
    (patient(QueryRetrieveLevel="SERIES"), "STUDY", {}, {"QueryRetrieveLevel": "STUDY"}),
    (None, None, {"QueryRetrieveLevel": "IMAGE"}, {"QueryRetrieveLevel": "IMAGE"}),
]


@pytest.mark.parametrize(("query", "level", "keys", "expected"), SOURCES)
def test_keys_come_from_a_query_keyword_arguments_and_a_level(
    query: Any, level: str | None, keys: dict[str, object], expected: dict[str, str]
) -> None:
    before = None if query is None else dict(query.items())
    identifier = made(query, level, **keys)
    assert {element.keyword: element.value for element in identifier} == expected
    assert identifier is not query
    assert before is None or dict(query.items()) == before


@pytest.mark.parametrize("query", [None, {}, pydicom.Dataset()])
def test_an_identifier_has_at_least_one_key(query: Any) -> None:
    with pytest.raises(LocalProtocolError, match="the identifier is empty"):
        made(query)


@pytest.mark.parametrize("query", ["PatientID=1", ["PatientID"], 1, ("PatientID", "1")])
def test_what_is_no_query_is_refused(query: Any) -> None:
    with pytest.raises(LocalProtocolError, match="a query is a data set, a mapping or bytes, not"):
        made(query)


# Character sets: UTF-8 where ASCII does not do, unless one is named (PS3.3 C.12.1.1.2).

#: Keys -> Specific Character Set.
CHARACTER_SETS: list[tuple[Mapping[str, object], str | None]] = [
    ({"PatientName": "DOE"}, None),
    ({"PatientName": "MÜLLER"}, "ISO_IR 192"),
    ({"PatientName": "山田"}, "ISO_IR 192"),
    ({"PatientName": "MÜLLER", "SpecificCharacterSet": "ISO_IR 100"}, "ISO_IR 100"),
    ({"PatientName": "DOE", "SpecificCharacterSet": "ISO_IR 100"}, "ISO_IR 100"),
    ({"Rows": 512}, None),
]


@pytest.mark.parametrize(("keys", "expected"), CHARACTER_SETS)
def test_text_beyond_ascii_is_utf_8_unless_another_set_is_named(
    keys: Mapping[str, object], expected: str | None
) -> None:
    assert made(keys).get("SpecificCharacterSet") == expected


def test_text_beyond_ascii_in_an_item_is_utf_8_too() -> None:
    identifier = made(ScheduledProcedureStepSequence=[patient(ScheduledPerformingPhysicianName="MÜLLER")])
    assert identifier.get("SpecificCharacterSet") == "ISO_IR 192"
    encoded = encode_data_set(identifier, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    assert "MÜLLER".encode() in encoded


def test_an_item_with_a_character_set_of_its_own_needs_no_other() -> None:
    item = patient(SpecificCharacterSet="ISO_IR 100", ScheduledPerformingPhysicianName="MÜLLER")
    assert "SpecificCharacterSet" not in made(ScheduledProcedureStepSequence=[item])
    outer = patient()
    outer.ScheduledProtocolCodeSequence = [patient(CodeMeaning="Schädel")]
    assert made(ScheduledProcedureStepSequence=[item, outer]).SpecificCharacterSet == "ISO_IR 192"


# What a data set is.


@pytest.mark.parametrize("value", [None, {}, b"", "text", object(), pydicom.Dataset])
def test_what_is_no_data_set_is_none(value: object) -> None:
    assert not is_data_set(value)


@pytest.mark.parametrize("value", [pydicom.Dataset(), pydicom.FileDataset("absent", pydicom.Dataset())])
def test_a_data_set_is_one(value: object) -> None:
    assert is_data_set(value)


# The Failed SOP Instance UID List (0008,0058).

SYNTAXES = [
    sop.IMPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_BIG_ENDIAN,
    sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, 2000])
def test_a_list_of_failed_instances_is_read_again(syntax: str, count: int) -> None:
    uids = [f"1.2.826.0.1.3680043.8.498.{number:010}1" for number in range(count)]
    encoded = encode_failed_list(uids, syntax)
    dataset = decode_data_set(encoded, syntax)
    (element,) = list(dataset)
    assert element.tag == 0x00080058
    value = element.value
    found = [] if not value else [value] if isinstance(value, str) else list(value)
    assert found == uids


#: UIDs -> the bytes in Explicit VR Little Endian.
GOLDEN = [
    ([], b"\x08\x00\x58\x00UI\x00\x00"),
    (["1.2"], b"\x08\x00\x58\x00UI\x04\x001.2\x00"),
    (["1.22"], b"\x08\x00\x58\x00UI\x04\x001.22"),
    (["1.2", "1.3"], b"\x08\x00\x58\x00UI\x08\x001.2\\1.3\x00"),
]


@pytest.mark.parametrize(("uids", "encoded"), GOLDEN)
def test_the_bytes_of_a_list(uids: list[str], encoded: bytes) -> None:
    assert encode_failed_list(uids, sop.EXPLICIT_VR_LITTLE_ENDIAN) == encoded


def test_a_list_that_is_too_long_for_16_bits_is_sent_as_un() -> None:
    uids = ["1." + "2" * 62] * 1009  # 65 584 bytes
    encoded = encode_failed_list(uids, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    assert encoded[:8] == b"\x08\x00\x58\x00UN\x00\x00"
    assert int.from_bytes(encoded[8:12], "little") == len(encoded) - 12 == 1009 * 65 - 1


def test_a_deflated_list_is_deflated_as_a_whole() -> None:
    plain = encode_failed_list(["1.2"], sop.EXPLICIT_VR_LITTLE_ENDIAN)
    deflated = encode_failed_list(["1.2"], sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    assert inflater.decompress(deflated) == plain
    assert len(deflated) % 2 == 0
