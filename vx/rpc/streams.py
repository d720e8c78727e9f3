"""The streams of a connection: what has come on one and waits to be read, and sending on it as its windows allow.

They stand in for grpclib's own, which are tied to asyncio.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast

import grpclib.protocol as grpclib_protocol
import trio
from h2.errors import ErrorCodes

from vx.rpc.http2 import ServerH2
from vx.rpc.wire import Buffer

if TYPE_CHECKING:
    from vx.rpc.connection import Connection

Headers = list[tuple[str, str]]

BURST = 1088 * 1024
"""Bytes that one bulk sender queues at a time: what a download reads at once, with the headers of its chunks."""


class Signal:
    """What grpclib's processor sets and one task at a time waits for; every wait is for a set that comes after."""

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def set(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()


class StreamGoneError(Exception):
    """The stream was reset or its connection ended: nothing can be sent on it any more."""


class TruncatedError(Exception):
    """The peer ended its side of the stream within a message."""


class TooSlowError(Exception):
    """What was to come on the stream did not come in time."""


class _Inbox:
    """Received DATA of one stream, acknowledged (its window given back) as it is read."""

    def __init__(self, ack: Callable[[int], None]) -> None:
        self._ack = ack
        self._data = bytearray()
        self._unacked = 0
        self._eof = False
        self._changed = Signal()

    def add(self, data: bytes, ack_size: int) -> None:
        self._data += data
        self._unacked += ack_size
        self._changed.set()

    def eof(self) -> None:
        self._eof = True
        self._changed.set()

    async def read(self, size: int, deadline: float) -> bytearray:
        """Exactly `size` bytes, or none at the end of the stream.

        TruncatedError where it ends in between, TooSlowError where `deadline` (on trio's clock) passes.
        """
        while len(self._data) < size and not self._eof:
            self._give_back()
            with trio.CancelScope(deadline=deadline) as waiting:
                await self._changed.wait()
            if waiting.cancelled_caught:
                raise TooSlowError
        data = self.read_nowait(size)
        if data is not None:
            return data
        if self._data:
            raise TruncatedError
        return bytearray()

    def read_nowait(self, size: int) -> bytearray | None:
        """`size` bytes, if they have come."""
        if len(self._data) < size:
            return None
        self._give_back()
        if len(self._data) == size:  # a whole message, which can be large: not copied
            data, self._data = self._data, bytearray()
            return data
        data = self._data[:size]
        del self._data[:size]
        return data

    def _give_back(self) -> None:
        size, self._unacked = self._unacked, 0
        self._ack(size)

    def unacked_size(self) -> int:
        size, self._unacked = self._unacked, 0
        return size


class H2Stream(grpclib_protocol.Stream):
    """One call's stream, as `grpclib.server.Stream` uses it."""

    id: int
    connection: Connection  # type: ignore[assignment]  # grpclib's own is tied to asyncio
    _h2_connection: ServerH2

    def __init__(self, connection: Connection, h2_connection: ServerH2, stream_id: int) -> None:
        # Not super().__init__: it makes asyncio events. These are all the attributes that grpclib's server side uses.
        self.id = stream_id
        self.connection = connection
        self.wrapper = None
        self.window_updated = Signal()  # type: ignore[assignment]
        self.buffer = _Inbox(partial(connection.ack, stream_id))  # type: ignore[assignment]
        self._h2_connection = h2_connection

    def _h2_stream(self) -> Any:
        stream = self._h2_connection.streams.get(self.id)
        if stream is None or stream.closed or self.connection.is_closing():
            raise StreamGoneError
        return stream

    def recv_nowait(self, size: int) -> bytearray | None:
        """`size` bytes, if they have come."""
        inbox: _Inbox = cast(Any, self.buffer)
        return inbox.read_nowait(size)

    async def recv_data(self, size: int, deadline: float = inf) -> bytearray:  # type: ignore[override]
        """Exactly `size` bytes, or none at the end of the stream. TruncatedError, TooSlowError."""
        inbox: _Inbox = cast(Any, self.buffer)
        return await inbox.read(size, deadline)

    async def send_headers(self, headers: Headers, end_stream: bool = False) -> None:
        """Queue a header block. The last one of the stream leaves at once, an earlier one with what follows it."""
        self._h2_stream()
        self._h2_connection.send_headers(self.id, headers, end_stream=end_stream)
        if end_stream:
            self.connection.flush()

    def send_block(self, block: bytes, *, end_stream: bool = False) -> None:
        """As `send_headers`, of a block that is encoded already (see `ServerH2.queue_block`)."""
        self._h2_stream()
        self._h2_connection.queue_block(self.id, block, end_stream=end_stream)
        if end_stream:
            self.connection.flush()

    async def send_message(self, data: bytes, *, more_follows: bool) -> None:
        """Send one small message with its prefix; where the trailers follow at once, it leaves with them."""
        stream = self._h2_stream()
        if len(data) > min(self._window(stream), self._h2_connection.max_outbound_frame_size):
            await self.send_views([data])
            return
        self._h2_connection.queue_data(stream, data)
        if not more_follows:
            self.connection.flush()
            await self.connection.wait_control_drained()

    def _window(self, stream: Any) -> int:
        stream_window: int = stream.outbound_flow_control_window
        return min(self._h2_connection.outbound_flow_control_window, stream_window)

    async def wait_sendable(self) -> None:
        """Wait until the windows and the kernel take bytes of this stream. StreamGoneError."""
        await self._sendable()

    async def _sendable(self) -> tuple[Any, int]:
        """h2's stream, and how many bytes of it can be sent, once some can. StreamGoneError."""
        while True:
            stream = self._h2_stream()
            if self.connection.is_blocked():
                await self.connection.wait_drained()  # others may have used up the window meanwhile: look again
                continue
            window = self._window(stream)
            if window > 0:
                return stream, window
            self.connection.flush()  # the headers must not wait for the window
            await self.window_updated.wait()

    async def send_views(self, views: Sequence[Buffer]) -> None:
        """Send bytes as DATA frames, from the caller's own buffers.

        Returns once the kernel has taken all of it, so that the buffers can be filled again. Waits for the peer's
        windows; cancelled in between, what the kernel has not taken is still queued, so the buffers must then not be
        reused. No checkpoint where one burst is all, so that the buffers are free before others have their turn: who
        sends more has `ServerStream.wait_sendable` between. StreamGoneError if the stream ends.
        """
        connection = self.connection
        pending = deque(memoryview(view) for view in views if len(view))
        left = sum(map(len, pending))
        while left:
            stream, window = await self._sendable()
            burst = min(window, left, BURST)
            self._h2_connection.use_windows(stream, burst)
            connection.queue_bulk(self.id, pending, burst)
            left -= burst
            connection.flush()
            if connection.is_blocked():
                await connection.wait_drained()
            elif left:
                await trio.lowlevel.checkpoint()

    def reset_nowait(self, error_code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        self._h2_connection.reset_stream(self.id, error_code=error_code)
        self.connection.flush()

    @property
    def closable(self) -> bool:
        try:
            self._h2_stream()
        except StreamGoneError:
            return False
        return True

    def __terminated__(self, reason: str) -> None:
        self.window_updated.set()
        self.buffer.eof()
