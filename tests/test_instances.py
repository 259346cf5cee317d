"""Instances: where their data set is, that what is received is consumed once, and how each sub-operation is answered."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pydicom
import pytest

import asyncdicom
from asyncdicom import Instance, sop, threads
from asyncdicom.dataset import BytesSource, FileSource, part10_head
from asyncdicom.instances import ReceivedInstance, SourceOutgoing, prepare
from asyncdicom.protocol.commands import CStoreRQ
from asyncdicom.protocol.framing import Layout, recycle
from asyncdicom.protocol.negotiation import AcceptedContext
from asyncdicom.testing import store_request

from .harness import ct_bytes, ct_instance
from .protocol.test_framing import read_pdus

UID = "1.2.3.4"
SIZE = 3_000_000  # so many bytes that they are written in several steps


def received(
    size: int = 1000, *, piece: int = 65_536, error: Exception | None = None, data: bytes | None = None
) -> ReceivedInstance:
    """An instance that a sub-operation delivers, in pieces; ``error`` comes instead of the last one."""
    data = ct_bytes(size) if data is None else data
    instance = Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    request = store_request(instance, piece=piece, error=error)
    return ReceivedInstance(
        request._incoming, sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN, source_ae_title="PEER"
    )


# The four ways to consume what is received.


async def iterate(instance: ReceivedInstance, folder: Path) -> bytes:
    return b"".join([piece async for piece in instance.iter_data()])


async def read(instance: ReceivedInstance, folder: Path) -> bytes:
    return await instance.read()


async def decode(instance: ReceivedInstance, folder: Path) -> bytes:
    dataset = await instance.dataset()
    assert str(dataset.file_meta.TransferSyntaxUID) == sop.EXPLICIT_VR_LITTLE_ENDIAN
    return ct_bytes(len(dataset.PixelData))


async def save(instance: ReceivedInstance, folder: Path) -> bytes:
    return data_set_of(await instance.save(folder / "saved.dcm"))


Consume = Callable[[ReceivedInstance, Path], Coroutine[Any, Any, bytes]]
WAYS: list[Consume] = [iterate, read, decode, save]


def data_set_of(path: Path) -> bytes:
    """Return the data set of a file as it is encoded."""
    with path.open("rb") as file:
        pydicom.filereader.read_preamble(file, False)
        pydicom.filereader._read_file_meta_info(file)
        return file.read()


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("piece", [1, 100, 65_536])
async def test_each_way_gives_the_data_set_as_it_came(way: Consume, piece: int, tmp_path: Path) -> None:
    instance = received(200, piece=piece)
    assert await way(instance, tmp_path) == ct_bytes(200)
    assert instance.consumed
    assert instance.verdict == 0x0000


@pytest.mark.anyio
@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
async def test_a_data_set_is_consumed_once(first: Consume, second: Consume, tmp_path: Path) -> None:
    instance = received()
    await first(instance, tmp_path)
    with pytest.raises(asyncdicom.LocalProtocolError, match="consumed already"):
        await second(instance, tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_an_instance_that_is_over_cannot_be_consumed(way: Consume, tmp_path: Path) -> None:
    instance = received()
    instance.expire()
    with pytest.raises(asyncdicom.LocalProtocolError, match="this instance is over"):
        await way(instance, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.anyio
async def test_an_iterator_ends_with_its_instance() -> None:
    instance = received(piece=100)
    pieces = instance.iter_data()
    await pieces.__anext__()
    instance.expire()
    with pytest.raises(asyncdicom.LocalProtocolError, match="this instance is over"):
        await pieces.__anext__()


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_an_instance_without_a_data_set_is_empty(way: Consume, tmp_path: Path) -> None:
    instance = ReceivedInstance(None, sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    if way is decode:
        assert "PixelData" not in await instance.dataset()
    else:
        assert await way(instance, tmp_path) == b""
    await instance.discard()


@pytest.mark.anyio
async def test_what_is_discarded_is_read_to_its_end() -> None:
    instance = received(piece=100)
    await instance.discard()
    assert not instance.consumed
    assert instance._incoming is not None
    assert instance._incoming.done


# What goes wrong meanwhile.

#: What is raised instead of the last piece -> how the sub-operation is answered by who goes on.
ERRORS: list[tuple[Exception, int]] = [
    (asyncdicom.AssociationClosed("the connection was lost"), 0xC211),
    (asyncdicom.DataSetError("a data set of more than 100 bytes"), 0xC211),
    (asyncdicom.OperationTimeout("the peer sent nothing for 60 s"), 0xA700),
]


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("error", "status"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
async def test_who_goes_on_after_a_data_set_that_failed_does_not_answer_success(
    way: Consume, error: Exception, status: int, tmp_path: Path
) -> None:
    instance = received(SIZE, error=error)
    with pytest.raises(type(error)) as caught:
        await way(instance, tmp_path)
    assert caught.value is error
    assert instance.failure is error
    assert not instance.consumed
    assert instance.verdict == status
    assert os.listdir(tmp_path) == []


@pytest.mark.anyio
async def test_what_cannot_be_decoded_is_not_consumed() -> None:
    instance = received(data=b"\x08\x00\x16\x00UI\xff\xff")
    with pytest.raises(asyncdicom.DataSetError):
        await instance.dataset()
    assert not instance.consumed
    assert instance.verdict == 0xC211


class Hanging:
    """A data set of which one large piece comes, and then nothing."""

    inline_file_io = False
    done = False
    failed = False
    size = 0

    def __init__(self) -> None:
        self.hangs = anyio.Event()
        self._begun = False

    async def gather(self, size: int) -> list[memoryview]:
        if self._begun:
            self.hangs.set()
            await anyio.sleep_forever()
        self._begun = True
        return [memoryview(bytes(2 << 20))]

    async def discard(self) -> None:
        pass


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_cancelling_leaves_no_file_and_claims_no_success(way: Consume, tmp_path: Path) -> None:
    incoming: Any = Hanging()
    instance = ReceivedInstance(incoming, sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(way, instance, tmp_path)
        await incoming.hangs.wait()
        if way is save:
            assert len(os.listdir(tmp_path)) == 1
        tasks.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []
    assert not instance.consumed
    assert instance.verdict == 0xC211


# Saving.


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 1000, 200_000, SIZE])
@pytest.mark.parametrize("sync", [False, True])
async def test_a_saved_file_is_a_part_10_file_of_what_came(size: int, sync: bool, tmp_path: Path) -> None:
    path = await received(size).save(str(tmp_path / "saved.dcm"), sync=sync)
    assert path == tmp_path / "saved.dcm"
    assert data_set_of(path) == ct_bytes(size)
    meta = pydicom.filereader.read_file_meta_info(path)
    assert str(meta.MediaStorageSOPClassUID) == sop.CT_IMAGE_STORAGE
    assert meta.MediaStorageSOPInstanceUID == UID
    assert str(meta.TransferSyntaxUID) == sop.EXPLICIT_VR_LITTLE_ENDIAN
    assert meta.SourceApplicationEntityTitle == "PEER"
    assert os.listdir(tmp_path) == ["saved.dcm"]


@pytest.mark.anyio
async def test_a_path_is_given_back_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "saved.dcm"
    assert await received().save(path) is path


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", ["saved.dcm", "./saved.dcm", "folder/saved.dcm", "folder/../saved.dcm", "folder//saved"]
)
async def test_the_path_of_a_name_is_that_of_pathlib(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for path in (name, os.path.join(tmp_path, name)):
        for _ in range(2):
            saved = await received().save(path)
            assert (saved, type(saved)) == (Path(path), type(tmp_path))
            assert saved.is_file()


@pytest.mark.skipif(not hasattr(os, "writev"), reason="needs writev")
@pytest.mark.parametrize("size", [1000, SIZE])
def test_who_is_cancelled_while_the_disk_hangs_does_not_wait_for_it_and_leaves_nothing(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, goes_on, removed = threading.Event(), threading.Event(), threading.Event()
    writev, unlink = os.writev, os.unlink

    def hanging(fd: int, chunks: list[bytes]) -> int:
        writes.set()
        assert goes_on.wait(10)
        return writev(fd, chunks)

    def watched(path: str) -> None:
        unlink(path)
        removed.set()

    async def main() -> None:
        threads.hold()
        instance = received(size)
        saving = asyncio.create_task(instance.save(tmp_path / "saved.dcm"))
        await asyncio.to_thread(writes.wait, 10)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert not goes_on.is_set()
        goes_on.set()
        await asyncio.to_thread(removed.wait, 10)
        assert os.listdir(tmp_path) == []
        assert not instance.consumed
        threads.release()

    monkeypatch.setattr(os, "writev", hanging)
    monkeypatch.setattr(os, "unlink", watched)
    asyncio.run(main())


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1000, SIZE])
async def test_a_file_is_replaced_unless_it_may_not_be(size: int, tmp_path: Path) -> None:
    path = tmp_path / "saved.dcm"
    path.write_bytes(b"old")
    refused = received(size)
    with pytest.raises(FileExistsError):
        await refused.save(path, replace=False)
    assert path.read_bytes() == b"old"
    assert refused.verdict == 0xA700
    await received(size).save(path)
    assert data_set_of(path) == ct_bytes(size)
    assert os.listdir(tmp_path) == ["saved.dcm"]


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1000, SIZE])
async def test_a_folder_that_does_not_exist_is_out_of_resources(size: int, tmp_path: Path) -> None:
    instance = received(size)
    with pytest.raises(FileNotFoundError):
        await instance.save(tmp_path / "absent" / "saved.dcm")
    assert instance.verdict == 0xA700


# How a sub-operation is answered.


def accept(instance: ReceivedInstance) -> None:
    instance.accept()


def warn(instance: ReceivedInstance) -> None:
    instance.status = 0xB007


def consume(instance: ReceivedInstance) -> None:
    instance.consumed = True


def fail(instance: ReceivedInstance) -> None:
    instance.fail(ValueError("no"))


def fail_for_disk(instance: ReceivedInstance) -> None:
    instance.fail(OSError(28, "No space left on device"))


def cancel(instance: ReceivedInstance) -> None:
    instance.fail(KeyboardInterrupt())


def leave(instance: ReceivedInstance) -> None:
    instance.fail(GeneratorExit())


def drop(instance: ReceivedInstance) -> None:
    instance.drop()


#: What happened to it, in order -> the status.
VERDICTS: list[tuple[tuple[Callable[[ReceivedInstance], None], ...], int]] = [
    ((), 0x0000),
    ((accept,), 0x0000),
    ((consume,), 0x0000),
    ((warn,), 0xB007),
    ((consume, warn), 0xB007),
    ((fail,), 0xC211),
    ((fail_for_disk,), 0xA700),
    ((consume, fail), 0xC211),
    ((consume, fail_for_disk), 0xA700),
    ((warn, fail), 0xB007),
    ((accept, fail), 0x0000),
    ((cancel,), 0xC211),
    ((consume, cancel), 0x0000),
    ((leave,), 0x0000),
    ((consume, leave), 0x0000),
    ((drop,), 0xA700),
    ((consume, drop), 0x0000),
    ((accept, drop), 0x0000),
    ((warn, drop), 0xB007),
]


@pytest.mark.parametrize(
    ("steps", "status"), VERDICTS, ids=["-".join(step.__name__ for step in steps) for steps, _ in VERDICTS]
)
def test_a_sub_operation_is_answered_by_what_happened(
    steps: tuple[Callable[[ReceivedInstance], None], ...], status: int
) -> None:
    instance = ReceivedInstance(None, sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    for step in steps:
        step(instance)
    assert instance.verdict == status


def test_the_status_of_an_instance_that_is_over_cannot_be_set() -> None:
    instance = ReceivedInstance(None, sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    assert instance.status is None
    instance.expire()
    with pytest.raises(asyncdicom.LocalProtocolError, match="its response has been sent"):
        instance.status = 0
    with pytest.raises(asyncdicom.LocalProtocolError, match="its response has been sent"):
        instance.accept()


def test_what_is_being_received_has_no_source() -> None:
    with pytest.raises(asyncdicom.LocalProtocolError, match=r"save\(\) or read\(\) it first"):
        received().open_source()


# Instances that are here.


def test_a_file_is_known_by_its_head(test_files: Path) -> None:
    instance = Instance.from_file(test_files / "CT_small.dcm")
    dataset = pydicom.dcmread(test_files / "CT_small.dcm", stop_before_pixels=True)
    assert instance.sop_class_uid == sop.CT_IMAGE_STORAGE
    assert instance.sop_instance_uid == dataset.SOPInstanceUID
    assert instance.transfer_syntax_uid == dataset.file_meta.TransferSyntaxUID
    assert instance.path == str(test_files / "CT_small.dcm")
    assert not instance.in_memory
    source = instance.open_source()
    assert isinstance(source, FileSource)
    source.close()


def test_a_file_whose_uids_are_given_is_not_opened() -> None:
    instance = Instance.from_file("/absent.dcm", sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    assert repr(instance) == f"<Instance {UID!r} of {str(sop.CT_IMAGE_STORAGE)!r}>"
    with pytest.raises(FileNotFoundError):
        instance.open_source()
    with pytest.raises(FileNotFoundError):
        Instance.from_file("/absent.dcm", sop.CT_IMAGE_STORAGE, UID)


def test_what_is_no_dicom_file_is_no_instance(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"no DICOM file\n" * 20)
    with pytest.raises(asyncdicom.DataSetError):
        Instance.from_file(tmp_path / "text")


def test_bytes_are_in_memory() -> None:
    instance = ct_instance(100)
    assert instance.in_memory
    assert instance.path is None
    buffer = bytearray(len(ct_bytes(100)))
    assert instance.open_source().read_into([memoryview(buffer)]) == len(buffer)
    assert buffer == ct_bytes(100)


def test_a_data_set_is_encoded_as_its_meta_header_says_unless_another_is_named(test_files: Path) -> None:
    dataset = pydicom.dcmread(test_files / "CT_small.dcm")
    assert Instance.from_dataset(dataset).transfer_syntax_uid == dataset.file_meta.TransferSyntaxUID
    named = Instance.from_dataset(dataset, sop.IMPLICIT_VR_LITTLE_ENDIAN)
    assert named.transfer_syntax_uid == sop.IMPLICIT_VR_LITTLE_ENDIAN
    del dataset.file_meta
    assert Instance.from_dataset(dataset).transfer_syntax_uid == sop.EXPLICIT_VR_LITTLE_ENDIAN


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_data_set_without_its_uids_is_not_storable(test_files: Path, keyword: str, value: str | None) -> None:
    dataset = pydicom.dcmread(test_files / "CT_small.dcm")
    if value is None:
        delattr(dataset, keyword)
    else:
        setattr(dataset, keyword, value)
    with pytest.raises(asyncdicom.DataSetError, match="needs a SOP Class UID and a SOP Instance UID"):
        Instance.from_dataset(dataset)


@pytest.mark.parametrize("what", [None, 1, b"bytes", io.BytesIO()])
def test_what_is_no_data_set_is_no_instance(what: Any) -> None:
    with pytest.raises(TypeError, match="is no instance"):
        Instance.from_dataset(what)


# Preparing for a context.

CONTEXT = AcceptedContext(
    context_id=1,
    abstract_syntax=sop.CT_IMAGE_STORAGE,
    transfer_syntax=sop.EXPLICIT_VR_LITTLE_ENDIAN,
    requestor_is_scu=True,
    requestor_is_scp=False,
)


def test_what_is_prepared_has_its_context_and_its_source() -> None:
    asked: list[tuple[str, str]] = []

    def choose(sop_class: str, syntax: str) -> tuple[AcceptedContext, bool]:
        asked.append((sop_class, syntax))
        return CONTEXT, False

    prepared = prepare(ct_instance(), choose)
    assert asked == [(sop.CT_IMAGE_STORAGE, sop.EXPLICIT_VR_LITTLE_ENDIAN)]
    assert prepared.context is CONTEXT
    assert (prepared.sop_class_uid, prepared.sop_instance_uid) == (sop.CT_IMAGE_STORAGE, UID)
    assert prepared.source.size == len(ct_bytes())
    prepared.close()


class Closing(BytesSource):
    """A source that tells whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True
        super().close()


