"""How far a session is, and what would become of one that nobody has started."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.session.fakes import ALICE, REQUEST
from tests.session.rig import Rig, refused
from vx.errors import Kind
from vx.jobs import Ended, Note, Probed, ProbeJob, Progress, SourceEnded
from vx.model import State
from vx.session.budget import Budget, Recorded, Survey
from vx.session.roster import NO_SESSION
from vx.session.turns import Turns

S = 1_000_000
MINUTE = Recorded(((0, 60 * S),), 1000)


@pytest.fixture
async def rig(tmp_path: Path, nursery: trio.Nursery) -> Rig:
    rig = Rig(tmp_path / "sessions", nursery)
    rig.disk.survey = Survey(recorded=[MINUTE])
    return rig


async def test_time_left_goes_by_what_is_done(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    session_id, worker = await rig.start()
    assert (rig.registry.standing(session_id).share, rig.registry.standing(session_id).left_s) == (0, None)
    await trio.sleep(10)
    worker.send(Progress(last_frame_us=15 * S, written=300))
    await trio.testing.wait_all_tasks_blocked()
    standing = rig.registry.standing(session_id)
    assert (standing.share, standing.left_s, standing.record.report.written) == (0.25, 30, 300)
    worker.end()
    await trio.testing.wait_all_tasks_blocked()
    standing = rig.registry.standing(session_id)
    assert (standing.record.state, standing.share, standing.left_s) == (State.COMPLETED, 1, None)


async def test_a_session_that_waits_says_how_many_are_ahead(tmp_path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(tmp_path / "sessions", nursery, turns=Turns(1, 10))
    await rig.start()
    waiting = [(await rig.registry.start(REQUEST, ALICE)).id for _ in range(3)]
    assert [rig.registry.standing(session_id).ahead for session_id in waiting] == [0, 1, 2]


async def test_what_a_worker_says_of_a_source_is_told_and_saved(rig: Rig) -> None:
    session_id, worker = await rig.start()
    worker.send(Note(level="warning", text="Gate: broken", source=0), SourceEnded(source=0, error="nothing recorded"))
    worker.end(succeeded=False, reason="nothing at all")
    await trio.testing.wait_all_tasks_blocked()
    (source,) = rig.store.records[session_id].report.sources
    assert (source.recorded_us, source.error) == (MINUTE.spans_us, "nothing recorded")
    assert [remark.text for remark in source.remarks] == ["broken"]


async def test_changes_are_waited_for(rig: Rig) -> None:
    session_id, worker = await rig.start()
    seen: list[int | None] = []

    async def watch() -> None:
        while True:
            await rig.registry.wait_changed(session_id)
            seen.append(rig.registry.standing(session_id).record.last_frame_us)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        worker.send(Progress(last_frame_us=5))
        await trio.testing.wait_all_tasks_blocked()
        assert seen[-1] == 5
        nursery.cancel_scope.cancel()
    with refused(Kind.NOT_FOUND, NO_SESSION):
        await rig.registry.wait_changed("x")


async def test_a_prospect_starts_nothing_and_tells_the_limit(tmp_path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(tmp_path / "sessions", nursery, turns=Turns(1, 0), budget=Budget(max_total=500))
    probed = Probed(source=0, video="encoded", sample_bytes=100, sample_us=S)

    async def answer(count: int) -> None:
        worker = await rig.workers.wait_started(count)
        assert isinstance(worker.job, ProbeJob)
        worker.send(probed, Ended(succeeded=True))

    nursery.start_soon(answer, 1)
    rig.disk.survey = Survey(need=400, recorded=[MINUTE])
    prospect = await rig.registry.prospect(REQUEST, ALICE)
    assert (prospect.obstacle, prospect.waits, prospect.probe_of(0)) == ("", False, probed)
    assert (prospect.is_rough, prospect.expected_bytes) == (True, 6000)
    assert rig.registry.page(0, 10) == []
    nursery.start_soon(answer, 2)
    rig.disk.survey = Survey(need=600, recorded=[MINUTE])
    assert "the export needs about 600 bytes" in (await rig.registry.prospect(REQUEST, ALICE)).obstacle
    rig.disk.survey = Survey(need=400, recorded=[MINUTE])
    await rig.start()
    nursery.start_soon(answer, 4)
    rig.disk.survey = Survey(need=1, recorded=[MINUTE])
    assert "at most 1 may at a time" in (await rig.registry.prospect(REQUEST, ALICE)).obstacle
