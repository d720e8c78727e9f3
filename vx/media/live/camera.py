"""A connection to a live camera: opens it and gives out its packets as they come.

`open_camera` knows four kinds of address: RTSP, MJPEG or MPEG-TS over HTTP, a file that is played over and over
(`file:`), and a picture that is made here (`test:`). Nothing of an address is ever told to anybody: `CameraError` says
what is wrong with the camera in words of our own, since libav's have the password in them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import av
import av.container
from av.filter import Graph
from av.packet import Packet
from av.stream import Stream
from av.video.frame import PictureType
from av.video.stream import VideoStream

from vx.jobs import LiveFeed
from vx.media.packets.messages import Track, assign_stream, detached
from vx.media.packets.nal import Form
from vx.media.packets.plan import SECOND_US, TimeBase
from vx.media.packets.recording import (
    BrokenError,
    demux,
    frame_rate,
    open_recording,
    read_head,
    sound_stream,
    time_base,
    track_key,
    translate,
    unwrapper,
    video_stream,
)

Wait = Callable[[float], bool]
"""Waits so many seconds; True: nobody wants the camera any more."""

_ANALYZE_US = 1_000_000
"""How long libav may look for what a stream doesn't say in its description."""
_PROTOCOLS = {"rtsp": "rtsp,rtsps,rtp,srtp,udp,tcp,tls", "http": "http,https,tcp,tls"}
_UDP_BUFFER = 1 << 20
_SETS_WITHIN = 4096
"""Bytes at the start of a key frame's packet in which its parameter sets stand."""
_ARRIVAL_TICK = TimeBase(1, 90_000)
"""Of pictures whose only time is their arrival."""


class CameraError(Exception):
    """Why there is nothing from the camera (any more); the text is for people and names no address."""


class UnwantedError(Exception):
    """Nobody wants the camera any more."""


@dataclass
class Connection:
    """An open camera. `packets` are its own: they end with CameraError or UnwantedError."""

    video: Stream
    audio: Stream | None
    packets: Iterator[Packet[Any]]
    has_times: bool = True
    """Its packets say when they were taken; else only their arrival does."""
    is_late: bool = False
    """A picture is only given out when the next one has begun to arrive: nothing says before that it is complete."""


@contextmanager
def open_camera(
    feed: LiveFeed, video: int, audio: int | None, *, open_s: float, stall_s: float, wait: Wait
) -> Iterator[Connection]:
    """Connect. `video`, `audio`: which of its tracks of that kind, from 0 on; None: no sound.

    CameraError where it can't be had within `open_s`; its packets end with one when nothing comes for `stall_s`.
    """
    scheme = feed.address.partition(":")[0].lower()
    if scheme == "test":
        with _synthetic(feed.address, audio is not None, wait) as connection:
            yield connection
    elif feed.path:
        with _opened(lambda: open_recording(feed.path), open_s) as container:
            streams = _streams(container, video, audio)
            yield Connection(*streams, packets=_looped(container, *streams, wait))
    else:
        with _opened(lambda: _connect(feed, scheme, open_s, stall_s), open_s) as container:
            streams = _streams(container, video, audio)
            yield Connection(
                *streams,
                packets=_received(container, *streams, stall_s),
                has_times=container.format.name != "mpjpeg",
                is_late=streams[0].codec_context.name != "mjpeg",
            )


def _connect(feed: LiveFeed, scheme: str, open_s: float, stall_s: float) -> av.container.InputContainer:
    options = {
        "protocol_whitelist": _PROTOCOLS["rtsp" if scheme.startswith("rtsp") else "http"],
        "analyzeduration": str(_ANALYZE_US),
        "fpsprobesize": "0",  # else it reads on for a second to measure the rate
    }
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = feed.transport
        options["buffer_size"] = str(_UDP_BUFFER)
    return av.open(feed.address, "r", metadata_errors="replace", options=options, timeout=(open_s, stall_s))


@contextmanager
def _opened(connect: Callable[[], av.container.InputContainer], open_s: float) -> Iterator[av.container.InputContainer]:
    begin = time.monotonic()
    try:
        container = connect()
    except Exception as error:  # noqa: BLE001 - bad bytes make libav and PyAV raise anything
        is_late = time.monotonic() - begin >= open_s
        raise CameraError(f"it did not answer within {open_s:g} s" if is_late else _told(error)) from None
    with container:
        yield container


def _told(error: Exception) -> str:
    """What is wrong, without the address that libav puts behind it."""
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return "it refuses the user name or the password"
    if isinstance(error, av.error.HTTPNotFoundError):
        return "it has no such stream"
    if isinstance(error, ConnectionRefusedError):
        return "it refuses the connection"
    if isinstance(error, BrokenError):
        return str(error)
    if isinstance(error, av.error.InvalidDataError):
        return "its answer makes no sense"
    if isinstance(error, av.FFmpegError | OSError):
        return error.strerror or type(error).__name__
    return f"its answer makes no sense ({type(error).__name__})"


