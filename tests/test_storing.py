"""Many instances over one association: the window, what is made ready ahead, what cannot be sent, and early ends."""

from __future__ import annotations

import gc
import os
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pydicom
import pytest
from anyio import wait_all_tasks_blocked

import asyncdicom
from asyncdicom import sop
from asyncdicom.testing import Received, ScriptedPeer

from .conftest import TEST_FILES
from .harness import C_CANCEL_RQ, C_STORE_RQ, CT_ID, ct_bytes, ct_instance, finish, scripted

pytestmark = pytest.mark.anyio


def uids(count: int) -> list[str]:
    return [f"1.2.3.{number}" for number in range(1, count + 1)]


def instances(count: int, size: int = 1000) -> list[asyncdicom.Instance]:
    return [ct_instance(size, uid) for uid in uids(count)]


def uid_of(what: Any) -> str:
    assert isinstance(what, asyncdicom.Instance)
    return what.sop_instance_uid


@asynccontextmanager
async def windowed(script: Any, window: int, **options: Any) -> AsyncIterator[asyncdicom.Association]:
    async with scripted(script, async_operations=(window, 1), accept={"window": (window, 1)}, **options) as assoc:
        yield assoc


async def stores(peer: ScriptedPeer, count: int) -> list[Received]:
    return [await peer.expect_message(C_STORE_RQ) for _ in range(count)]


def ct_file(path: Path, size: int, uid: str = "1.2.3.4") -> Path:
    """Write a Part 10 file with about ``size`` bytes of pixels."""
    data = ct_bytes(size, uid)
    path.write_bytes(asyncdicom.dataset.part10_head(sop.CT_IMAGE_STORAGE, uid, sop.EXPLICIT_VR_LITTLE_ENDIAN) + data)
    return path


