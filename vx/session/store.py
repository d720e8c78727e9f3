"""Where sessions, logins and the audit are remembered: SQLite in write-ahead mode, one writer, in a thread of its own.

A change is on the disk when its call returns (`synchronous=FULL`). Changes that come while another one is being synced
share the next transaction, so that many sessions at once cost few syncs. The database holds some free space of its
own: a disk that exports have filled up still takes the news that they ended.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from vx.errors import Kind, VxError
from vx.model import Entry, Record, Token
from vx.session import tables
from vx.session.tables import MIGRATIONS, Migration

log = logging.getLogger(__name__)

_COMMIT_S = 10.0
"""How long a transaction may take when its caller is being cancelled; only a dead disk takes that long."""
_ROOM = 2 << 20
"""Bytes that the database keeps for a full disk; a session takes about 1 KB."""
_CHECKPOINT_PAGES = 256
"""Keeps the write-ahead log well within the blocks that `_ROOM` gave it."""


class StoreError(VxError):
    """Sessions cannot be remembered. `passing`: it may work later (a full disk, a lock of somebody else's)."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(Kind.EXHAUSTED if passing else Kind.UNAVAILABLE, text)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Memory:
    """All that a store knows of sessions."""

    records: tuple[Record, ...] = ()
    """In the order of their numbers."""
    last_number: int = 0
    """The highest number ever given, also to a session that is forgotten."""


class Store(Protocol):
    """What the registry needs of a memory. A change is durable when the call returns; StoreError where it isn't."""

    async def load(self) -> Memory: ...

    async def save(self, record: Record, entries: Sequence[Entry] = ()) -> None:
        """Remember `record` instead of what was known of that session, and these lines of the audit."""

    async def delete(self, record: Record, entries: Sequence[Entry] = ()) -> None:
        """Forget a session; no error if it is unknown."""

    async def note(self, entry: Entry) -> None:
        """A line of the audit that goes with no change."""


@asynccontextmanager
async def open_store(
    path: Path, *, audit_s: float, migrations: Sequence[Migration] = MIGRATIONS
) -> AsyncIterator[SqliteStore]:
    """The store in the database at `path`, made or brought to today's version if need be.

    Lines of the audit that are older than `audit_s` are dropped. StoreError where it cannot be used, saying why.
    """
    limiter = trio.CapacityLimiter(1)
    database = await trio.to_thread.run_sync(_Database, path, audit_s, migrations, limiter=limiter)
    try:
        yield SqliteStore(database, limiter)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _COMMIT_S):
            await trio.to_thread.run_sync(database.close, limiter=limiter, abandon_on_cancel=True)


_Work = Callable[[sqlite3.Connection], None]


@dataclass(eq=False, slots=True)
class _Change:
    work: _Work
    error: StoreError | None = None


class SqliteStore:
    """A `Store`; `open_store` makes it."""

    def __init__(self, database: _Database, limiter: trio.CapacityLimiter) -> None:
        self._database = database
        self._limiter = limiter
        self._lock = trio.Lock()
        self._waiting: list[_Change] = []

    async def load(self) -> Memory:
        """StoreError where the database cannot be read."""
        return await trio.to_thread.run_sync(self._database.load, limiter=self._limiter)

    async def save(self, record: Record, entries: Sequence[Entry] = ()) -> None:
        def work(db: sqlite3.Connection) -> None:
            tables.save(db, record)
            tables.write_audit(db, entries)

        await self._change(work)

    async def delete(self, record: Record, entries: Sequence[Entry] = ()) -> None:
        def work(db: sqlite3.Connection) -> None:
            tables.delete(db, record)
            tables.write_audit(db, entries)

        await self._change(work)

    async def note(self, entry: Entry) -> None:
        await self._change(lambda db: tables.write_audit(db, (entry,)))

    async def load_tokens(self) -> list[Token]:
        """StoreError where the database cannot be read."""
        return await trio.to_thread.run_sync(self._database.load_tokens, limiter=self._limiter)

    async def change_tokens(self, kept: Sequence[Token], dropped: Sequence[Token], entry: Entry) -> None:
        def work(db: sqlite3.Connection) -> None:
            tables.change_tokens(db, kept, dropped)
            tables.write_audit(db, (entry,))

        await self._change(work)

    async def _change(self, work: _Work) -> None:
        """Commit `work`, with all else that waits by then. Cancelled before its turn has come, it is not done."""
        change = _Change(work)
        self._waiting.append(change)
        try:
            async with self._lock:
                if change in self._waiting:
                    batch, self._waiting = self._waiting, []
                    await self._commit(batch)
        finally:
            if change in self._waiting:
                self._waiting.remove(change)
        if change.error is not None:
            raise change.error

    async def _commit(self, batch: list[_Change]) -> None:
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = trio.current_time() + _COMMIT_S
            await trio.to_thread.run_sync(self._database.commit, batch, limiter=self._limiter, abandon_on_cancel=True)
        if scope.cancelled_caught:
            for change in batch:
                change.error = StoreError(f"the disk under {self._database.path.parent} does not answer", passing=True)


