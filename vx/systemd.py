"""What systemd is told, as sd_notify(3) has it: that the server serves, lives, ends. Nothing where it didn't ask."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

import trio

log = logging.getLogger(__name__)


class Systemd:
    """The notification socket that the environment names, if any."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Takes its variables out of the environment: they are not for the workers."""
        environment = os.environ if environment is None else environment
        address = environment.pop("NOTIFY_SOCKET", "")
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        watchdog_pid = environment.pop("WATCHDOG_PID", "")
        self._socket: socket.socket | None = None
        self.watchdog_s: float | None = None
        """Within this time it wants to hear `WATCHDOG=1` again."""
        if not address.startswith(("/", "@")):
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        if watchdog_us.isdigit() and int(watchdog_us) and watchdog_pid in ("", str(os.getpid())):
            self.watchdog_s = int(watchdog_us) / 1e6

    def tell(self, state: str) -> None:
        """`READY=1`, `STOPPING=1`, `WATCHDOG=1`, `STATUS=…`. One that can't be told is logged and left."""
        if self._socket is None:
            return
        try:
            self._socket.sendto(state.encode(), self._address)
        except BlockingIOError:
            pass  # it doesn't read; the next word is as good
        except OSError as error:
            log.warning("systemd can't be told %s: %s", state, error)

    async def keep_alive(self) -> None:
        """Tell again and again that the event loop turns, until cancelled. Returns at once where nobody asked."""
        while self.watchdog_s is not None:
            self.tell("WATCHDOG=1")
            await trio.sleep(self.watchdog_s / 2)

    def close(self) -> None:
        """Let go of the socket. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
