"""The settings that say what is drawn into pictures, what the text says, and how a PDF page is laid out.

All of it is checked here, and an error names the field: a number that is none, an area without inside, a colour or a
point beyond 0..1, a format or a font that isn't known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vx.captions import check_time_format
from vx.config.schema import Mask
from vx.drawing import AlignH, AlignV, Area, Colour, Drawing, Font, MaskStyle, Page, Polygon, TextLook, Words
from vx.jobs import ExternalPicture
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    EPdfLayout,
    ETextAlignH,
    ETextAlignV,
    SubtitleInfoEEntity,
    SubtitleInfoEMethod,
)
from vx.rpc.refusing import Settings, bad_enum, invalid, one_of, unsupported
from vx.timestamps import parse_timestamp

PAGE_SETTINGS = ("pdf_layout", "snapshot_place", "comment_place", "timestamp_place", "pdf_text_color", "pdf_font")
NEVER = {
    "fisheye_info": "this server does not straighten fisheye pictures",
    "mask_detector": "this server has no detectors whose objects it could mask",
    "track_color": "this server has no detectors whose tracks it could draw",
    "face_info": "this server shows no faces beside a picture",
    "plate_info": "this server shows no number plates beside a picture",
}
"""Settings of the contract that aren't honoured, and why."""

LONGEST_PATTERN = 10_000
LONGEST_TIME_FORMAT = 200
LARGEST_FONT = 1000
MOST_POINTS = 10_000
_SLACK = 1e-6
"""What a fraction loses on its way through 32 bits."""
_FACE = "Roboto"
_BOLD, _ITALIC = 1, 2
_PIECES: Mapping[int, str] = {
    SubtitleInfoEEntity.SE_TIMESTAMP: "{Timestamp}",
    SubtitleInfoEEntity.SE_COMMENT: "{ExportComment}",
    SubtitleInfoEEntity.SE_BOOKMARK: "{BookmarkInfo}",
    SubtitleInfoEEntity.SE_AUTHOR: "{CurrentUser}",
    SubtitleInfoEEntity.SE_CAMERA_ID: "{CameraId}",
    SubtitleInfoEEntity.SE_CAMERA_NAME: "{CameraName}",
    SubtitleInfoEEntity.SE_LOCATION: "{CameraLocation}",
}
_ON_LINES_OF_THEIR_OWN = ("{ExportComment}", "{BookmarkInfo}")
_ALIGN_H: Mapping[int, AlignH] = {
    ETextAlignH.H_CENTER: "center",
    ETextAlignH.H_LEFT: "left",
    ETextAlignH.H_RIGHT: "right",
}
_ALIGN_V: Mapping[int, AlignV] = {
    ETextAlignV.V_BOTTOM: "bottom",
    ETextAlignV.V_CENTER: "center",
    ETextAlignV.V_TOP: "top",
}
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


# ---- text


def parse_words(common: Settings, offset_min: int, comment: str, user: str) -> Words:
    """What text says, burnt in or not. VxError of the kinds INVALID and UNSUPPORTED."""
    time_format = Words().time_format
    if "timestamp_format" in common:
        path, time_format = common["timestamp_format"]
        if not time_format.strip() or len(time_format) > LONGEST_TIME_FORMAT:
            invalid(path, f"has {len(time_format)} characters; 1 to {LONGEST_TIME_FORMAT} are allowed, not only blanks")
        try:
            check_time_format(time_format)
        except ValueError as error:
            invalid(path, str(error))
    pattern = _pattern(common) or Words().pattern
    return Words(pattern=pattern, time_format=time_format, offset_min=offset_min, comment=comment, user=user)


def _pattern(common: Settings) -> str:
    if "subtitle_cast" not in common:
        return ""
    path, cast = common["subtitle_cast"]
    if len(cast.common_info_pattern) > LONGEST_PATTERN:
        text = f"has {len(cast.common_info_pattern)} characters; at most {LONGEST_PATTERN} are allowed"
        invalid(f"{path}.common_info_pattern", text)
    pieces: list[str] = []
    for index, detail in enumerate(cast.details):
        if detail == SubtitleInfoEEntity.SE_STREAM:
            unsupported(f"{path}.details[{index}]", "SE_STREAM: no text is recorded with the video here")
        if detail not in _PIECES:
            bad_enum(f"{path}.details[{index}]", detail, SubtitleInfoEEntity)
        pieces.append(_PIECES[detail])
    if _method(cast.stream_data_mode, f"{path}.stream_data_mode") != SubtitleInfoEMethod.SM_NONE:
        unsupported(f"{path}.stream_data_mode", "no text is recorded with the video here; SM_NONE is allowed")
    if cast.common_info_pattern.strip():
        return str(cast.common_info_pattern)
    line = "  ".join(dict.fromkeys(piece for piece in pieces if piece not in _ON_LINES_OF_THEIR_OWN))
    return "\n".join([*([line] if line else []), *(piece for piece in _ON_LINES_OF_THEIR_OWN if piece in pieces)])


