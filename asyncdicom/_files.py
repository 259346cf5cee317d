"""Instances as files: where the bytes to be sent come from, and where received ones go.

Everything here blocks: code on an event loop calls it in a worker thread, one hop for each call. The classes are made so
that one hop is enough: a small file is opened, judged and read by ``FileSource.open``; a small instance is written and
renamed by ``save``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from types import TracebackType
from typing import Protocol

from . import disk
from ._part10 import FIRST_READ, NOWAIT, OPEN_READ, FileHead, StrPath, head_of, read_at, read_into_at_once, status_of

__all__ = ["BytesSource", "FileSink", "FileSource", "Source", "StreamSource", "is_temporary", "save"]

#: Data sets up to this many bytes are read as a whole when they are opened, and no descriptor is kept.
SMALL = 1 << 20

#: Files up to this many bytes are read with their head in any case: copying them costs less than another system call.
_WHOLE = 32 << 10

#: How many buffers one system call takes (IOV_MAX on Linux, macOS and the BSDs).
_IOV_MAX = 1024

_OPEN_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

#: What is written.
Chunk = bytes | bytearray | memoryview

_TEMPORARY_PREFIX = ".asyncdicom-"
_TEMPORARY_SUFFIX = ".part"


class Source(Protocol):
    """Where the bytes of a data set come from, to be sent."""

    @property
    def size(self) -> int | None:
        """Bytes of the whole data set; ``None`` where nobody knows yet."""
        ...

    def read_into(self, views: Sequence[memoryview]) -> int:
        """Fill *views* one after the other; return the bytes read, less than fit only at the end of the data set."""
        ...

    def close(self) -> None:
        """Let go of what is held; may be called again."""
        ...


class BytesSource:
    """A data set that is in memory."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data).cast("B") if data else memoryview(b"")
        self._position = 0
        self.size = len(self._data)

    def read_into(self, views: Sequence[memoryview]) -> int:
        """Fill *views* one after the other; return the bytes read, less than fit only at the end of the data set."""
        begin = position = self._position
        for view in views:
            piece = self._data[position : position + len(view)]
            view[: len(piece)] = piece
            position += len(piece)
        self._position = position
        return position - begin

    def close(self) -> None:
        """Let go of the data."""
        self._data = memoryview(b"")


