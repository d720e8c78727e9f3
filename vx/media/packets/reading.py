"""Packets in: opens recordings one after the other and hands over their packets, in a thread of its own.

The reader does what only it can know early: it back-fills missing times, seeks to the key frame at or before the
start, stops behind the end, puts each segment on the wall clock, and turns what is broken into a note and a gap. What
comes out are a `Begin` and `Packets` for each segment that has something to give. The pts and dts of a packet
that was handed over count from its segment's origin.

It reads no further ahead than the batch that it hands over. `Reader.abandon` lets go of the thread, which may hang in a
read for as long as a dead disk or network mount pleases: nothing waits for it, the worker's end takes it along.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import av
import av.container
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from vx.archive.segments import Found, Recordings, Segment
from vx.media.packets import plan
from vx.media.packets.messages import Begin, Message, Packets, TimedPacket, Track, detached
from vx.media.packets.plan import Join, Placement, SetBack, TimeBase
from vx.media.packets.recording import (
    complete_stamps,
    demux,
    find_config,
    frame_rate,
    frame_ticks,
    may_seek,
    open_recording,
    promised_us,
    read_head,
    seek_before,
    sound_stream,
    time_base,
    track_key,
    translate,
    unwrapper,
    video_stream,
)

BATCH_BYTES = 1 << 20
BATCH_PACKETS = 512
_SKEW_US = 1_000_000
"""How far sound may lie behind the picture in a file's order of packets."""

_REORDER_US = 20_000_000
"""No frame is predicted from one that is shown so much later; where its time says that, the time is wrong."""