def parse_methods(common: Settings, cannot_be_soft: str) -> tuple[bool, bool]:
    """Whether the text is burnt in, and whether it is a subtitle track. Where nothing is said it is such a track.

    `cannot_be_soft` says why the result has no place for one; empty: it has.
    """
    _, burn = common.get("burn_subtitle", ("", False))
    if "subtitle_cast" not in common:
        return burn, not burn and not cannot_be_soft
    path, cast = common["subtitle_cast"]
    method = _method(cast.common_info_mode, f"{path}.common_info_mode")
    soft = method == SubtitleInfoEMethod.SM_SOFT
    if soft and cannot_be_soft:
        unsupported(f"{path}.common_info_mode", f"SM_SOFT: {cannot_be_soft}; SM_HARD burns the text in")
    return burn or method == SubtitleInfoEMethod.SM_HARD, soft


def _method(value: int, path: str) -> int:
    try:
        return SubtitleInfoEMethod(value)
    except ValueError:
        bad_enum(path, value, SubtitleInfoEMethod)


# ---- frames


def parse_drawing(
    common: Settings, own: Settings, fixed: Sequence[Mask], mask_style: MaskStyle, *, burn: bool
) -> Drawing:
    """What is drawn into the frames of one source; what is said of it alone wins over the common settings.

    `fixed` masks apply whatever the settings say. VxError of the kinds INVALID and UNSUPPORTED.
    """
    for name, (path, _) in own.items():
        if name in NEVER:
            unsupported(path, NEVER[name])
    crop = _area(*own["crop_area"]) if "crop_area" in own else None
    polygons = _polygons(*own["mask_space"]) if "mask_space" in own else ()
    applied = polygons if _flag(common, "apply_mask") else ()
    inverted = _flag(common, "invert_mask")
    return Drawing(
        crop=crop,
        masks=(*(mask.points for mask in fixed), *(() if inverted else applied)),
        windows=applied if inverted else (),
        mask_style=mask_style,
        outlines=polygons if _flag(common, "highlight_areas") else (),
        text=_text_look({**common, **own}, crop, burn=burn),
    )


def _text_look(settings: Settings, crop: Area | None, *, burn: bool) -> TextLook | None:
    """None where no text is burnt in; what was said of it is checked all the same."""
    look = TextLook()
    place = _area(*settings["text_place"]) if "text_place" in settings else None
    if place is not None and crop is not None and not _meet(place, crop):
        invalid(settings["text_place"][0], "lies outside of crop_area")
    look = TextLook(
        place=place,
        colour=_ink(*settings["text_color"]) if "text_color" in settings else look.colour,
        ground=_colour(*settings["text_place_color"]) if "text_place_color" in settings else look.ground,
        align_h=one_of(settings, "horizon_text_align", _ALIGN_H, ETextAlignH, look.align_h),
        align_v=one_of(settings, "vertical_text_align", _ALIGN_V, ETextAlignV, look.align_v),
        font=_font(*settings["font"]) if "font" in settings else look.font,
    )
    return look if burn else None


def _meet(one: Area, other: Area) -> bool:
    return max(one.left, other.left) < min(one.right, other.right) and max(one.top, other.top) < min(
        one.bottom, other.bottom
    )


def _polygons(path: str, space: Any) -> tuple[Polygon, ...]:
    if not space.space:
        invalid(path, "has no polygon")
    count = sum(len(polygon.points) for polygon in space.space)
    if count > MOST_POINTS:
        invalid(path, f"has {count} points; at most {MOST_POINTS} are allowed")
    return tuple(_polygon(polygon.points, f"{path}.space[{i}].points") for i, polygon in enumerate(space.space))


