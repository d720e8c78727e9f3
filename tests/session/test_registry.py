from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.session.fakes import REQUEST, FakeWorker, FakeWorkers
from vx.errors import Kind, VxError
from vx.jobs import Note, Progress, SalvageJob
from vx.model import State
from vx.session.registry import NO_SESSION, Lifetimes, Registry
from vx.session.store import MemoryStore

LIFETIMES = Lifetimes(running=1800, completed=3600, removed=86_400, stop=10)


@contextmanager
def refused(kind: Kind, text: str) -> Iterator[None]:
    with pytest.raises(VxError, match=text) as caught:
        yield
    assert caught.value.kind is kind


class Rig:
    """A registry over fake workers, with its reaper at work."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.workers = FakeWorkers()
        self.store = MemoryStore()
        self.registry = Registry(folder, self.workers, self.store, LIFETIMES, 4, nursery)

    async def start(self) -> tuple[str, FakeWorker]:
        record = await self.registry.start(REQUEST)
        return record.id, await self.workers.wait_started(len(self.workers.workers) + 1)

    async def complete(self, *files: str) -> str:
        session_id, worker = await self.start()
        for name in files:
            worker.write(name, b"data of " + name.encode())
        worker.end()
        await trio.testing.wait_all_tasks_blocked()
        assert self.state(session_id) is State.COMPLETED
        return session_id

    def state(self, session_id: str) -> State:
        """Without the renewal that asking would mean."""
        return self.registry._sessions[session_id].record.state


@pytest.fixture
async def rig(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "sessions", nursery)
    nursery.start_soon(rig.registry.deadlines.reap, rig.registry.expire)
    yield rig
    for worker in rig.workers.workers:
        worker.obeys = True


async def test_a_session_lives_from_start_to_destroy(rig: Rig) -> None:
    session_id, worker = await rig.start()
    record = rig.registry.get(session_id)
    assert (record.state, record.files, record.last_frame_us) == (State.RUNNING, (), None)
    assert worker.job.folder == str(rig.folder / session_id)

    worker.send(Progress(last_frame_us=5), Note(level="warning", text="a gap"))
    await trio.testing.wait_all_tasks_blocked()
    assert rig.registry.get(session_id).last_frame_us == 5

    worker.write("clip.mp4", b"12345")
    worker.end()
    await trio.testing.wait_all_tasks_blocked()
    record = rig.registry.get(session_id)
    assert (record.state, record.succeeded) == (State.COMPLETED, True)
    assert [(file.id, file.size) for file in record.files] == [("clip.mp4", 5)]
    assert worker.closed
    assert await rig.store.load() == [record]

    await rig.registry.destroy(session_id)
    assert await rig.store.load() == []
    assert not (rig.folder / session_id).exists()
    with refused(Kind.NOT_FOUND, NO_SESSION):
        rig.registry.get(session_id)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does (deleting files). The virtual clock does not see threads: it runs on meanwhile."""
    for _ in range(10_000):
        if await trio.to_thread.run_sync(condition):
            return
    raise AssertionError("it has not happened")


async def test_unknown_ids_are_not_found_in_every_method(rig: Rig) -> None:
    with refused(Kind.NOT_FOUND, NO_SESSION):
        await rig.registry.stop("x")
    with refused(Kind.NOT_FOUND, NO_SESSION):
        await rig.registry.destroy("x")
    with refused(Kind.NOT_FOUND, NO_SESSION), rig.registry.lease("x", "y", on_lost=lambda: None):
        pass


