"""Whether a track is copied or encoded, why, and how: tables and decisions, without any I/O.

What can be copied is copied: it is the recording itself, and costs next to nothing. A track is encoded only where the
client asked for something that the recording isn't (another codec, another quality, fewer frames), or where the
container can't hold it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from vx.jobs import Coding, Container, Quality

PRESETS = {"libx264": "veryfast", "libx265": "superfast"}
GOP_S = 2
"""How often an encoder sets a key frame; a player can seek there, and a file be split."""
FASTEST_SOUND, SLOWEST_SOUND = 2.0, 0.5
"""Up to which speed of a time lapse its sound is kept; faster than that nobody understands it."""
LAPSE_FPS = 60
"""A time lapse shows at most this many frames a second, or as many as the recording does."""
MOST_THREADS = 4

QUALITIES: dict[Quality, tuple[int, int, int, int, int, int]] = {
    # H.264 CRF, H.265 CRF, MPEG-4 quantiser, MJPEG quantiser; kbit/s for each channel of MP2, of AAC and others
    "best": (17, 20, 2, 2, 192, 128),
    "fine": (20, 23, 3, 3, 160, 112),
    "good": (22, 25, 4, 4, 128, 96),
    "medium": (24, 27, 5, 5, 96, 64),
    "small": (27, 30, 8, 8, 64, 48),
    "tiny": (30, 33, 12, 12, 48, 32),
    "smallest": (34, 37, 20, 18, 32, 24),
}
_H264, _H265, _MPEG4, _MJPEG, _MP2, _AAC = range(6)

_PICTURES: dict[Container, frozenset[str]] = {
    "mp4": frozenset({"h264", "hevc", "mpeg4", "mjpeg", "av1", "vp9", "mpeg1video", "mpeg2video"}),
    "mkv": frozenset({"h264", "hevc", "mpeg4", "mjpeg", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "theora"}),
    "avi": frozenset({"h264", "mpeg4", "mjpeg"}),
}
_SOUNDS: dict[Container, frozenset[str]] = {
    "mp4": frozenset({"aac", "mp2", "mp3", "opus", "ac3", "eac3", "flac", "alac"}),
    "mkv": frozenset(
        {"aac", "mp2", "mp3", "opus", "vorbis", "ac3", "eac3", "dts", "flac", "alac", "wavpack", "pcm_s16le"}
    ),
    # sound in AVI has no times: only what can be filled up with silence keeps step with the picture
    "avi": frozenset({"mp2", "pcm_alaw", "pcm_mulaw", "pcm_s16le"}),
}
"""What a container holds, by libav's names. Neither MP4 nor, as far as libavformat writes it here, Matroska has a
place for G.711."""

_ENCODERS = {"h264": "libx264", "hevc": "libx265", "mpeg4": "mpeg4", "mjpeg": "mjpeg"}
_SOUND_ENCODERS = {
    "aac": "aac",
    "mp2": "mp2",
    "mp3": "libmp3lame",
    "opus": "libopus",
    "pcm_alaw": "pcm_alaw",
    "pcm_mulaw": "pcm_mulaw",
    "pcm_s16le": "pcm_s16le",
}
_G711 = ("pcm_alaw", "pcm_mulaw")
_DEFAULT_SOUND: dict[Container, str] = {"mp4": "aac", "mkv": "aac", "avi": "mp2"}


@dataclass(frozen=True)
class Picture:
    """A video track, as far as the decision depends on it. Names are libav's."""

    codec: str
    width: int
    height: int
    pix_fmt: str
    rotated: bool = False
    reorders: bool = False
    """Pictures are stored in another order than they are shown (B-frames)."""


@dataclass(frozen=True)
class Sound:
    """A sound track. `rate` in Hz."""

    codec: str
    rate: int
    channels: int


@dataclass(frozen=True)
class Copy:
    """Leave the track as it is."""


@dataclass(frozen=True)
class LeaveOut:
    """The track isn't there in the result."""

    why: str


@dataclass(frozen=True)
class EncodePicture:
    """Encode the picture."""

    why: str
    codec: str
    encoder: str
    pix_fmt: str
    width: int
    height: int
    """Of the encoded picture as it is stored; even where the codec wants that: what is over is cut off."""
    full_range: bool | None
    """None: as in the source."""
    turn: bool = False
    """Turn the pixels, because the container has no place to say that a player should."""
    options: tuple[tuple[str, str], ...] = ()
    quantiser: int | None = None
    """For encoders that take a fixed one."""


