"""The builder: its headers hold what they were told, by this package's reader and by ffprobe."""

from __future__ import annotations

import json
import subprocess
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mp4.material import read, written
from vx.mp4.build import TrackTables, build_header
from vx.mp4.movie import Track
from vx.mp4.recording import read_recording
from vx.mp4.tables import Runs, expand, total

CREATED_US = 1_778_486_400_000_000


def tables_of(track: Track, name: str, offsets: array[int]) -> TrackTables:
    """The track as it is, its chunks elsewhere."""
    assert track.description is not None
    samples = track.samples
    first = min(samples.shown()[:8])
    return TrackTables(
        handler=track.handler,
        name=name,
        timescale=track.timescale,
        entry=track.description.entry,
        matrix=track.matrix,
        size=track.size,
        sizes=samples.sizes,
        deltas=samples.deltas,
        shifts=[(count, shift + samples.start - first) for count, shift in samples.shifts],
        keys=samples.keys if track.handler == b"vide" else None,
        chunk_counts=samples.chunks.counts,
        chunk_offsets=offsets,
    )


def rebuilt(data: bytes) -> bytes:
    """The file with a header of ours: its chunks one track behind the other."""
    tracks: list[TrackTables] = []
    payload = b""
    for track in read(data).tracks:
        offsets = array("Q")
        chunks = track.samples.chunks
        for offset, length in zip(chunks.offsets, chunks.lengths, strict=True):
            offsets.append(len(payload))
            payload += data[offset : offset + length]
        tracks.append(tables_of(track, f"Tür {len(tracks)}", offsets))
    tags = {"title": "Tür", "comment": "你好", "description": "x"}
    return build_header(tracks, len(payload), created_us=CREATED_US, tags=tags) + payload


@pytest.mark.parametrize("name", ["flat", "flat with B-frames", "fragments", "H.265"])
def test_a_file_with_another_header_is_the_same(name: str, tmp_path: Path) -> None:
    data = written(name)
    again = rebuilt(data)
    for track, other in zip(read(data).tracks, read(again).tracks, strict=True):
        assert other.description == track.description
        assert other.samples.sizes == track.samples.sizes
        assert other.samples.keys == track.samples.keys
        shown, others = track.samples.shown(), other.samples.shown()
        assert [at - shown[0] for at in shown] == [at - others[0] for at in others]
    (tmp_path / "one.mp4").write_bytes(data)
    (tmp_path / "other.mp4").write_bytes(again)
    one, other_ = frames(tmp_path / "one.mp4"), frames(tmp_path / "other.mp4")
    assert one == other_
    assert len(one) == 100


def frames(path: Path) -> list[str]:
    """Digests of all decoded frames, pictures and sound; any complaint of ffmpeg fails the test."""
    command = ["ffmpeg", "-v", "error", "-xerror", "-i", str(path), "-map", "0", "-fps_mode", "passthrough"]
    done = subprocess.run([*command, "-f", "framemd5", "-"], capture_output=True, check=True, text=True)
    assert not done.stderr
    lines = [line.split(",") for line in done.stdout.splitlines() if not line.startswith("#")]
    # an edit list has sound begin a frame ahead of what is heard, which ffmpeg drops
    return [line[5].strip() for line in lines if line[0] == "0"]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(rebuilt(written("flat with B-frames")))
    command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", str(path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    tags = found["format"]["tags"]
    assert (tags["title"], tags["comment"], tags["description"]) == ("Tür", "你好", "x")
    assert tags["creation_time"] == "2026-05-11T08:00:00.000000Z"
    assert [stream["tags"]["handler_name"] for stream in found["streams"]] == ["Tür 0", "Tür 1"]
    assert [stream["start_time"] for stream in found["streams"]] == ["0.000000", "0.000000"]


runs = st.lists(st.tuples(st.integers(1, 1000), st.integers(1, (1 << 31) - 1)), min_size=1, max_size=6)


@settings(max_examples=50)
@given(deltas=runs, delay=st.integers(0, 1 << 40), far=st.integers(0, 1 << 50))
def test_what_a_header_says_is_read_back(deltas: Runs, delay: int, far: int) -> None:
    """Long times and far offsets too: nothing wraps around."""
    (video, _) = read(written("flat")).tracks
    assert video.description is not None
    count = sum(number for number, _ in deltas)
    track = TrackTables(
        handler=b"vide",
        name="",
        timescale=video.timescale,
        entry=video.description.entry,
        delay=delay,
        sizes=array("I", [1]) * count,
        deltas=deltas,
        shifts=[(count, 0)],
        keys=array("I", [0]),
        chunk_counts=array("I", [count]),
        chunk_offsets=array("Q", [far]),
    )
    header = build_header([track], far + count, created_us=CREATED_US, tags={})

    found = read_recording(lambda at, length: header[at : at + length], len(header) + far + count)
    (again,) = found.tracks
    assert list(expand(again.samples.deltas)) == list(expand(deltas))
    assert again.samples.end == total(deltas)
    assert again.samples.chunks.offsets[0] == len(header) + far
    assert abs(again.origin + delay) <= video.timescale / 90_000 + 1
