"""Where the server listens, and how many it lets in."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.rpc.foreign import grpcio, in_thread
from tests.rpc.hand_driven import H2Peer, close_all, connect
from tests.rpc.probe import LIMIT_S, Note, start
from vx.config.addresses import Address
from vx.errors import Kind, VxError
from vx.rpc.server import describe, open_listener


async def echo(target: str) -> Note:
    def client() -> Any:
        with grpcio(target) as calls:
            return calls.unary("Echo", Note(text="x"))

    return await in_thread(client)


async def test_ipv6(nursery: trio.Nursery) -> None:
    running = await start(nursery, listen="[::1]:0")
    assert running.address.startswith("[::1]:")
    assert not running.address.endswith(":0")
    assert await echo(f"ipv6:{running.address}") == Note(text="x")


async def test_a_host_name(nursery: trio.Nursery) -> None:
    running = await start(nursery, listen="localhost:0")
    assert await echo(running.address) == Note(text="x")


async def test_a_unix_socket(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "s"
    running = await start(nursery, listen=f"unix://{path}")
    assert running.address == f"unix://{path}"
    assert await echo(f"unix:{path}") == Note(text="x")
    running.server.drain()
    with trio.fail_after(LIMIT_S):
        await running.ended.wait()
    assert not path.exists()


async def test_the_socket_of_a_killed_server_is_replaced(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    assert path.is_socket()
    await start(nursery, listen=f"unix://{path}")
    assert await echo(f"unix:{path}") == Note(text="x")


def test_what_else_is_at_the_path_of_a_socket_stays(tmp_path: Path) -> None:
    address = Address(unix_path=str(tmp_path / "s"))
    with open_listener(address), pytest.raises(VxError, match="Address already in use") as in_use:
        open_listener(address)
    assert in_use.value.kind is Kind.UNAVAILABLE
    (tmp_path / "s").unlink()
    (tmp_path / "s").write_text("precious")
    with pytest.raises(VxError, match="Address already in use"):
        open_listener(address)
    assert (tmp_path / "s").read_text() == "precious"


def test_addresses_that_cannot_be_had(tmp_path: Path) -> None:
    with open_listener(Address("127.0.0.1", 0)) as taken, pytest.raises(VxError, match="cannot listen on 127") as error:
        open_listener(Address("127.0.0.1", taken.getsockname()[1]))
    assert "in use" in str(error.value)
    with pytest.raises(VxError, match=r"cannot listen on no-such-host\.invalid:1: "):
        open_listener(Address("no-such-host.invalid", 1))
    with pytest.raises(VxError, match="No such file or directory"):
        open_listener(Address(unix_path=str(tmp_path / "none" / "s")))


def test_port_0_is_told() -> None:
    with open_listener(Address("127.0.0.1", 0)) as listener:
        assert describe(listener) == f"127.0.0.1:{listener.getsockname()[1]}"


async def test_max_connections(nursery: trio.Nursery) -> None:
    running = await start(nursery, max_connections=3)
    peers = [await connect(running.port) for _ in range(3)]
    refused = H2Peer(await trio.open_tcp_stream("127.0.0.1", running.port))
    assert not await refused.receive()
    assert refused.closed
    stream_id = peers[0].call("Echo", Note(text="x"))
    await peers[0].flush()
    assert await peers[0].reply(stream_id) == Note(text="x")
    await peers.pop().stream.aclose()
    while True:  # the server hears of it a moment later
        again = H2Peer(await trio.open_tcp_stream("127.0.0.1", running.port))
        peers += [again]
        again.h2.initiate_connection()
        await again.stream.send_all(again.h2.data_to_send())
        if await again.receive():
            break
    await close_all([refused, *peers])


async def test_max_connections_per_address(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tests' own connections came from elsewhere, which are not counted otherwise."""
    running = await start(nursery, max_connections_per_address=2)
    peers = [await connect(running.port) for _ in range(3)]
    monkeypatch.setattr("vx.rpc.server.counted_as", lambda host: host)
    peers += [await connect(running.port) for _ in range(2)]
    refused = H2Peer(await trio.open_tcp_stream("127.0.0.1", running.port))
    assert not await refused.receive()
    await close_all([refused, *peers])


async def test_a_thousand_connections(nursery: trio.Nursery, descriptors: None) -> None:
    """Each of them is there and served, and when they are gone, so are their sockets."""
    running = await start(nursery)
    gc.collect()  # what a failed test may have left
    before = count_sockets()
    peers: list[H2Peer] = []
    for number in range(1000):
        peers.append(await connect(running.port))
        assert peers[-1].call("Echo", Note(count=number)) == 1
        await peers[-1].flush()
    for number, peer in enumerate(peers):
        assert await peer.reply(1) == Note(count=number)
    assert count_sockets() == before + 2000
    for peer in peers:
        await peer.stream.aclose()
    with trio.fail_after(LIMIT_S):
        while count_sockets() > before:
            await trio.testing.wait_all_tasks_blocked()


def count_sockets() -> int:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(entry))  # noqa: PTH115  # not a path: "socket:[1234]"
        except FileNotFoundError:
            continue  # the one with which we look
    return sum(link.startswith("socket:") for link in links)


@pytest.fixture
def descriptors() -> Any:
    """Room for a thousand connections with both of their ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EMFILE, errno.ENOBUFS])
async def test_failing_accepts_do_not_end_the_server(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    failures = [OSError(code, os.strerror(code)), OSError(code, os.strerror(code))]
    real = socket.socket.accept

    def accept(self: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    monkeypatch.setattr("vx.rpc.server._ACCEPT_PAUSE_S", 0)
    running = await start(nursery)
    peer = await connect(running.port)
    assert not failures
    await close_all([peer])
