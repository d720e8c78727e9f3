"""The `moof` boxes of a file in fragments: each brings further samples of its tracks."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass

from vx.mp4.boxes import Mp4Error, Span, children, is_long, need, only
from vx.mp4.movie import LARGEST_SHIFT_S, LARGEST_TIME, MOST_SAMPLES, Defaults, Movie, Track, of_one_size
from vx.mp4.tables import Runs, compress, extend, from_big_endian, replace_last, total

_NOT_KEY = 0x01010000
"""Sample flags: it is no sync sample, or depends on others."""
_MOST_RUNS = 4096


@dataclass(slots=True)
class _Fragment:
    """What a traf box says of all its runs (tfhd)."""

    base: int
    duration: int
    size: int
    flags: int
    end: int = 0
    """Up to when its samples last, of those that were taken."""
    room: int = 0
    """How many bytes further samples can have."""


class Fragments:
    """Adds what fragments hold to a movie's tracks. After an Mp4Error the movie is of no use."""

    def __init__(self, movie: Movie) -> None:
        """Mp4Error where fragments of it would be in doubt."""
        self._tracks = {
            track.id: (track, movie.defaults[track.id])
            for track in movie.tracks
            if track.description is not None and track.id in movie.defaults
        }
        for track, _ in self._tracks.values():
            if any(shift < 0 for _, shift in track.samples.shifts):
                # libav shows all pictures of the fragments later then
                raise Mp4Error("one of its samples ahead of the fragments is shown before it is decoded")
        self._passed_over = {track.id for track in movie.tracks if track.description is None} & movie.defaults.keys()
        self._ends = {number: track.samples.end for number, (track, _) in self._tracks.items()}
        """Up to when the samples of each track last: to add that up anew takes as long as the file is."""
        self._bytes = 0
        """Of all samples; they don't overlap, so there can't be more than the file has."""

    def add(self, moof: bytes, at: int, file_size: int) -> None:
        """The content of the moof box that begins at position `at` of the file. Mp4Error where it is in doubt."""
        try:
            trafs = children(moof, Span(0, len(moof)), b"moof").get(b"traf", ())
            for traf in trafs:
                self._add_track(moof, traf, at, file_size, alone=len(trafs) == 1)
        except (struct.error, IndexError, OverflowError) as error:
            raise Mp4Error(f"one of its fragments is cut short ({error})") from None

    def _add_track(self, moof: bytes, traf: Span, at: int, file_size: int, *, alone: bool) -> None:
        boxes = children(moof, traf, b"traf")
        tfhd = only(boxes, b"tfhd")
        flags, number = struct.unpack_from(">II", moof, tfhd.begin)
        known = self._tracks.get(number)
        if known is None:
            if number not in self._passed_over:
                raise Mp4Error(f"one of its fragments is of track {number}, which it doesn't have")
            return
        track, defaults = known
        runs = boxes.get(b"trun", ())
        if not runs:
            return
        if len(runs) > _MOST_RUNS:
            raise Mp4Error(f"{len(runs)} runs in a fragment")
        fragment = _read_header(moof, tfhd, flags, defaults, at, alone=alone)
        tfdt = only(boxes, b"tfdt")
        need(tfdt, 8, "tfdt")
        (start,) = struct.unpack_from(">Q" if is_long(moof, tfdt, "tfdt") else ">I", moof, tfdt.begin + 4)
        _go_to(track, start, self._ends[number])
        fragment.end = start
        position = fragment.base
        fragment.room = file_size - self._bytes
        for run in runs:
            position = _add_run(moof, run, track, fragment, position, file_size)
        self._bytes = file_size - fragment.room
        self._ends[number] = fragment.end


