"""Between bytes and pydicom's Dataset; pydicom itself is the judge."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from asyncdicom import sop
from asyncdicom.dataset import (
    DataSetLimits,
    decode_data_set,
    encode_data_set,
    inflate,
    part10_head,
    with_file_meta,
)
from asyncdicom.exceptions import DataSetError

from .test_elements import (
    AFTER,
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SEQUENCES,
    UID_VALUE,
    UNDEFINED,
    data_set_of,
    dicom_files,
)

NATIVE = [IMPLICIT, EXPLICIT, BIG, DEFLATED]
JPEG = "1.2.840.10008.1.2.4.50"

#: Files that end too early, and where.
TRUNCATED = {"MR_truncated.dcm": "7FE0,0010", "rtplan_truncated.dcm": "300A,00B0", "DICOMDIR-nooffset": "0004,1220"}


def reference(path: Path) -> Dataset:
    """Read a file with pydicom, values and all, without its meta header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        for element in dataset.iterall():
            assert element.value is element.value
    return Dataset(dataset)


def identifier() -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.PatientName = "Doe^J*"
    query.PatientID = ""
    query.StudyDate = "20200101-20201231"
    query.StudyInstanceUID = ["1.2.3", "1.2.4"]
    query.NumberOfStudyRelatedSeries = None
    item = Dataset()
    item.CodeValue = "A"
    query.ProcedureCodeSequence = [item]
    return query


def test_every_real_file_decodes_as_pydicom_has_it(test_files: Path) -> None:
    for path in dicom_files(test_files):
        data, transfer_syntax = data_set_of(path)
        if path.name in TRUNCATED:
            with pytest.raises(DataSetError, match=TRUNCATED[path.name]):
                decode_data_set(data, transfer_syntax)
        else:
            assert decode_data_set(data, transfer_syntax) == reference(path), path.name


def test_every_real_file_survives_being_encoded_and_decoded(test_files: Path) -> None:
    for path in dicom_files(test_files):
        if path.name in TRUNCATED:
            continue
        data, transfer_syntax = data_set_of(path)
        dataset = decode_data_set(data, transfer_syntax)
        again = decode_data_set(encode_data_set(dataset, transfer_syntax), transfer_syntax)
        for tag in [element.tag for element in dataset if element.tag.element == 0]:
            del dataset[tag]  # group lengths are retired and never written
        assert again == dataset, path.name


@pytest.mark.parametrize("transfer_syntax", [*NATIVE, JPEG, "1.2.3.4"])
def test_an_identifier_survives_every_transfer_syntax(transfer_syntax: str) -> None:
    query = identifier()
    data = encode_data_set(query, transfer_syntax)
    assert len(data) % 2 == 0
    assert decode_data_set(data, transfer_syntax) == query


@pytest.mark.parametrize("raw", [False, True])
def test_a_decoded_data_set_has_what_pydicoms_own_have_and_shares_it_with_no_other(raw: bool) -> None:
    data = encode_data_set(identifier(), sop.EXPLICIT_VR_LITTLE_ENDIAN)
    one, other = (decode_data_set(data, sop.EXPLICIT_VR_LITTLE_ENDIAN, raw=raw) for _ in range(2))
    assert vars(one).keys() >= vars(Dataset()).keys()
    assert one == other
    mine = vars(one)
    assert not [
        name for name, value in vars(other).items() if isinstance(value, dict | list | set) and value is mine[name]
    ]
    other.PatientID = "another"
    other.add_new(0x00090010, "LO", "CREATOR")
    other.private_block(0x0009, "CREATOR").add_new(1, "LO", "private")
    assert one != other
    assert 0x00091001 not in one
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one


def test_what_pydicom_reads_in_a_file_is_what_we_encoded() -> None:
    data = encode_data_set(identifier(), EXPLICIT)
    read = pydicom.dcmread(io.BytesIO(part10_head("1.2", "1.3", EXPLICIT) + data))
    assert Dataset(read) == identifier()


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_of_every_form_decode(name: str) -> None:
    dataset = decode_data_set(UID_VALUE + SEQUENCES[name] + AFTER, EXPLICIT)
    assert dataset.PatientID == "AB"
    value = dataset[0x00081115].value
    if name == "of fragments":
        assert value == (ITEM + b"\x04\0\0\0\xff\xd8\xff\xd9") * 2
        return
    if name not in ("that is empty", "nested"):
        assert value[0].SOPInstanceUID == "1.2"
    for cut in range(1, len(SEQUENCES[name])):
        with pytest.raises(DataSetError):
            decode_data_set(SEQUENCES[name][:cut], EXPLICIT)


