"""Fit an identifier to what one value may hold, and to what a peer understands (:class:`~asyncdicom.PeerProfile`).

An identifier that cannot be sent as it is becomes others that mean the same together: a list of UIDs that is too long for a
value (PS3.5 7.1.2) becomes several lists, a range of dates that a peer does not match becomes its days. They are asked for
in turn. Where there is no such way the query is refused, before anything of it is sent: no key is ever left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .exceptions import LocalProtocolError

if TYPE_CHECKING:
    from datetime import date

    from pydicom import DataElement, Dataset
    from pydicom.dataelem import RawDataElement

    from .settings import PeerProfile

__all__ = ["LONGEST", "divide", "fit"]

#: The longest value of an element with VR UI in Explicit VR, in bytes (PS3.5 7.1.2).
LONGEST = 65534

#: Most days that a range of dates is divided into.
_MOST_DAYS = 366

_DATES = frozenset({"DA", "TM", "DT"})
#: VRs to which wild card matching applies (PS3.4 C.2.2.2.4), and those of dates, in which some send wildcards all the same.
_WILD = _DATES | {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
_PREFIX = re.compile(r"(\d{4}|\d{6}|\d{8})\*")
#: A date and time with an offset from UTC, which is no range: offsets go from -1200 to +1400 (PS3.5 6.2, DT).
_WITH_OFFSET = re.compile(r"[\d.]+-(?:0\d|1[0-2])\d\d")

#: Where an element is: the tags of the sequences around it, each with one item, and its own.
_Path = tuple[int, ...]


class _Division(NamedTuple):
    """A key that takes several requests, and its value in each of them."""

    path: _Path
    name: str
    values: Sequence[str | list[str]]


def divide(uids: Iterable[str], *, lists: bool = True) -> Iterator[list[str]]:
    """Divide UIDs into lists that fit into a value, without saying any twice; without ``lists``, one by one."""
    chunk: list[str] = []
    size = -1
    for uid in dict.fromkeys(uids):
        size += len(uid) + 1
        if chunk and (size > LONGEST or not lists):
            yield chunk
            chunk = []
            size = len(uid)
        chunk.append(uid)
    if chunk:
        yield chunk


def fit(identifier: Dataset, profile: PeerProfile) -> list[Dataset]:
    """Return the identifiers to ask by, in turn: the one that is given, unless that cannot be; it is not changed.

    :raises LocalProtocolError: the peer understands a key in no way, or more than one key takes several requests.
    """
    suits_dates = profile.date_ranges and profile.date_wildcards and profile.universal_wildcard
    changes: dict[_Path, str] = {}
    divisions: list[_Division] = []
    for tag, raw in list(identifier.items()):
        if not suits_dates:
            _look_for_dates(identifier[tag], (int(tag),), profile, changes, divisions)
        if raw.VR == "UI" or raw.VR is None:  # None: it is still encoded, in Implicit VR
            division = _divide_uids(identifier, raw, lists=profile.uid_lists)
            if division is not None:
                divisions.append(division)
    for path, text in changes.items():
        identifier = _replaced(identifier, path, text)
    if not divisions:
        return [identifier]
    if len(divisions) > 1:
        names = " and ".join(division.name for division in divisions)
        raise LocalProtocolError(f"{names} would each take several requests: only one key of a query may")
    ((path, _, values),) = divisions
    return [_replaced(identifier, path, value) for value in values]


def _divide_uids(identifier: Dataset, raw: DataElement | RawDataElement, *, lists: bool) -> _Division | None:
    """Return how a list of UIDs is divided that does not fit, or that the peer does not understand."""
    value: Any = raw.value
    if not value or isinstance(value, str):
        return None
    if isinstance(value, bytes) and (len(value) <= LONGEST if lists else b"\\" not in value):
        return None  # not worth decoding
    element = identifier[raw.tag]
    value = element.value
    if element.VR != "UI" or isinstance(value, str):
        return None
    chunks = list(divide(map(str, value), lists=lists))
    if len(chunks) == 1:
        return None
    _check_single(element)
    return _Division((int(raw.tag),), element.keyword or str(element.tag), chunks)


def _check_single(element: DataElement) -> None:
    """Check that entities have one value of an attribute, so that none answers to two parts of a list."""
    from pydicom.datadict import dictionary_VM

    try:
        single = dictionary_VM(element.tag) == "1"
    except KeyError:
        single = True
    if not single:
        name = element.keyword or str(element.tag)
        raise LocalProtocolError(
            f"{name} has too many values for one request, and cannot be divided: it has several itself"
        )


def _look_for_dates(
    element: DataElement, path: _Path, profile: PeerProfile, changes: dict[_Path, str], divisions: list[_Division]
) -> None:
    """Note what has to be said in another way in an element, and in the item of a sequence."""
    if element.VR == "SQ":
        items: Any = element.value or ()
        if len(items) == 1:
            for inner in items[0]:
                _look_for_dates(inner, (*path, int(inner.tag)), profile, changes, divisions)
        return
    if element.VR not in _WILD or (not isinstance(element.value, str) and element.VR != "PN"):
        return
    text = str(element.value).strip()
    name = element.keyword or str(element.tag)
    said = _say(text, element.VR, name, profile)
    if isinstance(said, list):
        divisions.append(_Division(path, name, said))
    elif said != text:
        changes[path] = said


def _say(text: str, vr: str, name: str, profile: PeerProfile) -> str | list[str]:
    """Return how the value of a key is said to the peer, or the values that mean it together."""
    is_date = vr in _DATES
    if text == "*" and not (profile.universal_wildcard and (profile.date_wildcards or not is_date)):
        return ""
    if not is_date:
        return text
    if ("*" in text or "?" in text) and text != "*" and not profile.date_wildcards:
        prefix = _PREFIX.fullmatch(text) if vr == "DA" else None
        if prefix is None:
            raise _misunderstood(name, "wildcards in dates")
        text = _range_of(prefix[1], name)
    if "-" in text and not profile.date_ranges and not (vr == "DT" and _WITH_OFFSET.fullmatch(text)):
        first, _, last = text.partition("-")
        if vr != "DA" or not first.strip() or not last.strip():
            raise _misunderstood(name, "ranges, and only a closed range of dates can be divided into its days")
        return _days(first, last, name)
    return text


def _misunderstood(name: str, what: str) -> LocalProtocolError:
    return LocalProtocolError(f"{name}: the profile of the peer says that it does not understand {what}")


def _range_of(prefix: str, name: str) -> str:
    """Return the range of a year or a month, or a day."""
    if len(prefix) == 8:
        return prefix
    if len(prefix) == 4:
        return f"{prefix}0101-{prefix}1231"
    from datetime import timedelta

    first = _day(f"{prefix}01", name)
    following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
    return f"{first:%Y%m%d}-{following - timedelta(days=1):%Y%m%d}"


def _days(first: str, last: str, name: str) -> list[str]:
    """Return the days from one to another."""
    from datetime import timedelta

    start, end = _day(first, name), _day(last, name)
    count = (end - start).days + 1
    if not 1 <= count <= _MOST_DAYS:
        raise LocalProtocolError(
            f"{name}: a range of {count} days cannot be divided into its days for a peer that does not understand ranges: "
            f"expected 1 to {_MOST_DAYS}"
        )
    return [f"{start + timedelta(days=day):%Y%m%d}" for day in range(count)]


def _day(text: str, name: str) -> date:
    from datetime import date  # not when the package is imported: that takes a millisecond

    digits = text.strip().replace(".", "")  # with dots before 1993 (PS3.5 6.2, DA)
    try:
        if len(digits) != 8 or not digits.isascii() or not digits.isdigit():
            raise ValueError
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        raise LocalProtocolError(f"{name}: its range does not go from one date to another") from None


def _replaced(identifier: Dataset, path: _Path, value: str | list[str]) -> Dataset:
    """Return a copy of an identifier in which one value is another."""
    from pydicom import DataElement, Dataset
    from pydicom.config import IGNORE

    tag, *inner = path
    changed = Dataset()
    changed.update(identifier)
    element = identifier[tag]
    if inner:
        value = [_replaced(element.value[0], tuple(inner), value)]  # type: ignore[list-item]
    # What is in it was there before: it need not be judged again, which takes longest of all.
    changed[tag] = DataElement(tag, element.VR, value, validation_mode=IGNORE)
    return changed
