"""NAL units: which pictures stand alone, against what libav's parsers say."""

from __future__ import annotations

import io
from typing import Any

import av
import pytest

from tests.material import numbered
from tools.make_recordings import Form as Footage
from vx.media.packets.nal import Form

OPEN_H265 = (("preset", "ultrafast"), ("x265-params", "log-level=none:open-gop=1:keyint=10:min-keyint=10:bframes=3"))


@pytest.mark.parametrize(
    ("footage", "anew"),
    [
        (Footage(gop=10, b_frames=2), 4),
        (Footage(gop=10, options=(("x264-params", "slices=3"), ("preset", "veryfast"))), 4),
        (Footage(gop=10, b_frames=2, options=(("x264-params", "open-gop=1"), ("preset", "veryfast"))), 1),
        (Footage(codec="libx265", options=OPEN_H265), 1),
    ],
)
def test_pictures_that_stand_alone(footage: Footage, anew: int) -> None:
    """Key frames that others look back past stand alone too; only IDR pictures start anew."""
    with av.open(io.BytesIO(numbered(footage, 40)), "r") as container:
        stream = container.streams.video[0]
        form = Form.of(stream.codec_context.name, bytes(stream.codec_context.extradata or b""))
        assert form is not None
        packets: list[Any] = [packet for packet in container.demux(stream) if packet.size]
        units = [form.split(bytes(packet)) for packet in packets]
    assert [form.stands_alone(each) for each in units] == [packet.is_keyframe for packet in packets]
    assert sum(form.stands_alone(each) for each in units) >= 4
    assert sum(form.starts_anew(each) for each in units) == anew
    with pytest.raises(ValueError, match="without the numbers"):
        Form("h264", 4).stands_alone([b"\x41"])
