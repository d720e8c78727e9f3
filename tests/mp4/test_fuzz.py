"""The reader against damaged tables: refused, or right; nothing outside the file, nothing slow, nothing large.

`VX_MUTANTS=50000`, as `tools/soak tables` sets it, is the full number.
"""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from tests.mp4.material import WRITERS, read, written
from vx.mp4.boxes import Mp4Error
from vx.mp4.recording import Recording

MUTANTS = int(os.environ.get("VX_MUTANTS", "3000"))
SLOWEST_S = 0.1
INTERESTING = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def tables(data: bytes | bytearray) -> list[tuple[int, int]]:
    """Where the boxes at the top of a file are that aren't media."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found.append((at, at + (8 if kind == b"mdat" else size)))
        at += size
    return found


def mutants(rng: random.Random, count: int) -> Iterator[bytes]:
    """Files with a few numbers changed, boxes cut, doubled or swapped, or cut off."""
    names = list(WRITERS)
    for number in range(count):
        data = bytearray(written(names[number % len(names)]))
        spans = tables(data)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            begin, end = rng.choice(spans)
            at = rng.randrange(begin, max(begin + 1, min(end, len(data)) - 4))
            match rng.randrange(6):
                case 0:
                    data[at] ^= 1 << rng.randrange(8)
                case 1 | 2:
                    struct.pack_into(">I", data, at, rng.choice(INTERESTING))
                case 3:
                    (old,) = struct.unpack_from(">I", data, at)
                    struct.pack_into(">I", data, at, (old + rng.choice((-1, 1, 4, -4, 256))) & 0xFFFFFFFF)
                case 4:
                    length = rng.randrange(1, 40)
                    other = rng.randrange(begin, max(begin + 1, end - length))
                    data[at : at + length] = data[other : other + length]
                case 5 if rng.random() < 0.1:
                    del data[rng.randrange(at, len(data)) :]
            if len(data) < 64:
                break
            spans = [span for span in spans if span[1] <= len(data)] or [(0, len(data))]
        yield bytes(data)


def check(recording: Recording, data: bytes) -> None:
    """What is taken is consistent: as many of each as there are samples, all of them inside the file and apart."""
    places = []
    for track in recording.tracks:
        samples = track.samples
        count = len(samples.sizes)
        assert sum(number for number, _ in samples.deltas) == count
        assert sum(number for number, _ in samples.shifts) == count
        assert sum(samples.chunks.counts) == count
        assert all(delta > 0 for _, delta in samples.deltas)
        assert all(key < count for key in samples.keys)
        assert sum(samples.chunks.lengths) == sum(samples.sizes)
        places += list(zip(samples.chunks.offsets, samples.chunks.lengths, strict=True))
    until = 0
    for offset, length in sorted(places):
        assert offset >= until or not length
        until = max(until, offset + length)
    assert until <= len(data)


@pytest.mark.parametrize("seed", range(3))
def test_mutants(seed: int) -> None:
    rng = random.Random(seed)
    taken = refused = 0
    slowest = 0.0
    for data in mutants(rng, MUTANTS // 3):
        asked: list[tuple[int, int]] = []
        begin = time.process_time()
        try:
            recording = read(data, asked=asked)
        except Mp4Error:
            refused += 1
        else:
            taken += 1
            check(recording, data)
        slowest = max(slowest, time.process_time() - begin)
        assert all(offset >= 0 and offset + length <= len(data) for offset, length in asked)
    assert taken > MUTANTS // 300
    assert refused > MUTANTS // 30
    print(f"{taken} taken, {refused} refused, the slowest took {slowest * 1000:.0f} ms of CPU time")
    if "VX_MUTANTS" in os.environ:  # a figure of the machine, so it is held where nothing else runs
        assert slowest < SLOWEST_S


def test_nothing_is_allocated_beyond_the_files_size() -> None:
    rng = random.Random(11)
    for data in mutants(rng, 150):
        tracemalloc.start()
        try:
            read(data)
        except Mp4Error:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 8 * len(data) + (1 << 20)
