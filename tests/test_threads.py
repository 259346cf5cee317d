"""Worker threads: how many there are, when they end, and where what a call returned or raised goes to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import anyio
import pytest

from asyncdicom import threads

from .harness import PATIENCE

Thread = threading.Thread


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[threads._Pool]:
    """A pool that nobody else uses; one holder of it ends with the test."""
    pool = threads._Pool()
    monkeypatch.setattr(threads, "_pool", pool)
    threads.hold()
    yield pool
    threads.release()


async def all_at_once(*calls: object) -> list[object]:
    """Run calls at once; return what they returned, in their order."""
    results: list[object] = [None] * len(calls)

    async def one(index: int) -> None:
        call = calls[index]
        assert callable(call)
        results[index] = await threads.run(call)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for index in range(len(calls)):
                tasks.start_soon(one, index)
    return results


async def ended(thread: Thread) -> bool:
    """Wait for the end of a thread."""
    await anyio.to_thread.run_sync(thread.join, PATIENCE)
    return not thread.is_alive()


# What a call returns, and what it raises.


@pytest.mark.anyio
async def test_what_a_call_returns_is_returned_and_it_ran_in_another_thread() -> None:
    assert await threads.run(threading.get_ident) != threading.get_ident()
    assert await threads.run(list) == []


#: What the call raises -> what comes out.
RAISED = [
    (ValueError("no"), ValueError),
    (FileNotFoundError(2, "no such file"), FileNotFoundError),
    (TimeoutError(), TimeoutError),
    (EOFError(), EOFError),
    # A coroutine cannot raise it (PEP 479).
    (StopIteration(), RuntimeError),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("raised", "expected"), RAISED, ids=lambda value: getattr(value, "__name__", None))
async def test_what_a_call_raises_is_raised_and_its_thread_lives_on(
    raised: Exception, expected: type[Exception]
) -> None:
    def fail() -> None:
        raise raised

    disposed: list[None] = []
    with anyio.fail_after(PATIENCE), pytest.raises(expected) as caught:
        await threads.run(fail, disposed.append)
    assert raised in (caught.value, caught.value.__cause__)
    assert await threads.run(lambda: "still here") == "still here"
    assert disposed == []


@pytest.mark.anyio
async def test_a_result_that_somebody_waits_for_is_not_disposed_of() -> None:
    disposed: list[str] = []
    assert await threads.run(lambda: "opened", disposed.append) == "opened"
    assert disposed == []


@pytest.mark.anyio
async def test_the_cancellation_of_a_scope_waits_for_the_call_and_loses_no_result() -> None:
    started, gate = anyio.Event(), threading.Event()
    opened: list[str] = []
    disposed: list[str] = []
    token = anyio.lowlevel.current_token()

    def call() -> str:
        anyio.from_thread.run_sync(started.set, token=token)
        gate.wait(PATIENCE)
        return "opened"

    async def run() -> None:
        opened.append(await threads.run(call, disposed.append))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await started.wait()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            assert opened == []
            gate.set()
    assert (opened, disposed) == (["opened"], [])


# How many threads there are. Those of trio are its own.

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.mark.anyio
@on_asyncio
async def test_calls_after_one_another_share_one_thread(pool: threads._Pool) -> None:
    seen = {await threads.run(threading.current_thread) for _ in range(5)}
    assert len(seen) == 1
    assert pool._threads == 1


@pytest.mark.anyio
@on_asyncio
async def test_calls_at_once_get_a_thread_each() -> None:
    meeting = threading.Barrier(3)

    def meet() -> Thread:
        meeting.wait(PATIENCE)
        return threading.current_thread()

    assert len(set(await all_at_once(meet, meet, meet))) == 3


@pytest.mark.anyio
@on_asyncio
async def test_calls_beyond_the_most_threads_wait_for_one(pool: threads._Pool) -> None:
    meeting = threading.Barrier(threads._MOST)

    def meet() -> Thread:
        meeting.wait(PATIENCE)
        return threading.current_thread()

    assert len(set(await all_at_once(*[meet] * threads._MOST * 2))) == threads._MOST
    assert pool._threads == threads._MOST


@pytest.mark.anyio
@on_asyncio
async def test_calls_that_wait_for_a_thread_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_MOST", 1)
    order: list[int] = []
    await all_at_once(*[lambda number=number: order.append(number) for number in range(50)])
    assert order == list(range(50))


# When they end.


@pytest.mark.anyio
@on_asyncio
async def test_threads_end_with_the_last_holder(pool: threads._Pool) -> None:
    threads.hold()
    thread = await threads.run(threading.current_thread)
    threads.release()
    assert await threads.run(threading.current_thread) is thread
    threads.release()
    assert await ended(thread)
    threads.hold()  # for the fixture


@pytest.mark.anyio
@on_asyncio
async def test_the_last_holder_does_not_take_queued_calls_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_MOST", 1)
    gate = threading.Event()
    results: list[str] = []

    async def run(text: str) -> None:
        def call() -> str:
            gate.wait(PATIENCE)
            return text

        results.append(await threads.run(call))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for text in ("one", "two", "three"):
                tasks.start_soon(run, text)
            await anyio.lowlevel.checkpoint()
            threads.release()
            gate.set()
    assert results == ["one", "two", "three"]
    threads.hold()  # for the fixture


@pytest.mark.anyio
@on_asyncio
async def test_a_pool_that_was_let_go_is_held_again_with_new_threads() -> None:
    old = await threads.run(threading.current_thread)
    threads.release()
    assert await ended(old)
    threads.hold()
    new = await threads.run(threading.current_thread)
    assert new is not old
    assert new.is_alive()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_its_own_threads_are_used(pool: threads._Pool) -> None:
    await threads.run(threading.current_thread)
    assert pool._threads == 0


# Nobody waits any more.


async def cancelled_natively(fails: bool = False) -> tuple[list[str], list[object]]:
    """Cancel a task of asyncio whose call is running; return what was disposed of, and what the loop complained of."""
    loop = asyncio.get_running_loop()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    started, gate = asyncio.Event(), threading.Event()
    disposed: list[str] = []

    def call() -> str:
        loop.call_soon_threadsafe(started.set)
        gate.wait(PATIENCE)
        if fails:
            raise OSError("nobody will hear of it")
        return "opened"

    task = asyncio.create_task(threads.run(call, disposed.append))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert disposed == []  # the call has not even returned
    gate.set()
    await threads.run(list)  # the only thread takes it up behind that
    return disposed, complaints


@pytest.mark.parametrize(("fails", "disposed"), [(False, ["opened"]), (True, [])])
def test_after_a_native_cancellation_only_a_result_is_disposed_of(
    fails: bool, disposed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_MOST", 1)
    assert asyncio.run(cancelled_natively(fails)) == (disposed, [])


@pytest.mark.parametrize(("fails", "disposed"), [(False, ["opened"]), (True, [])])
def test_what_returns_after_its_loop_was_closed_is_disposed_of(fails: bool, disposed: list[str]) -> None:
    gate = threading.Event()
    seen: SimpleQueue[object] = SimpleQueue()

    def call() -> str:
        seen.put(threading.current_thread())
        gate.wait(PATIENCE)
        if fails:
            raise OSError("nobody will hear of it")
        return "opened"

    async def main() -> None:
        task = asyncio.create_task(threads.run(call, seen.put))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    thread = seen.get(timeout=PATIENCE)
    assert isinstance(thread, Thread)
    gate.set()
    threads.release()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [seen.get() for _ in range(seen.qsize())] == disposed
    threads.hold()  # for the fixture
