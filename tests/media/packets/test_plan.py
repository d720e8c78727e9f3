from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vx.media.packets import plan
from vx.media.packets.plan import (
    Budget,
    EndCut,
    GroupStart,
    Join,
    Overhead,
    Placement,
    SetBack,
    Stamps,
    TimeBase,
    TrackClock,
)

BASES = st.sampled_from(
    [TimeBase(1, 90_000), TimeBase(1, 1000), TimeBase(1, 12_800), TimeBase(1001, 30_000), TimeBase(1, 48_000)]
)
TICKS = st.integers(-(2**40), 2**40)


@given(TICKS, BASES, BASES)
def test_rescaling_is_exact_to_half_a_tick(ticks: int, source: TimeBase, to: TimeBase) -> None:
    exact = Fraction(ticks * source.num, source.den)
    assert abs(Fraction(source.rescale(ticks, to) * to.num, to.den) - exact) <= Fraction(to.num, 2 * to.den)
    assert abs(Fraction(source.us(ticks), 1_000_000) - exact) <= Fraction(1, 2_000_000)


@given(TICKS, BASES)
def test_a_reported_time_leads_back_to_its_frame(ticks: int, base: TimeBase) -> None:
    """A client that asks for the very time that it was told gets that frame, not the one before."""
    assert base.last_tick_at(base.us(ticks)) >= ticks
    assert base.us(base.last_tick_at(ticks)) <= ticks < base.us(base.last_tick_at(ticks) + 1)


@given(st.lists(st.integers(-249_999, 249_999), max_size=200), st.integers(1_000_000, 100_000_000))
def test_jitter_in_the_names_never_adds_up(jitter: list[int], length_us: int) -> None:
    """Segments that really follow each other stay seamless, and within the tolerance of what their names say."""
    end: int | None = None
    for i, off in enumerate(jitter):
        named = i * length_us + off // 2
        placed = plan.place(named, end, plan.JITTER_US)
        assert placed.join is (Join.FIRST if end is None else Join.CONTIGUOUS)
        assert abs(placed.origin_us - named) < plan.JITTER_US
        assert end is None or placed.origin_us in (end, end - plan.TAKEN_UP_US)
        end = placed.origin_us + length_us


@pytest.mark.parametrize(("resolution_us", "ahead_us"), [(1, 125_000), (1_000_000, 1_125_000)])
@given(st.lists(st.integers(-50_000, 50_000), min_size=300, max_size=300), st.integers(1, 8_000))
def test_a_clock_that_is_fast_goes_on_and_stays_near_the_names(
    resolution_us: int, ahead_us: int, jitter: list[int], fast_us: int
) -> None:
    end: int | None = None
    for i, off in enumerate(jitter):
        named = i * 60_000_000 + off
        placed = plan.place(named, end, plan.tolerance_us(resolution_us))
        assert placed.join is (Join.FIRST if end is None else Join.CONTIGUOUS)
        assert placed.origin_us - named < ahead_us + 150_000
        end = placed.origin_us + 60_000_000 + fast_us


def test_a_gap_keeps_its_length_and_an_overlap_its_time() -> None:
    assert plan.place(13_000_000, 10_000_000, 250_000) == Placement(Join.GAP, 13_000_000, 3_000_000)
    assert plan.place(10_250_000, 10_000_000, 250_000) == Placement(Join.GAP, 10_250_000, 250_000)
    assert plan.place(10_249_999, 10_000_000, 250_000) == Placement(Join.CONTIGUOUS, 10_000_000)
    assert plan.place(9_875_000, 10_000_000, 250_000) == Placement(Join.CONTIGUOUS, 10_000_000)
    assert plan.place(9_750_001, 10_000_000, 250_000) == Placement(Join.CONTIGUOUS, 9_992_000)
    assert plan.place(9_000_000, 10_000_000, 250_000) == Placement(Join.OVERLAP, 9_000_000)
    assert plan.tolerance_us(1) == 250_000
    assert plan.tolerance_us(1_000_000) == 1_249_999


@given(st.lists(st.integers(-100_000, 100_000), max_size=200), st.integers(0, 999_999))
def test_names_in_whole_seconds_of_a_recorder_that_follows_the_clock(jitter: list[int], start_us: int) -> None:
    """It begins a file every ten seconds, a little early or late: at full seconds that is a second in the names."""
    end: int | None = None
    for i, off in enumerate(jitter):
        began = start_us + i * 10_000_000 + off
        placed = plan.place(began - began % 1_000_000, end, plan.tolerance_us(1_000_000))
        assert placed.join is (Join.FIRST if end is None else Join.CONTIGUOUS)
        end = placed.origin_us + 10_000_000


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[int, int]]:
    """(pts, dts) in decoding order: groups of a P-frame and the B-frames shown before it."""
    shown = [0]
    for size in draw(st.lists(st.integers(0, 3), min_size=1, max_size=8)):
        last = max(shown)
        shown += [last + size + 1, *range(last + 1, last + size + 1)]
    delay = max(sorted(shown)[i] - pts for i, pts in enumerate(shown))
    return [(pts, sorted(shown)[i] - delay) for i, pts in enumerate(shown)]


