"""`vx`, but the process kills itself at one point: `python killing.py POINT serve --config FILE`.

As a power cut would, and no later than that: the next instruction is never carried out.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Never

import trio


def die() -> Never:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes no further")


def killing(owner: Any, name: str, *, when: Callable[..., bool] = lambda *_: True, before: bool) -> None:
    """Die before or after a call of `owner.name` whose arguments fulfil `when`."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        fatal = when(*args)
        if fatal and before:
            die()
        result = original(*args, **kwargs)
        if fatal:
            die()
        return result

    async def wait(*args: Any, **kwargs: Any) -> Any:
        fatal = when(*args)
        if fatal and before:
            die()
        result = await original(*args, **kwargs)
        if fatal:
            die()
        return result

    import inspect

    setattr(owner, name, wait if inspect.iscoroutinefunction(original) else call)


def saving(what: str, *, before: bool) -> None:
    """Die when the audit's line `what` is written: before it is on the disk, or right after."""
    from vx.session.store import SqliteStore

    def told(_store: Any, _record: Any, entries: Sequence[Any] = ()) -> bool:
        return any(entry.what == what for entry in entries)

    for name in ("save", "delete"):
        killing(SqliteStore, name, when=told, before=before)
    killing(SqliteStore, "note", when=lambda _store, entry: entry.what == what, before=before)


def event(kind: str) -> None:
    """Die when a worker reports this."""
    from vx.session.exporter import Exporter

    killing(Exporter, "_take", when=lambda _exporter, _session, event: type(event).__name__ == kind, before=True)


def noting(*, before: bool) -> None:
    """Die when the files of a session that runs are stored."""
    from vx.session import exporter
    from vx.session.store import SqliteStore

    exporter.__dict__["_NOTE_S"] = 0  # else all is over by then
    killing(
        SqliteStore,
        "save",
        when=lambda _store, record, entries=(): (record.parts or record.files) and not entries,
        before=before,
    )


def unsaved() -> None:
    """Die when a worker has made a file of a session whose start isn't stored."""
    from vx.session.store import SqliteStore

    async def save(*_: Any) -> None:
        await trio.sleep_forever()

    SqliteStore.save = save  # type: ignore[method-assign, assignment]
    event("FileDone")


def folder(name: str, *, before: bool) -> None:
    from vx.session import folders

    killing(folders, name, before=before)


def delivering(*, before: bool) -> None:
    from vx.session import delivery

    killing(delivery, "_put", before=before)


def absorbing(owner: str, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Die while results copy what they use of recordings that retention has deleted: the disk is always full."""
    from vx.session import absorbing, watch

    async def lacking(*_: Any) -> int:
        return 1

    watch._LOOK_S = 0.1
    setattr(watch.Watch, "_lacking", lacking)  # noqa: B010  # for the type checker it's another method
    killing(getattr(absorbing, owner, absorbing), name, when=when, before=False)


def listing() -> None:
    from vx.rpc import services

    pages = itertools.count()
    killing(services, "_encode_page", when=lambda *_: next(pages) == 1, before=True)


class HalfAMigration:
    """Its first statement is carried out; during the second one the process dies."""

    def __iter__(self) -> Iterator[str]:
        yield "ALTER TABLE session ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'"
        yield "UPDATE session SET colour = 'red'"
        die()


def migrating() -> None:
    import vx.app
    from vx.session.store import open_store
    from vx.session.tables import MIGRATIONS

    vx.app.__dict__["open_store"] = partial(open_store, migrations=(*MIGRATIONS, HalfAMigration()))  # type: ignore[arg-type]


def creating() -> None:
    from vx.session import store

    killing(store, "_make_room", before=True)


POINTS: dict[str, Callable[[], None]] = {
    "creating the database": creating,
    "migrating": migrating,
    "start: folder made": partial(folder, "make", before=False),
    "start: before it is saved": partial(saving, "start", before=True),
    "start: its worker is done, it is not saved": unsaved,
    "start: saved, not answered": partial(saving, "start", before=False),
    "running: a file is opened": partial(event, "FileOpened"),
    "running: a frame is written": partial(event, "Progress"),
    "running: before its files are noted": partial(noting, before=True),
    "running: its files are noted": partial(noting, before=False),
    "finalising: a file is done": partial(event, "FileDone"),
    "finalising: before it is saved": partial(saving, "end", before=True),
    "finalising: saved, not told": partial(saving, "end", before=False),
    "delivering: before": partial(delivering, before=True),
    "delivering: after": partial(delivering, before=False),
    "listing": listing,
    "downloading": partial(saving, "download", before=False),
    "removing: before it is saved": partial(saving, "remove", before=True),
    "removing: saved, files there": partial(saving, "remove", before=False),
    "removing: files deleted": partial(folder, "remove", before=False),
}
"""In the life of sessions that write files."""
ABSORBING: dict[str, Callable[[], None]] = {
    "absorbing: partly copied": partial(absorbing, "_Copying", "go_on"),
    "absorbing: copied, not in its place": partial(absorbing, "", "end_made"),
    "absorbing: in its place, leases there": partial(
        absorbing, "disk", "sync", lambda folder: (folder / "made").exists()
    ),
    "absorbing: done": partial(absorbing, "_Copying", "close"),
}
"""In that of sessions whose files are served from recordings."""


def main() -> None:
    point = sys.argv.pop(1)
    (POINTS | ABSORBING)[point]()
    from vx.__main__ import main as vx

    vx()


if __name__ == "__main__":  # workers import this file again, and must live
    main()
