"""The folder of instances: names, moments at which a process may die, and what must never become a path."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncdicom.archive.files import FolderFiles, Sync
from asyncdicom.dataset import part10_head
from asyncdicom.exceptions import DataSetError


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FolderFiles]:
    opened = FolderFiles(tmp_path)
    yield opened
    opened.close()


def keep(files: FolderFiles, uid: str, content: bytes = b"content", *, sync: bool = False) -> str:
    incoming = files.begin()
    try:
        incoming.write([content])
        return incoming.keep(uid, sync=sync)
    finally:
        incoming.abort()


def kept(folder: Path) -> list[str]:
    """Return the files below ``instances``."""
    instances = folder / "instances"
    return sorted(str(path.relative_to(instances)) for path in instances.rglob("*") if path.is_file())


def received(folder: Path) -> list[Path]:
    """Return the instances below ``incoming`` that have no name yet."""
    return [path for path in (folder / "incoming").rglob("*") if path.is_file() and path.name != "in-doubt"]


def nobody(uid: str, name: str) -> bool:
    return False


def test_an_instance_is_kept_under_a_name_and_read_by_it(files: FolderFiles, tmp_path: Path) -> None:
    name = keep(files, "1.2.3")
    assert Path(files.path(name)).read_bytes() == b"content"
    assert list(files.names()) == kept(tmp_path) == [name]
    assert Path(name).name.startswith("1.2.3-")
    assert received(tmp_path) == []


def test_an_instance_is_written_in_pieces(files: FolderFiles) -> None:
    incoming = files.begin()
    pieces = [bytes([number % 256]) * number for number in range(3000)]
    incoming.write([])
    incoming.write(pieces[:10])
    incoming.write([memoryview(piece) for piece in pieces[10:]])
    name = incoming.keep("1.2.3", sync=True)
    assert Path(files.path(name)).read_bytes() == b"".join(pieces)


def test_a_name_is_relative_and_has_few_neighbours(files: FolderFiles) -> None:
    names = [keep(files, f"1.2.{number}") for number in range(1001)]
    assert not any(os.path.isabs(name) or ".." in name for name in names)
    assert len({name.rpartition("/")[0] for name in names}) == 2


def test_names_come_in_the_order_in_which_instances_were_kept(files: FolderFiles, tmp_path: Path) -> None:
    names = [keep(files, f"1.2.{9 - number}") for number in range(5)]
    for age, name in enumerate(names):
        os.utime(files.path(name), ns=(age, age))
    assert list(files.names()) == names


def test_an_instance_never_takes_the_name_of_another(files: FolderFiles) -> None:
    names = [keep(files, "1.2.3", content) for content in (b"first", b"second", b"third")]
    assert [Path(files.path(name)).read_bytes() for name in names] == [b"first", b"second", b"third"]


def test_the_longest_uid_is_kept(files: FolderFiles) -> None:
    uid = "1." + "2" * 62
    assert len(uid) == 64
    assert uid in keep(files, uid)


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
    with pytest.raises(ValueError, match="UID"):
        keep(files, uid)
    assert kept(tmp_path) == []
    assert received(tmp_path) == []


def test_an_instance_that_is_forgotten_leaves_nothing(files: FolderFiles, tmp_path: Path) -> None:
    incoming = files.begin()
    incoming.write([b"half of it"])
    assert list(files.names()) == []
    incoming.abort()
    incoming.abort()
    assert received(tmp_path) == []
    other = files.begin()
    name = other.keep("1.2.3", sync=False)
    other.abort()  # comes too late
    assert list(files.names()) == [name]


def test_what_does_not_belong_into_the_folder_is_neither_named_nor_removed(files: FolderFiles, tmp_path: Path) -> None:
    name = keep(files, "1.2.3")
    strangers = [
        Path(files.path(name)).parent / "README.txt",
        Path(files.path(name)).parent / "1.2.3.dcm",
        tmp_path / "instances" / "notes.dcm",
        tmp_path / "incoming" / "notes.txt",
    ]
    for stranger in strangers:
        stranger.write_bytes(b"x")
    assert list(files.names()) == [name]
    files.clean(nobody)
    assert all(stranger.exists() for stranger in strangers)


def test_discarding_removes_and_may_be_repeated(files: FolderFiles) -> None:
    name = keep(files, "1.2.3")
    with open(files.path(name), "rb") as reader:
        files.discard(name)
        files.discard(name)
        assert reader.read() == b"content"  # who reads it already reads it to the end
    assert list(files.names()) == []


def test_a_kept_instance_is_opened_with_what_it_says_of_itself(files: FolderFiles) -> None:
    uids = ("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")
    data_set = b"\x08\x00\x16\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\0\x08\x00\x18\x00UI\x06\x001.2.3\0"
    name = keep(files, "1.2.3", part10_head(*uids) + data_set)
    source = files.open(name)
    try:
        head = source.head
        assert (head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid) == uids
        assert source.size == len(data_set)
    finally:
        source.close()
    with pytest.raises(DataSetError):
        files.open(keep(files, "1.2.4", b"no instance"))
    files.discard(name)
    with pytest.raises(FileNotFoundError):
        files.open(name)


def test_a_folder_that_is_opened_again_has_what_was_kept(files: FolderFiles, tmp_path: Path) -> None:
    names = sorted(keep(files, f"1.2.{number}") for number in range(5))
    files.settle(names)
    files.close()
    files.close()
    again = FolderFiles(tmp_path)
    try:
        assert again.clean(nobody) == 0
        assert sorted(again.names()) == names
    finally:
        again.close()
    assert list((tmp_path / "incoming").iterdir()) == []


# What a process leaves that is killed

KILLED = """
import os, sys
from asyncdicom.archive.files import FolderFiles

