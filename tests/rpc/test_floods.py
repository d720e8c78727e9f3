"""Peers that flood, stall, lie or vanish: what it costs them, and that it costs nobody else anything.

The first half runs against a real server process: it says the right thing to the peer, stays small, answers somebody
else's calls all the while, and has no traceback in its log at the end. Its figures are printed (`pytest -s`). The
second half is about time and bounds, in memory and in virtual time.
"""

from __future__ import annotations

import gc
import math
import ssl
import statistics
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import hpack
import pytest
import trio
import trio.testing
import trustme
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    AltSvcFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.rpc import peers
from tests.rpc.peers import (
    GREETING,
    PREFACE,
    PROBE_PATH,
    WATCH,
    Bystander,
    Client,
    Hostile,
    InMemory,
    ServerProcess,
    prefixed,
    raw_frame,
    update,
)
from tests.rpc.probe import LIMIT_S, Note, start
from vx.errors import Kind, VxError
from vx.rpc import codec, connection
from vx.rpc.budget import BYTES_PER_UPDATE
from vx.rpc.calls import MESSAGE_S
from vx.rpc.generated.axxonsoft.bl.mmexport import DownloadFileRequest
from vx.rpc.http2 import HEADER_TABLE
from vx.rpc.outbox import MAX_CONTROL
from vx.rpc.streams import BURST

PEAK_MIB = 64
ANSWER_MS = 100
"""In which everybody else's calls are to be answered."""
PASS_MS = ANSWER_MS / 2
"""A call arrives during one pass of the server's event loop, is taken in by the next one, and answered by the third. If
none takes half of that, and few of them take any time to speak of, neither does an answer take it."""
MANY = 6000
"""Far above every budget, whatever the machine's speed."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One process for all of the attacks: what one of them leaves behind is the next one's."""
    with peers.app_process(tmp_path_factory.mktemp("server")) as process:
        yield process


def _check(server: ServerProcess, bystander: Bystander, name: str) -> None:
    longest_ms = server.longest_pass_ms()
    bystander.report(name, server, longest_ms)
    assert server.peak_mib < PEAK_MIB
    assert longest_ms < PASS_MS
    # The longest that the bystander waited is printed alone: the machine, and this process, are busy with other things.
    assert statistics.median(bystander.latencies_ms) < ANSWER_MS


# ---- floods of frames


_CALL = peers.block(peers.fields(peers.HEALTH))
_WATCH = peers.block(peers.fields(WATCH))
_OPEN_WATCH = peers.headers(1, _WATCH) + peers.data(1, prefixed(b""))


def _many_calls(count: int, then: bytes = b"", *flags: str) -> bytes:
    """Calls, each followed by a frame whose stream's id is to be filled in."""
    out = bytearray()
    for stream_id in range(1, 2 * count, 2):
        out += peers.headers(stream_id, _CALL, *flags)
        if then:
            out += then[:5] + stream_id.to_bytes(4, "big") + then[9:]
    return bytes(out)


def _bomb(times: int) -> bytes:
    """A few kilobytes that are headers of almost 4 KiB, and as many again so many times."""
    encoder = hpack.Encoder()
    encoder.encode([("x-bomb", "b" * 3900)])
    return peers.headers(
        1,
        hpack.Encoder().encode([("x-bomb", "b" * 3900)], huffman=False)
        + encoder.encode([("x-bomb", "b" * 3900)]) * times,
    )


def _large_headers() -> bytes:
    encoded = peers.block(peers.fields(peers.HEALTH, ("x-large", "l" * 100_000)))
    first, *rest = (encoded[at : at + 16384] for at in range(0, len(encoded), 16384))
    return HeadersFrame(1, first).serialize() + b"".join(peers.continuations(1, 1, part) for part in rest)


def _many_headers() -> bytes:
    return peers.headers(1, _CALL + b"\x00\x01a\x00" * 4000)


def _settings(**settings: int) -> bytes:
    return SettingsFrame(0, settings={SettingCodes[name]: value for name, value in settings.items()}).serialize()


class Flood(NamedTuple):
    name: str
    payload: bytes
    code: ErrorCodes


_CALM = ErrorCodes.ENHANCE_YOUR_CALM
_ANY_RESET = RstStreamFrame(1, error_code=ErrorCodes.CANCEL).serialize()
_CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(200))

