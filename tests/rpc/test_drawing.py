"""Settings of what is drawn: parsed into the structs that workers get, or refused with the field's path."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vx.config.reading import parse
from vx.config.schema import Archive, Camera, Config, Mask
from vx.drawing import Area, Colour, Drawing, Font, Page, TextLook, Words
from vx.errors import Kind, VxError
from vx.jobs import ClipJob, SnapshotJob
from vx.model import Caller
from vx.rights import Grant, Rights
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    ArchiveMode,
    ArchiveModeSource,
    ColorInfo,
    CommonSetting,
    EPdfLayout,
    ETextAlignH,
    ETextAlignV,
    ExternalFrame,
    FontInfo,
    MaskSpace,
    Options,
    SnapshotSetting,
    SnapshotType,
    SnapshotTypeEFormat,
    SourceSetting,
    StreamType,
    StreamTypeEFormat,
    SubtitleInfo,
    SubtitleInfoEEntity,
    SubtitleInfoEMethod,
    ViewArea,
)
from vx.rpc.generated.axxonsoft.bl.primitive import Point, SimplePolygon
from vx.rpc.options import parse_options

ORIGIN = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
SHUT = ((0.5, 0.5), (0.6, 0.5), (0.6, 0.6))
"""What the configuration hides of the camera."""
TRIANGLE = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.25))


def config(tmp: str = "/var/lib/vx") -> Config:
    archive = Archive(storage="hosts/Server1/MultimediaStorage.A/MultimediaStorage", path="/x/%s.mp4")
    camera = Camera(access_point=ORIGIN, display_id="7", location="Gate", archive=(archive,), mask=(Mask(points=SHUT),))
    return Config(state_dir=Path(tmp), camera=(camera,))


def ask(
    common: list[CommonSetting],
    own: list[SourceSetting] | None = None,
    form: StreamTypeEFormat = StreamTypeEFormat.MP4,
    snapshot: SnapshotType | None = None,
) -> ClipJob | SnapshotJob:
    archive = ArchiveMode(
        sources=[ArchiveModeSource(origin=ORIGIN, settings=own or [])],
        start_timestamp="20260511T080000",
        end_timestamp="20260511T080100",
    )
    options = Options(archive=archive, settings=common)
    if snapshot is None:
        options.stream = StreamType(format=form)
    else:
        options.snapshot = snapshot
    return parse_options(options, config()).job


def drawing(common: list[CommonSetting], own: list[SourceSetting] | None = None) -> Drawing:
    return ask(common, own).sources[0].drawing


def mask(*polygons: tuple[tuple[float, float], ...]) -> SourceSetting:
    space = [SimplePolygon(points=[Point(x=x, y=y) for x, y in points]) for points in polygons]
    return SourceSetting(mask_space=MaskSpace(space=space))


BURN = CommonSetting(burn_subtitle=True)


def test_without_any_setting_only_what_the_configuration_hides_is_drawn() -> None:
    job = ask([])
    assert job.sources[0].drawing == Drawing(masks=(SHUT,))
    assert isinstance(job, ClipJob)
    assert job.subtitles
    assert job.sources[0].location == "Gate"


def test_a_role_may_see_what_the_configuration_hides() -> None:
    archive = ArchiveMode(sources=[ArchiveModeSource(origin=ORIGIN)], start_timestamp="20260511T080000")
    options = Options(archive=archive, snapshot=SnapshotType())
    for sees in (False, True):
        grant = Grant(cameras=("*",), archive=True, may_see_unmasked=sees)
        caller = Caller("ann", "192.0.2.7:1", Rights(grants=(grant,)))
        job = parse_options(options, config(), caller).job
        assert job.sources[0].drawing == (Drawing() if sees else Drawing(masks=(SHUT,)))
        assert job.words.user == "ann"


@pytest.mark.parametrize(
    ("settings", "masks", "windows", "outlines"),
    [
        ({}, (SHUT,), (), ()),
        ({"apply_mask": False}, (SHUT,), (), ()),
        ({"apply_mask": True}, (SHUT, TRIANGLE), (), ()),
        ({"apply_mask": True, "invert_mask": True}, (SHUT,), (TRIANGLE,), ()),
        ({"invert_mask": True}, (SHUT,), (), ()),
        ({"highlight_areas": True}, (SHUT,), (), (TRIANGLE,)),
        ({"apply_mask": True, "highlight_areas": True}, (SHUT, TRIANGLE), (), (TRIANGLE,)),
    ],
)
def test_masks(settings: dict[str, Any], masks: Any, windows: Any, outlines: Any) -> None:
    made = drawing([CommonSetting(**{name: value}) for name, value in settings.items()], [mask(TRIANGLE)])
    assert made == Drawing(masks=masks, windows=windows, outlines=outlines)


def test_what_is_said_of_a_source_wins() -> None:
    common = [
        BURN,
        CommonSetting(text_place=ViewArea(left=0, top=0, right=1, bottom=0.5)),
        CommonSetting(text_color=ColorInfo(red=1, alpha=1)),
        CommonSetting(font=FontInfo(face="roboto", size=20, style=3)),
    ]
    own = [
        SourceSetting(crop_area=ViewArea(left=0.5, top=0, right=1, bottom=1)),
        SourceSetting(text_color=ColorInfo(green=1, alpha=0.5)),
        SourceSetting(text_place_color=ColorInfo(blue=1)),
        SourceSetting(vertical_text_align=ETextAlignV.V_TOP),
        SourceSetting(horizon_text_align=ETextAlignH.H_RIGHT),
    ]
    look = TextLook(
        place=Area(0, 0, 1, 0.5),
        colour=Colour(0, 1, 0, 0.5),
        ground=Colour(0, 0, 1, 0),
        align_h="right",
        align_v="top",
        font=Font(size=20, bold=True, italic=True),
    )
    assert drawing(common, own) == Drawing(crop=Area(0.5, 0, 1, 1), masks=(SHUT,), text=look)


NONE, SOFT, HARD = SubtitleInfoEMethod.SM_NONE, SubtitleInfoEMethod.SM_SOFT, SubtitleInfoEMethod.SM_HARD


@pytest.mark.parametrize(
    ("settings", "burnt", "subtitles", "in_avi"),
    [
        ([], False, True, False),
        ([CommonSetting(burn_subtitle=True)], True, False, True),
        ([CommonSetting(burn_subtitle=False)], False, True, False),
        ([CommonSetting(subtitle_cast=SubtitleInfo(common_info_mode=NONE))], False, False, False),
        ([CommonSetting(subtitle_cast=SubtitleInfo(common_info_mode=SOFT))], False, True, None),
        ([CommonSetting(subtitle_cast=SubtitleInfo(common_info_mode=HARD))], True, False, True),
        ([BURN, CommonSetting(subtitle_cast=SubtitleInfo(common_info_mode=SOFT))], True, True, None),
    ],
)
def test_how_text_gets_into_a_clip(
    settings: list[CommonSetting], burnt: bool, subtitles: bool, in_avi: bool | None
) -> None:
    job = ask(settings)
    assert isinstance(job, ClipJob)
    assert (job.sources[0].drawing.text is not None, job.subtitles) == (burnt, subtitles)
    if in_avi is None:
        with pytest.raises(VxError, match="common_info_mode: SM_SOFT: AVI has no subtitles; SM_HARD burns the text in"):
            ask(settings, form=StreamTypeEFormat.AVI)
    else:
        assert (ask(settings, form=StreamTypeEFormat.AVI).sources[0].drawing.text is not None) == in_avi


def test_what_the_text_says() -> None:
    entity = SubtitleInfoEEntity
    details = [entity.SE_COMMENT, entity.SE_CAMERA_ID, entity.SE_AUTHOR, entity.SE_TIMESTAMP, entity.SE_LOCATION]
    common = [
        CommonSetting(comment="seen"),
        CommonSetting(timezone=90),
        CommonSetting(timestamp_format="%H.%f"),
        CommonSetting(subtitle_cast=SubtitleInfo(details=details, common_info_mode=HARD)),
    ]
    pattern = "{CameraId}  {CurrentUser}  {Timestamp}  {CameraLocation}\n{ExportComment}"
    assert ask(common).words == Words(
        pattern=pattern, time_format="%H.%f", offset_min=90, comment="seen", user="the server"
    )
    cast = SubtitleInfo(details=details, common_info_pattern="<{Timestamp}>")
    assert ask([CommonSetting(timezone=0), CommonSetting(subtitle_cast=cast)]).words == Words(
        pattern="<{Timestamp}>", user="the server"
    )


def test_a_page() -> None:
    settings = [
        SnapshotSetting(pdf_layout=EPdfLayout.PL_LANDSCAPE),
        SnapshotSetting(snapshot_place=ViewArea(left=0, top=0, right=0.5, bottom=1)),
        SnapshotSetting(comment_place=ViewArea(left=0.5, top=0, right=1, bottom=0.5)),
        SnapshotSetting(timestamp_place=ViewArea(left=0.5, top=0.5, right=1, bottom=1)),
        SnapshotSetting(pdf_text_color=ColorInfo(blue=1, alpha=1)),
        SnapshotSetting(pdf_font=FontInfo(size=12)),
        SnapshotSetting(snapshot=ExternalFrame(timestamp="20260511T080000.5", image=b"\xff\xd8\xff...")),
    ]
    job = ask([], snapshot=SnapshotType(format=SnapshotTypeEFormat.PDF, settings=settings))
    assert isinstance(job, SnapshotJob)
    assert job.page == Page(
        landscape=True,
        picture=Area(0, 0, 0.5, 1),
        comment=Area(0.5, 0, 1, 0.5),
        timestamp=Area(0.5, 0.5, 1, 1),
        colour=Colour(0, 0, 1),
        font=Font(size=12),
    )
    assert job.external is not None
    assert job.external.taken_us % 60_000_000 == 500_000


def test_what_the_configuration_hides_is_read_and_checked() -> None:
    text = f"""
