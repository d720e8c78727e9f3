"""Virtual results in the session's folder: what was made for them, and leases of the recordings.

A lease keeps a recording's bytes when retention deletes it: a hard link, else a clone of its blocks, else a descriptor
that the server holds open.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vx import disk
from vx.jobs import PartFile
from vx.media.files import results
from vx.media.virtual.files import VirtualFile
from vx.media.virtual.stretches import Origin as Recorded
from vx.virtual import MADE, Identity, Origin, Pieces, write_made

_FICLONE = 0x40049409


class LeaseError(Exception):
    """The recordings' bytes can't be kept for the clip, which has to be copied; the text says why."""


def store(folder: str, files: Sequence[tuple[str, VirtualFile]], *, held: int) -> list[PartFile]:
    """Have the files, each with its camera's name, in the folder, complete and on the disk.

    `held`: so many recordings the server may hold open. LeaseError where they can't all be leased, VxError where
    the disk refuses; nothing is left behind then.
    """
    parts: list[PartFile] = []
    try:
        for name, file in files:
            part = results.plan_file(folder, name, "mp4", file.first_us)
            parts.append(part)
            held -= _write(Path(folder, part.part_name), file, held)
        for part in parts:
            Path(folder, part.part_name).rename(Path(folder, part.name))
        disk.sync(folder)
    except BaseException as error:
        for part in parts:
            shutil.rmtree(Path(folder, part.part_name), ignore_errors=True)
            shutil.rmtree(Path(folder, part.name), ignore_errors=True)
        if isinstance(error, OSError):
            raise results.write_error(parts[-1].name, error) from error
        raise
    return parts


def _write(directory: Path, file: VirtualFile, held: int) -> int:
    """Make a result's directory; returns how many recordings are to be held open."""
    directory.mkdir(mode=0o700)
    numbers: dict[str, int] = {}
    origins: list[Origin] = []
    pieces = Pieces()
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for piece in file.pieces:
            number = 0
            if piece.origin is not None:
                number = numbers.get(piece.origin.path, 0)
                if not number:
                    origins.append(_lease(piece.origin, opened, f"{len(origins) + 1}"))
                    number = numbers[piece.origin.path] = len(origins)
            pieces.add(number, piece.begin, piece.end - piece.begin)
        unlinked = sum(not origin.lease for origin in origins)
        if unlinked > held:
            text = f"{unlinked} of its recordings can't be linked to, and no more than {held} can be held open"
            raise LeaseError(text)
        write_made(directory / MADE, file.made, pieces.describe(tuple(origins)))
        os.fsync(opened)
    finally:
        os.close(opened)
    return unlinked


def _lease(recorded: Recorded, directory: int, name: str) -> Origin:
    """Keep a recording's bytes under this name, if that can be."""
    try:
        fd = os.open(recorded.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LeaseError(f"{recorded.path}: it can't be opened any more: {error.strerror}") from None
    try:
        if not recorded.is_unchanged(fd):
            raise LeaseError(f"{recorded.path}: it changed while it was read")
        identity = recorded.identity
        lease, cloned = name, False
        if not _link(fd, directory, name):
            clone = _clone(fd, directory, name)
            cloned = clone is not None
            identity = clone or identity
            lease = name if cloned else ""
    finally:
        os.close(fd)
    grows = recorded.grows and not cloned
    return Origin(path=recorded.path, identity=identity, grows=grows, lease=lease, cloned=cloned)


def _link(fd: int, directory: int, name: str) -> bool:
    """A second name for the file that is open there, whatever its own name leads to by now."""
    try:
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
    except OSError:  # another user's file, another file system, or one without links
        return False
    return True


def _clone(fd: int, directory: int, name: str) -> Identity | None:
    """A copy that shares the file's blocks; None on file systems that can't."""
    target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        fcntl.ioctl(target, _FICLONE, fd)
        os.fsync(target)
        return Identity.of(os.fstat(target))
    except OSError:
        os.unlink(name, dir_fd=directory)
        return None
    finally:
        os.close(target)
