"""A snapshot of live cameras: of each the next frame that can be decoded by itself, as soon as it comes."""

from __future__ import annotations

import time
from typing import Any

import av
from av.video.frame import VideoFrame

from vx.jobs import Ended, Link, Note, SnapshotJob, SourceEnded
from vx.media.live.reading import LiveReader
from vx.media.live.times import WallClock
from vx.media.packets.messages import Begin, detached
from vx.media.snapshots.shots import Shots

_ROUND_S = 0.02


def export_live_snapshots(job: SnapshotJob, link: Link) -> Ended:
    """A picture of each camera, all of them at once, or one document. Where one fails, the others are still written.

    VxError where the disk refuses.
    """
    assert job.live is not None, "the job is a live one"
    clock = WallClock()
    looks = [_Look(job, number, clock, link) for number in range(len(job.sources))]
    until_s = time.monotonic() + job.live.first_frame_timeout_s
    waiting = list(looks)
    shots = Shots(job, link)
    try:
        while waiting and not link.stopping.is_set() and time.monotonic() < until_s:
            link.stopping.wait(_ROUND_S)
            for look in list(waiting):
                found = look.find()
                if found is not None:
                    waiting.remove(look)
                    frame, shown_us = found
                    shots.take(look.number, frame, shown_us)
                    link.send(SourceEnded(source=look.number, error=""))
    finally:
        for look in looks:
            look.reader.abandon()
    shots.close()
    stopped = "stopped before it was done" if link.stopping.is_set() else ""
    reasons = []
    for look in waiting:
        reason = stopped or look.reader.failure
        link.send(SourceEnded(source=look.number, error=reason))
        reasons.append(f"{look.source.name}: {reason}")
    return Ended(succeeded=not reasons, reason="; ".join(reasons))


class _Look:
    """At one camera."""

    def __init__(self, job: SnapshotJob, number: int, clock: WallClock, link: Link) -> None:
        assert job.live is not None, "the job is a live one"
        self.source = job.sources[number]
        self.number = number
        self._link = link
        self.reader = LiveReader(self.source, job.live, clock, sound=False, note=self._warn)
        self._messages = iter(self.reader)
        self._segment: Begin | None = None
        self._stream: Any = None
        self.reader.start()

    def find(self) -> tuple[VideoFrame, int] | None:
        """The first frame of what has come, and its wall time; None: there is none yet. Never waits."""
        for message in self._messages:
            if isinstance(message, Begin):
                self._segment, self._stream = message, detached(message.video.template)
                continue
            if not message.packets:
                return None
            for packet in message.packets:
                frame = self._decode(packet)
                if frame is not None:
                    assert self._segment is not None
                    return frame, self._segment.origin_us + self._segment.video.time_base.us(packet.pts)
        return None

    def _decode(self, packet: Any) -> VideoFrame | None:
        assert self._segment is not None, "packets come after a Begin"
        if packet.stream_index != self._segment.video_index or not packet.is_keyframe:
            return None
        decoder = self._stream.codec_context
        try:
            frames = [*decoder.decode(packet), *decoder.decode(None)]  # now, and not when the next one comes
            decoder.flush_buffers()
        except (av.FFmpegError, ValueError):
            return None  # the next key frame may be whole
        return next((frame for frame in frames if not frame.is_corrupt), None)

    def _warn(self, text: str) -> None:
        self._link.send(Note(level="warning", text=f"{self.source.name}: {text}", source=self.number))
