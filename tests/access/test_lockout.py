"""Who is held off: by the account, by the address, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vx.access import lockout
from vx.access.lockout import ACCOUNT_FREE, ADDRESS_FREE, FORGET_S, LONGEST_PAUSE_S, Lockout, Verdict

HERE, THERE = "192.0.2.1", "192.0.2.2"


def fail(held: Lockout, times: int, account: str = "alice", host: str = HERE, now: float = 0) -> list[float]:
    return [held.failed(account, host, now) for _ in range(times)]


def test_the_first_failures_cost_nothing_and_then_each_pause_is_twice_as_long() -> None:
    held = Lockout()
    assert fail(held, ACCOUNT_FREE - 1) == [0.0] * (ACCOUNT_FREE - 1)
    assert held.judge("alice", HERE, 0) is Verdict.OPEN
    now, pauses = 0.0, []
    for number in range(20):
        # Another address each time for the address's own count.
        pauses.append(held.failed("alice", f"198.51.100.{number}", now))
        now += pauses[-1]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert held.judge("alice", "198.51.100.19", now - 1) is Verdict.ACCOUNT_LOCKED
    assert held.judge("alice", "198.51.100.19", now) is Verdict.OPEN


def test_a_locked_account_lets_others_in_from_elsewhere() -> None:
    held = Lockout()
    fail(held, 8)
    assert held.judge("alice", HERE, 0) is Verdict.ACCOUNT_LOCKED
    assert held.judge("alice", THERE, 0) is Verdict.OPEN
    assert held.judge("bob", HERE, 0) is Verdict.OPEN


def test_an_address_that_goes_on_is_held_off_from_all_accounts() -> None:
    held = Lockout()
    for number in range(ADDRESS_FREE):
        held.failed(f"user {number}", HERE, 0)
    assert held.judge("somebody else", HERE, 0) is Verdict.ADDRESS_BLOCKED
    assert held.judge("somebody else", THERE, 0) is Verdict.OPEN


def test_one_success_does_not_free_an_address() -> None:
    held = Lockout()
    fail(held, ADDRESS_FREE)
    held.succeeded("mallory", HERE)
    assert held.judge("alice", HERE, 0) is Verdict.ADDRESS_BLOCKED


def test_who_mistyped_and_then_did_not_is_not_locked_with_the_account() -> None:
    held = Lockout()
    held.failed("alice", THERE, 0)
    held.succeeded("alice", THERE)
    fail(held, 8)
    assert held.judge("alice", THERE, 0) is Verdict.OPEN


def test_all_is_forgotten_after_a_while() -> None:
    held = Lockout()
    (*_, pause) = fail(held, ADDRESS_FREE)
    later = pause + FORGET_S
    assert held.judge("alice", HERE, later) is Verdict.OPEN
    assert fail(held, 1, now=later) == [0.0]


def test_an_ipv6_network_is_one_address() -> None:
    held = Lockout()
    for number in range(ADDRESS_FREE):
        held.failed(f"user {number}", f"2001:db8:0:1::{number:x}", 0)
    assert held.judge("x", "2001:db8:0:1:ffff::1", 0) is Verdict.ADDRESS_BLOCKED
    assert held.judge("x", "2001:db8:0:2::1", 0) is Verdict.OPEN
    for number in range(ADDRESS_FREE):
        held.failed(f"user {number}", "::ffff:192.0.2.1", 0)
    assert held.judge("x", "::ffff:192.0.2.2", 0) is Verdict.OPEN


def test_memory_is_bounded() -> None:
    held = Lockout()
    for number in range(3 * lockout.CAPACITY):
        held.failed("x" * 1000 + str(number), f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0)
    for memory in (held._accounts, held._addresses, held._pairs):
        assert len(memory._of) == lockout.CAPACITY


def test_of_too_many_the_one_that_failed_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockout, "CAPACITY", 3)
    held = Lockout()
    hosts = [f"192.0.2.{number}" for number in range(4)]
    for host in (*hosts[:3], hosts[0], hosts[3]):
        fail(held, ADDRESS_FREE, account="alice", host=host)
    blocked = [host for host in hosts if held.judge("x", host, 0) is Verdict.ADDRESS_BLOCKED]
    assert blocked == [hosts[0], hosts[2], hosts[3]]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([HERE, THERE]), st.floats(0, 100)), max_size=60))
def test_pauses_never_get_shorter_while_failures_go_on(steps: list[tuple[str, str, float]]) -> None:
    held, now = Lockout(), 0.0
    last: dict[tuple[str, str], float] = {}
    for account, host, wait in steps:
        now += wait
        pause = held.failed(account, host, now)
        key = (account, host)
        assert 0 <= pause <= LONGEST_PAUSE_S
        assert pause >= last.get(key, 0)
        last[key] = pause
