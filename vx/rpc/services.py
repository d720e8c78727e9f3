"""The contract's services, translated to the registry and the download code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from vx import model
from vx.config.schema import Config
from vx.download import begun, chunks
from vx.errors import Kind, VxError
from vx.leased import open_result
from vx.rpc.calls import Readers, StreamsResponses, current_call
from vx.rpc.codec import Bulk, Encoded, bytes_field, encode_varint, message_prefix, number_field, text_field
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    DestroySessionRequest,
    DestroySessionResponse,
    DownloadFileRequest,
    EState,
    ExportServiceBase,
    GetSessionStateRequest,
    ListSessionsRequest,
    Options,
    StartSessionRequest,
    StartSessionResponse,
    StopSessionRequest,
)
from vx.rpc.options import parse_options
from vx.rpc.paging import page_size, page_token, parse_token
from vx.rpc.permits import check_permitted
from vx.session.registry import Registry
from vx.timestamps import format_timestamp, now_us

DEFAULT_CHUNK_KB = 64
MAX_CHUNK_KB = 4095
"""Keeps a chunk with its framing under the 4 MB that gRPC clients take by default."""
_MAX_PAGE_SIZE = 3 << 20
"""Bytes of sessions in a message: below the 4 MB that gRPC clients take by default, even with options of a megabyte."""

_DATA_TAG = b"\x12"


class ExportService(StreamsResponses, ExportServiceBase):
    """`axxonsoft.bl.mmexport.ExportService`."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config
        self.sent_bytes = 0
        """Of result files, with their framing."""

    @property
    def readers(self) -> Readers:
        """What the server has to make of requests before the methods get them: StartSession's can be large."""
        return {StartSessionRequest: lambda request: read_options(request.session_options, self._config)}

    async def start_session(self, start_session_request: Any) -> StartSessionResponse:
        """`start_session_request` is the ExportRequest that its reader has made."""
        record = await self._registry.start(start_session_request, current_call().caller)
        return StartSessionResponse(started_session_id=record.id)

    async def get_session_state(self, get_session_state_request: GetSessionStateRequest) -> Any:
        record = self._registry.get(get_session_state_request.session_id, current_call().caller)
        return Encoded(bytes_field(1, _encode_state(record)))

    async def stop_session(self, stop_session_request: StopSessionRequest) -> Any:
        record = await self._registry.stop(stop_session_request.session_id, current_call().caller)
        return Encoded(bytes_field(1, _encode_state(record)))

    async def destroy_session(self, destroy_session_request: DestroySessionRequest) -> DestroySessionResponse:
        await self._registry.destroy(destroy_session_request.session_id, current_call().caller)
        return DestroySessionResponse()

    async def list_sessions(self, list_sessions_request: ListSessionsRequest) -> AsyncIterator[Any]:
        caller = current_call().caller
        size = page_size(list_sessions_request.page_size)
        after = parse_token(list_sessions_request.page_token)
        records = self._registry.page(after, size, caller)
        while records:
            infos = _encode_infos(records)
            after = records[len(infos) - 1].number
            following = self._registry.page(after, 1, caller)
            yield _encode_page(infos, page_token(after) if following else "")
            records = self._registry.page(after, size, caller)  # again: some may have ended while the page was sent

    async def download_file(self, download_file_request: DownloadFileRequest) -> AsyncIterator[Any]:
        chunk_kb = download_file_request.chunk_size_kb or DEFAULT_CHUNK_KB
        if chunk_kb > MAX_CHUNK_KB:
            raise VxError(Kind.INVALID, f"is {chunk_kb}; at most {MAX_CHUNK_KB} is allowed", field="chunk_size_kb")
        call = current_call()
        destroyed = VxError(Kind.ABORTED, "the session was destroyed during the download")
        with (
            begun(),
            self._registry.lease(
                download_file_request.session_id,
                download_file_request.file_path,
                call.caller,
                on_lost=lambda: call.abort(destroyed),
            ) as lease,
            open_result(lease.path, lease.size, lease.held) as source,
        ):
            first = download_file_request.start_from_chunk_index
            detail = f"{download_file_request.file_path} from byte {first * chunk_kb * 1024}"
            await self._registry.note_download(download_file_request.session_id, detail, call.caller)
            async with aclosing(chunks(source, chunk_kb * 1024, first, _chunk_header, call.wait_sendable)) as pieces:
                async for views in pieces:
                    yield Bulk(views)
                    self.sent_bytes += sum(len(view) for view in views)


def read_options(options: Options, config: Config) -> model.ExportRequest:
    """What the call that this task answers asks for. VxError where it is not allowed, or not understood."""
    caller = current_call().caller
    check_permitted(options, caller.rights, now_us())
    return parse_options(options, config, caller)


def _chunk_header(index: int, length: int) -> bytes:
    """A gRPC message's prefix and a FileChunk up to the bytes of its data."""
    head = number_field(1, index) + _DATA_TAG + encode_varint(length)
    return message_prefix(len(head) + length) + head


# ---- What clients ask for most, encoded here: betterproto takes 100 times as long, and a page has up to 1,000 of it.


def _encode_state(record: model.Record) -> bytes:
    """A `State`."""
    frame = "" if record.last_frame_us is None else format_timestamp(record.last_frame_us)
    state = number_field(1, _STATES[record.state]) + text_field(2, frame)
    if not record.state.is_running:
        files = b"".join(bytes_field(1, _encode_file(file, record.timezone_min)) for file in record.files)
        state += bytes_field(3, files + number_field(2, record.succeeded))
    return state


def _encode_file(file: model.ResultFile, timezone_min: int) -> bytes:
    """A `Result.File`."""
    return (
        text_field(1, file.name)
        + number_field(2, file.size)
        + text_field(3, format_timestamp(file.first_us))
        + text_field(4, format_timestamp(file.last_us))
        + text_field(5, file.mime_type)
        + number_field(8, timezone_min)
    )


def _encode_infos(records: list[model.Record]) -> list[bytes]:
    """The sessions of a `ListSessionsResponse`: the first of `records`, as many as a message may hold, at least one.

    A session's options are kept as they came: they never change and can be large.
    """
    infos: list[bytes] = []
    size = 0
    for record in records:
        session = text_field(1, record.id) + bytes_field(2, record.options)
        info = bytes_field(1, bytes_field(1, session) + bytes_field(2, _encode_state(record)))
        size += len(info)
        if infos and size > _MAX_PAGE_SIZE:
            break
        infos.append(info)
    return infos


def _encode_page(infos: list[bytes], next_token: str) -> Encoded:
    """A `ListSessionsResponse`."""
    return Encoded(b"".join(infos) + text_field(2, next_token))


_STATES = {
    model.State.QUEUED: EState.S_RUNNING,
    model.State.RUNNING: EState.S_RUNNING,
    model.State.STOPPING: EState.S_RUNNING,
    model.State.COMPLETED: EState.S_COMPLETED,
    model.State.REMOVED: EState.S_REMOVED,
    model.State.FORGOTTEN: EState.S_REMOVED,
}
