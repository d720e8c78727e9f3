"""A snapshot: the very frame that a viewer of the recording would see at a time, as a JPEG or a page of a PDF."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vx.archive.segments import Recordings, Segment
from vx.jobs import Ended, Link, Note, SnapshotJob, Source, SourceEnded
from vx.media.encoding import recipe
from vx.media.files.labels import readable
from vx.media.packets import plan
from vx.media.packets.recording import (
    BrokenError,
    complete_stamps,
    demux,
    frame_ticks,
    open_recording,
    read_head,
    seek_before,
    time_base,
    translate,
    video_stream,
)
from vx.media.snapshots.shots import Shots, decode_external
from vx.timestamps import format_timestamp

_REORDER_WINDOW = 32
"""Packets in decoding order among which all that are shown before a frame are found; H.264 and H.265 reorder by 16."""


def export_snapshots(job: SnapshotJob, link: Link) -> Ended:
    """A JPEG for each source, or one document. Where one fails, the others are still written. VxError where the disk
    refuses.
    """
    reasons: list[str] = []
    shots = Shots(job, link)
    for number, source in enumerate(job.sources):
        error = _export(job, number, shots, link)
        link.send(SourceEnded(source=number, error=error))
        if error:
            reasons.append(f"{source.name}: {error}")
    shots.close()
    return Ended(succeeded=not reasons, reason="; ".join(reasons))


def _export(job: SnapshotJob, number: int, shots: Shots, link: Link) -> str:
    """One source's picture; why there is none, else an empty text. VxError where the disk refuses."""
    if link.stopping.is_set():
        return "stopped before it was done"
    try:
        if job.external is None:
            frame, taken_us = _find_frame(job.sources[number], number, job.at_us, link)
        else:
            frame, taken_us = decode_external(job.external.data), job.external.taken_us
    except BrokenError as error:
        return str(error)
    shots.take(number, frame, taken_us)
    return ""


def _find_frame(source: Source, number: int, at_us: int, link: Link) -> tuple[VideoFrame, int]:
    """The frame and its wall time. BrokenError says why there is none."""
    recordings = Recordings.of(source.pattern, source.timezone)
    tolerance_us = plan.tolerance_us(recordings.pattern.resolution_us)
    nothing = f"nothing was recorded at {format_timestamp(at_us)}"
    warned = ""
    before_us = at_us + 1

    def warn(text: str) -> None:
        nonlocal warned
        warned = warned or text
        link.send(Note(level="warning", text=f"{source.name}: {text}", source=number))

    while True:
        found = recordings.last_before(before_us)
        for note in found.notes:
            warn(note)
        if not found.segments:
            raise BrokenError(readable(nothing, warned))
        (segment,) = found.segments
        try:
            frame, shown_us, until_us = _decode(segment, at_us)
        except Exception as error:  # noqa: BLE001 - bad bytes make libav and PyAV raise anything
            warn(f"{segment.path}: {translate(error)}")
            before_us = segment.start_us  # one that began earlier may reach up to here
            continue
        if at_us < until_us:
            return frame, shown_us
        following = recordings.first_from(segment.start_us + 1, until_us + tolerance_us).segments
        if following and at_us < following[-1].start_us:
            return frame, shown_us  # not a gap: the next recording's name is a little late
        raise BrokenError(f"{readable(nothing, warned)}; the recording before it ends at {format_timestamp(until_us)}")


def _decode(segment: Segment, at_us: int) -> tuple[VideoFrame, int, int]:
    """(frame, its wall time, until when it is shown). Any exception may come out of bad bytes."""
    with open_recording(segment.path) as container:
        video = video_stream(container)
        video.codec_context.thread_type = "AUTO"
        video.codec_context.thread_count = min(recipe.MOST_THREADS, len(os.sched_getaffinity(0)))  # libav adds one
        base = time_base(video)
        head = read_head(demux(container, video), video)
        origin = head.first_shown
        target = origin + base.last_tick_at(at_us - segment.start_us)
        head, rest = seek_before(container, video, origin, target)
        shown = _Shown(target)
        frame = _decode_exactly(video, shown, head.packets, rest)
        until = shown.next_pts if shown.next_pts is not None else shown.pts + shown.duration
        return frame, segment.start_us + base.us(shown.pts - origin), segment.start_us + base.us(until - origin)


@dataclass
class _Shown:
    """Which frame is shown at `target`, as far as the packets seen so far tell."""

    target: int
    pts: int = -(2**62)
    duration: int = 0
    next_pts: int | None = None

    def see(self, packet: Any) -> None:
        if packet.pts <= self.target:
            if packet.pts > self.pts:
                self.pts, self.duration = packet.pts, packet.duration
        elif self.next_pts is None or packet.pts < self.next_pts:
            self.next_pts = packet.pts


def _decode_exactly(
    video: VideoStream, shown: _Shown, head: list[Packet[Any]], rest: Iterator[Packet[Any]]
) -> VideoFrame:
    """Decode up to the frame shown at the target; frames that nothing needs are skipped on the way.

    The packets run ahead of the decoder by more than any codec reorders, so that it is certain which one is wanted
    when its turn comes.
    """
    context = video.codec_context
    best: VideoFrame | None = None

    def keep(frames: list[VideoFrame]) -> None:
        nonlocal best
        for frame in frames:
            if frame.pts is not None and frame.pts <= shown.target and (best is None or frame.pts >= (best.pts or 0)):
                best = frame

    def decode(packet: Packet[Any]) -> bool:
        """Whether it was the one that is shown: none that follows it is needed."""
        is_shown = packet.pts == shown.pts
        context.skip_frame = "DEFAULT" if is_shown else "NONREF"
        keep(context.decode(packet))
        return is_shown

    window: deque[Packet[Any]] = deque()
    for packet in _stamped(video, head, rest):
        shown.see(packet)
        window.append(packet)
        if packet.dts is not None and packet.dts > shown.target:
            break  # all that follow are shown later
        if len(window) > _REORDER_WINDOW and decode(window.popleft()):
            window.clear()
            break
    while window and not decode(window.popleft()):
        pass
    context.skip_frame = "DEFAULT"
    keep(context.decode(None))
    if best is None or best.pts != shown.pts:
        raise BrokenError("the picture can't be decoded")
    return best


def _stamped(video: VideoStream, head: list[Packet[Any]], rest: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
    step = frame_ticks(video)
    last_dts: int | None = None
    started = False
    for packets in (head, rest):
        for packet in packets:
            complete_stamps(packet, last_dts, step)
            last_dts = packet.dts
            started = started or packet.is_keyframe
            if started:
                yield packet
