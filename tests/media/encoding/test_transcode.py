"""Clips that can't be copied: other codecs, fewer frames, another speed; and AVI, which has no times."""

from __future__ import annotations

import functools
import io
import itertools
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.material import (
    SECOND,
    STEM,
    T0,
    FakeLink,
    Outcome,
    clip_job,
    do,
    judge,
    numbered,
    numbers,
    numbers_in,
    pieces,
    real_footage,
    source,
)
from tests.media.beeping import beeps, beeps_behind_flashes, samples
from tools import make_recordings
from tools.make_recordings import Form, cut
from vx.jobs import Coding, Container, PartFile, SalvageJob
from vx.media.encoding.recipe import AtRate

FORM = Form(audio=True)
FORM_B = Form(audio=True, b_frames=2)
VP8 = Form(codec="libvpx", options=(("deadline", "realtime"), ("cpu-used", "8")))
FRAME = SECOND // 25
CONTAINERS: list[Container] = ["mp4", "mkv", "avi"]


def export(
    pattern: Path | str,
    folder: Path,
    begin: float,
    end: float,
    container: Container = "mp4",
    *,
    link: FakeLink | None = None,
    max_file_size: int = 0,
    **coding: Any,
) -> Outcome:
    how = Coding(**{"threads": 1, **coding})
    return do(clip_job(folder, [source(pattern)], begin, end, container, max_file_size=max_file_size, coding=how), link)


def record(folder: Path, form: Form, frames: int, *ranges: tuple[float, float], kind: str = "mp4") -> Path:
    """Recordings of numbered footage; returns their pattern."""
    pattern = folder / f"{STEM}.{kind}"
    cut(numbered(form, frames), str(pattern), T0, pieces(*ranges), kind=kind)
    return pattern


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three segments, the last one after a gap of two seconds."""
    return record(tmp_path_factory.mktemp("gap"), FORM_B, 300, (0, 4), (4, 8), (10, 12))


def codecs(path: Path) -> list[str]:
    return [stream["codec_name"] for stream in judge(path).streams]


def ends(path: Path) -> list[float]:
    """Up to when picture and sound last, in seconds on the file's clock."""
    found = [0.0, 0.0]
    with av.open(path) as file:
        for packet in file.demux():
            if packet.size and packet.dts is not None:
                pts = packet.dts if packet.pts is None else packet.pts
                end = float((pts + (packet.duration or 0)) * packet.time_base)
                found[packet.stream_index] = max(end, found[packet.stream_index])
    return found


WANTED = [*range(63, 200), *range(250, 275)]
"""What 2.5 s to 10.98 s of `gap` show; frame 250 is the first after the gap."""


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("coding", "found"),
    [
        ({"video_quality": "good"}, "h264"),
        ({"video": "mpeg4", "audio": "mp2"}, "mpeg4"),
        ({"video": "mjpeg", "audio_quality": "small"}, "mjpeg"),
    ],
    ids=["h264", "mpeg4", "mjpeg"],
)
def test_a_transcoded_clip_is_exact_to_the_frame(
    tmp_path: Path, gap: Path, container: Container, coding: dict[str, Any], found: str
) -> None:
    made = export(gap, tmp_path / "out", 2.5, 10.98, container, **coding)
    assert made.ended.succeeded, made.ended.reason
    (done,) = made.link.done
    assert numbers(made.file) == WANTED
    assert (done.first_us, done.last_us) == (T0 + 63 * FRAME, T0 + 274 * FRAME)
    judged = judge(made.file)
    sound = "mp2" if coding.get("audio") == "mp2" or container == "avi" else "aac"
    assert [_codec(container, stream) for stream in judged.streams] == [found, sound]
    assert judged.frames == pytest.approx([(n - 63) / 25 for n in WANTED], abs=0.0011)
    assert judged.sound[0] < 0.03
    assert judged.sound[-1] == pytest.approx(8.46, abs=0.05)
    assert "20260511T080008.000000 to 20260511T080010.000000" in made.link.notes
    assert made.link.notes.count("nothing was recorded") == 1


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("every", [2, 4, 8])
def test_frames_are_left_out_by_count_and_times_stay_true(
    tmp_path: Path, gap: Path, container: Container, every: int
) -> None:
    made = export(gap, tmp_path / "out", 2.5, 10.98, container, every=every)
    wanted = WANTED[::every]
    assert numbers(made.file) == wanted
    # in AVI a time is the number of a frame, so what comes after the gap may be off by half of one
    off = 0.5 * every / 25 + 0.001 if container == "avi" else 0.0011
    assert judge(made.file).frames == pytest.approx([(n - 63) / 25 for n in wanted], abs=off)
    (done,) = made.link.done
    assert (done.first_us, done.last_us) == (T0 + wanted[0] * FRAME, T0 + wanted[-1] * FRAME)


