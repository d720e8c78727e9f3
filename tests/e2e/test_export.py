"""The main job against a real server process, by a stock grpcio client."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from tests.e2e.client import CAMERA, COMPLETED, SECOND_CAMERA, Client, refused
from tests.material import SECOND, T0, judge, numbered, numbers, real_footage
from tests.server_process import ServerProcess
from tests.stubs import Stubs
from tools.make_recordings import MEDIAMTX, Form, Piece, cut
from vx.timestamps import format_timestamp

FRIGATE = "%Y-%m-%d/%H/entrance/%M.%S.mp4"
FRAMES = 250
FORM = Form(b_frames=2, audio=True)
NO_SESSION = "There is no session with provided ID"


def configuration(archive: Path, more: str = "") -> str:
    return f"""
{more}
[[camera]]
access_point = "{CAMERA}"
display_id = "1"
display_name = "Entrance"

  [[camera.archive]]
  storage = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
  path = "{archive}/mtx/{MEDIAMTX}"

  [[camera.archive]]
  storage = "hosts/Server1/MultimediaStorage.Frigate/MultimediaStorage"
  path = "{archive}/{FRIGATE}"

[[camera]]
access_point = "{SECOND_CAMERA}"
display_name = "Yard"

  [[camera.archive]]
  storage = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
  path = "{archive}/yard/{MEDIAMTX}"
"""


def copied(archive: Path, more: str = "") -> str:
    """The same where every clip is copied, which takes its time."""
    return configuration(archive, f'{more}\n[media]\nvirtual = "never"\n')


def at(seconds: float) -> str:
    """A time of the recordings, as the contract writes it."""
    return format_timestamp(T0 + round(seconds * SECOND))


def seconds(*borders: float) -> list[Piece]:
    return [Piece(round(a * SECOND), round(b * SECOND)) for a, b in pairwise(borders)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of numbered frames, 25 a second; 4 s to 6 s are missing; MediaMTX's and Frigate's names."""
    folder = tmp_path_factory.mktemp("archive")
    footage = numbered(FORM, FRAMES)
    pieces = [*seconds(0, 2, 4), *seconds(6, 8, 10)]
    for pattern in (f"{folder}/mtx/{MEDIAMTX}", f"{folder}/{FRIGATE}", f"{folder}/yard/{MEDIAMTX}"):
        cut(footage, pattern, T0, pieces)
    return folder


@pytest.fixture
def server(archive: Path, start_server: Callable[[str], ServerProcess]) -> ServerProcess:
    return start_server(configuration(archive))


@pytest.fixture
def client(server: ServerProcess, stubs: Stubs) -> Iterator[Client]:
    client = Client(stubs, server.address)
    yield client
    client.channel.close()


@pytest.mark.parametrize("form", ["DEFAULT", "MP4", "MKV"])
@pytest.mark.parametrize("storage", ["", "AliceBlue", "Frigate"])
def test_a_clip_across_a_gap(client: Client, tmp_path: Path, form: str, storage: str) -> None:
    options = client.clip(at(1), at(9), form, settings=[client.export.CommonSetting(comment="Fall 12, größer")])
    if storage:
        options.archive.sources[0].storages.append(f"Server1/MultimediaStorage.{storage}/MultimediaStorage")
    session_id = client.start(options)
    state = client.wait_completed(session_id)
    assert state.result.succeeded
    (file,) = state.result.files
    assert file.mime_type == {"MKV": "video/x-matroska"}.get(form, "video/mp4")
    assert (file.min_timestamp, file.max_timestamp) == (at(1), at(8.96))
    assert state.last_frame_timestamp == at(8.96)

    path = tmp_path / "clip"
    path.write_bytes(client.download(session_id, file.path))
    assert path.stat().st_size == file.size
    assert numbers(path) == [*range(25, 100), *range(150, 225)]
    judged = judge(path)
    assert judged.frames[0] == 0
    assert judged.frames[-1] == pytest.approx(7.96, abs=0.002)
    assert judged.frames[75] - judged.frames[74] == pytest.approx(2.04, abs=0.002)  # the gap is as long as it was
    assert judged.sound[0] == pytest.approx(0, abs=0.03)
    assert judged.sound[-1] == pytest.approx(8, abs=0.06)
    assert {key.lower(): value for key, value in judged.tags.items()}["comment"] == "Fall 12, größer"

    client.destroy(session_id)
    with refused("NOT_FOUND", NO_SESSION):
        client.state(session_id)


