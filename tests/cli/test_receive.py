from __future__ import annotations

import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

import asyncdicom
from asyncdicom import Instance, sop

from ..conftest import TEST_FILES
from ..interop.conftest import Certificates, certificates
from ..interop.material import data_set_of, sample, samples
from .program import run, started, wait_for_line

__all__ = ["certificates"]

CT = sample("CT_small.dcm")


@contextmanager
def receiving(
    folder: Path, *options: object, listen: str = "STORE@127.0.0.1:0"
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with started("receive", folder, "--listen", listen, *options) as process:
        line = wait_for_line(process)
        found = re.fullmatch(r"listening on (\S+@\S+:\d+)", line)
        assert found, line
        yield found[1], process


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return out.decode(), err.decode()


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_of_instances_becomes_another(tmp_path: Path) -> None:
    with receiving(tmp_path / "in") as (address, process):
        run("store", address, TEST_FILES).check()
        out, err = stop(process)
    assert process.returncode == 0
    assert err == ""
    stored = {item.sop_instance_uid: item for item in samples()}
    assert {f"{uid}.dcm" for uid in stored} <= files(tmp_path / "in")
    for uid, item in stored.items():
        if sum(other.sop_instance_uid == uid for other in samples()) == 1:
            assert data_set_of(tmp_path / "in" / f"{uid}.dcm") == item.on_the_wire
    assert not [name for name in files(tmp_path / "in") if not name.endswith(".dcm")]
    assert re.search(
        r"^ASYNCDICOM \(127\.0\.0\.1\): \d+ instances \(\d+ replaced another content, 1 there already\)$",
        out,
        re.MULTILINE,
    )
    assert re.search(r"^received \d+ instances, [\d.]+ MB$", out, re.MULTILINE)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_every_event_loop_serves(tmp_path: Path, loop: str) -> None:
    pytest.importorskip(loop)
    with receiving(tmp_path, "--loop", loop) as (address, process):
        run("echo", address).check()
        run("store", address, CT.path).check()
        stop(process)
    assert process.returncode == 0
    assert files(tmp_path) == {f"{CT.sop_instance_uid}.dcm"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_status_0(tmp_path: Path, number: int) -> None:
    with receiving(tmp_path) as (_, process):
        assert stop(process, number) == ("", "")
    assert process.returncode == 0


class Stalling:
    """A data set that begins to be sent, and goes on when it is told to."""

    size = 4 << 20

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def read_into(self, views: Sequence[memoryview]) -> int:
        if self.begun.is_set():
            assert self.go_on.wait(30)
        self.begun.set()
        return sum(map(len, views))

    def close(self) -> None:
        pass


@contextmanager
def storing(address: str) -> Iterator[tuple[Stalling, list[object]]]:
    """Store something slowly in another thread; gives what is sent, and then what came of it."""
    source = Stalling()
    outcome: list[object] = []

    async def store() -> None:
        instance = Instance(sop.RAW_DATA_STORAGE, "1.2.3", sop.EXPLICIT_VR_LITTLE_ENDIAN, lambda: source)
        try:
            async with asyncdicom.connect(address, contexts=[sop.RAW_DATA_STORAGE]) as association:
                outcome.append((await association.store(instance)).status)
        except asyncdicom.AssociationError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=anyio.run, args=(store,))
    thread.start()
    try:
        assert source.begun.wait(20)
        yield source, outcome
    finally:
        source.go_on.set()
        thread.join()


def test_what_is_under_way_is_received_before_it_stops(tmp_path: Path) -> None:
    with receiving(tmp_path) as (address, process):
        with storing(address) as (source, outcome):
            process.terminate()
            assert wait_for_line(process) == "stopping; 1 association to end (again to abort)"
            assert "temporary congestion" in run("echo", address).error
            source.go_on.set()
            out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert (out, err) == (b"ASYNCDICOM (127.0.0.1): 1 instance\nreceived 1 instance, 4.2 MB\n", b"")
    assert outcome == [0]
    assert files(tmp_path) == {"1.2.3.dcm"}


def test_a_second_signal_aborts_what_is_under_way(tmp_path: Path) -> None:
    with receiving(tmp_path) as (address, process):
        with storing(address) as (_, outcome):
            process.terminate()
            wait_for_line(process)
            process.terminate()
            assert process.wait(5) == 143
    assert isinstance(outcome[0], asyncdicom.AssociationError)
    assert files(tmp_path) == set()


def test_any_called_ae_title_is_accepted_unless_some_are_named(tmp_path: Path) -> None:
    with receiving(tmp_path) as (address, process):
        run("echo", "ANYBODY@" + address.partition("@")[2]).check()
        stop(process)
    with receiving(tmp_path, "--called", "ONE", "--called", "TWO") as (address, process):
        where = address.partition("@")[2]
        run("echo", f"ONE@{where}").check()
        run("echo", f"TWO@{where}").check()
        assert "called AE title not recognized" in run("echo", f"STORE@{where}").error
        stop(process)


def test_private_classes_and_transfer_syntaxes_are_accepted(tmp_path: Path) -> None:
    data = b"\x08\x00\x16\x00UI\x06\x001.2.3\0\x08\x00\x18\x00UI\x08\x001.2.3.4\0"
    (tmp_path / "private").mkdir()

    async def store(address: str) -> None:
        syntax = asyncdicom.PresentationContext(abstract_syntax="1.2.3", transfer_syntaxes=("1.2.9.9",))
        async with asyncdicom.connect(address, contexts=[syntax]) as association:
            await association.store(Instance.from_bytes(data, "1.2.3", "1.2.3.4", "1.2.9.9"))

    with receiving(tmp_path / "in") as (address, process):
        anyio.run(store, address)
        stop(process)
    assert data_set_of(tmp_path / "in" / "1.2.3.4.dcm") == data


def changed(path: Path) -> Path:
    """Write an instance of the same UID with another content."""
    path.write_bytes(CT.path.read_bytes().replace(b"CompressedSamples", b"CompressedSampleZ"))
    return path


@pytest.mark.parametrize(
    ("options", "status", "stays"),
    [
        ([], 0, b"CompressedSampleZ"),
        (["--on-duplicate", "refuse"], 1, b"CompressedSamples"),
        (["--on-duplicate", "keep"], 0, b"CompressedSamples"),
        (["--on-duplicate", "replace"], 0, b"CompressedSampleZ"),
    ],
)
def test_another_content_of_an_instance(tmp_path: Path, options: list[str], status: int, stays: bytes) -> None:
    other = changed(tmp_path / "other.dcm")
    with receiving(tmp_path / "in", *options) as (address, process):
        run("store", address, CT.path).check()
        run("store", address, CT.path).check()
        result = run("store", address, other)
        stop(process)
    assert result.status == status
    if status:
        assert "status 0x0111 (" in result.error
    (path,) = (tmp_path / "in").iterdir()
    assert stays in path.read_bytes()


def test_a_folder_that_cannot_be_written_to_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("receive", tmp_path / "file")
    assert (result.status, result.error) == (
        2,
        f"asyncdicom receive: cannot write into {tmp_path / 'file'}: not a folder",
    )


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with receiving(tmp_path) as (address, process):
        result = run("receive", tmp_path, "--listen", address)
        stop(process)
    assert (result.status, result.error) == (
        2,
        f"asyncdicom receive: cannot listen on {address}: address already in use",
    )


def test_a_full_disk_is_answered_and_leaves_nothing(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    with started("receive", tmp_path, "--listen", "STORE@127.0.0.1:0", preexec_fn=limit) as process:
        address = wait_for_line(process).removeprefix("listening on ")
        result = run("store", address, CT.path)
        assert "status 0xa700 (" in result.error
        run("echo", address).check()
        _, err = stop(process)
    assert files(tmp_path) == set()
    assert err.count("\n") == 1
    assert err.startswith("asyncdicom receive: error: ")


def test_at_the_limit_of_associations_peers_are_rejected(tmp_path: Path) -> None:
    async def hold(address: str, check: Callable[[], None]) -> None:
        async with asyncdicom.connect(address, contexts=[sop.VERIFICATION]):
            await anyio.to_thread.run_sync(check)

    with receiving(tmp_path, "--max-associations", 1) as (address, process):
        anyio.run(hold, address, lambda: _check_rejected(address))
        run("echo", address).check()
        stop(process)


def _check_rejected(address: str) -> None:
    result = run("echo", address)
    assert result.status == 3
    assert "local limit exceeded (result 2, source 3, reason 2)" in result.error


def test_the_soft_limit_of_descriptors_is_raised(tmp_path: Path) -> None:
    def limit() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))

    command = ["receive", tmp_path, "--listen", "STORE@127.0.0.1:0", "--max-associations", 100]
    with started(*command, preexec_fn=limit) as process:
        wait_for_line(process)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        stop(process)
    found = re.search(r"^Max open files +(\d+)", limits, re.MULTILINE)
    assert found
    assert int(found[1]) >= 300


