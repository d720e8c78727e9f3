"""The `moov` box: a recording's tracks and, unless it is in fragments, all of their samples."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vx.mp4.boxes import Mp4Error, Span, at_most_one, children, is_long, need, only
from vx.mp4.description import Description, read_description
from vx.mp4.tables import Chunks, Run, Runs, Samples, chunk_lengths, expand, extend, from_big_endian, total

MOST_SAMPLES = 20_000_000
"""In one track; a day at 60 frames a second has 5 million."""
MOST_TRACKS = 64
LARGEST_TIME = 1 << 56
LARGEST_SHIFT_S = 20
"""No picture is shown so much later, or earlier, than it is decoded."""
_OTHER_KINDS = (b"text", b"sbtl", b"subt", b"subp", b"clcp", b"meta", b"hint", b"tmcd")
"""Tracks that are passed over: texts, and what recorders note beside the pictures."""
UPRIGHT = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


@dataclass(slots=True)
class Track:
    """One track of a recording."""

    id: int
    handler: bytes
    """`vide`, `soun`, or of another kind, of which no more is read."""
    timescale: int
    """Ticks a second."""
    description: Description | None
    """None: of another codec."""
    matrix: bytes
    """How the picture is to be turned (tkhd)."""
    size: tuple[int, int]
    """How large it is to be shown, in 1/65536 of a pixel; (0, 0) for sound."""
    origin: int
    """The time, in ticks of when samples are shown, at which the track begins (its edit list)."""
    samples: Samples
    whole_until: int | None = None
    """Up to when the edit list shows it, where that leaves out any of it."""


@dataclass(slots=True)
class Defaults:
    """What fragments of a track say by leaving it out (trex)."""

    duration: int
    size: int
    flags: int


@dataclass(slots=True)
class Movie:
    """What a moov box says."""

    tracks: list[Track]
    defaults: dict[int, Defaults]
    """By the track's id; a movie with any is in fragments."""
    is_fragmented: bool


def read_movie(moov: bytes, file_size: int) -> Movie:
    """Read the content of a moov box. Mp4Error where anything of it is in doubt."""
    try:
        return _read_movie(moov, file_size)
    except (struct.error, IndexError, OverflowError) as error:
        raise Mp4Error(f"its moov box is cut short ({error})") from None


def _read_movie(moov: bytes, file_size: int) -> Movie:
    boxes = children(moov, Span(0, len(moov)), b"moov")
    if b"cmov" in boxes:
        raise Mp4Error("its moov box is compressed")
    timescale = _read_timescale(moov, only(boxes, b"mvhd"), "mvhd")
    if len(boxes.get(b"trak", ())) > MOST_TRACKS:
        raise Mp4Error(f"more than {MOST_TRACKS} tracks")
    mvex = at_most_one(boxes, b"mvex")
    is_fragmented = mvex is not None
    tracks: list[Track] = []
    room = file_size  # samples don't overlap
    for trak in boxes.get(b"trak", ()):
        tracks.append(_read_track(moov, trak, timescale, room, is_fragmented=is_fragmented))
        room -= int(np.asarray(tracks[-1].samples.sizes).sum(dtype=np.int64))
        if room < 0:
            raise Mp4Error("more samples than the file has bytes for")
    if len({track.id for track in tracks}) != len(tracks):
        raise Mp4Error("two tracks have the same number")
    defaults = {}
    if mvex is not None:
        for trex in children(moov, mvex, b"mvex").get(b"trex", ()):
            need(trex, 24, "trex")
            number, description, duration, size, flags = struct.unpack_from(">5I", moov, trex.begin + 4)
            if number in defaults:
                raise Mp4Error("two trex boxes for one track")
            if description != 1:
                raise Mp4Error("its fragments are of another description")
            defaults[number] = Defaults(duration, size, flags)
    return Movie(tracks, defaults, is_fragmented)


def _read_timescale(data: bytes, span: Span, kind: str) -> int:
    need(span, 20, kind)
    long = is_long(data, span, kind)
    (timescale,) = struct.unpack_from(">I", data, span.begin + (20 if long else 12))
    if not 0 < timescale < 1 << 31:
        raise Mp4Error(f"its {kind} box counts {timescale} ticks a second")
    return int(timescale)


