"""From `vx init` to an export: what a person does on the first day, and what an integration does every day."""

from __future__ import annotations

import json
import re
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from tests.e2e.client import CAMERA, Client
from tests.e2e.test_access import TO_1900_MS, camera_toml
from tests.material import SECOND, T0, numbered, numbers
from tests.server_process import ServerProcess
from tests.stubs import Stubs
from tools.make_recordings import MEDIAMTX, Form, Piece, cut
from vx.access.hashing import check_hash
from vx.cli import pki
from vx.cli.commands import vx
from vx.cli.firstconfig import FirstConfig
from vx.rpc.tls import server_context
from vx.timestamps import format_timestamp

NAME = "cellar.example"


def run(*args: str, **options: str) -> Result:
    return CliRunner().invoke(vx, args, catch_exceptions=False, **options)  # type: ignore[arg-type]


@dataclass
class Box:
    """A machine on which `vx init` was run."""

    folder: Path
    server: ServerProcess
    password: str

    @property
    def root(self) -> bytes:
        return (self.folder / "ca.pem").read_bytes()

    def vx(self, *args: str, password: str | None = None) -> Result:
        """A client command, as the user, unless it names another one."""
        access = ("--server", self.server.address, "--ca", str(self.folder / "ca.pem"), "--user", "admin")
        return CliRunner(env={"VX_PASSWORD": password or self.password}).invoke(vx, [args[0], *access, *args[1:]])

    def channel(self) -> grpc.Channel:
        options = [("grpc.ssl_target_name_override", NAME)]
        return grpc.secure_channel(self.server.address, grpc.ssl_channel_credentials(self.root), options)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box")
    pieces = [Piece(a * SECOND, b * SECOND) for a, b in pairwise((0, 2, 4))]
    cut(numbered(Form(width=320, height=180), 100), f"{folder}/recordings/{MEDIAMTX}", T0, pieces)
    made = run("init", str(folder / "vx"), "--name", NAME)
    assert made.exit_code == 0
    password = re.search(r"shown only now\):\n\n +(\S+)\n", made.stdout)
    assert password
    written = (folder / "vx" / "vx.toml").read_text()
    assert password[1] not in written
    # The test's server is told its own state_dir and port; the rest is what init wrote.
    rest = re.sub(r"^(listen|state_dir) = .*\n", "", written, flags=re.MULTILINE)
    server = ServerProcess(folder / "server", rest + camera_toml(folder / "recordings"))
    yield Box(folder / "vx", server, password[1])
    server.kill()
    assert password[1] not in server.log


def test_keys_are_for_their_owner(box: Box) -> None:
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in box.folder.iterdir()}
    assert (modes["ca.key"], modes["server.key"], modes["vx.toml"]) == ("0o600", "0o600", "0o600")


def test_init_changes_nothing_that_is_there(box: Box) -> None:
    before = {path: path.read_bytes() for path in box.folder.iterdir()}
    result = run("init", str(box.folder))
    assert (result.exit_code, "is there already" in result.stderr) == (5, True)
    assert {path: path.read_bytes() for path in box.folder.iterdir()} == before


def test_init_begins_nothing_where_a_certificate_is_there(tmp_path: Path) -> None:
    (tmp_path / "server.pem").write_text("somebody's")
    result = run("init", str(tmp_path))
    assert (result.exit_code, result.stderr) == (5, f"vx: {tmp_path}/server.pem is there already; nothing is changed\n")
    assert [path.name for path in tmp_path.iterdir()] == ["server.pem"]


def test_of_two_inits_at_once_one_makes_all_and_the_other_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, make = threading.Barrier(2), pki.make

    def make_together(*args: Any) -> Any:
        both.wait(30)  # neither has written anything yet
        return make(*args)

    monkeypatch.setattr(pki, "make", make_together)
    ends: dict[str, FirstConfig | FileExistsError] = {}

    def init(user: str) -> None:
        try:
            ends[user] = FirstConfig.make(tmp_path, [NAME], user)
        except FileExistsError as error:
            ends[user] = error

    threads = [threading.Thread(target=init, args=(user,)) for user in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (made,) = (end for end in ends.values() if isinstance(end, FirstConfig))
    (refused,) = (end for end in ends.values() if isinstance(end, FileExistsError))
    assert Path(refused.filename).parent == tmp_path
    assert f'name = "{made.user}"' in (tmp_path / "vx.toml").read_text()
    server_context(tmp_path / "server.pem", tmp_path / "server.key")  # which belong together
    pki.renew(tmp_path)
    renewed, authority = (
        x509.load_pem_x509_certificate((tmp_path / name).read_bytes()) for name in ("server.pem", "ca.pem")
    )
    renewed.verify_directly_issued_by(authority)  # whose key is the one that is there


def test_a_key_that_is_lost_is_renewed_with_its_certificate(tmp_path: Path) -> None:
    run("init", str(tmp_path), "--name", NAME)
    (tmp_path / "server.key").unlink()
    assert run("init", str(tmp_path), "--renew").exit_code == 0
    server_context(tmp_path / "server.pem", tmp_path / "server.key")
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["not a name", "a/b", ""])
def test_init_refuses_what_is_no_name_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    result = run("init", str(tmp_path / "vx"), "--name", name)
    assert result.exit_code == 1
    assert "is neither a host's name nor an address" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_cameras_and_history_in_the_terminal(box: Box) -> None:
    result = box.vx("cameras")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[1].split()[:3] == ["1", "Entrance", CAMERA]
    result = box.vx("history", "--camera", "Server1/DeviceIpint.1", "--day", "2026-05-11")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[1] == "·" * 24 + "▁" + "·" * 47
    assert result.stdout.splitlines()[2].startswith("2026-05-11 08:00:00 UTC to 2026-05-11 08:00:0")
    document = json.loads(box.vx("history", "--camera", CAMERA, "--day", "2026-05-11", "--json").stdout)
    assert document["complete"]
    assert document["intervals"][0]["begin"] == "20260511T080000.000000"
    result = box.vx("history", "--camera", "Server1/DeviceIpint.7")
    assert result.exit_code == 3


