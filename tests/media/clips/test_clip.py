from __future__ import annotations

import itertools
import os
import subprocess
import threading
from fractions import Fraction
from pathlib import Path

import pytest
from av.container import InputContainer

from tests.material import (
    SECOND,
    STEM,
    T0,
    FakeLink,
    Outcome,
    Target,
    clip_job,
    container_of,
    do,
    do_as_told,
    judge,
    numbered,
    numbers,
    numbers_in,
    numbers_of_all,
    pieces,
    real_footage,
    source,
)
from tools.make_recordings import Form, cut, segment_path
from vx.drawing import Words
from vx.jobs import ClipJob, Cut, Event, FileDone, FileOpened, PartFile, Progress, SourceEnded
from vx.media.packets import reading, recording
from vx.timestamps import parse_timestamp

KINDS = ["mp4", "fmp4", "mkv", "ts"]
CONTAINERS: list[Target] = ["mp4", "mkv"]
TARGETS: list[Target] = ["mp4", "mkv", "packets", "virtual"]
PAIRS: list[tuple[str, Target]] = [
    ("mp4", "mkv"),
    ("fmp4", "mp4"),
    ("fmp4", "packets"),
    ("mkv", "mp4"),
    ("ts", "mkv"),
    ("mp4", "virtual"),
    ("fmp4", "virtual"),
]
FORM = Form(audio=True)
FORM_B = Form(audio=True, b_frames=2)
FRAME = SECOND // 25


def clip(
    pattern: Path | str,
    folder: Path,
    begin: float,
    end: float,
    target: Target = "mp4",
    *,
    link: FakeLink | None = None,
    reject_audio: bool = False,
    max_file_size: int = 0,
    cut: Cut = "keyframe",
) -> Outcome:
    job = clip_job(
        folder,
        [source(pattern)],
        begin,
        end,
        target,
        words=Words(comment="Grüße, 你好"),
        reject_audio=reject_audio,
        max_file_size=max_file_size,
        cut=cut,
    )
    return do_as_told(job, link, target)


@pytest.mark.parametrize("form", [FORM, FORM_B], ids=["no-b-frames", "b-frames"])
@pytest.mark.parametrize(
    ("kind", "target"),
    [*itertools.product(KINDS, CONTAINERS), *itertools.product(["mp4", "fmp4"], ["packets", "virtual"])],
)
def test_a_clip_over_segments_and_a_gap(tmp_path: Path, kind: str, form: Form, target: Target) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.{kind}"
    cut(numbered(form, 300), str(pattern), T0, pieces((0, 4), (4, 8), (10, 12)), kind=kind)
    made = clip(pattern, tmp_path / "out", 2.5, 10.98, target)
    assert made.ended.succeeded, made.ended.reason
    (done,) = made.link.done
    assert numbers(made.file) == [*range(50, 200), *range(250, 275)]
    assert (done.first_us, done.last_us) == (T0 + 50 * FRAME, T0 + 274 * FRAME)
    assert done.size == made.file.stat().st_size
    assert done.name == f"Entrance_20260511T080002.000Z.{container_of(target)}"
    judged = judge(made.file)
    expected = [(n - 50) / 25 for n in [*range(50, 200), *range(250, 275)]]
    assert judged.frames == pytest.approx(expected, abs=0.0011)
    assert judged.sound[0] < 0.022
    assert judged.sound[-1] == pytest.approx(8.96, abs=0.022)
    assert not [t for t in judged.sound if 6.0 <= t < 7.97], "the gap is silent"
    assert len(judged.sound) == pytest.approx(7.0 * 48_000 / 1024, abs=4)
    assert judged.tags["comment"] == "Grüße, 你好"
    assert judged.tags["title"] == "Entrance"
    assert judged.tags["creation_time"] == "2026-05-11T08:00:02.000000Z"
    assert "nothing was recorded from 20260511T080008.000000 to 20260511T080010.000000" in made.link.notes


