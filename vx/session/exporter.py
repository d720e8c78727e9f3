"""A session's export: it waits for its turn, a worker process does the work, and the files that it made are kept.

What becomes of the session then is the registry's. Progress is not stored; files under way and files that are done
are, so that they are found again if the server is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import trio

from vx import report
from vx.errors import VxError
from vx.jobs import (
    ClipJob,
    Ended,
    Event,
    FileDone,
    FileOpened,
    Gap,
    Job,
    Note,
    Probed,
    ProbeJob,
    Progress,
    SalvageJob,
)
from vx.logs import about
from vx.model import ResultFile, State
from vx.session import delivery, folders, work
from vx.session.leases import Holdings, InThread
from vx.session.ledger import SAVE_S, Ledger, shielded
from vx.session.session import Session
from vx.session.store import StoreError
from vx.threads import Threads
from vx.timestamps import describe_range

log = logging.getLogger(__name__)

_NOTE_S = 0.2
"""An export that is over by then is stored once, at its end."""
_SALVAGE_S = 30.0
_PROBE_S = 10.0
_PROBES_AT_ONCE = 2
"""They come on top of the exports that run."""
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

delivery_threads = Threads("delivery", 8, abandon=True)
"""For `vx.session.delivery`: where results are stored may be a share of a machine that does not answer any more."""


class Exporter:
    """Does the exports of all sessions. A worker that was told to stop and has not ended in `grace_s` is killed."""

    def __init__(
        self, workers: work.Workers, ledger: Ledger, grace_s: float, in_thread: InThread, holdings: Holdings
    ) -> None:
        self._workers = workers
        self._ledger = ledger
        self._grace_s = grace_s
        self._in_thread = in_thread
        self._holdings = holdings
        self._probing = trio.CapacityLimiter(_PROBES_AT_ONCE)

    async def export(self, session: Session, job: Job, remains: AsyncExitStack) -> Ended:
        """Do the job, and keep what it made with the session; whatever goes wrong is how it ended.

        `remains` gets what may be released later: the process of a worker that has ended.
        """
        try:
            return await self._export(session, job, remains)
        except OSError as error:
            return Ended(succeeded=False, reason=f"no worker process could be started: {error}")
        except VxError as error:
            return Ended(succeeded=False, reason=str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is ends this session, and no other one
            about(log, session.record.id).exception("it failed")
            return Ended(succeeded=False, reason=f"internal error: {type(error).__name__}")

    async def _export(self, session: Session, job: Job, remains: AsyncExitStack) -> Ended:
        with session.stop_scope:
            await session.turn.wait()
        if session.record.state is State.STOPPING:
            return Ended(succeeded=False, reason="stopped before its turn came")
        session.stop_scope = trio.CancelScope()
        session.began = trio.current_time()
        ended, by_itself = await work.do(
            self._workers, job, session.stop_scope, self._grace_s, lambda event: self._take(session, event), remains
        )
        if not by_itself:
            await self.salvage(session)
        elif session.stop_scope.cancelled_caught and ended.succeeded:
            return _stopped(session)
        return ended

    async def note(self, session: Session) -> None:
        """Have the store know of the session's files, beside the export, until cancelled."""
        await session.turn.wait()
        await trio.sleep(_NOTE_S)
        noted: object = ((), ())
        while True:
            record = session.record
            if (record.parts, record.files) == noted:
                await session.wait_changed()
                continue
            try:
                await self._ledger.save(record)
            except StoreError as error:  # it matters only if the server is killed before the export ends
                if not error.passing:
                    return  # the server ends
                about(log, record.id).warning("its files could not be noted: %s", error)
            noted = record.parts, record.files

    async def _take(self, session: Session, event: Event) -> None:
        """What a worker reports."""
        record = replace(session.record, report=report.take(session.record.report, event))
        session.record = record
        match event:
            case Progress():
                session.record = replace(record, last_frame_us=event.last_frame_us)
            case FileOpened():
                others = (part for part in record.parts if part.part_name != event.part.part_name)
                session.record = replace(record, parts=(*others, event.part))  # a worker may begin it anew
            case FileDone():
                file = ResultFile(event.name, event.size, event.mime_type, event.first_us, event.last_us)
                _keep(session, [file])
                await self._holdings.hold(session, file)
            case Gap():
                name = record.report.sources[event.source].name
                span = describe_range(event.begin_us, event.end_us)
                about(log, record.id).info("%s: there is nothing from %s", name, span)
            case Note():
                about(log, record.id).log(_LEVELS[event.level], "%s", event.text)

    async def salvage(self, session: Session) -> None:
        """Keep what a dead worker left behind and can be played."""
        record = session.record
        complete, readable = await self._in_thread(folders.left_behind, session.folder, record.parts)
        _keep(session, complete)
        try:
            if readable:
                job = SalvageJob(folder=str(session.folder), parts=tuple(readable))
                if not await work.look(self._workers, job, _SALVAGE_S, lambda event: self._take(session, event)):
                    about(log, record.id).warning("what its worker left could not be read in time")
            await self._in_thread(folders.clear, session.folder, [file.id for file in session.record.files])
        except OSError as error:
            about(log, record.id).warning("what its worker left could not be read: %s", error)

    async def probe(self, job: ClipJob) -> list[Probed]:
        """What would become of the sources of a clip; of those at the end nothing, where that takes too long.

        OSError if no worker can be had.
        """
        found: list[Probed] = []

        async def take(event: Event) -> None:
            if isinstance(event, Probed):
                found.append(event)

        async with self._probing:
            await work.look(self._workers, ProbeJob(clip=job), _PROBE_S, take)
        return found

    async def deliver(self, session: Session, ended: Ended) -> Ended:
        """Have the export agent store the files. What it can't store stays with the session, to be downloaded."""
        where = session.record.delivery
        if where is None:
            return ended
        for file in session.record.files:

            async def intend(path: str, file: ResultFile = file) -> None:
                _set_path(session, file.id, path)
                with shielded(SAVE_S):
                    await self._ledger.save(session.record)

            def intend_from_thread(path: str, intend: Callable[[str], Awaitable[None]] = intend) -> None:
                trio.from_thread.run(intend, path)

            try:
                path = await delivery_threads.run(
                    delivery.deliver, session.folder, where, file, session.record.id, intend_from_thread
                )
            except OSError as error:
                problem = error.strerror
            except StoreError as error:
                if not error.passing:
                    raise
                problem = str(error)
            else:
                _set_path(session, file.id, path)
                continue
            _set_path(session, file.id, "")
            reason = f"{file.id} could not be put into {where.directory}: {problem}; it can be downloaded"
            ended = Ended(succeeded=False, reason=f"{ended.reason}; {reason}" if ended.reason else reason)
        return ended


def _stopped(session: Session) -> Ended:
    """How an export ended that did well until it was stopped, which its report gets to know.

    A client who stops it gets what he wants; what the server stops is not all that was asked for.
    """
    because, record = session.stopped_because, session.record
    when = "" if session.is_endless else " before its end"
    why = f"it was stopped{when}: {because}" if because else "it was stopped on request, before its end"
    if because or not session.is_endless:
        session.record = replace(record, report=report.stop(record.report, why))
    is_whole = session.is_endless or not because
    return Ended(succeeded=is_whole, reason="" if is_whole else why)


def _keep(session: Session, files: Sequence[ResultFile]) -> None:
    """Files of the session are complete."""
    record = session.record
    names = {file.id for file in files}
    session.record = replace(
        record,
        parts=tuple(part for part in record.parts if part.name not in names),
        files=(*(file for file in record.files if file.id not in names), *files),
    )


def _set_path(session: Session, file_id: str, path: str) -> None:
    files = (replace(file, path=path) if file.id == file_id else file for file in session.record.files)
    session.record = replace(session.record, files=tuple(files))
