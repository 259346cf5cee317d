"""The verbs with one response, the window, Message IDs, deadlines and ends, against a peer that judges the bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack
from typing import Any

import anyio
import pydicom
import pytest
from pydicom import Dataset

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import FaultyStream, MemoryStream, Received, ScriptedPeer

from .harness import (
    C_ECHO_RQ,
    C_ECHO_RSP,
    C_GET_RQ,
    C_GET_RSP,
    C_STORE_RQ,
    CONTEXTS,
    CT_ID,
    GET_ID,
    MPPS_ID,
    PATIENCE,
    VERIFICATION_ID,
    ct_bytes,
    ct_instance,
    drained,
    expect_abort,
    finish,
    identifier,
    request_elements,
    scripted,
    store_elements,
)

pytestmark = pytest.mark.anyio

MPPS = sop.MODALITY_PERFORMED_PROCEDURE_STEP


def us(value: int) -> bytes:
    return pack("<H", value)


def ui(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb with one response: how it is called, and its command set without group length, ID and data set type."""

    name: str
    call: Callable[[asyncdicom.Association, dict[str, Any]], Awaitable[asyncdicom.Response]]
    command: dict[int, bytes]
    context_id: int = MPPS_ID
    data_set: bytes | None = None
    answer: bytes | None = None
    answer_elements: dict[int, int | str | bytes] = field(default_factory=dict)

    @property
    def command_field(self) -> int:
        return int.from_bytes(self.command[0x100], "little")


REQUESTED = {0x0003: ui(MPPS), 0x1001: b"1.2.3\0"}
AFFECTED = {0x0002: ui(MPPS), 0x1000: b"1.2.3\0"}

VERBS = [
    Verb(
        name="echo",
        call=lambda assoc, options: assoc.echo(**options),
        command={0x0002: ui(sop.VERIFICATION), 0x0100: us(0x0030)},
        context_id=VERIFICATION_ID,
    ),
    Verb(
        name="store",
        call=lambda assoc, options: assoc.store(ct_instance(), priority=2, **options),
        command={0x0002: ui(sop.CT_IMAGE_STORAGE), 0x0100: us(1), 0x0700: us(2), 0x1000: b"1.2.3.4\0"},
        context_id=CT_ID,
        data_set=ct_bytes(),
    ),
    Verb(
        name="store for a C-MOVE",
        call=lambda assoc, options: assoc.store(ct_instance(), move_originator=("WS", 7), **options),
        command={
            0x0002: ui(sop.CT_IMAGE_STORAGE),
            0x0100: us(1),
            0x0700: us(0),
            0x1000: b"1.2.3.4\0",
            0x1030: b"WS",
            0x1031: us(7),
        },
        context_id=CT_ID,
        data_set=ct_bytes(),
    ),
    Verb(
        name="n_event_report",
        call=lambda assoc, options: assoc.n_event_report(identifier(), 5, MPPS, "1.2.3", **options),
        command={**AFFECTED, 0x0100: us(0x0100), 0x1002: us(5)},
        data_set=identifier(),
        answer=identifier("2"),
    ),
    Verb(
        name="n_get",
        call=lambda assoc, options: assoc.n_get([0x00100010, 0x00100020], MPPS, "1.2.3", **options),
        command={**REQUESTED, 0x0100: us(0x0110), 0x1005: bytes.fromhex("1000100010002000")},
        answer=identifier("2"),
    ),
    Verb(
        name="n_get of all",
        call=lambda assoc, options: assoc.n_get([], MPPS, "1.2.3", **options),
        command={**REQUESTED, 0x0100: us(0x0110)},
        answer=identifier("2"),
    ),
    Verb(
        name="n_set",
        call=lambda assoc, options: assoc.n_set(identifier(), MPPS, "1.2.3", **options),
        command={**REQUESTED, 0x0100: us(0x0120)},
        data_set=identifier(),
    ),
    Verb(
        name="n_action",
        call=lambda assoc, options: assoc.n_action(identifier(), 3, MPPS, "1.2.3", **options),
        command={**REQUESTED, 0x0100: us(0x0130), 0x1008: us(3)},
        data_set=identifier(),
        answer=identifier("2"),
    ),
    Verb(
        name="n_create",
        call=lambda assoc, options: assoc.n_create(identifier(), MPPS, "1.2.3", **options),
        command={**AFFECTED, 0x0100: us(0x0140)},
        data_set=identifier(),
    ),
    Verb(
        name="n_create that lets the peer name it",
        call=lambda assoc, options: assoc.n_create(None, MPPS, **options),
        command={0x0002: ui(MPPS), 0x0100: us(0x0140)},
        answer_elements={0x1000: "1.2.3.9"},
    ),
    Verb(
        name="n_delete",
        call=lambda assoc, options: assoc.n_delete(MPPS, "1.2.3", **options),
        command={**REQUESTED, 0x0100: us(0x0150)},
    ),
]

every_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)


