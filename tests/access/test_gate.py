"""Logins, tokens, and who is let in; passwords are checked by a helper that does what a test tells it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing
from argon2 import PasswordHasher

from vx.access import tokens as tokens_module
from vx.access.gate import Gate, Peer
from vx.access.hashing import MAX_PASSWORD
from vx.access.lockout import ACCOUNT_FREE, Verdict
from vx.access.passwords import _IDLE_S, Passwords
from vx.access.tokens import GRACE_US, Tokens
from vx.config.reading import parse
from vx.config.schema import Config
from vx.errors import Kind, VxError
from vx.model import Entry, Token

HERE, THERE = Peer("192.0.2.1", "192.0.2.1:1"), Peer("192.0.2.2", "192.0.2.2:2")
HOUR_US = 3_600_000_000
_hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ALICE_HASH, OTHER_HASH = _hasher.hash("right"), _hasher.hash("other")


def config(alice_hash: str = ALICE_HASH, more: str = "") -> Config:
    return parse(f"""
state_dir = "/nowhere"
[[role]]
name = "guard"
cameras = ["*"]
archive = true
[[user]]
name = "alice"
password_hash = "{alice_hash}"
roles = ["guard"]
{more}
""")


@dataclass
class MemoryTokens:
    """A store of tokens and of the audit."""

    tokens: dict[bytes, Token] = field(default_factory=dict)
    audit: list[Entry] = field(default_factory=list)
    turn: trio.Event | None = None
    """Changes wait for it."""

    async def load_tokens(self) -> list[Token]:
        return sorted(self.tokens.values(), key=lambda token: token.expires_us)

    async def change_tokens(self, kept: Sequence[Token], dropped: Sequence[Token], entry: Entry) -> None:
        await trio.lowlevel.checkpoint()
        if self.turn is not None:
            await self.turn.wait()
        for token in dropped:
            self.tokens.pop(token.digest, None)
        self.tokens.update((token.digest, token) for token in kept)
        self.audit.append(entry)

    async def note(self, entry: Entry) -> None:
        self.audit.append(entry)


class Checker(Passwords):
    """Compares with the one right password, in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.right = "right"
        self.asked: list[str] = []
        self.seen: set[str] = set()
        self.turn: trio.Event | None = None
        """Checks wait for it."""

    async def check(self, password_hash: str, password: str, host: str) -> bool:
        await trio.lowlevel.checkpoint()
        if self.turn is not None:
            await self.turn.wait()
        self.asked.append(password_hash)
        self.seen.add(password)
        return password_hash == ALICE_HASH and password == self.right


class Rig:
    def __init__(self) -> None:
        self.now_us = 1_000 * HOUR_US
        self.store = MemoryTokens()
        self.passwords = Checker()
        self.tokens = Tokens(self.store, 12 * HOUR_US, lambda: self.now_us)
        self.gate = Gate(config(), self.tokens, self.passwords, self.store.note, lambda: self.now_us)

    async def login(self) -> str:
        return (await self.gate.login("alice", "right", HERE)).value

    def is_in(self, value: str) -> bool:
        try:
            return self.gate.admit(value, HERE).name == "alice"
        except VxError:
            return False


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_token_lets_in_until_its_time_is_over(rig: Rig) -> None:
    value = await rig.login()
    caller = rig.gate.admit(value, THERE)
    assert (caller.name, caller.address) == ("alice", "192.0.2.2:2")
    assert caller.rights.may_see("hosts/S/DeviceIpint.1/SourceEndpoint.video:0:0")
    rig.now_us += 12 * HOUR_US - 1
    assert rig.is_in(value)
    rig.now_us += 1
    assert not rig.is_in(value)


async def test_a_login_does_not_show_its_token(rig: Rig) -> None:
    login = await rig.gate.login("alice", "right", HERE)
    assert login.value
    assert login.value not in repr(login)


async def test_the_store_has_no_token_but_tokens_outlive_the_server(rig: Rig) -> None:
    value = await rig.login()
    assert value not in repr(rig.store)
    again = Tokens(rig.store, 12 * HOUR_US, lambda: rig.now_us)
    await again.load()
    found = again.find(value)
    assert found is not None
    assert found.user == "alice"


async def test_a_renewed_token_has_a_minute_left(rig: Rig) -> None:
    old = await rig.login()
    new = (await rig.gate.renew(rig.gate.find(old), HERE)).value
    rig.now_us += GRACE_US - 1
    assert (rig.is_in(old), rig.is_in(new)) == (True, True)
    rig.now_us += 1
    assert (rig.is_in(old), rig.is_in(new)) == (False, True)
    assert [entry.what for entry in rig.store.audit] == ["login", "renew"]


