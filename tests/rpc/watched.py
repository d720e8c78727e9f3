"""A server process that tells how long it kept its clients waiting.

`python -m tests.rpc.watched CONFIG FILE [SECONDS]` is vx itself; with SECONDS, its peers have so long for what they
have begun: a greeting, a frame, a TLS handshake. Each pass of the event loop (all that is done between two looks
at the sockets) that took notably long becomes a line in FILE: its milliseconds by the CPU clock of the event loop's
thread. That clock knows nothing of what else the machine is busy with, and includes the garbage collector.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import trio

from vx.app import run
from vx.config.reading import load
from vx.rpc import connection, server

NOTABLE_MS = 2


class Passes(trio.abc.Instrument):
    """Writes down the long ones."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", buffering=1)
        self._begun: float | None = None

    def after_io_wait(self, timeout: float) -> None:
        self._begun = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        if self._begun is not None:
            took_ms = (time.thread_time() - self._begun) * 1000
            if took_ms > NOTABLE_MS:
                self._file.write(f"{took_ms:.3f}\n")


if __name__ == "__main__":
    if len(sys.argv) > 3:
        connection._GREETING_S = connection._FRAME_S = server._HANDSHAKE_S = float(sys.argv[3])
    reload = partial(load, sys.argv[1])
    run(reload(), reload, instruments=[Passes(Path(sys.argv[2]))])
