"""Clients that mean no good, by hand: what they send is bytes, and they need not read what they get.

For a server in a process of its own there are blocking sockets, so that nothing of the test's own can be what is slow;
for a connection in memory there is a wire without a socket.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
import trio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.rpc.probe import LIMIT_S, SERVICE, Probe
from tests.rpc.watched import NOTABLE_MS
from vx.access.gate import Peer
from vx.model import Record, ResultFile, State
from vx.rpc.calls import Arrivals, CallHandler, Readers
from vx.rpc.connection import Connection
from vx.rpc.guard import admit_all
from vx.rpc.wire import Buffer
from vx.session.store import open_store

ROOT = Path(__file__).resolve().parent.parent.parent
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GREETING = PREFACE + SettingsFrame(0).serialize() + SettingsFrame(0, flags=["ACK"]).serialize()
"""What makes the server take us for a client; the acknowledgement may come before what it acknowledges."""

HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"


# ---- bytes


def fields(path: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """Headers of a call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]


def block(headers: Sequence[tuple[str, str]]) -> bytes:
    """Headers in a form that needs and leaves nothing in the receiver's table."""
    never_indexed = [hpack.NeverIndexedHeaderTuple(name, value) for name, value in headers]
    return hpack.Encoder().encode(never_indexed, huffman=False)


def headers(stream_id: int, data: bytes, *flags: str) -> bytes:
    return HeadersFrame(stream_id, data, flags=["END_HEADERS", *flags]).serialize()


def data(stream_id: int, payload: bytes, *flags: str) -> bytes:
    return DataFrame(stream_id, payload, flags=flags).serialize()


def update(stream_id: int, increment: int) -> bytes:
    return WindowUpdateFrame(stream_id, window_increment=increment).serialize()


def raw_frame(kind: int, stream_id: int = 0, payload: bytes = b"", *, flags: int = 0, size: int | None = None) -> bytes:
    """A frame of any type, with a length that may be a lie."""
    length = len(payload) if size is None else size
    return struct.pack("!HBBBL", length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def continuations(stream_id: int, count: int, payload: bytes = b"") -> bytes:
    return ContinuationFrame(stream_id, payload).serialize() * count


def prefixed(body: bytes) -> bytes:
    """A message as gRPC frames it."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def parse_frames(received: bytes) -> list[Frame]:
    """All frames in what a server sent; AssertionError if it is not frames from the first byte to the last."""
    found = []
    view = memoryview(received)
    while view:
        assert len(view) >= 9, f"{len(view)} bytes are no frame"
        frame, length = Frame.parse_frame_header(view[:9], strict=True)
        assert len(view) >= 9 + length, f"{frame} is cut off"
        frame.parse_body(view[9 : 9 + length])
        found.append(frame)
        view = view[9 + length :]
    return found


def count_data(frames: Sequence[Frame]) -> int:
    """Bytes of DATA."""
    return sum(len(frame.data) for frame in frames if isinstance(frame, DataFrame))


def count_ended(frames: Sequence[Frame]) -> int:
    """Streams that the server has ended."""
    return sum("END_STREAM" in frame.flags for frame in frames)


# ---- a server in a process of its own


class ServerProcess:
    """A server that is nothing but one, and what the system knows of it."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path, passes: Path) -> None:
        self._process = process
        self._log = log
        self._passes = passes
        self._passes_seen = 0
        self.port = port
        self.sockets_at_first = self.sockets
        """Its listener, and those by which it wakes itself."""

    def _status(self, key: str) -> int:
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"{key}:\s+(\d+)", text)
        assert found
        return int(found[1])

    @property
    def peak_mib(self) -> float:
        """The most memory that it ever had resident."""
        return self._status("VmHWM") / 1024

    def longest_pass_ms(self) -> float:
        """The longest pass of its event loop since the last time that this was asked, see `tests.rpc.watched`."""
        lines = self._passes.read_text().splitlines()
        seen, self._passes_seen = self._passes_seen, len(lines)
        return max(map(float, lines[seen:]), default=NOTABLE_MS)

    @property
    def sockets(self) -> int:
        """Sockets that it has open."""
        links = Path(f"/proc/{self._process.pid}/fd").iterdir()
        found = 0
        for link in links:
            with contextlib.suppress(FileNotFoundError):
                found += str(link.readlink()).startswith("socket:")
        return found

    def wait_sockets(self, count: int) -> None:
        """Wait until it has no more than `count` sockets."""
        with Bystander(self.port) as bystander:
            bystander.call_until(lambda: self.sockets - 1 <= count)

    def stop(self) -> None:
        """SIGTERM, and look at what it leaves behind: status 0, and no traceback in its log."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(LIMIT_S)
        log = self._log.read_text()
        assert "Traceback" not in log, log
        assert status in (0, -signal.SIGTERM), log


@contextlib.contextmanager
def app_process(folder: Path, *options: str, more_config: str = "") -> Iterator[ServerProcess]:
    """vx itself, see `tests.rpc.watched` for the options."""
    config, log, passes = folder / "vx.toml", folder / "log", folder / "passes"
    config.write_text(f'listen = ["127.0.0.1:0"]\nstate_dir = "{folder}/state"\n{more_config}')
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.rpc.watched", str(config), str(passes), *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("listening on "), log.read_text()
            server = ServerProcess(process, int(line.rpartition(":")[2]), log, passes)
            yield server
            server.stop()
        finally:
            process.kill()


def finished_session(state_dir: Path, *, size: int) -> tuple[str, str]:
    """Have the next server find a completed session with one file, of zeros; its id and the file's name."""
    file = ResultFile("clip.mp4", size, "video/mp4", 0, 1)
    record = Record("f" * 32, 1, b"", 0, 0, state=State.COMPLETED, files=(file,), succeeded=True)
    folder = state_dir / "sessions" / record.id
    folder.mkdir(parents=True)
    with (folder / file.id).open("wb") as content:
        content.truncate(size)

    async def save() -> None:
        async with open_store(state_dir / "vx.sqlite", audit_s=3600) as store:
            await store.save(record, [])

    trio.run(save)
    return record.id, file.name


