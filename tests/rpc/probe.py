"""A service that does what a test asks of it, and the server that offers it on a real socket in the test's own loop."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import betterproto
import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from vx.config.addresses import Address
from vx.errors import Kind, VxError
from vx.rpc.calls import StreamsResponses, current_call
from vx.rpc.codec import Bulk, message_prefix
from vx.rpc.server import Limits, Server, describe, open_listener

SERVICE = "vx.test.Probe"
LIMIT_S = 20
"""A test that waits this long for anything has failed. Nothing waits for it where all is well."""


@dataclass(eq=True, repr=True)
class Note(betterproto.Message):
    """Both request and response of all methods."""

    text: str = betterproto.string_field(1)
    data: bytes = betterproto.bytes_field(2)
    count: int = betterproto.int64_field(3)


@functools.cache
def bulk_data(size: int) -> bytes:
    """What Bulk sends for a message of `size` bytes: no two of its stretches are the same."""
    return (b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1)))[:size]


class Probe(StreamsResponses):
    """Methods as betterproto would generate them."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        """What calls have come to, in order: `hold started`, `hold cancelled`, …"""
        self._news = trio.lowlevel.ParkingLot()
        self.release = trio.Event()
        """Lets Hold and HoldStream end."""
        self.bursts = 0
        """How many of Bulk's buffers were taken from it."""

    def note(self, line: str) -> None:
        self.seen.append(line)
        self._news.unpark_all()

    async def wait_seen(self, line: str, times: int = 1) -> None:
        with trio.fail_after(LIMIT_S):
            while self.seen.count(line) < times:
                await self._news.park()

    # ---- the methods

    async def echo(self, request: Note) -> Note:
        return request

    async def metadata(self, request: Note) -> Note:
        metadata = current_call().metadata
        assert metadata is not None
        blob = metadata.get("blob-bin", b"")
        assert isinstance(blob, bytes)
        return Note(text=str(metadata.get(request.text, "")), data=blob)

    async def hold(self, request: Note) -> Note:
        self.note("hold started")
        try:
            await self.release.wait()
        except trio.Cancelled:
            self.note("hold cancelled")
            raise
        self.note("hold ended")
        return request

    async def fail(self, request: Note) -> Note:
        match request.text:
            case "vx":
                raise VxError(Kind.NOT_FOUND, "nichts da: „Tür“ ☂ 100%", field="text")
            case "grpc":
                raise GRPCError(Status.OUT_OF_RANGE, "too far")
            case "bug":
                raise KeyError("secret detail")
            case "group":
                async with trio.open_nursery():
                    raise VxError(Kind.INVALID, "inside a nursery")
            case "group of two":
                raise ExceptionGroup("several", [ValueError("secret detail"), VxError(Kind.INVALID, "also")])
            case "long":
                raise VxError(Kind.INVALID, "ü" * 100_000, field="text")
            case "foul clean-up":
                await self._fail_while_cancelled()
        return request

    async def _fail_while_cancelled(self) -> None:
        async def clean_up_badly() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise RuntimeError("secret detail")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(clean_up_badly)
            nursery.start_soon(trio.sleep_forever)
            self.note("foul started")

    async def count(self, request: Note) -> AsyncIterator[Note]:
        try:
            for index in range(request.count):
                yield Note(text=request.text, data=request.data, count=index)
            if request.text == "fail":
                raise VxError(Kind.ABORTED, "after the last one")
        finally:
            self.note("count ended")

    async def hold_stream(self, request: Note) -> AsyncIterator[Note]:
        try:
            yield Note(text="first")
            self.note("hold started")
            await self.release.wait()
            yield Note(text="last")
        finally:
            self.note("hold ended")

    async def bulk(self, request: Note) -> AsyncIterator[Any]:
        """`count` messages of as many bytes as `text` says, each from the same buffer, which is wiped in between."""
        body = bytes(Note(data=bulk_data(int(request.text))))
        buffer = bytearray(len(body))
        for _ in range(request.count):
            buffer[:] = body
            self.bursts += 1
            yield Bulk([message_prefix(len(body)), memoryview(buffer)])
            buffer[:] = bytes(len(body))

    async def cut(self, request: Note) -> AsyncIterator[Any]:
        """Half a message; then the call fails from outside."""
        body = bytes(Note(data=bytes(100_000)))
        yield Bulk([message_prefix(len(body)), body[:50_000]])
        current_call().abort(VxError(Kind.ABORTED, "taken away"))
        await trio.sleep_forever()

    async def collect(self, requests: AsyncIterator[Note]) -> Note:
        texts = []
        async for request in requests:
            self.note(f"collected {request.text}")
            texts.append(request.text)
        return Note(text=" ".join(texts), count=len(texts))

    async def chat(self, requests: AsyncIterator[Note]) -> AsyncIterator[Note]:
        async for request in requests:
            yield request

    def __mapping__(self) -> dict[str, Handler]:
        def unary(method: Callable[[Note], Awaitable[Note]]) -> Any:
            async def answer(stream: Any) -> None:
                await stream.send_message(await method(await stream.recv_message()))

            return answer

        def streaming(method: Callable[[Any], AsyncIterator[Any]], many: bool = False) -> Any:
            async def answer(stream: Any) -> None:
                request = aiter(stream) if many else await stream.recv_message()
                await self._call_rpc_handler_server_stream(method, stream, request)

            return answer

        async def collect(stream: Any) -> None:
            await stream.send_message(await self.collect(aiter(stream)))

        methods = {
            "Echo": (unary(self.echo), Cardinality.UNARY_UNARY),
            "Metadata": (unary(self.metadata), Cardinality.UNARY_UNARY),
            "Hold": (unary(self.hold), Cardinality.UNARY_UNARY),
            "Fail": (unary(self.fail), Cardinality.UNARY_UNARY),
            "Count": (streaming(self.count), Cardinality.UNARY_STREAM),
            "HoldStream": (streaming(self.hold_stream), Cardinality.UNARY_STREAM),
            "Bulk": (streaming(self.bulk), Cardinality.UNARY_STREAM),
            "Cut": (streaming(self.cut), Cardinality.UNARY_STREAM),
            "Collect": (collect, Cardinality.STREAM_UNARY),
            "Chat": (streaming(self.chat, many=True), Cardinality.STREAM_STREAM),
        }
        return {
            f"/{SERVICE}/{name}": Handler(function, cardinality, Note, Note)
            for name, (function, cardinality) in methods.items()
        }


@dataclass(frozen=True)
class Running:
    """A server under test."""

    server: Server
    probe: Probe
    address: str
    ended: trio.Event
    """`Server.serve` has returned."""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


async def start(
    nursery: trio.Nursery,
    *,
    listen: str = "127.0.0.1:0",
    tls: ssl.SSLContext | None = None,
    max_connections: int = 2000,
    max_connections_per_address: int = 2000,
    max_streams: int = 100,
    max_message: int = 1 << 20,
    keepalive_s: float = 3600,
) -> Running:
    """Serve a probe in `nursery`, which ends it by being cancelled."""
    probe = Probe()
    limits = Limits(
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        max_streams=max_streams,
        max_message=max_message,
        keepalive_s=keepalive_s,
    )
    server = Server([probe], limits, tls=tls)
    listener = open_listener(Address.parse(listen))
    ended = trio.Event()

    async def serve() -> None:
        await server.serve([listener])
        ended.set()

    nursery.start_soon(serve)
    return Running(server, probe, describe(listener), ended)
