"""Retrieving from real archives, by C-GET and by C-MOVE to ourselves: dcmqrscp, and pynetdicom's qrscp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncdicom
from asyncdicom import Limits, Server, Services, sop

from .material import Archive, Sample, data_set_of, samples, storage_contexts, study
from .peers import DcmtkServer, dcmqrscp_config, free_port, pynetdicom_qrscp, start_dcmtk

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

WAYS = pytest.mark.parametrize("via", ["get", "move"])

#: A patient of the small archive with two studies of seven instances, and one of them.
PATIENT = "77654033"


def mixed() -> list[Sample]:
    """Secondary captures of one study, some of them native and some in RLE Lossless."""
    known = (sop.RLE_LOSSLESS, sop.EXPLICIT_VR_LITTLE_ENDIAN)
    found = {
        item.sop_instance_uid: item
        for item in samples()
        if item.transfer_syntax_uid in known
        and str(item.header().get("StudyInstanceUID")).endswith("12406831542731051035295345080039845114")
    }
    assert {item.transfer_syntax_uid for item in found.values()} == set(known)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Peer:
    """An archive, and the port of the move destination OURS that it knows."""

    server: DcmtkServer
    ae_title: str
    destination: int

    def retrieve(self, **options: Any) -> asyncdicom.Retrieval:
        if options.get("via") == "move" and "server" not in options:
            options["listen"] = f"OURS@127.0.0.1:{self.destination}"
        return asyncdicom.retrieve(f"{self.ae_title}@127.0.0.1:{self.server.port}", **options)


async def fill(address: str, items: list[Sample], contexts: list[Any]) -> None:
    async with asyncdicom.connect(address, contexts=contexts) as association:
        for item in items:
            await association.store(item.path)


@pytest.fixture(scope="module")
def loaded_dcmqrscp(tmp_path_factory: pytest.TempPathFactory, dcmtk: None) -> Iterator[Peer]:
    folder = tmp_path_factory.mktemp("dcmqrscp")
    destination = free_port()
    config = dcmqrscp_config(folder / "data", {"OURS": destination})
    # It takes native instances, and those in RLE Lossless as they are.
    with start_dcmtk("dcmqrscp", folder, "+B", "+xr", config=config) as server:
        items = [*study(), *mixed()]
        anyio.run(fill, f"DCMTK@127.0.0.1:{server.port}", items, storage_contexts(items))
        yield Peer(server, "DCMTK", destination)


@pytest.fixture
def dcmqrscp(loaded_dcmqrscp: Peer) -> Iterator[Peer]:
    """Give a dcmqrscp that holds instances, and check that it had nothing to complain of."""
    loaded_dcmqrscp.server.mark()
    yield loaded_dcmqrscp
    loaded_dcmqrscp.server.check()


@pytest.fixture(scope="module")
def qrscp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    destination = free_port()
    with pynetdicom_qrscp(tmp_path_factory.mktemp("qrscp") / "app", {"OURS": destination}) as server:
        contexts = sorted({item.sop_class_uid for item in study()})
        anyio.run(fill, f"QRSCP@127.0.0.1:{server.port}", list(study()), contexts)
        yield Peer(server, "QRSCP", destination)


def wire(items: list[Sample]) -> dict[str, bytes]:
    return {item.sop_instance_uid: item.on_the_wire for item in items}


def of_patient(patient: str) -> list[Sample]:
    return [item for item in study() if item.header().PatientID == patient]


async def collect(retrieval: asyncdicom.Retrieval) -> dict[str, bytes]:
    async with retrieval:
        return {instance.sop_instance_uid: await instance.read() async for instance in retrieval}


def saved(folder: Path) -> dict[str, bytes]:
    return {path.name: data_set_of(path) for path in folder.iterdir()}


def keys_of(item: Sample, level: str) -> dict[str, object]:
    """The unique keys of an instance, down to a level."""
    header = item.header()
    keys: dict[str, object] = {"StudyInstanceUID": header.StudyInstanceUID}
    if level != "STUDY":
        keys["SeriesInstanceUID"] = header.SeriesInstanceUID
    if level == "IMAGE":
        keys["SOPInstanceUID"] = header.SOPInstanceUID
    return keys


@WAYS
@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
async def test_dcmqrscp_sends_what_it_holds(dcmqrscp: Peer, via: str, level: str) -> None:
    keys = keys_of(study()[0], level)
    expected = [item for item in study() if keys_of(item, level) == keys]
    retrieval = dcmqrscp.retrieve(via=via, **keys)
    assert await collect(retrieval) == wire(expected)
    assert retrieval.missing == 0
    assert retrieval.progress.completed == len(expected)


@WAYS
async def test_dcmqrscp_sends_a_patient(dcmqrscp: Peer, via: str, tmp_path: Path) -> None:
    async with dcmqrscp.retrieve(via=via, PatientID=PATIENT) as instances:
        async for instance in instances:
            await instance.save(tmp_path / instance.sop_instance_uid)
    assert instances.received == 7
    assert saved(tmp_path) == wire(of_patient(PATIENT))


@pytest.mark.parametrize("contexts", [128, 40])
async def test_dcmqrscp_sends_compressed_instances_as_they_are(dcmqrscp: Peer, contexts: int) -> None:
    # It does not say which classes it has, and tries to send all of them on the first context that it accepted.
    dcmqrscp.server.allow("unable to convert|Store Request Failed|Get Sub-Op Failed|No presentation context")
    uid = str(mixed()[0].header().StudyInstanceUID)
    retrieval = dcmqrscp.retrieve(StudyInstanceUID=uid, via="get", limits=Limits(contexts=contexts))
    assert await collect(retrieval) == wire(mixed())
    assert retrieval.missing == 0
    assert (retrieval.responses[0].status, retrieval.responses[-1].status) == (0xB000, 0x0000)


@WAYS
async def test_dcmqrscp_is_told_when_a_retrieval_is_left(dcmqrscp: Peer, via: str) -> None:
    dcmqrscp.server.allow("Store Failed|sub-operation|Sub-Operation|[Aa]bort")
    async with dcmqrscp.retrieve(via=via, PatientID="98890234") as instances:
        async for instance in instances:
            await instance.read()
            break
    assert instances.truncated
    assert instances.response is not None
    # It serves on.
    assert len(await collect(dcmqrscp.retrieve(via=via, PatientID=PATIENT))) == 7


async def test_dcmqrscp_sends_to_a_server_that_stores_for_others(dcmqrscp: Peer) -> None:
    archive = Archive()
    async with Server(archive.services(), f"OURS@127.0.0.1:{dcmqrscp.destination}") as server:
        received: list[dict[str, bytes]] = []

        async def one() -> None:
            received.append(await collect(dcmqrscp.retrieve(via="move", server=server, PatientID=PATIENT)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            tasks.start_soon(one)
    assert received == [wire(of_patient(PATIENT))] * 2
    assert archive.data == {}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_dcmqrscp_does_not_know_a_destination(anyio_backend: str, loaded_dcmqrscp: Peer) -> None:
    async with Server(Services(), "STRANGER@127.0.0.1:0") as server:
        with pytest.raises(asyncdicom.StatusError) as caught:
            await collect(loaded_dcmqrscp.retrieve(via="move", server=server, PatientID=PATIENT))
    assert caught.value.status == 0xA801


@WAYS
async def test_pynetdicoms_qrscp_sends_what_it_holds(qrscp: Peer, via: str) -> None:
    retrieval = qrscp.retrieve(via=via, PatientID=PATIENT)
    received = await collect(retrieval)
    # It decodes and encodes what it holds, so the bytes need not be the same.
    assert received.keys() == wire(of_patient(PATIENT)).keys()
    assert min(map(len, received.values())) > 1000
    assert retrieval.missing == 0


@WAYS
async def test_pynetdicoms_qrscp_sends_a_series(qrscp: Peer, via: str) -> None:
    keys = keys_of(study()[0], "SERIES")
    expected = [item for item in study() if keys_of(item, "SERIES") == keys]
    received = await collect(qrscp.retrieve(via=via, PatientID=study()[0].header().PatientID, **keys))
    assert received.keys() == wire(expected).keys()
