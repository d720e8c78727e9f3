"""What there is to export: cameras, archives, and when which camera was recorded."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, TypeVar

from vx import spans, timestamps
from vx.archive.history import History, recorded
from vx.archive.segments import Recordings
from vx.config.addresses import access_point_key, node_of
from vx.config.schema import Archive, Camera, Config
from vx.errors import Kind, VxError
from vx.rights import Rights
from vx.rpc.calls import StreamsResponses, current_call
from vx.rpc.codec import Encoded, bytes_field, text_field
from vx.rpc.generated.axxonsoft.bl import archive as archive_messages
from vx.rpc.generated.axxonsoft.bl import domain
from vx.rpc.paging import page_size, page_token, parse_token
from vx.rpc.refusing import bad_enum
from vx.threads import archive_threads
from vx.timestamps import MS_1900_TO_1970

_Item = TypeVar("_Item")

_LATEST_MS = 1 << 48
"""A time that lies behind it is a mistake (the year 10819)."""


class DomainService(StreamsResponses, domain.DomainServiceBase):
    """`axxonsoft.bl.domain.DomainService`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._cameras = {camera.access_point: camera for camera in config.camera}
        self._archives: dict[str, list[Camera]] = {}
        """The cameras in each archive, by its access point."""
        for camera in config.camera:
            for archive in camera.archive:
                self._archives.setdefault(archive.storage, []).append(camera)

    async def get_version(self, get_version_request: domain.GetVersionRequest) -> domain.GetVersionResponse:
        return domain.GetVersionResponse(version=metadata.version("vx"))

    async def list_cameras(self, list_cameras_request: domain.ListCamerasRequest) -> AsyncIterator[Any]:
        request = list_cameras_request
        if request.group_ids:
            raise VxError(Kind.UNSUPPORTED, "this server has no groups of cameras", field="group_ids")
        rights = current_call().caller.rights
        nodes = {node.removeprefix("hosts/") for node in request.nodes}
        found = {
            number: camera
            for number, camera in enumerate(self._cameras.values(), 1)
            if rights.may_see(camera.access_point)
            and (not nodes or node_of(camera.access_point) in nodes)
            and _matches(request.filter, camera.access_point, camera.display_name, camera.display_id)
        }
        full = _is_full(request.view)
        for page in _pages(found, request.page_token, request.page_size, lambda each: bytes(_camera(each, full=full))):
            yield page

    async def list_archives(self, list_archives_request: domain.ListArchivesRequest) -> AsyncIterator[Any]:
        request = list_archives_request
        rights = current_call().caller.rights
        full = _is_full(request.view)
        found = {}
        for number, (storage, cameras) in enumerate(self._archives.items(), 1):
            seen = [camera for camera in cameras if rights.may_see(camera.access_point)]
            if seen and _matches(request.filter, storage, _storage_name(storage)):
                found[number] = (storage, seen)
        for page in _pages(
            found, request.page_token, request.page_size, lambda each: bytes(_full_archive(*each, full=full))
        ):
            yield page


