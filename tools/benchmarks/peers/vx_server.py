"""vx itself, from the socket to the registry and the download path, with a finished file in place of media work.

Only the worker is not the real one: it links the given file into the session's folder and reports that. The
composition is that of `vx.app.serve`.
"""

from __future__ import annotations

import cProfile
import os
import signal
import tempfile
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import trio

import vx.app  # noqa: F401  # nothing of it is called: what the real server has loaded counts in its memory
from tests.session.fakes import FakeDisk, MemoryStore
from tools.benchmarks import peers, scenario
from vx.config import Address, Config, parse
from vx.jobs import ClipJob, Ended, Event, FileDone, FileOpened, Job, PartFile, Progress
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    ArchiveMode,
    ArchiveModeSource,
    CommonSetting,
    Options,
    StreamSetting,
    StreamType,
    StreamTypeEFormat,
)
from vx.rpc.options import parse_options
from vx.rpc.server import Limits, Server, open_listener
from vx.rpc.services import ExportService
from vx.rpc.tls import server_context
from vx.session.budget import Budget
from vx.session.registry import Lifetimes, Registry
from vx.session.turns import Turns

CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
STORAGE = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
CONFIG = f"""
state_dir = "{{state_dir}}"

[[camera]]
access_point = "{CAMERA}"
display_name = "Entrance"

[[camera.archive]]
storage = "{STORAGE}"
path = "/recordings/entrance/%Y-%m-%d_%H-%M-%S-%f.mp4"
"""
_MANY = 1_000_000
"""Sessions that may run at a time: as many as the benchmark starts."""


class LinkingWorker:
    """Reports one file, which is there at once."""

    def __init__(self, job: ClipJob, file: Path) -> None:
        part = PartFile(part_name="part", name=scenario.FILE, mime_type=scenario.MIME, first_us=scenario.FIRST_US)
        target = Path(job.folder, part.name)
        target.hardlink_to(file)
        done = FileDone(
            name=part.name,
            size=target.stat().st_size,
            mime_type=part.mime_type,
            first_us=part.first_us,
            last_us=scenario.LAST_US,
        )
        self._events: list[Event] = [
            FileOpened(part=part),
            Progress(last_frame_us=scenario.LAST_US),
            done,
            Ended(succeeded=True),
        ]

    async def receive(self) -> Event | None:
        await trio.lowlevel.checkpoint()
        return self._events.pop(0) if self._events else None

    async def stop(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_exit(self) -> str:
        await trio.lowlevel.checkpoint()
        return "exit status 0"


class LinkingWorkers:
    def __init__(self, file: Path) -> None:
        self._file = file

    @asynccontextmanager
    async def open_worker(self, job: Job) -> AsyncIterator[LinkingWorker]:
        assert isinstance(job, ClipJob)
        yield LinkingWorker(job, self._file)


def clip_options(number: int) -> Options:
    """What a client with a form for it would send."""
    return Options(
        archive=ArchiveMode(
            sources=[ArchiveModeSource(origin=CAMERA, storages=[STORAGE])],
            start_timestamp=scenario.FIRST,
            end_timestamp=scenario.LAST,
        ),
        stream=StreamType(format=StreamTypeEFormat.MP4, settings=[StreamSetting(reject_audio=True)]),
        settings=[
            CommonSetting(comment=f"Incident {number}: person at the side door, asked for by the insurance"),
            CommonSetting(timezone=0),
            CommonSetting(file_name=f"incident-{number}"),
        ],
        max_file_size=4 << 30,
    )


async def start_sessions(registry: Registry, config: Config, count: int) -> str:
    """Run `count` sessions to their end; the id of the last one."""
    # Reading options takes milliseconds and is not what is measured: a hundred different ones will do.
    requests = [parse_options(clip_options(number), config) for number in range(1, min(count, 100) + 1)]
    session_id = ""
    for number in range(count):
        session_id = (await registry.start(requests[number % len(requests)])).id
    # The registry has no event for others to wait for, and stopping a session that waits for its turn would fail it.
    while any(record.state.is_running for record in registry.page(0, count)):  # noqa: ASYNC110
        await trio.sleep(0.01)
    return session_id


async def serve(arguments: Namespace, state_dir: Path) -> None:
    config = parse(CONFIG.format(state_dir=state_dir))
    lifetimes = Lifetimes(
        live_stream=300,
        running=config.lifetimes.running_s,
        completed=config.lifetimes.completed_s,
        removed=config.lifetimes.removed_s,
        stop=config.stop_timeout_s,
    )
    limits = Limits(
        max_connections=config.max_connections,
        max_connections_per_address=config.max_connections_per_address,
        max_streams=config.max_streams_per_connection,
        max_message=config.max_message_kb << 10,
        keepalive_s=config.keepalive_s,
    )
    tls = server_context(arguments.certificate, arguments.key) if arguments.certificate else None
    folder = config.state_dir / "sessions"
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            registry = Registry(
                folder,
                LinkingWorkers(arguments.file),
                MemoryStore(),
                lifetimes,
                nursery,
                turns=Turns(_MANY, 0),
                budget=Budget(),
                survey=FakeDisk().look,
            )
            session_id = await start_sessions(registry, config, arguments.sessions)
            nursery.start_soon(registry.deadlines.reap, registry.expire)
            listener = open_listener(Address("127.0.0.1", 0))
            peers.announce(listener.getsockname()[1], session_id)
            service = ExportService(registry, config)
            server = Server([service], limits, readers=service.readers, tls=tls)
            nursery.start_soon(server.serve, [listener])
            async for _ in signals:
                break
            nursery.cancel_scope.cancel()


def main() -> None:
    parser = peers.parser()
    parser.add_argument("--sessions", type=int, default=1, help="completed sessions that there are")
    parser.add_argument("--profile", type=Path, help="write what cProfile saw of the serving to this file")
    arguments = parser.parse_args()
    profile = cProfile.Profile() if arguments.profile else nullcontext()
    # Beside the file, so that it can be linked.
    with tempfile.TemporaryDirectory(prefix="vx-", dir=arguments.file.parent) as state_dir, profile:
        os.umask(0o077)
        trio.run(serve, arguments, Path(state_dir))
    if isinstance(profile, cProfile.Profile):
        profile.dump_stats(arguments.profile)


main()
