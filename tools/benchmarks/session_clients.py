"""Clients that start snapshots and wait for their end, as many at once as told. Prints one line of JSON."""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path
from typing import Any

import grpc

from tools.benchmarks import scenario

_FIRST_POLL_S, _LONGEST_POLL_S = 0.1, 0.5
"""As the command line does it."""
_GIVE_UP_S = 60.0


def snapshot(messages: Any, stub: Any, camera: str, at: str, *, keep: bool) -> tuple[float, float]:
    """Seconds until StartSession answered, and until the session was seen to have ended. Then it is destroyed."""
    options = messages.StartSessionRequest().session_options
    options.archive.sources.add(origin=camera)
    options.archive.start_timestamp = at
    options.snapshot.SetInParent()
    begin = time.perf_counter()
    session = stub.StartSession(messages.StartSessionRequest(session_options=options)).started_session_id
    started = time.perf_counter() - begin
    request = messages.GetSessionStateRequest(session_id=session)
    poll_s = _FIRST_POLL_S
    while (state := stub.GetSessionState(request).session_state).state != messages.S_COMPLETED:
        if time.perf_counter() - begin > _GIVE_UP_S:
            raise SystemExit("a session did not end")
        time.sleep(poll_s)
        poll_s = min(1.5 * poll_s, _LONGEST_POLL_S)
    if not state.result.succeeded or not all(file.size for file in state.result.files):
        raise SystemExit(f"a snapshot failed: {state}")
    ended = time.perf_counter() - begin
    if not keep:
        stub.DestroySession(messages.DestroySessionRequest(session_id=session))
    return started, ended


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stubs", type=Path, required=True)
    parser.add_argument("--camera", required=True)
    parser.add_argument("--at", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--sessions", type=int, required=True, help="of all clients together")
    parser.add_argument("--keep", action="store_true", help="destroy none")
    arguments = parser.parse_args()
    messages, services = scenario.load_stubs(arguments.stubs)
    seconds: list[tuple[float, float]] = []
    left = iter(range(arguments.sessions))  # next() of it is atomic

    def client() -> None:
        # A connection of its own, as of a client of its own.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{arguments.port}", options) as channel:
            stub = services.ExportServiceStub(channel)
            while next(left, None) is not None:
                seconds.append(snapshot(messages, stub, arguments.camera, arguments.at, keep=arguments.keep))

    threads = [threading.Thread(target=client) for _ in range(arguments.clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lasted = time.perf_counter() - begin
    if len(seconds) != arguments.sessions:
        raise SystemExit(f"{len(seconds)} of {arguments.sessions} sessions ended")
    started, ended = zip(*seconds, strict=True)
    print(json.dumps({"seconds": lasted, "started": started, "ended": ended}))


main()