def _read_track(moov: bytes, trak: Span, movie_scale: int, room: int, *, is_fragmented: bool) -> Track:
    boxes = children(moov, trak, b"trak")
    tkhd = only(boxes, b"tkhd")
    long = is_long(moov, tkhd, "tkhd")
    need(tkhd, 96 if long else 84, "tkhd")
    number, *size = struct.unpack_from(">I64xII" if long else ">I60xII", moov, tkhd.begin + (20 if long else 12))
    matrix_at = tkhd.begin + (52 if long else 40)
    matrix = bytes(moov[matrix_at : matrix_at + 36])
    media = children(moov, only(boxes, b"mdia"), b"mdia")
    timescale = _read_timescale(moov, only(media, b"mdhd"), "mdhd")
    hdlr = only(media, b"hdlr")
    need(hdlr, 12, "hdlr")
    handler = bytes(moov[hdlr.begin + 8 : hdlr.begin + 12])
    track = Track(number, handler, timescale, None, matrix, (size[0], size[1]), 0, Samples())
    info = children(moov, only(media, b"minf"), b"minf")
    _check_reference(moov, only(info, b"dinf"))
    if handler in _OTHER_KINDS:
        return track
    if handler not in (b"vide", b"soun"):
        raise Mp4Error(f"it has a track of an unknown kind, {handler!r}")
    table = children(moov, only(info, b"stbl"), b"stbl")
    track.description = read_description(moov, only(table, b"stsd"), handler)
    if track.description is None:
        return track
    if handler == b"soun":
        track.matrix, track.size = UPRIGHT, (0, 0)
    track.samples = _read_samples(moov, table, room, timescale, pictures=handler == b"vide")
    edits = at_most_one(boxes, b"edts")
    if edits is not None and b"elst" in (lists := children(moov, edits, b"edts")):
        _read_edits(moov, only(lists, b"elst"), track, movie_scale, is_fragmented=is_fragmented)
    return track


def _check_reference(moov: bytes, dinf: Span) -> None:
    dref = only(children(moov, dinf, b"dinf"), b"dref")
    need(dref, 8, "dref")
    (count,) = struct.unpack_from(">I", moov, dref.begin + 4)
    entries = [*children(moov, Span(dref.begin + 8, dref.end), b"dref").values()]
    if count != 1 or len(entries) != 1 or len(entries[0]) != 1:
        raise Mp4Error("its samples may be in another file")
    need(entries[0][0], 4, "dref")
    if not moov[entries[0][0].begin + 3] & 1:
        raise Mp4Error("its samples are in another file")


def _read_edits(moov: bytes, elst: Span, track: Track, movie_scale: int, *, is_fragmented: bool) -> None:
    """Only an empty edit, and one that shows all from somewhere on: others leave out what players show all the same."""
    need(elst, 8, "elst")
    long = is_long(moov, elst, "elst")
    (count,) = struct.unpack_from(">I", moov, elst.begin + 4)
    form = struct.Struct(">QqI" if long else ">IiI")
    if count > 2 or elst.end - elst.begin != 8 + count * form.size:
        raise Mp4Error(f"an edit list of {count} parts")
    edits = [form.unpack_from(moov, elst.begin + 8 + i * form.size) for i in range(count)]
    empty = 0
    if edits and edits[0][1] == -1:
        empty = _rescale(edits[0][0], movie_scale, track.timescale)
        edits = edits[1:]
    if len(edits) != 1:
        if not edits and not empty:
            return
        raise Mp4Error("an edit list of an unusual form")
    duration, begin, rate = edits[0]
    if not (duration or is_fragmented):
        raise Mp4Error("its edit list shows nothing")
    pictures = track.handler == b"vide"
    if pictures and not is_fragmented and track.samples.sizes and track.samples.first_shown() != begin:
        raise Mp4Error("its edit list begins with another picture than its first one")
    if begin < 0 or rate != 0x10000 or begin > LARGEST_TIME or empty > LARGEST_TIME:
        raise Mp4Error("an edit list of an unusual form")
    track.origin = begin - empty
    if duration:
        track.whole_until = begin + _rescale(duration, movie_scale, track.timescale)


def _rescale(ticks: int, scale: int, other: int) -> int:
    """Ticks of another scale, rounded as libav does it."""
    return (2 * ticks * other + scale) // (2 * scale)


def _read_samples(moov: bytes, table: dict[bytes, list[Span]], room: int, timescale: int, *, pictures: bool) -> Samples:
    for kind in (b"stps", b"stdp") if pictures else ():
        if kind in table:
            raise Mp4Error(f"it has a {kind.decode()} box")
    for span in table.get(b"sbgp", ()):
        if pictures and moov[span.begin + 4 : span.begin + 8] in (b"rap ", b"sync"):
            raise Mp4Error("its key frames are told in an unusual way")
    sizes = _read_sizes(moov, table, room)
    if not np.asarray(sizes).all():
        raise Mp4Error("one of its samples is empty")
    count = len(sizes)
    deltas = _read_runs(moov, only(table, b"stts"), "stts", count)
    if any(delta <= 0 for _, delta in deltas):
        raise Mp4Error("two of its samples have the same time")
    if not pictures and deltas == [(count, 1)]:
        raise Mp4Error("its sound is laid out like sound that isn't compressed")  # so QuickTime and libav take it
    if total(deltas) > LARGEST_TIME:
        raise Mp4Error("its samples last for too long")
    ctts = at_most_one(table, b"ctts")
    shifts: Runs = [(count, 0)] if count else []
    if ctts is not None:
        shifts = _read_runs(moov, ctts, "ctts", count)
        if any(abs(shift) > LARGEST_SHIFT_S * timescale for _, shift in shifts):
            raise Mp4Error("one of its samples is shown long after it is decoded")
    keys = _read_keys(moov, at_most_one(table, b"stss"), count) if pictures else array("I")
    return Samples(0, sizes, deltas, shifts, keys, _read_chunks(moov, table, sizes))


