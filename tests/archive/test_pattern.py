from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.make_recordings import segment_path
from vx.archive.pattern import EVERYTHING, NamePattern
from vx.timestamps import from_datetime, parse_timestamp

UTC_ZONE = ZoneInfo("UTC")
MEDIAMTX = "/recordings/entrance/%Y-%m-%d_%H-%M-%S-%f.mp4"
FRIGATE = "/media/frigate/recordings/%Y-%m-%d/%H/entrance/%M.%S.mp4"
PATTERNS = [
    MEDIAMTX,
    FRIGATE,
    "/rec/%s.ts",
    "/rec/%Y/%j/%H%M%S.%f.mkv",
    "/rec/%y%m%d/%Y%m%d_%H%M%S.mp4",
    "/rec/%Y-%m-%dT%H:%M:%S%z.mp4",
    "/rec/100%%/cam-%s_%f/x%S.mp4",
]


def read(pattern: NamePattern, path: str, zone: ZoneInfo = UTC_ZONE) -> int | None:
    """The time in a path, level by level, as the search does it."""
    names = path.removeprefix(pattern.root).strip("/").split("/")
    fields: dict[str, int] = {}
    for level, name in zip(pattern.levels, names, strict=True):
        if level.fixed is not None:
            if name != level.fixed:
                return None
            continue
        read_fields = level.read(name, fields)
        if read_fields is None:
            return None
        fields = read_fields
    return pattern.start_us(fields, zone)


@pytest.mark.parametrize(
    ("text", "path", "time"),
    [
        (MEDIAMTX, "/recordings/entrance/2026-05-11_08-04-11-155000.mp4", "20260511T080411.155"),
        (MEDIAMTX, "/recordings/entrance/2026-05-11_08-04-11-1.mp4", "20260511T080411.1"),
        (MEDIAMTX, "/recordings/entrance/2026-05-11_08-04-11-123456789.mp4", "20260511T080411.123456"),
        (FRIGATE, "/media/frigate/recordings/2026-05-11/08/entrance/04.11.mp4", "20260511T080411"),
        ("/r/%s.mp4", "/r/1778486651.mp4", "20260511T080411"),
        ("/r/%s.%f.mp4", "/r/1778486651.5.mp4", "20260511T080411.5"),
        ("/r/%Y-%j/%H%M%S", "/r/2026-131/080411", "20260511T080411"),
        ("/r/%y%m%d-%H%M%S", "/r/260511-080411", "20260511T080411"),
        ("/r/%Y%m%d%H%M%S%z", "/r/20260511100411+0200", "20260511T080411"),
        ("/r/%Y%m%d%H%M%S%z", "/r/20260511080411Z", "20260511T080411"),
        ("/r/50%%/%s", "/r/50%/1778486651", "20260511T080411"),
    ],
)
def test_the_time_in_a_name(text: str, path: str, time: str) -> None:
    assert read(NamePattern.parse(text), path) == parse_timestamp(time)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (MEDIAMTX, "/recordings/entrance/2026-05-11_08-04-11-155000.mp4.tmp"),
        (MEDIAMTX, "/recordings/entrance/2026-02-30_08-04-11-155000.mp4"),
        (MEDIAMTX, "/recordings/entrance/2026-05-11_25-04-11-155000.mp4"),
        (MEDIAMTX, "/recordings/entrance/٢٠٢٦-05-11_08-04-11-155000.mp4"),
        (FRIGATE, "/media/frigate/recordings/2026-05-11/08/yard/04.11.mp4"),
        ("/r/%Y-%m-%d/%Y%m%d%H%M%S.mp4", "/r/2026-05-11/20260512080411.mp4"),
        ("/r/%Y-%m-%d/%j/%H%M%S.mp4", "/r/2026-05-11/132/080411.mp4"),
        ("/r/%Y/%j/%H%M%S", "/r/2026/366/080411"),
        ("/r/%y/%Y%j%H%M%S", "/r/25/2026131080411"),
    ],
)
def test_a_name_that_is_no_recording(text: str, path: str) -> None:
    assert read(NamePattern.parse(text), path) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("recordings/%s.mp4", "not an absolute path"),
        ("/recordings/one.mp4", "no time in it"),
        ("/recordings/%Y-%m-%d/one.mp4", "the last part must name the files"),
        ("/recordings/%s/", "the last part must name the files"),
        ("/recordings/%Q.mp4", "'%Q' is not a directive: allowed are %Y %y %m %d %H %M %S %f %s %j %z and %%"),
        ("/recordings/%s.mp4%", "'%' is not a directive"),
        ("/recordings/%Y-%m-%d.mp4", "it lacks the hour (%H), the minute (%M), the second (%S)"),
        ("/recordings/%H-%M-%S.mp4", "it lacks the year (%Y), the day (%m and %d, or %j)"),
        ("/recordings/%f%s.mp4", "%s right after %f"),
        ("/recordings/%s-%f7.mp4", "a digit right after %f"),
        ("/recordings/../%s.mp4", "goes up with .."),
        ("/recordings/\0%s.mp4", "NUL"),
        ("", "not an absolute path"),
    ],
)
def test_a_pattern_that_cannot_work_says_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        NamePattern.parse(text)


