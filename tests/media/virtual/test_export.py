"""Clips without copying: what decides that a clip is served from the recordings, and what is left in the folder."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.material import (
    SECOND,
    T0,
    FakeLink,
    Outcome,
    do,
    judge,
    numbered,
    numbers,
    numbers_of_all,
    source,
    virtual_bytes,
)
from tests.mp4.material import read
from tools.make_recordings import MEDIAMTX, Form, Piece, cut
from vx.drawing import Words
from vx.jobs import ClipJob, Coding
from vx.media.export import run
from vx.virtual import MADE, read_description

FORM = Form(audio=True, b_frames=2)


def record(folder: Path, form: Form = FORM, kind: str = "mp4", seconds: int = 6) -> Path:
    """Recordings of two seconds each."""
    pattern = folder / MEDIAMTX
    pieces = [Piece(i * SECOND, (i + 2) * SECOND) for i in range(0, seconds, 2)]
    cut(numbered(form, seconds * 25), str(pattern), T0, pieces, kind=kind)
    long_ago = time.time() - 3600
    for path in folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    return pattern


def job(pattern: Path, folder: Path, **more: Any) -> ClipJob:
    folder.mkdir()
    fields: dict[str, Any] = {"start_us": T0, "end_us": T0 + 60 * SECOND, "container": "mp4", "virtual": True}
    return ClipJob(folder=str(folder), **({"sources": (source(pattern),)} | fields | more))


def export(pattern: Path, folder: Path, **more: Any) -> Outcome:
    return do(job(pattern, folder, **more))


def test_recordings_are_linked_and_little_is_written(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec")
    link = FakeLink()
    assert run(job(pattern, tmp_path / "out"), link).succeeded
    (done,) = link.done
    result = tmp_path / "out" / done.name
    assert sorted(path.name for path in result.iterdir()) == ["1", "2", "3", MADE]
    links = {path.stat().st_ino for path in result.iterdir()}
    assert {path.stat().st_ino for path in (tmp_path / "rec").iterdir()} < links
    assert (result / MADE).stat().st_size < 30_000
    data = virtual_bytes(result)
    assert len(data) == done.size
    assert data.index(b"moov") < data.index(b"mdat")
    recording = read(data)
    assert [track.handler for track in recording.tracks] == [b"vide", b"soun"]
    assert data.count(b"elst") <= 1, "only sound that begins a little later than the picture"


def test_nothing_is_in_it_that_was_not_asked_for(tmp_path: Path) -> None:
    """Sound that is left out, and pictures outside the range, are in none of its bytes."""
    pattern = record(tmp_path / "rec")
    made = export(pattern, tmp_path / "out", reject_audio=True, start_us=T0 + SECOND, end_us=T0 + 3 * SECOND)
    recording = read(made.file.read_bytes())
    header = recording.tracks[0].samples.chunks.offsets[0]
    payload = sum(sum(track.samples.sizes) for track in recording.tracks)
    assert made.file.stat().st_size == header + payload


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"coding": Coding(every=2)}, "something of it is encoded or added"),
        ({"coding": Coding(video_quality="best")}, "something of it is encoded or added"),
        ({"password": "secret"}, "something of it is encoded or added"),
    ],
)
def test_what_is_more_than_a_view_is_copied(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    made = export(record(tmp_path / "rec"), tmp_path / "out", **more)
    assert made.ended.succeeded
    assert not made.served
    assert f"copied, for it can't be served from the recordings: {says}" in made.link.notes


@pytest.mark.parametrize(
    ("form", "kind", "says"),
    [
        (Form(codec="mpeg4", gop=25), "mp4", "another codec than H.264, H.265 or AAC"),
        (Form(audio=True, audio_codec="libopus"), "mp4", "another codec than H.264, H.265 or AAC"),
        (Form(), "mkv", "it is no MP4 file"),
        (Form(b_frames=2, options=(("x264-params", "open-gop=1"),)), "mp4", "refer to what lies before|independent"),
    ],
)
def test_recordings_that_are_not_beyond_doubt_are_copied(tmp_path: Path, form: Form, kind: str, says: str) -> None:
    pattern = record(tmp_path / "rec", form, kind)
    made = export(pattern, tmp_path / "out", start_us=T0 + SECOND // 2)
    assert made.ended.succeeded
    assert not made.served
    assert "copied, for it can't be served from the recordings" in made.link.notes
    assert any(text in made.link.notes for text in says.split("|"))


def test_one_that_is_under_way_is_a_gap(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec")
    *_, last = sorted((tmp_path / "rec").iterdir())
    last.write_bytes(last.read_bytes()[:3000])
    made = export(pattern, tmp_path / "out")
    assert made.served
    assert numbers(made.file) == list(range(100))
    assert "it is broken, or still being written; left out what can't be read" in made.link.notes


def test_a_camera_whose_recordings_are_in_the_way_says_what_is(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec")
    gone = tmp_path / "gone" / MEDIAMTX
    made = do(msgspec.structs.replace(job(pattern, tmp_path / "out"), sources=(source(pattern), source(gone, "Yard"))))
    assert made.served
    assert made.link.sources[0] == ""
    assert made.link.sources[1].endswith(f"that can be read ({gone.parent}: there is no such directory)")


def test_fragments_that_are_still_written_are_taken_as_far_as_they_are_whole(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec", kind="fmp4")
    *_, last = sorted((tmp_path / "rec").iterdir())
    data = last.read_bytes()
    last.write_bytes(data[: data.rindex(b"moof") + 100])  # within the second fragment
    link = FakeLink()
    assert run(job(pattern, tmp_path / "out"), link).succeeded
    (done,) = link.done
    result = tmp_path / "out" / done.name
    with last.open("ab") as file:
        file.write(b"what the recorder writes next")
    with (result / MADE).open("rb") as made:
        assert [origin.grows for origin in read_description(made.fileno()).origins] == [False, False, True]
    (tmp_path / "clip.mp4").write_bytes(virtual_bytes(result))
    assert numbers(tmp_path / "clip.mp4") == list(range(125))


def refuse(*_args: object, **_named: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_what_can_not_be_linked_is_held_open_by_the_server_if_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with recordings of another user (fs.protected_hardlinks), or on another file system."""
    pattern = record(tmp_path / "rec")
    monkeypatch.setattr(os, "link", refuse)
    link = FakeLink()
    assert run(job(pattern, tmp_path / "out", held=3), link).succeeded
    (done,) = link.done
    with (tmp_path / "out" / done.name / MADE).open("rb") as made:
        leases = [origin.lease for origin in read_description(made.fileno()).origins]
    assert leases == ["", "", ""] or all(leases), "but for file systems that can clone"
    copied = export(pattern, tmp_path / "copied", held=2)
    assert copied.ended.succeeded
    if not all(leases):
        assert not copied.served
        assert "3 of its recordings can't be linked to, and no more than 2 can be held open" in copied.link.notes
        assert [path.name for path in (tmp_path / "copied").iterdir()] == [copied.file.name]