class Reader:
    """Reads one camera's recordings of some ranges of time in a thread. `for message in reader` ends with them."""

    def __init__(
        self,
        recordings: Recordings,
        ranges_us: Sequence[tuple[int, int]],
        *,
        video: int = 0,
        audio: int | None = 0,
        fixed_rate: bool = False,
        note: Callable[[str], None],
    ) -> None:
        """`ranges_us`: each begin <= t < end, rising and apart from each other. `video`, `audio`: which of the
        recordings' tracks of that kind, from 0 on; None: no sound. `fixed_rate`: frames will be shown
        one after the other, without times of their own. `note` is called, from the reader's thread, with
        what a person should know.
        """
        self._recordings = recordings
        self._ranges_us = ranges_us
        self._start_us, self._end_us = ranges_us[0]
        self._video = video
        self._audio = audio
        self._note = note
        self._tolerance_us = plan.tolerance_us(recordings.pattern.resolution_us)
        self._taken_up_us = 0 if fixed_rate else plan.TAKEN_UP_US
        self._handed: SimpleQueue[Message | None] = SimpleQueue()
        """None: there will be no more."""
        self._taken: SimpleQueue[None] = SimpleQueue()
        """The last message was dealt with."""
        self._abandoned = False
        self._failure: Exception | None = None
        self._tracks: dict[tuple[object, ...], Track] = {}
        self._previous_end_us: int | None = None
        self._between_ranges = False
        """The next recording is the first one of a further range."""
        self._previous: tuple[str, int] | None = None
        """The recording that was read last, and where it was put on the wall clock."""
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Begin to read ahead."""
        self._thread.start()

    def abandon(self) -> None:
        """Let go of the reader: iterating ends at once, whatever its thread is stuck in. Callable from any thread."""
        self._abandoned = True
        self._handed.put(None)
        self._taken.put(None)

    def __iter__(self) -> Iterator[Message]:
        """Messages as they come, once; an unexpected error of the reader's thread is raised here."""
        while (message := self._handed.get()) is not None and not self._abandoned:
            yield message
            self._taken.put(None)
        if self._failure is not None and not self._abandoned:
            raise self._failure

    def _put(self, message: Message) -> None:
        """Hand over a message, and wait until it was dealt with.

        The two threads take turns: at the same time they would compete for the interpreter, packet by packet, which
        takes a fifth more CPU time and is no faster.
        """
        self._handed.put(message)
        self._taken.get()
        if self._abandoned:
            raise _AbandonedError

    def _run(self) -> None:
        try:
            self._read_all()
        except _AbandonedError:
            pass
        except Exception as error:  # noqa: BLE001 - it is raised again in the thread that iterates
            self._failure = error
        finally:
            self._handed.put(None)

    def _read_all(self) -> None:
        for number, (start_us, end_us) in enumerate(self._ranges_us):
            self._start_us, self._end_us = start_us, end_us
            self._between_ranges = number > 0
            self._previous_end_us = None
            for found in self._recordings.find(start_us, end_us):
                for note in found.notes:
                    self._note(note)
                self._read_found(found)

    def _read_found(self, found: Found) -> None:
        segments = deque(found.segments)
        while segments:
            segment = segments.popleft()
            if self._understood(segment) or segment.start_us > self._start_us:
                continue
            # what covers the start of the range may have begun before the one that can't be read
            segments.extendleft(self._recordings.last_before(segment.start_us).segments)

    def _place(self, segment: Segment) -> Placement:
        if not self._between_ranges:
            return plan.place(segment.start_us, self._previous_end_us, self._tolerance_us, self._taken_up_us)
        self._between_ranges = False
        if self._previous is not None and self._previous[0] == segment.path:
            return Placement(Join.GAP, self._previous[1])  # its name may have been a little off
        return Placement(Join.GAP, segment.start_us)

    def _understood(self, segment: Segment) -> bool:
        """Read a segment; whether anything of it could be understood."""
        if self._abandoned:
            raise _AbandonedError
        cut: _Cut | None = None
        try:
            with open_recording(segment.path) as container:
                cut = self._open_cut(container, segment)
                cut.copy()
                if cut.set_back_us:
                    back = f"{cut.set_back_us / plan.SECOND_US:.1f} s"
                    self._note(f"{segment.path}: its clock was set back by {back}; what follows goes on from there")
                if cut.missing_us > plan.GAP_WORTH_A_NOTE_US:
                    missing = f"{cut.missing_us / plan.SECOND_US:.1f} s are missing at its end"
                    self._note(f"{segment.path}: it is truncated: {missing}")
        except _AbandonedError:
            raise
        except Exception as error:  # noqa: BLE001 - bad bytes make libav and PyAV raise anything
            self._note(f"{segment.path}: {translate(error)}; left out what can't be read")
        if cut is None:
            return False
        if cut.end_us is not None:
            self._previous_end_us = max(cut.end_us, self._previous_end_us or cut.end_us)
        return True

    def _open_cut(self, container: av.container.InputContainer, segment: Segment) -> _Cut:
        video = video_stream(container, self._video)
        sound = () if self._audio is None else sound_stream(container, self._audio)
        wrapped = unwrapper(sound[0]) if sound else None
        packets = demux(container, video, *sound, unwrapper=wrapped)
        head = read_head(packets, video)
        config = None if wrapped is None else find_config(wrapped, head.packets, packets)
        has_sound = self._audio is not None and self._audio < len(container.streams.audio)
        if has_sound and (not sound or config == b""):
            self._note(f"{segment.path}: its sound can't be understood; it is left out")
            sound = ()
        placement = self._place(segment)
        self._previous = (segment.path, placement.origin_us)
        origin = head.first_shown
        start = time_base(video).last_tick_at(self._start_us - placement.origin_us)
        if start > 0 and may_seek(container, segment.path):
            head, packets = seek_before(container, video, origin, origin + start, *sound, unwrapper=wrapped)
        begin = Begin(
            name=segment.path,
            placement=placement,
            video=self._track(video),
            audio=self._track(sound[0], config) if sound else None,
            video_index=video.index,
            wanted_us=(self._start_us, self._end_us),
        )
        duration_us = promised_us(container, video, origin)
        packets = itertools.chain(head.packets, packets)
        return _Cut(begin, video, origin, packets, start, self._end_us, duration_us, self._put)

    def _track(self, stream: Stream, extradata: bytes | None = None) -> Track:
        context = stream.codec_context
        if extradata is None:
            extradata = bytes(context.extradata or b"")
        base = time_base(stream)
        key = track_key(stream, extradata)
        track = self._tracks.get((key, base))
        if track is None:
            rate = frame_rate(stream) if isinstance(stream, VideoStream) else None
            track = self._tracks[key, base] = Track(key, detached(stream), extradata, base, rate)
        return track


class _AbandonedError(Exception):
    """Nobody wants the reader's packets any more."""


