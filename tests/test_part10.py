"""Files: the head, sources and sinks, judged by pydicom on its own files."""

from __future__ import annotations

import io
import os
import stat
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom import sop
from asyncdicom.dataset import (
    BytesSource,
    FileSink,
    FileSource,
    Source,
    StreamSource,
    is_temporary,
    part10_head,
    read_file_head,
    save,
)
from asyncdicom.exceptions import DataSetError

from .test_elements import AFTER, UID_VALUE, dicom_files

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def test_the_head_of_a_file_is_read_back_by_pydicom() -> None:
    head = part10_head(
        CT, "1.2.3", EXPLICIT, source_ae_title="MODALITY", sending_ae_title="SENDER", receiving_ae_title="ARCHIVE"
    )
    meta = pydicom.dcmread(io.BytesIO(head)).file_meta
    assert head[:132] == bytes(128) + b"DICM"
    assert meta.FileMetaInformationGroupLength == len(head) - 132 - 12
    assert meta.FileMetaInformationVersion == b"\x00\x01"
    assert meta.MediaStorageSOPClassUID == CT
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.ImplementationClassUID == sop.IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == sop.IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "MODALITY"
    assert meta.SendingApplicationEntityTitle == "SENDER"
    assert meta.ReceivingApplicationEntityTitle == "ARCHIVE"
    assert list(meta) == sorted(meta, key=lambda element: element.tag)
    assert len(meta) == 10


def test_the_optional_elements_of_the_head_can_be_left_out() -> None:
    assert len(pydicom.dcmread(io.BytesIO(part10_head(CT, "1.2.3", EXPLICIT))).file_meta) == 7


@pytest.mark.parametrize("uid", ["1.2.\u20ac", "1" * 70_000])
def test_a_head_that_cannot_be_encoded_is_refused(uid: str) -> None:
    with pytest.raises(DataSetError, match=r"\(0002,0003\)"):
        part10_head(CT, uid, EXPLICIT)


