"""A live camera's messages, from connections that are made up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import av
import pytest

from tests.material import SECOND, T0, numbered
from tools.make_recordings import Form
from vx.jobs import Live, LiveFeed, Source
from vx.media.live import reading
from vx.media.live.camera import CameraError, Connection
from vx.media.live.reading import LiveReader
from vx.media.live.times import WallClock
from vx.media.packets.messages import Begin, Packets
from vx.media.packets.plan import Join

PICTURES = Form(codec="mjpeg")
GROUPS = Form(gop=5)


class Clock(WallClock):
    """Says what a test sets."""

    us = T0

    def now_us(self) -> int:
        return self.us


def messages(
    monkeypatch: pytest.MonkeyPatch, form: Form, *connections: list[float]
) -> tuple[list[Begin], list[list[int]], list[str]]:
    """What a reader gives out of connections, each with a frame at each of these seconds: (segments, when the frames of
    each are shown, in milliseconds from T0 on, notes)."""
    clock = Clock()
    left = list(connections)
    done = threading.Event()

    @contextmanager
    def open_camera(*_: object, **__: object) -> Iterator[Connection]:
        if not left:
            done.set()
            raise CameraError("there is no more")
        with av.open(BytesIO(numbered(form, 30)), "r") as container:
            stream = container.streams.video[0]
            yield Connection(stream, None, play(container, left.pop(0)))

    def play(container: Any, seconds: list[float]) -> Iterator[Any]:
        packets = (packet for packet in container.demux(video=0) if packet.size)
        for at, packet in zip(seconds, packets, strict=False):
            time.sleep(0.003)  # what has just arrived was waited for
            clock.us = T0 + round(at * SECOND)
            packet.pts = packet.dts = round(at * 1000)
            yield packet
        raise CameraError("it is lost")

    monkeypatch.setattr(reading, "open_camera", open_camera)
    monkeypatch.setattr(reading, "_FIRST_PAUSE_S", 0.001)
    notes: list[str] = []
    source = Source(origin="", name="", pattern="", timezone="UTC", feed=LiveFeed(address="test:"))
    reader = LiveReader(source, Live(), clock, note=notes.append)
    reader.start()
    assert done.wait(30)
    reader.abandon()
    segments: list[Begin] = []
    shown: list[list[int]] = []
    for message in reader:
        if isinstance(message, Begin):
            segments.append(message)
            shown.append([])
        elif isinstance(message, Packets):
            shown[-1] += [
                round((segments[-1].origin_us + segments[-1].video.time_base.us(packet.pts) - T0) / 1000)
                for packet in message.packets
            ]
    return segments, shown, notes


def test_a_connection_is_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [n / 10 for n in range(10)]
    segments, shown, notes = messages(monkeypatch, PICTURES, frames)
    assert [segment.placement.join for segment in segments] == [Join.FIRST]
    assert shown == [[round(at * 1000) for at in frames]]
    assert notes == ["it is lost; trying again", "there is no more; trying again"]


def test_one_that_comes_back_leaves_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    segments, shown, _ = messages(monkeypatch, PICTURES, [0, 0.1, 0.2], [5, 5.1])
    assert [segment.placement.join for segment in segments] == [Join.FIRST, Join.GAP]
    assert shown == [[0, 100, 200], [5000, 5100]]


def test_a_hole_begins_a_segment_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    segments, shown, _ = messages(monkeypatch, PICTURES, [0, 0.1, 0.2, 3, 3.1])
    assert [segment.placement.join for segment in segments] == [Join.FIRST, Join.CONTIGUOUS]
    assert segments[1].placement.gap_us > 2 * SECOND
    assert shown == [[0, 100, 200], [3000, 3100]]


def test_few_frames_are_no_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    segments, shown, _ = messages(monkeypatch, PICTURES, [2.5 * n for n in range(8)])
    assert len(segments) <= 2
    assert [at for each in shown for at in each] == [2500 * n for n in range(8)]


def test_it_begins_with_a_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [n / 10 for n in range(12)]
    segments, shown, _ = messages(monkeypatch, GROUPS, frames, [9 + at for at in frames])
    assert [segment.placement.join for segment in segments] == [Join.FIRST, Join.GAP]
    assert shown[0][0] == 0


def test_a_full_queue_is_given_up_to_the_next_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LONGEST_QUEUE", 1500)
    _, shown, notes = messages(monkeypatch, PICTURES, [n / 10 for n in range(20)])
    assert "it is written more slowly than it comes; left out is what comes up to the next key frame" in notes
    assert sum(map(len, shown)) < 20
