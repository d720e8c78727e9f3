"""What the rights of a caller say to a request, before anything else looks at it."""

from __future__ import annotations

import pytest

from vx.errors import Kind, VxError
from vx.rights import Grant, Rights
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    ArchiveMode,
    ArchiveModeSource,
    LiveMode,
    LiveModeSource,
    Options,
    SnapshotType,
    StreamSetting,
    StreamType,
)
from vx.rpc.permits import check_permitted
from vx.timestamps import format_timestamp

CAMERA, OTHER = "S/DeviceIpint.1/SourceEndpoint.video:0:0", "S/DeviceIpint.2/SourceEndpoint.video:0:0"
HOUR_US = 3_600_000_000
NOW_US = 500_000 * HOUR_US


def rights(*, must_use_password: bool = False) -> Rights:
    grant = Grant(cameras=(CAMERA,), live=True, archive=True, archive_depth_us=HOUR_US)
    return Rights((grant, Grant(cameras=(OTHER,))), must_use_password)


def clip(start_us: int, end_us: int, *passwords: str, origin: str = CAMERA) -> Options:
    return Options(
        archive=ArchiveMode(
            sources=[ArchiveModeSource(origin=origin)],
            start_timestamp=format_timestamp(start_us),
            end_timestamp=format_timestamp(end_us),
        ),
        stream=StreamType(settings=[StreamSetting(password=password) for password in passwords]),
    )


def denied(options: Options, allowed: Rights) -> str:
    """The field because of which it is; empty: it is not."""
    try:
        check_permitted(options, allowed, NOW_US)
    except VxError as error:
        if error.kind is not Kind.DENIED:
            raise
        return (error.field or "").removeprefix("session_options.")
    return ""


@pytest.mark.parametrize(
    ("start_us", "end_us", "field"),
    [
        (NOW_US - HOUR_US, NOW_US, ""),
        (NOW_US - HOUR_US - 1, NOW_US, "archive.start_timestamp"),
        (NOW_US, NOW_US - HOUR_US - 1, "archive.end_timestamp"),  # reversed ends are swapped later on
    ],
)
def test_how_far_back(start_us: int, end_us: int, field: str) -> None:
    assert denied(clip(start_us, end_us), rights()) == field


@pytest.mark.parametrize(
    ("passwords", "is_allowed"),
    [((), False), (("",), False), (("secret",), True), (("secret", ""), False), (("", "secret"), True)],
)
def test_a_clip_that_must_be_encrypted(passwords: tuple[str, ...], is_allowed: bool) -> None:
    options = clip(NOW_US - 1, NOW_US, *passwords)
    assert denied(options, rights(must_use_password=True)) == ("" if is_allowed else "stream.settings.password")
    assert denied(options, rights()) == ""


def test_a_picture_cannot_be_encrypted() -> None:
    options = clip(NOW_US - 1, NOW_US)
    options.snapshot = SnapshotType()
    assert denied(options, rights()) == ""
    assert denied(options, rights(must_use_password=True)) == "snapshot"


def test_every_source_is_looked_at() -> None:
    live = Options(live=LiveMode(sources=[LiveModeSource(origin=CAMERA), LiveModeSource(origin=OTHER)]))
    assert denied(live, rights()) == "live.sources[1].origin"
    assert denied(clip(NOW_US - 1, NOW_US, origin=OTHER), rights()) == "archive.sources[0].origin"
