"""What is told of a clip before it is made, and of its sources when they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.material import SECOND, T0, do, numbered, source
from tools.make_recordings import MEDIAMTX, Form, Piece, cut, segment_path
from vx.child import MAX_EVENT
from vx.jobs import ClipJob, Coding, Container, Gap, Probed, ProbeJob, encode

FORM = Form(audio=True)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds, of which 4 to 6 are missing."""
    pattern = tmp_path_factory.mktemp("rec") / MEDIAMTX
    cut(numbered(FORM, 200), str(pattern), T0, [Piece(0, 4 * SECOND), Piece(6 * SECOND, 8 * SECOND)])
    return pattern


def clip(*patterns: Path, begin: float = 0, end: float = 8, folder: Path | None = None, **options: Any) -> ClipJob:
    return ClipJob(
        folder=str(folder or ""),
        sources=tuple(source(pattern, f"Camera{n}") for n, pattern in enumerate(patterns)),
        start_us=T0 + round(begin * SECOND),
        end_us=T0 + round(end * SECOND),
        **{"container": "mp4", **options},
    )


def probe(job: ClipJob) -> list[Probed]:
    made = do(ProbeJob(clip=job))
    assert made.ended.succeeded
    return [event for event in made.link.events if isinstance(event, Probed)]


def test_a_copy(pattern: Path) -> None:
    (probed,) = probe(clip(pattern))
    assert (probed.video, probed.video_codec, probed.audio, probed.audio_codec) == ("copied", "h264", "copied", "aac")
    assert probed.notes == ()


def test_a_copy_that_begins_between_key_frames_is_one(pattern: Path) -> None:
    (probed,) = probe(clip(pattern, begin=0.5))
    assert probed.video == "copied"


@pytest.mark.parametrize(
    ("options", "fates", "why"),
    [
        ({"coding": Coding(video="mjpeg")}, ("encoded", "copied"), "the picture is encoded: mjpeg is wanted"),
        ({"coding": Coding(audio_quality="small")}, ("copied", "encoded"), "the sound is encoded: a quality is wanted"),
        ({"coding": Coding(speed=4)}, ("encoded", "left out"), "the sound is left out"),
        ({"container": "avi"}, ("copied", "encoded"), "avi can't hold aac"),
        ({"reject_audio": True}, ("copied", None), ""),
    ],
)
def test_what_is_not_copied_and_why(
    pattern: Path, options: dict[str, Any], fates: tuple[str, str | None], why: str
) -> None:
    (probed,) = probe(clip(pattern, **options))
    assert (probed.video, probed.audio) == fates
    assert why in " ".join(note.text for note in probed.notes)
    if "encoded" in fates:
        assert probed.sample_bytes > 0
        assert 0 < probed.sample_us <= 8 * SECOND


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize(("begin", "end"), [(1, 2), (1.52, 2.52), (2.48, 3.48), (1, 3), (1.52, 4), (0, 4)])
@pytest.mark.parametrize(
    "options", [{}, {"virtual": True}, {"coding": Coding(video_quality="medium")}], ids=["copied", "virtual", "encoded"]
)
def test_a_short_clip_takes_what_its_rehearsal_says(
    pattern: Path, tmp_path: Path, container: Container, begin: float, end: float, options: dict[str, Any]
) -> None:
    if container != "mp4" and "virtual" in options:
        options = {"cut": "keyframe"}
    job = clip(pattern, begin=begin, end=end, folder=tmp_path, container=container, **options)
    (probed,) = probe(job)
    assert probed.is_whole
    size = sum(file.stat().st_size for file in do(job).files)
    assert size / 1.3 < probed.sample_bytes < 1.3 * size


def test_a_long_clip_is_rehearsed_for_some_seconds(tmp_path: Path) -> None:
    """Of pictures that are encoded whole groups count: there are no more key frames in the sample than in the rest."""
    pattern, form = tmp_path / "rec" / MEDIAMTX, Form()
    cut(numbered(form, 750), str(pattern), T0, [Piece(0, 30 * SECOND)])
    (copied,) = probe(clip(pattern, end=30))
    assert (copied.is_whole, 15 * SECOND <= copied.sample_us < 30 * SECOND) == (False, True)
    job = clip(pattern, end=30, folder=tmp_path / "out", coding=Coding(video_quality="medium"))
    Path(job.folder).mkdir()
    (encoded,) = probe(job)
    assert (encoded.is_whole, encoded.sample_us % (2 * SECOND)) == (False, 0)
    (file,) = do(job).files
    expected = encoded.sample_bytes * 30 * SECOND / encoded.sample_us
    assert file.stat().st_size / 1.3 < expected < 1.3 * file.stat().st_size


def test_each_source_is_told_of_by_itself(pattern: Path, tmp_path: Path) -> None:
    first, second = probe(clip(pattern, tmp_path / "nothing" / MEDIAMTX))
    assert (first.source, first.video) == (0, "copied")
    assert (second.source, second.video) == (1, None)


def test_a_broken_recording_is_told_and_the_next_one_looked_at(tmp_path: Path) -> None:
    pattern = tmp_path / MEDIAMTX
    broken, _ = cut(numbered(FORM, 100), str(pattern), T0, [Piece(0, 2 * SECOND), Piece(2 * SECOND, 4 * SECOND)])
    broken.write_bytes(b"nonsense" * 1000)
    (probed,) = probe(clip(pattern, end=4))
    assert probed.video == "copied"
    assert str(broken) in probed.notes[0].text


def test_of_more_notes_than_an_event_holds_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    pattern, count = str(tmp_path / MEDIAMTX), 600
    for number in range(count):
        segment_path(pattern, T0 + number * SECOND, "UTC").write_bytes(b"nonsense" * 100)
    (probed,) = probe(clip(Path(pattern), end=count))
    assert str(segment_path(pattern, T0, "UTC")) in probed.notes[0].text
    assert len(probed.notes) + probed.further_notes == count
    assert probed.further_notes
    assert len(encode(probed)) < MAX_EVENT


@pytest.mark.parametrize("discrete", [True, False])
def test_how_each_source_ended(pattern: Path, tmp_path: Path, discrete: bool) -> None:
    job = clip(pattern, tmp_path / "nothing" / MEDIAMTX, folder=tmp_path, discrete=discrete)
    made = do(job)
    assert made.ended.succeeded
    assert made.link.sources[0] == ""
    assert made.link.sources[1].startswith("nothing was recorded from")
    gaps = [(event.begin_us - T0, event.end_us - T0) for event in made.link.events if isinstance(event, Gap)]
    assert (4 * SECOND, 6 * SECOND) in gaps
