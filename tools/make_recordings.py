#!/usr/bin/env python3
"""Makes recordings as a recorder would have left them: `make_recordings.py DIR` for the demo, functions for the tests.

Footage is encoded once into memory (`encode`), then cut at its key frames into segments whose names carry their start
(`cut`), with PyAV alone.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Picture = Callable[[int], npt.NDArray[np.uint8]]
"""The n-th frame, RGB (height x width x 3) or grey (height x width)."""

SAMPLE_RATE = 48_000
TONE_HZ = 440
MEDIAMTX = "%Y-%m-%d_%H-%M-%S-%f.mp4"

FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    "mp4": ("mp4", {}),
    "fmp4": ("mp4", {"movflags": "frag_keyframe+delay_moov+default_base_moof"}),
    "faststart": ("mp4", {"movflags": "faststart"}),
    "mkv": ("matroska", {}),
    "ts": ("mpegts", {}),
}
"""Segment containers: libavformat's name and its options."""


@dataclass(frozen=True)
class Form:
    """What footage is like."""

    width: int = 320
    height: int = 192
    fps: Fraction = Fraction(25)
    gop: int = 25
    b_frames: int = 0
    audio: bool = False
    codec: str = "libx264"
    audio_codec: str = "aac"
    pixels: str = "yuv420p"
    drops: int = 0
    """One frame of so many is missing, as where a camera lowers its rate; 0: none is."""
    rotation: int = 0
    """Degrees, counter-clockwise, by which players turn the picture."""
    options: tuple[tuple[str, str], ...] = ()

    def has(self, number: int) -> bool:
        """Whether there is a frame of this number."""
        return not self.drops or number % self.drops != self.drops - 1


@dataclass(frozen=True)
class Piece:
    """A segment to cut: the GOPs whose key frames are shown in begin_us <= t < end_us of the footage."""

    begin_us: int
    end_us: int


def encode(form: Form, frames: int, picture: Picture) -> bytes:
    """Footage of `frames` frames as a Matroska file in memory; frame n is shown at n / fps."""
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as output:
        rate = form.fps
        options = {"bf": str(form.b_frames), "sc_threshold": "0", **dict(form.options)}
        options.setdefault("preset", "veryfast" if form.b_frames else "ultrafast")
        video: Any = output.add_stream(
            form.codec, rate=rate, options=options if "264" in form.codec else dict(form.options)
        )
        video.width, video.height, video.pix_fmt = form.width, form.height, form.pixels
        if form.codec == "mjpeg":
            video.pix_fmt = "yuvj420p"
        video.codec_context.gop_size = form.gop
        video.codec_context.max_b_frames = form.b_frames
        if form.rotation:
            video.set_display_rotation(form.rotation)
        audio: Any = None
        if form.audio:
            audio = output.add_stream(form.audio_codec, rate=SAMPLE_RATE)
            audio.layout = "mono"
        heard = 0
        for number in range(frames):
            if not form.has(number):
                continue
            pixels = picture(number)
            frame = av.VideoFrame.from_ndarray(pixels, "gray" if pixels.ndim == 2 else "rgb24")
            frame = frame.reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = number, 1 / rate
            output.mux(video.encode(frame))
            while audio is not None and heard < (number + 1) / rate * SAMPLE_RATE:
                output.mux(audio.encode(_tone(heard, audio)))
                heard += audio.frame_size or 1024
        output.mux(video.encode())
        if audio is not None:
            output.mux(audio.encode())
    return target.getvalue()


def _tone(start: int, stream: Any) -> av.AudioFrame:
    count = stream.frame_size or 1024
    samples = 0.2 * np.sin(2 * math.pi * TONE_HZ / SAMPLE_RATE * np.arange(start, start + count))
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[np.newaxis], "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
    if stream.format.name != "fltp":
        (frame,) = av.AudioResampler(stream.format.name, "mono", SAMPLE_RATE).resample(frame)
    return frame


