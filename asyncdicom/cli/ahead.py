"""Read files ahead of the associations that send them, so that these are never idle.

Small files are read whole, many in one hop to a worker thread; large ones are read while they are sent. What is ahead is
bounded: three batches of at most 4 MiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
from anyio import to_thread

from .. import Instance
from ..dataset import FileSource, Source
from ..exceptions import DataSetError
from .scan import Found

__all__ = ["Item", "ReadAhead"]

#: Bytes of a data set that is read whole, as FileSource does.
_SMALL = 1 << 20
#: Files and bytes that one hop reads.
_MOST_FILES = 32
_MOST_BYTES = 4 << 20


@dataclass(slots=True)
class Item:
    """A file to be sent next.

    :ivar instance: what to send, or the error that kept it from being read.
    :ivar attempts: how often it was tried.
    """

    file: Found
    instance: Instance | DataSetError | OSError
    attempts: int = 0


class ReadAhead:
    """A queue of files, for any number of consumers.

    :param advance: is told the bytes of large files as they are read.
    """

    def __init__(self, files: Sequence[Found], advance: Callable[[int], None]) -> None:
        self._batches = _batches(files)
        self._advance = advance
        self._ready: deque[Item] = deque()
        self._again: deque[Item] = deque()
        self._send, self._receive = anyio.create_memory_object_stream[list[Item]](1)
        self._lock = anyio.Lock()

    async def run(self) -> None:
        """Read until all is read; to be run beside the consumers."""
        with self._send:
            for batch in self._batches:
                await self._send.send(await to_thread.run_sync(partial(_read, batch, self._advance)))

    async def next(self) -> Item | None:
        """Return the next file, or ``None`` when there are no more."""
        if not self._ready:
            async with self._lock:
                if not self._ready:
                    try:
                        self._ready.extend(await self._receive.receive())
                    except anyio.EndOfStream:
                        return None
        return self._ready.popleft()

    def put_back(self, item: Item) -> None:
        """Give a file back, to be taken by :meth:`again`."""
        self._again.append(item)

    def again(self) -> Item | None:
        """Return a file that was given back, or ``None`` if there is none."""
        return self._again.popleft() if self._again else None

    def close(self) -> None:
        """End reading: nobody wants more."""
        self._receive.close()
        self._send.close()


def _batches(files: Sequence[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    room = _MOST_BYTES
    for file in files:
        weight = file.size if file.size <= _SMALL else 0
        if batch and (len(batch) >= _MOST_FILES or weight > room):
            yield batch
            batch, room = [], _MOST_BYTES
        batch.append(file)
        room -= weight
    if batch:
        yield batch


def _read(batch: Sequence[Found], advance: Callable[[int], None]) -> list[Item]:
    return [Item(file, _open(file, advance)) for file in batch]


def _open(file: Found, advance: Callable[[int], None]) -> Instance | DataSetError | OSError:
    try:
        with FileSource.open(file.path) as source:
            head = source.head
            uids = head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid
            if source.size > _SMALL:
                return Instance(*uids, partial(_Watched, file.path, advance))
            data = bytearray(source.size)
            read = source.read_into([memoryview(data)])
            return Instance.from_bytes(bytes(data[:read]), *uids)
    except (DataSetError, OSError) as exc:
        return exc


class _Watched:
    """A large file that tells how much of it was read."""

    def __init__(self, path: str, advance: Callable[[int], None]) -> None:
        self._source: Source = FileSource.open(path)
        self._advance = advance

    @property
    def size(self) -> int | None:
        """Bytes of the whole data set."""
        return self._source.size

    def read_into(self, views: Sequence[memoryview]) -> int:
        """Fill *views* one after the other; return the bytes read."""
        read = self._source.read_into(views)
        self._advance(read)
        return read

    def close(self) -> None:
        """Close the file."""
        self._source.close()