@every_verb
async def test_a_verb_sends_its_message_and_returns_the_response(verb: Verb) -> None:
    seen: list[Received] = []

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(verb.command_field)
        seen.append(request)
        await peer.respond(request, 0x0000, verb.answer, verb.answer_elements)
        await finish(peer)

    async with scripted(script) as assoc:
        response = await verb.call(assoc, {})
        assert (response.status, response.message_id) == (0x0000, 1)
        assert response.error_comment is None
        assert response.progress == asyncdicom.Progress()
        assert response.data_set_bytes == verb.answer
        if verb.answer is None:
            assert response.data_set is None
        else:
            assert response.data_set is not None
            assert response.data_set.PatientID == "2"
        if verb.answer_elements:
            assert response.affected_sop_instance_uid == "1.2.3.9"
        await assoc.echo()
    (request,) = seen
    has_data = verb.data_set is not None
    assert {tag: value for tag, value in request.command.items() if tag not in (0, 0x0800)} == {
        **verb.command,
        0x0110: us(1),
    }
    assert (request.command[0x0800] != us(0x0101)) is has_data
    assert request.context_id == verb.context_id
    assert request.data_set == verb.data_set


@every_verb
@pytest.mark.parametrize("status", [0x0000, 0x0001, 0x0107, 0x0116, 0xB000, 0xB007, 0xB123])
async def test_success_and_warning_are_returned(verb: Verb, status: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.respond(await peer.expect_message(), status)
        await finish(peer)

    async with scripted(script) as assoc:
        assert (await verb.call(assoc, {})).status == status
        await assoc.echo()


@every_verb
@pytest.mark.parametrize("status", [0x0105, 0x0110, 0x0117, 0x0122, 0x0211, 0x0212, 0xA700, 0xA900, 0xC000, 0x7777])
async def test_a_failure_raises_unless_it_is_not_checked(verb: Verb, status: int) -> None:
    elements: dict[int, int | str | bytes] = {0x0901: b"\x08\x00\x18\x00", 0x0902: b"out of beer ", 0x0903: 9}

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(2):
            await peer.respond(await peer.expect_message(), status, elements=elements)
        await finish(peer)

    async with scripted(script) as assoc:
        with pytest.raises(asyncdicom.StatusError, match="out of beer") as caught:
            await verb.call(assoc, {})
        assert (caught.value.status, caught.value.comment) == (status, "out of beer")
        response = await verb.call(assoc, {"check": False})
        assert caught.value.response is not None
        for each in (response, caught.value.response):
            assert each.status.category is asyncdicom.Category.FAILURE
            assert (each.error_comment, each.error_id, each.offending_element) == ("out of beer", 9, (0x00080018,))
        await assoc.echo()


@every_verb
async def test_a_response_without_the_sop_uids_and_of_any_size_will_do(verb: Verb) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message()
        minimal: dict[int, int | str | bytes] = {
            0x0100: request.command_field | 0x8000,
            0x0120: request.message_id,
            0x0900: 0,
        }
        await peer.send_message(request.context_id, minimal)
        request = await peer.expect_message()
        await peer.respond(request, 0, elements={0x0000_5FF0: b"unknown element "})
        await finish(peer)

    async with scripted(script) as assoc:
        for _ in range(2):
            assert (await verb.call(assoc, {})).status == 0
        await assoc.echo()


@every_verb
async def test_a_peer_that_does_not_answer_is_aborted_in_time(verb: Verb) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message()
        assert await expect_abort(peer) == (0, 0)

    async with scripted(script, timeouts=asyncdicom.Timeouts(response=0.05)) as assoc:
        with pytest.raises(asyncdicom.OperationTimeout, match="response") as caught:
            await verb.call(assoc, {})
        assert caught.value.kind == "response"
        with pytest.raises(asyncdicom.OperationTimeout):
            await assoc.echo()


# C-STORE.


@pytest.mark.parametrize("maximum", [0, 8, 20, 128, 4096, 16_384, 131_072, 1 << 24])
@pytest.mark.parametrize("size", [0, 1, 20_000])
async def test_messages_keep_to_the_maximum_length_of_the_peer(maximum: int, size: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        stored = await peer.expect_message(C_STORE_RQ)
        assert stored.data_set == ct_bytes(size)
        assert all(fragment % 2 == 0 for fragment in stored.fragments)
        if maximum:
            assert max(stored.fragments) + 6 <= maximum
        await peer.respond(stored, 0)
        await finish(peer)

    async with scripted(script, accept={"maximum_length": maximum}) as assoc:
        assert (await assoc.store(ct_instance(size))).status == 0
        await assoc.echo()


async def test_a_file_is_sent_as_it_is_with_the_uids_of_its_data_set(test_files: Path) -> None:
    path = test_files / "CT_small.dcm"
    dataset = pydicom.dcmread(path)
    head = pydicom.filereader.read_file_meta_info(path)
    assert head.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(3):
            stored = await peer.expect_message(C_STORE_RQ)
            assert stored.text(0x1000) == dataset.SOPInstanceUID
            assert stored.text(0x0002) == dataset.SOPClassUID
            assert stored.data_set is not None
            assert path.read_bytes().endswith(stored.data_set[-30_000:])
            await peer.respond(stored, 0)
        await finish(peer)

    async with scripted(script) as assoc:
        assert (await assoc.store(path)).status == 0
        assert (await assoc.store(str(path))).status == 0
        assert (await assoc.store(dataset)).status == 0
        await assoc.echo()


def no_uids() -> Dataset:
    dataset = Dataset()
    dataset.PatientID = "1"
    return dataset


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("README_no_dicom", asyncdicom.DataSetError),
        ("missing", FileNotFoundError),
        ("folder", OSError),
        (no_uids(), asyncdicom.DataSetError),
        (None, TypeError),
        (b"bytes", TypeError),
        (
            asyncdicom.Instance.from_bytes(b"", sop.MR_IMAGE_STORAGE, "1.2", sop.EXPLICIT_VR_LITTLE_ENDIAN),
            asyncdicom.NoPresentationContext,
        ),
        (
            asyncdicom.Instance.from_bytes(b"", sop.CT_IMAGE_STORAGE, "1.2", sop.JPEG_BASELINE_8BIT),
            asyncdicom.NoPresentationContext,
        ),
    ],
    ids=["no DICOM", "missing", "folder", "no UIDs", "nothing", "bytes", "class not accepted", "syntax not accepted"],
)
async def test_what_cannot_be_stored_is_refused_and_nothing_is_sent(
    what: Any, error: type[Exception], tmp_path: Path
) -> None:
    (tmp_path / "README_no_dicom").write_bytes(b"no DICOM " * 100)
    (tmp_path / "folder").mkdir()
    async with scripted(finish) as assoc:
        for _ in range(3):
            with pytest.raises(error):
                await assoc.store(tmp_path / what if isinstance(what, str) else what)
        await assoc.echo()


