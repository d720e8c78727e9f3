"""One HTTP/2 connection of the server: grpclib's protocol layer re-hosted on trio.

What is taken from grpclib as it is: `EventsProcessor` (h2 events → streams) and `AbstractHandler` (who accepts calls).
What is replaced, because grpclib ties it to asyncio: the connection, its streams and their receive buffers. Four rules
hold here:

- Everything that is sent goes through one queue in the order in which h2 was told of it, and leaves by `sendmsg` at
  once if the socket takes it; a writer task waits only for a socket that is full.
- Bulk data never passes through h2: `H2Stream.send_views` puts frame headers and the caller's own buffers into the
  queue and takes their size from both flow-control windows itself.
- Memory is bounded: a bulk sender has one burst under way, and while a peer does not read our answers, we stop
  reading its requests.
- A peer that makes work without using it is told ENHANCE_YOUR_CALM and closed (see `_Budget`). What one peer sends
  is dealt with a few frames at a time, so that the others' calls get their turn in between; and what a peer has
  begun, be it its greeting, a frame or a message, it has to end in time.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from math import inf
from typing import Any, cast

import grpclib.protocol as grpclib_protocol
import h2.events
import trio
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, FrameTooLargeError, ProtocolError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.stream import StreamInputs
from hpack.exceptions import HPACKError
from hyperframe.exceptions import InvalidPaddingError
from hyperframe.frame import Frame, GoAwayFrame, SettingsFrame

from vx.rpc.wire import Buffer, Wire

log = logging.getLogger(__name__)

Headers = list[tuple[str, str]]

BURST = 544 * 1024
"""Bytes that one bulk sender queues at a time: what a download reads at once, with the headers of its chunks."""
MAX_FRAME = 256 * 1024
"""Our own bound on DATA frames, whatever the peer allows: a frame cannot be interrupted by another stream's."""
_MAX_BUFFERS = 256
"""Buffers in one `sendmsg`: a burst of chunks of 64 KiB in frames of 16 KiB has some 80; the kernel takes 1024."""
_MAX_CONTROL = 256 * 1024
"""Bytes of answers (all but bulk data) that may wait for the peer before we stop reading from it."""
_MAX_HEADER_LIST = 16 * 1024
"""Bytes of one call's headers, as RFC 9113 counts them (6.5.2); encoded they may take no more."""
_MAX_CONTINUATIONS = 8
"""Frames that the headers of one call may be spread over."""
_MAX_REASON = 200
"""Bytes of explanation in a GOAWAY: some of h2's quote the input."""
_TURN = 16
"""Frames of one peer that are dealt with before other tasks get their turn."""
_GREETING_S = 10.0
"""How long a new peer may take to acknowledge our SETTINGS, that is, to speak HTTP/2 at all."""
_FRAME_S = 20.0
"""How long a peer may take to finish a frame, or a header block, that it has begun."""
MESSAGE_S = 60.0
"""How long a peer may take to send a request message once it is expected, or, where a call has several, begun."""
_LINGER_S = 1.0
_PING_TIMEOUT_S = 20.0
_MAX_STREAM_ID = 2**31 - 1


_FRAME_HEADER = struct.Struct("!BHBBL")
_DATA, _HEADERS = 0, 1
_END_STREAM, _END_HEADERS = 0x1, 0x4


def data_header(size: int, stream_id: int) -> bytes:
    """The header of a DATA frame."""
    return _FRAME_HEADER.pack(size >> 16, size & 0xFFFF, _DATA, 0, stream_id)


class _FrameReader(FrameBuffer):
    """h2's parser of frames, which now says no before it has kept more than it should."""

    def check_rest(self) -> None:
        """FrameTooLargeError if the frame that has begun is too long: h2 would look when all of it has come."""
        if len(self._data) >= 3:
            size = int.from_bytes(self._data[:3], "big")
            if size > self.max_frame_size:
                raise FrameTooLargeError(f"a frame of {size} bytes; at most {self.max_frame_size} are allowed")

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        frame = super()._update_header_buffer(f)
        if frame is None:  # it is a part of a header block
            block = self._headers_buffer
            if len(block) > _MAX_CONTINUATIONS or sum(len(part.data) for part in block) > _MAX_HEADER_LIST:
                raise DenialOfServiceError(
                    f"a header block without end; allowed are {_MAX_CONTINUATIONS} frames and {_MAX_HEADER_LIST} bytes"
                )
        return frame

    @property
    def is_amid(self) -> bool:
        """Whether a frame, or a header block, has begun and not ended."""
        return bool(self._data or self._headers_buffer)


