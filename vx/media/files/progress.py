"""How far a clip is, told at least twice a second, also while its writer waits for the next packets."""

from __future__ import annotations

import contextlib
import threading
import time

from vx.jobs import Link, Progress

INTERVAL_S = 0.2


class Teller:
    """Tells it at most once in `INTERVAL_S`: at once, or what came too early for that from a thread of its own.

    `with` it: nothing is told behind the block.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._changed = threading.Condition()
        self._news: Progress | None = None
        self._due = 0.0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Teller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def soon(self, progress: Progress) -> None:
        """Tell this, unless there is something newer when it is time."""
        with self._changed:
            if time.monotonic() >= self._due:
                self._send(progress)
            else:
                self._news = progress

    def now(self, progress: Progress) -> None:
        """Tell this; nothing older is told after it."""
        with self._changed:
            self._send(progress)

    def _send(self, progress: Progress) -> None:
        self._news, self._due = None, time.monotonic() + INTERVAL_S
        self._link.send(progress)

    def _run(self) -> None:
        with self._changed, contextlib.suppress(OSError):  # the server is gone, and the process about to end
            while not self._ended:
                if self._news is not None and time.monotonic() >= self._due:
                    self._send(self._news)
                self._changed.wait(INTERVAL_S)