def test_the_uids_and_the_offset_of_every_real_file_are_those_that_pydicom_finds(test_files: Path) -> None:
    differing = 0
    for path in dicom_files(test_files):
        head = read_file_head(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference = pydicom.dcmread(path, force=True)
        meta = reference.file_meta
        sop_class = reference.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID", "")
        sop_instance = reference.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID", "")
        assert (head.sop_class_uid, head.sop_instance_uid) == (sop_class, sop_instance), path.name
        assert head.size == path.stat().st_size
        assert head.data_set_size == head.size - head.data_set_offset
        assert head.has_meta is ("TransferSyntaxUID" in meta)
        if head.has_meta:
            assert head.transfer_syntax_uid == meta.TransferSyntaxUID, path.name
        differing += sop_instance != meta.get("MediaStorageSOPInstanceUID", sop_instance)
    assert differing  # files exist whose meta header names another instance


HEADLESS = {
    "ExplVR_BigEndNoMeta.dcm": sop.EXPLICIT_VR_BIG_ENDIAN,
    "ExplVR_LitEndNoMeta.dcm": sop.EXPLICIT_VR_LITTLE_ENDIAN,
    "rtstruct.dcm": sop.IMPLICIT_VR_LITTLE_ENDIAN,
}


@pytest.mark.parametrize("name", HEADLESS)
def test_the_transfer_syntax_is_guessed_without_a_meta_header(test_files: Path, name: str) -> None:
    head = read_file_head(test_files / name)
    assert (head.transfer_syntax_uid, head.has_meta, head.data_set_offset) == (HEADLESS[name], False, 0)


NOT_DICOM = {
    "nothing": b"",
    "text": b"The quick brown fox jumps over the lazy dog. " * 20,
    "zeros": bytes(4096),
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(300),
    "a data set without UIDs": AFTER * 20,
    "a data set with a path for a UID": b"\x08\0\x16\0UI\x04\x001.2\0\x08\0\x18\0UI\x08\0../../x\0",
    "half a data set": UID_VALUE,
}


@pytest.mark.parametrize("name", NOT_DICOM)
def test_a_file_that_is_not_dicom_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file\x1b[31m"
    path.write_bytes(NOT_DICOM[name])
    with pytest.raises(DataSetError, match=r"\Anot a DICOM file: [^\x1b]*\Z"):
        read_file_head(path)
    with pytest.raises(DataSetError, match="not a DICOM file"):
        FileSource.open(path)


def test_files_that_are_no_images_are_not_taken_for_some(test_files: Path) -> None:
    for name in ("README.txt", "crayons.icc", "rtplan.dump", "test1.json", "zipMR.gz"):
        with pytest.raises(DataSetError, match="not a DICOM file"):
            read_file_head(test_files / name)


UIDS = b"\x08\0\x16\0UI\x04\x001.5\0" + UID_VALUE
IMPLICIT_UIDS = b"\x08\0\x16\0\x04\0\0\x001.5\0\x08\0\x18\0\x04\0\0\x001.2\0"
HEAD = part10_head("1.9", "1.8", EXPLICIT)

FAULTS = {
    "wrong group length": (HEAD[:140] + b"\x01\0\0\0" + HEAD[144:] + UIDS, EXPLICIT),
    "no group length": (HEAD[:132] + HEAD[144:] + UIDS, EXPLICIT),
    "no preamble": (HEAD[132:] + UIDS, EXPLICIT),
    "implicit meta header": (
        bytes(128) + b"DICM\x02\0\x10\0\x12\0\0\x001.2.840.10008.1.2\0" + IMPLICIT_UIDS,
        "1.2.840.10008.1.2",
    ),
    "explicit declared, implicit in fact": (HEAD + IMPLICIT_UIDS, "1.2.840.10008.1.2"),
    "implicit declared, explicit in fact": (part10_head("1.9", "1.8", "1.2.840.10008.1.2") + UIDS, EXPLICIT),
    "a large private element in the meta header": (
        HEAD + b"\x02\0\x02\x01OB\0\0\0\0\x01\0" + bytes(65536) + UIDS,
        EXPLICIT,
    ),
    "a large element before the UIDs": (HEAD + b"\x08\0\x06\0OB\0\0\0\0\x01\0" + bytes(65536) + UIDS, EXPLICIT),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_files_in_the_field_are_tolerated(tmp_path: Path, name: str) -> None:
    data, transfer_syntax = FAULTS[name]
    path = tmp_path / "file"
    path.write_bytes(data)
    head = read_file_head(path)
    assert (head.sop_class_uid, head.sop_instance_uid) == ("1.5", "1.2")
    assert head.transfer_syntax_uid == transfer_syntax
    with FileSource.open(path) as source:
        assert read_all(source) == data[head.data_set_offset :]


def test_the_meta_header_counts_only_where_the_data_set_has_no_uids(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(HEAD + AFTER)
    head = read_file_head(path)
    assert (head.sop_class_uid, head.sop_instance_uid) == ("1.9", "1.8")


def test_the_head_of_a_deflated_file_is_inflated_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    deflater = zlib.compressobj(wbits=-15)
    path.write_bytes(
        part10_head("1.9", "1.8", sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
        + deflater.compress(UIDS + b"\xe0\x7f\x10\x00OW\0\0\xff\xff\xff\x7f" + bytes(64 << 20))
    )
    assert read_file_head(path).sop_instance_uid == "1.2"


def test_a_missing_file_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_file_head(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        FileSource.open(tmp_path / "missing")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataSetError, match="not a DICOM file"):
        read_file_head(tmp_path / "pipe")
    with pytest.raises(DataSetError, match="not a DICOM file"):
        FileSource.open(tmp_path / "pipe")


def test_a_folder_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_file_head(tmp_path)
    with pytest.raises(IsADirectoryError):
        FileSource.open(tmp_path)


@given(data=st.binary(max_size=600), prefix=st.sampled_from([b"", bytes(128) + b"DICM", HEAD]))
def test_random_files_are_judged_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, prefix: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(prefix + data)
    try:
        head = read_file_head(path)
    except DataSetError:
        return
    assert 0 <= head.data_set_offset <= head.size


def read_all(source: Source, size: int = 1000, views: int = 3) -> bytes:
    """Read a source to its end in uneven pieces."""
    result = bytearray()
    while True:
        buffer = bytearray(size)
        view = memoryview(buffer)
        step = max(1, size // views)
        pieces = [view[at : at + step] for at in range(0, size, step)]
        count = source.read_into(pieces)
        result += view[:count]
        if count < size:
            return bytes(result)


def numbered(size: int) -> bytes:
    return (b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1)))[:size]


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 70_000, 1 << 20, (1 << 20) + 1, (2 << 20) + 3])
@pytest.mark.parametrize("views", [1, 3, 1000])
def test_a_source_gives_the_bytes_of_the_data_set(tmp_path: Path, size: int, views: int) -> None:
    data = UIDS + b"\xe0\x7f\x10\x00OB\0\0" + size.to_bytes(4, "little") + numbered(size)
    path = tmp_path / "file"
    path.write_bytes(HEAD + data)
    step = max(1000, size // 7)
    with FileSource.open(path) as source:
        assert source.size == len(data)
        assert source.head.sop_instance_uid == "1.2"
        assert read_all(source, step, views) == data
        assert source.read_into([memoryview(bytearray(10))]) == 0
    assert read_all(BytesSource(data), step, views) == data
    assert read_all(StreamSource(data[at : at + 777] for at in range(0, len(data), 777)), step, views) == data


def test_more_views_than_one_system_call_takes_are_filled(tmp_path: Path) -> None:
    data = UIDS + b"\xe0\x7f\x10\x00OB\0\0\0\0\x20\0" + numbered(2 << 20)
    path = tmp_path / "file"
    path.write_bytes(HEAD + data)
    buffer = bytearray(3 << 20)
    views = [memoryview(buffer)[at : at + 1000] for at in range(0, len(buffer), 1000)]
    with FileSource.open(path) as source:
        assert source.read_into(views) == len(data)
    assert buffer[: len(data)] == data


def test_a_file_that_shrinks_gives_less_and_one_that_grows_no_more(tmp_path: Path) -> None:
    data = UIDS + b"\xe0\x7f\x10\x00OB\0\0\0\0\x20\0" + numbered(2 << 20)
    path = tmp_path / "file"
    path.write_bytes(HEAD + data)
    buffer = bytearray(4 << 20)
    with FileSource.open(path) as source:
        os.truncate(path, 1 << 20)
        assert source.read_into([memoryview(buffer)]) == (1 << 20) - len(HEAD)
        assert source.size == len(data)
    path.write_bytes(HEAD + data)
    with FileSource.open(path) as source:
        with path.open("ab") as file:
            file.write(b"more")
        assert source.read_into([memoryview(buffer)]) == len(data)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_descriptor_is_held_for_a_small_file_nor_after_close(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(HEAD + UIDS)
    large.write_bytes(HEAD + UIDS + bytes(2 << 20))
    before = open_descriptors()
    with FileSource.open(small):
        assert open_descriptors() == before
    source = FileSource.open(large)
    assert open_descriptors() == before + 1
    source.close()
    source.close()
    assert open_descriptors() == before
    with pytest.raises(ValueError, match="closed"):
        source.read_into([memoryview(bytearray(1))])
    large.write_bytes(b"x" * 3_000_000)
    with pytest.raises(DataSetError):
        FileSource.open(large)
    assert open_descriptors() == before


def test_closing_a_stream_source_ends_its_generator() -> None:
    ended = []

    def chunks() -> Iterator[bytes]:
        try:
            yield b"abc"
            yield b""
            yield b"def"
        finally:
            ended.append(True)

    source = StreamSource(chunks())
    assert source.size is None
    buffer = bytearray(2)
    assert source.read_into([memoryview(buffer)]) == 2
    source.close()
    assert ended == [True]
    assert source.read_into([memoryview(buffer)]) == 0


def test_a_sink_shows_the_file_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "1.2.dcm"
    with FileSink(path, HEAD) as sink:
        assert list(tmp_path.iterdir()) == []
        sink.write([b"abc", memoryview(b"def")])
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".")
        assert is_temporary(temporary.name)
        assert not path.exists()
        sink.write([bytearray(b"ghi")])
        sink.commit()
    assert [p.name for p in tmp_path.iterdir()] == ["1.2.dcm"]
    assert path.read_bytes() == HEAD + b"abcdefghi"
    assert sink.size == len(HEAD) + 9
    assert not is_temporary(path.name)


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save(tmp_path / "file", HEAD, [b"abc"])
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_an_empty_data_set_leaves_the_head_alone(tmp_path: Path) -> None:
    with FileSink(tmp_path / "file", HEAD) as sink:
        sink.commit(sync=True)
    assert (tmp_path / "file").read_bytes() == HEAD


@pytest.mark.parametrize("views", [1, 1024, 1025, 3000])
def test_many_chunks_are_written_in_order(tmp_path: Path, views: int) -> None:
    chunks = [numbered(4 * i % 97) for i in range(views)]
    assert save(tmp_path / "file", HEAD, chunks, sync=True) == len(HEAD + b"".join(chunks))
    assert (tmp_path / "file").read_bytes() == HEAD + b"".join(chunks)


def test_nothing_is_left_when_a_sink_is_abandoned(tmp_path: Path) -> None:
    with FileSink(tmp_path / "file", HEAD) as sink:
        sink.write([b"abc"])
    assert list(tmp_path.iterdir()) == []
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        sink.write([b"abc"])
    with pytest.raises(ValueError, match="closed"):
        sink.commit()
    assert list(tmp_path.iterdir()) == []


def test_a_committed_sink_cannot_be_written_and_is_not_removed(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "file", HEAD)
    sink.commit()
    with pytest.raises(ValueError, match="closed"):
        sink.write([b"abc"])
    sink.abort()
    assert (tmp_path / "file").read_bytes() == HEAD


def test_an_existing_file_is_replaced_in_one_step_and_readers_keep_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save(path, HEAD, [b"old"])
    with path.open("rb") as reader:
        save(path, HEAD, [b"new"])
        assert reader.read() == HEAD + b"old"
    assert path.read_bytes() == HEAD + b"new"


def test_an_existing_file_is_never_touched_when_replacing_is_forbidden(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save(path, HEAD, [b"old"], replace=False)
    with pytest.raises(FileExistsError) as caught:
        save(path, HEAD, [b"new"], replace=False)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == HEAD + b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_missing_folder_is_an_oserror_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "missing" / "file", HEAD, [b"abc"])
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_by_a_folder_is_an_oserror_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        save(tmp_path / "file", HEAD, [b"abc"])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "file", HEAD)
    sink.write([b"abc"])
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, sink._fd)
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        sink.write([b"def"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "./file"])
def test_a_relative_path_is_written_into_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save(name, HEAD, [b"abc"], sync=True)
    assert read_file_head(name).sop_instance_uid == "1.8"
