"""The vocabulary of sessions. Times are integer microseconds since 1970-01-01 UTC (`_us`)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vx.jobs import ClipJob, SnapshotJob


class State(enum.Enum):
    """Where a session is in its life; `vx.session.lifecycle` has the transitions."""

    RUNNING = "running"
    STOPPING = "stopping"
    """Asked to end; its worker is finalising what it wrote."""
    COMPLETED = "completed"
    REMOVED = "removed"
    """Its files have been purged."""
    FORGOTTEN = "forgotten"
    """The row is gone too."""

    @property
    def is_running(self) -> bool:
        return self in (State.RUNNING, State.STOPPING)


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file that a session made. `id` is what clients name it by; only the session's own table leads to the disk."""

    id: str
    size: int
    mime_type: str
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A checked request: what the worker is to do, and what the session remembers of it."""

    job: ClipJob | SnapshotJob
    """Its `folder` is empty: the session's folder is filled in when the session is there."""
    options: bytes
    """The client's own words, encoded, to be shown again by ListSessions."""
    timezone_min: int
    """The client's offset from UTC in minutes, or the server's."""


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of a session. Replaced as a whole at each change, so that a reader sees one moment."""

    id: str
    number: int
    """Counts sessions in the order in which they started."""
    options: bytes
    timezone_min: int
    started_us: int
    state: State = State.RUNNING
    last_frame_us: int | None = None
    files: tuple[ResultFile, ...] = ()
    succeeded: bool = False
    reason: str = ""
    """Why it failed, in words; empty where it did not."""
