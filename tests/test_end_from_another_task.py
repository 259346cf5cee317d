"""An association that one task ends while another waits for its peer: the other learns of it at once."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trustme

import asyncdicom
from asyncdicom import Association, AssociationAborted, AssociationClosed, Server, Services, sop
from asyncdicom.testing import connected

pytestmark = pytest.mark.anyio


class Waiting:
    """Services that never answer, and say when they were asked."""

    def __init__(self) -> None:
        self.services = Services()
        self.services.echo()(self._wait)
        self.services.find(sop.STUDY_ROOT_FIND)(self._wait)
        self.asked = anyio.Event()

    async def _wait(self, request: asyncdicom.Request) -> None:
        self.asked.set()
        await anyio.sleep_forever()


async def echo(association: Association) -> None:
    await association.echo()


async def find(association: Association) -> None:
    async for _ in association.find(PatientID="1", level="STUDY"):
        pass


async def wait_closed(association: Association) -> None:
    await association.wait_closed()
    association.check()


async def ends(
    association: Association, waiting: Waiting, verb: Callable[[Association], Awaitable[None]], end: Any
) -> BaseException | None:
    """End an association while a verb waits; give what the verb raised."""
    caught: list[BaseException] = []

    async def call() -> None:
        try:
            await verb(association)
        except asyncdicom.DicomNetworkError as exc:
            caught.append(exc)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            if verb is wait_closed:
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
            else:
                await waiting.asked.wait()
            await end(association)
    return caught[0] if caught else None


VERBS = pytest.mark.parametrize("verb", [echo, find, wait_closed])


@VERBS
@pytest.mark.parametrize("transport", ["memory", "TCP", "TLS"])
async def test_aborting_ends_what_another_task_waits_for(transport: str, verb: Any) -> None:
    waiting = Waiting()
    contexts = [sop.VERIFICATION, sop.STUDY_ROOT_FIND]
    if transport == "memory":
        async with connected(waiting.services, contexts) as association:
            caught = await ends(association, waiting, verb, Association.abort)
    else:
        server_tls = client_tls = None
        if transport == "TLS":
            authority = trustme.CA()
            server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            client_tls = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
            authority.issue_cert("127.0.0.1").configure_cert(server_tls)
            authority.configure_trust(client_tls)
        async with Server(waiting.services, ssl=server_tls, drain=0) as server:
            async with asyncdicom.connect(server.addresses[0], contexts=contexts, ssl=client_tls) as association:
                caught = await ends(association, waiting, verb, Association.abort)
    assert isinstance(caught, AssociationAborted)


@VERBS
async def test_so_does_closing_without_waiting(verb: Any) -> None:
    async def close(association: Association) -> None:
        association.close_now(lambda: AssociationAborted(0, 0))

    waiting = Waiting()
    async with Server(waiting.services, drain=0) as server:
        contexts = [sop.VERIFICATION, sop.STUDY_ROOT_FIND]
        async with asyncdicom.connect(server.addresses[0], contexts=contexts) as association:
            caught = await ends(association, waiting, verb, close)
    assert isinstance(caught, AssociationAborted)


async def test_so_does_releasing() -> None:
    waiting = Waiting()
    async with Server(waiting.services, drain=0) as server:
        async with asyncdicom.connect(server.addresses[0], contexts=[sop.VERIFICATION]) as association:
            caught = await ends(association, waiting, wait_closed, Association.release)
    assert isinstance(caught, AssociationClosed)