async def test_a_native_instance_is_converted_if_only_another_native_syntax_was_accepted() -> None:
    async def script(peer: ScriptedPeer) -> None:
        stored = await peer.expect_message(C_STORE_RQ)
        assert stored.data_set is not None
        explicit = ct_bytes(1000)
        assert len(stored.data_set) == len(explicit) - 4
        assert stored.data_set.startswith(b"\x08\x00\x16\x00\x1a\x00\x00\x001.2.840.")
        await peer.respond(stored, 0)
        await finish(peer)

    async with scripted(script, accept={"transfer_syntax": str(sop.IMPLICIT_VR_LITTLE_ENDIAN)}) as assoc:
        with pytest.raises(asyncdicom.NoPresentationContext, match="transfer syntax"):
            await assoc.store(ct_instance(1000), convert=False)
        assert (await assoc.store(ct_instance(1000))).status == 0
        await assoc.echo()


async def test_a_file_that_shrinks_while_it_is_sent_aborts(tmp_path: Path, test_files: Path) -> None:
    whole = (test_files / "CT_small.dcm").read_bytes()
    # Pixel data so long that the file is read while it is sent.
    position = whole.index(b"\xe0\x7f\x10\x00OW\0\0")
    path = tmp_path / "shrinks.dcm"
    path.write_bytes(whole[:position] + b"\xe0\x7f\x10\x00OW\0\0" + pack("<I", 8 << 20) + bytes(8 << 20))

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(4)
        os.truncate(path, 1 << 20)
        # The rest never comes: only whole PDUs of the data set, none of them the last, and perhaps an A-ABORT.
        *data, last = await peer.read_to_end()
        assert all(pdu[0] == 4 and not pdu[11] & 2 for pdu in data)
        assert last[0] == 7 or not last[11] & 2

    async with scripted(script) as assoc:
        with pytest.raises(OSError, match="shorter"):
            await assoc.store(path)
        with pytest.raises(asyncdicom.AssociationAborted, match="broke off"):
            await assoc.echo()


async def test_a_failure_that_comes_before_the_data_set_has_gone_out_is_returned() -> None:
    size = 3 << 20

    async def script(peer: ScriptedPeer) -> None:
        pdus = [await peer.expect(4) for _ in range(3)]
        elements: dict[int, int | str | bytes] = {0x0100: 0x8001, 0x0120: 1, 0x0900: 0xA700}
        await peer.send_message(CT_ID, elements)
        while not pdus[-1][11] & 2 or pdus[-1][11] & 1:
            pdus.append(await peer.expect(4))
        await finish(peer)

    async with scripted(script) as assoc:
        assert (await assoc.store(ct_instance(size), check=False)).status == 0xA700
        await assoc.echo()


async def test_a_peer_that_stops_reading_in_the_middle_of_our_data_set_is_given_up() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(4)
        await ended.wait()
        await peer.aclose()

    ended = anyio.Event()
    async with scripted(script, timeouts=asyncdicom.Timeouts(write=0.05), max_buffer=10_000) as assoc:
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await assoc.store(ct_instance(3 << 20))
        assert caught.value.kind == "write"
        ended.set()
        with pytest.raises(asyncdicom.OperationTimeout):
            await assoc.echo()


async def test_a_peer_that_aborts_in_the_middle_of_our_data_set_says_why() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(4)
        await peer.send(bytes.fromhex("07000000000400000206"))
        await peer.aclose()

    async with scripted(script, max_buffer=10_000) as assoc:
        with pytest.raises(asyncdicom.AssociationAborted) as caught:
            await assoc.store(ct_instance(3 << 20))
        assert (caught.value.source, caught.value.reason) == (2, 6)


JUNK = b"\x08\x00\x16\x00UI\xff\xff junk"