def _read_header(moof: bytes, tfhd: Span, flags: int, defaults: Defaults, at: int, *, alone: bool) -> _Fragment:
    flags &= 0xFFFFFF
    position = tfhd.begin + 8

    def take(flag: int, form: str, default: int) -> int:
        nonlocal position
        if not flags & flag:
            return default
        (value,) = struct.unpack_from(form, moof, position)
        position += struct.calcsize(form)
        return int(value)

    if not flags & 0x020001 and not alone:
        raise Mp4Error("its fragments don't say where their samples are")
    base = take(0x1, ">Q", at)
    if take(0x2, ">I", 1) != 1:
        raise Mp4Error("its fragments are of another description")
    fragment = _Fragment(
        base, take(0x8, ">I", defaults.duration), take(0x10, ">I", defaults.size), take(0x20, ">I", defaults.flags)
    )
    if position > tfhd.end:
        raise Mp4Error("its tfhd box is cut short")
    return fragment


def _go_to(track: Track, start: int, end: int) -> None:
    """The next sample is decoded at this time; those that are there last up to `end`."""
    samples = track.samples
    if start > LARGEST_TIME:
        raise Mp4Error("its fragments are of an absurd time")
    if not samples.sizes:
        samples.start = start
        return
    step = start - (end - samples.deltas[-1][1])
    if step <= 0:
        raise Mp4Error("its fragments go back in time")
    replace_last(samples.deltas, step)


def _add_run(moof: bytes, trun: Span, track: Track, fragment: _Fragment, position: int, file_size: int) -> int:
    """Take the samples of a run; returns where those of the next one are if that doesn't say it."""
    need(trun, 8, "trun")
    flags, count = struct.unpack_from(">II", moof, trun.begin)
    at = trun.begin + 8
    samples = track.samples
    pictures = track.handler == b"vide"
    first_flags = fragment.flags
    if flags & 0x1:
        (offset,) = struct.unpack_from(">i", moof, at)
        position = fragment.base + offset
        at += 4
    if flags & 0x4:
        (first_flags,) = struct.unpack_from(">I", moof, at)
        at += 4
    columns = [bool(flags & column) for column in (0x100, 0x200, 0x400, 0x800)]
    width = sum(columns)
    if not width and count > MOST_SAMPLES:
        raise Mp4Error(f"{count} samples")
    if at + 4 * width * count > trun.end:
        raise Mp4Error("its trun box is cut short")
    if not count:
        return position
    table = from_big_endian(moof[at : at + 4 * width * count])
    column = iter(range(width))
    durations = table[next(column) :: width] if columns[0] else None
    sizes = table[next(column) :: width] if columns[1] else of_one_size(fragment.size, count, fragment.room)
    if 0 in sizes:
        raise Mp4Error("one of its samples is empty")
    each_flags = table[next(column) :: width] if columns[2] else None
    shifts: Runs = [(count, 0)]
    if columns[3]:
        shifts = _runs(array("i", table[next(column) :: width].tobytes()))
        if any(not 0 <= shift <= LARGEST_SHIFT_S * track.timescale for _, shift in shifts):
            # libav, in fragments, moves all pictures then, and players may not
            raise Mp4Error("one of its samples is shown before, or long after, it is decoded")
    deltas = [(count, fragment.duration)] if durations is None else _runs(durations)
    if any(not 0 < delta < 1 << 31 for _, delta in deltas):
        raise Mp4Error("two of its samples have the same time")
    length = sum(sizes)
    if position < 0 or position + length > file_size:
        raise Mp4Error("its samples reach beyond its end")
    fragment.room -= length
    if fragment.room < 0:
        raise Mp4Error("more samples than the file has bytes for")
    known = len(samples.sizes)
    if known + count > MOST_SAMPLES:
        raise Mp4Error(f"{known + count} samples")
    if pictures:
        if each_flags is not None:
            samples.keys.extend(known + i for i, value in enumerate(each_flags) if not value & _NOT_KEY)
        else:
            if not first_flags & _NOT_KEY:
                samples.keys.append(known)
            if not fragment.flags & _NOT_KEY:
                samples.keys.extend(range(known + 1, known + count))
    samples.sizes.extend(sizes)
    extend(samples.deltas, deltas)
    fragment.end += total(deltas)
    extend(samples.shifts, shifts)
    samples.chunks.add(position, length, count)
    return position + length


def _runs(values: array[int]) -> Runs:
    first = values[0]
    if values.count(first) == len(values):
        return [(len(values), first)]
    return compress(values)
