"""Decode and encode identifiers by hand: a dictionary of Unicode text and numbers on one side, bytes on the other.

Theory of operation. A data set of some twenty short elements costs pydicom about 200 µs each way; an archive that
answers thousands of matches a second cannot pay that. So the values that the archive keeps and compares have one small
form (:data:`Value`), text is Unicode from here on, and the codec below knows the four ways in which elements are
encoded (PS3.5 section 7 and Annex A) and nothing else. Decoding goes in two steps, because an item without a Specific
Character Set has that of its parent: first the bytes are cut into elements, then text is decoded from the outside in.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct, error, pack, unpack_from
from typing import NamedTuple, TypeAlias

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset

from ..exceptions import DataSetError

__all__ = [
    "Attributes",
    "Element",
    "IdentifierWriter",
    "Value",
    "decode_data_set",
    "decode_head",
    "decode_text",
    "encode_identifier",
    "from_dataset",
    "is_multiple",
    "suits",
    "vr_of",
]

#: What the archive keeps of an element's value. Text is Unicode without its padding; an attribute of VM 1-n has a list
#: if there are several values; a sequence is a list of items; VRs that are never compared (OB, UN, ...) stay bytes.
#: Empty is ``""``.
Value = str | int | float | bytes | list[str] | list[int] | list[float] | list["Attributes"]


class Element(NamedTuple):
    """One data element.

    :ivar vr: value representation, two letters.
    :ivar value: see :data:`Value`.
    """

    vr: str
    value: Value


Attributes = dict[int, Element]

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

SPECIFIC_CHARACTER_SET = 0x00080005
PIXEL_DATA = 0x7FE00010

#: How deep sequences may be nested. No key of a Query/Retrieve model needs more than three levels.
_NESTING = 32
#: How many elements and items a data set may have. Each costs a microsecond or two and some hundred bytes; the longest
#: identifiers of real peers have some hundred.
_MOST = 50_000
#: How much a deflated data set may grow to, in bytes; an identifier as it is received is at most as long.
_INFLATED = 16 << 20
#: How much of a deflated instance is inflated to find its attributes.
_INFLATED_HEAD = 4 << 20

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF

_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = {code: code.decode() for code in b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()}
#: Text whose encoding Specific Character Set governs (PS3.5 6.1.2.2), and text always in the default repertoire.
_CHARSET_VRS = frozenset(["LO", "LT", "PN", "SH", "ST", "UC", "UT"])
_ASCII_VRS = frozenset(["AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"])
_TEXT_VRS = _CHARSET_VRS | _ASCII_VRS
_PLAIN = _TEXT_VRS | {"AT", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"}
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_SIZES = {vr: Struct("<" + code).size for vr, code in _NUMBERS.items()}
#: Text in which a backslash is a character, not a delimiter (PS3.5 Table 6.2-1).
SINGLE_VALUED_VRS = frozenset(["LT", "ST", "UT", "UR"])


@lru_cache(maxsize=8192)  # bounded, because a peer chooses the tags
def vr_of(tag: int) -> str:
    """Return the VR of a public attribute, ``"UN"`` for others; where PS3.6 leaves a choice, the first."""
    if tag & 0xFFFF == 0:
        return "UL"
    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    try:
        return str(dictionary_VR(tag))[:2]
    except KeyError:
        return "UN"


@lru_cache(maxsize=8192)
def is_multiple(tag: int) -> bool:
    """Say whether PS3.6 allows the attribute several values."""
    try:
        return dictionary_VM(tag) != "1"
    except KeyError:
        return False


# Character sets


def _plain(term: str) -> str:
    """Return a defined term without the differences that writers get wrong: case, and which separators."""
    return re.sub(r"[-_ ]+", " ", term.strip().upper())


_ENCODINGS = {_plain(term): encoding for term, encoding in python_encoding.items()}
_DEFAULT_ENCODING = (
    "latin-1"  # ISO_IR 6, and what is most often meant where other characters come without a character set
)
_DELIMITERS = re.compile(rb"[\t\n\f\r\\^=]")
_FRAGMENTS = re.compile(rb"\x1b[^\x1b]*|[^\x1b]+")


def encodings_of(terms: str) -> tuple[str, ...]:
    """Return the Python codecs for a Specific Character Set (PS3.3 C.12.1.1.2); unknown terms mean Latin-1."""
    return tuple(_ENCODINGS.get(_plain(term), _DEFAULT_ENCODING) for term in terms.split("\\"))


def _decode_fragment(fragment: bytes, first: str) -> str:
    """Decode what follows an escape sequence, up to the next one (PS3.5 6.1.2.5)."""
    size = 4 if fragment[1:3] in (b"$(", b"$)") else 3
    encoding = CODES_TO_ENCODINGS.get(fragment[:size])
    if encoding is None:
        return fragment.decode(first, "replace")
    if encoding in ("iso2022_jp", "iso2022_jp_2"):  # stateful codecs: the escape sequence is theirs
        return fragment.decode(encoding, "replace")
    fragment = fragment[size:]
    # Behind a delimiter the first character set is in force again (PS3.5 6.1.2.5.3).
    end = _DELIMITERS.search(fragment)
    if end is None or encoding == first:
        return fragment.decode(encoding, "replace")
    return fragment[: end.start()].decode(encoding, "replace") + fragment[end.start() :].decode(first, "replace")


def decode_text(raw: bytes, encodings: Sequence[str]) -> str:
    """Decode a text value; never fails, bytes without meaning become U+FFFD.

    :param encodings: Python codecs, the first of which is in force at the begin of the value.
    """
    first = encodings[0] if encodings else _DEFAULT_ENCODING
    if b"\x1b" not in raw:
        return raw.decode() if raw.isascii() else raw.decode(first, "replace")
    return "".join(
        _decode_fragment(part, first) if part[0] == 0x1B else part.decode(first, "replace")
        for part in _FRAGMENTS.findall(raw)
    )


# Decoding


#: Tag, VR, and the value as it is encoded, or the items of a sequence.
_Raw: TypeAlias = "tuple[int, str, bytes | list[list[_Raw]]]"


class _Layout(NamedTuple):
    """How one transfer syntax encodes the head of an element."""

    explicit: bool
    order: str
    tagged: Struct  # group, element, 32-bit length
    short: Struct  # group, element, VR, 16-bit length
    long: Struct


def _layout(*, explicit: bool, order: str) -> _Layout:
    return _Layout(explicit, order, Struct(f"{order}HHI"), Struct(f"{order}HH2sH"), Struct(f"{order}I"))


_IMPLICIT = _layout(explicit=False, order="<")
_EXPLICIT = _layout(explicit=True, order="<")
_BIG = _layout(explicit=True, order=">")
_LAYOUTS = {IMPLICIT_VR_LITTLE_ENDIAN: _IMPLICIT, EXPLICIT_VR_BIG_ENDIAN: _BIG}

Buffer = bytes | memoryview


class _Truncated(Exception):
    """The data end inside an element."""


class _Reader:
    """Cuts a data set into elements.

    :param wanted: tags of the top level to keep; ``None`` keeps all.
    """

    __slots__ = ("_data", "_left", "_stop", "_wanted")

    def __init__(self, data: Buffer, wanted: frozenset[int] | None = None, stop: int = _UNDEFINED) -> None:
        self._data = data
        self._wanted = wanted
        self._stop = stop
        self._left = _MOST

    def _head(self, layout: _Layout, position: int) -> tuple[int, str | None, int, int]:
        """Return tag, VR (``None`` if implicit), length and the position of the value."""
        data = self._data
        try:
            if not layout.explicit:
                group, number, length = layout.tagged.unpack_from(data, position)
                return group << 16 | number, None, length, position + 8
            group, number, vr, length = layout.short.unpack_from(data, position)
            tag = group << 16 | number
            if group == 0xFFFE or not (
                vr.isalpha() and vr.isupper()
            ):  # a delimiter, or a writer that fell back to implicit
                return tag, None, layout.long.unpack_from(data, position + 4)[0], position + 8
            if vr in _LONG:
                return tag, vr.decode("ascii"), layout.long.unpack_from(data, position + 8)[0], position + 12
            return tag, vr.decode("ascii"), length, position + 8
        except error:
            raise _Truncated from None

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise DataSetError(f"a data set has more than {_MOST} elements and items")

    def elements(self, layout: _Layout, position: int, end: int | None, depth: int, into: list[_Raw]) -> int:
        """Append what is between *position* and *end*, or the item's delimiter, to *into*; return where that ends."""
        top = depth == 0
        limit = len(self._data) if end is None else end
        while position < limit:
            if top and self._wanted is not None:
                position = self._plain(layout, position, self._wanted, into)
                if position >= limit:
                    return position
            tag, vr, length, start = self._head(layout, position)
            self._count()
            if tag == _ITEM_END:
                return start
            if top and tag >= self._stop:
                return position
            position = self._value(layout, tag, vr, length, start, limit, depth, into)
        if end is None and not top:
            raise _Truncated
        return position

    def _plain(self, layout: _Layout, position: int, wanted: frozenset[int], into: list[_Raw]) -> int:
        """Take plain elements that are wanted and jump over those that are not; return where one begins that is neither.

        This is all that most instances need; :meth:`_value` knows the rest.
        """
        data, stop, end = self._data, self._stop, len(self._data)
        unpack = layout.short.unpack_from if layout.explicit else layout.tagged.unpack_from
        unpack_length = layout.long.unpack_from
        try:
            while position < end:
                start = position + 8
                if layout.explicit:
                    group, number, code, length = unpack(data, position)
                    vr = _SHORT.get(code)
                    if vr is None:
                        if code not in _LONG:
                            return position
                        (length,) = unpack_length(data, start)
                        start += 4
                    tag = group << 16 | number
                else:
                    group, number, length = unpack(data, position)
                    tag = group << 16 | number
                    vr = vr_of(tag) if tag in wanted else None
                if tag >= stop or length == _UNDEFINED:
                    return position
                if tag in wanted:
                    if vr not in _PLAIN or start + length > end:
                        return position
                    into.append((tag, vr, bytes(data[start : start + length])))
                position = start + length
        except error:  # less than a header is left
            pass
        return position

    def _value(
        self,
        layout: _Layout,
        tag: int,
        vr: str | None,
        length: int,
        start: int,
        limit: int,
        depth: int,
        into: list[_Raw],
    ) -> int:
        keep = depth > 0 or self._wanted is None or tag in self._wanted
        if length != _UNDEFINED and start + length > limit:
            raise _Truncated
        if not keep:
            return self._behind(_IMPLICIT if vr == "UN" else layout, start) if length == _UNDEFINED else start + length
        if vr is None or vr == "UN":
            known = vr_of(tag)
            if vr == "UN" and known == "SQ":
                layout = _IMPLICIT  # PS3.5 6.2.2, note 4: what is inside of UN is Implicit VR Little Endian
            vr = known if known != "UN" else "SQ" if length == _UNDEFINED else "UN"
        if vr == "SQ":
            items: list[list[_Raw]] = []
            end = self._items(layout, start, None if length == _UNDEFINED else start + length, depth + 1, items)
            into.append((tag, vr, items))
            return end
        if length == _UNDEFINED:  # encapsulated pixel data
            return self._behind(layout, start)
        into.append((tag, vr, bytes(self._data[start : start + length])))
        return start + length

    def _behind(self, layout: _Layout, position: int) -> int:
        """Return the position behind the delimiter that ends a value of undefined length; no depth is too much."""
        layouts = [layout]
        while layouts:
            tag, vr, length, position = self._head(layouts[-1], position)
            if tag in (_ITEM_END, _SEQUENCE_END):
                layouts.pop()
            elif length == _UNDEFINED:
                layouts.append(_IMPLICIT if vr == "UN" else layouts[-1])
            else:
                position += length
        return position

    def _items(self, layout: _Layout, position: int, end: int | None, depth: int, into: list[list[_Raw]]) -> int:
        if depth > _NESTING:
            raise DataSetError(f"sequences are nested more than {_NESTING} levels deep")
        limit = len(self._data) if end is None else end
        while position < limit:
            tag, _, length, start = self._head(layout, position)
            self._count()
            if tag == _SEQUENCE_END:
                return start
            if tag != _ITEM:
                raise DataSetError(f"an item of a sequence is expected, not {tag_text(tag)}")
            if length != _UNDEFINED and start + length > limit:
                raise _Truncated
            item: list[_Raw] = []
            position = self.elements(layout, start, None if length == _UNDEFINED else start + length, depth, item)
            into.append(item)
        if end is None:
            raise _Truncated
        return position


