"""The part `pictures`: snapshots, reports, and clips that are drawn into, against ffmpeg on the same recordings.

What a client waits for is measured with a whole server, from StartSession until the result can be downloaded.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import font_roboto
import grpc
import msgspec
import numpy as np

from tools.benchmarks import build, harness, scenario
from tools.benchmarks.harness import BenchError, Row, note
from tools.benchmarks.media import (
    CAMERA,
    CONFIG,
    ENCODER,
    SECOND,
    T0,
    Recordings,
    Workers,
    clip_job,
    parse_listening,
    turns,
)
from vx.drawing import Area, Drawing, TextLook, Words
from vx.jobs import Coding
from vx.timestamps import format_timestamp

_SECONDS = 10
_MASKS = ((0.2, 0.2, 0.4, 0.5), (0.6, 0.3, 0.75, 0.6))
"""left, top, right, bottom; the crop leaves the left nine tenths."""
_CROP = 0.9
_AS_FFMPEG = "[worker]\nnice = 0\n"
"""Workers have the priority that ffmpeg has: where others use the machine, it would be measured, and nothing else."""
_ASK_S = 0.005
"""Between two questions whether a snapshot is there: the client's and the server's work on one takes 1 ms of the two
cores that decode."""
_MOMENTS = (3.24, 61.96, 125.4, 179.72, 240.0, 301.48)
"""Seconds at which snapshots are taken; most of them far behind a key frame."""


def pictures(rounds: int) -> list[Row]:
    """All rows. BenchError where something can't be measured."""
    with tempfile.TemporaryDirectory(prefix="vx-bench-") as name:
        folder = Path(name)
        recordings = Recordings(folder)
        with Workers(folder) as workers:
            rows = [_painted(recordings, workers, rounds), _subtitled(recordings, workers, rounds)]
            rows.append(_hidden(recordings, workers, folder))
        return [*_calls(recordings, folder, rounds), *rows]


# ---- clips


def _polygon(left: float, top: float, right: float, bottom: float) -> tuple[tuple[float, float], ...]:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _drawing() -> Drawing:
    masks = tuple(_polygon(*mask) for mask in _MASKS)
    return Drawing(crop=Area(0, 0, _CROP, 1), masks=masks, text=TextLook())


def _painted(recordings: Recordings, workers: Workers, rounds: int) -> Row:
    note("pictures: a clip with text, two masks and a crop")
    job = clip_job(
        recordings,
        0,
        _SECONDS,
        coding=Coding(threads=1, video_quality="medium"),
        words=Words(time_format="%Y-%b-%d %H:%M:%S.%f"),
    )
    job = msgspec.structs.replace(job, sources=(msgspec.structs.replace(job.sources[0], drawing=_drawing()),))
    boxes = ",".join(
        f"drawbox={left}*iw:{top}*ih:{right - left:.4f}*iw:{bottom - top:.4f}*ih:black:fill"
        for left, top, right, bottom in _MASKS
    )
    text = (
        f"drawtext=fontfile={font_roboto.Roboto}:fontsize=43:fontcolor=white:borderw=3:box=1:boxcolor=black@0.5:"
        r"x=(w-tw)/2:y=h-60:text='Bench__%{pts\:localtime\:1778486400}.%{n}'"
    )
    filters = f"{boxes},crop={_CROP}*iw:ih:0:0,{text}"
    command = (
        f"-threads 1 -t {_SECONDS} -i {recordings.paths[0]} -vf {filters} -filter_threads 1 {ENCODER} -crf 24 "
        "-threads 1 -c:a copy"
    )
    samples = turns(partial(workers.run, job), partial(workers.ffmpeg, command, "painted.mp4"), max(3, rounds))
    ours, theirs = ([sample.cpu_s for sample in each] for each in samples)
    what = f"{_SECONDS} s 1080p with text for each frame, two masks and a crop"
    return Row("pictures", what, "CPU s", "less", ours, "ffmpeg drawtext, drawbox", theirs, must=1.1, aim=1.0)


def _subtitled(recordings: Recordings, workers: Workers, rounds: int) -> Row:
    note("pictures: copies with subtitles and without")
    plain = clip_job(recordings, 0, 600)
    job = msgspec.structs.replace(plain, subtitles=True)
    samples = turns(partial(workers.run, job), partial(workers.run, plain), max(rounds, 5))
    ours, theirs = ([sample.cpu_s for sample in each] for each in samples)
    return Row("pictures", "copy 10 minutes with subtitles", "CPU s", "less", ours, "without", theirs)


