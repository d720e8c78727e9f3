"""What becomes of an export, source by source: told by the worker's events, kept with the session. Pure.

A report is frozen; each event gives the next one. It is bounded: a recording that is broken all over, or a range of
months, makes it no larger than `MOST` of each kind, and how many more there were is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec

from vx import spans
from vx.jobs import ClipJob, Ended, Event, FileDone, Gap, Note, Progress, SnapshotJob, SourceEnded
from vx.spans import Span, Spans

MOST = 500
"""Gaps, and remarks, that are kept of each source; the last ones give way."""


class Remark(msgspec.Struct, frozen=True, gc=False):
    """Something that a person should know: a broken recording, what is encoded and why."""

    level: Literal["info", "warning", "error"]
    text: str


class SourceReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one source."""

    origin: str
    """Access point of the camera."""
    name: str
    recorded_us: tuple[Span, ...] = ()
    """What seemed to be recorded when the session began, by the recordings' names: by this, progress is measured."""
    gaps_us: tuple[Span, ...] = ()
    """Where nothing was recorded, as the export met it."""
    further_gaps: int = 0
    remarks: tuple[Remark, ...] = ()
    further_remarks: int = 0
    done_until_us: int | None = None
    """The time of its last frame that was written."""
    ended: bool = False
    """Nothing more comes of it."""
    error: str = ""
    """Why there is nothing of it, or not all; empty where it did well, and until it has ended."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of an export."""

    sources: tuple[SourceReport, ...] = ()
    remarks: tuple[Remark, ...] = ()
    """About the export as a whole."""
    further_remarks: int = 0
    written: int = 0
    """Bytes of the file under way."""
    stopped: bool = False
    """It was ended before its end."""


NO_REPORT = Report()


def begin(job: ClipJob | SnapshotJob, recorded_us: Sequence[Spans]) -> Report:
    """That of an export which has not begun. `recorded_us`: what seems to be recorded of each source, if known."""
    known = [*recorded_us, *[()] * (len(job.sources) - len(recorded_us))]
    return Report(
        tuple(
            SourceReport(source.origin, source.name, tuple(spans.at_most(spans_us, MOST)))
            for source, spans_us in zip(job.sources, known, strict=True)
        )
    )


def take(report: Report, event: Event) -> Report:
    """The report after something that the worker tells."""
    match event:
        case Progress():
            report = msgspec.structs.replace(report, written=event.written)
            numbers = range(len(report.sources)) if event.source is None else (event.source,)
            for number in numbers:
                if not report.sources[number].ended:
                    report = _with_source(report, number, done_until_us=event.last_frame_us)
        case FileDone():
            report = msgspec.structs.replace(report, written=0)
        case Gap():
            source = report.sources[event.source]
            kept, more = _add(source.gaps_us, source.further_gaps, (event.begin_us, event.end_us))
            report = _with_source(report, event.source, gaps_us=kept, further_gaps=more)
        case SourceEnded():
            report = _with_source(report, event.source, ended=True, error=event.error)
        case Note():
            if event.source is None:
                remark = Remark(event.level, event.text)
                kept_all, more = _add(report.remarks, report.further_remarks, remark)
                return msgspec.structs.replace(report, remarks=kept_all, further_remarks=more)
            source = report.sources[event.source]
            remark = Remark(event.level, event.text.removeprefix(f"{source.name}: "))
            kept_own, more = _add(source.remarks, source.further_remarks, remark)
            report = _with_source(report, event.source, remarks=kept_own, further_remarks=more)
    return report


def stop(report: Report, why: str) -> Report:
    """The report of an export that does not come to its end."""
    return msgspec.structs.replace(take(report, Note(level="warning", text=why)), stopped=True)


def end(report: Report, ended: Ended) -> Report:
    """The report of an export that is over: what had not ended by itself ends with it."""
    reason = ended.reason or ("" if ended.succeeded else "the export failed")
    for number, source in enumerate(report.sources):
        if not source.ended:
            error = reason or ("" if source.done_until_us is not None else "stopped before anything was written")
            report = _with_source(report, number, ended=True, error=error)
    return msgspec.structs.replace(report, written=0)


def share_done(report: Report) -> float:
    """How much is done, 0 to 1: of the recorded time, or of the sources where that is not known or nothing is."""
    if not report.sources:
        return 0.0
    whole = sum(spans.length(source.recorded_us) for source in report.sources)
    if not whole:
        return sum(source.ended for source in report.sources) / len(report.sources)
    done = _written_us if report.stopped else _done_us  # a source that was stopped has ended, too
    return sum(done(source) for source in report.sources) / whole


def exported_us(report: Report) -> int:
    """How much of what was recorded has been written, of all sources together."""
    return sum(_written_us(source) for source in report.sources)


def _done_us(source: SourceReport) -> int:
    return spans.length(source.recorded_us) if source.ended else _written_us(source)


def _written_us(source: SourceReport) -> int:
    if source.done_until_us is None or not source.recorded_us:
        return 0
    return spans.length_within(source.recorded_us, (source.recorded_us[0][0], source.done_until_us))


def _with_source(report: Report, number: int, **changes: object) -> Report:
    sources = list(report.sources)
    sources[number] = msgspec.structs.replace(sources[number], **changes)
    return msgspec.structs.replace(report, sources=tuple(sources))


_Item = TypeVar("_Item")


def _add(items: tuple[_Item, ...], further: int, item: _Item) -> tuple[tuple[_Item, ...], int]:
    return ((*items, item), further) if len(items) < MOST else (items, further + 1)


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Report).decode
