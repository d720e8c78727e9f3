"""A file that grows: what of its tracks goes into the next fragment, and the table in the end. Pure."""

from __future__ import annotations

import dataclasses
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vx.media.virtual.cues import CueTrack, Shown
from vx.media.virtual.files import FileBuilder, Item, Line
from vx.media.virtual.stretches import DoubtError
from vx.mp4.build import TrackTables
from vx.mp4.growing import LARGEST_FRAGMENT, TrackFragment, build_end, build_fragment, build_opening, lead_of
from vx.mp4.tables import cut_end, expand

Numbers = npt.NDArray[np.int64]


class End(NamedTuple):
    """What makes the file flat: a table at its end, and then a few bytes at another position."""

    table: bytes
    room: int
    head: bytes


class Fragments:
    """The tracks of one file. Each item of its builder becomes a fragment."""

    def __init__(self, builder: FileBuilder, said: Mapping[str, str]) -> None:
        """`builder` holds the first stretch; `said` is what the file says of itself."""
        self._builder = builder
        self._said = said
        self._count = 0
        tables = [dataclasses.replace(line.tables(), lead=line.lead) for line in builder.lines]
        self._tracks = {
            line: _Track(i + 1, line, lead_of(track))
            for i, (line, track) in enumerate(zip(builder.lines, tables, strict=True))
        }
        cues = builder.begin_cues()
        self._texts = None if cues is None else _Texts(len(tables) + 1, cues)
        if cues is not None:
            tables.append(cues.tables([], []))
        self.opening, self._room = build_opening(tables, created_us=builder.first_us, tags=said)
        """What the file begins with."""

    def gather(self) -> None:
        """The builder has the next stretch."""
        for track in self._tracks.values():
            track.gather()
        if self._texts is not None:
            self._texts.gather(self._builder.shown[-1])

    def build(self, item: Item) -> tuple[bytes, bytes]:
        """The bytes ahead of the item's, and those behind them, which are texts. Items come in their order."""
        parts = [
            self._tracks[line].take(np.asarray(chunks.counts, np.int64), places)
            for (line, chunks), places in zip(item.chunks, item.places(), strict=True)
        ]
        texts = b""
        if self._texts is not None:
            until_us = max(track.shown_until_us for track in self._tracks.values())
            part, texts = self._texts.take(until_us, item.size)
            parts += part
        payload = item.size + len(texts)
        if payload >= LARGEST_FRAGMENT:
            raise DoubtError("its sound and pictures are too far apart")
        return build_fragment(self._count + 1, parts, payload), texts

    def commit(self, item: Item, begin: int) -> int:
        """All of it is in the file, its own bytes from this position on; returns when its last picture is shown."""
        self._count += 1
        item.place(begin)
        for line, chunks in item.chunks:
            self._tracks[line].written += sum(chunks.counts)
        if self._texts is not None:
            self._texts.place(begin + item.size)
        return self._builder.to_clip(max(track.shown_us for track in self._tracks.values()))

    def finish(self, size: int) -> End | None:
        """The end of a file that has so many bytes; None: it holds no picture. DoubtError where a time is too large."""
        for line, track in self._tracks.items():
            line.cut(track.written)
        pictures = [line for line in self._tracks if line.is_picture and len(line.samples)]
        if not pictures:
            return None
        tables = self._builder.tables()
        if self._texts is not None:
            tables += self._texts.finish(max(line.base.us(line.shown_until) for line in pictures))
        try:
            table, head = build_end(tables, size, self._room, created_us=self._builder.first_us, tags=self._said)
        except OverflowError:
            raise DoubtError("its times are too large for one file") from None
        return End(table, self._room, head)


class _Track:
    """A track's samples."""

    def __init__(self, number: int, line: Line, lead: int) -> None:
        self.line = line
        self.written = 0
        """Of its samples, those that are in the file."""
        self._number = number
        self._zero, shown = line.zero if len(line.samples) else (0, 0)
        self._later = self._zero - shown + lead
        self._shown = self._shown_until = 0

    def gather(self) -> None:
        """Look at those that have come."""
        samples = self.line.samples
        count = len(samples) - self.written
        self._at = 0
        self._durations = np.fromiter(expand(cut_end(samples.deltas, count)), np.int64, count)
        self._shifts = np.fromiter(expand(cut_end(samples.shifts, count)), np.int64, count)
        self._sizes = np.asarray(samples.sizes[self.written :], np.int64)
        self._decoded = np.zeros(count, np.int64)
        np.cumsum(self._durations[:-1], out=self._decoded[1:])
        self._decoded += self.line.last - (self._decoded[-1] if count else 0)
        self._are_keys: npt.NDArray[np.bool_] | None = None
        if self.line.is_picture:
            keys = samples.keys[bisect_left(samples.keys, self.written) :]
            self._are_keys = np.zeros(count, np.bool_)
            self._are_keys[np.asarray(keys, np.int64) - self.written] = True

    @property
    def shown_us(self) -> int:
        """When the last picture of those that were taken is shown, on the file's clock."""
        return self.line.base.us(self._shown)

    @property
    def shown_until_us(self) -> int:
        """Up to when they are shown."""
        return self.line.base.us(self._shown_until)

    def take(self, counts: Numbers, places: Numbers) -> TrackFragment:
        """The next ones, so many in each chunk."""
        taken = slice(self._at, self._at + int(counts.sum()))
        self._at = taken.stop
        if self.line.is_picture:
            shown = self._decoded[taken] + self._shifts[taken]
            self._shown = max(self._shown, int(shown.max()))
            self._shown_until = max(self._shown_until, int((shown + self._durations[taken]).max()))
        return TrackFragment(
            number=self._number,
            begins=max(0, int(self._decoded[taken.start]) - self._zero),
            durations=self._durations[taken],
            sizes=self._sizes[taken],
            shifts=self._shifts[taken] + self._later,
            are_keys=None if self._are_keys is None else self._are_keys[taken],
            chunk_counts=counts,
            chunk_places=places,
        )


class _Texts:
    """The subtitle track: in each fragment what is to be read while its pictures are shown."""

    def __init__(self, number: int, cues: CueTrack) -> None:
        self._number = number
        self._cues = cues
        self._coming = Shown(0, 0)
        self._counts, self._offsets = array("I"), array("Q")
        self._written = 0

    def gather(self, shown: Shown) -> None:
        """Pictures come that begin then."""
        self._coming = shown

    def take(self, until_us: int, place: int) -> tuple[list[TrackFragment], bytes]:
        """The texts up to there, which lie at this place of the fragment's content; no track if there are none."""
        self._cues.show(self._coming._replace(end_us=until_us))
        self._coming = Shown(until_us, until_us)
        samples = self._cues.samples[self._written :]
        if not samples:
            return [], b""
        count = len(samples)
        part = TrackFragment(
            number=self._number,
            begins=self._cues.begins(self._written),
            durations=np.array(self._cues.deltas(self._written), np.int64),
            sizes=np.fromiter(map(len, samples), np.int64, count),
            shifts=np.zeros(count, np.int64),
            are_keys=None,
            chunk_counts=np.array([count]),
            chunk_places=np.array([place]),
        )
        return [part], b"".join(samples)

    def place(self, position: int) -> None:
        """What was taken last is in the file, at this position."""
        count = len(self._cues.samples) - self._written
        if count:
            self._counts.append(count)
            self._offsets.append(position)
            self._written += count

    def finish(self, until_us: int) -> list[TrackTables]:
        """The track's tables, if there is anything in it."""
        self._cues.cut(self._written, until_us)
        return [self._cues.tables(self._counts, self._offsets)] if self._written else []
