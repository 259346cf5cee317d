from __future__ import annotations

import argparse
from typing import Any

import pytest
from pydicom import Dataset

from asyncdicom import sop
from asyncdicom.cli.keys import find_query, parse_key, retrieve_query
from asyncdicom.cli.outcome import CommandError, Exit


def options(*keys: str, level: str | None = None, model: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(keys=list(keys), level=level, model=model)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("PatientName", ((0x00100010, 0),), None),
        ("PatientName=", ((0x00100010, 0),), None),
        ("PatientName=DOE^J*", ((0x00100010, 0),), "DOE^J*"),
        ("0010,0010=A=B", ((0x00100010, 0),), "A=B"),
        ("(0010,0010)", ((0x00100010, 0),), None),
        ("00100010", ((0x00100010, 0),), None),
        ("0020,000d=1.2.3", ((0x0020000D, 0),), "1.2.3"),
        ("ScheduledProcedureStepSequence[0].Modality=CT", ((0x00400100, 0), (0x00080060, 0)), "CT"),
        ("ScheduledProcedureStepSequence.Modality=CT", ((0x00400100, 0), (0x00080060, 0)), "CT"),
        ("(0040,0100)[1].(0008,0060)", ((0x00400100, 1), (0x00080060, 0)), None),
        ("0040,0100.0008,0060=CT", ((0x00400100, 0), (0x00080060, 0)), "CT"),
        ("00400100[0].00400008[0].CodeValue", ((0x00400100, 0), (0x00400008, 0), (0x00080100, 0)), None),
        ("ScheduledProcedureStepSequence[0]", ((0x00400100, 0),), None),
    ],
)
def test_a_key_is_a_path_and_a_value(text: str, path: tuple[tuple[int, int], ...], value: str | None) -> None:
    key = parse_key(text)
    assert (key.path, key.value) == (path, value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PatientID", False),
        ("PatientID=1", True),
        ("PatientID=1*", False),
        ("StudyDate=20240101", True),
        ("StudyDate=20240101-", False),
        ("StudyInstanceUID=1.2\\1.3", False),
        ("PatientName=Doe^J", False),
        ("0009,1001=x", False),
    ],
)
def test_only_an_exact_key_gives_all_matches_one_value(text: str, expected: bool) -> None:
    assert parse_key(text).is_exact is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PatientNam=X", "PatientNam is no attribute; did you mean PatientName?"),
        ("patientname", "patientname is no attribute; did you mean PatientName?"),
        ("Xyzzy", "Xyzzy is no attribute"),
        ("ScheduledProcedureStepSequence[0].Modalty", "did you mean Modality?"),
        ("", "is no key"),
        ("=DOE", "is no key"),
        ("PatientName.", "is no key"),
        ("PatientName]", "']' is not understood"),
        ("PatientName[0]=X", "an item has no value of its own"),
        ("PatientName[x]", "'[x]' is not understood"),
        ("0002,0010", "does not belong in a data set"),
        ("0010,0000", "does not belong in a data set"),
        ("PatientName=\udcff", "the value is not text in the terminal's encoding"),
    ],
)
def test_a_key_that_is_none_is_wrong_usage(text: str, expected: str) -> None:
    with pytest.raises(CommandError) as raised:
        parse_key(text)
    assert raised.value.status is Exit.USAGE
    assert expected in str(raised.value)


def identifier(*keys: str, **more: Any) -> Dataset:
    return find_query(options(*keys, "PatientID", **more)).identifier


