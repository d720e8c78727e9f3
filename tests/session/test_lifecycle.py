from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vx.model import State
from vx.session.lifecycle import TRANSITIONS, Event, IllegalTransitionError, advance


@given(st.lists(st.sampled_from(Event)))
def test_no_sequence_of_events_revives_a_session(events: list[Event]) -> None:
    order = list(State)
    state = State.RUNNING
    for event in events:
        if (state, event) in TRANSITIONS:
            after = advance(state, event)
            assert order.index(after) >= order.index(state)
            state = after
        else:
            with pytest.raises(IllegalTransitionError, match=f"{event.name} cannot happen .* {state.name}"):
                advance(state, event)


def test_every_state_but_the_last_has_a_way_on() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.FORGOTTEN}


def test_stop_is_allowed_in_every_state_that_a_client_can_see() -> None:
    assert {state for state, event in TRANSITIONS if event is Event.STOP} == set(State) - {State.FORGOTTEN}
