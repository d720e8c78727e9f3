"""The packets of one connection to a camera, each with its times on the wall clock.

`Stamped` unwraps them, fills in what they lack, and has `live.times` say when they were taken. It holds the first ones
back for a moment, up to one that has just arrived: libav reads some while it opens the stream, and from those alone
nobody could tell when they came.
"""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vx.media.live.camera import Connection, Parameters, Sound
from vx.media.live.times import Times, TrackTime, WallClock
from vx.media.packets import plan
from vx.media.packets.messages import TimedPacket, Track
from vx.media.packets.plan import TimeBase
from vx.media.packets.recording import fill_first

_SETTLE_S = 1.5
"""The longest that the first packets are held back."""
_BLOCKED_S = 0.002
"""A packet that was waited for has just arrived."""
_TELLING_FRAMES = 4
"""By which the rate is measured where the stream doesn't say it."""
_WALLCLOCK = struct.Struct("=q")
"""The begin of AVProducerReferenceTime: microseconds since 1970."""


@dataclass(frozen=True)
class _Arrived:
    packet: Any
    arrival_us: int


class Stamped:
    """Iterate for the packets, in decoding order; pts and dts count from 1970 in their track's ticks."""

    def __init__(self, connection: Connection, clock: WallClock) -> None:
        self._connection = connection
        self._clock = clock
        self.parameters = Parameters(connection)
        self.video_index = connection.video.index
        self._sound = None if connection.audio is None else Sound(connection.audio)
        self._tracks: dict[int, _StampedTrack] = {}
        self._late_us = 0
        """How much later than they arrive pictures are given out."""

    @property
    def sound(self) -> Track | None:
        """Its sound, once the first packet was given out; None: it has none, or none that can be understood."""
        return None if self._sound is None else self._sound.track

    @property
    def by_sender(self) -> bool:
        """The pictures' times are those of the camera's sender reports."""
        track = self._tracks.get(self.video_index)
        return track is not None and track.time.by_sender

    @property
    def distrusted(self) -> bool:
        """The camera says when its pictures were taken, but it doesn't know what time it is."""
        return any(track.time.distrusted for track in self._tracks.values())

    def shift(self, by_us: int) -> None:
        """Take all that follows to be so much later, for now."""
        for track in self._tracks.values():
            track.time.offset_us += by_us

    def __iter__(self) -> Iterator[TimedPacket]:
        held: list[_Arrived] = []
        begin_s = asked_s = time.monotonic()
        for packet in self._connection.packets:
            now_s = time.monotonic()
            arrival_us = self._clock.now_us()
            for unwrapped in self._unwrap(packet):
                if self._tracks:
                    yield from self._stamp(unwrapped, arrival_us)
                else:
                    held.append(_Arrived(unwrapped, arrival_us))
            if held and not self._tracks:
                has_arrived = now_s - asked_s > _BLOCKED_S
                if (has_arrived and self._is_known(held)) or now_s - begin_s > _SETTLE_S:
                    self._settle(held)
                    for each in held:
                        yield from self._stamp(each.packet, each.arrival_us)
                    held.clear()
            asked_s = time.monotonic()

    def _unwrap(self, packet: Any) -> list[Any]:
        if packet.stream_index == self.video_index:
            return [packet]
        return [] if self._sound is None else self._sound.unwrap(packet)

    def _is_known(self, held: list[_Arrived]) -> bool:
        """Whether enough has come to tell what the tracks are, and when they were taken."""
        if self._sound is not None and self._sound.track is None:
            return False
        frames = [each.packet for each in held if each.packet.stream_index == self.video_index]
        if not self._connection.has_times:
            return bool(frames)
        has_order = any(frame.pts is not None and frame.dts is not None for frame in frames)
        return len(frames) >= (1 if self.parameters.rate and has_order else _TELLING_FRAMES)

    def _settle(self, held: list[_Arrived]) -> None:
        base = self.parameters.base
        frames = [each for each in held if each.packet.stream_index == self.video_index]
        shown = [each.packet.pts for each in frames if each.packet.pts is not None]
        self.parameters.measure(base.us(_usual_step(shown)))
        rate = self.parameters.rate
        step = base.ticks(int(plan.SECOND_US / rate) if rate else plan.DEFAULT_FRAME_US)
        if self._connection.has_times:
            fill_first([each.packet for each in frames], step)
        video = _StampedTrack(base, base.us(step))
        self._late_us = base.us(step) if self._connection.is_late else 0
        offsets_us = [
            each.arrival_us - self._late_us - base.us(each.packet.dts) for each in frames if each.packet.dts is not None
        ]
        if self._connection.has_times:
            video.time.offset_us = min(offsets_us, default=0)
        self._tracks[self.video_index] = video
        if self._sound is not None and self._connection.audio is not None:
            sound = self._tracks[self._connection.audio.index] = _StampedTrack(self._sound.base, 0)
            sound.time.offset_us = video.time.offset_us

    def _stamp(self, packet: Any, arrival_us: int) -> Iterator[TimedPacket]:
        track = self._tracks.get(packet.stream_index)
        if track is None:
            return
        if packet.stream_index == self.video_index:
            arrival_us -= self._late_us
            if not self._connection.has_times:
                packet.pts = packet.dts = track.base.ticks(arrival_us)
                packet.duration = 0
        before_us = track.time.offset_us
        track.stamp(packet, arrival_us, _sender_us(packet))
        if packet.stream_index == self.video_index and not track.time.by_sender:
            for other in self._tracks.values():  # they share the delay that this one has measured
                if other is not track and not other.time.by_sender:
                    other.time.offset_us += track.time.offset_us - before_us - track.time.jumped_us
        yield packet


class _StampedTrack:
    """One track: from its ticks to those since 1970."""

    def __init__(self, base: TimeBase, step_us: int) -> None:
        self.base = base
        self.time = TrackTime(step_us)
        self._fraction = base.seconds
        self._offset_us: int | None = None
        self._shift = 0

    def stamp(self, packet: Any, arrival_us: int, sender_us: int | None) -> None:
        """Set all times of a packet."""
        base, pts, dts = self.base, packet.pts, packet.dts
        stamp = self.time.stamp(
            Times(
                pts=None if pts is None else base.us(pts),
                dts=None if dts is None else base.us(dts),
                duration=base.us(packet.duration or 0),
                arrival=arrival_us,
                sender=sender_us,
            )
        )
        if self.time.offset_us != self._offset_us:
            self._offset_us = self.time.offset_us
            self._shift = base.ticks(self._offset_us)
        # in ticks where there are any: microseconds would make an even stream uneven
        packet.pts = base.ticks(stamp.pts) if pts is None else pts + self._shift
        packet.dts = min(packet.pts, base.ticks(stamp.dts) if dts is None else dts + self._shift)
        packet.duration = packet.duration or base.ticks(stamp.duration)
        packet.time_base = self._fraction


def _sender_us(packet: Any) -> int | None:
    if not packet.has_sidedata("prft"):
        return None
    told: int = _WALLCLOCK.unpack_from(bytes(packet.get_sidedata("prft")))[0]
    return told


def _usual_step(times: list[int]) -> int:
    """The usual distance of times that follow each other; 0 where there are too few of them."""
    apart = sorted(after - before for before, after in itertools.pairwise(sorted(times)) if after > before)
    return apart[len(apart) // 2] if len(apart) >= _TELLING_FRAMES - 1 else 0
