"""The exact cut: a stage that makes a copied clip begin and end with the very frame, by encoding as little as can be.

At the start, the frames between the wanted one and the next key frame are decoded and encoded anew; what follows is
copied. At the end nothing needs to be done unless B-frames come there: then the frame that they are predicted from
would be shown behind the end, and the last two or three frames are encoded instead.

The encoded pictures carry their own parameter sets, with a number of their own (H.264) or followed by the recording's
(H.265, whose encoder knows but one number), in front of the key frame: the file has one description, and every player
tried takes sets that come with the picture. They are in the description too where the file begins with them.

It can't be done where the next key frame isn't an IDR picture (an open GOP: what follows it refers to what lies
before), for other codecs, and for interlaced pictures. The clip begins with the key frame before then, and ends with
the last frame that the wanted ones need.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from vx.media.packets import nal
from vx.media.packets.messages import Begin, Message, Packets, TimedPacket, Track, assign_stream
from vx.media.packets.plan import Join

LARGEST_GOP = 32 << 20
"""Bytes. A camera may go without a key frame for minutes; so much is held in memory for the exact cut, and no more."""
_REACH_US = 120_000_000
"""How long before the end a key frame is remembered from which its GOP could be decoded."""
_ENCODERS = {"h264": "libx264", "hevc": "libx265"}
_INTRA_ONLY = {"mjpeg", "prores", "dnxhd", "rawvideo", "png", "jpeg2000"}
_PROFILES = {"Baseline": "baseline", "Constrained Baseline": "baseline"}
_CRF = {"h264": "18", "hevc": "20"}


class CannotCutError(Exception):
    """These pictures can't be replaced by encoded ones; the text says why."""


def exact_cut(messages: Iterator[Message], note: Callable[[str], None]) -> Iterator[Message]:
    """The stage. `note` is told where it can't be exact."""
    return _Cutter(messages, note).run()


