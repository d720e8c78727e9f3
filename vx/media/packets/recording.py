"""One recording: what it holds, its packets with all their times, and the way to a key frame in it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from vx.media.packets import nal, plan
from vx.media.packets.plan import TimeBase

_HEAD_PACKETS = 64
_CONFIG_PACKETS = 1000
_FASTEST_RATE = 240
_LONG_STREAM = 64 << 20
"""Bytes."""


class BrokenError(Exception):
    """A recording that can't be read (any further); the text is for people."""


def translate(error: Exception) -> BrokenError:
    """A foreign error met while reading, in words."""
    if isinstance(error, BrokenError):
        return error
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        text = "it has vanished"
    elif isinstance(error, av.error.InvalidDataError):
        text = "it is broken, or still being written"
    return BrokenError(text)


def open_recording(path: str) -> av.container.InputContainer:
    """Open a recording. Any exception may come out of bad bytes; pass it to `translate`."""
    if Path(path).stat().st_size == 0:
        raise BrokenError("it is empty")
    # only files: a recording may be a playlist that names other places
    try:
        return av.open(path, "r", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except PermissionError as error:
        target = os.path.realpath(path)
        if target == path:
            raise
        text = f"{error.strerror}; it leads to {target}, and [worker] readable has to name folders that links lead to"
        raise BrokenError(text) from None


def video_stream(container: av.container.InputContainer, number: int = 0) -> VideoStream:
    """The first real video stream (a cover picture is none), or a later one by its number from 0 on.

    BrokenError where there is none that can be used.
    """
    real = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if number >= len(real):
        raise BrokenError(f"it has no track video:{number}" if number else "it has no video")
    stream = real[number]
    if stream.codec_context is None or not stream.width or not stream.time_base:
        raise BrokenError("its video can't be understood")
    return stream


def time_base(stream: Stream) -> TimeBase:
    """The stream's ticks."""
    base = stream.time_base or Fraction(1, 1000)
    return TimeBase(base.numerator, base.denominator)


def frame_rate(stream: VideoStream) -> Fraction | None:
    """Frames a second where none is missing; None where the file doesn't say."""
    rates = [rate for rate in (stream.base_rate, stream.average_rate) if rate and 1 <= rate <= _FASTEST_RATE]
    if len(rates) == 2 and rates[1] <= rates[0] * Fraction(1001, 1000):
        rates.pop()  # some are missing, or were late
    return Fraction(rates[-1]).limit_denominator(1001) if rates else None


def track_key(stream: Stream, extradata: bytes) -> tuple[object, ...]:
    """What has to be equal of two streams for their packets to fit into one track."""
    if isinstance(stream, VideoStream):
        form: tuple[object, ...] = (stream.width, stream.height, stream.pix_fmt)
    elif isinstance(stream, AudioStream):
        form = (stream.rate, stream.layout.name, stream.format.name)
    else:
        raise TypeError(f"a {stream.type} stream is never copied")
    codec = stream.codec_context.codec.canonical_name
    return (codec, nal.bare(codec, extradata), *form)


def frame_ticks(stream: VideoStream) -> int:
    """What one frame lasts where its packet doesn't say."""
    rate = stream.average_rate
    base = time_base(stream)
    if rate and 1 <= rate <= 1000:
        return max(1, base.ticks(int(plan.SECOND_US / rate)))
    return max(1, base.ticks(plan.DEFAULT_FRAME_US))


class Unwrapper:
    """Takes AAC out of the headers that each of its packets has in MPEG-TS (ADTS)."""

    def __init__(self, sound: Stream) -> None:
        self._sound = sound
        self._filter = BitStreamFilterContext("aac_adtstoasc", sound)
        self.config = b""
        """The decoder configuration, which MP4 and Matroska want instead, once; known with the first packet."""

    def unwrap(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """What is in it."""
        made = self._filter.filter(packet)
        if self.config:  # libav says it once, and PyAV takes long to look
            return made
        for unwrapped in made:
            if unwrapped.has_sidedata("new_extradata"):
                self.config = bytes(unwrapped.get_sidedata("new_extradata"))
        return [_without_configuration(unwrapped, self._sound) for unwrapped in made]


def unwrapper(sound: Stream) -> Unwrapper | None:
    """For sound that needs it; else None."""
    context: Any = sound.codec_context
    return Unwrapper(sound) if context.codec.canonical_name == "aac" and not context.extradata else None


def demux(
    container: av.container.InputContainer, *streams: Stream, unwrapper: Unwrapper | None = None
) -> Iterator[Packet[Any]]:
    """The packets of the streams, without the empty ones at the end, up to the first that is cut short.

    `unwrapper` is applied to those of all streams but the first.
    """
    # in a transport stream the flag says no more than "a packet is missing"
    may_be_cut_short = "mpegts" not in container.format.name
    video_index = streams[0].index
    for packet in container.demux(*streams):
        if not packet.size:
            continue
        if may_be_cut_short and packet.is_corrupt:
            raise BrokenError("it is truncated")
        if unwrapper is not None and packet.stream_index != video_index:
            yield from unwrapper.unwrap(packet)
        else:
            yield packet


def _without_configuration(packet: Packet[Any], stream: Stream) -> Packet[Any]:
    """The packet without a new decoder configuration, for which Matroska would rewrite its header, and spoil it."""
    if not packet.has_sidedata("new_extradata"):
        return packet
    plain: Packet[Any] = Packet(bytes(packet))
    plain.pts, plain.dts, plain.duration = packet.pts, packet.dts, packet.duration
    plain.time_base, plain.stream, plain.is_keyframe = packet.time_base, stream, True
    return plain


@dataclass
class Head:
    """The first packets of a segment, or of the place that was sought, with all their times."""

    packets: list[Packet[Any]]
    first_shown: int
    """The lowest pts of the frames that are shown first."""
    first_key: int | None
    """The pts of the first key frame."""


def read_head(packets: Iterator[Packet[Any]], video: VideoStream) -> Head:
    """Read until the times of the first frames are certain, and fill in those that are missing."""
    head: list[Packet[Any]] = []
    frames: list[Packet[Any]] = []
    first: int | None = None
    for packet in packets:
        head.append(packet)
        if packet.stream_index != video.index:
            continue
        frames.append(packet)
        if first is None:
            first = packet.pts
        settled = packet.dts is not None and packet.pts is not None and first is not None and packet.pts > first
        if settled or len(frames) >= _HEAD_PACKETS:
            break
    if not frames:
        raise BrokenError("it holds no picture")
    step = frame_ticks(video)
    for packet in frames[fill_first(frames, step) :]:
        complete_stamps(packet, None, step)
    first_key = next((p.pts for p in frames if p.is_keyframe), None)
    return Head(head, plan.first_shown(p.pts for p in frames if p.pts is not None), first_key)


def fill_first(frames: list[Packet[Any]], step: int) -> int:
    """Give the first pictures the times that they lack, up to the first one that lacks none; how many these are."""
    known = next((i for i, p in enumerate(frames) if p.dts is not None and p.pts is not None), len(frames))
    following = frames[known].dts if known < len(frames) else None
    stamps = [plan.Stamps(p.pts, p.dts, p.duration or 0) for p in frames[:known]]
    for packet, filled in zip(frames, plan.fill(stamps, None, following, step), strict=False):
        packet.pts, packet.dts, packet.duration = filled.pts, filled.dts, filled.duration
    return known


def complete_stamps(packet: Packet[Any], after_dts: int | None, step: int) -> None:
    """Fill in what a packet in the middle of a file lacks."""
    if packet.pts is None or packet.dts is None:
        stamps = plan.Stamps(packet.pts, packet.dts, packet.duration or 0)
        (filled,) = plan.fill([stamps], after_dts, None, step)
        packet.pts, packet.dts, packet.duration = filled.pts, filled.dts, filled.duration
    elif not packet.duration:
        packet.duration = step


def may_seek(container: av.container.InputContainer, path: str) -> bool:
    """Whether a place is sought by its time, or read up to.

    A transport stream has no table: where its clock was set back, libav finds another place with that time, or none.
    So one that isn't long is read from its beginning, which takes a tenth of a second.
    """
    return "mpegts" not in container.format.name or Path(path).stat().st_size > _LONG_STREAM


def seek_before(
    container: av.container.InputContainer,
    video: VideoStream,
    first_shown: int,
    target: int,
    *sound: Stream,
    unwrapper: Unwrapper | None = None,
) -> tuple[Head, Iterator[Packet[Any]]]:
    """Go to a key frame shown at or before `target` (ticks of the video); not always the last one before it.

    Some containers land behind the key frame that was asked for (MPEG-TS always does): step back, ever further.
    """
    base = time_base(video)
    step = base.ticks(2 * plan.SECOND_US)
    begin = first_shown - step  # decoding times begin a little ahead of what is shown first
    where = target
    while True:
        where = max(where, begin)
        container.seek(where, stream=video, backward=True)
        packets = demux(container, video, *sound, unwrapper=unwrapper)
        try:
            head = read_head(packets, video)
        except BrokenError:
            if where == begin:
                raise
        else:
            if where == begin or (head.first_key is not None and head.first_key <= target):
                return head, packets
        where -= step
        step *= 2


def promised_us(container: av.container.InputContainer, video: VideoStream, first_shown: int) -> int | None:
    """How long the segment is by its header, from its first frame; None where that is only a guess."""
    if "mpegts" in container.format.name:
        return None
    base = time_base(video)
    begin_us = base.us(video.start_time if video.start_time is not None else first_shown)
    if video.duration:
        length_us = base.us(video.duration)
    elif container.duration:
        length_us = container.duration
        begin_us = container.start_time or 0
    else:
        return None
    return begin_us + length_us - base.us(first_shown)


def sound_stream(container: av.container.InputContainer, number: int) -> tuple[AudioStream, ...]:
    """The first sound that can be understood, or a later one by its number; none where there is none."""
    usable = (s for s in container.streams.audio if s.codec_context is not None and s.time_base and s.rate)
    return tuple(itertools.islice(usable, number, number + 1))


def find_config(unwrapper: Unwrapper, head: list[Packet[Any]], packets: Iterator[Packet[Any]]) -> bytes:
    """The sound's decoder configuration, by the next packets, which go behind the `head`; empty where none tells.

    libav has looked at as many to find out that there is sound.
    """
    for packet in itertools.islice(packets, 0 if unwrapper.config else _CONFIG_PACKETS):
        head.append(packet)
        if unwrapper.config:
            break
    return unwrapper.config
