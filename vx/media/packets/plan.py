"""The arithmetic of a copied clip, without any I/O: whole ticks and microseconds in, decisions out.

Three clocks meet here. A *segment's clock* counts in the ticks of its stream; the first video frame shown is at the
segment's *origin*. The *wall clock* is microseconds since 1970 (`_us`). A *file's clock* counts in the ticks of its own
tracks and is 0 at the file's first video frame; it follows the wall clock, through gaps too.

Origins come from file names, and recorders round those, and their clocks drift against the camera's. So a segment
that begins within `tolerance_us` of where the one before it ended goes on exactly there, without a hole or an
overlap; the deviation is always measured against the name, so it can't add up. Beyond the tolerance a late segment is
a gap, and an early one (the recorder's clock was set back) can't share a file with the frames whose times it repeats.

A camera whose clock is a little fast gets ahead of the names bit by bit. Before that comes to the tolerance, each
segment begins `TAKEN_UP_US` before the end of the one ahead of it, whose last frame is shown for so much less: that
makes up for 133 millionths with segments of a minute, more than clocks are off, and nobody sees or hears it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

JITTER_US = 250_000
TAKEN_UP_US = 8_000
"""Less than half as long as a frame is shown, at up to 60 frames a second."""
GAP_WORTH_A_NOTE_US = 1_000_000
_SET_BACK_US = 500_000
"""Times that are wrong by less are put right one by one."""
DEFAULT_FRAME_US = 40_000
LONGEST_STEP = 1 << 31
"""Ticks from one sample of an MP4 to the next one; libav reads a negative number beyond that."""
_STEP_MARGIN_US = 20_000_000
SECOND_US = 1_000_000


@dataclass(frozen=True)
class TimeBase:
    """A tick is `num / den` seconds."""

    num: int
    den: int

    @property
    def seconds(self) -> Fraction:
        """A tick, as libav wants it."""
        return Fraction(self.num, self.den)

    def us(self, ticks: int) -> int:
        """Ticks in microseconds, to the nearest."""
        return _divide(ticks * self.num * SECOND_US, self.den)

    def ticks(self, us: int) -> int:
        """Microseconds in ticks, to the nearest."""
        return _divide(us * self.den, self.num * SECOND_US)

    def last_tick_at(self, us: int) -> int:
        """The last tick that is, in whole microseconds as reported, at or before `us`."""
        return -(-(2 * us + 1) * self.den // (2 * self.num * SECOND_US)) - 1

    def first_tick_at(self, us: int) -> int:
        """The first tick that is, in whole microseconds as reported, at or after `us`."""
        return self.last_tick_at(us - 1) + 1

    def rescale(self, ticks: int, to: TimeBase) -> int:
        """The same time in the ticks of another time base, to the nearest."""
        if self == to:
            return ticks
        return _divide(ticks * self.num * to.den, self.den * to.num)


def _divide(number: int, by: int) -> int:
    return (2 * number + by) // (2 * by)


class Join(enum.Enum):
    """How a segment goes on from the one before it."""

    FIRST = enum.auto()
    CONTIGUOUS = enum.auto()
    GAP = enum.auto()
    OVERLAP = enum.auto()


@dataclass(frozen=True)
class Placement:
    """Where a segment lies on the wall clock. `gap_us` is how long nothing was recorded before it."""

    join: Join
    origin_us: int
    gap_us: int = 0


def tolerance_us(resolution_us: int) -> int:
    """How far a segment's name may be off before it counts. Names in whole seconds hide almost a second besides.

    A recorder that begins files at full seconds begins them a little early or late: ...:10.004, ...:19.996.
    """
    return JITTER_US + resolution_us - 1


def place(named_us: int, previous_end_us: int | None, tolerance_us: int, taken_up_us: int = TAKEN_UP_US) -> Placement:
    """Put a segment on the wall clock, given its name's time and where the one before it ended (None: the first).

    `taken_up_us`: 0 where frames are shown at a fixed rate.
    """
    if previous_end_us is None:
        return Placement(Join.FIRST, named_us)
    late_us = named_us - previous_end_us
    if abs(late_us) < tolerance_us:
        is_ahead = late_us < JITTER_US // 2 - tolerance_us
        return Placement(Join.CONTIGUOUS, previous_end_us - taken_up_us if is_ahead else previous_end_us)
    if late_us > 0:
        return Placement(Join.GAP, named_us, late_us)
    return Placement(Join.OVERLAP, named_us)


def is_one_step(gap_us: int, bases: Iterable[TimeBase]) -> bool:
    """Whether the last samples ahead of such a gap can last through it, in an MP4's tracks of these time bases."""
    return all(base.ticks(gap_us + _STEP_MARGIN_US) < LONGEST_STEP for base in bases)


