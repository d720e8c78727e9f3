"""A server that was started as root goes on as somebody else."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.server_process import NotStartedError, ServerProcess, started_servers
from tests.stubs import Stubs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody can reach, as pytest's own can't."""
    path = Path(tempfile.mkdtemp(prefix="vx-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_it_goes_on_as_the_user_and_owns_its_state(folder: Path, stubs: Stubs) -> None:
    nobody = pwd.getpwnam("nobody")
    with started_servers(folder) as start:
        server = start(f'listen = ["127.0.0.1:0", "unix://{folder}/socket"]\n[process]\nuser = "nobody"\n')
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert lines["Uid"].split() == [str(nobody.pw_uid)] * 4
        assert lines["Gid"].split() == [str(nobody.pw_gid)] * 4
        assert int(lines["CapEff"], 16) == 0
        assert lines["NoNewPrivs"] == "1"
        with grpc.insecure_channel(server.address) as channel:
            stub = stubs.domain_grpc.DomainServiceStub(channel)
            assert stub.GetVersion(stubs.domain.GetVersionRequest()).Version
        owners = {path.stat().st_uid for path in server.state_dir.rglob("*")}
        assert owners == {nobody.pw_uid}
        assert server.state_dir.stat().st_uid == nobody.pw_uid
        assert server.terminate() == 0


def test_folders_that_are_made_on_the_way_are_the_users_too(folder: Path) -> None:
    server = ServerProcess(folder, '[process]\nuser = "nobody"\n', state_dir=folder / "a" / "b" / "state")
    try:
        assert (folder / "a" / "b").owner() == "nobody"
    finally:
        server.kill()


def test_a_link_in_the_place_of_the_lock_leads_nowhere(folder: Path) -> None:
    """Who can write into the folder must not have root write elsewhere."""
    (folder / "state").mkdir()
    (folder / "state" / "lock").symlink_to(folder / "precious")
    (folder / "precious").write_text("all that one has")
    with pytest.raises(NotStartedError, match=r"state_dir .* cannot be used: Too many levels of symbolic links"):
        ServerProcess(folder, "")
    assert (folder / "precious").read_text() == "all that one has"
