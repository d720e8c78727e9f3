"""The subtitle track of a virtual clip: samples of timed text (3GPP TS 26.245), computed like all else. Pure."""

from __future__ import annotations

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


class _Screen:
    """Takes down what `Subtitles` shows."""

    def __init__(self) -> None:
        self.texts: list[tuple[int, str]] = []
        self.until_us = 0

    def show_text(self, at_us: int, until_us: int, text: str) -> None:
        self.texts.append((at_us, text))
        self.until_us = until_us

    def end_text(self, at_us: int) -> None:
        self.until_us = at_us


def subtitles(
    caption: Caption, first_us: int, shown: Sequence[Shown], title: str, position: int
) -> tuple[TrackTables, bytes]:
    """The track and its bytes, which go to this position of the mdat's content. `shown` in the order of its begins.

    The file's clock is 0 at the wall time `first_us`.
    """
    screen = _Screen()
    track = Subtitles(caption, first_us, screen)
    until_us = 0
    for begin_us, end_us, closed_us in shown:
        if closed_us:
            track.close_gap(until_us, closed_us, _same)
        elif until_us and begin_us - until_us > plan.GAP_WORTH_A_NOTE_US:
            track.pause(until_us, begin_us, _same)
        for at_us in range(begin_us, end_us, _STEP_US):
            track.reach(at_us, _same)
        track.reach(end_us - 1, _same)
        until_us = max(until_us, end_us)
    track.finish(until_us, _same)
    return _tables(screen, title, position)


def _same(clip_us: int) -> int:
    return clip_us


def _tables(screen: _Screen, title: str, position: int) -> tuple[TrackTables, bytes]:
    times = [*(_BASE.ticks(at_us) for at_us, _ in screen.texts), _BASE.ticks(screen.until_us)]
    samples: list[bytes] = []
    deltas: list[int] = []
    for (_, text), begin, end in zip(screen.texts, times, times[1:], strict=False):
        if end > begin:
            samples.append(timed_text(text))
            deltas.append(end - begin)
    tables = TrackTables(
        handler=b"sbtl",
        name=title,
        timescale=_BASE.den,
        entry=_ENTRY,
        sizes=array("I", map(len, samples)),
        deltas=compress(deltas),
        shifts=[(len(samples), 0)],
        chunk_counts=array("I", [len(samples)]),
        chunk_offsets=array("Q", [position]),
    )
    return tables, b"".join(samples)
