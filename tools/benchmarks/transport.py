"""The parts about the transport: `download`, `unary`, `mixed`, `memory`.

All servers of a part run throughout, idle but for the one that is asked. The bounds are those of the issue "The
transport"; rows without bounds are there for information.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from tools.benchmarks import build, h2load, harness, scenario
from tools.benchmarks.h2load import Load, Sample
from tools.benchmarks.harness import BenchError, Row, Server, interleave, note
from vx.timestamps import format_timestamp

VX, SYNC, AIO, GRPCLIB, GRPCLIB_UPB, CPP = "vx", "grpcio sync", "grpc.aio", "grpclib", "grpclib+upb", "C++ gRPC"
MIB = 1 << 20
FILE_SIZE = 1024 * MIB
PART_SIZE = 256 * MIB
"""What is downloaded where the whole file would take too long."""
SLOW_DISK_MS = 20
_MIXED_S = 3.0
_MIXED_RATE = 300.0
_TOP = 25
_DROPS = 50


@dataclass(frozen=True)
class Tls:
    """A server's certificate and its key, PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Bench:
    """What the parts of one run share."""

    file: Path
    sha256: str
    stubs: Path
    messages: Any
    cpp_server: Path | None
    rounds: int

    def command(
        self, name: str, *, tls: Tls | None = None, profile: Path | None = None, sessions: int = 1
    ) -> list[str]:
        """How the server of that name is started."""
        module, *options = {
            VX: ("vx_server", "--sessions", str(sessions)),
            SYNC: ("grpcio_sync",),
            AIO: ("grpcio_aio",),
            GRPCLIB: ("grpclib_asyncio",),
            GRPCLIB_UPB: ("grpclib_asyncio", "--google"),
        }[name]
        if profile:
            options += ["--profile", str(profile)]
        if tls:
            options += ["--certificate", str(tls.certificate), "--key", str(tls.key)]
        return [
            *(sys.executable, "-m", f"tools.benchmarks.peers.{module}", *options),
            *("--file", str(self.file), "--stubs", str(self.stubs)),
        ]

    @contextmanager
    def servers(self, *names: str, tls: Tls | None = None, slow_disk: Path | None = None) -> Iterator[list[Server]]:
        """Run these servers; a peer that there is not on this machine is left out."""
        environment = {"LD_PRELOAD": str(slow_disk), "SLOW_DISK_MS": str(SLOW_DISK_MS)} if slow_disk else {}
        with ExitStack() as stack:
            servers = []
            for name in names:
                if name == CPP:
                    if self.cpp_server is None:
                        continue
                    state = Path(stack.enter_context(tempfile.TemporaryDirectory()), "state")
                    state.write_bytes(scenario.completed_state(self.messages, FILE_SIZE).SerializeToString())
                    command = [str(self.cpp_server), str(self.file), str(state), scenario.PEER_SESSION]
                    if tls:
                        command += [str(tls.certificate), str(tls.key)]
                else:
                    command = self.command(name, tls=tls)
                parse = _parse_listening if name == VX else None
                server = harness.running(name, command, environment=environment, tls=tls is not None, parse=parse)
                servers.append(stack.enter_context(server))
            yield servers

    def download_request(self, server: Server, chunk_kb: int, first: int = 0) -> bytes:
        request = self.messages.DownloadFileRequest(
            session_id=server.session, file_path=scenario.FILE, chunk_size_kb=chunk_kb, start_from_chunk_index=first
        )
        return bytes(request.SerializeToString())

    def state_request(self, server: Server) -> bytes:
        return bytes(self.messages.GetSessionStateRequest(session_id=server.session).SerializeToString())

    def grpcio_client(self, server: Server, what: str, *options: str) -> dict[str, Any]:
        """What a client with grpcio's defaults found."""
        command = [sys.executable, "-m", "tools.benchmarks.grpcio_client", what, *options]
        command += ["--port", str(server.port), "--session", server.session, "--stubs", str(self.stubs)]
        result: dict[str, Any] = json.loads(harness.run_client(command))
        return result

    def probe(
        self, server: Server, path: str, message: bytes, seconds: float, rate: float, *options: str
    ) -> list[float]:
        """Times of single calls, in ms."""
        command = [sys.executable, "-m", "tools.benchmarks.probe", "--port", str(server.port), "--path", path]
        command += ["--message", message.hex(), "--seconds", str(seconds), "--rate", str(rate), *options]
        return [1000 * value for value in json.loads(harness.run_client(command))["seconds"]]