class StreamSource:
    """A data set that is made while it is sent, such as by :func:`convert`; its size is not known before.

    Errors of the iterator come out of :meth:`read_into`.
    """

    size: None = None

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rest = memoryview(b"")

    def read_into(self, views: Sequence[memoryview]) -> int:
        """Fill *views* one after the other; return the bytes read, less than fit only at the end of the data set."""
        total = 0
        for view in views:
            filled = 0
            while filled < len(view):
                if not self._rest:
                    chunk = next(self._chunks, None)
                    if chunk is None:
                        return total + filled
                    self._rest = memoryview(chunk)
                step = min(len(view) - filled, len(self._rest))
                view[filled : filled + step] = self._rest[:step]
                self._rest = self._rest[step:]
                filled += step
            total += filled
        return total

    def close(self) -> None:
        """End the iterator."""
        self._rest = memoryview(b"")
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class FileSource:
    """The data set of a file, to be read into buffers that are ready to be sent.

    Data sets of at most 1 MiB, or 32 KiB, are read when they are opened, and no descriptor is held.

    :ivar head: what the file says about its instance.
    :ivar size: bytes of the data set when it was opened. The file may shrink meanwhile; then less can be read. What is
        appended to it meanwhile is not read.
    """

    def __init__(self, head: FileHead, fd: int, small: BytesSource | None, *, in_memory: bool = False) -> None:
        self.head = head
        self.size: int = head.data_set_size
        self._fd = fd
        self._small = small
        self._never_waits = in_memory
        self._position = head.data_set_offset
        self._end = head.size

    @classmethod
    def open(cls, path: StrPath, *, preload: bool = True, wait: bool = True) -> FileSource:
        """Open a file and judge its head; see :func:`read_file_head` for what is tolerated.

        :param preload: read data sets of up to 1 MiB now. Otherwise only files of up to 32 KiB are, and larger ones are
            read straight into their place.
        :param wait: wait for the disk, if need be. Otherwise :class:`BlockingIOError` is raised, as far as the system can
            tell; also for a symbolic link, which may lead to another disk.
        :raises DataSetError: it is not a DICOM file.
        :raises OSError: it cannot be read.
        """
        fd = os.open(path, OPEN_READ) if wait else _open_at_once(path)
        keep = False
        try:
            status = status_of(fd, path)
            size = status.st_size
            in_memory = disk.in_memory(status.st_dev)
            wait = wait or in_memory
            # A small file takes one system call, its head included.
            wanted = size if size <= (SMALL + FIRST_READ if preload else _WHOLE) else FIRST_READ
            first = read_at(fd, wanted, 0, wait=wait)
            if len(first) < wanted:
                size = len(first)  # it shrank since
            head = head_of(fd, path, size, first, wait=wait)
            if len(first) == size:
                return cls(head, -1, BytesSource(memoryview(first)[head.data_set_offset :]))
            keep = True
            return cls(head, fd, None, in_memory=in_memory)
        finally:
            if not keep:
                os.close(fd)

    def read_into(self, views: Sequence[memoryview], *, wait: bool = True) -> int:
        """Fill *views* one after the other; return the bytes read, less than fit only at the end of the data set.

        :param wait: wait for the disk, if need be. Otherwise :class:`BlockingIOError` is raised, as far as the system can
            tell, and the next call reads the same.
        :raises OSError: the file cannot be read.
        :raises ValueError: the source is closed.
        """
        if self._small is not None:
            return self._small.read_into(views)
        if self._fd < 0:
            raise ValueError("the source is closed")
        begin = self._position
        try:
            return self._read_into(views, wait)
        except BaseException:
            self._position = begin
            raise

    def _read_into(self, views: Sequence[memoryview], wait: bool) -> int:
        begin = self._position
        while views and (left := self._end - self._position):
            batch = views[:_IOV_MAX]
            wanted = sum(map(len, batch))
            step = self._read_batch(batch if wanted <= left else _first_bytes(batch, left), wait)
            if step == 0 and wanted:  # the file has shrunk
                break
            self._position += step
            views = views[len(batch) :] if step == wanted else _without(views, step)
        return self._position - begin

    def _read_batch(self, batch: Sequence[memoryview], wait: bool) -> int:
        if not wait and NOWAIT and not self._never_waits:
            return read_into_at_once(self._fd, batch, self._position)
        if hasattr(os, "preadv"):
            return os.preadv(self._fd, batch, self._position)
        part = read_at(self._fd, len(batch[0]), self._position)
        batch[0][: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Close the file; may be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._small is not None:
            self._small.close()
            self._small = None

    def __enter__(self) -> FileSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _open_at_once(path: StrPath) -> int:
    """Open a file that is itself where its name is.

    :raises BlockingIOError: it is a symbolic link.
    """
    try:
        return os.open(path, OPEN_READ | getattr(os, "O_NOFOLLOW", 0))
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), os.fspath(path))


def _first_bytes(batch: Sequence[memoryview], size: int) -> list[memoryview]:
    """Return views of the first *size* bytes of *batch*."""
    first = []
    for view in batch:
        if size <= 0:
            break
        first.append(view[:size])
        size -= len(view)
    return first


def _without(chunks: Sequence[Chunk], size: int) -> list[memoryview]:
    """Return views of what is left of *chunks* behind their first *size* bytes."""
    for index, chunk in enumerate(chunks):
        if size < len(chunk):
            return [memoryview(chunk)[size:], *(memoryview(rest) for rest in chunks[index + 1 :])]
        size -= len(chunk)
    return []


def _write_all(fd: int, chunks: Sequence[Chunk]) -> int:
    """Write *chunks* whole, many to a system call; return how many bytes that was."""
    total = 0
    while chunks:
        batch = chunks[:_IOV_MAX]
        step = os.writev(fd, batch) if hasattr(os, "writev") else os.write(fd, batch[0])
        total += step
        chunks = chunks[len(batch) :] if step == sum(map(len, batch)) else _without(chunks, step)
    return total


