"""Cameras for tests: an RTSP server by GStreamer, run by the system's Python, which alone has its binding.

    /usr/bin/python3 rtsp_server.py PORT USER PASSWORD < cameras.json

Each camera of the JSON list has a `path`, the launch line of a pipeline from its appsrcs, `video` and perhaps `audio`,
to its payloaders, and a reel for each appsrc: a file of packets that were encoded before (`tests.media.live.cameras`),
which is played in real time, over and over. With `shared`, all clients see the same moment, as of a real camera. The
port that it listens on is told on stdout. With a user, digest authentication is asked for.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
gi.require_version("GstRtsp", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

TICK_S = 0.01
GONE_S = 20.0
_US = 1000
"""Nanoseconds of a microsecond: GStreamer's clocks count the former, a reel the latter."""


class Reel:
    """Packets with their times, as `tests.media.live.cameras.write_reel` writes them."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:  # noqa: PTH123
            header = json.loads(file.readline())
            self.caps: str = header["caps"]
            self.length_us: int = header["length_us"]
            self.packets = [(at_us, file.read(size)) for at_us, size in header["packets"]]


class Player:
    """Pushes a reel's packets into an appsrc when their time has come."""

    def __init__(self, source: Any, reel: Reel, start_ns: int) -> None:
        self._source = source
        self._reel = reel
        self._start_ns = start_ns
        self._next = 0

    def push(self, now_ns: int) -> bool:
        """Push what is due; False where the pipeline doesn't take it."""
        while True:
            rounds, number = divmod(self._next, len(self._reel.packets))
            at_us, data = self._reel.packets[number]
            at_ns = self._start_ns + (at_us + rounds * self._reel.length_us) * _US
            if at_ns > now_ns:
                return True
            buffer = Gst.Buffer.new_wrapped(data)
            buffer.pts = buffer.dts = max(at_ns, 0)
            if self._source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return False
            self._next += 1


class Showing:
    """The reels that one client sees."""

    def __init__(self, media: Any, reels: dict[str, Reel]) -> None:
        self._element = media.get_element()
        self._reels = reels
        self._players: list[Player] = []
        self._pushed_s = time.monotonic()

    def go_on(self) -> bool:
        """Push what is due; False once nobody has taken anything for a while: the client has gone."""
        clock, base_ns = self._element.get_clock(), self._element.get_base_time()
        now_ns = clock.get_time() - base_ns if clock is not None and base_ns else -1  # else it doesn't play yet
        if now_ns >= 0:
            self._players = self._players or [
                Player(self._element.get_by_name_recurse_up(name), reel, now_ns) for name, reel in self._reels.items()
            ]
            pushed = [player.push(now_ns) for player in self._players]
            if all(pushed):
                self._pushed_s = time.monotonic()
        return time.monotonic() - self._pushed_s < GONE_S


class Projector(threading.Thread):
    """Plays the reels for all clients. In a thread of its own: the main loop waits in it for the first packets."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._lock = threading.Lock()
        self._media: list[Showing] = []

    def add(self, media: Any, reels: dict[str, Reel]) -> None:
        """A client has come."""
        for name, reel in reels.items():
            source = media.get_element().get_by_name_recurse_up(name)
            source.set_property("format", Gst.Format.TIME)
            source.set_property("is-live", True)
            source.set_property("caps", Gst.Caps.from_string(reel.caps))
        with self._lock:
            self._media.append(Showing(media, reels))

    def run(self) -> None:
        while True:
            time.sleep(TICK_S)
            with self._lock:
                playing = list(self._media)
            gone = [showing for showing in playing if not showing.go_on()]
            with self._lock:
                self._media = [showing for showing in self._media if showing not in gone]


def main() -> None:
    port, user, password = sys.argv[1:4]
    Gst.init(None)
    projector = Projector()
    projector.start()
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    if user:
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_digest(user, password, token)
        server.set_auth(auth)
    mounts = server.get_mount_points()
    for camera in json.load(sys.stdin):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(camera["launch"])
        factory.set_shared(camera["shared"])
        reels = {name: Reel(path) for name, path in camera["reels"].items()}
        factory.connect("media-configure", lambda _, media, reels=reels: projector.add(media, reels))
        if user:
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_permission_for_role("viewer", "media.factory.access", True)
            permissions.add_permission_for_role("viewer", "media.factory.construct", True)
            factory.set_permissions(permissions)
        mounts.add_factory(camera["path"], factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


main()