@pytest.mark.parametrize(("kind", "target"), PAIRS)
@pytest.mark.parametrize(
    ("begin", "end", "first", "last"),
    [
        (0, 12, 0, 299),
        (-100, 100, 0, 299),
        (1, 2, 25, 49),
        (0.999, 2.001, 0, 52),  # frame 52 is what the B-frames 50 and 51 are predicted from
        (3.98, 4.02, 75, 100),
        (11.97, 50, 275, 299),
    ],
)
def test_it_starts_with_the_key_frame_before_and_ends_with_the_last_frame_needed(
    tmp_path: Path, kind: str, target: Target, begin: float, end: float, first: int, last: int
) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.{kind}"
    cut(numbered(FORM_B, 300), str(pattern), T0, pieces((0, 4), (4, 8), (8, 12)), kind=kind)
    made = clip(pattern, tmp_path / "out", begin, end, target)
    found = numbers(made.file)
    wanted = [n for n in range(first, last + 1) if n < end * 25]
    assert found[: len(wanted)] == wanted
    assert set(found[len(wanted) :]) <= set(range(last + 1)), "no more than the frames before the end need"
    (done,) = made.link.done
    assert (done.first_us, done.last_us) == (T0 + found[0] * FRAME, T0 + found[-1] * FRAME)
    judge(made.file)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_frame_shown_before_a_gap_does_not_start_a_clip_in_the_gap(tmp_path: Path, kind: str) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.{kind}"
    cut(numbered(FORM_B, 300), str(pattern), T0, pieces((0, 4), (8, 12)), kind=kind)
    made = clip(pattern, tmp_path / "out", 6, 9)
    assert numbers(made.file) == list(range(200, 225))
    made = clip(pattern, tmp_path / "none", 4.5, 7.5)
    assert not made.ended.succeeded
    assert made.ended.reason == "Entrance: nothing was recorded from 20260511T080004.500000 to 20260511T080007.500000"
    assert made.files == list((tmp_path / "none").iterdir()) == []


def test_what_is_recorded_right_before_the_start_is_shown_until_its_end(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 100), str(pattern), T0, pieces((0, 4)))
    assert numbers(clip(pattern, tmp_path / "in", 3.999, 10).file) == list(range(75, 100))
    assert not clip(pattern, tmp_path / "out", 4.0, 10).ended.succeeded


def test_sound_can_be_left_out(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 50), str(pattern), T0, pieces((0, 2)))
    made = clip(pattern, tmp_path / "out", 0, 2, reject_audio=True)
    assert [stream["codec_type"] for stream in judge(made.file).streams] == ["video"]


