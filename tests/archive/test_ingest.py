"""Taking instances in: what is on the disk before what, who shares a transaction, and what is left when something fails."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy.exc import OperationalError

from asyncdicom import sop
from asyncdicom.archive.entities import InstanceRow, NewInstance
from asyncdicom.archive.files import FolderFiles, Incoming, Sync
from asyncdicom.archive.index import Index
from asyncdicom.archive.ingest import Answer, Ingest, OnDuplicate
from asyncdicom.dataset import encode_data_set, part10_head

from .corpus import instance
from .serving import instance_files

CT = sop.CT_IMAGE_STORAGE
SYNTAX = sop.EXPLICIT_VR_LITTLE_ENDIAN


class Watched(Index):
    """An index that tells what it is given, may be held up, and fails when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"sqlite:///{folder / 'index.sqlite'}")
        self.batches: list[list[str]] = []
        self.before: Callable[[list[str]], None] = lambda _: None
        self.after: Callable[[], None] = lambda: None

    def add(self, new: Sequence[NewInstance]) -> list[InstanceRow | None]:
        uids = [one.sop_instance_uid for one in new]
        self.batches.append(uids)
        self.before(uids)
        rows = super().add(new)
        self.after()
        return rows


class Bench:
    """An ingest over a folder, without a network."""

    def __init__(
        self,
        folder: Path,
        *,
        sync: Sync = Sync.NEVER,
        on_duplicate: OnDuplicate = "refuse",
        files: type[FolderFiles] = FolderFiles,
    ) -> None:
        self.folder = folder
        self.files = files(folder)
        self.index = Watched(folder)
        self.retired: list[str] = []
        self.ingest = Ingest(self.index, self.files, on_duplicate=on_duplicate, sync=sync, retire=self.retired.append)

    def store(self, ds: Dataset, *, pieces: int = 1) -> Answer:
        """Take an instance in, written while it arrives if it comes in several pieces."""
        data = encode_data_set(ds, SYNTAX)
        uid = str(ds.SOPInstanceUID)
        arrival = self.ingest.arrival(part10_head(CT, uid, SYNTAX), CT, uid, SYNTAX)
        size = len(data) // pieces + 1
        for start in range(0, len(data) - size, size):
            arrival.write([data[start : start + size]])
        return arrival.finish([data[(pieces - 1) * size :]])

    def known(self) -> dict[str, InstanceRow]:
        return {row.sop_instance_uid: row for page in self.index.all() for row in page}

    def check(self) -> None:
        """Every row has its file, every file its row, and nothing else lies around."""
        paths = sorted(self.files.path(row.path) for row in self.known().values())
        assert [str(path) for path in instance_files(self.folder)] == paths
        assert [p.name for p in (self.folder / "incoming").rglob("*") if p.is_file()] == ["in-doubt"]
        (journal,) = (self.folder / "incoming").rglob("in-doubt")
        assert journal.read_text().count("\n") == 1  # nothing is in doubt

    def close(self) -> None:
        self.index.close()
        self.files.close()


@contextmanager
def bench(folder: Path, **options: Any) -> Iterator[Bench]:
    made = Bench(folder, **options)
    try:
        yield made
    finally:
        made.close()


class Stores:
    """Stores in threads of their own."""

    def __init__(self, made: Bench) -> None:
        self.made = made
        self.results: dict[str, Answer | BaseException] = {}
        self._threads: list[threading.Thread] = []

    def start(self, *what: Dataset) -> None:
        for ds in what:
            thread = threading.Thread(target=self._run, args=(ds,))
            self._threads.append(thread)
            thread.start()

    def _run(self, ds: Dataset) -> None:
        try:
            self.results[str(ds.SOPInstanceUID)] = self.made.store(ds)
        except BaseException as exc:
            self.results[str(ds.SOPInstanceUID)] = exc

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def statuses(self) -> dict[str, int]:
        return {uid: int(result.status) for uid, result in self.results.items() if isinstance(result, Answer)}


# Transactions


