"""Landlock: each question is asked by a process of its own, which has given up the rest."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vx import sandbox

pytestmark = pytest.mark.skipif(sandbox.version() < 4, reason="this kernel's Landlock is too old, or it has none")


def ask(give_up: str, code: str, folder: Path) -> str:
    """What becomes of `code` in a process that has run `give_up` in the folder: `done`, or why not."""
    program = f"""
import os, socket, sys
from pathlib import Path
from vx import child, sandbox
from vx.jobs import ClipJob, Source
os.chdir({str(folder)!r})
{give_up}
try:
    {code}
    print("done")
except OSError as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def attempt(code: str, folder: Path, *, linkable: bool = False, network: bool = False) -> str:
    """What becomes of `code` where FOLDER/recordings may be read and FOLDER/session written."""
    give_up = f"""sandbox.confine(
    readable=["/usr", "/lib", sys.prefix, sys.base_prefix, "recordings", "/no/such/folder"],
    writable=["session"],
    linkable=["recordings"] if {linkable} else [],
    network={network},
)"""
    return ask(give_up, code, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("recordings", "session", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "session" / "link").symlink_to(tmp_path / "elsewhere" / "file")
    return tmp_path


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("Path('session/new').write_text('x')", "done"),
        ("Path('session/file').rename('session/other')", "done"),
        ("os.mkdir('session/a'); Path('session/file').rename('session/a/file')", "done"),
        ("Path('session/file').unlink()", "done"),
        ("Path('recordings/file').read_text()", "done"),
        ("os.listdir('recordings')", "done"),
        ("Path('recordings/file').write_text('x')", "PermissionError"),
        ("os.truncate('recordings/file', 0)", "PermissionError"),
        ("Path('recordings/file').unlink()", "PermissionError"),
        ("Path('recordings/new').write_text('x')", "PermissionError"),
        ("os.link('recordings/file', 'session/linked')", "OSError"),
        ("Path('elsewhere/file').read_text()", "PermissionError"),
        ("Path('session/link').read_text()", "PermissionError"),
        ("os.listdir('elsewhere')", "PermissionError"),
        ("Path('session/../elsewhere/new').write_text('x')", "PermissionError"),
        ("Path('/etc/passwd').read_text()", "PermissionError"),
        ("os.mkfifo('session/pipe')", "PermissionError"),
    ],
)
def test_files(folder: Path, code: str, outcome: str) -> None:
    assert attempt(code, folder) == outcome


def test_what_cannot_be_reached_is_left_out(folder: Path) -> None:
    """A path below a file, or one that is too long: the rest is given up all the same."""
    give_up = """sandbox.confine(
    readable=["/usr", "/lib", sys.prefix, sys.base_prefix, "recordings/file/below", "x" * 300], writable=["session"]
)"""
    assert ask(give_up, "Path('session/new').write_text('x')", folder) == "done"
    assert ask(give_up, "Path('elsewhere/file').read_text()", folder) == "PermissionError"


def test_recordings_that_may_get_another_name(folder: Path) -> None:
    assert attempt("os.link('recordings/file', 'session/linked')", folder, linkable=True) == "done"
    assert attempt("Path('recordings/new').write_text('x')", folder, linkable=True) == "PermissionError"
    assert attempt("Path('recordings/file').unlink()", folder, linkable=True) == "PermissionError"


@pytest.mark.parametrize(("network", "outcome"), [(True, "done"), (False, "PermissionError")])
def test_the_network(folder: Path, network: bool, outcome: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"socket.socket().connect({server.getsockname()!r})"
        assert attempt(connect, folder, network=network) == outcome
        assert attempt("socket.socket().bind(('127.0.0.1', 0))", folder, network=network) == outcome


@pytest.mark.parametrize(("index", "outcome"), [("elsewhere", "done"), ("recordings", "PermissionError")])
def test_a_worker_may_write_into_its_index(folder: Path, index: str, outcome: str) -> None:
    give_up = f"""
from vx.jobs import Index
source = Source(origin="o", name="n", pattern="{folder}/recordings/%s.mp4", timezone="UTC")
index = Index(folder="{folder}/{index}", size=1)
job = ClipJob(folder="{folder}/session", sources=(source,), start_us=0, end_us=1, container="mp4", index=index)
child._confine(job, ())"""
    code = "Path('elsewhere/part').write_text('x'); os.rename('elsewhere/part', 'elsewhere/entry')"
    assert ask(give_up, code, folder) == outcome


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("Path('session/new').write_text('x')", "done"),
        ("Path('recordings/file').read_text()", "done"),
        ("import av, PIL.Image, numpy, reportlab.pdfgen.canvas, zoneinfo; zoneinfo.ZoneInfo('Europe/Berlin')", "done"),
        ("Path('recordings/file').write_text('x')", "PermissionError"),
        ("Path('elsewhere/file').read_text()", "PermissionError"),
        ("Path('/etc/passwd').read_text()", "PermissionError"),
        ("socket.socket().connect(('127.0.0.1', 9))", "PermissionError"),
    ],
)
def test_a_worker_gives_up_the_rest(folder: Path, code: str, outcome: str) -> None:
    give_up = f"""
source = Source(origin="o", name="n", pattern="{folder}/recordings/%s.mp4", timezone="UTC")
job = ClipJob(folder="{folder}/session", sources=(source,), start_us=0, end_us=1, container="mp4")
child._confine(job, ())"""
    assert ask(give_up, code, folder) == outcome
