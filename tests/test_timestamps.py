"""The times of the contract: what is read, what is written, and that nothing is lost between."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vx.timestamps import format_timestamp, from_datetime, parse_timestamp, to_datetime

FIRST_US = from_datetime(datetime.min.replace(tzinfo=UTC))
LAST_US = from_datetime(datetime.max.replace(tzinfo=UTC))
every_us = st.integers(FIRST_US, LAST_US)


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("20260511T080411.155000", "20260511T080411.155000"),
        ("20260511T080411", "20260511T080411.000000"),
        ("20260511T080411.1", "20260511T080411.100000"),
        ("20260511T080411.000001", "20260511T080411.000001"),
        ("19691231T235959.999999", "19691231T235959.999999"),
        ("2026-05-11T08:04:11Z", "20260511T080411.000000"),
        ("2026-05-11T10:04:11.155+02:00", "20260511T080411.155000"),
        ("2026-05-10T22:34:11-09:30", "20260511T080411.000000"),
        ("20260511T080411Z", "20260511T080411.000000"),
        ("2026-05-11 08:04:11", "20260511T080411.000000"),
        ("2026-05-11T08:04", "20260511T080400.000000"),
        ("2026-05-11T08:04:11.123456789Z", "20260511T080411.123456"),
        ("20240229T000000", "20240229T000000.000000"),
    ],
)
def test_what_is_read(text: str, wire: str) -> None:
    assert format_timestamp(parse_timestamp(text)) == wire


@pytest.mark.parametrize("text", ["20260511T080411", "2026-05-11T08:04:11"])
def test_a_time_without_an_offset_is_utc_wherever_the_server_is(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert format_timestamp(parse_timestamp(text)) == "20260511T080411.000000"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_epoch_is_zero() -> None:
    assert parse_timestamp("19700101T000000") == 0
    assert parse_timestamp("19700101T000001.5") == 1_500_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "20260230T000000",
        "20250229T000000",
        "20261301T000000",
        "20260511T240000",
        "20260511T080460",
        "20260511T080411.",
        " 20260511T080411",
        "20260511T080411\n",
        "\u0662026-05-11T08:04:11",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1778486651",
    ],
)
def test_what_is_not_a_time_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="YYYYMMDDTHHMMSS") as caught:
        parse_timestamp(text)
    assert str(caught.value).startswith(repr(text))


@settings(deadline=None)
@given(every_us)
def test_what_is_written_is_read_back_exactly(us: int) -> None:
    assert parse_timestamp(format_timestamp(us)) == us
    assert len(format_timestamp(us)) == len("20260511T080411.155000")


@settings(deadline=None)
@given(every_us)
def test_datetimes_are_exact(us: int) -> None:
    assert from_datetime(to_datetime(us)) == us


@settings(deadline=None)
@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
def test_an_offset_moves_the_moment(local: datetime, offset_min: int) -> None:
    moment = local.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    expected = from_datetime(local.replace(tzinfo=UTC)) - offset_min * 60_000_000
    if FIRST_US <= expected <= LAST_US:
        assert parse_timestamp(moment.isoformat()) == expected
    else:
        with pytest.raises(ValueError, match="is not a time"):
            parse_timestamp(moment.isoformat())


@settings(deadline=None)
@given(every_us, every_us)
def test_text_sorts_as_time_does(one: int, other: int) -> None:
    assert (one < other) == (format_timestamp(one) < format_timestamp(other))


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        us = parse_timestamp(text)
    except ValueError:
        return
    assert FIRST_US <= us <= LAST_US
