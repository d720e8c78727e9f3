"""The part `virtual`: an hour of 1080p served from its recordings, against ffmpeg's copy and vx's own.

The recordings are 1080p25 at 4 Mbit/s with sound, flat and in fragments of a second, of 10 s, a minute and an hour;
each set takes 1.9 GB and is removed when it has been measured.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tools.benchmarks import build, h2load, harness, scenario
from tools.benchmarks.harness import BenchError, Row, note
from tools.benchmarks.media import T0, minute, parse_listening
from tools.benchmarks.transport import drop_cache
from tools.make_recordings import MEDIAMTX, segment_path
from vx.timestamps import format_timestamp

SECOND = 1_000_000
_HOUR_S = 3600
_FFMPEG = "ffmpeg -v error -nostdin -y"
_FRAGMENTS = "-movflags delay_moov+default_base_moof -frag_duration 1000000"
_LENGTHS = {"10 s": 10, "1 min": 60, "1 h": _HOUR_S}
_CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
_CONFIG = """
listen = ["127.0.0.1:0"]
state_dir = "{state}"

[media]
virtual = "{virtual}"

[[camera]]
access_point = "{camera}"

[[camera.archive]]
storage = "hosts/Server1/MultimediaStorage.Files/MultimediaStorage"
path = "{pattern}"
"""
_CHUNK_KB = 1024
_CLIPS = 4


def virtual(rounds: int, sets: str = "") -> list[Row]:
    """The rows of all sets of recordings, or of those that `sets` is a part of the name of, like `10 s`.

    BenchError where something can't be measured.
    """
    if not shutil.which("ffmpeg") or not shutil.which("h2load"):
        raise BenchError("ffmpeg and h2load are needed; on Debian, as root: apt-get install ffmpeg nghttp2-client")
    rows: list[Row] = []
    for kind in ("flat", "fragments"):
        for length, seconds in _LENGTHS.items():
            if sets not in f"{kind}, {length}":
                continue
            with tempfile.TemporaryDirectory(prefix="vx-bench-") as name:
                note(f"virtual: {kind}, {length}")
                recordings = _record(Path(name), kind, seconds)
                with _Servers(Path(name), recordings) as servers:
                    rows += _measure(servers, recordings, f"{kind}, {length}", rounds)
    return rows


@dataclass(frozen=True)
class _Recordings:
    pattern: Path
    paths: list[Path]
    list: Path
    """For ffmpeg's concat demuxer."""


