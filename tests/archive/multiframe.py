"""Multi-frame instances for the tests of frame extraction: made up, and a naive way to get at their frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from struct import pack

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from asyncdicom import sop
from asyncdicom.archive.frames import ExtractedInstance, FrameSelection, extract_frames
from asyncdicom.dataset import decode_data_set, encode_data_set, part10_head

NEW_UID = "1.2.826.0.1.3680043.9.9999.1"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.3.1"
NATIVE = (
    sop.IMPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_BIG_ENDIAN,
    sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)


def described(total: int, *, rows: int = 2, columns: int = 2, bits: int = 8, samples: int = 1) -> Dataset:
    """Describe a multi-frame image without its pixel data."""
    ds = Dataset()
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = ULTRASOUND
    ds.SOPInstanceUID = "1.2.3.4.5"
    ds.ContentDate = "20240229"
    ds.ContentTime = "101112.5"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "4711"
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.3.4"
    ds.InstanceNumber = 7
    ds.SamplesPerPixel = samples
    ds.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples > 1:
        ds.PlanarConfiguration = 0
    ds.NumberOfFrames = total
    ds.Rows = rows
    ds.Columns = columns
    ds.BitsAllocated = bits
    ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 0
    return ds


def image(total: int, **attributes: object) -> Dataset:
    """Make an image of 2x2 pixels of 8 bits; each frame holds its own number."""
    ds = described(total)
    ds.add_new(0x7FE00010, "OB", b"".join(bytes([frame % 256]) * 4 for frame in range(1, total + 1)))
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def written(path: Path, ds: Dataset, syntax: str = sop.EXPLICIT_VR_LITTLE_ENDIAN) -> Path:
    """Write a data set as a file, and return its path."""
    head = part10_head(str(ds.get("SOPClassUID", "")), str(ds.get("SOPInstanceUID", "")), syntax)
    path.write_bytes(head + encode_data_set(ds, syntax))
    return path


def with_pixels(path: Path, ds: Dataset, pixel_data: bytes, syntax: str) -> Path:
    """Write a data set as a file, behind it an element of pixel data that is encoded already."""
    head = part10_head(str(ds.SOPClassUID), str(ds.SOPInstanceUID), syntax)
    path.write_bytes(head + encode_data_set(ds, sop.EXPLICIT_VR_LITTLE_ENDIAN) + pixel_data)
    return path


def encapsulated(fragments: Iterable[bytes], table: Sequence[int] = ()) -> bytes:
    """Encode Pixel Data of fragments behind a Basic Offset Table (PS3.5 A.4)."""
    items = [pack(f"<{len(table)}I", *table), *fragments]
    body = b"".join(pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    header = pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    return header + body + pack("<HHI", 0xFFFE, 0xE0DD, 0)


def read_whole(extracted: ExtractedInstance, size: int = 65536) -> bytes:
    """Read what would be sent, in views of some size."""
    source = extracted.open_source()
    data = bytearray()
    view = bytearray(size)
    try:
        while count := source.read_into([memoryview(view)]):
            data += view[:count]
    finally:
        source.close()
    return bytes(data)


def extract(path: Path, frames: Sequence[int] | FrameSelection) -> Dataset:
    """Take frames out of a file, and decode the new instance."""
    selection = frames if isinstance(frames, FrameSelection) else FrameSelection(simple=tuple(frames))
    extracted = extract_frames(path, selection, new_uid=NEW_UID)
    return decode_data_set(read_whole(extracted), extracted.transfer_syntax_uid)


def take(tmp_path: Path, ds: Dataset, frames: Sequence[int] | FrameSelection) -> Dataset:
    """Write an instance, take frames out of it, and decode the new instance."""
    return extract(written(tmp_path / "source.dcm", ds), frames)


def items(*contents: Dataset) -> Items:
    """Make a sequence."""
    return Items(list(contents))


def item(**attributes: object) -> Dataset:
    """Make an item."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def naive_bits(value: bytes, bits: int, frame: int, *, swapped: bool = False) -> list[int]:
    """Return the bits of a native frame one by one, the slow way (PS3.5 8.1.1)."""
    if swapped:
        value = b"".join(value[at : at + 2][::-1] for at in range(0, len(value), 2))
    first = (frame - 1) * bits
    return [value[bit // 8] >> bit % 8 & 1 for bit in range(first, first + bits)]
