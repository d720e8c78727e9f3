"""Cameras to test against: GStreamer's RTSP server on material of numbered frames, encoded once."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import pytest
from av.bitstream import BitStreamFilterContext

SYSTEM_PYTHON = "/usr/bin/python3"
_SERVER = Path(__file__).with_name("rtsp_server.py")
_PROBE = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
needed = "appsrc h264parse rtph264pay aacparse rtpmp4gpay rtppcmupay h265parse rtph265pay rtpjpegpay".split()
exit(" ".join(name for name in needed if Gst.ElementFactory.find(name) is None) or 0)
"""
_START_S = 30


@functools.cache
def missing() -> str:
    """Why there is no RTSP server here; empty where there is one."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"there is no {SYSTEM_PYTHON}"
    done = subprocess.run([SYSTEM_PYTHON, "-c", _PROBE], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2]


needs_rtsp = pytest.mark.skipif(
    bool(missing()) and os.environ.get("CI") != "true", reason=f"no RTSP server to test with: {missing()}"
)
"""For tests of real cameras. Where they have to run, they fail for want of a server."""


@dataclass(frozen=True)
class Camera:
    """What is served under a path: a pipeline, and what is played into its appsrcs."""

    path: str
    launch: str
    reels: Mapping[str, Path]
    shared: bool = False


def write_reel(path: Path, *footage: bytes, kind: str = "video") -> Path:
    """Put the packets of one kind of some footage, one after the other, into a file that the server plays."""
    packets: list[tuple[int, bytes]] = []
    caps = ""
    begin_us = 0
    for data in footage:
        with av.open(BytesIO(data), "r") as container:
            stream: Any = (container.streams.video if kind == "video" else container.streams.audio)[0]
            caps = caps or _caps(stream)
            unpack = _unpack(stream)
            end_us = begin_us
            packet: Any
            for packet in container.demux(stream):
                for unpacked in unpack.filter(packet) if unpack and packet.size else [packet]:
                    if unpacked.size:
                        at_us = begin_us + round((unpacked.pts or 0) * unpacked.time_base * 1_000_000)
                        end_us = at_us + round((unpacked.duration or 0) * unpacked.time_base * 1_000_000)
                        packets.append((at_us, bytes(unpacked)))
            begin_us = end_us
    header = {"caps": caps, "length_us": begin_us, "packets": [(at_us, len(data)) for at_us, data in packets]}
    with path.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.writelines(data for _, data in packets)
    return path


def _unpack(stream: Any) -> BitStreamFilterContext | None:
    name = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}.get(stream.codec_context.name)
    return BitStreamFilterContext(name, stream) if name else None


def _caps(stream: Any) -> str:
    context = stream.codec_context
    match context.codec.canonical_name:
        case "h264":
            return "video/x-h264,stream-format=byte-stream,alignment=au"
        case "hevc":
            return "video/x-h265,stream-format=byte-stream,alignment=au"
        case "mjpeg":
            return f"image/jpeg,width={context.width},height={context.height},framerate=25/1"
        case "aac":
            return (
                f"audio/mpeg,mpegversion=4,stream-format=raw,rate={context.sample_rate},"
                f"channels={len(context.layout.channels)},codec_data=(buffer){bytes(context.extradata).hex()}"
            )
        case "pcm_mulaw":
            return "audio/x-mulaw,rate=8000,channels=1"
        case "pcm_alaw":
            return "audio/x-alaw,rate=8000,channels=1"
    raise ValueError(context.name)


def write_tone(path: Path, seconds: int, silent_s: int = 0) -> Path:
    """A reel of G.711, as cameras send it: 8 kHz, 20 ms a packet. Then nothing is sent for `silent_s`."""
    data = bytes(0x80 | (n * n) % 127 for n in range(160))
    packets = [(number * 20_000, len(data)) for number in range(50 * seconds)]
    header = {
        "caps": "audio/x-mulaw,rate=8000,channels=1",
        "length_us": (seconds + silent_s) * 1_000_000,
        "packets": packets,
    }
    path.write_bytes(json.dumps(header).encode() + b"\n" + data * len(packets))
    return path


class RtspServer:
    """A running server. Stall it by SIGSTOP to `process`."""

    def __init__(self, cameras: Sequence[Camera], user: str = "", password: str = "", port: int = 0) -> None:
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, str(_SERVER), str(port), user, password],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        told = [
            {"path": c.path, "launch": c.launch, "shared": c.shared, "reels": {k: str(v) for k, v in c.reels.items()}}
            for c in cameras
        ]
        self.process.stdin.write(json.dumps(told))
        self.process.stdin.close()
        self.port = int(self.process.stdout.readline())
        self._login = f"{user}:{password}@" if user else ""

    def url(self, path: str, login: str | None = None) -> str:
        return f"rtsp://{self._login if login is None else login}127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait(_START_S)
        assert self.process.stdout
        self.process.stdout.close()


@contextmanager
def serving(cameras: Sequence[Camera], user: str = "", password: str = "", port: int = 0) -> Iterator[RtspServer]:
    """An RTSP server for these cameras, killed with the block."""
    server = RtspServer(cameras, user, password, port)
    try:
        yield server
    finally:
        server.close()


Broadcast = Callable[[], Iterator[tuple[float, bytes]]]
"""What an HTTP camera sends: bytes, and at which second."""


def mjpeg(footage: bytes) -> Broadcast:
    """Its pictures, each as a part of a multipart message."""

    def send() -> Iterator[tuple[float, bytes]]:
        with av.open(BytesIO(footage), "r") as container:
            packet: Any
            for packet in container.demux(video=0):
                if packet.size:
                    head = f"--x\r\nContent-Type: image/jpeg\r\nContent-Length: {packet.size}\r\n\r\n"
                    yield float(packet.pts * packet.time_base), head.encode() + bytes(packet) + b"\r\n"

    return send


def transport_stream(footage: bytes, *, rounds: int = 1) -> Broadcast:
    """Its packets as MPEG-TS; in each further round the times begin anew."""
    target = BytesIO()
    steps: list[tuple[float, int]] = []
    length_s = 0.0
    options = {"flush_packets": "1"}
    with (
        av.open(BytesIO(footage), "r") as container,
        av.open(target, "w", format="mpegts", container_options=options) as output,
    ):
        streams: Any = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        packet: Any
        for packet in container.demux():
            if packet.size:
                at_s = max(0.0, float(packet.dts * packet.time_base))
                length_s = max(length_s, at_s + float(packet.duration * packet.time_base))
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
                steps.append((at_s, target.tell()))
    data = target.getvalue()
    begins = [0, *(end for _, end in steps)]

    def send() -> Iterator[tuple[float, bytes]]:
        for number in range(rounds):
            for (at_s, end), begin in zip(steps, begins, strict=False):
                yield number * length_s + at_s, data[begin:end]
            yield (number + 1) * length_s, data[begins[-1] :]

    return send


@contextmanager
def http_cameras(broadcasts: Mapping[str, tuple[str, Broadcast]]) -> Iterator[str]:
    """Cameras over HTTP: path → content type and what is sent. Yields the beginning of their URLs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content_type, send = broadcasts[self.path]
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            begin_s = time.monotonic()
            try:
                for at_s, data in send():
                    if closing.wait(max(0, begin_s + at_s - time.monotonic())):
                        return
                    self.wfile.write(data)
            except ConnectionError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    closing = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            closing.set()
            server.shutdown()
            thread.join()
