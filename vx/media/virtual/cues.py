"""The subtitle track of a virtual clip: samples of timed text (3GPP TS 26.245), computed like all else. Pure."""

from __future__ import annotations

import itertools
import struct
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from vx.captions import Caption
from vx.media.files.subtitles import LONGEST_STILL_US, Subtitles, timed_text
from vx.media.packets import plan
from vx.media.packets.plan import TimeBase
from vx.mp4.boxes import make
from vx.mp4.build import TrackTables
from vx.mp4.tables import compress

_BASE = TimeBase(1, 10_000)
_STEP_US = LONGEST_STILL_US // 2


class Shown(NamedTuple):
    """From when to when pictures are shown without a hole, in microseconds of the file."""

    begin_us: int
    end_us: int
    closed_us: int = 0
    """How long nothing was recorded ahead of it where the file goes on at once."""


def _entry() -> bytes:
    """White text along the lower edge, in the middle."""
    box = bytes(8)  # as large as the picture
    style = struct.pack(">HHHBB4s", 0, 0, 1, 0, 16, b"\xff\xff\xff\xff")
    fonts = make(b"ftab", struct.pack(">HHB", 1, 1, 5), b"Arial")
    fields = struct.pack(">6xHIbb4s", 1, 0, 1, -1, bytes(4))
    return make(b"tx3g", fields, box, style, fonts)


_ENTRY = _entry()


class CueTrack:
    """The cues of one file, as the pictures come."""

    handler = b"sbtl"

    def __init__(self, caption: Caption, first_us: int, title: str) -> None:
        """The file's clock is 0 at the wall time `first_us`."""
        self.samples: list[bytes] = []
        """Those that have come so far."""
        self._title = title
        self._begins: list[int] = []
        self._until = 0
        self._shown_until_us = 0
        self._cues = Subtitles(caption, first_us, self)

    def show(self, shown: Shown) -> None:
        """The next pictures. They come in the order of their begins."""
        begin_us, end_us, closed_us = shown
        until_us = self._shown_until_us
        if closed_us:
            self._cues.close_gap(until_us, closed_us, _same)
        elif until_us and begin_us - until_us > plan.GAP_WORTH_A_NOTE_US:
            self._cues.pause(until_us, begin_us, _same)
        for at_us in range(begin_us, end_us, _STEP_US):
            self._cues.reach(at_us, _same)
        self._cues.reach(end_us - 1, _same)
        self._shown_until_us = max(until_us, end_us)

    def finish(self) -> None:
        """There are no more pictures."""
        self._cues.finish(self._shown_until_us, _same)

    def cut(self, count: int, until_us: int) -> None:
        """Leave out all but the first samples; the pictures end at this time."""
        del self.samples[count:], self._begins[count:]
        self.end_text(until_us)

    def begins(self, number: int) -> int:
        """When a sample is to be shown, in the track's ticks."""
        return self._begins[number]

    def deltas(self, begin: int = 0) -> list[int]:
        """How long the samples from this one on are shown; the last one, as far as is known."""
        times = [*self._begins[begin:], max(self._until, self._begins[-1] + 1)] if self._begins else []
        return [later - at for at, later in itertools.pairwise(times)]

    def tables(self, counts: Sequence[int], offsets: Sequence[int]) -> TrackTables:
        """The track, of which so many samples lie at each of these offsets."""
        return TrackTables(
            handler=self.handler,
            name=self._title,
            timescale=_BASE.den,
            entry=_ENTRY,
            sizes=array("I", map(len, self.samples)),
            deltas=compress(self.deltas()),
            shifts=[(len(self.samples), 0)],
            chunk_counts=array("I", counts),
            chunk_offsets=array("Q", offsets),
        )

    # ---- what `Subtitles` shows them on

    def show_text(self, at_us: int, until_us: int, text: str) -> None:
        at = _BASE.ticks(at_us)
        self._begins.append(max(at, self._begins[-1] + 1) if self._begins else at)
        self.samples.append(timed_text(text))
        self._until = _BASE.ticks(until_us)

    def end_text(self, at_us: int) -> None:
        self._until = _BASE.ticks(at_us)


def _same(clip_us: int) -> int:
    return clip_us
