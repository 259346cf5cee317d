"""Keep instances that were received as ``<SOP Instance UID>.dcm`` in a folder.

Files appear whole or not at all, and none is replaced by another content without being told to: where there is a file of
the name already, the instance is written beside it, hidden, and their data sets are compared. Equal ones are one instance;
of different ones the first stays, unless ``replace`` is chosen.
"""

from __future__ import annotations

import enum
import itertools
import os
import tempfile
import time
from contextlib import suppress
from functools import partial
from typing import Protocol

import anyio
from anyio import to_thread

from ..dataset import FileSource
from ..exceptions import DataSetError
from .outcome import CommandError, Exit

__all__ = ["Folder", "Incoming", "Kept"]

_CHUNK = 1 << 20

#: How files are called that are not finished, those of ``Instance.save`` among them.
_HIDDEN, _UNFINISHED = ".asyncdicom-", ".part"
#: Seconds for which nobody has written to a file that somebody may still be writing.
_FORGOTTEN = 86_400

#: Seconds that an instance waits for another one of its UID that has begun to arrive before it.
_PATIENCE = 5.0


class Incoming(Protocol):
    """An instance that is being received."""

    sop_instance_uid: str  # checked to be one

    async def save(self, path: str, *, replace: bool = True) -> object:
        """Write it to a file."""


class Kept(enum.Enum):
    """What became of an instance."""

    NEW = "new"
    SAME = "there already"  # with the same data set
    REPLACED = "replaced another content"
    REFUSED = "dropped for another content"  # the first one stays


class Folder:
    """A folder that instances are kept in.

    :param suffix: what files are called behind the SOP Instance UID.
    :param replace: put an instance in the place of one with another content, instead of refusing it.
    :param shared: other processes receive into it, too, perhaps the same instances at the same time.
    :ivar bytes: of the files that were written.
    """

    def __init__(self, path: str, *, suffix: str = ".dcm", replace: bool = False, shared: bool = False) -> None:
        self.path = path
        self.bytes = 0
        self._suffix = suffix
        self._replace = replace
        self._shared = shared
        self._writing: dict[str, anyio.Event] = {}
        self._numbers = itertools.count(1)

    def prepare(self) -> None:
        """Make the folder, and see that files can be made in it.

        :raises CommandError: they cannot.
        """
        try:
            os.makedirs(self.path, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path, prefix=_HIDDEN, suffix=_UNFINISHED):
                pass
        except OSError as exc:
            reason = "not a folder" if isinstance(exc, FileExistsError) else (exc.strerror or str(exc)).lower()
            raise CommandError(f"cannot write into {self.path}: {reason}", Exit.USAGE) from exc

    def remove_left_over(self) -> None:
        """Remove unfinished files of processes that were killed: those that nobody has written to for a day."""
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.startswith(_HIDDEN) and entry.name.endswith(_UNFINISHED):
                    with suppress(OSError):
                        if entry.is_file(follow_symlinks=False) and time.time() - entry.stat().st_mtime > _FORGOTTEN:
                            os.unlink(entry.path)

    def file(self, uid: str) -> str:
        """Return the path of the file of an instance."""
        return os.path.join(self.path, uid + self._suffix)

    async def keep(self, instance: Incoming) -> Kept:
        """Keep an instance.

        :raises OSError: it cannot be written.
        :raises AssociationError: the association ended before it was there.
        """
        uid = instance.sop_instance_uid
        path = self.file(uid)
        if uid in self._writing or _exists(path) or (self._shared and not self._replace):
            kept = await self._beside(instance, path)
        else:
            written = self._writing[uid] = anyio.Event()
            try:
                # Another process may have been quicker. One that we do not know of is not to be overruled.
                await instance.save(path, replace=self._shared)
            finally:
                del self._writing[uid]
                written.set()
            kept = Kept.NEW
        if kept is Kept.NEW or kept is Kept.REPLACED:
            self.bytes += _size(path)
        return kept

    async def _beside(self, instance: Incoming, path: str) -> Kept:
        hidden = os.path.join(self.path, f"{_HIDDEN}{os.getpid()}-{next(self._numbers)}{_UNFINISHED}")
        await instance.save(hidden)
        try:
            first = self._writing.get(instance.sop_instance_uid)
            if first is not None:
                # Whoever is slow for long will find its place taken, and fail.
                with anyio.move_on_after(_PATIENCE):
                    await first.wait()
            return await to_thread.run_sync(partial(self._settle, hidden, path))
        finally:
            _remove(hidden)

    def _settle(self, hidden: str, path: str) -> Kept:
        """Put a file that is written in its place, if it belongs there."""
        try:
            os.link(hidden, path)
        except FileExistsError:
            pass
        except OSError:
            if not os.path.lexists(path):  # a file system without hard links
                os.replace(hidden, path)
                return Kept.NEW
        else:
            return Kept.NEW
        if _same(hidden, path):
            return Kept.SAME
        if self._replace:
            os.replace(hidden, path)
            return Kept.REPLACED
        return Kept.REFUSED


def _exists(path: str) -> bool:
    # Not worth a hop to a worker thread, which costs fifty times as much.
    return os.path.lexists(path)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # somebody took it already


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _same(one: str, other: str) -> bool:
    """Tell whether two files hold the same data set in the same transfer syntax; their meta headers may differ."""
    try:
        with FileSource.open(one) as first, FileSource.open(other) as second:
            if first.size != second.size or first.head.transfer_syntax_uid != second.head.transfer_syntax_uid:
                return False
            most = min(_CHUNK, first.size)
            buffers = bytearray(most), bytearray(most)
            while read := first.read_into([memoryview(buffers[0])]):
                if second.read_into([memoryview(buffers[1])]) != read or buffers[0][:read] != buffers[1][:read]:
                    return False
            return True
    except (DataSetError, OSError):
        return False  # what is there is no instance, or cannot be read: it is another content
