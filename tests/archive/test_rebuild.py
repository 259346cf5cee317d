"""The index made anew, and what the archive does when it is opened on what others have left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncdicom.archive import Archive, FolderFiles, Rebuilt
from asyncdicom.archive.entities import InstanceRow
from asyncdicom.dataset import encode_data_set, part10_head

from .corpus import family, instance
from .serving import fill, instance_files, left_over


@contextmanager
def opened(folder: Path, **options: Any) -> Iterator[Archive]:
    archive = Archive(folder, **{"sync": "never", **options})
    archive.open()
    try:
        yield archive
    finally:
        archive.close()


def rows(archive: Archive) -> dict[str, InstanceRow]:
    return {row.sop_instance_uid: row for page in archive._opened()[0].all() for row in page}


def counts(found: Rebuilt) -> tuple[int, int, int, int]:
    return found.indexed, found.duplicates, found.damaged, found.missing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an archive of 13 instances that is not open."""
    made = tmp_path / "archive"
    fill(made, family())
    return made


@pytest.mark.parametrize("open_before", [True, False])
def test_a_rebuilt_index_is_the_same(folder: Path, open_before: bool) -> None:
    with opened(folder) as archive:
        before = rows(archive)
        if open_before:
            assert counts(archive.rebuild()) == (13, 0, 0, 0)
            assert rows(archive) == before
    if not open_before:
        closed = Archive(folder)
        assert counts(closed.rebuild()) == (13, 0, 0, 0)
        with pytest.raises(RuntimeError, match="not open"):
            closed._opened()
    with opened(folder) as archive:
        assert rows(archive) == before
    assert sorted(os.listdir(folder)) == ["incoming", "index.sqlite", "instances"]