files = FolderFiles(sys.argv[1])
names = []
for uid in ("1.2.1", "1.2.2", "1.2.3"):
    incoming = files.begin()
    incoming.write([uid.encode()])
    names.append(incoming.keep(uid, sync=True))
files.settle(names[:1])
half = files.begin()
half.write([b"half"])
print("\\n".join(names), flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_was_in_doubt_when_a_process_was_killed_is_kept_if_the_index_knows_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    settled, known, unknown = done.stdout.split()
    assert len(received(tmp_path)) == 1
    files = FolderFiles(tmp_path)
    try:
        asked: list[tuple[str, str]] = []

        def is_known(uid: str, name: str) -> bool:
            asked.append((uid, name))
            return name in (settled, known)

        assert files.clean(is_known) == 2
        assert ("1.2.2", known) in asked
        assert list(files.names()) == [settled, known]
        assert not os.path.exists(files.path(unknown))
        assert received(tmp_path) == []
        assert files.clean(is_known) == 0
    finally:
        files.close()


def test_a_process_that_lives_is_not_cleaned_after(files: FolderFiles, tmp_path: Path) -> None:
    incoming = files.begin()
    incoming.write([b"on its way"])
    name = keep(files, "1.2.3")
    other = FolderFiles(tmp_path)
    try:
        assert other.clean(nobody) == 0
        assert list(other.names()) == [name]
    finally:
        other.close()
    assert incoming.keep("1.2.4", sync=False) in list(files.names())


def test_on_a_file_system_without_locks_nothing_is_cleaned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    one, other = FolderFiles(tmp_path), FolderFiles(tmp_path)
    incoming = one.begin()
    incoming.write([b"on its way"])
    assert other.clean(nobody) == 0
    assert incoming.keep("1.2.3", sync=False) in list(other.names())
    one.close()
    other.close()


def test_what_cannot_be_kept_is_an_os_error_and_leaves_nothing(files: FolderFiles, tmp_path: Path) -> None:
    first = keep(files, "1.2.1")
    os.remove(files.path(first))
    os.rmdir(Path(files.path(first)).parent)
    with pytest.raises(FileNotFoundError):
        keep(files, "1.2.2")
    assert kept(tmp_path) == []
    assert received(tmp_path) == []
    second = keep(files, "1.2.3")  # in another folder
    assert list(files.names()) == [second]


def test_syncing_forces_content_before_the_name_and_then_the_folders(
    files: FolderFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell what was synced")
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    name = keep(files, "1.2.3", sync=True)
    assert any("/incoming/" in path for path in synced)
    files.sync([name])
    path = Path(os.path.realpath(files.path(name)))
    assert {str(path.parent), str(path.parent.parent), str(path.parent.parent.parent)} <= set(synced)


def test_threads_keep_instances_at_once(files: FolderFiles) -> None:
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for index in range(25):
            files.settle([keep(files, f"1.2.{index}", f"{number} {index}".encode())])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contents = {Path(files.path(name)).read_bytes() for name in files.names()}
    assert len(contents) == 100


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to count descriptors")
    before = len(os.listdir("/proc/self/fd"))
    files = FolderFiles(tmp_path)
    names = [keep(files, f"1.2.{number}", sync=True) for number in range(20)]
    files.sync(names)
    list(files.names())
    files.clean(nobody)
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_policies_have_the_names_of_the_command_line() -> None:
    assert [policy.value for policy in Sync] == ["always", "batch", "never"]
