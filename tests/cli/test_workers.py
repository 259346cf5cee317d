"""``--workers``: several processes that serve one address."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

import asyncdicom
from asyncdicom import sop
from asyncdicom.cli.access import PasswordHash
from asyncdicom.cli.outcome import CommandError, Exit
from asyncdicom.cli.workers import check, share

from ..conftest import TEST_FILES
from ..interop.conftest import Certificates, certificates
from ..interop.material import data_set_of, study
from .program import run, started, wait_for_line
from .test_receive import files, stop, storing

__all__ = ["certificates"]

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "send_fds"), reason="nothing is handed from process to process here"
)

LISTEN = "STORE@127.0.0.1:0"


@dataclass
class Workers:
    """A server of several processes, which has been started with ``-v``.

    :ivar processes: the process of each worker, as far as lines were read.
    """

    process: subprocess.Popen[bytes]
    address: str = ""
    processes: dict[int, int] = field(default_factory=dict)

    def line(self, pattern: str) -> re.Match[str]:
        """Read lines of the log until one matches."""
        while line := wait_for_line(self.process):
            if found := re.search(r"worker (\d+) is process (\d+)$", line):
                self.processes[int(found[1])] = int(found[2])
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line was like {pattern!r}")


@contextmanager
def working(command: str, folder: Path, *options: object, listen: str = LISTEN) -> Iterator[Workers]:
    with started(command, folder, "--listen", listen, "--workers", 2, "-v", *options) as process:
        workers = Workers(process)
        workers.address = workers.line("^listening on (.*)")[1]
        yield workers


async def hold(address: str, count: int, then: list[str], ssl: ssl.SSLContext | None = None) -> None:
    """Associate so many times at once; adds to *then* what comes of each, and ends all of them."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            try:
                connecting = asyncdicom.connect(address, contexts=[sop.VERIFICATION], ssl=ssl)
                association = await stack.enter_async_context(connecting)
                then.append(f"{(await association.echo()).status:04x}")
            except asyncdicom.AssociationRejected as exc:
                then.append(f"{exc.result},{exc.source},{exc.reason}")


# What it does.


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_instances_are_received_on_every_event_loop(tmp_path: Path, loop: str) -> None:
    pytest.importorskip(loop)
    command = ["receive", tmp_path / "in", "--listen", LISTEN, "--loop", loop, "--workers", 3]
    with started(*command) as process:
        address = wait_for_line(process).removeprefix("listening on ")
        run("store", address, TEST_FILES / "dicomdirtests", "--associations", 4).check()
        out, err = stop(process)
    assert (process.returncode, err) == (0, "")
    stored = {item.sop_instance_uid: item for item in study()}
    assert files(tmp_path / "in") >= {f"{uid}.dcm" for uid in stored}
    assert not [name for name in files(tmp_path / "in") if not name.endswith(".dcm")]
    for uid, item in stored.items():
        assert data_set_of(tmp_path / "in" / f"{uid}.dcm") == item.on_the_wire
    *lines, last = out.splitlines()
    counts = [re.match(r"ASYNCDICOM \(127\.0\.0\.1\): (\d+) instances?", line) for line in lines]
    total = sum(int(count[1]) for count in counts if count is not None)
    assert last.startswith(f"received {total} instances, ")
    assert total >= len(files(tmp_path / "in"))


def test_what_one_worker_has_stored_is_found_by_another(tmp_path: Path) -> None:
    items = study()[:10]
    found = []

    async def store_and_find(address: str) -> None:
        stores = asyncdicom.connect(address, contexts=sorted({item.sop_class_uid for item in items}))
        finds = asyncdicom.connect(address, contexts=[sop.STUDY_ROOT_FIND])
        async with stores as one, finds as other:
            for item in items:
                await one.store(item.path)
                head = item.header()
                keys = {name: head[name].value for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
                async for match in other.find(level="IMAGE", **keys):
                    found.append(match.SOPInstanceUID)

    with working("archive", tmp_path, "--any-called") as workers:
        anyio.run(store_and_find, workers.address)
        _, log = stop(workers.process)
    assert found == [item.sop_instance_uid for item in items]
    assert set(re.findall(r"\[worker (\d)\] asyncdicom.server: association \d+ opened", log)) == {"1", "2"}


def test_connections_are_dealt_out_evenly_and_the_log_says_to_whom(tmp_path: Path) -> None:
    outcome: list[str] = []
    with working("receive", tmp_path) as workers:
        anyio.run(hold, workers.address, 8, outcome)
        anyio.run(hold, workers.address, 1, outcome)
        _, log = stop(workers.process)
    assert outcome == ["0000"] * 9
    by = re.findall(r" INFO \[worker (\d)\] asyncdicom.server: association (\d+) opened", log)
    assert sorted(number for worker, number in by if worker == "1")[:4] == ["1", "2", "3", "4"]
    assert sorted(number for worker, number in by if worker == "2")[:4] == ["1", "2", "3", "4"]


def test_tls_is_served(tmp_path: Path, certificates: Certificates) -> None:
    with working("receive", tmp_path, "--tls-cert", certificates.chain, "--tls-key", certificates.key) as workers:
        for _ in range(3):
            run("echo", workers.address, "--tls-ca", certificates.authority).check()
        stop(workers.process)


def test_a_unix_socket_is_served_again_and_again(tmp_path: Path) -> None:
    for _ in range(2):
        outcome: list[str] = []
        with working("receive", tmp_path / "in", listen=f"STORE@{tmp_path}/sock") as workers:
            assert workers.address == f"STORE@{tmp_path}/sock"
            anyio.run(hold, workers.address, 2, outcome)
            stop(workers.process)
        assert outcome == ["0000", "0000"]


# Limits.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--max-associations", 3], ["0000"] * 3 + ["2,3,2"]),
        (["--max-per-address", 1], ["0000", "2,3,2"]),
        (["--max-per-address", 3], ["0000"] * 3 + ["2,3,2"]),
        (["--max-per-ae", 2], ["0000"] * 2 + ["2,3,2"]),
    ],
)
def test_limits_are_shared_out(tmp_path: Path, options: list[object], expected: list[str]) -> None:
    outcome: list[str] = []
    with working("receive", tmp_path, *options) as workers:
        anyio.run(hold, workers.address, len(expected), outcome)
        stop(workers.process)
    assert outcome == expected


