"""h2load as the client: it costs little itself, so that it is the server that is measured."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.benchmarks import scenario
from tools.benchmarks.harness import BenchError, Server, run_client

_WINDOWS = ["-w", "30", "-W", "30"]
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Load:
    """How many calls; on how many connections, how many at a time on each."""

    calls: int
    connections: int = 1
    streams: int = 1


@dataclass(frozen=True)
class Sample:
    """One run: wall time, the server's CPU time, and the bytes of the response messages."""

    seconds: float
    cpu_s: float
    data: int


def command(server: Server, path: str, body: Path, *options: str) -> list[str]:
    """The command line for calls of `path` with `body` as the request."""
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    scheme = "https" if server.tls else "http"
    return ["h2load", *_WINDOWS, *options, *headers, "-d", str(body), f"{scheme}://127.0.0.1:{server.port}{path}"]


def run(server: Server, path: str, message: bytes, load: Load, *, expected: int) -> Sample:
    """Make the calls of `load`. BenchError unless each of them got a response of exactly `expected` bytes.

    h2load knows nothing of gRPC; a call that failed, though, has fewer bytes.
    """
    with tempfile.NamedTemporaryFile(prefix="vx-request-") as body:
        body.write(scenario.framed(message))
        body.flush()
        options = ["-n", str(load.calls), "-c", str(load.connections), "-m", str(load.streams)]
        before = server.cpu_s()
        output = run_client(command(server, path, Path(body.name), *options))
        cpu_s = server.cpu_s() - before
    seconds, data = _parse(output, load.calls, server.name)
    if data != expected * load.calls:
        raise BenchError(f"{server.name}: {data} bytes came where {expected * load.calls} were due")
    return Sample(seconds, cpu_s, data)


def _parse(output: str, calls: int, name: str) -> tuple[float, int]:
    finished = re.search(r"^finished in ([\d.]+)(us|ms|s|m),", output, re.MULTILINE)
    succeeded = re.search(r"(\d+) succeeded, (\d+) failed", output)
    traffic = re.search(r"^traffic:.*\((\d+)\) data$", output, re.MULTILINE)
    if not (finished and succeeded and traffic):
        raise BenchError(f"h2load's output is not understood:\n{output}")
    if int(succeeded[1]) != calls or int(succeeded[2]):
        raise BenchError(f"{name}: of {calls} calls {succeeded[1]} succeeded:\n{output}")
    return float(finished[1]) * _UNITS[finished[2]], int(traffic[1])
