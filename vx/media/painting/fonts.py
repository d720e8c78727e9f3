"""The letters that text is set in: Roboto, which has Latin, Greek and Cyrillic."""

from __future__ import annotations

import functools
import struct
from pathlib import Path

import font_roboto
from PIL import ImageFont

from vx.drawing import Font

_FACES = {
    (False, False): font_roboto.Roboto,
    (True, False): font_roboto.RobotoBold,
    (False, True): font_roboto.RobotoItalic,
    (True, True): font_roboto.RobotoBoldItalic,
}
_INVISIBLE = "\u200c\u200d\ufe0e\ufe0f"
"""They join their neighbours, and have no shape of their own."""


def path(font: Font) -> str:
    """The TrueType file."""
    file: str = _FACES[font.bold, font.italic]
    return file


@functools.lru_cache(maxsize=64)
def load(file: str, size: int) -> ImageFont.FreeTypeFont:
    """The font in a size, in pixels."""
    return ImageFont.truetype(file, size)


def missing(text: str, font: Font) -> str:
    """The characters of a text that the font has no shape for, each once."""
    known = _characters(path(font))
    return "".join(dict.fromkeys(c for c in text if ord(c) not in known and not c.isspace() and c not in _INVISIBLE))


@functools.lru_cache(maxsize=4)
def _characters(file: str) -> frozenset[int]:
    """The characters in a TrueType file's `cmap`, by its table for the Basic Multilingual Plane (format 4)."""
    data = Path(file).read_bytes()
    (count,) = struct.unpack_from(">H", data, 4)
    tables = {data[12 + 16 * i : 16 + 16 * i]: 12 + 16 * i for i in range(count)}
    (cmap,) = struct.unpack_from(">I", data, tables[b"cmap"] + 8)
    (subtables,) = struct.unpack_from(">H", data, cmap + 2)
    found: set[int] = set()
    for i in range(subtables):
        (offset,) = struct.unpack_from(">I", data, cmap + 8 + 8 * i)
        if struct.unpack_from(">H", data, cmap + offset) == (4,):
            found |= _format_4(data, cmap + offset)
    return frozenset(found)


def _format_4(data: bytes, at: int) -> set[int]:
    (twice,) = struct.unpack_from(">H", data, at + 6)
    count = twice // 2
    ends = struct.unpack_from(f">{count}H", data, at + 14)
    starts = struct.unpack_from(f">{count}H", data, at + 16 + twice)
    return {code for start, end in zip(starts, ends, strict=True) if end != 0xFFFF for code in range(start, end + 1)}
