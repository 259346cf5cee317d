from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from pydicom import Dataset

import asyncdicom
from asyncdicom import FindRequest, sop

from ..interop.material import Archive
from .program import run, run_on_terminal, serving, started


def finding(*matches: Dataset | tuple[int, Dataset | None], model: str = sop.STUDY_ROOT_FIND) -> asyncdicom.Services:
    """Return the services of an SCP that always finds the same."""
    services = asyncdicom.Services()

    @services.find(model)
    async def find(request: FindRequest) -> AsyncIterator[Any]:
        for match in matches:
            yield match

    return services


def match(**values: Any) -> Dataset:
    data_set = Dataset()
    data_set.QueryRetrieveLevel = "STUDY"
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return data_set


def test_in_a_pipe_each_match_is_a_line_of_values(address: str) -> None:
    lines = run("find", address, "-k", "PatientName=Doe^A*", "-k", "StudyID", "-k", "StudyInstanceUID").check().out
    header, *rows = [line.split("\t") for line in lines.splitlines()]
    assert header == ["PatientName", "StudyID", "StudyInstanceUID"]
    assert rows
    assert {row[0] for row in rows} == {"Doe^Archibald"}
    assert all(row[2].startswith("1.3.6.1.4.1.5962.1.1.0.0.0.") for row in rows)


def test_json_is_a_line_of_dicom_json_for_each_match(address: str) -> None:
    out = (
        run("find", address, "--level", "patient", "-k", "PatientID=77654033", "-k", "PatientName", "--json")
        .check()
        .out
    )
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["00100020"] == {"vr": "LO", "Value": ["77654033"]}
    assert found["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Doe^Archibald"}]}


@pytest.mark.parametrize("level", ["patient", "study", "series", "image"])
def test_every_level_has_its_usual_keys(address: str, level: str) -> None:
    lines = run("find", address, "--level", level).check().out.splitlines()
    assert len(lines) > 2


def test_no_match_is_status_0_and_no_output(address: str) -> None:
    assert run("find", address, "-k", "PatientID=nobody").check().out == ""


def test_limit_cancels_and_releases(archive: Archive) -> None:
    with serving(archive.services()) as (address, log):
        lines = run("find", address, "--level", "image", "--limit", 2, "-k", "SOPInstanceUID").check().out.splitlines()
    assert len(lines) == 3
    assert log.has("released")


def test_nested_keys_are_asked_for_and_shown() -> None:
    item = Dataset()
    item.Modality = "CT"
    with serving(finding(match(ScheduledProcedureStepSequence=[item], StudyInstanceUID="1.2"))) as (address, _):
        out = run("find", address, "-k", "ScheduledProcedureStepSequence[0].Modality").check().out
    assert out == "ScheduledProcedureStepSequence[0].Modality\tStudyInstanceUID\nCT\t1.2\n"


def test_the_identifier_is_what_the_keys_say() -> None:
    seen: list[Dataset] = []
    services = asyncdicom.Services()

    @services.find(sop.PATIENT_ROOT_FIND)
    async def find(request: FindRequest) -> AsyncIterator[Dataset]:
        seen.append(request.identifier)
        return
        yield

    with serving(services) as (address, _):
        keys = ["-k", "PatientID=1", "-k", "0020,000D", "-k", "RequestAttributesSequence[0].StudyID=Ü"]
        run("find", address, "--model", "patient", "--level", "study", *keys).check()
    (identifier,) = seen
    assert identifier.QueryRetrieveLevel == "STUDY"
    assert identifier.PatientID == "1"
    assert identifier.StudyInstanceUID == ""
    assert identifier.RequestAttributesSequence[0].StudyID == "Ü"
    assert identifier.SpecificCharacterSet == "ISO_IR 192"


def test_values_that_would_drive_a_terminal_are_escaped() -> None:
    name = "\x1b[2J\x1b]0;pwned\x07^\x9b"
    with serving(finding(match(PatientName=name, StudyInstanceUID="1.2"))) as (address, _):
        text = run("find", address, "-k", "PatientName").check().out
        line = run("find", address, "-k", "PatientName", "--json").check().out
        table = run_on_terminal("find", address, "-k", "PatientName").out
    assert "\\x1b[2J" in text
    for output in (text, line):
        assert output.replace("\n", "").replace("\t", "").isprintable()
    assert "\x1b[2J" not in table
    assert "pwned" in table
    assert "\x07" not in table
    assert json.loads(line)["00100010"]["Value"][0]["Alphabetic"].startswith("\x1b[2J")


@pytest.mark.parametrize(
    ("final", "status", "expected"),
    [
        ((0xA900, None), 1, "status 0xa900 ("),
        ((0xC001, None), 1, "status 0xc001 ("),
        ((0xFE00, None), 1, "status 0xfe00 ("),
        ((0xB001, None), 1, "the query ended with a warning: status 0xb001 ("),
    ],
)
def test_a_final_status_that_is_no_success_is_status_1(
    final: tuple[int, Dataset | None], status: int, expected: str
) -> None:
    with serving(finding(match(StudyInstanceUID="1.2"), final)) as (address, log):
        result = run("find", address, "-k", "StudyInstanceUID")
    assert result.status == status
    assert result.error.startswith(f"asyncdicom find: {expected}")
    assert result.out.endswith("\n1.2\n")
    assert log.has("released")


def test_a_model_that_the_peer_lacks_is_status_1() -> None:
    with serving(asyncdicom.Services()) as (address, log):
        result = run("find", address)
    assert result.status == 1
    assert result.error.startswith("asyncdicom find: Study Root Query/Retrieve Information Model - FIND was proposed")
    assert log.has("released")