@pytest.mark.parametrize("target", TARGETS)
def test_names_that_are_a_little_off_leave_no_holes_and_no_overlaps(tmp_path: Path, target: Target) -> None:
    footage = numbered(FORM_B, 300)
    for i, off_ms in enumerate((0, 30, -40, 200, -120, 90)):
        folder = tmp_path / f"{i}"
        cut(footage, str(folder / f"{STEM}.mp4"), T0 + off_ms * 1000, pieces((i * 2, i * 2 + 2)))
        (path,) = folder.iterdir()
        (tmp_path / "rec").mkdir(exist_ok=True)
        path.rename(tmp_path / "rec" / path.name)
    made = clip(tmp_path / "rec" / f"{STEM}.mp4", tmp_path / "out", 0, 20, target)
    assert numbers(made.file) == list(range(300))
    judged = judge(made.file)
    assert judged.frames == pytest.approx([n / 25 for n in range(300)], abs=0.0011)
    steps = [b - a for a, b in zip(judged.sound, judged.sound[1:], strict=False)]
    assert steps == pytest.approx([1024 / 48_000] * len(steps), abs=0.012)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty seconds in recordings of one, which begin every 993 ms: by the end the camera's clock is ahead by more than
    a quarter of a second."""
    folder = tmp_path_factory.mktemp("fast")
    pattern = folder / f"{STEM}.mp4"
    footage = numbered(FORM_B, 1000)
    for i in range(40):
        cut(footage, str(pattern), T0 - i * 7_000, pieces((i, i + 1)))
    return pattern


@pytest.mark.parametrize("target", TARGETS)
def test_a_clock_that_is_fast_stays_in_one_file_and_near_the_names(fast: Path, tmp_path: Path, target: Target) -> None:
    made = clip(fast, tmp_path / "out", 0, 60, target)
    assert numbers(made.file) == list(range(1000))
    frames = judge(made.file).frames
    ahead = [frames[25 * i] - i * 0.993 for i in range(40)]
    assert ahead == pytest.approx([min(0.007 * i, 0.126) for i in range(40)], abs=0.009)
    assert min(b - a for a, b in itertools.pairwise(frames)) > 0.03
    assert made.link.done[0].last_us == pytest.approx(T0 + frames[-1] * SECOND, abs=1000)


@pytest.mark.parametrize("target", TARGETS)
def test_a_clock_that_was_set_back_begins_a_new_file(tmp_path: Path, target: Target) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM_B, 100), str(pattern), T0, pieces((0, 4)))
    cut(numbered(FORM_B, 200), str(pattern), T0 - 2 * SECOND, pieces((4, 8)))
    made = clip(pattern, tmp_path / "out", 0, 20, target)
    assert numbers_of_all(made.files) == [list(range(100)), list(range(100, 200))]
    assert [done.first_us for done in made.link.done] == [T0, T0 + 2 * SECOND]
    assert "begins before the recording ahead of it ends" in made.link.notes


@pytest.mark.parametrize("begin", [10, 21, 30])
def test_a_start_in_a_transport_stream_whose_clock_was_set_back(tmp_path: Path, begin: int) -> None:
    """Its times are there twice: none of them says where in it a picture is."""
    pattern = tmp_path / "rec" / f"{STEM}.ts"
    (one, other) = cut(numbered(FORM, 1000), str(pattern), T0, pieces((0, 20), (20, 40)), kind="ts")
    one.write_bytes(one.read_bytes() + other.read_bytes())
    other.unlink()
    made = clip(pattern, tmp_path / "out", begin, begin + 2)
    assert numbers(made.file) == list(range(25 * begin, 25 * (begin + 2)))
    assert made.link.done[0].first_us == T0 + begin * SECOND


@pytest.mark.parametrize(("begin", "first"), [(0, 0), (2.5, 50)])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_clock_that_was_set_back_within_a_recording(
    tmp_path: Path, container: Target, begin: float, first: int
) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.ts"
    (one, other) = cut(numbered(FORM_B, 150), str(pattern), T0, pieces((0, 3), (3, 6)), kind="ts")
    one.write_bytes(one.read_bytes() + other.read_bytes())
    other.unlink()
    made = clip(pattern, tmp_path / "out", begin, 20, container)
    assert numbers(made.file) == list(range(first, 150))
    judged = judge(made.file)
    assert judged.frames == pytest.approx([n / 25 for n in range(150 - first)], abs=0.0011)
    steps = [later - earlier for earlier, later in itertools.pairwise(judged.sound)]
    assert steps == pytest.approx([1024 / 48_000] * len(steps), abs=0.022)
    assert judged.sound[-1] == pytest.approx((150 - first) / 25, abs=0.06)
    assert f"{one}: its clock was set back by 3.0 s; what follows goes on from there" in made.link.notes


@pytest.mark.parametrize("change", ["20260329T010000", "20261025T010000"], ids=["to summer time", "from summer time"])
def test_names_in_local_time_across_a_change_of_the_clocks(tmp_path: Path, change: str) -> None:
    begin_us = parse_timestamp(change) - 4 * SECOND
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    every_two = pieces(*((i, i + 2) for i in range(0, 12, 2)))
    paths = cut(numbered(FORM, 300), str(pattern), begin_us, every_two, timezone="Europe/Berlin")
    for i, path in enumerate(paths):
        written_s = begin_us // SECOND + 2 * (i + 1)
        os.utime(path, (written_s, written_s))
    assert (sorted(paths) == paths) == ("03" in change[4:6]), "names of the hour that happens twice"
    folder = tmp_path / "out"
    folder.mkdir()
    camera = source(pattern, timezone="Europe/Berlin")
    end_us = begin_us + 12 * SECOND
    made = do(ClipJob(folder=str(folder), sources=(camera,), start_us=begin_us, end_us=end_us, container="mp4"))
    assert numbers(made.file) == list(range(300))
    assert (made.link.done[0].first_us, made.link.done[0].last_us) == (begin_us, end_us - FRAME)
    assert not made.link.notes


@pytest.mark.parametrize(
    ("other", "target"),
    [
        *itertools.product([Form(width=336, audio=True), Form(b_frames=2, audio=True)], TARGETS),
        *itertools.product(
            [Form(codec="mpeg4", audio=True), Form(audio=True, options=(("profile", "high"), ("preset", "slow")))],
            CONTAINERS,
        ),
    ],
)
def test_a_segment_of_another_form_begins_a_new_file(tmp_path: Path, target: Target, other: Form) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 50), str(pattern), T0, pieces((0, 2)))
    cut(numbered(other, 100), str(pattern), T0, pieces((2, 4)))
    cut(numbered(FORM, 150), str(pattern), T0, pieces((4, 6)))
    made = clip(pattern, tmp_path / "out", 0, 20, target)
    assert numbers_of_all(made.files) == [list(range(i, i + 50)) for i in (0, 50, 100)]
    assert "a new file begins with it" in made.link.notes


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_zero_behind_parameter_sets_is_no_other_form(tmp_path: Path, container: Target) -> None:
    """As ffmpeg records MPEG-TS: in the first segment an encoder's remark follows the sets, in others a slice does."""
    pattern = tmp_path / "rec" / f"{STEM}.ts"
    pattern.parent.mkdir()
    record = "ffmpeg -v error -f matroska -i - -c:v libx264 -preset veryfast -g 25 -bf 2 -fps_mode passthrough "
    record += "-c:a copy -f segment -segment_times 2 -reset_timestamps 1 -segment_format mpegts"
    subprocess.run([*record.split(), tmp_path / "rec" / "%d.ts"], input=numbered(FORM_B, 100), check=True)
    for i in range(2):
        (tmp_path / "rec" / f"{i}.ts").rename(segment_path(str(pattern), T0 + 2 * i * SECOND))
    made = clip(pattern, tmp_path / "out", 0, 4, container)
    assert numbers(made.file) == list(range(100))
    assert not made.link.notes


