"""Files that were retired go when nobody who may read them is left."""

from __future__ import annotations

from asyncdicom.archive.leases import Leases


def test_what_nobody_reads_expires_at_once() -> None:
    leases = Leases()
    assert not leases.has_expired()
    leases.retire("a")
    leases.retire("b")
    assert leases.has_expired()
    assert leases.expired() == ["a", "b"]
    assert leases.expired() == []


def test_what_was_retired_while_somebody_read_expires_when_he_ends() -> None:
    leases = Leases()
    reader = leases.begin()
    leases.retire("a")
    assert leases.expired() == []
    leases.end(reader)
    leases.end(reader)
    assert leases.expired() == ["a"]


def test_who_begins_later_does_not_find_it_and_does_not_keep_it() -> None:
    leases = Leases()
    first = leases.begin()
    leases.retire("a")
    second = leases.begin()
    leases.retire("b")
    leases.end(first)
    assert leases.expired() == ["a"]
    third = leases.begin()
    leases.end(second)
    assert leases.expired() == ["b"]
    leases.end(third)


def test_readers_end_in_any_order() -> None:
    leases = Leases()
    readers = [leases.begin() for _ in range(5)]
    leases.retire("a")
    for reader in reversed(readers):
        assert not leases.has_expired()
        leases.end(reader)
    assert leases.expired() == ["a"]