@pytest.mark.parametrize(
    ("data", "sent"),
    [(JUNK, False), (ct_bytes(2 << 20) + JUNK, True)],
    ids=["before the first byte", "in the middle"],
)
async def test_a_data_set_that_cannot_be_converted_fails_and_aborts_only_if_a_part_was_sent(
    data: bytes, sent: bool
) -> None:
    instance = asyncdicom.Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, "1.2", sop.EXPLICIT_VR_LITTLE_ENDIAN)

    async def script(peer: ScriptedPeer) -> None:
        if sent:
            pdus = await peer.read_to_end()
            assert {pdu[0] for pdu in pdus[:-1]} == {4}
            assert pdus[-1][0] in (4, 7)
        else:
            await finish(peer)

    options: dict[str, Any] = {"accept": {"transfer_syntax": str(sop.IMPLICIT_VR_LITTLE_ENDIAN)}}
    async with scripted(script, timeouts=asyncdicom.Timeouts(abort=0.05), **options) as assoc:
        with pytest.raises(asyncdicom.DataSetError):
            await assoc.store(instance)
        if sent:
            with pytest.raises(asyncdicom.AssociationAborted, match="broke off"):
                await assoc.echo()
        else:
            assert (await assoc.echo()).status == 0


class Failing:
    """A source of 3 MiB whose end cannot be read."""

    size = 3 << 20

    def __init__(self, error: Exception, good: int) -> None:
        self._error = error
        self._good = good

    def read_into(self, views: Sequence[memoryview]) -> int:
        if self._good <= 0:
            raise self._error
        wanted = sum(map(len, views))
        self._good -= wanted
        return wanted

    def close(self) -> None:
        pass


@pytest.mark.parametrize("good", [0, 1 << 20], ids=["before the first byte", "in the middle"])
@pytest.mark.parametrize(
    "error", [TimeoutError(110, "a network drive"), asyncdicom.AssociationClosed("another one"), OSError(5, "disk")]
)
async def test_an_error_of_what_is_sent_is_not_taken_for_one_of_the_peer(error: Exception, good: int) -> None:
    instance = asyncdicom.Instance(
        sop.CT_IMAGE_STORAGE, "1.2", sop.EXPLICIT_VR_LITTLE_ENDIAN, lambda: Failing(error, good)
    )

    async def script(peer: ScriptedPeer) -> None:
        if good:
            await peer.read_to_end()
        else:
            await finish(peer)

    async with scripted(script, timeouts=asyncdicom.Timeouts(abort=0.05)) as assoc:
        with pytest.raises(type(error)) as caught:
            await assoc.store(instance)
        assert caught.value is error
        if good:
            with pytest.raises(asyncdicom.AssociationAborted, match="broke off"):
                await assoc.echo()
        else:
            assert (await assoc.echo()).status == 0


# N-services with data sets, and as the SCP of a class.


async def test_data_sets_of_n_services_are_encoded_for_their_context() -> None:
    dataset = Dataset()
    dataset.PatientID = "1"

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(4):
            request = await peer.expect_message()
            assert request.data_set == identifier("1")
            assert request.text(0x0002) in (None, MPPS)
            await peer.respond(request, 0)
        await finish(peer)

    async with scripted(script) as assoc:
        await assoc.n_create(dataset, MPPS, "1.2.3")
        await assoc.n_set(dataset, MPPS, "1.2.3")
        await assoc.n_action(dataset, 1, MPPS, "1.2.3")
        await assoc.n_event_report(dataset, 1, MPPS, "1.2.3")
        await assoc.echo()


async def test_an_event_is_reported_on_a_context_whose_scp_we_are() -> None:
    uid = sop.STORAGE_COMMITMENT_PUSH_MODEL
    own = asyncdicom.PresentationContext(abstract_syntax=uid, scu_role=False, scp_role=True)

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(0x0100)
        assert (request.context_id, request.text(0x0002)) == (1, uid)
        await peer.respond(request, 0)
        await peer.confirm_release()

    async with scripted(script, contexts=[own]) as assoc:
        assert (await assoc.n_event_report(identifier(), 1, uid, "1.2.3")).status == 0
        with pytest.raises(asyncdicom.NoPresentationContext, match="role"):
            await assoc.n_action(identifier(), 1, uid, "1.2.3")


async def test_the_context_of_an_n_service_may_be_that_of_another_class() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(0x0110)
        assert (request.context_id, request.text(0x0003)) == (MPPS_ID, sop.BASIC_FILM_BOX)
        await peer.respond(request, 0)
        await peer.confirm_release()

    async with scripted(script) as assoc:
        assert (await assoc.n_get([], sop.BASIC_FILM_BOX, "1.2.3", context=MPPS)).status == 0


# Presentation contexts.


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda assoc: assoc.n_get([], sop.BASIC_FILM_SESSION, "1.2"), "was not proposed"),
        (lambda assoc: assoc.n_get([], MPPS, "1.2"), "abstract syntax not supported"),
        (lambda assoc: assoc.echo(), "transfer syntaxes not supported"),
        (lambda assoc: assoc.store(ct_instance()), "role"),
    ],
    ids=["not proposed", "abstract syntax", "transfer syntaxes", "role"],
)
async def test_without_a_context_the_error_says_why(call: Any, reason: str) -> None:
    storage = asyncdicom.PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, scu_role=False, scp_role=True)
    contexts = [sop.VERIFICATION, storage, MPPS]
    results = {MPPS: 3, sop.VERIFICATION: 4}
    async with scripted(ScriptedPeer.confirm_release, contexts=contexts, accept={"results": results}) as assoc:
        with pytest.raises(asyncdicom.NoPresentationContext, match=reason) as caught:
            await call(assoc)
        assert caught.value.abstract_syntax in (*results, sop.CT_IMAGE_STORAGE, sop.BASIC_FILM_SESSION)


