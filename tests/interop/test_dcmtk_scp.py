"""Our client against DCMTK's servers; none of them may print a warning about us."""

from __future__ import annotations

import ssl as _ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncdicom
from asyncdicom import (
    Association,
    AssociationAborted,
    AssociationRejected,
    ConnectError,
    DicomNetworkError,
    NoPresentationContext,
    PeerProfile,
    PresentationContext,
    Server,
    StatusError,
    UserIdentity,
    sop,
)

from .conftest import Certificates
from .material import Archive, Sample, association_profile, data_set_of, sample, samples, storage_contexts, study
from .peers import DcmtkServer, dcmqrscp_config, free_port, requires_dcmtk, start_dcmtk

pytestmark = [pytest.mark.anyio, pytest.mark.interop, requires_dcmtk]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

PATIENT = "77654033"

NATIVE = (
    sop.EXPLICIT_VR_LITTLE_ENDIAN,
    sop.IMPLICIT_VR_LITTLE_ENDIAN,
    sop.EXPLICIT_VR_BIG_ENDIAN,
    sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)


def connect(peer: DcmtkServer, contexts: Any, **options: Any) -> asyncdicom.connect:
    return asyncdicom.connect(f"DCMTK@127.0.0.1:{peer.port}", contexts=contexts, **options)


def stored(path: Path) -> tuple[str, bytes]:
    """Return the SOP Instance UID, by which storescp and dcmrecv name a file after the modality, and the data set."""
    return path.name.partition(".")[2], data_set_of(path)


# C-ECHO.


@pytest.mark.parametrize("maximum_length", [4096, 131_072, 0])
async def test_storescp_answers_an_echo(storescp: DcmtkServer, maximum_length: int) -> None:
    async with connect(storescp, [sop.VERIFICATION], maximum_length=maximum_length) as assoc:
        for number in range(1, 26):
            response = await assoc.echo()
            assert (response.status, response.message_id) == (0x0000, number)
        assert assoc.peer.implementation_version_name == "OFFIS_DCMTK_367" or assoc.peer.implementation_version_name


async def test_dcmqrscp_answers_an_echo(dcmqrscp: QueryServer) -> None:
    async with connect(dcmqrscp.server, None) as assoc:
        await assoc.echo()


@on_asyncio
async def test_a_window_that_dcmtk_does_not_know_is_one_operation(storescp: DcmtkServer) -> None:
    async with connect(storescp, [sop.VERIFICATION], async_operations=(8, 8)) as assoc:
        assert assoc.async_operations == (1, 1)
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(assoc.echo)


# C-STORE.


@pytest.mark.parametrize("pdu", [4096, 16384, 131072])
async def test_storescp_with_any_maximum_keeps_every_byte(pdu: int, tmp_path: Path) -> None:
    item = sample("waveform_ecg.dcm")
    with start_dcmtk("storescp", tmp_path / "storescp", "+B", "-pdu", pdu) as peer:
        async with connect(peer, [item.sop_class_uid]) as assoc:
            await assoc.store(item.path)
        assert [stored(path) for path in peer.files()] == [(item.sop_instance_uid, item.data)]
        peer.check()


@pytest.mark.parametrize("window", [1, 16])
async def test_many_are_stored_one_behind_the_other(window: int, storescp: DcmtkServer) -> None:
    items = study()
    async with connect(storescp, storage_contexts(items), async_operations=(window, 1)) as assoc:
        outcomes = [outcome async for outcome in assoc.store_many(item.path for item in items)]
    assert [(outcome.what, outcome.error) for outcome in outcomes] == [(item.path, None) for item in items]
    assert {item.sop_instance_uid: item.data for item in items}.items() <= dict(map(stored, storescp.files())).items()


