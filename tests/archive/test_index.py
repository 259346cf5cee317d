"""The index against the naive matcher over real files, and what a database has to get right."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateTable

from asyncdicom.archive import schema, search
from asyncdicom.archive.entities import InstanceRow, NewInstance, read_attributes
from asyncdicom.archive.identifier import encode_identifier, from_dataset
from asyncdicom.archive.index import Index
from asyncdicom.archive.matching import IdentifierError
from asyncdicom.archive.model import KEYS, Level, Model
from asyncdicom.archive.query import Semantics, parse_find, parse_retrieve
from asyncdicom.archive.schema import metadata

from . import naive
from .corpus import family, instance, real_files

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


def new(ds: Dataset, path: str | None = None) -> NewInstance:
    return NewInstance(
        attributes=from_dataset(ds),
        transfer_syntax_uid=EXPLICIT,
        path=path or f"path/{ds.SOPInstanceUID}",
        size=1000,
    )


def query(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        ds.add(DataElement(keyword, dictionary_VR(keyword), value))
    return ds


def find(
    index: Index,
    keys: Dataset,
    *,
    model: Model = Model.PATIENT_ROOT,
    semantics: Semantics | None = None,
    transfer_syntax: str = EXPLICIT,
) -> list[Dataset]:
    wanted = parse_find(from_dataset(keys), model, semantics)
    pages = index.find(wanted, retrieve_ae_title="ARCHIVE", transfer_syntax=transfer_syntax)
    return [read_dataset(BytesIO(match), transfer_syntax == IMPLICIT, True) for page in pages for match in page]


def uids(index: Index, level: str = "STUDY", **values: Any) -> list[str]:
    """Return the unique keys of what a query finds."""
    keyword = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}
    unique = keyword.get(level, "SOPInstanceUID")
    semantics = values.pop("semantics", None)
    keys = query(**{unique: "", "QueryRetrieveLevel": level} | values)
    return [match.get(unique) for match in find(index, keys, semantics=semantics)]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(f"sqlite:///{tmp_path}/index.sqlite") as opened:
        yield opened


@pytest.fixture(scope="module")
def corpus(test_files: Path) -> naive.Corpus:
    found = naive.Corpus([*(ds for _, ds in real_files(test_files)), *family()])
    assert len(found) > 120
    return found


@pytest.fixture(scope="module")
def full(corpus: naive.Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Index(f"sqlite:///{tmp_path_factory.mktemp('index')}/index.sqlite") as opened:
        for start in range(0, len(corpus), 7):
            assert opened.add([new(ds) for ds in corpus[start : start + 7]]) == [None] * len(corpus[start : start + 7])
        yield opened


@pytest.fixture
def small(index: Index) -> Index:
    index.add([new(ds) for ds in family()])
    return index


# What comes back

LEVEL_OF = {
    key.keyword: level.name
    for level in reversed(Level)
    for key in KEYS[level].values()
    if not key.computed and key.keyword != "TimezoneOffsetFromUTC"
}
IDENTITY = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
UNIQUE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def identity_of(match: Dataset, level: int) -> tuple[str, ...]:
    ds = Dataset()
    ds.update({e.tag: e for e in match})
    for keyword in UNIQUE:
        if keyword not in ds:
            setattr(ds, keyword, "")
    return naive.identities(ds)[level]


def with_identity(keys: Dataset, level: int) -> Dataset:
    """Return the query with the keys that tell entities apart."""
    asked = Dataset()
    asked.update({e.tag: e for e in keys})
    for keyword in (*IDENTITY, *UNIQUE[:level]):
        if keyword not in asked:
            asked.add(DataElement(keyword, dictionary_VR(keyword), ""))
    return asked


def text_of(element: DataElement | None) -> Any:
    """Return a value in a form in which ours and pydicom's compare."""
    if element is None:
        return []
    if element.VR == "SQ":
        return [{e.keyword: text_of(e) for e in item if e.tag.is_private is False} for item in element.value]
    texts = naive.texts(element)
    return [text.rstrip("=") for text in texts] if element.VR == "PN" else texts


@pytest.mark.parametrize("level", range(4), ids=naive.LEVELS)
def test_every_attribute_of_every_real_file_comes_back(full: Index, corpus: naive.Corpus, level: int) -> None:
    keywords = [keyword for keyword, name in LEVEL_OF.items() if naive.LEVELS.index(name) <= level]
    keys = query(QueryRetrieveLevel=naive.LEVELS[level], **dict.fromkeys(keywords, ""))
    found = {identity_of(match, level): match for match in find(full, keys)}
    assert found.keys() == corpus.entities[level].keys()
    compared = 0
    for identity, match in found.items():
        assert match.RetrieveAETitle == "ARCHIVE"
        assert match.InstanceAvailability == "ONLINE"
        assert match.QueryRetrieveLevel == naive.LEVELS[level]
        identities = naive.identities(corpus.entities[level][identity][0])
        for keyword in keywords:
            own = naive.LEVELS.index(LEVEL_OF[keyword])
            entity = identities[own]
            stored = naive.value_for(corpus.entities[own][entity], keyword)
            assert text_of(match[keyword]) == text_of(stored), (identity, keyword)
            compared += stored is not None
    assert compared > 100


def test_the_head_of_a_real_file_is_read_as_pydicom_reads_it(test_files: Path) -> None:
    from .test_identifier import data_set_of

    keywords = {int(key.tag) for keys in KEYS.values() for key in keys.values() if not key.computed}
    compared = 0
    for path, ds in real_files(test_files):
        syntax = ds.file_meta.get("TransferSyntaxUID") if path.read_bytes()[128:132] == b"DICM" else None
        if syntax is None:
            continue
        found = read_attributes(data_set_of(path), syntax)
        expected = {tag: e for tag, e in from_dataset(ds).items() if tag in keywords}
        found.pop(0x00080005, None)
        for tag in found.keys() | expected.keys():
            ours, theirs = found.get(tag), expected.get(tag)
            assert ours is not None, (path.name, hex(tag))
            assert theirs is not None, (path.name, hex(tag))
            if ours.vr == "PN" and isinstance(ours.value, str) and isinstance(theirs.value, str):
                assert ours.value.rstrip("=") == theirs.value.rstrip("="), path.name
            else:
                assert ours == theirs, (path.name, hex(tag))
            compared += 1
    assert compared > 2000