@contextmanager
def open_bench(rounds: int) -> Iterator[Bench]:
    """Build what there is to build, and make the file."""
    stubs = build.make_stubs()
    cpp_server = None
    try:
        cpp_server = build.make_cpp_server()
    except build.BuildError as error:
        note(f"Without the C++ peer: {error}")
    messages, _ = scenario.load_stubs(stubs)
    with tempfile.TemporaryDirectory(prefix="vx-bench-") as folder:
        file = Path(folder, scenario.FILE)
        note(f"Making a file of {FILE_SIZE // MIB} MiB …")
        yield Bench(file, make_file(file), stubs, messages, cpp_server, rounds)


def make_file(path: Path) -> str:
    """Random bytes, on the disk and in the page cache; their hash."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(FILE_SIZE // (16 * MIB)):
            block = os.urandom(16 * MIB)
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())  # no writing back while something is measured; and only clean pages can be dropped
    return digest.hexdigest()


# ---- download


@dataclass(frozen=True)
class Transfer:
    """A way to download: so many connections with so many streams, each of which takes the file's last `size` bytes."""

    chunk_kb: int
    streams: int = 1
    connections: int = 1
    size: int = FILE_SIZE

    def __str__(self) -> str:
        return f"{self.chunk_kb} KiB chunks, {self.connections} x {self.streams} streams of {self.size // MIB} MiB"

    def run(self, bench: Bench, server: Server) -> Sample:
        chunk = self.chunk_kb * 1024
        first = (FILE_SIZE - self.size) // chunk
        load = Load(self.streams * self.connections, self.connections, self.streams)
        expected = scenario.wire_size(FILE_SIZE, chunk, first)
        return h2load.run(
            server, scenario.DOWNLOAD, bench.download_request(server, self.chunk_kb, first), load, expected=expected
        )


def download(bench: Bench) -> list[Row]:
    """MB/s (10^6 bytes) and CPU seconds per GB (10^9 bytes) of downloads."""
    rows: list[Row] = []
    with bench.servers(VX, SYNC, AIO, GRPCLIB, CPP) as servers:
        check(bench, servers)
        by_name = {server.name: server for server in servers}

        def compare(transfer: Transfer, *names: str) -> dict[str, list[Sample]]:
            chosen = [by_name[name] for name in (VX, *names) if name in by_name]
            note(f"download: {transfer}")
            return interleave(chosen, lambda server: transfer.run(bench, server), bench.rounds)

        def speed(what: str, samples: dict[str, list[Sample]], peer: str, *bounds: float) -> None:
            if peer in samples:
                rows.append(_row("download", what, "MB/s", "more", samples, peer, _speed, bounds))

        def cpu(what: str, samples: dict[str, list[Sample]], peer: str, *bounds: float) -> None:
            if peer in samples:
                rows.append(_row("download", what, "CPU s/GB", "less", samples, peer, _cpu, bounds))

        small = compare(Transfer(64), SYNC, CPP)
        speed("64 KiB chunks", small, SYNC, 1.5, 1.8)
        cpu("64 KiB chunks", small, SYNC, 1 / 3, 1 / 4)
        speed("64 KiB chunks, 1 stream", small, CPP, 0.9, 1.0)
        many = compare(Transfer(64, streams=8, size=PART_SIZE), SYNC, CPP)
        speed("64 KiB chunks, 8 streams", many, CPP, 0.75, 1.0)
        large = compare(Transfer(1024), SYNC, CPP)
        speed("1 MiB chunks", large, SYNC, 0.9, 1.1)
        cpu("1 MiB chunks", large, SYNC, 0.75, 0.5)

        cpu("64 KiB chunks, 1 stream", small, CPP)
        speed("1 MiB chunks", large, CPP)
        speed("64 KiB chunks, 8 streams", many, SYNC)
        clients = compare(Transfer(64, connections=8, size=PART_SIZE), SYNC, CPP)
        speed("64 KiB chunks, 8 connections", clients, CPP)
        speed("64 KiB chunks, 8 connections", clients, SYNC)
        others = compare(Transfer(64, size=PART_SIZE), AIO, GRPCLIB)
        for peer in (AIO, GRPCLIB):
            speed("64 KiB chunks", others, peer)
            cpu("64 KiB chunks", others, peer)
        note("download: grpcio as the client")
        chosen = [by_name[name] for name in (VX, SYNC, CPP) if name in by_name]
        user = interleave(chosen, lambda server: _user_download(bench, server), bench.rounds)
        for peer in (SYNC, CPP):
            speed("64 KiB chunks to a grpcio client", user, peer)
    return rows + _encrypted(bench)


