"""The names of recordings: a path with directives for the start time, and what a directory's name says.

    /recordings/entrance/%Y-%m-%d_%H-%M-%S-%f.mp4
    /media/frigate/recordings/%Y-%m-%d/%H/entrance/%M.%S.mp4

`/` separates levels. A level without a directive is a fixed name; every other level is listed, and each name in it is
read into the fields known so far. A name that contradicts what the levels above said is not a recording. Times in names
are in an IANA time zone, times that come out are integer microseconds since 1970-01-01 UTC.

Where a local time happens twice (the end of summer time), a name has two readings. A directory's span takes in both, so
that looking for a time never skips a directory that may hold it; which one holds, only the file can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import PurePosixPath
from zoneinfo import ZoneInfo

from vx.timestamps import from_datetime, to_datetime

Fields = Mapping[str, int]
"""Numbers read so far, by the directive's letter. `f` is in microseconds, `z` in seconds east of Greenwich."""

EVERYTHING = (-(2**62), 2**62)
"""The span of a directory whose name narrows nothing down."""

_DIGITS = {"Y": r"\d{4}", "y": r"\d{2}", "m": r"\d{2}", "d": r"\d{2}", "H": r"\d{2}", "M": r"\d{2}", "S": r"\d{2}"}
# ten digits of %s are the years 2001 to 2286; a fixed width lets names sort by their time
_DIRECTIVES = {**_DIGITS, "j": r"\d{3}", "f": r"\d+", "s": r"\d{10}", "z": r"Z|[+-]\d{2}:?\d{2}"}
_OPEN_ENDED = {"f"}
_SORTABLE = ("Y", "m", "d", "H", "M", "S")
_LONGEST_SHIFT = timedelta(hours=3)
"""No clock has been turned back further at once in this century (Antarctica/Casey was, so far); a bound of local times
is widened by it."""
_LEAP = timedelta(minutes=2)
"""What else a bound is widened by: names have fractions of a second, or a 60th second of a minute."""
_STEADY_US = 86_400_000_000
"""No clock is set back and forth again within so long."""

ALLOWED = "%Y %y %m %d %H %M %S %f %s %j %z and %%"


@dataclass(frozen=True)
class Level:
    """One level of the path: a fixed name, or names that are read."""

    text: str
    fixed: str | None
    letters: tuple[str, ...] = ()
    regex: re.Pattern[str] = field(default_factory=lambda: re.compile(""))
    prefix: str | None = None
    """With `sortable_format`: what every name begins with."""
    sortable_format: str | None = None
    """Where names sort by their time: the strftime form of the part up to the second, else None."""

    def read(self, name: str, known: Fields) -> dict[str, int] | None:
        """`known` with the fields of `name`; None where it isn't a name of this level or contradicts `known`."""
        match = self.regex.fullmatch(name)
        if match is None:
            return None
        fields = dict(known)
        for letter, digits in zip(self.letters, match.groups(), strict=True):
            value = _value(letter, digits)
            if fields.setdefault(letter, value) != value:
                return None
        return fields


