"""What virtual results keep of the disk when retention deletes their recordings, and what is done about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.session.fakes import COMPLETED, at_once
from vx.model import ResultFile
from vx.session import leases
from vx.session.budget import Budget, Survey
from vx.session.leases import Holdings, Watch, left_to_us
from vx.session.session import Session
from vx.virtual import MADE, Identity, Origin, Pieces, write_made

SIZE = 100_000


def session(folder: Path, name: str, *, lease: bool = True) -> tuple[Session, Path]:
    """A completed session with a virtual result, and its recording."""
    recording = folder / f"recording of {name}"
    recording.write_bytes(bytes(SIZE))
    result = folder / name / "clip.mp4"
    result.mkdir(parents=True)
    if lease:
        os.link(recording, result / "1")
    pieces = Pieces()
    pieces.add(1, 0, SIZE)
    origin = Origin(path=str(recording), identity=Identity.of(recording.stat()), lease="1" if lease else "")
    write_made(result / MADE, [], pieces.describe((origin,)))
    file = ResultFile("clip.mp4", SIZE, "video/mp4", 0, 1)
    return Session(replace(COMPLETED, id=name, files=(file,)), folder / name), recording


def test_only_what_is_nowhere_else_is_ours(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one")
    assert left_to_us(one.folder, one.record.files) == 0
    recording.unlink()
    assert SIZE <= left_to_us(one.folder, one.record.files) < SIZE + 8192
    (one.folder / "plain.mp4").write_bytes(b"12345")
    assert left_to_us(one.folder, [ResultFile("plain.mp4", 5, "video/mp4", 0, 1)]) == 0


Look = tuple[list[str], Budget]


async def look(
    tmp_path: Path, sessions: list[Session], free: Callable[[Path], int], monkeypatch: pytest.MonkeyPatch
) -> Look:
    """Which sessions are ended when at least 1,000 bytes are to be free."""
    ended: list[str] = []
    budget = Budget()

    async def end(session: Session) -> None:
        ended.append(session.record.id)

    monkeypatch.setattr(leases, "_free", free)
    watch = Watch(at_once, lambda session, left: budget.charge(session.record.id, left), end, 1000)
    await watch.look(tmp_path, sessions)
    return ended, budget


async def test_the_oldest_that_keep_something_are_ended_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [session(tmp_path, name) for name in ("old", "whole", "downloading", "next", "young")]
    for number, (_, recording) in enumerate(made):
        if number != 1:
            recording.unlink()
    made[2][0].leases = (lambda: None,)
    frees = iter([10, 10, 2000])
    ended, budget = await look(tmp_path, [each for each, _ in made], lambda _: next(frees), monkeypatch)
    assert ended == ["old", "next"]
    assert budget.kept >= 4 * SIZE


async def test_with_room_they_only_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, recording = session(tmp_path, "one")
    recording.unlink()
    ended, budget = await look(tmp_path, [one], lambda _: 1 << 40, monkeypatch)
    assert not ended
    kept = budget.kept
    assert kept >= SIZE
    budget.charge("one", kept)
    assert budget.kept == kept, "it is charged once"
    budget.reserve("two", Survey(need=1))
    budget.settle("one", 0)
    assert budget.kept == 0


async def test_what_is_held_open_is_given_back(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one", lease=False)
    holdings = Holdings(at_once)
    room = holdings.room()
    (file,) = one.record.files
    await holdings.hold(one, file)
    held = holdings.of("one", file.id)
    recording.unlink()
    assert os.fstat(held[1]).st_size == SIZE
    assert left_to_us(one.folder, one.record.files) == 0, "it is on another disk, mostly"
    assert holdings.room() <= room
    holdings.release("one")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(held[1])
    assert not holdings.of("one", file.id)


async def test_a_recording_that_was_replaced_is_not_held(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one", lease=False)
    recording.write_bytes(b"another one")
    holdings = Holdings(at_once)
    await holdings.hold(one, one.record.files[0])
    assert not holdings.of("one", "clip.mp4")
