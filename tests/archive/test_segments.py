"""Composing data sets of new bytes and of ranges of others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom.archive.instance_file import Encoding, read_root
from asyncdicom.archive.segments import (
    Packed,
    Range,
    Segment,
    compose,
    encode_element,
    encode_item,
    encode_numbers,
    encode_sequence,
    merged,
    size_of,
    stream,
)

from .multiframe import naive_bits
from .test_instance_file import Memory

EXPLICIT, IMPLICIT, BIG = Encoding(True, True), Encoding(False, True), Encoding(True, False)

ELEMENTS: list[tuple[int, bytes, bytes | str, Encoding, str]] = [
    (0x00100010, b"PN", "AB", EXPLICIT, "10001000 504e 0200 4142"),
    (0x00100010, b"PN", "A", EXPLICIT, "10001000 504e 0200 4120"),
    (0x00100010, b"PN", "A", IMPLICIT, "10001000 02000000 4120"),
    (0x00100010, b"PN", "A", BIG, "00100010 504e 0002 4120"),
    (0x00080018, b"UI", "1.2", EXPLICIT, "08001800 5549 0400 312e3200"),
    (0x7FE00010, b"OB", b"\1", EXPLICIT, "e07f1000 4f42 0000 02000000 0100"),
    (0x00080120, b"UR", b"x", EXPLICIT, "08002001 5552 0000 02000000 7820"),
    (0x00100010, b"PN", "", EXPLICIT, "10001000 504e 0000"),
]


def joined(segments: list[Segment]) -> bytes:
    return b"".join(stream(Memory(b""), segments))


@pytest.mark.parametrize(("tag", "vr", "value", "encoding", "expected"), ELEMENTS)
def test_elements_are_encoded(tag: int, vr: bytes, value: bytes | str, encoding: Encoding, expected: str) -> None:
    assert joined(encode_element(tag, vr, value, encoding)).hex() == expected.replace(" ", "")


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (EXPLICIT, "08006111 554c 0800 01000000 02000000"),
        (IMPLICIT, "08006111 08000000 01000000 02000000"),
        (BIG, "00081161 554c 0008 00000001 00000002"),
    ],
)
def test_numbers_are_encoded(encoding: Encoding, expected: str) -> None:
    assert joined(encode_numbers(0x00081161, b"UL", "I", [1, 2], encoding)).hex() == expected.replace(" ", "")


@pytest.mark.parametrize(("encoding", "head"), [(EXPLICIT, "08006111"), (BIG, "00081161")])
def test_values_that_are_too_long_for_their_vr_are_un(encoding: Encoding, head: str) -> None:
    data = joined(encode_numbers(0x00081161, b"UL", "I", range(1, 20_001), encoding))
    order = "little" if encoding.little else "big"
    assert data.startswith(bytes.fromhex(head + "554e0000") + (80_000).to_bytes(4, order))  # type: ignore[arg-type]
    assert data[12:20] == bytes.fromhex("01000000 02000000")


def test_items_and_sequences_too_long_for_their_length_are_delimited() -> None:
    huge: list[Segment] = [Range(0, 1 << 33)]
    entry = encode_item(huge, EXPLICIT)
    assert entry == [bytes.fromhex("feff00e0 ffffffff"), huge[0], bytes.fromhex("feff0de0 00000000")]
    assert encode_sequence(0x00081118, [entry], EXPLICIT) == [
        bytes.fromhex("08001811 5351 0000 ffffffff"),
        *entry,
        bytes.fromhex("feffdde0 00000000"),
    ]


def test_a_sequence_whose_items_are_encoded_in_another_way_is_un() -> None:
    entry = encode_item(encode_element(0x00100010, b"PN", "AB", IMPLICIT), IMPLICIT)
    assert joined(encode_sequence(0x00081118, [entry], BIG, IMPLICIT)).hex() == (
        "00081118554e000000000012" + "feff00e00a000000" + "1000100002000000" + "4142"
    )


def test_neighbours_are_joined() -> None:
    packed = Packed(0, 2, ((0, 3),), False)
    segments: list[Segment] = [b"a", b"b", Range(0, 2), Range(2, 5), Range(6, 7), b"c", packed, b"", b"d"]
    assert merged(segments) == [b"ab", Range(0, 5), Range(6, 7), b"c", packed, b"d"]
    assert size_of(segments) == size_of(merged(segments)) == 2 + 5 + 1 + 1 + 2 + 1


def test_elements_are_exchanged_added_and_left_out_in_the_order_of_tags() -> None:
    data = Memory(bytes.fromhex("080018005549 0200 3100 080020004441 0000 10001000504e 0200 4142"))
    root, _ = read_root(data, EXPLICIT)
    updates: dict[int, list[Segment] | None] = {
        0x00080020: None,
        0x00080018: encode_element(0x00080018, b"UI", "1.2", EXPLICIT),
        0x00080030: encode_element(0x00080030, b"TM", "", EXPLICIT),
        0x00999999: None,
    }
    assert b"".join(stream(data, compose(root, updates))).hex() == (
        "0800180055490400312e3200" + "08003000544d0000" + "10001000504e02004142"
    )
    assert b"".join(stream(data, compose(root, {}))) == data.read(0, 99)


@given(
    st.binary(min_size=2, max_size=40).filter(lambda value: len(value) % 2 == 0),
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=5),
    st.booleans(),
    st.integers(0, 5),
)
def test_bits_are_put_together_without_gaps(
    value: bytes, runs: list[tuple[int, int]], swapped: bool, before: int
) -> None:
    bits = len(value) * 8
    runs = [(first % bits, min(count, bits - first % bits)) for first, count in runs]
    packed = Packed(before, before + len(value), tuple(runs), swapped)
    found = b"".join(stream(Memory(bytes(before) + value), [packed]))
    assert len(found) == size_of([packed])
    source = naive_bits(value, bits, 1, swapped=swapped)
    expected = [bit for first, count in runs for bit in source[first : first + count]]
    assert naive_bits(found, len(found) * 8, 1, swapped=swapped)[: len(expected)] == expected


def test_chunks_are_neither_tiny_nor_huge() -> None:
    data = Memory(bytes(3 << 20))
    segments: list[Segment] = []
    for _ in range(1000):
        segments += [b"x" * 10, Range(0, 10)]
    segments.append(Range(0, 3 << 20))
    chunks = list(stream(data, segments))
    assert sum(map(len, chunks)) == size_of(segments)
    assert max(map(len, chunks)) <= 600 << 10
    assert all(len(chunk) >= 256 << 10 for chunk in chunks[:-1])


@pytest.mark.parametrize("segment", [Range(5, 20), Packed(5, 20, ((0, 100),), False), Packed(4, 20, ((0, 100),), True)])
def test_a_source_that_is_too_short_is_an_os_error(segment: Segment) -> None:
    with pytest.raises(OSError, match="shorter"):
        list(stream(Memory(bytes(10)), [segment]))
