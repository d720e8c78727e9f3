"""A file that grows by fragments, and is flat in the end: it can be read whenever its writer is killed.

It begins with room for the head of an mdat, and a moov box without samples. Each fragment is a moof box and the samples
that this lists. In the end the table of all samples is written behind them, and the room filled in: moov, moof and all
are then inside one mdat, which the table looks into. ISO/IEC 14496-12 describes the boxes (8.8).

Until then pictures that are stored in another order than shown have shifts that are not negative, and an edit list that
takes them back: libav, given negative ones in a fragment, shows all of them later.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vx.mp4.boxes import make, make_full
from vx.mp4.build import MDAT_HEAD, Movie, TrackTables, build_mdat_head, build_type

Numbers = npt.NDArray[np.int64]

LARGEST_FRAGMENT = 1 << 31
"""Bytes; offsets in it have 31 bits."""
_IS_KEY, _IS_NO_KEY = 0x02000000, 0x01010000
"""Flags of a sample: what it depends on, and whether it is no key frame."""
_BASE_IS_MOOF = 0x020000
_DEFAULT_FLAGS = 0x20
_OFFSET, _DURATION, _SIZE, _FLAGS, _SHIFT = 0x1, 0x100, 0x200, 0x400, 0x800
_RUN_HEAD = 5
"""32-bit numbers of a trun box ahead of its samples."""


@dataclass(slots=True)
class TrackFragment:
    """What a fragment holds of a track; one entry a sample, but for the chunks."""

    number: int
    """Of the track, from 1 on."""
    begins: int
    """When the first one is decoded, in the track's ticks from its first sample on."""
    durations: Numbers
    sizes: Numbers
    shifts: Numbers
    """Not negative, see `lead_of`."""
    are_keys: npt.NDArray[np.bool_] | None
    """None: all of them are."""
    chunk_counts: Numbers
    chunk_places: Numbers
    """From the first byte of the fragment's samples on."""


def build_opening(tracks: Sequence[TrackTables], *, created_us: int, tags: Mapping[str, str]) -> tuple[bytes, int]:
    """What the file begins with, and where in it the room is. Of the tracks' samples nothing is said yet."""
    defaults = (make_full(b"trex", 0, 0, struct.pack(">5I", i + 1, 1, 0, 0, 0)) for i in range(len(tracks)))
    movie = Movie(
        [_without_samples(track) for track in tracks],
        0,
        created_us=created_us,
        tags=tags,
        extends=make(b"mvex", *defaults),
    )
    kind = build_type(tracks)
    return b"".join((kind, make(b"free", bytes(MDAT_HEAD - 8)), movie.finish(0))), len(kind)


def lead_of(track: TrackTables) -> int:
    """What has to be added to the track's shifts in the fragments. `track` is what the file was opened with.

    Its samples may say that more is needed than its own `lead`.
    """
    return max(track.lead, *(-shift for _, shift in track.shifts)) if track.shifts else track.lead


def _without_samples(track: TrackTables) -> TrackTables:
    return TrackTables(
        handler=track.handler,
        name=track.name,
        timescale=track.timescale,
        entry=track.entry,
        matrix=track.matrix,
        size=track.size,
        delay=track.delay,
        lead=lead_of(track),
    )


def build_fragment(number: int, tracks: Sequence[TrackFragment], payload: int) -> bytes:
    """All bytes ahead of the `payload` bytes of samples of the fragment with this number, from 1 on."""
    runs = [_Runs(track) for track in tracks]
    size = 8 + 16 + sum(run.size for run in runs)
    head = make_full(b"mfhd", 0, 0, struct.pack(">I", number))
    moof = make(b"moof", head, *(run.finish(size + 8) for run in runs))
    return moof + struct.pack(">I4s", 8 + payload, b"mdat")


def build_end(
    tracks: Sequence[TrackTables], size: int, room: int, *, created_us: int, tags: Mapping[str, str]
) -> tuple[bytes, bytes]:
    """What makes a file of `size` bytes flat: what is written at its end, and after that into the room.

    The chunks' offsets count from the file's first byte on. OverflowError where a time is too large.
    """
    movie = Movie(tracks, size, created_us=created_us, tags=tags)
    return movie.finish(0), build_mdat_head(size - room - MDAT_HEAD)


class _Runs:
    """A traf box but for its offsets: one trun box for each chunk."""

    def __init__(self, track: TrackFragment) -> None:
        self._track = track
        columns = [track.durations, track.sizes]
        flags = _OFFSET | _DURATION | _SIZE
        if track.are_keys is not None:
            columns.append(np.where(track.are_keys, _IS_KEY, _IS_NO_KEY))
            flags |= _FLAGS
        if track.shifts.any():
            columns.append(track.shifts)
            flags |= _SHIFT
        self._columns = columns
        self._flags = flags
        self._words = _RUN_HEAD * len(track.chunk_counts) + len(columns) * len(track.sizes)
        self._head = make_full(
            b"tfhd", 0, _BASE_IS_MOOF | _DEFAULT_FLAGS, struct.pack(">II", track.number, _IS_KEY)
        ) + make_full(b"tfdt", 1, 0, struct.pack(">Q", track.begins))
        self.size = 8 + len(self._head) + 4 * self._words

    def finish(self, base: int) -> bytes:
        """The box, given where the samples begin, from the moof box on."""
        counts, width = self._track.chunk_counts, len(self._columns)
        firsts = np.cumsum(counts) - counts
        heads = _RUN_HEAD * np.arange(len(counts)) + width * firsts
        words = np.zeros(self._words, np.int64)
        words[heads] = 4 * (_RUN_HEAD + width * counts)
        words[heads + 1] = int.from_bytes(b"trun")
        words[heads + 2] = 1 << 24 | self._flags
        words[heads + 3] = counts
        words[heads + 4] = base + self._track.chunk_places
        ahead = np.repeat(_RUN_HEAD * np.arange(1, len(counts) + 1), counts)
        samples = ahead + width * np.arange(len(self._track.sizes))
        for i, column in enumerate(self._columns):
            words[samples + i] = column
        return make(b"traf", self._head, words.astype(">i8").view(">u4")[1::2].tobytes())
