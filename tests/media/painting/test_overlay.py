"""What is drawn into pictures and clips: seen in the pixels that Debian's ffmpeg decodes, read back by tesseract."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.material import SECOND, T0, Outcome, clip_job, do, real_footage, source
from tools.make_recordings import MEDIAMTX, Form, Piece, cut, encode
from vx.captions import Caption
from vx.drawing import Area, Colour, Drawing, Font, MaskStyle, Polygon, TextLook, Words
from vx.jobs import Coding, Container, ExternalPicture, SnapshotJob, Source
from vx.media.painting.lettering import SMALLEST
from vx.media.painting.overlay import Painter

WORDS = Words(pattern="{CameraName} {Timestamp}", time_format="%H:%M:%S.%f")
STAR: Polygon = ((0.3, 0.2), (0.45, 0.7), (0.15, 0.4), (0.45, 0.4), (0.15, 0.7))
"""Crosses itself; its middle is inside."""
CONTAINERS: list[Container] = ["mp4", "mkv", "avi"]
SIZE = (320, 192)


def noise(number: int) -> npt.NDArray[np.uint8]:
    """A picture without a flat place, another one for each number."""
    blocks = np.random.default_rng(number).integers(0, 256, (SIZE[1] // 4, SIZE[0] // 4), np.uint8)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Segments of noise, with B-frames."""
    pattern = tmp_path_factory.mktemp("noise") / MEDIAMTX
    form = Form(b_frames=2, options=(("crf", "20"),))
    cut(encode(form, 100, noise), str(pattern), T0, [Piece(0, SECOND), Piece(SECOND, 4 * SECOND)])
    return pattern


def grid(form: Form) -> bytes:
    """A still picture in which each sixteenth of width and height has a grey of its own."""
    height, width = form.height, form.width
    y, x = np.mgrid[0:height, 0:width]
    shades = (16 + 14 * (x * 16 // width)) / 2 + (16 + 14 * (y * 16 // height)) / 2
    return encode(form, 25, lambda _: shades.astype(np.uint8))


def camera(pattern: Path, drawing: Drawing, name: str = "Entrance") -> Source:
    return msgspec.structs.replace(source(pattern, name), drawing=drawing)


def clip(pattern: Path, folder: Path, drawing: Drawing, begin: float, end: float, **more: Any) -> Outcome:
    more = {"words": WORDS, "coding": Coding(threads=1), **more}
    made = do(clip_job(folder, [camera(pattern, drawing)], begin, end, **more))
    assert made.ended.succeeded, made.ended.reason
    return made


def snapshot(pattern: Path, folder: Path, drawing: Drawing, at: float = 0, words: Words = WORDS) -> Outcome:
    folder.mkdir(exist_ok=True)
    sources = (camera(pattern, drawing),)
    made = do(SnapshotJob(folder=str(folder), sources=sources, at_us=T0 + round(at * SECOND), words=words))
    assert made.ended.succeeded, made.ended.reason
    return made


def frames(path: Path, size: tuple[int, int] = SIZE, form: str = "gray") -> npt.NDArray[np.uint8]:
    """All frames of a clip, hidden ones too, as ffmpeg decodes them; of yuv420p the planes below each other."""
    command = ["ffmpeg", "-v", "error", "-xerror", "-ignore_editlist", "1", "-noautorotate", "-i", str(path)]
    if path.suffix != ".mp4":
        del command[4:6]
    command += ["-map", "0:v", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", form, "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert not done.stderr, done.stderr
    rows = size[1] if form == "gray" else size[1] * 3 // 2
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, rows, size[0])


def read(image: Image.Image) -> str:
    """What tesseract reads in a picture: one block of text."""
    large = image.convert("L").resize((image.width * 2, image.height * 2))
    command = ["tesseract", "stdin", "stdout", "--psm", "6"]
    done = subprocess.run(command, input=_png(large), capture_output=True, check=True)
    return " ".join(done.stdout.decode().split())


def _png(image: Image.Image) -> bytes:
    from io import BytesIO

    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


# ---- masks


RECTANGLE: Polygon = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))


