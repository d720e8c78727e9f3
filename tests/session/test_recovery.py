"""What a server makes of what an earlier one left: sessions, files, the clock."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.session.fakes import COMPLETED, REQUEST, MemoryStore
from tests.session.rig import Rig, refused
from vx.errors import Kind
from vx.jobs import PartFile, SalvageJob
from vx.model import Delivery, Record, State
from vx.session import folders

INTERRUPTED = "the server ended, or was killed, while the export was under way"


class Life:
    """Servers one after the other on one state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "sessions"
        self.store = MemoryStore()

    @asynccontextmanager
    async def server(self, *, salvaged: bytes = b"") -> AsyncIterator[Rig]:
        """One that is killed when the block ends; its salvaging workers find `salvaged` in each part."""
        async with trio.open_nursery() as nursery:
            rig = Rig(self.folder, nursery, store=self.store)
            nursery.start_soon(rig.registry.deadlines.reap, rig.registry.expire)
            async with trio.open_nursery() as salvagers:
                salvagers.start_soon(self._salvage, rig, salvaged)
                await rig.registry.recover()
                salvagers.cancel_scope.cancel()
            rig.workers.workers.clear()
            yield rig
            # Killed: nothing more of what it does reaches the disk.
            self.store = replace(self.store, records=dict(self.store.records), audit=list(self.store.audit))
            rig.registry._folder = self.folder / "nowhere"
            nursery.cancel_scope.cancel()

    async def _salvage(self, rig: Rig, data: bytes) -> None:
        count = 0
        while True:
            count += 1
            worker = await rig.workers.wait_started(count)
            assert isinstance(worker.job, SalvageJob)
            for part in worker.job.parts:
                if data:
                    worker.write(part.name, data)
                if part.part_name != part.name:
                    await trio.Path(worker.job.folder, part.part_name).unlink()
            worker.end()

    def only(self) -> Record:
        (record,) = self.store.records.values()
        return record


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


async def noted(clock: trio.testing.MockClock) -> None:
    """Wait until the store knows what workers have reported."""
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(1)
    await trio.testing.wait_all_tasks_blocked()


async def test_a_running_session_is_completed_with_what_can_be_read(
    life: Life, mock_clock: trio.testing.MockClock
) -> None:
    async with life.server() as rig:
        session_id, worker = await rig.start()
        worker.open_part("clip.mp4")
        await noted(mock_clock)
    assert life.only().state is State.RUNNING
    assert [part.name for part in life.only().parts] == ["clip.mp4"]

    async with life.server(salvaged=b"readable") as rig:
        record = rig.registry.get(session_id)
        assert (record.state, record.succeeded, record.reason) == (State.COMPLETED, False, INTERRUPTED)
        assert [(file.id, file.size) for file in record.files] == [("clip.mp4", 8)]
        assert record.last_frame_us == 2_000_000
        assert record == life.only()
        with rig.registry.lease(session_id, "clip.mp4", on_lost=lambda: None) as lease:
            assert lease.path.read_bytes() == b"readable"
    async with life.server() as rig:  # and it stays so
        assert rig.registry.get(session_id) == record
        assert not rig.workers.workers


async def test_what_the_worker_completed_unnoticed_is_kept(life: Life, mock_clock: trio.testing.MockClock) -> None:
    """Between the rename of a file and the news of it, or its saving, the server was killed."""
    async with life.server() as rig:
        session_id, worker = await rig.start()
        worker.open_part("clip.mp4")
        await noted(mock_clock)
        folder = rig.folder / session_id
        (folder / "clip.mp4.part").rename(folder / "clip.mp4")
    async with life.server(salvaged=b"half") as rig:
        assert [(file.id, file.size) for file in rig.registry.get(session_id).files] == [("clip.mp4", 4)]


def test_an_encrypted_file_is_known_without_looking_at_it(tmp_path: Path) -> None:
    part = PartFile(part_name="a.zip.part", name="a.zip", mime_type="application/zip", first_us=7)
    (tmp_path / "a.zip").write_bytes(b"12345")
    ((file,), readable) = folders.left_behind(tmp_path, (part,))
    assert (file.id, file.size, file.first_us, file.last_us, readable) == ("a.zip", 5, 7, 7, [])


