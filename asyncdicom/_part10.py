"""Read and write instances as files (PS3.10 section 7), without pydicom and without touching pixel data.

Everything here blocks: code on an event loop calls it in a worker thread, one hop for each call. The classes are made
so that one hop is enough: a small file is opened, judged and read by ``FileSource.open``; a small instance is written
and renamed by ``save``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from struct import error, unpack_from
from types import TracebackType
from typing import Protocol

from . import sop
from ._deflate import inflate_head
from ._elements import (
    LAYOUTS,
    LONG_VRS,
    SHORT_VRS,
    UNDEFINED,
    encoding_of,
    is_vr,
    safe_uid,
    uid_text,
    walk,
)
from .exceptions import DataSetError

__all__ = [
    "BytesSource",
    "FileHead",
    "FileSink",
    "FileSource",
    "Source",
    "StreamSource",
    "is_temporary",
    "part10_head",
    "read_file_head",
    "save",
]

#: Data sets up to this many bytes are read as a whole when they are opened, and no descriptor is kept.
SMALL = 1 << 20

#: How much of a file is read to find the UIDs: first, and at most.
_FIRST_READ = 4096
_LAST_READ = 1 << 20

#: How many buffers one system call takes (IOV_MAX on Linux, macOS and the BSDs).
_IOV_MAX = 1024

# Not blocking, so that a named pipe in a folder that somebody sends does not hold the thread for ever.
_OPEN_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_OPEN_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_TEMPORARY_PREFIX = ".asyncdicom-"
_TEMPORARY_SUFFIX = ".part"

StrPath = str | os.PathLike[str]


def _element(number: int, vr: bytes, value: bytes, pad: bytes = b"\0") -> bytes:
    """Encode one element of group 0002, which is always Explicit VR Little Endian (PS3.10 7.1)."""
    if len(value) % 2:
        value += pad
    if len(value) > 0xFFFE:
        raise DataSetError(f"the value of (0002,{number:04X}) is {len(value)} bytes long; at most 65534 fit")
    length = len(value)
    header = b"\x02\x00" + number.to_bytes(2, "little") + vr
    return header + (b"\0\0" + length.to_bytes(4, "little") if vr == b"OB" else length.to_bytes(2, "little")) + value


def _text(value: str, number: int) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise DataSetError(f"the value of (0002,{number:04X}) has characters that cannot be encoded") from None


def part10_head(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    *,
    source_ae_title: str | None = None,
    sending_ae_title: str | None = None,
    receiving_ae_title: str | None = None,
) -> bytes:
    """Return what comes before the data set in a file: preamble, prefix and File Meta Information (PS3.10 Table 7.1-1).

    :param source_ae_title: the AE that the file's content was received from, (0002,0016).
    :param sending_ae_title: the AE that sent it over the network, (0002,0017).
    :param receiving_ae_title: the AE that received it, (0002,0018).
    :raises DataSetError: a value cannot be encoded.
    """
    elements = [
        _element(0x0001, b"OB", b"\x00\x01"),
        _element(0x0002, b"UI", _text(sop_class_uid, 0x0002)),
        _element(0x0003, b"UI", _text(sop_instance_uid, 0x0003)),
        _element(0x0010, b"UI", _text(transfer_syntax_uid, 0x0010)),
        _element(0x0012, b"UI", _text(sop.IMPLEMENTATION_CLASS_UID, 0x0012)),
        _element(0x0013, b"SH", _text(sop.IMPLEMENTATION_VERSION_NAME, 0x0013), b" "),
    ]
    for number, title in ((0x0016, source_ae_title), (0x0017, sending_ae_title), (0x0018, receiving_ae_title)):
        if title is not None:
            elements.append(_element(number, b"AE", _text(title, number), b" "))
    group = b"".join(elements)
    return b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", len(group).to_bytes(4, "little")) + group


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHead:
    """What the head of a file says about the instance in it.

    :ivar transfer_syntax_uid: from the meta header, or guessed where there is none.
    :ivar sop_class_uid: from the data set; from the meta header only where the data set has none; else empty.
    :ivar sop_instance_uid: likewise.
    :ivar data_set_offset: where the data set begins, bytes.
    :ivar size: bytes of the whole file.
    :ivar has_meta: whether there is a meta header with a transfer syntax.
    """

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    data_set_offset: int
    size: int
    has_meta: bool

    @property
    def data_set_size(self) -> int:
        """Bytes of the data set."""
        return self.size - self.data_set_offset


def _meta_elements(head: bytes, position: int) -> tuple[dict[int, bytes], int]:
    """Read the elements of group 0002 from *position*; return their values by element number, and where they end.

    The group length is not believed: files exist where it is wrong or missing. Nor is the VR: some write it implicit.
    """
    header, implicit_header, length_only = LAYOUTS[True]
    values: dict[int, bytes] = {}
    while True:
        try:
            group, element, vr, length = header.unpack_from(head, position)
            if group != 2:
                return values, position
            start = position + 8
            if vr in LONG_VRS:
                (length,) = length_only.unpack_from(head, start)
                start += 4
            elif vr not in SHORT_VRS and not is_vr(vr):
                _, _, length = implicit_header.unpack_from(head, position)
        except error:
            return values, position
        if length == UNDEFINED or start + length > len(head):
            return values, position
        position = start + length
        values[element] = head[start:position]


def _guess(head: bytes, position: int) -> str | None:
    """Guess a native transfer syntax from the first element of a data set; ``None`` where it cannot be one."""
    if len(head) < position + 8:
        return None
    group, _, vr, _ = unpack_from("<HH2sH", head, position)
    swapped = (group & 0xFF) << 8 | group >> 8
    if vr in SHORT_VRS or vr in LONG_VRS:
        return sop.EXPLICIT_VR_BIG_ENDIAN if swapped < group else sop.EXPLICIT_VR_LITTLE_ENDIAN
    return sop.IMPLICIT_VR_LITTLE_ENDIAN if group < swapped else None


def _checked(transfer_syntax: str, head: bytes, position: int, remaining: int) -> str:
    """Return the syntax the data set is really in: writers exist that declare implicit and write explicit VR, or
    reverse.

    Believes the declared one unless the first element makes no sense in it.
    """
    if transfer_syntax not in (sop.IMPLICIT_VR_LITTLE_ENDIAN, sop.EXPLICIT_VR_LITTLE_ENDIAN):
        return transfer_syntax
    if len(head) < position + 8:
        return transfer_syntax
    _, _, length = unpack_from("<HHI", head, position)
    vr = head[position + 4 : position + 6]
    fits = 8 + length <= remaining or length == UNDEFINED
    known = vr in SHORT_VRS or vr in LONG_VRS
    if transfer_syntax == sop.IMPLICIT_VR_LITTLE_ENDIAN and known and not fits:
        return sop.EXPLICIT_VR_LITTLE_ENDIAN
    if transfer_syntax == sop.EXPLICIT_VR_LITTLE_ENDIAN and not is_vr(vr) and fits:
        return sop.IMPLICIT_VR_LITTLE_ENDIAN
    return transfer_syntax


_UIDS = frozenset({0x00080016, 0x00080018})


def _judge(head: bytes, size: int) -> tuple[FileHead | None, bool]:
    """Make a FileHead of the first bytes of a file of *size* bytes; say whether more of them would tell more."""
    partial = len(head) < size
    prefix = head[128:132] == b"DICM"
    meta, position = _meta_elements(head, 132 if prefix else 0)
    more = partial and head[position : position + 2] in (b"\x02\x00", b"\x02", b"")
    declared = uid_text(meta.get(0x0010, b""))
    guessed = _checked(declared, head, position, size - position) if declared else _guess(head, position)
    sop_class, sop_instance = uid_text(meta.get(0x0002, b"")), uid_text(meta.get(0x0003, b""))
    if guessed is None:
        if not prefix and not meta:
            return None, more
        guessed = sop.IMPLICIT_VR_LITTLE_ENDIAN  # the default transfer syntax (PS3.5 10.1)
    explicit, little, deflated = encoding_of(guessed)
    data: bytes = head[position:]
    if deflated:
        data = inflate_head(data)
    found, complete = walk(data, explicit=explicit, little=little, stop=max(_UIDS) + 1, wanted=_UIDS)
    more = more or (partial and not complete)
    in_data_set = [uid_text(found[tag].value) if tag in found else "" for tag in sorted(_UIDS)]
    if not prefix and not meta and not all(map(safe_uid, in_data_set)):
        return None, more  # anything can look like an element; two good UIDs in their places cannot be chance
    return FileHead(
        transfer_syntax_uid=str(guessed),
        sop_class_uid=in_data_set[0] or sop_class,
        sop_instance_uid=in_data_set[1] or sop_instance,
        data_set_offset=position,
        size=size,
        has_meta=bool(declared),
    ), more


def _size_of(fd: int, path: StrPath) -> int:
    """Return the size of an open file; pipes, devices and sockets have none and hold no instance."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # reading a folder says what it is
        raise DataSetError(f"not a DICOM file: {os.fspath(path)!r}")
    return status.st_size


