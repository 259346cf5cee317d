"""Walk over encoded data elements without pydicom (PS3.5 section 7.1).

Storing, forwarding and indexing need a handful of values from the head of a data set, for each instance that passes.
So this module reads element headers with :mod:`struct`, copies only the values that are asked for and jumps over
everything else.

Theory of operation. A walk is a loop over the top level. Values of defined length are jumped over, sequences too;
only a value of undefined length has to be followed to its delimiter, with a stack instead of recursion. Each header
is read once, so the time is linear in the data whatever they claim. The data may end anywhere: a walk ends at the
first element that is not there in full, and says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from struct import Struct, error
from typing import NamedTuple

from . import sop
from ._deflate import inflate_head

__all__ = [
    "LONG_VRS",
    "SHORT_VRS",
    "UNDEFINED",
    "Encoding",
    "Head",
    "RawElement",
    "encoding_of",
    "safe_uid",
    "scan",
    "scan_head",
    "tag_text",
    "walk",
]

#: The length that means "up to the delimiter" (PS3.5 7.1).
UNDEFINED = 0xFFFFFFFF

ITEM = 0xFFFEE000
ITEM_DELIMITER = 0xFFFEE00D
SEQUENCE_DELIMITER = 0xFFFEE0DD

#: Value representations with a 16-bit length in explicit VR (PS3.5 Table 7.1-2), and with a 32-bit length (Table
#: 7.1-1).
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())

#: How deep values of undefined length are followed before the walk gives up.
NESTING = 256

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")


class Encoding(NamedTuple):
    """How a transfer syntax encodes data elements (PS3.5 section 10 and Annex A)."""

    explicit: bool
    little: bool
    deflated: bool


_EXPLICIT_LITTLE = Encoding(explicit=True, little=True, deflated=False)
_ENCODINGS: dict[str, Encoding] = {}


def encoding_of(transfer_syntax: str) -> Encoding:
    """Return how *transfer_syntax* encodes elements; an unknown one is taken for Explicit VR Little Endian."""
    encoding = _ENCODINGS.get(transfer_syntax)
    if encoding is None:
        known = sop.transfer_syntax(transfer_syntax)
        encoding = Encoding(not known.is_implicit_vr, known.is_little_endian, known.is_deflated)
        if len(_ENCODINGS) < 256:  # a peer chooses the names, so they must not fill the memory
            _ENCODINGS[transfer_syntax] = encoding
    return encoding


class RawElement(NamedTuple):
    """One element as it is encoded.

    :ivar tag: group and element number as one integer, ``0x00100010``.
    :ivar vr: two letters, or ``None`` where the VR is implicit.
    :ivar offset: where the value begins, in bytes from the begin of the (inflated) data set.
    :ivar length: bytes of the value; for an undefined length those up to the delimiter.
    :ivar value: the bytes, as they are; empty for a value of undefined length.
    """

    tag: int
    vr: bytes | None
    offset: int
    length: int
    value: bytes


class Layout(NamedTuple):
    """The compiled formats of one byte order: explicit header, implicit header, 32-bit length."""

    explicit: Struct
    implicit: Struct
    length: Struct


LAYOUTS = {
    True: Layout(Struct("<HH2sH"), Struct("<HHI"), Struct("<I")),
    False: Layout(Struct(">HH2sH"), Struct(">HHI"), Struct(">I")),
}


def tag_text(tag: int) -> str:
    """Write *tag* as the standard does: ``(0010,0020)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def is_vr(letters: bytes) -> bool:
    """Say whether two octets have the form of a VR, known or not."""
    return letters.isalpha() and letters.isupper()


def safe_uid(uid: str) -> bool:
    """Say whether *uid* may name an instance, and a file: digits and dots, no empty component, at most 64 characters.

    Leading zeros, which PS3.5 section 9.1 forbids, are tolerated because devices in use send them.
    """
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def uid_text(value: bytes) -> str:
    """Decode the value of a UI element; padding is taken off, whatever it is."""
    return value.decode("latin-1").strip("\0 ")


