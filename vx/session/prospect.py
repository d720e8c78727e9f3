"""What would become of an export that nobody has started. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vx import spans
from vx.jobs import ClipJob, Probed, SnapshotJob
from vx.session.budget import Recorded, Survey
from vx.spans import Span


@dataclass(frozen=True, slots=True)
class Prospect:
    """What `Registry.start` would find."""

    job: ClipJob | SnapshotJob
    survey: Survey
    probed: Sequence[Probed]
    """What would become of the tracks of a clip's sources, of those that could be looked at in time."""
    obstacle: str
    """Why it would be refused now: the limit, with its numbers. Empty where it would not."""
    waits: bool
    """It would have to wait for its turn."""

    def probe_of(self, number: int) -> Probed | None:
        """What is known of a source's tracks, by its number."""
        return next((probed for probed in self.probed if probed.source == number), None)

    def wanted_us(self, number: int) -> list[Span]:
        """What of the time is asked for of a source."""
        if self.job.live is not None:
            return []  # it is still to come
        return list(self.job.ranges_us(self.job.sources[number]))

    @property
    def is_rough(self) -> bool:
        """Something is encoded."""
        return isinstance(self.job, SnapshotJob) or any("encoded" in (each.video, each.audio) for each in self.probed)

    @property
    def expected_bytes(self) -> int:
        """What the files will take, about."""
        if isinstance(self.job, SnapshotJob):
            return self.survey.need
        return sum(self._expected(number, recorded) for number, recorded in enumerate(self.survey.recorded))

    def _expected(self, number: int, recorded: Recorded) -> int:
        probed = self.probe_of(number)
        if probed is None or probed.sample_us <= 0:
            return recorded.size
        if probed.is_whole:
            return probed.sample_bytes
        whole_us = max(spans.length(recorded.spans_us), probed.sample_us)
        if probed.video == "copied":  # for the rest, the recordings' own size is the best guess
            return probed.sample_bytes + recorded.size * (whole_us - probed.sample_us) // whole_us
        return probed.sample_bytes * whole_us // probed.sample_us
