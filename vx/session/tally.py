"""What sessions come to, added up since the server began. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vx import report
from vx.metrics import Statistics
from vx.model import Record
from vx.session.budget import Budget


class Tally:
    """Counts the exports that have ended."""

    def __init__(self) -> None:
        self._succeeded = 0
        self._failed = 0
        self._exported_s = 0.0
        self._exporting_s = 0.0
        self._exported_bytes = 0

    def add(self, record: Record, ran_s: float) -> None:
        """This one has ended, after its worker was at it for so long."""
        if record.succeeded:
            self._succeeded += 1
        else:
            self._failed += 1
        self._exported_s += report.exported_us(record.report) / 1e6
        self._exporting_s += ran_s
        self._exported_bytes += sum(file.size for file in record.files)

    def statistics(
        self, sessions: Mapping[str, int], running: Sequence[tuple[float, float]], budget: Budget
    ) -> Statistics:
        """With those that run: the recorded seconds that each has written, and since how many seconds it has run."""
        return Statistics(
            sessions=sessions,
            succeeded=self._succeeded,
            failed=self._failed,
            exported_s=self._exported_s + sum(done_s for done_s, _ in running),
            exporting_s=self._exporting_s + sum(ran_s for _, ran_s in running),
            exported_bytes=self._exported_bytes,
            speed=sum(done_s / ran_s for done_s, ran_s in running if ran_s > 0),
            kept_bytes=budget.kept,
            promised_bytes=budget.promised_bytes,
        )