def test_a_segment_without_sound_stays_in_the_file(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 150), str(pattern), T0, pieces((0, 2), (4, 6)))
    cut(numbered(Form(), 100), str(pattern), T0, pieces((2, 4)))
    made = clip(pattern, tmp_path / "out", 0, 20)
    assert numbers(made.file) == list(range(150))
    sound = judge(made.file).sound
    assert not [t for t in sound if 2.05 < t < 3.95]
    assert len(sound) == pytest.approx(4 * 48_000 / 1024, abs=4)


def test_an_open_group_is_cut_where_it_can_be_decoded(tmp_path: Path) -> None:
    form = Form(b_frames=2, options=(("x264-params", "open-gop=1"), ("preset", "veryfast")))
    pattern = tmp_path / "rec" / f"{STEM}.mkv"
    cut(numbered(form, 250), str(pattern), T0, pieces((0, 5), (5, 10)), kind="mkv")
    whole = clip(pattern, tmp_path / "whole", 0, 10)
    assert numbers(whole.file) == list(range(250)), "pictures behind an open group's key frame are kept"
    judge(whole.file)
    late = clip(pattern, tmp_path / "late", 3.5, 10)
    # a key frame that isn't an IDR makes decoders complain about what came before it, and nothing worse
    assert numbers(late.file, flawless=False) == list(range(75, 250))


