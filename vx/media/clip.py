"""A clip: packets of one camera's recordings, copied into one file, or several where one can't hold them."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from vx.archive.pattern import NamePattern
from vx.archive.segments import Recordings
from vx.errors import Kind, VxError
from vx.jobs import ClipJob, Ended, FileDone, FileOpened, Link, Note, Progress, Source
from vx.media import muxing, plan, results, salvage
from vx.media.muxing import ResultFile
from vx.media.plan import Budget, GroupStart, Join, TrackClock
from vx.media.reading import Begin, Packets, Reader, TimedPacket, describe_range
from vx.timestamps import format_timestamp, to_datetime

PROGRESS_INTERVAL_S = 0.25


def export_clip(job: ClipJob, link: Link) -> Ended:
    """Export each source on its own, one after the other. VxError where the results can't be written."""
    files = 0
    for source in job.sources:
        if link.stopping.is_set():
            break
        files += _Copy(job, source, link).run()
    if files:
        return Ended(succeeded=True)
    if link.stopping.is_set():
        return Ended(succeeded=False, reason="stopped before anything was written")
    names = ", ".join(source.name for source in job.sources)
    return Ended(
        succeeded=False, reason=f"{names}: nothing was recorded from {describe_range(job.start_us, job.end_us)}"
    )


_Item = tuple[TimedPacket, Begin]
_Group = list[_Item]
"""Packets that must stay in one file: from a key frame up to the next at which a file may begin."""


class _Copy:
    """The copy of one source: the writer's side. Owns the file under way."""

    def __init__(self, job: ClipJob, source: Source, link: Link) -> None:
        self._job = job
        self._source = source
        self._link = link
        self._file: _File | None = None
        self._groups = _Groups() if job.max_file_size else None
        self._load: _Load | None = None
        self._files = 0
        self._entered: Begin | None = None
        self._left_out: set[object] = set()
        self._recorded_until_us = job.start_us
        self._next_progress = 0.0

    def run(self) -> int:
        """Copy until the end of the range, or until stopped; returns how many files were made."""
        recordings = Recordings(NamePattern.parse(self._source.pattern), ZoneInfo(self._source.timezone))
        reader = Reader(
            recordings, self._job.start_us, self._job.end_us, audio=not self._job.reject_audio, note=self._warn
        )
        self._link.call_on_stop(reader.abandon)
        reader.start()
        segment: Begin | None = None
        try:
            for message in reader:
                if isinstance(message, Begin):
                    segment = self._begin(message, segment)
                elif segment is not None:
                    self._take(message, segment)
                    self._report_progress()
            if self._groups is not None:
                self._write_groups(self._groups.flush())
            self._finish_file()
        except VxError:
            self._keep_what_is_readable()
            raise
        finally:
            reader.abandon()
        if self._files and not self._link.stopping.is_set():
            self._tell_gap(self._job.end_us)
        return self._files

    def _begin(self, segment: Begin, previous: Begin | None) -> Begin:
        audio = segment.audio
        if audio is not None and not muxing.supports(self._job.container, audio):
            if audio.key not in self._left_out:
                self._left_out.add(audio.key)
                codec = audio.template.codec_context.name
                self._warn(f"{segment.name}: {self._job.container} can't hold its sound ({codec}); it is left out")
            segment = dataclasses.replace(segment, audio=None)
        if segment.placement.join is Join.OVERLAP:
            self._warn(f"{segment.name}: it begins before the recording ahead of it ends; a new file begins with it")
        if self._groups is not None and not (previous is not None and _continues(segment, previous)):
            self._write_groups(self._groups.flush())
        return segment

    def _take(self, message: Packets, segment: Begin) -> None:
        video_index = segment.video_index
        if segment.audio is None:
            packets = [packet for packet in message.packets if packet.stream_index == video_index]
        else:
            packets = message.packets
        if self._groups is None:
            for packet in packets:
                self._write(packet, segment, packet.stream_index == video_index)
            return
        for packet in packets:
            self._groups.add(packet, segment)
            self._write_groups(self._groups.complete())
            if self._groups.payload > self._job.max_file_size:  # don't gather in memory what will never fit
                begins_us, payload = self._groups.begins_us, self._groups.payload
                self._write_groups(self._groups.give_up())
                raise self._too_small(begins_us, payload)

    def _write_groups(self, groups: list[_Group]) -> None:
        for group in groups:
            self._load = _Load.of(group)
            if self._file is not None and not self._load.fits(self._file.budget):
                self._finish_file()
            for packet, segment in group:
                self._write(packet, segment, packet.stream_index == segment.video_index)
            if self._file is not None:
                self._file.budget.take(self._load.cost(self._file.budget))

    def _write(self, packet: TimedPacket, segment: Begin, video: bool) -> None:
        if segment is not self._entered:
            self._enter(segment)
        file = self._file
        if file is None:
            if not video or not packet.is_keyframe:
                return  # a file begins with a key frame
            file = self._open(packet, segment)
        if video:
            file.write_video(packet)
        else:
            file.write_audio(packet)

    def _enter(self, segment: Begin) -> None:
        self._entered = segment
        file = self._file
        if file is not None:
            self._recorded_until_us = file.end_us
        self._tell_gap(segment.placement.origin_us)
        if file is None:
            return
        if file.can_go_on_with(segment):
            file.go_on_with(segment)
            return
        if segment.placement.join is not Join.OVERLAP:
            self._warn(f"{segment.name}: its picture or sound is of another form; a new file begins with it")
        self._finish_file()

    def _open(self, key: TimedPacket, segment: Begin) -> _File:
        first_us = segment.origin_us + segment.video.time_base.us(key.pts)
        metadata = {
            "title": self._source.name,
            "comment": self._job.comment,
            "creation_time": to_datetime(first_us).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "software": "vx",
        }
        budget = Budget(
            self._job.max_file_size, muxing.overhead(self._job.container, segment.video, segment.audio, metadata)
        )
        if self._load is not None and not self._load.fits(budget):
            raise self._too_small(first_us, budget.overhead.fixed + self._load.cost(budget))
        if not muxing.supports(self._job.container, segment.video):
            codec = segment.video.template.codec_context.name
            raise VxError(Kind.UNSUPPORTED, f"{segment.name}: {self._job.container} can't hold its video ({codec})")
        part = results.plan_file(self._job.folder, self._source.name, self._job.container, first_us)
        result = ResultFile(
            self._job.folder, part, self._job.container, segment.video, segment.audio, metadata, self._source.name
        )
        self._file = _File(result, segment, key.pts, budget)
        self._link.send(FileOpened(part=part))
        return self._file

    def _finish_file(self) -> None:
        file = self._file
        if file is None:
            return
        self._recorded_until_us = file.end_us
        size = file.result.close()
        self._file = None
        self._files += 1
        part = file.result.part
        self._link.send(Progress(last_frame_us=file.last_us))
        self._link.send(
            FileDone(name=part.name, size=size, mime_type=part.mime_type, first_us=part.first_us, last_us=file.last_us)
        )

    def _keep_what_is_readable(self) -> None:
        """After an error: a file that isn't hurt is finished; of one that is, what reached the disk is kept."""
        file, self._file = self._file, None
        if file is None:
            return
        if file.result.failed:
            salvage.keep(self._job.folder, file.result.part, self._link)
        else:
            self._file = file
            self._finish_file()

    def _report_progress(self) -> None:
        now = time.monotonic()
        if self._file is not None and now >= self._next_progress:
            self._next_progress = now + PROGRESS_INTERVAL_S
            self._link.send(Progress(last_frame_us=self._file.last_us))

    def _tell_gap(self, until_us: int) -> None:
        if until_us - self._recorded_until_us > plan.GAP_WORTH_A_NOTE_US:
            gap = describe_range(self._recorded_until_us, until_us)
            self._link.send(Note(level="info", text=f"{self._source.name}: nothing was recorded from {gap}"))

    def _too_small(self, at_us: int, needed: int) -> VxError:
        return VxError(
            Kind.EXHAUSTED,
            f"max_file_size of {self._job.max_file_size} bytes is too small: the pictures from the key frame at "
            f"{format_timestamp(at_us)} up to the next one need {needed} bytes",
        )

    def _warn(self, text: str) -> None:
        self._link.send(Note(level="warning", text=f"{self._source.name}: {text}"))