GROUP_2 = part10_head("1.2", "1.3", EXPLICIT)[132:]


@pytest.mark.parametrize("transfer_syntax", NATIVE)
def test_group_2_in_front_of_a_data_set_is_dropped(transfer_syntax: str) -> None:
    dataset = identifier()
    plain = encode_data_set(dataset, EXPLICIT if transfer_syntax == DEFLATED else transfer_syntax)
    data = GROUP_2 + plain
    if transfer_syntax == DEFLATED:
        deflater = zlib.compressobj(wbits=-15)
        data = deflater.compress(data) + deflater.flush()
    assert decode_data_set(data, transfer_syntax) == dataset


def test_group_2_in_implicit_vr_is_dropped() -> None:
    data = b"\x02\0\x10\0\x12\0\0\x001.2.840.10008.1.2\0" + encode_data_set(identifier(), IMPLICIT)
    assert decode_data_set(data, IMPLICIT) == identifier()


def test_groups_0_and_2_are_never_encoded_and_the_data_set_keeps_them() -> None:
    dataset = identifier()
    dataset.add_new(0x00000900, "US", 0)
    dataset.add_new(0x00020010, "UI", EXPLICIT)
    assert decode_data_set(encode_data_set(dataset, IMPLICIT), IMPLICIT) == identifier()
    assert 0x00000900 in dataset
    assert 0x00020010 in dataset


def test_explicit_vr_where_implicit_was_agreed_is_understood() -> None:
    assert decode_data_set(encode_data_set(identifier(), EXPLICIT), IMPLICIT) == identifier()


