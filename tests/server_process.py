"""A real server: `vx serve` in a process of its own, on a free port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

STOP_S = 30


class NotStartedError(Exception):
    """The server ended, or was killed, before it listened."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ServerProcess:
    """A running server. `address` is what it listens on first; `log` is what it has said on stderr so far."""

    def __init__(
        self,
        folder: Path,
        configuration: str,
        *,
        state_dir: Path | None = None,
        program: Sequence[str] = ("-m", "vx"),
    ) -> None:
        """One in the folder of another that has ended goes on where that one was. `program`: what Python runs."""
        folder.mkdir(parents=True, exist_ok=True)
        self.state_dir = state_dir or folder / "state"
        config = folder / "vx.toml"
        if "listen" not in configuration:
            configuration = 'listen = ["127.0.0.1:0"]\n' + configuration
        config.write_text(f'state_dir = "{self.state_dir}"\n{configuration}')
        self.process = subprocess.Popen(
            [sys.executable, *program, "serve", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "default"},
        )
        self._lines: list[str] = []
        self._said = threading.Condition()
        assert self.process.stdout
        assert self.process.stderr
        self._reader = threading.Thread(target=self._read_log, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self.kill()
            raise NotStartedError(self.process.returncode, f"the server did not start: {line!r}\n{self.log}")
        self.address = line.removeprefix("listening on ").strip()

    def _read_log(self, stream: IO[str]) -> None:
        for line in stream:
            with self._said:
                self._lines.append(line)
                self._said.notify_all()
        stream.close()

    @property
    def log(self) -> str:
        with self._said:
            return "".join(self._lines)

    def wait_log(self, text: str, *, after: str = "") -> None:
        """Wait until a line with `text` has been logged, behind `after`, which is what the log was before."""
        with self._said:
            if not self._said.wait_for(lambda: text in "".join(self._lines)[len(after) :], timeout=STOP_S):
                raise AssertionError(f"not logged within {STOP_S} s: {text!r}\n{''.join(self._lines)}")

    def result(self, session_id: str, name: str) -> Path:
        """Where a session's result lies."""
        return self.state_dir / "sessions" / session_id / name

    def workers(self) -> list[int]:
        """Ids of the worker processes: the children of the fork server, which is a child of the server."""
        return [
            worker
            for child in _children(self.process.pid)
            for worker in _children(child)
            if "vx.media" in _read(Path(f"/proc/{worker}/cmdline"))
        ]

    def terminate(self) -> int:
        """SIGTERM, and the exit status once it has ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(STOP_S)
        self._reader.join(STOP_S)
        return status

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        if self.process.stdout:
            self.process.stdout.close()


@contextmanager
def started_servers(folder: Path) -> Iterator[Callable[[str], ServerProcess]]:
    """A function that starts servers with a configuration; leaving the block ends them."""
    servers: list[ServerProcess] = []

    def start(configuration: str) -> ServerProcess:
        servers.append(ServerProcess(folder / f"server{len(servers)}", configuration))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.kill()


def _children(pid: int) -> list[int]:
    # Each thread has its own: the fork server is started off the event loop.
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in tasks for child in _read(children).split()]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has ended
        return ""
