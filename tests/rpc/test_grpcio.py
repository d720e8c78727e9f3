"""What a stock grpcio client is promised."""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import Any

import grpc
import pytest
import trio

from tests.rpc.foreign import failure, grpcio, in_thread
from tests.rpc.probe import LIMIT_S, SERVICE, Note, Running, bulk_data, start


@pytest.fixture
async def running(nursery: trio.Nursery) -> Running:
    return await start(nursery)


async def test_unary(running: Running) -> None:
    notes = [Note(), Note(text="Tür ☂", count=-1), Note(data=bulk_data(500_000))]

    def client() -> list[Note]:
        with grpcio(running.address) as calls:
            return [calls.unary("Echo", note) for note in notes]

    assert await in_thread(client) == notes


async def test_server_streaming(running: Running) -> None:
    def client() -> tuple[list[Note], list[Note]]:
        with grpcio(running.address) as calls:
            return (
                list(calls.streaming("Count", Note(text="a", data=b"\0" * 1000, count=300))),
                list(calls.streaming("Count", Note(count=0))),
            )

    many, none = await in_thread(client)
    assert [note.count for note in many] == list(range(300))
    assert many[-1] == Note(text="a", data=b"\0" * 1000, count=299)
    assert none == []


async def test_bulk_messages_arrive_whole(running: Running) -> None:
    size = 900_000

    def client() -> list[Note]:
        with grpcio(running.address) as calls:
            return list(calls.streaming("Bulk", Note(text=str(size), count=8)))

    notes = await in_thread(client)
    assert notes == [Note(data=bulk_data(size))] * 8


async def test_client_streaming_and_both(running: Running) -> None:
    notes = [Note(text=str(number)) for number in range(50)]

    def client() -> tuple[Note, Note, list[Note]]:
        with grpcio(running.address) as calls:
            none = calls.collecting("Collect", [])
            return calls.collecting("Collect", notes), none, list(calls.chatting("Chat", notes))

    collected, none, chat = await in_thread(client)
    assert collected == Note(text=" ".join(map(str, range(50))), count=50)
    assert none == Note()
    assert chat == notes


async def test_chat_goes_back_and_forth(running: Running) -> None:
    def client() -> list[str]:
        answered = threading.Semaphore(1)

        def talk() -> Any:
            for number in range(20):
                answered.acquire()
                yield Note(text=str(number))

        texts = []
        with grpcio(running.address) as calls:
            for note in calls.chatting("Chat", talk()):
                texts.append(note.text)
                answered.release()
        return texts

    assert await in_thread(client) == [str(number) for number in range(20)]


@pytest.mark.parametrize(
    ("what", "status", "text"),
    [
        ("vx", grpc.StatusCode.NOT_FOUND, "text: nichts da: „Tür“ ☂ 100%"),
        ("grpc", grpc.StatusCode.OUT_OF_RANGE, "too far"),
        ("group", grpc.StatusCode.INVALID_ARGUMENT, "inside a nursery"),
    ],
)
async def test_errors_keep_their_text(running: Running, what: str, status: grpc.StatusCode, text: str) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            return failure(lambda: calls.unary("Fail", Note(text=what)))

    assert await in_thread(client) == (status, text)


@pytest.mark.parametrize("what", ["bug", "group of two"])
async def test_a_bug_tells_the_client_a_reference_and_the_log_the_rest(
    running: Running, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            return failure(lambda: calls.unary("Fail", Note(text=what))), calls.unary("Echo", Note(text="still there"))

    (status, text), after = await in_thread(client)
    assert status is grpc.StatusCode.INTERNAL
    found = re.search(r"reference ([0-9a-f]{8})$", text)
    assert found
    assert "secret" not in text
    assert found[1] in caplog.text
    assert "secret detail" in caplog.text
    assert after == Note(text="still there")


async def test_an_error_after_messages(running: Running) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            notes: list[Note] = []
            return failure(lambda: notes.extend(calls.streaming("Count", Note(text="fail", count=3)))), notes

    error, notes = await in_thread(client)
    assert error == (grpc.StatusCode.ABORTED, "after the last one")
    assert [note.count for note in notes] == [0, 1, 2]


async def test_an_error_within_a_message(running: Running) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            return failure(lambda: list(calls.streaming("Cut"))), calls.unary("Echo", Note(text="x"))

    error, after = await in_thread(client)
    assert error == (grpc.StatusCode.ABORTED, "taken away")
    assert after == Note(text="x")


async def test_an_error_longer_than_clients_take_is_cut(running: Running) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            return failure(lambda: calls.unary("Fail", Note(text="long")))

    status, text = await in_thread(client)
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("text: üüü")
    assert text.endswith("ü…")


async def test_metadata(running: Running) -> None:
    blob = bytes(range(256))

    def client() -> Any:
        with grpcio(running.address) as calls:
            metadata = [("auth_token", "a b=c"), ("blob-bin", blob)]
            return calls.unary("Metadata", Note(text="auth_token"), metadata=metadata)

    assert await in_thread(client) == Note(text="a b=c", data=blob)


@pytest.mark.parametrize("method", ["/vx.test.Probe/Nothing", "/vx.test.Nobody/Echo", "/nothing"])
async def test_unknown_methods(running: Running, method: str) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            return failure(lambda: calls.raw(method)(b"", timeout=LIMIT_S))

    assert await in_thread(client) == (grpc.StatusCode.UNIMPLEMENTED, f"there is no method {method}")


async def test_the_limit_of_a_request(nursery: trio.Nursery) -> None:
    running = await start(nursery, max_message=100_000)
    fits = Note(data=bytes(100_000 - 4))
    assert len(bytes(fits)) == 100_000

    def client() -> Any:
        with grpcio(running.address) as calls:
            assert calls.unary("Echo", fits) == fits
            return failure(lambda: calls.unary("Echo", Note(data=bytes(100_000 - 3)))), calls.unary("Echo")

    error, after = await in_thread(client)
    assert error == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "the message has 100001 bytes; at most 100000 are allowed",
    )
    assert after == Note()


