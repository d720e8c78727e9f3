"""A client's Options at the edges of what is allowed; whole requests are asked of a server in tests/e2e."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from tests.rpc.test_drawing import ORIGIN, config
from vx.config.schema import Agent, Config, Media, Results
from vx.errors import VxError
from vx.jobs import ClipJob, Cut
from vx.model import ExportRequest
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    ArchiveMode,
    ArchiveModeSource,
    CommonSetting,
    Options,
    SourceSetting,
    StreamSetting,
    StreamType,
    StreamTypeEFormat,
    TimeLapse,
    ViewArea,
)
from vx.rpc.generated.axxonsoft.bl.primitive import TimeRange
from vx.rpc.options import parse_options

AGENT = "hosts/Server1/MMExportAgent.0"


def clip(**fields: object) -> Options:
    options = Options(
        archive=ArchiveMode(
            sources=[ArchiveModeSource(origin=ORIGIN)],
            start_timestamp="20260511T080000",
            end_timestamp="20260511T080100",
        ),
        stream=StreamType(format=StreamTypeEFormat.MP4),
    )
    for name, value in fields.items():
        setattr(options, name, value)
    return options


def refused_field(options: Options, by: Config) -> str:
    """The field because of which they are; empty: they are not."""
    try:
        parse_options(options, by)
    except VxError as error:
        return (error.field or "").removeprefix("session_options.")
    return ""


@pytest.mark.parametrize(("minutes", "is_allowed"), [(840, True), (-840, True), (841, False), (-841, False)])
def test_an_offset_is_one_that_there_is_on_earth(minutes: int, is_allowed: bool) -> None:
    options = clip(settings=[CommonSetting(timezone=minutes)])
    assert refused_field(options, config()) == ("" if is_allowed else "settings[0].timezone")


@pytest.mark.parametrize(("size", "is_allowed"), [(0, True), (1, False), (16383, False), (16384, True)])
def test_a_file_has_room_for_a_picture(size: int, is_allowed: bool) -> None:
    assert refused_field(clip(max_file_size=size), config()) == ("" if is_allowed else "max_file_size")


@pytest.mark.parametrize(("count", "is_allowed"), [(1000, True), (1001, False)])
def test_a_password_has_its_end(count: int, is_allowed: bool) -> None:
    options = clip()
    options.stream.settings = [StreamSetting(password="x" * count)]
    assert refused_field(options, config()) == ("" if is_allowed else "stream.settings[0].password")


def with_agent(tmp_path: Path, **fields: object) -> ExportRequest:
    known = config(str(tmp_path))
    results = Results(external_roots=(tmp_path / "evidence",))
    agent = Agent(access_point=AGENT, directory=tmp_path / "agent")
    return parse_options(
        clip(**fields), Config(state_dir=tmp_path, camera=known.camera, agent=(agent,), results=results)
    )


@pytest.mark.parametrize(("below", "is_allowed"), [("", True), ("/a/b", True), ("-not", False), ("/../x", False)])
def test_an_external_directory_is_below_a_root(tmp_path: Path, below: str, is_allowed: bool) -> None:
    directory = f"{tmp_path}/evidence{below}"
    if not is_allowed:
        with pytest.raises(VxError, match=r"session_options.external_directory: .* is not allowed"):
            with_agent(tmp_path, external_directory=directory)
        return
    delivery = with_agent(tmp_path, external_directory=directory).delivery
    assert delivery
    assert (delivery.root, delivery.directory) == (f"{tmp_path}/evidence", directory)


def test_what_an_agent_stores_for_good_is_no_virtual_clip(tmp_path: Path) -> None:
    jobs = [with_agent(tmp_path, store_result_by_export_agent=stored).job for stored in (False, True)]
    assert [isinstance(job, ClipJob) and job.virtual for job in jobs] == [True, False]


def test_no_clip_is_virtual_where_the_configuration_forbids_it() -> None:
    known = config()
    by = Config(state_dir=known.state_dir, camera=known.camera, media=Media(virtual="never"))
    job = parse_options(clip(), by).job
    assert isinstance(job, ClipJob)
    assert (job.virtual, job.index) == (False, None)


@pytest.mark.parametrize(
    ("cut", "begins", "is_virtual"), [("exact", "02", True), ("keyframe", "02", False), ("keyframe", "", True)]
)
def test_ranges_that_may_have_to_be_joined_are_no_virtual_clip(cut: Cut, begins: str, is_virtual: bool) -> None:
    known = config()
    by = Config(state_dir=known.state_dir, camera=known.camera, media=Media(cut=cut))
    options = clip()
    for second in filter(None, ("00", begins)):
        options.archive.timeline_mask.append(
            TimeRange(begin_time=f"20260511T0800{second}", end_time=f"20260511T0800{second}.5")
        )
    job = parse_options(options, by).job
    assert isinstance(job, ClipJob)
    assert job.virtual == is_virtual


def test_what_may_be_shown_again_has_no_password() -> None:
    options = clip()
    options.stream.settings = [
        StreamSetting(password="first"),
        StreamSetting(reject_audio=True),
        StreamSetting(password="last"),
    ]
    request = parse_options(options, config())
    assert isinstance(request.job, ClipJob)
    assert request.job.password == "last"
    assert "last" not in repr(request)
    assert b"first" not in request.options
    assert b"last" not in request.options
    assert Options().parse(request.options).stream.settings[1].reject_audio
    assert options.stream.settings[0].password == "first", "the client's own words are left alone"


@pytest.mark.parametrize(
    ("speed", "fps", "field"),
    [
        (0.1, 0.0, ""),
        (0.09, 0.0, ".speed"),
        (10_000.0, 0.0, ""),
        (10_001.0, 0.0, ".speed"),
        (0.0, 0.001, ""),
        (0.0, 0.0009, ".fps"),
        (0.0, 240.0, ""),
        (0.0, 241.0, ".fps"),
        (-2.0, 0.0, ".speed"),
        (math.nan, 0.0, ".speed"),
        (0.0, 0.0, ""),
    ],
)
def test_how_fast_a_time_lapse_may_be(speed: float, fps: float, field: str) -> None:
    options = clip()
    options.stream.settings = [StreamSetting(time_lapse=TimeLapse(speed=as_sent(speed), fps=as_sent(fps)))]
    expected = "stream.settings[0].time_lapse" if field or not (speed or fps) else ""
    assert refused_field(options, config()) == expected + field


def as_sent(value: float) -> float:
    """What comes of it on its way through 32 bits."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


@pytest.mark.parametrize("side", [1 + 5e-7, 1 - 5e-7])
def test_fractions_that_lost_something_on_their_way_are_taken(side: float) -> None:
    options = clip()
    area = ViewArea(left=0.0, top=side - 1, right=side, bottom=1.0)
    options.archive.sources[0].settings = [SourceSetting(crop_area=area)]
    drawn = parse_options(options, config()).job.sources[0].drawing
    assert drawn.crop
    assert (drawn.crop.top, drawn.crop.right) == (max(side - 1, 0), min(side, 1))
