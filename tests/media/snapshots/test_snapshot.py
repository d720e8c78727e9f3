from __future__ import annotations

import math
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from tests.material import BITS, BLOCK, SECOND, STEM, T0, Outcome, do, numbered, real_footage, source
from tools.make_recordings import Form, Piece, cut
from vx.drawing import Words
from vx.jobs import SnapshotJob

KINDS = ["mp4", "fmp4", "mkv", "ts"]
OPEN_GOP = Form(b_frames=2, options=(("x264-params", "open-gop=1"), ("preset", "veryfast")))


def snapshot(pattern: Path | str, folder: Path, at: float, comment: str = "") -> Outcome:
    """The frame shown at `at` seconds after T0."""
    folder.mkdir(exist_ok=True)
    words = Words(comment=comment)
    job = SnapshotJob(folder=str(folder), sources=(source(pattern),), at_us=T0 + round(at * SECOND), words=words)
    return do(job)


def pixels(path: Path, mode: str = "L") -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


def number(path: Path) -> int:
    row = pixels(path)[BLOCK // 2, BLOCK // 2 : BITS * BLOCK : BLOCK]
    return int(sum(1 << i for i, value in enumerate(row) if value > 128))


@pytest.mark.parametrize(
    "form", [Form(), Form(b_frames=2, audio=True), OPEN_GOP], ids=["plain", "b-frames", "open-gop"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_very_frame(tmp_path: Path, kind: str, form: Form) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.{kind}"
    pieces = [Piece(0, 4 * SECOND), Piece(4 * SECOND, 8 * SECOND)]
    if form is OPEN_GOP and kind == "ts":  # of which only an IDR brings its parameter sets along
        pieces = [Piece(0, 8 * SECOND)]
    cut(numbered(form, 300), str(pattern), T0, pieces, kind=kind)
    out = tmp_path / "out"
    for frame in (0, 1, 2, 3, 24, 25, 26, 47, 48, 49, 73, 99, 100, 101, 148, 198, 199):
        for into_it in (0, 0.02, 0.0399):
            made = snapshot(pattern, out, frame / 25 + into_it)
            assert made.ended.succeeded, (frame, into_it, made.ended.reason, made.link.notes)
            (done,) = made.link.done
            assert number(out / done.name) == frame, into_it
            assert done.first_us == done.last_us == T0 + frame * SECOND // 25
            (out / done.name).unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_gives_no_picture(tmp_path: Path, kind: str) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.{kind}"
    cut(
        numbered(Form(b_frames=2), 300),
        str(pattern),
        T0,
        [Piece(0, 4 * SECOND), Piece(8 * SECOND, 12 * SECOND)],
        kind=kind,
    )
    for at in (-1, 4.001, 7.99, 12.0, 1000):
        made = snapshot(pattern, tmp_path / "out", at)
        assert not made.ended.succeeded
        assert made.ended.reason.startswith("Entrance: nothing was recorded at 2026")
        assert (made.link.notes, made.files) == ("", [])
        assert f"Entrance: {made.link.sources[0]}" == made.ended.reason
    assert snapshot(pattern, tmp_path / "out", 3.9999).ended.succeeded
    assert snapshot(pattern, tmp_path / "out", 8.0).ended.succeeded


def test_a_frame_stands_until_the_next_one_whose_name_is_a_little_late(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(), 300), str(pattern), T0, [Piece(0, 4 * SECOND)])
    cut(numbered(Form(), 300), str(pattern), T0 + 150_000, [Piece(4 * SECOND, 8 * SECOND)])
    made = snapshot(pattern, tmp_path / "out", 4.1)
    assert number(made.file) == 99


def test_one_failing_source_leaves_the_others(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(), 50), str(pattern), T0, [Piece(0, 2 * SECOND)])
    out = tmp_path / "out"
    out.mkdir()
    sources = (source(tmp_path / "none" / "%s.mp4", "Yard"), source(pattern), source(pattern))
    made = do(SnapshotJob(folder=str(out), sources=sources, at_us=T0 + SECOND))
    assert not made.ended.succeeded
    obstacle = f"({tmp_path}/none: there is no such directory)"
    assert made.ended.reason == f"Yard: nothing was recorded at 20260511T080001.000000 that can be read {obstacle}"
    assert [path.name for path in made.files] == [
        "Entrance_20260511T080001.000Z.jpg",
        "Entrance_20260511T080001.000Z-2.jpg",
    ]
    assert [number(path) for path in made.files] == [25, 25]


def test_what_cannot_be_read_is_told_and_an_earlier_recording_is_tried(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(), 300), str(pattern), T0, [Piece(0, 12 * SECOND)])
    (tmp_path / "rec" / "2026-05-11_08-00-05-000000.mp4").write_bytes(b"")
    made = snapshot(pattern, tmp_path / "out", 6)
    assert number(made.file) == 150
    assert "2026-05-11_08-00-05-000000.mp4: it is empty" in made.link.notes