def _encrypted(bench: Bench) -> list[Row]:
    rows = []
    transfer = Transfer(64, size=PART_SIZE)
    with (
        tempfile.TemporaryDirectory() as folder,
        bench.servers(VX, SYNC, CPP, tls=make_certificate(Path(folder))) as servers,
    ):
        note(f"download: TLS, {transfer}")
        samples = interleave(servers, lambda server: transfer.run(bench, server), bench.rounds)
    what = "TLS, 64 KiB chunks"
    rows.append(_row("download", what, "MB/s", "more", samples, SYNC, _speed, (1.0, 1.3)))
    rows.append(_row("download", what, "CPU s/GB", "less", samples, SYNC, _cpu))
    if CPP in samples:
        rows.append(_row("download", what, "MB/s", "more", samples, CPP, _speed))
    return rows


def make_certificate(folder: Path) -> Tls:
    """A certificate for this machine, by an authority that nobody knows; the client does not ask."""
    certificate = trustme.CA().issue_cert("127.0.0.1", "localhost")
    tls = Tls(folder / "certificate.pem", folder / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tls.certificate, append=True)
    certificate.private_key_pem.write_to_path(tls.key)
    return tls


def check(bench: Bench, servers: Sequence[Server]) -> None:
    """BenchError unless each server serves the file's bytes, in order, and the session's state."""
    state = scenario.completed_state(bench.messages, FILE_SIZE).SerializeToString(deterministic=True).hex()
    for server in servers:
        note(f"checking what {server.name} serves")
        found = bench.grpcio_client(server, "check")
        if found["sha256"] != bench.sha256:
            raise BenchError(f"{server.name}: the downloaded bytes are not those of the file")
        if found["state"] != state:
            raise BenchError(f"{server.name}: another session state than the others': {found['state']}")