def end_of_undefined(data: bytes | memoryview, position: int, end: int, *, explicit: bool, little: bool) -> int:
    """Follow a value of undefined length from *position* to the octet behind its delimiter.

    Serves sequences and encapsulated pixel data alike. Returns -1 when the data end before the delimiter does, or
    make no sense.
    """
    header, implicit_header, length_only = LAYOUTS[little]
    in_sequence = [True]  # what we are inside of: a sequence (its items follow) or an item (its elements follow)
    while position + 8 <= end:
        if in_sequence[-1] or not explicit:
            group, element, length = implicit_header.unpack_from(data, position)
            position += 8
        else:
            group, element, vr, length = header.unpack_from(data, position)
            if vr in LONG_VRS:
                if position + 12 > end:
                    return -1
                (length,) = length_only.unpack_from(data, position + 8)
                position += 12
            else:
                if vr not in SHORT_VRS and not is_vr(vr):  # delimiters, and writers that fall back to implicit VR
                    group, element, length = implicit_header.unpack_from(data, position)
                position += 8
        tag = group << 16 | element
        if in_sequence[-1]:
            if tag == SEQUENCE_DELIMITER:
                in_sequence.pop()
                if not in_sequence:
                    return position
            elif tag != ITEM:
                return -1
            elif length == UNDEFINED:
                in_sequence.append(False)
            else:
                position += length
        elif tag == ITEM_DELIMITER:
            in_sequence.pop()
        elif length == UNDEFINED:
            if len(in_sequence) > 2 * NESTING:
                return -1
            in_sequence.append(True)
        else:
            position += length
    return -1


def walk(
    data: bytes | memoryview, *, explicit: bool, little: bool, stop: int, wanted: frozenset[int] | None
) -> tuple[dict[int, RawElement], bool]:
    """Collect the elements with tags below *stop*, those in *wanted* only; say whether the walk got that far.

    The second value is false when *data* ended before an element with a tag of *stop* or above was seen.
    """
    found: dict[int, RawElement] = {}
    header, implicit_header, length_only = LAYOUTS[little]
    unpack = header.unpack_from if explicit else implicit_header.unpack_from
    unpack_length = length_only.unpack_from
    short, long = SHORT_VRS, LONG_VRS
    position, end = 0, len(data)
    vr: bytes | None = None
    try:
        while position < end:
            if explicit:
                group, element, vr, length = unpack(data, position)
                tag = group << 16 | element
                if tag >= stop:
                    return found, True
                position += 8
                if vr not in short:
                    if vr in long:
                        (length,) = unpack_length(data, position)
                        position += 4
                    elif not is_vr(vr):  # a writer that fell back to implicit VR
                        vr = None
                        (length,) = unpack_length(data, position - 4)
            else:
                group, element, length = unpack(data, position)
                tag = group << 16 | element
                if tag >= stop:
                    return found, True
                position += 8
            if length != UNDEFINED:
                start = position
                position += length
                if position > end:
                    return found, False
                if wanted is None or tag in wanted:
                    found[tag] = RawElement(tag, vr, start, length, bytes(data[start:position]))
                continue
            start = position
            position = end_of_undefined(data, start, end, explicit=explicit and vr != b"UN", little=little)
            if position < 0 and vr == b"UN":  # PS3.5 6.2.2 wants implicit VR in there; not every writer knows
                position = end_of_undefined(data, start, end, explicit=True, little=little)
            if position < 0:
                return found, False
            if wanted is None or tag in wanted:
                found[tag] = RawElement(tag, vr, start, position - 8 - start, b"")
    except error:  # less than a header is left
        return found, False
    return found, False


def scan(
    data: bytes | memoryview, transfer_syntax: str, *, stop: int = 0x7FE00010, wanted: frozenset[int] | None = None
) -> dict[int, RawElement]:
    """Return the top-level elements of a data set, or of the first part of one, keyed by tag.

    :param data: the encoded data set (deflated if the transfer syntax is); it may end anywhere, and elements that are
        not there in full are left out.
    :param transfer_syntax: its UID; an encapsulated or unknown one means Explicit VR Little Endian (PS3.5 A.4).
    :param stop: end at the first tag that is not below this; the default is Pixel Data.
    :param wanted: tags to collect; ``None`` collects all.
    :raises DataSetError: deflated data cannot be inflated. Nothing else is an error.
    """
    explicit, little, deflated = encoding_of(transfer_syntax)
    if deflated:
        data = inflate_head(data)
    if wanted:
        stop = min(stop, max(wanted) + 1)  # tags ascend (PS3.5 7.1), so nothing that is wanted comes later
    return walk(data, explicit=explicit, little=little, stop=stop, wanted=wanted)[0]


_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_HEAD = frozenset({_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID})


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The UIDs that say what an instance is and where it belongs; ``None`` where the data set has none.

    They are what the data set holds, not judged: see :func:`safe_uid`.
    """

    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None


def scan_head(data: bytes | memoryview, transfer_syntax: str) -> Head:
    """Return the UIDs from a data set, or from the first part of one; see :func:`scan`."""
    found = scan(data, transfer_syntax, wanted=_HEAD)

    def text(tag: int) -> str | None:
        element = found.get(tag)
        return (uid_text(element.value) or None) if element is not None else None

    return Head(
        sop_class_uid=text(_SOP_CLASS_UID),
        sop_instance_uid=text(_SOP_INSTANCE_UID),
        study_instance_uid=text(_STUDY_INSTANCE_UID),
        series_instance_uid=text(_SERIES_INSTANCE_UID),
    )
