"""The index of recordings: what is read only once, and what is read again."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from tests.material import FakeLink, do
from tests.media.virtual.test_export import job, record
from tests.mp4.material import WRITERS, read, read_file, written
from vx.jobs import Index as Place
from vx.media.export import run
from vx.media.virtual import loading
from vx.media.virtual.index import Index
from vx.mp4.boxes import Mp4Error
from vx.mp4.recording import Recording, read_recording
from vx.mp4.stored import pack, unpack
from vx.virtual import Identity

KEY = (1, 2, 3, 4)
MUCH = 1 << 20


def fail(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_kept_is_what_was_read(name: str) -> None:
    data = written(name)
    recording = read(data)
    assert unpack(pack(recording, KEY), KEY, len(data)) == recording


def test_anything_else_is_no_entry() -> None:
    data = written("fragments")
    size, entry = len(data), pack(read(data), KEY)
    for broken in (b"", entry[:11], entry[:-1], entry + b"\0", b"vxindex0" + entry[8:]):
        with pytest.raises(Mp4Error):
            unpack(broken, KEY, size)
    for at in range(0, len(entry), 7):
        with pytest.raises(Mp4Error):
            unpack(entry[:at] + bytes([entry[at] ^ 1]) + entry[at + 1 :], KEY, size)
    with pytest.raises(Mp4Error, match="another file"):
        unpack(entry, (1, 2, 3, 5), size)


def spoil_size(recording: Recording) -> None:
    recording.tracks[0].samples.sizes[-1] += MUCH


def spoil_count(recording: Recording) -> None:
    recording.tracks[0].samples.chunks.counts[0] += 1


def spoil_order(recording: Recording) -> None:
    recording.tracks[0].samples.chunks.offsets.reverse()


def spoil_overlap(recording: Recording) -> None:
    recording.tracks[1].samples.chunks.offsets[0] = recording.tracks[0].samples.chunks.offsets[0]


def spoil_keys(recording: Recording) -> None:
    recording.tracks[0].samples.keys[-1] = 1 << 20


def spoil_times(recording: Recording) -> None:
    recording.tracks[0].samples.deltas.append((1, 512))


def spoil_step(recording: Recording) -> None:
    count, _ = recording.tracks[0].samples.deltas[0]
    recording.tracks[0].samples.deltas[0] = (count, 0)


def spoil_shift(recording: Recording) -> None:
    count, _ = recording.tracks[0].samples.shifts[0]
    recording.tracks[0].samples.shifts[0] = (count, 1 << 40)


@pytest.mark.parametrize(
    "spoil",
    [spoil_size, spoil_count, spoil_order, spoil_overlap, spoil_keys, spoil_times, spoil_step, spoil_shift],
)
def test_an_entry_with_a_right_checksum_is_held_to_what_a_recording_is(spoil: Any) -> None:
    data = written("fragments")
    recording = read(data)
    spoil(recording)
    with pytest.raises(Mp4Error):
        unpack(pack(recording, KEY), KEY, len(data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_recordings_are_read_once_and_again_when_they_changed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = record(tmp_path / "rec")
    first, *_ = sorted((tmp_path / "rec").iterdir())
    reads: list[int] = []

    def count(reader: Any, size: int, hint: Any) -> Recording:
        reads.append(size)
        return read_recording(reader, size, hint)

    monkeypatch.setattr(loading, "read_recording", count)
    numbers = itertools.count()

    def made() -> bytes:
        where = tmp_path / f"out{next(numbers)}"
        outcome = do(job(pattern, where, index=Place(folder=str(folder), size=MUCH)))
        assert outcome.served
        return outcome.file.read_bytes()

    whole = made()
    assert len(reads) == 3
    assert len(list(folder.iterdir())) == 3
    assert made() == whole
    assert len(reads) == 3, "no recording was looked at"

    os.utime(first, ns=(0, first.stat().st_mtime_ns - 1))
    assert made() == whole
    assert len(reads) == 4
    assert len(list(folder.iterdir())) == 3, "what is known of it now has replaced what was known"

    entry = min(folder.iterdir())
    damaged = bytearray(entry.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    entry.write_bytes(damaged)
    assert made() == whole
    assert len(reads) == 5
    assert made() == whole
    assert len(reads) == 5, "the damaged entry was written anew"

    os.utime(first)
    made()
    made()
    assert len(reads) == 7, "one that may still be written to is read each time"


def test_an_index_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec")
    link = FakeLink()
    assert run(job(pattern, tmp_path / "out", index=Place(folder="/no/such/folder", size=MUCH)), link).succeeded
    assert link.notes.count("the index of recordings can't be written: No such file or directory") == 1


def test_the_oldest_entries_go_beyond_what_it_may_take(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(written("flat"))
    recording, status = read_file(path), path.stat()
    size = len(pack(recording, (status.st_dev, 1, status.st_size, 0)))

    def identity(inode: int) -> Identity:
        return Identity(status.st_dev, inode, status.st_size, 0)

    index = Index(str(folder), 10 * size + size // 2, fail)
    for inode in range(1, 21):
        index.keep(identity(inode), recording)
        for entry in folder.glob(f"*-{inode:x}"):
            os.utime(entry, (inode, inode))
    index.trim()
    known = [inode for inode in range(1, 21) if index.find(identity(inode)) is not None]
    assert known == list(range(11, 21))
    small = Index(str(folder), size // 2, fail)
    small.keep(identity(99), recording)
    assert not list(folder.glob("*-63")), "one that is larger than all may be isn't kept"


def test_two_at_once(tmp_path: Path, folder: Path) -> None:
    """They write and remove the same entries; what is found is right."""
    path = tmp_path / "recording"
    path.write_bytes(written("flat"))
    recording, status = read_file(path), path.stat()
    told: list[str] = []
    wrong: list[Recording] = []

    def work() -> None:
        index = Index(str(folder), 4 * len(pack(recording, KEY)), told.append)
        for inode in list(range(8)) * 20:
            identity = Identity(status.st_dev, inode, status.st_size, 0)
            found = index.find(identity)
            if found is None:
                index.keep(identity, recording)
            elif found != recording:
                wrong.append(found)

    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(len(told) + len(wrong))
    work()
    _, code = os.waitpid(child, 0)
    assert (code, told, wrong) == (0, [], [])
