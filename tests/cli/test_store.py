from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncdicom
from asyncdicom import Services, StoreRequest, sop

from ..conftest import TEST_FILES
from ..interop.material import Archive, sample, samples, study
from .program import run, run_on_terminal, serving, started

CT = TEST_FILES / "CT_small.dcm"


class Receiver:
    """A storage SCP that remembers what it was sent, and may answer otherwise."""

    def __init__(self, answer: Callable[[StoreRequest, int], int | None] | None = None, **options: Any) -> None:
        self.data: dict[str, bytes] = {}
        self.syntaxes: dict[str, str] = {}
        self.associations: list[asyncdicom.Association] = []
        self.order: list[str] = []
        self.most = 0
        self._now = 0
        self._answer = answer
        self._options = options
        self.services = Services()
        self.services.store("*", **{"unknown": True, **options})(self._store)

    async def _store(self, request: StoreRequest) -> int | None:
        self._now += 1
        self.most = max(self.most, self._now)
        if request.association not in self.associations:
            self.associations.append(request.association)
        try:
            data = await request.read()
            if self._answer is not None and (status := self._answer(request, len(self.order))) is not None:
                return status
        finally:
            self._now -= 1
        uid = request.sop_instance_uid
        self.order.append(uid)
        self.data[uid] = data
        self.syntaxes[uid] = request.transfer_syntax_uid
        return None


def test_a_file_is_stored_byte_for_byte() -> None:
    receiver = Receiver()
    item = sample("CT_small.dcm")
    with serving(receiver.services) as (address, log):
        out = run("store", address, item.path).check().out
    assert re.fullmatch(r"sent 1 instance, 38\.9 kB in .* \(.*/s, \d+/s\)\n", out)
    assert receiver.data == {item.sop_instance_uid: item.on_the_wire}
    assert log.has("released")


def test_folders_are_stored_whatever_is_in_them(tmp_path: Path) -> None:
    receiver = Receiver()
    with serving(receiver.services) as (address, _):
        out = run("store", address, TEST_FILES).check().out
    for item in samples():
        assert item.sop_instance_uid in receiver.data
    assert re.search(r"sent \d+ instances, .*; \d+ other files skipped\n", out)
    assert len(receiver.associations) == 1


def test_files_are_sent_in_the_order_of_their_names(tmp_path: Path) -> None:
    items = study()[:5]
    for number, item in enumerate(reversed(items)):
        shutil.copy(item.path, tmp_path / f"{number}.dcm")
    receiver = Receiver()
    with serving(receiver.services) as (address, _):
        run("store", address, tmp_path).check()
    assert receiver.order == [item.sop_instance_uid for item in reversed(items)]


@pytest.mark.parametrize("name", ["readme.txt", "nowhere", "DICOMDIR"])
def test_nothing_is_sent_when_what_is_named_is_no_instance(tmp_path: Path, name: str) -> None:
    (tmp_path / "readme.txt").write_text("no")
    shutil.copy(TEST_FILES / "dicomdirtests" / "DICOMDIR", tmp_path)
    receiver = Receiver()
    with serving(receiver.services) as (address, log):
        result = run("store", address, CT, tmp_path / name)
    assert result.status == 2
    assert result.error.startswith(f"asyncdicom store: {tmp_path / name}: ")
    assert result.out == ""
    assert not log.has("opened")


