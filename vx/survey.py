"""What there is for an export before it begins: recordings of its sources, and room on the disk for its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import trio

from vx import disk
from vx.config.schema import Config
from vx.errors import Kind, VxError
from vx.estimate import LiveEstimate, bytes_needed, recorded, to_come
from vx.jobs import ClipJob, SnapshotJob, Source
from vx.session import folders
from vx.session.budget import Recorded, Survey
from vx.threads import Threads, archive_threads

_results_threads = Threads("results", 4, abandon=True)


async def survey(config: Config, results: Path, job: ClipJob | SnapshotJob, running: Mapping[str, Path]) -> Survey:
    """What a job will need, and what the disk of the results has. VxError(UNAVAILABLE) if that one is gone."""

    def look() -> tuple[int, Mapping[str, int]]:
        return disk.free(results), folders.sizes(running)

    try:
        free, written = await _results_threads.run(look)
    except OSError as error:
        raise VxError(Kind.UNAVAILABLE, f"state_dir {config.state_dir} cannot be used: {error.strerror}") from None
    found = await _find(config, job)
    return Survey(bytes_needed(job, found), free, written, found)


async def _find(config: Config, job: ClipJob | SnapshotJob) -> list[Recorded]:
    """What there is of each source, or is to come from it if it is live."""
    if job.live is not None:
        live = LiveEstimate(config.live.estimated_mbit_s * 1e6 / 8, config.lifetimes.live_stream_s)
        return [to_come(job, job.live, live)] * len(job.sources)
    found: dict[int, Recorded] = {}

    async def look(number: int, source: Source) -> None:
        found[number] = await archive_threads.run(source.pattern, recorded, job, source)

    async with trio.open_nursery() as nursery:
        for number, source in enumerate(job.sources):
            nursery.start_soon(look, number, source)
    return [found[number] for number in range(len(job.sources))]