# Against the naive matcher


Recipe = tuple[int, int, int, int, int]


def usable(vr: str, text: str) -> bool:
    """Say whether a stored value makes sense as a key."""
    if vr == "DA":
        return naive.valid_date(text)
    if vr == "TM":
        return naive.valid_time(text) and len(text) > 1
    return vr not in ("IS", "DS") or (text.lstrip("+-").isdigit() and len(text) < 12)


def varied(vr: str, values: list[str], recipe: Recipe) -> str:
    """Make a key of the values that there are: one of them, or what can be made of them."""
    kind, first, second, begin, size = recipe
    fine = [text for text in values if usable(vr, text)]
    if not fine:
        return ""
    one, other = fine[first % len(fine)], fine[second % len(fine)]
    if vr in ("IS", "DS"):  # pydicom takes no wildcard for a number
        return one
    kinds = [one, one, "", "*"]
    if vr in ("DA", "TM"):
        kinds += [f"{one}-", f"-{one}", f"{one}-{other}"]
    elif vr in naive.WILD:
        kinds += [one[:begin] + "*", "*" + one[begin:], f"*{one[begin : begin + size]}*", one.swapcase(), '""']
        kinds += [f"{one[:begin]}?{one[begin + 1 :]}", f"{one}\\{other}", f"{one[:begin]}*{one[begin + size :]}"]
    elif vr == "UI":
        kinds.append(f"{one}\\{other}")
    return kinds[kind % len(kinds)]


KEYWORDS = [k for k in LEVEL_OF if dictionary_VR(k) not in ("SQ", "US", "AT")]
#: In a real query most keys are these.
USUAL = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyInstanceUID",
    "StudyDescription",
    "ReferringPhysicianName",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
    "SOPClassUID",
    "ImageType",
    "OtherPatientNames",
]


number = st.integers(0, 200)
recipes = st.tuples(number, number, number, st.integers(0, 8), st.integers(0, 8))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 3),
    st.dictionaries(st.sampled_from(USUAL) | st.sampled_from(KEYWORDS), recipes, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["ModalitiesInStudy", "SOPClassesInStudy"]), recipes, max_size=1),
)
def test_any_query_finds_what_the_naive_matcher_finds(
    full: Index,
    corpus: naive.Corpus,
    level: int,
    wanted: dict[str, Recipe],
    lists: dict[str, Recipe],
) -> None:
    keys = query(QueryRetrieveLevel=naive.LEVELS[level])
    for keyword, recipe in wanted.items():
        vr = dictionary_VR(keyword)
        keys.add(DataElement(keyword, vr, varied(vr, corpus.values(keyword), recipe)))
    for keyword, recipe in lists.items() if level else ():
        vr, attribute = dictionary_VR(keyword), {"ModalitiesInStudy": "Modality"}.get(keyword, "SOPClassUID")
        keys.add(DataElement(keyword, vr, varied(vr, corpus.values(attribute), recipe)))
    # Filters below the level of a query have to hold for one and the same branch; the naive matcher knows no branches.
    below = [e for e in keys if e.keyword in LEVEL_OF and naive.LEVELS.index(LEVEL_OF[e.keyword]) > level]
    if len(below) > 1:
        return
    asked = with_identity(keys, level)
    found = sorted(identity_of(match, level) for match in find(full, asked))
    assert found == sorted(naive.find(corpus, keys, LEVEL_OF))


# Tables