def test_one_that_changes_while_it_is_looked_at_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = record(tmp_path / "rec")
    first = min((tmp_path / "rec").iterdir())
    real = os.mkdir

    def mkdir(path: str, *args: Any, **named: Any) -> None:
        real(path, *args, **named)
        first.touch()

    made_in = job(pattern, tmp_path / "out")
    monkeypatch.setattr(os, "mkdir", mkdir)
    made = do(made_in)
    assert made.ended.succeeded
    assert not made.served
    assert "it changed while it was read" in made.link.notes
    assert numbers(made.file) == list(range(150))


def test_stop_before_anything_was_found(tmp_path: Path) -> None:
    link = FakeLink()
    link.stop()
    made = do(job(record(tmp_path / "rec"), tmp_path / "out"), link)
    assert made.ended.succeeded or made.ended.reason == "stopped before anything was written"


def test_rotation_and_unknown_boxes_as_phones_and_cameras_write_them(tmp_path: Path) -> None:
    """Axis and others put boxes of their own between and into the known ones; phones say how to turn the picture."""
    pattern = record(tmp_path / "rec", Form(audio=True, rotation=90), kind="fmp4")
    for path in (tmp_path / "rec").iterdir():
        data = path.read_bytes()
        strange = b"\0\0\0\x18uuid" + bytes(16)
        at = data.index(b"moof") - 4
        path.write_bytes(data[:at] + strange + data[at:])
    made = export(pattern, tmp_path / "out")
    assert made.served
    assert numbers_of_all([made.file]) == [list(range(150))]
    sides = [side for stream in judge(made.file).streams for side in stream.get("side_data_list", [])]
    assert [side["rotation"] for side in sides if "rotation" in side] == [90]


@pytest.mark.parametrize("gaps", ["keep", "close"])
def test_subtitles_are_those_of_the_copy(tmp_path: Path, gaps: str) -> None:
    pattern = record(tmp_path / "rec", seconds=8)
    sorted((tmp_path / "rec").iterdir())[1].unlink()
    words = Words(pattern="{CameraName} {Timestamp}", time_format="%H:%M:%S.%f")
    told: dict[str, Any] = {"words": words, "subtitles": True, "gaps": gaps, "start_us": T0 + SECOND * 52 // 100}
    served = export(pattern, tmp_path / "served", **told)
    copied = do(job(pattern, tmp_path / "copied", **told, virtual=False), in_blocks=False)
    assert served.served
    assert not copied.served
    assert cues(served.file) == cues(copied.file)
    assert any("No new picture after" in text for text in cues(served.file)) == (gaps == "keep")
    assert cues(served.file)[1] == "00:00:00,000 --> 00:00:00,480"
    (stream,) = [stream for stream in judge(served.file).streams if stream["codec_type"] == "subtitle"]
    assert stream["codec_name"] == "mov_text"
    assert stream["tags"]["handler_name"] == "Entrance"


def cues(path: Path) -> list[str]:
    """What ffmpeg reads of the subtitles."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:s:0", "-f", "srt", "-"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
