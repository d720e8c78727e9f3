"""Text, masks, reports and passwords, from a stock grpcio client to the files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

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


def test_what_the_configuration_hides_is_hidden_whatever_the_client_says(client: Client, tmp_path: Path) -> None:
    export = client.export
    for options in (client.snapshot(format_timestamp(T0)), client.clip(format_timestamp(T0), "20260511T080001")):
        options.settings.extend([export.CommonSetting(apply_mask=False), export.CommonSetting(invert_mask=False)])
        session_id = client.start(options)
        (file,) = client.wait_completed(session_id).result.files
        path = tmp_path / file.path
        path.write_bytes(client.download(session_id, file.path))
        frame = tmp_path / "frame.png"
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", path, "-frames:v", "1", frame], check=True)
        with Image.open(frame) as image:
            grey = np.asarray(image.convert("L"))
        assert grey[104:184, 168:312].max() < 12
        assert grey[104:184, 8:152].min() > 90


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