# ---- clients of it


def _connect(port: int, tls: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(sock, server_hostname="localhost") if tls else sock


class Hostile:
    """A connection on which bytes are sent; what comes back is read when the test says so."""

    def __init__(self, port: int, greeting: bytes = GREETING, *, tls: ssl.SSLContext | None = None) -> None:
        self._sock = _connect(port, tls)
        self.send(greeting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, payload: bytes) -> None:
        """Send all of it, or as much as the server takes before it ends the connection."""
        with contextlib.suppress(ConnectionError):
            self._sock.sendall(payload)

    def read_to_end(self) -> list[Frame]:
        """All that the server sent until it ended the connection."""
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while chunk := self._sock.recv(1 << 20):
                received += chunk
        return parse_frames(bytes(received))

    def wait_answer(self) -> None:
        """Wait until the server has answered something."""
        assert self._sock.recv(1 << 20)

    def goaway(self) -> GoAwayFrame:
        """The last words of a server that ends the connection."""
        last = self.read_to_end()[-1]
        assert isinstance(last, GoAwayFrame), last
        return last

    def vanish(self) -> None:
        """End the connection by a reset, as a peer that crashed."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


class Client:
    """A well-behaved client, with blocking calls."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._sock = _connect(port, tls)
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self._h2.initiate_connection()
        self._answers: dict[int, dict[str, str]] = {}
        self._ended: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def begin(self, path: str, *more: tuple[str, str]) -> int:
        stream_id = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream_id, fields(path, *more))
        return stream_id

    def send_message(self, stream_id: int, body: bytes) -> None:
        self._h2.send_data(stream_id, prefixed(body), end_stream=True)

    def pour(self, payloads: dict[int, bytes]) -> None:
        """Send these bytes on these streams as far as the windows go, until none is left or none can be sent."""
        left = {stream_id: memoryview(payload) for stream_id, payload in payloads.items()}
        self._flush()
        while left:
            sent = 0
            for stream_id in list(left):
                try:
                    size = min(self._h2.local_flow_control_window(stream_id), 16384, len(left[stream_id]))
                    if size:
                        self._h2.send_data(stream_id, bytes(left[stream_id][:size]))
                except h2.exceptions.StreamClosedError:
                    size = len(left[stream_id])  # it has been answered already
                left[stream_id] = left[stream_id][size:]
                sent += size
                if not left[stream_id]:
                    del left[stream_id]
            self._flush()
            if left and not sent and not self._receive():
                return

    def answers(self, stream_ids: list[int]) -> dict[int, dict[str, str]]:
        """Headers and trailers of these calls, once all have ended."""
        self._flush()
        while not self._ended.issuperset(stream_ids):
            assert self._receive(), "the server ended the connection"
        return {stream_id: self._answers.get(stream_id, {}) for stream_id in stream_ids}

    def call(self, path: str = HEALTH, body: bytes = b"", *more: tuple[str, str]) -> dict[str, str]:
        """Headers and trailers of a call with one request."""
        stream_id = self.begin(path, *more)
        self.send_message(stream_id, body)
        return self.answers([stream_id])[stream_id]

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())

    def _receive(self) -> bool:
        """Take what comes; False at the end of the connection."""
        received = self._sock.recv(65536)
        for event in self._h2.receive_data(received):
            match event:
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    found = self._answers.setdefault(event.stream_id, {})
                    found.update((str(name), str(value)) for name, value in event.headers or ())
                case h2.events.StreamEnded() | h2.events.StreamReset():
                    self._ended.add(event.stream_id)
        self._flush()
        return bool(received)


