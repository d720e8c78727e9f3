"""Video files out: one `ResultFile` for each file under way, MP4 or Matroska (and AVI, see `files.avi`).

MP4 is written in fragments, so that a worker that is killed leaves a readable file, and turned into a flat file when it
is closed (`hybrid_fragmented`). `delay_moov` matters: without it libavformat writes no edit list, and the tracks of a
file whose sound begins later than its picture, or that has B-frames, drift apart.

libav crashes when it is used after a failure, so after the first error a file is never written to nor closed again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.container

from vx.errors import VxError
from vx.jobs import Container
from vx.media.files import results
from vx.media.files.cuestream import CueStream
from vx.media.files.results import Target
from vx.media.packets.messages import Track
from vx.media.packets.plan import Overhead, is_one_step
from vx.media.packets.recording import time_base

_FORMATS = {"mp4": "mp4", "mkv": "matroska", "avi": "avi"}
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
    "avi": {"flush_packets": "1"},
}
_LIVE_RUN_US = 500_000
"""Of a live file: of what was seen more than a second ago nothing may be only in memory."""
_LIVE_OPTIONS = {
    "mp4": {"frag_duration": str(_LIVE_RUN_US)},
    "mkv": {"cluster_time_limit": str(_LIVE_RUN_US // 1000)},
    "avi": {},
}
_LIVE_PATIENCE_US = 200_000
"""How long packets of one track wait for earlier ones of another, which may have stalled."""
_OVERHEADS = {
    # MP4: tables of the fragments while it is written, and the flat ones in the end
    "mp4": Overhead(fixed=6 << 10, packet=64, group=320, group_us=_FRAGMENT_US),
    # Matroska: block headers, and for each key frame a cluster and a cue
    "mkv": Overhead(fixed=6 << 10, packet=24, group=80, group_us=_CLUSTER_US),
    "avi": Overhead(fixed=16 << 10, packet=34, group=34, group_us=40_000),
}


class _Usual(NamedTuple):
    fixed: int
    track: int
    packet: int
    times_described: int
    """How often the file has the decoders' configurations."""


_USUAL = {
    # between a file that was written, whose fragments leave their tables, and one that is served from recordings
    "mp4": _Usual(fixed=1500, track=700, packet=14, times_described=2),
    "mkv": _Usual(fixed=900, track=350, packet=9, times_described=1),
    "avi": _Usual(fixed=1500, track=4250, packet=24, times_described=0),
}
"""Measured, with files of 1 to 30 seconds."""

DEFAULT_RATE = Fraction(25)
"""Of pictures in AVI where the recording doesn't say."""
_LARGEST_SOUND = 384_000
"""Bits a second."""
_TRACK_BYTES = 1 << 10
"""What a further track's description takes."""
_ZIP_BYTES = 1 << 10
"""What an encrypted ZIP file adds: its headers, and twice the name of the file in it."""
_CUE_BYTES = 160
"""What the tables say of a subtitle, and of the runs of other tracks that it parts."""

_failed: list[av.container.OutputContainer] = []
"""Files that an error hit: PyAV would write their trailer when they are collected, over what is readable. The worker
ends with os._exit."""


class _Held:
    """The last picture of a track of MP4, which is written once it is known how long it lasts.

    Where a fragment ends libavformat takes from a packet's duration when the next one is to be decoded, and puts it
    there, whatever its own time is. And it forgets up to when pictures are shown that were written before.
    """

    def __init__(self) -> None:
        self._packet: Any = None
        self._times = (0, 0, 0)
        """Its pts, dts and duration: whoever else has the packet may change them."""
        self._shown_until = 0

    def instead_of(self, packet: Any) -> Any:
        """The one that is to be written as this one comes; None: there is none."""
        pts, dts, duration = packet.pts, packet.dts, packet.duration
        held = self._timed(dts - self._times[1])
        self._packet, self._times = packet, (pts, dts, duration)
        self._shown_until = max(self._shown_until, pts + duration)
        return held

    def last(self) -> Any:
        """The one behind which there is no other; None: there is none."""
        return self._timed(self._shown_until - self._times[0])

    def _timed(self, lasts: int) -> Any:
        """The picture, which lasts so long at least."""
        if self._packet is not None:
            self._packet.pts, self._packet.dts, duration = self._times
            self._packet.duration = max(duration, lasts)
        return self._packet


