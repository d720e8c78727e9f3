"""What would become of a clip's tracks: a rehearsal of each source that ends where its first file would be opened.

It is the export's own pipeline that is asked, so that the answer is what the export will do. Where something has to be
encoded, a few seconds of it are, for the size to expect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from vx.jobs import ClipJob, Ended, Link, Note, Probed, ProbeJob, Treatment, encode
from vx.media.clips.clip import open_reader, pipeline
from vx.media.clips.feeding import clip_us
from vx.media.packets.messages import Begin, Message, TimedPacket, Track
from vx.media.packets.plan import TimeBase

_SAMPLE_US = 4_000_000
"""Two groups of pictures as they are encoded here."""
_SAMPLE_S = 1.0
"""Longer than this none is encoded on trial, however slow that is."""
_ROOM_FOR_NOTES = 32 << 10
"""Bytes of those that are told of a source, which is one event; of thousands of broken recordings the first are."""


def probe(job: ProbeJob, link: Link) -> Ended:
    """Tell a `Probed` of each source, in their order."""
    for number in range(len(job.clip.sources)):
        link.send(_Rehearsal(job.clip, number, link).run())
    return Ended(succeeded=True)


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
        self._size = 0
        self._shown_us: list[int] = []
        """When the first picture of the sample is shown, and until when the last one is."""

    def run(self) -> Probed:
        reader = open_reader(self._job, self._source, self._warn)
        reader.start()
        try:
            self._rehearse(self._tapped(iter(reader)))
        finally:
            reader.abandon()
        if self._recorded is None or self._written is None:
            return Probed(source=self._number, notes=tuple(self._notes), further_notes=self._further_notes)
        before, after = self._recorded, self._written
        encodes = "encoded" in (self._video(), self._audio())
        return Probed(
            source=self._number,
            video=self._video(),
            video_codec=_codec(before.video),
            audio=self._audio(),
            audio_codec="" if before.audio is None else _codec(before.audio),
            sample_bytes=self._size if encodes else 0,
            sample_us=after.wall_us(self._shown_us[1]) - after.wall_us(self._shown_us[0]) if encodes else 0,
            notes=tuple(self._notes),
            further_notes=self._further_notes,
        )

    def _rehearse(self, messages: Iterator[Message]) -> None:
        until = time.monotonic() + _SAMPLE_S
        for message in pipeline(
            self._job, self._source, messages, self._warn, self._inform, self._link.stopping.is_set
        ):
            if isinstance(message, Begin):
                if self._written is not None:
                    return
                self._written = message
                continue
            for packet in message.packets:
                self._weigh(packet)
            if "encoded" not in (self._video(), self._audio()) or time.monotonic() >= until:
                return
            if self._shown_us and self._shown_us[1] - self._shown_us[0] >= _SAMPLE_US:
                return

    def _tapped(self, messages: Iterator[Message]) -> Iterator[Message]:
        for message in messages:
            if self._recorded is None and isinstance(message, Begin):
                self._recorded = message
            yield message

    def _weigh(self, packet: TimedPacket) -> None:
        begin = self._written
        assert begin is not None, "packets come after a Begin"
        self._size += packet.size
        if packet.stream_index != begin.video_index:
            return
        base = packet.time_base
        at_us = clip_us(packet, begin)
        until_us = at_us + TimeBase(base.numerator, base.denominator).us(packet.duration)
        first_us, last_us = self._shown_us or (at_us, until_us)
        self._shown_us = [min(first_us, at_us), max(last_us, until_us)]

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


def _codec(track: Track) -> str:
    return str(track.template.codec_context.codec.canonical_name)
