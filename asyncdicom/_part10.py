"""Read and write the head of a file (PS3.10 section 7), without pydicom and without touching pixel data."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from functools import lru_cache
from struct import Struct, error, unpack_from
from typing import ClassVar

from . import sop
from ._deflate import inflate_head
from ._elements import (
    LAYOUTS,
    LONG_VRS,
    SHORT_VRS,
    UNDEFINED,
    RawElement,
    encoding_of,
    is_vr,
    safe_uid,
    uid_text,
    walk,
)
from .exceptions import DataSetError
from .protocol.values import frozen

__all__ = ["FileHead", "part10_head", "read_file_head"]

#: How much of a file is read to find the UIDs: first, and at most.
FIRST_READ = 4096
_LAST_READ = 1 << 20

# Not blocking, so that a named pipe in a folder that somebody sends does not hold the thread for ever.
OPEN_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)

#: Linux: do not wait for the disk. 0 where there is no such thing.
NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)

StrPath = str | os.PathLike[str]


def _element(number: int, vr: bytes, value: bytes, pad: bytes = b"\0") -> bytes:
    """Encode one element of group 0002, which is always Explicit VR Little Endian (PS3.10 7.1)."""
    if len(value) % 2:
        value += pad
    if len(value) > 0xFFFE:
        raise DataSetError(f"the value of (0002,{number:04X}) is {len(value)} bytes long; at most 65534 fit")
    header, _, length_only = LAYOUTS[True]
    if vr == b"OB":
        return header.pack(2, number, vr, 0) + length_only.pack(len(value)) + value
    return header.pack(2, number, vr, len(value)) + value


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
    before, after = _around_instance(
        sop_class_uid, transfer_syntax_uid, source_ae_title, sending_ae_title, receiving_ae_title
    )
    instance = _element(0x0003, b"UI", _text(sop_instance_uid, 0x0003))
    length = len(before) + len(instance) + len(after)
    return b"".join((_PREAMBLE, length.to_bytes(4, "little"), before, instance, after))


#: Preamble, prefix, and the head of the File Meta Information Group Length.
_PREAMBLE = b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", bytes(4))[:-4]


@lru_cache(maxsize=64)
def _around_instance(
    sop_class_uid: str,
    transfer_syntax_uid: str,
    source_ae_title: str | None,
    sending_ae_title: str | None,
    receiving_ae_title: str | None,
) -> tuple[bytes, bytes]:
    """Return the elements before and behind the SOP Instance UID: those of a series are all the same."""
    before = _element(0x0001, b"OB", b"\x00\x01") + _element(0x0002, b"UI", _text(sop_class_uid, 0x0002))
    after = [
        _element(0x0010, b"UI", _text(transfer_syntax_uid, 0x0010)),
        _element(0x0012, b"UI", _text(sop.IMPLEMENTATION_CLASS_UID, 0x0012)),
        _element(0x0013, b"SH", _text(sop.IMPLEMENTATION_VERSION_NAME, 0x0013), b" "),
    ]
    for number, title in ((0x0016, source_ae_title), (0x0017, sending_ae_title), (0x0018, receiving_ae_title)):
        if title is not None:
            after.append(_element(number, b"AE", _text(title, number), b" "))
    return before, b"".join(after)


@frozen
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


def _meta_elements(head: bytes, position: int) -> tuple[dict[int, tuple[int, int]], int]:
    """Read the elements of group 0002 from *position*; return begin and end of their values by element number, and where
    the group ends.

    The group length is not believed: files exist where it is wrong or missing. Nor is the VR: some write it implicit.
    """
    header, implicit_header, length_only = LAYOUTS[True]
    values: dict[int, tuple[int, int]] = {}
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
        values[element] = start, position


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


_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_UIDS = frozenset({_SOP_CLASS_UID, _SOP_INSTANCE_UID})


def _judge(head: bytes, size: int) -> tuple[FileHead | None, bool]:
    """Make a FileHead of the first bytes of a file of *size* bytes; say whether more of them would tell more."""
    partial = len(head) < size
    prefix = head[128:132] == b"DICM"
    meta, position = _meta_elements(head, 132 if prefix else 0)
    more = partial and head[position : position + 2] in (b"\x02\x00", b"\x02", b"")

    def text(number: int) -> str:
        begin, end = meta.get(number, (0, 0))
        return uid_text(head[begin:end])

    declared = text(0x0010)
    guessed = _checked(declared, head, position, size - position) if declared else _guess(head, position)
    if guessed is None:
        if not prefix and not meta:
            return None, more
        guessed = sop.IMPLICIT_VR_LITTLE_ENDIAN  # the default transfer syntax (PS3.5 10.1)
    explicit, little, deflated = encoding_of(guessed)
    data: bytes = head[position:]
    if deflated:
        data = inflate_head(data)
    usual = len(head) <= _USUAL
    found, complete = walk(
        data, explicit=explicit, little=little, stop=_SOP_INSTANCE_UID + 1, wanted=None if usual else _UIDS
    )
    more = more or (partial and not complete)
    sop_class, sop_instance = (
        uid_text(found[tag].value) if tag in found else "" for tag in (_SOP_CLASS_UID, _SOP_INSTANCE_UID)
    )
    if not prefix and not meta and not (safe_uid(sop_class) and safe_uid(sop_instance)):
        return None, more  # anything can look like an element; two good UIDs in their places cannot be chance
    if usual and prefix and declared and complete and sop_class and sop_instance and not deflated:
        _Shape.learn(head, str(guessed), sop_class, position, meta, found)
    return FileHead(
        transfer_syntax_uid=str(guessed),
        sop_class_uid=sop_class or text(0x0002),
        sop_instance_uid=sop_instance or text(0x0003),
        data_set_offset=position,
        size=size,
        has_meta=bool(declared),
    ), more


#: How many shapes of heads are remembered, and the longest head that one is learnt from, in bytes.
_SHAPES = 8
_USUAL = 1 << 16


class _Shape:
    """The elements of a head that was judged, to recognize others that have the same.

    The files of a series begin with the same elements, and their values are as long. So a head is compared with those
    that were judged before, in one call and but for the values that do not matter. If all the rest is the same, down to
    the tag behind the SOP Instance UID, a walk over it would find the same, and need not be made.
    """

    __slots__ = ("_expected", "_layout", "_offset", "_sop_class", "_syntax", "_uid")

    #: The latest, newest first. UIDs that are longer make another shape, so a series has a few of them.
    known: ClassVar[tuple[_Shape, ...]] = ()

    def __init__(
        self, head: bytes, syntax: str, sop_class: str, offset: int, uid: slice, ignored: list[tuple[int, int]]
    ) -> None:
        self._syntax = syntax
        self._sop_class = sop_class
        self._offset = offset
        self._uid = uid
        formats = []
        position = 0
        for begin, end in sorted(ignored):
            formats.append(f"{begin - position}s{end - begin}x")
            position = end
        self._layout = Struct("".join(formats) + "4s4x")  # the tag behind them, of a header that is all there
        self._expected = self._layout.unpack_from(head)

    def match(self, head: bytes, size: int) -> FileHead | None:
        """Return what *head* says, of a file of *size* bytes, if it is of this shape."""
        layout = self._layout
        if len(head) < layout.size or layout.unpack_from(head) != self._expected:
            return None
        uid = uid_text(head[self._uid])
        if not uid:
            return None  # the one of the meta header counts
        return FileHead(
            transfer_syntax_uid=self._syntax,
            sop_class_uid=self._sop_class,
            sop_instance_uid=uid,
            data_set_offset=self._offset,
            size=size,
            has_meta=True,
        )

    @classmethod
    def learn(
        cls,
        head: bytes,
        syntax: str,
        sop_class: str,
        offset: int,
        meta: dict[int, tuple[int, int]],
        found: dict[int, RawElement],
    ) -> None:
        """Remember the shape of a head, unless something that is not compared had a part in how it was judged."""
        declared = uid_text(head[slice(*meta[0x0010])])
        last = found[_SOP_INSTANCE_UID]
        if (
            head[offset : offset + 2] == b"\x02\x00"  # the meta header broke off, perhaps for how much was read
            or any(element.offset > last.offset for element in found.values())
            or any(_checked(declared, head, offset, remaining) != syntax for remaining in (0, UNDEFINED + 8))
        ):
            return
        ignored = [(0, 128)]  # the preamble
        ignored += [place for number, place in meta.items() if number != 0x0010]
        for tag, element in found.items():
            # A value of undefined length, whose bytes were not copied, is compared: it has a structure of its own.
            if tag != _SOP_CLASS_UID and len(element.value) == element.length:
                begin = offset + element.offset
                ignored.append((begin, begin + element.length))
        uid = slice(offset + last.offset, offset + last.offset + last.length)
        cls.known = (cls(head, syntax, sop_class, offset, uid, ignored), *cls.known)[:_SHAPES]


def status_of(fd: int, path: StrPath) -> os.stat_result:
    """Return the status of an open file; pipes, devices and sockets hold no instance."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # reading a folder says what it is
        raise DataSetError(f"not a DICOM file: {os.fspath(path)!r}")
    return status