#: SOP Instance UID, what choosing raises -> what comes out.
REFUSED: list[tuple[str, Exception | None, type[Exception]]] = [
    (UID, asyncdicom.NoPresentationContext(sop.CT_IMAGE_STORAGE, "none"), asyncdicom.NoPresentationContext),
    (UID, ValueError("no"), ValueError),
    ("", None, asyncdicom.DataSetError),
]


@pytest.mark.parametrize(("uid", "error", "expected"), REFUSED)
def test_what_cannot_be_prepared_is_closed(uid: str, error: Exception | None, expected: type[Exception]) -> None:
    source = Closing(ct_bytes())

    def choose(sop_class: str, syntax: str) -> tuple[AcceptedContext, bool]:
        if error is not None:
            raise error
        return CONTEXT, False

    with pytest.raises(expected):
        prepare(Instance(sop.CT_IMAGE_STORAGE, uid, sop.EXPLICIT_VR_LITTLE_ENDIAN, lambda: source), choose)
    assert source.closed


@pytest.mark.parametrize("size", [0, 1, 2, 999, 100_000, 100_001, 300_001, 1_000_001, 2_000_001])
@pytest.mark.parametrize("in_file", [False, True])
def test_what_is_laid_out_is_even_and_its_padding_is_zero(size: int, in_file: bool, tmp_path: Path) -> None:
    layout = Layout(131_072)
    used = layout.place(1, layout.buffer_payload, last=True)[0]
    used[:] = b"x" * len(used)
    recycle(used)
    data = b"\x55" * size
    path = tmp_path / "file.dcm"
    path.write_bytes(part10_head(sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN) + data)
    identity = (sop.CT_IMAGE_STORAGE, UID, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    instance = Instance.from_file(path, *identity) if in_file else Instance.from_bytes(data, *identity)
    message = CStoreRQ(message_id=1, affected_sop_class_uid=sop.CT_IMAGE_STORAGE, affected_sop_instance_uid=UID)
    prepared = prepare(
        instance, lambda sop_class, syntax: (CONTEXT, False), compose=lambda ready: ready.lay_out(layout, message)
    )
    if size > 1 << 20:
        assert prepared.buffers is None
        prepared.close()
        return
    assert prepared.buffers is not None
    fragments = [fragment for _, _, control, fragment in read_pdus(b"".join(prepared.buffers)) if not control & 1]
    assert b"".join(fragments) == data + bytes(size % 2)


# Sources on their way out.


@pytest.mark.anyio
@pytest.mark.parametrize(("data", "sent"), [(b"", b""), (b"even", b"even"), (b"odd", b"odd\0")])
async def test_gaps_are_filled_to_the_end_which_is_even(data: bytes, sent: bytes) -> None:
    outgoing = SourceOutgoing(BytesSource(data))
    assert outgoing.size == len(sent)
    buffer = bytearray(len(sent))
    await outgoing.fill_gaps([memoryview(buffer)[:2], memoryview(buffer)[2:]])
    assert buffer == sent
    assert outgoing.size == 0


@pytest.mark.anyio
async def test_a_source_that_became_shorter_is_an_error() -> None:
    outgoing = SourceOutgoing(BytesSource(b"1234"))
    await outgoing.fill_gaps([memoryview(bytearray(2))])
    with pytest.raises(OSError, match="became shorter"):
        await outgoing.fill_gaps([memoryview(bytearray(4))])