@on_asyncio
@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "liver_expb_1frame.dcm", "examples_palette.dcm"]
)
async def test_a_native_instance_is_converted_for_a_peer_of_implicit_vr(name: str, tmp_path: Path) -> None:
    item = sample(name)
    with start_dcmtk("storescp", tmp_path / "storescp", "+xi") as peer:
        async with connect(
            peer, [PresentationContext(abstract_syntax=item.sop_class_uid, transfer_syntaxes=NATIVE)]
        ) as assoc:
            [context] = assoc.accepted_contexts
            assert context.transfer_syntax == sop.IMPLICIT_VR_LITTLE_ENDIAN
            with pytest.raises(NoPresentationContext):
                await assoc.store(item.path, convert=False)
            await assoc.store(item.path)
        # Not bit preserving: storescp has parsed what we sent, and written it anew.
        peer.check()
        assert len(peer.files()) == 1


@on_asyncio
async def test_a_compressed_instance_is_not_converted(tmp_path: Path) -> None:
    item = sample("MR_small_RLE.dcm")
    with start_dcmtk("storescp", tmp_path / "storescp", "+xi") as peer:
        contexts = [
            PresentationContext(
                abstract_syntax=item.sop_class_uid, transfer_syntaxes=(*NATIVE, item.transfer_syntax_uid)
            )
        ]
        async with connect(peer, contexts) as assoc:
            with pytest.raises(NoPresentationContext, match="not with transfer syntax"):
                await assoc.store(item.path)
            await assoc.store(sample("MR_small.dcm").path)
        peer.check()


@on_asyncio
async def test_classes_that_a_peer_does_not_know_are_rejected_alone(tmp_path: Path) -> None:
    with start_dcmtk("storescp", tmp_path / "storescp") as peer:
        async with connect(peer, ["1.2.826.0.1.3680043.9.9999.1", sop.VERIFICATION, sop.STUDY_ROOT_FIND]) as assoc:
            assert [context.abstract_syntax for context in assoc.accepted_contexts] == [sop.VERIFICATION]
            with pytest.raises(NoPresentationContext, match="not accepted"):
                assoc.find_context(sop.STUDY_ROOT_FIND)
            await assoc.echo()
        peer.check()


@pytest.mark.parametrize("option", ["--abort-after", "--abort-during"])
async def test_a_peer_that_aborts_a_store_is_reported(option: str, tmp_path: Path) -> None:
    item = sample("waveform_ecg.dcm")
    with start_dcmtk("storescp", tmp_path / "storescp", option) as peer:
        with pytest.raises(AssociationAborted):
            async with connect(peer, [item.sop_class_uid]) as assoc:
                await assoc.store(item.path)


@on_asyncio
async def test_a_peer_that_refuses_every_association_is_reported(tmp_path: Path) -> None:
    with start_dcmtk("storescp", tmp_path / "storescp", "--refuse", refuses=True) as peer:
        with pytest.raises(AssociationRejected) as caught:
            async with connect(peer, [sop.VERIFICATION]):
                pass
        assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 1, 1)


@on_asyncio
async def test_nobody_listens() -> None:
    with pytest.raises(ConnectError, match="refused"):
        async with asyncdicom.connect(f"DCMTK@127.0.0.1:{free_port()}", contexts=[sop.VERIFICATION]):
            pass


# dcmqrscp.


@dataclass(frozen=True, slots=True)
class QueryServer:
    """A dcmqrscp that holds the small archive, and the port of the move destination OURS that it knows."""

    server: DcmtkServer
    destination: int


@pytest.fixture(scope="module")
def loaded_dcmqrscp(tmp_path_factory: pytest.TempPathFactory, dcmtk: None) -> Iterator[QueryServer]:
    folder = tmp_path_factory.mktemp("dcmqrscp")
    destination = free_port()
    config = dcmqrscp_config(folder / "data", {"OURS": destination, "NOBODY": free_port()})
    with start_dcmtk("dcmqrscp", folder, "+B", "+xe", config=config) as server:
        anyio.run(_fill, server)
        yield QueryServer(server, destination)


async def _fill(server: DcmtkServer) -> None:
    async with connect(server, storage_contexts(study())) as assoc:
        for item in study():
            await assoc.store(item.path)


@pytest.fixture
def dcmqrscp(loaded_dcmqrscp: QueryServer) -> Iterator[QueryServer]:
    """Give a dcmqrscp that holds the small archive, and check that it had nothing to complain of."""
    loaded_dcmqrscp.server.mark()
    yield loaded_dcmqrscp
    loaded_dcmqrscp.server.check()


