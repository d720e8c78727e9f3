"""The times of the contract: text on the wire, integer microseconds since 1970-01-01 UTC inside.

The wire's form is `20260511T080411.155000`, UTC. ISO 8601 with `Z` or an offset is read too; a time without an offset
is UTC.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000
_COMPACT = re.compile(r"(\d{8}T\d{6})(?:\.(\d{1,6}))?", re.ASCII)

MS_1900_TO_1970 = 2_208_988_800_000
"""Milliseconds from 1900-01-01, where the contract's history counts from, to 1970-01-01."""
ALLOWED = "YYYYMMDDTHHMMSS[.ffffff] in UTC, or ISO 8601 with Z or an offset"


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1000


def from_datetime(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def to_datetime(us: int) -> datetime:
    """The UTC datetime of `us`. OverflowError outside of the years 1 to 9999."""
    return _EPOCH + us * _MICROSECOND


def parse_timestamp(text: str) -> int:
    """Microseconds since 1970 of a time as the contract writes it. ValueError says what is allowed."""
    match = _COMPACT.fullmatch(text)
    try:
        if match:
            moment = datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            return from_datetime(moment) + int((match[2] or "").ljust(6, "0"))
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return from_datetime(moment.astimezone(UTC))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time: {ALLOWED}") from None


def format_timestamp(us: int) -> str:
    """The wire's form, always with six digits of fraction."""
    day, in_day = divmod(us, _DAY_US)
    seconds, fraction = divmod(in_day, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_format_day(day)}T{hour:02}{minute:02}{second:02}.{fraction:06}"


@lru_cache(maxsize=64)
def _format_day(day: int) -> str:
    """The date `day` days after 1970-01-01. Times that are written together are of few days."""
    moment = to_datetime(day * _DAY_US)
    return f"{moment.year:04}{moment:%m%d}"  # %Y does not pad


def describe_range(begin_us: int, end_us: int) -> str:
    """A stretch of time as notes and errors write it."""
    return f"{format_timestamp(begin_us)} to {format_timestamp(end_us)}"
