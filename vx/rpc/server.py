"""The server's sockets: listen, accept, and end in good order."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio
from grpclib.const import Handler as Method

from vx.config import Address
from vx.errors import Kind, VxError
from vx.rpc.calls import CallHandler
from vx.rpc.connection import Connection
from vx.rpc.wire import PlainWire

log = logging.getLogger(__name__)

_BACKLOG = 256
_ACCEPT_PAUSE_S = 0.1
"""How long to wait for file descriptors to come free when there are none left to accept with."""


class Service(Protocol):
    """What betterproto's and grpclib's service bases have in common."""

    def __mapping__(self) -> dict[str, Method]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the transport; `max_message` in bytes."""

    max_connections: int
    max_streams: int
    max_message: int
    keepalive_s: float


def open_listener(address: Address) -> socket.socket:
    """A listening socket. VxError(UNAVAILABLE) says which address could not be had, and why."""
    try:
        if address.unix_path:
            return _listen_unix(address.unix_path)
        family, kind, proto, _, sockaddr = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(sockaddr)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise VxError(Kind.UNAVAILABLE, f"cannot listen on {address}: {error.strerror or error}") from None
    return sock


def _listen_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            Path(path).unlink()
            sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _is_stale(path: str) -> bool:
    """Whether `path` is a socket that nobody listens on: what a killed server leaves."""
    if not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _remove_socket(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def describe(sock: socket.socket) -> str:
    """The address that a listener really has, in the form of the configuration."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix://{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


class Server:
    """Serves gRPC methods on listeners.

    `serve` runs until cancelled, or until `drain` was called and the last call has ended.
    """

    def __init__(self, services: Sequence[Service], limits: Limits) -> None:
        self._methods: Mapping[str, Method] = {
            path: method for service in services for path, method in service.__mapping__().items()
        }
        self._limits = limits
        self._connections: set[Connection] = set()
        self._accepting = trio.CancelScope()
        self._draining = trio.Event()

    def drain(self) -> None:
        """Accept nothing more, and let the calls that run end."""
        self._accepting.cancel()
        self._draining.set()

    async def serve(self, listeners: Sequence[socket.socket]) -> None:
        """Accept and serve connections; closes the listeners when it is done accepting.

        Cancelled, it ends every connection and every call at once.
        """
        async with trio.open_nursery() as connections:
            with self._accepting:
                async with trio.open_nursery() as acceptors:
                    for listener in listeners:
                        acceptors.start_soon(self._accept, listener, connections)

    async def _accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        listener.setblocking(False)
        path = listener.getsockname() if listener.family == socket.AF_UNIX else None
        try:
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    sock, _ = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        raise
                    log.warning("cannot accept connections for now: %s", error.strerror)
                    await trio.sleep(_ACCEPT_PAUSE_S)
                    continue
                if len(self._connections) >= self._limits.max_connections:
                    log.warning("refused a connection: there are %d already", len(self._connections))
                    sock.close()
                    continue
                connections.start_soon(self._serve_connection, sock)
        finally:
            trio.lowlevel.notify_closing(listener)
            listener.close()
            if path:
                _remove_socket(path)

    async def _serve_connection(self, sock: socket.socket) -> None:
        limits = self._limits
        try:
            wire = PlainWire(sock)
        except OSError:  # gone between the accept and the first look at it
            sock.close()
            return
        connection = Connection(wire, max_streams=limits.max_streams, keepalive_s=limits.keepalive_s)

        def make_handler(nursery: trio.Nursery) -> CallHandler:
            nursery.start_soon(self._drain_connection, connection)
            return CallHandler(connection, nursery, self._methods, max_message=limits.max_message)

        self._connections.add(connection)
        try:
            await connection.run(make_handler)
        except Exception:
            log.exception("a connection with %s failed", wire.peer)
        finally:
            self._connections.discard(connection)

    async def _drain_connection(self, connection: Connection) -> None:
        await self._draining.wait()
        await connection.drain()