def _streams(
    container: av.container.InputContainer, video: int, audio: int | None
) -> tuple[VideoStream, Stream | None]:
    try:
        picture = video_stream(container, video)
    except BrokenError as error:
        raise CameraError(str(error)) from None
    sound = () if audio is None else sound_stream(container, audio)
    return picture, (sound[0] if sound else None)


def _wanted(video: Stream, audio: Stream | None) -> list[Stream]:
    return [video] if audio is None else [video, audio]


def _received(
    container: av.container.InputContainer, video: Stream, audio: Stream | None, stall_s: float
) -> Iterator[Packet[Any]]:
    packets = container.demux(*_wanted(video, audio))
    while True:
        begin = time.monotonic()
        try:
            packet = next(packets, None)
        except Exception as error:  # noqa: BLE001 - bad bytes make libav and PyAV raise anything
            is_late = time.monotonic() - begin >= stall_s
            raise CameraError(f"nothing came for {stall_s:g} s" if is_late else _told(error)) from None
        if packet is None:
            raise CameraError("the stream ended")
        if packet.size:
            yield packet


# ---- a file, over and over


def _looped(
    container: av.container.InputContainer, video: VideoStream, audio: Stream | None, wait: Wait
) -> Iterator[Packet[Any]]:
    """Its packets at the pace of their times; each round goes on where the one before it ended."""
    streams = _wanted(video, audio)
    begin_s = time.monotonic()
    later_us = 0
    try:
        while True:
            packets = demux(container, *streams)
            head = read_head(packets, video)
            first = next(packet for packet in head.packets if packet.stream_index == video.index)
            first_us = time_base(video).us(first.dts or 0)
            end_us = later_us
            for packet in itertools.chain(head.packets, packets):
                base = time_base(container.streams[packet.stream_index])
                at = packet.dts if packet.dts is not None else packet.pts
                if at is None:
                    continue
                due_us = base.us(at) - first_us + later_us
                if wait(max(begin_s + due_us / SECOND_US - time.monotonic(), 0)):
                    raise UnwantedError
                end_us = max(end_us, due_us + base.us(packet.duration or 0))
                by = base.ticks(later_us)
                packet.pts, packet.dts = (None if t is None else t + by for t in (packet.pts, packet.dts))
                yield packet
            later_us = end_us
            container.seek(0)
    except (av.FFmpegError, ValueError, BrokenError) as error:
        raise CameraError(str(translate(error))) from None


# ---- a picture that is made here


@contextmanager
def _synthetic(address: str, with_sound: bool, wait: Wait) -> Iterator[Connection]:
    """`test:?width=640&height=360&rate=10`: a moving picture that shows its own time, and a tone."""
    asked = {name: int(values[-1]) for name, values in parse_qs(urlsplit(address).query).items()}
    width, height, rate = asked.get("width", 640), asked.get("height", 360), asked.get("rate", 10)

    def encoders(target: BytesIO) -> tuple[Any, Any, Any]:
        made = av.open(target, "w", format="nut")
        video: Any = made.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "tune": "zerolatency"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.gop_size = rate
        audio: Any = made.add_stream("aac", rate=_SAMPLE_RATE)
        audio.layout = "mono"
        return made, video, audio

    def film(wait: Wait, video: Any, audio: Any) -> Iterator[Packet[Any]]:
        pictures = _graph("testsrc2", f"size={width}x{height}:rate={rate}", ("format", "yuv420p"))
        form = f"sample_rate={_SAMPLE_RATE}:beep_factor=4"
        tone = _graph("sine", form, ("aformat", "sample_fmts=fltp"), "abuffersink")
        begin_s = time.monotonic()
        heard_s = 0.0
        while True:
            frame: Any = pictures.pull()
            shown_s = float(frame.pts * frame.time_base)
            if wait(max(begin_s + shown_s - time.monotonic(), 0)):
                raise UnwantedError
            frame.pict_type = PictureType.NONE  # else each is a key frame, as the source says
            yield from video.encode(frame)
            while heard_s <= shown_s:
                sound: Any = tone.pull()
                heard_s = float((sound.pts + sound.samples) * sound.time_base)
                yield from audio.encode(sound)

    # What its streams are is told by a file of them: an encoder's own are of no use to a decoder.
    sample = BytesIO()
    made, *streams = encoders(sample)
    with made:
        made.mux(list(itertools.islice(film(lambda _: False, *streams), 4)))
    sample.seek(0)
    with av.open(sample, "r", format="nut") as container:
        found, sound = _streams(container, 0, 0 if with_sound else None)
        _, *streams = encoders(BytesIO())
        yield Connection(found, sound, _filmed(film(wait, *streams), _wanted(found, sound)))


