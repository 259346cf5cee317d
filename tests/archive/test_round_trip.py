"""What is stored comes back byte for byte in the same transfer syntax, whatever it is."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import anyio
import pydicom
import pytest
from pydicom.dataset import Dataset

from asyncdicom import DataSetError, Instance, StatusError, sop
from asyncdicom._quiet import quiet
from asyncdicom.dataset import decode_data_set, encode_data_set

from ..conftest import TEST_FILES
from ..interop.material import Sample, samples, storage_contexts
from .corpus import instance
from .serving import Destination, archived, associated, both_roles, got, instance_files, store

pytestmark = pytest.mark.anyio

REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID")


def rounds() -> list[list[Sample]]:
    """Return pydicom's files in lists without two of the same SOP Instance UID: each is stored in an archive of its own."""
    seen: dict[str, int] = defaultdict(int)
    found: dict[int, list[Sample]] = defaultdict(list)
    for item in samples():
        found[seen[item.sop_instance_uid]].append(item)
        seen[item.sop_instance_uid] += 1
    return list(found.values())


def is_complete(item: Sample) -> bool:
    header = item.header()
    return all(header.get(keyword) for keyword in REQUIRED)


@pytest.mark.parametrize("items", rounds(), ids=lambda items: f"{len(items)}-files")
async def test_every_storable_file_comes_back_with_its_bytes_and_its_transfer_syntax(
    tmp_path: Path, items: list[Sample]
) -> None:
    contexts = [*storage_contexts(items), sop.COMPOSITE_INSTANCE_ROOT_GET]
    expected = {item.sop_instance_uid: item for item in items if is_complete(item)}
    async with archived(tmp_path) as archive, associated(archive, contexts) as association:
        for item in items:
            response = await association.store(item.path, check=False)
            assert response.status == (0 if is_complete(item) else 0xA900), item.name
        for uid, item in expected.items():
            instances, _ = await got(association, sop.COMPOSITE_INSTANCE_ROOT_GET, level="IMAGE", SOPInstanceUID=uid)
            assert instances == {uid: (item.transfer_syntax_uid, item.on_the_wire)}, item.name
    assert len(instance_files(tmp_path)) == len(expected)


def test_the_files_are_of_every_kind() -> None:
    syntaxes = {item.transfer_syntax_uid for item in samples()}
    assert len(syntaxes) >= 12
    assert {sop.EXPLICIT_VR_BIG_ENDIAN, sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, sop.RLE_LOSSLESS} <= syntaxes
    assert len({item.sop_class_uid for item in samples()}) >= 12
    assert sum(is_complete(item) for item in samples()) > 130
    assert len(rounds()) > 3


def headless() -> list[Path]:
    """Return the files of pydicom's that have no transfer syntax in a meta header."""
    found = []
    for path in sorted(TEST_FILES.glob("*.dcm")):
        with quiet():
            try:
                meta = pydicom.dcmread(path, stop_before_pixels=True, force=True).file_meta
            except Exception:
                continue
        if not meta.get("TransferSyntaxUID"):
            found.append(path)
    return found


@pytest.mark.parametrize("path", headless(), ids=lambda path: path.stem)
async def test_a_file_without_a_meta_header_is_stored_if_it_says_what_it_is(tmp_path: Path, path: Path) -> None:
    with quiet():
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        uids = [str(header.get(keyword) or "") for keyword in ("SOPClassUID", "SOPInstanceUID", *REQUIRED)]
    whole = await anyio.Path(path).read_bytes()
    sop_class = uids[0] or sop.CT_IMAGE_STORAGE
    contexts = [
        both_roles(sop_class, syntax)
        for syntax in (sop.IMPLICIT_VR_LITTLE_ENDIAN, sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.EXPLICIT_VR_BIG_ENDIAN)
    ]
    async with (
        archived(tmp_path) as archive,
        associated(archive, [*contexts, sop.COMPOSITE_INSTANCE_ROOT_GET]) as association,
    ):
        if not all(uids[:2]):
            with pytest.raises(DataSetError):
                await association.store(path)
        elif not all(uids):
            with pytest.raises(StatusError) as raised:
                await association.store(path)
            assert raised.value.status == 0xA900
        else:
            assert await store(association, path) == [0]
            instances, _ = await got(
                association, sop.COMPOSITE_INSTANCE_ROOT_GET, level="IMAGE", SOPInstanceUID=uids[1]
            )
            assert whole.rstrip(b"\0").endswith(instances[uids[1]][1].rstrip(b"\0"))
        await association.release()
    assert len(instance_files(tmp_path)) == all(uids)


