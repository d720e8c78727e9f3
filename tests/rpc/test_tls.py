"""TLS: who gets in, and that the bytes stay the same."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import h2.events
import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization
from grpc_reflection.v1alpha import proto_reflection_descriptor_database

from tests.rpc.foreign import failure, grpcio, in_thread
from tests.rpc.hand_driven import H2Peer
from tests.rpc.probe import LIMIT_S, Note, Running, bulk_data, start
from tests.server_process import ServerProcess
from vx.config.mistakes import ConfigError
from vx.rpc.tls import TlsWire, server_context


class Pki:
    """A certificate authority, and the files of a server that it knows."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        issued = self.ca.issue_cert("localhost", "127.0.0.1", "::1")
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.root = self.ca.cert_pem.bytes()

    def server(self) -> ssl.SSLContext:
        return server_context(self.certificate, self.key)

    def client(self, *protocols: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def running(nursery: trio.Nursery, pki: Pki) -> Running:
    return await start(nursery, tls=pki.server())


async def open_tls(port: int, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="localhost", https_compatible=True
    )
    try:
        with trio.fail_after(LIMIT_S):
            await stream.do_handshake()
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def test_grpcio_over_tls(running: Running, pki: Pki) -> None:
    size = 700_000

    def client() -> Any:
        with grpcio(f"localhost:{running.port}", root=pki.root) as calls:
            notes = [Note(text=str(number)) for number in range(30)]
            return (
                calls.unary("Echo", Note(data=bulk_data(300_000))),
                list(calls.streaming("Bulk", Note(text=str(size), count=6))),
                list(calls.chatting("Chat", notes)) == notes,
            )

    echo, bulk, chat = await in_thread(client)
    assert echo == Note(data=bulk_data(300_000))
    assert bulk == [Note(data=bulk_data(size))] * 6
    assert chat


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions_that_are_taken(running: Running, pki: Pki, version: ssl.TLSVersion) -> None:
    context = pki.client("h2")
    context.minimum_version = context.maximum_version = version
    stream = await open_tls(running.port, context)
    peer = H2Peer(stream)
    await peer.shake_hands()
    stream_id = peer.call("Echo", Note(text="x"))
    await peer.flush()
    assert await peer.reply(stream_id) == Note(text="x")
    assert stream.selected_alpn_protocol() == "h2"
    await trio.aclose_forcefully(stream)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_1_1_is_refused(running: Running, pki: Pki) -> None:
    context = pki.client("h2")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(trio.BrokenResourceError) as refused:
        await open_tls(running.port, context)
    assert "PROTOCOL_VERSION" in str(refused.value.__cause__)


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
async def test_clients_without_alpn_h2_are_refused(
    running: Running, pki: Pki, protocols: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stream = await open_tls(running.port, pki.client(*protocols))
    with trio.fail_after(LIMIT_S):
        assert await stream.receive_some(100) == b""  # a close_notify: SSLStream would complain without
    assert "ALPN h2" in caplog.text
    await trio.aclose_forcefully(stream)


async def test_a_client_without_tls_is_refused(running: Running, pki: Pki) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            return failure(lambda: calls.unary("Echo"))[0]

    assert await in_thread(client) is grpc.StatusCode.UNAVAILABLE

    def good_client() -> Any:
        with grpcio(f"localhost:{running.port}", root=pki.root) as calls:
            return calls.unary("Echo", Note(text="x"))

    assert await in_thread(good_client) == Note(text="x")


async def test_handshakes_that_never_end(
    nursery: trio.Nursery, pki: Pki, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They hold up nobody, and are ended; here soon."""
    caplog.set_level("INFO")
    monkeypatch.setattr("vx.rpc.server._HANDSHAKE_S", 0.05)
    running = await start(nursery, tls=pki.server(), max_connections=4)
    stuck = [await trio.open_tcp_stream("127.0.0.1", running.port) for _ in range(4)]
    await stuck[0].send_all(b"\x16\x03\x01\x02\x00\x01")
    for stream in stuck:
        with trio.fail_after(LIMIT_S):
            assert await read_to_end(stream) == b""
        await stream.aclose()
    assert caplog.text.count("no TLS handshake within") == 4
    monkeypatch.setattr("vx.rpc.server._HANDSHAKE_S", LIMIT_S)
    good = await open_tls(running.port, pki.client("h2"))
    await H2Peer(good).shake_hands()
    await trio.aclose_forcefully(good)


async def read_to_end(stream: trio.SocketStream) -> bytes:
    data = b""
    try:
        while piece := await stream.receive_some(4096):
            data += piece
    except trio.BrokenResourceError:  # a TCP reset
        pass
    return data


async def test_a_drain_does_not_wait_for_handshakes(nursery: trio.Nursery, pki: Pki) -> None:
    running = await start(nursery, tls=pki.server())
    stuck = await trio.open_tcp_stream("127.0.0.1", running.port)
    stream = await open_tls(running.port, pki.client("h2"))  # the one before is then accepted, too
    await stream.aclose()
    with trio.fail_after(5):  # less than a handshake may take
        running.server.drain()
        await running.ended.wait()
    await stuck.aclose()


async def test_unix_sockets_are_never_encrypted(nursery: trio.Nursery, pki: Pki, tmp_path: Path) -> None:
    await start(nursery, listen=f"unix://{tmp_path}/s", tls=pki.server())

    def client() -> Any:
        with grpcio(f"unix:{tmp_path}/s") as calls:
            return calls.unary("Echo", Note(text="x"))

    assert await in_thread(client) == Note(text="x")


# ---- the wire


async def wires(pki: Pki, *, send_buffer: int | None = None) -> tuple[TlsWire, trio.SSLStream[trio.SocketStream]]:
    """A server's wire, and the stream of its client."""
    near, far = socket.socketpair()
    if send_buffer:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    wire = TlsWire(near, pki.server())
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(far)), pki.client("h2"), server_hostname="localhost"
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.handshake, trio.CapacityLimiter(1))
        nursery.start_soon(stream.do_handshake)
    return wire, stream


async def test_a_blocked_write_goes_on_where_it_was(pki: Pki) -> None:
    """Each byte arrives once and in its place, however few the kernel takes; none counts before."""
    wire, stream = await wires(pki, send_buffer=4096)
    data = bulk_data(1_000_003)
    received = bytearray()

    async def send() -> None:
        cuts = sorted({0, len(data), *range(9, len(data), 16_393), *range(0, len(data), 77_777)})
        left = [memoryview(data)[begin:end] for begin, end in pairwise(cuts)]
        sent = 0
        while left:
            count = wire.send_nowait(left)
            sent += count
            if not count:
                await wire.wait_writable()
            while count:
                taken = min(count, len(left[0]))
                count -= taken
                left[0] = left[0][taken:]
                if not left[0]:
                    del left[0]
        assert sent == len(data)

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while len(received) < len(data):
                received += await stream.receive_some(50_000)
    assert bytes(received) == data
    wire.close()
    await trio.aclose_forcefully(stream)


async def test_what_follows_the_handshake_in_one_flight_is_not_lost(pki: Pki) -> None:
    """The last bytes of a client's handshake and its first data may come together."""
    near, far = socket.socketpair()
    wire = TlsWire(near, pki.server())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = pki.client("h2").wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    far.sendall(outgoing.read())
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.handshake, trio.CapacityLimiter(1))
            await trio.testing.wait_all_tasks_blocked()
            incoming.write(far.recv(65536))
            tls.do_handshake()
            tls.write(b"PRI and so on")
            far.sendall(outgoing.read())
        assert await wire.receive() == b"PRI and so on"
        tls.write(b"a")
        tls.write(b"b")
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        far.sendall(outgoing.read())
        assert await wire.receive() == b"ab"
        assert await wire.receive() == b""  # although the socket is open
    wire.close()
    far.close()


