"""A file under way ends wherever the disk filled up; all that is ahead of that is kept."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import pytest

from tests.material import FakeLink, numbered
from tools.make_recordings import Form
from vx.jobs import PartFile
from vx.media.files import salvage
from vx.media.files.muxing import _OPTIONS
from vx.media.files.results import Target

PART = PartFile(part_name="clip.mp4.part", name="clip.mp4", mime_type="video/mp4", first_us=0)


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What is on the disk of a clip of 40 s before it is closed."""
    path = tmp_path_factory.mktemp("cut_off") / "clip.mp4"
    with (
        av.open(io.BytesIO(numbered(Form(b_frames=2, audio=True), 1000)), "r") as source,
        av.open(str(path), "w", container_options=_OPTIONS["mp4"]) as output,
    ):
        streams = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux_one(packet)
        return path.read_bytes()


def boxes(data: bytes) -> list[tuple[int, int, bytes]]:
    found, at = [], 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found.append((at, length, kind))
        at += length
    return found


def test_a_file_that_ends_within_a_fragments_table_is_kept_up_to_there(under_way: bytes, tmp_path: Path) -> None:
    tables = [(at, length) for at, length, kind in boxes(under_way) if kind == b"moof"]
    at, length = tables[10]
    lasts = set()
    for cut in range(0, length, 64):
        (tmp_path / PART.part_name).write_bytes(under_way[: at + cut])
        link = FakeLink()
        assert salvage.keep(Target(str(tmp_path), PART), link), cut
        lasts.add(link.done[0].last_us)
        assert (tmp_path / PART.name).read_bytes()[:at] == under_way[:at]
    (last_us,) = lasts
    assert last_us > 9_000_000


def test_a_file_that_ends_within_pictures_is_kept(under_way: bytes, tmp_path: Path) -> None:
    at, length, _ = [box for box in boxes(under_way) if box[2] == b"mdat"][10]
    for cut in range(16, length, 2000):
        (tmp_path / PART.part_name).write_bytes(under_way[: at + cut])
        assert salvage.keep(Target(str(tmp_path), PART), FakeLink()), cut
