"""A PDF report: a page for each picture, A4, with what is known of it.

The page is laid out here; a client may say where the picture, the comment and the time are put instead, and then there
is nothing else on it. A picture goes in as its JPEG, byte for byte, and its text can be searched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from reportlab import rl_config
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from vx.captions import Caption, clean, format_time
from vx.drawing import Area, Font, Page, Words
from vx.jobs import Source
from vx.media.files import labels
from vx.media.painting import fonts
from vx.media.painting.layout import lay_out

rl_config.useA85 = 0  # else pictures are blown up by a quarter

_MARGIN = 40.0
_LINE = 1.22
"""The height of a line, in sizes of its letters."""
_SMALLEST = 4.0
_LARGEST = 18.0
"""Of a page that is laid out here: all of it has to find room."""
_FILLED: Literal[0] = 0
_FILLED_AND_OUTLINED: Literal[2] = 2
"""How letters are drawn, as PDF numbers it."""
_TEXT_SIZE = 10.0
_UNKNOWN = "\ufffd"
_GREY = 0.45
_PALE = 0.82
_DEFAULT_PLACES = {
    # (portrait, landscape), for pages that the client lays out in part
    "picture": (Area(0.07, 0.05, 0.93, 0.6), Area(0.05, 0.06, 0.95, 0.76)),
    "timestamp": (Area(0.07, 0.62, 0.93, 0.66), Area(0.05, 0.78, 0.95, 0.83)),
    "comment": (Area(0.07, 0.68, 0.93, 0.95), Area(0.05, 0.85, 0.95, 0.96)),
}


class Report:
    """A document under way: `add` its pages, then `finish` it."""

    def __init__(self, page: Page, words: Words, sources: Sequence[Source], warn: Callable[[str], None]) -> None:
        """`sources` are all that are to get a page. `warn` is told of text that can't be shown as it is."""
        self._page = page
        self._words = words
        self._warn = warn
        self._file = BytesIO()
        self._size = landscape(A4) if page.landscape else A4
        self._font = _face(page.font)
        # each page begins with a font; if it were the library's own, the document would name one that is not in it
        initial: Any = self._font  # its stubs say that this is a number
        self._canvas = Canvas(self._file, pagesize=self._size, pageCompression=1, initialFontName=initial)
        self._is_laid_out = bool(page.picture or page.comment or page.timestamp)
        """By the client."""
        size = page.font.size or _TEXT_SIZE
        self._text_size = size if self._is_laid_out else min(max(size, _SMALLEST), _LARGEST)
        names = ", ".join(dict.fromkeys(source.name for source in sources))
        self._canvas.setTitle(f"{names}")
        self._canvas.setSubject(clean(words.comment))
        self._canvas.setAuthor(words.user)
        self._canvas.setCreator(labels.SOFTWARE)
        self._canvas.setProducer(labels.SOFTWARE)

    def add(self, jpeg: bytes, source: Source, taken_us: int) -> None:
        """A page with this picture."""
        picture = ImageReader(BytesIO(jpeg))
        if self._is_laid_out:
            self._add_places(picture, source, taken_us)
        else:
            self._add_sheet(picture, hashlib.sha256(jpeg).hexdigest(), source, taken_us)
        self._canvas.showPage()

    def finish(self) -> bytes:
        """The document's file."""
        self._canvas.save()
        return self._file.getvalue()

    # ---- laid out by the client

    def _add_places(self, picture: ImageReader, source: Source, taken_us: int) -> None:
        page = self._page
        self._picture(picture, self._place("picture", page.picture))
        time = Caption.of(self._words, [source]).time(taken_us)
        self._text(time, self._place("timestamp", page.timestamp), "the time")
        if self._words.comment:
            self._text(clean(self._words.comment), self._place("comment", page.comment), "the comment")

    def _place(self, name: str, area: Area | None) -> tuple[float, float, float, float]:
        """(left, top, width, height) in points from the page's top left corner."""
        area = area or _DEFAULT_PLACES[name][self._page.landscape]
        width, height = self._size
        return area.left * width, area.top * height, (area.right - area.left) * width, (area.bottom - area.top) * height

    # ---- laid out here

    def _add_sheet(self, picture: ImageReader, digest: str, source: Source, taken_us: int) -> None:
        words, (width, height) = self._words, self._size
        inner = width - 2 * _MARGIN
        size = self._text_size
        time = format_time(taken_us, words.time_format, words.offset_min)
        self._text(source.name, (_MARGIN, _MARGIN, inner * 0.62, size * 2.4), "the camera's name", bold=True, scale=1.6)
        self._text(
            time, (_MARGIN + inner * 0.64, _MARGIN, inner * 0.36, size * 2.4), "the time", scale=1.15, align="right"
        )
        top = _MARGIN + size * 2.6
        self._rule(top)
        foot = height - _MARGIN - 2 * size
        facts = self._facts(source, taken_us, digest)
        facts_height = len(facts) * size * 1.5
        comment = clean(words.comment)
        comment_height = 0.0
        if comment:
            wanted = self._height(comment, inner, size) + size * 2.2
            most = (foot - top) * (0.22 if self._page.landscape else 0.3)
            comment_height = min(wanted, most)
        room = foot - top - facts_height - comment_height - 3 * size
        bottom = self._picture(picture, (_MARGIN, top + size, inner, room), top=True)
        below = bottom + size
        if comment:
            self._text("Comment", (_MARGIN, below, inner, size * 1.4), "", bold=True)
            self._text(comment, (_MARGIN, below + size * 1.5, inner, comment_height - size * 2.2), "the comment")
            below += comment_height
        self._rule(below)
        below += size * 0.6
        for name, value in facts:
            self._text(name, (_MARGIN, below, 100, size * 1.4), "", grey=True)
            self._text(value, (_MARGIN + 105, below, inner - 105, size * 1.4), name)
            below += size * 1.5
        self._footer(foot + size)

    def _facts(self, source: Source, taken_us: int, digest: str) -> list[tuple[str, str]]:
        words = self._words
        return [
            (name, value)
            for name, value in (
                ("Camera", " ".join(text for text in (source.id, source.name) if text)),
                ("Location", source.location),
                ("Device", source.origin),
                ("Local time", format_time(taken_us, "%Y-%m-%d %H:%M:%S.%f %z", words.offset_min)),
                ("UTC", format_time(taken_us, "%Y-%m-%d %H:%M:%S.%f", 0)),
                ("Exported by", words.user),
                ("SHA-256 of picture", digest),
            )
            if value
        ]

    def _footer(self, top: float) -> None:
        width, _ = self._size
        inner, size = width - 2 * _MARGIN, self._text_size
        self._text(labels.SOFTWARE, (_MARGIN, top, inner / 2, size * 1.3), "", grey=True, scale=0.8)
        number = f"{self._canvas.getPageNumber()}"
        self._text(number, (_MARGIN + inner / 2, top, inner / 2, size * 1.3), "", grey=True, scale=0.8, align="right")

    # ---- pieces

    def _picture(self, picture: ImageReader, place: tuple[float, float, float, float], *, top: bool = False) -> float:
        """As large as it fits, in the middle (or at the top); returns where it ends."""
        left, above, width, height = place
        across, down = picture.getSize()
        scale = min(width / across, height / down)
        drawn_width, drawn_height = across * scale, down * scale
        left += (width - drawn_width) / 2
        above += 0 if top else (height - drawn_height) / 2
        bottom = self._size[1] - above - drawn_height
        self._canvas.drawImage(picture, left, bottom, drawn_width, drawn_height)
        self._canvas.setStrokeGray(_PALE)
        self._canvas.setLineWidth(0.5)
        self._canvas.rect(left, bottom, drawn_width, drawn_height)
        return above + drawn_height

    def _rule(self, top: float) -> None:
        self._canvas.setStrokeGray(_PALE)
        self._canvas.setLineWidth(0.75)
        self._canvas.line(_MARGIN, self._size[1] - top, self._size[0] - _MARGIN, self._size[1] - top)

    def _height(self, text: str, width: float, size: float) -> float:
        lines, _, _ = lay_out(self._known(text), width, 1e9, size, size, self._measure(self._font), _LINE)
        return len(lines) * size * _LINE

    def _text(
        self,
        text: str,
        place: tuple[float, float, float, float],
        what: str,
        *,
        bold: bool = False,
        grey: bool = False,
        scale: float = 1,
        align: str = "left",
    ) -> None:
        """Text in its place, smaller where it wouldn't fit. `what` it is, for a warning."""
        left, above, width, height = place
        text = clean(text)
        if missing := fonts.missing(text, self._page.font):
            self._warn(f"the font has no shapes for {missing!r}: {_UNKNOWN} stands for each of them")
        text = self._known(text)
        size = self._text_size * scale
        lines, size, whole = lay_out(text, width, height, size, _SMALLEST, self._measure(self._font), _LINE)
        if not whole:
            self._warn(f"{what} is cut: the report has no room for {len(text)} characters")
        colour = self._page.colour
        if grey:
            self._canvas.setFillGray(_GREY)
        else:
            self._canvas.setFillColorRGB(colour.red, colour.green, colour.blue, colour.alpha)
            self._canvas.setStrokeColorRGB(colour.red, colour.green, colour.blue, colour.alpha)
        self._canvas.setFont(self._font, size)
        self._canvas.setLineWidth(size / 40)
        mode = _FILLED_AND_OUTLINED if bold else _FILLED  # a bold font would add another ten kilobytes
        baseline = self._size[1] - above - size
        for line in lines:
            if align == "right":
                self._canvas.drawRightString(left + width, baseline, line, mode=mode)
            else:
                self._canvas.drawString(left, baseline, line, mode=mode)
            baseline -= size * _LINE

    def _known(self, text: str) -> str:
        """The text with a sign for each character that the font has no shape for: a PDF would show nothing there."""
        return text.translate(dict.fromkeys(map(ord, fonts.missing(text, self._page.font)), _UNKNOWN))

    @staticmethod
    def _measure(font: str) -> Callable[[str, float], float]:
        return lambda text, size: float(pdfmetrics.stringWidth(text, font, size))


def _face(font: Font) -> str:
    """The name under which reportlab knows the font."""
    file = fonts.path(font)
    name = Path(file).stem
    if name not in pdfmetrics.getRegisteredFontNames():
        made: Any = TTFont(name, file)
        pdfmetrics.registerFont(made)
    return name
