"""Text, masks, reports and passwords, from a stock grpcio client to the files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from tests.e2e.client import CAMERA, SECOND_CAMERA, Client
from tests.material import SECOND, T0, judge, numbered, numbers
from tests.server_process import ServerProcess
from tests.stubs import Stubs
from tools.make_recordings import MEDIAMTX, Form, Piece, cut
from vx.timestamps import format_timestamp

PASSWORD = "not to be seen"


@pytest.fixture
def server(tmp_path: Path, start_server: Callable[[str], ServerProcess]) -> ServerProcess:
    cut(numbered(Form(b_frames=2), 100), f"{tmp_path}/rec/{MEDIAMTX}", T0, [Piece(0, 4 * SECOND)])
    cameras = "".join(
        f"""
[[camera]]
access_point = "{access_point}"
display_name = "{name}"
location = "North wall"
live = "test:?width=320&height=192&rate=25"
  [[camera.archive]]
  storage = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
  path = "{tmp_path}/rec/{MEDIAMTX}"
{mask}
"""
        for access_point, name, mask in (
            (CAMERA, "Entrance", "  [[camera.mask]]\n  points = [[0.5, 0.5], [1, 0.5], [1, 1], [0.5, 1]]"),
            (SECOND_CAMERA, "Yard", ""),
        )
    )
    return start_server(cameras)


@pytest.fixture
def client(server: ServerProcess, stubs: Stubs) -> Iterator[Client]:
    client = Client(stubs, server.address)
    yield client
    client.channel.close()


def live(client: Client, form: str) -> Any:
    """A second of what the camera shows now."""
    export = client.export
    mode = export.LiveMode(sources=[export.LiveMode.Source(origin=CAMERA)])
    if form == "JPEG":
        return export.Options(live=mode, snapshot=export.SnapshotType())
    mode.duration.FromTimedelta(timedelta(seconds=1.5))
    return export.Options(live=mode, stream=export.StreamType(format=export.StreamType.EFormat.Value(form)))


def test_what_the_configuration_hides_is_hidden_whatever_the_client_says(client: Client, tmp_path: Path) -> None:
    export = client.export
    requests = [
        client.snapshot(format_timestamp(T0)),
        client.clip(format_timestamp(T0), "20260511T080001"),
        *(live(client, form) for form in ("JPEG", "MP4", "MKV")),
    ]
    for number, options in enumerate(requests):
        options.settings.extend([export.CommonSetting(apply_mask=False), export.CommonSetting(invert_mask=False)])
        session_id = client.start(options)
        (file,) = client.wait_completed(session_id).result.files
        path = tmp_path / f"{number}-{file.path}"
        path.write_bytes(client.download(session_id, file.path))
        if path.suffix != ".jpg":
            tracks = [stream["codec_type"] for stream in judge(path).streams]
            assert [track for track in tracks if track != "audio"] == ["video", "subtitle"]
        command = f"ffmpeg -v error -i {path} -map 0:v -fps_mode passthrough -f rawvideo -pix_fmt gray -"
        done = subprocess.run(command.split(), check=True, capture_output=True)
        frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, 192, 320)
        assert len(frames) > 20 or path.suffix == ".jpg"
        assert np.ptp(frames[:, 104:184, 168:312], axis=(1, 2)).max() < 8
        assert frames[:, 104:184, 168:312].max() < 30
        assert frames[:, 8:88, 8:152].max() > 90


def test_a_mask_of_thousands_of_points(client: Client, tmp_path: Path) -> None:
    export = client.export
    options = client.snapshot(format_timestamp(T0))
    options.archive.sources[0].origin = SECOND_CAMERA
    options.settings.add(apply_mask=True)
    (polygon,) = [options.archive.sources[0].settings.add().mask_space.space.add()]
    for angle in np.linspace(0, 2 * np.pi, 5000, endpoint=False):
        polygon.points.add(x=0.5 + 0.25 * np.cos(angle), y=0.5 + 0.25 * np.sin(angle))
    session_id = client.start(options)
    (file,) = client.wait_completed(session_id).result.files
    (tmp_path / "a.jpg").write_bytes(client.download(session_id, file.path))
    with Image.open(tmp_path / "a.jpg") as image:
        grey = np.asarray(image.convert("L"))
    assert grey[64:128, 110:210].max() < 12
    assert grey[170:, :].min() > 90
    assert export.MaskSpace(space=[polygon]).ByteSize() > 80_000


def test_a_report_of_two_cameras(client: Client, tmp_path: Path) -> None:
    export = client.export
    archive = client.archive(format_timestamp(T0 + SECOND), cameras=(CAMERA, SECOND_CAMERA))
    snapshot = export.SnapshotType(format=export.SnapshotType.PDF)
    comment = export.CommonSetting(comment="Вход открыт в 8:00")
    options = export.Options(archive=archive, snapshot=snapshot, settings=[comment, export.CommonSetting(timezone=60)])
    session_id = client.start(options)
    state = client.wait_completed(session_id)
    assert state.result.succeeded
    (file,) = state.result.files
    assert file.mime_type == "application/pdf"
    (tmp_path / "report.pdf").write_bytes(client.download(session_id, file.path))
    texts = [page.extract_text() for page in PdfReader(tmp_path / "report.pdf").pages]
    assert len(texts) == 2
    for text, camera in zip(texts, ("Entrance", "Yard"), strict=True):
        for wanted in (camera, "North wall", "Вход открыт в 8:00", "2026-May-11 09:00:01", "127.0.0.1"):
            assert wanted in text


def test_a_password_locks_the_clip_and_is_not_shown_again(
    client: Client, server: ServerProcess, tmp_path: Path
) -> None:
    export = client.export
    options = client.clip(format_timestamp(T0), "20260511T080003")
    options.stream.settings.add(password=PASSWORD)
    session_id = client.start(options)
    (file,) = client.wait_completed(session_id).result.files
    assert (file.mime_type, file.path[-4:]) == ("application/zip", ".zip")
    (tmp_path / "clip.zip").write_bytes(client.download(session_id, file.path))
    command = ["7z", "x", f"-p{PASSWORD}", f"-o{tmp_path}/plain", f"{tmp_path}/clip.zip"]
    subprocess.run(command, check=True, capture_output=True)
    (clip,) = (tmp_path / "plain").iterdir()
    assert numbers(clip) == list(range(75))
    assert [stream["codec_type"] for stream in judge(clip).streams] == ["video", "subtitle"]
    (page,) = client.pages()
    assert page.sessions[0].session.options.stream.settings == [export.StreamSetting(password="")]
    for path in server.state_dir.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes()
    assert PASSWORD not in server.log