FLOODS = [
    # what RFC 9113 (10.5) has in mind with "too much load"
    Flood("rapid reset", _many_calls(MANY, _ANY_RESET), _CALM),
    Flood("resets that we are made to send", _many_calls(MANY, update(1, 2**31 - 1)), _CALM),
    Flood("data after the end", _many_calls(MANY, peers.data(1, b"", "END_STREAM"), "END_STREAM"), _CALM),
    Flood("more streams than allowed", _OPEN_WATCH + _many_calls(MANY)[len(peers.headers(1, _CALL)) :], _CALM),
    Flood("PING", PingFrame(0, b"12345678").serialize() * MANY, _CALM),
    Flood("PING answers", PingFrame(0, b"12345678", flags=["ACK"]).serialize() * MANY, _CALM),
    Flood("SETTINGS", SettingsFrame(0).serialize() * MANY, _CALM),
    Flood("SETTINGS answers", SettingsFrame(0, flags=["ACK"]).serialize() * MANY, _CALM),
    Flood(
        "SETTINGS, large",
        b"".join(
            raw_frame(4, 0, b"".join(code.to_bytes(2, "big") + bytes(4) for code in range(first, first + 2700)))
            for first in range(100, 62_800, 2700)
        )
        * 2,
        _CALM,
    ),
    Flood(
        "SETTINGS that resize",
        (_settings(HEADER_TABLE_SIZE=0) + _settings(HEADER_TABLE_SIZE=2**31)) * MANY,
        _CALM,
    ),
    Flood("WINDOW_UPDATE, connection", update(0, 1) * MANY, _CALM),
    Flood("WINDOW_UPDATE, stream", _OPEN_WATCH + update(1, 1) * MANY, _CALM),
    Flood("WINDOW_UPDATE, ended stream", peers.headers(1, _CALL, "END_STREAM") + update(1, 1) * MANY, _CALM),
    Flood("PRIORITY", PriorityFrame(1).serialize() * MANY, _CALM),
    Flood("RST_STREAM, ended stream", peers.headers(1, _CALL, "END_STREAM") + _ANY_RESET * MANY, _CALM),
    Flood("RST_STREAM, no stream yet", _OPEN_WATCH + RstStreamFrame(9).serialize() * MANY, _CALM),
    Flood("GOAWAY", GoAwayFrame(0).serialize() * MANY, _CALM),
    Flood("ALTSVC", AltSvcFrame(0, b"origin", b"field").serialize() * MANY, _CALM),
    Flood("frames of an unknown type", raw_frame(0xBA, 3, b"?") * MANY, _CALM),
    Flood("DATA, empty", peers.headers(1, _WATCH) + peers.data(1, b"") * MANY, _CALM),
    Flood("DATA, only padding", peers.headers(1, _WATCH) + raw_frame(0, 1, b"\x09" + bytes(9), flags=8) * MANY, _CALM),
    Flood("DATA, byte by byte", peers.headers(1, _WATCH) + peers.data(1, b"\0") * MANY, _CALM),
    Flood("DATA, reset stream", peers.headers(1, _CALL) + _ANY_RESET + peers.data(1, bytes(90)) * MANY, _CALM),
    Flood("CONTINUATION, empty", HeadersFrame(1, _CALL).serialize() + peers.continuations(1, MANY), _CALM),
    Flood("CONTINUATION, full", HeadersFrame(1, _CALL).serialize() + peers.continuations(1, 99, bytes(16384)), _CALM),
    Flood("headers, large", _large_headers(), _CALM),
    Flood("headers, many", _many_headers(), _CALM),
    Flood("headers, an HPACK bomb", _bomb(300), _CALM),
    Flood("headers, an HPACK bomb of 20 KB", _bomb(4), _CALM),
    # what is an error of its own
    Flood("headers that do not decode", peers.headers(1, b"\xff\xff\xff\xff\xff\xff"), ErrorCodes.COMPRESSION_ERROR),
    Flood("headers from an empty table", peers.headers(1, b"\xbf"), ErrorCodes.COMPRESSION_ERROR),
    Flood("window past its end", update(0, 2**31 - 1), ErrorCodes.FLOW_CONTROL_ERROR),
    Flood("window that grows by nothing", update(0, 0), ErrorCodes.PROTOCOL_ERROR),
    Flood("stream's window that grows by nothing", _OPEN_WATCH + update(1, 0), ErrorCodes.PROTOCOL_ERROR),
    Flood(
        "windows of all streams past their ends",
        _OPEN_WATCH + update(1, 2**30) + _settings(INITIAL_WINDOW_SIZE=2**31 - 1),
        ErrorCodes.FLOW_CONTROL_ERROR,
    ),
    Flood("more data than allowed", _OPEN_WATCH + peers.data(1, bytes(16384)) * 5, ErrorCodes.FLOW_CONTROL_ERROR),
    Flood("a frame that is too long", raw_frame(0, 1, size=2**24 - 1), ErrorCodes.FRAME_SIZE_ERROR),
    Flood("a PING that is too short", raw_frame(6, 0, b"1234"), ErrorCodes.FRAME_SIZE_ERROR),
    Flood("DATA of no stream", peers.data(7, b"?"), ErrorCodes.PROTOCOL_ERROR),
    Flood("DATA of stream 0", raw_frame(0, 0, b"?"), ErrorCodes.PROTOCOL_ERROR),
    Flood("a stream of the server's", peers.headers(2, _CALL), ErrorCodes.PROTOCOL_ERROR),
    Flood("CONTINUATION of nothing", peers.continuations(1, 1), ErrorCodes.PROTOCOL_ERROR),
    Flood("a push", raw_frame(5, 1, (2).to_bytes(4, "big") + _CALL, flags=4), ErrorCodes.PROTOCOL_ERROR),
    Flood("padding longer than its frame", raw_frame(0, 1, b"\xff", flags=8), ErrorCodes.PROTOCOL_ERROR),
]

