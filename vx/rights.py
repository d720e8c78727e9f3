"""What a caller may do: the roles of a user, put together. Pure.

Rights add up: what one role grants, another one does not take away. Two things are demands and not rights, and hold as
soon as one role makes them: `must_use_password`, and a limit of running sessions where no role goes without one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from vx.errors import Kind, VxError


@dataclass(frozen=True, slots=True)
class Grant:
    """What one role grants for the cameras whose access points match one of its patterns."""

    cameras: tuple[str, ...] = ()
    """`*` and `?` stand for any characters; without the leading `hosts/`. A device's name means all of its streams."""
    live: bool = False
    archive: bool = False
    archive_depth_us: int | None = None
    """How far back from now; None: all there is."""
    may_see_unmasked: bool = False

    def covers(self, camera: str) -> bool:
        """`camera`: an access point, with or without `hosts/`."""
        key = camera.removeprefix("hosts/")
        return any(_regex(pattern).match(key) for pattern in self.cameras)


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    key = pattern.removeprefix("hosts/").replace("[", "[[]")  # which fnmatch would take for a set of characters
    return re.compile(f"(?:{translate(key)})|(?:{translate(f'{key}/*')})")


@dataclass(frozen=True, slots=True)
class Rights:
    """Of one user. By default there are none."""

    grants: tuple[Grant, ...] = ()
    must_use_password: bool = False
    """A clip must be put into an encrypted ZIP."""
    supervisor: bool = False
    """Sees and ends everyone's sessions."""
    max_running_sessions: int | None = None
    """Further ones wait; None: only the server's own limits count."""

    def may_see(self, camera: str) -> bool:
        """Whether the camera exists for this user."""
        return any(grant.covers(camera) for grant in self.grants)

    def may_see_unmasked(self, camera: str) -> bool:
        return any(grant.may_see_unmasked for grant in self._for(camera))

    def earliest_us(self, camera: str, now_us: int) -> int | None:
        """From when on the camera's recordings may be seen; None: from the first one on.

        VxError(DENIED) where the user may not see its recordings at all.
        """
        depths = [grant.archive_depth_us for grant in self._for(camera) if grant.archive]
        if not depths:
            raise VxError(Kind.DENIED, f"no role of the user grants `archive` for the camera {camera!r}")
        limited = [depth for depth in depths if depth is not None]
        return now_us - max(limited) if len(limited) == len(depths) else None

    def check_live(self, camera: str) -> None:
        """VxError(DENIED) where the user may not see what the camera sees now."""
        if not any(grant.live for grant in self._for(camera)):
            raise VxError(Kind.DENIED, f"no role of the user grants `live` for the camera {camera!r}")

    def _for(self, camera: str) -> Sequence[Grant]:
        """VxError(DENIED) where no role has the camera. It says the same whether there is such a camera or not."""
        grants = [grant for grant in self.grants if grant.covers(camera)]
        if not grants:
            raise VxError(Kind.DENIED, f"no role of the user has the camera {camera!r} among its `cameras`")
        return grants


EVERYTHING = Rights(
    grants=(Grant(cameras=("*",), live=True, archive=True),),
    supervisor=True,
)
"""Of anybody, where no users are configured. Privacy masks are for everybody all the same."""
