"""A certificate authority for one server, and that server's certificate. Needs `cryptography`, which `vx[init]` brings.

The keys are on P-256, which every client of today takes; the authority lasts for twenty years, the server's certificate
for two and a quarter, which is as long as strict clients take one.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca.key"
CERTIFICATE, KEY = "server.pem", "server.key"
_AUTHORITY_LIFE = timedelta(days=20 * 365)
_CERTIFICATE_LIFE = timedelta(days=825)
_EARLIER = timedelta(days=1)
"""Clocks of the machines in a cellar are off."""
_ALWAYS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class NewFile:
    """A file that is to be made."""

    name: str
    content: bytes = field(repr=False)
    mode: int


def make(names: Sequence[str]) -> list[NewFile]:
    """Authority, certificate, and their keys. ValueError for what is neither a name nor an address."""
    alternatives = x509.SubjectAlternativeName(_general_names((*names, *_ALWAYS)))
    authority_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"vx authority of {names[0]}"[:64])])
    key_usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    authority = (
        _builder(name, name, authority_key, _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    key, certificate = _issue(authority, authority_key, alternatives, names[0])
    return [
        NewFile(AUTHORITY_KEY, _private(authority_key), 0o600),
        NewFile(AUTHORITY, authority.public_bytes(serialization.Encoding.PEM), 0o644),
        NewFile(KEY, key, 0o600),
        NewFile(CERTIFICATE, certificate, 0o644),
    ]


def renew(folder: Path) -> None:
    """Another certificate and key of the server, with the names of the old one, which stays where this fails.

    OSError, ValueError.
    """
    authority = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
    authority_key = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{folder / AUTHORITY_KEY} is not the key that `vx init` made")  # noqa: TRY004
    old = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    alternatives = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (common_name,) = old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    key, certificate = _issue(authority, authority_key, alternatives, str(common_name.value))
    parts = [NewFile(f"{KEY}.new", key, 0o600), NewFile(f"{CERTIFICATE}.new", certificate, 0o644)]
    for part in parts:
        (folder / part.name).unlink(missing_ok=True)
    write_new(folder, parts)
    for part in parts:
        (folder / part.name).replace(folder / part.name.removesuffix(".new"))


def _issue(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    alternatives: x509.SubjectAlternativeName,
    common_name: str,
) -> tuple[bytes, bytes]:
    """A key of the server's, and its certificate, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    certificate = (
        _builder(subject, authority.subject, key, _CERTIFICATE_LIFE)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return _private(key), certificate.public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + life)
    )


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if not all(part.replace("-", "a").isalnum() for part in name.removeprefix("*.").split(".")):
                raise ValueError(f"{name!r} is neither a host's name nor an address") from None
            found.append(x509.DNSName(name.encode("idna").decode()))
    return found


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_new(folder: Path, files: Sequence[NewFile]) -> None:
    """Write all of them, or none where one fails. OSError; FileExistsError where one is there.

    Nobody's keys and configuration are overwritten or removed: not those of somebody who does the same at this moment.
    """
    made: list[Path] = []
    try:
        for file in files:
            path = folder / file.name
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file.mode)
            made.append(path)
            with os.fdopen(fd, "wb") as opened:
                opened.write(file.content)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
