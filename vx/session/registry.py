"""The sessions of this server: how they begin, what is asked of them, how they end.

Each session is a task of the registry's nursery: it is exported (`exporter`), saved (`ledger`), and over. A new state
is in the store before anybody is told of it. The lifecycle's table decides, this file acts.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import trio

from vx import disk, report, timestamps
from vx.errors import Kind, VxError
from vx.jobs import ClipJob, Ended, Job, Probed, SnapshotJob
from vx.logs import about
from vx.metrics import Statistics
from vx.model import THE_SERVER, Caller, ExportRequest, Record, State
from vx.session import delivery, folders, lifecycle, recovery, work
from vx.session.absorbing import Absorber
from vx.session.budget import Budget, Survey
from vx.session.deadlines import Deadlines
from vx.session.exporter import Exporter, delivery_threads
from vx.session.leases import Holdings, InThread
from vx.session.ledger import RETRY_S, SAVE_S, Ledger, shielded
from vx.session.prospect import Prospect
from vx.session.roster import Roster
from vx.session.session import Outcome, Session
from vx.session.store import Store, StoreError
from vx.session.tally import Tally
from vx.session.turns import Turns
from vx.session.watch import Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long sessions live, in seconds of trio's clock."""

    live_stream: float
    """A running live stream that nobody asked about is stopped."""
    running: float
    """Any other running session that nobody asked about is stopped."""
    completed: float
    """The files of a completed session that nobody asked about or downloads are deleted."""
    removed: float
    """A session without files is forgotten."""
    stop: float
    """A worker that was told to stop and has not ended is killed."""