@pytest.mark.parametrize("total", [2, 3, 7, 1000])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_shares_are_even_and_nothing_is_lost(total: int, workers: int) -> None:
    shares = [share(total, number, workers) for number in range(1, workers + 1)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_users_and_rules_of_a_file_are_those_of_every_worker(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("opensesame")
    config = tmp_path / "archive.toml"
    config.write_text(
        f'called = "STORE"\nworkers = 2\n[users]\nalice = "{PasswordHash.make(b"opensesame")}"\n[access]\n"*" = "query"\n'
    )
    with started("archive", tmp_path / "archive", "--listen", LISTEN, "--config", config) as process:
        address = wait_for_line(process).removeprefix("listening on ")
        for _ in range(2):
            run("echo", address, "--user", "alice", "--password-file", tmp_path / "secret").check()
            assert run("echo", address, "--user", "alice").status == 3
        assert stop(process) == ("", "")


# How it stops.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_with_status_0(tmp_path: Path, number: int) -> None:
    with started("receive", tmp_path, "--listen", LISTEN, "--workers", 2, process_group=0) as process:
        wait_for_line(process)
        os.killpg(process.pid, number)  # as a terminal does: to the workers, too
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_what_is_under_way_is_received_before_it_stops(tmp_path: Path) -> None:
    with started("receive", tmp_path, "--listen", LISTEN, "--workers", 2) as process:
        address = wait_for_line(process).removeprefix("listening on ")
        with storing(address) as (source, outcome):
            process.terminate()
            assert wait_for_line(process) == "stopping; 1 association to end (again to abort)"
            assert run("echo", address, "--timeout", 5).status == 3
            source.go_on.set()
            out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert (out, err) == (b"ASYNCDICOM (127.0.0.1): 1 instance\nreceived 1 instance, 4.2 MB\n", b"")
    assert outcome == [0]
    assert files(tmp_path) == {"1.2.3.dcm"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_aborts_what_is_under_way(tmp_path: Path, number: int, status: int) -> None:
    with started("receive", tmp_path, "--listen", LISTEN, "--workers", 2) as process:
        with storing(wait_for_line(process).removeprefix("listening on ")) as (_, outcome):
            process.send_signal(number)
            wait_for_line(process)
            process.send_signal(number)
            assert process.wait(10) == status
    assert isinstance(outcome[0], asyncdicom.AssociationError)
    assert files(tmp_path) == set()


# Workers that die.


def test_a_worker_that_dies_is_replaced_and_the_others_go_on(tmp_path: Path) -> None:
    with working("receive", tmp_path) as workers:
        with storing(workers.address) as (source, outcome):
            holder = workers.line(r"\[worker (\d)\] asyncdicom.server: association 1 opened")[1]
            other = {"1": 2, "2": 1}[holder]
            died = workers.processes[other]
            os.kill(died, signal.SIGKILL)
            workers.line(
                rf"ERROR asyncdicom.cli: worker {other} \(process {died}\) was killed by SIGKILL; another one takes "
            )
            workers.line(f"worker {other} is ready")
            assert workers.processes[other] != died
            source.go_on.set()
        outcomes: list[str] = []
        anyio.run(hold, workers.address, 4, outcomes)
        out, log = stop(workers.process)
    assert workers.process.returncode == 0
    assert outcome == [0]
    assert outcomes == ["0000"] * 4
    assert "received 1 instance, " in out
    assert f"[worker {other}] asyncdicom.server: association 1 opened" in log


def test_a_worker_that_dies_at_once_again_and_again_ends_it_all(tmp_path: Path) -> None:
    with working("receive", tmp_path) as workers:
        for _ in range(5):
            os.kill(workers.processes.pop(1), signal.SIGKILL)
            workers.line(r"worker 1 \(process \d+\) was killed by SIGKILL")
            if workers.line(r"worker 1 (is process|ended at once)")[1] == "ended at once":
                break
        assert workers.process.wait(20) == 1
        assert not workers.processes.get(1)


def test_no_worker_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with working("receive", tmp_path) as workers:
        workers.process.kill()
        # They hold the other end of our pipe: it ends when the last of them does.
        _, log = workers.process.communicate(timeout=20)
    assert log.decode().count("the supervisor is gone: stopping") == 2


def test_what_is_under_way_is_received_although_the_supervisor_was_killed(tmp_path: Path) -> None:
    with working("receive", tmp_path) as workers:
        with storing(workers.address) as (source, outcome):
            workers.process.kill()
            workers.line("the supervisor is gone: stopping")
            source.go_on.set()
        workers.process.communicate(timeout=20)
    assert outcome == [0]
    assert files(tmp_path) == {"1.2.3.dcm"}


# Wrong usage.


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with working("receive", tmp_path) as workers:
        result = run("receive", tmp_path, "--listen", workers.address, "--workers", 2)
        stop(workers.process)
    assert (result.status, result.error) == (
        2,
        f"asyncdicom receive: cannot listen on {workers.address}: address already in use",
    )


@pytest.mark.parametrize("command", ["receive", "archive"])
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    result = run(command, tmp_path / "file", "--workers", 2)
    assert result.status == 2
    assert result.error.startswith(f"asyncdicom {command}: cannot ")


def test_fewer_associations_than_workers_are_wrong_usage(tmp_path: Path) -> None:
    result = run("receive", tmp_path, "--workers", 3, "--max-associations", 2)
    assert (result.status, result.error) == (
        2,
        "asyncdicom receive: --max-associations 2 leaves none for some of 3 workers",
    )


def test_no_number_of_workers_is_wrong_usage(tmp_path: Path) -> None:
    result = run("receive", tmp_path, "--workers", 0)
    assert result.status == 2
    assert "argument --workers: '0' is not a number of at least 1" in result.error


def test_a_system_that_cannot_hand_connections_over_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    options = argparse.Namespace(workers=2, max_associations=1000)
    check(options)
    monkeypatch.delattr(socket, "send_fds")
    with pytest.raises(CommandError, match="--workers needs a system that hands connections") as raised:
        check(options)
    assert raised.value.status is Exit.USAGE


# Several processes and the same instances.


@pytest.mark.parametrize("policy", ["refuse", "keep", "replace"])
def test_the_same_instance_from_many_peers_at_once_is_one_whole_instance(tmp_path: Path, policy: str) -> None:
    contents = [_content(number) for number in range(4)]
    statuses: dict[int, list[int]] = {number: [] for number in range(4)}

    async def store(address: str, number: int, start: anyio.Event, ready: list[int]) -> None:
        async with asyncdicom.connect(address, contexts=[sop.RAW_DATA_STORAGE]) as association:
            ready.append(number)
            if len(ready) == len(contents):
                start.set()
            await start.wait()
            for one in range(25):
                sent = asyncdicom.Instance.from_bytes(
                    contents[number], sop.RAW_DATA_STORAGE, f"1.2.{one + 1}", sop.EXPLICIT_VR_LITTLE_ENDIAN
                )
                statuses[number].append((await association.store(sent, check=False)).status)

    async def store_all(address: str) -> None:
        start, ready = anyio.Event(), list[int]()
        async with anyio.create_task_group() as tasks:
            for number in range(len(contents)):
                tasks.start_soon(store, address, number, start, ready)

    with started("receive", tmp_path, "--listen", LISTEN, "--workers", 2, "--on-duplicate", policy) as process:
        anyio.run(store_all, wait_for_line(process).removeprefix("listening on "))
        _, err = stop(process)
    assert err == ""
    assert files(tmp_path) == {f"1.2.{one + 1}.dcm" for one in range(25)}
    for one in range(25):
        data = data_set_of(tmp_path / f"1.2.{one + 1}.dcm")
        answers = [statuses[number][one] for number in range(4)]
        if policy == "refuse":
            assert sorted(answers) == [0, 0x111, 0x111, 0x111]
            assert data == contents[answers.index(0)]
        else:
            assert answers == [0, 0, 0, 0]
            assert data in contents


def _content(number: int) -> bytes:
    head = b"\x08\x00\x16\x00UI\x1a\x00" + sop.RAW_DATA_STORAGE.encode().ljust(26, b"\0")
    return head + b"\x10\x00\x20\x00LO\x02\x00" + str(number).encode() + b" "
