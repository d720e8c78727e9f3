"""A registry over fakes, and what tests ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.session.fakes import ALICE, ORIGIN, REQUEST, FakeDisk, FakeWorker, FakeWorkers, MemoryStore, at_once
from vx.errors import Kind, VxError
from vx.model import Caller, Delivery, State
from vx.session.budget import Budget
from vx.session.registry import Lifetimes, Registry
from vx.session.session import Session
from vx.session.turns import Turns

LIFETIMES = Lifetimes(live_stream=300, running=1800, completed=3600, removed=86_400, stop=10)


@contextmanager
def refused(kind: Kind, text: str) -> Iterator[None]:
    with pytest.raises(VxError, match=text) as caught:
        yield
    assert caught.value.kind is kind


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does. The virtual clock does not see threads: it runs on meanwhile."""
    for _ in range(10_000):
        if await trio.to_thread.run_sync(condition):
            return
    raise AssertionError("it has not happened")


class Rig:
    """A registry over fake workers."""

    def __init__(
        self,
        folder: Path,
        nursery: trio.Nursery,
        *,
        store: MemoryStore | None = None,
        turns: Turns | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.folder = folder
        self.workers = FakeWorkers()
        self.store = store or MemoryStore()
        self.disk = FakeDisk()
        self.registry = Registry(
            folder,
            self.workers,
            self.store,
            LIFETIMES,
            nursery,
            turns=turns or Turns(4, 100),
            budget=budget or Budget(),
            survey=self.disk.look,
            roots={ORIGIN: ["/"]},
            now_us=lambda: round(trio.current_time() * 1e6),
            in_thread=at_once,
        )

    async def start(self, caller: Caller = ALICE, delivery: Delivery | None = None) -> tuple[str, FakeWorker]:
        before = len(self.workers.workers)  # one may be at work before its session's start is saved
        record = await self.registry.start(replace(REQUEST, delivery=delivery), caller)
        return record.id, await self.workers.wait_started(before + 1)

    async def complete(self, *files: str) -> str:
        session_id, worker = await self.start()
        for name in files:
            worker.write(name, b"data of " + name.encode())
        worker.end()
        await trio.testing.wait_all_tasks_blocked()
        assert self.state(session_id) is State.COMPLETED
        return session_id

    def session(self, session_id: str) -> Session:
        """Without the renewal that asking would mean."""
        session = self.registry._roster.get(session_id)
        assert session is not None
        return session

    def state(self, session_id: str) -> State:
        return self.session(session_id).record.state
