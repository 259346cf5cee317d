"""Several processes that take the same instances at the same time: one archive, nothing torn and nothing lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import anyio
import pytest

import asyncdicom
from asyncdicom import Instance, sop
from asyncdicom.archive import Archive
from asyncdicom.dataset import encode_data_set

from .corpus import instance
from .crash import ArchiveProcess, archive_process
from .serving import instance_files, left_over

SYNTAX = sop.EXPLICIT_VR_LITTLE_ENDIAN

_PEERS, _COMMON, _OWN = 4, 20, 20


def content(number: int, peer: int) -> bytes:
    return encode_data_set(
        instance(number, study=number % 5, series=number % 2 + 1, PatientComments=f"of {peer}"), SYNTAX
    )


def uid(number: int) -> str:
    return f"1.2.3.{number % 5}.{number % 2 + 1}.{number}"


class Peers:
    """Store at the same time: some instances of their own, and some that each of them has another content of, or the same.

    :ivar statuses: by peer and number.
    """

    def __init__(self, archive: ArchiveProcess, *, same: bool) -> None:
        self.statuses: dict[tuple[int, int], int] = {}
        self.contents: dict[tuple[int, int], bytes] = {}
        self._address = f"ARCHIVE@127.0.0.1:{archive.port}"
        self._same = same
        self._associated = 0
        self._start = anyio.Event()

    async def _store(self, peer: int) -> None:
        async with asyncdicom.connect(self._address, contexts=[sop.CT_IMAGE_STORAGE]) as association:
            self._associated += 1
            if self._associated == _PEERS:
                self._start.set()
            await self._start.wait()
            for number in [*range(_COMMON), *range(100 * (peer + 1), 100 * (peer + 1) + _OWN)]:
                data = content(number, 0 if self._same else peer)
                sent = Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, uid(number), SYNTAX)
                response = await association.store(sent, check=False)
                self.contents[peer, number] = data
                self.statuses[peer, number] = int(response.status)

    async def store(self) -> None:
        async with anyio.create_task_group() as tasks:
            for peer in range(_PEERS):
                tasks.start_soon(self._store, peer)


@pytest.mark.parametrize(
    ("policy", "sync"),
    [("refuse", "batch"), ("keep", "never"), ("replace", "batch"), ("replace", "always"), ("same", "batch")],
)
def test_processes_that_store_the_same_instances_at_once_agree(tmp_path: Path, policy: str, sync: str) -> None:
    folder = tmp_path / "archive"
    choice = "refuse" if policy == "same" else policy
    with archive_process(folder, "--workers", "2", "--on-duplicate", choice, "--sync", sync) as archive:
        peers = Peers(archive, same=policy == "same")
        anyio.run(peers.store)
        archive.stop()
    assert archive.lines == [f"listening on ARCHIVE@127.0.0.1:{archive.port}\n"]
    stored = look_at(folder)
    assert stored.keys() == {uid(number) for _, number in peers.statuses}
    for (peer, number), status in peers.statuses.items():
        statuses = sorted(peers.statuses[other, number] for other in range(_PEERS) if (other, number) in peers.statuses)
        if number < _COMMON and policy == "refuse":
            assert statuses == [0, 0x0111, 0x0111, 0x0111]
        else:
            assert statuses == [0] * len(statuses)
        candidates = [data for (_, other), data in peers.contents.items() if other == number]
        assert any(stored[uid(number)].endswith(data) for data in candidates)
        if policy == "refuse" and status == 0:  # what was acknowledged is what stays
            assert stored[uid(number)].endswith(peers.contents[peer, number])


def look_at(folder: Path) -> dict[str, bytes]:
    """Return the files of an archive that nobody serves, by SOP Instance UID; fail if anything is wrong with it."""
    archive = Archive(folder, sync="never")
    archive.open()
    try:
        index, files, _ = archive._opened()
        rows = [row for page in index.all() for row in page]
        stored = {row.sop_instance_uid: Path(files.path(row.path)).read_bytes() for row in rows}
        assert {files.path(row.path) for row in rows} == {str(path) for path in instance_files(folder)}
        assert all(len(stored[row.sop_instance_uid]) == row.size for row in rows)
        assert left_over(folder) == []
    finally:
        archive.close()
    connection = sqlite3.connect(folder / "index.sqlite")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        counts = "SELECT instances, (SELECT count(*) FROM instances i WHERE i.series = series.id) FROM series"
        assert all(one == other for one, other in connection.execute(counts))
    finally:
        connection.close()
    return stored
