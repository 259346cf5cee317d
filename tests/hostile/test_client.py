"""A faulty SCP of raw bytes against our SCU, over TCP and over TLS, on asyncio and trio."""

from __future__ import annotations

import os
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.streams.tls import TLSListener

import asyncdicom
from asyncdicom import Instance, Timeouts, sop

from ..interop.conftest import Certificates
from .stand import GONE
from .wire import (
    ACCEPT,
    ECHO_RESPONSE,
    FIND_RESPONSE,
    RELEASE,
    RELEASE_RESPONSE,
    abort,
    accept,
    accepted,
    command,
    element,
    get_response,
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

#: What the client waits for the SCP; an honest answer takes a busy machine less.
TIMEOUTS = Timeouts(associate=1, message=1, response=1, retrieve=1, release=1, cancel=1, abort=0.5, write=1)
CONTEXTS = (sop.VERIFICATION, sop.STUDY_ROOT_FIND, sop.CT_IMAGE_STORAGE)


class Scp:
    """The raw side of one connection."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.received = b""
        self._taken = 0

    async def pdu(self) -> tuple[int, bytes]:
        """Receive a PDU; return its type and what follows its head."""
        head = await self._take(6)
        (length,) = struct.unpack_from(">I", head, 2)
        return head[0], await self._take(length)

    async def _take(self, size: int) -> bytes:
        while len(self.received) < self._taken + size:
            self.received += await self.stream.receive()
        self._taken += size
        return self.received[self._taken - size : self._taken]

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def rest(self) -> bytes:
        """Receive to the end."""
        try:
            while True:
                self.received += await self.stream.receive()
        except GONE:
            return self.received


Script = Callable[[Scp], Awaitable[None]]


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, certificates: Certificates) -> Certificates | None:
    """Run a test over TCP and over TLS."""
    return certificates if request.param == "tls" else None


@asynccontextmanager
async def faulty(script: Script, tls: Certificates | None) -> AsyncIterator[dict[str, Any]]:
    """Listen, and play a script to each who connects; gives the arguments of ``connect``.

    Afterwards the client holds no descriptor that it did not hold before.
    """
    before = len(os.listdir("/proc/self/fd"))
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    if tls is not None:
        listener = TLSListener(listener, tls.server, standard_compatible=False)

    async def serve(stream: ByteStream) -> None:
        async with stream:
            try:
                await script(Scp(stream))
            except (*GONE, ssl.SSLError):
                pass

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            yield {
                "address": f"SERVER@127.0.0.1:{port}",
                "ssl": None if tls is None else tls.client,
                "timeouts": TIMEOUTS,
                "contexts": CONTEXTS,
            }
            tasks.cancel_scope.cancel()
        await listener.aclose()
        while len(os.listdir("/proc/self/fd")) > before:
            await anyio.lowlevel.checkpoint()


# The association.

#: What answers an A-ASSOCIATE-RQ, and is no association.
ANSWERS = {
    "nothing": b"",
    "half an A-ASSOCIATE-AC": ACCEPT[:90],
    "a length of 0xFFFFFFFF": b"\x02\0\xff\xff\xff\xff",
    "an item past its parent": accept(b"\x21\0\xff\xff\1\0\0\0"),
    "a context of two bytes": accept(item(0x21, b"\1\0")),
    "a sub-item past its parent": accept(accepted(1), user=b"\x51\0\xff\xff\0\0"),
    "no context that was proposed": accept(accepted(99)),
    "all contexts rejected": accept(accepted(1, 3), accepted(3, 4), accepted(5, 1)),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an A-ASSOCIATE-RQ": b"\x01" + ACCEPT[1:],
    "a P-DATA-TF": message(1, ECHO_RESPONSE),
    "an A-RELEASE-RP": RELEASE_RESPONSE,
    "a rejection": reject(1, 1, 7),
    "a rejection of reserved values": reject(9, 99, 200),
    "an abort": abort(2, 6),
}


async def test_whatever_answers_the_request_ends_in_one_error_in_time(tls: Certificates | None) -> None:
    answer = b""

    async def script(scp: Scp) -> None:
        await scp.pdu()
        await scp.send(answer)
        await scp.rest()

    async with faulty(script, tls) as arguments:
        for answer in ANSWERS.values():  # noqa: B007 - the script reads it
            with pytest.raises(asyncdicom.DicomNetworkError):
                async with asyncdicom.connect(**arguments) as association:
                    await association.echo()


async def test_a_peer_that_closes_before_it_answers_is_one_error(tls: Certificates | None) -> None:
    async def script(scp: Scp) -> None:
        await scp.pdu()

    async with faulty(script, tls) as arguments:
        with pytest.raises((asyncdicom.AssociationClosed, asyncdicom.ConnectError)):
            await asyncdicom.connect(**arguments).__aenter__()


async def test_contexts_and_transfer_syntaxes_that_were_never_proposed_are_not_used(tls: Certificates | None) -> None:
    async def script(scp: Scp) -> None:
        await scp.pdu()
        await scp.send(accept(accepted(1), accepted(3, 0, b"1.2.3.4.5"), accepted(77)))
        await scp.rest()

    async with faulty(script, tls) as arguments:
        with pytest.raises((asyncdicom.NoPresentationContext, asyncdicom.RemoteProtocolError)):
            async with asyncdicom.connect(**arguments) as association:
                await association.find(PatientID="1").__anext__()


# Messages.


def answering(answer: bytes) -> Script:
    """Accept, answer the first message, and say no more; but confirm a release."""

    async def script(scp: Scp) -> None:
        await scp.pdu()
        await scp.send(ACCEPT)
        await scp.pdu()
        await scp.send(answer)
        while True:
            kind, _ = await scp.pdu()
            if kind == RELEASE[0]:
                await scp.send(RELEASE_RESPONSE)

    return script


_ECHO = (2, b"1.2.840.10008.1.1\0")
_NO_DATA = (0x800, us(0x101))

#: What answers a C-ECHO, and is no answer to it.
RESPONSES = {
    "nothing": b"",
    "a response to another message": message(
        1, command(_ECHO, (0x100, us(0x8030)), (0x120, us(999)), _NO_DATA, (0x900, us(0)))
    ),
    "a response of another type": message(3, FIND_RESPONSE, b""),
    "a response without Status": message(1, command(_ECHO, (0x100, us(0x8030)), (0x120, us(1)), _NO_DATA)),
    "a response without Message ID": message(1, command(_ECHO, (0x100, us(0x8030)), _NO_DATA, (0x900, us(0)))),
    "a response without Command Field": message(1, command(_ECHO, (0x120, us(1)), _NO_DATA, (0x900, us(0)))),
    "random bytes": message(1, b"\xff" * 40),
    "half a response": message(1, ECHO_RESPONSE)[:-10],
    "a data set that never comes": message(
        1, command(_ECHO, (0x100, us(0x8030)), (0x120, us(1)), (0x800, us(1)), (0x900, us(0)))
    ),
    "a PDV past its PDU": p_data(pdv(1, 3, ECHO_RESPONSE, 5000)),
    "a PDV of 2 GiB": p_data(pdv(1, 3, ECHO_RESPONSE, 0x80000000)),
    "another context": message(99, ECHO_RESPONSE),
    "an A-ASSOCIATE-AC": ACCEPT,
    "an unknown PDU": b"\xff\0\0\0\0\x04abcd",
    "a release": RELEASE,
    "an abort": abort(0, 0),
}


@pytest.mark.parametrize("answer", RESPONSES.values(), ids=RESPONSES)
async def test_whatever_answers_an_echo_ends_in_one_error_in_time(tls: Certificates | None, answer: bytes) -> None:
    async with faulty(answering(answer), tls) as arguments:
        with pytest.raises(asyncdicom.DicomNetworkError):
            async with asyncdicom.connect(**arguments) as association:
                await association.echo()


async def test_a_failure_status_with_control_characters_is_shown_without_them(tls: Certificates | None) -> None:
    comment = (0x902, b"\x1b[2J\r\nowned\0 ")
    failed = command(_ECHO, (0x100, us(0x8030)), (0x120, us(1)), _NO_DATA, (0x900, us(0x0110)), comment)
    async with faulty(answering(message(1, failed)), tls) as arguments:
        async with asyncdicom.connect(**arguments) as association:
            with pytest.raises(asyncdicom.StatusError) as caught:
                await association.echo()
    assert str(caught.value).isprintable()


def endless(*, answer: bytes | None) -> Script:
    """Send pending C-FIND responses for ever; answer a C-CANCEL with these bytes, or not at all."""
    pending = message(3, FIND_RESPONSE, element(0x00100020, b"1")) * 100

    async def script(scp: Scp) -> None:
        await scp.pdu()
        await scp.send(ACCEPT)
        await scp.pdu()
        await scp.pdu()
        async with anyio.create_task_group() as tasks:

            async def flood() -> None:
                while True:
                    await scp.send(pending)

            tasks.start_soon(flood)
            await scp.pdu()  # the C-CANCEL
            if answer is not None:
                tasks.cancel_scope.cancel()
            else:
                await scp.rest()
        if answer is None:
            return
        await scp.send(answer)
        if answer:
            await scp.pdu()
            await scp.send(RELEASE_RESPONSE)

    return script


async def first_matches(arguments: dict[str, Any], found: list[str]) -> None:
    """Take three matches, and use the association once more."""
    async with asyncdicom.connect(**arguments) as association:
        async for match in association.find(PatientID="", limit=3):
            found.append(match.PatientID)
        await association.echo()


async def test_matches_without_end_are_left_at_the_limit(tls: Certificates | None) -> None:
    # The flood is cancelled between two of its sends, so the C-CANCEL is answered by a close here.
    async with faulty(endless(answer=b""), tls) as arguments:
        found: list[str] = []
        with pytest.raises(asyncdicom.AssociationError):
            await first_matches(arguments, found)
    assert found == ["1"] * 3


async def test_a_cancel_that_nobody_heeds_ends_in_an_abort(tls: Certificates | None) -> None:
    async with faulty(endless(answer=None), tls) as arguments:
        with pytest.raises(asyncdicom.DicomNetworkError):
            await first_matches(arguments, [])


# Sub-operations of a C-GET.


@pytest.mark.parametrize("uid", [b"../../x", b"/etc/passwd", b"1" * 65, b"1.2\0.3"], ids=repr)
async def test_an_instance_with_a_path_for_a_uid_never_reaches_the_loop(tls: Certificates | None, uid: bytes) -> None:
    answers: list[int] = []

    async def script(scp: Scp) -> None:
        await scp.pdu()
        await scp.send(accept(accepted(1), accepted(3)))
        await scp.pdu()
        await scp.pdu()
        await scp.send(message(3, store_command(uid), element(0x00080018, uid)))
        answers.extend(statuses((await scp.pdu())[1]))
        await scp.send(message(1, get_response(0xB000, completed=0, failed=1)))
        await scp.pdu()
        await scp.send(RELEASE_RESPONSE)

    contexts = [
        sop.STUDY_ROOT_GET,
        asyncdicom.PresentationContext(
            abstract_syntax=sop.CT_IMAGE_STORAGE,
            transfer_syntaxes=(sop.IMPLICIT_VR_LITTLE_ENDIAN,),
            scu_role=True,
            scp_role=True,
        ),
    ]
    async with faulty(script, tls) as arguments:
        async with asyncdicom.connect(**{**arguments, "contexts": contexts}) as association:
            assert [instance async for instance in association.get(StudyInstanceUID="1.2")] == []
    assert answers == [0x0117]


# Sending.


async def test_a_peer_that_stops_reading_in_the_middle_of_our_data_set_is_left(tls: Certificates | None) -> None:
    async def script(scp: Scp) -> None:
        await scp.pdu()
        await scp.send(ACCEPT)
        await scp.pdu()
        await anyio.sleep_forever()

    async with faulty(script, tls) as arguments:
        large = Instance.from_bytes(bytes(64 << 20), sop.CT_IMAGE_STORAGE, "1.2.3", sop.IMPLICIT_VR_LITTLE_ENDIAN)
        with pytest.raises(asyncdicom.DicomNetworkError):
            async with asyncdicom.connect(**arguments) as association:
                await association.store(large)


@pytest.mark.parametrize("last", [RELEASE, abort(0, 0), b""], ids=["release", "abort", "close"])
async def test_an_idle_association_that_the_peer_ends_is_ended_for_the_next_call(
    tls: Certificates | None, last: bytes
) -> None:
    async def script(scp: Scp) -> None:
        await scp.pdu()
        await scp.send(ACCEPT + last)
        if last == RELEASE:
            await scp.pdu()

    async def use(arguments: dict[str, Any]) -> None:
        async with asyncdicom.connect(**arguments) as association:
            await association.wait_closed()
            await association.echo()

    async with faulty(script, tls) as arguments:
        with pytest.raises(asyncdicom.AssociationError):
            await use(arguments)


async def test_whoever_is_cancelled_at_any_answer_leaves_no_socket(tls: Certificates | None) -> None:
    for answer in (b"", ACCEPT[:50], ACCEPT, ACCEPT + message(1, ECHO_RESPONSE)[:20]):
        waiting = anyio.Event()

        async def script(scp: Scp, answer: bytes = answer, waiting: anyio.Event = waiting) -> None:
            await scp.pdu()
            await scp.send(answer)
            waiting.set()
            await scp.rest()

        async with faulty(script, tls) as arguments, anyio.create_task_group() as tasks:

            async def use(arguments: dict[str, Any] = arguments) -> None:
                async with asyncdicom.connect(**arguments) as association:
                    await association.echo()

            tasks.start_soon(use)
            await waiting.wait()
            tasks.cancel_scope.cancel()
