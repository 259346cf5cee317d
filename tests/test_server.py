"""A server: its life from before it is entered to after it has stopped, and whom it rejects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

import asyncdicom
from asyncdicom import Limits, Server, Services, sop
from asyncdicom.testing import memory_stream_pair

from .harness import PATIENCE

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[TaskGroup]:
    """Give the task group for the connections of a server that does not listen."""
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            yield tasks


def connect(tasks: TaskGroup, server: Server, calling: str = "TESTER", called: str = "ASYNCDICOM") -> Any:
    """Associate with a server in memory."""
    ours, theirs = memory_stream_pair()
    tasks.start_soon(server.serve_stream, theirs)
    return asyncdicom.connect(f"{called}@memory:0", calling=calling, stream=ours, contexts=[sop.VERIFICATION])


async def rejected(tasks: TaskGroup, server: Server, **titles: str) -> tuple[int, int, int]:
    """Return how an association is rejected."""
    with pytest.raises(asyncdicom.AssociationRejected) as caught:
        await connect(tasks, server, **titles).__aenter__()
    return caught.value.result, caught.value.source, caught.value.reason


class Slow:
    """Services whose C-ECHO takes until it is let go."""

    def __init__(self) -> None:
        self.services = Services()
        self.begun, self.gate = anyio.Event(), anyio.Event()

        @self.services.echo()
        async def echo(request: asyncdicom.EchoRequest) -> None:
            self.begun.set()
            await self.gate.wait()


# Its life.


async def test_a_server_that_is_not_entered_listens_nowhere() -> None:
    server = Server(Services(), "PACS@127.0.0.1:0")
    assert (server.addresses, server.associations) == ((), ())
    assert str(server.address) == "PACS@127.0.0.1:0"
    with pytest.raises(asyncdicom.LocalProtocolError, match="the server is not entered"):
        await server.serve_forever()


async def test_a_server_that_is_entered_listens_on_the_port_that_the_system_picked() -> None:
    async with Server(Services(), "PACS@127.0.0.1:0", drain=0) as server:
        (address,) = server.addresses
        assert (address.ae_title, address.host) == ("PACS", "127.0.0.1")
        assert address.port > 0
        async with asyncdicom.connect(address, contexts=[sop.VERIFICATION]) as association:
            await association.echo()
            assert len(server.associations) == 1
    with pytest.raises(OSError):  # noqa: PT011 - whatever it is that says so
        await asyncdicom.connect(address, contexts=[sop.VERIFICATION]).__aenter__()


async def test_a_server_serves_until_it_is_stopped() -> None:
    ended = anyio.Event()
    with anyio.fail_after(PATIENCE):
        async with Server(Services(), "PACS@127.0.0.1:0") as server, anyio.create_task_group() as tasks:

            async def wait() -> None:
                await server.serve_forever()
                ended.set()

            tasks.start_soon(wait)
            await anyio.lowlevel.checkpoint()
            assert not ended.is_set()
            await server.stop(drain=0)
            await ended.wait()


async def test_stopping_twice_is_harmless() -> None:
    async with Server(Services(), "PACS@127.0.0.1:0") as server:
        await server.stop(drain=0)
        await server.stop(drain=0)


async def test_while_it_drains_who_is_at_work_ends_and_who_is_new_is_rejected() -> None:
    slow = Slow()
    server = Server(slow.services)
    statuses: list[int] = []
    async with serving(server) as tasks:

        async def work() -> None:
            async with connect(tasks, server) as association:
                statuses.append((await association.echo()).status)

        tasks.start_soon(work)
        await slow.begun.wait()
        tasks.start_soon(server.stop, None)
        await anyio.lowlevel.checkpoint()
        while not server._admission.is_stopping:
            await anyio.lowlevel.checkpoint()
        assert await rejected(tasks, server) == (2, 3, 1)
        assert statuses == []
        slow.gate.set()
    assert statuses == [0]


async def test_who_is_at_work_when_the_time_is_over_is_aborted() -> None:
    slow = Slow()
    server = Server(slow.services)
    errors: list[asyncdicom.AssociationError] = []
    async with serving(server) as tasks:

        async def work() -> None:
            try:
                async with connect(tasks, server) as association:
                    await association.echo()
            except asyncdicom.AssociationError as exc:
                errors.append(exc)

        tasks.start_soon(work)
        await slow.begun.wait()
        await server.stop(drain=0)
        assert server.associations == ()
    (error,) = errors
    assert isinstance(error, asyncdicom.AssociationAborted)


async def test_leaving_by_an_exception_aborts_at_once_and_hands_it_on() -> None:
    slow = Slow()

    async def work(address: asyncdicom.Address) -> None:
        with pytest.raises(asyncdicom.AssociationError):
            async with asyncdicom.connect(address, contexts=[sop.VERIFICATION]) as association:
                await association.echo()

    async def program(tasks: TaskGroup) -> None:
        async with Server(slow.services, "PACS@127.0.0.1:0", drain=None) as server:
            tasks.start_soon(work, server.addresses[0])
            await slow.begun.wait()
            raise ValueError("the program failed")

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with pytest.raises(ValueError, match="the program failed"):
                await program(tasks)


# Whom it rejects (PS3.8 Table 9-21).

#: Options of the server, calling and called AE title -> result, source and reason; None accepts.
REJECTIONS: list[tuple[dict[str, Any], str, str, tuple[int, int, int] | None]] = [
    ({}, "TESTER", "ANYBODY", None),
    ({"called": ["PACS"]}, "TESTER", "PACS", None),
    ({"called": ["PACS"]}, "TESTER", "OTHER", (1, 1, 7)),
    ({"called": []}, "TESTER", "PACS", (1, 1, 7)),
    ({"calling": ["TESTER"]}, "TESTER", "PACS", None),
    ({"calling": ["TESTER"]}, "STRANGER", "PACS", (1, 1, 3)),
    ({"calling": []}, "TESTER", "PACS", (1, 1, 3)),
    ({"limits": Limits(associations=0)}, "TESTER", "PACS", (2, 3, 2)),
    ({"limits": Limits(associations_per_ae_title=0)}, "TESTER", "PACS", (2, 3, 2)),
    ({"limits": Limits(associations=1, associations_per_ae_title=1)}, "TESTER", "PACS", None),
]


@pytest.mark.parametrize(("options", "calling", "called", "expected"), REJECTIONS)
async def test_who_is_rejected_and_why(
    options: dict[str, Any], calling: str, called: str, expected: tuple[int, int, int] | None
) -> None:
    server = Server(Services(), **options)
    async with serving(server) as tasks:
        if expected is None:
            async with connect(tasks, server, calling, called) as association:
                await association.echo()
        else:
            assert await rejected(tasks, server, calling=calling, called=called) == expected


async def test_a_limit_counts_only_those_that_are_associated_now() -> None:
    server = Server(Services(), limits=Limits(associations=2, associations_per_ae_title=1))
    async with serving(server) as tasks:
        for _ in range(2):
            async with connect(tasks, server, "FIRST"):
                assert await rejected(tasks, server, calling="FIRST") == (2, 3, 2)
                async with connect(tasks, server, "SECOND") as second:
                    assert await rejected(tasks, server, calling="THIRD") == (2, 3, 2)
                    await second.echo()
            while server.associations:
                await anyio.lowlevel.checkpoint()
