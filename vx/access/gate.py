"""Who makes a call, and whether a login is right.

Without users in the configuration everybody comes in, as the host that the call comes from.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from vx.access.hashing import DEFAULT_HASH, MAX_PASSWORD, decoy
from vx.access.lockout import Lockout, Verdict
from vx.access.passwords import Passwords
from vx.access.tokens import Tokens, password_mark
from vx.config.schema import Config
from vx.errors import Kind, VxError
from vx.model import Caller, Entry, Token
from vx.rights import EVERYTHING, Rights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side of a connection, as far as the transport knows it."""

    host: str
    """`192.0.2.7`, `unix`."""
    address: str
    """`192.0.2.7:40312`, `unix`."""
    certificate_name: str = ""
    """Whose certificate it has shown; empty: none."""


@dataclass(frozen=True, slots=True)
class Login:
    """What came of a login: a token, or why there is none."""

    verdict: Verdict
    value: str = field(default="", repr=False)
    """The token's; empty where the name or the password was wrong, and where it wasn't even looked at."""
    token: Token | None = None


class Gate:
    """See the module. `note` writes a line of the audit."""

    def __init__(
        self,
        config: Config,
        tokens: Tokens,
        passwords: Passwords,
        note: Callable[[Entry], Awaitable[None]],
        now_us: Callable[[], int],
    ) -> None:
        self._tokens = tokens
        self._passwords = passwords
        self._note = note
        self._now_us = now_us
        self._lockout = Lockout()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """These are the users and roles from now on, for tokens that are out there too."""
        self._users = {user.name: user for user in config.user}
        self._rights = {user.name: config.rights_of(user) for user in config.user}
        hashes = [user.password_hash for user in config.user if user.password_hash]
        self._decoy = decoy(hashes[0] if hashes else DEFAULT_HASH)

    @property
    def is_open(self) -> bool:
        """There are no users: everybody comes in."""
        return not self._users

    def roles(self, name: str) -> Sequence[str]:
        """The names of a user's roles."""
        return self._users[name].roles if name in self._users else ()

    def rights(self, name: str) -> Rights:
        """What a user may do."""
        return self._rights.get(name, Rights())

    def admit(self, value: str | None, peer: Peer) -> Caller:
        """Who makes a call with this token, or with none. VxError(UNAUTHENTICATED) says what is wrong with it."""
        if self.is_open:
            return Caller(peer.host, peer.address, EVERYTHING)
        if value is not None:
            name = self.find(value).user
        elif peer.certificate_name in self._users:
            name = peer.certificate_name
        else:
            raise VxError(
                Kind.UNAUTHENTICATED, "a token is missing: log in with AuthenticateEx2, send it as auth_token"
            )
        return Caller(name, peer.address, self._rights[name])

    def find(self, value: str) -> Token:
        """The token with this value. VxError(UNAUTHENTICATED) if it isn't good (any more)."""
        token = self._tokens.find(value)
        if token is None or not self._is_current(token):
            raise VxError(Kind.UNAUTHENTICATED, "the token is unknown, closed, or expired: log in again")
        return token

    def _is_current(self, token: Token) -> bool:
        user = self._users.get(token.user)
        return user is not None and password_mark(user.password_hash) == token.password_mark

    def _has_password(self, name: str, password_hash: str) -> bool:
        """Still: users may have been configured anew while it was checked."""
        user = self._users.get(name)
        return user is not None and user.password_hash == password_hash

    async def login(self, name: str, password: str, peer: Peer) -> Login:
        """Whether this is a user's password. VxError where that cannot be found out now.

        A wrong name takes the same way, and the same time, as a wrong password.
        """
        verdict = self._lockout.judge(name, peer.host, trio.current_time())
        if verdict is not Verdict.OPEN:
            return Login(verdict)
        user = self._users.get(name)
        password_hash = user.password_hash if user and user.password_hash else self._decoy
        too_long = len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD
        is_right = await self._passwords.check(password_hash, "" if too_long else password, peer.host)
        # The guess has been looked at, so it counts, although the client may have gone meanwhile. The store itself
        # doesn't wait for its disk for ever.
        with trio.CancelScope(shield=True):
            if user is None or too_long or not is_right or not self._has_password(name, user.password_hash):
                await self._refuse(name, peer)
                return Login(Verdict.OPEN)
            self._lockout.succeeded(name, peer.host)
            entry = self._entry("login", name, peer)
            value, token = await self._tokens.issue(name, password_mark(user.password_hash), entry)
        return Login(Verdict.OPEN, value, token)

    async def _refuse(self, name: str, peer: Peer) -> None:
        pause_s = self._lockout.failed(name, peer.host, trio.current_time())
        detail = f"wrong name or password; held off for {pause_s:g} s" if pause_s else "wrong name or password"
        log.warning("login refused to %s: %s", peer.address, detail)
        await self._note(self._entry("refused", name, peer, detail))

    async def renew(self, token: Token, peer: Peer) -> Login:
        """A new token in the place of one that is good."""
        value, new = await self._tokens.renew(token, self._entry("renew", token.user, peer))
        return Login(Verdict.OPEN, value, new)

    async def close(self, token: Token, peer: Peer) -> None:
        """End a token."""
        await self._tokens.close(token, self._entry("logout", token.user, peer))

    def _entry(self, what: str, name: str, peer: Peer, detail: str = "") -> Entry:
        """A line of the audit. What is no user's name is not kept: it may be a password in the wrong field."""
        known = name if name in self._users else "(unknown)"
        return Entry(self._now_us(), what, "", Caller(known, peer.address), detail)