@dataclass(frozen=True)
class NamePattern:
    """A parsed pattern. Make it with `NamePattern.parse`."""

    text: str
    root: str
    """The fixed directory above the first level with a directive."""
    levels: tuple[Level, ...]
    """All levels below `root`; the last one names the files."""
    resolution_us: int
    """How exact the times in the names are: 1,000,000 where they carry no fraction, else 1."""

    @classmethod
    def parse(cls, text: str) -> NamePattern:
        """Understand a pattern. ValueError says what is wrong with it and what is allowed."""
        if not text.startswith("/"):
            raise ValueError(f"{text!r} is not an absolute path: it must begin with /")
        if "\0" in text:
            raise ValueError(f"{text!r} has a NUL character in it")
        parts = PurePosixPath(text).parts[1:]
        if ".." in parts:
            raise ValueError(f"{text!r} goes up with ..: write the path without it")
        levels = [_parse_level(part, text) for part in parts]
        first = next((i for i, level in enumerate(levels) if level.fixed is None), None)
        if first is None:
            raise ValueError(f"{text!r} has no time in it: allowed are {ALLOWED}")
        if text.endswith("/") or levels[-1].fixed is not None:
            raise ValueError(f"{text!r}: the last part must name the files by their time, with at least one directive")
        letters = {letter for level in levels for letter in level.letters}
        if missing := _missing(letters):
            raise ValueError(f"{text!r} doesn't say when a recording began to the second: {missing}")
        root = PurePosixPath("/", *(level.fixed or "" for level in levels[:first]))
        return cls(
            text=text,
            root=str(root),
            levels=tuple(levels[first:]),
            resolution_us=1 if "f" in letters else 1_000_000,
        )

    def start_us(self, fields: Fields, zone: ZoneInfo) -> int | None:
        """When the recording with these fields began, or None where they are no time (February 30th, hour 25).

        Of a local time that happens twice, the first one.
        """
        return self._reading_us(fields, zone, 0)

    def second_reading_us(self, fields: Fields, zone: ZoneInfo) -> int | None:
        """The same, but of a local time that happens twice the second one."""
        return self._reading_us(fields, zone, 1)

    def _reading_us(self, fields: Fields, zone: ZoneInfo, fold: int) -> int | None:
        fraction = fields.get("f", 0)
        if "s" in fields:
            return fields["s"] * 1_000_000 + fraction
        date = _date(fields)
        if date is None:
            return None
        minute = _minute_us(*date, fields["H"], fields["M"], fields.get("z"), zone, fold)
        if minute is None or fields["S"] > 60:
            return None
        return minute + fields["S"] * 1_000_000 + fraction

    def span_us(self, fields: Fields, zone: ZoneInfo) -> tuple[int, int] | None:
        """The times (begin, end), end exclusive, that a directory with these fields can hold; None: no time at all.

        It may be wider than what is there (it takes in both readings of an ambiguous local time), never narrower.
        """
        if "s" in fields:
            begin = fields["s"] * 1_000_000
            return begin, begin + 1_000_000
        year = _year(fields)
        if year is None:
            return EVERYTHING
        try:
            first, last = _local_span(year, fields)
            if "z" in fields:
                offset = timedelta(seconds=fields["z"])
                return from_datetime(_utc(first, offset)), from_datetime(_utc(last, offset))
            earliest = _utc(first, max(_offsets(first, zone)))
            latest = _utc(last, min(_offsets(last, zone) + _offsets(last - timedelta(seconds=1), zone)))
            return from_datetime(earliest), from_datetime(latest)
        except (ValueError, OverflowError):
            return None

    def bounds(self, level: Level, begin_us: int, end_us: int, zone: ZoneInfo) -> tuple[str, str] | None:
        """For a level whose names sort by time: strings between which all names of begin <= time < end lie.

        Wide by a few hours where local time may jump; None where the names of this level don't sort.
        """
        if level.sortable_format is None or level.prefix is None:
            return None
        margin = _LONGEST_SHIFT if _may_jump(begin_us, end_us, zone) else _LEAP
        return (
            level.prefix + _sort_key(begin_us, -margin, level.sortable_format, zone, ""),
            level.prefix + _sort_key(end_us, margin, level.sortable_format, zone, "\U0010ffff"),
        )


def _may_jump(begin_us: int, end_us: int, zone: ZoneInfo) -> bool:
    """Whether the zone's clocks may be set back or forth so near to these times that names don't sort by them."""
    if end_us - begin_us > _STEADY_US:
        return True
    try:
        offsets = {
            (to_datetime(us).astimezone(zone) + shift).utcoffset()
            for us, shift in ((begin_us, -_LONGEST_SHIFT), (end_us, _LONGEST_SHIFT))
        }
    except (OverflowError, ValueError):
        return True
    return len(offsets) > 1


def _sort_key(us: int, shift: timedelta, sortable_format: str, zone: ZoneInfo, beyond: str) -> str:
    try:
        moment = to_datetime(us).astimezone(zone) + shift
    except (OverflowError, ValueError):
        return beyond
    if sortable_format == "%s":
        return f"{max(from_datetime(moment), 0) // 1_000_000:010d}"
    return f"{moment.year:04d}" + moment.strftime(sortable_format.removeprefix("%Y"))


def _parse_level(part: str, text: str) -> Level:
    regex: list[str] = []
    plain: list[str] = []
    letters: list[str] = []
    pieces: list[str] = re.findall(r"%.?|[^%]+", part, re.DOTALL)
    open_ended = ""
    for piece in pieces:
        if not piece.startswith("%") or piece == "%%":
            literal = "%" if piece == "%%" else piece
            if open_ended and literal[0].isdigit():
                raise ValueError(f"{text!r}: a digit right after %{open_ended}, which takes any number of digits")
            plain.append(literal)
            regex.append(re.escape(literal))
            open_ended = ""
            continue
        letter = piece[1:]
        if letter not in _DIRECTIVES:
            raise ValueError(f"{text!r}: {piece!r} is not a directive: allowed are {ALLOWED}")
        if open_ended and letter != "z":
            raise ValueError(f"{text!r}: %{letter} right after %{open_ended}: something must stand between them")
        letters.append(letter)
        regex.append(f"({_DIRECTIVES[letter]})")
        open_ended = letter if letter in _OPEN_ENDED else ""
    if not letters:
        return Level(text=part, fixed="".join(plain))
    prefix, sortable = _sortable(pieces)
    return Level(
        text=part,
        fixed=None,
        letters=tuple(letters),
        regex=re.compile("".join(regex), re.ASCII | re.DOTALL),
        prefix=prefix,
        sortable_format=sortable,
    )