async def test_small_buffers_share_a_record(pki: Pki) -> None:
    wire, stream = await wires(pki)
    buffers = [b"%03d" % number for number in range(64)]
    assert wire.send_nowait(buffers) == 192
    assert await stream.receive_some(65536) == b"".join(buffers)  # SSLStream gives one record at a time
    wire.close()
    await trio.aclose_forcefully(stream)


async def test_garbage_after_the_handshake_is_an_error(running: Running, pki: Pki) -> None:
    stream = await open_tls(running.port, pki.client("h2"))
    peer = H2Peer(stream)
    await peer.shake_hands()
    await peer.hold(running.probe)
    await stream.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    await running.probe.wait_seen("hold cancelled")
    await trio.aclose_forcefully(stream)


async def test_the_end_of_a_connection_is_told(running: Running, pki: Pki) -> None:
    """GOAWAY, then close_notify: nobody in between can have cut it off."""
    stream = await open_tls(running.port, pki.client("h2"))
    peer = H2Peer(stream)
    await peer.shake_hands()
    running.server.drain()
    while not any(isinstance(event, h2.events.PingReceived) for event in await peer.receive()):
        pass
    await peer.flush()
    await peer.wait_closed()
    with trio.fail_after(LIMIT_S):
        await running.ended.wait()
    await trio.aclose_forcefully(stream)