async def test_renewing_a_dying_token_gives_it_no_more_time(rig: Rig) -> None:
    old = await rig.login()
    rig.now_us += 12 * HOUR_US - 5
    await rig.gate.renew(rig.gate.find(old), HERE)
    rig.now_us += 5
    assert not rig.is_in(old)


async def test_a_closed_token_is_closed_for_good(rig: Rig) -> None:
    value, other = await rig.login(), await rig.login()
    await rig.gate.close(rig.gate.find(value), HERE)
    assert (rig.is_in(value), rig.is_in(other)) == (False, True)
    again = Tokens(rig.store, HOUR_US, lambda: rig.now_us)
    await again.load()
    assert again.find(value) is None


async def test_a_token_that_is_closed_while_it_is_renewed_is_closed(rig: Rig) -> None:
    value = await rig.login()
    token = rig.gate.find(value)
    async with trio.open_nursery() as nursery:
        rig.store.turn = trio.Event()
        nursery.start_soon(rig.gate.renew, token, HERE)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(rig.gate.close, token, HERE)
        await trio.testing.wait_all_tasks_blocked()
        rig.store.turn.set()
    assert not rig.is_in(value)


async def test_another_password_or_no_user_ends_tokens(rig: Rig) -> None:
    value = await rig.login()
    rig.gate.configure(config(OTHER_HASH))
    assert not rig.is_in(value)
    rig.gate.configure(config())
    assert rig.is_in(value)
    rig.gate.configure(parse('state_dir = "/n"\n[[user]]\nname = "bob"\npassword_hash = "' + ALICE_HASH + '"'))
    assert not rig.is_in(value)


