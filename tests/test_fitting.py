"""Identifiers that do not fit into one request, or that a peer does not understand, and what is asked instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from asyncdicom import LocalProtocolError, PeerProfile
from asyncdicom.dataset import decode_data_set, encode_data_set
from asyncdicom.fitting import LONGEST, divide, fit
from asyncdicom.identifiers import make_identifier
from asyncdicom.sop import EXPLICIT_VR_LITTLE_ENDIAN

DEFAULT = PeerProfile()
NO_RANGES = PeerProfile(date_ranges=False)
NO_DATE_WILDCARDS = PeerProfile(date_wildcards=False)
NO_STARS = PeerProfile(universal_wildcard=False)
NO_LISTS = PeerProfile(uid_lists=False)


def uids(count: int, length: int = 64) -> list[str]:
    return [f"1.2.{number:0{length - 4}}" for number in range(count)]


def query(**keys: Any) -> Dataset:
    return make_identifier(None, keys, None, "")


@given(st.lists(st.text("0123456789.", min_size=1, max_size=64), max_size=5), st.integers(0, 3000), st.booleans())
def test_uids_are_divided_in_their_order_each_once_and_no_list_is_too_long(
    few: list[str], many: int, lists: bool
) -> None:
    given_uids = [*few, *uids(many)]
    chunks = list(divide(given_uids, lists=lists))
    assert [uid for chunk in chunks for uid in chunk] == list(dict.fromkeys(given_uids))
    assert all(chunk and len("\\".join(chunk)) <= LONGEST for chunk in chunks)
    if not lists:
        assert all(len(chunk) == 1 for chunk in chunks)


#: A profile, keys, and what is asked by in turn: the keys that change.
WAYS: list[tuple[PeerProfile, dict[str, Any], list[dict[str, Any]]]] = [
    # What fits is left alone.
    (DEFAULT, {"StudyInstanceUID": ["1.2", "1.3"], "StudyDate": "20240101-20240105"}, [{}]),
    (DEFAULT, {"StudyInstanceUID": uids(1008)}, [{}]),
    (DEFAULT, {"StudyDate": "*", "PatientName": "*", "StudyTime": "1*"}, [{}]),
    (NO_LISTS, {"StudyInstanceUID": "1.2", "SOPInstanceUID": ""}, [{}]),
    (NO_RANGES, {"StudyDate": "20240101", "PatientName": "Doe-Smith", "PatientID": "1-2"}, [{}]),
    (NO_DATE_WILDCARDS, {"PatientName": "D*", "PatientID": "*", "StudyDate": "20240101-20240105"}, [{}]),
    (NO_STARS, {"PatientName": "D*", "StudyDate": "2024*", "StudyTime": ""}, [{}]),
    # Lists of UIDs.
    (
        DEFAULT,
        {"StudyInstanceUID": uids(2500)},
        [{"StudyInstanceUID": uids(2500)[first : first + 1008]} for first in (0, 1008, 2016)],
    ),
    (NO_LISTS, {"StudyInstanceUID": ["1.2", "1.3", "1.2"]}, [{"StudyInstanceUID": "1.2"}, {"StudyInstanceUID": "1.3"}]),
    # Dates.
    (NO_DATE_WILDCARDS, {"StudyDate": "*", "StudyTime": " * "}, [{"StudyDate": "", "StudyTime": ""}]),
    (NO_DATE_WILDCARDS, {"StudyDate": "2024*"}, [{"StudyDate": "20240101-20241231"}]),
    (NO_DATE_WILDCARDS, {"StudyDate": "202402*"}, [{"StudyDate": "20240201-20240229"}]),
    (NO_DATE_WILDCARDS, {"StudyDate": "202312*"}, [{"StudyDate": "20231201-20231231"}]),
    (NO_DATE_WILDCARDS, {"StudyDate": "20240229*"}, [{"StudyDate": "20240229"}]),
    (
        NO_RANGES,
        {"StudyDate": "20240228-20240301"},
        [{"StudyDate": f"202402{day}"} for day in (28, 29)] + [{"StudyDate": "20240301"}],
    ),
    (NO_RANGES, {"StudyDate": "20240101-20240101"}, [{"StudyDate": "20240101"}]),
    (NO_RANGES, {"AcquisitionDateTime": "20240101120000-0500"}, [{}]),
    (
        PeerProfile(date_ranges=False, date_wildcards=False),
        {"StudyDate": "202402*"},
        [{"StudyDate": f"202402{day:02}"} for day in range(1, 30)],
    ),
    # The universal wildcard.
    (
        NO_STARS,
        {"PatientName": "*", "PatientID": "*", "StudyDate": "*", "ModalitiesInStudy": "*"},
        [{"PatientName": "", "PatientID": "", "StudyDate": "", "ModalitiesInStudy": ""}],
    ),
]


@pytest.mark.parametrize(("profile", "keys", "changes"), WAYS)
def test_a_query_is_said_so_that_it_fits_and_is_understood(
    profile: PeerProfile, keys: dict[str, Any], changes: list[dict[str, Any]]
) -> None:
    identifier = query(QueryRetrieveLevel="STUDY", **keys)
    before = encode_data_set(identifier, EXPLICIT_VR_LITTLE_ENDIAN)
    fitted = fit(identifier, profile)
    assert fitted == [query(QueryRetrieveLevel="STUDY", **{**keys, **changed}) for changed in changes]
    assert encode_data_set(identifier, EXPLICIT_VR_LITTLE_ENDIAN) == before


#: A profile, keys, and what the refusal names.
REFUSED: list[tuple[PeerProfile, dict[str, Any], str]] = [
    (
        DEFAULT,
        {"StudyInstanceUID": uids(2000), "SeriesInstanceUID": uids(2000)},
        "StudyInstanceUID and SeriesInstanceUID",
    ),
    (NO_LISTS, {"StudyInstanceUID": ["1", "2"], "SOPInstanceUID": ["1", "2"]}, "StudyInstanceUID and SOPInstanceUID"),
    (DEFAULT, {"SOPClassesInStudy": uids(2000)}, "SOPClassesInStudy"),
    (NO_LISTS, {"SOPClassesInStudy": ["1.2", "1.3"]}, "SOPClassesInStudy"),
    (NO_RANGES, {"StudyDate": "20240101-"}, "StudyDate"),
    (NO_RANGES, {"StudyDate": "-20240101"}, "StudyDate"),
    (NO_RANGES, {"StudyTime": "10-12"}, "StudyTime"),
    (NO_RANGES, {"AcquisitionDateTime": "20240101-20240102"}, "AcquisitionDateTime"),
    (NO_RANGES, {"StudyDate": "20240102-20240101"}, "StudyDate"),
    (NO_RANGES, {"StudyDate": "20240101-20250102"}, "368 days"),
    (NO_RANGES, {"StudyDate": "20240101-20240230"}, "StudyDate"),
    (NO_RANGES, {"StudyDate": "January-February"}, "StudyDate"),
    (NO_RANGES, {"StudyDate": "20240101-20240102", "PatientBirthDate": "20240101-20240102"}, "only one key"),
    (NO_DATE_WILDCARDS, {"StudyDate": "20240*"}, "StudyDate"),
    (NO_DATE_WILDCARDS, {"StudyDate": "202413*"}, "StudyDate"),
    (NO_DATE_WILDCARDS, {"StudyDate": "????0101"}, "StudyDate"),
    (NO_DATE_WILDCARDS, {"StudyTime": "10*"}, "StudyTime"),
    (
        PeerProfile(uid_lists=False, date_ranges=False),
        {"StudyInstanceUID": ["1", "2"], "StudyDate": "20240101-20240102"},
        "StudyInstanceUID and StudyDate",
    ),
]


@pytest.mark.parametrize(("profile", "keys", "reason"), REFUSED)
def test_what_a_peer_understands_in_no_way_is_refused(profile: PeerProfile, keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        fit(query(**keys), profile)


def worklist(date: str) -> Dataset:
    step = query(ScheduledProcedureStepStartDate=date, ScheduledProcedureStepStartTime="*", Modality="CT")
    return query(PatientName="", ScheduledProcedureStepSequence=[step])


def test_keys_inside_of_a_sequence_are_looked_at_too() -> None:
    profile = PeerProfile(date_ranges=False, date_wildcards=False)
    fitted = fit(worklist("20240101-20240102"), profile)
    steps = [identifier.ScheduledProcedureStepSequence[0] for identifier in fitted]
    assert [step.ScheduledProcedureStepStartDate for step in steps] == ["20240101", "20240102"]
    assert {(step.ScheduledProcedureStepStartTime, step.Modality) for step in steps} == {("", "CT")}
    with pytest.raises(LocalProtocolError, match="ScheduledProcedureStepStartDate"):
        fit(worklist("20240101-"), profile)


def test_an_identifier_that_came_encoded_is_looked_at_without_being_changed() -> None:
    long = uids(2000)
    for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2"):
        few = decode_data_set(encode_data_set(query(StudyInstanceUID=["1.2", "1.3"]), syntax), syntax)
        many = decode_data_set(encode_data_set(query(SOPInstanceUID=long), syntax), syntax)
        assert fit(few, DEFAULT) == [few]
        assert [identifier.StudyInstanceUID for identifier in fit(few, NO_LISTS)] == ["1.2", "1.3"]
        assert [uid for identifier in fit(many, DEFAULT) for uid in identifier.SOPInstanceUID] == long
