"""The part `media`: clips by vx's workers against ffmpeg on the same recordings.

A worker runs as in the server, forked from a fork server that has the media libraries loaded, and counts its own CPU
time from the fork on (tools.benchmarks.media_worker); ffmpeg's is that of its process. What a client waits for is
measured with a whole server.
"""

from __future__ import annotations

import contextlib
import cProfile
import io
import multiprocessing
import os
import pstats
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec

from tools.benchmarks import build, harness, scenario
from tools.benchmarks.harness import BenchError, Row, note
from tools.benchmarks.media_worker import Link, run, work
from tools.make_recordings import MEDIAMTX, segment_path
from vx.jobs import ClipJob, Coding, Source, encode
from vx.timestamps import format_timestamp
from vx.worker import ENVIRONMENT

T0 = 1_778_486_400_000_000
SECOND = 1_000_000
MINUTES = 10
_TOP = 16
HOURS = 10
"""Of recordings for the sessions that are stopped."""
_FFMPEG = "ffmpeg -v error -nostdin -y"
_MAKE = (
    f"{_FFMPEG} -f lavfi -i testsrc2=s=1920x1080:r=25 -f lavfi -i sine=440:r=48000 -t 60 -c:v libx264 "
    "-preset ultrafast -pix_fmt yuv420p -g 50 -bf 0 -b:v 4M -maxrate 4M -bufsize 8M -c:a aac -b:a 64k"
)
ENCODER = "-c:v libx264 -preset veryfast -g 50"
CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
CONFIG = """
listen = ["127.0.0.1:0"]
state_dir = "{folder}/state"

[media]
threads = 1
virtual = "never"

[[camera]]
access_point = "{camera}"

[[camera.archive]]
storage = "hosts/Server1/MultimediaStorage.Files/MultimediaStorage"
path = "{pattern}"
"""


def media(rounds: int) -> list[Row]:
    """All rows. BenchError where something can't be measured."""
    if not shutil.which("ffmpeg"):
        raise BenchError("ffmpeg is needed; on Debian, as root: apt-get install ffmpeg")
    with tempfile.TemporaryDirectory(prefix="vx-bench-") as name:
        folder = Path(name)
        recordings = Recordings(folder)
        with Workers(folder) as workers:
            rows = [
                *_copies(recordings, workers, folder, rounds),
                _exact_cut(recordings, workers, rounds),
                *_transcode(recordings, workers, rounds),
            ]
        return rows + _sessions(recordings, folder, rounds)


# ---- the recordings, and the two that work on them


OTHER_KINDS = {
    "in fragments": (".mp4", "-movflags frag_keyframe+empty_moov+default_base_moof", ""),
    "MKV": (".mkv", "", ""),
    "MPEG-TS": (".ts", "", "-bsf:a aac_adtstoasc"),
}
"""Recordings that aren't flat MP4: the end of their names, how ffmpeg writes them, and what it needs to copy them."""


class Recordings:
    """10 minutes of 1080p25 with sound in 10 segments, and as many more for 10 hours: all of them the same minute."""

    def __init__(self, folder: Path, kind: str = "") -> None:
        """`kind`: one of `OTHER_KINDS`; empty: flat MP4."""
        ending, written, self.copied = OTHER_KINDS.get(kind, (".mp4", "", ""))
        name = f"rec-{kind.replace(' ', '-')}"
        self.pattern = folder / name / Path(MEDIAMTX).with_suffix(ending)
        self.paths: list[Path] = []
        for number in range(HOURS * 60):
            path = segment_path(str(self.pattern), T0 + number * 60 * SECOND)
            path.parent.mkdir(exist_ok=True)
            if number:
                path.hardlink_to(self.paths[0])
            elif kind:
                harness.run_client([*f"{_FFMPEG} -i {minute()} -c copy {written}".split(), str(path)])
            else:
                shutil.copy(minute(), path)
            self.paths.append(path)
        self.paths[0].read_bytes()  # into the page cache
        self.list = folder / f"{name}.txt"
        self.list.write_text("".join(f"file '{path}'\n" for path in self.paths[:MINUTES]))
        self.source = Source(origin=CAMERA, name="Bench", pattern=str(self.pattern), timezone="UTC")


def minute() -> Path:
    path = build.CACHE / "media" / "minute.mp4"
    if not path.exists():
        note("Making a minute of 1080p …")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.mp4")
        harness.run_client([*_MAKE.split(), str(part)])
        part.rename(path)
    return path


@dataclass(frozen=True)
class Sample:
    cpu_s: float
    peak_mib: float


