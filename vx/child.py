"""What runs in a worker process: the child's side of the border, plain threads.

It is apart from `vx.worker` so that a worker doesn't have to import trio first, which takes 100 ms: this and the media
libraries are loaded in the fork server already.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from vx import sandbox
from vx.archive.pattern import NamePattern
from vx.jobs import (
    ClipJob,
    Command,
    Ended,
    Event,
    Job,
    Note,
    ProbeJob,
    SalvageJob,
    SnapshotJob,
    Stop,
    decode_command,
    decode_job,
    encode,
)
from vx.privileges import keep_memory_private

MAX_EVENT = 64 * 1024
"""Bytes of an event, which is one datagram."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""As malloc.h numbers them."""
_LONGEST_TEXT = 10_000
"""Characters of what is told of an unexpected error, which may quote anything."""


class WorkerLimits(msgspec.Struct, frozen=True):
    """What a worker process may use: scheduling priority (0..19) and address space in bytes."""

    nice: int
    memory: int
    readable: tuple[str, ...] = ()
    """Folders that it may read beside those of its recordings: where symbolic links in them lead."""


class ChildLink:
    """The child's end of the border: a `vx.jobs.Link`."""

    def __init__(self, sock: socket.socket) -> None:
        self.stopping = threading.Event()
        self._sock = sock
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def send(self, event: Event) -> None:
        """Tell the server. If it is gone, nobody wants the result, and the process ends."""
        try:
            self._sock.send(encode(event))
        except ConnectionError:
            os._exit(1)

    def call_on_stop(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self.stopping.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def listen(self) -> None:
        """Take commands until the server is gone, and end then as well."""
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

    gc.freeze()  # what the fork server has loaded: going through that takes longer than the work in between
    restrict(limits)
    decoded = decode_job(job)
    if isinstance(decoded, SnapshotJob):
        keep_freed_memory()
    _occupy(decoded.folder)
    link = ChildLink(sock)
    try:
        _confine(decoded, limits.readable)
    except OSError as error:
        link.send(Note(level="warning", text=f"the worker could not be confined: {error}"))
    threading.Thread(target=link.listen, name="commands", daemon=True).start()
    try:
        ended = run(decoded, link)
    except Exception as error:  # noqa: BLE001  # the edge of the process: the server learns what happened
        link.send(Note(level="error", text=traceback.format_exc(limit=-20)[-_LONGEST_TEXT:]))
        ended = Ended(succeeded=False, reason=_reason(error, limits.memory))
    link.send(ended)
    os._exit(0)


def _occupy(folder: str) -> None:
    """Hold a lock on the folder while the process lives, however it ends.

    A server that was killed leaves its workers to notice it; the next one waits for that before it looks at the files.
    """
    with contextlib.suppress(OSError):  # the job itself finds out, and can say so
        fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_SH)


def keep_freed_memory() -> None:
    """Have what this process frees wait for its next use, as far as glibc knows how.

    Each frame and picture would be of pages that the kernel clears and hands out anew: a tenth of a snapshot's time.
    It is more than what all workers keep (`vx.worker.ENVIRONMENT`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def restrict(limits: WorkerLimits) -> None:
    """For good: take no more of the machine than the limits say, ignore SIGINT and SIGTERM, keep memory private."""
    # Ctrl-C on a terminal and systemd's stop go to every process; the server decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(limits.nice)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    keep_memory_private()


def _reason(error: Exception, limit: int) -> str:
    """Why an export failed unexpectedly, in a process whose address space is limited to so many bytes.

    Encoders have one error for all that goes wrong, for memory that they didn't get too; so of any error it is told
    when the process had come near its limit.
    """
    if isinstance(error, MemoryError):
        return f"the export needs more memory than a worker may use (worker.memory_mb: {limit >> 20})"
    told = f"internal error: {type(error).__name__}: {error}"[:_LONGEST_TEXT]
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmPeak:"))
    if peak < limit - limit // 4:
        return told
    return f"{told}; {peak >> 20} of {limit >> 20} MiB of memory were in use, it may need more: worker.memory_mb"


_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/sys/devices/system"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/fonts", "/etc/ssl/certs"),
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/host.conf"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"),
)


def _packages() -> list[str]:
    """Where vx and the libraries lie. Not all of `sys.path`: that has the folder in which the server was started."""
    libraries = Path(str(msgspec.__file__)).parent.parent
    return [str(Path(__file__).parent), str(libraries)]


def _confine(job: Job, readable: tuple[str, ...]) -> None:
    """What comes from cameras and disks is parsed here: this process may write into its own folder and a virtual clip's
    index, and read what it exports and what Python and its libraries consist of. OSError."""
    clip = job.clip if isinstance(job, ProbeJob) else job
    sources = () if isinstance(clip, SalvageJob) else clip.sources
    is_live = not isinstance(clip, SalvageJob) and clip.live is not None
    if is_live:
        roots = [source.feed.path for source in sources if source.feed is not None and source.feed.path]
    else:
        roots = [NamePattern.parse(source.pattern).root for source in sources]
    links = isinstance(clip, ClipJob) and clip.virtual
    index = job.index if isinstance(job, ClipJob) else None
    writable = [job.folder, *([index.folder] if index is not None else [])]
    sandbox.confine(
        readable=[*_SYSTEM, sys.prefix, sys.base_prefix, *_packages(), *readable, *roots],
        writable=[folder for folder in writable if folder],
        linkable=roots if links else [],
        network=is_live,
    )
