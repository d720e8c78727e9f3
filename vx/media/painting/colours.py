"""The colours of frames: which matrix and range a frame's numbers are in, and what a colour is in them."""

from __future__ import annotations

from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from vx.drawing import Colour

# AVColorSpace to the matrices that swscale knows
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
_HD_HEIGHT = 720
_RED_AND_BLUE = {
    # what red and blue weigh in the luma: ITU-T H.273, table 4
    Colorspace.ITU709: (0.2126, 0.0722),
    Colorspace.FCC: (0.30, 0.11),
    Colorspace.ITU601: (0.299, 0.114),
    Colorspace.SMPTE240M: (0.212, 0.087),
    Colorspace.BT2020: (0.2627, 0.0593),
}


def matrix(frame: VideoFrame) -> Colorspace:
    """The frame's matrix; what players assume where the stream doesn't say."""
    found = _MATRICES.get(frame.colorspace)
    return found or (Colorspace.ITU709 if frame.height >= _HD_HEIGHT else Colorspace.ITU601)


def is_full_range(frame: VideoFrame) -> bool:
    """Whether its numbers use all bits, not only those from black to white in television."""
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def numbers(colour: Colour, weights: Colorspace, *, full: bool, depth: int) -> tuple[int, int, int]:
    """A colour as luma and the two chromas, of `depth` bits."""
    red, blue = _RED_AND_BLUE[weights]
    luma = red * colour.red + (1 - red - blue) * colour.green + blue * colour.blue
    chroma_blue, chroma_red = (colour.blue - luma) / (2 - 2 * blue), (colour.red - luma) / (2 - 2 * red)
    scale, top = 1 << (depth - 8), (1 << depth) - 1
    if full:
        values = (luma * top, 128 * scale + chroma_blue * top, 128 * scale + chroma_red * top)
    else:
        values = (
            (16 + 219 * luma) * scale,
            (128 + 224 * chroma_blue) * scale,
            (128 + 224 * chroma_red) * scale,
        )
    first, second, third = (min(max(round(value), 0), top) for value in values)
    return first, second, third
