"""Eight cameras of 1080p25 for the benchmark and the soak of live export: footage that is encoded once, and served."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.media.live.cameras import Camera, write_reel
from tools.benchmarks import build
from tools.benchmarks.harness import note
from tools.make_recordings import Form, encode

CAMERAS = 8
RATE = 25
GOP_S = 2
_FRAMES = 10 * RATE
_LAUNCH = "( appsrc name=video ! h264parse ! rtph264pay name=pay0 pt=96 )"
_FORM = Form(
    width=1920,
    height=1080,
    gop=GOP_S * RATE,
    options=(("x264-params", "bitrate=4000:vbv-maxrate=4000:vbv-bufsize=4000:sliced-threads=0"),),
)


def access_point(number: int) -> str:
    return f"hosts/Server1/DeviceIpint.{number + 1}/SourceEndpoint.video:0:0"


def configuration(addresses: Sequence[str]) -> str:
    """A server's, for cameras with these addresses."""
    cameras = [
        f'\n[[camera]]\naccess_point = "{access_point(number)}"\ndisplay_name = "Camera {number}"\nlive = "{address}"\n'
        for number, address in enumerate(addresses)
    ]
    return 'listen = ["127.0.0.1:0"]\n' + "".join(cameras)


def camera_at(path: str, film: Path, *, shared: bool = False) -> Camera:
    return Camera(path, _LAUNCH, {"video": film}, shared=shared)


@functools.cache
def footage() -> bytes:
    """10 s of 1080p25, about 4 Mbit/s, no two frames of which are alike."""
    path = build.CACHE / "live" / "film.mkv"
    if not path.exists():
        note("Making ten seconds of 1080p …")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(_FORM, _FRAMES, _picture))
    return path.read_bytes()


def reel() -> Path:
    """The same, for the RTSP server."""
    return write_reel(build.CACHE / "live" / "film.reel", footage())


def _picture(number: int) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(number)
    picture = np.full((_FORM.height, _FORM.width), 90 + number % 50, np.uint8)
    left = number * 7 % (_FORM.width - 400)
    picture[300:700, left : left + 400] = noise.integers(0, 255, (400, 400), np.uint8)
    return picture
