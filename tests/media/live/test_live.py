"""Live cameras: real servers, what is in the clips, and what becomes of a camera that fails."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import msgspec
import pytest

from tests.material import SECOND, FakeLink, Outcome, do, judge, numbered, numbers, numbers_of_all
from tests.media.live.cameras import (
    Camera,
    RtspServer,
    http_cameras,
    mjpeg,
    needs_rtsp,
    serving,
    transport_stream,
    write_reel,
    write_tone,
)
from tools.make_recordings import Form
from vx.drawing import Area, Drawing
from vx.jobs import ClipJob, Coding, Event, FileOpened, Live, LiveFeed, Progress, SnapshotJob, Source
from vx.media.live.camera import open_camera
from vx.media.live.stamping import Stamped
from vx.media.live.times import WallClock

PASSWORD = "Geheim%21"
USER = "viewer"
FORM = Form(audio=True, options=(("x264-params", "sliced-threads=0:threads=1"),))
FRAMES = 250
H264 = "( appsrc name=video ! h264parse ! rtph264pay name=pay0 pt=96 {})"
AAC = "appsrc name=audio ! aacparse ! rtpmp4gpay name=pay1 pt=97 "
G711 = "appsrc name=audio ! rtppcmupay name=pay1 pt=0 "


def camera(address: str, name: str = "Entrance", transport: Any = "tcp") -> Source:
    origin = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
    feed = LiveFeed(address=address, transport=transport)
    return Source(origin=origin, name=name, pattern="", timezone="UTC", feed=feed)


def clip(folder: Path, *cameras: Source, seconds: float = 0, link: FakeLink | None = None, **more: Any) -> Outcome:
    folder.mkdir(exist_ok=True)
    now = time.time_ns() // 1000
    live = Live(duration_us=round(seconds * SECOND), **more.pop("live", {}))
    more = {"container": "mkv", "discrete": False, "cut": "keyframe", **more}
    return do(ClipJob(folder=str(folder), sources=cameras, start_us=now, end_us=now, live=live, **more), link)


def is_run(found: list[int], length: int = FRAMES) -> bool:
    """Whether no frame is missing among these, of footage that is played over and over."""
    return all(after == (before + 1) % length for before, after in pairwise(found))


@pytest.fixture(scope="module")
def reels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reels")
    h265 = Form(
        codec="libx265", options=(("preset", "ultrafast"), ("x265-params", "log-level=none:keyint=25:bframes=0"))
    )
    small, large = Form(width=320, options=FORM.options), Form(width=480, options=FORM.options)
    return {
        "h264": write_reel(folder / "h264", numbered(FORM, FRAMES)),
        "aac": write_reel(folder / "aac", numbered(FORM, FRAMES), kind="audio"),
        "g711": write_tone(folder / "g711", 10),
        "sparse": write_tone(folder / "sparse", 1, silent_s=1),
        "h265": write_reel(folder / "h265", numbered(h265, 100)),
        "mjpeg": write_reel(folder / "mjpeg", numbered(Form(codec="mjpeg"), 100)),
        "sizes": write_reel(folder / "sizes", numbered(small, 50), numbered(large, 50)),
    }


@pytest.fixture(scope="module")
def cameras(reels: dict[str, Path]) -> list[Camera]:
    return [
        Camera("/aac", H264.format(AAC), {"video": reels["h264"], "audio": reels["aac"]}),
        Camera("/g711", H264.format(G711), {"video": reels["h264"], "audio": reels["g711"]}),
        Camera("/sparse", H264.format(G711), {"video": reels["h264"], "audio": reels["sparse"]}),
        Camera("/h265", "( appsrc name=video ! h265parse ! rtph265pay name=pay0 pt=96 )", {"video": reels["h265"]}),
        Camera("/mjpeg", "( appsrc name=video ! rtpjpegpay name=pay0 pt=26 )", {"video": reels["mjpeg"]}),
        Camera("/sizes", H264.format("config-interval=-1 "), {"video": reels["sizes"]}),
        Camera("/shared", H264.format(""), {"video": reels["h264"]}, shared=True),
    ]


@pytest.fixture(scope="module")
def server(cameras: list[Camera]) -> Iterator[RtspServer]:
    with serving(cameras, USER, "Geheim!") as server:
        yield server


@pytest.fixture
def weak_server(cameras: list[Camera]) -> Iterator[RtspServer]:
    """One that a test may stop and kill."""
    with serving(cameras) as server:
        yield server


@needs_rtsp
def test_what_cameras_send_is_in_the_files(server: RtspServer, tmp_path: Path) -> None:
    """All of them at once, each into a file of its own: by TCP and UDP, with digest authentication."""
    wanted = [
        ("/aac", "tcp", ["h264", "aac"]),
        ("/aac", "udp", ["h264", "aac"]),
        ("/g711", "tcp", ["h264", "pcm_s16le"]),
        ("/g711", "udp", ["h264", "pcm_s16le"]),
        ("/h265", "tcp", ["hevc"]),
        ("/h265", "udp", ["hevc"]),
        ("/mjpeg", "tcp", ["mjpeg"]),
        ("/mjpeg", "udp", ["mjpeg"]),
    ]
    sources = [
        camera(server.url(path, f"{USER}:{PASSWORD}@"), f"{path[1:]}-{transport}", transport)
        for path, transport, _ in wanted
    ]
    made = clip(tmp_path / "out", *sources, seconds=2, discrete=True)
    assert made.ended.succeeded, made.ended.reason
    files = {path.name.partition("_")[0]: path for path in made.files}
    assert len(files) == len(made.files) == len(wanted)
    found = numbers_of_all([files[f"{path[1:]}-{transport}"] for path, transport, _ in wanted])
    for (path, transport, codecs), shown in zip(wanted, found, strict=True):
        judged = judge(files[f"{path[1:]}-{transport}"])
        assert [stream["codec_name"] for stream in judged.streams] == codecs, path
        assert 40 <= len(shown) <= 60, (path, transport)
        assert is_run(shown, FRAMES if codecs[0] == "h264" else 100), (path, transport, shown)
        assert all(0.03 < after - before < 0.05 for before, after in pairwise(judged.frames)), judged.frames
        if len(codecs) == 2:
            assert 1.5 < judged.sound[-1] - judged.sound[0] < 2.1
            assert judged.sound[0] < 0.25, "a camera on a busy machine begins to send its sound a little later"


@needs_rtsp
def test_times_are_those_of_the_sender_reports(server: RtspServer) -> None:
    """Once there are any, which takes some seconds."""
    feed = LiveFeed(address=server.url("/aac", f"{USER}:{PASSWORD}@"))
    clock = WallClock()
    with open_camera(feed, 0, 0, open_s=10, stall_s=10, wait=lambda _: False) as connection:
        stamped = Stamped(connection, clock)
        packets = (packet for packet in stamped if stamped.by_sender)
        told = next(packets)
    assert abs(stamped.parameters.base.us(told.pts) - clock.now_us()) < 2 * SECOND


@needs_rtsp
def test_sound_that_comes_only_now_and_then(server: RtspServer, tmp_path: Path) -> None:
    made = clip(tmp_path / "out", camera(server.url("/sparse", f"{USER}:{PASSWORD}@")), seconds=2.5, container="mp4")
    assert made.ended.succeeded, made.ended.reason
    assert is_run(numbers(made.file))
    judged = judge(made.file)
    assert 0.5 < judged.sound[-1] < judged.frames[-1] + 0.2


def test_a_picture_that_is_made_here(tmp_path: Path) -> None:
    made = clip(tmp_path / "out", camera("test:?width=320&height=192&rate=10"), seconds=1.2)
    assert made.ended.succeeded, made.ended.reason
    with av.open(str(made.file), "r") as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert keys == [n % 10 == 0 for n in range(12)]


def test_a_live_picture_is_cropped_and_masked(tmp_path: Path) -> None:
    """As a recorded one: the mask counts from the whole frame."""
    drawing = Drawing(crop=Area(0.25, 0.25, 0.75, 0.75), masks=(((0.5, 0.5), (1, 0.5), (1, 1), (0.5, 1)),))
    yard = msgspec.structs.replace(camera("test:?width=320&height=192&rate=10"), drawing=drawing)
    cut = clip(tmp_path / "out", yard, seconds=0.5)
    (tmp_path / "shot").mkdir()
    shot = do(SnapshotJob(folder=str(tmp_path / "shot"), sources=(yard,), at_us=0, live=Live()))
    for made in (cut, shot):
        assert made.ended.succeeded, made.ended.reason
        with av.open(str(made.file), "r") as container:
            pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        assert {picture.shape for picture in pictures} == {(96, 160)}
        for picture in pictures:
            assert picture[56:, 88:].max() < 24
            assert picture[:40, :72].min() > 24


def test_a_camera_that_is_there_is_not_lost_for_one_that_is_not(tmp_path: Path) -> None:
    """Although the time for the first frame ends while the other one is still waited for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sources = (
            camera(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", "Silent"),
            camera("test:?width=320&height=192&rate=10", "Even"),
        )
        made = clip(tmp_path / "out", *sources, seconds=1, live={"first_frame_timeout_s": 0.8})
    assert made.ended.reason.startswith("Silent: ")
    assert len(judge(made.file).frames) == 10


def test_a_clip_ends_before_the_disk_is_full(tmp_path: Path) -> None:
    made = clip(tmp_path / "out", camera("test:?width=320&height=192"), live={"min_free": 1 << 60})
    assert made.ended.reason == f"the disk for results has less than {1 << 40} MiB free; the clip ends there"
    assert judge(made.file).frames


@needs_rtsp
@pytest.mark.parametrize("container", ["mp4", "avi"])
def test_what_a_container_cannot_hold_is_encoded(server: RtspServer, tmp_path: Path, container: Any) -> None:
    source = camera(server.url("/g711", f"{USER}:{PASSWORD}@"))
    made = clip(tmp_path / "out", source, seconds=1.5, container=container, coding=Coding(every=2))
    assert made.ended.succeeded, made.ended.reason
    judged = judge(made.file)
    assert [stream["codec_name"] for stream in judged.streams] == ["h264", "aac" if container == "mp4" else "pcm_mulaw"]
    shown = numbers(made.file)
    assert all(after == before + 2 for before, after in pairwise(shown)), shown
    assert 14 <= len(shown) <= 24


@needs_rtsp
def test_a_new_size_begins_a_new_file(server: RtspServer, tmp_path: Path) -> None:
    """And of the camera beside it nothing is lost."""
    login = f"{USER}:{PASSWORD}@"
    sources = camera(server.url("/sizes", login), "Sizes"), camera(server.url("/aac", login), "Even")
    made = clip(tmp_path / "out", *sources, seconds=3.4)
    assert made.ended.succeeded, made.ended.reason
    assert [judge(path).streams[0]["width"] for path in made.files] == [320, 480]
    sizes = [numbers(path, track=0) for path in made.files]
    assert sizes[0] == list(range(50))
    assert sizes[1] == list(range(len(sizes[1])))
    even = [number for path in made.files for number in numbers(path, track=1)]
    assert is_run(even)
    assert 65 <= len(even) <= 105


@needs_rtsp
def test_files_of_a_limited_size_lose_nothing(server: RtspServer, tmp_path: Path) -> None:
    source = camera(server.url("/aac", f"{USER}:{PASSWORD}@"))
    made = clip(tmp_path / "out", source, seconds=3.5, max_file_size=26 << 10)
    assert made.ended.succeeded, made.ended.reason
    assert len(made.files) > 1
    assert all(path.stat().st_size <= 26 << 10 for path in made.files)
    assert is_run([number for path in made.files for number in numbers(path)])


class Script:
    """Acts on a job that runs, from a thread of its own: `steps` are told of its events."""

    def __init__(self) -> None:
        self.link = FakeLink(on_event=self._hear)
        self._heard = threading.Condition()
        self.last_us = 0
        self.first_us = 0

    def _hear(self, event: Event) -> None:
        with self._heard:
            if isinstance(event, Progress):
                self.last_us = event.last_frame_us
            if isinstance(event, FileOpened) and not self.first_us:
                self.first_us = event.part.first_us
            self._heard.notify_all()

    def wait_written(self, seconds: float) -> None:
        """Until so much has been written."""
        with self._heard:
            assert self._heard.wait_for(lambda: self.last_us - self.first_us >= seconds * SECOND, timeout=30)

    def wait_note(self, text: str) -> None:
        with self._heard:
            assert self._heard.wait_for(lambda: text in self.link.notes, timeout=30), self.link.notes

    def wait_until(self, us: int) -> None:
        """Until a frame of that time or later has been written."""
        with self._heard:
            assert self._heard.wait_for(lambda: self.last_us >= us, timeout=30)


def running(script: Script, folder: Path, *sources: Source, **more: Any) -> tuple[threading.Thread, list[Outcome]]:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(clip(folder, *sources, link=script.link, **more)))
    thread.start()
    return thread, outcomes