def test_real_footage_with_b_frames_and_sound(
    start_server: Callable[[str], ServerProcess], stubs: Stubs, tmp_path: Path
) -> None:
    cut(real_footage("bikes.mp4"), f"{tmp_path}/mtx/{MEDIAMTX}", T0, seconds(0, 3, 6, 20))
    cut(real_footage("bigbuckbunny.mp4"), f"{tmp_path}/yard/{MEDIAMTX}", T0, seconds(0, 2, 4, 20))
    client = Client(stubs, start_server(configuration(tmp_path)).address)
    for camera, name in ((CAMERA, "bikes.mp4"), (SECOND_CAMERA, "bigbuckbunny.mp4")):
        options = client.clip(at(0), at(60))
        options.archive.sources[0].origin = camera
        session_id = client.start(options)
        state = client.wait_completed(session_id)
        assert state.result.succeeded
        (file,) = state.result.files
        path = tmp_path / name
        path.write_bytes(client.download(session_id, file.path))
        original, exported = judge(real_footage(name)), judge(path)
        assert len(exported.frames) == len(original.frames)
        assert exported.frames[-1] - exported.frames[0] == pytest.approx(
            original.frames[-1] - original.frames[0], abs=0.05
        )
        assert len(exported.sound) == pytest.approx(len(original.sound), abs=3)


def test_a_snapshot_is_the_frame_that_was_shown(client: Client, tmp_path: Path) -> None:
    for moment, number in ((3, 75), (3.0199, 75), (3.999, 99), (6.5, 162)):
        session_id = client.start(client.snapshot(at(moment), settings=[client.export.CommonSetting(comment="Tür")]))
        state = client.wait_completed(session_id)
        assert state.result.succeeded
        (file,) = state.result.files
        assert (file.mime_type, file.min_timestamp, file.max_timestamp) == (
            "image/jpeg",
            at(number / 25),
            at(number / 25),
        )
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(client.download(session_id, file.path))
        assert numbers(path) == [number]
        with Image.open(path) as picture:
            assert picture.size == (FORM.width, FORM.height)
            assert picture.info["comment"].decode() == "Tür"


def test_nothing_recorded_is_no_success_and_no_file(client: Client) -> None:
    for options in (client.clip(at(100), at(200)), client.snapshot(at(5)), client.clip(at(4.2), at(5.8))):
        state = client.wait_completed(client.start(options))
        assert not state.result.succeeded
        assert not state.result.files


def test_reversed_ends_a_storage_by_its_short_name_and_no_sound(client: Client, tmp_path: Path) -> None:
    options = client.clip(at(4), at(2))
    options.archive.sources[0].origin = CAMERA.removeprefix("hosts/")
    options.stream.settings.append(client.export.StreamSetting(reject_audio=True))
    session_id = client.start(options)
    (file,) = client.wait_completed(session_id).result.files
    path = tmp_path / "clip.mp4"
    path.write_bytes(client.download(session_id, file.path))
    assert numbers(path) == list(range(50, 100))
    assert [stream["codec_type"] for stream in judge(path).streams] == ["video", "subtitle"]


