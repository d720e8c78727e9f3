"""Frames on their way into a snapshot's files: painted, made a JPEG each, or pages of one PDF document."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageOps

from vx.captions import Caption
from vx.drawing import Page, needs_painting
from vx.jobs import Link, Note, PartFile, Progress, SnapshotJob, Source
from vx.media.files import results
from vx.media.packets.recording import BrokenError
from vx.media.snapshots import jpeg

if TYPE_CHECKING:
    from vx.media.snapshots.report import Report

_LARGEST_EXTERNAL = 100_000_000
"""Pixels of a picture that a client brings along: a few bytes of it can stand for all of the memory."""


class Shots:
    """The results of a snapshot, recorded or live. `take` each source's frame as it is found, then `close`."""

    def __init__(self, job: SnapshotJob, link: Link) -> None:
        self._job = job
        self._link = link
        self._report: Report | None = None
        """The document under way."""
        self._pages: list[tuple[str, int]] = []
        """Its pages: the camera's name, and when it was taken."""

    def take(self, number: int, frame: VideoFrame, taken_us: int) -> None:
        """The frame of a source, by its number, that was taken at a wall time. VxError where the disk refuses."""
        source = self._job.sources[number]
        warn = self._warning(number)
        if needs_painting(source.drawing):
            from vx.media.painting.overlay import Painter  # and with it Pillow's fonts: 2 MB of a worker

            frame = Painter(source.drawing, Caption.of(self._job.words, [source]), warn)(frame, taken_us)
        data = jpeg.encode(jpeg.Shot(jpeg.picture(frame), source, taken_us), self._job.words, warn)
        if self._job.page is not None:
            self._report = self._report or self._begin(self._job.page, source)
            self._report.add(data, source, taken_us)
            self._pages.append((source.name, taken_us))
            if self._job.discrete:
                self.close()
        else:
            self._write(results.plan_file(self._job.folder, source.name, "jpg", taken_us), data, taken_us)
        self._link.send(Progress(last_frame_us=taken_us, source=number))

    def close(self) -> None:
        """There are no more: write the document, if there is one. VxError where the disk refuses."""
        if self._report is not None:
            names = ", ".join(dict.fromkeys(name for name, _ in self._pages))
            times_us = [taken_us for _, taken_us in self._pages]
            part = results.plan_file(self._job.folder, names, "pdf", min(times_us))
            self._write(part, self._report.finish(), max(times_us))
            self._report, self._pages = None, []

    def _begin(self, page: Page, source: Source) -> Report:
        """The document whose first page is the source's."""
        from vx.media.snapshots.report import Report  # and with it reportlab, which clips and JPEGs don't need

        sources = (source,) if self._job.discrete else self._job.sources
        return Report(page, self._job.words, sources, self._warning(None))

    def _write(self, part: PartFile, data: bytes, last_us: int) -> None:
        results.write(self._job.folder, part, data)
        self._link.send(part.done(len(data), last_us))

    def _warning(self, number: int | None) -> Callable[[str], None]:
        def warn(text: str) -> None:
            camera = "" if number is None else f"{self._job.sources[number].name}: "
            self._link.send(Note(level="warning", text=f"{camera}{text}", source=number))

        return warn


def decode_external(data: bytes) -> VideoFrame:
    """The picture that a client brought along, without anything else that is in its file. BrokenError."""
    try:
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as image:
            too_large = image.width * image.height > _LARGEST_EXTERNAL
            upright = image if too_large else ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # noqa: BLE001 - bad bytes make Pillow raise anything
        raise BrokenError(f"the picture that came with the request can't be read: {error}") from None
    if too_large:
        raise BrokenError(f"the picture that came with the request is too large: {upright.width} x {upright.height}")
    rgb: Any = VideoFrame.from_image(upright)  # type: ignore[no-untyped-call]
    frame: VideoFrame = rgb.reformat(
        format="yuv444p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.JPEG
    )
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.JPEG
    return frame