def test_an_export_by_the_command_line(box: Box, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(box.password + "\n")
    access = ("--server", box.server.address, "--ca", str(box.folder / "ca.pem"), "--user", "admin")
    times = ("--start", "2026-05-11T08:00:01", "--end", "2026-05-11T08:00:03")
    arguments = ("export", "--camera", CAMERA, *times, "-o", str(tmp_path), *access, "--password-file", str(password))
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert numbers(Path(line)) == list(range(25, 75))


def test_what_goes_wrong_with_a_login_is_told(box: Box) -> None:
    wrong = box.vx("cameras", password="wrong")
    assert (wrong.exit_code, "the name or the password is wrong" in wrong.stderr) == (5, True)
    anonymous = run("cameras", "--server", box.server.address, "--ca", str(box.folder / "ca.pem"))
    assert (anonymous.exit_code, "--user" in anonymous.stderr) == (5, True)
    nothing = run("cameras", "--server", box.server.address, "--ca", str(box.folder / "ca.pem"), "--user", "admin")
    assert (nothing.exit_code, "VX_PASSWORD" in nothing.stderr) == (2, True)
    stranger = run("cameras", "--server", box.server.address, "--tls")
    assert (stranger.exit_code, "its certificate is not accepted" in stranger.stderr) == (4, True)
    plain = run("cameras", "--server", box.server.address)
    assert (plain.exit_code, "a server with [tls] wants --ca or --tls" in plain.stderr) == (4, True)


def test_encrypting_to_a_server_that_does_not_is_told(start_server: Callable[[str], ServerProcess]) -> None:
    result = run("cameras", "--server", start_server("").address, "--tls")
    assert (result.exit_code, "leave out --ca and --tls" in result.stderr) == (4, True)


def test_the_audit_tells_who_did_what(box: Box) -> None:
    config = box.server.state_dir.parent / "vx.toml"
    box.vx("cameras")
    box.vx("cameras", password="wrong")
    lines = [json.loads(line) for line in run("audit", "--config", str(config), "--json").stdout.splitlines()]
    what = [line["what"] for line in lines]
    assert what[-3:] == ["login", "logout", "refused"]
    assert {line["user"] for line in lines if line["what"] == "login"} == {"admin"}
    assert all(line["address"].startswith("127.0.0.1:") for line in lines[-3:])
    shown = run("audit", "--config", str(config), "--since", "-1h", "--user", "admin").stdout
    assert "admin  127.0.0.1:" in shown
    assert run("audit", "--config", str(config), "--user", "nobody").stdout == ""


def test_a_password_becomes_a_hash() -> None:
    result = run("passwd", input="correct horse\n")
    assert result.exit_code == 0
    name, _, text = result.stdout.strip().partition(" = ")
    assert name == "password_hash"
    check_hash(json.loads(text))
    assert run("passwd", input="short\n").exit_code == 2


def test_an_integration(box: Box, stubs: Stubs) -> None:
    """TLS with the CA given and a name override, a login, the token in call credentials, and the whole job."""
    with box.channel() as channel:
        login = stubs.auth_grpc.AuthenticationServiceStub(channel).AuthenticateEx2(
            stubs.auth.AuthenticateRequest(user_name="admin", password=box.password)
        )
    assert login.error_code == stubs.auth.AuthenticateResponseEx.AUTHENTICATE_CODE_OK

    class Carrier(grpc.AuthMetadataPlugin):
        def __call__(self, context: object, callback: Callable[..., None]) -> None:
            callback(((login.token_name, login.token_value),), None)

    token = grpc.metadata_call_credentials(Carrier())
    credentials = grpc.composite_channel_credentials(grpc.ssl_channel_credentials(box.root), token)
    options = [("grpc.ssl_target_name_override", NAME)]
    with grpc.secure_channel(box.server.address, credentials, options) as channel:
        client = Client(stubs, box.server.address, channel)
        domain = stubs.domain_grpc.DomainServiceStub(channel)
        (page,) = domain.ListCameras(stubs.domain.ListCamerasRequest(view=stubs.domain.VIEW_MODE_FULL))
        (camera,) = page.items
        (binding,) = camera.archive_bindings
        history = stubs.archive_grpc.ArchiveServiceStub(channel).GetHistory2(
            stubs.archive.GetHistory2Request(
                access_point=binding.sources[0].access_point,
                begin_time=T0 // 1000 + TO_1900_MS - 3_600_000,
                end_time=T0 // 1000 + TO_1900_MS + 3_600_000,
            )
        )
        begin_us = (history.intervals[0].begin_time - TO_1900_MS) * 1000
        assert begin_us == T0
        options = client.clip(format_timestamp(begin_us), format_timestamp(begin_us + 3 * SECOND))
        options.archive.sources[0].origin = camera.video_streams[0].stream_acess_point
        options.archive.sources[0].storages.append(binding.storage)
        session_id = client.start(options)
        (file,) = client.wait_completed(session_id).result.files
        assert len(client.download(session_id, file.path)) == file.size
        client.destroy(session_id)
        assert client.pages() == []
        stubs.auth_grpc.AuthenticationServiceStub(channel).CloseSession(stubs.auth.CloseSessionRequest())
        with pytest.raises(grpc.RpcError):
            client.pages()


def served_certificate(box: Box) -> str:
    host, port = box.server.address.split(":")
    return ssl.get_server_certificate((host, int(port)))


def test_a_new_certificate_under_load_loses_no_call(box: Box, stubs: Stubs) -> None:
    done = threading.Event()
    counts: list[int] = []
    failures: list[grpc.RpcError] = []

    def ask_on(*, reconnect: bool) -> None:
        count = 0
        while not done.is_set():
            with box.channel() as channel:
                stub = stubs.auth_grpc.AuthenticationServiceStub(channel)
                for _ in range(3 if reconnect else 1_000_000):
                    try:
                        stub.AuthenticateEx2(stubs.auth.AuthenticateRequest())
                        count += 1
                    except grpc.RpcError as error:
                        failures.append(error)
                    if done.is_set():
                        break
        counts.append(count)

    threads = [threading.Thread(target=ask_on, kwargs={"reconnect": reconnect}) for reconnect in (False, True, True)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            before = served_certificate(box)
            assert run("init", str(box.folder), "--renew").exit_code == 0
            box.server.process.send_signal(signal.SIGHUP)
            give_up = time.monotonic() + 30
            while served_certificate(box) == before:
                assert time.monotonic() < give_up, box.server.log
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert all(counts)


def test_a_mistake_on_reload_changes_nothing(box: Box) -> None:
    config = box.server.state_dir.parent / "vx.toml"
    right = config.read_text()
    try:
        config.write_text(right.replace("[[user]]", "[[usher]]"))
        box.server.process.send_signal(signal.SIGHUP)
        box.server.wait_log('usher: unknown key; did you mean "user"?')
        assert box.vx("cameras").exit_code == 0
        config.write_text(f'{right}\n[[user]]\nname = "bob"\n{run("passwd", input="another one").stdout}')
        before = box.server.log
        box.server.process.send_signal(signal.SIGHUP)
        box.server.wait_log("certificates, users and roles are read again", after=before)
        assert box.vx("cameras", "--user", "bob", password="another one").exit_code == 0
    finally:
        config.write_text(right)


@pytest.mark.parametrize(("table", "what"), [("user", "users"), ("tls", "TLS")])
def test_a_reload_does_not_take_the_lock_from_the_door(box: Box, table: str, what: str) -> None:
    """The addresses stay, and they were allowed with users and TLS only."""
    config = box.server.state_dir.parent / "vx.toml"
    right = config.read_text()
    without = re.sub(rf"^\[+{table}\]+\n(\w+ = .*\n)*", "", right, flags=re.MULTILINE)
    assert without != right
    try:
        config.write_text(without)
        before = box.server.log
        box.server.process.send_signal(signal.SIGHUP)
        box.server.wait_log(f"SIGHUP: all stays as it was: with or without {what} takes a restart", after=before)
        anonymous = run("cameras", "--server", box.server.address, "--ca", str(box.folder / "ca.pem"))
        assert (anonymous.exit_code, "a token is missing" in anonymous.stderr) == (5, True)
        assert box.vx("cameras").exit_code == 0
    finally:
        config.write_text(right)
