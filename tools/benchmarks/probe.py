"""A small client with a clock of its own: how long single calls take, in a process that does nothing else.

Calls go out on one connection at fixed times, whether or not earlier ones have been answered, so that a server that
stalls is seen by every call that it kept waiting. A call's time is from its write to the read that brought its end; in
`first-message` to the end of the first message, after which the call is cancelled and the next one begins. With too
many calls unanswered the next one waits for that, and its time begins when it should have gone out. Calls that have no
answer a while after the last one was due count with the time that they have waited by then.

Prints {"seconds": [...]}; exits with a message if any call fails.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import time

import hpack

from tools.benchmarks import scenario

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_INITIAL_WINDOW_SIZE = 4
_CANCEL = 8
_DEFAULT_WINDOW = 65_535
_WINDOW = 1 << 24
_PATIENCE_S = 2.0
_MAX_WAITING = 64
"""Calls under way at a time; servers commonly take 100."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


class Probe:
    """One connection and the calls on it."""

    def __init__(self, port: int, path: str, message: bytes, *, first_message: bool) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "127.0.0.1"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "vx-bench"),
        ]
        self._body = scenario.framed(message)
        self._first_message = first_message
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._decoder.header_table_size = 4096
        self._next_stream = 1
        self._sent_at: dict[int, float] = {}
        self._bodies: dict[int, bytearray] = {}
        self._received = bytearray()
        self.seconds: list[float] = []
        # A call that is given up after its first message should not have much more on its way.
        window = _DEFAULT_WINDOW if first_message else _WINDOW
        settings = struct.pack("!HL", _INITIAL_WINDOW_SIZE, window)
        self._socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(_SETTINGS, 0, 0, settings)
            + frame(_WINDOW_UPDATE, 0, 0, struct.pack("!L", _WINDOW))
        )

    @property
    def waiting(self) -> int:
        return len(self._sent_at)

    def call(self, due: float | None = None) -> None:
        """Begin a call; its time counts from `due` if that is given."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        block = self._encoder.encode(self._headers)
        request = frame(_HEADERS, _END_HEADERS, stream, block) + frame(_DATA, _END_STREAM, stream, self._body)
        self._bodies[stream] = bytearray()
        self._sent_at[stream] = time.perf_counter() if due is None else due
        self._socket.sendall(request)

    def receive(self, until: float) -> None:
        """Take what comes until `until` (perf_counter), at most one read."""
        timeout = max(0.0, until - time.perf_counter())
        if not select.select([self._socket], [], [], timeout)[0]:
            return
        data = self._socket.recv(1 << 18)
        now = time.perf_counter()
        if not data:
            raise SystemExit("the server closed the connection")
        self._received += data
        while len(self._received) >= 9:
            high, low, kind, flags, stream = struct.unpack_from("!HBBBL", self._received)
            end = 9 + (high << 8 | low)
            if len(self._received) < end:
                return
            payload = bytes(self._received[9:end])
            del self._received[:end]
            self._take(kind, flags, stream, payload, now)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._socket.sendall(frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            raise SystemExit(f"the server went away: {payload[8:]!r}")
        elif kind == _RST_STREAM and stream in self._sent_at:
            raise SystemExit(f"the server reset the call: code {int.from_bytes(payload, 'big')}")
        elif kind == _DATA:
            self._take_data(stream, payload, now)
        elif kind == _HEADERS:
            assert flags & _END_HEADERS, "a header block of several frames"
            headers = dict(self._decoder.decode(payload, raw=True))
            if flags & _END_STREAM and stream in self._sent_at:
                if headers.get(b"grpc-status") != b"0" or self._first_message:
                    raise SystemExit(f"a call ended with {headers}")
                self._finish(stream, now)

    def _take_data(self, stream: int, payload: bytes, now: float) -> None:
        if payload:
            self._socket.sendall(frame(_WINDOW_UPDATE, 0, 0, struct.pack("!L", len(payload))))
        if not self._first_message or stream not in self._sent_at:
            return
        body = self._bodies[stream]
        body += payload
        if len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big"):
            self._finish(stream, now)
            self._socket.sendall(frame(_RST_STREAM, 0, stream, struct.pack("!L", _CANCEL)))

    def wait_for(self, fewer: int, end: float) -> bool:
        """Wait until fewer than `fewer` calls are unanswered, or until `end`; whether it was the former."""
        while self.waiting >= fewer and time.perf_counter() < end:
            self.receive(end)
        return self.waiting < fewer

    def give_up(self) -> None:
        """Count the calls that have no answer as if it came now."""
        now = time.perf_counter()
        for stream in list(self._sent_at):
            self._finish(stream, now)

    def _finish(self, stream: int, now: float) -> None:
        self.seconds.append(now - self._sent_at.pop(stream))
        del self._bodies[stream]


def run(probe: Probe, seconds: float, rate: float, most: int) -> None:
    """Make calls at `rate` a second for `seconds`, at most `most` at a time, and wait for the last one."""
    begin = time.perf_counter()
    end = begin + seconds + _PATIENCE_S
    for number in range(int(seconds * rate)):
        due = begin + number / rate
        while time.perf_counter() < due:
            probe.receive(due)
        if probe.waiting < most:
            probe.call()
        elif probe.wait_for(most, end):
            probe.call(due)
        else:
            probe.seconds.append(end - due)
    if not probe.wait_for(1, end):
        probe.give_up()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--message", type=bytes.fromhex, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--first-message", action="store_true")
    arguments = parser.parse_args()
    probe = Probe(arguments.port, arguments.path, arguments.message, first_message=arguments.first_message)
    for _ in range(3):  # the server's first call is not what is asked about
        probe.call()
        if not probe.wait_for(1, time.perf_counter() + _PATIENCE_S):
            break
    probe.seconds.clear()
    run(probe, arguments.seconds, arguments.rate, 1 if arguments.first_message else _MAX_WAITING)
    print(json.dumps({"seconds": probe.seconds}))


if __name__ == "__main__":
    main()
