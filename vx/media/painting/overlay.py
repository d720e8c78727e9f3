"""Draws into frames: crops them, hides what is masked, outlines areas, burns text in.

A `Painter` is for the frames of one source, be they of recordings, of a live camera, or from elsewhere. It works on the
planes of a frame as they are, only where there is something to draw, and on a copy where the decoder still needs the
frame. What doesn't change from frame to frame is computed once for each form of frames.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.frame import VideoFrame

from vx.captions import Caption
from vx.drawing import BLACK, WHITE, Area, Colour, Drawing, TextLook
from vx.media.painting import colours, fonts
from vx.media.painting.geometry import Box, area_box, crop_box, seen_box, stored_area, turned_size
from vx.media.painting.lettering import Lettering, Typesetter
from vx.media.painting.masks import CELL, Cells, Mask, Plane, hidden_cells, outline_cells

_OUTLINE = Colour(1, 0.8, 0)
"""Of areas that are marked."""
_TEXT_PART = 1 / 25
"""The height of letters, as a part of the picture's, where nobody says it."""
_LEAST_TEXT = 10
_KEPT_TEXTS = 4


class _Format(NamedTuple):
    """A planar pixel format: bits of a number, and how many pixels across and down share a chroma."""

    depth: int
    across: int
    down: int
    planes: int = 3


_FORMATS = {
    **{f"yuv{j}{name}p": _Format(8, *shared) for j in ("", "j") for name, shared in (
        ("420", (2, 2)), ("422", (2, 1)), ("444", (1, 1)), ("440", (1, 2)))},
    **{f"yuv{name}p{depth}le": _Format(depth, *shared) for depth in (10, 12) for name, shared in (
        ("420", (2, 2)), ("422", (2, 1)), ("444", (1, 1)))},
    "gray": _Format(8, 1, 1, 1),
    "gray10le": _Format(10, 1, 1, 1),
    "gray12le": _Format(12, 1, 1, 1),
}  # fmt: skip
_PLAIN = "yuv420p"
"""What frames of any other format are converted to."""


class Painter:
    """A `encoding.pictures.Draw`: `painter(frame, at_us)` gives the frame with all that is to be drawn into it."""

    def __init__(self, drawing: Drawing, caption: Caption, warn: Callable[[str], None]) -> None:
        """`warn` is told, once, of characters that can't be drawn."""
        self._drawing = drawing
        self._caption = caption
        self._warn = warn
        self._canvas: _Canvas | None = None

    def __call__(self, frame: VideoFrame, at_us: int) -> VideoFrame:
        if frame.format.name not in _FORMATS:
            frame = frame.reformat(format=_PLAIN)
        canvas = self._canvas
        if canvas is None or not canvas.takes(frame):
            canvas = self._canvas = _Canvas(self._drawing, frame, self._warn)
        text = self._caption.at(at_us) if self._drawing.text is not None else ""
        return canvas.draw(frame, text)


class _Canvas:
    """What is drawn into frames of one form."""

    def __init__(self, drawing: Drawing, frame: VideoFrame, warn: Callable[[str], None]) -> None:
        self._form = _form(frame)
        self._format = _FORMATS[frame.format.name]
        turn = round(frame.rotation) % 360
        turn = turn if turn % 90 == 0 else 0
        whole = Box(0, 0, frame.width, frame.height)
        cut = whole
        if drawing.crop is not None:
            cut = crop_box(stored_area(drawing.crop, turn), frame.width, frame.height)
        self._crop = None if cut == whole else _Crop(frame, cut)
        self._weights = colours.matrix(frame)
        self._full = colours.is_full_range(frame)
        self._mosaic = drawing.mask_style == "mosaic"
        hidden = hidden_cells(drawing.masks, drawing.windows, frame.width, frame.height, turn)
        self._mask = _mask(hidden, cut)
        marked = outline_cells(drawing.outlines, frame.width, frame.height, turn)
        self._marks = _mask(marked, cut)
        self._black, self._mark = self._numbers(BLACK), self._numbers(_OUTLINE)
        self._text = None
        if drawing.text is not None:
            view = _View(
                seen_box(cut, frame.width, frame.height, turn), turned_size(frame.width, frame.height, turn), turn
            )
            self._text = _Text(drawing.text, view, self._format, self._numbers, warn)

    def takes(self, frame: VideoFrame) -> bool:
        """Whether it is for such frames."""
        return _form(frame) == self._form

    def draw(self, frame: VideoFrame, text: str) -> VideoFrame:
        """The frame with everything drawn."""
        if self._crop is not None:
            frame = self._crop(frame)
        if self._mask is None and self._marks is None and self._text is None:
            return frame
        frame.make_writable()
        planes = _planes(frame, self._format)
        for number, plane in enumerate(planes):
            across, down = (self._format.across, self._format.down) if number else (1, 1)
            if self._mask is not None:
                if self._mosaic:
                    self._mask.blur(plane, across, down)
                else:
                    self._mask.blacken(plane, across, down, self._black[number])
            if self._marks is not None:
                self._marks.blacken(plane, across, down, self._mark[number])
        if self._text is not None:
            self._text.draw(planes, text)
        return frame

    def _numbers(self, colour: Colour) -> tuple[int, int, int]:
        return colours.numbers(colour, self._weights, full=self._full, depth=self._format.depth)