def tag_text(tag: int) -> str:
    """Write *tag* as the standard does: ``(0010,0020)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _number(tag: int, vr: str, raw: bytes, order: str) -> Value:
    if not raw:
        return ""
    size = 4 if vr == "AT" else _SIZES[vr]
    if len(raw) % size:
        raise DataSetError(f"{tag_text(tag)} has {len(raw)} bytes, which is no multiple of {size}")
    if vr == "AT":
        halves = unpack_from(f"{order}{len(raw) // 2}H", raw)
        numbers = [high << 16 | low for high, low in zip(halves[::2], halves[1::2], strict=True)]
    else:
        numbers = list(unpack_from(f"{order}{len(raw) // size}{_NUMBERS[vr]}", raw))
    return numbers[0] if len(numbers) == 1 else numbers


def _text(tag: int, vr: str, raw: bytes, encodings: Sequence[str]) -> str | list[str]:
    text = (decode_text(raw, encodings) if vr in _CHARSET_VRS else raw.decode("latin-1")).rstrip(" \0")
    if "\\" in text and vr not in SINGLE_VALUED_VRS and is_multiple(tag):
        return [part.rstrip(" \0") for part in text.split("\\")]
    return text


def _cook(raws: Sequence[_Raw], order: str, encodings: Sequence[str], *, strict: bool) -> Attributes:
    """Turn bytes into values, now that the character set is known."""
    for tag, _, value in raws:
        if tag == SPECIFIC_CHARACTER_SET and isinstance(value, bytes) and value.strip(b" \0"):
            encodings = encodings_of(value.decode("latin-1").rstrip(" \0"))
    found: Attributes = {}
    for tag, vr, value in raws:
        if not isinstance(value, bytes):
            found[tag] = Element(vr, [_cook(item, order, encodings, strict=strict) for item in value])
        elif vr in _TEXT_VRS:
            if value.isascii() and b"\x1b" not in value and b"\\" not in value:
                found[tag] = Element(vr, value.decode().rstrip(" \0"))
            else:
                found[tag] = Element(vr, _text(tag, vr, value, encodings))
        elif vr in _NUMBERS or vr == "AT":
            try:
                found[tag] = Element(vr, _number(tag, vr, value, order))
            except DataSetError:
                if strict:
                    raise
        else:
            found[tag] = Element(vr, value)
    return found


def _inflate(data: Buffer, limit: int) -> tuple[bytes, bool]:
    """Return at most *limit* inflated bytes, and whether that is all."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, limit)
    except zlib.error:
        raise DataSetError("a deflated data set cannot be inflated") from None
    return inflated, inflater.eof


