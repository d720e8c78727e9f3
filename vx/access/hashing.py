"""Password hashes, argon2id: this file as a helper process of the server, and `vx passwd`.

The server does not compute them itself: each takes tens of megabytes and of milliseconds, and neither is to stay with
the process that answers everybody. The helper reads lines of JSON, `["hash", "password"]`, and answers each with
`1` or `0`; it ends at the end of its input.
"""

from __future__ import annotations

import json
import os
import re
import sys

TIME_COST, MEMORY_KIB, PARALLELISM = 2, 19_456, 1
"""What OWASP's cheat sheet on password storage asks for at least; a small machine affords no more at each login."""
MAX_PASSWORD = 1024
"""Bytes."""
_HASH = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})", re.ASCII
)
_MAX_MEMORY_KIB, _MAX_TIME, _MAX_PARALLELISM = 262_144, 20, 8
_NICE = 10


def check_hash(text: str) -> str:
    """The hash as it is, if it is one that a login can be checked with at a bearable cost. ValueError."""
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("it has another form")
    memory, time_cost, lanes = (int(match[group]) for group in (1, 2, 3))
    if not (8 * lanes <= memory <= _MAX_MEMORY_KIB and 1 <= time_cost <= _MAX_TIME and 1 <= lanes <= _MAX_PARALLELISM):
        raise ValueError(
            f"it costs too much at each login: m to {_MAX_MEMORY_KIB}, t to {_MAX_TIME}, p to {_MAX_PARALLELISM}"
        )
    return text


def decoy(password_hash: str) -> str:
    """A hash that takes as long to check as the given one, and that no password fits."""
    match = _HASH.fullmatch(password_hash)
    assert match is not None, "hashes are checked with the configuration"
    return f"{password_hash[: match.start(4)]}{'A' * len(match[4])}${'A' * len(match[5])}"


DEFAULT_HASH = f"$argon2id$v=19$m={MEMORY_KIB},t={TIME_COST},p={PARALLELISM}${'A' * 22}${'A' * 43}"
"""Of no password, at the cost of those that `hash_password` makes."""


def hash_password(password: str) -> str:
    """What goes into the configuration as `password_hash`."""
    from argon2 import PasswordHasher

    hasher = PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM)
    return hasher.hash(password)


def main() -> None:
    """The helper process."""
    from argon2 import low_level
    from argon2.exceptions import Argon2Error

    os.nice(_NICE)
    for line in sys.stdin.buffer:
        password_hash, password = json.loads(line)
        is_right: bool
        try:
            is_right = low_level.verify_secret(
                password_hash.encode(), password.encode("utf-8", "surrogatepass"), low_level.Type.ID
            )
        except Argon2Error:
            is_right = False
        sys.stdout.write(f"{int(is_right)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
