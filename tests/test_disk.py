"""Where file IO happens."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import asyncdicom
from asyncdicom import disk, threads
from asyncdicom.dataset import FileSource, part10_head
from asyncdicom.disk import AT_ONCE, Device

pytestmark = pytest.mark.anyio

_UID = "1.2.3.4"


@pytest.fixture(autouse=True)
def _pool() -> Iterator[None]:
    threads.hold()
    disk.forget()
    yield
    disk.forget()
    threads.release()


def _where() -> int:
    return threading.get_ident()


# (begun, took) of one call after the other; until when the device is then left alone.
@pytest.mark.parametrize(
    ("calls", "until"),
    [
        ([], 0.0),
        ([(10.0, 0.019)], 0.0),
        ([(10.0, 0.5)], 11.0),
        ([(10.0, 0.5), (11.2, 0.3)], 12.5),
        ([(10.0, 0.5), (11.2, 0.3), (12.6, 0.4)], 15.0),
        ([(10.0, 0.5), (99.0, 0.5)], 100.0),
        ([(10.0, 0.5), (11.2, 0.001)], 11.0),
    ],
)
def test_a_device_that_was_slow_is_left_alone_for_longer_each_time(
    calls: list[tuple[float, float]], until: float
) -> None:
    device = Device(local=True)
    for begun, took in calls:
        device.took(begun, begun + took)
    assert not until or not device.quick(until - 0.01)
    assert device.quick(until + 0.01)


def test_a_device_is_never_left_alone_for_more_than_a_minute() -> None:
    device = Device(local=True)
    now = 10.0
    for _ in range(20):
        device.took(now, now + 1)
        until = next(now + 1 + n / 10 for n in range(700) if device.quick(now + 1 + n / 10))
        assert until - now <= 61.1
        now = until


def test_what_is_not_local_is_never_quick() -> None:
    assert not Device(local=False).quick(1e9)


async def test_the_first_call_in_a_folder_is_made_in_a_thread_and_what_follows_at_once(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert not disk.quick(folder)
    assert await disk.run(folder, _where, _where) != _where()
    if not disk.quick(folder):
        pytest.skip("the temporary folder is not on a local file system of Linux")
    assert await disk.run(folder, _where, _where) == _where()
    assert await disk.run(folder, None, _where) != _where()


async def test_what_would_have_to_wait_is_done_in_a_thread(tmp_path: Path) -> None:
    def blocked() -> int:
        raise BlockingIOError

    for _ in range(2):
        assert await disk.run(str(tmp_path), blocked, _where) != _where()


async def test_an_error_of_a_call_is_the_callers(tmp_path: Path) -> None:
    def fail() -> int:
        raise FileNotFoundError("missing")

    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="missing"):
            await disk.run(str(tmp_path), fail, fail)


async def test_a_folder_that_is_missing_is_looked_for_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    assert await disk.run(str(folder), _where, _where) != _where()
    folder.mkdir()
    assert await disk.run(str(folder), _where, _where) != _where()
    await disk.run(str(tmp_path), _where, _where)
    assert disk.quick(str(folder)) == disk.quick(str(tmp_path))


def _write(path: Path, size: int) -> bytes:
    body = b"\x08\x00\x16\x00UI\x04\x001.2\x00\x08\x00\x18\x00UI\x08\x001.2.3.4\x00"
    body += b"\xe0\x7f\x10\x00OB\0\0" + size.to_bytes(4, "little") + os.urandom(size)
    path.write_bytes(part10_head("1.2", _UID, "1.2.840.10008.1.2.1") + body)
    return body


@pytest.mark.parametrize("size", [1000, 10_000, AT_ONCE])
def test_a_file_in_memory_is_read_without_waiting(tmp_path: Path, size: int) -> None:
    body = _write(tmp_path / "a.dcm", size)
    with FileSource.open(tmp_path / "a.dcm", preload=False, wait=False) as source:
        assert source.head.sop_instance_uid == _UID
        buffer = bytearray(len(body))
        halves = [memoryview(buffer)[:99], memoryview(buffer)[99:]]
        assert source.read_into(halves, wait=False) == len(body)
        assert buffer == body


@pytest.mark.parametrize(
    ("path", "folder"),
    [("a.dcm", ""), ("./a.dcm", "./"), ("x/y/a.dcm", "x/y/"), ("/a.dcm", "/"), (Path("/x/a.dcm"), "/x/"), ("x/", "x/")],
)
@pytest.mark.skipif(os.sep != "/", reason="the paths are those of POSIX")
def test_the_folder_of_a_file_is_what_comes_before_its_name(path: str | Path, folder: str) -> None:
    assert disk.folder_of(path) == folder


_SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT") or not os.access(_SHARED_MEMORY, os.W_OK), reason="needs /dev/shm")
@pytest.mark.parametrize("size", [1000, 100_000])
async def test_a_file_system_that_is_memory_is_not_asked_for_what_it_refuses(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: set[int] = set()
    preadv = os.preadv

    def watched(fd: int, buffers: list[memoryview], offset: int, flag: int = 0) -> int:
        flags.add(flag)
        return preadv(fd, buffers, offset, flag)

    monkeypatch.setattr(os, "preadv", watched)
    with TemporaryDirectory(dir=_SHARED_MEMORY) as folder:
        path = Path(folder) / "a.dcm"
        body = _write(path, size)

        def read() -> bytearray:
            buffer = bytearray(len(body))
            with FileSource.open(path, preload=False, wait=False) as source:
                assert source.read_into([memoryview(buffer)], wait=False) == len(body)
            return buffer

        assert read() == body
        assert os.RWF_NOWAIT in flags  # nothing is known of the device
        await disk.run(disk.folder_of(path), None, _where)
        if not disk.in_memory(path.stat().st_dev):
            pytest.skip("/dev/shm is not in memory")
        flags.clear()
        assert read() == body
        assert flags <= {0}


def test_a_device_of_which_nothing_is_known_is_not_taken_for_memory(tmp_path: Path) -> None:
    assert not disk.in_memory(tmp_path.stat().st_dev)


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="needs O_NOFOLLOW")
def test_a_symbolic_link_is_not_followed_without_waiting(tmp_path: Path) -> None:
    _write(tmp_path / "a.dcm", 10)
    (tmp_path / "b.dcm").symlink_to(tmp_path / "a.dcm")
    with pytest.raises(BlockingIOError):
        FileSource.open(tmp_path / "b.dcm", wait=False)
    FileSource.open(tmp_path / "b.dcm").close()


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise")
def test_what_is_not_in_memory_is_said_to_be_so_and_can_be_read_after(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    body = _write(path, 600_000)
    with FileSource.open(path, preload=False) as source:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        buffer = bytearray(len(body))
        try:
            read = source.read_into([memoryview(buffer)], wait=False)
        except BlockingIOError:
            read = source.read_into([memoryview(buffer)])
        assert read == len(body)
        assert buffer == body


@pytest.mark.parametrize("inline", [True, False])
async def test_an_application_can_keep_all_file_io_out_of_the_event_loop(
    tmp_path: Path, inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = asyncdicom.Limits(inline_file_io=inline)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    body = _write(source / "a.dcm", 500_000)
    services = asyncdicom.Services()

    @services.store("*", unknown=True)
    async def store(request: asyncdicom.StoreRequest) -> None:
        await request.save(target / f"{request.sop_instance_uid}.dcm")

    here = _where()
    at: set[int] = set()
    preadv, writev = os.preadv, os.writev

    def watched_preadv(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        at.add(_where())
        return preadv(fd, buffers, offset, flags)

    def watched_writev(fd: int, buffers: list[memoryview]) -> int:
        at.add(_where())
        return writev(fd, buffers)

    async with (
        asyncdicom.Server(services, "A@127.0.0.1:0", limits=limits) as server,
        asyncdicom.connect(
            f"A@127.0.0.1:{server.addresses[0].port}",
            contexts=[
                asyncdicom.PresentationContext(abstract_syntax="1.2", transfer_syntaxes=("1.2.840.10008.1.2.1",))
            ],
            limits=limits,
        ) as association,
    ):
        await association.store(source / "a.dcm")  # what the folders are is learnt now
        monkeypatch.setattr(os, "preadv", watched_preadv)
        monkeypatch.setattr(os, "writev", watched_writev)
        await association.store(source / "a.dcm")
    assert (target / f"{_UID}.dcm").read_bytes().endswith(body)
    assert (here in at) == (inline and disk.quick(disk.folder_of(source / "a.dcm")))