def decode_data_set(data: Buffer, transfer_syntax: str) -> Attributes:
    """Decode an identifier whole: every element, sequences included.

    :param transfer_syntax: UID; any but the four native ones is taken for Explicit VR Little Endian.
    :raises DataSetError: it is truncated or malformed, nested over 32 levels, has over 50 000 elements and items, or
        inflates to over 16 MiB.
    """
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        data, whole = _inflate(data, _INFLATED)
        if not whole:
            raise DataSetError(f"a deflated data set is truncated, or longer than {_INFLATED} bytes")
    layout = _LAYOUTS.get(transfer_syntax, _EXPLICIT)
    raws: list[_Raw] = []
    try:
        end = _Reader(data).elements(layout, 0, None, 0, raws)
    except _Truncated:
        end = -1
    if end != len(data):
        raise DataSetError("a data set ends inside an element")
    return _cook(raws, layout.order, (), strict=True)


def decode_head(data: Buffer, transfer_syntax: str, wanted: frozenset[int]) -> Attributes:
    """Decode *wanted* elements of the top level of a stored instance, as far as they can be read.

    Damage is tolerated, because an instance is stored byte for byte whatever it holds: reading ends where the data make
    no sense. Values that are not wanted are jumped over, pixel data never looked at.

    :param data: the data set, or its first part (deflated if the transfer syntax is).
    """
    layout = _LAYOUTS.get(transfer_syntax, _EXPLICIT)
    raws: list[_Raw] = []
    try:
        if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            data, _ = _inflate(data, _INFLATED_HEAD)
        # Tags ascend (PS3.5 7.1); what comes behind the last wanted one need not be read.
        _Reader(data, wanted | {SPECIFIC_CHARACTER_SET}, max(wanted) + 1).elements(layout, 0, None, 0, raws)
    except (_Truncated, DataSetError):
        pass
    return _cook(raws, layout.order, (), strict=False)


