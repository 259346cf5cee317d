"""The adversary against a server of this process: in memory, over TCP and over TLS, on asyncio and trio."""

from __future__ import annotations

import logging
import re
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from anyio.abc import ByteStream

import asyncdicom
from asyncdicom import sop

from ..interop.conftest import Certificates
from .cases import ASSOCIATED, BEFORE, ESTABLISHED, PATHS, SILENT
from .stand import GONE, TRANSPORTS, Stand, receive, receive_all, standing
from .wire import (
    ABORT_0_0,
    ECHO,
    MAXIMUM,
    RELEASE,
    RELEASE_RESPONSE,
    REQUEST,
    abort,
    associate,
    cancel,
    command,
    element,
    find_command,
    item,
    message,
    p_data,
    pdv,
    reject,
    statuses,
    store_command,
    us,
)

pytestmark = pytest.mark.anyio

Answers = dict[str, bytes]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Run a test in memory, over TCP and over TLS."""
    return str(request.param)


def after_accept(received: bytes) -> bytes:
    """Return what follows the A-ASSOCIATE-AC."""
    assert received[:1] == b"\x02", received[:40]
    (length,) = struct.unpack_from(">I", received, 2)
    return received[6 + length :]


async def play(stand: Stand, cases: dict[str, bytes]) -> Answers:
    """Play all cases at once, while good clients echo; return what each got."""
    answers: Answers = {}

    async def one(name: str, data: bytes) -> None:
        answers[name] = await stand.say(data)

    async with anyio.create_task_group() as tasks:
        for name, data in cases.items():
            tasks.start_soon(one, name, data)
        for _ in range(5):
            await stand.check_echo()
    return answers


def check_log(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    """Look at what was logged: no tracebacks, no raw bytes; return how many lines each connection has."""
    lines = [record.getMessage() for record in caplog.records]
    assert not [record for record in caplog.records if record.exc_info]
    assert not [line for line in lines if not line.isprintable()]
    about = [re.match(r"(?:connection|association) (\d+)", line) for line in lines]
    return Counter(found[1] for found in about if found)


async def test_before_an_association_each_breach_gets_its_answer_and_one_line(
    transport: str, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asyncdicom")
    cases = {**{name: data for name, (data, _) in BEFORE.items()}, **SILENT}
    async with standing(transport, certificates) as stand:
        answers = await play(stand, cases)
        assert answers == {**{name: answer for name, (_, answer) in BEFORE.items()}, **dict.fromkeys(SILENT, b"")}
        assert not stand.server.associations
    lines = Counter(check_log(caplog).values())
    assert lines == {1: len(cases), 2: 5}  # the echoes are opened and released


async def test_on_an_association_each_breach_gets_its_abort(
    transport: str, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asyncdicom")
    async with standing(transport, certificates) as stand:
        answers = await play(stand, {name: REQUEST + data for name, (data, _) in ESTABLISHED.items()})
        found = {name: after_accept(received) for name, received in answers.items()}
        assert found == {name: answer for name, (_, answer) in ESTABLISHED.items()}
        assert stand.stored == []
    assert set(check_log(caplog).values()) == {2}


async def test_what_is_odd_and_allowed_is_accepted(transport: str, certificates: Certificates) -> None:
    async with standing(transport, certificates) as stand:
        for name, request in ASSOCIATED.items():
            assert statuses(await stand.converse(request + message(1, ECHO), 1)) == [0], name


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_whoever_leaves_at_any_moment_leaves_no_traceback(
    transport: str, certificates: Certificates, caplog: pytest.LogCaptureFixture, reset: bool
) -> None:
    caplog.set_level(logging.INFO, "asyncdicom")
    whole = REQUEST + message(1, ECHO) + message(5, store_command(b"1.2"), b"ab") + message(3, find_command(), b"")
    async with standing(transport, certificates) as stand:
        for cut in sorted({*range(0, len(whole), 37), len(REQUEST), len(whole)}):
            stream = await stand.connect()
            await stream.send(whole[:cut])
            await leave(stream, reset=reset)
        await stand.check_echo()
        with anyio.fail_after(30):
            while stand.server.associations or stand.ended < stand.begun:
                await stand.check_echo()
    check_log(caplog)


async def test_a_peer_that_just_closes_is_not_said_to_have_released(
    transport: str, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asyncdicom")
    async with standing(transport, certificates) as stand:
        async with await stand.connect() as stream:
            await stream.send(REQUEST)
            await receive(stream, 10)
        with anyio.fail_after(30):
            while " ended: " not in caplog.text:
                await stand.check_echo()
    (ended,) = [record.getMessage() for record in caplog.records if " ended: " in record.getMessage()]
    assert "closed the connection" in ended


async def leave(stream: ByteStream, *, reset: bool) -> None:
    """Close a connection, in order or by a reset."""
    raw = stream.extra(anyio.abc.SocketAttribute.raw_socket, None)
    if reset and raw is not None:
        raw.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: close by a reset
        await anyio.aclose_forcefully(stream)
    elif reset:
        await anyio.aclose_forcefully(stream)
    else:
        await stream.aclose()


async def test_a_request_a_byte_at_a_time_is_ended_at_artim(transport: str, certificates: Certificates) -> None:
    async with standing(transport, certificates) as stand, await stand.connect() as stream:
        sent = 0
        with anyio.fail_after(30):
            try:
                for byte in REQUEST * 100:
                    await stream.send(bytes([byte]))
                    sent += 1
                    with anyio.move_on_after(0.02):
                        assert await stream.receive() == ABORT_0_0
            except GONE:
                pass
        assert 0 < sent < len(REQUEST) * 100
        assert not stand.server.associations
        await stand.check_echo()


async def test_a_store_with_a_path_for_a_uid_is_refused_and_the_association_lives(
    transport: str, certificates: Certificates
) -> None:
    stores = b"".join(
        message(5, store_command(uid, number), element(0x00080018, uid)) for number, uid in enumerate(PATHS, 10)
    )
    async with standing(transport, certificates) as stand:
        received = await stand.converse(REQUEST + stores + message(1, ECHO), len(PATHS) + 1)
        assert statuses(received) == [0x0117] * len(PATHS) + [0]
        assert stand.stored == []


async def test_a_peer_that_sends_on_after_our_abort_is_ignored_and_closed(
    transport: str, certificates: Certificates
) -> None:
    async with standing(transport, certificates) as stand, await stand.connect() as stream:
        await stream.send(REQUEST + b"\xff" * 6)
        with anyio.fail_after(30):
            try:
                for _ in range(100):
                    await stream.send(bytes(1 << 20))
            except GONE:
                pass
            await stand.check_echo()
            await receive_all(stream)


async def test_at_the_limit_an_association_is_rejected_at_once(transport: str, certificates: Certificates) -> None:
    async with standing(transport, certificates, limits=asyncdicom.Limits(associations=1)) as stand:
        async with await stand.connect() as held:
            await held.send(REQUEST)
            await receive(held, 10)
            assert await stand.say(REQUEST) == reject(2, 3, 2)
            await held.send(message(1, ECHO))
            assert statuses(await receive(held, 80)) == [0]
        with anyio.fail_after(30):
            while stand.server.associations:
                await anyio.lowlevel.checkpoint()
        await stand.check_echo()


async def test_a_flood_of_empty_fragments_stalls_nobody(transport: str, certificates: Certificates) -> None:
    flood = p_data(pdv(1, 1, b"")) * 20_000
    async with standing(transport, certificates) as stand, await stand.connect() as stream:
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                try:
                    await stream.send(REQUEST + flood * 5)
                except GONE:
                    pass

            tasks.start_soon(send)
            for _ in range(10):
                await stand.check_echo()
            tasks.cancel_scope.cancel()


async def test_a_peer_that_never_reads_is_ended_by_the_write_timeout(
    transport: str, certificates: Certificates
) -> None:
    services = asyncdicom.Services()
    ended = anyio.Event()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        try:
            while True:
                yield element(0x00100010, bytes(65_536))
        finally:
            ended.set()

    async with standing(transport, certificates, services=services) as stand, await stand.connect() as stream:
        await stream.send(REQUEST + message(3, find_command(), b""))
        with anyio.fail_after(30):
            await ended.wait()
            while stand.server.associations:
                await stand.check_echo()


# Before our answer.

IDENTITY = MAXIMUM + item(0x58, struct.pack(">BBH", 2, 1, 5) + b"alice" + struct.pack(">H", 5) + b"wrong")


async def hangs(request: asyncdicom.AssociationRequest) -> None:
    await anyio.sleep_forever()


async def raises(request: asyncdicom.AssociationRequest) -> None:
    raise RuntimeError("the directory is down")


async def refuses(request: asyncdicom.AssociationRequest) -> None:
    raise asyncdicom.AssociationRejected(1, 2, 1)


@pytest.mark.parametrize(
    ("policy", "answer"),
    [(hangs, reject(1, 2, 1)), (raises, reject(1, 2, 1)), (refuses, reject(1, 2, 1))],
    ids=["hangs", "raises", "refuses"],
)
async def test_an_authenticator_that_fails_lets_nobody_in(
    transport: str, certificates: Certificates, caplog: pytest.LogCaptureFixture, policy: object, answer: bytes
) -> None:
    caplog.set_level(logging.DEBUG, "asyncdicom")
    services = asyncdicom.Services()
    services.on_associate(policy)  # type: ignore[type-var]
    async with standing(transport, certificates, services=services) as stand:
        assert await stand.say(associate(user=IDENTITY)) == answer
        assert not stand.server.associations
    assert "wrong" not in caplog.text
    assert "alice" not in caplog.text


@pytest.mark.parametrize("kind", [0, 6, 255])
async def test_a_user_identity_of_no_known_type_is_not_mistaken_for_another(
    transport: str, certificates: Certificates, kind: int
) -> None:
    services = asyncdicom.Services()
    seen: list[int] = []

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        assert request.user_identity is not None
        seen.append(request.user_identity.type)
        raise asyncdicom.AssociationRejected(1, 2, 1)

    async with standing(transport, certificates, services=services) as stand:
        identity = MAXIMUM + item(0x58, struct.pack(">BBH", kind, 0, 5) + b"alice" + bytes(2))
        assert await stand.say(associate(user=identity)) in (reject(1, 2, 1), ABORT_0_0)
    assert seen in ([kind], [])


@pytest.mark.parametrize("early", [REQUEST, message(1, ECHO), RELEASE], ids=["request", "data", "release"])
async def test_what_comes_before_our_answer_ends_the_question(
    transport: str, certificates: Certificates, early: bytes
) -> None:
    services = asyncdicom.Services()
    asked, closed = anyio.Event(), anyio.Event()

    @services.on_associate
    async def policy(request: asyncdicom.AssociationRequest) -> None:
        try:
            asked.set()
            await anyio.sleep_forever()
        finally:
            closed.set()

    timeouts = asyncdicom.Timeouts(associate=20, abort=1)
    async with standing(transport, certificates, services=services, timeouts=timeouts) as stand:
        async with await stand.connect() as stream:
            await stream.send(REQUEST)
            with anyio.fail_after(15):
                await asked.wait()
                await stream.send(early)
                assert await receive(stream, 10) == abort(2, 2)
                await closed.wait()


# Messages and services.


@pytest.mark.parametrize(
    "begun",
    [message(3, find_command(), b""), message(5, store_command(b"1.2")) + p_data(pdv(5, 0, b"ab"))],
    ids=["while we perform", "inside of a data set"],
)
async def test_a_release_in_the_middle_is_no_deadlock_and_nothing_follows_it(
    transport: str, certificates: Certificates, begun: bytes
) -> None:
    async with standing(transport, certificates) as stand:
        answer = after_accept(await stand.say(REQUEST + begun + RELEASE))
        assert answer in (RELEASE_RESPONSE, abort(2, 2), abort(2, 6), abort(2, 5), ABORT_0_0)
        assert stand.stored == []
        assert stand.ended == stand.begun
        await stand.check_echo()


async def test_cancels_for_nobody_eleven_of_them_and_with_a_data_set_flag_change_nothing(
    transport: str, certificates: Certificates
) -> None:
    cancels = b"".join(message(3, cancel(number)) for number in range(11))
    async with standing(transport, certificates) as stand:
        received = await stand.converse(REQUEST + cancels + message(1, ECHO) + cancels, 1)
        assert statuses(received) == [0]
        flagged = await stand.converse(REQUEST + message(3, cancel(1, 1)) + message(1, ECHO), 1)
        assert statuses(flagged) == [0]
        await stand.check_echo()


async def test_a_cancel_in_the_segment_of_its_request_is_not_lost(transport: str, certificates: Certificates) -> None:
    async with standing(transport, certificates) as stand, await stand.connect() as stream:
        await stream.send(REQUEST + message(3, find_command(9), b"") + message(3, cancel(9)) * 2)
        received = b""
        with anyio.fail_after(30):
            while 0xFE00 not in statuses(received):
                received += await stream.receive()
            await stream.send(message(1, ECHO))
            while len(statuses(received)) < 2:
                received += await stream.receive()
        assert statuses(received) == [0xFE00, 0]
        assert stand.ended == stand.begun


async def test_a_handler_that_returns_nonsense_costs_its_own_request_only(
    transport: str, certificates: Certificates
) -> None:
    services = asyncdicom.Services()
    nonsense: Iterator[object] = iter([[], "0000", None, -1, 1 << 20, asyncdicom.Status])

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[object]:
        one = next(nonsense)
        yield (one, one)

    async with standing(transport, certificates, services=services) as stand:
        queries = b"".join(message(3, find_command(number), b"") for number in range(1, 7))
        received = statuses(await stand.converse(REQUEST + queries, 6))
        assert len(received) == 6
        assert all(0xA000 <= status < 0xFE00 for status in received)


async def test_a_command_that_no_class_has_is_answered_and_the_association_lives(
    transport: str, certificates: Certificates
) -> None:
    odd = command((2, b"1.2.840.10008.1.1\0"), (0x100, us(0x0777)), (0x110, us(1)), (0x800, us(0x101)))
    async with standing(transport, certificates) as stand:
        received = await stand.converse(REQUEST + message(1, odd) + message(1, ECHO), 2)
        assert statuses(received) == [0x0211, 0]
