"""An adversary that speaks raw bytes, against a server on a socket: what it gets, and what others notice of it."""

from __future__ import annotations

import gc
import logging
import os
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import ByteStream, SocketStream

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import memory_stream_pair

pytestmark = pytest.mark.anyio

ABORT_0_0 = b"\x07\0\0\0\0\x04\0\0\0\0"


def abort(source: int, reason: int) -> bytes:
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, source, reason))


def reject(result: int, source: int, reason: int) -> bytes:
    return bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason))


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def context(number: int, abstract_syntax: bytes, *transfer_syntaxes: bytes) -> bytes:
    body = bytes((number, 0, 0, 0)) + item(0x30, abstract_syntax)
    return item(0x20, body + b"".join(item(0x40, syntax) for syntax in transfer_syntaxes))


VERIFICATION = context(1, b"1.2.840.10008.1.1", b"1.2.840.10008.1.2")
FIND = context(3, b"1.2.840.10008.5.1.4.1.2.2.1", b"1.2.840.10008.1.2")
CT = context(5, b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.2")
MAXIMUM = item(0x51, struct.pack(">I", 16384))


def associate(
    *items: bytes,
    called: bytes = b"SERVER",
    calling: bytes = b"ADVERSARY",
    application: bytes = b"1.2.840.10008.3.1.1.1",
    version: int = 1,
    user: bytes = MAXIMUM,
) -> bytes:
    body = struct.pack(">H2x16s16s32x", version, called.ljust(16), calling.ljust(16))
    body += item(0x10, application) + b"".join(items or (VERIFICATION, FIND, CT)) + item(0x50, user)
    return struct.pack(">BxI", 1, len(body)) + body


def pdv(number: int, control: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">IBB", len(data) + 2 if length is None else length, number, control) + data


def p_data(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxI", 4, len(body)) + body


def command(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def us(value: int) -> bytes:
    return struct.pack("<H", value)


ECHO = command((2, b"1.2.840.10008.1.1\0"), (0x100, us(0x30)), (0x110, us(1)), (0x800, us(0x101)))
RELEASE = b"\x05\0\0\0\0\x04\0\0\0\0"


def store_command(uid: bytes) -> bytes:
    return command(
        (2, b"1.2.840.10008.5.1.4.1.1.2\0"),
        (0x100, us(1)),
        (0x110, us(7)),
        (0x700, us(0)),
        (0x800, us(1)),
        (0x1000, uid),
    )


def find_command() -> bytes:
    return command(
        (2, b"1.2.840.10008.5.1.4.1.2.2.1\0"), (0x100, us(0x20)), (0x110, us(7)), (0x700, us(0)), (0x800, us(1))
    )


@asynccontextmanager
async def serving(**options: object) -> AsyncIterator[tuple[asyncdicom.Server, list[bytes]]]:
    services = asyncdicom.Services()
    stored: list[bytes] = []

    @services.store("*")
    async def store(request: asyncdicom.StoreRequest) -> None:
        stored.append(await request.read())

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        await anyio.sleep_forever()
        yield b""

    timeouts = asyncdicom.Timeouts(associate=0.3, message=0.3, abort=0.2, write=0.5)
    options.setdefault("timeouts", timeouts)
    async with asyncdicom.Server(services, "SERVER@127.0.0.1:0", drain=0, **options) as server:  # type: ignore[arg-type]
        yield server, stored


async def connect(server: asyncdicom.Server) -> SocketStream:
    address = server.addresses[0]
    return await anyio.connect_tcp(address.host, address.port)


async def receive_all(stream: ByteStream) -> bytes:
    received = b""
    try:
        while True:
            received += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return received


async def say(server: asyncdicom.Server, data: bytes, *, finish: bool = False) -> bytes:
    """Connect, send, and return all that comes until the server closes."""
    async with await connect(server) as stream:
        await stream.send(data)
        if finish:
            await stream.send_eof()
        with anyio.fail_after(5):
            return await receive_all(stream)


async def check_echo(server: asyncdicom.Server) -> None:
    with anyio.fail_after(2):
        async with asyncdicom.connect(server.addresses[0], contexts=[sop.VERIFICATION]) as assoc:
            await assoc.echo()


BEFORE = {
    "nothing": (b"", b""),
    "one byte": (b"\x01", b""),
    "half a request": (associate()[:100], b""),
    "a length of 0xFFFFFFFF": (b"\x01\0\xff\xff\xff\xff", ABORT_0_0),
    "a length over the limit": (struct.pack(">BxI", 1, (1 << 20) + 1), ABORT_0_0),
    "PDU type 0": (b"\0\0\0\0\0\x04abcd", ABORT_0_0),
    "PDU type 8": (b"\x08\0\0\0\0\x04abcd", ABORT_0_0),
    "PDU type 255": (b"\xff\0\0\0\0\x04abcd", ABORT_0_0),
    "P-DATA-TF": (p_data(pdv(1, 3, ECHO)), ABORT_0_0),
    "A-RELEASE-RQ": (RELEASE, ABORT_0_0),
    "A-ASSOCIATE-AC": (b"\x02" + associate()[1:], ABORT_0_0),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ABORT_0_0),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", ABORT_0_0),
    "a TLS ClientHello": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(64), ABORT_0_0),
    "an item past its parent": (associate(b"\x20\0\xff\xff\x01\0\0\0"), ABORT_0_0),
    "a sub-item past its parent": (associate(user=b"\x51\0\xff\xff\0\0"), ABORT_0_0),
    "a context without abstract syntax": (associate(item(0x20, b"\x01\0\0\0")), ABORT_0_0),
    "an even context id": (associate(context(2, b"1.2", b"1.2")), ABORT_0_0),
    "two contexts of one id": (associate(VERIFICATION, VERIFICATION), ABORT_0_0),
    "protocol version 2": (associate(version=2), reject(1, 2, 2)),
    "another application context": (associate(application=b"1.2.3"), reject(1, 1, 2)),
    "a maximum length of 7": (associate(user=item(0x51, struct.pack(">I", 7))), reject(1, 1, 1)),
    "an AE title of spaces": (associate(calling=b" "), reject(1, 1, 3)),
    "an AE title with control characters": (associate(calling=b"A\x1b[2J\r\nB"), reject(1, 1, 3)),
}


@pytest.mark.parametrize(("data", "answer"), BEFORE.values(), ids=BEFORE)
async def test_before_an_association_the_standard_is_followed_and_nobody_else_notices(
    data: bytes, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asyncdicom")
    async with serving() as (server, _):
        assert await say(server, data) == answer
        await check_echo(server)
    assert not any(record.exc_info for record in caplog.records)
    assert not any(c < " " for record in caplog.records for c in record.getMessage())


ESTABLISHED = {
    "a second request": (associate(), abort(2, 2)),
    "an A-ASSOCIATE-AC": (b"\x02" + associate()[1:], abort(2, 2)),
    "an A-RELEASE-RP": (b"\x06\0\0\0\0\x04\0\0\0\0", abort(2, 2)),
    "an unknown PDU": (b"\xff\0\0\0\0\x04abcd", abort(2, 1)),
    "a PDV of length 0": (p_data(pdv(1, 3, b"", 0)), abort(2, 6)),
    "a PDV of length 1": (p_data(pdv(1, 3, b"", 1)), abort(2, 6)),
    "a PDV past its PDU": (p_data(pdv(1, 3, b"ab", 100)), abort(2, 6)),
    "a PDV of 2 GiB": (p_data(pdv(1, 3, b"ab", 0x80000000)), abort(2, 6)),
    "a PDU over the maximum": (struct.pack(">BxI", 4, 131_072 + 65), abort(2, 6)),
    "an unknown context": (p_data(pdv(99, 3, ECHO)), abort(2, 6)),
    "data where a command is due": (p_data(pdv(1, 2, b"ab")), abort(2, 5)),
    "a context that changes": (p_data(pdv(1, 1, ECHO[:20]), pdv(3, 3, ECHO[20:])), abort(2, 6)),
    "a command in a data set": (p_data(pdv(5, 3, store_command(b"1.2\0")), pdv(5, 3, ECHO)), abort(2, 5)),
    "a random command set": (p_data(pdv(1, 3, b"\xff" * 40)), ABORT_0_0),
    "a command without Command Field": (p_data(pdv(1, 3, command((0x110, us(1)), (0x800, us(0x101))))), ABORT_0_0),
    "a command without Message ID": (p_data(pdv(1, 3, command((0x100, us(0x30)), (0x800, us(0x101))))), ABORT_0_0),
    "a command set over 64 KiB": (p_data(pdv(1, 1, bytes(65_537))), ABORT_0_0),
}


@pytest.mark.parametrize(("data", "answer"), ESTABLISHED.values(), ids=ESTABLISHED)
async def test_on_an_association_each_breach_gets_its_abort(data: bytes, answer: bytes) -> None:
    async with serving() as (server, _):
        received = await say(server, associate() + data)
        assert received[:1] == b"\x02"
        (length,) = struct.unpack_from(">I", received, 2)
        assert received[6 + length :] == answer
        await check_echo(server)


async def test_a_stall_inside_a_message_is_ended() -> None:
    async with serving() as (server, stored):
        received = await say(
            server, associate() + p_data(pdv(5, 3, store_command(b"1.2\0"))) + p_data(pdv(5, 0, b"ab"))
        )
        assert received.endswith(ABORT_0_0)
        assert stored == []


def statuses(received: bytes) -> list[bytes]:
    """Return the Status (0000,0900) of each response in what was received."""
    mark = b"\0\0\0\x09\x02\0\0\0"
    return [received[at + 8 : at + 10] for at in range(len(received)) if received[at : at + 8] == mark]


@pytest.mark.parametrize(
    "uid", [b"../../x\0", b"/etc/passwd\0", b"..", b"1.2\0.3\0", b"1..2", b"1" * 66, b"1.a\0", b" "], ids=repr
)
async def test_a_store_with_a_path_for_a_uid_is_refused_and_the_association_lives(uid: bytes) -> None:
    async with serving() as (server, stored), await connect(server) as stream:
        data = bytes.fromhex("0800180002000000") + b"1\0"
        await stream.send(associate() + p_data(pdv(5, 3, store_command(uid))) + p_data(pdv(5, 2, data)))
        await stream.send(p_data(pdv(1, 3, ECHO)))
        received = b""
        with anyio.fail_after(5):
            while len(statuses(received)) < 2:
                received += await stream.receive()
        assert statuses(received) == [us(0x0117), us(0)]
        assert stored == []


async def test_a_peer_that_sends_on_after_our_abort_is_ignored_and_closed() -> None:
    async with serving() as (server, _), await connect(server) as stream:
        await stream.send(associate() + b"\xff" * 6)
        with anyio.fail_after(10):
            try:
                for _ in range(100):
                    await stream.send(bytes(1 << 20))
            except anyio.BrokenResourceError:
                pass
            await check_echo(server)
            await receive_all(stream)


async def test_half_open_connections_keep_nobody_out() -> None:
    async with serving(timeouts=asyncdicom.Timeouts(associate=30, abort=0.2)) as (server, _):
        held = [await connect(server) for _ in range(200)]
        for stream in held[::2]:
            await stream.send(b"\x01")
        await check_echo(server)
        for stream in held:
            await stream.aclose()


async def test_at_the_limit_an_association_is_rejected_at_once() -> None:
    async with serving(limits=asyncdicom.Limits(associations=1)) as (server, _):
        async with asyncdicom.connect(server.addresses[0], contexts=[sop.VERIFICATION]) as assoc:
            assert await say(server, associate()) == reject(2, 3, 2)
            await assoc.echo()
        await check_echo(server)


async def test_connections_that_come_and_go_leave_nothing_behind() -> None:
    async with serving() as (server, _):
        await check_echo(server)
        gc.collect()
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for number in range(300):
            stream = await connect(server)
            if number % 3 == 1:
                await stream.send(associate())
            elif number % 3 == 2:
                await stream.send(b"\x01\0")
            await stream.aclose()
        await check_echo(server)
        with anyio.fail_after(5):
            while server.associations or len(os.listdir("/proc/self/fd")) > descriptors:
                await anyio.lowlevel.checkpoint()
        assert threading.active_count() <= threads


async def test_a_flood_of_empty_fragments_stalls_nobody() -> None:
    async with (
        serving(timeouts=asyncdicom.Timeouts(associate=5, abort=0.2)) as (server, _),
        await connect(server) as stream,
    ):
        flood = p_data(pdv(1, 1, b"")) * 20_000
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                try:
                    await stream.send(associate() + flood * 5)
                except anyio.BrokenResourceError:
                    pass

            tasks.start_soon(send)
            for _ in range(20):
                await check_echo(server)
            tasks.cancel_scope.cancel()


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
        await ours.send(associate())
        assert (await ours.receive())[0] == 2
        await ours.send(before + p_data(*[piece] * 15_000))
        await ours.send_eof()
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1
    # A checkpoint for every 256 of them, and not many for all else.
    assert turns >= 58


async def test_a_peer_that_never_reads_is_ended_by_the_write_timeout() -> None:
    services = asyncdicom.Services()
    ended = anyio.Event()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"\x10\0\x10\0\0\0\x01\0" + bytes(65_536)
        finally:
            ended.set()

    timeouts = asyncdicom.Timeouts(write=0.3, abort=0.2)
    async with asyncdicom.Server(services, "SERVER@127.0.0.1:0", timeouts=timeouts, drain=0) as server:
        async with await connect(server) as stream:
            query = command(
                (2, b"1.2.840.10008.5.1.4.1.2.2.1\0"), (0x100, us(0x20)), (0x110, us(1)), (0x700, us(0)), (0x800, us(1))
            )
            await stream.send(associate() + p_data(pdv(3, 3, query)) + p_data(pdv(3, 2, b"")))
            with anyio.fail_after(10):
                await ended.wait()
            await check_echo(server)
