"""What retention does to recordings that virtual results are served from: their bytes are the results' then.

They count as what the session takes of the disk. Where the disk runs full, results that use little of what they keep
copy that and let go of the rest, oldest first; if that is not enough, or there is no room for it, the oldest are ended.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import trio

from vx import disk
from vx.logs import about
from vx.session.budget import Budget
from vx.session.leases import Holdings, InThread, description_of
from vx.session.session import Session
from vx.virtual import MADE, Origin, Pieces

log = logging.getLogger(__name__)

_LOOK_S = 60.0
"""How often what retention has done is looked at, while there are virtual results: nothing tells of it."""
_LITTLE = 2
"""A recording is let go of if the result uses less than one part in so many of it."""
_LEFT_FREE = 32 << 20
"""Bytes that copying leaves to others."""


class Result(NamedTuple):
    """A file of a session."""

    path: Path
    held: Mapping[str, int]
    """Descriptors that are held open for it, by where the recordings lie."""


@dataclass
class Kept:
    """What a session keeps of recordings that are nowhere else any more. Bytes."""

    left: int = 0
    """Of the disk; of what several results keep, each has its share."""
    little: dict[Path, set[str]] = field(default_factory=dict)
    """By result: where the recordings lay of which it uses little."""
    copying: int = 0
    """How much it uses of those."""

    def add(self, result: Path, origin: Origin, size: int, used: int) -> None:
        """A result keeps `size` bytes of a recording and uses some of them."""
        self.left += size
        if used * _LITTLE < size:
            self.little.setdefault(result, set()).add(origin.path)
            self.copying += used


_Inode = tuple[int, int]


def take_stock(folder: Path, sessions: Mapping[str, Sequence[Result]]) -> dict[str, Kept]:
    """What each session keeps. Blocks. `folder` is on the disk that counts."""
    device = folder.stat().st_dev
    links: Counter[_Inode] = Counter()
    holders: Counter[_Inode] = Counter()
    leases: dict[Path, dict[str, os.stat_result]] = {}
    for result in (result for results in sessions.values() for result in results):
        found = leases[result.path] = dict(_leases(result.path))
        links.update(map(_inode, found.values()))  # before those without a name come to it
        for path, fd in result.held.items():
            with suppress(OSError):  # let go of in this moment
                status = os.fstat(fd)
                if status.st_dev == device:
                    found[path] = status
        holders.update(map(_inode, found.values()))

    def share(status: os.stat_result) -> int:
        """Bytes that it frees when all let go of it; 0 while somebody else has a name for it."""
        inode = _inode(status)
        return status.st_blocks * 512 // holders[inode] if status.st_nlink == links[inode] else 0

    kept: dict[str, Kept] = {}
    for key, results in sessions.items():
        kept[key] = Kept()
        for result in results:
            if any(map(share, leases[result.path].values())):
                _add(kept[key], result.path, {name: share(status) for name, status in leases[result.path].items()})
    return kept


def _inode(status: os.stat_result) -> _Inode:
    return status.st_dev, status.st_ino


def _leases(result: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The names beside `made`; none of a plain file, or of one that is gone."""
    try:
        with os.scandir(result) as entries:
            for entry in entries:
                if entry.name != MADE:
                    yield entry.name, entry.stat(follow_symlinks=False)
    except OSError:
        return


def _add(kept: Kept, result: Path, shares: Mapping[str, int]) -> None:
    description = description_of(result)
    if description is None:
        return
    used: Counter[int] = Counter()
    for number, _, length in Pieces.of(description).find(0, description.size):
        used[number] += length
    for number, origin in enumerate(description.origins, 1):
        size = shares.get(origin.lease or origin.path, 0)
        if size and not (origin.cloned and Path(origin.path).exists()):  # a clone shares its blocks with what is there
            kept.add(result, origin, size, used[number])


class Watch:
    """Follows what retention does, and makes room where the disk runs full."""

    def __init__(
        self,
        in_thread: InThread,
        holdings: Holdings,
        budget: Budget,
        *,
        absorb: Callable[[Session, Mapping[Path, set[str]]], Awaitable[None]],
        end: Callable[[Session], Awaitable[None]],
        min_free: int,
    ) -> None:
        """`absorb` has results do without recordings, by where these lay; `end` deletes a session's files."""
        self._in_thread = in_thread
        self._holdings = holdings
        self._budget = budget
        self._absorb = absorb
        self._end = end
        self._min_free = min_free

    async def run(self, folder: Path, sessions: Callable[[], Sequence[Session]]) -> None:
        """Look from time to time, until cancelled. `sessions`: those with results, oldest first."""
        while True:
            await trio.sleep(_LOOK_S)
            await self.look(folder, sessions())

    async def look(self, folder: Path, sessions: Sequence[Session]) -> None:
        """Look once."""
        kept = await self._take_stock(folder, sessions)
        lacking = await self._lacking(folder)
        if lacking and any(each.little for each in kept.values()):
            lacking = await self._copy(folder, sessions, kept, lacking)
            kept = await self._take_stock(folder, sessions)
        for session in sessions:
            left = kept[session.record.id].left
            if lacking and left and not session.leases:
                text = "its files are removed: recordings that only it keeps take %d MB, and the disk is full"
                about(log, session.record.id).warning(text, left >> 20)
                await self._end(session)
                lacking = await self._lacking(folder)

    async def _take_stock(self, folder: Path, sessions: Sequence[Session]) -> dict[str, Kept]:
        results = {
            session.record.id: [
                Result(session.folder / file.id, dict(self._holdings.of(session.record.id, file.id)))
                for file in session.record.files
                if not file.path
            ]
            for session in sessions
        }
        kept = await self._in_thread(take_stock, folder, results)
        for session in sessions:
            self._budget.charge(session.record.id, kept[session.record.id].left)
        return kept

    async def _lacking(self, folder: Path) -> int:
        """How many bytes less than there should be are free; 0: enough."""
        return max(0, self._min_free - await self._in_thread(disk.free, folder))

    async def _copy(self, folder: Path, sessions: Iterable[Session], kept: Mapping[str, Kept], lacking: int) -> int:
        """Have results that use little of what they keep do without it; returns what is lacking then."""
        for session in sessions:
            own = kept[session.record.id]
            if lacking and own.little and own.copying + _LEFT_FREE <= self._min_free - lacking:
                text = "the disk is full: %d MB are copied out of recordings that only it keeps"
                about(log, session.record.id).info(text, own.copying >> 20)
                await self._absorb(session, own.little)
                lacking = await self._lacking(folder)
        return lacking
