"""Recordings' tables, from the index or from the recordings; those that have to be read are read a few at a time.

Where the disk is slow, reading is waiting: a recording in fragments is one small read after the other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from vx.jobs import ClipJob, Link, Note
from vx.media.virtual.index import Index
from vx.media.virtual.stretches import Origin, Tables
from vx.mp4.recording import UnderWayError, read_recording
from vx.virtual import Identity

_AT_ONCE = 4
_STILL_WRITTEN_S = 60
"""A recording in fragments that was written to so recently may still grow."""


class Loader:
    """Loads recordings in the order in which they are asked for. It has to be closed."""

    @classmethod
    def of(cls, job: ClipJob, link: Link) -> Loader:
        """One that uses the job's index, if it has any."""
        if job.index is None:
            return cls()
        return cls(Index(job.index.folder, job.index.size, lambda text: link.send(Note(level="warning", text=text))))

    def __init__(self, index: Index | None = None) -> None:
        self._index = index
        self._threads = ThreadPoolExecutor(_AT_ONCE, "reading")
        self._coming: dict[str, Future[Tables]] = {}

    def close(self) -> None:
        """Wait until nothing is read any more; what nobody asked for by now isn't. Leave the index as it is to be."""
        self._threads.shutdown(cancel_futures=True)
        if self._index is not None:
            self._index.trim()

    def load(self, path: str, following: Sequence[str] = ()) -> Tables:
        """What a recording holds. `following` are asked for next, probably. UnderWayError, Mp4Error, OSError."""
        coming = self._coming.pop(path, None)
        if coming is None:
            known = self._find(path)
            if known is not None:
                return known
            coming = self._threads.submit(self._read, path)
        for other in following:
            if other not in self._coming:
                self._coming[other] = self._threads.submit(self._find_or_read, other)
        return coming.result()

    def _find_or_read(self, path: str) -> Tables:
        return self._find(path) or self._read(path)

    def _find(self, path: str) -> Tables | None:
        if self._index is None:
            return None
        identity = Identity.of(os.stat(path))  # noqa: PTH116 - a Path for each of thousands takes longer than the disk
        known = self._index.find(identity)
        return None if known is None else Tables(Origin(path, identity, grows=False), known)

    def _read(self, path: str) -> Tables:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not status.st_size:
                raise UnderWayError("it is empty")
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # little of it is read
            recording = read_recording(
                lambda offset, length: os.pread(fd, length, offset),
                status.st_size,
                lambda offset, length: os.posix_fadvise(fd, offset, length, os.POSIX_FADV_WILLNEED),
            )
            identity = Identity.of(status)
            is_closed = time.time() - status.st_mtime >= _STILL_WRITTEN_S
            if self._index is not None and is_closed and identity.is_of(os.fstat(fd)):
                self._index.keep(identity, recording)
        finally:
            os.close(fd)
        return Tables(Origin(path, identity, recording.is_fragmented and not is_closed), recording)
