from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncdicom
from asyncdicom import RetrieveRequest, Services, sop

from ..interop.material import Archive, Sample, data_set_of, sample, study
from ..interop.peers import free_port
from .program import run, run_on_terminal, serving, started

PATIENT = "98890234"


def of_patient(archive: Archive) -> set[str]:
    return {uid for uid, header in archive.headers.items() if header.PatientID == PATIENT}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def check(folder: Path, archive: Archive, uids: set[str], *, but: str = "") -> None:
    """Check that the folder holds these instances as they were stored, and nothing else."""
    assert files(folder) - {but} == {f"{uid}.dcm" for uid in uids}
    for uid in uids:
        assert data_set_of(folder / f"{uid}.dcm") == archive.data[uid]


def test_a_patient_is_retrieved_byte_for_byte(archive: Archive, address: str, tmp_path: Path) -> None:
    uids = of_patient(archive)
    out = run("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path).check().out
    assert out.startswith(f"retrieved {len(uids)} instances, ")
    assert out.endswith(f" into {tmp_path}\n")
    check(tmp_path, archive, uids)


@pytest.mark.parametrize("level", ["study", "series", "image"])
def test_every_level_can_be_retrieved(archive: Archive, address: str, tmp_path: Path, level: str) -> None:
    header = next(iter(archive.headers.values()))
    keywords = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    keywords = keywords[: ["study", "series", "image"].index(level) + 1]
    keys = [argument for keyword in keywords for argument in ("-k", f"{keyword}={header.get(keyword)}")]
    run("get", address, *keys, "-o", tmp_path / "new" / "folder").check()
    wanted = {
        uid
        for uid, other in archive.headers.items()
        if all(other.get(keyword) == header.get(keyword) for keyword in keywords)
    }
    check(tmp_path / "new" / "folder", archive, wanted)


def test_what_is_there_already_stays_and_is_counted(archive: Archive, address: str, tmp_path: Path) -> None:
    uids = of_patient(archive)
    run("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path).check()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    out = run("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path).check().out
    assert out == out.partition(" into ")[0] + f" into {tmp_path}; {len(uids)} of them were there already\n"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_another_content_is_not_replaced_unless_told_so(archive: Archive, address: str, tmp_path: Path) -> None:
    uid = next(iter(of_patient(archive)))
    study_uid = archive.headers[uid].StudyInstanceUID
    file = tmp_path / f"{uid}.dcm"
    file.write_text("mine")
    keys = ["-k", f"StudyInstanceUID={study_uid}", "-o", tmp_path]
    result = run("get", address, *keys)
    assert result.status == 1
    assert result.error == f"asyncdicom get: {uid}: {file} is there with another content; see --replace"
    assert "; 1 missing" in result.out
    assert file.read_text() == "mine"
    run("get", address, *keys, "--replace").check()
    assert data_set_of(file) == archive.data[uid]
    assert not [name for name in files(tmp_path) if name.startswith(".")]


def test_a_folder_that_cannot_be_written_to_is_wrong_usage(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with serving(archive.services()) as (address, log):
        for folder, reason in (
            (tmp_path / "file", "not a folder"),
            (Path("/proc/nowhere"), "no such file or directory"),
        ):
            result = run("get", address, "-k", f"PatientID={PATIENT}", "-o", folder)
            assert result.status == 2
            assert result.error == f"asyncdicom get: cannot write into {folder}: {reason}"
        assert not log.has("opened")


def test_nothing_that_matches_is_status_0(address: str, tmp_path: Path) -> None:
    out = run("get", address, "-k", "StudyInstanceUID=1.2.3.4", "-o", tmp_path).check().out
    assert out.startswith("retrieved 0 instances into")


COMPRESSED = ("JPEG2000.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm", "JPGExtended.dcm", "image_dfl.dcm")


def in_one_study(*items: Sample) -> Archive:
    """Return an archive that says of all instances that they are of one study."""
    archive = Archive(items)
    for header in archive.headers.values():
        header.StudyInstanceUID = "1.2.3"
        header.SeriesInstanceUID = "1.2.3.4"
    return archive


def test_compressed_instances_come_as_they_are(tmp_path: Path) -> None:
    items = [sample(name) for name in COMPRESSED]
    archive = in_one_study(*items)
    with serving(archive.services()) as (address, _):
        run("get", address, "-k", "StudyInstanceUID=1.2.3", "-o", tmp_path).check()
    check(tmp_path, archive, set(archive.data))


class Listless(Archive):
    """An archive that cannot be queried."""

    def services(self) -> Services:
        services = Services()
        services.retrieve(*sop.GET)(self._retrieve)
        return services


def test_a_peer_that_cannot_be_queried_is_retrieved_from_all_the_same(tmp_path: Path) -> None:
    items = study()[:3]
    archive = Listless(items)
    for header in archive.headers.values():
        header.StudyInstanceUID = "1.2.3"
    with serving(archive.services()) as (address, _):
        run("get", address, "-k", "StudyInstanceUID=1.2.3", "-o", tmp_path).check()
    check(tmp_path, archive, {item.sop_instance_uid for item in items})


def test_what_did_not_fit_is_asked_for_again_on_another_association(tmp_path: Path) -> None:
    # Nobody says which classes there are, so there are more proposals than an association takes.
    names = ("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm", "CT_small.dcm")
    items = [sample(name) for name in names]
    archive = Listless(items)
    for header in archive.headers.values():
        header.StudyInstanceUID = "1.2.3"
    with serving(archive.services()) as (address, log):
        run("get", address, "-k", "StudyInstanceUID=1.2.3", "-o", tmp_path).check()
    check(tmp_path, archive, set(archive.data))
    assert sum("opened" in line for line in log.lines) > 2


def test_what_cannot_be_had_is_listed(archive: Archive, tmp_path: Path) -> None:
    services = archive.services()
    lost = sorted(of_patient(archive))[:2]

    @services.retrieve(*sop.GET)
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        headers = archive.matching(request.identifier)
        request.total = len(headers)
        for header in headers:
            uid = str(header.SOPInstanceUID)
            if uid in lost:
                yield asyncdicom.Instance.from_file("/nowhere", header.SOPClassUID, uid, "1.2.840.10008.1.2")
            else:
                yield archive.instances[uid]

    with serving(services) as (address, _):
        result = run("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path)
    assert result.status == 1
    assert result.err.splitlines() == [f"asyncdicom get: {uid}: the peer did not send it" for uid in lost]
    assert "; 2 missing\n" in result.out
    check(tmp_path, archive, of_patient(archive) - set(lost))


def test_what_was_found_and_never_sent_is_missing(archive: Archive, tmp_path: Path) -> None:
    services = archive.services()
    first = sorted(of_patient(archive))[0]

    @services.retrieve(*sop.GET)
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        request.total = 1
        yield archive.instances[first]

    with serving(services) as (address, _):
        result = run("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path)
    assert result.status == 1
    assert result.err.count(": the peer did not send it\n") == len(of_patient(archive)) - 1


@pytest.mark.parametrize("status", [0xA701, 0xA900, 0xC001, 0xFE00])
def test_a_failure_is_one_line_and_status_1(archive: Archive, tmp_path: Path, status: int) -> None:
    services = archive.services()

    @services.retrieve(*sop.GET)
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        request.total = 1
        yield (status, None)

    with serving(services) as (address, log):
        result = run("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path)
    assert result.status == 1
    assert result.error.startswith(f"asyncdicom get: status {status:#06x} (")
    assert log.has("released")


class Sender(Archive):
    """An archive that has no C-GET."""

    def services(self) -> Services:
        services = Services()
        services.find(*sop.FIND)(self._find)
        services.move(*sop.MOVE)(self._retrieve)
        return services


def test_a_peer_without_c_get_sends_by_c_move(tmp_path: Path) -> None:
    archive = Sender(study())
    listen = f"HERE@127.0.0.1:{free_port()}"
    with serving(archive.services(), peers={"HERE": listen}) as (address, _):
        run("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path, "--listen", listen).check()
        result = run("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path / "other")
    check(tmp_path, archive, of_patient(archive), but="other")
    assert result.status == 1
    assert "GET was proposed but not accepted" in result.error


def test_a_model_that_the_peer_lacks_is_status_1(tmp_path: Path) -> None:
    with serving(Services()) as (address, _):
        result = run("get", address, "-k", "StudyInstanceUID=1.2.3", "-o", tmp_path)
    assert result.status == 1
    assert "GET was proposed but not accepted" in result.error


def test_a_path_in_place_of_a_uid_writes_nothing(archive: Archive, tmp_path: Path) -> None:
    services = archive.services()
    item = study()[0]

    @services.retrieve(*sop.GET)
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        request.total = 2
        for uid in ("../../evil", "/tmp/evil"):
            yield asyncdicom.Instance.from_bytes(item.data, item.sop_class_uid, uid, item.transfer_syntax_uid)

    folder = tmp_path / "a" / "b"
    with serving(services) as (address, _):
        result = run(
            "get",
            address,
            "-k",
            f"StudyInstanceUID={archive.headers[item.sop_instance_uid].StudyInstanceUID}",
            "-o",
            folder,
        )
    assert result.status == 1
    assert "Traceback" not in result.err
    assert files(folder) == set()
    assert files(tmp_path) == {"a"}


def test_without_bulk_data_files_are_named_as_what_they_are(tmp_path: Path) -> None:
    archive = in_one_study(sample("CT_small.dcm"), sample("MR_small.dcm"))
    with serving(archive.services()) as (address, _):
        run("get", address, "-k", "StudyInstanceUID=1.2.3", "--without-bulk-data", "-o", tmp_path).check()
        assert files(tmp_path) == {f"{uid}.nobulk.dcm" for uid in archive.data}
        for uid in archive.data:
            data = data_set_of(tmp_path / f"{uid}.nobulk.dcm")
            assert b"\xe0\x7f\x10\x00" not in data
            assert len(data) < len(archive.data[uid])
        uid = next(iter(archive.data))
        run("get", address, "-k", f"SOPInstanceUID={uid}", "--without-bulk-data", "-o", tmp_path / "one").check()
        assert files(tmp_path / "one") == {f"{uid}.nobulk.dcm"}


def test_a_full_disk_ends_the_retrieval_with_one_line(archive: Archive, tmp_path: Path) -> None:
    import resource

    with serving(archive.services()) as (address, log):
        result = run(
            "get",
            address,
            "-k",
            f"PatientID={PATIENT}",
            "-o",
            tmp_path,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        )
    assert result.status == 1
    assert result.error.startswith(f"asyncdicom get: cannot write {tmp_path}{os.sep}")
    assert result.error.endswith(".dcm: file too large")
    assert files(tmp_path) == set()
    assert log.has("released")


def slow(archive: Archive, begun: threading.Event) -> Services:
    services = archive.services()

    @services.retrieve(*sop.GET)
    async def retrieve(request: RetrieveRequest) -> AsyncIterator[Any]:
        headers = archive.matching(request.identifier)
        request.total = len(headers)
        for number, header in enumerate(headers):
            if number == 2:
                begun.set()
                await anyio.sleep(60)
            yield archive.instances[str(header.SOPInstanceUID)]

    return services


def test_ctrl_c_cancels_and_keeps_what_has_come(archive: Archive, tmp_path: Path) -> None:
    begun = threading.Event()
    with (
        serving(slow(archive, begun)) as (address, log),
        started("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path) as process,
    ):
        assert begun.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == b""
    assert out.startswith(b"retrieved 2 instances, ")
    assert len(files(tmp_path)) == 2
    assert sum("released" in line for line in log.lines) == 2


def test_on_a_terminal_a_bar_is_drawn(address: str, tmp_path: Path) -> None:
    result = run_on_terminal("get", address, "-k", f"PatientID={PATIENT}", "-o", tmp_path)
    assert result.status == 0
    assert "retrieving" in result.out
    assert "retrieved 24 instances" in result.out
