"""Attribute matching (PS3.4 C.2.2.2): from the value of a key to a predicate, and from a predicate to yes or no.

Theory of operation. :func:`predicate` judges the value of one key and returns a small frozen object; :func:`matches`
asks it about a stored value. Nothing here knows of databases: the index translates predicates to SQL where SQL means
exactly the same, and asks :func:`matches` where it does not. Three rules hold throughout:

- A filter is never dropped. A value that makes no sense for its attribute (an impossible date, a wildcard in a UID)
  raises :class:`IdentifierError`, which is answered with 0xA900.
- An unknown (empty) stored value matches nothing but universal matching, and the key ``""`` (two quotation marks: empty
  value matching).
- Time is linear in the stored data for any pattern: wildcards are searched for from left to right, without
  backtracking.

What PS3.4 leaves open is decided so:

- A key with several values matches if one of them does; so does a stored attribute of VM 1-n.
- Dates and times match by their meaning. A value says nothing beyond its precision: the key ``1030`` stands for the
  whole minute, alone and at the end of a range. A stored value of less precision stands for its first moment.
- Person names match without regard to case. A key without ``=`` is looked for in each of the three component groups,
  one with ``=`` group by group; empty components at the end do not count, so ``Doe^*`` finds ``Doe``.
- Insignificant spaces (PS3.5 Table 6.2-1) are ignored, and text is compared in Unicode normalization form C.
"""

from __future__ import annotations

import re
import unicodedata
from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import assert_never

from ..exceptions import DataSetError
from .identifier import SINGLE_VALUED_VRS, Element, Value, tag_text, vr_of

__all__ = [
    "AnyOf",
    "Empty",
    "Equal",
    "FuzzyName",
    "IdentifierError",
    "Items",
    "Name",
    "Pattern",
    "Predicate",
    "Range",
    "Universal",
    "Wildcard",
    "comparable",
    "matches",
    "name_groups",
    "parse_offset",
    "predicate",
]