def _continues(segment: Begin, previous: Begin) -> bool:
    """Whether both fit into one group of pictures."""
    return (
        segment.placement.join is Join.CONTIGUOUS
        and segment.video.key == previous.video.key
        and (segment.audio is None or (previous.audio is not None and segment.audio.key == previous.audio.key))
    )


class _File:
    """A result file with its clocks: takes packets counted from their segment's origin."""

    def __init__(self, result: ResultFile, segment: Begin, first_pts: int, budget: Budget) -> None:
        self.result = result
        self.budget = budget
        self._first_segment = segment
        self._video_key = segment.video.key
        self._audio_key = None if segment.audio is None else segment.audio.key
        source = segment.video.time_base
        self._video = TrackClock(source, result.video_base, -source.rescale(first_pts, result.video_base))
        self._audio: TrackClock | None = None
        self._audio_offset = 0
        if segment.audio is not None and result.audio_base is not None:
            self._audio_offset = -source.rescale(first_pts, result.audio_base)
            self._audio = TrackClock(segment.audio.time_base, result.audio_base, self._audio_offset)
        self._video_offset = self._video.offset
        self._needs_key = True
        self._leading_before: int | None = None
        self._last_shown = 0
        self._shown_until = 0
        self._heard_until = 0

    @property
    def last_us(self) -> int:
        """The wall time of the last frame shown."""
        return self.result.part.first_us + self.result.video_base.us(self._last_shown)

    @property
    def end_us(self) -> int:
        """The wall time up to which that frame is shown."""
        return self.result.part.first_us + self.result.video_base.us(self._shown_until)

    def can_go_on_with(self, segment: Begin) -> bool:
        """Whether its tracks can hold this segment's."""
        return (
            segment.placement.join is not Join.OVERLAP
            and segment.video.key == self._video_key
            and (segment.audio is None or segment.audio.key == self._audio_key)
        )

    def go_on_with(self, segment: Begin) -> None:
        """The packets of this segment follow."""
        later_us = segment.origin_us - self._first_segment.origin_us
        self._video.move(segment.video.time_base, self._video_offset + self.result.video_base.ticks(later_us))
        if segment.audio is not None and self._audio is not None and self.result.audio_base is not None:
            self._audio.move(segment.audio.time_base, self._audio_offset + self.result.audio_base.ticks(later_us))
        self._needs_key = segment.placement.join is Join.GAP

    def write_video(self, packet: TimedPacket) -> None:
        """Write a picture, unless it can't be decoded because what it is predicted from is missing."""
        if self._needs_key:
            if not packet.is_keyframe:
                return
            self._needs_key = False
            self._leading_before = packet.pts
        elif self._leading_before is not None:
            if packet.pts < self._leading_before:
                return
            self._leading_before = None
        pts, dts = self._video.times(packet.pts, packet.dts)
        duration = self._video.source.rescale(packet.duration, self._video.track)
        self.result.write_video(packet, pts, dts, duration)
        if pts > self._last_shown:
            self._last_shown = pts
        if pts + duration > self._shown_until:
            self._shown_until = pts + duration

    def write_audio(self, packet: TimedPacket) -> None:
        """Write sound, unless it was heard already."""
        clock = self._audio
        if clock is None:
            return
        duration = clock.source.rescale(packet.duration, clock.track)
        pts = plan.audio_pts(clock.source.rescale(packet.pts, clock.track) + clock.offset, duration, self._heard_until)
        if pts is None:
            return
        self.result.write_audio(packet, pts, duration)
        self._heard_until = pts + max(duration, 1)


