"""Recordings that can't be linked to, because they are another user's: real servers, real file systems."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.e2e.client import Client
from tests.e2e.test_export import configuration
from tests.e2e.test_virtual import export, record, recordings
from tests.server_process import ServerProcess
from tests.stubs import Stubs
from vx.session.absorbing import absorb
from vx.session.folders import described
from vx.session.watch import Result, take_stock

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

POWERLESS = """
import ctypes, os, sys
for capability in (1, 3):  # CAP_DAC_OVERRIDE, CAP_FOWNER
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, "-m", "vx", *sys.argv[1:]])
"""
"""A root that can do with others' files what anybody can."""
PROTECTED = Path("/proc/sys/fs/protected_hardlinks")
MAKERS = {"xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"), "btrfs": ("mkfs.btrfs", "-q")}
"""Of file systems on which files can share their blocks."""
SIZE = 320 << 20
"""Of such a file system: XFS takes no less than 300 MB. Most of it is never written."""


@pytest.fixture(params=MAKERS)
def reflinking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system on which files can share their blocks; skips where we may not mount one."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([*MAKERS[request.param], str(image)], check=True, capture_output=True)
    mounting = subprocess.run(["mount", "-o", "loop", str(image), str(disk)], capture_output=True, check=False)
    if mounting.returncode:
        pytest.skip(f"only where one may mount: {mounting.stderr!r}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextmanager
def serving(folder: Path, archive: Path) -> Iterator[ServerProcess]:
    """A server that may read the recordings, and nothing more."""
    text = configuration(archive, "[results]\nmin_free_gb = 0")
    server = ServerProcess(folder / "server", text, program=("-c", POWERLESS))
    try:
        yield server
    finally:
        server.kill()


def record_for_another(folder: Path) -> Path:
    """An archive whose recordings are another user's."""
    archive = record(folder / "archive")
    for path in recordings(archive):
        shutil.chown(path, "nobody")
        path.chmod(0o644)
    return archive


@pytest.mark.skipif(PROTECTED.read_text().strip() == "0", reason="anybody may link to anything here")
def test_they_are_held_open(tmp_path: Path, stubs: Stubs) -> None:
    archive = record_for_another(tmp_path)
    with serving(tmp_path, archive) as server:
        client = Client(stubs, server.address)
        session, name, size = export(client)
        result = server.result(session, name)
        assert {path.name for path in result.iterdir()} == {"made"}, "no lease, though it is the same file system"
        whole = client.download(session, name)
        for path in recordings(archive):
            path.unlink()
        assert client.download(session, name) == whole
        assert len(whole) == size


def test_they_are_cloned(reflinking: Path, stubs: Stubs) -> None:
    """Then they are the server's own: not even a recorder that writes into its old recordings changes them."""
    archive = record_for_another(reflinking)
    with serving(reflinking, archive) as server:
        client = Client(stubs, server.address)
        session, name, size = export(client)
        result = server.result(session, name)
        description = described(result)
        assert description is not None
        assert [(origin.lease, origin.cloned) for origin in description.origins] == [
            (f"{i}", True) for i in range(1, 6)
        ]
        assert {path.owner() for path in result.iterdir()} == {"root"}
        whole = client.download(session, name)
        assert len(whole) == size
        first, second, *others = recordings(archive)
        with first.open("r+b") as file:
            file.write(b"other bytes" * 1000)
        os.truncate(second, 100)
        for path in others:
            path.unlink()
        assert client.download(session, name) == whole
        kept = take_stock(reflinking, {session: [Result(result, {})]})[session]
        assert kept.left == sum((result / f"{i}").stat().st_blocks * 512 for i in (3, 4, 5))
        trio.run(absorb, result, {str(path) for path in others}, {}, trio.to_thread.run_sync)
        assert {path.name for path in result.iterdir()} == {"made", "1", "2"}
        assert client.download(session, name) == whole
        assert server.terminate() == 0
    with serving(reflinking, archive) as server:
        assert Client(stubs, server.address).download(session, name) == whole
