"""How much of the disk results may take: what is kept, and what is promised to sessions that run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vx.errors import Kind, VxError
from vx.spans import Span


@dataclass(frozen=True, slots=True)
class Recorded:
    """What there seems to be of a source in its part of the range."""

    spans_us: tuple[Span, ...]
    size: int
    """Bytes of the recordings in it."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the disk says when a session is to begin. Bytes."""

    need: int = 0
    """What it will probably write."""
    free: int | None = None
    """What is free on the disk of the results; None where nobody needs to know."""
    written: Mapping[str, int] = field(default_factory=dict)
    """What running sessions have written so far, by their ids."""
    recorded: Sequence[Recorded] = ()
    """What seems to be recorded of each source, where that is known."""


class Budget:
    """Results take at most `max_total` bytes (0: no limit) and leave `min_free` bytes of the disk free.

    Nothing is deleted before its time to make room: a client that was told of an hour has that hour.
    """

    def __init__(self, max_total: int = 0, min_free: int = 0) -> None:
        self._max_total = max_total
        self._min_free = min_free
        self._kept: dict[str, int] = {}
        self._total_kept = 0
        self._charged: dict[str, int] = {}
        self._promised: dict[str, int] = {}

    def reserve(self, key: str, survey: Survey) -> None:
        """Promise `survey.need` bytes to a session. VxError as `check`."""
        self.check(survey)
        self._promised[key] = survey.need

    def check(self, survey: Survey) -> None:
        """VxError(EXHAUSTED) with the numbers where `survey.need` bytes are not there."""
        need = survey.need
        kept = self._total_kept
        running = sum(max(size, survey.written.get(key, 0)) for key, size in self._promised.items())
        if self._max_total and kept + running + need > self._max_total:
            raise VxError(
                Kind.EXHAUSTED,
                f"the export needs about {_size(need)}; results may take {_size(self._max_total)}, and "
                f"{_size(kept)} are kept and {_size(running)} promised to sessions that run",
            )
        if survey.free is not None:
            coming = sum(max(size - survey.written.get(key, 0), 0) for key, size in self._promised.items())
            if need + coming + self._min_free > survey.free:
                raise VxError(
                    Kind.EXHAUSTED,
                    f"the export needs about {_size(need)}; {_size(survey.free)} of the disk are free, of which "
                    f"{_size(coming)} are promised to sessions that run and {_size(self._min_free)} stay free",
                )

    @property
    def kept(self) -> int:
        """Bytes of the results that are kept."""
        return self._total_kept

    @property
    def promised_bytes(self) -> int:
        """To sessions that are not over."""
        return sum(self._promised.values())

    def promised(self) -> list[str]:
        """The sessions that have a promise, which are those that are not over."""
        return list(self._promised)

    def settle(self, key: str, size: int) -> None:
        """The session is over and keeps `size` bytes; 0 when they are gone."""
        self._promised.pop(key, None)
        self.charge(key, 0)
        self._total_kept += size - self._kept.pop(key, 0)
        if size:
            self._kept[key] = size

    def charge(self, key: str, size: int) -> None:
        """Beside its files a session that is over keeps so many bytes of recordings that are deleted elsewhere."""
        self._total_kept += size - self._charged.pop(key, 0)
        if size:
            self._charged[key] = size


def _size(count: int) -> str:
    for unit, power in (("GB", 30), ("MB", 20), ("kB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} bytes"
