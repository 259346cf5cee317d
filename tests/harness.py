"""What the tests of associations share: a client against a scripted peer, and a scripted peer against a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from struct import pack
from typing import Any

import anyio
from anyio.abc import ByteStream

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import MemoryStream, Received, ScriptedPeer, memory_stream_pair

#: The contexts that clients of these tests propose, with their IDs 1, 3, 5 ...
CONTEXTS = (
    sop.VERIFICATION,
    sop.STUDY_ROOT_FIND,
    sop.STUDY_ROOT_GET,
    sop.STUDY_ROOT_MOVE,
    sop.CT_IMAGE_STORAGE,
    sop.MODALITY_PERFORMED_PROCEDURE_STEP,
)
VERIFICATION_ID, FIND_ID, GET_ID, MOVE_ID, CT_ID, MPPS_ID = range(1, 12, 2)

#: Command Fields (PS3.7 E.1).
C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF
C_STORE_RSP, C_GET_RSP, C_FIND_RSP, C_MOVE_RSP, C_ECHO_RSP = 0x8001, 0x8010, 0x8020, 0x8021, 0x8030

#: Longest that any of these tests may wait for anything, in seconds.
PATIENCE = 60.0

Script = Callable[[ScriptedPeer], Awaitable[None]]


def element(group: int, number: int, vr: str, value: bytes) -> bytes:
    """Encode one short element in Explicit VR Little Endian."""
    return pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def identifier(patient_id: str = "1") -> bytes:
    """Encode an identifier with a Patient ID."""
    value = patient_id.encode()
    return element(0x0010, 0x0020, "LO", value + b" " * (len(value) % 2))


def counters(remaining: int, completed: int, failed: int = 0, warning: int = 0) -> dict[int, int | str | bytes]:
    """The sub-operation counters of a response."""
    return {0x00001020: remaining, 0x00001021: completed, 0x00001022: failed, 0x00001023: warning}


def store_elements(message_id: int, uid: str = "1.2.3.4") -> dict[int, int | str | bytes]:
    """The command set of a C-STORE-RQ for a CT image."""
    return {
        0x00000002: sop.CT_IMAGE_STORAGE,
        0x00000100: C_STORE_RQ,
        0x00000110: message_id,
        0x00000700: 0,
        0x00001000: uid,
    }


def request_elements(command_field: int, message_id: int, sop_class: str) -> dict[int, int | str | bytes]:
    """The command set of a composite request but C-STORE."""
    elements: dict[int, int | str | bytes] = {
        0x00000002: sop_class,
        0x00000100: command_field,
        0x00000110: message_id,
    }
    if command_field != C_ECHO_RQ:
        elements[0x00000700] = 0
    return elements


def cancel_pdus(context_id: int, message_id: int) -> bytes:
    """Return a C-CANCEL-RQ (PS3.7 9.3.2.3)."""
    return ScriptedPeer.message(context_id, {0x00000100: C_CANCEL_RQ, 0x00000120: message_id})


def ct_bytes(size: int = 1000, uid: str = "1.2.3.4") -> bytes:
    """Encode a CT image of about ``size`` bytes, in Explicit VR Little Endian."""
    sop_class = sop.CT_IMAGE_STORAGE.encode()
    head = element(0x0008, 0x0016, "UI", sop_class + b"\0" * (len(sop_class) % 2))
    head += element(0x0008, 0x0018, "UI", uid.encode() + b"\0" * (len(uid) % 2))
    size += size % 2
    return head + pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size) + bytes(size)


def ct_instance(size: int = 1000, uid: str = "1.2.3.4") -> asyncdicom.Instance:
    """A CT image in memory."""
    return asyncdicom.Instance.from_bytes(ct_bytes(size, uid), sop.CT_IMAGE_STORAGE, uid, sop.EXPLICIT_VR_LITTLE_ENDIAN)


@asynccontextmanager
async def scripted(
    script: Script,
    *,
    contexts: Iterable[Any] = CONTEXTS,
    accept: dict[str, Any] | None = None,
    wrap: Callable[[MemoryStream], ByteStream] | None = None,
    max_buffer: int = 262_144,
    **options: Any,
) -> AsyncIterator[asyncdicom.Association]:
    """Associate with a peer that plays ``script``; both must come to their end.

    :param accept: how the peer accepts, see :meth:`ScriptedPeer.accept`.
    :param wrap: makes the client's stream.
    :param options: of :func:`asyncdicom.connect`.
    """
    ours, theirs = memory_stream_pair(max_buffer)
    peer = ScriptedPeer(theirs)

    async def play() -> None:
        await peer.accept(**(accept or {}))
        await script(peer)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play)
            stream: ByteStream = ours if wrap is None else wrap(ours)
            async with asyncdicom.connect("PEER@memory:0", contexts=contexts, stream=stream, **options) as association:
                yield association


@asynccontextmanager
async def served(
    services: asyncdicom.Services,
    *contexts: Any,
    associate: dict[str, Any] | None = None,
    wrap: Callable[[MemoryStream], ByteStream] | None = None,
    max_buffer: int = 262_144,
    **options: Any,
) -> AsyncIterator[ScriptedPeer]:
    """Associate with a server as a scripted peer.

    :param contexts: what the peer proposes; :data:`CONTEXTS` unless any are named.
    :param wrap: makes the server's stream.
    :param options: of :class:`asyncdicom.Server`.
    """
    ours, theirs = memory_stream_pair(max_buffer)
    server = asyncdicom.Server(services, "ASYNCDICOM@memory:0", **options)
    peer = ScriptedPeer(ours)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve_stream, theirs if wrap is None else wrap(theirs))
            await peer.associate(*(contexts or CONTEXTS), **(associate or {}))
            yield peer
            await peer.aclose()


@asynccontextmanager
async def served_over_tcp(
    services: asyncdicom.Services,
    *contexts: Any,
    associate: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[ScriptedPeer]:
    """Associate with a server as a scripted peer, over a real connection."""
    with anyio.fail_after(PATIENCE):
        async with asyncdicom.Server(services, "ASYNCDICOM@127.0.0.1:0", drain=0, **options) as server:
            address = server.addresses[0]
            stream = await anyio.connect_tcp(address.host, address.port)
            async with stream:
                peer = ScriptedPeer(stream)
                await peer.associate(*(contexts or CONTEXTS), **(associate or {}))
                yield peer


async def drained(peer: ScriptedPeer) -> None:
    """Wait until the other side has read all that the peer sent, and waits for more."""
    assert isinstance(peer.stream, MemoryStream)
    await peer.stream.wait_drained()


async def expect_abort(peer: ScriptedPeer) -> tuple[int, int]:
    """Receive an A-ABORT after which nothing comes; return its source and reason."""
    aborted = await peer.expect_abort()
    await peer.aclose()
    return aborted


async def finish(peer: ScriptedPeer) -> None:
    """Answer an echo, which shows that the association works, and let the peer release."""
    await peer.answer_echo()
    await peer.confirm_release()


async def final(peer: ScriptedPeer, command_field: int) -> tuple[list[Received], Received]:
    """Receive responses up to the final one; return the pending ones, and that."""
    pending: list[Received] = []
    while True:
        received = await peer.expect_message(command_field)
        if received.status not in (0xFF00, 0xFF01):
            return pending, received
        pending.append(received)
