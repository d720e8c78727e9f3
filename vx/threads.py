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
