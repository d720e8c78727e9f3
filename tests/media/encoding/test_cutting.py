"""The exact cut: clips hold the very frames of start <= t < end, by ffmpeg's judgement."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.material import SECOND, STEM, T0, Outcome, Target, clip_job, do, judge, numbered, numbers_of_all, source
from tools.make_recordings import Form, Piece, cut
from vx.jobs import Container

FRAME = SECOND // 25
FRAMES = 200
H265 = (("preset", "ultrafast"), ("x265-params", "log-level=none:open-gop=0:keyint=25:min-keyint=25"))
H265_OPEN = (("preset", "ultrafast"), ("x265-params", "log-level=none:open-gop=1:keyint=25:min-keyint=25:bframes=3"))
RANGES = [(1, 3), (1.2, 2.76), (3.48, 4.52), (0.999, 5.001), (2.04, 2.2), (-5, 1.96)]
"""In seconds, at and between key frames, across segments of four seconds, within one group of pictures."""


@dataclass(frozen=True)
class Case:
    """Recordings of a form, and what they are exported to."""

    form: Form
    kind: str
    container: Container
    exact: bool = True


CASES = {
    "h264 mp4 to mp4": Case(Form(audio=True), "mp4", "mp4"),
    "h264 ts to mkv": Case(Form(), "ts", "mkv"),
    "b-frames mp4 to mp4": Case(Form(b_frames=2, audio=True), "mp4", "mp4"),
    "b-frames fragmented to mp4": Case(Form(b_frames=2, audio=True), "fmp4", "mp4"),
    "b-frames fragmented to mkv": Case(Form(b_frames=2), "fmp4", "mkv"),
    "b-frames mkv to mp4": Case(Form(b_frames=3, audio=True, audio_codec="libopus"), "mkv", "mp4"),
    "b-frames ts to mp4": Case(Form(b_frames=2, audio=True, audio_codec="mp2"), "ts", "mp4"),
    "b-pyramid mkv to mkv": Case(Form(b_frames=5, gop=40, audio=True, audio_codec="flac"), "mkv", "mkv"),
    "one group mp4 to mp4": Case(Form(b_frames=2, gop=300), "mp4", "mp4"),
    "h265 mp4 to mp4": Case(Form(codec="libx265", audio=True, options=H265), "mp4", "mp4"),
    "h265 ts to mkv": Case(Form(codec="libx265", options=H265), "ts", "mkv"),
    "h265 open group mp4 to mkv": Case(Form(codec="libx265", options=H265_OPEN), "mp4", "mkv", exact=False),
    "h265 open group ts to mp4": Case(Form(codec="libx265", options=H265_OPEN), "ts", "mp4", exact=False),
    "missing frames mp4 to mp4": Case(Form(drops=7, b_frames=2), "mp4", "mp4"),
    "missing frames mkv to mkv": Case(Form(drops=3), "mkv", "mkv"),
    "size mp4 to mkv": Case(Form(width=334, height=206, b_frames=2), "mp4", "mkv"),
    "full colour mkv to mkv": Case(Form(pixels="yuv444p", options=(("preset", "veryfast"),)), "mkv", "mkv"),
    "baseline mp4 to mp4": Case(Form(options=(("profile", "baseline"),)), "mp4", "mp4"),
    "odd size mjpeg mkv to mkv": Case(Form(codec="mjpeg", width=321, height=195, pixels="yuvj420p"), "mkv", "mkv"),
    "mjpeg mkv to mp4": Case(Form(codec="mjpeg"), "mkv", "mp4"),
    "mpeg4 mp4 to mp4": Case(Form(codec="mpeg4", gop=25), "mp4", "mp4", exact=False),
    "open group mkv to mkv": Case(
        Form(b_frames=2, options=(("x264-params", "open-gop=1"), ("preset", "veryfast"))), "mkv", "mkv", exact=False
    ),
}


def clip(pattern: Path, folder: Path, begin: float, end: float, target: Target = "mp4", **more: Any) -> Outcome:
    return do(clip_job(folder, [source(pattern)], begin, end, target, **more), in_blocks=target != "packets")


def wanted(form: Form, begin: float, end: float) -> list[int]:
    first, last = math.ceil(begin * 25 - 1e-6), math.ceil(end * 25 - 1e-6)
    return [n for n in range(max(0, first), min(FRAMES, last)) if form.has(n)]


WAYS: list[tuple[str, Target]] = [(name, case.container) for name, case in CASES.items()]
for _name, _case in CASES.items():
    if _case.kind in ("mp4", "fmp4") and _case.container == "mp4":
        WAYS += [(_name, "packets"), (_name, "virtual")]


@pytest.mark.parametrize(("name", "target"), WAYS)
def test_the_very_frames(tmp_path: Path, name: str, target: Target) -> None:
    case = CASES[name]
    pattern = tmp_path / "rec" / f"{STEM}.{case.kind}"
    pieces = [Piece(0, 4 * SECOND), Piece(4 * SECOND, 8 * SECOND)]
    cut(numbered(case.form, FRAMES), str(pattern), T0, pieces, kind=case.kind)
    made = [clip(pattern, tmp_path / f"{i}", *ends, target) for i, ends in enumerate(RANGES)]
    assert all(each.ended.succeeded for each in made), [each.ended.reason for each in made]
    if target == "virtual":
        assert all(len(each.served) == (case.exact and "mjpeg" not in case.form.codec) for each in made)
    # a key frame that isn't an IDR makes decoders complain about what came before it, and nothing worse
    found = numbers_of_all([each.file for each in made], flawless=case.exact)
    for (begin, end), each, numbers in zip(RANGES, made, found, strict=True):
        frames = wanted(case.form, begin, end)
        if case.exact:
            assert numbers == frames, (begin, end, each.link.notes)
            assert "its start" not in each.link.notes
            assert "its end" not in each.link.notes
        else:
            assert numbers[-len(frames) :] == frames, (begin, end)
            assert numbers == frames or numbers[0] % 25 == 0
            assert ("begins with the key frame before its start" in each.link.notes) == (numbers != frames)
        (done,) = each.link.done
        assert done.first_us == pytest.approx(T0 + numbers[0] * FRAME, abs=1000)
        assert done.last_us == pytest.approx(T0 + numbers[-1] * FRAME, abs=1000)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        *itertools.product(
            ["b-frames mp4 to mp4", "b-frames fragmented to mp4", "h265 mp4 to mp4"], ["mp4", "packets", "virtual"]
        ),
        ("b-pyramid mkv to mkv", "mkv"),
    ],
)
def test_times_and_sound_are_exact_too(tmp_path: Path, name: str, target: Target) -> None:
    case = CASES[name]
    pattern = tmp_path / "rec" / f"{STEM}.{case.kind}"
    cut(numbered(case.form, FRAMES), str(pattern), T0, [Piece(0, 8 * SECOND)], kind=case.kind)
    made = clip(pattern, tmp_path / "out", 1.2, 3.48, target)
    assert len(made.served) == (target == "virtual")
    judged = judge(made.file)
    assert judged.frames == pytest.approx([n / 25 for n in range(57)], abs=0.0011)
    step = judged.sound[1] - judged.sound[0]
    assert judged.sound[0] == pytest.approx(0, abs=step + 0.0011)
    assert judged.sound[-1] + step == pytest.approx(2.28, abs=step + 0.002)


def test_the_picture_is_the_same_in_1080p_and_its_colours_and_turn_are_kept(tmp_path: Path) -> None:
    colours = (("color_range", "pc"), ("colorspace", "bt709"), ("color_primaries", "bt709"), ("color_trc", "bt709"))
    form = Form(width=1920, height=1080, b_frames=2, rotation=90, options=colours)
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(form, 75), str(pattern), T0, [Piece(0, 3 * SECOND)])
    made = clip(pattern, tmp_path / "out", 0.6, 1.44)
    assert numbers_of_all([made.file]) == [list(range(15, 36))]
    (stream,) = judge(made.file).streams
    assert (stream["color_range"], stream["color_space"], stream["color_transfer"]) == ("pc", "bt709", "bt709")
    assert [side["rotation"] for side in stream["side_data_list"] if "rotation" in side] == [90]


def test_between_two_frames_there_is_nothing(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(b_frames=2), 100), str(pattern), T0, [Piece(0, 4 * SECOND)])
    made = clip(pattern, tmp_path / "out", 1.21, 1.23)
    assert not made.ended.succeeded
    assert "nothing was recorded from" in made.ended.reason
    assert list((tmp_path / "out").iterdir()) == []


def test_a_start_in_the_last_group_of_a_recording_goes_on_with_the_next_one(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    form = Form(b_frames=2, audio=True)
    cut(numbered(form, FRAMES), str(pattern), T0, [Piece(0, 4 * SECOND), Piece(4 * SECOND, 8 * SECOND)])
    made = [clip(pattern, tmp_path / f"{i}", begin, 5.2) for i, begin in enumerate((3.6, 3.97))]
    assert numbers_of_all([each.file for each in made]) == [list(range(90, 130)), list(range(100, 130))]


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_start_at_the_last_frame_of_a_recording_goes_on_with_the_next_one(
    tmp_path: Path, b_frames: int, container: Container
) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(
        numbered(Form(b_frames=b_frames), FRAMES),
        str(pattern),
        T0,
        [Piece(0, 4 * SECOND), Piece(4 * SECOND, 8 * SECOND)],
    )
    made = clip(pattern, tmp_path / "out", 3.96, 5.2, container)
    assert numbers_of_all([made.file]) == [list(range(99, 130))]


@pytest.mark.parametrize("begin", [1.92, 1.96])
def test_a_start_right_before_a_key_frame_with_subtitles(tmp_path: Path, begin: float) -> None:
    """With B-frames the key frame is due to be decoded before the file's clock begins, and with it the first cue."""
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(b_frames=2, audio=True), FRAMES), str(pattern), T0, [Piece(0, 8 * SECOND)])
    made = clip(pattern, tmp_path / "out", begin, 3.4, subtitles=True)
    assert numbers_of_all([made.file]) == [list(range(round(begin * 25), 85))]
    assert judge(made.file).frames == pytest.approx([n / 25 for n in range(85 - round(begin * 25))], abs=0.0011)


def test_only_key_frames_where_that_is_wanted(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(), FRAMES), str(pattern), T0, [Piece(0, 8 * SECOND)])
    made = clip(pattern, tmp_path / "out", 1.5, 3.5, cut="keyframe")
    assert numbers_of_all([made.file]) == [list(range(25, 88))]
    assert made.link.done[0].first_us == T0 + SECOND


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_files_of_a_limited_size_are_cut_exactly_too(tmp_path: Path, container: Container) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    form = Form(b_frames=2, audio=True)
    cut(numbered(form, FRAMES), str(pattern), T0, [Piece(0, 4 * SECOND), Piece(4 * SECOND, 8 * SECOND)])
    made = clip(pattern, tmp_path / "out", 1.2, 6.68, container, max_file_size=40_000)
    assert len(made.files) > 2
    assert [n for found in numbers_of_all(made.files) for n in found] == list(range(30, 167))
    assert all(path.stat().st_size <= 40_000 for path in made.files)
