"""The stage that encodes what can't stay as it was recorded, and picks the frames of a time lapse.

It passes on what `recipe` says is copied, and encodes the rest: decode → pick the frames that are shown → draw into
them → encode. An encoder goes on through segments that follow each other without a hole; after a hole, or a change of
form, a new one begins with a key frame. Where the decoder is needed anyway the range is cut exactly here.

Frames are on the wall clock (`_us`); an encoder counts ticks of `TICK` from its run's `base_us`. A time lapse has a
clock of its own, `_Clock`, on which the clip's origins and packets run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, Any

import av
from av.codec.context import Flags
from av.filter import Graph
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange

from vx.jobs import ClipJob, Coding
from vx.media import recipe
from vx.media.plan import Join, TimeBase
from vx.media.reading import Begin, Message, Packets, Stage, TimedPacket, Track, assign_stream, detached, translate
from vx.media.recipe import Copy, EncodePicture, EncodeSound, LeaveOut, Picture, PictureChoice, Sound, SoundChoice

if TYPE_CHECKING:
    from vx.media.sound import SoundEncoder

TICK = TimeBase(1, 60_000)
"""Of encoded pictures: whole for the usual frame rates, and not too fine for MPEG-4, which takes 16 bits."""
_TICK = Fraction(TICK.num, TICK.den)
_MICROSECOND = Fraction(1, 1_000_000)
_ANY_TIME = (-(2**62), 2**62)
_DEFAULT_RATE = Fraction(25)
_FASTEST_RATE = 240

Draw = Callable[[VideoFrame, int], VideoFrame]
"""Changes a frame that is shown at a wall time, before it is encoded. The frame given may be the decoder's: draw into
a copy."""


def transcoding(
    job: ClipJob,
    warn: Callable[[str], None],
    inform: Callable[[str], None],
    stopping: Callable[[], bool],
    draws: Sequence[Draw] = (),
) -> Stage:
    """The stage for one source of a job. `warn` is told what is wrong, `inform` what isn't copied, and why; each thing
    once. `stopping` is asked often: encoding takes long.
    """

    def stage(messages: Iterator[Message]) -> Iterator[Message]:
        return _Transcoder(job, warn, inform, stopping, draws).run(messages)

    return stage


def needed(coding: Coding) -> bool:
    """Whether the stage has anything to do for recordings that the container can hold."""
    return coding != Coding(threads=coding.threads)


class _Clock:
    """The clip's clock: the wall clock, or one that runs `speed` times as fast from `start_us` on."""

    def __init__(self, start_us: int, speed: Fraction) -> None:
        self._start_us = start_us
        self._speed = speed

    @property
    def is_wall(self) -> bool:
        return self._speed == 1

    def clip_us(self, wall_us: int) -> int:
        """When the clip shows what was recorded at a time."""
        if self._speed == 1:
            return wall_us
        return self._start_us + round((wall_us - self._start_us) / self._speed)

    def wall_us(self, clip_us: int) -> int:
        """When it was recorded."""
        return self._start_us + round((clip_us - self._start_us) * self._speed)

    def show(self, at_us: int, until_us: int) -> tuple[int, int]:
        """From when to when the clip shows the next frame, which was to be seen for that time."""
        return self.clip_us(at_us), self.clip_us(until_us)


class _Steps(_Clock):
    """The clock of frames that follow each other at a fixed rate, whenever they were recorded."""

    def __init__(self, start_us: int, rate: Fraction) -> None:
        super().__init__(start_us, Fraction(1))
        self._step_us = 1_000_000 / rate
        self._shown_us: list[int] = []

    @property
    def is_wall(self) -> bool:
        return False

    def clip_us(self, wall_us: int) -> int:
        """That of the next frame."""
        return self._at(len(self._shown_us))

    def wall_us(self, clip_us: int) -> int:
        step = round((clip_us - self._start_us) / self._step_us)
        return self._shown_us[min(max(step, 0), len(self._shown_us) - 1)]

    def show(self, at_us: int, until_us: int) -> tuple[int, int]:
        self._shown_us.append(at_us)
        return self._at(len(self._shown_us) - 1), self._at(len(self._shown_us))

    def _at(self, step: int) -> int:
        return self._start_us + round(step * self._step_us)


