from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.make_recordings import segment_path
from vx.archive import segments
from vx.archive.pattern import Fields, NamePattern
from vx.archive.segments import Recordings
from vx.timestamps import format_timestamp, from_datetime, parse_timestamp, to_datetime

T0 = parse_timestamp("20260511T080000")
MINUTE = 60_000_000
LISTDIR = "vx.archive.segments.os.listdir"
real_listdir = os.listdir
NAMES = [
    "%Y-%m-%d_%H-%M-%S-%f.mp4",
    "%Y-%m-%d/%H/entrance/%M.%S.mp4",
    "%s.ts",
    "%H/%Y-%m-%d/%M-%S.mp4",
    "%Y/%j/x%S_%M_%H.mkv",
]


def make(pattern: str, *starts: int, timezone: str = "UTC") -> None:
    for start in starts:
        path = segment_path(pattern, start, timezone)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def recordings(pattern: str, timezone: str = "UTC") -> Recordings:
    return Recordings(NamePattern.parse(pattern), ZoneInfo(timezone))


def find(recordings: Recordings, start_us: int, end_us: int) -> segments.Found:
    """All that a search finds, and its notes."""
    looks = list(recordings.find(start_us, end_us))
    return segments.Found(
        tuple(segment for look in looks for segment in look.segments),
        tuple(note for look in looks for note in look.notes),
    )


def starts(found: segments.Found) -> list[int]:
    return [segment.start_us for segment in found.segments]


@pytest.mark.parametrize("names", NAMES)
def test_the_range_and_the_one_that_covers_its_start(tmp_path: Path, names: str) -> None:
    pattern = f"{tmp_path}/{names}"
    all_starts = [T0 + i * 30 * MINUTE for i in range(-5, 60)]
    make(pattern, *all_starts)
    (tmp_path / "index.db").touch()
    found = find(recordings(pattern), T0 + 10 * MINUTE, T0 + 90 * MINUTE)
    assert starts(found) == [T0, T0 + 30 * MINUTE, T0 + 60 * MINUTE]
    assert all(Path(segment.path).is_file() for segment in found.segments)
    assert found.notes == ()
    assert starts(find(recordings(pattern), T0 + 30 * MINUTE, T0 + 60 * MINUTE)) == [T0 + 30 * MINUTE]
    assert starts(find(recordings(pattern), T0 - 1000 * MINUTE, T0 - 500 * MINUTE)) == []
    assert starts(recordings(pattern).last_before(T0)) == [T0 - 30 * MINUTE]


@pytest.mark.parametrize("names", NAMES)
def test_the_one_before_may_be_years_ago(tmp_path: Path, names: str) -> None:
    pattern = f"{tmp_path}/{names}"
    make(pattern, T0, T0 + MINUTE)
    year_later = T0 + 400 * 24 * 60 * MINUTE
    assert starts(find(recordings(pattern), year_later, year_later + MINUTE)) == [T0 + MINUTE]


@settings(max_examples=40, deadline=None)
@given(
    names=st.sampled_from(NAMES),
    minutes=st.sets(st.integers(0, 6000), max_size=30),
    begin=st.integers(-10, 6010),
    width=st.integers(0, 600),
    zone=st.sampled_from(["UTC", "Europe/Berlin"]),
)
def test_it_finds_what_looking_at_every_file_would_find(
    tmp_path_factory: pytest.TempPathFactory, names: str, minutes: set[int], begin: int, width: int, zone: str
) -> None:
    pattern = f"{tmp_path_factory.mktemp('archive')}/{names}"
    every = sorted(T0 + minute * MINUTE for minute in minutes)
    make(pattern, *every, timezone=zone)
    start, end = T0 + begin * MINUTE, T0 + (begin + width) * MINUTE
    before = [s for s in every if s <= start][-1:]
    wanted = before + [s for s in every if start < s < end]
    assert starts(find(recordings(pattern, zone), start, end)) == wanted