async def test_of_several_pictures_those_that_were_done_are_kept(
    life: Life, mock_clock: trio.testing.MockClock
) -> None:
    async with life.server() as rig:
        session_id, worker = await rig.start()
        worker.write("a.jpg", b"whole")
        await noted(mock_clock)
        (rig.folder / session_id / "b.jpg").write_bytes(b"half of")
    async with life.server() as rig:
        record = rig.registry.get(session_id)
        assert (record.reason, [file.id for file in record.files]) == (INTERRUPTED, ["a.jpg"])
        assert [path.name for path in (rig.folder / session_id).iterdir()] == ["a.jpg"]


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_an_old_worker_still_writes_is_swept_when_it_has_ended(life: Life, is_known: bool) -> None:
    """A server that is killed leaves its workers to notice it, also those of sessions that were not saved yet."""
    async with life.server() as rig:
        session_id, _ = await rig.start()
        folder = rig.folder / session_id
    if not is_known:
        life.store.records.clear()
    worker = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(worker, fcntl.LOCK_SH)

    async def end() -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        (folder / "late.jpg").write_bytes(b"late")
        os.close(worker)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        async with life.server() as rig:
            left = [str(path.relative_to(rig.folder)) for path in rig.folder.rglob("*")]
            assert left == ([session_id] if is_known else [])


async def test_a_session_that_waited_is_over(life: Life) -> None:
    async with life.server() as rig:
        for _ in range(6):
            await rig.registry.start(REQUEST)
    async with life.server() as rig:
        assert [record.reason for record in rig.registry.page(0, 10)] == [INTERRUPTED] * 6
        for _ in range(4):
            await rig.start()  # and holds no place


async def test_half_written_files_and_folders_without_a_row_are_swept(life: Life) -> None:
    async with life.server() as rig:
        session_id = await rig.complete("clip.mp4")
        folder = rig.folder / session_id
        (folder / "other.mp4.part").write_bytes(b"half")
        (folder / "unlisted.mp4").write_bytes(b"whole, but no result")
        (rig.folder / ("b" * 32)).mkdir()
        (rig.folder / ("b" * 32) / "clip.mp4").write_bytes(b"of nobody")
    async with life.server() as rig:
        assert [path.name for path in rig.folder.iterdir()] == [session_id]
        assert [path.name for path in folder.iterdir()] == ["clip.mp4"]


async def test_completed_sessions_get_a_fresh_hour(life: Life, autojump_clock: trio.testing.MockClock) -> None:
    async with life.server() as rig:
        session_id = await rig.complete("clip.mp4")
        await trio.sleep(3000)
    await trio.sleep(80_000)  # the machine was off
    async with life.server() as rig:
        await trio.sleep(3599)
        assert rig.state(session_id) is State.COMPLETED
        await trio.sleep(2)
        assert rig.state(session_id) is State.REMOVED
    assert not (rig.folder / session_id).exists()


async def test_ten_thousand_sessions_go_when_each_is_due(life: Life, autojump_clock: trio.testing.MockClock) -> None:
    ids = [str(number) for number in range(10_000)]
    rng = random.Random(5)
    life.store.records = {each: replace(COMPLETED, id=each, number=int(each) + 1, files=()) for each in ids}
    async with life.server() as rig:
        asked = {session_id: trio.current_time() + rng.randrange(3600) for session_id in ids}
        for session_id, moment in sorted(asked.items(), key=lambda item: item[1]):
            await trio.sleep_until(moment)
            rig.registry.get(session_id)
        await trio.sleep(3601)
        removed = {key: record.removed_us for key, record in life.store.records.items()}
        assert removed == {key: round((moment + 3600) * 1e6) for key, moment in asked.items()}
        await trio.sleep_until(trio.current_time() + 86_401)
        forgotten = {entry.session_id: entry.at_us for entry in life.store.audit if entry.detail.startswith("its row")}
        assert forgotten == {key: round((moment + 3600 + 86_400) * 1e6) for key, moment in asked.items()}
        assert rig.registry.page(0, 1) == []
    assert not life.store.records


