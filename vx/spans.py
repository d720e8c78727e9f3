"""Stretches of time, and what lies in and between them. Pure.

A span is (begin, end) in microseconds, begin <= t < end. `Spans` are rising and apart from each other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[int, int]
Spans = Sequence[Span]


def merge(spans: Iterable[Span], min_gap_us: int = 0) -> list[Span]:
    """Rising spans, joined where no more than `min_gap_us` lies between them. They may come in any order."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin - merged[-1][1] <= min_gap_us:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def overlap(one: Spans, other: Spans) -> list[Span]:
    """What lies in both."""
    both: list[Span] = []
    i = j = 0
    while i < len(one) and j < len(other):
        begin, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if begin < end:
            both.append((begin, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return both


def without(whole: Spans, taken: Spans) -> list[Span]:
    """What of the first lies in none of the second."""
    left: list[Span] = []
    j = 0
    for begin, end in whole:
        at = begin
        while j < len(taken) and taken[j][1] <= at:
            j += 1
        k = j
        while k < len(taken) and taken[k][0] < end:
            if taken[k][0] > at:
                left.append((at, taken[k][0]))
            at = max(at, taken[k][1])
            k += 1
        if at < end:
            left.append((at, end))
    return left


def length(spans: Spans) -> int:
    """Microseconds in all of them."""
    return sum(end - begin for begin, end in spans)


def length_within(spans: Spans, span: Span) -> int:
    """Microseconds of them in one stretch."""
    at = bisect_right(spans, span[0], key=lambda each: each[1])
    within = 0
    while at < len(spans) and spans[at][0] < span[1]:
        within += min(spans[at][1], span[1]) - max(spans[at][0], span[0])
        at += 1
    return within


def at_most(spans: Spans, count: int) -> list[Span]:
    """At most `count` of them: the shortest holes between them are filled until that is so."""
    if len(spans) <= count:
        return list(spans)
    holes = range(1, len(spans))
    longest = sorted(holes, key=lambda i: spans[i - 1][1] - spans[i][0])[: count - 1]
    firsts = [0, *sorted(longest)]
    return [(spans[i][0], spans[k - 1][1]) for i, k in zip(firsts, [*firsts[1:], len(spans)], strict=True)]