FINDS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("STUDY", {"PatientName": "doe^*"}, ["1.2.3.1", "1.2.3.2", "1.2.3.3"]),
    ("STUDY", {"PatientName": "*山田*"}, ["1.2.3.4"]),
    ("PATIENT", {"PatientName": "*^*", "PatientID": "P?"}, ["P1", "P2", "P1", "P9", "P8"]),
    ("STUDY", {"PatientName": "=山田^太郎"}, ["1.2.3.4"]),
    ("STUDY", {"PatientName": "Yamada*=*=やまだ*"}, ["1.2.3.4"]),
    ("STUDY", {"PatientName": "O'Brien*"}, ["1.2.3.8"]),
    ("STUDY", {"PatientName": "%"}, []),
    ("STUDY", {"PatientName": "D_e*"}, []),
    ("STUDY", {"PatientName": "D?E^J*"}, ["1.2.3.1", "1.2.3.2", "1.2.3.3"]),
    ("STUDY", {"OtherPatientNames": "*太郎*"}, ["1.2.3.4"]),
    ("STUDY", {"OtherPatientIDs": "X2"}, ["1.2.3.4"]),
    ("STUDY", {"StudyDescription": "CT Thorax 100%"}, ["1.2.3.1"]),
    ("STUDY", {"StudyDescription": "*100%*"}, ["1.2.3.1"]),
    ("STUDY", {"StudyDescription": "*thorax*"}, []),
    ("STUDY", {"StudyDescription": "'; DROP TABLE patients; --"}, ["1.2.3.8"]),
    ("STUDY", {"StudyDescription": "' OR 1=1 --"}, []),
    ("STUDY", {"StudyID": "[A-Z]*"}, ["1.2.3.7"]),
    ("STUDY", {"StudyID": "*]_?"}, ["1.2.3.7"]),
    ("STUDY", {"PatientComments": "*second\\line"}, ["1.2.3.8"]),
    ("STUDY", {"StudyDate": "20240101-20240131"}, ["1.2.3.1"]),
    ("STUDY", {"StudyDate": "-20231231"}, ["1.2.3.3", "1.2.3.1"]),
    ("STUDY", {"StudyDate": "20240131", "StudyTime": "1030"}, ["1.2.3.1"]),
    ("STUDY", {"StudyTime": "-1030"}, ["1.2.3.1", "1.2.3.2"]),
    ("STUDY", {"StudyDate": '""', "PatientName": "Yamada*"}, ["1.2.3.4"]),
    ("STUDY", {"ModalitiesInStudy": "SR"}, ["1.2.3.1"]),
    ("STUDY", {"ModalitiesInStudy": "SR\\PT"}, ["1.2.3.1", "1.2.3.6"]),
    ("STUDY", {"ModalitiesInStudy": "?R"}, ["1.2.3.1", "1.2.3.2"]),
    ("STUDY", {"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.88.11"}, ["1.2.3.1"]),
    ("STUDY", {"NumberOfStudyRelatedInstances": "4"}, ["1.2.3.1"]),
    ("STUDY", {"NumberOfStudyRelatedSeries": "3"}, ["1.2.3.1"]),
    ("STUDY", {"Modality": "MR"}, ["1.2.3.2"]),
    ("STUDY", {"ImageType": "SECONDARY"}, ["1.2.3.1"]),
    ("STUDY", {"Modality": "SR", "ImageType": "SECONDARY"}, []),
    ("STUDY", {"InstanceNumber": "2", "Modality": "CT", "Rows": ""}, ["1.2.3.1", "1.2.3.8"]),
    ("STUDY", {"SeriesInstanceUID": "1.2.3.2.1"}, ["1.2.3.2"]),
    ("STUDY", {"InstanceAvailability": "OFFLINE", "StudyInstanceUID": "1.2.3.2"}, ["1.2.3.2"]),
    ("SERIES", {"StudyInstanceUID": "1.2.3.1"}, ["1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3", "1.2.3.1.9"]),
    ("SERIES", {"PatientID": "P1", "StudyInstanceUID": "1.2.3.1"}, ["1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3"]),
    ("SERIES", {"NumberOfSeriesRelatedInstances": "2"}, ["1.2.3.1.1", "1.2.3.8.1"]),
    ("SERIES", {"SeriesNumber": "03"}, ["1.2.3.1.3"]),
    ("SERIES", {"ModalitiesInStudy": "SR"}, ["1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3"]),
    ("IMAGE", {"SeriesInstanceUID": "1.2.3.1.1", "InstanceNumber": "2"}, ["1.2.3.1.1.2"]),
    ("IMAGE", {"Rows": 512}, ["1.2.3.8.1.1"]),
    ("IMAGE", {"NumberOfFrames": "10"}, ["1.2.3.8.1.2"]),
    ("IMAGE", {"AvailableTransferSyntaxUID": "1.2.840.10008.1.2", "Rows": 512}, []),
    ("IMAGE", {"AvailableTransferSyntaxUID": EXPLICIT, "Rows": 512}, ["1.2.3.8.1.1"]),
    ("PATIENT", {"PatientID": "p1"}, ["p1"]),
    ("PATIENT", {"PatientID": "P1"}, ["P1", "P1"]),
    ("PATIENT", {"PatientID": "P1", "IssuerOfPatientID": "ELSEWHERE"}, ["P1"]),
    ("PATIENT", {"NumberOfPatientRelatedStudies": "2"}, ["P1"]),
    ("PATIENT", {"StudyDate": "20240229"}, ["P1"]),
    ("PATIENT", {"Modality": "US"}, ["P9"]),
]


@pytest.mark.parametrize(("level", "keys", "expected"), FINDS)
def test_a_query_finds_these(small: Index, level: str, keys: dict[str, Any], expected: list[str]) -> None:
    assert uids(small, level, **keys) == expected


def code(value: str) -> Dataset:
    ds = Dataset()
    ds.CodeValue = value
    return ds


def test_sequences_match_in_one_item_and_come_back_with_what_was_asked_for(small: Index) -> None:
    item = Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = "RP1", ""
    (match,) = find(small, query(QueryRetrieveLevel="SERIES", SeriesInstanceUID="", RequestAttributesSequence=[item]))
    assert match.SeriesInstanceUID == "1.2.3.1.3"
    (found,) = match.RequestAttributesSequence
    assert [e.keyword for e in found] == ["ScheduledProcedureStepID", "RequestedProcedureID"]
    assert (found.RequestedProcedureID, found.ScheduledProcedureStepID) == ("RP1", "SPS1")
    item.ScheduledProcedureStepID = "SPS2"
    assert find(small, query(QueryRetrieveLevel="SERIES", RequestAttributesSequence=[item])) == []


def test_an_empty_sequence_asks_for_all_of_it(small: Index) -> None:
    for asked in ([], [Dataset()]):
        keys = query(QueryRetrieveLevel="SERIES", SeriesInstanceUID="1.2.3.1.3", RequestAttributesSequence=asked)
        (match,) = find(small, keys)
        first, second = match.RequestAttributesSequence
        assert first.ScheduledProtocolCodeSequence[0].CodeMeaning == "Thorax nativ"
        assert second.RequestedProcedureID == "RP2"


def test_an_item_in_an_item_is_asked_for(small: Index) -> None:
    item = Dataset()
    item.ScheduledProtocolCodeSequence = [code("T1")]
    keys = query(QueryRetrieveLevel="SERIES", SeriesInstanceUID="", RequestAttributesSequence=[item])
    (match,) = find(small, keys)
    (found,) = match.RequestAttributesSequence
    assert [e.keyword for e in found] == ["ScheduledProtocolCodeSequence"]
    assert [e.keyword for e in found.ScheduledProtocolCodeSequence[0]] == ["CodeValue"]


def test_computed_attributes(small: Index) -> None:
    (study,) = find(
        small,
        query(
            QueryRetrieveLevel="STUDY",
            PatientID="P1",
            StudyInstanceUID="1.2.3.1",
            ModalitiesInStudy="",
            SOPClassesInStudy="",
            NumberOfStudyRelatedSeries="",
            NumberOfStudyRelatedInstances="",
            NumberOfPatientRelatedStudies="",
            NumberOfPatientRelatedSeries="",
            NumberOfPatientRelatedInstances="",
        ),
    )
    assert study.ModalitiesInStudy == ["CT", "SR"]
    assert study.SOPClassesInStudy == ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.11"]
    assert [study[f"NumberOfStudyRelated{what}"].value for what in ("Series", "Instances")] == [3, 4]
    assert [study[f"NumberOfPatientRelated{what}"].value for what in ("Studies", "Series", "Instances")] == [2, 4, 5]


