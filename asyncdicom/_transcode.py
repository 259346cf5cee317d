"""Change the encoding of a data set while it streams by (PS3.5 section 7 and Annex A).

Two things are done with it: an instance is converted from one native transfer syntax to another that the peer
accepted, and bulk data are left out of one (PS3.4 Annex Z). Both are generators that hold about two chunks of 256 KiB
at a time, whatever the size of the instance.

Theory of operation. The input is a tree that is written down depth first, so a stack of open sequences and items is
all the state there is. A header is read in the old encoding and written in the new one; values follow, their bytes
swapped where the byte order changes. As the new length of a sequence is not known when its header is written,
sequences and items get undefined lengths and delimiters. Where the encoding does not change, whole sequences of
defined length are copied as they are.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import chain
from struct import pack

from ._deflate import DEFAULT_LIMITS, DataSetLimits, deflated, inflated
from ._elements import (
    ITEM,
    ITEM_DELIMITER,
    LAYOUTS,
    LONG_VRS,
    SEQUENCE_DELIMITER,
    SHORT_VRS,
    UNDEFINED,
    Encoding,
    encoding_of,
    is_vr,
    tag_text,
    walk,
)
from ._files import BytesSource, FileSource, Source
from ._part10 import StrPath
from .exceptions import DataSetError

__all__ = ["convert", "without_bulk_data"]

#: Bytes that are read, and at least written, at a time.
CHUNK = 256 << 10

#: Values up to this many bytes are handled in one piece.
_SMALL = 64 << 10

#: How many bytes change places when the byte order changes; in VRs that are not here none do (PS3.5 7.3).
_WIDTHS = {
    b"AT": 2,
    b"OW": 2,
    b"SS": 2,
    b"US": 2,
    b"FL": 4,
    b"OF": 4,
    b"OL": 4,
    b"SL": 4,
    b"UL": 4,
    b"FD": 8,
    b"OD": 8,
    b"OV": 8,
    b"SV": 8,
    b"UV": 8,
}
#: What an odd value is filled up with, where it is not a zero (PS3.5 6.2).
_SPACE_PADDED = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT".split())

_CODES = {2: "H", 4: "I", 8: "Q"}

_PIXEL_DATA = 0x7FE00010
_BITS_ALLOCATED = 0x00280100
_PIXEL_REPRESENTATION = 0x00280103
_LUT_DESCRIPTOR = 0x00283002
_WAVEFORM_SEQUENCE = 0x54000100
_WAVEFORM_BITS_ALLOCATED = 0x54001004
_WAVEFORM_DATA = 0x54001010

#: Elements whose values decide about the VR of others.
_DECIDING = frozenset({_BITS_ALLOCATED, _PIXEL_REPRESENTATION, _LUT_DESCRIPTOR, _WAVEFORM_BITS_ALLOCATED})


class _Input:
    """Read a source piece by piece, knowing the position."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = next(chunks, b"")
        self._start = 0  # in the buffer
        self.position = 0  # in the data set

    def peek(self, size: int) -> bytes:
        """Return the next *size* bytes without taking them; fewer where the data end."""
        while len(self._buffer) - self._start < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._buffer = self._buffer[self._start :] + chunk
            self._start = 0
        return self._buffer[self._start : self._start + size]

    def first(self) -> bytes:
        """Return what has been read and not taken yet."""
        return self._buffer[self._start :]

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes."""
        data = self.peek(size)
        if len(data) < size:
            raise DataSetError(f"the data set ends {size - len(data)} bytes too early")
        self._start += size
        self.position += size
        return data

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next *size* bytes, in pieces of which all but the last hold a multiple of 8."""
        while size > 0:
            step = min(size, CHUNK)
            yield self.take(step)
            size -= step


class _Level:
    """A sequence or an item (or the data set itself) that is being read, and written."""

    __slots__ = ("end", "explicit", "is_item", "known", "little", "out_explicit", "out_little", "tag")

    def __init__(
        self,
        end: int | None,
        tag: int,
        *,
        is_item: bool,
        explicit: bool,
        little: bool,
        out_explicit: bool,
        out_little: bool,
    ) -> None:
        self.end = end
        self.tag = tag  # of the sequence
        self.is_item = is_item
        self.explicit = explicit
        self.little = little
        self.out_explicit = out_explicit
        self.out_little = out_little
        self.known: dict[int, int] = {}  # deciding values


