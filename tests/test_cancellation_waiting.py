"""Cancel what waits: for a slot of the window, for the send lock, for a late response; over real sockets; at a loop's end."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import CancelScope, wait_all_tasks_blocked

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import MemoryStream, ScriptedPeer, memory_stream_pair

from .harness import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_FIND_RQ,
    C_STORE_RQ,
    CONTEXTS,
    PATIENCE,
    Script,
    ct_bytes,
    ct_instance,
    drained,
    expect_abort,
    finish,
    identifier,
    scripted,
)

pytestmark = pytest.mark.anyio

Use = Callable[[asyncdicom.Association], Awaitable[object]]


async def echo(assoc: asyncdicom.Association) -> object:
    return await assoc.echo()


async def store(assoc: asyncdicom.Association) -> object:
    return await assoc.store(ct_instance())


async def store_large(assoc: asyncdicom.Association) -> object:
    return await assoc.store(ct_instance(3 << 20))


async def store_many(assoc: asyncdicom.Association) -> object:
    return [stored async for stored in assoc.store_many([ct_instance(), ct_instance()])]


async def n_set(assoc: asyncdicom.Association) -> object:
    return await assoc.n_set(identifier(), sop.MODALITY_PERFORMED_PROCEDURE_STEP, "1.2.3")


async def find(assoc: asyncdicom.Association) -> object:
    return [match async for match in assoc.find(identifier())]


UNARY = pytest.mark.parametrize("use", [echo, store, store_large, store_many, n_set], ids=lambda use: use.__name__)
EVERY = pytest.mark.parametrize(
    "use", [echo, store, store_large, store_many, n_set, find], ids=lambda use: use.__name__
)


@EVERY
async def test_cancelled_while_waiting_for_a_slot_nothing_was_sent(use: Use) -> None:
    taken, left = anyio.Event(), anyio.Event()
    scope = CancelScope()

    async def script(peer: ScriptedPeer) -> None:
        first = await peer.expect_message(C_ECHO_RQ)
        taken.set()
        await others()
        scope.cancel()
        await left.wait()
        await peer.respond(first, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc, anyio.create_task_group() as tasks:
        tasks.start_soon(assoc.echo)
        await taken.wait()
        with scope:
            await use(assoc)
        assert scope.cancelled_caught
        left.set()
        assert (await assoc.echo()).status == 0


async def others() -> None:
    """Let the other tasks, which wait for memory only, get as far as they can."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@EVERY
async def test_cancelled_while_waiting_for_the_send_lock_nothing_was_sent(use: Use) -> None:
    size = 900_000
    blocked, left = anyio.Event(), anyio.Event()
    scope = CancelScope()

    async def script(peer: ScriptedPeer) -> None:
        assert isinstance(peer.stream, MemoryStream)
        # The store is being written, and cannot go on; the other verb waits for it.
        while peer.stream.buffered < 10_000:
            await anyio.lowlevel.checkpoint()
        blocked.set()
        await others()
        scope.cancel()
        await left.wait()
        stored = await peer.expect_message(C_STORE_RQ)
        assert stored.data_set == ct_bytes(size)
        await peer.respond(stored, 0x0000)
        await finish(peer)

    options: dict[str, Any] = {"accept": {"window": (2, 1)}, "async_operations": (2, 1), "max_buffer": 10_000}
    async with scripted(script, **options) as assoc, anyio.create_task_group() as tasks:
        tasks.start_soon(assoc.store, ct_instance(size))
        await blocked.wait()
        with scope:
            await use(assoc)
        assert scope.cancelled_caught
        left.set()
        assert (await assoc.echo()).status == 0


@UNARY
async def test_the_late_response_of_a_cancelled_verb_is_discarded_and_frees_its_slot(use: Use) -> None:
    async def script(peer: ScriptedPeer) -> None:
        late = await peer.expect_message()
        await drained(peer)
        scope.cancel()
        await drained(peer)
        # The next verb waits for the slot, so nothing has come.
        assert isinstance(peer.stream, MemoryStream)
        assert not peer.stream.buffered
        await peer.respond(late, 0x0110)
        request = await peer.answer_echo()
        assert request.message_id != late.message_id
        await finish(peer)

    scope = CancelScope()
    async with scripted(script) as assoc:
        with scope:
            await use(assoc)
        assert scope.cancelled_caught
        assert (await assoc.echo()).status == 0
        assert (await assoc.echo()).status == 0


@UNARY
async def test_an_association_whose_late_response_never_comes_is_aborted_once_somebody_waits(use: Use) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message()
        await drained(peer)
        scope.cancel()
        assert await expect_abort(peer) == (0, 0)

    scope = CancelScope()
    async with scripted(script, timeouts=asyncdicom.Timeouts(response=0.3)) as assoc:
        with scope:
            await use(assoc)
        assert not assoc.ended
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await assoc.echo()
        assert caught.value.kind == "response"
        assert assoc.ended