class _Cutter:
    def __init__(self, messages: Iterator[Message], note: Callable[[str], None]) -> None:
        self._messages = messages
        self._note = note
        self._put_back: Message | None = None
        self._restore: Track | None = None
        """After encoded pictures: the track whose own parameter sets the next copied key frame brings along."""
        self._ended: tuple[str, int] | None = None
        """The segment, and the pts of the key frame in it, of the group whose end was encoded last."""

    def run(self) -> Iterator[Message]:
        while (message := self._next()) is not None:
            if isinstance(message, Begin):
                yield from self._segment(message)

    def _next(self) -> Message | None:
        message, self._put_back = self._put_back, None
        return message if message is not None else next(self._messages, None)

    def _batches(self) -> Iterator[list[TimedPacket]]:
        """The packets of the segment."""
        while (message := self._next()) is not None:
            if isinstance(message, Begin):
                self._put_back = message
                return
            yield message.packets

    def _segment(self, segment: Begin) -> Iterator[Message]:
        batches = self._batches()
        first = next(batches, None)
        if first is None:
            return
        edges = _Edges(segment)
        batches = itertools.chain([first], batches)
        picture = next((p for p in first if p.stream_index == segment.video_index), None)
        if picture is not None and picture.pts < edges.begin:
            head = _Head(segment, edges)
            rest = head.take(batches)
            batches = itertools.chain([rest] if rest else [], batches)
            try:
                began, ready = self._replace(head)
            except CannotCutError as error:
                self._note(f"{segment.name}: the clip begins with the key frame before its start: {error}")
                segment = self._behind_ending(head)
                yield segment
                batches = itertools.chain([head.packets], batches)
            else:
                if began is not None:
                    segment = began
                    yield segment
                    yield Packets(ready)
                elif rest:
                    yield segment
        else:
            yield segment
        yield from self._copy(segment, edges, batches)

    def _behind_ending(self, head: _Head) -> Begin:
        """The segment that begins with the key frame before its start.

        Where the range before it ended in that very group, with encoded pictures, nothing can go on from those: what
        comes again needs a file of its own.
        """
        segment = head.segment
        if self._ended != (segment.name, head.pictures[0].pts):
            return segment
        return dataclasses.replace(segment, placement=dataclasses.replace(segment.placement, join=Join.OVERLAP))

    def _replace(self, head: _Head) -> tuple[Begin | None, list[TimedPacket]]:
        """The exact start of a segment. No Begin where nothing of it is wanted. CannotCutError where it can't be."""
        segment = head.segment
        ends_whole = head.next_key is not None or head.too_large or self._starts_anew(segment)
        try:
            head.check(ends_whole)
            if not head.wanted:
                sound = head.wanted_sound() if head.next_key is not None else []
                return (segment, sound) if sound else (None, [])
            encoded, sets = encode_group(segment, head.pictures, head.wanted, head.delay)
        except (CannotCutError, av.FFmpegError, ValueError, IndexError) as error:
            if not head.wanted and head.next_key is None and ends_whole and not head.too_large:
                return None, []
            raise CannotCutError(str(error)) from error
        self._restore = segment.video
        return _described(segment, sets), [*encoded, *head.wanted_sound()]

    def _starts_anew(self, segment: Begin) -> bool:
        """Whether what follows the segment doesn't refer to it."""
        begin = self._put_back = self._next()
        if (
            not isinstance(begin, Begin)
            or begin.placement.join is not Join.CONTIGUOUS
            or begin.wanted_us != segment.wanted_us
            or begin.video.key != segment.video.key
        ):
            return True
        following = next(self._messages, None)
        if following is None:
            return True
        self._messages = itertools.chain([following], self._messages)
        if isinstance(following, Begin):
            return True
        first = next((p for p in following.packets if p.stream_index == begin.video_index), None)
        return first is None or (first.is_keyframe and _is_fresh(begin, first))

    def _copy(self, segment: Begin, edges: _Edges, batches: Iterator[list[TimedPacket]]) -> Iterator[Message]:
        tail = _Tail(segment, edges)
        for batch in batches:
            if self._restore is None:
                last = next((p for p in reversed(batch) if p.stream_index == segment.video_index), None)
                if last is None or last.pts < edges.far:
                    yield Packets(batch)
                    continue
            ready: list[TimedPacket] = []
            for packet in batch:
                if packet.stream_index != segment.video_index:
                    ready.append(packet)
                elif not tail.takes(packet):
                    if self._restore is not None and packet.is_keyframe:
                        packet = self._with_sets(packet, segment)
                    ready.append(packet)
            if ready:
                yield Packets(ready)
        if tail.held:
            yield Packets(self._ending(segment, tail))

    def _ending(self, segment: Begin, tail: _Tail) -> list[TimedPacket]:
        try:
            encoded, _ = encode_group(segment, tail.pictures(), tail.wanted(), tail.delay)
        except (CannotCutError, av.FFmpegError, ValueError, IndexError) as error:
            self._note(f"{segment.name}: the clip ends a little behind its end: {error}")
            return [_restored(packet, pts, dts) for packet, pts, dts in tail.held]
        self._restore = segment.video
        self._ended = segment.name, tail.key_pts
        return encoded

    def _with_sets(self, packet: TimedPacket, segment: Begin) -> TimedPacket:
        """A copied key frame that brings the recording's own parameter sets along."""
        track, self._restore = self._restore, None
        if track is None or track.key != segment.video.key:
            return packet
        form = nal.Form.of(track.template.codec_context.name, track.extradata)
        if form is None:
            return packet
        try:
            sets = form.sets(track.extradata)
            units = form.split(bytes(packet))  # type: ignore[call-overload]
        except (ValueError, IndexError):
            return packet
        if any(form.is_set(unit) for unit in units):
            return packet
        return make_packet(segment, form.join([*sets, *units]), packet.pts, packet.dts, packet.duration, key=True)


class _Edges:
    """The wanted range in a segment's ticks of the picture."""

    def __init__(self, segment: Begin) -> None:
        base, (begin_us, end_us) = segment.video.time_base, segment.wanted_us
        self.begin = base.first_tick_at(begin_us - segment.origin_us)
        self.end = base.first_tick_at(end_us - segment.origin_us)
        self.far = base.ticks(end_us - segment.origin_us - _REACH_US)
        """Before it, the end needs no care."""


