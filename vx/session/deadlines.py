"""Deadlines by key, and the task that sleeps until the earliest of them. Nothing here polls."""

from __future__ import annotations

import heapq
import math
from collections.abc import Awaitable, Callable

import trio


class Deadlines:
    """One deadline for each key, on trio's clock. Every operation is O(log n), amortised.

    A deadline that was moved or removed stays in the heap until it surfaces; the dict says which entries still count.
    """

    def __init__(self) -> None:
        self._of: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._changed = trio.Event()

    def set(self, key: str, deadline: float) -> None:
        """Give `key` this deadline instead of any it had."""
        self._of[key] = deadline
        if len(self._heap) > 64 + 2 * len(self._of):
            self._heap = [(at, key) for key, at in self._of.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (deadline, key))
        if self._heap[0] == (deadline, key):
            self._changed.set()

    def remove(self, key: str) -> None:
        """Forget `key`; no error if it has no deadline."""
        self._of.pop(key, None)

    def earliest(self) -> float:
        """The next deadline; infinity if there is none."""
        while self._heap and self._of.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> list[str]:
        """Remove and return the keys whose deadline has come, earliest first."""
        due = []
        while self.earliest() <= now:
            _, key = heapq.heappop(self._heap)
            del self._of[key]
            due.append(key)
        return due

    async def reap(self, expire: Callable[[str], Awaitable[None]]) -> None:
        """Call `expire` with each key as its deadline comes, one after the other, until cancelled."""
        while True:
            self._changed = trio.Event()
            with trio.CancelScope(deadline=self.earliest()):
                await self._changed.wait()
            for key in self.pop_due(trio.current_time()):
                await expire(key)
