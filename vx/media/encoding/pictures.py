"""Pictures, encoded: decode, pick the frames that are shown, draw into them, encode.

Frames are on the wall clock (`_us`); an encoder counts ticks of `TICK` from its run's `base_us`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
from av.codec.context import Flags
from av.filter import Graph
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange

from vx.jobs import ClipJob
from vx.media.encoding import recipe
from vx.media.encoding.clock import Clock
from vx.media.encoding.recipe import EncodePicture, Picture
from vx.media.packets.messages import Begin, TimedPacket, Track, detached
from vx.media.packets.plan import TimeBase
from vx.media.packets.recording import translate
from vx.media.painting import colours

TICK = TimeBase(1, 60_000)
"""Of encoded pictures: whole for the usual frame rates, and not too fine for MPEG-4, which takes 16 bits."""
_TICK = TICK.seconds
_MICROSECOND = Fraction(1, 1_000_000)
_DEFAULT_RATE = Fraction(25)
_FASTEST_RATE = 240

Draw = Callable[[VideoFrame, int], VideoFrame]
"""Changes a frame that is shown at a wall time, before it is encoded. The frame given may be the decoder's: draw into
a copy."""


@dataclass(frozen=True)
class Encoded:
    """Packets in decoding order; `new_track`: they belong to a track that wasn't there before."""

    packets: list[Any]
    new_track: bool = False


class Pictures:
    """The picture of one run of segments: decoded, picked, drawn into, encoded."""

    def __init__(
        self,
        job: ClipJob,
        segment: Begin,
        clock: Clock,
        keys: recipe.AtRate | None,
        picker: recipe.Every | None,
        draws: Sequence[Draw],
        threads: int,
        note: Callable[[str], None],
    ) -> None:
        self.base_us = clock.clip_us(segment.origin_us)
        """The clip's time from which packets count."""
        self.track: Track | None = None
        self._job = job
        self._source = segment.video
        self._begin_us, self._end_us = segment.wanted_us
        self._clock = clock
        self._keys_only = keys
        self._picker = picker
        self._draws = draws
        self._threads = threads
        self._note = note
        self._stream = detached(segment.video.template)
        self._decoder: Any = self._stream.codec_context
        # threads that each work on a frame of their own hold back as many
        self._decoder.thread_type = "SLICE" if job.live else "AUTO"
        self._decoder.thread_count = threads
        if self._keys_only is not None:
            self._decoder.skip_frame = "NONKEY"
        self._encoder: _PictureEncoder | None = None
        self._held: tuple[VideoFrame, int] | None = None
        self._seen_until_us = 0

    def put(self, packet: TimedPacket, origin_us: int) -> Iterator[Encoded]:
        """The next packet of the source, whose times count from `origin_us`."""
        base = self._source.time_base
        if self._keys_only is not None and not packet.is_keyframe:
            self._seen_until_us = max(self._seen_until_us, origin_us + base.us(packet.pts + packet.duration))
            return
        duration = base.us(packet.duration)
        packet.pts, packet.dts = origin_us + base.us(packet.pts), origin_us + base.us(packet.dts)
        packet.duration = duration
        packet.time_base = _MICROSECOND
        yield from self._decode(packet)

    def flush(self, *, stopping: bool = False) -> Iterator[Encoded]:
        """All that is held back; `stopping`: only what is missing between the frames that were given out."""
        if not stopping:
            yield from self._decode(None)
            held, self._held = self._held, None
            if held is not None:
                yield from self._encode(*held, max(self._seen_until_us, held[1] + 1))
        if self._encoder is not None:
            yield Encoded(self._encoder.complete() if stopping else self._encoder.flush())
            self._encoder = None

    def _decode(self, packet: Any) -> Iterator[Encoded]:
        try:
            frames = self._decoder.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            self._note(f"some of the picture can't be decoded: {translate(error)}")
            return
        for frame in frames:
            at_us = frame.pts
            if at_us is None or frame.is_corrupt or at_us >= self._end_us:
                continue
            self._seen_until_us = max(self._seen_until_us, min(at_us + (frame.duration or 0), self._end_us))
            if at_us < self._begin_us or (self._held is not None and at_us <= self._held[1]):
                continue
            if self._keys_only is not None and not self._keys_only.keeps(at_us):
                continue
            if self._picker is not None and not self._picker.keeps(at_us):
                continue
            held, self._held = self._held, (frame, at_us)
            if held is not None:
                yield from self._encode(*held, at_us)

    def _encode(self, frame: VideoFrame, at_us: int, until_us: int) -> Iterator[Encoded]:
        for draw in self._draws:
            frame = draw(frame, at_us)
        new = False
        encoder = self._encoder
        if encoder is None or not encoder.takes(frame):
            if encoder is not None:
                yield Encoded(encoder.flush())
            encoder = self._encoder = self._open(frame)
            new = True
            self.track = encoder.track
        pts, end = (TICK.ticks(us - self.base_us) for us in self._clock.show(at_us, until_us))
        yield Encoded(encoder.encode(frame, pts, max(end - pts, 1)), new)

    def _open(self, frame: VideoFrame) -> _PictureEncoder:
        context: Any = self._source.template.codec_context
        source = Picture(
            codec=context.codec.canonical_name,
            width=frame.width,
            height=frame.height,
            pix_fmt=frame.format.name,
            rotated=bool(frame.rotation),
        )
        coding, container = self._job.coding, self._job.container
        made = recipe.encode_picture(coding, container, source, "")
        rate = recipe.shown_rate(coding, self._source.rate)
        aspect = self._decoder.sample_aspect_ratio
        return _PictureEncoder(
            made,
            frame,
            rate,
            aspect,
            self._threads,
            global_header=container != "avi",
            at_once=self._job.live is not None,
        )


