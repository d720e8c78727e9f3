"""When a camera was recorded: from the names of its recordings and when each was last written to. Opens none of them.

A recording lasts until it was last written to, but no longer than until the next one begins. Where the file's time says
nothing (it was copied here later, or nobody looked), it lasts as long as its neighbours usually do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from vx import spans
from vx.archive.segments import Recordings, Segment
from vx.spans import Span

LONGEST_US = 86_400_000_000
"""A recording that seems to last longer was copied later: when it was written to says nothing about its end."""
_JITTER_US = 2_000_000
"""A recorder's last bytes come to the disk this much before the next recording begins, or after: that is no gap."""
_UNKNOWN_US = 1_000_000
"""How long a recording lasts of which nothing else is known than that it is there."""
_LOOK_AHEAD_S = (300, 3600, 86_400)
_UNSTEADY = 1.5
"""Recorders end a file at a key frame: one this many times longer than usual still reaches to the next one."""


@dataclass(frozen=True)
class History:
    """Recorded intervals, rising and apart from each other; `notes` say what could not be looked at."""

    intervals: tuple[Span, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one recording covers, and its bytes; 0 where nobody looked at it."""

    begin_us: int
    end_us: int
    size: int


def recorded(recordings: Recordings, start_us: int, end_us: int, *, exact: bool = True) -> History:
    """What was recorded in start <= t < end. Blocks on the disk of the recordings.

    Not `exact`: from the names alone, without a look at each file.
    """
    found, notes = stretches(recordings, start_us, end_us, exact=exact)
    whole = spans.merge((stretch.begin_us, stretch.end_us) for stretch in found)
    return History(tuple(spans.overlap(whole, [(start_us, end_us)])), notes)


def stretches(
    recordings: Recordings, start_us: int, end_us: int, *, exact: bool = True
) -> tuple[list[Stretch], tuple[str, ...]]:
    """The recordings that can hold something of start <= t < end, in their order, and notes; as `recorded`.

    The first one may end before that: whether it does is seen in its stretch.
    """
    found = recordings.covering(start_us, end_us)
    starts: list[int] = []
    written: list[int | None] = []
    sizes: list[int] = []
    for segment in found.segments:
        status = _look(segment) if exact else None
        if exact and status is None:
            continue
        starts.append(segment.start_us)
        written.append(status.st_mtime_ns // 1000 if status else None)
        sizes.append(status.st_size if status else 0)
    if not starts:
        return [], found.notes
    next_us = None if _tells_end(starts[-1], written[-1]) else _next_us(recordings, end_us)
    return [Stretch(*of) for of in zip(starts, _ends(starts, written, next_us), sizes, strict=True)], found.notes


def _look(segment: Segment) -> os.stat_result | None:
    """What the disk says of the recording; None where there is nothing in it, or it is gone by now."""
    try:
        status = os.stat(segment.path)  # noqa: PTH116 - a Path for each of thousands takes longer than the disk
    except OSError:
        return None
    return status if status.st_size else None


def _next_us(recordings: Recordings, from_us: int) -> int | None:
    """When the next recording begins, within a day."""
    for window_s in _LOOK_AHEAD_S:
        following = recordings.first_from(from_us, from_us + window_s * 1_000_000).segments
        if following:
            return following[0].start_us
    return None


def _ends(starts: Sequence[int], written: Sequence[int | None], next_us: int | None) -> list[int]:
    """When each of the recordings ends that begin at `starts`, which rise; the one behind them begins at `next_us`."""
    following: list[int | None] = []
    latest = beyond = next_us
    for start in reversed(starts):  # several may begin at the same moment; none of them ends the other ones
        if start != latest:
            latest, beyond = start, latest
        following.append(beyond)
    following.reverse()
    spacing = [later - start for start, later in zip(starts, following, strict=True) if later is not None]
    usual = sorted(spacing)[(len(spacing) - 1) // 2] if spacing else _UNKNOWN_US
    return [_end(*of, usual) for of in zip(starts, written, following, strict=True)]


def _tells_end(start_us: int, written_us: int | None) -> bool:
    return written_us is not None and start_us < written_us <= start_us + LONGEST_US


def _end(start_us: int, written_us: int | None, next_us: int | None, usual_us: int) -> int:
    if written_us is not None and _tells_end(start_us, written_us):
        if next_us is None or written_us < next_us - _JITTER_US:
            return written_us
        if written_us <= next_us + _JITTER_US:
            return next_us
    if next_us is not None and next_us - start_us <= usual_us * _UNSTEADY:
        return next_us
    return start_us + usual_us
