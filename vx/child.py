"""What runs in a worker process: the child's side of the border, plain threads.

It is apart from `vx.worker` so that a worker doesn't have to import trio first, which takes 100 ms: this and the media
libraries are loaded in the fork server already.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
import threading
import traceback
from collections.abc import Callable

import msgspec

from vx.jobs import Command, Ended, Event, Note, Stop, decode_command, decode_job, encode

MAX_EVENT = 64 * 1024


class WorkerLimits(msgspec.Struct, frozen=True):
    """What a worker process may use: scheduling priority (0..19) and address space in bytes."""

    nice: int
    memory: int


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
                data = self._sock.recv(MAX_EVENT)
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


def work(job: bytes, sock: socket.socket, limits: WorkerLimits) -> None:
    """A worker process's main function. Ends by `os._exit`: a reader stuck in a dead camera is left behind."""
    from vx.media.export import run

    restrict(limits)
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


def restrict(limits: WorkerLimits) -> None:
    # Ctrl-C on a terminal and systemd's stop go to every process; the server decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(limits.nice)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold what the camera saw
