from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vx.errors import VxError
from vx.session.turns import Turns

A, B = "hosts/N/MMExportAgent.0", "hosts/N/MMExportAgent.1"


def test_clients_take_turns_however_many_sessions_one_of_them_has() -> None:
    turns = Turns(1, 100)
    for number in range(10):
        turns.enter(f"a{number}", "alice", A)
    turns.enter("b0", "bob", A)
    turns.enter("c0", "carol", A)
    turns.enter("b1", "bob", A)
    order = []
    for _ in range(8):
        (key,) = turns.grant()
        order.append(key)
        turns.leave(key)
    assert order == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]


def test_a_free_place_goes_to_the_client_with_the_fewest() -> None:
    turns = Turns(4, 100)
    for number in range(6):
        turns.enter(f"a{number}", "alice", A)
    assert turns.grant() == ["a0", "a1", "a2", "a3"]
    for number in range(3):
        turns.enter(f"b{number}", "bob", A)
    turns.leave("a0")
    turns.leave("a1")
    assert turns.grant() == ["b0", "b1"]
    turns.leave("a2")
    assert turns.grant() == ["a4"]  # two each, or one and two: alice has the fewest


def test_a_busy_agent_holds_up_nobody_elses_sessions() -> None:
    turns = Turns(10, 3, {A: 1, B: 2})
    for key in ("a0", "a1", "a2"):
        turns.enter(key, "alice", A)
    turns.enter("b0", "alice", B)
    assert turns.grant() == ["a0", "b0"]
    turns.enter("a3", "alice", A)
    with pytest.raises(VxError, match=f"1 sessions are running at {A}, and at most 1 may at a time; 3 wait, and"):
        turns.enter("a4", "bob", A)
    turns.enter("b1", "alice", B)  # there is a place for it: it need not wait
    assert turns.grant() == ["b1"]


def test_without_a_queue_nobody_waits() -> None:
    turns = Turns(1, 0)
    turns.enter("a", "alice", A)
    assert turns.grant() == ["a"]
    with pytest.raises(VxError, match=r"^1 sessions are running, and at most 1 may at a time$"):
        turns.enter("b", "bob", A)
    turns.leave("a")
    turns.enter("b", "bob", A)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([A, B]), st.booleans()), max_size=60))
def test_limits_hold_and_nobody_waits_beside_a_free_place(steps: list[tuple[str, str, bool]]) -> None:
    turns = Turns(3, 5, {A: 2})
    running: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for number, (client, agent, leaves) in enumerate(steps):
        if leaves and running:
            key = next(iter(running))
            del running[key]
            turns.leave(key)
        else:
            try:
                turns.enter(str(number), client, agent)
            except VxError:
                assert len(waiting) == 5
            else:
                waiting[str(number)] = agent
        for key in turns.grant():
            running[key] = waiting.pop(key)
        assert len(running) <= 3
        assert len(waiting) <= 5
        at_a = list(running.values()).count(A)
        assert at_a <= 2
        if len(running) < 3:
            assert not waiting or (at_a == 2 and set(waiting.values()) == {A})


def test_a_client_has_no_more_running_than_its_limit() -> None:
    turns = Turns(4, 3)
    for number in range(3):
        turns.enter(f"a{number}", "alice", A, 2)
    turns.enter("b0", "bob", A, 1)
    assert turns.grant() == ["a0", "b0", "a1"]
    assert turns.check("alice", A, 2)
    assert not turns.check("bob", A, 2)
    turns.leave("a0")
    assert turns.grant() == ["a2"]


def test_who_is_refused_at_the_own_limit_is_told_of_it() -> None:
    turns = Turns(4, 0)
    turns.enter("a0", "alice", A, 1)
    turns.grant()
    with pytest.raises(VxError, match="1 sessions of yours are running, and at most 1 may"):
        turns.enter("a1", "alice", A, 1)
