"""Read the structure of an instance where it lies, without decoding or keeping more than is asked for.

Theory of operation. An instance may be larger than the memory, and what is made of it shares nearly all of its bytes. So a
:class:`Level` knows only where the elements of a data set, or of an item, begin and end; :class:`Data` brings the bytes of
those that are looked at. A deflated data set can only be read from its begin on: there all that comes before the pixel data
is kept in memory, and the rest inflated again when it is sent.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct, unpack
from typing import NamedTuple, Protocol

from .. import sop
from ..dataset import FileHead, convert, read_file_head

__all__ = [
    "DOUBLE_FLOAT_PIXEL_DATA",
    "FLOAT_PIXEL_DATA",
    "ITEM",
    "ITEM_DELIMITER",
    "LONG_VRS",
    "PIXEL_DATA",
    "SEQUENCE_DELIMITER",
    "UNDEFINED",
    "Data",
    "Element",
    "Encoding",
    "Level",
    "Malformed",
    "OpenFile",
    "StrPath",
    "fragments",
    "open_data",
    "read_root",
]

StrPath = str | os.PathLike[str]

ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF

FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA = 0x7FE00008, 0x7FE00009, 0x7FE00010
PIXELS = frozenset({FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA})

LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

#: Bytes that are read around a header; what follows it is mostly the next one.
_AHEAD = 16 << 10
#: How deep sequences may be nested.
_NESTING = 64
#: A value of the head that is looked at may have this many bytes.
_VALUE = 16 << 20
#: How many bytes may come before the pixel data of a deflated data set: they are kept in memory.
_HEAD = 64 << 20
#: The end of data whose end is not known before.
_NOWHERE = 1 << 62


class Malformed(Exception):
    """The data set ends too early, or is not encoded as PS3.5 says."""


class Encoding(NamedTuple):
    """How elements are encoded (PS3.5 section 7 and Annex A)."""

    explicit: bool
    little: bool


class _Layout(NamedTuple):
    short: Struct  # group, element, VR, 16-bit length
    tagged: Struct  # group, element, 32-bit length
    length: Struct


_LAYOUTS = {
    True: _Layout(Struct("<HH2sH"), Struct("<HHI"), Struct("<I")),
    False: _Layout(Struct(">HH2sH"), Struct(">HHI"), Struct(">I")),
}


# Where the bytes come from


class Data(Protocol):
    """The bytes of a data set, addressed from its begin; they come out of a file, so code on an event loop must not ask."""

    @property
    def end(self) -> int:
        """Where the data end, as far as that is known."""
        ...

    def read(self, offset: int, size: int, *, ahead: int = 0) -> bytes:
        """Return *size* bytes at *offset*, fewer where the data end; up to *ahead* bytes may be read on the way."""
        ...

    def close(self) -> None:
        """Let go of the file; may be called again."""
        ...


class Identity(NamedTuple):
    """Tells whether a path still leads to the file that was looked at."""

    device: int
    inode: int
    size: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _replaced(path: StrPath) -> OSError:
    return OSError(errno.ESTALE, "the file was replaced", os.fspath(path))


class _FileData:
    """The data set of a file that is not deflated."""

    def __init__(self, path: StrPath, begin: int, identity: Identity | None) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self.identity = Identity.of(os.fstat(self._file.fileno()))
        if identity not in (None, self.identity):
            self._file.close()
            raise _replaced(path)
        self._begin = begin
        self.end = self.identity.size - begin
        self._window = b""
        self._window_at = 0

    def read(self, offset: int, size: int, *, ahead: int = 0) -> bytes:
        at = offset - self._window_at
        if at >= 0 and at + size <= len(self._window):
            return self._window[at : at + size]
        data = self._read(offset, max(size, ahead))
        if ahead:
            self._window, self._window_at = data, offset
        return data[:size]

    def _read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        self._file.seek(self._begin + offset)
        size = min(size, self.end - offset)
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        self._file.close()
        self._window = b""


class _InflatedData:
    """A deflated data set, as Explicit VR Little Endian; what lies before the last offset that was read is forgotten."""

    def __init__(self, path: StrPath, identity: Identity | None, *, keep: bool) -> None:
        self.identity = Identity.of(os.stat(path))
        self._chunks = convert(path, None, sop.EXPLICIT_VR_LITTLE_ENDIAN)
        self._keep = keep
        self._buffer = bytearray(next(self._chunks, b""))  # opens the file
        self._at = 0
        self.end = _NOWHERE
        if identity not in (None, self.identity) or self.identity != Identity.of(os.stat(path)):
            self.close()
            raise _replaced(path)

    def read(self, offset: int, size: int, *, ahead: int = 0) -> bytes:
        if self._keep:
            if offset + size > _HEAD:
                raise Malformed(f"more than {_HEAD} bytes come before the pixel data")
        else:
            self._forget(offset)
        while self._at + len(self._buffer) < offset + size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._buffer += chunk
            if not self._keep:
                self._forget(offset)
        begin = offset - self._at
        return bytes(self._buffer[begin : begin + size])

    def _forget(self, offset: int) -> None:
        count = min(offset - self._at, len(self._buffer))
        if count > 0:
            del self._buffer[:count]
            self._at += count

    def close(self) -> None:
        self._chunks.close()  # type: ignore[attr-defined]  # it is a generator
        self._buffer.clear()


class OpenFile(NamedTuple):
    """An instance that was opened.

    :ivar head: what the file says of it.
    :ivar encoding: of *data*; a deflated data set comes as Explicit VR Little Endian.
    """

    head: FileHead
    identity: Identity
    data: Data
    encoding: Encoding

    @property
    def deflated(self) -> bool:
        """Whether the data set is deflated in the file."""
        return sop.transfer_syntax(self.head.transfer_syntax_uid).is_deflated

    def again(self, path: StrPath) -> Data:
        """Open the same file once more, to send what is in it.

        :raises OSError: it cannot be opened, or is another one.
        """
        if self.deflated:
            return _InflatedData(path, self.identity, keep=False)
        return _FileData(path, self.head.data_set_offset, self.identity)


def open_data(path: StrPath) -> OpenFile:
    """Open the data set of a file.

    :raises DataSetError: it is not a DICOM file.
    :raises OSError: it cannot be read.
    """
    head = read_file_head(path)
    syntax = sop.transfer_syntax(head.transfer_syntax_uid)
    if syntax.is_deflated:
        inflated = _InflatedData(path, None, keep=True)
        return OpenFile(head, inflated.identity, inflated, Encoding(explicit=True, little=True))
    data = _FileData(path, head.data_set_offset, None)
    encoding = Encoding(explicit=not syntax.is_implicit_vr, little=syntax.is_little_endian)
    return OpenFile(head, data.identity, data, encoding)


# Reading


class Element(NamedTuple):
    """Where an element, or an item, is: all in bytes from the begin of the data set.

    :ivar tag: group and element number as one integer.
    :ivar vr: two letters; ``None`` where it is implicit.
    :ivar start: where its header begins.
    :ivar value: where its value begins.
    :ivar stop: where its value ends; -1 for encapsulated pixel data, which are not followed to their end.
    :ivar end: where the next element begins.
    """

    tag: int
    vr: bytes | None
    start: int
    value: int
    stop: int
    end: int


def _header(data: Data, position: int, encoding: Encoding) -> tuple[int, bytes | None, int, int]:
    """Return tag, VR, length and where the value begins."""
    raw = data.read(position, 12, ahead=_AHEAD)
    if len(raw) < 8:
        raise Malformed("the data end where an element is due")
    layout = _LAYOUTS[encoding.little]
    if encoding.explicit:
        group, element, vr, length = layout.short.unpack_from(raw)
        if vr in _SHORT_VRS:
            return group << 16 | element, vr, length, position + 8
        if vr in LONG_VRS:
            if len(raw) < 12:
                raise Malformed("the data end inside a header")
            return group << 16 | element, vr, layout.length.unpack_from(raw, 8)[0], position + 12
    # implicit VR, an item or a delimiter, or a writer that fell back to implicit VR
    group, element, length = layout.tagged.unpack_from(raw)
    return group << 16 | element, None, length, position + 8


def _inside(data: Data, vr: bytes | None, value: int, encoding: Encoding) -> Encoding:
    """Return how the items of a sequence are encoded whose value begins at *value*."""
    if vr == b"UN":
        # Implicit VR Little Endian, whatever the transfer syntax is (PS3.5 6.2.2); not every writer knows.
        letters = data.read(value, 14, ahead=_AHEAD)[12:]
        return Encoding(explicit=letters in _SHORT_VRS or letters in LONG_VRS, little=True)
    return encoding if vr is not None else Encoding(explicit=False, little=encoding.little)


def _end_of_sequence(data: Data, position: int, encoding: Encoding, depth: int) -> int:
    """Return where the delimiter of a sequence of undefined length is, or of the fragments of a value."""
    if depth > _NESTING:
        raise Malformed(f"sequences are nested deeper than {_NESTING} levels")
    while True:
        tag, _, length, value = _header(data, position, Encoding(explicit=False, little=encoding.little))
        if tag == SEQUENCE_DELIMITER:
            return position
        if tag != ITEM:
            raise Malformed("a sequence holds something else than items")
        position = _end_of_item(data, value, encoding, depth) + 8 if length == UNDEFINED else value + length


def _end_of_item(data: Data, position: int, encoding: Encoding, depth: int) -> int:
    """Return where the delimiter of an item of undefined length is."""
    while True:
        tag, vr, length, value = _header(data, position, encoding)
        if tag == ITEM_DELIMITER:
            return position
        if length == UNDEFINED:
            position = _end_of_sequence(data, value, _inside(data, vr, value, encoding), depth + 1) + 8
        else:
            position = value + length


def _elements(data: Data, position: int, end: int, encoding: Encoding) -> Iterator[Element]:
    """Yield the elements between two offsets."""
    while position < end:
        tag, vr, length, value = _header(data, position, encoding)
        if tag == ITEM_DELIMITER:
            return
        if length == UNDEFINED:
            stop = _end_of_sequence(data, value, _inside(data, vr, value, encoding), 1)
            behind = stop + 8
        else:
            stop = behind = value + length
        if behind > end:
            raise Malformed(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) runs past the end of what holds it")
        yield Element(tag, vr, position, value, stop, behind)
        position = behind


class Level:
    """The elements of a data set, or of an item of a sequence.

    :ivar elements: by tag; where a tag is there twice, the first.
    """

    def __init__(self, data: Data, elements: Iterable[Element], encoding: Encoding) -> None:
        self.data = data
        self.encoding = encoding
        self.elements: dict[int, Element] = {}
        for element in elements:
            self.elements.setdefault(element.tag, element)

    def __contains__(self, tag: int) -> bool:
        return tag in self.elements

    def raw(self, tag: int) -> bytes:
        """Return the value of an element, empty if there is none."""
        element = self.elements.get(tag)
        if element is None or element.stop <= element.value:
            return b""
        size = element.stop - element.value
        if size > _VALUE:
            raise Malformed(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) has {size} bytes")
        value = self.data.read(element.value, size, ahead=_AHEAD)
        if len(value) < size:
            raise Malformed("the data end inside a value")
        return value

    def texts(self, tag: int) -> list[str]:
        """Return the values of an element of text in the default repertoire, without padding."""
        raw = self.raw(tag)
        return [value.strip(" \0") for value in raw.decode("latin-1").split("\\")] if raw.strip(b" \0") else []

    def text(self, tag: int) -> str:
        """Return the first of :meth:`texts`, empty if there is none."""
        return next(iter(self.texts(tag)), "")

    def numbers(self, tag: int, code: str) -> list[int]:
        """Return the binary numbers of an element.

        :param code: for one of them, as :mod:`struct` has it.
        """
        return [int(number) for number in self._unpacked(tag, code)]

    def floats(self, tag: int) -> list[float]:
        """Return the numbers of an FL."""
        return list(self._unpacked(tag, "f"))

    def _unpacked(self, tag: int, code: str) -> Sequence[float]:
        raw = self.raw(tag)
        little = self.encoding.little or (tag in self and self.elements[tag].vr == b"UN")  # PS3.5 6.2.2
        width = Struct(f"<{code}").size
        return unpack(f"{'<' if little else '>'}{len(raw) // width}{code}", raw[: len(raw) // width * width])

    def inside(self, tag: int) -> Encoding:
        """Return how the items of a sequence are encoded; for one that is not there, how they would be."""
        element = self.elements.get(tag)
        if element is None or element.stop <= element.value:
            return self.encoding
        return _inside(self.data, element.vr, element.value, self.encoding)

    def items(self, tag: int) -> list[Element]:
        """Return where the items of a sequence are; none if it is not there."""
        element = self.elements.get(tag)
        if element is None:
            return []
        encoding = self.inside(tag)
        found = []
        position = element.value
        while position < element.stop:
            item, _, length, value = _header(self.data, position, Encoding(explicit=False, little=encoding.little))
            if item == SEQUENCE_DELIMITER:  # tolerated where the length is defined, too
                break
            if item != ITEM:
                raise Malformed("a sequence holds something else than items")
            stop = _end_of_item(self.data, value, encoding, 1) if length == UNDEFINED else value + length
            end = stop + 8 if length == UNDEFINED else stop
            if end > element.stop:
                raise Malformed("an item runs past the end of its sequence")
            found.append(Element(ITEM, None, position, value, stop, end))
            position = end
        return found

    def within(self, item: Element, encoding: Encoding) -> Level:
        """Return the elements of an item."""
        return Level(self.data, _elements(self.data, item.value, item.stop, encoding), encoding)


def read_root(data: Data, encoding: Encoding) -> tuple[Level, Element | None]:
    """Read a data set up to its pixel data; return what comes before them, and where they are."""
    elements: list[Element] = []
    pixels: Element | None = None
    position = 0
    # The end of deflated data is not known, so one element is asked for at a time.
    while len(data.read(position, 8, ahead=_AHEAD)) == 8:
        tag, vr, length, value = _header(data, position, encoding)
        if tag in PIXELS:
            stop = -1 if length == UNDEFINED else value + length
            pixels = Element(tag, vr, position, value, stop, stop)
            break
        element = next(_elements(data, position, data.end, encoding), None)
        if element is None:
            break
        elements.append(element)
        position = element.end
    return Level(data, elements, encoding), pixels


def fragments(data: Data, position: int, *, little: bool, most: int) -> Iterator[Element]:
    """Yield the items of encapsulated pixel data, from *position* to their delimiter (PS3.5 A.4).

    :param most: more of them are refused.
    :raises Malformed: there is no delimiter.
    """
    for _ in range(most + 1):
        raw = data.read(position, 8)
        if len(raw) < 8:
            break
        group, element, length = _LAYOUTS[little].tagged.unpack(raw)
        tag = group << 16 | element
        if tag == SEQUENCE_DELIMITER:
            return
        end = position + 8 + length
        if tag != ITEM or length == UNDEFINED or end > data.end:
            break
        yield Element(ITEM, None, position, position + 8, end, end)
        position = end
    raise Malformed("the fragments of the pixel data do not end in a delimiter")
