"""Masks: which pixels polygons cover, and how what lies there is hidden.

A mask covers whole cells of two by two pixels, which share their chroma: each cell that a polygon touches. What a
polygon winds around is inside, however it crosses itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vx.drawing import Polygon
from vx.media.painting.geometry import Box, stored_point

Cells = npt.NDArray[np.bool_]
"""By row and column: whether a cell is hidden."""
Plane = npt.NDArray[np.unsignedinteger]
CELL = 2
_UPRIGHT = 1e-6
"""Cells; an edge that goes less far across is taken for upright."""
_LINE_PART = 960
"""Lines are a cell wider for each of so many pixels."""


def hidden_cells(masks: Sequence[Polygon], windows: Sequence[Polygon], width: int, height: int, turn: int) -> Cells:
    """What is hidden of a stored frame: what `masks` touch and, if there are `windows`, all that is inside of none."""
    rows, columns = -(-height // CELL), -(-width // CELL)
    hidden = np.zeros((rows, columns), np.bool_)
    for polygon in masks:
        inside, touched = _raster(polygon, width / CELL, height / CELL, rows, columns, turn)
        hidden |= inside | touched
    if windows:
        seen = np.zeros_like(hidden)
        for polygon in windows:
            inside, touched = _raster(polygon, width / CELL, height / CELL, rows, columns, turn)
            seen |= inside & ~touched
        hidden |= ~seen
    return hidden


def outline_cells(polygons: Sequence[Polygon], width: int, height: int, turn: int) -> Cells:
    """The cells of lines along the edges of polygons in a stored frame."""
    rows, columns = -(-height // CELL), -(-width // CELL)
    marked = np.zeros((rows, columns), np.bool_)
    for polygon in polygons:
        marked |= _raster(polygon, width / CELL, height / CELL, rows, columns, turn)[1]
    for _ in range(max(width, height) // _LINE_PART):
        wider = marked.copy()
        wider[1:] |= marked[:-1]
        wider[:, 1:] |= marked[:, :-1]
        marked = wider
    return marked


def _raster(polygon: Polygon, width: float, height: float, rows: int, columns: int, turn: int) -> tuple[Cells, Cells]:
    """(cells whose middle is inside, cells that an edge goes through)."""
    fractions = np.array([stored_point(x, y, turn) for x, y in polygon])
    points = fractions * (width, height)
    winding = np.zeros((rows, columns + 1), np.int32)
    touched = np.zeros((rows, columns), np.bool_)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        _wind(winding, x0, y0, x1, y1)
        _touch(touched, x0, y0, x1, y1)
    return np.cumsum(winding[:, :columns], axis=1) != 0, touched


def _wind(winding: npt.NDArray[np.int32], x0: float, y0: float, x1: float, y1: float) -> None:
    """Count an edge for all middles to its right, in the rows whose middles it passes."""
    direction = 1 if y0 < y1 else -1
    if direction < 0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    rows = np.arange(max(0, int(np.ceil(y0 - 0.5))), min(len(winding), int(np.ceil(y1 - 0.5))))
    if len(rows):
        crossing = x0 + (rows + 0.5 - y0) / (y1 - y0) * (x1 - x0)
        first = np.clip(np.ceil(crossing - 0.5).astype(np.int64), 0, winding.shape[1] - 1)
        np.add.at(winding, (rows, first), direction)


def _touch(touched: Cells, x0: float, y0: float, x1: float, y1: float) -> None:
    """Mark each cell that the edge goes through: column by column, from where it comes in to where it leaves."""
    rows, columns = touched.shape
    if x0 > x1:
        x0, y0, x1, y1 = x1, y1, x0, y0
    across = x1 - x0
    for column in range(max(0, int(x0)), min(columns - 1, int(x1)) + 1):
        enter, leave = y0, y1
        if across > _UPRIGHT:
            enter += (max(column, x0) - x0) / across * (y1 - y0)
            leave += (min(column + 1, x1) - x1) / across * (y1 - y0)
        low, high = min(enter, leave), max(enter, leave)
        touched[max(0, int(low)) : min(rows - 1, int(high)) + 1, column] = True


class Mask:
    """The hidden cells of a frame of one size, ready to be used on its planes."""

    def __init__(self, cells: Cells, width: int, height: int) -> None:
        self._cells = cells
        rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
        self._box = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        self._block = max(16, max(width, height) // 40 // 4 * 4)
        """Pixels to a side of what a mosaic shows in one colour."""
        self._where: dict[tuple[int, int], npt.NDArray[np.bool_] | None] = {}

    def blacken(self, plane: Plane, across: int, down: int, value: int) -> None:
        """Fill it in a plane that has a number for each `across` by `down` pixels."""
        view, where = self._view(plane, across, down)
        if where is None:
            view[...] = value
        else:
            np.copyto(view, plane.dtype.type(value), where=where)

    def blur(self, plane: Plane, across: int, down: int) -> None:
        """Fill it with blocks of their average colour."""
        view, where = self._view(plane, across, down)
        box = self._pixels(plane, across, down)
        rows, row_of = _blocks(box.top, box.bottom, self._block // down)
        columns, column_of = _blocks(box.left, box.right, self._block // across)
        sums = np.add.reduceat(np.add.reduceat(view, rows, axis=0, dtype=np.uint32), columns, axis=1, dtype=np.uint32)
        counts = np.outer(np.bincount(row_of), np.bincount(column_of)).astype(np.uint32)
        means = ((sums + counts // 2) // counts).astype(plane.dtype)
        np.copyto(view, means[row_of][:, column_of], where=True if where is None else where)

    def _pixels(self, plane: Plane, across: int, down: int) -> Box:
        box, x, y = self._box, CELL // across, CELL // down
        return Box(box.left * x, box.top * y, box.right * x, box.bottom * y).inside(plane.shape[1], plane.shape[0])

    def _view(self, plane: Plane, across: int, down: int) -> tuple[Plane, npt.NDArray[np.bool_] | None]:
        """The plane within the mask's box, and what of that is hidden (None: all of it)."""
        box = self._pixels(plane, across, down)
        if (across, down) not in self._where:
            cells = self._cells[self._box.top : self._box.bottom, self._box.left : self._box.right]
            where = cells.repeat(CELL // down, axis=0).repeat(CELL // across, axis=1)[: box.height, : box.width]
            self._where[across, down] = None if where.all() else np.ascontiguousarray(where)
        return plane[box.top : box.bottom, box.left : box.right], self._where[across, down]


def _blocks(begin: int, end: int, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Where in begin..end blocks of a grid from 0 on begin, and in which of them each place lies."""
    block_of = np.arange(begin, end) // size
    block_of -= block_of[0]
    return np.flatnonzero(np.diff(block_of, prepend=-1)), block_of
