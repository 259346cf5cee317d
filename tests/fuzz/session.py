"""Whole sessions: a server with every kind of handler over a stream in memory, and a peer that sends what the fuzzer makes."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from functools import cache

import anyio

import asyncdicom
from asyncdicom import sop, testing

from .targets import _REQUEST

__all__ = ["fuzz_session"]

_RUNS = 0


@cache
def _services() -> asyncdicom.Services:
    services = asyncdicom.Services()

    @services.store("*")
    async def store(request: asyncdicom.StoreRequest) -> None:
        await request.read()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        assert request.identifier is not None
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            yield b"\x10\x00\x10\x00\x02\x00\x00\x00A "

    return services


async def _session(data: bytes) -> None:
    ours, theirs = testing.memory_stream_pair()
    timeouts = asyncdicom.Timeouts(associate=0.5, message=0.5, idle=0.5, abort=0.2, write=0.5)
    server = asyncdicom.Server(_services(), timeouts=timeouts, drain=0)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve_stream, ours)

            async def swallow() -> None:
                try:
                    while True:
                        await theirs.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass

            tasks.start_soon(swallow)
            step = (data[0] + 1) * 4 if data else 1
            try:
                for start in range(1, len(data), step):
                    await theirs.send(data[start : start + step])
                await theirs.send_eof()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass
        await theirs.aclose()


def fuzz_session(data: bytes) -> None:
    """Serve one session; it ends in time, and nothing but the peer's bytes comes of it."""
    global _RUNS
    logging.getLogger("asyncdicom").setLevel(logging.CRITICAL)
    if data[:1] and data[0] & 1:
        data = data[:1] + _REQUEST + data[1:]
    anyio.run(_session, data)
    _RUNS += 1
    if _RUNS % 500 == 0:
        gc.collect()
