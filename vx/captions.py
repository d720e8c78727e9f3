"""What the text in a picture or in a subtitle track says at a moment. Pure: wall times in, text out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vx.drawing import Words
from vx.jobs import Source
from vx.timestamps import to_datetime

WILDCARDS = (
    "Timestamp",
    "ExportComment",
    "CameraId",
    "CameraName",
    "CameraLocation",
    "CurrentUser",
    "BookmarkInfo",
)
"""What may stand in braces in a pattern; all else in it is text. There are no bookmarks here: that one is empty."""

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DIRECTIVES: Mapping[str, Callable[[datetime], str]] = {
    # English whatever the locale of the server is: the files go to others
    "Y": lambda t: f"{t.year:04}",
    "y": lambda t: f"{t.year % 100:02}",
    "m": lambda t: f"{t.month:02}",
    "d": lambda t: f"{t.day:02}",
    "e": lambda t: f"{t.day:2}",
    "j": lambda t: f"{t.timetuple().tm_yday:03}",
    "H": lambda t: f"{t.hour:02}",
    "I": lambda t: f"{(t.hour + 11) % 12 + 1:02}",
    "M": lambda t: f"{t.minute:02}",
    "S": lambda t: f"{t.second:02}",
    "f": lambda t: f"{t.microsecond // 1000:03}",
    "p": lambda t: "AM" if t.hour < 12 else "PM",
    "a": lambda t: _DAYS[t.weekday()][:3],
    "A": lambda t: _DAYS[t.weekday()],
    "b": lambda t: _MONTHS[t.month - 1][:3],
    "B": lambda t: _MONTHS[t.month - 1],
    "F": lambda t: f"{t.year:04}-{t.month:02}-{t.day:02}",
    "T": lambda t: f"{t.hour:02}:{t.minute:02}:{t.second:02}",
    "%": lambda _: "%",
}
_LONGEST_NAME = len("September")
_ZONE = "z"
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_WILDCARD = re.compile("{(" + "|".join(WILDCARDS) + ")}")


def check_time_format(text: str) -> None:
    """ValueError says what a time format has that isn't known."""
    for match in _DIRECTIVE.finditer(text):
        if match[1] not in _DIRECTIVES and match[1] != _ZONE:
            known = " ".join(f"%{letter}" for letter in (*_DIRECTIVES, _ZONE))
            raise ValueError(f"{match[0]!r} is not known; known are {known}")


def format_time(us: int, time_format: str, offset_min: int) -> str:
    """A wall time as local time, `offset_min` east of UTC; `%f` are its milliseconds, `%z` is the offset."""
    # what lies beyond the years 1 to 9999 in local time only is written in UTC
    try:
        moment = to_datetime(us) + timedelta(minutes=offset_min)
    except OverflowError:
        moment, offset_min = to_datetime(us), 0
    sign, minutes = "-" if offset_min < 0 else "+", abs(offset_min)

    def fill(match: re.Match[str]) -> str:
        if match[1] == _ZONE:
            return f"{sign}{minutes // 60:02}:{minutes % 60:02}"
        return _DIRECTIVES[match[1]](moment)

    return _DIRECTIVE.sub(fill, time_format)


def clean(text: str) -> str:
    """Text without what can't be drawn: control and other invisible characters become spaces, blank lines go."""
    if text.isprintable():
        return text.strip()
    lines = (
        "".join(" " if unicodedata.category(c) in _INVISIBLE and c not in _JOINERS else c for c in line).strip()
        for line in re.split(r"\r\n?|[\n\v\f\x85\u2028\u2029]", text)
    )
    return "\n".join(line for line in lines if line)


_INVISIBLE = ("Cc", "Cf", "Cs", "Cn")
_JOINERS = "\u200c\u200d"
"""Which letters of some scripts, and emoji, need between them."""


@dataclass(frozen=True)
class Caption:
    """The text of a camera, or of several in one file, with the moment left open."""

    parts: tuple[str, ...]
    """Between each two of them stands the time."""
    time_format: str
    offset_min: int

    @classmethod
    def of(cls, words: Words, sources: Sequence[Source]) -> Caption:
        """The text that `words` mean for these cameras."""

        def each(name: str) -> str:
            return ", ".join(dict.fromkeys(text for source in sources if (text := getattr(source, name))))

        values = {
            "ExportComment": words.comment,
            "CameraId": each("id"),
            "CameraName": each("name"),
            "CameraLocation": each("location"),
            "CurrentUser": words.user,
            "BookmarkInfo": "",
        }
        parts = words.pattern.split("{Timestamp}")
        filled = (_WILDCARD.sub(lambda match: values[match[1]], part) for part in parts)
        return cls(tuple(filled), words.time_format, words.offset_min)

    def at(self, us: int) -> str:
        """The text at a wall time."""
        return clean(self.time(us).join(self.parts))

    def time(self, us: int) -> str:
        """A wall time as the text writes it."""
        return format_time(us, self.time_format, self.offset_min)

    def gap(self, from_us: int) -> str:
        """What stands instead where no picture comes: it was not recorded, can't be read, or isn't wanted."""
        return f"No new picture after {self.time(from_us)}"

    def longest(self, us: int) -> int:
        """The most bytes that the text has at any moment, given one."""
        names = _LONGEST_NAME * self.time_format.count("%")
        return max(len(self.at(us).encode()) + names * (len(self.parts) - 1), len(self.gap(us).encode()) + names)
