"""OPEN FIRST: the server as a whole. What is opened, which nursery holds what, and in which order it ends.

    state_dir locked, addresses taken, root given up
      └─ store: the database of sessions and tokens, opened, checked, brought up to date
           └─ sessions: one task for each session that runs or waits, each with a worker process in its turn
                └─ beside: what wakes at sessions' deadlines, follows the recordings that results are served from,
                           checks passwords, answers for metrics, obeys SIGHUP
                     └─ transport: listeners, connections, calls

What an earlier server left is made good before anybody is served: sessions that it could not end are completed with
what can be read of their files, and what belongs to no session is swept.

SIGHUP has certificates, users and roles read again; connections and sessions go on meanwhile.

A stop takes that apart from the inside: no new connections, calls under way may end (at most `shutdown_timeout_s`),
running sessions finalise their files, then everything else is cancelled. A second signal cancels all of it at once. A
database that fails for good ends the server too: what it would answer could be lost.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import pwd
import resource
import shutil
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from vx import disk, firstlook, metrics, sandbox, scrape
from vx.access.gate import Gate
from vx.access.passwords import Passwords
from vx.access.tokens import Tokens
from vx.archive.pattern import NamePattern
from vx.config.schema import Config
from vx.errors import Kind, VxError
from vx.privileges import become, give_memory_back, give_up_privileges
from vx.rpc.authentication import AuthenticationService
from vx.rpc.discovery import ArchiveService, DomainService
from vx.rpc.guard import admit_by
from vx.rpc.reports import ExportReportService
from vx.rpc.server import Limits, Server, Service, describe, open_listener
from vx.rpc.services import ExportService
from vx.rpc.tls import server_context
from vx.session import folders
from vx.session.budget import Budget
from vx.session.registry import Lifetimes, Registry
from vx.session.store import SqliteStore, open_store
from vx.session.turns import Turns
from vx.survey import survey
from vx.systemd import Systemd
from vx.threads import Threads
from vx.timestamps import now_us
from vx.worker import WorkerLimits, WorkerPool

log = logging.getLogger(__name__)

_SWITCH_S = 0.0005
"""How long a thread may go on while another one waits for its turn to run Python. While a large request is decoded, the
event loop waits for that after each system call; Python's own 5 ms would add up, with many clients, to a second."""


def run(config: Config, reload: Callable[[], Config], *, instruments: Sequence[trio.abc.Instrument] = ()) -> None:
    """Serve until SIGTERM or SIGINT. `reload` reads the configuration again. VxError if the server cannot start.

    `instruments` are trio's, for those who want to know what the event loop does.
    """
    give_up_privileges()
    sys.setswitchinterval(_SWITCH_S)
    try:
        trio.run(_serve_until_signal, config, reload, instruments=instruments)
    except BaseExceptionGroup as group:  # one for each nursery around the fault, and more where many tasks met it
        _, other = group.split(VxError)
        if other is not None:
            raise
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _serve_until_signal(config: Config, reload: Callable[[], Config]) -> None:
    stop = trio.Event()
    hang_up, hangups = trio.open_memory_channel[None](1)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, stop, nursery.cancel_scope, hang_up)
            await serve(config, stop=stop, announce=_announce, hangups=hangups, reload=reload)
            nursery.cancel_scope.cancel()


async def _obey(
    signals: object, stop: trio.Event, everything: trio.CancelScope, hang_up: trio.MemorySendChannel[None]
) -> None:
    async for number in signals:  # type: ignore[attr-defined]  # trio gives the iterator no public type
        if number == signal.SIGHUP:
            with suppress(trio.WouldBlock):  # one that waits its turn stands for this one too
                hang_up.send_nowait(None)
            continue
        if stop.is_set():
            log.warning("%s again: ending at once", signal.Signals(number).name)
            everything.cancel()
            return
        log.info("%s: ending; once more ends at once", signal.Signals(number).name)
        stop.set()


def _announce(addresses: list[str]) -> None:
    # What is loaded by now stays. The garbage collector would hold up all calls for 15 ms each time it went through it.
    gc.collect()
    gc.freeze()
    for address in addresses:
        print(f"listening on {address}", flush=True)


