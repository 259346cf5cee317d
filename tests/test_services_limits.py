"""Limits of handlers: time, and the number of sub-operations."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

import asyncdicom
from asyncdicom import sop, testing

pytestmark = pytest.mark.anyio

_IN_TIME = asyncdicom.Timeouts(handler=0.05)


async def test_a_handler_that_takes_too_long_is_cancelled_and_the_association_lives() -> None:
    services = asyncdicom.Services()
    ended: list[int] = []

    @services.echo()
    async def echo(request: asyncdicom.EchoRequest) -> None:
        try:
            if not ended:
                await anyio.sleep_forever()
        finally:
            ended.append(request.message_id)

    async with testing.connected(services, server_timeouts=_IN_TIME) as assoc:
        with pytest.raises(asyncdicom.StatusError) as caught:
            await assoc.echo()
        assert caught.value.comment == "the handler took too long"
        assert ended == [1]
        assert (await assoc.echo()).status == 0


async def test_a_generator_that_takes_too_long_between_two_matches_ends_its_operation() -> None:
    services = asyncdicom.Services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        yield b"\x10\x00\x20\x00LO\x02\x001 "
        await anyio.sleep_forever()

    async with testing.connected(services, server_timeouts=_IN_TIME) as assoc:
        matches = assoc.find(level="STUDY", PatientID="")
        assert (await anext(matches)).PatientID == "1"
        with pytest.raises(asyncdicom.StatusError) as caught:
            await anext(matches)
        assert caught.value.status == 0xA700
        assert assoc.ended is False


@pytest.mark.parametrize(("saturate", "status"), [(True, 0xA702), (False, 0xC416)])
async def test_more_sub_operations_than_can_be_counted_saturate_or_are_refused(saturate: bool, status: int) -> None:
    services = asyncdicom.Services()
    services.saturate_counters = saturate

    @services.get(sop.STUDY_ROOT_GET)
    async def get(request: asyncdicom.RetrieveRequest) -> AsyncIterator[int]:
        yield 70_000

    async with testing.connected(services) as assoc:
        retrieval = assoc.get(level="STUDY", StudyInstanceUID="1.2", check=False)
        assert [instance async for instance in retrieval] == []
        assert retrieval.response is not None
        assert retrieval.response.status == status
        if saturate:
            assert retrieval.response.progress.failed == 65_535


@pytest.mark.parametrize("first", [None, "many", True, -1, 1.5])
async def test_what_is_no_number_of_sub_operations_is_refused(first: object) -> None:
    services = asyncdicom.Services()

    @services.retrieve(sop.STUDY_ROOT_GET)
    async def retrieve(request: asyncdicom.RetrieveRequest) -> AsyncIterator[object]:
        yield first

    async with testing.connected(services) as assoc:
        with pytest.raises(asyncdicom.StatusError) as caught:
            async for _ in assoc.get(level="STUDY", StudyInstanceUID="1"):
                pass
        assert caught.value.status == 0xC413


async def test_a_timeout_in_a_handler_is_an_exception_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    services = asyncdicom.Services()

    @services.find(sop.STUDY_ROOT_FIND)
    async def find(request: asyncdicom.FindRequest) -> AsyncIterator[bytes]:
        with anyio.fail_after(0):
            await anyio.sleep_forever()
        yield b""

    async with testing.connected(services) as assoc:
        with pytest.raises(asyncdicom.StatusError) as caught:
            await anext(assoc.find(level="STUDY", PatientID=""))
        assert caught.value.status == 0xC311
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]
