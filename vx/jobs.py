"""What crosses the border between the server and a worker process.

A job goes in when the worker starts; events come out until `Ended`; the only command is `Stop`. All of it is frozen
msgspec structs in MessagePack, one message in one datagram. Times are integer microseconds since 1970-01-01 UTC
(`_us`). This file depends on nothing else in vx but `drawing`, which is part of it, so that both sides can import it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from vx.drawing import Drawing, Page, Words

Container = Literal["mp4", "mkv", "avi"]
Cut = Literal["exact", "keyframe"]
"""Whether a clip begins with the very frame, or with the key frame before it."""
Gaps = Literal["keep", "split", "close"]
"""Where nothing was recorded: the last frame stands, a new file begins, or the file goes on with what comes next."""
Quality = Literal["best", "fine", "good", "normal", "medium", "small", "tiny", "smallest"]
"""normal: copied where that can be, else like medium."""


class LiveFeed(msgspec.Struct, frozen=True, kw_only=True):
    """Where a camera can be seen live. The address has its password in it: it is never shown."""

    address: str
    """A URL: rtsp, rtsps, http, https, file, test (see vx.media.live.camera)."""
    transport: Literal["tcp", "udp"] = "tcp"
    """Of RTSP's packets."""

    @property
    def path(self) -> str:
        """Of the file that is played over and over; empty where it is none."""
        url = urlsplit(self.address)
        return unquote(url.path) if url.scheme == "file" else ""

    def __repr__(self) -> str:
        return f"LiveFeed({self.address.partition(':')[0]}:…, {self.transport})"


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """How live cameras are exported."""

    duration_us: int = 0
    """From the first key frame on; 0: until stopped."""
    first_frame_timeout_s: float = 10
    """A camera of which nothing was seen by then has failed."""
    stall_timeout_s: float = 10
    """A connection on which nothing came for so long is given up, and a new one made."""
    longest_pause_s: float = 30
    """Before the next try to connect; the first pauses are shorter."""
    min_free: int = 0
    """Bytes of the disk that stay free: a clip that may have no end of its own ends there."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One camera's recordings, or the camera itself: where they are, and how its name reads in a result."""

    origin: str
    """Access point of the camera, for messages: `hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0`."""
    name: str
    """The camera's display name: a track's title, a part of a file's name."""
    pattern: str
    """Path of the recordings with directives for the start time (see vx.archive.pattern)."""
    timezone: str
    """IANA name of the time zone that the times in the names are in."""
    feed: LiveFeed | None = None
    """The camera itself, for a job that is `live`; `pattern` and `timezone` mean nothing then."""
    id: str = ""
    """The camera's number or short name, for people."""
    location: str = ""
    """Where it hangs, in words."""
    drawing: Drawing = Drawing()
    ranges_us: tuple[tuple[int, int], ...] = ()
    """Only these (begin, end) of the clip's range, rising and apart from each other; none: all of it."""
    video: int = 0
    """Which of the recordings' video tracks, from 0 on."""
    audio: int | None = 0
    """Which of their tracks of sound; None: no sound."""


class Coding(msgspec.Struct, frozen=True, kw_only=True):
    """What a clip's tracks are to be; what isn't asked for stays as it was recorded."""

    video: Literal["", "h264", "mpeg4", "mjpeg"] = ""
    video_quality: Quality = "normal"
    audio: Literal["", "g711", "mp2"] = ""
    audio_quality: Quality = "normal"
    every: int = 1
    """Keep one of this many frames."""
    key_fps: float = 0
    """Show key frames only, at most this many a second of the clip; 0: all frames."""
    speed: float = 1
    """How many times faster than it was recorded; 0, with `key_fps`: one key frame after the other, at that rate."""
    threads: int = 0
    """For each decoder and encoder; 0: one for each core, 4 at most."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Where workers keep the tables of recordings, which each of them may read and write, and its size in bytes."""

    folder: str
    size: int


class ClipJob(msgspec.Struct, frozen=True, kw_only=True, tag="clip"):
    """Export what was recorded in start_us <= t < end_us into `container` files in `folder`."""

    folder: str
    sources: tuple[Source, ...]
    start_us: int
    end_us: int
    container: Container
    reject_audio: bool = False
    max_file_size: int = 0
    """Bytes that no file may exceed; 0: no limit."""
    discrete: bool = True
    """A file for each source; else all of them are tracks of one file."""
    cut: Cut = "exact"
    gaps: Gaps = "keep"
    gap_us: int = 1_000_000
    """What `gaps` says happens where nothing was recorded for longer than this."""
    coding: Coding = Coding()
    words: Words = Words()
    subtitles: bool = False
    """They are a track of their own, in containers that have such tracks."""
    password: str = ""
    """Each file goes into a ZIP file that is encrypted by it; empty: it doesn't."""
    live: Live | None = None
    """Export what the cameras show from now on; `start_us` is now, and `end_us` is not looked at."""
    virtual: bool = False
    """Of MP4: don't copy the recordings where that can be done without, serve the clip from them."""
    copied: str = ""
    """Why a clip that isn't to be served from its recordings isn't, in words, for the log; empty: it goes without."""
    held: int = 0
    """So many recordings of a virtual clip the server may hold open."""
    index: Index | None = None
    """Of a virtual clip; None: all recordings are read."""

    def ranges_us(self, source: Source) -> tuple[tuple[int, int], ...]:
        """What is wanted of a source."""
        return source.ranges_us or ((self.start_us, self.end_us),)

    def audio(self, source: Source) -> int | None:
        """Which of a source's tracks of sound is wanted, from 0 on; None: no sound."""
        return None if self.reject_audio else source.audio

    def may_join(self, source: Source) -> bool:
        """Whether ranges of a source may have to be joined: those that begin with the same key frame."""
        return self.cut == "keyframe" and len(source.ranges_us) > 1

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "password")
        return f"ClipJob({', '.join(shown)})"


class ExternalPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that the client brings along instead of a frame of the recordings: the bytes of a JPEG or PNG file."""

    data: bytes
    taken_us: int


class SnapshotJob(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """Write the frame that each source showed at `at_us` into `folder`: a JPEG each, or pages of one PDF document."""

    folder: str
    sources: tuple[Source, ...]
    at_us: int
    words: Words = Words()
    page: Page | None = None
    """None: JPEG."""
    discrete: bool = False
    """A document for each source."""
    external: ExternalPicture | None = None
    live: Live | None = None
    """The next frame that the cameras show; `at_us` is not looked at."""

    def ranges_us(self, source: Source) -> tuple[tuple[int, int], ...]:
        """What is wanted of a source: the same of each."""
        return ((self.at_us, self.at_us + 1),)


class PartFile(msgspec.Struct, frozen=True, kw_only=True):
    """A result under way: it is written as `part_name` and gets `name` by rename once it is complete."""

    part_name: str
    name: str
    mime_type: str
    first_us: int

    def done(self, size: int, last_us: int) -> FileDone:
        """That it is complete, with so many bytes, up to this frame."""
        return FileDone(name=self.name, size=size, mime_type=self.mime_type, first_us=self.first_us, last_us=last_us)


class SalvageJob(msgspec.Struct, frozen=True, kw_only=True, tag="salvage"):
    """Find out what of the files that a dead worker left in `folder` can be played, and keep that."""

    folder: str
    parts: tuple[PartFile, ...]


class ProbeJob(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Find out what would become of a clip's tracks, without writing anything: begin with each source, and look."""

    clip: ClipJob
    folder: str = ""


Job = ClipJob | SnapshotJob | SalvageJob | ProbeJob


class FileOpened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """A result file has been begun, of which something may be readable before it is done."""

    part: PartFile


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """The time of the last frame written so far."""

    last_frame_us: int
    source: int | None = None
    """Whose file it is, by the number of the job's source from 0 on; None: it is that of all of them."""
    written: int = 0
    """Bytes of the file under way."""


class FileDone(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """A result file is complete under its final name; `first_us` and `last_us` are its first and last frame."""

    name: str
    size: int
    mime_type: str
    first_us: int
    last_us: int


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag="gap"):
    """Nothing was recorded of a source, by its number, in begin <= t < end."""

    source: int
    begin_us: int
    end_us: int


class SourceEnded(msgspec.Struct, frozen=True, kw_only=True, tag="source"):
    """Nothing more will come of a source, by its number. `error` says why there is nothing of it, or not all."""

    source: int
    error: str = ""


class Note(msgspec.Struct, frozen=True, kw_only=True, tag="note"):
    """Something a person should know (a broken segment, what is encoded and why); the server logs it with the
    session's id, and keeps it in the session's report."""

    level: Literal["info", "warning", "error"]
    text: str
    source: int | None = None
    """Whom it is about, by the source's number; None: the export."""


Treatment = Literal["copied", "encoded", "left out"]


class Probed(msgspec.Struct, frozen=True, kw_only=True, tag="probed"):
    """What would become of a source's tracks, by its number. `notes` say why, and what is wrong with recordings."""

    source: int
    video: Treatment | None = None
    """None: no recording could be read."""
    video_codec: str = ""
    """As it was recorded, by libav's name."""
    audio: Treatment | None = None
    """None: there is no sound, or none is wanted."""
    audio_codec: str = ""
    sample_bytes: int = 0
    """What the clip's first seconds take in a file; 0 where there was no time to find out."""
    sample_us: int = 0
    """How much of the recording that is."""
    is_whole: bool = False
    """It is all of the clip."""
    notes: tuple[Note, ...] = ()
    further_notes: int = 0
    """How many more there are than an event has room for."""


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The last event. `reason` says why it failed; empty where it succeeded."""

    succeeded: bool
    reason: str = ""


Event = FileOpened | Progress | FileDone | Gap | SourceEnded | Note | Probed | Ended


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