@pytest.mark.parametrize(
    ("form", "coding", "container", "found"),
    [
        (FORM, {}, "mp4", "h264"),
        (FORM, {"video": "h264", "audio": "mp2"}, "mkv", "h264"),
        (Form(codec="mpeg4"), {"video": "mpeg4"}, "avi", "mpeg4"),
        (Form(codec="mjpeg"), {"video": "mjpeg"}, "avi", "mjpeg"),
        (Form(codec="libx265", options=(("x265-params", "log-level=none"),)), {}, "mp4", "hevc"),
        (VP8, {}, "mkv", "vp8"),
    ],
    ids=["h264", "other-sound", "mpeg4", "mjpeg", "h265", "vp8"],
)
def test_a_picture_that_can_be_copied_is(
    tmp_path: Path, form: Form, coding: dict[str, Any], container: Container, found: str
) -> None:
    pattern = record(tmp_path / "rec", form, 50, (0, 2), kind="mkv")
    made = export(pattern, tmp_path / "out", 0, 2, container, **coding)
    assert "the picture is encoded" not in made.link.notes
    assert codecs(made.file)[0] == found
    assert numbers(made.file) == list(range(50))


@pytest.mark.parametrize(
    ("form", "coding", "container", "found"),
    [
        (Form(codec="libx265", options=(("x265-params", "log-level=none"),)), {"video_quality": "tiny"}, "mkv", "hevc"),
        (Form(codec="libx265", options=(("x265-params", "log-level=none"),)), {"video": "h264"}, "mp4", "h264"),
        (Form(codec="libx265", options=(("x265-params", "log-level=none"),)), {}, "avi", "h264"),
        (VP8, {}, "mp4", "h264"),
        (Form(codec="mpeg4"), {"every": 2}, "mp4", "mpeg4"),
        (FORM_B, {"key_fps": 5, "speed": 0}, "avi", "h264"),
    ],
    ids=["h265-stays", "h265-to-h264", "h265-avi", "vp8-mp4", "mpeg4-stays", "b-frames-avi"],
)
def test_a_picture_that_cannot_be_copied_is_encoded(
    tmp_path: Path, form: Form, coding: dict[str, Any], container: Container, found: str
) -> None:
    pattern = record(tmp_path / "rec", form, 50, (0, 2), kind="mkv")
    made = export(pattern, tmp_path / "out", 0, 2, container, **coding)
    assert "the picture is encoded" in made.link.notes
    assert codecs(made.file)[0] == found
    assert numbers(made.file) == list(range(0, 50, 25 if "key_fps" in coding else coding.get("every", 1)))


def test_better_qualities_take_more_bytes(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(real_footage("bikes.mp4"), str(pattern), T0, pieces((0, 3)))
    for video in ("h264", "mjpeg", "mpeg4"):
        sizes = []
        for quality in ("best", "fine", "good", "medium", "small", "tiny", "smallest"):
            made = export(pattern, tmp_path / f"{video}-{quality}", 0, 0.6, "mkv", video_quality=quality, video=video)
            sizes.append(made.file.stat().st_size)
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] > 2 * sizes[-1]


# ---- sound


