"""The settings of a stream that say what its tracks are to be: codecs, qualities, which frames, how fast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from vx.jobs import Coding, Container, Quality
from vx.rpc.generated.axxonsoft.bl.mmexport import EAudioCodec, EFrameFrequency, EQuality, EVideoCodec
from vx.rpc.refusing import Settings, invalid, one_of, unsupported

_QUALITIES: Mapping[int, Quality] = {
    EQuality.C_BEST_QUALITY: "best",
    EQuality.C_FINE_QUALITY: "fine",
    EQuality.C_GOOD_QUALITY: "good",
    EQuality.C_NORMAL: "normal",
    EQuality.C_MEDIUM: "medium",
    EQuality.C_SMALL_SIZE: "small",
    EQuality.C_TINY_SIZE: "tiny",
    EQuality.C_BEST_SIZE: "smallest",
}
_VIDEO_CODECS: Mapping[int, Literal["", "h264", "mpeg4", "mjpeg"]] = {
    EVideoCodec.VC_DEFAULT: "",
    EVideoCodec.VC_MJPEG: "mjpeg",
    EVideoCodec.VC_MPEG4: "mpeg4",
    EVideoCodec.VC_H264: "h264",
}
_AUDIO_CODECS: Mapping[int, Literal["", "g711", "mp2"]] = {
    EAudioCodec.AC_DEFAULT: "",
    EAudioCodec.AC_G711: "g711",
    EAudioCodec.AC_MP2: "mp2",
}
_FREQUENCIES: Mapping[int, int] = {
    EFrameFrequency.FF_ORIGINAL: 1,
    EFrameFrequency.FF_HALF: 2,
    EFrameFrequency.FF_QUARTER: 4,
    EFrameFrequency.FF_OCTANT: 8,
}
_FPS = (0.001, 240.0)
_SPEED = (0.1, 10_000.0)


def parse_coding(settings: Settings, container: Container, threads: int) -> Coding:
    """What the settings (name → path and value) ask for. VxError of the kinds INVALID and UNSUPPORTED."""
    audio = one_of(settings, "audio_codec", _AUDIO_CODECS, EAudioCodec, "")
    if audio == "g711" and container != "avi":
        path = settings["audio_codec"][0]
        text = f"{container.upper()} has no place for AC_G711 here; AVI has, or ask for AC_MP2 or AC_DEFAULT"
        unsupported(path, text)
    key_fps, speed = _time_lapse(settings)
    return Coding(
        video=one_of(settings, "video_codec", _VIDEO_CODECS, EVideoCodec, ""),
        video_quality=one_of(settings, "video_quality", _QUALITIES, EQuality, "normal"),
        audio=audio,
        audio_quality=one_of(settings, "audio_quality", _QUALITIES, EQuality, "normal"),
        every=one_of(settings, "frame_frequency", _FREQUENCIES, EFrameFrequency, 1),
        key_fps=key_fps,
        speed=speed,
        threads=threads,
    )


def _time_lapse(settings: Settings) -> tuple[float, float]:
    """(key frames a second, 0 for all frames; times faster, 0 where that follows from the key frames)."""
    if "time_lapse" not in settings:
        return 0, 1
    path, lapse = settings["time_lapse"]
    if not lapse.fps and not lapse.speed:
        invalid(path, "has neither fps nor speed")
    fps = _within(lapse.fps, _FPS, f"{path}.fps", "key frames a second") if lapse.fps else 0
    speed = _within(lapse.speed, _SPEED, f"{path}.speed", "times faster") if lapse.speed else 0
    return fps, speed


def _within(value: float, bounds: tuple[float, float], path: str, what: str) -> float:
    low, high = bounds
    if not math.isfinite(value) or not low <= value <= high * (1 + 1e-6):
        invalid(path, f"is {value:g}; {low:g} to {high:g} {what} are allowed, or 0 to leave it open")
    return float(f"{value:.6g}")  # what was meant by a number that came in 32 bits