@asynccontextmanager
async def querying(dcmqrscp: QueryServer, contexts: Any = None) -> AsyncIterator[Association]:
    async with connect(dcmqrscp.server, contexts) as assoc:
        yield assoc


def of_patient(patient: str) -> list[Sample]:
    return [item for item in study() if item.header().PatientID == patient]


QUERIES: list[tuple[sop.SOPClass, str, dict[str, object], str, int]] = [
    (sop.PATIENT_ROOT_FIND, "PATIENT", {"PatientID": ""}, "PatientID", 2),
    (sop.PATIENT_ROOT_FIND, "PATIENT", {"PatientName": "Doe^P*", "PatientID": ""}, "PatientID", 1),
    (sop.PATIENT_ROOT_FIND, "STUDY", {"PatientID": PATIENT, "StudyInstanceUID": ""}, "StudyInstanceUID", 2),
    (sop.STUDY_ROOT_FIND, "STUDY", {"StudyInstanceUID": "", "StudyDate": ""}, "StudyInstanceUID", 6),
    (sop.STUDY_ROOT_FIND, "STUDY", {"PatientID": "none", "StudyInstanceUID": ""}, "StudyInstanceUID", 0),
    (sop.PATIENT_STUDY_ONLY_FIND, "PATIENT", {"PatientID": ""}, "PatientID", 2),
]


@pytest.mark.parametrize(("model", "level", "query", "keyword", "count"), QUERIES)
async def test_dcmqrscp_finds(
    dcmqrscp: QueryServer, model: sop.SOPClass, level: str, query: dict[str, object], keyword: str, count: int
) -> None:
    async with querying(dcmqrscp) as assoc:
        found = assoc.find(query, model, level=level)
        assert len({match[keyword].value async for match in found}) == count
        assert found.response is not None
        assert found.response.status == 0x0000
        await assoc.echo()


@on_asyncio
async def test_dcmqrscp_finds_down_to_the_instances(dcmqrscp: QueryServer) -> None:
    found = set()
    async with querying(dcmqrscp, [sop.STUDY_ROOT_FIND]) as assoc:
        async with assoc.find(StudyInstanceUID="", level="STUDY") as matches:
            studies = [str(match.StudyInstanceUID) async for match in matches]
        for study_uid in studies:
            query = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": ""}
            series = [match async for match in assoc.find(query, level="SERIES")]
            for one in series:
                query = {
                    "StudyInstanceUID": study_uid,
                    "SeriesInstanceUID": one.SeriesInstanceUID,
                    "SOPInstanceUID": "",
                }
                found |= {str(match.SOPInstanceUID) async for match in assoc.find(query, level="IMAGE")}
    assert found == {item.sop_instance_uid for item in study()}


@on_asyncio
async def test_dcmqrscp_is_asked_in_turn_for_what_does_not_fit_into_one_request(dcmqrscp: QueryServer) -> None:
    studies = sorted({str(item.header().StudyInstanceUID) for item in study()})
    others = [f"1.2.3.{number:050}" for number in range(3000)]
    wanted = [*others[:1500], *studies, *others[1500:]]
    async with querying(dcmqrscp, [sop.STUDY_ROOT_FIND]) as assoc:
        found = assoc.find(StudyInstanceUID=wanted, level="STUDY")
        assert sorted([str(match.StudyInstanceUID) async for match in found]) == studies
        assert [response.status for response in found.responses] == [0x0000] * 3


@on_asyncio
async def test_dcmqrscp_is_asked_uid_by_uid_and_day_by_day(dcmqrscp: QueryServer) -> None:
    studies = sorted({str(item.header().StudyInstanceUID) for item in study()})
    profile = PeerProfile(uid_lists=False, date_ranges=False, date_wildcards=False)
    async with connect(dcmqrscp.server, [sop.STUDY_ROOT_FIND], profile=profile) as assoc:
        one_by_one = assoc.find(StudyInstanceUID=studies, level="STUDY", StudyDate="*")
        found = {str(match.StudyInstanceUID): str(match.StudyDate) async for match in one_by_one}
        assert sorted(found) == studies
        assert len(one_by_one.responses) == len(studies)
        date = max(found.values())
        of_a_month = assoc.find(StudyInstanceUID="", level="STUDY", StudyDate=f"{date[:6]}*")
        assert {str(match.StudyInstanceUID) async for match in of_a_month} == {
            uid for uid, other in found.items() if other.startswith(date[:6])
        }
        assert len(of_a_month.responses) >= 28


