"""The part `live`: what it costs to copy eight live cameras, and how soon the first frame is written.

The cameras are GStreamer's RTSP server on footage that was encoded before; all clients see the same moment, so that a
session has to wait for the next key frame, as with real ones.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from tests.media.live.cameras import missing, serving
from tools.benchmarks import build, harness, scenario
from tools.benchmarks.cameras import CAMERAS, GOP_S, access_point, camera_at, configuration, reel
from tools.benchmarks.harness import BenchError, Row, Server, note
from tools.benchmarks.media import parse_listening

_MEASURE_S = 10.0
_SETTLE_S = 2.0
_PATIENCE_S = 30.0


def live(rounds: int) -> list[Row]:
    """All rows. BenchError where something can't be measured."""
    if missing():
        raise BenchError(f"an RTSP server is needed: {missing()}")
    cameras = [camera_at(f"/{number}", reel(), shared=True) for number in range(CAMERAS)]
    with tempfile.TemporaryDirectory(prefix="vx-bench-") as name, serving(cameras) as source:
        folder = Path(name)
        text = configuration([source.url(f"/{number}") for number in range(CAMERAS)])
        config = folder / "vx.toml"
        config.write_text(f'state_dir = "{folder}/state"\n{text}')
        command = [sys.executable, "-m", "vx", "serve", "--config", str(config)]
        with (
            harness.running("vx", command, parse=parse_listening) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            return _measure(server, channel, rounds)


def _measure(server: Server, channel: Any, rounds: int) -> list[Row]:
    messages, services = scenario.load_stubs(build.make_stubs())
    export = sys.modules["axxonsoft.bl.mmexport.Export_pb2"]
    service = services.ExportServiceStub(channel)

    def begin(count: int) -> tuple[str, float]:
        """A session of so many cameras, and how long it took until its first frame was written."""
        mode = export.LiveMode(sources=[export.LiveMode.Source(origin=access_point(n)) for n in range(count)])
        options = export.Options(live=mode, stream=export.StreamType(format=export.StreamType.MKV))
        begin_s = time.perf_counter()
        request = messages.StartSessionRequest(session_options=options)
        session_id: str = service.StartSession(request).started_session_id
        ask = messages.GetSessionStateRequest(session_id=session_id)
        while not service.GetSessionState(ask).session_state.last_frame_timestamp:
            if time.perf_counter() - begin_s > _PATIENCE_S:
                raise BenchError("a session wrote nothing")
            time.sleep(0.005)
        return session_id, time.perf_counter() - begin_s

    note(f"live: copy {CAMERAS} cameras")
    eight, _ = begin(CAMERAS)
    time.sleep(_SETTLE_S)
    (worker,) = [pid for pid in harness.process_tree(server.pid) if _is_worker(pid, server)]
    shares = [_share(worker) for _ in range(max(2, rounds // 2))]
    note("live: the first frame")
    waits: list[float] = []
    for _ in range(max(rounds, 5)):
        session_id, wait_s = begin(1)
        waits.append(1000 * wait_s)
        service.StopSession(messages.StopSessionRequest(session_id=session_id))
    service.StopSession(messages.StopSessionRequest(session_id=eight))
    must_ms = 1000.0 * GOP_S + 300
    return [
        Row("live", f"copy {CAMERAS} cameras of 1080p25", "% of one core", "less", shares, must=25, aim=15),
        Row("live", "StartSession until the first frame is written", "ms", "less", [max(waits)], must=must_ms),
    ]


def _is_worker(pid: int, server: Server) -> bool:
    """It is a child of the fork server, which is a child of the server."""
    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    parent = int(status[1])
    if parent in (1, server.pid):
        return False
    grandparent = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
    return grandparent == server.pid


def _share(pid: int) -> float:
    clock = (~pid << 3) | 2
    before = time.clock_gettime(clock)
    begin_s = time.monotonic()
    time.sleep(_MEASURE_S)
    return 100 * (time.clock_gettime(clock) - before) / (time.monotonic() - begin_s)