def descriptors() -> list[str]:
    """What this process has open in the folders of tests."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except OSError:
            continue
    return [name for name in found if name.endswith(".dcm")]


# What comes of each.


@pytest.mark.parametrize("window", [1, 2, 5, 16])
async def test_each_has_an_outcome_in_the_order_in_which_they_were_given(window: int) -> None:
    seen: list[Received] = []

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(12):
            seen.append(await peer.expect_message(C_STORE_RQ))
            await peer.respond(seen[-1], 0x0000)
        await finish(peer)

    async with windowed(script, window) as assoc:
        outcomes = [stored async for stored in assoc.store_many(instances(12), priority=2)]
        await assoc.echo()
    assert [uid_of(stored.what) for stored in outcomes] == uids(12) == [request.text(0x1000) for request in seen]
    assert all(stored.error is None for stored in outcomes)
    assert [stored.response.status for stored in outcomes if stored.response] == [0] * 12
    assert {request.number(0x0700) for request in seen} == {2}
    assert [request.data_set for request in seen] == [ct_bytes(1000, uid) for uid in uids(12)]
    assert len({request.message_id for request in seen}) == 12


async def test_nothing_to_store_sends_nothing() -> None:
    async with scripted(finish) as assoc:
        assert [stored async for stored in assoc.store_many([])] == []
        await assoc.echo()


async def test_the_window_is_kept_full_and_outcomes_keep_their_order_whatever_the_order_of_responses() -> None:
    async def script(peer: ScriptedPeer) -> None:
        first = await stores(peer, 4)
        await wait_all_tasks_blocked()  # a fifth would have come by now
        for request in reversed(first):
            await peer.respond(request, 0x0000)
        for request in await stores(peer, 4):
            await peer.respond(request, 0x0000)
        await finish(peer)

    async with windowed(script, 4) as assoc:
        outcomes = [uid_of(stored.what) async for stored in assoc.store_many(instances(8))]
        assert outcomes == uids(8)
        await assoc.echo()


async def test_a_window_of_one_sends_the_next_only_after_the_response() -> None:
    answered = 0
    taken = 0

    def source() -> Iterator[asyncdicom.Instance]:
        nonlocal taken
        for instance in instances(4):
            taken += 1
            yield instance

    async def script(peer: ScriptedPeer) -> None:
        nonlocal answered
        for number in range(4):
            request = await peer.expect_message(C_STORE_RQ)
            assert number == answered
            await wait_all_tasks_blocked()
            # One more is at hand, and no more than that.
            assert taken == min(number + 2, 4)
            answered += 1
            await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc:
        assert len([stored async for stored in assoc.store_many(source())]) == 4
        await assoc.echo()


async def test_what_cannot_be_sent_is_an_outcome_and_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "no_dicom").write_bytes(b"no DICOM " * 100)
    (tmp_path / "folder").mkdir()
    bad: list[tuple[Any, type[Exception]]] = [
        (tmp_path / "no_dicom", asyncdicom.DataSetError),
        (tmp_path / "missing", FileNotFoundError),
        (str(tmp_path / "folder"), OSError),
        (pydicom.Dataset(), asyncdicom.DataSetError),
        (
            asyncdicom.Instance.from_bytes(b"", sop.MR_IMAGE_STORAGE, "1.2", sop.EXPLICIT_VR_LITTLE_ENDIAN),
            asyncdicom.NoPresentationContext,
        ),
    ]
    what: list[Any] = []
    for good, (item, _) in zip(instances(5), bad, strict=True):
        what += [good, item]

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(5):
            request = await peer.expect_message(C_STORE_RQ)
            await peer.respond(request, 0x0000)
        await finish(peer)

    async with windowed(script, 5) as assoc:
        outcomes = [stored async for stored in assoc.store_many(what)]
        await assoc.echo()
    assert [stored.what for stored in outcomes] == what
    assert all(stored.error is None for stored in outcomes[::2])
    for stored, (_, error) in zip(outcomes[1::2], bad, strict=True):
        assert isinstance(stored.error, error)
        assert stored.response is None


async def test_only_what_cannot_be_sent_sends_nothing(tmp_path: Path) -> None:
    async with scripted(finish) as assoc:
        outcomes = [stored async for stored in assoc.store_many(tmp_path / str(number) for number in range(200))]
        assert [type(stored.error) for stored in outcomes] == [FileNotFoundError] * 200
        await assoc.echo()


@pytest.mark.parametrize(
    ("status", "refused"), [(0x0000, False), (0xB000, False), (0xA700, True), (0x0117, True), (0xC123, True)]
)
async def test_a_failure_status_is_an_error_and_a_warning_is_not(status: int, refused: bool) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for answer in (status, 0x0000):
            request = await peer.expect_message(C_STORE_RQ)
            await peer.respond(request, answer, elements={0x0902: "why"} if answer else None)
        await finish(peer)

    async with scripted(script) as assoc:
        first, second = [stored async for stored in assoc.store_many(instances(2))]
        await assoc.echo()
    assert first.response is not None
    assert first.response.status == status
    assert second.error is None
    if refused:
        assert isinstance(first.error, asyncdicom.StatusError)
        assert first.error.status == status
    else:
        assert first.error is None


@pytest.mark.parametrize("what", [None, b"bytes"])
async def test_what_is_no_instance_at_all_is_a_mistake_of_the_caller(what: Any) -> None:
    async with scripted(finish) as assoc:
        with pytest.raises(TypeError):
            await anext(assoc.store_many([what]))
        await assoc.echo()


async def test_an_iterable_that_fails_does_so_behind_the_outcomes_of_what_it_gave() -> None:
    def source() -> Iterator[asyncdicom.Instance]:
        yield ct_instance()
        raise ZeroDivisionError

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_STORE_RQ)
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc:
        storing = assoc.store_many(source())
        assert (await anext(storing)).error is None
        with pytest.raises(ZeroDivisionError):
            await anext(storing)
        assert storing.pending == []
        await assoc.echo()


# Files.


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("size", [10, 300_000, 600_001, 1_500_000])
async def test_files_of_every_size_arrive_as_they_are(size: int, inline: bool, window: int, tmp_path: Path) -> None:
    paths = [ct_file(tmp_path / f"{uid}.dcm", size + number, uid) for number, uid in enumerate(uids(5))]

    async def script(peer: ScriptedPeer) -> None:
        for number, uid in enumerate(uids(5)):
            request = await peer.expect_message(C_STORE_RQ)
            assert request.text(0x1000) == uid
            assert request.data_set == ct_bytes(size + number, uid)
            await peer.respond(request, 0x0000)
        await finish(peer)

    async with windowed(script, window, limits=asyncdicom.Limits(inline_file_io=inline)) as assoc:
        assert [stored.what async for stored in assoc.store_many(paths)] == paths
        await assoc.echo()
    assert descriptors() == []


class Shortened:
    """A source that has half of what it promises."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._left = size // 2

    def read_into(self, views: Sequence[memoryview]) -> int:
        read = min(self._left, sum(map(len, views)))
        self._left -= read
        return read

    def close(self) -> None:
        pass


