"""The header of a new file over samples that lie elsewhere: ftyp, moov, and the head of one mdat.

The table comes first, so that the file plays while it is downloaded. The mdat's size has 64 bits always, and offsets
where the samples may need it: how long the header is depends on no offset. A file that grows (vx.mp4.growing) has the
same table at its end. There are no edit lists but an empty one for
a track that begins later than the file: what is hidden by an edit list, some players show. Pictures that are stored in
another order than shown have signed shifts instead (ctts version 1), so that the first one is shown at 0.
"""

from __future__ import annotations

import itertools
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vx.mp4.boxes import make, make_full
from vx.mp4.movie import UPRIGHT
from vx.mp4.tables import Runs, shifted, to_big_endian, total

MOVIE_SCALE = 90_000
"""Ticks a second of what is said of the movie as a whole."""
MDAT_HEAD = 16
_FITS_32_BITS = (1 << 32) - (1 << 29)
"""Bytes of samples; a header is never so long that it brings an offset beyond 32 bits then."""
_EPOCH_S = 2_082_844_800
"""From 1904, where MP4 begins to count, to 1970."""
_UNDETERMINED = 0x55C4
"""`und`, packed."""
_MEDIA_HEADERS = {
    b"vide": make_full(b"vmhd", 0, 1, bytes(8)),
    b"soun": make_full(b"smhd", 0, 0, bytes(4)),
    b"sbtl": make_full(b"nmhd", 0, 0),
}
_DATA_HERE = make(b"dinf", make_full(b"dref", 0, 0, struct.pack(">I", 1), make_full(b"url ", 0, 1)))
_TAGS = {"title": b"\xa9nam", "comment": b"\xa9cmt", "description": b"desc"}
_TEXT_KIND = 1


@dataclass(slots=True)
class TrackTables:
    """A track of the file to be."""

    handler: bytes
    name: str
    timescale: int
    entry: bytes
    """The sample description."""
    matrix: bytes = UPRIGHT
    size: tuple[int, int] = (0, 0)
    delay: int = 0
    """Ticks from the file's begin until the first sample is shown."""
    lead: int = 0
    """Ticks of the track ahead of that; `shifts` count from there."""
    sizes: array[int] = field(default_factory=lambda: array("I"))
    deltas: Runs = field(default_factory=list)
    shifts: Runs = field(default_factory=list)
    """Of when samples are shown, against when they are decoded, counted from the first one on."""
    keys: array[int] | None = None
    """Numbers from 0 on; None: every sample."""
    chunk_counts: array[int] = field(default_factory=lambda: array("I"))
    """How many samples each chunk has."""
    chunk_offsets: array[int] = field(default_factory=lambda: array("Q"))
    """From the first byte of the mdat's content on, or of the file."""


def build_header(tracks: Sequence[TrackTables], payload: int, *, created_us: int, tags: Mapping[str, str]) -> bytes:
    """All bytes ahead of the `payload` bytes of samples. `created_us` is when what it shows began."""
    ftyp = build_type(tracks)
    movie = Movie(tracks, payload, created_us=created_us, tags=tags)
    return b"".join((ftyp, movie.finish(len(ftyp) + movie.size + MDAT_HEAD), build_mdat_head(payload)))


def build_type(tracks: Sequence[TrackTables]) -> bytes:
    """The ftyp box."""
    brands = [b"isom", b"iso4", b"mp42"]
    codecs = {track.entry[4:8] for track in tracks}
    brands += [brand for entry, brand in ((b"avc1", b"avc1"), (b"hvc1", b"hvc1")) if entry in codecs]
    return make(b"ftyp", b"iso4", struct.pack(">I", 0x200), *brands)


def build_mdat_head(payload: int) -> bytes:
    """The head of an mdat with so many bytes."""
    return struct.pack(">I4sQ", 1, b"mdat", MDAT_HEAD + payload)


class Movie:
    """A moov box but for its offsets."""

    def __init__(
        self,
        tracks: Sequence[TrackTables],
        payload: int,
        *,
        created_us: int,
        tags: Mapping[str, str],
        extends: bytes = b"",
    ) -> None:
        """`payload`: offsets count up to so many bytes. `extends`: a further box, which says that fragments follow."""
        created = created_us // 1_000_000 + _EPOCH_S
        kinds = [track.handler for track in tracks]
        width = 4 if payload < _FITS_32_BITS else 8
        self._parts = [
            _Track(i + 1, track, created, width, is_first=track.handler not in kinds[:i])
            for i, track in enumerate(tracks)
        ]
        duration = max((part.duration for part in self._parts), default=0)
        self._first = _mvhd(created, duration, len(self._parts) + 1)
        self._last = extends + _udta(tags)
        self.size = 8 + len(self._first) + sum(part.size for part in self._parts) + len(self._last)

    def finish(self, base: int) -> bytes:
        """The box, given the position from which on the chunks' offsets count."""
        pieces = [piece for part in self._parts for piece in part.finish(base)]
        return b"".join((_head(b"moov", self.size), self._first, *pieces, self._last))


