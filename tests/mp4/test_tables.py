from __future__ import annotations

import itertools
from array import array

from hypothesis import given
from hypothesis import strategies as st

from vx.mp4 import tables
from vx.mp4.tables import Chunks, Samples


@st.composite
def samples(draw: st.DrawFn) -> Samples:
    sizes = draw(st.lists(st.integers(0, 50), min_size=1, max_size=40))
    count = len(sizes)
    deltas = draw(st.lists(st.sampled_from([1, 2, 2, 2, 7]), min_size=count, max_size=count))
    shifts = draw(st.lists(st.sampled_from([0, 0, 3, -2]), min_size=count, max_size=count))
    chunks = Chunks()
    first, offset = 0, draw(st.integers(0, 100))
    while first < count:
        number = draw(st.integers(1, count - first))
        length = sum(sizes[first : first + number])
        chunks.add(offset, length, number)
        offset += length + draw(st.integers(0, 9))
        first += number
    return Samples(
        start=draw(st.integers(-20, 20)),
        sizes=array("I", sizes),
        deltas=tables.compress(deltas),
        shifts=tables.compress(shifts),
        keys=array("I", sorted(draw(st.sets(st.integers(0, count - 1))))),
        chunks=chunks,
    )


def places(of: Samples) -> list[tuple[int, int]]:
    found = list(of.places())
    ends = itertools.accumulate(of.chunks.counts)
    for offset, length, end in zip(of.chunks.offsets, of.chunks.lengths, ends, strict=True):
        at, size = found[end - 1]
        assert at + size == offset + length
    return found


@given(samples(), st.data())
def test_a_slice_is_the_same_samples(whole: Samples, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(begin + 1, len(whole)))
    part = whole.slice(begin, end)
    assert len(part) == end - begin
    assert part.decoded() == whole.decoded()[begin:end]
    assert part.shown() == whole.shown()[begin:end]
    assert places(part) == places(whole)[begin:end]
    assert [key + begin for key in part.keys] == [key for key in whole.keys if begin <= key < end]
    assert part.last == part.decoded()[-1]
    assert part.end - part.last == list(tables.expand(whole.deltas))[end - 1]


@given(samples())
def test_when_the_first_and_the_last_one_is_shown(whole: Samples) -> None:
    shown = whole.shown()
    assert whole.first_shown() == min(shown)
    assert whole.last_shown() == max(shown)
    assert whole.shown_until() == max(at + lasts for at, lasts in zip(shown, whole.lasting(), strict=True))


@given(samples(), st.integers(-40, 400))
def test_the_first_sample_at_a_time(whole: Samples, moment: int) -> None:
    times = whole.decoded()
    assert whole.find(moment) == next((i for i, at in enumerate(times) if at >= moment), len(times))


@given(samples(), st.integers(-40, 400))
def test_what_is_shown_after_a_time(whole: Samples, moment: int) -> None:
    assert whole.shows_after(moment) == any(at >= moment for at in whole.shown())


@given(st.lists(st.integers(-3, 3)), st.integers(-3, 3))
def test_runs_are_their_items(values: list[int], last: int) -> None:
    runs = tables.compress(values)
    assert list(tables.expand(runs)) == values
    assert tables.total(runs) == sum(values)
    again: tables.Runs = []
    tables.extend(again, runs)
    assert again == runs
    if values:
        tables.replace_last(again, last)
        assert list(tables.expand(again)) == [*values[:-1], last]


def test_big_endian() -> None:
    assert tables.to_big_endian(array("I", [1, 0x01020304])) == b"\0\0\0\1\1\2\3\4"
    assert list(tables.from_big_endian(b"\xff\xff\xff\xfe", "i")) == [-2]


@given(st.lists(st.integers(50, 1 << 62)), st.integers(-50, 1 << 62))
def test_numbers_that_are_shifted(offsets: list[int], by: int) -> None:
    assert list(tables.shifted(array("Q", offsets), by)) == [offset + by for offset in offsets]
