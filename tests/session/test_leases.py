"""Recordings that virtual results are served from and that can't be linked to: they are held open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.session.fakes import at_once
from tests.session.keeping import SIZE, session
from vx.session.folders import described
from vx.session.leases import Holdings
from vx.virtual import MADE, Identity, Origin, Pieces, write_made


async def test_what_is_held_open_is_given_back(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one", lease=False)
    holdings = Holdings(at_once, [str(tmp_path)])
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
    holdings = Holdings(at_once, [str(tmp_path)])
    await holdings.hold(one, one.record.files[0])
    assert not holdings.of("one", "clip 0.mp4")


@pytest.mark.parametrize("elsewhere", ["{}/../../../etc/passwd", "/etc/passwd", "{}x/recording", "relative"])
async def test_what_is_no_recording_is_not_opened(tmp_path: Path, elsewhere: str) -> None:
    """A worker that was taken over by what it read may say that a result lies anywhere."""
    one, _ = session(tmp_path, "one", lease=False)
    result = one.folder / "clip 0.mp4"
    description = described(result)
    assert description is not None
    (origin,) = description.origins
    (result / MADE).unlink()
    told = replace(origin, path=elsewhere.format(tmp_path / "archive"))
    write_made(result / MADE, [], replace(description, origins=(told,)))
    holdings = Holdings(at_once, [str(tmp_path / "archive")])
    await holdings.hold(one, one.record.files[0])
    assert not holdings.of("one", "clip 0.mp4")


@pytest.mark.parametrize("lease", ["../../secret", "..", "/etc/passwd", MADE])
def test_a_lease_lies_in_the_results_folder(tmp_path: Path, lease: str) -> None:
    origin = Origin(path="/rec", identity=Identity(1, 2, 3, 4), lease=lease)
    write_made(tmp_path / MADE, [], Pieces().describe((origin,)))
    with pytest.raises(ValueError, match="leases elsewhere"):
        described(tmp_path)