class _TemporaryNames:
    """Names that no other process uses: drawn at random once, then counted, as asking the system each time costs a call."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin another series of names."""
        self._series = f"{_TEMPORARY_PREFIX}{os.urandom(8).hex()}-"
        self._count = count()

    def next(self) -> str:
        return f"{self._series}{next(self._count):x}{_TEMPORARY_SUFFIX}"


_names = _TemporaryNames()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_names.renew)  # else parent and child would use the same


def is_temporary(name: str) -> bool:
    """Say whether a file of this name is one that a :class:`FileSink` left when its process was killed."""
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX)


class FileSink:
    """Write a file that is seen whole or not at all.

    The bytes go to a hidden temporary file in the same folder; :meth:`commit` gives it its name in one step. Whatever
    fails, and when the ``with`` block is left without :meth:`commit`, the temporary file is removed.

    :ivar path: the name that the file gets.
    :ivar folder: where that is, see :func:`asyncdicom.disk.folder_of`.
    :ivar size: bytes written so far, the head included.
    """

    def __init__(self, path: StrPath, head: bytes = b"") -> None:
        self.path: str = os.fspath(path)
        self.folder = disk.folder_of(self.path)
        self.size = 0
        self._head = head
        self._fd = -1
        self._temporary: str | None = None
        self._done = False

    def _open(self) -> None:
        if self._done:
            raise ValueError("the sink is closed")
        temporary = self.folder + _names.next()
        try:
            self._fd = os.open(temporary, _OPEN_WRITE, 0o666)
        except FileExistsError:  # a process that forked unnoticed uses the same names, or somebody guessed one
            _names.renew()
            temporary = self.folder + _names.next()
            self._fd = os.open(temporary, _OPEN_WRITE, 0o666)
        self._temporary = temporary

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Append *chunks*, opening the temporary file at the first call.

        :raises OSError: the disk is full, the folder missing or read-only, ...; the temporary file is gone then.
        """
        try:
            if self._fd < 0:
                self._open()
            head, self._head = self._head, b""
            self.size += _write_all(self._fd, [head, *chunks] if head else chunks)
        except BaseException:
            self.abort()
            raise

    def commit(self, *, sync: bool = False, replace: bool = True) -> None:
        """Close the file and give it its name.

        :param sync: wait until it is on the disk, name and all, so that it survives a crash of the machine.
        :param replace: put it in the place of a file of that name (readers of that one keep it); otherwise
            :class:`FileExistsError` is raised, and never an existing file touched.
        :raises OSError: it cannot be; the temporary file is gone then.
        """
        try:
            if self._head or self._fd < 0:
                self.write(())
            if sync:
                os.fsync(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)
            assert self._temporary is not None
            if replace:
                os.replace(self._temporary, self.path)
            else:
                _rename_new(self._temporary, self.path)
            self._temporary = None
            if sync:
                _sync_folder(self.folder or ".")
        except BaseException:
            self.abort()
            raise
        self._done = True

    def abort(self) -> None:
        """Close and remove the temporary file; does nothing after :meth:`commit`, and may be called again."""
        self._done = True
        fd, self._fd = self._fd, -1
        temporary, self._temporary = self._temporary, None
        try:
            if fd >= 0:
                os.close(fd)
        finally:
            if temporary is not None:
                try:
                    os.unlink(temporary)
                except FileNotFoundError:
                    pass

    def __enter__(self) -> FileSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


def _rename_new(temporary: str, path: str) -> None:
    """Rename, unless there is a file of that name."""
    if os.name == "nt":
        os.rename(temporary, path)  # Windows refuses by itself
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
    except OSError:
        # A file system without hard links (FAT, some network ones): take the name, then put the file there.
        os.close(os.open(path, _OPEN_WRITE, 0o666))
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _sync_folder(folder: str) -> None:
    """Make a rename in *folder* durable, where the system knows how."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def save(
    path: StrPath,
    head: bytes,
    chunks: Sequence[Chunk],
    *,
    sync: bool = False,
    replace: bool = True,
) -> int:
    """Write a whole file at once; see :class:`FileSink`. Return its size in bytes."""
    sink = FileSink(path, head)
    sink.write(chunks)
    sink.commit(sync=sync, replace=replace)
    return sink.size