async def test_removed_rows_are_forgotten_when_their_day_is_over(
    life: Life, autojump_clock: trio.testing.MockClock
) -> None:
    async with life.server() as rig:
        session_id = await rig.complete("clip.mp4")
        await trio.sleep(3601)
        assert rig.state(session_id) is State.REMOVED
        await trio.sleep(40_000)
    async with life.server() as rig:
        await trio.sleep(46_398)
        assert rig.state(session_id) is State.REMOVED
        await trio.sleep(3)
        assert rig.registry.page(0, 10) == []
    assert life.store.records == {}


@pytest.mark.parametrize("clock_error_us", [-10 * 86_400_000_000, 10 * 86_400_000_000])
async def test_a_wall_clock_that_was_wrong_keeps_no_row_for_ever(
    life: Life, clock_error_us: int, autojump_clock: trio.testing.MockClock
) -> None:
    removed_us = round(trio.current_time() * 1e6) + clock_error_us
    life.store.records["x"] = replace(COMPLETED, id="x", number=1, state=State.REMOVED, removed_us=removed_us)
    async with life.server() as rig:
        await trio.sleep(86_400 - 1)
        await trio.sleep(2)
        assert rig.registry.page(0, 10) == []


async def test_a_removed_session_whose_files_were_not_deleted_yet(life: Life) -> None:
    async with life.server() as rig:
        session_id = await rig.complete("clip.mp4")
    life.store.records[session_id] = replace(life.only(), state=State.REMOVED, files=(), removed_us=0)
    async with life.server() as rig:
        assert list(rig.folder.iterdir()) == []


async def test_numbers_go_on_so_that_tokens_stay_good(life: Life) -> None:
    async with life.server() as rig:
        ids = [await rig.complete() for _ in range(4)]
        token = rig.registry.page(0, 2)[-1].number
        await rig.registry.destroy(ids[1])
        await rig.registry.destroy(ids[3])
    async with life.server() as rig:
        new = await rig.complete()
        assert [record.id for record in rig.registry.page(token, 10)] == [ids[2], new]
        assert rig.registry.get(new).number == 5


async def test_what_is_kept_counts_for_the_disk_again(life: Life) -> None:
    from vx.session.budget import Budget, Survey

    async with life.server() as rig:
        await rig.complete("clip.mp4")
    async with trio.open_nursery() as nursery:
        rig = Rig(life.folder, nursery, store=life.store, budget=Budget(max_total=100))
        await rig.registry.recover()
        rig.disk.survey = Survey(need=90)
        with refused(Kind.EXHAUSTED, "16 bytes are kept"):
            await rig.registry.start(REQUEST)


def test_results_without_a_database_are_set_aside(tmp_path: Path) -> None:
    root, database = tmp_path / "sessions", tmp_path / "vx.sqlite"
    folders.set_aside(root, database)
    (root / "a").mkdir(parents=True)
    (root / "a" / "clip.mp4").write_bytes(b"evidence")
    folders.set_aside(root, database)
    assert not root.exists()
    (aside,) = tmp_path.glob("sessions-without-database-*/a/clip.mp4")
    assert aside.read_bytes() == b"evidence"
    (root / "b").mkdir(parents=True)
    database.touch()
    folders.set_aside(root, database)
    assert (root / "b").exists()


async def test_a_listed_file_that_is_gone_is_told(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    async with life.server() as rig:
        session_id = await rig.complete("clip.mp4")
        (rig.folder / session_id / "clip.mp4").write_bytes(b"cut")
    async with life.server():
        pass
    assert f"session {session_id}: its file clip.mp4 is not what it was" in caplog.text


async def test_what_was_to_be_delivered_is_delivered_after_the_restart(
    life: Life, tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    target = tmp_path / "agent"
    target.mkdir()
    async with life.server() as rig:
        session_id, worker = await rig.start(delivery=Delivery(str(target), str(target), "case"))
        worker.open_part("clip.mp4")
        await noted(mock_clock)
    async with life.server(salvaged=b"readable") as rig:
        (file,) = rig.registry.get(session_id).files
        assert file.path == f"{target}/case.mp4"
        assert list((rig.folder / session_id).iterdir()) == []
    assert (target / "case.mp4").read_bytes() == b"readable"
