"""C-FIND, C-GET and C-MOVE as SCU, against a peer that plays its part byte by byte."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pydicom
import pytest
from anyio import wait_all_tasks_blocked
from pydicom import Dataset

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import MemoryStream, Received, ScriptedPeer

from .harness import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_FIND_RQ,
    C_GET_RQ,
    C_MOVE_RQ,
    C_STORE_RSP,
    CONTEXTS,
    CT_ID,
    FIND_ID,
    GET_ID,
    MOVE_ID,
    counters,
    ct_bytes,
    element,
    expect_abort,
    finish,
    identifier,
    scripted,
    store_elements,
)

pytestmark = pytest.mark.anyio

VERBS = ("find", "get", "move")
REQUESTS = {"find": C_FIND_RQ, "get": C_GET_RQ, "move": C_MOVE_RQ}
MODELS = {"find": sop.STUDY_ROOT_FIND, "get": sop.STUDY_ROOT_GET, "move": sop.STUDY_ROOT_MOVE}
IDS = {"find": FIND_ID, "get": GET_ID, "move": MOVE_ID}

every_verb = pytest.mark.parametrize("verb", VERBS)


def operation(assoc: asyncdicom.Association, verb: str, query: Any = None, **options: Any) -> Any:
    if verb == "move":
        options["destination"] = "ELSEWHERE"
    return getattr(assoc, verb)(identifier() if query is None else query, **options)


def answering(verb: str, *statuses: int, data_set: bytes | None = None) -> Callable[[ScriptedPeer], Any]:
    """A script that answers an operation with statuses and no items, then an echo."""

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(REQUESTS[verb])
        for status in statuses:
            await peer.respond(request, status, data_set)
        await finish(peer)

    return script


# The request.


@every_verb
async def test_the_request_has_its_elements_and_its_identifier(verb: str) -> None:
    seen: list[Received] = []

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(REQUESTS[verb])
        seen.append(request)
        await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with scripted(script) as assoc:
        assert [item async for item in operation(assoc, verb, identifier("42"), priority=1)] == []
    (request,) = seen
    assert request.context_id == IDS[verb]
    assert request.text(0x00000002) == MODELS[verb]
    assert (request.number(0x00000110), request.number(0x00000700)) == (1, 1)
    assert request.text(0x00000600) == ("ELSEWHERE" if verb == "move" else None)
    assert sorted(request.command) == sorted({0, 2, 0x100, 0x110, 0x700, 0x800, *([0x600] if verb == "move" else [])})
    assert request.data_set == identifier("42")
    assert all(size % 2 == 0 for size in request.fragments)


@pytest.mark.parametrize(
    ("query", "keys", "encoded"),
    [
        (None, {"PatientID": "1"}, identifier("1")),
        ({"PatientID": "1"}, {}, identifier("1")),
        ({"0010,0020": "1"}, {}, identifier("1")),
        (None, {"PatientID": "1", "level": "study"}, element(8, 0x52, "CS", b"STUDY ") + identifier("1")),
        ({"PatientID": ""}, {}, element(0x10, 0x20, "LO", b"")),
        ({"PatientID": None}, {}, element(0x10, 0x20, "LO", b"")),
        (
            {"PatientName": "Müller"},
            {},
            element(8, 5, "CS", b"ISO_IR 192") + element(0x10, 0x10, "PN", "Müller ".encode()),
        ),
    ],
)
async def test_identifiers_are_made_of_keywords_and_mappings(query: Any, keys: dict[str, Any], encoded: bytes) -> None:
    seen: list[bytes | None] = []

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        seen.append(request.data_set)
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc:
        assert [match async for match in assoc.find(query, **keys)] == []
        await assoc.echo()
    assert seen == [encoded]


async def test_a_data_set_that_is_a_query_is_not_changed() -> None:
    query = Dataset()
    query.PatientID = "1"
    async with scripted(answering("find", 0x0000)) as assoc:
        assert [match async for match in assoc.find(query, level="PATIENT", StudyDate="")] == []
        await assoc.echo()
    assert list(query.keys()) == [0x00100020]


@pytest.mark.parametrize(
    ("query", "keys", "error", "reason"),
    [
        (None, {}, asyncdicom.LocalProtocolError, "empty"),
        ({"NoSuchKeyword": "1"}, {}, asyncdicom.LocalProtocolError, "NoSuchKeyword"),
        ("PATIENT", {}, asyncdicom.LocalProtocolError, "not str"),
        ({"PatientID": "1"}, {"limit": 0}, asyncdicom.LocalProtocolError, "limit"),
        ({"Rows": "many"}, {}, asyncdicom.DataSetError, "0028,0010"),
        ({"PatientID": "1"}, {"model": sop.PATIENT_ROOT_FIND}, asyncdicom.NoPresentationContext, "not proposed"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_and_nothing_is_sent(
    query: Any, keys: dict[str, Any], error: type[Exception], reason: str
) -> None:
    async with scripted(finish) as assoc:
        with pytest.raises(error, match=reason):
            await anext(assoc.find(query, **keys))
        await assoc.echo()


@pytest.mark.parametrize("destination", ["", "TOO LONG FOR AN AE TITLE", "BACK\\SLASH", "CR\r"])
async def test_a_destination_that_is_no_ae_title_is_refused(destination: str) -> None:
    async with scripted(finish) as assoc:
        with pytest.raises(ValueError, match="AE title"):
            assoc.move(identifier(), destination=destination)
        await assoc.echo()


@pytest.mark.parametrize(
    ("accepted", "used"),
    [
        ([sop.PATIENT_ROOT_FIND], sop.PATIENT_ROOT_FIND),
        ([sop.PATIENT_ROOT_FIND, sop.STUDY_ROOT_FIND], sop.STUDY_ROOT_FIND),
        ([sop.MODALITY_WORKLIST_INFORMATION_MODEL_FIND], sop.MODALITY_WORKLIST_INFORMATION_MODEL_FIND),
    ],
)
async def test_the_information_model_is_the_only_one_or_study_root(accepted: list[str], used: str) -> None:
    seen: list[str | None] = []

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        seen.append(request.text(2))
        await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with scripted(script, contexts=[sop.VERIFICATION, *accepted]) as assoc:
        assert [match async for match in assoc.find(identifier())] == []
    assert seen == [used]


# Final responses.


@every_verb
@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB001, 0x0001, 0x0107, 0x0116])
async def test_success_and_warning_end_the_loop_and_are_kept(verb: str, status: int) -> None:
    async with scripted(answering(verb, status)) as assoc:
        results = operation(assoc, verb)
        assert [item async for item in results] == []
        assert results.response.status == status
        assert results.response.message_id == 1
        assert not results.truncated
        assert (await assoc.echo()).status == 0


@every_verb
@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0x0122, 0x0110, 0x1234, 0xFE00])
async def test_a_failure_and_a_cancel_that_nobody_asked_for_raise_unless_unchecked(verb: str, status: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for _ in range(2):
            request = await peer.expect_message(REQUESTS[verb])
            await peer.respond(request, status, elements={0x00000902: b"no reason "})
        await finish(peer)

    async with scripted(script) as assoc:
        results = operation(assoc, verb)
        with pytest.raises(asyncdicom.StatusError, match="no reason") as caught:
            await results.__anext__()
        assert caught.value.status == status
        assert caught.value.comment == "no reason"
        assert caught.value.response is results.response
        assert [item async for item in results] == []
        unchecked = operation(assoc, verb, check=False)
        assert [item async for item in unchecked] == []
        assert unchecked.response.status == status
        assert unchecked.response.error_comment == "no reason"
        assert (await assoc.echo()).status == 0


async def test_a_final_failure_raises_after_the_last_item() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.send(
            peer.response(request, 0xFF00, identifier("1")),
            peer.response(request, 0xFF01, identifier("2")),
            peer.response(request, 0xA700),
        )
        await finish(peer)

    async with scripted(script) as assoc:
        found = []
        with pytest.raises(asyncdicom.StatusError):  # noqa: PT012
            async for match in assoc.find(identifier()):
                found.append(match.PatientID)
        assert found == ["1", "2"]
        assert (await assoc.echo()).status == 0


async def test_the_failed_list_is_in_the_response_also_when_it_raises() -> None:
    failed = element(8, 0x58, "UI", b"1.2.3\\1.2.4\0")

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_MOVE_RQ)
        await peer.respond(request, 0xA702, failed, counters(0, 0, 2))
        request = await peer.expect_message(C_MOVE_RQ)
        await peer.respond(request, 0xB000, failed[:-6] + b"1.2.4\0", counters(0, 1, 1))
        await finish(peer)

    async with scripted(script) as assoc:
        results = assoc.move(identifier(), destination="WS")
        with pytest.raises(asyncdicom.StatusError):
            await results.__anext__()
        assert results.response is not None
        assert results.response.failed_sop_instance_uids == ["1.2.3", "1.2.4"]
        assert results.progress == asyncdicom.Progress(0, 0, 2, 0)
        results = assoc.move(identifier(), destination="WS")
        assert [progress async for progress in results] == []
        assert results.response is not None
        assert results.response.progress.completed == 1
        assert (await assoc.echo()).status == 0


async def test_a_failed_list_that_cannot_be_decoded_is_a_data_set_error_when_it_is_asked_for() -> None:
    async with scripted(answering("get", 0xB000, data_set=b"\x08\x00\x58\x00UI\xff\xff1")) as assoc:
        results = assoc.get(identifier())
        assert [instance async for instance in results] == []
        assert results.response is not None
        with pytest.raises(asyncdicom.DataSetError):
            _ = results.response.failed_sop_instance_uids
        assert (await assoc.echo()).status == 0


# What real peers do against the standard, and what is done about it.


async def test_a_pending_find_response_without_identifier_is_no_match_and_a_final_one_may_have_one() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00)
        await peer.respond(request, 0xFF00, identifier("2"))
        await peer.respond(request, 0x0000, identifier("3"))
        await finish(peer)

    async with scripted(script) as assoc:
        results = assoc.find(identifier())
        assert [match.PatientID async for match in results] == ["2"]
        assert results.response is not None
        assert results.response.data_set == _dataset("3")
        await assoc.echo()


def _dataset(patient_id: str) -> Dataset:
    dataset = Dataset()
    dataset.PatientID = patient_id
    return dataset


async def test_a_match_that_cannot_be_decoded_raises_cancels_and_leaves_the_association() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00, b"\x10\x00\x20\x00LO\xff\x7f1")
        await peer.expect_message(C_CANCEL_RQ)
        await peer.respond(request, 0xFE00)
        await finish(peer)

    async with scripted(script) as assoc:
        with pytest.raises(asyncdicom.DataSetError):
            await anext(assoc.find(identifier()))
        assert (await assoc.echo()).status == 0


@pytest.mark.parametrize(
    ("given", "progress"),
    [
        ({}, asyncdicom.Progress()),
        (counters(3, 1), asyncdicom.Progress(3, 1, 0, 0)),
        (counters(1, 4, 2, 3), asyncdicom.Progress(1, 4, 2, 3)),
        (counters(65_535, 0), asyncdicom.Progress(65_535, 0, 0, 0)),
        ({0x00001021: 7}, asyncdicom.Progress(None, 7, None, None)),
    ],
)
async def test_progress_is_what_the_peer_says_also_backwards_or_nothing(
    given: dict[int, int | str | bytes], progress: asyncdicom.Progress
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_MOVE_RQ)
        await peer.respond(request, 0xFF00, identifier(), given)
        await peer.respond(request, 0x0000, elements=given)
        await finish(peer)

    async with scripted(script) as assoc:
        results = assoc.move(identifier(), destination="WS")
        assert [found async for found in results] == [progress]
        assert results.progress == progress
        assert results.response is not None
        assert results.response.progress == progress
        await assoc.echo()


def test_the_total_of_a_progress_needs_the_remaining_ones() -> None:
    assert asyncdicom.Progress(3, 2, 1, 0).total == 6
    assert asyncdicom.Progress(3).total == 3
    assert asyncdicom.Progress(None, 2, 1, 0).total is None


@every_verb
async def test_responses_to_nobody_and_after_the_end_are_ignored(verb: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(REQUESTS[verb])
        stray = Received(
            context_id=request.context_id,
            command={**request.command, 0x110: b"\x63\x00"},
            data_set=None,
            fragments=(),
        )
        await peer.send(
            peer.response(stray, 0x0000),
            peer.response(stray, 0xFF00, identifier()),
            peer.response(request, 0x0000),
            peer.response(request, 0xFF00, identifier()),
            peer.response(request, 0xA700),
        )
        await finish(peer)

    async with scripted(script) as assoc:
        assert [item async for item in operation(assoc, verb)] == []
        assert (await assoc.echo()).status == 0


@every_verb
@pytest.mark.parametrize("field", [0x8030, 0x8001, 0x8110])
async def test_a_response_of_another_type_aborts(verb: str, field: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(REQUESTS[verb])
        await peer.respond(request, 0x0000, elements={0x00000100: field})
        await expect_abort(peer)

    async with scripted(script) as assoc:
        with pytest.raises(asyncdicom.RemoteProtocolError, match="answers a request for"):
            await operation(assoc, verb).__anext__()
        assert assoc.ended


@every_verb
async def test_a_response_without_a_status_aborts(verb: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(REQUESTS[verb])
        elements: dict[int, int | str | bytes] = {0x100: REQUESTS[verb] | 0x8000, 0x120: request.message_id}
        await peer.send_message(request.context_id, elements)
        assert await expect_abort(peer) == (0, 0)

    async with scripted(script) as assoc:
        with pytest.raises(asyncdicom.RemoteProtocolError, match="status is missing"):
            await operation(assoc, verb).__anext__()


async def test_an_identifier_over_the_limit_is_a_data_set_error_and_is_not_kept() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00, identifier("1" * 20_000))
        await peer.expect_message(C_CANCEL_RQ)
        await peer.respond(request, 0xFE00)
        await finish(peer)

    async with scripted(script, limits=asyncdicom.Limits(identifier=10_000)) as assoc:
        with pytest.raises(asyncdicom.DataSetError, match="longer than"):
            await anext(assoc.find(identifier()))
        assert (await assoc.echo()).status == 0


async def test_an_instance_over_the_limit_is_a_data_set_error_and_the_rest_is_discarded() -> None:
    play = OneInstance(size=50_000)
    async with scripted(play, limits=asyncdicom.Limits(data_set=10_000)) as assoc:
        with pytest.raises(asyncdicom.DataSetError, match="more than 10000 bytes"):  # noqa: PT012
            async with assoc.get(identifier()) as instances:
                async for instance in instances:
                    await instance.read()
        assert (await assoc.echo()).status == 0
    assert play.status == 0xC211


async def test_sub_operations_of_two_retrievals_at_once_go_to_the_one_that_they_name() -> None:
    async def script(peer: ScriptedPeer) -> None:
        requests = [await peer.expect_message(C_GET_RQ) for _ in range(2)]
        for number, request in enumerate(reversed(requests)):
            elements = store_elements(50 + number, f"1.2.{request.message_id}")
            await peer.send_message(CT_ID, {**elements, 0x1030: b"ASYNCDICOM", 0x1031: request.message_id}, ct_bytes())
            assert (await peer.expect_message(C_STORE_RSP)).status == 0
        for request in requests:
            await peer.respond(request, 0)
        await finish(peer)

    got: list[tuple[int, list[str]]] = []

    async def get(assoc: asyncdicom.Association) -> None:
        instances = assoc.get(identifier())
        uids = []
        async for instance in instances:
            await instance.read()
            uids.append(instance.sop_instance_uid)
        assert instances.response is not None
        got.append((instances.response.message_id, uids))

    async with scripted(script, accept={"window": (2, 2)}, async_operations=(2, 2)) as assoc:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get, assoc)
            tasks.start_soon(get, assoc)
        await assoc.echo()
    assert sorted(got) == [(1, ["1.2.1"]), (2, ["1.2.2"])]


# Limits, and what a slow consumer does to the peer.


@pytest.mark.parametrize("more", [0, 1, 5])
async def test_a_limit_delivers_so_many_then_cancels(more: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        for number in range(3 + more):
            await peer.respond(request, 0xFF00, identifier(str(number)))
        await peer.expect_message(C_CANCEL_RQ)
        await peer.respond(request, 0xFE00)
        await finish(peer)

    async with scripted(script) as assoc:
        async with assoc.find(identifier(), limit=3) as matches:
            assert [match.PatientID async for match in matches] == ["0", "1", "2"]
        assert matches.truncated
        assert matches.response is not None
        assert matches.response.status == 0xFE00
        await assoc.echo()


async def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00, identifier("0"))
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc:
        matches = assoc.find(identifier(), limit=2)
        assert [match.PatientID async for match in matches] == ["0"]
        assert not matches.truncated
        await assoc.echo()


async def test_an_endless_stream_of_matches_is_held_back_and_cut_by_the_limit() -> None:
    sent = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal sent
        request = await peer.expect_message(C_FIND_RQ)
        match = peer.response(request, 0xFF00, identifier())

        async def cancelled() -> None:
            await peer.expect_message(C_CANCEL_RQ)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled)
            while True:
                await peer.send(match)
                sent += 1
        # The send that was cut short ends in the middle of a PDU: the peer is gone.
        await peer.aclose()

    async with scripted(script, max_buffer=10_000, timeouts=asyncdicom.Timeouts(cancel=0.2)) as assoc:
        async with assoc.find(identifier(), limit=100) as matches:
            assert len([match async for match in matches]) == 100
        assert sent < 100 + 2 * 10_000 // 100
        assert assoc.ended


#: Matches so long that few of them are much.
LONG = identifier("1" * 10_000)
MANY = 400


async def test_while_others_wait_the_matches_of_a_slow_consumer_do_not_pile_up() -> None:
    sent = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal sent
        request = await peer.expect_message(C_FIND_RQ)
        for _ in range(MANY):
            await peer.respond(request, 0xFF00, LONG)
            sent += 1
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, max_buffer=10_000) as assoc:
        matches = assoc.find(identifier())
        await matches.__anext__()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(assoc.echo)
            await wait_all_tasks_blocked()
            assert sent < MANY / 2
            assert len([match async for match in matches]) == MANY - 1


async def test_who_waits_for_something_else_than_his_own_full_query_is_told_instead_of_waiting_for_ever() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00, LONG)
        echo = await peer.expect_message(C_ECHO_RQ)
        for _ in range(MANY):
            await peer.respond(request, 0xFF00, LONG)
        await peer.respond(echo, 0x0000)
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, accept={"window": (2, 1)}, async_operations=(2, 1)) as assoc:
        matches = assoc.find(identifier())
        await anext(matches)
        with pytest.raises(asyncdicom.ConcurrencyError, match="C-FIND"):
            await assoc.echo()
        assert len([match async for match in matches]) == MANY
        await assoc.echo()


async def test_so_is_he_while_somebody_else_waits_for_that_room_already() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00, LONG)
        echo = await peer.expect_message(C_ECHO_RQ)
        for _ in range(MANY):
            await peer.respond(request, 0xFF00, LONG)
        for other in (echo, await peer.expect_message(C_ECHO_RQ)):
            await peer.respond(other, 0x0000)
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, accept={"window": (3, 1)}, async_operations=(3, 1)) as assoc:
        matches = assoc.find(identifier())
        await anext(matches)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(assoc.echo)
            await wait_all_tasks_blocked()
            with pytest.raises(asyncdicom.ConcurrencyError, match="C-FIND"):
                await assoc.echo()
            assert len([match async for match in matches]) == MANY
        await assoc.echo()


async def test_a_consumer_that_is_slow_costs_those_who_wait_no_timeout() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        echo = await peer.expect_message(C_ECHO_RQ)
        await peer.send(
            peer.response(request, 0xFF00, LONG) * MANY, peer.response(request, 0x0000), peer.response(echo, 0x0000)
        )
        await finish(peer)

    options: dict[str, Any] = {"accept": {"window": (2, 1)}, "async_operations": (2, 1)}
    async with scripted(script, timeouts=asyncdicom.Timeouts(response=1), **options) as assoc:
        matches = assoc.find(identifier())
        async with anyio.create_task_group() as tasks:

            async def echo() -> None:
                assert (await assoc.echo()).status == 0

            tasks.start_soon(echo)
            await matches.__anext__()
            await anyio.sleep(1.2)  # what the consumer does
            assert len([match async for match in matches]) == MANY - 1
        assert (await assoc.echo()).status == 0


async def test_an_operation_that_is_dropped_lets_those_who_wait_go_on() -> None:
    dropped = anyio.Event()

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        echo = await peer.expect_message(C_ECHO_RQ)
        await peer.send(peer.response(request, 0xFF00, LONG) * (MANY // 2))
        await dropped.wait()
        await peer.send(
            peer.response(request, 0xFF00, LONG) * (MANY // 2), peer.response(request, 0x0000), peer.response(echo, 0)
        )
        await finish(peer)

    options: dict[str, Any] = {"accept": {"window": (2, 1)}, "async_operations": (2, 1)}
    async with scripted(script, **options) as assoc:
        async with anyio.create_task_group() as tasks:
            matches = assoc.find(identifier())

            async def echo() -> None:
                assert (await assoc.echo()).status == 0

            tasks.start_soon(echo)
            await matches.__anext__()
            await wait_all_tasks_blocked()
            del matches
            dropped.set()
        assert (await assoc.echo()).status == 0


# The iterator.


@every_verb
async def test_an_operation_is_an_async_generator_and_a_context_manager(verb: str) -> None:
    async with scripted(answering(verb, 0x0000)) as assoc:
        results = operation(assoc, verb)
        async with results as entered:
            assert entered is results
            assert isinstance(entered, AsyncGenerator)
            with pytest.raises(StopAsyncIteration):
                await results.asend(None)
        assert aiter(results) is results
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        await assoc.echo()


@every_verb
async def test_an_operation_that_was_never_started_sends_nothing(verb: str) -> None:
    async with scripted(finish) as assoc:
        results = operation(assoc, verb)
        await results.aclose()
        assert [item async for item in results] == []
        async with operation(assoc, verb):
            pass
        operation(assoc, verb)
        gc.collect()
        with pytest.raises(KeyError):
            await operation(assoc, verb).athrow(KeyError)
        assert (await assoc.echo()).status == 0


@every_verb
async def test_two_tasks_may_not_iterate_at_once(verb: str) -> None:
    asked = anyio.Event()
    go_on = anyio.Event()

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(REQUESTS[verb])
        asked.set()
        await go_on.wait()
        await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with scripted(script) as assoc, anyio.create_task_group() as tasks:
        results = operation(assoc, verb)

        async def first() -> None:
            assert [item async for item in results] == []

        tasks.start_soon(first)
        await asked.wait()
        for use in (results.__anext__, results.aclose):
            with pytest.raises(asyncdicom.LocalProtocolError, match="another task"):
                await use()
        go_on.set()
    assert results.response is not None


async def test_an_operation_may_be_iterated_by_one_task_after_another() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        for number in range(3):
            await peer.respond(request, 0xFF00, identifier(str(number)))
        await peer.respond(request, 0x0000)
        await finish(peer)

    found: list[str] = []

    async with scripted(script) as assoc:
        matches = assoc.find(identifier())

        async def one() -> None:
            found.append((await anext(matches)).PatientID)

        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
        assert [match async for match in matches] == []
        await assoc.echo()
    assert found == ["0", "1", "2"]


# Deadlines.


@pytest.mark.parametrize(("verb", "kind"), [("find", "response"), ("get", "retrieve"), ("move", "retrieve")])
@pytest.mark.parametrize("items", [0, 2])
async def test_a_peer_that_falls_silent_is_aborted(verb: str, kind: str, items: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(REQUESTS[verb])
        for _ in range(items):
            await peer.respond(request, 0xFF00, identifier() if verb == "find" else None, counters(1, 1))
        assert await expect_abort(peer) == (0, 0)

    async with scripted(script, timeouts=asyncdicom.Timeouts(**{kind: 0.05})) as assoc:
        results = operation(assoc, verb)
        with pytest.raises(asyncdicom.OperationTimeout, match=kind) as caught:
            async for _ in results:
                pass
        assert caught.value.kind == kind
        assert isinstance(caught.value, TimeoutError)
        assert results.response is None
        with pytest.raises(asyncdicom.OperationTimeout):
            await assoc.echo()


async def test_an_identifier_that_is_announced_and_never_sent_is_a_message_timeout() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00, elements={0x0800: 1})
        assert await expect_abort(peer) == (0, 0)

    async with scripted(script, timeouts=asyncdicom.Timeouts(message=0.05)) as assoc:
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await anext(assoc.find(identifier()))
        assert caught.value.kind == "message"


async def test_a_message_that_drips_in_below_the_least_rate_is_a_message_timeout() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        with pytest.raises(anyio.BrokenResourceError):  # noqa: PT012
            for byte in peer.response(request, 0xFF00, identifier("1" * 10_000)):
                await peer.send(bytes([byte]))
                await anyio.sleep(0.02)

    timeouts = asyncdicom.Timeouts(message=0.2, abort=0.05)
    limits = asyncdicom.Limits(data_rate=1000)
    async with scripted(script, timeouts=timeouts, limits=limits) as assoc:
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await anext(assoc.find(identifier()))
        assert caught.value.kind == "message"


@pytest.mark.parametrize("verb", ["find", "get", "move"])
async def test_every_response_and_sub_operation_restarts_the_deadline(verb: str) -> None:
    pauses = 6

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(REQUESTS[verb])
        for number in range(pauses):
            await anyio.sleep(0.1)  # the peer works; together longer than the deadline
            if verb == "get" and number % 2:
                await peer.send_message(CT_ID, store_elements(number + 1), ct_bytes())
                await peer.expect_message(C_STORE_RSP)
            else:
                await peer.respond(request, 0xFF00, identifier() if verb == "find" else None)
        await peer.respond(request, 0x0000)
        await finish(peer)

    timeouts = asyncdicom.Timeouts(response=0.5, retrieve=0.5)
    async with scripted(script, timeouts=timeouts) as assoc:
        items = [item async for item in operation(assoc, verb)]
        assert len(items) == (pauses if verb != "get" else pauses // 2)
        await assoc.echo()


async def test_no_deadline_runs_while_user_code_holds_an_instance() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        await peer.send_message(CT_ID, store_elements(1), ct_bytes())
        await peer.expect_message(C_STORE_RSP)
        await peer.respond(request, 0x0000)
        await finish(peer)

    timeouts = asyncdicom.Timeouts(response=0.3, retrieve=0.3, message=0.3)
    async with scripted(script, timeouts=timeouts) as assoc:
        async for instance in assoc.get(identifier()):
            await anyio.sleep(0.5)  # the user works
            assert await instance.read() == ct_bytes()
        await assoc.echo()


# The sub-operations of a C-GET: each script sends one instance, and the final response after its C-STORE response.


class OneInstance:
    """A peer that sends one instance, and what the answer was."""

    def __init__(self, uid: str = "1.2.3.4", size: int = 1000, **elements: Any) -> None:
        self.uid = uid
        self.size = size
        self.elements = elements
        self.answer: Received | None = None
        self.cancelled = False

    async def __call__(self, peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        await peer.send_message(CT_ID, store_elements(77, self.uid), ct_bytes(self.size))
        self.answer = await peer.expect_message(C_STORE_RSP)
        assert (self.answer.context_id, self.answer.message_id, self.answer.data_set) == (CT_ID, 77, None)
        assert self.answer.text(2) == sop.CT_IMAGE_STORAGE
        await peer.respond(request, 0x0000, elements=counters(0, 1))
        following = await peer.expect_message()
        if following.command_field == C_CANCEL_RQ:
            self.cancelled = True
            following = await peer.expect_message()
        await peer.respond(following, 0x0000)
        await peer.confirm_release()

    @property
    def status(self) -> int | None:
        assert self.answer is not None
        return self.answer.status


Body = Callable[[Any], Any]


async def skip(instance: Any) -> None:
    pass


async def read(instance: Any) -> None:
    assert await instance.read() == ct_bytes()


async def iterate(instance: Any) -> None:
    assert b"".join([piece async for piece in instance.iter_data()]) == ct_bytes()


async def decode(instance: Any) -> None:
    dataset = await instance.dataset()
    assert dataset.SOPInstanceUID == "1.2.3.4"
    assert dataset.file_meta.TransferSyntaxUID == sop.EXPLICIT_VR_LITTLE_ENDIAN


async def accept(instance: Any) -> None:
    instance.accept()


async def override(instance: Any) -> None:
    await instance.read()
    instance.status = 0xB007


async def override_unread(instance: Any) -> None:
    instance.status = 0xA900


async def accept_then_fail(instance: Any) -> None:
    instance.accept()
    raise ValueError("after accept")


async def read_then_fail(instance: Any) -> None:
    await instance.read()
    raise ValueError("after reading")


async def read_then_fail_for_disk(instance: Any) -> None:
    await instance.read()
    raise OSError(28, "No space left on device")


async def fail(instance: Any) -> None:
    raise ValueError("before reading")


async def fail_for_disk(instance: Any) -> None:
    raise OSError(28, "No space left on device")


async def fail_to_save(instance: Any) -> None:
    await instance.save("/nonexistent/folder/file.dcm")


async def fail_to_save_and_go_on(instance: Any) -> None:
    with pytest.raises(OSError, match="nonexistent"):
        await instance.save("/nonexistent/folder/file.dcm")


async def peek(instance: Any) -> None:
    async for _ in instance.iter_data():
        break


BODIES: list[tuple[Body, int]] = [
    (skip, 0x0000),
    (read, 0x0000),
    (iterate, 0x0000),
    (decode, 0x0000),
    (accept, 0x0000),
    (override, 0xB007),
    (override_unread, 0xA900),
    (accept_then_fail, 0x0000),
    (read_then_fail, 0xC211),
    (read_then_fail_for_disk, 0xA700),
    (fail, 0xC211),
    (fail_for_disk, 0xA700),
    (fail_to_save, 0xA700),
    (fail_to_save_and_go_on, 0xA700),
    (peek, 0x0000),
]


@pytest.mark.parametrize(("body", "status"), BODIES, ids=lambda value: getattr(value, "__name__", None))
async def test_what_the_body_does_with_an_instance_decides_its_status(body: Body, status: int) -> None:
    play = OneInstance()
    async with scripted(play) as assoc:
        try:
            async with assoc.get(identifier()) as instances:
                async for instance in instances:
                    assert instance.sop_class_uid == sop.CT_IMAGE_STORAGE
                    assert instance.sop_instance_uid == "1.2.3.4"
                    assert instance.transfer_syntax_uid == sop.EXPLICIT_VR_LITTLE_ENDIAN
                    assert not instance.bulk_data_removed
                    await body(instance)
        except (ValueError, OSError):
            pass
        assert (await assoc.echo()).status == 0
    assert play.status == status


@pytest.mark.parametrize("size", [0, 1000, 200_000, 3 << 20])
async def test_an_instance_is_saved_byte_for_byte_and_atomically(size: int, tmp_path: Path) -> None:
    play = OneInstance(size=size)
    async with scripted(play) as assoc:
        async with assoc.get(identifier()) as instances:
            async for instance in instances:
                path = await instance.save(tmp_path / "a.dcm")
        assert instances.progress == asyncdicom.Progress(0, 1, 0, 0)
        await assoc.echo()
    assert play.status == 0x0000
    assert os.listdir(tmp_path) == ["a.dcm"]
    assert path.read_bytes().endswith(ct_bytes(size))
    meta = pydicom.dcmread(path).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.SourceApplicationEntityTitle) == ("1.2.3.4", "PEER")


@pytest.mark.parametrize("use", ["read", "dataset", "iter_data", "save", "status", "accept"])
async def test_an_instance_is_over_once_the_next_one_is_asked_for(use: str, tmp_path: Path) -> None:
    async with scripted(OneInstance()) as assoc:
        kept = [instance async for instance in assoc.get(identifier())]
        (instance,) = kept
        with pytest.raises(asyncdicom.LocalProtocolError, match="over"):  # noqa: PT012
            if use == "iter_data":
                async for _ in instance.iter_data():
                    pass
            elif use == "status":
                instance.status = 0xA700
            elif use == "accept":
                instance.accept()
            else:
                await getattr(instance, use)(*([tmp_path / "x"] if use == "save" else []))
        await assoc.echo()
    assert os.listdir(tmp_path) == []


async def test_an_instance_is_consumed_once() -> None:
    async with scripted(OneInstance()) as assoc:
        async for instance in assoc.get(identifier()):
            await instance.read()
            with pytest.raises(asyncdicom.LocalProtocolError, match="consumed already"):
                await instance.read()
        await assoc.echo()


@pytest.mark.parametrize(
    "uid", ["../../x", "/etc/passwd", "..", "", "1..2", "1.2.", ".1", "1.2.\n3", "1" * 65, "a.b", "1.2\\3", "1.2/3"]
)
async def test_an_invalid_uid_is_refused_and_never_reaches_the_loop(uid: str) -> None:
    play = OneInstance(uid=uid)
    async with scripted(play) as assoc:
        assert [instance async for instance in assoc.get(identifier())] == []
        await assoc.echo()
    assert play.status == 0x0117


@pytest.mark.parametrize(("roles", "strict", "status"), [(True, True, 0), (False, False, 0), (False, True, 0x0122)])
async def test_without_a_role_item_sub_operations_are_answered_all_the_same_unless_roles_are_strict(
    roles: bool, strict: bool, status: int
) -> None:
    play = OneInstance()
    async with scripted(play, accept={"roles": roles}, strict_roles=strict) as assoc:
        instances = [instance async for instance in assoc.get(identifier())]
        assert len(instances) == (0 if status else 1)
        await assoc.echo()
    assert play.status == status


async def test_sub_operations_go_on_and_progress_is_seen() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        for number in range(1, 4):
            await peer.send_message(CT_ID, store_elements(number, f"1.2.{number}"), ct_bytes(uid=f"1.2.{number}"))
            assert (await peer.expect_message(C_STORE_RSP)).message_id == number
            await peer.respond(request, 0xFF00, elements=counters(3 - number, number))
        await peer.respond(request, 0x0000, elements=counters(0, 3))
        await finish(peer)

    async with scripted(script) as assoc:
        instances = assoc.get(identifier())
        seen = []
        async for instance in instances:
            await instance.read()
            seen.append((instance.sop_instance_uid, instances.progress.completed))
        assert seen == [("1.2.1", None), ("1.2.2", 1), ("1.2.3", 2)]
        assert instances.response is not None
        assert instances.response.progress.completed == 3
        await assoc.echo()


async def test_a_final_response_before_the_last_sub_operation_was_answered_ends_it_properly() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        await peer.send(
            peer.message(CT_ID, store_elements(9), ct_bytes()), peer.response(request, 0x0000, None, counters(0, 1))
        )
        answer = await peer.expect_message(C_STORE_RSP)
        assert (answer.message_id, answer.status) == (9, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc:
        async with assoc.get(identifier()) as instances:
            assert [await instance.read() async for instance in instances] == [ct_bytes()]
        assert instances.response is not None
        await assoc.echo()


async def test_a_sub_operation_after_the_final_response_is_refused_and_harms_nobody() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        await peer.send(peer.response(request, 0x0000), peer.message(CT_ID, store_elements(9), ct_bytes()))
        echo = await peer.expect_message(C_ECHO_RQ)
        answer = await peer.expect_message(C_STORE_RSP)
        assert answer.status not in (0x0000, None)
        await peer.respond(echo, 0x0000)
        await peer.confirm_release()

    async with scripted(script) as assoc:
        assert [instance async for instance in assoc.get(identifier())] == []
        assert (await assoc.echo()).status == 0


async def test_a_data_set_that_is_announced_and_never_sent_times_out() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(C_GET_RQ)
        message = peer.message(CT_ID, store_elements(9), ct_bytes(5000))
        await peer.send(message[:-1000])
        assert await expect_abort(peer) == (0, 0)

    async with scripted(script, timeouts=asyncdicom.Timeouts(message=0.05)) as assoc:
        with pytest.raises(asyncdicom.OperationTimeout) as caught:  # noqa: PT012
            async for instance in assoc.get(identifier()):
                await instance.read()
        assert caught.value.kind == "message"
        assert assoc.ended


@pytest.mark.parametrize("end", ["abort", "close", "reset"])
async def test_a_connection_that_ends_in_the_middle_of_an_instance_leaves_no_file(end: str, tmp_path: Path) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(C_GET_RQ)
        await peer.send(peer.message(CT_ID, store_elements(9), bytes(3 << 20))[: -16_384 - 12])
        assert isinstance(peer.stream, MemoryStream)
        await peer.stream.wait_drained()
        if end == "abort":
            await peer.send(bytes.fromhex("07000000000400000000"))
        elif end == "reset":
            peer.stream.reset()
        await peer.aclose()

    async with scripted(script) as assoc:
        error = asyncdicom.AssociationAborted if end == "abort" else asyncdicom.AssociationClosed
        with pytest.raises(error):  # noqa: PT012
            async for instance in assoc.get(identifier()):
                await instance.save(tmp_path / "torn.dcm")
        assert assoc.ended
    assert os.listdir(tmp_path) == []


async def test_other_verbs_of_the_same_task_while_an_instance_is_unread_are_refused() -> None:
    options: dict[str, Any] = {"accept": {"window": (5, 5)}, "async_operations": (5, 5)}
    async with scripted(OneInstance(size=3 << 20), **options) as assoc:
        async for instance in assoc.get(identifier()):
            with pytest.raises(asyncdicom.ConcurrencyError, match="C-GET"):
                await assoc.echo()
            await instance.discard()
        assert (await assoc.echo()).status == 0


@pytest.mark.parametrize("named", [True, False])
async def test_without_bulk_data_instances_say_so(named: bool) -> None:
    # Also where the model is the only one that was accepted: they must not be stored (PS3.4 Z.4.2.2.1).
    uid = sop.COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET
    contexts = [sop.VERIFICATION, sop.STUDY_ROOT_FIND, uid, sop.STUDY_ROOT_MOVE, sop.CT_IMAGE_STORAGE]
    async with scripted(OneInstance(), contexts=contexts) as assoc:
        flags = [instance.bulk_data_removed async for instance in assoc.get(identifier(), uid if named else None)]
        assert flags == [True]
        await assoc.echo()


@every_verb
@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("abort", asyncdicom.AssociationAborted),
        ("provider abort", asyncdicom.AssociationAborted),
        ("close", asyncdicom.AssociationClosed),
        ("release", asyncdicom.AssociationClosed),
        ("garbage", asyncdicom.RemoteProtocolError),
    ],
)
async def test_the_end_of_the_association_ends_the_operation_with_the_reason(
    verb: str, end: str, error: type[Exception]
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(REQUESTS[verb])
        if end == "abort":
            await peer.send(bytes.fromhex("07000000000400000000"))
        elif end == "provider abort":
            await peer.send(bytes.fromhex("07000000000400000206"))
        elif end == "release":
            await peer.send(bytes.fromhex("05000000000400000000"))
            await peer.expect(6)
        elif end == "garbage":
            await peer.send(bytes.fromhex("ff000000000400000000"))
            assert await peer.expect_abort() == (2, 1)
        await peer.aclose()

    async with scripted(script) as assoc:
        results = operation(assoc, verb)
        with pytest.raises(error) as caught:
            await anext(results)
        if end == "provider abort":
            assert (caught.value.source, caught.value.reason) == (2, 6)  # type: ignore[attr-defined]
        with pytest.raises(error):
            await assoc.echo()
        assert [item async for item in results] == []


def test_the_contexts_of_these_tests_are_numbered_as_they_are_proposed() -> None:
    assert [CONTEXTS[i] for i in (1, 2, 3, 4)] == [*MODELS.values(), sop.CT_IMAGE_STORAGE]
