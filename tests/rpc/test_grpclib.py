"""What grpclib's own client is promised; it is what betterproto's generated stubs use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpclib.client
import pytest
import trio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from multidict import MultiDict

from tests.rpc.foreign import in_thread
from tests.rpc.probe import LIMIT_S, SERVICE, Note, Running, bulk_data, start
from vx.rpc.codec import Codec

_T = TypeVar("_T")


@pytest.fixture
async def running(nursery: trio.Nursery) -> Running:
    return await start(nursery)


async def run_client(running: Running, use: Callable[[grpclib.client.Channel], Awaitable[_T]]) -> _T:
    """Let `use` call the server from an asyncio loop in a thread."""

    async def client() -> _T:
        channel = grpclib.client.Channel("127.0.0.1", running.port, codec=Codec())
        async with asyncio.timeout(LIMIT_S), channel:
            return await use(channel)

    return await in_thread(lambda: asyncio.run(client()))


def open_call(channel: grpclib.client.Channel, method: str, cardinality: Cardinality, **options: Any) -> Any:
    return channel.request(f"/{SERVICE}/{method}", cardinality, Note, Note, **options)


async def call(channel: grpclib.client.Channel, method: str, note: Note, **options: Any) -> Note | None:
    async with open_call(channel, method, Cardinality.UNARY_UNARY, **options) as stream:
        await stream.send_message(note, end=True)
        answer: Note | None = await stream.recv_message()
        return answer


async def test_unary_and_its_metadata(running: Running) -> None:
    async def use(channel: grpclib.client.Channel) -> Note | None:
        metadata = MultiDict([("auth_token", "secret"), ("blob-bin", b"\0\xff")])
        return await call(channel, "Metadata", Note(text="auth_token"), metadata=metadata)

    assert await run_client(running, use) == Note(text="secret", data=b"\0\xff")


async def test_large_messages_both_ways(running: Running) -> None:
    async def use(channel: grpclib.client.Channel) -> list[Note]:
        async with open_call(channel, "Chat", Cardinality.STREAM_STREAM) as stream:
            for _ in range(4):
                await stream.send_message(Note(data=bulk_data(800_000)))
                assert await stream.recv_message() == Note(data=bulk_data(800_000))
            await stream.end()
            assert await stream.recv_message() is None
        async with open_call(channel, "Bulk", Cardinality.UNARY_STREAM) as stream:
            await stream.send_message(Note(text="800000", count=4), end=True)
            return [note async for note in stream]

    assert await run_client(running, use) == [Note(data=bulk_data(800_000))] * 4


async def test_errors(running: Running) -> None:
    async def use(channel: grpclib.client.Channel) -> GRPCError:
        with pytest.raises(GRPCError) as caught:
            await call(channel, "Fail", Note(text="vx"))
        return caught.value

    error = await run_client(running, use)
    assert (error.status, error.message) == (Status.NOT_FOUND, "text: nichts da: „Tür“ ☂ 100%")


async def test_cancelling_and_deadlines(running: Running) -> None:
    async def use(channel: grpclib.client.Channel) -> None:
        async with open_call(channel, "HoldStream", Cardinality.UNARY_STREAM) as stream:
            await stream.send_message(Note(), end=True)
            assert await stream.recv_message() == Note(text="first")
            await stream.cancel()
        with pytest.raises(TimeoutError):
            await call(channel, "Hold", Note(), timeout=0.1)

    await run_client(running, use)
    await running.probe.wait_seen("hold ended")
    await running.probe.wait_seen("hold cancelled")
