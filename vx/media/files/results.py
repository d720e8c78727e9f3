"""Result files: their names, and how they come into being.

What takes its time is written under a part name, synced, then renamed: a clip that has its final name is complete. What
is written in one go has its final name at once; it is complete when its worker says so.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vx import disk
from vx.errors import Kind, VxError
from vx.jobs import PartFile
from vx.timestamps import to_datetime

MIME_TYPES = {
    "mp4": "video/mp4",
    "mkv": "video/x-matroska",
    "avi": "video/x-msvideo",
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "zip": "application/zip",
}
_LONGEST_STEM = 120
"""Bytes; with time, extension and part suffix that stays below the 255 that file systems allow."""


def plan_file(folder: str, camera: str, extension: str, first_us: int) -> PartFile:
    """A name for a camera's result, readable and safe on any file system, and not yet taken in `folder`."""
    base = f"{safe_name(camera)}_{_moment(first_us)}"
    number = 1
    while True:
        name = f"{base}{'' if number == 1 else f'-{number}'}.{extension}"
        part_name = f"{name}.part"
        if not Path(folder, name).exists() and not Path(folder, part_name).exists():
            return PartFile(part_name=part_name, name=name, mime_type=MIME_TYPES[extension], first_us=first_us)
        number += 1


def safe_name(text: str) -> str:
    """Letters and digits of any script, `-`, `_` and `.`; all else becomes `_`."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[^\w.-]+", "_", text).strip("._-")
    text = text.encode("utf-8", "ignore")[:_LONGEST_STEM].decode("utf-8", "ignore")
    return text or "camera"


SYNC_BYTES = 8 << 20
SYNC_S = 0.05
"""Each time costs nearly a millisecond of CPU time, and a copy writes 8 MiB in 15."""


class Syncing:
    """Brings a growing file to the disk from time to time, in a thread beside, so that little is left in the end."""

    def __init__(self, path: Path, every: int, pause_s: float, most: int = 0) -> None:
        """`every`: how many bytes are brought to the disk at a time, at least. `pause_s`: and at most so often. `most`:
        how many may wait while others are brought there; 0: any number.
        """
        self._path = path
        self._every = every
        self._pause_s = pause_s
        self._most = most
        self._synced = 0
        self._due = 0.0
        self.size = 0
        """Of the file, when it was looked at last."""
        self._thread: threading.Thread | None = None
        self.error: OSError | None = None
        """What the disk said. The kernel says it once, so it must not be lost."""

    def go_on(self) -> None:
        """Look whether it is time; wait only where too much of it waits."""
        self.size = self._path.stat().st_size
        if self._thread is not None and self._thread.is_alive():
            if not self._most or self.size - self._synced < self._most:
                return
            self._thread.join()
        if self.size - self._synced >= self._every and (now := time.monotonic()) >= self._due:
            self._synced, self._due = self.size, now + self._pause_s
            self._thread = threading.Thread(target=self._sync, name="sync", daemon=True)
            self._thread.start()

    def _sync(self) -> None:
        try:
            with self._path.open("rb") as file:
                os.fdatasync(file.fileno())
        except OSError as error:
            self.error = error


def complete(folder: str, part: PartFile) -> int:
    """Sync the part file, give it its final name; returns its size. VxError where the disk refuses."""
    source, target = Path(folder, part.part_name), Path(folder, part.name)
    try:
        with source.open("rb") as file:
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        source.rename(target)
        disk.sync(folder)
    except OSError as error:
        raise write_error(part.name, error) from error
    return size


def write(folder: str, part: PartFile, data: bytes) -> None:
    """A whole result, under its final name; both are on the disk when this returns. VxError where the disk refuses."""
    path = Path(folder, part.name)
    try:
        with path.open("wb") as file, ThreadPoolExecutor(1) as beside:
            file.write(data)
            file.flush()
            named = beside.submit(disk.sync, folder)  # one after the other takes twice as long
            os.fsync(file.fileno())
            named.result()
    except OSError as error:
        path.unlink(missing_ok=True)
        raise write_error(part.name, error) from error


class Target:
    """Where a result is written, and what becomes of that: under its part name at first, then under its own."""

    def __init__(self, folder: str, part: PartFile) -> None:
        self.part = part
        self.path = str(Path(folder, part.part_name))
        self.mime_type = part.mime_type
        """Of what is written at `path`."""
        self._folder = folder

    def complete(self) -> int:
        """What was written is the result; returns its size. VxError where the disk refuses."""
        return complete(self._folder, self.part)

    def discard(self) -> None:
        """Nothing of it is of use."""
        discard(self._folder, self.part)


def discard(folder: str, part: PartFile) -> None:
    """Remove a part file that holds nothing of use."""
    Path(folder, part.part_name).unlink(missing_ok=True)


def write_error(name: str, error: Exception) -> VxError:
    """A foreign error met while writing a result, in our terms."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return VxError(Kind.EXHAUSTED, f"the disk for results is full; it filled up while {name} was written")
    if number == errno.EFBIG:
        return VxError(Kind.EXHAUSTED, f"the file system allows no larger file; {name} ends there")
    return VxError(Kind.UNAVAILABLE, f"{name} can't be written: {getattr(error, 'strerror', None) or error}")


def _moment(us: int) -> str:
    moment = to_datetime(us)
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
