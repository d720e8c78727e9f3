"""What a worker of the part `media` runs. A file of its own, so that nothing but vx has to be imported for it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from vx.jobs import Event, decode_job, encode
from vx.media.export import run

__all__ = ["Link", "run", "work"]


class Link:
    """A worker's link to nobody."""

    def __init__(self) -> None:
        self.stopping = threading.Event()

    def send(self, event: Event) -> None:
        encode(event)

    def call_on_stop(self, callback: Callable[[], None]) -> None:
        pass


def work(job: bytes, pipe: Connection) -> None:
    """Do the job; send (CPU seconds since the fork, peak RSS in MiB, why it failed or nothing)."""
    ended = run(decode_job(job), Link())
    status = Path("/proc/self/status").read_text()
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    pipe.send((time.process_time(), peak_kb / 1024, "" if ended.succeeded else ended.reason))
    os._exit(0)
