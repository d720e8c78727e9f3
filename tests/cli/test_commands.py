"""The commands about sessions, `vx serve`'s mistakes, and what exit statuses say."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from grpclib.const import Status

from tests.cli.fake import ID, RUNNING, Script, completed
from vx.rpc.generated.axxonsoft.bl import mmexport

Run = Callable[..., Result]

CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"


def row(number: int, state: mmexport.State) -> mmexport.ListSessionsResponseSessionInfo:
    options = mmexport.Options(
        archive=mmexport.ArchiveMode(
            sources=[mmexport.ArchiveModeSource(origin=CAMERA)],
            start_timestamp="20260511T080410.000000",
            end_timestamp="20260511T080420.000000",
        ),
        stream=mmexport.StreamType(),
    )
    session = mmexport.Session(id=f"s{number}", options=options)
    return mmexport.ListSessionsResponseSessionInfo(session=session, state=state)


def test_sessions_of_all_pages_in_a_table(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mp4": bytes(1500)}
    script.sessions = [[row(1, completed(*script.results()))], [row(2, RUNNING)]]
    result = run("sessions", "--server", server)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["SESSION", "s1", "s2"]
    assert "S_COMPLETED, succeeded  archive stream  2026-05-11 08:04:20 UTC  1      1.5 kB" in lines[1]
    assert lines[2].endswith(CAMERA)


def test_sessions_after_a_broken_connection_go_on_with_the_next_page(run: Run, server: str, script: Script) -> None:
    script.sessions = [[row(1, RUNNING)], [row(2, RUNNING)], [row(3, RUNNING)]]
    failed = False

    async def fail_once() -> None:
        nonlocal failed
        if len(script.calls) == 2 and not failed:
            failed = True
            script.refuse["list"] = [(Status.UNAVAILABLE, "restarting")]

    script.before["list"] = fail_once
    result = run("sessions", "--server", server, "--json")
    assert result.exit_code == 0
    assert failed
    assert [session["session_id"] for session in json.loads(result.stdout)["sessions"]] == ["s1", "s2", "s3"]


def test_sessions_as_json(run: Run, server: str, script: Script) -> None:
    script.sessions = [[row(1, RUNNING)]]
    assert json.loads(run("sessions", "--server", server, "--json").stdout) == {
        "sessions": [
            {
                "session_id": "s1",
                "state": "S_RUNNING",
                "last_frame_timestamp": "20260511T080415.000000",
                "result": {"succeeded": False, "files": []},
                "mode": "archive",
                "output_type": "stream",
                "sources": [CAMERA],
                "start_timestamp": "20260511T080410.000000",
                "end_timestamp": "20260511T080420.000000",
            }
        ]
    }


def test_no_sessions(run: Run, server: str) -> None:
    assert run("sessions", "--server", server).stdout == "no sessions\n"
    assert json.loads(run("sessions", "--server", server, "--json").stdout) == {"sessions": []}


def test_a_session_without_options_is_shown_all_the_same(run: Run, server: str, script: Script) -> None:
    session = mmexport.Session(id="bare\x1b[2J")
    script.sessions = [[mmexport.ListSessionsResponseSessionInfo(session=session)]]
    assert run("sessions", "--server", server).stdout.splitlines()[1].split() == [
        "bare?[2J", "S_NONE", "-", "-", "0", "0", "B", "-", "-",
    ]  # fmt: skip


def test_state(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mp4": b"12345"}
    assert run("state", ID, "--server", server).stdout.splitlines() == [
        f"session     {ID}",
        "state       S_COMPLETED, succeeded",
        "last frame  2026-05-11 08:04:20 UTC",
        "file        a.mp4, 5 B, 2026-05-11 08:04:10.5 UTC to 2026-05-11 08:04:20 UTC",
    ]
    document = json.loads(run("state", ID, "--server", server, "--json").stdout)
    assert (document["session_id"], document["state"]) == (ID, "S_COMPLETED")
    assert document["result"]["files"][0]["size"] == 5


def test_stop_shows_the_state_after_it(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mp4": b"12345"}
    result = run("stop", ID, "--server", server)
    assert result.exit_code == 0
    assert "S_COMPLETED, succeeded" in result.stdout
    assert script.calls == ["stop"]


def test_destroy(run: Run, server: str, script: Script) -> None:
    result = run("destroy", ID, "--server", server)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"session {ID} is removed\n")
    assert json.loads(run("destroy", ID, "--server", server, "--json").stdout) == {"session_id": ID, "destroyed": True}


@pytest.mark.parametrize("command", ["state", "stop", "destroy", "download"])
def test_an_id_may_begin_with_a_dash(run: Run, server: str, command: str) -> None:
    assert run(command, "--server", server, "--", "-7g").exit_code == 3


@pytest.mark.parametrize("command", ["state", "stop", "destroy", "download"])
def test_an_unknown_session_is_3(run: Run, server: str, command: str) -> None:
    result = run(command, "nobody", "--server", server)
    assert (result.exit_code, result.stderr) == (3, "vx: There is no session with provided ID\n")


@pytest.mark.parametrize(
    ("status", "exit_status"),
    [
        (Status.INVALID_ARGUMENT, 2),
        (Status.NOT_FOUND, 3),
        (Status.UNAVAILABLE, 4),
        (Status.DEADLINE_EXCEEDED, 4),
        (Status.RESOURCE_EXHAUSTED, 5),
        (Status.FAILED_PRECONDITION, 5),
        (Status.PERMISSION_DENIED, 5),
        (Status.UNAUTHENTICATED, 5),
        (Status.UNIMPLEMENTED, 6),
        (Status.INTERNAL, 1),
        (Status.UNKNOWN, 1),
        (Status.ABORTED, 1),
        (Status.DATA_LOSS, 1),
    ],
)
def test_exit_statuses(run: Run, server: str, script: Script, status: Status, exit_status: int) -> None:
    clip = ("--camera", CAMERA, "--start", "-1m", "--end", "now")
    script.refuse = {"start": [(status, "the reason")] * 2}
    result = run("export", "--server", server, *clip)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (exit_status, "vx: the reason")
    result = run("export", "--server", server, *clip, "--json")
    assert result.exit_code == exit_status
    assert json.loads(result.stdout) == {
        "error": {"message": "the reason", "code": status.name, "exit_status": exit_status}
    }


def test_a_status_without_words_is_told_by_its_name(run: Run, server: str, script: Script) -> None:
    script.refuse = {"state": [(Status.RESOURCE_EXHAUSTED, "")]}
    assert run("state", ID, "--server", server).stderr == "vx: resource exhausted\n"


def test_a_message_of_the_server_cannot_drive_the_terminal(run: Run, server: str, script: Script) -> None:
    script.refuse = {"state": [(Status.INTERNAL, "bad\x1b[2J\nvx: all is well")]}
    assert run("state", ID, "--server", server).stderr == "vx: bad?[2J?vx: all is well\n"


@pytest.mark.parametrize("arguments", [["sessions"], ["state", ID], ["download", ID]])
def test_no_server_there_is_4_at_once(run: Run, tmp_path: Path, pauses: list[float], arguments: list[str]) -> None:
    result = run(*arguments, "--server", f"unix://{tmp_path}/none")
    assert result.exit_code == 4
    assert result.stderr == f"vx: cannot reach unix://{tmp_path}/none: No such file or directory\n"
    assert pauses == []


def test_a_closed_port_says_what_to_look_for(run: Run) -> None:
    result = run("sessions", "--server", "127.0.0.1:1")
    assert result.exit_code == 4
    assert result.stderr == "vx: cannot reach 127.0.0.1:1: connection refused; is `vx serve` running there?\n"


def test_the_server_from_the_environment(run: Run, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VX_SERVER", server)
    assert run("sessions").stdout == "no sessions\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sessions", "--server", "host:0"], "'host:0' is no server; allowed is HOST:PORT, [IPV6]:PORT or unix:///PATH"),
        (["sessions", "--server", "a b"], "'a b' is no server"),
        (["sessions", "--server", ""], "'' is no server"),
        (["export", "--start", "now", "--end", "-1m"], "Missing option '--camera'"),
        (["export", "--camera", CAMERA, "--start", "soon", "--end", "now"], "for --start: 'soon' is not a time"),
        (["export", "--camera", CAMERA, "--start", "now", "--end", "later"], "Invalid value for --end: 'later' is not"),
        (["export", "--camera", CAMERA, "--start", "-1m", "--end", "-60s"], "--end: the same as --start"),
        (["export", "--camera", "7", "--start", "-1m", "--end", "now"], "for --camera: '7' is not a camera"),
        (
            ["export", "--camera", CAMERA, "--start", "-1m", "--end", "now", "--max-size", "big"],
            "Invalid value for --max-size: 'big' is not a size",
        ),
        (["export", "--camera", CAMERA, "--start", "-1m", "--end", "now", "--format", "avi"], "'avi' is not one of"),
        (["snapshot", "--camera", CAMERA, "--at", "x"], "Invalid value for --at: 'x' is not a time"),
        (["state"], "Missing argument 'ID'"),
        (["serve"], "Missing option '--config'"),
        (["fly"], "No such command 'fly'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_command_are_2(run: Run, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_reversed_ends_are_swapped_and_said(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mp4": b"1"}
    result = run("export", "--server", server, "--camera", CAMERA, "--start", "now", "--end", "-10m")
    assert result.stderr.startswith("2026-05-11 08:50:00 UTC to 2026-05-11 09:00:00 UTC (10m) of hosts/")


def test_help_has_examples_and_exit_statuses(run: Run) -> None:
    top = run("--help").stdout
    assert "130  interrupted" in top
    assert "  4  the server cannot be reached" in top
    for command in ("serve", "export", "snapshot", "download"):
        assert f"vx {command} " in run(command, "--help").stdout.split("Example")[1]
    assert "UTC, as all times without an offset" in run("export", "--help").stdout


def test_mistakes_in_the_configuration_are_told_line_by_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "vx.toml").write_text('state_dir = 1\nlisten = ["0.0.0.0"]\n')
    result = run("serve", "--config", "vx.toml")
    assert result.exit_code == 2
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        ["vx.toml", "listen[0]"],
        ["vx.toml", "state_dir"],
    ]
    result = run("serve", "--config", "none.toml")
    assert (result.exit_code, result.stderr) == (2, "none.toml: cannot be read: No such file or directory\n")


@pytest.mark.parametrize(
    ("more", "exit_status", "said"),
    [
        (
            "tls = { certificate = '/none/cert.pem', key = '/none/key.pem' }",
            2,
            'vx.toml: tls.key: "/none/key.pem" cannot be',
        ),
        ("listen = ['unix:///none/socket']", 1, "vx: cannot listen on unix:///none/socket: No such"),
    ],
)
def test_a_server_that_cannot_start_says_why(tmp_path: Path, more: str, exit_status: int, said: str) -> None:
    (tmp_path / "vx.toml").write_text(f"state_dir = '{tmp_path}/state'\n{more}\n")
    command = [sys.executable, "-m", "vx", "serve", "--config", "vx.toml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (exit_status, "")
    assert ended.stderr.splitlines()[-1].startswith(said)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("module", ["vx.__main__", "vx.cli.commands"])
def test_starting_up_is_light(module: str) -> None:
    """Workers import the main module again; and `vx --help` is to answer at once."""
    heavy = "{'trio', 'av', 'PIL', 'numpy', 'grpclib', 'betterproto', 'h2', 'msgspec', 'rich'}"
    heavy += " | {'asyncio', 'click'}" if module == "vx.__main__" else ""
    script = f"import sys, {module}; sys.exit(' '.join(({heavy}) & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_interrupt_while_the_password_is_asked_for() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vx", "sessions", "--user", "alice", "--server", "127.0.0.1:1"]
    with subprocess.Popen(command, stdin=theirs, stderr=theirs, start_new_session=True) as process:
        shown = b""
        while b"Password of alice: " not in shown:
            shown += os.read(ours, 1000)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 130
        finally:
            process.kill()
    os.close(ours)
    os.close(theirs)
