"""Inflating stays within the limits."""

from __future__ import annotations

import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom._deflate import DataSetLimits, deflate, deflated, inflate, inflate_head, inflated
from asyncdicom.exceptions import DataSetError


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_what_was_deflated_inflates_to_the_same(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    for compressed in (deflate(data), b"".join(deflated(iter(chunks)))):
        assert len(compressed) % 2 == 0
        assert inflate(compressed) == data
        assert b"".join(inflated(compressed[at : at + 1] for at in range(len(compressed)))) == data


def test_other_programs_read_what_was_deflated() -> None:
    assert zlib.decompress(deflate(b"abc" * 1000), -zlib.MAX_WBITS) == b"abc" * 1000


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0\0\0", b"anything"])
def test_what_follows_the_end_is_padding(padding: bytes) -> None:
    assert inflate(deflate(b"abc") + padding) == b"abc"


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", zlib.compress(b"abc" * 1000), deflate(b"abc" * 1000)[:8]])
def test_damaged_and_incomplete_data_are_refused(data: bytes) -> None:
    with pytest.raises(DataSetError, match="deflated"):
        inflate(data)


def test_random_data_of_any_size_inflate() -> None:
    data = os.urandom(20 << 20)
    assert inflate(deflate(data)) == data


LIMITS = {
    "the absolute limit": DataSetLimits(inflated=1 << 20, inflate_ratio=None),
    "the ratio": DataSetLimits(inflated=None, inflate_ratio=10),
    "both": DataSetLimits(),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_bomb_is_refused_by(name: str) -> None:
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(64)) + deflater.flush()
    tracemalloc.start()
    try:
        with pytest.raises(DataSetError, match="inflates to more than"):
            inflate(bomb, LIMITS[name])
        with pytest.raises(DataSetError, match="inflates to more than"):
            max(len(piece) for piece in inflated(iter((bomb,)), LIMITS[name]))
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_only_the_head_is_inflated_when_asked() -> None:
    compressed = deflate(bytes(4 << 20))
    assert len(inflate_head(compressed, 1000)) == 1000
    assert len(inflate_head(compressed)) == 1 << 20
    assert b"abc".startswith(inflate_head(deflate(b"abc")[:2]))
