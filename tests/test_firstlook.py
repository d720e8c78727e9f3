"""What the server says of its cameras' paths when it starts."""

from __future__ import annotations

import logging
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing

from vx import firstlook
from vx.config.schema import Archive, Camera

NAMES = "%Y-%m-%d_%H-%M-%S.mp4"


def camera(name: str, *paths: Path) -> Camera:
    archives = (
        Archive(storage="hosts/S/MultimediaStorage.A/MultimediaStorage", path=f"{path}/{NAMES}") for path in paths
    )
    return Camera(
        access_point="hosts/S/DeviceIpint.1/SourceEndpoint.video:0:0", display_name=name, archive=tuple(archives)
    )


async def test_paths_that_lead_nowhere_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, other = tmp_path / "good", tmp_path / "other"
    for folder, name in ((good, "2026-05-11_08-00-00.mp4"), (other, "20260511080000.mp4")):
        folder.mkdir()
        (folder / name).touch()
    await firstlook.look([camera("Entrance", good), camera("Yard", good, other), camera("Gate", tmp_path / "gone")])
    assert caplog.messages == [
        f"Yard: nothing has a name like its recordings': {other}/{NAMES}",
        f"Gate: {tmp_path}/gone: there is no such directory",
    ]


async def test_recordings_of_the_future_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soon = datetime.now(UTC) + timedelta(hours=2)
    (tmp_path / soon.strftime(NAMES)).touch()
    await firstlook.look([camera("Entrance", tmp_path)])
    (message,) = caplog.messages
    assert message.startswith(f"Entrance: {tmp_path}/{soon:%Y-%m-%d}")
    assert message.endswith("by its name: is the timezone right?")


async def test_an_archive_that_hangs_holds_up_no_other(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
) -> None:
    hangs, told, answers, real = trio.Event(), trio.Event(), threading.Event(), os.listdir

    def listdir(path: str) -> list[str]:
        if path == str(tmp_path / "share"):
            trio.from_thread.run_sync(hangs.set)
            assert answers.wait(10), "the others were not looked at before"
        return real(path)

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    monkeypatch.setattr("vx.archive.segments.os.listdir", listdir)
    monkeypatch.setattr(firstlook.log, "handlers", [Told()])
    nursery.start_soon(firstlook.look, [camera("Yard", tmp_path / "share"), camera("Gate", tmp_path / "gone")])
    await hangs.wait()
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(60)
    await told.wait()
    answers.set()
    assert caplog.messages == [f"Gate: {tmp_path}/gone: there is no such directory"]
