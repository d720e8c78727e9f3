"""Virtual results out: every byte at any offset, and never a wrong one whatever becomes of the recordings."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from vx.download import BUFFER, chunks
from vx.errors import Kind, VxError
from vx.leased import open_result
from vx.virtual import MADE, Description, Identity, Origin, Pieces, read_description, write_made

PIECES = 400


class Result:
    """A virtual result over some recordings, in many small pieces."""

    def __init__(self, folder: Path, *, recordings: int = 20, lease: bool = True, grows: bool = False) -> None:
        self.path = folder / "clip.mp4"
        self.path.mkdir()
        rng = random.Random(5)
        self.recordings: list[Path] = []
        origins: list[Origin] = []
        for i in range(recordings):
            path = folder / f"recording {i}"
            path.write_bytes(rng.randbytes(40_000))
            os.utime(path, ns=(1, 1_700_000_000_000_000_000 + i))
            self.recordings.append(path)
            name = str(i + 1) if lease else ""
            if lease:
                os.link(path, self.path / name)
            identity = Identity.of(path.stat())
            origins.append(Origin(path=str(path), identity=identity, lease=name, grows=grows))
        made = rng.randbytes(30_000)
        pieces = Pieces()
        expected = []
        for _ in range(PIECES):
            number = rng.randrange(recordings + 1)
            source = made if number == 0 else self.recordings[number - 1].read_bytes()
            begin = rng.randrange(len(source) - 1)
            length = rng.randint(1, min(5000, len(source) - begin))
            pieces.add(number, begin, length)
            expected.append(source[begin : begin + length])
        self.expected = b"".join(expected)
        write_made(self.path / MADE, [made], pieces.describe(tuple(origins)))

    @property
    def size(self) -> int:
        return len(self.expected)


async def collect(result: Result, chunk: int, first: int = 0) -> bytes:
    with open_result(result.path, result.size) as source:
        parts: list[bytes] = []
        async for views in chunks(source, chunk, first, lambda _index, _length: b""):
            parts.append(b"".join(views))
        return b"".join(parts)


async def test_every_byte_at_2000_offsets(tmp_path: Path) -> None:
    result = Result(tmp_path)
    assert result.size > 1.5 * BUFFER
    assert await collect(result, 4096) == result.expected
    rng = random.Random(7)
    with open_result(result.path, result.size) as source:
        for _ in range(2000):
            offset = rng.randrange(result.size)
            length = rng.randint(1, min(9000, result.size - offset))
            runs = await source.runs(offset, length)
            assert (
                b"".join(os.pread(run.fd, run.length, run.offset) for run in runs)
                == (result.expected[offset : offset + length])
            )
            source.verify()


@pytest.mark.parametrize(("chunk", "first"), [(1024, 0), (1024, 333), (4096 * 100, 1), (65536, 9)])
async def test_from_any_chunk_on(tmp_path: Path, chunk: int, first: int) -> None:
    result = Result(tmp_path)
    assert await collect(result, chunk, first) == result.expected[chunk * first :]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_few_descriptors_at_a_time(tmp_path: Path) -> None:
    result = Result(tmp_path, recordings=60)
    before = descriptors()
    with open_result(result.path, result.size) as source:
        for offset in range(0, result.size - 1000, 1000):
            await source.runs(offset, 1000)
            assert descriptors() <= before + 12
    assert descriptors() == before


async def test_retention_deletes_the_recordings_meanwhile(tmp_path: Path) -> None:
    result = Result(tmp_path)
    with open_result(result.path, result.size) as source:
        pieces = chunks(source, BUFFER, 0, lambda _index, _length: b"")
        parts = [b"".join(await anext(pieces))]
        for path in result.recordings:
            path.unlink()
        parts += [b"".join(views) async for views in pieces]
    assert b"".join(parts) == result.expected


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other bytes")


@pytest.mark.parametrize("change", [truncate, rewrite])
async def test_a_recording_that_changes_ends_the_download(tmp_path: Path, change: object) -> None:
    result = Result(tmp_path, recordings=1)
    assert callable(change)
    with open_result(result.path, result.size) as source:
        pieces = chunks(source, BUFFER // 4, 0, lambda _index, _length: b"")
        got = b"".join(await anext(pieces))
        assert result.expected.startswith(got)
        change(result.recordings[0])
        with pytest.raises(
            VxError, match="the recording recording 0, which the file is served from, was trunc"
        ) as caught:
            await anext(pieces)
    assert caught.value.kind is Kind.DATA_LOSS
    with pytest.raises(VxError, match="was truncated or rewritten after the export") as caught:
        await collect(result, 1024)
    assert caught.value.kind is Kind.DATA_LOSS


async def test_a_change_between_two_looks_is_seen_when_it_was_read(tmp_path: Path) -> None:
    """What was read may be wrong already, though the recording was as it should be when it was opened."""
    result = Result(tmp_path, recordings=1)
    with open_result(result.path, result.size) as source:
        runs = await source.runs(0, result.size)
        rewrite(result.recordings[0])
        for run in runs:
            os.pread(run.fd, run.length, run.offset)
        with pytest.raises(VxError, match="rewritten"):
            source.verify()


async def test_a_recording_that_is_being_written_may_grow_and_must_not_shrink(tmp_path: Path) -> None:
    result = Result(tmp_path, recordings=1, grows=True)
    with result.recordings[0].open("ab") as file:
        file.write(b"more")
    assert await collect(result, 1024) == result.expected
    truncate(result.recordings[0])
    with pytest.raises(VxError, match="truncated"):
        await collect(result, 1024)


async def test_what_is_held_open_outlives_its_name(tmp_path: Path) -> None:
    result = Result(tmp_path, lease=False)
    held = {str(path): os.open(path, os.O_RDONLY) for path in result.recordings}
    for path in result.recordings:
        path.unlink()
    before = descriptors()
    with open_result(result.path, result.size, held) as source:
        runs: Sequence[object] = await source.runs(0, result.size)
        assert runs
        source.verify()
    assert descriptors() == before
    with pytest.raises(VxError, match="is not held open any more"):
        await collect(result, 1024)
    for fd in held.values():
        os.close(fd)


def test_a_result_that_is_damaged_is_told(tmp_path: Path) -> None:
    result = Result(tmp_path)
    with pytest.raises(VxError, match="it was made with"), open_result(result.path, result.size + 1):
        pass
    with (result.path / MADE).open("r+b") as file:
        file.truncate(50)
    with pytest.raises(VxError, match="cannot be read any more") as caught, open_result(result.path, result.size):
        pass
    assert caught.value.kind is Kind.DATA_LOSS


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pieces = Pieces()
    pieces.add(0, 0, 10)
    pieces.add(0, 10, 5)
    pieces.add(1, 7, 1)
    assert len(pieces) == 2
    told: Description = pieces.describe(())
    write_made(tmp_path / MADE, [b"x" * 15], told)
    with (tmp_path / MADE).open("rb") as file:
        assert read_description(file.fileno()) == told
