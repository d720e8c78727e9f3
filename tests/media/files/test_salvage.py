"""What remains of a worker that was killed, or whose disk filled up."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.material import SECOND, STEM, T0, FakeLink, do, judge, numbered, numbers, source
from tools.make_recordings import Form, Piece, cut
from vx.jobs import ClipJob, Container, Event, FileOpened, PartFile, Progress, SalvageJob, encode
from vx.media.export import run
from vx.media.files import muxing, results
from vx.media.virtual import copying

FRAME = SECOND // 25
CONTAINERS: list[Container] = ["mp4", "mkv"]


@pytest.fixture
def job(tmp_path: Path, request: pytest.FixtureRequest) -> ClipJob:
    """A clip of 40 s in 2 s segments."""
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    footage = numbered(Form(b_frames=2, audio=True), 1000)
    cut(footage, str(pattern), T0, [Piece(i * 2 * SECOND, (i + 1) * 2 * SECOND) for i in range(20)])
    (tmp_path / "out").mkdir()
    return ClipJob(
        folder=str(tmp_path / "out"),
        sources=(source(pattern),),
        start_us=T0,
        end_us=T0 + 40 * SECOND,
        container=request.param,
    )


def in_child(work: Callable[[], None]) -> int:
    """Do it in a process of its own; how that ended, as os.waitpid says it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def dying(call: Callable[..., None], after: int) -> Callable[..., None]:
    """The same call, with which the process is killed once it was called so often."""
    count = 0

    def counting(*args: object) -> None:
        nonlocal count
        count += 1
        if count > after:
            os.kill(os.getpid(), signal.SIGKILL)
        call(*args)

    return counting


@pytest.mark.parametrize(("job", "in_blocks"), [("mp4", True), ("mp4", False), ("mkv", False)], indirect=["job"])
def test_a_killed_workers_file_is_kept_and_playable(job: ClipJob, tmp_path: Path, in_blocks: bool) -> None:
    opened = tmp_path / "opened"

    def die_on_the_way() -> None:
        link = FakeLink()

        def on_event(event: Event) -> None:
            if isinstance(event, FileOpened):
                opened.write_bytes(encode(event.part))

        link.on_event = on_event
        muxing.ResultFile.write = dying(muxing.ResultFile.write, 1700)  # type: ignore[method-assign]
        copying._Recording.read = dying(copying._Recording.read, 12)  # type: ignore[method-assign]
        do(job, link, in_blocks=in_blocks)

    status = in_child(die_on_the_way)
    assert os.WTERMSIG(status) == signal.SIGKILL
    part = msgspec.msgpack.decode(opened.read_bytes(), type=PartFile)
    ghost = PartFile(part_name="ghost.mp4.part", name="ghost.mp4", mime_type="video/mp4", first_us=T0)
    empty = PartFile(part_name="empty.mkv.part", name="empty.mkv", mime_type="video/x-matroska", first_us=T0)
    half = PartFile(part_name="half.zip.part", name="half.zip", mime_type="application/zip", first_us=T0)
    (Path(job.folder) / "empty.mkv.part").write_bytes(b"\x1aE\xdf\xa3")
    (Path(job.folder) / "half.zip.part").write_bytes(b"PK")
    made = do(SalvageJob(folder=job.folder, parts=(ghost, part, empty, half)))
    assert made.ended.succeeded
    found = numbers(made.file, flawless=False)
    assert found == list(range(len(found)))
    assert len(found) > 450, "no more than the last fragments are lost"
    judged = judge(made.file, flawless=False)
    assert judged.frames == pytest.approx([n / 25 for n in found], abs=0.0011)
    assert abs(judged.sound[0]) < 0.022
    (done,) = made.link.done
    assert (done.first_us, done.last_us) == (T0, T0 + found[-1] * FRAME)
    assert done.size == made.file.stat().st_size
    assert [line.split(":")[0] for line in made.link.notes.splitlines()] == ["ghost.mp4", "empty.mkv", "half.zip"]


def test_nothing_to_keep(tmp_path: Path) -> None:
    part = PartFile(part_name="a.mp4.part", name="a.mp4", mime_type="video/mp4", first_us=T0)
    (tmp_path / "a.mp4.part").write_bytes(b"")
    made = do(SalvageJob(folder=str(tmp_path), parts=(part,)))
    assert not made.ended.succeeded
    assert made.link.notes == "a.mp4: it is empty; nothing of it can be kept"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("job", CONTAINERS, indirect=True)
def test_a_disk_that_fills_up_ends_the_clip_with_what_is_readable(job: ClipJob, tmp_path: Path) -> None:
    limit = 150_000
    report = tmp_path / "report"

    def fill_up() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        link = FakeLink()
        ended = run(job, link)
        report.write_text(f"{ended.succeeded}\n{ended.reason}\n{link.done[0].last_us}")

    assert in_child(fill_up) == 0
    succeeded, reason, last_us = report.read_text().splitlines()
    assert succeeded == "False"
    assert reason.endswith("ends there")
    (path,) = Path(job.folder).iterdir()
    assert path.suffix == f".{job.container}"
    assert path.stat().st_size <= limit
    found = numbers(path, flawless=False)
    assert found == sorted(set(found))
    assert found[-1] - len(found) < 3, "none is missing but among the last, where B-frames come after their P-frame"
    assert len(found) > 250
    assert int(last_us) == T0 + found[-1] * FRAME


@pytest.mark.parametrize("job", ["mp4"], indirect=True)
def test_a_folder_that_is_gone_is_an_outcome(job: ClipJob) -> None:
    Path(job.folder).rmdir()
    ended = run(job, FakeLink())
    assert not ended.succeeded
    assert "can't be written: No such file or directory" in ended.reason


@pytest.mark.parametrize("job", CONTAINERS, indirect=True)
def test_a_file_can_be_read_while_it_is_written(job: ClipJob) -> None:
    seen: list[int] = []
    link = FakeLink()

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and not seen:
            for part in Path(job.folder).glob("*.part"):
                seen.append(part.stat().st_size)

    link.on_event = on_event
    made = do(job, link)
    assert seen
    assert numbers(made.file) == list(range(1000))
    judge(made.file)


@pytest.mark.parametrize("job", CONTAINERS, indirect=True)
def test_what_the_disk_says_while_the_file_grows_is_not_lost(job: ClipJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(results, "SYNC_BYTES", 1)
    monkeypatch.setattr(os, "fdatasync", refuse)
    made = do(job)
    assert not made.ended.succeeded
    assert made.ended.reason.endswith("can't be written: Input/output error")
