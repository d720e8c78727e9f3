"""What users write and what they are shown: times, sizes, access points, names of files. All pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

from vx.timestamps import parse_timestamp, to_datetime

_DAY_US = 86_400_000_000
_AGO = re.compile(r"-(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)(?:\.(\d{1,6}))?s)?", re.ASCII)
_SPAN = re.compile(r"(?=\d)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)(?:\.(\d{1,6}))?s)?", re.ASCII)
_SIZE = re.compile(r"(\d+)(?:\.(\d+))? ?(?:([kmgt])(i)?)?b?", re.ASCII | re.IGNORECASE)
_UNSAFE = re.compile(r'[<>:"/\\|?*]')

MAX_NAME_BYTES = 200
"""Of a file's name; 255 is what file systems take, and a `.part` ending must fit too."""


def parse_time(text: str, now_us: int) -> int:
    """Microseconds since 1970 of a time on the command line. ValueError says what is allowed."""
    if text == "now":
        return now_us
    try:
        if ago := _AGO.fullmatch(text):
            days, hours, minutes, seconds = (int(ago[part] or 0) for part in range(1, 5))
            micros = int((ago[5] or "").ljust(6, "0"))
            us = now_us - ((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
            to_datetime(us)  # OverflowError: before the year 1
            return us
        return parse_timestamp(text)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time; allowed is 2026-05-11T08:04:11 (UTC), 2026-05-11T10:04:11+02:00, "
            "20260511T080411.155 (UTC), now, or so long ago: -10m, -2h30m, -1d"
        ) from None


def parse_day(text: str | None, now_us: int) -> int:
    """The begin, in UTC, of the day `2026-05-11`, or of today. ValueError says what is allowed."""
    if text is None:
        return now_us // _DAY_US * _DAY_US
    try:
        return parse_timestamp(f"{date.fromisoformat(text).isoformat()}T00:00:00Z")
    except ValueError:
        raise ValueError(f"{text!r} is not a day; allowed is 2026-05-11") from None


def day_bar(spans: Sequence[tuple[int, int]], begin_ms: int, width: int) -> str:
    """A day from `begin_ms` on in `width` characters: how much of each one's time the spans (in ms) cover."""
    slot = _DAY_US // 1000 / width
    bar = ""
    for number in range(width):
        low, high = begin_ms + number * slot, begin_ms + (number + 1) * slot
        covered = sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in spans) / slot
        # Anything at all is seen, and so is any gap.
        bar += "·" if covered <= 0 else "█" if covered >= 0.9999 else "▁▂▃▄▅▆▇"[min(int(covered * 7), 6)]
    return bar


def show_time(us: int) -> str:
    """For people: `2026-05-11 08:04:11.155 UTC`, the fraction only where there is one."""
    moment = to_datetime(us)
    fraction = f".{moment.microsecond:06}".rstrip("0") if moment.microsecond else ""
    return f"{moment.replace(tzinfo=None).isoformat(' ', 'seconds')}{fraction} UTC"


def show_wire_time(text: str) -> str:
    """`show_time` of a time that the server sent; `-` where it sent none."""
    try:
        return show_time(parse_timestamp(text)) if text else "-"
    except ValueError:
        return plain(text)


def parse_duration(text: str) -> int:
    """Microseconds of `30s`, `1.5s`, `10m`, `1h30m`. ValueError says what is allowed."""
    if match := _SPAN.fullmatch(text.strip()):
        hours, minutes, seconds = (int(match[part] or 0) for part in range(1, 4))
        us = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + int((match[4] or "").ljust(6, "0"))
        if us:
            return us
    raise ValueError(f"{text!r} is not a duration; allowed is 30s, 1.5s, 10m, 1h30m")


def show_duration(us: int) -> str:
    """`2h 30m`, `45s`, `1.5s`."""
    seconds, micros = divmod(us, 1_000_000)
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m")]
    rest = f"{seconds % 60}.{micros:06}".rstrip("0").rstrip(".")
    shown = [f"{number}{unit}" for number, unit in parts if number]
    if rest != "0" or not shown:
        shown.append(f"{rest}s")
    return " ".join(shown)


