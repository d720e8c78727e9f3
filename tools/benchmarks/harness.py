"""What every part needs: servers as child processes, clients, interleaved rounds, rows, the table."""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TextIO, TypeVar

_START_S = 120.0
_STOP_S = 10.0
_CLIENT_S = 120.0
_LEASH = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
"""Before each command: the child ends when the benchmark does, however it ends."""

T = TypeVar("T")


class BenchError(Exception):
    """Something could not be measured."""


# ---- processes


class Server:
    """A server that runs."""

    def __init__(self, name: str, process: subprocess.Popen[str], port: int, session: str, *, tls: bool) -> None:
        self.name = name
        self.port = port
        self.session = session
        self.tls = tls
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU time that the process has used, all threads, user and system.

        By the clock that Linux keeps for each process: /proc/PID/stat has it in steps of 10 ms only.
        """
        return time.clock_gettime((~self.pid << 3) | 2)

    def reset_peak(self) -> None:
        """Let `peak_mib` count from now on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_mib(self) -> float:
        return _status_kb(self.pid, "VmHWM") / 1024

    def rss_mib(self) -> float:
        return _status_kb(self.pid, "VmRSS") / 1024

    def tree_pss_mib(self) -> float:
        """Memory of the process and all its descendants, what they share counted once."""
        return sum(_pss_kb(pid) for pid in process_tree(self.pid)) / 1024


def _status_kb(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise BenchError(f"/proc has no {name}")


def _pss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def process_tree(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(path.name))
    tree = [root]
    for pid in tree:
        tree += children.get(pid, [])
    return tree


def _as_installed(environment: dict[str, str]) -> dict[str, str]:
    """Compiled modules are kept: to compile them takes time, and memory that a server would not have otherwise."""
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    tls: bool = False,
    parse: Callable[[str], tuple[int, str]] | None = None,
) -> Iterator[Server]:
    """Start a server and wait until it says that it serves; it is ended with the block.

    `parse` makes (port, session) of its first line; by default that is JSON. BenchError if it does not start.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(  # noqa: S603
            [*_LEASH, *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_as_installed({**os.environ, **(environment or {})}),
        )
        try:
            assert process.stdout is not None
            ready = select.select([process.stdout], [], [], _START_S)[0]
            line = process.stdout.readline() if ready else ""
            if not line:
                raise BenchError(f"{name} does not start; it said:\n{_tail(log)}")
            port, session = parse(line) if parse else _parse_ready(line)
            try:
                yield Server(name, process, port, session, tls=tls)
            except BenchError:
                if said := _tail(log):
                    note(f"{name} said:\n{said}")
                raise
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _tail(log: TextIO) -> str:
    log.seek(0)
    return log.read()[-2000:]


def _parse_ready(line: str) -> tuple[int, str]:
    ready = json.loads(line)
    return ready["port"], ready["session"]


def run_client(command: Sequence[str]) -> str:
    """What the client prints. BenchError if it fails or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603
            [*_LEASH, *command],
            capture_output=True,
            text=True,
            timeout=_CLIENT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end within {_CLIENT_S:g} s") from None
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command[:4])} … failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


@contextmanager
def in_background(command: Sequence[str]) -> Iterator[None]:
    """Let a client run for as long as the block does. BenchError if it ends before."""
    with subprocess.Popen([*_LEASH, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603
        try:
            yield
            if process.poll() is not None:
                output = process.stdout.read() if process.stdout else ""
                raise BenchError(f"{command[0]} ended too early:\n{output[-2000:]}")
        finally:
            process.kill()


# ---- rounds


def interleave(
    servers: Sequence[Server], measure: Callable[[Server], T], rounds: int, *, warm_up: bool = True
) -> dict[str, list[T]]:
    """`measure` of each server in turn, `rounds` times over; by the servers' names, in the order of the rounds."""
    if warm_up:
        for server in servers:
            measure(server)
    samples: dict[str, list[T]] = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            samples[server.name].append(measure(server))
    return samples


# ---- rows


Better = Literal["more", "less"]
NO = "**no**"


@dataclass(frozen=True)
class Row:
    """One line of a table: what vx was measured at, perhaps against a peer, and what it had to reach.

    `ours` and `theirs` are in `unit`, one value a round. `must` and `aim` are ratios where there is a peer, else values
    in `unit`; without them the row is there for information.
    """

    part: str
    what: str
    unit: str
    better: Better
    ours: list[float]
    peer: str = ""
    theirs: list[float] = field(default_factory=list)
    must: float | None = None
    aim: float | None = None

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)] if self.peer else []

    @property
    def value(self) -> float:
        """What `must` and `aim` are compared with."""
        return statistics.median(self.ratios or self.ours)

    @property
    def verdict(self) -> str:
        if self.must is None:
            return ""
        if self._reaches(self.aim):
            return "aim"
        return "must" if self._reaches(self.must) else NO

    def _reaches(self, bound: float | None) -> bool:
        if bound is None:
            return False
        return self.value >= bound if self.better == "more" else self.value <= bound

    def record(self) -> dict[str, object]:
        return {**asdict(self), "ratios": self.ratios, "value": self.value, "verdict": self.verdict.strip("*")}


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table: medians, the ratios' range in brackets."""
    cells = [["what", "vx", "peer", "ratio", "must", "aim", "reached"]]
    cells += [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    )


def _cells(row: Row) -> list[str]:
    times = " x" if row.peer else ""
    peer = f"{_number(statistics.median(row.theirs))} ({row.peer})" if row.peer else ""
    ratio = f"{_number(row.value)} x ({_range(row.ratios)})" if row.peer else ""
    ours = _number(statistics.median(row.ours))
    if len(row.ours) > 1 and not row.peer:
        ours += f" ({_range(row.ours)})"
    bounds = ["" if bound is None else f"{_number(bound)}{times}" for bound in (row.must, row.aim)]
    return [f"{row.what}, {row.unit}", ours, peer, ratio, *bounds, row.verdict]


def _range(values: Sequence[float]) -> str:
    return f"{_number(min(values))} to {_number(max(values))}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


# ---- the machine


def describe_machine() -> dict[str, str]:
    """What the numbers depend on."""
    libraries = ("trio", "grpclib", "h2", "betterproto", "grpcio", "protobuf")
    return {
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def note(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)
