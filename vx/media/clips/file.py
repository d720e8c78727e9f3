"""One file of a clip: the tracks of one or several sources on one clock.

The file's clock is 0 at the first picture in it and follows the clip's clock, except for gaps that are closed up.
"""

from __future__ import annotations

from collections.abc import Sequence

from vx.captions import Caption
from vx.media.clips.feeding import Chunk, goes_on
from vx.media.files.muxing import ResultFile
from vx.media.files.subtitles import Subtitles
from vx.media.packets import plan
from vx.media.packets.messages import Begin, TimedPacket
from vx.media.packets.plan import Budget, Join, TimeBase, TrackClock

_LONGEST_GAP_US = 3600 * plan.SECOND_US
_NEVER = 1 << 62
"""Ticks."""


class ClipFile:
    """A result file with its clocks. Packets go in with times counted from their segment's origin."""

    def __init__(
        self,
        result: ResultFile,
        sources: Sequence[Begin | None],
        first_us: int,
        budget: Budget,
        caption: Caption | None = None,
    ) -> None:
        """`sources`: the segment with which each source begins; None: it has nothing (more) to give. `caption`: of its
        subtitle track, where it has one.
        """
        self.result = result
        self.budget = budget
        self._subtitles = None if caption is None else Subtitles(caption, first_us, result)
        self.sources: list[SourceTracks | None] = []
        """By the source's number."""
        self._first_us = first_us
        self._closed_us = 0
        track = 0
        for segment in sources:
            if segment is None:
                self.sources.append(None)
                continue
            self.sources.append(SourceTracks(result, track, segment, self._subtitles))
            track += 1 if segment.audio is None else 2

    @property
    def last_us(self) -> int:
        """The wall time of the last frame shown."""
        return max(source.last_us(self.to_clip(source.last_shown_us)) for source in self._present)

    @property
    def end_us(self) -> int:
        """The clip's time up to which its last frame is shown."""
        return self.to_clip(max(source.shown_until_us for source in self._present))

    @property
    def _present(self) -> list[SourceTracks]:
        return [source for source in self.sources if source is not None]

    def to_clip(self, file_us: int) -> int:
        """The clip's time of a time of the file that is not before the last gap that was closed."""
        return self._first_us + self._closed_us + file_us

    def can_hold(self, number: int, segment: Begin) -> bool:
        """Whether the tracks of this source can hold this segment's packets."""
        tracks = self.sources[number]
        return tracks is not None and tracks.can_hold(segment)

    def bridges(self, segment: Begin, gap_us: int) -> bool:
        """Whether the container can go on with this segment after such a gap."""
        if self._subtitles is not None and self.budget.limit and gap_us > _LONGEST_GAP_US:
            return False  # it takes more than one cue, which is more than the budget reckons with
        return self.result.bridges(gap_us, segment.video, limited=self.budget.limit > 0)

    def close_gap(self, gap_us: int) -> None:
        """Nothing was recorded for so long; what comes next follows at once."""
        if self._subtitles is not None and (last := self._last_shown) is not None:
            self._subtitles.close_gap(last.shown_until_us, gap_us, last.segment.wall_us)
            for source in self._present:
                source.look_for_text()
        self._closed_us += gap_us

    def close(self) -> int:
        """Finalise the file; returns its size. VxError where the disk refuses."""
        if self._subtitles is not None and (last := self._last_shown) is not None:
            self._subtitles.finish(last.shown_until_us, last.segment.wall_us)
        return self.result.close()

    @property
    def _last_shown(self) -> SourceTracks | None:
        """The source whose pictures go on for longest; None: there are none yet."""
        present = [source for source in self._present if source.entered]
        return max(present, key=lambda source: source.shown_until_us, default=None)

    def write(self, number: int, chunk: Chunk) -> None:
        """Write a source's packets; left out is what can't be decoded for want of a key frame."""
        tracks = self.sources[number]
        assert tracks is not None, "nothing is written to a source that the file wasn't opened for"
        if chunk.opens and self._subtitles is not None:
            self._tell_gap(self._subtitles, chunk.segment, chunk.begins_us)
        for segment, packets in chunk.runs:
            if segment is not tracks.segment or not tracks.entered:
                tracks.enter(segment, segment.origin_us - self._first_us - self._closed_us)
            tracks.write(packets)
        if chunk.load is not None:
            self.budget.take(chunk.load.cost(self.budget))

    def _tell_gap(self, subtitles: Subtitles, segment: Begin, begins_us: int) -> None:
        until_us = max(source.shown_until_us for source in self._present)
        begins_us -= self.to_clip(0)
        if until_us and begins_us - until_us > plan.GAP_WORTH_A_NOTE_US:
            subtitles.pause(until_us, begins_us, segment.wall_us)


