"""Searching the index: from a query to statements, from rows to responses.

Theory of operation. A search walks the table of its level in the order of the primary key, page by page. Each page is a
transaction of its own, so that a slow requestor holds no connection, no lock and no old version of the database, and memory is
that of a page however much there is. SQL leaves out what it can; :mod:`~asyncdicom.archive.matching` has the last word
where SQL's is not exact. Counts and lists over what is below an entity are fetched once for a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Connection, FromClause, Select, bindparam, exists, func, select, tuple_

from .entities import SOP_CLASS_UID, Stored, items_from_json, loads
from .identifier import IdentifierWriter, Value
from .model import KEYS, Key, Level
from .query import INSTANCE_AVAILABILITY, RETRIEVE_AE_TITLE, CombinedFilter, Filter, Query, Return
from .schema import PARENTS, TABLES, clause_for, instances, series, studies

__all__ = ["Entity", "Responses", "Search"]

#: Rows of a page: few at first, for a quick answer, then more.
PAGES = (64, 256, 1024)
#: Rows of what is below a page that are held at once.
_BELOW = 500

T = TypeVar("T")
AnyColumn: TypeAlias = ColumnElement[Any]
AnyRow: TypeAlias = Sequence[Any]


class Entity:
    """The entity at hand: what is stored of it and of what it belongs to, level by level, and what follows from that."""

    __slots__ = ("computed", "stored")

    def __init__(self) -> None:
        self.stored: list[Stored] = [{} for _ in Level]
        self.computed: dict[int, Value] = {}

    def lookup(self, key: Key) -> Value | None:
        """Return the value of an attribute."""
        if key.computed:
            return self.computed.get(key.tag)
        value = self.stored[key.level].get(key.name)
        if key.vr == "SQ" and value is not None:
            return items_from_json(value)
        return value


@dataclass(slots=True)
class _Plan:
    """How a query is answered.

    :ivar residual: filters on the entity itself, or on what it belongs to, that SQL does not decide.
    :ivar below: the same for filters on what is below it.
    :ivar levels: whose stored attributes are needed.
    :ivar computed: tags of the computed attributes that are needed.
    """

    level: Level
    conditions: list[ColumnElement[bool]] = field(default_factory=list)
    residual: list[Filter | CombinedFilter] = field(default_factory=list)
    below: list[Filter | CombinedFilter] = field(default_factory=list)
    below_conditions: list[ColumnElement[bool]] = field(default_factory=list)
    deepest: Level = Level.PATIENT
    top: Level = Level.IMAGE
    levels: set[Level] = field(default_factory=set)
    computed: set[int] = field(default_factory=set)


_MODALITIES_IN_STUDY, _SOP_CLASSES_IN_STUDY = 0x00080061, 0x00080062
_AVAILABLE_TRANSFER_SYNTAX_UID = 0x00083002
#: What a list over a study is a list of.
_LISTS = {
    _MODALITIES_IN_STUDY: KEYS[Level.SERIES][0x00080060],
    _SOP_CLASSES_IN_STUDY: KEYS[Level.IMAGE][SOP_CLASS_UID],
}


def _chain(bottom: Level, top: Level) -> FromClause:
    """Join the tables from *bottom* up to *top*."""
    joined: FromClause = TABLES[bottom]
    for level in range(bottom, top, -1):
        joined = joined.join(TABLES[Level(level - 1)], PARENTS[Level(level)] == TABLES[Level(level - 1)].c.id)
    return joined


def _list_clause(wanted: Filter) -> tuple[ColumnElement[bool] | None, bool]:
    """Return the condition for a filter on a list over a study."""
    key = _LISTS[wanted.key.tag]
    condition, exact = clause_for(Filter(key=key, predicate=wanted.predicate))
    if condition is None:
        return None, exact
    found = select(1).select_from(_chain(key.level, Level.SERIES)).where(series.c.study == studies.c.id, condition)
    return exists(found.correlate(studies)), exact


def _plan(query: Query, level: Level) -> _Plan:
    """Decide what SQL does, for entities of *level*."""
    plan = _Plan(level, top=level, deepest=level)
    for wanted in query.filters:
        if isinstance(wanted, Filter) and wanted.key.tag in _LISTS:
            condition, exact = _list_clause(wanted)
        else:
            condition, exact = clause_for(wanted)
        if wanted.level > level:
            plan.deepest = max(plan.deepest, wanted.level)
            if condition is not None:
                plan.below_conditions.append(condition)
            if not exact:
                plan.below.append(wanted)
            continue
        plan.top = min(plan.top, wanted.level)
        if condition is not None:
            plan.conditions.append(condition)
        if not exact:
            plan.residual.append(wanted)
            _need(plan, wanted)
    for returned in query.returns:
        if returned.key is not None:
            _need_key(plan, returned.key)
    if plan.deepest > level:
        below = Level(level + 1)
        found = select(1).select_from(_chain(plan.deepest, below))
        found = found.where(PARENTS[below] == TABLES[level].c.id, *plan.below_conditions)
        plan.conditions.append(exists(found.correlate(TABLES[level])))
    return plan


def _need(plan: _Plan, wanted: Filter | CombinedFilter) -> None:
    if isinstance(wanted, Filter):
        _need_key(plan, wanted.key)
    else:
        plan.levels.add(wanted.level)
        plan.top = min(plan.top, wanted.level)


def _need_key(plan: _Plan, key: Key) -> None:
    if key.computed:
        plan.computed.add(key.tag)
    else:
        plan.levels.add(key.level)
    plan.top = min(plan.top, key.level)


class Search(Generic[T]):
    """Walks the entities of one level that match.

    :param make: makes something of a row and its entity, which is good for this call only.
    :param columns: more columns of the level's table; *make* finds them from :attr:`first` on.
    """

    def __init__(
        self, query: Query, level: Level, make: Callable[[AnyRow, Entity], T], columns: Sequence[AnyColumn] = ()
    ) -> None:
        self._plan = plan = _plan(query, level)
        self._make = make
        own_id = TABLES[level].c.id
        # What belongs to a series lies together in its index, so this order needs no sorting where it matters.
        self._order: list[AnyColumn] = [instances.c.series, own_id] if level is Level.IMAGE else [own_id]
        selected = list(self._order)
        self._ids: dict[Level, int] = {}
        self._stored: dict[Level, int] = {}
        for above in map(Level, range(plan.top, level + 1)):
            self._ids[above] = len(selected)
            selected.append(TABLES[above].c.id)
            if above in plan.levels:
                self._stored[above] = len(selected)
                selected.append(TABLES[above].c.attributes)
        self._syntax = len(selected)
        if _AVAILABLE_TRANSFER_SYNTAX_UID in plan.computed:
            selected.append(instances.c.transfer_syntax_uid)
        self.first = len(selected)
        after = [bindparam(f"after_{n}", type_=column.type) for n, column in enumerate(self._order)]
        behind = tuple_(*self._order) > tuple_(*after) if len(after) > 1 else own_id > after[0]
        self._statement = (
            select(*selected, *columns)
            .select_from(_chain(level, plan.top))
            .where(behind, *plan.conditions)
            .order_by(*self._order)
            .limit(bindparam("page"))
        )

    @property
    def is_exact(self) -> bool:
        """Say whether SQL decides all."""
        return not (self._plan.residual or self._plan.below)

    def count(self, connection: Connection) -> int:
        """Count what SQL finds."""
        plan = self._plan
        statement = select(func.count()).select_from(_chain(plan.level, plan.top)).where(*plan.conditions)
        return int(connection.execute(statement).scalar_one())

    def pages(self, reading: Callable[[], AbstractContextManager[Connection]]) -> Iterator[list[T]]:
        """Yield pages of what *make* makes. A page may be empty: much was looked at and nothing found."""
        after: Sequence[Any] = (0,) * len(self._order)
        sizes = iter(PAGES)
        size = next(sizes)
        while True:
            with reading() as connection:
                parameters = {f"after_{n}": value for n, value in enumerate(after)} | {"page": size}
                rows = connection.execute(self._statement, parameters).all()
                computed = self._computed(connection, rows)
                below = self._below(connection, rows)
            yield self._matching(rows, computed, below)
            if len(rows) < size:
                return
            after = rows[-1][: len(self._order)]
            size = next(sizes, size)

    def _matching(
        self, rows: Sequence[AnyRow], computed: dict[int, dict[int, Value]], below: set[int] | None
    ) -> list[T]:
        entity = Entity()
        own = self._ids[self._plan.level]
        parents = [
            (level, column, self._ids[level]) for level, column in self._stored.items() if level < self._plan.level
        ]
        own_stored = self._stored.get(self._plan.level)
        current = [0] * len(Level)
        found = []
        for row in rows:
            if below is not None and row[own] not in below:
                continue
            if own_stored is not None:
                entity.stored[self._plan.level] = loads(row[own_stored])
            for level, column, number in parents:  # most often those of the row before
                if current[level] != row[number]:
                    current[level] = row[number]
                    entity.stored[level] = loads(row[column])
            for tag, values in computed.items():
                entity.computed[tag] = values.get(row[self._ids[_LEVEL_OF[tag]]], "")
            if all(wanted.holds(entity.lookup) for wanted in self._plan.residual):
                found.append(self._make(row, entity))
        return found

    def _computed(self, connection: Connection, rows: Sequence[AnyRow]) -> dict[int, dict[int, Value]]:
        """Return the values of the computed attributes for the entities of a page: by tag, then by id."""
        found: dict[int, dict[int, Value]] = {}
        for level in {_LEVEL_OF[tag] for tag in self._plan.computed} if rows else ():
            number = self._ids[level]
            ids = list({row[number] for row in rows})
            tags = [tag for tag in self._plan.computed if _LEVEL_OF[tag] is level]
            if counted := tuple(tag for tag in tags if tag in _COUNTS):
                counts = connection.execute(_count_statement(level, counted), {"ids": ids}).all()
                for place, tag in enumerate(counted, 1):
                    found[tag] = {row[0]: str(row[place]) for row in counts}
            for tag in tags:
                if tag in _LISTS:
                    found[tag] = _lists(connection.execute(_list_statement(_LISTS[tag]), {"ids": ids}).all())
                elif tag == _AVAILABLE_TRANSFER_SYNTAX_UID:
                    found[tag] = {row[number]: row[self._syntax] for row in rows}
        return found

    def _below(self, connection: Connection, rows: Sequence[AnyRow]) -> set[int] | None:
        """Return the ids of those entities of a page that have something below them that matches."""
        plan = self._plan
        if not plan.below or not rows:
            return None
        below = Level(plan.level + 1)
        parent = PARENTS[below]
        levels = [level for level in Level if below <= level <= plan.deepest]
        own = self._ids[plan.level]
        statement = (
            select(parent, *(TABLES[level].c.attributes for level in levels))
            .select_from(_chain(plan.deepest, below))
            .where(parent.in_([row[own] for row in rows]), *plan.below_conditions)
        )
        found: set[int] = set()
        entity = Entity()
        for row in connection.execution_options(yield_per=_BELOW).execute(statement):
            if row[0] in found:
                continue
            for level, text in zip(levels, row[1:], strict=True):
                entity.stored[level] = loads(text)
            if all(wanted.holds(entity.lookup) for wanted in plan.below):
                found.add(row[0])
        return found


_LEVEL_OF = {tag: level for level, keys in KEYS.items() for tag, key in keys.items() if key.computed}

#: Number of Patient Related Studies, Series, Instances, and so on.
_COUNTS: Mapping[int, AnyColumn] = {
    0x00201200: func.count(studies.c.id.distinct()),
    0x00201202: func.count(series.c.id),
    0x00201204: func.sum(series.c.instances),
    0x00201206: func.count(series.c.id),
    0x00201208: func.sum(series.c.instances),
    0x00201209: func.sum(series.c.instances),
}
#: What they are counted by.
_COUNTED_BY: Mapping[Level, AnyColumn] = {
    Level.PATIENT: studies.c.patient,
    Level.STUDY: series.c.study,
    Level.SERIES: series.c.id,
}


# Made once each: to make a statement takes SQLAlchemy longer than to execute it.


@cache
def _count_statement(level: Level, tags: tuple[int, ...]) -> Select[Any]:
    by = _COUNTED_BY[level]
    tables = _chain(Level.SERIES, Level.STUDY if level is Level.PATIENT else Level.SERIES)
    return select(by, *(_COUNTS[tag] for tag in tags)).select_from(tables).where(_is_one_of(by)).group_by(by)


@cache
def _list_statement(key: Key) -> Select[Any]:
    column = TABLES[key.level].c[key.column or ""]
    found = select(series.c.study, column).select_from(_chain(key.level, Level.SERIES))
    return found.where(_is_one_of(series.c.study)).distinct()


def _is_one_of(column: AnyColumn) -> ColumnElement[bool]:
    return column.in_(bindparam("ids", expanding=True))


def _lists(rows: Sequence[AnyRow]) -> dict[int, Value]:
    """Return what belongs to each id, sorted."""
    found: dict[int, list[str]] = {}
    for parent, value in rows:
        if value:
            found.setdefault(parent, []).append(value)
    return {parent: sorted(values) if len(values) > 1 else values[0] for parent, values in found.items()}


# Responses


#: Sources of values, besides the levels.
_COMPUTED, _ALWAYS = len(Level), len(Level) + 1


class Responses:
    """Encodes the identifiers of the responses to a query."""

    def __init__(self, query: Query, *, retrieve_ae_title: str, availability: str, transfer_syntax: str) -> None:
        returns = [
            *query.returns,
            Return(tag=RETRIEVE_AE_TITLE, vr="AE", constant=retrieve_ae_title),
            Return(tag=INSTANCE_AVAILABILITY, vr="CS", constant=availability),
        ]
        returns.sort(key=lambda wanted: wanted.tag)
        self._writer = IdentifierWriter([(wanted.tag, wanted.vr) for wanted in returns], transfer_syntax)
        # Where each value is taken from, and by which name: what is stored at a level, computed, or always the same. The
        # rest, which has to be thought about, is put in its place afterwards.
        self._columns: list[tuple[int, str | int]] = []
        self._always: dict[str | int, Value] = {}
        self._others: list[tuple[int, Return]] = []
        for place, wanted in enumerate(returns):
            key = wanted.key
            if key is None:
                self._always[wanted.tag] = wanted.constant
                self._columns.append((_ALWAYS, wanted.tag))
            elif key.computed:
                self._columns.append((_COMPUTED, wanted.tag))
            else:
                self._columns.append((int(key.level), key.name))
                if key.vr == "SQ" or wanted.timezone is not None:
                    self._others.append((place, wanted))

    def encode(self, _: AnyRow, entity: Entity) -> bytes:
        """Return one identifier."""
        sources: list[Mapping[Any, Any]] = [*entity.stored, entity.computed, self._always]
        values = [sources[source].get(name, "") for source, name in self._columns]
        for place, wanted in self._others:
            values[place] = wanted.value(entity.lookup)
        return self._writer.encode(values)