class _Head:
    """The start of a segment up to the key frame from which on it is copied."""

    def __init__(self, segment: Begin, edges: _Edges) -> None:
        self.segment = segment
        self._edges = edges
        self.packets: list[TimedPacket] = []
        self.pictures: list[TimedPacket] = []
        self.next_key: TimedPacket | None = None
        self._size = 0
        self.too_large = False

    def take(self, batches: Iterator[list[TimedPacket]]) -> list[TimedPacket]:
        """Take packets up to the next key frame; returns the rest of their batch, which begins with it."""
        video_index = self.segment.video_index
        for batch in batches:
            for i, packet in enumerate(batch):
                if packet.stream_index == video_index:
                    if packet.is_keyframe and self.pictures:
                        if packet.pts >= self._edges.begin:
                            self.next_key = packet
                            return batch[i:]
                        self.packets.clear()  # it is still before the start
                        self.pictures.clear()
                    self.pictures.append(packet)
                    self._size += packet.size
                self.packets.append(packet)
            if self._size > LARGEST_GOP:
                self.too_large = True
                return []
        return []

    @property
    def wanted(self) -> dict[int, int]:
        """pts → duration of the frames to be shown."""
        end = self._edges.end if self.next_key is None else min(self._edges.end, self.next_key.pts)
        return {p.pts: p.duration for p in self.pictures if self._edges.begin <= p.pts < end}

    @property
    def delay(self) -> int:
        """What the recording's pts are ahead of its dts."""
        return self.pictures[0].pts - self.pictures[0].dts

    def wanted_sound(self) -> list[TimedPacket]:
        """The sound that isn't before the start."""
        segment = self.segment
        if segment.audio is None:
            return []
        begin = segment.audio.time_base.ticks(segment.wanted_us[0] - segment.origin_us)
        sound = (p for p in self.packets if p.stream_index != segment.video_index)
        return [p for p in sound if 2 * p.pts + p.duration >= 2 * begin]

    def check(self, ends_whole: bool) -> None:
        """CannotCutError where it can't be replaced."""
        codec = self.segment.video.template.codec_context.name
        if self.too_large:
            raise CannotCutError("there is no other key frame for too long")
        if not ends_whole:
            raise CannotCutError("the next recording refers to what lies before it")
        if not self.pictures[0].is_keyframe:
            raise CannotCutError("it begins without a key frame")
        if self.next_key is not None and not _is_fresh(self.segment, self.next_key):
            raise CannotCutError("the next key frame is not independent of what lies before it")
        if self.wanted and codec not in _ENCODERS:
            raise CannotCutError(f"{codec} can only be cut at key frames")


@dataclass
class _Tail:
    """The end of the range: remembers the GOP in which it lies, holds back what would be shown behind it."""

    segment: Begin
    edges: _Edges
    held: list[tuple[TimedPacket, int, int]] = dataclasses.field(default_factory=list)
    _gop: list[tuple[TimedPacket, int, int]] = dataclasses.field(default_factory=list)
    _size: int = 0
    _shown: int = -(2**62)

    def takes(self, packet: TimedPacket) -> bool:
        """Whether the picture is held back; else it is to be copied."""
        if self.held or packet.pts >= self.edges.end:
            self.held.append((packet, packet.pts, packet.dts))
            return True
        if packet.is_keyframe:
            self._gop.clear()
            self._size = 0
        self._size += packet.size
        if self._size <= LARGEST_GOP:
            self._gop.append((packet, packet.pts, packet.dts))
        else:
            self._gop.clear()
        self._shown = max(self._shown, packet.pts)
        return False

    def pictures(self) -> list[TimedPacket]:
        """All that has to be decoded; the writer may have changed the times of what it was given."""
        if not self._gop or not self._gop[0][0].is_keyframe:
            raise CannotCutError("the key frame before it is too far away")
        return [_restored(packet, pts, dts) for packet, pts, dts in (*self._gop, *self.held)]

    @property
    def key_pts(self) -> int:
        """Of the key frame of its group."""
        return self._gop[0][1]

    def wanted(self) -> dict[int, int]:
        """pts → duration of the frames to be shown."""
        wanted = {pts: packet.duration for packet, pts, _ in self.held if pts < self.edges.end}
        if any(pts <= self._shown for pts in wanted):
            raise CannotCutError("its frames are in an unusual order")
        return wanted

    @property
    def delay(self) -> int:
        """What the recording's pts are ahead of its dts."""
        return max((pts - dts for _, pts, dts in self._gop[:1]), default=0)


def _restored(packet: TimedPacket, pts: int, dts: int) -> TimedPacket:
    packet.pts, packet.dts = pts, dts
    return packet


def _is_fresh(segment: Begin, packet: TimedPacket) -> bool:
    """Whether nothing from this key frame on refers to what came before it."""
    codec = segment.video.template.codec_context.name
    form = nal.Form.of(codec, segment.video.extradata)
    if form is not None:
        return form.starts_anew(form.split(bytes(packet)))  # type: ignore[call-overload]
    return codec in _INTRA_ONLY or packet.pts == packet.dts


