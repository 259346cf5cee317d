"""Reading the structure of an instance where it lies."""

from __future__ import annotations

import random
from pathlib import Path
from struct import pack

import pytest
from pydicom.dataset import Dataset

from asyncdicom import sop
from asyncdicom.archive.instance_file import Encoding, Level, Malformed, fragments, open_data, read_root
from asyncdicom.dataset import encode_data_set, read_file_head

from .multiframe import NATIVE, described, encapsulated, image, item, items, with_pixels, written

EXPLICIT = Encoding(explicit=True, little=True)
IMPLICIT = Encoding(explicit=False, little=True)
UNDEFINED = "ffffffff"


class Memory:
    """A data set in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.end = len(data)

    def read(self, offset: int, size: int, *, ahead: int = 0) -> bytes:
        return self._data[offset : offset + size]

    def close(self) -> None:
        pass


def root_of(text: str, encoding: Encoding = EXPLICIT) -> Level:
    return read_root(Memory(bytes.fromhex(text)), encoding)[0]


@pytest.mark.parametrize("syntax", NATIVE)
def test_elements_items_and_values_are_found(tmp_path: Path, syntax: str) -> None:
    inner = item(PatientName="B^C", ReferencedFrameNumber=[1, 2])
    source = image(3, FrameDisplaySequence=items(item(StartTrim=4), inner), RWaveTimeVector=[0.5, 1.5])
    file = open_data(written(tmp_path / "source.dcm", source, syntax))
    root, pixels = read_root(file.data, file.encoding)
    assert set(root.elements) == {element.tag for element in source if element.tag != 0x7FE00010}
    assert pixels is not None
    assert pixels.stop - pixels.value == 12
    assert root.text(0x00100010) == "Doe^Jane"
    assert root.texts(0x00080008) == ["ORIGINAL", "PRIMARY"]
    assert root.numbers(0x00280010, "H") == [2]
    assert root.floats(0x00186060) == [0.5, 1.5]
    first, second = root.items(0x00089458)
    assert root.within(first, root.inside(0x00089458)).text(0x00082142) == "4"
    assert root.within(second, root.inside(0x00089458)).texts(0x00081160) == ["1", "2"]
    assert (root.raw(0x00990099), root.text(0x00990099), root.items(0x00990099)) == (b"", "", [])
    assert 0x00100010 in root
    assert 0x00990099 not in root
    file.data.close()


def test_the_begin_of_encapsulated_pixel_data_is_where_reading_stops(tmp_path: Path) -> None:
    path = with_pixels(tmp_path / "source.dcm", described(2), encapsulated([b"aa", b"bb"]), sop.RLE_LOSSLESS)
    file = open_data(path)
    root, pixels = read_root(file.data, file.encoding)
    assert pixels is not None
    assert (pixels.tag, pixels.vr, pixels.stop) == (0x7FE00010, b"OB", -1)
    found = list(fragments(file.data, pixels.value, little=True, most=3))
    assert [file.data.read(part.value, part.stop - part.value) for part in found] == [b"", b"aa", b"bb"]
    with pytest.raises(Malformed):
        list(fragments(file.data, pixels.value, little=True, most=2))
    assert 0x7FE00010 not in root
    file.data.close()


NAME = "10001000 504e 0200 4142"  # (0010,0010) PN "AB"
IMPLICIT_NAME = "10001000 02000000 4142"
ITEM, ITEM_END, END = "feff00e0", "feff0de0 00000000", "feffdde0 00000000"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"{NAME}", "AB"),
        # a writer that fell back to implicit VR
        (f"08000500 00000000 {NAME}", "AB"),
        (f"08001811 5351 0000 {UNDEFINED} {ITEM} {UNDEFINED} {NAME} {ITEM_END} {END} {NAME}", "AB"),
        # encapsulated pixel data of an icon
        (f"88000002 5351 0000 {UNDEFINED} {ITEM} {UNDEFINED} e07f1000 4f42 0000 {UNDEFINED} {ITEM} 00000000 {END}"
         f"{ITEM_END} {END} 88003001 504e 0200 4142", ""),
        # UN with items in implicit VR, and of a writer that did not know
        (f"09001810 554e 0000 {UNDEFINED} {ITEM} {UNDEFINED} {IMPLICIT_NAME} {ITEM_END} {END} {NAME}", "AB"),
        (f"09001810 554e 0000 {UNDEFINED} {ITEM} {UNDEFINED} {NAME} {ITEM_END} {END} {NAME}", "AB"),
        # the same tag twice
        (f"{NAME} 10001000 504e 0200 5858", "AB"),
        # padding behind
        (f"{NAME} 00000000", "AB"),
    ],
)  # fmt: skip
def test_oddities_of_the_field_are_read(text: str, name: str) -> None:
    root = root_of(text)
    assert root.text(0x00100010) == name
    assert root.text(0x00880130) == ("" if name else "AB")


@pytest.mark.parametrize(
    "text",
    [
        "10001000 504e ff00 4142",  # longer than what is there
        "10001000 4f42 0000",  # ends inside a header
        f"08001811 5351 0000 {UNDEFINED} {NAME}",  # no item
        f"08001811 5351 0000 {UNDEFINED} {ITEM} {UNDEFINED} {NAME}",  # no end
        f"08001811 5351 0000 {UNDEFINED} {ITEM} 00000000",  # no end
        "".join(f"08001811 5351 0000 {UNDEFINED} {ITEM} {UNDEFINED}" for _ in range(70)),  # 70 levels
    ],
)
def test_what_has_no_structure_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        root_of(text)


@pytest.mark.parametrize(
    "content",
    [
        NAME,  # no item
        f"{ITEM} ff000000 {NAME}",  # longer than the sequence
        f"{ITEM} {UNDEFINED} {NAME}",  # no end inside of it
    ],
)
def test_items_that_are_not_within_their_sequence_are_malformed(content: str) -> None:
    size = len(bytes.fromhex(content))
    root = root_of(f"08001811 5351 0000 {pack('<I', size).hex()} {content} {NAME} {ITEM_END}")
    with pytest.raises(Malformed):
        root.items(0x00081118)


def test_a_delimiter_in_a_sequence_of_defined_length_is_tolerated() -> None:
    content = f"{ITEM} 0a000000 {NAME} {END}"
    root = root_of(f"08001811 5351 0000 1a000000 {content} {NAME}")
    (found,) = root.items(0x00081118)
    assert root.within(found, root.inside(0x00081118)).text(0x00100010) == "AB"


def test_values_are_read_up_to_a_limit() -> None:
    for length in ("00000002", "00020000"):  # too long; and not there, which a deflated data set tells late
        data = Memory(bytes.fromhex(f"10001000 5554 0000 {length}"))
        data.end = 1 << 40
        root, _ = read_root(data, EXPLICIT)
        with pytest.raises(Malformed):
            root.raw(0x00100010)


def test_a_deflated_data_set_is_read_in_any_order_for_its_head_and_forwards_to_be_sent(tmp_path: Path) -> None:
    plain = random.Random(5).randbytes(2 << 20)
    source = image(2)
    source.PixelData = plain
    path = written(tmp_path / "source.dcm", source, sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    whole = encode_data_set(source, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    file = open_data(path)
    assert file.deflated
    assert file.encoding == EXPLICIT
    for offset, size in ((1 << 20, 100), (0, 10), (500_000, 9), (len(whole) - 4, 100)):
        assert file.data.read(offset, size) == whole[offset : offset + size]
    file.data.close()
    again = file.again(path)
    for offset, size in ((10, 100), (10, 5), (12, 700_000), (1_500_000, 9), (len(whole) - 4, 100)):
        assert again.read(offset, size) == whole[offset : offset + size]
    again.close()
    again.close()


def test_the_head_of_a_deflated_data_set_is_limited(tmp_path: Path) -> None:
    source = Dataset()
    source.SOPClassUID, source.SOPInstanceUID = "1.2", "1.3"
    source.add_new(0x00420011, "OB", bytes(65 << 20))
    path = written(tmp_path / "source.dcm", source, sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    file = open_data(path)
    with pytest.raises(Malformed):
        read_root(file.data, file.encoding)
    file.data.close()


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "image_dfl.dcm"])
def test_the_elements_of_real_files_lie_one_behind_the_other(test_files: Path, name: str) -> None:
    file = open_data(test_files / name)
    root, pixels = read_root(file.data, file.encoding)
    assert pixels is not None
    position = 0
    for element in [*root.elements.values(), pixels]:
        assert element.start == position
        position = element.end
    if not file.deflated:
        assert position <= read_file_head(test_files / name).data_set_size
    file.data.close()