@given(
    text=st.sampled_from(PATTERNS),
    seconds=st.integers(1_000_000_000, 4_000_000_000),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
)
def test_what_a_recorder_writes_is_read_back_and_within_the_span_of_each_directory(
    text: str, seconds: int, zone: str
) -> None:
    pattern = NamePattern.parse(text)
    path = str(segment_path(text, seconds * 1_000_000, zone))
    at = read(pattern, path, ZoneInfo(zone))
    assert at is not None
    if "%s" in text or "%z" in text:
        assert at == seconds * 1_000_000
    else:  # an hour that happens twice is read as the first of the two
        assert at in {seconds * 1_000_000, (seconds - 1800) * 1_000_000, (seconds - 3600) * 1_000_000}
    fields: dict[str, int] = {}
    for level, name in zip(pattern.levels, path.removeprefix(pattern.root).strip("/").split("/"), strict=True):
        if level.fixed is None:
            fields = level.read(name, fields) or {}
            span = pattern.span_us(fields, ZoneInfo(zone))
            assert span is not None
            assert span[0] <= at < span[1]


def test_a_directory_narrows_the_time_down() -> None:
    pattern = NamePattern.parse("/r/%Y/%m/%d/%H/%M.%S.mp4")
    year = {"Y": 2026}
    assert pattern.span_us({}, UTC_ZONE) == EVERYTHING
    assert pattern.span_us({"m": 5}, UTC_ZONE) == EVERYTHING
    for fields, begin, end in [
        (year, "20260101T000000", "20270101T000000"),
        ({**year, "m": 12}, "20261201T000000", "20270101T000000"),
        ({**year, "m": 2, "d": 28}, "20260228T000000", "20260301T000000"),
        ({**year, "m": 5, "d": 11, "H": 8}, "20260511T080000", "20260511T090000"),
    ]:
        assert pattern.span_us(fields, UTC_ZONE) == (parse_timestamp(begin), parse_timestamp(end))
    assert pattern.span_us({**year, "m": 13}, UTC_ZONE) is None
    assert pattern.span_us({**year, "m": 5, "d": 11, "H": 25}, UTC_ZONE) is None


def test_the_hour_that_happens_twice_spans_both() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    pattern = NamePattern.parse("/r/%Y-%m-%d/%H/%M.%S.mp4")
    span = pattern.span_us({"Y": 2026, "m": 10, "d": 25, "H": 2}, berlin)
    assert span == (parse_timestamp("20261025T000000"), parse_timestamp("20261025T020000"))


def test_the_hour_that_never_happens_is_in_its_folder_all_the_same() -> None:
    """A recorder that changes its clock late has written it."""
    berlin = ZoneInfo("Europe/Berlin")
    pattern = NamePattern.parse("/r/%Y-%m-%d/%H/%M.%S.mp4")
    hour = {"Y": 2026, "m": 3, "d": 29, "H": 2}
    start, span = pattern.start_us({**hour, "M": 30, "S": 0}, berlin), pattern.span_us(hour, berlin)
    assert start == parse_timestamp("20260329T013000")
    assert span is not None
    assert span[0] <= start < span[1]


@given(st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)), st.integers(0, 7200))
def test_names_that_sort_lie_between_their_bounds(moment: datetime, width_s: int) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    start = moment.replace(tzinfo=UTC)
    for text in (MEDIAMTX, "/rec/%s.ts"):
        if start.year < 2002 and "%s" in text:
            continue
        pattern = NamePattern.parse(text)
        begin = from_datetime(start)
        bounds = pattern.bounds(pattern.levels[-1], begin, begin + width_s * 1_000_000 + 1, berlin)
        assert bounds is not None
        name = segment_path(text, from_datetime(start + timedelta(seconds=width_s)), "Europe/Berlin").name
        assert bounds[0] <= name < bounds[1]


def test_where_no_clock_jumps_the_bounds_are_narrow() -> None:
    """In an hour of recordings of ten seconds only that hour's names are read."""
    pattern = NamePattern.parse("/rec/%Y-%m-%d_%H-%M-%S.mp4")
    begin = from_datetime(datetime(2026, 5, 11, 8, tzinfo=UTC))
    assert pattern.bounds(pattern.levels[-1], begin, begin + 300_000_000, ZoneInfo("Europe/Berlin")) == (
        "2026-05-11_09-58-00",
        "2026-05-11_10-07-00",
    )
