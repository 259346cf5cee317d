"""Identifiers as tables: what is asked for, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from asyncdicom.archive.identifier import from_dataset
from asyncdicom.archive.matching import IdentifierError, Range
from asyncdicom.archive.model import KEYS, UNIQUE, Level, Model, key_for
from asyncdicom.archive.query import CombinedFilter, Semantics, check_hierarchy, parse_find, parse_retrieve


def identifier(**values: Any) -> Any:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return from_dataset(ds)


PATIENT, STUDY, ONLY = Model.PATIENT_ROOT, Model.STUDY_ROOT, Model.PATIENT_STUDY_ONLY
UIDS = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": "1.4"}

#: model, identifier, the element that is to blame, or None if it is fine
HIERARCHY: list[tuple[Model, dict[str, Any], int | None]] = [
    (PATIENT, {"QueryRetrieveLevel": "PATIENT"}, None),
    (PATIENT, {"QueryRetrieveLevel": "STUDY", "PatientID": "P"}, None),
    (PATIENT, {"QueryRetrieveLevel": "STUDY"}, 0x00100020),
    (PATIENT, {"QueryRetrieveLevel": "STUDY", "PatientID": ""}, 0x00100020),
    (PATIENT, {"QueryRetrieveLevel": "STUDY", "PatientID": "*"}, 0x00100020),
    (PATIENT, {"QueryRetrieveLevel": "STUDY", "PatientID": "P*"}, 0x00100020),
    (PATIENT, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2"}, 0x00100020),
    (STUDY, {"QueryRetrieveLevel": "STUDY"}, None),
    (STUDY, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2"}, None),
    (STUDY, {"QueryRetrieveLevel": "SERIES"}, 0x0020000D),
    (STUDY, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2\\1.3"}, 0x0020000D),
    (STUDY, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2.*"}, 0x0020000D),
    (STUDY, {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": "1.2"}, 0x0020000E),
    (STUDY, {"QueryRetrieveLevel": "IMAGE", **UIDS}, None),
    (STUDY, {"QueryRetrieveLevel": "PATIENT"}, 0x00080052),
    (ONLY, {"QueryRetrieveLevel": "SERIES", "PatientID": "P", **UIDS}, 0x00080052),
    (ONLY, {"QueryRetrieveLevel": "STUDY", "PatientID": "P"}, None),
    (STUDY, {}, 0x00080052),
    (STUDY, {"QueryRetrieveLevel": ""}, 0x00080052),
    (STUDY, {"QueryRetrieveLevel": "study"}, 0x00080052),
    (STUDY, {"QueryRetrieveLevel": "INSTANCE"}, 0x00080052),
    (STUDY, {"QueryRetrieveLevel": "FRAME"}, 0x00080052),
]


@pytest.mark.parametrize(("model", "values", "to_blame"), HIERARCHY)
def test_a_hierarchical_query_names_what_is_above_its_level(
    model: Model, values: dict[str, Any], to_blame: int | None
) -> None:
    if to_blame is None:
        check_hierarchy(identifier(**values), model)
        return
    with pytest.raises(IdentifierError) as refused:
        check_hierarchy(identifier(**values), model)
    assert refused.value.tag == to_blame


RETRIEVALS: list[tuple[Model, bool, dict[str, Any], int | None]] = [
    (STUDY, False, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}, None),
    (STUDY, False, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2\\1.3"}, None),
    (STUDY, False, {"QueryRetrieveLevel": "STUDY"}, 0x0020000D),
    (STUDY, False, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}, 0x0020000D),
    (STUDY, False, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "*"}, 0x0020000D),
    (STUDY, False, {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.3"}, 0x0020000D),
    (STUDY, True, {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.3"}, None),
    (STUDY, True, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.3"}, 0x0020000E),
    (STUDY, False, {"QueryRetrieveLevel": "IMAGE", **UIDS}, None),
    (STUDY, False, {"QueryRetrieveLevel": "IMAGE", **UIDS, "PatientName": "Doe*", "Rows": 512}, None),
    (STUDY, False, {"QueryRetrieveLevel": "IMAGE", **UIDS, "FillerOrderNumberImagingServiceRequest": ""}, None),
    (STUDY, False, {"QueryRetrieveLevel": "IMAGE", **UIDS, "FillerOrderNumberImagingServiceRequest": "1"}, 0x00402017),
    (STUDY, False, {"QueryRetrieveLevel": "IMAGE", **UIDS, "RetrieveAETitle": "X", "InstanceAvailability": "Y"}, None),
    (PATIENT, False, {"QueryRetrieveLevel": "PATIENT", "PatientID": "P"}, None),
    (PATIENT, False, {"QueryRetrieveLevel": "PATIENT", "PatientID": "P\\Q"}, 0x00100020),
    (PATIENT, False, {"QueryRetrieveLevel": "PATIENT", "PatientID": "P?"}, 0x00100020),
    (Model.COMPOSITE_INSTANCE_ROOT, False, {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "1.4"}, None),
    (
        Model.COMPOSITE_INSTANCE_ROOT,
        False,
        {"QueryRetrieveLevel": "FRAME", "SOPInstanceUID": "1.4", "SimpleFrameList": [1, 2]},
        None,
    ),
    (Model.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA, False, {"QueryRetrieveLevel": "IMAGE"}, 0x00080018),
    (Model.COMPOSITE_INSTANCE_ROOT, False, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}, 0x00080052),
]


@pytest.mark.parametrize(("model", "relational", "values", "to_blame"), RETRIEVALS)
def test_a_retrieval_has_unique_keys(
    model: Model, relational: bool, values: dict[str, Any], to_blame: int | None
) -> None:
    if to_blame is None:
        parse_retrieve(identifier(**values), model, relational=relational)
        return
    with pytest.raises(IdentifierError) as refused:
        parse_retrieve(identifier(**values), model, relational=relational)
    assert refused.value.tag == to_blame


def find(model: Model = STUDY, semantics: Semantics | None = None, **values: Any) -> Any:
    return parse_find(identifier(**values), model, semantics)


#: keys beside the level, whether all are supported
SUPPORT: list[tuple[Model, str, dict[str, Any], bool]] = [
    (STUDY, "STUDY", {"PatientName": "", "StudyDate": "", "ModalitiesInStudy": ""}, True),
    (STUDY, "SERIES", {"PatientName": "", "StudyDate": "", "Modality": ""}, True),
    (STUDY, "STUDY", {"Modality": ""}, False),
    (STUDY, "STUDY", {"Modality": "CT"}, False),
    (STUDY, "STUDY", {"FillerOrderNumberImagingServiceRequest": ""}, False),
    (STUDY, "STUDY", {"FillerOrderNumberImagingServiceRequest": "1"}, False),
    (STUDY, "STUDY", {"NumberOfSeriesRelatedInstances": ""}, False),
    (ONLY, "STUDY", {"Modality": ""}, False),
    (STUDY, "STUDY", {"RetrieveAETitle": "", "InstanceAvailability": ""}, True),
    (STUDY, "STUDY", {"SpecificCharacterSet": "ISO_IR 100"}, True),
]


@pytest.mark.parametrize(("model", "level", "values", "complete"), SUPPORT)
def test_unsupported_keys_are_told(model: Model, level: str, values: dict[str, Any], complete: bool) -> None:
    assert find(model, QueryRetrieveLevel=level, **values).is_complete is complete


def test_elements_that_are_no_keys_do_not_come_back() -> None:
    values = identifier(QueryRetrieveLevel="STUDY", SpecificCharacterSet="ISO_IR 100", PatientName="")
    values |= {0x00080000: values[0x00080052], 0x00020010: values[0x00080052]}
    assert [wanted.tag for wanted in parse_find(values, STUDY).returns] == [0x00080052, 0x00100010]


def test_a_number_that_cannot_be_counted_at_the_level_is_refused() -> None:
    with pytest.raises(IdentifierError, match="level"):
        find(QueryRetrieveLevel="STUDY", NumberOfSeriesRelatedInstances="10")


def test_ranges_of_dates_and_times_are_combined_if_negotiated_and_of_the_same_form() -> None:
    combined = Semantics(combined_date_time=True)
    values: dict[str, Any] = {"QueryRetrieveLevel": "STUDY", "StudyDate": "20240101-20240131", "StudyTime": "1000-1800"}
    (wanted,) = find(semantics=combined, **values).filters
    assert isinstance(wanted, CombinedFilter)
    assert (wanted.date.low, wanted.time.low) == (20240101, 10 * 3600 * 10**6)
    assert len(find(**values).filters) == 2
    for other in ("1000-", "-1800", "1000", ""):
        filters = find(semantics=combined, **{**values, "StudyTime": other}).filters
        assert not any(isinstance(wanted, CombinedFilter) for wanted in filters)


def test_the_time_zone_counts_only_if_negotiated() -> None:
    values: dict[str, Any] = {"QueryRetrieveLevel": "STUDY", "StudyDate": "20240101", "TimezoneOffsetFromUTC": "+0100"}
    plain = find(**values)
    assert plain.timezone is None
    assert len(plain.filters) == 2
    zoned = find(semantics=Semantics(timezone=True), **values)
    assert zoned.timezone == 60
    assert [(f.key.keyword, f.timezone) for f in zoned.filters] == [("StudyDate", 60)]
    with pytest.raises(IdentifierError):
        find(semantics=Semantics(timezone=True), **{**values, "TimezoneOffsetFromUTC": "+2500"})


def test_a_birth_date_has_no_time_zone() -> None:
    (wanted,) = find(
        semantics=Semantics(timezone=True),
        QueryRetrieveLevel="STUDY",
        PatientBirthDate="19700101",
        TimezoneOffsetFromUTC="+0100",
    ).filters
    assert wanted.timezone is None
    assert isinstance(wanted.predicate, Range)


def test_every_sop_class_has_its_model() -> None:
    assert Model.of("1.2.840.10008.5.1.4.1.2.1.1") is Model.PATIENT_ROOT
    assert Model.of("1.2.840.10008.5.1.4.1.2.2.3") is Model.STUDY_ROOT
    assert Model.of("1.2.840.10008.5.1.4.1.2.3.2") is Model.PATIENT_STUDY_ONLY
    assert Model.of("1.2.840.10008.5.1.4.1.2.4.3") is Model.COMPOSITE_INSTANCE_ROOT
    assert Model.of("1.2.840.10008.5.1.4.1.2.5.3") is Model.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA
    with pytest.raises(ValueError, match="not a valid"):
        Model.of("1.2.840.10008.1.1")


def test_the_keys_of_a_level_are_looked_up_from_that_level() -> None:
    zone = 0x00080201
    assert [key_for(zone, level, PATIENT).level for level in (Level.STUDY, Level.SERIES, Level.IMAGE)] == [  # type: ignore[union-attr]
        Level.STUDY,
        Level.SERIES,
        Level.IMAGE,
    ]
    assert key_for(0x00080060, Level.STUDY, ONLY) is None
    assert key_for(0x00091001, Level.IMAGE, PATIENT) is None


def test_the_unique_keys_are_those_of_the_standard() -> None:
    assert [UNIQUE[level].keyword for level in Level] == [
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    ]
    assert all(tag == key.tag for keys in KEYS.values() for tag, key in keys.items())