async def test_what_was_negotiated_can_be_seen() -> None:
    async with scripted(
        ScriptedPeer.confirm_release, async_operations=(5, 3), accept={"window": (4, 2), "results": {MPPS: 3}}
    ) as assoc:
        assert [context.abstract_syntax for context in assoc.accepted_contexts] == list(CONTEXTS[:-1])
        assert [context.context_id for context in assoc.accepted_contexts] == [1, 3, 5, 7, 9]
        assert {context.transfer_syntax for context in assoc.accepted_contexts} == {sop.EXPLICIT_VR_LITTLE_ENDIAN}
        assert assoc.async_operations == (4, 2)
        assert assoc.extended_negotiation == {}
        assert (assoc.peer.ae_title, assoc.peer.address) == ("PEER", None)
        assert (assoc.peer.implementation_class_uid, assoc.peer.implementation_version_name) == ("1.2.3.4", "SCRIPTED")
        assert not assoc.ended


# The asynchronous operations window.


@pytest.mark.parametrize(
    ("asked", "answered", "window"),
    [(1, None, 1), (3, (3, 1), 3), (3, (2, 1), 2), (3, None, 1), (3, (9, 1), 3), (0, (4, 1), 4), (0, (0, 1), 50)],
)
async def test_never_more_is_outstanding_than_was_negotiated(
    asked: int, answered: tuple[int, int] | None, window: int
) -> None:
    total = 50

    async def script(peer: ScriptedPeer) -> None:
        answered = 0
        while answered < total:
            batch = [await peer.expect_message(C_ECHO_RQ) for _ in range(min(window, total - answered))]
            await drained_unless_asked(peer)
            # Out of order.
            await peer.send(*(peer.response(request, request.message_id) for request in reversed(batch)))
            answered += len(batch)
        await peer.confirm_release()

    async def drained_unless_asked(peer: ScriptedPeer) -> None:
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert isinstance(peer.stream, MemoryStream)
        assert not peer.stream.buffered, "more requests than the window has room for"

    ids: list[int] = []

    async def one(assoc: asyncdicom.Association) -> None:
        response = await assoc.echo(check=False)
        # The peer put the Message ID of each request into its status.
        assert response.status == response.message_id
        ids.append(response.message_id)

    async with scripted(script, async_operations=(asked, 1), accept={"window": answered}) as assoc:
        async with anyio.create_task_group() as tasks:
            for _ in range(total):
                tasks.start_soon(one, assoc)
    assert sorted(ids) == list(range(1, total + 1))


async def test_different_operations_run_at_the_same_time() -> None:
    async def script(peer: ScriptedPeer) -> None:
        found: dict[int, Received] = {}
        for _ in range(3):
            request = await peer.expect_message()
            found[request.command_field] = request
        find, echo, store = found[0x0020], found[0x0030], found[0x0001]
        await peer.send(
            peer.response(find, 0xFF00, identifier("1")),
            peer.response(store, 0x0000),
            peer.response(find, 0xFF00, identifier("2")),
            peer.response(echo, 0x0000),
            peer.response(find, 0x0000),
        )
        await finish(peer)

    found: list[str] = []

    async def find(assoc: asyncdicom.Association) -> None:
        async for match in assoc.find(identifier()):
            found.append(match.PatientID)

    async with scripted(script, async_operations=(3, 1), accept={"window": (3, 1)}) as assoc:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(find, assoc)
            tasks.start_soon(assoc.echo)
            tasks.start_soon(assoc.store, ct_instance())
        await assoc.echo()
    assert found == ["1", "2"]


async def test_a_find_and_an_echo_of_the_same_task_share_a_wider_window() -> None:
    async def script(peer: ScriptedPeer) -> None:
        find = await peer.expect_message(0x0020)
        await peer.respond(find, 0xFF00, identifier("1"))
        for _ in range(2):
            await peer.answer_echo()
            await peer.respond(find, 0xFF00, identifier("2"))
        await peer.respond(find, 0x0000)
        await finish(peer)

    async with scripted(script, async_operations=(2, 1), accept={"window": (2, 1)}) as assoc:
        count = 0
        async for _ in assoc.find(identifier()):
            if count < 2:
                assert (await assoc.echo()).status == 0
            count += 1
        assert count == 3
        await assoc.echo()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_slot_that_falls_to_somebody_who_is_just_cancelled_goes_to_the_next(anyio_backend: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        first = await peer.expect_message(C_ECHO_RQ)
        taken.set()
        await queued.wait()
        await peer.respond(first, 0)
        assert (await peer.answer_echo()).message_id == 2
        await peer.confirm_release()

    taken, queued = anyio.Event(), anyio.Event()
    async with scripted(script) as assoc:

        async def echo_then_cancel() -> None:
            assert (await assoc.echo()).status == 0
            # The slot is given away already, but whoever got it has not run yet.
            cancelled.cancel()

        first = asyncio.create_task(echo_then_cancel())
        await taken.wait()
        cancelled = asyncio.create_task(assoc.echo())
        await asyncio.sleep(0)
        last = asyncio.create_task(assoc.echo())
        await asyncio.sleep(0)
        queued.set()
        assert (await last).status == 0
        await first
        assert cancelled.cancelled()


async def test_an_association_tells_for_how_long_it_has_been_idle() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_ECHO_RQ)
        assert assoc.seconds_idle == 0
        await peer.respond(request, 0)
        await peer.confirm_release()

    async with scripted(script) as assoc:
        assert assoc.seconds_idle >= 0
        await assoc.echo()
        assert assoc.seconds_idle >= 0


