"""PDF reports, opened by pypdf and by Debian's poppler."""

from __future__ import annotations

import hashlib
import subprocess
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pypdf import PdfReader

from tests.material import SECOND, T0, Outcome, do, real_footage, source
from tools.make_recordings import MEDIAMTX, Piece, cut
from vx.drawing import Area, Colour, Font, Page, Words
from vx.jobs import SnapshotJob, Source
from vx.media.snapshots.report import Report

WORDS = Words(
    time_format="%d.%m.%Y %H:%M:%S",
    offset_min=120,
    comment="Der Wagen fährt ein.\nЖёлтый фургон едет вперёд. Φορτηγό στην πύλη.",
    user="ann",
)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pattern = tmp_path_factory.mktemp("rec") / MEDIAMTX
    cut(real_footage("bikes.mp4"), str(pattern), T0, [Piece(0, 6 * SECOND)])
    return pattern


def camera(pattern: Path, name: str = "Einfahrt Süd") -> Source:
    return msgspec.structs.replace(source(pattern, name), id="7", location="North gate")


def report(pattern: Path, folder: Path, page: Page, *names: str, words: Words = WORDS) -> Outcome:
    folder.mkdir()
    sources = tuple(camera(pattern, name) for name in names or ("Einfahrt Süd",))
    made = do(SnapshotJob(folder=str(folder), sources=sources, at_us=T0 + SECOND, words=words, page=page))
    assert made.ended.succeeded, made.ended.reason
    return made


def jpegs(path: Path, folder: Path) -> list[bytes]:
    """The pictures in a PDF, as poppler takes them out of it."""
    folder.mkdir()
    subprocess.run(["pdfimages", "-all", path, folder / "picture"], check=True)
    return [file.read_bytes() for file in sorted(folder.iterdir())]


def words_at(path: Path) -> list[tuple[float, float, str]]:
    """Where on the first page each word begins, as fractions of it, by poppler."""
    done = subprocess.run(["pdftotext", "-bbox", "-l", "1", path, "-"], capture_output=True, check=True, text=True)
    width = height = 1.0
    found = []
    for line in done.stdout.splitlines():
        values = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if "<page" in line:
            width, height = float(values["width"].strip('">')), float(values["height"].strip('">'))
        elif "<word" in line:
            text = line.split(">", 1)[1].split("<")[0]
            found.append((float(values["xMin"].strip('"')) / width, float(values["yMin"].strip('"')) / height, text))
    return found


@pytest.mark.parametrize("landscape", [False, True])
def test_a_page_holds_all_that_is_known(tmp_path: Path, pattern: Path, landscape: bool) -> None:
    made = report(pattern, tmp_path / "out", Page(landscape=landscape))
    assert made.file.name == "Einfahrt_Süd_20260511T080001.000Z.pdf"
    (done,) = made.link.done
    assert (done.mime_type, done.first_us, done.last_us) == ("application/pdf", T0 + SECOND, T0 + SECOND)
    (page,) = PdfReader(made.file).pages
    sides = (float(page.mediabox.width), float(page.mediabox.height))
    assert sides == pytest.approx((841.9, 595.3) if landscape else (595.3, 841.9), abs=0.1)
    text = page.extract_text()
    for wanted in (
        *("Einfahrt Süd", "North gate", "11.05.2026 10:00:01", "2026-05-11 10:00:01.000 +02:00", "ann"),
        *("Der Wagen fährt ein.", "Жёлтый фургон едет вперёд. Φορτηγό στην πύλη.", "2026-05-11 08:00:01.000"),
    ):
        assert wanted in text
    (picture,) = jpegs(made.file, tmp_path / "pictures")
    assert hashlib.sha256(picture).hexdigest() in text
    with Image.open(BytesIO(picture)) as image:
        assert (image.format, image.size) == ("JPEG", (640, 272))
    assert made.file.stat().st_size - len(picture) < 20 << 10
    information = PdfReader(made.file).metadata
    assert information is not None
    assert (information.title, information.author) == ("Einfahrt Süd", "ann")
    assert information.subject == WORDS.comment
    fonts = subprocess.run(["pdffonts", made.file], capture_output=True, check=True, text=True).stdout.splitlines()[2:]
    (used,) = fonts
    assert "Roboto" in used
    assert used.split()[-5:-2] == ["yes", "yes", "yes"], fonts  # embedded, a subset, with Unicode


def test_what_the_font_has_no_shape_for_is_seen_to_be_there(tmp_path: Path, pattern: Path) -> None:
    words = msgspec.structs.replace(WORDS, comment="Plate \u05d0\u05d1\u05d2 seen")
    made = report(pattern, tmp_path / "out", Page(comment=Area(0.1, 0.7, 0.9, 0.8)), words=words)
    placed = {text: left for left, _, text in words_at(made.file)}
    assert placed["Plate"] < placed["\ufffd\ufffd\ufffd"] < placed["seen"]
    assert "no shapes for '\u05d0\u05d1\u05d2'" in made.link.notes
    information = PdfReader(made.file).metadata
    assert information is not None
    assert information.subject == words.comment


def test_the_picture_is_the_jpeg_byte_for_byte(tmp_path: Path, pattern: Path) -> None:
    made = report(pattern, tmp_path / "out", Page())
    folder = tmp_path / "jpeg"
    folder.mkdir()
    alone = do(SnapshotJob(folder=str(folder), sources=(camera(pattern),), at_us=T0 + SECOND, words=WORDS))
    assert jpegs(made.file, tmp_path / "pictures") == [alone.file.read_bytes()]


