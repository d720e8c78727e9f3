"""The border between the server and a worker process: one process for each job, a datagram socket between them.

The parent side is trio, the child side plain threads; what crosses is in `vx.jobs`. Workers are forked from a fork
server that has the media libraries loaded, so that starting one costs milliseconds; it starts with the first job. The
parent itself never loads them: a crash, a leak or a hang of a media library is one job's misfortune.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import multiprocessing
import os
import resource
import signal
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

import msgspec
import trio

from vx.jobs import Command, Ended, Event, Job, Note, Stop, decode_command, decode_event, decode_job, encode

log = logging.getLogger(__name__)

_Turn = Callable[[Callable[[], object]], Awaitable[None]]
_MAX_EVENT = 64 * 1024
_REAP_S = 5.0
"""How long a killed process may take to be gone. Only a process stuck in the kernel (a dead disk) takes any time."""


class WorkerLimits(msgspec.Struct, frozen=True):
    """What a worker process may use: scheduling priority (0..19) and address space in bytes."""

    nice: int
    memory: int


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
            data = await self._link.recv(_MAX_EVENT)
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
        self._main = main or _work
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["vx.media.export"])
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
                await self._turn(process.start)
            worker = Worker(process, link, self._turn)
            try:
                yield worker
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _REAP_S):
                    await worker.aclose()


# ---- in the child


class _ChildLink:
    """The child's end of the border: a `vx.jobs.Link`."""

    def __init__(self, sock: socket.socket) -> None:
        self.stopping = threading.Event()
        self._sock = sock
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def send(self, event: Event) -> None:
        self._sock.send(encode(event))

    def call_on_stop(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self.stopping.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def listen(self) -> None:
        """Take commands until the server is gone; then nobody wants the result, and the process ends."""
        while True:
            try:
                data = self._sock.recv(_MAX_EVENT)
            except OSError:
                data = b""
            if not data:
                os._exit(1)
            self._obey(decode_command(data))

    def _obey(self, command: Command) -> None:
        match command:
            case Stop():
                with self._lock:
                    self.stopping.set()
                    callbacks, self._callbacks = self._callbacks, []
                for callback in callbacks:
                    callback()


def _work(job: bytes, sock: socket.socket, limits: WorkerLimits) -> None:
    """A worker process's main function. Ends by `os._exit`: a reader stuck in a dead camera is left behind."""
    from vx.media.export import run

    _restrict(limits)
    _occupy(decode_job(job).folder)
    link = _ChildLink(sock)
    threading.Thread(target=link.listen, name="commands", daemon=True).start()
    try:
        ended = run(decode_job(job), link)
    except MemoryError:
        ended = Ended(succeeded=False, reason="the export needs more memory than a worker may use")
    except Exception as error:  # noqa: BLE001  # the edge of the process: the server learns what happened
        link.send(Note(level="error", text=traceback.format_exc(limit=-20)))
        ended = Ended(succeeded=False, reason=f"internal error: {type(error).__name__}: {error}")
    with contextlib.suppress(OSError):
        link.send(ended)
    os._exit(0)


def _occupy(folder: str) -> None:
    """Hold a lock on the folder while the process lives, however it ends.

    A server that was killed leaves its workers to notice it; the next one waits for that before it looks at the files.
    """
    with contextlib.suppress(OSError):  # the job itself finds out, and can say so
        fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_SH)


def _restrict(limits: WorkerLimits) -> None:
    # Ctrl-C on a terminal and systemd's stop go to every process; the server decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(limits.nice)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold what the camera saw
