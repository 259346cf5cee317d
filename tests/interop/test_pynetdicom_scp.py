"""Our client against pynetdicom's SCP: operations with one answer, C-FIND, and every status of theirs."""

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
    Services,
    Status,
    StatusError,
    sop,
)
from asyncdicom._quiet import quiet

from .material import Sample, part10, sample, samples, storage_contexts
from .scp import Scp, category
from .scu import match, unencodable, with_status

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

#: pynetdicom logs what its own handlers do wrong, which is right where a test makes them.
own_errors = pytest.mark.complains("")

GOOD = sample("MR_small.dcm")
OTHER = sample("CT_small.dcm")
COMPRESSED = sample("MR_small_RLE.dcm")


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
