"""A handler that does not read its data set is cancelled all the same when the peer is gone."""

from __future__ import annotations

import os
import select
import socket
import struct
from pathlib import Path

import anyio
import pytest

import asyncdicom
from asyncdicom import sop
from asyncdicom.services import lookout
from asyncdicom.testing import ScriptedPeer

from .harness import CONTEXTS, CT_ID, PATIENCE, ct_bytes, store_elements

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="the system does not tell"),
]


@pytest.mark.parametrize("how", ["close", "reset", "abort"])
@pytest.mark.parametrize("read", [False, True], ids=["unread", "begun"])
async def test_a_handler_that_does_not_read_is_cancelled_when_the_peer_is_gone(
    how: str, read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_INTERVAL", 0.02)
    services = asyncdicom.Services()
    waiting, ended = anyio.Event(), anyio.Event()

    @services.store("*")
    async def store(request: asyncdicom.StoreRequest) -> None:
        try:
            if read:
                await anext(aiter(request.iter_data()))
            waiting.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    with anyio.fail_after(PATIENCE):
        async with asyncdicom.Server(services, "SERVER@127.0.0.1:0") as server:
            address = server.addresses[0]
            peer = ScriptedPeer(await anyio.connect_tcp(address.host, address.port))
            await peer.associate(*CONTEXTS)
            # Less than the buffers of the system hold, so that all of it is sent.
            await peer.send(ScriptedPeer.message(CT_ID, store_elements(1), ct_bytes(100_000)))
            await waiting.wait()
            if how == "abort":
                await peer.send(bytes.fromhex("07000000000400000000"))
            elif how == "reset":
                sock = peer.stream.extra(anyio.abc.SocketAttribute.raw_socket)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await peer.aclose()
            await ended.wait()
            while server.associations:
                await anyio.lowlevel.checkpoint()


async def test_a_handler_that_takes_its_time_is_left_alone_while_the_peer_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_INTERVAL", 0.001)
    services = asyncdicom.Services()
    looked = anyio.Event()
    looks: list[object] = []
    has_hung_up = lookout.has_hung_up

    def look(sock: object) -> bool:
        looks.append(sock)
        if len(looks) == 5:
            looked.set()
        return has_hung_up(sock)

    monkeypatch.setattr(lookout, "has_hung_up", look)

    @services.store("*")
    async def store(request: asyncdicom.StoreRequest) -> None:
        await looked.wait()
        await request.save(tmp_path / "a.dcm")

    with anyio.fail_after(PATIENCE):
        async with asyncdicom.Server(services, "SERVER@127.0.0.1:0") as server:
            async with asyncdicom.connect(server.addresses[0], contexts=[sop.CT_IMAGE_STORAGE]) as assoc:
                instance = asyncdicom.Instance.from_bytes(
                    ct_bytes(100_000), sop.CT_IMAGE_STORAGE, "1.2.3.4", sop.EXPLICIT_VR_LITTLE_ENDIAN
                )
                for _ in range(2):
                    assert (await assoc.store(instance)).status == 0
    assert os.listdir(tmp_path) == ["a.dcm"]