async def serve(
    config: Config,
    *,
    stop: trio.Event,
    announce: Callable[[list[str]], None],
    hangups: trio.MemoryReceiveChannel[None],
    reload: Callable[[], Config],
) -> None:
    """Serve until `stop` is set and all that was under way has ended.

    `announce` gets the addresses once connections are accepted; at each of `hangups`, `reload` reads the configuration
    again. VxError if the state directory or an address cannot be had, ConfigError if it is the certificate or its key.
    Cancelled, it ends calls and workers at once.
    """
    tls = _tls_context(config)
    workers = _make_workers(config)  # which loads what the user that the server becomes may not be able to read
    results = config.state_dir / "sessions"
    with _locked(config.state_dir, config.process.user), closing(Systemd()) as systemd, ExitStack() as unused:
        listeners = [unused.enter_context(open_listener(address)) for address in config.listen]
        scraped = unused.enter_context(open_listener(config.metrics.listen)) if config.metrics.listen else None
        _become(config.process.user)
        _prepare_index(config)
        _tell_confinement()
        async with (
            _open_store(config, results) as store,
            trio.open_nursery() as sessions,
        ):
            registry = _make_registry(config, results, workers, store, sessions)
            await registry.recover()
            async with trio.open_nursery() as beside:
                beside.start_soon(registry.deadlines.reap, registry.expire)
                beside.start_soon(registry.watch_leases, config.results.min_free)
                passwords = Passwords()
                beside.start_soon(passwords.run)
                gate = await _open_gate(config, store, passwords)
                exports, reports = ExportService(registry, config), ExportReportService(registry, config)
                services: list[Service] = [
                    exports,
                    reports,
                    AuthenticationService(gate),
                    DomainService(config),
                    ArchiveService(config),
                ]
                readers = {**exports.readers, **reports.readers}
                server = Server(services, _limits(config), readers=readers, admit=admit_by(gate), tls=tls)
                beside.start_soon(_follow, hangups, reload, config, gate, server)
                async with trio.open_nursery() as transport:
                    unused.pop_all()  # from here on they are the server's
                    transport.start_soon(server.serve, listeners)
                    if scraped is not None:
                        count = partial(_count, registry, exports, results)
                        beside.start_soon(scrape.serve, scraped, metrics.CONTENT_TYPE, count)
                        log.info("GET /metrics is answered on %s", describe(scraped))
                    announce([describe(listener) for listener in listeners])
                    give_memory_back()
                    beside.start_soon(systemd.keep_alive)
                    beside.start_soon(firstlook.look, config.camera)
                    systemd.tell("READY=1")
                    await stop.wait()
                    systemd.tell("STOPPING=1")
                    server.drain()
                    transport.cancel_scope.deadline = trio.current_time() + config.shutdown_timeout_s
                    await registry.close()
                beside.cancel_scope.cancel()


def _limits(config: Config) -> Limits:
    return Limits(
        max_connections=config.max_connections,
        max_connections_per_address=config.max_connections_per_address,
        max_streams=config.max_streams_per_connection,
        max_message=config.max_message_kb << 10,
        keepalive_s=config.keepalive_s,
    )


def _make_workers(config: Config) -> WorkerPool:
    limits = WorkerLimits(
        nice=config.worker.nice,
        memory=config.worker.memory_mb << 20,
        readable=tuple(str(path) for path in config.worker.readable),
    )
    return WorkerPool(limits)


def _make_registry(
    config: Config, results: Path, workers: WorkerPool, store: SqliteStore, nursery: trio.Nursery
) -> Registry:
    """The registry of sessions, which run in the nursery."""
    lifetimes = Lifetimes(
        live_stream=config.lifetimes.live_stream_s,
        running=config.lifetimes.running_s,
        completed=config.lifetimes.completed_s,
        removed=config.lifetimes.removed_s,
        stop=config.stop_timeout_s,
    )
    most = config.max_running_sessions
    of_agents = {agent.access_point: agent.max_running_sessions or most for agent in config.agent}
    return Registry(
        results,
        workers,
        store,
        lifetimes,
        nursery,
        turns=Turns(most, config.max_queued_sessions, of_agents),
        budget=Budget(config.results.max_total, config.results.min_free),
        survey=partial(survey, config, results),
        roots={
            camera.access_point: {NamePattern.parse(archive.path).root for archive in camera.archive}
            for camera in config.camera
        },
    )


_metrics_threads = Threads("metrics", 1, abandon=True)


