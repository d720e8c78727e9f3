"""A client's Options → a checked request, or an error that names the field.

Every option of the contract is either honoured, harmless because it asks for what happens anyway, or refused: nothing
is ignored in silence. Pure, but for the look at the clock's offset where the client gave none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import betterproto
import msgspec

from vx import spans
from vx.config.rules import safe_file_name
from vx.config.schema import Agent, Archive, Camera, Config
from vx.drawing import Words
from vx.errors import Kind, VxError
from vx.jobs import ClipJob, Container, Index, Live, SnapshotJob, Source
from vx.model import THE_SERVER, Caller, Delivery, ExportRequest
from vx.rpc import coding, drawing, live
from vx.rpc.codec import unknown_field
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    ArchiveMode,
    ArchiveModeSource,
    LiveMode,
    LiveModeSource,
    Options,
    SnapshotType,
    SnapshotTypeEFormat,
    StreamSetting,
    StreamType,
    StreamTypeEFormat,
)
from vx.rpc.generated.axxonsoft.bl.primitive import TimeRange
from vx.rpc.refusing import Settings, bad_enum, invalid, unsupported
from vx.spans import Span
from vx.timestamps import now_us, parse_timestamp

ROOT = "session_options"
_MAX_COMMENT = 10_000
_LONGEST_PASSWORD = 1000
_SMALLEST_FILE = 16 << 10
_MAX_OFFSET_MIN = 14 * 60
"""The largest offset from UTC that any place on Earth has had for a century."""

Mode = ArchiveMode | LiveMode


def parse_options(options: Options, config: Config, caller: Caller = THE_SERVER) -> ExportRequest:
    """What `options` ask for. VxError of the kinds INVALID, NOT_FOUND and UNSUPPORTED, with the field's path.

    What the caller may do has been checked; here the rights say whether the configuration's masks apply.
    """
    unknown = unknown_field(options, ROOT)
    if unknown:
        unsupported(unknown, "this server does not know this field")
    mode, _ = betterproto.which_one_of(options, "mode")
    output, _ = betterproto.which_one_of(options, "output_type")
    if not mode:
        invalid(f"{ROOT}.archive", "is required (the recordings to export from), or live")
    if not output:
        invalid(f"{ROOT}.stream", "is required, or snapshot")
    cameras: Mode = options.live if mode == "live" else options.archive
    common = _settings(options.settings, f"{ROOT}.settings")
    if options.cloud_export:
        unsupported(f"{ROOT}.cloud_export", "this server has no cloud to export to")
    job: ClipJob | SnapshotJob
    if output == "stream":
        job = _clip(cameras, options.stream, common, options.max_file_size, config, caller)
    else:
        job = _snapshot(cameras, options.snapshot, common, config, caller)
    agent = _agent(options, cameras, config)
    delivery, field = _delivery(options, common, agent, config)
    if isinstance(job, ClipJob) and job.live is None:
        copied = _why_copied(job, config, delivery)
        index = None if copied else _index(config)
        job = msgspec.structs.replace(job, virtual=not copied, copied=copied, index=index)
    return ExportRequest(
        job=job,
        options=bytes(_without_password(options)),
        timezone_min=job.words.offset_min,
        agent=agent.access_point,
        delivery=delivery,
        delivery_field=field,
    )


def _why_copied(job: ClipJob, config: Config, delivery: Delivery | None) -> str:
    """Why a clip is not to be served from its recordings, whatever they are; empty where it may be."""
    if config.media.virtual == "never":
        return 'by [media] virtual = "never"'
    if job.container != "mp4":
        return f"only MP4 can be served from the recordings, not {job.container.upper()}"
    if delivery is not None:
        return "what is stored for good is a file of its own"
    if any(job.may_join(source) for source in job.sources):
        return "ranges of a mask that begin with key frames may have to be joined"
    return ""


def _index(config: Config) -> Index | None:
    size = config.media.index_cache_mb << 20
    return Index(folder=str(config.index_dir), size=size) if size else None


def _without_password(options: Options) -> Options:
    """What ListSessions may show."""
    output, _ = betterproto.which_one_of(options, "output_type")
    if output != "stream" or not _passwords(options.stream):
        return options
    shown = Options().parse(bytes(options))
    for setting in _passwords(shown.stream):
        setting.password = ""
    return shown


def _passwords(form: StreamType) -> list[StreamSetting]:
    return [each for each in form.settings if betterproto.which_one_of(each, "setting")[0] == "password"]


def _agent(options: Options, mode: Mode, config: Config) -> Agent:
    """The export agent that the client names, else that of the first source's node with the lowest number."""
    asked = options.export_agent_access_point
    if asked:
        agent = config.find_agent(asked)
        if agent is None:
            field = f"{ROOT}.export_agent_access_point"
            raise VxError(Kind.NOT_FOUND, f"there is no export agent {asked!r}", field=field)
        return agent
    camera = config.find_camera(mode.sources[0].origin)
    assert camera is not None, "the sources have been checked"
    return config.default_agent(camera)