async def test_a_find_with_a_limit_cancels(dcmqrscp: QueryServer) -> None:
    async with querying(dcmqrscp) as assoc:
        async with assoc.find(StudyInstanceUID="", level="STUDY", limit=2) as matches:
            assert len([match async for match in matches]) == 2
        assert matches.truncated
        assert matches.response is not None
        assert matches.response.status in (0xFE00, 0x0000)
        await assoc.echo()


async def test_a_find_that_is_left_cancels(dcmqrscp: QueryServer) -> None:
    async with querying(dcmqrscp) as assoc:
        async for _ in assoc.find(StudyInstanceUID="", level="STUDY"):
            break
        await assoc.echo()
        async with assoc.find(StudyInstanceUID="", level="STUDY") as matches:
            assert len([match async for match in matches]) == 6


@on_asyncio
async def test_dcmqrscp_refuses_an_identifier_without_a_level(tmp_path: Path) -> None:
    config = dcmqrscp_config(tmp_path / "server" / "data", {})
    with start_dcmtk("dcmqrscp", tmp_path / "server", "-XF", config=config) as server:
        async with connect(server, [sop.STUDY_ROOT_FIND, sop.VERIFICATION]) as assoc:
            with pytest.raises(StatusError) as caught:
                async for _ in assoc.find({"PatientID": "", "StudyInstanceUID": ""}):
                    pass
            assert caught.value.status.is_failure
            await assoc.echo()


async def test_dcmqrscp_sends_by_get_what_was_stored(dcmqrscp: QueryServer) -> None:
    contexts = [sop.PATIENT_ROOT_GET, *storage_contexts(study())]
    async with querying(dcmqrscp, contexts) as assoc:
        async with assoc.get(PatientID=PATIENT, level="PATIENT", model=sop.PATIENT_ROOT_GET) as instances:
            received = {instance.sop_instance_uid: await instance.read() async for instance in instances}
        assert instances.response is not None
        assert instances.response.status == 0x0000
        assert instances.progress.completed == 7
    assert received == {item.sop_instance_uid: item.on_the_wire for item in of_patient(PATIENT)}


async def test_an_association_is_used_in_both_roles(dcmqrscp: QueryServer) -> None:
    item = study()[0]
    contexts = [sop.STUDY_ROOT_GET, sop.STUDY_ROOT_FIND, *storage_contexts(study())]
    dcmqrscp.server.allow("duplicate SOP instance UID")
    async with querying(dcmqrscp, contexts) as assoc:
        assert all(c.requestor_is_scp for c in assoc.accepted_contexts if sop.is_storage(c.abstract_syntax))
        assert (await assoc.store(item.path)).status == 0x0000
        header = item.header()
        query = {
            "StudyInstanceUID": header.StudyInstanceUID,
            "SeriesInstanceUID": header.SeriesInstanceUID,
            "SOPInstanceUID": item.sop_instance_uid,
        }
        async with assoc.get(query, level="IMAGE") as instances:
            assert [await instance.read() async for instance in instances] == [item.on_the_wire]
        assert len([match async for match in assoc.find(query, level="IMAGE")]) == 1


async def test_a_get_that_is_left_cancels(dcmqrscp: QueryServer) -> None:
    contexts = [sop.PATIENT_ROOT_GET, sop.VERIFICATION, *storage_contexts(study())]
    # An instance that it sends before it has seen the C-CANCEL is refused.
    dcmqrscp.server.allow("Store Failed")
    async with querying(dcmqrscp, contexts) as assoc:
        async with assoc.get(PatientID="98890234", level="PATIENT") as instances:
            async for instance in instances:
                await instance.read()
                break
        assert instances.response is not None
        assert instances.truncated
        await assoc.echo()


