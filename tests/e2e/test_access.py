"""Who may call what: the table in docs/access.md, cell by cell, against a real server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from argon2 import PasswordHasher
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.e2e.client import CAMERA, Client, refused
from tests.e2e.test_export import NO_SESSION, at
from tests.material import SECOND, T0, numbered
from tests.server_process import ServerProcess
from tests.stubs import Stubs
from tools.make_recordings import MEDIAMTX, Form, Piece, cut
from vx.access.tokens import digest_of, password_mark
from vx.model import THE_SERVER, Entry, Token
from vx.session.store import open_store
from vx.timestamps import format_timestamp

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "access.md"
TO_1900_MS = 2_208_988_800_000
cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Tests are not about how long guessing takes."""

USERS = {"alice": "guard", "bob": "guard", "eve": "nobody", "sue": "chief", "pat": "courier"}
COLUMNS = ("no token", "wrong", "expired", "closed", "another user", "without right", "supervisor")


def password(name: str) -> str:
    return f"correct horse of {name}"


def users_toml(hashes: Mapping[str, str]) -> str:
    text = f"""
[[role]]
name = "guard"
cameras = ["{CAMERA.split("/Source")[0]}"]
archive = true

[[role]]
name = "chief"
cameras = ["*"]
archive = true
live = true
supervisor = true

[[role]]
name = "nobody"
archive = true
live = true

[[role]]
name = "courier"
cameras = ["*"]
archive = true
archive_depth_h = 48
must_use_password = true
"""
    for name, role in USERS.items():
        text += f'\n[[user]]\nname = "{name}"\npassword_hash = "{hashes[name]}"\nroles = ["{role}"]\n'
    return text


def camera_toml(archive: Path) -> str:
    return f"""
[[camera]]
access_point = "{CAMERA}"
display_id = "1"
display_name = "Entrance"
  [[camera.archive]]
  storage = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
  path = "{archive}/{MEDIAMTX}"
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of recordings."""
    folder = tmp_path_factory.mktemp("archive")
    pieces = [Piece(a * SECOND, b * SECOND) for a, b in pairwise((0, 2, 4))]
    cut(numbered(Form(width=320, height=180), 100), f"{folder}/{MEDIAMTX}", T0, pieces)
    return folder