class _Database:
    """The blocking side: one connection, used by one thread at a time."""

    def __init__(self, path: Path, audit_s: float, migrations: Sequence[Migration]) -> None:
        self.path = path
        self._audit_s = audit_s
        with _translated(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
            try:
                self._open(migrations)
            except BaseException:
                self._db.close()
                raise
        self._inode = path.stat().st_ino

    def _open(self, migrations: Sequence[Migration]) -> None:
        db = self._db
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"the database {self.path} cannot be used: its file system has no shared memory")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        _migrate(db, self.path, migrations)
        with _transaction(db):
            db.execute("UPDATE audit_kept SET since_us = ?", (int((time.time() - self._audit_s) * 1e6),))
            db.execute("DELETE FROM audit WHERE at_us < (SELECT since_us FROM audit_kept)")
        _make_room(db)

    def close(self) -> None:
        try:
            self._db.close()
        except sqlite3.Error as error:
            log.warning("closing %s: %s", self.path, error)  # all that was answered is committed

    def load(self) -> Memory:
        with _translated(self.path):
            return Memory(tables.load(self._db), tables.last_number(self._db))

    def load_tokens(self) -> list[Token]:
        with _translated(self.path):
            return tables.load_tokens(self._db)

    def commit(self, batch: list[_Change]) -> None:
        """All changes in one transaction; where that fails, each by itself. What cannot be done gets its error."""
        try:
            self._commit([change.work for change in batch])
        except StoreError as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for change in batch:
                self.commit([change])

    def _commit(self, works: list[_Work]) -> None:
        with _translated(self.path):
            self._check_place()
            with _transaction(self._db):
                for work in works:
                    work(self._db)

    def _check_place(self) -> None:
        """SQLite goes on writing into a file that was deleted, and nobody would ever read that."""
        try:
            inode = self.path.stat().st_ino
        except FileNotFoundError:
            inode = None
        if inode != self._inode:
            raise StoreError(f"the database {self.path} was removed or replaced while the server ran")


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


_PASSING = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors in our terms."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"the database {path} cannot be used: {error.strerror}") from None
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in _DAMAGED:
            raise StoreError(
                f"the database {path} is damaged ({error}). Nothing was changed. To begin anew, move it away together "
                f"with {path.name}-wal and {path.name}-shm; the results of its sessions are in {path.parent}/sessions, "
                "and a server without the database deletes them: move them away first"
            ) from None
        raise StoreError(f"the database {path} cannot be used: {error}", passing=code in _PASSING) from None


def _migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise StoreError(
            f"the database {path} has version {version}, made by a newer vx; this one knows up to {len(migrations)}"
        )
    for number, statements in enumerate(migrations[version:], version + 1):
        with _transaction(db):
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
        log.info("%s has version %d now", path, number)


def _make_room(db: sqlite3.Connection) -> None:
    """Have blocks of the write-ahead log and free pages of the database for what must be saved on a full disk."""
    try:
        with _transaction(db):
            db.execute("INSERT INTO room VALUES (zeroblob(?))", (_ROOM,))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
            raise
        log.warning("the disk of state_dir is full: sessions may not be saved")
    with _transaction(db):
        db.execute("DELETE FROM room")
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