NOT_HTTP2 = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": _CLIENT_HELLO,
    "garbage": bytes(index * 7 % 256 for index in range(100_000)),
    "almost": PREFACE[:-1] + b"!",
}


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.name)
def test_a_flood(server: ServerProcess, flood: Flood) -> None:
    """Three peers at once send all of it without reading, and find out why they were cut off."""
    codes: list[int] = []

    def attack() -> None:
        with Hostile(server.port) as hostile:
            hostile.send(flood.payload)
            codes.append(hostile.goaway().error_code)

    with Bystander(server.port) as bystander:
        bystander.call_during(attack, attack, attack)
        _check(server, bystander, flood.name)
    assert codes == [flood.code] * 3


@pytest.mark.parametrize("name", NOT_HTTP2)
def test_what_is_not_http2(server: ServerProcess, name: str) -> None:
    codes: list[int] = []

    def attack() -> None:
        for _ in range(20):
            with Hostile(server.port, NOT_HTTP2[name]) as hostile:
                codes.append(hostile.goaway().error_code)

    with Bystander(server.port) as bystander:
        bystander.call_during(attack, attack, attack)
        _check(server, bystander, f"{name} in place of HTTP/2")
    assert codes == [ErrorCodes.PROTOCOL_ERROR] * 60


def test_a_streams_window_past_its_end_ends_the_stream(server: ServerProcess) -> None:
    with Hostile(server.port) as hostile:
        hostile.send(_OPEN_WATCH + update(1, 2**31 - 1) + raw_frame(6, 0, b"12345678") + update(0, 0))
        frames = hostile.read_to_end()
    resets = [frame for frame in frames if isinstance(frame, RstStreamFrame)]
    assert [(frame.stream_id, frame.error_code) for frame in resets] == [(1, ErrorCodes.FLOW_CONTROL_ERROR)]
    pings = [frame for frame in frames if isinstance(frame, PingFrame)]
    assert len(pings) == 1, "the connection went on"
    assert "ACK" in pings[0].flags


def test_a_flood_of_connections_that_begin_nothing(server: ServerProcess) -> None:
    """Half a preface, half a frame, headers without end, a call without a message: many of each, all at once."""
    server.wait_sockets(server.sockets_at_first)
    beginnings = [
        PREFACE[:11],
        GREETING + raw_frame(0, 1, b"half", size=16384),
        GREETING + HeadersFrame(1, _CALL).serialize(),
        GREETING + peers.headers(1, _CALL),
        GREETING + peers.headers(1, _CALL) + peers.data(1, prefixed(b"12345678")[:-1]),
    ]
    hostiles: list[Hostile] = []

    def attack() -> None:
        hostiles.extend(Hostile(server.port, beginning) for beginning in beginnings * 40)

    try:
        with Bystander(server.port) as bystander:
            bystander.call()
            bystander.call_during(attack)
            bystander.call_until(lambda: server.sockets == server.sockets_at_first + len(hostiles) + 1)
            _check(server, bystander, f"{len(hostiles)} connections that begin")
    finally:
        for hostile in hostiles:
            hostile.vanish()
    server.wait_sockets(server.sockets_at_first)


def test_connections_that_come_and_go(server: ServerProcess) -> None:
    def attack() -> None:
        for index in range(300):
            Hostile(server.port, (GREETING + _OPEN_WATCH)[: index % 200]).vanish()

    with Bystander(server.port) as bystander:
        bystander.call_during(attack, attack)
        _check(server, bystander, "600 connections that come and go")
    server.wait_sockets(server.sockets_at_first)


# ---- calls that cost more than they seem to


def test_large_requests_that_never_end(server: ServerProcess) -> None:
    """A hundred calls that each send all but the last byte of the largest message: most are refused."""
    size = 4 << 20
    with Bystander(server.port) as bystander, Client(server.port) as client:
        payloads = {client.begin(peers.HEALTH): size.to_bytes(5, "big") + bytes(size - 1) for _ in range(100)}
        stream_ids = list(payloads)
        bystander.call_during(lambda: client.pour(payloads))
        answers = client.answers(stream_ids[1:])
        _check(server, bystander, "large requests that never end")
    assert {answer["grpc-status"] for answer in answers.values()} == {"8"}  # RESOURCE_EXHAUSTED