def inner(values: npt.NDArray[Any], margin: int = 8) -> npt.NDArray[Any]:
    """What lies in RECTANGLE, without its rim, where an encoder's filters mix in what lies outside."""
    height, width = values.shape[-2:]
    return values[..., height // 4 + margin : height * 3 // 4 - margin, width // 4 + margin : width * 3 // 4 - margin]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("coding", [{}, {"key_fps": 25.0}, {"video": "mjpeg"}], ids=["h264", "key-frames", "mjpeg"])
def test_no_frame_of_a_clip_shows_what_is_masked(
    tmp_path: Path, noisy: Path, container: Container, coding: dict[str, Any]
) -> None:
    """B-frames, two segments, an exact cut at both ends: where a mask applies nothing is copied."""
    made = clip(
        noisy,
        tmp_path / "out",
        Drawing(masks=(RECTANGLE,)),
        0.46,
        3.3,
        target=container,
        subtitles=True,
        coding=Coding(threads=1, **coding),
    )
    assert "is encoded: something is drawn into it" in made.link.notes or coding
    shown = frames(made.file, form="yuv420p")
    assert len(shown) == (3 if "key_fps" in coding else 71)
    luma, chroma = shown[:, : SIZE[1]], shown[:, SIZE[1] :].reshape(len(shown), 2, SIZE[1] // 2, SIZE[0] // 2)
    assert inner(luma).astype(float).var(axis=(1, 2)).max() < 1
    assert abs(inner(luma).astype(int) - 16).max() <= 3
    assert abs(inner(chroma, 4).astype(int) - 128).max() <= 3
    outside = np.delete(luma, np.s_[SIZE[1] // 4 : SIZE[1] * 3 // 4], axis=1)
    assert outside.astype(float).var(axis=(1, 2)).min() > 500


@pytest.mark.parametrize("style", ["black", "mosaic"])
def test_nothing_of_the_original_can_be_measured_in_a_mask(tmp_path: Path, noisy: Path, style: MaskStyle) -> None:
    covered = frames(clip(noisy, tmp_path / "out", Drawing(masks=(RECTANGLE,), mask_style=style), 0, 2).file)
    original = np.stack([noise(number) for number in range(len(covered))])
    for one, other in zip(inner(original, 16).astype(float), inner(covered, 16).astype(float), strict=True):
        common = ((one - one.mean()) * (other - other.mean())).mean()
        # a block of a mosaic is the average of sixteen of the noise's blocks
        assert abs(common) < (1 if style == "black" else one.var() / 8)
    if style == "mosaic":
        blocks = covered[:, 48 + 16 : 144 - 16, 80:240]
        assert blocks.astype(float).reshape(len(covered), 4, 16, 10, 16).var(axis=(2, 4)).max() < 40


def jpeg(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def test_the_middle_of_a_star_is_inside_and_masks_reach_outward(tmp_path: Path, noisy: Path) -> None:
    made = snapshot(noisy, tmp_path / "out", Drawing(masks=(STAR,)))
    image = jpeg(made.file)
    height, width = image.shape
    for x, y in ((0.3, 0.45), (0.3, 0.3), (0.2, 0.43), (0.4, 0.43)):
        assert image[round(y * height), round(x * width)] < 10
    assert image[: height // 6].std() > 30


def test_of_an_inverted_mask_only_the_inside_is_shown(tmp_path: Path, noisy: Path) -> None:
    image = jpeg(snapshot(noisy, tmp_path / "out", Drawing(windows=(RECTANGLE,))).file)
    assert inner(image).std() > 40
    image = image.copy()
    inner(image, -2)[...] = 0
    assert image.max() < 30


def test_outlines_are_drawn_over_masks(tmp_path: Path, noisy: Path) -> None:
    made = snapshot(noisy, tmp_path / "out", Drawing(masks=(RECTANGLE,), outlines=(RECTANGLE,)))
    with Image.open(made.file) as image:
        pixels = np.asarray(image).astype(int)
    height, width = pixels.shape[:2]
    for y, x in ((height // 4, width // 2), (height // 2, width // 4), (height // 2, width * 3 // 4)):
        red, green, blue = pixels[y : y + 2, x : x + 2].mean(axis=(0, 1))
        assert red > 200
        assert green > 150
        assert blue < 80
    assert pixels[height // 2, width // 2].max() < 10


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_places_are_where_the_viewer_sees_them(tmp_path: Path, rotation: int) -> None:
    """Of a picture that is stored turned: the mask at the top left, the text at the lower right, the crop left."""
    form = Form(width=320, height=192, rotation=rotation if rotation < 180 else rotation - 360)
    pattern = tmp_path / "rec" / MEDIAMTX
    cut(encode(form, 25, lambda _: np.full((192, 320), 200, np.uint8)), str(pattern), T0, [Piece(0, SECOND)])
    look = TextLook(place=Area(0.5, 0.8, 1, 1), colour=Colour(0, 0, 0), ground=Colour(0, 0, 0, 0))
    corner: Polygon = ((0, 0), (0.25, 0), (0.25, 0.25), (0, 0.25))
    drawing = Drawing(crop=Area(0, 0, 0.75, 1), masks=(corner,), text=look)
    for made in (snapshot(pattern, tmp_path / "jpg", drawing), clip(pattern, tmp_path / "mp4", drawing, 0, 0.2)):
        if made.file.suffix == ".jpg":
            image = jpeg(made.file)
        else:
            command = f"ffmpeg -v error -i {made.file} -frames:v 1 {tmp_path}/first.png"
            subprocess.run(command.split(), check=True)
            image = jpeg(tmp_path / "first.png")
        height, width = image.shape
        assert (width, height) == ((240, 192) if rotation in (0, 180) else (144, 320))
        dark = image < 60
        assert dark[: height // 4 - 2, : width // 3 - 2].all()
        assert not dark[: height // 4 - 2, width // 3 + 4 :].any()
        assert not dark[height // 4 + 4 : height * 3 // 4].any()
        lower = dark[height * 4 // 5 :]
        assert lower[:, width * 2 // 3 :].any()
        assert not lower[:, : width * 2 // 3 - 4].any()


# ---- crop


@pytest.mark.parametrize(
    ("area", "columns", "rows"),
    [
        (Area(0, 0, 0.5, 0.5), (0, 8), (0, 8)),
        (Area(0.25, 0.5, 0.75, 1), (4, 12), (8, 16)),
        (Area(0.5, 0.125, 1, 0.625), (8, 16), (2, 10)),
    ],
)
def test_a_crop_shows_its_part_of_the_grid(
    tmp_path: Path, area: Area, columns: tuple[int, int], rows: tuple[int, int]
) -> None:
    pattern = tmp_path / "rec" / MEDIAMTX
    form = Form(width=640, height=352, options=(("crf", "10"),))
    cut(grid(form), str(pattern), T0, [Piece(0, SECOND)])
    made = clip(pattern, tmp_path / "out", Drawing(crop=area), 0, 0.2)
    size = 40 * (columns[1] - columns[0]), 22 * (rows[1] - rows[0])
    (image, *_) = frames(made.file, size)
    whole = frames(clip(pattern, tmp_path / "whole", Drawing(), 0, 0.2).file, (640, 352))[0]
    cells = whole.reshape(16, 22, 16, 40).astype(float).mean(axis=(1, 3))
    assert (np.diff(cells) > 3).all()  # each has a grey of its own
    shown = image.reshape(rows[1] - rows[0], 22, columns[1] - columns[0], 40).astype(float).mean(axis=(1, 3))
    assert shown == pytest.approx(cells[slice(*rows), slice(*columns)], abs=1.5)


@pytest.mark.parametrize(("width", "height"), [(640, 352), (321, 195), (34, 34)])
@pytest.mark.parametrize("area", [Area(0.1, 0.1, 0.1001, 0.1001), Area(0.333, 0, 0.777, 0.999), Area(0, 0, 1, 1)])
def test_sizes_are_even_whatever_the_crop(tmp_path: Path, area: Area, width: int, height: int) -> None:
    pattern = tmp_path / "rec" / MEDIAMTX
    form = Form(width=width, height=height, pixels="yuv444p")
    cut(grid(form), str(pattern), T0, [Piece(0, SECOND)])
    made = clip(pattern, tmp_path / "out", Drawing(crop=area, text=TextLook()), 0, 0.2)
    probe = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=width,height", "-of", "csv=p=0"]
    done = subprocess.run([*probe, made.file], capture_output=True, check=True, text=True)
    across, down = (int(value) for value in done.stdout.strip().split(","))
    assert across % 2 == down % 2 == 0
    assert 32 <= across <= width
    assert 32 <= down <= height


# ---- text


@pytest.fixture(scope="module")
def bunny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """720p, colourful and moving."""
    pattern = tmp_path_factory.mktemp("bunny") / MEDIAMTX
    cut(real_footage("bigbuckbunny.mp4"), str(pattern), T0, [Piece(0, 6 * SECOND)])
    return pattern


@pytest.mark.parametrize(
    "look",
    [
        TextLook(),
        TextLook(place=Area(0, 0, 1, 0.1), align_h="left", ground=Colour(1, 1, 1, 0)),
        TextLook(place=Area(0.3, 0.4, 1, 0.6), colour=Colour(0.1, 0.1, 0), ground=Colour(1, 1, 0, 0.8)),
        TextLook(font=Font(size=60, bold=True, italic=True), align_h="right"),
    ],
    ids=["default", "no-ground", "dark", "large"],
)
def test_text_can_be_read_on_any_background(tmp_path: Path, bunny: Path, look: TextLook) -> None:
    made = snapshot(bunny, tmp_path / "out", Drawing(text=look), 3.04)
    with Image.open(made.file) as image:
        place = look.place or Area(0, 0.85, 1, 1)
        box = tuple(round(part * image.size[i % 2]) for i, part in enumerate(msgspec.structs.astuple(place)))
        pixels = np.asarray(image.crop(box)).astype(int)
    # what has the letters' colour; a person does that without being told
    letters = abs(pixels - [round(255 * part) for part in msgspec.structs.astuple(look.colour)[:3]]).max(axis=2) < 60
    assert "Entrance 08:00:03.040" in read(Image.fromarray(np.where(letters, 0, 255).astype(np.uint8)))


def test_the_time_is_that_of_each_frame(tmp_path: Path, bunny: Path) -> None:
    look = TextLook(place=Area(0, 0, 1, 0.25), font=Font(size=80), ground=Colour(0, 0, 0))
    made = clip(bunny, tmp_path / "out", Drawing(text=look), 1, 1.6)
    shown = frames(made.file, (1280, 720))
    assert len(shown) == 15
    for number in (0, 1, 7, 14):
        text = read(Image.fromarray(shown[number, :180]))
        assert text == f"Entrance 08:00:01.{number * 40:03}"


def test_long_text_wraps_shrinks_and_ends_in_an_ellipsis(tmp_path: Path, bunny: Path) -> None:
    place = Area(0.1, 0.1, 0.5, 0.5)
    look = TextLook(place=place, ground=Colour(0, 0, 0), align_h="left", align_v="top", font=Font(size=40))
    for count in (12, 5000):
        words = Words(pattern="{ExportComment}", comment="every word " * count)
        made = snapshot(bunny, tmp_path / "out", Drawing(text=look), words=words)
        plain = snapshot(bunny, tmp_path / "plain", Drawing())
        changed = np.argwhere(abs(jpeg(made.files[0]).astype(int) - jpeg(plain.files[0])) > 60)
        assert changed.min(axis=0) == pytest.approx((72, 128), abs=16)
        assert changed.max(axis=0) == pytest.approx((359, 639), abs=16)
        if count == 12:
            with Image.open(made.files[0]) as image:
                assert read(image.crop((128, 72, 640, 360))).count("every word") == 12
        for path in (*made.files, *plain.files):
            path.unlink()


def test_what_the_font_lacks_is_told_once(tmp_path: Path, bunny: Path) -> None:
    words = Words(pattern="{Timestamp} {ExportComment}", comment="😀 שלום العربية \x07 你好")
    made = clip(bunny, tmp_path / "out", Drawing(text=TextLook()), 0, 2, words=words)
    assert made.link.notes.count("the font has no shapes for '😀שלוםالعربية你好'") == 1


def test_a_picture_that_the_client_brings_is_drawn_into_like_any_other(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((300, 400, 3), (250, 20, 20), np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "a secret of the client's"
    image.save(tmp_path / "in.jpg", quality=95, exif=exif)
    words = Words(pattern="{Timestamp}", time_format="%H:%M:%S")
    look = TextLook(font=Font(size=40))
    camera_ = camera(tmp_path / "none" / "%s.mp4", Drawing(masks=(RECTANGLE,), text=look))
    external = ExternalPicture(data=(tmp_path / "in.jpg").read_bytes(), taken_us=T0 + 5 * SECOND)
    (tmp_path / "out").mkdir()
    job = SnapshotJob(folder=str(tmp_path / "out"), sources=(camera_,), at_us=T0, words=words, external=external)
    made = do(job)
    assert made.ended.succeeded, made.ended.reason
    assert b"secret" not in made.file.read_bytes()
    with Image.open(made.file) as written:
        pixels = np.asarray(written).astype(int)
        assert "08:00:05" in read(written.crop((0, 225, 400, 300)))
    assert pixels[5, 5] == pytest.approx((250, 20, 20), abs=6)
    assert pixels[150, 200].max() < 10
    for broken in (b"\xff\xd8\xff\x00", external.data[:-2000] if len(external.data) > 4000 else b"\xff\xd8\xff"):
        job = msgspec.structs.replace(job, external=ExternalPicture(data=broken, taken_us=T0))
        assert do(job).ended.reason.startswith("Entrance: the picture that came with the request can't be read")


# ---- anything


fractions = st.floats(0, 1)
spans = st.tuples(fractions, fractions).map(sorted).filter(lambda span: span[0] < span[1])
areas = st.builds(lambda x, y: Area(x[0], y[0], x[1], y[1]), spans, spans)
polygons = st.lists(st.tuples(fractions, fractions), min_size=3, max_size=8).map(tuple)
colour = st.builds(Colour, fractions, fractions, fractions, fractions)
texts = st.one_of(st.text(max_size=40), st.sampled_from(["x" * 10_000, "ы " * 5000, "שלום עולם 12:30", "\n\n\t\x00"]))
drawings = st.builds(
    Drawing,
    crop=st.none() | areas,
    masks=st.lists(polygons, max_size=2).map(tuple),
    windows=st.lists(polygons, max_size=2).map(tuple),
    mask_style=st.sampled_from(["black", "mosaic"]),
    outlines=st.lists(polygons, max_size=2).map(tuple),
    text=st.none()
    | st.builds(
        TextLook,
        place=st.none() | areas,
        colour=colour,
        ground=colour,
        align_h=st.sampled_from(["left", "center", "right"]),
        align_v=st.sampled_from(["top", "center", "bottom"]),
        font=st.builds(Font, size=st.sampled_from([0, 0.001, 9, 1000]), bold=st.booleans(), italic=st.booleans()),
    ),
)
FORMS = ["yuv420p", "yuvj422p", "yuv444p", "yuv420p10le", "gray", "rgb24", "nv12", "yuv411p"]


@given(drawings, texts, st.sampled_from(FORMS), st.integers(2, 70), st.integers(2, 70))
@settings(max_examples=150)
def test_anything_can_be_drawn_into_anything(drawing: Drawing, text: str, form: str, width: int, height: int) -> None:
    import av

    rgb = np.full((height, width, 3), 128, np.uint8)
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=form)
    caption = Caption.of(Words(pattern="{ExportComment} {Timestamp}", comment=text), [source("/x")])
    painter = Painter(drawing, caption, lambda _: None)
    for at_us in (T0, T0 + SECOND):
        drawn = painter(frame, at_us)
        assert 2 <= drawn.width <= width
        assert 2 <= drawn.height <= height


def test_a_thousand_points_and_a_tiny_font_are_no_trouble(tmp_path: Path, noisy: Path) -> None:
    turn = np.linspace(0, 40 * np.pi, 1000)
    spiral = tuple(zip(0.5 + 0.4 * np.cos(turn) * turn / turn[-1], 0.5 + 0.4 * np.sin(turn), strict=True))
    look = TextLook(font=Font(size=SMALLEST))
    image = jpeg(snapshot(noisy, tmp_path / "out", Drawing(masks=(_plain(spiral),), text=look)).file)
    assert image[96, 160] < 10
    assert image[:10].std() > 30


def _plain(points: Sequence[tuple[Any, Any]]) -> Polygon:
    return tuple((float(x), float(y)) for x, y in points)
