"""What sessions need of the world (workers, a store, a disk, threads), doing what a test tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

import trio

from vx.jobs import ClipJob, Ended, Event, FileDone, FileOpened, Job, PartFile, SnapshotJob, Source
from vx.model import Caller, Entry, ExportRequest, Record, ResultFile, State
from vx.rights import Rights
from vx.session.budget import Survey
from vx.session.store import Memory, StoreError

ORIGIN = "hosts/S/DeviceIpint.1/SourceEndpoint.video:0:0"
CLIP = ClipJob(
    folder="",
    sources=(Source(origin=ORIGIN, name="Gate", pattern="/r/%s.mp4", timezone="UTC"),),
    start_us=0,
    end_us=60_000_000,
    container="mp4",
)
REQUEST = ExportRequest(job=CLIP, options=b"\x1a\x00", timezone_min=120, agent="hosts/S/MMExportAgent.0")
COMPLETED = Record(
    id="",
    number=0,
    options=REQUEST.options,
    timezone_min=0,
    started_us=0,
    state=State.COMPLETED,
    succeeded=True,
    files=(ResultFile("clip.mp4", 5, "video/mp4", 1_000_000, 2_000_000),),
)
ALICE = Caller("alice", "192.0.2.1:5001")
BOB = Caller("bob", "192.0.2.2:5002", Rights(supervisor=True))
CAROL = Caller("carol", "192.0.2.3:5003")
FULL = StoreError("the disk is full", passing=True)
BROKEN = StoreError("the disk is broken")


@dataclass
class MemoryStore:
    """Remembers without a disk, and without a thread, which virtual time would not wait for."""

    records: dict[str, Record] = field(default_factory=dict)
    audit: list[Entry] = field(default_factory=list)
    last_number: int = 0
    fails: StoreError | None = None
    """What every change fails with."""
    held: trio.Event | None = None
    """What every change waits for."""

    async def load(self) -> Memory:
        return Memory(tuple(sorted(self.records.values(), key=lambda record: record.number)), self.last_number)

    async def save(self, record: Record, entries: Sequence[Entry] = ()) -> None:
        await self._change(entries)
        self.records[record.id] = record
        self.last_number = max(self.last_number, record.number)

    async def delete(self, record: Record, entries: Sequence[Entry] = ()) -> None:
        await self._change(entries)
        self.records.pop(record.id, None)

    async def note(self, entry: Entry) -> None:
        await self._change([entry])

    async def _change(self, entries: Sequence[Entry]) -> None:
        if self.held is not None:
            await self.held.wait()
        await trio.lowlevel.checkpoint()
        if self.fails is not None:
            raise StoreError(str(self.fails), passing=self.fails.passing)
        self.audit.extend(entries)


@dataclass
class FakeDisk:
    """What the registry is told of the disk."""

    survey: Survey = field(default_factory=Survey)

    async def look(self, job: ClipJob | SnapshotJob, running: Mapping[str, Path]) -> Survey:
        return self.survey


_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


async def at_once(call: Callable[[Unpack[_Args]], _T], /, *args: *_Args) -> _T:
    """In place of a thread: virtual time doesn't wait for those."""
    await trio.lowlevel.checkpoint()
    return call(*args)


class FakeWorker:
    """A worker whose events are sent by the test. By default it ends well as soon as it is told to stop."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.obeys = True
        self.stops = 0
        self.closed = False
        self._events, self._receive = trio.open_memory_channel[Event](1000)

    def send(self, *events: Event) -> None:
        for event in events:
            self._events.send_nowait(event)

    def write(self, name: str, data: bytes) -> None:
        """Make a result file and report it."""
        (Path(self.job.folder) / name).write_bytes(data)
        self.send(FileDone(name=name, size=len(data), mime_type="video/mp4", first_us=1_000_000, last_us=2_000_000))

    def open_part(self, name: str) -> None:
        part = PartFile(part_name=f"{name}.part", name=name, mime_type="video/mp4", first_us=1_000_000)
        (Path(self.job.folder) / part.part_name).write_bytes(b"half")
        self.send(FileOpened(part=part))

    def end(self, succeeded: bool = True, reason: str = "") -> None:
        self.send(Ended(succeeded=succeeded, reason=reason))

    def die(self) -> None:
        self._events.close()

    async def receive(self) -> Event | None:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None

    async def stop(self) -> None:
        self.stops += 1
        if self.obeys:
            self.end()

    async def wait_exit(self) -> str:
        return "signal SIGKILL"


class FakeWorkers:
    """Remembers every worker that was opened; `started` waits for the next one."""

    def __init__(self) -> None:
        self.workers: list[FakeWorker] = []
        self.fails: OSError | None = None
        self.lingering: trio.Event | None = None
        """What the processes of workers wait for before they are gone."""
        self._opened = trio.Event()

    @asynccontextmanager
    async def open_worker(self, job: Job) -> AsyncIterator[FakeWorker]:
        if self.fails:
            raise self.fails
        worker = FakeWorker(job)
        self.workers.append(worker)
        self._opened.set()
        try:
            yield worker
            if self.lingering is not None:
                await self.lingering.wait()
        finally:
            worker.closed = True

    async def wait_started(self, count: int) -> FakeWorker:
        """The `count`th worker, once it is there."""
        while len(self.workers) < count:
            self._opened = trio.Event()
            await self._opened.wait()
        return self.workers[count - 1]
