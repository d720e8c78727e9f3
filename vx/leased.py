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
from vx.virtual import MADE, Description, Pieces, read_description

log = logging.getLogger(__name__)

_OPEN_AT_ONCE = 8
"""Descriptors of a download; a clip of an hour may lie in hundreds of recordings."""

Held = Mapping[int, int]
"""Descriptors that the session holds open, by the number of the origin."""
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
    try:
        made = os.open(path / MADE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise VxError(Kind.DATA_LOSS, f"the file cannot be read any more: {error.strerror}") from None
    try:
        try:
            description = read_description(made)
        except (OSError, ValueError) as error:
            raise VxError(Kind.DATA_LOSS, f"the file cannot be read any more: {error}") from None
        if description.size != size:
            raise VxError(Kind.DATA_LOSS, f"the file has {description.size} bytes; it was made with {size}")
        source = _VirtualSource(path, made, description, held)
        try:
            yield source
        finally:
            source.close()
    finally:
        os.close(made)


class _VirtualSource:
    """The bytes of a virtual result, by a few descriptors at a time."""

    def __init__(self, folder: Path, made: int, description: Description, held: Held) -> None:
        self.size = description.size
        self._folder = folder
        self._made = made
        self._origins = description.origins
        self._pieces = Pieces.of(description)
        self._held = held
        self._opened: OrderedDict[int, int] = OrderedDict()
        self._used: dict[int, int] = {}

    def close(self) -> None:
        """Let go of all recordings."""
        while self._opened:
            os.close(self._opened.popitem()[1])

    async def runs(self, offset: int, length: int) -> Sequence[Run]:
        found = list(self._pieces.find(offset, length))
        self._used = {}
        for number, _, _ in found:
            if number and number not in self._used:
                self._used[number] = await self._descriptor(number)
        self._close_idle()
        return [Run(self._used[number] if number else self._made, at, count) for number, at, count in found]

    def verify(self) -> None:
        for number, fd in self._used.items():
            self._check(number, os.fstat(fd))

    async def _descriptor(self, number: int) -> int:
        fd = self._held.get(number) or self._opened.get(number)
        if fd is None:
            try:
                fd = self._opened[number] = await disk_threads.run(self._open, number)
            except OSError as error:
                raise self._lost(number, f"cannot be opened any more: {error.strerror}") from None
            self._check(number, os.fstat(fd))
        elif number in self._opened:
            self._opened.move_to_end(number)
        return fd

    def _open(self, number: int) -> int:
        origin = self._origins[number - 1]
        if origin.lease:
            return os.open(self._folder / origin.lease, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return os.open(origin.path, os.O_RDONLY | os.O_CLOEXEC)

    def _close_idle(self) -> None:
        """Close those that were used longest ago, but for what is used now."""
        for number in list(self._opened)[: max(0, len(self._opened) - _OPEN_AT_ONCE)]:
            if number not in self._used:
                os.close(self._opened.pop(number))

    def _check(self, number: int, status: os.stat_result) -> None:
        origin = self._origins[number - 1]
        if not origin.identity.is_of(status, grows=origin.grows):
            raise self._lost(number, "was truncated or rewritten after the export")

    def _lost(self, number: int, what: str) -> VxError:
        origin = self._origins[number - 1]
        log.warning("the recording %s %s", origin.path, what)
        name = Path(origin.path).name
        return VxError(Kind.DATA_LOSS, f"the recording {name}, which the file is served from, {what}")
