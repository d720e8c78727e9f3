"""Players, and what each of them makes of a clip of numbered footage: the numbers of the pictures, in their order."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.material import judge, numbers, read_numbers
from tools.make_recordings import SAMPLE_RATE
from tools.soaks import chromium

_PATIENCE_S = 120
_NOBODY = 65534
_SOUND_MAY_LACK_S = 0.1
_PLACES = 5


class PlayError(Exception):
    """A player failed, or showed something else; the text says what."""


class NoDecoderError(Exception):
    """A player can't show that codec at all, whatever file it is in."""


@dataclass(frozen=True)
class Clip:
    """A clip, and what is to be seen and heard in it."""

    path: Path
    codec: str
    """As MIME types name it."""
    size: tuple[int, int]
    expected: list[list[int]]
    """The numbers of the pictures of each track."""
    times: list[float]
    """When those of the first track are shown, in seconds of the file."""
    sound_s: float
    """How much sound the first track of sound has; 0: there is none."""
    texts: list[str]
    """The subtitles."""


def ffmpeg(clip: Clip) -> str:
    for number, expected in enumerate(clip.expected):
        _compare(numbers(clip.path, track=number), expected, f"track {number}")
    return _told(clip)


def gstreamer(clip: Clip) -> str:
    for number, expected in enumerate(clip.expected):
        raw = _run(
            f"gst-launch-1.0 -q filesrc location={clip.path} ! qtdemux name=d d.video_{number} ! queue ! decodebin ! "
            "videoconvert ! video/x-raw,format=GRAY8 ! fdsink sync=false"
        )
        _compare(read_numbers(raw, clip.size), expected, f"track {number}")
    if clip.sound_s:
        raw = _run(
            f"gst-launch-1.0 -q filesrc location={clip.path} ! qtdemux name=d d.audio_0 ! queue ! decodebin ! "
            "audioconvert ! audio/x-raw,format=S16LE,channels=1 ! fdsink sync=false"
        )
        _compare_sound(raw, clip)
    if clip.texts:
        raw = _run(
            f"gst-launch-1.0 -q filesrc location={clip.path} ! qtdemux name=d d.subtitle_0 ! queue ! fdsink sync=false"
        )
        if raw.decode() != "".join(clip.texts):
            raise PlayError(f"it reads {raw.decode()!r} in the subtitles")
    return _told(clip)


def mpv(clip: Clip) -> str:
    plain = "mpv --no-config --really-quiet --no-sub --o=-"
    for number, expected in enumerate(clip.expected):
        raw = _run(f"{plain} --vid={number + 1} --no-audio --ovc=rawvideo --of=rawvideo --vf=format=gray {clip.path}")
        _compare(read_numbers(raw, clip.size), expected, f"track {number}")
    if clip.sound_s:
        raw = _run(f"{plain} --no-video --oac=pcm_s16le --of=s16le {clip.path}")
        _compare_sound(raw, clip)
    return _told(clip)


