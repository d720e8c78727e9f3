"""What a server finds of the one before it that was killed, or ended while exports were under way."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from vx.jobs import Ended
from vx.logs import about
from vx.model import Record
from vx.session import folders
from vx.session.exporter import Exporter
from vx.session.session import Session

log = logging.getLogger(__name__)

_AT_ONCE = 4
_UNUSED_S = 30.0
"""How long the worker of a server that was killed may take to notice that; it does so within moments."""

Complete = Callable[[Session, Ended], Awaitable[None]]


async def complete_interrupted(sessions: Sequence[Session], exporter: Exporter, complete: Complete) -> None:
    """Complete sessions that were running, with what can be read of their files. StoreError, OSError."""
    limit = trio.CapacityLimiter(_AT_ONCE)
    async with trio.open_nursery() as nursery:
        for session in sessions:
            nursery.start_soon(_complete_interrupted, session, exporter, complete, limit)


async def _complete_interrupted(
    session: Session, exporter: Exporter, complete: Complete, limit: trio.CapacityLimiter
) -> None:
    async with limit:
        if await wait_unused(session.folder):
            await exporter.salvage(session)
        reason = "the server ended, or was killed, while the export was under way"
        await complete(session, Ended(succeeded=False, reason=reason))


async def wait_unused(folder: Path) -> bool:
    """Whether the folder is there, and the worker that the server before had in it, if any, has ended."""
    with trio.move_on_after(_UNUSED_S):
        try:
            await trio.to_thread.run_sync(folders.wait_unused, folder, abandon_on_cancel=True)
        except FileNotFoundError:
            return False
        return True
    about(log, folder.name).warning("an old worker still writes its files; they are given up")
    return False


def seconds_left(record: Record, lifetime_s: float, now_us: int) -> float:
    """How much a removed session has left of its time until it is forgotten, whatever became of the wall clock."""
    gone_s = (now_us - (record.removed_us or 0)) / 1e6
    return min(max(lifetime_s - gone_s, 0), lifetime_s)
