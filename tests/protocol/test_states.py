"""The state machine's tables against PS3.8 Tables 9-6 to 9-10."""

from __future__ import annotations

import pytest

from asyncdicom.protocol.states import ACTIONS, TRANSITIONS, Action, Input, State

from .table_9_10 import EFFECTS, EXPECTED


def test_there_are_thirteen_states_nineteen_events_and_twenty_eight_actions() -> None:
    assert [state.value for state in State] == list(range(1, 14))
    assert [event.value for event in Input] == list(range(1, 20))
    assert [action.value for action in Action] == list(EFFECTS)
    assert len(Action) == 28


@pytest.mark.parametrize("state", State, ids=lambda state: f"Sta{state.value}")
@pytest.mark.parametrize("event", Input, ids=lambda event: f"Evt{event.value}")
def test_each_cell_of_table_9_10_is_the_standards(event: Input, state: State) -> None:
    action = TRANSITIONS.get((event, state))
    if action is None:
        assert (event, state) not in EXPECTED
        return
    row = ACTIONS[action]
    following = (row.next,) if row.alternative is None else (row.next, row.alternative)
    assert (action.value, tuple(following)) == EXPECTED[event, state]


def test_the_table_has_no_other_cells() -> None:
    assert {(event.value, state.value) for event, state in TRANSITIONS} == EXPECTED.keys()
    assert len(TRANSITIONS) == 123


@pytest.mark.parametrize("name", EFFECTS)
def test_each_action_does_what_tables_9_6_to_9_9_say(name: str) -> None:
    row = ACTIONS[Action(name)]
    expected = EFFECTS[name]
    assert (row.send.name if row.send else None) == expected.sends
    assert (row.indicate.name if row.indicate else None) == expected.indicates
    assert (row.artim.name if row.artim else None) == expected.artim
    assert row.close is expected.closes


def test_every_action_is_a_cell_of_the_table_and_has_a_row() -> None:
    assert set(TRANSITIONS.values()) == set(Action) == set(ACTIONS)


def test_only_association_request_and_release_collision_have_two_next_states() -> None:
    assert {action for action, row in ACTIONS.items() if row.alternative is not None} == {Action.AE6, Action.AR8}


def test_an_action_that_closes_the_transport_ends_idle() -> None:
    assert {row.next for row in ACTIONS.values() if row.close} == {State.STA1}
