"""What a session has its worker process do, from the start of one to its last word."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

import trio

from vx.jobs import Ended, Event, Job, ProbeJob, SalvageJob


class WorkerHandle(Protocol):
    """A worker process, as far as a session cares."""

    async def receive(self) -> Event | None: ...
    async def stop(self) -> None: ...
    async def wait_exit(self) -> str: ...


class Workers(Protocol):
    """Where workers come from."""

    def open_worker(self, job: Job) -> AbstractAsyncContextManager[WorkerHandle]: ...


Take = Callable[[Event], Awaitable[None]]


async def do(
    workers: Workers, job: Job, stop: trio.CancelScope, grace_s: float, take: Take, remains: AsyncExitStack
) -> tuple[Ended, bool]:
    """Have `job` done, giving its events to `take`; how it ended, and whether the worker said so itself.

    Cancelling `stop`, which this enters, has the worker finish with what it has; one that doesn't within `grace_s` is
    killed. A worker that was killed or died leaves files behind that a `SalvageJob` can look at. One that has said how
    it ended touches no file any more; its process goes into `remains`: to wait until it is gone takes milliseconds, and
    on a busy machine many. OSError if no worker can be had.
    """
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(workers.open_worker(job))
        ended = None
        with stop:
            ended = await _follow(worker, take)
        if stop.cancelled_caught:
            with trio.move_on_after(grace_s) as grace:
                await worker.stop()
                ended = await _follow(worker, take)
            if grace.cancelled_caught:
                return Ended(
                    succeeded=False, reason=f"the worker did not finish within {grace_s:g} s and was killed"
                ), False
        if ended is not None:
            remains.push_async_exit(stack.pop_all())
            return ended, True
        return Ended(succeeded=False, reason=f"the worker process died: {await worker.wait_exit()}"), False


async def look(workers: Workers, job: SalvageJob | ProbeJob, limit_s: float, take: Take) -> bool:
    """Have something found out, giving what is to `take`; False if that took longer than `limit_s`. OSError as `do`."""
    with trio.move_on_after(limit_s) as scope:
        async with workers.open_worker(job) as worker:
            await _follow(worker, take)
    return not scope.cancelled_caught


async def _follow(worker: WorkerHandle, take: Take) -> Ended | None:
    """Take the worker's events until its last one; None if it dies before."""
    while (event := await worker.receive()) is not None:
        if isinstance(event, Ended):
            return event
        await take(event)
    return None