def _user_download(bench: Bench, server: Server) -> Sample:
    first = str((FILE_SIZE - PART_SIZE) // (64 * 1024))
    before = server.cpu_s()
    found = bench.grpcio_client(server, "download", "--first", first)
    return Sample(found["seconds"], server.cpu_s() - before, found["bytes"])


def _speed(sample: Sample) -> float:
    return sample.data / sample.seconds / 1e6


def _cpu(sample: Sample) -> float:
    return sample.cpu_s / (sample.data / 1e9)


def _row(
    part: str,
    what: str,
    unit: str,
    better: harness.Better,
    samples: dict[str, list[Any]],
    peer: str,
    value: Callable[[Any], float],
    bounds: Sequence[float] = (),
) -> Row:
    """vx against `peer`; `bounds` are must and aim."""
    ours, theirs = ([value(sample) for sample in samples[name]] for name in (VX, peer))
    must, aim = bounds or (None, None)
    return Row(part, what, unit, better, ours, peer, theirs, must, aim)


# ---- unary

_STATE_CALLS = {VX: 6000, CPP: 40_000}
_STATE_CALLS_OF_OTHERS = 4000


def unary(bench: Bench) -> list[Row]:
    """Calls that are answered at once: GetSessionState, and the first page of ListSessions."""
    expected = len(scenario.framed(scenario.completed_state(bench.messages, FILE_SIZE).SerializeToString()))
    rows: list[Row] = []
    with bench.servers(VX, GRPCLIB, GRPCLIB_UPB, SYNC, AIO, CPP) as servers:

        def compare(connections: int, streams: int, share: float, chosen: Sequence[Server]) -> dict[str, list[Sample]]:
            def measure(server: Server) -> Sample:
                calls = int(share * _STATE_CALLS.get(server.name, _STATE_CALLS_OF_OTHERS))
                load = Load(calls, connections, streams)
                return h2load.run(server, scenario.STATE, bench.state_request(server), load, expected=expected)

            note(f"unary: {connections} connections, {streams} calls at a time on each")
            return interleave(chosen, measure, bench.rounds)

        def rate(sample: Sample) -> float:
            return sample.data / expected / sample.seconds

        def cpu_us(sample: Sample) -> float:
            return sample.cpu_s / (sample.data / expected) * 1e6

        busy = compare(8, 4, 1.0, servers)
        what = "GetSessionState, 8 x 4 calls at a time"
        rows.append(_row("unary", what, "calls/s", "more", busy, GRPCLIB, rate, (1.25, 2.0)))
        for peer in busy:
            if peer not in (VX, GRPCLIB):
                rows.append(_row("unary", what, "calls/s", "more", busy, peer, rate))
        rows.append(_row("unary", what, "CPU us/call", "less", busy, GRPCLIB, cpu_us))
        single = compare(1, 1, 0.5, servers[:2])
        rows.append(_row("unary", "GetSessionState, 1 call at a time", "calls/s", "more", single, GRPCLIB, rate))
    return rows + _first_page(bench)


def _first_page(bench: Bench) -> list[Row]:
    note("unary: preparing 10,000 sessions")
    request = bytes(bench.messages.ListSessionsRequest().SerializeToString())
    what = "ListSessions, first page of 100 of 10,000 sessions"
    with harness.running(VX, bench.command(VX, sessions=10_000), parse=_parse_listening) as server:
        times = [
            statistics.median(bench.probe(server, scenario.LIST, request, 1.0, 50, "--first-message"))
            for _ in range(bench.rounds)
        ]
        user = [1000 * seconds for seconds in bench.grpcio_client(server, "first-page")["seconds"]]
    return [
        Row("unary", what, "ms", "less", times, must=10, aim=2),
        Row("unary", f"{what}, grpcio client", "ms", "less", [statistics.median(user)]),
    ]


# ---- mixed


@dataclass(frozen=True)
class Mix:
    """Times of unary calls in ms, and the rate of the downloads beside them in MB/s."""

    times: list[float]
    rate: float

    def p99(self) -> float:
        return statistics.quantiles(self.times, n=100)[98]


def mixed(bench: Bench) -> list[Row]:
    """Unary calls while downloads run; from the page cache, and from a disk that is slow."""
    rows: list[Row] = []
    names = (VX, SYNC, AIO, CPP)
    rounds = min(bench.rounds, 3)
    with bench.servers(*names, GRPCLIB) as servers:
        note("mixed: page cache warm")
        warm = interleave(servers, lambda server: _mix(bench, server), rounds, warm_up=False)
    rows += _mixed_rows("GetSessionState p99 beside 4 downloads", warm)
    try:
        slow_disk = build.make_slow_disk()
    except build.BuildError as error:
        note(f"Without the slow disk: {error}")
        return rows
    with bench.servers(*names, slow_disk=slow_disk) as servers:
        note(f"mixed: page cache cold, each read from the disk {SLOW_DISK_MS} ms")
        cold = interleave(servers, lambda server: _cold_mix(bench, server), rounds, warm_up=False)
    return rows + _mixed_rows(f"the same, page cache cold and {SLOW_DISK_MS} ms a read", cold)


def _mixed_rows(what: str, mixes: dict[str, list[Mix]]) -> list[Row]:
    downloads = f"{what}: those downloads"
    rows = [Row("mixed", what, "ms", "less", [mix.p99() for mix in mixes[VX]], must=10, aim=3)]
    rows.append(Row("mixed", downloads, "MB/s", "more", [mix.rate for mix in mixes[VX]]))
    for peer in mixes:
        if peer != VX:
            rows.append(_row("mixed", what, "ms", "less", mixes, peer, Mix.p99))
            rows.append(_row("mixed", downloads, "MB/s", "more", mixes, peer, lambda mix: mix.rate))
    return rows


def _mix(bench: Bench, server: Server) -> Mix:
    with tempfile.NamedTemporaryFile(prefix="vx-request-") as body:
        body.write(scenario.framed(bench.download_request(server, 64)))
        body.flush()
        # Each connection begins the next download when one ends; h2load is ended after the last unary call.
        command = h2load.command(server, scenario.DOWNLOAD, Path(body.name), "-c", "4", "-m", "1", "-D", "600")
        with harness.in_background(command):
            time.sleep(0.5)
            read, begin = _bytes_read(server), time.perf_counter()
            times = bench.probe(server, scenario.STATE, bench.state_request(server), _MIXED_S, _MIXED_RATE)
            rate = (_bytes_read(server) - read) / (time.perf_counter() - begin) / 1e6
    if rate < 1:
        raise BenchError(f"{server.name}: the downloads beside the unary calls did not run")
    return Mix(times, rate)


def _bytes_read(server: Server) -> int:
    """What the server has read so far, sockets included, where next to nothing comes in."""
    return int(Path(f"/proc/{server.pid}/io").read_text().split()[1])


def _cold_mix(bench: Bench, server: Server) -> Mix:
    drop_cache(bench.file)
    return _mix(bench, server)


def drop_cache(path: Path) -> None:
    """Have the file on the disk only. BenchError if any of it stays in the page cache."""
    with path.open("rb") as file:
        os.fsync(file)  # only clean pages can be dropped
        for _ in range(_DROPS):  # a page that somebody is just reading stays
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if not cached_pages(file.fileno()):
                return
            time.sleep(0.1)
    raise BenchError(f"{path} stays in the page cache; is it on a tmpfs? (TMPDIR says where it is made)")


def cached_pages(fd: int) -> int:
    """Pages of a file that are in the page cache, by mincore(2): to try to read them has the kernel read ahead."""
    size = os.fstat(fd).st_size
    if not size:
        return 0
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with mmap.mmap(fd, size, access=mmap.ACCESS_COPY) as mapping:
        first = ctypes.c_ubyte.from_buffer(mapping)
        failed = _libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), pages)
        del first  # it keeps the mapping from being closed
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in pages)


