"""Workers that do what a test tells them, in place of processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from vx.jobs import ClipJob, Ended, Event, FileDone, FileOpened, Job, PartFile, Source
from vx.model import ExportRequest

CLIP = ClipJob(
    folder="",
    sources=(
        Source(
            origin="hosts/S/DeviceIpint.1/SourceEndpoint.video:0:0", name="Gate", pattern="/r/%s.mp4", timezone="UTC"
        ),
    ),
    start_us=0,
    end_us=60_000_000,
    container="mp4",
)
REQUEST = ExportRequest(job=CLIP, options=b"\x1a\x00", timezone_min=120)


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
        finally:
            worker.closed = True

    async def wait_started(self, count: int) -> FakeWorker:
        """The `count`th worker, once it is there."""
        while len(self.workers) < count:
            self._opened = trio.Event()
            await self._opened.wait()
        return self.workers[count - 1]
