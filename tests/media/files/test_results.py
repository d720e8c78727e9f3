"""What is on the disk, and when: what a power cut would leave."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vx.errors import Kind, VxError
from vx.media.files import results


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What was brought to the disk last, by its path: of a file its bytes, of a folder the names in it."""
    seen: dict[str, object] = {}
    fsync = os.fsync

    def look(fd: int) -> None:
        fsync(fd)
        path = Path(f"/proc/self/fd/{fd}").readlink()
        seen[str(path)] = {each.name for each in path.iterdir()} if path.is_dir() else path.read_bytes()

    monkeypatch.setattr(os, "fsync", look)
    return seen


def test_a_file_that_is_written_in_one_go_is_on_the_disk_by_its_name(tmp_path: Path, synced: dict[str, object]) -> None:
    part = results.plan_file(str(tmp_path), "Gate", "jpg", 0)
    data = os.urandom(1_000_000)
    results.write(str(tmp_path), part, data)
    assert synced == {f"{tmp_path}/{part.name}": data, str(tmp_path): {part.name}}


def test_a_clip_has_its_name_once_its_bytes_are_on_the_disk(tmp_path: Path, synced: dict[str, object]) -> None:
    part = results.plan_file(str(tmp_path), "Gate", "mp4", 0)
    (tmp_path / part.part_name).write_bytes(b"12345")
    assert results.complete(str(tmp_path), part) == 5
    assert synced == {f"{tmp_path}/{part.part_name}": b"12345", str(tmp_path): {part.name}}


def test_of_a_file_that_cannot_be_brought_to_the_disk_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    part = results.plan_file(str(tmp_path), "Gate", "jpg", 0)
    with pytest.raises(VxError, match="the disk for results is full") as caught:
        results.write(str(tmp_path), part, b"12345")
    assert caught.value.kind is Kind.EXHAUSTED
    assert list(tmp_path.iterdir()) == []


def test_a_file_waits_for_a_disk_that_is_slower_than_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, brought, may = tmp_path / "clip", list[str](), threading.Event()

    def sync(_fd: int) -> None:
        may.wait()
        brought.append("synced")

    monkeypatch.setattr(os, "fdatasync", sync)
    syncing = results.Syncing(path, 5, 0, most=10)
    for size in (5, 12):
        path.write_bytes(bytes(size))
        syncing.go_on()
    assert not brought, "7 bytes may wait"
    path.write_bytes(bytes(15))
    threading.Thread(target=may.set).start()
    syncing.go_on()
    assert brought[0] == "synced", "10 may not"