def test_modalities_that_match_come_back_with_the_others(small: Index) -> None:
    (study,) = find(small, query(QueryRetrieveLevel="STUDY", ModalitiesInStudy="SR"))
    assert study.ModalitiesInStudy == ["CT", "SR"]


def test_two_patients_with_the_same_study_uid_stay_two(small: Index) -> None:
    keys = query(
        QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3.1", PatientName="", NumberOfStudyRelatedInstances=""
    )
    found = {str(match.PatientName): match.NumberOfStudyRelatedInstances for match in find(small, keys)}
    assert found == {"Doe^John": 4, "Roe^Richard": 1}


def test_patients_without_an_id_are_told_apart_by_name(small: Index) -> None:
    keys = query(QueryRetrieveLevel="PATIENT", PatientID='""', PatientName="")
    assert [match.PatientName for match in find(small, keys)] == ["Nemo", "Outis"]


def test_keys_that_are_not_supported_come_back_empty(small: Index) -> None:
    keys = query(
        QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3.2", Modality="", FillerOrderNumberImagingServiceRequest="7"
    )
    (match,) = find(small, keys)
    assert match["Modality"].is_empty
    assert match["FillerOrderNumberImagingServiceRequest"].is_empty


CHARSETS = [("Doe*", ""), ("Müller*", "ISO_IR 100"), ("Yamada*", "ISO_IR 192")]


@pytest.mark.parametrize(("key", "charset"), CHARSETS)
def test_a_response_says_how_it_is_encoded(small: Index, key: str, charset: str) -> None:
    for match in find(small, query(QueryRetrieveLevel="PATIENT", PatientName=key)):
        assert match.get("SpecificCharacterSet", "") == charset
        assert naive.name_matches(key, str(match.PatientName))


ACROSS = [
    ("ISO 2022 IR 87", "Yamada^Tarou=山田^太郎", ["\\ISO 2022 IR 87"]),
    ("GB18030", "王^小东", ["GB18030"]),
    ("ISO_IR 144", "Люкceмбypг", ["ISO_IR 144"]),
    ("ISO 2022 IR 149", "Hong^Gildong=洪^吉洞", ["\\ISO 2022 IR 149"]),
]


def test_matching_works_across_character_sets(full: Index, corpus: naive.Corpus) -> None:
    names = {str(ds.PatientName) for ds in corpus if not str(ds.get("PatientName", "")).isascii()}
    assert len(names) > 8
    for name in names:
        data = encode_identifier([(0x00080052, "CS", "PATIENT"), (0x00100010, "PN", name)], EXPLICIT, "ISO_IR 192")
        asked = read_dataset(BytesIO(data), False, True)
        assert str(asked.PatientName) == name
        assert name in {str(match.PatientName) for match in find(full, asked)}


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, IMPLICIT])
def test_responses_come_in_the_transfer_syntax_that_was_negotiated(small: Index, transfer_syntax: str) -> None:
    keys = query(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3.2", PatientName="", ProcedureCodeSequence=[])
    (match,) = find(small, keys, transfer_syntax=transfer_syntax)
    assert match.PatientName == "Doe^John"
    assert [item.CodeMeaning for item in match.ProcedureCodeSequence] == ["Thorax nativ", "Schädel"]


def test_fuzzy_names_are_found_if_negotiated(small: Index) -> None:
    assert uids(small, PatientName="Jon Doe") == []
    fuzzy = Semantics(fuzzy=True)
    assert uids(small, PatientName="Jon Doe", semantics=fuzzy) == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]  # Jane too
    assert uids(small, PatientName="Muller", semantics=fuzzy) == ["1.2.3.7"]


COMBINED = [
    ("20240101-20240131", "1000-1100", ["1", "2"]),
    ("20240131-20240229", "1031-0959", []),
    ("20240131-20240229", "1030-1000", ["1", "2"]),
    ("20231231-20240131", "1200-1030", ["1", "3"]),
    ("20240131-", "1031-", ["2"]),
    ("-20240131", "-1029", ["3", "9"]),
]


@pytest.mark.parametrize(("dates", "times", "expected"), COMBINED)
def test_combined_dates_and_times(index: Index, dates: str, times: str, expected: list[str]) -> None:
    index.add(
        [
            new(instance(1, study=1, StudyDate="20240131", StudyTime="103015.5")),
            new(instance(1, study=2, StudyDate="20240229", StudyTime="10")),
            new(instance(1, study=3, StudyDate="20231231", StudyTime="235959")),
            new(instance(1, study=4, StudyDate="20240131")),
            new(instance(1, study=9, StudyDate="19991231", StudyTime="0000")),
        ]
    )
    found = uids(index, StudyDate=dates, StudyTime=times, semantics=Semantics(combined_date_time=True))
    first, last = dates.split("-")
    begin, end = times.split("-")
    moments = {"1": "20240131103015", "2": "20240229100000", "3": "20231231235959", "9": "19991231000000"}
    naive_result = [
        study
        for study, moment in moments.items()
        if (not first or first + naive.padded(begin, "000000") <= moment)
        and (not last or moment <= last + naive.padded(end, "235959"))
    ]
    assert found == [f"1.2.3.{study}" for study in naive_result]


