"""Clients that show a certificate: whose it is, and whose are not taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from tests.e2e.client import refused
from tests.server_process import ServerProcess, started_servers
from tests.stubs import Stubs

LONG_AGO = datetime.now(UTC) - timedelta(days=3)


@dataclass
class Site:
    server: ServerProcess
    authority: trustme.CA

    def call(self, stubs: Stubs, certificate: trustme.LeafCert | None, token: str = "") -> str:
        """GetVersion, as whoever has the certificate."""
        mine = {}
        if certificate is not None:
            chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
            mine = {"private_key": certificate.private_key_pem.bytes(), "certificate_chain": chain}
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes(), **mine)
        with grpc.secure_channel(self.server.address, credentials) as channel:
            stub: Any = stubs.domain_grpc.DomainServiceStub(channel)
            metadata = (("auth_token", token),) if token else ()
            return str(stub.GetVersion(stubs.domain.GetVersionRequest(), metadata=metadata).Version)


def write(folder: Path, certificate: trustme.LeafCert) -> str:
    (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (folder / "server.key").write_bytes(certificate.private_key_pem.bytes())
    return f'[tls]\ncertificate = "{folder}/server.pem"\nkey = "{folder}/server.key"\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    authority = trustme.CA()
    (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
    tls = write(folder, authority.issue_cert("127.0.0.1"))
    users = '[[user]]\nname = "alice"\nroles = []\n'
    with started_servers(folder) as start:
        yield Site(start(f'{tls}client_ca = "{folder}/ca.pem"\n{users}'), authority)


def test_the_certificates_name_is_the_user(site: Site, stubs: Stubs) -> None:
    alice = site.authority.issue_cert("gateway.example", common_name="alice")
    assert site.call(stubs, alice)
    with refused("UNAUTHENTICATED", "the token is unknown, closed, or expired: log in again"):
        site.call(stubs, alice, token="A" * 43)


@pytest.mark.parametrize("name", ["stranger", None])
def test_a_certificate_of_nobody_needs_a_token(site: Site, stubs: Stubs, name: str | None) -> None:
    with refused("UNAUTHENTICATED", "a token is missing: log in with AuthenticateEx2, send it as auth_token"):
        site.call(stubs, site.authority.issue_cert("alice", common_name=name))


def test_certificates_that_are_not_taken(site: Site, stubs: Stubs) -> None:
    other = trustme.CA().issue_cert("x.example", common_name="alice")
    expired = site.authority.issue_cert("x.example", common_name="alice", not_after=LONG_AGO)
    for certificate in (None, other, expired):
        with pytest.raises(grpc.RpcError) as caught:
            site.call(stubs, certificate)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    site.server.wait_log("CERTIFICATE_VERIFY_FAILED")
    site.server.wait_log("PEER_DID_NOT_RETURN_A_CERTIFICATE")


def test_a_client_does_not_take_an_expired_server(tmp_path: Path, stubs: Stubs) -> None:
    authority = trustme.CA()
    with started_servers(tmp_path) as start:
        expired = start(write(tmp_path, authority.issue_cert("127.0.0.1", not_after=LONG_AGO)))
        with pytest.raises(grpc.RpcError) as caught:
            Site(expired, authority).call(stubs, None)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_what_is_no_authority_is_told(tmp_path: Path) -> None:
    from tests.server_process import NotStartedError

    tls = write(tmp_path, trustme.CA().issue_cert("127.0.0.1"))
    users = '[[user]]\nname = "alice"\n'
    with started_servers(tmp_path) as start, pytest.raises(NotStartedError) as failure:
        start(f'{tls}client_ca = "{tmp_path}/server.key"\n{users}')
    assert failure.value.status == 2
    assert f'tls.client_ca: "{tmp_path}/server.key" has no CERTIFICATE in it' in str(failure.value)
