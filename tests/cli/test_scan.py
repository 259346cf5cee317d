from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from asyncdicom import sop
from asyncdicom.cli.outcome import CommandError, Exit
from asyncdicom.cli.scan import MOST_CONTEXTS, Found, Scan, group
from asyncdicom.cli.screen import Bar

from ..conftest import TEST_FILES

pytestmark = pytest.mark.anyio

CT = TEST_FILES / "CT_small.dcm"
MR = TEST_FILES / "MR_small.dcm"


async def scan(*paths: Path) -> Scan:
    found = Scan()
    await found.run([str(path) for path in paths], Bar())
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with two instances and other things."""
    (tmp_path / "b").mkdir()
    shutil.copy(MR, tmp_path / "b" / "1")
    shutil.copy(CT, tmp_path / "a.dcm")
    (tmp_path / "readme.txt").write_text("Nothing to see here.")
    (tmp_path / "empty").touch()
    (tmp_path / ".asyncdicom-0123.part").write_bytes(CT.read_bytes()[:5000])
    shutil.copy(TEST_FILES / "dicomdirtests" / "DICOMDIR", tmp_path / "DICOMDIR")
    return tmp_path


def names(scan: Scan, folder: Path) -> list[str]:
    return [os.path.relpath(file.path, folder) for file in scan.files]


async def test_a_folder_is_looked_at_to_the_bottom_in_order(folder: Path) -> None:
    found = await scan(folder)
    assert names(found, folder) == ["a.dcm", "b/1"]
    assert sorted(map(os.path.basename, found.skipped)) == ["DICOMDIR", "empty", "readme.txt"]
    assert found.unreadable == []


async def test_links_are_followed_but_in_no_circle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(CT, elsewhere / "linked")
    (folder / "b" / "c").symlink_to(elsewhere)
    (folder / "b" / "d").symlink_to(folder)
    (folder / "b" / "e").symlink_to(folder / "b")
    (folder / "b" / "f").symlink_to(MR)
    (folder / "b" / "g").symlink_to(folder / "nowhere")
    found = await scan(folder)
    assert names(found, folder) == ["a.dcm", "b/1", "b/c/linked", "b/f"]
    assert str(folder / "b" / "g") in found.skipped


async def test_a_folder_is_entered_once_however_many_links_lead_there(tmp_path: Path) -> None:
    # Thirty levels with two ways down each: 2^29 paths to one file.
    for level in range(30):
        (tmp_path / f"{level}").mkdir()
        if level:
            (tmp_path / f"{level - 1}" / "left").symlink_to(tmp_path / f"{level}")
            (tmp_path / f"{level - 1}" / "right").symlink_to(tmp_path / f"{level}")
    shutil.copy(CT, tmp_path / "29" / "ct")
    assert len((await scan(tmp_path / "0")).files) == 1


async def test_what_is_no_file_is_passed_over_inside_of_a_folder(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert names(await scan(folder), folder) == ["a.dcm", "b/1"]


async def test_paths_are_taken_as_they_come(folder: Path) -> None:
    found = await scan(folder / "b", CT, folder / "a.dcm")
    assert [file.path for file in found.files] == [str(folder / "b" / "1"), str(CT), str(folder / "a.dcm")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere", "no such file or directory"),
        ("readme.txt", "not a DICOM file"),
        ("empty", "not a DICOM file"),
        ("DICOMDIR", "a DICOMDIR is no instance to send"),
        ("pipe", "neither a file nor a folder"),
    ],
)
async def test_what_is_named_has_to_be_an_instance(folder: Path, name: str, expected: str) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(CommandError) as raised:
        await scan(folder / name)
    assert (str(raised.value), raised.value.status) == (f"{folder / name}: {expected}", Exit.USAGE)


async def test_a_file_is_known_by_its_class_and_transfer_syntax() -> None:
    (file,) = (await scan(TEST_FILES / "JPEG2000.dcm")).files
    assert file.sop_class_uid == sop.SECONDARY_CAPTURE_IMAGE_STORAGE
    assert file.transfer_syntax_uid == sop.JPEG_2000


# The contexts that follow.

EXPLICIT, IMPLICIT, BIG = sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.IMPLICIT_VR_LITTLE_ENDIAN, sop.EXPLICIT_VR_BIG_ENDIAN
JPEG = sop.JPEG_BASELINE_8BIT


@pytest.mark.parametrize(
    ("syntaxes", "proposed"),
    [
        ([EXPLICIT], [(EXPLICIT,), (IMPLICIT,)]),
        ([IMPLICIT], [(IMPLICIT,), (EXPLICIT,)]),
        ([EXPLICIT, IMPLICIT], [(EXPLICIT,), (IMPLICIT,)]),
        ([BIG], [(BIG,), (EXPLICIT, IMPLICIT)]),
        ([JPEG], [(JPEG,)]),
        ([JPEG, EXPLICIT], [(JPEG,), (EXPLICIT,), (IMPLICIT,)]),
        (["1.2.3.4"], [("1.2.3.4",)]),
    ],
)
def test_each_transfer_syntax_is_a_context_of_its_own(syntaxes: list[str], proposed: list[tuple[str, ...]]) -> None:
    files = [Found(syntax, sop.CT_IMAGE_STORAGE, "1.2", syntax, 1) for syntax in syntaxes]
    ((contexts, grouped),) = group(files)
    assert grouped == files
    assert [context.transfer_syntaxes for context in contexts] == proposed
    assert {context.abstract_syntax for context in contexts} == {sop.CT_IMAGE_STORAGE}


@pytest.mark.parametrize(("classes", "syntaxes"), [(150, 1), (100, 2), (1, 300), (3, 100)])
def test_more_than_an_association_takes_is_spread_over_several(classes: int, syntaxes: int) -> None:
    files = [
        Found(f"{uid}/{syntax}", f"1.2.{uid}", "1.2", EXPLICIT if not syntax else f"1.3.{syntax}", 1)
        for syntax in range(syntaxes)
        for uid in range(classes)
    ]
    groups = group(files)
    assert sorted(file.path for _, part in groups for file in part) == sorted(file.path for file in files)
    for contexts, part in groups:
        assert len(contexts) <= MOST_CONTEXTS
        proposed = {(context.abstract_syntax, one) for context in contexts for one in context.transfer_syntaxes}
        assert {(file.sop_class_uid, file.transfer_syntax_uid) for file in part} <= proposed
        order = [files.index(file) for file in part]
        assert order == sorted(order)


def test_nothing_needs_no_association() -> None:
    assert group([]) == []