def test_dates_and_times_are_adjusted_to_the_time_zone_of_the_query(index: Index) -> None:
    index.add(
        [
            new(instance(1, study=1, StudyDate="20240131", StudyTime="233000", TimezoneOffsetFromUTC="+0000")),
            new(instance(1, study=2, StudyDate="20240201", StudyTime="003000", TimezoneOffsetFromUTC="+0100")),
            new(instance(1, study=3, StudyDate="20240131", StudyTime="183000.250", TimezoneOffsetFromUTC="-0500")),
            new(instance(1, study=4, StudyDate="20240201", StudyTime="0030")),
            new(instance(1, study=5, StudyDate="20240201", TimezoneOffsetFromUTC="-0500")),
            new(instance(1, study=6, StudyDate="20240202", StudyTime="003000", TimezoneOffsetFromUTC="+0100")),
        ]
    )
    asked = query(
        QueryRetrieveLevel="STUDY",
        StudyInstanceUID="",
        StudyDate="20240201",
        StudyTime="",
        TimezoneOffsetFromUTC="+0100",
    )
    found = find(index, asked, semantics=Semantics(timezone=True))
    assert [(m.StudyInstanceUID[-1], m.StudyDate, m.StudyTime, m.TimezoneOffsetFromUTC) for m in found] == [
        ("1", "20240201", "003000", "+0100"),
        ("2", "20240201", "003000", "+0100"),
        ("3", "20240201", "003000.250000", "+0100"),
        ("4", "20240201", "0030", "+0100"),
        ("5", "20240201", "", "+0100"),
    ]
    asked.StudyTime = "0000-0030"
    found = find(index, asked, semantics=Semantics(timezone=True))
    assert [m.StudyInstanceUID[-1] for m in found] == ["1", "2", "3", "4"]
    plain = [
        m.StudyInstanceUID[-1]
        for m in find(index, query(QueryRetrieveLevel="STUDY", StudyInstanceUID="", StudyDate="20240201"))
    ]
    assert plain == ["2", "4", "5"]


# Retrievals

RETRIEVES: list[tuple[dict[str, Any], list[str]]] = [
    ({"QueryRetrieveLevel": "PATIENT", "PatientID": "P1"}, ["1.1.1", "1.1.2", "1.2.3", "1.3.4", "2.1.1", "7.1.1"]),
    ({"QueryRetrieveLevel": "PATIENT", "PatientID": "P1", "IssuerOfPatientID": "ELSEWHERE"}, ["7.1.1"]),
    ({"QueryRetrieveLevel": "PATIENT", "PatientID": "nobody"}, []),
    ({"QueryRetrieveLevel": "STUDY", "PatientID": "P9", "StudyInstanceUID": "1.2.3.1"}, ["1.9.9"]),
    ({"QueryRetrieveLevel": "STUDY", "PatientID": "P1", "StudyInstanceUID": "1.2.3.2\\1.2.3.7"}, ["2.1.1", "7.1.1"]),
    (
        {
            "QueryRetrieveLevel": "SERIES",
            "PatientID": "P1",
            "StudyInstanceUID": "1.2.3.1",
            "SeriesInstanceUID": "1.2.3.1.1",
        },
        ["1.1.1", "1.1.2"],
    ),
    (
        {
            "QueryRetrieveLevel": "IMAGE",
            "PatientID": "P1",
            "StudyInstanceUID": "1.2.3.1",
            "SeriesInstanceUID": "1.2.3.1.1",
            "SOPInstanceUID": "1.2.3.1.1.2\\1.2.3.1.2.3",
        },
        ["1.1.2"],
    ),
    ({"QueryRetrieveLevel": "STUDY", "PatientID": "P1", "StudyInstanceUID": "1.2.3.1", "Modality": "SR"}, ["1.2.3"]),
    (
        {"QueryRetrieveLevel": "STUDY", "PatientID": "P1", "StudyInstanceUID": "1.2.3.1", "PatientName": "DOE^JOHN"},
        ["1.1.1", "1.1.2", "1.2.3", "1.3.4"],
    ),
    ({"QueryRetrieveLevel": "STUDY", "PatientID": "P1", "StudyInstanceUID": "1.2.3.1", "PatientName": "R*"}, []),
    (
        {"QueryRetrieveLevel": "STUDY", "PatientID": "P1", "StudyInstanceUID": "1.2.3.1", "ImageType": "DERIVED"},
        ["1.1.2"],
    ),
    (
        {
            "QueryRetrieveLevel": "STUDY",
            "PatientID": "P1",
            "StudyInstanceUID": "1.2.3.2",
            "NumberOfStudyRelatedSeries": "1",
        },
        ["2.1.1"],
    ),
]


@pytest.mark.parametrize(("keys", "expected"), RETRIEVES)
def test_a_retrieval_selects_these(small: Index, keys: dict[str, Any], expected: list[str]) -> None:
    wanted = parse_retrieve(from_dataset(query(**keys)), Model.PATIENT_ROOT)
    rows = [row for page in small.instances(wanted) for row in page]
    assert [row.sop_instance_uid for row in rows] == [f"1.2.3.{uid}" for uid in expected]
    assert small.count(wanted) == len(expected)
    assert all(row.path == f"path/{row.sop_instance_uid}" for row in rows)


def test_a_row_says_where_an_instance_is(small: Index) -> None:
    assert small.get(["1.2.3.1.2.3", "1.2.3"]) == {
        "1.2.3.1.2.3": InstanceRow(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.88.11",
            sop_instance_uid="1.2.3.1.2.3",
            transfer_syntax_uid=EXPLICIT,
            path="path/1.2.3.1.2.3",
            size=1000,
        )
    }


@pytest.mark.parametrize("number", [1, 600, 1501, 40_000])
def test_lists_of_any_length_are_taken(small: Index, number: int) -> None:
    many = [f"1.9.{n}" for n in range(number)] + ["1.2.3.1.1.2"]
    keys = query(QueryRetrieveLevel="IMAGE", SOPInstanceUID=many)
    wanted = parse_retrieve(from_dataset(keys), Model.COMPOSITE_INSTANCE_ROOT)
    assert small.count(wanted) == 1
    assert len(small.get(many)) == 1
    assert len(find(small, keys)) == 1


# Adding and removing


def test_an_instance_that_is_there_is_not_added_again(index: Index) -> None:
    assert index.add([new(instance(1), "a"), new(instance(1), "b"), new(instance(2), "c")])[0::2] == [None, None]
    found = index.add([new(instance(1), "d"), new(instance(3), "e")])
    assert found[0] is not None
    assert found[0].path == "a"
    assert found[1] is None
    (study,) = find(index, query(QueryRetrieveLevel="STUDY", NumberOfStudyRelatedInstances=""))
    assert study.NumberOfStudyRelatedInstances == 3


