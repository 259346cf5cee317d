"""The files that are to be sent, for all the associations that send them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from .. import Instance
from ..dataset import FileSource
from ..exceptions import DataSetError
from .scan import Found

__all__ = ["Item", "Queue"]

#: Bytes of a data set whose progress is worth being shown.
_LARGE = 1 << 20


class Item:
    """A file to be sent.

    :ivar instance: it, as it is given to ``store_many``.
    :ivar attempts: how often an association was lost over it.
    """

    __slots__ = ("_advance", "_counted", "attempts", "file", "instance")

    def __init__(self, file: Found, advance: Callable[[int], None]) -> None:
        self.file = file
        self.attempts = 0
        self._advance = advance
        self._counted = 0
        self.instance: str | Instance = file.path
        if file.size > _LARGE:
            uids = file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid
            self.instance = Instance(*uids, partial(_Watched, file, self._read))

    def _read(self, count: int) -> None:
        """Count bytes that were read, but not more than the file had when it was found."""
        self._count(min(self._counted + count, self.file.size))

    def done(self) -> None:
        """Count all of it, whatever became of it."""
        self._count(self.file.size)

    def again(self) -> None:
        """Count it anew."""
        self._count(0)

    def _count(self, counted: int) -> None:
        more, self._counted = counted - self._counted, counted
        if more:
            self._advance(more)


class Queue:
    """An iterator over files, for any number of consumers, and a place for those that are to be tried again.

    :param advance: is told by how many bytes more, or less, the files are done; those of large ones as they are read, in
        worker threads.
    """

    def __init__(self, files: Iterable[Found], advance: Callable[[int], None]) -> None:
        self._files = deque(files)
        self._advance = advance
        self._again: deque[Item] = deque()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if not self._files:
            raise StopIteration
        return Item(self._files.popleft(), self._advance)

    def __bool__(self) -> bool:
        """Whether there are files left, be it some that were given back."""
        return bool(self._files or self._again)

    def put_back(self, item: Item) -> None:
        """Give a file back, to be taken by :meth:`again`."""
        item.again()
        self._again.append(item)

    def again(self) -> Item | None:
        """Return a file that was given back, or ``None`` if there is none."""
        return self._again.popleft() if self._again else None


class _Watched:
    """A large file that tells how much of it was read.

    :raises DataSetError: it is another one than was found.
    """

    def __init__(self, file: Found, advance: Callable[[int], None]) -> None:
        source = FileSource.open(file.path)
        head = source.head
        if (head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid) != (
            file.sop_class_uid,
            file.sop_instance_uid,
            file.transfer_syntax_uid,
        ):
            source.close()
            raise DataSetError("not the DICOM file any more that was found")
        self._source = source
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