def test_a_folder_without_instances_needs_no_association(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no")
    out = run("store", "X@127.0.0.1:1", tmp_path).check().out
    assert out == "nothing to send; 1 other file skipped\n"


def test_an_unreadable_file_inside_of_a_folder_is_a_failure(tmp_path: Path) -> None:
    shutil.copy(CT, tmp_path / "a")
    # A file that nobody can read from its beginning, not even root.
    (tmp_path / "b").symlink_to("/proc/self/mem")
    receiver = Receiver()
    with serving(receiver.services) as (address, _):
        result = run("store", address, tmp_path)
    assert (result.status, result.error) == (1, f"asyncdicom store: {tmp_path / 'b'}: input/output error")
    assert len(receiver.data) == 1
    assert result.out.endswith("; 1 unreadable\n")


def test_a_failed_file_does_not_keep_the_others_from_being_sent() -> None:
    bad = study()[1]
    receiver = Receiver(lambda request, _: 0xA700 if request.sop_instance_uid == bad.sop_instance_uid else None)
    paths = [item.path for item in study()[:4]]
    with serving(receiver.services) as (address, log):
        result = run("store", address, *paths)
    assert result.status == 1
    assert result.error.startswith(f"asyncdicom store: {bad.path}: status 0xa700 (")
    assert "sent 3 of 4 instances" in result.out
    assert "; 1 failed" in result.out
    assert len(receiver.data) == 3
    assert log.has("released")


def test_warnings_are_told_and_are_no_failure() -> None:
    receiver = Receiver(lambda request, _: 0xB007)
    with serving(receiver.services) as (address, _):
        result = run("store", address, CT)
    assert result.status == 0
    assert result.error.startswith(f"asyncdicom store: {CT}: warning: status 0xb007 (")
    assert result.out.endswith("; 1 warning\n")


def test_what_the_peer_does_not_take_is_a_failure_and_the_rest_is_sent() -> None:
    receiver = Receiver(transfer_syntaxes=[sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.IMPLICIT_VR_LITTLE_ENDIAN])
    compressed = TEST_FILES / "JPEG2000.dcm"
    with serving(receiver.services) as (address, _):
        result = run("store", address, compressed, CT)
    assert result.status == 1
    assert result.error.startswith(f"asyncdicom store: {compressed}: ")
    assert "not accepted" in result.error
    assert len(receiver.data) == 1


def test_native_instances_are_converted_for_a_peer_that_knows_the_default_syntax_only() -> None:
    receiver = Receiver(transfer_syntaxes=[sop.IMPLICIT_VR_LITTLE_ENDIAN])
    with serving(receiver.services) as (address, _):
        run("store", address, CT, TEST_FILES / "MR_small_bigendian.dcm").check()
    assert set(receiver.syntaxes.values()) == {sop.IMPLICIT_VR_LITTLE_ENDIAN}
    assert len(receiver.data) == 2


def with_class(path: Path, number: int) -> Path:
    """Write an instance of a private SOP class of its own."""
    data = CT.read_bytes()
    old = str(sop.CT_IMAGE_STORAGE).encode()
    path.write_bytes(data.replace(old, b"1.2.9999.%d" % number + b"\0" * (len(old) - 9 - len(str(number)))))
    return path


def test_more_classes_than_an_association_takes_go_over_several(tmp_path: Path) -> None:
    for number in range(130):
        with_class(tmp_path / f"{number:03}", number)
    receiver = Receiver(lambda request, count: 0)
    with serving(receiver.services) as (address, log):
        out = run("store", address, tmp_path).check().out
    assert out.startswith("sent 130 instances")
    assert len(receiver.associations) == 3
    assert sum("opened" in line for line in log.lines) == 3


def test_several_associations_and_a_window() -> None:
    receiver = Receiver()
    with serving(receiver.services) as (address, _):
        run("store", address, TEST_FILES / "dicomdirtests", "--associations", 3, "--window", 4).check()
    assert len(receiver.associations) == 3
    assert {association.async_operations for association in receiver.associations} == {(1, 4)}
    for item in study():
        assert receiver.data[item.sop_instance_uid] == item.on_the_wire


@pytest.mark.parametrize("window", [1, 16])
def test_an_association_that_is_lost_is_made_again(window: int) -> None:
    bad = study()[2]
    receiver = Receiver()

    async def breaking(request: StoreRequest) -> int | None:
        if request.sop_instance_uid == bad.sop_instance_uid:
            await request.association.abort()
        return await receiver._store(request)

    receiver.services.store("*")(breaking)
    paths = [item.path for item in study()]
    with serving(receiver.services) as (address, _):
        result = run("store", address, *paths, "--window", window)
    assert result.status == 1
    lost = "asyncdicom store: association aborted by the service user (source 0, reason 0)"
    *losses, failure = [line for line in result.err.splitlines() if line != f"{lost}; associating again"]
    assert losses == []
    assert failure == f"asyncdicom store: {bad.path}: association aborted by the service user (source 0, reason 0)"
    assert receiver.data.keys() == {item.sop_instance_uid for item in study()} - {bad.sop_instance_uid}


def test_a_peer_that_never_answers_is_given_up() -> None:
    services = Services()

    @services.store("*")
    async def store(request: StoreRequest) -> None:
        await request.association.abort()

    with serving(services) as (address, log):
        result = run("store", address, *(item.path for item in study()), "--window", 1)
    assert result.status == 1
    assert "Traceback" not in result.err
    assert result.err.count("; associating again\n") == 2
    assert "sent 0 of 31 instances" in result.out
    assert "; 1 failed; 30 not sent\n" in result.out
    assert sum("opened" in line for line in log.lines) == 3


def test_no_association_is_status_3_and_one_line() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"X@127.0.0.1:{sock.getsockname()[1]}"
        result = run("store", address, TEST_FILES / "dicomdirtests", "--associations", 4)
    assert result.status == 3
    assert "connection refused" in result.error


def test_a_peer_that_takes_fewer_associations_gets_all_the_same() -> None:
    receiver = Receiver()
    limits = asyncdicom.Limits(associations=2)
    with serving(receiver.services, limits=limits) as (address, _):
        result = run("store", address, TEST_FILES / "dicomdirtests", "--associations", 4)
    assert result.status == 0
    assert {item.sop_instance_uid for item in study()} <= receiver.data.keys()


def test_what_a_lost_association_leaves_behind_is_sent_by_another_if_it_cannot_be_made_again() -> None:
    receiver = Receiver()
    refused = anyio.Event()
    associations = 0

    @receiver.services.on_associate
    async def admit(request: asyncdicom.AssociationRequest) -> None:
        nonlocal associations
        associations += 1
        if associations > 2:
            refused.set()
            raise asyncdicom.AssociationRejected(1, 1, 3)

    async def store(request: StoreRequest) -> int | None:
        if not receiver.associations or request.association is receiver.associations[0]:
            receiver.associations.append(request.association)
            await both.wait()
            await request.association.abort()
        else:
            both.set()
            await refused.wait()
        return await receiver._store(request)

    both = anyio.Event()
    receiver.services.store("*")(store)
    paths = [item.path for item in study()[:6]]
    with serving(receiver.services) as (address, _):
        result = run("store", address, *paths, "--associations", 2, "--window", 1)
    assert result.status == 0
    assert result.err.splitlines() == [
        "asyncdicom store: association aborted by the service user (source 0, reason 0); associating again",
        f"asyncdicom store: {address}: association rejected permanently: "
        "calling AE title not recognized (result 1, source 1, reason 3)",
    ]
    assert receiver.data.keys() == {item.sop_instance_uid for item in study()[:6]}
    assert result.out.startswith("sent 6 instances, ")


def test_a_file_that_vanishes_or_is_overwritten_meanwhile_is_a_failure(tmp_path: Path) -> None:
    # More than is read ahead: what comes behind can be taken away when the first one arrives.
    for number, item in enumerate(study()):
        for copy in range(8):
            shutil.copy(item.path, tmp_path / f"{copy}-{number:02}")
    last, other = tmp_path / "7-29", tmp_path / "7-30"

    def spoil(request: StoreRequest, count: int) -> None:
        if last.exists():
            last.unlink()
            other.write_text("not any more")

    receiver = Receiver(spoil)
    with serving(receiver.services) as (address, _):
        result = run("store", address, tmp_path)
    assert result.status == 1
    assert result.err.splitlines() == [
        f"asyncdicom store: {last}: no such file or directory",
        f"asyncdicom store: {other}: not a DICOM file any more",
    ]
    assert "sent 246 of 248 instances" in result.out


def test_large_files_are_read_while_they_are_sent(tmp_path: Path) -> None:
    data = CT.read_bytes()
    position = data.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    size = 9 << 20
    large = tmp_path / "large.dcm"
    large.write_bytes(data[:position] + size.to_bytes(4, "little") + os.urandom(size))
    receiver = Receiver()
    with serving(receiver.services) as (address, _):
        run("store", address, large).check()
        terminal = run_on_terminal("store", address, large)
    (stored,) = receiver.data.values()
    assert stored[-size:] == large.read_bytes()[-size:]
    assert terminal.status == 0
    assert "sending" in terminal.out


@pytest.mark.parametrize("window", [1, 16])
def test_a_large_file_that_becomes_shorter_while_it_is_sent_is_a_failure_and_the_rest_is_sent(
    window: int, tmp_path: Path
) -> None:
    data = CT.read_bytes()
    position = data.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    size = 64 << 20
    large = tmp_path / "1-large.dcm"
    large.write_bytes(data[:position] + size.to_bytes(4, "little"))
    os.truncate(large, position + 4 + size)
    for number, item in enumerate(study()):
        shutil.copy(item.path, tmp_path / f"{number + 2}.dcm")
    services = Services()
    received: set[str] = set()

    @services.store("*")
    async def store(request: StoreRequest) -> None:
        async for _ in request.iter_data():
            if request.sop_instance_uid == sample("CT_small.dcm").sop_instance_uid:
                os.truncate(large, position)
        received.add(request.sop_instance_uid)

    with serving(services) as (address, _):
        result = run("store", address, tmp_path, "--window", window)
    assert result.status == 1
    assert "Traceback" not in result.err
    assert f"asyncdicom store: {large}: " in result.err
    assert received == {item.sop_instance_uid for item in study()}
    assert "sent 31 of 32 instances" in result.out


# A person at a terminal, and one who leaves.


def test_on_a_terminal_a_bar_is_drawn_and_in_a_pipe_none() -> None:
    receiver = Receiver()
    with serving(receiver.services) as (address, _):
        piped = run("store", address, TEST_FILES / "dicomdirtests").check()
        drawn = run_on_terminal("store", address, TEST_FILES / "dicomdirtests")
    assert "\x1b" not in piped.out
    assert "sending" in drawn.out
    assert "\x1b[" in drawn.out
    assert "sent 81 instances" in drawn.out


def test_ctrl_c_releases_and_says_what_was_sent() -> None:
    waiting = threading.Event()
    receiver = Receiver()

    async def slow(request: StoreRequest) -> int | None:
        if len(receiver.order) == 3:
            await request.read()
            waiting.set()
            await anyio.sleep(30)
        return await receiver._store(request)

    receiver.services.store("*")(slow)
    paths = [item.path for item in study()]
    with serving(receiver.services) as (address, log), started("store", address, *paths) as process:
        assert waiting.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == b""
    found = re.fullmatch(rb"sent (\d+) of 31 instances, .*; (\d+) not sent\n", out)
    assert found
    assert int(found[1]) + int(found[2]) == 31
    assert log.has("released")


def test_an_archive_takes_what_it_gave(archive: Archive) -> None:
    with serving(archive.services()) as (address, _):
        run("store", address, TEST_FILES / "rtdose.dcm").check()
    item = sample("rtdose.dcm")
    assert archive.data[item.sop_instance_uid] == item.on_the_wire
