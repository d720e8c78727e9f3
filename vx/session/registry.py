"""The sessions of this server: who runs them, and who may touch them.

Each running session is a task of the registry's nursery with a worker process of its own and a cancel scope for
StopSession. A new state is in the store before anybody is told of it; progress is not stored. The lifecycle's table
decides, this file acts.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec
import trio

from vx.errors import Kind, VxError
from vx.jobs import Ended, Event, FileDone, FileOpened, Job, Note, PartFile, Progress, SalvageJob
from vx.model import ExportRequest, Record, ResultFile, State
from vx.session import lifecycle
from vx.session.deadlines import Deadlines
from vx.session.store import Store

log = logging.getLogger(__name__)

NO_SESSION = "There is no session with provided ID"
_SALVAGE_S = 30.0
_SAVE_S = 10.0
"""Within this time a saved state must be on the disk, also when the server is being ended."""


class WorkerHandle(Protocol):
    """A worker process, as far as a session cares."""

    async def receive(self) -> Event | None: ...
    async def stop(self) -> None: ...
    async def wait_exit(self) -> str: ...


class Workers(Protocol):
    """Where workers come from."""

    def open_worker(self, job: Job) -> AbstractAsyncContextManager[WorkerHandle]: ...


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long sessions live, in seconds of trio's clock."""

    running: float
    """A running session that nobody asked about is stopped."""
    completed: float
    """The files of a completed session that nobody asked about or downloads are deleted."""
    removed: float
    """A session without files is forgotten."""
    stop: float
    """A worker that was told to stop and has not ended is killed."""


