"""vx itself: `vx serve` in a state directory in which it finds finished sessions.

What prepares that directory is another program than the one that serves, in the same process: nothing of it counts.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import trio

from tools.benchmarks import peers, scenario
from vx import model
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    ArchiveMode,
    ArchiveModeSource,
    CommonSetting,
    Options,
    StreamSetting,
    StreamType,
    StreamTypeEFormat,
)
from vx.session.store import open_store

CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
STORAGE = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
CONFIG = f"""
listen = ["127.0.0.1:0"]
state_dir = "{{state_dir}}"
log.level = "warning"

[[camera]]
access_point = "{CAMERA}"
display_name = "Entrance"

[[camera.archive]]
storage = "{STORAGE}"
path = "/recordings/entrance/%Y-%m-%d_%H-%M-%S-%f.mp4"
"""
_SAVED_AT_ONCE = 500


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


async def prepare(state_dir: Path, content: Path, count: int) -> None:
    """Leave what a server leaves that has done `count` exports, each with the same file; the last is PEER_SESSION."""
    options = [bytes(clip_options(number)) for number in range(1, min(count, 100) + 1)]
    size = os.stat(content).st_size  # noqa: PTH116  # nobody else is there to wait
    file = model.ResultFile(scenario.FILE, size, scenario.MIME, scenario.FIRST_US, scenario.LAST_US)
    async with open_store(state_dir / "vx.sqlite", audit_s=86400) as store:
        for first in range(1, count + 1, _SAVED_AT_ONCE):
            async with trio.open_nursery() as nursery:
                for number in range(first, min(first + _SAVED_AT_ONCE, count + 1)):
                    record = model.Record(
                        id=scenario.PEER_SESSION if number == count else f"{number:032d}",
                        number=number,
                        options=options[number % len(options)],
                        timezone_min=0,
                        started_us=scenario.FIRST_US,
                        state=model.State.COMPLETED,
                        last_frame_us=scenario.LAST_US,
                        files=(file,),
                        succeeded=True,
                    )
                    folder = state_dir / "sessions" / record.id
                    folder.mkdir(mode=0o700, parents=True)
                    (folder / file.id).hardlink_to(content)
                    nursery.start_soon(store.save, record, [])


def main() -> None:
    parser = peers.parser()
    parser.add_argument("--sessions", type=int, default=1, help="completed sessions that there are")
    parser.add_argument("--profile", type=Path, help="write what cProfile saw of the server to this file")
    arguments = parser.parse_args()
    # Beside the file, so that it can be linked; it is removed with it.
    state_dir = Path(tempfile.mkdtemp(prefix="vx-", dir=arguments.file.parent))
    trio.run(prepare, state_dir, arguments.file, arguments.sessions)
    config = state_dir / "vx.toml"
    text = CONFIG.format(state_dir=state_dir)
    if arguments.certificate:
        text += f'[tls]\ncertificate = "{arguments.certificate}"\nkey = "{arguments.key}"\n'
    config.write_text(text)
    profile = ["-m", "cProfile", "-o", str(arguments.profile)] if arguments.profile else []
    os.execv(sys.executable, [sys.executable, *profile, "-m", "vx", "serve", "--config", str(config)])  # noqa: S606


main()
