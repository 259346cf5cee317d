"""Our client against pynetdicom's SCP: every operation, and every status that it can be made to answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from anyio import to_thread
from pydicom import Dataset

import asyncdicom
from asyncdicom import (
    Category,
    Instance,
    NoPresentationContext,
    Server,
    Services,
    Status,
    StatusError,
    sop,
)
from asyncdicom._quiet import quiet
from asyncdicom.dataset import decode_data_set

from .material import Archive, Sample, part10, sample, samples, storage_contexts, study
from .peers import free_port
from .scp import Scp, running_scp
from .scu import match, unencodable, with_status

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

#: pynetdicom logs what its own handlers do wrong, which is right where a test makes them.
own_errors = pytest.mark.complains("")

GOOD = sample("MR_small.dcm")
OTHER = sample("CT_small.dcm")
COMPRESSED = sample("MR_small_RLE.dcm")

#: The categories of the statuses that the tests provoke (PS3.7 Annex C).
CATEGORIES = {0x0000: Category.SUCCESS, 0xFE00: Category.CANCEL, 0xFF00: Category.PENDING, 0xFF01: Category.PENDING}


def category(code: int) -> Category:
    if code in CATEGORIES:
        return CATEGORIES[code]
    return Category.WARNING if code in (0x0001, 0x0107, 0x0116) or code >> 12 == 0xB else Category.FAILURE


@pytest.fixture(scope="module")
def running() -> Iterator[Scp]:
    with running_scp() as scp:
        yield scp


@pytest.fixture
def scp(running: Scp) -> Scp:
    """Give a pynetdicom SCP without any handlers of an earlier test."""
    running.reset()
    return running


def instances(*items: Sample) -> list[Any]:
    return [(0xFF00, part10(item)) for item in items]


# C-ECHO.


@pytest.mark.parametrize("status", [0x0000, 0x0122, 0x0210, 0x0211, 0x0212, 0xC123])
@own_errors
async def test_an_echo_has_the_status_of_the_peer(scp: Scp, status: int) -> None:
    scp.answers("echo", status)
    async with scp.connect([sop.VERIFICATION]) as assoc:
        response = await assoc.echo(check=False)
        assert (response.status, response.status.category) == (status, category(status))
        if response.status.is_failure:
            with pytest.raises(StatusError) as caught:
                await assoc.echo()
            assert caught.value.status == status


# C-STORE.

STORES: list[tuple[Any, int]] = [
    *((code, code) for code in (0x0000, 0x0111, 0x0117, 0x0122, 0x0124, 0x0210, 0x0211, 0x0212, 0xA700, 0xA900)),
    *((code, code) for code in (0xB000, 0xB006, 0xB007, 0xC000, 0xC123)),
    (with_status(0xB006), 0xB006),
    (with_status(None), 0xC001),
    ("0000", 0xC002),
    (ValueError("a bug"), 0xC211),
]


@on_asyncio
@pytest.mark.parametrize(("answer", "status"), STORES, ids=[f"{n}-{row[1]:04X}" for n, row in enumerate(STORES)])
@own_errors
async def test_a_store_has_the_status_of_the_peer(scp: Scp, answer: Any, status: int) -> None:
    scp.answers("store", answer)
    async with scp.connect(storage_contexts([GOOD])) as assoc:
        response = await assoc.store(GOOD.path, check=False)
        assert (response.status, response.status.category) == (status, category(status))
        assert response.affected_sop_instance_uid == GOOD.sop_instance_uid
        if response.status.is_failure:
            with pytest.raises(StatusError, match=f"{status:04x}"):
                await assoc.store(GOOD.path)
        assert {event.request.AffectedSOPInstanceUID for event in scp.requests} == {GOOD.sop_instance_uid}


async def test_every_sample_arrives_byte_by_byte(scp: Scp) -> None:
    async with scp.connect(storage_contexts(samples())) as assoc:
        for item in samples():
            response = await assoc.store(item.path, priority=1)
            assert response.status == 0x0000, item.name
            [event] = scp.requests
            assert event.request.DataSet.getvalue() == item.on_the_wire, item.name
            assert event.context.transfer_syntax == item.transfer_syntax_uid
            assert (event.request.AffectedSOPClassUID, event.request.Priority) == (item.sop_class_uid, 1)
            scp.requests.clear()


@on_asyncio
async def test_a_data_set_and_an_instance_are_stored_too(scp: Scp) -> None:
    async with scp.connect(storage_contexts([GOOD])) as assoc:
        await assoc.store(part10(GOOD))
        await assoc.store(GOOD.instance())
        await assoc.store(Instance.from_file(GOOD.path), move_originator=("ORIGIN", 17))
        with quiet():
            first, second, third = (event.dataset for event in scp.requests)
            assert first == second == third
        request = scp.requests[2].request
        assert (request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID) == ("ORIGIN", 17)


# C-FIND.

FINDS: list[tuple[list[Any], list[int]]] = [
    ([(0x0000, None)], [0x0000]),
    ([(0xFF00, match()), (0xFF01, match())], [0xFF00, 0xFF01, 0x0000]),
    ([(0xFF00, match()), (0xFE00, None)], [0xFF00, 0xFE00]),
    ([(0xA700, None)], [0xA700]),
    ([(0xA900, None)], [0xA900]),
    ([(0x0122, None)], [0x0122]),
    ([(0xC310, None)], [0xC310]),
    ([(0xC123, None)], [0xC123]),
    ([(with_status(None), None)], [0xC001]),
    ([("0000", None)], [0xC002]),
    ([ValueError("a bug")], [0xC311]),
    ([(0xFF00, match()), ValueError("a bug")], [0xFF00, 0xC311]),
    ([(0xFF00, unencodable())], [0xC312]),
    ([(0xB001, None)], [0xB001]),
    ([(0x0001, None)], [0x0001]),
]


@pytest.mark.parametrize(
    ("items", "expected"), FINDS, ids=[f"{number}-{row[1][-1]:04X}" for number, row in enumerate(FINDS)]
)
@pytest.mark.filterwarnings("ignore:.*US")
@own_errors
async def test_a_find_has_the_statuses_of_the_peer(scp: Scp, items: list[Any], expected: list[int]) -> None:
    scp.answers("find", *items)
    final = expected[-1]
    async with scp.connect([sop.PATIENT_ROOT_FIND, sop.VERIFICATION]) as assoc:
        found = assoc.find(PatientID="*", level="PATIENT", check=False)
        assert [str(item.PatientID) async for item in found] == ["1"] * (len(expected) - 1)
        assert found.response is not None
        assert (found.response.status, found.response.status.category) == (final, category(final))
        checked = assoc.find(PatientID="*", level="PATIENT")
        if category(final) in (Category.FAILURE, Category.CANCEL):
            with pytest.raises(StatusError) as caught:
                async for _ in checked:
                    pass
            assert caught.value.status == final
        else:
            assert len([item async for item in checked]) == len(expected) - 1
        await assoc.echo()


@pytest.mark.parametrize("model", sop.FIND)
async def test_each_model_is_found_with(scp: Scp, model: sop.SOPClass) -> None:
    scp.answers("find", (0xFF00, match(PatientName="Łukasz", SpecificCharacterSet="ISO_IR 192")))
    async with scp.connect([model]) as assoc:
        # Model and level are what is left to say.
        [found] = [item async for item in assoc.find(PatientName="Ł*", level="PATIENT")]
        assert found.PatientName == "Łukasz"
    [event] = scp.requests
    assert event.request.AffectedSOPClassUID == model
    assert (event.identifier.PatientName, event.identifier.SpecificCharacterSet) == ("Ł*", "ISO_IR 192")


@own_errors
async def test_the_elements_of_a_status_arrive(scp: Scp) -> None:
    status = with_status(0xC123, comment="what is wrong", offending=[0x00100020, 0x00080052])
    scp.answers("find", (status, None))
    async with scp.connect([sop.PATIENT_ROOT_FIND]) as assoc:
        with pytest.raises(StatusError, match="what is wrong") as caught:
            async for _ in assoc.find(PatientID="*", level="PATIENT"):
                pass
    response = caught.value.response
    assert response is not None
    assert (caught.value.status, caught.value.comment) == (0xC123, "what is wrong")
    assert response.offending_element == (0x00100020, 0x00080052)


async def test_a_find_with_a_limit_cancels(scp: Scp) -> None:
    cancelled = threading.Event()

    def find(event: Any) -> Iterator[Any]:
        for number in range(2000):
            if event.is_cancelled:
                cancelled.set()
                yield 0xFE00, None
                return
            yield 0xFF00, match(PatientID=str(number))
            # It looks for a C-CANCEL only when it has nothing more to send.
            threading.Event().wait(0.002)

    scp.handlers["find"] = find
    async with scp.connect([sop.PATIENT_ROOT_FIND, sop.VERIFICATION]) as assoc:
        async with assoc.find(PatientID="*", level="PATIENT", limit=3) as found:
            assert [str(item.PatientID) async for item in found] == ["0", "1", "2"]
        assert found.truncated
        assert found.response is not None
        assert found.response.status == 0xFE00
        assert cancelled.is_set()
        await assoc.echo()


@pytest.mark.parametrize("how", ["break", "raise", "cancel", "timeout"])
async def test_a_find_that_is_left_cancels(scp: Scp, how: str) -> None:
    cancelled = threading.Event()

    def find(event: Any) -> Iterator[Any]:
        yield 0xFF00, match()
        for _ in range(2000):
            if event.is_cancelled:
                cancelled.set()
                yield 0xFE00, None
                return
            threading.Event().wait(0.002)
        yield 0xC123, None

    scp.handlers["find"] = find
    async with scp.connect([sop.PATIENT_ROOT_FIND, sop.VERIFICATION]) as assoc:
        found = assoc.find(PatientID="*", level="PATIENT")
        with anyio.move_on_after(0.1 if how == "timeout" else 20) as scope:
            try:
                async with found:
                    async for _ in found:
                        if how == "break":
                            break
                        if how == "raise":
                            raise KeyError("the caller's own")
                        if how == "cancel":
                            scope.cancel()
            except KeyError:
                assert how == "raise"
        assert cancelled.is_set()
        assert found.response is not None
        assert found.response.status == 0xFE00
        await assoc.echo()


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


@pytest.mark.parametrize("model", sop.GET)
async def test_each_model_is_got_with(scp: Scp, model: sop.SOPClass) -> None:
    without = model == sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET
    data_set = part10(GOOD)
    if without:
        del data_set.PixelData
    scp.answers("get", 1, (0xFF00, data_set))
    async with scp.connect(contexts_for_get(model)) as assoc:
        async with assoc.get(PatientID="1", level="PATIENT", model=model) as got:
            received = [(instance, await instance.read()) async for instance in got]
        check_final(got.response, 0x0000, (1, 0, 0))
    [(instance, data)] = received
    assert instance.sop_instance_uid == GOOD.sop_instance_uid
    assert instance.bulk_data_removed is without
    with quiet():
        assert "PatientID" in decode_data_set(data, instance.transfer_syntax_uid)
    assert {event.request.AffectedSOPClassUID for event in scp.requests} == {model}


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
    archive = Archive()
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


@pytest.mark.parametrize("model", sop.MOVE)
async def test_each_model_is_moved_with(scp: Scp, model: sop.SOPClass) -> None:
    archive = Archive()
    async with Server(archive.services(), "HERE@127.0.0.1:0") as server:
        scp.answers("move", destination(server.addresses[0].port), 1, *instances(GOOD))
        async with scp.connect([model]) as assoc:
            move = assoc.move(PatientID="1", level="PATIENT", destination="HERE")
            assert [item.completed async for item in move] == [1]
            check_final(move.response, 0x0000, (1, 0, 0))
    assert list(archive.data) == [GOOD.sop_instance_uid]
    assert {event.request.AffectedSOPClassUID for event in scp.requests} == {model}


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
    archive = Archive()
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


# N services.

FILM_SESSION, PRINTER = sop.BASIC_FILM_SESSION, sop.PRINTER


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (0x0000, match()),
        (0x0000, None),
        (0x0107, match()),
        (0x0116, match()),
        (0x0110, None),
        (0x0112, None),
        (0xC123, None),
    ],
)
@on_asyncio
@own_errors
async def test_the_normalised_services_have_the_statuses_of_the_peer(
    scp: Scp, status: int, data: Dataset | None
) -> None:
    for name in ("n_create", "n_set", "n_get", "n_action", "n_event_report"):
        scp.answers(name, (status, data))
    scp.answers("n_delete", status)
    async with scp.connect([FILM_SESSION, PRINTER]) as assoc:
        responses = [
            await assoc.n_create(match(), FILM_SESSION, "1.2.3", check=False),
            await assoc.n_set(match(), FILM_SESSION, "1.2.3", check=False),
            await assoc.n_get([0x00100020, 0x00100010], PRINTER, "1.2.3", check=False),
            await assoc.n_action(match(), 5, FILM_SESSION, "1.2.3", check=False),
            await assoc.n_event_report(match(), 6, PRINTER, "1.2.3", check=False),
            await assoc.n_delete(FILM_SESSION, "1.2.3", check=False),
        ]
    assert [response.status for response in responses] == [status] * 6
    if data is not None:
        assert [r.data_set.PatientID for r in responses[:5] if r.data_set is not None] == ["1"] * 5
    events = scp.requests
    assert [type(event.request).__name__ for event in events] == [
        "N_CREATE",
        "N_SET",
        "N_GET",
        "N_ACTION",
        "N_EVENT_REPORT",
        "N_DELETE",
    ]
    assert events[0].attribute_list == match()
    assert [int(tag) for tag in events[2].attribute_identifiers] == [0x00100020, 0x00100010]
    assert (events[3].action_type, events[4].event_type) == (5, 6)


async def test_storage_commitment_is_reported_on_the_same_association(scp: Scp) -> None:
    instance = "1.2.840.10008.1.20.1.1"
    reported = anyio.Event()
    seen: list[tuple[int | None, str | None, str]] = []
    services = Services()

    @services.n_event_report(sop.STORAGE_COMMITMENT_PUSH_MODEL)
    async def report(request: asyncdicom.NRequest) -> int:
        assert request.data_set is not None
        seen.append((request.event_type_id, request.sop_instance_uid, request.data_set.TransactionUID))
        reported.set()
        return 0x0000

    answers: list[int] = []

    def action(event: Any) -> tuple[int, None]:
        def later() -> None:
            result = Dataset()
            result.TransactionUID = event.action_information.TransactionUID
            status, _ = event.assoc.send_n_event_report(result, 1, sop.STORAGE_COMMITMENT_PUSH_MODEL, instance)
            answers.append(status.Status)

        thread = threading.Thread(target=later)
        threads.append(thread)
        thread.start()
        return 0x0000, None

    threads: list[threading.Thread] = []
    scp.handlers["n_action"] = action
    context = asyncdicom.PresentationContext(
        abstract_syntax=sop.STORAGE_COMMITMENT_PUSH_MODEL, scu_role=True, scp_role=False
    )
    async with scp.connect([context], services=services) as assoc:
        request = Dataset()
        request.TransactionUID = "1.2.3.4"
        response = await assoc.n_action(request, 1, sop.STORAGE_COMMITMENT_PUSH_MODEL, instance)
        assert response.status == 0x0000
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(assoc.wait_closed)
            with anyio.fail_after(10):
                await reported.wait()
                await to_thread.run_sync(threads[0].join)
            tasks.cancel_scope.cancel()
    assert (seen, answers) == ([(1, instance, "1.2.3.4")], [0x0000])


# Others.


@on_asyncio
async def test_what_was_not_proposed_cannot_be_asked_for(scp: Scp) -> None:
    async with scp.connect([sop.VERIFICATION]) as assoc:
        with pytest.raises(NoPresentationContext):
            async for _ in assoc.find(PatientID="1", level="PATIENT"):
                pass
        with pytest.raises(NoPresentationContext):
            await assoc.store(GOOD.path)
        await assoc.echo()


async def test_many_associations_at_once(scp: Scp) -> None:
    scp.answers("find", *((0xFF00, match(PatientID=str(number))) for number in range(20)))

    async def use() -> None:
        async with scp.connect([sop.PATIENT_ROOT_FIND, *storage_contexts([GOOD])]) as assoc:
            assert len([item async for item in assoc.find(PatientID="", level="PATIENT")]) == 20
            await assoc.store(GOOD.path)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(use)


async def test_every_status_of_a_peer_has_a_meaning() -> None:
    for code in range(0, 0x10000, 7):
        status = Status(code)
        assert status.meaning
        assert status.category is category(code)


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
