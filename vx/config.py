"""The server's configuration: a TOML file, read once, validated once, frozen from then on.

`load(path)` is the way in. Each key is a field below; its `_Rule` says what is allowed, and a mistake in the file is
told with the key's path, the value that stands there and that rule (`ConfigError`, all mistakes at once). Units are in
the names: `_s` seconds, `_kb` 1024 bytes, `_mb` 1024 * 1024 bytes.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import pwd
import re
import tomllib
import types
import zoneinfo
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl, urlsplit

import msgspec

from vx.access.hashing import check_hash
from vx.archive.pattern import NamePattern
from vx.drawing import MaskStyle, Polygon
from vx.errors import Kind, VxError
from vx.jobs import Cut, Gaps, LiveFeed
from vx.rights import Grant, Rights

DEFAULT_PORT = 20109
_ANY_AGENT = "MMExportAgent.0"
"""The agent of a node for which none is configured: clients name one because there always is one."""
LONGEST_FILE_NAME = 200
"""Bytes of a name that an export agent gives to a file; a number and the extension have to fit behind it."""


class ConfigError(VxError):
    """The configuration cannot be used. `problems` has one line for each mistake; the text is these lines."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(Kind.INVALID, "\n".join(problems))
        self.problems = tuple(problems)


class Address(msgspec.Struct, frozen=True):
    """Where a server listens: a host (without brackets) and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    unix_path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`, `[::1]:PORT` or `unix:///PATH`. ValueError where it is none of them."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix://")
            # A socket's address has room for 108 bytes, the last of which is NUL.
            if not path.startswith("/") or path.endswith("/") or len(os.fsencode(path)) > 107 or "\0" in path:
                raise ValueError("not the absolute path of a socket, at most 107 bytes")
            return cls(unix_path=path)
        host, colon, digits = text.rpartition(":")
        if not (colon and digits.isascii() and digits.isdigit() and int(digits) < 1 << 16):
            raise ValueError("no port from 0 to 65535 after the host")
        if host.startswith("[") and host.endswith("]"):
            host = str(ipaddress.IPv6Address(host[1:-1]))
        elif not host or not host.isprintable() or any(mark in host for mark in " :/[]@"):
            raise ValueError("no host, or one that is neither a name nor an address")
        return cls(host=host, port=int(digits))

    @property
    def is_local(self) -> bool:
        """Only processes of this machine can reach it."""
        if self.unix_path or self.host == "localhost":
            return True
        try:
            ip = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return (mapped or ip).is_loopback

    def __str__(self) -> str:
        if self.unix_path:
            return f"unix://{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Rule(NamedTuple):
    """What one key may be: `read` gives the value to keep or raises ValueError; `allowed` says it in words."""

    read: Callable[[Any], Any]
    allowed: str
    tells_all: bool = False
    """The text of `read`'s ValueError is the whole message: it has the value and what is allowed."""


def _number(kind: type[int] | type[float], low: float, high: float) -> _Rule:
    def read(value: object) -> float:
        # bool is an int for Python; inf and nan, which TOML has, are in no range.
        if isinstance(value, (int, kind)) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError

    return _Rule(read, f"a {'whole ' if kind is int else ''}number from {low} to {high}")


def _text(read: Callable[[str], Any], allowed: str, *, tells_all: bool = False) -> _Rule:
    def read_text(value: object) -> Any:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError
        return read(value)

    return _Rule(read_text, allowed, tells_all)


def _flag(value: object) -> bool:
    if value is True or value is False:
        return value
    raise ValueError


def _one_of(*words: str) -> _Rule:
    def read(value: str) -> str:
        if value not in words:
            raise ValueError
        return value

    return _text(read, "one of " + ", ".join(words))


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


def access_point_key(access_point: str) -> str:
    """What access points are compared by: the text without the leading `hosts/`, which clients may leave out."""
    return access_point.removeprefix("hosts/")


def node_of(access_point: str) -> str:
    """The machine that an access point names."""
    return access_point_key(access_point).partition("/")[0]


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


def _file_name(value: str) -> str:
    return safe_file_name(value)


