"""A pool of associations: how they are reused, replaced, bounded and ended."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

import asyncdicom
from asyncdicom import (
    Association,
    AssociationAborted,
    AssociationPool,
    AssociationRejected,
    AssociationRequest,
    ConnectError,
    FindRequest,
    Limits,
    LocalProtocolError,
    NoPresentationContext,
    Server,
    Services,
    StatusError,
    StoreRequest,
    Timeouts,
    sop,
)
from asyncdicom.pool import _ConnectOptions
from asyncdicom.protocol.states import State
from asyncdicom.testing import ScriptedPeer

from .harness import ct_instance, identifier

pytestmark = pytest.mark.anyio

CONTEXTS = (sop.VERIFICATION, sop.STUDY_ROOT_FIND, sop.CT_IMAGE_STORAGE)


class Peer:
    """A server, and what was asked of it.

    :ivar requests: its association requests.
    :ivar most: the most associations that it ever had at once.
    :ivar rejections: what the next association requests are answered by.
    :ivar deaths: how many of the next C-ECHO requests are answered by an abort.
    """

    def __init__(self) -> None:
        self.requests: list[AssociationRequest] = []
        self.most = 0
        self.rejections: list[AssociationRejected] = []
        self.deaths = 0
        self.cancelled = 0
        self.stored: list[str] = []
        self.gate: anyio.Event | None = None
        self.asked = anyio.Event()
        services = self.services = Services()
        services.on_associate(self._policy)
        services.echo()(self._echo)
        services.find(sop.STUDY_ROOT_FIND)(self._find)
        services.store(sop.CT_IMAGE_STORAGE)(self._store)

    def _policy(self, request: AssociationRequest) -> None:
        self.requests.append(request)
        if self.rejections:
            raise self.rejections.pop(0)

    async def _echo(self, request: asyncdicom.EchoRequest) -> None:
        if self.deaths:
            self.deaths -= 1
            await request.association.abort()
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()

    async def _find(self, request: FindRequest) -> AsyncIterator[bytes]:
        try:
            while True:
                yield identifier()
        finally:
            self.cancelled += 1

    async def _store(self, request: StoreRequest) -> None:
        self.most = max(self.most, len(self.server.associations))
        await request.read()
        self.stored.append(request.sop_instance_uid)

    @asynccontextmanager
    async def pool(self, *, entered: bool = True, **options: Any) -> AsyncIterator[AssociationPool]:
        """Serve, and give a pool of associations with it."""
        options = {"contexts": CONTEXTS, "delay": 0, **options}
        with anyio.fail_after(30):
            async with Server(self.services, "PEER@127.0.0.1:0", drain=0) as self.server:
                pool = AssociationPool(self.server.addresses[0], **options)
                if entered:
                    async with pool:
                        yield pool
                else:
                    try:
                        yield pool
                    finally:
                        await pool.aclose()

    async def settled(self, count: int) -> None:
        """Wait until it has so many associations."""
        while len(self.server.associations) != count:
            await self.server._change(anyio.current_time() + 0.05)


ENTERED = pytest.mark.parametrize("entered", [True, False])


# Reuse.


@ENTERED
async def test_an_association_is_used_again(entered: bool) -> None:
    peer = Peer()
    async with peer.pool(entered=entered) as pool:
        assert (pool.in_use, pool.idle) == (0, 0)
        used = []
        for _ in range(5):
            async with pool.association() as association:
                assert (pool.in_use, pool.idle) == (1, 0)
                await association.echo()
                used.append(association)
            assert (pool.in_use, pool.idle) == (0, 1)
        assert len(set(map(id, used))) == 1
        assert len(peer.requests) == 1
    await pool.aclose()


async def test_no_more_than_its_size_are_made_and_who_waits_gets_a_turn_in_order() -> None:
    peer = Peer()
    order: list[int] = []

    async def use(number: int) -> None:
        async with pool.association() as association:
            order.append(number)
            await association.echo()
            await anyio.lowlevel.checkpoint()

    async with peer.pool(size=1) as pool:
        async with anyio.create_task_group() as tasks:
            async with pool.association():
                for number in range(10):
                    tasks.start_soon(use, number)
                    while pool.waiting <= number:
                        await anyio.lowlevel.checkpoint()
        assert order == list(range(10))
        assert (pool.in_use, pool.idle, pool.waiting) == (0, 1, 0)
    assert len(peer.requests) == 1


async def test_cancelling_who_waits_loses_no_turn() -> None:
    async with Peer().pool(size=1) as pool:
        async with anyio.create_task_group() as tasks:

            async def wait(scope: CancelScope) -> None:
                with scope:
                    async with pool.association():
                        pass

            async with pool.association():
                scopes = [CancelScope() for _ in range(4)]
                for scope in scopes:
                    tasks.start_soon(wait, scope)
                while pool.waiting < 4:
                    await anyio.lowlevel.checkpoint()
                scopes[0].cancel()
                scopes[2].cancel()
            # And one of them at the moment that it gets its turn.
            scopes[1].cancel()
        assert (pool.in_use, pool.idle, pool.waiting) == (0, 1, 0)
        await pool.echo()


async def test_the_one_that_was_used_last_is_used_first() -> None:
    async with Peer().pool(size=3) as pool:
        async with pool.association(), pool.association() as last:
            pass
        async with pool.association() as one:
            pass
        async with pool.association() as other:
            assert other is one
        assert one is not last


# Health.


async def _abort(association: Association) -> None:
    await association.abort()


async def _reset(association: Association) -> None:
    association.transport.abort()


async def _close(association: Association) -> None:
    await association.transport.aclose()


@ENTERED
@pytest.mark.parametrize("end", [_abort, _reset, _close])
async def test_an_association_that_the_peer_ends_while_it_is_idle_is_replaced(
    entered: bool, end: Callable[[Association], Any]
) -> None:
    peer = Peer()
    async with peer.pool(entered=entered) as pool:
        await pool.echo()
        (association,) = peer.server.associations
        await end(association)
        await peer.settled(0)
        async with pool.association() as fresh:
            await fresh.echo()
        assert len(peer.requests) == 2
        assert pool.idle == 1


@ENTERED
async def test_so_is_one_that_the_peer_releases(entered: bool) -> None:
    peer = Peer()
    async with peer.pool(entered=entered) as pool:
        await pool.echo()
        (association,) = peer.server.associations
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(association.release)
            while association.core.upper_layer.state is not State.STA7:
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            async with pool.association() as fresh:
                await fresh.echo()
        # It has got its answer.
        assert str(association.error()) == "the association was released"
        assert len(peer.requests) == 2


async def test_a_watched_association_that_ends_is_given_up_at_once() -> None:
    peer = Peer()
    async with peer.pool() as pool:
        await pool.echo()
        (association,) = peer.server.associations
        await association.abort()
        while pool.idle:
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("deaths", [1, 2])
async def test_a_verb_of_the_pool_is_repeated_when_an_idle_association_turns_out_to_have_ended(deaths: int) -> None:
    peer = Peer()
    async with peer.pool(size=3) as pool:
        async with pool.association(), pool.association(), pool.association():
            pass
        peer.deaths = deaths
        assert (await pool.echo()).status == 0
        assert pool.in_use == 0
    assert len(peer.requests) == 3


async def test_a_verb_is_not_repeated_on_an_association_that_is_new() -> None:
    peer = Peer()
    async with peer.pool() as pool:
        peer.deaths = 10
        with pytest.raises(AssociationAborted):
            await pool.echo()
        assert peer.deaths == 9
        peer.deaths = 0
        await pool.echo()


async def test_an_association_that_is_lent_is_not_replaced() -> None:
    peer = Peer()
    async with peer.pool() as pool:
        await pool.echo()
        peer.deaths = 1
        with pytest.raises(AssociationAborted):
            async with pool.association() as association:
                await association.echo()
        assert (pool.in_use, pool.idle) == (0, 0)


# Giving back.


async def test_an_exception_of_the_user_arrives_bare_and_does_no_harm() -> None:
    peer = Peer()
    async with peer.pool() as pool:
        for exc in (ValueError("of the user"), StatusError(0xA700), KeyError("x")):
            with pytest.raises(type(exc)) as caught:  # noqa: PT012
                async with pool.association() as association:
                    await association.echo()
                    raise exc
            assert caught.value is exc
        assert pool.idle == 1
    assert len(peer.requests) == 1


async def test_an_operation_that_was_left_open_is_cancelled() -> None:
    peer = Peer()
    async with peer.pool() as pool:
        async with pool.association() as association:
            matches = association.find({"PatientID": ""})
            await anext(matches)
        assert matches.response is not None
        assert matches.response.status == 0xFE00
        async with pool.association() as association:
            async for _ in association.find({"PatientID": ""}):
                break
        await pool.echo()
    assert peer.cancelled == 2
    assert len(peer.requests) == 1


async def test_an_association_with_an_answer_outstanding_is_not_used_again() -> None:
    peer = Peer()
    async with peer.pool() as pool:
        peer.gate = anyio.Event()
        with CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await peer.asked.wait()
                    scope.cancel()

                tasks.start_soon(cancel)
                async with pool.association() as association:
                    await association.echo()
        assert association.ended
        assert (pool.in_use, pool.idle) == (0, 0)
        peer.gate.set()
        await pool.echo()
    assert len(peer.requests) == 2


async def test_an_association_that_was_ended_is_not_used_again() -> None:
    peer = Peer()
    async with peer.pool() as pool:
        async with pool.association() as association:
            await association.release()
        async with pool.association() as association:
            await association.abort()
        await pool.echo()
    assert len(peer.requests) == 3


@pytest.mark.parametrize("max_uses", [1, 3, None])
async def test_an_association_is_used_so_often(max_uses: int | None) -> None:
    peer = Peer()
    async with peer.pool(max_uses=max_uses) as pool:
        for _ in range(6):
            await pool.echo()
    assert len(peer.requests) == (1 if max_uses is None else 6 / max_uses)


@pytest.mark.parametrize("idle", [0.02, None])
async def test_an_association_that_nobody_uses_is_released(idle: float | None) -> None:
    peer = Peer()
    async with peer.pool(idle=idle, size=2) as pool:
        async with pool.association(), pool.association():
            await peer.settled(2)
            used = peer.server.associations
        if idle is None:
            await pool.echo()
            assert pool.idle == 2
        else:
            await peer.settled(0)
            assert pool.idle == 0
            assert [str(association.error()) for association in used] == ["the peer released the association"] * 2


async def test_without_watchers_it_is_released_when_it_would_be_used() -> None:
    peer = Peer()
    async with peer.pool(entered=False, idle=1e-6) as pool:
        await pool.echo()
        (used,) = peer.server.associations
        await pool.echo()
        assert str(used.error()) == "the peer released the association"
    assert len(peer.requests) == 2


# Associating.


@pytest.mark.parametrize(
    ("rejections", "retries", "attempts"),
    [
        ([(2, 3, 2)], 2, 2),
        ([(2, 3, 2), (2, 3, 1)], 2, 3),
        ([(2, 3, 2)] * 3, 2, None),
        ([(2, 3, 2)], 0, None),
        ([(1, 1, 7)], 2, None),
    ],
)
async def test_what_may_pass_is_tried_again(
    rejections: list[tuple[int, int, int]], retries: int, attempts: int | None
) -> None:
    peer = Peer()
    peer.rejections = [AssociationRejected(*rejection) for rejection in rejections]
    async with peer.pool(retries=retries) as pool:
        if attempts is None:
            with pytest.raises(AssociationRejected):
                await pool.echo()
            assert len(peer.requests) == len(rejections)
        else:
            await pool.echo()
            assert len(peer.requests) == attempts
        # A turn that led to nothing is free again.
        assert pool.in_use == 0
        peer.rejections.clear()
        await pool.echo()


async def test_a_peer_that_is_not_there_is_tried_again_and_then_an_error() -> None:
    async with AssociationPool("NOBODY@127.0.0.1:1", retries=2, delay=0) as pool:
        with pytest.raises(ConnectError):
            await pool.echo()
        assert pool.in_use == 0


async def test_options_are_those_of_connect() -> None:
    options = dict(inspect.signature(asyncdicom.connect.__init__).parameters)
    del options["self"], options["address"], options["stream"]
    assert options.keys() == _ConnectOptions.__annotations__.keys()
    peer = Peer()
    async with peer.pool(calling="SOMEBODY", contexts=iter(CONTEXTS), size=2) as pool:
        async with pool.association() as one, pool.association() as other:
            assert one.accepted_contexts == other.accepted_contexts
    assert {request.calling_ae_title for request in peer.requests} == {"SOMEBODY"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"size": 0}, LocalProtocolError),
        ({"max_uses": 0}, LocalProtocolError),
        ({"retries": -1}, LocalProtocolError),
        ({"contexts": []}, LocalProtocolError),
        ({"calling": "SEVENTEEN CHARACTE"}, (ValueError, LocalProtocolError)),
        ({"address": "nowhere"}, ValueError),
        ({"colour": "red"}, TypeError),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        AssociationPool(**{"address": "PEER@127.0.0.1:104", **options})


# The verbs.


async def test_many_instances_are_stored_side_by_side() -> None:
    peer = Peer()
    uids = [f"1.2.{number}" for number in range(40)]
    async with peer.pool(size=4) as pool:
        async with anyio.create_task_group() as tasks:
            for uid in uids:
                tasks.start_soon(pool.store, ct_instance(uid=uid))
        assert pool.idle == 4
    assert sorted(peer.stored) == sorted(uids)
    assert len(peer.requests) == peer.most == 4


async def test_errors_of_a_verb_leave_the_association_in_the_pool() -> None:
    peer = Peer()
    async with peer.pool(contexts=[sop.VERIFICATION]) as pool:
        with pytest.raises(NoPresentationContext):
            await pool.store(ct_instance())
        await pool.echo()
    assert len(peer.requests) == 1


# The end.


@ENTERED
async def test_closing_releases_what_is_idle_and_aborts_what_is_in_use(entered: bool) -> None:
    peer = Peer()
    outcome: list[type[Exception]] = []

    async def use() -> None:
        try:
            async with pool.association() as association:
                await association.wait_closed()
                await association.echo()
        except Exception as exc:
            outcome.append(type(exc))

    async with anyio.create_task_group() as tasks:
        async with peer.pool(entered=entered, size=2) as pool:
            async with pool.association(), pool.association():
                pass
            await peer.settled(2)
            theirs = peer.server.associations
            tasks.start_soon(use)
            while pool.in_use < 1:
                await anyio.lowlevel.checkpoint()
            await pool.aclose()
            await peer.settled(0)
            with pytest.raises(LocalProtocolError, match="closed"):
                await pool.echo()
            ends = sorted(str(association.error()) for association in theirs)
            assert ends == [
                "association aborted by the service user (source 0, reason 0)",
                "the peer released the association",
            ]
    assert outcome == [AssociationAborted]
    assert (pool.in_use, pool.idle, pool.waiting) == (0, 0, 0)


async def test_closing_sends_away_who_waits() -> None:
    outcome: list[type[Exception]] = []

    async def wait() -> None:
        try:
            async with pool.association():
                raise AssertionError
        except LocalProtocolError as exc:
            outcome.append(type(exc))

    async with anyio.create_task_group() as tasks:
        async with Peer().pool(size=1) as pool:
            async with pool.association():
                for _ in range(3):
                    tasks.start_soon(wait)
                while pool.waiting < 3:
                    await anyio.lowlevel.checkpoint()
                await pool.aclose()
    assert outcome == [LocalProtocolError] * 3
    assert (pool.in_use, pool.idle, pool.waiting) == (0, 0, 0)


async def test_leaving_by_an_exception_aborts_and_the_exception_arrives_bare() -> None:
    peer = Peer()
    with pytest.raises(ValueError, match="of the user"):  # noqa: PT012
        async with peer.pool() as pool:
            await pool.echo()
            (used,) = peer.server.associations
            raise ValueError("of the user")
    assert "abort" in str(used.error())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_on_asyncio_it_is_entered_and_left_in_different_tasks(anyio_backend: str) -> None:
    peer = Peer()
    async with Server(peer.services, "PEER@127.0.0.1:0", drain=0) as peer.server:
        pool = AssociationPool(peer.server.addresses[0], contexts=CONTEXTS)
        await asyncio.create_task(pool.__aenter__())
        await asyncio.create_task(pool.echo())
        await pool.echo()
        (used,) = peer.server.associations
        await asyncio.create_task(pool.__aexit__(None, None, None))
        assert str(used.error()) == "the peer released the association"
        assert len(peer.requests) == 1


async def test_an_association_is_entered_and_left_in_different_tasks() -> None:
    async with Peer().pool() as pool:
        lease = pool.association()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lease.__aenter__)
        assert pool.in_use == 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lease.__aexit__, None, None, None)
        assert (pool.in_use, pool.idle) == (0, 1)
        with pytest.raises(LocalProtocolError, match="entered once"):
            await pool.__aenter__()


async def test_a_peer_that_does_not_answer_a_release_does_not_keep_it_open() -> None:
    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            peer = ScriptedPeer(stream)
            await peer.accept()
            await peer.answer_echo()
            received = await peer.read_to_end()
            ends.append([one[0] for one in received])

    ends: list[list[int]] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            tasks.start_soon(listener.serve, serve)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            timeouts = Timeouts(release=0.05)
            async with AssociationPool(f"PEER@127.0.0.1:{port}", contexts=CONTEXTS, timeouts=timeouts) as pool:
                await pool.echo()
            while not ends:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await listener.aclose()
    # A-RELEASE-RQ, and then A-ABORT.
    assert ends == [[5, 7]]


async def test_nothing_is_left_behind() -> None:
    def count() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(anyio.get_running_tasks())

    peer = Peer()
    async with Server(peer.services, "PEER@127.0.0.1:0", drain=0) as peer.server:

        async def once() -> None:
            async with AssociationPool(peer.server.addresses[0], contexts=CONTEXTS, size=3) as pool:
                async with anyio.create_task_group() as tasks:
                    for _ in range(9):
                        tasks.start_soon(pool.echo)
            await peer.settled(0)

        await once()
        gc.collect()
        before = count()
        for _ in range(5):
            await once()
        gc.collect()
        # Those of the server's side end a moment after its associations.
        with anyio.fail_after(10):
            while not all(now <= first for now, first in zip(count(), before, strict=True)):
                await checkpoint()


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_its_bounds_and_its_counts_hold(seed: int) -> None:
    peer = Peer()
    chance = random.Random(seed)

    async def worker() -> None:
        for _ in range(15):
            what = chance.randrange(7)
            with anyio.move_on_after(chance.choice([0, 0.001, 0.01, 10])):
                try:
                    async with pool.association() as association:
                        assert pool.in_use <= 3
                        if what == 0:
                            await association.abort()
                        elif what == 1:
                            raise ValueError
                        elif what == 2:
                            async for _ in association.find({"PatientID": ""}, limit=3):
                                pass
                        elif what == 3:
                            async for _ in association.find({"PatientID": ""}):
                                break
                        elif what == 4:
                            await anyio.sleep(0.001)
                        elif what == 5:
                            for one in peer.server.associations[:1]:
                                one.transport.abort()
                        else:
                            await association.echo()
                except (ValueError, asyncdicom.AssociationError):
                    pass

    async with peer.pool(size=3, max_uses=7, limits=Limits()) as pool:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(worker)
        assert (pool.in_use, pool.waiting) == (0, 0)
        assert pool.idle <= 3
        await pool.echo()
        await pool.store(ct_instance())
    assert pool.idle == 0
