"""Recordings as a crash, a full disk or a recorder at work leaves them: what is readable is used, the rest is a gap."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from tests.material import SECOND, STEM, T0, Outcome, do, judge, numbered, numbers, numbers_in, source
from tools.make_recordings import Form, Piece, cut
from vx.jobs import ClipJob, SnapshotJob

KINDS = ["mp4", "fmp4", "mkv", "ts"]
FORM = Form(audio=True, b_frames=2)
ALL = list(range(200))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def paths(tmp_path: Path, kind: str) -> list[Path]:
    """Four segments of two seconds."""
    pieces = [Piece(i * 2 * SECOND, (i + 1) * 2 * SECOND) for i in range(4)]
    return cut(numbered(FORM, 200), str(tmp_path / "rec" / f"{STEM}.{kind}"), T0, pieces, kind=kind)


def clip(paths: list[Path], start_us: int = T0) -> Outcome:
    folder = paths[0].parent.parent / f"out{random.getrandbits(64)}"
    folder.mkdir()
    pattern = paths[0].parent / f"{STEM}{paths[0].suffix}"
    return do(
        ClipJob(
            folder=str(folder), sources=(source(pattern),), start_us=start_us, end_us=T0 + 60 * SECOND, container="mp4"
        )
    )


def without(lost: range) -> list[int]:
    return [n for n in ALL if n not in lost]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "it is empty"), (b"\0" * 5000, "it is broken"), (b"<html>not found</html>", "it is broken")],
)
def test_a_segment_that_is_none(paths: list[Path], content: bytes, says: str) -> None:
    paths[1].write_bytes(content)
    made = clip(paths)
    assert numbers(made.file) == without(range(50, 100))
    judge(made.file)
    assert f"{paths[1]}: {says}" in made.link.notes
    assert "nothing was recorded from 20260511T080002.000000 to 20260511T080004.000000" in made.link.notes


def test_where_nothing_can_be_read_the_reason_says_what_was_in_the_way(paths: list[Path]) -> None:
    for path in paths:
        path.write_bytes(b"")
    made = clip(paths)
    told = f"{paths[0]}: it is empty"
    nothing = f"nothing was recorded from 20260511T080000.000000 to 20260511T080100.000000 that can be read ({told}"
    assert made.ended.reason.startswith(f"Entrance: {nothing}")
    assert made.link.sources[0].startswith(nothing)
    pattern = paths[0].parent / f"{STEM}{paths[0].suffix}"
    made = do(SnapshotJob(folder=str(paths[0].parent), sources=(source(pattern),), at_us=T0))
    assert made.ended.reason == f"Entrance: nothing was recorded at 20260511T080000.000000 that can be read ({told})"


def test_a_link_that_may_not_be_followed_says_what_allows_it(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = paths[1].rename(tmp_path / "elsewhere")
    paths[1].symlink_to(elsewhere)

    def denying(opened: Callable[..., Any]) -> Callable[..., Any]:
        def deny(path: Any, *arguments: Any, **options: Any) -> Any:  # as the sandbox does, or the disk
            if path == str(paths[1]):
                raise PermissionError(errno.EACCES, "Permission denied")
            return opened(path, *arguments, **options)

        return deny

    monkeypatch.setattr("vx.media.packets.recording.av.open", denying(av.open))
    monkeypatch.setattr(os, "open", denying(os.open))
    notes = clip(paths).link.notes
    assert f"{paths[1]}: Permission denied; it leads to {elsewhere}, and [worker] readable has to name" in notes


def test_a_segment_that_vanishes_between_the_listing_and_the_reading(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [path.name for path in paths]
    paths[1].unlink()
    with monkeypatch.context() as patch:
        patch.setattr("vx.archive.segments.os.listdir", lambda _: names)
        made = clip(paths)
    assert numbers(made.file) == without(range(50, 100))
    assert f"{paths[1]}: it has vanished" in made.link.notes


def test_a_directory_and_a_segment_that_may_not_be_read(paths: list[Path]) -> None:
    paths[1].unlink()
    paths[1].mkdir()
    made = clip(paths)
    assert numbers(made.file) == without(range(50, 100))
    assert str(paths[1]) in made.link.notes


def test_the_first_one_is_broken_and_an_earlier_one_covers_the_start(tmp_path: Path, kind: str) -> None:
    pattern = str(tmp_path / "rec" / f"{STEM}.{kind}")
    paths = cut(numbered(FORM, 200), pattern, T0, [Piece(0, 8 * SECOND)], kind=kind)
    broken = paths[0].with_name(paths[0].name.replace("08-00-00", "08-00-04"))
    broken.write_bytes(b"")
    made = clip(paths, start_us=T0 + 5 * SECOND)
    assert numbers(made.file) == list(range(125, 200))
    assert f"{broken}: it is empty" in made.link.notes


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_segment_that_is_truncated_or_still_growing(paths: list[Path], kind: str, share: float) -> None:
    content = paths[3].read_bytes()
    paths[3].write_bytes(content[: int(len(content) * share)])
    made = clip(paths)
    assert made.ended.succeeded
    found = numbers(made.file, flawless=kind != "ts")  # a transport stream doesn't tell where a picture ends
    assert found[:150] == ALL[:150]
    assert set(found[150:]) <= set(ALL[150:])
    if kind == "mp4":
        assert len(found) == 150, "a flat MP4 can't be read until it is closed"
        assert f"{paths[3]}: it is broken, or still being written" in made.link.notes
    elif share == 0.9:
        assert len(found) > 170
    (done,) = made.link.done
    assert done.last_us == T0 + max(found) * SECOND // 25


def test_flat_mp4_with_its_index_in_front_may_be_truncated_too(tmp_path: Path) -> None:
    (path,) = cut(
        numbered(FORM, 200), str(tmp_path / "rec" / f"{STEM}.mp4"), T0, [Piece(0, 8 * SECOND)], kind="faststart"
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    made = clip([path])
    found = numbers(made.file)
    assert found == sorted(set(found))
    assert found[-1] - len(found) < 3, "none is missing but among the last, where B-frames come after their P-frame"
    assert 50 < len(found) < 150
    assert f"{path}: it is truncated" in made.link.notes


def test_no_bytes_at_all_make_it_fail(tmp_path: Path, kind: str) -> None:
    """Truncated and bit-flipped segments: it always ends, the good segments are in the result."""
    dice = random.Random(20260511)
    pieces = [Piece(i * 2 * SECOND, (i + 1) * 2 * SECOND) for i in range(3)]
    pattern = tmp_path / "rec" / f"{STEM}.{kind}"
    paths = cut(numbered(FORM, 150), str(pattern), T0, pieces, kind=kind)
    content = paths[1].read_bytes()
    for _ in range(12):
        broken = bytearray(content)
        for _ in range(dice.choice((1, 10, 200))):
            broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
        if dice.random() < 0.5:
            del broken[dice.randrange(len(broken)) :]
        paths[1].write_bytes(broken)
        made = clip(paths)
        assert made.ended.succeeded, made.ended.reason
        found = numbers_in(made.files, flawless=False)
        assert set(range(50)) <= set(found)
        assert set(range(100, 150)) <= set(found), made.link.notes
        out = tmp_path / "snap"
        out.mkdir(exist_ok=True)
        ended = do(SnapshotJob(folder=str(out), sources=(source(pattern),), at_us=T0 + 3 * SECOND)).ended
        assert ended.succeeded or "Entrance: " in ended.reason


def test_a_directory_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pattern = tmp_path / "nowhere" / f"{STEM}.mp4"
    else:
        (tmp_path / "secret").mkdir(mode=0)
        pattern = tmp_path / "secret" / f"{STEM}.mp4"
    out = tmp_path / "out"
    out.mkdir()
    made = do(ClipJob(folder=str(out), sources=(source(pattern),), start_us=T0, end_us=T0 + SECOND, container="mp4"))
    assert not made.ended.succeeded
    assert str(pattern.parent) in made.link.notes
