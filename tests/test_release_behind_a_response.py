"""A release that comes while the response before it is still on its way through the transport is a release."""

from __future__ import annotations

import asyncio

import pytest

import asyncdicom
from asyncdicom import AssociationClosed, Server, Services, sop

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_response_that_was_sent_whole_is_not_taken_for_half_written() -> None:
    async with Server(Services(), "ASYNCDICOM@127.0.0.1:0") as server:
        connecting = asyncdicom.connect(server.addresses[0], contexts=[sop.VERIFICATION])
        async with connecting as assoc:
            await assoc.echo()
            [theirs] = server.associations
            # As the event loop does when not everything goes out at once; uvloop does it now and then for a few bytes.
            theirs.transport.pause_writing()  # type: ignore[attr-defined]
            assert (await assoc.echo()).status == 0x0000
            asyncio.get_running_loop().call_later(0.1, theirs.transport.resume_writing)  # type: ignore[attr-defined]
    end = assoc.error()
    assert isinstance(end, AssociationClosed), end
    assert "released" in str(end)
