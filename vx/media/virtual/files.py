"""From stretches to files: tracks on one clock, limits of size, the order of the bytes. Pure.

A file's clock is 0 at its first picture and follows the wall clock, except for gaps that are closed up. Where nothing
was recorded, the last sample ahead of it lasts until the next one.
"""

from __future__ import annotations

import dataclasses
import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from vx.captions import Caption
from vx.media.packets import plan
from vx.media.packets.plan import Join
from vx.media.virtual.cues import CueTrack, Shown
from vx.media.virtual.stretches import DoubtError, Form, Origin, Stretch, Take
from vx.mp4.boxes import Span
from vx.mp4.build import TrackTables, build_header
from vx.mp4.recording import Positions, Recording, between, extents, filled
from vx.mp4.tables import Chunks, Run, Samples, compress, cut, extend, replace_last

_INTERLEAVED = 512 << 10
"""Bytes of one camera, after which those of another one follow."""
_NEAR = 64
"""Samples from each other within which one that is decoded later may be shown earlier."""


class Piece(NamedTuple):
    """Bytes of a result: of a recording, or (None) of what was made."""

    origin: Origin | None
    begin: int
    end: int


@dataclass(slots=True)
class VirtualFile:
    """A result: what was made for it, beginning with its header, and where all of its bytes lie, in their order."""

    first_us: int
    last_us: int
    made: list[bytes]
    pieces: list[Piece]
    size: int


class Line:
    """A track under construction. Its times are ticks of the file's clock."""

    def __init__(self, handler: bytes, name: str, form: Form, lead: int = 0) -> None:
        """`lead`: of its first stretch."""
        self.form = form
        self.lead = lead
        self.base = form.base
        self.samples = Samples()
        self.last_shown = 0
        self.shown_until = 0
        self.offsets = array("Q")
        self.counts = array("I")
        """Of the chunks that have their place in the file: where each begins, and how many samples it has."""
        self._handler = handler
        self._name = name
        self.last = 0
        """When its last sample is decoded."""
        self._first_shown = 0
        self._known: dict[Run, Run] = {}
        """The runs that came so far: of a day there are millions, but few different ones."""

    def append(self, more: Samples, start: int) -> None:
        """The next samples, the first of which is decoded at `start`, or as soon as that can be."""
        samples = self.samples
        more = dataclasses.replace(more, start=start)
        if len(samples):
            if start <= self.last:
                more = _pushed(more, self.last)
            replace_last(samples.deltas, more.start - self.last)
        else:
            samples.start = start
            self._first_shown = more.first_shown()
        known = len(samples)
        samples.keys.extend(known + key for key in more.keys) if known else samples.keys.extend(more.keys)
        samples.sizes.extend(more.sizes)
        extend(samples.deltas, map(self._known.setdefault, more.deltas, more.deltas))
        extend(samples.shifts, map(self._known.setdefault, more.shifts, more.shifts))
        self.last = more.last
        self.last_shown = max(self.last_shown, more.last_shown())
        self.shown_until = max(self.shown_until, more.shown_until())

    @property
    def zero(self) -> tuple[int, int]:
        """When its first sample is decoded, and when it is shown: from there on the file's tables count."""
        return (self.samples.start, self._first_shown) if self._first_shown >= 0 else (0, 0)

    @property
    def is_picture(self) -> bool:
        return self._handler == b"vide"

    def cut(self, count: int) -> None:
        """Leave out all but the first samples, and of those the last ones that are shown behind one left out."""
        samples = self.samples
        if count == len(samples):
            return
        near = max(0, count - _NEAR)
        shown = samples.shown(near, count + _NEAR)
        while count > near and max(shown[: count - near]) > min(shown[count - near :]):
            count -= 1
        self.samples = Samples(
            start=samples.start,
            sizes=samples.sizes[:count],
            deltas=cut(samples.deltas, 0, count),
            shifts=cut(samples.shifts, 0, count),
            keys=samples.keys[: bisect_left(samples.keys, count)],
        )
        self.last_shown = self.samples.last_shown() if count else 0
        self.shown_until = self.samples.shown_until() if count else 0
        chunks = 0
        while count > 0:
            count -= self.counts[chunks]
            chunks += 1
        del self.offsets[chunks:], self.counts[chunks:]
        if count:
            self.counts[-1] += count

    def tables(self) -> TrackTables:
        """What the header says of the track."""
        samples, form = self.samples, self.form
        start, deltas, delay = samples.start, samples.deltas, self._first_shown
        if delay < 0:
            # sound that begins a moment ahead of the picture: the rest stays where it is
            (_, first), *_ = deltas
            deltas = []
            extend(deltas, [(1, first + delay), (samples.deltas[0][0] - 1, first), *samples.deltas[1:]])
            start = delay = 0
        moved = {run: (run[0], run[1] + start - delay) for run in set(samples.shifts)}
        if any(delta >= plan.LONGEST_STEP for _, delta in deltas):
            raise DoubtError("a gap is too long for one sample")
        return TrackTables(
            handler=self._handler,
            name=self._name,
            timescale=form.timescale,
            entry=form.description.entry,
            matrix=form.matrix,
            size=form.size,
            delay=delay,
            sizes=samples.sizes,
            deltas=deltas,
            shifts=[moved[run] for run in samples.shifts],
            keys=samples.keys if self.is_picture else None,
            chunk_counts=self.counts,
            chunk_offsets=self.offsets,
        )


