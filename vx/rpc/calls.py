"""One gRPC call: from its headers to its trailers.

`CallHandler` is what grpclib's events processor hands the calls of one connection to. Each runs as a task of the
connection's nursery in a cancel scope of its own: the client's RST_STREAM or a lost connection cancels it, and
`grpc-timeout` is its deadline. Whatever a handler raises becomes trailers here, and nothing leaves the task.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import grpclib.server
import trio
from grpclib.const import Handler as Method
from grpclib.const import Status
from grpclib.encoding.base import GRPC_CONTENT_TYPE
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline, decode_metadata, encode_grpc_message
from grpclib.protocol import AbstractHandler
from h2.errors import ErrorCodes

from vx.errors import VxError
from vx.rpc.codec import Bulk, Codec, MalformedError, message_prefix
from vx.rpc.connection import Connection, H2Stream, Headers, StreamGoneError, TruncatedError
from vx.rpc.status import to_grpc_error

log = logging.getLogger(__name__)

_current_call: ContextVar[ServerStream] = ContextVar("vx_call")


def current_call() -> ServerStream:
    """The call that this task answers: betterproto's handlers are given the request alone."""
    return _current_call.get()


class ServerStream(grpclib.server.Stream[Any, Any]):
    """grpclib's view of a call for its handler, with receiving made strict and sending made fast."""

    _stream: H2Stream

    def __init__(self, stream: H2Stream, name: str, method: Method, *, max_message: int, **kwargs: Any) -> None:
        super().__init__(stream, name, method.cardinality, method.request_type, method.reply_type, **kwargs)
        self._max_message = max_message
        self._scope = trio.CancelScope()
        self._failure: GRPCError | None = None

    async def run(self, handler: Callable[[ServerStream], Awaitable[None]]) -> GRPCError | None:
        """Let `handler` answer the call; how it failed, if it did. StreamGoneError if nobody can be told."""
        if self.deadline is not None:
            self._scope.deadline = trio.current_time() + self.deadline.time_remaining()
        _current_call.set(self)
        failure: GRPCError | None = None
        with self._scope:
            failure = await self._guard(handler)
        if self._scope.cancelled_caught:
            return self._failure or GRPCError(Status.DEADLINE_EXCEEDED, "the deadline of the call has passed")
        return failure

    async def _guard(self, handler: Callable[[ServerStream], Awaitable[None]]) -> GRPCError | None:
        try:
            await handler(self)
        except Exception as error:  # noqa: BLE001  # the edge: no handler's fault may end the connection
            return _translated(error, self._method_name)
        if not self._cardinality.server_streaming and not self._send_message_done:
            return _translated(RuntimeError("the handler sent no response"), self._method_name)
        return None

    def abort(self, error: VxError) -> None:
        """End the call with `error` from outside of its task."""
        self._failure = to_grpc_error(error)
        self._scope.cancel()

    async def recv_message(self) -> Any:
        """The next request, or None at the end of the client's stream.

        GRPCError as gRPC's own servers answer: UNIMPLEMENTED to a compressed message, RESOURCE_EXHAUSTED to one that
        is too large, INTERNAL to one that is cut off, malformed, or missing.
        """
        prefix = await self._receive(5)
        if not prefix:
            if self._cardinality.client_streaming or self._messages_received:
                return None
            raise GRPCError(Status.INTERNAL, "the call ended without a request message")
        if prefix[0]:
            raise GRPCError(Status.UNIMPLEMENTED, "the message is compressed; this server takes identity only")
        size = int.from_bytes(prefix[1:], "big")
        if size > self._max_message:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED, f"the message has {size} bytes; at most {self._max_message} are allowed"
            )
        data = await self._receive(size)
        if len(data) < size:
            raise GRPCError(Status.INTERNAL, "the call ended within a message")
        try:
            message = self._codec.decode(data, self._recv_type)
        except MalformedError as error:
            raise GRPCError(Status.INTERNAL, f"malformed request: {error}") from None
        self._messages_received += 1
        return message

    async def _receive(self, size: int) -> bytes:
        try:
            return await self._stream.recv_data(size)
        except TruncatedError:
            raise GRPCError(Status.INTERNAL, "the call ended within a message") from None

    async def send_message(self, message: Any) -> None:
        """Send a message, an `Encoded` one, or a `Bulk` of several."""
        if not self._send_initial_metadata_done:
            await self.send_initial_metadata()
        if isinstance(message, Bulk):
            await self._stream.send_views(message.views)
        else:
            data = self._codec.encode(message, self._send_type)
            await self._stream.send_data(message_prefix(len(data)) + data)
        self._send_message_done = True