@dataclass(eq=False)
class _Session:
    record: Record
    folder: Path
    stop_scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    completed: trio.Event = field(default_factory=trio.Event)
    parts: dict[str, PartFile] = field(default_factory=dict)
    leases: set[Callable[[], None]] = field(default_factory=set)
    destroying: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A result file that stays on the disk while it is downloaded."""

    path: Path
    size: int


class Registry:
    """See the module. Sessions run in `nursery`; `deadlines.reap(expire)` has to run beside them."""

    def __init__(
        self,
        folder: Path,
        workers: Workers,
        store: Store,
        lifetimes: Lifetimes,
        max_running: int,
        nursery: trio.Nursery,
    ) -> None:
        self._folder = folder
        self._workers = workers
        self._store = store
        self._lifetimes = lifetimes
        self._max_running = max_running
        self._nursery = nursery
        self._sessions: dict[str, _Session] = {}
        self._numbers: list[int] = []
        self._by_number: dict[int, _Session] = {}
        self._last_number = 0
        self._running = 0
        self._closing = False
        self.deadlines = Deadlines()

    # ---- what clients ask for

    async def start(self, request: ExportRequest) -> Record:
        """Begin a session. VxError(EXHAUSTED) if as many run as may, VxError(UNAVAILABLE) when the server is ending.

        Once the session exists it runs on, whatever becomes of the caller.
        """
        if self._closing:
            raise VxError(Kind.UNAVAILABLE, "the server is shutting down")
        if self._running >= self._max_running:
            raise VxError(
                Kind.EXHAUSTED, f"{self._running} sessions are running, and at most {self._max_running} may at a time"
            )
        self._last_number += 1
        record = Record(
            id=secrets.token_hex(16),
            number=self._last_number,
            options=request.options,
            timezone_min=request.timezone_min,
            started_us=time.time_ns() // 1000,
        )
        session = _Session(record, self._folder / record.id)
        self._running += 1
        exists = False
        try:
            with _shielded(_SAVE_S):
                await trio.to_thread.run_sync(lambda: session.folder.mkdir(mode=0o700, parents=True))
                await self._store.save(record)
                exists = True
        except OSError as error:
            raise VxError(Kind.EXHAUSTED, f"the session's folder cannot be made: {error.strerror}") from None
        finally:
            if not exists:
                self._running -= 1
        if not exists:
            raise VxError(Kind.UNAVAILABLE, "the session could not be saved in time")
        self._sessions[record.id] = self._by_number[record.number] = session
        self._numbers.append(record.number)
        self._touch(session)
        job = msgspec.structs.replace(request.job, folder=str(session.folder))
        self._nursery.start_soon(self._run, session, job, name=f"session {record.id}")
        return record

    def get(self, session_id: str) -> Record:
        """The session as it is now; asking keeps it alive. VxError(NOT_FOUND) for an unknown id."""
        session = self._find(session_id)
        self._touch(session)
        return session.record

    async def stop(self, session_id: str) -> Record:
        """End the work, keep what was written, and wait for that."""
        session = self._find(session_id)
        self._request_stop(session)
        await session.completed.wait()
        return session.record

    async def destroy(self, session_id: str) -> None:
        """Stop the session if it runs, end the downloads of its files, and delete both files and row."""
        session = self._find(session_id)
        session.destroying = True
        self._request_stop(session)
        await session.completed.wait()
        for lose in tuple(session.leases):
            lose()
        if session.record.state is not State.FORGOTTEN:  # two clients may destroy the same session
            await self._forget(session, lifecycle.Event.DESTROYED)

    def page(self, after: int, size: int) -> list[Record]:
        """Up to `size` sessions that started after number `after`, oldest first."""
        begin = bisect_right(self._numbers, after)
        return [self._by_number[number].record for number in self._numbers[begin : begin + size]]

    @contextmanager
    def lease(self, session_id: str, file_id: str, *, on_lost: Callable[[], None]) -> Iterator[Lease]:
        """Hold a result file for a download. `on_lost` is called when the session is destroyed meanwhile.

        VxError: NOT_FOUND for an unknown session or file, PRECONDITION where the session has not completed.
        """
        session = self._find(session_id)
        record = session.record
        if record.state.is_running:
            raise VxError(
                Kind.PRECONDITION, "the session is still running; its files can be downloaded once it is done"
            )
        file = next((file for file in record.files if file.id == file_id), None)
        if file is None:
            raise VxError(Kind.NOT_FOUND, f"the session has no file {file_id!r}", field="file_path")
        session.leases.add(on_lost)
        self.deadlines.remove(session_id)
        try:
            yield Lease(session.folder / file.id, file.size)
        finally:
            session.leases.discard(on_lost)
            if not session.leases:
                self._touch(session)

    # ---- a session's task

    async def _run(self, session: _Session, job: Job) -> None:
        ended = Ended(succeeded=False, reason="the server was ended before the export was done")
        try:
            ended = await self._work(session, job)
        except OSError as error:
            ended = Ended(succeeded=False, reason=f"no worker process could be started: {error}")
        except Exception as error:
            log.exception("session %s failed", session.record.id)
            ended = Ended(succeeded=False, reason=f"internal error: {type(error).__name__}")
        finally:
            with _shielded(_SAVE_S):
                await self._complete(session, ended)

    async def _work(self, session: _Session, job: Job) -> Ended:
        async with self._workers.open_worker(job) as worker:
            ended = None
            with session.stop_scope:
                ended = await self._follow(session, worker)
            if session.stop_scope.cancelled_caught:
                with trio.move_on_after(self._lifetimes.stop) as grace:
                    await worker.stop()
                    ended = await self._follow(session, worker)
                if grace.cancelled_caught:
                    reason = f"the worker did not finish within {self._lifetimes.stop:g} s and was killed"
                    ended = None
            if ended is not None:
                return ended
            if not (session.stop_scope.cancelled_caught and grace.cancelled_caught):
                reason = f"the worker process died: {await worker.wait_exit()}"
        await self._salvage(session)
        return Ended(succeeded=False, reason=reason)

    async def _follow(self, session: _Session, worker: WorkerHandle) -> Ended | None:
        """Take the worker's events until its last one; None if it dies before."""
        while (event := await worker.receive()) is not None:
            match event:
                case Ended():
                    return event
                case Progress():
                    session.record = replace(session.record, last_frame_us=event.last_frame_us)
                case FileOpened():
                    session.parts[event.part.name] = event.part
                case FileDone():
                    session.parts.pop(event.name, None)
                    file = ResultFile(event.name, event.size, event.mime_type, event.first_us, event.last_us)
                    session.record = replace(session.record, files=(*session.record.files, file))
                case Note():
                    log.log(_LEVELS[event.level], "session %s: %s", session.record.id, event.text)
        return None

    async def _salvage(self, session: _Session) -> None:
        """Keep what a dead worker left behind and can be played."""
        if not session.parts:
            return
        job = SalvageJob(folder=str(session.folder), parts=tuple(session.parts.values()))
        with trio.move_on_after(_SALVAGE_S) as scope:
            async with self._workers.open_worker(job) as worker:
                await self._follow(session, worker)
        if scope.cancelled_caught:
            log.warning("session %s: what its worker left could not be read in time", session.record.id)

    async def _complete(self, session: _Session, ended: Ended) -> None:
        record = session.record
        if ended.succeeded:
            log.info("session %s completed with %d file(s)", record.id, len(record.files))
        else:
            log.warning("session %s failed: %s", record.id, ended.reason)
        state = lifecycle.advance(record.state, lifecycle.Event.ENDED)
        record = replace(record, state=state, succeeded=ended.succeeded, reason=ended.reason)
        try:
            await self._store.save(record)
        finally:
            session.record = record
            self._running -= 1
            session.completed.set()
            self._touch(session)

    # ---- the end of sessions

    def _find(self, session_id: str) -> _Session:
        session = self._sessions.get(session_id)
        if session is None or (session.destroying and session.completed.is_set()):
            raise VxError(Kind.NOT_FOUND, NO_SESSION)
        return session

    def _touch(self, session: _Session) -> None:
        """Somebody cares about the session: its clock starts again."""
        record = session.record
        if session.leases or self._sessions.get(record.id) is not session:
            return
        lifetime = {
            State.RUNNING: self._lifetimes.running,
            State.COMPLETED: self._lifetimes.completed,
        }.get(record.state)
        if lifetime is not None:
            self.deadlines.set(record.id, trio.current_time() + lifetime)

    def _request_stop(self, session: _Session) -> None:
        session.record = replace(session.record, state=lifecycle.advance(session.record.state, lifecycle.Event.STOP))
        session.stop_scope.cancel()

    async def expire(self, session_id: str) -> None:
        """What is due when a session's deadline has come: it is stopped, purged, or forgotten."""
        session = self._sessions.get(session_id)
        if session is None or session.leases or session.destroying:
            return
        match session.record.state:
            case State.RUNNING:
                log.warning("session %s is stopped: nobody has asked about it", session_id)
                self._request_stop(session)
            case State.COMPLETED:
                await self._purge(session)
            case State.REMOVED:
                await self._forget(session, lifecycle.Event.EXPIRED)

    async def _purge(self, session: _Session) -> None:
        state = lifecycle.advance(session.record.state, lifecycle.Event.PURGED)
        session.record = replace(session.record, state=state, files=())
        self.deadlines.set(session.record.id, trio.current_time() + self._lifetimes.removed)
        await self._store.save(session.record)
        await _remove_tree(session.folder)
        log.info("session %s: its files were removed for their age", session.record.id)

    async def _forget(self, session: _Session, event: lifecycle.Event) -> None:
        record = session.record
        session.record = replace(record, state=lifecycle.advance(record.state, event), files=())
        self.deadlines.remove(record.id)
        del self._sessions[record.id], self._by_number[record.number]
        del self._numbers[bisect_left(self._numbers, record.number)]
        with _shielded(_SAVE_S):
            await self._store.delete(record.id)
            await _remove_tree(session.folder)

    async def close(self) -> None:
        """Take no new session, stop those that run, and wait until their files are finalised."""
        self._closing = True
        running = [session for session in self._sessions.values() if session.record.state.is_running]
        for session in running:
            self._request_stop(session)
        for session in running:
            await session.completed.wait()

    async def sweep(self) -> None:
        """Remove what an earlier server left in the sessions' folder and no session knows."""
        for name in await trio.to_thread.run_sync(_list_folders, self._folder):
            if name not in self._sessions:
                log.info("removing the files of the unknown session %s", name)
                await _remove_tree(self._folder / name)


@contextmanager
def _shielded(seconds: float) -> Iterator[None]:
    """Finish this although the task is cancelled, but not for ever."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds) as scope:
        yield
    if scope.cancelled_caught:
        log.error("could not save the state of a session within %g s", seconds)


def _list_folders(folder: Path) -> list[str]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]


async def _remove_tree(folder: Path) -> None:
    """Delete a session's folder; what cannot be deleted is logged, and removed by the next server's sweep."""

    def report(_function: object, path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
        if not isinstance(info[1], FileNotFoundError):
            log.error("cannot remove %s: %s", path, info[1])

    await trio.to_thread.run_sync(lambda: shutil.rmtree(folder, onerror=report))


_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
