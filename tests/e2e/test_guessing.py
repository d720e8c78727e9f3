"""Ten thousand guesses at one password, from several addresses."""

from __future__ import annotations

import asyncio
from asyncio import BaseTransport
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.protocol import H2Protocol

from tests.server_process import ServerProcess, started_servers
from vx.access.hashing import hash_password
from vx.rpc.generated.axxonsoft.bl.auth import (
    AuthenticateRequest,
    AuthenticateResponseEx,
    AuthenticateResponseExEAuthenticateCode,
    AuthenticationServiceStub,
)
from vx.rpc.generated.grpc.health.v1 import HealthCheckRequest, HealthStub
from vx.session.audit import read_audit

Code = AuthenticateResponseExEAuthenticateCode
ADDRESSES = [f"127.0.0.{number}" for number in range(11, 16)]
GUESSES = 2000
"""From each."""
AT_ONCE = 10


class From(Channel):
    """A connection from another address of this machine."""

    def __init__(self, server: str, source: str) -> None:
        host, port = server.split(":")
        super().__init__(host, int(port))
        self._source = source

    async def _create_connection(self) -> H2Protocol:
        made: tuple[BaseTransport, Any] = await self._loop.create_connection(
            self._protocol_factory, self._host, self._port, local_addr=(self._source, 0)
        )
        protocol: H2Protocol = made[1]
        return protocol


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with started_servers(tmp_path) as start:
        yield start(f'[[user]]\nname = "alice"\npassword_hash = "{hash_password("correct horse")}"\n')


async def login(server: str, source: str, password: str) -> AuthenticateResponseEx:
    async with From(server, source) as channel:
        return await AuthenticationServiceStub(channel, timeout=60).authenticate_ex2(
            AuthenticateRequest(user_name="alice", password=password)
        )


async def guess(server: str, source: str) -> Counter[int]:
    answers: Counter[int] = Counter()
    left = iter(range(GUESSES))
    async with From(server, source) as channel:
        stub = AuthenticationServiceStub(channel, timeout=60)

        async def go_on() -> None:
            for number in left:
                request = AuthenticateRequest(user_name="alice", password=f"guess {number}")
                answers[(await stub.authenticate_ex2(request)).error_code] += 1

        await asyncio.gather(*(go_on() for _ in range(AT_ONCE)))
    return answers


async def attack(server: str) -> tuple[list[Counter[int]], list[AuthenticateResponseEx], int]:
    """What the guessers got, what right passwords got meanwhile from elsewhere, and how often health was asked."""
    guessing = asyncio.gather(*(guess(server, address) for address in ADDRESSES))
    logins: list[AuthenticateResponseEx] = []
    asked = 0
    async with From(server, "127.0.0.9") as channel:
        health = HealthStub(channel, timeout=60)
        while not guessing.done():
            await health.check(HealthCheckRequest())
            asked += 1
            if asked % 100 == 1 and len(logins) < 3:
                logins.append(await login(server, "127.0.0.77", "correct horse"))
    logins.append(await login(server, "127.0.0.77", "correct horse"))
    return await guessing, logins, asked


def test_ten_thousand_wrong_passwords(server: ServerProcess) -> None:
    answers, logins, asked = asyncio.run(attack(server.address))
    for of_address in answers:
        assert of_address.total() == GUESSES
        assert set(of_address) <= {
            Code.AUTHENTICATE_CODE_WRONG_CREDENTIALS,
            Code.AUTHENTICATE_CODE_USER_LOCKED,
            Code.AUTHENTICATE_CODE_IP_BLOCKED,
            Code.AUTHENTICATE_CODE_GENERAL_ERROR,  # too many at once
        }
        assert of_address[Code.AUTHENTICATE_CODE_USER_LOCKED] + of_address[Code.AUTHENTICATE_CODE_IP_BLOCKED]
    assert asked
    # From an address that has done nothing wrong, the right password comes in, at its first try, all the while.
    assert logins[-1].error_code == Code.AUTHENTICATE_CODE_OK
    assert {login.error_code for login in logins} == {Code.AUTHENTICATE_CODE_OK}
    # What was looked at is what the audit has: that much argon2 was computed, and not ten thousand times.
    refused = [entry for entry in read_audit(server.state_dir / "vx.sqlite") if entry.what == "refused"]
    assert len(refused) == sum(of_address[Code.AUTHENTICATE_CODE_WRONG_CREDENTIALS] for of_address in answers)
    assert len(refused) < 200
    assert {entry.who.name for entry in refused} == {"alice"}
    assert any("held off for" in entry.detail for entry in refused)


def test_guessers_are_held_off_and_others_are_not(server: ServerProcess) -> None:
    async def guess_and_ask() -> list[int]:
        for number in range(12):
            await login(server.address, "127.0.0.11", f"guess {number}")
        sources = ("127.0.0.11", "127.0.0.12")
        return [(await login(server.address, source, "correct horse")).error_code for source in sources]

    held, free = asyncio.run(guess_and_ask())
    assert held in (Code.AUTHENTICATE_CODE_USER_LOCKED, Code.AUTHENTICATE_CODE_IP_BLOCKED)
    assert free == Code.AUTHENTICATE_CODE_OK
