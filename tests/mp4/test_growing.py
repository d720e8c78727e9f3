"""A file that grows: whole at every fragment, by this package's reader, and the same once it is flat."""

from __future__ import annotations

import itertools
from array import array

import numpy as np
import pytest

from tests.mp4.material import read, written
from tests.mp4.test_build import CREATED_US, tables_of
from vx.mp4.build import TrackTables
from vx.mp4.growing import TrackFragment, build_end, build_fragment, build_opening, lead_of
from vx.mp4.movie import Track

SAID = {"title": "T\u00fcr"}
PARTS = 3


def fragment(number: int, track: Track, tables: TrackTables, part: slice, place: int) -> TrackFragment:
    """These samples in two chunks, the first of which has one."""
    samples = track.samples
    count = len(samples.sizes[part])
    decoded, lasting = samples.decoded(), samples.lasting()
    shown = samples.shown()
    first = min(shown)
    sizes = np.array(samples.sizes[part], np.int64)
    return TrackFragment(
        number=number,
        begins=decoded[part.start] - samples.start,
        durations=np.array(lasting[part]),
        sizes=sizes,
        shifts=np.array([s - d + samples.start - first for s, d in zip(shown, decoded, strict=True)][part])
        + lead_of(tables),
        are_keys=None if track.handler == b"soun" else np.isin(np.arange(part.start, part.stop), samples.keys),
        chunk_counts=np.array([1, count - 1]),
        chunk_places=place + np.array([0, sizes[0]]),
    )


@pytest.mark.parametrize("name", ["flat", "flat with B-frames", "fragments", "H.265"])
def test_every_fragment_adds_to_it_and_in_the_end_it_is_flat(name: str) -> None:
    data = written(name)
    recorded = read(data).tracks
    tables = [tables_of(track, "x", array("Q")) for track in recorded]
    file, room = build_opening(tables, created_us=CREATED_US, tags=SAID)
    places = [list(track.samples.places()) for track in recorded]
    counts = [len(track.samples) for track in recorded]
    offsets = [array("Q") for _ in recorded]
    for part in range(PARTS):
        slices = [slice(count * part // PARTS, count * (part + 1) // PARTS) for count in counts]
        content, parts = b"", []
        for number, track in enumerate(recorded):
            parts.append(fragment(number + 1, track, tables[number], slices[number], len(content)))
            content += b"".join(data[at : at + size] for at, size in places[number][slices[number]])
        head = build_fragment(part + 1, parts, len(content))
        for number, each in enumerate(parts):
            offsets[number].extend(len(file) + len(head) + place for place in each.chunk_places.tolist())
        file += head + content
        found = read(file)
        assert found.is_fragmented
        assert found.is_whole
        for track, again, taken in zip(recorded, found.tracks, slices, strict=True):
            same(track, again, taken.stop, data, file)
    for table, count, chunks in zip(tables, counts, offsets, strict=True):
        ends = [count * part // PARTS for part in range(PARTS + 1)]
        table.chunk_counts = array("I", [n for a, b in itertools.pairwise(ends) for n in (1, b - a - 1)])
        table.chunk_offsets = chunks
    end, head = build_end(tables, len(file), room, created_us=CREATED_US, tags=SAID)
    flat = file[:room] + head + file[room + len(head) :] + end
    found = read(flat)
    assert not found.is_fragmented
    for track, again, count in zip(recorded, found.tracks, counts, strict=True):
        same(track, again, count, data, flat)


def same(track: Track, again: Track, count: int, data: bytes, file: bytes) -> None:
    """Of the first samples all is as it was."""
    ours, theirs = again.samples, track.samples
    assert len(ours) == count
    assert [data[at : at + size] for at, size in list(theirs.places())[:count]] == [
        file[at : at + size] for at, size in ours.places()
    ]
    first, origin = min(theirs.shown()), again.origin
    assert [at - origin for at in ours.shown()] == [at - first for at in theirs.shown()[:count]]
    assert ours.lasting()[:-1] == theirs.lasting()[: count - 1]
    if track.handler == b"vide":
        assert list(ours.keys) == [key for key in theirs.keys if key < count]
