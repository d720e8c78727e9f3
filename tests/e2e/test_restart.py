"""Sessions outlive their server: the same state directory under one server after the other, by a stock client."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from tests.e2e.client import COMPLETED, Client, refused
from tests.e2e.test_export import archive, at, configuration, copied, long_archive
from tests.material import judge
from tests.server_process import NotStartedError, ServerProcess
from tests.stubs import Stubs

__all__ = ["archive", "long_archive"]  # fixtures

Serve = Callable[..., tuple[ServerProcess, Client]]


@pytest.fixture
def serve(tmp_path: Path, stubs: Stubs) -> Iterator[Serve]:
    """`serve(toml)` starts a server on the state directory of the one before, which must have ended."""
    servers: list[ServerProcess] = []
    clients: list[Client] = []

    def start(configuration: str, state_dir: Path | None = None) -> tuple[ServerProcess, Client]:
        servers.append(ServerProcess(tmp_path / "server", configuration, state_dir=state_dir))
        clients.append(Client(stubs, servers[-1].address))
        return servers[-1], clients[-1]

    yield start
    for client in clients:
        client.channel.close()
    for server in servers:
        server.kill()
        assert "Traceback" not in server.log


def audit(server: ServerProcess) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(server.state_dir / "vx.sqlite")) as db:
        return list(db.execute("SELECT what, who, session_id FROM audit ORDER BY number"))


def test_completed_sessions_and_their_files_are_there_again(serve: Serve, archive: Path) -> None:
    server, client = serve(configuration(archive))
    options = client.clip(at(0), at(4))
    session_id = client.start(options)
    state = client.wait_completed(session_id)
    (file,) = state.result.files
    whole = client.download(session_id, file.path)
    others = [client.start(client.snapshot(at(n))) for n in range(4)]
    for other in others:
        client.wait_completed(other)
    token = client.pages(size=3)[0].next_page_token
    client.destroy(others[3])
    assert server.terminate() == 0

    server, client = serve(configuration(archive))
    assert client.state(session_id) == state
    assert client.download(session_id, file.path) == whole
    assert client.download(session_id, file.path, 1, 3) == whole[3 * 1024 :]
    (page,) = client.pages()
    assert [info.session.id for info in page.sessions] == [session_id, *others[:3]]
    assert page.sessions[0].session.options == options
    late = client.start(client.snapshot(at(1)))
    assert [info.session.id for page in client.pages(token) for info in page.sessions] == [others[2], late]
    client.wait_completed(late)
    client.destroy(session_id)
    server.kill()

    server, client = serve(configuration(archive))
    with refused("NOT_FOUND", "There is no session with provided ID"):
        client.state(session_id)
    assert [what for what, _, session in audit(server) if session == session_id] == [
        "start",
        "end",
        "download",
        "download",
        "download",
        "remove",
    ]
    assert {who for what, who, _ in audit(server) if what != "end"} == {"127.0.0.1"}


def test_a_session_that_ran_is_completed_with_what_can_be_read(
    serve: Serve, long_archive: Path, tmp_path: Path
) -> None:
    server, client = serve(copied(long_archive, "max_running_sessions = 2"))
    running = [client.start(client.clip(at(0), at(10_800), form)) for form in ("MP4", "MKV")]
    waiting = client.start(client.clip(at(0), at(4)))
    for session_id in running:
        client.wait_state(session_id, lambda state: state.last_frame_timestamp > at(100))
    assert client.state(waiting).last_frame_timestamp == ""
    server.kill()

    server, client = serve(copied(long_archive))
    for session_id in (*running, waiting):
        state = client.state(session_id)
        assert state.state == COMPLETED
        assert not state.result.succeeded
        assert len(state.result.files) == (0 if session_id == waiting else 1)
        for file in state.result.files:
            path = tmp_path / "salvaged"
            path.write_bytes(client.download(session_id, file.path))
            assert path.stat().st_size == file.size
            assert len(judge(path).frames) > 50
            assert file.max_timestamp == state.last_frame_timestamp
    folders = {folder.name: sorted(path.name for path in folder.iterdir()) for folder in sessions_of(server)}
    assert {name: len(files) for name, files in folders.items()} == {running[0]: 1, running[1]: 1, waiting: 0}


def sessions_of(server: ServerProcess) -> list[Path]:
    return list((server.state_dir / "sessions").iterdir())


def test_what_a_shutdown_cut_short_has_not_succeeded(serve: Serve, long_archive: Path) -> None:
    server, client = serve(copied(long_archive))
    session_id = client.start(client.clip(at(0), at(10_800)))
    client.wait_state(session_id, lambda state: state.last_frame_timestamp)
    assert server.terminate() == 0
    server.wait_log("failed: it was stopped before its end: the server was shut down")
    _, client = serve(copied(long_archive))
    state = client.state(session_id)
    assert (state.state, state.result.succeeded, len(state.result.files)) == (COMPLETED, False, 1)
    assert client.download(session_id, state.result.files[0].path)


def test_a_download_goes_on_after_the_server_was_killed(serve: Serve, long_archive: Path) -> None:
    server, client = serve(copied(long_archive))
    session_id = client.start(client.clip(at(0), at(10_800)))
    client.wait_state(session_id, lambda state: state.last_frame_timestamp > at(2000))
    (file,) = client.stop(session_id).result.files
    whole = client.download(session_id, file.path, 16)
    chunks = client.chunks(session_id, file.path, 16)
    received = [next(chunks).data for _ in range(3)]
    server.kill()
    with pytest.raises(grpc.RpcError):
        received.extend(chunk.data for chunk in chunks)

    _, client = serve(copied(long_archive))
    received.append(client.download(session_id, file.path, 16, len(received)))
    assert b"".join(received) == whole


def test_a_second_server_says_who_has_the_state_dir(serve: Serve, archive: Path) -> None:
    server, client = serve(configuration(archive))
    session_id = client.start(client.clip(at(0), at(4)))
    client.wait_completed(session_id)
    config = server.state_dir.parent / "vx.toml"
    command = [sys.executable, "-m", "vx", "serve", "--config", str(config)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert second.stderr == f"vx: state_dir {server.state_dir} is in use by process {server.process.pid}\n"
    assert client.state(session_id).result.succeeded


def test_a_damaged_database_is_named_and_its_results_outlive_it(serve: Serve, archive: Path) -> None:
    server, client = serve(configuration(archive))
    session_id = client.start(client.clip(at(0), at(4)))
    client.wait_completed(session_id)
    server.terminate()
    database = server.state_dir / "vx.sqlite"
    database.write_bytes(b"\xff" * 50_000)
    with pytest.raises(NotStartedError, match="is damaged") as caught:
        serve(configuration(archive))
    assert caught.value.status == 1
    assert "Traceback" not in str(caught.value)
    database.unlink()
    server, client = serve(configuration(archive))
    assert client.pages() == []
    assert len(list(server.state_dir.glob(f"sessions-without-database-*/{session_id}/*.mp4"))) == 1


def test_a_state_dir_that_vanishes_ends_the_server(serve: Serve, long_archive: Path) -> None:
    server, client = serve(copied(long_archive))
    running = client.start(client.clip(at(0), at(10_800)))
    client.wait_state(running, lambda state: state.last_frame_timestamp)
    server.state_dir.rename(server.state_dir.with_name("moved"))
    with pytest.raises(grpc.RpcError) as caught:
        client.start(client.clip(at(0), at(4)))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 1
    assert "was removed or replaced while the server ran" in server.log

    server.state_dir.with_name("moved").rename(server.state_dir)
    server, client = serve(copied(long_archive))
    state = client.state(running)
    assert (state.state, state.result.succeeded, len(state.result.files)) == (COMPLETED, False, 1)


# ---- small disks


@contextmanager
def small_disk(where: Path, options: str) -> Iterator[Path]:
    """A file system of its own for the state directory; skips where we may not mount one."""
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root, where it may mount, can make a small disk")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def test_a_full_disk_ends_the_session_and_nothing_else(serve: Serve, long_archive: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=64m") as disk:
        config = copied(long_archive, "[results]\nmin_free_gb = 0")
        server, client = serve(config, disk / "state")
        before = client.start(client.clip(at(0), at(4)))
        client.wait_completed(before)
        session_id = client.start(client.clip(at(0), at(3600)))
        client.wait_state(session_id, lambda state: state.last_frame_timestamp > at(100))
        fill_up(disk)
        state = client.wait_completed(session_id)
        assert not state.result.succeeded
        server.wait_log("the disk for results is full")
        (file,) = state.result.files
        path = tmp_path / "short.mp4"
        path.write_bytes(client.download(session_id, file.path))
        assert len(judge(path, flawless=False).frames) > 1000
        fill_up(disk)

        assert client.state(before).result.succeeded
        assert client.download(before, client.state(before).result.files[0].path)
        with pytest.raises(grpc.RpcError) as caught:
            client.start(client.clip(at(0), at(4)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        server.kill()

        (disk / "ballast").unlink()
        server, client = serve(config, disk / "state")
        assert client.state(session_id) == state
        client.destroy(session_id)
        again = client.start(client.clip(at(0), at(4)))
        assert client.wait_completed(again).result.succeeded
        server.kill()


def fill_up(disk: Path) -> None:
    """Take all that is free, also while others write."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 16, 1 << 12):
            with suppress(OSError):
                while ballast.write(bytes(size)) == size:
                    pass