def test_files_of_a_given_size_hold_every_frame_once(client: Client, tmp_path: Path) -> None:
    whole = client.wait_completed(client.start(client.clip(at(0), at(10)))).result.files[0].size
    session_id = client.start(client.clip(at(0), at(10), max_file_size=whole // 2))
    state = client.wait_completed(session_id)
    assert len(state.result.files) > 2
    seen: list[int] = []
    for file in state.result.files:
        assert file.size <= whole // 2
        path = tmp_path / file.path
        path.write_bytes(client.download(session_id, file.path))
        seen += numbers(path)
    assert seen == [*range(100), *range(150, 250)]


def test_two_cameras_in_one_file_each_with_its_mask_and_tracks(client: Client, tmp_path: Path) -> None:
    options = client.clip(at(0.52), at(9.2), form="MKV")
    yard = options.archive.sources.add(origin=SECOND_CAMERA)
    yard.tracks.append("video")
    yard.timeline_mask.add(begin_time=at(1), end_time=at(2.4))
    yard.timeline_mask.add(begin_time=at(0), end_time=at(1.6))
    options.archive.timeline_mask.add(begin_time=at(0), end_time=at(3))
    session_id = client.start(options)
    (file,) = client.wait_completed(session_id).result.files
    path = tmp_path / "clip.mkv"
    path.write_bytes(client.download(session_id, file.path))
    assert [numbers(path, track=track) for track in (0, 1)] == [list(range(13, 75)), list(range(13, 60))]
    judged = judge(path)
    assert [stream["codec_type"] for stream in judged.streams] == ["video", "audio", "video", "subtitle"]
    titles = [stream["tags"]["title"] for stream in judged.streams]
    assert titles == ["Entrance", "Entrance", "Yard", "Entrance, Yard"]
    assert (file.min_timestamp, file.max_timestamp) == (at(0.52), at(2.96))


def test_discrete_sources_get_a_file_each(client: Client) -> None:
    options = client.clip(at(0), at(2))
    options.archive.sources.append(client.export.ArchiveMode.Source(origin=SECOND_CAMERA))
    options.archive.discrete = True
    state = client.wait_completed(client.start(options))
    assert [file.path.split("_")[0] for file in state.result.files] == ["Entrance", "Yard"]


def test_a_download_can_be_resumed_at_every_chunk(client: Client) -> None:
    session_id = client.start(client.clip(at(0), at(4)))
    (file,) = client.wait_completed(session_id).result.files
    whole = client.download(session_id, file.path)
    for kb in (1, 7, 64, 1000, 4095):
        count = -(-file.size // (kb * 1024))
        for first in sorted({0, 1, count // 2, count - 1}):
            if first < count:
                assert client.download(session_id, file.path, kb, first) == whole[first * kb * 1024 :]
        with refused(
            "OUT_OF_RANGE",
            f"start_from_chunk_index: chunk {count} begins at byte {count * kb * 1024}; the file has {file.size}",
        ):
            client.download(session_id, file.path, kb, count)


def test_lists_come_in_pages(client: Client) -> None:
    assert client.pages() == []
    ids = []
    for n in range(5):
        ids.append(client.start(client.snapshot(at(n / 10))))
        client.wait_completed(ids[-1])
    (page,) = client.pages()
    assert [info.session.id for info in page.sessions] == ids
    assert page.sessions[0].session.options == client.snapshot(at(0))
    assert page.sessions[0].state == client.state(ids[0])
    assert page.next_page_token == ""

    first, second, third = client.pages(size=2)
    assert [len(page.sessions) for page in (first, second, third)] == [2, 2, 1]
    assert third.next_page_token == ""
    client.destroy(ids[1])
    client.destroy(ids[2])
    rest = client.pages(token=first.next_page_token, size=2)
    assert [info.session.id for page in rest for info in page.sessions] == ids[3:]


@pytest.fixture
def long_archive(tmp_path: Path) -> Path:
    """Three hours in segments of two seconds, so that an export takes a while: one file under many names."""
    (segment,) = cut(numbered(FORM, FRAMES), f"{tmp_path}/one/{MEDIAMTX}", T0, seconds(0, 2))
    folder = tmp_path / "long" / "mtx"
    folder.mkdir(parents=True)
    for n in range(5400):
        name = Path(MEDIAMTX).name
        moment = format_timestamp(T0 + 2 * n * SECOND)
        text = name
        for directive, part in (
            ("%Y", moment[:4]),
            ("%m", moment[4:6]),
            ("%d", moment[6:8]),
            ("%H", moment[9:11]),
            ("%M", moment[11:13]),
            ("%S", moment[13:15]),
            ("%f", moment[16:]),
        ):
            text = text.replace(directive, part)
        os.link(segment, folder / text)
    return tmp_path / "long"


def test_stop_leaves_a_playable_file(
    start_server: Callable[[str], ServerProcess], stubs: Stubs, long_archive: Path, tmp_path: Path
) -> None:
    client = Client(stubs, start_server(copied(long_archive)).address)
    for form in ("MP4", "MKV"):
        session_id = client.start(client.clip(at(0), at(10_800), form))
        early = client.wait_state(session_id, lambda state: state.last_frame_timestamp).last_frame_timestamp
        later = client.wait_state(session_id, lambda state, early=early: state.last_frame_timestamp > early)
        assert later.state != COMPLETED
        with refused(
            "FAILED_PRECONDITION", "the session is still running; its files can be downloaded once it is done"
        ):
            client.download(session_id, "x")
        state = client.stop(session_id)
        assert state.state == COMPLETED
        assert state.result.succeeded
        (file,) = state.result.files
        assert at(0) < file.max_timestamp < at(10_799)
        assert client.stop(session_id) == state
        path = tmp_path / "stopped"
        path.write_bytes(client.download(session_id, file.path))
        shown = judge(path).frames
        assert len(shown) > 50
        assert at(round(shown[-1], 2)) == file.max_timestamp


def test_a_killed_worker_fails_its_session_and_nothing_else(
    start_server: Callable[[str], ServerProcess], stubs: Stubs, long_archive: Path, tmp_path: Path
) -> None:
    server = start_server(copied(long_archive))
    client = Client(stubs, server.address)
    session_id = client.start(client.clip(at(0), at(10_800)))
    client.wait_state(session_id, lambda state: state.last_frame_timestamp > at(60))
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    state = client.wait_completed(session_id)
    assert not state.result.succeeded
    server.wait_log("the worker process died: signal SIGKILL")
    (file,) = state.result.files
    path = tmp_path / "salvaged.mp4"
    path.write_bytes(client.download(session_id, file.path))
    assert path.read_bytes()[8:12] == b"iso4", "it was made packet by packet"
    shown = judge(path).frames
    assert len(shown) > 50
    assert at(round(shown[-1], 2)) == file.max_timestamp
    assert client.wait_completed(client.start(client.clip(at(0), at(4)))).result.succeeded


def test_destroy_ends_a_running_export_and_a_download(
    start_server: Callable[[str], ServerProcess], stubs: Stubs, long_archive: Path
) -> None:
    server = start_server(copied(long_archive))
    client = Client(stubs, server.address)
    running = client.start(client.clip(at(0), at(10_800)))
    client.wait_state(running, lambda state: state.last_frame_timestamp)
    client.destroy(running)
    assert server.workers() == []

    session_id = client.start(client.clip(at(0), at(10_800)))
    client.wait_state(session_id, lambda state: state.last_frame_timestamp > at(1000))
    (file,) = client.stop(session_id).result.files
    chunks = client.chunks(session_id, file.path)
    assert next(chunks).index == 0
    client.destroy(session_id)
    with refused("ABORTED", "the session was destroyed during the download"):
        for _ in chunks:
            pass
    assert list((server.state_dir / "sessions").iterdir()) == []


def test_a_limit_on_running_sessions(
    start_server: Callable[[str], ServerProcess], stubs: Stubs, long_archive: Path
) -> None:
    limits = "max_running_sessions = 2\nmax_queued_sessions = 0"
    client = Client(stubs, start_server(copied(long_archive, limits)).address)
    ids = [client.start(client.clip(at(0), at(10_800))) for _ in range(2)]
    for _ in range(3):
        with refused("RESOURCE_EXHAUSTED", "2 sessions are running, and at most 2 may at a time"):
            client.start(client.clip(at(0), at(1)))
    client.destroy(ids[0])
    client.wait_completed(client.start(client.clip(at(0), at(1))))


def test_sigterm_keeps_what_was_exported(
    start_server: Callable[[str], ServerProcess], stubs: Stubs, long_archive: Path
) -> None:
    server = start_server(copied(long_archive))
    client = Client(stubs, server.address)
    session_id = client.start(client.clip(at(0), at(10_800)))
    client.wait_state(session_id, lambda state: state.last_frame_timestamp)
    stopping = client.stub.StopSession.future(client.messages.StopSessionRequest(session_id=session_id))
    assert server.terminate() == 0
    assert stopping.result().session_state.result.succeeded  # a call under way gets its answer
    assert "completed with 1 file(s)" in server.log
    assert "Traceback" not in server.log


def test_a_call_that_goes_on_and_on_is_ended_when_its_time_is_over(
    start_server: Callable[[str], ServerProcess], stubs: Stubs, long_archive: Path
) -> None:
    server = start_server(copied(long_archive, "shutdown_timeout_s = 0.5"))
    client = Client(stubs, server.address)
    session_id = client.start(client.clip(at(0), at(10_800)))
    client.wait_state(session_id, lambda state: state.last_frame_timestamp > at(1000))
    (file,) = client.stop(session_id).result.files
    chunks = client.chunks(session_id, file.path)
    next(chunks)  # and then it is not read
    assert server.terminate() == 0
    with pytest.raises(grpc.RpcError):
        for _ in chunks:
            pass


def test_a_second_signal_ends_at_once(
    start_server: Callable[[str], ServerProcess], stubs: Stubs, long_archive: Path
) -> None:
    server = start_server(copied(long_archive, "stop_timeout_s = 3600\nshutdown_timeout_s = 3600"))
    client = Client(stubs, server.address)
    session_id = client.start(client.clip(at(0), at(10_800)))
    client.wait_state(session_id, lambda state: state.last_frame_timestamp)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)  # it will not finish, and the server would wait for it
    server.process.send_signal(signal.SIGTERM)
    server.wait_log("SIGTERM: ending")
    server.process.send_signal(signal.SIGTERM)
    server.wait()
    assert "ending at once" in server.log
    assert not Path(f"/proc/{worker}").exists()


def test_broken_segments_are_gaps(start_server: Callable[[str], ServerProcess], stubs: Stubs, tmp_path: Path) -> None:
    paths = cut(numbered(FORM, FRAMES), f"{tmp_path}/mtx/{MEDIAMTX}", T0, seconds(0, 2, 4, 6, 8, 10))
    paths[1].write_bytes(b"")
    paths[3].write_bytes(os.urandom(50_000))
    server = start_server(configuration(tmp_path))
    client = Client(stubs, server.address)
    session_id = client.start(client.clip(at(0), at(10)))
    state = client.wait_completed(session_id)
    assert state.result.succeeded
    (file,) = state.result.files
    path = tmp_path / "clip.mp4"
    path.write_bytes(client.download(session_id, file.path))
    assert numbers(path) == [*range(50), *range(100, 150), *range(200, 250)]
    server.wait_log(paths[1].name)
    server.wait_log(paths[3].name)


def test_a_malformed_request_fails_alone(client: Client) -> None:
    call: Any = client.channel.unary_unary("/axxonsoft.bl.mmexport.ExportService/StartSession")
    for request in (b"\x12", b"\x12\x05\x1a", b"\xff" * 30, b"\x12\x02\x0b\x0c", b"\x12\x03\x1a\x01\xff"):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert str(caught.value.details()).startswith("malformed request: StartSessionRequest")
    assert client.pages() == []