class _ServerH2(H2Connection):
    """h2's state of a server connection, taken frame by frame, without the places where it gives up a connection too
    early or trusts a peer too far."""

    # h2 remembers how each of the last 65,536 streams ended; that is megabytes for a client that polls for a day.
    MAX_CLOSED_STREAMS = 1024
    DEFAULT_MAX_HEADER_LIST_SIZE = _MAX_HEADER_LIST

    incoming_buffer: _FrameReader

    def __init__(self, max_streams: int) -> None:
        super().__init__(
            H2Configuration(
                client_side=False,
                header_encoding="latin-1",  # any byte decodes; what is not ASCII fails later, as metadata of one call
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_inbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.max_streams = max_streams
        self._announced = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_HEADER_LIST,
        }
        # h2 ends the connection when a peer opens a stream too many. It is told of no limit, so that the handler can
        # refuse the one stream; the peer is told the real one.
        limits = {**self._announced, SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAM_ID}
        self.local_settings = Settings(client=False, initial_values=limits)
        self.local_settings.acknowledge()
        self.incoming_buffer = _FrameReader(server=True)
        self.incoming_buffer.max_frame_size = self.max_inbound_frame_size

    def begin(self) -> None:
        """Queue our SETTINGS.

        The windows for what clients send stay at HTTP/2's default of 64 KiB: requests are small, and it is what a
        peer can make us keep without a call that takes it.
        """
        self.initiate_connection()
        self.clear_outbound_data_buffer()  # what h2 would announce: its own limits, not ours
        self._prepare_for_sending(
            [SettingsFrame(0, settings={int(code): value for code, value in self._announced.items()})]
        )

    def queue_block(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        """Queue a response's HEADERS whose block is encoded already, without HPACK's memory.

        Most header blocks of a server are the same each time, and encoding them takes longer than all else of a call.
        """
        machine = self.streams[stream_id].state_machine
        machine.process_input(StreamInputs.SEND_HEADERS)
        if end_stream:
            machine.process_input(StreamInputs.SEND_END_STREAM)
        block = self.encoder.encode(()) + block  # a change of the table's size must come first (RFC 7541, 4.2)
        flags = _END_HEADERS | _END_STREAM if end_stream else _END_HEADERS
        self._data_to_send += _FRAME_HEADER.pack(0, len(block), _HEADERS, flags, stream_id) + block

    def queue_data(self, stream: Any, data: bytes) -> None:
        """Queue a DATA frame; the windows and the peer's frame size have to allow it."""
        self.outbound_flow_control_window -= len(data)
        stream.outbound_flow_control_window -= len(data)
        self._data_to_send += data_header(len(data), stream.stream_id) + data

    def next_frame(self) -> tuple[Frame, list[h2.events.Event]] | None:
        """The next frame in `incoming_buffer` and what it means; None until more bytes come. ProtocolError.

        h2's own `receive_data` is ahead of its events: a stream that one of them opens may be gone by then.
        """
        try:
            frame = next(self.incoming_buffer, None)
        except InvalidPaddingError as error:
            raise ProtocolError(str(error)) from error
        if frame is None:
            self.incoming_buffer.check_rest()
            return None
        return frame, self._receive_frame(frame)

    def go_away(self, last_stream_id: int, code: ErrorCodes, reason: str = "") -> None:
        """Queue a GOAWAY that leaves the streams that are open alone, unlike h2's `close_connection`."""
        text = reason.encode(errors="replace")[:_MAX_REASON]
        self._prepare_for_sending([GoAwayFrame(0, last_stream_id, code, text)])

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        # The peer will open no more streams; those that are open go on (RFC 9113, 6.8). h2 would close all.
        self.state_machine.process_input(ConnectionInputs.RECV_PING)  # legal in every open state, changes none
        return [], []

    def _receive_settings_frame(self, frame: SettingsFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        # h2 would keep every setting of the 65,536 that a peer can make up, and walk through all of them each time;
        # and let the peer choose how much our HPACK encoder remembers, although it need not use what it may.
        if frame.body_len > _MAX_SETTINGS * _SETTING_SIZE:
            raise DenialOfServiceError(f"too many settings; at most {_MAX_SETTINGS} in a frame are allowed")
        frame.settings = {code: value for code, value in frame.settings.items() if code in _KNOWN_SETTINGS}
        table_size = frame.settings.get(SettingCodes.HEADER_TABLE_SIZE, 0)
        frame.settings.update({SettingCodes.HEADER_TABLE_SIZE: _HEADER_TABLE} if table_size > _HEADER_TABLE else {})
        answer = super()._receive_settings_frame(frame)
        changes = self.encoder.table_size_changes
        if len(changes) > 2:  # what is said of them: the smallest, and the last one (RFC 7541, 4.2)
            changes[:] = [min(changes), changes[-1]]
        return answer


def _code_of(error: ProtocolError) -> ErrorCodes:
    """What a GOAWAY says of `error`."""
    if isinstance(error.__cause__, HPACKError) and not isinstance(error, DenialOfServiceError):
        return ErrorCodes.COMPRESSION_ERROR
    return ErrorCodes(error.error_code)


class _Budget:
    """How much unasked-for work a peer may cause: a token bucket.

    The numbers for resets are those that nghttp2 documents for its servers (a burst of 1,000, then 33 a second). Of
    frames, each costs a token (a SETTINGS frame `_SETTINGS_COST`), and what brings something is given tokens back: a
    call for the handful of frames that go with it, full DATA frames, and bytes sent for the windows that a reader
    updates, in proportion, so that reading a byte at a time is not for free.
    """

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._at = trio.current_time()

    def give(self, tokens: float) -> None:
        self._left = min(self._burst, self._left + tokens)

    def take(self, tokens: float, now: float) -> bool:
        """Whether it was still affordable, at `now` on trio's clock."""
        self.give((now - self._at) * self._per_s)
        self._at = now
        self._left -= tokens
        return self._left >= 0


class _Signal:
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
        self._changed = _Signal()

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


class Peer:
    """Who is on the other side, in grpclib's form."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def addr(self) -> tuple[str, int] | str:
        return self._wire.peer


class H2Stream(grpclib_protocol.Stream):
    """One call's stream, as `grpclib.server.Stream` uses it."""

    id: int
    connection: Connection  # type: ignore[assignment]  # grpclib's own is tied to asyncio
    _h2_connection: _ServerH2

    def __init__(self, connection: Connection, h2_connection: _ServerH2, stream_id: int) -> None:
        # Not super().__init__: it makes asyncio events. These are all the attributes that grpclib's server side uses.
        self.id = stream_id
        self.connection = connection
        self.wrapper = None
        self.window_updated = _Signal()  # type: ignore[assignment]
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
        """As `send_headers`, of a block that is encoded already (see `_ServerH2.queue_block`)."""
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

    async def wait_sendable(self) -> int:
        """Wait until the windows and the kernel take bytes of this stream; how many that are. StreamGoneError."""
        while True:
            stream = self._h2_stream()
            if self.connection.is_blocked():
                await self.connection.wait_drained()  # others may have used up the window meanwhile: look again
                continue
            window = self._window(stream)
            if window > 0:
                return window
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
            burst = min(await self.wait_sendable(), left, BURST)
            stream = self._h2_stream()
            connection.queue_bulk(self.id, pending, burst)
            self._h2_connection.outbound_flow_control_window -= burst
            stream.outbound_flow_control_window -= burst
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


class Connection:
    """One client. `run` serves it until it ends; the connection then leaves no task, no socket and no call behind."""

    # Counters that grpclib's classes add to.
    streams_started = streams_succeeded = streams_failed = 0
    data_sent = data_received = messages_sent = messages_received = 0
    last_stream_created: float | None = None
    last_data_received: float | None = None
    last_message_sent: float | None = None
    last_message_received: float | None = None

    def __init__(self, wire: Wire, *, max_streams: int, keepalive_s: float) -> None:
        self._wire = wire
        self._keepalive_s = keepalive_s
        self._h2 = _ServerH2(max_streams)
        self.stream_close_waiter = _Signal()
        self._out: deque[Buffer] = deque()
        self._control_bytes = 0
        self._blocked = False
        self._closing = False
        self._refusing = False
        self._draining = False
        self._writer_needed = _Signal()
        self._drained = trio.lowlevel.ParkingLot()
        self._resets = _Budget(1000, 33)
        self._frames = _Budget(2000, 1000)
        self._greeted = False
        self._taken = 0
        self._last_heard = trio.current_time()
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope(deadline=self._last_heard + _GREETING_S)

    async def run(self, make_handler: Callable[[trio.Nursery], grpclib_protocol.AbstractHandler]) -> None:
        """Serve until the peer leaves or breaks the protocol, or until `drain` has let the last call end.

        `make_handler` gets the nursery that the calls live in. Never raises for what a peer does; when it returns,
        every call has ended and the socket is closed.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._processor = grpclib_protocol.EventsProcessor(make_handler(nursery), cast(Any, self))
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._keep_alive)
                    self._h2.begin()
                    self.flush()
                    try:
                        with self._reading:
                            await self._read()
                        if self._reading.cancelled_caught and not self._closing:
                            self._give_up_waiting()
                        self.close()
                        await self._linger()
                    finally:
                        self.close()
                    nursery.cancel_scope.cancel()
        finally:
            self._wire.close()

    # ---- in

    async def _read(self) -> None:
        while not self._closing:
            try:
                data = await self._wire.receive()
            except OSError:
                return
            if not data:
                return
            self.feed(data)
            while self.work():
                await trio.lowlevel.checkpoint()
            await self.wait_control_drained()

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer, for `work` to deal with."""
        try:
            self._h2.incoming_buffer.add_data(data)
        except ProtocolError as error:
            self._fail(_code_of(error), str(error))

    def work(self) -> bool:
        """Deal with some of what has come: start, feed and cancel calls, and send the answers of the protocol itself.

        True if there may be more to do, after others had their turn.
        """
        frames, more, now = 0, True, trio.current_time()
        try:
            while frames < _TURN and not self._closing:
                received = self._h2.next_frame()
                if received is None:
                    more = False
                    break
                frames += 1
                self._take(*received, now)
        except ProtocolError as error:
            self._fail(_code_of(error), str(error))
        if self._closing:
            return False
        self.flush()
        if frames:  # a peer that drips bytes is as good as silent
            self._last_heard = now
        self._expect_rest(begun_now=frames > 0)
        return more

    def _expect_rest(self, *, begun_now: bool) -> None:
        """Set the time by which the frame that has begun, if any, must have ended."""
        if not self._greeted:
            return
        deadline = self._reading.deadline
        if not self._h2.incoming_buffer.is_amid:
            deadline = inf
        elif begun_now or deadline == inf:
            deadline = trio.current_time() + _FRAME_S
        if deadline != self._reading.deadline:
            self._reading.deadline = deadline

    def _give_up_waiting(self) -> None:
        if self._greeted:
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM, f"a frame was begun and not ended within {_FRAME_S:.0f} s")
        else:
            self._fail(ErrorCodes.SETTINGS_TIMEOUT, f"no HTTP/2 within {_GREETING_S:.0f} s")

    def _take(self, frame: Frame, events: list[h2.events.Event], now: float) -> None:
        if not self._frames.take(_SETTINGS_COST if type(frame) is SettingsFrame else 1, now):
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that bring nothing")
            return
        for event in events:
            self._handle(event)
            if self._closing:
                return

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                if len(event.data) >= _FULL_FRAME:
                    self._frames.give(1)
            case h2.events.RequestReceived():
                if not self._admits():
                    self._h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
                    self._spend_reset()
                    return
                self._frames.give(_CALL_FRAMES)
            case h2.events.StreamReset():
                if event.stream_id in self._processor.streams and not self._spend_reset():
                    return
            case h2.events.SettingsAcknowledged():
                self._greeted = True
            case h2.events.PingAckReceived():
                if self._draining:
                    self._refuse_new()
                return
            case h2.events.TrailersReceived():
                return  # gRPC knows none from a client; that its side has ended is an event of its own
        if type(event) in self._processor.processors:
            self._processor.process(event)

    def _admits(self) -> bool:
        calls, limit = self._processor.streams, self._h2.max_streams
        if self._refusing or len(calls) >= 2 * limit:
            return False
        # One that the client has cancelled has ended for it, even if its task is still about to.
        return len(calls) < limit or sum(stream.closable for stream in calls.values()) < limit

    def _spend_reset(self) -> bool:
        affordable = self._resets.take(1, trio.current_time())
        if not affordable:
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM, "too many calls begun and given up")
        return affordable

    def _fail(self, code: ErrorCodes, why: str) -> None:
        """Tell the peer what it did wrong, and end the connection."""
        level = logging.WARNING if code == ErrorCodes.ENHANCE_YOUR_CALM else logging.INFO
        log.log(level, "closed %s: %s: %s", self._wire.peer, code.name, why[:_MAX_REASON])
        self._h2.go_away(self._h2.highest_inbound_stream_id, code, why)
        self.flush()
        self.close()

    def ack(self, stream_id: int, size: int) -> None:
        """Give the peer's window back for data that was read."""
        if size and not self._closing:
            self._h2.acknowledge_received_data(size, stream_id)
            self.flush()

    # ---- out

    def queue_bulk(self, stream_id: int, pending: deque[memoryview], size: int) -> None:
        """Move `size` bytes from the front of `pending` into the queue, framed as DATA."""
        self._take_from_h2()
        self._frames.give(size / _BYTES_PER_UPDATE)
        max_frame = min(self._h2.max_outbound_frame_size, MAX_FRAME)
        # The hot loop of every download: a view is cut where it lies, and not put back for each frame.
        append, pop = self._out.append, pending.popleft
        full = data_header(max_frame, stream_id)
        view = pop()
        at, length = 0, len(view)
        while size:
            if size >= max_frame:
                left = max_frame
                append(full)
            else:
                left = size
                append(data_header(left, stream_id))
            size -= left
            while left:
                if at == length:
                    view = pop()
                    at, length = 0, len(view)
                end = at + left
                if end < length:
                    append(view[at:end])
                    at = end
                    break
                append(view[at:] if at else view)
                left -= length - at
                at = length
        if at < length:
            pending.appendleft(view[at:])

    def _take_from_h2(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._control_bytes += len(data)
            self._out.append(data)

    def flush(self) -> None:
        """Send what is queued as far as the kernel takes it now; the writer task does the rest."""
        self._take_from_h2()
        if not self._blocked and not self._closing:
            self._send_some()

    def _send_some(self) -> None:
        out = self._out
        try:
            while out:
                buffers = list(islice(out, _MAX_BUFFERS)) if len(out) > 1 else [out[0]]
                sent = self._wire.send_nowait(buffers)
                if not sent:
                    self._blocked = True
                    self._writer_needed.set()
                    return
                if len(buffers) == len(out) and sent == sum(map(len, buffers)):  # all of it, as mostly
                    out.clear()
                    break
                while sent:
                    first = out[0]
                    if sent >= len(first):
                        sent -= len(first)
                        out.popleft()
                    else:
                        out[0] = memoryview(first)[sent:]
                        sent = 0
        except OSError as error:
            log.debug("lost %s: %s", self._wire.peer, error)
            self._abandon()
            return
        self._control_bytes = 0
        self._blocked = False
        self._drained.unpark_all()

    async def _write(self) -> None:
        while True:
            if not self._blocked:
                await self._writer_needed.wait()
            await self._wire.wait_writable()
            self._taken += 1
            self._send_some()

    def is_blocked(self) -> bool:
        """Whether bytes wait for the peer to read."""
        return self._blocked

    async def wait_drained(self) -> None:
        """Wait until all that is queued now is with the kernel; others may queue more before the caller has its turn.

        StreamGoneError if the connection ends instead.
        """
        if self._blocked and not self._closing:
            await self._drained.park()
        if self._closing:
            raise StreamGoneError

    async def wait_control_drained(self) -> None:
        """Wait while the peer leaves too many of our answers unread."""
        while self._control_bytes > _MAX_CONTROL and self._blocked and not self._closing:
            await self._drained.park()

    # ---- life

    async def _keep_alive(self) -> None:
        """Find out whether the peer is still there: whether it answers, and takes what we send."""
        taken, taken_at = self._taken, trio.current_time()
        while not self._closing:
            now = trio.current_time()
            if self._taken != taken or not self._blocked:
                taken, taken_at = self._taken, now
            elif now - taken_at >= self._keepalive_s:
                log.info("lost %s: it has read nothing for %.0f s", self._wire.peer, now - taken_at)
                self._abandon()
                return
            idle_until = self._last_heard + self._keepalive_s
            if now < idle_until:
                await trio.sleep_until(idle_until)
                continue
            self._h2.ping(_ALIVE_PING)
            self.flush()
            asked, taken_before = now, self._taken
            await trio.sleep(_PING_TIMEOUT_S)
            if self._last_heard < asked and self._taken == taken_before and not self._closing:
                log.info("lost %s: silent for %.0f s", self._wire.peer, trio.current_time() - self._last_heard)
                self._abandon()

    async def drain(self) -> None:
        """Ask the peer to go elsewhere, let its calls end, then close.

        The first GOAWAY names no last stream, so that calls on their way are still taken; once the PING behind it
        comes back (or does not, for a second), the second one does (RFC 9113, 6.8), and later calls are refused.
        """
        if self._draining or self._closing:
            return
        self._draining = True
        self._h2.go_away(_MAX_STREAM_ID, ErrorCodes.NO_ERROR)
        self._h2.ping(_DRAIN_PING)
        self.flush()
        await trio.sleep(_LINGER_S)
        self._refuse_new()

    def _refuse_new(self) -> None:
        if self._refusing or self._closing:
            return
        self._refusing = True
        self._h2.go_away(self._h2.highest_inbound_stream_id, ErrorCodes.NO_ERROR)
        self.flush()
        self.call_ended()

    def call_ended(self) -> None:
        """A call was released: the last one of a connection that drains closes it."""
        if self._refusing and not self._processor.streams:
            self.close()

    def create_stream(self, *, stream_id: int) -> H2Stream:
        return H2Stream(self, self._h2, stream_id)

    def get_peer(self) -> Peer:
        return Peer(self._wire)

    def is_closing(self) -> bool:
        return self._closing

    def ping_ack_process(self) -> None:
        """For grpclib's processor; PING answers are handled before it sees them."""

    def close(self) -> None:
        """Cancel all calls and end the connection, once what is queued has had a moment to leave."""
        if not self._closing:
            self._closing = True
            self._processor.close()
            self._drained.unpark_all()
            self._reading.cancel()

    def _abandon(self) -> None:
        """End it at once: nobody is there to read what is queued."""
        self.close()
        self._scope.cancel()

    async def _linger(self) -> None:
        # Closing a TCP socket with unread input resets it, and the peer might lose the GOAWAY that says why.
        with trio.move_on_after(_LINGER_S):
            while self._blocked:
                await self._drained.park()
            try:
                self._wire.send_eof()
                while await self._wire.receive():
                    pass
            except OSError:
                return


_KNOWN_SETTINGS = frozenset(map(int, SettingCodes))
_HEADER_TABLE = 4096
"""Bytes of header fields that our HPACK encoder remembers, at most."""
_SETTINGS_COST = 10
_MAX_SETTINGS, _SETTING_SIZE = 32, 6
_CALL_FRAMES = 8
"""Frames that go with a call without being extra work: its HEADERS, small and empty DATA, updates of both windows, and
the PINGs with which some clients measure the line."""
_FULL_FRAME = 1024
"""Bytes from which on a DATA frame costs nothing."""
_BYTES_PER_UPDATE = 2048
"""Bytes sent for each of which a reader may update a window."""
_ALIVE_PING = b"vx-alive"
_DRAIN_PING = b"vx-drain"