@lru_cache(maxsize=8192)
def _dictionary_vr(tag: int) -> str:
    from pydicom.datadict import dictionary_VR

    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


def _swapped(data: bytes, width: int) -> bytes:
    whole = len(data) - len(data) % width
    numbers = array(_CODES[width], data[:whole])
    numbers.byteswap()
    return numbers.tobytes() + data[whole:]


class _Transcoder:
    def __init__(
        self,
        source: _Input,
        encoding: Encoding,
        target: Encoding,
        *,
        drop: Callable[[int, int], bool] | None,
        nesting: int,
    ) -> None:
        self._in = source
        self._nesting = nesting
        self._copy = drop is not None  # the encoding stays
        self._drop = drop
        self._muted = 0  # the depth of the stack inside of a sequence that is left out
        root = _Level(
            None,
            0,
            is_item=True,
            explicit=encoding.explicit,
            little=encoding.little,
            out_explicit=target.explicit,
            out_little=target.little,
        )
        if not self._copy and not encoding.explicit:
            # Elements before (0028,0103) may depend on it.
            head, _ = walk(source.first(), explicit=False, little=True, stop=_LUT_DESCRIPTOR, wanted=_DECIDING)
            for tag, element in head.items():
                self._note(root, tag, element.value)
        self._stack = [root]

    def run(self) -> Iterator[bytes]:
        """Yield the new encoding."""
        out = bytearray()
        while self._stack:
            for piece in self._next():
                if not self._muted:
                    out += piece
                if len(out) >= CHUNK:
                    yield bytes(out)
                    out.clear()
        if out:
            yield bytes(out)

    def _next(self) -> Iterable[bytes]:
        """Read one header, and return what is to be written for it and its value."""
        top = self._stack[-1]
        position = self._in.position
        if top.end is not None and position >= top.end:
            if position > top.end:
                raise DataSetError(f"{tag_text(top.tag)} runs {position - top.end} bytes past its end")
            return self._close()
        if len(self._stack) == 1:
            rest = self._in.peek(8)
            if len(rest) < 8 and not any(rest):  # the end, or padding of the last fragment
                return self._close()
        return self._element(top) if top.is_item else self._item(top)

    def _close(self) -> Iterable[bytes]:
        """Leave the innermost level, and return its delimiter."""
        closed = self._stack.pop()
        if self._muted == len(self._stack) + 1:
            self._muted = 0
            return ()
        if not self._stack:
            return ()
        delimiter = ITEM_DELIMITER if closed.is_item else SEQUENCE_DELIMITER
        return (LAYOUTS[closed.out_little].implicit.pack(delimiter >> 16, delimiter & 0xFFFF, 0),)

    def _item(self, top: _Level) -> Iterable[bytes]:
        """Read the header of an item or fragment, or the delimiter of their sequence."""
        group, element, length = LAYOUTS[top.little].implicit.unpack(self._in.take(8))
        tag = group << 16 | element
        if tag == SEQUENCE_DELIMITER:
            return self._close()
        if tag != ITEM:
            raise DataSetError(f"the sequence {tag_text(top.tag)} holds {tag_text(tag)} where an item is due")
        if length != UNDEFINED and self._copy and not self._looks_inside(top.tag):
            return self._copied(LAYOUTS[top.out_little].implicit.pack(group, element, length), length)
        explicit, out_explicit = top.explicit, top.out_explicit
        if explicit:
            letters = self._in.peek(6)[4:]
            if length and not is_vr(letters) and letters != b"\0\0":
                # An item in implicit VR, because the sequence is of VR UN (PS3.5 6.2.2) or its writer did not care.
                explicit = False
                out_explicit = out_explicit and not self._copy
        self._push(length, top.tag, top, is_item=True, explicit=explicit, out_explicit=out_explicit)
        return (LAYOUTS[top.out_little].implicit.pack(group, element, UNDEFINED),)

    def _looks_inside(self, tag: int) -> bool:
        return tag == _WAVEFORM_SEQUENCE and len(self._stack) == 2

    def _push(
        self,
        length: int,
        tag: int,
        parent: _Level,
        *,
        is_item: bool,
        explicit: bool | None = None,
        little: bool | None = None,
        out_explicit: bool | None = None,
        out_little: bool | None = None,
    ) -> None:
        """Open a sequence or an item, encoded as its parent is if nothing else is said."""
        end = None if length == UNDEFINED else self._in.position + length
        for level in reversed(self._stack):
            if level.end is not None:
                if end is not None and end > level.end:
                    raise DataSetError(
                        f"{tag_text(tag)} claims {length} bytes; {level.end - self._in.position} are there"
                    )
                break
        if len(self._stack) > 2 * self._nesting:
            raise DataSetError(f"sequences are nested deeper than {self._nesting} levels")
        self._stack.append(
            _Level(
                end,
                tag,
                is_item=is_item,
                explicit=parent.explicit if explicit is None else explicit,
                little=parent.little if little is None else little,
                out_explicit=parent.out_explicit if out_explicit is None else out_explicit,
                out_little=parent.out_little if out_little is None else out_little,
            )
        )

    def _header(self, top: _Level) -> tuple[int, bytes | None, int]:
        """Read the header of an element: its tag, its VR where it has one, the length of its value."""
        header, implicit_header, length_only = LAYOUTS[top.little]
        data = self._in.take(8)
        if top.explicit:
            group, element, vr, length = header.unpack(data)
            if vr in LONG_VRS:
                (length,) = length_only.unpack(self._in.take(4))
                return group << 16 | element, vr, length
            if vr in SHORT_VRS:
                return group << 16 | element, vr, length
            if is_vr(vr):
                raise DataSetError(f"the element {tag_text(group << 16 | element)} has an unknown VR")
        group, element, length = implicit_header.unpack(data)
        return group << 16 | element, None, length

    def _element(self, top: _Level) -> Iterable[bytes]:
        tag, vr, length = self._header(top)
        if tag == ITEM_DELIMITER:
            if len(self._stack) == 1:
                raise DataSetError("an item ends where none has begun")
            return self._close()
        if tag >> 16 == 0xFFFE:
            raise DataSetError(f"{tag_text(tag)} stands where an element is due")
        depth = len(self._stack)
        is_root = depth == 1
        dropped = (
            (is_root and (tag >> 16 in (0, 2) or tag & 0xFFFF == 0))  # group lengths would no longer be right
            or (not self._copy and tag & 0xFFFF == 0)
            or (self._drop is not None and self._drop(tag, 0 if is_root else top.tag if depth == 3 else -1))
        )
        if length == UNDEFINED:
            return self._undefined(top, tag, vr, dropped=dropped)
        if top.end is not None and self._in.position + length > top.end:
            raise DataSetError(f"{tag_text(tag)} claims {length} bytes; {top.end - self._in.position} are there")
        if dropped:
            return (b"" for _ in self._in.pieces(length))
        if self._copy:
            if tag != _WAVEFORM_SEQUENCE or not is_root or not length:
                return self._copied(self._written(top, tag, vr, length), length)
            return self._sequence(top, tag, vr or b"SQ", length)
        if vr is None:
            vr = self._vr(tag)
        if vr == b"SQ" and length:
            return self._sequence(top, tag, vr, length)
        return self._value(top, tag, vr, length)

    def _undefined(self, top: _Level, tag: int, vr: bytes | None, *, dropped: bool) -> Iterable[bytes]:
        """Begin a sequence of undefined length, or encapsulated pixel data, which can only be copied or left out."""
        fragments = vr in (b"OB", b"OW") or tag == _PIXEL_DATA
        if fragments and not self._copy:
            raise DataSetError(f"{tag_text(tag)} is compressed and cannot be converted to another transfer syntax")
        if not fragments and vr not in (None, b"SQ", b"UN"):
            raise DataSetError(f"{tag_text(tag)} has an undefined length, which its VR cannot have")
        if dropped and not self._muted:
            self._muted = len(self._stack) + 1
        return self._sequence(top, tag, vr if self._copy or vr == b"UN" else b"SQ", UNDEFINED)

    def _sequence(self, top: _Level, tag: int, vr: bytes | None, length: int) -> Iterable[bytes]:
        """Open a sequence, or fragments; it gets an undefined length."""
        header = self._written(top, tag, vr, UNDEFINED)
        if vr == b"UN":
            # Its items are in Implicit VR Little Endian (PS3.5 6.2.2) and stay so; writers exist that do not know.
            little = top.little or self._in.peek(2) == b"\xfe\xff"
            explicit = top.explicit and self._copy and length == UNDEFINED
            self._push(length, tag, top, is_item=False, little=little, out_explicit=explicit, out_little=True)
        else:
            self._push(length, tag, top, is_item=False)
        return (header,)

    def _written(self, top: _Level, tag: int, vr: bytes | None, length: int) -> bytes:
        """Write a header in the new encoding."""
        group, element = tag >> 16, tag & 0xFFFF
        order = "<" if top.out_little else ">"
        if not top.out_explicit or vr is None:
            return pack(order + "HHI", group, element, length)
        if vr in LONG_VRS:
            return pack(order + "HH2sHI", group, element, vr, 0, length)
        return pack(order + "HH2sH", group, element, vr, length)

    def _copied(self, header: bytes, length: int) -> Iterable[bytes]:
        if length <= _SMALL:
            return (header + self._in.take(length),)
        return chain((header,), self._in.pieces(length))

    def _value(self, top: _Level, tag: int, vr: bytes, length: int) -> Iterable[bytes]:
        """Write a value, its numbers in the new byte order, an odd one filled up (PS3.5 7.1.1)."""
        width = _WIDTHS.get(vr, 1)
        little = top.out_little
        pad = (b" " if vr in _SPACE_PADDED else b"\0") * (length % 2)
        if top.out_explicit and length > 0xFFFE and vr in SHORT_VRS:
            vr, little = b"UN", True  # PS3.5 6.2.2: too long for its VR; the value of UN is little endian
        header = self._written(top, tag, vr, length + len(pad))
        swap = width > 1 and top.little != little
        if length <= _SMALL:
            value = self._in.take(length)
            if tag in _DECIDING:
                self._note(top, tag, value)
            return (header + (_swapped(value, width) if swap else value) + pad,)
        pieces = self._in.pieces(length)
        return chain((header,), (_swapped(piece, width) for piece in pieces) if swap else pieces, (pad,))

    def _note(self, level: _Level, tag: int, value: bytes) -> None:
        if len(value) >= 2:
            level.known[tag] = int.from_bytes(value[:2], "little" if level.little else "big")

    def _known(self, tag: int) -> int | None:
        """Return a deciding value of the nearest level that has one."""
        for level in reversed(self._stack):
            if tag in level.known:
                return level.known[tag]
        return None

    def _vr(self, tag: int) -> bytes:
        """Find the VR of an element that was encoded without (PS3.5 A.1, PS3.6)."""
        if tag & 0x10000:
            return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"
        vr = _dictionary_vr(tag)
        if len(vr) == 2:
            return vr.encode("ascii")
        if vr == "OB or OW":
            if tag == _PIXEL_DATA:
                bits = self._known(_BITS_ALLOCATED)
            elif tag >> 16 == 0x5400:
                bits = self._known(_WAVEFORM_BITS_ALLOCATED)
            else:
                bits = None
            # PS3.5 A.2: OW where more than 8 bits are allocated; with 8 the bytes are in the order that OB has, too.
            return b"OB" if bits is not None and bits <= 8 else b"OW"
        if "OW" in vr:  # LUT Data: one entry is a number (PS3.3 C.11.1.1.1)
            return b"US" if self._known(_LUT_DESCRIPTOR) == 1 else b"OW"
        return b"SS" if self._known(_PIXEL_REPRESENTATION) == 1 else b"US"