def safe_file_name(name: str) -> str:
    """The name as it is, where it is that of a file and nothing else on any system. ValueError says why not."""
    if not name.strip() or not name.isprintable():
        raise ValueError("it is empty or has control characters")
    if "/" in name or "\\" in name:
        raise ValueError("a name, not a path: it has / or \\")
    if name.startswith("."):
        raise ValueError("it begins with a dot")
    if len(name.encode()) > LONGEST_FILE_NAME:
        raise ValueError(f"it is longer than {LONGEST_FILE_NAME} bytes")
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
    fraction = _number(float, 0, 1)
    points = []
    for point in value:
        if not isinstance(point, list) or len(point) != 2:
            raise ValueError
        points.append((float(fraction.read(point[0])), float(fraction.read(point[1]))))
    return tuple(points)


_Seconds = Annotated[float, _number(float, 0, 3600)]
_Lifetime = Annotated[float, _number(float, 1, 10 * 366 * 86400)]
_Listen = Annotated[
    Address, _text(Address.parse, 'an address like "127.0.0.1:20109", "[::1]:20109" or "unix:///run/vx"')
]
_Camera = Annotated[
    str,
    _text(_access_point("", "SourceEndpoint.video:"), '"hosts/NODE/DeviceIpint.N/SourceEndpoint.video:A:B"'),
]
_Storage = Annotated[
    str,
    _text(
        _access_point("MultimediaStorage.", "MultimediaStorage"),
        '"hosts/NODE/MultimediaStorage.NAME/MultimediaStorage"',
    ),
]
_Agent = Annotated[str, _text(_agent, '"hosts/NODE/MMExportAgent.N"')]
_Flag = Annotated[bool, _Rule(_flag, "true or false")]
_Line = Annotated[str, _text(_line, "a text of one line, not empty")]
_Gigabytes = Annotated[float, _number(float, 0, 1 << 20)]


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a camera's recordings lie: `[[camera.archive]]`."""

    storage: _Storage
    """Access point by which clients name this archive, always with the leading `hosts/`."""
    path: Annotated[str, _text(_pattern, "an absolute path with directives for the start of each file", tells_all=True)]
    """Pattern of the files' paths (see vx.archive.pattern)."""
    timezone: Annotated[str, _text(_timezone, 'an IANA name like "Europe/Berlin", or "UTC"')] = "UTC"
    """The zone of the times in the files' names."""


