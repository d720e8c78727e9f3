"""A recording as bytes that are kept: the columns of its tables, to be read again in a fraction of a millisecond.

What is read again is held to the same as what a file says: counts agree, all samples lie in the file, none overlap.
Numbers are in this machine's order of bytes.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from array import array
from operator import ge

import msgspec

from vx.mp4.boxes import Mp4Error, Span
from vx.mp4.description import Description
from vx.mp4.movie import LARGEST_SHIFT_S, LARGEST_TIME, MOST_TRACKS, Track
from vx.mp4.recording import Recording, check_places
from vx.mp4.tables import Chunks, Runs, Samples, chunk_lengths, total

_HEAD = struct.Struct("=8sI")
_MAGIC = b"vxindex2"


class _Track(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    id: int
    handler: bytes
    timescale: int
    description: tuple[str, bytes, bytes] | None
    matrix: bytes
    size: tuple[int, int]
    origin: int
    whole_until: int | None
    start: int
    sizes: bytes
    deltas: bytes
    shifts: bytes
    keys: bytes
    offsets: bytes
    counts: bytes


class _Stored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    key: tuple[int, ...]
    is_fragmented: bool
    is_whole: bool
    tracks: list[_Track]


def pack(recording: Recording, key: tuple[int, ...]) -> bytes:
    """The recording's tables; `key` is what it has to be asked for by. OverflowError where a number is too large."""
    tracks = [_pack(track) for track in recording.tracks]
    body = _encode(_Stored(key, recording.is_fragmented, recording.is_whole, tracks))
    return _HEAD.pack(_MAGIC, zlib.crc32(body)) + body


def _pack(track: Track) -> _Track:
    samples, about = track.samples, track.description
    return _Track(
        id=track.id,
        handler=track.handler,
        timescale=track.timescale,
        description=None if about is None else (about.codec, about.entry, about.configuration),
        matrix=track.matrix,
        size=track.size,
        origin=track.origin,
        whole_until=track.whole_until,
        start=samples.start,
        sizes=samples.sizes.tobytes(),
        deltas=_pack_runs(samples.deltas),
        shifts=_pack_runs(samples.shifts),
        keys=samples.keys.tobytes(),
        offsets=samples.chunks.offsets.tobytes(),
        counts=samples.chunks.counts.tobytes(),
    )


def _pack_runs(runs: Runs) -> bytes:
    return array("q", itertools.chain.from_iterable(runs)).tobytes()


def unpack(data: bytes, key: tuple[int, ...], file_size: int) -> Recording:
    """What `pack` was given. Mp4Error unless it is that, for this key, and can be of a file of `file_size` bytes."""
    if len(data) < _HEAD.size:
        raise Mp4Error("it is cut short")
    magic, checksum = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC or checksum != zlib.crc32(body):
        raise Mp4Error("it is damaged, or of another version")
    try:
        stored = _decode(body)
        if stored.key != key:
            raise Mp4Error("it is of another file")
        if len(stored.tracks) > MOST_TRACKS:
            raise Mp4Error("it has too many tracks")
        tracks = [_unpack(track) for track in stored.tracks]
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise Mp4Error(f"it makes no sense: {error}") from None
    runs = check_places(tracks, [Span(0, file_size)])
    return Recording(tracks, stored.is_fragmented, stored.is_whole, runs)


def _unpack(track: _Track) -> Track:
    sizes, counts, keys = array("I", track.sizes), array("I", track.counts), array("I", track.keys)
    offsets = array("Q", track.offsets)
    deltas, shifts = _unpack_runs(track.deltas, len(sizes)), _unpack_runs(track.shifts, len(sizes))
    if sum(counts) != len(sizes) or len(counts) != len(offsets) or 0 in counts:
        raise Mp4Error("its chunks are of another number of samples")
    if any(delta <= 0 for _, delta in deltas) or total(deltas) > LARGEST_TIME or not 0 <= track.start <= LARGEST_TIME:
        raise Mp4Error("its samples have absurd times")
    if not 0 < track.timescale < 1 << 31 or any(abs(shift) > LARGEST_SHIFT_S * track.timescale for _, shift in shifts):
        raise Mp4Error("one of its samples is shown long after it is decoded")
    if (keys and keys[-1] >= len(sizes)) or any(map(ge, keys, itertools.islice(keys, 1, None))):
        raise Mp4Error("its key frames make no sense")
    return Track(
        id=track.id,
        handler=track.handler,
        timescale=track.timescale,
        description=None if track.description is None else Description(*track.description),
        matrix=track.matrix,
        size=track.size,
        origin=track.origin,
        samples=Samples(
            track.start, sizes, deltas, shifts, keys, Chunks(offsets, chunk_lengths(sizes, counts), counts)
        ),
        whole_until=track.whole_until,
    )


def _unpack_runs(data: bytes, samples: int) -> Runs:
    numbers = array("q", data)
    runs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if sum(numbers[::2]) != samples or any(count <= 0 for count, _ in runs):
        raise Mp4Error("its times are of another number of samples")
    return runs


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode
