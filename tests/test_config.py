"""The configuration file: what works, and what is said about each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vx.config.addresses import Address
from vx.config.mistakes import ConfigError
from vx.config.reading import load, parse
from vx.config.rules import safe_file_name
from vx.config.schema import Archive, Camera, Config, Lifetimes, Log, Tls, Worker
from vx.errors import Kind

EXAMPLE = """
listen = ["127.0.0.1:20109"]
state_dir = "/var/lib/vx"

[[camera]]
access_point = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
display_id = "1"
display_name = "Entrance"

  [[camera.archive]]           # the first one is the camera's default
  storage = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
  path = "/recordings/entrance/%Y-%m-%d_%H-%M-%S-%f.mp4"    # MediaMTX's names
  timezone = "UTC"             # of the times in the names

  [[camera.archive]]
  storage = "hosts/Server1/MultimediaStorage.Frigate/MultimediaStorage"
  path = "/media/frigate/recordings/%Y-%m-%d/%H/entrance/%M.%S.mp4"
  timezone = "UTC"
"""

CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
BLUE = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
FRIGATE = "hosts/Server1/MultimediaStorage.Frigate/MultimediaStorage"


def test_the_example_of_the_manual() -> None:
    assert parse(EXAMPLE) == Config(
        listen=(Address("127.0.0.1", 20109),),
        state_dir=Path("/var/lib/vx"),
        camera=(
            Camera(
                access_point=CAMERA,
                display_id="1",
                display_name="Entrance",
                archive=(
                    Archive(storage=BLUE, path="/recordings/entrance/%Y-%m-%d_%H-%M-%S-%f.mp4"),
                    Archive(storage=FRIGATE, path="/media/frigate/recordings/%Y-%m-%d/%H/entrance/%M.%S.mp4"),
                ),
            ),
        ),
    )


def test_every_other_key_has_a_default() -> None:
    config = parse('state_dir = "/s"')
    assert [str(address) for address in config.listen] == ["127.0.0.1:20109"]
    assert not config.insecure
    assert (config.shutdown_timeout_s, config.stop_timeout_s, config.keepalive_s) == (30, 10, 60)
    assert (config.max_running_sessions, config.max_connections, config.max_streams_per_connection) == (4, 1000, 100)
    assert config.max_connections_per_address == 100
    assert config.max_message_kb == 4096
    assert config.lifetimes == Lifetimes(live_stream_s=300, running_s=1800, completed_s=3600, removed_s=86400)
    assert config.worker == Worker(nice=5, memory_mb=4096)
    assert config.log == Log(level="info")
    assert config.tls is None
    assert config.camera == ()


def test_every_key_can_be_set() -> None:
    config = parse(
        """
        listen = ["[::1]:0", "unix:///run/vx/vx.sock", "0.0.0.0:443", "localhost:1"]
        state_dir = "/srv/vx/../state"
        insecure = true
        shutdown_timeout_s = 0.5
        stop_timeout_s = 0
        max_running_sessions = 1
        max_connections = 2
        max_connections_per_address = 4
        max_streams_per_connection = 3
        max_message_kb = 64
        keepalive_s = 1.5
        lifetimes = { live_stream_s = 1, running_s = 2, completed_s = 3, removed_s = 4.5 }
        worker = { nice = 0, memory_mb = 256 }
        log.level = "debug"
        tls = { certificate = "/etc/vx/cert.pem", key = "/etc/vx/key.pem" }
        [[camera]]
        access_point = "Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
        archive = [{ storage = "S/MultimediaStorage.X/MultimediaStorage", path = "/r/%s.mkv", timezone = "Asia/Tokyo" }]
        """
    )
    assert [str(address) for address in config.listen] == [
        "[::1]:0",
        "unix:///run/vx/vx.sock",
        "0.0.0.0:443",
        "localhost:1",
    ]
    assert config.state_dir == Path("/srv/state")
    assert config.insecure
    assert (config.shutdown_timeout_s, config.stop_timeout_s, config.keepalive_s) == (0.5, 0, 1.5)
    assert config.lifetimes == Lifetimes(live_stream_s=1, running_s=2, completed_s=3, removed_s=4.5)
    assert config.tls == Tls(certificate=Path("/etc/vx/cert.pem"), key=Path("/etc/vx/key.pem"))
    assert (config.worker, config.log) == (Worker(nice=0, memory_mb=256), Log(level="debug"))
    camera = config.camera[0]
    assert camera.access_point == CAMERA
    assert camera.display_name == "Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
    assert camera.archive[0].storage == "hosts/S/MultimediaStorage.X/MultimediaStorage"
    assert camera.archive[0].timezone == "Asia/Tokyo"


LIVE = f'state_dir = "/s"\n[[camera]]\naccess_point = "{CAMERA}"\nlive = '


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://viewer:pa%40ss@192.0.2.7/stream1",
        "rtsps://[2001:db8::1]:322/a?b=c",
        "http://camera.example/video.mjpg",
        "https://u:p@camera.example:8443/ts",
        "file:///srv/loop.mp4",
        "test:",
        "test:?width=320&height=240&rate=5",
    ],
)
def test_addresses_of_live_cameras(address: str) -> None:
    feed = parse(f'{LIVE}"{address}"').camera[0].live
    assert feed is not None
    assert feed.address == address
    assert "pa%40ss" not in repr(feed)


@pytest.mark.parametrize(
    "value",
    [
        '"rtsp:///secret"',
        '"rtsp://viewer:secret@192.0.2.7:0/x"',
        '"rtsp://viewer:secret@192.0.2.7:99999/x"',
        '"rtsp://viewer:secret @192.0.2.7/x"',
        '"rtmp://viewer:secret@192.0.2.7/x"',
        '"file://secret/loop.mp4"',
        '"file:secret.mp4"',
        '"test:?rate=secret"',
        '"test:?rate=0"',
        '"test:?width=321"',
        '"test:?secret"',
        '"secret"',
        '["rtsp://viewer:secret@192.0.2.7/x"]',
        "{ secret = 1 }",
        "7",
    ],
)
def test_a_wrong_address_of_a_live_camera_is_not_shown(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(LIVE + value)
    text = str(caught.value)
    assert text.startswith("camera[0].live: this is not an address of a camera (it is not shown here); allowed is rtsp")
    assert "secret" not in text


def test_cameras_and_archives_are_found_with_and_without_hosts() -> None:
    config = parse(EXAMPLE)
    camera = config.find_camera(CAMERA)
    assert camera is not None
    assert config.find_camera(CAMERA.removeprefix("hosts/")) is camera
    assert config.find_camera(CAMERA.replace("DeviceIpint.1", "DeviceIpint.2")) is None
    default = camera.find_archive("")
    assert default is not None
    assert default.storage == BLUE
    frigate = camera.find_archive(FRIGATE.removeprefix("hosts/"))
    assert frigate is camera.find_archive(FRIGATE) is camera.archive[1]
    assert camera.find_archive("hosts/Server1/MultimediaStorage.Red/MultimediaStorage") is None
    assert Camera(access_point=CAMERA).find_archive("") is None


AGENTS = """
[[agent]]
access_point = "Server1/MMExportAgent.10"
[[agent]]
access_point = "hosts/Server1/MMExportAgent.9"
directory = "/mnt/evidence"
max_running_sessions = 2
file_name_pattern = "{SessionId}"
"""


def test_of_several_agents_on_a_node_the_one_with_the_lowest_number_is_the_default() -> None:
    config = parse(EXAMPLE + AGENTS)
    (ten, nine) = config.agent
    assert (ten.access_point, ten.directory, ten.max_running_sessions) == (
        "hosts/Server1/MMExportAgent.10",
        None,
        None,
    )
    assert (nine.directory, nine.max_running_sessions) == (Path("/mnt/evidence"), 2)
    assert config.default_agent(config.camera[0]) is nine
    assert config.find_agent("Server1/MMExportAgent.10") is ten
    assert config.find_agent("hosts/Server1/MMExportAgent.0") is None


def test_a_node_without_an_agent_has_its_number_0() -> None:
    config = parse(EXAMPLE)
    agent = config.default_agent(config.camera[0])
    assert agent.access_point == "hosts/Server1/MMExportAgent.0"
    assert config.find_agent("Server1/MMExportAgent.0") == agent
    for stranger in ("hosts/Server1/MMExportAgent.1", "hosts/Server2/MMExportAgent.0", "Server1", "", "hosts/"):
        assert config.find_agent(stranger) is None


_TOP = 'state_dir = "/s"\n'
_CAMERA = _TOP + f'[[camera]]\naccess_point = "{CAMERA}"\n'
_ARCHIVE = _CAMERA + f'[[camera.archive]]\nstorage = "{BLUE}"\npath = "/r/%s.mp4"\n'
_AN_ADDRESS = 'an address like "127.0.0.1:20109", "[::1]:20109" or "unix:///run/vx"'
_NOT_LOCAL = (
    "can be reached from other machines, and without TLS and users anybody there may take any recording; "
    "allowed is 127.0.0.1, [::1], localhost or unix:///PATH, or set insecure = true"
)
_SOURCE = '"hosts/NODE/DeviceIpint.N/SourceEndpoint.video:A:B"'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "state_dir: is missing; allowed is an absolute path"),
        ('state_dir = "var"', 'state_dir: "var" is not allowed; allowed is an absolute path'),
        ("state_dir = 3", "state_dir: 3 is not allowed; allowed is an absolute path"),
        (_TOP + "insecure = 1", "insecure: 1 is not allowed; allowed is true or false"),
        (_TOP + "listen = []", "listen: [] is not allowed; allowed is at least one address"),
        (
            _TOP + 'listen = "127.0.0.1:1"',
            f'listen: "127.0.0.1:1" is not a list; allowed is a list, each item {_AN_ADDRESS}',
        ),
        (
            _TOP + 'listen = ["127.0.0.1"]',
            f'listen[0]: "127.0.0.1" is not allowed (no port from 0 to 65535 after the host); allowed is {_AN_ADDRESS}',
        ),
        (_TOP + "listen = [20109]", f"listen[0]: 20109 is not allowed; allowed is {_AN_ADDRESS}"),
        (
            _TOP + 'listen = ["127.0.0.1:1", "[::1]:1", "127.0.0.1:1"]',
            'listen[2]: "127.0.0.1:1" is there twice; listen[0] has it already',
        ),
        (_TOP + 'listen = ["0.0.0.0:20109"]', f'listen[0]: "0.0.0.0:20109" {_NOT_LOCAL}'),
        (_TOP + 'listen = ["127.0.0.1:1", "[::]:1"]', f'listen[1]: "[::]:1" {_NOT_LOCAL}'),
        (_TOP + 'listen = ["nvr.example:1"]', f'listen[0]: "nvr.example:1" {_NOT_LOCAL}'),
        (
            _TOP + "max_running_sessions = 0",
            "max_running_sessions: 0 is not allowed; allowed is a whole number from 1 to 1000",
        ),
        (
            _TOP + "max_running_sessions = 1.5",
            "max_running_sessions: 1.5 is not allowed; allowed is a whole number from 1 to 1000",
        ),
        (
            _TOP + "max_connections = true",
            "max_connections: true is not allowed; allowed is a whole number from 1 to 100000",
        ),
        (
            _TOP + "shutdown_timeout_s = -1",
            "shutdown_timeout_s: -1 is not allowed; allowed is a number from 0 to 3600",
        ),
        (_TOP + "stop_timeout_s = inf", "stop_timeout_s: inf is not allowed; allowed is a number from 0 to 3600"),
        (_TOP + "keepalive_s = nan", "keepalive_s: nan is not allowed; allowed is a number from 1 to 86400"),
        (
            _TOP + 'lifetimes.running_s = "1h"',
            'lifetimes.running_s: "1h" is not allowed; allowed is a number from 1 to 316224000',
        ),
        (_TOP + "[worker]\nnice = -5", "worker.nice: -5 is not allowed; allowed is a whole number from 0 to 19"),
        (
            _TOP + '[[agent]]\naccess_point = "S/MMExportAgent.x"',
            'agent[0].access_point: "S/MMExportAgent.x" is not allowed (no whole number at the end); allowed is '
            '"hosts/NODE/MMExportAgent.N"',
        ),
        (
            _TOP + '[[agent]]\naccess_point = "S/MMExportAgent.0"\nfile_name_pattern = "a/{Name}"',
            'agent[0].file_name_pattern: "a/{Name}" is not allowed (a name, not a path: it has / or \\); allowed is a '
            "file's name without its extension, not a path",
        ),
        (
            _TOP + 2 * '[[agent]]\naccess_point = "S/MMExportAgent.0"\n',
            'agent[1].access_point: "hosts/S/MMExportAgent.0" is there twice; agent[0].access_point has it already',
        ),
        (
            _TOP + '[results]\nexternal_roots = ["evidence"]',
            'results.external_roots[0]: "evidence" is not allowed; allowed is an absolute path',
        ),
        (_TOP + "[tls]\nkey = '/k'", "tls.certificate: is missing; allowed is the absolute path of a PEM file"),
        (_TOP + "tls = true", "tls: true is not a table; write [tls] and its keys below"),
        (
            _TOP + "listen = ['0.0.0.0:1']\ntls = { certificate = '/c', key = '/k' }",
            f'listen[0]: "0.0.0.0:1" {_NOT_LOCAL}'.replace("TLS and users", "users"),
        ),
        (_TOP + "worker = 3", "worker: 3 is not a table; write [worker] and its keys below"),
        (
            _TOP + '[log]\nlevel = "INFO"',
            'log.level: "INFO" is not allowed; allowed is one of debug, info, warning, error',
        ),
        (_TOP + "max_conections = 1", 'max_conections: unknown key; did you mean "max_connections"?'),
        (_TOP + "[log]\nlevle = 1", 'log.levle: unknown key; did you mean "level"?'),
        (
            _TOP + "[log]\ninsecure = true",
            "log.insecure: unknown key here; it belongs at the top of the file, above the first [table]",
        ),
        (_TOP + '"a\\nb" = 1', "'a\\nb': unknown key; known are " + ", ".join(Config.__struct_fields__)),
        (_TOP + "[worker]\ncolour = 1", "worker.colour: unknown key; known are nice, memory_mb, readable"),
        (_TOP + "[[cameras]]", 'cameras: unknown key; did you mean "camera"?'),
        (_TOP + "[camera]", "camera: a table is not a list; write [[camera]] and its keys below"),
        (_TOP + "camera = [1]", "camera[0]: 1 is not a table; write [[...]] and its keys below"),
        (_TOP + "[[camera]]", f"camera[0].access_point: is missing; allowed is {_SOURCE}"),
        (
            _TOP + '[[camera]]\naccess_point = "hosts/DeviceIpint.1/SourceEndpoint.video:0:0"',
            'camera[0].access_point: "hosts/DeviceIpint.1/SourceEndpoint.video:0:0" is not allowed; '
            f"allowed is {_SOURCE}",
        ),
        (
            _CAMERA + f'[[camera]]\naccess_point = "{CAMERA.removeprefix("hosts/")}"',
            f'camera[1].access_point: "{CAMERA}" is there twice; camera[0].access_point has it already',
        ),
        (
            _CAMERA + 'display_name = "two\\nlines"',
            'camera[0].display_name: "two\\nlines" is not allowed; allowed is a text of one line, not empty',
        ),
        (
            _CAMERA + "[camera.archive]",
            "camera[0].archive: a table is not a list; write [[camera.archive]] and its keys below",
        ),
        (
            _ARCHIVE + f'[[camera.archive]]\nstorage = "{BLUE}"\npath = "/q/%s.mp4"',
            f'camera[0].archive[1].storage: "{BLUE}" is there twice; camera[0].archive[0].storage has it already',
        ),
        (
            _ARCHIVE + 'timezone = "Europe/Berln"',
            'camera[0].archive[0].timezone: "Europe/Berln" is not allowed; '
            'allowed is an IANA name like "Europe/Berlin", or "UTC"',
        ),
        (
            _ARCHIVE + 'timezone = "../../etc/passwd"',
            'camera[0].archive[0].timezone: "../../etc/passwd" is not allowed; '
            'allowed is an IANA name like "Europe/Berlin", or "UTC"',
        ),
        (
            _ARCHIVE.replace("/r/", "r/"),
            "camera[0].archive[0].path: 'r/%s.mp4' is not an absolute path: it must begin with /",
        ),
        (
            _ARCHIVE.replace('"/r/%s.mp4"', "1"),
            "camera[0].archive[0].path: 1 is not allowed; "
            "allowed is an absolute path with directives for the start of each file",
        ),
        (
            _ARCHIVE.replace(BLUE, "Blue"),
            'camera[0].archive[0].storage: "Blue" is not allowed; '
            'allowed is "hosts/NODE/MultimediaStorage.NAME/MultimediaStorage"',
        ),
        (_ARCHIVE + "zone = 1", 'camera[0].archive[0].zone: unknown key; did you mean "timezone"?'),
        ("a = \nb = 1\n", "not TOML: Invalid value (at line 1, column 5)"),
        (
            'state_dir = "/s"\n[metrics]\nlisten = "0.0.0.0:9100"\n',
            'metrics.listen: "0.0.0.0:9100" can be reached from other machines, and nobody is asked there who he is; '
            "allowed is 127.0.0.1, [::1], localhost or unix:///PATH, or set insecure = true",
        ),
        ("a = 1\na = 2\n", "not TOML: Cannot overwrite a value (at line 2, column 6)"),
        ("\na = ", "not TOML: Invalid value (at line 2, the last one)"),
    ],
)
def test_a_mistake_is_told_exactly(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value) == problem
    assert caught.value.problems == (problem,)
    assert caught.value.kind is Kind.INVALID


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(_ARCHIVE.replace('"/s"', "7") + 'timezone = "Mars"\n[worker]\nnice = 99\nmemroy_mb = 5')
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        "state_dir",
        "worker.nice",
        "worker.memroy_mb",
        "camera[0].archive[0].timezone",
    ]


def test_a_pattern_without_a_time_is_told_in_the_patterns_own_words() -> None:
    with pytest.raises(ConfigError, match=r"^camera\[0\]\.archive\[0\]\.path: '/r/%Q\.mp4'.+ allowed"):
        parse(_ARCHIVE.replace("%s", "%Q"))


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'state_dir = "{"x" * 1000}"')
    assert len(str(caught.value)) < 200


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot be read: No such file or directory$"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"^cannot be read: Is a directory$"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'state_dir = "/s"\nlog.level = "\xe9"')
    with pytest.raises(ConfigError, match=r"^not UTF-8 text \(at line 2\)$"):
        load(tmp_path / "latin.toml")


def test_load_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "vx.toml").write_text(EXAMPLE)
    assert load(tmp_path / "vx.toml") == parse(EXAMPLE)


@pytest.mark.parametrize(
    ("text", "address", "local"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0), True),
        ("127.8.9.1:1", Address("127.8.9.1", 1), True),
        ("localhost:65535", Address("localhost", 65535), True),
        ("[::1]:5", Address("::1", 5), True),
        ("[0:0::1]:5", Address("::1", 5), True),
        ("[::ffff:127.0.0.1]:5", Address("::ffff:7f00:1", 5), True),
        ("[::ffff:8.8.8.8]:5", Address("::ffff:808:808", 5), False),
        ("[fe80::1%eth0]:5", Address("fe80::1%eth0", 5), False),
        ("unix:///run/vx.sock", Address(unix_path="/run/vx.sock"), True),
        ("192.168.0.9:20109", Address("192.168.0.9", 20109), False),
        ("localhost.example:1", Address("localhost.example", 1), False),
    ],
)
def test_addresses(text: str, address: Address, local: bool) -> None:
    assert Address.parse(text) == address
    assert address.is_local is local
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "host",
        "host:",
        "host:65536",
        "host:-1",
        "host:1x",
        "host:\u0661",
        "::1:5",
        "[::1]",
        "[::1:5",
        "[host]:5",
        "a b:5",
        "http://host:5",
        "user@host:5",
        "unix:run.sock",
        "unix://run.sock",
        "unix:///",
        "unix:///run/",
        "unix:///" + "x" * 107,
    ],
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(text)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_value_of_any_type_is_a_config_error_at_worst(value: object) -> None:
    """Whatever stands there, the answer is the list of mistakes, never another exception."""
    from vx.config import reading

    for field in ("listen", "state_dir", "camera", "lifetimes", "keepalive_s", "max_connections"):
        problems: list[str] = []
        made = reading.read_table(Config, {"state_dir": "/s", field: value}, "", problems)
        assert (made is None) == bool(problems)


def test_the_configuration_is_light() -> None:
    """The server's idle memory counts: reading the configuration loads no trio, no libav, nothing of gRPC."""
    heavy = "{'trio', 'av', 'PIL', 'numpy', 'grpclib', 'betterproto', 'h2', 'asyncio', 'click', 'rich'}"
    script = f"import sys, vx.config.reading; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_sockets_path_may_have_107_bytes() -> None:
    assert Address.parse("unix:///" + "x" * 106).unix_path == "/" + "x" * 106


@pytest.mark.parametrize(("gigabytes", "size"), [("0.25", 268_435_456), ("2", 2_147_483_648), ("0", 0)])
def test_a_gigabyte_has_1024_megabytes(gigabytes: str, size: int) -> None:
    results = parse(f'state_dir = "/s"\n[results]\nmin_free_gb = {gigabytes}\nmax_total_gb = {gigabytes}\n').results
    assert (results.min_free, results.max_total) == (size, size)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (".profile", "begins with a dot"),
        ("a/b", "not a path"),
        ("a\\b", "not a path"),
        ("a\tb", "control characters"),
        (" ", "is empty"),
        ("ä" * 101, "longer than 200 bytes"),
    ],
)
def test_no_names_of_files(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        safe_file_name(name)


def test_a_files_name_may_have_200_bytes() -> None:
    assert safe_file_name("ä" * 100) == "ä" * 100