@dataclass
class Stamps:
    """The times of one video packet, in ticks of its stream. None: the file doesn't say."""

    pts: int | None
    dts: int | None
    duration: int = 0


@dataclass(frozen=True)
class Filled:
    """The same with nothing missing; dts ≤ pts."""

    pts: int
    dts: int
    duration: int


def fill(stamps: Sequence[Stamps], after_dts: int | None, following_dts: int | None, frame: int) -> list[Filled]:
    """Give a run of packets, in decoding order, the times that their file left out.

    Matroska and RTSP begin with packets, the key frame among them, that have no dts (or no pts); dropping them would
    lose the clip's start. `after_dts` is the dts of the packet before the run, `following_dts` that of the packet
    behind it (None where there is none); `frame` is one frame's duration in ticks. Decoding times come out strictly
    rising unless the neighbours leave no room.
    """
    step = max(frame, 1)
    count = len(stamps)
    pts = [s.pts if s.pts is not None else s.dts for s in stamps]
    for i in range(count - 1, -1, -1):
        if pts[i] is None:
            nearest = pts[i + 1] if i + 1 < count else following_dts
            pts[i] = nearest - step if nearest is not None else None
    previous = after_dts
    for i in range(count):
        if pts[i] is None:
            pts[i] = previous + step if previous is not None else 0
        previous = pts[i]
    shown = [p for p in pts if p is not None]
    dts: list[int] = [0] * count
    if following_dts is not None:
        next_dts = following_dts
        for i in range(count - 1, -1, -1):
            known = stamps[i].dts
            next_dts = dts[i] = min(known if known is not None else next_dts - step, shown[i])
    else:
        in_order = sorted(shown)
        delay = max((in_order[i] - shown[i] for i in range(count)), default=0)
        for i in range(count):
            known = stamps[i].dts
            dts[i] = min(known if known is not None else in_order[i] - delay, shown[i])
    if after_dts is not None:
        for i in range(count):
            dts[i] = min(max(dts[i], after_dts + 1 + i), max(shown[i], after_dts + 1 + i))
    return [Filled(pts=p, dts=d, duration=s.duration or step) for p, d, s in zip(shown, dts, stamps, strict=True)]


def first_shown(pts: Iterable[int]) -> int:
    """The pts of the frame that is shown first: of the first packets up to one that is shown after the first of them.

    A recorder that cuts at an open GOP leaves pictures behind the key frame that are shown before it.
    """
    first: int | None = None
    earliest: int | None = None
    for value in pts:
        if first is None or earliest is None:
            first = earliest = value
        elif value > first:
            break
        else:
            earliest = min(earliest, value)
    if earliest is None:
        raise ValueError("no packet")
    return earliest


class SetBack:
    """A clock that is set back within a recording (a transport stream may do that): what follows goes on from there.

    Times are in the ticks of each track. Sound is stored a little before or behind its picture, and so is the jump in
    its times: it is moved by as much as the picture is.
    """

    def __init__(self, picture: TimeBase, sound: TimeBase) -> None:
        self._picture, self._sound = picture, sound
        self._far, self._far_sound = picture.ticks(_SET_BACK_US), sound.ticks(_SET_BACK_US)
        self.picture_shift = self.sound_shift = 0
        """What is added to the times of each."""
        self.by_us = 0
        """How far it was set back, in all."""
        self._last_heard = -(1 << 62)
        self._due = 0
        """What is to be added to the sound's shift once its times jump, too."""
        self._waits_until: int | None = None
        """The sound's times have jumped, and the picture's haven't yet: where the sound had come to."""

    def see(self, pts: int, back: int, shown_until: int) -> bool:
        """A picture's dts is `back` behind the one before it, which was shown until then; whether the clock was set
        back. `pts` and `shown_until` count from the same time.
        """
        if back < self._far:
            return False
        further = shown_until - (pts + self.picture_shift)
        self.picture_shift += further
        self.by_us += self._picture.us(back)
        self._due += self._picture.rescale(further, self._sound)
        if self._waits_until is not None:
            self._move_sound()
        return True

    def hear(self, pts: int) -> bool:
        """Whether sound of this time can be placed."""
        if pts < self._last_heard - self._far_sound:
            if self._due:
                self._move_sound()
            elif self._waits_until is None:
                self._waits_until = self._last_heard
        if self._waits_until is not None and pts > self._waits_until:
            self._waits_until = None  # the picture's clock wasn't set back
        self._last_heard = pts
        return self._waits_until is None

    def _move_sound(self) -> None:
        self.sound_shift += self._due
        self._due, self._waits_until = 0, None


