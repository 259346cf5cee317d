"""The head of a file, judged by pydicom on its own files."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdicom import _part10, sop
from asyncdicom.dataset import (
    FileSource,
    part10_head,
    read_file_head,
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
        buffer = bytearray(len(data))
        assert source.read_into([memoryview(buffer)]) == head.data_set_size
        assert buffer[: head.data_set_size] == data[head.data_set_offset :]


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


# The head of each file of a series is like that of the others.

BEFORE_UIDS = b"\x08\0\x05\0CS\x0a\0ISO_IR 100\x08\0\x12\0DA\x08\x0020240131"
LANGUAGE = b"\x08\0\x06\0SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
IMPLICIT_AFTER = b"\x10\x00\x20\x00\x02\0\0\x00AB"
IMPLICIT_CHARSET = b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100"


def _swapped(elements: bytes) -> bytes:
    """Turn the elements of BEFORE_UIDS and UIDS over to big endian."""
    out, position = b"", 0
    while position < len(elements):
        group, element, length = (elements[position + at : position + at + 2] for at in (0, 2, 6))
        end = position + 8 + int.from_bytes(length, "little")
        out += group[::-1] + element[::-1] + elements[position + 4 : position + 6] + length[::-1]
        out += elements[position + 8 : end]
        position = end
    return out


#: Heads of which the shape is remembered.
SHAPES = {
    "explicit": HEAD + BEFORE_UIDS + UIDS + AFTER,
    "nothing before the UIDs": HEAD + UIDS + AFTER,
    "a sequence before them": HEAD + LANGUAGE + BEFORE_UIDS + UIDS + AFTER,
    "compressed": part10_head("1.9", "1.8", "1.2.840.10008.1.2.4.50") + BEFORE_UIDS + UIDS + AFTER,
    "implicit": part10_head("1.9", "1.8", sop.IMPLICIT_VR_LITTLE_ENDIAN)
    + IMPLICIT_CHARSET
    + IMPLICIT_UIDS
    + IMPLICIT_AFTER,
    "big endian": part10_head("1.9", "1.8", sop.EXPLICIT_VR_BIG_ENDIAN)
    + _swapped(BEFORE_UIDS + UIDS)
    + b"\0\x08\0\x20DA\0\0",
    "wrong group length": HEAD[:140] + b"\x01\0\0\0" + HEAD[144:] + UIDS + AFTER,
}


@pytest.fixture
def _no_shape_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_part10._Shape, "known", ())


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.usefixtures("_no_shape_is_known")
def test_a_head_is_recognized_only_where_judging_it_gives_the_same(name: str) -> None:
    head = SHAPES[name]
    assert _part10._judge(head, 5000)[0] is not None
    (shape,) = _part10._Shape.known
    assert shape.match(head, 7000) == _part10._judge(head, 7000)[0]
    recognized = set()
    for position in range(len(head)):
        for byte in {0, 1, 2, 8, 0x18, 0x31, 0x41, 0xFF, head[position] ^ 1, head[position] ^ 2} - {head[position]}:
            other = head[:position] + bytes((byte,)) + head[position + 1 :]
            if (match := shape.match(other, 7000)) is not None:
                recognized.add(position)
                assert (match, False) == _part10._judge(other, 7000), (position, byte)
    assert set(range(128)) < recognized  # the preamble and the values
    for size in range(len(head)):
        if (match := shape.match(head[:size], 7000)) is not None:
            assert (match, False) == _part10._judge(head[:size], 7000), size


@pytest.mark.usefixtures("_no_shape_is_known")
def test_the_files_of_a_series_have_one_shape_and_their_own_uids(tmp_path: Path) -> None:
    for number in range(10, 30):
        uid = f"1.2.{number}\0"
        path = tmp_path / str(number)
        path.write_bytes(
            part10_head("1.9", uid, EXPLICIT)
            + BEFORE_UIDS[:-2]
            + b"%d" % number
            + b"\x08\0\x16\0UI\x04\x001.5\0\x08\0\x18\0UI\x08\0"
            + f"{uid:\0<8}".encode()
            + AFTER
        )
        assert read_file_head(path).sop_instance_uid == f"1.2.{number}"
        assert read_file_head(path).sop_class_uid == "1.5"
    assert len(_part10._Shape.known) == 1


@pytest.mark.usefixtures("_no_shape_is_known")
def test_few_shapes_are_remembered() -> None:
    for number in range(40):
        length = 2 * number
        before = b"\x08\0\x05\0CS" + length.to_bytes(2, "little") + bytes(length)
        assert _part10._judge(HEAD + before + UIDS + AFTER, 5000)[0] is not None
    assert 0 < len(_part10._Shape.known) <= 8


NO_SHAPE = {
    "no preamble": HEAD[132:] + UIDS + AFTER,
    "explicit declared, implicit in fact": HEAD + IMPLICIT_UIDS + IMPLICIT_AFTER,
    "implicit declared, explicit in fact": part10_head("1.9", "1.8", sop.IMPLICIT_VR_LITTLE_ENDIAN) + UIDS + AFTER,
    "nothing behind the UIDs": HEAD + UIDS,
    "more than is read at first": HEAD + b"\x08\0\x06\0OB\0\0\0\0\x01\0" + bytes(65536) + UIDS + AFTER,
    "no UIDs": HEAD + AFTER,
    "an empty UID": HEAD + b"\x08\0\x16\0UI\x04\x001.5\0\x08\0\x18\0UI\0\0" + AFTER,
    "the UIDs in the wrong order": HEAD + UID_VALUE + b"\x08\0\x16\0UI\x04\x001.5\0" + AFTER,
    "a meta header that does not end": HEAD + b"\x02\0\x16\0AE\xff\xff" + UIDS + AFTER,
    "a VR that is a length, too": part10_head("1.9", "1.8", sop.IMPLICIT_VR_LITTLE_ENDIAN)
    + b"\x08\0\x05\0CS\0\0"
    + b" " * 0x5343
    + IMPLICIT_UIDS
    + IMPLICIT_AFTER,
}


@pytest.mark.parametrize("name", NO_SHAPE)
@pytest.mark.usefixtures("_no_shape_is_known")
def test_what_is_unusual_is_judged_each_time(name: str) -> None:
    _part10._judge(NO_SHAPE[name], len(NO_SHAPE[name]))
    assert _part10._Shape.known == ()


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
