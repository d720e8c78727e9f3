"""Several cameras in one file, masks of the timeline, gaps: what goes into which file, and when it is shown there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.material import (
    SECOND,
    STEM,
    T0,
    FakeLink,
    Judged,
    Outcome,
    Target,
    clip_job,
    container_of,
    do_as_told,
    judge,
    numbered,
    numbers,
    numbers_in,
    numbers_of_all,
    pieces,
    source,
)
from tests.media.beeping import beeps, beeps_behind_flashes
from tools.make_recordings import Form, Piece, cut, segment_path
from vx.drawing import Words
from vx.jobs import Cut, Progress, Source
from vx.media.files import muxing
from vx.media.packets.messages import Track

CONTAINERS: list[Target] = ["mp4", "mkv"]
TARGETS: list[Target] = ["mp4", "mkv", "packets", "virtual"]
MP4: list[Target] = ["mp4", "virtual"]
FORM = Form(audio=True, b_frames=2)
OTHER = Form(gop=40)
FRAME = SECOND // 25


def us(*ranges: tuple[float, float]) -> list[tuple[int, int]]:
    return [(T0 + round(begin * SECOND), T0 + round(end * SECOND)) for begin, end in ranges]


def record(
    folder: Path, form: Form, *ranges: tuple[float, float], kind: str = "mp4", ahead_us: int = 0, frames: int = 500
) -> Path:
    """A camera's recordings of these seconds from T0 on; frame n is at n / 25."""
    pattern = folder / f"{STEM}.{kind}"
    cut(numbered(form, frames), str(pattern), T0 - ahead_us, pieces(*ranges), kind=kind)
    return pattern


def clip(folder: Path, sources: tuple[Source, ...], begin: float, end: float, target: Target, **more: Any) -> Outcome:
    more.setdefault("discrete", False)
    link = more.pop("link", None)
    return do_as_told(clip_job(folder, sources, begin, end, target, **more), link, target)


def masked(pattern: Path, *ranges: tuple[float, float], **more: Any) -> Source:
    camera = source(pattern)
    return Source(
        origin=camera.origin,
        name=camera.name,
        pattern=camera.pattern,
        timezone="UTC",
        ranges_us=tuple(us(*ranges)),
        **more,
    )


def tracks(path: Path, count: int) -> list[list[int]]:
    """The numbers of the frames of each video track."""
    return [numbers(path, track=track) for track in range(count)]


def times(judged: Judged, track: int) -> list[float]:
    """When the frames of a track are shown, in seconds of the file's clock."""
    return judged.tracks[track]


@pytest.mark.parametrize("target", TARGETS)
def test_two_cameras_are_tracks_on_one_clock(tmp_path: Path, target: Target) -> None:
    one = record(tmp_path / "one", FORM, (0, 4), (4, 8), (10, 14))
    other = record(tmp_path / "other", OTHER, (0, 19.2))
    made = clip(tmp_path / "out", (source(one, "Entrance"), source(other, "Yard")), 2.2, 12.6, target)
    assert made.ended.succeeded, made.ended.reason
    assert tracks(made.file, 2) == [[*range(55, 200), *range(250, 315)], list(range(55, 315))]
    judged = judge(made.file)
    assert [stream["codec_type"] for stream in judged.streams] == ["video", "audio", "video"]
    title = "title" if target == "mkv" else "handler_name"
    assert [stream["tags"][title] for stream in judged.streams] == ["Entrance", "Entrance", "Yard"]
    assert judged.tags["title"] == "Entrance, Yard"
    assert times(judged, 0) == pytest.approx([(n - 55) / 25 for n in (*range(55, 200), *range(250, 315))], abs=0.0011)
    assert times(judged, 2) == pytest.approx([(n - 55) / 25 for n in range(55, 315)], abs=0.0011)
    (done,) = made.link.done
    assert (done.first_us, done.last_us) == (T0 + 55 * FRAME, T0 + 314 * FRAME)
    assert done.name == f"Entrance_Yard_20260511T080002.200Z.{container_of(target)}"


MPEG4 = Form(codec="mpeg4", gop=25, audio=True)
OPEN = Form(b_frames=2, options=(("x264-params", "open-gop=1"), ("preset", "veryfast")))


