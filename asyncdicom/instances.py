"""Instances on their way: what is stored, yielded by handlers, and received by C-STORE and C-GET.

An :class:`Instance` is a SOP Instance with its data set still as bytes, in a file, in memory, or on the wire. Storing,
forwarding and serving it never parses pixel data and never holds it whole in memory, unless it is small.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeVar

from . import dataset as _dataset
from . import disk, sop, threads
from .dataset import BytesSource, FileSink, FileSource, Source, StreamSource, part10_head
from .exceptions import DataSetError, LocalProtocolError
from .identifiers import is_data_set
from .incoming import IncomingDataSet
from .protocol.framing import RECEIVE_SIZE
from .protocol.recurring import encode
from .status import OUT_OF_RESOURCES, SUCCESS, Status

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from .protocol.commands import Message
    from .protocol.framing import Layout
    from .protocol.negotiation import AcceptedContext

__all__ = ["Instance", "PreparedInstance", "ReceivedData", "ReceivedInstance", "SourceOutgoing", "prepare"]

#: Bytes that are gathered before a worker thread writes them; a hop costs more than 100 µs.
_HOP = 1 << 20

#: Bytes that are gathered before they are written where no hop is needed.
_WRITE = 96 << 10

#: 0xC211, "unable to process": the body of a loop over instances, or a C-STORE handler, failed.
_UNABLE_TO_PROCESS = Status(0xC211)

T = TypeVar("T")


class SourceOutgoing:
    """A :class:`~asyncdicom.dataset.Source` as something to send: in memory it is copied; see :mod:`.disk` for files.

    A data set of odd length, as some deflated files have it, gets the NUL byte at its end that PS3.5 A.5 and the even
    fragments of PS3.8 Table 9-23 ask for.
    """

    def __init__(self, source: Source, folder: str | None = None) -> None:
        self._source = source
        self._folder = folder
        self._in_memory = isinstance(source, BytesSource) or getattr(source, "_small", None) is not None
        size = source.size
        self._odd = bool(size and size % 2)
        self._left = None if size is None else size + self._odd
        self._ahead: bytes | None = None
        self._interrupted = False

    @property
    def size(self) -> int | None:
        """Bytes that are left to send; ``None`` if nobody knows, or if a cancelled read cannot be repeated."""
        return None if self._interrupted else self._left

    async def fill_gaps(self, gaps: list[memoryview]) -> None:
        """Read exactly as many bytes as the gaps hold.

        :raises OSError: the file cannot be read, or has become shorter.
        """
        wanted = sum(map(len, gaps))
        if self._in_memory:
            got = self._source.read_into(gaps)
        else:
            got = await self._hop(partial(self._source.read_into, gaps), wanted)
        if self._odd and wanted == self._left:
            gaps[-1][-1] = 0
            got += 1
        if got != wanted:
            raise OSError("the file became shorter while it was being sent")
        assert self._left is not None
        self._left -= got

    async def fill(self, limit: int) -> tuple[bytes | None, bool]:
        """Return up to ``limit`` bytes of a source of unknown size, and whether they are the last."""
        data, ahead = await self._hop(partial(self._read_ahead, limit))
        self._ahead = ahead
        if not ahead and len(data) % 2:
            data += b"\0"
        return data, not ahead

    def _read_ahead(self, limit: int) -> tuple[bytes, bytes]:
        first = self._ahead
        if first is None:
            first = self._read(limit)
        return first, self._read(limit) if len(first) == limit else b""

    def _read(self, limit: int) -> bytes:
        buffer = bytearray(limit)
        return bytes(buffer[: self._source.read_into([memoryview(buffer)])])

    async def _hop(self, call: Callable[..., T], size: int | None = None) -> T:
        if self._interrupted:
            raise OSError("a read was interrupted")
        self._interrupted = True
        if size is not None and size <= disk.AT_ONCE and self._folder is not None and type(self._source) is FileSource:
            result = await disk.run(self._folder, partial(call, wait=False), call)
        else:
            result = await threads.run(call)
        self._interrupted = False
        return result


class Instance:
    """A SOP Instance: its identity, and where its data set is.

    :ivar sop_class_uid: its SOP Class UID.
    :ivar sop_instance_uid: its SOP Instance UID.
    :ivar transfer_syntax_uid: how its data set is encoded.
    :ivar in_memory: whether opening it does no IO.
    :ivar path: the file that holds it, if :meth:`open_source` opens nothing else.

    Make one with :meth:`from_file`, :meth:`from_bytes` or :meth:`from_dataset`; C-GET operations yield them.
    """

    def __init__(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        open_source: Callable[[], Source] | None = None,
    ) -> None:
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.transfer_syntax_uid = transfer_syntax_uid
        self._open_source = open_source
        self.in_memory = False
        self.path: str | None = None

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        sop_class_uid: str | None = None,
        sop_instance_uid: str | None = None,
        transfer_syntax_uid: str | None = None,
    ) -> Instance:
        """Refer to a file; with all three UIDs given it is not opened before it is sent.

        :raises DataSetError: it is not a DICOM file.
        :raises OSError: it cannot be read.
        """
        path = os.fspath(path)
        if sop_class_uid is None or sop_instance_uid is None or transfer_syntax_uid is None:
            head = _dataset.read_file_head(path)
            sop_class_uid = sop_class_uid or head.sop_class_uid
            sop_instance_uid = sop_instance_uid or head.sop_instance_uid
            transfer_syntax_uid = transfer_syntax_uid or head.transfer_syntax_uid
        instance = cls(sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        instance.path = os.fspath(path)
        return instance

    @classmethod
    def from_bytes(cls, data: bytes, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> Instance:
        """Refer to an encoded data set (without a meta header) in memory."""
        instance = cls(sop_class_uid, sop_instance_uid, transfer_syntax_uid, partial(BytesSource, data))
        instance.in_memory = True
        return instance

    @classmethod
    def from_dataset(cls, dataset: Dataset, transfer_syntax_uid: str | None = None) -> Instance:
        """Encode a data set, in the transfer syntax of its meta header unless another is named.

        :raises DataSetError: it cannot be encoded, or lacks a SOP Class or Instance UID.
        """
        if not is_data_set(dataset):
            raise TypeError(f"{type(dataset).__name__} is no instance: expected a path, a data set or an Instance")
        syntax = transfer_syntax_uid
        if syntax is None:
            meta = getattr(dataset, "file_meta", None)
            syntax = str(getattr(meta, "TransferSyntaxUID", None) or sop.EXPLICIT_VR_LITTLE_ENDIAN)
        sop_class = dataset.get("SOPClassUID")
        sop_instance = dataset.get("SOPInstanceUID")
        if not sop_class or not sop_instance:
            raise DataSetError("a data set to store needs a SOP Class UID and a SOP Instance UID")
        data = _dataset.encode_data_set(dataset, syntax)
        return cls.from_bytes(data, str(sop_class), str(sop_instance), syntax)

    def open_source(self) -> Source:
        """Open the data set for reading; called in a worker thread when it is a file.

        :raises OSError: it cannot be read.
        """
        if self.path is not None:
            return FileSource.open(self.path, preload=False)
        if self._open_source is None:
            raise LocalProtocolError("this instance is still on the wire; it has no data of its own")
        return self._open_source()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sop_instance_uid[:64]!r} of {self.sop_class_uid[:64]!r}>"


class PreparedInstance:
    """An instance opened and matched with an accepted presentation context, ready to be sent.

    :ivar wait: whether this happens in a worker thread, where reading may wait for the disk.
    """

    def __init__(
        self, sop_class_uid: str, sop_instance_uid: str, context: AcceptedContext, source: Source, *, wait: bool
    ) -> None:
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.context = context
        self.source = source
        self.wait = wait
        self.buffers: list[memoryview] | None = None

    def close(self) -> None:
        """Close the file."""
        self.source.close()

    def lay_out(self, layout: Layout, message: Message) -> None:
        """Read a small data set into the PDUs of its message, so that nothing is left to do but to send them.

        :raises OSError: the file cannot be read, or has become shorter.
        """
        size = self.source.size
        if size is None or size > (_HOP if self.wait else disk.AT_ONCE):
            return
        read: Callable[[list[memoryview]], int] = self.source.read_into
        if not self.wait and isinstance(self.source, FileSource):
            read = partial(self.source.read_into, wait=False)
        context_id = self.context.context_id
        prefix = layout.command(context_id, encode(message, has_data_set=True))
        odd = size % 2
        left = size
        buffers: list[memoryview] = []
        for buffer, gaps in layout.places(context_id, size + odd, prefix=prefix):
            wanted = min(left, sum(map(len, gaps)))
            if read(gaps) != wanted:
                raise OSError("the file became shorter while it was being read")
            left -= wanted
            buffers.append(buffer)
        if odd:
            gaps[-1][-1] = 0  # a NUL byte makes it even; the buffer may have been used before
        self.buffers = buffers
        self.source.close()


Choose = Callable[[str, str], "tuple[AcceptedContext, bool]"]
Compose = Callable[[PreparedInstance], object]


def prepare(
    what: str | os.PathLike[str] | Dataset | Instance,
    choose: Choose,
    *,
    bulk_data: bool = True,
    compose: Compose | None = None,
    wait: bool = True,
) -> PreparedInstance:
    """Open what is to be stored and choose a context for it. To be called in a worker thread.

    :param choose: gives for (SOP class, transfer syntax) the context and whether the data set must be converted for it;
        raises what the caller wants to see when there is none.
    :param bulk_data: ``False`` leaves out what PS3.4 Z.1.3 lists.
    :param compose: called with the result, to lay out its message while the file is at hand.
    :param wait: ``False`` raises :class:`BlockingIOError` where the disk would have to be waited for, so that this can be
        called in the event loop, for a file.
    :raises DataSetError: not a DICOM file, or not a storable data set.
    :raises OSError: the file cannot be read.
    """
    if isinstance(what, (str, os.PathLike)):
        source: Source = FileSource.open(what, preload=False, wait=wait)
        assert isinstance(source, FileSource)
        head = source.head
        sop_class, sop_instance, syntax = head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid
        name: object = os.fspath(what)
    else:
        instance = what if isinstance(what, Instance) else Instance.from_dataset(what)
        if instance.path is not None:
            source = FileSource.open(instance.path, preload=False, wait=wait)
        else:
            source = instance.open_source()
        sop_class, sop_instance = instance.sop_class_uid, instance.sop_instance_uid
        syntax = instance.transfer_syntax_uid
        name = "the data set"
    try:
        if not sop_class or not sop_instance:
            raise DataSetError(f"{name} has no SOP Class UID or no SOP Instance UID: it is not a storable instance")
        context, convert = choose(sop_class, syntax)
        if not bulk_data:
            source = StreamSource(_dataset.without_bulk_data(source, syntax))
            if convert:
                source = StreamSource(_dataset.convert(source, syntax, context.transfer_syntax))
        elif convert:
            source = StreamSource(_dataset.convert(source, syntax, context.transfer_syntax))
        prepared = PreparedInstance(sop_class, sop_instance, context, source, wait=wait)
        if compose is not None:
            compose(prepared)
    except BaseException:
        source.close()
        raise
    return prepared


@lru_cache(maxsize=64)
def _folder(name: str) -> Path:
    """Return the path of a folder in which files are saved, one after the other: taking it apart is a good deal of work."""
    from pathlib import Path  # costs 3 ms, which a program that saves nothing need not pay

    return Path(name)


class _Sink:
    """A file sink that is used from worker threads and given up from the event loop's thread."""

    def __init__(self, path: str, head: bytes) -> None:
        self._sink = FileSink(path, head)
        self._lock = threading.Lock()
        self._given_up = False
        self.folder = self._sink.folder

    def write(self, chunks: list[memoryview]) -> None:
        with self:
            self._sink.write(chunks)

    def finish(self, chunks: list[memoryview], sync: bool, replace: bool) -> None:
        with self:
            self._sink.write(chunks)
            if not self._given_up:
                self._sink.commit(sync=sync, replace=replace)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()
        if self._given_up:
            self.abort()

    def abort(self) -> None:
        """Leave nothing behind. A call that is in progress is not waited for, and does it when it ends."""
        self._given_up = True
        if self._lock.acquire(blocking=False):
            try:
                self._sink.abort()
            finally:
                self._lock.release()


