"""Clips without copying, against a real server process: at once, whole, through restarts, and never wrong."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import CAMERA, SECOND_CAMERA, Client, refused
from tests.e2e.test_export import at, configuration, seconds
from tests.material import SECOND, T0, numbered, numbers, virtual_bytes
from tests.server_process import ServerProcess
from tests.stubs import Stubs
from tools.make_recordings import MEDIAMTX, Form, cut, segment_path
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


def assert_anywhere(client: Client, session: str, name: str, data: bytes, *, reads: int) -> None:
    """From wherever a download begins, it brings the bytes that are there."""
    rng = random.Random(reads)
    for _ in range(reads):
        kb = rng.choice((1, 2, 3, 7, 64))
        first = rng.randrange(-(-len(data) // (kb << 10)))
        stream: Any = client.chunks(session, name, kb, first)
        at = first * (kb << 10)
        for place in range(at, min(len(data), at + rng.choice((1, 3)) * (kb << 10)), kb << 10):
            assert next(stream).data == data[place : place + (kb << 10)], (kb, first)
        stream.cancel()


def test_every_byte_is_the_same_from_2000_places_on(
    tmp_path: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]
) -> None:
    """Of clips whose bytes lie in many places: in flat recordings, in fragments, and those of two cameras in turn."""
    an_hour_ago = time.time() - 3600
    for folder, kind in (("mtx", "mp4"), ("yard", "fmp4")):
        for path in cut(
            numbered(FORM, 250), f"{tmp_path}/{folder}/{MEDIAMTX}", T0, seconds(0, 2, 4, 6, 8, 10), kind=kind
        ):
            os.utime(path, (an_hour_ago, an_hour_ago))
    server = start_server(configuration(tmp_path))
    client = Client(stubs, server.address)
    for number, cameras in enumerate([[CAMERA], [SECOND_CAMERA], [CAMERA, SECOND_CAMERA]]):
        stream = client.export.StreamType(format=client.export.StreamType.MP4)
        archive = client.archive(at(0.52), at(9.0), cameras=cameras)
        session = client.start(client.export.Options(archive=archive, stream=stream))
        (file,) = client.wait_completed(session).result.files
        result = server.result(session, file.path)
        assert result.is_dir()
        data = client.download(session, file.path)
        assert data == virtual_bytes(result)
        assert_anywhere(client, session, file.path, data, reads=667)
        (tmp_path / f"{number}.mp4").write_bytes(data)
    wanted = list(range(13, 225))
    assert [numbers(tmp_path / "2.mp4", track=track) for track in (0, 1)] == [wanted, wanted]


def test_it_is_whole_whatever_retention_does_and_survives_a_restart(
    archive: Path, tmp_path: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]
) -> None:
    server = start_server(configuration(archive))
    client = Client(stubs, server.address)
    session, name, size = export(client)
    result = server.result(session, name)
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
    assert_anywhere(client, session, name, data, reads=20)
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
    assert [path.name for path in server.result(session, name).iterdir()] == ["made"]
    for path in recordings(elsewhere):
        path.unlink()
    (tmp_path / "clip.mp4").write_bytes(client.download(session, name))
    assert (tmp_path / "clip.mp4").stat().st_size == size
    assert numbers(tmp_path / "clip.mp4") == list(range(13, 225))


def test_more_than_can_be_held_open_are_copied_in_blocks(
    elsewhere: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]
) -> None:
    """From an archive that is a link."""
    first, *others = recordings(elsewhere)
    for path in others:
        path.unlink()
    count = 129
    for number in range(1, count):
        shutil.copy2(first, segment_path(f"{first.parent}/{MEDIAMTX}", T0 + number * 2 * SECOND))
    (elsewhere / "linked").mkdir()
    (elsewhere / "linked" / "mtx").symlink_to(elsewhere / "mtx")
    server = start_server(configuration(elsewhere / "linked"))
    client = Client(stubs, server.address)
    session = client.start(client.clip(at(0.52), at(count * 2), "MP4"))
    (file,) = client.wait_completed(session).result.files
    server.wait_log(
        "copied, for it can't be served from the recordings: "
        f"{count} of its recordings can't be linked to, and no more than 128 can be held open"
    )
    result = server.result(session, file.path)
    assert result.read_bytes()[8:12] == b"iso4", "it was made packet by packet"
    assert numbers(result) == [number % 50 for number in range(13, count * 50)]


def test_never_copies(archive: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]) -> None:
    server = start_server(configuration(archive, '[media]\nvirtual = "never"'))
    session, name, size = export(Client(stubs, server.address))
    result = server.result(session, name)
    assert result.is_file()
    assert result.stat().st_size == size
    server.wait_log('copied: by [media] virtual = "never"')


def test_what_has_to_be_a_file_is_copied_and_the_log_says_why(
    archive: Path, tmp_path: Path, stubs: Stubs, start_server: Callable[[str], ServerProcess]
) -> None:
    agent = f'[[agent]]\naccess_point = "hosts/Server1/MMExportAgent.0"\ndirectory = "{tmp_path}"\n'
    server = start_server(configuration(archive, agent))
    client = Client(stubs, server.address)
    assert client.wait_completed(client.start(client.clip(at(0), at(4), "MKV"))).result.succeeded
    server.wait_log("copied: only MP4 can be served from the recordings, not MKV")
    stored = client.clip(at(0), at(4), "MP4", store_result_by_export_agent=True)
    (file,) = client.wait_completed(client.start(stored)).result.files
    assert Path(file.path).is_file()
    server.wait_log("copied: what is stored for good is a file of its own")