def test_an_index_that_is_missing_is_made_anew_when_the_archive_is_opened(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(folder) as archive:
        before = rows(archive)
    (folder / "index.sqlite").unlink()
    with opened(folder) as archive:
        assert rows(archive) == before
    assert "the index is missing" in caplog.text


def test_the_instances_alone_are_enough(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "instances", tmp_path / "copy" / "instances")
    with opened(tmp_path / "copy") as archive:
        assert len(rows(archive)) == 13


def test_a_damaged_index_cannot_be_opened_but_rebuilt(folder: Path) -> None:
    (folder / "index.sqlite").write_bytes(b"no database" * 1000)
    archive = Archive(folder)
    with pytest.raises(OSError, match="the index cannot be opened"):
        archive.open()
    assert counts(archive.rebuild()) == (13, 0, 0, 0)
    with opened(folder) as archive:
        assert len(rows(archive)) == 13


def test_what_an_old_index_had_not_written_is_no_part_of_the_new_one(folder: Path) -> None:
    for suffix in ("-wal", "-shm"):
        (folder / f"index.sqlite{suffix}").write_bytes(b"left over" * 1000)
    (folder / "index.sqlite").write_bytes(b"no database" * 1000)
    assert counts(Archive(folder).rebuild()) == (13, 0, 0, 0)
    with opened(folder) as archive:
        assert len(rows(archive)) == 13


def test_damaged_and_missing_files_are_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing, shorter, foreign, *_ = instance_files(folder)
    missing.unlink()
    shorter.write_bytes(shorter.read_bytes()[:-2])
    foreign.write_bytes(b"no instance")
    foreign.with_name("notes.txt").write_bytes(b"not ours")
    found = Archive(folder).rebuild()
    assert counts(found) == (10, 0, 2, 1)
    for path in (missing, shorter, foreign):
        assert path.name in caplog.text
    assert "notes.txt" not in caplog.text


def add_file(folder: Path, patient: str, age: int) -> Path:
    """Put another file with the SOP Instance UID of ``instance(1)`` among the instances."""
    ds = instance(1, patient=patient)
    files = FolderFiles(folder)
    incoming = files.begin()
    uids = ds.SOPClassUID, ds.SOPInstanceUID, "1.2.840.10008.1.2.1"
    incoming.write([part10_head(*uids), encode_data_set(ds, uids[2])])
    name = incoming.keep(ds.SOPInstanceUID, sync=False)
    files.settle([name])
    files.close()
    path = Path(files.path(name))
    os.utime(path, (age, age))
    return path


@pytest.mark.parametrize(("policy", "expected"), [("refuse", "OLD"), ("keep", "OLD"), ("replace", "NEW")])
def test_of_two_files_of_an_instance_the_policy_chooses(tmp_path: Path, policy: str, expected: str) -> None:
    old, new = add_file(tmp_path, "OLD", 1000), add_file(tmp_path, "NEW", 2000)
    archive = Archive(tmp_path, on_duplicate=policy)  # type: ignore[arg-type]
    found = archive.rebuild()
    assert counts(found) == (1, 1, 0, 0)
    with opened(tmp_path) as archive:
        (row,) = rows(archive).values()
        assert Path(archive._opened()[1].path(row.path)) == {"OLD": old, "NEW": new}[expected]
    assert len(instance_files(tmp_path)) == 2  # what is not chosen is left alone


@pytest.mark.parametrize("policy", ["refuse", "replace"])
@pytest.mark.parametrize("known", ["OLD", "NEW"])
def test_of_two_files_of_an_instance_the_one_is_kept_that_the_old_index_knows(
    tmp_path: Path, known: str, policy: str
) -> None:
    paths = {known: add_file(tmp_path, known, {"OLD": 1000, "NEW": 2000}[known])}
    Archive(tmp_path).rebuild()
    other = {"OLD": "NEW", "NEW": "OLD"}[known]
    paths[other] = add_file(tmp_path, other, {"OLD": 1000, "NEW": 2000}[other])
    assert counts(Archive(tmp_path, on_duplicate=policy).rebuild()) == (1, 1, 0, 0)  # type: ignore[arg-type]
    with opened(tmp_path) as archive:
        (row,) = rows(archive).values()
        assert Path(archive._opened()[1].path(row.path)) == paths[known]


def test_the_other_file_is_taken_if_the_one_that_the_old_index_knows_is_damaged(tmp_path: Path) -> None:
    first = add_file(tmp_path, "FIRST", 1000)
    Archive(tmp_path).rebuild()
    first.write_bytes(first.read_bytes()[:-2])
    second = add_file(tmp_path, "SECOND", 2000)
    assert counts(Archive(tmp_path).rebuild()) == (1, 0, 1, 0)
    with opened(tmp_path) as archive:
        (row,) = rows(archive).values()
        assert Path(archive._opened()[1].path(row.path)) == second


def test_progress_is_told_and_a_rebuild_that_is_broken_off_keeps_the_old_index(tmp_path: Path) -> None:
    fill(tmp_path, (instance(number) for number in range(300)))
    seen: list[int] = []
    assert Archive(tmp_path).rebuild(lambda found: seen.append(found.indexed)).indexed == 300
    assert seen == [256, 300]

    def stop(found: Rebuilt) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Archive(tmp_path).rebuild(stop)
    with opened(tmp_path) as archive:
        assert len(rows(archive)) == 300
    assert sorted(os.listdir(tmp_path)) == ["incoming", "index.sqlite", "instances"]


def test_an_index_behind_another_url_is_emptied_and_filled(folder: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    with opened(folder, index_url=url) as archive:
        assert rows(archive) == {}
        assert counts(archive.rebuild()) == (13, 0, 0, 0)
        assert len(rows(archive)) == 13
    assert counts(Archive(folder, index_url=url).rebuild()) == (13, 0, 0, 0)


def test_two_archives_may_be_open_on_one_folder(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        for number, archive in enumerate([one, other, one, other]):
            ds = instance(number)
            uids = ds.SOPClassUID, ds.SOPInstanceUID, "1.2.840.10008.1.2.1"
            arrival = archive._opened()[2].arrival(part10_head(*uids), *uids)
            arrival.write([])
            with opened(tmp_path):  # which cleans
                pass
            assert arrival.finish([encode_data_set(ds, uids[2])]).status == 0
        assert rows(one) == rows(other)
        assert len(rows(one)) == 4
    assert left_over(tmp_path) == []


def test_an_archive_may_be_closed_twice_and_opened_again(folder: Path) -> None:
    archive = Archive(folder, sync="never")
    for _ in range(2):
        archive.open()
        assert len(rows(archive)) == 13
        archive.close()
        archive.close()
    with pytest.raises(RuntimeError, match="not open"):
        rows(archive)


@pytest.mark.parametrize("options", [{"on_duplicate": "overwrite"}, {"sync": "sometimes"}])
def test_what_no_policy_is_called_is_a_value_error(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options.values()))):
        Archive(tmp_path, **options)
