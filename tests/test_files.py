"""Sources give the bytes of a data set, sinks show a file whole or not at all."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncdicom import _files
from asyncdicom.dataset import (
    BytesSource,
    FileSink,
    FileSource,
    Source,
    StreamSource,
    is_temporary,
    read_file_head,
    save,
)
from asyncdicom.exceptions import DataSetError

from .test_part10 import HEAD, UIDS


def read_all(source: Source, size: int = 1000, views: int = 3) -> bytes:
    """Read a source to its end in uneven pieces."""
    result = bytearray()
    while True:
        buffer = bytearray(size)
        view = memoryview(buffer)
        step = max(1, size // views)
        pieces = [view[at : at + step] for at in range(0, size, step)]
        count = source.read_into(pieces)
        result += view[:count]
        if count < size:
            return bytes(result)


def numbered(size: int) -> bytes:
    return (b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1)))[:size]


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 70_000, 1 << 20, (1 << 20) + 1, (2 << 20) + 3])
@pytest.mark.parametrize("views", [1, 3, 1000])
def test_a_source_gives_the_bytes_of_the_data_set(tmp_path: Path, size: int, views: int) -> None:
    data = UIDS + b"\xe0\x7f\x10\x00OB\0\0" + size.to_bytes(4, "little") + numbered(size)
    path = tmp_path / "file"
    path.write_bytes(HEAD + data)
    step = max(1000, size // 7)
    with FileSource.open(path) as source:
        assert source.size == len(data)
        assert source.head.sop_instance_uid == "1.2"
        assert read_all(source, step, views) == data
        assert source.read_into([memoryview(bytearray(10))]) == 0
    assert read_all(BytesSource(data), step, views) == data
    assert read_all(StreamSource(data[at : at + 777] for at in range(0, len(data), 777)), step, views) == data


def test_more_views_than_one_system_call_takes_are_filled(tmp_path: Path) -> None:
    data = UIDS + b"\xe0\x7f\x10\x00OB\0\0\0\0\x20\0" + numbered(2 << 20)
    path = tmp_path / "file"
    path.write_bytes(HEAD + data)
    buffer = bytearray(3 << 20)
    views = [memoryview(buffer)[at : at + 1000] for at in range(0, len(buffer), 1000)]
    with FileSource.open(path) as source:
        assert source.read_into(views) == len(data)
    assert buffer[: len(data)] == data


def test_a_file_that_shrinks_gives_less_and_one_that_grows_no_more(tmp_path: Path) -> None:
    data = UIDS + b"\xe0\x7f\x10\x00OB\0\0\0\0\x20\0" + numbered(2 << 20)
    path = tmp_path / "file"
    path.write_bytes(HEAD + data)
    buffer = bytearray(4 << 20)
    with FileSource.open(path) as source:
        os.truncate(path, 1 << 20)
        assert source.read_into([memoryview(buffer)]) == (1 << 20) - len(HEAD)
        assert source.size == len(data)
    path.write_bytes(HEAD + data)
    with FileSource.open(path) as source:
        with path.open("ab") as file:
            file.write(b"more")
        assert source.read_into([memoryview(buffer)]) == len(data)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_descriptor_is_held_for_a_small_file_nor_after_close(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(HEAD + UIDS)
    large.write_bytes(HEAD + UIDS + bytes(2 << 20))
    before = open_descriptors()
    with FileSource.open(small):
        assert open_descriptors() == before
    source = FileSource.open(large)
    assert open_descriptors() == before + 1
    source.close()
    source.close()
    assert open_descriptors() == before
    with pytest.raises(ValueError, match="closed"):
        source.read_into([memoryview(bytearray(1))])
    large.write_bytes(b"x" * 3_000_000)
    with pytest.raises(DataSetError):
        FileSource.open(large)
    assert open_descriptors() == before


def test_closing_a_stream_source_ends_its_generator() -> None:
    ended = []

    def chunks() -> Iterator[bytes]:
        try:
            yield b"abc"
            yield b""
            yield b"def"
        finally:
            ended.append(True)

    source = StreamSource(chunks())
    assert source.size is None
    buffer = bytearray(2)
    assert source.read_into([memoryview(buffer)]) == 2
    source.close()
    assert ended == [True]
    assert source.read_into([memoryview(buffer)]) == 0


def test_a_sink_shows_the_file_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "1.2.dcm"
    with FileSink(path, HEAD) as sink:
        assert list(tmp_path.iterdir()) == []
        sink.write([b"abc", memoryview(b"def")])
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".")
        assert is_temporary(temporary.name)
        assert not path.exists()
        sink.write([bytearray(b"ghi")])
        sink.commit()
    assert [p.name for p in tmp_path.iterdir()] == ["1.2.dcm"]
    assert path.read_bytes() == HEAD + b"abcdefghi"
    assert sink.size == len(HEAD) + 9
    assert not is_temporary(path.name)


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save(tmp_path / "file", HEAD, [b"abc"])
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_an_empty_data_set_leaves_the_head_alone(tmp_path: Path) -> None:
    with FileSink(tmp_path / "file", HEAD) as sink:
        sink.commit(sync=True)
    assert (tmp_path / "file").read_bytes() == HEAD


@pytest.mark.parametrize("views", [1, 1024, 1025, 3000])
def test_many_chunks_are_written_in_order(tmp_path: Path, views: int) -> None:
    chunks = [numbered(4 * i % 97) for i in range(views)]
    assert save(tmp_path / "file", HEAD, chunks, sync=True) == len(HEAD + b"".join(chunks))
    assert (tmp_path / "file").read_bytes() == HEAD + b"".join(chunks)


@pytest.mark.skipif(not hasattr(os, "writev"), reason="needs writev")
def test_what_the_system_does_not_take_at_once_is_written_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, chunks: writev(fd, [b"".join(chunks)[:700]]))
    chunks: list[bytes | bytearray | memoryview] = [
        numbered(300),
        b"",
        bytearray(numbered(1000)),
        memoryview(numbered(999)),
    ]
    save(tmp_path / "file", HEAD, chunks)
    assert (tmp_path / "file").read_bytes() == HEAD + b"".join(chunks)


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs preadv")
def test_what_the_system_does_not_give_at_once_is_read_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = UIDS + b"\xe0\x7f\x10\x00OB\0\0\0\0\x20\0" + numbered(2 << 20)
    path = tmp_path / "file"
    path.write_bytes(HEAD + data)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:99_999]], offset))
    with FileSource.open(path) as source:
        assert read_all(source, 700_000) == data


def test_the_temporary_files_of_many_sinks_have_names_of_their_own(tmp_path: Path) -> None:
    sinks = [FileSink(tmp_path / "file", HEAD) for _ in range(20)]
    for sink in sinks:
        sink.write([b"abc"])
    assert len(list(tmp_path.iterdir())) == 20
    assert all(is_temporary(path.name) for path in tmp_path.iterdir())
    for sink in sinks:
        sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_of_somebody_else_is_never_written_to(tmp_path: Path) -> None:
    taken = tmp_path / f"{_files._names._series}0.part"
    taken.symlink_to(tmp_path / "elsewhere")
    _files._names._count = itertools.count()
    save(tmp_path / "file", HEAD, [b"abc"])
    assert sorted(tmp_path.iterdir()) == sorted([taken, tmp_path / "file"])
    assert (tmp_path / "file").read_bytes() == HEAD + b"abc"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_uses_other_names() -> None:
    before = _files._names._series
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, _files._names._series.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="ascii") as pipe:
        assert pipe.read() != before
    os.waitpid(child, 0)
    assert _files._names._series == before


def test_nothing_is_left_when_a_sink_is_abandoned(tmp_path: Path) -> None:
    with FileSink(tmp_path / "file", HEAD) as sink:
        sink.write([b"abc"])
    assert list(tmp_path.iterdir()) == []
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        sink.write([b"abc"])
    with pytest.raises(ValueError, match="closed"):
        sink.commit()
    assert list(tmp_path.iterdir()) == []


def test_a_committed_sink_cannot_be_written_and_is_not_removed(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "file", HEAD)
    sink.commit()
    with pytest.raises(ValueError, match="closed"):
        sink.write([b"abc"])
    sink.abort()
    assert (tmp_path / "file").read_bytes() == HEAD


def test_an_existing_file_is_replaced_in_one_step_and_readers_keep_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save(path, HEAD, [b"old"])
    with path.open("rb") as reader:
        save(path, HEAD, [b"new"])
        assert reader.read() == HEAD + b"old"
    assert path.read_bytes() == HEAD + b"new"


def test_an_existing_file_is_never_touched_when_replacing_is_forbidden(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save(path, HEAD, [b"old"], replace=False)
    with pytest.raises(FileExistsError) as caught:
        save(path, HEAD, [b"new"], replace=False)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == HEAD + b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_missing_folder_is_an_oserror_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "missing" / "file", HEAD, [b"abc"])
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_by_a_folder_is_an_oserror_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        save(tmp_path / "file", HEAD, [b"abc"])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "file", HEAD)
    sink.write([b"abc"])
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, sink._fd)
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        sink.write([b"def"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "./file"])
def test_a_relative_path_is_written_into_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save(name, HEAD, [b"abc"], sync=True)
    assert read_file_head(name).sop_instance_uid == "1.8"
