"""When a live camera's frames were taken, from what is known of that. Pure: integers in, integers out.

A packet has up to three times. Its own (`media`) counts from anywhere, in the camera's ticks; it is even, but may be
missing, and may jump. The *sender's* is on the wall clock of the camera, by its last RTCP sender report. The *arrival*
is on ours, late by the network's delay. What comes out is on the wall clock, and as even as the camera's own:

    wall = media + offset

The offset is the sender's where there is one and it isn't absurd, else that of the packet with the least delay. When
what is known of it changes (the first report, a clock that drifts), it follows slowly, so that no frame is shown for
noticeably longer or shorter. When a camera's own times jump, the offset takes the jump back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from vx.media.packets.plan import DEFAULT_FRAME_US, SECOND_US

TRUSTED_US = 10 * SECOND_US
"""A sender whose clock is further from ours doesn't know what time it is."""
_JUMP_BACK_US = 500_000
"""A decoding time that falls by more than this has jumped; by less it is jitter."""
_JUMP_AHEAD_US = 3 * SECOND_US
"""One that rises by so much more than the time that went by has jumped."""
_SLEW = 20
"""The offset changes by at most this fraction (1 / 20) of the time that goes by."""
_NEAR_US = 2_000
_OFF_US = {True: 5_000, False: 100_000}
"""How far the offset may be off before it is changed: by a sender's report, by arrivals."""
_WINDOW_US = 10 * SECOND_US
"""Within this time some packet arrives without having been held up."""


@dataclass(frozen=True)
class Times:
    """One packet's times, in microseconds. None: unknown."""

    pts: int | None
    dts: int | None
    duration: int
    arrival: int
    """Of the wall clock, when it was read."""
    sender: int | None = None
    """Of the wall clock, when it was taken by its sender's clock."""


@dataclass(frozen=True)
class Stamp:
    """Where a packet goes on the wall clock."""

    pts: int
    dts: int
    duration: int


class WallClock:
    """The time of day, by a clock that nobody sets while the export runs."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_us(self) -> int:
        return (time.monotonic_ns() + self._offset_ns) // 1000


class TrackTime:
    """One track's way from its own times to the wall clock, for one connection."""

    def __init__(self, step_us: int, offset_us: int = 0) -> None:
        """`step_us`: what a packet lasts where nothing says it. `offset_us`: wall minus media, as far as is known."""
        self.offset_us = offset_us
        self.by_sender = False
        """The offset follows the sender's reports."""
        self.distrusted = False
        """There are reports, but the sender's clock is far off."""
        self.jumped_us = 0
        """How much of the last change of the offset took back a jump."""
        self._target_us: int | None = None
        self._step_us = step_us or DEFAULT_FRAME_US
        self._media_us: int | None = None
        self._arrival_us = 0
        self._least_late_us: int | None = None
        self._window_end_us: int | None = None

    def stamp(self, times: Times) -> Stamp:
        """The next packet of the track, in decoding order."""
        media_us = times.dts if times.dts is not None else times.pts
        if media_us is None:
            media_us = times.arrival - self.offset_us if self._media_us is None else self._media_us + self._step_us
        passed_us = 0 if self._media_us is None else media_us - self._media_us
        self._follow_jump(media_us, passed_us, times.arrival)
        if times.sender is not None:
            self._hear_sender(media_us, times)
        if not self.by_sender:
            self._hear_arrival(media_us, times.arrival)
        if not self.jumped_us:
            self._slew(passed_us)
        if times.duration:
            self._step_us = times.duration
        elif 0 < passed_us <= SECOND_US:
            self._step_us = passed_us
        self._media_us, self._arrival_us = media_us, times.arrival
        dts = media_us + self.offset_us
        pts = dts if times.pts is None else times.pts + self.offset_us
        return Stamp(max(pts, dts), dts, times.duration or self._step_us)

    def _follow_jump(self, media_us: int, passed_us: int, arrival_us: int) -> None:
        self.jumped_us = 0
        if self._media_us is None:
            return
        arrived_us = max(arrival_us - self._arrival_us, 0)
        is_ahead = passed_us > arrived_us + _JUMP_AHEAD_US and media_us + self.offset_us > arrival_us + SECOND_US
        if passed_us < -_JUMP_BACK_US or is_ahead:
            self.jumped_us = max(self._step_us, arrived_us) - passed_us
            self.offset_us += self.jumped_us
            self._target_us = self._least_late_us = self._window_end_us = None

    def _hear_sender(self, media_us: int, times: Times) -> None:
        assert times.sender is not None
        taken_us = times.sender if times.pts is None else times.sender - (times.pts - media_us)
        self.by_sender = abs(taken_us - times.arrival) <= TRUSTED_US
        self.distrusted = not self.by_sender
        if self.by_sender:
            self._aim(taken_us - media_us)

    def _hear_arrival(self, media_us: int, arrival_us: int) -> None:
        late_us = arrival_us - (media_us + self.offset_us)
        if self._window_end_us is None:
            self._window_end_us = arrival_us + _WINDOW_US
        self._least_late_us = late_us if self._least_late_us is None else min(self._least_late_us, late_us)
        if arrival_us >= self._window_end_us or late_us < -_OFF_US[False]:
            self._aim(self.offset_us + self._least_late_us)
            self._least_late_us = self._window_end_us = None

    def _aim(self, offset_us: int) -> None:
        if self._target_us is not None or abs(offset_us - self.offset_us) > _OFF_US[self.by_sender]:
            self._target_us = offset_us

    def _slew(self, passed_us: int) -> None:
        if self._target_us is None:
            return
        most_us = max(passed_us, 0) // _SLEW
        self.offset_us += min(max(self._target_us - self.offset_us, -most_us), most_us)
        if abs(self._target_us - self.offset_us) <= _NEAR_US:
            self._target_us = None
