"""What the store remembers, as tables: how they came to be what they are, and records as their rows.

Plain and blocking. Whoever calls these has a transaction open; the audit is read by vx.session.audit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from vx import report
from vx.jobs import PartFile
from vx.model import Caller, Delivery, Entry, Record, ResultFile, State, Token

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


def save(db: sqlite3.Connection, record: Record) -> None:
    """Remember `record` instead of what was known of that session."""
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


def delete(db: sqlite3.Connection, record: Record) -> None:
    """Forget a session; no error if it is unknown."""
    db.execute("DELETE FROM session WHERE number = ?", (record.number,))


def write_audit(db: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    db.executemany(
        "INSERT INTO audit (at_us, what, session_id, who, address, detail) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (entry.at_us, entry.what, entry.session_id, entry.who.name, entry.who.address, entry.detail)
            for entry in entries
        ],
    )


def load(db: sqlite3.Connection) -> tuple[Record, ...]:
    """The sessions, in the order of their numbers."""
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
    return tuple(records)


def last_number(db: sqlite3.Connection) -> int:
    """The highest number that a session was ever given; 0 before the first."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'session'").fetchone()
    return row[0] if row else 0


def load_tokens(db: sqlite3.Connection) -> list[Token]:
    """Those that end first come first."""
    rows = db.execute("SELECT digest, user, password_mark, expires_us FROM token ORDER BY expires_us")
    return [Token(*row) for row in rows]


def change_tokens(db: sqlite3.Connection, kept: Sequence[Token], dropped: Sequence[Token]) -> None:
    db.executemany("DELETE FROM token WHERE digest = ?", [(token.digest,) for token in dropped])
    db.executemany(
        "INSERT OR REPLACE INTO token VALUES (?, ?, ?, ?)",
        [(token.digest, token.user, token.password_mark, token.expires_us) for token in kept],
    )
