"""The testing tools themselves: streams, requests for handlers, and associations in memory."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pydicom
import pytest
from anyio import BrokenResourceError, CancelScope, ClosedResourceError, EndOfStream, WouldBlock
from pydicom import Dataset

import asyncdicom
from asyncdicom import sop
from asyncdicom.protocol import commands
from asyncdicom.testing import (
    FaultyStream,
    ScriptedPeer,
    command_set,
    connected,
    echo_request,
    find_request,
    memory_stream_pair,
    message_pdus,
    n_request,
    parse_command_set,
    retrieve_request,
    store_request,
)

from .harness import CONTEXTS, ct_bytes, ct_instance, identifier

pytestmark = pytest.mark.anyio

# Streams.


async def test_what_is_sent_comes_out_in_order() -> None:
    one, other = memory_stream_pair()
    await one.send(b"ab")
    one.send_nowait(b"cd")
    assert (one.unread, other.buffered) == (4, 4)
    assert await other.receive(3) == b"abc"
    assert await other.receive() == b"d"


async def test_a_sender_waits_while_the_buffer_is_full() -> None:
    one, other = memory_stream_pair(10)
    received = b""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.send, bytes(range(25)))
        while len(received) < 25:
            await anyio.lowlevel.checkpoint()
            assert other.buffered <= 10
            received += await other.receive(7)
    assert received == bytes(range(25))


async def test_sending_without_waiting_is_all_or_nothing() -> None:
    one, other = memory_stream_pair(10)
    one.send_nowait(bytes(6))
    with pytest.raises(WouldBlock):
        one.send_nowait(bytes(5))
    assert other.buffered == 6
    one.send_nowait(bytes(4))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.send, b"more")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        await other.receive(5)
        with pytest.raises(WouldBlock):
            one.send_nowait(bytes(10))
        await other.receive()


async def test_a_closed_end_is_seen_on_both_sides() -> None:
    one, other = memory_stream_pair()
    await one.send(b"last words")
    await one.aclose()
    assert one.closed
    for use in (one.receive(), one.send(b"x")):
        with pytest.raises(ClosedResourceError):
            await use
    assert await other.receive() == b"last words"
    with pytest.raises(EndOfStream):
        await other.receive()
    with pytest.raises(BrokenResourceError):
        await other.send(b"x")
    with pytest.raises(BrokenResourceError):
        other.send_nowait(b"x")


async def test_half_close_leaves_the_other_direction_open() -> None:
    one, other = memory_stream_pair()
    await one.send_eof()
    with pytest.raises(EndOfStream):
        await other.receive()
    await other.send(b"answer")
    assert await one.receive() == b"answer"
    with pytest.raises(ClosedResourceError):
        await one.send(b"x")


async def test_a_reset_loses_what_was_not_read() -> None:
    one, other = memory_stream_pair()
    await one.send(b"lost")
    one.reset()
    for stream in (one, other):
        with pytest.raises(BrokenResourceError):
            await stream.receive()
        with pytest.raises(BrokenResourceError):
            await stream.send(b"x")


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_the_end_wakes_who_waits(end: str) -> None:
    one, other = memory_stream_pair(4)
    woken = []

    async def receive() -> None:
        with pytest.raises((EndOfStream, BrokenResourceError)):
            await other.receive()
        woken.append("receiver")

    async def send() -> None:
        with pytest.raises(BrokenResourceError):
            await other.send(bytes(100))
        woken.append("sender")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        tasks.start_soon(send)
        while not one.buffered:
            await anyio.lowlevel.checkpoint()
        getattr(one, end)()
    assert sorted(woken) == ["receiver", "sender"]


async def test_cancelling_a_receive_loses_nothing() -> None:
    one, other = memory_stream_pair()
    await one.send(b"data")
    with CancelScope() as scope:
        scope.cancel()
        await other.receive()
    assert await other.receive() == b"data"


async def test_two_tasks_may_not_receive_at_once() -> None:
    one, other = memory_stream_pair()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other.receive)
        while not _waits(one):
            await anyio.lowlevel.checkpoint()
        with pytest.raises(anyio.BusyResourceError):
            await other.receive()
        await one.send(b"x")


def _waits(stream: Any) -> bool:
    return bool(stream._outgoing.reader_waits)


async def test_a_buffer_holds_at_least_a_byte() -> None:
    with pytest.raises(ValueError, match="max_buffer"):
        memory_stream_pair(0)


async def test_a_faulty_stream_hangs_from_the_call_on_that_is_named_until_it_is_resumed() -> None:
    one, other = memory_stream_pair()
    faulty = FaultyStream(one, hang_on_receive=2, hang_on_send=2)
    await other.send(b"a")
    assert await faulty.receive() == b"a"
    await faulty.send(b"1")
    for call in (faulty.receive, lambda: faulty.send(b"2")):
        with CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await faulty.wait_hanging()
                scope.cancel()
    with pytest.raises(WouldBlock):
        faulty.send_nowait(b"3")
    faulty.resume()
    await other.send(b"b")
    assert await faulty.receive() == b"b"
    await faulty.send(b"4")
    faulty.send_nowait(b"5")
    assert await other.receive() == b"145"
    assert faulty.sent == [b"1", b"4", b"5"]


async def test_a_faulty_stream_fails_ends_drops_cuts_and_splits() -> None:
    one, other = memory_stream_pair()
    with pytest.raises(BrokenResourceError):
        await FaultyStream(one, fail_on_receive=1).receive()
    with pytest.raises(EndOfStream):
        await FaultyStream(one, end_on_receive=1).receive()
    with pytest.raises(OSError, match="told to"):
        await FaultyStream(one, fail_on_send=1, cut=2, error=lambda: OSError("told to")).send(b"abc")
    dropping = FaultyStream(one, drop_on_send=2)
    await dropping.send(b"d")
    await dropping.send(b"e")
    dropping.send_nowait(b"f")
    assert await other.receive() == b"abd"
    await other.send(b"split")
    splitting = FaultyStream(one, split=2)
    assert [await splitting.receive() for _ in range(3)] == [b"sp", b"li", b"t"]
    await splitting.send_eof()
    splitting.close()
    await splitting.aclose()
    assert one.closed


# Command sets and PDUs.


def test_command_sets_are_written_and_read_back() -> None:
    data = command_set({0x00000110: 7, 0x00000002: "1.2.3", 0x00001001: b"raw!"})
    assert data.hex(" ", 4) == (
        "00000000 04000000 24000000 00000200 06000000 312e322e 33000000 10010200 00000700 00000110 04000000 72617721"
    )
    assert parse_command_set(data) == {
        0: b"\x24\x00\x00\x00",
        2: b"1.2.3\0",
        0x110: b"\x07\x00",
        0x1001: b"raw!",
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes.fromhex("00001001020000000100 00000001020000000100"), "after"),
        (bytes.fromhex("000010010100000001"), "odd length"),
        (bytes.fromhex("000010010400000001"), "runs past"),
        (bytes.fromhex("000000000400000009000000 00001001020000000100"), "group length"),
    ],
)
def test_a_command_set_against_the_standard_is_an_assertion_error(data: bytes, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        parse_command_set(data)


async def play(data: bytes, *, close: bool = True) -> ScriptedPeer:
    ours, theirs = memory_stream_pair()
    await ours.send(data)
    if close:
        await ours.aclose()
    return ScriptedPeer(theirs)


async def test_a_scripted_peer_reads_messages_fragment_by_fragment() -> None:
    command = command_set({0x00000100: 1, 0x00000110: 9, 0x00000800: 0})
    peer = await play(message_pdus(3, command, b"0123456789", fragment=4))
    message = await peer.expect_message(1)
    assert (message.context_id, message.message_id, message.data_set) == (3, 9, b"0123456789")
    assert message.fragments[-3:] == [4, 4, 2]
    assert (message.status, message.text(0x00000600), message.number(0x00000700)) == (None, None, None)
    await peer.expect_end()


COMMAND = command_set({0x00000100: 1, 0x00000110: 9, 0x00000800: 0})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (message_pdus(1, COMMAND) + message_pdus(1, COMMAND), "out of order"),
        (message_pdus(1, COMMAND) + message_pdus(3, COMMAND), "the context changed"),
        (b"\x04\0\0\0\0\x06\0\0\0\x01\x01\x03", "PDV length 1"),
        (b"\x04\0\0\0\0\x06\0\0\0\x09\x01\x03", "runs past"),
        (b"\x05\0\0\0\0\x04\0\0\0\0", "expected PDU type"),
        (b"\x04\0\0\0\0\x06\0\0", "inside a PDU"),
    ],
)
async def test_a_scripted_peer_judges_what_it_reads(data: bytes, reason: str) -> None:
    peer = await play(data)
    with pytest.raises(AssertionError, match=reason):
        await peer.expect_message()


async def test_a_scripted_peer_insists_on_what_it_expects() -> None:
    peer = await play(message_pdus(1, COMMAND, b""))
    with pytest.raises(AssertionError, match="expected command 0x0030"):
        await peer.expect_message(0x0030)
    with pytest.raises(AssertionError, match="end of the stream"):
        await (await play(bytes.fromhex("07000000000400000000"))).expect_end()
    assert await (await play(bytes.fromhex("07000000000400000203"))).expect_abort() == (2, 3)


# Requests for handlers.


async def test_an_echo_request_has_what_a_handler_looks_at() -> None:
    request = echo_request(message_id=5, calling="MODALITY", peer_address=("10.0.0.1", 104))
    assert (request.message_id, request.sop_class_uid) == (5, sop.VERIFICATION)
    assert request.association.peer.ae_title == "MODALITY"
    assert request.association.peer.address == ("10.0.0.1", 104)
    await request.respond(0)
    assert request.responded


@pytest.mark.parametrize("syntax", [sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.IMPLICIT_VR_LITTLE_ENDIAN])
async def test_a_find_request_is_made_of_a_data_set_a_mapping_bytes_or_keywords(syntax: str) -> None:
    dataset = Dataset()
    dataset.PatientID = "1"
    for given in (dataset, {"PatientID": "1"}):
        request = find_request(given, level="PATIENT", transfer_syntax=syntax, PatientName="A*")
        assert request.level == "PATIENT"
        assert (request.identifier.PatientID, str(request.identifier.PatientName)) == ("1", "A*")
        assert request.transfer_syntax_uid == syntax
    assert "QueryRetrieveLevel" not in dataset
    encoded = find_request({"PatientID": "1"}).identifier_bytes
    assert find_request(encoded).identifier == dataset


def test_requests_can_be_made_where_no_loop_runs() -> None:
    assert find_request(PatientID="1").identifier.PatientID == "1"
    assert store_request(ct_instance()).sop_instance_uid == "1.2.3.4"


async def test_a_retrieve_request_is_a_c_get_or_with_a_destination_a_c_move() -> None:
    get = retrieve_request(PatientID="1", level="PATIENT")
    assert (get.is_move, get.destination, get.sop_class_uid) == (False, None, sop.STUDY_ROOT_GET)
    move = retrieve_request(PatientID="1", destination="WS", priority=2)
    assert (move.is_move, move.destination, move.sop_class_uid) == (True, "WS", sop.STUDY_ROOT_MOVE)
    assert (move.priority, move.total) == (2, None)


async def test_a_store_request_is_saved_byte_for_byte(test_files: Path, tmp_path: Path) -> None:
    path = test_files / "CT_small.dcm"
    request = store_request(path, move_originator=("WS", 7), piece=1000)
    saved = await request.save(tmp_path / "saved.dcm")
    assert pydicom.dcmread(saved) == pydicom.dcmread(path)
    assert saved.read_bytes().endswith(path.read_bytes()[-30_000:])
    assert (request.move_originator_ae_title, request.move_originator_message_id) == ("WS", 7)
    assert pydicom.dcmread(saved).file_meta.SourceApplicationEntityTitle == "TESTER"


async def test_a_store_request_gives_its_data_set_in_every_way(test_files: Path) -> None:
    dataset = pydicom.dcmread(test_files / "CT_small.dcm")
    assert (await store_request(dataset).dataset()).PatientID == dataset.PatientID
    pieces = [piece async for piece in store_request(ct_instance(5000), piece=1000).iter_data()]
    assert b"".join(pieces) == ct_bytes(5000)
    assert {len(piece) for piece in pieces[:-1]} == {1000}
    assert await store_request(ct_instance()).read() == ct_bytes()
    request = store_request(ct_instance(), sop_class_uid="1.2", sop_instance_uid="")
    assert (request.sop_class_uid, request.sop_instance_uid) == ("1.2", "")
    await request.discard()


async def test_a_store_request_can_break_off(tmp_path: Path) -> None:
    request = store_request(ct_instance(5000), piece=1000, error=asyncdicom.AssociationClosed("lost"))
    with pytest.raises(asyncdicom.AssociationClosed, match="lost"):
        await request.save(tmp_path / "torn.dcm")
    assert os.listdir(tmp_path) == []


async def test_an_n_request_has_its_data_set() -> None:
    message = commands.NActionRQ(
        message_id=1, requested_sop_class_uid="1.2", requested_sop_instance_uid="1.2.3", action_type_id=4
    )
    dataset = Dataset()
    dataset.PatientID = "1"
    request = n_request(message, dataset)
    assert (request.sop_class_uid, request.sop_instance_uid, request.action_type_id) == ("1.2", "1.2.3", 4)
    assert request.data_set == dataset
    assert n_request(message).data_set is None
    assert n_request(message, identifier("1"), context="1.9").context.abstract_syntax == "1.9"


async def test_handlers_are_plain_functions() -> None:
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[Dataset]:
        for number in range(2):
            match = Dataset()
            match.PatientID = f"{request.identifier.PatientID}{number}"
            yield match

    assert [match.PatientID async for match in find(find_request(PatientID="X"))] == ["X0", "X1"]


# An association in memory.


def make_services() -> asyncdicom.Services:
    services = asyncdicom.Services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        yield identifier("7")

    return services


async def test_a_client_and_its_services_are_connected_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    served = connected(make_services(), CONTEXTS, calling="ME", called="SELF")
    async with served as assoc:
        assert [match.PatientID async for match in assoc.find(PatientID="")] == ["7"]
        (association,) = served.server.associations
        assert (association.peer.ae_title, assoc.peer.ae_title) == ("ME", "SELF")
    assert served.server.associations == ()
    assert caplog.messages[-1].startswith("association 1 released")


async def test_an_exception_of_the_body_arrives_bare_and_aborts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(ZeroDivisionError):
        async with connected(make_services(), CONTEXTS):
            raise ZeroDivisionError
    assert "aborted" in caplog.messages[-1]


async def test_a_rejection_arrives_bare() -> None:
    services = make_services()

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        raise asyncdicom.AssociationRejected(1, 1, 3)

    with pytest.raises(asyncdicom.AssociationRejected):
        async with connected(services, CONTEXTS):
            raise AssertionError


async def test_both_streams_can_be_wrapped() -> None:
    wrapped: list[FaultyStream] = []

    def wrap(stream: Any) -> FaultyStream:
        wrapped.append(FaultyStream(stream, split=10))
        return wrapped[-1]

    async with connected(make_services(), CONTEXTS, wrap_client=wrap, wrap_server=wrap, max_buffer=100) as assoc:
        assert (await assoc.echo()).status == 0
    assert all(stream.receives > 10 for stream in wrapped)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_may_be_entered_and_left_in_different_tasks(anyio_backend: str) -> None:
    served = connected(make_services(), CONTEXTS)
    assoc = await asyncio.create_task(served.__aenter__())
    assert (await assoc.echo()).status == 0
    await asyncio.create_task(served.__aexit__(None, None, None))
    assert assoc.ended
