"""DCMTK's clients against our server; none of them may print a warning about us."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pydicom
import pytest
from pydicom import Dataset

import asyncdicom
from asyncdicom import AssociationRejected, Instance, Limits, Server, Services, StatusError, sop
from asyncdicom._quiet import quiet
from asyncdicom.dataset import decode_data_set

from .conftest import Certificates
from .material import Archive, Sample, data_set_of, sample, samples, study
from .peers import DcmtkServer, Run, free_port, requires_dcmtk, run

pytestmark = [pytest.mark.anyio, pytest.mark.interop, requires_dcmtk]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

ADDRESS = "ARCHIVE@127.0.0.1:0"
PATIENT = "77654033"


@asynccontextmanager
async def serving(services: Services, **options: Any) -> AsyncIterator[int]:
    """Run a server; gives its port."""
    async with Server(services, ADDRESS, **options) as server:
        yield server.addresses[0].port


async def client(
    program: str, port: int, *arguments: object, files: tuple[object, ...] = (), cwd: Path | None = None
) -> Run:
    """Run a DCMTK client against our server."""
    return await run(program, "-v", "-aec", "ARCHIVE", *arguments, "127.0.0.1", port, *files, cwd=cwd)


def kept(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return the data sets of files by SOP Instance UID, which DCMTK names them by, some after a modality."""
    return {re.sub(r"^[A-Za-z]+\.", "", path.name): data_set_of(path) for path in paths}


def kept_in(folder: Path) -> dict[str, bytes]:
    return kept(folder.iterdir())


def about_files(line: str) -> bool:
    """Tell whether a complaint is about the content of a file that DCMTK read, and not about us."""
    return re.match(r"[WE]: (Dcm\w+:|Found element|no pixel data)", line) is not None


def shown(output: str, keyword: str) -> list[str]:
    """Return the values of an attribute in what findscu printed."""
    return [value.strip() for value in re.findall(rf"\[([^\]]*)\] +#.*\b{keyword}$", output, re.MULTILINE)]


# C-ECHO.


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--repeat", 25),
        ("-pdu", 4096),
        ("-pdu", 131072),
        ("-pts", 38, "-ppc", 128),
        ("--abort",),
    ],
    ids=lambda options: " ".join(map(str, options)) or "plain",
)
async def test_echoscu_is_answered(options: tuple[object, ...]) -> None:
    async with serving(Services()) as port:
        ran = await client("echoscu", port, *options)
    ran.check()
    assert "Received Echo Response (Success)" in ran.output


# C-STORE.

#: Files that storescu itself cannot read.
UNREADABLE = r"truncated|^SC_rgb_jpeg\.dcm|rtdose_rle"

