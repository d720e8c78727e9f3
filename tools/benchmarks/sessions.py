"""The part `sessions`: many small snapshots of many clients at once, with a whole server at its defaults."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tools.benchmarks import build, harness
from tools.benchmarks.harness import Better, Row, note
from tools.benchmarks.media import T0, parse_listening
from tools.benchmarks.transport import CAMERA, CONFIG
from tools.make_recordings import MEDIAMTX, Form, Piece, cut, encode
from vx.timestamps import format_timestamp

SESSIONS = 1000
CLIENTS = 50
_WARM_UP = 200
_GONE = 300
_SECONDS = 4


def sessions(rounds: int) -> list[Row]:
    """All rows. BenchError where something can't be measured."""
    stubs = build.make_stubs()
    made: list[_Round] = []
    for number in range(rounds):
        note(f"sessions: round {number + 1} of {rounds}")
        with tempfile.TemporaryDirectory(prefix="vx-bench-") as name:
            made.append(_round(Path(name), stubs))

    def row(
        what: str, unit: str, better: Better, values: list[float], must: float | None = None, aim: float | None = None
    ) -> Row:
        return Row("sessions", what, unit, better, values, must=must, aim=aim)

    what = f"{SESSIONS} snapshots of 320x192, {CLIENTS} clients"
    return [
        row(what, "sessions/s", "more", [each.rate for each in made], must=20, aim=40),
        row("… StartSession answers, p99", "ms", "less", [each.started_ms for each in made]),
        row("… until the client sees the end, p99", "s", "less", [each.ended_s for each in made]),
        row("… memory of the server for each that is kept", "KiB", "less", [each.kept_kib for each in made]),
        row(f"… growth by {_GONE} more that are destroyed", "MiB", "less", [each.leaked_mib for each in made], must=1),
    ]


@dataclass(frozen=True)
class _Round:
    rate: float
    started_ms: float
    ended_s: float
    kept_kib: float
    """For each session that is listed for its hour."""
    leaked_mib: float
    """By sessions that came and went after that."""


def _round(folder: Path, stubs: Path) -> _Round:
    pattern = folder / "rec" / MEDIAMTX
    form = Form()
    noise = np.random.default_rng(1).integers(0, 255, (form.height, form.width), np.uint8)
    footage = encode(form, _SECONDS * 25, lambda number: np.roll(noise, number, axis=1))
    cut(footage, str(pattern), T0, [Piece(0, _SECONDS * 1_000_000)])
    config = folder / "vx.toml"
    config.write_text(CONFIG.format(folder=folder, camera=CAMERA, pattern=pattern))
    command = [sys.executable, "-m", "vx", "serve", "--config", str(config)]
    with harness.running("vx", command, parse=parse_listening) as server:
        _clients(server.port, stubs, _WARM_UP)
        begin = server.rss_mib()
        kept = _clients(server.port, stubs, SESSIONS, "--keep")
        grown = server.rss_mib()
        _clients(server.port, stubs, _GONE)  # what has room for them is made by the first ones
        settled = server.rss_mib()
        _clients(server.port, stubs, _GONE)
        return _Round(
            rate=SESSIONS / kept["seconds"],
            started_ms=1000 * _p99(kept["started"]),
            ended_s=_p99(kept["ended"]),
            kept_kib=(grown - begin) * 1024 / SESSIONS,
            leaked_mib=server.rss_mib() - settled,
        )


def _clients(port: int, stubs: Path, count: int, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.benchmarks.session_clients", "--port", str(port), "--stubs", str(stubs)]
    command += ["--camera", CAMERA, "--at", format_timestamp(T0 + 2_520_000)]
    command += ["--clients", str(CLIENTS), "--sessions", str(count), *more]
    answer: dict[str, Any] = json.loads(harness.run_client(command))
    return answer


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]
