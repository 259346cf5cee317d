"""Making an index anew from the files.

What an older index says is believed in one thing: which of several files with the same SOP Instance UID is the instance, and
how large that is. The others were never acknowledged, or were replaced.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..exceptions import DataSetError
from .entities import InstanceRow, NewInstance
from .files import Files
from .index import Index
from .ingest import describe, is_intact
from .matching import IdentifierError

__all__ = ["Rebuilt", "rebuild", "rebuild_file"]

logger = logging.getLogger("asyncdicom.archive")

#: Files of a transaction.
_BATCH = 256


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild of the index has found.

    :ivar indexed: instances in the index now.
    :ivar duplicates: files whose SOP Instance UID another file has, which are left alone.
    :ivar damaged: files that are not whole instances, which are left alone.
    :ivar missing: instances that an older index knows and that have no file.
    """

    indexed: int = 0
    duplicates: int = 0
    damaged: int = 0
    missing: int = 0


def rebuild(
    files: Files, index: Index, old: Index | None, *, newest: bool, progress: Callable[[Rebuilt], None] | None = None
) -> Rebuilt:
    """Fill an empty index. Blocks; nothing may be stored meanwhile.

    :param old: an older index.
    :param newest: of several files with the same SOP Instance UID of which *old* knows none, take the last one.
    :param progress: called after every batch of files.
    """
    found = Rebuilt()
    batch: list[NewInstance] = []

    def add() -> None:
        known: Mapping[str, InstanceRow] = {} if old is None else old.get(new.sop_instance_uid for new in batch)
        chosen = [new for new in batch if _is_chosen(files, new, known.get(new.sop_instance_uid), found)]
        _add(index, chosen, found, newest=newest)
        batch.clear()
        if progress is not None:
            progress(found)

    for name in files.names():
        try:
            batch.append(_read(files, name))
        except (DataSetError, IdentifierError, OSError):
            _report(name, found)
        if len(batch) == _BATCH:
            add()
    add()
    if old is not None:
        _count_missing(files, index, old, found)
    return found


def rebuild_file(
    files: Files,
    path: Path,
    open_index: Callable[[Path], Index],
    *,
    newest: bool,
    progress: Callable[[Rebuilt], None] | None = None,
) -> Rebuilt:
    """Make an index in an SQLite file, which takes the place of the one that is there when it is complete. Blocks.

    :raises OSError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    _remove(fresh)
    old: Index | None = None
    try:
        if path.exists():
            try:
                old = open_index(path)
            except OSError as exc:
                logger.warning("the old index is of no use: %s", exc)
        index = open_index(fresh)
        try:
            found = rebuild(files, index, old, newest=newest, progress=progress)
        finally:
            index.close()
    except BaseException:
        _remove(fresh)
        raise
    finally:
        if old is not None:
            old.close()
    # What an old index had not written yet must not be taken for a part of the new one.
    _remove_log(path)
    os.replace(fresh, path)
    return found


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    _remove_log(path)


def _remove_log(path: Path) -> None:
    """Remove what SQLite keeps beside a database that was not closed."""
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def _read(files: Files, name: str) -> NewInstance:
    stored = files.open(name)
    try:
        return describe(stored, name)
    finally:
        stored.close()


def _report(name: str, found: Rebuilt) -> None:
    logger.error("not a whole instance, and left out of the index: %s", name)
    found.damaged += 1


def _is_chosen(files: Files, new: NewInstance, row: InstanceRow | None, found: Rebuilt) -> bool:
    """Say whether a file is the instance, after what the older index knows of its SOP Instance UID."""
    if row is None:
        return True
    if row.path == new.path:
        if row.size == new.size:
            return True
        _report(new.path, found)
        return False
    try:
        stored = files.open(row.path)
    except (DataSetError, OSError):
        return True
    try:
        intact = is_intact(stored, row)
    finally:
        stored.close()
    found.duplicates += intact
    return not intact


def _add(index: Index, chosen: Sequence[NewInstance], found: Rebuilt, *, newest: bool) -> None:
    for new, row in zip(chosen, index.add(chosen), strict=True):
        if row is None:
            found.indexed += 1
            continue
        found.duplicates += 1
        if newest:
            index.replace(new)


def _count_missing(files: Files, index: Index, old: Index, found: Rebuilt) -> None:
    for page in old.all():
        there = index.get(row.sop_instance_uid for row in page)
        for row in page:
            if row.sop_instance_uid in there:
                continue
            try:
                files.open(row.path).close()
            except FileNotFoundError:
                logger.error("an instance has no file any more: %s", row.path)
                found.missing += 1
            except (DataSetError, OSError):
                pass  # it was found damaged