_libc = ctypes.CDLL(None, use_errno=True)


# ---- memory


def memory(bench: Bench) -> list[Row]:
    """Resident memory: at its peak under downloads, idle, and with what a session leaves behind."""
    what = "RSS at its peak, 8 streams of 1 MiB chunks"
    transfer = Transfer(1024, streams=8, size=PART_SIZE)
    rows = []
    with bench.servers(VX, SYNC, CPP) as servers:
        for server in servers:
            note(f"memory: {transfer} from {server.name}")
            peaks = []
            for _ in range(3):
                server.reset_peak()
                transfer.run(bench, server)
                peaks.append(server.peak_mib())
            if server.name == VX:
                rows.append(Row("memory", what, "MiB", "less", peaks, must=45, aim=40))
            else:
                rows.append(Row("memory", f"{what}: {server.name}", "MiB", "less", peaks))
    return rows + _idle(bench)


def _idle(bench: Bench) -> list[Row]:
    note("memory: the real server before and after a session")
    with tempfile.TemporaryDirectory(prefix="vx-bench-") as name:
        folder = Path(name)
        made = json.loads(harness.run_client([sys.executable, "tools/make_recordings.py", str(folder / "recordings")]))
        camera = made["cameras"][0]
        config = folder / "vx.toml"
        config.write_text(CONFIG.format(folder=folder, camera=CAMERA, pattern=camera["pattern"]))
        command = [sys.executable, "-m", "vx", "serve", "--config", str(config)]
        with harness.running(VX, command, parse=_parse_listening) as server:
            begin, end = (format_timestamp(made[key]) for key in ("start_us", "end_us"))
            idle = server.rss_mib()
            bench.grpcio_client(server, "export", "--camera", CAMERA, "--begin", begin, "--end", end)
            after, together = server.rss_mib(), server.tree_pss_mib()
    return [
        Row("memory", "RSS of the server process, idle", "MiB", "less", [idle], must=45, aim=35),
        Row("memory", "PSS of all processes, idle after a session", "MiB", "less", [together], must=90, aim=50),
        Row("memory", "RSS of the server process, idle after a session", "MiB", "less", [after]),
    ]