def _delivery(options: Options, common: Settings, agent: Agent, config: Config) -> tuple[Delivery | None, str]:
    """Where the results go for good, and the field that says so; nowhere where they are to be downloaded."""
    if not (options.store_result_by_export_agent or options.external_directory):
        return None, ""
    name = agent.file_name_pattern
    path, asked = common.get("file_name", ("", ""))
    if asked:
        try:
            name = safe_file_name(asked)
        except ValueError as error:
            invalid(path, f"{asked!r} is not allowed ({error}); allowed is a file's name, not a path")
    if options.external_directory:
        field = f"{ROOT}.external_directory"
        root, directory = _external(options.external_directory, field, config)
    else:
        field = f"{ROOT}.store_result_by_export_agent"
        if agent.directory is None:
            text = f"the agent {agent.access_point} has no directory to store results in"
            raise VxError(Kind.PRECONDITION, text, field=field)
        root = directory = str(agent.directory)
    return Delivery(root, directory, name), field


def _external(directory: str, field: str, config: Config) -> tuple[str, str]:
    """(the allowed root, the directory below it). What symbolic links make of it is looked at when it is opened."""
    if not directory.startswith("/") or "\0" in directory or ".." in directory.split("/"):
        invalid(field, f"{directory!r} is not allowed; allowed is an absolute path without ..")
    roots = config.results.external_roots
    path = Path(directory)
    root = next((root for root in roots if path == root or root in path.parents), None)
    if root is None:
        allowed = " or ".join(str(root) for root in roots)
        invalid(
            field, f"{directory!r} is not allowed; allowed is " + (f"a directory in {allowed}" if roots else "none")
        )
    return str(root), str(path)


def _clip(
    mode: Mode, form: StreamType, common: Settings, max_file_size: int, config: Config, caller: Caller
) -> ClipJob:
    settings = _settings(form.settings, f"{ROOT}.stream.settings")
    container = _CONTAINERS.get(form.format)
    if container is None:
        if form.format == StreamTypeEFormat.EXE:
            unsupported(f"{ROOT}.stream.format", "EXE: this server makes no programs; MP4 plays everywhere, also MKV")
        bad_enum(f"{ROOT}.stream.format", form.format, StreamTypeEFormat)
    if 0 < max_file_size < _SMALLEST_FILE:
        invalid(f"{ROOT}.max_file_size", f"is {max_file_size}; not even a picture fits into less than {_SMALLEST_FILE}")
    burn, subtitles = drawing.parse_methods(common, "" if container != "avi" else "AVI has no subtitles")
    sources = _sources(mode, common, config, caller, burn=burn)
    if isinstance(mode, LiveMode):
        start = end = now_us()
    else:
        start, end = _range(mode)
        sources = _masked(sources, mode, start, end)
    words = _words(common, start, caller)
    return ClipJob(
        folder="",
        sources=sources,
        start_us=start,
        end_us=end,
        live=live.how(mode.duration, f"{ROOT}.live.duration", config) if isinstance(mode, LiveMode) else None,
        discrete=mode.discrete,
        cut="keyframe" if isinstance(mode, LiveMode) else config.media.cut,
        gaps=config.media.gaps,
        gap_us=round(config.media.gap_s * 1_000_000),
        container=container,
        coding=coding.parse_coding(settings, container, config.media.threads),
        reject_audio=settings.get("reject_audio", ("", False))[1],
        max_file_size=max_file_size,
        words=words,
        subtitles=subtitles,
        password=_password(settings),
    )


def _range(archive: ArchiveMode) -> tuple[int, int]:
    start = _time(archive.start_timestamp, f"{ROOT}.archive.start_timestamp")
    end = _time(archive.end_timestamp, f"{ROOT}.archive.end_timestamp")
    if start == end:
        invalid(f"{ROOT}.archive.end_timestamp", "is the same as start_timestamp; the range is empty")
    return min(start, end), max(start, end)


def _password(settings: Settings) -> str:
    path, password = settings.get("password", ("", ""))
    if len(password) > _LONGEST_PASSWORD:
        invalid(path, f"has {len(password)} characters; at most {_LONGEST_PASSWORD} are allowed")
    return str(password)


