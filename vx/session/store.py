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
from typing import Any, Protocol

import trio

from vx import report
from vx.errors import Kind, VxError
from vx.jobs import PartFile
from vx.model import Caller, Delivery, Entry, Record, ResultFile, State, Token

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


Migration = tuple[str, ...]

MIGRATIONS: tuple[Migration, ...] = (
    (
        """
        CREATE TABLE session (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            state TEXT NOT NULL,
            options BLOB NOT NULL,
            timezone_min INTEGER NOT NULL,
            started_us INTEGER NOT NULL,
            started_by TEXT NOT NULL,
            started_from TEXT NOT NULL,
            agent TEXT NOT NULL,
            delivery_root TEXT,
            delivery_directory TEXT,
            delivery_name TEXT,
            last_frame_us INTEGER,
            succeeded INTEGER NOT NULL,
            reason TEXT NOT NULL,
            ended_us INTEGER,
            removed_us INTEGER
        )
        """,
        """
        CREATE TABLE file (
            session INTEGER NOT NULL REFERENCES session (number) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            id TEXT NOT NULL,
            size INTEGER NOT NULL,
            mime_type TEXT NOT NULL,
            first_us INTEGER NOT NULL,
            last_us INTEGER NOT NULL,
            path TEXT NOT NULL,
            PRIMARY KEY (session, position)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE part (
            session INTEGER NOT NULL REFERENCES session (number) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            part_name TEXT NOT NULL,
            name TEXT NOT NULL,
            mime_type TEXT NOT NULL,
            first_us INTEGER NOT NULL,
            PRIMARY KEY (session, position)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE audit (
            number INTEGER PRIMARY KEY,
            at_us INTEGER NOT NULL,
            what TEXT NOT NULL,
            session_id TEXT NOT NULL,
            who TEXT NOT NULL,
            address TEXT NOT NULL,
            detail TEXT NOT NULL
        )
        """,
        "CREATE INDEX audit_at ON audit (at_us)",
        "CREATE TABLE room (bytes BLOB)",
    ),
    ("ALTER TABLE session ADD COLUMN report TEXT NOT NULL DEFAULT '{}'",),
    (
        """
        CREATE TABLE token (
            digest BLOB PRIMARY KEY,
            user TEXT NOT NULL,
            password_mark TEXT NOT NULL,
            expires_us INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE TABLE audit_kept (since_us INTEGER NOT NULL)",
        "INSERT INTO audit_kept VALUES (0)",
        """
        CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is only appended to'); END
        """,
        """
        CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit WHEN old.at_us >= (SELECT since_us FROM audit_kept)
        BEGIN SELECT RAISE(ABORT, 'the audit is only appended to'); END
        """,
    ),
)
"""What brings a database from one version to the next. Only ever appended to: databases out there have been through
these; each is one transaction."""


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
            _save(db, record)
            _write_audit(db, entries)

        await self._change(work)

    async def delete(self, record: Record, entries: Sequence[Entry] = ()) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM session WHERE number = ?", (record.number,))
            _write_audit(db, entries)

        await self._change(work)

    async def note(self, entry: Entry) -> None:
        await self._change(lambda db: _write_audit(db, (entry,)))

    async def load_tokens(self) -> list[Token]:
        """StoreError where the database cannot be read."""
        return await trio.to_thread.run_sync(self._database.load_tokens, limiter=self._limiter)

    async def change_tokens(self, kept: Sequence[Token], dropped: Sequence[Token], entry: Entry) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM token WHERE digest = ?", [(token.digest,) for token in dropped])
            db.executemany(
                "INSERT OR REPLACE INTO token VALUES (?, ?, ?, ?)",
                [(token.digest, token.user, token.password_mark, token.expires_us) for token in kept],
            )
            _write_audit(db, (entry,))

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
            return _load(self._db)

    def load_tokens(self) -> list[Token]:
        with _translated(self.path):
            rows = self._db.execute("SELECT digest, user, password_mark, expires_us FROM token ORDER BY expires_us")
            return [Token(*row) for row in rows]

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


# ---- records as rows

_COLUMNS = (
    "number",
    "id",
    "state",
    "options",
    "timezone_min",
    "started_us",
    "started_by",
    "started_from",
    "agent",
    "delivery_root",
    "delivery_directory",
    "delivery_name",
    "last_frame_us",
    "succeeded",
    "reason",
    "ended_us",
    "removed_us",
    "report",
)
_CHANGING = ("state", "last_frame_us", "succeeded", "reason", "ended_us", "removed_us", "report")
_SAVE = (
    f"INSERT INTO session ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608  # constants
    f"ON CONFLICT (number) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _CHANGING)}"
)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM session ORDER BY number"  # noqa: S608  # constants


def _save(db: sqlite3.Connection, record: Record) -> None:
    delivery = record.delivery
    row = (
        record.number,
        record.id,
        record.state.value,
        record.options,
        record.timezone_min,
        record.started_us,
        record.started_by.name,
        record.started_by.address,
        record.agent,
        *((delivery.root, delivery.directory, delivery.name) if delivery else (None, None, None)),
        record.last_frame_us,
        record.succeeded,
        record.reason,
        record.ended_us,
        record.removed_us,
        report.encode(record.report).decode(),
    )
    db.execute(_SAVE, row)
    db.execute("DELETE FROM file WHERE session = ?", (record.number,))
    db.execute("DELETE FROM part WHERE session = ?", (record.number,))
    db.executemany(
        "INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (record.number, index, file.id, file.size, file.mime_type, file.first_us, file.last_us, file.path)
            for index, file in enumerate(record.files)
        ],
    )
    db.executemany(
        "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
        [
            (record.number, index, part.part_name, part.name, part.mime_type, part.first_us)
            for index, part in enumerate(record.parts)
        ],
    )


def _write_audit(db: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    db.executemany(
        "INSERT INTO audit (at_us, what, session_id, who, address, detail) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (entry.at_us, entry.what, entry.session_id, entry.who.name, entry.who.address, entry.detail)
            for entry in entries
        ],
    )


def _load(db: sqlite3.Connection) -> Memory:
    files: dict[int, list[ResultFile]] = {}
    for number, *values in db.execute(
        "SELECT session, id, size, mime_type, first_us, last_us, path FROM file ORDER BY session, position"
    ):
        files.setdefault(number, []).append(ResultFile(*values))
    parts: dict[int, list[PartFile]] = {}
    for number, part_name, name, mime_type, first_us in db.execute(
        "SELECT session, part_name, name, mime_type, first_us FROM part ORDER BY session, position"
    ):
        part = PartFile(part_name=part_name, name=name, mime_type=mime_type, first_us=first_us)
        parts.setdefault(number, []).append(part)
    records = []
    for row in db.execute(_SELECT):
        of: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
        number = of["number"]
        records.append(
            Record(
                id=of["id"],
                number=number,
                options=of["options"],
                timezone_min=of["timezone_min"],
                started_us=of["started_us"],
                started_by=Caller(of["started_by"], of["started_from"]),
                agent=of["agent"],
                delivery=None
                if of["delivery_root"] is None
                else Delivery(of["delivery_root"], of["delivery_directory"], of["delivery_name"]),
                state=State(of["state"]),
                last_frame_us=of["last_frame_us"],
                parts=tuple(parts.get(number, ())),
                files=tuple(files.get(number, ())),
                succeeded=bool(of["succeeded"]),
                reason=of["reason"],
                ended_us=of["ended_us"],
                removed_us=of["removed_us"],
                report=report.decode(of["report"]),
            )
        )
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'session'").fetchone()
    return Memory(tuple(records), row[0] if row else 0)
