"""Taking frames out of instances: the request, the new instance as a whole, and what can go wrong."""

from __future__ import annotations

import contextlib
import io
import os
import tracemalloc
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

import asyncdicom
from asyncdicom import Instance, StoreRequest, sop
from asyncdicom.archive import identifier
from asyncdicom.archive.frames import FrameError, FrameSelection, extract_frames, parse_frames
from asyncdicom.dataset import encode_data_set, part10_head
from asyncdicom.exceptions import DataSetError
from asyncdicom.testing import connected

from ..conftest import TEST_FILES
from .multiframe import (
    NATIVE,
    NEW_UID,
    encapsulated,
    extract,
    image,
    item,
    items,
    naive_bits,
    read_whole,
    take,
    with_pixels,
    written,
)

SIMPLE, CALCULATED, TIME_RANGE = "SimpleFrameList", "CalculatedFrameList", "TimeRange"
LAST = 0xFFFFFFFF

# The request


def frame_identifier(**keys: object) -> Dataset:
    return item(QueryRetrieveLevel="FRAME", SOPInstanceUID="1.2.3", **keys)


VALID = [
    (SIMPLE, 7, FrameSelection(simple=(7,))),
    (SIMPLE, [1, 2, 5], FrameSelection(simple=(1, 2, 5))),
    (SIMPLE, [1, LAST], FrameSelection(simple=(1, LAST))),
    (CALCULATED, [2, 9, 3, 12, LAST, 5], FrameSelection(calculated=((2, 9, 3), (12, LAST, 5)))),
    (CALCULATED, [4, 4, 9], FrameSelection(calculated=((4, 4, 9),))),
    (CALCULATED, [1, 10, 4, 10, 12, 1], FrameSelection(calculated=((1, 10, 4), (10, 12, 1)))),  # 1, 5, 9 then 10
    (TIME_RANGE, [0.5, 2.0], FrameSelection(time_range=(0.5, 2.0))),
    (TIME_RANGE, [-1.0, -1.0], FrameSelection(time_range=(-1.0, -1.0))),
]


@pytest.mark.parametrize(("keyword", "value", "expected"), VALID)
@pytest.mark.parametrize("syntax", NATIVE)
def test_a_frame_range_key_is_read_from_both_forms_of_an_identifier(
    keyword: str, value: object, expected: FrameSelection, syntax: str
) -> None:
    ds = frame_identifier(**{keyword: value})
    assert parse_frames(ds) == expected
    data = encode_data_set(ds, syntax)
    assert parse_frames(identifier.decode_data_set(data, syntax)) == expected
    assert parse_frames(asyncdicom.dataset.decode_data_set(data, syntax)) == expected


INVALID: list[tuple[dict[str, object], tuple[int, ...]]] = [
    ({}, (0x00081161, 0x00081162, 0x00081163)),
    ({SIMPLE: [1], CALCULATED: [1, 2, 1]}, (0x00081161, 0x00081162)),
    ({SIMPLE: [1], TIME_RANGE: [0.0, 1.0]}, (0x00081161, 0x00081163)),
    ({SIMPLE: [1], CALCULATED: []}, (0x00081161, 0x00081162)),
    ({SIMPLE: None}, (0x00081161,)),
    ({SIMPLE: 0}, (0x00081161,)),
    ({SIMPLE: [0, 1]}, (0x00081161,)),
    ({SIMPLE: [2, 1]}, (0x00081161,)),
    ({SIMPLE: [2, 2]}, (0x00081161,)),
    ({CALCULATED: None}, (0x00081162,)),
    ({CALCULATED: [1, 2]}, (0x00081162,)),
    ({CALCULATED: [1, 2, 1, 3]}, (0x00081162,)),
    ({CALCULATED: [1, 2, 0]}, (0x00081162,)),
    ({CALCULATED: [0, 2, 1]}, (0x00081162,)),
    ({CALCULATED: [3, 2, 1]}, (0x00081162,)),
    ({CALCULATED: [1, 5, 1, 5, 9, 1]}, (0x00081162,)),
    ({CALCULATED: [5, 9, 1, 1, 2, 1]}, (0x00081162,)),
    ({CALCULATED: [1, LAST, 1, 5, 9, 1]}, (0x00081162,)),
    ({TIME_RANGE: None}, (0x00081163,)),
    ({TIME_RANGE: 1.0}, (0x00081163,)),
    ({TIME_RANGE: [1.0, 2.0, 3.0]}, (0x00081163,)),
    ({TIME_RANGE: [2.0, 1.0]}, (0x00081163,)),
    ({TIME_RANGE: [0.0, float("inf")]}, (0x00081163,)),
    ({TIME_RANGE: [float("nan"), 1.0]}, (0x00081163,)),
]


