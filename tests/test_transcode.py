"""Changing the encoding on the way; pydicom's view of before and after is compared."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from asyncdicom import sop
from asyncdicom.dataset import (
    BytesSource,
    DataSetLimits,
    FileSource,
    StreamSource,
    convert,
    decode_data_set,
    encode_data_set,
    part10_head,
    read_file_head,
    scan,
    without_bulk_data,
)
from asyncdicom.exceptions import DataSetError

from .test_elements import (
    AFTER,
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SEQUENCES,
    UID_VALUE,
    UNDEFINED,
    data_set_of,
    dicom_files,
)

NATIVE = [IMPLICIT, EXPLICIT, BIG, DEFLATED]
JPEG = "1.2.840.10008.1.2.4.50"

#: VRs of values that pydicom keeps as bytes in the order in which they came.
ORDERED = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def converted(data: bytes, transfer_syntax: str, target: str) -> bytes:
    return b"".join(convert(data, transfer_syntax, target))


def stripped(data: bytes, transfer_syntax: str) -> bytes:
    return b"".join(without_bulk_data(data, transfer_syntax))


def same(one: Dataset, two: Dataset, *, swapped: bool, where: str) -> None:
    """Compare two data sets that may differ in byte order, in VRs that implicit VR forgot, and in group lengths."""
    tags = {tag for tag in one._dict if tag.element}
    assert tags == {tag for tag in two._dict if tag.element}, where
    for tag in tags:
        a, b = one[tag], two[tag]
        if a.VR == "SQ" and b.VR == "SQ":
            assert len(a.value) == len(b.value)
            for left, right in zip(a.value, b.value, strict=True):
                same(left, right, swapped=swapped, where=f"{where} {tag}")
        elif tag.is_private and a.VR != b.VR:
            assert a.is_empty == b.is_empty, where
        elif {a.VR, b.VR} <= {"OB", "OW", "UN"}:
            left, right = bytes(a.value or b""), bytes(b.value or b"")
            alternatives = {left, left + b"\0"} if a.VR != "OW" or not swapped else {swap(left, 2)}
            if a.VR != b.VR:  # bytes became words or the reverse
                alternatives |= {left, swap(left, 2)}
            assert right in alternatives, f"{where} {tag}"
        elif a.VR in ORDERED and swapped and a.value:
            assert swap(a.value, ORDERED[a.VR]) == b.value, f"{where} {tag}"
        else:
            assert a == b, f"{where} {tag}"


def swap(value: bytes, width: int) -> bytes:
    whole = len(value) - len(value) % width
    parts = [value[at : at + width][::-1] for at in range(0, whole, width)]
    return b"".join(parts) + value[whole:]


def native_files(folder: Path) -> Iterator[tuple[Path, bytes, str]]:
    for path in dicom_files(folder):
        data, transfer_syntax = data_set_of(path)
        if transfer_syntax in NATIVE and path.name not in (
            "MR_truncated.dcm",
            "rtplan_truncated.dcm",
            "DICOMDIR-nooffset",
        ):
            yield path, data, transfer_syntax


@pytest.mark.parametrize("target", NATIVE)
def test_every_real_file_is_the_same_in_another_transfer_syntax(test_files: Path, target: str) -> None:
    count = 0
    for path, data, transfer_syntax in native_files(test_files):
        result = converted(data, transfer_syntax, target)
        before, after = decode_data_set(data, transfer_syntax), decode_data_set(result, target)
        same(before, after, swapped=(transfer_syntax == BIG) != (target == BIG), where=f"{path.name} to {target}")
        count += 1
    assert count > 80


def test_the_way_back_gives_the_same_values(test_files: Path) -> None:
    for path, data, transfer_syntax in native_files(test_files):
        for target in NATIVE:
            back = converted(converted(data, transfer_syntax, target), target, transfer_syntax)
            again = converted(converted(back, transfer_syntax, target), target, transfer_syntax)
            assert again == back, path.name


def test_compressed_pixel_data_cannot_be_converted(test_files: Path) -> None:
    with pytest.raises(DataSetError, match=r"\(7FE0,0010\) is compressed"):
        converted(*data_set_of(test_files / "JPEG2000.dcm"), EXPLICIT)


@pytest.mark.parametrize("target", [EXPLICIT, BIG])
@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_of_every_form_are_converted(name: str, target: str) -> None:
    data = UID_VALUE + SEQUENCES[name] + AFTER
    if name == "of fragments":
        with pytest.raises(DataSetError, match="compressed"):
            converted(data, EXPLICIT, target)
        return
    expected = decode_data_set(data, EXPLICIT)
    assert decode_data_set(converted(data, EXPLICIT, target), target) == expected
    implicit = converted(data, EXPLICIT, IMPLICIT)
    assert decode_data_set(converted(implicit, IMPLICIT, target), target) == expected
    for cut in range(1, len(SEQUENCES[name])):
        with pytest.raises(DataSetError):
            converted(SEQUENCES[name][:cut], EXPLICIT, target)


VALUES: dict[str, tuple[bytes, bytes]] = {
    # name: (Explicit VR Little Endian, Explicit VR Big Endian)
    "US": (b"\x28\0\x10\0US\x02\0\x01\x02", b"\0\x28\0\x10US\0\x02\x02\x01"),
    "AT": (b"\x28\0\x09\0AT\x04\0\x18\0\x63\x10", b"\0\x28\0\x09AT\0\x04\0\x18\x10\x63"),
    "UL": (b"\x08\0\x61\x01UL\x04\0\x01\x02\x03\x04", b"\0\x08\x01\x61UL\0\x04\x04\x03\x02\x01"),
    "FD": (b"\x18\0\x73\x90FD\x08\0abcdefgh", b"\0\x18\x90\x73FD\0\x08hgfedcba"),
    "FL": (b"\x18\0\x59\x60FL\x08\0abcdefgh", b"\0\x18\x60\x59FL\0\x08dcbahgfe"),
    "OW": (b"\xe0\x7f\x10\0OW\0\0\x04\0\0\0abcd", b"\x7f\xe0\0\x10OW\0\0\0\0\0\x04badc"),
    "OB": (b"\xe0\x7f\x10\0OB\0\0\x04\0\0\0abcd", b"\x7f\xe0\0\x10OB\0\0\0\0\0\x04abcd"),
    "OF": (b"\xe0\x7f\x08\0OF\0\0\x04\0\0\0abcd", b"\x7f\xe0\0\x08OF\0\0\0\0\0\x04dcba"),
    "OD": (b"\xe0\x7f\x09\0OD\0\0\x08\0\0\0abcdefgh", b"\x7f\xe0\0\x09OD\0\0\0\0\0\x08hgfedcba"),
    "LO": (b"\x10\0\x20\0LO\x04\0abcd", b"\0\x10\0\x20LO\0\x04abcd"),
    "UN": (b"\x09\0\x01\x10UN\0\0\x04\0\0\0abcd", b"\0\x09\x10\x01UN\0\0\0\0\0\x04abcd"),
    "UT": (b"\x18\0\x60\0UT\0\0\x04\0\0\0abcd", b"\0\x18\0\x60UT\0\0\0\0\0\x04abcd"),
}


@pytest.mark.parametrize("name", VALUES)
def test_bytes_change_places_as_their_vr_says(name: str) -> None:
    little, big = VALUES[name]
    assert converted(little, EXPLICIT, BIG) == big
    assert converted(big, BIG, EXPLICIT) == little


def implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def explicit_vr(data: bytes, tag: int) -> bytes | None:
    return scan(converted(data, IMPLICIT, EXPLICIT), EXPLICIT, stop=1 << 32)[tag].vr


RESOLVED = {
    "unsigned pixels": (implicit(0x00280103, b"\0\0") + implicit(0x00280106, b"\xff\xff"), 0x00280106, b"US"),
    "signed pixels": (implicit(0x00280103, b"\1\0") + implicit(0x00280106, b"\xff\xff"), 0x00280106, b"SS"),
    "signed pixels, said later": (implicit(0x00189810, b"\xff\xff") + implicit(0x00280103, b"\1\0"), 0x00189810, b"SS"),
    "no pixels": (implicit(0x00280106, b"\xff\xff"), 0x00280106, b"US"),
    "8 bits": (implicit(0x00280100, b"\x08\0") + implicit(0x7FE00010, b"ab"), 0x7FE00010, b"OB"),
    "1 bit": (implicit(0x00280100, b"\x01\0") + implicit(0x7FE00010, b"ab"), 0x7FE00010, b"OB"),
    "16 bits": (implicit(0x00280100, b"\x10\0") + implicit(0x7FE00010, b"ab"), 0x7FE00010, b"OW"),
    "unknown bits": (implicit(0x7FE00010, b"ab"), 0x7FE00010, b"OW"),
    "an overlay": (implicit(0x60003000, b"ab"), 0x60003000, b"OW"),
    "a table of one entry": (implicit(0x00283002, b"\1\0\0\0\x10\0") + implicit(0x00283006, b"ab"), 0x00283006, b"US"),
    "a table": (implicit(0x00283002, b"\2\0\0\0\x10\0") + implicit(0x00283006, b"abcd"), 0x00283006, b"OW"),
    "a private element": (implicit(0x00090010, b"ME") + implicit(0x00091001, b"ab"), 0x00091001, b"UN"),
    "a private creator": (implicit(0x00090010, b"ME") + implicit(0x00091001, b"ab"), 0x00090010, b"LO"),
    "an unknown element": (implicit(0x00089999, b"ab"), 0x00089999, b"UN"),
    "a value too long for its VR": (implicit(0x00100020, b"a" * 70_000), 0x00100020, b"UN"),
    "a value too long for its VR by its padding": (implicit(0x00100020, b"a" * 0xFFFF), 0x00100020, b"UN"),
}


@pytest.mark.parametrize("name", RESOLVED)
def test_the_vr_that_was_left_out_is_found_for(name: str) -> None:
    data, tag, vr = RESOLVED[name]
    assert explicit_vr(data, tag) == vr
    assert decode_data_set(converted(data, IMPLICIT, BIG), BIG)


def test_the_waveform_of_8_bits_is_bytes_and_that_of_16_words() -> None:
    for bits, vr in ((8, "OB"), (16, "OW")):
        item = implicit(0x54001004, struct.pack("<H", bits)) + implicit(0x54001010, b"abcd")
        data = implicit(0x54000100, ITEM + struct.pack("<I", len(item)) + item)
        result = decode_data_set(converted(data, IMPLICIT, EXPLICIT), EXPLICIT)
        assert vr == result.WaveformSequence[0]["WaveformData"].VR


def test_pixel_representation_counts_inside_of_items() -> None:
    data = (
        implicit(0x00280103, b"\1\0")
        + struct.pack("<HH", 0x0028, 0x3010)
        + UNDEFINED
        + (ITEM + UNDEFINED + implicit(0x00280106, b"\xfe\xff") + ITEM_END)
        + (ITEM + UNDEFINED + implicit(0x00280103, b"\0\0") + implicit(0x00280106, b"\xfe\xff") + ITEM_END)
        + SEQUENCE_END
    )
    signed, unsigned = decode_data_set(converted(data, IMPLICIT, BIG), BIG)[0x00283010].value
    assert (signed.SmallestImagePixelValue, unsigned.SmallestImagePixelValue) == (-2, 0xFFFE)


def test_odd_values_become_even_and_group_lengths_are_left_out() -> None:
    data = b"\x08\0\0\0UL\x04\0\x0b\0\0\0" + b"\x08\0\x18\0UI\x03\x001.2" + b"\x10\0\x20\0LO\x03\0abc"
    assert converted(data, EXPLICIT, EXPLICIT) == UID_VALUE + b"\x10\0\x20\0LO\x04\0abc "


def test_group_2_and_padding_are_left_out() -> None:
    assert converted(part10_head("1.2", "1.3", EXPLICIT)[132:] + UID_VALUE + b"\0\0", EXPLICIT, EXPLICIT) == UID_VALUE


def test_files_and_streams_are_converted_like_bytes(tmp_path: Path, test_files: Path) -> None:
    path = test_files / "MR_small_implicit.dcm"
    data, transfer_syntax = data_set_of(path)
    expected = converted(data, transfer_syntax, EXPLICIT)
    assert b"".join(convert(path, None, EXPLICIT)) == expected
    assert b"".join(convert(FileSource.open(path), transfer_syntax, EXPLICIT)) == expected
    assert b"".join(convert(BytesSource(data), transfer_syntax, EXPLICIT)) == expected
    pieces = (data[at : at + 7] for at in range(0, len(data), 7))
    assert b"".join(convert(StreamSource(pieces), transfer_syntax, EXPLICIT)) == expected
    twice = convert(StreamSource(convert(data, transfer_syntax, DEFLATED)), DEFLATED, EXPLICIT)
    assert b"".join(twice) == expected
    with pytest.raises(ValueError, match="transfer syntax"):
        b"".join(convert(data, None, EXPLICIT))


def test_the_source_is_closed_when_the_generator_ends_or_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(part10_head("1.2", "1.3", EXPLICIT) + large(4 << 20))
    for ends in (True, False):
        source = FileSource.open(path)
        chunks = convert(source, EXPLICIT, BIG)
        next(chunks)
        if ends:
            for _ in chunks:
                pass
        else:
            chunks.close()  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="closed"):
            source.read_into([memoryview(bytearray(1))])


def large(size: int) -> bytes:
    pixels = bytes(range(256)) * (size // 256)
    return UID_VALUE + b"\x28\0\0\x01US\x02\0\x10\0" + b"\xe0\x7f\x10\0OW\0\0" + struct.pack("<I", size) + pixels


@pytest.mark.parametrize("target", NATIVE)
def test_memory_does_not_depend_on_the_size_of_the_instance(tmp_path: Path, target: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(part10_head("1.2", "1.3", EXPLICIT) + large(32 << 20))
    chunks = convert(path, None, target)
    next(chunks)
    tracemalloc.start()
    try:
        total = sum(len(chunk) for chunk in chunks)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert target == DEFLATED or total > 31 << 20
    if target == BIG:
        assert b"".join(convert(path, None, BIG))[-4:] == swap(large(32 << 20)[-4:], 2)


def test_an_encoded_data_set_follows_the_byte_order_of_its_bulk_data() -> None:
    little = decode_data_set(VALUES["OW"][0], EXPLICIT)
    big = decode_data_set(VALUES["OW"][1], BIG)
    assert encode_data_set(little, BIG) == VALUES["OW"][1]
    assert encode_data_set(big, EXPLICIT) == VALUES["OW"][0]
    assert encode_data_set(big, BIG) == VALUES["OW"][1]
    assert decode_data_set(encode_data_set(big, DEFLATED), DEFLATED).PixelData == b"abcd"
    made = Dataset()
    made.add_new(0x7FE00010, "OW", b"abcd")
    assert encode_data_set(made, BIG) == VALUES["OW"][1]


# Without bulk data ------------------------------------------------------------------------------------------------

BULK = [
    0x7FE00010,
    0x7FE00008,
    0x7FE00009,
    0x00287FE0,
    0x56000020,
    0x00420011,
    0x60003000,
    0x60FE3000,
    0x50003000,
    0x5002200C,
]
NO_BULK = [0x60010030, 0x60003001, 0x60013000, 0x60001500, 0x50000030, 0x51003000, 0x00420010, 0x7FE10010, 0xFFFCFFFC]


def element(tag: int, transfer_syntax: str) -> bytes:
    if transfer_syntax == IMPLICIT:
        return implicit(tag, b"abcd")
    order = ">" if transfer_syntax == BIG else "<"
    return struct.pack(order + "HH2sHI", tag >> 16, tag & 0xFFFF, b"OB", 0, 4) + b"abcd"


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG, JPEG])
def test_the_elements_of_annex_z_are_left_out_and_no_others(transfer_syntax: str) -> None:
    kept = [element(tag, transfer_syntax) for tag in [0x00080018, *sorted(NO_BULK)]]
    everything = [element(tag, transfer_syntax) for tag in sorted([0x00080018, *NO_BULK, *BULK])]
    assert stripped(b"".join(everything), transfer_syntax) == b"".join(kept)


def test_every_real_file_keeps_everything_else(test_files: Path) -> None:
    for path in dicom_files(test_files):
        if path.name in ("MR_truncated.dcm", "rtplan_truncated.dcm", "DICOMDIR-nooffset"):
            continue
        data, transfer_syntax = data_set_of(path)
        expected = decode_data_set(data, transfer_syntax)
        for tag in [e.tag for e in expected if e.tag in BULK or e.tag.element == 0]:
            del expected[tag]
        for item in expected.get("WaveformSequence", []):
            del item.WaveformData
        result = stripped(data, transfer_syntax)
        assert decode_data_set(result, transfer_syntax) == expected, path.name
        if transfer_syntax != DEFLATED and path.name != "waveform_ecg.dcm":
            found = scan(data, transfer_syntax, stop=1 << 32)
            if not any(tag in BULK or tag & 0xFFFF == 0 for tag in found):
                assert result == data, path.name  # "identical to the original data" (PS3.4 Z.1.4)


@pytest.mark.parametrize("form", ["defined", "undefined", "implicit", "unknown"])
def test_waveform_data_are_left_out_of_the_waveform_sequence_only(form: str) -> None:
    def group(waveform: bytes) -> bytes:
        other = b"\x3a\0\x05\0US\x02\0\x02\0"
        if form in ("implicit", "unknown"):
            return implicit(0x003A0005, b"\2\0") + (implicit(0x54001010, waveform) if waveform else b"")
        value = b"\0\x54\x10\x10OW\0\0" + struct.pack("<I", len(waveform)) + waveform if waveform else b""
        return other + value

    def sequence(tag: int, waveform: bytes) -> bytes:
        vr = {"implicit": b"", "unknown": b"UN\0\0"}.get(form, b"SQ\0\0")
        content = group(waveform)
        header = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
        if form == "undefined":
            return header + UNDEFINED + (ITEM + UNDEFINED + content + ITEM_END) * 2 + SEQUENCE_END
        items = (ITEM + struct.pack("<I", len(content)) + content) * 2
        return header + struct.pack("<I", len(items)) + items

    transfer_syntax = IMPLICIT if form == "implicit" else EXPLICIT
    data = sequence(0x00089999, b"ab") + sequence(0x54000100, b"abcd")
    expected = sequence(0x00089999, b"ab") + sequence(0x54000100, b"")
    assert decode_data_set(stripped(data, transfer_syntax), transfer_syntax) == decode_data_set(
        expected, transfer_syntax
    )


def test_the_compressed_pixels_of_an_icon_stay_and_those_of_the_image_go() -> None:
    icon, image = Dataset(), Dataset()
    icon.add_new(0x7FE00010, "OB", encapsulate([b"\xff\xd8icon\xff\xd9"]))
    icon["PixelData"].is_undefined_length = True
    image.SOPInstanceUID = "1.2"
    image.IconImageSequence = [icon]
    expected = encode_data_set(image, JPEG)
    image.add_new(0x7FE00010, "OB", encapsulate([b"\xff\xd8image\xff\xd9"] * 3))
    image.add_new(0xFFFCFFFC, "OB", b"ab")
    assert stripped(encode_data_set(image, JPEG), JPEG) == expected + b"\xfc\xff\xfc\xffOB\0\0\x02\0\0\0ab"


def test_a_sequence_in_the_place_of_bulk_data_goes_too() -> None:
    for form in SEQUENCES.values():
        data = UID_VALUE + b"\x42\0\x11\0" + form[4:] + b"\x88\0\x40\x01UI\x04\x001.3\0"
        assert stripped(data, EXPLICIT) == UID_VALUE + b"\x88\0\x40\x01UI\x04\x001.3\0"


def test_a_deflated_data_set_stays_deflated(test_files: Path) -> None:
    data, transfer_syntax = data_set_of(test_files / "image_dfl.dcm")
    assert transfer_syntax == DEFLATED
    result = decode_data_set(stripped(data, DEFLATED), DEFLATED)
    assert "PixelData" not in result
    assert result.SOPInstanceUID == read_file_head(test_files / "image_dfl.dcm").sop_instance_uid


# Hostile data -----------------------------------------------------------------------------------------------------

HOSTILE = {
    "10 000 nested sequences": ((b"\x08\0\x15\x11SQ\0\0" + UNDEFINED + ITEM + UNDEFINED) * 10_000, EXPLICIT, "nested"),
    "nested, implicit": ((b"\x08\0\x15\x11" + UNDEFINED + ITEM + UNDEFINED) * 10_000, IMPLICIT, "nested"),
    "4 GiB in an element": (b"\x08\0\x18\0OB\0\0\xfe\xff\xff\xff", EXPLICIT, "too early"),
    "4 GiB in an item": (b"\x08\0\x15\x11SQ\0\0" + UNDEFINED + ITEM + b"\xfe\xff\xff\xff", EXPLICIT, "too early"),
    "an item longer than its sequence": (
        b"\x08\0\x15\x11SQ\0\0\x08\0\0\0" + ITEM + b"\x0c\0\0\0" + UID_VALUE,
        EXPLICIT,
        "12 bytes; 0 are there",
    ),
    "an element longer than its item": (
        b"\x08\0\x15\x11SQ\0\0\x10\0\0\0" + ITEM + b"\x08\0\0\0" + UID_VALUE,
        EXPLICIT,
        "4 bytes; 0 are there",
    ),
    "an unknown VR": (b"\x08\0\x18\0ZZ\x04\x001.2\0", EXPLICIT, "unknown VR"),
    "an item without a sequence": (ITEM_END, EXPLICIT, "none has begun"),
    "an item in the place of an element": (ITEM + b"\0\0\0\0", EXPLICIT, "stands where an element is due"),
    "no item in a sequence": (b"\x08\0\x15\x11SQ\0\0" + UNDEFINED + UID_VALUE, EXPLICIT, "item is due"),
    "an undefined length where none can be": (b"\x08\0\x18\0UT\0\0" + UNDEFINED + SEQUENCE_END, EXPLICIT, "undefined"),
    "half a header": (b"\x28\0\x10\0US", EXPLICIT, "too early"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_data_are_refused_without_memory(name: str) -> None:
    data, transfer_syntax, message = HOSTILE[name]
    converted(UID_VALUE, EXPLICIT, IMPLICIT)
    tracemalloc.start()
    try:
        with pytest.raises(DataSetError, match=message):
            converted(data, transfer_syntax, BIG)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("do", [lambda s: convert(s, DEFLATED, EXPLICIT), lambda s: without_bulk_data(s, DEFLATED)])
def test_a_deflate_bomb_is_refused_on_the_way(do: object) -> None:
    deflater = zlib.compressobj(9, wbits=-15)
    head = UID_VALUE + b"\xe0\x7f\x10\0OB\0\0" + struct.pack("<I", 1 << 28)
    bomb = b"".join(deflater.compress(part) for part in [head, *[bytes(1 << 20)] * 256]) + deflater.flush()
    assert callable(do)
    tracemalloc.start()
    try:
        with pytest.raises(DataSetError, match="inflates to more than"):
            for _ in do(bomb):
                pass
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_limits_of_the_caller_count() -> None:
    data = UID_VALUE + SEQUENCES["of undefined length"]
    assert b"".join(convert(data, EXPLICIT, IMPLICIT, limits=DataSetLimits(nesting=1)))
    with pytest.raises(DataSetError, match="deeper than 0"):
        b"".join(convert(data, EXPLICIT, IMPLICIT, limits=DataSetLimits(nesting=0)))


@given(st.binary(max_size=300), st.sampled_from([*NATIVE, JPEG]), st.sampled_from(NATIVE))
def test_random_bytes_are_converted_or_refused(data: bytes, transfer_syntax: str, target: str) -> None:
    for change in (convert(data, transfer_syntax, target), without_bulk_data(data, transfer_syntax)):
        try:
            for _ in change:
                pass
        except DataSetError:
            pass


def test_private_transfer_syntaxes_are_taken_for_explicit_little_endian() -> None:
    assert stripped(UID_VALUE + b"\xe0\x7f\x10\0OB\0\0\x02\0\0\0ab", "1.2.3.4") == UID_VALUE
    assert sop.transfer_syntax("1.2.3.4").is_encapsulated
