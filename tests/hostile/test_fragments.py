"""A chunk full of tiny fragments costs its sender's turn, not everybody's."""

from __future__ import annotations

import anyio
import pytest

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import memory_stream_pair

from .wire import REQUEST, find_command, p_data, pdv, store_command

pytestmark = pytest.mark.anyio

#: What a chunk of 256 KiB is filled with, and what comes before it.
CONFETTI = {
    "empty pieces of a data set": (p_data(pdv(5, 3, store_command(b"1.2"))), pdv(5, 0, b"")),
    "bytes of a data set": (p_data(pdv(5, 3, store_command(b"1.2"))), pdv(5, 0, b"x")),
    "bytes of an identifier": (p_data(pdv(3, 3, find_command())), pdv(3, 0, b"x")),
    "empty pieces of a command set": (b"", pdv(1, 1, b"")),
    "bytes after our abort": (p_data(pdv(99, 0, b"x")), pdv(1, 0, b"x")),
}


@pytest.mark.parametrize(("before", "piece"), CONFETTI.values(), ids=CONFETTI)
@pytest.mark.parametrize("use", ["read", "ignored"])
async def test_others_get_their_turn_in_a_chunk_of_tiny_fragments(before: bytes, piece: bytes, use: str) -> None:
    services = asyncdicom.Services()

    @services.store("*")
    async def store(request: asyncdicom.StoreRequest) -> None:
        if use == "read":
            await request.read()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> None:
        return None

    turns = 0
    ours, theirs = memory_stream_pair(1 << 20)
    server = asyncdicom.Server(services, "SERVER@memory:0", timeouts=asyncdicom.Timeouts(abort=0.2))
    async with anyio.create_task_group() as tasks:

        async def serve() -> None:
            await server.serve_stream(theirs)
            tasks.cancel_scope.cancel()

        tasks.start_soon(serve)
        await ours.send(REQUEST)
        assert (await ours.receive())[0] == 2
        await ours.send(before + p_data(*[piece] * 15_000))
        await ours.send_eof()
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1
    # A checkpoint for every 256 of them, and not many for all else.
    assert turns >= 58
