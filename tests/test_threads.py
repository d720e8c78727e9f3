"""Threads for what may wait: a disk that hangs keeps only those waiting who ask for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from vx import survey
from vx.config.reading import parse
from vx.jobs import ClipJob, SnapshotJob, Source
from vx.session.budget import Recorded
from vx.threads import Threads, ThreadsApart


@pytest.fixture
def disk() -> Iterator[threading.Event]:
    """One that hangs until it is set."""
    answers = threading.Event()
    yield answers
    answers.set()


async def test_so_many_at_a_time(disk: threading.Event) -> None:
    threads = Threads("test", 2)
    begun = threading.Semaphore(0)

    def look() -> None:
        begun.release()
        disk.wait()

    async with trio.open_nursery() as asking:
        for _ in range(3):
            asking.start_soon(threads.run, look)
        for _ in range(2):
            await trio.to_thread.run_sync(begun.acquire)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not begun.acquire(blocking=False)
        disk.set()
    assert begun.acquire(blocking=False)


async def test_one_that_hangs_holds_up_no_other_and_is_left_behind(disk: threading.Event) -> None:
    threads = ThreadsApart("test", 2)

    async def ask() -> None:
        await threads.run("dead", disk.wait)

    async with trio.open_nursery() as asking:
        for _ in range(5):
            asking.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await threads.run("alive", int, "7") == 7
        asking.cancel_scope.cancel()
    with trio.move_on_after(0.05) as scope:
        await threads.run("dead", int, "7")
    assert scope.cancelled_caught, "its threads are still there"


async def test_an_export_of_one_camera_does_not_wait_for_the_disk_of_another(
    disk: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded(job: ClipJob | SnapshotJob, source: Source) -> Recorded:
        if source.name == "dead":
            disk.wait()
        return Recorded((), 1000)

    monkeypatch.setattr(survey, "recorded", recorded)
    config = parse(f'state_dir = "{tmp_path}"')

    def job(name: str) -> ClipJob:
        source = Source(origin=name, name=name, pattern=f"/{name}/%s.mp4", timezone="UTC")
        return ClipJob(folder="", sources=(source,), start_us=0, end_us=1, container="mp4")

    async with trio.open_nursery() as asking:
        for _ in range(5):
            asking.start_soon(survey.survey, config, tmp_path, job("dead"), {})
        await trio.testing.wait_all_tasks_blocked(0.05)
        found = await survey.survey(config, tmp_path, job("alive"), {})
        assert [source.size for source in found.recorded] == [1000]
        asking.cancel_scope.cancel()
