"""Where things are in a frame: from fractions of what a viewer sees to pixels as they are stored. Pure.

A frame may be stored turned; players turn it back by its `turn`, in degrees counter-clockwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vx.drawing import Area

SMALLEST_CROP = 32
"""Pixels to a side; some encoders take no less."""


@dataclass(frozen=True)
class Box:
    """Whole pixels; right and bottom are the first ones behind it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def moved(self, dx: int, dy: int) -> Box:
        """The same box elsewhere."""
        return Box(self.left + dx, self.top + dy, self.right + dx, self.bottom + dy)

    def inside(self, width: int, height: int) -> Box:
        """What of it lies in a picture of this size; at least a pixel."""
        left, top = min(max(self.left, 0), width - 1), min(max(self.top, 0), height - 1)
        return Box(left, top, max(min(self.right, width), left + 1), max(min(self.bottom, height), top + 1))

    def shrunk(self, x: int, y: int) -> Box:
        """Without a margin at each side, as far as something is left."""
        x, y = min(x, (self.width - 1) // 2), min(y, (self.height - 1) // 2)
        return Box(self.left + x, self.top + y, self.right - x, self.bottom - y)


def turned_size(width: int, height: int, turn: int) -> tuple[int, int]:
    """The size that a viewer sees."""
    return (height, width) if turn in (90, 270) else (width, height)


def stored_point(x: float, y: float, turn: int) -> tuple[float, float]:
    """A point of what the viewer sees, where it is stored; both are fractions."""
    if turn == 90:
        return 1 - y, x
    if turn == 180:
        return 1 - x, 1 - y
    if turn == 270:
        return y, 1 - x
    return x, y


def stored_area(area: Area, turn: int) -> Area:
    """An area of what the viewer sees, where it is stored."""
    one = stored_point(area.left, area.top, turn)
    other = stored_point(area.right, area.bottom, turn)
    return Area(min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1]))


def seen_box(box: Box, width: int, height: int, turn: int) -> Box:
    """A box of a stored picture of this size, where the viewer sees it."""
    if turn == 90:
        return Box(box.top, width - box.right, box.bottom, width - box.left)
    if turn == 180:
        return Box(width - box.right, height - box.bottom, width - box.left, height - box.top)
    if turn == 270:
        return Box(height - box.bottom, box.left, height - box.top, box.right)
    return box


def crop_box(area: Area, width: int, height: int) -> Box:
    """The pixels of a crop: all that the area touches, at even places and of even size."""
    left, right = _even_span(area.left, area.right, width)
    top, bottom = _even_span(area.top, area.bottom, height)
    return Box(left, top, right, bottom)


def _even_span(begin: float, end: float, size: int) -> tuple[int, int]:
    even = size & ~1
    if even <= SMALLEST_CROP:
        return 0, even or size
    low = min(math.floor(_near(begin * size)) & ~1, even)
    high = min((math.ceil(_near(end * size)) + 1) & ~1, even)
    missing = SMALLEST_CROP - (high - low)
    if missing > 0:
        low = max(0, (low - missing // 2) & ~1)
        high = low + SMALLEST_CROP
        if high > even:
            low, high = even - SMALLEST_CROP, even
    return low, high


def area_box(area: Area, width: int, height: int) -> Box:
    """The pixels of an area, to the nearest."""
    box = Box(
        round(area.left * width), round(area.top * height), round(area.right * width), round(area.bottom * height)
    )
    return box.inside(width, height)


def _near(value: float) -> float:
    """Without what 32 bits have lost: 0.1 of 1920 is 192, not a hair more."""
    return round(value, 3)
