"""Recorded intervals: what names and times of files say."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.make_recordings import segment_path
from vx.archive.history import History, recorded
from vx.archive.pattern import NamePattern
from vx.archive.segments import Recordings
from vx.spans import merge
from vx.timestamps import parse_timestamp

T0 = parse_timestamp("20260511T080000")
SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 1440 * MINUTE


class Archive:
    """A folder of files with a byte in each, named by their start."""

    def __init__(self, folder: Path, names: str = "%Y-%m-%d/%H-%M-%S.mp4") -> None:
        self.pattern = f"{folder}/{names}"

    def add(self, start_us: int, length_us: int | None, content: bytes = b"x") -> Path:
        """A recording that was last written to at its end; without a length, long after it."""
        path = segment_path(self.pattern, start_us, "UTC")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written = start_us + (400 * DAY if length_us is None else length_us)
        os.utime(path, ns=(written * 1000, written * 1000))
        return path

    def history(self, start_us: int, end_us: int, *, exact: bool = True) -> History:
        return recorded(Recordings(NamePattern.parse(self.pattern), ZoneInfo("UTC")), start_us, end_us, exact=exact)

    def seconds(self, start_us: int, end_us: int, *, exact: bool = True) -> list[tuple[float, float]]:
        """Intervals in seconds since T0."""
        found = self.history(start_us, end_us, exact=exact).intervals
        return [((begin - T0) / SECOND, (end - T0) / SECOND) for begin, end in found]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_a_gap_begins_when_the_file_was_last_written_to(archive: Archive) -> None:
    for minute in (0, 1, 2, 10, 11):
        archive.add(T0 + minute * MINUTE, MINUTE)
    archive.add(T0 + 3 * MINUTE, MINUTE // 2)
    assert archive.seconds(T0, T0 + 60 * MINUTE) == [(0, 210), (600, 720)]


def test_it_is_cut_to_the_range_and_begins_within_a_recording(archive: Archive) -> None:
    archive.add(T0, 60 * MINUTE)
    archive.add(T0 + 60 * MINUTE, 60 * MINUTE)
    assert archive.seconds(T0 + 30 * MINUTE, T0 + 90 * MINUTE) == [(1800, 5400)]
    assert archive.seconds(T0 - 5 * DAY, T0) == []
    assert archive.seconds(T0 + 5 * DAY, T0 + 6 * DAY) == []


@pytest.mark.parametrize("seconds", [-1.9, -0.2, 0, 0.3, 1.9])
def test_a_recorders_buffers_make_no_gap(archive: Archive, seconds: float) -> None:
    for minute in range(3):
        archive.add(T0 + minute * MINUTE, MINUTE + int(seconds * SECOND))
    assert archive.seconds(T0, T0 + DAY) == [(0, 180 + seconds)]


@pytest.mark.parametrize("exact", [True, False])
def test_names_alone_show_gaps_where_files_were_copied_here(archive: Archive, exact: bool) -> None:
    for second in (0, 60, 121, 185, 600, 660):
        archive.add(T0 + second * SECOND, None)
    # The usual length is 61 s; 64 s until the next one are no gap, 415 s are.
    assert archive.seconds(T0, T0 + DAY, exact=exact) == [(0, 246), (600, 721)]


def test_one_file_of_unknown_length_is_there_at_least(archive: Archive) -> None:
    archive.add(T0, None)
    assert archive.seconds(T0 - MINUTE, T0 + DAY) == [(0, 1)]


@pytest.mark.parametrize("exact", [True, False])
def test_a_short_range_within_copied_files_is_recorded(archive: Archive, exact: bool) -> None:
    archive.add(T0, None)
    archive.add(T0 + MINUTE, None)
    assert archive.seconds(T0 + 20 * SECOND, T0 + 30 * SECOND, exact=exact) == [(20, 30)]


def test_empty_and_vanished_files_are_nothing(archive: Archive, tmp_path: Path) -> None:
    archive.add(T0, MINUTE, b"")
    archive.add(T0 + MINUTE, MINUTE)
    archive.add(T0 + 2 * MINUTE, MINUTE).unlink()
    segment_path(archive.pattern, T0 + 2 * MINUTE, "UTC").symlink_to(tmp_path / "nowhere")
    assert archive.seconds(T0, T0 + DAY) == [(60, 120)]


def test_what_cannot_be_listed_is_told(tmp_path: Path) -> None:
    assert Archive(tmp_path / "gone").history(T0, T0 + DAY).notes == (f"{tmp_path}/gone: there is no such directory",)


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 50)), max_size=20),
    st.integers(0, 100),
)
def test_merging_keeps_all_times_and_leaves_only_wide_gaps(spans: list[tuple[int, int]], min_gap: int) -> None:
    intervals = [(begin, begin + length) for begin, length in spans]
    merged = merge(intervals, min_gap)
    assert all(begin > before_end + min_gap for (_, before_end), (begin, _) in pairwise(merged))
    covered = {time for begin, end in merged for time in range(begin, end)}
    assert covered >= {time for begin, end in intervals for time in range(begin, end)}
    assert {edge for pair in merged for edge in pair} <= {edge for pair in intervals for edge in pair}


def test_a_day_of_a_large_archive_lists_no_other_day(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(20):
        for hour in range(24):
            archive.add(T0 + day * DAY + hour * 60 * MINUTE, 60 * MINUTE)
    listed: list[str] = []
    real_listdir = os.listdir

    def listdir(path: str) -> list[str]:
        listed.append(Path(path).name)
        return real_listdir(path)

    monkeypatch.setattr("vx.archive.segments.os.listdir", listdir)
    begin = parse_timestamp("20260520T000000")
    assert archive.history(begin, begin + DAY).intervals == ((begin, begin + DAY),)
    assert listed[1:] == ["2026-05-20"]  # midnight itself has a recording
