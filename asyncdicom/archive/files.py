"""Where the archive keeps its instances: a small protocol, and the folder that is the default.

Theory of operation
-------------------
An instance is written whole, and forced to the disk, before it gets a name; the name is its own, never one that exists. So
two instances of the same UID never meet in one file, and whatever moment the process dies at, no name ever shows half an
instance. Which of them counts is decided by the index, afterwards. Between the two an instance is *in doubt*: there is a
file, and the index may or may not come to know it. The names in doubt are noted, so that the next process can ask the index
about those that a killed one left, and remove what nobody was promised.

Each process receives into a folder of its own, which it holds locked. What lies in one that is not locked was left by a
process that has died.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ..dataset import FileHead, FileSource, Source, safe_uid

__all__ = ["Files", "FolderFiles", "Incoming", "Stored", "Sync"]

#: Instances that a folder takes before another one is begun.
_FOLDER_SIZE = 1000
#: How a name looks: day, time at which the folder was begun, SOP Instance UID; with what makes them unique.
_NAME = re.compile(r"\d{8}/\d{12}-[0-9a-f]{4}/([0-9.]{1,64})-[0-9a-f]{8}\.dcm", re.ASCII)

#: How the folder of a process looks, and what is received in it.
_OWN = re.compile(r"[0-9a-f]{8}", re.ASCII)
_UNNAMED = re.compile(r"[0-9a-f]{16}", re.ASCII)
_JOURNAL = "in-doubt"
#: How many buffers one system call takes (IOV_MAX of POSIX).
_MOST_CHUNKS = 1024

_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC | getattr(os, "O_BINARY", 0)
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _CLOEXEC
_FOLDER = os.O_RDONLY | _CLOEXEC | getattr(os, "O_DIRECTORY", 0)

Chunk = bytes | bytearray | memoryview


class Sync(enum.Enum):
    """When an instance is forced to the disk, before it is acknowledged.

    ``ALWAYS``: each for itself; ``BATCH``: those that arrive together share what can be shared; ``NEVER``: when the
    system likes, so that an instance may be lost with the power, though not with the process.
    """

    ALWAYS = "always"
    BATCH = "batch"
    NEVER = "never"


class Incoming(Protocol):
    """An instance that is being written."""

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Append to it.

        :raises OSError: it cannot be written.
        """
        ...

    def keep(self, sop_instance_uid: str, *, sync: bool) -> str:
        """Give it a name, and return that; it is in doubt from then on.

        :param sync: force its content to the disk first.
        :raises ValueError: the UID is not one.
        :raises OSError: it cannot be kept.
        """
        ...

    def abort(self) -> None:
        """Forget it; does nothing once it was kept, and may be called again."""
        ...


class Stored(Source, Protocol):
    """A kept instance that is open for reading."""

    @property
    def head(self) -> FileHead:
        """What it says of itself."""
        ...


class Files(Protocol):
    """Keeps instances under names of its own making.

    Its methods block: they are called in worker threads, several at once.
    """

    def begin(self) -> Incoming:
        """Begin an instance.

        :raises OSError: it cannot be written.
        """
        ...

    def sync(self, names: Iterable[str]) -> None:
        """Force the names of instances to the disk, and what :meth:`Incoming.keep` has not forced there."""
        ...

    def doubt(self, names: Iterable[str]) -> None:
        """Note that the index may come not to know these instances any more."""
        ...

    def settle(self, names: Iterable[str]) -> None:
        """Note that the index knows these instances."""
        ...

    def open(self, name: str) -> Stored:
        """Open an instance.

        :raises OSError: it is not there, or cannot be read.
        :raises DataSetError: it is not an instance.
        """
        ...

    def path(self, name: str) -> str:
        """Return the path of a file of an instance, which frames are taken out of.

        :raises OSError: there can be none.
        """
        ...

    def discard(self, name: str) -> None:
        """Remove an instance, if it is there."""
        ...

    def names(self) -> Iterator[str]:
        """Yield the names of all instances, in the order in which they were kept as far as that is known."""
        ...

    def clean(self, is_known: Callable[[str, str], bool]) -> int:
        """Remove what processes that have died left half done; return how many instances that were.

        :param is_known: says whether the index knows an instance, by SOP Instance UID and name.
        """
        ...

    def close(self) -> None:
        """Let go of what is held; may be called again."""
        ...


