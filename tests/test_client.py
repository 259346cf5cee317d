"""Connecting and associating: what is proposed, and everything that can come back, or does not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncdicom
from asyncdicom import sop
from asyncdicom.protocol import pdu
from asyncdicom.testing import (
    RELEASE_RQ,
    MemoryStream,
    ScriptedPeer,
    abort_pdu,
    memory_stream_pair,
    reject_pdu,
)

from .harness import CONTEXTS, PATIENCE, Script, ct_instance, expect_abort, finish, identifier, scripted

pytestmark = pytest.mark.anyio


async def associate(stream: MemoryStream, **options: Any) -> None:
    """Associate, and leave at once."""
    async with asyncdicom.connect("PEER@memory:0", stream=stream, **{"contexts": CONTEXTS, **options}):
        pass


async def _play(script: Script, peer: ScriptedPeer) -> None:
    await script(peer)


@asynccontextmanager
async def against(script: Script) -> AsyncIterator[MemoryStream]:
    """Give a stream whose other end plays a script before anything was accepted."""
    ours, theirs = memory_stream_pair()
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_play, script, ScriptedPeer(theirs))
            yield ours
    assert ours.closed


async def proposal(**options: Any) -> pdu.AssociateRQ:
    """Return what is proposed."""
    seen: list[pdu.AssociateRQ] = []

    async def script(peer: ScriptedPeer) -> None:
        received = await peer.expect(1)
        request = pdu.decode(1, received[6:])
        assert isinstance(request, pdu.AssociateRQ)
        seen.append(request)
        await peer.send(reject_pdu(1, 1, 1))

    async with against(script) as stream:
        with pytest.raises(asyncdicom.AssociationRejected):
            await associate(stream, **options)
    return seen[0]


# What is proposed.


async def test_by_default_verification_query_retrieve_and_common_storage_are_proposed() -> None:
    request = await proposal(contexts=None)
    proposed = [context.abstract_syntax for context in request.presentation_contexts]
    assert proposed[0] == sop.VERIFICATION
    assert {*sop.FIND, *sop.STORAGE_COMMON} < set(proposed)
    assert len(proposed) == len(set(proposed)) <= 128
    assert [context.context_id for context in request.presentation_contexts] == list(range(1, 2 * len(proposed), 2))
    assert {context.transfer_syntaxes for context in request.presentation_contexts} == {
        (sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.IMPLICIT_VR_LITTLE_ENDIAN)
    }
    roles = {role.sop_class_uid: (role.scu, role.scp) for role in request.user_information.roles}
    assert roles == dict.fromkeys(sop.STORAGE_COMMON, (True, True))


async def test_the_request_says_who_calls_whom_and_what_we_are() -> None:
    request = await proposal(calling="  ME ", maximum_length=65_536)
    assert (request.calling_ae_title, request.called_ae_title) == ("ME", "PEER")
    assert request.application_context == "1.2.840.10008.3.1.1.1"
    information = request.user_information
    assert information.maximum_length == 65_536
    assert information.implementation_class_uid == sop.IMPLEMENTATION_CLASS_UID
    assert information.implementation_version_name == sop.IMPLEMENTATION_VERSION_NAME
    assert len(information.implementation_version_name) <= 16
    assert information.async_operations is None
    assert information.user_identity is None
    assert (await proposal()).calling_ae_title == "ASYNCDICOM"


async def test_contexts_are_classes_uids_or_whole_contexts_and_roles_follow_from_get() -> None:
    own = asyncdicom.PresentationContext(
        abstract_syntax=sop.MR_IMAGE_STORAGE, transfer_syntaxes=(sop.JPEG_BASELINE_8BIT,), scu_role=True, scp_role=False
    )
    request = await proposal(contexts=["1.2.3", sop.CT_IMAGE_STORAGE, own, sop.STUDY_ROOT_GET])
    assert [context.abstract_syntax for context in request.presentation_contexts] == [
        "1.2.3",
        sop.CT_IMAGE_STORAGE,
        sop.MR_IMAGE_STORAGE,
        sop.STUDY_ROOT_GET,
    ]
    assert request.presentation_contexts[2].transfer_syntaxes == (sop.JPEG_BASELINE_8BIT,)
    roles = {role.sop_class_uid: (role.scu, role.scp) for role in request.user_information.roles}
    assert roles == {sop.CT_IMAGE_STORAGE: (True, True), sop.MR_IMAGE_STORAGE: (True, False)}
    assert (await proposal(contexts=[sop.CT_IMAGE_STORAGE])).user_information.roles == ()


async def test_what_else_is_asked_for_is_on_the_wire() -> None:
    identity = asyncdicom.UserIdentity.password("alice", "secret")
    assert "alice" not in repr(identity)
    assert "secret" not in repr(identity)
    request = await proposal(
        async_operations=(5, 0),
        user_identity=identity,
        extended_negotiation={sop.STUDY_ROOT_FIND: b"\x01\x00"},
    )
    information = request.user_information
    assert information.async_operations == pdu.AsyncOperationsWindow(invoked=5, performed=0)
    assert information.user_identity is not None
    assert (information.user_identity.type, information.user_identity.primary) == (2, b"alice")
    assert information.user_identity.secondary == b"secret"
    (extended,) = information.extended_negotiation
    assert (extended.sop_class_uid, extended.information) == (sop.STUDY_ROOT_FIND, b"\x01\x00")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"contexts": []}, asyncdicom.LocalProtocolError),
        ({"contexts": [f"1.2.{n}" for n in range(129)]}, asyncdicom.LocalProtocolError),
        ({"calling": ""}, ValueError),
        ({"calling": "SEVENTEEN LETTERS"}, ValueError),
        ({"calling": "BACK\\SLASH"}, ValueError),
        ({"async_operations": (-1, 1)}, asyncdicom.LocalProtocolError),
        ({"async_operations": (1, 70_000)}, asyncdicom.LocalProtocolError),
        ({"maximum_length": 3}, asyncdicom.LocalProtocolError),
        ({"maximum_length": 1 << 32}, asyncdicom.LocalProtocolError),
    ],
)
def test_a_proposal_against_the_standard_is_refused_before_a_connection_is_made(options: Any, error: Any) -> None:
    with pytest.raises(error):
        asyncdicom.connect("PEER@memory:0", **{"contexts": CONTEXTS, **options})


@pytest.mark.parametrize("address", ["PEER", "@host:104", "PEER@host", "PEER@host:port", "PEER@::1:104", "A\\B@h:1"])
def test_an_address_that_is_none_is_a_value_error(address: str) -> None:
    with pytest.raises(ValueError, match=r"address|AE title"):
        asyncdicom.connect(address)


async def test_a_connection_is_made_once() -> None:
    ours, theirs = memory_stream_pair()
    peer = ScriptedPeer(theirs)
    connection = asyncdicom.connect("PEER@memory:0", contexts=CONTEXTS, stream=ours)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.accept)
        association = await connection.__aenter__()
    with pytest.raises(asyncdicom.LocalProtocolError, match="once"):
        await connection.__aenter__()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.confirm_release)
        await connection.__aexit__(None, None, None)
    assert association.ended


# No connection.


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (lambda tmp: f"PEER@127.0.0.1:{free_port()}", "refused"),
        (lambda tmp: asyncdicom.Address("PEER", str(tmp / "no socket".replace(" ", "_")), 0), "no such file"),
        (lambda tmp: f"PEER@{'x' * 70}.invalid:104", "cannot connect"),
    ],
    ids=["refused", "no UNIX socket", "no host name"],
)
async def test_without_a_connection_the_error_says_why(
    address: Callable[[Path], Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(asyncdicom.ConnectError, match=reason) as caught:
        async with asyncdicom.connect(address(tmp_path), contexts=CONTEXTS):
            raise AssertionError
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, asyncdicom.DicomNetworkError)


async def test_a_host_that_does_not_answer_is_given_up() -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            address = asyncdicom.Address("PEER", "127.0.0.1", listener.getsockname()[1])
            with pytest.raises(asyncdicom.OperationTimeout) as caught:
                async with asyncdicom.connect(
                    address, contexts=CONTEXTS, timeouts=asyncdicom.Timeouts(connect=0.1, associate=0.1)
                ):
                    raise AssertionError
            # The kernel may still take the connection; nobody answers then.
            assert caught.value.kind in ("connect", "associate")
        finally:
            for filler in fillers:
                filler.close()


# No association.


@pytest.mark.parametrize(
    ("result", "source", "reason", "text"),
    [
        (1, 1, 1, "permanently: no reason given"),
        (1, 1, 2, "application context name not supported"),
        (1, 1, 3, "calling AE title not recognized"),
        (1, 1, 7, "called AE title not recognized"),
        (1, 2, 1, "no reason given"),
        (1, 2, 2, "protocol version not supported"),
        (2, 3, 1, "transiently: temporary congestion"),
        (2, 3, 2, "local limit exceeded"),
        (9, 9, 9, "reason unknown"),
    ],
)
async def test_a_rejection_has_its_three_numbers(result: int, source: int, reason: int, text: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(1)
        await peer.send(reject_pdu(result, source, reason))

    async with against(script) as stream:
        with pytest.raises(asyncdicom.AssociationRejected, match=text) as caught:
            await associate(stream)
    assert (caught.value.result, caught.value.source, caught.value.reason) == (result, source, reason)


@pytest.mark.parametrize(("source", "reason"), [(0, 0), (2, 0), (2, 1), (2, 6)])
async def test_an_abort_before_the_answer_has_its_source_and_reason(source: int, reason: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(1)
        await peer.send(abort_pdu(source, reason))

    async with against(script) as stream:
        with pytest.raises(asyncdicom.AssociationAborted) as caught:
            await associate(stream)
    assert (caught.value.source, caught.value.reason) == (source, reason)


@pytest.mark.parametrize("part", [0, 1, 5, 6, 50])
async def test_a_connection_that_closes_before_the_answer_is_whole(part: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(1)
        await peer.send(bytes.fromhex("020000000100") + bytes(44) if part > 6 else bytes.fromhex("020000000100")[:part])
        await peer.aclose()

    async with against(script) as stream:
        with pytest.raises(asyncdicom.AssociationClosed, match="before it answered"):
            await associate(stream)


async def test_a_connection_that_is_reset_before_the_answer_keeps_the_cause() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(1)
        assert isinstance(peer.stream, MemoryStream)
        peer.stream.reset()

    async with against(script) as stream:
        with pytest.raises(asyncdicom.AssociationClosed) as caught:
            await associate(stream)
    assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)


@pytest.mark.parametrize("drip", [b"", b"\x02\0\0"], ids=["silence", "a few bytes"])
async def test_a_peer_that_does_not_answer_is_aborted(drip: bytes) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(1)
        await peer.send(drip)
        assert await expect_abort(peer) == (0, 0)

    async with against(script) as stream:
        with pytest.raises(asyncdicom.OperationTimeout, match="associate") as caught:
            await associate(stream, timeouts=asyncdicom.Timeouts(associate=0.05))
    assert caught.value.kind == "associate"


async def test_a_peer_that_drips_its_answer_byte_by_byte_for_ever_is_aborted() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(1)
        await peer.send(bytes.fromhex("020000010000"))
        with pytest.raises(anyio.BrokenResourceError):  # noqa: PT012
            while True:
                await peer.send(b"\0")
                await anyio.sleep(0.005)

    async with against(script) as stream:
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await associate(stream, timeouts=asyncdicom.Timeouts(associate=0.1))
    assert caught.value.kind == "associate"


async def test_a_peer_that_does_not_read_our_request_is_given_up() -> None:
    ours, _theirs = memory_stream_pair(10)
    with anyio.fail_after(PATIENCE), pytest.raises(asyncdicom.OperationTimeout) as caught:
        await associate(ours, timeouts=asyncdicom.Timeouts(associate=0.05))
    assert caught.value.kind == "associate"
    assert ours.closed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("02 00 ff ff ff ff", 6),
        ("02 00 00 00 00 04 00 01 00 00", 6),
        ("03 00 00 00 00 05 00 01 01 01 00", 6),
        ("03 00 00 00 00 00", 6),
        ("ff 00 00 00 00 04 00 00 00 00", 1),
        ("00 00 00 00 00 04 00 00 00 00", 1),
        ("48 54 54 50 2f 31 2e 31 20 34 30 30", 1),
        ("05 00 00 00 00 04 00 00 00 00", 2),
        ("06 00 00 00 00 04 00 00 00 00", 2),
        ("04 00 00 00 00 06 00 00 00 02 01 03", 2),
    ],
)
async def test_an_answer_that_is_none_is_answered_by_an_abort(answer: str, reason: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(1)
        await peer.send(bytes.fromhex(answer))
        source, given = await peer.expect_abort()
        # A length over the limit is refused at the header, with whatever reason.
        assert source == 2
        assert given == reason or "ff ff ff ff" in answer
        await peer.aclose()

    async with against(script) as stream:
        with pytest.raises(asyncdicom.RemoteProtocolError):
            await associate(stream)


def accept_pdu(request: pdu.AssociateRQ, **changes: Any) -> bytes:
    """Encode an A-ASSOCIATE-AC that accepts all that was proposed, but for ``changes``."""
    values: dict[str, Any] = {
        "called_ae_title": request.called_ae_title,
        "calling_ae_title": request.calling_ae_title,
        "application_context": request.application_context,
        "presentation_contexts": tuple(
            pdu.PresentationContextAC(
                context_id=context.context_id, result=0, transfer_syntax=context.transfer_syntaxes[0]
            )
            for context in request.presentation_contexts
        ),
        "user_information": pdu.UserInformation(maximum_length=16_384, implementation_class_uid="1.2"),
    }
    return pdu.encode(pdu.AssociateAC(**{**values, **changes}))


def answering(make: Callable[[pdu.AssociateRQ], bytes], then: Script = finish) -> Script:
    async def script(peer: ScriptedPeer) -> None:
        received = await peer.expect(1)
        request = pdu.decode(1, received[6:])
        assert isinstance(request, pdu.AssociateRQ)
        await peer.send(make(request))
        await then(peer)

    return script


def length_fields(accept: bytes | bytearray) -> list[int]:
    """Return where the lengths of the items of an A-ASSOCIATE-AC are, and of the sub-items in them."""
    found = []
    position = 74
    while position < len(accept):
        length = int.from_bytes(accept[position + 2 : position + 4], "big")
        found.append(position + 2)
        inner = position + {0x21: 8, 0x50: 4}.get(accept[position], length + 4)
        while inner < position + 4 + length:
            found.append(inner + 2)
            inner += 4 + int.from_bytes(accept[inner + 2 : inner + 4], "big")
        position += 4 + length
    return found


#: An application context, six contexts with a transfer syntax each, user information with two sub-items.
FIELDS = 1 + 2 * len(CONTEXTS) + 3


@pytest.mark.parametrize("number", range(FIELDS))
async def test_absurd_lengths_in_an_accept_are_answered_by_an_abort(number: int) -> None:
    def make(request: pdu.AssociateRQ) -> bytes:
        whole = bytearray(accept_pdu(request))
        fields = length_fields(whole)
        assert len(fields) == FIELDS
        whole[fields[number] : fields[number] + 2] = b"\xff\xff"
        return bytes(whole)

    async def then(peer: ScriptedPeer) -> None:
        assert (await peer.expect_abort())[0] == 2
        await peer.aclose()

    async with against(answering(make, then)) as stream:
        with pytest.raises(asyncdicom.RemoteProtocolError):
            await associate(stream)


def context(context_id: int, syntax: str | None = None, result: int = 0) -> pdu.PresentationContextAC:
    return pdu.PresentationContextAC(context_id=context_id, result=result, transfer_syntax=syntax)


EXPLICIT = str(sop.EXPLICIT_VR_LITTLE_ENDIAN)


async def test_contexts_and_transfer_syntaxes_that_were_never_proposed_count_as_refused() -> None:
    contexts = (context(1, EXPLICIT), context(3, str(sop.JPEG_BASELINE_8BIT)), context(99, EXPLICIT))
    script = answering(lambda request: accept_pdu(request, presentation_contexts=contexts))
    async with against(script) as stream:
        async with asyncdicom.connect("PEER@memory:0", contexts=CONTEXTS, stream=stream) as assoc:
            assert [accepted.context_id for accepted in assoc.accepted_contexts] == [1]
            with pytest.raises(asyncdicom.NoPresentationContext):
                await anext(assoc.find(identifier()))
            with pytest.raises(asyncdicom.NoPresentationContext):
                await assoc.store(ct_instance())
            assert (await assoc.echo()).status == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"called_ae_title": "SOMEBODY", "calling_ae_title": "ELSE"},
        {"called_ae_title": "", "calling_ae_title": ""},
        {"presentation_contexts": (context(1, EXPLICIT), context(3, None, 3), context(5, "", 4))},
        {"user_information": pdu.UserInformation()},
        {"user_information": pdu.UserInformation(maximum_length=0)},
        {"user_information": pdu.UserInformation(maximum_length=1 << 31, implementation_version_name="x" * 16)},
        {"application_context": None},
    ],
    ids=["other titles", "no titles", "refused without syntax", "no user information", "0", "2 GiB", "no context name"],
)
async def test_an_accept_that_is_odd_will_do(changes: dict[str, Any]) -> None:
    async with against(answering(lambda request: accept_pdu(request, **changes))) as stream:
        async with asyncdicom.connect("PEER@memory:0", contexts=CONTEXTS, stream=stream) as assoc:
            assert (await assoc.echo()).status == 0


async def test_an_accept_without_any_context_is_an_association_without_use() -> None:
    script = answering(lambda request: accept_pdu(request, presentation_contexts=()), ScriptedPeer.confirm_release)
    async with against(script) as stream:
        async with asyncdicom.connect("PEER@memory:0", contexts=CONTEXTS, stream=stream) as assoc:
            assert assoc.accepted_contexts == ()
            with pytest.raises(asyncdicom.NoPresentationContext):
                await assoc.echo()


@pytest.mark.parametrize("split", [1, 7, 100])
async def test_an_accept_may_come_in_pieces(split: int) -> None:
    from asyncdicom.testing import FaultyStream

    async with scripted(finish, wrap=lambda stream: FaultyStream(stream, split=split)) as assoc:
        assert (await assoc.echo()).status == 0


@pytest.mark.parametrize(
    ("behind", "error"),
    [
        (abort_pdu(2, 0), asyncdicom.AssociationAborted),
        (RELEASE_RQ, asyncdicom.AssociationClosed),
        (b"\xff" * 20, asyncdicom.RemoteProtocolError),
    ],
    ids=["abort", "release", "garbage"],
)
async def test_what_comes_right_behind_the_accept_is_seen_by_the_first_verb(
    behind: bytes, error: type[Exception]
) -> None:
    async def then(peer: ScriptedPeer) -> None:
        assert all(received[0] in (4, 6, 7) for received in await peer.read_to_end())

    async with against(answering(lambda request: accept_pdu(request) + behind, then)) as stream:
        timeouts = asyncdicom.Timeouts(abort=0.05)
        async with asyncdicom.connect("PEER@memory:0", contexts=CONTEXTS, stream=stream, timeouts=timeouts) as assoc:
            with pytest.raises(error):
                await assoc.echo()


# Leaving.


async def test_leaving_normally_releases() -> None:
    async with scripted(ScriptedPeer.confirm_release) as assoc:
        assert not assoc.ended
    assert assoc.ended


class ProgramError(BaseException):
    """Something that is not an Exception."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, ProgramError])
async def test_an_exception_of_the_body_aborts_and_arrives_as_it_is(error: type[BaseException]) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        assert await expect_abort(peer) == (0, 0)

    async def use(stream: MemoryStream) -> None:
        with pytest.raises(error, match="of the program"):
            async with asyncdicom.connect("PEER@memory:0", contexts=CONTEXTS, stream=stream):
                raise error("of the program")

    async with against(script) as stream:
        await use(stream)


@pytest.mark.parametrize("end", [ScriptedPeer.aclose, lambda peer: peer.send(abort_pdu())], ids=["closed", "aborted"])
async def test_leaving_after_the_peer_has_left_is_no_error(end: Callable[[ScriptedPeer], Awaitable[None]]) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await end(peer)

    async with scripted(script) as assoc:
        await assoc.wait_closed()
