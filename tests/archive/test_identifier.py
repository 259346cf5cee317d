"""The hand-made codec against pydicom, and against bytes that no one should send."""

from __future__ import annotations

import time
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

from asyncdicom.archive.identifier import (
    Attributes,
    Element,
    Value,
    decode_data_set,
    decode_head,
    decode_text,
    encode_identifier,
    encodings_of,
    from_dataset,
)
from asyncdicom.exceptions import DataSetError

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"

#: transfer syntax -> (implicit VR, little endian)
SYNTAXES = {IMPLICIT: (True, True), EXPLICIT: (False, True), DEFLATED: (False, True), BIG: (False, False)}

CHARSET_FILES = Path(pydicom.__file__).parent / "data" / "charset_files"


def written_by_pydicom(ds: Dataset, transfer_syntax: str) -> bytes:
    implicit, little = SYNTAXES[transfer_syntax]
    stream = pydicom.filebase.DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = implicit, little
    write_dataset(stream, ds)
    data = stream.getvalue()
    if transfer_syntax != DEFLATED:
        return data
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def read_by_pydicom(data: bytes, transfer_syntax: str) -> Dataset:
    implicit, little = SYNTAXES[transfer_syntax]
    if transfer_syntax == DEFLATED:
        assert len(data) % 2 == 0
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        data = inflater.decompress(data)
    return read_dataset(BytesIO(data), implicit, little)


def example() -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyDate = "20240229"
    ds.AccessionNumber = ""
    ds.ModalitiesInStudy = ["CT", "SR"]
    ds.ReferringPhysicianName = "Müller^Jörg"
    ds.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    ds.PatientComments = "one\\two  "
    ds.SliceThickness = "1.50"
    ds.SimpleFrameList = [1, 2, 0xFFFFFFFF]
    ds.StudyInstanceUID = "1.2.3"
    ds.Rows = 512
    ds.FrameIncrementPointer = [0x00181063, 0x00181065]
    ds.RedPaletteColorLookupTableDescriptor = [256, 0, 16]
    item = Dataset()
    item.ScheduledProcedureStepID = "SPS 1"
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "T-1", "Thorax"
    item.ScheduledProtocolCodeSequence = [inner, Dataset()]
    ds.RequestAttributesSequence = [item, Dataset()]
    ds.ReferencedStudySequence = []
    ds.DiffusionBValue = 0.5
    return ds


def values_of(ds: Dataset) -> Attributes:
    """Say by naive means what the decoder should find."""
    return {int(e.tag): Element(e.VR[:2], plain(e.value, e.VR[:2])) for e in ds}


def plain(value: Any, vr: str) -> Value:
    if vr == "SQ":
        return [values_of(item) for item in value]
    if vr in ("US", "UL", "AT", "FD", "FL", "SS", "SL"):
        return (
            [v if vr[0] == "F" else int(v) for v in value]
            if isinstance(value, list | pydicom.multival.MultiValue)
            else value
        )
    if isinstance(value, pydicom.multival.MultiValue):
        return [plain(v, vr) for v in value]  # type: ignore[return-value]
    text = getattr(value, "original_string", value)
    text = (str(value) if not isinstance(text, str) else text).rstrip()
    return text.rstrip("=") if vr == "PN" else text  # pydicom does not keep empty component groups at the end