async def test_a_late_response_does_not_disturb_others_when_the_window_is_wider() -> None:
    async def script(peer: ScriptedPeer) -> None:
        late = await peer.expect_message(C_ECHO_RQ)
        await drained(peer)
        scope.cancel()
        second = await peer.expect_message(C_ECHO_RQ)
        assert second.message_id != late.message_id
        await peer.send(peer.response(late, 0x0110), peer.response(second, 0x0000))
        await finish(peer)

    scope = CancelScope()
    async with scripted(script, accept={"window": (2, 1)}, async_operations=(2, 1)) as assoc:
        with scope:
            await assoc.echo()
        assert (await assoc.echo()).status == 0
        assert (await assoc.echo()).status == 0


async def test_a_find_that_waits_for_its_slot_in_its_first_step_is_just_over() -> None:
    taken = anyio.Event()
    scope = CancelScope()

    async def script(peer: ScriptedPeer) -> None:
        first = await peer.expect_message(C_ECHO_RQ)
        taken.set()
        await others()
        scope.cancel()
        await peer.respond(first, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc, anyio.create_task_group() as tasks:
        tasks.start_soon(assoc.echo)
        await taken.wait()
        matches = assoc.find(identifier())
        with scope:
            await matches.__anext__()
        assert [match async for match in matches] == []
        assert (await assoc.echo()).status == 0


async def test_cancelling_wait_closed_changes_nothing() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await drained(peer)
        scope.cancel()
        await finish(peer)

    scope = CancelScope()
    async with scripted(script) as assoc:
        with scope:
            await assoc.wait_closed()
        assert (await assoc.echo()).status == 0


async def test_cancelling_release_aborts() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(5)
        await drained(peer)
        scope.cancel()
        assert await expect_abort(peer) == (0, 0)

    scope = CancelScope()
    async with scripted(script) as assoc:
        with scope:
            await assoc.release()
        assert scope.cancelled_caught
        with pytest.raises(asyncdicom.AssociationError):
            await assoc.echo()


@pytest.mark.parametrize("sent", [False, True], ids=["before the answer", "before the request is out"])
async def test_cancelling_connect_closes_the_connection(sent: bool) -> None:
    ours, theirs = memory_stream_pair(100 if sent else 262_144)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:

            async def use() -> None:
                with scope:
                    async with asyncdicom.connect("PEER@memory:0", stream=ours):
                        raise AssertionError

            scope = CancelScope()
            tasks.start_soon(use)
            peer = ScriptedPeer(theirs)
            if sent:
                while theirs.buffered < 100:
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
                # The request cannot be withdrawn, so it is finished, or nothing of it follows.
                assert [pdu[0] for pdu in await peer.read_to_end()] in ([1], [1, 7])
            else:
                await peer.expect(1)
                await drained(peer)
                scope.cancel()
                assert await expect_abort(peer) == (0, 0)
        assert ours.closed


# Over real sockets, whose sends are exact.


@asynccontextmanager
async def over_a_socket(script: Script, **options: Any) -> AsyncIterator[asyncdicom.Association]:
    with tempfile.TemporaryDirectory(prefix="ad") as folder, anyio.fail_after(PATIENCE):
        path = str(Path(folder) / "s")
        listener = await anyio.create_unix_listener(path)
        async with listener, anyio.create_task_group() as tasks:

            async def serve(stream: Any) -> None:
                async with stream:
                    peer = ScriptedPeer(stream)
                    await peer.accept()
                    await script(peer)

            tasks.start_soon(listener.serve, serve)
            async with asyncdicom.connect(
                asyncdicom.Address("PEER", path, 0), contexts=CONTEXTS, **options
            ) as association:
                yield association
            tasks.cancel_scope.cancel()


async def test_over_a_socket_a_cancelled_message_with_little_left_is_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncdicom.connection._FINISH_TIME", PATIENCE)
    size = 900_000
    scope = CancelScope()

    async def script(peer: ScriptedPeer) -> None:
        await wait_all_tasks_blocked()
        scope.cancel()
        stored = await peer.expect_message(C_STORE_RQ)
        assert stored.data_set == ct_bytes(size)
        await peer.respond(stored, 0x0000)
        await finish(peer)

    async with over_a_socket(script) as assoc:
        with scope:
            await assoc.store(ct_instance(size))
        assert scope.cancelled_caught
        assert (await assoc.echo()).status == 0


@pytest.mark.parametrize("size", [900_000, 8 << 20], ids=["little left", "much left"])
async def test_over_a_socket_a_cancelled_message_that_cannot_be_finished_ends_the_association(size: int) -> None:
    scope = CancelScope()
    ended = anyio.Event()

    async def script(peer: ScriptedPeer) -> None:
        await wait_all_tasks_blocked()
        scope.cancel()
        await ended.wait()
        # What went out of it is the start of the message, and nothing follows.
        with pytest.raises((AssertionError, anyio.EndOfStream, anyio.BrokenResourceError)) as caught:
            await peer.expect_message(C_STORE_RQ)
        assert "interleaved" not in str(caught.value)

    async with over_a_socket(script) as assoc:
        with scope:
            await assoc.store(ct_instance(size))
        assert scope.cancelled_caught
        assert assoc.ended
        ended.set()
        with pytest.raises(asyncdicom.AssociationAborted, match="half-written"):
            await assoc.echo()


# The end of an asyncio loop with an operation open: no warning, no task and no coroutine left behind.


class Quiet:
    """Fail if the loop complained about anything."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def check(self) -> None:
        gc.collect()
        assert [record.getMessage() for record in self._caplog.records if record.name == "asyncio"] == []


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Quiet:
    return Quiet(caplog)


def waiting_services() -> tuple[asyncdicom.Services, list[str]]:
    services = asyncdicom.Services()
    events: list[str] = []

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        try:
            yield identifier()
            await asyncio.Event().wait()
        finally:
            events.append("handler ended")

    return services, events


def test_a_loop_may_end_while_tasks_serve_and_query(quiet: Quiet) -> None:
    services, events = waiting_services()
    tasks: list[asyncio.Task[None]] = []

    async def serve(ready: asyncio.Future[str]) -> None:
        async with asyncdicom.Server(services, "ARCHIVE@127.0.0.1:0") as server:
            ready.set_result(str(server.addresses[0]))
            await server.serve_forever()

    async def query(address: str, first: asyncio.Event) -> None:
        async with asyncdicom.connect(address, contexts=[sop.STUDY_ROOT_FIND]) as assoc:
            async for _ in assoc.find(identifier()):
                first.set()

    async def main() -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        first = asyncio.Event()
        tasks.append(asyncio.create_task(serve(ready)))
        tasks.append(asyncio.create_task(query(await ready, first)))
        await first.wait()

    asyncio.run(main())
    assert [task.cancelled() for task in tasks] == [True, True]
    assert events == ["handler ended"]
    quiet.check()


@pytest.mark.parametrize("style", ["bare", "async with"])
def test_a_loop_may_end_with_the_program_failing_in_the_body_of_a_loop(style: str, quiet: Quiet) -> None:
    services, events = waiting_services()

    async def main() -> None:
        async with asyncdicom.Server(services, "ARCHIVE@127.0.0.1:0") as server:
            address = server.addresses[0]
            async with asyncdicom.connect(address, contexts=[sop.STUDY_ROOT_FIND]) as assoc:
                if style == "bare":
                    async for _ in assoc.find(identifier()):
                        raise KeyError("of the program")
                async with assoc.find(identifier()) as matches:
                    async for _ in matches:
                        raise KeyError("of the program")

    with pytest.raises(KeyError, match="of the program"):
        asyncio.run(main())
    assert events == ["handler ended"]
    quiet.check()


def test_a_loop_may_end_with_an_operation_that_was_never_closed(quiet: Quiet) -> None:
    kept: list[Any] = []

    async def play(stream: MemoryStream) -> None:
        peer = ScriptedPeer(stream)
        await peer.accept()
        request = await peer.expect_message(C_FIND_RQ)
        await peer.respond(request, 0xFF00, identifier())
        await asyncio.Event().wait()

    async def main() -> None:
        ours, theirs = memory_stream_pair()
        kept.append(asyncio.create_task(play(theirs)))
        assoc = await asyncdicom.connect("PEER@memory:0", contexts=CONTEXTS, stream=ours).__aenter__()
        matches = assoc.find(identifier())
        await matches.__anext__()
        kept.extend((assoc, matches))
        async for _ in assoc.find(identifier()):  # never started: the other one is still open
            raise AssertionError

    with pytest.raises(asyncdicom.ConcurrencyError):
        asyncio.run(main())
    kept.clear()
    quiet.check()


def test_an_interrupted_program_sends_c_cancel_and_ends(quiet: Quiet) -> None:
    seen: list[int] = []

    async def play(stream: MemoryStream) -> None:
        peer = ScriptedPeer(stream)
        await peer.accept()
        request = await peer.expect_message(C_FIND_RQ)
        await drained(peer)
        main_task[0].cancel()  # what asyncio.run() does upon Ctrl-C
        seen.append((await peer.expect_message(C_CANCEL_RQ)).command_field)
        await peer.respond(request, 0xFE00)
        seen.append((await peer.receive_pdu())[0])
        await peer.aclose()

    main_task: list[asyncio.Task[Any]] = []

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        main_task.append(task)
        ours, theirs = memory_stream_pair()
        playing = asyncio.create_task(play(theirs))
        try:
            async with asyncdicom.connect("PEER@memory:0", contexts=CONTEXTS, stream=ours) as assoc:
                await find(assoc)
        finally:
            await playing

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert seen == [C_CANCEL_RQ, 7]
    quiet.check()