async def test_message_ids_wrap_and_skip_those_that_are_outstanding() -> None:
    async def script(peer: ScriptedPeer) -> None:
        kept = await peer.expect_message(C_ECHO_RQ)
        assert kept.message_id == 65_533
        seen = [(await peer.answer_echo()).message_id for _ in range(4)]
        assert seen == [65_534, 65_535, 1, 2]
        turned.set()
        seen = [(await peer.answer_echo()).message_id for _ in range(3)]
        assert seen == [65_532, 65_534, 65_535]
        await peer.respond(kept, 0x0000)
        await peer.confirm_release()

    turned = anyio.Event()
    async with scripted(script, async_operations=(2, 1), accept={"window": (2, 1)}) as assoc:
        assoc._last_message_id = 65_532
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(assoc.echo)
            await anyio.lowlevel.checkpoint()
            while assoc._last_message_id == 65_532:
                await anyio.lowlevel.checkpoint()
            for _ in range(4):
                await assoc.echo()
            await turned.wait()
            assoc._last_message_id = 65_531
            for _ in range(3):
                await assoc.echo()


async def test_when_the_association_ends_all_who_wait_learn_why() -> None:
    async def script(peer: ScriptedPeer) -> None:
        for _ in range(3):
            await peer.expect_message(C_ECHO_RQ)
        await peer.send(bytes.fromhex("07000000000400000201"))
        await peer.aclose()

    errors: list[asyncdicom.AssociationAborted] = []

    async def one(assoc: asyncdicom.Association) -> None:
        with pytest.raises(asyncdicom.AssociationAborted) as caught:
            await assoc.echo()
        errors.append(caught.value)

    async with scripted(script, async_operations=(3, 1), accept={"window": (3, 1)}) as assoc:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one, assoc)
            tasks.start_soon(assoc.wait_closed)
    assert [(error.source, error.reason) for error in errors] == [(2, 1)] * 5
    assert len({id(error) for error in errors}) == 5


# Ends.


async def idle(peer: ScriptedPeer) -> None:
    await drained(peer)


async def test_an_idle_client_notices_a_release_at_its_next_call_and_confirms_it() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.send(bytes.fromhex("05000000000400000000"))
        # It has sent its request before it looks.
        await peer.expect_message(C_ECHO_RQ)
        await peer.expect(6)
        await peer.aclose()

    async with scripted(script) as assoc:
        with pytest.raises(asyncdicom.AssociationClosed, match="released"):
            await assoc.echo()


