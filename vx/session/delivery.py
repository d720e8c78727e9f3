"""Results that an export agent stores for good: from the session's folder into a directory of the agent or the client.

Plain blocking functions, called in threads. A directory is opened once, step by step below its root and without
following symbolic links on the way, and from then on named by its descriptor only: whoever may write there cannot
lead us elsewhere. Nothing is ever overwritten, and a file appears under its name when it is complete.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vx.errors import Kind, VxError
from vx.model import Delivery, ResultFile
from vx.timestamps import format_timestamp

_LONGEST_NAME = 255
"""Bytes, on all file systems that matter."""
_ROOM_FOR_NUMBER = 12


def check(delivery: Delivery, field: str) -> None:
    """Whether results can be put there. VxError with the request's `field`: INVALID, NOT_FOUND, or PRECONDITION."""
    try:
        with _opened(delivery) as directory:
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory):
                raise PermissionError(errno.EACCES, "not writable for this server")
    except FileNotFoundError:
        raise VxError(Kind.NOT_FOUND, f"there is no directory {delivery.directory!r}", field=field) from None
    except _OutsideError:
        text = f"{delivery.directory!r} leads out of {delivery.root!r}"
        raise VxError(Kind.INVALID, text, field=field) from None
    except OSError as error:
        text = f"{delivery.directory!r} cannot be used: {error.strerror}"
        raise VxError(Kind.PRECONDITION, text, field=field) from None


def deliver(folder: Path, delivery: Delivery, file: ResultFile, session_id: str, intend: Callable[[str], None]) -> str:
    """Put a file of the session's folder into the delivery's directory; the path that it has there. OSError.

    `intend` is called with that path before anything is done; once it returns, the intent must be durable. A file that
    comes with a path was intended by a server that was killed: where that one got through with it, it is not put there
    a second time. The file in `folder` stays; whoever calls deletes it when the path is durable as well.
    """
    source = folder / file.id
    with _opened(delivery) as directory:
        if file.path and _is_there(directory, Path(file.path).name, source):
            return file.path
        for name in _names(delivery, file, session_id):
            if _exists(directory, name):
                continue
            path = f"{delivery.directory.rstrip('/')}/{name}"
            intend(path)
            try:
                _put(source, directory, name, session_id)
            except FileExistsError:
                continue  # somebody was faster
            os.fsync(directory)
            return path
    raise AssertionError("there is always another name")


class _OutsideError(OSError):
    pass


@contextmanager
def _opened(delivery: Delivery) -> Iterator[int]:
    """A descriptor of the directory. OSError; `_OutsideError` where it isn't below its root."""
    root = os.path.realpath(delivery.root, strict=True)
    target = os.path.realpath(delivery.directory, strict=True)
    if os.path.commonpath([root, target]) != root:
        raise _OutsideError(errno.EXDEV, "it leads out of its root")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(root, flags)
    try:
        for part in Path(target).relative_to(root).parts:
            below = os.open(part, flags, dir_fd=directory)
            os.close(directory)
            directory = below
        yield directory
    finally:
        os.close(directory)


def _names(delivery: Delivery, file: ResultFile, session_id: str) -> Iterator[str]:
    """`name.mp4`, `name-1.mp4`, …"""
    stem, extension = Path(file.id).stem, Path(file.id).suffix
    values = {"Name": stem, "Timestamp": format_timestamp(file.first_us), "SessionId": session_id}
    wanted = delivery.name
    for wildcard, value in values.items():
        wanted = wanted.replace(f"{{{wildcard}}}", value)
    if wanted.lower().endswith(extension.lower()):
        wanted = wanted[: -len(extension)]
    wanted = wanted.replace("/", "_").lstrip(".")  # the request has been checked; this is the wall behind that one
    room = _LONGEST_NAME - _ROOM_FOR_NUMBER - len(extension.encode())
    wanted = wanted.encode("utf-8", "ignore")[:room].decode("utf-8", "ignore") or stem
    number = 0
    while True:
        yield f"{wanted}{f'-{number}' if number else ''}{extension}"
        number += 1


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_there(directory: int, name: str, source: Path) -> bool:
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = source.lstat()
    if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
        return True
    if not stat.S_ISREG(there.st_mode) or there.st_size != here.st_size:
        return False
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        return filecmp.cmp(source, f"/proc/self/fd/{fd}", shallow=False)
    finally:
        os.close(fd)


def _put(source: Path, directory: int, name: str, session_id: str) -> None:
    """Give the file a second name, or copy it to another file system. FileExistsError where the name is taken."""
    try:
        os.link(source, name, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # another file system, or one without links
        _copy(source, directory, name, f".vx-{session_id}.part")


def _copy(source: Path, directory: int, name: str, part: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(part, dir_fd=directory)  # of a server that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(part, flags, 0o644, dir_fd=directory)
    try:
        with source.open("rb") as reader, os.fdopen(fd, "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(fd)
        _rename(directory, part, name)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=directory)


def _rename(directory: int, part: str, name: str) -> None:
    try:
        os.link(part, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # no links here (FAT, some network shares): take the name first, then put the file over it
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=directory))
        os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
