"""Whether a caller may have what a StartSession asks for.

This is looked at before anything else of the request: who may not see a camera does not learn whether it exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import betterproto

from vx.errors import Kind, VxError
from vx.rights import Rights
from vx.rpc.generated.axxonsoft.bl.mmexport import ArchiveMode, LiveMode, LiveModeSource, Options, StreamType
from vx.timestamps import parse_timestamp

_ROOT = "session_options"


def check_permitted(options: Options, rights: Rights, now_us: int) -> None:
    """VxError(DENIED) with the field and the right that is missing. What is not understood here is refused later."""
    _, mode = betterproto.which_one_of(options, "mode")
    match mode:
        case LiveMode():
            _check_live(mode.sources, rights)
        case ArchiveMode():
            _check_archive(mode, rights, now_us)
    if rights.must_use_password:
        _check_password(options)


def _check_live(sources: Sequence[LiveModeSource], rights: Rights) -> None:
    for index, source in enumerate(sources):
        try:
            rights.check_live(source.origin)
        except VxError as error:
            raise VxError(error.kind, str(error), field=f"{_ROOT}.live.sources[{index}].origin") from None


def _check_archive(archive: ArchiveMode, rights: Rights, now_us: int) -> None:
    for index, source in enumerate(archive.sources):
        field = f"{_ROOT}.archive.sources[{index}].origin"
        try:
            earliest_us = rights.earliest_us(source.origin, now_us)
        except VxError as error:
            raise VxError(error.kind, str(error), field=field) from None
        if earliest_us is None:
            continue
        for name in ("start_timestamp", "end_timestamp"):
            text = getattr(archive, name)
            if text and _parse(text, earliest_us) < earliest_us:
                hours = (now_us - earliest_us) / 3_600_000_000
                reason = f"the user's `archive_depth_h` for the camera {source.origin!r} is {hours:g} hours"
                raise VxError(Kind.DENIED, reason, field=f"{_ROOT}.archive.{name}")


def _parse(text: str, otherwise: int) -> int:
    try:
        return parse_timestamp(text)
    except ValueError:
        return otherwise  # which is no time; that is said when the options are understood


def _check_password(options: Options) -> None:
    output, form = betterproto.which_one_of(options, "output_type")
    if not isinstance(form, StreamType):
        text = "a role of the user has `must_use_password`, and only clips can be encrypted"
        raise VxError(Kind.DENIED, text, field=f"{_ROOT}.{output or 'stream'}")
    settings = [betterproto.which_one_of(each, "setting") for each in form.settings]
    given = [value for name, value in settings if name == "password"]
    if not given or not given[-1]:
        text = "is missing: a role of the user has `must_use_password`"
        raise VxError(Kind.DENIED, text, field=f"{_ROOT}.stream.settings.password")
