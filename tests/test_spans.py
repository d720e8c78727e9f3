from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from vx import spans
from vx.spans import Span, merge

SOME = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8).map(
    lambda pairs: merge((begin, begin + length) for begin, length in pairs)
)


def moments(found: list[Span]) -> set[int]:
    assert all(begin < end for begin, end in found)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(found)), "rising and apart"
    return {moment for begin, end in found for moment in range(begin, end)}


@given(SOME, SOME)
def test_they_are_sets_of_moments(one: list[Span], other: list[Span]) -> None:
    assert moments(spans.overlap(one, other)) == moments(one) & moments(other)
    assert moments(spans.without(one, other)) == moments(one) - moments(other)
    assert spans.length(one) == len(moments(one))


@given(SOME, st.integers(0, 80), st.integers(0, 40))
@example([(0, 2)], 1, 1)
@example([(2, 4)], 1, 2)
def test_length_within_a_stretch(some: list[Span], begin: int, lasts: int) -> None:
    within = moments(some) & set(range(begin, begin + lasts))
    assert spans.length_within(some, (begin, begin + lasts)) == len(within)


def test_the_shortest_holes_give_way() -> None:
    some = [(0, 1), (3, 4), (5, 6), (10, 11), (12, 13)]
    assert spans.at_most(some, 5) == some
    assert spans.at_most(some, 3) == [(0, 1), (3, 6), (10, 13)]
    assert spans.at_most(some, 1) == [(0, 13)]