def _nested(count: int) -> bytes:
    """A StartSessionRequest with as many empty submessages as two bytes each can make."""
    body = b"\x0a\x00" * count
    for tag in (0x12, 0x1A, 0x0A, 0x12, 0x12):  # mask_space, settings, sources, archive, session_options
        body = bytes([tag]) + codec.encode_varint(len(body)) + body
    return body


@pytest.mark.parametrize(("fields", "status"), [(codec.MAX_FIELDS - 5, "3"), (2_000_000, "8")])
def test_requests_that_are_long_to_decode(server: ServerProcess, fields: int, status: str) -> None:
    path = "/axxonsoft.bl.mmexport.ExportService/StartSession"
    answers: list[dict[str, str]] = []

    def attack() -> None:
        with Client(server.port) as client:
            body = _nested(fields)
            payloads = {client.begin(path): prefixed(body) for _ in range(4)}
            stream_ids = list(payloads)
            client.pour(payloads)
            answers.extend(client.answers(stream_ids).values())

    with Bystander(server.port) as bystander:
        bystander.call_during(attack)
        _check(server, bystander, f"4 requests of {fields} fields")
    assert [answer["grpc-status"] for answer in answers] == [status] * 4


def test_texts_that_are_long_to_send_back(server: ServerProcess) -> None:
    """A status text quotes the client, is percent-encoded and then Huffman-coded: each makes it longer or slower."""
    asks: list[tuple[str, bytes, tuple[str, str]]] = [
        ("/" + "\xff" * 5000, b"", ("x", "y")),
        (peers.HEALTH, b"", ("grpc-encoding", "\xff" * 5000)),
        (peers.HEALTH, b"\x0a" + codec.encode_varint(codec.MAX_TEXT) + b"\x01" * codec.MAX_TEXT, ("x", "y")),
        (peers.HEALTH, b"\x0a" + codec.encode_varint(4_000_000) + b"\x01" * 4_000_000, ("x", "y")),
    ]
    answers: list[dict[str, str]] = []

    def attack() -> None:
        with Client(server.port) as client:
            for path, body, header in asks * 5:
                stream_id = client.begin(path, header)
                client.pour({stream_id: prefixed(body)})
                answers.append(client.answers([stream_id])[stream_id])

    with Bystander(server.port) as bystander:
        bystander.call_during(attack)
        _check(server, bystander, "long texts")
    assert [answer["grpc-status"] for answer in answers] == ["12", "12", "5", "8"] * 5
    assert max(len(answer["grpc-message"]) for answer in answers) < 8192, "clients refuse longer headers"


@pytest.mark.parametrize(
    "header",
    [
        ("grpc-timeout", "9" * 400 + "H"),
        ("grpc-timeout", "9" * 5000 + "S"),
        ("grpc-timeout", "-1S"),
        ("grpc-timeout", ""),
        ("blob-bin", "\xff"),
        ("blob-bin", "abcde"),
    ],
    ids=lambda header: f"{header[0]} {header[1][:9]!r}",
)
def test_a_header_that_cannot_be_read_fails_its_call_alone(server: ServerProcess, header: tuple[str, str]) -> None:
    with Client(server.port) as client:
        assert client.call(peers.HEALTH, b"", header)["grpc-status"] == "13"
        assert client.call()["grpc-status"] == "0"


def test_readers_that_do_not_read(tmp_path: Path) -> None:
    """Peers open all windows, begin as many downloads of a gigabyte as they can, and read nothing; then they vanish."""
    session_id, name = peers.finished_session(tmp_path / "state", size=1 << 30)
    ask = prefixed(bytes(DownloadFileRequest(session_id=session_id, file_path=name, chunk_size_kb=1024)))
    call = peers.block(peers.fields("/axxonsoft.bl.mmexport.ExportService/DownloadFile"))
    wide = _settings(INITIAL_WINDOW_SIZE=2**31 - 1, MAX_FRAME_SIZE=2**24 - 1) + update(0, 2**31 - 1 - 65_535)
    downloads = b"".join(
        peers.headers(stream_id, call) + peers.data(stream_id, ask, "END_STREAM") for stream_id in range(1, 201, 2)
    )
    with peers.app_process(tmp_path) as server:
        hostiles = [Hostile(server.port, GREETING + wide) for _ in range(4)]
        with Bystander(server.port) as bystander:
            bystander.call_during(*(partial(hostile.send, downloads) for hostile in hostiles))
            for _ in range(100):
                bystander.call()
            _check(server, bystander, "400 downloads that are not read")
        for hostile in hostiles:
            hostile.vanish()
        server.wait_sockets(server.sockets_at_first)


