"""A client as an integrator would write it: grpcio and stubs generated from proto/."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from tests.stubs import Stubs

CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
SECOND_CAMERA = "hosts/Server1/DeviceIpint.2/SourceEndpoint.video:0:0"
COMPLETED = 2
WAIT_S = 60


class Client:
    """Calls a server, waits for sessions, downloads their files."""

    def __init__(self, stubs: Stubs, address: str, channel: grpc.Channel | None = None) -> None:
        """`channel`: one of the test's own, with TLS or a token."""
        self.export = stubs.export
        self.messages = stubs.service
        self.channel = channel or grpc.insecure_channel(address)
        self.stub = stubs.grpc.ExportServiceStub(self.channel)

    def archive(self, start: str, end: str = "", *, cameras: Iterable[str] = (CAMERA,), **fields: Any) -> Any:
        sources = [self.export.ArchiveMode.Source(origin=camera) for camera in cameras]
        return self.export.ArchiveMode(sources=sources, start_timestamp=start, end_timestamp=end, **fields)

    def clip(self, start: str, end: str, form: str = "DEFAULT", **options: Any) -> Any:
        stream = self.export.StreamType(format=self.export.StreamType.EFormat.Value(form))
        return self.export.Options(archive=self.archive(start, end), stream=stream, **options)

    def snapshot(self, at: str, **options: Any) -> Any:
        return self.export.Options(archive=self.archive(at), snapshot=self.export.SnapshotType(), **options)

    def start(self, options: Any) -> str:
        request = self.messages.StartSessionRequest(session_options=options)
        return str(self.stub.StartSession(request).started_session_id)

    def state(self, session_id: str) -> Any:
        return self.stub.GetSessionState(self.messages.GetSessionStateRequest(session_id=session_id)).session_state

    def stop(self, session_id: str) -> Any:
        return self.stub.StopSession(self.messages.StopSessionRequest(session_id=session_id)).session_state

    def destroy(self, session_id: str) -> None:
        self.stub.DestroySession(self.messages.DestroySessionRequest(session_id=session_id))

    def pages(self, token: str = "", size: int = 0) -> list[Any]:
        return list(self.stub.ListSessions(self.messages.ListSessionsRequest(page_token=token, page_size=size)))

    def wait_state(self, session_id: str, ready: Any) -> Any:
        """Ask as a client does, every few milliseconds, until `ready(state)`."""
        give_up = time.monotonic() + WAIT_S
        while time.monotonic() < give_up:
            state = self.state(session_id)
            if ready(state):
                return state
            time.sleep(0.01)
        raise AssertionError(f"the session did not get there within {WAIT_S} s: {state}")

    def wait_completed(self, session_id: str) -> Any:
        return self.wait_state(session_id, lambda state: state.state == COMPLETED)

    def chunks(self, session_id: str, path: str, kb: int = 0, first: int = 0) -> Iterator[Any]:
        request = self.messages.DownloadFileRequest(
            session_id=session_id, file_path=path, chunk_size_kb=kb, start_from_chunk_index=first
        )
        result: Iterator[Any] = self.stub.DownloadFile(request)
        return result

    def download(self, session_id: str, path: str, kb: int = 0, first: int = 0) -> bytes:
        chunks = list(self.chunks(session_id, path, kb, first))
        assert [chunk.index for chunk in chunks] == list(range(first, first + len(chunks)))
        return b"".join(chunk.data for chunk in chunks)


@contextmanager
def refused(code: str, text: str) -> Iterator[None]:
    """The call in the block fails with this status code and exactly this text."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert (caught.value.code().name, caught.value.details()) == (code, text)
