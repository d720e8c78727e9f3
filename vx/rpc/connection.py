"""One HTTP/2 connection of the server: grpclib's protocol layer re-hosted on trio.

What is taken from grpclib as it is: `EventsProcessor` (h2 events → streams) and `AbstractHandler` (who accepts calls).
What is replaced, because grpclib ties it to asyncio: the connection, its streams and their receive buffers. Four rules
hold here:

- Everything that is sent goes through one queue in the order in which h2 was told of it, and leaves by `sendmsg` at
  once if the socket takes it; a writer task waits only for a socket that is full (`outbox`).
- Bulk data never passes through h2: `H2Stream.send_views` puts frame headers and the caller's own buffers into the
  queue and takes their size from both flow-control windows itself (`streams`, `frames`).
- Memory is bounded: a bulk sender has one burst under way, and while a peer does not read our answers, we stop
  reading its requests.
- A peer that makes work without using it is told ENHANCE_YOUR_CALM and closed (`budget`). What one peer sends
  is dealt with a few frames at a time, so that the others' calls get their turn in between; and what a peer has
  begun, be it its greeting, a frame or a message, it has to end in time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from math import ceil, inf
from typing import Any, cast

import grpclib.protocol as grpclib_protocol
import h2.events
import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame

from vx.rpc.budget import Conduct
from vx.rpc.frames import HEADER_SIZE, data_frames
from vx.rpc.http2 import MAX_REASON, MAX_STREAM_ID, ServerH2, code_of
from vx.rpc.outbox import Outbox
from vx.rpc.streams import H2Stream, Signal, StreamGoneError
from vx.rpc.wire import Wire

log = logging.getLogger(__name__)

MAX_FRAME = 256 * 1024
"""Our own bound on DATA frames, whatever the peer allows: a frame cannot be interrupted by another stream's."""
_TURN = 16
"""Frames of one peer that are dealt with before other tasks get their turn."""
_GREETING_S = 10.0
"""How long a new peer may take to acknowledge our SETTINGS, that is, to speak HTTP/2 at all."""
_FRAME_S = 20.0
"""How long a peer may take to finish a frame, or a header block, that it has begun."""
_LINGER_S = 1.0
_PING_TIMEOUT_S = 20.0


class Peer:
    """Who is on the other side, in grpclib's form."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def addr(self) -> tuple[str, int] | str:
        return self._wire.peer


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
        self._h2 = ServerH2(max_streams)
        self._outbox = Outbox(wire, self._lost)
        self.stream_close_waiter = Signal()
        self._closing = False
        self._refusing = False
        self._draining = False
        self._greeted = False
        self._last_heard = trio.current_time()
        self._conduct = Conduct(self._last_heard)
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
                    nursery.start_soon(self._outbox.write)
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
            await self._outbox.wait_control_drained()

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer, for `work` to deal with."""
        try:
            self._h2.incoming_buffer.add_data(data)
        except ProtocolError as error:
            self._fail(code_of(error), str(error))

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
            self._fail(code_of(error), str(error))
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
        if not self._conduct.takes_frame(frame, now):
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that bring nothing")
            return
        for event in events:
            self._handle(event)
            if self._closing:
                return

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._conduct.has_sent(event)
            case h2.events.RequestReceived():
                if not self._admits():
                    self._h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
                    self._allows_reset()
                    return
                self._conduct.has_called()
            case h2.events.StreamReset():
                if event.stream_id in self._processor.streams and not self._allows_reset():
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

    def _allows_reset(self) -> bool:
        allowed = self._conduct.takes_reset(trio.current_time())
        if not allowed:
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM, "too many calls begun and given up")
        return allowed

    def _fail(self, code: ErrorCodes, why: str) -> None:
        """Tell the peer what it did wrong, and end the connection."""
        level = logging.WARNING if code == ErrorCodes.ENHANCE_YOUR_CALM else logging.INFO
        log.log(level, "closed %s: %s: %s", self._wire.peer, code.name, why[:MAX_REASON])
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
        self._conduct.is_sent(size)
        max_frame = min(self._h2.max_outbound_frame_size, MAX_FRAME)
        headers = HEADER_SIZE * ceil(size / max_frame)
        self._outbox.put_bulk(data_frames(stream_id, pending, size, max_frame), headers + size)

    def _take_from_h2(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._outbox.put(data)

    def flush(self) -> None:
        """Send what is queued as far as the kernel takes it now; the rest leaves later."""
        self._take_from_h2()
        self._outbox.send()

    def is_blocked(self) -> bool:
        """Whether bytes wait for the peer to read."""
        return self._outbox.is_blocked

    async def wait_drained(self) -> None:
        """Wait until all that is queued now is with the kernel; others may queue more before the caller has its turn.

        StreamGoneError if the connection ends instead.
        """
        await self._outbox.wait_drained()
        if self._closing:
            raise StreamGoneError

    async def wait_control_drained(self) -> None:
        """Wait while the peer leaves too many of our answers unread."""
        await self._outbox.wait_control_drained()

    # ---- life

    async def _keep_alive(self) -> None:
        """Find out whether the peer is still there: whether it answers, and takes what we send."""
        outbox = self._outbox
        taken, taken_at = outbox.progress, trio.current_time()
        while not self._closing:
            now = trio.current_time()
            if outbox.progress != taken or not outbox.is_blocked:
                taken, taken_at = outbox.progress, now
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
            asked, taken_before = now, outbox.progress
            await trio.sleep(_PING_TIMEOUT_S)
            if self._last_heard < asked and outbox.progress == taken_before and not self._closing:
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
        self._h2.go_away(MAX_STREAM_ID, ErrorCodes.NO_ERROR)
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
            self._outbox.close()
            self._reading.cancel()

    def _lost(self, error: OSError) -> None:
        log.debug("lost %s: %s", self._wire.peer, error)
        self._abandon()

    def _abandon(self) -> None:
        """End it at once: nobody is there to read what is queued."""
        self.close()
        self._scope.cancel()

    async def _linger(self) -> None:
        # Closing a TCP socket with unread input resets it, and the peer might lose the GOAWAY that says why.
        with trio.move_on_after(_LINGER_S):
            await self._outbox.wait_empty()
            try:
                self._wire.send_eof()
                while await self._wire.receive():
                    pass
            except OSError:
                return


_ALIVE_PING = b"vx-alive"
_DRAIN_PING = b"vx-drain"
