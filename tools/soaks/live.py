"""Eight live cameras of 1080p are copied at once, for minutes, and one of them stalls every minute.

    python -m tools.soaks.live [MINUTES]

Of the other seven no frame may be missing, counted by what each frame's packet holds; the worker's memory may not grow;
and in the end no process, thread or file handle may be left over. The server is a real one, asked by a stock client,
and so are the cameras: GStreamer's RTSP server on footage that was encoded before. Two sessions hold four cameras each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import grpc

from tests.media.live.cameras import RtspServer, missing, serving
from tests.server_process import ServerProcess, started_servers
from tools.benchmarks import build, scenario
from tools.benchmarks.cameras import CAMERAS, GOP_S, RATE, access_point, camera_at, configuration, footage, reel
from vx.media.packets.nal import Form

STALL_EVERY_S = 60.0
STALL_S = 8.0
LOOK_EVERY_S = 2.0
MOST_GROWTH = 1.03
"""Of the memory's median from the second quarter of the time to the last one."""


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    if missing():
        raise SystemExit(f"there is no RTSP server: {missing()}")
    with tempfile.TemporaryDirectory(prefix="vx-soak-") as name:
        faults = soak(Path(name), minutes * 60)
    for fault in faults:
        print(f"FAULT: {fault}")
    print("the soak has failed" if faults else "all is well")
    raise SystemExit(bool(faults))


def soak(folder: Path, seconds: float) -> list[str]:
    """What is wrong."""
    cameras = [camera_at(f"/{number}", reel()) for number in range(CAMERAS)]
    with serving(cameras[1:]) as steady, serving(cameras[:1]) as weak, started_servers(folder) as start:
        addresses = [(weak if number == 0 else steady).url(f"/{number}") for number in range(CAMERAS)]
        server = start(configuration(addresses))
        with client(server) as (service, messages, export):
            before = Held(server)
            sessions = [begin(service, messages, export, range(first, first + 4)) for first in range(0, CAMERAS, 4)]
            memory = watch(server, weak, seconds, lambda: ask(service, messages, sessions))
            faults = grown(memory)
            paths = [path for session in sessions for path in fetch(service, messages, session, folder)]
            faults += lost(paths)
            faults += before.left_over(server)
    return faults


@contextlib.contextmanager
def client(server: ServerProcess) -> Iterator[tuple[Any, Any, Any]]:
    messages, services = scenario.load_stubs(build.make_stubs())
    export = sys.modules["axxonsoft.bl.mmexport.Export_pb2"]
    with grpc.insecure_channel(server.address) as channel:
        yield services.ExportServiceStub(channel), messages, export


def begin(service: Any, messages: Any, export: Any, numbers: range) -> str:
    live = export.LiveMode(sources=[export.LiveMode.Source(origin=access_point(number)) for number in numbers])
    options = export.Options(live=live, stream=export.StreamType(format=export.StreamType.MKV))
    return str(service.StartSession(messages.StartSessionRequest(session_options=options)).started_session_id)


def ask(service: Any, messages: Any, sessions: list[str]) -> None:
    for session in sessions:
        state = service.GetSessionState(messages.GetSessionStateRequest(session_id=session)).session_state
        if state.state != messages.S_RUNNING:
            raise SystemExit(f"session {session} ended by itself: {state}")


def watch(server: ServerProcess, weak: RtspServer, seconds: float, ask: Any) -> dict[int, list[int]]:
    """Let it run, and stall a camera now and then; returns what memory each worker had, in KiB."""
    begin_s = time.monotonic()
    stall_at_s = begin_s + STALL_EVERY_S / 2
    memory: dict[int, list[int]] = {}
    while (now_s := time.monotonic()) < begin_s + seconds:
        if now_s >= stall_at_s:
            print(f"{now_s - begin_s:.0f} s: a camera stalls for {STALL_S:g} s", flush=True)
            weak.process.send_signal(signal.SIGSTOP)
            time.sleep(STALL_S)
            weak.process.send_signal(signal.SIGCONT)
            stall_at_s += STALL_EVERY_S
        ask()
        for worker in server.workers():
            memory.setdefault(worker, []).append(_kib(worker, "VmRSS"))
        time.sleep(LOOK_EVERY_S)
    return memory