def supports(container: Container, track: Track) -> bool:
    """Whether the container can hold the track as it is."""
    with av.open("/dev/null", "w", format=_FORMATS[container]) as probe:
        try:
            probe.add_stream_from_template(track.template, opaque=True)
        except ValueError:
            return False
    return True


class RefusedError(VxError):
    """libav refuses a track or a packet for what is in it: the recording's fault, not the disk's."""


class ResultFile:
    """A file under way. Write packets in decoding order, then `close` it.

    After a VxError nothing more can be done with it; with `failed` set what was written is left as it is at its target,
    for `salvage` to look at.
    """

    failed = False

    def __init__(
        self,
        target: Target,
        container: Container,
        tracks: Sequence[tuple[Track, str]],
        metadata: Mapping[str, str],
        *,
        subtitles: str = "",
        live: bool = False,
    ) -> None:
        """Opens the file and fixes its tracks, each with its title, and that of its subtitles if it has any. VxError
        where it can't be created.

        RefusedError where the fault is a track's; nothing is left of the file then. `live`: what is written reaches
        the disk within a second.
        """
        self.target = target
        self._container = container
        every, pause_s = (1, 0.0) if live else (results.SYNC_BYTES, results.SYNC_S)
        self._syncing = results.Syncing(Path(target.path), every, pause_s)
        options = dict(_OPTIONS[container])
        if live:
            options |= _LIVE_OPTIONS[container] | {"max_interleave_delta": str(_LIVE_PATIENCE_US)}
        try:
            self._output = av.open(target.path, "w", format=_FORMATS[container], container_options=options)
            try:
                self._streams = [self._add(track, title) for track, title in tracks]
                self._cues = None if not subtitles else CueStream(self._output, container, subtitles, live=live)
                self._output.metadata.update(metadata)
                self._output.start_encoding()
            except Exception:
                _failed.append(self._output)
                raise
        except (av.FFmpegError, OSError, ValueError) as error:
            told = _told(target.part.name, error)
            if isinstance(told, RefusedError):
                target.discard()
            raise told from error
        holding = container == "mp4" and not live
        self._held = {i: _Held() for i, stream in enumerate(self._streams) if holding and stream.type == "video"}
        """Of each track of pictures."""
        self.bases = [time_base(stream) for stream in self._streams]
        """Each track's ticks."""
        self._fractions = [base.seconds for base in self.bases]

    def _add(self, track: Track, title: str) -> Any:
        stream: Any = self._output.add_stream_from_template(track.template, opaque=True)
        if track.extradata or stream.type == "audio":
            stream.codec_context.extradata = track.extradata or None
        stream.metadata["title"] = title
        stream.metadata["handler_name"] = title  # what players of MP4 show
        return stream

    def bridges(self, gap_us: int, video: Track, *, limited: bool) -> bool:
        """Whether what comes `gap_us` after the end of what it holds can be written to it. `limited`: in its size."""
        return self._container != "mp4" or is_one_step(gap_us, self.bases)

    def write(self, track: int, packet: Any, pts: int, dts: int, duration: int | None) -> None:
        """Write a packet to a track, by its number, with these times in the track's ticks.

        `duration` None: the packet's own ticks are the track's, and its duration stays.
        """
        packet.pts = pts
        packet.dts = dts
        if duration is not None:
            packet.duration = duration
            packet.time_base = self._fractions[track]
        packet.stream = self._streams[track]
        if track in self._held:
            packet = self._held[track].instead_of(packet)
            if packet is None:
                return
        try:  # not by way of `_mux`: it is done for every packet
            self._output.mux_one(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._fail(error) from error

    def show_text(self, at_us: int, until_us: int, text: str) -> None:
        """From this time of the file on the subtitles show a text, up to another time unless something else comes."""
        assert self._cues is not None, "the file was opened with a title for its subtitles"
        for packet in self._cues.show(at_us, until_us, text):
            self._mux(packet)

    def end_text(self, at_us: int) -> None:
        """From this time of the file on the subtitles show nothing."""
        assert self._cues is not None, "the file was opened with a title for its subtitles"
        for packet in self._cues.end(at_us):
            self._mux(packet)

    def _mux(self, packet: Any) -> None:
        try:
            self._output.mux_one(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._fail(error) from error

    @property
    def size(self) -> int:
        """Bytes that it had on the disk at the last `sync_some`."""
        return self._syncing.size

    def sync_some(self) -> None:
        """Have what was written brought to the disk by and by. VxError where it refuses."""
        try:
            self._syncing.go_on()
        except OSError as error:
            raise self._fail(error) from error
        if self._syncing.error is not None:
            raise self._fail(self._syncing.error) from self._syncing.error

    def close(self) -> int:
        """Finalise it under its final name; returns its size. VxError where the disk refuses."""
        try:
            for held in self._held.values():
                if (last := held.last()) is not None:
                    self._output.mux_one(last)
            self._output.close()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._fail(error) from error
        if self._syncing.error is not None:
            raise self._fail(self._syncing.error) from self._syncing.error
        try:
            return self.target.complete()
        except VxError:
            self.failed = True
            raise

    def _fail(self, error: Exception) -> VxError:
        self.failed = True
        _failed.append(self._output)
        return _told(self.target.part.name, error)


def _told(name: str, error: Exception) -> VxError:
    told = results.write_error(name, error)
    return told if isinstance(error, OSError) else RefusedError(told.kind, str(told))


def overhead(
    container: Container,
    tracks: Sequence[tuple[Track, str]],
    metadata: Mapping[str, str],
    *,
    longest_cue: int = 0,
    locked: bool = False,
    live: bool = False,
) -> Overhead:
    """The most that the container adds. `longest_cue`: bytes of a subtitle's text; 0: there are none. `locked`: it goes
    into a ZIP file.
    """
    worst = _OVERHEADS[container]
    if container == "avi":
        worst = _avi_overhead(worst, tracks)
    elif live:
        worst = dataclasses.replace(worst, group_us=_LIVE_RUN_US)
    fixed = sum(len(key) + 4 * len(value) for key, value in metadata.items())
    fixed += sum(2 * len(track.extradata) + 4 * len(title) + _TRACK_BYTES for track, title in tracks[2:])
    fixed += sum(2 * len(track.extradata) + 4 * len(title) for track, title in tracks[:2])
    # a key frame of any picture begins a run, in which every track has a header
    fixed += (_TRACK_BYTES if longest_cue else 0) + (_ZIP_BYTES if locked else 0)
    return dataclasses.replace(
        worst,
        fixed=worst.fixed + 2 * fixed,
        group=worst.group * max(1, (len(tracks) + 1) // 2),
        second=longest_cue + _CUE_BYTES if longest_cue else 0,
    )


def usual_overhead(container: Container, tracks: Sequence[Track], packets: int) -> int:
    """Bytes that a container adds as a rule, of a file with so many packets of picture and sound."""
    usual = _USUAL[container]
    described = sum(usual.track + usual.times_described * len(track.extradata) for track in tracks)
    return usual.fixed + described + packets * usual.packet


def _avi_overhead(worst: Overhead, tracks: Sequence[tuple[Track, str]]) -> Overhead:
    """For each picture a header and entries in two indexes, also where there is none; sound too may be filled up."""
    rate = tracks[0][0].rate or DEFAULT_RATE
    silence = 0
    for track, _ in tracks[1:]:
        context: Any = track.template.codec_context
        silence += (context.bit_rate or _LARGEST_SOUND) // 8
    return dataclasses.replace(worst, group=worst.group + int(silence / rate) + 1, group_us=int(1_000_000 / rate))
