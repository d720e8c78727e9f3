from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from tests.session.fakes import ALICE, BOB, BROKEN, CAROL, COMPLETED, FULL, REQUEST, MemoryStore
from tests.session.rig import LIFETIMES, Rig, refused, wait_until
from vx import disk
from vx.errors import Kind
from vx.jobs import Live, Note, Progress, SalvageJob, SnapshotJob
from vx.model import State
from vx.session.budget import Budget, Recorded, Survey
from vx.session.roster import NO_SESSION
from vx.session.store import StoreError
from vx.session.turns import Turns


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
    assert list(rig.store.records.values()) == [record]

    await rig.registry.destroy(session_id)
    assert rig.store.records == {}
    assert [(entry.what, entry.session_id) for entry in rig.store.audit] == [
        (what, session_id) for what in ("start", "end", "remove")
    ]
    assert not (rig.folder / session_id).exists()
    with refused(Kind.NOT_FOUND, NO_SESSION):
        rig.registry.get(session_id)


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
    (rig.folder / first / "half.jpg").write_bytes(b"half")
    worker.die()
    await trio.testing.wait_all_tasks_blocked()
    record = rig.registry.get(first)
    assert (record.state, record.succeeded) == (State.COMPLETED, False)
    assert record.reason == "the worker process died: signal SIGKILL"
    assert [file.id for file in record.files] == ["whole.mp4"]
    assert [path.name for path in (rig.folder / first).iterdir()] == ["whole.mp4"]
    assert rig.registry.get(second).state is State.RUNNING
    other.end()