@dataclass(frozen=True)
class EncodeSound:
    """Encode the sound."""

    why: str
    codec: str
    encoder: str
    rate: int
    channels: int
    bit_rate: int
    """Bits a second; 0: the codec has only one."""
    tempo: float = 1.0
    """How many times faster it is played."""


PictureChoice = Copy | EncodePicture
SoundChoice = Copy | LeaveOut | EncodeSound


def choose_picture(coding: Coding, container: Container, source: Picture) -> PictureChoice:
    """What to do with the picture."""
    why = _why_encode_picture(coding, container, source)
    if why is None:
        return Copy()
    return encode_picture(coding, container, source, why)


def _why_encode_picture(coding: Coding, container: Container, source: Picture) -> str | None:
    if coding.every > 1:
        return f"one frame of {coding.every} is kept"
    if coding.speed != 1 and not coding.key_fps:
        return "the time lapse leaves frames out"
    if coding.video and coding.video != source.codec:
        return f"{coding.video} is wanted, and recorded is {source.codec}"
    if coding.video_quality != "normal":
        return "a quality is wanted"
    if source.codec not in _PICTURES[container]:
        return f"{container} can't hold {source.codec}"
    if source.rotated and container == "avi":
        return "avi can't say that the picture is to be turned"
    if source.reorders and coding.key_fps and container == "avi":
        return "avi has no times for a recording with B-frames"
    return None


def encode_picture(coding: Coding, container: Container, source: Picture, why: str) -> EncodePicture:
    """How to encode a picture, given that it must be."""
    codec = coding.video or source.codec
    if codec not in _ENCODERS or codec not in _PICTURES[container]:
        codec = "h264"
    encoder = _ENCODERS[codec]
    row = _row(coding.video_quality)
    turn = source.rotated and container == "avi"
    width, height = source.width, source.height
    pix_fmt, full_range, quantiser = "yuv420p", None, None
    options: dict[str, str] = {}
    if codec in ("h264", "hevc"):
        width, height = width & ~1, height & ~1
        options["preset"] = PRESETS[encoder]
        options["crf"] = str(row[_H264 if codec == "h264" else _H265])
        if codec == "hevc":
            options["x265-params"] = "log-level=none"
            if "10" in source.pix_fmt:
                pix_fmt = "yuv420p10le"
        if container == "avi":
            options["bf"] = "0"  # it has no times for pictures that are stored in another order than shown
    elif codec == "mpeg4":
        full_range, quantiser = False, row[_MPEG4]  # its streams have no place to say otherwise
    else:
        full_range, quantiser = True, row[_MJPEG]
        pix_fmt = "yuvj422p" if "422" in source.pix_fmt else "yuvj420p"
    return EncodePicture(
        why=why,
        codec=codec,
        encoder=encoder,
        pix_fmt=pix_fmt,
        width=width,
        height=height,
        full_range=full_range,
        turn=turn,
        options=tuple(options.items()),
        quantiser=quantiser,
    )


def choose_sound(coding: Coding, container: Container, source: Sound) -> SoundChoice:
    """What to do with the sound."""
    if coding.speed == 0:
        return LeaveOut("key frames that follow each other have none")
    if not SLOWEST_SOUND <= coding.speed <= FASTEST_SOUND:
        return LeaveOut(f"at {coding.speed:g} times the speed there is no sound")
    holds = _SOUNDS[container]
    why = _why_encode_sound(coding, container, source)
    if why is None:
        return Copy()
    if coding.audio == "g711":
        codec = source.codec if source.codec in _G711 else "pcm_alaw"
    elif coding.audio:
        codec = coding.audio
    elif source.codec in holds and source.codec in _SOUND_ENCODERS:
        codec = source.codec
    elif source.codec in _G711 and "pcm_s16le" in holds and coding.audio_quality == "normal":
        codec = "pcm_s16le"  # the same samples, unpacked: nothing is lost
    else:
        codec = _DEFAULT_SOUND[container]
    return _sound_recipe(codec, coding, source, why)


def _why_encode_sound(coding: Coding, container: Container, source: Sound) -> str | None:
    if coding.speed != 1:
        return "its tempo changes"
    if coding.audio == "g711" and source.codec not in _G711:
        return f"G.711 is wanted, and recorded is {source.codec}"
    if coding.audio == "mp2" and source.codec != "mp2":
        return f"MP2 is wanted, and recorded is {source.codec}"
    if coding.audio_quality != "normal" and source.codec not in _G711:
        return "a quality is wanted"
    if source.codec not in _SOUNDS[container]:
        return f"{container} can't hold {source.codec}"
    return None