def _hidden(recordings: Recordings, workers: Workers, folder: Path) -> Row:
    note("pictures: what is left of a picture below a mask")
    job = clip_job(recordings, 0.5, 3.5, coding=Coding(threads=1))
    drawing = Drawing(masks=tuple(_polygon(*mask) for mask in _MASKS))
    job = msgspec.structs.replace(job, sources=(msgspec.structs.replace(job.sources[0], drawing=drawing),))
    workers.run(job)
    (path,) = (folder / "out").glob("*.mp4")
    command = f"ffmpeg -v error -ignore_editlist 1 -i {path} -map 0:v -fps_mode passthrough -f rawvideo -pix_fmt gray -"
    done = subprocess.run(command.split(), capture_output=True, check=True)  # noqa: S603
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, 1080, 1920)
    left, top, right, bottom = _MASKS[0]
    margin = 16  # an encoder's filters mix in what lies outside
    rows = slice(int(top * 1080) + margin, int(bottom * 1080) - margin)
    columns = slice(int(left * 1920) + margin, int(right * 1920) - margin)
    worst = float(frames[:, rows, columns].astype(np.float32).var(axis=(1, 2)).max())
    what = f"variance in a mask, the worst of {len(frames)} frames"
    return Row("pictures", what, "grey levels squared", "less", [worst], must=1, aim=0.1)


# ---- what a client waits for


def _calls(recordings: Recordings, folder: Path, rounds: int) -> Iterator[Row]:
    note("pictures: snapshots of a whole server")
    messages, services = scenario.load_stubs(build.make_stubs())
    export = sys.modules["axxonsoft.bl.mmexport.Export_pb2"]
    config = folder / "vx.toml"
    config.write_text(CONFIG.format(folder=folder, camera=CAMERA, pattern=recordings.pattern) + _AS_FFMPEG)
    command = [sys.executable, "-m", "vx", "serve", "--config", str(config)]
    jpegs: list[float] = []
    pdfs: list[float] = []
    theirs: list[float] = []
    added: list[float] = []
    with (
        harness.running("vx", command, parse=parse_listening) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        service = services.ExportServiceStub(channel)
        for number in range(rounds + 1):
            for at in _MOMENTS:
                jpeg_ms, jpeg_size = _snapshot(service, messages, export, export.SnapshotType.JPEG, at)
                pdf_ms, pdf_size = _snapshot(service, messages, export, export.SnapshotType.PDF, at)
                ffmpeg_ms = _ffmpeg(recordings, at, folder)
                if number:  # the first ones start the fork server
                    jpegs.append(jpeg_ms)
                    pdfs.append(pdf_ms - jpeg_ms)
                    theirs.append(ffmpeg_ms)
                    added.append((pdf_size - jpeg_size) / 1024)
    yield Row(
        "pictures", "snapshot, the whole call", "ms", "less", jpegs, "ffmpeg -ss -frames:v 1", theirs, must=0.6, aim=0.4
    )
    yield Row("pictures", "a PDF page, beyond its JPEG", "ms", "less", pdfs, must=100, aim=40)
    yield Row("pictures", "a PDF page, beyond its JPEG", "KiB", "less", added, must=20, aim=3)


def _snapshot(service: Any, messages: Any, export: Any, form: int, at: float) -> tuple[float, int]:
    """(milliseconds until it can be downloaded, its size)."""
    sources = [export.ArchiveMode.Source(origin=CAMERA)]
    archive = export.ArchiveMode(sources=sources, start_timestamp=format_timestamp(T0 + round(at * SECOND)))
    options = export.Options(archive=archive, snapshot=export.SnapshotType(format=form))
    begin = time.perf_counter()
    session_id = service.StartSession(messages.StartSessionRequest(session_options=options)).started_session_id
    ask = messages.GetSessionStateRequest(session_id=session_id)
    while (state := service.GetSessionState(ask).session_state).state == messages.S_RUNNING:
        time.sleep(_ASK_S)
    took_s = time.perf_counter() - begin
    if not state.result.succeeded:
        raise BenchError(f"a snapshot has no result: {state}")
    service.DestroySession(messages.DestroySessionRequest(session_id=session_id))
    return 1000 * took_s, state.result.files[0].size


def _ffmpeg(recordings: Recordings, at: float, folder: Path) -> float:
    minute, second = divmod(at, 60)
    command = (
        f"ffmpeg -v error -nostdin -y -ss {second:.3f} -i {recordings.paths[int(minute)]} -frames:v 1 -q:v 2 "
        f"{folder}/snapshot.jpg"
    )
    begin = time.perf_counter()
    subprocess.run(command.split(), check=True)  # noqa: S603
    return 1000 * (time.perf_counter() - begin)