def finish(script: Script, thread: threading.Thread, outcomes: list[Outcome]) -> Outcome:
    script.link.stop()
    thread.join(30)
    (outcome,) = outcomes
    assert outcome.ended.succeeded, outcome.ended.reason
    assert len(outcome.files) == 1, outcome.link.notes
    return outcome


@needs_rtsp
def test_a_stalled_camera_does_not_hold_up_the_others(
    server: RtspServer, weak_server: RtspServer, tmp_path: Path
) -> None:
    script = Script()
    sources = camera(server.url("/aac", f"{USER}:{PASSWORD}@"), "Even"), camera(weak_server.url("/aac"), "Weak")
    running_job = running(script, tmp_path / "out", *sources)
    script.wait_written(0.5)
    weak_server.process.send_signal(signal.SIGSTOP)
    script.wait_until(script.last_us + 2 * SECOND)  # the other one goes on
    weak_server.process.send_signal(signal.SIGCONT)
    script.wait_until(script.last_us + SECOND)
    made = finish(script, *running_job)
    assert is_run(numbers(made.file, track=0))
    weak = numbers(made.file, track=1)
    assert len(weak) > 30
    assert is_run(weak), weak


@needs_rtsp
def test_stop_does_not_wait_for_a_stalled_camera(weak_server: RtspServer, tmp_path: Path) -> None:
    script = Script()
    running_job = running(script, tmp_path / "out", camera(weak_server.url("/aac")), container="mp4")
    script.wait_written(0.5)
    weak_server.process.send_signal(signal.SIGSTOP)
    made = finish(script, *running_job)
    assert is_run(numbers(made.file))