def shortened(size: int) -> asyncdicom.Instance:
    return asyncdicom.Instance(sop.CT_IMAGE_STORAGE, "1.2", sop.EXPLICIT_VR_LITTLE_ENDIAN, lambda: Shortened(size))


async def test_a_file_that_became_shorter_is_an_outcome_if_it_was_read_ahead() -> None:
    short = shortened(600_000)

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(2):
            request = await peer.expect_message(C_STORE_RQ)
            await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc:
        one, bad, two = [stored async for stored in assoc.store_many([ct_instance(), short, ct_instance()])]
        assert one.error is None
        assert two.error is None
        assert isinstance(bad.error, OSError)
        await assoc.echo()


async def test_a_file_that_became_shorter_after_a_part_was_sent_ends_the_association() -> None:
    short = shortened(3 << 20)

    async def script(peer: ScriptedPeer) -> None:
        await peer.read_to_end()

    async with windowed(script, 2, timeouts=asyncdicom.Timeouts(abort=0.05)) as assoc:
        good = ct_instance()
        source = iter([good, short, good])
        storing = assoc.store_many(source)
        stored = await anext(storing)
        assert stored.what is short
        assert isinstance(stored.error, OSError)
        with pytest.raises(asyncdicom.AssociationAborted, match="broke off"):
            await anext(storing)
        assert (storing.pending, storing.unsent, list(source)) == ([good], [], [good])


async def test_a_native_instance_is_converted_or_is_an_outcome() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_STORE_RQ)
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, accept={"transfer_syntax": str(sop.IMPLICIT_VR_LITTLE_ENDIAN)}) as assoc:
        (refused,) = [stored async for stored in assoc.store_many(instances(1), convert=False)]
        assert isinstance(refused.error, asyncdicom.NoPresentationContext)
        (converted,) = [stored async for stored in assoc.store_many(instances(1))]
        assert converted.error is None
        await assoc.echo()


JUNK = b"\x08\x00\x16\x00UI\xff\xff junk"


async def test_a_data_set_that_cannot_be_converted_is_an_outcome_if_nothing_of_it_was_sent() -> None:
    junk = asyncdicom.Instance.from_bytes(JUNK, sop.CT_IMAGE_STORAGE, "1.2", sop.EXPLICIT_VR_LITTLE_ENDIAN)

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(2):
            request = await peer.expect_message(C_STORE_RQ)
            await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script, accept={"transfer_syntax": str(sop.IMPLICIT_VR_LITTLE_ENDIAN)}) as assoc:
        one, bad, two = [stored async for stored in assoc.store_many([ct_instance(), junk, ct_instance()])]
        assert one.error is None
        assert two.error is None
        assert isinstance(bad.error, asyncdicom.DataSetError)
        await assoc.echo()


