"""The database by itself: what it keeps, and what it says when it cannot."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tests.session.fakes import ALICE, BOB
from vx.model import Entry, Record, ResultFile, Token
from vx.report import NO_REPORT, Report
from vx.session.store import SqliteStore, StoreError, open_store
from vx.session.tables import MIGRATIONS

YEAR_S = 366 * 86_400.0
NOW_US = 4_000_000_000_000_000
RECORD = Record(
    id="a" * 32,
    number=1,
    options=b"options",
    timezone_min=0,
    started_us=5,
    started_by=ALICE,
    files=(ResultFile("clip.mp4", 7, "video/mp4", 1, 2),),
)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    async with open_store(path, audit_s=YEAR_S) as store:
        yield store


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.execute(sql))


async def test_a_saved_session_is_there_for_others_when_the_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    async with opened(path) as store:
        await store.save(RECORD, [Entry(NOW_US, "start", RECORD.id, ALICE, "detail")])
        assert rows(path, "SELECT id, state FROM session") == [(RECORD.id, "queued")]
        assert rows(path, "SELECT what, who, address, detail FROM audit") == [
            ("start", "alice", "192.0.2.1:5001", "detail")
        ]
        assert rows(path, "PRAGMA journal_mode") == [("wal",)]
        await store.delete(RECORD, [Entry(NOW_US, "remove", RECORD.id, BOB)])
        assert rows(path, "SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM file)") == [(0, 0)]
        assert rows(path, "SELECT what, who FROM audit ORDER BY number") == [("start", "alice"), ("remove", "bob")]
    assert path.stat().st_mode & 0o077 == 0


async def test_many_changes_at_once_share_transactions_and_all_are_made(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    async with opened(path) as store:
        commits: list[int] = []
        commit = store._database.commit
        store._database.commit = lambda batch: (commits.append(len(batch)), commit(batch))[1]  # type: ignore[method-assign, func-returns-value]
        async with trio.open_nursery() as nursery:
            for number in range(1, 501):
                nursery.start_soon(store.save, replace(RECORD, id=str(number), number=number))
        assert sum(commits) == 500
        assert len(commits) < 10
        assert [record.number for record in (await store.load()).records] == list(range(1, 501))


async def test_one_change_that_cannot_be_made_fails_alone(tmp_path: Path) -> None:
    errors: list[str] = []

    async def save(store: SqliteStore, record: Record) -> None:
        try:
            await store.save(record)
        except StoreError as error:
            errors.append(str(error))

    async with opened(tmp_path / "vx.sqlite") as store:
        async with trio.open_nursery() as nursery:
            for number in range(1, 6):
                name = "twice" if number < 3 else str(number)
                nursery.start_soon(save, store, replace(RECORD, id=name, number=number))
        assert len((await store.load()).records) == 4
    assert errors == [f"the database {tmp_path}/vx.sqlite cannot be used: UNIQUE constraint failed: session.id"]


async def test_a_caller_that_is_cancelled_neither_breaks_nor_stops_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path / "vx.sqlite") as store:
        with trio.CancelScope() as impatient:
            async with trio.open_nursery() as nursery:
                for number in range(1, 20):
                    nursery.start_soon(store.save, replace(RECORD, id=str(number), number=number))
                await trio.lowlevel.checkpoint()
                impatient.cancel()
        await store.save(replace(RECORD, id="20", number=20))
        assert 20 in {record.number for record in (await store.load()).records}


async def test_old_lines_of_the_audit_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    async with opened(path) as store:
        await store.note(Entry(1, "download", "old", ALICE))
        await store.note(Entry(NOW_US, "download", "new", ALICE))
    async with opened(path):
        assert rows(path, "SELECT session_id FROM audit") == [("new",)]


async def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        async with opened(path):
            pass
    return str(caught.value)


async def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    async with opened(path) as store:
        for number in range(1, 100):
            await store.save(replace(RECORD, id=str(number), number=number))
    whole = path.read_bytes()
    for broken in (
        b"not a database at all" * 1000,
        whole[:20_000] + os.urandom(40_000) + whole[60_000:],
        whole[: len(whole) // 2],
    ):
        path.write_bytes(broken)
        assert f"the database {path} is damaged" in await refusal(path)
        assert path.read_bytes() == broken


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    known = len(MIGRATIONS)
    assert await refusal(path) == (
        f"the database {path} has version 99, made by a newer vx; this one knows up to {known}"
    )


async def test_no_database_can_be_had(tmp_path: Path) -> None:
    (tmp_path / "vx.sqlite").mkdir()
    assert "cannot be used: Is a directory" in await refusal(tmp_path / "vx.sqlite")
    assert "cannot be used: No such file or directory" in await refusal(tmp_path / "gone" / "vx.sqlite")


async def test_a_database_that_was_removed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    async with opened(path) as store:
        await store.save(RECORD)
        path.rename(tmp_path / "elsewhere")
        with pytest.raises(StoreError, match="was removed or replaced while the server ran") as caught:
            await store.save(RECORD)
        assert not caught.value.passing


async def test_somebody_elses_lock_passes(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    async with opened(path) as store:
        store._database._db.execute("PRAGMA busy_timeout = 1")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="database is locked") as caught:
                await store.save(RECORD)
            assert caught.value.passing
        await store.save(RECORD)


async def test_a_migration_is_done_once_and_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    async with opened(path) as store:
        await store.save(RECORD)
    second = ("ALTER TABLE session ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'",)
    broken = (*second, "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(StoreError, match="no such table: nowhere"):
        async with open_store(path, audit_s=YEAR_S, migrations=(*MIGRATIONS, broken)):
            pass
    assert rows(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    for _ in range(2):
        async with open_store(path, audit_s=YEAR_S, migrations=(*MIGRATIONS, second)) as store:
            assert (await store.load()).records == (RECORD,)
            assert rows(path, "SELECT colour FROM session") == [("grey",)]
            assert rows(path, "PRAGMA user_version") == [(len(MIGRATIONS) + 1,)]


async def test_a_database_of_the_first_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        for statement in MIGRATIONS[0]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        columns = "id, state, options, timezone_min, started_us, started_by, started_from, agent, succeeded, reason"
        values = "'a', 'completed', x'', 0, 5, 'alice', '192.0.2.1:5001', '', 1, ''"
        db.execute(f"INSERT INTO session ({columns}) VALUES ({values})")
    async with opened(path) as store:
        (record,) = (await store.load()).records
        assert (record.id, record.started_by, record.report) == ("a", ALICE, NO_REPORT)
        changed = replace(record, report=Report(written=5))
        await store.save(changed)
        assert (await store.load()).records == (changed,)


async def test_ten_thousand_sessions_are_loaded(tmp_path: Path) -> None:
    async with opened(tmp_path / "vx.sqlite") as store:
        async with trio.open_nursery() as nursery:
            for number in range(1, 10_001):
                nursery.start_soon(store.save, replace(RECORD, id=str(number), number=number))
        memory = await store.load()
    assert [record.number for record in memory.records] == list(range(1, 10_001))
    assert memory.last_number == 10_000


async def test_sessions_tokens_and_the_audit_are_there_for_the_next_server(tmp_path: Path) -> None:
    path = tmp_path / "vx.sqlite"
    token = Token(b"digest", "alice", "mark", 5)
    async with opened(path) as store:
        await store.save(RECORD, [Entry(NOW_US, "start", RECORD.id, ALICE)])
        await store.change_tokens([token], [], Entry(NOW_US, "login", "", ALICE))
        await store.note(Entry(NOW_US, "download", RECORD.id, ALICE))
    async with opened(path) as store:
        assert (await store.load()).records == (RECORD,)
        assert await store.load_tokens() == [token]
        await store.delete(RECORD)
        memory = await store.load()
        assert (memory.records, memory.last_number) == ((), RECORD.number)
    assert rows(path, "SELECT what FROM audit ORDER BY number") == [("start",), ("login",), ("download",)]
