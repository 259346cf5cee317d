"""Our client against pynetdicom's SCP: C-GET and C-MOVE, their statuses and counters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import asyncdicom
from asyncdicom import (
    Server,
    Services,
    StatusError,
    sop,
)
from asyncdicom._quiet import quiet

from .material import Archive, Sample, part10, sample, storage_contexts, study
from .peers import free_port
from .scp import Scp, category
from .scu import with_status

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

#: pynetdicom logs what its own handlers do wrong, which is right where a test makes them.
own_errors = pytest.mark.complains("")

GOOD = sample("MR_small.dcm")
OTHER = sample("CT_small.dcm")
COMPRESSED = sample("MR_small_RLE.dcm")


def instances(*items: Sample) -> list[Any]:
    return [(0xFF00, part10(item)) for item in items]


# C-GET.

GETS: list[tuple[list[Any], int, tuple[int, int, int] | None]] = [
    ([0], 0x0000, (0, 0, 0)),
    ([2, *instances(GOOD, OTHER)], 0x0000, (2, 0, 0)),
    ([3, *instances(GOOD, COMPRESSED, OTHER)], 0xB000, (2, 1, 0)),
    ([1, *instances(COMPRESSED)], 0xA702, (0, 1, 0)),
    ([2, *instances(GOOD), (0xFE00, None)], 0xFE00, (1, 0, 0)),
    ([1, (0xA701, None)], 0xA701, None),
    ([1, (0xA702, None)], 0xA702, None),
    ([1, (0xA900, None)], 0xA900, None),
    *(([1, (code, None)], code, None) for code in (0xAA00, 0xAA01, 0xAA02, 0xAA03, 0xAA04)),
    *(([1, (code, None)], code, None) for code in (0x0122, 0x0124, 0x0210, 0x0212)),
    ([1, (0xB000, None)], 0xB000, None),
    ([1, (0xC123, None)], 0xC123, None),
    ([1, (with_status(None), None)], 0xC001, None),
    ([1, ("0000", None)], 0xC002, None),
    ([ValueError("a bug")], 0xC413, None),
    ([1, ValueError("a bug")], 0xC411, None),
    (["many"], 0xC413, None),
    ([70_000], 0xC416, None),
]
GET_IDS = [f"{number}-{row[1]:04X}" for number, row in enumerate(GETS)]


def check_final(response: asyncdicom.Response | None, status: int, counters: tuple[int, int, int] | None) -> None:
    assert response is not None
    assert (response.status, response.status.category) == (status, category(status))
    assert response.status.meaning
    if counters is not None:
        progress = response.progress
        assert (progress.completed, progress.failed, progress.warning) == counters


def contexts_for_get(model: str = sop.PATIENT_ROOT_GET) -> list[Any]:
    return [model, sop.VERIFICATION, *storage_contexts([GOOD, OTHER])]


@pytest.mark.parametrize(("items", "status", "counters"), GETS, ids=GET_IDS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@own_errors
async def test_a_get_has_the_statuses_of_the_peer(
    scp: Scp, items: list[Any], status: int, counters: tuple[int, int, int] | None
) -> None:
    scp.answers("get", *items)
    async with scp.connect(contexts_for_get()) as assoc:
        got = assoc.get(PatientID="1", level="PATIENT", check=False)
        async with got:
            received = {instance.sop_instance_uid: await instance.dataset() async for instance in got}
        check_final(got.response, status, counters)
        assert got.response is not None
        if counters is not None:
            assert len(received) == counters[0]
            failed = [COMPRESSED.sop_instance_uid] * counters[1]
            assert got.response.failed_sop_instance_uids == failed
        with quiet():
            for uid, data_set in received.items():
                assert data_set == part10({GOOD.sop_instance_uid: GOOD, OTHER.sop_instance_uid: OTHER}[uid])
        if got.response.status.is_failure:
            with pytest.raises(StatusError) as caught:
                async for _ in assoc.get(PatientID="1", level="PATIENT"):
                    pass
            assert caught.value.status == status
        await assoc.echo()


@on_asyncio
@pytest.mark.parametrize(
    ("answer", "status", "counters"),
    [
        (0x0000, 0x0000, (2, 0, 0)),
        (0xB007, 0xB000, (0, 0, 2)),
        (0xA700, 0xA702, (0, 2, 0)),
        (0xC211, 0xA702, (0, 2, 0)),
    ],
)
@own_errors
async def test_our_answers_to_stores_are_counted_by_the_peer(
    scp: Scp, answer: int, status: int, counters: tuple[int, int, int]
) -> None:
    scp.answers("get", 2, *instances(GOOD, OTHER))
    async with scp.connect(contexts_for_get()) as assoc:
        async with assoc.get(PatientID="1", level="PATIENT", check=False) as got:
            async for instance in got:
                await instance.read()
                instance.status = answer
        check_final(got.response, status, counters)


async def test_progress_is_told_while_getting(scp: Scp) -> None:
    scp.answers("get", 3, *instances(GOOD, OTHER, GOOD))
    seen = []
    async with scp.connect(contexts_for_get()) as assoc:
        async with assoc.get(PatientID="1", level="PATIENT") as got:
            async for instance in got:
                await instance.read()
                seen.append(got.progress)
    assert [(item.remaining, item.completed) for item in seen] == [(None, None), (2, 1), (1, 2)]
    assert got.progress.completed == 3


@pytest.mark.parametrize("how", ["break", "raise", "limit", "cancel"])
@own_errors
async def test_a_get_that_is_left_cancels(scp: Scp, how: str) -> None:
    def get(event: Any) -> Iterator[Any]:
        yield 1000
        for _ in range(1000):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, part10(GOOD)

    scp.handlers["get"] = get
    async with scp.connect(contexts_for_get()) as assoc:
        with anyio.CancelScope() as scope:
            try:
                async with assoc.get(PatientID="1", level="PATIENT", limit=2 if how == "limit" else None) as got:
                    async for instance in got:
                        await instance.read()
                        if how == "break":
                            break
                        if how == "raise":
                            raise KeyError("the caller's own")
                        if how == "cancel":
                            scope.cancel()
            except KeyError:
                assert how == "raise"
        assert got.truncated
        assert got.response is not None
        assert got.response.status == 0xFE00
        await assoc.echo()


# C-MOVE.

MOVES: list[tuple[list[Any], int, tuple[int, int, int] | None]] = [
    (["HERE", 0], 0x0000, (0, 0, 0)),
    (["HERE", 2, *instances(GOOD, OTHER)], 0x0000, (2, 0, 0)),
    (["HERE", 2, *instances(GOOD), (0xFE00, None)], 0xFE00, (1, 0, 0)),
    (["HERE", 1, (0xA701, None)], 0xA701, None),
    (["HERE", 1, (0xA702, None)], 0xA702, None),
    (["HERE", 1, (0xA900, None)], 0xA900, None),
    *((["HERE", 1, (code, None)], code, None) for code in (0xAA00, 0xAA01, 0xAA02, 0xAA03, 0xAA04)),
    *((["HERE", 1, (code, None)], code, None) for code in (0x0122, 0x0124, 0x0210, 0x0211, 0x0212)),
    (["HERE", 1, (0xB000, None)], 0xB000, None),
    (["HERE", 1, (0xC123, None)], 0xC123, None),
    ([(None, None)], 0xA801, None),
    (["NOWHERE", 1, *instances(GOOD)], 0xA801, None),
    (["HERE", 1, (with_status(None), None)], 0xC001, None),
    (["HERE", 1, ("0000", None)], 0xC002, None),
    ([ValueError("a bug")], 0xC514, None),
    ([], 0xC514, None),
    (["HERE", "many"], 0xC513, None),
    (["HERE", 70_000], 0xC516, None),
    ([17], 0xC515, None),
    (["HERE", 1, ValueError("a bug")], 0xC511, None),
]
MOVE_IDS = [f"{number}-{row[1]:04X}" for number, row in enumerate(MOVES)]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(("items", "status", "counters"), MOVES, ids=MOVE_IDS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@own_errors
async def test_a_move_has_the_statuses_of_the_peer(
    scp: Scp, items: list[Any], status: int, counters: tuple[int, int, int] | None
) -> None:
    archive = Archive(patience=0.03)
    async with Server(archive.services(), "HERE@127.0.0.1:0") as server:
        places: dict[Any, Any] = {
            "HERE": destination(server.addresses[0].port),
            "NOWHERE": destination(free_port()),
        }
        scp.answers("move", *(places[item] if item in ("HERE", "NOWHERE") else item for item in items))
        async with scp.connect([sop.PATIENT_ROOT_MOVE, sop.VERIFICATION]) as assoc:
            move = assoc.move(PatientID="1", level="PATIENT", destination="HERE", check=False)
            progress = [item async for item in move]
            check_final(move.response, status, counters)
            if counters is not None:
                assert [item.completed for item in progress] == list(range(1, counters[0] + 1))
            assert move.response is not None
            if move.response.status.is_failure:
                with pytest.raises(StatusError) as caught:
                    async for _ in assoc.move(PatientID="1", level="PATIENT", destination="HERE"):
                        pass
                assert caught.value.status == status
            await assoc.echo()
    assert {event.move_destination for event in scp.requests if hasattr(event, "move_destination")} <= {"HERE"}
    if counters is not None:
        assert len(archive.data) == counters[0]


def destination(port: int) -> tuple[str, int, dict[str, Any]]:
    from pynetdicom import build_context

    contexts = [build_context(item.sop_class_uid, item.transfer_syntax_uid) for item in (GOOD, OTHER)]
    return "127.0.0.1", port, {"contexts": contexts}


@own_errors
async def test_a_move_that_is_left_cancels(scp: Scp) -> None:
    def move(event: Any) -> Iterator[Any]:
        yield destination(port)
        yield 1000
        for _ in range(1000):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, part10(GOOD)

    scp.handlers["move"] = move
    archive = Archive(patience=0.03)
    async with Server(archive.services(), "HERE@127.0.0.1:0") as server:
        port = server.addresses[0].port
        async with scp.connect([sop.PATIENT_ROOT_MOVE, sop.VERIFICATION]) as assoc:
            async with assoc.move(PatientID="1", level="PATIENT", destination="HERE") as moving:
                async for progress in moving:
                    if (progress.completed or 0) >= 2:
                        break
            assert moving.response is not None
            assert moving.response.status == 0xFE00
            await assoc.echo()


@on_asyncio
@pytest.mark.parametrize(
    ("answer", "status", "counters"),
    [(0xB006, 0xB000, (0, 0, 2)), (0xA700, 0xA702, (0, 2, 0)), (0x0117, 0xA702, (0, 2, 0))],
)
@own_errors
async def test_what_our_server_answers_as_a_destination_is_counted(
    scp: Scp, answer: int, status: int, counters: tuple[int, int, int]
) -> None:
    services = Services()

    @services.store("*")
    async def store(request: asyncdicom.StoreRequest) -> int:
        await anyio.sleep(0.03)  # see Archive
        return answer

    async with Server(services, "HERE@127.0.0.1:0") as server:
        scp.answers("move", destination(server.addresses[0].port), 2, *instances(GOOD, OTHER))
        async with scp.connect([sop.PATIENT_ROOT_MOVE]) as assoc:
            move = assoc.move(PatientID="1", level="PATIENT", destination="HERE", check=False)
            async for _ in move:
                pass
            check_final(move.response, status, counters)
            assert move.response is not None
            failed = sorted((GOOD.sop_instance_uid, OTHER.sop_instance_uid)) if counters[1] else []
            assert sorted(move.response.failed_sop_instance_uids) == failed


async def test_a_study_is_stored_and_got(scp: Scp) -> None:
    kept: dict[str, Any] = {}

    def store(event: Any) -> int:
        data_set = event.dataset
        data_set.file_meta = event.file_meta
        kept[str(event.request.AffectedSOPInstanceUID)] = data_set
        return 0x0000

    def get(event: Any) -> Iterator[Any]:
        yield len(kept)
        for data_set in kept.values():
            yield 0xFF00, data_set

    scp.handlers |= {"store": store, "get": get}
    async with scp.connect([sop.STUDY_ROOT_GET, *storage_contexts(study())]) as assoc:
        for item in study():
            await assoc.store(item.path)
        async with assoc.get(StudyInstanceUID="1", level="STUDY") as got:
            received = {instance.sop_instance_uid: await instance.read() async for instance in got}
        check_final(got.response, 0x0000, (len(study()), 0, 0))
    assert set(received) == {item.sop_instance_uid for item in study()}