def _form(frame: VideoFrame) -> tuple[object, ...]:
    return frame.width, frame.height, frame.format.name, frame.color_range, frame.colorspace, frame.rotation


def _planes(frame: VideoFrame, form: _Format) -> list[Plane]:
    number = np.uint8 if form.depth == 8 else np.uint16
    planes = []
    for plane in frame.planes[: form.planes]:
        rows = np.frombuffer(plane, number).reshape(plane.height, -1)  # type: ignore[call-overload]
        planes.append(rows[:, : plane.width])
    return planes


def _mask(cells: Cells, cut: Box) -> Mask | None:
    cells = cells[cut.top // CELL : -(-cut.bottom // CELL), cut.left // CELL : -(-cut.right // CELL)]
    return Mask(cells, cut.width, cut.height) if cells.any() else None


class _Crop:
    """Cuts frames of one form; nothing is copied."""

    def __init__(self, frame: VideoFrame, box: Box) -> None:
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1_000_000)
        )
        crop = self._graph.add("crop", f"{box.width}:{box.height}:{box.left}:{box.top}:exact=1")
        sink = self._graph.add("buffersink")
        source.link_to(crop)
        crop.link_to(sink)
        self._graph.configure()

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        pts, base = frame.pts, frame.time_base
        self._graph.push(frame)
        cut = self._graph.pull()
        assert isinstance(cut, VideoFrame)
        cut.pts = pts
        if base is not None:
            cut.time_base = base
        return cut