@dataclass(frozen=True)
class _Load:
    """What a group of pictures weighs."""

    payload: int
    packets: int
    lasts_us: int

    @classmethod
    def of(cls, group: _Group) -> _Load:
        return cls(
            payload=sum(packet.size for packet, _ in group),
            packets=len(group),
            lasts_us=_wall_us(*group[-1]) - _wall_us(*group[0]),
        )

    def cost(self, budget: Budget) -> int:
        return budget.cost(self.payload, self.packets, self.lasts_us)

    def fits(self, budget: Budget) -> bool:
        return budget.fits(self.cost(budget))


class _Groups:
    """Gathers packets into groups of pictures, each with the sound that belongs to it.

    Sound is stored a little behind its picture: what belongs to a group is found among the packets of the next one, so
    a group is given out when the next one is complete.
    """

    def __init__(self) -> None:
        self._starts = GroupStart()
        self._ready: list[_Group] = []
        self._last: _Group | None = None
        self._open: _Group = []
        self._key_at: int | None = None
        self.payload = 0
        """Bytes of the group that is being gathered."""

    def add(self, packet: TimedPacket, segment: Begin) -> None:
        """The next packet of the source."""
        if packet.stream_index == segment.video_index:
            wall = segment.video.time_base.us(packet.pts) + segment.origin_us
            if self._starts.closed(wall) and self._key_at:
                head, self._open = self._open[: self._key_at], self._open[self._key_at :]
                self._close(head)
                self.payload = sum(p.size for p, _ in self._open)
            if packet.is_keyframe:
                self._starts.key(wall)
                self._key_at = len(self._open)
        self._open.append((packet, segment))
        self.payload += packet.size

    @property
    def begins_us(self) -> int:
        """When the group that is being gathered begins."""
        return _wall_us(*self._open[0])

    def give_up(self) -> list[_Group]:
        """All but the group that is being gathered."""
        self._open, self._key_at, self.payload = [], None, 0
        return self.flush()

    def complete(self) -> list[_Group]:
        """The groups that nothing can be added to any more."""
        ready, self._ready = self._ready, []
        return ready

    def flush(self) -> list[_Group]:
        """All that was gathered; what follows begins anew."""
        self._close(self._open)
        if self._last is not None:
            self._ready.append(self._last)
        self._starts = GroupStart()
        self._last, self._open, self._key_at, self.payload = None, [], None, 0
        return self.complete()

    def _close(self, group: _Group) -> None:
        if not group:
            return
        if self._last is not None:
            begins_us = _wall_us(*group[0])
            late = [item for item in group if _is_sound(item) and _wall_us(*item) < begins_us]
            if late:
                self._last += late
                group = [item for item in group if not _is_sound(item) or _wall_us(*item) >= begins_us]
            self._ready.append(self._last)
        self._last = group


def _is_sound(item: _Item) -> bool:
    packet, segment = item
    return packet.stream_index != segment.video_index


def _wall_us(packet: TimedPacket, segment: Begin) -> int:
    base = packet.time_base
    return segment.origin_us + plan.TimeBase(base.numerator, base.denominator).us(packet.pts)