_SAMPLE_RATE = 48_000


def _filmed(packets: Iterator[Any], streams: list[Stream]) -> Iterator[Packet[Any]]:
    """Packets of encoders as they would come out of a file of these streams."""
    for packet in packets:
        index = 0 if packet.stream.type == "video" else 1
        if index >= len(streams):
            continue
        own, base = packet.time_base, time_base(streams[index])
        encoded = TimeBase(own.numerator, own.denominator)
        packet.pts, packet.dts = encoded.rescale(packet.pts, base), encoded.rescale(packet.dts, base)
        packet.duration = encoded.rescale(packet.duration or 0, base)
        assign_stream(packet, streams[index].index)
        yield packet


def _graph(source: str, form: str, as_form: tuple[str, str], sink: str = "buffersink") -> Graph:
    graph = Graph()
    last = graph.add(source, form)
    for name, arguments in (as_form, (sink, "")):
        step = graph.add(name, arguments or None)
        last.link_to(step)
        last = step
    graph.configure()
    return graph


# ---- what its streams are


class Parameters:
    """What is known of a connection's picture: its track, which may become another one in the middle of the stream."""

    def __init__(self, connection: Connection) -> None:
        self.base = time_base(connection.video) if connection.has_times else _ARRIVAL_TICK
        context: Any = connection.video.codec_context
        self._codec: str = context.codec.canonical_name
        self._form = Form.of(self._codec, bytes(context.extradata or b""))
        self._sets: object = self._known_sets(bytes(context.extradata or b""))
        self.rate = _rate(connection.video)
        self.track = self._describe(connection.video)

    def see(self, key_frame: Any) -> bool:
        """Look at a key frame; True: from it on the picture is of another form, and `track` says which."""
        data = memoryview(key_frame)
        sets = self._sets_in(bytes(data[:_SETS_WITHIN]))
        if sets is None or sets == self._sets:
            return False
        try:
            with av.open(
                BytesIO(bytes(data)), "r", format={"mjpeg": "jpeg_pipe"}.get(self._codec, self._codec)
            ) as probe:
                self.track = self._describe(video_stream(probe))
        except Exception:  # noqa: BLE001 - bad bytes make libav and PyAV raise anything
            return False  # a damaged key frame; the next one will tell
        changed = self._sets is not None
        self._sets = sets
        return changed

    def measure(self, frame_us: int) -> None:
        """How far apart its first frames are, where it doesn't say how many there are a second."""
        if self.rate is None and frame_us > 0:
            self.rate = Fraction(SECOND_US, frame_us).limit_denominator(100)
            self.track = self._describe_as(self.track.key, self.track.template, self.track.extradata)

    def _describe(self, stream: Any) -> Track:
        extradata = bytes(stream.codec_context.extradata or b"")
        return self._describe_as(track_key(stream, extradata), detached(stream), extradata)

    def _describe_as(self, key: tuple[object, ...], template: Stream, extradata: bytes) -> Track:
        return Track(key, template, extradata, self.base, self.rate)

    def _known_sets(self, extradata: bytes) -> object:
        if self._form is None or not extradata:
            return None
        try:
            return frozenset(self._form.sets(extradata))
        except (ValueError, IndexError):
            return None

    def _sets_in(self, data: bytes) -> object:
        """What a key frame says of its form; None: nothing."""
        if self._codec == "mjpeg":
            return _jpeg_size(data)
        if self._form is None or self._form.length_size:
            return None
        return frozenset(unit for unit in self._form.split(data) if self._form.is_set(unit)) or None


def _rate(stream: Any) -> Fraction | None:
    """Frames a second. libav's other guess is of fields, unless it has read on for a while."""
    rate = stream.average_rate
    return Fraction(rate) if rate and 1 <= rate <= 240 else frame_rate(stream)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the frame's header."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xC2:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + length
    return None


class Sound:
    """A connection's sound, unwrapped where each packet carries a header of its own (AAC in MPEG-TS)."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.base = time_base(stream)
        context: Any = stream.codec_context
        self._wrapped = unwrapper(stream)
        self.track: Track | None = self._describe(bytes(context.extradata or b"")) if self._wrapped is None else None
        """None: it is known with its first packet."""

    def unwrap(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """The packet as it goes into a file."""
        if self._wrapped is None:
            return [packet]
        try:
            unwrapped = self._wrapped.unwrap(packet)
        except (av.FFmpegError, ValueError):
            return []
        if self.track is None and self._wrapped.config:
            self.track = self._describe(self._wrapped.config)
        return unwrapped

    def _describe(self, extradata: bytes) -> Track:
        return Track(track_key(self._stream, extradata), detached(self._stream), extradata, self.base)
