"""What the archive answers to a C-STORE, and what is there afterwards."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydicom.dataset import Dataset

from asyncdicom import Association, Instance, PresentationContext, sop
from asyncdicom.dataset import decode_data_set, encode_data_set
from asyncdicom.testing import ScriptedPeer

from ..harness import C_STORE_RSP, served, store_elements
from .corpus import instance
from .serving import archived, associated, both_roles, got, instance_files, left_over, store

pytestmark = pytest.mark.anyio

CT = instance(1)
UID = str(CT.SOPInstanceUID)
STUDY: dict[str, Any] = {"level": "STUDY", "StudyInstanceUID": "1.2.3.1"}


def changed(**values: Any) -> Dataset:
    """Make the same instance with other content."""
    return instance(1, **values)


def with_pixels(ds: Dataset, data: bytes) -> Dataset:
    """Give an instance pixel data."""
    ds.add_new(0x7FE00010, "OW", data)
    return ds


async def held(association: Association, uid: str = UID) -> tuple[str, Dataset]:
    """Return the transfer syntax of an instance that the archive has, and its data set."""
    instances, _ = await got(association, sop.COMPOSITE_INSTANCE_ROOT_GET, level="IMAGE", SOPInstanceUID=uid)
    syntax, data = instances[uid]
    return syntax, decode_data_set(data, syntax)


async def test_an_instance_is_found_at_once_when_it_was_stored(tmp_path: Path) -> None:
    async with archived(tmp_path) as archive, associated(archive) as association:
        assert await store(association, CT) == [0]
        assert [str(match.SOPInstanceUID) async for match in association.find(query_image())] == [UID]
        assert (await held(association))[1].PatientID == "P1"
        assert len(instance_files(tmp_path)) == 1
        assert left_over(tmp_path) == []


def query_image() -> dict[str, object]:
    return {
        "QueryRetrieveLevel": "IMAGE",
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.1.1",
        "SOPInstanceUID": "",
    }


async def test_the_file_has_a_meta_header_and_the_bytes_that_came(tmp_path: Path) -> None:
    async with archived(tmp_path) as archive, associated(archive, calling="SCANNER") as association:
        await store(association, CT)
    (path,) = instance_files(tmp_path)
    content = path.read_bytes()
    assert content[128:132] == b"DICM"
    assert b"SCANNER" in content[:400]
    assert content.endswith(encode_data_set(CT, sop.EXPLICIT_VR_LITTLE_ENDIAN))


# The same SOP Instance UID again

#: Policy, status for other content, and whose content is there afterwards.
POLICIES = [("refuse", 0x0111, "P1"), ("keep", 0x0000, "P1"), ("replace", 0x0000, "P2")]


@pytest.mark.parametrize(("policy", "status", "patient"), POLICIES, ids=[policy for policy, *_ in POLICIES])
async def test_other_content_is_treated_as_the_policy_says(
    tmp_path: Path, policy: str, status: int, patient: str
) -> None:
    async with archived(tmp_path, on_duplicate=policy) as archive, associated(archive) as association:
        await store(association, CT)
        response = await association.store(changed(patient="P2"), check=False)
        assert response.status == status
        assert bool(response.error_comment) == bool(status)
        assert (await held(association))[1].PatientID == patient
        assert len(instance_files(tmp_path)) == 1
        patients = association.find({"PatientID": ""}, sop.PATIENT_ROOT_FIND, level="PATIENT")
        assert [str(match.PatientID) async for match in patients] == [patient]


@pytest.mark.parametrize("policy", ["refuse", "keep", "replace"])
async def test_identical_bytes_are_a_success_and_change_nothing(tmp_path: Path, policy: str) -> None:
    async with archived(tmp_path, on_duplicate=policy) as archive, associated(archive) as association:
        await store(association, CT)
        before = instance_files(tmp_path)
        assert await store(association, CT, CT) == [0, 0]
        assert instance_files(tmp_path) == before
        assert left_over(tmp_path) == []


async def test_identical_bytes_from_another_sender_are_a_success(tmp_path: Path) -> None:
    async with archived(tmp_path) as archive:
        for sender in ("ONE", "SOMEBODY_ELSE"):  # which the meta header says
            async with associated(archive, calling=sender) as association:
                assert await store(association, CT) == [0]
    assert len(instance_files(tmp_path)) == 1


async def test_the_same_data_set_in_another_transfer_syntax_is_other_content(tmp_path: Path) -> None:
    implicit = sop.IMPLICIT_VR_LITTLE_ENDIAN
    contexts = [
        PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, transfer_syntaxes=(syntax,))
        for syntax in (implicit, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    ]
    async with archived(tmp_path) as archive, associated(archive, contexts) as association:
        assert await store(association, CT) == [0]
        assert await store(association, Instance.from_dataset(CT, implicit), check=False) == [0x0111]


async def test_a_missing_instance_is_stored_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with archived(tmp_path) as archive, associated(archive) as association:
        await store(association, CT)
        (path,) = instance_files(tmp_path)
        path.unlink()
        assert await store(association, changed(patient="P2")) == [0]
        assert (await held(association))[1].PatientID == "P2"
        assert "damaged or missing" in caplog.text


async def test_a_damaged_instance_is_stored_anew(tmp_path: Path) -> None:
    async with archived(tmp_path) as archive, associated(archive) as association:
        await store(association, CT)
        (path,) = instance_files(tmp_path)
        path.write_bytes(path.read_bytes()[:-10])
        assert await store(association, CT) == [0]
        assert (await held(association))[1].PatientID == "P1"
        assert path not in instance_files(tmp_path)


# What cannot be stored

#: What is changed, the status, and the elements that are to blame.
REFUSED: list[tuple[str, dict[str, Any], int, tuple[int, ...]]] = [
    ("no Study Instance UID", {"StudyInstanceUID": None}, 0xA900, (0x0020000D,)),
    ("no Series Instance UID", {"SeriesInstanceUID": None}, 0xA900, (0x0020000E,)),
    ("empty Study Instance UID", {"StudyInstanceUID": ""}, 0xA900, (0x0020000D,)),
    ("a SOP Instance UID that is a path", {"SOPInstanceUID": "../../x"}, 0x0117, ()),
    ("a SOP Instance UID with an empty component", {"SOPInstanceUID": "1..2"}, 0x0117, ()),
    ("a SOP Instance UID that is too long", {"SOPInstanceUID": "1." + "2" * 64}, 0x0117, ()),
    ("no SOP Instance UID", {"SOPInstanceUID": None}, 0xA900, (0x00080018,)),
    ("no SOP Class UID", {"SOPClassUID": None}, 0xA900, (0x00080016,)),
]


@pytest.mark.parametrize(
    ("values", "status", "offending"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_an_instance_that_cannot_be_kept_is_refused_and_leaves_nothing(
    tmp_path: Path, values: dict[str, Any], status: int, offending: tuple[int, ...]
) -> None:
    data = encode_data_set(changed(**values), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    sent = Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, "1.2.3", sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with archived(tmp_path) as archive, associated(archive) as association:
        response = await association.store(sent, check=False)
        assert response.status == status
        assert response.error_comment
        assert response.offending_element == offending
        assert instance_files(tmp_path) == []
        assert left_over(tmp_path) == []
        await association.echo()
        assert await store(association, CT) == [0]


GARBAGE = [b"\0" * 10, b"\xff" * 64, b"\x08\x00\x16\x00UI\xff\xff", bytes(range(256)) * 20]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_what_is_no_data_set_is_refused(tmp_path: Path, garbage: bytes) -> None:
    sent = Instance.from_bytes(garbage, sop.CT_IMAGE_STORAGE, "1.2.3", sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with archived(tmp_path) as archive, associated(archive) as association:
        assert await store(association, sent, check=False) == [0xA900]
        assert instance_files(tmp_path) == []
        await association.echo()


HOSTILE = ["../../x", "/etc/passwd", "..", "1.2\0.3", "1.2/3", "1." + "2" * 63, "1..2", "a.b", "1.2\r\nX: y"]


@pytest.mark.parametrize("uid", HOSTILE)
async def test_a_command_with_a_hostile_uid_is_0117_and_nothing_is_written(tmp_path: Path, uid: str) -> None:
    data = encode_data_set(CT, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with archived(tmp_path / "archive") as archive, served(archive.services, sop.CT_IMAGE_STORAGE) as peer:
        for message_id, (name, status) in enumerate([(uid, 0x0117), (UID, 0)]):  # the association lives
            await peer.send_message(1, store_elements(message_id, name), data)
            assert (await peer.expect_message(C_STORE_RSP)).status == status
        await peer.release()
    assert os.listdir(tmp_path) == ["archive"]
    assert len(instance_files(tmp_path / "archive")) == 1


async def test_what_the_command_calls_otherwise_is_stored_as_what_it_is_with_a_warning(tmp_path: Path) -> None:
    data = encode_data_set(CT, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    other = Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, "1.2.99", sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with archived(tmp_path) as archive, associated(archive) as association:
        response = await association.store(other)
        assert response.status == 0xB007
        assert response.error_comment
        assert (await held(association))[1].SOPInstanceUID == UID
        again = await association.store(other)  # identical bytes, and still another name
        assert again.status == 0xB007


async def test_what_is_of_another_class_than_the_command_says_is_stored_with_a_warning(tmp_path: Path) -> None:
    data = encode_data_set(CT, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    other = Instance.from_bytes(data, sop.MR_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    contexts: list[str | PresentationContext] = [
        sop.MR_IMAGE_STORAGE,
        both_roles(sop.CT_IMAGE_STORAGE),
        sop.COMPOSITE_INSTANCE_ROOT_GET,
    ]
    async with archived(tmp_path) as archive, associated(archive, contexts) as association:
        assert await store(association, other) == [0xB007]
        assert (await held(association))[1].SOPClassUID == sop.CT_IMAGE_STORAGE


# Attributes that come late, and instances that are large


def padded(size: int) -> bytes:
    """Encode an instance whose Study Instance UID comes behind a private element of *size* bytes."""
    ds = changed()
    ds.add_new(0x00090010, "LO", "SOMEBODY")
    ds.add_new(0x00091001, "OB", bytes(size))
    return encode_data_set(ds, sop.EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize("size", [200 << 10, 300 << 10, 1 << 20, 5 << 20])
async def test_attributes_are_found_behind_large_elements(tmp_path: Path, size: int) -> None:
    data = padded(size)
    sent = Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with archived(tmp_path) as archive, associated(archive) as association:
        assert await store(association, sent, sent) == [0, 0]
        instances, _ = await got(association, sop.STUDY_ROOT_GET, **STUDY)
    assert instances == {UID: (sop.EXPLICIT_VR_LITTLE_ENDIAN, data)}


async def test_attributes_that_come_too_late_are_as_good_as_none(tmp_path: Path) -> None:
    sent = Instance.from_bytes(padded(17 << 20), sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with archived(tmp_path) as archive, associated(archive) as association:
        assert await store(association, sent, check=False) == [0xA900]
        assert instance_files(tmp_path) == []
        assert left_over(tmp_path) == []


# Data sets that are meant to hurt


def nested(depth: int) -> bytes:
    """Encode an instance with a sequence in a sequence and so on, in front of its Study Instance UID."""
    whole = encode_data_set(changed(), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    study = whole.index(b"\x20\x00\x0d\x00UI")
    inner = (b"\x08\x00\x10\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
    inner += (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * depth
    return whole[:study] + inner + whole[study:]


@cache
def bomb() -> bytes:
    """Deflate an instance whose pixel data are a quarter of a gigabyte of nothing."""
    head = encode_data_set(changed(), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    packer = zlib.compressobj(1, wbits=-15)
    parts = [packer.compress(head + b"\xe0\x7f\x10\x00OB\0\0\0\0\0\x10")]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(256)]
    data = b"".join([*parts, packer.flush()])
    return data + b"\0" * (len(data) % 2)


CT_BYTES = encode_data_set(CT, sop.EXPLICIT_VR_LITTLE_ENDIAN)
HURTFUL: list[tuple[str, Callable[[], bytes], str]] = [
    ("nested 30 times", partial(nested, 30), sop.EXPLICIT_VR_LITTLE_ENDIAN),
    ("nested 4 000 times", partial(nested, 4_000), sop.EXPLICIT_VR_LITTLE_ENDIAN),
    (
        "an element of 4 GiB",
        lambda: CT_BYTES + b"\xe0\x7f\x10\x00OB\0\0\xfe\xff\xff\xff",
        sop.EXPLICIT_VR_LITTLE_ENDIAN,
    ),
    ("a deflate bomb", bomb, sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    ("not deflated at all", lambda: CT_BYTES, sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
]


@pytest.mark.parametrize(("make", "syntax"), [row[1:] for row in HURTFUL], ids=[row[0] for row in HURTFUL])
async def test_what_is_meant_to_hurt_is_stored_byte_for_byte_or_refused(
    tmp_path: Path, make: Callable[[], bytes], syntax: str
) -> None:
    data = make()
    sent = Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, UID, syntax)
    contexts = [both_roles(sop.CT_IMAGE_STORAGE, syntax), sop.STUDY_ROOT_GET, sop.VERIFICATION]
    async with archived(tmp_path) as archive, associated(archive, contexts) as association:
        (status,) = await store(association, sent, check=False)
        assert status in (0, 0xA900)
        instances, _ = await got(association, sop.STUDY_ROOT_GET, **STUDY)
        assert instances == ({UID: (syntax, data)} if status == 0 else {})
        assert left_over(tmp_path) == []
        await association.echo()


# Several at once


async def test_the_same_instance_on_two_associations_at_once_is_stored_once(tmp_path: Path) -> None:
    large = with_pixels(changed(), bytes(3 << 20))
    async with archived(tmp_path) as archive, associated(archive) as one, associated(archive) as other:
        statuses = []

        async def send(association: Association) -> None:
            statuses.extend(await store(association, large))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, one)
            tasks.start_soon(send, other)
        assert statuses == [0, 0]
        assert len(instance_files(tmp_path)) == 1
        assert left_over(tmp_path) == []
        assert (await held(one))[1].PixelData == bytes(3 << 20)


@pytest.mark.parametrize(("policy", "others"), [("refuse", 0x0111), ("keep", 0), ("replace", 0)])
async def test_different_instances_of_one_uid_at_once_are_never_mixed(tmp_path: Path, policy: str, others: int) -> None:
    versions = [with_pixels(changed(PatientID=f"V{number}"), bytes([number]) * (2 << 20)) for number in range(4)]
    async with archived(tmp_path, on_duplicate=policy) as archive, associated(archive) as last:
        statuses: list[int] = []

        async def send(version: Dataset) -> None:
            async with associated(archive) as association:
                statuses.extend(await store(association, version, check=False))

        async with anyio.create_task_group() as tasks:
            for version in versions:
                tasks.start_soon(send, version)
        assert sorted(statuses) == sorted([0, others, others, others])
        assert len(instance_files(tmp_path)) == 1
        assert left_over(tmp_path) == []
        _, found = await held(last)
        number = int(found.PatientID[1:])
        assert found.PixelData == bytes([number]) * (2 << 20)


async def test_what_is_replaced_while_it_is_retrieved_is_retrieved_as_it_was(tmp_path: Path) -> None:
    def version(number: int, patient: str) -> Dataset:
        return with_pixels(instance(number, PatientName=patient), patient.encode() * (1 << 19))

    async with archived(tmp_path, on_duplicate="replace") as archive:
        async with associated(archive) as reader, associated(archive) as writer:
            await store(writer, *(version(number, "Old^") for number in range(4)))
            seen: dict[str, str] = {}
            async with reader.get(model=sop.STUDY_ROOT_GET, **STUDY) as instances:
                async for received in instances:
                    if not seen:
                        assert await store(writer, *(version(n, "New^") for n in range(4))) == [0] * 4
                        assert len(instance_files(tmp_path)) == 8
                    seen[received.sop_instance_uid] = str((await received.dataset()).PatientName)
            assert instances.response is not None
            assert instances.response.status == 0
            assert set(seen.values()) == {"Old^"}
            assert len(instance_files(tmp_path)) == 4  # the old ones are gone
            again, _ = await got(reader, sop.STUDY_ROOT_GET, **STUDY)
            assert {str(decode_data_set(data, s).PatientName) for s, data in again.values()} == {"New^"}


async def test_what_another_process_replaces_while_it_is_retrieved_is_retrieved_as_it_is_then(tmp_path: Path) -> None:
    async with archived(tmp_path) as archive, archived(tmp_path, on_duplicate="replace") as other:
        async with associated(archive) as reader, associated(other) as writer:
            await store(writer, *(instance(number, PatientName="Old") for number in range(4)))
            names: set[str] = set()
            async with reader.get(model=sop.STUDY_ROOT_GET, **STUDY) as instances:
                async for received in instances:
                    if not names:
                        await store(writer, *(instance(number, PatientName="New") for number in range(4)))
                    names.add(str((await received.dataset()).PatientName))
            assert instances.response is not None
            assert (instances.response.status, instances.response.progress.completed) == (0, 4)
            assert "New" in names


# A peer that goes


async def test_a_store_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    data = encode_data_set(with_pixels(changed(), bytes(4 << 20)), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with archived(tmp_path) as archive:
        async with served(archive.services, sop.CT_IMAGE_STORAGE) as peer:
            whole = ScriptedPeer.message(1, store_elements(1, UID), data)
            await peer.send(whole[: len(whole) - 1000])
            await peer.aclose()
        assert instance_files(tmp_path) == []
        assert left_over(tmp_path) == []


async def test_an_archive_has_what_was_stored_when_it_is_opened_again(tmp_path: Path) -> None:
    async with archived(tmp_path) as archive, associated(archive) as association:
        await store(association, *(instance(number) for number in range(5)))
    assert list((tmp_path / "incoming").iterdir()) == []
    async with archived(tmp_path) as archive, associated(archive) as association:
        assert len((await got(association, sop.STUDY_ROOT_GET, **STUDY))[0]) == 5


async def test_a_vanished_folder_is_a700_and_the_association_lives(tmp_path: Path) -> None:
    async with archived(tmp_path / "archive") as archive, associated(archive) as association:
        await store(association, CT)
        shutil.rmtree(tmp_path / "archive")
        response = await association.store(instance(2), check=False)
        assert response.status == 0xA700
        await association.echo()
        assert not (tmp_path / "archive").exists()
