"""``asyncdicom archive``: what the command adds to the archive, which has its own tests."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

import asyncdicom
from asyncdicom import sop

from ..archive.corpus import instance
from ..conftest import TEST_FILES
from ..interop.material import sample, study
from .program import run, serving, started, wait_for_line
from .test_receive import CT, changed, stop
from .test_store import Receiver

pytest.importorskip("sqlalchemy")

LISTEN = ("--listen", "ARCHIVE@127.0.0.1:0")


@contextmanager
def archiving(folder: Path, *options: object) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with started("archive", folder, *options) as process:
        line = wait_for_line(process)
        found = re.fullmatch(r"listening on (\S+@\S+:\d+)", line)
        assert found, line
        yield found[1], process


def test_what_is_stored_is_found_retrieved_and_moved(tmp_path: Path) -> None:
    receiver = Receiver()
    with serving(receiver.services, "DEST") as (destination, _):
        with archiving(tmp_path / "archive", *LISTEN, "--peer", destination) as (address, process):
            run("store", address, TEST_FILES / "dicomdirtests").check()
            header, *rows = run("find", address, "-k", "PatientID=77654033").check().out.splitlines()
            assert header.startswith("PatientName\tPatientID\t")
            assert len(rows) == 2
            run("get", address, "-k", "PatientID=77654033", "-o", tmp_path / "got").check()
            run("move", address, "-k", "PatientID=77654033", "--to", "DEST").check()
            assert stop(process) == ("", "")
    assert process.returncode == 0
    stored = {item.sop_instance_uid: item for item in study()}
    names = {path.name.removesuffix(".dcm") for path in (tmp_path / "got").iterdir()}
    assert names == receiver.data.keys() <= stored.keys()
    for uid, data in receiver.data.items():
        assert data == stored[uid].on_the_wire


@pytest.mark.anyio
async def test_two_hundred_associations_at_once_store_and_query(tmp_path: Path, anyio_backend: str) -> None:
    crowd = 200
    here, found = 0, list[str]()
    all_here = anyio.Event()

    async def use(address: str, number: int) -> None:
        nonlocal here
        own = instance(number, study=number, patient=f"P{number}")
        async with asyncdicom.connect(address, contexts=[sop.STUDY_ROOT_FIND, sop.CT_IMAGE_STORAGE]) as association:
            here += 1
            if here == crowd:
                all_here.set()
            await all_here.wait()
            await association.store(own)
            matches = association.find(level="STUDY", PatientID=own.PatientID, StudyInstanceUID="")
            found.extend([match.StudyInstanceUID async for match in matches])

    with archiving(tmp_path, *LISTEN, "--loop", anyio_backend) as (address, process):
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(crowd):
                    tasks.start_soon(use, address, number)
        everything = run("find", address, "--level", "study", "-k", "StudyInstanceUID", "--json")
        assert stop(process) == ("", "")
    assert process.returncode == 0
    assert sorted(found) == sorted(f"1.2.3.{number}" for number in range(crowd))
    assert len(everything.check().out.splitlines()) == crowd


def test_what_is_stored_is_there_after_a_restart_and_after_a_rebuild(tmp_path: Path) -> None:
    with archiving(tmp_path, *LISTEN) as (address, process):
        run("store", address, TEST_FILES / "dicomdirtests").check()
        before = run("find", address, "--level", "study", "-k", "StudyInstanceUID").check().out
        stop(process, signal.SIGINT)
    assert process.returncode == 0
    with archiving(tmp_path, *LISTEN) as (address, process):
        after = run("find", address, "--level", "study", "-k", "StudyInstanceUID").check().out
        stop(process)
    with started("archive", tmp_path, *LISTEN, "--rebuild-index") as process:
        assert re.fullmatch(r"indexed \d+ instances", wait_for_line(process))
        address = wait_for_line(process).removeprefix("listening on ")
        rebuilt = run("find", address, "--level", "study", "-k", "StudyInstanceUID").check().out
        stop(process)
    assert sorted(before.splitlines()) == sorted(after.splitlines()) == sorted(rebuilt.splitlines())


def test_a_damaged_index_is_one_line_and_can_be_made_anew(tmp_path: Path) -> None:
    with archiving(tmp_path, *LISTEN) as (address, process):
        run("store", address, TEST_FILES / "CT_small.dcm").check()
        stop(process)
    (tmp_path / "index.sqlite").write_bytes(b"no database" * 1000)
    refused = run("archive", tmp_path, *LISTEN)
    assert refused.status == 2
    assert "the index cannot be opened" in refused.error
    with started("archive", tmp_path, *LISTEN, "--rebuild-index") as process:
        lines = [wait_for_line(process) for _ in range(3)]
        assert "indexed 1 instance" in lines
        stop(process)


@pytest.mark.parametrize(
    ("options", "called", "calling", "expected"),
    [
        ([], "ARCHIVE", "ANYBODY", None),
        ([], "OTHER", "ANYBODY", "result 1, source 1, reason 7"),
        (["--any-called"], "OTHER", "ANYBODY", None),
        (["--allow", "FRIEND"], "ARCHIVE", "FRIEND", None),
        (["--allow", "FRIEND"], "ARCHIVE", "ANYBODY", "result 1, source 1, reason 3"),
        (["--allow", "127.0.0.0/8"], "ARCHIVE", "ANYBODY", None),
        (["--allow", "10.0.0.0/8"], "ARCHIVE", "ANYBODY", "closed the connection"),
    ],
)
def test_who_may_call(tmp_path: Path, options: list[str], called: str, calling: str, expected: str | None) -> None:
    with archiving(tmp_path, *LISTEN, *options) as (address, process):
        result = run("echo", f"{called}@{address.partition('@')[2]}", "--calling", calling)
        stop(process)
    if expected is None:
        result.check()
    else:
        assert result.status == 3
        assert expected in result.error


@pytest.mark.parametrize(("choice", "status"), [("refuse", 1), ("keep", 0), ("replace", 0)])
def test_another_content_of_an_instance(tmp_path: Path, choice: str, status: int) -> None:
    other = changed(tmp_path / "other.dcm")
    with archiving(tmp_path / "archive", *LISTEN, "--on-duplicate", choice) as (address, process):
        run("store", address, CT.path).check()
        run("store", address, CT.path).check()
        assert run("store", address, other).status == status
        run("get", address, "-k", f"PatientID={patient()}", "-o", tmp_path / "got").check()
        stop(process)
    (path,) = (tmp_path / "got").iterdir()
    assert (b"CompressedSampleZ" in path.read_bytes()) is (choice == "replace")


def patient() -> str:
    return str(sample("CT_small.dcm").header().PatientID)


# The file of options.


def write(folder: Path, text: str) -> Path:
    path = folder / "archive.toml"
    path.write_text(text)
    return path


def test_options_come_from_a_file_and_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        'listen = "FILED@127.0.0.1:0"\npeer = ["ONE@127.0.0.1:1", "TWO@127.0.0.1:1"]\nallow = "FRIEND"\n'
        'on-duplicate = "keep"\nmax-associations = 3\nartim-timeout = 2.5\nany-called = false\n',
    )
    with archiving(tmp_path / "archive", "--config", config) as (address, process):
        assert address.startswith("FILED@127.0.0.1:")
        run("echo", address, "--calling", "FRIEND").check()
        assert run("echo", address).status == 3
        stop(process)
    with archiving(tmp_path / "archive", "--config", config, *LISTEN, "--allow", "ASYNCDICOM") as (address, process):
        assert address.startswith("ARCHIVE@127.0.0.1:")
        run("echo", address).check()
        stop(process)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listen = 3", "archive.toml: argument --listen: '3' is not an address: expected AET@HOST:PORT"),
        ('lisen = "A@h:1"', "archive.toml: 'lisen' is no option"),
        ('on-duplicate = "no"', "archive.toml: argument --on-duplicate: invalid choice: 'no'"),
        ("peer = [[1]]", "archive.toml: 'peer' is no option that has such a value"),
        ("help = 1", "archive.toml: 'help' is no option that has such a value"),
        ("listen =", "archive.toml: "),
    ],
)
def test_a_file_of_options_that_is_wrong_is_wrong_usage(tmp_path: Path, text: str, expected: str) -> None:
    result = run("archive", tmp_path / "archive", "--config", write(tmp_path, text), cwd=tmp_path)
    assert result.status == 2
    assert expected in result.error
    assert not (tmp_path / "archive").exists()


def test_a_file_of_options_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    result = run("archive", tmp_path, "--config", "nowhere.toml")
    assert (result.status, result.error) == (2, "asyncdicom archive: nowhere.toml: no such file or directory")


def test_a_folder_that_cannot_be_used_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("archive", tmp_path / "file", *LISTEN)
    assert result.status == 2
    assert result.error.startswith(f"asyncdicom archive: cannot use {tmp_path / 'file'}: ")