class FolderFiles:
    """Instances in a folder: ``instances/<day>/<time>-<random>/<SOP Instance UID>-<random>.dcm``.

    They are received in ``incoming/``, which must be on the same file system. A folder of instances takes a thousand, so
    that those which arrive together are forced to the disk together.

    :param folder: where; made if it is not there.
    :raises OSError: it cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._instances = Path(folder) / "instances"
        self._incoming = Path(folder) / "incoming"
        self._instances.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(exist_ok=True)
        self._root = str(self._instances)
        self._lock = threading.Lock()
        self._doubtful: set[str] = set()
        self._folder = ""
        self._room = 0
        self._own, self._locked = _own_folder(self._incoming)
        self._numbers = itertools.count()  # name what comes in: nobody else writes to that folder
        head = _boot().encode("ascii") + b"\n"
        self._journal_head = len(head)
        try:
            self._journal = os.open(self._own / _JOURNAL, _APPEND, 0o666)
            os.write(self._journal, head)
        except BaseException:
            os.close(self._locked)
            raise

    def begin(self) -> Incoming:
        return _FileIncoming(self, f"{self._own}{os.sep}{next(self._numbers):016x}")

    def place(self, sop_instance_uid: str, *, sync: bool) -> str:
        """Return a new name, which is in doubt from now on, in a folder that is there.

        :raises ValueError: the UID is not one.
        :raises OSError: there can be no folder.
        """
        if not safe_uid(sop_instance_uid):
            raise ValueError("not a UID")
        with self._lock:
            day, _, moment = f"{datetime.now():%Y%m%d %H%M%S%f}".partition(" ")
            if self._room <= 0 or not self._folder.startswith(day):
                self._begin_folder(day, moment, sync=sync)
            self._room -= 1
            name = f"{self._folder}/{sop_instance_uid}-{secrets.token_hex(4)}.dcm"
            self._note([name])
            return name

    def _begin_folder(self, day: str, moment: str, *, sync: bool) -> None:
        (self._instances / day).mkdir(exist_ok=True)
        folder = f"{day}/{moment}-{secrets.token_hex(2)}"
        (self._instances / folder).mkdir()
        if sync:
            _fsync(self._instances / day)
            _fsync(self._instances)
        self._folder = folder
        self._room = _FOLDER_SIZE

    def forsake(self) -> None:
        """Begin another folder for the next instance: something is wrong with this one."""
        with self._lock:
            self._room = 0

    def _note(self, names: Sequence[str]) -> None:
        os.write(self._journal, "".join(f"{name}\n" for name in names).encode("ascii"))
        self._doubtful.update(names)

    def sync(self, names: Iterable[str]) -> None:
        for folder in {name.rpartition("/")[0] for name in names}:
            _fsync(self.path(folder))

    def doubt(self, names: Iterable[str]) -> None:
        with self._lock:
            self._note(list(names))

    def settle(self, names: Iterable[str]) -> None:
        with self._lock:
            if not self._doubtful:
                return
            self._doubtful.difference_update(names)
            if not self._doubtful and self._journal >= 0:
                os.ftruncate(self._journal, self._journal_head)

    def path(self, name: str) -> str:
        """Return the path of an instance; it may be of one that is not there."""
        return f"{self._root}{os.sep}{name}"

    def open(self, name: str) -> FileSource:
        return FileSource.open(self.path(name), preload=False)

    def discard(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))
        self.settle([name])

    def names(self) -> Iterator[str]:
        for day in sorted(_folders(self._instances)):
            for folder in sorted(_folders(self._instances / day)):
                yield from self._names_in(f"{day}/{folder}")

    def _names_in(self, folder: str) -> list[str]:
        found: list[tuple[int, str]] = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._instances / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}"
                if _NAME.fullmatch(name) and entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, name))
        return [name for _, name in sorted(found)]

    def clean(self, is_known: Callable[[str, str], bool]) -> int:
        count = 0
        for name in _folders(self._incoming):
            folder = self._incoming / name
            descriptor = _take(folder) if folder != self._own and _OWN.fullmatch(name) else None
            if descriptor is None:
                continue
            try:
                count += self._clean_folder(folder, is_known)
            finally:
                os.close(descriptor)
        return count

    def _clean_folder(self, folder: Path, is_known: Callable[[str, str], bool]) -> int:
        count = 0
        for name in _in_doubt(folder / _JOURNAL):
            found = _NAME.fullmatch(name)
            if found is not None and not is_known(found[1], name) and os.path.exists(self._instances / name):
                self.discard(name)
                count += 1
        for path in list(folder.iterdir()):
            if _UNNAMED.fullmatch(path.name):
                path.unlink(missing_ok=True)
                count += 1
        (folder / _JOURNAL).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody has put something else into it
            folder.rmdir()
        return count

    def close(self) -> None:
        with self._lock:
            journal, self._journal = self._journal, -1
            if journal < 0:
                return
            os.close(journal)
            try:
                if not self._doubtful:
                    (self._own / _JOURNAL).unlink(missing_ok=True)
                    self._own.rmdir()
            except OSError:
                pass  # something is still in it: the next process removes it
            finally:
                os.close(self._locked)


class _FileIncoming:
    """A file in the folder of this process, that is still nameless."""

    def __init__(self, files: FolderFiles, path: str) -> None:
        self._files = files
        self._path = path
        self._fd = os.open(path, _WRITE, 0o666)
        self._done = False

    def write(self, chunks: Sequence[Chunk]) -> None:
        for start in range(0, len(chunks), _MOST_CHUNKS):
            part = chunks[start : start + _MOST_CHUNKS]
            written = os.writev(self._fd, part) if hasattr(os, "writev") else 0
            if written < sum(map(len, part)):
                rest = memoryview(b"".join(part))[written:]
                while rest:
                    rest = rest[os.write(self._fd, rest) :]

    def keep(self, sop_instance_uid: str, *, sync: bool) -> str:
        name = self._files.place(sop_instance_uid, sync=sync)
        try:
            if sync:
                os.fsync(self._fd)
            self._close()
            os.rename(self._path, self._files.path(name))
        except BaseException:
            self._files.settle([name])
            self._files.forsake()
            raise
        self._done = True
        return name

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)  # some file systems tell here that the disk is full

    def abort(self) -> None:
        if self._done:
            return
        self._done = True
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def _own_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder and lock it; return it and the descriptor that holds the lock."""
    while True:
        folder = parent / secrets.token_hex(4)
        folder.mkdir()
        descriptor = _take(folder, own=True)
        # Another process may have cleaned it away before it was locked.
        if descriptor is not None:
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _take(folder: Path, *, own: bool = False) -> int | None:
    """Lock a folder and return the descriptor that holds the lock, which ends with the process; ``None`` if it is held.

    On Windows nothing is locked: there the folder is for one process at a time. On a file system without locks everything
    is taken to be held by others, so that nothing is cleaned away.
    """
    if os.name == "nt":
        return os.open(os.devnull, os.O_RDONLY)
    import fcntl

    try:
        descriptor = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if own and not isinstance(exc, BlockingIOError):
            return descriptor
        os.close(descriptor)
        return None
    return descriptor


def _boot() -> str:
    """Return what tells one run of the system from the next, as far as the system knows."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "-"


def _in_doubt(journal: Path) -> list[str]:
    """Return the names in doubt that a process left.

    After a power failure nothing is: what the index knows may have been lost with it then, and an instance that was
    acknowledged must not be removed for that.
    """
    try:
        lines = journal.read_text(encoding="ascii", errors="replace").split("\n")
    except OSError:
        return []
    return lines[1:-1] if lines[0] == _boot() else []


def _folders(parent: Path) -> list[str]:
    with os.scandir(parent) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _fsync(folder: str | Path) -> None:
    """Force the names in a folder to the disk, where the system knows how."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
