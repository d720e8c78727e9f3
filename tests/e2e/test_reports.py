"""What an export would do, does and did, told in words, by a stock grpcio client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import proto_reflection_descriptor_database

from tests.e2e.client import CAMERA, SECOND_CAMERA, Client, refused
from tests.e2e.test_export import NO_SESSION, archive, at, configuration, copied, long_archive
from tests.server_process import ServerProcess, started_servers
from tests.stubs import Stubs

__all__ = ["archive", "long_archive"]  # fixtures


class Reporter(Client):
    """One that asks for reports too."""

    def __init__(self, stubs: Stubs, address: str) -> None:
        super().__init__(stubs, address)
        self.v1 = stubs.reports
        self.reports = stubs.reports_grpc.ExportReportServiceStub(self.channel)

    def estimate(self, options: Any) -> Any:
        return self.reports.Estimate(self.v1.EstimateRequest(session_options=options))

    def report(self, session_id: str) -> Any:
        return self.reports.GetReport(self.v1.GetReportRequest(session_id=session_id)).report

    def watch(self, session_id: str) -> Iterator[Any]:
        call = self.reports.WatchReport(self.v1.WatchReportRequest(session_id=session_id))
        return (answer.report for answer in call)


@pytest.fixture(scope="module")
def server(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with started_servers(tmp_path_factory.mktemp("reports")) as start:
        yield start(configuration(archive))


@pytest.fixture
def client(server: ServerProcess, stubs: Stubs) -> Iterator[Reporter]:
    client = Reporter(stubs, server.address)
    yield client
    client.channel.close()


def spans(intervals: Any) -> list[tuple[str, str]]:
    return [(interval.begin_timestamp, interval.end_timestamp) for interval in intervals]


def test_reflection_lists_the_service(client: Reporter) -> None:
    database = proto_reflection_descriptor_database.ProtoReflectionDescriptorDatabase(client.channel)
    service = descriptor_pool.DescriptorPool(database).FindServiceByName("vx.v1.ExportReportService")
    assert "vx.v1.ExportReportService" in database.get_services()
    assert [method.name for method in service.methods] == ["Estimate", "GetReport", "WatchReport"]


def test_an_estimate_of_a_copy_comes_close(client: Reporter) -> None:
    options = client.clip(at(1), at(9))
    estimate = client.estimate(options)
    (source,) = estimate.sources
    assert (source.origin, source.name, source.error) == (CAMERA, "Entrance", "")
    assert [source.video.codec, source.audio.codec] == ["h264", "aac"]
    assert [source.video.treatment, source.audio.treatment] == [client.v1.TREATMENT_COPIED] * 2
    assert (estimate.is_allowed, estimate.refusal, estimate.would_wait, estimate.is_rough) == (True, "", False, False)
    assert estimate.agent_access_point == "hosts/Server1/MMExportAgent.0"
    session_id = client.start(options)
    (file,) = client.wait_completed(session_id).result.files
    assert file.size / 1.3 < estimate.expected_bytes < 1.3 * file.size
    assert len(client.pages()) == 1  # the estimate itself started nothing
    client.destroy(session_id)


def test_an_estimate_says_why_something_is_encoded(client: Reporter) -> None:
    options = client.clip(at(1), at(4))
    options.stream.settings.add(video_codec=client.export.VC_MJPEG)
    options.stream.settings.add(reject_audio=True)
    estimate = client.estimate(options)
    (source,) = estimate.sources
    assert source.video.treatment == client.v1.TREATMENT_ENCODED
    assert not source.HasField("audio")
    assert [remark.text for remark in source.remarks] == [
        "the picture is encoded: mjpeg is wanted, and recorded is h264"
    ]
    assert estimate.is_rough
    session_id = client.start(options)
    state = client.wait_completed(session_id)
    written = sum(file.size for file in state.result.files)
    assert written / 1.3 < estimate.expected_bytes < 1.3 * written
    client.destroy(session_id)


def test_an_estimate_of_nothing(client: Reporter) -> None:
    (source,) = client.estimate(client.clip(at(3600), at(3700))).sources
    assert (spans(source.recorded), spans(source.gaps)) == ([], [(at(3600), at(3700))])
    assert source.error == "nothing in the range could be read"
    assert not source.HasField("video")


def test_an_estimate_refuses_what_a_start_refuses(client: Reporter) -> None:
    with refused("NOT_FOUND", "session_options.archive.sources[0].origin: there is no camera 'nowhere'"):
        client.estimate(client.export.Options(archive=client.archive(at(0), at(1), cameras=["nowhere"]), stream={}))


def test_an_estimate_tells_of_a_limit(
    archive: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]
) -> None:
    more = "max_running_sessions = 1\nmax_queued_sessions = 0\n[results]\nmin_free_gb = 1000000"
    client = Reporter(stubs, start_server(configuration(archive, more)).address)
    estimate = client.estimate(client.clip(at(0), at(4)))
    assert not estimate.is_allowed
    assert "of the disk are free" in estimate.refusal
    client.channel.close()


def test_a_report_of_what_was_exported(client: Reporter) -> None:
    archive = client.archive(at(1), at(9), cameras=[CAMERA, SECOND_CAMERA], discrete=True)
    session_id = client.start(client.export.Options(archive=archive, stream={}))
    state = client.wait_completed(session_id)
    report = client.report(session_id)
    assert (report.session_id, report.phase) == (session_id, client.v1.PHASE_COMPLETED)
    assert (report.percent, report.succeeded, report.reason) == (100, True, "")
    assert report.bytes_written == sum(file.size for file in state.result.files)
    assert list(report.files) == list(state.result.files)
    assert (report.started_by, report.started_from[:10]) == ("127.0.0.1", "127.0.0.1:")
    assert report.started_timestamp < report.ended_timestamp
    assert not report.HasField("time_left")
    assert [source.name for source in report.sources] == ["Entrance", "Yard"]
    for source in report.sources:
        assert (source.has_ended, source.error) == (True, "")
        assert spans(source.gaps) == [(at(4), at(6))]
        assert source.last_frame_timestamp == at(8.96)
    client.destroy(session_id)
    with refused("NOT_FOUND", NO_SESSION):
        client.report(session_id)


def test_a_report_says_what_became_of_each_source(client: Reporter) -> None:
    cameras = client.archive(at(4.5), at(5.5), cameras=[CAMERA])
    session_id = client.start(client.export.Options(archive=cameras, stream={}))
    client.wait_completed(session_id)
    report = client.report(session_id)
    assert not report.succeeded
    assert report.reason == f"Entrance: nothing was recorded from {at(4.5)} to {at(5.5)}"
    assert [source.error for source in report.sources] == [f"nothing was recorded from {at(4.5)} to {at(5.5)}"]
    client.destroy(session_id)


def test_a_watcher_sees_it_go_on_and_end(
    long_archive: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess], tmp_path: Path
) -> None:
    server = start_server(copied(long_archive))
    client = Reporter(stubs, server.address)
    running = client.start(client.clip(at(0), at(10_800)))
    reports = []
    for report in client.watch(running):
        reports.append(report)
        if report.percent > 5 and report.HasField("time_left"):
            client.stop(running)
    assert [report.percent for report in reports] == sorted(report.percent for report in reports)
    assert all(report.phase == client.v1.PHASE_RUNNING for report in reports[:-2])
    assert reports[-1].phase == client.v1.PHASE_COMPLETED
    assert reports[-1].succeeded
    assert reports[-2].bytes_written > 0

    destroyed = client.start(client.clip(at(0), at(10_800)))
    watched = client.watch(destroyed)
    assert next(watched).phase in (client.v1.PHASE_WAITING, client.v1.PHASE_RUNNING)
    client.destroy(destroyed)
    with refused("ABORTED", "the session was destroyed meanwhile"):
        list(watched)
    client.channel.close()

    before = reports[-1]
    assert server.terminate() == 0
    again = ServerProcess(server.state_dir.parent, copied(long_archive))
    try:
        client = Reporter(stubs, again.address)
        assert client.report(running) == before  # kept over a restart
        client.channel.close()
    finally:
        again.kill()
