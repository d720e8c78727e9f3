"""The recordings that virtual results are served from, for as long as their sessions live.

A worker leases them by links in the session's folder; what it can't link to, the server holds open. Either keeps the
bytes of a recording that retention deletes, and then they are the session's: they count as what it takes of the disk.
"""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

import trio

from vx.model import ResultFile
from vx.session.session import Session
from vx.virtual import MADE, Description, Origin, read_description

log = logging.getLogger(__name__)

_MOST_OF_A_SESSION = 128
_MOST_OF_ALL = 512
"""Descriptors."""
_LOOK_S = 60.0
"""How often what retention has done is looked at, while there are virtual results: nothing tells of it."""
_NONE: Mapping[int, int] = {}

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class InThread(Protocol):
    """Calls a blocking function off the event loop."""

    async def __call__(self, call: Callable[[Unpack[_Args]], _T], /, *args: *_Args) -> _T: ...


class Holdings:
    """Recordings that are held open."""

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._held: dict[tuple[str, str], dict[int, int]] = {}
        """By session and file: descriptors by the number of the origin."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:  # connections need theirs
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def room(self) -> int:
        """How many recordings a further session may have held open."""
        return max(0, min(_MOST_OF_A_SESSION, _MOST_OF_ALL - sum(map(len, self._held.values()))))

    async def hold(self, session: Session, file: ResultFile) -> None:
        """Hold what a result needs. What is gone by now ends its downloads."""
        held = await self._in_thread(_open_unlinked, session.folder / file.id)
        if held:
            self._held[session.record.id, file.id] = held

    def of(self, session_id: str, file_id: str) -> Mapping[int, int]:
        """The descriptors of a result, by the number of the origin."""
        return self._held.get((session_id, file_id), _NONE)

    def release(self, session_id: str) -> None:
        """The session's results are gone."""
        for key in [key for key in self._held if key[0] == session_id]:
            for fd in self._held.pop(key).values():
                os.close(fd)


def _described(result: Path) -> Description | None:
    """None for a plain file, and for what can't be read any more: its download tells."""
    if not result.is_dir():
        return None
    try:
        fd = os.open(result / MADE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return read_description(fd)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        log.warning("%s can't be served any more: %s", result, error)
        return None


def _open_unlinked(result: Path) -> dict[int, int]:
    description = _described(result)
    held: dict[int, int] = {}
    for number, origin in enumerate(() if description is None else description.origins, 1):
        if origin.lease:
            continue
        try:
            fd = os.open(origin.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            log.warning("%s can't be served any more: %s: %s", result, origin.path, error.strerror)
            continue
        if origin.identity.is_of(os.fstat(fd), grows=origin.grows):
            held[number] = fd
        else:
            os.close(fd)
            log.warning("%s can't be served any more: %s was rewritten", result, origin.path)
    return held


def left_to_us(folder: Path, files: Iterable[ResultFile]) -> int:
    """Bytes of leased recordings that are nowhere else any more."""
    total = 0
    for file in files:
        result = folder / file.id
        description = _described(result)
        total += sum(_left(result, origin) for origin in (description.origins if description else ()))
    return total


def _left(result: Path, origin: Origin) -> int:
    if not origin.lease:
        return 0  # on another disk, mostly
    try:
        leased = (result / origin.lease).lstat()
    except OSError:
        return 0
    alone = not Path(origin.path).exists() if origin.cloned else leased.st_nlink == 1
    return leased.st_blocks * 512 if alone else 0


class Watch:
    """Looks at what retention does to leased recordings, and ends the oldest results where the disk runs full."""

    def __init__(
        self,
        in_thread: InThread,
        account: Callable[[Session, int], None],
        end: Callable[[Session], Awaitable[None]],
        min_free: int,
    ) -> None:
        """`account` gets what a session's leases take beside its files; `end` deletes a session's files."""
        self._in_thread = in_thread
        self._account = account
        self._end = end
        self._min_free = min_free

    async def run(self, folder: Path, sessions: Callable[[], Sequence[Session]]) -> None:
        """Look from time to time, until cancelled. `sessions`: those with results, oldest first."""
        while True:
            await trio.sleep(_LOOK_S)
            await self.look(folder, sessions())

    async def look(self, folder: Path, sessions: Sequence[Session]) -> None:
        """Look once."""
        for session in sessions:
            left = await self._in_thread(left_to_us, session.folder, session.record.files)
            self._account(session, left)
            if left and not session.leases and await self._in_thread(_free, folder) < self._min_free:
                log.warning(
                    "session %s: its files are removed: recordings that only it keeps take %d MB, and the disk is full",
                    session.record.id,
                    left >> 20,
                )
                await self._end(session)


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
