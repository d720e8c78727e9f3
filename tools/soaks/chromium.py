"""A clip in headless Chromium: a page of its own plays it in a `<video>`, seeks, and reads the picture off a canvas.

The page comes from a server on loopback, which also takes what the page has found.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.material import BITS, BLOCK

PROGRAM = "chromium"
_PATIENCE_S = 120
_FASTER = 8
"""Times; it leaves out no picture for that, but shows fewer."""
_PAGE = """<!doctype html>
<video muted></video><canvas></canvas>
<script>
const places = %(places)s, bits = %(bits)d, block = %(block)d;
const video = document.querySelector("video"), canvas = document.querySelector("canvas");
const happens = name => new Promise(done => video.addEventListener(name, done, {once: true}));
const report = found => fetch("/report", {method: "POST", body: JSON.stringify(found)});

function pictureNumber() {
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  const row = context.getImageData(0, block / 2, bits * block, 1).data;
  let number = 0;
  for (let bit = 0; bit < bits; bit++)
    if (row[4 * (bit * block + block / 2) + 1] > 128) number |= 1 << bit;
  return number;
}

async function look() {
  if (!video.canPlayType('video/mp4; codecs="%(codec)s"')) return report({cannot: true});
  video.addEventListener("error", () => report({error: video.error.message || `code ${video.error.code}`}));
  video.src = "/clip.mp4";
  await happens("loadeddata");
  video.playbackRate = %(faster)d;
  video.play();
  await happens("ended");
  const played = video.getVideoPlaybackQuality().totalVideoFrames;
  const sound = video.webkitAudioDecodedByteCount;
  const seen = [];
  for (const place of places) {
    video.currentTime = place;
    await happens("seeked");
    seen.push(pictureNumber());
  }
  await report({seen, played, sound});
}
look().catch(error => report({error: String(error)}));
</script>
"""


@dataclass(frozen=True)
class Seen:
    """What Chromium made of a clip."""

    cannot: bool = False
    """It has no decoder for it."""
    error: str = ""
    seen: Sequence[int] = ()
    """The numbers of the pictures at the places that were asked for."""
    played: int = 0
    """Pictures that it decoded while it played to the end."""
    sound: int = 0
    """Bytes of sound that it decoded."""


def look(clip: Path, codec: str, places: Sequence[float]) -> Seen:
    """Have Chromium play it all, then seek to these places, in seconds. `codec` as MIME types name it."""
    page = _PAGE % {
        "places": json.dumps(places),
        "bits": BITS,
        "block": BLOCK,
        "codec": codec,
        "faster": _FASTER,
    }
    with _serving(page.encode(), clip) as (address, reports), _browsing(address):
        try:
            return Seen(**reports.get(timeout=_PATIENCE_S))
        except queue.Empty:
            return Seen(error=f"nothing came of it within {_PATIENCE_S} s")


@contextlib.contextmanager
def _browsing(address: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="vx-chromium-", ignore_cleanup_errors=True) as folder:
        switches = [
            *("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--mute-audio"),
            "--no-sandbox",  # it sees nothing but the page, and root can't have one
            "--autoplay-policy=no-user-gesture-required",
            f"--user-data-dir={folder}",
        ]
        browser = subprocess.Popen(  # noqa: S603
            [PROGRAM, *switches, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()


@contextlib.contextmanager
def _serving(page: bytes, clip: Path) -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    reports: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path != "/clip.mp4":
                self._answer(200 if self.path == "/" else 404, page if self.path == "/" else b"", "text/html")
                return
            data = clip.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked is None:
                self._answer(200, data, "video/mp4")
                return
            begin, end = int(asked[1]), int(asked[2] or len(data) - 1)
            told = f"bytes {begin}-{min(end, len(data) - 1)}/{len(data)}"
            self._answer(206, data[begin : end + 1], "video/mp4", ("Content-Range", told))

        def do_POST(self) -> None:
            reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(204, b"", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str, *more: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Accept-Ranges", "bytes"),
                *more,
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # a player gives up a request when it seeks
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", reports
        finally:
            server.shutdown()
            thread.join()
