"""The border between the server and a worker process: one process for each job, a datagram socket between them.

The parent side is trio, the child side (`vx.child`) plain threads; what crosses is in `vx.jobs`. Workers are forked
from a fork server that has the media libraries loaded, so that starting one costs milliseconds; it starts with the
first job. The parent itself never loads them: a crash, a leak or a hang of a media library is one job's misfortune.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

import trio

from vx import child
from vx.child import MAX_EVENT
from vx.child import WorkerLimits as WorkerLimits
from vx.jobs import Event, Job, Stop, decode_event, encode

log = logging.getLogger(__name__)

_Turn = Callable[[Callable[[], object]], Awaitable[None]]
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}
"""Of the fork server and its workers. What a worker's reader allocates its writer frees: with an arena for each thread
that costs a twentieth of a copy's CPU time, and 3 MB. Key frames and batches of packets come and go: to give their
memory back to the kernel each time costs another few hundredths. numpy's OpenBLAS, which nothing here asks for
anything, would have a thread and 40 MiB of addresses for each further core, and processes with threads are not to be
forked.
"""
_SAFE_PATH = "PYTHONSAFEPATH"
_REAP_S = 5.0
"""How long a killed process may take to be gone. Only a process stuck in the kernel (a dead disk) takes any time."""


class Worker:
    """A running worker process, seen from the server."""

    def __init__(self, process: BaseProcess, link: trio.socket.SocketType, multiprocessing_turn: _Turn) -> None:
        self.pid = process.pid
        self._process = process
        self._link = link
        self._turn = multiprocessing_turn

    async def receive(self) -> Event | None:
        """The next event; None once the process has closed its end, whether or not it sent `Ended` before."""
        try:
            data = await self._link.recv(MAX_EVENT)
        except ConnectionError:
            return None
        return decode_event(data) if data else None

    async def stop(self) -> None:
        """Ask it to finalise what it has written. It answers with the events that remain."""
        with contextlib.suppress(ConnectionError):
            await self._link.send(encode(Stop()))

    def kill(self) -> None:
        """End it at once."""
        if not connection.wait([self._process.sentinel], timeout=0):  # else its id may be another process's by now
            self._process.kill()

    async def wait_exit(self) -> str:
        """Wait until it has ended; how it did: `exit status 1`, `signal SIGKILL`."""
        await trio.lowlevel.wait_readable(self._process.sentinel)
        await self._turn(self._process.join)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit status {code}"

    async def aclose(self) -> None:
        """Kill it if it still runs, and release what it held."""
        self.kill()
        with trio.move_on_after(_REAP_S):
            await self.wait_exit()
            await self._turn(self._process.close)
            return
        log.error("worker process %d does not end although it was killed", self.pid)


class WorkerPool:
    """Starts workers; owns the fork server behind them. `main` is what they run, given the encoded job."""

    def __init__(
        self, limits: WorkerLimits, *, main: Callable[[bytes, socket.socket, WorkerLimits], None] | None = None
    ) -> None:
        self._limits = limits
        self._main = main or child.work
        os.environ.update(ENVIRONMENT)  # it matters to what is executed from here on
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["vx.media.export", "vx.child"])
        self._limiter = trio.CapacityLimiter(1)

    async def _turn(self, call: Callable[[], object]) -> None:
        """Call multiprocessing in a thread: its start blocks, and no two of its calls may overlap."""
        await trio.to_thread.run_sync(call, limiter=self._limiter)

    @asynccontextmanager
    async def open_worker(self, job: Job) -> AsyncIterator[Worker]:
        """A worker at work on `job`; leaving the block ends the process if it still runs.

        OSError if no process or socket can be had.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with trio.socket.from_stdlib_socket(ours) as link:
            with theirs:
                process = self._context.Process(
                    target=self._main, args=(encode(job), theirs, self._limits), name="vx-worker", daemon=True
                )
                await self._turn(partial(_start, process))
            worker = Worker(process, link, self._turn)
            try:
                yield worker
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _REAP_S):
                    await worker.aclose()


def _start(process: BaseProcess) -> None:
    """The first start executes the fork server, which loads nothing from the folder in which this one was started."""
    was_safe = _SAFE_PATH in os.environ
    os.environ[_SAFE_PATH] = "1"
    try:
        process.start()
    finally:
        if not was_safe:
            del os.environ[_SAFE_PATH]
