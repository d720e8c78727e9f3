"""Recordings' tables in their order, with a few read ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mp4.material import written
from vx.media.virtual import loading
from vx.media.virtual.loading import Loader
from vx.mp4.boxes import Mp4Error, make
from vx.mp4.recording import Recording, read_recording


@pytest.fixture
def loader() -> Iterator[Loader]:
    made = Loader()
    yield made
    made.close()


def recordings(folder: Path, count: int) -> list[str]:
    paths = []
    for i in range(count):
        path = folder / f"{i}.mp4"
        path.write_bytes(written("fragments") + make(b"free", bytes(i)))
        paths.append(str(path))
    return paths


def test_what_is_asked_for_next_is_read_meanwhile(
    tmp_path: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = recordings(tmp_path, 3)
    second = threading.Event()
    sizes = [Path(path).stat().st_size for path in paths]

    def read(reader: Any, size: int, hint: Any) -> Recording:
        if size == sizes[1]:
            second.set()
        elif size == sizes[0]:
            assert second.wait(20), "the second one isn't read before the first one is done"
        return read_recording(reader, size, hint)

    monkeypatch.setattr(loading, "read_recording", read)
    assert loader.load(paths[0], paths[1:]).origin.path == paths[0]
    assert loader.load(paths[1], paths[2:]).origin.path == paths[1]
    assert loader.load(paths[2]).origin.path == paths[2]


def test_what_is_wrong_with_one_is_told_when_it_is_its_turn(tmp_path: Path, loader: Loader) -> None:
    paths = recordings(tmp_path, 3)
    Path(paths[1]).write_bytes(bytes(1000))
    Path(paths[2]).unlink()
    assert len(loader.load(paths[0], paths[1:]).recording.tracks) == 2
    with pytest.raises(Mp4Error, match="no MP4 file"):
        loader.load(paths[1], paths[2:])
    with pytest.raises(FileNotFoundError):
        loader.load(paths[2])