def test_those_that_come_while_a_transaction_runs_share_the_next_one(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        running, go = threading.Event(), threading.Event()

        def hold(uids: list[str]) -> None:
            running.set()
            assert go.wait(10)

        made.index.before = hold
        stores = Stores(made)
        stores.start(instance(0))
        assert running.wait(10)
        stores.start(*(instance(number) for number in range(1, 20)))
        _until(lambda: len(made.ingest._waiting) == 19)
        go.set()
        stores.join()
        assert [len(batch) for batch in made.index.batches] == [1, 19]
        assert set(stores.statuses().values()) == {0}
        assert len(made.known()) == 20
        made.check()


def test_with_sync_always_each_has_a_transaction_of_its_own(tmp_path: Path) -> None:
    with bench(tmp_path, sync=Sync.ALWAYS) as made:
        stores = Stores(made)
        stores.start(*(instance(number) for number in range(10)))
        stores.join()
        assert [len(batch) for batch in made.index.batches] == [1] * 10
        assert len(made.known()) == 10
        made.check()


def _until(condition: Callable[[], bool]) -> None:
    """Wait for other threads, a moment at a time."""
    moment = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        moment.wait(0.001)
    raise AssertionError("it did not come to that")


def test_many_threads_and_duplicates_leave_one_file_for_each_instance(tmp_path: Path) -> None:
    with bench(tmp_path, on_duplicate="keep") as made:
        stores = Stores(made)
        stores.start(*(instance(number % 10, PatientComments=str(number)) for number in range(60)))
        stores.join()
        assert set(stores.statuses().values()) == {0}
        assert len(made.known()) == 10
        made.check()


# What fails


def _full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullIncoming:
    """An instance for which there is no room at one step."""

    def __init__(self, inner: Incoming, step: str) -> None:
        self._inner = inner
        self._step = step

    def write(self, chunks: Sequence[bytes | bytearray | memoryview]) -> None:
        if self._step == "write":
            self._inner.write([b"".join(chunks)[:10]])
            raise _full()
        self._inner.write(chunks)

    def keep(self, sop_instance_uid: str, *, sync: bool) -> str:
        if self._step == "keep":
            raise _full()
        return self._inner.keep(sop_instance_uid, sync=sync)

    def abort(self) -> None:
        self._inner.abort()


class Full(FolderFiles):
    """A folder on a disk that is full: at one step for each instance."""

    step = ""

    def begin(self) -> Incoming:
        if self.step == "begin":
            raise _full()
        return FullIncoming(super().begin(), self.step)

    def sync(self, names: Any) -> None:
        if self.step == "sync":
            raise _full()
        super().sync(names)


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("step", ["begin", "write", "keep", "sync"])
def test_a_full_disk_fails_the_store_and_leaves_nothing(tmp_path: Path, step: str, pieces: int) -> None:
    with bench(tmp_path, files=Full, sync=Sync.BATCH) as made:
        assert isinstance(made.files, Full)
        made.store(instance(1))
        made.files.step = step
        with pytest.raises(OSError, match="No space left") as raised:
            made.store(instance(2), pieces=pieces)
        assert raised.value.errno == errno.ENOSPC
        assert list(made.known()) == ["1.2.3.1.1.1"]
        made.check()
        made.files.step = ""
        assert made.store(instance(2), pieces=pieces).status == 0
        made.check()


def _broken() -> OperationalError:
    return OperationalError("INSERT", {}, Exception("database or disk is full"))


def test_an_index_that_fails_fails_the_store_and_leaves_nothing(tmp_path: Path) -> None:
    with bench(tmp_path) as made:

        def fail(uids: list[str]) -> None:
            raise _broken()

        made.index.before = fail
        with pytest.raises(OSError, match="the index cannot be written"):
            made.store(instance(1))
        assert made.known() == {}
        made.check()
        made.index.before = lambda _: None
        assert made.store(instance(1)).status == 0
        made.check()


def test_an_instance_that_the_index_does_not_take_costs_the_others_nothing(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        running, go = threading.Event(), threading.Event()
        poison = str(instance(7).SOPInstanceUID)

        def hold(uids: list[str]) -> None:
            running.set()
            assert go.wait(10)
            if poison in uids:
                raise ValueError("cannot be stored")

        made.index.before = hold
        stores = Stores(made)
        stores.start(instance(0))
        assert running.wait(10)
        stores.start(*(instance(number) for number in range(1, 10)))
        _until(lambda: len(made.ingest._waiting) == 9)
        go.set()
        stores.join()
        assert isinstance(stores.results[poison], OSError)
        assert len(stores.statuses()) == len(made.known()) == 9
        made.check()


def test_what_was_committed_although_that_failed_is_kept_and_acknowledged_or_not_but_never_lost(tmp_path: Path) -> None:
    with bench(tmp_path) as made:

        def fail() -> None:
            raise _broken()

        made.index.after = fail
        with pytest.raises(OSError, match="the index cannot be written"):
            made.store(instance(1))
        assert list(made.known()) == ["1.2.3.1.1.1"]
        made.check()
        made.index.after = lambda: None
        assert made.store(instance(1)).status == 0  # identical bytes


def test_what_nobody_can_say_stays_in_doubt_and_is_decided_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(tmp_path) as made:

        def fail(*_: object) -> Any:
            raise _broken()

        with monkeypatch.context() as patch:
            made.index.after = fail
            patch.setattr(made.index, "get", fail)
            with pytest.raises(OSError, match="the index cannot be written"):
                made.store(instance(1))
            made.index.after, made.index.before = (lambda: None), fail
            with pytest.raises(OSError, match="the index cannot be written"):
                made.store(instance(2))
        assert len(instance_files(tmp_path)) == 2
    files, index = FolderFiles(tmp_path), Watched(tmp_path)
    try:
        known = {row.path for page in index.all() for row in page}
        assert files.clean(lambda _, name: name in known) == 1
        assert {str(path) for path in instance_files(tmp_path)} == {files.path(name) for name in known}
    finally:
        files.close()
        index.close()


def test_a_replacement_that_fails_keeps_the_old_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench(tmp_path, on_duplicate="replace") as made:
        made.store(instance(1))
        before = made.known()

        def fail(new: NewInstance) -> None:
            raise _broken()

        with monkeypatch.context() as patch:
            patch.setattr(made.index, "replace", fail)
            with pytest.raises(OSError, match="the index cannot be written"):
                made.store(instance(1, PatientComments="other"))
        assert made.known() == before
        assert len(instance_files(tmp_path)) == 1
        assert made.store(instance(1, PatientComments="other")).status == 0
        assert made.retired == [before["1.2.3.1.1.1"].path]


# A store that nobody waits for any more


def test_an_arrival_that_is_aborted_leaves_nothing(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        arrival = made.ingest.arrival(b"head", CT, "1.2.3", SYNTAX)
        arrival.abort()
        arrival = made.ingest.arrival(b"head", CT, "1.2.3", SYNTAX)
        arrival.write([b"half of it"])
        assert len([p for p in (tmp_path / "incoming").rglob("*") if p.is_file()]) == 2
        arrival.abort()
        arrival.abort()
        made.check()


def test_an_arrival_that_is_aborted_while_it_is_written_is_removed_by_who_writes(tmp_path: Path) -> None:
    wait, go = threading.Event(), threading.Event()

    class SlowIncoming(FullIncoming):
        def write(self, chunks: Sequence[bytes | bytearray | memoryview]) -> None:
            super().write(chunks)
            wait.set()
            assert go.wait(10)

    class Slow(FolderFiles):
        def begin(self) -> Incoming:
            return SlowIncoming(super().begin(), "")

    with bench(tmp_path, files=Slow) as made:
        arrival = made.ingest.arrival(b"head", CT, "1.2.3", SYNTAX)
        thread = threading.Thread(target=arrival.write, args=([b"half of it"],))
        thread.start()
        assert wait.wait(10)
        arrival.abort()  # does not wait
        go.set()
        thread.join(10)
        made.check()


def test_an_arrival_that_is_aborted_while_it_is_committed_is_stored_whole(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        running, go = threading.Event(), threading.Event()

        def hold(uids: list[str]) -> None:
            running.set()
            assert go.wait(10)

        made.index.before = hold
        data = encode_data_set(instance(1), SYNTAX)
        arrival = made.ingest.arrival(part10_head(CT, "1.2.3.1.1.1", SYNTAX), CT, "1.2.3.1.1.1", SYNTAX)
        thread = threading.Thread(target=arrival.finish, args=([data],))
        thread.start()
        assert running.wait(10)
        arrival.abort()
        go.set()
        thread.join(10)
        assert list(made.known()) == ["1.2.3.1.1.1"]
        made.check()


# What is on the disk before what


def trace(made: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is forced to the disk, renamed and indexed, in its order."""
    events: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def kind(path: str) -> str:
        return "content" if "/incoming/" in path else "folder"

    def fsync(descriptor: int) -> None:
        events.append(f"fsync {kind(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        real_fsync(descriptor)

    def rename(source: Any, target: Any) -> None:
        events.append("rename")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    made.index.before = lambda _: events.append("index")
    return events


ORDER = {
    Sync.ALWAYS: ["fsync content", "rename", "fsync folder", "index"],
    Sync.BATCH: ["fsync content", "rename", "fsync folder", "index"],
    Sync.NEVER: ["rename", "index"],
}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to tell what is synced")
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("sync", list(Sync))
def test_content_name_and_index_follow_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: Sync, pieces: int
) -> None:
    with bench(tmp_path, sync=sync) as made:
        made.store(instance(0))  # makes the folder
        events = trace(made, monkeypatch)
        assert made.store(instance(1), pieces=pieces).status == 0
        assert events == ORDER[sync]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to tell what is synced")
def test_a_new_folder_is_forced_to_the_disk_before_the_first_instance_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(tmp_path, sync=Sync.BATCH) as made:
        events = trace(made, monkeypatch)
        assert made.store(instance(1)).status == 0
        assert events == ["fsync folder", "fsync folder", *ORDER[Sync.BATCH]]


STRACED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from asyncdicom.archive import Archive
from asyncdicom.dataset import part10_head, encode_data_set
from asyncdicom import sop
from tests.archive.corpus import instance

archive = Archive(sys.argv[1], sync=sys.argv[3])
archive.open()
for number in range(2):
    ds = instance(number)
    uids = ds.SOPClassUID, ds.SOPInstanceUID, sop.EXPLICIT_VR_LITTLE_ENDIAN
    arrival = archive._ingest.arrival(part10_head(*uids), *uids)
    answer = arrival.finish([encode_data_set(ds, uids[2])])
    print(f"answer {int(answer.status)}", flush=True)
archive.close()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("sync", ["always", "batch", "never"])
def test_the_system_is_asked_for_the_same_and_the_index_is_on_the_disk_before_the_answer(
    tmp_path: Path, sync: str
) -> None:
    log = tmp_path / "strace.log"
    calls = "fsync,fdatasync,rename,renameat,renameat2,write"
    command = ["strace", "-f", "-y", "-qq", "-e", f"trace={calls}", "-o", str(log)]
    root = Path(__file__).parents[2]
    program = [sys.executable, "-c", STRACED, str(tmp_path / "archive"), str(root), sync]
    done = subprocess.run([*command, *program], capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip("may not trace")
    assert done.stdout.split("\n") == ["answer 0", "answer 0", ""], done.stderr
    steps = [step for line in log.read_text().split("\n") if (step := _step(line))]
    last = steps[steps.index("answer") + 1 :]  # of the second instance: no folder is made for it
    expected = ["content", "name", "folder", "index", "answer"] if sync != "never" else ["name", "answer"]
    assert last[: len(expected)] == expected


def _step(line: str) -> str | None:
    """Say what a line of strace's is about."""
    if re.search(r"write\(1<.*answer", line):
        return "answer"
    if "rename" in line and "/instances/" in line:
        return "name"
    if re.search(r"f(?:data)?sync\(", line):
        for path, step in (("/incoming/", "content"), ("/instances", "folder"), ("index.sqlite-wal", "index")):
            if path in line:
                return step
    return None
