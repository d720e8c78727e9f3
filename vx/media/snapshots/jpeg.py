"""A frame as a viewer sees it, and as a JPEG that says when and where it was taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from PIL import Image
from PIL.ExifTags import IFD, Base

from vx.captions import format_time
from vx.drawing import Words
from vx.jobs import Source
from vx.media.painting import colours

QUALITY = 93
LONGEST_COMMENT = 65_000
_LONGEST_EXIF_COMMENT = 60_000
"""Bytes; the EXIF of a JPEG is one segment of 64 KiB at most."""


@dataclass(frozen=True)
class Shot:
    """A picture of a camera, and the wall time at which it was taken."""

    image: Image.Image
    source: Source
    taken_us: int


def picture(frame: VideoFrame) -> Image.Image:
    """The frame as it is meant to be seen: by its own colour matrix and range, upright, in full resolution."""
    planes = frame.reformat(
        format="gbrp",  # packed pixels take swscale five times as long, and are no others
        src_colorspace=colours.matrix(frame),
        src_color_range=ColorRange.JPEG if colours.is_full_range(frame) else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
        threads=1,  # to start others takes longer than they save
    )
    size = (planes.width, planes.height)
    # not by way of numpy, which would copy each plane once more
    buffers: list[Any] = [memoryview(plane) for plane in planes.planes]  # Pillow takes them; its types say bytes
    green, blue, red = (
        Image.frombuffer("L", size, buffer, "raw", "L", plane.line_size, 1)
        for buffer, plane in zip(buffers, planes.planes, strict=True)
    )
    image = Image.merge("RGB", (red, green, blue))
    turned = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    turn = turned.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)


def encode(shot: Shot, words: Words, warn: Callable[[str], None]) -> bytes:
    """The JPEG, with EXIF and the comment. `warn` is told of a comment that has to be cut."""
    comment = words.comment.encode()
    if len(comment) > LONGEST_COMMENT:
        warn(f"the comment is cut after {LONGEST_COMMENT} bytes")
        comment = _cut(comment, LONGEST_COMMENT)
    file = BytesIO()
    shot.image.save(file, "JPEG", quality=QUALITY, exif=_exif(shot, words), comment=comment)
    return file.getvalue()


def _cut(text: bytes, size: int) -> bytes:
    return text[:size].decode(errors="ignore").encode()


def _exif(shot: Shot, words: Words) -> Image.Exif:
    """Local time with its offset. No preview: that would be a second picture, without what is drawn into this one."""

    def local(time_format: str) -> str:
        return format_time(shot.taken_us, time_format, words.offset_min)

    exif = Image.Exif()
    exif[Base.ImageDescription] = shot.source.name.encode()  # bytes: EXIF text is ASCII to Pillow, readers take UTF-8
    exif[Base.Software] = "vx"
    exif[Base.DateTime] = local("%Y:%m:%d %H:%M:%S")
    taken = exif.get_ifd(IFD.Exif)
    taken[Base.DateTimeOriginal] = local("%Y:%m:%d %H:%M:%S")
    taken[Base.SubsecTimeOriginal] = f"{shot.taken_us % 1_000_000:06}"
    taken[Base.OffsetTime] = taken[Base.OffsetTimeOriginal] = local("%z")
    if words.comment:
        comment = words.comment.encode("utf-16-be", "replace")[:_LONGEST_EXIF_COMMENT]
        taken[Base.UserComment] = b"UNICODE\0" + comment
    return exif