@pytest.mark.parametrize(
    ("key", "keyword", "value"),
    [
        ("PatientName=Doe^J*", "PatientName", "Doe^J*"),
        ("StudyDate=20240101-20241231", "StudyDate", "20240101-20241231"),
        ("StudyDate=20240101-", "StudyDate", "20240101-"),
        ("StudyDate=-20240101", "StudyDate", "-20240101"),
        ('StudyDate=""', "StudyDate", '""'),
        ("StudyDate=2024*", "StudyDate", "2024*"),
        ("StudyTime=10-1130", "StudyTime", "10-1130"),
        ("ModalitiesInStudy=CT\\MR", "ModalitiesInStudy", ["CT", "MR"]),
        ("StudyInstanceUID=1.2\\1.3", "StudyInstanceUID", ["1.2", "1.3"]),
        ("Rows=512", "Rows", 512),
        ("Rows", "Rows", None),
        ("SliceThickness=1.5", "SliceThickness", 1.5),
        ("SeriesNumber=3", "SeriesNumber", 3),
        ("ScheduledProcedureStepSequence", "ScheduledProcedureStepSequence", []),
        ("AcquisitionDateTime=20240101-20240102", "AcquisitionDateTime", "20240101-20240102"),
        ("DimensionIndexPointer=0010,0010", "DimensionIndexPointer", 0x00100010),
    ],
)
def test_a_value_is_what_its_vr_says(key: str, keyword: str, value: object) -> None:
    assert identifier(key)[keyword].value == value


def test_private_and_unknown_attributes_are_sent_as_they_are() -> None:
    assert identifier("0009,1001=x")[0x00091001].value == b"x"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("StudyDate=2024-01-01", "StudyDate=2024-01-01: expected YYYYMMDD, or a range of them with a hyphen"),
        ("StudyDate=today", "expected YYYYMMDD"),
        ("StudyTime=25:61h", "expected HHMMSS"),
        ("SeriesNumber=three", "does not suit the VR, IS"),
        ("Rows=many", "does not suit the VR, US"),
        ("PixelData=1", "its VR is OB"),
        ("ScheduledProcedureStepSequence=CT", "is a sequence"),
        ("Modality[0].PatientID=1", "Modality[0] is not a sequence"),
        ("ScheduledProcedureStepSequence[2].Modality", "item 2 comes before there is an item 1"),
    ],
)
def test_a_value_that_does_not_suit_is_wrong_usage(key: str, expected: str) -> None:
    with pytest.raises(CommandError) as raised:
        identifier(key)
    assert raised.value.status is Exit.USAGE
    assert expected in str(raised.value)


def test_keys_inside_of_sequences_share_their_items() -> None:
    found = identifier(
        "ScheduledProcedureStepSequence[0].Modality=CT",
        "ScheduledProcedureStepSequence[0].ScheduledStationAETitle",
        "ScheduledProcedureStepSequence[1].Modality=MR",
    )
    items = found.ScheduledProcedureStepSequence
    assert [item.Modality for item in items] == ["CT", "MR"]
    assert items[0].ScheduledStationAETitle == ""


def test_a_uid_that_is_given_twice_becomes_a_list() -> None:
    assert identifier("StudyInstanceUID=1.2", "StudyInstanceUID=1.3").StudyInstanceUID == ["1.2", "1.3"]
    with pytest.raises(CommandError, match="PatientName is given twice"):
        identifier("PatientName=A", "PatientName=B")


def test_a_character_set_is_named_when_one_is_needed() -> None:
    assert "SpecificCharacterSet" not in identifier("PatientName=Muller")
    assert identifier("PatientName=Müller").SpecificCharacterSet == "ISO_IR 192"
    assert identifier("RequestAttributesSequence[0].StudyID=Ü").SpecificCharacterSet == "ISO_IR 192"
    assert identifier("PatientName=Müller", "SpecificCharacterSet=ISO_IR 100").SpecificCharacterSet == "ISO_IR 100"


