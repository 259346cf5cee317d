"""What becomes of the attributes that have to do with frames: time, vectors, movements, positions, references, overlays."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from asyncdicom import sop
from asyncdicom.archive.frames import FrameError, FrameSelection, extract_frames

from .multiframe import NATIVE, NEW_UID, extract, image, item, items, naive_bits, read_whole, take, written

FRAME_TIME, FRAME_TIME_VECTOR = 0x00181063, 0x00181065


def status_of(tmp_path: Path, ds: Dataset, selection: FrameSelection) -> int:
    with pytest.raises(FrameError) as caught:
        extract_frames(written(tmp_path / "source.dcm", ds), selection, new_uid=NEW_UID)
    return caught.value.status


def shown(value: object) -> object:
    """Return a value as text and numbers that can be compared; ``None`` if it is missing."""
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    if isinstance(value, Decimal | float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    return [shown(part) for part in value] if isinstance(value, Sequence) else value


# Each row: attributes of the source of six frames, the frames that are taken, attributes of the new instance. None: gone.
Row = tuple[dict[str, object], list[int], dict[str, object]]

TIME: list[Row] = [
    # the first frame is still there
    (
        {"FrameTime": "40", "FrameIncrementPointer": FRAME_TIME, "CineRate": 25},
        [1, 2, 3],
        {"FrameTime": 40.0, "FrameIncrementPointer": FRAME_TIME, "CineRate": 25, "ContentTime": "101112.5"},
    ),
    # a regular distance
    (
        {"FrameTime": "40", "FrameIncrementPointer": FRAME_TIME, "CineRate": 25, "RecommendedDisplayFrameRate": 25},
        [1, 3, 5],
        {"FrameTime": 80.0, "FrameIncrementPointer": FRAME_TIME, "CineRate": None, "RecommendedDisplayFrameRate": None},
    ),
    # numbers that are too long for a DS are rounded
    ({"FrameTime": "33.3333333333333", "FrameIncrementPointer": FRAME_TIME}, [1, 5], {"FrameTime": 133.333333333333}),
    ({"FrameTime": "1e-17", "FrameIncrementPointer": FRAME_TIME}, [1, 3], {"FrameTime": 2e-17}),
    # a single frame
    ({"FrameTime": "40", "FrameIncrementPointer": FRAME_TIME}, [1], {"FrameTime": 40.0}),
    # an irregular one: Frame Time becomes Frame Time Vector
    (
        {"FrameTime": "33.333", "FrameIncrementPointer": FRAME_TIME, "FrameDimensionPointer": FRAME_TIME},
        [1, 2, 4],
        {
            "FrameTime": None,
            "FrameTimeVector": [0.0, 33.333, 66.666],
            "FrameIncrementPointer": FRAME_TIME_VECTOR,
            "FrameDimensionPointer": FRAME_TIME_VECTOR,
        },
    ),
    # times go on from the last frame that was taken
    (
        {"FrameTimeVector": [0, 10, 20, 30, 40, 50], "FrameIncrementPointer": FRAME_TIME_VECTOR, "CineRate": 10},
        [1, 3, 6],
        {"FrameTimeVector": [0.0, 30.0, 120.0], "FrameIncrementPointer": FRAME_TIME_VECTOR, "CineRate": None},
    ),
    # a vector that nothing points to is kept right, or left out
    (
        {"FrameTimeVector": [0, 1, 2, 3, 4, 5], "FrameTime": "3"},
        [1, 3],
        {"FrameTimeVector": [0.0, 3.0], "FrameTime": 6.0},
    ),
    ({"FrameTimeVector": [0, 1], "FrameIncrementPointer": 0x00182001}, [1, 3], {"FrameTimeVector": None}),
    ({"FrameTime": "3", "FrameIncrementPointer": 0x00182001}, [1, 2, 6], {"FrameTime": None, "FrameTimeVector": None}),
    # the start moves (PS3.17 MM.2.2)
    (
        {
            "FrameTime": "500",
            "FrameIncrementPointer": FRAME_TIME,
            "FrameDelay": "100",
            "ImageTriggerDelay": "20",
            "RWaveTimeVector": [100.0, 1100.5],
            "EffectiveDuration": "3",
            "AcquisitionDate": "20240229",
            "AcquisitionTime": "235959.75",
            "AcquisitionDateTime": "20240229235959.75+0130",
        },
        [3, 4],
        {
            "ContentDate": "20240229",
            "ContentTime": "101113.500000",
            "FrameDelay": 100.0,
            "ImageTriggerDelay": 1020.0,
            "RWaveTimeVector": [-900.0, 100.5],
            "EffectiveDuration": None,
            "AcquisitionDate": "20240301",
            "AcquisitionTime": "000000.750000",
            "AcquisitionDateTime": "20240301000000.750000+0130",
        },
    ),
    (
        {"FrameTimeVector": [0, 10, 20, 30, 40, 50], "FrameIncrementPointer": FRAME_TIME_VECTOR},
        [4],
        {"ContentTime": "101112.560000", "FrameTimeVector": 0.0},
    ),
    # frames that do not go by time have no start of their own
    ({"FrameTime": "500", "FrameIncrementPointer": 0x00540080}, [3, 4], {"ContentTime": "101112.5"}),
    # nor do years of five digits
    (
        {
            "FrameTime": "86400000",
            "ContentDate": "99991231",
            "AcquisitionDate": "20240230",
            "AcquisitionTime": "10",
            "AcquisitionDateTime": "99991231101112",
        },
        [3],
        {"ContentDate": "99991231", "AcquisitionDate": "20240230", "AcquisitionDateTime": "99991231101112"},
    ),
    # what cannot be read stays
    (
        {"FrameTime": "500", "ContentTime": "", "AcquisitionTime": "noon", "AcquisitionDateTime": "2024"},
        [3],
        {"ContentTime": "", "AcquisitionTime": "noon", "AcquisitionDateTime": "2024"},
    ),
]

VECTORS: list[Row] = [
    (
        {
            "PageNumberVector": [1, 2, 3, 4, 5, 6],
            "FrameLabelVector": ["a", "b", "c", "d", "e", "f"],
            "FramePrimaryAngleVector": [0, 15, 30, 45, 60, 75],
            "FrameSecondaryAngleVector": [0, 1, 2, 3, 4, 5],
            "SliceLocationVector": ["1.5", "2.5", "3.5", "4.5", "5.5", "6.5"],
            "DisplayWindowLabelVector": ["", "left", "", "right", "", ""],
        },
        [2, 4],
        {
            "PageNumberVector": [2, 4],
            "FrameLabelVector": ["b", "d"],
            "FramePrimaryAngleVector": [15.0, 45.0],
            "FrameSecondaryAngleVector": [1.0, 3.0],
            "SliceLocationVector": [2.5, 4.5],
            "DisplayWindowLabelVector": ["left", "right"],
        },
    ),
    (
        {
            "EnergyWindowVector": [1, 1, 1, 2, 2, 2],
            "DetectorVector": [1, 2, 3, 1, 2, 3],
            "PhaseVector": [1, 1, 1, 1, 1, 2],
            "RotationVector": [1, 1, 1, 2, 2, 2],
            "RRIntervalVector": [1, 2, 3, 4, 5, 6],
            "TimeSlotVector": [6, 5, 4, 3, 2, 1],
            "SliceVector": [1, 2, 3, 4, 5, 300],
            "AngularViewVector": [1, 2, 3, 4, 5, 6],
            "TimeSliceVector": [1, 2, 3, 4, 5, 6],
            "FrameIncrementPointer": [0x00540010, 0x00540020],
            "NumberOfSlices": 6,
        },
        [1, 6],
        {
            "EnergyWindowVector": [1, 2],
            "DetectorVector": [1, 3],
            "PhaseVector": [1, 2],
            "RotationVector": [1, 2],
            "RRIntervalVector": [1, 6],
            "TimeSlotVector": [6, 1],
            "SliceVector": [1, 300],
            "AngularViewVector": [1, 6],
            "TimeSliceVector": [1, 6],
            "FrameIncrementPointer": [0x00540010, 0x00540020],
            "NumberOfSlices": 6,
        },
    ),
    ({"PageNumberVector": [1, 2, 3]}, [1, 2], {"PageNumberVector": None}),
]

MOVEMENTS: list[Row] = [
    # a vector of offsets from the first position
    (
        {
            "PositionerMotion": "DYNAMIC",
            "PositionerPrimaryAngle": "-30",
            "PositionerPrimaryAngleIncrement": [0, 1, 3, 6, 10, 15],
            "PositionerSecondaryAngle": "5",
            "PositionerSecondaryAngleIncrement": [0, 0, 0, 0, 0, 0],
        },
        [3, 5],
        {
            "PositionerMotion": "DYNAMIC",
            "PositionerPrimaryAngle": -27.0,
            "PositionerPrimaryAngleIncrement": [0.0, 7.0],
            "PositionerSecondaryAngle": 5.0,
            "PositionerSecondaryAngleIncrement": [0.0, 0.0],
        },
    ),
    # the same change for each frame
    (
        {"PositionerPrimaryAngle": "10", "PositionerPrimaryAngleIncrement": "2.5"},
        [2, 3, 6],
        {"PositionerPrimaryAngle": 12.5, "PositionerPrimaryAngleIncrement": [0.0, 2.5, 10.0]},
    ),
    # the position of the first frame is unknown
    (
        {"PositionerPrimaryAngle": "", "PositionerPrimaryAngleIncrement": [0, 1, 2, 3, 4, 5]},
        [3, 4],
        {"PositionerPrimaryAngle": None, "PositionerPrimaryAngleIncrement": [2.0, 3.0]},
    ),
    # the table moves "relative to first frame"
    (
        {
            "TableMotion": "DYNAMIC",
            "TableVerticalIncrement": [0, 1, 2, 3, 4, 5],
            "TableLateralIncrement": "2",
            "TableLongitudinalIncrement": "",
        },
        [2, 4],
        {
            "TableMotion": "DYNAMIC",
            "TableVerticalIncrement": [0.0, 2.0],
            "TableLateralIncrement": [0.0, 4.0],
            "TableLongitudinalIncrement": None,
        },
    ),
    # a single frame does not move
    (
        {
            "PositionerMotion": "DYNAMIC",
            "PositionerPrimaryAngle": "10",
            "PositionerPrimaryAngleIncrement": "2.5",
            "TableMotion": "",
            "TableVerticalIncrement": [0, 1, 2, 3, 4, 5],
        },
        [3],
        {
            "PositionerMotion": "STATIC",
            "PositionerPrimaryAngle": 15.0,
            "PositionerPrimaryAngleIncrement": None,
            "TableMotion": "",
            "TableVerticalIncrement": None,
        },
    ),
    ({"PositionerPrimaryAngleIncrement": [1, 2, 3]}, [1, 2], {"PositionerPrimaryAngleIncrement": None}),
]

DOSE: list[Row] = [
    (
        {
            "GridFrameOffsetVector": [0, 2, 4, 6, 8, 10],
            "ImagePositionPatient": [-10, -20, 30],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        },
        [2, 5],
        {"GridFrameOffsetVector": [0.0, 6.0], "ImagePositionPatient": [-10.0, -20.0, 32.0]},
    ),
    (
        {
            "GridFrameOffsetVector": [0, -2, -4, -6, -8, -10],
            "ImagePositionPatient": [1, 2, 3],
            "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
        },
        [3, 4],
        {"GridFrameOffsetVector": [0.0, -2.0], "ImagePositionPatient": [5.0, 2.0, 3.0]},
    ),
    # patient coordinates
    (
        {
            "GridFrameOffsetVector": [30, 32, 34, 36, 38, 40],
            "ImagePositionPatient": [-10, -20, 30],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        },
        [2, 3],
        {"GridFrameOffsetVector": [32.0, 34.0], "ImagePositionPatient": [-10.0, -20.0, 32.0]},
    ),
    ({"GridFrameOffsetVector": [0, 2, 4, 6, 8, 10]}, [3], {"GridFrameOffsetVector": 0.0, "ImagePositionPatient": None}),
]

REFERENCES: list[Row] = [
    ({"StartTrim": 2, "StopTrim": 5}, [1, 3, 4, 6], {"StartTrim": 2, "StopTrim": 3}),
    ({"StartTrim": 3}, [1, 2, 5], {"StartTrim": 3, "StopTrim": None}),
    ({"StopTrim": 3}, [1, 2, 5], {"StartTrim": None, "StopTrim": 2}),
    ({"StartTrim": 3, "StopTrim": 4}, [1, 6], {"StartTrim": None, "StopTrim": None}),
    (
        {"IVUSPullbackStartFrameNumber": 2, "IVUSPullbackStopFrameNumber": 6},
        [3, 4],
        {
            "IVUSPullbackStartFrameNumber": 1,
            "IVUSPullbackStopFrameNumber": 2,
        },
    ),
    ({"RepresentativeFrameNumber": 4}, [1, 4], {"RepresentativeFrameNumber": 2}),
    ({"RepresentativeFrameNumber": 4}, [1, 5], {"RepresentativeFrameNumber": None}),
    ({"RWavePointer": [1, 3, 6]}, [3, 4, 6], {"RWavePointer": [1, 3]}),
    (
        {
            "FrameNumbersOfInterest": [2, 3, 6],
            "FrameOfInterestDescription": ["start", "peak", "end"],
            "FrameOfInterestType": ["A", "B", "C"],
        },
        [3, 6],
        {
            "FrameNumbersOfInterest": [1, 2],
            "FrameOfInterestDescription": ["peak", "end"],
            "FrameOfInterestType": ["B", "C"],
        },
    ),
    (
        {"FrameNumbersOfInterest": [2, 3], "FrameOfInterestDescription": ["start", "peak"]},
        [4],
        {"FrameNumbersOfInterest": None, "FrameOfInterestDescription": None},
    ),
    ({"StereoPairsPresent": "YES"}, [3, 4, 5, 6], {"StereoPairsPresent": "YES"}),
    ({"StereoPairsPresent": "YES"}, [2, 3], {"StereoPairsPresent": None}),
    ({"StereoPairsPresent": "YES"}, [1, 2, 3], {"StereoPairsPresent": None}),
    ({"DimensionOrganizationType": "3D"}, [1, 3], {"DimensionOrganizationType": None}),
    ({"DimensionOrganizationType": "TILED_SPARSE"}, [1, 3], {"DimensionOrganizationType": "TILED_SPARSE"}),
]

GONE: list[Row] = [
    (
        {
            "InstanceCreationDate": "20240101",
            "InstanceCreationTime": "1200",
            "InstanceCreatorUID": "1.2",
            "SOPInstanceStatus": "AO",
            "PixelDataProviderURL": "http://example.org",
            "ConcatenationUID": "1.2",
            "InConcatenationNumber": 1,
            "InConcatenationTotalNumber": 2,
            "ConcatenationFrameOffsetNumber": 0,
            "SOPInstanceUIDOfConcatenationSource": "1.2",
            "MaskPointers": [1, 2],
            "IconImageSequence": items(item(Rows=1)),
        },
        [1, 2],
        dict.fromkeys(
            [
                *("InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID", "SOPInstanceStatus"),
                *("PixelDataProviderURL", "ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber"),
                *("ConcatenationFrameOffsetNumber", "SOPInstanceUIDOfConcatenationSource", "MaskPointers"),
                "IconImageSequence",
            ]
        ),
    ),
]


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize(("source", "frames", "expected"), [*TIME, *VECTORS, *MOVEMENTS, *DOSE, *REFERENCES, *GONE])
def test_attributes_are_fitted_to_the_frames(
    tmp_path: Path, source: dict[str, object], frames: list[int], expected: dict[str, object], syntax: str
) -> None:
    new = extract(written(tmp_path / "source.dcm", image(6, **source), syntax), frames)
    assert {keyword: shown(new.get(keyword)) for keyword in expected} == expected


@pytest.mark.parametrize(
    "source",
    [
        {"FrameTimeVector": [0, 1], "FrameIncrementPointer": FRAME_TIME_VECTOR},
        {"SliceVector": [1, 2], "FrameIncrementPointer": 0x00540080},
        {"GridFrameOffsetVector": [0, 1]},
        {"GridFrameOffsetVector": [0, 1, 2, 3, 4, 5], "ImagePositionPatient": [0, 0, 0]},
        {"PerFrameFunctionalGroupsSequence": items(item(), item())},
    ],
)
def test_a_source_that_does_not_say_what_belongs_to_its_frames_is_0xaa02(
    tmp_path: Path, source: dict[str, object]
) -> None:
    assert status_of(tmp_path, image(6, **source), FrameSelection(simple=(2, 3))) == 0xAA02


def test_functional_groups_without_an_item_stay(tmp_path: Path) -> None:
    assert (
        len(take(tmp_path, image(3, PerFrameFunctionalGroupsSequence=items()), [1]).PerFrameFunctionalGroupsSequence)
        == 0
    )


def test_the_planes_of_an_overlay_may_lie_in_the_pixel_data(tmp_path: Path) -> None:
    source = with_overlay(b"", number=3)
    del source[0x60023000]
    new = take(tmp_path, source, [2, 3])
    assert (int(new[NUMBER].value), new[ORIGIN].value) == (2, 1)


def test_private_attributes_curves_and_group_lengths_are_left_out(tmp_path: Path) -> None:
    source = image(3)
    source.add_new(0x00090010, "LO", "Acme")
    source.add_new(0x00091001, "LO", "about frame 2")
    source.add_new(0x50000005, "US", 1)
    source.add_new(0x00080000, "UL", 1234)
    kept = {element.tag for element in image(3)}
    new = take(tmp_path, source, [2])
    assert {element.tag for element in new} == kept | {0x00081164, 0x0018A001}


@pytest.mark.parametrize(
    ("character_set", "raw", "chosen"),
    [
        ("GB18030", b"A\x8e\\B\\C\xb0\xa1\\D", b"C\xb0\xa1"),
        ("\\ISO 2022 IR 87", b"A\x1b$B0\\;3\x1b(B\\\x1b$B$\\\x1b(B\\D", b"\x1b$B$\\\x1b(B"),
        ("ISO_IR 100", b"\xc4\\\xd6\\\xdc", b"\xd6"),
    ],
)
def test_a_backslash_inside_of_a_character_does_not_end_a_value(
    tmp_path: Path, character_set: str, raw: bytes, chosen: bytes
) -> None:
    source = image(3, SpecificCharacterSet=character_set.split("\\"))
    path = written(tmp_path / "source.dcm", source)
    whole = path.read_bytes()
    padded = raw + b" " * (len(raw) % 2)
    at = whole.index(b"\x20\x00\x0d\x00UI")
    label = b"\x18\x00\x02\x20SH" + len(padded).to_bytes(2, "little") + padded
    path.write_bytes(whole[:at] + label + whole[at:])
    extracted = extract_frames(path, FrameSelection(simple=(2,)), new_uid=NEW_UID)
    padded = chosen + b" " * (len(chosen) % 2)
    assert b"\x18\x00\x02\x20SH" + len(padded).to_bytes(2, "little") + padded in read_whole(extracted)


# Time


REFERENCE_TIMES = ["20240229101112.5", "20240229101113.0", "20240229101115.25", "20240301000000"]


def with_reference_times(times: Sequence[str | None]) -> Dataset:
    groups = [item(FrameContentSequence=items(item(FrameReferenceDateTime=time) if time else item())) for time in times]
    return image(len(times), PerFrameFunctionalGroupsSequence=items(*groups))


TIME_RANGES: list[tuple[dict[str, object], tuple[float, float], list[int]]] = [
    ({"FrameTime": "500", "FrameIncrementPointer": FRAME_TIME}, (0.5, 1.5), [2, 3, 4]),
    ({"FrameTime": "500", "FrameIncrementPointer": FRAME_TIME, "FrameDelay": "250"}, (0.5, 1.5), [2, 3]),
    ({"FrameTime": "33.333", "FrameIncrementPointer": FRAME_TIME}, (0.033333, 0.066666), [2, 3]),
    ({"FrameTime": "0.1", "FrameIncrementPointer": FRAME_TIME}, (0.0003, 0.0003), [4]),
    ({"FrameTime": "500"}, (-5.0, 0.7), [1, 2]),
    ({"FrameTimeVector": [0, 10, 20, 30, 40, 50], "FrameIncrementPointer": FRAME_TIME_VECTOR}, (0.03, 0.1), [3, 4, 5]),
    ({"FrameTimeVector": [0, 10, 20, 30, 40, 50]}, (0.03, 0.1), [3, 4, 5]),
]


@pytest.mark.parametrize(("source", "limits", "frames"), TIME_RANGES)
def test_a_time_range_takes_the_frames_from_start_to_end(
    tmp_path: Path, source: dict[str, object], limits: tuple[float, float], frames: list[int]
) -> None:
    path = written(tmp_path / "source.dcm", image(6, **source))
    extracted = extract_frames(path, FrameSelection(time_range=limits), new_uid=NEW_UID)
    assert list(extracted.frames) == frames


@pytest.mark.parametrize(
    ("limits", "frames"),
    [((0.0, 0.5), (1, 2)), ((0.4, 100.0), (2, 3)), ((3600.0, 86400.0), (4,)), ((-10.0, 1e6), (1, 2, 3, 4))],
)
def test_frame_reference_date_times_count_from_the_content_time(
    tmp_path: Path, limits: tuple[float, float], frames: tuple[int, ...]
) -> None:
    path = written(tmp_path / "source.dcm", with_reference_times(REFERENCE_TIMES))
    assert extract_frames(path, FrameSelection(time_range=limits), new_uid=NEW_UID).frames == frames


@pytest.mark.parametrize(
    ("timezone", "times", "frames"),
    [
        ("+0100", ["20240229101112.5", "20240229091113.5+0000", "20240229101113.5+0200"], (1, 2)),
        # "The local timezone offset is undefined if this Attribute is absent": that of the values is as good as any.
        (None, ["20240229101112.5-0500", "20240229101113-0500", "20240229101213-0500"], (1, 2)),
    ],
)
def test_time_zones_are_taken_into_account(
    tmp_path: Path, timezone: str | None, times: list[str], frames: tuple[int, ...]
) -> None:
    source = with_reference_times(times)
    if timezone is not None:
        source.TimezoneOffsetFromUTC = timezone
    path = written(tmp_path / "source.dcm", source)
    assert extract_frames(path, FrameSelection(time_range=(0.0, 2.0)), new_uid=NEW_UID).frames == frames


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"FrameTime": "40", "FrameIncrementPointer": 0x00540080},
        {"FrameTime": "", "FrameIncrementPointer": FRAME_TIME},
        {"FrameTimeVector": [0, 1], "FrameIncrementPointer": FRAME_TIME_VECTOR},
        {"FrameTimeVector": [0, 1, 2], "FrameIncrementPointer": FRAME_TIME},
        {"PerFrameFunctionalGroupsSequence": items(item(), item())},
        {"PerFrameFunctionalGroupsSequence": items(item(), item(), item())},
    ],
)
def test_frames_whose_times_cannot_be_told_are_0xaa03(tmp_path: Path, source: dict[str, object]) -> None:
    assert status_of(tmp_path, image(3, **source), FrameSelection(time_range=(0.0, 1e9))) == 0xAA03


@pytest.mark.parametrize("text", ["fast", "1e999999", "NaN", "1_0", "1,5"])
def test_a_frame_time_that_is_no_number_tells_no_times(tmp_path: Path, text: str) -> None:
    source = image(3)
    source.add_new(FRAME_TIME, "LO", text)
    assert status_of(tmp_path, source, FrameSelection(time_range=(0.0, 1e9))) == 0xAA03


@pytest.mark.parametrize("odd", [None, "tomorrow"])
def test_one_frame_without_a_reference_time_is_enough_for_0xaa03(tmp_path: Path, odd: str | None) -> None:
    source = with_reference_times(["20240229101112", odd, "20240229101114"])
    assert status_of(tmp_path, source, FrameSelection(time_range=(0.0, 1e9))) == 0xAA03


@pytest.mark.parametrize("missing", ["ContentDate", "ContentTime"])
def test_reference_times_without_a_content_time_are_0xaa03(tmp_path: Path, missing: str) -> None:
    source = with_reference_times(REFERENCE_TIMES)
    del source[missing]
    assert status_of(tmp_path, source, FrameSelection(time_range=(0.0, 1e9))) == 0xAA03


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 500), min_size=6, max_size=6),
    st.sets(st.integers(1, 6), min_size=1).map(sorted),
    st.booleans(),
)
def test_each_frame_keeps_its_time_of_the_day(
    tmp_path: Path, increments: list[int], frames: list[int], regular: bool
) -> None:
    increments = [0, *([increments[0]] * 5 if regular else increments[1:])]
    pointed: dict[str, object] = {"FrameTimeVector": increments, "FrameIncrementPointer": FRAME_TIME_VECTOR}
    if regular:
        pointed = {"FrameTime": str(increments[1]), "FrameIncrementPointer": FRAME_TIME}
    new = take(tmp_path, image(6, **pointed), frames)

    def milliseconds(text: str) -> float:
        return (int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:])) * 1000

    before = [milliseconds("101112.5") + sum(increments[:frame]) for frame in frames]
    if new.FrameIncrementPointer == FRAME_TIME:
        steps = [0.0] + [float(new.FrameTime)] * (len(frames) - 1)
    else:
        vector = new.FrameTimeVector
        steps = [float(step) for step in (vector if isinstance(vector, Sequence) else [vector])]
    after = [milliseconds(new.ContentTime) + sum(steps[: index + 1]) for index in range(len(frames))]
    assert after == pytest.approx(before, abs=0.01)


# Functional groups and items about frames


@pytest.mark.parametrize("syntax", NATIVE)
def test_each_frame_keeps_its_functional_groups(tmp_path: Path, syntax: str) -> None:
    def group(number: int) -> Dataset:
        content = item(FrameAcquisitionNumber=number, DimensionIndexValues=[1, number])
        return item(
            FrameContentSequence=items(content),
            PlanePositionSequence=items(item(ImagePositionPatient=[0, 0, number])),
        )

    source = image(5, PerFrameFunctionalGroupsSequence=items(*map(group, range(1, 6))))
    source.SharedFunctionalGroupsSequence = items(item(PixelMeasuresSequence=items(item(SliceThickness="1"))))
    new = extract(written(tmp_path / "source.dcm", source, syntax), [2, 5])
    assert list(new.PerFrameFunctionalGroupsSequence) == [group(2), group(5)]
    assert new.SharedFunctionalGroupsSequence == source.SharedFunctionalGroupsSequence


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("entry", [True, False])
def test_functional_groups_may_have_undefined_lengths(tmp_path: Path, sequence: bool, entry: bool) -> None:
    groups = [item(FrameContentSequence=items(item(FrameAcquisitionNumber=number))) for number in range(1, 5)]
    for group in groups:
        group.is_undefined_length_sequence_item = entry
        group["FrameContentSequence"].is_undefined_length = entry
        group.FrameContentSequence[0].is_undefined_length_sequence_item = entry
    source = image(4, PerFrameFunctionalGroupsSequence=items(*groups))
    source["PerFrameFunctionalGroupsSequence"].is_undefined_length = sequence
    path = written(tmp_path / "source.dcm", source)
    assert (path.read_bytes().count(b"\xff\xff\xff\xff")) == sequence + entry * 3 * 4
    new = extract(path, [1, 4])
    numbers = [group.FrameContentSequence[0].FrameAcquisitionNumber for group in new.PerFrameFunctionalGroupsSequence]
    assert numbers == [1, 4]


def test_masks_are_kept_where_their_frames_are(tmp_path: Path) -> None:
    source = image(
        6,
        RecommendedViewingMode="SUB",
        MaskSubtractionSequence=items(
            item(MaskOperation="AVG_SUB", MaskFrameNumbers=[1, 2], ApplicableFrameRange=[3, 4, 6, 6]),
            item(MaskOperation="AVG_SUB", MaskFrameNumbers=[1, 5], ApplicableFrameRange=[3, 6]),
            item(MaskOperation="AVG_SUB", MaskFrameNumbers=[1], ApplicableFrameRange=[5, 5]),
            item(MaskOperation="NONE", MaskOperationExplanation="why not"),
            item(MaskOperation="TID", TIDOffset=1, ApplicableFrameRange=[2, 6]),
        ),
    )
    new = take(tmp_path, source, [1, 2, 4, 6])
    first, last = new.MaskSubtractionSequence
    assert (first.MaskFrameNumbers, first.ApplicableFrameRange) == ([1, 2], [3, 3, 4, 4])
    assert last == item(MaskOperation="NONE", MaskOperationExplanation="why not")
    assert new.RecommendedViewingMode == "SUB"


@pytest.mark.parametrize(
    ("mask", "frames", "expected"),
    [
        ({"TIDOffset": 2, "ApplicableFrameRange": [3, 6]}, [3, 4, 5, 6], [3, 4]),
        ({"TIDOffset": -1, "ApplicableFrameRange": [1, 5]}, [2, 3, 4], [1, 2]),
        ({"ApplicableFrameRange": [2, 6]}, [4, 5, 6], [2, 3]),
        ({"TIDOffset": 3, "ApplicableFrameRange": [4, 6]}, [4, 5, 6], None),
        ({}, [3], None),
    ],
)
def test_masks_that_are_found_by_their_distance_stay_within_the_frames(
    tmp_path: Path, mask: dict[str, object], frames: list[int], expected: list[int] | None
) -> None:
    source = image(6, RecommendedViewingMode="SUB", MaskSubtractionSequence=items(item(MaskOperation="TID", **mask)))
    new = take(tmp_path, source, frames)
    if expected is None:
        assert "MaskSubtractionSequence" not in new
        assert "RecommendedViewingMode" not in new
    else:
        assert new.MaskSubtractionSequence[0].ApplicableFrameRange == expected


def test_reversed_differences_need_frames_that_come_before(tmp_path: Path) -> None:
    mask = item(MaskOperation="REV_TID", ApplicableFrameRange=[4, 6])
    assert "MaskSubtractionSequence" not in take(tmp_path, image(6, MaskSubtractionSequence=items(mask)), [4, 5, 6])


def test_items_about_frames_follow_them(tmp_path: Path) -> None:
    source = image(
        6,
        FrameDisplaySequence=items(
            item(StartTrim=1, StopTrim=2, SkipFrameRangeFlag="DISPLAY"),
            item(StartTrim=3, StopTrim=3, SkipFrameRangeFlag="SKIP"),
            item(StartTrim=4, StopTrim=6, SkipFrameRangeFlag="DISPLAY"),
        ),
        ExposureSequence=items(
            item(ReferencedFrameNumber=1, ExposureTime=10),
            item(ReferencedFrameNumber=4, ExposureTime=40),
            item(ExposureTime=99),
        ),
        AcquisitionContextSequence=items(
            item(NumericValue="1", ReferencedFrameNumbers=[1, 4]),
            item(NumericValue="2", ReferencedFrameNumbers=[2]),
            item(NumericValue="3"),
        ),
    )
    new = take(tmp_path, source, [2, 4, 5])
    assert [(entry.StartTrim, entry.StopTrim) for entry in new.FrameDisplaySequence] == [(1, 1), (2, 3)]
    assert [(entry.get("ReferencedFrameNumber"), entry.ExposureTime) for entry in new.ExposureSequence] == [
        (2, 40),
        (None, 99),
    ]
    assert [
        (entry.get("ReferencedFrameNumbers"), int(entry.NumericValue)) for entry in new.AcquisitionContextSequence
    ] == [(2, 1), (1, 2), (None, 3)]


def test_an_acquisition_context_stays_though_nothing_is_left_in_it(tmp_path: Path) -> None:
    context = items(item(NumericValue="1", ReferencedFrameNumbers=[1]))
    new = take(tmp_path, image(2, AcquisitionContextSequence=context), [2])
    assert len(new.AcquisitionContextSequence) == 0


# Overlays


def with_overlay(data: bytes, number: int | None = None, origin: int | None = None) -> Dataset:
    source = image(6)
    source.add_new(0x60020010, "US", 3)
    source.add_new(0x60020011, "US", 7)
    source.add_new(0x60020040, "CS", "G")
    if number is not None:
        source.add_new(NUMBER, "IS", number)
    if origin is not None:
        source.add_new(ORIGIN, "US", origin)
    source.add_new(0x60023000, "OW", data)
    return source


NUMBER, ORIGIN = 0x60020015, 0x60020051
DATA = bytes(range(100, 110))  # 80 bits, three planes of 21


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize(
    ("frames", "planes", "origin"),
    [([1, 3, 4, 6], [2, 3], 2), ([2, 3], [1, 2], 1), ([1, 2, 3, 4], [1, 2, 3], 2), ([4], [3], 1)],
)
def test_overlays_are_taken_with_their_frames(
    tmp_path: Path, syntax: str, frames: list[int], planes: list[int], origin: int
) -> None:
    source = with_overlay(DATA, number=3, origin=2)
    new = extract(written(tmp_path / "source.dcm", source, syntax), frames)
    assert (int(new[NUMBER].value), new[ORIGIN].value) == (len(planes), origin)
    swapped = syntax == sop.EXPLICIT_VR_BIG_ENDIAN
    value = new[0x60023000].value
    found = [naive_bits(value, 21, plane, swapped=swapped) for plane in range(1, len(planes) + 1)]
    assert found == [naive_bits(DATA, 21, plane) for plane in planes]


def test_overlays_over_other_frames_are_left_out(tmp_path: Path) -> None:
    source = with_overlay(DATA, number=3, origin=2)
    assert not any(element.tag >> 16 == 0x6002 for element in take(tmp_path, source, [1, 5, 6]))


def test_an_overlay_over_all_frames_stays(tmp_path: Path) -> None:
    source = with_overlay(bytes(4))
    new = take(tmp_path, source, [5])
    assert new[0x60023000].value == bytes(4)
    assert ORIGIN not in new


def test_an_overlay_over_one_frame_follows_it(tmp_path: Path) -> None:
    new = take(tmp_path, with_overlay(bytes(4), origin=3), [2, 3])
    assert new[ORIGIN].value == 2
    assert NUMBER not in new


def test_an_overlay_whose_planes_are_not_there_is_left_out(tmp_path: Path) -> None:
    source = with_overlay(bytes(4), number=3)
    assert not any(element.tag >> 16 == 0x6002 for element in take(tmp_path, source, [1]))


# Real instances


@pytest.mark.parametrize("name", ["rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"])
def test_the_planes_of_a_real_dose_stay_where_they_are(test_files: Path, name: str) -> None:
    source = pydicom.dcmread(test_files / name)
    new = extract(test_files / name, [4, 5, 9])
    start = float(source.ImagePositionPatient[2])
    planes = [start + float(source.GridFrameOffsetVector[frame - 1]) for frame in (4, 5, 9)]
    assert [float(new.ImagePositionPatient[2]) + float(offset) for offset in new.GridFrameOffsetVector] == planes
    assert new.GridFrameOffsetVector[0] == 0
    assert new.ImagePositionPatient[:2] == source.ImagePositionPatient[:2]
    assert new.DVHSequence == source.DVHSequence if "DVHSequence" in source else True


def test_a_real_cine_keeps_its_times(test_files: Path) -> None:
    path = test_files / "examples_ybr_color.dcm"
    source = pydicom.dcmread(path)
    new = extract(path, [2, 4, 6])
    assert float(new.FrameTime) == pytest.approx(2 * float(source.FrameTime))
    new = extract(path, [1, 2, 4])
    assert new.FrameIncrementPointer == FRAME_TIME_VECTOR
    assert [float(step) for step in new.FrameTimeVector] == pytest.approx([0.0, 33.333, 66.666])