async def _count(registry: Registry, exports: ExportService, results: Path) -> bytes:
    """The page of metrics. OSError where what the kernel says of this process cannot be read."""

    def look() -> tuple[int | None, int]:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        try:
            return disk.free(results), resident
        except OSError:
            return None, resident

    free, resident = await _metrics_threads.run(look)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return metrics.render(
        registry.statistics(),
        sent_bytes=exports.sent_bytes,
        free_bytes=free,
        resident_bytes=resident,
        cpu_s=usage.ru_utime + usage.ru_stime,
    )


def _prepare_index(config: Config) -> None:
    """Have the folder of recordings' tables, or have none. It is there for speed alone: a fault is told, no more."""
    try:
        if config.media.index_cache_mb:
            config.index_dir.mkdir(mode=0o700, exist_ok=True)
        elif config.index_dir.exists():
            shutil.rmtree(config.index_dir)
    except OSError as error:
        log.warning("recordings are read anew for each clip: %s: %s", config.index_dir, error.strerror)


def _tls_context(config: Config) -> ssl.SSLContext | None:
    return server_context(config.tls.certificate, config.tls.key, config.tls.client_ca) if config.tls else None


async def _open_gate(config: Config, store: SqliteStore, passwords: Passwords) -> Gate:
    tokens = Tokens(store, round(config.token_hours * 3_600_000_000), now_us)
    await tokens.load()
    return Gate(config, tokens, passwords, store.note, now_us)


_RELOADED = {"tls", "user", "role"}


async def _follow(
    hangups: trio.MemoryReceiveChannel[None], reload: Callable[[], Config], config: Config, gate: Gate, server: Server
) -> None:
    """Use what of other configurations can be used without a restart; say of the rest that it is not."""

    def read() -> tuple[Config, ssl.SSLContext | None]:
        new = reload()
        return new, _tls_context(new)

    async for _ in hangups:
        try:
            new, tls = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        except VxError as error:
            log.warning("SIGHUP: all stays as it was: %s", error)
            continue
        # The addresses stay what they are, and were allowed with TLS and users only.
        there = (("TLS", config.tls, new.tls), ("users", config.user, new.user))
        if wanting := [what for what, before, now in there if bool(before) != bool(now)]:
            log.warning("SIGHUP: all stays as it was: with or without %s takes a restart", " and ".join(wanting))
            continue
        if tls is not None:
            server.use_tls(tls)
        gate.configure(new)
        log.info("SIGHUP: certificates, users and roles are read again")
        others = [name for name in new.__struct_fields__ if getattr(new, name) != getattr(config, name)]
        if others := sorted(set(others) - _RELOADED):
            log.warning("SIGHUP: changes of %s take a restart", ", ".join(others))


def _tell_confinement() -> None:
    known = sandbox.version()
    if known >= 4:
        log.info("workers write into their sessions' folders alone, and only live exports use the network (Landlock)")
    elif known:
        log.warning("this kernel's Landlock (%d) leaves the network open to workers; version 4 would not", known)
    else:
        log.warning("this kernel has no Landlock: workers may write wherever the server may")


def _become(user: str | None) -> None:
    try:
        if user is not None:
            become(user)
    except OSError as error:
        raise VxError(Kind.UNAVAILABLE, f"cannot go on as process.user {user}: {error.strerror}") from None


@asynccontextmanager
async def _open_store(config: Config, results: Path) -> AsyncIterator[SqliteStore]:
    try:
        await trio.to_thread.run_sync(folders.set_aside, results, config.database)
        async with open_store(config.database, audit_s=config.lifetimes.audit_s) as store:
            yield store
    except OSError as error:
        raise VxError(Kind.UNAVAILABLE, f"state_dir {config.state_dir} cannot be used: {error.strerror}") from None


@contextmanager
def _locked(folder: Path, user: str | None) -> Iterator[None]:
    """Own the state directory, made for `user` if need be.

    VxError(UNAVAILABLE) if it cannot be had or another server has it.
    """
    as_it_is = -1
    owner = pwd.getpwnam(user).pw_uid if user is not None and os.geteuid() == 0 else as_it_is
    try:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
            os.chown(missing, owner, as_it_is)
        # A link that the user planted must not have root write elsewhere.
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise VxError(Kind.UNAVAILABLE, f"state_dir {folder} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            raise VxError(Kind.UNAVAILABLE, f"state_dir {folder} is in use by process {holder}") from None
        os.fchown(fd, owner, as_it_is)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
