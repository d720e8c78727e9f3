"""The sessions of this server: who runs them, and who may touch them.

Each session is a task of the registry's nursery: it waits for its turn, has a worker process do the work, and is over.
A new state is in the store before anybody is told of it; progress is not stored. The lifecycle's table decides, this
file acts. A store that fails for good ends the server: what it would say could not be relied on.
"""

from __future__ import annotations

import logging
import secrets
import time
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

import msgspec
import trio

from vx.errors import Kind, VxError
from vx.jobs import ClipJob, Ended, Event, FileDone, FileOpened, Job, Note, Progress, SalvageJob, SnapshotJob
from vx.model import THE_SERVER, Caller, Entry, ExportRequest, Record, ResultFile, State
from vx.session import delivery, folders, lifecycle, work
from vx.session.budget import Budget, Survey
from vx.session.deadlines import Deadlines
from vx.session.store import Store, StoreError
from vx.session.turns import Turns

log = logging.getLogger(__name__)

NO_SESSION = "There is no session with provided ID"
_SALVAGE_S = 30.0
_SALVAGES_AT_ONCE = 4
_SAVE_S = 10.0
"""Within this time a saved state must be on the disk, also when the server is being ended."""
_RETRY_S = 5.0
"""How soon a state that found the disk full is saved again."""


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


SurveyDisk = Callable[[ClipJob | SnapshotJob, Mapping[str, Path]], Awaitable[Survey]]
"""Finds out what a job will need and what the disk has, given the folders of the sessions that run."""


class _Outcome:
    """What came of something that several tasks may wait for."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._error: VxError | None = None

    def set(self, error: VxError | None = None) -> None:
        self._error = error
        self._done.set()

    async def wait(self) -> None:
        """Wait for it; raises what it failed with."""
        await self._done.wait()
        if self._error is not None:
            raise VxError(self._error.kind, str(self._error))


_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class InThread(Protocol):
    """Calls a blocking function off the event loop."""

    async def __call__(self, call: Callable[[Unpack[_Args]], _T], /, *args: *_Args) -> _T: ...


@dataclass(eq=False)
class _Session:
    record: Record
    folder: Path
    turn: trio.Event = field(default_factory=trio.Event)
    stop_scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    completed: trio.Event = field(default_factory=trio.Event)
    entries: list[Entry] = field(default_factory=list)
    """Lines of the audit that are saved together with the session's end."""
    leases: set[Callable[[], None]] = field(default_factory=set)
    purging: bool = False
    destruction: _Outcome | None = None
    ending: trio.Lock = field(default_factory=trio.Lock)
    """Held while it is purged or forgotten."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A result file that stays on the disk while it is downloaded."""

    path: Path
    size: int


