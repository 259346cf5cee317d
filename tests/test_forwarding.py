"""What is being received is sent on as it comes: C-GET to C-STORE, and C-STORE to C-STORE."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

import asyncdicom
from asyncdicom import sop, testing

from .harness import ct_bytes, ct_instance

pytestmark = pytest.mark.anyio

CT = (sop.CT_IMAGE_STORAGE,)
SIZES = [0, 1000, 300_001, 5 << 20]


class Last:
    """The association that things are sent on to, and what has arrived there."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, bytes]] = []
        self.status = 0x0000
        self.services = asyncdicom.Services()
        self.services.store("*")(self.store)

    async def store(self, request: asyncdicom.StoreRequest) -> int:
        self.arrived.append((request.sop_instance_uid, await request.read()))
        return self.status


@asynccontextmanager
async def getting(size: int) -> AsyncIterator[tuple[asyncdicom.Association, asyncdicom.Association, Last]]:
    """Associate with a source that gives two instances by C-GET, and with where they are to go."""
    first, last = asyncdicom.Services(), Last()

    @first.get(sop.STUDY_ROOT_GET)
    async def get(request: asyncdicom.RetrieveRequest) -> AsyncIterator[int | asyncdicom.Instance]:
        yield 2
        yield ct_instance(size, "1.2.1")
        yield ct_instance(1000, "1.2.2")

    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(testing.connected(first, [sop.STUDY_ROOT_GET, *CT]))
        target = await stack.enter_async_context(testing.connected(last.services, CT))
        yield source, target, last


def even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


@pytest.mark.parametrize("size", SIZES)
async def test_an_instance_that_is_got_is_stored_elsewhere_as_it_comes(size: int) -> None:
    async with getting(size) as (source, target, last):
        async with source.get(level="STUDY", StudyInstanceUID="1") as instances:
            async for instance in instances:
                assert (await target.store(instance)).status == 0
        assert instances.response is not None
        assert instances.response.progress.completed == 2
    assert last.arrived == [("1.2.1", even(ct_bytes(size, "1.2.1"))), ("1.2.2", ct_bytes(1000, "1.2.2"))]


async def test_an_instance_that_was_not_taken_elsewhere_has_failed() -> None:
    async with getting(1000) as (source, target, last):
        last.status = 0xA700
        with pytest.raises(asyncdicom.StatusError):  # noqa: PT012
            async with source.get(level="STUDY", StudyInstanceUID="1") as instances:
                async for instance in instances:
                    await target.store(instance)
        assert instances.response is not None
        assert instances.response.progress.failed == 1


async def test_an_instance_that_was_consumed_or_is_over_is_not_sent_on() -> None:
    async with getting(1000) as (source, target, last):
        async for instance in source.get(level="STUDY", StudyInstanceUID="1"):
            await instance.read()
            with pytest.raises(asyncdicom.LocalProtocolError, match="consumed"):
                await target.store(instance)
        with pytest.raises(asyncdicom.LocalProtocolError):
            await target.store(instance)
        assert (await target.store(ct_instance())).status == 0
    assert len(last.arrived) == 1


async def test_an_instance_whose_syntax_is_not_accepted_elsewhere_can_still_be_read() -> None:
    async with getting(1000) as (source, _, last):
        implicit = asyncdicom.PresentationContext(
            abstract_syntax=sop.CT_IMAGE_STORAGE, transfer_syntaxes=(sop.IMPLICIT_VR_LITTLE_ENDIAN,)
        )
        async with testing.connected(last.services, [implicit]) as target:
            async for instance in source.get(level="STUDY", StudyInstanceUID="1"):
                with pytest.raises(asyncdicom.NoPresentationContext):
                    await target.store(instance)
                assert await instance.read() == ct_bytes(1000, instance.sop_instance_uid)


@pytest.mark.parametrize("size", SIZES)
async def test_a_handler_sends_on_what_it_receives(size: int) -> None:
    last, gateway = Last(), asyncdicom.Services()
    async with testing.connected(last.services, CT) as target:

        @gateway.store("*")
        async def store(request: asyncdicom.StoreRequest) -> int:
            return (await target.store(request, check=False)).status

        async with testing.connected(gateway, CT) as assoc:
            assert (await assoc.store(ct_instance(size))).status == 0
            last.status = 0xB007
            assert (await assoc.store(ct_instance())).status == 0xB007
    assert [data for _, data in last.arrived] == [even(ct_bytes(size)), ct_bytes()]


async def test_a_proxy_yields_what_it_gets() -> None:
    async with getting(300_001) as (source, _, _):
        proxy = asyncdicom.Services()

        @proxy.get(sop.STUDY_ROOT_GET)
        async def get(request: asyncdicom.RetrieveRequest) -> AsyncIterator[int | asyncdicom.Instance]:
            request.total = 2
            async for instance in source.get(request.identifier):
                yield instance

        async with testing.connected(proxy, [sop.STUDY_ROOT_GET, *CT]) as assoc:
            got = [await each.read() async for each in assoc.get(level="STUDY", StudyInstanceUID="1")]
    assert got == [even(ct_bytes(300_001, "1.2.1")), ct_bytes(1000, "1.2.2")]


async def test_a_sender_that_breaks_off_in_the_middle_aborts_where_it_was_sent_on() -> None:
    gateway, begun, failed = asyncdicom.Services(), anyio.Event(), anyio.Event()
    elsewhere = asyncdicom.Services()

    @elsewhere.store("*")
    async def keep(request: asyncdicom.StoreRequest) -> None:
        async for _ in request.iter_data():
            begun.set()

    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(testing.connected(elsewhere, CT))

        @gateway.store("*")
        async def store(request: asyncdicom.StoreRequest) -> None:
            try:
                await target.store(request)
            finally:
                failed.set()

        ours, theirs = testing.memory_stream_pair()
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(asyncdicom.Server(gateway, "GATEWAY@memory:0").serve_stream, theirs)
        peer = testing.ScriptedPeer(ours)
        await peer.associate(*CT)
        elements: dict[int, int | str | bytes] = {0x2: CT[0], 0x100: 1, 0x110: 1, 0x700: 0, 0x1000: "1.2.3"}
        whole = testing.ScriptedPeer.message(1, elements, ct_bytes(3 << 20))
        await peer.send(whole[: 2 << 20])
        await begun.wait()
        await peer.aclose()
        await failed.wait()
        with pytest.raises(asyncdicom.AssociationError):
            await target.store(ct_instance())