class _Pieces(AsyncIterator[bytes]):
    """The pieces of a data set that is being received: no generator, as these do not like to be left half-way."""

    def __init__(self, received: ReceivedData) -> None:
        self._received = received

    async def __anext__(self) -> bytes:
        received = self._received
        if pieces := await received._gather(RECEIVE_SIZE):
            return b"".join(pieces)
        received.consumed = True
        raise StopAsyncIteration


class ReceivedData:
    """The data set of an instance that is being received.

    It can be consumed once, by one of :meth:`iter_data`, :meth:`read`, :meth:`dataset` and :meth:`save`.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

    def __init__(self, incoming: IncomingDataSet | None) -> None:
        self._incoming = incoming
        self._begun = False
        self.consumed = False
        self.failure: BaseException | None = None
        self._expired = False
        self._source_ae_title: str | None = None

    def _begin(self) -> None:
        if self._expired:
            raise LocalProtocolError("this instance is over: it was valid until the next one was asked for")
        if self._begun:
            raise LocalProtocolError("the data set of this instance was consumed already")
        self._begun = True

    async def _gather(self, size: int) -> list[memoryview]:
        """Return what is next, and at hand, until it is *size* bytes; nothing at the end."""
        if self._incoming is None:
            return []
        if self._expired:
            raise LocalProtocolError("this instance is over: it was valid until the next one was asked for")
        try:
            return await self._incoming.gather(size)
        except BaseException as exc:
            # Whoever catches it and goes on has not consumed the instance, and does not want to claim it.
            self.failure = exc
            raise

    def iter_data(self) -> AsyncIterator[bytes]:
        """Iterate over the encoded data set piece by piece, at most about 256 KiB each, as it arrives.

        :raises AssociationError: from the iterator: the association ended first.
        """
        self._begin()
        return _Pieces(self)

    async def read(self) -> bytes:
        """Return the encoded data set.

        :raises AssociationError: the association ended first.
        """
        self._begin()
        pieces: list[memoryview] = []
        while more := await self._gather(_HOP):
            pieces += more
        self.consumed = True
        return b"".join(pieces)

    async def dataset(self) -> Dataset:
        """Return the decoded data set, with a ``file_meta`` that names the transfer syntax.

        :raises DataSetError: it cannot be decoded.
        :raises AssociationError: the association ended first.
        """
        data = await self.read()
        self.consumed = False
        try:
            decoded = await threads.run(partial(self._decode, data))
        except BaseException as exc:
            self.failure = exc
            raise
        self.consumed = True
        return decoded

    def _decode(self, data: bytes) -> Dataset:
        decoded = _dataset.decode_data_set(data, self.transfer_syntax_uid)
        return _dataset.with_file_meta(decoded, self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax_uid)

    async def save(self, path: str | os.PathLike[str], *, sync: bool = False, replace: bool = True) -> Path:
        """Write the instance to a Part 10 file, byte for byte as received, and return its path.

        The bytes go to a hidden temporary file beside it that is renamed at the end: the file is seen whole or not at
        all, and nothing is left when this is cancelled or fails.

        :param sync: return after the file and its name are safe on the disk.
        :param replace: replace a file of this name; otherwise :class:`FileExistsError`.
        :raises OSError: it cannot be written.
        :raises AssociationError: the association ended first.
        """
        self._begin()
        sink = _Sink(os.fspath(path), self.part10_head())
        inline = self._incoming is None or self._incoming.inline_file_io
        pieces: list[memoryview] = []
        size = 0
        try:
            while more := await self._gather(disk.AT_ONCE):
                pieces += more
                size += sum(map(len, more))
                if self._ended():
                    break
                if size >= _WRITE and (size >= _HOP or (inline and disk.quick(sink.folder))):
                    write = partial(sink.write, pieces)
                    await disk.run(sink.folder, write if inline and size <= disk.AT_ONCE else None, write)
                    pieces = []
                    size = 0
            finish = partial(sink.finish, pieces, sync, replace)
            await disk.run(sink.folder, finish if inline and size <= disk.AT_ONCE and not sync else None, finish)
        except BaseException as exc:
            self.failure = exc
            sink.abort()
            raise
        self.consumed = True
        folder = _folder(sink.folder)
        return path if isinstance(path, type(folder)) else folder / os.fspath(path)[len(sink.folder) :]

    def _ended(self) -> bool:
        return self._incoming is None or self._incoming.done

    def part10_head(self) -> bytes:
        """Return the preamble and File Meta Information for a file of this instance (PS3.10 7.1)."""
        return part10_head(
            self.sop_class_uid,
            self.sop_instance_uid,
            self.transfer_syntax_uid,
            source_ae_title=self._source_ae_title,
        )

    async def discard(self) -> None:
        """Read the rest and forget it."""
        if self._incoming is not None:
            await self._incoming.discard()

    def expire(self) -> None:
        """End the validity of this instance."""
        self._expired = True


def _status_of(exc: BaseException) -> Status:
    """Return the status that says what went wrong with an instance."""
    return OUT_OF_RESOURCES if isinstance(exc, OSError) else _UNABLE_TO_PROCESS


class ReceivedInstance(ReceivedData, Instance):
    """An instance that a sub-operation of a retrieval delivers; valid until the next one is asked for.

    :ivar bulk_data_removed: it came by Composite Instance Retrieve Without Bulk Data, is not complete, and must not be
        stored as the instance (PS3.4 Z.4.2.2.1).
    """

    def __init__(
        self,
        incoming: IncomingDataSet | None,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        *,
        source_ae_title: str | None = None,
        bulk_data_removed: bool = False,
    ) -> None:
        Instance.__init__(self, sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        ReceivedData.__init__(self, incoming)
        self._source_ae_title = source_ae_title
        self.bulk_data_removed = bulk_data_removed
        self._status: Status | None = None
        self._dropped = False

    @property
    def status(self) -> Status | None:
        """The status to answer the sub-operation with, if it was set."""
        return self._status

    @status.setter
    def status(self, value: int) -> None:
        if self._expired:
            raise LocalProtocolError("this instance is over: its response has been sent")
        self._status = Status(value)

    def accept(self) -> None:
        """Answer Success although the data set was not consumed."""
        self.status = 0

    def fail(self, exc: BaseException) -> None:
        """Note that the body of the loop raised while it had this instance."""
        # Who is cancelled after it consumed the instance did not fail at it.
        if self._status is None and (isinstance(exc, Exception) or not (self.consumed or type(exc) is GeneratorExit)):
            self._status = _status_of(exc)

    def drop(self) -> None:
        """Note that the loop is gone: whether it broke off or raised cannot be seen, so nothing is claimed."""
        self._dropped = True

    @property
    def verdict(self) -> Status:
        """The status that answers the sub-operation: Success if the instance was consumed, accepted or skipped."""
        if self._status is not None:
            return self._status
        if self.consumed:
            return SUCCESS
        if self.failure is not None:
            return _status_of(self.failure)
        return OUT_OF_RESOURCES if self._dropped else SUCCESS

    def open_source(self) -> Source:
        raise LocalProtocolError("an instance that is being received cannot be sent on; save() or read() it first")