def _read(source: Source) -> Iterator[bytes]:
    while True:
        buffer = bytearray(CHUNK)
        count = source.read_into([memoryview(buffer)])
        if count:
            yield bytes(memoryview(buffer)[:count])
        if count < CHUNK:
            return


def _opened(source: Source | bytes | StrPath) -> Source:
    if isinstance(source, bytes):
        return BytesSource(source)
    if isinstance(source, str | os.PathLike):
        return FileSource.open(source)
    return source


def _chunks(
    source: Source | bytes | StrPath,
    transfer_syntax: str | None,
    target: str | None,
    drop: Callable[[int, int], bool] | None,
    limits: DataSetLimits,
) -> Iterator[bytes]:
    opened = _opened(source)
    try:
        if transfer_syntax is None:
            if not isinstance(opened, FileSource):
                raise ValueError("only a file says what its transfer syntax is")
            transfer_syntax = opened.head.transfer_syntax_uid
        encoding = encoding_of(transfer_syntax)
        target_encoding = encoding if target is None else encoding_of(target)
        chunks = _read(opened)
        if encoding.deflated:
            chunks = inflated(chunks, limits)
        chunks = _Transcoder(_Input(chunks), encoding, target_encoding, drop=drop, nesting=limits.nesting).run()
        yield from deflated(chunks) if target_encoding.deflated else chunks
    finally:
        opened.close()