@on_asyncio
async def test_a_store_that_we_refuse_fails_the_get(dcmqrscp: QueryServer) -> None:
    contexts = [sop.PATIENT_ROOT_GET, *storage_contexts(study())]
    dcmqrscp.server.allow("Store Failed")
    async with querying(dcmqrscp, contexts) as assoc:
        async with assoc.get(PatientID=PATIENT, level="PATIENT", check=False) as instances:
            async for instance in instances:
                instance.status = 0xA700
        assert instances.response is not None
        assert instances.response.status == 0xA702
        assert instances.progress.failed == 7
        assert sorted(instances.response.failed_sop_instance_uids) == sorted(
            item.sop_instance_uid for item in of_patient(PATIENT)
        )


async def test_dcmqrscp_moves_to_our_server(dcmqrscp: QueryServer) -> None:
    archive = Archive()
    async with Server(archive.services(), f"OURS@127.0.0.1:{dcmqrscp.destination}"):
        async with querying(dcmqrscp) as assoc:
            move = assoc.move(PatientID=PATIENT, level="PATIENT", model=sop.PATIENT_ROOT_MOVE, destination="OURS")
            progress = [item async for item in move]
            assert move.response is not None
            assert move.response.status == 0x0000
            assert move.response.progress.completed == 7
            assert [item.completed for item in progress] == sorted(item.completed or 0 for item in progress)
            assert {item.total for item in progress} == {7}
            message_id = move.response.message_id
    assert archive.data == {item.sop_instance_uid: item.on_the_wire for item in of_patient(PATIENT)}
    requests = [request for request in archive.requests if isinstance(request, asyncdicom.StoreRequest)]
    assert {request.move_originator_ae_title for request in requests} == {"ASYNCDICOM"}
    assert {request.move_originator_message_id for request in requests} == {message_id}


async def test_a_move_that_is_left_cancels(dcmqrscp: QueryServer) -> None:
    archive = Archive()
    async with Server(archive.services(), f"OURS@127.0.0.1:{dcmqrscp.destination}"):
        async with querying(dcmqrscp) as assoc:
            async with assoc.move(
                PatientID="98890234", level="PATIENT", model=sop.PATIENT_ROOT_MOVE, destination="OURS"
            ) as move:
                async for _ in move:
                    break
            assert move.response is not None
            await assoc.echo()


@on_asyncio
async def test_our_destination_that_refuses_makes_the_move_fail(dcmqrscp: QueryServer) -> None:
    services = asyncdicom.Services()

    @services.store("*")
    async def store(request: asyncdicom.StoreRequest) -> int:
        return 0xA700

    dcmqrscp.server.allow("Store Failed")
    async with Server(services, f"OURS@127.0.0.1:{dcmqrscp.destination}"):
        async with querying(dcmqrscp) as assoc:
            async with assoc.move(
                PatientID=PATIENT, level="PATIENT", model=sop.PATIENT_ROOT_MOVE, destination="OURS", check=False
            ) as move:
                async for _ in move:
                    pass
            assert move.response is not None
            assert move.response.status == 0xA702
            assert move.response.progress.failed == 7


@on_asyncio
@pytest.mark.parametrize(("destination", "statuses"), [("STRANGER", (0xA801,)), ("NOBODY", (0xA702, 0xB000))])
async def test_dcmqrscp_cannot_move(loaded_dcmqrscp: QueryServer, destination: str, statuses: tuple[int, ...]) -> None:
    async with querying(loaded_dcmqrscp) as assoc:
        move = assoc.move(
            PatientID=PATIENT, level="PATIENT", model=sop.PATIENT_ROOT_MOVE, destination=destination, check=False
        )
        async for _ in move:
            pass
        assert move.response is not None
        assert move.response.status in statuses
        await assoc.echo()


@on_asyncio
async def test_dcmqrscp_does_not_know_who_is_called(loaded_dcmqrscp: QueryServer) -> None:
    with pytest.raises(AssociationRejected) as caught:
        async with asyncdicom.connect(f"STRANGER@127.0.0.1:{loaded_dcmqrscp.server.port}"):
            pass
    assert (caught.value.source, caught.value.reason) == (1, 7)


