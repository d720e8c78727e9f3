"""HTTP/2 and gRPC by hand: what the libraries of clients never do, or do without showing it."""

from __future__ import annotations

import struct
from math import inf
from pathlib import Path
from typing import Any

import h2.events
import pytest
import trio
from grpclib.metadata import encode_bin_value
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, GoAwayFrame, RstStreamFrame, WindowUpdateFrame

from tests.rpc.hand_driven import H2Peer, connect, message
from tests.rpc.probe import LIMIT_S, Note, Running, bulk_data, start
from vx.rpc.connection import Connection
from vx.rpc.outbox import MAX_CONTROL
from vx.rpc.streams import BURST


@pytest.fixture
async def running(nursery: trio.Nursery) -> Running:
    return await start(nursery)


@pytest.fixture
async def peer(running: Running) -> Any:
    peer = await connect(running.port)
    yield peer
    await trio.aclose_forcefully(peer.stream)


@pytest.fixture
async def open_peer(running: Running) -> Any:
    """Makes further connections."""
    peers: list[H2Peer] = []

    async def connect_one(settings: dict[Any, int] | None = None) -> H2Peer:
        peers.append(await connect(running.port, settings=settings))
        return peers[-1]

    yield connect_one
    for peer in peers:
        await trio.aclose_forcefully(peer.stream)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The server's sides of all connections that the test makes."""
    made: list[Connection] = []
    original = Connection.__init__

    def remember(self: Connection, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Connection, "__init__", remember)
    return made


# ---- requests


async def test_a_call(peer: H2Peer) -> None:
    stream_id = peer.call("Echo", Note(text="hello"))
    await peer.flush()
    assert await peer.reply(stream_id) == Note(text="hello")


async def test_a_request_in_pieces(peer: H2Peer) -> None:
    stream_id = peer.begin("Echo")
    for byte in message(Note(text="piece by piece")):
        peer.h2.send_data(stream_id, bytes([byte]))
        await peer.flush()
    peer.h2.end_stream(stream_id)
    await peer.flush()
    assert await peer.reply(stream_id) == Note(text="piece by piece")


async def test_padding_is_not_data(peer: H2Peer) -> None:
    stream_id = peer.begin("Echo")
    peer.h2.send_data(stream_id, message(Note(text="padded")), pad_length=200, end_stream=True)
    await peer.flush()
    assert await peer.reply(stream_id) == Note(text="padded")


async def test_windows_are_given_back(peer: H2Peer) -> None:
    """More than any window in one call's request, and in the requests of many calls."""
    note = Note(data=bytes(900_000))
    for _ in range(3):
        stream_id = peer.begin("Collect")
        left = memoryview(message(note))
        while left:
            size = min(peer.h2.local_flow_control_window(stream_id), peer.h2.max_outbound_frame_size, len(left))
            if not size:
                await peer.receive()
                continue
            peer.h2.send_data(stream_id, bytes(left[:size]))
            left = left[size:]
            await peer.flush()
        peer.h2.end_stream(stream_id)
        await peer.flush()
        assert await peer.reply(stream_id) == Note(count=1)
    last = peer.call("Echo", Note(text="still"))
    await peer.flush()
    assert await peer.reply(last) == Note(text="still")


async def test_a_call_without_the_end_of_the_clients_side_is_answered_and_reset(peer: H2Peer) -> None:
    stream_id = peer.begin("Echo")
    peer.h2.send_data(stream_id, message(Note(text="x")))
    await peer.flush()
    assert await peer.reply(stream_id) == Note(text="x")
    reset = await peer.next(h2.events.StreamReset, stream_id=stream_id)
    assert reset.error_code == ErrorCodes.NO_ERROR


async def test_half_close_ends_the_requests_not_the_call(peer: H2Peer, running: Running) -> None:
    stream_id = peer.begin("Collect")
    for text in ("a", "b"):
        peer.h2.send_data(stream_id, message(Note(text=text)))
    await peer.flush()
    await running.probe.wait_seen("collected b")
    assert stream_id not in peer.data
    peer.h2.end_stream(stream_id)
    await peer.flush()
    assert await peer.reply(stream_id) == Note(text="a b", count=2)