PATIENCE_S = 2
_UNFINISHED: list[tuple[bytes, ErrorCodes]] = [
    (b"", ErrorCodes.SETTINGS_TIMEOUT),
    (PREFACE[:11], ErrorCodes.SETTINGS_TIMEOUT),
    (PREFACE + SettingsFrame(0).serialize(), ErrorCodes.SETTINGS_TIMEOUT),
    (GREETING + raw_frame(0, 1, size=16384)[:5], _CALM),
    (GREETING + raw_frame(0, 1, b"half", size=16384), _CALM),
    (GREETING + HeadersFrame(1, _CALL).serialize(), _CALM),
]
"""Beginnings, and what their peers are told when nothing follows."""


def test_what_is_begun_and_not_ended(tmp_path: Path) -> None:
    """Many of each at a time, and TLS handshakes beside them: each is ended when its time is over."""
    tls = _Tls(tmp_path)
    codes: list[tuple[bytes, int]] = []

    def attack(port: int, beginning: bytes) -> None:
        with ExitStack() as stack:
            hostiles = [stack.enter_context(Hostile(port, beginning, tls=tls.client)) for _ in range(10)]
            codes.extend((beginning, hostile.goaway().error_code) for hostile in hostiles)

    def attack_handshake(port: int, beginning: bytes) -> None:
        with ExitStack() as stack:
            hostiles = [stack.enter_context(Hostile(port, beginning)) for _ in range(50)]
            assert not any(hostile.read_to_end() for hostile in hostiles)

    with peers.app_process(tmp_path, str(PATIENCE_S), more_config=tls.config) as process:
        attacks = [partial(attack, process.port, beginning) for beginning, _ in _UNFINISHED]
        handshakes = [partial(attack_handshake, process.port, beginning) for beginning in (b"", _CLIENT_HELLO[:50])]
        with Bystander(process.port, tls=tls.client) as bystander:
            bystander.call_during(*attacks, *handshakes)
            _check(process, bystander, "160 peers that do not go on")
    assert set(codes) == set(_UNFINISHED)
    assert len(codes) == 10 * len(_UNFINISHED)


def test_a_flood_of_tls_handshakes(tmp_path: Path) -> None:
    """Many clients say hello at the same moment: each costs the server a signature."""
    tls = _Tls(tmp_path)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        tls.client.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()
    with peers.app_process(tmp_path, more_config=tls.config) as process:
        hostiles = [Hostile(process.port, hello[:-1]) for _ in range(200)]

        def attack() -> None:
            for hostile in hostiles:
                hostile.send(hello[-1:])
            for hostile in hostiles:
                hostile.wait_answer()

        with Bystander(process.port, tls=tls.client) as bystander:
            bystander.call()
            bystander.call_during(attack)
            _check(process, bystander, f"{len(hostiles)} TLS handshakes at once")
        for hostile in hostiles:
            hostile.vanish()


