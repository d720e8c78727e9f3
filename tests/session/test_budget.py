from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vx.errors import Kind, VxError
from vx.session.budget import Budget, Survey

GB = 1 << 30


def test_results_take_no_more_than_they_may_and_the_numbers_are_told() -> None:
    budget = Budget(max_total=10 * GB)
    budget.reserve("a", Survey(need=4 * GB))
    budget.settle("a", 3 * GB)
    budget.reserve("b", Survey(need=5 * GB))
    with pytest.raises(VxError) as caught:
        budget.reserve("c", Survey(need=5 * GB // 2))
    assert caught.value.kind is Kind.EXHAUSTED
    assert str(caught.value) == (
        "the export needs about 2.5 GB; results may take 10.0 GB, and 3.0 GB are kept and 5.0 GB promised to sessions "
        "that run"
    )
    budget.settle("a", 0)
    budget.reserve("c", Survey(need=5 * GB // 2))


def test_some_of_the_disk_stays_free() -> None:
    budget = Budget(min_free=GB)
    budget.reserve("a", Survey(need=2 * GB, free=10 * GB))
    with pytest.raises(VxError) as caught:
        budget.reserve("b", Survey(need=7 * GB, free=8 * GB, written={"a": GB}))
    assert str(caught.value) == (
        "the export needs about 7.0 GB; 8.0 GB of the disk are free, of which 1.0 GB are promised to sessions that run "
        "and 1.0 GB stay free"
    )
    budget.reserve("b", Survey(need=7 * GB, free=8 * GB, written={"a": 2 * GB}))


def test_a_session_that_writes_more_than_was_thought_counts_with_what_it_wrote() -> None:
    budget = Budget(max_total=10)
    budget.reserve("a", Survey(need=2))
    with pytest.raises(VxError, match="8 bytes promised"):
        budget.reserve("b", Survey(need=3, written={"a": 8}))


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.booleans())))
def test_nothing_is_forgotten_or_counted_twice(steps: list[tuple[str, int, bool]]) -> None:
    budget = Budget(max_total=20)
    promised: dict[str, int] = {}
    kept: dict[str, int] = {}
    for key, size, settles in steps:
        if settles:
            budget.settle(key, size)
            promised.pop(key, None)
            kept[key] = size
        elif key not in promised:
            fits = sum(promised.values()) + sum(kept.values()) + size <= 20
            try:
                budget.reserve(key, Survey(need=size))
            except VxError:
                assert not fits
            else:
                assert fits
                promised[key] = size
