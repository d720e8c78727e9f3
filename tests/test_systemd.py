from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from vx.systemd import Systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """systemd's end, and how the environment names it."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name if request.param == "path" else f"\0{name}")
        sock.settimeout(5)
        yield sock, name if request.param == "path" else f"@{name}"


def test_it_is_told_and_the_workers_are_not(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    environment = {"NOTIFY_SOCKET": address, "HOME": "/"}
    with closing(Systemd(environment)) as systemd:
        assert environment == {"HOME": "/"}
        assert systemd.watchdog_s is None
        systemd.tell("READY=1")
        assert sock.recv(100) == b"READY=1"


async def test_the_watchdog_hears_twice_in_its_time(
    manager: tuple[socket.socket, str], autojump_clock: trio.testing.MockClock
) -> None:
    sock, address = manager
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    with closing(Systemd(environment)) as systemd:
        with trio.move_on_after(31):
            await systemd.keep_alive()
        sock.setblocking(False)
        assert [sock.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        with pytest.raises(BlockingIOError):
            sock.recv(100)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "soon"},
    ],
)
async def test_where_nobody_listens_nothing_happens(environment: dict[str, str]) -> None:
    with closing(Systemd(environment)) as systemd:
        systemd.tell("READY=1")
        await systemd.keep_alive()
        assert systemd.watchdog_s is None


def test_one_that_does_not_read_holds_nothing_up(manager: tuple[socket.socket, str]) -> None:
    _, address = manager
    with closing(Systemd({"NOTIFY_SOCKET": address})) as systemd:
        for _ in range(10_000):
            systemd.tell("WATCHDOG=1")
