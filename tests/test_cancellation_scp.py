"""What a peer's C-CANCEL, abort, release and loss do to a handler that runs."""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope, get_cancelled_exc_class
from anyio.abc import SocketStream

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import RELEASE_RP, RELEASE_RQ, ScriptedPeer, abort_pdu, command_set, connected, message_pdus

from .harness import (
    C_ECHO_RQ,
    C_ECHO_RSP,
    C_FIND_RQ,
    C_FIND_RSP,
    C_GET_RQ,
    C_GET_RSP,
    C_MOVE_RQ,
    C_MOVE_RSP,
    C_STORE_RQ,
    CT_ID,
    FIND_ID,
    GET_ID,
    MOVE_ID,
    PATIENCE,
    VERIFICATION_ID,
    cancel_pdus,
    ct_bytes,
    ct_instance,
    final,
    identifier,
    request_elements,
    served,
    served_over_tcp,
    store_elements,
)

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[ScriptedPeer]]


@pytest.fixture(params=[served, served_over_tcp], ids=["memory", "tcp"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """Serve over memory, where a task reads, and over TCP, where the transport itself looks at what comes."""
    found: Serve = request.param
    return found


def find_rq(message_id: int = 1) -> bytes:
    return ScriptedPeer.message(FIND_ID, request_elements(C_FIND_RQ, message_id, sop.STUDY_ROOT_FIND), identifier(""))


def get_rq(message_id: int = 1) -> bytes:
    return ScriptedPeer.message(GET_ID, request_elements(C_GET_RQ, message_id, sop.STUDY_ROOT_GET), identifier(""))


def move_rq(message_id: int = 1) -> bytes:
    elements = request_elements(C_MOVE_RQ, message_id, sop.STUDY_ROOT_MOVE)
    elements[0x00000600] = b"ELSEWHERE "
    return ScriptedPeer.message(MOVE_ID, elements, identifier(""))


def echo_rq(message_id: int = 99) -> bytes:
    return ScriptedPeer.message(VERIFICATION_ID, request_elements(C_ECHO_RQ, message_id, sop.VERIFICATION))


async def expect_echo(peer: ScriptedPeer) -> None:
    """The association works."""
    await peer.send(echo_rq())
    assert (await peer.expect_message(C_ECHO_RSP)).status == 0


class Record:
    """A C-FIND handler that waits where it is told to, and what happened to it."""

    def __init__(
        self, wait: str, clean: Callable[[], Awaitable[None]] | None = None, match: bytes = identifier("2")
    ) -> None:
        self.wait = wait
        self.match = match
        self.clean = clean
        self.waiting = anyio.Event()
        self.ended = anyio.Event()
        self.cancelled = False
        self.cleaned = False
        self.services = asyncdicom.Services()
        self.services.find(sop.STUDY_ROOT_FIND)(self.handle)

    async def handle(self, request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        try:
            if self.wait == "before the first match":
                await self.block()
            yield identifier("1")
            if self.wait == "between matches":
                await self.block()
            while True:
                # A handler that never waits for anything but its responses to be written.
                self.waiting.set()
                yield self.match
        except get_cancelled_exc_class():
            self.cancelled = True
            raise
        finally:
            try:
                if self.clean is not None:
                    await self.clean()
                self.cleaned = True
            finally:
                self.ended.set()

    async def block(self) -> None:
        self.waiting.set()
        await anyio.sleep_forever()


WAITS = ["before the first match", "between matches", "at a yield"]


@pytest.mark.parametrize("wait", WAITS)
async def test_c_cancel_cancels_the_handler_and_the_association_lives(serve: Serve, wait: str) -> None:
    record = Record(wait)
    async with serve(record.services) as peer:
        await peer.send(find_rq(7))
        await record.waiting.wait()
        await peer.send(cancel_pdus(FIND_ID, 7))
        pending, last = await final(peer, C_FIND_RSP)
        assert record.ended.is_set()
        assert record.cancelled is (wait != "at a yield")
        assert (last.status, last.message_id, last.context_id, last.data_set) == (0xFE00, 7, FIND_ID, None)
        assert [response.data_set for response in pending][:1] == ([] if wait == WAITS[0] else [identifier("1")])
        await expect_echo(peer)
        await peer.release()


async def clean_up_without_shield() -> None:
    await anyio.lowlevel.checkpoint()


async def clean_up_with_shield() -> None:
    async with asyncdicom.cleanup(seconds=1):
        await anyio.lowlevel.checkpoint()


async def clean_up_for_too_long() -> None:
    async with asyncdicom.cleanup(seconds=0.05):
        await anyio.sleep_forever()


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize(
    "clean", [clean_up_without_shield, clean_up_with_shield, clean_up_for_too_long], ids=lambda clean: clean.__name__
)
async def test_an_awaiting_finally_is_cancelled_again_unless_it_is_shielded(
    serve: Serve,
    wait: str,
    clean: Callable[[], Awaitable[None]],
) -> None:
    record = Record(wait, clean)
    async with serve(record.services) as peer:
        await peer.send(find_rq())
        await record.waiting.wait()
        await peer.send(cancel_pdus(FIND_ID, 1))
        _, last = await final(peer, C_FIND_RSP)
        assert last.status == 0xFE00
        assert record.ended.is_set()
        # At a yield the handler is closed in a shielded scope, so that its clean-up needs none of its own.
        assert record.cleaned is (clean is not clean_up_without_shield or wait == "at a yield")
        await expect_echo(peer)
        await peer.release()


async def test_a_handler_that_will_not_close_is_cancelled_after_the_cancel_timeout(serve: Serve) -> None:
    record = Record("at a yield", anyio.sleep_forever)
    async with serve(record.services, timeouts=asyncdicom.Timeouts(cancel=0.05)) as peer:
        await peer.send(find_rq())
        await record.waiting.wait()
        await peer.send(cancel_pdus(FIND_ID, 1))
        _, last = await final(peer, C_FIND_RSP)
        assert last.status == 0xFE00
        assert record.ended.is_set()
        assert not record.cleaned
        await expect_echo(peer)
        await peer.release()


@pytest.mark.parametrize("raised", [ValueError, OSError, asyncdicom.StatusError])
async def test_a_handler_that_raises_while_it_is_cancelled_still_ends_with_cancel(
    serve: Serve,
    raised: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def clean() -> None:
        raise raised(0x0110)

    record = Record("between matches", clean)
    async with serve(record.services) as peer:
        await peer.send(find_rq())
        await record.waiting.wait()
        await peer.send(cancel_pdus(FIND_ID, 1))
        _, last = await final(peer, C_FIND_RSP)
        assert last.status == 0xFE00
        await expect_echo(peer)
        await peer.release()


async def test_a_handler_that_swallows_its_cancellation_still_ends_with_cancel(serve: Serve) -> None:
    services = asyncdicom.Services()
    waiting = anyio.Event()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        with CancelScope() as scope:
            yield identifier("1")
            waiting.set()
            try:
                await anyio.sleep_forever()
            finally:
                scope.cancel()
        for _ in range(3):
            yield identifier("2")

    async with serve(services) as peer:
        await peer.send(find_rq())
        await waiting.wait()
        await peer.send(cancel_pdus(FIND_ID, 1))
        pending, last = await final(peer, C_FIND_RSP)
        assert (len(pending), last.status) == (1, 0xFE00)
        await expect_echo(peer)
        await peer.release()


async def endless(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
    while True:
        yield identifier()


async def one_match(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
    yield identifier()


async def no_match(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
    for _ in ():
        yield b""


async def waits(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
    await anyio.sleep_forever()
    yield b""


async def returns_a_list(request: asyncdicom.FindRequest) -> list[bytes]:
    return [identifier()] * 3


@pytest.mark.parametrize("handler", [endless, one_match, no_match, waits, returns_a_list], ids=lambda h: h.__name__)
async def test_a_c_cancel_in_the_same_segment_as_its_request_is_never_lost(serve: Serve, handler: Any) -> None:
    services = asyncdicom.Services()
    services.find(sop.STUDY_ROOT_FIND)(handler)
    async with serve(services) as peer:
        for turn in range(1000):
            message_id = turn % 65_535 + 1
            await peer.send(find_rq(message_id), cancel_pdus(FIND_ID, message_id))
            _, last = await final(peer, C_FIND_RSP)
            assert (last.status, last.message_id) == (0xFE00, message_id), f"turn {turn}"
        await expect_echo(peer)
        await peer.release()


@pytest.mark.parametrize("split", [1, 2, 3, 7, 50])
async def test_a_c_cancel_is_found_however_the_stream_is_cut(split: int) -> None:
    from asyncdicom.testing import FaultyStream

    services = asyncdicom.Services()
    services.find(sop.STUDY_ROOT_FIND)(endless)
    async with served(services, wrap=lambda stream: FaultyStream(stream, split=split)) as peer:
        await peer.send(find_rq(), cancel_pdus(FIND_ID, 1))
        _, last = await final(peer, C_FIND_RSP)
        assert last.status == 0xFE00
        await expect_echo(peer)
        await peer.release()


async def test_cancels_for_nothing_twice_many_at_once_and_late_are_ignored(serve: Serve) -> None:
    record = Record("between matches")
    async with serve(record.services) as peer:
        await peer.send(cancel_pdus(FIND_ID, 1), cancel_pdus(FIND_ID, 0), cancel_pdus(VERIFICATION_ID, 65_535))
        await expect_echo(peer)
        await peer.send(find_rq(1), cancel_pdus(FIND_ID, 2))
        await record.waiting.wait()
        await peer.send(*(cancel_pdus(FIND_ID, 1) for _ in range(11)))
        _, last = await final(peer, C_FIND_RSP)
        assert last.status == 0xFE00
        await peer.send(cancel_pdus(FIND_ID, 1))
        await expect_echo(peer)
        await peer.release()


async def test_cancels_for_eleven_operations_at_once_end_them_all(serve: Serve) -> None:
    services = asyncdicom.Services()
    services.find(sop.STUDY_ROOT_FIND)(waits)
    async with serve(services, associate={"window": (11, 1)}) as peer:
        assert peer.answer is not None
        await peer.send(*(find_rq(number) for number in range(1, 12)))
        await peer.send(*(cancel_pdus(FIND_ID, number) for number in range(1, 12)))
        ended = [await peer.expect_message(C_FIND_RSP) for _ in range(11)]
        assert {response.status for response in ended} == {0xFE00}
        assert sorted(response.message_id for response in ended) == list(range(1, 12))
        await expect_echo(peer)
        await peer.release()


async def test_one_of_two_operations_is_cancelled_and_the_other_goes_on(serve: Serve) -> None:
    services = asyncdicom.Services()
    go_on = anyio.Event()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        await go_on.wait()
        yield identifier(str(request.message_id))

    async with serve(services, associate={"window": (2, 1)}) as peer:
        await peer.send(find_rq(1), find_rq(2), cancel_pdus(FIND_ID, 2))
        _, last = await final(peer, C_FIND_RSP)
        assert (last.status, last.message_id) == (0xFE00, 2)
        go_on.set()
        pending, last = await final(peer, C_FIND_RSP)
        assert [response.message_id for response in pending] == [1]
        assert (last.status, last.message_id) == (0x0000, 1)
        await peer.release()


async def test_a_c_cancel_with_a_data_set_is_safe(serve: Serve) -> None:
    services = asyncdicom.Services()
    services.find(sop.STUDY_ROOT_FIND)(waits)
    async with serve(services) as peer:
        await peer.send(find_rq(1))
        await peer.send_message(FIND_ID, {0x00000100: 0x0FFF, 0x00000120: 1}, b"\x10\x00\x20\x00LO\x00\x00")
        _, last = await final(peer, C_FIND_RSP)
        assert last.status == 0xFE00
        await expect_echo(peer)
        await peer.release()


async def test_a_c_cancel_that_announces_a_data_set_which_never_follows_is_safe(serve: Serve) -> None:
    services = asyncdicom.Services()
    services.find(sop.STUDY_ROOT_FIND)(waits)
    async with serve(services) as peer:
        await peer.send(find_rq(1))
        await peer.send(ScriptedPeer.message(FIND_ID, {0x00000100: 0x0FFF, 0x00000120: 1, 0x00000800: 0x0000}))
        _, last = await final(peer, C_FIND_RSP)
        assert last.status == 0xFE00
        await expect_echo(peer)
        await peer.release()


async def test_a_c_cancel_behind_a_request_beyond_the_window_is_found(serve: Serve) -> None:
    services = asyncdicom.Services()
    services.find(sop.STUDY_ROOT_FIND)(waits)
    async with serve(services) as peer:
        await peer.send(find_rq(1), echo_rq(2), echo_rq(3), cancel_pdus(FIND_ID, 1))
        _, last = await final(peer, C_FIND_RSP)
        assert last.status == 0xFE00
        assert [(await peer.expect_message(C_ECHO_RSP)).message_id for _ in range(2)] == [2, 3]
        await peer.release()


async def test_requests_that_were_held_back_are_performed_although_nothing_more_comes(serve: Serve) -> None:
    services = asyncdicom.Services()
    services.find(sop.STUDY_ROOT_FIND)(no_match)

    @services.echo()
    async def echo(request: asyncdicom.EchoRequest) -> None:
        # Long enough for another worker of the association to begin.
        for _ in range(5):
            await anyio.lowlevel.checkpoint()

    async with serve(services) as peer:
        await peer.send(find_rq(1), *(echo_rq(number) for number in range(2, 8)))
        await peer.expect_message(C_FIND_RSP)
        assert [(await peer.expect_message(C_ECHO_RSP)).message_id for _ in range(6)] == [2, 3, 4, 5, 6, 7]
        await peer.release()


async def test_a_c_cancel_reaches_a_request_that_is_held_back(serve: Serve) -> None:
    services = asyncdicom.Services()
    services.find(sop.STUDY_ROOT_FIND)(waits)
    async with serve(services) as peer:
        await peer.send(find_rq(1), find_rq(2), cancel_pdus(FIND_ID, 2), cancel_pdus(FIND_ID, 1))
        ended = [await peer.expect_message(C_FIND_RSP) for _ in range(2)]
        assert [(response.message_id, response.status) for response in ended] == [(1, 0xFE00), (2, 0xFE00)]
        await peer.release()


# C-CANCEL of a peer that does not read: what is on its way out stays whole, and the association lives.


async def test_a_c_cancel_while_a_response_waits_for_room_leaves_the_association_intact() -> None:
    services = asyncdicom.Services()
    services.find(sop.STUDY_ROOT_FIND)(endless)
    async with served(services, max_buffer=1000) as peer:
        await peer.send(find_rq(1))
        assert isinstance(peer.stream, asyncdicom.testing.MemoryStream)
        while peer.stream.buffered < 900:
            await anyio.lowlevel.checkpoint()
        await peer.send(cancel_pdus(FIND_ID, 1))
        await peer.stream.wait_drained()
        pending, last = await final(peer, C_FIND_RSP)
        assert {response.data_set for response in pending} == {identifier()}
        assert last.status == 0xFE00
        await expect_echo(peer)
        await peer.release()


async def test_a_c_cancel_in_the_middle_of_a_sub_operation_of_a_c_get_lets_it_finish() -> None:
    services = asyncdicom.Services()
    size = 3 << 20

    @services.get(sop.STUDY_ROOT_GET)
    async def get(request: asyncdicom.RetrieveRequest) -> AsyncIterator[object]:
        yield 2
        yield ct_instance(size, "1.2.1")
        yield ct_instance(size, "1.2.2")

    storage = asyncdicom.PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, scu_role=True, scp_role=True)
    async with served(services, sop.STUDY_ROOT_GET, storage) as peer:
        elements = request_elements(C_GET_RQ, 1, sop.STUDY_ROOT_GET)
        await peer.send_message(1, elements, identifier(""))
        assert isinstance(peer.stream, asyncdicom.testing.MemoryStream)
        while not peer.stream.buffered:
            await anyio.lowlevel.checkpoint()
        await peer.send(cancel_pdus(1, 1))
        await peer.stream.wait_drained()
        stored = await peer.expect_message(C_STORE_RQ)
        assert stored.data_set == ct_bytes(size, "1.2.1")
        await peer.respond(stored, 0x0000)
        _, last = await final(peer, C_GET_RSP)
        assert last.status == 0xFE00
        assert [last.number(tag) for tag in range(0x00001020, 0x00001024)] == [1, 1, 0, 0]
        await peer.release()


async def test_a_c_cancel_does_not_wait_for_the_destination_of_a_c_move(serve: Serve) -> None:
    services = asyncdicom.Services()
    resolving = anyio.Event()

    async def resolve(title: str) -> str:
        resolving.set()
        await anyio.sleep_forever()
        return ""

    @services.move(sop.STUDY_ROOT_MOVE)
    async def move(request: asyncdicom.RetrieveRequest) -> AsyncIterator[object]:
        yield 1
        yield ct_instance()

    async with serve(services, peers=resolve) as peer:
        await peer.send(move_rq(1))
        await resolving.wait()
        await peer.send(cancel_pdus(MOVE_ID, 1))
        _, last = await final(peer, C_MOVE_RSP)
        assert last.status == 0xFE00
        await expect_echo(peer)
        await peer.release()


@pytest.mark.parametrize("how", ["cancel", "abort"])
async def test_a_sub_operation_that_the_destination_does_not_answer_is_given_up(how: str) -> None:
    services = asyncdicom.Services()
    stored, ended, answered = anyio.Event(), anyio.Event(), anyio.Event()
    last_words: list[int] = []

    @services.move(sop.STUDY_ROOT_MOVE)
    async def move(request: asyncdicom.RetrieveRequest) -> AsyncIterator[object]:
        try:
            yield 2
            yield ct_instance(uid="1.2.1")
            yield ct_instance(uid="1.2.2")
        finally:
            ended.set()

    async def destination(stream: SocketStream) -> None:
        async with stream:
            peer = ScriptedPeer(stream)
            await peer.accept()
            await peer.respond(await peer.expect_message(C_STORE_RQ), 0x0000)
            await peer.expect_message(C_STORE_RQ)
            stored.set()
            last_words.append((await peer.receive_pdu())[0])
            if how == "cancel":
                # Nobody has to wait until the destination closes.
                await answered.wait()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, destination)
        peers = {"ELSEWHERE": f"ELSEWHERE@127.0.0.1:{port}"}
        async with served(services, peers=peers, timeouts=asyncdicom.Timeouts(abort=1000)) as peer:
            await peer.send(move_rq(1))
            await stored.wait()
            if how == "cancel":
                await peer.send(cancel_pdus(MOVE_ID, 1))
                _, last = await final(peer, C_MOVE_RSP)
                assert last.status == 0xFE00
                assert [last.number(tag) for tag in range(0x00001020, 0x00001024)] == [1, 1, 0, 0]
                answered.set()
                await expect_echo(peer)
                await peer.release()
            else:
                await abort(peer)
        await ended.wait()
        tasks.cancel_scope.cancel()
    assert last_words == [7]


# The end of the association while a handler runs.


async def abort(peer: ScriptedPeer) -> None:
    await peer.send(abort_pdu())
    assert all(pdu[0] == 4 for pdu in await peer.read_to_end())  # responses that were under way


async def lose(peer: ScriptedPeer) -> None:
    await peer.aclose()


async def reset(peer: ScriptedPeer) -> None:
    if isinstance(peer.stream, asyncdicom.testing.MemoryStream):
        peer.stream.reset()
    else:
        sock = peer.stream.extra(anyio.abc.SocketAttribute.raw_socket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await peer.aclose()


async def half_close(peer: ScriptedPeer) -> None:
    await peer.stream.send_eof()


async def release(peer: ScriptedPeer) -> None:
    await peer.send(RELEASE_RQ)
    while True:
        received = await peer.receive_pdu()
        if received[0] == 6:
            break
        assert received[0] == 4  # responses that were under way
    await peer.aclose()


async def break_the_protocol(peer: ScriptedPeer) -> None:
    await peer.send(bytes.fromhex("02000000000400000000"))
    while (received := await peer.receive_pdu())[0] == 4:
        pass
    # A second A-ASSOCIATE-AC is unexpected, or does not even parse.
    assert received[0] == 7
    assert received[8] == 2
    await peer.aclose()


ENDS = [abort, lose, reset, half_close, release, break_the_protocol]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("wait", WAITS)
async def test_the_end_of_the_association_cancels_the_handler(
    serve: Serve,
    end: Callable[[ScriptedPeer], Awaitable[None]],
    wait: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = Record(wait, clean_up_with_shield)
    with caplog.at_level(logging.WARNING):
        async with serve(record.services) as peer:
            await peer.send(find_rq())
            await record.waiting.wait()
            if wait == "between matches":
                await peer.expect_message(C_FIND_RSP)
            await end(peer)
            await record.ended.wait()
            assert record.cleaned
    assert not caplog.records


@pytest.mark.parametrize("last_words", [abort_pdu(), RELEASE_RQ, b"\xff" * 10], ids=["abort", "release", "garbage"])
@pytest.mark.parametrize("kind", ["echo", "store", "find"])
async def test_an_end_in_the_same_segment_as_its_request_cancels_the_handler(
    serve: Serve, kind: str, last_words: bytes
) -> None:
    services = asyncdicom.Services()
    ended = anyio.Event()

    async def hang(request: Any) -> None:
        try:
            if isinstance(request, asyncdicom.StoreRequest):
                await request.read()
            await anyio.sleep_forever()
        finally:
            ended.set()

    async def hang_before_a_match(request: Any) -> AsyncIterator[bytes]:
        await hang(request)
        yield b""

    services.echo()(hang)
    services.store(sop.CT_IMAGE_STORAGE)(hang)
    services.find(sop.STUDY_ROOT_FIND)(hang_before_a_match)
    request = {
        "echo": echo_rq(),
        "store": ScriptedPeer.message(CT_ID, store_elements(1), ct_bytes()),
        "find": find_rq(),
    }[kind]
    async with serve(services, timeouts=asyncdicom.Timeouts(abort=0.05)) as peer:
        await peer.send(request, last_words)
        await ended.wait()


@pytest.mark.parametrize("end", [abort, lose, reset, half_close], ids=lambda end: end.__name__)
async def test_the_end_of_the_association_wakes_a_handler_whose_response_waits_for_room(
    end: Callable[[ScriptedPeer], Awaitable[None]],
) -> None:
    record = Record("at a yield", clean_up_with_shield)
    async with served(record.services, max_buffer=1000) as peer:
        await peer.send(find_rq())
        assert isinstance(peer.stream, asyncdicom.testing.MemoryStream)
        while peer.stream.buffered < 900:
            await anyio.lowlevel.checkpoint()
        if end is abort:
            await peer.send(abort_pdu())
        else:
            await end(peer)
        await record.ended.wait()
        assert record.cleaned


async def test_a_release_while_a_response_waits_for_room_is_confirmed_after_that_response() -> None:
    record = Record("at a yield", clean_up_with_shield)
    async with served(record.services, max_buffer=1000) as peer:
        await peer.send(find_rq())
        assert isinstance(peer.stream, asyncdicom.testing.MemoryStream)
        while peer.stream.buffered < 900:
            await anyio.lowlevel.checkpoint()
        await peer.send(RELEASE_RQ)
        while peer.stream.unread:
            await anyio.lowlevel.checkpoint()
        while (received := await peer.receive_pdu())[0] == 4:
            pass
        assert received == RELEASE_RP
        await peer.aclose()
        await record.ended.wait()
        assert record.cleaned


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_a_c_store_handler_that_has_read_its_data_set_is_cancelled(
    serve: Serve,
    end: Callable[[ScriptedPeer], Awaitable[None]],
    tmp_path: Path,
) -> None:
    services = asyncdicom.Services()
    waiting, ended = anyio.Event(), anyio.Event()

    @services.store(sop.CT_IMAGE_STORAGE)
    async def store(request: asyncdicom.StoreRequest) -> None:
        try:
            await request.save(tmp_path / "whole.dcm")
            waiting.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with serve(services) as peer:
        await peer.send_message(CT_ID, store_elements(1), ct_bytes())
        await waiting.wait()
        await end(peer)
        await ended.wait()
    assert os.listdir(tmp_path) == ["whole.dcm"]


@pytest.mark.parametrize("size", [1000, 3 << 20])
@pytest.mark.parametrize("end", [abort, lose, reset, half_close, release], ids=lambda end: end.__name__)
async def test_a_c_store_whose_data_set_breaks_off_leaves_no_file(
    serve: Serve,
    end: Callable[[ScriptedPeer], Awaitable[None]],
    size: int,
    tmp_path: Path,
) -> None:
    services = asyncdicom.Services()
    begun, ended = anyio.Event(), anyio.Event()
    failures: list[BaseException] = []

    @services.store(sop.CT_IMAGE_STORAGE)
    async def store(request: asyncdicom.StoreRequest) -> None:
        begun.set()
        try:
            await request.save(tmp_path / "torn.dcm")
        except BaseException as exc:
            failures.append(exc)
            raise
        finally:
            ended.set()

    async with serve(services) as peer:
        command = command_set({**store_elements(1), 0x00000800: 1})
        data = ct_bytes(size)
        fragment = min(16_384, size // 5)
        # Cut between two PDUs, so that what follows is understood.
        whole = message_pdus(CT_ID, command, data, fragment=fragment)
        await peer.send(whole[: -12 - (len(data) % fragment or fragment)])
        await begun.wait()
        await end(peer)
        await ended.wait()
        (failure,) = failures
        assert isinstance(failure, asyncdicom.AssociationError | get_cancelled_exc_class())
    assert os.listdir(tmp_path) == []


async def test_leaving_the_server_cancels_handlers_and_lets_them_clean_up() -> None:
    record = Record("between matches", clean_up_with_shield)
    async with anyio.create_task_group() as tasks:
        quick = asyncdicom.Timeouts(abort=0.05)
        client = connected(record.services, [sop.STUDY_ROOT_FIND], server_timeouts=quick)
        async with client as assoc:

            async def use() -> None:
                with pytest.raises(asyncdicom.AssociationError):
                    async for _ in assoc.find(identifier()):
                        pass

            tasks.start_soon(use)
            await record.waiting.wait()
            await client.server.stop(0)
            await record.ended.wait()
            assert record.cleaned


async def test_a_peer_that_never_reads_while_we_answer_is_given_up(serve: Serve) -> None:
    record = Record("at a yield", clean_up_with_shield, identifier("1" * 60_000))
    async with serve(record.services, timeouts=asyncdicom.Timeouts(write=0.1, abort=0.05)) as peer:
        await peer.send(find_rq())
        await record.ended.wait()
        assert record.cleaned


async def test_a_peer_that_is_idle_for_too_long_is_aborted(serve: Serve) -> None:
    services = asyncdicom.Services()
    async with serve(services, timeouts=asyncdicom.Timeouts(idle=0.1, abort=0.05)) as peer:
        await expect_echo(peer)
        assert await peer.expect_abort() == (0, 0)
        await peer.aclose()


async def test_a_peer_that_asks_again_and_again_is_not_idle(serve: Serve) -> None:
    services = asyncdicom.Services()
    async with serve(services, timeouts=asyncdicom.Timeouts(idle=0.5)) as peer:
        for _ in range(6):
            await anyio.sleep(0.1)  # what it thinks about
            await expect_echo(peer)
        await peer.release()


async def test_a_handler_that_works_for_long_is_not_idle(serve: Serve) -> None:
    services = asyncdicom.Services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        await anyio.sleep(0.3)  # what it works
        yield identifier()

    async with serve(services, timeouts=asyncdicom.Timeouts(idle=0.1, abort=0.05)) as peer:
        await peer.send(find_rq())
        pending, last = await final(peer, C_FIND_RSP)
        assert (len(pending), last.status) == (1, 0x0000)
        await peer.release()


async def test_a_server_that_is_cancelled_does_not_wait_for_a_peer_that_will_not_close() -> None:
    services = asyncdicom.Services()
    timeouts = asyncdicom.Timeouts(associate=1000, abort=0.05)
    with anyio.fail_after(PATIENCE), CancelScope() as scope:
        async with served(services, timeouts=timeouts) as peer:
            await peer.send(bytes(10))
            assert await peer.expect_abort() == (2, 1)
            scope.cancel()
            await anyio.sleep_forever()
