from __future__ import annotations

import pytest

from vx import report
from vx.jobs import ClipJob, Ended, Event, FileDone, Gap, Note, Progress, Source, SourceEnded
from vx.report import MOST, Remark, Report
from vx.spans import Span

S = 1_000_000


def clip(count: int) -> ClipJob:
    sources = tuple(Source(origin=f"o{n}", name=f"n{n}", pattern="/r/%s.mp4", timezone="UTC") for n in range(count))
    return ClipJob(folder="", sources=sources, start_us=0, end_us=100 * S, container="mp4")


def told(*events: Event, recorded_us: tuple[tuple[Span, ...], ...] = (), count: int = 1) -> Report:
    made = report.begin(clip(count), recorded_us)
    for event in events:
        made = report.take(made, event)
    return made


HALVES = ((0, 40 * S), (60 * S, 100 * S))


@pytest.mark.parametrize(
    ("last_us", "share"), [(-S, 0), (0, 0), (20 * S, 0.25), (50 * S, 0.5), (80 * S, 0.75), (200 * S, 1)]
)
def test_progress_is_of_what_is_recorded(last_us: int, share: float) -> None:
    assert report.share_done(told(Progress(last_frame_us=last_us), recorded_us=(HALVES,))) == pytest.approx(share)


def test_progress_of_several_files_adds_up() -> None:
    recorded_us = (HALVES, ((0, 20 * S),))
    made = told(Progress(last_frame_us=90 * S, source=0), SourceEnded(source=0), recorded_us=recorded_us, count=2)
    assert report.share_done(made) == pytest.approx(0.8)
    made = report.take(made, Progress(last_frame_us=10 * S, source=1))
    assert report.share_done(made) == pytest.approx(0.9)


def test_a_source_that_has_ended_goes_on_no_more() -> None:
    made = told(Progress(last_frame_us=5), SourceEnded(source=0), Progress(last_frame_us=9), count=2)
    assert [source.done_until_us for source in made.sources] == [5, 9]


def test_where_nothing_is_recorded_sources_are_counted() -> None:
    made = told(count=2)
    assert report.share_done(made) == 0
    assert report.share_done(report.take(made, SourceEnded(source=1, error="gone"))) == 0.5


def test_what_the_worker_tells_is_kept_with_its_source() -> None:
    made = told(
        Note(level="warning", text="n1: broken", source=1),
        Note(level="info", text="by the way"),
        Gap(source=1, begin_us=3, end_us=5),
        Progress(last_frame_us=7, written=1000),
        SourceEnded(source=0, error="nothing was recorded"),
        count=2,
    )
    assert made.remarks == (Remark("info", "by the way"),)
    assert made.sources[1].remarks == (Remark("warning", "broken"),)
    assert made.sources[1].gaps_us == ((3, 5),)
    assert (made.written, made.sources[1].done_until_us) == (1000, 7)
    assert [(source.ended, source.error) for source in made.sources] == [(True, "nothing was recorded"), (False, "")]
    assert report.take(made, FileDone(name="a", size=1, mime_type="", first_us=0, last_us=0)).written == 0


@pytest.mark.parametrize(
    ("ended", "errors"),
    [
        (Ended(succeeded=True), ["early", "", "stopped before anything was written"]),
        (Ended(succeeded=False, reason="the disk is full"), ["early", "the disk is full", "the disk is full"]),
    ],
)
def test_what_has_not_ended_ends_with_the_export(ended: Ended, errors: list[str]) -> None:
    made = told(SourceEnded(source=0, error="early"), Progress(last_frame_us=5, source=1), count=3)
    made = report.end(made, ended)
    assert [source.error for source in made.sources] == errors
    assert all(source.ended for source in made.sources)


def test_it_is_bounded_and_counts_the_rest() -> None:
    recorded_us = (tuple((n * S, n * S + 1) for n in range(3 * MOST)),)
    events: list[Event] = []
    for n in range(MOST + 3):
        events += [Gap(source=0, begin_us=n, end_us=n + 1), Note(level="info", text="x", source=0)]
    (source,) = told(*events, recorded_us=recorded_us).sources
    assert (len(source.gaps_us), source.further_gaps) == (MOST, 3)
    assert (len(source.remarks), source.further_remarks) == (MOST, 3)
    assert len(source.recorded_us) == MOST
    assert (source.recorded_us[0][0], source.recorded_us[-1][1]) == (0, (3 * MOST - 1) * S + 1)


def test_it_survives_being_written_down() -> None:
    made = told(Note(level="error", text="ä"), Gap(source=0, begin_us=3, end_us=5), recorded_us=(HALVES,))
    assert report.decode(report.encode(made)) == made
    assert report.decode(b"{}") == report.NO_REPORT