def _described(segment: Begin, sets: list[bytes]) -> Begin:
    """The same segment, for a file whose description has these parameter sets too."""
    video = segment.video
    form = nal.Form.of("h264", video.extradata)
    if video.template.codec_context.name != "h264" or form is None or not form.length_size:
        return segment
    return dataclasses.replace(
        segment, video=dataclasses.replace(video, extradata=form.with_sets(video.extradata, sets))
    )


def encode_group(
    segment: Begin, pictures: list[TimedPacket], wanted: dict[int, int], delay: int
) -> tuple[list[TimedPacket], list[bytes]]:
    """The wanted frames (pts → duration) as packets of a group of their own, and their parameter sets.

    `pictures` are what has to be decoded for them; `delay` is what the recording's pts are ahead of its dts.
    """
    video = segment.video
    codec = video.template.codec_context.name
    form = nal.Form.of(codec, video.extradata)
    if form is None:
        raise CannotCutError(f"{codec} can only be cut at key frames")
    own_sets = form.sets(video.extradata)
    packets: list[TimedPacket] = []
    sets: list[bytes] = []
    encoder: VideoCodecContext | None = None

    def take(encoded: list[Packet[Any]]) -> None:
        for packet in encoded:
            pts = packet.pts or 0
            units = [unit for unit in nal.split_start_codes(bytes(packet)) if not form.is_dropped(unit)]
            if packet.is_keyframe and not sets:
                sets.extend(unit for unit in units if form.is_set(unit))
            packets.append(
                make_packet(segment, form.join(units), pts, pts - delay, wanted[pts], key=bool(packet.is_keyframe))
            )

    for frame in _decode(video, pictures):
        if frame.pts not in wanted:
            continue
        if frame.interlaced_frame:
            raise CannotCutError("its pictures are interlaced")
        if encoder is None:
            encoder = _encoder(codec, frame, segment, form.ids(own_sets) if codec == "h264" else set())
        plain = frame
        plain.pict_type = av.video.frame.PictureType.NONE
        plain.time_base = encoder.time_base
        take(encoder.encode(plain))
    if encoder is not None:
        take(encoder.encode(None))
    if len(packets) != len(wanted):
        raise CannotCutError(f"{len(wanted) - len(packets)} of its frames can't be decoded")
    return packets, sets


def _decode(video: Track, pictures: list[TimedPacket]) -> Iterator[VideoFrame]:
    decoder: Any = VideoCodecContext.create(video.template.codec_context.name, "r")
    decoder.extradata = video.extradata or None
    decoder.thread_count = 1  # a group of pictures is done in no time, and each thread would take memory
    for packet in pictures:
        yield from decoder.decode(packet)
    yield from decoder.decode(None)


def _encoder(codec: str, frame: VideoFrame, segment: Begin, taken: set[int]) -> VideoCodecContext:
    source: Any = segment.video.template.codec_context
    encoder: Any = VideoCodecContext.create(_ENCODERS[codec], "w")
    formats = {f.name for f in encoder.codec.video_formats or ()}
    if frame.format.name not in formats:
        raise CannotCutError(f"there is no encoder for {frame.format.name}")
    base = segment.video.time_base
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, frame.format.name
    encoder.time_base = base.seconds
    encoder.framerate = Fraction(25)  # for its rate control alone
    for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
        setattr(encoder, name, getattr(frame, name))
    if source.sample_aspect_ratio:
        encoder.sample_aspect_ratio = source.sample_aspect_ratio
    encoder.thread_count = 1
    common = "bframes=0:annexb=1:repeat-headers=1:scenecut=0:rc-lookahead=0"
    if codec == "h264":
        number = next(n for n in (7, *range(31, -1, -1)) if n not in taken)
        params = f"x264-params=sps-id={number}:{common}:keyint=infinite:mbtree=0:sync-lookahead=0"
    else:
        params = f"x265-params={common}:keyint=-1:open-gop=0:info=0:log-level=none:pools=none:frame-threads=1"
    name, _, value = params.partition("=")
    encoder.options = {"preset": "veryfast", "crf": _CRF[codec], name: value}
    if profile := _PROFILES.get(source.profile or ""):
        encoder.options = {**encoder.options, "profile": profile}
    return encoder  # type: ignore[no-any-return]


def make_packet(segment: Begin, data: bytes, pts: int, dts: int, duration: int, *, key: bool) -> TimedPacket:
    packet: Any = Packet(data)
    packet.pts, packet.dts, packet.duration = pts, dts, duration
    base = segment.video.time_base
    packet.time_base = base.seconds
    packet.is_keyframe = key
    assign_stream(packet, segment.video_index)
    return packet  # type: ignore[no-any-return]
