"""Kill an archive at random moments while instances are being stored, and look at what it left.

The suite does a few rounds of this. More of them:

.. code-block:: console

    $ python -m tests.archive.crash --rounds 100

The archive is a process of its own, ``asyncdicom archive``. Each round several associations store new instances, small and
large ones, and again some that were stored before, with the same or with other content, until the process is killed by
SIGKILL. Then the archive's folder is opened here, and must hold: every instance that was acknowledged, with a content that
was acknowledged last or was on its way after that; no file that is torn, and none that the index does not know; and nothing
half received.

With ``--workers N`` one of so many workers is killed, the others go on, and the archive is stopped a moment later.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio

import asyncdicom
from asyncdicom import Instance, PresentationContext, sop
from asyncdicom.archive import Archive
from asyncdicom.dataset import encode_data_set
from asyncdicom.exceptions import DicomNetworkError

from .corpus import instance
from .serving import instance_files, left_over

SYNTAX = sop.EXPLICIT_VR_LITTLE_ENDIAN
_ASSOCIATIONS, _WINDOW = 4, 4


@dataclass(slots=True)
class Ledger:
    """What was sent and what was acknowledged.

    :ivar acknowledged: for each SOP Instance UID the contents that the archive may have: the last one that was
        acknowledged, and those that were on their way after that.
    :ivar unacknowledged: contents that were sent and never acknowledged, where nothing ever was.
    """

    replaces: bool
    acknowledged: dict[str, list[bytes]] = field(default_factory=dict)
    unacknowledged: dict[str, list[bytes]] = field(default_factory=dict)
    answers: int = 0

    def sent(self, uid: str, data: bytes) -> None:
        if uid not in self.acknowledged:
            self.unacknowledged.setdefault(uid, []).append(data)
        elif self.replaces and data not in self.acknowledged[uid]:
            self.acknowledged[uid].append(data)

    def accepted(self, uid: str, data: bytes) -> None:
        self.answers += 1
        self.unacknowledged.pop(uid, None)
        if self.replaces or uid not in self.acknowledged:
            self.acknowledged[uid] = [data]


class ArchiveProcess:
    """``asyncdicom archive``, which listens.

    :ivar lines: what it has written to stderr.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        listen = ["--listen", "ARCHIVE@127.0.0.1:0"]
        command = [sys.executable, "-m", "asyncdicom", "archive", str(folder), *listen, *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.port = int(self._line(r"listening on ARCHIVE@127\.0\.0\.1:(\d+)")[1])
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _line(self, pattern: str) -> re.Match[str]:
        assert self.process.stderr is not None
        while line := self.process.stderr.readline():
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"the archive did not start: {self.lines}")

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()

    def kill_worker(self, number: int) -> None:
        """Kill one of its workers, which needs ``-v``."""
        found = [re.search(rf"worker {number} is process (\d+)", line) for line in self.lines]
        os.kill(int(next(one for one in found if one is not None)[1]), signal.SIGKILL)

    def stop(self) -> None:
        """Have it stop, and all of its workers."""
        self.process.terminate()
        assert self.process.wait() == 0, self.lines

    def close(self) -> None:
        """Wait for its end."""
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def archive_process(folder: Path, *options: str) -> Iterator[ArchiveProcess]:
    """Run an archive. It is killed at the end, if it is not already."""
    archive = ArchiveProcess(folder, *options)
    try:
        yield archive
    finally:
        archive.kill()
        archive.close()


def make(number: int, version: int, chance: random.Random) -> bytes:
    """Make an instance, small or large."""
    ds = instance(number, study=number % 7, series=number % 3 + 1, PatientComments=f"version {version}")
    size = chance.choice([100, 2_000, 20_000, 200_000, 1_500_000, 3_000_000])
    ds.add_new(0x7FE00010, "OW", chance.randbytes(64) * (size // 64))
    return encode_data_set(ds, SYNTAX)


def uid_of(number: int) -> str:
    """Return the SOP Instance UID of an instance."""
    return f"1.2.3.{number % 7}.{number % 3 + 1}.{number}"


class Storm:
    """Stores without end, over several associations."""

    def __init__(self, port: int, ledger: Ledger, chance: random.Random, first: int) -> None:
        self._port = port
        self._ledger = ledger
        self._chance = chance
        self._first = self._next = first
        self._busy: set[int] = set()
        self._answered = anyio.Event()

    def _choose(self) -> tuple[int, bytes]:
        """Choose a new instance, or one in ten times another that is not on its way."""
        old = [uid for uid in self._ledger.acknowledged if int(uid.rpartition(".")[2]) not in self._busy]
        number = self._next
        if old and self._chance.random() < 0.1:
            number = int(self._chance.choice(old).rpartition(".")[2])
            if self._chance.random() < 0.5:
                return number, self._ledger.acknowledged[uid_of(number)][0]
        else:
            self._next += 1
        return number, make(number, self._next, self._chance)

    async def _store(self, association: asyncdicom.Association) -> None:
        while True:
            number, data = self._choose()
            uid = uid_of(number)
            self._busy.add(number)
            self._ledger.sent(uid, data)
            sent = Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, uid, SYNTAX)
            response = await association.store(sent, check=False)
            self._busy.discard(number)
            if response.status == 0:
                self._ledger.accepted(uid, data)
                if number >= self._first:
                    self._answered.set()
            else:
                assert response.status == 0x0111, response
                assert not self._ledger.replaces

    async def _associate(self) -> None:
        contexts = [PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, transfer_syntaxes=(SYNTAX,))]
        address = f"ARCHIVE@127.0.0.1:{self._port}"
        try:
            async with (
                asyncdicom.connect(address, contexts=contexts, async_operations=(_WINDOW, 1)) as association,
                anyio.create_task_group() as tasks,
            ):
                for _ in range(_WINDOW):
                    tasks.start_soon(self._store, association)
        except* (DicomNetworkError, OSError):
            pass  # it was killed

    async def run(self, kill: Callable[[], None], seconds: float, more: float | None) -> None:
        """Store until *seconds* after the first new instance was acknowledged, when a process is killed.

        What was stored before and is sent again may be refused, and brings nothing new: a round that ended with it, on a busy
        machine, would have shown nothing.

        :param more: go on for so many seconds with those that live.
        """
        async with anyio.create_task_group() as tasks:
            for _ in range(_ASSOCIATIONS):
                tasks.start_soon(self._associate)
            await self._answered.wait()
            await anyio.sleep(seconds)
            kill()
            if more is not None:
                await anyio.sleep(more)
                tasks.cancel_scope.cancel()