@needs_rtsp
def test_a_camera_that_comes_back_leaves_a_gap(weak_server: RtspServer, cameras: list[Camera], tmp_path: Path) -> None:
    script = Script()
    running_job = running(script, tmp_path / "out", camera(weak_server.url("/aac")), coding=Coding())
    script.wait_written(1)
    lost_us = script.last_us
    weak_server.close()
    script.wait_note("trying again")
    threading.Event().wait(1)
    with serving(cameras, port=weak_server.port):
        script.wait_until(lost_us + 2 * SECOND)
        script.wait_until(script.last_us + SECOND // 2)
        made = finish(script, *running_job)
    judged = judge(made.file)
    (gap,) = [at for at, (before, after) in enumerate(pairwise(judged.frames)) if after - before > 1]
    shown = numbers(made.file)
    assert is_run(shown[: gap + 1])
    assert shown[gap + 1 :] == list(range(len(shown) - gap - 1))
    assert "nothing was recorded from" in made.link.notes


def test_cameras_that_do_not_answer_are_named_without_their_passwords(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refused = socket.create_server(("127.0.0.1", 0))
        port = refused.getsockname()[1]
        refused.close()
        sources = [
            camera(f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/x", "Deaf"),
            camera(f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{port}/x", "Refusing"),
            camera(f"http://{USER}:{PASSWORD}@127.0.0.1:{port}/x.mjpg", "Refusing too"),
            camera("test:?width=320&height=192&rate=25", "Even"),
        ]
        made = clip(tmp_path / "out", *sources, seconds=1, discrete=True, live={"first_frame_timeout_s": 1.5})
    assert not made.ended.succeeded
    deaf, *others = made.ended.reason.split("; ")
    assert deaf in ("Deaf: it did not answer within 1.5 s", "Deaf: no picture came within 1.5 s")
    assert others == ["Refusing: it refuses the connection", "Refusing too: it refuses the connection"]
    assert PASSWORD not in f"{made.link.events}{made.ended}"
    assert len(judge(made.file).frames) == 25


@needs_rtsp
def test_a_wrong_password_and_a_wrong_path(server: RtspServer, tmp_path: Path) -> None:
    sources = [
        camera(server.url("/aac", f"{USER}:falsch@"), "Wrong"),
        camera(server.url("/nothing", f"{USER}:{PASSWORD}@"), "Nowhere"),
    ]
    made = clip(tmp_path / "out", *sources, seconds=1, live={"first_frame_timeout_s": 1})
    assert made.ended.reason == "Wrong: it refuses the user name or the password; Nowhere: it has no such stream"
    assert "falsch" not in made.link.notes
    assert not made.files


@needs_rtsp
def test_a_snapshot_is_the_next_frame_of_each(server: RtspServer, tmp_path: Path) -> None:
    login = f"{USER}:{PASSWORD}@"
    before_us = time.time_ns() // 1000
    sources = (
        camera(server.url("/shared", login), "One"),
        camera(server.url("/h265", login), "Two"),
        camera(server.url("/mjpeg", login), "Three"),
        camera(server.url("/aac", f"{USER}:falsch@"), "Wrong"),
    )
    job = SnapshotJob(folder=str(tmp_path), sources=sources, at_us=0, live=Live(first_frame_timeout_s=3))
    made = do(job)
    assert made.ended.reason == "Wrong: it refuses the user name or the password"
    assert sorted(done.name.partition("_")[0] for done in made.link.done) == ["One", "Three", "Two"]
    for done in made.link.done:
        assert before_us - SECOND < done.first_us <= time.time_ns() // 1000
    found = numbers_of_all(made.files, flawless=False)
    assert all(len(each) == 1 and each[0] < FRAMES for each in found), found


def test_http_cameras(tmp_path: Path) -> None:
    """Pictures without any times, and a transport stream whose times begin anew in the middle."""
    footage = numbered(Form(codec="mjpeg"), 100)
    looped = transport_stream(numbered(FORM, 50), rounds=2)
    broadcasts = {
        "/mjpeg": ("multipart/x-mixed-replace; boundary=x", mjpeg(footage)),
        "/ts": ("video/mp2t", looped),
    }
    with http_cameras(broadcasts) as address:
        sources = camera(f"{address}/mjpeg", "Pictures"), camera(f"{address}/ts", "Transport")
        made = clip(tmp_path / "out", *sources, seconds=2.4, discrete=True)
    assert made.ended.succeeded, made.ended.reason
    files = {path.name.partition("_")[0]: path for path in made.files}
    shown = numbers(files["Pictures"])
    assert is_run(shown, 100)
    assert 45 <= len(shown) <= 75
    assert 2.2 < judge(files["Pictures"]).frames[-1] < 2.41
    shown, judged = numbers(files["Transport"]), judge(files["Transport"])
    assert shown == [n % 50 for n in range(len(shown))]
    assert 45 <= len(shown) <= 75
    assert [stream["codec_name"] for stream in judged.streams] == ["h264", "aac"]
    assert all(0 < after - before < 0.2 for before, after in pairwise(judged.frames)), judged.frames


@pytest.mark.parametrize("form", [FORM, Form(audio=True, b_frames=2)])
def test_a_file_is_played_over_and_over(tmp_path: Path, form: Form) -> None:
    path = tmp_path / "loop #1.mkv"
    path.write_bytes(numbered(form, 50))
    made = clip(tmp_path / "out", camera(f"file://{quote(str(path))}"), seconds=3)
    assert made.ended.succeeded, made.ended.reason
    shown = numbers(made.file)  # the sound is a little longer than the picture, and so is a round
    assert shown[:73] == [n % 50 for n in range(73)]
    assert 73 <= len(shown) <= 75
    assert all(after - before < 0.15 for before, after in pairwise(judge(made.file).frames))