def test_nothing_is_added_when_there_is_nothing(index: Index) -> None:
    assert index.add([]) == []
    assert index.remove([]) == []
    assert uids(index) == []


def without(keyword: str, value: str | None = None) -> Dataset:
    ds = instance(1)
    delattr(ds, keyword)
    if value is not None:
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_an_instance_without_its_uids_is_refused(keyword: str) -> None:
    with pytest.raises(IdentifierError, match="missing"):
        new(without(keyword), "x")
    with pytest.raises(IdentifierError, match="missing"):
        new(without(keyword, ""), "x")


def test_a_parent_takes_the_first_value_that_comes(index: Index) -> None:
    index.add([new(instance(1))])
    index.add([new(instance(2, StudyDescription="first", PatientName="Doe^John"))])
    index.add([new(instance(3, StudyDescription="second", StudyDate="20240101", PatientName="Roe"))])
    keys = query(QueryRetrieveLevel="STUDY", StudyDescription="first", StudyDate="20240101", PatientName="doe^john")
    (study,) = find(index, keys)
    assert (study.StudyDescription, study.StudyDate, study.PatientName) == ("first", "20240101", "Doe^John")


def test_removing_takes_what_is_empty_with_it(small: Index) -> None:
    removed = small.remove(["1.2.3.2.1.1", "1.2.3.1.2.3", "1.2.3", "1.2.3.4.1.1"])
    assert sorted(row.sop_instance_uid for row in removed) == ["1.2.3.1.2.3", "1.2.3.2.1.1", "1.2.3.4.1.1"]
    (study,) = find(
        small,
        query(
            QueryRetrieveLevel="STUDY", PatientName="Doe^John", ModalitiesInStudy="", NumberOfStudyRelatedInstances=""
        ),
    )
    assert (study.ModalitiesInStudy, study.NumberOfStudyRelatedInstances) == ("CT", 3)
    assert uids(small, "PATIENT", PatientID="P2") == []
    assert small.add([new(instance(1, study=2))]) == [None]
    assert uids(small, PatientName="Doe^John") == ["1.2.3.1", "1.2.3.2"]


def test_replacing_moves_an_instance_to_where_it_belongs_now(small: Index) -> None:
    old = small.replace(new(instance(1, study=2, patient="P77", SOPInstanceUID="1.2.3.2.1.1"), "new path"))
    assert old is not None
    assert old.path == "path/1.2.3.2.1.1"
    assert uids(small, PatientID="P77") == ["1.2.3.2"]
    assert uids(small, PatientID="P1", IssuerOfPatientID='""') == ["1.2.3.1"]
    assert small.get(["1.2.3.2.1.1"])["1.2.3.2.1.1"].path == "new path"
    assert small.replace(new(instance(50, study=50))) is None


def test_clearing_leaves_nothing(small: Index) -> None:
    small.clear()
    assert uids(small, "PATIENT") == []
    assert list(small.all()) == [[]]
    assert small.add([new(ds) for ds in family()]) == [None] * len(family())


def test_a_failed_change_changes_nothing(small: Index) -> None:
    before = [row for page in small.all() for row in page]
    broken = new(instance(60, study=60, patient="P60"))
    object.__setattr__(broken, "path", None)
    with pytest.raises(Exception, match="NOT NULL"):
        small.add([new(instance(61, study=60, patient="P60")), broken])
    assert [row for page in small.all() for row in page] == before
    assert uids(small, "PATIENT", PatientID="P60") == []
    assert small.add([new(instance(61, study=60, patient="P60"))]) == [None]


def test_a_failed_commit_leaves_nothing_in_mind(index: Index) -> None:
    def fail(_: object) -> None:
        raise OSError("disk full")

    event.listen(index._engine, "commit", fail)
    with pytest.raises(OSError, match="disk full"):
        index.add([new(instance(1, study=1, patient="P1"))])
    event.remove(index._engine, "commit", fail)
    # These take the numbers that the first would have had.
    assert index.add([new(instance(1, study=2, patient="P2"))]) == [None]
    assert index.add([new(instance(1, study=1, patient="P1"))]) == [None]
    assert uids(index, PatientID="P1") == ["1.2.3.1"]
    assert uids(index, PatientID="P2") == ["1.2.3.2"]


# Hostile values

HOSTILE_VALUES = [
    "\x00",
    "a\x00b",
    "'; DROP TABLE studies; --",
    "%_[]*?",
    "\x1b$B",
    "x" * 100_000,
    "\ud7ff\U0010ffff",
    "\\" * 9,
]


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=range(len(HOSTILE_VALUES)))
def test_hostile_values_are_stored_and_do_no_harm(small: Index, value: str) -> None:
    ds = instance(70, study=70, patient=value, PatientName=value, StudyDescription=value, AccessionNumber=value)
    ds.OtherPatientNames = [value, value]
    assert small.add([new(ds)]) == [None]
    assert small.add([new(ds)])[0] is not None
    assert uids(small, StudyInstanceUID="1.2.3.70") == ["1.2.3.70"]
    assert "1.2.3.1" in uids(small)


MISFITS = [
    ("Rows", "LO", "many"),
    ("Rows", "UL", 70_000),
    ("Rows", "SL", -1),
    ("Rows", "FD", 1.5),
    ("Rows", "SQ", [Dataset()]),
    ("PatientName", "US", 7),
    ("PatientName", "SQ", [Dataset()]),
    ("PatientName", "OB", b"Doe"),
    ("OtherPatientNames", "US", [1, 2]),
    ("RequestAttributesSequence", "LO", "text"),
    ("StudyDate", "US", 20240),
    ("SeriesNumber", "IS", "9" * 400),
    ("StudyTime", "TM", "not a time"),
]