SurveyDisk = Callable[[ClipJob | SnapshotJob, Mapping[str, Path]], Awaitable[Survey]]
"""Finds out what a job will need and what the disk has, given the folders of the sessions that run."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A result file that stays on the disk while it is downloaded."""

    path: Path
    size: int
    held: Mapping[str, int]
    """Of a virtual result: descriptors that are held open for it, by where the recordings lie."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a session is."""

    record: Record
    share: float
    """How much is done, 0 to 1."""
    left_s: float | None
    """Seconds that the rest will take, if it goes on as fast; None while nobody can tell, and where it is over."""
    ahead: int | None
    """How many sessions wait before it; None where it doesn't wait."""


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
        roots: Mapping[str, Collection[str]],
        now_us: Callable[[], int] = timestamps.now_us,
        in_thread: InThread = trio.to_thread.run_sync,
    ) -> None:
        """`roots` are the folders of recordings, by their camera's access point.

        `now_us` is the wall clock; `in_thread` has disks wait elsewhere. Tests have both of their own.
        """
        self._folder = folder
        self._ledger = Ledger(store, nursery, now_us)
        self._holdings = Holdings(in_thread, roots)
        self._exporter = Exporter(workers, self._ledger, lifetimes.stop, in_thread, self._holdings)
        self._lifetimes = lifetimes
        self._nursery = nursery
        self._turns = turns
        self._budget = budget
        self._survey = survey
        self._now_us = now_us
        self._in_thread = in_thread
        self._roster = Roster()
        self._tally = Tally()
        self.deadlines = Deadlines()

    # ---- what clients ask for

    async def start(self, request: ExportRequest, caller: Caller = THE_SERVER) -> Record:
        """Begin a session, or queue it. Once it exists it runs on, whatever becomes of the caller.

        VxError: EXHAUSTED where there is no place in the queue or no room on the disk, UNAVAILABLE when the server is
        ending, those of `delivery.check` where an export agent is to store the results.
        """
        session = self._admit(request, caller, await self._look(request))
        record = session.record
        self._roster.announce(session)
        self._grant_turns()
        job: Job = msgspec.structs.replace(request.job, folder=str(session.folder))
        if isinstance(job, ClipJob) and job.virtual:
            job = msgspec.structs.replace(job, held=self._holdings.room())
        settled = trio.Event()
        try:
            with shielded(SAVE_S):
                await self._in_thread(folders.make, session.folder)
                # the export begins meanwhile: what it makes is nobody's until the session exists
                self._nursery.start_soon(self._run, session, job, settled, name=f"session {record.id}")
                await self._in_thread(disk.sync, session.folder.parent)
                await self._ledger.save(record, [self._ledger.entry("start", record, caller)])
                self._roster.add(session)
        except OSError as error:
            raise VxError(Kind.EXHAUSTED, f"the session's folder cannot be made: {error.strerror}") from None
        finally:
            settled.set()
            if session not in self._roster:
                self._roster.withdraw(session)
                self._turns.leave(record.id)
                self._budget.settle(record.id, 0)
                self._grant_turns()
        if session not in self._roster:
            raise VxError(Kind.UNAVAILABLE, "the session could not be saved in time")
        self._touch(session)
        if self._ledger.closing:
            self._request_stop(session, THE_SERVER)
        return session.record

    def _admit(self, request: ExportRequest, caller: Caller, survey: Survey) -> Session:
        """A session that has its room on the disk and its place among the others. VxError(EXHAUSTED)."""
        record = Record(
            id=secrets.token_hex(16),
            number=self._roster.last_number + 1,
            options=request.options,
            timezone_min=request.timezone_min,
            started_us=self._now_us(),
            started_by=caller,
            agent=request.agent,
            delivery=request.delivery,
            state=lifecycle.FIRST,
            report=report.begin(request.job, [source.spans_us for source in survey.recorded]),
        )
        self._budget.reserve(record.id, survey)
        try:
            self._turns.enter(record.id, caller.name, request.agent, caller.rights.max_running_sessions)
        except VxError:
            self._budget.settle(record.id, 0)
            raise
        session = Session(record, self._folder / record.id)
        live = request.job.live if isinstance(request.job, ClipJob) else None
        session.is_live_stream, session.is_endless = live is not None, live is not None and not live.duration_us
        return session

    async def _look(self, request: ExportRequest) -> Survey:
        self._refuse_when_closing()
        if request.delivery is not None:
            await delivery_threads.run(delivery.check, request.delivery, request.delivery_field)
        running = {key: self._folder / key for key in self._budget.promised()}
        survey = await self._survey(request.job, running)
        self._refuse_when_closing()
        return survey

    async def prospect(self, request: ExportRequest, caller: Caller) -> Prospect:
        """What `start` would find, without starting anything. VxError as it, but for EXHAUSTED, which is told."""
        survey = await self._look(request)
        obstacle = ""
        waits = False
        try:
            self._budget.check(survey)
            waits = self._turns.check(caller.name, request.agent, caller.rights.max_running_sessions)
        except VxError as error:
            obstacle = str(error)
        probed: list[Probed] = []
        if isinstance(request.job, ClipJob) and request.job.live is None:
            try:
                probed = await self._exporter.probe(request.job)
            except OSError as error:
                raise VxError(Kind.UNAVAILABLE, f"no worker process could be started: {error}") from None
        return Prospect(request.job, survey, probed, obstacle, waits)

    def standing(self, session_id: str, caller: Caller = THE_SERVER) -> Standing:
        """How far the session is; asking keeps it alive. VxError(NOT_FOUND) for an unknown id."""
        session = self._roster.find(session_id, caller)
        self._touch(session)
        record = session.record
        is_whole = not record.state.is_running and not record.report.stopped
        share = 1.0 if is_whole else report.share_done(record.report)
        left_s = None
        if record.state.is_running and share > 0:
            left_s = self._running_s(session) * (1 - share) / share
        return Standing(record, share, left_s, self._turns.ahead(session_id))

    def statistics(self) -> Statistics:
        """What there is to count at this moment."""
        states = dict.fromkeys((state.value for state in State if state is not State.FORGOTTEN), 0)
        running: list[Session] = []
        for session in self._roster:
            states[session.record.state.value] += 1
            if session.record.state.is_running:
                running.append(session)
        return self._tally.statistics(
            states,
            [(report.exported_us(session.record.report) / 1e6, self._running_s(session)) for session in running],
            self._budget,
        )

    def _running_s(self, session: Session) -> float:
        return 0 if session.began is None else trio.current_time() - session.began

    async def wait_changed(self, session_id: str, caller: Caller = THE_SERVER) -> None:
        """Wait until something of the session is another than now, or it is gone. VxError as `get`."""
        await self._roster.find(session_id, caller).wait_changed()

    def get(self, session_id: str, caller: Caller = THE_SERVER) -> Record:
        """The session as it is now; asking keeps it alive. VxError(NOT_FOUND) for an unknown id."""
        session = self._roster.find(session_id, caller)
        self._touch(session)
        return session.record

    async def stop(self, session_id: str, caller: Caller = THE_SERVER) -> Record:
        """End the work, keep what was written, and wait for that."""
        session = self._roster.find(session_id, caller)
        self._request_stop(session, caller)
        await session.completed.wait()
        return session.record

    async def destroy(self, session_id: str, caller: Caller = THE_SERVER) -> None:
        """Stop the session if it runs, end the downloads of its files, and delete both files and row."""
        session = self._roster.find(session_id, caller)
        if session.destruction is None:
            session.destruction = Outcome()
            self._nursery.start_soon(self._destroy, session, session.destruction, caller)
        await session.destruction.wait()  # it goes on when the caller has gone

    def page(self, after: int, size: int, caller: Caller = THE_SERVER) -> list[Record]:
        """Up to `size` of the caller's sessions that started after number `after`, oldest first."""
        return self._roster.page(after, size, caller)

    @contextmanager
    def lease(
        self, session_id: str, file_id: str, caller: Caller = THE_SERVER, *, on_lost: Callable[[], None]
    ) -> Iterator[Lease]:
        """Hold a result file for a download. `on_lost` is called when the session is destroyed meanwhile.

        VxError: NOT_FOUND for an unknown session or file, PRECONDITION where the session has not completed or an export
        agent has stored the file.
        """
        session = self._roster.find(session_id, caller)
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
        session.leases = (*session.leases, on_lost)
        self.deadlines.remove(session_id)
        try:
            yield Lease(session.folder / file.id, file.size, self._holdings.of(session_id, file.id))
        finally:
            session.leases = tuple(lose for lose in session.leases if lose is not on_lost)
            if not session.leases:
                self._touch(session)

    async def note_download(self, session_id: str, detail: str, caller: Caller) -> None:
        """Remember that a download begins. VxError where that cannot be remembered."""
        record = self._roster.find(session_id, caller).record
        await self._ledger.note(self._ledger.entry("download", record, caller, detail))

    # ---- a session's task

    async def _run(self, session: Session, job: Job, settled: trio.Event) -> None:
        """The session's work. `settled`: it exists by now, or never will; then nothing remains of it."""
        ended = Ended(succeeded=False, reason="the server was ended before the export was done")
        async with AsyncExitStack() as remains:
            try:
                async with trio.open_nursery() as beside:
                    beside.start_soon(self._note, session, settled, beside.cancel_scope)
                    ended = await self._exporter.export(session, job, remains)
                    beside.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):  # what `start` waits for has a deadline
                    await settled.wait()
                exists = session in self._roster
                if exists:
                    await self._complete(session, ended)
        if not exists:
            await self._in_thread(folders.remove, session.folder)

    async def _note(self, session: Session, settled: trio.Event, exporting: trio.CancelScope) -> None:
        """Have the session's files noted once it exists; cancels the export if it never will."""
        await settled.wait()
        if session in self._roster:
            await self._exporter.note(session)
        else:
            exporting.cancel()

    async def _complete(self, session: Session, ended: Ended) -> None:
        """Deliver what there is, save the end, tell everybody who waits for it."""
        ended = await self._exporter.deliver(session, ended)
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
            report=report.end(record.report, ended),
        )
        end = self._ledger.entry("end", record, THE_SERVER, record.reason or f"{len(record.files)} file(s)")
        if not await self._ledger.save_patiently(record, [*session.entries, end]):
            return  # nobody is told; the next server completes it
        if ended.succeeded:
            about(log, record.id).info("completed with %d file(s)", len(record.files))
        else:
            about(log, record.id).warning("failed: %s", ended.reason)
        session.record = record
        session.entries = ()
        self._tally.add(record, self._running_s(session))
        self._turns.leave(record.id)
        self._budget.settle(record.id, await self._in_thread(folders.taken, session.folder, record.files))
        session.completed.set()
        self._touch(session)
        self._grant_turns()
        delivered = [file.id for file in record.files if file.path]
        if delivered:
            await self._in_thread(folders.remove_files, session.folder, delivered)

    def _grant_turns(self) -> None:
        for session_id in self._turns.grant():
            session = self._roster.get(session_id)
            assert session is not None
            if session.record.state is State.QUEUED:  # else it has just been stopped
                state = lifecycle.advance(session.record.state, lifecycle.Event.TURN)
                session.record = replace(session.record, state=state)
                session.turn.set()

    # ---- the end of sessions

    def _touch(self, session: Session) -> None:
        """Somebody cares about the session: its clock starts again."""
        record = session.record
        if session.leases or session not in self._roster:
            return
        if record.state.is_running:
            self.deadlines.set(record.id, trio.current_time() + self._running_lifetime_s(session))
        elif record.state is State.COMPLETED and not session.purging:
            self.deadlines.set(record.id, trio.current_time() + self._lifetimes.completed)

    def _running_lifetime_s(self, session: Session) -> float:
        return self._lifetimes.live_stream if session.is_live_stream else self._lifetimes.running

    def _request_stop(self, session: Session, caller: Caller, because: str = "") -> None:
        """`because`: why, where it is not a client who wants that; a client's wish counts more."""
        record = session.record
        if not because or record.state is not State.STOPPING:
            session.stopped_because = because
        if record.state.is_running and record.state is not State.STOPPING:
            session.entries = (*session.entries, self._ledger.entry("stop", record, caller))
        session.record = replace(record, state=lifecycle.advance(record.state, lifecycle.Event.STOP))
        session.stop_scope.cancel()

    async def expire(self, session_id: str) -> None:
        """What is due when a session's deadline has come: it is stopped, purged, or forgotten."""
        session = self._roster.get(session_id)
        if session is None or session.leases or session.destruction:
            return
        try:
            match session.record.state:
                case State.QUEUED | State.RUNNING:
                    why = f"nobody asked about it for {self._running_lifetime_s(session):g} s"
                    about(log, session_id).warning("it is stopped: %s", why)
                    self._request_stop(session, THE_SERVER, why)
                case State.COMPLETED:
                    await self._purge(session)
                case State.REMOVED:
                    await self._forget(session, lifecycle.Event.EXPIRED, THE_SERVER)
        except StoreError as error:
            if not error.passing:
                raise
            about(log, session_id).warning("it cannot be removed yet: %s", error)
            self.deadlines.set(session_id, trio.current_time() + RETRY_S)

    async def watch_leases(self, min_free: int) -> None:
        """Follow what retention does to recordings that results are served from, until cancelled."""

        async def end(session: Session) -> None:
            await self._purge(session, "its files, for want of space: retention deleted the recordings that it keeps")

        def with_results() -> list[Session]:
            return [each for each in self._roster if each.record.state is State.COMPLETED and each.record.files]

        absorb = Absorber(self._holdings, self._budget, self._in_thread).absorb
        watch = Watch(self._in_thread, self._holdings, self._budget, absorb=absorb, end=end, min_free=min_free)
        await watch.run(self._folder, with_results)

    async def _purge(self, session: Session, why: str = "its files, for their age") -> None:
        session.stop_copying()
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
            entries = [self._ledger.entry("remove", record, THE_SERVER, why)]
            try:
                await self._ledger.save(record, entries)
            except StoreError as error:
                if not error.passing:
                    raise
                await self._remove_folder(session)  # the disk is full, and this makes room
                if not await self._ledger.save_patiently(record, entries):
                    return
            session.record = record
            self.deadlines.set(record.id, trio.current_time() + self._lifetimes.removed)
            await self._remove_folder(session)
        about(log, record.id).info("removed: %s", why)

    async def _destroy(self, session: Session, outcome: Outcome, caller: Caller) -> None:
        self._request_stop(session, caller)
        await session.completed.wait()
        for lose in session.leases:
            lose()
        try:
            await self._forget(session, lifecycle.Event.DESTROYED, caller)
        except StoreError as error:
            session.destruction = None
            self._touch(session)
            outcome.set(error)
        else:
            outcome.set()

    async def _forget(self, session: Session, event: lifecycle.Event, caller: Caller) -> None:
        detail = "all of it" if event is lifecycle.Event.DESTROYED else "its row, for its age"
        session.stop_copying()
        async with session.ending:
            record = session.record
            if record.state is State.FORGOTTEN:
                return
            state = lifecycle.advance(record.state, event)
            with shielded(SAVE_S):
                await self._ledger.delete(record, [self._ledger.entry("remove", record, caller, detail)])
            session.record = replace(record, state=state, files=())
            self.deadlines.remove(record.id)
            self._roster.remove(session)
            await self._remove_folder(session)

    async def _remove_folder(self, session: Session) -> None:
        with shielded(SAVE_S):
            await self._in_thread(folders.remove, session.folder)
        self._holdings.release(session.record.id)
        self._budget.settle(session.record.id, 0)

    async def close(self) -> None:
        """Take no new session, stop those that run, and wait until their files are finalised."""
        self._ledger.closing = True
        running = [session for session in self._roster if session.record.state.is_running]
        for session in running:
            self._request_stop(session, THE_SERVER, "the server was shut down")
        for session in running:
            await session.completed.wait()

    def _refuse_when_closing(self) -> None:
        if self._ledger.closing:
            raise VxError(Kind.UNAVAILABLE, "the server is shutting down")

    # ---- the beginning and the end of the server

    async def recover(self) -> None:
        """Go on from what the store knows of an earlier server, and clear away what that one left half done.

        Completed sessions get their whole lifetime again; those that were running are completed, with what can be read
        of their files. Once, before anything else. StoreError, OSError.
        """
        memory = await self._ledger.load()
        self._roster.last_number = memory.last_number
        interrupted = []
        for record in memory.records:
            session = Session(record, self._folder / record.id)
            self._roster.add(session)
            if record.state.is_running:
                interrupted.append(session)
                continue
            session.completed.set()
            taken = await self._in_thread(folders.taken, session.folder, record.files)
            self._budget.settle(record.id, taken)
            if taken != sum(file.size for file in record.files if not file.path):
                for file in record.files:
                    await self._holdings.hold(session, file)
            self._touch(session)
            if record.state is State.REMOVED:
                left_s = recovery.seconds_left(record, self._lifetimes.removed, self._now_us())
                self.deadlines.set(record.id, trio.current_time() + left_s)
        await recovery.complete_interrupted(interrupted, self._exporter, self._complete)
        for session in interrupted:
            for file in session.record.files:
                await self._holdings.hold(session, file)
        known = {session.record.id: session.record for session in self._roster}
        for folder in await self._in_thread(folders.strays, self._folder, known):
            await recovery.wait_unused(folder)
        await self._in_thread(folders.sweep, self._folder, known)