@pytest.mark.parametrize(
    ("kind", "limit", "target"),
    [
        *((*form, target) for form in [("mp4", 100_000), ("ts", 61_000), ("mp4", 1_000_000)] for target in CONTAINERS),
        ("mp4", 61_000, "virtual"),
        ("fmp4", 1_000_000, "virtual"),
    ],
)
def test_no_file_is_larger_and_nothing_is_lost_between_them(
    tmp_path: Path, kind: str, target: Target, limit: int
) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.{kind}"
    cut(numbered(FORM_B, 600), str(pattern), T0, pieces(*((i, i + 4) for i in range(0, 24, 4))), kind=kind)
    whole = clip(pattern, tmp_path / "whole", 1, 23, target)
    parts = clip(pattern, tmp_path / "parts", 1, 23, target, max_file_size=limit)
    assert parts.ended.succeeded, parts.ended.reason
    assert numbers_in(parts.files) == list(range(25, 575))
    assert all(path.stat().st_size <= limit for path in parts.files)
    assert len(parts.files) <= 3 * whole.file.stat().st_size // limit + 2, "the limit is made use of"
    assert sum(len(judge(path).sound) for path in parts.files) == len(judge(whole.file).sound)
    for done, path in list(zip(parts.link.done, parts.files, strict=True))[:3]:
        found = numbers(path)
        assert (done.first_us, done.last_us) == (T0 + found[0] * FRAME, T0 + found[-1] * FRAME)
        assert judge(path).frames[0] == 0


@pytest.mark.parametrize("container", CONTAINERS)
def test_many_small_packets_stay_below_the_limit_too(tmp_path: Path, container: Target) -> None:
    """The container's own bytes weigh most where a camera sends one frame in a second, and next to nothing in it."""
    form = Form(width=256, height=64, fps=Fraction(1), gop=5, audio=True)
    pattern = tmp_path / "rec" / f"{STEM}.mkv"
    cut(numbered(form, 200), str(pattern), T0, pieces((0, 200)), kind="mkv")
    for limit in (75_000, 150_000):
        made = clip(pattern, tmp_path / f"{limit}", 0, 200, container, max_file_size=limit)
        assert made.ended.succeeded, made.ended.reason
        assert numbers_in(made.files) == list(range(200))
        assert all(path.stat().st_size <= limit for path in made.files)


def test_a_limit_below_one_group_of_pictures_ends_with_what_was_written(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 50), str(pattern), T0, pieces((0, 2)))
    cut(numbered(Form(audio=True, gop=200), 200), str(pattern), T0 + 2 * SECOND, pieces((0, 8)))
    size = min(path.stat().st_size for path in (tmp_path / "rec").iterdir())
    made = clip(pattern, tmp_path / "out", 0, 20, max_file_size=size + 14_000)
    assert not made.ended.succeeded
    assert "max_file_size of" in made.ended.reason
    assert "20260511T080002.000000 up to the next one need" in made.ended.reason
    assert numbers_in(made.files) == list(range(50))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in made.files}
    made = clip(pattern, tmp_path / "tiny", 0, 20, max_file_size=1000)
    assert not made.ended.succeeded
    assert list((tmp_path / "tiny").iterdir()) == []


def test_events_come_in_their_order(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 100), str(pattern), T0, pieces((0, 4)))
    made = clip(pattern, tmp_path / "out", 0, 4)
    kinds = [type(event) for event in made.link.events]
    assert kinds[0] is FileOpened
    assert kinds[-3:] == [Progress, FileDone, SourceEnded]
    opened = made.link.events[0]
    assert isinstance(opened, FileOpened)
    assert opened.part == PartFile(
        part_name="Entrance_20260511T080000.000Z.mp4.part",
        name="Entrance_20260511T080000.000Z.mp4",
        mime_type="video/mp4",
        first_us=T0,
    )
    times = [event.last_frame_us for event in made.link.events if isinstance(event, Progress)]
    assert times == sorted(times)
    assert times[-1] == T0 + 99 * FRAME