def _read_at(fd: int, size: int, offset: int) -> bytes:
    """Read *size* bytes at *offset*, less only where the file ends."""
    parts = []
    while size > 0:
        if hasattr(os, "pread"):
            part = os.pread(fd, size, offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            part = os.read(fd, size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _head_of(fd: int, path: StrPath, size: int, head: bytes) -> FileHead:
    """Judge a file by its first bytes, reading more of them while that could help."""
    while True:
        result, more = _judge(head, size)
        if not more or len(head) >= _LAST_READ:
            break
        longer = head + _read_at(fd, max(len(head), _FIRST_READ) * 15, len(head))
        if len(longer) == len(head):
            break
        head = longer
    if result is None:
        raise DataSetError(f"not a DICOM file: {os.fspath(path)!r}")
    return result


def read_file_head(path: StrPath) -> FileHead:
    """Say what instance a file holds from its first few KiB.

    Tolerates what files in the field have: a missing preamble or meta header, a missing or wrong group length, a
    transfer syntax that is absent or plainly not the one of the data set. At most 1 MiB is read.

    :raises DataSetError: it is not a DICOM file.
    :raises OSError: it cannot be read.
    """
    fd = os.open(path, _OPEN_READ)
    try:
        return _head_of(fd, path, _size_of(fd, path), _read_at(fd, _FIRST_READ, 0))
    finally:
        os.close(fd)


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
        data, end = self._data, self.size
        for view in views:
            step = min(len(view), end - position)
            if step <= 0:
                break
            view[:step] = data[position : position + step]
            position += step
        self._position = position
        return position - begin

    def close(self) -> None:
        """Let go of the data."""
        self._data.release()
        self._position = self.size


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

    Data sets of at most 1 MiB are read when they are opened, and no descriptor is held.

    :ivar head: what the file says about its instance.
    :ivar size: bytes of the data set when it was opened. The file may shrink meanwhile; then less can be read. What is
        appended to it meanwhile is not read.
    """

    def __init__(self, head: FileHead, fd: int, small: BytesSource | None) -> None:
        self.head = head
        self.size: int = head.data_set_size
        self._fd = fd
        self._small = small
        self._position = head.data_set_offset
        self._end = head.size

    @classmethod
    def open(cls, path: StrPath) -> FileSource:
        """Open a file and judge its head; see :func:`read_file_head` for what is tolerated.

        :raises DataSetError: it is not a DICOM file.
        :raises OSError: it cannot be read.
        """
        fd = os.open(path, _OPEN_READ)
        keep = False
        try:
            size = _size_of(fd, path)
            # A small file takes one system call, its head included.
            first = _read_at(fd, size if size <= SMALL + _FIRST_READ else _FIRST_READ, 0)
            if len(first) < size and len(first) != _FIRST_READ:
                size = len(first)  # it shrank since
            head = _head_of(fd, path, size, first)
            if len(first) == size:
                return cls(head, -1, BytesSource(memoryview(first)[head.data_set_offset :]))
            keep = True
            return cls(head, fd, None)
        finally:
            if not keep:
                os.close(fd)

    def read_into(self, views: Sequence[memoryview]) -> int:
        """Fill *views* one after the other; return the bytes read, less than fit only at the end of the data set.

        :raises OSError: the file cannot be read.
        :raises ValueError: the source is closed.
        """
        if self._small is not None:
            return self._small.read_into(views)
        if self._fd < 0:
            raise ValueError("the source is closed")
        begin = self._position
        for batch in _batches(views):
            while batch:
                left = self._end - self._position
                wanted = sum(map(len, batch))
                if wanted > left:
                    batch = _first_bytes(batch, left)
                    wanted = left
                if wanted == 0:
                    break
                step = self._read_batch(batch)
                if step == 0:  # the file has shrunk
                    return self._position - begin
                self._position += step
                if step == wanted:
                    break
                batch = _without(batch, step)
        return self._position - begin

    def _read_batch(self, batch: list[memoryview]) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._fd, batch, self._position)
        part = _read_at(self._fd, len(batch[0]), self._position)
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


def _batches(views: Iterable[memoryview]) -> Iterator[list[memoryview]]:
    """Cut *views* into lists that one system call takes."""
    iterator = iter(views)
    while batch := list(islice(iterator, _IOV_MAX)):
        yield batch


def _first_bytes(batch: list[memoryview], size: int) -> list[memoryview]:
    """Return views of the first *size* bytes of *batch*."""
    first = []
    for view in batch:
        if size <= 0:
            break
        first.append(view[:size])
        size -= len(view)
    return first


def _without(batch: list[memoryview], size: int) -> list[memoryview]:
    """Return what is left of *batch* behind its first *size* bytes."""
    for index, view in enumerate(batch):
        if size < len(view):
            return [view[size:], *batch[index + 1 :]]
        size -= len(view)
    return []


def _write_all(fd: int, chunks: Iterable[bytes | bytearray | memoryview]) -> int:
    """Write *chunks* whole, many to a system call; return how many bytes that was."""
    total = 0
    for views in _batches(memoryview(chunk) for chunk in chunks):
        batch = views
        while batch:
            step = os.writev(fd, batch) if hasattr(os, "writev") else os.write(fd, batch[0])
            total += step
            batch = _without(batch, step)
    return total


def is_temporary(name: str) -> bool:
    """Say whether a file of this name is one that a :class:`FileSink` left when its process was killed."""
    return name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX)


class FileSink:
    """Write a file that is seen whole or not at all.

    The bytes go to a hidden temporary file in the same folder; :meth:`commit` gives it its name in one step. Whatever
    fails, and when the ``with`` block is left without :meth:`commit`, the temporary file is removed.

    :ivar path: the name that the file gets.
    :ivar size: bytes written so far, the head included.
    """

    def __init__(self, path: StrPath, head: bytes = b"") -> None:
        self.path: str = os.fspath(path)
        self.size = 0
        self._head = head
        self._fd = -1
        self._temporary: str | None = None
        self._done = False

    def _open(self) -> None:
        if self._done:
            raise ValueError("the sink is closed")
        if self._fd < 0:
            name = f"{_TEMPORARY_PREFIX}{os.urandom(8).hex()}{_TEMPORARY_SUFFIX}"
            temporary = os.path.join(os.path.dirname(self.path), name)
            self._fd = os.open(temporary, _OPEN_WRITE, 0o666)
            self._temporary = temporary

    def write(self, chunks: Sequence[bytes | bytearray | memoryview]) -> None:
        """Append *chunks*, opening the temporary file at the first call.

        :raises OSError: the disk is full, the folder missing or read-only, ...; the temporary file is gone then.
        """
        try:
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
            self._open()
            if self._head:
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
                _sync_folder(os.path.dirname(self.path) or ".")
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
    chunks: Sequence[bytes | bytearray | memoryview],
    *,
    sync: bool = False,
    replace: bool = True,
) -> int:
    """Write a whole file at once; see :class:`FileSink`. Return its size in bytes."""
    sink = FileSink(path, head)
    sink.write(chunks)
    sink.commit(sync=sync, replace=replace)
    return sink.size
