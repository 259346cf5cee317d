"""Compose a data set of new bytes and of parts of another one, and make it while it is sent.

What is composed is a list of segments; :func:`stream` turns it into bytes, a few hundred KiB at a time.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct, pack
from typing import NamedTuple

from .instance_file import ITEM, ITEM_DELIMITER, LONG_VRS, SEQUENCE_DELIMITER, UNDEFINED, Data, Encoding, Level

__all__ = [
    "Packed",
    "Range",
    "Segment",
    "Updates",
    "compose",
    "encode_element",
    "encode_item",
    "encode_numbers",
    "encode_sequence",
    "merged",
    "size_of",
    "stream",
]

_ZERO_PADDED = LONG_VRS - {b"UC", b"UR", b"UT"} | {b"UI"}

#: Bytes that are read, and at least sent, at a time.
_CHUNK = 256 << 10


class Range(NamedTuple):
    """Bytes of the source, from its begin; *end* is behind the last of them."""

    start: int
    end: int


class Packed(NamedTuple):
    """Bits of a value of the source, put together without gaps, the least significant first (PS3.5 8.1.1).

    :ivar start: where the value begins.
    :ivar stop: where it ends.
    :ivar runs: the first bit of each run, counted from the begin of the value, and how many bits it has.
    :ivar swapped: the value consists of 16-bit words in big endian byte order.
    """

    start: int
    stop: int
    runs: tuple[tuple[int, int], ...]
    swapped: bool


Segment = bytes | Range | Packed


def size_of(segments: Iterable[Segment]) -> int:
    """Return how many bytes come of *segments*."""
    total = 0
    for segment in segments:
        if isinstance(segment, bytes):
            total += len(segment)
        elif isinstance(segment, Range):
            total += segment.end - segment.start
        else:
            total += (sum(count for _, count in segment.runs) + 15) // 16 * 2
    return total


def merged(segments: Iterable[Segment]) -> list[Segment]:
    """Join neighbours that are bytes, or ranges without a gap between them."""
    result: list[Segment] = []
    joined: list[bytes] = []
    for segment in segments:
        if isinstance(segment, bytes):
            joined.append(segment)
            continue
        if joined:
            result.append(b"".join(joined))
            joined = []
        last = result[-1] if result else None
        if isinstance(segment, Range) and isinstance(last, Range) and last.end == segment.start:
            result[-1] = Range(last.start, segment.end)
        else:
            result.append(segment)
    if joined:
        result.append(b"".join(joined))
    return result


def _encode_header(tag: int, vr: bytes, length: int, encoding: Encoding) -> bytes:
    order = "<" if encoding.little else ">"
    group, element = tag >> 16, tag & 0xFFFF
    if not encoding.explicit or group == 0xFFFE:
        return pack(f"{order}HHI", group, element, length)
    if vr in LONG_VRS:
        return pack(f"{order}HH2sHI", group, element, vr, 0, length)
    return pack(f"{order}HH2sH", group, element, vr, length)


def encode_element(tag: int, vr: bytes, value: bytes | str | Sequence[Segment], encoding: Encoding) -> list[Segment]:
    """Encode an element.

    :param value: bytes in the byte order of *encoding*, text without other characters than Latin-1, or the segments of a value.
    """
    if isinstance(value, str):
        value = value.encode("latin-1")
    parts: Sequence[Segment] = [value] if isinstance(value, bytes) else value
    length = size_of(parts)
    if length % 2:
        parts = [*parts, b"\0" if vr in _ZERO_PADDED else b" "]
        length += 1
    if length > 0xFFFE and vr not in LONG_VRS and encoding.explicit:
        vr = b"UN"  # PS3.5 6.2.2: too long for its VR
    return [_encode_header(tag, vr, length, encoding), *parts]


def encode_numbers(tag: int, vr: bytes, code: str, values: Sequence[float], encoding: Encoding) -> list[Segment]:
    """Encode an element of binary numbers; *code* stands for one of them, as :mod:`struct` has it."""
    size = Struct(f"<{code}").size * len(values)
    too_long = encoding.explicit and size > 0xFFFE and vr not in LONG_VRS
    order = "<" if encoding.little or too_long else ">"  # the value of UN is little endian (PS3.5 6.2.2)
    return encode_element(tag, vr, pack(f"{order}{len(values)}{code}", *values), encoding)


def encode_item(content: Sequence[Segment], encoding: Encoding) -> list[Segment]:
    """Encode an item of a sequence."""
    length = size_of(content)
    if length < UNDEFINED:
        return [_encode_header(ITEM, b"", length, encoding), *content]
    delimiter = _encode_header(ITEM_DELIMITER, b"", 0, encoding)
    return [_encode_header(ITEM, b"", UNDEFINED, encoding), *content, delimiter]


def encode_sequence(
    tag: int, items: Iterable[Sequence[Segment]], encoding: Encoding, inside: Encoding | None = None
) -> list[Segment]:
    """Encode a sequence of encoded items.

    :param inside: how the items are encoded, where that is not *encoding*; see :meth:`Level.inside`.
    """
    content = [segment for item in items for segment in item]
    vr = b"SQ" if inside is None or inside == encoding else b"UN"
    length = size_of(content)
    if length < UNDEFINED:
        return [_encode_header(tag, vr, length, encoding), *content]
    delimiter = _encode_header(SEQUENCE_DELIMITER, b"", 0, inside or encoding)
    return [_encode_header(tag, vr, UNDEFINED, encoding), *content, delimiter]


#: What becomes of elements: others in their place, or ``None`` if they are left out.
Updates = Mapping[int, Sequence[Segment] | None]


def compose(level: Level, updates: Updates) -> list[Segment]:
    """Put together the elements of a level with some of them exchanged, added or left out."""
    parts: dict[int, Sequence[Segment]] = {
        tag: (Range(element.start, element.end),) for tag, element in level.elements.items() if tag not in updates
    }
    parts.update((tag, segments) for tag, segments in updates.items() if segments is not None)
    return merged(segment for tag in sorted(parts) for segment in parts[tag])


# Sending


def _swapped(words: bytes) -> bytes:
    result = bytearray(words)
    result[::2], result[1::2] = words[1::2], words[::2]
    return bytes(result)


def _exactly(data: Data, offset: int, size: int) -> bytes:
    read = data.read(offset, size)
    if len(read) < size:
        raise OSError(errno.EIO, "the file has become shorter")
    return read


def _bits(data: Data, packed: Packed) -> Iterator[bytes]:
    """Yield what a Packed stands for, an even number of bytes at a time."""
    held, count = 0, 0  # bits that are not sent yet
    for first, left in packed.runs:
        while left:
            lead = first % 8
            step = min(left, _CHUNK * 2 - lead)
            begin, end = packed.start + first // 8, packed.start + (first + step + 7) // 8
            if packed.swapped:
                even = begin - (begin - packed.start) % 2
                words = _exactly(data, even, min(end + (end - even) % 2, packed.stop) - even)
                raw = _swapped(words)[begin - even : end - even]
            else:
                raw = _exactly(data, begin, end - begin)
            held |= (int.from_bytes(raw, "little") >> lead & (1 << step) - 1) << count
            count += step
            first += step
            left -= step
            whole = count // 16 * 2
            ready = (held & (1 << whole * 8) - 1).to_bytes(whole, "little")
            held >>= whole * 8
            count -= whole * 8
            yield _swapped(ready) if packed.swapped else ready
    if count:
        ready = held.to_bytes(2, "little")
        yield _swapped(ready) if packed.swapped else ready


def _pieces(data: Data, segments: Iterable[Segment]) -> Iterator[bytes]:
    for segment in segments:
        if isinstance(segment, bytes):
            yield segment
        elif isinstance(segment, Packed):
            yield from _bits(data, segment)
        else:
            position, end = segment
            while position < end:
                step = min(_CHUNK, end - position)
                yield _exactly(data, position, step)
                position += step


def stream(data: Data, segments: Iterable[Segment]) -> Iterator[bytes]:
    """Yield the bytes of *segments*, in chunks of some 256 KiB.

    :raises OSError: the source cannot be read, or has become shorter.
    :raises DataSetError: the source is deflated, and damaged.
    """
    small: list[bytes] = []
    size = 0
    for piece in _pieces(data, segments):
        small.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield b"".join(small) if len(small) > 1 else piece
            small, size = [], 0
    if size:
        yield b"".join(small)
