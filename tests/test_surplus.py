"""What comes in one segment with the answer that somebody waited for is looked at, though nobody reads on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import RELEASE_RQ, ScriptedPeer

from .harness import (
    C_ECHO_RQ,
    C_ECHO_RSP,
    C_GET_RQ,
    C_GET_RSP,
    C_STORE_RQ,
    CONTEXTS,
    GET_ID,
    VERIFICATION_ID,
    cancel_pdus,
    ct_instance,
    final,
    identifier,
    request_elements,
)

pytestmark = pytest.mark.anyio

CT = asyncdicom.PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, scu_role=True, scp_role=True)


@pytest.mark.parametrize("surplus", ["C-CANCEL", "C-ECHO", "A-RELEASE-RQ"])
async def test_what_comes_with_the_answer_of_a_sub_operation_is_not_lost(surplus: str) -> None:
    ended = anyio.Event()

    async def get(request: asyncdicom.RetrieveRequest) -> AsyncIterator[Any]:
        request.total = 2
        try:
            yield ct_instance()
            await anyio.sleep_forever()
        finally:
            ended.set()

    services = asyncdicom.Services()
    services.get(sop.STUDY_ROOT_GET)(get)
    async with asyncdicom.Server(services, drain=0) as server:
        address = server.addresses[0]
        with anyio.fail_after(10):
            peer = ScriptedPeer(await anyio.connect_tcp(address.host, address.port))
            await peer.associate(*[uid for uid in CONTEXTS if uid != CT.abstract_syntax], CT, window=(2, 1))
            request = ScriptedPeer.message(GET_ID, request_elements(C_GET_RQ, 7, sop.STUDY_ROOT_GET), identifier(""))
            await peer.send(request)
            store = await peer.expect_message(C_STORE_RQ)
            more = {
                "C-CANCEL": cancel_pdus(GET_ID, 7),
                "C-ECHO": ScriptedPeer.message(VERIFICATION_ID, request_elements(C_ECHO_RQ, 8, sop.VERIFICATION)),
                "A-RELEASE-RQ": RELEASE_RQ,
            }[surplus]
            await peer.send(ScriptedPeer.response(store, 0x0000), more)
            match surplus:
                case "C-CANCEL":
                    assert (await final(peer, C_GET_RSP))[1].status == 0xFE00
                    await peer.release()
                case "C-ECHO":
                    answers = {(await peer.expect_message()).command_field for _ in range(2)}
                    assert answers == {C_GET_RSP, C_ECHO_RSP}
                case _:
                    await ended.wait()
            await peer.aclose()


@pytest.mark.parametrize("together", [2, 4, 7])
async def test_requests_in_one_segment_are_performed_at_once_as_far_as_the_window_allows(together: int) -> None:
    window = 4
    begun: list[int] = []
    full = anyio.Event()
    services = asyncdicom.Services()

    @services.echo()
    async def echo(request: asyncdicom.EchoRequest) -> None:
        begun.append(request.message_id)
        if len(begun) == min(together, window):
            full.set()
        await full.wait()

    async with asyncdicom.Server(services, async_operations=(window, window), drain=0) as server:
        address = server.addresses[0]
        with anyio.fail_after(10):
            peer = ScriptedPeer(await anyio.connect_tcp(address.host, address.port))
            await peer.associate(*CONTEXTS, window=(window, 1))
            elements = [request_elements(C_ECHO_RQ, number, sop.VERIFICATION) for number in range(1, together + 1)]
            await peer.send(*(ScriptedPeer.message(VERIFICATION_ID, one) for one in elements))
            answered = [(await peer.expect_message(C_ECHO_RSP)).number(0x0120) for _ in elements]
            await peer.aclose()
    assert set(answered) == set(begun) == set(range(1, together + 1))
