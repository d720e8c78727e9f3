"""kill -9 at every point of a session's life, and at random ones: nothing is lost, doubled, orphaned or cut short.

`VX_CRASHES=200` (or tools/soak crash 200) has that many random ones.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.crash.killing import ABSORBING, POINTS
from tests.e2e.client import COMPLETED, Client
from tests.e2e.test_export import at, configuration
from tests.e2e.test_virtual import record, recordings
from tests.server_process import NotStartedError, ServerProcess
from tests.stubs import Stubs

CRASHES = int(os.environ.get("VX_CRASHES", "8"))
RUNNING, REMOVED = 1, 3
VX = Path(__file__).resolve().parents[2] / "vx"
SOON = "[lifetimes]\ncompleted_s = 1\n"
AGENT = """
[[agent]]
access_point = "hosts/Server1/MMExportAgent.0"
directory = "{folder}"
"""


@dataclass
class Seen:
    """What a client was told, and may rely on."""

    started: set[str] = field(default_factory=set)
    destroying: set[str] = field(default_factory=set)
    """Asked for; whether it came to that is not known."""
    destroyed: set[str] = field(default_factory=set)
    ended: dict[str, Any] = field(default_factory=dict)
    """The states of those that have been seen to be over."""


@dataclass
class Place:
    """A state directory, and a directory of the export agent, with one server after the other."""

    folder: Path
    archive: Path
    stubs: Stubs
    seen: Seen = field(default_factory=Seen)

    @property
    def stored(self) -> Path:
        return self.folder / "stored"

    @property
    def sessions(self) -> Path:
        return self.folder / "server" / "state" / "sessions"

    @contextmanager
    def server(self, point: str = "", more: str = "") -> Iterator[tuple[ServerProcess, Client]]:
        self.stored.mkdir(parents=True, exist_ok=True)
        script = str(Path(__file__).with_name("killing.py"))
        program = (script, point) if point else ("-m", "vx")
        text = configuration(self.archive, "max_running_sessions = 2") + AGENT.format(folder=self.stored) + more
        server = ServerProcess(self.folder / "server", text, program=program)
        client = Client(self.stubs, server.address)
        try:
            yield server, client
        finally:
            client.channel.close()
            server.kill()
            # one of a worker alone is of a worker that was just being started when the server was killed
            assert f'File "{VX}/' not in server.log

    def check(self) -> None:
        """Start a server that goes on from here; all must be as it was told, and nothing else may be there."""
        seen = self.seen
        with self.server() as (_, client):
            listed = {info.session.id: info.state for page in client.pages() for info in page.sessions}
            assert sum(len(page.sessions) for page in client.pages()) == len(listed), "a session is double"
            assert not seen.started - seen.destroying - listed.keys(), "a session is lost"
            assert not seen.destroyed & listed.keys(), "a destroyed session is back"
            for session_id, state in listed.items():
                before = seen.ended.get(session_id)
                assert state.state in (COMPLETED, REMOVED)
                if before is not None and state.state == COMPLETED:
                    assert state == before, "a session is not what it was told to be"
                seen.ended[session_id] = state
                for file in state.result.files:
                    stored = file.path.startswith("/")
                    data = Path(file.path).read_bytes() if stored else client.download(session_id, file.path)
                    assert len(data) == file.size
        there = {str(path.relative_to(self.sessions)) for path in self.sessions.glob("*/*")}
        names = {(session, file.path) for session, state in listed.items() for file in state.result.files}
        assert there == {f"{session}/{path}" for session, path in names if not path.startswith("/")}, "orphans"
        folders = {path.name for path in self.sessions.iterdir()}
        assert folders == {session for session, state in listed.items() if state.state == COMPLETED}
        stored = {path.name for path in self.stored.iterdir()}
        mine = {Path(path).name for _, path in names if path.startswith("/")}
        assert mine <= stored
        assert not any(name.startswith(".vx-") for name in stored)
        if not seen.destroying:
            assert mine == stored, "a stored file belongs to no session, or is there twice"
        with closing(sqlite3.connect(self.folder / "server" / "state" / "vx.sqlite")) as db:
            assert list(db.execute("PRAGMA integrity_check")) == [("ok",)]
            assert list(db.execute("PRAGMA foreign_key_check")) == []


@pytest.fixture
def place(tmp_path: Path, archive: Path, stubs: Stubs) -> Place:
    return Place(tmp_path, archive, stubs)


def live(client: Client, seen: Seen) -> None:
    """One of everything, until the server dies."""

    def start(options: Any) -> str:
        session_id = client.start(options)
        seen.started.add(session_id)
        return session_id

    def wait(session_id: str) -> Any:
        seen.ended[session_id] = client.wait_completed(session_id)
        return seen.ended[session_id]

    pictures = [start(client.snapshot(at(n))) for n in range(3)]
    clip = start(client.clip(at(0), at(10)))
    stored = start(client.clip(at(0), at(4), store_result_by_export_agent=True))
    for session_id in (*pictures, clip, stored):
        wait(session_id)
    client.pages(size=2)
    client.download(clip, seen.ended[clip].result.files[0].path)
    seen.destroying.add(pictures[0])
    client.destroy(pictures[0])
    seen.destroyed.add(pictures[0])


@pytest.mark.parametrize("point", [point for point in POINTS if point not in ("migrating", "creating the database")])
def test_killed_at(place: Place, point: str) -> None:
    with place.server(point) as (server, client):
        with suppress(grpc.RpcError):
            live(client, place.seen)
        assert server.wait() == -9, "it was not killed: the point was not reached"
    place.check()


@pytest.mark.parametrize("point", ["removing: before it is saved", "removing: saved, files there"])
def test_killed_while_purging(place: Place, point: str) -> None:
    with place.server(point, SOON) as (server, client):
        with suppress(grpc.RpcError):
            place.seen.started.add(client.start(client.snapshot(at(1))))
        assert server.wait() == -9
    place.check()


def test_leases_of_a_server_that_was_killed_are_swept(tmp_path: Path, stubs: Stubs) -> None:
    archive = record(tmp_path / "archive")
    place = Place(tmp_path, archive, stubs)
    with place.server("finalising: a file is done") as (server, client):
        with suppress(grpc.RpcError):
            place.seen.started.add(client.start(client.clip(at(0), at(10), "MP4")))
        assert server.wait() == -9
    assert {path.stat().st_nlink for path in recordings(archive)} == {2}
    place.check()
    assert {path.stat().st_nlink for path in recordings(archive)} == {1}


@pytest.mark.parametrize("point", ABSORBING)
def test_killed_while_absorbing(tmp_path: Path, stubs: Stubs, point: str) -> None:
    archive = record(tmp_path / "archive", 0, 10)
    place = Place(tmp_path, archive, stubs)
    with place.server(point) as (server, client):
        session = client.start(client.clip(at(4.52), at(6), "MP4"))
        place.seen.started.add(session)
        place.seen.ended[session] = state = client.wait_completed(session)
        (file,) = state.result.files
        data = client.download(session, file.path)
        result = place.sessions / session / file.path
        assert {path.name for path in result.iterdir()} == {"made", "1"}
        for path in recordings(archive):
            path.unlink()
        assert server.wait() == -9, "it was not killed: the point was not reached"
    place.check()
    is_absorbed = point in ("absorbing: in its place, leases there", "absorbing: done")
    assert {path.name for path in result.iterdir()} == ({"made"} if is_absorbed else {"made", "1"})
    with place.server() as (_, client):
        assert client.download(session, file.path) == data


@pytest.mark.parametrize("point", ["migrating", "creating the database"])
def test_killed_while_the_database_is_made_or_changed(place: Place, point: str) -> None:
    with pytest.raises(NotStartedError) as caught, place.server(point):
        pass
    assert caught.value.status == -9
    with place.server() as (_, client):
        live(client, place.seen)
    with pytest.raises(NotStartedError), place.server(point):
        pass
    place.check()


class Workload:
    """A client that does what comes to its mind until the server is gone."""

    def __init__(self, client: Client, seen: Seen, seed: int) -> None:
        self._client = client
        self._seen = seen
        self._random = random.Random(seed)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        with suppress(grpc.RpcError):
            while True:
                try:
                    self._random.choice(self._acts())()
                except grpc.RpcError as error:
                    if error.code() not in (
                        grpc.StatusCode.NOT_FOUND,  # purged, or destroyed before
                        grpc.StatusCode.FAILED_PRECONDITION,  # still running, or stored by the agent
                        grpc.StatusCode.ABORTED,
                    ):
                        raise

    def _acts(self) -> list[Callable[[], None]]:
        acts = [self._start, self._start, self._list]
        return [*acts, self._look, self._stop, self._download, self._destroy] if self._known() else acts

    def _known(self) -> list[str]:
        return sorted(self._seen.started - self._seen.destroying)

    def _start(self) -> None:
        client, begin = self._client, self._random.uniform(0, 8)
        options = self._random.choice(
            [
                client.snapshot(at(begin)),
                client.clip(at(begin), at(begin + 2)),
                client.clip(at(0), at(10), "MKV"),
                client.clip(at(0), at(10_800)),
                client.clip(at(0), at(4), store_result_by_export_agent=True),
            ]
        )
        self._seen.started.add(client.start(options))

    def _list(self) -> None:
        self._client.pages(size=self._random.randrange(1, 5))

    def _look(self) -> None:
        session_id = self._random.choice(self._known())
        self._remember(session_id, self._client.state(session_id))

    def _stop(self) -> None:
        session_id = self._random.choice(self._known())
        self._remember(session_id, self._client.stop(session_id))

    def _remember(self, session_id: str, state: Any) -> None:
        if state.state != RUNNING:
            self._seen.ended[session_id] = state

    def _download(self) -> None:
        session_id = self._random.choice(self._known())
        for file in self._client.state(session_id).result.files:
            assert len(self._client.download(session_id, file.path)) == file.size

    def _destroy(self) -> None:
        session_id = self._random.choice(self._known())
        self._seen.destroying.add(session_id)
        self._client.destroy(session_id)
        self._seen.destroyed.add(session_id)


def test_killed_at_random(tmp_path: Path, long_archive: Path, stubs: Stubs) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    place = Place(tmp_path, long_archive, stubs)
    for round_ in range(CRASHES):
        with place.server(more=SOON if round_ % 2 else "") as (server, client):
            clients = [Workload(client, place.seen, rng.randrange(1 << 32)) for _ in range(2)]
            time.sleep(rng.uniform(0, 1.5))  # the kill has to come at any time
            server.process.kill()
            for each in clients:
                each.join()
        place.check()
