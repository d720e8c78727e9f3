"""grpclib as it comes, on asyncio: with betterproto's messages as vx has them, or with Google's (`--google`)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpclib
from grpclib.const import Cardinality, Handler, Status
from grpclib.server import Server, Stream

from tools.benchmarks import peers, scenario
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    DownloadFileRequest,
    EState,
    ExportServiceBase,
    FileChunk,
    GetSessionStateRequest,
    GetSessionStateResponse,
    Result,
    ResultFile,
    State,
)

_UNKNOWN = "There is no session with provided ID"


class BetterprotoService(ExportServiceBase):
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size

    async def get_session_state(self, get_session_state_request: GetSessionStateRequest) -> GetSessionStateResponse:
        if get_session_state_request.session_id != scenario.PEER_SESSION:
            raise grpclib.GRPCError(Status.NOT_FOUND, _UNKNOWN)
        file = ResultFile(
            path=scenario.FILE,
            size=self._size,
            min_timestamp=scenario.FIRST,
            max_timestamp=scenario.LAST,
            mime_type=scenario.MIME,
        )
        return GetSessionStateResponse(
            session_state=State(
                state=EState.S_COMPLETED,
                last_frame_timestamp=scenario.LAST,
                result=Result(files=[file], succeeded=True),
            )
        )

    async def download_file(self, download_file_request: DownloadFileRequest) -> AsyncIterator[FileChunk]:
        chunk_size = (download_file_request.chunk_size_kb or scenario.DEFAULT_CHUNK_KB) * 1024
        index = download_file_request.start_from_chunk_index
        while data := os.pread(self._fd, chunk_size, index * chunk_size):
            yield FileChunk(index=index, data=data)
            index += 1


class GoogleService:
    """What grpclib's own generator would make, for the two methods that are measured."""

    def __init__(self, fd: int, messages: Any) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._messages = messages

    async def get_session_state(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        if request is None or request.session_id != scenario.PEER_SESSION:
            raise grpclib.GRPCError(Status.NOT_FOUND, _UNKNOWN)
        await stream.send_message(scenario.completed_state(self._messages, self._size))

    async def download_file(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        assert request is not None
        chunk_size = (request.chunk_size_kb or scenario.DEFAULT_CHUNK_KB) * 1024
        index = request.start_from_chunk_index
        while data := os.pread(self._fd, chunk_size, index * chunk_size):
            await stream.send_message(self._messages.FileChunk(index=index, data=data))
            index += 1

    def __mapping__(self) -> dict[str, Handler]:
        types = self._messages
        return {
            scenario.STATE: Handler(
                self.get_session_state,
                Cardinality.UNARY_UNARY,
                types.GetSessionStateRequest,
                types.GetSessionStateResponse,
            ),
            scenario.DOWNLOAD: Handler(
                self.download_file, Cardinality.UNARY_STREAM, types.DownloadFileRequest, types.FileChunk
            ),
        }


async def serve() -> None:
    parser = peers.parser()
    parser.add_argument("--google", action="store_true", help="Google's messages, not betterproto's")
    arguments = parser.parse_args()
    fd = os.open(arguments.file, os.O_RDONLY)
    service: Any
    if arguments.google:
        messages, _ = scenario.load_stubs(arguments.stubs)
        service = GoogleService(fd, messages)
    else:
        service = BetterprotoService(fd)
    server = Server([service])
    # The protocol by its number: asyncio turns Nagle's algorithm off only where it sees that a socket is TCP.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        await server.start(sock=listener, ssl=peers.server_context(arguments))
        peers.announce(listener.getsockname()[1])
        await server.wait_closed()


asyncio.run(serve())