# Early ends.


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("how", ["async with", "aclose", "dropped"])
async def test_leaving_early_sends_no_more_and_leaves_the_association_intact(
    how: str, window: int, tmp_path: Path
) -> None:
    paths = [ct_file(tmp_path / f"{uid}.dcm", 1_200_000, uid) for uid in uids(9)]
    received: list[str | None] = []

    async def script(peer: ScriptedPeer) -> None:
        while True:
            request = await peer.expect_message()
            if request.command_field != C_STORE_RQ:
                break
            received.append(request.text(0x1000))
            await peer.respond(request, 0x0000)
        assert request.command_field != C_CANCEL_RQ
        await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async def leave(storing: asyncdicom.StoreMany) -> None:
        if how == "async with":
            async with storing:
                async for _ in storing:
                    break
        else:
            async for _ in storing:
                break
            if how == "aclose":
                await storing.aclose()
                await storing.aclose()
                assert [stored async for stored in storing] == []

    async with windowed(script, window) as assoc:
        await leave(assoc.store_many(paths))
        gc.collect()
        assert descriptors() == []
        await assoc.echo()
    assert received == uids(len(received))
    assert len(received) <= window + 1


async def test_cancelled_while_it_waits_it_leaves_the_association_intact(tmp_path: Path) -> None:
    paths = [ct_file(tmp_path / f"{uid}.dcm", 1_200_000, uid) for uid in uids(3)]

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(C_STORE_RQ)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with scripted(script) as assoc:
        storing = assoc.store_many(paths)
        with anyio.CancelScope() as scope:
            async for _ in storing:
                raise AssertionError
        assert scope.cancelled_caught
        assert (storing.pending, storing.unsent) == (paths[:1], paths[1:2])
        assert descriptors() == []
        await assoc.echo()


async def test_what_is_without_an_outcome_when_the_association_is_lost_is_known() -> None:
    async def script(peer: ScriptedPeer) -> None:
        requests = await stores(peer, 3)
        await peer.respond(requests[0], 0x0000)
        await peer.expect_message(C_STORE_RQ)
        await peer.aclose()

    async with windowed(script, 3) as assoc:
        storing = assoc.store_many(instances(9))
        assert uid_of((await anext(storing)).what) == "1.2.3.1"
        with pytest.raises(asyncdicom.AssociationClosed):
            await anext(storing)
        assert [uid_of(what) for what in storing.pending] == uids(4)[1:]
        assert [uid_of(what) for what in storing.unsent] in ([], uids(5)[4:])  # the one that is at hand


async def test_a_peer_that_does_not_answer_is_given_up() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await stores(peer, 2)
        await peer.expect_abort()
        await peer.aclose()

    async with windowed(script, 2, timeouts=asyncdicom.Timeouts(response=0.05)) as assoc:
        storing = assoc.store_many(instances(3))
        with pytest.raises(asyncdicom.OperationTimeout, match="response"):
            await anext(storing)
        assert (len(storing.pending), len(storing.unsent)) == (2, 1)


async def test_an_open_one_is_left_when_the_association_is_released() -> None:
    async def script(peer: ScriptedPeer) -> None:
        for request in await stores(peer, 2):
            await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with windowed(script, 2) as assoc:
        storing = assoc.store_many(instances(2))
        await anext(storing)
    assert [stored async for stored in storing] == []


# Beside others.


async def test_other_verbs_may_be_called_in_the_loop_and_have_message_ids_of_their_own() -> None:
    seen: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        for _ in range(8):
            request = await peer.expect_message()
            seen.append(request.message_id)
            await peer.respond(request, 0x0000)
        await peer.confirm_release()

    async with scripted(script) as assoc:
        async for _ in assoc.store_many(instances(4)):
            await assoc.echo()
    assert len(set(seen)) == 8


async def test_two_at_once_share_the_window() -> None:
    async def script(peer: ScriptedPeer) -> None:
        for _ in range(10):
            for request in await stores(peer, 2):
                await peer.respond(request, 0x0000)
        await finish(peer)

    async def send(assoc: asyncdicom.Association) -> None:
        outcomes.append([uid_of(stored.what) async for stored in assoc.store_many(instances(10))])

    outcomes: list[list[str]] = []
    async with windowed(script, 2) as assoc:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, assoc)
            tasks.start_soon(send, assoc)
        assert outcomes == [uids(10), uids(10)]
        await assoc.echo()


