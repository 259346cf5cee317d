"""What comes in: boxes that wake their waiter, and data sets that are bounded, exact and exclusive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

import asyncdicom
from asyncdicom import sop
from asyncdicom.incoming import TURN, Box, IncomingDataSet, Oversized
from asyncdicom.testing.peer import command_set, message_pdus

from .harness import C_STORE_RSP, CT_ID, ct_bytes, drained, served, store_elements

DATA = ct_bytes(3000)


# Boxes.


def test_a_box_keeps_what_is_filed_in_its_order() -> None:
    box = Box[int]()
    for item in (1, 2, 3):
        box.put(item)
    assert list(box.items) == [1, 2, 3]


@pytest.mark.anyio
async def test_a_box_wakes_who_waits_for_it() -> None:
    box = Box[str]()
    event = box.event = anyio.Event()
    assert not event.is_set()
    box.put("news")
    assert event.is_set()
    box.event = None
    box.put("more")
    assert list(box.items) == ["news", "more"]


def test_what_stands_for_a_data_set_that_was_too_long_is_empty() -> None:
    assert Oversized() == b""


# Data sets on their way in.


def store(data: bytes = DATA, fragment: int = 16_384) -> bytes:
    """Encode a C-STORE request, its data set in fragments."""
    command = command_set({0x00000800: 1, **store_elements(1)})
    return message_pdus(CT_ID, command, data, fragment=fragment)


class Taken:
    """Services whose C-STORE handler does what it is told with the data set that comes in."""

    def __init__(self, take: Callable[[IncomingDataSet], Awaitable[None]]) -> None:
        self.services = asyncdicom.Services()
        self.begun = anyio.Event()
        self.done = anyio.Event()
        self.pieces: list[bytes] = []
        self.error: BaseException | None = None
        self.incoming: IncomingDataSet | None = None

        @self.services.store(sop.CT_IMAGE_STORAGE)
        async def store(request: asyncdicom.StoreRequest) -> None:
            assert request._incoming is not None
            self.incoming = request._incoming
            self.begun.set()
            try:
                await take(request._incoming)
            except Exception as exc:
                self.error = exc
                raise
            finally:
                self.done.set()

    @classmethod
    def whole(cls, size: int = 1) -> Taken:
        """Take one piece after the other, to the end; or those that are at hand until they are *size* bytes."""

        async def take(incoming: IncomingDataSet) -> None:
            while pieces := await incoming.gather(size):
                assert len(pieces) == 1 or sum(map(len, pieces[:-1])) < size
                taken.pieces.extend(map(bytes, pieces))

        taken = cls(take)
        return taken


@pytest.mark.anyio
@pytest.mark.parametrize("fragment", [2, 100, 16_384])
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
async def test_the_pieces_of_a_data_set_are_all_of_it(fragment: int, size: int) -> None:
    taken = Taken.whole(size)
    async with served(taken.services) as peer:
        await peer.send(store(fragment=fragment))
        assert (await peer.expect_message(C_STORE_RSP)).status == 0
        await peer.release()
    assert b"".join(taken.pieces) == DATA
    assert taken.incoming is not None
    assert (taken.incoming.size, taken.incoming.done, taken.incoming.failed) == (len(DATA), True, False)
    assert await taken.incoming.gather(size) == []


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 1 << 20])
async def test_cancelling_who_takes_the_next_piece_loses_nothing(size: int) -> None:
    pdus = store(fragment=1000)
    middle = len(pdus) - 1500
    pieces: list[bytes] = []
    cancelled: list[bool] = []
    waits = anyio.Event()

    async def take(incoming: IncomingDataSet) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await waits.wait()
                    scope.cancel()

                tasks.start_soon(cancel)
                while some := await incoming.gather(size):
                    pieces.extend(map(bytes, some))
        cancelled.append(scope.cancelled_caught)
        resumed.set()
        while some := await incoming.gather(size):
            pieces.extend(map(bytes, some))

    resumed = anyio.Event()
    taken = Taken(take)
    async with served(taken.services) as peer:
        await peer.send(pdus[:middle])
        await drained(peer)
        waits.set()
        await resumed.wait()
        await peer.send(pdus[middle:])
        assert (await peer.expect_message(C_STORE_RSP)).status == 0
        await peer.release()
    assert cancelled == [True]
    assert b"".join(pieces) == DATA


@pytest.mark.anyio
async def test_what_is_at_hand_is_gathered_and_not_waited_for_more() -> None:
    pdus = store(fragment=1000)
    gathered: list[int] = []
    first = anyio.Event()

    async def take(incoming: IncomingDataSet) -> None:
        while pieces := await incoming.gather(1 << 20):
            gathered.append(sum(map(len, pieces)))
            first.set()

    async with served(Taken(take).services) as peer:
        await peer.send(pdus[:-500])
        await first.wait()
        await peer.send(pdus[-500:])
        assert (await peer.expect_message(C_STORE_RSP)).status == 0
        await peer.release()
    assert gathered == [len(DATA) - 488, 488]  # the header of the last PDU takes 12 bytes


@pytest.mark.anyio
async def test_what_is_discarded_leaves_the_association_usable() -> None:
    async def discard(incoming: IncomingDataSet) -> None:
        assert await incoming.gather(1)
        await incoming.discard()

    taken = Taken(discard)
    async with served(taken.services, limits=asyncdicom.Limits(data_set=2000)) as peer:
        for _ in range(2):
            await peer.send(store(fragment=1000))
            assert (await peer.expect_message(C_STORE_RSP)).status == 0
        await peer.release()
    assert taken.error is None


#: Limits.data_set -> whether a data set of this size is taken.
BOUNDS = [(None, True), (len(DATA), True), (len(DATA) + 1, True), (len(DATA) - 1, False), (0, False)]


@pytest.mark.anyio
@pytest.mark.parametrize(("limit", "taken_whole"), BOUNDS)
async def test_a_data_set_may_be_as_long_as_its_limit(limit: int | None, taken_whole: bool) -> None:
    taken = Taken.whole()
    async with served(taken.services, limits=asyncdicom.Limits(data_set=limit)) as peer:
        await peer.send(store(fragment=100))
        status = (await peer.expect_message(C_STORE_RSP)).status
        await peer.release()
    assert taken.incoming is not None
    assert taken.incoming.failed is not taken_whole
    if taken_whole:
        assert (status, taken.error) == (0, None)
    else:
        assert status not in (0, None)
        assert isinstance(taken.error, asyncdicom.DataSetError)
        assert sum(map(len, taken.pieces)) <= (limit or 0)


@pytest.mark.anyio
async def test_an_association_that_ends_first_is_the_error_of_who_waits() -> None:
    taken = Taken.whole()
    async with served(taken.services) as peer:
        await peer.send(store(fragment=1000)[:-500])
        await taken.begun.wait()
        await peer.aclose()
        await taken.done.wait()
    assert isinstance(taken.error, asyncdicom.AssociationError)
    assert taken.incoming is not None
    assert taken.incoming.done


@pytest.mark.anyio
async def test_a_peer_that_sends_no_more_is_not_waited_for() -> None:
    taken = Taken.whole()
    async with served(taken.services, timeouts=asyncdicom.Timeouts(message=0.05)) as peer:
        await peer.send(store(fragment=1000)[:-500])
        await taken.done.wait()
        await peer.expect_abort()
    assert isinstance(taken.error, asyncdicom.OperationTimeout)


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 1 << 20])
async def test_others_get_their_turn_while_many_pieces_are_here(size: int) -> None:
    turns = 0
    seen: list[int] = []

    async def take(incoming: IncomingDataSet) -> None:
        async def count() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            while await incoming.gather(size):
                seen.append(turns)
            tasks.cancel_scope.cancel()

    taken = Taken(take)
    async with served(taken.services) as peer:
        await peer.send(store(bytes(TURN * 8), fragment=2))
        assert (await peer.expect_message(C_STORE_RSP)).status == 0
        await peer.release()
    assert len(set(seen)) > 1