@functools.cache
def g711(kind: str) -> bytes:
    """Recorded as cameras do; PyAV can't write it."""
    command = "ffmpeg -v error -f matroska -i - -c:v copy -c:a @ -ar 8000 -f matroska -".replace("@", kind).split()
    return subprocess.run(command, input=numbered(FORM, 100), capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("recorded", "coding", "found"),
    [
        ("aac", {}, ("aac", "aac", "mp2")),
        ("mp2", {}, ("mp2", "mp2", "mp2")),
        ("libopus", {}, ("opus", "opus", "mp2")),
        ("pcm_alaw", {}, ("aac", "pcm_s16le", "pcm_alaw")),
        ("pcm_mulaw", {"audio_quality": "fine"}, ("aac", "aac", "pcm_mulaw")),
        ("pcm_mulaw", {"audio": "mp2"}, ("mp2", "mp2", "mp2")),
        ("aac", {"audio": "g711"}, (None, None, "pcm_alaw")),
        ("wavpack", {}, ("aac", "wavpack", "mp2")),
    ],
)
def test_sound_is_what_the_container_can_hold(
    tmp_path: Path, recorded: str, coding: dict[str, Any], found: tuple[str | None, ...]
) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mkv"
    if recorded.startswith("pcm"):
        path = make_recordings.segment_path(str(pattern), T0)
        path.parent.mkdir()
        path.write_bytes(g711(recorded))
    else:
        footage = numbered(Form(audio=True, audio_codec=recorded), 100)
        cut(footage, str(pattern), T0, pieces((0, 4)), kind="mkv")
    for container, codec in zip(CONTAINERS, found, strict=True):
        if codec is None:
            continue
        made = export(pattern, tmp_path / container, 1.5, 3.5, container, **coding)
        judged = judge(made.file)
        (sound,) = [s for s in judged.streams if s["codec_type"] == "audio"]
        assert _codec(container, sound) == codec
        step = 0.5 if recorded == "wavpack" else judged.sound[1] - judged.sound[0]  # its packets are that long
        assert judged.sound[0] <= step + 0.03
        assert 1.95 - 2 * step < judged.sound[-1] < 2.01
        assert _loudness(made.file) == pytest.approx(0.14, abs=0.02)
        assert "some of the sound" not in made.link.notes


def _codec(container: str, stream: dict[str, Any]) -> str:
    """What it is. To MP4 all layers of MPEG audio are one, and ffprobe takes them all for the third."""
    name: str = stream["codec_name"]
    return "mp2" if container == "mp4" and name == "mp3" else name


def _loudness(path: Path) -> float:
    return float(np.sqrt(np.mean(samples(path)[4800:72000] ** 2)))


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    ("container", "coding", "speed"),
    [
        ("mp4", {"video_quality": "medium"}, 1),
        ("mp4", {"audio_quality": "medium"}, 1),
        ("mkv", {"video_quality": "medium", "audio": "mp2"}, 1),
        ("avi", {}, 1),
        ("avi", {"video": "mpeg4", "audio": "g711"}, 1),
        ("mp4", {"speed": 2}, 2),
        ("avi", {"speed": 1.5}, 1.5),
        ("mkv", {"speed": 0.5}, 0.5),
    ],
)
def test_sound_and_picture_stay_together(
    tmp_path: Path, container: Container, coding: dict[str, Any], speed: float, b_frames: int
) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(beeps(11, b_frames=b_frames), str(pattern), T0, pieces((0, 3), (3, 5), (6, 9), (9, 11)))
    made = export(pattern, tmp_path / "out", 0.5, 10.5, container, **coding)
    behind = [each for path in made.files for each in beeps_behind_flashes(path)]
    assert behind == pytest.approx([0] * len(behind), abs=0.04)
    assert len(behind) == (10 if container == "avi" and b_frames and speed == 1 and "video" not in coding else 9)


@pytest.mark.parametrize(
    ("container", "coding"), [("mp4", {}), ("mkv", {"video_quality": "medium", "audio": "mp2"}), ("avi", {})]
)
def test_sound_and_picture_stay_together_where_the_clock_is_fast(
    tmp_path: Path, container: Container, coding: dict[str, Any]
) -> None:
    """By more than a quarter of a second, in all. AVI, whose pictures have no times, goes on in a new file then."""
    pattern, footage = tmp_path / "rec" / f"{STEM}.mp4", beeps(40)
    for i in range(40):
        cut(footage, str(pattern), T0 - i * 7_000, pieces((i, i + 1)))
    made = export(pattern, tmp_path / "out", 0.5, 60, container, **coding)
    behind = [each for path in made.files for each in beeps_behind_flashes(path)]
    assert behind == pytest.approx([0] * len(behind), abs=0.04)
    assert len(behind) == 39
    assert len(made.files) == (2 if container == "avi" else 1)