class _Tls:
    """A server's certificate with a key as large as people have them, and a client that knows it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA(key_type=trustme.KeyType.RSA)
        issued = authority.issue_cert("localhost", key_type=trustme.KeyType.RSA)
        certificate, key = folder / "server.pem", folder / "server.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        self.config = f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.client)
        self.client.set_alpn_protocols(["h2"])


# ---- time, in virtual time: what a peer begins, it must end


_ALIVE = PingFrame(0, b"vx-alive", flags=["ACK"]).serialize()


async def _run(nursery: trio.Nursery, *chunks: bytes, **options: Any) -> InMemory:
    """A connection in memory that has dealt with these bytes; at most a minute of virtual time is waited for it."""
    memory = InMemory(**options)
    nursery.start_soon(memory.run)
    memory.wire.feed(*chunks)
    await trio.testing.wait_all_tasks_blocked()
    return memory


async def _wait_ended(memory: InMemory, limit_s: float = 1000) -> float:
    """When the connection ended."""
    with trio.fail_after(limit_s):
        await memory.wire.ended.wait()
    return trio.current_time()


async def _drip(memory: InMemory, chunk: bytes, every_s: float) -> None:
    """Feed the bytes of `chunk` one by one, over and over."""
    while True:
        for byte in chunk:
            memory.wire.feed(bytes([byte]))
            await trio.sleep(every_s)


@pytest.mark.parametrize(
    "beginning",
    [b"", PREFACE[:10], PREFACE, PREFACE + SettingsFrame(0).serialize(), PREFACE + SettingsFrame(0).serialize()[:5]],
    ids=["nothing", "half a preface", "a preface", "no acknowledgement", "half a frame"],
)
async def test_a_greeting_that_does_not_come(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, beginning: bytes
) -> None:
    memory = await _run(nursery, *([beginning] if beginning else []))
    assert 10 <= await _wait_ended(memory) <= 10 + connection._LINGER_S
    assert memory.goaway().error_code == ErrorCodes.SETTINGS_TIMEOUT
    assert memory.wire.closed


async def test_a_greeting_that_drips(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    memory = await _run(nursery)
    nursery.start_soon(_drip, memory, PREFACE, 1)
    assert 10 <= await _wait_ended(memory) <= 10 + connection._LINGER_S
    assert memory.goaway().error_code == ErrorCodes.SETTINGS_TIMEOUT
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (raw_frame(0, 1, size=16384), b"x"),
        (raw_frame(0, 1, size=16384)[:4], b""),
        (HeadersFrame(1, _CALL).serialize(), b""),
        (HeadersFrame(1, b"").serialize(), peers.continuations(1, 1)),
    ],
    ids=["DATA that drips", "half a frame header", "HEADERS without end", "CONTINUATION that drips"],
)
async def test_a_frame_that_does_not_end(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, beginning: bytes, more: bytes
) -> None:
    memory = await _run(nursery, GREETING)
    await trio.sleep(30)  # a connection that is idle is nothing to complain of
    memory.wire.feed(beginning)
    begun = trio.current_time()
    if more:
        nursery.start_soon(_drip, memory, more, 1)
    assert connection._FRAME_S <= await _wait_ended(memory) - begun <= connection._FRAME_S + 1 + connection._LINGER_S
    assert memory.goaway().error_code == ErrorCodes.ENHANCE_YOUR_CALM
    nursery.cancel_scope.cancel()


async def test_slow_frames_that_end_are_taken(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """Always amid a frame, but each ends in its time."""
    memory = await _run(nursery, GREETING)
    frame = raw_frame(6, 0, b"12345678")
    for _ in range(20):
        memory.wire.feed(frame[:5])
        await trio.sleep(connection._FRAME_S - 2)
        memory.wire.feed(frame[5:] + frame[:3])
        await trio.sleep(1)
        memory.wire.feed(frame[3:])
        await trio.sleep(1)
    assert memory.ended_at is None
    memory.wire.feed(b"")


@pytest.mark.parametrize("part", [b"", b"\0\0\0", prefixed(bytes(90))[:-1]], ids=["nothing", "half a prefix", "half"])
@pytest.mark.parametrize("dripping", [False, True])
async def test_a_request_that_does_not_come(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, part: bytes, dripping: bool
) -> None:
    """The call fails, the connection and its other calls don't."""
    echo = peers.block(peers.fields(PROBE_PATH + "Echo"))
    large = (1 << 19).to_bytes(5, "big")
    memory = await _run(
        nursery, GREETING, peers.headers(1, echo), peers.data(1, large if dripping else part), keepalive_s=86400
    )
    if dripping:
        nursery.start_soon(_drip_data, memory)
    await trio.sleep(MESSAGE_S - 1)
    assert "grpc-status" not in memory.answer(1)
    await trio.sleep(MESSAGE_S + 2)
    answer = memory.answer(1)
    assert answer["grpc-status"] == "4"
    assert "60 s" in answer["grpc-message"]
    resets = [frame for frame in memory.wire.frames() if isinstance(frame, RstStreamFrame)]
    assert [frame.error_code for frame in resets[:1]] == [ErrorCodes.NO_ERROR]
    assert not memory.connection._processor.streams
    assert memory.arrivals._free == memory.arrivals_limit
    memory.wire.feed(peers.headers(3, echo), peers.data(3, prefixed(b""), "END_STREAM"))
    await trio.testing.wait_all_tasks_blocked()
    assert memory.answer(3)["grpc-status"] == "0"
    nursery.cancel_scope.cancel()


async def _drip_data(memory: InMemory) -> None:
    for _ in range(50):
        memory.wire.feed(peers.data(1, b"x"))
        await trio.sleep(1)


