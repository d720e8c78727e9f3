"""Virtual results out (see vx.virtual): their bytes are read from the recordings, and never wrong ones.

A recording that changed since the export ends the download with DATA_LOSS: it is looked at when it is opened, and again
after each read, for a recorder may write into it at any time.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from vx.download import Run, Source, disk_threads, open_file
from vx.errors import Kind, VxError
from vx.virtual import CHANGED, MADE, Origin, Pieces, read_description

log = logging.getLogger(__name__)

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_OPEN_AT_ONCE = 8
"""Descriptors of a download; a clip of an hour may lie in hundreds of recordings."""

Held = Mapping[str, int]
"""Descriptors that the session holds open, by where the recording lies. It may let go of them at any time."""
NONE_HELD: Held = MappingProxyType({})


@contextmanager
def open_result(path: Path, size: int, held: Held = NONE_HELD) -> Iterator[Source]:
    """A session's result, whether it is a file or virtual, that was promised to have `size` bytes.

    VxError(DATA_LOSS) if it is gone or has another size.
    """
    if not path.is_dir() or path.is_symlink():
        with open_file(path, size) as file:
            yield file
        return
    source = _VirtualSource(path, size, held)
    try:
        yield source
    finally:
        source.close()


class _GoneError(Exception):
    """An origin is not there any more as it was: that is the end, unless `made` has its bytes by now."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


class _VirtualSource:
    """The bytes of a virtual result, by a few descriptors at a time."""

    def __init__(self, folder: Path, size: int, held: Held) -> None:
        self.size = size
        self._folder = folder
        self._held = held
        self._opened: OrderedDict[int, int] = OrderedDict()
        self._used: dict[int, int] = {}
        self._made, self._origins, self._pieces = self._read_made()

    def _read_made(self) -> tuple[int, tuple[Origin, ...], Pieces]:
        try:
            made = os.open(self._folder / MADE, _READ)
        except OSError as error:
            raise VxError(Kind.DATA_LOSS, f"the file cannot be read any more: {error.strerror}") from None
        try:
            description = read_description(made)
        except (OSError, ValueError) as error:
            os.close(made)
            raise VxError(Kind.DATA_LOSS, f"the file cannot be read any more: {error}") from None
        if description.size != self.size:
            os.close(made)
            raise VxError(Kind.DATA_LOSS, f"the file has {description.size} bytes; it was made with {self.size}")
        return made, description.origins, Pieces.of(description)

    def close(self) -> None:
        """Let go of all files."""
        os.close(self._made)
        while self._opened:
            os.close(self._opened.popitem()[1])

    async def runs(self, offset: int, length: int) -> Sequence[Run]:
        while True:
            try:
                return await self._find(offset, length)
            except _GoneError as gone:
                if not await disk_threads.run(self._refresh):
                    raise self._lost(gone.number, str(gone)) from None

    async def _find(self, offset: int, length: int) -> Sequence[Run]:
        found = list(self._pieces.find(offset, length))
        self._used = {}
        for number, _, _ in found:
            if number and number not in self._used:
                self._used[number] = await self._descriptor(number)
        self._close_idle()
        return [Run(self._used[number] if number else self._made, at, count) for number, at, count in found]

    def _refresh(self) -> bool:
        """Read what `made` says now; False if that is what it said before."""
        before = os.fstat(self._made).st_ino
        made, origins, pieces = self._read_made()
        if os.fstat(made).st_ino == before:
            os.close(made)
            return False
        self.close()
        self._made, self._origins, self._pieces = made, origins, pieces
        return True

    def verify(self) -> None:
        for number, fd in self._used.items():
            if not self._origins[number - 1].is_unchanged(fd):
                raise self._lost(number, CHANGED)

    async def _descriptor(self, number: int) -> int:
        fd = self._opened.get(number)
        if fd is None:
            fd = self._opened[number] = await self._open(number)
            if not self._origins[number - 1].is_unchanged(fd):
                raise _GoneError(number, CHANGED)
        self._opened.move_to_end(number)
        return fd

    async def _open(self, number: int) -> int:
        origin = self._origins[number - 1]
        if origin.lease:
            try:
                return await disk_threads.run(os.open, self._folder / origin.lease, _READ)
            except OSError as error:
                raise _GoneError(number, f"cannot be opened any more: {error.strerror}") from None
        held = self._held.get(origin.path)
        if held is None:
            raise _GoneError(number, "is not held open any more")
        return os.dup(held)

    def _close_idle(self) -> None:
        """Close those that were used longest ago, but for what is used now."""
        for number in list(self._opened)[: max(0, len(self._opened) - _OPEN_AT_ONCE)]:
            if number not in self._used:
                os.close(self._opened.pop(number))

    def _lost(self, number: int, what: str) -> VxError:
        origin = self._origins[number - 1]
        log.warning("the recording %s %s", origin.path, what)
        name = Path(origin.path).name
        return VxError(Kind.DATA_LOSS, f"the recording {name}, which the file is served from, {what}")