async def test_trailers_of_a_client_are_an_end(peer: H2Peer) -> None:
    stream_id = peer.begin("Collect")
    peer.h2.send_data(stream_id, message(Note(text="a")))
    peer.h2.send_headers(stream_id, [("x-checksum", "1")], end_stream=True)
    other = peer.call("Echo", Note(text="x"))
    await peer.flush()
    assert await peer.reply(stream_id) == Note(text="a", count=1)
    assert await peer.reply(other) == Note(text="x")


INTERNAL, UNIMPLEMENTED, EXHAUSTED = "13", "12", "8"


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"", INTERNAL, "the call ended without a request message"),
        (b"\0\0\0", INTERNAL, "the call ended within a message"),
        (message(Note(text="cut off"))[:-1], INTERNAL, "the call ended within a message"),
        (message(Note(), compressed=1), UNIMPLEMENTED, "the message is compressed; this server takes identity only"),
        (b"\0\x80\0\0\0", EXHAUSTED, "the message has 2147483648 bytes; at most 1048576 are allowed"),
        (b"\0\0\0\0\x01\xff", INTERNAL, "malformed request: Note: ends within a number"),
        (b"\0\0\0\0\x03\x0a\x05a", INTERNAL, "malformed request: Note: field 1 is longer than its message"),
        (b"\0\0\0\0\x03\x0a\x01\xff", INTERNAL, "malformed request: Note: "),
    ],
    ids=["missing", "half a prefix", "truncated", "compressed", "too large", "half a number", "too long", "not UTF-8"],
)
async def test_bad_messages(peer: H2Peer, data: bytes, status: str, text: str) -> None:
    stream_id = peer.begin("Echo")
    peer.h2.send_data(stream_id, data, end_stream=True)
    other = peer.call("Echo", Note(text="x"))
    await peer.flush()
    [block] = await peer.blocks(stream_id)  # trailers only
    answer = dict(block)
    assert answer["grpc-status"] == status
    assert answer["grpc-message"].startswith(text)
    assert answer[":status"] == "200"
    assert stream_id not in peer.data
    assert await peer.reply(other) == Note(text="x")


@pytest.mark.parametrize(
    ("options", "http", "status", "text"),
    [
        ({"content_type": "application/json"}, "415", INTERNAL, "the content-type must be application/grpc"),
        ({"content_type": None}, "415", INTERNAL, "the content-type must be application/grpc"),
        ({"content_type": "application/grpc+json"}, "415", INTERNAL, "the content-type must be application/grpc"),
        ({"content_type": "application/grpc-web"}, "415", INTERNAL, "the content-type must be application/grpc"),
        ({"path": "/vx.test.Probe/None"}, "200", UNIMPLEMENTED, "there is no method /vx.test.Probe/None"),
        ({"path": "*"}, "200", UNIMPLEMENTED, "there is no method *"),
        (
            {"headers": [("grpc-encoding", "gzip")]},
            "200",
            UNIMPLEMENTED,
            "messages in the encoding gzip are not taken; identity only",
        ),
        ({"headers": [("grpc-timeout", "soon")]}, "200", INTERNAL, "malformed headers: "),
        ({"headers": [("grpc-timeout", "-1S")]}, "200", INTERNAL, "malformed headers: "),
        ({"headers": [("grpc-timeout", "9" * 400 + "H")]}, "200", INTERNAL, "malformed headers: "),
        ({"headers": [("x-bin", "not base64!")]}, "200", INTERNAL, "malformed headers: "),
    ],
)
async def test_bad_requests(peer: H2Peer, options: dict[str, Any], http: str, status: str, text: str) -> None:
    stream_id = peer.call("Echo", **options)
    other = peer.call("Echo", Note(text="x"))
    await peer.flush()
    [block] = await peer.blocks(stream_id)  # trailers only
    answer = dict(block)
    assert answer[":status"] == http
    assert answer["grpc-status"] == status
    assert answer["grpc-message"].startswith(text)
    if "gzip" in text:
        assert answer["grpc-accept-encoding"] == "identity"
    assert await peer.reply(other) == Note(text="x")


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto"])
async def test_content_types(peer: H2Peer, content_type: str) -> None:
    stream_id = peer.call("Echo", Note(text="x"), content_type=content_type)
    await peer.flush()
    assert await peer.reply(stream_id) == Note(text="x")