class SourceTracks:
    """One source's picture and sound in the file."""

    def __init__(self, result: ResultFile, track: int, segment: Begin, subtitles: Subtitles | None) -> None:
        """`track`: the number of the picture's track; that of its sound, if it has any, is the next one."""
        self._subtitles = subtitles
        self.look_for_text()
        self.segment = segment
        self.entered = False
        self._result = result
        self._video_track = track
        self._audio_track = track + 1
        self._video_key = segment.video.key
        self._audio_key = None if segment.audio is None else segment.audio.key
        base = result.bases[track]
        self._video = TrackClock(segment.video.time_base, base, 0)
        self._audio: TrackClock | None = None
        if segment.audio is not None:
            self._audio = TrackClock(segment.audio.time_base, result.bases[track + 1], 0)
        self._needs_key = True
        self._leading_before: int | None = None
        """When the key frame that the track goes on from is shown, on the file's clock, until the next picture came."""
        self._last_shown = 0
        self._shown_until = 0
        self._heard_until = 0

    def last_us(self, clip_us: int) -> int:
        """The wall time of a time of the clip."""
        return self.segment.wall_us(clip_us)

    @property
    def last_shown_us(self) -> int:
        """When the last frame is shown, on the file's clock."""
        return self._result.bases[self._video_track].us(self._last_shown)

    @property
    def shown_until_us(self) -> int:
        """Up to when it is shown."""
        return self._result.bases[self._video_track].us(self._shown_until)

    def can_hold(self, segment: Begin) -> bool:
        """Whether a segment's packets can go on here."""
        return (
            (segment.placement.join is not Join.OVERLAP or not self.entered or segment is self.segment)
            and segment.video.key == self._video_key
            and (segment.audio is None or segment.audio.key == self._audio_key)
        )

    def look_for_text(self) -> None:
        """With the next packets, see whether a subtitle is due."""
        self._picture_due = self._sound_due = _NEVER if self._subtitles is None else -_NEVER

    def _show_text(self, track: TimeBase, pts: int) -> int:
        """Show the subtitles that are due by then; returns when the next one is, in the track's ticks."""
        assert self._subtitles is not None
        self._subtitles.reach(track.us(pts), self.segment.wall_us)
        return track.ticks(self._subtitles.due_us)

    def enter(self, segment: Begin, later_us: int) -> None:
        """The packets of this segment follow; its origin is at `later_us` of the file's clock."""
        if self.entered and not goes_on(segment, self.segment):
            self._needs_key = True
        self._leading_before = None
        self.segment, self.entered = segment, True
        self._video.move(segment.video.time_base, self._video.track.ticks(later_us))
        if segment.audio is not None and self._audio is not None:
            self._audio.move(segment.audio.time_base, self._audio.track.ticks(later_us))

    def write(self, packets: Sequence[TimedPacket]) -> None:
        """The segment's next packets."""
        video_index = self.segment.video_index
        silent = self.segment.audio is None
        write_picture, write_sound = self._write_picture, self._write_sound
        for packet in packets:
            if packet.stream_index == video_index:
                write_picture(packet)
            elif not silent:
                write_sound(packet)

    def _write_picture(self, packet: TimedPacket) -> None:
        if self._needs_key:
            if not packet.is_keyframe or self._is_before_file(packet):
                return
            self._needs_key = False
            self._leading_before = self._shown_at(packet)
        elif self._leading_before is not None:
            if self._shown_at(packet) < self._leading_before:
                return  # it can't be decoded: what it is predicted from is missing
            self._leading_before = None
        clock = self._video
        pts, dts = clock.times(packet.pts, packet.dts)
        duration = packet.duration
        if not clock.same:
            duration = clock.ticks(duration)
        if pts >= self._picture_due:
            self._picture_due = self._show_text(clock.track, pts)
        self._result.write(self._video_track, packet, pts, dts, None if clock.same else duration)
        if pts > self._last_shown:
            self._last_shown = pts
        if pts + duration > self._shown_until:
            self._shown_until = pts + duration

    def _is_before_file(self, packet: TimedPacket) -> bool:
        """A live camera's packets may come late, when the file has begun with later ones of another."""
        return self._shown_at(packet) < 0

    def _shown_at(self, packet: TimedPacket) -> int:
        """When a picture is shown on the file's clock, in the track's ticks. Each segment counts its own from 0."""
        return self._video.ticks(packet.pts) + self._video.offset

    def _write_sound(self, packet: TimedPacket) -> None:
        clock = self._audio
        if clock is None:
            return
        duration, wanted = packet.duration, packet.pts
        if not clock.same:
            duration = clock.ticks(duration)
            wanted = clock.ticks(wanted)
        wanted += clock.offset
        if not self._heard_until and wanted < -duration // 8:
            return  # it begins before the file does, and moving it would move all that follows
        pts = plan.audio_pts(wanted, duration, self._heard_until)
        if pts is None:
            return  # it was heard already
        if pts >= self._sound_due:
            self._sound_due = self._show_text(clock.track, pts)
        self._result.write(self._audio_track, packet, pts, pts, None if clock.same else duration)
        self._heard_until = pts + max(duration, 1)