def vlc(clip: Clip) -> str:
    """Of several tracks it shows the first one. It refuses to be run by root."""
    plain = "cvlc --quiet --intf dummy --no-sout-all --no-sout-spu"
    # at its own rate, which is an average, it would leave out pictures for a clip with a gap
    raw = _run(
        f"{plain} --no-sout-audio --sout #transcode{{vcodec=I420,fps=1000,acodec=none,scodec=none}}"
        f":std{{access=file,mux=dummy,dst=-}} {clip.path} vlc://quit",
        by_nobody=True,
    )
    width, height = clip.size
    _compare(read_numbers(raw, (width, height * 3 // 2)), clip.expected[0], "track 0")
    if clip.sound_s:
        raw = _run(
            f"{plain} --no-sout-video --sout #transcode{{acodec=s16l,channels=1,vcodec=none,scodec=none}}"
            f":std{{access=file,mux=dummy,dst=-}} {clip.path} vlc://quit",
            by_nobody=True,
        )
        _compare_sound(raw, clip)
    return _told(clip, tracks=1)


def in_chromium(clip: Clip) -> str:
    """Of several tracks it shows the first one."""
    times, expected = clip.times, clip.expected[0]
    indexes = sorted({round(i * (len(times) - 1) / (_PLACES - 1)) for i in range(_PLACES)})
    gap = max(range(len(times) - 1), key=lambda i: times[i + 1] - times[i])
    lasting = [b - a for a, b in itertools.pairwise(times)] + [0.04]
    indexes[len(indexes) // 2] = gap  # the longest pause: what stands there
    places = [times[i] + lasting[i] / 2 for i in indexes]
    found = chromium.look(clip.path, clip.codec, places)
    if found.cannot:
        raise NoDecoderError
    if found.error:
        raise PlayError(found.error)
    _compare(list(found.seen), [expected[i] for i in indexes], "where it was sent to")
    if found.played != len(expected):
        raise PlayError(f"it played {found.played} pictures of {len(expected)}")
    if clip.sound_s and not found.sound:
        raise PlayError("it heard nothing")
    return f"{found.played}, {len(places)} places"


def mkvmerge(clip: Clip) -> str:
    """It plays nothing: ffmpeg looks at what it makes of the clip. It knows no timed text."""
    with tempfile.TemporaryDirectory(prefix="vx-soak-") as folder:
        made = Path(folder, "clip.mkv")
        _run(f"mkvmerge --quiet --output {made} {clip.path}")
        for number, expected in enumerate(clip.expected):
            _compare(numbers(made, track=number), expected, f"track {number}")
        found = judge(made).frames if len(clip.expected) == 1 else clip.times
        if any(abs(a - b) > 0.0011 for a, b in zip(found, clip.times, strict=True)):
            raise PlayError("its times are others")
    return _told(clip)


Player = Callable[[Clip], str]
"""Has a player go through a clip; returns what it saw, in short. PlayError, NoDecoderError."""
PLAYERS: dict[str, Player] = {
    "ffmpeg": ffmpeg,
    "GStreamer": gstreamer,
    "mpv": mpv,
    "VLC": vlc,
    "Chromium": in_chromium,
    "mkvmerge": mkvmerge,
}


def sound_s(path: Path) -> float:
    """Seconds of sound that ffmpeg decodes of a file's first track of it."""
    return _seconds(_run(f"ffmpeg -v error -i {path} -map 0:a:0 -f s16le -ac 1 -ar {SAMPLE_RATE} -"))


def texts(path: Path) -> list[str]:
    """What ffmpeg reads in a file's subtitle track."""
    cues = _run(f"ffmpeg -v error -i {path} -map 0:s:0 -f srt -").decode().split("\n\n")
    return [text for cue in cues for text in cue.splitlines()[2:]]


def _run(command: str, *, by_nobody: bool = False) -> bytes:
    """What a command writes to stdout. PlayError if it fails."""
    with tempfile.TemporaryDirectory(prefix="vx-home-") as home:
        user = _NOBODY if by_nobody and os.geteuid() == 0 else None
        if user is not None:
            os.chown(home, user, user)
        try:
            done = subprocess.run(  # noqa: S603
                command.split(),
                capture_output=True,
                check=False,
                timeout=_PATIENCE_S,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                env=os.environ | {"HOME": home, "XDG_RUNTIME_DIR": home},
            )
        except subprocess.TimeoutExpired:
            raise PlayError(f"it did not end within {_PATIENCE_S} s") from None
    if done.returncode:
        raise PlayError(
            f"it ended with {done.returncode}: {(done.stderr or done.stdout)[-300:].decode(errors='replace')}"
        )
    return done.stdout


def _compare(found: list[int], expected: list[int], what: str) -> None:
    if found != expected:
        lacking = [number for number in expected if number not in found]
        raise PlayError(f"{what}: {len(found)} pictures instead of {len(expected)}, without {lacking[:5]}")


def _compare_sound(raw: bytes, clip: Clip) -> None:
    if _seconds(raw) < clip.sound_s - _SOUND_MAY_LACK_S:
        raise PlayError(f"{_seconds(raw):.2f} s of sound instead of {clip.sound_s:.2f} s")


def _seconds(raw: bytes) -> float:
    return len(raw) / 2 / SAMPLE_RATE


def _told(clip: Clip, tracks: int | None = None) -> str:
    return " + ".join(str(len(expected)) for expected in clip.expected[:tracks])