async def test_an_instance_that_is_being_received_is_refused() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(0x0010)
        await peer.send_message(
            CT_ID,
            {0x0002: sop.CT_IMAGE_STORAGE, 0x0100: C_STORE_RQ, 0x0110: 7, 0x0700: 0, 0x1000: "1.2.3.4"},
            ct_bytes(),
        )
        await peer.expect_message(0x8001)
        await peer.respond(request, 0x0000)
        await finish(peer)

    async with windowed(script, 3) as assoc:
        async for instance in assoc.get({"PatientID": "1"}):
            with pytest.raises(asyncdicom.LocalProtocolError, match="being received"):
                await anext(assoc.store_many([instance]))
        await assoc.echo()


# Everything that store() takes.


class Own:
    """A source of one's own, whose length may not be known before."""

    def __init__(self, data: bytes, size: int | None) -> None:
        self._data = memoryview(data)
        self.size = size

    def read_into(self, views: Sequence[memoryview]) -> int:
        read = 0
        for view in views:
            step = min(len(view), len(self._data))
            view[:step] = self._data[:step]
            self._data = self._data[step:]
            read += step
        return read

    def close(self) -> None:
        pass


def own(data: bytes, size: int | None) -> asyncdicom.Instance:
    return asyncdicom.Instance(sop.CT_IMAGE_STORAGE, "1.2.3.4", sop.EXPLICIT_VR_LITTLE_ENDIAN, lambda: Own(data, size))


def in_memory(data: bytes, syntax: str = sop.EXPLICIT_VR_LITTLE_ENDIAN) -> asyncdicom.Instance:
    return asyncdicom.Instance.from_bytes(data, sop.CT_IMAGE_STORAGE, "1.2.3.4", syntax)


def everything(folder: Path) -> list[Any]:
    """What can be stored: of every kind, and of lengths around those that are treated differently."""
    dataset = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    what: list[Any] = [dataset, str(TEST_FILES / "CT_small.dcm"), asyncdicom.Instance.from_dataset(dataset)]
    for number, size in enumerate((0, 256 << 10, 600_000, 1 << 20, 3 << 20)):
        path = ct_file(folder / f"{number}.dcm", size)
        data = ct_bytes(size)
        what += [path, asyncdicom.Instance.from_file(path), own(data, len(data)), own(data, None), in_memory(data)]
    what += [in_memory(b""), in_memory(b"\0"), in_memory(bytes(700_001)), own(bytes(700_001), 700_001), own(b"", 0)]
    deflate = zlib.compressobj(wbits=-15)
    what.append(in_memory(deflate.compress(ct_bytes(5)) + deflate.flush(), sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))
    return what


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("syntax", [sop.EXPLICIT_VR_LITTLE_ENDIAN, sop.IMPLICIT_VR_LITTLE_ENDIAN])
async def test_everything_arrives_as_store_sends_it(syntax: str, window: int, tmp_path: Path) -> None:
    seen: list[tuple[int, str | None, bytes | None]] = []

    async def script(peer: ScriptedPeer) -> None:
        while (request := await peer.expect_message()).command_field == C_STORE_RQ:
            seen.append((request.context_id, request.text(0x1000), request.data_set))
            await peer.respond(request, 0x0000)
        await peer.respond(request, 0x0000)
        await peer.confirm_release()

    contexts = [
        sop.VERIFICATION,
        asyncdicom.PresentationContext(abstract_syntax=sop.CT_IMAGE_STORAGE, transfer_syntaxes=(syntax,)),
        asyncdicom.PresentationContext(
            abstract_syntax=sop.CT_IMAGE_STORAGE, transfer_syntaxes=(sop.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,)
        ),
    ]
    what = everything(tmp_path)
    async with windowed(script, window, contexts=contexts) as assoc:
        many = [stored async for stored in assoc.store_many(what * 2)]
        sent = seen.copy()
        seen.clear()
        for stored in many:
            if stored.error is None:
                await assoc.store(stored.what)
            else:
                with pytest.raises(type(stored.error)):
                    await assoc.store(stored.what)
        await assoc.echo()
    assert [stored.what for stored in many] == what * 2
    assert sent == seen
    assert len(sent) >= 2 * (len(what) - 5)
    assert descriptors() == []