class Mask(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a camera's picture that never leaves this server: `[[camera.mask]]`."""

    points: Annotated[Polygon, _Rule(_polygon, "a list of at least 3 points [x, y], each of them from 0 to 1")]
    """Its corners, as fractions of the frame from the top left."""


class Camera(msgspec.Struct, frozen=True, kw_only=True):
    """A camera that clients may ask for: `[[camera]]`."""

    access_point: _Camera
    """By which clients name it, always with the leading `hosts/`."""
    display_id: _Line = ""
    display_name: _Line = ""
    """For people; the access point where none is given."""
    location: _Line = ""
    """Where it hangs, in words, for text in pictures."""
    archive: tuple[Archive, ...] = ()
    """The first one is the default."""
    live: Annotated[LiveFeed, _Rule(_live, "the address of a camera", tells_all=True)] | None = None
    """Where it can be seen live."""
    live_transport: Annotated[Literal["tcp", "udp"], _one_of("tcp", "udp")] = "tcp"
    """By which RTSP's packets come."""
    mask: tuple[Mask, ...] = ()

    def __post_init__(self) -> None:
        if not self.display_name:
            msgspec.structs.force_setattr(self, "display_name", access_point_key(self.access_point))

    def find_archive(self, storage: str) -> Archive | None:
        """The archive of this name, with or without `hosts/`; the camera's default for an empty one."""
        if not storage:
            return self.archive[0] if self.archive else None
        key = access_point_key(storage)
        return next((archive for archive in self.archive if access_point_key(archive.storage) == key), None)


class Lifetimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long sessions live: `[lifetimes]`."""

    live_stream_s: _Lifetime = 300
    """A running live stream that nobody asks about is stopped after this."""
    running_s: _Lifetime = 1800
    """Any other running session that nobody asks about is stopped after this."""
    completed_s: _Lifetime = 3600
    """A completed session's files are deleted after this."""
    removed_s: _Lifetime = 86400
    """A session without files is forgotten after this."""
    audit_s: _Lifetime = 366 * 86400
    """A line of the audit is dropped after this, when the server starts."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What the results of exports may take, and where they may go: `[results]`. A gigabyte is 1024 ** 3 bytes."""

    max_total_gb: _Gigabytes = 0
    """All results that are kept for download, and what running sessions will add; 0: no limit."""
    min_free_gb: _Gigabytes = 0.25
    """This much of the disk stays free."""
    external_roots: tuple[Annotated[Path, _text(_absolute, "an absolute path")], ...] = ()
    """Clients may have results put into these directories and those below, and nowhere else."""

    @property
    def max_total(self) -> int:
        """`max_total_gb` in bytes."""
        return int(self.max_total_gb * (1 << 30))

    @property
    def min_free(self) -> int:
        """`min_free_gb` in bytes."""
        return int(self.min_free_gb * (1 << 30))


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """An export agent: a name by which clients say where an export is done, and its own limits: `[[agent]]`."""

    access_point: _Agent
    directory: Annotated[Path, _text(_absolute, "an absolute path")] | None = None
    """Where it stores results for good when a client asks for that; without it, it can't."""
    max_running_sessions: Annotated[int, _number(int, 1, 1000)] | None = None
    """Beside the limit for all agents together, which it is where this is missing."""
    file_name_pattern: Annotated[str, _text(_file_name, "a file's name without its extension, not a path")] = "{Name}"
    """Of files that it stores and no client named: {Name} (camera and time), {Timestamp}, {SessionId}."""

    @property
    def node(self) -> str:
        return node_of(self.access_point)

    @property
    def index(self) -> int:
        return int(self.access_point.rpartition(".")[2])


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """The processes that do the media work: `[worker]`."""

    nice: Annotated[int, _number(int, 0, 19)] = 5
    memory_mb: Annotated[int, _number(int, 256, 1 << 20)] = 4096
    """Address space of each."""
    readable: tuple[Annotated[Path, _text(_absolute, "an absolute path")], ...] = ()
    """What they may read beside the folders of their recordings: where symbolic links in those lead."""


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """How clips are made: `[media]`."""

    cut: Annotated[Cut, _one_of("exact", "keyframe")] = "exact"
    """Begin and end with the very frame, by encoding what lies between it and the next key frame; or only copy, from
    the key frame before."""
    gaps: Annotated[Gaps, _one_of("keep", "split", "close")] = "keep"
    """Where nothing was recorded the last frame stands, a new file begins, or the file goes on with what comes next."""
    gap_s: Annotated[float, _number(float, 0, 86400)] = 1
    """A shorter gap is always kept."""
    threads: Annotated[int, _number(int, 0, 64)] = 0
    """For each decoder and encoder; 0: one for each core, 4 at most."""
    mask: Annotated[MaskStyle, _one_of("black", "mosaic")] = "black"
    """What masks look like."""
    virtual: Annotated[str, _one_of("auto", "never")] = "auto"
    """Whether clips that need no encoding are served from the recordings, where that can be, or always copied."""
    index_cache_mb: Annotated[int, _number(int, 0, 1 << 20)] = 64
    """What may be kept of recordings' tables, below `state_dir`, so that they are read once; 0: nothing."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """How live cameras are exported: `[live]`."""

    first_frame_timeout_s: Annotated[float, _number(float, 0.1, 3600)] = 10
    """A camera of which nothing was seen by then has failed; waiting for its key frame is included."""
    stall_timeout_s: Annotated[float, _number(float, 1, 3600)] = 10
    """A connection on which nothing came for so long is given up, and a new one made."""
    longest_pause_s: Annotated[float, _number(float, 0.5, 3600)] = 30
    """Before the next try to connect to a camera that is lost; the first pauses are shorter."""
    estimated_mbit_s: Annotated[float, _number(float, 0.01, 1000)] = 6
    """What a camera probably sends: by that the space for a live export is reckoned before it starts."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Encryption of all TCP connections, TLS 1.2 and 1.3: `[tls]`. Where it is missing there is none."""

    certificate: Annotated[Path, _text(_absolute, "the absolute path of a PEM file")]
    """The server's certificate, then those between it and a root that clients know."""
    key: Annotated[Path, _text(_absolute, "the absolute path of a PEM file")]
    """The certificate's private key, without a passphrase."""
    client_ca: Annotated[Path, _text(_absolute, "the absolute path of a PEM file")] | None = None
    """Clients must show a certificate of this authority; the name in it is their user's."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What the users may do who have it: `[[role]]`. Nothing is granted that is not written down."""

    name: _Line
    cameras: tuple[
        Annotated[str, _text(_camera_pattern, 'access points, * for any characters: "Server1/DeviceIpint.*", "*"')], ...
    ] = ()
    """The role's cameras; whatever else it grants is for these alone."""
    live: _Flag = False
    """To export what they see now."""
    archive: _Flag = False
    """To export what was recorded."""
    archive_depth_h: Annotated[float, _number(float, 0, 10 * 366 * 24)] = 0
    """Only of the last so many hours; 0: all of it."""
    must_use_password: _Flag = False
    """Only clips that are encrypted."""
    may_see_unmasked: _Flag = False
    """Without the cameras' privacy masks."""
    supervisor: _Flag = False
    """To see and end everyone's sessions."""
    max_running_sessions: Annotated[int, _number(int, 1, 1000)] | None = None
    """Further ones of the same user wait."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Who may log in: `[[user]]`. With at least one, every call must say who makes it."""

    name: Annotated[str, _text(_user_name, "a text of one line, at most 100 characters")]
    password_hash: Annotated[str, _text(check_hash, "what `vx passwd` prints")] = ""
    """argon2id; without it there is no password, only a client certificate with the user's name."""
    roles: tuple[_Line, ...] = ()


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """The server's process: `[process]`."""

    user: Annotated[str, _text(_system_user, "a user of this system")] | None = None
    """Started as root, it becomes this user once it listens and has read its key."""


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to stderr: `[log]`."""

    level: Annotated[str, _one_of("debug", "info", "warning", "error")] = "info"
    format: Annotated[str, _one_of("text", "json")] = "text"
    """Lines of text, or an object a line; each that is about a session has its id."""


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What the server counts, for Prometheus: `[metrics]`."""

    listen: _Listen | None = None
    """Where it answers GET /metrics, over HTTP; it doesn't where this is missing."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    listen: tuple[_Listen, ...] = (Address("127.0.0.1", DEFAULT_PORT),)
    """Port 0 takes a free one."""
    state_dir: Annotated[Path, _text(_absolute, "an absolute path")]
    """Sessions and their files."""
    insecure: _Flag = False
    """Serve more than this machine although anybody may then take any recording."""
    shutdown_timeout_s: _Seconds = 30
    """How long calls under way may take after SIGTERM."""
    stop_timeout_s: _Seconds = 10
    """How long a worker may take to finalise after StopSession before it is killed."""
    max_running_sessions: Annotated[int, _number(int, 1, 1000)] = 4
    max_queued_sessions: Annotated[int, _number(int, 0, 10_000)] = 100
    """So many wait for their turn when that many run."""
    max_connections: Annotated[int, _number(int, 1, 100_000)] = 1000
    max_connections_per_address: Annotated[int, _number(int, 1, 100_000)] = 100
    """So many of them from one address; those from this machine itself are not counted."""
    max_streams_per_connection: Annotated[int, _number(int, 1, 10_000)] = 100
    max_message_kb: Annotated[int, _number(int, 64, 1 << 20)] = 4096
    """The largest request that is read."""
    keepalive_s: Annotated[float, _number(float, 1, 86400)] = 60
    """A connection that was silent for this long is asked whether it is still there."""
    lifetimes: Lifetimes = Lifetimes()
    worker: Worker = Worker()
    results: Results = Results()
    media: Media = Media()
    live: Live = Live()
    log: Log = Log()
    metrics: Metrics = Metrics()
    tls: Tls | None = None
    process: Process = Process()
    token_hours: Annotated[float, _number(float, 0.1, 10_000)] = 12
    """How long a login is good for."""
    role: tuple[Role, ...] = ()
    user: tuple[User, ...] = ()
    camera: tuple[Camera, ...] = ()
    agent: tuple[Agent, ...] = ()

    @property
    def index_dir(self) -> Path:
        """Where the tables of recordings are kept."""
        return self.state_dir / "index"

    def find_camera(self, access_point: str) -> Camera | None:
        """The camera of this name, with or without the leading `hosts/`."""
        key = access_point_key(access_point)
        return next((camera for camera in self.camera if access_point_key(camera.access_point) == key), None)

    def find_agent(self, access_point: str) -> Agent | None:
        """The agent of this name, with or without `hosts/`. A node for which none is configured has its number 0."""
        key = access_point_key(access_point)
        for agent in self.agent:
            if access_point_key(agent.access_point) == key:
                return agent
        node = node_of(access_point)
        is_known = any(node_of(camera.access_point) == node for camera in self.camera)
        is_configured = any(agent.node == node for agent in self.agent)
        if key == f"{node}/{_ANY_AGENT}" and is_known and not is_configured:
            return Agent(access_point=f"hosts/{key}")
        return None

    def default_agent(self, camera: Camera) -> Agent:
        """The agent with the lowest number on the camera's node."""
        node = node_of(camera.access_point)
        there = [agent for agent in self.agent if agent.node == node]
        return min(there, key=lambda agent: agent.index, default=Agent(access_point=f"hosts/{node}/{_ANY_AGENT}"))

    def rights_of(self, user: User) -> Rights:
        """What the user's roles come to, taken together."""
        roles = [role for role in self.role if role.name in user.roles]
        limits = [role.max_running_sessions for role in roles]
        known = [limit for limit in limits if limit is not None]
        return Rights(
            grants=tuple(
                Grant(
                    cameras=role.cameras,
                    live=role.live,
                    archive=role.archive,
                    archive_depth_us=round(role.archive_depth_h * 3_600_000_000) or None,
                    may_see_unmasked=role.may_see_unmasked,
                )
                for role in roles
            ),
            must_use_password=any(role.must_use_password for role in roles),
            supervisor=any(role.supervisor for role in roles),
            max_running_sessions=max(known) if known and len(known) == len(limits) else None,
        )


def load(path: str | os.PathLike[str]) -> Config:
    """Read and check a configuration file. ConfigError has every mistake in it (of the syntax, the first one)."""
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"not UTF-8 text (at line {line})"]) from None
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"]) from None
    return parse(text)


