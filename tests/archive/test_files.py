"""The folder of instances: names, moments at which a process may die, and what must never become a path."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from asyncdicom.archive.files import Files, FolderFiles, Sync


@pytest.fixture
def files(tmp_path: Path) -> FolderFiles:
    return FolderFiles(tmp_path)


def stage(files: Files, content: bytes = b"content") -> str:
    path = files.stage()
    Path(path).write_bytes(content)
    return path


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_instance_is_kept_under_a_name_and_read_by_it(files: FolderFiles, tmp_path: Path) -> None:
    staged = stage(files)
    name = files.keep(staged, "1.2.3")
    assert Path(files.path(name)).read_bytes() == b"content"
    assert not os.path.exists(staged)
    assert list(files.names()) == [name]
    assert everything(tmp_path) == [f"instances/{name}"]
    assert Path(files.path(name)).name.startswith("1.2.3-")


def test_names_are_relative_and_spread_over_folders(files: FolderFiles) -> None:
    names = [files.keep(stage(files), f"1.2.{number}") for number in range(64)]
    assert not any(os.path.isabs(name) or ".." in name for name in names)
    assert len({name.split("/")[0] for name in names}) > 16
    assert sorted(files.names()) == sorted(names)


def test_an_instance_never_takes_the_name_of_another(files: FolderFiles) -> None:
    names = [files.keep(stage(files, content), "1.2.3") for content in (b"first", b"second", b"third")]
    assert [Path(files.path(name)).read_bytes() for name in names] == [b"first", b"second", b"third"]


def test_the_longest_uid_is_kept(files: FolderFiles) -> None:
    uid = "1." + "2" * 62
    assert len(uid) == 64
    assert uid in files.keep(stage(files), uid)


HOSTILE = [
    "",
    ".",
    "..",
    "../../x",
    "/etc/passwd",
    "1.2/../../3",
    "1.2\\..\\3",
    "1..2",
    ".1.2",
    "1.2.",
    "1.2\0",
    "1.2\n",
    "1.2 ",
    "1.2.a",
    "１.２",
    "1.2:stream",
    "~",
    "-rf",
    "1." + "2" * 63,
    "CON",
]


@pytest.mark.parametrize("uid", HOSTILE)
def test_what_is_no_uid_never_becomes_a_path(files: FolderFiles, tmp_path: Path, uid: str) -> None:
    staged = stage(files)
    with pytest.raises(ValueError, match="UID"):
        files.keep(staged, uid)
    assert everything(tmp_path) == [os.path.relpath(staged, tmp_path)]


def test_an_instance_that_is_only_staged_is_seen_by_nobody_and_cleaned_away(files: FolderFiles, tmp_path: Path) -> None:
    kept = files.keep(stage(files), "1.2.3")
    stage(files, b"half of it")
    (tmp_path / "incoming" / ".asyncdicom-0123456789abcdef.part").write_bytes(b"less than that")
    assert list(files.names()) == [kept]
    assert FolderFiles(tmp_path).clean() == 2
    assert everything(tmp_path) == [f"instances/{kept}"]
    assert files.clean() == 0


def test_what_does_not_belong_into_the_folder_is_neither_named_nor_removed(files: FolderFiles, tmp_path: Path) -> None:
    name = files.keep(stage(files), "1.2.3")
    folder = Path(files.path(name)).parent
    strangers = [
        folder / "README.txt",
        folder / ".asyncdicom-0123456789abcdef.part",
        tmp_path / "instances" / "notes.dcm",
        tmp_path / "instances" / name[:2] / "notes.dcm",
        tmp_path / "incoming" / "notes.txt",
    ]
    for stranger in strangers:
        stranger.write_bytes(b"x")
    assert list(files.names()) == [name]
    files.clean()
    assert all(stranger.exists() for stranger in strangers)


def test_discarding_removes_and_may_be_repeated(files: FolderFiles) -> None:
    name = files.keep(stage(files), "1.2.3")
    with open(files.path(name), "rb") as reader:
        files.discard(name)
        files.discard(name)
        assert reader.read() == b"content"  # who reads it already reads it to the end
    assert list(files.names()) == []
    with pytest.raises(FileNotFoundError):
        Path(files.path(name)).read_bytes()


def test_a_folder_that_is_opened_again_has_what_was_kept(files: FolderFiles, tmp_path: Path) -> None:
    names = sorted(files.keep(stage(files), f"1.2.{number}") for number in range(5))
    again = FolderFiles(tmp_path)
    assert sorted(again.names()) == names
    again.keep(stage(again), "1.2.1")
    assert len(list(files.names())) == 6


def test_what_cannot_be_kept_is_an_os_error_and_leaves_the_folder_as_it_was(files: FolderFiles, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        files.keep(str(tmp_path / "incoming" / "nothing.dcm"), "1.2.3")
    assert list(files.names()) == []


def test_syncing_forces_files_and_their_folders_to_the_disk(
    files: FolderFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [files.keep(stage(files), uid) for uid in ("1.2.3", "1.2.4")]
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell what was synced")
    monkeypatch.setattr(os, "fsync", fsync)
    files.sync(names)
    for name in names:
        path = os.path.realpath(files.path(name))
        # A name is on the disk when its folder is, and that folder's name when the one above is.
        folders = [os.path.dirname(path), os.path.dirname(os.path.dirname(path))]
        assert {path, *folders, os.path.dirname(folders[1])} <= set(synced)
        assert synced.index(path) < synced.index(folders[0])


def test_threads_keep_instances_at_once(files: FolderFiles) -> None:
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for index in range(25):
            files.keep(stage(files, f"{number} {index}".encode()), f"1.2.{index}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contents = {Path(files.path(name)).read_bytes() for name in files.names()}
    assert len(contents) == 100


def test_no_descriptor_is_left_open(files: FolderFiles) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to count descriptors")
    before = len(os.listdir("/proc/self/fd"))
    names = [files.keep(stage(files), f"1.2.{number}") for number in range(20)]
    files.sync(names)
    list(files.names())
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_policies_have_the_names_of_the_command_line() -> None:
    assert [policy.value for policy in Sync] == ["always", "batch", "never"]