def _pushed(samples: Samples, after: int) -> Samples:
    """The samples decoded behind `after`, and shown no earlier than that."""
    decoded, shown = samples.decoded(), samples.shown()
    lasts = samples.deltas[-1][1]
    for i, at in enumerate(decoded):
        after = decoded[i] = max(at, after + 1)
        shown[i] = max(shown[i], after)
    steps = [later - at for at, later in itertools.pairwise(decoded)]
    return dataclasses.replace(
        samples,
        start=decoded[0],
        deltas=compress([*steps, lasts]),
        shifts=compress([at - when for at, when in zip(shown, decoded, strict=True)]),
    )


@dataclass(slots=True)
class Item:
    """Bytes that go into the file in one go: stretches of a recording, or what was made."""

    origin: Origin | None
    runs: Sequence[Span]
    """Where they lie, rising."""
    chunks: list[tuple[Line, Chunks]]
    """What of each track lies in them."""
    lead: Span | None = None
    """Where what was made lies that stands in front, as a part of the first chunk of the first line."""
    at_us: int = 0
    """About when it is shown; by that the tracks of several sources are interleaved."""

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        lead = 0 if self.lead is None else self.lead.end - self.lead.begin
        return lead + sum(end - begin for begin, end in self.runs)

    def places(self) -> list[Positions]:
        """Where each chunk of each track begins, counted from the begin of all of it."""
        lead = 0 if self.lead is None else self.lead.end - self.lead.begin
        begins, ends = np.array(self.runs).T
        positions = lead + np.cumsum(ends - begins) - (ends - begins)
        found: list[Positions] = []
        for _, chunks in self.chunks:
            offsets = np.asarray(chunks.offsets).view(np.int64)
            which = begins.searchsorted(offsets, "right") - 1
            found.append(offsets + (positions - begins)[which])
        if lead:
            found[0][0] -= lead
        return found

    def place(self, at: int) -> None:
        """Have its chunks begin at this position."""
        for (line, chunks), offsets in zip(self.chunks, self.places(), strict=True):
            line.offsets.frombytes((offsets + at).tobytes())
            line.counts.extend(chunks.counts)


@dataclass(slots=True)
class _Source:
    """One source's tracks in the file."""

    video: Line
    audio: Line | None
    items: list[Item] = field(default_factory=list)