def _record(folder: Path, kind: str, seconds: int) -> _Recordings:
    """An hour of recordings, all of them the same stretch."""
    recorded = minute()
    stretch = folder / "stretch.mp4"
    form = _FRAGMENTS if kind == "fragments" else ""
    if seconds > 60:
        again = folder / "again.txt"
        again.write_text(f"file '{recorded}'\n" * (seconds // 60))
        source = f"-f concat -safe 0 -i {again}"
    else:
        source = f"-i {recorded} -t {seconds}"
    harness.run_client([*f"{_FFMPEG} {source} -c copy {form}".split(), str(stretch)])
    paths = []
    pattern = folder / "rec" / MEDIAMTX
    long_ago = time.time() - 86_400
    for number in range(_HOUR_S // seconds):
        path = segment_path(str(pattern), T0 + number * seconds * SECOND)
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(stretch, path)
        os.utime(path, (long_ago, long_ago))
        paths.append(path)
    listed = folder / "list.txt"
    listed.write_text("".join(f"file '{path}'\n" for path in paths))
    os.sync()
    return _Recordings(pattern, paths, listed)


@dataclass
class _Session:
    id: str
    file: Any
    seconds: float


@dataclass
class _Servers:
    """One that serves clips from the recordings, and one that copies them."""

    folder: Path
    recordings: _Recordings
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> _Servers:
        self._messages, self._services = scenario.load_stubs(build.make_stubs())
        self._export = sys.modules["axxonsoft.bl.mmexport.Export_pb2"]
        self.by_way = {way: self._stack.enter_context(self._serve(way)) for way in ("auto", "never")}
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def _serve(self, way: str) -> Iterator[tuple[harness.Server, Any]]:
        config = self.folder / f"{way}.toml"
        state = self.folder / f"state-{way}"
        text = _CONFIG.format(state=state, virtual=way, camera=_CAMERA, pattern=self.recordings.pattern)
        config.write_text(text)
        command = [sys.executable, "-m", "vx", "serve", "--config", str(config)]
        with (
            harness.running(f"vx {way}", command, parse=parse_listening) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            yield server, self._services.ExportServiceStub(channel)

    def export(self, way: str) -> _Session:
        """An hour's clip, until it has completed. BenchError if it fails."""
        _, service = self.by_way[way]
        archive = self._export.ArchiveMode(
            sources=[self._export.ArchiveMode.Source(origin=_CAMERA)],
            start_timestamp=format_timestamp(T0),
            end_timestamp=format_timestamp(T0 + _HOUR_S * SECOND),
        )
        stream = self._export.StreamType(format=self._export.StreamType.MP4)
        options = self._export.Options(archive=archive, stream=stream)
        begin = time.perf_counter()
        session = service.StartSession(self._messages.StartSessionRequest(session_options=options)).started_session_id
        ask = self._messages.GetSessionStateRequest(session_id=session)
        while (state := service.GetSessionState(ask).session_state).state == self._messages.S_RUNNING:
            time.sleep(0.001)
        seconds = time.perf_counter() - begin
        if not state.result.succeeded or len(state.result.files) != 1:
            raise BenchError(f"an export of vx {way} failed: {state}")
        return _Session(session, state.result.files[0], seconds)

    def destroy(self, way: str, session: _Session) -> None:
        self.by_way[way][1].DestroySession(self._messages.DestroySessionRequest(session_id=session.id))

    def forget(self) -> None:
        """Have the tables of no recording."""
        for entry in (self.folder / "state-auto" / "index").iterdir():
            entry.unlink()

    def made(self, session: _Session) -> int:
        """Bytes written for a virtual clip. BenchError if it isn't one."""
        made = self.folder / "state-auto" / "sessions" / session.id / session.file.path / "made"
        if not made.exists():
            raise BenchError("a clip was copied that should have been served from the recordings")
        size: int = made.stat().st_size
        return size

    def download(self, way: str, session: _Session, connections: int = 1) -> float:
        """MB/s of a download by h2load, or of several at a time."""
        server, _ = self.by_way[way]
        request = self._messages.DownloadFileRequest(
            session_id=session.id, file_path=session.file.path, chunk_size_kb=_CHUNK_KB
        ).SerializeToString()
        load = h2load.Load(connections, connections, 1)
        expected = scenario.wire_size(session.file.size, _CHUNK_KB << 10, 0)
        sample = h2load.run(server, scenario.DOWNLOAD, request, load, expected=expected)
        return sample.data / sample.seconds / 1e6


def _measure(servers: _Servers, recordings: _Recordings, what: str, rounds: int) -> Iterator[Row]:
    for path in recordings.paths:
        path.read_bytes()  # into the page cache
    servers.destroy("auto", servers.export("auto"))  # starts the fork server
    servers.destroy("never", servers.export("never"))
    warm: list[float] = []
    copying: list[float] = []
    ffmpeg: list[float] = []
    written: list[float] = []
    for _ in range(rounds):
        os.sync()  # else each one waits for what the one before it has written
        session = servers.export("auto")
        warm.append(session.seconds)
        written.append(servers.made(session) / 1e6)
        servers.destroy("auto", session)
        os.sync()
        ffmpeg.append(_concat(servers.folder, recordings))
        os.sync()
        session = servers.export("never")
        copying.append(session.seconds)
        servers.destroy("never", session)
    cold: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(max(2, rounds // 2)):
        for is_known, found in cold.items():
            if not is_known:
                servers.forget()
            for path in recordings.paths:
                drop_cache(path)
            os.sync()
            session = servers.export("auto")
            found.append(1000 * session.seconds)
            servers.destroy("auto", session)
    ours, plain = servers.export("auto"), servers.export("never")
    speeds: dict[str, list[float]] = {"auto": [], "never": []}
    pair = {"auto": ours, "never": plain}
    for number in range(rounds + 1):
        for way, session in pair.items():
            speed = servers.download(way, session)
            if number:  # the first one fills the page cache
                speeds[way].append(speed)
    server, _ = servers.by_way["auto"]
    before = server.rss_mib()
    server.reset_peak()
    servers.download("auto", ours, _CLIPS)
    more = (server.peak_mib() - before) / _CLIPS
    milliseconds = [1000 * seconds for seconds in warm]
    part = "virtual"
    yield Row(part, f"{what}: StartSession → S_COMPLETED, warm", "ms", "less", milliseconds, must=400, aim=150)
    yield Row(part, f"{what}: the same, cold", "ms", "less", cold[False], must=1000, aim=500)
    yield Row(part, f"{what}: the same, cold, with tables in the index", "ms", "less", cold[True])
    yield Row(part, f"{what}: until it is there", "s", "less", warm, "ffmpeg -c copy", ffmpeg, 1 / 15, 1 / 40)
    yield Row(part, f"{what}: until it is there", "s", "less", warm, "vx's copy", copying)
    yield Row(part, f"{what}: bytes written", "MB", "less", written, must=3)
    yield Row(part, f"{what}: DownloadFile", "MB/s", "more", speeds["auto"], "a plain file", speeds["never"], 0.7, 0.95)
    yield Row(part, f"{what}: memory for each of {_CLIPS} downloads", "MiB", "less", [more], must=20, aim=5)
    note(f"  warm {statistics.median(milliseconds):.0f} ms, cold {statistics.median(cold[False]):.0f} ms")


def _concat(folder: Path, recordings: _Recordings) -> float:
    """Seconds that ffmpeg takes to copy the same hour."""
    target = folder / "copy.mp4"
    begin = time.perf_counter()
    harness.run_client([*f"{_FFMPEG} -f concat -safe 0 -i {recordings.list} -c copy".split(), str(target)])
    seconds = time.perf_counter() - begin
    target.unlink()
    return seconds
