"""Threads for what may wait, apart for each thing that is waited for: a disk that hangs keeps nothing else waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import trio

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class Threads:
    """At most `most` threads at a time, in each run of trio.

    Cancelled, a call is waited for all the same, as the descriptors and buffers that it works on have to stay valid;
    with `abandon` it is left behind.
    """

    def __init__(self, name: str, most: int, *, abandon: bool = False) -> None:
        self._limiter = trio.lowlevel.RunVar[trio.CapacityLimiter](f"vx_{name}_threads")
        self._most = most
        self._abandon = abandon

    async def run(self, call: Callable[[Unpack[_Args]], _T], /, *args: *_Args) -> _T:
        """What the call returns, or raises."""
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = trio.CapacityLimiter(self._most)
            self._limiter.set(limiter)
        return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=self._abandon, limiter=limiter)


class ThreadsApart:
    """`Threads` for each of several things of a kind, by its name: at most `most` at a time for one of them.

    They may all hang, so a call that is cancelled is left behind.
    """

    def __init__(self, kind: str, most: int) -> None:
        self._kind = kind
        self._most = most
        self._of: dict[str, Threads] = {}

    async def run(self, name: str, call: Callable[[Unpack[_Args]], _T], /, *args: *_Args) -> _T:
        """What the call returns, or raises."""
        threads = self._of.get(name)
        if threads is None:
            threads = self._of[name] = Threads(f"{self._kind}_{name}", self._most, abandon=True)
        return await threads.run(call, *args)


archive_threads = ThreadsApart("archive", 2)
"""For looks at recordings, by the pattern of their paths: one camera's may lie on a share that does not answer."""
