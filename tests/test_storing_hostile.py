"""store_many against peers, iterables, sources and programs that do not behave."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pydicom
import pytest
from anyio import wait_all_tasks_blocked

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import RELEASE_RQ, ScriptedPeer, abort_pdu, memory_stream_pair

from .harness import (
    C_ECHO_RSP,
    C_FIND_RQ,
    C_STORE_RQ,
    C_STORE_RSP,
    CT_ID,
    VERIFICATION_ID,
    cancel_pdus,
    ct_bytes,
    ct_instance,
    finish,
    identifier,
    request_elements,
    scripted,
    store_elements,
)
from .test_storing import ct_file, descriptors, instances, shortened, stores, uid_of, uids, windowed

pytestmark = pytest.mark.anyio


async def rest(storing: asyncdicom.StoreMany) -> tuple[list[str], Exception | None]:
    """Iterate to the end: the instances that have an outcome, and what is raised."""
    seen: list[str] = []
    try:
        async for stored in storing:
            seen.append(uid_of(stored.what))
    except Exception as exc:
        return seen, exc
    return seen, None


def named(what: list[Any]) -> list[str]:
    return [uid_of(one) for one in what]


# The association is lost.

ENDS: list[tuple[bytes | None, type[Exception]]] = [
    (abort_pdu(0, 0), asyncdicom.AssociationAborted),
    (RELEASE_RQ, asyncdicom.AssociationClosed),
    (b"\xff" * 100, asyncdicom.RemoteProtocolError),
    (None, asyncdicom.AssociationClosed),
]


@pytest.mark.parametrize("answered", [(), (0,), (0, 1, 2), (1,), (3, 1), (0, 2), (3, 2, 1, 0)])
@pytest.mark.parametrize(("end", "error"), ENDS, ids=["abort", "release", "garbage", "close"])
async def test_what_was_answered_before_the_association_was_lost_has_its_outcome(
    end: bytes | None, error: type[Exception], answered: tuple[int, ...]
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        requests = await stores(peer, 4)
        await peer.send(*(peer.response(requests[number], 0) for number in answered), end or b"")
        if end == RELEASE_RQ:
            while (await peer.receive_pdu())[0] != 6:
                pass  # what was sent before the request for the release was read
        await peer.aclose()

    async with windowed(script, 4) as assoc:
        storing = assoc.store_many(instances(9))
        seen, raised = await rest(storing)
        assert isinstance(raised, error)
        assert sorted(seen) == [uids(4)[number] for number in sorted(answered)]
        sent = uids(4)
        assert named(storing.pending)[: 4 - len(answered)] == [uid for uid in sent if uid not in seen]
        # Each instance that was taken is named once.
        taken = seen + named(storing.pending) + named(storing.unsent)
        assert sorted(taken) == uids(len(taken))
        assert await rest(storing) == ([], None)


async def test_an_unreadable_file_does_not_come_before_its_turn_when_the_association_is_lost(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    what: list[Any] = [*instances(3), missing, missing, ct_instance(uid="1.2.3.9")]

    async def script(peer: ScriptedPeer) -> None:
        requests = await stores(peer, 3)
        await peer.send(*(peer.response(request, 0) for request in requests), abort_pdu())
        await peer.aclose()

    async with windowed(script, 3) as assoc:
        storing = assoc.store_many(what)
        assert [(await anext(storing)).what for _ in range(5)] == what[:5]
        with pytest.raises(asyncdicom.AssociationAborted):
            await anext(storing)
        assert storing.pending + storing.unsent == what[5:]


async def test_all_is_well_if_the_association_is_lost_behind_the_last_response() -> None:
    async def script(peer: ScriptedPeer) -> None:
        requests = await stores(peer, 3)
        await peer.send(*(peer.response(request, 0) for request in requests), abort_pdu())
        await peer.aclose()

    async with windowed(script, 5) as assoc:
        assert await rest(assoc.store_many(instances(3))) == (uids(3), None)


async def test_a_refusal_in_the_middle_of_a_data_set_is_an_outcome_although_the_peer_hangs_up() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_STORE_RQ)
        await peer.respond(request, 0x0000)
        await peer.expect(4)  # the beginning of a large one, whose Message ID follows that of the first
        elements: dict[int, Any] = {0x0100: C_STORE_RSP, 0x0120: request.message_id + 1, 0x0900: 0xA700}
        await peer.send(peer.message(CT_ID, elements), abort_pdu())
        await peer.aclose()

    async with windowed(script, 4) as assoc:
        storing = assoc.store_many([ct_instance(uid="1.2.3.1"), ct_instance(5 << 20, "1.2.3.2"), ct_instance()])
        first, second = await anext(storing), await anext(storing)
        assert first.error is None
        assert isinstance(second.error, asyncdicom.StatusError)
        with pytest.raises(asyncdicom.AssociationAborted):
            await anext(storing)
        assert (storing.pending, named(storing.unsent)) == ([], ["1.2.3.4"])


async def test_a_refusal_in_the_middle_of_a_data_set_is_no_reason_to_stop() -> None:
    async def script(peer: ScriptedPeer) -> None:
        first = await peer.expect(4)
        assert b"1.2.3.1" in first
        elements: dict[int, Any] = {0x0100: C_STORE_RSP, 0x0120: 1, 0x0900: 0xA700}
        await peer.send(peer.message(CT_ID, elements))
        while not (await peer.expect(4))[11] & 2:
            pass
        await peer.respond(await peer.expect_message(C_STORE_RQ), 0x0000)
        await finish(peer)

    async with windowed(script, 2) as assoc:
        one, two = [stored async for stored in assoc.store_many([ct_instance(3 << 20, "1.2.3.1"), ct_instance()])]
        assert isinstance(one.error, asyncdicom.StatusError)
        assert two.error is None
        await assoc.echo()


async def test_a_peer_that_stops_reading_is_given_up() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await stores(peer, 1)
        await ended.wait()
        await peer.aclose()

    ended = anyio.Event()
    async with windowed(script, 9, timeouts=asyncdicom.Timeouts(write=0.05), max_buffer=16_384) as assoc:
        storing = assoc.store_many(instances(9, 100_000))
        with pytest.raises(asyncdicom.OperationTimeout, match="write"):
            await anext(storing)
        # Of the second one a part went out.
        assert (named(storing.pending), storing.unsent) == (uids(2), [])
        ended.set()


# Strange answers.


async def test_responses_that_come_twice_or_to_nothing_are_ignored() -> None:
    async def script(peer: ScriptedPeer) -> None:
        first, second = await stores(peer, 2)
        stray: dict[int, Any] = {0x0100: C_STORE_RSP, 0x0120: 999, 0x0900: 0xA700}
        await peer.send(
            peer.response(second, 0xB000),
            peer.message(CT_ID, stray),
            peer.response(second, 0xA700),
            peer.response(first, 0),
            peer.response(first, 0xA700),
        )
        for request in await stores(peer, 2):
            await peer.respond(request, 0)
        await finish(peer)

    async with windowed(script, 2) as assoc:
        outcomes = [stored async for stored in assoc.store_many(instances(4))]
        assert [stored.response.status for stored in outcomes if stored.response] == [0, 0xB000, 0, 0]
        await assoc.echo()


@pytest.mark.parametrize("status", [0xFF00, 0xFF01, 0xFE00])
async def test_a_status_that_says_neither_yes_nor_no_is_not_taken_for_a_yes(status: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_STORE_RQ)
        await peer.respond(request, status)
        await finish(peer)

    async with scripted(script) as assoc:
        (stored,) = [stored async for stored in assoc.store_many(instances(1))]
        assert isinstance(stored.error, asyncdicom.StatusError)
        assert stored.error.status == status
        await assoc.echo()


async def test_data_sets_of_responses_are_not_held() -> None:
    async def script(peer: ScriptedPeer) -> None:
        for request in reversed(await stores(peer, 4)):
            await peer.respond(request, 0, bytes(100_000))
        await finish(peer)

    async with windowed(script, 4) as assoc:
        outcomes = [stored async for stored in assoc.store_many(instances(4))]
        assert [stored.response.data_set_bytes for stored in outcomes if stored.response] == [None] * 4
        await assoc.echo()


async def test_requests_of_the_peer_are_served_meanwhile() -> None:
    async def script(peer: ScriptedPeer) -> None:
        requests = await stores(peer, 2)
        echo = request_elements(0x0030, 7, sop.VERIFICATION)
        await peer.send(cancel_pdus(CT_ID, requests[0].message_id), peer.message(VERIFICATION_ID, echo))
        assert (await peer.expect_message(C_ECHO_RSP)).status == 0
        await peer.send_message(CT_ID, store_elements(8), ct_bytes(100_000))
        assert (await peer.expect_message(C_STORE_RSP)).status == 0x0122
        for request in requests:
            await peer.respond(request, 0)
        for request in await stores(peer, 2):
            await peer.respond(request, 0)
        await finish(peer)

    async with windowed(script, 2) as assoc:
        assert await rest(assoc.store_many(instances(4))) == (uids(4), None)
        await assoc.echo()


async def test_message_ids_wrap_around_what_is_outstanding_and_at_hand() -> None:
    seen: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(3):
            requests = await stores(peer, 4)
            seen.extend(request.message_id for request in requests)
            for request in requests:
                await peer.respond(request, 0)
        await finish(peer)

    async with windowed(script, 4) as assoc:
        assoc._last_message_id = 65_530
        assert await rest(assoc.store_many(instances(12))) == (uids(12), None)
        await assoc.echo()
        assert not assoc._reserved
    assert seen == [65_531, 65_532, 65_533, 65_534, 65_535, *range(1, 8)]


@pytest.mark.parametrize(("granted", "most"), [((0, 0), 64), ((0, 1), 64), ((3, 1), 3)])
async def test_an_unlimited_window_is_not_without_limit(granted: tuple[int, int], most: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        requests = await stores(peer, most)
        await wait_all_tasks_blocked()
        scope.cancel()
        for request in requests:
            await peer.respond(request, 0)
        await finish(peer)

    async with scripted(script, async_operations=granted, accept={"window": granted}) as assoc:
        storing = assoc.store_many(itertools.repeat(ct_instance()))
        with anyio.CancelScope() as scope:
            await anext(storing)
        assert (len(storing.pending), len(storing.unsent)) == (most, 1)
        await assoc.echo()


# A mistake of the caller ends it, behind the outcomes of what was sent.


@pytest.mark.parametrize("window", [1, 3])
async def test_the_limit_of_operations_costs_no_outcome(window: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for _ in range(4):
            await peer.respond(await peer.expect_message(C_STORE_RQ), 0)
        await peer.confirm_release()

    async with windowed(script, window, profile=asyncdicom.PeerProfile(operations=4)) as assoc:
        storing = assoc.store_many(instances(9))
        seen, raised = await rest(storing)
        assert seen == uids(4)
        assert isinstance(raised, asyncdicom.LocalProtocolError)
        assert (storing.pending, named(storing.unsent)) == ([], ["1.2.3.5"])


class Failing:
    """A source that fails in a way that it should not, behind so many bytes."""

    size = 3 << 20

    def __init__(self, good: int) -> None:
        self._left = good

    def read_into(self, views: Any) -> int:
        wanted = sum(map(len, views))
        self._left -= wanted
        if self._left < 0:
            raise ZeroDivisionError
        return wanted

    def close(self) -> None:
        pass


def broken() -> asyncdicom.Instance:
    return asyncdicom.Instance(sop.CT_IMAGE_STORAGE, "1.2.3.8", sop.EXPLICIT_VR_LITTLE_ENDIAN, lambda: Failing(0))


@pytest.mark.parametrize(
    ("bad", "error"), [(None, TypeError), (b"bytes", TypeError), (7, TypeError), (broken(), ZeroDivisionError)]
)
async def test_what_is_no_instance_or_makes_a_mistake_is_raised_behind_the_outcomes_and_named(
    bad: Any, error: type[Exception]
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for request in await stores(peer, 2):
            await peer.respond(request, 0)
        await finish(peer)

    async with windowed(script, 5) as assoc:
        storing = assoc.store_many([*instances(2), bad, ct_instance()])
        seen, raised = await rest(storing)
        assert seen == uids(2)
        assert isinstance(raised, error)
        assert (storing.pending, storing.unsent) == ([], [bad])
        await assoc.echo()


@pytest.mark.parametrize("what", ["slice.dcm", Path("slice.dcm"), b"slice.dcm", pydicom.Dataset(), ct_instance()])
async def test_one_instance_is_not_taken_for_many(what: Any) -> None:
    async with scripted(finish) as assoc:
        with pytest.raises(TypeError, match="one instance"):
            assoc.store_many(what)
        with pytest.raises(TypeError):
            assoc.store_many(None)  # type: ignore[arg-type]
        await assoc.echo()


# Beside others.


@pytest.mark.parametrize("window", [2, 3])
async def test_it_may_be_iterated_within_a_query_of_the_same_task(window: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        find = await peer.expect_message(C_FIND_RQ)
        await peer.respond(find, 0xFF00, identifier())
        for _ in range(5):
            await peer.respond(await peer.expect_message(C_STORE_RQ), 0)
        await peer.respond(find, 0)
        await finish(peer)

    async with windowed(script, window) as assoc:
        async for _ in assoc.find(identifier()):
            assert await rest(assoc.store_many(instances(5))) == (uids(5), None)
        await assoc.echo()


async def test_without_room_beside_a_query_of_the_same_task_it_says_so() -> None:
    async def script(peer: ScriptedPeer) -> None:
        find = await peer.expect_message(C_FIND_RQ)
        await peer.respond(find, 0xFF00, identifier())
        await peer.respond(find, 0)
        await finish(peer)

    async with scripted(script) as assoc:
        async for _ in assoc.find(identifier()):
            storing = assoc.store_many(instances(5))
            with pytest.raises(asyncdicom.ConcurrencyError):
                await anext(storing)
            assert (storing.pending, named(storing.unsent)) == ([], uids(1))
        await assoc.echo()


@pytest.mark.parametrize("window", [1, 2, 4])
async def test_several_share_an_iterator_and_the_window_in_turn(window: int) -> None:
    order: list[str] = []

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(30):
            await peer.respond(await peer.expect_message(C_STORE_RQ), 0)
        await finish(peer)

    async def send(name: str) -> None:
        async for stored in assoc.store_many(shared):
            order.append(name)
            seen.append(uid_of(stored.what))

    seen: list[str] = []
    shared = iter(instances(30))
    async with windowed(script, window) as assoc:
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(send, name)
        await assoc.echo()
    assert sorted(seen) == sorted(uids(30))
    assert all(order.count(name) > 3 for name in "abc")


async def test_a_second_task_cannot_iterate_or_close_it_and_disturbs_nothing() -> None:
    async def script(peer: ScriptedPeer) -> None:
        requests = await stores(peer, 2)
        await wait_all_tasks_blocked()
        for call in (storing.__anext__, storing.aclose, lambda: storing.athrow(KeyError())):
            with pytest.raises(asyncdicom.LocalProtocolError, match="another task"):
                await call()
        for request in requests:
            await peer.respond(request, 0)
        await finish(peer)

    async with windowed(script, 2) as assoc:
        storing = assoc.store_many(instances(2))
        assert await rest(storing) == (uids(2), None)
        await assoc.echo()


async def test_outcomes_that_wait_for_nothing_let_others_run(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    done = anyio.Event()

    async def other() -> None:
        done.set()

    async with scripted(finish) as assoc:
        async with anyio.create_task_group() as tasks:
            storing = assoc.store_many(itertools.repeat(missing, 100_000))
            await anext(storing)  # what is known of the folder is learnt by the first
            tasks.start_soon(other)
            count = 0
            async with storing:
                async for _ in storing:
                    count += 1
                    if done.is_set():
                        break
        assert count < 1000
        await assoc.echo()


# What is held.


class Watched:
    """A source that tells who is open, and how much of it was read."""

    def __init__(self, size: int, known: bool, opened: set[Watched]) -> None:
        self.size = size if known else None
        self.read = 0
        self._left = size
        self._opened = opened
        opened.add(self)

    def read_into(self, views: Any) -> int:
        read = min(self._left, sum(map(len, views)))
        self._left -= read
        self.read += read
        return read

    def close(self) -> None:
        self._opened.discard(self)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [1000, 1 << 20, (1 << 20) + 2, 3 << 20])
async def test_while_the_window_is_full_one_more_is_open_and_at_most_1_mib_is_read(size: int, known: bool) -> None:
    opened: set[Watched] = set()
    one = asyncdicom.Instance(
        sop.CT_IMAGE_STORAGE, "1.2", sop.EXPLICIT_VR_LITTLE_ENDIAN, lambda: Watched(size, known, opened)
    )

    async def script(peer: ScriptedPeer) -> None:
        requests = await stores(peer, 4)
        await answer.wait()
        for request in requests:
            await peer.respond(request, 0)
        await finish(peer)

    answer = anyio.Event()
    async with windowed(script, 4) as assoc:
        storing = assoc.store_many(itertools.repeat(one))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, storing)
            while not (len(storing.pending) == 4 and storing.unsent):
                await anyio.lowlevel.checkpoint()
            assert len(opened) <= 1
            assert sum(source.read for source in opened) <= 1 << 20
            tasks.cancel_scope.cancel()
        assert not opened
        answer.set()
        await assoc.echo()


BAD: list[Callable[[Path], Any]] = [
    lambda path: path / "missing",
    lambda path: ct_file(path / "1.dcm", 1000).with_name("2.dcm"),
    lambda path: asyncdicom.Instance.from_bytes(b"", sop.MR_IMAGE_STORAGE, "1.2", sop.EXPLICIT_VR_LITTLE_ENDIAN),
    lambda path: shortened(600_000),
    lambda path: pydicom.Dataset(),
]


@pytest.mark.parametrize("make", BAD, ids=["missing", "no DICOM", "no context", "short", "no data set"])
async def test_an_error_that_is_kept_keeps_nothing_open(make: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "2.dcm").write_bytes(b"no DICOM" * 100)
    large = ct_file(tmp_path / "large.dcm", 3 << 20, "1.2.3.5")

    async def script(peer: ScriptedPeer) -> None:
        for request in [*await stores(peer, 2), None]:
            await peer.respond(request or await peer.expect_message(C_STORE_RQ), 0)
        await finish(peer)

    async with windowed(script, 3) as assoc:
        what = [ct_instance(), make(tmp_path), ct_instance(), large, large, large]
        storing = assoc.store_many(what)
        gone = weakref.ref(storing)
        kept = [await anext(storing), await anext(storing)]
        assert kept[1].error is not None
        gc.disable()
        try:
            del storing
            assert gone() is None
            assert descriptors() == []
        finally:
            gc.enable()
        await assoc.echo()


async def test_dropped_in_another_thread_it_leaves_the_association_intact(tmp_path: Path) -> None:
    paths = [ct_file(tmp_path / f"{uid}.dcm", 1_200_000, uid) for uid in uids(5)]

    async def script(peer: ScriptedPeer) -> None:
        for request in await stores(peer, 2):
            await peer.respond(request, 0)
        await finish(peer)

    async with windowed(script, 2) as assoc:
        held = [assoc.store_many(paths)]
        await anext(held[0])
        thread = threading.Thread(target=held.clear)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        gc.collect()
        assert descriptors() == []
        await assoc.echo()
        assert assoc.is_quiet
        assert not assoc._reserved


@pytest.mark.parametrize("how", ["returns", "is cancelled", "is interrupted"])
def test_a_program_may_end_while_one_is_open(how: str, tmp_path: Path) -> None:
    paths = [ct_file(tmp_path / f"{uid}.dcm", 1_200_000, uid) for uid in uids(5)]
    kept: list[asyncdicom.StoreMany] = []

    async def send() -> None:
        async for _ in kept[0]:
            pass

    async def main() -> None:
        ours, theirs = memory_stream_pair()
        peer = ScriptedPeer(theirs)
        accepting = asyncio.ensure_future(peer.accept(window=(2, 1)))
        assoc = await asyncdicom.connect(
            "PEER@memory:0", contexts=[sop.CT_IMAGE_STORAGE], stream=ours, async_operations=(2, 1)
        ).__aenter__()
        await accepting
        kept.append(assoc.store_many(paths))
        task = asyncio.ensure_future(send())
        await peer.respond(await peer.expect_message(C_STORE_RQ), 0)
        await peer.expect_message(C_STORE_RQ)
        await wait_all_tasks_blocked()
        assert descriptors()
        if how == "is cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert descriptors() == []
        elif how == "is interrupted":
            raise KeyboardInterrupt
        # Neither the iterator nor the association is closed.

    if how == "is interrupted":
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
    else:
        asyncio.run(main())
    assert descriptors() == []
    kept.clear()
    gc.collect()
