"""Recordings that virtual results are served from and that can't be linked to: they are held open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.session.fakes import ORIGIN, at_once
from tests.session.keeping import SIZE, session
from vx.session.folders import described
from vx.session.leases import Holdings
from vx.virtual import MADE, Identity, Origin, Pieces, write_made


async def test_what_is_held_open_is_given_back(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one", lease=False)
    holdings = Holdings(at_once, {ORIGIN: [str(tmp_path)]})
    room = holdings.room()
    (file,) = one.record.files
    await holdings.hold(one, file)
    held = holdings.of("one", file.id)
    recording.unlink()
    fd = held[str(recording)]
    assert os.fstat(fd).st_size == SIZE
    assert holdings.room() <= room
    holdings.release("one")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert not held, "a download that has it sees that"
    assert not holdings.of("one", file.id)


async def test_a_recording_that_was_replaced_is_not_held(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one", lease=False)
    recording.write_bytes(b"another one")
    holdings = Holdings(at_once, {ORIGIN: [str(tmp_path)]})
    await holdings.hold(one, one.record.files[0])
    assert not holdings.of("one", "clip 0.mp4")


@pytest.mark.parametrize(
    ("path", "opened"),
    [
        ("{}/archive/recording", True),
        ("{}/archive/../yard/recording", False),
        ("{}/archivex/recording", False),
        ("archive/recording", False),
        ("{}/yard/recording", False),
    ],
)
async def test_nothing_but_recordings_of_the_exported_cameras_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, opened: bool
) -> None:
    """A worker that was taken over by what it read may say that a result lies anywhere."""
    one, recording = session(tmp_path, "one", lease=False)
    for folder in ("archive", "archivex", "yard"):
        (tmp_path / folder).mkdir()
        os.link(recording, tmp_path / folder / "recording")
    result = one.folder / "clip 0.mp4"
    description = described(result)
    assert description is not None
    (origin,) = description.origins
    (result / MADE).unlink()
    told = replace(origin, path=path.format(tmp_path))
    write_made(result / MADE, [], replace(description, origins=(told,)))
    monkeypatch.chdir(tmp_path)
    yard = "hosts/S/DeviceIpint.2/SourceEndpoint.video:0:0"
    holdings = Holdings(at_once, {ORIGIN: [str(tmp_path / "archive")], yard: [str(tmp_path / "yard")]})
    await holdings.hold(one, one.record.files[0])
    assert [*holdings.of("one", "clip 0.mp4")] == ([told.path] if opened else [])
    holdings.release("one")


@pytest.mark.parametrize("lease", ["../../secret", "..", "/etc/passwd", MADE])
def test_a_lease_lies_in_the_results_folder(tmp_path: Path, lease: str) -> None:
    origin = Origin(path="/rec", identity=Identity(1, 2, 3, 4), lease=lease)
    write_made(tmp_path / MADE, [], Pieces().describe((origin,)))
    with pytest.raises(ValueError, match="leases elsewhere"):
        described(tmp_path)