def _clock(job: ClipJob) -> _Clock:
    coding = job.coding
    if coding.speed == 0:
        return _Steps(job.start_us, Fraction(coding.key_fps).limit_denominator(1001))
    return _Clock(job.start_us, Fraction(coding.speed).limit_denominator(1000))


class _Transcoder:
    """One source's stage."""

    def __init__(
        self,
        job: ClipJob,
        warn: Callable[[str], None],
        inform: Callable[[str], None],
        stopping: Callable[[], bool],
        draws: Sequence[Draw],
    ) -> None:
        self._job = job
        self._coding = job.coding
        self._warn = _once(warn)
        self._inform = _once(inform)
        self._stopping = stopping
        self._draws = draws
        self._threads = job.coding.threads or min(recipe.MOST_THREADS, len(os.sched_getaffinity(0)))
        self._clock = _clock(job)
        self._keys = recipe.key_picker(self._coding)
        self._picker: recipe.Every | None = None
        self._picker_rate: Fraction | None = None
        self._segment: Begin | None = None
        self._announced: Begin | None = None
        self._pictures: _Pictures | None = None
        self._key_frames: _KeyFrames | None = None
        self._sound_choice: SoundChoice = Copy()
        self._sound: SoundEncoder | None = None
        self._sound_base_us = 0
        self._waiting: deque[tuple[int, TimedPacket, int]] = deque()
        """Sound that waits for its picture, with its clip time, and the one from which the packet's times count."""

    def run(self, messages: Iterator[Message]) -> Iterator[Message]:
        if self._job.container == "avi":
            messages = _look_for_rotation(messages)
        for message in messages:
            if isinstance(message, Begin):
                yield from self._enter(message)
                continue
            if self._passes_pictures and isinstance(self._sound_choice, Copy):
                yield message
                continue
            for packet in message.packets:
                if self._stopping():
                    break
                yield from self._take(packet)
        yield from self._flush(stopping=self._stopping())

    # ---- segments

    def _enter(self, segment: Begin) -> Iterator[Message]:
        previous = self._segment
        if previous is None or not _goes_on(segment, previous):
            yield from self._flush()
            self._segment = segment
            self._announced = None
            self._begin_run(segment)
        else:
            self._segment = segment
        if self._pictures is None or self._pictures.track is not None:
            yield self._announce(segment)

    def _begin_run(self, segment: Begin) -> None:
        choice = self._choose_picture(segment.video)
        self._pictures = self._key_frames = None
        if isinstance(choice, EncodePicture):
            self._inform(f"the picture is encoded: {choice.why}")
            rate = segment.video.rate
            if self._picker is None or rate != self._picker_rate:
                self._picker, self._picker_rate = recipe.frame_picker(self._coding, rate), rate
            self._pictures = _Pictures(
                self._job, segment, self._clock, self._keys, self._picker, self._draws, self._threads, self._warn
            )
        elif self._keys is not None:
            self._key_frames = _KeyFrames(segment.wanted_us)
        self._sound_choice = self._choose_sound(segment.audio)
        self._sound = None
        if isinstance(self._sound_choice, EncodeSound) and segment.audio is not None:
            self._inform(f"the sound is encoded: {self._sound_choice.why}")
            from vx.media.sound import SoundEncoder  # and with it numpy, which takes 20 MB of a worker

            self._sound_base_us = segment.origin_us
            self._sound = SoundEncoder(
                self._sound_choice,
                segment.audio,
                segment.origin_us,
                _ANY_TIME if self._leaves_cut(segment) else segment.wanted_us,
                self._warn,
                global_header=self._job.container != "avi",
            )
        elif isinstance(self._sound_choice, LeaveOut):
            self._inform(f"the sound is left out: {self._sound_choice.why}")

    def _choose_picture(self, track: Track) -> PictureChoice:
        context: Any = track.template.codec_context
        source = Picture(
            codec=context.codec.canonical_name,
            width=context.width,
            height=context.height,
            pix_fmt=context.pix_fmt or "",
            rotated=track.rotated,
            reorders=bool(context.has_b_frames),
        )
        choice = recipe.choose_picture(self._coding, self._job.container, source)
        if isinstance(choice, Copy) and self._draws:
            choice = recipe.encode_picture(self._coding, self._job.container, source, "something is drawn into it")
        return choice

    def _choose_sound(self, track: Track | None) -> SoundChoice:
        if track is None:
            return Copy()
        context: Any = track.template.codec_context
        source = Sound(context.codec.canonical_name, context.sample_rate, len(context.layout.channels))
        return recipe.choose_sound(self._coding, self._job.container, source)

    def _announce(self, segment: Begin) -> Begin:
        clock = self._clock
        video, audio = segment.video, segment.audio
        if self._pictures is not None:
            assert self._pictures.track is not None
            video = self._pictures.track
        elif self._key_frames is not None:
            rate = recipe.shown_rate(self._coding, video.rate)
            video = dataclasses.replace(video, time_base=TICK, rate=rate)
        if isinstance(self._sound_choice, LeaveOut):
            audio = None
        elif self._sound is not None:
            audio = self._sound.track
        placement = dataclasses.replace(segment.placement, origin_us=clock.clip_us(segment.origin_us))
        self._announced = dataclasses.replace(
            segment,
            placement=placement,
            video=video,
            audio=audio,
            wanted_us=segment.wanted_us if self._passes_pictures and not self._leaves_cut(segment) else _ANY_TIME,
            to_wall=None if clock.is_wall else clock.wall_us,
        )
        return self._announced

    @property
    def _passes_pictures(self) -> bool:
        return self._pictures is None and self._key_frames is None

    def _leaves_cut(self, segment: Begin) -> bool:
        """Whether the cut has to be left to key frames: in AVI pictures that are stored in the order in which they are
        shown, as the exact cut makes them, can't be followed by some that aren't."""
        context: Any = segment.video.template.codec_context
        if not self._passes_pictures or self._job.container != "avi" or self._job.cut != "exact":
            return False
        if not context.has_b_frames:
            return False
        self._inform("the clip begins with the key frame before its start: avi has no times for B-frames")
        return True

    # ---- packets

    def _take(self, packet: TimedPacket) -> Iterator[Message]:
        segment = self._segment
        assert segment is not None
        if packet.stream_index != segment.video_index:
            if segment.audio is not None:
                yield from self._take_sound(packet, segment)
        elif self._pictures is not None:
            yield from self._encoded(self._pictures.put(packet, segment.origin_us))
        elif self._key_frames is not None:
            yield from self._picked(packet, segment)
        else:
            yield Packets([packet])

    def _take_sound(self, packet: TimedPacket, segment: Begin) -> Iterator[Message]:
        if isinstance(self._sound_choice, LeaveOut):
            return
        if self._sound is not None:
            self._queue_sound(self._sound.put(packet, segment.origin_us))
        else:
            audio = segment.audio
            assert audio is not None
            at_us = segment.origin_us + audio.time_base.us(packet.pts)
            begin_us, end_us = segment.wanted_us
            middle_us = at_us + audio.time_base.us(packet.duration) // 2
            if not self._passes_pictures and not begin_us <= middle_us < end_us:
                return
            self._waiting.append((at_us, packet, segment.origin_us))
        if self._passes_pictures:
            yield from self._release(None)

    def _queue_sound(self, packets: list[Packet[Any]]) -> None:
        sound = self._sound
        assert sound is not None
        base_us = self._clock.clip_us(self._sound_base_us)
        for packet in packets:
            made: Any = packet
            self._waiting.append((base_us + sound.track.time_base.us(made.pts), made, base_us))

    def _release(self, until_us: int | None) -> Iterator[Message]:
        """Give out the sound up to a clip time; None: all of it."""
        begin = self._announced
        if begin is None:
            return
        ready: list[TimedPacket] = []
        packet: Any
        while self._waiting and (until_us is None or self._waiting[0][0] <= until_us):
            _, packet, origin_us = self._waiting.popleft()
            if origin_us != begin.origin_us and begin.audio is not None:
                packet.pts = packet.dts = packet.pts + begin.audio.time_base.ticks(origin_us - begin.origin_us)
            if self._sound is not None:
                assign_stream(packet, begin.video_index + 1)
            ready.append(packet)
        if ready:
            yield Packets(ready)

    def _encoded(self, outcome: Iterator[_Encoded]) -> Iterator[Message]:
        """Give out encoded pictures, counted from the announced segment's origin, each behind the sound before it."""
        pictures, segment = self._pictures, self._segment
        assert pictures is not None
        assert segment is not None
        for packets in outcome:
            if packets.new_track or self._announced is None:
                yield self._announce(segment)
            begin = self._announced
            assert begin is not None
            shift = TICK.ticks(pictures.base_us - begin.origin_us)
            for packet in packets.packets:
                packet.pts += shift
                packet.dts += shift
                assign_stream(packet, begin.video_index)
                yield from self._release(begin.origin_us + TICK.us(packet.dts))
                yield Packets([packet])

    def _picked(self, packet: TimedPacket, segment: Begin) -> Iterator[Message]:
        assert self._key_frames is not None
        assert self._keys is not None
        at_us = segment.origin_us + segment.video.time_base.us(packet.pts)
        end_us = at_us + segment.video.time_base.us(packet.duration)
        yield from self._key_packets(self._key_frames.put(packet, at_us, end_us, self._keys))

    def _key_packets(self, picked: list[tuple[TimedPacket, int, int]]) -> Iterator[Message]:
        begin = self._announced
        assert begin is not None
        for packet, at_us, end_us in picked:
            shown_us, until_us = self._clock.show(at_us, end_us)
            packet.pts = packet.dts = TICK.ticks(shown_us - begin.origin_us)
            packet.duration = TICK.ticks(until_us - shown_us)
            packet.time_base = _TICK
            yield from self._release(shown_us)
            yield Packets([packet])

    def _flush(self, *, stopping: bool = False) -> Iterator[Message]:
        if self._segment is None:
            return
        if self._sound is not None:
            self._queue_sound(self._sound.flush())
        if self._pictures is not None:
            yield from self._encoded(self._pictures.flush(stopping=stopping))
        elif self._key_frames is not None:
            yield from self._key_packets(self._key_frames.flush())
        yield from self._release(None)
        self._waiting.clear()


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Tells each thing one time."""
    told: set[str] = set()

    def tell_once(text: str) -> None:
        if text not in told:
            told.add(text)
            tell(text)

    return tell_once


def _goes_on(segment: Begin, previous: Begin) -> bool:
    """Whether the decoders and encoders of the segment before it can go on with this one."""
    return (
        segment.placement.join is Join.CONTIGUOUS
        and segment.wanted_us == previous.wanted_us
        and _same(segment.video, previous.video)
        and _same(segment.audio, previous.audio)
    )


def _same(track: Track | None, other: Track | None) -> bool:
    if track is None or other is None:
        return track is other
    return track.key == other.key and track.time_base == other.time_base


def _look_for_rotation(messages: Iterator[Message]) -> Iterator[Message]:
    """Decode a frame of each new track to see whether it is to be turned: nothing else tells."""
    known: dict[tuple[object, ...], bool] = {}
    held: list[Packets] = []
    segment: Begin | None = None
    for message in messages:
        if isinstance(message, Begin):
            segment, held = message, []
            if segment.video.key in known:
                yield _turned(segment, known)
                segment = None
        elif segment is None:
            yield message
        else:
            held.append(message)
            key = next((p for p in message.packets if p.stream_index == segment.video_index and p.is_keyframe), None)
            if key is not None:
                known[segment.video.key] = _is_rotated(segment.video, key)
                yield _turned(segment, known)
                yield from held
                segment = None


def _turned(segment: Begin, known: dict[tuple[object, ...], bool]) -> Begin:
    return dataclasses.replace(segment, video=dataclasses.replace(segment.video, rotated=known[segment.video.key]))


def _is_rotated(track: Track, key: TimedPacket) -> bool:
    stream = detached(track.template)
    context: Any = stream.codec_context
    context.thread_count = 1
    try:
        frames = [*context.decode(key), *context.decode(None)]
    except (av.FFmpegError, ValueError):
        return False  # what can't be decoded is told where it matters
    return any(frame.rotation for frame in frames)


# ---- key frames, copied


class _KeyFrames:
    """Picks the key frames that a time lapse shows; each is given out once it is known how long it stands."""

    def __init__(self, wanted_us: tuple[int, int]) -> None:
        self._begin_us, self._end_us = wanted_us
        self._held: tuple[TimedPacket, int] | None = None
        self._until_us = 0

    def put(
        self, packet: TimedPacket, at_us: int, end_us: int, picker: recipe.AtRate
    ) -> list[tuple[TimedPacket, int, int]]:
        """The next packet, and from when to when it is shown; returns (packet, from, to) of what is to be shown."""
        if at_us >= self._end_us:
            return []
        self._until_us = max(self._until_us, min(end_us, self._end_us))
        if not packet.is_keyframe or at_us < self._begin_us or not picker.keeps(at_us):
            return []
        shown = [] if self._held is None else [(*self._held, at_us)]
        self._held = packet, at_us
        return shown

    def flush(self) -> list[tuple[TimedPacket, int, int]]:
        """The last one."""
        held, self._held = self._held, None
        return [] if held is None else [(*held, max(self._until_us, held[1]))]


# ---- pictures, encoded


@dataclass(frozen=True)
class _Encoded:
    """Packets in decoding order; `new_track`: they belong to a track that wasn't there before."""

    packets: list[Any]
    new_track: bool = False


