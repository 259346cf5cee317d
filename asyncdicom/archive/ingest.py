"""Taking instances in: from a staged file to an acknowledged row of the index, in batches.

Theory of operation
-------------------
An instance is acknowledged only when its file has its name and its row is committed. Doing both costs a transaction and, if
asked for, a wait for the disk; so instances that arrive together share them. There is no background task: whoever finds no
batch in progress takes all that wait and runs the batch for everybody, in one call in a worker thread.
"""

from __future__ import annotations

import filecmp
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
from anyio import CancelScope, to_thread

from .. import Status
from ..dataset import read_file_head
from ..exceptions import DataSetError
from ..status import DATA_SET_MISMATCH_WARNING, DUPLICATE_SOP_INSTANCE, IDENTIFIER_MISMATCH, SUCCESS
from .entities import InstanceRow, NewInstance, read_attributes
from .files import Files, Sync
from .index import Index
from .matching import IdentifierError

__all__ = ["Answer", "Ingest", "OnDuplicate", "read_instance"]

logger = logging.getLogger("asyncdicom.archive")

#: Bytes of a data set that are read for its attributes, and how many if some are missing then.
_HEAD = 256 << 10
_LARGE_HEAD = 16 << 20
#: Most instances of a batch.
_MOST = 256

OnDuplicate = str  # "refuse", "keep" or "replace"


@dataclass(frozen=True, slots=True)
class Answer:
    """How the C-STORE of an instance is answered."""

    status: Status
    comment: str | None = None


@dataclass(slots=True, eq=False)
class _Staged:
    """An instance that waits to be taken in."""

    path: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int
    done: anyio.Event
    answer: Answer | None = None
    failure: BaseException | None = None


def read_instance(path: str, offset: int, transfer_syntax_uid: str, name: str = "") -> NewInstance:
    """Read what the index needs of a file.

    :param offset: where its data set begins, bytes.
    :raises IdentifierError: it has no SOP Class, SOP Instance, Study or Series Instance UID.
    :raises OSError: it cannot be read.
    """
    size = os.stat(path).st_size
    for amount in (_HEAD, _LARGE_HEAD):
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(amount)
        try:
            return NewInstance(
                attributes=read_attributes(data, transfer_syntax_uid),
                transfer_syntax_uid=transfer_syntax_uid,
                path=name,
                size=size,
            )
        except IdentifierError:
            if len(data) < amount:
                raise
    raise IdentifierError("the identifying attributes are not where they should be")


class Ingest:
    """Takes staged instances in.

    :param discard: called with the name of a file that nobody refers to any more.
    """

    def __init__(
        self,
        index: Index,
        files: Files,
        *,
        on_duplicate: OnDuplicate,
        sync: Sync,
        discard: Callable[[str], None],
    ) -> None:
        self._index = index
        self._files = files
        self._on_duplicate = on_duplicate
        self._sync = sync
        self._discard = discard
        self._waiting: list[_Staged] = []
        self._running = False

    async def take(
        self, path: str, offset: int, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str
    ) -> Answer:
        """Take a staged instance in, and tell how to answer it. The staged file is gone afterwards, whatever happens.

        :param offset: where its data set begins, bytes.
        :raises OSError: the disk is full, or fails.

        Cancelling it while its batch runs does not undo it.
        """
        staged = _Staged(path, sop_class_uid, sop_instance_uid, transfer_syntax_uid, offset, anyio.Event())
        self._waiting.append(staged)
        try:
            if self._running:
                await staged.done.wait()
            else:
                with CancelScope(shield=True):
                    await self._run()
        except BaseException:
            if staged in self._waiting:
                self._waiting.remove(staged)
                _unlink(path)
            raise
        if staged.failure is not None:
            raise staged.failure
        assert staged.answer is not None
        return staged.answer

    async def _run(self) -> None:
        """Run batches until nothing waits."""
        self._running = True
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                try:
                    await to_thread.run_sync(self._take_in, batch)
                finally:
                    for staged in batch:
                        staged.done.set()
        finally:
            self._running = False

    def _take_in(self, batch: Sequence[_Staged]) -> None:
        """Take a batch in (in a worker thread)."""
        kept: list[tuple[_Staged, NewInstance, str]] = []
        for staged in batch:
            try:
                new = read_instance(staged.path, staged.offset, staged.transfer_syntax_uid)
                name = self._files.keep(staged.path, new.sop_instance_uid)
            except (IdentifierError, ValueError) as exc:
                staged.answer = Answer(IDENTIFIER_MISMATCH, str(exc))
                _unlink(staged.path)
            except OSError as exc:
                staged.failure = exc
                _unlink(staged.path)
            else:
                new = NewInstance(
                    attributes=new.attributes, transfer_syntax_uid=new.transfer_syntax_uid, path=name, size=new.size
                )
                kept.append((staged, new, name))
                if self._sync is Sync.ALWAYS:
                    self._files.sync([name])
        if not kept:
            return
        try:
            if self._sync is Sync.BATCH:
                self._files.sync([name for _, _, name in kept])
            present = self._index.add([new for _, new, _ in kept])
        except BaseException as exc:
            for staged, _, name in kept:
                staged.failure = exc if isinstance(exc, OSError) else OSError("the index cannot be written")
                self._files.discard(name)
            logger.error("a batch of %d instances could not be indexed: %s", len(kept), type(exc).__name__)
            if not isinstance(exc, Exception):
                raise
            return
        for (staged, new, name), row in zip(kept, present, strict=True):
            if row is None:
                staged.answer = _accepted(staged, new)
                continue
            try:
                staged.answer = self._duplicate(staged, new, name, row)
            except OSError as exc:
                staged.failure = exc
                self._files.discard(name)

    def _duplicate(self, staged: _Staged, new: NewInstance, name: str, row: InstanceRow) -> Answer:
        """Decide on another instance with a SOP Instance UID that is there."""
        if self._same(name, row):
            self._files.discard(name)
            return _accepted(staged, new)
        if self._on_duplicate == "replace":
            old = self._index.replace(new)
            if old is not None:
                self._discard(old.path)
            return _accepted(staged, new)
        self._files.discard(name)
        if self._on_duplicate == "keep":
            return _accepted(staged, new)
        return Answer(DUPLICATE_SOP_INSTANCE, "another instance with this SOP Instance UID is stored")

    def _same(self, name: str, row: InstanceRow) -> bool:
        """Tell whether a file holds the same data set as a stored instance."""
        one, other = self._files.path(name), self._files.path(row.path)
        try:
            first, second = read_file_head(one), read_file_head(other)
        except (OSError, DataSetError):
            return False  # what is stored is damaged or gone
        if first.transfer_syntax_uid != second.transfer_syntax_uid or first.data_set_size != second.data_set_size:
            return False
        if first.data_set_offset == second.data_set_offset and filecmp.cmp(one, other, shallow=False):
            return True
        return _equal_from(one, first.data_set_offset, other, second.data_set_offset)


def _equal_from(one: str, start: int, other: str, begin: int) -> bool:
    with open(one, "rb") as first, open(other, "rb") as second:
        first.seek(start)
        second.seek(begin)
        while True:
            a, b = first.read(1 << 20), second.read(1 << 20)
            if a != b:
                return False
            if not a:
                return True


def _accepted(staged: _Staged, new: NewInstance) -> Answer:
    """Success, or a warning when the command named another instance than the data set is (PS3.4 B.2.3)."""
    if staged.sop_instance_uid != new.sop_instance_uid:
        return Answer(DATA_SET_MISMATCH_WARNING, "the data set has another SOP Instance UID than the command")
    return Answer(SUCCESS)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
