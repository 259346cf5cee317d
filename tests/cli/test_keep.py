from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from asyncdicom.cli.keep import Folder, Kept
from asyncdicom.cli.outcome import CommandError, Exit
from asyncdicom.dataset import part10_head, save

from ..interop.material import data_set_of

pytestmark = pytest.mark.anyio

UID = "1.2.3"
#: Two data sets, of one length and of more than what is compared at a time.
DATA = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 192" + b"\x10\x00\x20\x00LO\x02\x001 "
OTHER = DATA[:-2] + b"2 "
LARGE = DATA + b"\xe0\x7f\x10\x00OB\0\0" + (3 << 20).to_bytes(4, "little") + bytes(3 << 20)
LARGE_OTHER = LARGE[:-1] + b"\1"


@dataclass
class Arriving:
    """An instance that arrives once the gate is open."""

    data: bytes
    source: str = "PEER"
    syntax: str = "1.2.840.10008.1.2.1"
    sop_instance_uid: str = UID
    gate: anyio.Event | None = None
    waiting: anyio.Event | None = None
    error: Exception | None = None

    async def save(self, path: str, *, replace: bool = True) -> object:
        if self.waiting is not None:
            self.waiting.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        head = part10_head("1.2.840.10008.5.1.4.1.1.7", UID, self.syntax, source_ae_title=self.source)
        return save(path, head, [self.data], replace=replace)


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    assert path.name == f"{UID}.dcm"
    return path


@pytest.mark.parametrize(
    ("first", "second", "replace", "kept", "stays"),
    [
        (Arriving(DATA), Arriving(DATA), False, Kept.SAME, DATA),
        (Arriving(DATA), Arriving(DATA, source="ANOTHER"), False, Kept.SAME, DATA),
        (Arriving(DATA), Arriving(OTHER), False, Kept.REFUSED, DATA),
        (Arriving(DATA), Arriving(OTHER), True, Kept.REPLACED, OTHER),
        (Arriving(DATA), Arriving(DATA, syntax="1.2.840.10008.1.2.1.98"), False, Kept.REFUSED, DATA),
        (Arriving(LARGE), Arriving(LARGE), False, Kept.SAME, LARGE),
        (Arriving(LARGE), Arriving(LARGE_OTHER), False, Kept.REFUSED, LARGE),
        (Arriving(LARGE), Arriving(DATA), False, Kept.REFUSED, LARGE),
    ],
    ids=["same", "other head", "other data", "replace", "other syntax", "large", "last byte", "shorter"],
)
async def test_the_first_content_stays_unless_it_is_to_be_replaced(
    tmp_path: Path, first: Arriving, second: Arriving, replace: bool, kept: Kept, stays: bytes
) -> None:
    folder = Folder(str(tmp_path), replace=replace)
    assert await folder.keep(first) is Kept.NEW
    size = only(tmp_path).stat().st_size
    assert folder.bytes == size
    assert await folder.keep(second) is kept
    assert data_set_of(only(tmp_path)) == stays
    assert folder.bytes == size + (only(tmp_path).stat().st_size if kept is Kept.REPLACED else 0)


async def test_a_file_that_is_no_instance_is_another_content(tmp_path: Path) -> None:
    (tmp_path / f"{UID}.dcm").write_text("a letter")
    assert await Folder(str(tmp_path)).keep(Arriving(DATA)) is Kept.REFUSED
    assert only(tmp_path).read_text() == "a letter"


@pytest.mark.parametrize(("data", "kept"), [(DATA, Kept.SAME), (OTHER, Kept.REFUSED)])
async def test_two_at_once_never_make_a_torn_file(tmp_path: Path, data: bytes, kept: Kept) -> None:
    folder = Folder(str(tmp_path))
    gate, waiting = anyio.Event(), anyio.Event()
    found: list[Kept] = []

    async def late() -> None:
        found.append(await folder.keep(Arriving(DATA, gate=gate, waiting=waiting)))

    async def second() -> None:
        found.append(await folder.keep(Arriving(data)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(late)
        await waiting.wait()
        tasks.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert found == [Kept.NEW, kept]
    assert data_set_of(only(tmp_path)) == DATA


async def test_whoever_is_slow_for_long_finds_its_place_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdicom.cli.keep._PATIENCE", 0.01)
    folder = Folder(str(tmp_path))
    gate, waiting = anyio.Event(), anyio.Event()

    async def late() -> None:
        with pytest.raises(FileExistsError):
            await folder.keep(Arriving(DATA, gate=gate, waiting=waiting))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(late)
        await waiting.wait()
        assert await folder.keep(Arriving(OTHER)) is Kept.NEW
        gate.set()
    assert data_set_of(only(tmp_path)) == OTHER


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_an_instance_that_does_not_arrive_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with pytest.raises(OSError, match="disk"):
        await folder.keep(Arriving(DATA, error=OSError("the disk is full")))
    assert names(tmp_path) == []
    assert await folder.keep(Arriving(DATA)) is Kept.NEW
    with pytest.raises(OSError, match="disk"):
        await folder.keep(Arriving(DATA, error=OSError("the disk is full")))
    only(tmp_path)


def test_a_folder_is_made_and_tried(tmp_path: Path) -> None:
    Folder(str(tmp_path / "a" / "b")).prepare()
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="not a folder") as raised:
        Folder(str(tmp_path / "file")).prepare()
    assert raised.value.status is Exit.USAGE


@pytest.mark.parametrize(
    ("data", "replace", "kept", "stays"),
    [(DATA, False, Kept.SAME, DATA), (OTHER, False, Kept.REFUSED, DATA), (OTHER, True, Kept.NEW, OTHER)],
)
async def test_processes_that_share_a_folder_agree_on_what_comes_to_both_at_once(
    tmp_path: Path, data: bytes, replace: bool, kept: Kept, stays: bytes
) -> None:
    one, other = (Folder(str(tmp_path), replace=replace, shared=True) for _ in range(2))
    gate, waiting = anyio.Event(), anyio.Event()
    found: list[Kept] = []

    async def late() -> None:
        found.append(await one.keep(Arriving(data, gate=gate, waiting=waiting)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(late)
        await waiting.wait()
        found.append(await other.keep(Arriving(DATA)))
        gate.set()
    assert found == [Kept.NEW, kept]
    assert data_set_of(only(tmp_path)) == stays


def test_what_a_killed_process_left_is_removed_when_nobody_can_be_writing_it(tmp_path: Path) -> None:
    old, new, foreign = tmp_path / ".asyncdicom-1-1.part", tmp_path / ".asyncdicom-1-2.part", tmp_path / ".other.part"
    for path in (old, new, foreign):
        path.touch()
    for path in (old, foreign):
        os.utime(path, (0, 0))
    folder = Folder(str(tmp_path))
    folder.remove_left_over()
    assert set(names(tmp_path)) == {new.name, foreign.name}
    Folder(str(tmp_path / "nowhere")).remove_left_over()