@pytest.mark.parametrize(
    ("container", "form", "cut"),
    [
        ("mkv", MPEG4, "exact"),
        ("mp4", MPEG4, "exact"),
        ("avi", MPEG4, "exact"),
        ("avi", FORM, "exact"),
        ("mkv", FORM, "keyframe"),
        ("mp4", FORM, "keyframe"),
    ],
)
def test_ranges_that_share_a_key_frame_are_joined(tmp_path: Path, container: Target, form: Form, cut: Cut) -> None:
    """The second one begins with a key frame that is in the first: what is between them is needed, and comes once."""
    pattern = record(tmp_path / "rec", form, (0, 2), (2, 4))
    made = clip(tmp_path / "out", (masked(pattern, (0, 1.2), (1.6, 2.2), (2.4, 3)),), 0, 3, container, cut=cut)
    assert numbers(made.file) == list(range(75))
    judged = judge(made.file)
    if container != "avi":
        assert judged.frames == pytest.approx([n / 25 for n in range(75)], abs=0.0011)
    if form.codec != "libx264":
        assert len(judged.sound) == pytest.approx(3 * 48_000 / (1152 if container == "avi" else 1024), abs=3)
    assert (made.link.done[0].first_us, made.link.done[0].last_us) == (T0, T0 + 74 * FRAME)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_range_that_cannot_go_on_from_an_encoded_end_has_a_file_of_its_own(tmp_path: Path, container: Target) -> None:
    pattern = record(tmp_path / "rec", OPEN, (0, 4))
    made = clip(tmp_path / "out", (masked(pattern, (0, 1.2), (1.6, 3)),), 0, 3, container)
    assert numbers_of_all(made.files, flawless=False) == [list(range(30)), list(range(25, 75))]
    assert [done.first_us for done in made.link.done] == [T0, T0 + 25 * FRAME]
    assert "the clip begins with the key frame before its start" in made.link.notes


@pytest.mark.parametrize("target", TARGETS)
def test_the_last_picture_is_kept_where_another_camera_goes_on(tmp_path: Path, target: Target) -> None:
    """That one's key frame is written behind it, and before its B-frames."""
    one = record(tmp_path / "one", Form(b_frames=5, options=(("b_strategy", "0"), ("preset", "fast"))), (0, 2))
    other = record(tmp_path / "other", Form(gop=45), (0, 4))
    made = clip(tmp_path / "out", (source(one), source(other, "Yard")), 0, 3, target)
    assert tracks(made.file, 2) == [list(range(50)), list(range(75))]


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_first_picture_after_a_long_gap_while_a_camera_without_key_frames_goes_on(
    tmp_path: Path, container: Target
) -> None:
    one = record(tmp_path / "one", FORM, (0, 4), (16, 20), (20, 24), kind="mkv", frames=600)
    other = record(tmp_path / "other", Form(gop=600, audio=True), (0, 24), kind="mkv", frames=600)
    made = clip(tmp_path / "out", (source(one), source(other, "Yard")), 3.6, 24, container, subtitles=True)
    shown = [*range(90, 100), *range(400, 600)]
    assert tracks(made.file, 2) == [shown, list(range(90, 600))]
    assert times(judge(made.file), 0) == pytest.approx([(n - 90) / 25 for n in shown], abs=0.0011)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("cameras", "max_file_size"), [(2, 18_000), (3, 30_000)])
def test_a_file_has_no_track_for_what_does_not_fit_into_it(
    tmp_path: Path, cameras: int, max_file_size: int, container: Target
) -> None:
    one = record(tmp_path / "one", Form(), (0, 4))
    other = record(tmp_path / "other", OTHER, (0, 3.2))
    sources = (source(one), source(other, "Yard"), source(one, "Gate"))[:cameras]
    made = clip(tmp_path / "out", sources, 0, 4, container, max_file_size=max_file_size)
    assert made.ended.succeeded, made.ended.reason
    judged = [judge(path) for path in made.files]
    assert all(track for each in judged for track in each.tracks)
    assert sum(len(track) for each in judged for track in each.tracks) == (180, 280)[cameras - 2]