def from_dataset(ds: Dataset) -> Attributes:
    """Take the values out of a pydicom data set, as :func:`decode_data_set` would."""
    found: Attributes = {}
    for element in ds:
        tag, vr, value = int(element.tag), str(element.VR)[:2], element.value
        if vr == "SQ":
            found[tag] = Element(vr, [from_dataset(item) for item in value or ()])
        elif value is None or (isinstance(value, Sequence) and not value):
            found[tag] = Element(vr, "")
        elif vr in _TEXT_VRS:
            several = not isinstance(value, str) and isinstance(value, Sequence)
            parts = [_dataset_text(part) for part in value] if several else [_dataset_text(value)]
            text = "\\".join(parts)
            multiple = len(parts) > 1 and vr not in SINGLE_VALUED_VRS and is_multiple(tag)
            found[tag] = Element(vr, parts if multiple else text)
        elif vr in _NUMBERS or vr == "AT":
            convert: Callable[[int | float], int | float] = float if vr in ("FL", "FD") else int
            numbers = [convert(v) for v in value] if isinstance(value, Sequence) else [convert(value)]
            found[tag] = Element(vr, numbers[0] if len(numbers) == 1 else numbers)
        else:
            found[tag] = Element(vr, value if isinstance(value, bytes) else b"")
    return found