# Negotiation.


@on_asyncio
@pytest.mark.parametrize(
    "identity",
    [
        UserIdentity.username("ann", positive_response_requested=True),
        UserIdentity.password("ann", "secret"),
        UserIdentity.kerberos(b"ticket"),
        UserIdentity.saml(b"<assertion/>"),
        UserIdentity.jwt(b"a.b.c"),
    ],
    ids=lambda identity: str(identity.type),
)
async def test_dcmtk_takes_no_offence_at_an_identity(storescp: DcmtkServer, identity: UserIdentity) -> None:
    async with connect(storescp, [sop.VERIFICATION], user_identity=identity) as assoc:
        await assoc.echo()


@on_asyncio
async def test_dcmtk_takes_no_offence_at_extended_negotiation(dcmqrscp: QueryServer) -> None:
    async with connect(
        dcmqrscp.server, [sop.STUDY_ROOT_FIND], extended_negotiation={sop.STUDY_ROOT_FIND: b"\x01\x01\x01"}
    ) as assoc:
        assert len([match async for match in assoc.find(StudyInstanceUID="", level="STUDY")]) == 6


@on_asyncio
async def test_128_contexts_are_answered(storescp: DcmtkServer) -> None:
    contexts = [PresentationContext(abstract_syntax=uid) for uid in (*sop.STORAGE, *sop.STORAGE)[:127]]
    async with connect(storescp, [sop.VERIFICATION, *contexts]) as assoc:
        assert len(assoc.accepted_contexts) == 128
        await assoc.echo()


# TLS.


@pytest.mark.parametrize("program", ["storescp", "dcmrecv"])
async def test_servers_of_dcmtk_talk_tls(program: str, certificates: Certificates, tmp_path: Path) -> None:
    item = sample("examples_overlay.dcm")
    options: list[object] = ["+B", *certificates.dcmtk]
    if program == "dcmrecv":
        profile = tmp_path / "dcmrecv.cfg"
        profile.write_text(association_profile([item]))
        options += ["-xf", profile, "Any"]
    with start_dcmtk(program, tmp_path / program, *options, ssl=certificates.client) as peer:
        async with connect(
            peer, [sop.VERIFICATION, item.sop_class_uid], ssl=certificates.client, server_hostname="localhost"
        ) as assoc:
            await assoc.echo()
            await assoc.store(item.path)
        assert [stored(path) for path in peer.files()] == [(item.sop_instance_uid, item.data)]
        peer.check()


@on_asyncio
@pytest.mark.parametrize("kind", ["plain", "without a certificate", "unknown authority", "wrong name"])
async def test_tls_that_fails_is_an_error_of_ours(kind: str, certificates: Certificates, tmp_path: Path) -> None:
    context: _ssl.SSLContext | None = certificates.client
    name = "localhost"
    if kind == "plain":
        context = None
    elif kind == "without a certificate":
        context = certificates.anonymous
    elif kind == "unknown authority":
        context = _ssl.create_default_context()
    else:
        name = "elsewhere.example"
    with start_dcmtk("storescp", tmp_path / "storescp", *certificates.dcmtk, ssl=certificates.client) as peer:
        with pytest.raises(DicomNetworkError):
            async with connect(
                peer, [sop.VERIFICATION], ssl=context, server_hostname=name if context else None
            ) as assoc:
                await assoc.echo()


@pytest.mark.parametrize("count", [4])
async def test_several_associations_at_once_with_a_forking_server(count: int, tmp_path: Path) -> None:
    items = [item for item in samples() if "MR_small" in item.name and "truncated" not in item.name]
    with start_dcmtk("storescp", tmp_path / "storescp", "+B", "+xa", "--fork", "+uf") as peer:

        async def send() -> None:
            async with connect(peer, storage_contexts(items)) as assoc:
                for item in items:
                    await assoc.store(item.path)

        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(send)
        assert len(peer.files()) == count * len(items)
        peer.check()
