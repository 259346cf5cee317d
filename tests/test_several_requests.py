"""An operation whose identifier does not fit into one request: several in turn, which are one to whoever iterates."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from pydicom import Dataset

import asyncdicom
from asyncdicom import LocalProtocolError, PeerProfile, Progress, StatusError, sop
from asyncdicom.dataset import decode_data_set
from asyncdicom.identifiers import encode_failed_list
from asyncdicom.testing import Received, ScriptedPeer

from .harness import (
    C_CANCEL_RQ,
    C_FIND_RQ,
    C_GET_RQ,
    C_MOVE_RQ,
    C_STORE_RSP,
    CT_ID,
    counters,
    ct_bytes,
    finish,
    identifier,
    scripted,
    store_elements,
)

pytestmark = pytest.mark.anyio

REQUESTS = {"find": C_FIND_RQ, "get": C_GET_RQ, "move": C_MOVE_RQ}
one_by_one = PeerProfile(uid_lists=False)
every_verb = pytest.mark.parametrize("verb", REQUESTS)


def uids(count: int) -> list[str]:
    return [f"1.2.{number:060}" for number in range(count)]


def operation(assoc: asyncdicom.Association, verb: str, **keys: Any) -> Any:
    if verb == "move":
        keys["destination"] = "ELSEWHERE"
    return getattr(assoc, verb)(level="IMAGE", **keys)


def failed(*of: str) -> bytes:
    return encode_failed_list(of, sop.EXPLICIT_VR_LITTLE_ENDIAN)


def named(request: Received) -> list[str]:
    """Return the SOP Instance UIDs that a request names."""
    assert request.data_set is not None
    found = decode_data_set(request.data_set, sop.EXPLICIT_VR_LITTLE_ENDIAN).SOPInstanceUID
    return [found] if isinstance(found, str) else list(found)


@every_verb
async def test_a_list_that_is_longer_than_a_value_may_be_takes_several_requests(verb: str) -> None:
    asked: list[Received] = []

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(3):
            request = await peer.expect_message(REQUESTS[verb])
            asked.append(request)
            await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc:
        found = operation(assoc, verb, SOPInstanceUID=uids(2500))
        assert [item async for item in found] == []
        await assoc.echo()
    assert [named(request) for request in asked] == [uids(2500)[n : n + 1008] for n in (0, 1008, 2016)]
    assert [request.message_id for request in asked] == [1, 2, 3]
    assert all(len(request.data_set or b"") <= 65_534 + 30 for request in asked)
    assert (found.response.status, found.truncated) == (0x0000, False)
    assert [response.message_id for response in found.responses] == [1, 2, 3]


async def test_the_matches_of_all_requests_come() -> None:
    async def script(peer: ScriptedPeer) -> None:
        for number in ("1", "2"):
            request = await peer.expect_message(C_FIND_RQ)
            await peer.respond(request, 0xFF00, identifier(number))
            await peer.respond(request, 0xFF00, identifier(number * 2))
            await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, profile=one_by_one) as assoc:
        found = assoc.find(level="IMAGE", SOPInstanceUID=["1.1", "1.2"])
        assert [match.PatientID async for match in found] == ["1", "11", "2", "22"]
        await assoc.echo()


async def test_the_instances_of_all_requests_come_and_their_counters_add_up() -> None:
    seen: list[Progress] = []

    async def script(peer: ScriptedPeer) -> None:
        for number, uid in enumerate(("1.1", "1.2", "1.3"), 1):
            request = await peer.expect_message(C_GET_RQ)
            assert named(request) == [uid]
            await peer.respond(request, 0xFF00, elements=counters(1, 0))
            await peer.send_message(CT_ID, store_elements(7, uid), ct_bytes(100, uid))
            assert (await peer.expect_message(C_STORE_RSP)).status == 0
            await peer.respond(request, 0xFF00, elements=counters(0, 1))
            status, data = (0xB000, failed("1.9")) if number == 2 else (0x0000, None)
            final = {0x00001021: 1, 0x00001022: int(number == 2), 0x00001023: 0}
            await peer.respond(request, status, data, final)
        await finish(peer)

    async with scripted(script, profile=one_by_one) as assoc:
        instances = assoc.get(level="IMAGE", SOPInstanceUID=["1.1", "1.2", "1.3"])
        async for instance in instances:
            await instance.read()
            seen.append(instances.progress)
        await assoc.echo()
    assert seen == [Progress(3, 0, 0, 0), Progress(2, 1, 0, 0), Progress(1, 2, 1, 0)]
    assert instances.response is not None
    assert instances.response.status == 0xB000
    assert instances.response.failed_sop_instance_uids == ["1.9"]
    assert instances.progress == instances.response.progress == Progress(None, 3, 1, 0)
    assert [response.status for response in instances.responses] == [0x0000, 0xB000, 0x0000]


async def test_the_progress_of_a_move_is_that_of_all_its_requests() -> None:
    async def script(peer: ScriptedPeer) -> None:
        for _ in range(2):
            request = await peer.expect_message(C_MOVE_RQ)
            await peer.respond(request, 0xFF00, elements=counters(1, 0))
            await peer.respond(request, 0x0000, elements={0x00001021: 1, 0x00001022: 0, 0x00001023: 0})
        await finish(peer)

    async with scripted(script, profile=one_by_one) as assoc:
        move = assoc.move(level="IMAGE", SOPInstanceUID=["1.1", "1.2"], destination="ELSEWHERE")
        assert [progress async for progress in move] == [Progress(2, 0, 0, 0), Progress(1, 1, 0, 0)]
        await assoc.echo()
    assert move.progress == Progress(None, 2, 0, 0)
    assert [progress.total for progress in (Progress(2, 0, 0, 0), Progress(1, 1, 0, 0))] == [2, 2]


@pytest.mark.parametrize("given", [False, True], ids=["no counters", "counters in the last request only"])
async def test_counters_that_no_peer_gave_are_not_known(given: bool) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for number in range(2):
            request = await peer.expect_message(C_MOVE_RQ)
            await peer.respond(request, 0x0000, elements={0x00001021: 4} if given and number else None)
        await finish(peer)

    async with scripted(script, profile=one_by_one) as assoc:
        move = assoc.move(level="STUDY", StudyInstanceUID=["1.1", "1.2"], destination="ELSEWHERE")
        assert [progress async for progress in move] == []
        await assoc.echo()
    assert move.progress == Progress(None, 4 if given else None)


#: Statuses of the requests in turn, and the one of the whole.
WORST: list[tuple[Sequence[int], int]] = [
    ((0x0000, 0x0000, 0x0000), 0x0000),
    ((0x0000, 0xB000, 0x0000), 0xB000),
    ((0xB000, 0xA702, 0x0000), 0xA702),
    ((0xA702, 0xA702, 0xB000), 0xA702),
]


@pytest.mark.parametrize(("statuses", "worst"), WORST)
async def test_the_final_response_is_the_worst(statuses: Sequence[int], worst: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for number, status in enumerate(statuses):
            request = await peer.expect_message(C_MOVE_RQ)
            elements = {0x00001021: 1, 0x00001022: int(status != 0), 0x00001023: 0}
            await peer.respond(request, status, failed(f"1.{number}") if status else None, elements)
        await finish(peer)

    async with scripted(script, profile=one_by_one) as assoc:
        move = assoc.move(level="STUDY", StudyInstanceUID=["1", "2", "3"], destination="ELSEWHERE", check=False)
        assert [progress async for progress in move] == []
        await assoc.echo()
    assert move.response is not None
    assert (move.response.status, move.truncated) == (worst, False)
    bad = [number for number, status in enumerate(statuses) if status]
    assert move.response.failed_sop_instance_uids == [f"1.{number}" for number in bad]
    assert move.response.progress == Progress(None, 3, len(bad), 0)


@every_verb
@pytest.mark.parametrize("check", [True, False])
async def test_after_a_failure_nothing_more_is_asked_for(verb: str, check: bool) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for status in (0x0000, 0xA900):
            await peer.respond(await peer.expect_message(REQUESTS[verb]), status)
        await finish(peer)

    async with scripted(script, profile=one_by_one) as assoc:
        found = operation(assoc, verb, SOPInstanceUID=["1.1", "1.2", "1.3"], check=check)
        if check:
            with pytest.raises(StatusError) as caught:
                await anext(found)
            assert caught.value.status == 0xA900
        else:
            assert [item async for item in found] == []
        await assoc.echo()
    assert (found.response.status, found.truncated) == (0xA900, True)


@pytest.mark.parametrize("how", ["limit", "aclose", "break"])
async def test_leaving_early_cancels_the_request_in_progress_and_sends_no_other(how: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        first = await peer.expect_message(C_FIND_RQ)
        await peer.respond(first, 0xFF00, identifier("1"))
        await peer.respond(first, 0x0000)
        second = await peer.expect_message(C_FIND_RQ)
        await peer.respond(second, 0xFF00, identifier("2"))
        cancel = await peer.expect_message(C_CANCEL_RQ)
        assert cancel.message_id == second.message_id == 2
        await peer.respond(second, 0xFE00)
        await finish(peer)

    async with scripted(script, profile=one_by_one) as assoc:
        limit = 2 if how == "limit" else None
        found = assoc.find(level="IMAGE", SOPInstanceUID=["1.1", "1.2", "1.3"], limit=limit)
        matches: list[str] = []
        async for match in found:
            matches.append(match.PatientID)
            if how != "limit" and len(matches) == 2:
                break
        assert matches == ["1", "2"]
        if how == "break":
            del found
            gc.collect()
        else:
            await found.aclose()
            assert found.response is not None
            assert (found.response.status, found.truncated) == (0xFE00, True)
        await assoc.echo()


@every_verb
@pytest.mark.parametrize("cancels", [True, False])
async def test_cancelling_the_task_cancels_the_request_in_progress_or_drains_it(verb: str, cancels: bool) -> None:
    scope = anyio.CancelScope()
    scope_left = anyio.Event()

    async def script(peer: ScriptedPeer) -> None:
        await peer.respond(await peer.expect_message(REQUESTS[verb]), 0x0000)
        second = await peer.expect_message(REQUESTS[verb])
        scope.cancel()
        if cancels:
            assert (await peer.expect_message(C_CANCEL_RQ)).message_id == second.message_id
        await peer.respond(second, 0xFE00 if cancels else 0x0000)
        await scope_left.wait()
        await finish(peer)

    async with scripted(script, profile=PeerProfile(uid_lists=False, cancel=cancels)) as assoc:
        found = operation(assoc, verb, SOPInstanceUID=["1.1", "1.2", "1.3"])
        with scope:
            await anext(found)
        assert scope.cancelled_caught
        scope_left.set()
        assert (found.response.status, found.truncated) == (0xFE00 if cancels else 0x0000, True)
        await assoc.echo()


async def test_a_limit_that_is_reached_where_a_request_ends_leaves_the_others_out() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        await peer.send(peer.response(request, 0xFF00, identifier("1")), peer.response(request, 0x0000))
        cancelled = await peer.expect_message()
        # The final response may have been read before the limit was looked at, or not.
        if cancelled.command_field == C_CANCEL_RQ:
            await peer.answer_echo()
        else:
            await peer.respond(cancelled, 0x0000)
        await peer.confirm_release()

    async with scripted(script, profile=one_by_one) as assoc:
        async with assoc.find(level="IMAGE", SOPInstanceUID=["1.1", "1.2"], limit=1) as found:
            assert [match.PatientID async for match in found] == ["1"]
        assert found.truncated
        assert found.response is not None
        assert found.response.status == 0x0000
        await assoc.echo()


async def test_an_operation_that_was_not_begun_has_no_response_and_nothing_was_left_behind() -> None:
    async with scripted(finish, profile=one_by_one) as assoc:
        found = assoc.find(level="IMAGE", SOPInstanceUID=["1.1", "1.2"])
        await found.aclose()
        assert (found.response, found.responses, found.truncated) == (None, (), False)
        await assoc.echo()


async def test_two_keys_that_do_not_fit_are_refused_before_anything_is_sent() -> None:
    async with scripted(finish) as assoc:
        with pytest.raises(LocalProtocolError, match="StudyInstanceUID and SOPInstanceUID"):
            await anext(assoc.find(level="IMAGE", StudyInstanceUID=uids(2000), SOPInstanceUID=uids(2000)))
        await assoc.echo()


async def test_encoded_identifiers_are_sent_as_they_are() -> None:
    seen: list[bytes | None] = []
    query = Dataset()
    query.SOPInstanceUID = ["1.1", "1.2"]
    encoded = asyncdicom.dataset.encode_data_set(query, sop.EXPLICIT_VR_LITTLE_ENDIAN)

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_FIND_RQ)
        seen.append(request.data_set)
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, profile=one_by_one) as assoc:
        assert [match async for match in assoc.find(encoded)] == []
        await assoc.echo()
    assert seen == [encoded]
