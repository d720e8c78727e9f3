"""What is drawn into pictures, as the command line says it: the options, and what they add to a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vx.cli import values

if TYPE_CHECKING:
    from vx.rpc.generated.axxonsoft.bl import mmexport


def _parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(context: click.Context, option: click.Parameter, value: Any) -> Any:
        try:
            return tuple(map(parse, value)) if isinstance(value, tuple) else value and parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), context, option) from None

    return callback


mask_option = click.option(
    "--mask",
    "masks",
    multiple=True,
    callback=_parsed(values.parse_polygon),
    metavar='"X,Y X,Y X,Y"',
    help="Black out a polygon, its corners as fractions of the frame from the top left. May be given several times.",
)
crop_option = click.option(
    "--crop",
    callback=_parsed(values.parse_area),
    metavar="LEFT,TOP,RIGHT,BOTTOM",
    help="Keep this part of the frame, as fractions of it.",
)


zip_password_option = click.option(
    "--zip-password-file",
    "zip_password",
    callback=_parsed(values.password_in),
    metavar="FILE",
    help="Put each file into a ZIP file that is encrypted (AES-256) by the password in the first line of FILE.",
)


def draw(
    options: mmexport.Options,
    *,
    text: str | None,
    masks: Sequence[Sequence[tuple[float, float]]],
    crop: Sequence[float] | None,
) -> None:
    """Add to a request what is drawn into the pictures of all its cameras.

    `text` is `burn`, `subtitles` or `none`; None leaves it to the server.
    """
    import betterproto

    from vx.rpc.generated.axxonsoft.bl import mmexport
    from vx.rpc.generated.axxonsoft.bl.primitive import Point, SimplePolygon

    if text == "burn":
        options.settings.append(mmexport.CommonSetting(burn_subtitle=True))
    elif text is not None:
        method = mmexport.SubtitleInfoEMethod
        cast = mmexport.SubtitleInfo(common_info_mode=method.SM_SOFT if text == "subtitles" else method.SM_NONE)
        options.settings.append(mmexport.CommonSetting(subtitle_cast=cast))
    own = []
    if masks:
        options.settings.append(mmexport.CommonSetting(apply_mask=True))
        space = [SimplePolygon(points=[Point(x=x, y=y) for x, y in mask]) for mask in masks]
        own.append(mmexport.SourceSetting(mask_space=mmexport.MaskSpace(space=space)))
    if crop:
        left, top, right, bottom = crop
        area = mmexport.ViewArea(left=left, top=top, right=right, bottom=bottom)
        own.append(mmexport.SourceSetting(crop_area=area))
    _, mode = betterproto.which_one_of(options, "mode")
    for source in mode.sources if mode is not None else ():
        source.settings.extend(own)
