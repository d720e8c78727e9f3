"""What would become of a clip's tracks, and how large it would be: a rehearsal of each source's first seconds.

It is the export's own pipeline that is asked, so that the answer is what the export will do. A short clip is rehearsed
as a whole, and of that the size is known: how much its key frames weigh, and what an exact start's encoded pictures.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

from vx.jobs import ClipJob, Ended, Link, Note, Probed, ProbeJob, Treatment, encode
from vx.media.clips.clip import open_reader, pipeline
from vx.media.clips.feeding import clip_us
from vx.media.files.muxing import usual_overhead
from vx.media.packets.messages import Begin, Message, TimedPacket, Track
from vx.media.packets.plan import TimeBase

_SAMPLE_US = 15_000_000
_SAMPLE_S, _PATIENCE_S = 1.0, 3.0
"""Longer than this none is rehearsed, however slow encoding is; the latter until there is a group of pictures that can
be taken for the others, or where pictures are copied."""
_ROOM_FOR_NOTES = 32 << 10
"""Bytes of those that are told of a source, which is one event; of thousands of broken recordings the first are."""


def probe(job: ProbeJob, link: Link) -> Ended:
    """Tell a `Probed` of each source, in their order."""
    for number in range(len(job.clip.sources)):
        link.send(_Rehearsal(job.clip, number, link).run())
    return Ended(succeeded=True)


@dataclass
class _Sample:
    """What was rehearsed."""

    payload: int = 0
    packets: int = 0
    us: int = 0
    """Of the recording."""


class _Rehearsal:
    def __init__(self, job: ClipJob, number: int, link: Link) -> None:
        self._job = job
        self._number = number
        self._source = job.sources[number]
        self._link = link
        self._notes: list[Note] = []
        self._further_notes = 0
        self._room = _ROOM_FOR_NOTES
        self._recorded: Begin | None = None
        self._written: Begin | None = None
        """The first one."""
        self._sample = _Sample()
        self._groups: _Sample | None = None
        """What comes before the last key frame but the first."""
        self._is_whole = False

    def run(self) -> Probed:
        reader = open_reader(self._job, self._source, self._warn)
        reader.start()
        try:
            self._rehearse(self._tapped(iter(reader)))
        finally:
            reader.abandon()
        notes = tuple(self._notes)
        if self._recorded is None or self._written is None:
            return Probed(source=self._number, notes=notes, further_notes=self._further_notes)
        before, after = self._recorded, self._written
        sample = self._sample
        if self._groups is not None and self._video() == "encoded" and not self._is_whole:
            sample = self._groups
        tracks = [after.video] if after.audio is None else [after.video, after.audio]
        return Probed(
            source=self._number,
            video=self._video(),
            video_codec=_codec(before.video),
            audio=self._audio(),
            audio_codec="" if before.audio is None else _codec(before.audio),
            sample_bytes=sample.payload + usual_overhead(self._job.container, tracks, sample.packets),
            sample_us=sample.us,
            is_whole=self._is_whole,
            notes=notes,
            further_notes=self._further_notes,
        )

    def _rehearse(self, messages: Iterator[Message]) -> None:
        begin_s = time.monotonic()
        segment: Begin | None = None
        shown_us: tuple[int, int] | None = None
        for message in pipeline(
            self._job, self._source, messages, self._warn, self._inform, self._link.stopping.is_set
        ):
            if isinstance(message, Begin):
                segment, shown_us = message, None
                self._written = self._written or message
                continue
            assert segment is not None, "packets come after a Begin"
            for packet in message.packets:
                shown_us = self._weigh(packet, segment, shown_us)
            enough_s = _SAMPLE_S if self._groups and self._video() == "encoded" else _PATIENCE_S
            if time.monotonic() - begin_s >= enough_s or self._sample.us >= _SAMPLE_US:
                return
        self._is_whole = not self._link.stopping.is_set()

    def _tapped(self, messages: Iterator[Message]) -> Iterator[Message]:
        for message in messages:
            if self._recorded is None and isinstance(message, Begin):
                self._recorded = message
            yield message

    def _weigh(self, packet: TimedPacket, segment: Begin, shown_us: tuple[int, int] | None) -> tuple[int, int] | None:
        """Add a packet; from when to when pictures of the segment were shown, and are with it."""
        sample = self._sample
        if packet.stream_index == segment.video_index:
            if packet.is_keyframe and sample.us:
                self._groups = dataclasses.replace(sample)
            base = packet.time_base
            at_us = clip_us(packet, segment)
            until_us = at_us + TimeBase(base.numerator, base.denominator).us(packet.duration)
            before_us = 0 if shown_us is None else _wall_length_us(segment, shown_us)
            first_us, last_us = shown_us or (at_us, until_us)
            shown_us = min(first_us, at_us), max(last_us, until_us)
            sample.us += _wall_length_us(segment, shown_us) - before_us
        sample.payload += packet.size
        sample.packets += 1
        return shown_us

    def _video(self) -> Treatment:
        assert self._recorded is not None
        assert self._written is not None
        return "copied" if self._written.video.template is self._recorded.video.template else "encoded"

    def _audio(self) -> Treatment | None:
        assert self._recorded is not None
        assert self._written is not None
        before, after = self._recorded.audio, self._written.audio
        if before is None:
            return None
        if after is None:
            return "left out"
        return "copied" if after.template is before.template else "encoded"

    def _warn(self, text: str) -> None:
        self._tell(Note(level="warning", text=text, source=self._number))

    def _inform(self, text: str) -> None:
        self._tell(Note(level="info", text=text, source=self._number))

    def _tell(self, note: Note) -> None:
        self._room -= len(encode(note))
        if self._room < 0:
            self._further_notes += 1
        else:
            self._notes.append(note)


def _wall_length_us(segment: Begin, clip_span_us: tuple[int, int]) -> int:
    begin_us, end_us = clip_span_us
    return segment.wall_us(end_us) - segment.wall_us(begin_us)


def _codec(track: Track) -> str:
    return str(track.template.codec_context.codec.canonical_name)
