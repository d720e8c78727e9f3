"""Which calls need a token, and where in a call it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vx.access.gate import Gate, Peer
from vx.model import Caller
from vx.rights import EVERYTHING

TOKEN_NAME = "auth_token"  # noqa: S105  # the metadata's name
FREE = (
    "/axxonsoft.bl.auth.AuthenticationService/AuthenticateEx2",
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
)
"""Methods, and services, that anybody may call: what a client needs before it can log in."""

Admit = Callable[[str, Mapping[str, Any], Peer], Caller]
"""Says who makes a call, by its method, its metadata and where it comes from. VxError where it may not be made."""


def admit_by(gate: Gate) -> Admit:
    """What asks the gate about all calls that need a token."""

    def admit(method: str, metadata: Mapping[str, Any], peer: Peer) -> Caller:
        if method.startswith(FREE):
            return Caller(peer.host, peer.address)
        return gate.admit(token_in(metadata), peer)

    return admit


def admit_all(method: str, metadata: Mapping[str, Any], peer: Peer) -> Caller:
    """Everybody may do everything."""
    return Caller(peer.host, peer.address, EVERYTHING)


def token_in(metadata: Mapping[str, Any]) -> str | None:
    """The token that came with a call, in either of its two places."""
    value = metadata.get(TOKEN_NAME)
    if value is None:
        scheme, _, credentials = str(metadata.get("authorization", "")).partition(" ")
        value = credentials.strip() if scheme.lower() == "bearer" else None
    return value
