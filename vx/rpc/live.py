"""What a request for live cameras says beside what it has in common with one for recordings."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from vx import jobs
from vx.config.schema import Camera, Config
from vx.errors import Kind, VxError
from vx.rpc.codec import duration_us

_LONGEST = timedelta(days=366)


def how(duration: timedelta, path: str, settings: Config) -> jobs.Live:
    """How the cameras are exported. VxError(INVALID) for a duration that makes no sense; none: until stopped."""
    if not timedelta(0) <= duration <= _LONGEST:
        text = f"is {duration.total_seconds():g} s; allowed is up to a year, or none: until it is stopped"
        raise VxError(Kind.INVALID, text, field=path)
    return jobs.Live(
        duration_us=duration_us(duration),
        first_frame_timeout_s=settings.live.first_frame_timeout_s,
        stall_timeout_s=settings.live.stall_timeout_s,
        longest_pause_s=settings.live.longest_pause_s,
        min_free=settings.results.min_free,
    )


def feed_of(camera: Camera, path: str) -> jobs.LiveFeed:
    """Where a camera can be seen live. VxError(PRECONDITION) where nobody has said."""
    if camera.live is None:
        text = f"the camera {camera.access_point!r} cannot be seen live: it has no live address"
        raise VxError(Kind.PRECONDITION, text, field=path)
    return msgspec.structs.replace(camera.live, transport=camera.live_transport)
