"""The index of the archive: what is stored, in a database behind a SQLAlchemy URL.

Everything here blocks: code on an event loop calls it in a worker thread, one hop for each call and each ``next()``.

Writers take one lock in this process and a write transaction in the database. What they know of parents is kept in mind, so
that the second instance of a series costs one row. Other processes may change the database at any time: whoever finds that
what it has in mind is no longer so, by a constraint that fails, forgets everything and tries again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from .entities import (
    NAMES,
    InstanceRow,
    NewInstance,
    Parameters,
    Prepared,
    Stored,
    columns,
    dumps,
    kept,
    loads,
    prepare,
)
from .identifier import EXPLICIT_VR_LITTLE_ENDIAN, Attributes
from .model import Level, Model
from .query import Query
from .schema import (
    COLUMNS,
    PARENTS,
    TABLES,
    column_values,
    instances,
    metadata,
    open_engine,
    patients,
    series,
    studies,
)
from .search import AnyRow, Entity, Responses, Search

__all__ = ["Index"]

#: How many parents a writer has in mind.
_CACHED_PARENTS = 20_000
#: How many values one statement is given.
_CHUNK = 500

T = TypeVar("T")
S = TypeVar("S")

#: Level, id of what the parent belongs to (0 for a patient), its own key.
_ParentKey: TypeAlias = tuple[Level, int, str]

_ROW = (
    instances.c.sop_class_uid,
    instances.c.sop_instance_uid,
    instances.c.transfer_syntax_uid,
    instances.c.path,
    instances.c.size,
)

# Made once: to make a statement takes SQLAlchemy longer than to execute it.
_THERE = select(*_ROW).where(instances.c.sop_instance_uid.in_(bindparam("uids", expanding=True)))
_ONE = select(*_ROW).where(instances.c.sop_instance_uid == bindparam("uid"))
_INSERT = insert(instances)
_COUNT = (
    update(series).where(series.c.id == bindparam("which")).values(instances=series.c.instances + bindparam("more"))
)


def _instance_row(values: Sequence[Any]) -> InstanceRow:
    return InstanceRow(
        sop_class_uid=values[0],
        sop_instance_uid=values[1],
        transfer_syntax_uid=values[2],
        path=values[3],
        size=values[4],
    )


@dataclass(slots=True)
class _Parent:
    """What a writer has in mind of a patient, study or series.

    :ivar unknown: attributes that have no value yet, and take the first that comes.
    """

    id: int
    unknown: frozenset[int]


#: For each level with children: table, the column of its key, and the column of its parent.
_PARENT_TABLES: Mapping[Level, tuple[Table, Column[Any], Column[Any] | None]] = {
    Level.PATIENT: (patients, patients.c.identity, None),
    Level.STUDY: (studies, studies.c.study_instance_uid, studies.c.patient),
    Level.SERIES: (series, series.c.series_instance_uid, series.c.study),
}


def _chunks(values: Iterable[S]) -> Iterator[list[S]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


class _Stale(Exception):
    """What this process has in mind is no longer so."""


class Index:
    """What is stored, in a database.

    Any thread may use it, several at once; so may other processes, by an index of their own.

    :param url: a SQLAlchemy URL: ``sqlite:///folder/index.sqlite``, ``postgresql+psycopg://...``. Tables are created.
    :param connections: how many are open at most; calls wait for one.
    :param durable: SQLite: what was added survives the loss of power, not only the end of the process.
    """

    def __init__(self, url: str, *, connections: int = 8, durable: bool = False) -> None:
        self._engine = open_engine(url, connections=connections, durable=durable)
        self._lock = threading.Lock()
        self._closed = False
        self._known: dict[_ParentKey, _Parent] = {}
        self._unknown: dict[frozenset[int], frozenset[int]] = {}  # most parents lack the same
        try:
            with self._writing() as connection:
                metadata.create_all(connection)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close all connections; what is asked for later raises :class:`RuntimeError`. May be called again."""
        with self._lock:
            self._closed = True
            self._engine.dispose()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Transactions

    def _reading(self) -> AbstractContextManager[Connection]:
        if self._closed:
            raise RuntimeError("the index is closed")
        return self._engine.connect()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Give a connection with a write transaction, which is committed at the end."""
        with self._lock, self._reading() as plain:
            connection = plain.execution_options(write=True)
            try:
                with connection.begin():
                    yield connection
            except BaseException:
                self._known.clear()  # it holds what is not going to be there, also if it was the commit that failed
                raise

    def _change(self, change: Callable[[Connection], T]) -> T:
        """Make a change; once more if it failed because another process made one."""
        for _ in range(3):
            try:
                with self._writing() as connection:
                    return change(connection)
            except (IntegrityError, _Stale):
                continue
        with self._writing() as connection:
            return change(connection)

    # Finding

    def find(
        self,
        query: Query,
        *,
        retrieve_ae_title: str = "",
        availability: str = "ONLINE",
        transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    ) -> Iterator[list[bytes]]:
        """Yield the encoded identifiers of what matches, in batches.

        A batch may be empty: much was looked at and nothing found. Between two batches nothing is held.

        :param retrieve_ae_title: where it can be retrieved from, (0008,0054).
        :param availability: Instance Availability (0008,0056).
        :param transfer_syntax: UID of the one that was negotiated, one of the native four.
        """
        responses = Responses(
            query, retrieve_ae_title=retrieve_ae_title, availability=availability, transfer_syntax=transfer_syntax
        )
        return Search(query, query.level, responses.encode).pages(self._reading)

    def instances(self, query: Query) -> Iterator[list[InstanceRow]]:
        """Yield the instances that a retrieval asks for, in batches, series by series; see :meth:`find`."""
        return self._instances(query).pages(self._reading)

    def _instances(self, query: Query) -> Search[InstanceRow]:
        search: Search[InstanceRow]

        def make(row: AnyRow, _: Entity) -> InstanceRow:
            return _instance_row(row[search.first :])

        search = Search(query, Level.IMAGE, make, _ROW)
        return search

    def count(self, query: Query) -> int:
        """Count the instances that a retrieval asks for."""
        search = self._instances(query)
        if search.is_exact:
            with self._reading() as connection:
                return search.count(connection)
        return sum(map(len, search.pages(self._reading)))

    def get(self, sop_instance_uids: Iterable[str]) -> dict[str, InstanceRow]:
        """Return those of the instances that there are, by SOP Instance UID."""
        with self._reading() as connection:
            return self._get(connection, sop_instance_uids)

    def _get(self, connection: Connection, uids: Iterable[str]) -> dict[str, InstanceRow]:
        found = {}
        for chunk in _chunks(dict.fromkeys(uids)):
            if len(chunk) == 1:
                rows = connection.execute(_ONE, {"uid": chunk[0]})
            else:
                rows = connection.execute(_THERE, {"uids": chunk})
            for row in rows.all():
                found[row[1]] = _instance_row(row)
        return found

    def all(self) -> Iterator[list[InstanceRow]]:
        """Yield all instances, in batches."""
        return self.instances(Query(model=Model.COMPOSITE_INSTANCE_ROOT, level=Level.IMAGE, filters=()))

    # Changing

    def add(self, new: Sequence[NewInstance]) -> list[InstanceRow | None]:
        """Add instances, in one transaction.

        :return: for each ``None`` if it was added; if its SOP Instance UID was there already (or comes twice), what is there:
            then nothing was changed.
        """
        prepared = [prepare(instance) for instance in new]
        return self._change(lambda connection: self._add(connection, prepared))

    def replace(self, new: NewInstance) -> InstanceRow | None:
        """Put an instance in the place of the one with its SOP Instance UID, in one transaction; return the old one."""
        prepared = prepare(new)

        def change(connection: Connection) -> InstanceRow | None:
            old = self._remove(connection, [prepared.sop_instance_uid])
            self._add(connection, [prepared])
            return old[0] if old else None

        return self._change(change)

    def remove(self, sop_instance_uids: Iterable[str]) -> list[InstanceRow]:
        """Remove instances, and what is empty then, in one transaction; return those that there were."""
        uids = list(sop_instance_uids)
        return self._change(lambda connection: self._remove(connection, uids))

    def clear(self) -> None:
        """Remove everything."""

        def change(connection: Connection) -> None:
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))
            self._known.clear()

        self._change(change)

    def _add(self, connection: Connection, prepared: Sequence[Prepared]) -> list[InstanceRow | None]:
        there = self._get(connection, (one.sop_instance_uid for one in prepared))
        results: list[InstanceRow | None] = []
        fresh: list[Prepared] = []
        for one in prepared:
            uid = one.sop_instance_uid
            results.append(there.get(uid))
            if uid not in there:
                there[uid] = _instance_row([one.values[column.name] for column in _ROW])
                fresh.append(one)
        if not fresh:
            return results
        above: list[int] = [0] * len(fresh)
        for level in _PARENT_TABLES:
            above = self._resolve(connection, level, fresh, above)
        rows = [one.values | {"series": parent} for one, parent in zip(fresh, above, strict=True)]
        connection.execute(_INSERT, rows)
        connection.execute(_COUNT, [{"which": which, "more": more} for which, more in Counter(above).items()])
        return results

    def _resolve(
        self, connection: Connection, level: Level, fresh: Sequence[Prepared], above: Sequence[int]
    ) -> list[int]:
        """Return the ids of what the instances belong to at *level*, *above* being those of the level above."""
        keys = [(level, parent, one.keys[level]) for one, parent in zip(fresh, above, strict=True)]
        if len(self._known) > _CACHED_PARENTS:
            self._known.clear()
        missing: dict[_ParentKey, Prepared] = {}
        for key, one in zip(keys, fresh, strict=True):
            if key not in self._known:
                missing.setdefault(key, one)  # its attributes are those of the first
        if missing:
            self._look_up(connection, level, missing)
            absent = {key: one for key, one in missing.items() if key not in self._known}
            if absent:
                self._insert(connection, level, absent)
        for key, one in zip(keys, fresh, strict=True):
            if not self._known[key].unknown.isdisjoint(one.attributes):
                self._complete(connection, level, key, one.attributes)
        return [self._known[key].id for key in keys]

    def _rows(
        self, connection: Connection, level: Level, keys: Iterable[_ParentKey], *more: ColumnElement[Any]
    ) -> Iterator[tuple[_ParentKey, Sequence[Any]]]:
        """Yield those of *keys* that are in the database; with each its id, and what *more* asks for."""
        table, name, parent = _PARENT_TABLES[level]
        wanted = set(keys)
        columns = (name, literal(0) if parent is None else parent, table.c.id, *more)
        for chunk in _chunks(dict.fromkeys(key[2] for key in wanted)):
            for row in connection.execute(select(*columns).where(name.in_(chunk))).all():
                key = (level, row[1], row[0])
                if key in wanted:
                    yield key, row[2:]

    def _remember(self, key: _ParentKey, number: int, known: Stored) -> None:
        """Have a parent in mind."""
        unknown = frozenset(tag for tag, name in NAMES[key[0]] if name not in known)
        if len(self._unknown) > _CACHED_PARENTS:
            self._unknown.clear()
        self._known[key] = _Parent(number, self._unknown.setdefault(unknown, unknown))

    def _look_up(self, connection: Connection, level: Level, keys: Iterable[_ParentKey]) -> None:
        """Have in mind those of *keys* that are in the database."""
        for key, (number, attributes) in self._rows(connection, level, keys, TABLES[level].c.attributes):
            self._remember(key, number, loads(attributes))

    def _insert(self, connection: Connection, level: Level, absent: Mapping[_ParentKey, Prepared]) -> None:
        """Add parents, with the attributes of an instance, and have them in mind."""
        table, name, parent = _PARENT_TABLES[level]
        rows = []
        stored: dict[_ParentKey, Stored] = {}
        for key, one in absent.items():
            stored[key] = kept(level, one.attributes)
            row = columns(level, one.attributes) | {name.name: key[2], "attributes": dumps(stored[key])}
            if parent is not None:
                row[parent.name] = key[1]
            if level is Level.SERIES:
                row["instances"] = 0
            rows.append(row)
        connection.execute(insert(table), rows)
        for key, (number,) in self._rows(connection, level, absent):
            self._remember(key, number, stored[key])

    def _complete(self, connection: Connection, level: Level, key: _ParentKey, attributes: Attributes) -> None:
        """Give a parent the attributes that it does not have yet and the instance has."""
        parent = self._known[key]
        table = TABLES[level]
        stored = connection.execute(select(table.c.attributes).where(table.c.id == parent.id)).scalar_one_or_none()
        if stored is None:  # another process has removed it
            raise _Stale
        known: Stored = loads(stored)
        fresh = {tag: attributes[tag] for tag, name in NAMES[level] if name not in known and tag in attributes}
        added = kept(level, fresh)
        if added:
            values: Parameters = {"attributes": dumps(known | added)}
            for column_key in COLUMNS[level]:
                if column_key.tag in fresh:
                    values |= column_values(column_key, fresh[column_key.tag].value)
            values.pop(_PARENT_TABLES[level][1].name, None)
            connection.execute(update(table).where(table.c.id == parent.id).values(values))
        self._remember(key, parent.id, known | added)

    def _remove(self, connection: Connection, uids: Sequence[str]) -> list[InstanceRow]:
        removed: list[InstanceRow] = []
        touched: Counter[int] = Counter()
        for chunk in _chunks(dict.fromkeys(uids)):
            these = instances.c.sop_instance_uid.in_(chunk)
            for row in connection.execute(select(*_ROW, instances.c.series).where(these)):
                removed.append(_instance_row(row))
                touched[row[-1]] += 1
            connection.execute(delete(instances).where(these))
        self._known.clear()
        for which, less in touched.items():
            connection.execute(update(series).where(series.c.id == which).values(instances=series.c.instances - less))
        self._remove_empty(connection, list(touched))
        return removed

    def _remove_empty(self, connection: Connection, ids: list[int]) -> None:
        """Remove those of the series that have no instances, and what is empty then."""
        for level in (Level.SERIES, Level.STUDY, Level.PATIENT):
            table = TABLES[level]
            above = PARENTS.get(level)
            parents: set[int] = set()
            for chunk in _chunks(ids):
                empty = and_(
                    table.c.id.in_(chunk), ~exists().where(PARENTS[Level(level + 1)] == table.c.id).correlate(table)
                )
                if above is not None:
                    parents.update(connection.execute(select(above).where(empty)).scalars())
                connection.execute(delete(table).where(empty))
            ids = sorted(parents)