def _read_sizes(moov: bytes, table: dict[bytes, list[Span]], room: int) -> array[int]:
    span = only(table, b"stsz")
    need(span, 12, "stsz")
    uniform, count = struct.unpack_from(">II", moov, span.begin + 4)
    if count > MOST_SAMPLES:
        raise Mp4Error(f"{count} samples")
    if uniform:
        return of_one_size(uniform, count, room)
    if span.end - span.begin < 12 + 4 * count:
        raise Mp4Error("its stsz box is cut short")
    return from_big_endian(moov[span.begin + 12 : span.begin + 12 + 4 * count])


def of_one_size(size: int, count: int, room: int) -> array[int]:
    """The sizes of so many samples of one size. Mp4Error where there is no room for so many bytes in the file.

    The table takes no more memory than the samples take bytes, whatever the numbers say.
    """
    if size * count > room:
        raise Mp4Error("more samples than the file has bytes for")
    sizes = array("I", [size])
    if size < sizes.itemsize and count:
        raise Mp4Error(f"its samples have {size} bytes each")
    return sizes * count


def _read_runs(moov: bytes, span: Span, kind: str, samples: int) -> Runs:
    """Pairs of a count and a signed value."""
    need(span, 8, kind)
    (entries,) = struct.unpack_from(">I", moov, span.begin + 4)
    if span.end - span.begin < 8 + 8 * entries or entries > MOST_SAMPLES:
        raise Mp4Error(f"its {kind} box is cut short")
    numbers = from_big_endian(moov[span.begin + 8 : span.begin + 8 + 8 * entries], "i")
    counts, values = numbers[::2], numbers[1::2]
    if sum(counts) != samples or (entries and min(counts) < 0):
        raise Mp4Error(f"its {kind} box is of another number of samples")
    runs: Runs = []
    pairs: Sequence[Run] = list(zip(counts, values, strict=True))
    extend(runs, pairs)
    return runs


def _read_keys(moov: bytes, span: Span | None, samples: int) -> array[int]:
    if span is None:
        return array("I", range(samples))
    need(span, 8, "stss")
    (count,) = struct.unpack_from(">I", moov, span.begin + 4)
    if count > samples or span.end - span.begin < 8 + 4 * count:
        raise Mp4Error("its stss box is cut short")
    if samples and not count:
        raise Mp4Error("it has no key frame")
    numbers = from_big_endian(moov[span.begin + 8 : span.begin + 8 + 4 * count])
    previous = 0
    for number in numbers:
        if not previous < number <= samples:
            raise Mp4Error("its stss box makes no sense")
        previous = number
    return array("I", [number - 1 for number in numbers])


def _read_chunks(moov: bytes, table: dict[bytes, list[Span]], sizes: array[int]) -> Chunks:
    long = b"co64" in table
    if long and b"stco" in table:
        raise Mp4Error("it has two tables of chunks")
    span = only(table, b"co64" if long else b"stco")
    need(span, 8, "stco")
    (count,) = struct.unpack_from(">I", moov, span.begin + 4)
    width = 8 if long else 4
    if count > MOST_SAMPLES or span.end - span.begin < 8 + width * count:
        raise Mp4Error("its table of chunks is cut short")
    offsets = from_big_endian(moov[span.begin + 8 : span.begin + 8 + width * count], "Q" if long else "I")
    counts = array("I", expand(_read_samples_per_chunk(moov, only(table, b"stsc"), count, len(sizes))))
    return Chunks(array("Q", offsets), chunk_lengths(sizes, counts), counts)


def _read_samples_per_chunk(moov: bytes, span: Span, chunks: int, samples: int) -> Runs:
    need(span, 8, "stsc")
    (count,) = struct.unpack_from(">I", moov, span.begin + 4)
    if count > chunks or span.end - span.begin < 8 + 12 * count:
        raise Mp4Error("its stsc box is cut short")
    numbers = from_big_endian(moov[span.begin + 8 : span.begin + 8 + 12 * count])
    firsts = [*numbers[::3], chunks + 1]
    runs: Runs = []
    for i in range(count):
        length, per_chunk = firsts[i + 1] - firsts[i], numbers[3 * i + 1]
        if length <= 0 or not per_chunk or numbers[3 * i + 2] != 1:
            raise Mp4Error("its stsc box makes no sense")
        runs.append((length, per_chunk))
    if (firsts[0] != 1 and chunks) or total(runs) != samples:
        raise Mp4Error("its stsc box is of another number of samples")
    return runs
