"""OPEN FIRST: the server as a whole. What is opened, which nursery holds what, and in which order it ends.

    state_dir locked
      └─ sessions: one task for each running session, each with a worker process
           └─ reaper: sleeps until a session's next deadline
                └─ transport: listeners, connections, calls

A stop takes that apart from the inside: no new connections, calls under way may end (at most `shutdown_timeout_s`),
running sessions finalise their files, then everything else is cancelled. A second signal cancels all of it at once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from vx.config import Config
from vx.errors import Kind, VxError
from vx.rpc.server import Limits, Server, describe, open_listener
from vx.rpc.services import ExportService
from vx.rpc.tls import server_context
from vx.session.registry import Lifetimes, Registry
from vx.session.store import MemoryStore
from vx.worker import WorkerLimits, WorkerPool

log = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. VxError if the server cannot start."""
    try:
        trio.run(_serve_until_signal, config)
    except BaseExceptionGroup as group:  # one for each nursery around the fault
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, VxError):
            raise error from None
        raise


async def _serve_until_signal(config: Config) -> None:
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, stop, nursery.cancel_scope)
            await serve(config, stop=stop, announce=_announce)
            nursery.cancel_scope.cancel()


async def _obey(signals: object, stop: trio.Event, everything: trio.CancelScope) -> None:
    async for number in signals:  # type: ignore[attr-defined]  # trio gives the iterator no public type
        if stop.is_set():
            log.warning("%s again: ending at once", signal.Signals(number).name)
            everything.cancel()
            return
        log.info("%s: ending; once more ends at once", signal.Signals(number).name)
        stop.set()


def _announce(addresses: list[str]) -> None:
    for address in addresses:
        print(f"listening on {address}", flush=True)


async def serve(config: Config, *, stop: trio.Event, announce: Callable[[list[str]], None]) -> None:
    """Serve until `stop` is set and all that was under way has ended.

    `announce` gets the addresses once connections are accepted. VxError if the state directory or an address cannot
    be had, ConfigError if it is the certificate or its key. Cancelled, it ends calls and workers at once.
    """
    lifetimes = Lifetimes(
        running=config.lifetimes.running_s,
        completed=config.lifetimes.completed_s,
        removed=config.lifetimes.removed_s,
        stop=config.stop_timeout_s,
    )
    workers = WorkerPool(WorkerLimits(nice=config.worker.nice, memory=config.worker.memory_mb << 20))
    limits = Limits(
        max_connections=config.max_connections,
        max_streams=config.max_streams_per_connection,
        max_message=config.max_message_kb << 10,
        keepalive_s=config.keepalive_s,
    )
    tls = server_context(config.tls.certificate, config.tls.key) if config.tls else None
    with _locked(config.state_dir):
        async with trio.open_nursery() as sessions:
            registry = Registry(
                config.state_dir / "sessions", workers, MemoryStore(), lifetimes, config.max_running_sessions, sessions
            )
            await registry.sweep()
            async with trio.open_nursery() as reaper:
                reaper.start_soon(registry.deadlines.reap, registry.expire)
                server = Server([ExportService(registry, config)], limits, tls=tls)
                listeners = [open_listener(address) for address in config.listen]
                async with trio.open_nursery() as transport:
                    transport.start_soon(server.serve, listeners)
                    announce([describe(listener) for listener in listeners])
                    await stop.wait()
                    server.drain()
                    transport.cancel_scope.deadline = trio.current_time() + config.shutdown_timeout_s
                    await registry.close()
                reaper.cancel_scope.cancel()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Own the state directory, made if need be. VxError(UNAVAILABLE) if it cannot be had or another server has it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise VxError(Kind.UNAVAILABLE, f"state_dir {folder} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            raise VxError(Kind.UNAVAILABLE, f"state_dir {folder} is in use by process {holder}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
