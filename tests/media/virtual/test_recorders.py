"""Recordings as the recorders of the field write them: clips that are served are those that are copied."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.material import SECOND, T0, Judged, Outcome, do, judge, numbers_of_all, source
from tests.mp4 import recorders
from tools.make_recordings import MEDIAMTX, Form, segment_path
from vx.jobs import ClipJob

PLAIN = Form(audio=True)
B_FRAMES = Form(audio=True, b_frames=2)
FRAGMENTS = "-segment_format_options movflags=frag_keyframe+empty_moov+default_base_moof"
FLAT_ON_ONE_CLOCK = "ffmpeg's segmenter, flat, on one clock"
SECONDS = 2
"""Of each recording."""

Files = Callable[[], list[bytes]]
"""The recordings, one behind the other."""


def written(recorder: Callable[[Form, int, int], bytes], form: Form) -> Files:
    return lambda: [recorder(form, at, at + SECONDS) for at in range(0, 10, SECONDS)]


def segmented(form: Form, options: str) -> Files:
    return lambda: recorders.segmenter(form, 10, SECONDS, options)


RECORDERS: dict[str, Files] = {
    "MediaMTX": written(recorders.mediamtx, PLAIN),
    "MediaMTX, B-frames": written(recorders.mediamtx, B_FRAMES),
    "an Android phone": written(recorders.phone, PLAIN),
    "an Android phone, B-frames": written(recorders.phone, B_FRAMES),
    "a camera": written(recorders.camera, PLAIN),
    "a camera, B-frames": written(recorders.camera, B_FRAMES),
    "Frigate": segmented(PLAIN, "-reset_timestamps 1"),
    "ffmpeg's segmenter, fragments": segmented(B_FRAMES, f"-reset_timestamps 1 {FRAGMENTS}"),
    FLAT_ON_ONE_CLOCK: segmented(B_FRAMES, "-reset_timestamps 0"),
    "ffmpeg's segmenter, fragments on one clock": segmented(B_FRAMES, f"-reset_timestamps 0 {FRAGMENTS}"),
}


def export(pattern: Path, folder: Path, **more: Any) -> Outcome:
    folder.mkdir()
    return do(ClipJob(folder=str(folder), sources=(source(pattern),), container="mp4", **more))


def record(folder: Path, recordings: list[bytes]) -> Path:
    """Lay them down, but for the third one: that is a gap."""
    folder.mkdir()
    an_hour_ago = time.time() - 3600
    for number, data in enumerate(recordings):
        if number != 2:
            path = segment_path(f"{folder}/{MEDIAMTX}", T0 + number * SECONDS * SECOND)
            path.write_bytes(data)
            os.utime(path, (an_hour_ago, an_hour_ago))
    return folder / MEDIAMTX


@pytest.mark.parametrize("name", RECORDERS)
def test_frames_times_and_gaps_are_those_of_the_copy(tmp_path: Path, name: str) -> None:
    pattern = record(tmp_path / "rec", RECORDERS[name]())
    ranges = {"start_us": T0 + 52 * SECOND // 100, "end_us": T0 + 928 * SECOND // 100}
    served = export(pattern, tmp_path / "served", virtual=True, **ranges)
    copied = export(pattern, tmp_path / "copied", **ranges)
    assert served.served, served.link.notes
    assert not copied.served
    wanted = [*range(13, 100), *range(150, 232)]
    assert numbers_of_all([served.file, copied.file]) == [wanted, wanted]
    ours, theirs = judge(served.file), judge(copied.file)
    assert ours.frames == pytest.approx(theirs.frames, abs=0.0011)
    assert ours.frames == pytest.approx([(number - 13) / 25 for number in wanted], abs=0.0011)
    assert served.link.done[0].first_us == copied.link.done[0].first_us
    assert gaps(served) == gaps(copied)
    assert_the_same_sound(ours, theirs)
    assert turns(ours) == turns(theirs) == ([-90] if "phone" in name else [])


def gaps(outcome: Outcome) -> list[str]:
    return [line for line in outcome.link.notes.splitlines() if "nothing was recorded" in line]


def turns(judged: Judged) -> list[int]:
    """By how many degrees players turn the picture."""
    sides = itertools.chain.from_iterable(stream.get("side_data_list", []) for stream in judged.streams)
    return [side["rotation"] for side in sides if "rotation" in side]


def assert_the_same_sound(ours: Judged, theirs: Judged) -> None:
    """To within one of its frames at each border."""
    frame = 1024 / 48_000
    assert abs(len(ours.sound) - len(theirs.sound)) <= 2
    for at in (ours.sound[0], ours.sound[-1]):
        assert min(abs(at - other) for other in theirs.sound) < frame + 0.001


def test_what_a_phone_has_trimmed_is_copied(tmp_path: Path) -> None:
    recordings = [recorders.phone(B_FRAMES, at, at + SECONDS, trimmed_s=1) for at in (0, 2)]
    made = export(record(tmp_path / "rec", recordings), tmp_path / "out", virtual=True, start_us=T0, end_us=T0 + SECOND)
    assert made.ended.succeeded
    assert not made.served
    assert "it can't be served from the recordings" in made.link.notes
    assert "its edit list begins with another picture than its first one" in made.link.notes


@pytest.mark.parametrize("begin", [0, 30])
def test_where_key_frames_are_not_known_it_is_copied(tmp_path: Path, begin: int) -> None:
    """From a picture on that refers to others, which the copy finds out."""
    recordings = [recorders.mediamtx(PLAIN, at, at + SECONDS, all_keys=True) for at in (0, 2)]
    start_us = T0 + begin * SECOND // 25
    made = export(
        record(tmp_path / "rec", recordings), tmp_path / "out", virtual=True, start_us=start_us, end_us=T0 + 4 * SECOND
    )
    assert made.ended.succeeded
    assert not made.served
    assert "one of its pictures is no key frame, but called so" in made.link.notes
    assert numbers_of_all([made.file]) == [list(range(begin, 100))]