def read_at(fd: int, size: int, offset: int, *, wait: bool = True) -> bytes:
    """Read *size* bytes at *offset*, less only where the file ends.

    :param wait: wait for the disk, if need be; otherwise :class:`BlockingIOError` is raised where the system can tell.
    """
    data = _read_some(fd, size, offset, wait)
    while data and len(data) < size:
        part = _read_some(fd, size - len(data), offset + len(data), wait)
        if not part:
            break
        data += part
    return data


def _read_some(fd: int, size: int, offset: int, wait: bool) -> bytes:
    if not wait and NOWAIT:
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: read_into_at_once(fd, [buffer], offset)])
    if hasattr(os, "pread"):
        return os.pread(fd, size, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, size)


def read_into_at_once(fd: int, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
    """Fill *buffers* with what is in memory of the file.

    :raises BlockingIOError: nothing is; the disk would have to be waited for.
    """
    try:
        return os.preadv(fd, buffers, offset, NOWAIT)
    except OSError as exc:
        if exc.errno != errno.EOPNOTSUPP:
            raise
    return os.preadv(fd, buffers, offset)  # a file system in memory, or one that cannot tell


def head_of(fd: int, path: StrPath, size: int, head: bytes, *, wait: bool = True) -> FileHead:
    """Judge a file by its first bytes, reading more of them while that could help."""
    for shape in _Shape.known:
        if (known := shape.match(head, size)) is not None:
            return known
    while True:
        result, more = _judge(head, size)
        if not more or len(head) >= _LAST_READ:
            break
        longer = head + read_at(fd, max(len(head), FIRST_READ) * 15, len(head), wait=wait)
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
    fd = os.open(path, OPEN_READ)
    try:
        return head_of(fd, path, status_of(fd, path).st_size, read_at(fd, FIRST_READ, 0))
    finally:
        os.close(fd)
