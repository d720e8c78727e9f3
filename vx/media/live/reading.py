"""Packets of a live camera: connects, again and again, and hands them over as the archive's reader does.

A thread stays with the camera: it connects, puts each packet on the wall clock (`live.stamping`) and into a queue,
and connects anew, after pauses that grow, when the camera is lost. What comes out are messages (`packets.messages`): a
`Begin` for each connection, from its first key frame on, and where the form of the picture changes or nothing came for
a while, and `Packets`. Unlike the archive's, this source never makes anybody wait: where it has nothing it gives out
`Packets` without any, which stages pass on, and whoever pulls comes back later.

Nothing is lost while the writer is busy, up to `_LONGEST_QUEUE` bytes; then the queue is given up to the next key
frame, with a note.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from vx.jobs import Live, Source
from vx.media.live.camera import CameraError, Connection, UnwantedError, open_camera
from vx.media.live.stamping import Stamped
from vx.media.live.times import WallClock
from vx.media.packets import plan
from vx.media.packets.messages import Begin, Message, Packets, TimedPacket
from vx.media.packets.plan import SECOND_US, Join, Placement

_FIRST_PAUSE_S = 0.5
_LONGEST_QUEUE = 32 << 20
_LATE_US = SECOND_US
"""So long after the end a camera may still deliver what was taken before it."""
_EARLY_PACKETS = 50
_HOLE_US = plan.GAP_WORTH_A_NOTE_US
_STEP_BACK_US = 2 * SECOND_US
"""A new connection may seem to begin before the old one ended by so much: their delays were guessed."""


class LiveReader:
    """One camera. `for message in reader` ends with `end_us`, or once the reader is abandoned; see the module."""

    def __init__(
        self,
        source: Source,
        live: Live,
        clock: WallClock,
        *,
        sound: bool = True,
        note: Callable[[str], None],
    ) -> None:
        """`note` is called, from the reader's thread, with what a person should know."""
        assert source.feed is not None, "the options were checked"
        self._feed = source.feed
        self._video = source.video
        self._audio = source.audio if sound else None
        self._live = live
        self._clock = clock
        self._note = note
        self.first_us: int | None = None
        """When its first key frame was taken; None: none has come yet."""
        self.trouble = ""
        """Why nothing comes from it; empty while something does, or it isn't known yet."""
        self.wanted_us = (-(2**62), 2**62)
        """Only this is handed over, begin <= t < end. Set it before the first message is taken."""
        self._began_s = 0.0
        self._changed = threading.Condition()
        self._abandoned = False
        self._queue: list[Begin | TimedPacket] = []
        self._queued = 0
        self._skips = False
        """The queue is full: what comes up to the next key frame is left out."""
        self._segment: Begin | None = None
        """What is being handed over; None: a key frame has to come first."""
        self._origins: dict[bool, int] = {}
        """From which the times of its pictures (True) and its sound count, in their ticks since 1970."""
        self._early: deque[TimedPacket] = deque(maxlen=_EARLY_PACKETS)
        """Sound that came before the key frame: some of it may belong to it."""
        self._until_us = 0
        """When the last frame that was read ends."""
        self._shown_us = 0
        self._apart_us = 0
        """How long after the one before it the last frame came: some cameras have one in many seconds."""
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)

    @property
    def failure(self) -> str:
        """Why nothing at all came from it."""
        waited_s = min(time.monotonic() - self._began_s, self._live.first_frame_timeout_s)
        return self.trouble or f"no picture came within {waited_s:.3g} s"

    def start(self) -> None:
        """Begin to connect."""
        self._began_s = time.monotonic()
        self._thread.start()

    def abandon(self) -> None:
        """Let go of the camera: iterating ends with what has arrived. Callable from any thread."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    # ---- the side that takes

    def __iter__(self) -> Iterator[Message]:
        """Messages; never blocks."""
        ends = _Ends(self.wanted_us[1])
        while True:
            with self._changed:
                items, self._queue, self._queued = self._queue, [], 0
                abandoned = self._abandoned
            for message in _messages(items):
                if isinstance(message, Begin):
                    segment = dataclasses.replace(message, wanted_us=self.wanted_us)
                    ends.enter(segment)
                    yield segment
                elif kept := ends.cut(message.packets):
                    yield Packets(kept)
            if abandoned or ends.reached or self._clock.now_us() > self.wanted_us[1] + _LATE_US:
                self.abandon()
                return
            yield Packets([])

    # ---- the thread's side

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        told = ""
        while not self._abandoned:
            try:
                with open_camera(
                    self._feed,
                    self._video,
                    self._audio,
                    open_s=self._live.first_frame_timeout_s,
                    stall_s=self._live.stall_timeout_s,
                    wait=self._wait,
                ) as connection:
                    self._receive(connection)
            except UnwantedError:
                return
            except CameraError as error:
                text = str(error)
            except Exception as error:  # noqa: BLE001 - a thread's end would be seen by nobody
                text = f"it can't be read ({type(error).__name__})"
            if self._abandoned:
                return
            if self._segment is not None:
                pause_s, told = _FIRST_PAUSE_S, ""  # it had worked
            self._segment, self.trouble = None, text
            if text != told:
                told = text
                self._note(f"{text}; trying again")
            if self._wait(pause_s):
                return
            pause_s = min(2 * pause_s, self._live.longest_pause_s)

    def _wait(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._abandoned, timeout=seconds)

    def _receive(self, connection: Connection) -> None:
        """Hand over what comes until the connection ends, with CameraError or UnwantedError."""
        stamped = Stamped(connection, self._clock)
        self._segment = None
        self._early.clear()
        distrusted = False
        for packet in stamped:
            if self._abandoned:
                raise UnwantedError
            self._hand_over(stamped, packet)
            if stamped.distrusted and not distrusted:
                distrusted = True
                self._note("its clock is not set: its times are those at which its pictures arrive")

    def _hand_over(self, stamped: Stamped, packet: TimedPacket) -> None:
        is_picture = packet.stream_index == stamped.video_index
        is_key = is_picture and packet.is_keyframe
        if is_key and (stamped.parameters.see(packet) or self._has_room_again()):
            self._segment = None
        at_us = stamped.parameters.base.us(packet.pts) if is_picture else 0
        if self._segment is None:
            if not is_key:
                if not is_picture:
                    self._early.append(packet)
                return
            self._begin(stamped, packet, at_us)
        elif is_picture and at_us - self._until_us > max(_HOLE_US, 2 * self._apart_us):
            self._begin(stamped, packet, at_us, Join.CONTIGUOUS)  # but for the time, it goes on where it was
        if self._skips:
            return
        self._put_placed(packet, is_picture)
        if is_picture:
            self._apart_us, self._shown_us = at_us - self._shown_us, at_us
            self._until_us = max(self._until_us, at_us + stamped.parameters.base.us(packet.duration))

    def _begin(self, stamped: Stamped, packet: TimedPacket, at_us: int, join: Join | None = None) -> None:
        until_us = None if self.first_us is None else self._until_us
        base = stamped.parameters.base
        if until_us is not None and until_us - _STEP_BACK_US < at_us < until_us:
            stamped.shift(until_us - at_us)
            by = base.ticks(until_us - at_us)
            packet.pts, packet.dts, at_us = packet.pts + by, packet.dts + by, until_us
        if join is None:
            join = plan.place(at_us, until_us, plan.JITTER_US).join
        sound = stamped.sound
        self._origins = {True: packet.pts, False: 0 if sound is None else sound.time_base.ticks(base.us(packet.pts))}
        self._segment = Begin(
            name="live",
            placement=Placement(join, base.us(packet.pts), max(0, at_us - (until_us or at_us))),
            video=stamped.parameters.track,
            audio=sound,
            video_index=stamped.video_index,
        )
        if self.first_us is None:
            self.first_us = at_us
            self._shown_us = at_us
        self._until_us = at_us
        self.trouble = ""
        self._put(self._segment, 0)
        for early in self._early if sound is not None else ():
            if early.pts >= self._origins[False]:
                self._put_placed(early, is_picture=False)
        self._early.clear()

    def _put_placed(self, packet: TimedPacket, is_picture: bool) -> None:
        origin = self._origins[is_picture]
        packet.pts -= origin
        packet.dts -= origin
        self._put(packet, packet.size)

    def _has_room_again(self) -> bool:
        if not self._skips or self._queued > _LONGEST_QUEUE // 2:
            return False
        self._skips = False
        return True

    def _put(self, item: Begin | TimedPacket, size: int) -> None:
        with self._changed:
            if self._queued + size <= _LONGEST_QUEUE:
                self._queue.append(item)
                self._queued += size
                return
        self._skips = True
        self._note("it is written more slowly than it comes; left out is what comes up to the next key frame")


class _Ends:
    """Cuts off what is not wanted any more, but for what earlier frames are predicted from."""

    def __init__(self, end_us: int) -> None:
        self._end_us = end_us
        self._segment: Begin | None = None
        self._waiting: list[TimedPacket] = []
        self._cut = plan.EndCut(0)
        self._sound_end = 0
        self.reached = False

    def enter(self, segment: Begin) -> None:
        self._segment = segment
        self._waiting.clear()
        end_us = self._end_us - segment.origin_us
        self._cut = plan.EndCut(segment.video.time_base.first_tick_at(end_us))
        self._sound_end = 0 if segment.audio is None else segment.audio.time_base.first_tick_at(end_us)

    def cut(self, packets: list[TimedPacket]) -> list[TimedPacket]:
        assert self._segment is not None, "packets come after a Begin"
        kept: list[TimedPacket] = []
        for packet in packets:
            if packet.stream_index != self._segment.video_index:
                if packet.pts < self._sound_end:
                    kept.append(packet)
            elif self._cut.wants(packet.pts, packet.dts):
                kept += self._waiting
                self._waiting.clear()
                kept.append(packet)
            else:
                self._waiting.append(packet)
        self.reached = self.reached or self._cut.finished
        return kept


def _messages(items: list[Begin | TimedPacket]) -> Iterator[Message]:
    packets: list[TimedPacket] = []
    for item in items:
        if not isinstance(item, Begin):
            packets.append(item)
            continue
        if packets:
            yield Packets(packets)
            packets = []
        yield item
    if packets:
        yield Packets(packets)
