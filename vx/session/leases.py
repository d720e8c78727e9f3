"""The recordings that virtual results are served from, for as long as their sessions live.

A worker leases them by links in the session's folder; what it can't link to, the server holds open. Either keeps the
bytes of a recording that retention deletes (see vx.session.watch).
"""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

from vx.model import ResultFile
from vx.session import folders
from vx.session.session import Session
from vx.virtual import Description

log = logging.getLogger(__name__)

_MOST_OF_A_SESSION = 128
_MOST_OF_ALL = 512
"""Descriptors."""
_NONE: Mapping[str, int] = {}

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class InThread(Protocol):
    """Calls a blocking function off the event loop."""

    async def __call__(self, call: Callable[[Unpack[_Args]], _T], /, *args: *_Args) -> _T: ...


class Holdings:
    """Recordings that are held open."""

    def __init__(self, in_thread: InThread, roots: Mapping[str, Collection[str]]) -> None:
        """`roots`: the folders of recordings, by their camera's access point.

        What a result consists of, a worker says: nothing is opened but below those of its session's cameras.
        """
        self._in_thread = in_thread
        self._roots = roots
        self._held: dict[tuple[str, str], dict[str, int]] = {}
        """By session and file: descriptors by where the recording lies."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:  # connections need theirs
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def room(self) -> int:
        """How many recordings a further session may have held open."""
        return max(0, min(_MOST_OF_A_SESSION, _MOST_OF_ALL - sum(map(len, self._held.values()))))

    async def hold(self, session: Session, file: ResultFile) -> None:
        """Hold what a result needs. What is gone by now ends its downloads."""
        cameras = {source.origin for source in session.record.report.sources}
        roots = [PurePosixPath(root) for camera in cameras for root in self._roots.get(camera, ())]
        held = await self._in_thread(_open_unlinked, session.folder / file.id, roots)
        if held:
            self._held[session.record.id, file.id] = held

    def of(self, session_id: str, file_id: str) -> Mapping[str, int]:
        """The descriptors of a result, by where the recordings lie."""
        return self._held.get((session_id, file_id), _NONE)

    def drop(self, session_id: str, file_id: str, paths: Iterable[str]) -> None:
        """A result doesn't need these recordings any more."""
        held = self._held.get((session_id, file_id), {})
        for path in paths:
            if path in held:
                os.close(held.pop(path))

    def release(self, session_id: str) -> None:
        """The session's results are gone."""
        for key in [key for key in self._held if key[0] == session_id]:
            self.drop(*key, [*self._held[key]])
            del self._held[key]


def description_of(result: Path) -> Description | None:
    """What a virtual result consists of; None for a plain file, and where that can't be read: its download tells."""
    try:
        return folders.described(result)
    except (OSError, ValueError) as error:
        log.warning("%s can't be served any more: %s", result, error)
        return None


def _open_unlinked(result: Path, roots: Sequence[PurePosixPath]) -> dict[str, int]:
    description = description_of(result)
    held: dict[str, int] = {}
    for origin in () if description is None else description.origins:
        if origin.lease:
            continue
        path = PurePosixPath(origin.path)
        if ".." in path.parts or not any(path.is_relative_to(root) for root in roots):
            log.warning("%s can't be served: %s is no recording of its cameras", result, origin.path)
            continue
        try:
            fd = os.open(origin.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            log.warning("%s can't be served any more: %s: %s", result, origin.path, error.strerror)
            continue
        if origin.is_unchanged(fd):
            held[origin.path] = fd
        else:
            os.close(fd)
            log.warning("%s can't be served any more: %s was rewritten", result, origin.path)
    return held
