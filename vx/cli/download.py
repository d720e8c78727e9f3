"""One result file to disk: in chunks into a `.part` file, by resume, checked, and only then under its name."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from vx.cli.client import Backoff, Client, ClientError, Exit
from vx.cli.values import plain
from vx.rpc.generated.axxonsoft.bl import mmexport

CHUNK_KB = 512

Moved = Callable[[int], None]
"""Told how many bytes of the file are there."""


def part_path(target: Path, session_id: str, file_id: str) -> Path:
    """Where the bytes go until the file is complete.

    The session is part of the name: bytes of an older export that was called the same must never be gone on with.
    """
    origin = hashlib.sha256(f"{session_id}\0{file_id}".encode(errors="surrogatepass")).hexdigest()[:8]
    return target.with_name(f"{target.name}.{origin}.part")


async def download(
    client: Client, session_id: str, file: mmexport.ResultFile, target: Path, *, force: bool, moved: Moved
) -> None:
    """Fetch `file` to `target`; goes on with what an earlier try left, tries again where the connection breaks.

    ClientError where it cannot be had, isn't what the server promised, or would overwrite something (unless `force`).
    What has come stays in the `.part` file for the next time, unless it is wrong. Cancelled: likewise.
    """
    if not force:
        _refuse_existing(target)
    part = part_path(target, session_id, file.path)
    try:
        with _locked(part) as out:
            await _fill(client, session_id, file, out, moved)
            os.fsync(out)
            _publish(part, target, force=force)
    except _WrongBytesError as error:
        part.unlink(missing_ok=True)
        raise ClientError(f"{plain(file.path)}: {error}; what had come of it is removed") from None
    except OSError as error:
        raise ClientError(f"{error.filename or part}: {error.strerror}") from None


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[int]:
    """The descriptor of `part`, made where it isn't there; nobody else writes it meanwhile."""
    # A link that somebody planted must not lead the bytes elsewhere.
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClientError(f"{part}: another vx is downloading this file") from None
        yield descriptor
    finally:
        os.close(descriptor)


class _WrongBytesError(Exception):
    """What came is not what was promised."""


async def _fill(client: Client, session_id: str, file: mmexport.ResultFile, out: int, moved: Moved) -> None:
    """Bring the open file to its full size."""
    chunk_size = CHUNK_KB * 1024
    backoff = Backoff()
    have = os.fstat(out).st_size
    if have > file.size:
        have = 0
    while have < file.size:
        # Chunks have their places in the file: go on with the one that is not complete.
        have -= have % chunk_size
        os.ftruncate(out, have)
        moved(have)
        chunks = client.chunks(session_id, file.path, chunk_kb=CHUNK_KB, first=have // chunk_size)
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    have = _write(out, have, chunk, file.size)
                    moved(have)
                    backoff.reset()
        except ClientError as failure:
            await client.wait_or_raise(failure, backoff)
            continue
        if have != file.size:
            raise _WrongBytesError(f"the server promised {file.size} bytes and sent {have}")
    os.ftruncate(out, have)


def _write(out: int, have: int, chunk: mmexport.FileChunk, size: int) -> int:
    """Write a chunk behind the `have` bytes before it; how many there are then."""
    place = chunk.index * CHUNK_KB * 1024
    if place != have:
        raise _WrongBytesError(f"the server sent chunk {chunk.index}, which begins at byte {place}, after byte {have}")
    if have + len(chunk.data) > size:
        raise _WrongBytesError(f"the server promised {size} bytes and sent more")
    view = memoryview(chunk.data)
    while view:
        view = view[os.pwrite(out, view, have + len(chunk.data) - len(view)) :]
    return have + len(chunk.data)


def _publish(part: Path, target: Path, *, force: bool) -> None:
    """Give the complete file its name; without `force` never in place of another one."""
    if force:
        part.replace(target)
        return
    try:
        os.link(part, target)
    except FileExistsError:
        _refuse_existing(target)
        raise
    except OSError as error:
        # Disks without hard links (FAT, some network shares) can't do it in one step.
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        _refuse_existing(target)
        part.rename(target)
    else:
        part.unlink()


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise ClientError(f"{target} exists already; --force overwrites it, -o DIR saves elsewhere", Exit.REFUSED)