def test_only_directories_that_can_matter_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = f"{tmp_path}/%Y-%m-%d/%H/entrance/%M.%S.mp4"
    make(pattern, *(T0 + i * 10 * MINUTE for i in range(-3000, 3000)))
    listed: list[str] = []

    def listdir(path: str) -> list[str]:
        listed.append(path)
        return real_listdir(path)

    monkeypatch.setattr(LISTDIR, listdir)
    found = find(recordings(pattern), T0 + 5 * MINUTE, T0 + 25 * MINUTE)
    assert [format_timestamp(s)[9:13] for s in starts(found)] == ["0800", "0810", "0820"]
    assert sorted(path.removeprefix(str(tmp_path)) for path in listed) == ["", "/2026-05-11", "/2026-05-11/08/entrance"]


@pytest.mark.parametrize("names", ["%Y-%m-%d_%H-%M-%S.mp4", "%Y-%m-%d/%H/%M.%S.mp4"])
@pytest.mark.parametrize("change", ["20261025T000000", "20260329T000000"])
def test_a_change_of_the_clocks_loses_nothing(tmp_path: Path, names: str, change: str) -> None:
    pattern = f"{tmp_path}/{names}"
    around = parse_timestamp(change)
    every = [around + i * 7 * MINUTE + 1_000_000 * (i % 60) for i in range(-20, 40)]
    make(pattern, *every, timezone="Europe/Berlin")
    files = {str(path) for path in tmp_path.rglob("*.mp4")}
    found = find(recordings(pattern, "Europe/Berlin"), every[0], every[-1] + MINUTE)
    assert {segment.path for segment in found.segments} == files
    assert starts(found) == sorted(starts(found))


def test_what_cannot_be_looked_at_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = f"{tmp_path}/%Y-%m-%d/%H.%M.%S.mp4"
    make(pattern, T0, T0 + 24 * 60 * MINUTE)

    def listdir(path: str) -> list[str]:
        if path.endswith("05-11"):
            raise PermissionError(13, "Permission denied", path)
        return real_listdir(path)

    monkeypatch.setattr(LISTDIR, listdir)
    found = find(recordings(pattern), T0, T0 + 25 * 60 * MINUTE)
    assert starts(found) == [T0 + 24 * 60 * MINUTE]
    assert found.notes == (f"{tmp_path}/2026-05-11: can't be listed: Permission denied",)


def test_a_root_that_is_not_there_is_noted_and_no_error(tmp_path: Path) -> None:
    found = find(recordings(f"{tmp_path}/nowhere/%s.mp4"), T0, T0 + MINUTE)
    assert found == segments.Found((), (f"{tmp_path}/nowhere: there is no such directory",))


def test_a_directory_that_vanishes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = f"{tmp_path}/%Y-%m-%d/%H.%M.%S.mp4"
    make(pattern, T0)

    def listdir(path: str) -> list[str]:
        gone = ["2026-05-10", "2026-05-12"] if path == str(tmp_path) else []
        return [*real_listdir(path), *gone]

    monkeypatch.setattr(LISTDIR, listdir)
    found = find(recordings(pattern), T0 - MINUTE, T0 + 24 * 60 * MINUTE)
    assert starts(found) == [T0]
    assert found.notes == ()


def test_junk_that_sorts_behind_the_recordings_hides_none(tmp_path: Path) -> None:
    pattern = f"{tmp_path}/%Y-%m-%d_%H-%M-%S.mp4"
    make(pattern, T0, T0 + MINUTE)
    for i in range(5):
        (tmp_path / f"2026-05-11_08-0{i + 2}-00.mp4.partial").touch()
        (tmp_path / f"2026-05-11_08-99-0{i}.mp4").touch()
    assert starts(find(recordings(pattern), T0 + 30 * MINUTE, T0 + 40 * MINUTE)) == [T0 + MINUTE]


