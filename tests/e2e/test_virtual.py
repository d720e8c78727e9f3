"""Clips without copying, against a real server process: at once, whole, through restarts, and never wrong."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.client import Client, refused
from tests.e2e.test_export import at, configuration, seconds
from tests.material import T0, numbered, numbers
from tests.server_process import ServerProcess
from tests.stubs import Stubs
from tools.make_recordings import MEDIAMTX, Form, cut
from vx.session.folders import result_size

FORM = Form(b_frames=2, audio=True)


def record(folder: Path, *borders: int) -> Path:
    """Ten seconds in recordings of two, or with these borders, finished long ago."""
    for path in cut(numbered(FORM, 250), f"{folder}/mtx/{MEDIAMTX}", T0, seconds(*(borders or (0, 2, 4, 6, 8, 10)))):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return record(tmp_path / "archive")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """An archive on another file system than the server's state, to which nothing there can be linked."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield record(Path(folder))


def export(client: Client) -> tuple[str, str, int]:
    """A session that has completed: its id, its file, and how large that is."""
    session = client.start(client.clip(at(0.52), at(9.0), "MP4"))
    state = client.wait_completed(session)
    assert state.result.succeeded
    (file,) = state.result.files
    return session, file.path, file.size


def recordings(archive: Path) -> list[Path]:
    return sorted((archive / "mtx").iterdir())


def test_it_is_whole_whatever_retention_does_and_survives_a_restart(
    archive: Path, tmp_path: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]
) -> None:
    server = start_server(configuration(archive))
    client = Client(stubs, server.address)
    session, name, size = export(client)
    result = server.state_dir / "sessions" / session / name
    assert result.is_dir()
    assert result_size(result) == size
    assert len(list((server.state_dir / "index").iterdir())) == 5
    stream = client.chunks(session, name, kb=1)
    begun = next(stream).data
    for path in recordings(archive):
        path.unlink()
    data = begun + b"".join(chunk.data for chunk in stream)
    assert len(data) == size
    (tmp_path / "clip.mp4").write_bytes(data)
    assert numbers(tmp_path / "clip.mp4") == list(range(13, 225))
    rng = random.Random(1)
    for first in rng.sample(range(size // 1024), 20):
        assert next(client.chunks(session, name, kb=1, first=first)).data == data[first * 1024 : (first + 1) * 1024]
    assert server.terminate() == 0
    again = ServerProcess(server.state_dir.parent, configuration(archive))
    try:
        client = Client(stubs, again.address)
        assert client.state(session).result.files[0].size == size
        assert client.download(session, name) == data
        client.destroy(session)
        assert not (again.state_dir / "sessions" / session).exists()
    finally:
        again.kill()


def test_a_recording_that_is_truncated_is_data_loss(
    archive: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]
) -> None:
    client = Client(stubs, start_server(configuration(archive)).address)
    session, name, _ = export(client)
    third = recordings(archive)[2]
    os.truncate(third, 5000)
    told = f"the recording {third.name}, which the file is served from, was truncated or rewritten after the export"
    with refused("DATA_LOSS", told):
        client.download(session, name)


def test_recordings_on_another_file_system_are_held_open(
    elsewhere: Path, tmp_path: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]
) -> None:
    server = start_server(configuration(elsewhere))
    client = Client(stubs, server.address)
    session, name, size = export(client)
    assert [path.name for path in (server.state_dir / "sessions" / session / name).iterdir()] == ["made"]
    for path in recordings(elsewhere):
        path.unlink()
    (tmp_path / "clip.mp4").write_bytes(client.download(session, name))
    assert (tmp_path / "clip.mp4").stat().st_size == size
    assert numbers(tmp_path / "clip.mp4") == list(range(13, 225))


def test_never_copies(archive: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]) -> None:
    server = start_server(configuration(archive, '[media]\nvirtual = "never"'))
    session, name, size = export(Client(stubs, server.address))
    result = server.state_dir / "sessions" / session / name
    assert result.is_file()
    assert result.stat().st_size == size
