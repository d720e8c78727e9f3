"""Looks once, as the server starts, whether the paths of the configuration lead to recordings.

A mistake in a path would else be met by the first who wants a clip, as "nothing was recorded".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vx.archive.segments import Found, Recordings
from vx.config.schema import Archive, Camera
from vx.threads import Threads
from vx.timestamps import now_us

log = logging.getLogger(__name__)

_A_DAY_US = 86_400_000_000
"""Clocks and time zones that are wrong are another mistake."""

_threads = Threads("first look", 1, abandon=True)


async def look(cameras: Sequence[Camera]) -> None:
    """Tell of each archive in which no recording is found. Cancelled, it leaves a disk that hangs."""
    for camera in cameras:
        for archive in camera.archive:
            found = await _threads.run(_newest, archive)
            for note in found.notes:
                log.warning("%s: %s", camera.display_name, note)
            if not found.segments and not found.notes:
                log.warning("%s: nothing has a name like its recordings': %s", camera.display_name, archive.path)


def _newest(archive: Archive) -> Found:
    return Recordings.of(archive.path, archive.timezone).last_before(now_us() + _A_DAY_US)
