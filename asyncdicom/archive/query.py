"""From an identifier to a query: which entities, which keys have to match, which come back (PS3.4 C.4.1 to C.4.3).

A query knows nothing of how it is answered. A key of a level above that of the query is a filter on what the entity
belongs to; one of a level below is a filter too (there must be an entity below that matches), but cannot be returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from .identifier import SPECIFIC_CHARACTER_SET, Attributes, Element, Value, vr_of
from .matching import (
    Equal,
    IdentifierError,
    Predicate,
    Range,
    Universal,
    comparable,
    matches,
    parse_offset,
    predicate,
)
from .model import DATE_TIME_PAIRS, KEYS, UNIQUE, Key, Level, Model, key_for

__all__ = [
    "CombinedFilter",
    "Filter",
    "Query",
    "Return",
    "Semantics",
    "check_hierarchy",
    "parse_find",
    "parse_retrieve",
]

QUERY_RETRIEVE_LEVEL = 0x00080052
RETRIEVE_AE_TITLE = 0x00080054
INSTANCE_AVAILABILITY = 0x00080056
TIMEZONE_OFFSET_FROM_UTC = 0x00080201

#: Elements of an identifier that are no keys. Query/Retrieve View is one only where conversion was negotiated.
_NO_KEYS = frozenset([SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL])
#: What every response says of itself (PS3.4 C.4.1.1.3.2); a response may come back to us as an identifier.
_OURS = frozenset([RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY])

#: Simple Frame List, Calculated Frame List and Time Range say what to make of an instance (PS3.4 Y.3.2.2).
_FRAMES = frozenset([0x00081161, 0x00081162, 0x00081163])

_TIMES = {time: date for date, time in DATE_TIME_PAIRS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """What was negotiated by extended negotiation (PS3.4 C.5.1.1, C.5.2.1, C.5.3.1).

    :ivar relational: unique keys of the levels above may be missing.
    :ivar combined_date_time: a range of dates and a range of times are one range of date-times.
    :ivar fuzzy: fuzzy semantic matching of names.
    :ivar timezone: Timezone Offset From UTC of the identifier is that of its dates and times.
    """

    relational: bool = False
    combined_date_time: bool = False
    fuzzy: bool = False
    timezone: bool = False


#: Looks up the stored value of a key for the entity at hand: ``None`` if there is none.
Lookup = Callable[[Key], Value | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A key that has to match.

    :ivar timezone: adjust dates and times to this offset before they are compared, in minutes east of UTC.
    """

    key: Key
    predicate: Predicate
    timezone: int | None = None

    @property
    def level(self) -> Level:
        """The level whose attribute it is about."""
        return self.key.level

    def holds(self, lookup: Lookup) -> bool:
        """Say whether the entity at hand matches."""
        if self.timezone is None:
            return matches(self.predicate, lookup(self.key))
        return matches(self.predicate, adjusted(self.key, lookup, self.timezone))


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedFilter:
    """A range of dates and a range of times that are one range of date-times (PS3.4 C.2.2.2.5.4)."""

    date_key: Key
    time_key: Key
    date: Range
    time: Range
    timezone: int | None = None

    @property
    def level(self) -> Level:
        """The level whose attributes it is about."""
        return self.date_key.level

    def holds(self, lookup: Lookup) -> bool:
        """Say whether the entity at hand matches; one without a time does not."""
        if self.timezone is None:
            values = lookup(self.date_key), lookup(self.time_key)
        else:
            values = adjusted(self.date_key, lookup, self.timezone), adjusted(self.time_key, lookup, self.timezone)
        date = comparable("DA", values[0] or "")
        time = comparable("TM", values[1] or "")
        if not isinstance(date, int) or not isinstance(time, int):
            return False
        if self.date.low is not None and (date, time) < (self.date.low, self.time.low or 0):
            return False
        return self.date.high is None or self.time.high is None or (date, time) <= (self.date.high, self.time.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """A key that comes back.

    :ivar key: the attribute; ``None`` if it comes back as *constant*, empty if it is not supported.
    :ivar items: for a sequence, the keys that were asked for in its items; ``None`` for all of them.
    :ivar predicate: of a sequence: only items that match come back (PS3.4 C.2.2.2.6).
    :ivar timezone: adjust dates and times to this offset, in minutes east of UTC.
    """

    tag: int
    vr: str
    key: Key | None = None
    constant: Value = ""
    items: Attributes | None = None
    predicate: Predicate | None = None
    timezone: int | None = None

    def value(self, lookup: Lookup) -> Value:
        """Return the value for the entity at hand."""
        if self.key is None:
            return self.constant
        if self.timezone is not None:
            return adjusted(self.key, lookup, self.timezone) or ""
        value = lookup(self.key)
        if self.items is None or not isinstance(value, list):
            return "" if value is None else value
        found = [item for item in value if isinstance(item, dict)]
        if self.predicate is not None:
            found = [item for item in found if matches(self.predicate, [item])]
        return [_restricted(item, self.items) for item in found]


def _restricted(item: Attributes, keys: Attributes) -> Attributes:
    """Return what was asked for of an item of a sequence."""
    found: Attributes = {}
    for tag, wanted in keys.items():
        element = item.get(tag, Element(wanted.vr, ""))
        value = element.value
        if isinstance(value, list) and isinstance(wanted.value, list) and wanted.value and wanted.vr == "SQ":
            inner = wanted.value[0]
            if isinstance(inner, dict) and inner:
                value = [_restricted(one, inner) for one in value if isinstance(one, dict)]
        found[tag] = Element(element.vr, value)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked for.

    :ivar filters: keys that have to match, all of them; universal ones are left out.
    :ivar returns: keys that come back, by ascending tag, with Query/Retrieve Level; empty for a retrieval.
    :ivar is_complete: all keys are supported (else the pendings are 0xFF01).
    :ivar timezone: minutes east of UTC that the identifier's dates and times are in, if that was negotiated.
    """

    model: Model
    level: Level
    filters: tuple[Filter | CombinedFilter, ...]
    returns: tuple[Return, ...] = ()
    is_complete: bool = True
    timezone: int | None = None


def adjusted(key: Key, lookup: Lookup, timezone: int) -> Value | None:
    """Return the stored value of a date, time or date-time as it is *timezone* minutes east of UTC.

    An entity that does not say which time zone it is in is not adjusted, nor is a date without a time.
    """
    value = lookup(key)
    own = KEYS[key.level].get(TIMEZONE_OFFSET_FROM_UTC)
    zone = lookup(own) if own is not None else None
    if not isinstance(zone, str) or not isinstance(value, str) or not value:
        return value
    offset = parse_offset(zone)
    if offset is None:
        return value
    if key.vr == "DT":
        return value if value[-5:-4] in ("+", "-") else value + zone
    date_tag = _TIMES.get(key.tag, key.tag)
    level_keys = KEYS[key.level]
    date = comparable("DA", lookup(level_keys[date_tag]) or "")
    time = comparable("TM", lookup(level_keys[DATE_TIME_PAIRS[date_tag]]) or "")
    if not isinstance(date, int) or not isinstance(time, int) or offset == timezone:
        return value
    moment = datetime(date // 10000, date // 100 % 100, date % 100) + timedelta(microseconds=time)
    try:
        moment += timedelta(minutes=timezone - offset)
    except OverflowError:
        return value
    if key.vr == "DA":
        return f"{moment.year:04}{moment:%m%d}"
    return f"{moment:%H%M%S}" + (f".{moment.microsecond:06}" if moment.microsecond else "")


def _is_adjustable(key: Key) -> bool:
    """Say whether the value depends on a time zone; a birthday is one everywhere."""
    if key.level is Level.PATIENT:
        return False
    return key.vr == "DT" or key.tag in DATE_TIME_PAIRS or key.tag in _TIMES


def _level(identifier: Attributes, model: Model) -> Level:
    element = identifier.get(QUERY_RETRIEVE_LEVEL)
    text = element.value if element is not None else ""
    if not text:
        raise IdentifierError("Query/Retrieve Level is missing", QUERY_RETRIEVE_LEVEL)
    if text == "FRAME" and model is Model.COMPOSITE_INSTANCE_ROOT:
        return Level.IMAGE  # of which instance; which of its frames is not the index's to know (PS3.4 Y.3.2)
    for level in model.levels:
        if text == level.name:
            return level
    raise IdentifierError("is not a level of this model", QUERY_RETRIEVE_LEVEL)


def _timezone(identifier: Attributes, semantics: Semantics) -> int | None:
    element = identifier.get(TIMEZONE_OFFSET_FROM_UTC)
    if not semantics.timezone or element is None or not element.value:
        return None
    offset = parse_offset(element.value) if isinstance(element.value, str) else None
    if offset is None:
        raise IdentifierError("is not an offset from UTC", TIMEZONE_OFFSET_FROM_UTC)
    return offset


def check_hierarchy(identifier: Attributes, model: Model, *, retrieve: bool = False) -> None:
    """Check the unique keys of a hierarchical query or retrieval (PS3.4 C.4.1.2.1, C.4.2.2.1).

    Above the level of the query each unique key has a single value; at the level of a retrieval it has at least one. A
    retrieval by relational semantics only needs the latter.

    :raises IdentifierError: a unique key is missing, or has a wildcard or several values.
    """
    level = _level(identifier, model)
    for above in model.levels:
        if above < level:
            check_unique(identifier, UNIQUE[above], single=True)
    if retrieve:
        check_unique(identifier, UNIQUE[level], single=level is Level.PATIENT)


def check_unique(identifier: Attributes, key: Key, *, single: bool) -> None:
    """Check that a unique key has values, and one only if it has to be *single*."""
    element = identifier.get(key.tag)
    wanted = predicate(key.tag, element.value if element is not None else "")
    if not isinstance(wanted, Equal):
        raise IdentifierError("needs a value, without wildcards", key.tag)
    if single and len(wanted.values) > 1:
        raise IdentifierError("needs a single value", key.tag)


def _combine(filters: list[Filter], timezone: int | None) -> list[Filter | CombinedFilter]:
    """Join ranges of dates with ranges of times of the same form (PS3.4 C.2.2.2.5.4)."""
    ranges = {f.key.tag: f for f in filters if isinstance(f.predicate, Range) and not f.predicate.is_single}
    joined: list[Filter | CombinedFilter] = []
    done: set[int] = set()
    for date_tag, time_tag in DATE_TIME_PAIRS.items():
        date, time = ranges.get(date_tag), ranges.get(time_tag)
        if date is None or time is None or date.key.level is not time.key.level:
            continue
        first, second = date.predicate, time.predicate
        assert isinstance(first, Range)
        assert isinstance(second, Range)
        if (first.low is None, first.high is None) == (second.low is None, second.high is None):
            zone = timezone if _is_adjustable(date.key) else None
            joined.append(CombinedFilter(date_key=date.key, time_key=time.key, date=first, time=second, timezone=zone))
            done |= {date_tag, time_tag}
    return [*joined, *(f for f in filters if f.key.tag not in done)]


def _keys_of(identifier: Attributes) -> Mapping[int, Element]:
    """Return the elements of an identifier that may be keys, by ascending tag."""
    return {
        tag: element
        for tag, element in sorted(identifier.items())
        if tag not in _NO_KEYS and tag & 0xFFFF and tag >> 16 > 0x0002  # group lengths; what belongs into a file
    }


def parse_find(identifier: Attributes, model: Model, semantics: Semantics | None = None) -> Query:
    """Judge the identifier of a C-FIND.

    The hierarchy is not checked here: see :func:`check_hierarchy`.

    :raises IdentifierError: the level is missing or wrong, or the value of a key makes no sense.
    """
    semantics = semantics or Semantics()
    level = _level(identifier, model)
    timezone = _timezone(identifier, semantics)
    filters: list[Filter] = []
    returns = [Return(tag=QUERY_RETRIEVE_LEVEL, vr="CS", constant=level.name)]
    is_complete = True
    for tag, element in _keys_of(identifier).items():
        if tag in _OURS:
            continue  # in every response
        if tag == TIMEZONE_OFFSET_FROM_UTC and timezone is not None:
            returns.append(Return(tag=tag, vr="SH", constant=element.value))
            continue
        key = key_for(tag, level, model)
        if key is None:
            is_complete = False
            returns.append(Return(tag=tag, vr=element.vr if vr_of(tag) == "UN" else vr_of(tag)))
            continue
        wanted = predicate(tag, element.value, fuzzy=semantics.fuzzy, timezone=timezone)
        zone = timezone if _is_adjustable(key) else None
        if not isinstance(wanted, Universal):
            if key.computed and key.level > level:
                raise IdentifierError("cannot be matched at this level", tag)
            filters.append(Filter(key=key, predicate=wanted, timezone=zone))
        if key.level > level:
            is_complete = False
            returns.append(Return(tag=tag, vr=key.vr))
            continue
        items = element.value[0] if isinstance(element.value, list) and element.value else None
        sequence = key.vr == "SQ" and isinstance(items, dict) and items
        returns.append(
            Return(
                tag=tag,
                vr=key.vr,
                key=key,
                items=items if sequence and isinstance(items, dict) else None,
                predicate=wanted if sequence and not isinstance(wanted, Universal) else None,
                timezone=zone,
            )
        )
    combined = _combine(filters, timezone) if semantics.combined_date_time else filters
    return Query(
        model=model,
        level=level,
        filters=tuple(combined),
        returns=tuple(returns),
        is_complete=is_complete,
        timezone=timezone,
    )


def parse_retrieve(identifier: Attributes, model: Model, *, relational: bool = False) -> Query:
    """Judge the identifier of a C-MOVE or C-GET, hierarchy included.

    PS3.4 C.4.2.1.4.1 wants unique keys and nothing else in it. But many a requestor sends what it got from a C-FIND, so
    keys that the archive knows narrow the selection, and others are let pass if they are empty.

    :raises IdentifierError: the level is missing or wrong, a unique key is missing, or a key makes no sense.
    """
    level = _level(identifier, model)
    if relational:
        check_unique(identifier, UNIQUE[level], single=level is Level.PATIENT)
    else:
        check_hierarchy(identifier, model, retrieve=True)
    filters = []
    for tag, element in _keys_of(identifier).items():
        if tag in _OURS or (tag in _FRAMES and model is Model.COMPOSITE_INSTANCE_ROOT):
            continue
        wanted = predicate(tag, element.value)
        if isinstance(wanted, Universal):
            continue
        key = key_for(tag, level, model)
        if key is None:
            raise IdentifierError("is not a key of this retrieval", tag)
        filters.append(Filter(key=key, predicate=wanted))
    return Query(model=model, level=level, filters=tuple(filters))
