"""Finished files out: chunks from any index on, read once into a buffer from which they are sent.

A source is asked for runs of (descriptor, offset, length), and whether what was read is what was promised; nothing else
is known of it. A run is read with `preadv` into a buffer that is reused: unlike a mapping of the file, that stays
small, and a file that is cut short behind our back is an error and not a SIGBUS. Reading tries the page cache first and
leaves a slow disk to a thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import trio

from vx.errors import Kind, VxError
from vx.threads import Threads

BUFFER = 512 * 1024
"""Bytes of a download that are read, and handed on, at a time; twice as many where it is the only one."""
_MEMORY = 16 * BUFFER
"""Bytes for the buffers of all downloads. A new one gets a share of what is left, so that there is always some."""
_SHARE = 8
_SMALLEST = 32 * 1024
_MAX_DOWNLOADS = 200
"""Downloads at a time: what one pass of the event loop does for all of them is bounded."""

_under_way = trio.lowlevel.RunVar[int]("vx_downloads", 0)
disk_threads = Threads("disk", 8)
"""For reading what the page cache does not have."""

Views = list[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes that follow each other in one open file."""

    fd: int
    offset: int
    length: int


class Source(Protocol):
    """Something with bytes to download."""

    @property
    def size(self) -> int:
        """All of its bytes."""

    async def runs(self, offset: int, length: int) -> Sequence[Run]:
        """Where `length` bytes from `offset` lie, in order; valid until the next call. VxError(DATA_LOSS)."""

    def verify(self) -> None:
        """Called when the runs have been read. VxError(DATA_LOSS) where that may not have been what was promised."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """One open file."""

    fd: int
    size: int

    async def runs(self, offset: int, length: int) -> Sequence[Run]:
        return (Run(self.fd, offset, length),)

    def verify(self) -> None:
        pass  # nobody but vx writes results, and a shorter file shows when it is read


@contextmanager
def begun() -> Iterator[None]:
    """Be one of the downloads that are under way. VxError(EXHAUSTED) if there are too many."""
    count = _under_way.get()
    if count >= _MAX_DOWNLOADS:
        raise VxError(Kind.EXHAUSTED, f"{count} downloads are under way already; try again later")
    _under_way.set(count + 1)
    try:
        yield
    finally:
        _under_way.set(_under_way.get() - 1)
        if not _under_way.get():
            _Buffer.spare.clear()


class _Buffer(bytearray):
    """Counts while anybody holds it: a connection that is not read from may do so when its download has ended."""

    spare: ClassVar[list[_Buffer]] = []
    """Whole ones for whoever reads next; memory that is new to the process takes longer to get than to fill."""
    _sizes: ClassVar[dict[int, int]] = {}

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._sizes[id(self)] = size

    def __del__(self) -> None:
        self._sizes.pop(id(self), None)

    @classmethod
    def take(cls, size: int) -> _Buffer:
        """One for the next bytes of a download that has `size` of them left."""
        return cls.spare.pop() if cls.spare else cls(min(cls.next_size(), size))

    def give_back(self) -> None:
        """Nothing in it is needed any more."""
        if len(self) == BUFFER and len(self.spare) < _SHARE:
            self.spare.append(self)

    @classmethod
    def next_size(cls) -> int:
        """How large one may be now."""
        return min(BUFFER, max(_SMALLEST, (_MEMORY - sum(cls._sizes.values())) // _SHARE))


@contextmanager
def open_file(path: Path, size: int) -> Iterator[FileSource]:
    """A file that was promised to have `size` bytes. VxError(DATA_LOSS) if it is gone or has another size."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise VxError(Kind.DATA_LOSS, f"the file cannot be read any more: {error.strerror}") from None
    try:
        if os.fstat(fd).st_size != size:
            raise VxError(Kind.DATA_LOSS, f"the file has {os.fstat(fd).st_size} bytes; it was made with {size}")
        yield FileSource(fd, size)
    finally:
        os.close(fd)


async def chunks(
    source: Source,
    chunk_size: int,
    first: int,
    header: Callable[[int, int], bytes],
    ready: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
) -> AsyncGenerator[Views, None]:
    """The source's chunks from index `first` on, as buffers to be sent one after the other.

    `header(index, length)` is what goes in front of each chunk. `ready` waits until something can be sent: what takes
    turns on a connection then needs but one buffer. What is yielded may end within a chunk; its memoryviews are valid
    until the next step of the generator. VxError: OUT_OF_RANGE for an index behind the end, DATA_LOSS when
    the file turns out to be shorter than promised.
    """
    position = first * chunk_size
    if position >= source.size:
        raise VxError(
            Kind.OUT_OF_RANGE,
            f"chunk {first} begins at byte {position}; the file has {source.size}",
            field="start_from_chunk_index",
        )
    begin = position
    while position < source.size:
        await ready()
        views: Views = []
        buffers: list[_Buffer] = []
        # One that is alone has nobody to share a pass of the event loop with. What begins with others doesn't know yet.
        most = 2 if _under_way.get() == 1 and position > begin else 1
        while position < source.size and len(buffers) < most:
            taken = _Buffer.take(source.size - position)
            buffers.append(taken)
            buffer = memoryview(taken)[: source.size - position]
            await _read(source, position, buffer)
            views += _chunked(buffer, position, source.size, chunk_size, header)
            position += len(buffer)
        yield views
        for taken in buffers:
            taken.give_back()


def _chunked(
    buffer: memoryview, position: int, size: int, chunk_size: int, header: Callable[[int, int], bytes]
) -> Iterator[bytes | memoryview]:
    """What is at `position` of `size` bytes, with the headers of the chunks that begin in it."""
    at = 0
    while at < len(buffer):
        into_chunk = (position + at) % chunk_size
        if into_chunk == 0:
            yield header((position + at) // chunk_size, min(chunk_size, size - position - at))
        piece = min(chunk_size - into_chunk, len(buffer) - at)
        yield buffer[at : at + piece]
        at += piece


async def _read(source: Source, offset: int, into: memoryview) -> None:
    filled = 0
    for run in await source.runs(offset, len(into)):
        done = 0
        while done < run.length:
            view = into[filled : filled + run.length - done]
            count = _read_cached(run.fd, view, run.offset + done)
            if count is None:
                count = await disk_threads.run(os.preadv, run.fd, [view], run.offset + done)
            if count == 0:
                source.verify()  # it may know more
                raise VxError(Kind.DATA_LOSS, "the file has become shorter since it was made")
            done += count
            filled += count
    source.verify()


def _read_cached(fd: int, view: memoryview, offset: int) -> int | None:
    """Bytes read from the page cache; None if the disk, or a file system that cannot tell, would have to be asked."""
    try:
        return os.preadv(fd, [view], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise VxError(Kind.DATA_LOSS, f"the file cannot be read any more: {error.strerror}") from None
