from __future__ import annotations

import json
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.config import disable_value_validation

from asyncdicom.cli.keys import parse_key
from asyncdicom.cli.table import cell, heading, json_line


def match(**values: Any) -> Dataset:
    data_set = Dataset()
    with disable_value_validation():
        for keyword, value in values.items():
            setattr(data_set, keyword, value)
    return data_set


ITEM = match(Modality="CT")


@pytest.mark.parametrize(
    ("key", "values", "plain", "pretty"),
    [
        ("PatientName", {"PatientName": "Doe^Jane"}, "Doe^Jane", "Doe^Jane"),
        ("PatientName", {}, "", ""),
        ("PatientName", {"PatientName": ""}, "", ""),
        ("StudyDate", {"StudyDate": "20240229"}, "20240229", "2024-02-29"),
        ("StudyDate", {"StudyDate": "2024.02.29"}, "2024.02.29", "2024.02.29"),
        ("StudyTime", {"StudyTime": "072730.123"}, "072730.123", "07:27"),
        ("StudyTime", {"StudyTime": "07"}, "07", "07"),
        ("ModalitiesInStudy", {"ModalitiesInStudy": ["CT", "SR"]}, "CT\\SR", "CT\\SR"),
        ("SOPClassUID", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
        ("StudyInstanceUID", {"StudyInstanceUID": "1.2.3"}, "1.2.3", "1.2.3"),
        ("NumberOfStudyRelatedInstances", {"NumberOfStudyRelatedInstances": 12}, "12", "12"),
        ("RequestAttributesSequence", {"RequestAttributesSequence": [ITEM]}, "1 item", "1 item"),
        ("RequestAttributesSequence", {"RequestAttributesSequence": []}, "", ""),
        ("RequestAttributesSequence.Modality", {"RequestAttributesSequence": [ITEM]}, "CT", "CT"),
        ("RequestAttributesSequence[1].Modality", {"RequestAttributesSequence": [ITEM]}, "", ""),
        ("PatientName.Modality", {"PatientName": "X"}, "", ""),
        ("PatientID", {"PatientID": "\x1b[2J"}, "\\x1b[2J", "\\x1b[2J"),
    ],
)
def test_a_cell_is_a_value_as_text(key: str, values: dict[str, Any], plain: str, pretty: str) -> None:
    assert cell(match(**values), parse_key(key)) == plain
    assert cell(match(**values), parse_key(key), pretty=True) == pretty


@pytest.mark.parametrize(
    ("key", "plain", "pretty"),
    [
        ("PatientName", "PatientName", "Patient"),
        ("0010,0010", "0010,0010", "Patient"),
        ("InstitutionName", "InstitutionName", "InstitutionName"),
        ("0009,1001", "0009,1001", "0009,1001"),
    ],
)
def test_headings(key: str, plain: str, pretty: str) -> None:
    assert heading(parse_key(key)) == plain
    assert heading(parse_key(key), pretty=True) == pretty


def test_json_is_in_utf_8_whatever_the_response_was_in() -> None:
    data_set = match(SpecificCharacterSet="ISO_IR 100", PatientName="Müller")
    values = json.loads(json_line(data_set))
    assert values["00080005"]["Value"] == ["ISO_IR 192"]
    assert values["00100010"]["Value"] == [{"Alphabetic": "Müller"}]


def test_json_has_no_raw_control_characters_and_no_line_breaks() -> None:
    line = json_line(match(PatientID="a\nb\x1b\x9b\u2028"))
    assert line.isprintable()
    assert json.loads(line)["00100020"]["Value"] == ["a\nb\x1b\x9b\u2028"]


def test_numbers_that_json_lacks_are_strings() -> None:
    line = json_line(match(RealWorldValueSlope=float("nan"), RealWorldValueIntercept=float("-inf")))
    values = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert values["00409225"]["Value"] == ["NaN"]
    assert values["00409224"]["Value"] == ["-inf"]


def test_a_value_that_its_vr_does_not_allow_is_not_lost() -> None:
    data_set = match(PatientID="1")
    data_set.add_new("StudyDate", "LO", "someday")
    data_set["StudyDate"].VR = "DA"
    assert json.loads(json_line(data_set))["00080020"]["Value"] == ["someday"]