async def test_a_stream_of_requests_may_pause_but_not_within_one(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    collect = peers.block(peers.fields(PROBE_PATH + "Collect"))
    memory = await _run(nursery, GREETING, peers.headers(1, collect), peers.data(1, prefixed(b"")), keepalive_s=86400)
    await trio.sleep(3600)
    memory.wire.feed(peers.data(1, prefixed(b"") + prefixed(b"12")[:-1]))
    await trio.sleep(MESSAGE_S - 1)
    assert memory.probe.seen.count("collected ") == 2
    assert "grpc-status" not in memory.answer(1)
    await trio.sleep(2)
    assert memory.answer(1)["grpc-status"] == "4"
    memory.wire.feed(b"")


async def test_a_peer_that_is_silent_is_lost(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    hold = peers.headers(1, peers.block(peers.fields(PROBE_PATH + "Hold"))) + peers.data(1, prefixed(b""))
    memory = await _run(nursery, GREETING, hold, keepalive_s=60)
    assert memory.probe.seen == ["hold started"]
    assert 80 <= await _wait_ended(memory) <= 81
    assert memory.probe.seen == ["hold started", "hold cancelled"]


async def test_a_peer_that_answers_stays(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    memory = await _run(nursery, GREETING, keepalive_s=60)
    for _ in range(100):
        await trio.sleep(70)
        memory.wire.feed(_ALIVE)
    assert memory.ended_at is None
    memory.wire.feed(b"")


_WIDE = _settings(INITIAL_WINDOW_SIZE=2**31 - 1)
_BULK = (
    _WIDE
    + update(0, 2**31 - 1 - 65_535)
    + peers.headers(1, peers.block(peers.fields(PROBE_PATH + "Bulk")))
    + peers.data(1, prefixed(bytes(Note(text="9000", count=1_000_000))), "END_STREAM")
)


async def test_a_peer_that_talks_but_does_not_read_is_lost(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    memory = await _run(nursery, GREETING, _BULK, room=100_000, keepalive_s=60)
    while memory.ended_at is None:
        memory.wire.feed(raw_frame(6, 0, b"12345678"))
        await trio.sleep(5)
        assert trio.current_time() < 200
    assert memory.ended_at >= 60


async def test_a_peer_that_reads_slowly_stays(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """Our PING is stuck behind what the peer has not read yet; that it reads is answer enough."""
    memory = await _run(nursery, GREETING, _BULK, room=100_000, keepalive_s=60)
    for _ in range(400):
        memory.wire.make_room(100)
        await trio.sleep(9)
    assert memory.ended_at is None
    assert memory.probe.bursts < 2 + (BURST + 140_000) // 9000
    nursery.cancel_scope.cancel()


async def test_a_reader_that_is_lost_ends_its_calls(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    memory = await _run(nursery, GREETING, _BULK, room=100_000)
    memory.wire.lose()
    await trio.testing.wait_all_tasks_blocked()
    assert memory.ended_at == trio.current_time()
    assert memory.wire.closed
    assert not memory.connection._processor.streams


async def test_a_tls_handshake_that_does_not_come(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    tls = _server_context()
    running = await start(nursery, tls=tls)
    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
    await stream.send_all(_CLIENT_HELLO[:50])
    with trio.fail_after(LIMIT_S):
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
    assert trio.current_time() >= 9
    await trio.aclose_forcefully(stream)
    nursery.cancel_scope.cancel()


def _server_context() -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    return context


# ---- bounds, without a clock


async def test_a_turn_is_short(nursery: trio.Nursery) -> None:
    """However much of a flood is there, only so many frames are dealt with before others get their turn."""
    memory = await _run(nursery, GREETING)
    memory.connection.feed(PingFrame(0, b"12345678").serialize() * 1000)
    answered = len(memory.wire.frames())
    turns = 0
    more = True
    while more:
        more = memory.connection.work()
        now = len(memory.wire.frames())
        assert now - answered <= connection._TURN
        answered, turns = now, turns + 1
    assert turns == math.ceil((1000 + 1) / connection._TURN)
    memory.wire.feed(b"")


async def test_answers_that_are_not_read_are_few(nursery: trio.Nursery) -> None:
    """The budget is generous with calls; what bounds their answers is that we read no more requests."""
    memory = await _run(nursery, GREETING, room=10_000)
    call = peers.block(peers.fields(PROBE_PATH + "Fail", ("x", "y")))
    bug = peers.data(1, prefixed(bytes(Note(text="long"))), "END_STREAM")
    taken = 0
    for stream_id in range(1, 8001, 2):
        memory.wire.feed(peers.headers(stream_id, call) + bug[:5] + stream_id.to_bytes(4, "big") + bug[9:])
        if stream_id % 100 == 99:
            await trio.testing.wait_all_tasks_blocked()
            taken = memory.connection._h2.highest_inbound_stream_id
    assert taken < 8000
    queued = memory.connection._outbox.size
    assert queued < MAX_CONTROL + 64 * 8192
    nursery.cancel_scope.cancel()


async def test_downloads_that_are_not_read_queue_one_burst(nursery: trio.Nursery) -> None:
    """Not one for each of the downloads."""
    calls = [_BULK]
    for stream_id in range(3, 201, 2):
        request = prefixed(bytes(Note(text="9000", count=100)))
        calls.append(peers.headers(stream_id, peers.block(peers.fields(PROBE_PATH + "Bulk"))))
        calls.append(peers.data(stream_id, request, "END_STREAM"))
    memory = await _run(nursery, GREETING, *calls, room=1_000_000)
    assert len(memory.connection._processor.streams) == 100
    assert memory.connection._outbox.size < BURST + MAX_CONTROL
    nursery.cancel_scope.cancel()


async def test_reading_a_byte_at_a_time_is_not_for_free(nursery: trio.Nursery) -> None:
    """Its window opened byte by byte, a download is made of frames of one byte; full frames pay for the updates."""
    large = BYTES_PER_UPDATE
    memory = await _run(nursery, GREETING, _BULK.replace(_WIDE, _settings(INITIAL_WINDOW_SIZE=0)))
    for _ in range(MANY):
        memory.wire.feed(update(1, large))
        await trio.testing.wait_all_tasks_blocked()
    assert memory.ended_at is None
    assert peers.count_data(memory.wire.frames()) == MANY * large
    for _ in range(MANY):
        memory.wire.feed(update(1, 1))
        await trio.testing.wait_all_tasks_blocked()
        if memory.wire.eof_sent:
            break
    assert memory.goaway().error_code == ErrorCodes.ENHANCE_YOUR_CALM
    memory.wire.feed(b"")


async def test_large_requests_are_read_in_a_thread_one_at_a_time(nursery: trio.Nursery) -> None:
    """The event loop goes on with others, and there is one tree of objects."""
    seen: list[str] = []

    def read(note: Note) -> Note:
        if threading.current_thread() is threading.main_thread():
            seen.append("here")
        else:
            seen.append("begin")
            trio.from_thread.run(trio.testing.wait_all_tasks_blocked)  # fails on the event loop
            seen.append("end")
        return Note(text=f"read {len(note.text)}")

    echo = peers.block(peers.fields(PROBE_PATH + "Echo"))
    memory = await _run(nursery, GREETING, readers={Note: read})
    texts = {1: "t" * 9_000, 3: "t" * 10_000, 5: "t"}
    many = b"\x18\x01" * 600  # fields; the last of them counts
    bodies = {**{key: bytes(Note(text=text)) for key, text in texts.items()}, 7: many}
    for stream_id, body in bodies.items():
        memory.wire.feed(peers.headers(stream_id, echo), peers.data(stream_id, prefixed(body), "END_STREAM"))
    with trio.fail_after(LIMIT_S):
        while peers.count_ended(memory.wire.frames()) < len(bodies):
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert seen.count("here") == 1
    seen.remove("here")
    assert seen == ["begin", "end"] * 3
    sent = {frame.stream_id: frame.data for frame in memory.wire.frames() if isinstance(frame, DataFrame)}
    assert sent == {key: prefixed(bytes(Note(text=f"read {len(texts.get(key, ''))}"))) for key in bodies}
    assert memory.arrivals._free == memory.arrivals_limit
    memory.wire.feed(b"")


async def test_a_large_request_that_is_refused_leaves_nothing_behind(nursery: trio.Nursery) -> None:
    """Not even until the garbage collector comes by: that would be megabytes for each."""

    class Tree:
        pass

    trees: list[weakref.ref[Tree]] = []

    def read(note: Note) -> Note:
        tree = Tree()
        trees.append(weakref.ref(tree))
        raise VxError(Kind.INVALID, "refused")

    echo = peers.block(peers.fields(PROBE_PATH + "Echo"))
    memory = await _run(nursery, GREETING, readers={Note: read})
    gc.disable()
    try:
        body = bytes(Note(text="t" * 9_000))
        memory.wire.feed(peers.headers(1, echo), peers.data(1, prefixed(body), "END_STREAM"))
        with trio.fail_after(LIMIT_S):
            while not peers.count_ended(memory.wire.frames()):
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert [tree() for tree in trees] == [None]
    finally:
        gc.enable()
    assert memory.answer(1)["grpc-message"] == "refused"
    memory.wire.feed(b"")


async def test_what_h2_keeps_of_settings_is_bounded(nursery: trio.Nursery) -> None:
    frames = [
        raw_frame(4, 0, b"".join(code.to_bytes(2, "big") + bytes(4) for code in range(first, first + 30)))
        for first in range(100, 1600, 30)
    ]
    resizing = [_settings(HEADER_TABLE_SIZE=size) for size in (0, 2**32 - 1, 100, 2**31)] * 20
    memory = await _run(nursery, GREETING, *frames, *resizing)
    state = memory.connection._h2
    assert len(state.remote_settings) < 10
    assert len(state.encoder.table_size_changes) <= 2
    assert state.encoder.header_table_size <= HEADER_TABLE
    echo = peers.block(peers.fields(PROBE_PATH + "Echo"))
    memory.wire.feed(peers.headers(1, echo), peers.data(1, prefixed(b""), "END_STREAM"))
    await trio.testing.wait_all_tasks_blocked()
    assert memory.answer(1)["grpc-status"] == "0"
    memory.wire.feed(b"")


async def test_honest_work_costs_nothing(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """Far more calls, data and updates than any budget, at no time at all."""
    echo = peers.block(peers.fields(PROBE_PATH + "Echo"))
    memory = await _run(nursery, GREETING)
    for stream_id in range(1, 2_001, 2):
        memory.wire.feed(
            peers.headers(stream_id, echo)
            + peers.data(stream_id, prefixed(b""))
            + peers.data(stream_id, b"", "END_STREAM")
            + update(0, 7)
            + PingFrame(0, b"12345678").serialize()
        )
        if stream_id % 20 == 19:
            await trio.testing.wait_all_tasks_blocked()
    assert memory.ended_at is None
    assert trio.current_time() < 1
    memory.wire.feed(b"")
