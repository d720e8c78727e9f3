"""Recordings that virtual results are served from and that can't be linked to: they are held open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.session.fakes import at_once
from tests.session.keeping import SIZE, session
from vx.session.leases import Holdings


async def test_what_is_held_open_is_given_back(tmp_path: Path) -> None:
    one, recording = session(tmp_path, "one", lease=False)
    holdings = Holdings(at_once)
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
    holdings = Holdings(at_once)
    await holdings.hold(one, one.record.files[0])
    assert not holdings.of("one", "clip 0.mp4")