class Bystander(Client):
    """Somebody else's client: its calls are to be answered all the time."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(port, tls=tls)
        self.latencies_ms: list[float] = []

    def call(self, *args: Any) -> dict[str, str]:
        begun = time.perf_counter()
        answer = super().call(*args)
        self.latencies_ms.append((time.perf_counter() - begun) * 1000)
        assert answer["grpc-status"] == "0"
        return answer

    def call_during(self, *attacks: Callable[[], None]) -> None:
        """Run the attacks in threads and call all the while, and a few times more."""
        failures: list[BaseException] = []

        def run(attack: Callable[[], None]) -> None:
            try:
                attack()
            except BaseException as error:  # noqa: BLE001  # raised again below, in the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=run, args=[attack]) for attack in attacks]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.call()
        for _ in range(5):
            self.call()
        if failures:
            raise failures[0]

    def call_until(self, is_so: Callable[[], bool]) -> None:
        """Call until something has become so: the server takes turns with what it does about it."""
        deadline = time.monotonic() + LIMIT_S
        while not is_so():
            assert time.monotonic() < deadline
            self.call()

    def report(self, name: str, server: ServerProcess, longest_ms: float) -> None:
        """Print what was measured."""
        ordered = sorted(self.latencies_ms)
        print(
            f"{name:40} {len(ordered):5} calls, median {statistics.median(ordered):6.1f} ms, "
            f"p99 {ordered[len(ordered) * 99 // 100]:6.1f} ms, most {ordered[-1]:6.1f} ms; "
            f"the server's longest pass {longest_ms:5.1f} ms, peak {server.peak_mib:.1f} MiB"
        )


# ---- a connection in memory


class MemoryWire:
    """A wire to a peer in the test: what is sent piles up in `sent`, as far as there is `room`."""

    peer: tuple[str, int] | str = "memory"
    certificate_name = ""

    def __init__(self, room: float = float("inf")) -> None:
        self.sent = bytearray()
        self.room = room
        self.eof_sent = False
        self.closed = False
        self.lost = False
        self._incoming: deque[bytes] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self.ended = trio.Event()

    # the peer's side

    def feed(self, *chunks: bytes) -> None:
        """Bytes for the connection; none: the end of the stream."""
        self._incoming.extend(chunks)
        self._changed.unpark_all()

    def make_room(self, size: float) -> None:
        self.room += size
        self._changed.unpark_all()

    def lose(self) -> None:
        """From now on every attempt to use it fails."""
        self.lost = True
        self._changed.unpark_all()

    def frames(self) -> list[Frame]:
        return parse_frames(bytes(self.sent))

    # the connection's side

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._incoming:
            self._check()
            await self._changed.park()
        self._check()
        return self._incoming.popleft()

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        self._check()
        taken = 0
        for buffer in buffers:
            part = memoryview(buffer)[: int(min(len(buffer), self.room))]
            self.sent += part
            self.room -= len(part)
            taken += len(part)
        return taken

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.room <= 0 and not self.lost:
            await self._changed.park()

    def send_eof(self) -> None:
        self._check()
        self.eof_sent = True

    def close(self) -> None:
        self.closed = True
        self.ended.set()

    def _check(self) -> None:
        if self.lost:
            raise ConnectionResetError(104, "lost")


class InMemory:
    """A connection with the probe's calls, without a socket."""

    def __init__(
        self,
        *,
        room: float = float("inf"),
        max_streams: int = 100,
        keepalive_s: float = 60,
        max_message: int = 1 << 20,
        readers: Readers = MappingProxyType({}),
    ) -> None:
        self.wire = MemoryWire(room)
        self.probe = Probe()
        self.connection = Connection(self.wire, max_streams=max_streams, keepalive_s=keepalive_s)
        self.ended_at: float | None = None
        self.handler: CallHandler
        self.arrivals_limit = 4 * max_message
        self.arrivals = Arrivals(self.arrivals_limit)
        self._max_message = max_message
        self._readers = readers

    async def run(self) -> None:
        def make_handler(nursery: trio.Nursery) -> CallHandler:
            self.handler = CallHandler(
                self.connection,
                nursery,
                self.probe.__mapping__(),
                peer=Peer("192.0.2.1", "192.0.2.1:5000"),
                admit=admit_all,
                readers=self._readers,
                max_message=self._max_message,
                arrivals=self.arrivals,
            )
            return self.handler

        await self.connection.run(make_handler)
        self.ended_at = trio.current_time()

    def goaway(self) -> GoAwayFrame:
        last = self.wire.frames()[-1]
        assert isinstance(last, GoAwayFrame), last
        return last

    def answer(self, stream_id: int) -> dict[str, str]:
        """Headers and trailers that were sent on a stream."""
        decoder = hpack.Decoder()
        found: dict[str, str] = {}
        for frame in self.wire.frames():
            if isinstance(frame, HeadersFrame):
                decoded = decoder.decode(frame.data)
                if frame.stream_id == stream_id:
                    found.update((str(name), str(value)) for name, value in decoded)
        return found


PROBE_PATH = f"/{SERVICE}/"