async def test_a_data_set_without_a_meta_header_is_stored_like_any_other(tmp_path: Path) -> None:
    async with archived(tmp_path) as archive, associated(archive) as association:
        assert not hasattr(instance(1), "file_meta")
        assert await store(association, instance(1)) == [0]


# Private classes and transfer syntaxes

PRIVATE_CLASS, PRIVATE_SYNTAX = "1.2.826.0.1.3680043.9.3811.77.1", "1.2.826.0.1.3680043.9.3811.77.2"


@pytest.mark.parametrize("sop_class", [sop.CT_IMAGE_STORAGE, PRIVATE_CLASS, "1.2.840.10008.5.1.4.1.1.9999"])
@pytest.mark.parametrize("syntax", [sop.EXPLICIT_VR_LITTLE_ENDIAN, PRIVATE_SYNTAX, sop.HEVC_MP51])
async def test_private_and_future_classes_and_transfer_syntaxes_come_back_as_they_were(
    tmp_path: Path, sop_class: str, syntax: str
) -> None:
    data = encode_data_set(instance(1, SOPClassUID=sop_class), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    data += bytes.fromhex("e07f1000 4f420000 ffffffff feff00e0 00000000 feff00e0 04000000 01020304 feffdde0 00000000")
    sent = Instance.from_bytes(data, sop_class, "1.2.3.1.1.1", syntax)
    contexts = [both_roles(sop_class, syntax), sop.STUDY_ROOT_GET, sop.STUDY_ROOT_MOVE]
    destination = Destination()
    async with (
        destination.serving() as options,
        archived(tmp_path) as archive,
        associated(archive, contexts, **options) as association,
    ):
        assert await store(association, sent) == [0]
        instances, _ = await got(association, sop.STUDY_ROOT_GET, level="STUDY", StudyInstanceUID="1.2.3.1")
        async for _ in association.move(level="STUDY", StudyInstanceUID="1.2.3.1", destination="DEST"):
            pass
    assert instances == destination.instances == {"1.2.3.1.1.1": (syntax, data)}


async def test_the_stored_transfer_syntax_is_taken_if_it_was_accepted_in_any_context(tmp_path: Path) -> None:
    syntaxes = (sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.IMPLICIT_VR_LITTLE_ENDIAN, sop.EXPLICIT_VR_BIG_ENDIAN)
    contexts = [*(both_roles(sop.CT_IMAGE_STORAGE, syntax) for syntax in syntaxes), sop.STUDY_ROOT_GET]
    sent = [Instance.from_dataset(instance(number), syntax) for number, syntax in enumerate(syntaxes)]
    async with archived(tmp_path) as archive, associated(archive, contexts) as association:
        await store(association, *sent)
        instances, _ = await got(association, sop.STUDY_ROOT_GET, level="STUDY", StudyInstanceUID="1.2.3.1")
    assert {uid: syntax for uid, (syntax, _) in instances.items()} == {
        one.sop_instance_uid: one.transfer_syntax_uid for one in sent
    }


async def test_a_native_instance_is_converted_if_only_another_native_syntax_was_accepted(tmp_path: Path) -> None:
    async with archived(tmp_path) as archive:
        async with associated(archive) as association:
            await store(association, instance(1))
        contexts = [both_roles(sop.CT_IMAGE_STORAGE, sop.IMPLICIT_VR_LITTLE_ENDIAN), sop.STUDY_ROOT_GET]
        async with associated(archive, contexts) as association:
            instances, response = await got(association, sop.STUDY_ROOT_GET, level="STUDY", StudyInstanceUID="1.2.3.1")
    assert response.status == 0
    ((syntax, data),) = instances.values()
    assert syntax == sop.IMPLICIT_VR_LITTLE_ENDIAN
    assert decode_data_set(data, syntax) == instance(1)


async def test_an_instance_whose_syntax_was_not_accepted_fails_and_is_listed(tmp_path: Path) -> None:
    data = encode_data_set(instance(1), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    sent = Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, "1.2.3.1.1.1", sop.JPEG_2000_LOSSLESS)
    async with archived(tmp_path) as archive:
        async with associated(archive, [both_roles(sop.CT_IMAGE_STORAGE, sop.JPEG_2000_LOSSLESS)]) as association:
            await store(association, sent)
        async with associated(archive) as association:
            await store(association, instance(2))
            instances, response = await got(association, sop.STUDY_ROOT_GET, level="STUDY", StudyInstanceUID="1.2.3.1")
    assert list(instances) == ["1.2.3.1.1.2"]
    assert response.status == 0xB000
    assert response.data_set is not None
    assert response.data_set.FailedSOPInstanceUIDList == "1.2.3.1.1.1"


# Composite Instance Retrieve Without Bulk Data (PS3.4 Annex Z)


def with_bulk() -> Dataset:
    ds = instance(1, PatientName="Doe^John", Rows=2, Columns=4, BitsAllocated=8)
    ds.add_new(0x7FE00010, "OW", b"12345678")
    inner = Dataset()
    inner.add_new(0x54001010, "OW", b"12345678")
    inner.ChannelLabel = "I"
    ds.WaveformSequence = [inner]
    return ds


async def test_without_bulk_data_all_else_comes_and_what_is_stored_stays(tmp_path: Path) -> None:
    sent = with_bulk()
    async with archived(tmp_path) as archive, associated(archive) as association:
        await store(association, sent)
        (path,) = instance_files(tmp_path)
        before = path.read_bytes()
        get = association.get(
            model=sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET, level="IMAGE", SOPInstanceUID=sent.SOPInstanceUID
        )
        received = []
        async for one in get:
            assert one.bulk_data_removed
            assert one.sop_instance_uid == sent.SOPInstanceUID
            received.append(await one.dataset())
        assert get.response is not None
        assert get.response.status == 0
        whole, _ = await got(association, sop.STUDY_ROOT_GET, level="STUDY", StudyInstanceUID="1.2.3.1")
    (thin,) = received
    assert "PixelData" not in thin
    assert "WaveformData" not in thin.WaveformSequence[0]
    assert thin.WaveformSequence[0].ChannelLabel == "I"
    del sent[0x7FE00010]
    del sent.WaveformSequence[0][0x54001010]
    assert thin == sent
    assert path.read_bytes() == before
    assert decode_data_set(whole[sent.SOPInstanceUID][1], sop.EXPLICIT_VR_LITTLE_ENDIAN) == with_bulk()


@pytest.mark.parametrize("item", list(filter(is_complete, samples()))[::9], ids=lambda item: Path(item.name).stem)
async def test_real_instances_come_without_bulk_data(tmp_path: Path, item: Sample) -> None:
    contexts = [*storage_contexts([item]), sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET]
    async with archived(tmp_path) as archive, associated(archive, contexts) as association:
        assert await store(association, item.path) == [0]
        found, response = await got(
            association,
            sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
            level="IMAGE",
            SOPInstanceUID=item.sop_instance_uid,
        )
    assert response.status == 0
    syntax, data = found[item.sop_instance_uid]
    thin, header = decode_data_set(data, syntax), item.header()
    assert "PixelData" not in thin
    assert thin.SOPInstanceUID == item.sop_instance_uid
    assert [element.tag for element in thin if element.tag < 0x00280000] == [
        element.tag for element in header if 0x00080000 <= element.tag < 0x00280000 and element.tag.element
    ]
