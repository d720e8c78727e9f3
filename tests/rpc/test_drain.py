"""The end of a server in good order: what is under way may end, what is new goes elsewhere."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import h2.events
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from hyperframe.frame import PingFrame

from tests.rpc import peers
from tests.rpc.foreign import GrpcioClient, failure, grpcio, in_thread
from tests.rpc.hand_driven import H2Peer, close_all, connect
from tests.rpc.peers import PROBE_PATH, InMemory
from tests.rpc.probe import LIMIT_S, Note, Running, start


@pytest.fixture
async def running(nursery: trio.Nursery) -> Running:
    return await start(nursery)


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits long for answers, so that no test passes, or fails, because it has not waited."""
    monkeypatch.setattr("vx.rpc.connection._LINGER_S", 10 * LIMIT_S)


@pytest.fixture
def hurry(no_hurry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not wait for answers."""
    monkeypatch.setattr("vx.rpc.connection._LINGER_S", 0.05)


async def wait_ended(running: Running) -> None:
    with trio.fail_after(LIMIT_S):
        await running.ended.wait()


async def test_an_idle_server_ends(running: Running) -> None:
    running.server.drain()
    await wait_ended(running)


async def test_new_connections_are_refused(running: Running) -> None:
    peer = await connect(running.port)
    await peer.hold(running.probe)
    running.server.drain()
    await peer.next(h2.events.ConnectionTerminated)
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", running.port)
    running.probe.release.set()
    await peer.wait_closed()
    await close_all([peer])
    await wait_ended(running)


async def test_both_goaways_and_the_calls_around_them(running: Running) -> None:
    peer = await connect(running.port)
    held = await peer.hold(running.probe, "HoldStream")
    running.server.drain()
    first = await peer.next(h2.events.ConnectionTerminated)
    assert (first.error_code, first.last_stream_id) == (ErrorCodes.NO_ERROR, 2**31 - 1)
    # A call that was on its way when the GOAWAY came is taken; the answer to the PING is not sent yet.
    ping = peer.h2.data_to_send()
    on_its_way = await peer.hold(running.probe, note=Note(text="on its way"))
    await peer.stream.send_all(ping)
    second = await peer.next(h2.events.ConnectionTerminated)
    assert (second.error_code, second.last_stream_id) == (ErrorCodes.NO_ERROR, on_its_way)
    late = peer.call("Echo")
    await peer.flush()
    reset = await peer.next(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (late, ErrorCodes.REFUSED_STREAM)
    assert not running.ended.is_set()
    running.probe.release.set()
    assert await peer.reply(on_its_way) == Note(text="on its way")
    assert await peer.status(held) == "0"
    await peer.wait_closed()
    await peer.stream.aclose()
    await wait_ended(running)


async def test_a_peer_that_does_not_answer_the_ping_gets_the_second_goaway_all_the_same(
    running: Running, hurry: None
) -> None:
    peer = await connect(running.port)
    stream_id = await peer.hold(running.probe, note=Note(text="x"))
    running.server.drain()
    await peer.next(h2.events.ConnectionTerminated)
    second = await peer.next(h2.events.ConnectionTerminated)
    assert second.last_stream_id == stream_id
    running.probe.release.set()
    assert await peer.reply(stream_id) == Note(text="x")
    await peer.wait_closed()
    await peer.stream.aclose()
    await wait_ended(running)


async def test_the_last_answers_arrive_whole(running: Running) -> None:
    """The connection ends behind the last byte, not behind the last one that was queued."""
    peer = await connect(running.port)
    stream_id = peer.call("Bulk", Note(text="60000", count=1))
    peer.h2.ping(b"12345678")
    await peer.flush()
    running.server.drain()
    await peer.next(h2.events.PingAckReceived)
    await peer.flush()
    assert await peer.status(stream_id) == "0"
    assert len(peer.data[stream_id]) > 60_000
    await peer.wait_closed()
    await peer.stream.aclose()
    await wait_ended(running)


@pytest.mark.parametrize("draining_already", [False, True])
async def test_a_call_that_ends_in_its_first_turn_does_not_hold_the_end_up(
    nursery: trio.Nursery, draining_already: bool
) -> None:
    """It begins and ends before its connection is looked at again, and nobody else's turn comes to close it."""
    memory = InMemory()
    nursery.start_soon(memory.run)
    count = peers.headers(1, peers.block(peers.fields(PROBE_PATH + "Count")))
    call = count + peers.data(1, peers.prefixed(b""), "END_STREAM")
    acknowledged = PingFrame(0, b"vx-drain", flags=["ACK"]).serialize()
    memory.wire.feed(peers.GREETING + (b"" if draining_already else call))
    if draining_already:
        await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(memory.connection.drain)
    await trio.testing.wait_all_tasks_blocked()
    assert not memory.wire.eof_sent
    memory.wire.feed((call if draining_already else b"") + acknowledged)
    await trio.testing.wait_all_tasks_blocked()
    assert memory.answer(1)["grpc-status"] == "0"
    assert memory.wire.eof_sent
    nursery.cancel_scope.cancel()


async def test_calls_of_grpcio_end_and_its_next_ones_go_elsewhere(running: Running) -> None:
    drained = threading.Event()

    def client() -> Any:
        with grpcio(running.address) as calls:
            held = [calls.unary_callable("Hold").future(Note(count=number), timeout=LIMIT_S) for number in range(5)]
            stream = calls.streaming("HoldStream")
            assert next(stream).text == "first"
            assert drained.wait(LIMIT_S)
            next_one = failure(lambda: call_until_refused(calls))
            trio.from_thread.run_sync(running.probe.release.set)
            return next_one[0], [each.result() for each in held], list(stream)

    def call_until_refused(calls: GrpcioClient) -> None:
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:  # what is called before grpcio has read the GOAWAY is still answered
            calls.unary("Echo")

    async def drain() -> None:
        await running.probe.wait_seen("hold started", 6)
        running.server.drain()
        drained.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        refused, held, stream = await in_thread(client)
    assert refused is grpc.StatusCode.UNAVAILABLE
    assert held == [Note(count=number) for number in range(5)]
    assert stream == [Note(text="last")]
    await wait_ended(running)


async def test_cancelling_ends_all_calls_at_once() -> None:
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            running = await start(nursery)
            peers = [await connect(running.port) for _ in range(3)]
            for peer in peers:
                peer.call("Hold")
                await peer.flush()
            await running.probe.wait_seen("hold started", 3)
            nursery.cancel_scope.cancel()
    assert running.probe.seen.count("hold cancelled") == 3
    for peer in peers:
        await peer.wait_closed()
    await close_all(peers)


async def test_a_connection_that_begins_nothing_does_not_hold_the_end_up(running: Running, hurry: None) -> None:
    silent = await trio.open_tcp_stream("127.0.0.1", running.port)
    peer = await connect(running.port)  # accepted behind it
    running.server.drain()
    await H2Peer(silent).wait_closed()
    await silent.aclose()
    await peer.stream.aclose()
    await wait_ended(running)