class Registry:
    """See the module. Sessions run in `nursery`; `deadlines.reap(expire)` has to run beside them, after `recover`."""

    def __init__(
        self,
        folder: Path,
        workers: work.Workers,
        store: Store,
        lifetimes: Lifetimes,
        nursery: trio.Nursery,
        *,
        turns: Turns,
        budget: Budget,
        survey: SurveyDisk,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        in_thread: InThread = trio.to_thread.run_sync,
    ) -> None:
        """`now_us` is the wall clock; `in_thread` has disks wait elsewhere. Tests have both of their own."""
        self._folder = folder
        self._workers = workers
        self._store = store
        self._lifetimes = lifetimes
        self._nursery = nursery
        self._turns = turns
        self._budget = budget
        self._survey = survey
        self._now_us = now_us
        self._in_thread = in_thread
        self._sessions: dict[str, _Session] = {}
        self._starting: dict[str, _Session] = {}
        """Those whose start is being saved; nobody knows of them yet."""
        self._numbers: list[int] = []
        self._by_number: dict[int, _Session] = {}
        self._last_number = 0
        self._closing = False
        self.deadlines = Deadlines()

    # ---- what clients ask for

    async def start(self, request: ExportRequest, caller: Caller = THE_SERVER) -> Record:
        """Begin a session, or queue it. Once it exists it runs on, whatever becomes of the caller.

        VxError: EXHAUSTED where there is no place in the queue or no room on the disk, UNAVAILABLE when the server is
        ending, those of `delivery.check` where an export agent is to store the results.
        """
        self._refuse_when_closing()
        if request.delivery is not None:
            await trio.to_thread.run_sync(
                delivery.check,
                request.delivery,
                request.delivery_field,
                abandon_on_cancel=True,
                limiter=_delivery_limiter(),
            )
        running = {key: each.folder for key, each in self._sessions.items() if each.record.state.is_running}
        survey = await self._survey(request.job, running)
        self._refuse_when_closing()
        record = Record(
            id=secrets.token_hex(16),
            number=self._last_number + 1,
            options=request.options,
            timezone_min=request.timezone_min,
            started_us=self._now_us(),
            started_by=caller,
            agent=request.agent,
            delivery=request.delivery,
            state=lifecycle.FIRST,
        )
        self._budget.reserve(record.id, survey)
        try:
            self._turns.enter(record.id, caller.name, request.agent)
        except VxError:
            self._budget.settle(record.id, 0)
            raise
        self._last_number = record.number
        session = _Session(record, self._folder / record.id)
        self._starting[record.id] = session
        self._grant_turns()
        exists = False
        try:
            with _shielded(_SAVE_S):
                await self._in_thread(folders.make, session.folder)
                await self._save(record, [self._entry("start", record, caller)])
                exists = True
        except OSError as error:
            raise VxError(Kind.EXHAUSTED, f"the session's folder cannot be made: {error.strerror}") from None
        finally:
            del self._starting[record.id]
            if not exists:
                self._turns.leave(record.id)
                self._budget.settle(record.id, 0)
                self._grant_turns()
                self._nursery.start_soon(self._in_thread, folders.remove, session.folder)
        if not exists:
            raise VxError(Kind.UNAVAILABLE, "the session could not be saved in time")
        self._add(session)
        self._touch(session)
        job = msgspec.structs.replace(request.job, folder=str(session.folder))
        self._nursery.start_soon(self._run, session, job, name=f"session {record.id}")
        if self._closing:
            self._request_stop(session, THE_SERVER)
        return session.record

    def get(self, session_id: str) -> Record:
        """The session as it is now; asking keeps it alive. VxError(NOT_FOUND) for an unknown id."""
        session = self._find(session_id)
        self._touch(session)
        return session.record

    async def stop(self, session_id: str, caller: Caller = THE_SERVER) -> Record:
        """End the work, keep what was written, and wait for that."""
        session = self._find(session_id)
        self._request_stop(session, caller)
        await session.completed.wait()
        return session.record

    async def destroy(self, session_id: str, caller: Caller = THE_SERVER) -> None:
        """Stop the session if it runs, end the downloads of its files, and delete both files and row."""
        session = self._find(session_id)
        if session.destruction is None:
            session.destruction = _Outcome()
            self._nursery.start_soon(self._destroy, session, session.destruction, caller)
        await session.destruction.wait()  # it goes on when the caller has gone

    def page(self, after: int, size: int) -> list[Record]:
        """Up to `size` sessions that started after number `after`, oldest first.

        None is shown before all that have a lower number can be: who goes on behind it would never see those.
        """
        begin = bisect_right(self._numbers, after)
        end = begin + size
        if self._starting:
            lowest = min(session.record.number for session in self._starting.values())
            end = min(end, bisect_left(self._numbers, lowest))
        return [self._by_number[number].record for number in self._numbers[begin:end]]

    @contextmanager
    def lease(self, session_id: str, file_id: str, *, on_lost: Callable[[], None]) -> Iterator[Lease]:
        """Hold a result file for a download. `on_lost` is called when the session is destroyed meanwhile.

        VxError: NOT_FOUND for an unknown session or file, PRECONDITION where the session has not completed or an export
        agent has stored the file.
        """
        session = self._find(session_id)
        record = session.record
        if record.state.is_running:
            raise VxError(
                Kind.PRECONDITION, "the session is still running; its files can be downloaded once it is done"
            )
        file = next((file for file in record.files if file.name == file_id), None)
        if file is None or (session.purging and not file.path):
            raise VxError(Kind.NOT_FOUND, f"the session has no file {file_id!r}", field="file_path")
        if file.path:
            text = f"the export agent has stored {file_id!r} for good; it cannot be downloaded"
            raise VxError(Kind.PRECONDITION, text, field="file_path")
        session.leases.add(on_lost)
        self.deadlines.remove(session_id)
        try:
            yield Lease(session.folder / file.id, file.size)
        finally:
            session.leases.discard(on_lost)
            if not session.leases:
                self._touch(session)

    async def note_download(self, session_id: str, detail: str, caller: Caller) -> None:
        """Remember that a download begins. VxError where that cannot be remembered."""
        record = self._find(session_id).record
        try:
            await self._store.note(self._entry("download", record, caller, detail))
        except StoreError as error:
            self._give_up(error)
            raise

    # ---- a session's task

    async def _run(self, session: _Session, job: Job) -> None:
        ended = Ended(succeeded=False, reason="the server was ended before the export was done")
        try:
            ended = await self._work(session, job)
        except OSError as error:
            ended = Ended(succeeded=False, reason=f"no worker process could be started: {error}")
        except VxError as error:
            ended = Ended(succeeded=False, reason=str(error))
        except Exception as error:
            log.exception("session %s failed", session.record.id)
            ended = Ended(succeeded=False, reason=f"internal error: {type(error).__name__}")
        finally:
            await self._complete(session, ended)

    async def _work(self, session: _Session, job: Job) -> Ended:
        with session.stop_scope:
            await session.turn.wait()
        if session.record.state is State.STOPPING:
            return Ended(succeeded=False, reason="stopped before its turn came")
        session.stop_scope = trio.CancelScope()
        ended, by_itself = await work.do(
            self._workers, job, session.stop_scope, self._lifetimes.stop, lambda event: self._take(session, event)
        )
        if not by_itself:
            await self._salvage(session)
        return ended

    async def _take(self, session: _Session, event: Event) -> None:
        """What a worker reports."""
        record = session.record
        match event:
            case Progress():
                session.record = replace(record, last_frame_us=event.last_frame_us)
            case FileOpened():
                session.record = replace(record, parts=(*record.parts, event.part))
                with _shielded(_SAVE_S):
                    try:
                        await self._save(session.record)
                    except StoreError as error:  # it matters only if the server is killed before the export ends
                        if not error.passing:
                            raise
                        log.warning("session %s: a file under way could not be noted: %s", record.id, error)
            case FileDone():
                file = ResultFile(event.name, event.size, event.mime_type, event.first_us, event.last_us)
                self._keep(session, [file])
            case Note():
                log.log(_LEVELS[event.level], "session %s: %s", record.id, event.text)

    def _keep(self, session: _Session, files: Sequence[ResultFile]) -> None:
        """Files of the session are complete."""
        record = session.record
        names = {file.id for file in files}
        session.record = replace(
            record,
            parts=tuple(part for part in record.parts if part.name not in names),
            files=(*(file for file in record.files if file.id not in names), *files),
        )

    async def _salvage(self, session: _Session) -> None:
        """Keep what a dead worker left behind and can be played."""
        record = session.record
        complete, readable = await self._in_thread(folders.left_behind, session.folder, record.parts)
        self._keep(session, complete)
        if not readable:
            return
        job = SalvageJob(folder=str(session.folder), parts=tuple(readable))
        try:
            if not await work.salvage(self._workers, job, _SALVAGE_S, lambda event: self._take(session, event)):
                log.warning("session %s: what its worker left could not be read in time", record.id)
        except OSError as error:
            log.warning("session %s: what its worker left could not be read: %s", record.id, error)

    async def _complete(self, session: _Session, ended: Ended) -> None:
        """Deliver what there is, save the end, tell everybody who waits for it."""
        ended = await self._deliver(session, ended)
        record = session.record
        last_us = max((file.last_us for file in record.files), default=record.last_frame_us)
        record = replace(
            record,
            state=lifecycle.advance(record.state, lifecycle.Event.ENDED),
            succeeded=ended.succeeded,
            reason=ended.reason,
            ended_us=self._now_us(),
            last_frame_us=record.last_frame_us if last_us is None else max(last_us, record.last_frame_us or last_us),
            parts=(),
        )
        end = self._entry("end", record, THE_SERVER, record.reason or f"{len(record.files)} file(s)")
        if not await self._save_patiently(record, [*session.entries, end]):
            return  # nobody is told; the next server completes it
        if ended.succeeded:
            log.info("session %s completed with %d file(s)", record.id, len(record.files))
        else:
            log.warning("session %s failed: %s", record.id, ended.reason)
        session.record = record
        self._turns.leave(record.id)
        self._budget.settle(record.id, sum(file.size for file in record.files if not file.path))
        session.completed.set()
        self._touch(session)
        self._grant_turns()
        delivered = [file.id for file in record.files if file.path]
        if delivered:
            await self._in_thread(folders.remove_files, session.folder, delivered)

    async def _deliver(self, session: _Session, ended: Ended) -> Ended:
        """Have the export agent store the files. What it can't store stays with the session, to be downloaded."""
        where = session.record.delivery
        if where is None:
            return ended
        for file in session.record.files:

            async def intend(path: str, file: ResultFile = file) -> None:
                self._set_path(session, file.id, path)
                with _shielded(_SAVE_S):
                    await self._save(session.record)

            try:
                path = await trio.to_thread.run_sync(
                    delivery.deliver,
                    session.folder,
                    where,
                    file,
                    session.record.id,
                    lambda path, intend=intend: trio.from_thread.run(intend, path),
                    abandon_on_cancel=True,
                    limiter=_delivery_limiter(),
                )
            except OSError as error:
                problem = error.strerror
            except StoreError as error:
                if not error.passing:
                    raise
                problem = str(error)
            else:
                self._set_path(session, file.id, path)
                continue
            self._set_path(session, file.id, "")
            reason = f"{file.id} could not be put into {where.directory}: {problem}; it can be downloaded"
            ended = Ended(succeeded=False, reason=f"{ended.reason}; {reason}" if ended.reason else reason)
        return ended

    def _set_path(self, session: _Session, file_id: str, path: str) -> None:
        files = (replace(file, path=path) if file.id == file_id else file for file in session.record.files)
        session.record = replace(session.record, files=tuple(files))

    def _grant_turns(self) -> None:
        for session_id in self._turns.grant():
            session = self._sessions.get(session_id) or self._starting[session_id]
            if session.record.state is State.QUEUED:  # else it has just been stopped
                state = lifecycle.advance(session.record.state, lifecycle.Event.TURN)
                session.record = replace(session.record, state=state)
                session.turn.set()

    # ---- the end of sessions

    def _find(self, session_id: str) -> _Session:
        session = self._sessions.get(session_id)
        if session is None or (session.destruction and session.completed.is_set()):
            raise VxError(Kind.NOT_FOUND, NO_SESSION)
        return session

    def _add(self, session: _Session) -> None:
        record = session.record
        self._sessions[record.id] = self._by_number[record.number] = session
        at = bisect_left(self._numbers, record.number)
        self._numbers.insert(at, record.number)  # at the end, but for starts that are saved out of order

    def _touch(self, session: _Session) -> None:
        """Somebody cares about the session: its clock starts again."""
        record = session.record
        if session.leases or self._sessions.get(record.id) is not session:
            return
        if record.state.is_running:
            self.deadlines.set(record.id, trio.current_time() + self._lifetimes.running)
        elif record.state is State.COMPLETED and not session.purging:
            self.deadlines.set(record.id, trio.current_time() + self._lifetimes.completed)

    def _request_stop(self, session: _Session, caller: Caller) -> None:
        record = session.record
        if record.state.is_running and record.state is not State.STOPPING:
            session.entries.append(self._entry("stop", record, caller))
        session.record = replace(record, state=lifecycle.advance(record.state, lifecycle.Event.STOP))
        session.stop_scope.cancel()

    async def expire(self, session_id: str) -> None:
        """What is due when a session's deadline has come: it is stopped, purged, or forgotten."""
        session = self._sessions.get(session_id)
        if session is None or session.leases or session.destruction:
            return
        try:
            match session.record.state:
                case State.QUEUED | State.RUNNING:
                    log.warning("session %s is stopped: nobody has asked about it", session_id)
                    self._request_stop(session, THE_SERVER)
                case State.COMPLETED:
                    await self._purge(session)
                case State.REMOVED:
                    await self._forget(session, lifecycle.Event.EXPIRED, THE_SERVER)
        except StoreError as error:
            if not error.passing:
                raise
            log.warning("session %s cannot be removed yet: %s", session_id, error)
            self.deadlines.set(session_id, trio.current_time() + _RETRY_S)

    async def _purge(self, session: _Session) -> None:
        async with session.ending:
            if session.record.state is not State.COMPLETED or session.leases:
                return
            session.purging = True
            record = replace(
                session.record,
                state=lifecycle.advance(session.record.state, lifecycle.Event.PURGED),
                files=tuple(file for file in session.record.files if file.path),
                removed_us=self._now_us(),
            )
            entries = [self._entry("remove", record, THE_SERVER, "its files, for their age")]
            try:
                await self._save(record, entries)
            except StoreError as error:
                if not error.passing:
                    raise
                await self._remove_folder(session)  # the disk is full, and this makes room
                if not await self._save_patiently(record, entries):
                    return
            session.record = record
            self.deadlines.set(record.id, trio.current_time() + self._lifetimes.removed)
            await self._remove_folder(session)
        log.info("session %s: its files were removed for their age", record.id)

    async def _destroy(self, session: _Session, outcome: _Outcome, caller: Caller) -> None:
        self._request_stop(session, caller)
        await session.completed.wait()
        for lose in tuple(session.leases):
            lose()
        try:
            await self._forget(session, lifecycle.Event.DESTROYED, caller)
        except StoreError as error:
            session.destruction = None
            self._touch(session)
            outcome.set(error)
        else:
            outcome.set()

    async def _forget(self, session: _Session, event: lifecycle.Event, caller: Caller) -> None:
        detail = "all of it" if event is lifecycle.Event.DESTROYED else "its row, for its age"
        async with session.ending:
            record = session.record
            if record.state is State.FORGOTTEN:
                return
            state = lifecycle.advance(record.state, event)
            with _shielded(_SAVE_S):
                try:
                    await self._store.delete(record, [self._entry("remove", record, caller, detail)])
                except StoreError as error:
                    self._give_up(error)
                    raise
            session.record = replace(record, state=state, files=())
            self.deadlines.remove(record.id)
            del self._sessions[record.id], self._by_number[record.number]
            del self._numbers[bisect_left(self._numbers, record.number)]
            await self._remove_folder(session)

    async def _remove_folder(self, session: _Session) -> None:
        with _shielded(_SAVE_S):
            await self._in_thread(folders.remove, session.folder)
        self._budget.settle(session.record.id, 0)

    async def close(self) -> None:
        """Take no new session, stop those that run, and wait until their files are finalised."""
        self._closing = True
        running = [session for session in self._sessions.values() if session.record.state.is_running]
        for session in running:
            self._request_stop(session, THE_SERVER)
        for session in running:
            await session.completed.wait()

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise VxError(Kind.UNAVAILABLE, "the server is shutting down")

    # ---- the store

    async def recover(self) -> None:
        """Go on from what the store knows of an earlier server, and clear away what that one left half done.

        Completed sessions get their whole lifetime again; those that were running are completed, with what can be read
        of their files. Once, before anything else. StoreError, OSError.
        """
        memory = await self._store.load()
        self._last_number = memory.last_number
        interrupted = []
        for record in memory.records:
            session = _Session(record, self._folder / record.id)
            self._add(session)
            if record.state.is_running:
                interrupted.append(session)
                continue
            session.completed.set()
            self._budget.settle(record.id, sum(file.size for file in record.files if not file.path))
            self._touch(session)
            if record.state is State.REMOVED:
                gone_s = (self._now_us() - (record.removed_us or 0)) / 1e6
                left_s = min(max(self._lifetimes.removed - gone_s, 0), self._lifetimes.removed)
                self.deadlines.set(record.id, trio.current_time() + left_s)
        limit = trio.CapacityLimiter(_SALVAGES_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for session in interrupted:
                nursery.start_soon(self._recover, session, limit)
        known = {key: session.record for key, session in self._sessions.items()}
        await self._in_thread(folders.sweep, self._folder, known)

    async def _recover(self, session: _Session, limit: trio.CapacityLimiter) -> None:
        async with limit:
            if session.record.parts and await self._wait_unused(session):
                await self._salvage(session)
            reason = "the server ended, or was killed, while the export was under way"
            await self._complete(session, Ended(succeeded=False, reason=reason))

    async def _wait_unused(self, session: _Session) -> bool:
        """Whether the worker of the server before has ended, which it does within moments."""
        with trio.move_on_after(_SALVAGE_S):
            try:
                await trio.to_thread.run_sync(folders.wait_unused, session.folder, abandon_on_cancel=True)
            except FileNotFoundError:
                return False
            return True
        log.warning("session %s: an old worker still writes its files; they are given up", session.record.id)
        return False

    async def _save(self, record: Record, entries: Sequence[Entry] = ()) -> None:
        try:
            await self._store.save(record, entries)
        except StoreError as error:
            self._give_up(error)
            raise

    async def _save_patiently(self, record: Record, entries: Sequence[Entry]) -> bool:
        """Save it, and on a full disk wait until there is room; False if the server ends before there is any.

        Cancelled while it waits, it is not saved either.
        """
        told = False
        while True:
            with _shielded(_SAVE_S):
                try:
                    await self._save(record, entries)
                except StoreError as error:
                    if not error.passing:
                        raise
                    if not told or self._closing:
                        log.warning("session %s cannot be saved yet: %s", record.id, error)
                        told = True
                else:
                    return True
            if self._closing:
                return False
            await trio.sleep(_RETRY_S)

    def _give_up(self, error: StoreError) -> None:
        """End the server, unless the error may pass."""
        if error.passing:
            return

        async def fail() -> None:
            raise error

        self._nursery.start_soon(fail)

    def _entry(self, what: str, record: Record, caller: Caller, detail: str = "") -> Entry:
        return Entry(self._now_us(), what, record.id, caller, detail)


_delivery_threads = trio.lowlevel.RunVar[trio.CapacityLimiter]("vx_delivery_threads")
_MAX_DELIVERY_THREADS = 8


def _delivery_limiter() -> trio.CapacityLimiter:
    """Threads of their own: where results are stored may be a share of a machine that does not answer any more."""
    try:
        return _delivery_threads.get()
    except LookupError:
        _delivery_threads.set(trio.CapacityLimiter(_MAX_DELIVERY_THREADS))
        return _delivery_threads.get()


@contextmanager
def _shielded(seconds: float) -> Iterator[None]:
    """Finish this although the task is cancelled, but not for ever."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds) as scope:
        yield
    if scope.cancelled_caught:
        log.error("could not save the state of a session within %g s", seconds)


_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