WILDCARD_VRS = frozenset(["AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])
TEXT_VRS = WILDCARD_VRS | {"AS", "UI"}
RANGE_VRS = frozenset(["DA", "TM", "DT"])
_INTEGER_VRS = frozenset(["US", "SS", "UL", "SL", "UV", "SV", "AT"])
_FLOAT_VRS = frozenset(["FL", "FD"])

_SECOND = 1_000_000  # times are counted in microseconds
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR

Comparable = str | int | float | Decimal


class IdentifierError(DataSetError):
    """An identifier asks for what the model forbids, or for what makes no sense; answered with 0xA900.

    :ivar tag: the element that is to blame, or ``None``.
    """

    def __init__(self, message: str, tag: int | None = None) -> None:
        super().__init__(message if tag is None else f"{tag_text(tag)} {message}")
        self.tag = tag


# Normal forms of stored and of wanted values


def normal_text(vr: str, text: str) -> str:
    """Return *text* without insignificant spaces, in normalization form C."""
    text = text.rstrip(" \0") if vr in SINGLE_VALUED_VRS else text.strip(" \0")
    if "\0" in text:  # no character, and databases stop at it, or refuse it
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _fold(text: str) -> str:
    # Not casefold(), which turns one letter into two: "?" stands for a single character.
    return unicodedata.normalize("NFC", text.lower().replace("ς", "σ"))


def _normal_group(text: str) -> str:
    return "^".join([component.strip(" \0") for component in _fold(text).split("^")]).rstrip("^")


def name_groups(text: str) -> tuple[str, str, str]:
    """Return the alphabetic, ideographic and phonetic group of a name in the form in which they are compared."""
    first, _, rest = text.rstrip(" \0").replace("\0", "\ufffd").partition("=")
    second, _, third = rest.partition("=")
    return _normal_group(first), _normal_group(second), _normal_group(third)


#: Letters that have no decomposition in Unicode, and what people type for them.
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.lower().replace("ς", "σ"))
    return "".join(c for c in decomposed if not unicodedata.combining(c)).translate(_LETTERS)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\s^=,.\-']+", _without_accents(name)) if word]


_SOUNDEX = {c: d for d, letters in enumerate(["bfpv", "cgjkqsxz", "dt", "l", "mn", "r"], 1) for c in letters}


@lru_cache(maxsize=4096)
def _soundex(word: str) -> str:
    """Return the Soundex code of a word of Latin letters, or the word itself."""
    if not (word.isascii() and word.isalpha()):
        return word
    digits: list[int] = []
    last = _SOUNDEX.get(word[0])
    for letter in word[1:]:
        digit = _SOUNDEX.get(letter)
        if digit is not None and digit != last:
            digits.append(digit)
        if letter not in "hw":  # these two do not separate letters of the same code
            last = digit
    return word[0] + "".join(map(str, [*digits, 0, 0, 0]))[:3]


_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})")  # with dots: ACR-NEMA, PS3.5 Table 6.2-1
_TIME = re.compile(r"([0-9]{2})(?:(:?)([0-9]{2})(?:\2([0-9]{2})(?:\.([0-9]{1,6}))?)?)?")
_DATE_TIME = re.compile(
    r"([0-9]{4})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?)?)?)?)?([+-][0-9]{4})?"
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")

Span = tuple[int, int]


def _date_span(text: str) -> Span | None:
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, month, day = int(found[1]), int(found[3]), int(found[4])
    try:
        date(year, month, day)
    except ValueError:
        return None
    number = year * 10000 + month * 100 + day
    return number, number


def _time_span(text: str) -> Span | None:
    """Return the first and the last microsecond of the day that *text* stands for."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    hour, minute, second, fraction = int(found[1]), int(found[3] or 0), int(found[4] or 0), found[5] or ""
    if hour > 23 or minute > 59 or second > 60:
        return None
    first = hour * _HOUR + minute * _MINUTE + min(second, 59) * _SECOND + int(fraction.ljust(6, "0"))
    width = 10 ** (6 - len(fraction)) if fraction else _SECOND if found[4] else _MINUTE if found[3] else _HOUR
    return first, first + width - 1


def parse_offset(text: str) -> int | None:
    """Return the minutes east of UTC that ``&ZZXX`` stands for, ``None`` if it is not valid (PS3.5 Table 6.2-1, DT)."""
    if not re.fullmatch(r"[+-][0-9]{4}", text):
        return None
    minutes = int(text[1:3]) * 60 + int(text[3:5])
    if int(text[3:5]) > 59 or minutes > (14 * 60 if text[0] == "+" else 12 * 60):
        return None
    return minutes if text[0] == "+" else -minutes


def _moment(year: int, month: int, day: int) -> int:
    return date(year, month, day).toordinal() * _DAY


def _date_time_span(text: str, offset: int = 0) -> Span | None:
    """Return the first and the last microsecond, UTC; *offset* holds where the value has none."""
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        return None
    if found[5]:
        own = parse_offset(found[5])
        if own is None:
            return None
        offset = own
    year, month, day = int(found[1]), int(found[2] or 1), int(found[3] or 1)
    try:
        first = _moment(year, month, day)
        if found[3]:
            last = first + _DAY - 1
        elif found[2]:
            last = _moment(year, month, monthrange(year, month)[1]) + _DAY - 1
        else:
            last = _moment(year, 12, 31) + _DAY - 1
    except ValueError:
        return None
    if found[4]:
        time = _time_span(found[4])
        if time is None:
            return None
        first, last = first + time[0], first + time[1]
    return first - offset * _MINUTE, last - offset * _MINUTE


def _span(vr: str, text: str, offset: int = 0) -> Span | None:
    if vr == "DA":
        return _date_span(text)
    return _time_span(text) if vr == "TM" else _date_time_span(text, offset)


def comparable(vr: str, value: Value) -> Comparable | None:
    """Return a single stored value in the form in which it is compared, ``None`` if it is empty or makes no sense.

    Dates become integers (``20240229``), times microseconds of the day, date-times microseconds (UTC).
    """
    if isinstance(value, str):
        text = normal_text(vr, value)
        if not text:
            return None
        if vr in TEXT_VRS:
            return text
        if vr in RANGE_VRS:
            span = _span(vr, text)
            return None if span is None else span[0]
        if vr == "IS":
            return int(text) if _INTEGER.fullmatch(text) else None
        if vr == "DS":
            return Decimal(text) if _DECIMAL.fullmatch(text) else None
        return None
    if isinstance(value, int) and vr in _INTEGER_VRS:
        return value
    return value if isinstance(value, int | float) and vr in _FLOAT_VRS else None


# Wildcards


@lru_cache(maxsize=64)
def _masks(segment: str) -> tuple[dict[str, int], int]:
    """Return for each letter the positions where the segment takes it, as bits, and those where it takes any."""
    anything = 0
    masks: dict[str, int] = {}
    for position, letter in enumerate(segment):
        if letter == "?":
            anything |= 1 << position
        else:
            masks[letter] = masks.get(letter, 0) | 1 << position
    return {letter: mask | anything for letter, mask in masks.items()}, anything


def _fits(segment: str, value: str, position: int) -> bool:
    """Say whether *segment*, which may hold ``?``, is in *value* at *position*."""
    if "?" not in segment:
        return value.startswith(segment, position)
    part = value[position : position + len(segment)]
    return len(part) == len(segment) and all(s in (v, "?") for s, v in zip(segment, part, strict=True))


def _find(segment: str, value: str, position: int, end: int) -> int:
    """Return the first place between *position* and *end* where *segment* is in *value*, or -1.

    With ``?`` this is the Shift-And algorithm: bit n of the state says that the first n + 1 characters fit here.
    """
    if "?" not in segment:
        return value.find(segment, position, end)
    masks, anything = _masks(segment)
    state, whole = 0, 1 << (len(segment) - 1)
    for index in range(position, end):
        state = (state << 1 | 1) & masks.get(value[index], anything)
        if state & whole:
            return index - len(segment) + 1
    return -1


@dataclass(frozen=True, slots=True)
class Pattern:
    """Text in which ``*`` stands for any characters, or none, and ``?`` for one (PS3.4 C.2.2.2.4).

    :ivar text: the pattern.
    """

    text: str
    _segments: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _least: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first, *others = self.text.split("*")
        segments = (first, *filter(None, others[:-1]), others[-1]) if others else (first,)
        object.__setattr__(self, "_segments", segments)
        object.__setattr__(self, "_least", sum(map(len, segments)))

    @property
    def is_literal(self) -> bool:
        """Say whether there is no wildcard."""
        return len(self._segments) == 1 and "?" not in self.text

    @property
    def prefix(self) -> str:
        """What every match begins with."""
        return self._segments[0].partition("?")[0]

    @property
    def is_prefix(self) -> bool:
        """Say whether it is just a beginning and a ``*``."""
        return self.prefix + "*" == self.text

    @property
    def pieces(self) -> list[str]:
        """What every match contains besides the prefix, the longest first."""
        pieces = [piece for segment in self._segments for piece in segment.split("?") if piece]
        if self.prefix:
            del pieces[0]
        return sorted(pieces, key=len, reverse=True)

    def accepts(self, value: str) -> bool:
        """Say whether *value* matches, in time linear in its length."""
        segments = self._segments
        if len(value) < self._least:
            return False
        if len(segments) == 1:
            return len(value) == self._least and _fits(segments[0], value, 0)
        position, end = len(segments[0]), len(value) - len(segments[-1])
        if not (_fits(segments[0], value, 0) and _fits(segments[-1], value, end)):
            return False
        for segment in segments[1:-1]:
            found = _find(segment, value, position, end)
            if found < 0:
                return False
            position = found + len(segment)
        return True


# Predicates


@dataclass(frozen=True, slots=True)
class Universal:
    """Matches every entity (PS3.4 C.2.2.2.3)."""


@dataclass(frozen=True, slots=True)
class Empty:
    """Matches entities for which the attribute has no value: the key is ``""``, two quotation marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal:
    """Single value and list of UID matching (PS3.4 C.2.2.2.1, C.2.2.2.2).

    :ivar values: what :func:`comparable` gives; any of them will do.
    """

    vr: str
    values: frozenset[Comparable]

    def accepts(self, value: Value) -> bool:
        """Say whether a single stored value matches."""
        return comparable(self.vr, value) in self.values


@dataclass(frozen=True, slots=True, kw_only=True)
class Wildcard:
    """Wild card matching of anything but names (PS3.4 C.2.2.2.4)."""

    vr: str
    pattern: Pattern

    def accepts(self, value: Value) -> bool:
        """Say whether a single stored value matches."""
        return isinstance(value, str) and self.pattern.accepts(normal_text(self.vr, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """Literal matching of a name (PS3.4 C.2.2.2.1.1).

    :ivar groups: alternatives for each component group, ``None`` for any. If there is one, any group of the stored name
        may match; if there are several, each must match its own.
    """

    groups: tuple[tuple[Pattern, ...] | None, ...]

    def accepts(self, value: Value) -> bool:
        """Say whether a single stored value matches."""
        if not isinstance(value, str):
            return False
        stored = name_groups(value)
        if len(self.groups) == 1:
            wanted = self.groups[0] or ()
            return any(pattern.accepts(group) for group in stored if group for pattern in wanted)
        return all(
            patterns is None or (group != "" and any(pattern.accepts(group) for pattern in patterns))
            for patterns, group in zip(self.groups, stored, strict=False)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzyName:
    """Fuzzy semantic matching of a name (PS3.4 C.2.2.2.1.1): each word of the key is in the name, in any order.

    Accents do not count, and words without wildcards match if they sound alike (Soundex).
    """

    words: tuple[Pattern, ...]

    def accepts(self, value: Value) -> bool:
        """Say whether a single stored value matches."""
        stored = _words(value) if isinstance(value, str) else []
        sounds = set(map(_soundex, stored))
        return all(
            (word.is_literal and _soundex(word.text) in sounds) or any(word.accepts(s) for s in stored)
            for word in self.words
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Range matching, and single value matching of dates and times by their meaning (PS3.4 C.2.2.2.5, C.2.2.2.1.3).

    :ivar low: the first that matches, in the units of :func:`comparable`; ``None`` if there is none.
    :ivar high: the last that matches, likewise.
    :ivar is_single: the key was a single value.
    """

    vr: str
    low: int | None
    high: int | None
    is_single: bool = False

    def accepts(self, value: Value) -> bool:
        """Say whether a single stored value matches."""
        point = comparable(self.vr, value)
        return isinstance(point, int) and self.holds(point)

    def holds(self, point: int) -> bool:
        """Say whether *point* is in the range."""
        return (self.low is None or self.low <= point) and (self.high is None or point <= self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Sequence matching (PS3.4 C.2.2.2.6): one item of the stored sequence matches all keys."""

    keys: tuple[tuple[int, Predicate], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """Matches what one of its alternatives matches: a key with several values."""

    alternatives: tuple[Predicate, ...]


Predicate = Universal | Empty | Equal | Wildcard | Name | FuzzyName | Range | Items | AnyOf


def is_empty(value: Value | None) -> bool:
    """Say whether an attribute has no value."""
    return value is None or value in ("", b"", []) or (isinstance(value, list) and all(v == "" for v in value))


def item_matches(item: dict[int, Element], keys: Iterable[tuple[int, Predicate]]) -> bool:
    """Say whether an item of a sequence matches all *keys*."""
    return all(matches(wanted, item[tag].value if tag in item else None) for tag, wanted in keys)


def matches(predicate: Predicate, value: Value | None) -> bool:
    """Say whether a stored value matches; of several values one is enough (PS3.4 C.2.2.3).

    :param value: ``None`` or ``""`` if the attribute is absent or empty.
    """
    match predicate:
        case Universal():
            return True
        case Empty():
            return is_empty(value)
        case AnyOf():
            return any(matches(alternative, value) for alternative in predicate.alternatives)
        case Items():
            items = value if isinstance(value, list) else ()
            return any(isinstance(item, dict) and item_matches(item, predicate.keys) for item in items)
        case Equal() | Wildcard() | Name() | FuzzyName() | Range():
            if isinstance(value, list):
                return any(predicate.accepts(one) for one in value if one != "" and not isinstance(one, dict))
            return value is not None and value != "" and predicate.accepts(value)
        case _:
            assert_never(predicate)


# From keys to predicates


def _range(vr: str, text: str, tag: int, offset: int) -> Range:
    # A date-time may itself hold a "-", in front of its offset from UTC; so the single value is tried first.
    if vr == "DT" or "-" not in text:
        span = _span(vr, text, offset)
        if span is not None:
            return Range(vr=vr, low=span[0], high=span[1], is_single=True)
    for found in re.finditer("-", text[:80]):
        first, last = text[: found.start()].strip(), text[found.end() :].strip()
        low, high = _span(vr, first, offset), _span(vr, last, offset)
        if (first or last) and (low or not first) and (high or not last):
            return Range(vr=vr, low=low and low[0], high=high and high[1])
    kind = {"DA": "date", "TM": "time", "DT": "date-time"}[vr]
    raise IdentifierError(f"is neither a {kind} nor a range", tag)


def _name_patterns(group: str) -> tuple[Pattern, ...] | None:
    """Return the alternatives for one component group, ``None`` if it matches anything."""
    group = _normal_group(group)
    if not group.strip("*"):
        return None
    # Empty components at the end do not count, so "Doe^*" has to find "Doe" as well as "Doe^John".
    base = re.sub(r"(?:\^\*+)+\Z", "", group)
    if base == group or not base:
        return (Pattern(group),)
    return Pattern(base), Pattern(base + "^*")


def _name(text: str, *, fuzzy: bool) -> Predicate:
    words = dict.fromkeys(word for word in _words(text) if word.strip("*")) if fuzzy else {}
    if words:
        return FuzzyName(words=tuple(map(Pattern, words)))
    groups = [_name_patterns(group) for group in text.rstrip("=").split("=", 2)]
    return Name(groups=tuple(groups)) if any(group is not None for group in groups) else Universal()


def _text_predicate(tag: int, vr: str, text: str, *, fuzzy: bool, offset: int) -> Predicate:
    """Judge one value of a key."""
    if text == '""':
        return Empty()
    if not text.strip("*"):
        return Universal()
    if vr == "PN":
        return _name(text, fuzzy=fuzzy)
    if vr in RANGE_VRS:
        return _range(vr, text, tag, offset)
    if "*" in text or "?" in text:
        if vr in WILDCARD_VRS:
            return Wildcard(vr=vr, pattern=Pattern(text))
        raise IdentifierError(f"has a wildcard, which {vr} does not allow", tag)
    value = comparable(vr, text)
    if value is None:
        raise IdentifierError(f"is not a valid {vr}", tag)
    return Equal(vr=vr, values=frozenset([value]))


def _any_of(predicates: Sequence[Predicate]) -> Predicate:
    """Return the simplest predicate that matches what any of *predicates* matches."""
    if any(isinstance(p, Universal) for p in predicates):
        return Universal()
    equal = [p for p in predicates if isinstance(p, Equal)]
    others: list[Predicate] = list(dict.fromkeys(p for p in predicates if not isinstance(p, Equal)))
    if equal:
        others.insert(0, Equal(vr=equal[0].vr, values=frozenset().union(*(p.values for p in equal))))
    return others[0] if len(others) == 1 else AnyOf(alternatives=tuple(others))


def predicate(tag: int, value: Value, *, fuzzy: bool = False, timezone: int | None = None) -> Predicate:
    """Turn the value of a key into the predicate that stands for it.

    :param value: as it was decoded from the identifier.
    :param fuzzy: fuzzy semantic matching of names was negotiated.
    :param timezone: minutes east of UTC of date-times without an offset, if timezone adjustment was negotiated.
    :raises IdentifierError: the value makes no sense for the attribute.
    """
    vr = vr_of(tag)
    if is_empty(value):
        return Universal()
    if vr == "SQ":
        return _items(tag, value, fuzzy=fuzzy, timezone=timezone)
    if vr in _INTEGER_VRS or vr in _FLOAT_VRS:
        numbers = [comparable(vr, n) for n in value if not isinstance(n, dict)] if isinstance(value, list) else None
        values = frozenset(v for v in (numbers or [comparable(vr, value)]) if v is not None)
        if not values:
            raise IdentifierError(f"is not a valid {vr}", tag)
        return Equal(vr=vr, values=values)
    if isinstance(value, list):
        texts = [str(text) for text in value]
    elif isinstance(value, str):
        texts = [value] if vr in SINGLE_VALUED_VRS else value.split("\\")
    else:
        raise IdentifierError(f"is not a valid {vr}", tag)
    # An empty value in a list asks for nothing: with "CT\" as with "CT", the filter holds.
    texts = [text for text in (normal_text(vr, text) for text in texts) if text]
    if not texts:
        return Universal()
    return _any_of([_text_predicate(tag, vr, text, fuzzy=fuzzy, offset=timezone or 0) for text in texts])


def _items(tag: int, value: Value, *, fuzzy: bool, timezone: int | None) -> Predicate:
    """Judge a sequence; PS3.4 C.2.2.2.6 has a single item in it, and we take any of several."""
    if not isinstance(value, list):
        raise IdentifierError("is not a sequence", tag)
    alternatives: list[Predicate] = []
    for item in value:
        if not isinstance(item, dict):
            raise IdentifierError("is not a sequence", tag)
        keys = [(key, predicate(key, e.value, fuzzy=fuzzy, timezone=timezone)) for key, e in sorted(item.items())]
        keys = [(key, wanted) for key, wanted in keys if not isinstance(wanted, Universal)]
        alternatives.append(Items(keys=tuple(keys)) if keys else Universal())
    return _any_of(alternatives)
