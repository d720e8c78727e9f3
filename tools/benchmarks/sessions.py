"""The part `sessions`: many small snapshots of many clients at once, with a whole server at its defaults."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tools.benchmarks import build, harness
from tools.benchmarks.harness import Row, note
from tools.make_recordings import MEDIAMTX, Form, Piece, cut, encode
from vx.timestamps import format_timestamp

T0 = 1_778_486_400_000_000
SESSIONS = 1000
CLIENTS = 50
_WARM_UP = 200
_SECONDS = 4
_CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
_CONFIG = """
listen = ["127.0.0.1:0"]
state_dir = "{folder}/state"

[[camera]]
access_point = "{camera}"

[[camera.archive]]
storage = "hosts/Server1/MultimediaStorage.Files/MultimediaStorage"
path = "{pattern}"
"""


def sessions(rounds: int) -> list[Row]:
    """All rows. BenchError where something can't be measured."""
    stubs = build.make_stubs()
    rate: list[float] = []
    started: list[float] = []
    ended: list[float] = []
    grown: list[float] = []
    for number in range(rounds):
        note(f"sessions: round {number + 1} of {rounds}")
        with tempfile.TemporaryDirectory(prefix="vx-bench-") as name:
            first, second, growth = _round(Path(name), stubs)
            rate += [SESSIONS / second["seconds"]]
            started += [1000 * _p99(second["started"])]
            ended += [_p99(second["ended"])]
            grown += [growth]
            assert len(first["ended"]) == _WARM_UP
    what = f"{SESSIONS} snapshots of 320x192, {CLIENTS} clients"
    return [
        Row("sessions", what, "sessions/s", "more", rate, must=20, aim=40),
        Row("sessions", "… StartSession answers, p99", "ms", "less", started),
        Row("sessions", "… from StartSession until the client sees the end, p99", "s", "less", ended),
        Row("sessions", f"… memory of the server grows by, from session {_WARM_UP} on", "MiB", "less", grown, must=4),
    ]


def _round(folder: Path, stubs: Path) -> tuple[dict[str, Any], dict[str, Any], float]:
    """What the clients say, of the warm-up and of what counts, and by how many MiB the server grew meanwhile."""
    pattern = folder / "rec" / MEDIAMTX
    form = Form()
    noise = np.random.default_rng(1).integers(0, 255, (form.height, form.width), np.uint8)
    footage = encode(form, _SECONDS * 25, lambda number: np.roll(noise, number, axis=1))
    cut(footage, str(pattern), T0, [Piece(0, _SECONDS * 1_000_000)])
    config = folder / "vx.toml"
    config.write_text(_CONFIG.format(folder=folder, camera=_CAMERA, pattern=pattern))
    command = [sys.executable, "-m", "vx", "serve", "--config", str(config)]
    with harness.running("vx", command, parse=_parse_listening) as server:
        first = _clients(server.port, stubs, _WARM_UP)
        before = server.rss_mib()
        second = _clients(server.port, stubs, SESSIONS)
        return first, second, server.rss_mib() - before


def _clients(port: int, stubs: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.benchmarks.session_clients", "--port", str(port), "--stubs", str(stubs)]
    command += ["--camera", _CAMERA, "--at", format_timestamp(T0 + 2_520_000)]
    command += ["--clients", str(CLIENTS), "--sessions", str(count)]
    answer: dict[str, Any] = json.loads(harness.run_client(command))
    return answer


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def _parse_listening(line: str) -> tuple[int, str]:
    return int(line.rpartition(":")[2]), ""
