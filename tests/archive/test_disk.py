"""A disk that is full or read-only, and peers that go while their instance is being stored, over associations."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import pytest
from pydicom.dataset import Dataset

from asyncdicom import Association, sop
from asyncdicom.archive import Archive
from asyncdicom.archive.entities import InstanceRow, NewInstance
from asyncdicom.archive.files import FolderFiles, Incoming
from asyncdicom.archive.index import Index
from asyncdicom.dataset import encode_data_set

from ..harness import PATIENCE, served, store_elements
from .corpus import instance
from .serving import archived, associated, got, instance_files, left_over, store

pytestmark = pytest.mark.anyio


def image(number: int, size: int = 200_000) -> Dataset:
    ds = instance(number)
    ds.add_new(0x7FE00010, "OW", bytes([number % 256]) * size)
    return ds


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 3 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "asyncdicom-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


async def all_of(association: Association) -> dict[str, bytes]:
    """Return the data sets that the archive has."""
    instances, response = await got(association, sop.STUDY_ROOT_GET, level="STUDY", StudyInstanceUID="1.2.3.1")
    assert response.status == 0
    return {uid: data for uid, (_, data) in instances.items()}


@pytest.mark.parametrize("size", [200_000, 1_500_000], ids=["in one piece", "while it arrives"])
async def test_a_full_disk_is_a700_and_what_was_acknowledged_stays(small_disk: Path, size: int) -> None:
    sent = [image(number, size) for number in range(20)]
    async with archived(small_disk, sync="batch") as archive, associated(archive) as association:
        statuses = await store(association, *sent, check=False)
        kept = {str(ds.SOPInstanceUID): ds for ds, status in zip(sent, statuses, strict=True) if status == 0}
        assert set(statuses) == {0, 0xA700}
        await association.echo()
        assert len(instance_files(small_disk)) == len(kept)
        assert left_over(small_disk) == []
        assert await all_of(association) == {
            uid: encode_data_set(ds, sop.EXPLICIT_VR_LITTLE_ENDIAN) for uid, ds in kept.items()
        }
        remount(small_disk, "size=40m")
        assert set(await store(association, *sent)) == {0}
        assert len(await all_of(association)) == 20


class ReadOnly(FolderFiles):
    """A folder on a disk that the system makes read-only when it finds it faulty."""

    faulty = False

    def begin(self) -> Incoming:
        if self.faulty:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return super().begin()


async def test_a_read_only_disk_is_a700_and_what_is_there_is_still_served(tmp_path: Path) -> None:
    files = ReadOnly(tmp_path)
    async with archived(tmp_path, files=files) as archive, associated(archive) as association:
        assert await store(association, image(1)) == [0]
        files.faulty = True
        assert await store(association, image(2), image(3, 1_500_000), check=False) == [0xA700, 0xA700]
        await association.echo()
        assert list(await all_of(association)) == ["1.2.3.1.1.1"]
        files.faulty = False
        assert await store(association, image(2)) == [0]
        assert left_over(tmp_path) == []


async def test_a_folder_that_cannot_be_written_cannot_be_opened(small_disk: Path) -> None:
    remount(small_disk, "ro")
    archive = Archive(small_disk)
    with pytest.raises(OSError, match="Read-only"):
        await anyio.to_thread.run_sync(archive.open)


# A peer that goes while its instance is committed


class Held(Index):
    """An index that holds the next transaction up."""

    running = threading.Event()
    go = threading.Event()

    def add(self, new: Sequence[NewInstance]) -> list[InstanceRow | None]:
        self.running.set()
        assert self.go.wait(10)
        return super().add(new)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> type[Held]:
    Held.running, Held.go = threading.Event(), threading.Event()
    monkeypatch.setattr("asyncdicom.archive.provider.Index", Held)
    return Held


async def wait_for(event: threading.Event) -> None:
    assert await anyio.to_thread.run_sync(event.wait, 10)


async def test_a_store_whose_peer_goes_while_it_is_committed_is_stored_whole(tmp_path: Path, held: type[Held]) -> None:
    data = encode_data_set(image(1), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with archived(tmp_path) as archive:
        async with served(archive.services, sop.CT_IMAGE_STORAGE) as peer:
            await peer.send_message(1, store_elements(1, "1.2.3.1.1.1"), data)
            await wait_for(held.running)
            await peer.aclose()
            held.go.set()
        assert left_over(tmp_path) == []
        async with associated(archive) as association:
            assert await all_of(association) == {"1.2.3.1.1.1": data}


async def test_a_store_that_is_cancelled_while_others_share_its_transaction_costs_them_nothing(
    tmp_path: Path, held: type[Held]
) -> None:
    statuses: list[int] = []

    async def send(archive: Archive, number: int) -> None:
        async with associated(archive) as association:
            statuses.extend(await store(association, image(number)))

    data = encode_data_set(image(0), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with archived(tmp_path) as archive:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                async with served(archive.services, sop.CT_IMAGE_STORAGE) as peer:
                    await peer.send_message(1, store_elements(1, "1.2.3.1.1.0"), data)
                    await wait_for(held.running)
                    for number in range(1, 6):
                        tasks.start_soon(send, archive, number)
                    await peer.aclose()
                    held.go.set()
        assert statuses == [0] * 5
        assert left_over(tmp_path) == []
        async with associated(archive) as association:
            assert len(await all_of(association)) == 6


async def test_many_associations_that_store_at_once_share_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Counting(Index):
        def add(self, new: Sequence[NewInstance]) -> list[InstanceRow | None]:
            sizes.append(len(new))
            return super().add(new)

    monkeypatch.setattr("asyncdicom.archive.provider.Index", Counting)

    async def send(archive: Archive, numbers: range) -> None:
        async with associated(archive, async_operations=(8, 1)) as association, anyio.create_task_group() as tasks:
            for number in numbers:
                tasks.start_soon(store, association, image(number, 100))

    async with archived(tmp_path, sync="batch") as archive:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for start in range(0, 96, 8):
                    tasks.start_soon(send, archive, range(start, start + 8))
        assert sum(sizes) == 96
        assert len(sizes) < 90
        async with associated(archive) as association:
            assert len(await all_of(association)) == 96
        assert len(instance_files(tmp_path)) == 96
        assert left_over(tmp_path) == []