class FileBuilder:
    """A file of some sources under construction."""

    def __init__(
        self,
        sources: Sequence[tuple[str, Stretch | None]],
        first_us: int,
        caption: Caption | None = None,
        most: int = 0,
    ) -> None:
        """`sources`: each one's name and the stretch that it begins with; None: it has nothing to give.

        `first_us` is when the first picture of all is shown; `caption` what subtitles say, None: there are none. Items
        have about `most` bytes; 0: as many as there are one behind the other.
        """
        self._name = ", ".join(name for name, _ in sources)
        self._caption = caption
        self.shown: list[Shown] = []
        """When the pictures of each stretch are."""
        self._closing_us = 0
        self.first_us = first_us
        self._closed_us = 0
        self._made: dict[int, bytes] = {}
        """By its place among all that was made."""
        self._made_size = 0
        self._sources: list[_Source | None] = []
        for name, stretch in sources:
            if stretch is None:
                self._sources.append(None)
                continue
            video = Line(b"vide", name, stretch.video, stretch.lead)
            audio = None if stretch.audio is None else Line(b"soun", name, stretch.audio)
            self._sources.append(_Source(video, audio))
        self._most = most or (_INTERLEAVED if len(self._present) > 1 else 0)

    @property
    def lines(self) -> list[Line]:
        """Its tracks, in their order."""
        return [line for source in self._present for line in (source.video, source.audio) if line is not None]

    @property
    def _present(self) -> list[_Source]:
        return [source for source in self._sources if source is not None]

    @property
    def has_begun(self) -> bool:
        """Whether it holds anything yet."""
        return any(len(source.video.samples) for source in self._present)

    def to_clip(self, file_us: int) -> int:
        """The wall time of a time of the file that is not before the last gap that was closed."""
        return self.first_us + self._closed_us + file_us

    @property
    def last_us(self) -> int:
        """The wall time of the last frame shown."""
        return self.to_clip(max(source.video.base.us(source.video.last_shown) for source in self._present))

    @property
    def end_us(self) -> int:
        """Up to when it is shown."""
        return self.to_clip(max(source.video.base.us(source.video.shown_until) for source in self._present))

    def shown_until_us(self, number: int) -> int:
        """Up to when the last frame of a source is shown."""
        source = self._sources[number]
        assert source is not None, "nothing was asked of a source that has nothing"
        return self.to_clip(source.video.base.us(source.video.shown_until))

    def can_hold(self, number: int, stretch: Stretch) -> bool:
        """Whether the tracks of this source can go on with this stretch."""
        source = self._sources[number]
        if source is None or stretch.placement.join is Join.OVERLAP or stretch.video != source.video.form:
            return False
        if stretch.audio is None:
            return True
        return source.audio is not None and stretch.audio == source.audio.form

    def bridges(self, gap_us: int) -> bool:
        """Whether it can go on after such a gap."""
        return plan.is_one_step(gap_us, [line.base for line in self.lines])

    def close_gap(self, gap_us: int) -> None:
        """Nothing was recorded for so long; what comes next follows at once."""
        self._closed_us += gap_us
        self._closing_us = gap_us

    def add(self, number: int, stretch: Stretch) -> None:
        """The next stretch of a source."""
        source = self._sources[number]
        assert source is not None, "it was opened with a stretch"
        later_us = stretch.placement.origin_us - self.first_us - self._closed_us
        first: list[Item] = []
        last: list[Item] = []
        recorded: list[tuple[Line, Take]] = []
        offset = source.video.base.ticks(later_us)
        for take in stretch.pictures:
            source.video.append(take.samples, take.samples.start + offset)
            if take.origin is None:
                (last if recorded else first).append(self._made_item(source.video, take))
            else:
                source.video.samples.sizes[-len(take.samples)] += len(take.made)  # they are in front of its first one
                recorded.append((source.video, take))
        if stretch.sound is not None and source.audio is not None:
            sound = _fitting(stretch.sound.samples, source.audio, source.audio.base.ticks(later_us))
            if sound is not None:
                source.audio.append(sound, sound.start)
                recorded.append((source.audio, dataclasses.replace(stretch.sound, samples=sound)))
        begins = source.video.base.us(stretch.pictures[0].samples.shown(0, 1)[0] + offset)
        self.shown.append(Shown(begins, source.video.base.us(source.video.shown_until), self._closing_us))
        self._closing_us = 0
        items = [*first, *self._recorded_items(stretch.recording, recorded), *last]
        begin_us, end_us = stretch.placement.origin_us, self.shown_until_us(number)
        for i, item in enumerate(items):
            item.at_us = begin_us + (end_us - begin_us) * i // len(items)
        source.items += items

    def _keep(self, made: bytes) -> Span:
        """Where what was made is among all that was."""
        self._made[self._made_size] = made
        self._made_size += len(made)
        return Span(self._made_size - len(made), self._made_size)

    def _made_item(self, line: Line, take: Take) -> Item:
        place = self._keep(take.made)
        chunks = Chunks(array("Q", [place.begin]), array("Q", [len(take.made)]), array("I", [len(take.samples)]))
        return Item(None, [place], [(line, chunks)])

    def _recorded_items(self, recording: Recording | None, takes: list[tuple[Line, Take]]) -> list[Item]:
        """The bytes of one recording that these samples lie in, in its own order and without what lies between them."""
        if not takes:
            return []
        origin = takes[0][1].origin
        columns = [(line, self._chunks(take.samples)) for line, take in takes]
        leads = {take.samples.chunks.offsets[0]: (line, take.made) for line, take in takes if take.made}
        if not leads and not self._most:
            return [Item(origin, _runs(recording, [chunks for _, chunks in columns]), columns)]
        starts, ends, holes = extents([chunks for _, chunks in columns])
        begins = starts.tolist()
        borders = {0, len(begins), *(bisect_left(begins, at) for at in leads)}
        if self._most:
            borders.update(_borders(begins, self._most))
        items: list[Item] = []
        for low, high in itertools.pairwise(sorted(borders)):
            inside = holes[holes.searchsorted(low, "right") : holes.searchsorted(high)]
            runs = between(starts[low:high], ends[low:high], inside - low)
            whole = Span(runs[0].begin, runs[-1].end)
            chunks = [(line, found) for line, each in columns if len(found := _inside(each, *whole))]
            lead = None
            if whole.begin in leads:
                leading, made = leads[whole.begin]
                lead = self._keep(made)
                chunks.sort(key=lambda item: item[0] is not leading)
            items.append(Item(origin, runs, chunks, lead))
        return items

    def _chunks(self, samples: Samples) -> Chunks:
        return samples.divided(self._most) if self._most else samples.chunks

    def begin_cues(self) -> CueTrack | None:
        """Its subtitle track, with nothing in it; None: it has none."""
        return None if self._caption is None else CueTrack(self._caption, self.first_us, self._name)

    def take_items(self) -> list[Item]:
        """Of a single source: the items that nobody has taken yet. They have no place in the file."""
        (source,) = self._present
        items, source.items = source.items, []
        return items

    def made(self, span: Span) -> bytes:
        """What was made, given its place: that of an item's lead, or of one that was made as a whole."""
        return self._made[span.begin]

    def finish(self, said: Mapping[str, str]) -> VirtualFile:
        """The file as it is now, with what it says of itself. Nothing can be added any more."""
        present = self._present
        items = [item for source in present for item in source.items]
        if len(present) > 1:
            items.sort(key=lambda item: item.at_us)
        pieces: list[Piece] = []
        at = 0
        for item in items:
            if item.lead is not None:
                pieces.append(Piece(None, *item.lead))
            pieces.extend(Piece(item.origin, *run) for run in item.runs)
            item.place(at)
            at += item.size
        tables = self.tables()
        cues = self.begin_cues()
        if cues is not None:
            for shown in sorted(self.shown):
                cues.show(shown)
            cues.finish()
            tables.append(cues.tables([len(cues.samples)], [at]))
            data = b"".join(cues.samples)
            pieces.append(Piece(None, *self._keep(data)))
            at += len(data)
        try:
            header = build_header(tables, at, created_us=self.first_us, tags=said)
        except OverflowError:
            raise DoubtError("its times are too large for one file") from None
        behind = len(header)
        return VirtualFile(
            first_us=self.first_us,
            last_us=self.last_us,
            made=[header, *self._made.values()],
            pieces=[
                Piece(None, 0, behind),
                *(p if p.origin is not None else Piece(None, p.begin + behind, p.end + behind) for p in pieces),
            ],
            size=behind + at,
        )

    def tables(self) -> list[TrackTables]:
        """What its header says of the tracks that hold anything."""
        return [line.tables() for line in self.lines if len(line.samples)]