@pytest.mark.parametrize(("keys", "tags"), INVALID)
def test_an_invalid_request_is_0xaa04_and_says_which_element_offends(
    keys: dict[str, object], tags: tuple[int, ...]
) -> None:
    ds = frame_identifier(**keys)
    data = encode_data_set(ds, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    for form in (ds, identifier.decode_data_set(data, sop.EXPLICIT_VR_LITTLE_ENDIAN)):
        with pytest.raises(FrameError) as caught:
            parse_frames(form)
        assert caught.value.status == 0xAA04
        assert caught.value.offending_elements == tags
        assert caught.value.comment


@pytest.mark.parametrize("value", [[1, LAST + 1], [-1, 2], [True, 2], ["1", "2"], [1.0, 2.0], b"\1\0\0"])
def test_a_frame_list_of_anything_but_numbers_of_32_bits_is_invalid(value: object) -> None:
    with pytest.raises(FrameError) as caught:
        parse_frames({0x00081161: identifier.Element("UL", value)})  # type: ignore[arg-type]
    assert caught.value.status == 0xAA04


def test_a_key_that_cannot_be_decoded_is_invalid() -> None:
    raw = b"\x08\x00\x61\x11UL\x03\x00abc"
    with pytest.raises(FrameError) as caught:
        parse_frames(pydicom.dcmread(io.BytesIO(raw), force=True))
    assert caught.value.status == 0xAA04


def test_the_example_of_the_standard_gives_the_frames_of_the_standard() -> None:
    selection = parse_frames(frame_identifier(CalculatedFrameList=[2, 9, 3, 12, LAST, 5]))
    assert selection.numbers(25) == [2, 5, 8, 12, 17, 22]


def test_a_sub_range_behind_the_last_frame_is_ignored() -> None:
    assert FrameSelection(calculated=((1, 3, 2), (30, 40, 1))).numbers(10) == [1, 3]
    assert FrameSelection(calculated=((8, 15, 1), (30, 40, 1))).numbers(10) == [8, 9, 10]


def test_only_the_last_sub_range_goes_past_the_last_frame() -> None:
    with pytest.raises(FrameError) as caught:
        FrameSelection(calculated=((1, 20, 15), (17, 17, 1))).numbers(17)
    assert caught.value.status == 0xAA04


triples = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 30), st.integers(1, 9)).map(lambda t: (t[0], t[0] + t[1], t[2])),
    min_size=1,
    max_size=4,
)


@given(triples, st.integers(1, 50), st.booleans())
def test_a_calculated_frame_list_means_what_counting_says(
    chosen: list[tuple[int, int, int]], total: int, endless: bool
) -> None:
    if endless:
        chosen = [*chosen[:-1], (chosen[-1][0], LAST, chosen[-1][2])]
    numbers = [number for triple in chosen for number in triple]
    counted = [
        number
        for first, upper, step in chosen
        for number in range(first, max(min(upper, 100), first) + 1)
        if (number - first) % step == 0
    ]
    past = any(upper > total for first, upper, _ in [triple for triple in chosen if triple[0] <= total][:-1])
    if any(before >= after for before, after in pairwise(counted)) or past:
        with pytest.raises(FrameError, match="0xaa04"):
            parse_frames(frame_identifier(CalculatedFrameList=numbers)).numbers(total)
    else:
        found = parse_frames(frame_identifier(CalculatedFrameList=numbers)).numbers(total)
        assert found == [number for number in counted if number <= total]


# The new instance


def frames_of(ds: Dataset, total: int) -> list[bytes | list[int]]:
    """Return the frames of a data set as they are encoded, those of single bits as lists of bits."""
    value = ds["PixelData"].value
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        return list(generate_frames(value, number_of_frames=total))
    pixels = ds.Rows * ds.Columns * ds.SamplesPerPixel
    if ds.BitsAllocated == 1:
        return [naive_bits(value, pixels, frame) for frame in range(1, total + 1)]
    size = pixels * ds.BitsAllocated // 8
    return [value[at : at + size] for at in range(0, total * size, size)]