class EndCut:
    """Where a copy stops: no frame at or after `end` is kept, except those that an earlier frame needs.

    A P-frame shown at or after `end` may be what B-frames before `end` are predicted from, and comes before them.
    Packets in question wait until a later packet shows that they are needed.
    """

    def __init__(self, end: int) -> None:
        self._end = end
        self.finished = False
        """Nothing that follows can be shown before the end."""

    def wants(self, pts: int, dts: int) -> bool:
        """Whether the next packet is kept, and all that wait with it; else it waits. Once `finished`, all that wait are
        dropped.
        """
        if dts >= self._end:
            self.finished = True
            return False
        return pts < self._end


class TrackClock:
    """One track's times in a file: from a segment's ticks to the track's, decoding times strictly rising."""

    def __init__(self, source: TimeBase, track: TimeBase, offset: int) -> None:
        """`offset`: what is added to a rescaled time of the segment, in the track's ticks."""
        self.track = track
        self.last_dts = -(1 << 62)
        self.move(source, offset)

    def move(self, source: TimeBase, offset: int) -> None:
        """The next segment begins."""
        self.offset = offset
        self.same = source == self.track
        """The segment's ticks are the track's."""
        self._times = 2 * source.num * self.track.den
        self._by = source.den * self.track.num

    def ticks(self, ticks: int) -> int:
        """A time, or a length, of the segment in the track's ticks, to the nearest."""
        return ticks if self.same else (ticks * self._times + self._by) // (2 * self._by)

    def times(self, pts: int, dts: int) -> tuple[int, int]:
        """(pts, dts) in the file. A dts that wouldn't rise is moved up, and its pts with it if it must be."""
        if self.same:
            pts, dts = pts + self.offset, dts + self.offset
        else:
            pts, dts = self.ticks(pts) + self.offset, self.ticks(dts) + self.offset
        if dts <= self.last_dts:
            dts = self.last_dts + 1
        if pts < dts:
            pts = dts
        self.last_dts = dts
        return pts, dts


def audio_pts(pts: int, duration: int, sounding_until: int) -> int | None:
    """Where an audio packet goes in its track, or None to leave it out; all in the track's ticks.

    Segments overlap by a packet or two of sound (the encoder's priming, a recorder that writes the same packet at both
    sides of a cut). One of which half or more has been heard is a double; one that is early by less follows at once.
    """
    if pts >= sounding_until:
        return pts
    if 2 * (sounding_until - pts) >= max(duration, 1):
        return None
    return sounding_until


@dataclass(frozen=True)
class Overhead:
    """The most that a container can add to the payload, in bytes."""

    fixed: int
    packet: int
    group: int
    """For each run of packets under one header: it ends with the group of pictures, or after `group_us`."""
    group_us: int
    second: int = 0
    """For each second: what a subtitle takes, with its text."""


@dataclass
class Budget:
    """How much of `max_file_size` a file has used, counting the container's worst overhead. limit 0: no limit."""

    limit: int
    overhead: Overhead
    used: int = 0

    def cost(self, payload: int, packets: int, lasts_us: int) -> int:
        """What a group of pictures with its sound takes."""
        lasts_us = max(0, lasts_us)
        runs = 2 + lasts_us // self.overhead.group_us
        seconds = 3 + lasts_us // SECOND_US
        worst = self.overhead
        return payload + packets * worst.packet + runs * worst.group + seconds * worst.second

    def fits(self, cost: int, reserve: int = 0) -> bool:
        """Whether it still has room."""
        return not self.limit or self.overhead.fixed + self.used + cost + reserve <= self.limit

    def take(self, cost: int) -> None:
        """Account for what is written."""
        self.used += cost


class GroupStart:
    """Finds the packets at which a file may be split: key frames that nothing behind them looks back past.

    After an open GOP's key frame come pictures that are shown before it and need the GOP before. Whether a key frame
    has such pictures is known when the next packet of the video comes.
    """

    def __init__(self) -> None:
        self._key_pts: int | None = None

    def key(self, pts: int) -> None:
        """A key frame came."""
        self._key_pts = pts

    def closed(self, pts: int) -> bool | None:
        """The next packet's verdict on that key frame: True, it is a place to split; None: no key frame was asked."""
        if self._key_pts is None:
            return None
        verdict = pts > self._key_pts
        self._key_pts = None
        return verdict
