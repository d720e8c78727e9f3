"""Virtual results that copy what they use of recordings: the same bytes at every moment, and no recording is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import pytest
import trio

from tests.session.fakes import at_once
from tests.session.rig import Rig
from tests.test_leased import Result, collect, rewrite, truncate
from vx.leased import open_result
from vx.model import Record, ResultFile, State
from vx.session import absorbing, folders
from vx.session.absorbing import PART, Absorber, ChangedError, absorb
from vx.session.budget import Budget
from vx.virtual import MADE, Identity

T = TypeVar("T")
Args = TypeVarTuple("Args")


def paths(result: Result, *numbers: int) -> set[str]:
    return {str(result.recordings[number]) for number in numbers}


def names(result: Result) -> set[str]:
    return {path.name for path in result.path.iterdir()}


async def test_only_what_it_is_told_to_is_let_go_of(tmp_path: Path) -> None:
    result = Result(tmp_path, recordings=4)
    await absorb(result.path, paths(result, 0, 2), {}, at_once)
    assert names(result) == {MADE, "2", "4"}
    assert result.recordings[0].stat().st_nlink == 1
    for number in (0, 2):
        result.recordings[number].unlink()
    assert await collect(result, 1000) == result.expected
    await absorb(result.path, paths(result, 1, 3), {}, at_once)
    assert names(result) == {MADE}
    assert await collect(result, 1000, first=77) == result.expected[77_000:]
    assert folders.result_size(result.path) == result.size


async def test_in_small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absorbing, "_AT_ONCE", 999)
    result = Result(tmp_path, recordings=3)
    await absorb(result.path, paths(result, 0, 1, 2), {}, at_once)
    assert await collect(result, 4096) == result.expected


@pytest.mark.parametrize("lease", [True, False])
async def test_downloads_under_way_go_on(tmp_path: Path, *, lease: bool) -> None:
    result = Result(tmp_path, recordings=30, lease=lease)
    held = {} if lease else {str(path): os.open(path, os.O_RDONLY) for path in result.recordings}
    with open_result(result.path, result.size, held) as source:

        async def read(begin: int, end: int) -> bytes:
            runs = await source.runs(begin, end - begin)
            data = b"".join(os.pread(run.fd, run.length, run.offset) for run in runs)
            source.verify()
            return data

        got = await read(0, result.size // 3)
        for path in result.recordings:
            path.unlink()
        for end, some in ((result.size // 2, range(10)), (result.size, range(10, 30))):
            absorbed = paths(result, *some)
            await absorb(result.path, absorbed, held, at_once)
            for name in absorbed & held.keys():
                os.close(held.pop(name))
            got += await read(len(got), end)
    assert got == result.expected


@pytest.mark.parametrize("change", [truncate, rewrite])
async def test_a_recording_that_has_changed_is_not_copied(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The download says what is wrong; a copy would not."""
    result = Result(tmp_path, recordings=2)
    before = (result.path / MADE).read_bytes()
    change(result.recordings[1])
    with pytest.raises(ChangedError):
        await absorb(result.path, paths(result, 0, 1), {}, at_once)
    assert names(result) == {MADE, "1", "2"}
    assert (result.path / MADE).read_bytes() == before


async def test_cancelled_it_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absorbing, "_AT_ONCE", 10_000)
    result = Result(tmp_path, recordings=2)
    looks = 0

    async def third_is_the_last(call: Callable[[*Args], T], /, *args: *Args) -> T:
        nonlocal looks
        looks += 1
        if looks == 3:
            assert (result.path / PART).exists()
            scope.cancel()
        return await at_once(call, *args)

    with trio.CancelScope() as scope:
        await absorb(result.path, paths(result, 0, 1), {}, third_is_the_last)
    assert scope.cancelled_caught
    assert names(result) == {MADE, "1", "2"}
    assert await collect(result, 1000) == result.expected


async def test_a_disk_that_is_full_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = Result(tmp_path, recordings=2)

    def full(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space left"):
        await absorb(result.path, paths(result, 0, 1), {}, at_once)
    assert names(result) == {MADE, "1", "2"}
    assert await collect(result, 1000) == result.expected


async def test_what_a_killed_server_left_is_swept(tmp_path: Path) -> None:
    root = tmp_path / "sessions"
    (root / "one").mkdir(parents=True)
    result = Result(root / "one", recordings=2)
    for recording in result.recordings:
        recording.unlink()
    (result.path / PART).write_bytes(b"half of it")
    (result.path / "7").write_bytes(b"a lease that is no longer needed")
    file = ResultFile(result.path.name, result.size, "video/mp4", 0, 1)
    record = Record(id="one", number=1, options=b"", timezone_min=0, started_us=0, state=State.COMPLETED, files=(file,))
    folders.sweep(root, {"one": record})
    assert names(result) == {MADE, "1", "2"}
    assert await collect(result, 1000) == result.expected


async def test_one_that_grows_is_copied_as_far_as_it_was(tmp_path: Path) -> None:
    result = Result(tmp_path, recordings=1, grows=True)
    with result.recordings[0].open("ab") as file:
        file.write(b"more")
    assert Identity.of(result.recordings[0].stat()).size > 40_000
    await absorb(result.path, paths(result, 0), {}, at_once)
    assert names(result) == {MADE}
    assert await collect(result, 1000) == result.expected


async def test_a_session_that_is_destroyed_meanwhile(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absorbing, "_AT_ONCE", 1000)
    budget = Budget()
    rig = Rig(tmp_path / "sessions", nursery, budget=budget)
    session = rig.session(await rig.complete("clip.mp4"))
    (session.folder / "clip.mp4").unlink()
    result = Result(session.folder)
    (file,) = session.record.files
    session.record = replace(session.record, files=(replace(file, size=result.size),))
    absorber = Absorber(rig.registry._holdings, budget, at_once)
    nursery.start_soon(absorber.absorb, session, {result.path: paths(result, *range(20))})
    while not (result.path / PART).exists():
        await trio.lowlevel.checkpoint()
    await rig.registry.destroy(session.record.id)
    assert not session.folder.exists()
    assert budget.kept == 0


async def test_what_was_copied_counts_as_the_sessions(tmp_path: Path, nursery: trio.Nursery) -> None:
    budget = Budget()
    rig = Rig(tmp_path / "sessions", nursery, budget=budget)
    session = rig.session(await rig.complete("clip.mp4"))
    (session.folder / "clip.mp4").unlink()
    result = Result(session.folder)
    absorber = Absorber(rig.registry._holdings, budget, at_once)
    await absorber.absorb(session, {result.path: paths(result, *range(20))})
    assert names(result) == {MADE}
    assert budget.kept == (result.path / MADE).stat().st_size > 800_000
