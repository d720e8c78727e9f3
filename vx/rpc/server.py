"""The server's sockets: listen, accept, and end in good order."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import trio
from grpclib.const import Handler as Method

from vx.access.gate import Peer
from vx.config.addresses import Address
from vx.errors import Kind, VxError
from vx.rpc.calls import Arrivals, CallHandler, Readers
from vx.rpc.connection import Connection
from vx.rpc.guard import Admit, admit_all
from vx.rpc.health import HealthService
from vx.rpc.places import Places, counted_as
from vx.rpc.reflection import AlphaReflectionService, ReflectionService
from vx.rpc.tls import TlsWire
from vx.rpc.wire import PlainWire, Wire

log = logging.getLogger(__name__)

_BACKLOG = 256
_ACCEPT_PAUSE_S = 0.1
"""How long to wait for file descriptors to come free when there are none left to accept with."""
_ARRIVALS = 2 << 20
"""Bytes of requests that may be arriving at a time, beside one of the largest size."""
_HANDSHAKE_S = 10.0
"""How long a client may take to agree on TLS."""
_HANDSHAKES_AT_ONCE = 4
"""Steps of TLS handshakes in one pass of the event loop."""
_REFUSAL_S = 1.0
"""How long one that is refused then may take to hear it."""


class Service(Protocol):
    """What betterproto's and grpclib's service bases have in common."""

    def __mapping__(self) -> dict[str, Method]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the transport; `max_message` in bytes."""

    max_connections: int
    max_connections_per_address: int
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
    try:
        Path(path).unlink(missing_ok=True)
    except PermissionError as error:  # the server has become another user; the next one takes its place
        log.warning("%s is left behind: %s", path, error.strerror)


def describe(sock: socket.socket) -> str:
    """The address that a listener really has, in the form of the configuration."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix://{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


class Server:
    """Serves gRPC methods on listeners, and with them the standard services for health and reflection.

    With `tls`, clients that come over TCP must encrypt; on a Unix socket they never do. `admit` says of each call who
    makes it. `serve` runs until cancelled,
    or until `drain` was called and the last call has ended.
    """

    def __init__(
        self,
        services: Sequence[Service],
        limits: Limits,
        *,
        readers: Readers = MappingProxyType({}),
        admit: Admit = admit_all,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._health = HealthService(_names(services))
        offered = [*services, self._health]
        names = [*_names(offered), *_names([ReflectionService([]), AlphaReflectionService([])])]
        offered += [ReflectionService(names), AlphaReflectionService(names)]
        self._methods: Mapping[str, Method] = {
            path: method for service in offered for path, method in service.__mapping__().items()
        }
        self._readers = readers
        self._admit = admit
        self._limits = limits
        self._arrivals = Arrivals(limits.max_message + _ARRIVALS)
        self._tls = tls
        self._places = Places(limits.max_connections, limits.max_connections_per_address)
        self._accepting = trio.CancelScope()
        self._handshakes: set[trio.CancelScope] = set()
        self._turns = trio.CapacityLimiter(_HANDSHAKES_AT_ONCE)
        self._draining = trio.Event()

    def use_tls(self, tls: ssl.SSLContext) -> None:
        """For connections from now on; those that are there go on as they are."""
        self._tls = tls

    def drain(self) -> None:
        """Accept nothing more, and let the calls that run end."""
        self._accepting.cancel()
        for scope in self._handshakes:
            scope.cancel()
        self._health.drain()
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
                    sock, address = listener.accept()
                except BlockingIOError:
                    continue
                except OSError as error:
                    if error.errno in _LOST_ON_ARRIVAL:
                        continue
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        raise
                    log.warning("cannot accept connections for now: %s", error.strerror)
                    await trio.sleep(_ACCEPT_PAUSE_S)
                    continue
                network = counted_as("" if path else address[0])
                problem = self._places.take(network)
                if problem:
                    log.warning("refused a connection: %s", problem)
                    sock.close()
                    continue
                connections.start_soon(self._serve_socket, sock, network)
        finally:
            trio.lowlevel.notify_closing(listener)
            listener.close()
            if path:
                _remove_socket(path)

    async def _serve_socket(self, sock: socket.socket, network: str) -> None:
        try:
            with sock:
                wire = await self._open_wire(sock)
                if wire is not None:
                    await self._serve_connection(wire)
        except* Exception:  # a group may hold what went wrong beside the cancellation that must go on
            log.exception("a connection failed")
        finally:
            self._places.give_back(network)

    async def _open_wire(self, sock: socket.socket) -> Wire | None:
        """None where the client is gone, or does not agree on TLS."""
        try:
            if self._tls is None or sock.family == socket.AF_UNIX:
                return PlainWire(sock)
            wire = TlsWire(sock, self._tls)
        except OSError:  # gone between the accept and the first look at it
            return None
        with trio.CancelScope(deadline=trio.current_time() + _HANDSHAKE_S) as scope:
            self._handshakes.add(scope)
            if self._draining.is_set():
                scope.cancel()
            try:
                await wire.handshake(self._turns)
            except OSError as error:
                log.info("refused %s: %s", wire.peer, error)
                with trio.move_on_after(_REFUSAL_S):
                    await _refuse(wire)
            else:
                return wire
            finally:
                self._handshakes.discard(scope)
                if scope.cancel_called and not self._draining.is_set():
                    log.info("refused %s: no TLS handshake within %.0f s", wire.peer, _HANDSHAKE_S)
        return None

    async def _serve_connection(self, wire: Wire) -> None:
        limits = self._limits
        connection = Connection(wire, max_streams=limits.max_streams, keepalive_s=limits.keepalive_s)

        def make_handler(nursery: trio.Nursery) -> CallHandler:
            nursery.start_soon(self._drain_connection, connection)
            return CallHandler(
                connection,
                nursery,
                self._methods,
                peer=_peer(wire),
                admit=self._admit,
                readers=self._readers,
                max_message=limits.max_message,
                arrivals=self._arrivals,
            )

        await connection.run(make_handler)

    async def _drain_connection(self, connection: Connection) -> None:
        await self._draining.wait()
        await connection.drain()


_LOST_ON_ARRIVAL = {
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EPERM,
    errno.ETIMEDOUT,
}
"""What accept() says of a connection that has failed already (accept(2)); the listener is all right."""


def _peer(wire: Wire) -> Peer:
    if not isinstance(wire.peer, tuple):
        return Peer("unix", "unix")
    host, port = wire.peer
    return Peer(host, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", wire.certificate_name)


def _names(services: Sequence[Service]) -> list[str]:
    """Full names of the services, with their packages."""
    return list(dict.fromkeys(path.split("/")[1] for service in services for path in service.__mapping__()))


async def _refuse(wire: TlsWire) -> None:
    # Closing a socket with unread input resets it, and the client might lose the alert that says why.
    try:
        wire.send_eof()
        while await wire.receive():
            pass
    except OSError:
        return