# ---- files


def encrypted(key: bytes) -> bytes:
    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"secret"),
    )


@pytest.mark.parametrize(
    ("certificate", "key", "problem"),
    [
        (None, "good", 'tls.certificate: "{0}" cannot be read: No such file or directory; allowed is a PEM file with'),
        ("good", None, 'tls.key: "{1}" cannot be read: No such file or directory; allowed is a PEM file with'),
        ("key", "good", 'tls.certificate: "{0}" has no CERTIFICATE in it; allowed is a PEM file with a CERTIFICATE'),
        ("good", "certificate", 'tls.key: "{1}" has no PRIVATE KEY in it; allowed is a PEM file with a PRIVATE KEY'),
        ("good", "encrypted", 'tls.key: "{1}" is encrypted; allowed is a PEM file with a PRIVATE KEY without a passp'),
        ("good", "other", 'tls.key: "{1}" is not the key of the certificate "{0}"'),
        ("cut", "good", 'tls: "{0}" and "{1}" cannot be used: '),
    ],
)
def test_files_that_cannot_be_used(
    pki: Pki, tmp_path: Path, certificate: str | None, key: str | None, problem: str
) -> None:
    good_key = pki.key.read_bytes()
    contents = {
        "key": good_key,
        "certificate": pki.certificate.read_bytes(),
        "encrypted": encrypted(good_key),
        "other": trustme.CA().issue_cert("x").private_key_pem.bytes(),
        "cut": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    }
    paths = []
    for name, what in (("certificate", certificate), ("key", key)):
        path = tmp_path / name
        if what == "good":
            path.write_bytes(contents[name])
        elif what:
            path.write_bytes(contents[what])
        paths.append(path)
    with pytest.raises(ConfigError) as caught:
        server_context(*paths)
    assert caught.value.problems[0].startswith(problem.format(*paths))


def test_both_files_are_judged_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        server_context(tmp_path / "none", tmp_path / "nothing")
    assert len(caught.value.problems) == 2


# ---- the whole server


def test_vx_serve_with_tls(pki: Pki, start_server: Callable[[str], ServerProcess]) -> None:
    """Nothing but the certificate is known to the client: it asks the server what it can call."""
    server = start_server(f'[tls]\ncertificate = "{pki.certificate}"\nkey = "{pki.key}"\n')
    with grpcio(f"localhost:{server.address.rpartition(':')[2]}", root=pki.root) as calls:
        database = proto_reflection_descriptor_database.ProtoReflectionDescriptorDatabase(calls.channel)
        assert "axxonsoft.bl.mmexport.ExportService" in database.get_services()
    assert server.terminate() == 0


def test_vx_serve_names_the_file_that_it_cannot_use(pki: Pki, tmp_path: Path) -> None:
    config = tmp_path / "vx.toml"
    none = tmp_path / "none.pem"
    config.write_text(f'state_dir = "{tmp_path}/state"\n[tls]\ncertificate = "{none}"\nkey = "{pki.key}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "vx", "serve", "--config", str(config)], capture_output=True, text=True, check=False
    )
    problem = f'tls.certificate: "{none}" cannot be read: No such file or directory'
    assert done.returncode == 2
    assert done.stderr.startswith(f"{config}: {problem}")
    assert done.stdout == ""
    assert not (tmp_path / "state").exists()