#: The multi-frame instances that ship inside pydicom.
SHIPPED = (
    *("examples_ybr_color.dcm", "rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm"),
    *("SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_rle_32bit_2frame.dcm"),
)
#: Those of the package pydicom-data, which are used where it is installed.
FURTHER = (
    *("OBXXXX1A_2frame.dcm", "OBXXXX1A_expb_2frame.dcm", "OBXXXX1A_rle_2frame.dcm", "SC_rgb_2frame.dcm"),
    *("SC_rgb_16bit_2frame.dcm", "SC_rgb_32bit_2frame.dcm", "SC_rgb_expb_2frame.dcm", "SC_rgb_expb_16bit_2frame.dcm"),
    *("SC_rgb_expb_32bit_2frame.dcm", "color3d_jpeg_baseline.dcm", "eCT_Supplemental.dcm", "emri_small.dcm"),
    *("emri_small_RLE.dcm", "emri_small_big_endian.dcm", "emri_small_jpeg_2k_lossless.dcm"),
    *("emri_small_jpeg_ls_lossless.dcm", "liver.dcm", "liver_expb.dcm"),
)


def real_files() -> list[Path]:
    """Return where the real instances are."""
    found = [TEST_FILES / name for name in SHIPPED]
    package = find_spec("data_store")
    if package is not None and package.origin is not None:
        found += [Path(package.origin).parent / "data" / name for name in FURTHER]
    return found


REAL_FILES = real_files()


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.name)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_frames_of_real_instances_come_out_as_they_are(path: Path, data: st.DataObject) -> None:
    source = pydicom.dcmread(path)
    total = int(source.NumberOfFrames)
    frames = sorted(data.draw(st.sets(st.integers(1, total), min_size=1)))
    new = pydicom.dcmread(_as_file(path, frames))
    expected = frames_of(source, total)
    assert frames_of(new, len(frames)) == [expected[frame - 1] for frame in frames]
    assert int(new.NumberOfFrames) == len(frames)
    assert new["PixelData"].VR == source["PixelData"].VR
    assert len(new["PixelData"].value) % 2 == 0


def _as_file(path: Path, frames: list[int]) -> io.BytesIO:
    extracted = extract_frames(path, FrameSelection(simple=tuple(frames)), new_uid=NEW_UID)
    head = part10_head(extracted.sop_class_uid, extracted.sop_instance_uid, extracted.transfer_syntax_uid)
    return io.BytesIO(head + read_whole(extracted))


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.name)
def test_frames_of_real_instances_are_decoded_by_pydicom_to_the_same_pixels(path: Path) -> None:
    pytest.importorskip("numpy")
    source = pydicom.dcmread(path)
    total = int(source.NumberOfFrames)
    frames = list(range(2, total + 1, 2))
    try:
        pixels = source.pixel_array
    except RuntimeError as exc:
        pytest.skip(f"pydicom has no decoder for it here: {type(exc).__name__}")
    new = pydicom.dcmread(_as_file(path, frames)).pixel_array
    expected = pixels[[frame - 1 for frame in frames]]
    assert new.reshape(expected.shape).tobytes() == expected.tobytes()


@pytest.mark.parametrize("syntax", NATIVE)
def test_the_new_instance_is_the_source_but_for_what_has_to_change(tmp_path: Path, syntax: str) -> None:
    source = image(5)
    path = written(tmp_path / "source.dcm", source, syntax)
    before = datetime.now().astimezone()
    extracted = extract_frames(path, FrameSelection(simple=(2, 4)), new_uid=NEW_UID)
    assert extracted.sop_class_uid == source.SOPClassUID
    assert extracted.sop_instance_uid == NEW_UID
    assert extracted.transfer_syntax_uid == syntax
    assert extracted.source_sop_instance_uid == source.SOPInstanceUID
    assert extracted.frames == (2, 4)
    new = asyncdicom.dataset.decode_data_set(read_whole(extracted), syntax)

    assert new.SOPInstanceUID == NEW_UID
    assert new.NumberOfFrames == 2
    assert new.PixelData == bytes([2] * 4 + [4] * 4)
    (extraction,) = new.FrameExtractionSequence
    assert extraction.MultiFrameSourceSOPInstanceUID == source.SOPInstanceUID
    assert extraction.SimpleFrameList == [2, 4]
    assert len(extraction) == 2
    (equipment,) = new.ContributingEquipmentSequence
    assert equipment.Manufacturer
    (purpose,) = equipment.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109105", "DCM")
    contribution = datetime.strptime(str(equipment.ContributionDateTime), "%Y%m%d%H%M%S.%f%z")
    assert before - timedelta(seconds=1) < contribution < datetime.now().astimezone() + timedelta(seconds=1)
    for keyword in (
        *("SOPInstanceUID", "NumberOfFrames", "PixelData"),
        *("FrameExtractionSequence", "ContributingEquipmentSequence"),
    ):
        for ds in (new, source):
            if keyword in ds:
                del ds[keyword]
    assert new == source