def parse(text: str) -> Config:
    """`load` of a text."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = f"at line {text.count(chr(10)) + 1}, the last one"
        raise ConfigError([f"not TOML: {str(error).replace('at end of document', last)}"]) from None
    problems: list[str] = []
    config = _read_table(Config, raw, "", problems)
    if config is not None:
        problems = _conflicts(config)
    if config is None or problems:
        raise ConfigError(problems)
    return config


_T = TypeVar("_T", bound=msgspec.Struct)


def _read_table(struct: type[_T], raw: Mapping[str, Any], path: str, problems: list[str]) -> _T | None:
    """Make a `struct` of a TOML table; None, and a line for each mistake in `problems`, where that cannot be."""
    before = len(problems)
    values: dict[str, Any] = {}
    hints = _hints(struct)
    for field in msgspec.structs.fields(struct):
        if field.name in raw:
            values[field.name] = _read(hints[field.name], raw[field.name], path + field.name, problems)
        elif field.required:
            problems.append(f"{path}{field.name}: is missing; allowed is {_rule(hints[field.name]).allowed}")
    problems += [_unknown(key, path, hints) for key in raw if key not in hints]
    return struct(**values) if len(problems) == before else None


def _read(hint: Any, value: object, path: str, problems: list[str]) -> Any:
    """The value at `path` as the field's type says, which is a rule, a table, or a list of either."""
    if get_origin(hint) in (types.UnionType, Union):
        hint = get_args(hint)[0]  # what may be missing altogether
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        if not isinstance(value, list):
            problems.append(f"{path}: {_shown(value)} is not a list; {_how_to_list(item, path)}")
            return None
        return tuple(_read(item, each, f"{path}[{index}]", problems) for index, each in enumerate(value))
    if isinstance(hint, type):
        if not isinstance(value, dict):
            how = "write [[...]]" if path.endswith("]") else f"write [{path}]"
            problems.append(f"{path}: {_shown(value)} is not a table; {how} and its keys below")
            return None
        return _read_table(hint, value, f"{path}.", problems)
    rule = _rule(hint)
    try:
        return rule.read(value)
    except ValueError as error:
        if rule.tells_all and error.args:
            problems.append(f"{path}: {error}")
            return None
        reason = f" ({error})" if error.args else ""
        problems.append(f"{path}: {_shown(value)} is not allowed{reason}; allowed is {rule.allowed}")
        return None