def _sound_recipe(codec: str, coding: Coding, source: Sound, why: str) -> EncodeSound:
    channels = min(source.channels, 2)
    rate = source.rate
    row = _row(coding.audio_quality)
    bit_rate = 0
    if codec in _G711:
        rate, channels = 8000, 1
    elif codec in _RATES:
        rate = _rate(rate, _RATES[codec])
    if codec == "mp2":
        bit_rate = _mp2_bit_rate(row[_MP2] * channels, rate, channels)
    elif not codec.startswith("pcm_"):
        bit_rate = min(row[_AAC] * 1000 * channels, 5 * rate * channels)  # AAC takes up to 6 bits a sample
    return EncodeSound(
        why=why,
        codec=codec,
        encoder=_SOUND_ENCODERS[codec],
        rate=rate,
        channels=channels,
        bit_rate=bit_rate,
        tempo=coding.speed,
    )


def _row(quality: Quality) -> tuple[int, int, int, int, int, int]:
    return QUALITIES["medium" if quality == "normal" else quality]


_MPEG_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
_RATES: Mapping[str, tuple[int, ...]] = {
    "mp2": _MPEG_RATES,
    "mp3": _MPEG_RATES,
    "opus": (48000,),
    "aac": (*_MPEG_RATES, 64000, 88200, 96000),  # below that a packet lasts too long to be cut
}
_MP2_MPEG1 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_MP2_MPEG2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP2_LOWEST_STEREO = 64


def _rate(rate: int, allowed: tuple[int, ...]) -> int:
    return next((each for each in allowed if each >= rate), allowed[-1])


def _mp2_bit_rate(wanted: int, rate: int, channels: int) -> int:
    """The largest that MP2 has up to `wanted` kbit/s; in bits a second."""
    table = _MP2_MPEG1 if rate >= 32000 else _MP2_MPEG2
    lowest = _MP2_LOWEST_STEREO if channels == 2 and rate >= 32000 else 0
    highest = 192 if channels == 1 else 384
    allowed = [each for each in table if lowest <= each <= highest]
    return 1000 * max((each for each in allowed if each <= wanted), default=allowed[0])


# ---- which frames


@dataclass
class Every:
    """Keeps one of `count` frames, counted from the first."""

    count: int
    _seen: int = 0

    def keeps(self, _at_us: int) -> bool:
        """Whether the next frame stays."""
        keep = self._seen % self.count == 0
        self._seen += 1
        return keep


@dataclass
class AtRate:
    """Keeps at most one frame in each `interval_us`; one that comes a little early counts as in time."""

    interval_us: float
    _due_us: float | None = None

    def keeps(self, at_us: int) -> bool:
        """Whether the frame of this time stays."""
        due = self._due_us
        early = self.interval_us / 10
        if due is not None and due - self.interval_us - early <= at_us < due - early:
            return False
        # in step with the one before, unless there was a hole (or the clock was set back)
        in_step = due is not None and due - early <= at_us < due + self.interval_us
        self._due_us = (due if in_step and due is not None else at_us) + self.interval_us
        return True


def key_picker(coding: Coding) -> AtRate | None:
    """Which key frames a time lapse of key frames shows (an interval of 0: all); None: it isn't one."""
    return AtRate(1_000_000 * coding.speed / coding.key_fps) if coding.key_fps else None


def frame_picker(coding: Coding, rate: Fraction | None) -> Every | None:
    """Which decoded frames are shown, of a recording of `rate` frames a second; None: all."""
    if coding.every > 1:
        return Every(coding.every)
    if coding.speed > 1 and not coding.key_fps:
        return Every(_lapse_every(coding, rate))
    return None


def _lapse_every(coding: Coding, rate: Fraction | None) -> int:
    """One of how many frames a time lapse shows."""
    rate = rate or Fraction(LAPSE_FPS)
    return max(1, math.ceil(rate * _speed(coding) / max(rate, Fraction(LAPSE_FPS))))


def _speed(coding: Coding) -> Fraction:
    return Fraction(coding.speed).limit_denominator(1000)


def shown_rate(coding: Coding, rate: Fraction | None) -> Fraction | None:
    """How many frames a second the result shows where none is missing; None: nobody knows."""
    if coding.key_fps:
        return Fraction(coding.key_fps).limit_denominator(1001) / coding.every
    if rate is None:
        return None
    every = coding.every if coding.every > 1 else _lapse_every(coding, rate)
    return rate * _speed(coding) / every
