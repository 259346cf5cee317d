"""Our client against pynetdicom's qrscp, an archive in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import anyio
import pytest

import asyncdicom
from asyncdicom import AssociationRejected, NoPresentationContext, PeerProfile, Server, StatusError, sop

from .material import Archive, Sample, study
from .peers import DcmtkServer, free_port, pynetdicom_qrscp

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

PATIENT = "77654033"


@dataclass(frozen=True, slots=True)
class Qrscp:
    """A qrscp that holds the small archive, and the port of the move destination OURS that it knows."""

    server: DcmtkServer
    destination: int

    def connect(self, contexts: list[str] | None = None, profile: PeerProfile | None = None) -> asyncdicom.connect:
        return asyncdicom.connect(f"QRSCP@127.0.0.1:{self.server.port}", contexts=contexts, profile=profile)


@pytest.fixture(scope="module")
def qrscp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Qrscp]:
    destination = free_port()
    with pynetdicom_qrscp(tmp_path_factory.mktemp("qrscp") / "app", {"OURS": destination}) as server:
        anyio.run(_fill, server)
        yield Qrscp(server, destination)


async def _fill(server: DcmtkServer) -> None:
    # In the default role alone: it takes no store of a requestor that proposes to be SCP as well.
    contexts = sorted({item.sop_class_uid for item in study()})
    async with asyncdicom.connect(f"QRSCP@127.0.0.1:{server.port}", contexts=contexts) as assoc:
        for item in study():
            response = await assoc.store(item.path)
            assert response.status == 0x0000


def of_patient(patient: str) -> list[Sample]:
    return [item for item in study() if item.header().PatientID == patient]


async def test_it_answers_an_echo(qrscp: Qrscp) -> None:
    async with qrscp.connect() as assoc:
        for _ in range(5):
            await assoc.echo()


@pytest.mark.parametrize(
    ("model", "level", "keyword", "count"),
    [
        (sop.PATIENT_ROOT_FIND, "PATIENT", "PatientID", 1),
        (sop.PATIENT_ROOT_FIND, "STUDY", "StudyInstanceUID", 2),
        (sop.STUDY_ROOT_FIND, "STUDY", "StudyInstanceUID", 2),
    ],
)
async def test_it_finds(qrscp: Qrscp, model: sop.SOPClass, level: str, keyword: str, count: int) -> None:
    async with qrscp.connect() as assoc:
        found = assoc.find(
            {"PatientID": PATIENT, keyword: PATIENT if keyword == "PatientID" else ""}, model, level=level
        )
        # It answers once per instance: there are as many different entities as there should be.
        assert len({item[keyword].value async for item in found}) == count
        assert found.response is not None
        assert found.response.status == 0x0000


async def test_it_refuses_an_identifier_without_a_unique_key(qrscp: Qrscp) -> None:
    async with qrscp.connect() as assoc:
        with pytest.raises(StatusError) as caught:
            async for _ in assoc.find(SOPInstanceUID="", level="IMAGE", model=sop.PATIENT_ROOT_FIND):
                pass
        assert caught.value.status == 0xA900
        with pytest.raises(StatusError) as caught:
            async for _ in assoc.get(SOPInstanceUID="", level="IMAGE", model=sop.PATIENT_ROOT_GET):
                pass
        # Its handler yields 0xA900 where pynetdicom wants the number of sub-operations.
        assert caught.value.status == 0xC413
        await assoc.echo()


async def test_it_sends_what_is_got(qrscp: Qrscp) -> None:
    async with qrscp.connect([sop.PATIENT_ROOT_GET, *map(str, sop.STORAGE_COMMON)]) as assoc:
        async with assoc.get(PatientID=PATIENT, level="PATIENT") as got:
            received = {instance.sop_instance_uid: len(await instance.read()) async for instance in got}
        assert got.response is not None
        assert (got.response.status, got.progress.completed) == (0x0000, 7)
    assert set(received) == {item.sop_instance_uid for item in of_patient(PATIENT)}
    assert min(received.values()) > 1000


@on_asyncio
async def test_it_grants_one_role_of_two(qrscp: Qrscp) -> None:
    async with qrscp.connect() as assoc:
        with pytest.raises(NoPresentationContext, match="role"):
            await assoc.store(study()[0].path)


@pytest.mark.parametrize("profile", [PeerProfile(assume_roles=True), PeerProfile(storage_roles="none")], ids=repr)
async def test_it_takes_a_store_whatever_it_granted(qrscp: Qrscp, profile: PeerProfile) -> None:
    sent = of_patient(PATIENT)[0]
    async with qrscp.connect([sop.STUDY_ROOT_GET, sent.sop_class_uid], profile) as assoc:
        assert (await assoc.store(sent.path)).status == 0x0000
        uid = str(sent.header().StudyInstanceUID)
        async with assoc.get(StudyInstanceUID=uid, level="STUDY", check=False) as instances:
            got = [instance.sop_instance_uid async for instance in instances]
        # With the roles assumed, both work on one association; without negotiating any, it does not send.
        assert (sent.sop_instance_uid in got) is profile.assume_roles


async def test_it_is_cancelled(qrscp: Qrscp) -> None:
    async with qrscp.connect() as assoc:
        async with assoc.get(PatientID="98890234", level="PATIENT", model=sop.PATIENT_ROOT_GET) as got:
            async for instance in got:
                await instance.read()
                break
        assert got.truncated
        await assoc.echo()


async def test_it_moves_to_our_server(qrscp: Qrscp) -> None:
    archive = Archive(patience=0.03)
    async with Server(archive.services(), f"OURS@127.0.0.1:{qrscp.destination}"):
        async with qrscp.connect() as assoc:
            move = assoc.move(PatientID=PATIENT, level="PATIENT", model=sop.PATIENT_ROOT_MOVE, destination="OURS")
            assert [item.completed async for item in move] == list(range(1, 8))
            assert move.response is not None
            assert (move.response.status, move.response.progress.completed) == (0x0000, 7)
    assert set(archive.data) == {item.sop_instance_uid for item in of_patient(PATIENT)}


@on_asyncio
async def test_it_does_not_know_a_destination(qrscp: Qrscp) -> None:
    async with qrscp.connect() as assoc:
        with pytest.raises(StatusError) as caught:
            async for _ in assoc.move(
                PatientID=PATIENT, level="PATIENT", model=sop.PATIENT_ROOT_MOVE, destination="STRANGER"
            ):
                pass
        assert caught.value.status == 0xA801
        await assoc.echo()


@on_asyncio
async def test_ten_associations_are_its_limit(qrscp: Qrscp) -> None:
    async with AsyncExitStack() as stack:

        async def associate() -> None:
            for _ in range(15):
                await stack.enter_async_context(qrscp.connect(["1.2.840.10008.1.1"]))

        with pytest.raises(AssociationRejected) as caught:
            await associate()
    assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 2)
