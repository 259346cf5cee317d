from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asyncdicom.cli.queue import Item, Queue
from asyncdicom.cli.scan import Found
from asyncdicom.dataset import read_file_head
from asyncdicom.exceptions import DataSetError

from ..conftest import TEST_FILES
from ..test_storing import ct_file, descriptors

MIB = 1 << 20


def found(path: Path) -> Found:
    head = read_file_head(path)
    uids = head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid
    return Found(str(path), *uids, head.data_set_size)


class Counter:
    """What a bar would show."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def advance(self, count: int) -> None:
        self.now += count
        self.most = max(self.most, self.now)


def read(item: Item, most: int) -> int:
    """Read so many bytes of a large file, as sending does."""
    assert not isinstance(item.instance, str)
    source = item.instance.open_source()
    try:
        return source.read_into([memoryview(bytearray(most))])
    finally:
        source.close()


def test_files_are_given_once_each_and_those_that_are_given_back_apart_from_them(tmp_path: Path) -> None:
    files = [found(ct_file(tmp_path / f"{number}.dcm", 1000)) for number in range(3)]
    queue = Queue(files, Counter().advance)
    assert queue
    items = list(queue)
    assert [item.file for item in items] == files
    assert not queue
    queue.put_back(items[1])
    assert queue
    assert list(queue) == []
    assert queue.again() is items[1]
    assert queue.again() is None
    assert not queue


def test_a_small_file_counts_when_it_is_done() -> None:
    counter = Counter()
    item = Item(found(TEST_FILES / "CT_small.dcm"), counter.advance)
    assert item.instance == item.file.path
    assert counter.now == 0
    item.done()
    item.done()
    assert counter.now == item.file.size


def test_a_large_file_counts_as_it_is_read_and_anew_when_it_is_read_again(tmp_path: Path) -> None:
    counter = Counter()
    item = Item(found(ct_file(tmp_path / "1.dcm", 3 * MIB)), counter.advance)
    queue = Queue([], counter.advance)
    assert read(item, 2 * MIB) == counter.now == 2 * MIB
    queue.put_back(item)
    assert counter.now == 0
    assert read(item, 9 * MIB) == counter.now == item.file.size
    item.done()
    assert counter.now == counter.most == item.file.size
    assert descriptors() == []


@pytest.mark.parametrize("read_twice", [False, True])
def test_a_file_that_has_grown_or_is_read_twice_counts_once(read_twice: bool, tmp_path: Path) -> None:
    counter = Counter()
    path = tmp_path / "1.dcm"
    item = Item(found(ct_file(path, 2 * MIB)), counter.advance)
    ct_file(path, 4 * MIB)
    for _ in range(1 + read_twice):
        assert read(item, 9 * MIB) > item.file.size
    assert counter.now == counter.most == item.file.size
    item.done()
    assert counter.now == item.file.size


def test_a_large_file_that_is_gone_counts_when_it_is_done(tmp_path: Path) -> None:
    counter = Counter()
    path = ct_file(tmp_path / "1.dcm", 2 * MIB)
    item = Item(found(path), counter.advance)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read(item, MIB)
    item.done()
    assert counter.now == item.file.size


def test_a_large_file_that_is_another_one_now_is_not_sent_as_that_which_was_found(tmp_path: Path) -> None:
    path = ct_file(tmp_path / "1.dcm", 2 * MIB)
    item = Item(found(path), Counter().advance)
    ct_file(path, 2 * MIB, "1.2.3.5")
    with pytest.raises(DataSetError, match="not the DICOM file any more"):
        read(item, MIB)
    shutil.copy(TEST_FILES / "MR_small.dcm", path)
    with pytest.raises(DataSetError, match="not the DICOM file any more"):
        read(item, MIB)
    assert descriptors() == []