def test_the_values_that_a_data_set_is_decoded_to() -> None:
    found = decode_data_set(written_by_pydicom(example(), EXPLICIT), EXPLICIT)
    assert found[0x00080008] == Element("CS", ["ORIGINAL", "PRIMARY", "AXIAL"])
    assert found[0x00080050] == Element("SH", "")
    assert found[0x00100010] == Element("PN", "Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert found[0x00104000] == Element("LT", "one\\two")
    assert found[0x00180050] == Element("DS", "1.50")
    assert found[0x00081161] == Element("UL", [1, 2, 0xFFFFFFFF])
    assert found[0x00280009] == Element("AT", [0x00181063, 0x00181065])
    assert found[0x00280010] == Element("US", 512)
    assert found[0x00081110] == Element("SQ", [])
    assert found[0x00189087] == Element("FD", 0.5)
    items = found[0x00400275].value
    assert items == [
        {
            0x00400008: Element("SQ", [{0x00080100: Element("SH", "T-1"), 0x00080104: Element("LO", "Thorax")}, {}]),
            0x00400009: Element("SH", "SPS 1"),
        },
        {},
    ]


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_pydicom_and_the_decoder_read_the_same(transfer_syntax: str) -> None:
    assert decode_data_set(written_by_pydicom(example(), transfer_syntax), transfer_syntax) == values_of(example())
    assert from_dataset(example()) == values_of(example())


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_what_is_encoded_is_what_pydicom_reads(transfer_syntax: str) -> None:
    elements = [(tag, e.vr, e.value) for tag, e in from_dataset(example()).items()]
    data = encode_identifier(reversed(elements), transfer_syntax)
    assert values_of(read_by_pydicom(data, transfer_syntax)) == values_of(example())
    assert decode_data_set(data, transfer_syntax) == from_dataset(example())


def test_undefined_lengths_are_read() -> None:
    ds = example()
    ds["RequestAttributesSequence"].is_undefined_length = True
    for item in ds.RequestAttributesSequence:
        item.is_undefined_length_sequence_item = True
    for transfer_syntax in (IMPLICIT, EXPLICIT, BIG):
        assert decode_data_set(written_by_pydicom(ds, transfer_syntax), transfer_syntax) == values_of(example())


GOLDEN = [
    ("PN", 0x00100010, "A^B", b"\x10\x00\x10\x00PN\x04\x00A^B "),
    ("UI", 0x0020000D, "1.2", b"\x20\x00\x0d\x00UI\x04\x001.2\x00"),
    ("US", 0x00280010, 258, b"\x28\x00\x10\x00US\x02\x00\x02\x01"),
    ("UT", 0x00189073, "x", b"\x18\x00\x73\x90UT\x00\x00\x02\x00\x00\x00x "),
    ("UN", 0x00091001, "", b"\x09\x00\x01\x10UN\x00\x00\x00\x00\x00\x00"),
    ("CS", 0x00080061, ["CT", "PT"], b"\x08\x00\x61\x00CS\x06\x00CT\\PT "),
    ("IS", 0x00201206, 12, b"\x20\x00\x06\x12IS\x02\x0012"),
    ("SQ", 0x00400275, [{}], b"\x40\x00\x75\x02SQ\x00\x00\x08\x00\x00\x00\xfe\xff\x00\xe0\x00\x00\x00\x00"),
    ("LO", 0x00081030, "\x1b", b"\x08\x00\x30\x10LO\x02\x00\x1b "),
]


@pytest.mark.parametrize(("vr", "tag", "value", "data"), GOLDEN)
def test_single_elements_are_encoded_like_this(vr: str, tag: int, value: Value, data: bytes) -> None:
    assert encode_identifier([(tag, vr, value)], EXPLICIT) == data


CHARSETS = [
    ("Buc^Jerome", None, "", b"Buc^Jerome"),
    ("Buc^Jérôme", None, "ISO_IR 100", "Buc^Jérôme".encode("latin-1")),
    ("王^小東", None, "ISO_IR 192", "王^小東".encode()),
    ("Buc^Jérôme", "ISO_IR 192", "ISO_IR 192", "Buc^Jérôme".encode()),
    ("Buc", "ISO_IR 100", "ISO_IR 100", b"Buc"),
]


@pytest.mark.parametrize(("name", "asked", "term", "raw"), CHARSETS)
def test_the_first_character_set_that_suffices_is_taken(name: str, asked: str | None, term: str, raw: bytes) -> None:
    data = encode_identifier([(0x00080005, "CS", "GB18030"), (0x00100010, "PN", name)], EXPLICIT, asked)
    ds = read_by_pydicom(data, EXPLICIT)
    assert ds.get("SpecificCharacterSet", "") == term
    assert ds.PatientName == name
    assert raw in data


def test_a_character_set_that_does_not_suffice_is_refused() -> None:
    for charset in ("", "ISO_IR 100", "ISO 2022 IR 87"):
        with pytest.raises(DataSetError, match=r"character set|encoded in"):
            encode_identifier([(0x00100010, "PN", "山田")], EXPLICIT, charset)


def test_a_value_over_64_kib_is_sent_as_un() -> None:
    uids = [f"1.2.{n}" for n in range(20_000)]
    data = encode_identifier([(0x00080058, "UI", uids)], EXPLICIT)
    assert data[4:8] == b"UN\0\0"
    assert decode_data_set(data, EXPLICIT) == {0x00080058: Element("UI", uids)}
    assert decode_data_set(encode_identifier([(0x00080058, "UI", uids)], IMPLICIT), IMPLICIT)[0x00080058].value == uids


@pytest.mark.parametrize(
    "element", [("US", 70_000), ("US", "many"), ("FD", ["x"]), ("AT", "PatientName"), ("SQ", ["item"])]
)
def test_a_value_that_does_not_fit_its_vr_is_refused(element: tuple[str, Value]) -> None:
    with pytest.raises(DataSetError):
        encode_identifier([(0x00280010, *element)], EXPLICIT)


def test_only_native_transfer_syntaxes_encode_identifiers() -> None:
    with pytest.raises(DataSetError, match=r"1\.2\.840\.10008\.1\.2\.4\.50"):
        encode_identifier([], "1.2.840.10008.1.2.4.50")


@pytest.mark.parametrize("path", sorted(CHARSET_FILES.glob("*.dcm")), ids=lambda path: path.stem)
def test_text_of_every_character_set_is_decoded_as_pydicom_does(path: Path) -> None:
    ds = pydicom.dcmread(path)
    wanted = frozenset(
        int(e.tag) for e in ds if e.VR in ("PN", "LO", "SH", "LT", "ST", "SQ", "CS") and e.tag.group % 2 == 0
    )
    found = decode_head(data_set_of(path), ds.file_meta.TransferSyntaxUID, wanted)
    names = {
        tag: Element("PN", e.value.rstrip("=")) for tag, e in found.items() if isinstance(e.value, str) and e.vr == "PN"
    }
    assert found | names == {tag: e for tag, e in values_of(ds).items() if tag in wanted}


def data_set_of(path: Path) -> bytes:
    """Return what comes behind the File Meta Information."""
    data = path.read_bytes()
    position = 132
    while data[position : position + 2] == b"\x02\x00":
        if data[position + 4 : position + 6] == b"OB":
            position += 12 + int.from_bytes(data[position + 8 : position + 12], "little")
        else:
            position += 8 + int.from_bytes(data[position + 6 : position + 8], "little")
    return data[position:]


TEXTS = [
    ("", b"plain", "plain"),
    ("", b"J\xe9r\xf4me", "Jérôme"),
    ("ISO_IR 100", b"J\xe9r\xf4me", "Jérôme"),
    ("iso-ir 100", b"J\xe9r\xf4me", "Jérôme"),
    ("ISO_IR 192", "Жуков".encode(), "Жуков"),
    ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
    ("ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
    ("\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong=洪^吉洞"),
    ("\\ISO 2022 IR 58", b"Wang=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1\xb6\xab=", "Wang=王^小东="),
    # A Han character whose second octet is that of a backslash is one character.
    ("GB18030", "乗乚".encode("gb18030"), "乗乚"),
    # Behind a delimiter the first character set is in force again.
    ("ISO 2022 IR 100\\ISO 2022 IR 144", b"\x1b-L\xb6^J\xe9", "Ж^Jé"),
    ("nonsense", b"\xe9", "é"),
    ("ISO_IR 192", b"a\xffb", "a�b"),
    ("\\ISO 2022 IR 87", b"a\x1b$B\xff\xff\x1bZ", "a��\x1bZ"),
    ("\\ISO 2022 IR 87", b"\x1b", "\x1b"),
    ("\\ISO 2022 IR 149", b"\x1b$)C\xfb", "�"),
]


@pytest.mark.parametrize(("charset", "raw", "text"), TEXTS)
def test_text_is_decoded_to_unicode(charset: str, raw: bytes, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_text(raw, encodings_of(charset)) == text


def nested(levels: int, *, undefined: bool) -> bytes:
    data = b""
    for _ in range(levels):
        if undefined:
            item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + data + b"\xfe\xff\x0d\xe0\0\0\0\0"
            data = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
        else:
            item = b"\xfe\xff\x00\xe0" + pack("<I", len(data)) + data
            data = b"\x40\x00\x75\x02SQ\0\0" + pack("<I", len(item)) + item
    return data


MALFORMED = {
    "a header cut short": b"\x10\x00\x10\x00P",
    "a value cut short": b"\x10\x00\x10\x00PN\x08\x00A^B",
    "four gigabytes": b"\x10\x00\x10\x00UT\0\0\xfe\xff\xff\xff",
    "a sequence without its end": b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff",
    "an item without its end": b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff",
    "an item longer than its sequence": b"\x40\x00\x75\x02SQ\0\0\x08\0\0\0\xfe\xff\x00\xe0\x10\0\0\0" + b"\0" * 16,
    "an element where an item is due": b"\x40\x00\x75\x02SQ\0\0\x0c\0\0\0" + b"\x10\x00\x10\x00PN\x04\x00A^B ",
    "half a number": b"\x28\x00\x10\x00US\x03\x00abc",
    "a delimiter outside": b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\x10\x00\x10\x00PN\x04\x00A^B ",
    "a million items": b"\x40\x00\x75\x02SQ\0\0" + pack("<I", 8_000_000) + b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000,
    "nested sequences": nested(10_000, undefined=False),
    "nested sequences without lengths": nested(10_000, undefined=True),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_identifiers_are_refused(name: str) -> None:
    with pytest.raises(DataSetError):
        decode_data_set(MALFORMED[name], EXPLICIT)


@pytest.mark.parametrize("name", MALFORMED)
def test_the_head_of_a_damaged_instance_is_read_as_far_as_it_goes(name: str) -> None:
    before = encode_identifier([(0x00080018, "UI", "1.2.3")], EXPLICIT)
    found = decode_head(before + MALFORMED[name], EXPLICIT, frozenset({0x00080018, 0x00280010, 0x00400275}))
    assert found[0x00080018].value == "1.2.3"


@pytest.mark.parametrize("undefined", [False, True])
def test_values_that_are_not_wanted_are_jumped_over_however_deep(undefined: bool) -> None:
    after = encode_identifier([(0x00401001, "SH", "RP 1")], EXPLICIT)
    wanted = frozenset({0x00401001})
    assert decode_head(nested(10_000, undefined=undefined) + after, EXPLICIT, wanted)[0x00401001].value == "RP 1"


def test_a_deflate_bomb_is_bounded() -> None:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = b"\0" * (1 << 20)
    bomb = b"".join(deflater.compress(zeros) for _ in range(64)) + deflater.flush()
    with pytest.raises(DataSetError, match="deflated"):
        decode_data_set(bomb, DEFLATED)
    assert decode_head(bomb, DEFLATED, frozenset({0x00080018})) == {}
    with pytest.raises(DataSetError, match="inflated"):
        decode_data_set(b"\xff\xff\xff\xff", DEFLATED)


def test_time_is_linear_in_the_number_of_sequences() -> None:
    one = nested(1, undefined=True)
    begin = time.perf_counter()
    decode_head(one * 20_000, EXPLICIT, frozenset({0x00401001}))
    assert time.perf_counter() - begin < 2


@given(st.binary(max_size=200), st.sampled_from(list(SYNTAXES)))
def test_any_bytes_are_decoded_or_refused(data: bytes, transfer_syntax: str) -> None:
    decode_head(data, transfer_syntax, frozenset({0x00080018, 0x00400275}))
    try:
        found = decode_data_set(data, transfer_syntax)
    except DataSetError:
        return
    assert all(isinstance(tag, int) for tag in found)


_text = st.text(st.characters(codec="utf-8", exclude_characters="\\\0\x1b=^ ", exclude_categories=["Cc"]), max_size=12)


@given(
    st.fixed_dictionaries(
        {
            0x00080020: st.sampled_from(["20240101", ""]),
            0x00080061: st.lists(st.sampled_from(["CT", "MR", "SR"]), min_size=2, max_size=4),
            0x00081030: _text,
            0x00100010: _text,
            0x00280010: st.integers(0, 65535),
        }
    ),
    st.sampled_from(list(SYNTAXES)),
)
def test_encoding_and_decoding_give_back_the_same(values: dict[int, Value], transfer_syntax: str) -> None:
    vrs = {0x00080020: "DA", 0x00080061: "CS", 0x00081030: "LO", 0x00100010: "PN", 0x00280010: "US"}
    data = encode_identifier([(tag, vrs[tag], value) for tag, value in values.items()], transfer_syntax)
    found = decode_data_set(data, transfer_syntax)
    found.pop(0x00080005, None)
    assert {tag: element.value for tag, element in found.items()} == values
    ds = read_by_pydicom(data, transfer_syntax)
    assert [int(tag) for tag in ds.keys()] == sorted(int(Tag(tag)) for tag in ds.keys())  # noqa: SIM118
    assert str(ds.PatientName) == values[0x00100010]
