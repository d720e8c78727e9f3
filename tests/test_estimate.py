from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from vx import estimate
from vx.estimate import PICTURE, LiveEstimate, recorded, to_come
from vx.jobs import ClipJob, Live, SnapshotJob, Source

T0 = 1_778_486_400
S = 1_000_000
LIVE = LiveEstimate(bytes_s=500_000, endless_s=300)


def recording(folder: Path, start_s: int, size: int, last_write_s: int | None = None) -> None:
    path = folder / f"{start_s}.mp4"
    path.write_bytes(bytes(size))
    end = last_write_s or 2_000_000_000  # copied here much later
    os.utime(path, (end, end))


def clip(folder: Path, start_s: float, end_s: float) -> ClipJob:
    source = Source(origin="o", name="Gate", pattern=f"{folder}/%s.mp4", timezone="UTC")
    return ClipJob(folder="", sources=(source,), start_us=round(start_s * S), end_us=round(end_s * S), container="mp4")


def bytes_needed(job: ClipJob | SnapshotJob) -> int:
    found = [to_come(job, job.live, LIVE) if job.live else recorded(job, source) for source in job.sources]
    return estimate.bytes_needed(job, found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for minute in range(10):
        recording(tmp_path, T0 + 60 * minute, 1_000_000)
    return tmp_path


@pytest.mark.parametrize(
    ("start_s", "end_s", "recorded"),
    [
        (0, 540, 9_000_000),
        (60, 120, 1_000_000),
        (75, 90, 250_000),
        (30, 90, 1_000_000),
        (-3600, 30, 500_000),
        (540, 570, 1_000_000),  # nothing says when the last one ends
        (-100, -50, 0),
    ],
)
def test_what_was_recorded_in_the_range_is_needed(folder: Path, start_s: int, end_s: int, recorded: int) -> None:
    needed = bytes_needed(clip(folder, T0 + start_s, T0 + end_s))
    assert recorded <= needed <= recorded * 1.05 + 100_000


def test_a_recording_ends_when_it_was_last_written_to(tmp_path: Path) -> None:
    recording(tmp_path, T0, 1_000_000, T0 + 60)
    recording(tmp_path, T0 + 3600, 1_000_000, T0 + 3660)
    assert bytes_needed(clip(tmp_path, T0 + 120, T0 + 3600)) < 100_000
    assert 500_000 < bytes_needed(clip(tmp_path, T0 + 3630, T0 + 7200)) < 600_000


def test_recordings_that_begin_at_the_same_moment_count_each(tmp_path: Path) -> None:
    for name in ("1", "10"):
        (tmp_path / f"{T0}-{name}.mp4").write_bytes(bytes(1_000_000))
        os.utime(tmp_path / f"{T0}-{name}.mp4", (T0 + 60, T0 + 60))
    job = clip(tmp_path, T0, T0 + 60)
    (source,) = job.sources
    job = msgspec.structs.replace(job, sources=(msgspec.structs.replace(source, pattern=f"{tmp_path}/%s-%f.mp4"),))
    assert 2_000_000 < bytes_needed(job) < 2_200_000


def test_what_is_encrypted_needs_room_twice(folder: Path) -> None:
    job = clip(folder, T0, T0 + 540)
    assert bytes_needed(msgspec.structs.replace(job, password="secret")) == 2 * bytes_needed(job)


def test_no_recordings_need_next_to_nothing(tmp_path: Path) -> None:
    assert bytes_needed(clip(tmp_path / "gone", T0, T0 + 60)) < 100_000


def test_a_snapshot_needs_a_picture_of_each_source(folder: Path) -> None:
    (source,) = clip(folder, T0, T0).sources
    assert bytes_needed(SnapshotJob(folder="", sources=(source, source), at_us=T0 * S)) == 2 * PICTURE


@pytest.mark.parametrize(("duration_s", "seconds"), [(60, 60), (0, 300)])
def test_a_live_stream_needs_what_its_cameras_send(folder: Path, duration_s: int, seconds: int) -> None:
    job = clip(folder, T0, T0)
    job = msgspec.structs.replace(job, sources=job.sources * 2, live=Live(duration_us=duration_s * S))
    assert bytes_needed(job) == pytest.approx(2 * seconds * 500_000, rel=0.03)