def check(folder: Path, ledger: Ledger, policy: str) -> int:
    """Open what a killed archive left, and look at it; return how many instances it has."""
    archive = Archive(folder, sync="never", on_duplicate=policy)  # type: ignore[arg-type]
    archive.open()
    try:
        index, files, _ = archive._opened()
        rows = {row.sop_instance_uid: row for page in index.all() for row in page}
        lost = ledger.acknowledged.keys() - rows.keys()
        assert not lost, f"acknowledged and lost: {sorted(lost)[:10]}"
        for uid, row in rows.items():
            path = Path(files.path(row.path))
            content = path.read_bytes()
            assert len(content) == row.size, f"torn: {path}"
            allowed = ledger.acknowledged.get(uid) or ledger.unacknowledged.get(uid) or []
            assert any(content.endswith(data) and len(content) - len(data) < 1000 for data in allowed), (
                f"neither what was acknowledged nor what was sent later: {uid}"
            )
            if uid not in ledger.acknowledged:  # it is stored though nobody was told: from now on it must stay
                ledger.acknowledged[uid] = [data for data in allowed if content.endswith(data)]
                del ledger.unacknowledged[uid]
            else:
                ledger.acknowledged[uid] = [data for data in allowed if content.endswith(data)]
        known = {files.path(row.path) for row in rows.values()}
        strangers = {str(path) for path in instance_files(folder)} - known
        assert not strangers, f"files that the index does not know: {sorted(strangers)[:10]}"
        assert left_over(folder) == []
    finally:
        archive.close()
    with sqlite3.connect(folder / "index.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        counts = "SELECT id, instances, (SELECT count(*) FROM instances i WHERE i.series = series.id) FROM series"
        assert all(stored == counted for _, stored, counted in connection.execute(counts))
    connection.close()
    return len(rows)


def rebuild(folder: Path) -> None:
    """Remove the index, and have it made anew: it finds everything."""

    def rows() -> set[tuple[str, str, int]]:
        return {(row.sop_instance_uid, row.path, row.size) for page in archive._opened()[0].all() for row in page}

    archive = Archive(folder, sync="never")
    archive.open()
    before = rows()
    found = archive.rebuild()
    assert (found.indexed, found.duplicates, found.damaged, found.missing) == (len(before), 0, 0, 0)
    assert rows() == before
    archive.close()
    os.remove(folder / "index.sqlite")
    archive.open()
    assert rows() == before
    archive.close()


def run(
    folder: Path, rounds: int, *, seed: int, policy: str, sync: str = "batch", workers: int = 1, verbose: bool = False
) -> Ledger:
    """Kill an archive *rounds* times, or one of its workers where there are several."""
    chance = random.Random(seed)
    ledger = Ledger(replaces=policy == "replace")
    options = ["--sync", sync, "--on-duplicate", policy, *(["--workers", str(workers), "-v"] if workers > 1 else [])]
    for number in range(rounds):
        before = ledger.answers
        seconds = chance.choice([0.0, 0.02, 0.1, 0.4]) * chance.random()
        with archive_process(folder, *options) as archive:
            storm = Storm(archive.port, ledger, chance, first=(number + 1) * 100_000)
            if workers == 1:
                anyio.run(storm.run, archive.kill, seconds, None)
            else:
                anyio.run(storm.run, partial(archive.kill_worker, chance.randint(1, workers)), seconds, seconds)
                archive.stop()
        count = check(folder, ledger, policy)
        if verbose:
            print(
                f"round {number + 1}: killed {seconds:.3f} s after the first new instance; "
                f"{ledger.answers - before} acknowledged, {count} in the archive",
                flush=True,
            )
    rebuild(folder)
    return ledger


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description="Kill an archive at random moments while it stores.")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, help="where to make the archive; default: the temporary folder")
    parser.add_argument("--policy", choices=("refuse", "keep", "replace"), default="replace")
    parser.add_argument("--sync", choices=("always", "batch", "never"), default="batch")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="asyncdicom-crash-", dir=options.folder))
    print(f"seed {options.seed}, folder {folder}", flush=True)
    begin = time.perf_counter()
    ledger = run(
        folder,
        options.rounds,
        seed=options.seed,
        policy=options.policy,
        sync=options.sync,
        workers=options.workers,
        verbose=True,
    )
    print(
        f"{options.rounds} rounds in {time.perf_counter() - begin:.0f} s: {ledger.answers} instances acknowledged, "
        "none lost, none torn, nothing left over"
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
