"""What leaves on a connection: one queue, in the order in which h2 was told of it."""

from __future__ import annotations

from collections.abc import Callable

import trio

from vx.rpc.wire import Buffer, Wire

MAX_CONTROL = 256 * 1024
"""Bytes of answers (all but bulk data) that may wait for the peer before we stop reading from it."""
_MAX_BUFFERS = 256
"""Buffers in one `sendmsg`: a burst of chunks of 64 KiB in frames of 16 KiB has some 160; the kernel takes 1024."""


class Outbox:
    """Sends at once what the kernel takes; `write`, a task of the connection's, waits only for a socket that is full.

    `lost` is called when the peer turns out to be gone.
    """

    def __init__(self, wire: Wire, lost: Callable[[OSError], None]) -> None:
        self._wire = wire
        self._lost = lost
        self._queue: list[Buffer] = []
        self.size = 0
        """Bytes in the queue."""
        self.control_size = 0
        """Bytes of answers that were queued since it was last empty."""
        self.is_blocked = False
        """Whether bytes wait for the peer to read."""
        self.progress = 0
        """Grows whenever the peer has read something that others waited behind."""
        self._is_closed = False
        self._blocked = trio.lowlevel.ParkingLot()
        self._drained = trio.lowlevel.ParkingLot()

    def put(self, answer: bytes) -> None:
        """Queue an answer."""
        self.control_size += len(answer)
        self.size += len(answer)
        self._queue.append(answer)

    def put_bulk(self, frames: list[Buffer], size: int) -> None:
        """Queue a sender's own buffers, which have `size` bytes together."""
        self.size += size
        self._queue += frames

    def send(self) -> None:
        """Send what is queued as far as the kernel takes it now; the writer does the rest."""
        if not self.is_blocked and not self._is_closed:
            self._send_some()

    def _send_some(self) -> None:
        queue = self._queue
        try:
            while queue:
                sent = self._wire.send_nowait(queue if len(queue) <= _MAX_BUFFERS else queue[:_MAX_BUFFERS])
                if sent == self.size:  # all of it, as mostly
                    queue.clear()
                    self.size = 0
                elif sent:
                    self._forget(sent)
                else:
                    self.is_blocked = True
                    self._blocked.unpark_all()
                    return
        except OSError as error:
            self._lost(error)
            return
        self.control_size = 0
        if self.is_blocked:
            self.is_blocked = False
            self._drained.unpark_all()

    def _forget(self, size: int) -> None:
        """Drop so many bytes from the front, which are not all that there are."""
        self.size -= size
        whole = 0
        while size >= len(self._queue[whole]):
            size -= len(self._queue[whole])
            whole += 1
        del self._queue[:whole]
        if size:
            self._queue[0] = memoryview(self._queue[0])[size:]

    async def write(self) -> None:
        """Send what the kernel did not take at once, for ever."""
        while True:
            while not self.is_blocked:
                await self._blocked.park()
            await self._wire.wait_writable()
            self.progress += 1
            self._send_some()

    async def wait_drained(self) -> None:
        """Wait until all that is queued now is with the kernel, or the outbox is closed; others may queue more before
        the caller has its turn."""
        if self.is_blocked and not self._is_closed:
            await self._drained.park()

    async def wait_control_drained(self) -> None:
        """Wait while the peer leaves too many of our answers unread."""
        while self.control_size > MAX_CONTROL and self.is_blocked and not self._is_closed:
            await self._drained.park()

    def close(self) -> None:
        """Send nothing new, and let nobody wait but who does in `wait_empty`: what is queued still leaves."""
        self._is_closed = True
        self._drained.unpark_all()

    async def wait_empty(self) -> None:
        """Wait until all that is queued is with the kernel."""
        while self.is_blocked:
            await self._drained.park()
