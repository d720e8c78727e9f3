"""The index: the tables of recordings that are finished, kept on the disk so that each is read once.

A file for each recording, named by its device and inode, so that a recording that takes another one's place takes its
place here too. An entry is believed only of the very file that it was made of, by size and time of change, and only
what the reader would take from the file itself; anything else is read anew. Several workers use it at a time: entries
appear by rename. What it holds can be lost at any time, so nothing is synced.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vx.mp4.boxes import Mp4Error
from vx.mp4.recording import Recording
from vx.mp4.stored import pack, unpack
from vx.virtual import Identity


class Index:
    """A worker's way to the index in `folder`, which it leaves with at most `most` bytes.

    `note` is told if it can't be written: that harms nothing but the next export's speed. Any thread may use it.
    """

    def __init__(self, folder: str, most: int, note: Callable[[str], None]) -> None:
        self._folder = Path(folder)
        self._most = most
        self._note = note
        self._written = 0
        self._is_usable = True
        self._lock = threading.Lock()

    def find(self, identity: Identity) -> Recording | None:
        """The tables of this recording; None where it has to be read."""
        try:
            fd = os.open(self._path(identity), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            size = os.fstat(fd).st_size
            data = os.pread(fd, size, 0) if size <= self._most else b""
            return unpack(data, _key(identity), identity.size)
        except (OSError, Mp4Error):
            return None  # it is written anew
        finally:
            os.close(fd)

    def keep(self, identity: Identity, recording: Recording) -> None:
        """Have the tables of this recording for the next time."""
        try:
            data = pack(recording, _key(identity))
        except OverflowError:
            return
        if not self._is_usable or len(data) > self._most:
            return
        path = self._path(identity)
        part = Path(f"{path}.{os.getpid()}")
        try:
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, data)  # one that is cut short is found out when it is read
            finally:
                os.close(fd)
            with suppress(FileNotFoundError):  # another worker has made room, in the same moment
                part.rename(path)
        except OSError as error:
            self._fail(error)
            with suppress(OSError):
                part.unlink()
            return
        with self._lock:
            self._written += len(data)
            is_much = self._written > self._most // 8
        if is_much:
            self.trim()

    def trim(self) -> None:
        """Remove the oldest entries beyond what it may take, if anything was added."""
        with self._lock:
            written, self._written = self._written, 0
        if not written:
            return
        try:
            self._remove_beyond()
        except OSError as error:
            self._fail(error)

    def _remove_beyond(self) -> None:
        entries: list[tuple[int, int, str]] = []
        with os.scandir(self._folder) as found:
            for entry in found:
                with suppress(FileNotFoundError):  # another worker was faster
                    status = entry.stat(follow_symlinks=False)
                    entries.append((status.st_mtime_ns, status.st_size, entry.path))
        beyond = sum(size for _, size, _ in entries) - self._most
        for _, size, path in sorted(entries):
            if beyond <= 0:
                break
            with suppress(FileNotFoundError):
                Path(path).unlink()
            beyond -= size

    def _fail(self, error: OSError) -> None:
        self._is_usable = False
        self._note(f"the index of recordings can't be written: {error.strerror}")

    def _path(self, identity: Identity) -> str:
        return f"{self._folder}/{identity.device:x}-{identity.inode:x}"


def _key(identity: Identity) -> tuple[int, ...]:
    return identity.device, identity.inode, identity.size, identity.modified_ns