def test_a_long_list_of_uids_is_not_mistaken_for_explicit_vr() -> None:
    # 0x4E55 bytes: as an implicit length its octets spell "UN".
    value = b"1.2\\" * (0x4E55 // 4) + b"\0"
    data = b"\x08\0\x18\0" + struct.pack("<I", len(value)) + value
    assert data[4:6] == b"UN"
    assert len(decode_data_set(data, IMPLICIT).SOPInstanceUID) == 0x4E55 // 4 + 1


def test_zeros_behind_the_last_element_are_padding_and_nothing_else_is() -> None:
    assert decode_data_set(UID_VALUE + b"\0", EXPLICIT).SOPInstanceUID == "1.2"
    assert decode_data_set(UID_VALUE + b"\0\0\0", EXPLICIT).SOPInstanceUID == "1.2"
    with pytest.raises(DataSetError, match="3 bytes are left"):
        decode_data_set(UID_VALUE + b"abc", EXPLICIT)


def test_a_list_of_failed_instances_over_64_kib_is_sent_as_un_and_read_back() -> None:
    uids = [f"1.2.840.10008.{i}" for i in range(9000)]
    dataset = Dataset()
    dataset.FailedSOPInstanceUIDList = uids
    data = encode_data_set(dataset, EXPLICIT)
    assert data[:8] == b"\x08\0\x58\0UN\0\0"
    assert list(decode_data_set(data, EXPLICIT).FailedSOPInstanceUIDList) == uids


def test_an_unknown_value_in_big_endian_is_little_endian_as_the_standard_says() -> None:
    data = b"\x00\x28\x00\x10UN\0\0\0\0\0\x02" + struct.pack("<H", 512)
    assert decode_data_set(data, BIG).Rows == 512


def test_pixel_representation_decides_inside_of_items_too() -> None:
    data = (
        b"\x28\0\x03\x01\x02\0\0\0\x01\0"
        + (b"\x28\0\x10\x30" + UNDEFINED + ITEM + UNDEFINED + b"\x28\0\x06\x01\x02\0\0\0\xfe\xff" + ITEM_END)
        + SEQUENCE_END
    )
    item = decode_data_set(data, IMPLICIT)[0x00283010].value[0]
    assert item.SmallestImagePixelValue == -2
    assert item[0x00280106].VR == "SS"


def test_a_private_sequence_that_pydicom_knows_is_decoded(test_files: Path) -> None:
    data, transfer_syntax = data_set_of(test_files / "nested_priv_SQ.dcm")
    dataset = decode_data_set(data, transfer_syntax)
    assert dataset[0x00010001].value[0][0x00010001].value[0][0x00010001].value == b"Double Nested SQ"


def test_a_sequence_in_a_private_element_of_unknown_vr_is_found_by_its_creator() -> None:
    item = ITEM + b"\x0c\0\0\0" + b"\x08\0\x18\0\x04\0\0\x001.2\0"
    data = b"\x29\0\x10\0LO\x12\0SIEMENS CSA HEADER" + b"\x29\0\x40\x10UN\0\0" + struct.pack("<I", len(item)) + item
    vr = decode_data_set(data, EXPLICIT)[0x00291040].VR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pydicom.dcmread(io.BytesIO(GROUP_2[:0] + part10_head("1.2", "1.3", EXPLICIT) + data))
    assert vr == expected[0x00291040].VR


# Values that are not what their VR says ---------------------------------------------------------------------------

ODD = {
    "a word for a number": (b"\x20\0\x13\0IS\x04\0word", "word"),
    "a fraction for an integer": (b"\x20\0\x13\0IS\x04\x001.5 ", "1.5"),
    "letters in a UID": (b"\x08\0\x18\0UI\x04\0abc ", "abc"),
    "an impossible date": (b"\x08\0\x20\0DA\x08\x0020209999", "20209999"),
    "a long code string": (b"\x08\0\x60\0CS\x14\0" + b"x" * 20, "x" * 20),
    "bytes outside of the character set": (b"\x10\0\x20\0LO\x02\0\xff\xfe", "\xff\xfe"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_kept_without_a_warning_or_a_word_in_the_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, value = ODD[name]
    caplog.set_level(logging.DEBUG)
    dataset = decode_data_set(data, EXPLICIT)
    (element,) = dataset
    assert str(element.value) == value
    encode_data_set(dataset, EXPLICIT)
    assert not caplog.records


def test_bad_escapes_in_text_are_replaced_and_never_fail() -> None:
    data = b"\x08\0\x05\0CS\x22\0ISO 2022 IR 6\\ISO 2022 IR 87      \x10\0\x10\0PN\x08\0A\x1b$B\xff\x1b$Z"
    assert str(decode_data_set(data, EXPLICIT).PatientName).startswith("A")


@pytest.mark.parametrize("codec", [b"idna", b"zlib", b"punycode", b"unicode_escape", b"nonsense"])
def test_a_peer_cannot_choose_among_the_codecs_of_python(codec: bytes) -> None:
    codec += b" " * (len(codec) % 2)
    data = b"\x08\0\x05\0CS" + struct.pack("<H", len(codec)) + codec + b"\x10\0\x20\0LO\x08\0\\x41bc\xe9 "
    assert decode_data_set(data, EXPLICIT)[0x00100020].value == ["", "x41bc\xe9"]


def test_text_is_decoded_by_its_character_set_in_items_too(test_files: Path) -> None:
    folder = test_files.parent / "charset_files"
    for path in dicom_files(folder):
        data, transfer_syntax = data_set_of(path)
        assert decode_data_set(data, transfer_syntax) == reference(path), path.name


# Hostile data -----------------------------------------------------------------------------------------------------


def _nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = b"\x08\0\x15\x11" + struct.pack("<I", len(data) + 8) + ITEM + struct.pack("<I", len(data)) + data
    return data


HOSTILE = {
    "10 000 nested sequences": ((b"\x08\0\x15\x11SQ\0\0" + UNDEFINED + ITEM + UNDEFINED) * 10_000, EXPLICIT, "nested"),
    "nested, implicit": ((b"\x08\0\x15\x11" + UNDEFINED + ITEM + UNDEFINED) * 10_000, IMPLICIT, "nested"),
    "nested, UN": ((b"\x08\0\x15\x11UN\0\0" + UNDEFINED + ITEM + UNDEFINED) * 10_000, EXPLICIT, "nested"),
    "nested, of defined length": (_nested(2_000), IMPLICIT, "nested"),
    "4 GiB in an element": (b"\x08\0\x18\0UI\0\0\x10\0\x10\0OB\0\0\xfe\xff\xff\xff", EXPLICIT, "4294967294 bytes"),
    "4 GiB in an implicit element": (b"\x10\0\x10\0\xfe\xff\xff\xff", IMPLICIT, "4294967294 bytes"),
    "4 GiB in an item": (b"\x08\0\x15\x11" + UNDEFINED + ITEM + b"\xfe\xff\xff\xff", IMPLICIT, "4294967294 bytes"),
    "4 GiB in a fragment": (b"\xe0\x7f\x10\0OB\0\0" + UNDEFINED + ITEM + b"\xfe\xff\xff\xff", JPEG, "delimiter"),
    "too many elements": (b"\x08\0\x15\x10\0\0\0\0" * 600_000, IMPLICIT, "500000 elements"),
    "too many items": (b"\x08\0\x15\x11" + UNDEFINED + (ITEM + b"\0\0\0\0") * 200_000, IMPLICIT, "500000 elements"),
    "an item without a sequence": (ITEM_END, EXPLICIT, "none has begun"),
    "no item in a sequence": (b"\x08\0\x15\x11SQ\0\0" + UNDEFINED + UID_VALUE, EXPLICIT, "item is due"),
    "an undefined length where none can be": (b"\x08\0\x18\0UT\0\0" + UNDEFINED + SEQUENCE_END, EXPLICIT, "undefined"),
    "an unknown VR": (b"\x08\0\x18\0ZZ\x04\x001.2\0", EXPLICIT, "unknown VR"),
    "half a number": (b"\x28\0\x10\0US\x03\0abc", EXPLICIT, r"\(0028,0010\) has 3 bytes"),
    "half a header": (b"\x28\0\x10\0US", EXPLICIT, "6 bytes are left"),
    "a header without its length": (b"\x28\0\x10\0OB\0\0\0", EXPLICIT, "length"),
    "a character set of 64 KiB": (b"\x08\0\x05\0CS\xfe\xff" + b"\\" * 0xFFFE, EXPLICIT, "Character Set"),
    "no deflate": (b"\xff" * 100, DEFLATED, "damaged"),
    "half of a deflated data set": (zlib.compress(UID_VALUE * 10, wbits=-15)[:8], DEFLATED, "incomplete"),
    "nothing deflated": (b"", DEFLATED, "incomplete"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_data_are_refused(name: str) -> None:
    data, transfer_syntax, message = HOSTILE[name]
    with pytest.raises(DataSetError, match=message) as caught:
        decode_data_set(data, transfer_syntax)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["nested", "nested, implicit", "4 GiB"])
def test_refusing_takes_no_memory(name: str) -> None:
    for key, (data, transfer_syntax, _) in HOSTILE.items():
        if not key.startswith(name):
            continue
        tracemalloc.start()
        try:
            with pytest.raises(DataSetError):
                decode_data_set(data, transfer_syntax)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


def test_a_deflate_bomb_is_refused_in_bounded_memory() -> None:
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(256)) + deflater.flush()
    limits = DataSetLimits(inflated=32 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DataSetError, match="inflates to more than"):
            decode_data_set(bomb, DEFLATED, limits=limits)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(DataSetError, match="inflates to more than"):
        inflate(bomb, DataSetLimits(inflated=None, inflate_ratio=100))
    assert len(inflate(bomb, DataSetLimits(inflated=None, inflate_ratio=None))) == 256 << 20


def test_a_small_data_set_may_inflate_as_much_as_it_likes() -> None:
    data = UID_VALUE + b"\xe0\x7f\x10\0OB\0\0" + struct.pack("<I", 4 << 20) + bytes(4 << 20)
    assert len(decode_data_set(zlib.compress(data, 9, wbits=-15), DEFLATED).PixelData) == 4 << 20


def test_the_limits_count() -> None:
    data = encode_data_set(identifier(), EXPLICIT)
    assert decode_data_set(data, EXPLICIT, limits=DataSetLimits(elements=12, nesting=1))
    with pytest.raises(DataSetError, match="more than 11 elements"):
        decode_data_set(data, EXPLICIT, limits=DataSetLimits(elements=11))
    with pytest.raises(DataSetError, match="deeper than 0"):
        decode_data_set(data, EXPLICIT, limits=DataSetLimits(nesting=0))


def test_64_levels_of_sequences_are_fine_and_65_are_not() -> None:
    assert decode_data_set(_nested(64), IMPLICIT)
    with pytest.raises(DataSetError, match="deeper than 64"):
        decode_data_set(_nested(65), IMPLICIT)


@pytest.mark.parametrize("tag", [b"\x20\0\x13\0", b"\x08\0\x18\0", b"\x10\0\x10\0", b"\x28\0\x10\0"])
def test_a_value_with_a_million_parts_is_left_for_whoever_looks_at_it(tag: bytes) -> None:
    value = b"1\\" * 1_000_000
    tracemalloc.start()
    try:
        dataset = decode_data_set(tag + struct.pack("<I", len(value)) + value, IMPLICIT)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert len(dataset) == 1


@given(st.binary(max_size=300), st.sampled_from([*NATIVE, JPEG, "1.2.3"]))
def test_random_bytes_are_a_data_set_or_an_error(data: bytes, transfer_syntax: str) -> None:
    try:
        dataset = decode_data_set(data, transfer_syntax)
        encode_data_set(dataset, transfer_syntax)
    except DataSetError:
        pass


@settings(deadline=None)
@given(st.data())
def test_real_data_with_random_damage_are_a_data_set_or_an_error(data: st.DataObject) -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    name = data.draw(st.sampled_from(["nested_priv_SQ.dcm", "UN_sequence.dcm", "reportsi.dcm", "rtplan.dcm"]))
    encoded, transfer_syntax = data_set_of(folder / name)
    damaged = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        damaged = damaged or bytearray(b"\0")
    try:
        dataset = decode_data_set(bytes(damaged), transfer_syntax)
        for element in dataset.iterall():
            assert element.tag is not None
        encode_data_set(dataset, transfer_syntax)
    except DataSetError:
        pass


# Encoding ---------------------------------------------------------------------------------------------------------


def test_an_error_of_encoding_names_the_element_and_not_its_value() -> None:
    dataset = Dataset()
    dataset.PatientName = "Doe^Jane"
    dataset.Rows = 512
    dataset["Rows"]._value = "Doe^Jane"
    with pytest.raises(DataSetError, match=r"\(0028,0010\)") as caught:
        encode_data_set(dataset, EXPLICIT)
    assert "Doe" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_number_that_does_not_fit_is_an_error_of_encoding() -> None:
    dataset = Dataset()
    dataset.add_new("Rows", "US", 7)
    dataset["Rows"]._value = 70_000
    with pytest.raises(DataSetError, match=r"\(0028,0010\)"):
        encode_data_set(dataset, IMPLICIT)


def test_a_data_set_inside_of_itself_is_an_error_of_encoding() -> None:
    dataset = Dataset()
    dataset.ReferencedStudySequence = Sequence([dataset])
    with pytest.raises(DataSetError, match="RecursionError"):
        encode_data_set(dataset, EXPLICIT)


def test_text_outside_of_the_character_set_is_encoded_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 6"
    dataset.PatientName = "Yamada^\u592a\u90ce"
    encode_data_set(dataset, EXPLICIT)
    assert not caplog.records


def test_compressed_pixel_data_need_a_compressed_transfer_syntax() -> None:
    dataset = Dataset()
    dataset.add_new(0x7FE00010, "OB", encapsulate([b"\xff\xd8\xff\xd9"]))
    data = encode_data_set(dataset, JPEG)
    assert data[:12] == b"\xe0\x7f\x10\0OB\0\0" + UNDEFINED
    assert decode_data_set(data, JPEG).PixelData == dataset.PixelData
    for transfer_syntax in NATIVE:
        with pytest.raises(DataSetError, match="compressed"):
            encode_data_set(dataset, transfer_syntax)


def test_the_meta_header_of_a_decoded_data_set_lets_pydicom_save_it(tmp_path: Path, test_files: Path) -> None:
    data, transfer_syntax = data_set_of(test_files / "CT_small.dcm")
    dataset = decode_data_set(data, transfer_syntax)
    with_file_meta(dataset, dataset.SOPClassUID, dataset.SOPInstanceUID, transfer_syntax)
    dataset.save_as(tmp_path / "file", enforce_file_format=True)
    again = pydicom.dcmread(tmp_path / "file")
    assert again.file_meta.TransferSyntaxUID == transfer_syntax
    assert again.file_meta.ImplementationClassUID == sop.IMPLEMENTATION_CLASS_UID
    assert again.PixelData == dataset.PixelData


def test_pydicom_is_loaded_by_decoding_only(tmp_path: Path) -> None:
    program = (
        "import sys, asyncdicom.dataset as d\n"
        "d.save(sys.argv[1], d.part10_head('1.2', '1.3', '1.2.840.10008.1.2.1'), [b''])\n"
        "d.FileSource.open(sys.argv[1]).close(); d.scan(b'', '1.2.840.10008.1.2')\n"
        "assert 'pydicom' not in sys.modules\n"
        "d.decode_data_set(b'', '1.2.840.10008.1.2')\n"
        "assert 'pydicom' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], check=True)
