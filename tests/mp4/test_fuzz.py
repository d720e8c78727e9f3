"""The reader against damaged tables: refused, or right by libav's judgement; nothing outside the file, nothing large.

`VX_MUTANTS=50000`, as `tools/soak tables` sets it, is the full number. Then it is also measured how long one takes.
"""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mp4.judging import difference, difference_by_ffprobe, is_usable
from tests.mp4.material import read, written
from tests.mp4.mutating import NAMES, Edit, damaged, edits, mutants
from vx.mp4.boxes import Mp4Error, make, make_full
from vx.mp4.recording import Recording
from vx.mp4.stored import pack, unpack

MUTANTS = int(os.environ.get("VX_MUTANTS", "1500"))
SEEDS = 3
JUDGED_BY_FFPROBE = MUTANTS // 250
SLOWEST_S = 0.1
BESIDE = 1 << 17
"""Bytes that reading takes however small the file is."""


def read_or_refuse(data: bytes) -> Recording | None:
    """None: refused. Fails where anything outside the file is asked for."""
    asked: list[tuple[int, int]] = []
    try:
        return read(data, asked=asked)
    except Mp4Error:
        return None
    finally:
        assert all(offset >= 0 and offset + length <= len(data) for offset, length in asked)


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


@pytest.mark.parametrize("seed", range(SEEDS))
def test_mutants(seed: int, tmp_path: Path) -> None:
    refused = unusable = judged = by_ffprobe = 0
    slowest = 0.0
    for name, data in mutants(seed, MUTANTS // SEEDS):
        begin = time.thread_time()
        recording = read_or_refuse(data)
        slowest = max(slowest, time.thread_time() - begin)
        if recording is None:
            refused += 1
            continue
        check(recording, data)
        if not is_usable(recording):
            unusable += 1
            continue
        assert difference(recording, data) == "", name
        again = unpack(pack(recording, (1,)), (1,), len(data))
        assert (again.tracks, again.runs) == (recording.tracks, recording.runs)
        judged += 1
        if recording.is_whole and judged % 97 == 0 and by_ffprobe < JUDGED_BY_FFPROBE:
            (tmp_path / "one.mp4").write_bytes(data)
            assert difference_by_ffprobe(recording, tmp_path / "one.mp4") == "", name
            by_ffprobe += 1
    assert refused > MUTANTS // SEEDS // 4
    assert judged > MUTANTS // SEEDS // 8
    print(
        f"{refused} refused, {judged} right ({by_ffprobe} by ffprobe too), {unusable} with nothing to serve; "
        f"the slowest took {slowest * 1000:.0f} ms of CPU time"
    )
    if "VX_MUTANTS" in os.environ:  # a figure of the machine, so it is held where nothing else runs
        assert slowest < SLOWEST_S


@settings(max_examples=200, derandomize=True)
@given(st.sampled_from(NAMES), edits)
def test_the_smallest_damage(name: str, edits: list[Edit]) -> None:
    data = damaged(name, edits)
    recording = read_or_refuse(data)
    if recording is not None:
        check(recording, data)
        if is_usable(recording):
            assert difference(recording, data) == ""


def test_nothing_is_allocated_beyond_the_files_size() -> None:
    for name, data in mutants(11, max(150, MUTANTS // 10)):
        assert peak_of_reading(data) < len(data) + BESIDE, name


def test_samples_that_are_named_again_and_again_take_no_room() -> None:
    """A fragment of a few hundred bytes says fifty times that all of the file is samples of four bytes."""
    data = written("short fragments") + bytes(1 << 20)
    count = len(data) // 4
    tfhd = make_full(b"tfhd", 0, 0x020018, struct.pack(">III", 1, 1, 4))
    tfdt = make_full(b"tfdt", 1, 0, struct.pack(">Q", 1 << 40))
    runs = [make_full(b"trun", 0, 1, struct.pack(">Ii", count, -len(data)))] * 50
    moof = make(b"moof", make_full(b"mfhd", 0, 0, bytes(4)), make(b"traf", tfhd, tfdt, *runs))
    data = data.replace(bytes(1 << 20), make(b"free", bytes((1 << 20) - 8))) + moof + make(b"mdat")
    with pytest.raises(Mp4Error, match="more samples than the file has bytes for"):
        read(data)
    assert peak_of_reading(data) < 3 * len(data)


def peak_of_reading(data: bytes) -> int:
    """The memory that it takes, in bytes."""
    tracemalloc.start()
    try:
        read(data)
    except Mp4Error:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak
