"""What an export will probably take, from the names and sizes of the recordings. Opens none; blocks on their disks."""

from __future__ import annotations

import os
from pathlib import Path
from zoneinfo import ZoneInfo

from vx.archive.pattern import NamePattern
from vx.archive.segments import Recordings, Segment
from vx.jobs import ClipJob, SnapshotJob, Source

PICTURE = 4 << 20
"""Bytes that a snapshot takes at most, from what a camera of today sees."""
_OVERHEAD = 1.02
_FIXED = 64 << 10
"""Bytes of a file's headers and tables, beside a part in `_OVERHEAD` for those that grow with it."""
_LOOK_AHEAD_S = (300, 3600, 86_400)
_LONGEST_S = 86_400
"""A recording that seems to last longer was copied later: its modification time says nothing about its end."""


def bytes_needed(job: ClipJob | SnapshotJob) -> int:
    """Bytes that the results will take, about. What cannot be looked at counts as nothing."""
    if isinstance(job, SnapshotJob):
        return PICTURE * len(job.sources)
    return sum(int(_recorded(source, job.start_us, job.end_us) * _OVERHEAD) + _FIXED for source in job.sources)


def _recorded(source: Source, start_us: int, end_us: int) -> int:
    """Bytes recorded in start <= t < end: whole recordings, and their share of those at the borders."""
    recordings = Recordings(NamePattern.parse(source.pattern), ZoneInfo(source.timezone))
    segments = recordings.last_before(start_us + 1).segments + recordings.first_from(start_us + 1, end_us).segments
    following = [*(segment.start_us for segment in segments[1:]), _next_us(recordings, end_us)]
    return int(sum(_share(*pair, start_us, end_us) for pair in zip(segments, following, strict=False)))


def _next_us(recordings: Recordings, from_us: int) -> int | None:
    for window_s in _LOOK_AHEAD_S:
        following = recordings.first_from(from_us, from_us + window_s * 1_000_000).segments
        if following:
            return following[0].start_us
    return None


def _share(segment: Segment, next_us: int | None, start_us: int, end_us: int) -> float:
    try:
        status = Path(segment.path).stat()
    except OSError:
        return 0  # gone by now: a gap in the export
    until_us = _end_us(segment.start_us, next_us, status)
    if until_us is None:
        return status.st_size
    within = min(until_us, end_us) - max(segment.start_us, start_us)
    return status.st_size * max(within, 0) / (until_us - segment.start_us)


def _end_us(begin_us: int, next_us: int | None, status: os.stat_result) -> int | None:
    """When a recording ends: when the next one begins or when it was last written to; None where neither says it."""
    ends = [end for end in (next_us, status.st_mtime_ns // 1000) if end is not None and end > begin_us]
    end = min(ends, default=None)
    return None if end is None or end - begin_us > _LONGEST_S * 1_000_000 else end
