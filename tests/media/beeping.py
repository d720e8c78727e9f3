"""Footage whose picture flashes when it beeps, 0.4 s after each full second; and how far apart they are in a clip."""

from __future__ import annotations

import functools
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from tools import make_recordings
from tools.make_recordings import Form

RATE = 48_000


@functools.cache
def beeps(seconds: int, fps: int = 25, b_frames: int = 0) -> bytes:
    """Footage of so many seconds, whole pictures black or white."""
    form = Form(width=256, height=80, fps=Fraction(fps), gop=fps, audio=True, b_frames=b_frames)
    begin, end = fps * 2 // 5, fps * 2 // 5 + max(1, fps // 12)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(make_recordings, "_tone", _beeping)
        return make_recordings.encode(
            form, seconds * fps, lambda n: np.full((80, 256), 235 if begin <= n % fps < end else 16, np.uint8)
        )


def _beeping(start: int, stream: Any) -> av.AudioFrame:
    """A beep of a tenth of a second, in place of make_recordings' tone."""
    count = stream.frame_size or 1024
    at = np.arange(start, start + count)
    samples = np.where((at - 19_200) % RATE < 4_800, 0.5 * np.sin(2 * np.pi * 1000 * at / RATE), 0)
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[np.newaxis], "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
    return frame


def beeps_behind_flashes(path: Path) -> list[float]:
    """For each flash in a file, by how many seconds its beep begins later, by ffmpeg's judgement.

    A beep is looked for from 0.3 s before its flash on.
    """
    loud = np.flatnonzero(np.abs(samples(path, rate := 8_000)) > 0.2)
    behind = []
    for flash in _flashes(path):
        onset = loud[np.searchsorted(loud, max(0, int((flash - 0.3) * rate)))]
        behind.append(float(onset) / rate - flash)
    return behind


def samples(path: Path, rate: int = RATE) -> npt.NDArray[np.float32]:
    """The sound on the file's clock, mono, with silence where there is none."""
    filters = f"aresample={rate}:async=1:min_hard_comp=0.005:first_pts=0"
    return np.frombuffer(_run(path, f"ffmpeg -v error -i @ -map 0:a -af {filters} -ac 1 -f f32le -"), np.float32)


def _flashes(path: Path) -> list[float]:
    """When the picture turns white."""
    shown = "-select_streams v -show_entries frame=best_effort_timestamp_time -of csv=p=0"
    lines = _run(path, f"ffprobe -v error {shown} @").decode().split()
    times = [float(line.strip(",").replace("N/A", "nan")) for line in lines]
    grey = "-fps_mode passthrough -vf scale=1:1,format=gray -f rawvideo -"
    levels = [0, *_run(path, f"ffmpeg -v error -i @ -map 0:v {grey}")]
    return [time for i, time in enumerate(times) if levels[i] < 128 < levels[i + 1]]


def _run(path: Path, command: str) -> bytes:
    words = [str(path) if word == "@" else word for word in command.split()]
    return subprocess.run(words, capture_output=True, check=True).stdout