@pytest.mark.parametrize(("keyword", "vr", "value"), MISFITS)
def test_a_value_that_does_not_suit_its_attribute_spoils_no_response(
    small: Index, keyword: str, vr: str, value: Any
) -> None:
    ds = instance(70, study=70, patient="P70")
    ds.add(DataElement(keyword, vr, value))
    assert small.add([new(ds)]) == [None]
    everything = query(QueryRetrieveLevel="IMAGE", **dict.fromkeys([*LEVEL_OF, "SOPInstanceUID"], ""))
    assert "1.2.3.70.1.70" in [match.SOPInstanceUID for match in find(small, everything)]


def test_a_sequence_of_any_size_is_stored(small: Index) -> None:
    item = Dataset()
    item.RequestedProcedureID = "x" * 16
    ds = instance(71, study=71, RequestAttributesSequence=[item] * 20_000)
    assert small.add([new(ds)]) == [None]
    (match,) = find(
        small, query(QueryRetrieveLevel="SERIES", StudyInstanceUID="1.2.3.71", RequestAttributesSequence=[])
    )
    assert match["RequestAttributesSequence"].is_empty


HOSTILE_KEYS = [
    {"PatientName": "*?" * 30_000},
    {"PatientName": "*a" * 30_000},
    {"PatientName": "a\\" * 30_000},
    {"PatientName": "a*\\b*\\" * 5_000},
    {"StudyDescription": "x" * 60_000 + "*"},
    {"StudyDescription": "*" + "x" * 60_000},
    {"StudyDescription": "\\".join(f"*{n}*" for n in range(5_000))},
    {"StudyInstanceUID": "\\".join(f"1.{n}" for n in range(10_000))},
    {"PatientName": "' OR ''='"},
    {"AccessionNumber": "\x00"},
    {"AccessionNumber": "A1\x00*"},
]


@pytest.mark.parametrize("keys", HOSTILE_KEYS, ids=range(len(HOSTILE_KEYS)))
def test_hostile_keys_are_answered_in_time(full: Index, keys: dict[str, str]) -> None:
    begin = time.process_time()
    for level in ("PATIENT", "STUDY", "IMAGE"):
        uids(full, level, **keys)
    assert time.process_time() - begin < 20


def test_names_of_any_size_are_searched_in_time(small: Index) -> None:
    small.add([new(instance(n, study=100 + n, patient=f"L{n}", PatientName="a" * 10_000)) for n in range(50)])
    begin = time.process_time()
    assert uids(small, PatientName="*" + "a?" * 2_000 + "b*") == []
    assert time.process_time() - begin < 5


# Size and time


