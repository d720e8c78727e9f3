"""Video files out: one `ResultFile` for each file under way, MP4 or Matroska.

MP4 is written in fragments, so that a worker that is killed leaves a readable file, and turned into a flat file when it
is closed (`hybrid_fragmented`). `delay_moov` matters: without it libavformat writes no edit list, and the tracks of a
file whose sound begins later than its picture, or that has B-frames, drift apart.

libav crashes when it is used after a failure, so after the first error a file is never written to nor closed again.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container

from vx.errors import VxError
from vx.jobs import Container, PartFile
from vx.media import results
from vx.media.plan import Overhead, TimeBase
from vx.media.reading import TimedPacket, Track, time_base

_FORMATS = {"mp4": "mp4", "mkv": "matroska"}
_FRAGMENT_US = 5_000_000
"""A camera may go without a key frame for minutes; a fragment is held in memory until it is complete."""
_CLUSTER_US = 2_000_000

_OPTIONS = {
    "mp4": {
        "movflags": "hybrid_fragmented+frag_keyframe+delay_moov",
        "frag_duration": str(_FRAGMENT_US),
        "flush_packets": "1",  # a fragment is on the disk as soon as it is complete
    },
    "mkv": {"cluster_time_limit": str(_CLUSTER_US // 1000), "flush_packets": "1"},
}
_OVERHEADS = {
    # MP4: tables of the fragments while it is written, and the flat ones in the end
    "mp4": Overhead(fixed=6 << 10, packet=64, group=320, group_us=_FRAGMENT_US),
    # Matroska: block headers, and for each key frame a cluster and a cue
    "mkv": Overhead(fixed=6 << 10, packet=24, group=80, group_us=_CLUSTER_US),
}

_failed: list[av.container.OutputContainer] = []
"""Files that an error hit: PyAV would write their trailer when they are collected, over what is readable. The worker
ends with os._exit."""


def supports(container: Container, track: Track) -> bool:
    """Whether the container can hold the track as it is."""
    with av.open("/dev/null", "w", format=_FORMATS[container]) as probe:
        try:
            probe.add_stream_from_template(track.template, opaque=True)
        except ValueError:
            return False
    return True


class ResultFile:
    """A file under way. Write packets in decoding order, then `close` it.

    After a VxError nothing more can be done with it; with `failed` set its part file is left as it is on the disk, for
    `salvage` to look at.
    """

    failed = False

    def __init__(
        self,
        folder: str,
        part: PartFile,
        container: Container,
        video: Track,
        audio: Track | None,
        metadata: dict[str, str],
        title: str,
    ) -> None:
        """Opens the file and fixes its tracks. VxError where it can't be created."""
        self.part = part
        self._folder = folder
        path = str(Path(folder, part.part_name))
        try:
            self._output = av.open(path, "w", format=_FORMATS[container], container_options=dict(_OPTIONS[container]))
            try:
                self._video = self._output.add_stream_from_template(video.template, opaque=True)
                self._audio = None
                if audio is not None:
                    self._audio = self._output.add_stream_from_template(audio.template, opaque=True)
                    self._audio.codec_context.extradata = audio.extradata or None
                self._video.metadata["title"] = title
                self._output.metadata.update(metadata)
                self._output.start_encoding()
            except Exception:
                _failed.append(self._output)
                raise
        except (av.FFmpegError, OSError, ValueError) as error:
            raise results.write_error(part.name, error) from error
        self.video_base = time_base(self._video)
        self.audio_base = None if self._audio is None else time_base(self._audio)
        self._video_fraction = _fraction(self.video_base)
        self._audio_fraction = None if self.audio_base is None else _fraction(self.audio_base)

    def write_video(self, packet: TimedPacket, pts: int, dts: int, duration: int) -> None:
        """Write a picture with these times, in the video track's ticks."""
        self._write(packet, self._video, self._video_fraction, pts, dts, duration)

    def write_audio(self, packet: TimedPacket, pts: int, duration: int) -> None:
        """Write sound at this time, in the audio track's ticks."""
        self._write(packet, self._audio, self._audio_fraction, pts, pts, duration)

    def _write(self, packet: Any, stream: Any, base: Fraction | None, pts: int, dts: int, duration: int) -> None:
        packet.pts = pts
        packet.dts = dts
        packet.duration = duration
        packet.time_base = base
        packet.stream = stream
        try:
            self._output.mux_one(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._fail(error) from error

    def close(self) -> int:
        """Finalise it under its final name; returns its size. VxError where the disk refuses."""
        try:
            self._output.close()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._fail(error) from error
        return results.complete(self._folder, self.part)

    def _fail(self, error: Exception) -> VxError:
        self.failed = True
        _failed.append(self._output)
        return results.write_error(self.part.name, error)


def overhead(container: Container, video: Track, audio: Track | None, metadata: dict[str, str]) -> Overhead:
    """The most that the container adds."""
    worst = _OVERHEADS[container]
    fixed = sum(len(key) + 4 * len(value) for key, value in metadata.items())
    for track in (video, audio):
        if track is not None:
            fixed += 2 * len(track.extradata)
    return dataclasses.replace(worst, fixed=worst.fixed + 2 * fixed)


def _fraction(base: TimeBase) -> Fraction:
    return Fraction(base.num, base.den)