def grown(memory: dict[int, list[int]]) -> list[str]:
    faults = []
    for worker, sizes in memory.items():
        quarter = len(sizes) // 4
        early, late = statistics.median(sizes[quarter : 2 * quarter]), statistics.median(sizes[-quarter:])
        print(f"worker {worker}: {early / 1024:.1f} MiB in the second quarter, {late / 1024:.1f} MiB in the last one")
        if late > early * MOST_GROWTH:
            faults.append(f"the memory of worker {worker} grew from {early} to {late} KiB")
    return faults


def fetch(service: Any, messages: Any, session: str, folder: Path) -> list[Path]:
    begin_s = time.monotonic()
    state = service.StopSession(messages.StopSessionRequest(session_id=session)).session_state
    print(
        f"session {session} stopped in {1000 * (time.monotonic() - begin_s):.0f} ms: {len(state.result.files)} file(s)"
    )
    paths = []
    for file in state.result.files:
        path = folder / f"{session}-{file.path}"
        request = messages.DownloadFileRequest(session_id=session, file_path=file.path, chunk_size_kb=1024)
        with path.open("wb") as target:
            target.writelines(chunk.data for chunk in service.DownloadFile(request))
        paths.append(path)
    service.DestroySession(messages.DestroySessionRequest(session_id=session))
    return paths


def lost(paths: list[Path]) -> list[str]:
    """What is missing of the cameras that did not stall, by the frames' numbers."""
    known = _numbers_by_hash()
    found: dict[str, list[int]] = {}
    for path in paths:
        with av.open(str(path), "r") as container:
            forms = {s.index: Form.of("h264", bytes(s.codec_context.extradata or b"")) for s in container.streams.video}
            titles = {s.index: s.metadata["title"] for s in container.streams.video}
            packet: Any
            for packet in container.demux(video=list(range(len(forms)))):
                form = forms[packet.stream_index]
                if packet.size and form is not None:
                    found.setdefault(titles[packet.stream_index], []).append(known[_hash(form, bytes(packet))])
    faults = []
    length = len(known)
    for title, numbers in sorted(found.items()):
        holes = [(a, b) for a, b in pairwise(numbers) if b != (a + 1) % length]
        print(f"{title}: {len(numbers)} frames, {len(holes)} hole(s)")
        if holes and title != "Camera 0":
            faults.append(f"{title}: frames are missing behind {holes[:5]}")
    if len(found) != CAMERAS:
        faults.append(f"only {sorted(found)} are in the files")
    return faults


def _numbers_by_hash() -> dict[str, int]:
    with av.open(BytesIO(footage()), "r") as container:
        stream = container.streams.video[0]
        form = Form.of("h264", bytes(stream.codec_context.extradata or b""))
        assert form is not None
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    return {_hash(form, data): number for number, data in enumerate(packets)}


def _hash(form: Form, data: bytes) -> str:
    """Of a packet's pictures, which are the same in every container."""
    units = [unit for unit in form.split(data) if form.kind(unit) in (1, 5)]
    return hashlib.sha256(b"".join(units)).hexdigest()


class Held:
    """What the server and its fork server hold."""

    def __init__(self, server: ServerProcess) -> None:
        self._before = _held(server.process.pid)

    def left_over(self, server: ServerProcess) -> list[str]:
        until_s = time.monotonic() + 10
        while server.workers() and time.monotonic() < until_s:
            time.sleep(0.2)
        after = _held(server.process.pid)
        print(f"handles and threads of the server: {json.dumps(self._before)} before, {json.dumps(after)} after")
        faults = [f"{len(server.workers())} workers are left"] if server.workers() else []
        # the fork server and its pipes start with the first session
        if after["handles"] > self._before["handles"] + 8 or after["threads"] > self._before["threads"] + 4:
            faults.append(f"the server held {self._before} before, and {after} after")
        return faults


def _held(pid: int) -> dict[str, int]:
    return {"handles": len(list(Path(f"/proc/{pid}/fd").iterdir())), "threads": _kib(pid, "Threads")}


def _kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    print(f"{CAMERAS} cameras of 1080p{RATE}, a key frame every {GOP_S} s")
    main()