def test_the_end_of_a_session_is_saved_on_a_full_disk(serve: Serve, long_archive: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=256m") as disk:
        config = copied(long_archive, "[results]\nmin_free_gb = 0")
        server, client = serve(config, disk / "state")
        ids = [client.start(client.clip(at(0), at(3600))) for _ in range(4)]
        for session_id in ids:
            client.wait_state(session_id, lambda state: state.last_frame_timestamp)
        fill_up(disk)
        states = [client.wait_completed(session_id) for session_id in ids]
        assert not any(state.result.succeeded for state in states)
        server.kill()
        (disk / "ballast").unlink()
        server, client = serve(config, disk / "state")
        assert [client.state(session_id) for session_id in ids] == states
        server.kill()


def test_a_full_inode_table(serve: Serve, archive: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=32m,nr_inodes=40") as disk:
        server, client = serve(configuration(archive, "[results]\nmin_free_gb = 0"), disk / "state")
        done: list[str] = []

        def fill() -> None:
            while len(done) < 40:
                done.append(client.start(client.snapshot(at(1))))
                client.wait_completed(done[-1])

        with pytest.raises(grpc.RpcError) as caught:
            fill()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "the session's folder cannot be made: No space left on device"
        client.destroy(done[0])
        assert client.wait_completed(client.start(client.snapshot(at(1)))).result.succeeded
        server.kill()


def test_a_read_only_state_dir(serve: Serve, archive: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=32m") as disk:
        config = configuration(archive, "[results]\nmin_free_gb = 0")
        server, client = serve(config, disk / "state")
        session_id = client.start(client.clip(at(0), at(4)))
        client.wait_completed(session_id)
        server.kill()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(NotStartedError, match=f"vx: state_dir {disk}/state cannot be used: Read-only") as caught:
            serve(config, disk / "state")
        assert "Traceback" not in str(caught.value)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        server, client = serve(config, disk / "state")
        assert client.state(session_id).result.succeeded
        server.kill()


# ---- limits and agents


def test_what_does_not_fit_is_refused_with_the_numbers(serve: Serve, long_archive: Path) -> None:
    _, client = serve(copied(long_archive, "[results]\nmax_total_gb = 0.01"))
    with pytest.raises(grpc.RpcError) as caught:
        client.start(client.clip(at(0), at(10_800)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "MB; results may take 10.2 MB, and 0 bytes are kept and 0 bytes promised" in str(caught.value.details())
    assert client.wait_completed(client.start(client.clip(at(0), at(60)))).result.succeeded


def test_some_of_the_disk_stays_free(serve: Serve, archive: Path) -> None:
    _, client = serve(configuration(archive, "[results]\nmin_free_gb = 1000000"))
    with pytest.raises(grpc.RpcError) as caught:
        client.start(client.clip(at(0), at(4)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "and 1000000.0 GB stay free" in str(caught.value.details())


AGENTS = """
[[agent]]
access_point = "hosts/Server1/MMExportAgent.5"
directory = "{folder}/five"
file_name_pattern = "five {{Name}}"

[[agent]]
access_point = "Server1/MMExportAgent.3"
directory = "{folder}/three"
max_running_sessions = 1

[[agent]]
access_point = "hosts/Server2/MMExportAgent.0"

[results]
external_roots = ["{folder}/external"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("five", "three", "external/case 7"):
        (tmp_path / "to" / name).mkdir(parents=True)
    return tmp_path / "to"


def test_an_agent_stores_what_it_is_asked_to(serve: Serve, archive: Path, folder: Path, tmp_path: Path) -> None:
    server, client = serve(configuration(archive) + AGENTS.format(folder=folder))
    name = client.export.CommonSetting(file_name="evidence")
    stored: list[str] = []
    for fields in (
        {"store_result_by_export_agent": True, "settings": [name]},  # the lowest index on the node
        {"store_result_by_export_agent": True, "settings": [name]},
        {"store_result_by_export_agent": True, "export_agent_access_point": "Server1/MMExportAgent.5"},
        {"external_directory": f"{folder}/external/case 7", "settings": [name]},
    ):
        session_id = client.start(client.clip(at(0), at(4), **fields))
        state = client.wait_completed(session_id)
        assert state.result.succeeded
        (file,) = state.result.files
        stored.append(file.path)
        assert Path(file.path).stat().st_size == file.size
        with refused(
            "FAILED_PRECONDITION",
            f"file_path: the export agent has stored '{file.path}' for good; it cannot be downloaded",
        ):
            client.download(session_id, file.path)
        client.destroy(session_id)
    assert stored == [
        f"{folder}/three/evidence.mp4",
        f"{folder}/three/evidence-1.mp4",
        f"{folder}/five/five Entrance_20260511T080000.000Z.mp4",
        f"{folder}/external/case 7/evidence.mp4",
    ]
    assert all(Path(path).exists() for path in stored)
    assert len(judge(Path(stored[0])).frames) == 100
    assert list((server.state_dir / "sessions").iterdir()) == []


def test_what_agents_and_directories_are_refused(serve: Serve, archive: Path, folder: Path) -> None:
    _, client = serve(configuration(archive) + AGENTS.format(folder=folder))
    (folder / "external" / "out").symlink_to("/etc")
    where = f"allowed is a directory in {folder}/external"
    for fields, code, text in (
        ({"external_directory": "/etc"}, "INVALID_ARGUMENT", f"'/etc' is not allowed; {where}"),
        (
            {"external_directory": f"{folder}/externals"},
            "INVALID_ARGUMENT",
            f"'{folder}/externals' is not allowed; {where}",
        ),
        (
            {"external_directory": f"{folder}/external/../three"},
            "INVALID_ARGUMENT",
            f"'{folder}/external/../three' is not allowed; allowed is an absolute path without ..",
        ),
        (
            {"external_directory": f"{folder}/external/out"},
            "INVALID_ARGUMENT",
            f"'{folder}/external/out' leads out of '{folder}/external'",
        ),
        (
            {"external_directory": f"{folder}/external/gone"},
            "NOT_FOUND",
            f"there is no directory '{folder}/external/gone'",
        ),
    ):
        with refused(code, f"session_options.external_directory: {text}"):
            client.start(client.clip(at(0), at(4), **fields))
    for agent in ("hosts/Server1/MMExportAgent.0", "hosts/Server9/MMExportAgent.0", "x"):
        with refused("NOT_FOUND", f"session_options.export_agent_access_point: there is no export agent '{agent}'"):
            client.start(client.clip(at(0), at(4), export_agent_access_point=agent))
    for name in ("../x", "a/b", "a\\b", "..", ".hidden", "x" * 201, "a\nb"):
        with pytest.raises(grpc.RpcError, match=r"settings\[0\].file_name: .* allowed is a file's name"):
            client.start(
                client.clip(
                    at(0),
                    at(4),
                    store_result_by_export_agent=True,
                    settings=[client.export.CommonSetting(file_name=name)],
                )
            )
    with refused(
        "FAILED_PRECONDITION",
        "session_options.store_result_by_export_agent: the agent hosts/Server2/MMExportAgent.0 has no directory to "
        "store results in",
    ):
        client.start(
            client.clip(
                at(0),
                at(4),
                export_agent_access_point="hosts/Server2/MMExportAgent.0",
                store_result_by_export_agent=True,
            )
        )


def test_where_no_agent_is_configured_each_node_has_one(serve: Serve, archive: Path) -> None:
    _, client = serve(configuration(archive))
    for agent in ("hosts/Server1/MMExportAgent.0", "Server1/MMExportAgent.0"):
        session_id = client.start(client.clip(at(0), at(4), export_agent_access_point=agent))
        assert client.wait_completed(session_id).result.succeeded
    with refused(
        "NOT_FOUND",
        "session_options.export_agent_access_point: there is no export agent 'hosts/Server2/MMExportAgent.0'",
    ):
        client.start(client.clip(at(0), at(4), export_agent_access_point="hosts/Server2/MMExportAgent.0"))


def test_a_busy_agent_has_sessions_wait(serve: Serve, long_archive: Path, folder: Path) -> None:
    config = copied(long_archive, "max_queued_sessions = 1") + AGENTS.format(folder=folder)
    _, client = serve(config)
    first = client.start(client.clip(at(0), at(10_800)))
    waiting = client.start(client.clip(at(0), at(4)))
    client.wait_state(first, lambda state: state.last_frame_timestamp)
    state = client.state(waiting)
    assert (state.state, state.last_frame_timestamp) == (1, "")
    with refused(
        "RESOURCE_EXHAUSTED",
        "1 sessions are running at hosts/Server1/MMExportAgent.3, and at most 1 may at a time; 1 wait, and at most 1 "
        "may",
    ):
        client.start(client.clip(at(0), at(4)))
    other = client.clip(at(0), at(4), export_agent_access_point="hosts/Server1/MMExportAgent.5")
    assert client.wait_completed(client.start(other)).result.succeeded
    client.stop(first)
    assert client.wait_completed(waiting).result.succeeded
