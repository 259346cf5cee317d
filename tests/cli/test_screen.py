from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom.cli.screen import amount, clean, counted, size, span


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Müller^Jürgen=山田^太郎", "Müller^Jürgen=山田^太郎"),
        ("two words\u3000wide", "two words\u3000wide"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\nb\r\x00\x9b", "a\\nb\\r\\x00\\x9b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff.dcm", "\\udcff.dcm"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(st.text(alphabet=st.characters()))
def test_a_clean_text_can_be_printed(text: str) -> None:
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in clean(text))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_940, "99.9 kB"),
        (123_456, "123 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (5_300_000_000, "5.3 GB"),
        (7e15, "7000.00 TB"),
    ],
)
def test_bytes_are_written_in_the_unit_that_suits_them(count: float, expected: str) -> None:
    assert size(count) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.00041, "0.41 ms"),
        (0.0994, "99.40 ms"),
        (0.1, "0.10 s"),
        (99.9, "99.90 s"),
        (100, "1:40 min"),
        (3600, "1:00:00 h"),
    ],
)
def test_times_are_written_in_the_unit_that_suits_them(seconds: float, expected: str) -> None:
    assert span(seconds) == expected


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (1, "match", "1 match"),
        (0, "match", "0 matches"),
        (2, "instance", "2 instances"),
        (12345, "study", "12 345 studies"),
    ],
)
def test_things_are_counted(number: int, noun: str, expected: str) -> None:
    assert counted(number, noun) == expected


def test_thousands_are_apart() -> None:
    assert [amount(n) for n in (0, 999, 1000, 1234567)] == ["0", "999", "1 000", "1 234 567"]
