"""Cancel every verb at each of its receives and sends: the association is intact afterwards, or ended, never half-written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from struct import unpack_from
from typing import Any

import anyio
import pytest
from anyio import CancelScope, wait_all_tasks_blocked

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import FaultyStream, connected

from .harness import CONTEXTS, PATIENCE, ct_instance, identifier

pytestmark = pytest.mark.anyio


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give cancelled messages more time to be finished, as a machine may be busy with other things."""
    monkeypatch.setattr("asyncdicom.connection._FINISH_TIME", PATIENCE)
    monkeypatch.setattr("asyncdicom.transport._base.CLOSE_TIME", PATIENCE)


Use = Callable[[asyncdicom.Association], Awaitable[object]]

#: A message that is longer than what a cancelled sender may finish.
_LARGE = 3 << 20


async def echo(assoc: asyncdicom.Association) -> object:
    return await assoc.echo()


async def store_small(assoc: asyncdicom.Association) -> object:
    return await assoc.store(ct_instance(20_000))


async def store_medium(assoc: asyncdicom.Association) -> object:
    return await assoc.store(ct_instance(700_000))


async def store_large(assoc: asyncdicom.Association) -> object:
    return await assoc.store(ct_instance(_LARGE))


async def store_many(assoc: asyncdicom.Association) -> object:
    sizes = (20_000, 700_000, 300_000)
    return [stored async for stored in assoc.store_many(ct_instance(size, f"1.2.{size}") for size in sizes)]


async def find(assoc: asyncdicom.Association) -> object:
    return [match async for match in assoc.find(identifier())]


async def get(assoc: asyncdicom.Association) -> object:
    return [await instance.read() async for instance in assoc.get(identifier())]


async def move(assoc: asyncdicom.Association) -> object:
    return [progress async for progress in assoc.move(identifier(), destination="NOWHERE")]


async def n_create(assoc: asyncdicom.Association) -> object:
    return await assoc.n_create(identifier(), sop.MODALITY_PERFORMED_PROCEDURE_STEP, "1.2.3")


VERBS: tuple[Use, ...] = (echo, store_small, store_medium, store_large, store_many, find, get, move, n_create)


def make_services() -> asyncdicom.Services:
    services = asyncdicom.Services()

    @services.store(sop.CT_IMAGE_STORAGE)
    async def store(request: asyncdicom.StoreRequest) -> None:
        await request.discard()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        for number in range(4):
            yield identifier(str(number))

    @services.get(sop.STUDY_ROOT_GET)
    async def get(request: asyncdicom.RetrieveRequest) -> AsyncIterator[object]:
        yield 3
        for number in range(3):
            yield ct_instance(30_000, f"1.2.{number}")

    @services.move(sop.STUDY_ROOT_MOVE)
    async def move(request: asyncdicom.RetrieveRequest) -> AsyncIterator[object]:
        yield 4
        for _ in range(4):
            yield 0xFF00, None
        yield 0x0000, None

    @services.n_create(sop.MODALITY_PERFORMED_PROCEDURE_STEP)
    async def n_create(request: asyncdicom.NRequest) -> int:
        return 0

    return services


def _peers(title: str) -> str:
    return "NOWHERE@127.0.0.1:1"


@dataclass
class Wire:
    """What a client wrote, and whether it was torn: a PDU or a message that was begun and not finished."""

    pdus: list[bytes]
    torn: bool

    @classmethod
    def read(cls, written: list[bytes]) -> Wire:
        """Cut the bytes into PDUs, and follow the messages in them.

        :raises AssertionError: messages are interleaved, or something follows a torn PDU.
        """
        data = b"".join(written)
        pdus: list[bytes] = []
        position = 0
        while position < len(data):
            length = unpack_from(">I", data, position + 2)[0] + 6 if position + 6 <= len(data) else 6
            if position + length > len(data):
                return cls(pdus, True)
            pdus.append(data[position : position + length])
            position += length
        in_message = False
        wants_data = False
        for pdu in pdus:
            if pdu[0] != 4:
                assert pdu[0] in (1, 5, 6, 7), pdu[:16].hex()
                # An A-ABORT may come inside a message, nothing else may.
                assert not in_message or pdu[0] == 7, "a control PDU inside a message"
                in_message = in_message and pdu[0] != 7
                continue
            control = pdu[11]
            assert bool(control & 1) is not wants_data, "interleaved messages"
            in_message = True
            if control & 2:
                if control & 1 and _has_data_set(pdu):
                    wants_data = True
                else:
                    in_message = wants_data = False
        return cls(pdus, in_message)

    @property
    def aborted(self) -> bool:
        """Whether the last word was an A-ABORT."""
        return bool(self.pdus) and self.pdus[-1][0] == 7