@pytest.mark.parametrize("target", MP4)
def test_a_camera_that_begins_later_and_one_that_recorded_nothing(tmp_path: Path, target: Target) -> None:
    one = record(tmp_path / "one", FORM, (0, 4), (4, 8))
    other = record(tmp_path / "other", FORM, (4, 8))
    none = tmp_path / "none" / f"{STEM}.mp4"
    sources = (source(none, "None"), source(one, "Entrance"), source(other, "Yard"))
    made = clip(tmp_path / "out", sources, 1, 7, target)
    assert tracks(made.file, 2) == [list(range(25, 175)), list(range(100, 175))]
    judged = judge(made.file)
    assert times(judged, 2)[0] == pytest.approx(3, abs=0.001)
    assert "None: " in made.link.notes


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("limit", [0, 80_000])
def test_a_new_form_of_one_camera_begins_a_file_for_all(tmp_path: Path, container: Target, limit: int) -> None:
    """Every file's tracks begin with key frames, and all parts together hold every frame once."""
    one = record(tmp_path / "one", FORM, (0, 4))
    record(tmp_path / "one", Form(width=336, audio=True, b_frames=2), (4, 10))
    other = record(tmp_path / "other", Form(gop=40, b_frames=2), (0, 6.4), (6.4, 16))
    sources = (source(one, "Entrance"), source(other, "Yard"))
    made = clip(tmp_path / "out", sources, 1.2, 9.4, container, max_file_size=limit)
    assert made.ended.succeeded, made.ended.reason
    found = [tracks(path, 2) for path in made.files]
    for track in (0, 1):
        assert [n for parts in found for n in parts[track]] == list(range(30, 235))
    if limit:
        assert all(path.stat().st_size <= limit for path in made.files)
        assert len(made.files) > 2
    else:
        assert [parts[0] for parts in found] == [list(range(30, 100)), list(range(100, 235))]
        assert found[1][1][0] % 40 == 0
    for path, done in zip(made.files, made.link.done, strict=True):
        judged = judge(path)
        first = min(judged.frames)
        assert first == pytest.approx(0, abs=0.001)
        assert done.last_us - done.first_us == pytest.approx(max(judged.frames) * SECOND, abs=2000)


@pytest.mark.parametrize("target", MP4)
def test_discrete_gives_each_its_own(tmp_path: Path, target: Target) -> None:
    one = record(tmp_path / "one", FORM, (0, 4))
    sources = (source(one, "Entrance"), source(one, "Yard"))
    made = clip(tmp_path / "out", sources, 0, 2, target, discrete=True)
    assert [path.name.split("_")[0] for path in made.files] == ["Entrance", "Yard"]


@pytest.mark.parametrize("target", TARGETS)
def test_only_the_ranges_of_the_mask(tmp_path: Path, target: Target) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 4), (4, 8), (8, 12))
    camera = masked(pattern, (0.4, 1.2), (3.52, 4.6), (4.8, 5.0), (9, 11.04))
    made = clip(tmp_path / "out", (camera,), 0, 12, target)
    wanted = [*range(10, 30), *range(88, 115), *range(120, 125), *range(225, 276)]
    assert numbers(made.file) == wanted
    judged = judge(made.file)
    assert judged.frames == pytest.approx([(n - 10) / 25 for n in wanted], abs=0.0011)
    silent = [(0.82, 3.1), (4.23, 4.38), (4.62, 8.58)]
    assert not [t for t in judged.sound for begin, end in silent if begin < t < end]
    assert "nothing was recorded" not in made.link.notes


@pytest.mark.parametrize("target", MP4)
def test_masks_of_one_source_and_the_file_without_the_others_range(tmp_path: Path, target: Target) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 4), (4, 8))
    made = clip(tmp_path / "out", (masked(pattern, (1, 2), (6, 7)), source(pattern, "Yard")), 1, 7, target)
    assert tracks(made.file, 2) == [[*range(25, 50), *range(150, 175)], list(range(25, 175))]


@pytest.mark.parametrize("target", TARGETS)
def test_gaps_begin_new_files(tmp_path: Path, target: Target) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 4), (5, 8), (12, 14))
    made = clip(tmp_path / "out", (source(pattern),), 1.4, 13.4, target, gaps="split", gap_us=2 * SECOND)
    assert numbers_of_all(made.files) == [[*range(35, 100), *range(125, 200)], list(range(300, 335))]
    assert [done.first_us for done in made.link.done] == [T0 + 35 * FRAME, T0 + 300 * FRAME]


@pytest.mark.parametrize("target", TARGETS)
def test_gaps_are_closed_up_and_reports_stay_true(tmp_path: Path, target: Target) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 4), (5, 8), (12, 14))
    link = FakeLink()
    made = clip(tmp_path / "out", (source(pattern),), 1.4, 13.4, target, gaps="close", gap_us=SECOND // 2, link=link)
    wanted = [*range(35, 100), *range(125, 200), *range(300, 335)]
    assert numbers(made.file) == wanted
    judged = judge(made.file)
    assert judged.frames == pytest.approx([n / 25 for n in range(len(wanted))], abs=0.0011)
    steps = [b - a for a, b in zip(judged.sound, judged.sound[1:], strict=False)]
    assert max(steps) < 0.05
    (done,) = made.link.done
    assert (done.first_us, done.last_us) == (T0 + 35 * FRAME, T0 + 334 * FRAME)
    assert [e.last_frame_us for e in made.link.events if isinstance(e, Progress)][-1] == done.last_us


def test_of_two_cameras_only_a_common_gap_is_one(tmp_path: Path) -> None:
    one = record(tmp_path / "one", FORM, (0, 4), (10, 12))
    other = record(tmp_path / "other", FORM, (0, 2), (3, 7), (10, 12))
    made = clip(tmp_path / "out", (source(one), source(other, "Yard")), 0, 20, "mp4", gaps="split")
    assert [tracks(path, 2) for path in made.files] == [
        [list(range(100)), [*range(50), *range(75, 175)]],
        [list(range(250, 300)), list(range(250, 300))],
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_a_clock_that_jumps_back_by_less_than_a_recording(tmp_path: Path, target: Target) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 4))
    record(tmp_path / "rec", FORM, (4, 8), ahead_us=2 * SECOND)
    made = clip(tmp_path / "out", (source(pattern),), 1.2, 5, target)
    assert numbers_of_all(made.files) == [list(range(30, 100)), list(range(100, 175))]
    assert [done.first_us for done in made.link.done] == [T0 + 30 * FRAME, T0 + 2 * SECOND]