def test_a_response_that_cannot_be_decoded_is_one_line() -> None:
    services = asyncdicom.Services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: FindRequest) -> AsyncIterator[bytes]:
        yield b"\x10\x00\x10\x00PN\xff\xff"

    with serving(services) as (address, _):
        result = run("find", address)
    assert result.status == 1
    assert result.error.startswith("asyncdicom find: ")


def test_an_association_that_is_lost_in_the_middle_is_status_1() -> None:
    services = asyncdicom.Services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: FindRequest) -> AsyncIterator[Dataset]:
        yield match(StudyInstanceUID="1.2")
        await request.association.abort()
        yield match(StudyInstanceUID="1.3")

    with serving(services) as (address, _):
        result = run("find", address, "-k", "StudyInstanceUID")
    assert result.status == 1
    assert "aborted" in result.error
    assert "1.2\n" in result.out


# A person at a terminal.


def test_on_a_terminal_there_is_a_table(address: str) -> None:
    result = run_on_terminal("find", address, "-k", "PatientID=98890234", columns=180)
    assert result.status == 0
    assert "Patient" in result.out
    assert "Description" in result.out
    assert " matches in " in result.out
    assert "\t" not in result.out


def test_a_table_does_not_repeat_what_was_asked_for(address: str) -> None:
    study = "1.3.6.1.4.1.5962.1.1.0.0.0.1196533885.18148.0.133"
    result = run_on_terminal(
        "find", address, "--level", "series", "-k", f"StudyInstanceUID={study}", "-k", "Modality=M*"
    )
    assert result.status == 0
    assert "Modality" in result.out
    assert study not in result.out


def test_a_narrow_terminal_still_shows_whole_uids(archive: Archive, address: str) -> None:
    result = run_on_terminal("find", address, "-k", "PatientID=98890234", columns=60)
    uids = {header.StudyInstanceUID for header in archive.headers.values() if header.PatientID == "98890234"}
    assert uids
    for uid in uids:
        assert f"  {uid}\x1b" in result.out
    assert "…" in result.out


def test_on_a_dumb_terminal_nothing_moves(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.cli.program._environment", lambda **more: {**os.environ, "TERM": "dumb", **more})
    result = run_on_terminal("find", address, "-k", "PatientID=98890234")
    assert result.status == 0
    assert "\x1b" not in result.out


# Interruptions.


class Waiting:
    """A C-FIND SCP that finds something, and then nothing for a long time."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.cancelled = threading.Event()
        self.waiting = threading.Event()
        self._stubborn = stubborn

    def services(self) -> asyncdicom.Services:
        services = asyncdicom.Services()

        @services.find(sop.STUDY_ROOT_FIND)
        async def find(request: FindRequest) -> AsyncIterator[Dataset]:
            yield match(StudyInstanceUID="1.2")
            self.waiting.set()
            try:
                await anyio.sleep(60)
            finally:
                self.cancelled.set()
                if self._stubborn:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(3)

        return services


def test_ctrl_c_cancels_and_releases() -> None:
    scp = Waiting()
    with serving(scp.services()) as (address, log), started("find", address, "-k", "StudyInstanceUID") as process:
        assert scp.waiting.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert scp.cancelled.wait(5)
    assert process.returncode == 130
    assert err == b""
    # The first match may or may not have come before the interruption.
    assert not out or out.decode().endswith("\n1.2\n")
    assert log.has("released")


def test_sigterm_does_the_same() -> None:
    scp = Waiting()
    with serving(scp.services()) as (address, log), started("find", address, "-k", "StudyInstanceUID") as process:
        assert scp.waiting.wait(20)
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 143
    assert log.has("released")


def test_ctrl_c_again_aborts_at_once() -> None:
    scp = Waiting(stubborn=True)
    with serving(scp.services()) as (address, log), started("find", address, "-k", "StudyInstanceUID") as process:
        assert scp.waiting.wait(20)
        process.send_signal(signal.SIGINT)
        assert scp.cancelled.wait(20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=2.5)
    assert process.returncode == 130
    assert err == b""
    assert not log.has("released")
    assert log.has("ended: association aborted")


def test_ctrl_c_on_a_terminal_shows_what_has_come() -> None:
    scp = Waiting()
    with serving(scp.services()) as (address, log):
        result = run_on_terminal("find", address, "-k", "StudyInstanceUID", interrupt=scp.waiting)
    assert result.status == 130
    assert "1.2" in result.out
    assert "1 match in " in result.out
    assert log.has("released")


def test_ctrl_c_while_connecting_is_status_130() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        started("find", f"X@127.0.0.1:{sock.getsockname()[1]}") as process,
    ):
        connection, _ = sock.accept()
        with connection:
            connection.recv(1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


def test_a_reader_that_has_seen_enough_cancels_the_query() -> None:
    scp = Waiting()
    services = scp.services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: FindRequest) -> AsyncIterator[Dataset]:
        try:
            for number in range(1_000_000):
                yield match(StudyInstanceUID=f"1.2.{number}")
        finally:
            scp.cancelled.set()

    with serving(services) as (address, log), started("find", address, "-k", "StudyInstanceUID") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"StudyInstanceUID\n"
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert scp.cancelled.wait(5)
    assert log.has("released")


def test_a_full_disk_behind_stdout_is_one_line(address: str) -> None:
    with open("/dev/full", "w") as full, started("find", address, stdout=full) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == b"asyncdicom find: no space left on device\n"


def test_output_of_another_encoding_is_escaped_not_lost() -> None:
    with serving(finding(match(SpecificCharacterSet="ISO_IR 192", PatientName="山田^太郎"))) as (address, _):
        done = subprocess.run(
            [sys.executable, "-m", "asyncdicom", "find", str(address), "-k", "PatientName"],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            timeout=60,
        )
    assert done.returncode == 0
    assert b"\\u5c71\\u7530^" in done.stdout