def _parse_listening(line: str) -> tuple[int, str]:
    return int(line.rpartition(":")[2]), scenario.PEER_SESSION


CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
CONFIG = """
listen = ["127.0.0.1:0"]
state_dir = "{folder}/state"

[[camera]]
access_point = "{camera}"

[[camera.archive]]
storage = "hosts/Server1/MultimediaStorage.Files/MultimediaStorage"
path = "{pattern}"
"""


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "download": download,
    "unary": unary,
    "mixed": mixed,
    "memory": memory,
}


# ---- profiles


def profile(bench: Bench, part: str) -> str:
    """What vx spends its time with in that part: cProfile's view, which makes calls of functions look dearer."""
    runs: dict[str, tuple[int, Callable[[Server], object]]] = {}
    if part in ("download", "memory"):
        runs["64 KiB chunks"] = 1, lambda server: Transfer(64).run(bench, server)
        runs["1 MiB chunks"] = 1, lambda server: Transfer(1024).run(bench, server)
        runs["64 KiB chunks, 8 streams"] = 1, lambda server: Transfer(64, streams=8, size=PART_SIZE).run(bench, server)
    if part == "unary":
        expected = len(scenario.framed(scenario.completed_state(bench.messages, FILE_SIZE).SerializeToString()))
        load = Load(3000, 8, 4)
        runs["GetSessionState"] = (
            1,
            lambda server: h2load.run(server, scenario.STATE, bench.state_request(server), load, expected=expected),
        )
        runs["ListSessions, first page"] = 1000, lambda server: bench.grpcio_client(server, "first-page")
    if part == "mixed":
        runs["unary calls beside 4 downloads"] = 1, lambda server: _mix(bench, server)
    texts = []
    for label, (sessions, run) in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "profile")
            command = bench.command(VX, profile=path, sessions=sessions)
            with harness.running(VX, command, parse=_parse_listening) as server:
                run(server)
            texts.append(f"\n{label}\n{_top(path)}")
    return "\n".join(texts)


def _top(path: Path) -> str:
    from io import StringIO

    output = StringIO()
    pstats.Stats(str(path), stream=output).strip_dirs().sort_stats("tottime").print_stats(_TOP)
    return output.getvalue()
