"""The audit, read: who did what, when, from where. Plain and blocking, beside a server that may be running."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from vx.errors import Kind, VxError
from vx.model import Caller, Entry


def read_audit(database: Path, since_us: int = 0, who: str = "", session_id: str = "") -> Iterator[Entry]:
    """Lines since a time, oldest first; of one user or host, of one session, where these are given.

    VxError(UNAVAILABLE) where there is no database that could be read.
    """
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            rows = db.execute(
                "SELECT at_us, what, session_id, who, address, detail FROM audit "
                "WHERE at_us >= ? AND (who = ? OR ? = '') AND (session_id = ? OR ? = '') ORDER BY number",
                (since_us, who, who, session_id, session_id),
            )
            for at_us, what, session, name, address, detail in rows:
                yield Entry(at_us, what, session, Caller(name, address), detail)
    except sqlite3.Error as error:
        raise VxError(Kind.UNAVAILABLE, f"the audit in {database} cannot be read: {error}") from None
