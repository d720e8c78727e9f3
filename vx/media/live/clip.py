"""A clip of live cameras: the same writer as for recordings (`clips.clip`), which comes round ten times a second.

A camera that has nothing to give holds nobody up. Only the first file waits for cameras that are still connecting, for
`_JOIN_S` at most; one that comes later begins a new file, in which all of them are. Where another file has to begin,
the other cameras first finish their groups of pictures in the old one, as they come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from vx import disk
from vx.errors import Kind, VxError
from vx.jobs import ClipJob, Ended, Link
from vx.media.clips.clip import Clip, Lane
from vx.media.clips.feeding import Chunk
from vx.media.live.reading import LiveReader
from vx.media.live.times import WallClock
from vx.media.packets.messages import Begin

_ROUND_S = 0.1
_JOIN_S = 3.0
_RETRY_S = 1.0
"""How long one is waited for that couldn't be connected to at first."""
_GROUP_S = 10.0
"""How long another file waits for another camera's next key frame."""
_SILENCE_S = 1.0
"""From a camera that is silent for so long none is expected."""


def export_live_clip(job: ClipJob, link: Link) -> Ended:
    """Export until the duration is over or StopSession comes. VxError where it can't be written.

    It has failed if of a camera nothing came at all; what the others gave is written all the same.
    """
    clock = WallClock()
    lanes = [_LiveLane(job, number, link, clock) for number in range(len(job.sources))]
    apart = job.discrete or job.container == "avi"
    clips = [_LiveClip(job, group, link) for group in ([[lane] for lane in lanes] if apart else [lanes])]
    failure: VxError | None = None
    for clip in clips:
        clip.start()
    running = clips
    while running:
        link.stopping.wait(_ROUND_S)
        going_on = []
        for clip in running:
            try:
                if clip.go_on():
                    going_on.append(clip)
            except VxError as error:
                failure = failure or error
        running = going_on
    if failure is not None:
        raise failure
    files = sum(clip.files for clip in clips)
    if not files and link.stopping.is_set():
        return Ended(succeeded=False, reason="stopped before anything was written")
    failed = [f"{lane.source.name}: {lane.reader.failure}" for lane in lanes if lane.reader.first_us is None]
    return Ended(succeeded=not failed, reason="; ".join(failed))


class _LiveLane(Lane):
    """One camera of the clip."""

    reader: LiveReader

    def __init__(self, job: ClipJob, number: int, link: Link, clock: WallClock) -> None:
        self._clock = clock
        super().__init__(job, number, link)

    def _open(self, job: ClipJob) -> LiveReader:
        assert job.live is not None, "the job is a live one"
        return LiveReader(self.source, job.live, self._clock, sound=not job.reject_audio, note=self.warn)

    def is_awaited(self, since_s: float) -> bool:
        """Whether the first file waits for it, which began to connect so long ago."""
        return self.reader.first_us is None and since_s < (_RETRY_S if self.reader.trouble else _JOIN_S)

    def tell_gap(self, recorded_until_us: int, segment: Begin | None) -> None:
        """Tell of what wasn't seen between the last frame and this segment."""
        if segment is not None and recorded_until_us:
            super().tell_gap(recorded_until_us, segment)


class _LiveClip(Clip):
    """The writer's side of a clip of some cameras."""

    _lanes: list[_LiveLane]

    def __init__(self, job: ClipJob, lanes: list[_LiveLane], link: Link) -> None:
        super().__init__(job, lanes, link)
        assert job.live is not None
        self._live = job.live
        self._recorded_until_us = [0 for _ in lanes]
        self._has_begun = False
        self._last: list[Begin | None] = [None for _ in lanes]
        """The segment that each camera gave last."""
        self._begin_s = time.monotonic()

    @property
    def files(self) -> int:
        """How many were made."""
        return self._files

    def start(self) -> None:
        """Begin to connect."""
        for lane in self._lanes:
            self._link.call_on_stop(lane.reader.abandon)
            lane.reader.start()

    def go_on(self) -> bool:
        """Write what has come; False once all is done. VxError as `Clip.run`."""
        try:
            if not self._has_begun and not self._begin() and not self._has_failed():
                return True
            if self._has_begun and self._has_all():
                self._write_ready()
                self._look_at_disk()
            if self._has_begun and not all(lane.feed.ended for lane in self._lanes):
                return True
            self._finish_file()
        except VxError as error:
            self._keep_what_is_readable()
            self._let_go(str(error))
            raise
        self._let_go()
        return False

    def _look_at_disk(self) -> None:
        """VxError(EXHAUSTED) once the disk has no more room than has to stay free."""
        if disk.free(self._job.folder) < self._live.min_free:
            text = f"the disk for results has less than {self._live.min_free >> 20} MiB free; the clip ends there"
            raise VxError(Kind.EXHAUSTED, text)

    def _begin(self) -> bool:
        """Whether the first file can begin; it lasts for the duration from the first key frame on."""
        waited_s = time.monotonic() - self._begin_s
        known = [lane.reader.first_us for lane in self._lanes if lane.reader.first_us is not None]
        if not known:
            return False
        is_over = self._link.stopping.is_set() or waited_s >= self._live.first_frame_timeout_s
        if any(lane.is_awaited(waited_s) for lane in self._lanes) and not is_over:
            return False
        begin_us = min(known)
        end_us = begin_us + self._live.duration_us if self._live.duration_us else 2**62
        for lane in self._lanes:
            lane.reader.wanted_us = (begin_us, end_us)
        self._has_begun = True
        return True

    def _has_all(self) -> bool:
        """Whether all cameras that are there have something for the first file, or have had time enough."""
        if self._file is None and not self._files and time.monotonic() - self._begin_s < _JOIN_S:
            heads = [lane.feed.peek() for lane in self._lanes if lane.reader.first_us is not None]
            return None not in heads or self._link.stopping.is_set()
        return True

    def _has_failed(self) -> bool:
        """Whether there is nothing to wait for any more before the first key frame."""
        if any(lane.reader.first_us is not None for lane in self._lanes):
            return False
        return self._link.stopping.is_set() or time.monotonic() - self._begin_s >= self._live.first_frame_timeout_s

    def _let_go(self, error: str = "") -> None:
        self._tell_ends(error)
        for lane in self._lanes:
            lane.reader.abandon()

    def _nothing(self, lane: Lane) -> str:
        stopped = "stopped before anything was written" if self._link.stopping.is_set() else ""
        assert isinstance(lane, _LiveLane)
        return lane.reader.trouble or stopped or lane.reader.failure

    def _take(self, number: int, chunk: Chunk) -> None:
        self._last[number] = chunk.runs[-1][0]
        super()._take(number, chunk)

    def _absent(self, number: int) -> Begin | None:
        return self._last[number]

    def _rest_of_group(self, lane: Lane) -> Iterator[Chunk]:
        begin_s = heard_s = time.monotonic()
        while True:
            for chunk in lane.feed.rest_of_group():
                heard_s = time.monotonic()
                yield chunk
            now_s = time.monotonic()
            is_silent = now_s - heard_s > _SILENCE_S or now_s - begin_s > _GROUP_S
            if lane.feed.peek() is not None or lane.feed.ended or is_silent:
                return
            self._link.stopping.wait(_ROUND_S)
