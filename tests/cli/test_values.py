"""Times, sizes, access points and names of files, as users write them and see them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vx.cli.values import (
    MAX_NAME_BYTES,
    camera_origin,
    local_names,
    parse_size,
    parse_time,
    plain,
    show_duration,
    show_size,
    show_time,
    show_wire_time,
)
from vx.timestamps import format_timestamp, from_datetime, parse_timestamp

NOW_US = parse_timestamp("20260511T090000.250000")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("now", "2026-05-11 09:00:00.25 UTC"),
        ("-10m", "2026-05-11 08:50:00.25 UTC"),
        ("-2h30m", "2026-05-11 06:30:00.25 UTC"),
        ("-1d", "2026-05-10 09:00:00.25 UTC"),
        ("-1d2h3m4.25s", "2026-05-10 06:56:56 UTC"),
        ("-90s", "2026-05-11 08:58:30.25 UTC"),
        ("-0s", "2026-05-11 09:00:00.25 UTC"),
        ("2026-05-11T08:04:11", "2026-05-11 08:04:11 UTC"),
        ("2026-05-11 08:04", "2026-05-11 08:04:00 UTC"),
        ("2026-05-11", "2026-05-11 00:00:00 UTC"),
        ("2026-05-11T10:04:11+02:00", "2026-05-11 08:04:11 UTC"),
        ("20260511T080411.155", "2026-05-11 08:04:11.155 UTC"),
    ],
)
def test_times(text: str, shown: str) -> None:
    assert show_time(parse_time(text, NOW_US)) == shown


@pytest.mark.parametrize(
    "text", ["", "-", "-10", "10m", "-m", "-1.5h", "-1m1h", "--1h", "- 1h", "-999999999d", "tomorrow", "08:04"]
)
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time; allowed is .+ -10m") as caught:
        parse_time(text, NOW_US)
    assert str(caught.value).startswith(repr(text))


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        us = parse_time(text, NOW_US)
    except ValueError:
        return
    format_timestamp(us)


moments = st.datetimes(timezones=st.just(UTC)).map(from_datetime)


@settings(deadline=None)
@given(moments)
def test_what_is_shown_can_be_typed_again(us: int) -> None:
    assert parse_time(show_time(us).removesuffix(" UTC"), NOW_US) == us
    assert show_wire_time(format_timestamp(us)) == show_time(us)


@settings(deadline=None)
@given(st.integers(0, 700), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999_999))
def test_so_long_ago(days: int, hours: int, minutes: int, seconds: int, micros: int) -> None:
    ago = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    us = ago * 1_000_000 + micros
    assert NOW_US - parse_time(f"-{days}d{hours}h{minutes}m{seconds}.{micros:06}s", NOW_US) == us
    assert NOW_US - parse_time("-" + show_duration(us).replace(" ", ""), NOW_US) == us


def test_times_of_the_server() -> None:
    assert show_wire_time("") == "-"
    assert show_wire_time("soon\x1b[2J") == "soon?[2J"
    assert show_time(from_datetime(datetime(31, 1, 2, tzinfo=UTC))) == "0031-01-02 00:00:00 UTC"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("1b", 1),
        ("100MB", 100_000_000),
        ("100 mb", 100_000_000),
        ("100M", 100_000_000),
        ("1.5GB", 1_500_000_000),
        ("64MiB", 64 << 20),
        ("1KiB", 1024),
        ("0.5k", 500),
        ("2TiB", 2 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.4", "MB", "-1MB", "1XB", "1e9", "nan", "9" * 30, "10 000", "٣"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; allowed are bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (12_340_000, "12.3 MB"),
        (10**12, "1.0 TB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_shown_sizes(size: int, shown: str) -> None:
    assert show_size(size) == shown


FULL = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"


@pytest.mark.parametrize(
    "text", [FULL, FULL.removeprefix("hosts/"), "Server1/DeviceIpint.1", "hosts/Server1/DeviceIpint.1/"]
)
def test_short_names_of_a_camera(text: str) -> None:
    assert camera_origin(text) == FULL


def test_another_stream_of_a_camera() -> None:
    assert camera_origin("S/DeviceIpint.1/SourceEndpoint.video:0:1") == "hosts/S/DeviceIpint.1/SourceEndpoint.video:0:1"


@pytest.mark.parametrize("text", ["", "1", "Server1", "hosts/", "a//b", "a/b/c/d", "a/b\n"])
def test_no_cameras(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a camera; allowed is hosts/NODE"):
        camera_origin(text.replace("a/b\n", "a/b\n/c"))


@pytest.mark.parametrize(
    ("file_id", "name"),
    [
        ("Entrance.mp4", "Entrance.mp4"),
        ("3f/Entrance.mp4", "Entrance.mp4"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\Windows\\win.ini", "win.ini"),
        ("..", "file-1.mp4"),
        ("", "file-1.mp4"),
        ("a/", "file-1.mp4"),
        ("/", "file-1.mp4"),
        (".bashrc", "bashrc"),
        ("...", "file-1.mp4"),
        ("a\0b\n\x1b[2Jc.mp4", "a_b__[2Jc.mp4"),
        ("a\u202egpj.exe", "a_gpj.exe"),
        ("con:aux|x?*.mp4", "con_aux_x__.mp4"),
        ("-rf", "-rf"),
        ("Вход.mp4", "Вход.mp4"),
        ("x" * 300 + ".mp4", "x" * 196 + ".mp4"),
        ("я" * 300 + ".mp4", "я" * 98 + ".mp4"),
        ("x." + "y" * 300, ("x." + "y" * 300)[:200]),
    ],
)
def test_names_of_the_server_do_no_harm(file_id: str, name: str) -> None:
    assert local_names([file_id], ["video/mp4"]) == [name]


def test_names_that_would_collide() -> None:
    ids = ["a/x.mp4", "b/x.mp4", "X.MP4", "x-2.mp4", "noext", "c/noext"]
    assert local_names(ids, ["video/mp4"] * 6) == ["x.mp4", "x-2.mp4", "X-3.MP4", "x-2-2.mp4", "noext", "noext-2"]


@settings(deadline=None)
@given(st.lists(st.text() | st.sampled_from(["..", ".", "/", "a/../..", "x.mp4", "X.mp4", "x-2.mp4"])))
def test_all_names_are_names_in_this_folder_and_different(file_ids: list[str]) -> None:
    names = local_names(file_ids, ["video/mp4"] * len(file_ids))
    assert len({name.lower() for name in names}) == len(file_ids)
    for name in names:
        assert "/" not in name
        assert name not in ("", ".", "..")
        assert name.isprintable()
        assert not name.startswith(".")
        assert len(name.encode()) <= MAX_NAME_BYTES + 10


def test_text_of_the_server_cannot_drive_the_terminal() -> None:
    assert plain("ok\x1b]0;title\x07\r\n\u202e\x9b") == "ok?]0;title?????"
