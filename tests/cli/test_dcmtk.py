"""The commands against DCMTK: its servers, and its clients against ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import TEST_FILES
from ..interop import peers
from ..interop.conftest import dcmtk
from ..interop.material import Sample, data_set_of, sample, study
from .program import run
from .test_receive import files, receiving, stop

__all__ = ["dcmtk"]

pytestmark = [pytest.mark.interop, peers.requires_dcmtk]

PATIENT = "98890234"


def address(server: peers.DcmtkServer) -> str:
    return f"DCMTK@127.0.0.1:{server.port}"


@pytest.fixture
def storescp(tmp_path: Path, dcmtk: None) -> Iterator[peers.DcmtkServer]:
    with peers.start_dcmtk("storescp", tmp_path / "storescp", "+xa", "+B") as server:
        yield server


def test_storescp_takes_files_as_they_are(storescp: peers.DcmtkServer) -> None:
    out = run("store", address(storescp), TEST_FILES / "dicomdirtests").check().out
    assert out.startswith("sent 81 instances, ")
    storescp.check()
    kept = {data_set_of(path) for path in storescp.files()}
    assert {item.on_the_wire for item in study()} <= kept


def test_storescp_that_knows_the_default_syntax_only_gets_converted_instances(tmp_path: Path, dcmtk: None) -> None:
    with peers.start_dcmtk("storescp", tmp_path / "storescp", "+xi") as server:
        run("echo", address(server)).check()
        run("store", address(server), sample("CT_small.dcm").path, sample("MR_small_bigendian.dcm").path).check()
        compressed = run("store", address(server), sample("JPEG2000.dcm").path)
        server.check()
        assert len(server.files()) == 2
    assert compressed.status == 1
    assert "not accepted" in compressed.error


@pytest.fixture
def dcmqrscp(tmp_path: Path, dcmtk: None) -> Iterator[tuple[peers.DcmtkServer, str, Path]]:
    """Run dcmqrscp with a study, and our receiver that it can move to; gives both addresses' owners."""
    folder = tmp_path / "received"
    with receiving(folder) as (listening, process):
        port = int(listening.rpartition(":")[2])
        config = peers.dcmqrscp_config(tmp_path / "database", {"STORE": port})
        with peers.start_dcmtk("dcmqrscp", tmp_path / "dcmqrscp", config=config) as server:
            run("store", address(server), *(item.path for item in study())).check()
            server.mark()
            yield server, "STORE", folder
        stop(process)


def of_patient() -> dict[str, Sample]:
    return {item.sop_instance_uid: item for item in study() if str(item.header().PatientID) == PATIENT}


def test_dcmqrscp_is_queried_retrieved_from_and_moved_from(
    dcmqrscp: tuple[peers.DcmtkServer, str, Path], tmp_path: Path
) -> None:
    server, destination, received = dcmqrscp
    where = address(server)
    lines = run("find", where, "-k", f"PatientID={PATIENT}").check().out.splitlines()
    assert len(lines) == 1 + len({str(item.header().StudyInstanceUID) for item in of_patient().values()})
    run("get", where, "-k", f"PatientID={PATIENT}", "-o", tmp_path / "got").check()
    out = run("move", where, "-k", f"PatientID={PATIENT}", "--to", destination).check().out
    assert out.startswith(f"moved {len(of_patient())} instances to STORE in ")
    expected = {f"{uid}.dcm" for uid in of_patient()}
    # What dcmqrscp sends it has decoded and encoded again, so the bytes are its own.
    assert files(tmp_path / "got") == files(received) == expected


def test_dcmqrscp_is_cancelled_by_a_limit(dcmqrscp: tuple[peers.DcmtkServer, str, Path]) -> None:
    server, _, _ = dcmqrscp
    lines = run("find", address(server), "--level", "study", "--limit", 1).check().out.splitlines()
    assert len(lines) == 2


def test_dcmqrscp_does_not_know_a_destination(dcmqrscp: tuple[peers.DcmtkServer, str, Path]) -> None:
    server, _, _ = dcmqrscp
    result = run("move", address(server), "-k", f"PatientID={PATIENT}", "--to", "NOBODY")
    assert result.status == 1
    assert result.error.startswith("asyncdicom move: status 0xa801 (")


@pytest.mark.anyio
async def test_receive_takes_what_storescu_and_dcmsend_send(tmp_path: Path, dcmtk: None) -> None:
    with receiving(tmp_path / "in") as (listening, process):
        host, _, port = listening.partition("@")[2].rpartition(":")
        paths = [item.path for item in study()]
        (await peers.run("storescu", "-R", host, port, *paths)).check()
        (await peers.run("dcmsend", "-nuc", host, port, sample("JPEG2000.dcm").path)).check()
        (await peers.run("echoscu", host, port)).check()
        stop(process)
    expected = {f"{item.sop_instance_uid}.dcm" for item in (*study(), sample("JPEG2000.dcm"))}
    assert files(tmp_path / "in") == expected
