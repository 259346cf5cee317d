"""What cancelling does: every row of the table in the documentation, for every verb, on both backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
from anyio import CancelScope

import asyncdicom
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
    drained,
    finish,
    identifier,
    scripted,
    store_elements,
)

pytestmark = pytest.mark.anyio

Trigger = Callable[[], None]

# The three operations with several responses, as a peer plays them.

VERBS = ("find", "get", "move")
_REQUEST = {"find": C_FIND_RQ, "get": C_GET_RQ, "move": C_MOVE_RQ}


def operation(assoc: asyncdicom.Association, verb: str, **options: Any) -> Any:
    """Start an operation."""
    if verb == "move":
        options["destination"] = "ELSEWHERE"
    return getattr(assoc, verb)({"PatientID": ""}, **options)


async def play_item(peer: ScriptedPeer, verb: str, request: Received, number: int) -> None:
    """Make the operation yield one item."""
    if verb == "find":
        await peer.respond(request, 0xFF00, identifier(str(number)))
    elif verb == "get":
        await peer.send_message(CT_ID, store_elements(100 + number, f"1.2.{number}"), ct_bytes(uid=f"1.2.{number}"))
    else:
        await peer.respond(request, 0xFF00, elements=counters(max(0, 10 - number), number % 1000))


class Play:
    """A peer whose operation is left after its first item; it checks what leaving puts on the wire.

    :ivar stores: the statuses of the C-STORE responses, in their order.
    """

    def __init__(self, verb: str, *, end: Callable[[ScriptedPeer], Awaitable[None]] = finish) -> None:
        self.verb = verb
        self.end = end
        self.stores: list[int | None] = []
        self.trigger: Trigger | None = None

    async def __call__(self, peer: ScriptedPeer) -> None:
        verb = self.verb
        request = await peer.expect_message(_REQUEST[verb])
        await play_item(peer, verb, request, 1)
        if self.trigger is not None:
            # The client took the item and waits for the next one.
            if verb == "get":
                self.stores.append((await peer.expect_message(C_STORE_RSP)).status)
            await drained(peer)
            self.trigger()
        elif verb == "get":
            self.stores.append((await peer.expect_message(C_STORE_RSP)).status)
        cancel = await peer.expect_message(C_CANCEL_RQ)
        assert (cancel.message_id, cancel.context_id) == (request.message_id, request.context_id)
        assert cancel.data_set is None
        # What was under way already is drained.
        await play_item(peer, verb, request, 2)
        if verb == "get":
            self.stores.append((await peer.expect_message(C_STORE_RSP)).status)
        await peer.respond(request, 0xFE00)
        await self.end(peer)


# Ways of leaving while the next item is waited for: each gives what is to be called to leave.


@asynccontextmanager
async def by_anyio_scope() -> AsyncIterator[list[Trigger]]:
    with CancelScope() as scope:
        yield [scope.cancel]
    assert scope.cancelled_caught


@asynccontextmanager
async def by_anyio_move_on_after() -> AsyncIterator[list[Trigger]]:
    with anyio.move_on_after(1000) as scope:
        yield [lambda: setattr(scope, "deadline", anyio.current_time())]
    assert scope.cancelled_caught


@asynccontextmanager
async def by_anyio_fail_after() -> AsyncIterator[list[Trigger]]:
    with pytest.raises(TimeoutError) as caught:
        with anyio.fail_after(1000) as scope:
            yield [lambda: setattr(scope, "deadline", anyio.current_time())]
    assert not isinstance(caught.value, asyncdicom.OperationTimeout)


@asynccontextmanager
async def by_trio_move_on_after() -> AsyncIterator[list[Trigger]]:
    with trio.move_on_after(1000) as scope:
        yield [lambda: setattr(scope, "deadline", trio.current_time())]
    assert scope.cancelled_caught


@asynccontextmanager
async def by_asyncio_timeout() -> AsyncIterator[list[Trigger]]:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(1000) as timeout:
            yield [lambda: timeout.reschedule(loop.time())]
    assert not isinstance(caught.value, asyncdicom.OperationTimeout)


@asynccontextmanager
async def by_asyncio_task_group() -> AsyncIterator[list[Trigger]]:
    failing = asyncio.Event()

    async def fail() -> None:
        await failing.wait()
        raise ValueError("a sibling failed")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            yield [failing.set]
    assert [type(exc) for exc in caught.value.exceptions] == [ValueError]


@asynccontextmanager
async def by_task_cancel() -> AsyncIterator[list[Trigger]]:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(asyncio.CancelledError):
        yield [lambda: (task.cancel(), None)[1]]
    assert task.uncancel() == 0


WAYS: list[tuple[str, Any]] = [
    *(("asyncio", way) for way in (by_anyio_scope, by_anyio_move_on_after, by_anyio_fail_after)),
    *(("asyncio", way) for way in (by_asyncio_timeout, by_asyncio_task_group, by_task_cancel)),
    *(("trio", way) for way in (by_anyio_scope, by_anyio_move_on_after, by_anyio_fail_after, by_trio_move_on_after)),
]


@pytest.mark.parametrize(("anyio_backend", "way"), WAYS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("style", ["bare", "async with"])
async def test_cancelling_while_the_next_item_is_waited_for_sends_c_cancel_and_drains(
    anyio_backend: str, way: Any, verb: str, style: str
) -> None:
    play = Play(verb)
    async with scripted(play) as assoc:
        items = 0
        async with way() as triggers:
            (play.trigger,) = triggers
            results = operation(assoc, verb)
            if style == "bare":
                async for _ in results:
                    items += 1
            else:
                async with results:
                    async for _ in results:
                        items += 1
        assert items == 1
        assert results.response is not None
        assert results.response.status == 0xFE00
        assert results.truncated
        assert (await assoc.echo()).status == 0
    # The instance that was skipped is a success, what came while draining never is.
    assert play.stores == ([0x0000, 0xA700] if verb == "get" else [])


async def leave_by_break(assoc: asyncdicom.Association, verb: str) -> Any:
    async with operation(assoc, verb) as results:
        async for _ in results:
            break
    return results


async def leave_by_aclose(assoc: asyncdicom.Association, verb: str) -> Any:
    results = operation(assoc, verb)
    async for _ in results:
        await results.aclose()
    await results.aclose()  # once more does nothing
    return results


async def leave_by_limit(assoc: asyncdicom.Association, verb: str) -> Any:
    if verb == "move":
        return await leave_by_aclose(assoc, verb)  # it has no limit
    results = operation(assoc, verb, limit=1)
    assert len([item async for item in results]) == 1
    return results


async def leave_by_exception(assoc: asyncdicom.Association, verb: str) -> Any:
    with pytest.raises(ValueError, match="body"):  # noqa: PT012
        async with operation(assoc, verb) as results:
            async for _ in results:
                raise ValueError("the body failed")
    return results


async def leave_by_os_error(assoc: asyncdicom.Association, verb: str) -> Any:
    with pytest.raises(OSError, match="disk"):  # noqa: PT012
        async with operation(assoc, verb) as results:
            async for _ in results:
                raise OSError("the disk failed")
    return results


async def leave_by_athrow(assoc: asyncdicom.Association, verb: str) -> Any:
    results = operation(assoc, verb)
    await results.__anext__()
    with pytest.raises(KeyError):
        await results.athrow(KeyError("thrown"))
    return results


async def leave_by_aclosing(assoc: asyncdicom.Association, verb: str) -> Any:
    from contextlib import aclosing

    async with aclosing(operation(assoc, verb)) as results:
        await results.asend(None)
    return results


async def leave_by_cancelling_the_body(assoc: asyncdicom.Association, verb: str) -> Any:
    with CancelScope() as scope:
        async with operation(assoc, verb) as results:
            async for _ in results:
                scope.cancel()
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    return results


LEAVINGS = [
    (leave_by_break, 0x0000),
    (leave_by_aclose, 0x0000),
    (leave_by_limit, 0x0000),
    (leave_by_exception, 0xC211),
    (leave_by_os_error, 0xA700),
    (leave_by_athrow, 0xC211),
    (leave_by_aclosing, 0x0000),
    (leave_by_cancelling_the_body, 0xC211),
]


@pytest.mark.parametrize(("leave", "stored"), LEAVINGS, ids=lambda value: getattr(value, "__name__", None))
@pytest.mark.parametrize("verb", VERBS)
async def test_leaving_from_the_body_sends_c_cancel_and_drains(leave: Any, stored: int, verb: str) -> None:
    play = Play(verb)
    async with scripted(play) as assoc:
        results = await leave(assoc, verb)
        assert results.response.status == 0xFE00
        assert results.truncated
        assert [item async for item in results] == []
        assert (await assoc.echo()).status == 0
    assert play.stores == ([stored, 0xA700] if verb == "get" else [])


@pytest.mark.parametrize("verb", VERBS)
async def test_after_a_bare_loop_was_left_and_dropped_the_next_verb_cancels_and_drains(verb: str) -> None:
    play = Play(verb)
    async with scripted(play) as assoc:
        async for _ in operation(assoc, verb):
            break
        assert (await assoc.echo()).status == 0
    # Nobody can see whether the body of the loop failed, so nothing is claimed for its instance.
    assert play.stores == ([0xA700, 0xA700] if verb == "get" else [])


@pytest.mark.parametrize("after", [False, True], ids=["before the next verb", "after the next verb"])
async def test_the_last_instance_of_a_loop_that_was_dropped_is_whole_or_refused(after: bool) -> None:
    play = Play("get")
    async with scripted(play) as assoc:
        async for instance in operation(assoc, "get"):  # noqa: B007
            break
        if after:
            assert (await assoc.echo()).status == 0
            # What was left of it on the wire is gone: it must not pass for an empty data set.
            with pytest.raises(asyncdicom.LocalProtocolError, match="over"):
                await instance.read()
        else:
            assert await instance.read() == ct_bytes(uid="1.2.1")
            assert (await assoc.echo()).status == 0
    assert play.stores == [0xA700 if after else 0x0000, 0xA700]


@pytest.mark.parametrize("verb", VERBS)
async def test_after_a_bare_loop_was_dropped_a_peer_that_ignores_c_cancel_is_aborted(verb: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(_REQUEST[verb])
        await play_item(peer, verb, request, 1)
        if verb == "get":
            await peer.expect_message(C_STORE_RSP)
        await peer.expect_message(C_CANCEL_RQ)
        await expect_abort_and_close(peer)

    async with scripted(script, timeouts=asyncdicom.Timeouts(cancel=0.05)) as assoc:
        async for _ in operation(assoc, verb):
            break
        with pytest.raises(asyncdicom.AssociationAborted, match="did not end in time"):
            await assoc.echo()


@pytest.mark.parametrize("verb", VERBS)
async def test_while_an_iterator_is_open_the_next_verb_says_how_to_close_it(verb: str) -> None:
    play = Play(verb)
    async with scripted(play) as assoc:
        results = operation(assoc, verb)
        await results.__anext__()
        with pytest.raises(asyncdicom.ConcurrencyError, match="aclose"):
            await assoc.echo()
        await results.aclose()
        assert (await assoc.echo()).status == 0
    assert play.stores == ([0x0000, 0xA700] if verb == "get" else [])


@pytest.mark.parametrize("verb", VERBS)
async def test_leaving_connect_with_an_operation_open_cancels_drains_and_releases(verb: str) -> None:
    play = Play(verb, end=ScriptedPeer.confirm_release)
    async with scripted(play) as assoc:
        results = operation(assoc, verb)
        await results.__anext__()
    assert results.response.status == 0xFE00
    assert assoc.ended


@pytest.mark.parametrize("verb", VERBS)
async def test_leaving_connect_with_an_operation_dropped_cancels_drains_and_releases(verb: str) -> None:
    play = Play(verb, end=ScriptedPeer.confirm_release)
    async with scripted(play) as assoc:
        async for _ in operation(assoc, verb):
            break
    assert assoc.ended


async def expect_abort_and_close(peer: ScriptedPeer) -> None:
    """The association is aborted, and nothing else comes."""
    assert await peer.expect_abort() == (0, 0)
    await peer.aclose()


@pytest.mark.parametrize("verb", VERBS)
async def test_leaving_connect_by_an_exception_aborts(verb: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(_REQUEST[verb])
        await play_item(peer, verb, request, 1)
        await expect_abort_and_close(peer)

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - of the task group of the test
        async with scripted(script) as assoc:
            results = operation(assoc, verb)
            await results.__anext__()
            raise ZeroDivisionError
    assert [type(exc) for exc in caught.value.exceptions] == [ZeroDivisionError]
    assert assoc.ended


@pytest.mark.parametrize("verb", VERBS)
async def test_a_peer_that_ignores_c_cancel_is_aborted_in_time(verb: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(_REQUEST[verb])
        await play_item(peer, verb, request, 1)
        if verb == "get":
            await peer.expect_message(C_STORE_RSP)
        await peer.expect_message(C_CANCEL_RQ)
        await expect_abort_and_close(peer)

    async with scripted(script, timeouts=asyncdicom.Timeouts(cancel=0.05)) as assoc:
        async with operation(assoc, verb) as results:
            await results.__anext__()
        assert results.response is None
        with pytest.raises(asyncdicom.AssociationAborted, match="did not end in time"):
            await assoc.echo()


@pytest.mark.parametrize("verb", VERBS)
async def test_a_peer_that_sends_on_and_on_after_c_cancel_is_aborted_in_time(verb: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(_REQUEST[verb])
        await play_item(peer, verb, request, 1)
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):  # noqa: PT012
            for number in range(2, 1_000_000):
                await play_item(peer, verb, request, number)

    timeouts = asyncdicom.Timeouts(cancel=0.05, abort=0.05)
    async with scripted(script, timeouts=timeouts, max_buffer=10_000) as assoc:
        async with operation(assoc, verb) as results:
            await results.__anext__()
        assert assoc.ended


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("last_word", [b"", bytes.fromhex("07000000000400000000")], ids=["closes", "aborts"])
async def test_a_peer_that_closes_upon_c_cancel_does_not_disturb_who_leaves(verb: str, last_word: bytes) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(_REQUEST[verb])
        await play_item(peer, verb, request, 1)
        if verb == "get":
            await peer.expect_message(C_STORE_RSP)
        await peer.expect_message(C_CANCEL_RQ)
        if last_word:
            await peer.send(last_word)
        await peer.aclose()

    async with scripted(script) as assoc:
        async with operation(assoc, verb) as results:
            await results.__anext__()
        expected = asyncdicom.AssociationAborted if last_word else asyncdicom.AssociationClosed
        with pytest.raises(expected):
            await assoc.echo()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA702, 0xC000])
async def test_whatever_final_status_raced_with_our_c_cancel_ends_it_silently(verb: str, status: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(_REQUEST[verb])
        await play_item(peer, verb, request, 1)
        await peer.respond(request, status)
        if verb == "get":
            await peer.expect_message(C_STORE_RSP)
        # Whether a C-CANCEL is still sent depends on who was faster; for an operation that has ended it is ignored.
        received = await peer.expect_message()
        if received.command_field == C_CANCEL_RQ:
            received = await peer.expect_message()
        await peer.respond(received, 0x0000)
        await peer.confirm_release()

    async with scripted(script) as assoc:
        async with operation(assoc, verb) as results:
            await results.__anext__()
        assert results.response.status == status
        assert (await assoc.echo()).status == 0


# A second cancellation while draining.


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("second", ["task.cancel()", "asyncio.timeout"])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_second_cancellation_while_draining_aborts_at_once_and_propagates(
    anyio_backend: str, second: str, verb: str
) -> None:
    draining = asyncio.Event()

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(_REQUEST[verb])
        await play_item(peer, verb, request, 1)
        if verb == "get":
            await peer.expect_message(C_STORE_RSP)
        await drained(peer)
        task.cancel()
        await peer.expect_message(C_CANCEL_RQ)
        await drained(peer)
        draining.set()
        await expect_abort_and_close(peer)

    async def use(assoc: asyncdicom.Association) -> None:
        async for _ in operation(assoc, verb):
            pass

    async def use_with_timeout(assoc: asyncdicom.Association) -> None:
        async with asyncio.timeout(1000) as timeout:
            timeouts.append(timeout)
            await use(assoc)

    timeouts: list[asyncio.Timeout] = []
    async with scripted(script, timeouts=asyncdicom.Timeouts(cancel=1000)) as assoc:
        task = asyncio.create_task((use if second == "task.cancel()" else use_with_timeout)(assoc))
        await draining.wait()
        if second == "task.cancel()":
            task.cancel()
        else:
            timeouts[0].reschedule(asyncio.get_running_loop().time())
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await task
        assert assoc.ended
        with pytest.raises(asyncdicom.AssociationAborted):
            await assoc.echo()


@pytest.mark.parametrize("verb", VERBS)
async def test_draining_is_shielded_from_scopes_that_are_cancelled_meanwhile(verb: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(_REQUEST[verb])
        await play_item(peer, verb, request, 1)
        if verb == "get":
            await peer.expect_message(C_STORE_RSP)
        await drained(peer)
        inner.cancel()
        await peer.expect_message(C_CANCEL_RQ)
        outer.cancel()
        await play_item(peer, verb, request, 2)
        if verb == "get":
            await peer.expect_message(C_STORE_RSP)
        await peer.respond(request, 0xFE00)
        await finish(peer)

    async with scripted(script) as assoc:
        with CancelScope() as outer, CancelScope() as inner:
            async for _ in operation(assoc, verb):
                pass
        assert not assoc.ended
        assert (await assoc.echo()).status == 0
