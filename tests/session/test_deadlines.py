from __future__ import annotations

import math
import random

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from vx.session.deadlines import Deadlines


async def test_keys_expire_when_their_time_has_come_and_not_before(autojump_clock: trio.testing.MockClock) -> None:
    deadlines = Deadlines()
    seen: list[tuple[float, str]] = []

    async def expire(key: str) -> None:
        seen.append((trio.current_time(), key))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.reap, expire)
        deadlines.set("late", start + 7200)
        deadlines.set("early", start + 60)
        deadlines.set("moved", start + 30)
        deadlines.set("moved", start + 3600)
        deadlines.set("removed", start + 10)
        deadlines.remove("removed")
        await trio.sleep(100)
        deadlines.set("earlier than what is slept for", start + 200)
        await trio.sleep(10_000)
        nursery.cancel_scope.cancel()
    assert seen == [
        (start + 60, "early"),
        (start + 200, "earlier than what is slept for"),
        (start + 3600, "moved"),
        (start + 7200, "late"),
    ]


async def test_ten_thousand_random_deadlines_are_met(autojump_clock: trio.testing.MockClock) -> None:
    deadlines = Deadlines()
    rng = random.Random(5)
    due = {f"s{index}": trio.current_time() + rng.randrange(80_000) for index in range(10_000)}
    wrong: list[str] = []

    async def expire(key: str) -> None:
        if trio.current_time() != due.pop(key):
            wrong.append(key)

    for key, deadline in due.items():
        deadlines.set(key, deadline)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.reap, expire)
        await trio.sleep(80_001)
        nursery.cancel_scope.cancel()
    assert not due
    assert not wrong


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 50))))
def test_the_earliest_is_that_of_a_plain_dict(changes: list[tuple[str, int | None]]) -> None:
    async def main() -> None:
        deadlines = Deadlines()
        model: dict[str, float] = {}
        for key, deadline in changes:
            if deadline is None:
                deadlines.remove(key)
                model.pop(key, None)
            else:
                deadlines.set(key, deadline)
                model[key] = deadline
            assert deadlines.earliest() == min(model.values(), default=math.inf)
        assert set(deadlines.pop_due(25)) == {key for key, at in model.items() if at <= 25}

    trio.run(main)


async def test_a_key_that_is_renewed_for_ever_does_not_grow_the_heap() -> None:
    deadlines = Deadlines()
    for n in range(100_000):
        deadlines.set("polled", n)
    assert len(deadlines._heap) < 1000
