"""The contract's services, translated to the registry and the download code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from vx import model
from vx.config import Config
from vx.download import chunks, open_file
from vx.errors import Kind, VxError
from vx.rpc.calls import StreamsResponses, current_call
from vx.rpc.codec import Bulk, Encoded, encode_varint, message_prefix
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    DestroySessionRequest,
    DestroySessionResponse,
    DownloadFileRequest,
    EState,
    ExportServiceBase,
    GetSessionStateRequest,
    GetSessionStateResponse,
    ListSessionsRequest,
    Result,
    ResultFile,
    Session,
    StartSessionRequest,
    StartSessionResponse,
    State,
    StopSessionRequest,
    StopSessionResponse,
)
from vx.rpc.options import parse_options
from vx.session.registry import Registry
from vx.timestamps import format_timestamp

DEFAULT_CHUNK_KB = 64
MAX_CHUNK_KB = 4095
"""Keeps a chunk with its framing under the 4 MB that gRPC clients take by default."""
DEFAULT_PAGE = 100
MAX_PAGE = 1000

_INDEX_TAG, _DATA_TAG = b"\x08", b"\x12"
_SESSIONS_TAG, _NEXT_PAGE_TAG, _SESSION_TAG, _STATE_TAG = b"\x0a", b"\x12", b"\x0a", b"\x12"


class ExportService(StreamsResponses, ExportServiceBase):
    """`axxonsoft.bl.mmexport.ExportService`."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config

    async def start_session(self, start_session_request: StartSessionRequest) -> StartSessionResponse:
        request = parse_options(start_session_request.session_options, self._config)
        record = await self._registry.start(request)
        return StartSessionResponse(started_session_id=record.id)

    async def get_session_state(self, get_session_state_request: GetSessionStateRequest) -> GetSessionStateResponse:
        record = self._registry.get(get_session_state_request.session_id)
        return GetSessionStateResponse(session_state=_state(record))

    async def stop_session(self, stop_session_request: StopSessionRequest) -> StopSessionResponse:
        record = await self._registry.stop(stop_session_request.session_id)
        return StopSessionResponse(session_state=_state(record))

    async def destroy_session(self, destroy_session_request: DestroySessionRequest) -> DestroySessionResponse:
        await self._registry.destroy(destroy_session_request.session_id)
        return DestroySessionResponse()

    async def list_sessions(self, list_sessions_request: ListSessionsRequest) -> AsyncIterator[Any]:
        size = _page_size(list_sessions_request.page_size)
        after = _parse_token(list_sessions_request.page_token)
        records = self._registry.page(after, size)
        while records:
            after = records[-1].number
            following = self._registry.page(after, size)
            yield _encode_page(records, _page_token(after) if following else "")
            records = self._registry.page(after, size)  # again: sessions may have ended while the page was sent

    async def download_file(self, download_file_request: DownloadFileRequest) -> AsyncIterator[Any]:
        chunk_kb = download_file_request.chunk_size_kb or DEFAULT_CHUNK_KB
        if chunk_kb > MAX_CHUNK_KB:
            raise VxError(Kind.INVALID, f"is {chunk_kb}; at most {MAX_CHUNK_KB} is allowed", field="chunk_size_kb")
        call = current_call()
        destroyed = VxError(Kind.ABORTED, "the session was destroyed during the download")
        with (
            self._registry.lease(
                download_file_request.session_id,
                download_file_request.file_path,
                on_lost=lambda: call.abort(destroyed),
            ) as lease,
            open_file(lease.path, lease.size) as source,
        ):
            first = download_file_request.start_from_chunk_index
            async with aclosing(chunks(source, chunk_kb * 1024, first, _chunk_header)) as pieces:
                async for views in pieces:
                    yield Bulk(views)


def _chunk_header(index: int, length: int) -> bytes:
    """A gRPC message's prefix and a FileChunk up to the bytes of its data."""
    head = (_INDEX_TAG + encode_varint(index) if index else b"") + _DATA_TAG + encode_varint(length)
    return message_prefix(len(head) + length) + head


def _state(record: model.Record) -> State:
    state = State(
        state=_STATES[record.state],
        last_frame_timestamp="" if record.last_frame_us is None else format_timestamp(record.last_frame_us),
    )
    if not record.state.is_running:
        state.result = Result(
            files=[
                ResultFile(
                    path=file.id,
                    size=file.size,
                    min_timestamp=format_timestamp(file.first_us),
                    max_timestamp=format_timestamp(file.last_us),
                    mime_type=file.mime_type,
                    timezone=record.timezone_min,
                )
                for file in record.files
            ],
            succeeded=record.succeeded,
        )
    return state


_STATES = {
    model.State.RUNNING: EState.S_RUNNING,
    model.State.STOPPING: EState.S_RUNNING,
    model.State.COMPLETED: EState.S_COMPLETED,
    model.State.REMOVED: EState.S_REMOVED,
    model.State.FORGOTTEN: EState.S_REMOVED,
}


# ---- ListSessions: a session's options never change and can be large, so a page is put together from encoded parts


def _encode_page(records: list[model.Record], next_token: str) -> Encoded:
    parts = []
    for record in records:
        session = bytes(Session(id=record.id)) + _field(b"\x12", record.options)
        info = _field(_SESSION_TAG, session) + _field(_STATE_TAG, bytes(_state(record)))
        parts.append(_field(_SESSIONS_TAG, info))
    if next_token:
        parts.append(_field(_NEXT_PAGE_TAG, next_token.encode()))
    return Encoded(b"".join(parts))


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + encode_varint(len(data)) + data


def _page_size(asked: int) -> int:
    if asked < 0:
        raise VxError(Kind.INVALID, f"is {asked}; 0 (for {DEFAULT_PAGE}) to {MAX_PAGE} are allowed", field="page_size")
    return min(asked, MAX_PAGE) or DEFAULT_PAGE


def _page_token(number: int) -> str:
    return f"after-{number}"


def _parse_token(token: str) -> int:
    if not token:
        return 0
    prefix, _, digits = token.partition("-")
    if prefix != "after" or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise VxError(Kind.INVALID, f"{token!r} is not a token that this server gave", field="page_token")
    return int(digits)