def _dataset_text(value: object) -> str:
    """Return one text value as it was written: pydicom keeps the original of numbers, dates and times."""
    original = getattr(value, "original_string", None)
    return (original if isinstance(original, str) else str(value)).rstrip(" \0")


# Encoding

#: (defined term, Python codec) in the order of preference: none needed, Latin-1, UTF-8.
_CHARSETS = {"": "ascii", "ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}


def _charset(charset: str) -> tuple[str, str]:
    """Return the codec and its error handler: only in UTF-8 can everything be said."""
    encoding = _CHARSETS.get(charset)
    if encoding is None:
        raise DataSetError(
            f"identifiers are encoded in ISO_IR 100, ISO_IR 192 or the default repertoire, not in {charset!r}"
        )
    return encoding, "replace" if encoding == "utf-8" else "strict"


class _Head(NamedTuple):
    """What comes in front of a value."""

    prefix: bytes  # up to the length
    long: bool  # the length has 32 bits
    kind: int  # of the value: see below
    pad: bytes


_TEXT, _ASCII, _NUMERIC, _SEQUENCE, _BYTES = range(5)


@lru_cache(maxsize=8192)  # bounded, because a peer chooses the tags
def _encoded_head(tag: int, vr: str, explicit: bool, order: str) -> _Head:
    number = pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if vr in _CHARSET_VRS:
        kind = _TEXT
    elif vr in _ASCII_VRS:
        kind = _ASCII
    elif vr in _NUMBERS or vr == "AT":
        kind = _NUMERIC
    else:
        kind = _SEQUENCE if vr == "SQ" else _BYTES
    pad = b"\0" if vr == "UI" or kind == _BYTES else b" "
    if not explicit:
        return _Head(number, True, kind, pad)
    code = vr.encode("ascii")
    return _Head(number + code + b"\0\0", True, kind, pad) if code in _LONG else _Head(number + code, False, kind, pad)


def _pack_numbers(vr: str, value: Value, order: str) -> bytes:
    numbers: Sequence[object] = value if isinstance(value, list) else (value,)
    try:
        if vr == "AT":
            return b"".join(pack(f"{order}HH", int(str(n)) >> 16, int(str(n)) & 0xFFFF) for n in numbers)
        return pack(f"{order}{len(numbers)}{_NUMBERS[vr]}", *numbers)
    except (error, ValueError):
        raise DataSetError(f"a value cannot be encoded as {vr}") from None


def suits(vr: str, value: Value) -> bool:
    """Say whether a value can be encoded with a VR; files exist in which attributes have another than their own."""
    if vr in _TEXT_VRS:
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
    if vr == "SQ":
        return isinstance(value, list) and all(isinstance(item, dict) for item in value)
    if vr not in _NUMBERS and vr != "AT":
        return isinstance(value, bytes)
    try:
        _pack_numbers(vr, value, "<")
    except DataSetError:
        return False
    return not isinstance(value, str)


class IdentifierWriter:
    """Encodes identifiers that all have the same elements: the heads are made once.

    :param columns: tag and VR of each element, ascending, without Specific Character Set.
    :param transfer_syntax: UID of one of the four native transfer syntaxes.
    :raises DataSetError: the transfer syntax is another one.
    """

    def __init__(self, columns: Iterable[tuple[int, str]], transfer_syntax: str) -> None:
        if transfer_syntax not in (
            IMPLICIT_VR_LITTLE_ENDIAN,
            EXPLICIT_VR_LITTLE_ENDIAN,
            DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            EXPLICIT_VR_BIG_ENDIAN,
        ):
            raise DataSetError(f"identifiers are not encoded in transfer syntax {transfer_syntax}")
        layout = _LAYOUTS.get(transfer_syntax, _EXPLICIT)
        self._explicit, self._order = layout.explicit, layout.order
        self._deflated = transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
        self._columns = [(vr, *_encoded_head(tag, vr, self._explicit, self._order)) for tag, vr in columns]
        self._short, self._long = Struct(f"{self._order}H").pack, Struct(f"{self._order}I").pack

    def encode(self, values: Iterable[Value], charset: str | None = None) -> bytes:
        """Encode one identifier.

        :param values: one for each column; ``""`` is an empty element.
        :param charset: defined term of Specific Character Set, ``""`` for the default repertoire; ``None`` takes the
            first that suffices of the default repertoire, ISO_IR 100 and ISO_IR 192.
        :raises DataSetError: a value does not fit its VR, or the character set.
        """
        values = list(values)
        for term in _CHARSETS if charset is None else (charset,):
            try:
                body = self._body(values, *_charset(term))
            except UnicodeEncodeError:
                continue
            if term:
                body = self._element(SPECIFIC_CHARACTER_SET, "CS", term.encode("ascii")) + body
            if self._deflated:
                deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
                body = deflater.compress(body) + deflater.flush()
                body += b"\0" * (len(body) & 1)  # PS3.5 A.5
            return body
        raise DataSetError(f"a value cannot be encoded in character set {charset!r}")

    def _element(self, tag: int, vr: str, raw: bytes) -> bytes:
        head = _encoded_head(tag, vr, self._explicit, self._order)
        raw += head.pad * (len(raw) & 1)
        return head.prefix + (self._long if head.long else self._short)(len(raw)) + raw

    def _body(self, values: Sequence[Value], encoding: str, errors: str) -> bytes:
        parts: list[bytes] = []
        short, long_ = self._short, self._long
        for (vr, prefix, is_long, kind, pad), value in zip(self._columns, values, strict=True):
            if value == "" or value is None:
                raw = b""
            elif kind <= _ASCII:
                if type(value) is not str:
                    value = "\\".join(map(str, value)) if isinstance(value, list) else str(value)
                raw = value.encode(encoding, errors) if kind == _TEXT else value.encode("latin-1", "replace")
            elif kind == _NUMERIC:
                raw = _pack_numbers(vr, value, self._order)
            elif kind == _SEQUENCE:
                raw = self._sequence(value, encoding, errors)
            else:
                raw = value if isinstance(value, bytes) else b""
            size = len(raw)
            if size & 1:
                raw += pad
                size += 1
            if is_long:
                parts += (prefix, long_(size), raw)
            elif size < 0x10000:
                parts += (prefix, short(size), raw)
            else:  # too long for a 16-bit length: "encoded with a VR of UN" (PS3.5 6.2.2)
                parts += (prefix[:4], b"UN\0\0", long_(size), raw)
        return b"".join(parts)

    def _sequence(self, value: Value, encoding: str, errors: str) -> bytes:
        parts: list[bytes] = []
        for item in value if isinstance(value, list) else ():
            if not isinstance(item, Mapping):
                raise DataSetError("the value of a sequence is a list of items")
            tags = sorted(tag for tag in item if tag != SPECIFIC_CHARACTER_SET)
            syntax = EXPLICIT_VR_BIG_ENDIAN if self._order == ">" else EXPLICIT_VR_LITTLE_ENDIAN
            syntax = syntax if self._explicit else IMPLICIT_VR_LITTLE_ENDIAN
            writer = IdentifierWriter([(tag, item[tag].vr) for tag in tags], syntax)
            raw = writer._body([item[tag].value for tag in tags], encoding, errors)
            parts += (pack(f"{self._order}HHI", _ITEM >> 16, _ITEM & 0xFFFF, len(raw)), raw)
        return b"".join(parts)


def encode_identifier(
    elements: Iterable[tuple[int, str, Value]], transfer_syntax: str, charset: str | None = None
) -> bytes:
    """Encode an identifier.

    :param elements: (tag, VR, value), in any order; Specific Character Set among them is replaced by *charset*.
    :param transfer_syntax: UID of a native transfer syntax.
    :param charset: see :meth:`IdentifierWriter.encode`.
    :raises DataSetError: a value does not fit its VR, or the character set.
    """
    ordered = sorted((e for e in elements if e[0] != SPECIFIC_CHARACTER_SET), key=lambda element: element[0])
    writer = IdentifierWriter([(tag, vr) for tag, vr, _ in ordered], transfer_syntax)
    return writer.encode([value for _, _, value in ordered], charset)


for _codec in set(_ENCODINGS.values()):
    codecs.lookup(_codec)  # fail at import, not at the first patient of a hospital in another country