async def test_stop_waits_until_the_file_is_finalised(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    session_id, worker = await rig.start()
    worker.obeys = False
    stopped = trio.Event()

    async def stop() -> None:
        record = await rig.registry.stop(session_id)
        assert (record.state, record.succeeded, len(record.files)) == (State.COMPLETED, True, 1)
        stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        nursery.start_soon(stop)  # a second client, or an impatient one
        await trio.sleep(1)
        assert worker.stops == 1
        assert rig.registry.get(session_id).state is State.STOPPING
        assert not stopped.is_set()
        worker.write("clip.mp4", b"short")
        worker.end()
    record = await rig.registry.stop(session_id)
    assert record.state is State.COMPLETED


async def test_a_worker_that_does_not_stop_is_killed_and_its_file_salvaged(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    session_id, worker = await rig.start()
    worker.obeys = False
    worker.open_part("clip.mp4")

    async def salvage() -> None:
        salvager = await rig.workers.wait_started(2)
        assert worker.closed
        assert isinstance(salvager.job, SalvageJob)
        assert [part.name for part in salvager.job.parts] == ["clip.mp4"]
        salvager.write("clip.mp4", b"what could be saved")
        salvager.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(salvage)
        began = trio.current_time()
        record = await rig.registry.stop(session_id)
    assert trio.current_time() - began == LIFETIMES.stop
    assert (record.state, record.succeeded) == (State.COMPLETED, False)
    assert "did not finish within 10 s" in record.reason
    assert [file.id for file in record.files] == ["clip.mp4"]


async def test_a_worker_that_dies_fails_its_session_alone(rig: Rig) -> None:
    first, worker = await rig.start()
    second, other = await rig.start()
    worker.write("whole.mp4", b"whole")
    worker.die()
    await trio.testing.wait_all_tasks_blocked()
    record = rig.registry.get(first)
    assert (record.state, record.succeeded) == (State.COMPLETED, False)
    assert record.reason == "the worker process died: signal SIGKILL"
    assert [file.id for file in record.files] == ["whole.mp4"]
    assert rig.registry.get(second).state is State.RUNNING
    other.end()


async def test_no_worker_to_be_had_fails_the_session(rig: Rig) -> None:
    rig.workers.fails = OSError(11, "Resource temporarily unavailable")
    record = await rig.registry.start(REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    assert "no worker process could be started" in rig.registry.get(record.id).reason


async def test_of_twenty_sessions_four_run_and_the_others_are_refused(rig: Rig) -> None:
    started: list[str] = []
    errors: list[str] = []

    async def start() -> None:
        try:
            started.append((await rig.registry.start(REQUEST)).id)
        except VxError as error:
            errors.append(f"{error.kind.name} {error}")

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(start)
    assert (len(started), len(errors)) == (4, 16)
    assert set(errors) == {"EXHAUSTED 4 sessions are running, and at most 4 may at a time"}

    (await rig.workers.wait_started(1)).end()
    await trio.testing.wait_all_tasks_blocked()
    await rig.registry.start(REQUEST)


async def test_a_full_disk_refuses_the_session_and_frees_its_place(rig: Rig) -> None:
    rig.folder.write_text("not a folder")
    for _ in range(5):
        with refused(Kind.EXHAUSTED, "folder cannot be made"):
            await rig.registry.start(REQUEST)


async def test_files_live_an_hour_after_the_last_question(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    session_id = await rig.complete("clip.mp4")
    await trio.sleep(3000)
    rig.registry.get(session_id)
    await trio.sleep(3599)
    assert (rig.folder / session_id / "clip.mp4").exists()
    await trio.sleep(2)
    await trio.testing.wait_all_tasks_blocked()
    assert [record.state for record in rig.registry.page(0, 10)] == [State.REMOVED]
    await wait_until(lambda: not (rig.folder / session_id).exists())

    await trio.sleep(86_400)
    await wait_until(lambda: rig.registry.page(0, 10) == [])
    with refused(Kind.NOT_FOUND, NO_SESSION):
        rig.registry.get(session_id)


async def test_a_download_holds_the_files_and_renews_their_hour(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    session_id = await rig.complete("clip.mp4")
    with rig.registry.lease(session_id, "clip.mp4", on_lost=lambda: None) as lease:
        await trio.sleep(80_000)
        rig.registry.get(session_id)
        await trio.sleep(80_000)
        assert lease.path.read_bytes() == b"data of clip.mp4"
    await trio.sleep(3599)
    assert lease.path.exists()
    await trio.sleep(2)
    await wait_until(lambda: not lease.path.exists())


async def test_a_running_session_that_nobody_asks_about_is_stopped(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    session_id, worker = await rig.start()
    await trio.sleep(1700)
    rig.registry.get(session_id)
    await trio.sleep(1700)
    assert rig.state(session_id) is State.RUNNING
    await trio.sleep(101)
    assert worker.stops == 1
    assert rig.state(session_id) is State.COMPLETED


async def test_destroy_ends_a_download_and_a_running_export(rig: Rig) -> None:
    session_id = await rig.complete("clip.mp4")
    with trio.CancelScope() as download, rig.registry.lease(session_id, "clip.mp4", on_lost=download.cancel):
        await rig.registry.destroy(session_id)
        await trio.sleep_forever()
    assert download.cancelled_caught
    assert rig.registry.page(0, 10) == []

    running, worker = await rig.start()
    await rig.registry.destroy(running)
    assert worker.stops == 1
    assert not (rig.folder / running).exists()


async def test_two_clients_destroy_the_same_session(rig: Rig) -> None:
    session_id, worker = await rig.start()
    worker.obeys = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.registry.destroy, session_id)
        nursery.start_soon(rig.registry.destroy, session_id)
        await trio.testing.wait_all_tasks_blocked()
        worker.end()
    assert rig.registry.page(0, 10) == []


async def test_files_cannot_be_leased_before_the_end_or_by_a_path(rig: Rig) -> None:
    session_id, worker = await rig.start()
    with (
        refused(Kind.PRECONDITION, "still running"),
        rig.registry.lease(session_id, "clip.mp4", on_lost=lambda: None),
    ):
        pass
    worker.end()
    await trio.testing.wait_all_tasks_blocked()
    for path in ("../../etc/passwd", "/etc/passwd", "clip.mp4\0", ""):
        with refused(Kind.NOT_FOUND, "has no file"), rig.registry.lease(session_id, path, on_lost=lambda: None):
            pass


async def test_pages_show_every_session_once_although_some_go_meanwhile(rig: Rig) -> None:
    ids = [await rig.complete() for _ in range(9)]
    first = rig.registry.page(0, 3)
    assert [record.id for record in first] == ids[:3]
    await rig.registry.destroy(ids[1])
    await rig.registry.destroy(ids[2])
    await rig.registry.destroy(ids[4])
    late = await rig.complete()
    second = rig.registry.page(first[-1].number, 3)
    assert [record.id for record in second] == [ids[3], ids[5], ids[6]]
    third = rig.registry.page(second[-1].number, 3)
    assert [record.id for record in third] == [ids[7], ids[8], late]
    assert rig.registry.page(third[-1].number, 3) == []


async def test_closing_finalises_what_runs_and_takes_nothing_more(rig: Rig) -> None:
    session_id, worker = await rig.start()
    worker.write("clip.mp4", b"kept")
    await rig.registry.close()
    assert worker.stops == 1
    assert (rig.state(session_id), len(rig.registry.get(session_id).files)) == (State.COMPLETED, 1)
    with refused(Kind.UNAVAILABLE, "shutting down"):
        await rig.registry.start(REQUEST)


async def test_cancelling_everything_still_completes_the_record(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path / "sessions", nursery)
        session_id, worker = await rig.start()
        nursery.cancel_scope.cancel()
    assert worker.closed
    (record,) = await rig.store.load()
    assert (record.id, record.state, record.succeeded) == (session_id, State.COMPLETED, False)


async def test_a_call_that_is_cancelled_does_not_cancel_its_session(rig: Rig) -> None:
    with trio.CancelScope() as call:
        call.cancel()
        await rig.registry.start(REQUEST)
    (record,) = rig.registry.page(0, 10)
    await rig.workers.wait_started(1)
    assert record.state is State.RUNNING


async def test_folders_of_unknown_sessions_are_swept(rig: Rig) -> None:
    session_id = await rig.complete("clip.mp4")
    stray = rig.folder / "left-behind"
    stray.mkdir()
    (stray / "half.mp4.part").write_bytes(b"half")
    outside = rig.folder.parent / "outside"
    outside.mkdir()
    (rig.folder / "link").symlink_to(outside)
    await rig.registry.sweep()
    assert not stray.exists()
    assert outside.exists()
    assert (rig.folder / session_id / "clip.mp4").exists()
