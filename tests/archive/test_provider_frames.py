"""Frames of multi-frame instances over associations (PS3.4 Annex Y), with pydicom as the judge."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from asyncdicom import Association, Response, StatusError, sop
from asyncdicom._quiet import quiet
from asyncdicom.archive import Archive
from asyncdicom.dataset import encode_data_set, part10_head

from ..harness import C_GET_RQ, C_GET_RSP, final, request_elements, served
from ..interop.material import sample
from .multiframe import image
from .serving import Destination, archived, associated, both_roles, got, instance_files, store

pytestmark = pytest.mark.anyio

ULTRASOUND = sop.ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE
SOURCE = "1.2.3.4.5"
CONTEXTS = [
    both_roles(ULTRASOUND),
    sop.COMPOSITE_INSTANCE_ROOT_GET,
    sop.COMPOSITE_INSTANCE_ROOT_MOVE,
    sop.VERIFICATION,
]


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    """Give an archive of an instance of ten frames, each of which holds its number."""
    async with archived(tmp_path / "archive") as opened:
        async with associated(opened, CONTEXTS) as association:
            await store(association, image(10, FrameTime="500", FrameIncrementPointer=0x00181063))
        yield opened


async def frames_of(association: Association, **keys: Any) -> tuple[list[Dataset], Response]:
    """Retrieve frames; return the new instances as pydicom reads them, and the response."""
    keys = {"SOPInstanceUID": SOURCE, **keys}
    found, response = await got(association, sop.COMPOSITE_INSTANCE_ROOT_GET, level="FRAME", **keys)
    return [as_pydicom_reads(uid, *one) for uid, one in found.items()], response


def as_pydicom_reads(uid: str, syntax: str, data: bytes) -> Dataset:
    with quiet():
        ds = pydicom.dcmread(io.BytesIO(part10_head(ULTRASOUND, uid, syntax) + data))
        assert ds.SOPInstanceUID == uid
        return ds


SELECTIONS: list[tuple[dict[str, Any], list[int]]] = [
    ({"SimpleFrameList": 3}, [3]),
    ({"SimpleFrameList": [1, 4, 10]}, [1, 4, 10]),
    ({"SimpleFrameList": [9, 10, 11]}, [9, 10]),
    ({"CalculatedFrameList": [2, 8, 3]}, [2, 5, 8]),
    ({"CalculatedFrameList": [1, 2, 1, 8, 0xFFFFFFFF, 1]}, [1, 2, 8, 9, 10]),
    ({"TimeRange": [0.9, 2.1]}, [3, 4, 5]),
]


@pytest.mark.parametrize(("keys", "expected"), SELECTIONS, ids=range(len(SELECTIONS)))
async def test_frames_come_as_one_new_instance(
    archive: Archive, tmp_path: Path, keys: dict[str, Any], expected: list[int]
) -> None:
    (path,) = instance_files(tmp_path / "archive")
    before = path.read_bytes()
    async with associated(archive, CONTEXTS) as association:
        (made,), response = await frames_of(association, **keys)
        again, _ = await frames_of(association, **keys)
    assert (response.status, response.progress.completed) == (0, 1)
    assert made.SOPInstanceUID.startswith("2.25.")
    assert made.SOPInstanceUID not in (SOURCE, again[0].SOPInstanceUID)
    assert made.NumberOfFrames == len(expected)
    assert made.PixelData == b"".join(bytes([frame]) * 4 for frame in expected)
    (item,) = made.FrameExtractionSequence
    assert item.MultiFrameSourceSOPInstanceUID == SOURCE
    ((keyword, value),) = keys.items()
    assert item[keyword].value == value
    assert made.PatientName == "Doe^Jane"
    assert instance_files(tmp_path / "archive") == [path]  # what was made is not kept
    assert path.read_bytes() == before


async def test_frames_are_moved(archive: Archive) -> None:
    destination = Destination()
    async with destination.serving() as options, associated(archive, CONTEXTS, **options) as association:
        move = association.move(
            model=sop.COMPOSITE_INSTANCE_ROOT_MOVE,
            destination="DEST",
            level="FRAME",
            SOPInstanceUID=SOURCE,
            SimpleFrameList=[2, 7],
        )
        async for _ in move:
            pass
    assert move.response is not None
    assert (move.response.status, move.response.progress.completed) == (0, 1)
    ((uid, one),) = destination.instances.items()
    made = as_pydicom_reads(uid, *one)
    assert made.PixelData == b"\2\2\2\2\7\7\7\7"


COMPRESSED = [
    ("SC_rgb_rle_2frame.dcm", [2]),
    ("rtdose_rle.dcm", [1, 3, 15]),
    ("examples_ybr_color.dcm", [1, 15, 30]),
]


@pytest.mark.parametrize(("name", "wanted"), COMPRESSED, ids=[name for name, _ in COMPRESSED])
async def test_compressed_frames_come_as_they_are(tmp_path: Path, name: str, wanted: list[int]) -> None:
    source = sample(name)
    contexts = [both_roles(source.sop_class_uid, source.transfer_syntax_uid), sop.COMPOSITE_INSTANCE_ROOT_GET]
    with quiet():
        whole = pydicom.dcmread(source.path)
        total = int(whole.NumberOfFrames)
        frames = list(generate_frames(whole.PixelData, number_of_frames=total))
    async with archived(tmp_path) as archive, associated(archive, contexts) as association:
        await store(association, source.path)
        (made,), _ = await frames_of(association, SOPInstanceUID=source.sop_instance_uid, SimpleFrameList=wanted)
    assert made.NumberOfFrames == len(wanted)
    assert list(generate_frames(made.PixelData, number_of_frames=len(wanted))) == [frames[n - 1] for n in wanted]


# What goes wrong

FAILURES: list[tuple[str, dict[str, Any], int, list[int]]] = [
    ("none of the frames", {"SimpleFrameList": [11, 12]}, 0xAA00, []),
    ("none of the times", {"TimeRange": [100.0, 200.0]}, 0xAA00, []),
    ("no key", {}, 0xAA04, [0x00081161, 0x00081162, 0x00081163]),
    ("two keys", {"SimpleFrameList": 1, "TimeRange": [0.0, 1.0]}, 0xAA04, [0x00081161, 0x00081163]),
    ("frame 0", {"SimpleFrameList": [0, 1]}, 0xAA04, [0x00081161]),
    ("not ascending", {"SimpleFrameList": [3, 2]}, 0xAA04, [0x00081161]),
    ("no 3-tuple", {"CalculatedFrameList": [1, 2]}, 0xAA04, [0x00081162]),
    ("past the last frame", {"CalculatedFrameList": [1, 20, 1, 21, 30, 1, 5, 6, 1]}, 0xAA04, [0x00081162]),
    ("a range that ends before it starts", {"TimeRange": [2.0, 1.0]}, 0xAA04, [0x00081163]),
]


def identifier(**keys: Any) -> bytes:
    ds = Dataset()
    ds.QueryRetrieveLevel = "FRAME"
    for keyword, value in {"SOPInstanceUID": SOURCE, **keys}.items():
        setattr(ds, keyword, value)
    return encode_data_set(ds, sop.EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize(("keys", "status", "offending"), [row[1:] for row in FAILURES], ids=[r[0] for r in FAILURES])
async def test_what_cannot_be_taken_out_has_its_status_and_says_what_offends(
    archive: Archive, keys: dict[str, Any], status: int, offending: list[int]
) -> None:
    async with served(archive.services, sop.COMPOSITE_INSTANCE_ROOT_GET, both_roles(ULTRASOUND)) as peer:
        elements = request_elements(C_GET_RQ, 5, sop.COMPOSITE_INSTANCE_ROOT_GET)
        await peer.send_message(1, elements, identifier(**keys))
        pending, last = await final(peer, C_GET_RSP)
        await peer.release()
    assert pending == []
    assert (last.status, last.data_set) == (status, None)
    assert last.text(0x00000902)
    tags = last.command.get(0x00000901, b"")
    found = [
        int.from_bytes(tags[n : n + 2], "little") << 16 | int.from_bytes(tags[n + 2 : n + 4], "little")
        for n in range(0, len(tags), 4)
    ]
    assert found == offending


#: What is stored, and what a Simple Frame List or a Time Range of it fails with.
UNFIT: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("a single image", {"NumberOfFrames": None}, {"SimpleFrameList": 1}, 0xAA01),
    ("a senseless number of frames", {"NumberOfFrames": "-3"}, {"SimpleFrameList": 1}, 0xAA02),
    ("less pixel data than it says", {"NumberOfFrames": 40}, {"SimpleFrameList": 39}, 0xAA02),
    ("frames without times", {}, {"TimeRange": [0.0, 1.0]}, 0xAA03),
]


@pytest.mark.parametrize(("values", "keys", "status"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT])
async def test_an_instance_that_is_unfit_has_its_status(
    tmp_path: Path, values: dict[str, Any], keys: dict[str, Any], status: int
) -> None:
    ds = image(4, **{keyword: value for keyword, value in values.items() if value is not None})
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
    async with archived(tmp_path) as archive, associated(archive, CONTEXTS) as association:
        await store(association, ds)
        with pytest.raises(StatusError) as raised:
            await frames_of(association, **keys)
        assert raised.value.status == status
        assert raised.value.comment
        await association.echo()


@pytest.mark.parametrize("damage", ["missing", "shorter"])
async def test_frames_of_a_damaged_instance_cannot_be_taken_out(archive: Archive, tmp_path: Path, damage: str) -> None:
    (path,) = instance_files(tmp_path / "archive")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2])
    async with associated(archive, CONTEXTS) as association:
        with pytest.raises(StatusError) as raised:
            await frames_of(association, SimpleFrameList=1)
        assert raised.value.status == 0xAA02
        await association.echo()


async def test_frames_of_nothing_are_none(archive: Archive) -> None:
    async with associated(archive, CONTEXTS) as association:
        made, response = await frames_of(association, SOPInstanceUID="1.2.3.99", SimpleFrameList=1)
    assert (made, response.status) == ([], 0)


@pytest.mark.parametrize("uid", ["", [SOURCE, "1.2.3.6"], "1.2.*"])
async def test_frames_are_of_one_instance(archive: Archive, uid: str | list[str]) -> None:
    async with associated(archive, CONTEXTS) as association:
        with pytest.raises(StatusError) as raised:
            await frames_of(association, SOPInstanceUID=uid, SimpleFrameList=1)
        assert raised.value.status == 0xA900
