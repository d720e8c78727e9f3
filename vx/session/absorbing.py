"""A virtual result that holds more of its bytes itself: what it uses of some recordings is copied into its own file.

The recordings can be let go then. The bytes of the result stay what they are, and so does every offset in it; downloads
under way go on. A new `made` is written beside the old one and is on the disk before it takes its place, by one rename;
only then are the leases removed. A server that is killed meanwhile leaves the old result or the new one, and beside it
what the next server's sweep removes (vx.session.folders).
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import trio

from vx import disk
from vx.logs import about
from vx.model import State
from vx.session.budget import Budget
from vx.session.folders import described, taken
from vx.session.leases import Holdings, InThread
from vx.session.ledger import SAVE_S, shielded
from vx.session.session import Session
from vx.virtual import CHANGED, MADE, Description, Pieces, end_made

log = logging.getLogger(__name__)

PART = "made.part"
_AT_ONCE = 8 << 20
"""Bytes copied between two looks at whether it is still wanted."""

_Piece = tuple[int, int, int]
"""(Origin's number, offset in it, length)."""


class ChangedError(Exception):
    """A recording isn't what it was when the result was made."""


class Absorber:
    """Has sessions' results do without recordings, and accounts for what they take of the disk then."""

    def __init__(self, holdings: Holdings, budget: Budget, in_thread: InThread) -> None:
        self._holdings = holdings
        self._budget = budget
        self._in_thread = in_thread

    async def absorb(self, session: Session, results: Mapping[Path, Collection[str]]) -> None:
        """Absorb recordings, given where they lay, into the session's results.

        What can't be is logged. `session.stop_copying` ends it, and so does whatever becomes of the session meanwhile.
        """
        with trio.CancelScope() as session.copying:
            async with session.ending:
                if session.record.state is not State.COMPLETED:
                    return
                try:
                    for result, paths in results.items():
                        held = self._holdings.of(session.record.id, result.name)
                        await absorb(result, paths, held, self._in_thread)
                        self._holdings.drop(session.record.id, result.name, paths)
                except (OSError, ValueError, ChangedError) as error:
                    about(log, session.record.id).warning("its recordings can't be let go of: %s", error)
                size = await self._in_thread(taken, session.folder, session.record.files)
                self._budget.settle(session.record.id, size)


async def absorb(result: Path, paths: Collection[str], held: Mapping[str, int], in_thread: InThread) -> None:
    """Have `made` hold all bytes that the result takes from the recordings at these paths.

    `held`: descriptors of those that have no lease. OSError, ValueError where the result can't be understood, and
    ChangedError leave the result as it was; so does being cancelled.
    """
    copying = await in_thread(_Copying, result, paths, held)
    try:
        while await in_thread(copying.go_on):
            pass
        await in_thread(copying.finish)
    finally:
        with shielded(SAVE_S):
            await in_thread(copying.close)


class _Copying:
    """The blocking side."""

    def __init__(self, result: Path, paths: Collection[str], held: Mapping[str, int]) -> None:
        self._result = result
        self._held = held
        description = described(result)
        if description is None:
            raise ValueError("it is a plain file")
        self._old = description
        wanted = {number for number, origin in enumerate(self._old.origins, 1) if origin.path in paths}
        pieces = list(Pieces.of(self._old).find(0, self._old.size))
        own = max((at + length for number, at, length in pieces if not number), default=0)
        self._to_copy = deque([(0, 0, own), *(piece for piece in pieces if piece[0] in wanted)])
        self._new = _describe(self._old, pieces, wanted, own)
        self._at = 0
        part = result / PART
        part.unlink(missing_ok=True)  # of a server that was killed
        self._part = part.open("xb")

    def go_on(self) -> bool:
        """Copy some more; False when all is copied."""
        left = _AT_ONCE
        with ExitStack() as stack:
            opened: dict[int, int] = {}
            while self._to_copy and left:
                number, at, length = self._to_copy.popleft()
                if number not in opened:
                    opened[number] = stack.enter_context(self._open(number))
                count = min(length, left)
                self._copy(opened[number], at, count)
                left -= count
                if count < length:
                    self._to_copy.appendleft((number, at + count, length - count))
            for number, fd in opened.items():
                self._check(number, fd)
        return bool(self._to_copy)

    def _open(self, number: int) -> AbstractContextManager[int]:
        if not number:
            return _opened(self._result / MADE)
        origin = self._old.origins[number - 1]
        if origin.lease:
            return _opened(self._result / origin.lease)
        if origin.path not in self._held:
            raise ChangedError(f"{origin.path} is not held open")
        return nullcontext(self._held[origin.path])

    def _copy(self, fd: int, offset: int, length: int) -> None:
        """By the kernel, which on some file systems shares the blocks."""
        while length:
            count = os.copy_file_range(fd, self._part.fileno(), length, offset, self._at)
            if not count:
                raise ChangedError("a recording has become shorter")
            offset, length, self._at = offset + count, length - count, self._at + count

    def _check(self, number: int, fd: int) -> None:
        """What was copied is what was promised: the recorder may have written into it until now."""
        if not number:
            return
        origin = self._old.origins[number - 1]
        if not origin.is_unchanged(fd):
            raise ChangedError(f"{origin.path} {CHANGED}")

    def finish(self) -> None:
        """Have it be the result."""
        self._part.seek(self._at)
        end_made(self._part, self._new)
        (self._result / PART).rename(self._result / MADE)
        disk.sync(self._result)
        leases = {origin.lease for origin in self._old.origins} - {origin.lease for origin in self._new.origins}
        for lease in leases - {""}:
            (self._result / lease).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave nothing behind that isn't the result."""
        with suppress(OSError):
            self._part.close()
            (self._result / PART).unlink(missing_ok=True)


def _describe(old: Description, pieces: list[_Piece], wanted: set[int], own: int) -> Description:
    """Where the result's bytes lie when the wanted origins' follow the `own` ones of `made`, in the result's order."""
    kept = [number for number in range(1, len(old.origins) + 1) if number not in wanted]
    numbers = {number: i for i, number in enumerate([0, *kept])}
    new = Pieces()
    for number, at, length in pieces:
        if number in wanted:
            new.add(0, own, length)
            own += length
        else:
            new.add(numbers[number], at, length)
    return new.describe(tuple(old.origins[number - 1] for number in kept))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)