class ArchiveService(StreamsResponses, archive_messages.ArchiveServiceBase):
    """`axxonsoft.bl.archive.ArchiveService`."""

    def __init__(self, config: Config, *, now_us: Callable[[], int] = timestamps.now_us) -> None:
        self._sources = {
            access_point_key(source_access_point(camera, archive)): (camera, archive)
            for camera in config.camera
            for archive in camera.archive
        }
        self._now_us = now_us

    async def get_history2(
        self, get_history2_request: archive_messages.GetHistory2Request
    ) -> archive_messages.GetHistory2Response:
        request = get_history2_request
        rights = current_call().caller.rights
        camera, archive = self._find(request.access_point, rights)
        begin_us, end_us = _range_us(request.begin_time, request.end_time)
        modes = archive_messages.GetHistory2RequestEScanMode
        if request.scan_mode not in (modes.SM_EXACT, modes.SM_APPROXIMATE):
            bad_enum("scan_mode", request.scan_mode, modes)
        earliest_us = rights.earliest_us(camera.access_point, self._now_us())
        first_us = begin_us if earliest_us is None else max(begin_us, earliest_us)

        def search() -> History:
            recordings = Recordings.of(archive.path, archive.timezone)
            return recorded(recordings, first_us, end_us, exact=request.scan_mode == modes.SM_EXACT)

        history = History(())
        if first_us < end_us:
            history = await archive_threads.run(archive.path, search)
        intervals = spans.merge(history.intervals, request.min_gap_ms * 1000)
        few = intervals[: request.max_count or None]
        is_whole = len(few) == len(intervals) and not history.notes and first_us == begin_us
        results = archive_messages.GetHistory2ResponseEResult
        return archive_messages.GetHistory2Response(
            result=results.FULL if is_whole else results.PARTIAL,
            intervals=[
                archive_messages.GetHistory2ResponseInterval(
                    # Outward: what is exported by these times has the first and the last frame.
                    begin_time=begin // 1000 + MS_1900_TO_1970,
                    end_time=-(-end // 1000) + MS_1900_TO_1970,
                )
                for begin, end in few
            ],
        )

    def _find(self, access_point: str, rights: Rights) -> tuple[Camera, Archive]:
        found = self._sources.get(access_point_key(access_point))
        if found is None or not rights.may_see(found[0].access_point):
            text = f"there is no storage source {access_point!r}; ListCameras tells those of each camera"
            raise VxError(Kind.NOT_FOUND, text, field="access_point")
        return found


def source_access_point(camera: Camera, archive: Archive) -> str:
    """By which GetHistory2 knows one camera's recordings in an archive: the same in every run."""
    storage = archive.storage.rpartition("/")[0]
    digest = hashlib.sha256(access_point_key(camera.access_point).encode()).hexdigest()
    return f"{storage}/Sources/src.{digest[:32]}"


def _range_us(begin_ms: int, end_ms: int) -> tuple[int, int]:
    for field, value in (("begin_time", begin_ms), ("end_time", end_ms)):
        if not 0 <= value <= _LATEST_MS:
            text = f"{value} is not a time; allowed are milliseconds since 1900-01-01 UTC, 0 to {_LATEST_MS}"
            raise VxError(Kind.INVALID, text, field=field)
    if begin_ms == end_ms:
        raise VxError(Kind.INVALID, "is the same as begin_time; the range is empty", field="end_time")
    begin_ms, end_ms = sorted((begin_ms, end_ms))
    return (begin_ms - MS_1900_TO_1970) * 1000, (end_ms - MS_1900_TO_1970) * 1000


def _pages(found: Mapping[int, _Item], token: str, size: int, encode: Callable[[_Item], bytes]) -> Iterable[Encoded]:
    """Messages with `items` and `next_page_token`, each with a page of what was found; none where nothing was."""
    after, size = parse_token(token), page_size(size)
    numbers = [number for number in found if number > after]
    for start in range(0, len(numbers), size):
        page = numbers[start : start + size]
        following = page_token(page[-1]) if start + size < len(numbers) else ""
        yield Encoded(b"".join(bytes_field(1, encode(found[number])) for number in page) + text_field(2, following))


def _is_full(view: int) -> bool:
    if view not in (domain.EViewMode.VIEW_MODE_NO_CHILD_OBJECTS, domain.EViewMode.VIEW_MODE_FULL):
        bad_enum("view", view, domain.EViewMode)
    return view == domain.EViewMode.VIEW_MODE_FULL


def _matches(wanted: str, *texts: str) -> bool:
    return any(wanted.casefold() in text.casefold() for text in texts)


def _camera(camera: Camera, *, full: bool) -> domain.Camera:
    message = domain.Camera(
        access_point=camera.access_point,
        display_name=camera.display_name,
        display_id=camera.display_id,
        is_activated=True,
        enabled=True,
        has_archive_bindings=bool(camera.archive),
    )
    if full:
        message.video_streams = [
            domain.VideoStreaming(
                stream_acess_point=camera.access_point,
                enabled=True,
                display_name=camera.display_name,
                display_id=camera.display_id,
                is_activated=True,
            )
        ]
        message.archive_bindings = [_binding(camera, archive) for archive in camera.archive]
        for binding, archive in zip(message.archive_bindings, camera.archive, strict=True):
            binding.archive = _archive(archive.storage)
    return message


def _full_archive(storage: str, cameras: list[Camera], *, full: bool) -> domain.Archive:
    message = _archive(storage)
    if full:
        for camera in cameras:
            archive = camera.find_archive(storage)
            assert archive is not None, "the archive was found by its cameras"
            binding = _binding(camera, archive)
            binding.camera = _camera(camera, full=False)
            message.bindings.append(binding)
    return message


def _archive(storage: str) -> domain.Archive:
    name = _storage_name(storage)
    return domain.Archive(
        access_point=storage,
        display_name=name,
        display_id=name,
        is_activated=True,
        enabled=True,
        storage_type=domain.EStorageType.ST_BLOCK,
    )


def _binding(camera: Camera, archive: Archive) -> domain.ArchiveBinding:
    return domain.ArchiveBinding(
        name=_storage_name(archive.storage),
        storage=archive.storage,
        is_default=archive is camera.archive[0],
        is_permanent=True,
        has_live_sources=True,
        sources=[
            domain.StorageSource(
                access_point=source_access_point(camera, archive),
                storage=archive.storage,
                media_source=camera.access_point,
                origin=camera.access_point,
                mimetype="video",
            )
        ],
    )


def _storage_name(storage: str) -> str:
    """`AliceBlue` of `hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage`."""
    return access_point_key(storage).split("/")[1].partition(".")[2]