@pytest.mark.parametrize("end", ["05000000000400000000", "07000000000400000000", "", "ff"])
async def test_wait_closed_returns_whatever_ends_the_association(end: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await drained(peer)
        await peer.send(bytes.fromhex(end))
        if end[:2] == "05":
            await peer.expect(6)
        elif end[:2] == "ff":
            assert await peer.expect_abort() == (2, 1)
        await peer.aclose()

    async with scripted(script) as assoc:
        await assoc.wait_closed()
        assert assoc.ended
        await assoc.wait_closed()


async def test_what_is_released_twice_or_used_afterwards_says_so() -> None:
    async with scripted(ScriptedPeer.confirm_release) as assoc:
        await assoc.release()
        await assoc.release()
        await assoc.abort()
        with pytest.raises(asyncdicom.AssociationClosed, match="released"):
            await assoc.echo()
        with pytest.raises(asyncdicom.AssociationClosed):
            await anext(assoc.find(identifier()))


async def test_abort_says_so_on_the_wire_and_to_later_verbs() -> None:
    async def script(peer: ScriptedPeer) -> None:
        assert await expect_abort(peer) == (0, 0)

    async with scripted(script) as assoc:
        await assoc.abort()
        await assoc.abort()
        await assoc.release()
        with pytest.raises(asyncdicom.AssociationAborted):
            await assoc.echo()


async def test_abort_does_not_wait_long_for_a_peer_that_keeps_sending() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_abort()
        with pytest.raises(anyio.BrokenResourceError):  # noqa: PT012
            while True:
                await peer.send(bytes(10_000))

    async with scripted(script, timeouts=asyncdicom.Timeouts(abort=0.05)) as assoc:
        await assoc.abort()


@pytest.mark.parametrize("first", ["cancelled", "aborted"])
async def test_whoever_is_cancelled_gives_the_peer_a_moment_to_read_our_abort(first: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_abort()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        order.append("the peer has read")
        await peer.aclose()

    scope = anyio.CancelScope()
    order: list[str] = []
    async with scripted(script, timeouts=asyncdicom.Timeouts(abort=PATIENCE)) as assoc:
        if first == "cancelled":
            scope.cancel()
        with scope:
            await assoc.abort()
        assert scope.cancelled_caught
        order.append("we have left")
    assert order == ["the peer has read", "we have left"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_asyncio_cancels_does_not_wait_for_the_peer_to_read_our_abort(anyio_backend: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_abort()
        await ended.wait()

    ended = anyio.Event()
    async with scripted(script, timeouts=asyncdicom.Timeouts(abort=PATIENCE)) as assoc:
        task = asyncio.create_task(assoc.abort())
        await anyio.wait_all_tasks_blocked()
        assert not task.done()
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        assert task.cancelled()
        ended.set()


async def test_abort_gives_up_on_a_peer_that_does_not_read() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(4)
        await ended.wait()
        await peer.aclose()

    ended = anyio.Event()
    async with scripted(script, timeouts=asyncdicom.Timeouts(abort=0.05), max_buffer=5000) as assoc:
        async with anyio.create_task_group() as tasks:

            async def store() -> None:
                with pytest.raises(asyncdicom.AssociationAborted):
                    await assoc.store(ct_instance(1 << 20))

            tasks.start_soon(store)
            await anyio.wait_all_tasks_blocked()
            await assoc.abort()
        ended.set()


async def test_a_release_that_is_not_answered_ends_in_time() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(5)
        assert await expect_abort(peer) == (0, 0)

    async with scripted(script, timeouts=asyncdicom.Timeouts(release=0.05)) as assoc:
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await assoc.release()
    assert caught.value.kind == "release"


async def test_a_release_that_is_not_answered_is_no_error_of_who_has_done_everything() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(5)
        assert await expect_abort(peer) == (0, 0)

    async with scripted(script, timeouts=asyncdicom.Timeouts(release=0.05)) as assoc:
        pass
    assert assoc.ended


@pytest.mark.parametrize("last_word", [b"", bytes.fromhex("07000000000400000000")], ids=["closes", "aborts"])
async def test_a_peer_that_ends_instead_of_confirming_a_release_is_no_error(last_word: bytes) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.answer_echo()
        await peer.expect(5)
        await peer.send(last_word)
        await peer.aclose()

    async with scripted(script) as assoc:
        assert (await assoc.echo()).status == 0


async def test_when_both_sides_release_at_once_the_requestor_confirms_first() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(5)
        await peer.send(bytes.fromhex("05000000000400000000"))
        await peer.expect(6)
        await peer.send(bytes.fromhex("06000000000400000000"))
        await peer.expect_end()

    async with scripted(script):
        pass


async def test_a_response_that_crosses_our_release_is_ignored() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_ECHO_RQ)
        await drained(peer)
        scope.cancel()
        await peer.expect(5)
        await peer.send(peer.response(request, 0x0000), bytes.fromhex("06000000000400000000"))
        await peer.expect_end()

    async with scripted(script) as assoc:
        with anyio.CancelScope() as scope:
            await assoc.echo()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
async def test_a_stall_inside_a_message_is_a_message_timeout(part: float) -> None:
    async def script(peer: ScriptedPeer) -> None:
        response = peer.response(await peer.expect_message(C_ECHO_RQ), 0x0000)
        await peer.send(response[: int(len(response) * part)])
        assert await expect_abort(peer) == (0, 0)

    async with scripted(script, timeouts=asyncdicom.Timeouts(message=0.05)) as assoc:
        with pytest.raises(asyncdicom.OperationTimeout) as caught:
            await assoc.echo()
        assert caught.value.kind == "message"


@pytest.mark.parametrize("bad", ["send", "receive"])
async def test_a_connection_that_fails_is_the_end_with_its_cause(bad: str) -> None:
    def wrap(stream: Any) -> FaultyStream:
        return FaultyStream(stream, error=lambda: OSError(104, "Connection reset by peer"), **{f"fail_on_{bad}": 2})

    async def script(peer: ScriptedPeer) -> None:
        with pytest.raises((anyio.EndOfStream, AssertionError)):
            await peer.expect(5)

    async with scripted(script, wrap=wrap, timeouts=asyncdicom.Timeouts(abort=0.05)) as assoc:
        with pytest.raises(asyncdicom.AssociationClosed, match="reset by peer") as caught:
            await assoc.echo()
        assert isinstance(caught.value.__cause__, OSError)


# Requests of the peer.


async def ask(peer: ScriptedPeer, elements: dict[int, int | str | bytes], context_id: int, **data: Any) -> Received:
    """Make a request of the peer, and receive its response."""
    await peer.send_message(context_id, elements, **data)
    return await peer.expect_message(int(elements[0x0100]) | 0x8000)


async def test_a_client_answers_an_echo_and_refuses_what_it_does_not_serve() -> None:
    async def script(peer: ScriptedPeer) -> None:
        waiting = await peer.expect_message(C_ECHO_RQ)
        answer = await ask(peer, request_elements(C_ECHO_RQ, 1, sop.VERIFICATION), VERIFICATION_ID)
        assert (answer.status, answer.message_id, answer.text(2)) == (0x0000, 1, sop.VERIFICATION)
        answer = await ask(peer, store_elements(2), CT_ID, data_set=ct_bytes())
        assert (answer.status, answer.message_id) == (0x0122, 2)
        for data_set in (None, identifier()):
            await peer.send_message(VERIFICATION_ID, {0x0100: 0x0666, 0x0110: 3}, data_set)
            answer = await peer.expect_message()
            assert (answer.status, answer.message_id) == (0x0211, 3)
        # Nobody can answer these.
        await peer.send_message(VERIFICATION_ID, {0x0100: 0x8666, 0x0120: 3, 0x0900: 0})
        await peer.send_message(VERIFICATION_ID, {0x0100: 0x0777})
        await peer.respond(waiting, 0x0000)
        await peer.confirm_release()

    async with scripted(script) as assoc:
        assert (await assoc.echo()).status == 0


async def test_a_client_serves_what_its_services_say_while_it_waits() -> None:
    services = asyncdicom.Services()
    reports: list[tuple[int | None, str]] = []

    @services.n_event_report(MPPS)
    async def report(request: asyncdicom.NRequest) -> int | None:
        assert request.data_set is not None
        reports.append((request.event_type_id, request.data_set.PatientID))
        if request.event_type_id == 2:
            raise ValueError
        return 0x0001 if request.event_type_id == 3 else None

    def event(number: int) -> dict[int, int | str | bytes]:
        return {0x0002: MPPS, 0x0100: 0x0100, 0x0110: number, 0x1000: "1.2.3", 0x1002: number}

    async def script(peer: ScriptedPeer) -> None:
        waiting = await peer.expect_message(C_ECHO_RQ)
        statuses = [(await ask(peer, event(n), MPPS_ID, data_set=identifier(str(n)))).status for n in (1, 2, 3)]
        assert statuses == [0x0000, 0x0110, 0x0001]
        await peer.respond(waiting, 0x0000)
        await peer.confirm_release()

    async with scripted(script, services=services) as assoc:
        assert (await assoc.echo()).status == 0
    assert reports == [(1, "1"), (2, "2"), (3, "3")]


async def test_the_loop_over_an_association_is_the_primitive_underneath() -> None:
    async def script(peer: ScriptedPeer) -> None:
        answer = await ask(peer, request_elements(C_ECHO_RQ, 1, sop.VERIFICATION), VERIFICATION_ID)
        assert answer.status == 0xB000
        answer = await ask(peer, store_elements(2), CT_ID, data_set=ct_bytes())
        assert (answer.status, answer.text(0x0902), answer.number(0x0903)) == (0xA700, "full", 5)
        assert answer.command[0x0901] == bytes.fromhex("08001800")
        await peer.release()

    seen: list[str] = []
    async with scripted(script) as assoc:
        async for request in assoc:
            seen.append(type(request).__name__)
            if isinstance(request, asyncdicom.StoreRequest):
                assert await request.read() == ct_bytes()
                await request.respond(0xA700, error_comment="full", error_id=5, offending_element=[0x00080018])
                with pytest.raises(asyncdicom.LocalProtocolError, match="final response"):
                    await request.respond(0)
            else:
                await request.respond(0xB000)
    assert seen == ["EchoRequest", "StoreRequest"]


async def test_whoever_answers_a_retrieval_tells_its_counters() -> None:
    given = asyncdicom.Progress(remaining=2, completed=3, failed=1, warning=0)

    async def script(peer: ScriptedPeer) -> None:
        request = request_elements(C_GET_RQ, 5, sop.STUDY_ROOT_GET)
        await peer.send_message(GET_ID, request, identifier())
        answers = [await peer.expect_message(C_GET_RSP) for _ in range(3)]
        await peer.send_message(GET_ID, request, identifier())
        answers.append(await peer.expect_message(C_GET_RSP))
        found = [tuple(answer.number(0x1020 + place) for place in range(4)) for answer in answers]
        # Only a pending one and a Cancel say what remains (PS3.4 C.4.3.1.6).
        assert found == [(0, 0, 0, 0), (2, 3, 1, 0), (None, 3, 1, 0), (0, 0, 0, 0)]
        await peer.release()

    async with scripted(script) as assoc:
        request = await anext(assoc)
        assert isinstance(request, asyncdicom.RetrieveRequest)
        await request.respond(0xFF00)
        await request.respond(0xFF00, progress=given)
        await request.respond(0xB000, identifier(), progress=given)
        await (await anext(assoc)).respond(0xFE00)
        assert [request async for request in assoc] == []


async def test_the_loop_over_an_association_raises_when_it_is_aborted() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.send(bytes.fromhex("07000000000400000000"))
        await peer.aclose()

    async with scripted(script) as assoc:
        with pytest.raises(asyncdicom.AssociationAborted):
            await anext(assoc)


async def test_a_message_id_that_is_in_use_is_refused_and_the_first_request_goes_on() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = request_elements(C_ECHO_RQ, 5, sop.VERIFICATION)
        await peer.send_message(VERIFICATION_ID, request)
        await peer.send_message(VERIFICATION_ID, request)
        answers = [(await peer.expect_message(C_ECHO_RSP)).status for _ in range(2)]
        assert sorted(answers, key=str) == [0x0000, 0x0210]
        await peer.release()

    async with scripted(script, async_operations=(1, 2), accept={"window": (1, 2)}) as assoc:
        first = await anext(assoc)
        async with anyio.create_task_group() as tasks:

            async def rest() -> None:
                assert [request async for request in assoc] == []

            tasks.start_soon(rest)
            await anyio.wait_all_tasks_blocked()
            await first.respond(0)


async def test_message_id_0_or_always_the_same_will_do() -> None:
    async def script(peer: ScriptedPeer) -> None:
        for message_id in (0, 0, 1, 1):
            answer = await ask(peer, request_elements(C_ECHO_RQ, message_id, sop.VERIFICATION), VERIFICATION_ID)
            assert (answer.status, answer.message_id) == (0, message_id)
        await peer.release()

    async with scripted(script) as assoc:
        async for request in assoc:
            await request.respond(0)
