"""What roles come to, taken together."""

from __future__ import annotations

import pytest

from vx.config.mistakes import ConfigError
from vx.config.reading import parse
from vx.config.schema import Config
from vx.errors import Kind, VxError
from vx.rights import EVERYTHING, Rights

HASH = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
FIRST = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
TENTH = "hosts/Server1/DeviceIpint.10/SourceEndpoint.video:0:0"
OTHER = "hosts/Server2/DeviceIpint.1/SourceEndpoint.video:0:0"
HOUR_US = 3_600_000_000


def read(*roles: str, users: str = "") -> Config:
    text = 'state_dir = "/nowhere"\n'
    for number, role in enumerate(roles):
        text += f'[[role]]\nname = "r{number}"\n{role}\n'
    names = ", ".join(f'"r{number}"' for number in range(len(roles)))
    return parse(text + (users or f'[[user]]\nname = "alice"\npassword_hash = "{HASH}"\nroles = [{names}]\n'))


def rights(*roles: str) -> Rights:
    config = read(*roles)
    return config.rights_of(config.user[0])


@pytest.mark.parametrize(
    ("pattern", "seen"),
    [
        ("*", {FIRST, TENTH, OTHER}),
        ("Server1/*", {FIRST, TENTH}),
        ("hosts/Server1/*", {FIRST, TENTH}),
        ("Server1/DeviceIpint.1", {FIRST}),
        ("Server1/DeviceIpint.1*", {FIRST, TENTH}),
        ("Server?/DeviceIpint.1", {FIRST, OTHER}),
        (FIRST, {FIRST}),
        ("Server1/DeviceIpint.1/SourceEndpoint.video:0:1", set()),
        ("Server1", {FIRST, TENTH}),
        ("Server", set()),
        ("server1/*", set()),
    ],
)
def test_patterns_of_cameras(pattern: str, seen: set[str]) -> None:
    allowed = rights(f'cameras = ["{pattern}"]')
    assert {camera for camera in (FIRST, TENTH, OTHER) if allowed.may_see(camera)} == seen
    assert allowed.may_see(FIRST) is allowed.may_see(FIRST.removeprefix("hosts/"))


def test_brackets_in_a_pattern_are_themselves() -> None:
    allowed = rights('cameras = ["Server1/DeviceIpint.[1]", "[!a]*"]')
    assert not allowed.may_see(FIRST)
    assert allowed.may_see(FIRST.replace(".1/", ".[1]/"))
    assert allowed.may_see("hosts/[!a]/DeviceIpint.1/SourceEndpoint.video:0:0")


def test_nothing_is_granted_that_is_not_written_down() -> None:
    for allowed in (Rights(), rights(), rights('cameras = ["*"]')):
        with pytest.raises(VxError) as no_live:
            allowed.check_live(FIRST)
        with pytest.raises(VxError) as no_archive:
            allowed.earliest_us(FIRST, 0)
        assert (no_live.value.kind, no_archive.value.kind) == (Kind.DENIED, Kind.DENIED)
        assert not allowed.supervisor


def test_a_grant_is_for_its_own_roles_cameras() -> None:
    allowed = rights('cameras = ["Server1/*"]\narchive = true', 'cameras = ["Server2/*"]\nlive = true')
    assert allowed.earliest_us(FIRST, 0) is None
    allowed.check_live(OTHER)
    with pytest.raises(VxError, match="no role of the user grants `live` for the camera"):
        allowed.check_live(FIRST)
    with pytest.raises(VxError, match="no role of the user grants `archive` for the camera"):
        allowed.earliest_us(OTHER, 0)


def test_who_may_not_see_a_camera_is_told_the_same_whether_there_is_one() -> None:
    with pytest.raises(VxError, match=r"no role of the user has the camera 'x/y' among its `cameras`"):
        rights('cameras = ["Server1/*"]\narchive = true').earliest_us("x/y", 0)


def test_the_deepest_archive_counts() -> None:
    hours = (2, 48.5, 0, 1e-12)
    short, long, whole, nothing = (f'cameras = ["*"]\narchive = true\narchive_depth_h = {each}' for each in hours)
    assert rights(short, long).earliest_us(FIRST, 100 * HOUR_US) == round(51.5 * HOUR_US)
    assert rights(short, whole).earliest_us(FIRST, 100 * HOUR_US) is None
    assert rights(nothing).earliest_us(FIRST, 100 * HOUR_US) == 100 * HOUR_US


def test_demands_and_limits() -> None:
    allowed = rights("must_use_password = true\nmax_running_sessions = 2", "max_running_sessions = 5")
    assert (allowed.must_use_password, allowed.max_running_sessions) == (True, 5)
    assert rights("max_running_sessions = 2", "supervisor = true").max_running_sessions is None
    assert rights("supervisor = true").supervisor


def test_masks_are_for_everybody_but_who_may_see_without() -> None:
    role = 'cameras = ["Server1/*"]\nmay_see_unmasked = true'
    other = 'cameras = ["Server2/*"]\narchive = true'
    assert rights(role, other).may_see_unmasked(FIRST)
    assert not rights(role, other).may_see_unmasked(OTHER)
    assert not EVERYTHING.may_see_unmasked(FIRST)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[[user]]\nname = "a"\npassword_hash = "secret"',
            'user[0].password_hash: "secret" is not allowed (it has another',
        ),
        ('[[user]]\nname = "a"', "user[0].password_hash: is missing"),
        (f'[[user]]\nname = "a"\npassword_hash = "{HASH}"\nroles = ["x"]', 'user[0].roles[0]: "x" is no [[role]]'),
        (f'[[user]]\nname = "a\\u0000"\npassword_hash = "{HASH}"', "user[0].name"),
        (f'[[user]]\nname = " a"\npassword_hash = "{HASH}"', 'user[0].name: " a" is not allowed'),
        ('[[user]]\nname = "a"\npassword_hash = "' + HASH.replace("19456", "9999999") + '"', "it costs too much"),
        ('[[user]]\nname = "a"\npassword_hash = "' + HASH.replace("t=2", "t=21") + '"', "it costs too much"),
        ('[[user]]\nname = "a"\npassword_hash = "' + HASH.replace("p=1", "p=9") + '"', "it costs too much"),
        ('[[role]]\nname = "a"\ncameras = ["Server1/../x"]', "role[0].cameras[0]"),
        ('[[role]]\nname = "a"\ncameras = ["a\\u0000b"]', "role[0].cameras[0]"),
        ('[[role]]\nname = "a"\ncameras = [""]', "role[0].cameras[0]"),
        ('[[role]]\nname = "a"\n[[role]]\nname = "a"', 'role[1].name: "a" is there twice'),
        ('[process]\nuser = "no such user"', "process.user"),
        ('[tls]\ncertificate = "/a"\nkey = "/b"\nclient_ca = "/c"', "tls.client_ca: the names in clients'"),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse('state_dir = "/nowhere"\n' + text)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("", "TLS and users"),
        ('[tls]\ncertificate = "/a"\nkey = "/b"', "users"),
        (f'[[user]]\nname = "a"\npassword_hash = "{HASH}"', "TLS"),
        (f'[tls]\ncertificate = "/a"\nkey = "/b"\n[[user]]\nname = "a"\npassword_hash = "{HASH}"', ""),
    ],
)
def test_other_machines_come_in_once_there_are_tls_and_users(text: str, missing: str) -> None:
    whole = 'state_dir = "/nowhere"\nlisten = ["0.0.0.0:1"]\n' + text
    if not missing:
        parse(whole)
        return
    with pytest.raises(ConfigError, match=f"and without {missing} anybody"):
        parse(whole)