def test_a_hundred_thousand_files_in_one_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of names that sort, only those around the range are read one by one."""
    first = to_datetime(T0)
    names = [f"{first + timedelta(seconds=10 * i):%Y-%m-%d_%H-%M-%S}-000000.mp4" for i in range(100_000)]
    monkeypatch.setattr(LISTDIR, lambda _: names)
    pattern = NamePattern.parse("/rec/%Y-%m-%d_%H-%M-%S-%f.mp4")
    read = 0
    real = NamePattern.start_us

    def start_us(self: NamePattern, fields: Fields, zone: ZoneInfo) -> int | None:
        nonlocal read
        read += 1
        return real(self, fields, zone)

    monkeypatch.setattr(NamePattern, "start_us", start_us)
    start = from_datetime(to_datetime(T0) + timedelta(days=5, seconds=5))
    found = find(Recordings(pattern, ZoneInfo("UTC")), start, start + MINUTE)
    assert starts(found) == [start - 5_000_000 + i * 10_000_000 for i in range(7)]
    assert 0 < read < 6 * 3600 // 10 * 2 + 100


def test_a_month_of_recordings_is_found_bit_by_bit(tmp_path: Path) -> None:
    """The first ones are there at once: nobody waits until the last one's name has been read."""
    pattern = f"{tmp_path}/%Y-%m-%d_%H-%M-%S.mp4"
    every = [T0 + i * MINUTE for i in range(3000)]
    make(pattern, *every)
    looks = recordings(pattern).find(T0 + MINUTE // 2, T0 + 10_000 * MINUTE)
    assert starts(next(looks)) == [T0]
    assert starts(next(looks)) == every[1:6]
    assert [start for look in looks for start in starts(look)] == every[6:]


@pytest.mark.parametrize("names", ["%Y-%m-%d_%H-%M-%S.mp4", "%Y-%m-%d/%H/%M.%S.mp4"])
@pytest.mark.parametrize(
    ("zone", "set_back", "by_min"),
    [
        ("Europe/Berlin", "20261025T010000", 60),
        ("Australia/Lord_Howe", "20260404T150000", 30),
        ("Antarctica/Casey", "20210313T130000", 180),
    ],
)
def test_of_local_times_that_happen_twice_the_time_of_writing_tells_which(
    tmp_path: Path, names: str, zone: str, set_back: str, by_min: int
) -> None:
    pattern = f"{tmp_path}/{names}"
    around, step = parse_timestamp(set_back), by_min * MINUTE // 10
    # nine before and nine after, between each other in local time: no name comes twice
    every = [around + i * step for i in range(-9, 0)] + [around + i * step + step // 2 for i in range(9)]
    for start in every:
        written(pattern, zone, start, start + (by_min - 1) * MINUTE)
    found = find(recordings(pattern, zone), around - by_min * MINUTE, around + 2 * by_min * MINUTE)
    assert starts(found) == every
    # a copy's time of writing says nothing: they are read as the first
    for segment in found.segments:
        os.utime(segment.path)
    found = find(recordings(pattern, zone), around - by_min * MINUTE, around + 2 * by_min * MINUTE)
    assert max(starts(found)) < around


def test_a_recording_that_is_longer_than_clocks_are_set_back_is_not_taken_for_a_later_one(tmp_path: Path) -> None:
    pattern, zone = f"{tmp_path}/%Y-%m-%d_%H-%M-%S.mp4", "Australia/Lord_Howe"
    start = parse_timestamp("20260404T150000") - 20 * MINUTE
    written(pattern, zone, start, start + 65 * MINUTE)
    assert starts(find(recordings(pattern, zone), start - MINUTE, start + 100 * MINUTE)) == [start]


def written(pattern: str, zone: str, start_us: int, end_us: int) -> None:
    """A recording that was last written to at its end."""
    path = segment_path(pattern, start_us, zone)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (end_us // 1_000_000, end_us // 1_000_000))
