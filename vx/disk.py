"""What both sides of the border ask of a disk. Blocking."""

from __future__ import annotations

import os
from pathlib import Path


def free(folder: str | Path) -> int:
    """Bytes that the disk with the folder has left for us. OSError."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def sync(folder: str | Path) -> None:
    """Have the names in a directory on the disk. OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
