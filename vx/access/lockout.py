"""Who is held off after failed logins, and for how long. Pure; times are seconds of any clock that only goes on.

Failures count against the address and against the account, and beyond a few each one makes the next pause twice as
long. A locked account is locked to addresses from which it was guessed at, not to others: nobody can lock a user out
by guessing. An address that goes on is held off whatever the account. What is remembered is bounded; the oldest goes.
"""

from __future__ import annotations

import enum
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from vx.access.networks import network_of

_Key = TypeVar("_Key")

ACCOUNT_FREE = 5
"""Failures of an account before the first pause: people mistype."""
ADDRESS_FREE = 10
"""The same of an address, behind which there may be several people."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 900.0
FORGET_S = 3600.0
"""Failures count no more when there was none for this long after the pause."""
CAPACITY = 10_000
"""Accounts, addresses, and pairs of them that are remembered, each."""


class Verdict(enum.Enum):
    """Whether a login is looked at."""

    OPEN = "open"
    ACCOUNT_LOCKED = "account locked"
    ADDRESS_BLOCKED = "address blocked"


@dataclass(slots=True)
class _Failures:
    count: int = 0
    until: float = 0.0


class _Memory(Generic[_Key]):
    """Failures by key; of too many keys the one that failed longest ago is forgotten."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._of: OrderedDict[_Key, _Failures] = OrderedDict()

    def is_held_off(self, key: _Key, now: float) -> bool:
        failures = self._of.get(key)
        return failures is not None and now < failures.until

    def has_failed(self, key: _Key, now: float) -> bool:
        failures = self._of.get(key)
        return failures is not None and now < failures.until + FORGET_S

    def add(self, key: _Key, now: float) -> float:
        """Count a failure; the pause that follows, 0 for none."""
        failures = self._of.pop(key, None)
        if failures is None or now >= failures.until + FORGET_S:
            failures = _Failures()
        failures.count += 1
        beyond = failures.count - self._free
        pause = min(FIRST_PAUSE_S * 2.0 ** min(beyond, 30), LONGEST_PAUSE_S) if beyond >= 0 else 0.0
        failures.until = now + pause
        self._of[key] = failures
        while len(self._of) > CAPACITY:
            self._of.popitem(last=False)
        return pause

    def forget(self, key: _Key) -> None:
        self._of.pop(key, None)


class Lockout:
    """See the module. Accounts are names as they were given, whether there is such a user or not."""

    def __init__(self) -> None:
        self._accounts = _Memory[bytes](ACCOUNT_FREE)
        self._addresses = _Memory[str](ADDRESS_FREE)
        self._pairs = _Memory[tuple[bytes, str]](ACCOUNT_FREE)

    def judge(self, account: str, host: str, now: float) -> Verdict:
        """Whether a login to `account` from `host` is looked at now."""
        address = network_of(host)
        if self._addresses.is_held_off(address, now):
            return Verdict.ADDRESS_BLOCKED
        key = _digest(account)
        if self._accounts.is_held_off(key, now) and self._pairs.has_failed((key, address), now):
            return Verdict.ACCOUNT_LOCKED
        return Verdict.OPEN

    def failed(self, account: str, host: str, now: float) -> float:
        """A login was wrong. Seconds for which the address or the account is held off now; 0 if neither is."""
        key, address = _digest(account), network_of(host)
        self._pairs.add((key, address), now)
        return max(self._accounts.add(key, now), self._addresses.add(address, now))

    def succeeded(self, account: str, host: str) -> None:
        """A login was right: what this user mistyped from there is forgotten. The address keeps its failures, or who
        has an account could guess at others for ever."""
        self._pairs.forget((_digest(account), network_of(host)))


def _digest(account: str) -> bytes:
    """Names may be of any length; what is remembered of them is not."""
    return hashlib.sha256(account.encode("utf-8", "surrogatepass")).digest()[:16]