async def test_no_worker_to_be_had_fails_the_session(rig: Rig) -> None:
    rig.workers.fails = OSError(11, "Resource temporarily unavailable")
    record = await rig.registry.start(REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    assert "no worker process could be started" in rig.registry.get(record.id).reason


async def test_of_twenty_sessions_four_run_and_the_others_wait_their_turn(rig: Rig) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(rig.registry.start, REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    states = [record.state for record in rig.registry.page(0, 20)]
    assert (len(rig.workers.workers), states.count(State.QUEUED)) == (4, 16)
    for count in range(1, 21):
        (await rig.workers.wait_started(count)).end()
        await trio.testing.wait_all_tasks_blocked()
        running = [record.state for record in rig.registry.page(0, 20)].count(State.RUNNING)
        assert running == min(4, 20 - count)
    assert all(record.succeeded for record in rig.registry.page(0, 20))
    ids = [record.id for record in rig.registry.page(0, 20)]
    began = [worker.job.folder.rpartition("/")[2] for worker in rig.workers.workers]
    assert (set(began[:4]), began[4:]) == (set(ids[:4]), ids[4:])


async def test_a_full_queue_refuses(tmp_path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(tmp_path / "sessions", nursery, turns=Turns(1, 1))
    first, _ = await rig.start()
    waiting = (await rig.registry.start(REQUEST)).id
    for _ in range(3):
        with refused(Kind.EXHAUSTED, "1 sessions are running, and at most 1 may at a time; 1 wait, and at most 1 may"):
            await rig.registry.start(REQUEST)
    await rig.registry.destroy(waiting)
    await rig.registry.start(REQUEST)
    await rig.registry.destroy(first)
    await rig.workers.wait_started(2)
    assert [record.state for record in rig.registry.page(0, 9)] == [State.RUNNING]
    assert sorted(path.name for path in rig.folder.iterdir()) == sorted(rig.store.records)
    rig.workers.workers[1].end()


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


@pytest.mark.parametrize(
    ("live", "by", "succeeded", "told"),
    [
        (None, "a client", True, "it was stopped on request, before its end"),
        (None, "nobody", False, "it was stopped before its end: nobody asked about it for 1800 s"),
        (None, "shutdown", False, "it was stopped before its end: the server was shut down"),
        (Live(duration_us=10**12), "nobody", False, "it was stopped before its end: nobody asked about it for 300 s"),
        (Live(), "nobody", True, "it was stopped: nobody asked about it for 300 s"),
        (Live(), "shutdown", True, "it was stopped: the server was shut down"),
        (Live(), "a client", True, ""),
    ],
)
async def test_what_was_stopped_before_its_end_says_so(
    rig: Rig, autojump_clock: trio.testing.MockClock, live: Live | None, by: str, succeeded: bool, told: str
) -> None:
    record = await rig.registry.start(replace(REQUEST, job=msgspec.structs.replace(REQUEST.job, live=live)))
    (await rig.workers.wait_started(1)).write("clip.mp4", b"a part")
    await trio.testing.wait_all_tasks_blocked()
    if by == "a client":
        await rig.registry.stop(record.id)
    elif by == "shutdown":
        await rig.registry.close()
    else:
        await trio.sleep(1801)
    record = rig.registry.get(record.id)
    assert (record.succeeded, record.reason) == (succeeded, "" if succeeded else told)
    assert [remark.text for remark in record.report.remarks] == ([told] if told else [])
    assert len(record.files) == 1


async def test_what_was_done_when_the_server_stopped_it_has_succeeded(rig: Rig) -> None:
    session_id, worker = await rig.start()
    worker.end()
    await rig.registry.close()
    record = rig.registry.get(session_id)
    assert (record.succeeded, record.report.remarks) == (True, ())


async def test_a_stopped_clip_is_as_far_as_it_came(rig: Rig) -> None:
    rig.disk.survey = Survey(recorded=(Recorded(spans_us=((0, 1_000_000),), size=1),))
    session_id, worker = await rig.start()
    worker.send(Progress(last_frame_us=250_000, source=0))
    await trio.testing.wait_all_tasks_blocked()
    await rig.registry.stop(session_id)
    assert rig.registry.standing(session_id).share == 0.25


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_live_stream_that_nobody_asks_about_is_stopped_sooner(
    rig: Rig, autojump_clock: trio.testing.MockClock, is_stream: bool
) -> None:
    clip = msgspec.structs.replace(REQUEST.job, live=Live())
    picture = SnapshotJob(folder="", sources=(), at_us=0, live=Live())
    record = await rig.registry.start(replace(REQUEST, job=clip if is_stream else picture))
    worker = await rig.workers.wait_started(1)
    await trio.sleep(290)
    rig.registry.get(record.id)
    await trio.sleep(290)
    assert rig.state(record.id) is State.RUNNING
    await trio.sleep(11)
    assert rig.state(record.id) is (State.COMPLETED if is_stream else State.RUNNING)
    assert worker.stops == is_stream
    await trio.sleep(1500)
    assert rig.state(record.id) is State.COMPLETED
    assert worker.stops == 1


async def test_destroy_ends_a_download_and_a_running_export(rig: Rig) -> None:
    session_id = await rig.complete("clip.mp4")
    with trio.CancelScope() as download, rig.registry.lease(session_id, "clip.mp4", on_lost=download.cancel):
        await rig.registry.destroy(session_id)
        await trio.sleep_forever()
    assert download.cancelled_caught
    await trio.testing.wait_all_tasks_blocked()
    assert rig.registry.page(0, 10) == []  # although the one who asked for it didn't stay

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
    (record,) = rig.store.records.values()
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
    async with trio.open_nursery() as nursery:
        later = Rig(rig.folder, nursery, store=rig.store)
        await later.registry.recover()
    assert not stray.exists()
    assert outside.exists()
    assert (rig.folder / session_id / "clip.mp4").exists()


# ---- what is promised


async def test_nothing_is_told_that_is_not_saved(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    rig.store.held = trio.Event()
    answered = trio.Event()

    async def start() -> None:
        await rig.registry.start(REQUEST, ALICE)
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        await trio.testing.wait_all_tasks_blocked()
        assert not answered.is_set()
        assert rig.registry.page(0, 10) == []
        rig.store.held.set()
    (record,) = rig.registry.page(0, 10)
    assert rig.store.records[record.id].started_by == ALICE

    rig.store.held = trio.Event()
    (await rig.workers.wait_started(1)).end()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.state(record.id) is State.RUNNING
    rig.store.held.set()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.state(record.id) is State.COMPLETED

    await trio.sleep(3599.5)
    rig.store.held = trio.Event()
    await trio.sleep(1)
    assert rig.state(record.id) is State.COMPLETED
    rig.store.held.set()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.state(record.id) is State.REMOVED


async def test_a_session_that_exists_has_its_folder_on_the_disk(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[set[str]] = []
    monkeypatch.setattr(disk, "sync", lambda folder: synced.append({each.name for each in folder.iterdir()}))
    rig.store.held = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.registry.start, REQUEST)
        await trio.testing.wait_all_tasks_blocked()
        assert synced == [{rig.workers.workers[0].job.folder.rpartition("/")[2]}]
        rig.store.held.set()
    rig.workers.workers[0].end()


async def test_a_session_begins_while_its_start_is_saved(rig: Rig) -> None:
    rig.store.held = saved = trio.Event()
    answers = []

    async def start() -> None:
        answers.append(await rig.registry.start(REQUEST))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        worker = await rig.workers.wait_started(1)
        worker.write("a.jpg", b"12345")
        worker.end()
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        assert rig.store.records == {}
        saved.set()
    (record,) = answers
    await trio.testing.wait_all_tasks_blocked()
    assert rig.registry.get(record.id).state is State.COMPLETED
    assert [entry.what for entry in rig.store.audit] == ["start", "end"]


async def test_of_a_session_that_could_not_be_saved_nothing_is_left(rig: Rig) -> None:
    rig.store.held = trio.Event()
    rig.store.fails = FULL

    async def start() -> None:
        with refused(Kind.EXHAUSTED, "the disk is full"):
            await rig.registry.start(REQUEST)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        worker = await rig.workers.wait_started(1)
        worker.write("a.jpg", b"12345")
        await trio.testing.wait_all_tasks_blocked()
        rig.store.held.set()
    await trio.testing.wait_all_tasks_blocked()
    assert worker.closed
    assert list(rig.folder.iterdir()) == []
    rig.store.fails = rig.store.held = None
    for _ in range(4):
        (await rig.start())[1].end()


async def test_what_a_worker_reports_does_not_wait_for_the_store(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    session_id, worker = await rig.start()
    rig.store.held = trio.Event()
    worker.open_part("clip.mp4")
    await trio.sleep(1)
    worker.send(Progress(last_frame_us=5))
    await trio.testing.wait_all_tasks_blocked()
    assert rig.registry.get(session_id).last_frame_us == 5
    rig.store.held.set()
    await trio.testing.wait_all_tasks_blocked()
    assert [part.name for part in rig.store.records[session_id].parts] == ["clip.mp4"]
    worker.end()


async def test_a_file_that_its_worker_begins_anew_is_one_file(rig: Rig) -> None:
    session_id, worker = await rig.start()
    worker.open_part("clip.mp4")
    worker.open_part("other.mp4")
    worker.open_part("clip.mp4")
    await trio.testing.wait_all_tasks_blocked()
    assert [part.name for part in rig.registry.get(session_id).parts] == ["other.mp4", "clip.mp4"]
    worker.end()


async def test_a_session_is_complete_before_its_worker_process_is_gone(rig: Rig) -> None:
    rig.workers.lingering = trio.Event()
    session_id, worker = await rig.start()
    worker.end()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.state(session_id) is State.COMPLETED
    assert not worker.closed
    rig.workers.lingering.set()
    await trio.testing.wait_all_tasks_blocked()
    assert worker.closed


async def test_no_session_is_listed_before_one_with_a_lower_number(rig: Rig) -> None:
    slow, rig.store.held = trio.Event(), trio.Event()
    slow = rig.store.held
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.registry.start, REQUEST)
        await trio.testing.wait_all_tasks_blocked()
        rig.store.held = None
        second = await rig.registry.start(REQUEST)
        assert second.number == 2
        assert rig.registry.page(0, 10) == []
        slow.set()
    assert [record.number for record in rig.registry.page(0, 10)] == [1, 2]
    for worker in (await rig.workers.wait_started(1), await rig.workers.wait_started(2)):
        worker.end()


async def test_the_audit_says_who_did_what(rig: Rig) -> None:
    session_id, worker = await rig.start(ALICE)
    worker.write("clip.mp4", b"data")
    await rig.registry.stop(session_id, BOB)
    await rig.registry.stop(session_id, BOB)  # which does nothing any more
    await rig.registry.note_download(session_id, "clip.mp4 from byte 0", ALICE)
    await rig.registry.destroy(session_id, BOB)
    assert [(entry.what, entry.who.name, entry.detail) for entry in rig.store.audit] == [
        ("start", "alice", ""),
        ("stop", "bob", ""),
        ("end", "the server", "1 file(s)"),
        ("download", "alice", "clip.mp4 from byte 0"),
        ("remove", "bob", "all of it"),
    ]


async def test_a_destruction_that_has_begun_goes_on_without_its_caller(rig: Rig) -> None:
    session_id, worker = await rig.start()
    worker.obeys = False
    with trio.move_on_after(0):
        await rig.registry.destroy(session_id)
    worker.end()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.registry.page(0, 10) == []
    assert rig.store.records == {}


async def test_a_stopped_session_never_has_its_turn(tmp_path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(tmp_path / "sessions", nursery, turns=Turns(1, 5))
    _, worker = await rig.start()
    waiting = await rig.registry.start(REQUEST)
    assert waiting.state is State.QUEUED
    record = await rig.registry.stop(waiting.id)
    assert (record.state, record.succeeded, record.reason) == (
        State.COMPLETED,
        False,
        "stopped before its turn came",
    )
    worker.end()
    await trio.testing.wait_all_tasks_blocked()
    assert len(rig.workers.workers) == 1


async def test_closing_stops_those_that_wait_too(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path / "sessions", nursery, turns=Turns(1, 5))
        await rig.start()
        for _ in range(5):
            await rig.registry.start(REQUEST)
        await rig.registry.close()
    assert [record.state for record in rig.registry.page(0, 10)] == [State.COMPLETED] * 6
    assert len(rig.workers.workers) == 1


async def test_a_session_that_waits_for_ever_is_stopped_when_nobody_asks(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    rig = Rig(tmp_path / "sessions", nursery, turns=Turns(1, 5))
    nursery.start_soon(rig.registry.deadlines.reap, rig.registry.expire)
    running, _ = await rig.start()
    waiting = await rig.registry.start(REQUEST)
    await trio.sleep(1799)
    rig.registry.get(running)
    await trio.sleep(2)
    assert (rig.state(running), rig.state(waiting.id)) == (State.RUNNING, State.COMPLETED)
    rig.workers.workers[0].end()


# ---- the disk


async def test_what_does_not_fit_is_refused_and_takes_nothing(tmp_path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(tmp_path / "sessions", nursery, budget=Budget(max_total=100))
    rig.disk.survey = Survey(need=60)
    _, worker = await rig.start()
    for _ in range(3):
        with refused(Kind.EXHAUSTED, "needs about 60 bytes; results may take 100 bytes, and 0 bytes are kept and 60"):
            await rig.registry.start(REQUEST)
    assert len(rig.registry.page(0, 10)) == 1
    worker.write("clip.mp4", bytes(50))
    worker.end()
    await trio.testing.wait_all_tasks_blocked()
    with refused(Kind.EXHAUSTED, "50 bytes are kept and 0 bytes promised"):
        await rig.registry.start(REQUEST)
    await rig.registry.destroy(rig.registry.page(0, 1)[0].id)
    _, worker = await rig.start()
    worker.end()


async def test_a_full_queue_gives_back_what_was_promised_of_the_disk(tmp_path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(tmp_path / "sessions", nursery, turns=Turns(1, 0), budget=Budget(max_total=100))
    rig.disk.survey = Survey(need=40)
    session_id, _ = await rig.start()
    for _ in range(5):
        with refused(Kind.EXHAUSTED, "1 sessions are running, and at most 1 may"):
            await rig.registry.start(REQUEST)
    await rig.registry.destroy(session_id)
    _, worker = await rig.start()
    worker.end()


async def test_a_full_disk_refuses_new_sessions_and_those_that_run_end_when_there_is_room(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    session_id, worker = await rig.start()
    rig.store.fails = FULL
    worker.open_part("clip.mp4")
    with refused(Kind.EXHAUSTED, "the disk is full"):
        await rig.registry.start(REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    assert [path.name for path in rig.folder.iterdir()] == [session_id]
    worker.write("clip.mp4", b"data")
    worker.end()
    await trio.sleep(60)
    assert rig.registry.get(session_id).state is State.RUNNING
    rig.store.fails = None
    await trio.sleep(6)
    record = rig.registry.get(session_id)
    assert (record.state, len(record.files)) == (State.COMPLETED, 1)


async def test_a_server_that_ends_does_not_wait_for_room(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path / "sessions", nursery)
        session_id, _ = await rig.start()
        rig.store.fails = FULL
        with trio.move_on_after(30):
            await rig.registry.close()
    assert rig.store.records[session_id].state.is_running  # the next one completes it


async def test_purging_makes_room_on_a_full_disk(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    session_id = await rig.complete("clip.mp4")
    rig.store.fails = FULL
    await trio.sleep(3601)
    assert not (rig.folder / session_id).exists()
    assert rig.state(session_id) is State.COMPLETED  # nobody is told of what is not saved
    with (
        refused(Kind.NOT_FOUND, "has no file"),
        rig.registry.lease(session_id, "clip.mp4", on_lost=lambda: None),
    ):
        pass
    rig.store.fails = None
    await trio.sleep(6)
    assert rig.state(session_id) is State.REMOVED


async def test_a_row_that_cannot_be_removed_yet_is_removed_later(
    rig: Rig, autojump_clock: trio.testing.MockClock
) -> None:
    session_id = await rig.complete("clip.mp4")
    rig.store.fails = FULL
    with refused(Kind.EXHAUSTED, "the disk is full"):
        await rig.registry.destroy(session_id)
    assert rig.state(session_id) is State.COMPLETED
    rig.store.fails = None
    await rig.registry.destroy(session_id)
    assert rig.store.records == {}


@pytest.mark.parametrize("moment", ["start", "end", "purge", "destroy", "download"])
async def test_a_store_that_fails_for_good_ends_the_server(
    tmp_path: Path, moment: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def serve(rig: Rig, nursery: trio.Nursery) -> None:
        nursery.start_soon(rig.registry.deadlines.reap, rig.registry.expire)
        session_id, worker = await rig.start()
        if moment != "end":
            worker.end()
            await trio.testing.wait_all_tasks_blocked()
        rig.store.fails = BROKEN
        worker.end()
        if moment not in ("end", "purge"):
            with refused(Kind.UNAVAILABLE, "the disk is broken"):
                match moment:
                    case "start":
                        await rig.registry.start(REQUEST)
                    case "destroy":
                        await rig.registry.destroy(session_id)
                    case "download":
                        await rig.registry.note_download(session_id, "", ALICE)
        await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:  # the nursery is what raises
        async with trio.open_nursery() as nursery:
            await serve(Rig(tmp_path / "sessions", nursery), nursery)
    assert caught.value.split(StoreError)[1] is None


async def test_ten_thousand_sessions_are_purged_when_it_is_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    store = MemoryStore()
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path / "sessions", nursery, store=store)
        rng = random.Random(7)
        due: dict[str, float] = {}
        for number in range(1, 10_001):
            record = replace(COMPLETED, id=f"s{number}", number=number)
            store.records[record.id] = record
        await rig.registry.recover()
        begin = trio.current_time()
        for session_id in store.records:
            due[session_id] = begin + 3600
        nursery.start_soon(rig.registry.deadlines.reap, rig.registry.expire)
        for session_id in rng.sample(sorted(due), 5000):
            await trio.sleep(rng.random() * 0.5)
            rig.registry.get(session_id)
            due[session_id] = trio.current_time() + 3600
        await trio.sleep(8000)
        removed = {entry.session_id: entry.at_us / 1e6 for entry in store.audit}
        assert removed == pytest.approx(due, abs=1e-3)
        nursery.cancel_scope.cancel()


async def test_sessions_belong_to_their_user(rig: Rig) -> None:
    mine = await rig.complete("clip.mp4")
    theirs = (await rig.registry.start(REQUEST, CAROL)).id
    for ask in (
        lambda: rig.registry.get(mine, CAROL),
        lambda: rig.registry.standing(mine, CAROL),
        lambda: rig.registry.get("x", CAROL),
    ):
        with refused(Kind.NOT_FOUND, f"^{NO_SESSION}$"):
            ask()
    for wait in (rig.registry.stop, rig.registry.destroy, rig.registry.wait_changed):
        with refused(Kind.NOT_FOUND, f"^{NO_SESSION}$"):
            await wait(mine, CAROL)
    with refused(Kind.NOT_FOUND, f"^{NO_SESSION}$"):
        await rig.registry.note_download(mine, "", CAROL)
    with (
        refused(Kind.NOT_FOUND, f"^{NO_SESSION}$"),
        rig.registry.lease(mine, "clip.mp4", CAROL, on_lost=lambda: None),
    ):
        raise AssertionError
    assert rig.registry.get(mine, ALICE).id == mine
    assert [record.id for record in rig.registry.page(0, 10, ALICE)] == [mine]
    assert [record.id for record in rig.registry.page(0, 10, CAROL)] == [theirs]
    assert [record.id for record in rig.registry.page(0, 10, BOB)] == [mine, theirs]  # a supervisor
    await rig.registry.destroy(mine, BOB)
    await rig.registry.destroy(theirs, CAROL)
