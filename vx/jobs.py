"""What crosses the border between the server and a worker process.

A job goes in when the worker starts; events come out until `Ended`; the only command is `Stop`. All of it is frozen
msgspec structs in MessagePack, one message in one datagram. Times are integer microseconds since 1970-01-01 UTC
(`_us`). This file depends on nothing else in vx, so that both sides can import it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

Container = Literal["mp4", "mkv"]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One camera's recordings: where they are, and how its name reads in a result."""

    origin: str
    """Access point of the camera, for messages: `hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0`."""
    name: str
    """The camera's display name: a track's title, a part of a file's name."""
    pattern: str
    """Path of the recordings with directives for the start time (see vx.archive.pattern)."""
    timezone: str
    """IANA name of the time zone that the times in the names are in."""


class ClipJob(msgspec.Struct, frozen=True, kw_only=True, tag="clip"):
    """Copy what was recorded in start_us <= t < end_us into `container` files in `folder`."""

    folder: str
    sources: tuple[Source, ...]
    start_us: int
    end_us: int
    container: Container
    reject_audio: bool = False
    comment: str = ""
    max_file_size: int = 0
    """Bytes that no file may exceed; 0: no limit."""


class SnapshotJob(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """Write the frame that each source showed at `at_us` as a JPEG into `folder`."""

    folder: str
    sources: tuple[Source, ...]
    at_us: int
    comment: str = ""


class PartFile(msgspec.Struct, frozen=True, kw_only=True):
    """A result under way: it is written as `part_name` and gets `name` by rename once it is complete."""

    part_name: str
    name: str
    mime_type: str
    first_us: int


class SalvageJob(msgspec.Struct, frozen=True, kw_only=True, tag="salvage"):
    """Find out what of the files that a dead worker left in `folder` can be played, and keep that."""

    folder: str
    parts: tuple[PartFile, ...]


Job = ClipJob | SnapshotJob | SalvageJob


class FileOpened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """A result file has been begun."""

    part: PartFile


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """The time of the last frame written so far."""

    last_frame_us: int


class FileDone(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """A result file is complete under its final name; `first_us` and `last_us` are its first and last frame."""

    name: str
    size: int
    mime_type: str
    first_us: int
    last_us: int


class Note(msgspec.Struct, frozen=True, kw_only=True, tag="note"):
    """Something a person should know (a broken segment, a gap); the server logs it with the session's id."""

    level: Literal["info", "warning", "error"]
    text: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The last event. `reason` says why it failed; empty where it succeeded."""

    succeeded: bool
    reason: str = ""


Event = FileOpened | Progress | FileDone | Note | Ended


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Finish now: finalise what was written, report it, end with success if there is any of it."""


Command = Stop


class Link(Protocol):
    """A worker's side of the border, as the media code sees it."""

    stopping: threading.Event
    """Set once `Stop` has come."""

    def send(self, event: Event) -> None:
        """Report an event to the server. Callable from any thread; blocks while the server is slow."""

    def call_on_stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` from another thread when `Stop` comes; at once if it came before."""


encode = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_event = msgspec.msgpack.Decoder(Event).decode
decode_command = msgspec.msgpack.Decoder(Command).decode