def _sortable(pieces: list[str]) -> tuple[str | None, str | None]:
    """(fixed prefix, strftime format or "%s") of a level in which names sort as their times do."""
    prefix = ""
    rest = [*pieces]
    while rest and (rest[0] == "%%" or not rest[0].startswith("%")):
        prefix += rest.pop(0).replace("%%", "%")
    directives = [piece[1:] for piece in rest if piece.startswith("%") and piece != "%%"]
    if directives[0] == "s" and not set(directives[1:]) - {"f"}:
        return prefix, "%s"
    if tuple(directives[: len(_SORTABLE)]) != _SORTABLE or set(directives[len(_SORTABLE) :]) - {"f"}:
        return None, None
    return prefix, "".join(rest[: rest.index("%S") + 1])


def _missing(letters: set[str]) -> str:
    if "s" in letters:
        return ""
    wanted = {
        "the year (%Y)": letters & {"Y", "y"},
        "the day (%m and %d, or %j)": "j" in letters or {"m", "d"} <= letters,
        "the hour (%H)": "H" in letters,
        "the minute (%M)": "M" in letters,
        "the second (%S)": "S" in letters,
    }
    missing = [name for name, there in wanted.items() if not there]
    return f"it lacks {', '.join(missing)}; or use %s, seconds since 1970" if missing else ""


def _value(letter: str, digits: str) -> int:
    if letter == "f":
        return int(digits[:6].ljust(6, "0"))
    if letter == "z":
        if digits == "Z":
            return 0
        seconds = int(digits[1:3]) * 3600 + int(digits[-2:]) * 60
        return -seconds if digits[0] == "-" else seconds
    return int(digits)


def _year(fields: Fields) -> int | None:
    if "Y" in fields:
        return fields["Y"]
    if "y" in fields:
        return 2000 + fields["y"]  # nothing was recorded to files before
    return None


def _date(fields: Fields) -> tuple[int, int, int] | None:
    """(year, month, day), or None where the fields contradict each other or the calendar."""
    year = _year(fields)
    if year is None or year % 100 != fields.get("y", year % 100):
        return None
    if "j" not in fields:
        return year, fields["m"], fields["d"]
    try:
        day = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=fields["j"] - 1)
    except (ValueError, OverflowError):
        return None
    if (day.year, fields.get("m", day.month), fields.get("d", day.day)) != (year, day.month, day.day):
        return None
    return day.year, day.month, day.day


@lru_cache(maxsize=4096)
def _minute_us(
    year: int, month: int, day: int, hour: int, minute: int, offset_s: int | None, zone: ZoneInfo, fold: int
) -> int | None:
    """A local minute in microseconds since 1970; recordings of one minute share the work."""
    try:
        local = datetime(year, month, day, hour, minute)
        if offset_s is not None:
            return from_datetime(_utc(local, timedelta(seconds=offset_s)))
        return from_datetime(local.replace(tzinfo=zone, fold=fold))
    except (ValueError, OverflowError):
        return None


def _local_span(year: int, fields: Fields) -> tuple[datetime, datetime]:
    """The naive local times that the fields leave open, from the year down to the first unknown one."""
    begin = datetime(year, 1, 1)
    if "j" in fields:
        begin += timedelta(days=fields["j"] - 1)
        width = timedelta(days=1)
    elif "m" not in fields:
        return begin, begin.replace(year=year + 1)
    else:
        begin = begin.replace(month=fields["m"])
        if "d" not in fields:
            return begin, (begin + timedelta(days=31)).replace(day=1)
        begin = begin.replace(day=fields["d"])
        width = timedelta(days=1)
    for letter, unit in (("H", timedelta(hours=1)), ("M", timedelta(minutes=1)), ("S", timedelta(seconds=1))):
        if letter not in fields:
            break
        if unit * fields[letter] >= width + timedelta(seconds=1):  # a leap second is a second of the next minute
            raise ValueError(f"%{letter} is {fields[letter]}")
        begin += unit * fields[letter]
        width = unit
    return begin, begin + width


def _offsets(local: datetime, zone: ZoneInfo) -> list[timedelta]:
    readings = (local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    return [offset for offset in readings if offset is not None]


def _utc(local: datetime, offset: timedelta) -> datetime:
    return (local - offset).replace(tzinfo=UTC)
