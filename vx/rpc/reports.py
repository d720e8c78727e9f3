"""`vx.v1.ExportReportService`: what would become of an export, and what became of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import trio

from vx import model, report, spans
from vx.config.schema import Config
from vx.errors import Kind, VxError
from vx.jobs import SnapshotJob, Treatment
from vx.report import MOST
from vx.rpc.calls import Readers, StreamsResponses, current_call
from vx.rpc.generated.axxonsoft.bl.mmexport import ResultFile
from vx.rpc.generated.vx.v1 import (
    ELevel,
    EPhase,
    EstimateRequest,
    EstimateResponse,
    ETreatment,
    ExportReportServiceBase,
    GetReportRequest,
    GetReportResponse,
    Interval,
    Remark,
    Report,
    SourceEstimate,
    SourceReport,
    Track,
    WatchReportRequest,
    WatchReportResponse,
)
from vx.rpc.services import read_options
from vx.session.prospect import Prospect
from vx.session.registry import Registry, Standing
from vx.spans import Spans
from vx.timestamps import format_timestamp

_PAUSE_S = 0.5
"""Between two reports to a watcher."""


class ExportReportService(StreamsResponses, ExportReportServiceBase):
    """See the module."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config

    @property
    def readers(self) -> Readers:
        """As those of `ExportService`."""
        return {EstimateRequest: lambda request: read_options(request.session_options, self._config)}

    async def estimate(self, estimate_request: Any) -> EstimateResponse:
        """`estimate_request` is the ExportRequest that its reader has made."""
        request: model.ExportRequest = estimate_request
        return _estimate(await self._registry.prospect(request, current_call().caller), request.agent)

    async def get_report(self, get_report_request: GetReportRequest) -> GetReportResponse:
        standing = self._registry.standing(get_report_request.session_id, current_call().caller)
        return GetReportResponse(report=_report(standing))

    async def watch_report(self, watch_report_request: WatchReportRequest) -> AsyncIterator[WatchReportResponse]:
        session_id, caller = watch_report_request.session_id, current_call().caller
        standing = self._registry.standing(session_id, caller)
        yield WatchReportResponse(report=_report(standing))
        while standing.record.state.is_running:
            await self._registry.wait_changed(session_id, caller)
            await trio.sleep(_PAUSE_S)
            try:
                standing = self._registry.standing(session_id, caller)
            except VxError:
                raise VxError(Kind.ABORTED, "the session was destroyed meanwhile") from None
            yield WatchReportResponse(report=_report(standing))


# ---- an estimate


def _estimate(prospect: Prospect, agent: str) -> EstimateResponse:
    return EstimateResponse(
        sources=[_source_estimate(prospect, number) for number in range(len(prospect.job.sources))],
        expected_bytes=prospect.expected_bytes,
        is_rough=prospect.is_rough,
        is_allowed=not prospect.obstacle,
        refusal=prospect.obstacle,
        would_wait=prospect.waits,
        agent_access_point=agent,
    )


def _source_estimate(prospect: Prospect, number: int) -> SourceEstimate:
    source = prospect.job.sources[number]
    recorded = prospect.survey.recorded[number]
    shown = spans.at_most(recorded.spans_us, MOST)
    estimate = SourceEstimate(
        origin=source.origin,
        name=source.name,
        recorded=_intervals(shown),
        gaps=_intervals(spans.without(prospect.wanted_us(number), shown)),
        duration=timedelta(microseconds=spans.length(recorded.spans_us)),
        recorded_bytes=recorded.size,
    )
    probed = prospect.probe_of(number)
    if isinstance(prospect.job, SnapshotJob):
        estimate.video = Track(treatment=ETreatment.TREATMENT_ENCODED)
    elif prospect.job.live is not None:
        estimate.error = "a live camera is asked only once the export has started"
    elif probed is None:
        estimate.error = "the recordings did not answer in time"
    elif probed.video is None:
        estimate.error = "nothing in the range could be read"
    else:
        estimate.video = Track(codec=probed.video_codec, treatment=_TREATMENTS[probed.video])
        if probed.audio is not None:
            estimate.audio = Track(codec=probed.audio_codec, treatment=_TREATMENTS[probed.audio])
    if probed is not None:
        estimate.remarks = [Remark(level=_LEVELS[note.level], text=note.text) for note in probed.notes]
        estimate.further_remarks = probed.further_notes
    return estimate


# ---- a report


def _report(standing: Standing) -> Report:
    record = standing.record
    made = Report(
        session_id=record.id,
        phase=_PHASES[record.state],
        percent=round(100 * standing.share, 2),
        bytes_written=sum(file.size for file in record.files) + record.report.written,
        sessions_ahead=standing.ahead or 0,
        started_by=record.started_by.name,
        started_from=record.started_by.address,
        started_timestamp=format_timestamp(record.started_us),
        ended_timestamp=_moment(record.ended_us),
        removed_timestamp=_moment(record.removed_us),
        succeeded=record.succeeded,
        reason=record.reason,
        sources=[_source_report(source) for source in record.report.sources],
        remarks=_remarks(record.report.remarks),
        files=[_file(file, record.timezone_min) for file in record.files],
        agent_access_point=record.agent,
    )
    if standing.left_s is not None:
        made.time_left = timedelta(seconds=round(standing.left_s, 3))
    return made


def _source_report(source: report.SourceReport) -> SourceReport:
    return SourceReport(
        origin=source.origin,
        name=source.name,
        recorded=_intervals(source.recorded_us),
        gaps=_intervals(source.gaps_us),
        further_gaps=source.further_gaps,
        remarks=_remarks(source.remarks),
        further_remarks=source.further_remarks,
        last_frame_timestamp=_moment(source.done_until_us),
        has_ended=source.ended,
        error=source.error,
    )


def _file(file: model.ResultFile, timezone_min: int) -> ResultFile:
    return ResultFile(
        path=file.name,
        size=file.size,
        min_timestamp=format_timestamp(file.first_us),
        max_timestamp=format_timestamp(file.last_us),
        mime_type=file.mime_type,
        timezone=timezone_min,
    )


def _intervals(spans_us: Spans) -> list[Interval]:
    return [
        Interval(begin_timestamp=format_timestamp(begin), end_timestamp=format_timestamp(end))
        for begin, end in spans_us
    ]


def _remarks(remarks: Iterable[report.Remark]) -> list[Remark]:
    return [Remark(level=_LEVELS[remark.level], text=remark.text) for remark in remarks]


def _moment(us: int | None) -> str:
    return "" if us is None else format_timestamp(us)


_PHASES = {
    model.State.QUEUED: EPhase.PHASE_WAITING,
    model.State.RUNNING: EPhase.PHASE_RUNNING,
    model.State.STOPPING: EPhase.PHASE_STOPPING,
    model.State.COMPLETED: EPhase.PHASE_COMPLETED,
    model.State.REMOVED: EPhase.PHASE_REMOVED,
    model.State.FORGOTTEN: EPhase.PHASE_REMOVED,
}
_LEVELS = {"info": ELevel.LEVEL_INFO, "warning": ELevel.LEVEL_WARNING, "error": ELevel.LEVEL_ERROR}
_TREATMENTS: dict[Treatment, ETreatment] = {
    "copied": ETreatment.TREATMENT_COPIED,
    "encoded": ETreatment.TREATMENT_ENCODED,
    "left out": ETreatment.TREATMENT_LEFT_OUT,
}
