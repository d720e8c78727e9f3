"""A whole file: from the boxes that lie in it one behind the other to its tracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vx.mp4.boxes import Mp4Error, Span, check_place, read_head
from vx.mp4.fragments import Fragments
from vx.mp4.movie import Movie, Track, read_movie
from vx.mp4.tables import Chunks

LARGEST_MOOV = 256 << 20
LARGEST_MOOF = 8 << 20
MOST_BOXES = 1_000_000
"""In a file; a day in fragments of half a second has half as many."""
_FIRST = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid")
"""What MP4 files begin with."""
_AHEAD = 4096
"""Bytes read at a time while boxes are looked for: a fragment's whole table, mostly."""

Positions = npt.NDArray[np.int64]

Read = Callable[[int, int], bytes]
"""`read(offset, length)`: these bytes of the file, fewer only where it ends."""


class UnderWayError(Mp4Error):
    """There is no table in the file yet: it is being written, or was never finished."""


@dataclass(slots=True)
class Recording:
    """What a file holds."""

    tracks: list[Track]
    is_fragmented: bool
    is_whole: bool
    """False: it ends within a fragment, which is left out."""
    runs: list[Span]
    """The stretches of the file that the samples of all tracks fill without a hole."""


Hint = Callable[[int, int], None]
"""`hint(offset, length)`: these bytes are read soon."""


def read_recording(read: Read, size: int, hint: Hint = lambda _offset, _length: None) -> Recording:
    """Find out what a file of `size` bytes holds, without its media.

    Mp4Error where anything is in doubt, UnderWayError where the table is missing. All samples of the tracks that have
    a description lie in the file's mdat boxes, and no two overlap.
    """
    movie: Movie | None = None
    fragments: Fragments | None = None
    held: tuple[bytes, int] | None = None
    """A fragment's table and place; its samples follow it."""
    mdats: list[Span] = []
    window, window_at = b"", 0
    at = count = 0
    whole = True
    while at < size:
        if at + 8 > size:
            whole = False
            break
        if not window_at <= at <= window_at + len(window) - 16:
            window, window_at = read(at, min(_AHEAD, size - at)), at
        kind, length, box_size = read_head(window, at - window_at)
        if at == 0 and kind not in _FIRST:
            raise Mp4Error("it is no MP4 file")
        check_place(kind, b"")
        end = at + box_size if box_size else size
        count += 1
        if count > MOST_BOXES:
            raise Mp4Error(f"more than {MOST_BOXES} boxes")
        if end > size or (not box_size and kind != b"mdat"):
            whole = False
            break
        content = Span(at + length, end)
        if kind == b"mdat":
            mdats.append(content)
            if end < size:
                hint(end, min(_AHEAD, size - end))
            if held is not None and fragments is not None:
                fragments.add(*held, size)
                held = None
        elif kind == b"moov":
            if movie is not None:
                raise Mp4Error("it has two moov boxes")
            movie = read_movie(_content(read, content, LARGEST_MOOV, "moov"), size)
            fragments = Fragments(movie) if movie.is_fragmented else None
        elif kind == b"moof":
            if fragments is None:
                raise Mp4Error("its fragments come ahead of their moov box")
            if held is not None:
                fragments.add(*held, size)
            inside = content.begin - window_at
            if content.end <= window_at + len(window):
                held = window[inside : content.end - window_at], at
            else:
                held = _content(read, content, LARGEST_MOOF, "moof"), at
        at = end
    if movie is None:
        raise UnderWayError("it is broken, or still being written")
    if not movie.is_fragmented and not whole:
        raise Mp4Error("it is truncated")
    for track in movie.tracks:
        if track.whole_until is not None and not track.samples.shows_after(track.whole_until):
            track.whole_until = None
    runs = check_places(movie.tracks, mdats)
    return Recording(movie.tracks, movie.is_fragmented, whole and held is None, runs)


def _content(read: Read, span: Span, largest: int, kind: str) -> bytes:
    length = span.end - span.begin
    if length > largest:
        raise Mp4Error(f"its {kind} box has {length} bytes")
    data = read(span.begin, length)
    if len(data) != length:
        raise Mp4Error("it became shorter while it was read")
    return data


def check_places(tracks: list[Track], mdats: list[Span]) -> list[Span]:
    """All chunks lie in mdat boxes, apart from each other, those of each track in rising order.

    Returns the stretches of the file that they fill without a hole.
    """
    columns = [track.samples.chunks for track in tracks if len(track.samples)]
    if not columns:
        return []
    limit = max((mdat.end for mdat in mdats), default=0)
    for chunks in columns:
        offsets = np.asarray(chunks.offsets)
        if (offsets[1:] < offsets[:-1]).any():
            raise Mp4Error("its chunks are in an unusual order")
        if not mdats or offsets[-1] > limit:
            raise Mp4Error("its samples are not in its mdat boxes")
    begins, ends, borders = extents(columns)
    if (ends[:-1] > begins[1:]).any():
        raise Mp4Error("two of its samples overlap")
    spans = np.array(mdats)
    behind = np.maximum.accumulate(ends.searchsorted(spans[:, 1], "right"))
    """How many chunks end within each mdat box or ahead of it."""
    ahead = np.concatenate(([0], behind[:-1]))
    holding = behind > ahead
    if behind[-1] < len(ends) or (begins[ahead[holding]] < spans[holding, 0]).any():
        raise Mp4Error("its samples are not in its mdat boxes")
    return between(begins, ends, borders)


def filled(columns: Sequence[Chunks]) -> list[Span]:
    """The stretches of the file that chunks fill without a hole. There is at least one, and they lie in the file."""
    return between(*extents(columns))


def between(begins: Positions, ends: Positions, borders: Positions) -> list[Span]:
    """The stretches from border to border, which are numbers of chunks from 1 on."""
    firsts, lasts = begins[[0, *borders]], ends[[*(borders - 1), -1]]
    return [Span(*run) for run in zip(firsts.tolist(), lasts.tolist(), strict=True)]


def extents(columns: Sequence[Chunks]) -> tuple[Positions, Positions, Positions]:
    """Where the chunks begin and end, rising, and the numbers of those ahead of which there is a hole.

    The chunks lie in a file: their offsets are smaller than 2^63.
    """
    offsets = np.concatenate([np.asarray(chunks.offsets) for chunks in columns]).view(np.int64)
    lengths = np.concatenate([np.asarray(chunks.lengths) for chunks in columns]).view(np.int64)
    begins, ends = np.sort(offsets, kind="stable"), np.sort(offsets + lengths, kind="stable")
    return begins, ends, np.flatnonzero(ends[:-1] != begins[1:]) + 1
