"""The tables of the index, and predicates as SQL.

Each level of the model is a table. Identity: a patient is a Patient ID and its issuer (without an ID: name, birth date
and sex, so that two strangers without a number stay two). A study belongs to one patient: if two patients have the same
Study Instance UID, which the standard forbids and careless anonymisers cause, there are two studies, and nobody sees
the other's images. A series belongs to one study. A SOP Instance UID is unique.

The clauses made here never say no where :func:`~asyncdicom.archive.matching.matches` says yes. Where they may say yes
too often they are called inexact, and the index asks again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final, assert_never

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    and_,
    create_engine,
    event,
    make_url,
    or_,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.engine.url import URL
from sqlalchemy.pool import ConnectionPoolEntry

from .identifier import Value
from .matching import (
    AnyOf,
    Empty,
    Equal,
    FuzzyName,
    Items,
    Name,
    Pattern,
    Predicate,
    Range,
    Universal,
    Wildcard,
    comparable,
    name_groups,
)
from .model import KEYS, Key, Level
from .query import CombinedFilter, Filter

__all__ = [
    "TABLES",
    "clause_for",
    "column_values",
    "instances",
    "metadata",
    "open_engine",
    "patients",
    "series",
    "studies",
]

#: How many values a key may give to a statement, and how many alternatives it may make of it; SQLite allows 32 766 and
#: 1 000 for all keys together. What is more is matched in Python.
VALUES: Final = 1500
ALTERNATIVES: Final = 50
#: SQLite: seconds to wait for other processes, and between two looks whether one has written.
_PATIENCE = 60.0
_LOOK = 0.001
#: How many characters LIKE is given.
_PIECE: Final = 100

metadata = MetaData()


def _text(name: str, *, nullable: bool = True, index: bool = False, unique: bool = False) -> Column[str]:
    # Compared by code point everywhere: ranges of text are how "begins with" is asked for.
    kind = Text().with_variant(Text(collation="C"), "postgresql")
    return Column(name, kind, nullable=nullable, index=index, unique=unique)


def _number(name: str, *, index: bool = False) -> Column[int]:
    return Column(name, BigInteger, index=index)


def _id() -> Column[int]:
    return Column("id", Integer().with_variant(BigInteger, "postgresql"), primary_key=True)


def _attributes() -> Column[str]:
    # DICOM JSON in spirit: {"00100010": "Doe^John"}. Never searched by the database.
    return Column("attributes", Text, nullable=False)


patients = Table(
    "patients",
    metadata,
    _id(),
    _text("identity", nullable=False, unique=True),
    _text("patient_id", index=True),
    _text("issuer_of_patient_id"),
    _text("name", index=True),
    _text("name_ideographic", index=True),
    _text("name_phonetic", index=True),
    _number("birth_date"),
    _text("sex"),
    _attributes(),
    sqlite_autoincrement=True,  # an id is never used again, as other processes may still have it in mind
)

studies = Table(
    "studies",
    metadata,
    _id(),
    Column("patient", ForeignKey("patients.id"), nullable=False),
    _text("study_instance_uid", nullable=False, index=True),
    _number("date", index=True),
    _number("time"),
    _text("accession_number", index=True),
    _text("study_id"),
    _text("description"),
    _text("referring"),
    _text("referring_ideographic"),
    _text("referring_phonetic"),
    _attributes(),
    UniqueConstraint("patient", "study_instance_uid"),
    sqlite_autoincrement=True,
)

series = Table(
    "series",
    metadata,
    _id(),
    Column("study", ForeignKey("studies.id"), nullable=False),
    _text("series_instance_uid", nullable=False, index=True),
    _text("modality"),
    _number("number"),
    _text("description"),
    _text("body_part"),
    _number("performed_date"),
    _number("performed_time"),
    Column("instances", Integer, nullable=False),  # how many there are: asked for too often to be counted each time
    _attributes(),
    UniqueConstraint("study", "series_instance_uid"),
    sqlite_autoincrement=True,
)

instances = Table(
    "instances",
    metadata,
    _id(),
    Column("series", ForeignKey("series.id"), nullable=False, index=True),
    _text("sop_instance_uid", nullable=False, unique=True),
    _text("sop_class_uid", nullable=False),
    _text("transfer_syntax_uid", nullable=False),
    _text("path", nullable=False),
    Column("size", BigInteger, nullable=False),
    _number("number"),
    _attributes(),
)

TABLES: Final = {Level.PATIENT: patients, Level.STUDY: studies, Level.SERIES: series, Level.IMAGE: instances}

#: The column of a level's table that says what the entity belongs to.
PARENTS: Final = {Level.STUDY: studies.c.patient, Level.SERIES: series.c.study, Level.IMAGE: instances.c.series}


def open_engine(url: str | URL, *, connections: int, durable: bool) -> Engine:
    """Open a database; SQLite in the way in which it is fast and safe.

    :param connections: how many are open at most.
    :param durable: SQLite: a commit survives the loss of power. Otherwise it survives the end of the process only.
    """
    target = make_url(url)
    options = {"pool_size": connections, "max_overflow": 0, "pool_timeout": 60}
    if target.get_backend_name() != "sqlite":
        return create_engine(target, pool_pre_ping=True, **options)
    if target.database in (None, "", ":memory:"):
        raise ValueError("the index needs a database file: an SQLite database in memory belongs to one connection")
    engine = create_engine(target, connect_args={"timeout": _PATIENCE, "check_same_thread": False}, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        # The sqlite3 module begins transactions when it thinks fit; BEGIN IMMEDIATE is needed, see `begin`.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA cache_size = -16384")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails if another wrote in between: writers say so at once.
        if connection.get_execution_options().get("write", False):
            _begin_writing(connection)
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


def _begin_writing(connection: Connection) -> None:
    """Begin a write transaction in SQLite, as soon as that of another process ends.

    SQLite would look again after 1, 2, 5 and up to 100 ms. Measured with two processes that write: one commit in a hundred
    took 50 ms then, and some 300 ms; looking each millisecond, 10 ms.
    """
    plain: Any = connection.connection.dbapi_connection
    plain.execute("PRAGMA busy_timeout = 0")
    try:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                plain.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
            else:
                return
            time.sleep(_LOOK)
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # for the error that it makes
    finally:
        plain.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}")


# Values for columns


def _name_columns(column: str) -> tuple[str, str, str]:
    return column, f"{column}_ideographic", f"{column}_phonetic"


def column_values(key: Key, value: Value) -> dict[str, str | int | None]:
    """Return what is written to the columns of an attribute."""
    assert key.column is not None
    if isinstance(value, list):  # none of the attributes with a column may have several values
        value = "\\".join(map(str, value))
    if key.vr == "PN":
        groups = name_groups(value) if isinstance(value, str) else ("", "", "")
        return {column: group or None for column, group in zip(_name_columns(key.column), groups, strict=True)}
    found = comparable(key.vr, value)
    return {key.column: found if isinstance(found, str | int) else None}


# Predicates

#: A condition and whether it is exact; ``None`` as condition is no condition.
Clause = tuple[ColumnElement[bool] | None, bool]

_NOTHING: Clause = (None, False)


def _successor(prefix: str) -> str | None:
    """Return the least text that is greater than all that begin with *prefix*."""
    for position in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[position]) + 1
        if point == 0xD800:  # surrogates are no characters
            point = 0xE000
        if point <= 0x10FFFF:
            return prefix[:position] + chr(point)
    return None


def _like(piece: str) -> str:
    escaped = piece[:_PIECE].replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"


def _pattern(column: ColumnElement[str], pattern: Pattern) -> Clause:
    """Ask for a pattern: what it begins with exactly, what else it contains roughly.

    A database's own LIKE would do, but the time it takes for many wildcards has no useful bound.
    """
    if pattern.is_literal:
        return column == pattern.text, True
    conditions: list[ColumnElement[bool]] = [column.is_not(None)]
    if pattern.prefix:
        conditions.append(column >= pattern.prefix)
        if (end := _successor(pattern.prefix)) is not None:
            conditions.append(column < end)
    if pattern.is_prefix:
        return and_(*conditions), True
    conditions += [column.like(_like(piece), escape="!") for piece in pattern.pieces[:2]]
    return and_(*conditions), False


def _any(clauses: Sequence[Clause]) -> Clause:
    conditions = [condition for condition, _ in clauses if condition is not None]
    if len(conditions) < len(clauses) or len(conditions) > ALTERNATIVES:
        return _NOTHING
    return or_(*conditions), all(exact for _, exact in clauses)


def _all(clauses: Sequence[Clause]) -> Clause:
    conditions = [condition for condition, _ in clauses if condition is not None]
    exact = all(exact for _, exact in clauses)
    return (and_(*conditions), exact) if conditions else (None, exact)


def _name_clause(key: Key, name: Name) -> Clause:
    assert key.column is not None
    columns = [TABLES[key.level].c[column] for column in _name_columns(key.column)]
    if len(name.groups) == 1:
        return _any([_pattern(column, pattern) for column in columns for pattern in name.groups[0] or ()])
    wanted = [
        _any([_pattern(column, pattern) for pattern in patterns])
        for column, patterns in zip(columns, name.groups, strict=False)
        if patterns is not None
    ]
    return _all(wanted)


def _range_clause(column: ColumnElement[int], wanted: Range) -> Clause:
    conditions: list[ColumnElement[bool]] = [] if wanted.low is None else [column >= wanted.low]
    if wanted.high is not None:
        conditions.append(column <= wanted.high)
    return and_(*conditions), True


def _predicate_clause(key: Key, wanted: Predicate) -> Clause:
    assert key.column is not None
    column = TABLES[key.level].c[key.column]
    match wanted:
        case Universal():
            return None, True
        case Empty():
            return column.is_(None), False  # also where the value makes no sense
        case Equal():
            if len(wanted.values) > VALUES:
                return _NOTHING
            return column.in_(sorted(wanted.values, key=str)), True
        case Wildcard():
            return _pattern(column, wanted.pattern)
        case Name():
            return _name_clause(key, wanted)
        case Range():
            return _range_clause(column, wanted)
        case AnyOf():
            return _any([_predicate_clause(key, alternative) for alternative in wanted.alternatives])
        case FuzzyName() | Items():
            return _NOTHING
        case _:
            assert_never(wanted)


def _widened(wanted: Range) -> Range:
    """Return a range of dates that holds what another time zone makes of it: a day more on both sides."""

    def other(day: int | None, days: int) -> int | None:
        if day is None:
            return None
        try:
            moved = date(day // 10000, day // 100 % 100, day % 100) + timedelta(days)
        except OverflowError:
            return None
        return moved.year * 10000 + moved.month * 100 + moved.day

    return Range(vr=wanted.vr, low=other(wanted.low, -1), high=other(wanted.high, 1))


def _combined_clause(wanted: CombinedFilter) -> Clause:
    if wanted.date_key.column is None or wanted.time_key.column is None or wanted.timezone is not None:
        return _NOTHING
    day = TABLES[wanted.level].c[wanted.date_key.column]
    time = TABLES[wanted.level].c[wanted.time_key.column]
    conditions: list[ColumnElement[bool]] = [day.is_not(None), time.is_not(None)]
    if wanted.date.low is not None:
        conditions.append(or_(day > wanted.date.low, and_(day == wanted.date.low, time >= wanted.time.low)))
    if wanted.date.high is not None:
        conditions.append(or_(day < wanted.date.high, and_(day == wanted.date.high, time <= wanted.time.high)))
    return and_(*conditions), True


def clause_for(wanted: Filter | CombinedFilter) -> Clause:
    """Return the condition on the table of the filter's level, and whether it says all."""
    if isinstance(wanted, CombinedFilter):
        return _combined_clause(wanted)
    key = wanted.key
    if key.column is None:
        return _NOTHING
    if wanted.timezone is not None:
        if key.vr != "DA":
            return _NOTHING
        if not isinstance(wanted.predicate, Range):
            return _NOTHING
        return _predicate_clause(key, _widened(wanted.predicate))[0], False
    return _predicate_clause(key, wanted.predicate)


#: (key, column) of the attributes of a level that have a column.
COLUMNS: Final = {level: [key for key in keys.values() if key.column is not None] for level, keys in KEYS.items()}