async def test_a_compressed_request(running: Running) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            note = Note(data=bytes(10_000))
            error = failure(lambda: calls.unary("Echo", note, compression=grpc.Compression.Gzip))
            return error, calls.unary("Echo", note)

    error, after = await in_thread(client)
    assert error[0] is grpc.StatusCode.UNIMPLEMENTED
    assert "identity" in error[1]
    assert after == Note(data=bytes(10_000))


async def test_malformed_requests(running: Running) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            raw = calls.raw(f"/{SERVICE}/Echo")
            return [failure(partial(raw, data, timeout=LIMIT_S)) for data in (b"\x0a\x05ab", b"\xff" * 12, b"\x0b")]

    for status, text in await in_thread(client):
        assert status is grpc.StatusCode.INTERNAL
        assert text.startswith("malformed request: Note: ")


async def test_the_deadline_of_the_call_ends_it_on_the_server(running: Running) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            unary = failure(lambda: calls.unary("Hold", timeout=0.2))
            return unary[0], failure(lambda: list(calls.streaming("HoldStream", timeout=0.2)))[0]

    assert await in_thread(client) == (grpc.StatusCode.DEADLINE_EXCEEDED,) * 2
    await running.probe.wait_seen("hold cancelled")
    await running.probe.wait_seen("hold ended")


async def test_cancelling_reaches_the_handler(running: Running) -> None:
    started = threading.Event()

    def client() -> Any:
        with grpcio(running.address) as calls:
            unary = calls.unary_callable("Hold").future(Note(), timeout=20)
            started.wait(20)
            unary.cancel()
            stream = calls.streaming("HoldStream")
            assert next(stream).text == "first"
            stream.cancel()
            return failure(lambda: next(stream))[0], calls.unary("Echo", Note(text="x"))

    async def tell() -> None:
        await running.probe.wait_seen("hold started")
        started.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        assert await in_thread(client) == (grpc.StatusCode.CANCELLED, Note(text="x"))
    await running.probe.wait_seen("hold cancelled")
    await running.probe.wait_seen("hold ended")


async def test_a_foul_clean_up_harms_no_other_call(running: Running) -> None:
    started = threading.Event()

    def client() -> Any:
        with grpcio(running.address) as calls:
            other = calls.unary_callable("Hold").future(Note(text="other"), timeout=20)
            foul = calls.unary_callable("Fail").future(Note(text="foul clean-up"), timeout=20)
            started.wait(20)
            foul.cancel()
            calls.unary("Echo")
            trio.from_thread.run_sync(running.probe.release.set)
            return other.result()

    async def tell() -> None:
        await running.probe.wait_seen("hold started")
        await running.probe.wait_seen("foul started")
        started.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        assert await in_thread(client) == Note(text="other")


async def test_many_calls_at_once_on_one_connection(running: Running) -> None:
    def client() -> list[Note]:
        with grpcio(running.address) as calls:
            futures = [calls.unary_callable("Echo").future(Note(count=number), timeout=20) for number in range(500)]
            return [future.result() for future in futures]

    assert await in_thread(client) == [Note(count=number) for number in range(500)]


async def test_pings_of_the_client_keep_the_connection(running: Running) -> None:
    options = [
        ("grpc.keepalive_time_ms", 10),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]

    def client() -> list[Note]:
        with grpcio(running.address, *options) as calls:
            return list(calls.streaming("HoldStream"))

    async def release() -> None:
        await running.probe.wait_seen("hold started")
        running.probe.release.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release)
        assert [note.text for note in await in_thread(client)] == ["first", "last"]
