"""Reports and estimates of `vx.v1`, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import betterproto

from vx.cli.values import plain, show_duration, show_size, show_wire_time
from vx.rpc.generated.vx import v1

_MOST = 10
"""Gaps and remarks of a camera that are shown to people; --json has all."""


def report_document(report: v1.Report) -> dict[str, Any]:
    """A report with the names of the service."""
    document = _document(report)
    del document["session_id"], document["files"]  # the state beside it has them
    return document


def estimate_document(estimate: v1.EstimateResponse) -> dict[str, Any]:
    return _document(estimate)


def _document(message: Any) -> dict[str, Any]:
    """All fields by their names; numbers as numbers, durations in seconds, which betterproto's own JSON has as text."""
    return {name: _value(getattr(message, name)) for name in message._betterproto.sorted_field_names}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, betterproto.Message):
        return _document(value) if betterproto.serialized_on_wire(value) else None
    if isinstance(value, betterproto.Enum):
        return value.name
    return value.total_seconds() if isinstance(value, timedelta) else value


def report_lines(report: v1.Report) -> list[str]:
    """What a report has beyond the session's state."""
    lines = [f"progress    {report.percent:.3g} %, {show_size(report.bytes_written)}{_left(report)}"]
    if report.phase == v1.EPhase.PHASE_WAITING:
        lines = [f"waiting     {report.sessions_ahead} came earlier and wait too"]
    who = f" by {plain(report.started_by)} ({plain(report.started_from)})" if report.started_by else ""
    lines.append(f"started     {show_wire_time(report.started_timestamp)}{who}")
    if report.ended_timestamp:
        lines.append(f"ended       {show_wire_time(report.ended_timestamp)}")
    if report.reason:
        lines.append(f"reason      {plain(report.reason)}")
    for source in report.sources:
        lines.append(f"camera      {plain(source.name)}: {_outcome(source)}")
        lines += _gaps(source.gaps, source.further_gaps)
        lines += _remarks(source.remarks, source.further_remarks)
    return lines + _remarks(report.remarks, 0)


def progress_note(report: v1.Report) -> str:
    """A few words beside a bar."""
    if report.phase == v1.EPhase.PHASE_WAITING:
        return f"waiting, {report.sessions_ahead} ahead"
    return f"{show_size(report.bytes_written)}{_left(report)}"


def failures(report: v1.Report) -> list[str]:
    """What went wrong with which camera."""
    return [f"{plain(source.name)}: {plain(source.error)}" for source in report.sources if source.error]


def shortcomings(report: v1.Report) -> list[str]:
    """What the files of an export lack: gaps, and what was warned of."""
    lines = []
    for source in report.sources:
        lacks = _gaps(source.gaps, source.further_gaps) + _remarks(_warnings(source.remarks), 0)
        lines += [plain(source.name), *lacks] if lacks else []
    return lines + _remarks(_warnings(report.remarks), 0)


def _warnings(remarks: Sequence[v1.Remark]) -> list[v1.Remark]:
    return [remark for remark in remarks if remark.level != v1.ELevel.LEVEL_INFO]


def estimate_lines(estimate: v1.EstimateResponse) -> list[str]:
    """An estimate for people."""
    rough = " (roughly: some of it is encoded)" if estimate.is_rough else ""
    lines = [f"size        {show_size(estimate.expected_bytes)}{rough}"]
    if estimate.is_allowed:
        lines.append(f"allowed     yes{', but it would have to wait for its turn' if estimate.would_wait else ''}")
    else:
        lines.append(f"allowed     no: {plain(estimate.refusal)}")
    for source in estimate.sources:
        recorded = show_duration(source.duration // timedelta(microseconds=1))
        lines.append(f"camera      {plain(source.name)}: {recorded} recorded, {show_size(source.recorded_bytes)}")
        lines += [f"  recorded  {_interval(interval)}" for interval in source.recorded[:_MOST]]
        lines += _further(len(source.recorded[_MOST:]), "recorded")
        lines += _gaps(source.gaps, 0)
        for kind, track in (("picture", source.video), ("sound", source.audio)):
            if betterproto.serialized_on_wire(track):
                lines.append(f"  {kind:<9} {plain(f'{track.codec} ' if track.codec else '')}{_treatment(track)}")
        lines += _remarks(source.remarks, source.further_remarks)
        if source.error:
            lines.append(f"  unknown   {plain(source.error)}")
    return lines


def _treatment(track: v1.Track) -> str:
    return {
        v1.ETreatment.TREATMENT_COPIED: "is copied",
        v1.ETreatment.TREATMENT_ENCODED: "is encoded",
        v1.ETreatment.TREATMENT_LEFT_OUT: "is left out",
    }.get(track.treatment, "")


def _left(report: v1.Report) -> str:
    left_us = report.time_left // timedelta(microseconds=1)
    return f", about {show_duration(max(left_us // 1_000_000, 1) * 1_000_000)} left" if left_us else ""


def _outcome(source: v1.SourceReport) -> str:
    if source.error:
        return plain(source.error)
    until = f"up to {show_wire_time(source.last_frame_timestamp)}" if source.last_frame_timestamp else ""
    if source.has_ended:
        return f"done, {until}" if until else "done"
    return until or "not begun"


def _gaps(gaps: Sequence[v1.Interval], further: int) -> list[str]:
    lines = [f"  gap       {_interval(gap)}" for gap in gaps[:_MOST]]
    return lines + _further(further + len(gaps[_MOST:]), "gaps")


def _remarks(remarks: Iterable[v1.Remark], further: int) -> list[str]:
    shown = list(remarks)
    lines = [f"  note      {plain(remark.text)}" for remark in shown[:_MOST]]
    return lines + _further(further + len(shown[_MOST:]), "notes")


def _further(count: int, what: str) -> list[str]:
    return [f"  …         {count} more {what}"] if count > 0 else []


def _interval(interval: v1.Interval) -> str:
    return f"{show_wire_time(interval.begin_timestamp)} to {show_wire_time(interval.end_timestamp)}"
