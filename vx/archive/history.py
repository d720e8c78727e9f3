"""When a camera was recorded: from the names of its recordings and when each was last written to. Opens none of them.

A recording lasts until it was last written to, but no longer than until the next one begins. Where the file's time says
nothing (it was copied here later, or nobody looked), it lasts as long as its neighbours usually do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low

from vx.archive.segments import Recordings, Segment

Interval = tuple[int, int]
"""Begin and end (exclusive) in microseconds since 1970-01-01 UTC."""

LONGEST_US = 86_400_000_000
"""A recording that seems to last longer was copied later: when it was written to says nothing about its end."""
_JITTER_US = 2_000_000
"""A recorder's last bytes come to the disk this much before the next recording begins, or after: that is no gap."""
_UNKNOWN_US = 1_000_000
"""How long a recording lasts of which nothing else is known than that it is there."""
_UNSTEADY = 1.5
"""Recorders end a file at a key frame: one this many times longer than usual still reaches to the next one."""


@dataclass(frozen=True)
class History:
    """Recorded intervals, rising and apart from each other; `notes` say what could not be looked at."""

    intervals: tuple[Interval, ...]
    notes: tuple[str, ...] = ()


def recorded(recordings: Recordings, start_us: int, end_us: int, *, exact: bool = True) -> History:
    """What was recorded in start <= t < end. Blocks on the disk of the recordings.

    Not `exact`: from the names alone, without a look at each file.
    """
    found = recordings.covering(start_us, end_us)
    starts: list[int] = []
    written: list[int | None] = []
    for segment in found.segments:
        last_us = _written_us(segment) if exact else None
        if exact and last_us is None:
            continue
        starts.append(segment.start_us)
        written.append(last_us)
    spans = zip(starts, _ends(starts, written), strict=True)
    return History(tuple(_within(merge(spans), start_us, end_us)), found.notes)


def merge(intervals: Iterable[Interval], min_gap_us: int = 0) -> list[Interval]:
    """Rising intervals, joined where no more than `min_gap_us` lies between them. They may come in any order."""
    merged: list[Interval] = []
    for begin, end in sorted(intervals):
        if merged and begin - merged[-1][1] <= min_gap_us:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _within(intervals: Sequence[Interval], start_us: int, end_us: int) -> list[Interval]:
    cut = ((max(begin, start_us), min(end, end_us)) for begin, end in intervals)
    return [(begin, end) for begin, end in cut if begin < end]


def _written_us(segment: Segment) -> int | None:
    """When the recording was last written to; None where there is nothing in it, or it is gone by now."""
    try:
        status = os.stat(segment.path)  # noqa: PTH116 - a Path for each of thousands takes longer than the disk
    except OSError:
        return None
    return status.st_mtime_ns // 1000 if status.st_size else None


def _ends(starts: Sequence[int], written: Sequence[int | None]) -> list[int]:
    """When each of the recordings ends that begin at `starts`, which rise."""
    spacing = [later - start for start, later in pairwise(starts) if later > start]
    usual = median_low(spacing) if spacing else _UNKNOWN_US
    following = [*starts, None][1:]
    return [_end(*of, usual) for of in zip(starts, written, following, strict=True)]


def _end(start_us: int, written_us: int | None, next_us: int | None, usual_us: int) -> int:
    if written_us is not None and start_us < written_us <= start_us + LONGEST_US:
        if next_us is None or written_us < next_us - _JITTER_US:
            return written_us
        if written_us <= next_us + _JITTER_US:
            return next_us
    if next_us is not None and next_us - start_us <= usual_us * _UNSTEADY:
        return next_us
    return start_us + usual_us
