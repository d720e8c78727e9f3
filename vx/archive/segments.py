"""Finds the recordings of a time range on the disk by their names. Opens none of them.

Only directories whose names leave the range possible are listed. The recording that covers the begin of a range is the
last one that began at or before it; it may be arbitrarily long ago (a camera that was off, a file of a whole day), so
directories are gone through backwards, newest first, until it is found.

A range is looked through in stretches, so that the first recording of a month of them is known at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from vx.archive.pattern import EVERYTHING, Fields, NamePattern

_TIE_US = 1
_FIRST_STRETCH_US = 300_000_000


@dataclass(frozen=True, order=True)
class Segment:
    """One recording: `start_us` is the time in its name."""

    start_us: int
    path: str


@dataclass(frozen=True)
class Found:
    """Recordings in the order of their start; `notes` say what could not be looked at."""

    segments: tuple[Segment, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Directory:
    path: str
    depth: int
    fields: Fields
    span: tuple[int, int] = EVERYTHING


@dataclass
class Recordings:
    """One camera's recordings. Every call looks at the disk anew; instances are cheap."""

    pattern: NamePattern
    zone: ZoneInfo
    _notes: list[str] = field(default_factory=list)
    _listed: dict[str, list[str]] = field(default_factory=dict)
    """What each directory held, within one search: its looks meet in the same directories."""

    @classmethod
    def of(cls, pattern: str, timezone: str) -> Recordings:
        """By the text of the pattern and the IANA name of the zone. ValueError where they are neither."""
        return cls(NamePattern.parse(pattern), ZoneInfo(timezone))

    def find(self, start_us: int, end_us: int) -> Iterator[Found]:
        """All that can hold something of start <= t < end: the last one at or before it, and those that begin in it.

        In the order of their start, as far as they are known; a note comes once. Whether the first one reaches into
        the range only its content can tell.
        """
        told: set[str] = set()
        first = self._last_before(start_us + _TIE_US)
        listed = self._listed  # `last_before` may be asked in between
        yield self._found([] if first is None else [first], told)
        begin_us, stretch_us = start_us + _TIE_US, _FIRST_STRETCH_US
        while begin_us < end_us:
            until_us = min(begin_us + stretch_us, end_us)
            self._listed = listed
            found = self._between(begin_us, until_us)
            yield self._found(found, told)
            begin_us, stretch_us = until_us, 2 * stretch_us

    def last_before(self, moment_us: int) -> Found:
        """The last recording that began before `moment_us`, if there is any: for going further back, step by step."""
        segment = self._last_before(moment_us)
        return self._found([] if segment is None else [segment])

    def first_from(self, start_us: int, end_us: int) -> Found:
        """All that begin in start <= t < end, without the one before."""
        return self._found(self._between(start_us, end_us))

    def covering(self, start_us: int, end_us: int) -> Found:
        """All that `find` finds, at once."""
        first = self._last_before(start_us + _TIE_US)
        return self._found([*([first] if first else []), *self._between(start_us + _TIE_US, end_us)])

    def _found(self, segments: list[Segment], told: set[str] | None = None) -> Found:
        notes = [note for note in self._notes if told is None or note not in told]
        if told is not None:
            told.update(notes)
        self._notes = []
        self._listed = {}
        return Found(tuple(segments), tuple(notes))

    def _between(self, start_us: int, end_us: int) -> list[Segment]:
        found: list[Segment] = []
        pending = [_Directory(self.pattern.root, 0, {})]
        while pending:
            directory = pending.pop()
            if directory.span[0] >= end_us or directory.span[1] <= start_us:
                continue
            if directory.depth < len(self.pattern.levels) - 1:
                pending += self._below(directory)
            else:
                found += (s for s in self._files(directory, start_us, end_us) if start_us <= s.start_us < end_us)
        return sorted(found)

    def _last_before(self, moment_us: int) -> Segment | None:
        best: Segment | None = None
        pending = [_Directory(self.pattern.root, 0, {})]
        while pending:
            directory = pending.pop()
            if directory.span[0] >= moment_us or (best is not None and directory.span[1] <= best.start_us):
                continue
            if directory.depth < len(self.pattern.levels) - 1:
                # the one that may hold the latest time is looked at first (it is popped last-in, first-out)
                pending += sorted(self._below(directory), key=lambda d: d.span)
                continue
            for segment in self._newest_first(directory, moment_us):
                if best is None or segment > best:
                    best = segment
        return best

    def _below(self, directory: _Directory) -> list[_Directory]:
        level = self.pattern.levels[directory.depth]
        depth = directory.depth + 1
        if level.fixed is not None:
            return [_Directory(f"{directory.path}/{level.fixed}", depth, directory.fields, directory.span)]
        below: list[_Directory] = []
        for name in self._names(directory):
            fields = level.read(name, directory.fields)
            span = None if fields is None else self.pattern.span_us(fields, self.zone)
            if fields is not None and span is not None:
                below.append(_Directory(_join(directory.path, name), depth, fields, span))
        return below

    def _files(self, directory: _Directory, begin_us: int, end_us: int) -> Iterator[Segment]:
        """The recordings in a directory of the last level; with names that sort, only those near the range."""
        names = self._names(directory)
        bounds = self.pattern.bounds(self.pattern.levels[-1], begin_us, end_us, self.zone)
        if bounds is not None:
            low, high = bounds
            names = [name for name in names if low <= name < high]
        yield from self._read(directory, names)

    def _newest_first(self, directory: _Directory, moment_us: int) -> Iterator[Segment]:
        """Candidates for the last recording before a time: all, or with names that sort the few at the end."""
        names = self._names(directory)
        bounds = self.pattern.bounds(self.pattern.levels[-1], moment_us, moment_us, self.zone)
        if bounds is None:
            yield from (s for s in self._read(directory, names) if s.start_us < moment_us)
            return
        names = [name for name in names if name < bounds[1]]
        while names:
            last = next(self._read(directory, [max(names)]), None)
            low = max(names)
            if last is not None:
                near = self.pattern.bounds(self.pattern.levels[-1], last.start_us, last.start_us, self.zone)
                assert near is not None, "the level sorted a moment ago"
                low = min(low, near[0])
            found = [s for s in self._read(directory, [n for n in names if n >= low]) if s.start_us < moment_us]
            yield from found
            if found:
                return
            names = [name for name in names if name < low]

    def _read(self, directory: _Directory, names: list[str]) -> Iterator[Segment]:
        level = self.pattern.levels[-1]
        for name in names:
            fields = level.read(name, directory.fields)
            start_us = None if fields is None else self.pattern.start_us(fields, self.zone)
            if fields is None or start_us is None:
                continue
            path = _join(directory.path, name)
            later_us = self.pattern.second_reading_us(fields, self.zone)
            if later_us is not None and later_us > start_us and _was_closed(path, later_us, 2 * later_us - start_us):
                start_us = later_us
            yield Segment(start_us, path)

    def _names(self, directory: _Directory) -> list[str]:
        names = self._listed.get(directory.path)
        if names is None:
            names = self._listed[directory.path] = self._list(directory.path)
        return names

    def _list(self, path: str) -> list[str]:
        try:
            return os.listdir(path)  # noqa: PTH208 - names alone: a Path for each of 100,000 takes a second
        except NotADirectoryError:
            return []  # a file between the directories is somebody else's
        except FileNotFoundError:
            # an hour in which this camera recorded nothing has no folder; a root that isn't there is worth telling
            if path == self.pattern.root:
                self._notes.append(f"{path}: there is no such directory")
            return []
        except OSError as error:
            self._notes.append(f"{path}: can't be listed: {error.strerror}")
            return []


def _was_closed(path: str, begin_us: int, end_us: int) -> bool:
    """Whether the file was last written to from `begin_us` on, before `end_us`.

    Of a local time that happens twice, this tells a recording's reading, if it is shorter than what lies between the
    two. A file whose time is elsewhere (it is longer, or a copy) tells nothing.
    """
    try:
        written_us = os.stat(path).st_mtime_ns // 1000  # noqa: PTH116
    except OSError:
        return False
    return begin_us <= written_us < end_us


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"
