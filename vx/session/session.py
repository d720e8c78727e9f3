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


@dataclass(eq=False, slots=True)
class Session:
    """Mutable, and shared by the session's tasks. Thousands of them are kept: what few need is made when it is."""

    _record: Record
    folder: Path
    is_live_stream: bool = False
    """It has no end of its own, or a late one: it is stopped sooner when nobody asks about it."""
    is_endless: bool = False
    """It has no end of its own: whoever stops it, it is whole."""
    stopped_because: str = ""
    """Why the server has stopped it; empty where a client has, or nobody."""
    began: float | None = None
    """When its turn came, on trio's clock."""
    turn: trio.Event = field(default_factory=trio.Event)
    stop_scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    completed: trio.Event = field(default_factory=trio.Event)
    entries: tuple[Entry, ...] = ()
    """Lines of the audit that are saved together with the session's end."""
    leases: tuple[Callable[[], None], ...] = ()
    """For each download under way: what tells it that the session is destroyed."""
    purging: bool = False
    destruction: Outcome | None = None
    copying: trio.CancelScope | None = None
    """Of what makes its virtual results need less of the disk."""
    _changed: trio.Event | None = None
    _ending: trio.Lock | None = None

    @property
    def record(self) -> Record:
        """What is known of it, replaced as a whole."""
        return self._record

    @record.setter
    def record(self, record: Record) -> None:
        self._record = record
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_changed(self) -> None:
        """Wait until `record` is replaced."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def stop_copying(self) -> None:
        """Nobody needs it any more: whoever waits for `ending` doesn't wait for that."""
        if self.copying is not None:
            self.copying.cancel()

    @property
    def ending(self) -> trio.Lock:
        """Held while its results are changed, purged or forgotten."""
        if self._ending is None:
            self._ending = trio.Lock()
        return self._ending
