"""The walk over encoded elements, judged by pydicom on its own files."""

from __future__ import annotations

import struct
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom import sop
from asyncdicom.dataset import Head, read_file_head, safe_uid, scan, scan_head
from asyncdicom.exceptions import DataSetError

IMPLICIT = sop.IMPLICIT_VR_LITTLE_ENDIAN
EXPLICIT = sop.EXPLICIT_VR_LITTLE_ENDIAN
BIG = sop.EXPLICIT_VR_BIG_ENDIAN
DEFLATED = sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN

UNDEFINED = b"\xff\xff\xff\xff"
ITEM = b"\xfe\xff\x00\xe0"
ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"

UID_VALUE = b"\x08\x00\x18\x00UI\x04\x001.2\0"
AFTER = b"\x10\x00\x20\x00LO\x02\x00AB"


def dicom_files(folder: Path) -> list[Path]:
    """Give all files below *folder* that are DICOM."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            read_file_head(path)
        except DataSetError:
            continue
        found.append(path)
    return found


def data_set_of(path: Path) -> tuple[bytes, str]:
    """Give the encoded data set of a file and its transfer syntax."""
    head = read_file_head(path)
    return path.read_bytes()[head.data_set_offset :], head.transfer_syntax_uid


def test_every_real_file_yields_the_elements_that_pydicom_finds(test_files: Path) -> None:
    paths = dicom_files(test_files)
    assert len(paths) > 100
    for path in paths:
        data, transfer_syntax = data_set_of(path)
        found = scan(data, transfer_syntax, stop=1 << 32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference = pydicom.dcmread(path, force=True)
        if path.stem not in ("MR_truncated", "rtplan_truncated", "DICOMDIR-nooffset"):
            assert set(found) == {int(tag) for tag in reference._dict}, path.name
        for tag, element in found.items():
            raw = reference.get_item(tag)
            if element.value and raw is not None and raw.is_raw:
                assert element.value == raw.value, path.name


def test_every_real_file_yields_its_uids(test_files: Path) -> None:
    for path in dicom_files(test_files):
        data, transfer_syntax = data_set_of(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference = pydicom.dcmread(path, force=True)
        assert scan_head(data, transfer_syntax) == Head(
            sop_class_uid=reference.get("SOPClassUID") or None,
            sop_instance_uid=reference.get("SOPInstanceUID") or None,
            study_instance_uid=reference.get("StudyInstanceUID") or None,
            series_instance_uid=reference.get("SeriesInstanceUID") or None,
        ), path.name


SEQUENCES = {
    "of defined length": b"\x08\x00\x15\x11SQ\0\0" + struct.pack("<I", 20) + ITEM + struct.pack("<I", 12) + UID_VALUE,
    "of undefined length": b"\x08\x00\x15\x11SQ\0\0" + UNDEFINED + ITEM + b"\x0c\0\0\0" + UID_VALUE + SEQUENCE_END,
    "with items of undefined length": (
        b"\x08\x00\x15\x11SQ\0\0" + UNDEFINED + (ITEM + UNDEFINED + UID_VALUE + ITEM_END) * 2 + SEQUENCE_END
    ),
    "that is empty": b"\x08\x00\x15\x11SQ\0\0" + UNDEFINED + SEQUENCE_END,
    "nested": (
        b"\x08\x00\x15\x11SQ\0\0"
        + (UNDEFINED + ITEM + UNDEFINED + b"\x08\x00\x15\x11SQ\0\0") * 20
        + UNDEFINED
        + SEQUENCE_END
        + (ITEM_END + SEQUENCE_END) * 20
    ),
    "of VR UN, implicit inside": (
        b"\x08\x00\x15\x11UN\0\0"
        + UNDEFINED
        + ITEM
        + UNDEFINED
        + b"\x08\0\x18\0\x04\0\0\x001.2\0"
        + ITEM_END
        + SEQUENCE_END
    ),
    "of VR UN, explicit inside": (
        b"\x08\x00\x15\x11UN\0\0" + UNDEFINED + ITEM + UNDEFINED + UID_VALUE + ITEM_END + SEQUENCE_END
    ),
    "of fragments": b"\x08\x00\x15\x11OB\0\0" + UNDEFINED + (ITEM + b"\x04\0\0\0\xff\xd8\xff\xd9") * 2 + SEQUENCE_END,
    "with an implicit item": (
        b"\x08\x00\x15\x11SQ\0\0"
        + UNDEFINED
        + ITEM
        + UNDEFINED
        + b"\x08\0\x18\0\x04\0\0\x001.2\0"
        + ITEM_END
        + SEQUENCE_END
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_is_jumped_over(name: str) -> None:
    sequence = SEQUENCES[name]
    found = scan(UID_VALUE.replace(b"\x18", b"\x16") + sequence + AFTER, EXPLICIT)
    assert list(found) == [0x00080016, 0x00081115, 0x00100020]
    assert found[0x00100020].value == b"AB"
    for cut in range(len(sequence)):
        assert list(scan(sequence[:cut], EXPLICIT)) == []


def test_the_head_may_end_anywhere() -> None:
    data = UID_VALUE + AFTER + b"\x10\0\x40\0OB\0\0\x04\0\0\x00abcd"
    starts = [0, len(UID_VALUE), len(UID_VALUE + AFTER), len(data)]
    for cut in range(len(data) + 1):
        assert len(scan(data[:cut], EXPLICIT)) == sum(cut >= end for end in starts[1:])


def test_the_walk_ends_at_pixel_data_or_where_it_is_told_to() -> None:
    pixels = b"\xe0\x7f\x10\x00OW\0\0\x02\0\0\0xx"
    assert list(scan(UID_VALUE + AFTER + pixels, EXPLICIT)) == [0x00080018, 0x00100020]
    assert list(scan(UID_VALUE + AFTER + pixels, EXPLICIT, stop=0x00100020)) == [0x00080018]
    assert list(scan(UID_VALUE + AFTER + pixels, EXPLICIT, stop=1 << 32)) == [0x00080018, 0x00100020, 0x7FE00010]
    assert list(scan(UID_VALUE + AFTER, EXPLICIT, wanted=frozenset({0x00100020}))) == [0x00100020]
    assert scan(UID_VALUE + AFTER, EXPLICIT, wanted=frozenset()) == {}


def test_offsets_and_lengths_point_at_the_value() -> None:
    data = memoryview(UID_VALUE + SEQUENCES["of undefined length"] + AFTER)
    for element in scan(data, EXPLICIT).values():
        content = bytes(data[element.offset : element.offset + element.length])
        assert content == (element.value or ITEM + b"\x0c\0\0\0" + UID_VALUE)
    assert scan(data, EXPLICIT)[0x00080018].vr == b"UI"
    assert scan(b"\x08\0\x18\0\x04\0\0\x001.2\0", IMPLICIT)[0x00080018].vr is None


def test_an_element_in_implicit_vr_inside_of_explicit_vr_is_understood() -> None:
    found = scan(b"\x08\0\x16\0\x04\0\0\x001.2\0" + AFTER, EXPLICIT)
    assert found[0x00080016].value == b"1.2\0"
    assert found[0x00080016].vr is None
    assert found[0x00100020].value == b"AB"


def test_only_the_head_of_a_deflated_data_set_is_inflated() -> None:
    deflater = zlib.compressobj(wbits=-15)
    data = deflater.compress(UID_VALUE + AFTER + b"\xe0\x7f\x10\x00OW\0\0\xff\xff\xff\x7f" + bytes(64 << 20))
    tracemalloc.start()
    try:
        assert list(scan(data, DEFLATED)) == [0x00080018, 0x00100020]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(DataSetError, match="deflated"):
        scan(b"\xff" * 20, DEFLATED)


HOSTILE = {
    "10 000 nested sequences": ((b"\x08\x00\x15\x11SQ\0\0" + UNDEFINED + ITEM + UNDEFINED) * 10_000, EXPLICIT),
    "10 000 nested sequences, implicit": ((b"\x08\x00\x15\x11" + UNDEFINED + ITEM + UNDEFINED) * 10_000, IMPLICIT),
    "10 000 nested sequences, UN": ((b"\x08\x00\x15\x11UN\0\0" + UNDEFINED + ITEM + UNDEFINED) * 10_000, EXPLICIT),
    "4 GiB in an element": (b"\x08\x00\x18\x00OB\0\0\xfe\xff\xff\xff", EXPLICIT),
    "4 GiB in an item": (b"\x08\x00\x15\x11SQ\0\0" + UNDEFINED + ITEM + b"\xfe\xff\xff\xff", EXPLICIT),
    "no delimiter": (b"\x08\x00\x15\x11SQ\0\0" + UNDEFINED + (ITEM + b"\0\0\0\0") * 100_000, EXPLICIT),
    "no item": (b"\x08\x00\x15\x11SQ\0\0" + UNDEFINED + UID_VALUE, EXPLICIT),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_data_end_the_walk_without_memory_or_recursion(name: str) -> None:
    data, transfer_syntax = HOSTILE[name]
    depth = sys.getrecursionlimit()
    tracemalloc.start()
    try:
        assert scan(data, transfer_syntax) == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert sys.getrecursionlimit() == depth


@given(st.binary(max_size=400), st.sampled_from([IMPLICIT, EXPLICIT, BIG, "1.2.840.10008.1.2.4.50", "1.2.3"]))
def test_random_bytes_are_never_an_error(data: bytes, transfer_syntax: str) -> None:
    for element in scan(data, transfer_syntax, stop=1 << 32).values():
        assert element.offset + element.length <= len(data)
    scan_head(memoryview(data), transfer_syntax)


UIDS = {
    "1.2.3": True,
    "1": True,
    "1.02.3": True,
    "2.25." + "9" * 39: True,
    "1." + "2" * 62: True,
    "1." + "2" * 63: False,
    "": False,
    ".": False,
    "..": False,
    "1..2": False,
    "1.2.": False,
    ".1.2": False,
    "../../x": False,
    "/etc/passwd": False,
    "1.2.3\0": False,
    "1.2.3\n": False,
    "1.2.3 ": False,
    "1.2.a": False,
    "1.2.\u0663": False,
    "C:1.2": False,
    "-1.2": False,
}


@pytest.mark.parametrize("uid", UIDS)
def test_only_digits_and_dots_may_name_an_instance(uid: str) -> None:
    assert safe_uid(uid) is UIDS[uid]
