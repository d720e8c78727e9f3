"""Reports and estimates on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from click.testing import Result

from tests.cli.fake import ID, RUNNING, Script
from vx.cli.told import progress_note
from vx.rpc.generated.vx import v1

Run = Callable[..., Result]

START, END = "20260511T080410.000000", "20260511T080420.000000"
HOLE = v1.Interval(begin_timestamp="20260511T080412.000000", end_timestamp="20260511T080414.000000")
REPORT = v1.Report(
    session_id=ID,
    phase=v1.EPhase.PHASE_RUNNING,
    percent=34.21,
    bytes_written=12_300_000,
    time_left=timedelta(seconds=61.5),
    started_by="alice",
    started_from="192.0.2.1:5001",
    started_timestamp=START,
    sources=[
        v1.SourceReport(
            origin="o1",
            name="Entrance",
            gaps=[HOLE] * 12,
            further_gaps=3,
            remarks=[v1.Remark(level=v1.ELevel.LEVEL_INFO, text="the picture is encoded: a quality is wanted")],
            last_frame_timestamp=END,
        ),
        v1.SourceReport(origin="o2", name="Yard", has_ended=True, error="nothing was recorded"),
    ],
)
GAP_LINE = "  gap       2026-05-11 08:04:12 UTC to 2026-05-11 08:04:14 UTC"


def test_a_state_comes_with_its_report(run: Run, server: str, script: Script) -> None:
    script.report, script.states = REPORT, [RUNNING, RUNNING]
    assert run("state", ID, "--server", server).stdout.splitlines() == [
        f"session     {ID}",
        "state       S_RUNNING",
        "last frame  2026-05-11 08:04:15 UTC",
        "progress    34.2 %, 12.3 MB, about 1m 1s left",
        "started     2026-05-11 08:04:10 UTC by alice (192.0.2.1:5001)",
        "camera      Entrance: up to 2026-05-11 08:04:20 UTC",
        *[GAP_LINE] * 10,
        "  …         5 more gaps",
        "  note      the picture is encoded: a quality is wanted",
        "camera      Yard: nothing was recorded",
    ]
    document = json.loads(run("state", ID, "--server", server, "--json").stdout)["report"]
    assert (document["phase"], document["percent"], document["time_left"]) == ("PHASE_RUNNING", 34.21, 61.5)
    assert len(document["sources"][0]["gaps"]) == 12


def test_how_far_a_camera_came_is_shown_when_it_is_done_too(run: Run, server: str, script: Script) -> None:
    script.report = v1.Report(sources=[v1.SourceReport(name="Gate", last_frame_timestamp=END, has_ended=True)])
    script.states = [RUNNING]
    assert "camera      Gate: done, up to 2026-05-11 08:04:20 UTC" in run("state", ID, "--server", server).stdout


def test_words_beside_the_bar() -> None:
    assert progress_note(REPORT) == "12.3 MB, about 1m 1s left"
    assert progress_note(v1.Report(phase=v1.EPhase.PHASE_WAITING, sessions_ahead=3)) == "waiting, 3 ahead"


def test_an_export_that_fails_says_why(run: Run, server: str, script: Script) -> None:
    script.succeeded = False
    script.report = v1.Report(reason="Entrance: nothing was recorded from A to B")
    arguments = ("export", "--camera", "S/DeviceIpint.1", "--start", START, "--end", END, "--server", server)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "vx: the export wrote nothing: Entrance: nothing was recorded from A to B"
    )
    script.files = {"a.mp4": b"half"}
    told = "(Entrance: nothing was recorded from A to B); the files hold what it could write"
    assert run(*arguments).stderr.splitlines()[-1] == f"vx: the export failed on the server {told}"


def test_a_camera_that_gave_nothing_is_told(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": b"1"}
    script.report = REPORT
    result = run("export", "--camera", "S/DeviceIpint.1", "--start", START, "--end", END, "--server", server)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == "vx: Yard: nothing was recorded"


def test_what_a_clip_lacks_is_told_with_it(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mp4": b"1"}
    broken = v1.Remark(level=v1.ELevel.LEVEL_WARNING, text="/r/a.mp4: it is broken; left out what can't be read")
    entrance = v1.SourceReport(name="Entrance", gaps=[HOLE], remarks=[*REPORT.sources[0].remarks, broken])
    stopped = v1.Remark(level=v1.ELevel.LEVEL_WARNING, text="it was stopped on request, before its end")
    script.report = v1.Report(sources=[entrance], remarks=[stopped])
    arguments = ("export", "--camera", "S/DeviceIpint.1", "--start", START, "--end", END, "--server", server)
    assert run(*arguments, "--force").stderr.splitlines()[-4:] == [
        "Entrance",
        GAP_LINE,
        "  note      /r/a.mp4: it is broken; left out what can't be read",
        "  note      it was stopped on request, before its end",
    ]
    document = json.loads(run(*arguments, "--force", "--json").stdout)["report"]
    assert [len(document["sources"][0][name]) for name in ("gaps", "remarks")] == [1, 2]
    script.report = v1.Report(sources=[v1.SourceReport(name="Entrance", remarks=REPORT.sources[0].remarks)])
    assert run(*arguments, "--force").stderr.splitlines()[-1].startswith("saved a.mp4")


def test_an_estimate(run: Run, server: str, script: Script) -> None:
    source = v1.SourceEstimate(
        origin="o1",
        name="Entrance",
        recorded=[v1.Interval(begin_timestamp=START, end_timestamp=HOLE.begin_timestamp)],
        gaps=[HOLE],
        duration=timedelta(seconds=8),
        recorded_bytes=800_000,
        video=v1.Track(codec="h264", treatment=v1.ETreatment.TREATMENT_COPIED),
        audio=v1.Track(codec="aac", treatment=v1.ETreatment.TREATMENT_ENCODED),
        remarks=[v1.Remark(text="the sound is encoded: a quality is wanted")],
        further_remarks=3,
    )
    script.estimate = v1.EstimateResponse(
        sources=[source], expected_bytes=900_000, is_rough=True, is_allowed=True, would_wait=True
    )
    arguments = ("estimate", "--camera", "S/DeviceIpint.1", "--start", START, "--end", END, "--server", server)
    result = run(*arguments)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "size        900.0 kB (roughly: some of it is encoded)",
        "allowed     yes, but it would have to wait for its turn",
        "camera      Entrance: 8s recorded, 800.0 kB",
        "  recorded  2026-05-11 08:04:10 UTC to 2026-05-11 08:04:12 UTC",
        GAP_LINE,
        "  picture   h264 is copied",
        "  sound     aac is encoded",
        "  note      the sound is encoded: a quality is wanted",
        "  …         3 more notes",
    ]
    assert script.started[0].archive.start_timestamp == START
    assert script.calls == []
    document = json.loads(run(*arguments, "--json").stdout)
    assert (document["expected_bytes"], document["sources"][0]["duration"]) == (900_000, 8)
    script.estimate = v1.EstimateResponse(refusal="no room: 5 GB")
    assert "allowed     no: no room: 5 GB" in run(*arguments).stdout
    script.estimate = None
    assert run(*arguments).exit_code == 6