def _has_data_set(pdu: bytes) -> bool:
    """Look for (0000,0800) in a P-DATA-TF with a whole command set."""
    position = 12
    while position < len(pdu):
        group, element, length = unpack_from("<HHI", pdu, position)
        if (group, element) == (0, 0x0800):
            return bool(unpack_from("<H", pdu, position + 8)[0] != 0x0101)
        position += 8 + length
    return False


@asynccontextmanager
async def client(
    *, silent: bool = False, window: int = 1, **faults: Any
) -> AsyncIterator[tuple[asyncdicom.Association, FaultyStream]]:
    """Associate over a stream that can hang; small buffers, so that long messages take many sends.

    :param silent: whether deadlines are waited for, and so are short.
    :param window: operations that may be outstanding at once.
    """
    streams: list[FaultyStream] = []

    def wrap(stream: Any) -> FaultyStream:
        streams.append(FaultyStream(stream, **faults))
        return streams[0]

    timeouts = asyncdicom.Timeouts()
    if silent:
        timeouts = asyncdicom.Timeouts(cancel=0.2, abort=0.1, release=0.5, response=1, retrieve=1)
    served = connected(
        make_services(),
        CONTEXTS,
        wrap_client=wrap,
        max_buffer=65_536,
        timeouts=timeouts,
        async_operations=(window, 1),
        server_options={"peers": _peers},
    )
    async with served as assoc:
        yield assoc, streams[0]


async def calls_of(use: Use) -> tuple[int, int, int, int]:
    """Count the receives and sends of an undisturbed verb: from, to for each."""
    async with client() as (assoc, stream):
        receives, sends = stream.receives, stream.sends
        await use(assoc)
        return receives + 1, stream.receives, sends + 1, stream.sends


async def check_afterwards(assoc: asyncdicom.Association, stream: FaultyStream, *, silent: bool) -> bool:
    """Tell whether the association works; if it does not, it must have ended and say so."""
    if not assoc.ended:
        if not silent:
            assert (await assoc.echo()).status == 0
            return True
        # The response that is overdue takes the only slot of the window.
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await assoc.echo()
        assert caught.value.kind == "response"
    with pytest.raises((asyncdicom.AssociationError, asyncdicom.OperationTimeout)):
        await assoc.echo()
    return False


async def by_scope(use: Use, assoc: asyncdicom.Association, stream: FaultyStream, resume: bool) -> None:
    """Use an association, and cancel that by a scope when something hangs."""
    with CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await stream.wait_hanging()
                scope.cancel()
                if resume:
                    stream.resume()

            tasks.start_soon(cancel)
            await use(assoc)
            tasks.cancel_scope.cancel()


async def by_task(use: Use, assoc: asyncdicom.Association, stream: FaultyStream, resume: bool) -> None:
    """Use an association in an asyncio task, and cancel that natively when something hangs."""
    task = asyncio.ensure_future(use(assoc))
    await stream.wait_hanging()
    task.cancel()
    if resume:
        stream.resume()
    with pytest.raises(asyncio.CancelledError):
        await task


Cancel = Callable[[Use, asyncdicom.Association, FaultyStream, bool], Awaitable[None]]

#: How to cancel, on which backend.
CANCELS = [("asyncio", by_scope), ("asyncio", by_task), ("trio", by_scope)]

every_cancel = pytest.mark.parametrize(
    ("anyio_backend", "cancel"), CANCELS, ids=lambda value: getattr(value, "__name__", value)
)