def _runs(recording: Recording | None, columns: list[Chunks]) -> Sequence[Span]:
    """The stretches that chunks of a recording fill; where they are all of it, its reader has found them already."""
    if recording is not None:
        whole = [track.samples.chunks for track in recording.tracks if len(track.samples)]
        if len(whole) == len(columns) and all(any(each is taken for taken in columns) for each in whole):
            return recording.runs
    return filled(columns)


def _inside(chunks: Chunks, begin: int, end: int) -> Chunks:
    """Those that begin there."""
    low, high = bisect_left(chunks.offsets, begin), bisect_left(chunks.offsets, end)
    return Chunks(chunks.offsets[low:high], chunks.lengths[low:high], chunks.counts[low:high])


def _borders(begins: list[int], most: int) -> Iterator[int]:
    """Numbers of chunks: from each of them to the next one it is about so many bytes."""
    last = begins[0]
    for number, begin in enumerate(begins):
        if begin - last >= most:
            yield number
            last = begin


def _fitting(samples: Samples, line: Line, offset: int) -> Samples | None:
    """The sound that wasn't heard yet, where it goes in the track; None where there is none.

    By the rule of `plan.audio_pts`. What follows the first sample that is moved a little is moved along.
    """
    start = samples.start + offset
    lasts = min(samples.lasting(0, 2))  # ffmpeg's segmenter leaves a hole behind the first one
    if not len(line.samples):
        # what begins before the file does is left out
        first = samples.find(-(lasts // 8) - offset)
        if first >= len(samples):
            return None
        samples = samples.slice(first, len(samples))
        return dataclasses.replace(samples, start=samples.start + offset)
    heard_until = line.shown_until
    first = 0
    moved: int | None = plan.audio_pts(start, lasts, heard_until)
    while moved is None:
        first += 1
        if first >= len(samples):
            return None
        start = samples.decoded_at(first) + offset
        moved = plan.audio_pts(start, lasts, heard_until)
    return dataclasses.replace(samples.slice(first, len(samples)), start=moved)
