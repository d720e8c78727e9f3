"""A client as users have it: grpcio with its defaults. Prints one line of JSON."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import grpc

from tools.benchmarks import scenario

_PAUSE_S = 0.5


def check(messages: Any, stub: Any, session: str, chunk_kb: int) -> dict[str, object]:
    """What the server really serves: the hash of the file's bytes, and the session's state."""
    digest = hashlib.sha256()
    request = messages.DownloadFileRequest(session_id=session, file_path=scenario.FILE, chunk_size_kb=chunk_kb)
    for expected, chunk in enumerate(stub.DownloadFile(request)):
        if chunk.index != expected:
            raise SystemExit(f"chunk {chunk.index} came in the place of chunk {expected}")
        digest.update(chunk.data)
    state = stub.GetSessionState(messages.GetSessionStateRequest(session_id=session))
    return {"sha256": digest.hexdigest(), "state": state.SerializeToString(deterministic=True).hex()}


def download(messages: Any, stub: Any, session: str, chunk_kb: int, first: int) -> dict[str, object]:
    """Seconds and bytes of a download from chunk `first` on."""
    request = messages.DownloadFileRequest(
        session_id=session, file_path=scenario.FILE, chunk_size_kb=chunk_kb, start_from_chunk_index=first
    )
    begin = time.perf_counter()
    size = sum(len(chunk.data) for chunk in stub.DownloadFile(request))
    return {"seconds": time.perf_counter() - begin, "bytes": size}


def first_page(messages: Any, stub: Any, count: int) -> dict[str, object]:
    """Seconds to the first message of ListSessions, `count` times.

    With pauses: what the server has sent of a call that is cancelled still comes in, and the next call waits for that.
    """
    seconds = []
    for _ in range(count):
        time.sleep(_PAUSE_S)
        begin = time.perf_counter()
        call = stub.ListSessions(messages.ListSessionsRequest())
        page = next(call)
        seconds.append(time.perf_counter() - begin)
        call.cancel()
        if len(page.sessions) != 100 or not page.next_page_token:
            raise SystemExit(f"a first page of {len(page.sessions)} sessions")
    return {"seconds": seconds, "bytes": page.ByteSize()}


def export(messages: Any, stub: Any, camera: str, begin: str, end: str) -> dict[str, object]:
    """A session from its start to its end, with a file that is not empty."""
    options = messages.StartSessionRequest().session_options
    options.archive.sources.add(origin=camera)
    options.archive.start_timestamp, options.archive.end_timestamp = begin, end
    options.stream.SetInParent()
    session = stub.StartSession(messages.StartSessionRequest(session_options=options)).started_session_id
    request = messages.GetSessionStateRequest(session_id=session)
    while (state := stub.GetSessionState(request).session_state).state != messages.S_COMPLETED:
        time.sleep(0.05)
    if not state.result.succeeded or not all(file.size for file in state.result.files):
        raise SystemExit(f"the export failed: {state}")
    return {"files": len(state.result.files)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["check", "download", "first-page", "export"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--stubs", type=Path, required=True)
    parser.add_argument("--chunk-kb", type=int, default=64)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--camera")
    parser.add_argument("--begin")
    parser.add_argument("--end")
    arguments = parser.parse_args()
    messages, services = scenario.load_stubs(arguments.stubs)
    with grpc.insecure_channel(f"127.0.0.1:{arguments.port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        stub = services.ExportServiceStub(channel)
        match arguments.what:
            case "check":
                result = check(messages, stub, arguments.session, arguments.chunk_kb)
            case "download":
                result = download(messages, stub, arguments.session, arguments.chunk_kb, arguments.first)
            case "export":
                result = export(messages, stub, arguments.camera, arguments.begin, arguments.end)
            case _:
                result = first_page(messages, stub, arguments.count)
    print(json.dumps(result))


main()