class Workers:
    """Runs jobs in forked workers, and ffmpeg; leaving the block removes what they made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        os.environ.update(ENVIRONMENT)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tools.benchmarks.media_worker"])

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder / "out", ignore_errors=True)

    def run(self, job: ClipJob) -> Sample:
        """Do the job. BenchError if it fails."""
        out = self._clear()
        ours, theirs = self._context.Pipe()
        job = msgspec.structs.replace(job, folder=str(out))
        process = self._context.Process(target=work, args=(encode(job), theirs))
        process.start()
        theirs.close()
        try:
            outcome: tuple[float, float, str] = ours.recv()
        except EOFError:
            raise BenchError("a worker died") from None
        finally:
            process.join()
        cpu_s, peak_mib, reason = outcome
        if reason:
            raise BenchError(f"a worker failed: {reason}")
        return Sample(cpu_s, peak_mib)

    def ffmpeg(self, arguments: str, name: str) -> Sample:
        """Run ffmpeg. BenchError if it fails."""
        command = [*_FFMPEG.split(), *arguments.split(), str(self._clear() / name)]
        with subprocess.Popen(command) as process:  # noqa: S603
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise BenchError(f"{' '.join(command)} failed")
        return Sample(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

    def _clear(self) -> Path:
        out = self._folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return out


def turns(ours: Callable[[], Sample], theirs: Callable[[], Sample], rounds: int) -> list[list[Sample]]:
    """A, B, B, A, A, B …; [ours, theirs]."""
    ours()
    theirs()
    samples: list[list[Sample]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            samples[which].append((ours, theirs)[which]())
    return samples


def _row(what: str, samples: Sequence[Sequence[Sample]], peer: str, must: float, aim: float) -> Row:
    ours, theirs = ([sample.cpu_s for sample in each] for each in samples)
    return Row("media", what, "CPU s", "less", ours, peer, theirs, must, aim)


# ---- CPU and memory of the workers


def clip_job(recordings: Recordings, begin_s: float, end_s: float, **options: Any) -> ClipJob:
    return ClipJob(
        folder="",
        sources=(recordings.source,),
        start_us=T0 + round(begin_s * SECOND),
        end_us=T0 + round(end_s * SECOND),
        **{"container": "mp4", **options},
    )


def _copies(recordings: Recordings, workers: Workers, folder: Path, rounds: int) -> Iterator[Row]:
    peaks: list[float] = []
    for container in ("mp4", "mkv"):
        note(f"media: copy {MINUTES} minutes into {container}")
        job = clip_job(recordings, 0, MINUTES * 60, container=container)
        command = f"-f concat -safe 0 -i {recordings.list} -c copy"
        samples = turns(
            partial(workers.run, job), partial(workers.ffmpeg, command, f"copy.{container}"), max(rounds, 5)
        )
        peaks += [sample.peak_mib for sample in samples[0]]
        yield _row(f"copy {MINUTES} minutes 1080p25, {container.upper()}", samples, "ffmpeg -c copy", 1.0, 0.8)
    yield Row("media", "peak RSS of a worker, copying", "MiB", "less", peaks, must=70, aim=60)
    for kind in OTHER_KINDS:
        note(f"media: copy recordings {kind}")
        others = Recordings(folder, kind)
        job = clip_job(others, 0, MINUTES * 60)
        command = f"-f concat -safe 0 -i {others.list} -c copy {others.copied}"
        samples = turns(partial(workers.run, job), partial(workers.ffmpeg, command, "copy.mp4"), rounds)
        what = f"the same of recordings {kind}"
        ours, theirs = ([sample.cpu_s for sample in each] for each in samples)
        yield Row("media", f"{what}, MP4", "CPU s", "less", ours, "ffmpeg -c copy", theirs)
        yield Row("media", f"{what}, peak RSS", "MiB", "less", [sample.peak_mib for sample in samples[0]])


_CUT = (31.02, 61.02)
"""Seconds; a frame that is far from key frames at both ends."""


def _exact_cut(recordings: Recordings, workers: Workers, rounds: int) -> Row:
    note("media: exact cut of half a minute")
    begin, end = _CUT
    command = (
        f"-threads 1 -ss {begin} -f concat -safe 0 -i {recordings.list} -t {end - begin} {ENCODER} -crf 24 "
        "-threads 1 -c:a copy"
    )
    job = clip_job(recordings, begin, end, coding=Coding(threads=1))
    samples = turns(partial(workers.run, job), partial(workers.ffmpeg, command, "cut.mp4"), max(2, rounds // 2))
    return _row("exact cut of 30 s", samples, "ffmpeg, all encoded", 0.1, 0.06)


def _transcode(recordings: Recordings, workers: Workers, rounds: int) -> Iterator[Row]:
    note("media: transcode half a minute")
    command = f"-threads 1 -t 30 -i {recordings.paths[0]} {ENCODER} -crf 24 -threads 1 -c:a copy"
    job = clip_job(recordings, 0, 30, coding=Coding(threads=1, video_quality="medium"))
    samples = turns(partial(workers.run, job), partial(workers.ffmpeg, command, "all.mp4"), max(3, rounds))
    yield _row("transcode 30 s to H.264 veryfast, one thread", samples, "ffmpeg", 1.05, 1.0)
    peaks = [sample.peak_mib for sample in samples[0]]
    yield Row("media", "peak RSS of a worker, transcoding 1080p", "MiB", "less", peaks, must=230, aim=200)


# ---- what a client waits for


def _sessions(recordings: Recordings, folder: Path, rounds: int) -> list[Row]:
    note("media: sessions of a whole server")
    stubs = build.make_stubs()
    messages, services = scenario.load_stubs(stubs)
    export = sys.modules["axxonsoft.bl.mmexport.Export_pb2"]
    config = folder / "vx.toml"
    config.write_text(CONFIG.format(folder=folder, camera=CAMERA, pattern=recordings.pattern))
    command = [sys.executable, "-m", "vx", "serve", "--config", str(config)]
    starts: list[float] = []
    stops: dict[str, list[float]] = {"copying": [], "encoding veryfast": []}
    with (
        harness.running("vx", command, parse=parse_listening) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        service = services.ExportServiceStub(channel)
        for number in range(rounds + 1):
            for what, waits in stops.items():
                settings = [] if what == "copying" else [export.StreamSetting(video_quality=export.C_MEDIUM)]
                start_ms, stop_ms = _session(service, messages, export, settings)
                if number:  # the first ones start the fork server
                    waits.append(stop_ms)
                    if what == "copying":
                        starts.append(start_ms)
    return [
        Row("media", "StartSession until the first frame is written", "ms", "less", starts, must=150, aim=60),
        Row("media", "StopSession, copying", "ms", "less", stops["copying"], must=100, aim=20),
        Row(
            "media", "StopSession, encoding 1080p veryfast", "ms", "less", stops["encoding veryfast"], must=300, aim=150
        ),
    ]


def _session(service: Any, messages: Any, export: Any, settings: list[Any]) -> tuple[float, float]:
    """How long a session took until its first frame was written, and how long stopping it some time after that took."""
    archive = export.ArchiveMode(
        sources=[export.ArchiveMode.Source(origin=CAMERA)],
        start_timestamp=format_timestamp(T0),
        end_timestamp=format_timestamp(T0 + HOURS * 3600 * SECOND),
    )
    stream = export.StreamType(settings=settings)
    request = messages.StartSessionRequest(session_options=export.Options(archive=archive, stream=stream))
    os.sync()  # what the session before it wrote must not be in the way
    begin = time.perf_counter()
    session_id = service.StartSession(request).started_session_id
    ask = messages.GetSessionStateRequest(session_id=session_id)
    while True:
        state = service.GetSessionState(ask).session_state
        if state.last_frame_timestamp:
            break
        if state.state != messages.S_RUNNING or time.perf_counter() - begin > 30:
            raise BenchError("a session wrote nothing")
        time.sleep(0.002)
    start_s = time.perf_counter() - begin
    time.sleep(0.3)
    begin = time.perf_counter()
    state = service.StopSession(messages.StopSessionRequest(session_id=session_id)).session_state
    stop_s = time.perf_counter() - begin
    if state.state != messages.S_COMPLETED or not state.result.succeeded or not state.result.files:
        raise BenchError(f"a session that was stopped has no result: {state}")
    with contextlib.suppress(grpc.RpcError):
        service.DestroySession(messages.DestroySessionRequest(session_id=session_id))
    return 1000 * start_s, 1000 * stop_s


def parse_listening(line: str) -> tuple[int, str]:
    return int(line.rpartition(":")[2]), ""


# ---- profiles


def profile() -> str:
    """What a copy spends its time with, for each of its two threads: cProfile's view."""
    from vx.media.packets.reading import Reader

    reader, writer = cProfile.Profile(), cProfile.Profile()
    run_reader = Reader._run
    with tempfile.TemporaryDirectory(prefix="vx-bench-") as name:
        folder = Path(name)
        (folder / "out").mkdir()
        job = clip_job(Recordings(folder), 0, MINUTES * 60)
        Reader._run = lambda self: reader.runcall(run_reader, self)  # type: ignore[method-assign]
        try:
            writer.runcall(run, msgspec.structs.replace(job, folder=str(folder / "out")), Link())
        finally:
            Reader._run = run_reader  # type: ignore[method-assign]
    texts = []
    for thread, measured in (("reader", reader), ("writer", writer)):
        output = io.StringIO()
        pstats.Stats(measured, stream=output).strip_dirs().sort_stats("tottime").print_stats(_TOP)
        texts.append(f"\ncopy of {MINUTES} minutes: the {thread}'s thread\n{output.getvalue()}")
    return "\n".join(texts)
