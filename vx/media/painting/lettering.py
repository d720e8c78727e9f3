"""Text as pixels: laid out in its box, and set with an outline.

Lines are put together from pieces that are kept: a clock changes a digit or two from frame to frame, and the digits of
the font are all of one width.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from vx.drawing import AlignH, Font
from vx.media.painting import fonts
from vx.media.painting.layout import lay_out

Alpha = npt.NDArray[np.uint8]
SMALLEST = 7
"""Pixels of a letter's height; what doesn't fit even so is cut off, with an ellipsis."""
_PIECES = re.compile(r"[0-9]|\s+|[^0-9\s]{1,64}")


@dataclass(frozen=True)
class Layout:
    """Lines of text in a size."""

    lines: tuple[str, ...]
    size: int
    whole: bool = True
    """Nothing had to be cut off."""


@dataclass(frozen=True)
class Lettering:
    """Text as it covers pixels, its outline included, and how much of that is the letters themselves."""

    cover: Alpha
    letters: Alpha


class Typesetter:
    """Sets text in a font."""

    def __init__(self, font: Font) -> None:
        self._file = fonts.path(font)

    def lay_out(self, text: str, width: int, height: int, size: int) -> Layout:
        """The text in lines that fit into the box, in `size` or a smaller one."""
        ascent, descent = fonts.load(self._file, 100).getmetrics()
        lines, fitting, whole = lay_out(
            text, width - 2 * self._outline(size), height, size, SMALLEST, self._measure, (ascent + descent) / 100
        )
        return Layout(tuple(lines), int(fitting), whole)

    def _measure(self, text: str, size: float) -> float:
        return sum(_length(self._file, int(size), piece) for piece in _PIECES.findall(text))

    def set(self, layout: Layout, align: AlignH) -> Lettering:
        """The lines as pixels, each at its side."""
        set_lines = [self._line(line, layout.size) for line in layout.lines]
        ascent, descent = fonts.load(self._file, layout.size).getmetrics()
        step, margin = ascent + descent, self._outline(layout.size)
        width = max(line.cover.shape[1] for line in set_lines)
        cover = np.zeros((step * len(set_lines) + 2 * margin, width), np.uint8)
        letters = np.zeros_like(cover)
        for number, line in enumerate(set_lines):
            room = width - line.cover.shape[1]
            left = {"left": 0, "center": room // 2, "right": room}[align]
            where = np.s_[number * step : number * step + line.cover.shape[0], left : left + line.cover.shape[1]]
            np.maximum(cover[where], line.cover, out=cover[where])
            np.maximum(letters[where], line.letters, out=letters[where])
        return Lettering(cover, letters)

    @staticmethod
    def _outline(size: int) -> int:
        return max(1, round(size / 14))

    def _line(self, text: str, size: int) -> Lettering:
        """A line, with room for its outline around it."""
        font = fonts.load(self._file, size)
        ascent, descent = font.getmetrics()
        margin = self._outline(size)
        pieces = _pieces(text)
        lengths = [_length(self._file, size, piece) for piece in pieces]
        shape = (ascent + descent + 2 * margin, max(1, round(sum(lengths))) + 2 * margin)
        cover, letters = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        at = 0.0
        for piece, length in zip(pieces, lengths, strict=True):
            made = _piece(self._file, size, margin, piece)
            # a piece has an overhang to both sides, for letters that lean out of their place
            left = round(at) - made.overhang
            begin, end = max(0, left), min(shape[1], left + made.cover.shape[1])
            if begin < end:
                source = np.s_[:, begin - left : end - left]
                np.maximum(cover[:, begin:end], made.cover[source], out=cover[:, begin:end])
                np.maximum(letters[:, begin:end], made.letters[source], out=letters[:, begin:end])
            at += length
        return Lettering(cover, letters)


@functools.lru_cache(maxsize=4096)
def _length(file: str, size: int, text: str) -> float:
    return fonts.load(file, size).getlength(text)


@dataclass(frozen=True)
class _Piece:
    cover: Alpha
    letters: Alpha
    overhang: int


@functools.lru_cache(maxsize=512)
def _piece(file: str, size: int, margin: int, text: str) -> _Piece:
    font = fonts.load(file, size)
    ascent, descent = font.getmetrics()
    overhang = size // 3
    shape = round(font.getlength(text)) + 2 * (overhang + margin), ascent + descent + 2 * margin

    def drawn(stroke: int) -> Alpha:
        image = Image.new("L", shape)
        # from the left end of the baseline, which Pillow keeps there however wide the outline is
        ImageDraw.Draw(image).text((overhang + margin, margin + ascent), text, 255, font, "ls", stroke_width=stroke)
        return np.asarray(image)

    return _Piece(drawn(margin), drawn(0), overhang)


def _pieces(text: str) -> list[str]:
    """Digits one by one, and words; all in one where the letters depend on each other."""
    if text.isascii() or not any(_depends(character) for character in text):
        return _PIECES.findall(text)
    return [text] if text else []


def _depends(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL", "AN") or unicodedata.category(character)[0] == "M"