def parse_size(text: str) -> int:
    """Bytes of `100MB` (1000 * 1000), `100MiB` (1024 * 1024), `4096`. ValueError says what is allowed."""
    if match := _SIZE.fullmatch(text.strip()):
        whole, fraction, prefix, binary = match.groups()
        power = " kmgt".index(prefix.lower()) if prefix else 0
        unit = (1024 if binary else 1000) ** Decimal(power)
        size = int(Decimal(f"{whole}.{fraction or 0}") * unit)
        if 0 < size < 1 << 63:
            return size
    raise ValueError(f"{text!r} is not a size; allowed are bytes, at least 1, or 100MB, 1.5GB, 64MiB")


def show_size(size: int) -> str:
    """`812 B`, `12.3 MB`, in powers of 1000."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    units = iter(("kB", "MB", "GB", "TB"))
    unit = ""
    # Rounding must not give 1000.0 of a unit.
    while value >= 999.95 and (larger := next(units, "")):
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


def camera_origin(text: str) -> str:
    """The full access point of a camera's video: `hosts/` in front, the main stream behind where none is named."""
    key = text.strip().strip("/").removeprefix("hosts/")
    if key.count("/") == 1:
        key += "/SourceEndpoint.video:0:0"
    if not key.isprintable() or key.count("/") != 2 or "" in key.split("/"):
        raise ValueError(
            f"{text!r} is not a camera; allowed is hosts/NODE/DeviceIpint.N/SourceEndpoint.video:A:B, "
            "or NODE/DeviceIpint.N for its main stream"
        )
    return f"hosts/{key}"


def parse_polygon(text: str) -> list[tuple[float, float]]:
    """`0.1,0.2 0.5,0.2 0.5,0.9`: corners as fractions. ValueError says what is allowed."""
    points = [_fractions(point) for point in text.split()]
    if len(points) < 3 or not all(len(point) == 2 for point in points):
        raise ValueError(f'{text!r} is not a polygon; allowed is "0.1,0.1 0.4,0.1 0.4,0.5": x,y of its corners, 0 to 1')
    return [(x, y) for x, y in points]


def parse_area(text: str) -> list[float]:
    """`0.1,0,0.9,1`: left, top, right, bottom as fractions. ValueError says what is allowed."""
    sides = _fractions(text)
    if len(sides) != 4 or sides[0] >= sides[2] or sides[1] >= sides[3]:
        raise ValueError(f"{text!r} is not an area; allowed is 0.1,0,0.9,1: left, top, right, bottom from 0 to 1")
    return sides


def _fractions(text: str) -> list[float]:
    """Numbers from 0 to 1; none where one isn't."""
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        return []
    return numbers if all(0 <= number <= 1 for number in numbers) else []


def plain(text: str) -> str:
    """Text of the server's without what a terminal would obey: control and other unprintable characters become `?`."""
    return "".join(character if character.isprintable() else "?" for character in text)


def local_names(file_ids: list[str], mime_types: list[str]) -> list[str]:
    """Names for result files on this disk, all different.

    A file's id is the server's and is not trusted: only its last part is used, without separators, control
    characters, leading dots or what other systems forbid.
    """
    taken: set[str] = set()
    names = []
    for number, (file_id, mime_type) in enumerate(zip(file_ids, mime_types, strict=True), 1):
        name = _safe(file_id) or f"file-{number}{_EXTENSIONS.get(mime_type, '')}"
        stem, dot, extension = name.rpartition(".")
        copy = 1
        # Names that differ only by case are one name on some disks.
        while name.lower() in taken:
            copy += 1
            name = f"{stem}-{copy}.{extension}" if dot else f"{extension}-{copy}"
        taken.add(name.lower())
        names.append(name)
    return names


_EXTENSIONS = {
    "video/mp4": ".mp4",
    "video/x-matroska": ".mkv",
    "image/jpeg": ".jpg",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
}


def _safe(file_id: str) -> str:
    last = re.split(r"[/\\]", file_id)[-1]
    name = "".join("_" if _UNSAFE.match(character) or not character.isprintable() else character for character in last)
    # A dot in front hides a file, one behind gets lost on some disks.
    name = name.strip(" .")
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    _, dot, extension = name.rpartition(".")
    ending = f".{extension}" if dot and len(extension.encode()) <= 10 else ""
    room = MAX_NAME_BYTES - len(ending.encode())
    return (name.encode()[:room].decode(errors="ignore").rstrip(" .")) + ending


def password_in(path: str | Path) -> str:
    """The first line of a file of the user's. ValueError where it cannot be read, or there is nothing in it."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not lines or not lines[0]:
        raise ValueError(f"{path} has no password in its first line")
    return lines[0]
