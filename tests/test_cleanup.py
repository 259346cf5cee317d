"""Clean-up in the ``finally`` of what is cancelled: it may await, for as long as it said, and hides nothing."""

from __future__ import annotations

import anyio
import pytest

import asyncdicom

from .harness import PATIENCE

pytestmark = pytest.mark.anyio


async def test_clean_up_awaits_although_its_task_is_cancelled() -> None:
    done: list[str] = []
    with anyio.CancelScope() as scope:
        try:
            scope.cancel()
            await anyio.sleep_forever()
        finally:
            async with asyncdicom.cleanup(seconds=PATIENCE):
                await anyio.lowlevel.checkpoint()
                done.append("cleaned up")
    assert scope.cancelled_caught
    assert done == ["cleaned up"]


async def test_a_cancellation_during_the_clean_up_takes_effect_behind_it() -> None:
    done: list[str] = []
    with anyio.CancelScope() as scope:
        async with asyncdicom.cleanup(seconds=PATIENCE):
            scope.cancel()
            await anyio.lowlevel.checkpoint()
            done.append("cleaned up")
        await anyio.lowlevel.checkpoint()
        done.append("went on")  # pragma: no cover
    assert scope.cancelled_caught
    assert done == ["cleaned up"]


@pytest.mark.parametrize("seconds", [0, -1, 0.001])
async def test_what_takes_longer_is_cancelled_and_the_task_goes_on(seconds: float) -> None:
    with anyio.fail_after(PATIENCE):
        async with asyncdicom.cleanup(seconds=seconds):
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()


async def test_what_takes_longer_in_a_cancelled_task_leaves_that_cancelled() -> None:
    done: list[str] = []
    with anyio.fail_after(PATIENCE), anyio.CancelScope() as scope:
        try:
            scope.cancel()
            await anyio.sleep_forever()
        finally:
            async with asyncdicom.cleanup(seconds=0):
                await anyio.sleep_forever()
            done.append("behind the clean-up")
    assert scope.cancelled_caught
    assert done == ["behind the clean-up"]


@pytest.mark.parametrize(
    "error", [ValueError("no"), asyncdicom.AssociationClosed("lost"), KeyboardInterrupt()], ids=repr
)
async def test_an_error_of_the_clean_up_comes_out(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with asyncdicom.cleanup():
            raise error
    assert caught.value is error


async def test_the_error_that_made_the_clean_up_necessary_is_not_lost() -> None:
    first = ValueError("the reason")

    async def fail() -> None:
        try:
            raise first
        finally:
            async with asyncdicom.cleanup(seconds=0):
                await anyio.sleep_forever()

    with pytest.raises(ValueError, match="the reason") as caught:
        await fail()
    assert caught.value is first


async def test_clean_up_within_clean_up_has_its_own_time() -> None:
    done: list[str] = []
    with anyio.fail_after(PATIENCE):
        async with asyncdicom.cleanup(seconds=PATIENCE):
            async with asyncdicom.cleanup(seconds=0):
                await anyio.sleep_forever()
            await anyio.lowlevel.checkpoint()
            done.append("outer")
    assert done == ["outer"]