def convert(
    source: Source | bytes | StrPath,
    transfer_syntax: str | None,
    target: str,
    *,
    limits: DataSetLimits = DEFAULT_LIMITS,
) -> Iterator[bytes]:
    """Yield a data set in another native transfer syntax: Implicit VR, Explicit VR, Big Endian, Deflated.

    VRs that implicit VR left out are looked up in pydicom's dictionary; those that depend on other elements are
    resolved by Pixel Representation, Bits Allocated and LUT Descriptor; private and unknown elements become UN (PS3.5
    6.2.2). Group lengths and elements of group 0002 are left out. The values are not judged.

    :param source: the data set: bytes, something to be read (it is closed at the end), or the path of a file.
    :param transfer_syntax: what it is encoded in; ``None`` where a file says that.
    :param target: the UID of the transfer syntax wanted.
    :param limits: how deep it may be nested, and how much inflate.
    :return: chunks of about 256 KiB; memory does not depend on the size of the data set. The generator reads files and
        computes: code on an event loop advances it in a worker thread.
    :raises DataSetError: from the generator: the data are damaged, or compressed.
    :raises OSError: from the generator: the file cannot be read.
    """
    return _chunks(source, transfer_syntax, target, None, limits)


#: Attributes not to be included at the top level (PS3.4 Table Z.1-1): a mask for the tag, and what must be left then.
BULK_DATA = (
    (0xFFFFFFFF, 0x7FE00010),  # Pixel Data
    (0xFFFFFFFF, 0x7FE00008),  # Float Pixel Data
    (0xFFFFFFFF, 0x7FE00009),  # Double Float Pixel Data
    (0xFFFFFFFF, 0x00287FE0),  # Pixel Data Provider URL
    (0xFFFFFFFF, 0x56000020),  # Spectroscopy Data
    (0xFF01FFFF, 0x60003000),  # Overlay Data (60xx,3000)
    (0xFF01FFFF, 0x50003000),  # Curve Data (50xx,3000)
    (0xFF01FFFF, 0x5000200C),  # Audio Sample Data (50xx,200C)
    (0xFFFFFFFF, 0x00420011),  # Encapsulated Document
)


def _is_bulk_data(tag: int, sequence: int) -> bool:
    """Say whether an element is bulk data; *sequence* is 0 at the top level, else the sequence it is in."""
    if sequence == 0:
        return any(tag & mask == bulk for mask, bulk in BULK_DATA)
    return sequence == _WAVEFORM_SEQUENCE and tag == _WAVEFORM_DATA


def without_bulk_data(
    source: Source | bytes | StrPath, transfer_syntax: str | None, *, limits: DataSetLimits = DEFAULT_LIMITS
) -> Iterator[bytes]:
    """Yield a data set without the elements of PS3.4 Z.1.3, in the same transfer syntax.

    Those are the bulk data at the top level, and Waveform Data within the Waveform Sequence. Everything else stays,
    pixel data of icons and private elements too. For the arguments and errors see :func:`convert`.
    """
    return _chunks(source, transfer_syntax, None, _is_bulk_data, limits)
