"""The door that one message passes at a time: nobody is passed over, and nobody who left is waited for."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asyncdicom.outgoing import Door

from .harness import PATIENCE

pytestmark = pytest.mark.anyio


class House:
    """A door, and who passed it."""

    def __init__(self) -> None:
        self.door = Door()
        self.inside = 0
        self.order: list[str] = []
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def visit(self, name: str, gate: anyio.Event | None = None) -> None:
        """Enter, wait for the gate, and leave; a name in :attr:`scopes` can be cancelled."""
        scope = self.scopes[name] = anyio.CancelScope()
        with scope:
            async with self.door:
                self.inside += 1
                try:
                    assert self.inside == 1
                    assert self.door.locked()
                    self.order.append(name)
                    if gate is not None:
                        await gate.wait()
                    await checkpoint()
                finally:
                    self.inside -= 1

    async def waiting(self, count: int) -> None:
        """Wait until somebody is inside, and so many wait at the door."""
        with anyio.fail_after(PATIENCE):
            while not self.door.locked() or len(self.door._waiters) != count:
                await checkpoint()


async def test_a_door_at_which_nobody_is_opens_without_a_task_switch() -> None:
    door = Door()
    switched: list[str] = []

    async def other() -> None:
        switched.append("other")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for _ in range(3):
            assert not door.locked()
            async with door:
                assert door.locked()
        assert switched == []
    assert not door.locked()


async def test_who_does_not_want_to_wait_enters_only_if_nobody_is_inside() -> None:
    door = Door()
    assert door.enter()
    assert door.locked()
    assert not door.enter()
    door.leave()
    assert not door.locked()
    async with door:
        assert not door.enter()
    assert door.enter()


async def test_waiters_enter_one_at_a_time_in_turn() -> None:
    house, gate = House(), anyio.Event()
    names = [f"visitor {number}" for number in range(10)]
    async with anyio.create_task_group() as tasks:
        for position, name in enumerate(names):
            tasks.start_soon(house.visit, name, gate)
            await house.waiting(position)
        gate.set()
    assert house.order == names
    assert not house.door.locked()


async def test_who_comes_while_the_door_is_held_for_the_next_does_not_push_in() -> None:
    door, order = Door(), list[str]()

    async def wait() -> None:
        async with door:
            order.append("who waited")

    async with anyio.create_task_group() as tasks:
        async with door:
            tasks.start_soon(wait)
            while not door._waiters:
                await checkpoint()
        # The waiter has been told, but did not run yet.
        assert door.locked()
        async with door:
            order.append("who came then")
    assert order == ["who waited", "who came then"]
    assert not door.locked()


@pytest.mark.parametrize("gone", [{"first"}, {"second"}, {"third"}, {"first", "third"}, {"first", "second", "third"}])
async def test_a_waiter_that_is_cancelled_changes_nothing_for_the_others(gone: set[str]) -> None:
    house, gate = House(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        for position, name in enumerate(("inside", "first", "second", "third")):
            tasks.start_soon(house.visit, name, gate)
            await house.waiting(position)
        for name in gone:
            house.scopes[name].cancel()
        await house.waiting(3 - len(gone))
        gate.set()
    assert house.order == [name for name in ("inside", "first", "second", "third") if name not in gone]
    assert not house.door.locked()


async def test_a_waiter_that_is_cancelled_when_it_was_told_already_holds_nobody_up() -> None:
    house = House()
    async with anyio.create_task_group() as tasks:
        async with house.door:
            for position, name in enumerate(("told", "next"), 1):
                tasks.start_soon(house.visit, name)
                await house.waiting(position)
        # The first was told to enter; it is cancelled before it runs.
        house.scopes["told"].cancel()
    assert house.order in (["next"], ["told", "next"])
    assert not house.door.locked()


async def test_the_last_waiter_that_is_cancelled_when_it_was_told_leaves_the_door_open() -> None:
    house = House()
    async with anyio.create_task_group() as tasks:
        async with house.door:
            tasks.start_soon(house.visit, "told")
            await house.waiting(1)
        house.scopes["told"].cancel()
    assert not house.door.locked()


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=repr)
async def test_who_leaves_by_an_error_leaves_the_door_open(error: BaseException) -> None:
    door = Door()
    with pytest.raises(type(error)):
        async with door:
            raise error
    assert not door.locked()


async def test_who_is_cancelled_inside_lets_the_next_enter() -> None:
    house, gate = House(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.visit, "inside", gate)
        await house.waiting(0)
        tasks.start_soon(house.visit, "next")
        await house.waiting(1)
        house.scopes["inside"].cancel()
    assert house.order == ["inside", "next"]
    assert not house.door.locked()
