"""Choosing frames in pixel data: native ones of any geometry, encapsulated ones however they are laid out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from struct import pack, unpack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, generate_frames, parse_basic_offsets

from asyncdicom import sop
from asyncdicom.archive.frame_pixels import runs_of
from asyncdicom.archive.frames import FrameError, FrameSelection, extract_frames
from asyncdicom.dataset import decode_data_set, read_file_head

from .multiframe import (
    NATIVE,
    NEW_UID,
    described,
    encapsulated,
    extract,
    naive_bits,
    read_whole,
    with_pixels,
    written,
)

RLE = sop.RLE_LOSSLESS
JPEG = sop.JPEG_BASELINE_8BIT
MPEG2 = "1.2.840.10008.1.2.4.100"


def status_of(path: Path, frames: Sequence[int]) -> int:
    with pytest.raises(FrameError) as caught:
        extract_frames(path, FrameSelection(simple=tuple(frames)), new_uid=NEW_UID)
    return caught.value.status


@given(st.sets(st.integers(1, 30), min_size=1).map(sorted), st.integers(1, 20))
def test_runs_cover_each_frame_once_and_join_neighbours(frames: list[int], bits: int) -> None:
    runs = runs_of(frames, bits)
    covered = [bit for first, count in runs for bit in range(first, first + count)]
    assert covered == [bit for frame in frames for bit in range((frame - 1) * bits, frame * bits)]
    assert all(first + count < after for (first, count), (after, _) in pairwise(runs))


# Native


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_native_frames_of_any_geometry_come_out_as_they_are(tmp_path: Path, data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from(NATIVE))
    bits = data.draw(st.sampled_from([1, 8, 12, 16, 32]))
    total = data.draw(st.integers(1, 9))
    samples = data.draw(st.sampled_from([1, 3]))
    ds = described(
        total, rows=data.draw(st.integers(1, 5)), columns=data.draw(st.integers(1, 5)), bits=bits, samples=samples
    )
    if samples == 3:
        ds.PlanarConfiguration = data.draw(st.integers(0, 1))
    frame = ds.Rows * ds.Columns * samples * bits
    value = random.Random(data.draw(st.integers(0, 99))).randbytes((frame * total + 15) // 16 * 2)
    wide = bits > 8 or syntax == sop.IMPLICIT_VR_LITTLE_ENDIAN
    ds.add_new(0x7FE00010, "OW" if wide or data.draw(st.booleans()) else "OB", value)
    frames = sorted(data.draw(st.sets(st.integers(1, total), min_size=1)))
    new = extract(written(tmp_path / "source.dcm", ds, syntax), frames)
    source = decode_data_set(_data_set(tmp_path / "source.dcm"), syntax)
    swapped = syntax == sop.EXPLICIT_VR_BIG_ENDIAN and source["PixelData"].VR == "OW" and bits <= 8
    found = [naive_bits(new["PixelData"].value, frame, at, swapped=swapped) for at in range(1, len(frames) + 1)]
    expected = [naive_bits(source["PixelData"].value, frame, at, swapped=swapped) for at in frames]
    assert found == expected
    assert len(new["PixelData"].value) == (frame * len(frames) + 15) // 16 * 2
    assert new["PixelData"].VR == source["PixelData"].VR


def _data_set(path: Path) -> bytes:
    return path.read_bytes()[read_file_head(path).data_set_offset :]


def test_single_bits_and_swapped_words_are_longer_than_a_chunk(tmp_path: Path) -> None:
    for syntax, vr in ((sop.EXPLICIT_VR_LITTLE_ENDIAN, "OB"), (sop.EXPLICIT_VR_BIG_ENDIAN, "OW")):
        ds = described(5, rows=1999, columns=2001, bits=1)
        frame = 1999 * 2001
        ds.add_new(0x7FE00010, vr, random.Random(1).randbytes((frame * 5 + 15) // 16 * 2))
        path = written(tmp_path / "source.dcm", ds, syntax)
        source = decode_data_set(_data_set(path), syntax)["PixelData"].value
        new = extract(path, [2, 3, 5])["PixelData"].value
        if vr == "OW":
            source, new = (b"".join(pack("<H", word) for (word,) in _words(value)) for value in (source, new))
        whole, mask = int.from_bytes(source, "little"), (1 << frame) - 1
        taken = [whole >> frame * (number - 1) & mask for number in (2, 3, 5)]
        assert int.from_bytes(new, "little") == taken[0] | taken[1] << frame | taken[2] << 2 * frame


def _words(value: bytes) -> list[tuple[int]]:
    return [(word,) for word in unpack(f">{len(value) // 2}H", value)]


@pytest.mark.parametrize(
    ("interpretation", "subsampled", "size"),
    [("YBR_FULL_422", True, 16), ("YBR_FULL_422", False, 24), ("YBR_PARTIAL_420", True, 12), ("RGB", False, 24)],
)
def test_chrominance_may_be_shared_by_neighbours(
    tmp_path: Path, interpretation: str, subsampled: bool, size: int
) -> None:
    ds = described(3, rows=2, columns=4, samples=3)
    ds.PhotometricInterpretation = interpretation
    ds.PixelData = b"".join(bytes([number]) * size for number in (1, 2, 3))
    ds["PixelData"].VR = "OB"
    assert extract(written(tmp_path / "source.dcm", ds), [1, 3]).PixelData == bytes([1] * size + [3] * size)


@pytest.mark.parametrize(("tag", "vr", "width"), [(0x7FE00008, "OF", 4), (0x7FE00009, "OD", 8)])
@pytest.mark.parametrize("syntax", NATIVE)
def test_pixels_may_be_floating_point_numbers(tmp_path: Path, tag: int, vr: str, width: int, syntax: str) -> None:
    ds = described(3)
    del ds.PixelRepresentation, ds.BitsAllocated
    numbers = [float(number) for number in range(12)]
    ds.add_new(tag, vr, pack(f"<12{'f' if width == 4 else 'd'}", *numbers))
    new = extract(written(tmp_path / "source.dcm", ds, syntax), [1, 3])
    order = ">" if syntax == sop.EXPLICIT_VR_BIG_ENDIAN else "<"
    assert list(unpack(f"{order}8{'f' if width == 4 else 'd'}", new[tag].value)) == numbers[:4] + numbers[8:]


@pytest.mark.parametrize("missing", ["Rows", "Columns", "BitsAllocated"])
def test_native_frames_of_unknown_size_are_0xaa02(tmp_path: Path, missing: str) -> None:
    ds = described(2)
    ds.add_new(0x7FE00010, "OB", bytes(8))
    del ds[missing]
    assert status_of(written(tmp_path / "source.dcm", ds), [1]) == 0xAA02


def test_native_frames_that_are_cut_off_are_0xaa02_but_the_others_are_there(tmp_path: Path) -> None:
    ds = described(4)
    ds.add_new(0x7FE00010, "OB", bytes([1] * 4 + [2] * 4 + [3] * 2))
    path = written(tmp_path / "source.dcm", ds)
    assert extract(path, [1, 2]).PixelData == bytes([1] * 4 + [2] * 4)
    assert status_of(path, [2, 3]) == 0xAA02


def test_encapsulated_pixel_data_in_a_native_instance_are_0xaa02_and_the_reverse(tmp_path: Path) -> None:
    ds = described(2)
    path = with_pixels(tmp_path / "source.dcm", ds, encapsulated([b"aa", b"bb"]), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    assert status_of(path, [1]) == 0xAA02
    native = b"\xe0\x7f\x10\x00OB\0\0\x08\0\0\0" + bytes(8)
    assert status_of(with_pixels(tmp_path / "source.dcm", ds, native, JPEG), [1]) == 0xAA02


# Encapsulated


def codestream(number: int, size: int) -> bytes:
    """Make what begins as a JPEG does, and has its number in it."""
    return b"\xff\xd8\xff" + bytes([number]) * size + b"\xff\xd9"


def cut(stream: bytes, size: int) -> list[bytes]:
    """Cut into fragments of at most *size* bytes."""
    stream += b"\0" * (len(stream) % 2)
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def laid_out(frames: Sequence[Sequence[bytes]]) -> list[int]:
    """Return the offset of each frame, behind the Basic Offset Table."""
    offsets = [0]
    for fragments in frames:
        offsets.append(offsets[-1] + sum(8 + len(fragment) for fragment in fragments))
    return offsets[:-1]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_encapsulated_frames_are_found_by_whatever_tells(tmp_path: Path, data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 8))
    told = data.draw(st.sampled_from(["basic", "extended", "beginnings", "wrong"]))
    # With an Extended Offset Table, each frame is in one fragment (PS3.5 A.4).
    pieces = [100 if told == "extended" else data.draw(st.sampled_from([10, 14, 20, 100])) for _ in range(total)]
    frames = [cut(codestream(number, 20 + number), size) for number, size in enumerate(pieces, 1)]
    table = laid_out(frames) if told == "basic" else ()
    if told == "wrong":
        table = [offset + 1 for offset in laid_out(frames)]
    ds = described(total)
    if told == "extended":
        ds.ExtendedOffsetTable = pack(f"<{total}Q", *laid_out(frames))
        ds.ExtendedOffsetTableLengths = pack(f"<{total}Q", *(sum(map(len, pieces)) for pieces in frames))
    pixels = encapsulated([fragment for fragments in frames for fragment in fragments], table)
    path = with_pixels(tmp_path / "source.dcm", ds, pixels, JPEG)
    chosen = sorted(data.draw(st.sets(st.integers(1, total), min_size=1)))
    new = extract(path, chosen)
    expected = [frames[number - 1] for number in chosen]
    fragments = [fragment for pieces in expected for fragment in pieces]
    assert list(generate_fragments(_behind_table(new.PixelData))) == fragments
    if len(chosen) == total:
        assert parse_basic_offsets(new.PixelData) == list(table)
    else:
        assert parse_basic_offsets(new.PixelData) == (laid_out(expected) if told == "basic" else [])
    assert ("ExtendedOffsetTable" in new) == (told == "extended")
    extended = (new.get("ExtendedOffsetTable"), new.get("ExtendedOffsetTableLengths"))
    if told == "extended":
        assert extended[0] == pack(f"<{len(chosen)}Q", *laid_out(expected))
        assert extended[1] == pack(f"<{len(chosen)}Q", *(sum(map(len, pieces)) for pieces in expected))
        found = list(generate_frames(new.PixelData, number_of_frames=len(chosen), extended_offsets=extended))
        assert found == [b"".join(pieces) for pieces in expected]
    elif told == "basic":
        found = list(generate_frames(new.PixelData, number_of_frames=len(chosen)))
        assert found == [b"".join(pieces) for pieces in expected]


def _behind_table(value: bytes) -> bytes:
    (size,) = unpack("<I", value[4:8])
    return value[8 + size :]


def test_one_fragment_for_each_frame_needs_nothing_that_tells(tmp_path: Path) -> None:
    path = with_pixels(tmp_path / "source.dcm", described(4), encapsulated([b"aa", b"bbbb", b"cc", b"dd"]), RLE)
    assert list(generate_fragments(_behind_table(extract(path, [2, 4]).PixelData))) == [b"bbbb", b"dd"]


def test_an_extended_offset_table_that_does_not_fit_is_dropped(tmp_path: Path) -> None:
    ds = described(3)
    ds.ExtendedOffsetTable = pack("<3Q", 0, 11, 23)
    ds.ExtendedOffsetTableLengths = pack("<3Q", 2, 2, 2)
    ds.add_new(0x7FE00003, "UV", 6)
    path = with_pixels(tmp_path / "source.dcm", ds, encapsulated([b"aa", b"bb", b"cc"]), RLE)
    new = extract(path, [1, 3])
    assert list(generate_fragments(_behind_table(new.PixelData))) == [b"aa", b"cc"]
    assert not any(tag >> 16 == 0x7FE0 and tag != 0x7FE00010 for tag in new.keys())  # noqa: SIM118 - no mapping


@pytest.mark.parametrize("table", [(), (0,), (0, 10, 20), (0, 11), (10, 0), (0, 0)])
def test_frames_of_several_fragments_that_nothing_tells_apart_are_0xaa02(
    tmp_path: Path, table: tuple[int, ...]
) -> None:
    pixels = encapsulated([b"aa", b"bb", b"cc"], table)
    assert status_of(with_pixels(tmp_path / "source.dcm", described(2), pixels, RLE), [1]) == 0xAA02


def test_a_single_frame_has_all_fragments(tmp_path: Path) -> None:
    path = with_pixels(tmp_path / "source.dcm", described(1), encapsulated([b"aa", b"bb", b"cc"]), RLE)
    assert list(generate_fragments(_behind_table(extract(path, [1]).PixelData))) == [b"aa", b"bb", b"cc"]


@pytest.mark.parametrize("syntax", [MPEG2, f"{MPEG2}.1", "1.2.840.10008.1.2.4.93", "1.2.840.10008.1.2.4.108"])
def test_frames_that_depend_on_each_other_can_only_be_had_together(tmp_path: Path, syntax: str) -> None:
    ds: Dataset = described(3)
    path = with_pixels(tmp_path / "source.dcm", ds, encapsulated([b"aa", b"bb", b"cc"]), syntax)
    assert status_of(path, [1, 2]) == 0xAA02
    assert list(generate_fragments(_behind_table(extract(path, [1, 2, 3]).PixelData))) == [b"aa", b"bb", b"cc"]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1", "1.2.3.4.5.6"])
def test_other_encapsulations_are_taken_apart_by_their_fragments(tmp_path: Path, syntax: str) -> None:
    path = with_pixels(tmp_path / "source.dcm", described(3), encapsulated([b"aa", b"bb", b"cc"]), syntax)
    assert list(generate_fragments(_behind_table(extract(path, [2]).PixelData))) == [b"bb"]


def test_a_basic_offset_table_of_a_wrong_size_is_not_read(tmp_path: Path) -> None:
    pixels = encapsulated([b"aa", b"bb", b"cc"]).replace(b"\0\0\0\0\xfe\xff", b"\2\0\0\0xx\xfe\xff", 1)
    path = with_pixels(tmp_path / "source.dcm", described(3), pixels, RLE)
    assert list(generate_fragments(_behind_table(extract(path, [2]).PixelData))) == [b"bb"]


def test_pixel_data_without_any_fragment_are_0xaa02(tmp_path: Path) -> None:
    nothing = encapsulated([])
    assert status_of(with_pixels(tmp_path / "source.dcm", described(3), nothing, RLE), [1]) == 0xAA02
    nothing = nothing[:12] + nothing[20:]  # not even a table
    assert status_of(with_pixels(tmp_path / "source.dcm", described(3), nothing, RLE), [1]) == 0xAA02


@pytest.mark.parametrize("end", [-8, -10, 12, 20])
def test_fragments_without_an_end_are_0xaa02(tmp_path: Path, end: int) -> None:
    pixels = encapsulated([b"aa", b"bb", b"cc"])[:end]
    assert status_of(with_pixels(tmp_path / "source.dcm", described(3), pixels, RLE), [1]) == 0xAA02


def test_what_comes_behind_the_pixel_data_is_left_out(tmp_path: Path) -> None:
    padding = b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0" + bytes(4)
    path = with_pixels(tmp_path / "source.dcm", described(2), encapsulated([b"aa", b"bb"]) + padding, RLE)
    extracted = extract_frames(path, FrameSelection(simple=(2,)), new_uid=NEW_UID)
    assert read_whole(extracted).endswith(encapsulated([b"bb"]))
