"""What one key of the file may be: rules, to be written beside the fields of `schema` as `Annotated[type, rule]`."""

from __future__ import annotations

import os
import pwd
import re
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from vx.access.hashing import check_hash
from vx.archive.pattern import NamePattern
from vx.config.addresses import Address, access_point_key
from vx.drawing import Polygon
from vx.jobs import LiveFeed

_LONGEST_FILE_NAME = 200
"""Bytes of a name that an export agent gives to a file; a number and the extension have to fit behind it."""


class Rule(NamedTuple):
    """What one key may be: `read` gives the value to keep or raises ValueError; `allowed` says it in words."""

    read: Callable[[Any], Any]
    allowed: str
    tells_all: bool = False
    """The text of `read`'s ValueError is the whole message: it has the value and what is allowed."""


def number(kind: type[int] | type[float], low: float, high: float) -> Rule:
    def read(value: object) -> float:
        # bool is an int for Python; inf and nan, which TOML has, are in no range.
        if isinstance(value, (int, kind)) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError

    return Rule(read, f"a {'whole ' if kind is int else ''}number from {low} to {high}")


def text(read: Callable[[str], Any], allowed: str, *, tells_all: bool = False) -> Rule:
    def read_text(value: object) -> Any:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError
        return read(value)

    return Rule(read_text, allowed, tells_all)


def _flag(value: object) -> bool:
    if value is True or value is False:
        return value
    raise ValueError


def one_of(*words: str) -> Rule:
    def read(value: str) -> str:
        if value not in words:
            raise ValueError
        return value

    return text(read, "one of " + ", ".join(words))


def _absolute(value: str) -> Path:
    if not value.startswith("/"):
        raise ValueError
    return Path(os.path.normpath(value))


def _timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError from None
    return value


def _pattern(value: str) -> str:
    NamePattern.parse(value)
    return value


def _system_user(value: str) -> str:
    try:
        pwd.getpwnam(value)
    except KeyError:
        raise ValueError("there is none of this name") from None
    return value


def _line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError
    return value


def _live(value: object) -> LiveFeed:
    """Check a camera's address. The text of the ValueError is the whole message: it must not show the password."""
    allowed = "allowed is rtsp(s)://, http(s)://, file:///PATH or test:, a URL without control characters"
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        raise ValueError(f"this is not an address of a camera (it is not shown here); {allowed}")
    try:
        url = urlsplit(value)
        known = {
            "rtsp": url.hostname and url.port != 0,
            "http": url.hostname and url.port != 0,
            "file": url.path.startswith("/") and not url.netloc,
            "test": not (url.netloc or url.path or url.fragment) and _are_numbers(url.query),
        }
        is_right = known.get(re.sub(r"^(rtsp|http)s$", r"\1", url.scheme.lower()))
    except ValueError:  # its message may quote the address
        is_right = False
    if not is_right:
        raise ValueError(f"this is not an address of a camera (it is not shown here); {allowed}")
    return LiveFeed(address=value)


_TEST_NUMBERS = {"width": (16, 3840), "height": (16, 2160), "rate": (1, 60)}


def _are_numbers(query: str) -> bool:
    """Whether a made picture is asked for by numbers that make sense."""
    for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        low, high = _TEST_NUMBERS.get(name, (1, 0))
        is_even = name == "rate" or value[-1:] in tuple("02468")
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high and is_even):
            return False
    return True


def _access_point(*shape: str) -> Callable[[str], str]:
    """Check NODE and then parts that start as `shape` says; give it with `hosts/` in front, as the contract has it."""

    def read(value: str) -> str:
        key = access_point_key(value)
        parts = key.split("/")
        if (
            not key.isprintable()
            or len(parts) != 1 + len(shape)
            or not all(part.strip() == part != "" for part in parts)
        ):
            raise ValueError
        if not all(part.startswith(start) for part, start in zip(parts[1:], shape, strict=True)):
            raise ValueError
        return f"hosts/{key}"

    return read


def _agent(value: str) -> str:
    access_point = _access_point("MMExportAgent.")(value)
    _, _, index = access_point.rpartition(".")
    if not (index.isascii() and index.isdigit() and len(index) <= 9):
        raise ValueError("no whole number at the end")
    return access_point


def safe_file_name(name: str) -> str:
    """The name as it is, where it is that of a file and nothing else on any system. ValueError says why not."""
    if not name.strip() or not name.isprintable():
        raise ValueError("it is empty or has control characters")
    if "/" in name or "\\" in name:
        raise ValueError("a name, not a path: it has / or \\")
    if name.startswith("."):
        raise ValueError("it begins with a dot")
    if len(name.encode()) > _LONGEST_FILE_NAME:
        raise ValueError(f"it is longer than {_LONGEST_FILE_NAME} bytes")
    return name


def _camera_pattern(value: str) -> str:
    if not value or not value.isprintable() or ".." in value.split("/"):
        raise ValueError
    return value


def _user_name(value: str) -> str:
    if not _line(value) == value.strip() or len(value) > 100:
        raise ValueError
    return value


def _polygon(value: object) -> Polygon:
    if not isinstance(value, list) or len(value) < 3:
        raise ValueError
    fraction = number(float, 0, 1)
    points = []
    for point in value:
        if not isinstance(point, list) or len(point) != 2:
            raise ValueError
        points.append((float(fraction.read(point[0])), float(fraction.read(point[1]))))
    return tuple(points)


Flag = Annotated[bool, Rule(_flag, "true or false")]
Line = Annotated[str, text(_line, "a text of one line, not empty")]
Seconds = Annotated[float, number(float, 0, 3600)]
Lifetime = Annotated[float, number(float, 1, 10 * 366 * 86400)]
Gigabytes = Annotated[float, number(float, 0, 1 << 20)]
Directory = Annotated[Path, text(_absolute, "an absolute path")]
PemFile = Annotated[Path, text(_absolute, "the absolute path of a PEM file")]
FileNamePattern = Annotated[str, text(safe_file_name, "a file's name without its extension, not a path")]
RecordingPattern = Annotated[
    str, text(_pattern, "an absolute path with directives for the start of each file", tells_all=True)
]
Timezone = Annotated[str, text(_timezone, 'an IANA name like "Europe/Berlin", or "UTC"')]
Listen = Annotated[Address, text(Address.parse, 'an address like "127.0.0.1:20109", "[::1]:20109" or "unix:///run/vx"')]
CameraName = Annotated[
    str,
    text(_access_point("", "SourceEndpoint.video:"), '"hosts/NODE/DeviceIpint.N/SourceEndpoint.video:A:B"'),
]
StorageName = Annotated[
    str,
    text(
        _access_point("MultimediaStorage.", "MultimediaStorage"),
        '"hosts/NODE/MultimediaStorage.NAME/MultimediaStorage"',
    ),
]
AgentName = Annotated[str, text(_agent, '"hosts/NODE/MMExportAgent.N"')]
LiveAddress = Annotated[LiveFeed, Rule(_live, "the address of a camera", tells_all=True)]
Corners = Annotated[Polygon, Rule(_polygon, "a list of at least 3 points [x, y], each of them from 0 to 1")]
CameraPattern = Annotated[
    str, text(_camera_pattern, 'access points, * for any characters: "Server1/DeviceIpint.*", "*"')
]
UserName = Annotated[str, text(_user_name, "a text of one line, at most 100 characters")]
PasswordHash = Annotated[str, text(check_hash, "what `vx passwd` prints")]
SystemUser = Annotated[str, text(_system_user, "a user of this system")]