def test_there_is_a_page_for_each_camera_that_has_a_picture(tmp_path: Path, pattern: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    sources = (camera(pattern, "One"), camera(tmp_path / "none" / "%s.mp4", "None"), camera(pattern, "Two"))
    made = do(SnapshotJob(folder=str(folder), sources=sources, at_us=T0 + SECOND, words=WORDS, page=Page()))
    assert not made.ended.succeeded
    obstacle = f"({tmp_path}/none: there is no such directory)"
    assert made.ended.reason == f"None: nothing was recorded at 20260511T080001.000000 that can be read {obstacle}"
    assert made.file.name == "One_Two_20260511T080001.000Z.pdf"
    texts = [page.extract_text() for page in PdfReader(made.file).pages]
    assert len(texts) == 2
    assert "One" in texts[0]
    assert "Two" in texts[1]


def test_discrete_is_a_document_for_each_camera(tmp_path: Path, pattern: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    sources = (camera(pattern, "One"), camera(pattern, "Two"))
    job = SnapshotJob(folder=str(folder), sources=sources, at_us=T0 + SECOND, words=WORDS, page=Page(), discrete=True)
    made = do(job)
    assert [path.name for path in made.files] == [f"{name}_20260511T080001.000Z.pdf" for name in ("One", "Two")]
    for path, name in zip(made.files, ("One", "Two"), strict=True):
        (page,) = PdfReader(path).pages
        assert name in page.extract_text()


def test_without_any_picture_there_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    sources = (camera(tmp_path / "none" / "%s.mp4"),)
    made = do(SnapshotJob(folder=str(tmp_path / "out"), sources=sources, at_us=T0, page=Page()))
    assert not made.ended.succeeded
    assert list((tmp_path / "out").iterdir()) == []


def test_things_are_where_the_client_puts_them(tmp_path: Path, pattern: Path) -> None:
    page = Page(
        picture=Area(0.5, 0.5, 1, 1),
        timestamp=Area(0.1, 0.1, 0.6, 0.2),
        comment=Area(0.1, 0.3, 0.4, 0.4),
        colour=Colour(1, 0, 0),
        font=Font(size=12, bold=True),
    )
    made = report(pattern, tmp_path / "out", page)
    found = words_at(made.file)
    assert [text for x, y, text in found if y < 0.25] == ["11.05.2026", "10:00:01"]
    assert found[0][:2] == pytest.approx((0.1, 0.1), abs=0.01)
    comment = [(x, y) for x, y, _ in found if y > 0.25]
    assert len(comment) == len(WORDS.comment.split())
    assert min(x for x, _ in comment) == pytest.approx(0.1, abs=0.01)
    assert max(x for x, _ in comment) < 0.4
    assert max(y for _, y in comment) < 0.4
    subprocess.run(["pdftoppm", "-r", "50", "-png", "-singlefile", made.file, tmp_path / "page"], check=True)
    with Image.open(tmp_path / "page.png") as image:
        width, height = image.size
        assert image.crop((0, height // 2, width // 2 - 2, height)).getextrema() == ((255, 255),) * 3
        assert image.getpixel((width * 3 // 4, height * 3 // 4)) != (255, 255, 255)
        darkest = np.asarray(image.crop((0, 0, width, height // 2)).convert("RGB")).min(axis=(0, 1))
        assert darkest[0] > 200
        assert darkest[1] < 120


def test_a_long_comment_shrinks_and_what_has_no_room_is_told(tmp_path: Path, pattern: Path) -> None:
    words = msgspec.structs.replace(WORDS, comment="every word counts " * 150)
    made = report(pattern, tmp_path / "shrunk", Page(), words=words)
    (page,) = PdfReader(made.file).pages
    assert page.extract_text().count("every") == 150
    assert "is cut" not in made.link.notes
    words = msgspec.structs.replace(WORDS, comment="every word counts " * 3000)
    made = report(pattern, tmp_path / "cut", Page(comment=Area(0, 0, 0.2, 0.1)), words=words)
    assert "the comment is cut: the report has no room for 53999 characters" in made.link.notes


_JPEG = BytesIO()
Image.new("RGB", (32, 32)).save(_JPEG, "JPEG")
fractions = st.floats(0, 1)
spans = st.tuples(fractions, fractions).map(sorted).filter(lambda span: span[0] < span[1])
areas = st.none() | st.builds(lambda x, y: Area(x[0], y[0], x[1], y[1]), spans, spans)
texts = st.one_of(st.text(max_size=60), st.sampled_from(["x" * 10_000, "ы " * 5000, "שלום", "\x00\x1b[1m\n\n", "😀"]))


@given(
    st.builds(
        Page,
        landscape=st.booleans(),
        picture=areas,
        comment=areas,
        timestamp=areas,
        font=st.builds(Font, size=st.sampled_from([0, 0.001, 11, 1000]), bold=st.booleans()),
    ),
    texts,
    texts,
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_anything_makes_a_document(page: Page, comment: str, name: str) -> None:
    sources = (camera(Path("/x"), name),)
    words = Words(comment=comment, user=name)
    document = Report(page, words, sources, lambda _: None)
    document.add(_JPEG.getvalue(), sources[0], T0)
    assert len(PdfReader(BytesIO(document.finish())).pages) == 1
