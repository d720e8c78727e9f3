"""Bytes in and out of one client's socket, without a copy on the way out.

The connection writes lists of buffers synchronously and waits only when the kernel would block; trio's stream API
(one `send_all` at a time, each a checkpoint) can't express that, so a wire works on the plain non-blocking socket and
takes only the waiting from trio.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

import trio

Buffer = bytes | memoryview

RECEIVE_SIZE = 16 * 1024
"""Bytes taken from a socket at a time. Requests are small, and the smaller the bite, the sooner other connections get
their turn when one of them is flooded."""


class Wire(Protocol):
    """One client's transport."""

    peer: tuple[str, int] | str
    """The other side's address: (host, port), or the path of a Unix socket."""
    certificate_name: str
    """The name in the certificate that the other side has shown; empty where it has shown none."""

    async def receive(self) -> bytes:
        """Some bytes; none at the end of the stream. OSError when the peer is gone."""

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Bytes taken from the front of `buffers` without waiting; 0 if it would block. OSError if the peer is gone."""

    async def wait_writable(self) -> None:
        """Wait until `send_nowait` has a chance again."""

    def send_eof(self) -> None:
        """Tell the peer that nothing more will come. OSError if it is gone."""

    def close(self) -> None:
        """Release the socket. Idempotent."""


class PlainWire:
    """A TCP or Unix stream socket without encryption."""

    certificate_name = ""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peer: tuple[str, int] | str = sock.getpeername()[:2]
        else:
            self.peer = "unix"
        self._sock = sock

    async def receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(RECEIVE_SIZE)
            except BlockingIOError:
                continue

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        try:
            return self._sock.sendmsg(buffers)
        except BlockingIOError:
            return 0

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._sock)

    def send_eof(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