@given(streams(), st.data())
def test_filled_in_times_keep_what_is_known_and_rise(stream: list[tuple[int, int]], data: st.DataObject) -> None:
    step = 10
    known = data.draw(st.integers(0, len(stream)))
    stamps = [Stamps(pts * step, None) for pts, _ in stream[:known]]
    following = stream[known][1] * step if known < len(stream) else None
    filled = plan.fill(stamps, None, following, step)
    assert [f.pts for f in filled] == [pts * step for pts, _ in stream[:known]]
    times = [f.dts for f in filled] + ([] if following is None else [following])
    assert times == sorted(set(times))
    assert all(f.dts <= f.pts for f in filled)
    assert all(f.duration == step for f in filled)


def test_a_missing_pts_is_counted_back() -> None:
    filled = plan.fill([Stamps(None, None), Stamps(None, None), Stamps(None, 80)], None, 120, 40)
    assert [(f.pts, f.dts) for f in filled] == [(0, 0), (40, 40), (80, 80)]
    (middle,) = plan.fill([Stamps(None, None)], 100, None, 40)
    assert (middle.pts, middle.dts) == (140, 140)


@given(streams(), st.integers(-2, 40))
def test_the_cut_at_the_end_keeps_each_earlier_frame_and_all_that_it_needs(
    stream: list[tuple[int, int]], end: int
) -> None:
    cut = EndCut(end)
    kept: list[int] = []
    waiting: list[int] = []
    for pts, dts in stream:
        verdict = cut.wants(pts, dts)
        if cut.finished:
            break
        waiting.append(pts)
        if verdict:
            kept += waiting
            waiting.clear()
    assert [pts for pts in kept if pts < end] == [pts for pts, _ in stream if pts < end]
    assert kept == [pts for pts, _ in stream[: len(kept)]]  # decoding needs all that came before
    assert not kept or kept[-1] < end  # nothing that only later frames would need


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), min_size=1), BASES, BASES)
def test_decoding_times_always_rise(steps: list[tuple[int, int]], source: TimeBase, track: TimeBase) -> None:
    clock = TrackClock(source, track, -7)
    last: int | None = None
    dts = 0
    for step, delay in steps:
        dts += step
        shown, decoded = clock.times(dts + delay, dts)
        assert last is None or decoded > last
        assert shown >= decoded
        last = decoded


def test_sound_that_was_heard_is_left_out() -> None:
    assert plan.audio_pts(100, 20, 100) == 100
    assert plan.audio_pts(300, 20, 100) == 300
    assert plan.audio_pts(95, 20, 100) == 100
    assert plan.audio_pts(90, 20, 100) is None
    assert plan.audio_pts(-1024, 1024, 0) is None


def test_sound_waits_for_the_picture_whose_clock_is_set_back_too() -> None:
    clock = SetBack(TimeBase(1, 1000), TimeBase(1, 8000))
    assert clock.hear(8000 * 10)
    assert not clock.hear(8000 * 3)
    assert clock.see(3000, 7000, 10_000)
    assert (clock.picture_shift, clock.sound_shift) == (7000, 8000 * 7)
    assert clock.hear(8000 * 3 + 160)


def test_sound_whose_clock_alone_is_wrong_goes_on_where_it_was() -> None:
    """A packet from 5 s ahead, and then the sound goes on as before: what is as late as that can be placed again."""
    clock = SetBack(TimeBase(1, 1000), TimeBase(1, 8000))
    heard = [s for s in (1, 2, 7, 3, 4, 5, 6, 7, 8, 9) if clock.hear(8000 * s)]
    assert heard == [1, 2, 7, 8, 9]
    assert clock.sound_shift == 0


def test_the_first_shown_frame_may_not_be_the_first_stored_one() -> None:
    assert plan.first_shown([0, 3, 1, 2]) == 0
    assert plan.first_shown([10, 8, 9, 13, 5]) == 8
    assert plan.first_shown([4]) == 4


def test_a_file_may_be_split_at_closed_groups_only() -> None:
    starts = GroupStart()
    assert starts.closed(5) is None
    starts.key(100)
    assert starts.closed(98) is False
    assert starts.closed(99) is None
    starts.key(200)
    assert starts.closed(203) is True


@given(st.lists(st.integers(1, 5000), max_size=50), st.integers(4000, 50_000))
def test_a_budget_is_never_overdrawn(groups: list[int], limit: int) -> None:
    budget = Budget(limit, Overhead(fixed=100, packet=10, group=50, group_us=1_000_000))
    for payload in groups:
        cost = budget.cost(payload, 3, 2_500_000)
        assert cost == payload + 30 + 4 * 50
        if budget.fits(cost):
            budget.take(cost)
    assert budget.used + 100 <= limit
    assert Budget(0, budget.overhead).fits(10**12)
