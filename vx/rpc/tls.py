"""TLS under HTTP/2: the server's context, and a wire that encrypts.

OpenSSL works on two buffers in memory, never on the socket. A socket of its own would have to be offered the very same
bytes again after each write that blocked, and would cost a system call for each record; this way is as fast (measured:
128 KiB at a time, 1.0 s of CPU for a GiB against 1.1 s) and every wait is the plain socket's.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from vx.config.mistakes import ConfigError
from vx.rpc.wire import RECEIVE_SIZE, Buffer, PlainWire

_PIECE = 128 * 1024
"""Bytes encrypted at a time: eight whole records, so that headers share a record with what follows them."""
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: what HTTP/2 allows (RFC 9113, 9.2.2). TLS 1.3 has none that it forbids."""


def server_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """What connections are wrapped with. ConfigError says which of the files cannot be used, and why.

    With `client_ca`, clients must show a certificate of that authority.
    """
    problems = _unusable("tls.certificate", certificate, "CERTIFICATE") + _unusable("tls.key", key, "PRIVATE KEY")
    if client_ca:
        problems += _unusable("tls.client_ca", client_ca, "CERTIFICATE")
    if problems:
        raise ConfigError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError([f'tls.key: "{key}" is not the key of the certificate "{certificate}"']) from None
        reason = error.reason or str(error)
        raise ConfigError([f'tls: "{certificate}" and "{key}" cannot be used: {reason}']) from None
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise ConfigError([f'tls.client_ca: "{client_ca}" cannot be used: {error.reason or error}']) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _unusable(name: str, path: Path, kind: str) -> list[str]:
    allowed = f"allowed is a PEM file with a {kind}"
    try:
        text = path.read_text("latin-1")
    except OSError as error:
        return [f'{name}: "{path}" cannot be read: {error.strerror}; {allowed}']
    # OpenSSL would ask for the passphrase on the terminal.
    if "-----BEGIN ENCRYPTED" in text or "Proc-Type: 4,ENCRYPTED" in text:
        return [f'{name}: "{path}" is encrypted; {allowed} without a passphrase']
    if f"{kind}-----" not in text:
        return [f'{name}: "{path}" has no {kind} in it; {allowed}']
    return []


class TlsWire:
    """A TCP connection with TLS on it."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._plain = PlainWire(sock)
        self.peer = self._plain.peer
        self.certificate_name = ""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._encrypted = memoryview(b"")
        """What the kernel has not taken yet."""
        self._ended = False
        """The peer has sent its close_notify."""
        self._owed = 0
        """Bytes at the front of the sender's buffers that are encrypted, and count as sent once that has left."""

    async def handshake(self, turns: trio.CapacityLimiter) -> None:
        """Agree on keys, and on HTTP/2. OSError (ssl.SSLError is one) says why there is no connection.

        A step of it takes a signature, which can be a millisecond's work: as many as have their turn by `turns` are
        taken in one pass of the event loop.
        """
        while True:
            try:
                async with turns:
                    self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._push_all()
                data = await self._plain.receive()
                if not data:
                    raise ConnectionResetError("the client left during the TLS handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                self._push()  # the alert that says why
                raise
        await self._push_all()
        if self._tls.selected_alpn_protocol() != "h2":
            raise ConnectionRefusedError("the client does not offer HTTP/2 (ALPN h2)")
        self.certificate_name = _common_name(self._tls.getpeercert() or {})

    async def receive(self) -> bytes:
        while True:
            # All that came is taken at once: a peer with many small records must not starve others. Something may be
            # there already, for a client need not wait for the end of the handshake.
            data = self._decrypt()
            if data or self._ended:
                return data
            encrypted = await self._plain.receive()
            if not encrypted:
                return b""  # without close_notify, but HTTP/2 says itself whether something is missing
            self._incoming.write(encrypted)

    def _decrypt(self) -> bytes:
        pieces = []
        try:
            while piece := self._tls.read(RECEIVE_SIZE):
                pieces.append(piece)
            self._ended = True  # close_notify; an error instead where we have sent ours
        except ssl.SSLWantReadError:
            self._push()  # the answer to an update of keys
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError:
            self._push()  # the alert that says why
            raise
        return b"".join(pieces)

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        if not self._push():
            return 0
        if self._owed:
            owed, self._owed = self._owed, 0
            return owed
        size = self._tls.write(_front(buffers, _PIECE))
        if self._push():
            return size
        self._owed = size
        return 0

    async def wait_writable(self) -> None:
        await self._plain.wait_writable()

    def send_eof(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass  # the other side's close_notify; nobody waits for that
        finally:
            self._push()
            self._plain.send_eof()

    def close(self) -> None:
        self._plain.close()

    def _push(self) -> bool:
        """Give the kernel what is encrypted; whether it took all."""
        while True:
            if not self._encrypted:
                if not self._outgoing.pending:
                    return True
                self._encrypted = memoryview(self._outgoing.read())
            sent = self._plain.send_nowait((self._encrypted,))
            if not sent:
                return False
            self._encrypted = self._encrypted[sent:]

    async def _push_all(self) -> None:
        while not self._push():
            await self._plain.wait_writable()


def _common_name(certificate: Mapping[str, Any]) -> str:
    """The subject's name in what `ssl` makes of a certificate."""
    subject = (pair for relative in certificate.get("subject", ()) for pair in relative)
    return next((str(value) for name, value in subject if name == "commonName"), "")


def _front(buffers: Sequence[Buffer], size: int) -> Buffer | bytearray:
    first = buffers[0]
    if len(buffers) == 1 or len(first) >= size:
        return memoryview(first)[:size]
    piece = bytearray()
    for buffer in buffers:
        piece += memoryview(buffer)[: size - len(piece)]
        if len(piece) == size:
            break
    return piece