async def test_a_get_is_no_call(peer: H2Peer) -> None:
    stream_id = peer.h2.get_next_available_stream_id()
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test")]
    peer.h2.send_headers(stream_id, fields, end_stream=True)
    await peer.flush()
    assert dict(await peer.answer(stream_id))[":status"] == "405"


async def test_binary_metadata_with_and_without_padding(peer: H2Peer) -> None:
    for value in (encode_bin_value(b"\0\xff\x01\x02").decode(), "AP8BAg=="):
        stream_id = peer.call("Metadata", headers=[("blob-bin", value)])
        await peer.flush()
        assert await peer.reply(stream_id) == Note(data=b"\0\xff\x01\x02")


async def test_messages_of_errors_are_percent_encoded(peer: H2Peer) -> None:
    stream_id = peer.call("Fail", Note(text="vx"))
    await peer.flush()
    text = dict(await peer.answer(stream_id))["grpc-message"]
    assert text == "text: nichts da: %E2%80%9ET%C3%BCr%E2%80%9C %E2%98%82 100%25"


# ---- deadlines and ends


async def test_the_server_keeps_the_deadline_of_a_client_that_does_not(peer: H2Peer, running: Running) -> None:
    unary = peer.call("Hold", headers=[("grpc-timeout", "10m")])
    stream = peer.call("HoldStream", headers=[("grpc-timeout", "10000u")])
    await peer.flush()
    assert await peer.status(unary) == "4"
    assert await peer.status(stream) == "4"
    assert running.probe.seen.count("hold cancelled") == 1
    assert running.probe.seen.count("hold ended") == 1


async def test_a_deadline_that_has_passed(peer: H2Peer, running: Running) -> None:
    stream_id = peer.call("Hold", headers=[("grpc-timeout", "0n")])
    await peer.flush()
    assert await peer.status(stream_id) == "4"


async def test_a_handler_that_fails_while_it_is_cancelled(peer: H2Peer, caplog: pytest.LogCaptureFixture) -> None:
    stream_id = peer.call("Fail", Note(text="foul clean-up"), headers=[("grpc-timeout", "10m")])
    other = peer.call("Echo", Note(text="x"))
    await peer.flush()
    answer = dict(await peer.answer(stream_id))
    assert answer["grpc-status"] == INTERNAL
    assert answer["grpc-message"].rpartition(" ")[2] in caplog.text
    assert await peer.reply(other) == Note(text="x")


async def test_a_reset_cancels_its_call_alone(peer: H2Peer, running: Running) -> None:
    held = [peer.call("Hold", Note(text=str(number))) for number in range(3)]
    await peer.flush()
    await running.probe.wait_seen("hold started", 3)
    peer.h2.reset_stream(held[1], ErrorCodes.CANCEL)
    await peer.flush()
    await running.probe.wait_seen("hold cancelled")
    running.probe.release.set()
    assert await peer.reply(held[0]) == Note(text="0")
    assert await peer.reply(held[2]) == Note(text="2")
    assert running.probe.seen.count("hold cancelled") == 1


@pytest.mark.parametrize("politely", [True, False])
async def test_a_lost_client_cancels_its_calls(running: Running, politely: bool) -> None:
    peer = await connect(running.port)
    for _ in range(3):
        peer.call("Hold")
        peer.call("HoldStream")
    await peer.flush()
    await running.probe.wait_seen("hold started", 6)
    if politely:
        await peer.stream.aclose()
    else:
        assert isinstance(peer.stream, trio.SocketStream)
        peer.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.stream.socket.close()  # a TCP reset
    await running.probe.wait_seen("hold cancelled", 3)
    await running.probe.wait_seen("hold ended", 3)


