"""What a retrieval asks for: levels, models, and how long lists are divided."""

from __future__ import annotations

from typing import Any

import pydicom
import pytest

from asyncdicom import DataSetError, LocalProtocolError, sop
from asyncdicom.retrieval.query import LEVELS, Query, find_models, parts_of, retrieve_models

UID = "1.2.3"


@pytest.mark.parametrize(
    ("query", "keys", "level", "expected"),
    [
        (None, {"PatientID": "1"}, None, "PATIENT"),
        (None, {"StudyInstanceUID": UID}, None, "STUDY"),
        (None, {"StudyInstanceUID": UID, "SeriesInstanceUID": ""}, None, "STUDY"),
        (None, {"StudyInstanceUID": UID, "SeriesInstanceUID": UID}, None, "SERIES"),
        (None, {"StudyInstanceUID": UID, "SOPInstanceUID": [UID, "1.2.4"]}, None, "IMAGE"),
        (None, {"SOPInstanceUID": UID}, "FRAME", "FRAME"),
        (None, {"StudyInstanceUID": UID}, "series", "SERIES"),
        ({"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": UID}, {}, None, "IMAGE"),
        ({"0020000D": UID}, {}, None, "STUDY"),
        ({"QueryRetrieveLevel": "STUDY"}, {"PatientID": "1"}, "PATIENT", "PATIENT"),
        ({}, {"level_of_none": ""}, "STUDY", LocalProtocolError),
        (None, {}, "STUDY", LocalProtocolError),
        (None, {"PatientName": "Doe"}, None, LocalProtocolError),
        (None, {"StudyInstanceUID": UID}, "ROOM", LocalProtocolError),
        (b"\0", {}, None, LocalProtocolError),
        (None, {"ReferencedStudySequence": "none"}, "STUDY", DataSetError),
    ],
)
def test_the_level_is_that_of_the_lowest_unique_key_unless_it_is_given(
    query: Any, keys: dict[str, object], level: str | None, expected: str | type[Exception]
) -> None:
    if isinstance(expected, str):
        assert Query(query, keys, level).level == expected
    else:
        with pytest.raises(expected):
            Query(query, keys, level)


def test_a_data_set_is_not_changed() -> None:
    given = pydicom.Dataset()
    given.StudyInstanceUID = UID
    made = Query(given, {}, None)
    assert "QueryRetrieveLevel" not in given
    assert made.split()[0].identifier.QueryRetrieveLevel == "STUDY"


@pytest.mark.parametrize(
    ("count", "length", "expected"),
    [(1, 10, [1]), (900, 10, [900]), (1008, 64, [1008]), (1009, 64, [1008, 1]), (3000, 64, [1008, 1008, 984])],
)
@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
def test_lists_of_uids_are_divided_where_a_value_ends(count: int, length: int, expected: list[int], level: str) -> None:
    uids = [f"1.2.{number:0{length - 4}}" for number in range(count)]
    keyword = LEVELS[level]
    parts = Query({"PatientID": "1", keyword: uids}, {}, level).split()
    assert [len(part.identifier[keyword].value) if count > 1 else 1 for part in parts][:-1] == expected[:-1]
    found = [uid for part in parts for uid in Query(part.identifier, {}, None).values(keyword)]
    assert found == uids
    assert all(len("\\".join(Query(part.identifier, {}, None).values(keyword))) <= 65534 for part in parts)
    assert all(part.identifier.PatientID == "1" and part.identifier.QueryRetrieveLevel == level for part in parts)
    assert [uid for part in parts for uid in part.uids] == (uids if level == "IMAGE" else [])


def test_a_uid_is_asked_for_once() -> None:
    assert Query({"SOPInstanceUID": [UID, "1.2.4", UID]}, {}, None).split()[0].uids == (UID, "1.2.4")


def test_instances_are_asked_for_series_by_series() -> None:
    one, other = (
        {"StudyInstanceUID": "1", "SeriesInstanceUID": "1.1"},
        {"StudyInstanceUID": "1", "SeriesInstanceUID": "1.2"},
    )
    parts = parts_of(["1.1.1", "1.2.1", "1.1.2"], {"1.1.1": one, "1.1.2": one, "1.2.1": other})
    assert [(str(part.identifier.SeriesInstanceUID), part.uids) for part in parts] == [
        ("1.1", ("1.1.1", "1.1.2")),
        ("1.2", ("1.2.1",)),
    ]
    assert {part.identifier.QueryRetrieveLevel for part in parts} == {"IMAGE"}


@pytest.mark.parametrize(
    ("model", "level", "expected"),
    [
        (None, "PATIENT", ["Patient Root", "Patient/Study Only"]),
        (None, "STUDY", ["Study Root", "Patient Root", "Patient/Study Only"]),
        (None, "IMAGE", ["Study Root", "Patient Root"]),
        (None, "FRAME", ["Composite Instance Root"]),
        (sop.PATIENT_ROOT_MOVE, "STUDY", ["Patient Root"]),
        (str(sop.PATIENT_STUDY_ONLY_GET), "STUDY", ["Patient/Study Only"]),
        (sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET, "STUDY", ["Composite Instance Retrieve Without Bulk Data"]),
        (sop.COMPOSITE_INSTANCE_ROOT_GET, "FRAME", ["Composite Instance Root"]),
        (sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET, "FRAME", None),
        (sop.STUDY_ROOT_GET, "PATIENT", None),
        (sop.CT_IMAGE_STORAGE, "STUDY", None),
    ],
)
def test_models_are_those_that_know_the_level(model: str | None, level: str, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(LocalProtocolError):
            retrieve_models(model, level)
    else:
        assert [one.name for one in retrieve_models(model, level)] == expected


def test_every_retrieve_class_belongs_to_a_model() -> None:
    for uid in (*sop.GET, *sop.MOVE, *sop.FIND):
        levels = [level for level in LEVELS if any(uid in model for model in _models(level))]
        assert levels, uid


def _models(level: str) -> tuple[Any, ...]:
    found: list[Any] = []
    for uid in (*sop.GET, *sop.MOVE, *sop.FIND):
        try:
            found += retrieve_models(uid, level)
        except LocalProtocolError:
            continue
    return (*found, *find_models(level))
