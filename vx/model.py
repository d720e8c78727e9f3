"""The vocabulary of sessions. Times are integer microseconds since 1970-01-01 UTC (`_us`)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from vx.jobs import ClipJob, PartFile, SnapshotJob
from vx.report import NO_REPORT, Report
from vx.rights import EVERYTHING, Rights


class State(enum.Enum):
    """Where a session is in its life; `vx.session.lifecycle` has the transitions."""

    QUEUED = "queued"
    """Waits until its export agent has a place for it."""
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
        return self in (State.QUEUED, State.RUNNING, State.STOPPING)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Where no users are configured, that is the machine that the call came from."""

    name: str
    """The user, else the host: by this, turns are dealt out, and sessions belong to it."""
    address: str
    """Where the call came from: `192.0.2.7:40312`, `unix`."""
    rights: Rights = field(default=Rights(), compare=False)


THE_SERVER = Caller("the server", "", EVERYTHING)
"""What happens by itself, for its age or at a restart."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where an export agent puts a session's results for good."""

    root: str
    """`directory` must be this one or below it, whatever symbolic links say."""
    directory: str
    name: str
    """Of a file, without its extension; `vx.session.delivery` has its wildcards."""


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file that a session made. `id` is its name in the session's folder, where only the session's table leads."""

    id: str
    size: int
    mime_type: str
    first_us: int
    last_us: int
    path: str = ""
    """Where an export agent put it; it is no longer in the session's folder then. Empty for one to download."""

    @property
    def name(self) -> str:
        """What clients know it by."""
        return self.path or self.id


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A checked request: what the worker is to do, and what the session remembers of it."""

    job: ClipJob | SnapshotJob
    """Its `folder` is empty: the session's folder is filled in when the session is there."""
    options: bytes
    """The client's own words, encoded, to be shown again by ListSessions."""
    timezone_min: int
    """The client's offset from UTC in minutes, or the server's."""
    agent: str = ""
    """Access point of the export agent that does it."""
    delivery: Delivery | None = None
    """None: the results stay with the session, to be downloaded."""
    delivery_field: str = ""
    """The field of the request that asked for the delivery."""


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of a session. Replaced as a whole at each change, so that a reader sees one moment."""

    id: str
    number: int
    """Counts sessions in the order in which they started; never given twice, also after a restart."""
    options: bytes
    timezone_min: int
    started_us: int
    started_by: Caller = THE_SERVER
    agent: str = ""
    delivery: Delivery | None = None
    state: State = State.QUEUED
    last_frame_us: int | None = None
    parts: tuple[PartFile, ...] = ()
    """Files under way."""
    files: tuple[ResultFile, ...] = ()
    succeeded: bool = False
    reason: str = ""
    """Why it failed, in words; empty where it did not."""
    ended_us: int | None = None
    removed_us: int | None = None
    report: Report = NO_REPORT
    """What became of it, source by source."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the audit: who did what, to which session, when, from where."""

    at_us: int
    what: str
    """`login`, `refused` (a login), `renew`, `logout`; of a session `start`, `stop`, `end`, `download`, `remove`."""
    session_id: str
    """Empty where it is about none."""
    who: Caller
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A login that is good for calls, without the secret itself, which only its client has."""

    digest: bytes
    """SHA-256 of the secret."""
    user: str
    password_mark: str
    """Tells whether the user's password is still the one it was given for."""
    expires_us: int
