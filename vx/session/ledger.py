"""What sessions have the store remember, durably before anybody is told of it.

A disk that is full may have room again, and the end of a session waits for that. A store that fails for good ends the
server: what it would say could not be relied on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from vx.logs import about
from vx.model import Caller, Entry, Record
from vx.session.store import Memory, Store, StoreError

log = logging.getLogger(__name__)

SAVE_S = 10.0
"""Within this time a saved state must be on the disk, also when the server is being ended."""
RETRY_S = 5.0
"""How soon a state that found the disk full is saved again."""


class Ledger:
    """The registry's side of a store. One that fails for good makes `nursery` fail, and with it the server."""

    def __init__(self, store: Store, nursery: trio.Nursery, now_us: Callable[[], int]) -> None:
        self._store = store
        self._nursery = nursery
        self._now_us = now_us
        self.closing = False
        """The server is ending: nobody waits for room on the disk any more."""

    async def load(self) -> Memory:
        """What an earlier server remembered. StoreError."""
        return await self._store.load()

    async def save(self, record: Record, entries: Sequence[Entry] = ()) -> None:
        """Remember `record` and these lines of the audit. StoreError."""
        with self._ending_the_server():
            await self._store.save(record, entries)

    async def save_patiently(self, record: Record, entries: Sequence[Entry]) -> bool:
        """Save it, and on a full disk wait until there is room; False if the server ends before there is any.

        Cancelled while it waits, it is not saved either.
        """
        told = False
        while True:
            with shielded(SAVE_S):
                try:
                    await self.save(record, entries)
                except StoreError as error:
                    if not error.passing:
                        raise
                    if not told or self.closing:
                        about(log, record.id).warning("it cannot be saved yet: %s", error)
                        told = True
                else:
                    return True
            if self.closing:
                return False
            await trio.sleep(RETRY_S)

    async def delete(self, record: Record, entries: Sequence[Entry]) -> None:
        """Forget a session. StoreError."""
        with self._ending_the_server():
            await self._store.delete(record, entries)

    async def note(self, entry: Entry) -> None:
        """A line of the audit that goes with no change. StoreError."""
        with self._ending_the_server():
            await self._store.note(entry)

    def entry(self, what: str, record: Record, caller: Caller, detail: str = "") -> Entry:
        """A line of the audit about this moment."""
        return Entry(self._now_us(), what, record.id, caller, detail)

    @contextmanager
    def _ending_the_server(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if not error.passing:
                self._nursery.start_soon(_fail, error)
            raise


async def _fail(error: StoreError) -> None:
    raise error


@contextmanager
def shielded(seconds: float) -> Iterator[None]:
    """Finish this although the task is cancelled, but not for ever."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds) as scope:
        yield
    if scope.cancelled_caught:
        log.error("could not save the state of a session within %g s", seconds)
