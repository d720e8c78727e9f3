"""Clips of several recordings with damaged tables: left to the packets, or the recordings' own samples, libav says.

`VX_MUTANTS=50000`, as `tools/soak tables` sets it, is the full number of recordings. Each clip is then made both ways,
served from the recordings and copied in blocks; else they take turns.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.material import SECOND, T0, FakeLink, source, virtual_bytes
from tests.mp4.judging import Packet, Stream, is_usable, streams_of
from tests.mp4.material import read
from tests.mp4.mutating import mutants
from tools.make_recordings import MEDIAMTX, segment_path
from vx.jobs import ClipJob
from vx.media.clips.clip import open_target
from vx.media.virtual import copying
from vx.media.virtual.export import export_virtual
from vx.media.virtual.stretches import DoubtError
from vx.mp4.boxes import Mp4Error

MUTANTS = int(os.environ.get("VX_MUTANTS", "600"))
IS_FULL = "VX_MUTANTS" in os.environ
AT_A_TIME = 3
SECONDS = 4
"""What each recording was of, before it was damaged."""
MOVED_S = 0.26
"""A recording that begins so near to where the last one ended follows at once."""


def groups(seed: int) -> Iterator[Sequence[bytes]]:
    """Damaged recordings of one kind each, which the reader takes."""
    waiting: dict[str, list[bytes]] = {}
    for name, data in mutants(seed, MUTANTS):
        try:
            recording = read(data)
        except Mp4Error:
            continue
        if recording.is_whole and is_usable(recording):
            found = waiting.setdefault(name, [])
            found.append(data)
            if len(found) == AT_A_TIME:
                yield waiting.pop(name)


def serve(job: ClipJob) -> list[bytes]:
    """The files of a clip that is served; none: it can't be."""
    link = FakeLink()
    try:
        assert export_virtual(job, link) is not None
    except DoubtError:
        return []
    return [virtual_bytes(Path(job.folder, done.name)) for done in link.done]


def copy(job: ClipJob) -> list[bytes]:
    """The files of a clip that is copied in blocks; none: it has to be made packet by packet."""
    link = FakeLink()
    job = msgspec.structs.replace(job, virtual=False)
    if copying.copy_in_blocks(job, 0, partial(open_target, job, job.sources[0].name), link) is None:
        return []
    return [Path(job.folder, done.name).read_bytes() for done in link.done]


WAYS = (serve, copy)


@pytest.mark.parametrize("way", WAYS)
def test_clips_of_damaged_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[ClipJob], list[bytes]]
) -> None:
    monkeypatch.setattr(copying, "_FRAGMENT", 10_000)  # so that a recording is several
    right = refused = 0
    for number, recordings in enumerate(groups(seed=7)):
        if not IS_FULL and number % len(WAYS) != WAYS.index(way):
            continue
        clips = way(record(tmp_path / "clip", recordings))
        if clips:
            check(clips, [streams_of(data, with_data=True) for data in recordings])
            right += 1
        else:
            assert not list((tmp_path / "clip" / "results").iterdir()), "something was left behind"
            refused += 1
    print(f"{way.__name__}: {right} clips of {AT_A_TIME} are right, {refused} are left to the packets")
    assert right > 2 * refused


def record(folder: Path, recordings: Sequence[bytes]) -> ClipJob:
    """A clip of all of these."""
    shutil.rmtree(folder, ignore_errors=True)
    results = folder / "results"
    results.mkdir(parents=True)
    for number, data in enumerate(recordings):
        segment_path(f"{folder}/{MEDIAMTX}", T0 + number * SECONDS * SECOND).write_bytes(data)
    year_us = 365 * 86_400 * SECOND
    return ClipJob(
        folder=str(results),
        sources=(source(folder / MEDIAMTX),),
        start_us=T0 - year_us,
        end_us=T0 + year_us,
        container="mp4",
        virtual=True,
    )


def check(clips: Sequence[bytes], recordings: Sequence[dict[int, Stream]]) -> None:
    """What is in the files are the samples of the recordings, in their order and at their times."""
    pictures = [stream.packets for streams in recordings for stream in streams.values() if stream.kind == "video"]
    sound = iter([p.data for streams in recordings for s in streams.values() if s.kind == "audio" for p in s.packets])
    left = [(number, packet) for number, packets in enumerate(pictures) for packet in packets]
    for clip in clips:
        streams = streams_of(clip, with_data=True).values()
        (video,) = [stream for stream in streams if stream.kind == "video"]
        assert video.time_base is not None
        wanted, left = left[: len(video.packets)], left[len(video.packets) :]
        assert [(p.data, p.is_key) for p in video.packets] == [(p.data, p.is_key) for _, p in wanted]
        check_times(video.packets, wanted, float(video.time_base))
        for stream in streams:
            if stream.kind == "audio":
                for packet in stream.packets:
                    assert packet.data in sound, "it was never recorded, or its turn is over"
    assert not left


def check_times(packets: Sequence[Packet], wanted: Sequence[tuple[int, Packet]], tick_s: float) -> None:
    """Each recording's pictures are moved as one; a few that come too early for those ahead of them wait for them."""
    moved = [(number, ours.shown - theirs.shown) for ours, (number, theirs) in zip(packets, wanted, strict=True)]
    assert all(a.decoded < b.decoded for a, b in itertools.pairwise(packets))
    first: tuple[int, float] | None = None
    for number, group in itertools.groupby(moved, key=lambda item: item[0]):
        by = [ticks for _, ticks in group]
        assert by == sorted(by, reverse=True)
        shown = [packet.shown for _, packet in wanted if _ == number]
        at_s = (by[-1] + min(shown)) * tick_s
        first = first or (number, at_s)
        assert abs(at_s - first[1] - (number - first[0]) * SECONDS) < MOVED_S * (number - first[0] + 1)