async def test_goaway_of_a_client_lets_its_calls_end(peer: H2Peer, running: Running) -> None:
    stream_id = await peer.hold(running.probe, "HoldStream")
    await peer.send_frames(GoAwayFrame(0, last_stream_id=0, error_code=0))
    await peer.synchronize()
    running.probe.release.set()
    assert await peer.status(stream_id) == "0"
    assert b"last" in peer.data[stream_id]


# ---- frames


async def test_frames_of_unknown_types_are_ignored(peer: H2Peer, running: Running) -> None:
    held = peer.call("Hold", Note(text="x"))
    await peer.flush()
    for kind in (0x0B, 0x20, 0xFF):
        for stream_id in (0, held, 77):
            await peer.stream.send_all(struct.pack("!xHBBL", 8, kind, 0xFF, stream_id) + b"whatever")
    await running.probe.wait_seen("hold started")
    running.probe.release.set()
    assert await peer.reply(held) == Note(text="x")


async def test_pings_are_answered_in_kind(peer: H2Peer) -> None:
    for number in range(10):
        peer.h2.ping(number.to_bytes(8, "big"))
    await peer.flush()
    acks = [(await peer.next(h2.events.PingAckReceived)).ping_data for _ in range(10)]
    assert acks == [number.to_bytes(8, "big") for number in range(10)]


async def test_late_frames_for_ended_streams_are_ignored(peer: H2Peer) -> None:
    ended = peer.call("Echo")
    await peer.flush()
    await peer.reply(ended)
    failed = peer.begin("Nothing")  # answered and reset before its request has come
    await peer.flush()
    await peer.next(h2.events.StreamReset, stream_id=failed)
    await peer.send_frames(
        WindowUpdateFrame(ended, window_increment=1000),
        RstStreamFrame(ended, error_code=ErrorCodes.CANCEL),
        DataFrame(failed, message(Note(data=bytes(1000)))),
        WindowUpdateFrame(failed, window_increment=1000),
    )
    last = peer.call("Echo", Note(text="x"))
    await peer.flush()
    assert await peer.reply(last) == Note(text="x")


async def test_data_for_ended_streams_does_not_use_the_window_up(peer: H2Peer) -> None:
    for _ in range(20):
        failed = peer.begin("Nothing")
        await peer.flush()
        await peer.next(h2.events.StreamReset, stream_id=failed)
        await peer.send_frames(DataFrame(failed, bytes(16_000)))
    last = peer.begin("Echo")
    peer.h2.send_data(last, message(Note(text="x")), end_stream=True)
    await peer.flush()
    assert await peer.reply(last) == Note(text="x")


@pytest.mark.parametrize("start_of", [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\x16\x03\x01\x02\0", b"PRI * HTTP/1.0"])
async def test_other_protocols_are_turned_away(running: Running, start_of: bytes) -> None:
    peer = H2Peer(await trio.open_tcp_stream("127.0.0.1", running.port))
    await peer.stream.send_all(start_of + b"\0" * 30)
    goaways = [event for event in await peer.wait_closed() if isinstance(event, h2.events.ConnectionTerminated)]
    assert goaways[0].error_code == ErrorCodes.PROTOCOL_ERROR
    await peer.stream.aclose()


async def test_a_broken_connection_harms_no_other_one(peer: H2Peer, running: Running, open_peer: Any) -> None:
    held = await peer.hold(running.probe, note=Note(text="x"))
    bad = await open_peer()
    await bad.hold(running.probe)
    await bad.send_frames(DataFrame(99, b"x"))
    await bad.wait_closed()
    await running.probe.wait_seen("hold cancelled")
    running.probe.release.set()
    assert await peer.reply(held) == Note(text="x")


async def test_a_bug_in_one_connection_harms_no_other_one(
    peer: H2Peer,
    running: Running,
    open_peer: Any,
    connections: list[Connection],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not one of a handler's, whose call alone would fail, but of the connection itself."""
    bad = await open_peer()
    for each in (peer, bad):
        each.call("Hold", Note(text="x"))
        await each.flush()
    await running.probe.wait_seen("hold started", 2)

    def fail() -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(connections[-1], "work", fail)
    bad.h2.ping(b"12345678")
    await bad.flush()
    await bad.wait_closed()
    assert running.probe.seen.count("hold cancelled") == 1
    assert "a connection failed" in caplog.text
    running.probe.release.set()
    assert await peer.reply(1) == Note(text="x")
    again = await open_peer()
    again.call("Echo", Note(text="y"))
    await again.flush()
    assert await again.reply(1) == Note(text="y")


# ---- limits


async def test_settings_tell_the_limits(nursery: trio.Nursery) -> None:
    running = await start(nursery, max_streams=7)
    peer = await connect(running.port)
    assert peer.h2.remote_settings.max_concurrent_streams == 7
    assert peer.h2.remote_settings.enable_push == 0
    await trio.aclose_forcefully(peer.stream)


async def test_a_hundred_calls_and_one_more(peer: H2Peer, running: Running) -> None:
    held = [peer.call("Hold", Note(count=number)) for number in range(100)]
    await peer.flush()
    await running.probe.wait_seen("hold started", 100)
    peer.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
    peer.h2.remote_settings.acknowledge()
    late = peer.call("Echo")
    await peer.flush()
    assert (await peer.next(h2.events.StreamReset)).error_code == ErrorCodes.REFUSED_STREAM
    running.probe.release.set()
    for number, stream_id in enumerate(held):
        assert await peer.reply(stream_id) == Note(count=number)
    again = peer.call("Echo", Note(text="x"))
    await peer.flush()
    assert await peer.reply(again) == Note(text="x")
    assert late not in peer.data


async def test_a_call_may_follow_at_once_on_one_that_was_cancelled(nursery: trio.Nursery) -> None:
    """A client that keeps to the limit is not refused because the server has not cleaned up yet."""
    running = await start(nursery, max_streams=10)
    peer = await connect(running.port)
    held = [peer.call("Hold") for _ in range(10)]
    await peer.flush()
    await running.probe.wait_seen("hold started", 10)
    for stream_id in held:
        peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
    calls = [peer.call("Echo", Note(count=number)) for number in range(10)]
    await peer.flush()
    for number, stream_id in enumerate(calls):
        assert await peer.reply(stream_id) == Note(count=number)
    await trio.aclose_forcefully(peer.stream)


# ---- readers


def make_slow_reader(initial_window: int) -> dict[Any, int]:
    return {SettingCodes.INITIAL_WINDOW_SIZE: initial_window}


async def test_a_closed_window_holds_the_handler_up(running: Running, open_peer: Any) -> None:
    peer = await open_peer(make_slow_reader(0))
    stream_id = peer.call("Bulk", Note(text="10000", count=5))
    await peer.flush()
    await peer.next(h2.events.ResponseReceived, stream_id=stream_id)
    await peer.synchronize()
    assert running.probe.bursts == 1
    assert stream_id not in peer.data
    other = peer.call("Fail", Note(text="grpc"))  # trailers need no window
    await peer.flush()
    assert await peer.status(other) == "11"
    peer.h2.increment_flow_control_window(100_000, stream_id)
    await peer.flush()
    assert await peer.status(stream_id) == "0"
    assert len(peer.data[stream_id]) == 5 * len(message(Note(data=bytes(10_000))))


async def test_windows_opened_by_settings(running: Running, open_peer: Any) -> None:
    peer = await open_peer(make_slow_reader(0))
    stream_id = peer.call("Bulk", Note(text="10000", count=1))
    await peer.flush()
    await peer.next(h2.events.ResponseReceived, stream_id=stream_id)
    peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
    await peer.flush()
    assert await peer.status(stream_id) == "0"


async def test_a_window_of_one_byte_at_a_time(running: Running, open_peer: Any) -> None:
    peer = await open_peer(make_slow_reader(1))
    note = Note(data=bulk_data(40))
    stream_id = peer.call("Bulk", Note(text="40", count=1))
    await peer.flush()
    for count in range(len(message(note))):
        await peer.next(h2.events.DataReceived, stream_id=stream_id)
        assert len(peer.data[stream_id]) == count + 1
        if count + 1 == len(message(note)):
            break
        peer.h2.increment_flow_control_window(1, stream_id)
        await peer.flush()
    assert await peer.reply(stream_id) == note


async def test_a_peer_that_does_not_read_costs_one_burst(
    running: Running, open_peer: Any, connections: list[Connection]
) -> None:
    """Large streams with all windows open, and nothing is taken from the socket: what waits in memory is bounded."""
    peer = await open_peer(make_slow_reader(2**31 - 1))
    peer.h2.increment_flow_control_window(2**31 - 1 - 65_535)
    for _ in range(4):
        peer.call("Bulk", Note(text="900000", count=50))
    peer.call("Count", Note(data=bytes(10_000), count=100_000))
    await peer.flush()
    while not (connections and connections[0].is_blocked()):
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    queued = connections[0]._outbox.size
    assert 0 < queued <= BURST + 512 * 1024, queued
    assert running.probe.bursts <= 200
    second = await open_peer()
    call = second.call("Echo", Note(text="x"))
    await second.flush()
    assert await second.reply(call) == Note(text="x")
    bursts = running.probe.bursts
    assert connections[0]._outbox.size <= BURST + 512 * 1024  # less by what the kernel has found room for
    assert bursts < 200
    await trio.aclose_forcefully(peer.stream)
    await running.probe.wait_seen("count ended")


async def test_unread_answers_stop_the_reading_of_requests(
    running: Running, open_peer: Any, connections: list[Connection]
) -> None:
    """A peer that asks and never reads: small answers are bounded, too. Once it reads, it gets all of them."""
    peer = await open_peer(make_slow_reader(2**31 - 1))
    peer.h2.increment_flow_control_window(2**31 - 1 - 65_535)
    # What would tell the peer that it may go on, it does not read; it asks again when its last call has been answered.
    peer.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 2**31 - 1
    peer.h2.remote_settings.acknowledge()
    peer.h2.outbound_flow_control_window = 2**30
    running.probe.release.set()
    note = Note(data=bytes(8_000))
    asked: list[int] = []

    async def ask_for_ever() -> None:
        while True:
            asked.append(peer.call("Hold", note))
            await peer.flush()
            await running.probe.wait_seen("hold ended", len(asked))

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_for_ever)
            while not (connections[0].is_blocked() and connections[0]._outbox.control_size > MAX_CONTROL):
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        asked += [peer.call("Hold", note) for _ in range(7)]  # all that the window takes
        await peer.flush()
        for _ in range(100):
            await trio.testing.wait_all_tasks_blocked()
        queued = connections[0]._outbox.size
        assert queued < MAX_CONTROL + 2 * len(message(note))
        for stream_id in asked:
            assert await peer.reply(stream_id) == note


# ---- keepalive


@pytest.fixture
async def silent_peer(nursery: trio.Nursery, tmp_path: Path) -> Any:
    """On a Unix socket, where bytes arrive at once: virtual time then passes only while nothing is under way."""
    running = await start(nursery, listen=f"unix://{tmp_path}/s", keepalive_s=60)
    peer = H2Peer(await trio.open_unix_socket(tmp_path / "s"), limit_s=inf)
    await peer.shake_hands()
    await peer.hold(running.probe)
    yield peer, running
    await trio.aclose_forcefully(peer.stream)


async def test_a_silent_peer_is_asked_whether_it_is_there(
    silent_peer: tuple[H2Peer, Running], autojump_clock: trio.testing.MockClock
) -> None:
    peer, running = silent_peer
    begun = trio.current_time()
    for asked in range(1, 4):
        await peer.next(h2.events.PingReceived)
        assert trio.current_time() - begun == pytest.approx(60 * asked)
        await peer.flush()  # h2 has queued the answer
    running.probe.release.set()
    assert await peer.status(1) == "0"


async def test_a_peer_that_does_not_answer_is_let_go(
    silent_peer: tuple[H2Peer, Running], autojump_clock: trio.testing.MockClock
) -> None:
    peer, running = silent_peer
    begun = trio.current_time()
    while not peer.closed:
        await peer.receive()
    assert trio.current_time() - begun == pytest.approx(80)
    await running.probe.wait_seen("hold cancelled")