@functools.cache
def _hints(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(struct, include_extras=True)


def _rule(hint: Any) -> _Rule:
    rule = get_args(hint)[1]
    assert isinstance(rule, _Rule)
    return rule


def _how_to_list(item: Any, path: str) -> str:
    if isinstance(item, type):
        header = re.sub(r"\[[0-9]+\]", "", path)
        return f"write [[{header}]] and its keys below"
    return f"allowed is a list, each item {_rule(item).allowed}"


def _unknown(key: str, path: str, hints: Mapping[str, Any]) -> str:
    import difflib  # only for mistakes

    path += key if key.isprintable() else repr(key)
    near = difflib.get_close_matches(key, hints, n=1)
    if near:
        return f'{path}: unknown key; did you mean "{near[0]}"?'
    if key in _hints(Config):
        # In TOML a key after a [table] header belongs to that table, wherever it was meant to be.
        return f"{path}: unknown key here; it belongs at the top of the file, above the first [table]"
    return f"{path}: unknown key; known are {', '.join(hints)}"


def _shown(value: object) -> str:
    """The value as TOML would write it, cut to a sane length."""
    if isinstance(value, dict):
        return "a table"
    text = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _conflicts(config: Config) -> list[str]:
    """What is wrong although each value by itself is allowed."""
    problems: list[str] = []
    if not config.listen:
        problems.append("listen: [] is not allowed; allowed is at least one address")
    # Port 0 is another port each time.
    addresses = [
        str(address) if address.port or address.unix_path else f"{address} {index}"
        for index, address in enumerate(config.listen)
    ]
    problems += _repeated("listen[{}]", addresses)
    if not config.insecure and not (config.tls and config.user):
        missing = " and ".join(["TLS"] * (not config.tls) + ["users"] * (not config.user))
        problems += [
            f"listen[{index}]: {_shown(str(address))} can be reached from other machines, and without {missing} "
            "anybody there may take any recording; allowed is 127.0.0.1, [::1], localhost or unix:///PATH, "
            "or set insecure = true"
            for index, address in enumerate(config.listen)
            if not address.is_local
        ]
    metrics = config.metrics.listen
    if metrics is not None and not metrics.is_local and not config.insecure:
        problems.append(
            f"metrics.listen: {_shown(str(metrics))} can be reached from other machines, and nobody is asked there who "
            "he is; allowed is 127.0.0.1, [::1], localhost or unix:///PATH, or set insecure = true"
        )
    if config.tls and config.tls.client_ca and not config.user:
        problems.append("tls.client_ca: the names in clients' certificates are users', and there is no [[user]]")
    problems += _repeated("role[{}].name", [role.name for role in config.role])
    problems += _repeated("user[{}].name", [user.name for user in config.user])
    roles = [role.name for role in config.role]
    for index, user in enumerate(config.user):
        problems += [
            f"user[{index}].roles[{place}]: {_shown(name)} is no [[role]]; allowed are {', '.join(roles) or 'none'}"
            for place, name in enumerate(user.roles)
            if name not in roles
        ]
        if not user.password_hash and not (config.tls and config.tls.client_ca):
            problems.append(f"user[{index}].password_hash: is missing, and without tls.client_ca nothing else lets in")
    problems += _repeated("camera[{}].access_point", [camera.access_point for camera in config.camera])
    problems += _repeated("agent[{}].access_point", [agent.access_point for agent in config.agent])
    for index, camera in enumerate(config.camera):
        storages = [archive.storage for archive in camera.archive]
        problems += _repeated(f"camera[{index}].archive[{{}}].storage", storages)
    return problems


def _repeated(path: str, values: list[str]) -> list[str]:
    first: dict[str, int] = {}
    return [
        f"{path.format(index)}: {_shown(value)} is there twice; {path.format(first[value])} has it already"
        for index, value in enumerate(values)
        if first.setdefault(value, index) != index
    ]
