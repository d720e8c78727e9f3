"""Records as rows: what is put in comes out, and what must stay stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.session.fakes import ALICE
from vx.jobs import PartFile
from vx.model import Caller, Delivery, Entry, Record, ResultFile, State, Token
from vx.report import Report, SourceReport
from vx.session import tables

NOW_US = 4_000_000_000_000_000
times = st.integers(0, 4_000_000_000_000_000)
texts = st.text(st.characters(exclude_categories=["Cs"]))
parts = st.builds(PartFile, part_name=texts, name=texts, mime_type=texts, first_us=times)
files = st.builds(
    ResultFile, id=texts, size=st.integers(0, 2**62), mime_type=texts, first_us=times, last_us=times, path=texts
)
records = st.builds(
    Record,
    id=texts,
    number=st.integers(1, 2**60),
    options=st.binary(),
    timezone_min=st.integers(-840, 840),
    started_us=times,
    started_by=st.builds(Caller, texts, texts),
    agent=texts,
    delivery=st.none() | st.builds(Delivery, texts, texts, texts),
    state=st.sampled_from(State),
    last_frame_us=st.none() | times,
    parts=st.lists(parts, max_size=2).map(tuple),
    files=st.lists(files, max_size=2).map(tuple),
    succeeded=st.booleans(),
    reason=texts,
    ended_us=st.none() | times,
    removed_us=st.none() | times,
    report=st.builds(Report, sources=st.builds(SourceReport, texts, texts, error=texts).map(lambda each: (each,))),
)


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("PRAGMA foreign_keys = ON")
        for migration in tables.MIGRATIONS:
            for statement in migration:
                db.execute(statement)
        yield db


@settings(max_examples=25, deadline=None)
@given(records, records)
def test_what_is_saved_is_loaded(first: Record, second: Record) -> None:
    changed = replace(  # what a session's end may change; the rest stays what it was
        first,
        state=second.state,
        parts=second.parts,
        files=second.files,
        last_frame_us=second.last_frame_us,
        succeeded=second.succeeded,
        reason=second.reason,
        ended_us=second.ended_us,
        removed_us=second.removed_us,
        report=second.report,
    )
    with database() as db:
        tables.save(db, first)
        assert tables.load(db) == (first,)
        tables.save(db, changed)
        assert tables.load(db) == (changed,)
        tables.delete(db, changed)
        tables.delete(db, changed)  # nothing is no error
        assert (tables.load(db), tables.last_number(db)) == ((), first.number)


def test_lines_of_the_audit_are_neither_changed_nor_taken_away() -> None:
    with database() as db:
        tables.write_audit(db, [Entry(NOW_US, "start", "x", ALICE)])
        db.execute("PRAGMA recursive_triggers = ON")
        for statement in (
            "UPDATE audit SET who = 'eve'",
            "DELETE FROM audit",
            "REPLACE INTO audit SELECT * FROM audit",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="only appended to"):
                db.execute(statement)
        assert db.execute("SELECT who FROM audit").fetchall() == [("alice",)]


def test_tokens_are_kept_by_their_hashes() -> None:
    tokens = [Token(bytes([number]) * 32, "alice", "mark", 100 - number) for number in range(3)]
    with database() as db:
        tables.change_tokens(db, tokens, [])
        tables.change_tokens(db, [replace(tokens[0], expires_us=5)], [tokens[1]])
        assert tables.load_tokens(db) == [replace(tokens[0], expires_us=5), tokens[2]]