def _polygon(points: Sequence[Any], path: str) -> Polygon:
    if len(points) < 3:
        invalid(path, f"has {len(points)} of at least 3 points")
    return tuple(
        (_fraction(point.x, f"{path}[{i}].x"), _fraction(point.y, f"{path}[{i}].y")) for i, point in enumerate(points)
    )


# ---- snapshots


def parse_page(settings: Settings, *, is_pdf: bool) -> Page | None:
    """How a page is laid out; None for a JPEG, which has none. VxError of the kinds INVALID and UNSUPPORTED."""
    for name, (path, _) in settings.items():
        if name in NEVER:
            unsupported(path, NEVER[name])
        if name in PAGE_SETTINGS and not is_pdf:
            invalid(path, "is for snapshots in the format PDF")
    if not is_pdf:
        return None
    layouts: Mapping[int, bool] = {EPdfLayout.PL_PORTRAIT: False, EPdfLayout.PL_LANDSCAPE: True}
    page = Page()
    return Page(
        landscape=one_of(settings, "pdf_layout", layouts, EPdfLayout, page.landscape),
        picture=_area(*settings["snapshot_place"]) if "snapshot_place" in settings else None,
        comment=_area(*settings["comment_place"]) if "comment_place" in settings else None,
        timestamp=_area(*settings["timestamp_place"]) if "timestamp_place" in settings else None,
        colour=_ink(*settings["pdf_text_color"]) if "pdf_text_color" in settings else page.colour,
        font=_font(*settings["pdf_font"]) if "pdf_font" in settings else page.font,
    )


def parse_external(settings: Settings, at_us: int, sources: int) -> ExternalPicture | None:
    """The picture that the client brings along, taken at `at_us` where it doesn't say. VxError(INVALID)."""
    if "snapshot" not in settings:
        return None
    path, frame = settings["snapshot"]
    if sources != 1:
        invalid(path, f"is a picture of one source; {sources} are asked for")
    if not frame.image.startswith(_IMAGES):
        invalid(f"{path}.image", "is neither a JPEG nor a PNG file")
    if frame.timestamp:
        try:
            at_us = parse_timestamp(frame.timestamp)
        except ValueError as error:
            invalid(f"{path}.timestamp", str(error))
    return ExternalPicture(data=frame.image, taken_us=at_us)


# ---- values


def _flag(settings: Settings, name: str) -> bool:
    return bool(settings[name][1]) if name in settings else False


def _area(path: str, area: Any) -> Area:
    sides = [_fraction(getattr(area, side), f"{path}.{side}") for side in ("left", "top", "right", "bottom")]
    left, top, right, bottom = sides
    if left >= right:
        invalid(f"{path}.right", f"is {right:g}; it must be greater than left, which is {left:g}")
    if top >= bottom:
        invalid(f"{path}.bottom", f"is {bottom:g}; it must be greater than top, which is {top:g}")
    return Area(left, top, right, bottom)


def _ink(path: str, colour: Any) -> Colour:
    """The colour of text."""
    found = _colour(path, colour)
    if not found.alpha:
        invalid(f"{path}.alpha", "is 0, which is clear: nobody could read the text; 1 is solid")
    return found


def _colour(path: str, colour: Any) -> Colour:
    parts = ("red", "green", "blue", "alpha")
    return Colour(*(_fraction(getattr(colour, part), f"{path}.{part}") for part in parts))


def _fraction(value: float, path: str) -> float:
    if not -_SLACK <= value <= 1 + _SLACK:
        invalid(path, f"is {value:g}; 0 to 1 is allowed")
    return float(min(max(value, 0.0), 1.0))


def _font(path: str, font: Any) -> Font:
    if font.face and font.face.casefold() != _FACE.casefold():
        unsupported(f"{path}.face", f"there is no font {font.face!r} here; there is {_FACE}, also for an empty name")
    if not math.isfinite(font.size) or not 0 <= font.size <= LARGEST_FONT:
        invalid(f"{path}.size", f"is {font.size:g}; 0 to {LARGEST_FONT} is allowed, 0 for what suits")
    if font.style & ~(_BOLD | _ITALIC):
        text = f"is {font.style}; the bits {_BOLD} (bold) and {_ITALIC} (italic) are known"
        unsupported(f"{path}.style", text)
    return Font(size=font.size, bold=bool(font.style & _BOLD), italic=bool(font.style & _ITALIC))
