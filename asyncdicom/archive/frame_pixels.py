"""Find frames in pixel data, native or encapsulated, and choose some of them without touching their bytes.

Theory of operation. Native frames follow each other without gaps (PS3.5 8.1.1), so arithmetic finds them; the only trouble
is a frame that does not begin at a byte, or at a word where words were swapped. Encapsulated ones lie in fragments (PS3.5
A.4), and what says which fragments belong to which frame is not always there, or right. So all fragments are listed, and
the sources asked in turn, each believed only if it fits them: the Extended Offset Table, the Basic Offset Table, one
fragment to a frame, and at last the first bytes of the codestreams.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from struct import pack, unpack

from .. import sop
from .instance_file import (
    DOUBLE_FLOAT_PIXEL_DATA,
    FLOAT_PIXEL_DATA,
    PIXEL_DATA,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    Data,
    Element,
    Encoding,
    Level,
    Malformed,
    fragments,
)
from .segments import Packed, Range, Segment, encode_element, encode_item, merged

__all__ = ["choose_frames", "number_of_bits", "runs_of"]

EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00001, 0x7FE00002

_SAMPLES_PER_PIXEL = 0x00280002
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_ROWS, _COLUMNS, _BITS_ALLOCATED = 0x00280010, 0x00280011, 0x00280100

#: How many fragments there may be.
_FRAGMENTS = 1 << 21

#: Bits of a pixel of three samples whose chrominance is shared with neighbours, as multiples of Bits Allocated (PS3.3
#: C.7.6.3.1.2).
_SUBSAMPLED = {"YBR_FULL_422": 2.0, "YBR_PARTIAL_422": 2.0, "YBR_PARTIAL_420": 1.5}

#: Transfer syntaxes in which frames depend on each other, or are not in the instance: JPEG 2000 Part 2 multi-component,
#: JPIP, MPEG, HEVC; the fragmentable variants of these have a further component.
_INSEPARABLE = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (*range(92, 96), *range(100, 109), 204, 205))

#: What a codestream of JPEG, JPEG-LS, JPEG 2000 (bare or in a JP2 box), JPEG XL begins with.
_BEGINNINGS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0c", b"\xff\x0a")


def runs_of(frames: Sequence[int], bits: int) -> list[tuple[int, int]]:
    """Return where frames lie that follow each other without gaps: first bit and number of bits of each run.

    :param frames: their numbers, from 1, ascending.
    :param bits: of a frame.
    """
    runs: list[tuple[int, int]] = []
    for frame in frames:
        first = (frame - 1) * bits
        if runs and sum(runs[-1]) == first:
            runs[-1] = (runs[-1][0], runs[-1][1] + bits)
        else:
            runs.append((first, bits))
    return runs


def number_of_bits(root: Level, pixels: Element, total: int) -> int:
    """Return how many bits a native frame has.

    :raises Malformed: the attributes that tell are missing or make no sense.
    """

    def number(tag: int) -> int:
        return next(iter(root.numbers(tag, "H")), 0)

    size = number(_ROWS) * number(_COLUMNS)
    allocated = {FLOAT_PIXEL_DATA: 32, DOUBLE_FLOAT_PIXEL_DATA: 64}.get(pixels.tag) or number(_BITS_ALLOCATED)
    samples = number(_SAMPLES_PER_PIXEL) or 1
    bits = size * allocated * samples
    if not bits:
        raise Malformed("Rows, Columns or Bits Allocated is missing")
    share = _SUBSAMPLED.get(root.text(_PHOTOMETRIC_INTERPRETATION))
    if share is not None and samples == 3:
        # Some writers name the interpretation and do not subsample: their pixel data are too long for it.
        length = pixels.stop - pixels.value
        if length < (total * bits + 7) // 8:
            bits = int(size * allocated * share)
    return bits


def _native(root: Level, pixels: Element, frames: Sequence[int], total: int) -> list[Segment]:
    if pixels.stop < 0:
        raise Malformed("the pixel data of a native instance are encapsulated")
    bits = number_of_bits(root, pixels, total)
    length = pixels.stop - pixels.value
    if (frames[-1] * bits + 7) // 8 > length:
        raise Malformed(f"the pixel data have {length} bytes, less than {frames[-1]} frames")
    allocated = next(iter(root.numbers(_BITS_ALLOCATED, "H")), 0)
    # OB and UN are strings of bytes whatever the byte order is; wider pixels are never cut in two.
    swapped = not root.encoding.little and pixels.vr == b"OW" and allocated <= 8
    runs = runs_of(frames, bits)
    value: list[Segment]
    if bits % (16 if swapped else 8):
        value = [Packed(pixels.value, pixels.stop, tuple(runs), swapped)]
    else:
        value = [Range(pixels.value + first // 8, pixels.value + (first + count) // 8) for first, count in runs]
    return encode_element(pixels.tag, pixels.vr or b"OW", value, root.encoding)


class _Fragments:
    """The fragments of encapsulated pixel data.

    :ivar table: the item of the Basic Offset Table.
    :ivar starts: where each fragment's item begins, and where the delimiter of all is.
    """

    def __init__(self, data: Data, pixels: Element, *, little: bool) -> None:
        self.data = data
        items = fragments(data, pixels.value, little=little, most=_FRAGMENTS)
        table = next(items, None)
        if table is None:
            raise Malformed("the pixel data have no Basic Offset Table")
        self.table = table
        self.starts = array("Q", [table.end])
        for item in items:
            self.starts.append(item.end)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def table_offsets(self) -> Sequence[int]:
        """Return what the Basic Offset Table says."""
        size = self.table.stop - self.table.value
        if size > 4 * len(self) or size % 4:
            return ()  # a frame has a fragment at least
        return unpack(f"<{size // 4}I", self.data.read(self.table.value, size))

    def firsts(self, offsets: Sequence[int], total: int) -> Sequence[int] | None:
        """Return the first fragment of each frame as *offsets* tell it; ``None`` if they do not fit."""
        if len(offsets) != total or not total or offsets[0] != 0:
            return None
        found = array("Q")
        fragment, base = 0, self.starts[0]
        for offset in offsets:
            while fragment < len(self) and self.starts[fragment] - base < offset:
                fragment += 1
            if fragment == len(self) or self.starts[fragment] - base != offset or (found and found[-1] == fragment):
                return None
            found.append(fragment)
        return found

    def beginnings(self, total: int) -> Sequence[int] | None:
        """Return the fragments that a codestream begins in, ``None`` if there is not one for each frame."""
        found = array("Q")
        for fragment in range(len(self)):
            if self.data.read(self.starts[fragment] + 8, 4).startswith(_BEGINNINGS):
                found.append(fragment)
        return found if len(found) == total and found[0] == 0 else None


def _encapsulated(
    root: Level, pixels: Element, frames: Sequence[int], total: int, transfer_syntax: str
) -> tuple[list[Segment], dict[int, list[Segment] | None]]:
    if pixels.stop >= 0:
        raise Malformed("the pixel data of a compressed instance are not encapsulated")
    found = _Fragments(root.data, pixels, little=root.encoding.little)
    if len(frames) == total:
        return [Range(pixels.start, found.starts[-1] + 8)], {}
    if any(transfer_syntax == uid or transfer_syntax.startswith(uid + ".") for uid in _INSEPARABLE):
        raise Malformed(f"frames cannot be taken out of {sop.transfer_syntax(transfer_syntax).name or transfer_syntax}")
    extended = firsts = found.firsts(root.numbers(EXTENDED_OFFSET_TABLE, "Q"), total)
    basic = False
    if firsts is None:
        firsts = found.firsts(found.table_offsets(), total)
        basic = firsts is not None
    if firsts is None and len(found) == total:
        firsts = range(total)
    if firsts is None:
        firsts = found.beginnings(total)
    if firsts is None:
        raise Malformed(f"{len(found)} fragments, and nothing tells where each of {total} frames begins")

    def range_of(frame: int) -> Range:
        end = firsts[frame] if frame < total else len(found)
        return Range(found.starts[firsts[frame - 1]], found.starts[end])

    ranges = [range_of(frame) for frame in frames]
    offsets = [0]
    for chosen in ranges[:-1]:
        offsets.append(offsets[-1] + chosen.end - chosen.start)
    plain = Encoding(explicit=False, little=root.encoding.little)
    table = pack(f"<{len(offsets)}I", *offsets) if basic and offsets[-1] < UNDEFINED else b""
    content: list[Segment] = [*encode_item([table], plain), *ranges]
    updates: dict[int, list[Segment] | None] = {EXTENDED_OFFSET_TABLE: None, EXTENDED_OFFSET_TABLE_LENGTHS: None}
    lengths = root.numbers(EXTENDED_OFFSET_TABLE_LENGTHS, "Q")
    if extended is not None and len(lengths) == total:
        code = f"{'<' if root.encoding.little else '>'}{len(frames)}Q"
        of_frames = [lengths[frame - 1] for frame in frames]
        for tag, values in ((EXTENDED_OFFSET_TABLE, offsets), (EXTENDED_OFFSET_TABLE_LENGTHS, of_frames)):
            updates[tag] = encode_element(tag, b"OV", pack(code, *values), root.encoding)
    return _undefined(pixels, content, root.encoding), updates


def _undefined(pixels: Element, content: Sequence[Segment], encoding: Encoding) -> list[Segment]:
    """Encode pixel data of undefined length, which are always in an explicit VR (PS3.5 A.4)."""
    order = "<" if encoding.little else ">"
    header = pack(f"{order}HH2sHI", PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF, pixels.vr or b"OB", 0, UNDEFINED)
    end = pack(f"{order}HHI", SEQUENCE_DELIMITER >> 16, SEQUENCE_DELIMITER & 0xFFFF, 0)
    return merged([header, *content, end])


def choose_frames(
    root: Level, pixels: Element, frames: Sequence[int], total: int, transfer_syntax: str
) -> tuple[list[Segment], dict[int, list[Segment] | None]]:
    """Make a Pixel Data element of some frames, as they are.

    :param root: the attributes before the pixel data.
    :param pixels: where the pixel data of the source are.
    :param frames: numbers, from 1, ascending.
    :param total: how many frames the source has.
    :param transfer_syntax: of the source.
    :return: the segments of the element; and what becomes of other elements that describe the encapsulation.
    :raises Malformed: the frames cannot be found.
    """
    if sop.transfer_syntax(transfer_syntax).is_native:
        return _native(root, pixels, frames, total), {}
    return _encapsulated(root, pixels, frames, total, transfer_syntax)
