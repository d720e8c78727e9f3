"""The subtitle track: when it was filmed, for each second, while the clip stays a copy."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.material import SECOND, T0, Outcome, clip_job, do, judge, numbered, numbers, pieces, source
from tools.make_recordings import MEDIAMTX, Form, cut
from vx.captions import Caption
from vx.drawing import Words
from vx.jobs import Coding, Container, Source
from vx.media.files.subtitles import Subtitles

FORM = Form(width=256, height=64, audio=True, b_frames=2)
SILENT = Form(width=256, height=64)
WORDS = Words(pattern="{CameraName} {Timestamp}", time_format="%H:%M:%S.%f", offset_min=120)
CONTAINERS: list[Container] = ["mp4", "mkv"]
NOTHING = "No new picture after "


def record(folder: Path, form: Form, *ranges: tuple[float, float]) -> Path:
    """Recordings of these stretches, in seconds after T0 + 0.4 s; their pattern."""
    pattern = folder / MEDIAMTX
    cut(numbered(form, 400), str(pattern), T0 + 400_000, pieces(*ranges))
    return pattern


def export(
    folder: Path, sources: Sequence[Source], begin: float, end: float, container: Container, **more: Any
) -> Outcome:
    more = {"words": WORDS, "subtitles": True, "discrete": False, **more}
    return do(clip_job(folder, sources, begin, end, container, **more))


def shown(path: Path) -> list[tuple[float, float, str]]:
    """From when to when each text is shown, in seconds of the file, read by ffmpeg."""
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-xerror", "-copyts", "-i", path, "-map", "0:s:0", "-f", "srt", "-"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert not done.stderr, done.stderr
    found = re.findall(r"(\S+) --> (\S+)\n(.*?)\n\n", done.stdout, re.DOTALL)
    return [(_seconds(begin), _seconds(end), text) for begin, end, text in found]


def _seconds(text: str) -> float:
    hours, minutes, seconds = text.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@pytest.mark.parametrize("form", [FORM, SILENT], ids=["sound", "silent"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_each_second_says_when_it_was_filmed(tmp_path: Path, container: Container, form: Form) -> None:
    pattern = record(tmp_path / "rec", form, (0, 3), (3, 8))
    made = export(tmp_path / "out", [source(pattern)], 1.52, 6.2, container)
    cues = shown(made.file)
    assert [text for _, _, text in cues] == [
        "Entrance 10:00:01.520",
        *(f"Entrance 10:00:0{second}.000" for second in (2, 3, 4, 5, 6)),
    ]
    borders = [0, 0.48, 1.48, 2.48, 3.48, 4.48, 4.68]
    assert [begin for begin, _, _ in cues] == pytest.approx(borders[:-1], abs=0.002)
    assert [end for _, end, _ in cues] == pytest.approx(borders[1:], abs=0.002)
    assert numbers(made.file) == list(range(28, 145))
    judged = judge(made.file)
    (track,) = [stream for stream in judged.streams if stream["codec_type"] == "subtitle"]
    assert track["disposition"]["default"] == 1
    assert (track["tags"].get("title") or track["tags"]["handler_name"]) == "Entrance"
    duration = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", made.file],
        capture_output=True,
        check=True,
    ).stdout
    assert float(duration) == pytest.approx(4.68, abs=0.03)
    assert "is encoded" not in made.link.notes


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_gap_is_told(tmp_path: Path, container: Container) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 2), (5, 8))
    made = export(tmp_path / "out", [source(pattern)], 0, 8, container)
    cues = shown(made.file)
    assert [text for _, _, text in cues] == [
        "Entrance 10:00:00.400",
        "Entrance 10:00:01.000",
        "Entrance 10:00:02.000",
        NOTHING + "10:00:02.400",
        "Entrance 10:00:05.400",
        "Entrance 10:00:06.000",
        "Entrance 10:00:07.000",
    ]
    assert cues[3][:2] == pytest.approx((2, 5), abs=0.002)
    assert all(one[1] == pytest.approx(other[0], abs=0.002) for one, other in itertools.pairwise(cues))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_gap_that_is_closed_leaves_the_times_true(tmp_path: Path, container: Container) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 2), (5, 8))
    made = export(tmp_path / "out", [source(pattern)], 0, 7, container, gaps="close")
    assert [(round(begin, 1), text) for begin, _, text in shown(made.file)] == [
        (0, "Entrance 10:00:00.400"),
        (0.6, "Entrance 10:00:01.000"),
        (1.6, "Entrance 10:00:02.000"),
        (2.0, "Entrance 10:00:05.400"),
        (2.6, "Entrance 10:00:06.000"),
    ]


@pytest.mark.parametrize("container", CONTAINERS)
def test_cameras_in_one_file_share_the_track(tmp_path: Path, container: Container) -> None:
    """One of them stops early, and comes again: the file's clock goes on, and so do its subtitles."""
    gate = source(record(tmp_path / "gate", FORM, (0, 14)), "Gate")
    yard = source(record(tmp_path / "yard", SILENT, (1, 2), (13, 15)), "Yard")
    made = export(tmp_path / "out", [gate, yard], 0, 15, container)
    assert [s["codec_type"] for s in judge(made.file).streams] == ["video", "audio", "video", "subtitle"]
    texts = [text for _, _, text in shown(made.file)]
    assert texts == ["Gate, Yard 10:00:00.400", *(f"Gate, Yard 10:00:{second:02}.000" for second in range(1, 15))]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_time_lapse_has_a_cue_for_each_second_of_the_clip(tmp_path: Path, container: Container) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 10))
    made = export(tmp_path / "out", [source(pattern)], 1, 9, container, coding=Coding(speed=4, threads=1))
    cues = shown(made.file)
    assert [text for _, _, text in cues] == ["Entrance 10:00:01.000", "Entrance 10:00:05.000"]
    assert cues[1][0] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("comment", ["", "a comment " * 100], ids=["short", "long"])
