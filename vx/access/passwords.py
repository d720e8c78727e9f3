"""Passwords checked against their hashes, one at a time, by a helper process that lives only while there are logins.

However many logins come at once, they cost one process: the others wait their turn, a bounded number of them, and of
each address few (of IPv6, of each network). The helper's memory goes with it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from subprocess import PIPE

import trio

from vx.access import hashing
from vx.access.networks import network_of
from vx.errors import Kind, VxError

log = logging.getLogger(__name__)

_HELPER = (sys.executable, "-P", hashing.__file__)
"""With -P it loads nothing from the folder in which the server was started."""
_ANSWER_S = 10.0
"""How long a check may take; on a machine where it takes longer nobody can log in anyhow."""
_IDLE_S = 10.0
"""How long the helper waits for another login."""
_MAX_WAITING = 32
_MAX_WAITING_FROM_CLIENT = 4


class Passwords:
    """Checks passwords while `run` runs. `command` is what runs as the helper."""

    def __init__(self, command: Sequence[str] = _HELPER) -> None:
        self._command = command
        self._turn = trio.Lock()
        self._waiting: Counter[str] = Counter()
        self._helper: trio.Process | None = None
        self._started = trio.Event()
        self._used_at = 0.0

    async def check(self, password_hash: str, password: str, host: str) -> bool:
        """Whether the hash is the password's. VxError: EXHAUSTED where too many wait, UNAVAILABLE without a helper.

        Once it has begun, it goes on although the caller is cancelled: who calls is sure to hear of it.
        """
        client = network_of(host)
        if self._waiting.total() >= _MAX_WAITING or self._waiting[client] >= _MAX_WAITING_FROM_CLIENT:
            raise VxError(Kind.EXHAUSTED, "too many logins at once; try again later")
        self._waiting[client] += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= Counter((client,))
        try:
            with _shielded():
                try:
                    return await self._ask(json.dumps([password_hash, password]).encode() + b"\n") == b"1\n"
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    log.warning("the helper that checks passwords: %s", error)
            await self._end()  # it has ended, or it hangs
            raise VxError(Kind.UNAVAILABLE, "passwords cannot be checked now")
        finally:
            self._turn.release()

    async def _ask(self, question: bytes) -> bytes:
        if self._helper is None:
            self._helper = await trio.lowlevel.open_process(list(self._command), stdin=PIPE, stdout=PIPE)
            self._started.set()
        self._used_at = trio.current_time()
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        await self._helper.stdin.send_all(question)
        answer = b""
        while not answer.endswith(b"\n"):
            piece = await self._helper.stdout.receive_some(16)
            if not piece:
                raise trio.BrokenResourceError("it has ended")
            answer += piece
        return answer

    async def run(self) -> None:
        """Have no helper while nobody logs in, and none when this is cancelled."""
        try:
            while True:
                await self._started.wait()
                self._started = trio.Event()
                while self._helper is not None:
                    await trio.sleep_until(self._used_at + _IDLE_S)
                    async with self._turn:
                        if trio.current_time() >= self._used_at + _IDLE_S:
                            await self._end()
        finally:
            await self._end()

    async def _end(self) -> None:
        helper, self._helper = self._helper, None
        if helper is None:
            return
        with _shielded():
            helper.kill()
            await helper.wait()
            for stream in (helper.stdin, helper.stdout):
                if stream is not None:
                    await stream.aclose()


def _shielded() -> trio.CancelScope:
    return trio.CancelScope(shield=True, deadline=trio.current_time() + _ANSWER_S)