@dataclass(frozen=True)
class _View:
    """What a viewer sees of the whole frame."""

    cut: Box
    whole: tuple[int, int]
    """The width and height that `cut` is a part of."""
    turn: int

    def place(self, area: Area) -> Box:
        """An area of the whole frame, in what is left of it."""
        box = area_box(area, *self.whole).moved(-self.cut.left, -self.cut.top)
        return box.inside(self.cut.width, self.cut.height)

    def stored(self, box: Box) -> Box:
        """Where a box is stored."""
        return seen_box(box, self.cut.width, self.cut.height, -self.turn % 360)

    def as_stored(self, seen: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Pixels as they are stored."""
        return np.rot90(seen, -self.turn // 90) if self.turn else seen


@dataclass(frozen=True)
class _Patch:
    """Text on its way into the planes: a plane's number becomes `number * keep + add` within the box."""

    ground: Box
    box: Box
    keep: list[npt.NDArray[np.float32]]
    add: list[npt.NDArray[np.float32]]


class _Text:
    """The text of frames of one form."""

    def __init__(
        self,
        look: TextLook,
        view: _View,
        form: _Format,
        numbers: Callable[[Colour], tuple[int, int, int]],
        warn: Callable[[str], None],
    ) -> None:
        self._look = look
        self._view = view
        self._form = form
        self._warn = warn
        self._warned = False
        self._typesetter = Typesetter(look.font)
        self._size = round(look.font.size) or max(_LEAST_TEXT, round(view.cut.height * _TEXT_PART))
        self._margin = max(2, self._size // 4)
        self._ink = numbers(look.colour)
        dark = 0.299 * look.colour.red + 0.587 * look.colour.green + 0.114 * look.colour.blue < 0.5
        self._rim = numbers(WHITE if dark else BLACK)
        self._shades = _shades(look.ground, numbers(look.ground), form.depth)
        self._patches: OrderedDict[str, _Patch | None] = OrderedDict()

    def draw(self, planes: list[Plane], text: str) -> None:
        """Burn a text in."""
        patch = self._patch(text)
        if patch is None:
            return
        for number, plane in enumerate(planes):
            across, down = (self._form.across, self._form.down) if number else (1, 1)
            if self._shades is not None:
                ground = _part(plane, patch.ground, across, down)
                np.take(self._shades[number], ground, out=ground, mode="clip")
            view = _part(plane, patch.box, across, down)
            view[...] = view * patch.keep[number] + patch.add[number]

    def _patch(self, text: str) -> _Patch | None:
        if text in self._patches:
            self._patches.move_to_end(text)
            return self._patches[text]
        if len(self._patches) >= _KEPT_TEXTS:
            self._patches.popitem(last=False)
        if not self._warned and (missing := fonts.missing(text, self._look.font)):
            self._warned = True
            self._warn(f"the font has no shapes for {missing!r}: boxes stand for them")
        patch = self._patches[text] = self._make(text) if text else None
        return patch

    def _make(self, text: str) -> _Patch:
        look, view = self._look, self._view
        picture = Box(0, 0, view.cut.width, view.cut.height)
        if look.place is not None:
            place = view.place(look.place)
            room = place.shrunk(self._margin, self._margin // 2)
        else:
            place = room = picture.shrunk(self._size // 2, self._size // 2)
        layout = self._typesetter.lay_out(text, room.width, room.height, self._size)
        lettering = self._typesetter.set(layout, look.align_h)
        box = _aligned(room, lettering, look)
        ground = place if look.place is not None else _around(box, self._margin, picture)
        return self._compose(lettering, box, ground)

    def _compose(self, lettering: Lettering, box: Box, ground: Box) -> _Patch:
        view = self._view
        picture = view.stored(Box(0, 0, view.cut.width, view.cut.height))
        stored = view.stored(box)
        even = Box(stored.left & ~1, stored.top & ~1, stored.right + 1 & ~1, stored.bottom + 1 & ~1)
        even = even.inside(picture.width, picture.height)
        alpha = self._look.colour.alpha / 255
        cover, letters = (
            _fitted(view.as_stored(part), stored, even) * np.float32(alpha)
            for part in (lettering.cover, lettering.letters)
        )
        across, down = self._form.across, self._form.down
        full, shared = (cover, letters), (_pooled(cover, across, down), _pooled(letters, across, down))
        keep, add = [], []
        for number in range(self._form.planes):
            rim, ink = shared if number else full
            keep.append((1 - rim) * (1 - ink))
            add.append(self._rim[number] * rim * (1 - ink) + self._ink[number] * ink + np.float32(0.5))
        return _Patch(view.stored(ground), even, keep, add)


def _aligned(room: Box, lettering: Lettering, look: TextLook) -> Box:
    height, width = lettering.cover.shape
    left = room.left + {"left": 0, "center": (room.width - width) // 2, "right": room.width - width}[look.align_h]
    top = room.top + {"top": 0, "center": (room.height - height) // 2, "bottom": room.height - height}[look.align_v]
    return Box(left, top, left + width, top + height)


def _around(box: Box, margin: int, picture: Box) -> Box:
    wider = Box(box.left - margin, box.top - margin // 2, box.right + margin, box.bottom + margin // 2)
    return wider.inside(picture.width, picture.height)


def _fitted(alpha: npt.NDArray[np.uint8], box: Box, into: Box) -> npt.NDArray[np.float32]:
    """What of the pixels at `box` lies in `into`, on the pixels of that one."""
    fitted = np.zeros((into.height, into.width), np.float32)
    left, top = max(box.left, into.left), max(box.top, into.top)
    right, bottom = min(box.right, into.right), min(box.bottom, into.bottom)
    if left < right and top < bottom:
        fitted[top - into.top : bottom - into.top, left - into.left : right - into.left] = alpha[
            top - box.top : bottom - box.top, left - box.left : right - box.left
        ]
    return fitted


def _pooled(alpha: npt.NDArray[np.float32], across: int, down: int) -> npt.NDArray[np.float32]:
    """The mean for the pixels that share a number."""
    height, width = alpha.shape
    if height % down or width % across:
        alpha = np.pad(alpha, ((0, -height % down), (0, -width % across)), mode="edge")
    pooled = np.zeros((alpha.shape[0] // down, alpha.shape[1] // across), np.float32)
    for row in range(down):
        for column in range(across):
            pooled += alpha[row::down, column::across]
    pooled /= across * down
    return pooled


def _part(plane: Plane, box: Box, across: int, down: int) -> Plane:
    """A plane's numbers for the pixels of a box."""
    return plane[box.top // down : -(-box.bottom // down), box.left // across : -(-box.right // across)]


def _shades(colour: Colour, numbers: tuple[int, int, int], depth: int) -> list[Plane] | None:
    """What each number of a plane becomes under the ground of a text; None where that is clear."""
    if not colour.alpha:
        return None
    values = np.arange(1 << depth)
    return [
        np.rint(values * (1 - colour.alpha) + number * colour.alpha).astype(np.uint8 if depth == 8 else np.uint16)
        for number in numbers
    ]