def crowd(first: int, last: int, *, per_series: int = 50) -> list[NewInstance]:
    """Make up instances, as cheaply as can be."""
    made = []
    for number in range(first, last):
        ds = instance(number, study=number // per_series, patient=f"P{number // per_series}", PatientName="Doe^John")
        made.append(new(ds, f"p/{number}"))
    return made


def test_pages_give_everything_once_in_any_size(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add(crowd(0, 230, per_series=7))
    expected = uids(index, "IMAGE")
    assert len(expected) == len(set(expected)) == 230
    for sizes in ((1,), (1, 2, 3), (230,), (229,), (7, 100), (500,)):
        monkeypatch.setattr(search, "PAGES", sizes)
        assert uids(index, "IMAGE") == expected
        assert len(uids(index, "STUDY")) == 33
        assert len(uids(index, "STUDY", InstanceNumber="5\\100")) == 2


def test_what_is_added_while_a_search_goes_on_disturbs_nothing(index: Index) -> None:
    index.add(crowd(0, 300))
    wanted = parse_find(from_dataset(query(QueryRetrieveLevel="IMAGE", SOPInstanceUID="")), Model.STUDY_ROOT)
    pages = index.find(wanted)
    found = list(next(pages))
    index.add(crowd(300, 400))
    index.remove([f"1.2.3.1.1.{number}" for number in range(50, 100)])
    for page in pages:
        found += page
    assert len(found) == len(set(found))
    assert 300 <= len(found) <= 400


def test_a_search_holds_no_connection_between_pages(tmp_path: Path) -> None:
    with Index(f"sqlite:///{tmp_path}/index.sqlite", connections=1) as index:
        index.add(crowd(0, 300))
        wanted = parse_find(from_dataset(query(QueryRetrieveLevel="IMAGE", SOPInstanceUID="")), Model.STUDY_ROOT)
        searches = [index.find(wanted) for _ in range(20)]
        assert [len(next(pages)) for pages in searches] == [search.PAGES[0]] * 20
        index.add(crowd(300, 301))


def test_memory_is_that_of_a_page(index: Index) -> None:
    for start in range(0, 20_000, 1000):
        index.add(crowd(start, start + 1000, per_series=500))
    wanted = parse_find(
        from_dataset(query(QueryRetrieveLevel="IMAGE", SOPInstanceUID="", PatientName="", ImageType="")),
        Model.STUDY_ROOT,
    )
    gc.collect()
    tracemalloc.start()
    try:
        assert sum(map(len, index.find(wanted))) == 20_000
        assert sum(map(len, index.all())) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


# Several at once


def test_threads_that_add_the_same_instances_add_each_once(tmp_path: Path) -> None:
    results: list[list[InstanceRow | None]] = []
    with Index(f"sqlite:///{tmp_path}/index.sqlite", connections=4) as index:
        start = threading.Barrier(6)

        def work() -> None:
            start.wait()
            for begin in range(0, 60, 10):
                results.append(index.add(crowd(begin, begin + 10, per_series=15)))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(row is None for result in results for row in result) == 60
        keys = query(QueryRetrieveLevel="STUDY", NumberOfStudyRelatedInstances="")
        assert [match.NumberOfStudyRelatedInstances for match in find(index, keys)] == [15] * 4


def test_what_another_process_does_is_seen(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.sqlite"
    with Index(url) as ours, Index(url) as theirs:
        ours.add([new(instance(1)), new(instance(1, study=2))])
        assert theirs.add([new(instance(1))])[0] is not None
        theirs.add([new(instance(2))])
        theirs.remove(["1.2.3.1.1.1", "1.2.3.1.1.2"])
        # What we have in mind of study and series is gone.
        assert ours.add([new(instance(3, StudyDescription="again"))]) == [None]
        keys = query(
            QueryRetrieveLevel="STUDY",
            StudyInstanceUID="1.2.3.1",
            NumberOfStudyRelatedInstances="",
            StudyDescription="",
        )
        (study,) = find(theirs, keys)
        assert (study.NumberOfStudyRelatedInstances, study.StudyDescription) == (1, "again")


@contextmanager
def another_writer(folder: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(folder / "index.sqlite", isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
    finally:
        connection.close()


def test_a_writer_waits_for_that_of_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    class Clock:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def sleep(seconds: float) -> None:
            looked.set()
            time.sleep(seconds)

    monkeypatch.setattr(schema, "time", Clock)
    with Index(f"sqlite:///{tmp_path}/index.sqlite") as index, another_writer(tmp_path) as other:
        adding = threading.Thread(target=index.add, args=([new(instance(1))],))
        adding.start()
        assert looked.wait(20)
        assert not uids(index)
        other.execute("COMMIT")
        adding.join(20)
        assert uids(index) == ["1.2.3.1"]


def test_a_writer_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index(f"sqlite:///{tmp_path}/index.sqlite") as index:
        monkeypatch.setattr(schema, "_PATIENCE", 0.02)
        with another_writer(tmp_path), pytest.raises(OperationalError, match="database is locked"):
            index.add([new(instance(1))])
        index.add([new(instance(2, study=2))])
        assert uids(index) == ["1.2.3.2"]


def test_closing_leaves_no_descriptor_and_one_file(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    before = descriptors()
    index = Index(f"sqlite:///{tmp_path}/index.sqlite", connections=4)
    index.add([new(ds) for ds in family()])
    assert len(uids(index)) > 5
    index.close()
    index.close()
    assert descriptors() == before
    assert [path.name for path in tmp_path.iterdir()] == ["index.sqlite"]
    with Index(f"sqlite:///{tmp_path}/index.sqlite") as again:
        assert len(uids(again)) > 5


def test_a_closed_index_says_so(index: Index) -> None:
    index.add(crowd(0, 100))
    wanted = parse_find(from_dataset(query(QueryRetrieveLevel="IMAGE", SOPInstanceUID="")), Model.STUDY_ROOT)
    pages = index.find(wanted)
    next(pages)
    index.close()
    for ask in (lambda: next(pages), lambda: index.add(crowd(100, 101)), lambda: index.get(["1.2"])):
        with pytest.raises(RuntimeError, match="closed"):
            ask()


WRITER = """
import sys
from asyncdicom.archive.entities import NewInstance
from asyncdicom.archive.identifier import Element
from asyncdicom.archive.index import Index

index = Index(sys.argv[1])
for number in range(1_000_000):
    uids = {0x00080016: "1.2", 0x00080018: f"1.3.{number}", 0x0020000D: f"1.4.{number // 10}", 0x0020000E: f"1.5.{number // 5}"}
    attributes = {tag: Element("UI", uid) for tag, uid in uids.items()}
    index.add([NewInstance(attributes=attributes, transfer_syntax_uid="1.2", path="p", size=1)])
    print(number, flush=True)
"""


def test_what_was_added_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/index.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    with writer, writer.stdout as said:
        for line in said:
            if int(line) == 120:
                writer.kill()
                break
        acknowledged = max([120, *(int(line) for line in said)])
    with Index(url) as index:
        present = index.get(f"1.3.{number}" for number in range(acknowledged + 1))
        assert len(present) == acknowledged + 1
        assert sum(map(len, index.all())) <= acknowledged + 2
        keys = query(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.4.3", NumberOfStudyRelatedInstances="")
        assert [match.NumberOfStudyRelatedInstances for match in find(index, keys)] == [10]


def test_the_statements_suit_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in metadata.sorted_tables:
        text = str(CreateTable(table).compile(dialect=dialect))
        assert "BIGSERIAL" in text
        assert 'COLLATE "C"' in text
    for level, keys, _ in FINDS:
        wanted = parse_find(from_dataset(query(QueryRetrieveLevel=level, **keys)), Model.PATIENT_ROOT)
        searched = search.Search(wanted, wanted.level, lambda row, entity: None)
        assert "LIMIT" in str(searched._statement.compile(dialect=dialect))


def test_a_database_in_memory_is_refused() -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ValueError, match="file"):
            Index(url)


@pytest.mark.parametrize(("durable", "level"), [(False, 1), (True, 2)])
def test_sqlite_is_opened_as_it_should_be(tmp_path: Path, durable: bool, level: int) -> None:
    with Index(f"sqlite:///{tmp_path}/index.sqlite", durable=durable) as index, index._engine.connect() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
        assert values == ["wal", level, 1]


PLANS: list[tuple[str, dict[str, Any], str]] = [
    ("STUDY", {"StudyInstanceUID": "1.2.3"}, "studies_study_instance_uid"),
    ("STUDY", {"AccessionNumber": "A1"}, "studies_accession_number"),
    ("STUDY", {"PatientID": "P1"}, "patients_patient_id"),
    ("SERIES", {"StudyInstanceUID": "1.2.3"}, "studies_study_instance_uid"),
    ("IMAGE", {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}, "instances_series"),
    ("IMAGE", {"SOPInstanceUID": "1.2.3"}, "instances"),
]


@pytest.mark.parametrize(("level", "keys", "name"), PLANS)
def test_unique_keys_are_looked_up_in_an_index_of_the_database(
    tmp_path: Path, level: str, keys: dict[str, Any], name: str
) -> None:
    with Index(f"sqlite:///{tmp_path}/index.sqlite") as index:
        index.add(crowd(0, 500))
        said: list[tuple[str, Any]] = []
        event.listen(index._engine, "before_cursor_execute", lambda *args: said.append((args[2], args[3])))
        uids(index, level, **keys)
        statement, parameters = next(one for one in said if "LIMIT" in one[0])
        with index._engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    text = "\n".join(str(row[-1]) for row in plan)
    assert name in text
    assert "SCAN" not in text, text


def test_the_version_of_sqlite_knows_what_we_ask() -> None:
    assert sqlite3.sqlite_version_info >= (3, 24)