def _snapshot(mode: Mode, form: SnapshotType, common: Settings, config: Config, caller: Caller) -> SnapshotJob:
    if form.format not in tuple(SnapshotTypeEFormat):
        bad_enum(f"{ROOT}.snapshot.format", form.format, SnapshotTypeEFormat)
    is_pdf = form.format == SnapshotTypeEFormat.PDF
    settings = _settings(form.settings, f"{ROOT}.snapshot.settings")
    burn, _ = drawing.parse_methods(common, f"a {'PDF' if is_pdf else 'JPEG'} has no subtitles")
    sources = _sources(mode, common, config, caller, burn=burn)
    at = now_us() if isinstance(mode, LiveMode) else _moment(mode)
    external = drawing.parse_external(settings, at, len(sources))
    return SnapshotJob(
        folder="",
        sources=sources,
        at_us=at,
        words=_words(common, at, caller),
        page=drawing.parse_page(settings, is_pdf=is_pdf),
        discrete=mode.discrete,
        external=external,
        live=_next_frame(mode, config) if isinstance(mode, LiveMode) and external is None else None,
    )


def _next_frame(mode: LiveMode, config: Config) -> Live:
    if mode.duration:
        invalid(f"{ROOT}.live.duration", "is for streams; a snapshot is the next frame")
    return live.how(mode.duration, f"{ROOT}.live.duration", config)


def _moment(archive: ArchiveMode) -> int:
    for path, ranges in _masks(archive):
        if ranges:
            unsupported(path, "is for clips; a snapshot has one moment")
    at = _time(archive.start_timestamp, f"{ROOT}.archive.start_timestamp")
    if archive.end_timestamp:  # a snapshot has no use for it, but what is there must be a time
        _time(archive.end_timestamp, f"{ROOT}.archive.end_timestamp")
    return at


def _words(common: Settings, at_us: int, caller: Caller) -> Words:
    """What text says; local time is that of the server, as it was at `at_us`, where the client names no offset."""
    path, comment = common.get("comment", ("", ""))
    if len(comment) > _MAX_COMMENT:
        invalid(path, f"has {len(comment)} characters; at most {_MAX_COMMENT} are allowed")
    return drawing.parse_words(common, _timezone(common, at_us), comment, caller.name)


def _sources(mode: Mode, common: Settings, config: Config, caller: Caller, *, burn: bool) -> tuple[Source, ...]:
    field = f"{ROOT}.{'live' if isinstance(mode, LiveMode) else 'archive'}.sources"
    sources: Sequence[ArchiveModeSource | LiveModeSource] = mode.sources
    if not sources:
        invalid(field, "is empty; at least one source is required")
    found = []
    for index, source in enumerate(sources):
        path = f"{field}[{index}]"
        camera = _camera(source.origin, path, config)
        own = _settings(source.settings, f"{path}.settings")
        masks = () if caller.rights.may_see_unmasked(camera.access_point) else camera.mask
        drawn = drawing.parse_drawing(common, own, masks, config.media.mask, burn=burn)
        found.append(msgspec.structs.replace(_source(source, camera, path), drawing=drawn))
    return tuple(found)


def _camera(origin: str, path: str, config: Config) -> Camera:
    if not origin:
        invalid(f"{path}.origin", "is required: the access point of a camera")
    camera = config.find_camera(origin)
    if camera is None:
        raise VxError(Kind.NOT_FOUND, f"there is no camera {origin!r}", field=f"{path}.origin")
    return camera


def _source(source: ArchiveModeSource | LiveModeSource, camera: Camera, path: str) -> Source:
    video, audio = _tracks(source.tracks, f"{path}.tracks")
    found = Source(
        origin=camera.access_point,
        name=camera.display_name,
        pattern="",
        timezone="UTC",
        id=camera.display_id,
        location=camera.location,
        video=video,
        audio=audio,
    )
    if isinstance(source, LiveModeSource):
        return msgspec.structs.replace(found, feed=live.feed_of(camera, f"{path}.origin"))
    if source.mask_filter:
        unsupported(f"{path}.mask_filter", "this server has no detectors whose tracks it could mask")
    archive = _archive(source.storages, camera, path)
    return msgspec.structs.replace(found, pattern=archive.path, timezone=archive.timezone)


