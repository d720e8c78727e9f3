"""A client's Options → a checked request, or an error that names the field.

Every option of the contract is either honoured, harmless because it asks for what happens anyway, or refused: nothing
is ignored in silence. Pure, but for the look at the clock's offset where the client gave none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import betterproto

from vx.config import Archive, Camera, Config
from vx.errors import Kind, VxError
from vx.jobs import ClipJob, Container, SnapshotJob, Source
from vx.model import ExportRequest
from vx.rpc.codec import unknown_field
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    ArchiveMode,
    ArchiveModeSource,
    EAudioCodec,
    EFrameFrequency,
    EQuality,
    EVideoCodec,
    Options,
    SnapshotType,
    SnapshotTypeEFormat,
    StreamType,
    StreamTypeEFormat,
)
from vx.timestamps import parse_timestamp

ROOT = "session_options"
_MAX_COMMENT = 10_000
_MAX_OFFSET_MIN = 14 * 60
"""The largest offset from UTC that any place on Earth has had for a century."""

Settings = dict[str, tuple[str, Any]]
"""Setting's name → (path of the entry that counts, its value)."""


def parse_options(options: Options, config: Config) -> ExportRequest:
    """What `options` ask for. VxError of the kinds INVALID, NOT_FOUND and UNSUPPORTED, with the field's path."""
    unknown = unknown_field(options, ROOT)
    if unknown:
        _unsupported(unknown, "this server does not know this field")
    mode, _ = betterproto.which_one_of(options, "mode")
    output, _ = betterproto.which_one_of(options, "output_type")
    if not mode:
        _invalid(f"{ROOT}.archive", "is required (the recordings to export from)")
    if mode == "live":
        _unsupported(f"{ROOT}.live", "exporting from live cameras is not built yet")
    if not output:
        _invalid(f"{ROOT}.stream", "is required, or snapshot")
    common = _settings(options.settings, f"{ROOT}.settings")
    _only_defaults(
        common,
        {
            "comment": None,
            "timezone": None,
            "file_name": None,  # names files that are stored with an agent; those that are downloaded have an id
            "burn_subtitle": False,
            "apply_mask": False,
            "invert_mask": False,
            "highlight_areas": False,
        },
    )
    for name in ("cloud_export", "store_result_by_export_agent", "external_directory", "export_agent_access_point"):
        if getattr(options, name):
            _unsupported(f"{ROOT}.{name}", "results are kept on this server, for DownloadFile")
    _, comment = common.get("comment", ("", ""))
    if len(comment) > _MAX_COMMENT:
        _invalid(common["comment"][0], f"has {len(comment)} characters; at most {_MAX_COMMENT} are allowed")
    job: ClipJob | SnapshotJob
    if output == "stream":
        job = _clip(options.archive, options.stream, comment, options.max_file_size, config)
    else:
        job = _snapshot(options.archive, options.snapshot, comment, config)
    return ExportRequest(job=job, options=bytes(options), timezone_min=_timezone(common))


def _clip(archive: ArchiveMode, form: StreamType, comment: str, max_file_size: int, config: Config) -> ClipJob:
    settings = _settings(form.settings, f"{ROOT}.stream.settings")
    _only_defaults(
        settings,
        {
            "video_quality": EQuality.C_NORMAL,
            "video_codec": EVideoCodec.VC_DEFAULT,
            "audio_quality": EQuality.C_NORMAL,
            "audio_codec": EAudioCodec.AC_DEFAULT,
            "frame_frequency": EFrameFrequency.FF_ORIGINAL,
            "password": "",
            "reject_audio": None,
        },
    )
    container = _CONTAINERS.get(form.format)
    if container is None:
        _bad_enum(f"{ROOT}.stream.format", form.format, StreamTypeEFormat, "MKV and MP4 are")
    sources = _sources(archive, config)
    if len(sources) > 1 and not archive.discrete:
        _unsupported(f"{ROOT}.archive.sources[1]", "several sources in one file are not built yet; set discrete")
    start = _time(archive.start_timestamp, f"{ROOT}.archive.start_timestamp")
    end = _time(archive.end_timestamp, f"{ROOT}.archive.end_timestamp")
    if start == end:
        _invalid(f"{ROOT}.archive.end_timestamp", "is the same as start_timestamp; the range is empty")
    return ClipJob(
        folder="",
        sources=sources,
        start_us=min(start, end),
        end_us=max(start, end),
        container=container,
        reject_audio=settings.get("reject_audio", ("", False))[1],
        comment=comment,
        max_file_size=max_file_size,
    )