@pytest.mark.parametrize(
    ("keys", "level", "model", "expected"),
    [
        ([], None, None, ("STUDY_ROOT", "STUDY")),
        ([], "series", None, ("STUDY_ROOT", "SERIES")),
        ([], "Image", None, ("STUDY_ROOT", "IMAGE")),
        ([], "instance", None, ("STUDY_ROOT", "IMAGE")),
        ([], "patient", None, ("PATIENT_ROOT", "PATIENT")),
        ([], None, "patient", ("PATIENT_ROOT", "PATIENT")),
        ([], "study", "patient", ("PATIENT_ROOT", "STUDY")),
        ([], None, "patient-study", ("PATIENT_STUDY_ONLY", "STUDY")),
        (["QueryRetrieveLevel=SERIES"], None, None, ("STUDY_ROOT", "SERIES")),
    ],
)
def test_the_level_of_a_query(keys: list[str], level: str | None, model: str | None, expected: tuple[str, str]) -> None:
    query = find_query(options(*keys, level=level, model=model))
    assert (query.model, query.level) == expected
    assert query.identifier.QueryRetrieveLevel == expected[1]


@pytest.mark.parametrize(
    ("keys", "level", "model", "expected"),
    [
        ([], "patient", "study", "the study model has no level patient: expected study, series, image"),
        ([], "series", "patient-study", "the patient-study model has no level series"),
        ([], "serie", None, "'serie' is no level: expected study, series, image; did you mean series?"),
        (["QueryRetrieveLevel=SERIES"], "study", None, "more than one level is given: SERIES, STUDY"),
    ],
)
def test_a_level_that_the_model_lacks_is_wrong_usage(
    keys: list[str], level: str | None, model: str | None, expected: str
) -> None:
    with pytest.raises(CommandError) as raised:
        find_query(options(*keys, level=level, model=model))
    assert raised.value.status is Exit.USAGE
    assert expected in str(raised.value)


def columns(query: Any) -> list[str]:
    return [key.text for key in query.columns]


def test_what_suits_the_level_is_asked_for_unless_something_is_named() -> None:
    query = find_query(options("StudyDate=20240101-", "InstitutionName=X"))
    assert columns(query)[:4] == ["InstitutionName", "PatientName", "PatientID", "StudyDate"]
    assert columns(query)[-1] == "StudyInstanceUID"
    assert query.identifier.StudyDate == "20240101-"
    assert query.identifier.PatientName == ""
    query = find_query(options("StudyDate=20240101-", "PatientName"))
    assert columns(query) == ["StudyDate", "PatientName", "StudyInstanceUID"]
    assert "PatientID" not in query.identifier


@pytest.mark.parametrize("level", ["patient", "study", "series", "image"])
def test_the_unique_key_of_the_level_is_always_asked_for(level: str) -> None:
    query = find_query(options(level=level))
    unique = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
    assert unique.get(level, "SOPInstanceUID") in query.identifier


def test_below_the_patient_root_no_key_of_the_patient_is_added() -> None:
    assert "PatientName" not in find_query(options(level="study", model="patient")).identifier


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["PatientID=1"], ("PATIENT_ROOT", "PATIENT")),
        (["StudyInstanceUID=1.2"], ("STUDY_ROOT", "STUDY")),
        (["SeriesInstanceUID=1.2.3", "StudyInstanceUID=1.2"], ("STUDY_ROOT", "SERIES")),
        (["PatientID=1", "SOPInstanceUID=1.2.3.4"], ("STUDY_ROOT", "IMAGE")),
    ],
)
def test_a_retrieval_is_at_the_level_of_its_lowest_unique_key(keys: list[str], expected: tuple[str, str]) -> None:
    query = retrieve_query(options(*keys))
    assert (query.model, query.level) == expected
    assert query.sop_class("GET") == getattr(sop, f"{expected[0]}_GET")


@pytest.mark.parametrize("keys", [[], ["StudyDate=20240101"], ["StudyInstanceUID"], ["StudyInstanceUID="]])
def test_a_retrieval_of_nothing_in_particular_is_wrong_usage(keys: list[str]) -> None:
    with pytest.raises(CommandError, match="nothing says what to retrieve") as raised:
        retrieve_query(options(*keys))
    assert raised.value.status is Exit.USAGE
