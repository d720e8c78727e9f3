"""What virtual results keep of the disk when retention deletes their recordings, and what is done about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.session.fakes import at_once
from tests.session.keeping import SIZE, session
from vx import disk
from vx.session import watch
from vx.session.budget import Budget, Survey
from vx.session.leases import Holdings
from vx.session.session import Session
from vx.session.watch import Result, Watch, take_stock

ON_DISK = range(SIZE, SIZE + 8192)


def results(*sessions: Session, held: Mapping[str, int] | None = None) -> dict[str, list[Result]]:
    return {
        each.record.id: [Result(each.folder / file.id, held or {}) for file in each.record.files] for each in sessions
    }


def test_only_what_is_nowhere_else_is_ours(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one")
    assert take_stock(tmp_path, results(one))["one"].left == 0
    recording.unlink()
    kept = take_stock(tmp_path, results(one))["one"]
    assert kept.left in ON_DISK
    assert not kept.little, "all of it is used"


def test_what_several_keep_is_counted_once(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one", files=3)
    two, of_two = session(tmp_path, "two")
    of_two.unlink()
    lease = two.folder / "clip 0.mp4" / "1"
    lease.unlink()
    os.link(recording, lease)
    assert all(kept.left == 0 for kept in take_stock(tmp_path, results(one, two)).values())
    recording.unlink()
    kept = take_stock(tmp_path, results(one, two))
    assert kept["one"].left + kept["two"].left in ON_DISK
    assert kept["one"].left == pytest.approx(3 * kept["two"].left, abs=3)
    assert take_stock(tmp_path, results(one))["one"].left == 0, "another one has it too, whoever that is"


def test_what_is_held_open_counts_if_it_is_on_this_disk(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one", lease=False, used=1000)
    fd = os.open(recording, os.O_RDONLY)
    recording.unlink()
    kept = take_stock(tmp_path, results(one, held={str(recording): fd}))["one"]
    assert kept.left in ON_DISK
    assert kept.little == {one.folder / "clip 0.mp4": {str(recording)}}
    assert take_stock(Path("/proc"), results(one, held={str(recording): fd}))["one"].left == 0
    os.close(fd)
    assert take_stock(tmp_path, results(one, held={str(recording): fd}))["one"].left == 0


class Looking:
    """A look at sessions, and what was done about them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: Callable[[Path], int], min_free: int = 1000) -> None:
        self.ended: list[str] = []
        self.copied: list[str] = []
        self.budget = Budget()
        monkeypatch.setattr(disk, "free", free)
        monkeypatch.setattr(watch, "_LEFT_FREE", 10)
        self.watch = Watch(
            at_once,
            Holdings(at_once, {}),
            self.budget,
            absorb=self._absorb,
            end=self._end,
            min_free=min_free,
        )

    async def _absorb(self, session: Session, results: Mapping[Path, set[str]]) -> None:
        self.copied.append(session.record.id)
        for result in results:
            (result / "1").unlink()

    async def _end(self, session: Session) -> None:
        self.ended.append(session.record.id)


async def test_the_oldest_that_keep_something_are_ended_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [session(tmp_path, name) for name in ("old", "whole", "downloading", "next", "young")]
    for number, (_, recording) in enumerate(made):
        if number != 1:
            recording.unlink()
    made[2][0].leases = (lambda: None,)
    frees = iter([10, 10, 2000])
    looking = Looking(monkeypatch, lambda _: next(frees))
    await looking.watch.look(tmp_path, [each for each, _ in made])
    assert looking.ended == ["old", "next"]
    assert not looking.copied
    assert looking.budget.kept >= 4 * SIZE


async def test_nobody_is_ended_while_copying_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest first, downloads or not; those whose recordings are still there keep nothing."""
    used = {"all": SIZE, "little": 500, "there": 500, "downloading": 500, "young": 500}
    made = {name: session(tmp_path, name, used=count) for name, count in used.items()}
    for name, (_, recording) in made.items():
        if name != "there":
            recording.unlink()
    made["downloading"][0].leases = (lambda: None,)
    frees = iter([900, 950, 1000])
    looking = Looking(monkeypatch, lambda _: next(frees))
    await looking.watch.look(tmp_path, [each for each, _ in made.values()])
    assert looking.copied == ["little", "downloading"]
    assert not looking.ended


async def test_without_room_for_copies_they_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, recording = session(tmp_path, "one", used=500)
    recording.unlink()
    looking = Looking(monkeypatch, lambda _: 505)
    await looking.watch.look(tmp_path, [one])
    assert not looking.copied
    assert looking.ended == ["one"]


async def test_when_copies_are_not_enough_the_oldest_that_still_keep_something_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, recording = session(tmp_path, "one", used=500)
    two, of_two = session(tmp_path, "two")
    recording.unlink()
    of_two.unlink()
    looking = Looking(monkeypatch, lambda _: 900)
    await looking.watch.look(tmp_path, [one, two])
    assert looking.copied == ["one"]
    assert looking.ended == ["two"]


async def test_with_room_they_only_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, recording = session(tmp_path, "one", used=500)
    recording.unlink()
    looking = Looking(monkeypatch, lambda _: 1 << 40)
    await looking.watch.look(tmp_path, [one])
    assert not looking.ended
    assert not looking.copied
    budget = looking.budget
    kept = budget.kept
    assert kept >= SIZE
    budget.charge("one", kept)
    assert budget.kept == kept, "it is charged once"
    budget.reserve("two", Survey(need=1))
    budget.settle("one", 0)
    assert budget.kept == 0