@pytest.mark.parametrize("syntax", NATIVE)
def test_frames_of_an_extracted_instance_keep_the_history_of_both_extractions(tmp_path: Path, syntax: str) -> None:
    source = image(9, ContributingEquipmentSequence=items(item(Manufacturer="Acme")))
    path = written(tmp_path / "source.dcm", source, syntax)
    once = extract_frames(path, FrameSelection(calculated=((1, LAST, 2),)), new_uid="1.2.3.4.6")
    second = tmp_path / "second.dcm"
    second.write_bytes(part10_head(once.sop_class_uid, "1.2.3.4.6", syntax) + read_whole(once))
    new = extract(second, FrameSelection(simple=(2, 3)))
    assert new.PixelData == bytes([3] * 4 + [5] * 4)
    first, last = new.FrameExtractionSequence
    assert (first.MultiFrameSourceSOPInstanceUID, first.CalculatedFrameList) == ("1.2.3.4.5", [1, LAST, 2])
    assert (last.MultiFrameSourceSOPInstanceUID, last.SimpleFrameList) == ("1.2.3.4.6", [2, 3])
    assert [equipment.Manufacturer for equipment in new.ContributingEquipmentSequence] == [
        *("Acme", "asyncdicom", "asyncdicom")
    ]


@pytest.mark.parametrize("header", ["08006711 08000000", "08006711 5549 0800"], ids=["implicit", "explicit"])
@pytest.mark.parametrize("length", ["10000000", "ffffffff"])
@pytest.mark.parametrize("end", [True, False])
def test_items_are_added_to_a_sequence_that_came_as_un(tmp_path: Path, header: str, length: str, end: bool) -> None:
    inside = bytes.fromhex("feff00e0" + length + header) + b"1.2.3.9\0"
    inside += bytes.fromhex("feff0de0 00000000") if length == "ffffffff" else b""
    size = bytes.fromhex("ffffffff") if end else len(inside).to_bytes(4, "little")
    inside += bytes.fromhex("feffdde0 00000000") if end else b""
    path = written(tmp_path / "source.dcm", image(2))
    whole = path.read_bytes()
    at = whole.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(whole[:at] + b"\x08\x00\x64\x11UN\0\0" + size + inside + whole[at:])
    new = extract(path, [2])
    assert [entry.MultiFrameSourceSOPInstanceUID for entry in new.FrameExtractionSequence] == ["1.2.3.9", "1.2.3.4.5"]
    assert new.PixelData == bytes([2] * 4)


def test_a_frame_list_that_is_too_long_for_a_ul_is_kept(tmp_path: Path) -> None:
    asked = tuple(range(1, 20_001))
    new = take(tmp_path, image(3), FrameSelection(simple=asked))
    assert new.NumberOfFrames == 3
    assert tuple(new.FrameExtractionSequence[0].SimpleFrameList) == asked


def test_the_time_range_is_kept_as_it_was_asked_for(tmp_path: Path) -> None:
    source = image(4, FrameTime="500", FrameIncrementPointer=0x00181063)
    new = take(tmp_path, source, FrameSelection(time_range=(0.5, 1.25)))
    assert new.PixelData == bytes([2] * 4 + [3] * 4)
    assert new.FrameExtractionSequence[0].TimeRange == [0.5, 1.25]


def test_the_contribution_has_the_time_that_was_given(tmp_path: Path) -> None:
    path = written(tmp_path / "source.dcm", image(2))
    now = datetime(2024, 2, 29, 12, 30, 15, 250_000, timezone(timedelta(hours=-3, minutes=-30)))
    extracted = extract_frames(path, FrameSelection(simple=(1,)), new_uid=NEW_UID, now=now)
    new = asyncdicom.dataset.decode_data_set(read_whole(extracted), extracted.transfer_syntax_uid)
    assert str(new.ContributingEquipmentSequence[0].ContributionDateTime) == "20240229123015.250000-0330"


def test_all_frames_may_be_asked_for(tmp_path: Path) -> None:
    new = take(tmp_path, image(3, StartTrim=2), FrameSelection(calculated=((1, LAST, 1),)))
    assert new.PixelData == bytes([1] * 4 + [2] * 4 + [3] * 4)
    assert new.StartTrim == 2
    assert new.SOPInstanceUID == NEW_UID


