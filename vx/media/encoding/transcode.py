"""The stage that encodes what can't stay as it was recorded, and picks the frames of a time lapse.

It passes on what `recipe` says is copied, and has `pictures` and `sound` encode the rest. An encoder goes on through
segments that follow each other without a hole; after a hole, or a change of form, a new one begins with a key frame.
Where the decoder is needed anyway the range is cut exactly here.

A time lapse has a clock of its own (`clock`), on which the clip's origins and packets run.
"""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet

from vx.jobs import ClipJob
from vx.media.encoding import recipe
from vx.media.encoding.clock import clip_clock
from vx.media.encoding.pictures import TICK, Draw, Encoded, Pictures
from vx.media.encoding.recipe import (
    Copy,
    EncodePicture,
    EncodeSound,
    LeaveOut,
    Picture,
    PictureChoice,
    Sound,
    SoundChoice,
)
from vx.media.encoding.sound import SoundEncoder
from vx.media.packets.messages import Begin, Message, Packets, Stage, TimedPacket, Track, assign_stream, detached
from vx.media.packets.plan import Join

_ANY_TIME = (-(2**62), 2**62)


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
        self._clock = clip_clock(job)
        self._keys = recipe.key_picker(self._coding)
        self._picker: recipe.Every | None = None
        self._picker_rate: Fraction | None = None
        self._segment: Begin | None = None
        self._announced: Begin | None = None
        self._pictures: Pictures | None = None
        self._key_frames: _KeyFrames | None = None
        self._sound_choice: SoundChoice = Copy()
        self._sound: SoundEncoder | None = None
        self._sound_base_us = 0
        self._waiting: deque[tuple[int, TimedPacket, int]] = deque()
        """Sound that waits for its picture, with its clip time, and the one from which the packet's times count."""
        self._shown_until_us = -(2**62)
        """The clip's time up to which the pictures are shown that were given out."""

    def run(self, messages: Iterator[Message]) -> Iterator[Message]:
        if self._job.container == "avi":
            messages = _look_for_rotation(messages)
        for message in messages:
            if isinstance(message, Begin):
                yield from self._enter(message)
                continue
            if not message.packets or (self._passes_pictures and isinstance(self._sound_choice, Copy)):
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
            self._pictures = Pictures(
                self._job, segment, self._clock, self._keys, self._picker, self._draws, self._threads, self._warn
            )
        elif self._keys is not None:
            self._key_frames = _KeyFrames(segment.wanted_us)
        self._sound_choice = self._choose_sound(segment.audio)
        self._sound = None
        if isinstance(self._sound_choice, EncodeSound) and segment.audio is not None:
            self._inform(f"the sound is encoded: {self._sound_choice.why}")
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

    def _encoded(self, outcome: Iterator[Encoded]) -> Iterator[Message]:
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
                yield self._shown(packet, begin)

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
            packet.time_base = TICK.seconds
            yield from self._release(shown_us)
            yield self._shown(packet, begin)

    def _shown(self, packet: TimedPacket, begin: Begin) -> Packets:
        """A picture that is given out."""
        until_us = begin.origin_us + TICK.us(packet.pts + packet.duration)
        self._shown_until_us = max(self._shown_until_us, until_us)
        return Packets([packet])

    def _flush(self, *, stopping: bool = False) -> Iterator[Message]:
        if self._segment is None:
            return
        if self._sound is not None:
            self._queue_sound(self._sound.flush())
        if self._pictures is not None:
            yield from self._encoded(self._pictures.flush(stopping=stopping))
        elif self._key_frames is not None:
            yield from self._key_packets(self._key_frames.flush())
        # of what was read, the pictures may lack that their encoder still had
        yield from self._release(self._shown_until_us - 1 if stopping and not self._passes_pictures else None)
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
        elif segment is None or not message.packets:
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
