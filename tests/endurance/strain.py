"""What is done over and over: to an archive in a process of its own, and to a server and clients in this one."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import anyio

import asyncdicom
from asyncdicom import sop

from ..hostile.process import ArchiveProcess
from ..hostile.wire import (
    REQUEST,
    abort,
    cancel,
    element,
    find_command,
    message,
    p_data,
    pdv,
    statuses,
    store_command,
)

__all__ = ["ARCHIVE", "HERE", "Figures", "figures", "served"]

_QUERY = element(0x00080052, b"STUDY") + element(0x00100020, b"")
#: Operations of an association.
_OPERATIONS = 100


def connect_and_close(archive: ArchiveProcess, times: int) -> None:
    """Connect and close, with nothing said, a byte, half a request, and all of one."""
    for _, said in zip(range(times), cycle([b"", b"\x01", REQUEST[:100], REQUEST]), strict=False):
        with closing(archive.connect()) as connection:
            connection.sendall(said)


def abort_associations(archive: ArchiveProcess, times: int) -> None:
    """Associate and abort: at once, inside of a C-STORE, and behind a C-FIND."""
    inside = message(5, store_command(b"1.2.3")) + p_data(pdv(5, 0, bytes(10_000)))
    query = message(3, find_command(), _QUERY)
    for _, said in zip(range(times), cycle([b"", inside, query]), strict=False):
        with closing(archive.connect()) as connection:
            connection.sendall(REQUEST + said)
            assert connection.recv(1) == b"\x02"
            connection.sendall(abort(0, 0))


def cancel_operations(archive: ArchiveProcess, times: int) -> None:
    """Query and cancel, many times on an association."""
    for start in range(0, times, _OPERATIONS):
        with closing(archive.connect()) as connection:
            connection.sendall(REQUEST)
            for number in range(start, min(start + _OPERATIONS, times)):
                message_id = number % 60_000 + 1
                connection.sendall(message(3, find_command(message_id), _QUERY) + message(3, cancel(message_id)))
                received = b""
                while not any(status in (0, 0xFE00) for status in statuses(received)):
                    received += connection.recv(1 << 16)
            connection.sendall(abort(0, 0))


#: What is done to an archive, and how often.
ARCHIVE: dict[str, tuple[Callable[[ArchiveProcess, int], None], int]] = {
    "connect and close": (connect_and_close, 20_000),
    "aborted associations": (abort_associations, 5_000),
    "cancelled operations": (cancel_operations, 2_000),
}


# In this process.


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a process holds.

    :ivar memory: resident bytes.
    """

    memory: int
    descriptors: int
    threads: int
    tasks: int


def figures() -> Figures:
    """Return what this process holds now, in a task."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Figures(
        memory=pages * os.sysconf("SC_PAGE_SIZE"),
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        tasks=len(anyio.get_running_tasks()),
    )


@asynccontextmanager
async def served() -> AsyncIterator[asyncdicom.Server]:
    """Serve queries that never end."""
    services = asyncdicom.Services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        while True:
            yield element(0x00100020, b"1")

    async with asyncdicom.Server(services, "SERVER@127.0.0.1:0", drain=0) as server:
        yield server


async def leave_associations(server: asyncdicom.Server, times: int) -> None:
    """Associate and release, as a client of ours."""
    for _ in range(times):
        async with asyncdicom.connect(server.addresses[0], contexts=[sop.VERIFICATION]):
            pass


async def abort_clients(server: asyncdicom.Server, times: int) -> None:
    """Associate and abort, as a client of ours."""
    for _ in range(times):
        async with asyncdicom.connect(server.addresses[0], contexts=[sop.VERIFICATION]) as association:
            await association.abort()


async def cancel_queries(server: asyncdicom.Server, times: int) -> None:
    """Leave a query early in each of three ways: at a limit, by a break, by the cancellation of the task."""
    for start in range(0, times, _OPERATIONS):
        async with asyncdicom.connect(server.addresses[0], contexts=[sop.STUDY_ROOT_FIND]) as association:
            for number in range(start, min(start + _OPERATIONS, times)):
                await _leave_early(association, number % 3)


async def _leave_early(association: asyncdicom.Association, how: int) -> None:
    with anyio.CancelScope() as scope:
        async with association.find(PatientID="1", limit=2 if how == 0 else None) as matches:
            async for _ in matches:
                if how == 1:
                    break
                if how == 2:
                    scope.cancel()


#: What is done in this process, and how often.
HERE = {
    "associate and release": (leave_associations, 5_000),
    "associate and abort": (abort_clients, 5_000),
    "cancelled operations": (cancel_queries, 2_000),
}
