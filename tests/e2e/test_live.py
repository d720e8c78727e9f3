"""Live cameras by a stock grpcio client: streams, snapshots, their ends, and that no password is seen anywhere."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import CAMERA, COMPLETED, SECOND_CAMERA, Client
from tests.material import judge, numbered, numbers
from tests.server_process import ServerProcess, started_servers
from tests.stubs import Stubs
from tools.make_recordings import Form

PASSWORD = "Geheim%21"
CONFIGURATION = """
[live]
first_frame_timeout_s = 2

[[camera]]
access_point = "{camera}"
display_name = "Entrance"
live = "test:?width=320&height=192&rate=25"

[[camera]]
access_point = "{second}"
display_name = "Yard"
live = "rtsp://viewer:{password}@127.0.0.1:{port}/stream"

[[camera]]
access_point = "{third}"
live = "file://{film}"
"""
THIRD_CAMERA = CAMERA.replace("DeviceIpint.1", "DeviceIpint.3")


@pytest.fixture(scope="module")
def deaf() -> Iterator[int]:
    """The port of a host that accepts nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture(scope="module")
def server(deaf: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    film = folder / "film.mkv"
    film.write_bytes(numbered(Form(), 50))
    text = CONFIGURATION.format(
        camera=CAMERA, second=SECOND_CAMERA, third=THIRD_CAMERA, password=PASSWORD, port=deaf, film=film
    )
    with started_servers(folder) as start:
        yield start(text)


@pytest.fixture(scope="module")
def client(stubs: Stubs, server: ServerProcess) -> Iterator[Client]:
    client = Client(stubs, server.address)
    yield client
    client.channel.close()


def live(client: Client, *cameras: str, seconds: float = 0, form: str = "MKV") -> Any:
    mode = client.export.LiveMode(sources=[client.export.LiveMode.Source(origin=camera) for camera in cameras])
    if seconds:
        mode.duration.FromTimedelta(timedelta(seconds=seconds))
    stream = client.export.StreamType(format=client.export.StreamType.EFormat.Value(form))
    return client.export.Options(live=mode, stream=stream)


def saved(client: Client, session_id: str, folder: Path) -> Path:
    (file,) = client.state(session_id).result.files
    path = folder / str(file.path)
    path.write_bytes(client.download(session_id, file.path))
    return path


def test_a_stream_lasts_for_its_duration(client: Client, tmp_path: Path) -> None:
    session_id = client.start(live(client, CAMERA, seconds=1.2))
    state = client.wait_completed(session_id)
    assert state.result.succeeded
    assert len(judge(saved(client, session_id, tmp_path)).frames) == 30


def test_a_file_in_a_loop(client: Client, tmp_path: Path) -> None:
    session_id = client.start(live(client, THIRD_CAMERA, seconds=2.4))
    assert client.wait_completed(session_id).result.succeeded
    assert numbers(saved(client, session_id, tmp_path)) == [*range(50), *range(10)]


@pytest.mark.parametrize("form", ["MKV", "MP4"])
def test_a_stream_that_is_stopped_can_be_played(client: Client, tmp_path: Path, form: str) -> None:
    session_id = client.start(live(client, CAMERA, form=form))
    client.wait_state(session_id, lambda state: state.last_frame_timestamp)
    assert client.stop(session_id).state == COMPLETED
    assert judge(saved(client, session_id, tmp_path)).frames


@pytest.mark.parametrize("form", ["MKV", "MP4"])
def test_what_a_killed_worker_wrote_can_be_played(
    client: Client, server: ServerProcess, tmp_path: Path, form: str
) -> None:
    """Up to the last second before."""
    session_id = client.start(live(client, CAMERA, form=form))
    written = client.wait_state(session_id, lambda state: state.last_frame_timestamp)
    first = written.last_frame_timestamp
    client.wait_state(session_id, lambda state: _seconds(state.last_frame_timestamp) - _seconds(first) >= 2)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    last = _seconds(client.wait_completed(session_id).last_frame_timestamp)
    (file,) = client.state(session_id).result.files
    assert last - _seconds(file.max_timestamp) < 1
    judged = judge(saved(client, session_id, tmp_path), flawless=False)
    assert judged.frames[-1] - judged.frames[0] > 1


def _seconds(timestamp: str) -> float:
    day = timestamp.partition("T")[2]
    return int(day[:2]) * 3600 + int(day[2:4]) * 60 + float(day[4:])


def test_a_snapshot_is_the_next_frame(client: Client, tmp_path: Path) -> None:
    mode = client.export.LiveMode(sources=[client.export.LiveMode.Source(origin=CAMERA)])
    session_id = client.start(client.export.Options(live=mode, snapshot=client.export.SnapshotType()))
    assert client.wait_completed(session_id).result.succeeded
    assert saved(client, session_id, tmp_path).read_bytes()[:2] == b"\xff\xd8"


def test_a_camera_that_never_answers_is_named_and_its_password_is_not(
    client: Client, server: ServerProcess, tmp_path: Path
) -> None:
    session_id = client.start(live(client, SECOND_CAMERA, CAMERA, seconds=2.5))
    client.wait_state(session_id, lambda state: state.last_frame_timestamp)
    assert PASSWORD not in "".join(_command_lines(server.process.pid))
    assert not client.wait_completed(session_id).result.succeeded
    assert judge(saved(client, session_id, tmp_path)).frames
    server.wait_log("failed: Yard: it did not answer within 2 s")
    told = f"{client.pages()}{client.state(session_id)}{server.log}"
    assert "Yard" in told
    assert "Geheim" not in told
    kept = b"".join(path.read_bytes() for path in server.state_dir.rglob("*") if path.is_file())
    assert b"Geheim" not in kept


def _command_lines(server: int) -> list[str]:
    """Of the server and all processes below it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == os.getpgid(server):
                found.append((path / "cmdline").read_text())
        except OSError:  # it has ended
            continue
    assert found
    return found
