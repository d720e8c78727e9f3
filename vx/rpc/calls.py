"""One gRPC call: from its headers to its trailers.

`CallHandler` is what grpclib's events processor hands the calls of one connection to. Each runs as a task of the
connection's nursery in a cancel scope of its own: the client's RST_STREAM or a lost connection cancels it, and
`grpc-timeout` is its deadline. Whatever a handler raises becomes trailers here, and nothing leaves the task.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from math import inf
from typing import Any

import grpclib.server
import trio
from grpclib.const import Handler as Method
from grpclib.const import Status
from grpclib.encoding.base import GRPC_CONTENT_TYPE
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline, _MetadataLike, decode_metadata, encode_grpc_message
from grpclib.protocol import AbstractHandler
from h2.errors import ErrorCodes

from vx.access.gate import Peer
from vx.errors import VxError
from vx.model import Caller
from vx.rpc.codec import Bulk, Codec, MalformedError, TooLargeError, is_small, message_prefix
from vx.rpc.connection import Connection
from vx.rpc.guard import Admit
from vx.rpc.status import to_grpc_error
from vx.rpc.streams import H2Stream, Headers, StreamGoneError, TooSlowError, TruncatedError

log = logging.getLogger(__name__)

MESSAGE_S = 60.0
"""How long a peer may take to send a request message once it is expected, or, where a call has several, begun."""
_MAX_STATUS_TEXT = 600


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field that HPACK neither looks up nor remembers (RFC 7541, 6.2.2; short strings, not Huffman-coded)."""
    return b"".join((b"\0", bytes([len(name)]), name, bytes([len(value)]), value))


_STATUS_200 = b"\x88"  # entry 8 of HPACK's static table
_RESPONSE_BLOCK = _STATUS_200 + _literal(b"content-type", b"application/grpc+proto")
_OK_BLOCK = _literal(b"grpc-status", b"0")

_codec = Codec()
_one_at_a_time = trio.CapacityLimiter(1)
"""For decoding: threads take turns anyhow, and they take turns with everybody else's calls too."""

_current_call: ContextVar[ServerStream] = ContextVar("vx_call")


def current_call() -> ServerStream:
    """The call that this task answers: betterproto's handlers are given the request alone."""
    return _current_call.get()


Readers = Mapping[type, Callable[[Any], Any]]
"""For some types of requests, what makes of the message what their handlers are given in its place.

A large message is decoded and read in one go, off the event loop; so its tree of objects, which takes much more time
and memory than its bytes, lives for no longer than that, and only one at a time does.
"""


class Arrivals:
    """The memory for requests of which a part has come, and for large ones that wait to be decoded, of all calls of a
    server together.

    Without a bound, a few peers could have it fill up with large messages that never end.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Room for a message of `size` bytes. GRPCError(RESOURCE_EXHAUSTED) if there is none."""
        if size > self._free:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "too many large requests arrive at once; try again later")
        self._free -= size
        try:
            yield
        finally:
            self._free += size