def segment_path(pattern: str, start_us: int, timezone: str = "UTC") -> Path:
    """The name that a recorder gives to a segment that begins at `start_us`."""
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start_us)).astimezone(ZoneInfo(timezone))
    return Path(moment.strftime(pattern.replace("%s", str(start_us // 1_000_000))))


def cut(
    footage: bytes | str | Path,
    pattern: str,
    start_us: int,
    pieces: Sequence[Piece],
    *,
    kind: str = "mp4",
    timezone: str = "UTC",
) -> list[Path]:
    """Write each piece as a segment named by `pattern`; the footage's time 0 is at `start_us`. Returns their paths."""
    paths: list[Path] = []
    for piece in pieces:
        source: Any = io.BytesIO(footage) if isinstance(footage, bytes) else str(footage)
        with av.open(source, "r") as container:
            group = list(_packets(container, piece))
            if not group:
                continue
            base = container.streams.video[0].time_base
            first = min(p.pts for p in group if p.stream.type == "video")
            path = segment_path(pattern, start_us + round(first * base * 1_000_000), timezone)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, kind, container, group, first * base)
            paths.append(path)
    return paths


def _packets(container: Any, piece: Piece) -> Iterator[Any]:
    """The piece's pictures by whole GOPs, and the sound between its first picture and the next piece's."""
    video = container.streams.video[0]
    taking = False
    begin = end = None
    sound = []
    for packet in container.demux():
        if not packet.size:
            continue
        if packet.stream is not video:
            if packet.stream.type == "audio":
                sound.append(packet)
            continue
        at_us = round(packet.pts * packet.time_base * 1_000_000)
        if packet.is_keyframe:
            taking = piece.begin_us <= at_us < piece.end_us
            if taking and begin is None:
                begin = packet.pts * packet.time_base
            elif not taking and begin is not None and end is None:
                end = packet.pts * packet.time_base
        if taking:
            yield packet
    for packet in sound:
        at = packet.pts * packet.time_base
        if begin is not None and begin <= at and (end is None or at < end):
            yield packet


def _write(path: Path, kind: str, container: Any, group: list[Any], begin: Fraction) -> None:
    name, options = FORMATS[kind]
    missing = min((p.dts for p in group if p.stream.type == "video" and p.dts is not None), default=0)
    with av.open(str(path), "w", format=name, options=options) as output:
        streams = {
            stream.index: output.add_stream_from_template(stream, opaque=True)
            for stream in container.streams
            if stream.type in ("video", "audio")
        }
        pictures = [p for p in group if p.stream.type == "video"]
        step = max(1, round(1 / (pictures[0].stream.average_rate * pictures[0].time_base)))
        unknown = [p for p in pictures if p.dts is None]
        for i, packet in enumerate(unknown):  # Matroska leaves out the first ones
            packet.dts = missing - step * (len(unknown) - i)
        for packet in sorted(group, key=lambda p: p.dts * p.time_base):
            ticks = round(begin / packet.time_base)
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
            packet.stream = streams[packet.stream_index]
            output.mux(packet)


def moving_picture(form: Form, title: str, start_us: int, hue: int) -> Picture:
    """A test picture in which something moves, with the camera's name and the time to the millisecond."""
    height, width = form.height, form.width
    font: Any = ImageFont.load_default(size=height // 12)
    y, x = np.mgrid[0:height, 0:width]
    ground = np.empty((height, width, 3), np.uint8)
    ground[..., 0] = 40 + 100 * x / width
    ground[..., 1] = 60 + 90 * y / height
    ground[..., 2] = hue
    for step, colour in enumerate(((235, 235, 235), (235, 235, 16), (16, 235, 235), (16, 235, 16), (235, 16, 16))):
        ground[: height // 6, width * step // 5 : width * (step + 1) // 5] = colour

    def picture(number: int) -> npt.NDArray[np.uint8]:
        image = Image.fromarray(ground)
        draw = ImageDraw.Draw(image)
        at = number / float(form.fps)
        radius = height // 10
        centre_x = width / 2 + (width / 2 - radius) * math.sin(at * 0.9)
        centre_y = height * 0.55 + height * 0.25 * math.cos(at * 1.7)
        draw.ellipse((centre_x - radius, centre_y - radius, centre_x + radius, centre_y + radius), fill=(250, 120, 20))
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start_us, seconds=at)
        text = f"{title}  {moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"
        box = draw.textbbox((width // 40, height - height // 8), text, font=font)
        draw.rectangle((box[0] - 6, box[1] - 4, box[2] + 6, box[3] + 4), fill=(0, 0, 0))
        draw.text((width // 40, height - height // 8), text, font=font, fill=(255, 255, 255))
        return np.asarray(image)

    return picture


def make(folder: Path, end_us: int) -> dict[str, Any]:
    """Two cameras' recordings below `folder`, the last of which ends at `end_us`; the second has a gap.

    Returns what there is: for each camera the pattern, the files and the recorded stretches.
    """
    form = Form(width=640, height=360, gop=50, audio=True, options=(("crf", "30"),))
    seconds, long = 24, 6
    start_us = end_us - seconds * 1_000_000
    starts = [second * 1_000_000 for second in range(0, seconds, long)]
    cameras = []
    for number, (name, title, missing) in enumerate((("entrance", "Entrance", None), ("yard", "Yard", 2))):
        pieces = [Piece(s, s + long * 1_000_000) for i, s in enumerate(starts) if i != missing]
        footage = encode(form, seconds * int(form.fps), moving_picture(form, title, start_us, 90 + 90 * number))
        pattern = folder / name / MEDIAMTX
        paths = cut(footage, str(pattern), start_us, pieces, kind="fmp4")
        cameras.append(
            {
                "name": title,
                "pattern": str(pattern),
                "timezone": "UTC",
                "files": [str(path) for path in paths],
                "recorded_us": [[start_us + p.begin_us, start_us + p.end_us] for p in pieces],
            }
        )
    return {"start_us": start_us, "end_us": end_us, "cameras": cameras}


def main() -> None:
    """Make the demo's recordings, say as JSON what was made."""
    parser = argparse.ArgumentParser(description="Make recordings of two cameras, with a gap in one of them.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where they go: DIR/entrance and DIR/yard")
    parser.add_argument("--ago", type=int, default=180, metavar="SECONDS", help="how long ago they end (default 180)")
    arguments = parser.parse_args()
    end_us = (int(time.time()) - arguments.ago) * 1_000_000
    json.dump(make(arguments.folder.absolute(), end_us), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