async def test_a_user_has_so_many_tokens(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MAX_OF_USER", 3)
    values = []
    for _ in range(5):
        values.append(await rig.login())
        rig.now_us += 1
    assert [rig.is_in(value) for value in values] == [False, False, True, True, True]
    assert len(rig.store.tokens) == 3


async def test_dead_tokens_are_swept_with_the_next_login(rig: Rig) -> None:
    await rig.login()
    rig.now_us += 13 * HOUR_US
    await rig.login()
    assert len(rig.store.tokens) == 1


async def test_wrong_names_and_wrong_passwords_take_the_same_way(rig: Rig) -> None:
    for name, password in (("alice", "wrong"), ("nobody", "right"), ("alice", "x" * 5000)):
        login = await rig.gate.login(name, password, HERE)
        assert (login.verdict, login.token) == (Verdict.OPEN, None)
    costs = {password_hash.rpartition("$")[0].rpartition("$")[0] for password_hash in rig.passwords.asked}
    assert len(rig.passwords.asked) == 3
    assert len(costs) == 1  # the same parameters: the same work
    assert [(entry.what, entry.who.name) for entry in rig.store.audit] == [
        ("refused", "alice"),
        ("refused", "(unknown)"),
        ("refused", "alice"),
    ]


async def test_a_password_that_is_too_long_is_wrong_and_not_looked_at(rig: Rig) -> None:
    rig.passwords.right = ""
    assert (await rig.gate.login("alice", "x" * (MAX_PASSWORD + 1), HERE)).token is None
    assert rig.passwords.seen == {""}
    rig.passwords.right = "x" * MAX_PASSWORD
    assert (await rig.gate.login("alice", "x" * MAX_PASSWORD, HERE)).token is not None


async def test_who_mistyped_and_then_did_not_may_come_in_while_others_guess(rig: Rig) -> None:
    for password in ("wrong", "right"):
        await rig.gate.login("alice", password, HERE)
    for _ in range(ACCOUNT_FREE):
        await rig.gate.login("alice", "wrong", THERE)
    assert (await rig.gate.login("alice", "right", THERE)).verdict is Verdict.ACCOUNT_LOCKED
    assert (await rig.gate.login("alice", "right", HERE)).token is not None


async def test_who_is_held_off_costs_no_check(rig: Rig, autojump_clock: trio.testing.MockClock) -> None:
    for _ in range(ACCOUNT_FREE):
        await rig.gate.login("alice", "wrong", HERE)
    checks = len(rig.passwords.asked)
    assert (await rig.gate.login("alice", "right", HERE)).verdict is Verdict.ACCOUNT_LOCKED
    assert len(rig.passwords.asked) == checks
    assert (await rig.gate.login("alice", "right", THERE)).token is not None
    await trio.sleep(1)
    assert (await rig.gate.login("alice", "right", HERE)).token is not None


@pytest.mark.parametrize(
    ("alice_hash", "is_in"), [(ALICE_HASH, True), (OTHER_HASH, False)], ids=["the same", "another"]
)
async def test_users_that_are_read_again_during_a_check(rig: Rig, alice_hash: str, is_in: bool) -> None:
    """Who has another password by then doesn't come in, all others do."""
    async with trio.open_nursery() as nursery:
        results = []

        async def login() -> None:
            results.append(await rig.gate.login("alice", "right", HERE))

        rig.passwords.turn = trio.Event()
        nursery.start_soon(login)
        await trio.testing.wait_all_tasks_blocked()
        rig.gate.configure(config(alice_hash))
        rig.passwords.turn.set()
    assert (results[0].token is not None) == is_in


def test_a_certificate_is_its_users(rig: Rig) -> None:
    peer = Peer("192.0.2.1", "192.0.2.1:1", "alice")
    assert rig.gate.admit(None, peer).name == "alice"
    with pytest.raises(VxError, match="the token is unknown"):
        rig.gate.admit("A" * 43, peer)
    with pytest.raises(VxError, match="a token is missing"):
        rig.gate.admit(None, Peer("192.0.2.1", "192.0.2.1:1", "stranger"))


def test_without_users_everybody_is_the_host_that_calls(rig: Rig) -> None:
    rig.gate.configure(parse('state_dir = "/n"'))
    caller = rig.gate.admit(None, HERE)
    assert (caller.name, caller.address, caller.rights.supervisor) == ("192.0.2.1", "192.0.2.1:1", True)
    assert not caller.rights.may_see_unmasked("any")


# ---- the helper


async def check(passwords: Passwords, password: str, host: str = "h") -> bool:
    return await passwords.check(ALICE_HASH, password, host)


async def test_the_helper_checks_and_ends_when_nobody_logs_in(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vx.access.passwords._IDLE_S", 0.01)
    passwords = Passwords()
    nursery.start_soon(passwords.run)
    assert await check(passwords, "right")
    assert not await check(passwords, "wrong")
    assert not await check(passwords, 'quotes " and \\ and \n lines, ünïcödé')
    helper = passwords._helper
    if helper is not None:
        with trio.fail_after(30):
            await helper.wait()
    assert await check(passwords, "right")


async def test_the_helper_loads_nothing_from_the_folder_in_which_the_server_was_started(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('somebody else is here')")
    monkeypatch.chdir(tmp_path)
    passwords = Passwords()
    nursery.start_soon(passwords.run)
    assert await check(passwords, "right")


async def test_the_helper_stays_while_there_are_logins(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    program = f"open({str(starts)!r}, 'a').write('x'); from vx.access.hashing import main; main()"
    passwords = Passwords([sys.executable, "-c", program])
    nursery.start_soon(passwords.run)
    assert await check(passwords, "right")
    for pause_s, count in ((_IDLE_S - 1, 1), (_IDLE_S - 1, 1), (_IDLE_S, 2)):
        mock_clock.jump(pause_s)
        await trio.testing.wait_all_tasks_blocked()
        assert await check(passwords, "right")
        assert len(starts.read_text()) == count


HANGS = [sys.executable, "-c", "import time; time.sleep(1000)"]
ENDS = [sys.executable, "-c", ""]
MISSING = ["/no/such/program"]


@pytest.mark.parametrize("command", [HANGS, ENDS, MISSING], ids=["hangs", "ends", "is missing"])
async def test_a_helper_that_does_not_answer(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("vx.access.passwords._ANSWER_S", 0.2 if command is HANGS else 10)
    passwords = Passwords(command)
    nursery.start_soon(passwords.run)
    for _ in range(2):
        with pytest.raises(VxError, match="cannot be checked now") as caught:
            await check(passwords, "right")
        assert caught.value.kind is Kind.UNAVAILABLE
        assert passwords._helper is None
    passwords._command = Passwords()._command
    monkeypatch.setattr("vx.access.passwords._ANSWER_S", 10)
    assert await check(passwords, "right")


async def test_only_so_many_wait_for_a_check(nursery: trio.Nursery) -> None:
    passwords = Passwords(HANGS)
    refused: list[str] = []

    async def ask(host: str) -> None:
        try:
            await check(passwords, "x", host)
        except VxError as error:
            if error.kind is Kind.EXHAUSTED:
                refused.append(host)

    async with trio.open_nursery() as asking:
        asking.start_soon(ask, "first")
        await trio.testing.wait_all_tasks_blocked(0.05)
        for number in range(6):
            asking.start_soon(ask, f"2001:db8::{number}")  # one network, so one client
        await trio.testing.wait_all_tasks_blocked(0.05)
        for number in range(40):
            asking.start_soon(ask, f"host {number}")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sum(host.startswith("2001:db8::") for host in refused) == 2
        assert len(refused) == 2 + 40 - 28
        assert passwords._helper is not None
        passwords._helper.kill()
        asking.cancel_scope.cancel()
    with trio.fail_after(30):
        await passwords._end()
