"""What the server says of its cameras' paths when it starts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

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