def _snapshot(archive: ArchiveMode, form: SnapshotType, comment: str, config: Config) -> SnapshotJob:
    _only_defaults(_settings(form.settings, f"{ROOT}.snapshot.settings"), {})
    if form.format not in (SnapshotTypeEFormat.DEFAULT, SnapshotTypeEFormat.JPEG):
        _bad_enum(f"{ROOT}.snapshot.format", form.format, SnapshotTypeEFormat, "JPEG is")
    sources = _sources(archive, config)
    at = _time(archive.start_timestamp, f"{ROOT}.archive.start_timestamp")
    if archive.end_timestamp:  # a snapshot has no use for it, but what is there must be a time
        _time(archive.end_timestamp, f"{ROOT}.archive.end_timestamp")
    return SnapshotJob(folder="", sources=sources, at_us=at, comment=comment)


def _sources(archive: ArchiveMode, config: Config) -> tuple[Source, ...]:
    if archive.timeline_mask:
        _unsupported(f"{ROOT}.archive.timeline_mask", "is not built yet")
    if not archive.sources:
        _invalid(f"{ROOT}.archive.sources", "is empty; at least one source is required")
    return tuple(
        _source(source, f"{ROOT}.archive.sources[{index}]", config) for index, source in enumerate(archive.sources)
    )


def _source(source: ArchiveModeSource, path: str, config: Config) -> Source:
    if not source.origin:
        _invalid(f"{path}.origin", "is required: the access point of a camera")
    camera = config.find_camera(source.origin)
    if camera is None:
        raise VxError(Kind.NOT_FOUND, f"there is no camera {source.origin!r}", field=f"{path}.origin")
    _only_defaults(_settings(source.settings, f"{path}.settings"), {})
    for name in ("timeline_mask", "tracks", "mask_filter"):
        if getattr(source, name):
            _unsupported(f"{path}.{name}", "is not built yet")
    archive = _archive(source.storages, camera, path)
    return Source(origin=camera.access_point, name=camera.display_name, pattern=archive.path, timezone=archive.timezone)


def _archive(storages: Sequence[str], camera: Camera, path: str) -> Archive:
    if len(storages) > 1:
        _unsupported(f"{path}.storages[1]", "one archive at a time is exported")
    archive = camera.find_archive(storages[0] if storages else "")
    if archive is not None:
        return archive
    if storages:
        text = f"there is no archive {storages[0]!r} of the camera {camera.access_point!r}"
        raise VxError(Kind.NOT_FOUND, text, field=f"{path}.storages[0]")
    raise VxError(Kind.NOT_FOUND, f"the camera {camera.access_point!r} has no archive", field=f"{path}.origin")


def _time(text: str, path: str) -> int:
    if not text:
        _invalid(path, "is required: YYYYMMDDTHHMMSS[.ffffff] in UTC, or ISO 8601")
    try:
        return parse_timestamp(text)
    except ValueError as error:
        _invalid(path, str(error))


def _timezone(common: Settings) -> int:
    if "timezone" not in common:
        return (time.localtime().tm_gmtoff or 0) // 60
    path, minutes = common["timezone"]
    if abs(minutes) > _MAX_OFFSET_MIN:
        _invalid(path, f"is {minutes}; an offset from UTC in minutes, -{_MAX_OFFSET_MIN} to {_MAX_OFFSET_MIN}")
    return int(minutes)


# ---- lists of settings


def _settings(entries: Sequence[betterproto.Message], path: str) -> Settings:
    """The settings of a list by name; of one that is given twice, the last counts."""
    found: Settings = {}
    for index, entry in enumerate(entries):
        name, value = betterproto.which_one_of(entry, "setting")
        if not name:
            _invalid(f"{path}[{index}]", "holds no setting")
        found[name] = (f"{path}[{index}].{name}", value)
    return found


def _only_defaults(settings: Settings, honoured: Mapping[str, Any]) -> None:
    """Refuse what is not in `honoured`, or has there another value than the one that is honoured (None: any)."""
    for name, (path, value) in settings.items():
        if name not in honoured:
            _unsupported(path, "is not built yet")
        only = honoured[name]
        if only is not None and value != only:
            if isinstance(value, betterproto.Enum):
                _bad_enum(path, value, type(only), f"{only.name} is")
            _unsupported(path, "is not built yet")


def _bad_enum(path: str, value: int, known: Callable[[int], Any], allowed: str) -> NoReturn:
    try:
        name = known(value).name
    except ValueError:
        _invalid(path, f"{int(value)} is not a value of {getattr(known, '__name__', known)}")
    _unsupported(path, f"{name} is not built yet; {allowed}")


_CONTAINERS: dict[int, Container] = {
    StreamTypeEFormat.DEFAULT: "mp4",
    StreamTypeEFormat.MP4: "mp4",
    StreamTypeEFormat.MKV: "mkv",
}


def _invalid(path: str, text: str) -> NoReturn:
    raise VxError(Kind.INVALID, text, field=path)


def _unsupported(path: str, text: str) -> NoReturn:
    raise VxError(Kind.UNSUPPORTED, text, field=path)