def test_a_limit_counts_them(tmp_path: Path, container: Container, comment: str) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 3), (5, 12))
    words = Words(pattern="{Timestamp} {ExportComment}", comment=comment)
    made = export(tmp_path / "out", [source(pattern)], 0, 12, container, max_file_size=48 << 10, words=words)
    assert made.ended.succeeded, made.ended.reason
    assert len(made.files) > 1
    assert max(path.stat().st_size for path in made.files) <= 48 << 10
    assert [n for path in made.files for n in numbers(path)] == [*range(75), *range(125, 290)]
    assert all(shown(path) for path in made.files)


def test_avi_has_none(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec", SILENT, (0, 2))
    made = export(tmp_path / "out", [source(pattern)], 0, 2, "avi")
    assert [s["codec_type"] for s in judge(made.file).streams] == ["video"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_any_text_can_be_shown(tmp_path: Path, container: Container) -> None:
    pattern = record(tmp_path / "rec", SILENT, (0, 2))
    words = Words(pattern="{ExportComment}", comment="Вход № 1\n\n\x00 \u05e9\u05dc 😀 {Timestamp} " + "ы" * 40_000)
    made = export(tmp_path / "out", [source(pattern)], 0, 1, container, words=words)
    (_, _, text), *_ = shown(made.file)
    assert text.startswith("Вход № 1\n\u05e9\u05dc 😀 {Timestamp} ыыы")


class _Recorder:
    """What was shown, from when to when."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int, str]] = []

    def show_text(self, at_us: int, until_us: int, text: str) -> None:
        self.end_text(at_us)
        assert at_us < until_us
        self.shown.append((at_us, until_us, text))

    def end_text(self, at_us: int) -> None:
        if self.shown:
            begin, end, text = self.shown[-1]
            assert begin < at_us <= end
            self.shown[-1] = (begin, at_us, text)


@given(
    st.lists(
        st.tuples(st.sampled_from(["reach", "pause", "close"]), st.integers(-2 * SECOND, 700 * SECOND)), max_size=20
    )
)
@settings(max_examples=200)
def test_cues_never_leave_a_hole_nor_overlap(steps: list[tuple[str, int]]) -> None:
    recorder = _Recorder()
    subtitles = Subtitles(Caption.of(WORDS, [source("/x")]), T0 + 123_456, recorder)
    at = 0
    for what, step in steps:
        at = max(0, at + step)
        if what == "reach":
            subtitles.reach(at, lambda us: us)
            assert at < subtitles.due_us
        elif what == "pause":
            subtitles.pause(at, at + 5 * SECOND, lambda us: us)
        else:
            subtitles.close_gap(at, abs(step), lambda us: us)
    subtitles.finish(at, lambda us: us)
    borders = [0, *(end for _, end, _ in recorder.shown)]
    assert [begin for begin, _, _ in recorder.shown] == borders[:-1]
    assert borders == sorted(set(borders))
