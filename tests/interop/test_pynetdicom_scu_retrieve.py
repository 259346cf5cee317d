"""pynetdicom's SCU against our server: C-GET and C-MOVE, their statuses, counters and lists of what failed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_MOVE

import asyncdicom
from asyncdicom import Instance, Services, sop

from .material import Archive, samples
from .peers import free_port, pynetdicom_scp
from .scu import (
    COMPRESSED,
    GOOD,
    IDENTIFIER,
    OTHER,
    UNPROPOSED,
    Answers,
    Handler,
    PeerAssociation,
    check_retrieval,
    collected,
    match,
    peer,
    raw,
    reads,
    retrieve_primitive,
    serving,
    storage,
    yields,
)

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

# C-GET and C-MOVE.

#: What is not on the seed page, whose own tests have the rest: a handler, the final status, the counters.
RETRIEVALS: list[tuple[Handler, int, tuple[int, int, int] | None]] = [
    (yields(70_000, GOOD.instance(), (0xFE00, None)), 0xFE00, (1, 0, 0)),
    (yields(65_537, GOOD.instance()), 0xB000, (1, 65_535, 0)),
    (yields(2, match(), GOOD.instance()), 0xB000, (1, 1, 0)),
    (yields(1, None), 0xC002, None),
    (yields(2, GOOD.instance(), (0x1234, None)), 0x1234, (1, 0, 0)),
]
IDS = [f"{number}-{row[1]:04X}" for number, row in enumerate(RETRIEVALS)]


async def get(
    services: Services, model: str = sop.PATIENT_ROOT_GET, *, answer: Any = 0x0000, **options: Any
) -> tuple[Answers, list[tuple[str, bytes]]]:
    """Let pynetdicom get from services; its C-STORE handler answers ``answer``."""
    came: list[tuple[str, bytes]] = []

    def store(event: Any) -> Any:
        came.append((str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()))
        return answer(event) if callable(answer) else answer

    def use(assoc: PeerAssociation) -> Answers:
        answers = collected(assoc.send_c_get(match(), model))
        assert assoc.send_c_echo().Status == 0x0000
        return answers

    contexts = [model, sop.VERIFICATION, *storage(GOOD, OTHER)]
    roles = (GOOD.sop_class_uid, OTHER.sop_class_uid)
    async with serving(services) as port:
        answers = await peer(port, contexts, use, handlers=[(evt.EVT_C_STORE, store)], **({"roles": roles} | options))
    return answers, came


@on_asyncio
@pytest.mark.parametrize(("handler", "status", "counters"), RETRIEVALS, ids=IDS)
async def test_a_get_is_answered(handler: Handler, status: int, counters: tuple[int, int, int] | None) -> None:
    services = Services()
    services.get(sop.PATIENT_ROOT_GET)(handler)
    answers, came = await get(services)
    check_retrieval(answers, status, counters)
    for uid, data in came:
        assert data == {GOOD.sop_instance_uid: GOOD, OTHER.sop_instance_uid: OTHER}[uid].data


@on_asyncio
@pytest.mark.parametrize(("handler", "status", "counters"), RETRIEVALS, ids=IDS)
async def test_a_move_is_answered(handler: Handler, status: int, counters: tuple[int, int, int] | None) -> None:
    services = Services()
    services.move(sop.PATIENT_ROOT_MOVE)(handler)
    answers, archive = await move(services)
    check_retrieval(answers, status, counters)
    for uid, data in archive.data.items():
        assert data == {GOOD.sop_instance_uid: GOOD, OTHER.sop_instance_uid: OTHER}[uid].data


async def move(
    services: Services, model: str = sop.PATIENT_ROOT_MOVE, *, destination: str = "ARCHIVE", **options: Any
) -> tuple[Answers, Archive]:
    """Let pynetdicom have services send to a server of ours that keeps what comes."""

    def use(assoc: PeerAssociation) -> Answers:
        answers = collected(assoc.send_c_move(match(), destination, model, msg_id=77))
        assert assoc.send_c_echo().Status == 0x0000
        return answers

    archive = Archive()
    async with serving(archive.services()) as port_of_archive:
        peers = options.pop("peers", {"ARCHIVE": f"ARCHIVE@127.0.0.1:{port_of_archive}"})
        async with serving(services, peers=peers, **options) as port:
            return await peer(port, [model, sop.VERIFICATION], use), archive


@on_asyncio
@pytest.mark.parametrize(
    ("answer", "status", "counters", "listed"),
    [
        (0xB000, 0xB000, (0, 0, 2), False),
        (0xB007, 0xB000, (0, 0, 2), False),
        (0xA700, 0xA702, (0, 2, 0), True),
        (0xC211, 0xA702, (0, 2, 0), True),
        (
            lambda event: 0xA900 if event.request.AffectedSOPClassUID == sop.CT_IMAGE_STORAGE else 0,
            0xB000,
            (1, 1, 0),
            True,
        ),
    ],
)
async def test_what_the_peer_answers_to_stores_is_counted(
    answer: Any, status: int, counters: tuple[int, int, int], listed: bool
) -> None:
    services = Services()
    services.get(sop.PATIENT_ROOT_GET)(yields(2, OTHER.instance(), GOOD.instance()))
    answers, _ = await get(services, answer=answer)
    check_retrieval(answers, status, counters)
    identifier = answers[-1][1]
    assert (identifier is not None) is listed
    if identifier is not None:
        failed = identifier.FailedSOPInstanceUIDList
        assert OTHER.sop_instance_uid in ([failed] if isinstance(failed, str) else failed)


@on_asyncio
async def test_an_instance_that_cannot_be_sent_fails_alone() -> None:
    services = Services()
    items = (COMPRESSED.instance(), UNPROPOSED.path, GOOD.instance())
    services.get(sop.PATIENT_ROOT_GET)(yields(3, *items))
    answers, came = await get(services)
    check_retrieval(answers, 0xB000, (1, 2, 0))
    assert answers[-1][1] is not None
    assert list(answers[-1][1].FailedSOPInstanceUIDList) == [COMPRESSED.sop_instance_uid, UNPROPOSED.sop_instance_uid]
    assert [uid for uid, _ in came] == [GOOD.sop_instance_uid]


@on_asyncio
async def test_a_peer_without_the_scp_role_gets_nothing() -> None:
    services = Services()
    services.get(sop.PATIENT_ROOT_GET)(yields(2, GOOD.instance(), OTHER.instance()))
    answers, came = await get(services, roles=())
    check_retrieval(answers, 0xA702, (0, 2, 0))
    assert came == []


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_get_is_cancelled(after: int) -> None:
    services = Services()
    closed = []

    @services.get(sop.PATIENT_ROOT_GET)
    async def handler(request: asyncdicom.RetrieveRequest) -> AsyncIterator[Instance]:
        request.total = 10
        try:
            for _ in range(after):
                yield GOOD.instance()
            await anyio.sleep_forever()
        finally:
            closed.append(request.cancelled)

    def use(assoc: PeerAssociation) -> Answers:
        answers = assoc.send_c_get(match(), sop.PATIENT_ROOT_GET, msg_id=12)
        found = collected([next(answers) for _ in range(after)])
        assoc.send_c_cancel(12, query_model=sop.PATIENT_ROOT_GET)
        found += collected(answers)
        assert assoc.send_c_echo().Status == 0x0000
        return found

    contexts = [sop.PATIENT_ROOT_GET, sop.VERIFICATION, *storage(GOOD)]
    handlers = [(evt.EVT_C_STORE, lambda event: 0x0000)]
    async with serving(services) as port:
        answers = await peer(port, contexts, use, handlers=handlers, roles=(GOOD.sop_class_uid,))
    check_retrieval(answers, 0xFE00, (after, 0, 0))
    if after:
        assert answers[-1][2].NumberOfRemainingSuboperations == 10 - after
        assert closed == [True]


@pytest.mark.parametrize("after", [0, 2])
async def test_a_move_is_cancelled(after: int) -> None:
    services = Services()

    @services.move(sop.PATIENT_ROOT_MOVE)
    async def handler(request: asyncdicom.RetrieveRequest) -> AsyncIterator[Instance]:
        request.total = 10
        for _ in range(after):
            yield GOOD.instance()
        await anyio.sleep_forever()

    def use(assoc: PeerAssociation) -> Answers:
        answers = assoc.send_c_move(match(), "ARCHIVE", sop.PATIENT_ROOT_MOVE, msg_id=12)
        found = collected([next(answers) for _ in range(after)])
        assoc.send_c_cancel(12, query_model=sop.PATIENT_ROOT_MOVE)
        found += collected(answers)
        assert assoc.send_c_echo().Status == 0x0000
        return found

    archive = Archive()
    async with serving(archive.services()) as port_of_archive:
        peers = {"ARCHIVE": f"ARCHIVE@127.0.0.1:{port_of_archive}"}
        async with serving(services, peers=peers) as port:
            answers = await peer(port, [sop.PATIENT_ROOT_MOVE, sop.VERIFICATION], use)
    check_retrieval(answers, 0xFE00, (after, 0, 0))


@on_asyncio
@pytest.mark.parametrize(
    ("destination", "status", "comment"),
    [
        ("STRANGER", 0xA801, "not known"),
        ("UNREACHABLE", 0xA702, "refused"),
        ("WRONG", 0xC515, "address"),
        ("BROKEN", 0xC514, "resolving"),
    ],
)
async def test_a_destination_is_not_there(destination: str, status: int, comment: str) -> None:
    def resolve(title: str) -> Any:
        if title == "BROKEN":
            raise RuntimeError("the directory of peers is broken")
        return {"UNREACHABLE": f"UNREACHABLE@127.0.0.1:{free_port()}", "WRONG": ("127.0.0.1", "x")}.get(title)

    services = Services()
    services.move(sop.PATIENT_ROOT_MOVE)(yields(2, GOOD.instance(), OTHER.instance()))
    answers, _ = await move(services, destination=destination, peers=resolve)
    check_retrieval(answers, status, None)
    assert comment in answers[-1][2].ErrorComment
    if destination == "UNREACHABLE":
        assert answers[-1][1] is not None
        assert list(answers[-1][1].FailedSOPInstanceUIDList) == [GOOD.sop_instance_uid, OTHER.sop_instance_uid]


@on_asyncio
async def test_a_move_without_a_destination_is_0212() -> None:
    services = Services()
    services.move(sop.PATIENT_ROOT_MOVE)(reads)

    def use(assoc: PeerAssociation) -> int:
        primitive = retrieve_primitive(C_MOVE, sop.PATIENT_ROOT_MOVE, IDENTIFIER)
        primitive._move_destination = "    "
        return int(raw(assoc, primitive, 1).Status)

    async with serving(services) as port:
        assert await peer(port, [sop.PATIENT_ROOT_MOVE], use) == 0x0212


@on_asyncio
async def test_a_destination_of_pynetdicom_takes_what_we_move() -> None:
    items = {item.sop_instance_uid: item for item in samples() if "DICOMDIR" not in item.name}
    services = Archive(items.values()).services()
    came: dict[str, tuple[bytes, str, str, int]] = {}

    def store(event: Any) -> int:
        request = event.request
        came[str(request.AffectedSOPInstanceUID)] = (
            request.DataSet.getvalue(),
            str(event.context.transfer_syntax),
            str(request.MoveOriginatorApplicationEntityTitle),
            request.MoveOriginatorMessageID,
        )
        return 0x0000

    def use(assoc: PeerAssociation) -> Answers:
        everything = Dataset()
        everything.QueryRetrieveLevel = "IMAGE"
        return collected(assoc.send_c_move(everything, "PYNETDICOM", sop.STUDY_ROOT_MOVE, msg_id=5))

    with pynetdicom_scp(handlers=[(evt.EVT_C_STORE, store)], storage=True) as port_of_peer:
        async with serving(services, peers={"PYNETDICOM": f"PYNETDICOM@127.0.0.1:{port_of_peer}"}) as port:
            answers = await peer(port, [sop.STUDY_ROOT_MOVE], use)
    check_retrieval(answers, 0x0000, (len(items), 0, 0))
    assert came == {uid: (item.on_the_wire, item.transfer_syntax_uid, "PYNETDICOM", 5) for uid, item in items.items()}


@on_asyncio
@pytest.mark.parametrize(
    ("answer", "status", "counters"),
    [(0xB006, 0xB000, (0, 0, 2)), (0xA700, 0xA702, (0, 2, 0)), (0x0122, 0xA702, (0, 2, 0))],
)
async def test_what_a_destination_answers_is_counted(answer: int, status: int, counters: tuple[int, int, int]) -> None:
    services = Services()
    services.move(sop.PATIENT_ROOT_MOVE)(yields(2, GOOD.instance(), OTHER.instance()))
    handlers = [(evt.EVT_C_STORE, lambda event: answer)]
    with pynetdicom_scp(handlers=handlers, storage=True) as port:
        answers, _ = await move(services, peers={"ARCHIVE": f"PYNETDICOM@127.0.0.1:{port}"})
    check_retrieval(answers, status, counters)


@on_asyncio
async def test_a_destination_that_aborts_fails_the_rest() -> None:
    services = Services()
    services.move(sop.PATIENT_ROOT_MOVE)(yields(3, GOOD.instance(), OTHER.instance(), GOOD.instance()))
    seen = []

    def store(event: Any) -> int:
        seen.append(event)
        if len(seen) == 2:
            event.assoc.abort()
        return 0x0000

    with pynetdicom_scp(handlers=[(evt.EVT_C_STORE, store)], storage=True) as port:
        answers, _ = await move(services, peers={"ARCHIVE": f"PYNETDICOM@127.0.0.1:{port}"})
    check_retrieval(answers, 0xB000, (1, 2, 0))
    assert answers[-1][1] is not None
    assert list(answers[-1][1].FailedSOPInstanceUIDList) == [OTHER.sop_instance_uid, GOOD.sop_instance_uid]
    assert "abort" in answers[-1][2].ErrorComment


@on_asyncio
async def test_a_long_list_of_what_failed_arrives() -> None:
    # Over 64 KiB it does not fit into a UI element of explicit VR (PS3.5 6.2.2).
    uids = [f"1.2.826.0.1.3680043.9.9999.{10**30 + number}" for number in range(1500)]
    gone = [Instance.from_bytes(b"", sop.CT_IMAGE_STORAGE, uid, sop.RLE_LOSSLESS) for uid in uids]
    services = Services()
    services.get(sop.PATIENT_ROOT_GET)(yields(len(uids), *gone))
    answers, _ = await get(services)
    assert answers[-1][0] == 0xA702
    assert answers[-1][1] is not None
    # pynetdicom leaves a value of VR UN as it is.
    assert answers[-1][1].FailedSOPInstanceUIDList.decode().rstrip("\0").split("\\") == uids
