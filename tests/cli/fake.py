"""A server to test the command line against: grpclib's own, in a thread, doing what a test tells it to.

Clients connect through a relay that can cut all connections, as a broken network does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpclib
from grpclib.const import Status
from grpclib.server import Server

from vx.rpc.generated.axxonsoft.bl import mmexport
from vx.rpc.generated.vx import v1

ID = "3f0c9a"
RUNNING = mmexport.State(state=mmexport.EState.S_RUNNING, last_frame_timestamp="20260511T080415.000000")


def completed(*files: mmexport.ResultFile, succeeded: bool = True) -> mmexport.State:
    return mmexport.State(
        state=mmexport.EState.S_COMPLETED,
        last_frame_timestamp="20260511T080420.000000",
        result=mmexport.Result(files=list(files), succeeded=succeeded),
    )


@dataclass
class Script:
    """What the server has and does; tests set it before they run a command, and read `calls` after it."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By file id. A session has them all."""
    states: list[mmexport.State] = field(default_factory=list)
    """Answers of GetSessionState, one after the other; after the last one: completed, with all files."""
    succeeded: bool = True
    stopped: mmexport.State | None = None
    """The answer of StopSession; by default completed, with all files."""
    sessions: list[list[mmexport.ListSessionsResponseSessionInfo]] = field(default_factory=list)
    """Pages of ListSessions."""
    refuse: dict[str, list[tuple[Status, str]]] = field(default_factory=dict)
    """Errors of a method's next calls."""
    before: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    """Run at the begin of a method's call, in the server's loop."""
    cut_after: list[int] = field(default_factory=list)
    """Of one download after the other: the number of chunks after which the network breaks."""
    send: Callable[[mmexport.DownloadFileRequest, bytes], list[mmexport.FileChunk]] | None = None
    """The chunks of a download, where they are not to be right."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that the server claims, where they are not to be right."""
    report: v1.Report | None = None
    """The answer of GetReport; None: a server that has no such service."""
    estimate: v1.EstimateResponse | None = None
    calls: list[str] = field(default_factory=list)
    downloads: list[mmexport.DownloadFileRequest] = field(default_factory=list)
    started: list[mmexport.Options] = field(default_factory=list)

    def results(self) -> list[mmexport.ResultFile]:
        return [
            mmexport.ResultFile(
                path=path,
                size=self.sizes.get(path, len(content)),
                min_timestamp="20260511T080410.500000",
                max_timestamp="20260511T080420.000000",
                mime_type="image/jpeg" if path.endswith(".jpg") else "video/mp4",
            )
            for path, content in self.files.items()
        ]


class FakeService(mmexport.ExportServiceBase):
    def __init__(self, script: Script, cut: Callable[[], None]) -> None:
        self._script = script
        self._cut = cut

    async def _called(self, name: str) -> None:
        self._script.calls.append(name)
        if before := self._script.before.get(name):
            await before()
        if errors := self._script.refuse.get(name):
            raise grpclib.GRPCError(*errors.pop(0))

    async def start_session(self, start_session_request: mmexport.StartSessionRequest) -> mmexport.StartSessionResponse:
        await self._called("start")
        self._script.started.append(start_session_request.session_options)
        return mmexport.StartSessionResponse(started_session_id=ID)

    async def get_session_state(
        self, get_session_state_request: mmexport.GetSessionStateRequest
    ) -> mmexport.GetSessionStateResponse:
        await self._called("state")
        self._must_exist(get_session_state_request.session_id)
        states = self._script.states
        state = states.pop(0) if states else completed(*self._script.results(), succeeded=self._script.succeeded)
        return mmexport.GetSessionStateResponse(session_state=state)

    async def stop_session(self, stop_session_request: mmexport.StopSessionRequest) -> mmexport.StopSessionResponse:
        await self._called("stop")
        self._must_exist(stop_session_request.session_id)
        state = self._script.stopped or completed(*self._script.results())
        return mmexport.StopSessionResponse(session_state=state)

    async def destroy_session(
        self, destroy_session_request: mmexport.DestroySessionRequest
    ) -> mmexport.DestroySessionResponse:
        await self._called("destroy")
        self._must_exist(destroy_session_request.session_id)
        return mmexport.DestroySessionResponse()

    async def list_sessions(
        self, list_sessions_request: mmexport.ListSessionsRequest
    ) -> AsyncIterator[mmexport.ListSessionsResponse]:
        first = int(list_sessions_request.page_token or 0)
        for number, page in enumerate(self._script.sessions[first:], first + 1):
            await self._called("list")
            token = str(number) if number < len(self._script.sessions) else ""
            yield mmexport.ListSessionsResponse(sessions=page, next_page_token=token)

    async def download_file(
        self, download_file_request: mmexport.DownloadFileRequest
    ) -> AsyncIterator[mmexport.FileChunk]:
        request = download_file_request
        self._script.downloads.append(request)
        await self._called("download")
        content = self._script.files[request.file_path]
        cut_after = self._script.cut_after.pop(0) if self._script.cut_after else -1
        for number, chunk in enumerate((self._script.send or right_chunks)(request, content)):
            if number == cut_after:
                self._cut()
            yield chunk

    @staticmethod
    def _must_exist(session_id: str) -> None:
        if session_id != ID:
            raise grpclib.GRPCError(Status.NOT_FOUND, "There is no session with provided ID")


def right_chunks(request: mmexport.DownloadFileRequest, content: bytes) -> list[mmexport.FileChunk]:
    size = request.chunk_size_kb * 1024
    first = request.start_from_chunk_index
    return [
        mmexport.FileChunk(index=index, data=content[index * size : (index + 1) * size])
        for index in range(first, max(first + 1, -(-len(content) // size)))
    ]


class FakeReports(v1.ExportReportServiceBase):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def get_report(self, get_report_request: v1.GetReportRequest) -> v1.GetReportResponse:
        if self._script.report is None:
            raise grpclib.GRPCError(Status.UNIMPLEMENTED)
        return v1.GetReportResponse(report=self._script.report)

    async def estimate(self, estimate_request: v1.EstimateRequest) -> v1.EstimateResponse:
        if self._script.estimate is None:
            raise grpclib.GRPCError(Status.UNIMPLEMENTED)
        self._script.started.append(estimate_request.session_options)
        return self._script.estimate


class _Relay:
    """Passes bytes between clients and the server's socket until they are cut off."""

    def __init__(self, server_socket: Path) -> None:
        self._server_socket = str(server_socket)
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._server_socket)
        self._clients.add(writer)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer))
        self._clients.discard(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def cut(self) -> None:
        for writer in self._clients:
            writer.transport.abort()


@contextmanager
def serving(script: Script, folder: Path) -> Iterator[str]:
    """Serve on a Unix socket in `folder` while the block runs; gives the address."""
    up = threading.Event()
    ends: list[Callable[[], object]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        end = asyncio.Event()
        ends.append(lambda: loop.call_soon_threadsafe(end.set))
        relay = _Relay(folder / "server")
        server = Server([FakeService(script, relay.cut), FakeReports(script)])
        await server.start(path=str(folder / "server"))
        front = await asyncio.start_unix_server(relay.serve, str(folder / "front"))
        up.set()
        await end.wait()
        front.close()
        relay.cut()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert up.wait(10)
        yield f"unix://{folder / 'front'}"
    finally:
        ends[0]()
        thread.join(10)
        assert not thread.is_alive()