async def give_expired_token(state_dir: Path, value: str, password_hash: str) -> None:
    """Put a token into the server's database that was good until a minute ago."""
    token = Token(digest_of(value), "alice", password_mark(password_hash), time.time_ns() // 1000 - 60 * SECOND)
    async with open_store(state_dir / "vx.sqlite", audit_s=1e9) as store:
        await store.change_tokens([token], [], Entry(token.expires_us, "login", "", THE_SERVER))


@dataclass
class House:
    """A server with users, and what a test knows of it."""

    server: ServerProcess
    stubs: Stubs
    channel: grpc.Channel

    def login(self, name: str, secret: str | None = None) -> Any:
        request = self.stubs.auth.AuthenticateRequest(user_name=name, password=secret or password(name))
        return self.stubs.auth_grpc.AuthenticationServiceStub(self.channel).AuthenticateEx2(request)

    def token(self, name: str) -> str:
        answer = self.login(name)
        assert answer.error_code == 0
        return str(answer.token_value)

    def client(self, token: str | None) -> Client:
        """A client whose every call carries the token."""
        return Client(self.stubs, self.server.address, grpc.intercept_channel(self.channel, Carrier(token)))


class Carrier(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    def __init__(self, token: str | None) -> None:
        self.metadata = () if token is None else (("auth_token", token),)

    def _carry(self, proceed: Callable[..., Any], details: Any, request: Any) -> Any:
        return proceed(details._replace(metadata=(*(details.metadata or ()), *self.metadata)), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_stream = _carry  # type: ignore[assignment]


@pytest.fixture(scope="module")
def house(archive: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    hashes = {name: cheap.hash(password(name)) for name in USERS}
    (folder / "state").mkdir()
    trio.run(give_expired_token, folder / "state", "expired", hashes["alice"])
    server = ServerProcess(folder, camera_toml(archive) + users_toml(hashes))
    try:
        with grpc.insecure_channel(server.address) as channel:
            yield House(server, stubs, channel)
        assert "Traceback" not in server.log
    finally:
        server.kill()


def rows() -> list[tuple[str, str, str]]:
    """(method, column, what is expected) of each cell of the table."""
    lines = [line.strip("| \n") for line in DOCUMENT.read_text().partition("<!-- tests/e2e")[2].splitlines()]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if "|" in line]
    assert tuple(cells[0][1:]) == COLUMNS
    return [
        (method, column, expected) for method, *row in cells[2:] for column, expected in zip(COLUMNS, row, strict=True)
    ]


@dataclass
class Alice:
    """What a call is about: Alice's session with a file, and a token of hers."""

    session_id: str
    file: str
    token: str
    source: str


@pytest.fixture(scope="module")
def alice(house: House) -> Alice:
    return make_alice(house)


def make_alice(house: House) -> Alice:
    token = house.token("alice")
    client = house.client(token)
    session_id = client.start(client.snapshot(at(1)))
    (file,) = client.wait_completed(session_id).result.files
    stub = house.stubs.domain_grpc.DomainServiceStub(client.channel)
    (page,) = stub.ListCameras(house.stubs.domain.ListCamerasRequest(view=1))
    return Alice(session_id, file.path, token, page.items[0].archive_bindings[0].sources[0].access_point)


def call(house: House, method: str, alice: Alice, client: Client) -> Any:
    """Call a method about Alice's things; what it answers, of a stream all of it."""
    s, channel = house.stubs, client.channel
    auth = s.auth_grpc.AuthenticationServiceStub(channel)
    domain = s.domain_grpc.DomainServiceStub(channel)
    reports = s.reports_grpc.ExportReportServiceStub(channel)
    health = health_pb2_grpc.HealthStub(channel)
    history = s.archive.GetHistory2Request(
        access_point=alice.source, begin_time=T0 // 1000 + TO_1900_MS, end_time=T0 // 1000 + TO_1900_MS + 60_000
    )
    calls: dict[str, Callable[[], Any]] = {
        "AuthenticateEx2": lambda: auth.AuthenticateEx2(
            s.auth.AuthenticateRequest(user_name="bob", password=password("bob"))
        ),
        "RenewSession2": lambda: auth.RenewSession2(s.auth.RenewSessionRequest()),
        "CloseSession": lambda: auth.CloseSession(s.auth.CloseSessionRequest()),
        "GetSessionInfo": lambda: auth.GetSessionInfo(s.auth.GetSessionInfoRequest(session_token=alice.token)),
        "GetVersion": lambda: domain.GetVersion(s.domain.GetVersionRequest()),
        "ListCameras": lambda: list(domain.ListCameras(s.domain.ListCamerasRequest())),
        "ListArchives": lambda: list(domain.ListArchives(s.domain.ListArchivesRequest())),
        "GetHistory2": lambda: s.archive_grpc.ArchiveServiceStub(channel).GetHistory2(history),
        "StartSession": lambda: client.start(client.snapshot(at(1))),
        "ListSessions": client.pages,
        "GetSessionState": lambda: client.state(alice.session_id),
        "DownloadFile": lambda: client.download(alice.session_id, alice.file),
        "StopSession": lambda: client.stop(alice.session_id),
        "DestroySession": lambda: client.destroy(alice.session_id),
        "Estimate": lambda: reports.Estimate(s.reports.EstimateRequest(session_options=client.snapshot(at(1)))),
        "GetReport": lambda: reports.GetReport(s.reports.GetReportRequest(session_id=alice.session_id)),
        "WatchReport": lambda: list(reports.WatchReport(s.reports.WatchReportRequest(session_id=alice.session_id))),
        "Check": lambda: health.Check(health_pb2.HealthCheckRequest()),
        "Watch": lambda: next(health.Watch(health_pb2.HealthCheckRequest())),
        "ServerReflectionInfo": lambda: list(
            reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            )
        ),
    }
    return calls[method.split(".")[1]]()


def client_of(house: House, column: str) -> Client:
    match column:
        case "no token":
            return house.client(None)
        case "wrong":
            return house.client("A" * 43)
        case "expired":
            return house.client("expired")
        case "closed":
            client = house.client(house.token("alice"))
            stub = house.stubs.auth_grpc.AuthenticationServiceStub(client.channel)
            stub.CloseSession(house.stubs.auth.CloseSessionRequest())
            return client
    user = {"another user": "bob", "without right": "eve", "supervisor": "sue"}[column]
    return house.client(house.token(user))


def about(found: Any) -> Iterable[str]:
    """The ids of sessions in pages; the access points of what else was found."""
    for page in found:
        for item in getattr(page, "items", None) or page.sessions:
            yield item.session.id if hasattr(item, "session") else item.access_point


@pytest.mark.parametrize(("method", "column", "expected"), rows())
def test_the_table(house: House, alice: Alice, method: str, column: str, expected: str) -> None:
    client = client_of(house, column)
    ends_it = method.endswith("DestroySession") and expected == "OK"
    of = make_alice(house) if ends_it else alice
    if expected in ("OK", "nothing"):
        found = call(house, method, of, client)
        if ".List" in method:
            own = of.session_id if method.endswith("Sessions") else "Server1"
            assert any(own in text for text in about(found)) is (expected == "OK")
        return
    with pytest.raises(grpc.RpcError) as caught:
        call(house, method, of, client)
    code, text = caught.value.code().name, caught.value.details()
    assert code == expected
    if code == "NOT_FOUND" and method.startswith("Export"):
        assert text == NO_SESSION
    if code == "PERMISSION_DENIED":
        origin = "session_options.archive.sources[0].origin"
        assert text == f"{origin}: no role of the user has the camera {CAMERA!r} among its `cameras`"


def test_the_table_has_all_methods_that_are_served(house: House) -> None:
    database = ProtoReflectionDescriptorDatabase(house.channel)
    served = {
        f"{name.rpartition('.')[2]}.{method.name}"
        for name in database.get_services()
        for method in database.FindFileContainingSymbol(name).service[0].method
    }
    assert {method for method, _, _ in rows()} == served


@pytest.mark.parametrize(
    "metadata", [("auth_token", "{}"), ("authorization", "Bearer {}"), ("authorization", "bearer  {}")]
)
def test_where_a_token_may_stand(house: House, metadata: tuple[str, str]) -> None:
    name, form = metadata
    stub = house.stubs.domain_grpc.DomainServiceStub(house.channel)
    token = house.token("alice")
    assert stub.GetVersion(house.stubs.domain.GetVersionRequest(), metadata=((name, form.format(token)),)).Version
    with refused("UNAUTHENTICATED", "the token is unknown, closed, or expired: log in again"):
        stub.GetVersion(house.stubs.domain.GetVersionRequest(), metadata=((name, form.format(token[:-1])),))


def test_a_login_says_who_one_is_and_for_how_long(house: House) -> None:
    before = time.time()
    answer = house.login("sue")
    assert (answer.token_name, answer.user_id, list(answer.roles_ids)) == ("auth_token", "sue", ["chief"])
    assert answer.is_unrestricted
    assert 11 * 3600 < answer.expires_in <= 12 * 3600
    assert len(answer.token_value) == 43
    client = house.client(answer.token_value)
    stub = house.stubs.auth_grpc.AuthenticationServiceStub(client.channel)
    info = stub.GetSessionInfo(house.stubs.auth.GetSessionInfoRequest())
    assert info.login == "sue"
    assert before + 12 * 3600 <= info.expires_at.seconds + 1 <= time.time() + 12 * 3600 + 1


def test_a_renewed_token_and_the_old_one_work_for_now(house: House) -> None:
    old = house.client(house.token("alice"))
    stub = house.stubs.auth_grpc.AuthenticationServiceStub(old.channel)
    answer = stub.RenewSession2(house.stubs.auth.RenewSessionRequest())
    assert answer.error_code == 0
    assert old.pages() == house.client(answer.token_value).pages()
    info = stub.GetSessionInfo(house.stubs.auth.GetSessionInfoRequest())
    assert info.expires_at.seconds <= time.time() + 61


def test_wrong_names_and_passwords_are_told_apart_by_nobody(house: House) -> None:
    answers = [house.login("bob", "wrong"), house.login("nobody at all", "wrong"), house.login("", "")]
    assert answers[0].error_code == 2
    assert {answer.SerializeToString() for answer in answers} == {answers[0].SerializeToString()}


def test_a_history_is_of_the_days_that_may_be_seen(house: House, alice: Alice) -> None:
    for user, result, count in (("alice", 0, 1), ("pat", 1, 0)):
        found = call(house, "ArchiveService.GetHistory2", alice, house.client(house.token(user)))
        assert (found.result, len(found.intervals)) == (result, count)


def test_a_role_that_must_encrypt_and_sees_two_days(house: House) -> None:
    client = house.client(house.token("pat"))
    now_us = time.time_ns() // 1000
    start, end = (format_timestamp(now_us - hours * 3600 * SECOND) for hours in (2, 1))
    field, role = "session_options.stream", "a role of the user has `must_use_password`"
    with refused("PERMISSION_DENIED", f"{field}.settings.password: is missing: {role}"):
        client.start(client.clip(start, end))
    with refused("PERMISSION_DENIED", f"session_options.snapshot: {role}, and only clips can be encrypted"):
        client.start(client.snapshot(start))
    depth = f"the user's `archive_depth_h` for the camera {CAMERA!r} is 48 hours"
    with refused("PERMISSION_DENIED", f"session_options.archive.start_timestamp: {depth}"):
        client.start(client.clip(at(1), end))
    with refused("PERMISSION_DENIED", f"session_options.archive.end_timestamp: {depth}"):
        client.start(client.clip(start, at(1)))
    live = client.export.LiveMode(sources=[client.export.LiveMode.Source(origin=CAMERA)])
    options = client.export.Options(live=live, snapshot=client.export.SnapshotType())
    origin = "session_options.live.sources[0].origin"
    with refused("PERMISSION_DENIED", f"{origin}: no role of the user grants `live` for the camera {CAMERA!r}"):
        client.start(options)
    allowed = client.clip(start, end)
    allowed.stream.settings.add(password="of the archive")
    client.destroy(client.start(allowed))


def command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


def test_secrets_stay_secret(house: House, alice: Alice) -> None:
    client = house.client(alice.token)
    options = client.clip(at(1), at(3))
    options.stream.settings.add(password="a key for the ZIP file")
    session_id = client.start(options)
    assert client.wait_completed(session_id).result.succeeded
    secrets = [*(password(name) for name in USERS), alice.token, "a key for the ZIP file"]
    state = b"".join(path.read_bytes() for path in house.server.state_dir.rglob("*") if path.is_file())
    processes = b"".join(map(command_line, Path("/proc").glob("[0-9]*/cmdline")))
    listed = b"".join(page.SerializeToString() for page in house.client(house.token("sue")).pages())
    for secret in secrets:
        for place in (house.server.log.encode(), state, processes, listed):
            assert secret.encode() not in place


@pytest.mark.parametrize(
    "path",
    ["../../vx.sqlite", "/etc/passwd", "..", ".", "", "a\0b", "../{id}/{file}", "./{file}", "{file}/", "{file}\0"],
)
def test_a_files_path_leads_nowhere_else(house: House, alice: Alice, path: str) -> None:
    client = house.client(alice.token)
    path = path.format(id=alice.session_id, file=alice.file)
    with refused("NOT_FOUND", f"file_path: the session has no file {path!r}"):
        client.download(alice.session_id, path)


def test_a_link_planted_among_the_results_is_not_followed(house: House, tmp_path: Path) -> None:
    mine = make_alice(house)
    client = house.client(mine.token)
    file = house.server.result(mine.session_id, mine.file)
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * file.stat().st_size)
    file.unlink()
    file.symlink_to(secret)
    with pytest.raises(grpc.RpcError) as caught:
        client.download(mine.session_id, mine.file)
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    client.destroy(mine.session_id)
    assert secret.exists()


def test_only_the_server_reads_what_it_writes(house: House, alice: Alice) -> None:
    modes = {path: path.stat().st_mode & 0o077 for path in house.server.state_dir.rglob("*")}
    assert len(modes) > 3
    assert not any(modes.values())
    status = Path(f"/proc/{house.server.process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    limits = Path(f"/proc/{house.server.process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)