def _tracks(names: Sequence[str], path: str) -> tuple[int, int | None]:
    """Which of the recordings' tracks of picture and of sound are exported: the numbers in video:0, audio:1."""
    if not names:
        return 0, 0
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        kind, colon, number = name.partition(":")
        if kind not in ("video", "audio") or (
            colon and not (number.isascii() and number.isdigit() and len(number) < 4)
        ):
            invalid(f"{path}[{index}]", f"{name!r} is not a track; allowed are video, audio, and video:N, audio:N")
        if kind in found:
            unsupported(f"{path}[{index}]", f"{name!r}: one track of a kind is exported")
        found[kind] = int(number or 0)
    if "video" not in found:
        unsupported(path, "sound without a picture is not exported; add video")
    return found["video"], found.get("audio")


def _masks(archive: ArchiveMode) -> list[tuple[str, Sequence[TimeRange]]]:
    """All masks of the timeline with their fields: the common one, then one for each source."""
    field = f"{ROOT}.archive"
    own = [(f"{field}.sources[{i}].timeline_mask", source.timeline_mask) for i, source in enumerate(archive.sources)]
    return [(f"{field}.timeline_mask", archive.timeline_mask), *own]


def _masked(sources: Sequence[Source], archive: ArchiveMode, start_us: int, end_us: int) -> tuple[Source, ...]:
    """The sources, each with the ranges that its mask and the common one leave of the clip's range."""
    common, *own = [(path, _ranges(ranges, path)) for path, ranges in _masks(archive)]
    masked = []
    for source, (path, mask) in zip(sources, own, strict=True):
        left = [(start_us, end_us)]
        for field, ranges in (common, (path, mask)):
            if ranges:
                left = spans.overlap(left, ranges)
                if not left:
                    invalid(field, "leaves nothing of start_timestamp to end_timestamp")
        masked.append(msgspec.structs.replace(source, ranges_us=tuple(left)))
    return tuple(masked)


def _ranges(ranges: Sequence[TimeRange], path: str) -> list[Span]:
    """The ranges in their order, joined where they touch. Reversed ends are swapped."""
    found = []
    for index, item in enumerate(ranges):
        ends = (
            _time(item.begin_time, f"{path}[{index}].begin_time"),
            _time(item.end_time, f"{path}[{index}].end_time"),
        )
        if ends[0] == ends[1]:
            invalid(f"{path}[{index}].end_time", "is the same as begin_time; the range is empty")
        found.append((min(ends), max(ends)))
    return spans.merge(found)


def _archive(storages: Sequence[str], camera: Camera, path: str) -> Archive:
    if len(storages) > 1:
        unsupported(f"{path}.storages[1]", "one archive at a time is exported")
    archive = camera.find_archive(storages[0] if storages else "")
    if archive is not None:
        return archive
    if storages:
        text = f"there is no archive {storages[0]!r} of the camera {camera.access_point!r}"
        raise VxError(Kind.NOT_FOUND, text, field=f"{path}.storages[0]")
    raise VxError(Kind.NOT_FOUND, f"the camera {camera.access_point!r} has no archive", field=f"{path}.origin")


def _time(text: str, path: str) -> int:
    if not text:
        invalid(path, "is required: YYYYMMDDTHHMMSS[.ffffff] in UTC, or ISO 8601")
    try:
        return parse_timestamp(text)
    except ValueError as error:
        invalid(path, str(error))


def _timezone(common: Settings, at_us: int) -> int:
    if "timezone" not in common:
        return _server_offset_min(at_us)
    path, minutes = common["timezone"]
    if abs(minutes) > _MAX_OFFSET_MIN:
        invalid(path, f"is {minutes}; an offset from UTC in minutes, -{_MAX_OFFSET_MIN} to {_MAX_OFFSET_MIN}")
    return int(minutes)


def _server_offset_min(at_us: int) -> int:
    try:
        return (time.localtime(at_us // 1_000_000).tm_gmtoff or 0) // 60
    except (OverflowError, OSError):
        return 0


# ---- lists of settings


def _settings(entries: Sequence[betterproto.Message], path: str) -> Settings:
    """The settings of a list by name; of one that is given twice, the last counts."""
    found: dict[str, tuple[str, Any]] = {}
    for index, entry in enumerate(entries):
        name, value = betterproto.which_one_of(entry, "setting")
        if not name:
            invalid(f"{path}[{index}]", "holds no setting")
        found[name] = (f"{path}[{index}].{name}", value)
    return found


_CONTAINERS: dict[int, Container] = {
    StreamTypeEFormat.DEFAULT: "mp4",
    StreamTypeEFormat.MP4: "mp4",
    StreamTypeEFormat.MKV: "mkv",
    StreamTypeEFormat.AVI: "avi",
}
