"""Looks once, as the server starts, whether the paths of the configuration lead to recordings.

A mistake in a path or a time zone would else be met by the first who wants a clip, as "nothing was recorded".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from vx.archive.segments import Found, Recordings
from vx.config.schema import Archive, Camera
from vx.threads import archive_threads
from vx.timestamps import format_timestamp, now_us

log = logging.getLogger(__name__)

_A_MINUTE_US = 60_000_000
_A_DAY_US = 86_400_000_000
"""No time zone is further ahead of another one."""

_PATIENCE_S = 2.0
"""How long one archive holds up the next: one at a time is looked at, but for those that do not answer."""


async def look(cameras: Sequence[Camera]) -> None:
    """Tell of each archive that has no recording, or one of the future. Cancelled, it leaves a disk that hangs."""
    async with trio.open_nursery() as nursery:
        for camera in cameras:
            for archive in camera.archive:
                done = trio.Event()
                nursery.start_soon(_look_at, camera.display_name, archive, done)
                with trio.move_on_after(_PATIENCE_S):
                    await done.wait()


async def _look_at(name: str, archive: Archive, done: trio.Event) -> None:
    found = await archive_threads.run(archive.path, _newest, archive)
    for note in found.notes:
        log.warning("%s: %s", name, note)
    for segment in found.segments:
        if segment.start_us > now_us() + _A_MINUTE_US:
            begin = format_timestamp(segment.start_us)
            log.warning("%s: %s began %s, by its name: is the timezone right?", name, segment.path, begin)
    if not found.segments and not found.notes:
        log.warning("%s: nothing has a name like its recordings': %s", name, archive.path)
    done.set()


def _newest(archive: Archive) -> Found:
    return Recordings.of(archive.path, archive.timezone).last_before(now_us() + _A_DAY_US)