# ---- time lapse


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("coding", "wanted", "times"),
    [
        # key frames one after the other
        ({"key_fps": 5, "speed": 0}, [75, 100, 125, 150, 175, 250], [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        # and on a clock that runs 4 times as fast
        ({"key_fps": 10, "speed": 4}, [75, 100, 125, 150, 175, 250], [0, 0.25, 0.5, 0.75, 1.0, 1.75]),
        # as many of them as there is a use for
        ({"key_fps": 1, "speed": 2}, [75, 125, 175, 250], [0, 1, 2, 3.5]),
        ({"speed": 4}, WANTED[::2], [(n - 63) / 100 for n in WANTED[::2]]),
    ],
)
def test_a_time_lapse(
    tmp_path: Path, gap: Path, container: Container, coding: dict[str, Any], wanted: list[int], times: list[float]
) -> None:
    made = export(gap, tmp_path / "out", 2.5, 10.98, container, **coding)
    assert numbers(made.file) == wanted
    rate = coding.get("key_fps", 50)
    assert judge(made.file).frames == pytest.approx(times, abs=0.5 / rate + 0.001 if container == "avi" else 0.0011)
    (done,) = made.link.done
    assert (done.first_us, done.last_us) == (T0 + wanted[0] * FRAME, T0 + wanted[-1] * FRAME)
    has_sound = 0.5 <= coding["speed"] <= 2
    assert ("audio" in [s["codec_type"] for s in judge(made.file).streams]) == has_sound
    assert ("the sound is left out" in made.link.notes) != has_sound


def test_frames_are_picked_in_step_with_a_clock_that_wobbles() -> None:
    picker = AtRate(1000)
    assert [t for t in (0, 400, 980, 1400, 2010, 2960, 4000, 4100) if picker.keeps(t)] == [0, 980, 2010, 2960, 4000]
    assert not picker.keeps(4800)
    assert picker.keeps(9000), "after a hole"
    assert not picker.keeps(9800)
    assert picker.keeps(500), "after the clock was set back"


# ---- what stays as it was


def test_a_time_lapse_of_short_recordings_has_all_key_frames(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec", FORM_B, 200, (0, 2), (2, 4), (4, 6), (6, 8))
    made = export(pattern, tmp_path / "out", 0, 8, key_fps=1, speed=1)
    assert numbers(made.file) == list(range(0, 200, 25))


def test_a_time_lapse_without_a_key_frame_says_so(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec", FORM_B, 100, (0, 4))
    made = export(pattern, tmp_path / "out", 1.2, 1.8, key_fps=1)
    assert made.ended.reason.startswith("Entrance: no key frame was recorded from 20260511T080001.200000 to ")


@pytest.mark.parametrize(
    ("container", "coding"),
    [("mp4", {"video_quality": "good"}), ("mkv", {"video": "mjpeg"}), ("mkv", {"video": "mpeg4"})],
)
def test_rotation_and_colours_are_kept(tmp_path: Path, container: Container, coding: dict[str, Any]) -> None:
    tags = "colorprim=bt709:transfer=bt709:colormatrix=bt709"
    form = Form(rotation=90, options=(("x264-params", tags),))
    pattern = record(tmp_path / "rec", form, 25, (0, 1))
    (stream,) = judge(export(pattern, tmp_path / "out", 0, 1, container, **coding).file).streams
    if container == "mp4":
        assert stream["side_data_list"][0]["rotation"] == 90
        assert stream["color_space"] == stream["color_primaries"] == stream["color_transfer"] == "bt709"
    if coding.get("video") == "mjpeg":
        assert stream["color_range"] == "pc"


def test_a_full_range_picture_keeps_its_levels(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec", Form(codec="mjpeg"), 25, (0, 1))
    for video, found in (("h264", "pc"), ("mpeg4", None)):
        made = export(pattern, tmp_path / video, 0, 1, video=video)
        assert judge(made.file).streams[0].get("color_range") == found
        command = (
            f"ffmpeg -v error -i {made.file} -vf crop=8:8:200:150,scale=in_range={'pc' if found else 'tv'}:out_range=pc"
        )
        done = subprocess.run(
            [*command.split(), "-f", "rawvideo", "-pix_fmt", "gray", "-"], capture_output=True, check=True
        )
        assert np.frombuffer(done.stdout, np.uint8).mean() == pytest.approx(128, abs=2)


def test_a_turned_picture_in_avi_has_its_pixels_turned(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec", Form(rotation=90), 50, (0, 2))
    made = export(pattern, tmp_path / "out", 0, 2, "avi")
    (stream,) = judge(made.file).streams
    assert (stream["width"], stream["height"]) == (192, 320)
    upright = tmp_path / "upright.mkv"
    subprocess.run(f"ffmpeg -v error -i {made.file} -vf transpose=clock {upright}".split(), check=True)
    assert numbers(upright) == list(range(50))
    assert "is to be turned" in made.link.notes


def test_an_odd_size_is_cut_down_to_even(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec", Form(width=301, height=171, codec="mjpeg"), 25, (0, 1), kind="mkv")
    made = export(pattern, tmp_path / "out", 0, 1, video="h264")
    (stream,) = judge(made.file).streams
    assert (stream["width"], stream["height"]) == (300, 170)
    assert numbers(made.file) == list(range(25))


# ---- AVI


@pytest.mark.parametrize(("b_frames", "hole", "files"), [(0, 50, 1), (0, 70, 2), (2, 3, 2)])
def test_a_hole_in_avi(tmp_path: Path, b_frames: int, hole: int, files: int) -> None:
    form = Form(audio=True, audio_codec="mp2", b_frames=b_frames)
    pattern = record(tmp_path / "rec", form, 50, (0, 2), kind="mkv")
    later = T0 + (2 + hole) * SECOND
    cut(numbered(form, 100), str(pattern), later - 2 * SECOND, pieces((2, 4)), kind="mkv")
    made = export(pattern, tmp_path / "out", 0, 200, "avi")
    assert len(made.files) == files
    assert numbers_in(made.files) == list(range(100))
    assert "encoded" not in made.link.notes
    assert made.link.done[-1].last_us == later + 49 * FRAME
    if files == 1:
        judged = judge(made.file)
        assert judged.frames[50] == pytest.approx(2 + hole, abs=0.001)
        assert judged.sound[-1] == pytest.approx(4 + hole, abs=0.03)
        heard = np.abs(samples(made.file))
        assert heard[3 * 48_000 : (1 + hole) * 48_000].max() < 0.001
        assert heard[(2 + hole) * 48_000 + 4800 :].max() > 0.15


@pytest.mark.parametrize("kind", ["mp4", "ts"])
def test_avi_begins_with_a_key_frame_that_is_no_idr(tmp_path: Path, kind: str) -> None:
    form = Form(b_frames=2, options=(("x264-params", "open-gop=1"), ("preset", "veryfast")))
    pattern = record(tmp_path / "rec", form, 100, (0, 4), kind=kind)
    made = export(pattern, tmp_path / "out", 1.5, 4, "avi")
    assert numbers(made.file, flawless=False) == list(range(25, 100))


def test_frames_at_uneven_times_in_avi(tmp_path: Path) -> None:
    """A recording of 25 frames a second in which every fifth one is missing, and then many."""
    footage: Any = io.BytesIO(numbered(Form(codec="mjpeg"), 200))
    path = make_recordings.segment_path(str(tmp_path / f"{STEM}.mkv"), T0)
    kept = [n for n in range(200) if n % 5 and not 60 <= n < 120]
    with av.open(footage) as container, av.open(str(path), "w", format="matroska") as output:
        stream = output.add_stream_from_template(container.streams.video[0], opaque=True)
        for number, packet in enumerate(p for p in container.demux() if p.size):
            if number in kept:
                packet.stream = stream
                output.mux(packet)
    made = export(tmp_path / f"{STEM}.mkv", tmp_path / "out", 0, 8, "avi")
    assert numbers(made.file) == kept
    assert judge(made.file).frames == pytest.approx([(n - kept[0]) / 25 for n in kept], abs=0.021)


def test_what_a_dead_worker_left_of_an_avi_is_kept(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec", FORM, 300, (0, 4), (6, 12))
    whole = export(pattern, tmp_path / "out", 0, 12, "avi").file
    part = PartFile(part_name="a.avi.part", name="a.avi", mime_type="video/x-msvideo", first_us=T0)
    (tmp_path / "half").mkdir()
    data = bytearray(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    for at in (4, data.index(b"movi") - 4):
        data[at : at + 4] = bytes(4)  # the sizes are written in the end
    (tmp_path / "half" / part.part_name).write_bytes(data)
    made = do(SalvageJob(folder=str(tmp_path / "half"), parts=(part,)))
    assert made.ended.succeeded
    found = numbers(made.file, flawless=False)
    assert 150 < len(found) < 250
    assert found == [*range(100), *range(150, 300)][: len(found)]
    assert abs(made.link.done[0].last_us - (T0 + found[-1] * FRAME)) <= FRAME


# ---- the rest


@pytest.mark.parametrize("container", CONTAINERS)
def test_files_of_a_limited_size(tmp_path: Path, container: Container) -> None:
    pattern = record(tmp_path / "rec", FORM_B, 500, (0, 8), (8, 20))
    limit = 150_000
    made = export(pattern, tmp_path / "out", 1.5, 19, container, video_quality="fine", max_file_size=limit)
    assert made.ended.succeeded, made.ended.reason
    assert len(made.files) > 1
    assert numbers_in(made.files) == list(range(38, 475))
    assert all(path.stat().st_size <= limit for path in made.files)


@pytest.fixture(scope="module")
def half_a_minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Segments of two seconds."""
    return record(tmp_path_factory.mktemp("long"), FORM_B, 750, *((i, i + 2) for i in range(0, 30, 2)))


@pytest.mark.parametrize(
    ("container", "coding"),
    [
        ("mp4", {"video_quality": "medium"}),
        ("mkv", {"video_quality": "medium", "audio": "mp2"}),
        ("avi", {"video_quality": "medium"}),
        ("mp4", {"video_quality": "medium", "threads": 2}),
        ("mkv", {"video": "mjpeg"}),
        ("mp4", {"video_quality": "medium", "speed": 2}),
        ("mp4", {"video_quality": "medium", "every": 8}),
    ],
)
def test_stop_while_encoding_leaves_a_playable_file(
    tmp_path: Path,
    half_a_minute: Path,
    monkeypatch: pytest.MonkeyPatch,
    container: Container,
    coding: dict[str, Any],
) -> None:
    link, looks = FakeLink(), itertools.count()
    is_set = link.stopping.is_set

    def look() -> bool:
        if next(looks) == 600:
            link.stop()
        return is_set()

    monkeypatch.setattr(link.stopping, "is_set", look)
    made = export(half_a_minute, tmp_path / "out", 0, 30, container, link=link, **coding)
    assert made.ended.succeeded
    found = numbers(made.file)
    step = coding.get("every", 1)
    assert found == list(range(0, step * len(found), step))
    assert 0 < found[-1] < 700
    assert made.link.done[0].last_us == T0 + found[-1] * FRAME
    picture, sound = ends(made.file)
    assert sound == pytest.approx(picture, abs=0.0401)


def test_pictures_that_cannot_be_decoded_are_told_and_left_out(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec", Form(codec="mjpeg"), 150, (0, 2), (2, 4), (4, 6), kind="mkv")
    path = sorted((tmp_path / "rec").iterdir())[1]
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 3, len(data) // 3 + 8000, 7):
        data[at] ^= 0xA5
    path.write_bytes(data)
    made = export(pattern, tmp_path / "out", 0, 6, video="h264")
    assert made.ended.succeeded
    found = numbers(made.file)
    assert set(range(50)) | set(range(100, 150)) <= set(found)
    assert judge(made.file).frames[-1] == pytest.approx(149 / 25, abs=0.001)


@pytest.mark.parametrize(("name", "seconds"), [("bikes.mp4", 3.0), ("bigbuckbunny.mp4", 2.0)])
def test_real_footage(tmp_path: Path, name: str, seconds: float) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(real_footage(name), str(pattern), T0, pieces((0, 60)))
    made = export(pattern, tmp_path / "out", 0, seconds, "avi", video="mpeg4", every=2)
    (done,) = made.link.done
    judged = judge(made.file)
    rate = Fraction(judged.streams[0]["r_frame_rate"])
    assert len(judged.frames) == pytest.approx(seconds * rate, abs=1)
    assert done.last_us - done.first_us == pytest.approx((len(judged.frames) - 1) / rate * SECOND, abs=20_000)


@pytest.mark.parametrize("coding", [{"audio": "mp2"}, {"speed": 2}, {"speed": 0.8, "audio_quality": "best"}])
def test_real_sound_of_several_channels(tmp_path: Path, coding: dict[str, Any]) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(real_footage("bigbuckbunny.mp4"), str(pattern), T0, pieces((0, 60)))
    made = export(pattern, tmp_path / "out", 1, 3, "mkv", video="mpeg4", **coding)
    judged = judge(made.file)
    (sound,) = [stream for stream in judged.streams if stream["codec_type"] == "audio"]
    assert sound["channels"] == 2
    assert judged.sound[-1] == pytest.approx(2 / coding.get("speed", 1), abs=0.06)
    assert _loudness(made.file) > 0.005