state_dir = "/x"
[[camera]]
access_point = "{ORIGIN}"
  [[camera.mask]]
  points = [[0, 0], [1, 0.5], [0.5, 1]]
"""
    assert parse(text).camera[0].mask == (Mask(points=((0, 0), (1, 0.5), (0.5, 1))),)
    for bad in ("[]", "[[0, 0], [1, 1]]", "[[0, 0], [1, 1], [2, 2]]", "[[0, 0], [1, 1], [1]]", "[[0, 0], [1, 1], 3]"):
        with pytest.raises(VxError, match=r"camera\[0\].mask\[0\].points: .* is not allowed; allowed is a list of"):
            parse(text.replace("[[0, 0], [1, 0.5], [0.5, 1]]", bad))


def refusal(common: list[CommonSetting], own: list[SourceSetting] | None = None, **more: Any) -> str:
    with pytest.raises(VxError) as caught:
        ask(common, own, **more)
    assert caught.value.kind in (Kind.INVALID, Kind.UNSUPPORTED)
    return str(caught.value).removeprefix("session_options.")


def area(left: float, top: float, right: float, bottom: float) -> ViewArea:
    return ViewArea(left=left, top=top, right=right, bottom=bottom)


def cast(**fields: Any) -> list[CommonSetting]:
    return [CommonSetting(subtitle_cast=SubtitleInfo(**fields))]


@pytest.mark.parametrize(
    ("common", "own", "text"),
    [
        (
            [CommonSetting(text_place=area(0.5, 0, 0.5, 1))],
            [],
            "settings[0].text_place.right: is 0.5; it must be greater than left, which is 0.5",
        ),
        (
            [],
            [SourceSetting(crop_area=area(0, 1, 1, 0))],
            "archive.sources[0].settings[0].crop_area.bottom: is 0; it must be greater than top, which is 1",
        ),
        (
            [CommonSetting(text_place=area(0, 0, 1, 1.5))],
            [],
            "settings[0].text_place.bottom: is 1.5; 0 to 1 is allowed",
        ),
        (
            [CommonSetting(text_place=area(math.nan, 0, 1, 1))],
            [],
            "settings[0].text_place.left: is nan; 0 to 1 is allowed",
        ),
        (
            [CommonSetting(text_place=area(0, 0, 0.4, 1))],
            [SourceSetting(crop_area=area(0.5, 0, 1, 1))],
            "settings[0].text_place: lies outside of crop_area",
        ),
        (
            [CommonSetting(text_color=ColorInfo(red=2, alpha=1))],
            [],
            "settings[0].text_color.red: is 2; 0 to 1 is allowed",
        ),
        (
            [CommonSetting(text_color=ColorInfo(red=1))],
            [],
            "settings[0].text_color.alpha: is 0, which is clear: nobody could read the text; 1 is solid",
        ),
        (
            [CommonSetting(timestamp_format="%Q")],
            [],
            "settings[0].timestamp_format: '%Q' is not known; known are %Y %y %m %d %e %j %H %I %M %S %f %p %a %A %b "
            "%B %F %T %% %z",
        ),
        (
            [CommonSetting(timestamp_format=" ")],
            [],
            "settings[0].timestamp_format: has 1 characters; 1 to 200 are allowed, not only blanks",
        ),
        (
            [CommonSetting(font=FontInfo(face="Arial"))],
            [],
            "settings[0].font.face: there is no font 'Arial' here; there is Roboto, also for an empty name",
        ),
        (
            [CommonSetting(font=FontInfo(size=-1))],
            [],
            "settings[0].font.size: is -1; 0 to 1000 is allowed, 0 for what suits",
        ),
        (
            [CommonSetting(font=FontInfo(style=5))],
            [],
            "settings[0].font.style: is 5; the bits 1 (bold) and 2 (italic) are known",
        ),
        ([], [SourceSetting(mask_space=MaskSpace())], "archive.sources[0].settings[0].mask_space: has no polygon"),
        (
            [],
            [mask(TRIANGLE, TRIANGLE[:2])],
            "archive.sources[0].settings[0].mask_space.space[1].points: has 2 of at least 3 points",
        ),
        (
            [],
            [mask((*TRIANGLE, (0.5, -0.1)))],
            "archive.sources[0].settings[0].mask_space.space[0].points[3].y: is -0.1; 0 to 1 is allowed",
        ),
        (
            [],
            [mask(TRIANGLE * 4000)],
            "archive.sources[0].settings[0].mask_space: has 12000 points; at most 10000 are allowed",
        ),
        (
            [],
            [SourceSetting(horizon_text_align=7)],  # type: ignore[arg-type]
            "archive.sources[0].settings[0].horizon_text_align: 7 is not a value of ETextAlignH",
        ),
        (
            cast(details=[SubtitleInfoEEntity.SE_STREAM]),
            [],
            "settings[0].subtitle_cast.details[0]: SE_STREAM: no text is recorded with the video here",
        ),
        (
            cast(stream_data_mode=HARD),
            [],
            "settings[0].subtitle_cast.stream_data_mode: no text is recorded with the video here; SM_NONE is allowed",
        ),
        (
            cast(common_info_mode=9),
            [],
            "settings[0].subtitle_cast.common_info_mode: 9 is not a value of SubtitleInfo.EMethod",
        ),
        (
            cast(common_info_pattern="x" * 10_001),
            [],
            "settings[0].subtitle_cast.common_info_pattern: has 10001 characters; at most 10000 are allowed",
        ),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_refused_by_its_field(
    common: list[CommonSetting], own: list[SourceSetting], text: str
) -> None:
    assert refusal(common, own) == text


def test_a_picture_that_is_none_is_refused() -> None:
    frame = SnapshotSetting(snapshot=ExternalFrame(image=b"GIF89a"))
    told = refusal([], snapshot=SnapshotType(settings=[frame]))
    assert told == "snapshot.settings[0].snapshot.image: is neither a JPEG nor a PNG file"
    assert refusal(cast(common_info_mode=SOFT), snapshot=SnapshotType()).endswith("a JPEG has no subtitles; "
        "SM_HARD burns the text in")  # fmt: skip


numbers = st.one_of(st.floats(width=32), st.floats(-0.125, 1.125, width=32))
areas = st.builds(ViewArea, numbers, numbers, numbers, numbers)
points = st.lists(st.builds(Point, numbers, numbers), max_size=5)
enums = st.integers(-1, 9)
common_settings = st.one_of(
    st.builds(CommonSetting, timestamp_format=st.text()),
    st.builds(CommonSetting, text_place=areas),
    st.builds(CommonSetting, text_color=st.builds(ColorInfo, numbers, numbers, numbers, numbers)),
    st.builds(CommonSetting, font=st.builds(FontInfo, st.sampled_from(["", "Roboto", "x"]), numbers, enums)),
    st.builds(
        CommonSetting,
        subtitle_cast=st.builds(SubtitleInfo, st.lists(enums, max_size=3), enums, enums, st.text(max_size=20)),
    ),
    st.builds(CommonSetting, apply_mask=st.booleans()),
    st.builds(CommonSetting, invert_mask=st.booleans()),
)
own_settings = st.one_of(
    st.builds(SourceSetting, crop_area=areas),
    st.builds(SourceSetting, mask_space=st.builds(MaskSpace, st.lists(st.builds(SimplePolygon, points), max_size=3))),
    st.builds(SourceSetting, horizon_text_align=enums),
    st.builds(SourceSetting, text_place_color=st.builds(ColorInfo, numbers, numbers, numbers, numbers)),
)


@given(st.lists(common_settings, max_size=4), st.lists(own_settings, max_size=3))
def test_anything_is_taken_or_refused_by_its_field(common: list[CommonSetting], own: list[SourceSetting]) -> None:
    refused: VxError | None = None
    try:
        made = ask(common, own)
    except VxError as error:
        refused = error
    if refused is not None:
        assert refused.kind in (Kind.INVALID, Kind.UNSUPPORTED)
        field = str(refused.field)
        assert field.startswith(("session_options.settings[", "session_options.archive.sources[0].settings["))
        return
    for polygon in made.sources[0].drawing.masks:
        assert all(0 <= value <= 1 for point in polygon for value in point)