@pytest.mark.parametrize("container", ["mp4", "mkv", "packets"])
def test_stop_leaves_a_playable_file(tmp_path: Path, container: Target) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM_B, 600), str(pattern), T0, pieces(*((i, i + 2) for i in range(0, 24, 2))))
    link = FakeLink()

    def stop(event: Event) -> None:
        if isinstance(event, Progress):
            link.stop()

    link.on_event = stop
    made = clip(pattern, tmp_path / "out", 0, 24, container, link=link)
    assert made.ended.succeeded
    found = numbers(made.file)
    assert sorted(found) == found
    assert 0 < len(found) < 600
    judge(made.file)


def test_how_far_it_is_is_told_while_nothing_more_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second recording is only there once it was told that the first one has been written to its last frame."""
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 100), str(pattern), T0, pieces((0, 2), (2, 4)))
    link, told = FakeLink(), threading.Event()
    real = recording.open_recording

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.last_frame_us == T0 + 49 * FRAME:
            told.set()

    def open_recording(path: str) -> InputContainer:
        assert "08-00-02" not in path or told.wait(60)
        return real(path)

    link.on_event = listen
    monkeypatch.setattr(reading, "open_recording", open_recording)
    made = clip(pattern, tmp_path / "out", 0, 4, "packets", link=link)
    assert numbers(made.file) == list(range(100)), made.link.notes


def test_stop_does_not_wait_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 100), str(pattern), T0, pieces((0, 2), (2, 4)))
    link, never = FakeLink(), threading.Event()
    real = recording.open_recording

    def open_recording(path: str) -> InputContainer:
        if "08-00-02" in path:
            link.stop()
            never.wait()
        return real(path)

    monkeypatch.setattr(reading, "open_recording", open_recording)
    try:
        made = clip(pattern, tmp_path / "out", 0, 4, "packets", link=link)
    finally:
        never.set()
    if made.ended.succeeded:
        assert numbers(made.file) == list(range(len(numbers(made.file))))
    else:  # it was stopped before the first segment's packets were taken
        assert made.ended.reason == "stopped before anything was written"


def test_stop_before_anything_was_written(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 50), str(pattern), T0, pieces((0, 2)))
    link = FakeLink()
    link.stop()
    made = clip(pattern, tmp_path / "out", 0, 2, link=link)
    assert not made.ended.succeeded
    assert made.ended.reason == "stopped before anything was written"


def test_each_source_gets_its_own_file_with_a_safe_name_of_its_own(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(FORM, 50), str(pattern), T0, pieces((0, 2)))
    folder = tmp_path / "out"
    folder.mkdir()
    names = ("Вход/../№ 1", "Yard", "Yard", "nowhere")
    sources = tuple(source(pattern if name != "nowhere" else tmp_path / "x" / f"{STEM}.mp4", name) for name in names)
    made = do(ClipJob(folder=str(folder), sources=sources, start_us=T0, end_us=T0 + SECOND, container="mkv"))
    assert made.ended.succeeded
    assert [path.name for path in made.files] == [
        "Вход_.._1_20260511T080000.000Z.mkv",
        "Yard_20260511T080000.000Z.mkv",
        "Yard_20260511T080000.000Z-2.mkv",
    ]
    assert numbers_of_all(made.files) == [list(range(25))] * 3
    tags = judge(made.files[0]).tags
    assert tags["title"] == "Вход/../№ 1"
    assert "comment" not in {name.lower() for name in tags}, "an empty tag"


@pytest.mark.parametrize("target", TARGETS)
def test_the_turn_of_a_camera_is_kept(tmp_path: Path, target: Target) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(rotation=90), 25), str(pattern), T0, pieces((0, 1)))
    made = clip(pattern, tmp_path / "out", 0, 1, target)
    sides = [side for stream in judge(made.file).streams for side in stream.get("side_data_list", [])]
    assert [side["rotation"] for side in sides if "rotation" in side] == [90]


def pictures(path: Path) -> list[str]:
    """A digest of each decoded picture, by ffmpeg."""
    done = subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-xerror",
            "-i",
            path,
            "-map",
            "0:v:0",
            "-fps_mode",
            "passthrough",
            "-f",
            "framemd5",
            "-",
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    assert not done.stderr, done.stderr
    return [line.rsplit(",", 1)[1].strip() for line in done.stdout.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(("kind", "target"), PAIRS)
@pytest.mark.parametrize(
    "names", [f"entrance/{STEM}.mp4", "recordings/%Y-%m-%d/%H/entrance/%M.%S.mp4"], ids=["mediamtx", "frigate"]
)
def test_real_footage_with_b_frames(tmp_path: Path, names: str, kind: str, target: Target) -> None:
    """Every picture of bikes.mp4, cut into a segment for each of its six GOPs, comes out as it was."""
    bikes = real_footage("bikes.mp4")
    pattern = tmp_path / "rec" / names
    begin = T0 + 59 * 60 * SECOND + 55 * SECOND  # across the hour: another directory
    segments = cut(bikes, str(pattern), begin, pieces(*((i / 10, (i + 1) / 10) for i in range(100))), kind=kind)
    assert len(segments) == 6
    made = clip(pattern, tmp_path / "out", 3595, 3605, target)
    assert made.ended.succeeded, made.ended.reason
    assert pictures(made.file) == pictures(bikes)
    (done,) = made.link.done
    assert done.first_us == begin
    assert done.last_us == pytest.approx(begin + 249 * FRAME, abs=2000)
    assert judge(made.file).frames == pytest.approx([n / 25 for n in range(250)], abs=0.002)


@pytest.mark.parametrize(("kind", "target"), PAIRS)
def test_real_footage_with_sound(tmp_path: Path, kind: str, target: Target) -> None:
    bunny = real_footage("bigbuckbunny.mp4")
    pattern = tmp_path / "rec" / f"{STEM}.{kind}"
    cut(bunny, str(pattern), T0, pieces((0, 6)), kind=kind)
    made = clip(pattern, tmp_path / "out", 2, 4, target)
    judged = judge(made.file)
    assert pictures(made.file) == pictures(bunny)[:100]
    assert judged.frames == pytest.approx([n / 25 for n in range(100)], abs=0.002)
    assert judged.sound[0] == pytest.approx(0, abs=0.022)
    assert judged.sound[-1] == pytest.approx(4, abs=0.03)
    assert {stream["codec_name"] for stream in judged.streams} == {"h264", "aac"}


@pytest.mark.parametrize(("late", "has_sound"), [(3, True), (8, False)])
def test_sound_that_begins_late_in_a_transport_stream(tmp_path: Path, late: int, has_sound: bool) -> None:
    """Only its packets tell what it is: where libav found none, it is said that the sound is left out."""
    (footage,) = cut(numbered(FORM, 250), str(tmp_path / "footage" / f"{STEM}.mp4"), T0, pieces((0, 10)))
    path = segment_path(str(tmp_path / "rec" / f"{STEM}.ts"), T0)
    path.parent.mkdir()
    sources = ["-i", str(footage), "-itsoffset", str(late), "-i", str(footage), "-t", "10"]
    command = ["ffmpeg", "-v", "error", *sources, "-map", "0:v", "-map", "1:a", "-c", "copy", str(path)]
    subprocess.run(command, check=True)
    made = clip(path.parent / f"{STEM}.ts", tmp_path / "out", 0, 10)
    assert numbers(made.file) == list(range(250))
    judged = judge(made.file)
    assert ("its sound can't be understood; it is left out" in made.link.notes) != has_sound
    if has_sound:
        assert judged.sound[0] == pytest.approx(late, abs=0.03)
        assert judged.sound[-1] == pytest.approx(10, abs=0.05)
    else:
        assert not judged.sound