def test_which_of_the_recordings_tracks(tmp_path: Path) -> None:
    one = record(tmp_path / "one", FORM, (0, 4))
    both = clip(tmp_path / "both", (source(one), source(record(tmp_path / "two", OTHER, (0, 4)))), 0, 4, "mkv")
    # a recording with two tracks of picture
    (tmp_path / "rec").mkdir()
    both.file.rename(tmp_path / "rec" / "2026-05-11_08-00-00-000000.mkv")
    pattern = tmp_path / "rec" / f"{STEM}.mkv"
    second = clip(tmp_path / "second", (masked(pattern, (0, 4), video=1, audio=None),), 0, 4, "mp4")
    assert [stream["codec_type"] for stream in judge(second.file).streams] == ["video"]
    none = clip(tmp_path / "none", (masked(pattern, (0, 4), video=2),), 0, 4, "mp4")
    assert not none.ended.succeeded
    assert "it has no track video:2" in none.link.notes


@pytest.mark.parametrize("target", TARGETS)
def test_the_file_says_what_it_is(tmp_path: Path, target: Target) -> None:
    pattern = record(tmp_path / "rec", FORM, (0, 4))
    camera = masked(pattern, (1, 2), id="7")
    made = clip(tmp_path / "out", (camera,), 1, 2, target, words=Words(comment="Grüße", offset_min=-210))
    tags = judge(made.file).tags
    assert (tags["title"], tags["comment"]) == ("Entrance", "Grüße")
    assert tags["creation_time"] == "2026-05-11T08:00:01.000000Z"
    for text in (f"7 {camera.origin}", "UTC-03:30", "vx 0."):
        assert text in tags["description"]
    if target == "mkv":
        assert (tags["camera_id"], tags["time_zone"]) == (f"7 {camera.origin}", "UTC-03:30")
        assert tags["software"].startswith("vx 0.")


@pytest.mark.parametrize("target", MP4)
def test_picture_and_sound_stay_together_for_an_hour(tmp_path: Path, target: Target) -> None:
    """Recordings of a minute, each up to 200 ms off its name, every fifth one missing: each flash has its beep."""
    folder = tmp_path / "rec"
    (minute,) = cut(beeps(60, 5, b_frames=2), str(tmp_path / "minute.mp4"), T0, [Piece(0, 60 * SECOND)])
    folder.mkdir()
    for i in range(60):
        if i % 5 != 4:
            off_us = (i * 7919 % 400 - 200) * 1000
            segment_path(str(folder / f"{STEM}.mp4"), T0 + i * 60 * SECOND + off_us).hardlink_to(minute)
    made = clip(tmp_path / "out", (source(folder / f"{STEM}.mp4"),), 0.1, 3600, target)
    assert made.link.notes.count("nothing was recorded") == 12
    behind = beeps_behind_flashes(made.file)
    assert len(behind) == 48 * 60
    assert behind == pytest.approx([0] * len(behind), abs=0.04)


def test_a_track_that_libav_refuses_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = record(tmp_path / "one", FORM, (0, 4))
    other = record(tmp_path / "other", Form(width=336), (0, 2), (2, 4))
    real = muxing.ResultFile._add

    def add(self: muxing.ResultFile, track: Track, title: str) -> Any:
        if title == "Yard":
            raise ValueError("no such track")
        return real(self, track, title)

    monkeypatch.setattr(muxing.ResultFile, "_add", add)
    made = clip(tmp_path / "out", (source(one), source(other, "Yard")), 0, 4, "mp4")
    assert made.ended.succeeded
    assert numbers_in(made.files) == list(range(100))
    assert "it is left out" in made.link.notes
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in made.files}
