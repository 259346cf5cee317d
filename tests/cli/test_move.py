from __future__ import annotations

import re
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from asyncdicom import RetrieveRequest, Services, sop

from ..interop.material import Archive
from .program import run, run_on_terminal, serving, started
from .test_get import PATIENT, of_patient
from .test_store import Receiver


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def destination(receiver: Receiver) -> Iterator[str]:
    with serving(receiver.services, "DEST") as (address, _):
        yield str(address)


def moving(services: Services, destination: str) -> Any:
    return serving(services, peers={"DEST": destination, "GONE": "GONE@127.0.0.1:1"})


def test_instances_go_to_the_destination(archive: Archive, receiver: Receiver, destination: str) -> None:
    uids = of_patient(archive)
    with moving(archive.services(), destination) as (address, log):
        out = run("move", address, "--to", "DEST", "-k", f"PatientID={PATIENT}").check().out
    assert out.startswith(f"moved {len(uids)} instances to DEST in ")
    assert receiver.data == {uid: archive.data[uid] for uid in uids}
    assert log.has("released")


def test_an_unknown_destination_is_status_1(archive: Archive, destination: str) -> None:
    with moving(archive.services(), destination) as (address, _):
        result = run("move", address, "--to", "NOBODY", "-k", f"PatientID={PATIENT}")
    assert (result.status, result.out) == (1, "")
    assert result.error.startswith("asyncdicom move: status 0xa801 (")


def test_a_destination_that_cannot_be_reached_is_status_1_and_lists_what_failed(
    archive: Archive, destination: str
) -> None:
    with moving(archive.services(), destination) as (address, _):
        result = run("move", address, "--to", "GONE", "-k", f"PatientID={PATIENT}")
    lines = result.err.splitlines()
    assert result.status == 1
    assert lines[-1].startswith("asyncdicom move: status 0xa702 (")
    assert sorted(lines[:-1]) == sorted(
        f"asyncdicom move: {uid}: the peer could not send it" for uid in of_patient(archive)
    )
    assert result.out.startswith("moved 0 instances (24 failed) to GONE")


def test_what_the_destination_refuses_is_listed(archive: Archive) -> None:
    refused = sorted(of_patient(archive))[:2]
    receiver = Receiver(lambda request, _: 0xA700 if request.sop_instance_uid in refused else None)
    with (
        serving(receiver.services, "DEST") as (destination, _),
        moving(archive.services(), str(destination)) as (address, _),
    ):
        result = run("move", address, "--to", "DEST", "-k", f"PatientID={PATIENT}")
    assert result.status == 1
    *uids, last = result.err.splitlines()
    assert uids == [f"asyncdicom move: {uid}: the peer could not send it" for uid in refused]
    assert last.startswith("asyncdicom move: status 0xb000 (")
    assert result.out.startswith("moved 22 instances (2 failed) to DEST")


def test_a_destination_is_required_and_an_ae_title() -> None:
    assert run("move", "X@h:1", "-k", "PatientID=1").status == 2
    result = run("move", "X@h:1", "--to", "much too long a title", "-k", "PatientID=1")
    assert result.status == 2
    assert "is not an AE title" in result.error


def slow(archive: Archive, begun: threading.Event) -> Services:
    services = archive.services()

    @services.retrieve(*sop.MOVE)
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        headers = archive.matching(request.identifier)
        request.total = len(headers)
        for number, header in enumerate(headers):
            if number == 3:
                begun.set()
                await anyio.sleep(60)
            yield archive.instances[str(header.SOPInstanceUID)]

    return services


def test_ctrl_c_cancels_and_says_how_far_it_was(archive: Archive, receiver: Receiver, destination: str) -> None:
    begun = threading.Event()
    with (
        moving(slow(archive, begun), destination) as (address, log),
        started("move", address, "--to", "DEST", "-k", f"PatientID={PATIENT}") as process,
    ):
        assert begun.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == b""
    assert re.match(rb"moved [0-3] instances? \(2[1-4] left\) to DEST in ", out)
    assert log.has("released")


def test_on_a_terminal_progress_is_drawn(archive: Archive, destination: str) -> None:
    with moving(archive.services(), destination) as (address, _):
        result = run_on_terminal("move", address, "--to", "DEST", "-k", f"PatientID={PATIENT}")
    assert result.status == 0
    assert "moving to DEST" in result.out
    assert "moved 24 instances to DEST" in result.out
