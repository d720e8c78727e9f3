"""Tokens: what a login is worth, until when. The store keeps only their hashes, so that a copy of it opens nothing.

All that are good are in memory, by their hashes: a call is checked without a disk. A token dies with its time, with
CloseSession, when its user is configured no more, and when that user's password is another one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from vx.model import Entry, Token

GRACE_US = 60_000_000
"""How long a token that was renewed is good for: calls under way, and other threads of the client, still have it."""
MAX_OF_USER = 1000
"""A client that logs in for every call and never out: its oldest token is dropped."""


class TokenStore(Protocol):
    """What tokens need of a memory. A change is durable when the call returns; StoreError where it isn't."""

    async def load_tokens(self) -> list[Token]:
        """All, in the order in which they expire."""

    async def change_tokens(self, kept: Sequence[Token], dropped: Sequence[Token], entry: Entry) -> None:
        """Add or replace some, delete others, with a line of the audit."""


def password_mark(password_hash: str) -> str:
    """Changes with the password, and tells nothing of it."""
    return hashlib.sha256(password_hash.encode()).hexdigest()[:16]


def digest_of(value: str) -> bytes:
    """By which a token is kept. It is as random as the token itself: looking it up tells nothing by its time."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()


class Tokens:
    """All tokens of a server. `now_us` is the wall clock: tokens outlive the process."""

    def __init__(self, store: TokenStore, lifetime_us: int, now_us: Callable[[], int]) -> None:
        self._store = store
        self._lifetime_us = lifetime_us
        self._now_us = now_us
        self._of: dict[bytes, Token] = {}

    async def load(self) -> None:
        """Those that an earlier server gave. StoreError."""
        self._of = {token.digest: token for token in await self._store.load_tokens()}

    def find(self, value: str) -> Token | None:
        """The token with this value, if it is good."""
        token = self._of.get(digest_of(value))
        return token if token and token.expires_us > self._now_us() else None

    async def issue(self, user: str, mark: str, entry: Entry) -> tuple[str, Token]:
        """A new token and its value. StoreError."""
        value, token = self._new(user, mark)
        dropped = self._superfluous(user)
        await self._store.change_tokens([token], dropped, entry)
        self._remember([token], dropped)
        return value, token

    async def renew(self, token: Token, entry: Entry) -> tuple[str, Token]:
        """A new token in the place of another one, which lives on for `GRACE_US`. StoreError."""
        value, new = self._new(token.user, token.password_mark)
        old = replace(token, expires_us=min(token.expires_us, self._now_us() + GRACE_US))
        dropped = self._superfluous(token.user)
        await self._store.change_tokens([new, old], dropped, entry)
        was_closed = token.digest not in self._of  # meanwhile; the store deletes it after this change
        self._remember([new] if was_closed else [new, old], dropped)
        return value, new

    async def close(self, token: Token, entry: Entry) -> None:
        """It is good for nothing from now on. StoreError."""
        self._of.pop(token.digest, None)  # first of all, whatever becomes of the disk
        await self._store.change_tokens([], [token], entry)

    def _new(self, user: str, mark: str) -> tuple[str, Token]:
        value = secrets.token_urlsafe(32)
        return value, Token(digest_of(value), user, mark, self._now_us() + self._lifetime_us)

    def _remember(self, kept: Sequence[Token], dropped: Sequence[Token]) -> None:
        for token in dropped:
            self._of.pop(token.digest, None)
        self._of.update((token.digest, token) for token in kept)

    def _superfluous(self, user: str) -> list[Token]:
        """Those that have died, and of this user's the ones that die first, so that there is room for another one."""
        now = self._now_us()
        dead = [token for token in self._of.values() if token.expires_us <= now]
        own = [token for token in self._of.values() if token.user == user and token.expires_us > now]
        own.sort(key=lambda token: token.expires_us)
        return dead + own[: max(0, len(own) - MAX_OF_USER + 1)]