async def cancel_there(use: Use, cancel: Cancel, *, resume: bool, cut: int = 0, **faults: int) -> tuple[bool, Wire]:
    """Cancel a verb where its stream hangs; tell whether the association lives, and what was written."""
    async with client(silent=not resume, cut=cut) as (assoc, stream):
        for name, value in faults.items():
            setattr(stream, name, value)

        await cancel(use, assoc, stream, resume)
        assert stream.hanging, "the stream was never asked for this call"
        lives = await check_afterwards(assoc, stream, silent=not resume)
    return lives, Wire.read(stream.sent)


async def everywhere(
    cancel: Cancel, kind: str, *uses: Use, resume: bool, cuts: Sequence[int] = (0,)
) -> list[tuple[Use, bool, Wire]]:
    """Cancel verbs at each of their calls, all at the same time."""
    results: list[tuple[Use, bool, Wire]] = []

    async def one(use: Use, number: int, cut: int) -> None:
        lives, wire = await cancel_there(use, cancel, resume=resume, cut=cut, **{f"hang_on_{kind}": number})
        results.append((use, lives, wire))

    calls = 0
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for use in uses:
                first_receive, last_receive, first_send, last_send = await calls_of(use)
                first, last = (first_receive, last_receive) if kind == "receive" else (first_send, last_send)
                for number in range(first, last + 1):
                    for cut in cuts:
                        calls += 1
                        tasks.start_soon(one, use, number, cut)
    assert len(results) == calls
    return results


@every_cancel
@pytest.mark.parametrize("use", VERBS, ids=lambda use: use.__name__)
async def test_cancelled_at_any_receive_the_association_is_intact(anyio_backend: str, cancel: Cancel, use: Use) -> None:
    for _, lives, wire in await everywhere(cancel, "receive", use, resume=True):
        assert lives
        assert not wire.torn


@every_cancel
async def test_cancelled_at_any_receive_of_a_peer_that_fell_silent_the_association_is_aborted_in_time(
    anyio_backend: str, cancel: Cancel
) -> None:
    for _, lives, wire in await everywhere(cancel, "receive", *VERBS, resume=False):
        assert not lives
        assert not wire.torn
        assert wire.aborted


@every_cancel
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("use", VERBS, ids=lambda use: use.__name__)
async def test_cancelled_at_any_send_that_goes_on_the_message_is_finished(
    anyio_backend: str, cancel: Cancel, use: Use
) -> None:
    ended = 0
    for _, lives, wire in await everywhere(cancel, "send", use, resume=True, cuts=(0, 100)):
        assert not wire.torn or not lives
        ended += not lives
    # Only what has more than 1 MiB to go is given up.
    assert bool(ended) is (use is store_large)


@every_cancel
async def test_cancelled_at_any_send_that_hangs_the_association_is_aborted_and_nothing_follows(
    anyio_backend: str, cancel: Cancel
) -> None:
    for _, lives, wire in await everywhere(cancel, "send", *VERBS, resume=False, cuts=(0, 1, 100)):
        assert not lives
        assert not wire.aborted or not wire.torn


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("kind", ["receive", "send"])
async def test_store_many_with_a_window_cancelled_anywhere_names_each_instance_once(kind: str) -> None:
    what = [ct_instance(size, f"1.2.{size}") for size in (20_000, 700_000, 300_000, 10, 500_000, 20)]
    for number in count(1):
        source = iter(what)
        stored: list[object] = []
        with anyio.fail_after(PATIENCE):
            async with client(window=3) as (assoc, stream):
                assert assoc.async_operations[0] == 3
                setattr(stream, f"hang_on_{kind}", getattr(stream, f"{kind}s") + number)
                storing = assoc.store_many(source)

                async def use(storing: asyncdicom.StoreMany, stored: list[object], stream: FaultyStream) -> None:
                    async for outcome in storing:
                        stored.append(outcome.what)
                    stream.resume()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(use, storing, stored, stream)
                    await wait_all_tasks_blocked()
                    if stream.hanging:
                        tasks.cancel_scope.cancel()
                        stream.resume()
                assert sorted(map(id, [*stored, *storing.pending, *storing.unsent, *source])) == sorted(map(id, what))
                assert (await assoc.echo()).status == 0
        if not stream.hanging:
            assert stored == what
            break
    assert number > 3