class _Cut:
    """Copies one segment's packets into the queue, from the key frame at or before the start up to the end."""

    def __init__(
        self,
        begin: Begin,
        video: VideoStream,
        first_shown: int,
        packets: Iterator[Packet[Any]],
        start: int,
        end_us: int,
        promised_us: int | None,
        put: Callable[[Message], None],
    ) -> None:
        """`start`: where the clip starts, in ticks from the segment's origin; not above 0: with the segment."""
        self._begin = begin
        self._video_index = video.index
        self._base = begin.video.time_base
        self._first_shown = first_shown
        self._packets = packets
        self._step = frame_ticks(video)
        self._start = start
        self._end_us = end_us - begin.origin_us
        self._promised_us = promised_us
        self._put = put
        self._last_end: int | None = None
        self._reached_end = False
        self.set_back_us = 0
        """By how much its clock was set back, within it."""
        self._batch: list[TimedPacket] = []
        self._batch_bytes = 0

    @property
    def end_us(self) -> int | None:
        """The wall time up to which the last frame that was read is shown; None: none was read."""
        return None if self._last_end is None else self._begin.origin_us + self._base.us(self._last_end)

    @property
    def missing_us(self) -> int:
        """How much less than its header promises the segment held; 0 where the header doesn't say."""
        if self._promised_us is None or self._reached_end or self._last_end is None:
            return 0
        return self._promised_us - self._base.us(self._last_end)

    def copy(self) -> None:
        """Hand over what lies in the range; nothing at all, not even the beginning, if that is nothing."""
        packets = self._from_start(self._counted_from_origin())
        first = next(packets, None)
        if first is None:
            return
        self._put(self._begin)
        try:
            self._until_end(first, packets)
        finally:
            self._flush()

    def _counted_from_origin(self) -> Iterator[TimedPacket]:
        """All packets with all their times, counted from the segment's origin."""
        video_index, origin, step = self._video_index, self._first_shown, self._step
        audio = self._begin.audio
        audio_origin = 0 if audio is None else self._base.rescale(origin, audio.time_base)
        last_dts: int | None = None
        last_end = -(2**62)
        set_back = SetBack(self._base, self._base if audio is None else audio.time_base)
        packet: Any  # of a packet's times mypy only knows that they may be None
        for packet in self._packets:
            if packet.stream_index != video_index:
                pts = packet.pts if packet.pts is not None else packet.dts
                if pts is not None and set_back.hear(pts):
                    packet.pts = packet.dts = pts - audio_origin + set_back.sound_shift
                    yield packet
                continue
            pts, dts, duration = packet.pts, packet.dts, packet.duration
            if pts is None or dts is None or not duration:
                complete_stamps(packet, last_dts, step)
                pts, dts, duration = packet.pts, packet.dts, packet.duration
            if last_dts is not None and dts < last_dts and set_back.see(pts - origin, last_dts - dts, last_end):
                self.set_back_us = set_back.by_us
            last_dts = dts
            moved = set_back.picture_shift - origin
            pts += moved
            packet.pts = pts
            packet.dts = dts + moved
            if pts + duration > last_end:
                self._last_end = last_end = pts + duration
            yield packet

    def _from_start(self, packets: Iterator[TimedPacket]) -> Iterator[TimedPacket]:
        """From the last key frame at or before the start; nothing where the segment ends before the start."""
        if self._start <= 0:
            return packets
        held: list[TimedPacket] = []
        for packet in packets:
            held.append(packet)
            if packet.stream_index != self._video_index:
                continue
            if packet.is_keyframe and packet.pts <= self._start:
                key_us = self._base.us(packet.pts)
                # sound that is stored before the key frame may belong to it
                held = [packet, *(p for p in held if p.stream_index != self._video_index and _us(p) >= key_us)]
            if packet.pts + packet.duration > self._start:
                return itertools.chain(held, self._without_early_sound(packets, self._base.us(held[0].pts)), packets)
        return iter(())

    def _without_early_sound(self, packets: Iterator[TimedPacket], begin_us: int) -> Iterator[TimedPacket]:
        """Up to the first sound that isn't before `begin_us`: sound is stored a little behind its picture."""
        for packet in packets:
            is_sound = packet.stream_index != self._video_index
            if not is_sound or _us(packet) >= begin_us:
                yield packet
                if is_sound:
                    return

    def _until_end(self, first: TimedPacket, packets: Iterator[TimedPacket]) -> None:
        video_index, audio = self._video_index, self._begin.audio
        end = self._base.last_tick_at(self._end_us - 1) + 1
        patience = end + self._base.ticks(_SKEW_US)
        absurd = end + self._base.ticks(_REORDER_US)
        audio_end = 0 if audio is None else audio.time_base.last_tick_at(self._end_us - 1) + 1
        audio_finished = audio is None
        cut = plan.EndCut(end)
        waiting: list[TimedPacket] = []
        add = self._add
        for packet in itertools.chain((first,), packets):
            if packet.stream_index != video_index:
                if packet.pts < audio_end:
                    add(packet)
                    continue
                audio_finished = True
            elif not cut.finished:
                if not waiting and packet.pts < end:
                    add(packet)
                    continue
                if cut.wants(packet.pts, packet.dts):
                    for needed in waiting:
                        add(needed)
                    waiting.clear()
                    add(packet)
                elif packet.pts < absurd:
                    waiting.append(packet)
            elif packet.dts > patience:
                audio_finished = True
            if cut.finished and audio_finished:
                self._reached_end = True
                return

    def _add(self, packet: TimedPacket) -> None:
        self._batch.append(packet)
        self._batch_bytes += packet.size
        if self._batch_bytes >= BATCH_BYTES or len(self._batch) >= BATCH_PACKETS:
            self._flush()

    def _flush(self) -> None:
        if self._batch:
            batch = self._batch
            self._batch, self._batch_bytes = [], 0
            self._put(Packets(batch))


def _us(packet: TimedPacket) -> int:
    base = packet.time_base
    return TimeBase(base.numerator, base.denominator).us(packet.pts)
