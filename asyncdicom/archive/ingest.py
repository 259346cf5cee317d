"""Taking instances in: from the bytes that arrive to an acknowledged row of the index.

Theory of operation
-------------------
An instance is acknowledged when its file is whole and has its name, and its row is committed; with ``sync`` each of these
steps is on the disk before the next: content, name, index, answer. A small instance stays in memory until it is complete,
so that one call in a worker thread does it all; a large one is written while it arrives.

A transaction costs more than a row, and waiting for the disk more than both. So whoever comes to commit takes the instances
of all who came since with him: threads queue at a lock, and most of them find their work done when they get it.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

from .. import Status
from ..dataset import safe_uid
from ..exceptions import DataSetError
from ..status import (
    DATA_SET_MISMATCH_WARNING,
    DUPLICATE_SOP_INSTANCE,
    IDENTIFIER_MISMATCH,
    INVALID_OBJECT_INSTANCE,
    SUCCESS,
)
from .entities import SOP_CLASS_UID, SOP_INSTANCE_UID, InstanceRow, NewInstance, read_attributes
from .files import Files, Incoming, Stored, Sync
from .index import Index
from .matching import IdentifierError

__all__ = ["Answer", "Arrival", "Ingest", "OnDuplicate", "describe", "is_intact"]

logger = logging.getLogger("asyncdicom.archive")

#: Bytes of a data set that are looked at for its attributes, and how many if some are missing then.
_HEAD = 256 << 10
_LARGE_HEAD = 16 << 20
#: Most instances of a transaction.
_MOST = 256
#: Bytes of two files that are compared at once.
_COMPARED = 1 << 20

OnDuplicate = Literal["refuse", "keep", "replace"]


@dataclass(frozen=True, slots=True)
class Answer:
    """How the C-STORE of an instance is answered.

    :ivar offending: the tag of the element that is to blame, if one is.
    """

    status: Status
    comment: str | None = None
    offending: int | None = None


_ACCEPTED = Answer(SUCCESS)
_OTHER = Answer(DATA_SET_MISMATCH_WARNING, "the data set is another instance than the command says")
_DUPLICATE = Answer(DUPLICATE_SOP_INSTANCE, "another instance with this SOP Instance UID is stored")
_INVALID = Answer(INVALID_OBJECT_INSTANCE, "the SOP Instance UID of the data set is not valid")


def describe(stored: Stored, name: str, transfer_syntax_uid: str | None = None) -> NewInstance:
    """Make of a stored instance what the index is told of it, reading no more than that takes.

    :param transfer_syntax_uid: as it was received; ``None`` takes what the file says.
    :raises IdentifierError: it has no SOP Class, SOP Instance, Study or Series Instance UID.
    :raises OSError: it cannot be read.
    """
    syntax = transfer_syntax_uid or stored.head.transfer_syntax_uid
    data = b""
    for amount in (_HEAD, _LARGE_HEAD):
        piece = bytearray(amount - len(data))
        data += piece[: stored.read_into([memoryview(piece)])]
        try:
            return NewInstance(
                attributes=read_attributes(data, syntax), transfer_syntax_uid=syntax, path=name, size=stored.head.size
            )
        except IdentifierError:
            if len(data) < amount or amount == _LARGE_HEAD:
                raise
    raise AssertionError("the last attempt returns or raises")


class Arrival:
    """One instance that arrives.

    Its methods block, but for :meth:`abort`, and one of them is called at a time.
    """

    def __init__(
        self, ingest: Ingest, head: bytes, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str
    ) -> None:
        self._ingest = ingest
        self._command = sop_class_uid, sop_instance_uid
        self._transfer_syntax_uid = transfer_syntax_uid
        self._unwritten: list[bytes] = [head]
        self._size = len(head)
        self._data = b""  # the first bytes of the data set
        self._incoming: Incoming | None = None
        self._lock = threading.Lock()
        self._aborted = False

    def write(self, chunks: Sequence[bytes]) -> None:
        """Write what has come to the disk.

        :raises OSError: it cannot be written; nothing is left of it then.
        """
        with self._or_nothing():
            self._take(chunks)
            self._flush()

    def finish(self, chunks: Sequence[bytes]) -> Answer:
        """Write the last of it, and have it stored; or nothing is left of it.

        :raises OSError: it cannot be stored.
        """
        with self._or_nothing():
            self._take(chunks)
            syntax = self._transfer_syntax_uid
            attributes = read_attributes(self._data, syntax)
            try:
                new = NewInstance(attributes=attributes, transfer_syntax_uid=syntax, path="", size=self._size)
            except IdentifierError as exc:
                if len(self._data) < _HEAD or SOP_INSTANCE_UID not in attributes:
                    return self._refuse(Answer(IDENTIFIER_MISMATCH, str(exc), exc.tag))
                new = None  # perhaps they come late
            uid = attributes[SOP_INSTANCE_UID].value
            if not isinstance(uid, str) or not safe_uid(uid := uid.strip(" \0")):
                return self._refuse(_INVALID)
            self._flush()
            assert self._incoming is not None
            name = self._incoming.keep(uid, sync=self._ingest.sync is not Sync.NEVER)
            return self._ingest.commit(name, None if new is None else replace(new, path=name), self._command, syntax)

    def _take(self, chunks: Sequence[bytes]) -> None:
        self._unwritten += chunks
        self._size += sum(map(len, chunks))
        if len(self._data) < _HEAD:
            data = [self._data, *chunks] if self._data else chunks
            self._data = data[0] if len(data) == 1 else b"".join(data)
            if len(self._data) > 2 * _HEAD:
                self._data = self._data[:_HEAD]

    def _flush(self) -> None:
        if self._incoming is None:
            self._incoming = self._ingest.files.begin()
        self._incoming.write(self._unwritten)
        self._unwritten = []

    def _refuse(self, answer: Answer) -> Answer:
        self._discard()
        return answer

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """Leave nothing behind if the block fails, or nobody waits for it any more."""
        with self._lock:
            try:
                yield
            except BaseException:
                self._discard()
                raise
            if self._aborted:
                self._discard()

    def _discard(self) -> None:
        self._unwritten = []
        if self._incoming is not None:
            self._incoming.abort()

    def abort(self) -> None:
        """Forget it, unless it is stored already; may be called again.

        It does not wait for a call that is in progress, which does it then when it ends.
        """
        self._aborted = True
        if self._lock.acquire(blocking=False):
            try:
                self._discard()
            finally:
                self._lock.release()


@dataclass(slots=True, eq=False)
class _Kept:
    """An instance that has its file, and waits for its row."""

    new: NewInstance
    command: tuple[str, str]
    answer: Answer | None = None
    failure: Exception | None = None


class Ingest:
    """Takes instances in. Any thread may use it.

    :param retire: called with the name of a file that was replaced, once nobody finds it any more.
    """

    def __init__(
        self, index: Index, files: Files, *, on_duplicate: OnDuplicate, sync: Sync, retire: Callable[[str], None]
    ) -> None:
        self.files = files
        self.sync = sync
        self._index = index
        self._on_duplicate = on_duplicate
        self._retire = retire
        self._waiting: deque[_Kept] = deque()
        self._turn = threading.Lock()

    def arrival(self, head: bytes, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> Arrival:
        """Begin to take an instance in; does not block.

        :param head: what comes in front of its data set in a file.
        :param sop_class_uid: as the command says, and so are the others.
        """
        return Arrival(self, head, sop_class_uid, sop_instance_uid, transfer_syntax_uid)

    def commit(self, name: str, new: NewInstance | None, command: tuple[str, str], transfer_syntax_uid: str) -> Answer:
        """Have an instance acknowledged that was kept, together with those of other threads; or discard it.

        :param new: what the index is told; ``None`` reads it from the file.
        :param command: SOP Class and Instance UID of the command.
        :raises OSError: the index or the disk fails.
        """
        try:
            kept = _Kept(new or self._describe(name, transfer_syntax_uid), command)
        except IdentifierError as exc:
            self.files.discard(name)
            return Answer(IDENTIFIER_MISMATCH, str(exc), exc.tag)
        except BaseException:
            self.files.discard(name)
            raise
        self._waiting.append(kept)
        while kept.answer is None and kept.failure is None:
            with self._turn:
                if kept.answer is None and kept.failure is None:
                    self._run(self._batch(kept))
        if kept.failure is not None:
            raise kept.failure
        assert kept.answer is not None
        return kept.answer

    def _describe(self, name: str, transfer_syntax_uid: str) -> NewInstance:
        stored = self.files.open(name)
        try:
            return describe(stored, name, transfer_syntax_uid)
        finally:
            stored.close()

    def _batch(self, own: _Kept) -> list[_Kept]:
        if self.sync is Sync.ALWAYS:
            self._waiting.remove(own)
            return [own]
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST))]

    def _run(self, batch: list[_Kept]) -> None:
        """Give each of a batch its answer, or its failure; what is not stored then has no file any more."""
        try:
            self._commit(batch)
        finally:
            for kept in batch:
                if kept.answer is None and kept.failure is None:
                    kept.failure = OSError("the transaction was broken off")

    def _commit(self, batch: list[_Kept]) -> None:
        try:
            if self.sync is not Sync.NEVER:
                self.files.sync([kept.new.path for kept in batch])
            present = self._index.add([kept.new for kept in batch])
        except Exception as exc:
            if len(batch) > 1 and not isinstance(exc, OSError):
                # One instance that the database does not take must not cost the others.
                for kept in batch:
                    self._commit([kept])
                return
            logger.error("%d instances could not be indexed: %s", len(batch), type(exc).__name__)
            for kept in batch:
                kept.failure = _as_os_error(exc)
                self._take_back(kept)
            return
        settled = []
        for kept, row in zip(batch, present, strict=True):
            try:
                if row is None or self._is_stored(kept, row):
                    settled.append(kept.new.path)
                else:
                    self._discard(kept.new.path)
            except Exception as exc:
                logger.error("an instance could not be stored: %s", type(exc).__name__)
                kept.answer, kept.failure = None, _as_os_error(exc)
                self._discard(kept.new.path)
            else:
                kept.answer = kept.answer or _accepted(kept)
        self.files.settle(settled)

    def _is_stored(self, kept: _Kept, row: InstanceRow) -> bool:
        """Decide on an instance whose SOP Instance UID another one has: say whether it takes its place."""
        present = self._compare(kept.new, row)
        if present is _Present.SAME:
            return False
        if present is _Present.OTHER and self._on_duplicate != "replace":
            if self._on_duplicate == "refuse":
                kept.answer = _DUPLICATE
            return False
        if present is _Present.DAMAGED:
            logger.error("a stored instance is damaged or missing, and was stored anew: %s", row.path)
        self.files.doubt([row.path])
        old = self._index.replace(kept.new)
        if old is None or old.path != row.path:
            self.files.settle([row.path])  # somebody else was quicker
        if old is not None:
            self._retire(old.path)
        return True

    def _compare(self, new: NewInstance, row: InstanceRow) -> _Present:
        """Compare the data set of an instance that was kept with that of a stored one."""
        try:
            stored = self.files.open(row.path)
        except (OSError, DataSetError):
            return _Present.DAMAGED
        try:
            if not is_intact(stored, row):
                return _Present.DAMAGED
            if new.transfer_syntax_uid != row.transfer_syntax_uid:
                return _Present.OTHER
            ours = self.files.open(new.path)
            try:
                return _Present.SAME if _equal(ours, stored) else _Present.OTHER
            finally:
                ours.close()
        finally:
            stored.close()

    def _take_back(self, kept: _Kept) -> None:
        """Discard an instance, unless it was committed although that failed; while nobody can say, it stays in doubt."""
        try:
            row = self._index.get([kept.new.sop_instance_uid]).get(kept.new.sop_instance_uid)
        except Exception:
            return
        if row is None or row.path != kept.new.path:
            self._discard(kept.new.path)
        else:
            self.files.settle([row.path])

    def _discard(self, name: str) -> None:
        with suppress(OSError):
            self.files.discard(name)


class _Present(enum.Enum):
    """How what is stored compares with what came."""

    SAME = enum.auto()
    OTHER = enum.auto()
    DAMAGED = enum.auto()


def is_intact(stored: Stored, row: InstanceRow) -> bool:
    """Say whether a stored instance is as it was stored, as far as that is seen without reading it."""
    return stored.head.size == row.size


def _equal(one: Stored, other: Stored) -> bool:
    if one.size != other.size:
        return False
    first, second = bytearray(_COMPARED), bytearray(_COMPARED)
    while read := one.read_into([memoryview(first)]):
        if other.read_into([memoryview(second)]) != read or memoryview(first)[:read] != memoryview(second)[:read]:
            return False
    return True


def _accepted(kept: _Kept) -> Answer:
    """Success, or a warning if the command named another instance than the data set is (PS3.4 B.2.3)."""
    own = kept.new.uid(SOP_CLASS_UID), kept.new.sop_instance_uid
    return _ACCEPTED if own == kept.command else _OTHER


def _as_os_error(exc: Exception) -> OSError:
    """Return what the store of an instance fails with: each its own, because several threads raise it."""
    if isinstance(exc, OSError):
        return type(exc)(*exc.args)
    return OSError(f"the index cannot be written: {type(exc).__name__}")
