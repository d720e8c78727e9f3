"""What an export agent stores: names, places, and what happens when something is in the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.session.rig import Rig, refused
from vx.errors import Kind, VxError
from vx.model import Delivery, ResultFile, State
from vx.session import delivery

FILE = ResultFile("Gate_20260511T080411.155Z.mp4", 4, "video/mp4", 1_778_486_651_155_000, 1_778_486_652_000_000)


@pytest.fixture
def session(tmp_path: Path) -> Path:
    folder = tmp_path / "session"
    folder.mkdir()
    (folder / FILE.id).write_bytes(b"clip")
    return folder


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    folder = tmp_path / "agent"
    folder.mkdir()
    return folder


def put(session: Path, where: Path, name: str, file: ResultFile = FILE, root: Path | None = None) -> str:
    intended: list[str] = []
    path = delivery.deliver(
        session, Delivery(str(root or where), str(where), name), file, "5e55", lambda path: intended.append(path)
    )
    assert not intended or intended[-1] == path
    return path


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("case 7", "case 7.mp4"),
        ("case.mp4", "case.mp4"),
        ("case.MP4", "case.mp4"),
        ("{Name}", FILE.id),
        ("{SessionId} {Timestamp}", "5e55 20260511T080411.155000.mp4"),
        ("{Other}", "{Other}.mp4"),
        ("ü" * 100, "ü" * 100 + ".mp4"),
        ("ü" * 300, "ü" * 119 + ".mp4"),
        ("../../x", "_.._x.mp4"),
    ],
)
def test_names(session: Path, agent: Path, name: str, stored: str) -> None:
    assert put(session, agent, name) == f"{agent}/{stored}"
    assert (agent / stored).read_bytes() == b"clip"
    assert (session / FILE.id).exists()


def test_nothing_is_overwritten(session: Path, agent: Path) -> None:
    (agent / "case.mp4").write_bytes(b"somebody else's")
    (agent / "case-1.mp4").symlink_to("/nowhere")
    assert put(session, agent, "case") == f"{agent}/case-2.mp4"
    assert put(session, agent, "case") == f"{agent}/case-3.mp4"
    assert (agent / "case.mp4").read_bytes() == b"somebody else's"


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("no_links")
def test_a_file_system_without_links(session: Path, agent: Path) -> None:
    (agent / "case.mp4").write_bytes(b"somebody else's")
    (agent / ".vx-5e55.part").write_bytes(b"of a server that was killed")
    assert put(session, agent, "case") == f"{agent}/case-1.mp4"
    assert sorted(path.name for path in agent.iterdir()) == ["case-1.mp4", "case.mp4"]
    assert (agent / "case-1.mp4").read_bytes() == b"clip"


def test_another_file_system(session: Path) -> None:
    if os.stat("/dev/shm").st_dev == session.stat().st_dev:  # noqa: PTH116
        pytest.skip("there is no other file system than the one of the tests")
    with temporary(Path("/dev/shm")) as agent:
        (agent / "case.mp4").write_bytes(b"somebody else's")
        assert put(session, agent, "case") == f"{agent}/case-1.mp4"
        assert (agent / "case-1.mp4").read_bytes() == b"clip"
        assert len(list(agent.iterdir())) == 2


@contextmanager
def temporary(parent: Path) -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


@pytest.mark.parametrize("linked", [True, False])
def test_what_a_killed_server_got_through_with_is_not_done_twice(session: Path, agent: Path, linked: bool) -> None:
    intended = ResultFile(FILE.id, 4, FILE.mime_type, FILE.first_us, FILE.last_us, f"{agent}/case.mp4")
    if linked:
        os.link(session / FILE.id, agent / "case.mp4")
    else:
        (agent / "case.mp4").write_bytes(b"clip")
    assert put(session, agent, "case", intended) == f"{agent}/case.mp4"
    assert len(list(agent.iterdir())) == 1


@pytest.mark.parametrize("there", [b"", b"clop", b"something longer"])
def test_what_it_did_not_is_done_again(session: Path, agent: Path, there: bytes) -> None:
    intended = ResultFile(FILE.id, 4, FILE.mime_type, FILE.first_us, FILE.last_us, f"{agent}/case.mp4")
    (agent / "case.mp4").write_bytes(there)
    assert put(session, agent, "case", intended) == f"{agent}/case-1.mp4"
    (agent / "case.mp4").unlink()
    assert put(session, agent, "case", intended) == f"{agent}/case.mp4"


def outcome(where: Path, root: Path) -> str:
    try:
        delivery.check(Delivery(str(root), str(where), "x"), "field")
    except VxError as error:
        return f"{error.kind.name} {error}"
    return "fine"


def test_directories_below_the_root_and_no_others(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a" / "b").mkdir(parents=True)
    outside.mkdir()
    (root / "in").symlink_to(root / "a")
    (root / "out").symlink_to(outside)
    (root / "file").write_bytes(b"")
    assert outcome(root, root) == outcome(root / "a" / "b", root) == outcome(root / "in", root) == "fine"
    assert outcome(root / "out", root) == f"INVALID field: '{root}/out' leads out of '{root}'"
    assert outcome(root / "gone", root) == f"NOT_FOUND field: there is no directory '{root}/gone'"
    assert outcome(root / "file", root).startswith("PRECONDITION field:")
    assert outcome(tmp_path / "root-2", root).startswith("NOT_FOUND")
    (tmp_path / "alias").symlink_to(root)
    assert outcome(tmp_path / "alias" / "a", tmp_path / "alias") == "fine"


def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a").mkdir(parents=True)
    outside.mkdir()
    realpath = os.path.realpath

    def swapped(path: str, *, strict: bool = False) -> str:
        real = realpath(path, strict=strict)
        if real == str(root / "a"):
            (root / "a").rmdir()
            (root / "a").symlink_to(outside)
        return real

    monkeypatch.setattr(os.path, "realpath", swapped)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        put(session, root / "a", "case", root=root)
    assert list(outside.iterdir()) == []


# ---- in a session's life


@pytest.fixture
async def rig(tmp_path: Path, nursery: trio.Nursery) -> Rig:
    return Rig(tmp_path / "sessions", nursery)


async def finish(rig: Rig, where: Path, *names: str) -> str:
    session_id, worker = await rig.start(delivery=Delivery(str(where), str(where), "case"))
    for name in names:
        worker.write(name, b"data of " + name.encode())
    worker.end()
    await rig.session(session_id).completed.wait()
    await trio.testing.wait_all_tasks_blocked()
    return session_id


async def test_stored_results_have_their_path_and_cannot_be_downloaded(rig: Rig, agent: Path) -> None:
    session_id = await finish(rig, agent, "a.mp4", "b.mp4")
    record = rig.registry.get(session_id)
    assert record.succeeded
    assert [file.name for file in record.files] == [f"{agent}/case.mp4", f"{agent}/case-1.mp4"]
    assert list((rig.folder / session_id).iterdir()) == []
    with (
        refused(Kind.PRECONDITION, "has stored .* for good; it cannot be downloaded"),
        rig.registry.lease(session_id, f"{agent}/case.mp4", on_lost=lambda: None),
    ):
        pass
    with refused(Kind.NOT_FOUND, "has no file"), rig.registry.lease(session_id, "a.mp4", on_lost=lambda: None):
        pass
    await rig.registry.expire(session_id)
    assert (rig.state(session_id), len(rig.registry.get(session_id).files)) == (State.REMOVED, 2)
    await rig.registry.destroy(session_id)
    assert (agent / "case-1.mp4").read_bytes() == b"data of b.mp4"


async def test_what_cannot_be_stored_can_be_downloaded(rig: Rig, agent: Path) -> None:
    session_id, worker = await rig.start(delivery=Delivery(str(agent), str(agent), "case"))
    await trio.Path(agent).rename(agent.with_name("moved"))
    worker.write("a.mp4", b"data")
    worker.end()
    await rig.session(session_id).completed.wait()
    record = rig.registry.get(session_id)
    assert (record.succeeded, record.reason) == (
        False,
        f"a.mp4 could not be put into {agent}: No such file or directory; it can be downloaded",
    )
    with rig.registry.lease(session_id, "a.mp4", on_lost=lambda: None) as lease:
        assert lease.path.read_bytes() == b"data"


async def test_a_place_that_cannot_be_had_refuses_the_session(rig: Rig, tmp_path: Path) -> None:
    with refused(Kind.NOT_FOUND, "there is no directory"):
        await rig.start(delivery=Delivery(str(tmp_path), str(tmp_path / "gone"), "case"))
    assert rig.registry.page(0, 10) == []