def test_timeouts_are_ours_to_choose(tmp_path: Path) -> None:
    import socket

    with receiving(tmp_path, "--artim-timeout", "0.3", "--network-timeout", "5") as (address, process):
        host, _, port = address.partition("@")[2].rpartition(":")
        start = time.monotonic()
        with socket.create_connection((host, int(port)), 10) as sock:
            assert sock.recv(1) == b""
        assert 0.2 < time.monotonic() - start < 20
        stop(process)


def test_tls_with_and_without_certificates_of_peers(tmp_path: Path, certificates: Certificates) -> None:
    cert = ["--tls-cert", certificates.chain, "--tls-key", certificates.key]
    trust = ["--tls-ca", certificates.authority]
    with receiving(tmp_path, *cert) as (address, process):
        run("echo", address, *trust).check()
        assert run("echo", address, "--timeout", 3).status == 3
        stop(process)
    with receiving(tmp_path, *cert, *trust) as (address, process):
        run("echo", address, *trust, *cert).check()
        assert run("echo", address, *trust, "--timeout", 3).status == 3
        stop(process)


def test_tls_without_a_certificate_of_our_own_is_wrong_usage(tmp_path: Path, certificates: Certificates) -> None:
    result = run("receive", tmp_path, "--tls-ca", certificates.authority)
    assert (result.status, result.error) == (2, "asyncdicom receive: a server needs --tls-cert for TLS")


def test_what_is_received_can_be_sent_on(tmp_path: Path) -> None:
    with receiving(tmp_path / "one") as (first, one), receiving(tmp_path / "two") as (second, two):
        run("store", first, TEST_FILES / "dicomdirtests").check()
        # What a killed process left is no instance.
        (tmp_path / "one" / ".asyncdicom-0011.part").write_bytes(CT.path.read_bytes()[:3000])
        run("store", second, tmp_path / "one").check()
        stop(one)
        stop(two)
    (tmp_path / "one" / ".asyncdicom-0011.part").unlink()
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for name in files(tmp_path / "one"):
        assert data_set_of(tmp_path / "one" / name) == data_set_of(tmp_path / "two" / name)
    shutil.rmtree(tmp_path / "one")