class _Track:
    """A trak box but for its offsets."""

    def __init__(self, number: int, track: TrackTables, created: int, width: int, *, is_first: bool) -> None:
        self._track = track
        length = total(track.deltas)
        shown = _to_movie(length, track.timescale)
        delay = _to_movie(track.delay, track.timescale)
        self.duration = shown + delay
        long = _is_long(self.duration)
        form = ">QQIIQ" if long else ">IIIII"
        self._tkhd = make_full(
            b"tkhd",
            int(long),
            3 if is_first else 2,  # in the movie; of each kind one is enabled, as libav does it
            struct.pack(form, created, created, number, 0, self.duration),
            struct.pack(">8xhhhH", 0, _GROUPS.get(track.handler, 0), 0x100 if track.handler == b"soun" else 0, 0),
            track.matrix,
            struct.pack(">II", *track.size),
        )
        self._edts = b""
        if delay or track.lead:
            form = ">QqI" if long else ">IiI"
            edits = [struct.pack(form, delay, -1, 0x10000)] if delay else []
            edits.append(struct.pack(form, shown, track.lead, 0x10000))
            self._edts = make(b"edts", make_full(b"elst", int(long), 0, struct.pack(">I", len(edits)), *edits))
        long = _is_long(length)
        form = ">QQIQHH" if long else ">IIIIHH"
        mdhd = struct.pack(form, created, created, track.timescale, length, _UNDETERMINED, 0)
        self._media = make_full(b"mdhd", int(long), 0, mdhd) + make_full(
            b"hdlr", 0, 0, struct.pack(">I4s12x", 0, track.handler), track.name.encode() + b"\0"
        )
        self._tables = b"".join(_tables(track))
        self._width = width
        offsets = 16 + width * len(track.chunk_offsets)
        self._stbl = 8 + len(self._tables) + offsets
        self._minf = 8 + len(_MEDIA_HEADERS[track.handler]) + len(_DATA_HERE) + self._stbl
        self._mdia = 8 + len(self._media) + self._minf
        self.size = 8 + len(self._tkhd) + len(self._edts) + self._mdia

    def finish(self, base: int) -> list[bytes]:
        """The pieces of the box, given where the samples begin: of a day it has 50 MB, which are copied once."""
        offsets = np.asarray(shifted(self._track.chunk_offsets, base))
        kind, form = (b"co64", ">u8") if self._width == 8 else (b"stco", ">u4")
        chunks = make_full(kind, 0, 0, struct.pack(">I", len(offsets)), offsets.astype(form).tobytes())
        return [
            *(_head(b"trak", self.size), self._tkhd, self._edts),
            *(_head(b"mdia", self._mdia), self._media),
            *(_head(b"minf", self._minf), _MEDIA_HEADERS[self._track.handler], _DATA_HERE),
            *(_head(b"stbl", self._stbl), self._tables, chunks),
        ]


def _head(kind: bytes, size: int) -> bytes:
    return struct.pack(">I4s", size, kind)


_GROUPS = {b"vide": 0, b"soun": 1, b"sbtl": 2}
"""Tracks of one kind are alternatives for players that show one (alternate_group); pictures are not."""


def _tables(track: TrackTables) -> list[bytes]:
    count = len(track.sizes)
    tables = [
        make_full(b"stsd", 0, 0, struct.pack(">I", 1), track.entry),
        make_full(b"stts", 0, 0, struct.pack(">I", len(track.deltas)), _pairs(track.deltas, "I")),
    ]
    if any(shift for _, shift in track.shifts):
        version = int(any(shift < 0 for _, shift in track.shifts))
        tables.append(make_full(b"ctts", version, 0, struct.pack(">I", len(track.shifts)), _pairs(track.shifts, "i")))
    if track.keys is not None and len(track.keys) != count:
        keys = array("I", [key + 1 for key in track.keys])
        tables.append(make_full(b"stss", 0, 0, struct.pack(">I", len(keys)), to_big_endian(keys)))
    tables.append(make_full(b"stsz", 0, 0, struct.pack(">II", 0, count), to_big_endian(track.sizes)))
    counts = np.asarray(track.chunk_counts)
    changes = np.concatenate(([0], np.flatnonzero(counts[1:] != counts[:-1]) + 1))[: len(counts)]
    entries = np.ones((len(changes), 3), ">u4")
    entries[:, 0], entries[:, 1] = changes + 1, counts[changes]
    tables.append(make_full(b"stsc", 0, 0, struct.pack(">I", len(entries)), entries.tobytes()))
    return tables


def _pairs(runs: Runs, kind: str) -> bytes:
    """Counts and values, which have 32 bits each. OverflowError where one has more."""
    return to_big_endian(array(kind, itertools.chain.from_iterable(runs)))


def _to_movie(ticks: int, timescale: int) -> int:
    return (2 * ticks * MOVIE_SCALE + timescale) // (2 * timescale)


def _is_long(value: int) -> bool:
    return value >= 1 << 32


def _mvhd(created: int, duration: int, next_number: int) -> bytes:
    long = _is_long(duration)
    times = struct.pack(">QQIQ" if long else ">IIII", created, created, MOVIE_SCALE, duration)
    rest = struct.pack(">IH10x", 0x10000, 0x100) + UPRIGHT + bytes(24) + struct.pack(">I", next_number)
    return make_full(b"mvhd", int(long), 0, times, rest)


def _udta(tags: Mapping[str, str]) -> bytes:
    """What the file says of itself, where players look for it (iTunes' tags)."""
    items = b"".join(
        make(_TAGS[name], make(b"data", struct.pack(">II", _TEXT_KIND, 0), text.encode()))
        for name, text in tags.items()
        if name in _TAGS and text
    )
    if not items:
        return b""
    hdlr = make_full(b"hdlr", 0, 0, struct.pack(">I4s4s9x", 0, b"mdir", b"appl"))
    return make(b"udta", make_full(b"meta", 0, 0, hdlr, make(b"ilst", items)))