class _Pictures:
    """The picture of one run of segments: decoded, picked, drawn into, encoded."""

    def __init__(
        self,
        job: ClipJob,
        segment: Begin,
        clock: _Clock,
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
        self._decoder.thread_type = "AUTO"
        self._decoder.thread_count = threads
        if self._keys_only is not None:
            self._decoder.skip_frame = "NONKEY"
        self._encoder: _PictureEncoder | None = None
        self._held: tuple[VideoFrame, int] | None = None
        self._seen_until_us = 0
        self._encoded_until_us = -(2**62)

    def put(self, packet: TimedPacket, origin_us: int) -> Iterator[_Encoded]:
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

    def flush(self, *, stopping: bool = False) -> Iterator[_Encoded]:
        """All that is held back; `stopping`: only what is missing between the frames that were given out."""
        if not stopping:
            yield from self._decode(None)
            held, self._held = self._held, None
            if held is not None:
                yield from self._encode(*held, max(self._seen_until_us, held[1] + 1))
        if self._encoder is not None:
            yield _Encoded(self._encoder.complete() if stopping else self._encoder.flush())
            self._encoder = None

    def _decode(self, packet: Any) -> Iterator[_Encoded]:
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

    def _encode(self, frame: VideoFrame, at_us: int, until_us: int) -> Iterator[_Encoded]:
        for draw in self._draws:
            frame = draw(frame, at_us)
        new = False
        encoder = self._encoder
        if encoder is None or not encoder.takes(frame):
            if encoder is not None:
                yield _Encoded(encoder.flush())
            encoder = self._encoder = self._open(frame)
            new = True
            self.track = encoder.track
        pts, end = (TICK.ticks(us - self.base_us) for us in self._clock.show(at_us, until_us))
        yield _Encoded(encoder.encode(frame, pts, max(end - pts, 1)), new)

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
        return _PictureEncoder(made, frame, rate, aspect, self._threads, global_header=container != "avi")


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
    ) -> None:
        self._recipe = made
        self._form = _form(first)
        full = first.color_range == ColorRange.JPEG or first.format.name.startswith("yuvj")
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
        context.thread_type = "SLICE" if made.codec == "mpeg4" else "FRAME"
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
