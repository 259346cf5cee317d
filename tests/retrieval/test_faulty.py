"""Retrieving from peers that break the rules, byte by byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

import asyncdicom
from asyncdicom import Progress, Timeouts, sop
from asyncdicom.testing import Received, ScriptedPeer

from ..harness import (
    C_CANCEL_RQ,
    C_GET_RQ,
    C_MOVE_RQ,
    C_STORE_RSP,
    CT_ID,
    counters,
    ct_bytes,
    ct_instance,
    store_elements,
)

pytestmark = pytest.mark.anyio

Script = Callable[[ScriptedPeer], Awaitable[None]]

#: Beside the C-GET class, which has the first context, CT has the second: the peer does not answer queries.
_CT_ID = 3
assert _CT_ID != CT_ID


@asynccontextmanager
async def scripted(*scripts: Script, gets: bool = True) -> AsyncIterator[str]:
    """Play a script for each association, in the order in which they come; give the address."""
    waiting = list(scripts)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            peer = ScriptedPeer(stream)
            hidden = [*sop.FIND, *(sop.MOVE if gets else sop.GET)]
            await peer.accept(results=dict.fromkeys(map(str, hidden), 3))
            await waiting.pop(0)(peer)

    with anyio.fail_after(20):
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, serve)
                yield f"PEER@127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
                tasks.cancel_scope.cancel()


async def question(peer: ScriptedPeer) -> None:
    """The first association, on which nothing is asked, as C-FIND is not accepted."""
    await peer.confirm_release()


async def send(peer: ScriptedPeer, message_id: int, uid: str) -> None:
    await peer.send_message(_CT_ID, store_elements(message_id, uid), ct_bytes(uid=uid))


async def iterate(address: str, **options: Any) -> tuple[asyncdicom.Retrieval, list[str]]:
    received = []
    async with asyncdicom.retrieve(address, StudyInstanceUID="1.2", **options) as instances:
        async for instance in instances:
            await instance.read()
            received.append(instance.sop_instance_uid)
    return instances, received


async def test_responses_without_counters_and_counters_that_run_backwards_are_tolerated() -> None:
    async def get(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        for number, elements in enumerate(({}, counters(1, 5), counters(5, 1)), 1):
            await peer.respond(request, 0xFF00, elements=elements)
            await send(peer, number, f"1.2.{number}")
            assert (await peer.expect_message(C_STORE_RSP)).status == 0
        await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with scripted(question, get) as address:
        instances, received = await iterate(address)
    assert received == ["1.2.1", "1.2.2", "1.2.3"]
    assert instances.progress == Progress(0, 1, 0, 0)


async def test_uids_that_are_none_never_reach_the_loop() -> None:
    async def get(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        for number, uid in enumerate(("../../etc/passwd", "..", "1" * 66), 1):
            await send(peer, number, uid)
            assert (await peer.expect_message(C_STORE_RSP)).status == 0x0117
        await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with scripted(question, get) as address:
        assert (await iterate(address))[1] == []


async def test_a_sub_operation_after_the_last_response_is_not_delivered() -> None:
    async def get(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        await send(peer, 1, "1.2.1")
        await peer.expect_message(C_STORE_RSP)
        await peer.respond(request, 0x0000)
        await send(peer, 2, "1.2.2")
        await peer.read_to_end()

    async with scripted(question, get) as address:
        assert (await iterate(address, timeouts=Timeouts(release=1)))[1] == ["1.2.1"]


async def test_a_data_set_that_is_announced_and_does_not_come_is_given_up() -> None:
    async def get(peer: ScriptedPeer) -> None:
        await peer.expect_message(C_GET_RQ)
        whole = ScriptedPeer.message(_CT_ID, store_elements(1, "1.2.1"), ct_bytes(5000))
        await peer.send(whole[:-1000])
        await peer.read_to_end()

    async with scripted(question, get) as address:
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await iterate(address, timeouts=Timeouts(message=0.05))
    assert caught.value.kind == "message"


async def test_a_connection_that_is_closed_inside_of_an_instance_is_an_error() -> None:
    async def get(peer: ScriptedPeer) -> None:
        await peer.expect_message(C_GET_RQ)
        whole = ScriptedPeer.message(_CT_ID, store_elements(1, "1.2.1"), ct_bytes(5000))
        await peer.send(whole[:-1000])

    async with scripted(question, get) as address:
        with pytest.raises(asyncdicom.AssociationClosed):
            await iterate(address)


async def test_a_peer_that_always_fails_is_not_asked_for_ever() -> None:
    asked: list[Received] = []

    async def get(peer: ScriptedPeer) -> None:
        asked.append(await peer.expect_message(C_GET_RQ))
        elements = counters(0, 0, 1)
        del elements[0x00001020]
        await peer.respond(asked[-1], 0xA702, elements=elements)
        await peer.confirm_release()

    # It does not say what fails, so all is asked for with every context that there is.
    async with scripted(question, *[get] * 40) as address:
        with pytest.raises(asyncdicom.StatusError):
            await iterate(address)
    assert 5 < len(asked) < 40


async def test_a_c_move_without_pending_responses_and_counters_is_tolerated() -> None:
    async def move(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_MOVE_RQ)
        server = instances.server
        assert server is not None
        async with asyncdicom.connect(server.addresses[0], contexts=[sop.CT_IMAGE_STORAGE]) as association:
            for uid in ("1.2.1", "1.2.2"):
                await association.store(ct_instance(uid=uid))
        await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with scripted(move, gets=False) as address:
        instances = asyncdicom.retrieve(address, StudyInstanceUID="1.2", listen="HERE@127.0.0.1:0")
        assert [instance.sop_instance_uid async for instance in instances] == ["1.2.1", "1.2.2"]
    assert instances.progress == Progress(0, 0, 0, 0)


async def test_the_end_of_a_c_move_does_not_pass_what_has_come_before_it() -> None:
    async def move(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_MOVE_RQ)
        server = instances.server
        assert server is not None
        contexts = [sop.CT_IMAGE_STORAGE]
        async with asyncdicom.connect(server.addresses[0], contexts=contexts) as association:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(association.store, ct_instance(uid="1.2.1"))
                # Too early: an instance is still on its way.
                await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with scripted(move, gets=False) as address:
        instances = asyncdicom.retrieve(address, StudyInstanceUID="1.2", listen="HERE@127.0.0.1:0", check=False)
        received = [instance.sop_instance_uid async for instance in instances]
    # It was there in time, or it was refused; nobody hangs.
    assert received in (["1.2.1"], [])


async def test_leaving_cancels_on_the_wire() -> None:
    async def get(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_GET_RQ)
        await send(peer, 1, "1.2.1")
        assert (await peer.expect_message(C_STORE_RSP)).status == 0x0000
        assert (await peer.expect_message(C_CANCEL_RQ)).message_id == request.message_id
        await send(peer, 2, "1.2.2")
        assert (await peer.expect_message(C_STORE_RSP)).status == 0xA700
        await peer.respond(request, 0xFE00)
        await peer.confirm_release()
        ended.set()

    ended = anyio.Event()
    async with scripted(question, get) as address:
        async for instance in asyncdicom.retrieve(address, StudyInstanceUID="1.2"):
            await instance.read()
            break
        await ended.wait()