# What can go wrong


def status_of(path: Path, selection: FrameSelection) -> int:
    with pytest.raises(FrameError) as caught:
        extract_frames(path, selection, new_uid=NEW_UID)
    assert caught.value.comment
    assert str(path.parent) not in caught.value.comment
    return caught.value.status


@pytest.mark.parametrize(
    "selection",
    [
        FrameSelection(simple=(4, 9)),
        FrameSelection(calculated=((4, LAST, 1),)),
        FrameSelection(time_range=(10.0, 20.0)),
        FrameSelection(time_range=(0.51, 0.99)),
    ],
)
def test_none_of_the_frames_is_0xaa00(tmp_path: Path, selection: FrameSelection) -> None:
    source = image(3, FrameTime="500", FrameIncrementPointer=0x00181063)
    assert status_of(written(tmp_path / "source.dcm", source), selection) == 0xAA00


def test_frames_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    assert take(tmp_path, image(3), [2, 3, 4, 99]).NumberOfFrames == 2


@pytest.mark.parametrize("name", ["CT_small.dcm", "rtplan.dcm", "reportsi.dcm", "waveform_ecg.dcm"])
def test_what_is_no_multi_frame_image_is_0xaa01(test_files: Path, name: str) -> None:
    assert status_of(test_files / name, FrameSelection(simple=(1,))) == 0xAA01


def test_tiles_whose_positions_follow_from_their_numbers_are_0xaa01(tmp_path: Path) -> None:
    path = written(tmp_path / "source.dcm", image(4, DimensionOrganizationType="TILED_FULL"))
    assert status_of(path, FrameSelection(simple=(2,))) == 0xAA01
    assert extract(path, [1, 2, 3, 4]).NumberOfFrames == 4


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", "2147483647", "99999999999999"])
def test_a_senseless_number_of_frames_is_0xaa02(tmp_path: Path, number: str) -> None:
    path = written(tmp_path / "source.dcm", image(2))
    data = path.read_bytes()
    padded = number.encode() + b" " * (len(number) % 2)
    path.write_bytes(
        data.replace(b"\x28\x00\x08\x00IS\x02\x002 ", b"\x28\x00\x08\x00IS" + bytes([len(padded), 0]) + padded)
    )
    assert status_of(path, FrameSelection(calculated=((1, LAST, 1),))) == 0xAA02


def test_an_instance_without_pixel_data_is_0xaa02(tmp_path: Path) -> None:
    source = image(2)
    del source.PixelData
    assert status_of(written(tmp_path / "source.dcm", source), FrameSelection(simple=(1,))) == 0xAA02


def test_what_is_not_dicom_is_0xaa02(tmp_path: Path) -> None:
    path = tmp_path / "source.dcm"
    path.write_text("Dear sir or madam, " * 100)
    assert status_of(path, FrameSelection(simple=(1,))) == 0xAA02


def test_a_time_range_for_frames_without_times_is_0xaa03(tmp_path: Path) -> None:
    assert status_of(written(tmp_path / "source.dcm", image(3)), FrameSelection(time_range=(0, 1))) == 0xAA03


def test_a_sub_range_past_the_last_frame_that_is_not_the_last_is_0xaa04(tmp_path: Path) -> None:
    path = written(tmp_path / "source.dcm", image(17))
    assert status_of(path, FrameSelection(calculated=((1, 20, 15), (17, 17, 1)))) == 0xAA04


def test_a_file_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        extract_frames(tmp_path / "gone.dcm", FrameSelection(simple=(1,)), new_uid=NEW_UID)


def test_the_new_uid_must_be_one(test_files: Path) -> None:
    with pytest.raises(ValueError, match="no UID"):
        extract_frames(test_files / "rtdose.dcm", FrameSelection(simple=(1,)), new_uid="../../x")


@pytest.mark.parametrize("syntax", [sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN])
def test_a_file_that_was_replaced_meanwhile_is_not_read(tmp_path: Path, syntax: str) -> None:
    path = written(tmp_path / "source.dcm", image(3), syntax)
    extracted = extract_frames(path, FrameSelection(simple=(1,)), new_uid=NEW_UID)
    os.replace(written(tmp_path / "other.dcm", image(4), syntax), path)
    with pytest.raises(OSError, match="replaced"):
        extracted.open_source()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        extracted.open_source()


