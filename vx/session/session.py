"""One session as the server holds it: its record, its folder, and what its tasks tell each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from vx.errors import VxError
from vx.model import Entry, Record


class Outcome:
    """What came of something that several tasks may wait for."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._error: VxError | None = None

    def set(self, error: VxError | None = None) -> None:
        """It is over; `error`: it failed."""
        self._error = error
        self._done.set()

    async def wait(self) -> None:
        """Wait for it; raises what it failed with."""
        await self._done.wait()
        if self._error is not None:
            raise VxError(self._error.kind, str(self._error))


@dataclass(eq=False)
class Session:
    """Mutable, and shared by the session's tasks."""

    _record: Record
    folder: Path
    is_live_stream: bool = False
    """It has no end of its own, or a late one: it is stopped sooner when nobody asks about it."""
    changed: trio.Event = field(default_factory=trio.Event)
    """Set, and replaced, when `record` is."""
    began: float | None = None
    """When its turn came, on trio's clock."""
    turn: trio.Event = field(default_factory=trio.Event)
    stop_scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    completed: trio.Event = field(default_factory=trio.Event)
    entries: list[Entry] = field(default_factory=list)
    """Lines of the audit that are saved together with the session's end."""
    leases: set[Callable[[], None]] = field(default_factory=set)
    purging: bool = False
    destruction: Outcome | None = None
    ending: trio.Lock = field(default_factory=trio.Lock)
    """Held while it is purged or forgotten."""

    @property
    def record(self) -> Record:
        """What is known of it, replaced as a whole."""
        return self._record

    @record.setter
    def record(self, record: Record) -> None:
        self._record = record
        self.changed.set()
        self.changed = trio.Event()
