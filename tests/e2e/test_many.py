"""Ten thousand sessions: what their number must not break."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from tests.e2e.test_export import archive, configuration
from tests.e2e.test_restart import Serve, serve
from tests.session.fakes import COMPLETED
from vx.model import Caller
from vx.session import store, tables

__all__ = ["archive", "serve"]  # fixtures

COUNT = 10_000


def fill(database: Path) -> list[str]:
    """Completed sessions that have no files, of the client's machine; their ids."""

    async def create() -> None:
        async with store.open_store(database, audit_s=1e9):
            pass

    database.parent.mkdir(parents=True)
    trio.run(create)
    ids = [f"{number:032x}" for number in range(1, COUNT + 1)]
    record = replace(COMPLETED, files=(), started_by=Caller("127.0.0.1", "127.0.0.1:1"))
    with closing(sqlite3.connect(database)) as db, db:
        for number, session_id in enumerate(ids, 1):
            tables.save(db, replace(record, id=session_id, number=number))
    return ids


def test_a_token_goes_on_after_a_restart(serve: Serve, archive: Path, tmp_path: Path) -> None:
    ids = fill(tmp_path / "server" / "state" / "vx.sqlite")
    server, client = serve(configuration(archive))
    pages = client.pages(size=1000)
    assert [len(page.sessions) for page in pages] == [1000] * 10
    assert [info.session.id for page in pages for info in page.sessions] == ids
    seen = [info.session.id for page in pages[:3] for info in page.sessions]
    token = pages[2].next_page_token

    gone = [ids[5], ids[2999], ids[3000], ids[-1]]  # shown already, the last one shown, the next one, the last one
    for session_id in gone:
        client.destroy(session_id)
    server.kill()
    _, client = serve(configuration(archive))
    new = client.start(client.snapshot("20260511T080000"))
    rest: list[Any] = [info.session.id for page in client.pages(token, 700) for info in page.sessions]
    assert not set(seen) & set(rest)
    assert seen + rest == [session_id for session_id in ids if session_id not in gone[2:]] + [new]
