"""What the server counts, in Prometheus's text format (version 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Statistics:
    """A moment of the server's sessions. Times in seconds."""

    sessions: Mapping[str, int]
    """How many there are in each state, by the state's name."""
    succeeded: int
    failed: int
    """Exports that have ended since the server began, well or not."""
    exported_s: float
    """Of recordings, that these exports and those that run have made."""
    exporting_s: float
    """How long they were at it, added up."""
    exported_bytes: int
    speed: float
    """Recorded seconds that the exports which run make in a second, all together; 0 where none runs."""
    kept_bytes: int
    """Of results that wait to be downloaded."""
    promised_bytes: int
    """Room that is kept for exports which run or wait."""


@dataclass(frozen=True, slots=True)
class _Family:
    name: str
    kind: str
    text: str
    samples: Mapping[str, float] = field(default_factory=dict)
    """By their labels, as `{state="running"}`; an empty text where there is but one."""


def render(
    statistics: Statistics, *, sent_bytes: int, free_bytes: int | None, resident_bytes: int, cpu_s: float
) -> bytes:
    """The whole page. `free_bytes`: of the disk with the results; None where it can't be had."""
    queued = statistics.sessions.get("queued", 0)
    families = [
        _Family(
            "vx_sessions",
            "gauge",
            "Sessions by state.",
            {f'{{state="{state}"}}': count for state, count in statistics.sessions.items()},
        ),
        _Family("vx_queue_length", "gauge", "Sessions that wait for their turn.", {"": queued}),
        _Family(
            "vx_exports_total",
            "counter",
            "Exports that have ended.",
            {'{outcome="succeeded"}': statistics.succeeded, '{outcome="failed"}': statistics.failed},
        ),
        _Family("vx_exported_seconds_total", "counter", "Recorded time exported.", {"": statistics.exported_s}),
        _Family("vx_exporting_seconds_total", "counter", "Time that exports ran, each.", {"": statistics.exporting_s}),
        _Family("vx_exported_bytes_total", "counter", "Bytes of complete results.", {"": statistics.exported_bytes}),
        _Family("vx_export_speed", "gauge", "Recorded seconds exported a second, now.", {"": statistics.speed}),
        _Family("vx_sent_bytes_total", "counter", "Bytes of results sent to clients.", {"": sent_bytes}),
        _Family("vx_results_kept_bytes", "gauge", "Results that wait for download.", {"": statistics.kept_bytes}),
        _Family("vx_results_promised_bytes", "gauge", "Room kept for exports.", {"": statistics.promised_bytes}),
        _Family(
            "vx_results_free_bytes",
            "gauge",
            "Free on the disk of the results.",
            {} if free_bytes is None else {"": free_bytes},
        ),
        _Family("process_resident_memory_bytes", "gauge", "Of the server's own process.", {"": resident_bytes}),
        _Family("process_cpu_seconds_total", "counter", "Of the server's own process.", {"": cpu_s}),
    ]
    return "".join(_text(family) for family in families).encode()


def _text(family: _Family) -> str:
    lines = [f"# HELP {family.name} {family.text}\n# TYPE {family.name} {family.kind}\n"]
    lines += [f"{family.name}{labels} {value:.15g}\n" for labels, value in family.samples.items()]
    return "".join(lines)