class ServerStream(grpclib.server.Stream[Any, Any]):
    """grpclib's view of a call for its handler, with receiving made strict and sending made fast."""

    _stream: H2Stream

    def __init__(
        self,
        stream: H2Stream,
        name: str,
        method: Method,
        *,
        peer: Peer,
        caller: Caller,
        readers: Readers,
        max_message: int,
        arrivals: Arrivals,
        **kwargs: Any,
    ) -> None:
        super().__init__(stream, name, method.cardinality, method.request_type, method.reply_type, **kwargs)
        self.origin = peer
        self.caller = caller
        self._reader = readers.get(method.request_type)
        self._max_message = max_message
        self._arrivals = arrivals
        self._scope = trio.CancelScope()
        self._failure: GRPCError | None = None

    async def run(self, handler: Callable[[ServerStream], Awaitable[None]]) -> GRPCError | None:
        """Let `handler` answer the call; how it failed, if it did. StreamGoneError if nobody can be told."""
        if self.deadline is not None:
            self._scope.deadline = trio.current_time() + self.deadline.time_remaining()
        _current_call.set(self)
        failure: GRPCError | None = None
        try:
            with self._scope:
                failure = await self._guard(handler)
        except Exception as error:  # noqa: BLE001  # what tasks of the handler raised while they were cancelled
            return _translated(error, self._method_name)
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
        """The next request, or what its reader makes of it; None at the end of the client's stream.

        GRPCError as gRPC's own servers answer: UNIMPLEMENTED to a compressed message, RESOURCE_EXHAUSTED to one that
        is too large, INTERNAL to one that is cut off, malformed, or missing, DEADLINE_EXCEEDED to one that takes
        longer than `MESSAGE_S`. What the reader raises.
        """
        prefix = self._stream.recv_nowait(5) or await self._receive(5, may_idle=self._cardinality.client_streaming)
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
        data = self._stream.recv_nowait(size)
        if data is None:
            with self._arrivals.hold(size):
                data = await self._receive(size)
        if len(data) < size:
            raise GRPCError(Status.INTERNAL, "the call ended within a message")
        try:
            if is_small(data, self._recv_type):
                message = self._read(_codec.decode_checked, data)
            else:
                with self._arrivals.hold(size):
                    message = await self._read_in_thread(data)
        except MalformedError as error:
            raise GRPCError(Status.INTERNAL, f"malformed request: {error}") from None
        except TooLargeError as error:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, str(error)) from None
        self._messages_received += 1
        return message

    def _read(self, decode: Callable[[bytearray, Any], Any], data: bytearray) -> Any:
        message = decode(data, self._recv_type)
        return self._reader(message) if self._reader else message

    async def _read_in_thread(self, data: bytearray) -> Any:
        try:
            return await trio.to_thread.run_sync(self._read, _codec.decode, data, limiter=_one_at_a_time)
        except (MalformedError, TooLargeError, VxError) as error:
            # Its traceback and trio's frames hold each other, and with them the message, until the collector comes by.
            raise error.with_traceback(None) from None

    async def _receive(self, size: int, *, may_idle: bool = False) -> bytearray:
        deadline = inf if may_idle else trio.current_time() + MESSAGE_S
        try:
            return await self._stream.recv_data(size, deadline)
        except TruncatedError:
            raise GRPCError(Status.INTERNAL, "the call ended within a message") from None
        except TooSlowError:
            raise GRPCError(
                Status.DEADLINE_EXCEEDED, f"the request message did not come within {MESSAGE_S:.0f} s"
            ) from None

    async def wait_sendable(self) -> None:
        """Let others have their turn, and wait until the peer takes bytes of this call. StreamGoneError if it ends."""
        await trio.lowlevel.checkpoint()
        await self._stream.wait_sendable()

    async def send_message(self, message: Any) -> None:
        """Send a message, an `Encoded` one, or a `Bulk` of several."""
        if not self._send_initial_metadata_done:
            await self.send_initial_metadata()
        if isinstance(message, Bulk):
            await self._stream.send_views(message.views)
        else:
            data = self._codec.encode(message, self._send_type)
            more_follows = not self._cardinality.server_streaming  # the trailers
            await self._stream.send_message(message_prefix(len(data)) + data, more_follows=more_follows)
        self._send_message_done = True

    async def send_initial_metadata(self, *, metadata: _MetadataLike | None = None) -> None:
        """As grpclib's; quick where there is no metadata."""
        if metadata or self._send_initial_metadata_done:
            await super().send_initial_metadata(metadata=metadata)
            return
        self._stream.send_block(_RESPONSE_BLOCK)
        self._send_initial_metadata_done = True

    def send_ok(self) -> None:
        """End a call that went well and has sent its initial metadata."""
        self._stream.send_block(_OK_BLOCK, end_stream=True)
        self._send_trailing_metadata_done = True


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
        self,
        connection: Connection,
        nursery: trio.Nursery,
        methods: Mapping[str, Method],
        *,
        peer: Peer,
        admit: Admit,
        readers: Readers,
        max_message: int,
        arrivals: Arrivals,
    ) -> None:
        self._peer = peer
        self._admit = admit
        self._connection = connection
        self._nursery = nursery
        self._methods = methods
        self._readers = readers
        self._max_message = max_message
        self._arrivals = arrivals
        self._scopes: dict[H2Stream, trio.CancelScope] = {}
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
        except Exception:  # the edge: what goes wrong with one call may not end the others of its connection
            log.exception("a call failed before or after its handler")
            if stream.closable:
                stream.reset_nowait(ErrorCodes.INTERNAL_ERROR)
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
            deadline = Deadline.from_headers(headers) if "grpc-timeout" in fields else None
            metadata = decode_metadata(headers)
        except (ValueError, OverflowError) as error:
            await _refuse(stream, 200, Status.INTERNAL, f"malformed headers: {error}")
            return
        try:
            caller = self._admit(path, metadata, self._peer)
        except VxError as error:
            refusal = to_grpc_error(error)
            await _refuse(stream, 200, refusal.status, str(refusal.message))
            return
        call = ServerStream(
            stream,
            path,
            method,
            peer=self._peer,
            caller=caller,
            readers=self._readers,
            max_message=self._max_message,
            arrivals=self._arrivals,
            codec=_codec,
            status_details_codec=None,
            dispatch=self._dispatch,
            deadline=deadline,
            user_agent=fields.get("user-agent"),
        )
        call.metadata = metadata
        failure = await call.run(method.func)
        if failure is not None:
            await call.send_trailing_metadata(status=failure.status, status_message=_shortened(failure.message))
            return
        if call._send_initial_metadata_done:
            call.send_ok()
        else:
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


def _shortened(text: str | None) -> str:
    """`text` as a header can carry it: it may quote what the client sent, and that may be anything of any size.

    Clients refuse long headers, and hpack's Huffman coding takes time with the square of their length.
    """
    text = (text or "").strip()  # a header's value may not begin or end with white space
    return text if len(text) <= _MAX_STATUS_TEXT else f"{text[:_MAX_STATUS_TEXT]}…"


async def _refuse(stream: H2Stream, http_status: int, status: Status, text: str, *more: tuple[str, str]) -> None:
    """Answer with trailers only."""
    headers = [
        (":status", str(http_status)),
        ("content-type", GRPC_CONTENT_TYPE),
        ("grpc-status", str(status.value)),
        ("grpc-message", encode_grpc_message(_shortened(text))),
        *more,
    ]
    await stream.send_headers(headers, end_stream=True)
    if stream.closable:
        stream.reset_nowait(ErrorCodes.NO_ERROR)
