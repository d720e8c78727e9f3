"""The foreign clients: grpcio in a thread, as its users have it, with nothing of ours between it and the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import trio

from tests.rpc.probe import LIMIT_S, SERVICE, Note

_T = TypeVar("_T")


class GrpcioClient:
    """Calls of the probe over one channel. Every call has a time limit, so that no fault can hang a test."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def unary(self, method: str, note: Note | None = None, *, timeout: float = LIMIT_S, **options: Any) -> Any:
        return self.unary_callable(method)(note or Note(), timeout=timeout, **options)

    def raw(self, path: str) -> Any:
        """A method of bytes to bytes."""
        channel: Any = self.channel
        return channel.unary_unary(path)

    def unary_callable(self, method: str) -> Any:
        return self.channel.unary_unary(f"/{SERVICE}/{method}", bytes, Note.FromString)

    def streaming(self, method: str, note: Note | None = None, *, timeout: float = LIMIT_S, **options: Any) -> Any:
        call = self.channel.unary_stream(f"/{SERVICE}/{method}", bytes, Note.FromString)
        return call(note or Note(), timeout=timeout, **options)

    def collecting(self, method: str, notes: Iterable[Note]) -> Any:
        return self.channel.stream_unary(f"/{SERVICE}/{method}", bytes, Note.FromString)(iter(notes), timeout=LIMIT_S)

    def chatting(self, method: str, notes: Iterable[Note]) -> Any:
        return self.channel.stream_stream(f"/{SERVICE}/{method}", bytes, Note.FromString)(iter(notes), timeout=LIMIT_S)


@contextmanager
def grpcio(address: str, *options: tuple[str, Any], root: bytes | None = None) -> Iterator[GrpcioClient]:
    """A channel of its own: grpcio would share the connections of equal ones."""
    all_options = [("grpc.use_local_subchannel_pool", 1), *options]
    if root is None:
        channel = grpc.insecure_channel(address, options=all_options)
    else:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(root), options=all_options)
    with channel:
        yield GrpcioClient(channel)


async def in_thread(function: Callable[..., _T], *args: Any) -> _T:
    """Run a client that blocks."""
    return await trio.to_thread.run_sync(function, *args)


def failure(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str | None]:
    """Status and text with which a call fails."""
    try:
        result = call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError(f"the call did not fail: {result}")