class _PictureEncoder:
    """An encoder for frames of one form; what the recording says of its colours and how to turn it stays."""

    def __init__(
        self,
        made: EncodePicture,
        first: VideoFrame,
        rate: Fraction | None,
        aspect: Fraction | None,
        threads: int,
        *,
        global_header: bool,
        at_once: bool,
    ) -> None:
        """`at_once`: each frame is given out as soon as it was put in, at the price of some of its looks."""
        self._recipe = made
        self._at_once = at_once
        self._form = _form(first)
        full = colours.is_full_range(first)
        self._source_range = ColorRange.JPEG if full else ColorRange.MPEG
        to_full = full if made.full_range is None else made.full_range
        self._range = ColorRange.JPEG if to_full else ColorRange.MPEG
        alike = first.format.name.replace("yuvj", "yuv") == made.pix_fmt.replace("yuvj", "yuv") and full == to_full
        self._pix_fmt = first.format.name if alike else made.pix_fmt
        if to_full and self._pix_fmt == "yuv420p" and made.codec == "mjpeg":
            alike, self._pix_fmt = False, made.pix_fmt
        self._convert = not alike
        turn = round(first.rotation) % 360 if made.turn else 0
        self._graph = _graph(first, made, turn)
        self._durations: dict[int, int] = {}
        """Of frames that were not given out yet, by their time."""
        self._given_until = -1
        self._rate = rate if rate is not None and 0 < rate <= _FASTEST_RATE else _DEFAULT_RATE
        self._carrier = av.open(BytesIO(), "w", format="nut")
        stream: Any = self._carrier.add_stream(made.encoder, rate=self._rate, options=self._options(threads))
        across = turn in (90, 270)
        stream.width, stream.height = (made.height, made.width) if across else (made.width, made.height)
        stream.pix_fmt = self._pix_fmt
        if first.rotation and not turn:
            stream.set_display_rotation(first.rotation)
        context = self._context = stream.codec_context
        context.time_base = _TICK
        context.framerate = self._rate
        context.gop_size = max(1, round(recipe.GOP_S * self._rate))
        context.thread_type = "SLICE" if made.codec == "mpeg4" or at_once else "FRAME"
        context.thread_count = threads
        if made.quantiser is not None:
            context.qmin = context.qmax = made.quantiser
        if full or made.full_range is not None or first.color_range:
            context.color_range = self._range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        context.colorspace = first.colorspace
        if aspect and aspect != 1:
            stream.sample_aspect_ratio = 1 / aspect if across else aspect
        if not global_header:
            context.flags &= ~Flags.global_header
        self._carrier.start_encoding()
        extradata = bytes(context.extradata or b"")
        self.track = Track(
            key=("encoded", made.codec, made.quantiser, self._form, extradata),
            template=stream,
            extradata=extradata,
            time_base=TICK,
            rate=self._rate,
        )

    def _options(self, threads: int) -> dict[str, str]:
        options = dict(self._recipe.options)
        if self._at_once and self._recipe.codec in ("h264", "hevc"):
            options["tune"] = "zerolatency"
        if self._recipe.codec == "hevc":
            options["x265-params"] += f":pools={threads if threads > 1 else 'none'}:frame-threads={min(threads, 2)}"
        return options

    def takes(self, frame: VideoFrame) -> bool:
        """Whether a frame has the form that the encoder was opened for."""
        return _form(frame) == self._form

    def encode(self, frame: VideoFrame, pts: int, duration: int) -> list[Packet[Any]]:
        """Encode a frame shown at `pts` for `duration` ticks; returns what is ready."""
        if self._graph is not None:
            frame.pts = None
            self._graph.push(frame)
            pulled = self._graph.pull()
            assert isinstance(pulled, VideoFrame)
            frame = pulled
        if self._convert:
            frame = frame.reformat(
                format=self._pix_fmt, src_color_range=self._source_range, dst_color_range=self._range
            )
        frame.pts, frame.time_base = pts, _TICK
        frame.pict_type = PictureType.NONE  # else the encoder would make the same choice again
        self._durations[pts] = duration
        return self._stamped(self._context.encode(frame))

    def flush(self) -> list[Packet[Any]]:
        """What it holds back; it can't be used afterwards."""
        with contextlib.suppress(av.EOFError):
            return self._stamped(self._context.encode(None))
        return []

    def complete(self) -> list[Packet[Any]]:
        """Of what it holds back only what is shown before a frame that was given out; it can't be used afterwards.

        That takes a frame or two, where all that it looks ahead would be a dozen and more.
        """
        made: list[Packet[Any]] = []
        rest = self._context.encode_lazy(None)
        with contextlib.suppress(av.EOFError):
            while any(pts < self._given_until for pts in self._durations):
                packet = next(rest, None)
                if packet is None:
                    break
                made += self._stamped([packet])
        return made

    def _stamped(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        for packet in packets:
            pts = packet.pts or 0
            packet.duration = self._durations.pop(pts, 1)
            if packet.dts is None:
                packet.dts = pts
            self._given_until = max(self._given_until, pts)
        return packets


def _form(frame: VideoFrame) -> tuple[object, ...]:
    return frame.width, frame.height, frame.format.name, frame.color_range, frame.rotation


def _graph(frame: VideoFrame, made: EncodePicture, turn: int) -> Graph | None:
    """What cuts off the odd row and column, and turns the pixels."""
    steps: list[tuple[str, str]] = []
    if (made.width, made.height) != (frame.width, frame.height):
        steps.append(("crop", f"{made.width}:{made.height}:0:0:exact=1"))
    if turn:
        steps += {90: [("transpose", "cclock")], 180: [("hflip", ""), ("vflip", "")], 270: [("transpose", "clock")]}[
            turn
        ]
    if not steps:
        return None
    graph = Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_TICK)
    for name, arguments in steps:
        step = graph.add(name, arguments or None)
        last.link_to(step)
        last = step
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    return graph