def test_a_file_that_shrinks_while_it_is_sent_is_an_os_error(tmp_path: Path) -> None:
    path = written(tmp_path / "source.dcm", image(300_000))
    extracted = extract_frames(path, FrameSelection(simple=tuple(range(2, 300_001))), new_uid=NEW_UID)
    source = extracted.open_source()
    assert source.read_into([memoryview(bytearray(100))]) == 100
    os.truncate(path, 10_000)
    with pytest.raises(OSError, match="shorter"):
        source.read_into([memoryview(bytearray(65536)) for _ in range(30)])
    source.close()


@pytest.mark.parametrize("syntax", [sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN])
def test_a_source_that_is_closed_holds_no_descriptor(tmp_path: Path, syntax: str) -> None:
    path = written(tmp_path / "source.dcm", image(3), syntax)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("nothing counts descriptors here")
    before = descriptors()
    extracted = extract_frames(path, FrameSelection(simple=(1,)), new_uid=NEW_UID)
    assert descriptors() == before
    source = extracted.open_source()
    source.close()
    source.close()
    assert descriptors() == before
    source = extracted.open_source()
    source.read_into([memoryview(bytearray(10))])
    source.close()
    assert descriptors() == before


@pytest.mark.parametrize("name", ["rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm", "SC_rgb_rle_2frame.dcm"])
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_damaged_files_raise_what_is_documented_and_nothing_else(
    tmp_path: Path, test_files: Path, name: str, data: st.DataObject
) -> None:
    whole = bytearray((test_files / name).read_bytes())
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(132, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    selection = data.draw(st.sampled_from([FrameSelection(simple=(2,)), FrameSelection(calculated=((1, LAST, 2),))]))
    with contextlib.suppress(FrameError):
        extracted = extract_frames(path, selection, new_uid=NEW_UID)
        with contextlib.suppress(OSError, DataSetError):
            read_whole(extracted)


# Memory, and the wire


@pytest.mark.parametrize("compressed", [False, True])
def test_the_pixel_data_are_never_in_memory_at_once(tmp_path: Path, compressed: bool) -> None:
    frame = 8 << 20
    source = image(8, Rows=2048, Columns=4096)
    del source.PixelData
    if compressed:
        pixels = encapsulated(bytes([number]) * frame for number in range(1, 9))
        path = with_pixels(tmp_path / "source.dcm", source, pixels, sop.JPEG_BASELINE_8BIT)
    else:
        pixels = b"\xe0\x7f\x10\x00OB\0\0" + (8 * frame).to_bytes(4, "little")
        pixels += b"".join(bytes([number]) * frame for number in range(1, 9))
        path = with_pixels(tmp_path / "source.dcm", source, pixels, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    del pixels
    seen = set()
    view = bytearray(1 << 16)
    total = 0
    tracemalloc.start()
    try:
        extracted = extract_frames(path, FrameSelection(calculated=((2, LAST, 3),)), new_uid=NEW_UID)
        opened = extracted.open_source()
        while count := opened.read_into([memoryview(view)]):
            total += count
            if total > 4096 and count == len(view):
                seen.add(view[100])
        opened.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 3 * frame
    assert seen >= {2, 5, 8}
    assert peak < 4 << 20


@pytest.mark.anyio
async def test_an_extracted_instance_can_be_sent(test_files: Path, tmp_path: Path) -> None:
    services = asyncdicom.Services()

    @services.store("*")
    async def store(request: StoreRequest) -> None:
        await request.save(tmp_path / f"{request.sop_instance_uid}.dcm")

    path = test_files / "examples_ybr_color.dcm"
    extracted = extract_frames(path, FrameSelection(time_range=(0.2, 0.5)), new_uid=NEW_UID)
    assert extracted.transfer_syntax_uid == sop.JPEG_BASELINE_8BIT
    context = asyncdicom.PresentationContext(
        abstract_syntax=extracted.sop_class_uid, transfer_syntaxes=(extracted.transfer_syntax_uid,)
    )
    async with connected(services, [context]) as assoc:
        await assoc.store(
            Instance(
                extracted.sop_class_uid,
                extracted.sop_instance_uid,
                extracted.transfer_syntax_uid,
                extracted.open_source,
            )
        )
    received = pydicom.dcmread(tmp_path / f"{NEW_UID}.dcm")
    source = pydicom.dcmread(path)
    expected = list(generate_frames(source.PixelData, number_of_frames=30))
    assert extracted.frames == tuple(range(8, 16 + 1))
    assert list(generate_frames(received.PixelData, number_of_frames=9)) == expected[7:16]
    assert received.FrameTime == source.FrameTime
