"""On asyncio, awaiting what somebody else cancelled raises a cancellation that is nobody's: the handler failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

import asyncdicom
from asyncdicom import sop, testing
from tests.harness import ct_instance

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def await_what_others_cancel() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


def services_whose_handlers_fail() -> asyncdicom.Services:
    services = asyncdicom.Services()

    @services.echo()
    async def echo(request: asyncdicom.EchoRequest) -> None:
        await await_what_others_cancel()

    @services.store("*")
    async def store(request: asyncdicom.StoreRequest) -> None:
        await await_what_others_cancel()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        yield b"\x10\x00\x20\x00LO\x02\x001 "
        await await_what_others_cancel()

    @services.retrieve(sop.STUDY_ROOT_GET, sop.STUDY_ROOT_MOVE)
    async def retrieve(request: asyncdicom.RetrieveRequest) -> AsyncIterator[int]:
        yield 1
        await await_what_others_cancel()

    return services


async def resolve(ae_title: str) -> asyncdicom.Address:
    if ae_title == "LOST":
        await await_what_others_cancel()
    return asyncdicom.Address(ae_title, "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        ("echo", 0x0110),
        ("store", 0xC211),
        ("find", 0xC311),
        ("get", 0xC411),
        ("move", 0xC511),
        ("move to nowhere", 0xC514),
    ],
)
async def test_a_handler_whose_work_others_cancelled_has_failed_and_the_association_lives(
    verb: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    services = services_whose_handlers_fail()
    with caplog.at_level(logging.ERROR, "asyncdicom"):
        async with testing.connected(services, server_options={"peers": resolve}) as assoc:
            if verb == "echo":
                answered = (await assoc.echo(check=False)).status
            elif verb == "store":
                answered = (await assoc.store(ct_instance(), check=False)).status
            else:
                operation: asyncdicom.Find | asyncdicom.Get | asyncdicom.Move
                if verb == "find":
                    operation = assoc.find(level="STUDY", PatientID="", check=False)
                elif verb == "get":
                    operation = assoc.get(level="STUDY", StudyInstanceUID="1", check=False)
                else:
                    destination = "LOST" if verb == "move to nowhere" else "WS"
                    operation = assoc.move(level="STUDY", StudyInstanceUID="1", destination=destination, check=False)
                async for _ in operation:
                    pass
                assert operation.response is not None
                answered = operation.response.status
            assert answered == status
            assert (await assoc.echo(check=False)).status == 0x0110
    assert all(record.exc_info for record in caplog.records)
    assert len(caplog.records) == 2


async def test_a_policy_whose_work_others_cancelled_rejects() -> None:
    services = services_whose_handlers_fail()

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        await await_what_others_cancel()

    with pytest.raises(asyncdicom.AssociationRejected):
        async with testing.connected(services):
            pass


async def test_a_handler_whose_task_is_cancelled_is_cancelled() -> None:
    services = asyncdicom.Services()
    inside = asyncio.Event()
    ended: list[str] = []

    @services.echo()
    async def echo(request: asyncdicom.EchoRequest) -> None:
        inside.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with asyncdicom.Server(services, "SCP@127.0.0.1:0", drain=0) as server:
        client = asyncio.create_task(_echo(server.addresses[0]))
        await inside.wait()
    assert ended == ["cancelled"]
    with pytest.raises(asyncdicom.AssociationError):
        await client


async def _echo(address: asyncdicom.Address) -> None:
    async with asyncdicom.connect(address, contexts=[sop.VERIFICATION]) as assoc:
        await assoc.echo()