def test_the_picture_says_when_and_where_it_was_taken(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(), 50), str(pattern), T0 + 155_000, [Piece(0, 2 * SECOND)])
    out = tmp_path / "out"
    out.mkdir()
    words = Words(comment="Grüße, 你好", offset_min=-90)
    job = SnapshotJob(folder=str(out), sources=(source(pattern, "Вход № 1"),), at_us=T0 + SECOND, words=words)
    made = do(job)
    with Image.open(made.file) as image:
        exif = image.getexif()
        taken = exif.get_ifd(ExifTags.IFD.Exif)
    assert (image.format, image.size) == ("JPEG", (320, 192))
    assert image.info["comment"].decode() == "Grüße, 你好"
    assert taken[ExifTags.Base.DateTimeOriginal] == "2026:05:11 06:30:00"
    assert taken[ExifTags.Base.SubsecTimeOriginal] == "995000"
    assert taken[ExifTags.Base.OffsetTimeOriginal] == "-01:30"
    assert taken[ExifTags.Base.UserComment].removeprefix(b"UNICODE\0").decode("utf-16-be") == "Grüße, 你好"
    assert exif[ExifTags.Base.Software] == "vx"
    assert "Вход № 1".encode() in made.file.read_bytes()
    done = made.link.done[0]
    assert (done.mime_type, done.size) == ("image/jpeg", made.file.stat().st_size)


def test_a_comment_that_no_jpeg_can_hold_is_cut_with_a_note(tmp_path: Path) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(), 50), str(pattern), T0, [Piece(0, 2 * SECOND)])
    made = snapshot(pattern, tmp_path / "out", 1, "ы" * 60_000)
    with Image.open(made.file) as image:
        comment = image.info["comment"].decode()
    assert comment == "ы" * (len(comment))
    assert len(comment) == 32_500
    assert "the comment is cut" in made.link.notes


@pytest.mark.parametrize(("rotation", "corner"), [(90, "bottom left"), (180, "bottom right"), (-90, "top right")])
def test_a_turned_camera_gives_an_upright_picture(tmp_path: Path, rotation: int, corner: str) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.mp4"
    cut(numbered(Form(rotation=rotation), 25), str(pattern), T0, [Piece(0, SECOND)])
    made = snapshot(pattern, tmp_path / "out", 0.02)
    image = pixels(made.file)
    assert image.shape == ((192, 320) if rotation == 180 else (320, 192))
    blocks = image[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK]
    # the first frame's sixteen blocks are black, along one edge, away from one corner
    edges = {
        "bottom left": blocks[-1:-17:-1, 0],
        "bottom right": blocks[-1, -1:-17:-1],
        "top right": blocks[:16, -1],
    }
    assert edges[corner].max() < 40


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_the_range_of_the_colours_is_minded(tmp_path: Path, full: bool) -> None:
    """A stream that uses the full range says so; one that doesn't is stretched to it. The picture is the same."""
    form = Form(codec="mjpeg") if full else Form()
    pattern = tmp_path / "rec" / f"{STEM}.mkv"
    cut(numbered(form, 600), str(pattern), T0, [Piece(0, 24 * SECOND)], kind="mkv")
    image = pixels(snapshot(pattern, tmp_path / "out", 511 / 25).file).astype(int)
    white, black = image[BLOCK // 2, BLOCK // 2], image[BLOCK // 2, 15 * BLOCK + BLOCK // 2]
    assert black == pytest.approx(16, abs=4)
    assert white == pytest.approx(235, abs=4)


@pytest.mark.parametrize(
    ("name", "at"), [("bikes.mp4", 0), ("bikes.mp4", 101), ("bikes.mp4", 249), ("bigbuckbunny.mp4", 77)]
)
@pytest.mark.parametrize(
    "names", [f"entrance/{STEM}.mp4", "recordings/%Y-%m-%d/%H/entrance/%M.%S.mp4"], ids=["mediamtx", "frigate"]
)
def test_real_footage_shows_what_ffmpeg_shows(tmp_path: Path, names: str, name: str, at: int) -> None:
    path = real_footage(name)
    pattern = tmp_path / "rec" / names
    cut(path, str(pattern), T0, [Piece(0, 100 * SECOND)])
    made = snapshot(pattern, tmp_path / "out", at / 25 + 0.01)
    ours = pixels(made.file, "RGB").astype(float)
    done = subprocess.run(
        f"ffmpeg -v error -i {path} -vf select=eq(n\\,{at}) -frames:v 1 -f rawvideo -pix_fmt rgb24 -".split(),
        capture_output=True,
        check=True,
    )
    theirs = np.frombuffer(done.stdout, np.uint8).reshape(ours.shape).astype(float)
    assert psnr(ours, theirs) > 33


def psnr(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    error = float(np.mean((one - other) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-9))
