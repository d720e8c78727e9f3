"""What is drawn into pictures, and what their text says: frozen structs that cross the border to the workers.

Areas and points are fractions of the whole frame as a viewer sees it (of the page, in a PDF), from its top left corner;
a crop cuts the frame first, and everything else still counts from the whole frame. Colours are fractions of full light.
This file depends on nothing else in vx.
"""

from __future__ import annotations

from typing import Literal

import msgspec

AlignH = Literal["left", "center", "right"]
AlignV = Literal["top", "center", "bottom"]
MaskStyle = Literal["black", "mosaic"]

Polygon = tuple[tuple[float, float], ...]
"""(x, y) of its corners, at least three."""


class Area(msgspec.Struct, frozen=True):
    """A rectangle; left < right and top < bottom."""

    left: float
    top: float
    right: float
    bottom: float


class Colour(msgspec.Struct, frozen=True):
    """RGB; an alpha of 0 is clear, 1 is solid."""

    red: float
    green: float
    blue: float
    alpha: float = 1


WHITE = Colour(1, 1, 1)
BLACK = Colour(0, 0, 0)
SHADE = Colour(0, 0, 0, 0.5)


class Font(msgspec.Struct, frozen=True, kw_only=True):
    """How letters look. `size` is their height in pixels of the frame, in points of a page; 0: whatever suits it."""

    size: float = 0
    bold: bool = False
    italic: bool = False


class TextLook(msgspec.Struct, frozen=True, kw_only=True):
    """Where text is burnt into a frame, and how it looks there."""

    place: Area | None = None
    """None: along the lower edge."""
    colour: Colour = WHITE
    ground: Colour = SHADE
    """Behind the text."""
    align_h: AlignH = "center"
    align_v: AlignV = "bottom"
    font: Font = Font()


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """All that is done to the frames of one source, in this order: crop, masks, outlines, text."""

    crop: Area | None = None
    masks: tuple[Polygon, ...] = ()
    """Hidden."""
    windows: tuple[Polygon, ...] = ()
    """If there are any, all but them is hidden."""
    mask_style: MaskStyle = "black"
    outlines: tuple[Polygon, ...] = ()
    text: TextLook | None = None
    """None: no text is burnt in."""


def needs_painting(drawing: Drawing) -> bool:
    """Whether there is anything to do to a frame."""
    return bool(drawing.crop or drawing.masks or drawing.windows or drawing.outlines or drawing.text)


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What the text of an export says; `vx.captions` makes the text of a camera and a moment from it."""

    pattern: str = "{CameraName}  {Timestamp}"
    """With the wildcards of `vx.captions.WILDCARDS`."""
    time_format: str = "%Y-%b-%d %H:%M:%S"
    offset_min: int = 0
    """Of local time from UTC."""
    comment: str = ""
    user: str = ""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a PDF report. What has no place of its own is laid out by the page."""

    landscape: bool = False
    picture: Area | None = None
    comment: Area | None = None
    timestamp: Area | None = None
    colour: Colour = BLACK
    """Of the text."""
    font: Font = Font()
