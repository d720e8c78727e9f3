"""What an export will find and take, from the names, sizes and times of the recordings.

`recorded` blocks on their disk; it opens none of them.

How exact the intervals are is said in vx.archive.history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vx import spans
from vx.archive.history import Stretch, stretches
from vx.archive.segments import Recordings
from vx.jobs import ClipJob, Live, SnapshotJob, Source
from vx.session.budget import Recorded
from vx.spans import Spans

PICTURE = 4 << 20
"""Bytes that a snapshot takes at most, from what a camera of today sees."""
_OVERHEAD = 1.02
_FIXED = 64 << 10
"""Bytes of a file's headers and tables, beside a part in `_OVERHEAD` for those that grow with it."""


class LiveEstimate(NamedTuple):
    """What live cameras probably send. Nothing tells before they are asked."""

    bytes_s: float
    endless_s: float
    """A stream without a duration is taken to last so long: until it is stopped because nobody asks about it."""


def recorded(job: ClipJob | SnapshotJob, source: Source) -> Recorded:
    """What seems to be recorded of a source of the job. What cannot be looked at counts as nothing."""
    ranges_us = job.ranges_us(source)
    recordings = Recordings.of(source.pattern, source.timezone)
    found, _ = stretches(recordings, ranges_us[0][0], ranges_us[-1][1])
    whole = spans.merge((stretch.begin_us, stretch.end_us) for stretch in found)
    return Recorded(tuple(spans.overlap(whole, ranges_us)), int(sum(_share(each, ranges_us) for each in found)))


def to_come(job: ClipJob | SnapshotJob, how: Live, live: LiveEstimate) -> Recorded:
    """What probably comes of a live source."""
    if isinstance(job, SnapshotJob):
        return Recorded((), 0)
    if not how.duration_us:
        return Recorded((), int(live.bytes_s * live.endless_s))
    return Recorded(((job.start_us, job.start_us + how.duration_us),), int(live.bytes_s * how.duration_us / 1e6))


def bytes_needed(job: ClipJob | SnapshotJob, found: Sequence[Recorded]) -> int:
    """Bytes that the results will take, about, of what was found of each source: a clip as if it was copied."""
    if isinstance(job, SnapshotJob):
        return PICTURE * len(job.sources)
    needed = sum(int(source.size * _OVERHEAD) + _FIXED for source in found)
    return 2 * needed if job.password else needed  # what is encrypted is there twice for a moment


def _share(stretch: Stretch, ranges_us: Spans) -> float:
    """Bytes of a recording in the ranges."""
    span = stretch.begin_us, stretch.end_us
    return stretch.size * spans.length_within(ranges_us, span) / (stretch.end_us - stretch.begin_us)
