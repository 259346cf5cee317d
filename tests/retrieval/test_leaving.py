"""How a retrieval ends early: what the peer sees, what is left behind, and in whose task."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope

import asyncdicom
from asyncdicom import LocalProtocolError, RetrieveRequest, Timeouts

from .pacs import Pacs, study

pytestmark = pytest.mark.anyio

WAYS = pytest.mark.parametrize("via", ["get", "move"])
Start = Callable[..., asyncdicom.Retrieval]


class Endless(Pacs):
    """A peer that sends two instances and then waits, until it is cancelled.

    :param stubborn: it does not let itself be cancelled.
    :ivar used: the associations that it was asked on.
    """

    def __init__(self, *, stubborn: bool = False) -> None:
        super().__init__(study(2), retrieve=self.retrieve)
        self.used: list[asyncdicom.Association] = []
        self._stubborn = stubborn
        self._never = anyio.Event()

    async def retrieve(self, request: RetrieveRequest) -> AsyncIterator[Any]:
        self.used.append(request.association)
        request.total = 10
        try:
            for one in self.items.values():
                yield one.instance()
            with CancelScope(shield=self._stubborn):
                await self._never.wait()
        finally:
            self.cancelled += 1

    def give_up(self) -> None:
        """Let a stubborn handler end."""
        self._never.set()

    @property
    def ends(self) -> list[str]:
        """How its associations have ended."""
        return [str(association.error()) for association in self.used]


@asynccontextmanager
async def serving(pacs: Pacs, via: str, **options: Any) -> AsyncIterator[Start]:
    """Run a peer; give what starts a retrieval from it."""
    async with pacs.serve() as address:

        def start(**more: Any) -> asyncdicom.Retrieval:
            arguments = {"StudyInstanceUID": "1.2.1", "via": via, "listen": "HERE@127.0.0.1:0", **options, **more}
            retrieval = asyncdicom.retrieve(address, **arguments)
            pacs.knows("HERE", retrieval)
            return retrieval

        yield start


async def ended(pacs: Pacs) -> None:
    """Wait until the peer has no association any more."""
    with anyio.fail_after(10):
        while pacs.server.associations:
            await pacs.server._change(anyio.current_time() + 10)


RELEASED = "the peer released the association"
ABORTED = "association aborted by the service user (source 0, reason 0)"

# Ways of leaving in the middle.


async def by_break(start: Start) -> Any:
    async with start() as instances:
        async for _ in instances:
            break
    return instances


async def by_aclose(start: Start) -> Any:
    instances = start()
    await anext(instances)
    await instances.aclose()
    return instances


async def by_limit(start: Start) -> Any:
    async with start(limit=1) as instances:
        async for _ in instances:
            pass
    return instances


async def by_exception(start: Start) -> Any:
    with pytest.raises(ValueError, match="of the user"):  # noqa: PT012
        async with start() as instances:
            async for _ in instances:
                raise ValueError("of the user")
    return instances


async def by_athrow(start: Start) -> Any:
    instances = start()
    await instances.asend(None)
    with pytest.raises(ValueError, match="of the user"):
        await instances.athrow(ValueError("of the user"))
    return instances


async def by_cancelling_the_body(start: Start) -> Any:
    with CancelScope() as scope:
        async with start() as instances:
            async for _ in instances:
                scope.cancel()
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    return instances


LEAVING = [by_break, by_aclose, by_limit, by_exception, by_athrow, by_cancelling_the_body]


@WAYS
@pytest.mark.parametrize("leave", LEAVING)
async def test_leaving_early_cancels_and_releases(via: str, leave: Callable[[Start], Awaitable[Any]]) -> None:
    pacs = Endless()
    async with serving(pacs, via) as start:
        with anyio.fail_after(10):
            instances = await leave(start)
        assert instances.truncated
        assert instances.received == 1
        assert instances.response is not None
        assert instances.response.status == 0xFE00
        await ended(pacs)
    assert pacs.cancelled == 1
    assert pacs.ends == [RELEASED]
    with pytest.raises(StopAsyncIteration):
        await anext(instances)


async def iterate(instances: asyncdicom.Retrieval, waiting: anyio.Event) -> None:
    """Iterate to the end; tell when both instances have come."""
    async for _ in instances:
        if instances.received == 2:
            waiting.set()


async def wait(waiting: anyio.Event) -> None:
    """Wait until the next instance is waited for."""
    await waiting.wait()
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def in_a_scope(instances: asyncdicom.Retrieval) -> None:
    waiting = anyio.Event()
    with CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await wait(waiting)
                scope.cancel()

            tasks.start_soon(cancel)
            await iterate(instances, waiting)
    assert scope.cancelled_caught


async def in_asyncio_timeout(instances: asyncdicom.Retrieval) -> None:
    waiting = anyio.Event()
    with pytest.raises(TimeoutError):  # noqa: PT012
        async with asyncio.timeout(100) as timeout:

            async def expire() -> None:
                await wait(waiting)
                timeout.reschedule(asyncio.get_running_loop().time())

            task = asyncio.create_task(expire())
            await iterate(instances, waiting)
    await task


async def in_asyncio_task(instances: asyncdicom.Retrieval) -> None:
    waiting = anyio.Event()
    task = asyncio.create_task(iterate(instances, waiting))
    await wait(waiting)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@WAYS
@pytest.mark.parametrize(
    ("anyio_backend", "cancelled"),
    [
        ("asyncio", in_a_scope),
        ("asyncio", in_asyncio_timeout),
        ("asyncio", in_asyncio_task),
        ("trio", in_a_scope),
    ],
)
async def test_cancelling_while_the_next_instance_is_waited_for_does_so_too(
    anyio_backend: str, via: str, cancelled: Any
) -> None:
    pacs = Endless()
    async with serving(pacs, via) as start:
        with anyio.fail_after(10):
            instances = start()
            await cancelled(instances)
        assert (instances.received, instances.truncated) == (2, True)
        assert instances.response is not None
        assert instances.response.status == 0xFE00
        await ended(pacs)
    assert pacs.cancelled == 1
    assert pacs.ends == [RELEASED]


@WAYS
async def test_a_peer_that_ignores_the_c_cancel_is_aborted_in_time(via: str) -> None:
    pacs = Endless(stubborn=True)
    async with serving(pacs, via, timeouts=Timeouts(cancel=0.05)) as start:
        with anyio.fail_after(5):
            instances = start()
            await in_a_scope(instances)
        assert instances.response is None
        pacs.give_up()
        await ended(pacs)
    assert pacs.ends == [ABORTED]


@WAYS
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_second_cancellation_aborts_at_once(anyio_backend: str, via: str) -> None:
    pacs = Endless(stubborn=True)
    async with serving(pacs, via, timeouts=Timeouts(cancel=100, release=100)) as start:
        waiting = anyio.Event()
        task = asyncio.create_task(iterate(start(), waiting))
        await wait(waiting)
        with anyio.fail_after(5):
            task.cancel()
            # It drains now, for 100 seconds unless it is cancelled again.
            for _ in range(20):
                await asyncio.sleep(0)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        pacs.give_up()
        await ended(pacs)
    assert pacs.ends == [ABORTED]


@WAYS
async def test_a_dropped_iterator_is_ended_in_the_background(via: str) -> None:
    pacs = Endless()
    async with serving(pacs, via) as start:
        async for _ in start():
            break
        gc.collect()
        with anyio.fail_after(10):
            while pacs.server.associations or not pacs.cancelled:
                await pacs.server._change(anyio.current_time() + 0.1)
    assert pacs.cancelled == 1
    assert pacs.ends == [RELEASED]


async def test_the_address_of_a_dropped_iterator_can_be_listened_on_again() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with serving(Endless(), "move", listen=f"HERE@127.0.0.1:{port}") as start:
        for _ in range(3):
            async for _ in start():
                break


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@WAYS
def test_a_program_that_ends_right_after_a_break_says_nothing(backend: str, via: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
            import anyio, asyncdicom
            from tests.retrieval.pacs import Pacs, study

            async def main():
                pacs = Pacs(study(50, size=100_000))
                async with pacs.serve() as address:
                    instances = asyncdicom.retrieve(
                        address, StudyInstanceUID="1.2.1", via="{via}", listen="HERE@127.0.0.1:0"
                    )
                    pacs.knows("HERE", instances)
                    async for instance in instances:
                        break
                    del instances, instance

            anyio.run(main, backend="{backend}")
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(asyncdicom.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    # In its development mode asyncio tells of slow steps.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, complaints) == (0, [])


# Whose task it is.


@WAYS
async def test_it_can_be_entered_used_and_left_in_different_tasks(via: str) -> None:
    received: list[str] = []
    pacs = Pacs(study())
    async with serving(pacs, via) as start:
        instances = start()

        async def take() -> None:
            received.append((await anext(instances)).sop_instance_uid)

        for step in (instances.__aenter__, take, take, instances.aclose):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(step)
        await ended(pacs)
    assert len(received) == 2


@WAYS
async def test_nothing_is_left_open_in_the_task_of_the_user(via: str) -> None:
    async with serving(Endless(), via) as start:
        instances = start()
        # A scope that is opened before and closed in the middle would be out of order if another was open.
        with CancelScope():
            await anext(instances)
        with CancelScope() as scope:
            await anext(instances)
            scope.cancel()
        await instances.aclose()


@WAYS
async def test_only_one_task_at_a_time_may_iterate(via: str) -> None:
    pacs = Endless()
    async with serving(pacs, via) as start:
        instances = start()
        async with anyio.create_task_group() as tasks:
            waiting = anyio.Event()
            tasks.start_soon(iterate, instances, waiting)
            await wait(waiting)
            with pytest.raises(LocalProtocolError, match="another task"):
                await anext(instances)
            with pytest.raises(LocalProtocolError, match="another task"):
                await instances.aclose()
            tasks.cancel_scope.cancel()
        with pytest.raises(LocalProtocolError, match="used once"):
            await instances.__aenter__()


# What is left behind.


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@WAYS
@pytest.mark.parametrize("leave", [*LEAVING, None])
async def test_nothing_is_left_behind(via: str, leave: Callable[[Start], Awaitable[Any]] | None) -> None:
    def count() -> tuple[int, int, int]:
        gc.collect()
        return descriptors(), threading.active_count(), tasks_running()

    async def once() -> None:
        if leave is not None:
            await leave(start)
        else:
            async for _ in start(limit=1):
                pass

    pacs = Endless()
    async with serving(pacs, via) as start:
        await once()
        await ended(pacs)
        before = count()
        for _ in range(5):
            await once()
        await ended(pacs)
        with anyio.fail_after(10):
            while tasks_running() > before[2]:
                await anyio.lowlevel.checkpoint()
        assert count()[0] <= before[0]


def tasks_running() -> int:
    return len(anyio.get_running_tasks())