class StreamsResponses:
    """Mixed into a service in front of betterproto's base: its streaming handlers are closed when the call ends.

    betterproto iterates the generator without closing it, and a cancelled download would keep its lease until the
    garbage collector comes by.
    """

    async def _call_rpc_handler_server_stream(
        self, handler: Callable[..., Any], stream: grpclib.server.Stream[Any, Any], request: Any
    ) -> None:
        async with aclosing(handler(request)) as responses:
            async for response in responses:
                await stream.send_message(response)


class CallHandler(AbstractHandler):
    """The calls of one connection."""

    def __init__(
        self, connection: Connection, nursery: trio.Nursery, methods: Mapping[str, Method], *, max_message: int
    ) -> None:
        self._connection = connection
        self._nursery = nursery
        self._methods = methods
        self._max_message = max_message
        self._scopes: dict[H2Stream, trio.CancelScope] = {}
        self._codec = Codec()
        self._dispatch = _DispatchServerEvents()

    def accept(self, stream: Any, headers: Any, release_stream: Callable[[], None]) -> None:
        self._scopes[stream] = scope = trio.CancelScope()
        self._nursery.start_soon(self._serve, scope, stream, headers, release_stream)

    def cancel(self, stream: Any) -> None:
        self._scopes[stream].cancel()

    def close(self) -> None:
        for scope in self._scopes.values():
            scope.cancel()

    async def _serve(
        self, scope: trio.CancelScope, stream: H2Stream, headers: Headers, release_stream: Callable[[], None]
    ) -> None:
        try:
            with scope:
                await self._answer(stream, headers)
        except StreamGoneError:
            pass  # the client left; there is nobody to tell
        finally:
            del self._scopes[stream]
            release_stream()
            self._connection.call_ended()

    async def _answer(self, stream: H2Stream, headers: Headers) -> None:
        fields = dict(headers)
        path = fields.get(":path", "")
        if fields.get(":method") != "POST":
            await _refuse(stream, 405, Status.INTERNAL, "gRPC calls are POST requests")
            return
        base_type, _, subtype = fields.get("content-type", "").partition("+")
        if base_type != GRPC_CONTENT_TYPE or subtype not in ("", "proto"):
            await _refuse(stream, 415, Status.INTERNAL, "the content-type must be application/grpc")
            return
        method = self._methods.get(path)
        if method is None:
            await _refuse(stream, 200, Status.UNIMPLEMENTED, f"there is no method {path}")
            return
        encoding = fields.get("grpc-encoding", "identity")
        if encoding != "identity":
            text = f"messages in the encoding {encoding} are not taken; identity only"
            await _refuse(stream, 200, Status.UNIMPLEMENTED, text, ("grpc-accept-encoding", "identity"))
            return
        try:
            deadline = Deadline.from_headers(headers)
            metadata = decode_metadata(headers)
        except ValueError as error:
            await _refuse(stream, 200, Status.INTERNAL, f"malformed headers: {error}")
            return
        call = ServerStream(
            stream,
            path,
            method,
            max_message=self._max_message,
            codec=self._codec,
            status_details_codec=None,
            dispatch=self._dispatch,
            deadline=deadline,
            user_agent=fields.get("user-agent"),
        )
        call.metadata = metadata
        failure = await call.run(method.func)
        if failure is not None:
            await call.send_trailing_metadata(status=failure.status, status_message=failure.message)
            return
        await call.send_trailing_metadata()
        if stream.closable:  # the client has not ended its side; what it may still send, nobody will read
            stream.reset_nowait()


def _translated(error: Exception, method_name: str) -> GRPCError:
    """`error` as the client gets it; StreamGoneError passes through."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # raised in a nursery of the handler
    match error:
        case GRPCError():
            return error
        case VxError():
            return to_grpc_error(error)
        case StreamGoneError():
            raise error
    reference = secrets.token_hex(4)
    log.error("%s failed, reference %s", method_name, reference, exc_info=error)
    return GRPCError(Status.INTERNAL, f"the server failed; its log tells more under the reference {reference}")


async def _refuse(stream: H2Stream, http_status: int, status: Status, text: str, *more: tuple[str, str]) -> None:
    """Answer with trailers only."""
    headers = [
        (":status", str(http_status)),
        ("content-type", GRPC_CONTENT_TYPE),
        ("grpc-status", str(status.value)),
        ("grpc-message", encode_grpc_message(text)),
        *more,
    ]
    await stream.send_headers(headers, end_stream=True)
    if stream.closable:
        stream.reset_nowait(ErrorCodes.NO_ERROR)