#: storescu's option to propose a transfer syntax, and the transfer syntax.
PROPOSALS = [
    ("-xe", sop.EXPLICIT_VR_LITTLE_ENDIAN),
    ("-xb", sop.EXPLICIT_VR_BIG_ENDIAN),
    ("-xi", sop.IMPLICIT_VR_LITTLE_ENDIAN),
    ("-xd", sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    ("-xy", sop.JPEG_BASELINE_8BIT),
    ("-xx", sop.JPEG_EXTENDED_12BIT),
    ("-xs", sop.JPEG_LOSSLESS_SV1),
    ("-xt", sop.JPEG_LS_LOSSLESS),
    ("-xu", sop.JPEG_LS_NEAR_LOSSLESS),
    ("-xv", sop.JPEG_2000_LOSSLESS),
    ("-xw", sop.JPEG_2000),
    ("-xr", sop.RLE_LOSSLESS),
]


@pytest.mark.parametrize(("option", "syntax"), PROPOSALS, ids=[syntax.keyword for _, syntax in PROPOSALS])
async def test_storescu_stores_each_transfer_syntax(option: str, syntax: str) -> None:
    chosen = {
        item.sop_instance_uid: item
        for item in samples()
        if item.transfer_syntax_uid == syntax and not re.search(UNREADABLE, item.name)
    }
    archive = Archive()
    async with serving(archive.services()) as port:
        ran = await client("storescu", port, "-R", option, files=tuple(item.path for item in chosen.values()))
    assert ran.returncode == 0, ran.output
    assert [line for line in ran.complaints if not about_files(line)] == [], ran.output
    assert ran.output.count("Received Store Response (Success)") == len(chosen)
    for uid, item in chosen.items():
        assert archive.instances[uid].transfer_syntax_uid == syntax
        assert_same_instance(archive.data[uid], item)


def assert_same_instance(data: bytes, item: Sample, syntax: str | None = None) -> None:
    """Compare a data set that was encoded anew, perhaps in another transfer syntax, with a file."""
    with quiet():
        theirs = decode_data_set(data, syntax or item.transfer_syntax_uid)
        ours = pydicom.dcmread(item.path)
        for element in ours:
            if element.tag.element and element.keyword not in ("DataSetTrailingPadding", "PixelData", ""):
                assert str(theirs.get(element.tag)) == str(element), item.name
        if "PixelData" in ours and item.transfer_syntax_uid in (
            sop.EXPLICIT_VR_LITTLE_ENDIAN,
            sop.IMPLICIT_VR_LITTLE_ENDIAN,
        ):
            assert theirs.PixelData.rstrip(b"\0") == ours.PixelData.rstrip(b"\0")


@on_asyncio
async def test_dcmsend_sends_a_whole_folder(test_files: Path) -> None:
    archive = Archive()
    async with serving(archive.services()) as port:
        ran = await client("dcmsend", port, "-nuc", "-nh", "+sd", "+r", files=(test_files,))
    summary = dict(re.findall(r"^I: (?:- |  \* )?(.*?) *: (\d+)$", ran.output, re.MULTILINE))
    # Two files lack a SOP class in their data set; dcmsend sends them on a context of another class.
    assert (summary["sent to the peer"], summary["with status SUCCESS"]) == ("146", "144"), ran.output
    assert summary["with status REFUSED"] == "2"
    assert len(archive.requests) == 144


@on_asyncio
@pytest.mark.parametrize("send_pdu", [4096, 16384, 131072])
@pytest.mark.parametrize("maximum_length", [4096, 16384, 0])
async def test_storescu_fits_its_pdus_to_our_maximum(send_pdu: int, maximum_length: int) -> None:
    item = sample("waveform_ecg.dcm")
    archive = Archive()
    async with serving(archive.services(), maximum_length=maximum_length) as port:
        ran = await client("storescu", port, "--max-send-pdu", send_pdu, "-R", files=(item.path,))
    ran.check()
    assert len(archive.data[item.sop_instance_uid]) > 280_000


#: What our handler answers, and how DCMTK names it.
STORE_STATUSES = [
    (0x0000, "Success"),
    (0xB000, "Warning: CoercionOfDataElements"),
    (0xB006, "Warning: ElementsDiscarded"),
    (0xB007, "Warning: DataSetDoesNotMatchSOPClass"),
    (0xA700, "Refused: OutOfResources"),
    (0xA900, "Error: DataSetDoesNotMatchSOPClass"),
    (0xC000, "Error: CannotUnderstand"),
    (0x0111, "Unknown Status: 0x111"),
    (0x0117, "Unknown Status: 0x117"),
    (0x0122, "Refused: SOPClassNotSupported"),
    (0x0124, "Unknown Status: 0x124"),
]


@on_asyncio
@pytest.mark.parametrize(("status", "text"), STORE_STATUSES, ids=[f"{code:04X}" for code, _ in STORE_STATUSES])
async def test_storescu_understands_our_statuses(status: int, text: str) -> None:
    services = Services()

    @services.store("*")
    async def store(request: asyncdicom.StoreRequest) -> int:
        await request.read()
        return status

    async with serving(services) as port:
        ran = await client("storescu", port, "-R", files=(sample("MR_small.dcm").path,))
    assert re.search(rf"Received Store Response \(.*{text}", ran.output), ran.output


@on_asyncio
async def test_storescu_converts_for_a_server_that_takes_implicit_vr_only() -> None:
    archive = Archive()
    services = Services()
    services.store("*", transfer_syntaxes=[sop.IMPLICIT_VR_LITTLE_ENDIAN])(archive._store)
    item = sample("MR_small.dcm")
    async with serving(services) as port:
        ran = await client("storescu", port, "+C", files=(item.path,))
    ran.check()
    assert archive.instances[item.sop_instance_uid].transfer_syntax_uid == sop.IMPLICIT_VR_LITTLE_ENDIAN


async def test_several_clients_store_at_once() -> None:
    archive = Archive()
    path = sample("waveform_ecg.dcm").path
    async with serving(archive.services()) as port:
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                (await client("storescu", port, "-R", "+II", "--repeat", 3, files=(path,))).check()

            for _ in range(6):
                tasks.start_soon(send)
    assert len(archive.requests) == 18


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only where acknowledgements can be hurried")
async def test_storescu_does_not_wait_for_our_acknowledgements() -> None:
    # It writes each PDU in two parts with Nagle's algorithm on: each of 400 files would cost a delayed ACK of 40 ms, so
    # 16 s in all.
    archive = Archive()
    async with serving(archive.services()) as port:
        start = time.perf_counter()
        (await client("storescu", port, "-R", files=(sample("MR_small.dcm").path,) * 400)).check()
        seconds = time.perf_counter() - start
    assert len(archive.requests) == 400
    assert seconds < 12


@on_asyncio
async def test_a_client_that_aborts_is_no_failure_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    archive = Archive()
    async with serving(archive.services()) as port:
        (await client("storescu", port, "-R", "--abort", files=(sample("MR_small.dcm").path,))).check()
    assert len(archive.data) == 1
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


# C-FIND.

#: An option for the model, keys, and the attribute that is compared with the expected values.
QUERIES: list[tuple[str, list[str], str, int]] = [
    ("-P", ["QueryRetrieveLevel=PATIENT", "PatientID", "PatientName"], "PatientID", 2),
    ("-P", ["QueryRetrieveLevel=PATIENT", "PatientID", "PatientName=Doe^P*"], "PatientID", 1),
    ("-P", ["QueryRetrieveLevel=STUDY", f"PatientID={PATIENT}", "StudyInstanceUID"], "StudyInstanceUID", 2),
    ("-S", ["QueryRetrieveLevel=STUDY", "StudyInstanceUID", "StudyDate"], "StudyInstanceUID", 6),
    ("-S", ["QueryRetrieveLevel=SERIES", f"PatientID={PATIENT}", "SeriesInstanceUID"], "SeriesInstanceUID", 4),
    ("-S", ["QueryRetrieveLevel=IMAGE", f"PatientID={PATIENT}", "SOPInstanceUID"], "SOPInstanceUID", 7),
    ("-S", ["QueryRetrieveLevel=IMAGE", "PatientID=none", "SOPInstanceUID"], "SOPInstanceUID", 0),
    ("-O", ["QueryRetrieveLevel=PATIENT", "PatientID"], "PatientID", 2),
]


def keys(*given: str) -> list[str]:
    return [argument for key in given for argument in ("-k", key)]


@pytest.mark.parametrize(("model", "query", "keyword", "count"), QUERIES, ids=[f"{q[0]} {q[1][0]}" for q in QUERIES])
async def test_findscu_finds(model: str, query: list[str], keyword: str, count: int) -> None:
    async with serving(Archive(study()).services()) as port:
        ran = await client("findscu", port, model, *keys(*query))
    ran.check()
    responses = ran.output.partition("Find Response: 1 ")[2]
    assert len(set(shown(responses, keyword))) == count
    assert ran.output.count("(Pending)") == count
    assert "Received Final Find Response (Success)" in ran.output


@on_asyncio
@pytest.mark.parametrize("option", ["-xe", "-xb", "-xi", "-xd"])
async def test_findscu_finds_in_each_native_transfer_syntax(option: str) -> None:
    async with serving(Archive(study()).services()) as port:
        ran = await client("findscu", port, "-S", option, *keys("QueryRetrieveLevel=STUDY", "StudyInstanceUID"))
    ran.check()
    assert ran.output.count("(Pending)") == 6


@on_asyncio
async def test_findscu_extracts_our_matches(tmp_path: Path) -> None:
    async with serving(Archive(study()).services()) as port:
        query = keys("QueryRetrieveLevel=IMAGE", f"PatientID={PATIENT}", "SOPInstanceUID")
        ran = await client("findscu", port, "-S", "-X", "-od", tmp_path, *query)
    ran.check()
    assert extracted(tmp_path) == {str(item.sop_instance_uid) for item in study() if item.header().PatientID == PATIENT}


def extracted(folder: Path) -> set[str]:
    return {str(pydicom.dcmread(path, force=True).SOPInstanceUID) for path in folder.iterdir()}


@pytest.mark.parametrize("after", [1, 3])
async def test_findscu_cancels(after: int) -> None:
    services = Services()
    closed = []

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[Dataset]:
        try:
            for number in range(10_000):
                match = Dataset()
                match.PatientID = str(number)
                yield match
                await anyio.lowlevel.checkpoint()
            await anyio.sleep_forever()
        finally:
            closed.append(request.cancelled)

    async with serving(services) as port:
        query = keys("QueryRetrieveLevel=STUDY", "PatientID")
        ran = await client("findscu", port, "-S", "--cancel", after, *query)
    ran.check()
    assert "Received Final Find Response (Cancel" in ran.output
    assert closed == [True]


#: What a C-FIND handler raises, and how DCMTK names the answer.
FIND_FAILURES: list[tuple[Exception, str]] = [
    (StatusError(0xA700, "no memory"), "Refused: OutOfResources"),
    (StatusError(0xA900, "the level is missing"), "Error: DataSetDoesNotMatchSOPClass"),
    (StatusError(0xC001), "Failed: UnableToProcess"),
    (RuntimeError("a bug"), "Failed: UnableToProcess"),
    (StatusError(0x0122), "Refused: SOPClassNotSupported"),
]


@on_asyncio
@pytest.mark.parametrize(("error", "text"), FIND_FAILURES, ids=[repr(error) for error, _ in FIND_FAILURES])
async def test_findscu_understands_our_failures(error: Exception, text: str) -> None:
    services = Services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[Dataset]:
        raise error
        yield Dataset()

    async with serving(services) as port:
        ran = await client("findscu", port, "-S", *keys("QueryRetrieveLevel=STUDY"))
    assert re.search(rf"Received Final Find Response \(.*{text}", ran.output), ran.output


@on_asyncio
async def test_findscu_asks_for_a_worklist() -> None:
    services = Services()

    @services.find(sop.MODALITY_WORKLIST_INFORMATION_MODEL_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[Dataset]:
        step = Dataset()
        step.Modality = request.identifier.ScheduledProcedureStepSequence[0].Modality
        match = Dataset()
        match.SpecificCharacterSet = "ISO_IR 192"
        match.PatientName = "Łukasz^Żak"
        match.ScheduledProcedureStepSequence = [step]
        yield match

    async with serving(services) as port:
        query = keys("PatientName", "ScheduledProcedureStepSequence[0].Modality=CT")
        ran = await client("findscu", port, "-W", *query)
    ran.check()
    responses = ran.output.partition("Find Response: 1 ")[2]
    assert shown(responses, "PatientName") == ["Łukasz^Żak"]
    assert shown(responses, "Modality") == ["CT"]


# C-GET.


def of_patient(patient: str) -> dict[str, bytes]:
    return {item.sop_instance_uid: item.on_the_wire for item in study() if item.header().PatientID == patient}


@pytest.mark.parametrize("model", ["-P", "-S", "-O"])
async def test_getscu_gets_bit_by_bit(model: str, tmp_path: Path) -> None:
    async with serving(Archive(study()).services()) as port:
        query = keys("QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}")
        ran = await client("getscu", port, model, "+B", "-od", tmp_path, *query)
    ran.check()
    assert re.search("Completed Suboperations : 7", ran.output)
    assert "Received C-GET Response (Success)" in ran.output
    assert kept_in(tmp_path) == of_patient(PATIENT)


@on_asyncio
@pytest.mark.parametrize(
    ("option", "syntax"),
    [pair for pair in PROPOSALS if pair[0] not in ("-xe", "-xb", "-xi", "-xd")],
)
async def test_getscu_gets_compressed_instances(option: str, syntax: str, tmp_path: Path) -> None:
    chosen = {item.sop_instance_uid: item for item in samples() if item.transfer_syntax_uid == syntax}
    archive = Archive(chosen.values())
    async with serving(archive.services()) as port:
        query = keys("QueryRetrieveLevel=IMAGE", "SOPInstanceUID")
        ran = await client("getscu", port, "-S", "+B", option.replace("-", "+"), "-od", tmp_path, *query)
    assert [line for line in ran.complaints if not about_files(line)] == [], ran.output
    assert kept_in(tmp_path) == {uid: item.on_the_wire for uid, item in chosen.items()}


async def test_getscu_is_told_of_what_it_cannot_take(tmp_path: Path) -> None:
    # getscu proposes uncompressed transfer syntaxes only: the RLE instance cannot go to it.
    items = [sample("MR_small_RLE.dcm"), sample("CT_small.dcm"), sample("test-SR.dcm")]
    async with serving(Archive(items).services()) as port:
        query = keys("QueryRetrieveLevel=IMAGE", "SOPInstanceUID")
        ran = await client("getscu", port, "-S", "+B", "-od", tmp_path, *query)
    assert re.search(r"C-GET Response \(Warning: SubOperationsCompleteOneOrMoreFailures", ran.output), ran.output
    assert re.search("Completed Suboperations : 2", ran.output), ran.output
    assert re.search("Failed Suboperations    : 1", ran.output)
    assert kept_in(tmp_path) == {item.sop_instance_uid: item.on_the_wire for item in items[1:]}


@on_asyncio
@pytest.mark.parametrize("name", ["rtplan.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "rtdose.dcm"])
async def test_getscu_gets_a_native_instance_converted_to_what_it_takes(name: str, tmp_path: Path) -> None:
    # In one context per class it prefers explicit VR little endian.
    item = sample(name)
    async with serving(Archive([item]).services()) as port:
        ran = await client("getscu", port, "-S", "+B", "-od", tmp_path, *keys("QueryRetrieveLevel=IMAGE"))
    ran.check()
    [data] = kept_in(tmp_path).values()
    assert_same_instance(data, item, sop.EXPLICIT_VR_LITTLE_ENDIAN)


@on_asyncio
async def test_getscu_is_told_that_nothing_matches(tmp_path: Path) -> None:
    async with serving(Archive(study()).services()) as port:
        ran = await client("getscu", port, "-S", "-od", tmp_path, *keys("QueryRetrieveLevel=PATIENT", "PatientID=none"))
    ran.check()
    assert "Received C-GET Response (Success)" in ran.output


# C-MOVE.


async def test_movescu_moves_to_itself(tmp_path: Path) -> None:
    port_of_movescu = free_port()
    peers = {"MOVESCU": f"MOVESCU@127.0.0.1:{port_of_movescu}"}
    async with serving(Archive(study()).services(), peers=peers) as port:
        query = keys("QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}")
        ran = await client("movescu", port, "-S", "+B", "+P", port_of_movescu, *query, cwd=tmp_path)
    ran.check()
    assert "Received Final Move Response (Success)" in ran.output
    assert kept_in(tmp_path) == of_patient(PATIENT)


@on_asyncio
async def test_movescu_moves_to_storescp(storescp: DcmtkServer) -> None:
    peers = {"DCMTK": f"DCMTK@127.0.0.1:{storescp.port}"}
    chosen = {item.sop_instance_uid: item for item in samples() if "DICOMDIR" not in item.name}
    async with serving(Archive(chosen.values()).services(), peers=peers) as port:
        query = keys("QueryRetrieveLevel=IMAGE", "SOPInstanceUID")
        ran = await client("movescu", port, "-S", "-aem", "DCMTK", *query)
    ran.check()
    assert "Received Final Move Response (Success)" in ran.output
    assert kept(storescp.files()) == {uid: item.on_the_wire for uid, item in chosen.items()}


@on_asyncio
async def test_movescu_cancels(storescp: DcmtkServer) -> None:
    services = Services()
    item = sample("MR_small.dcm")

    @services.move(sop.STUDY_ROOT_MOVE)
    async def move(request: asyncdicom.RetrieveRequest) -> AsyncIterator[Instance]:
        request.total = 1000
        for _ in range(10):
            yield item.instance()
        await anyio.sleep_forever()

    async with serving(services, peers={"DCMTK": f"DCMTK@127.0.0.1:{storescp.port}"}) as port:
        query = keys("QueryRetrieveLevel=PATIENT", "PatientID")
        ran = await client("movescu", port, "-S", "-aem", "DCMTK", "--cancel", 2, *query)
    assert "Received Final Move Response (Cancel" in ran.output, ran.output
    assert not [line for line in ran.complaints if not line.startswith("E: Move Request Failed")]


#: A destination, and how DCMTK names the answer.
MOVE_FAILURES = [
    ("UNKNOWN", "Refused: MoveDestinationUnknown"),
    ("UNREACHABLE", "Refused: OutOfResourcesSubOperations"),
    ("INVALID", "Failed: UnableToProcess"),
    ("BROKEN", "Failed: UnableToProcess"),
]


@on_asyncio
@pytest.mark.parametrize(("destination", "text"), MOVE_FAILURES)
async def test_movescu_understands_our_failures(destination: str, text: str) -> None:
    closed = free_port()

    def resolve(title: str) -> Any:
        if title == "BROKEN":
            raise RuntimeError("the directory of peers is broken")
        return {"UNREACHABLE": f"UNREACHABLE@127.0.0.1:{closed}", "INVALID": 4711}.get(title)

    async with serving(Archive(study()).services(), peers=resolve) as port:
        query = keys("QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}")
        ran = await client("movescu", port, "-d", "-S", "-aem", destination, *query)
    assert text in ran.output, ran.output
    if destination == "UNREACHABLE":
        assert re.search("Failed Suboperations +: 7", ran.output), ran.output


# The association.


@on_asyncio
@pytest.mark.parametrize(
    ("options", "client_options", "reason"),
    [
        ({"called": ["OTHER"]}, (), "Called AE Title Not Recognized"),
        ({"calling": ["OTHER"]}, (), "Calling AE Title Not Recognized"),
        ({"limits": Limits(associations=0)}, (), "Local Limit Exceeded"),
    ],
)
async def test_echoscu_is_told_why_it_is_rejected(
    options: dict[str, Any], client_options: tuple[object, ...], reason: str
) -> None:
    async with serving(Services(), **options) as port:
        ran = await client("echoscu", port, *client_options)
    assert ran.returncode != 0
    assert f"Reason: {reason}" in ran.output, ran.output


IDENTITIES = [
    (("-usr", "ann"), 1, b"ann", b""),
    (("-usr", "ann", "-pwd", "secret"), 2, b"ann", b"secret"),
    (("-usr", "ann", "-epw"), 2, b"ann", b""),
    (("-kt", "FILE"), 3, b"a ticket", b""),
    (("--saml", "FILE"), 4, b"a ticket", b""),
    (("--jwt", "FILE"), 5, b"a ticket", b""),
]


@on_asyncio
@pytest.mark.parametrize("response", [False, True])
@pytest.mark.parametrize(("options", "kind", "primary", "secondary"), IDENTITIES)
async def test_storescu_identifies_its_user(
    options: tuple[str, ...], kind: int, primary: bytes, secondary: bytes, response: bool, tmp_path: Path
) -> None:
    ticket = tmp_path / "ticket"
    ticket.write_bytes(b"a ticket")
    archive = Archive()
    services = archive.services()
    asked = []

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> bytes | None:
        asked.append(request.user_identity)
        return b"token" if response else None

    arguments = [ticket if option == "FILE" else option for option in options]
    async with serving(services) as port:
        positive = ("-rsp",) if response else ()
        ran = await client("storescu", port, "-R", *arguments, *positive, files=(sample("MR_small.dcm").path,))
    ran.check()
    [identity] = asked
    assert identity is not None
    assert (identity.type, identity.primary, identity.secondary) == (kind, primary, secondary)
    assert identity.positive_response_requested is response
    assert len(archive.data) == 1


@on_asyncio
async def test_storescu_is_refused_for_its_user() -> None:
    services = Archive().services()

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        raise AssociationRejected(1, 2, 1)

    async with serving(services) as port:
        ran = await client("storescu", port, "-usr", "eve", files=(sample("MR_small.dcm").path,))
    assert ran.returncode != 0
    assert "Result: Rejected Permanent, Source: Service Provider (ACSE Related)" in ran.output, ran.output


# TLS.


async def test_echoscu_and_storescu_talk_tls(certificates: Certificates) -> None:
    archive = Archive()
    item = sample("waveform_ecg.dcm")
    async with serving(archive.services(), ssl=certificates.server) as port:
        (await client("echoscu", port, *certificates.dcmtk)).check()
        (await client("storescu", port, "-R", *certificates.dcmtk, files=(item.path,))).check()
    assert len(archive.data[item.sop_instance_uid]) > 280_000


@on_asyncio
async def test_findscu_talks_tls(certificates: Certificates) -> None:
    async with serving(Archive(study()).services(), ssl=certificates.server) as port:
        query = keys("QueryRetrieveLevel=IMAGE", "SOPInstanceUID")
        ran = await client("findscu", port, "-S", *certificates.dcmtk, *query)
    ran.check()
    assert ran.output.count("(Pending)") == len(study())


@on_asyncio
async def test_a_client_without_a_certificate_is_not_let_in(certificates: Certificates) -> None:
    async with serving(Services(), ssl=certificates.server) as port:
        ran = await client("echoscu", port, "+tla", "+cf", certificates.authority)
        assert ran.returncode != 0
        plain = await client("echoscu", port)
        assert plain.returncode != 0
        (await client("echoscu", port, *certificates.dcmtk)).check()


@on_asyncio
async def test_a_program_of_plain_asyncio_serves_dcmtk() -> None:
    """What users of asyncio write: no anyio in sight."""
    server = Server(Archive(study()).services(), ADDRESS)
    async with server, asyncio.timeout(20):
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(client("echoscu", server.addresses[0].port)) for _ in range(4)]
    for task in runs:
        task.result().check()
