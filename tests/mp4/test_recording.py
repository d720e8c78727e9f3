"""The reader of tables, against libav's reading of the same files."""

from __future__ import annotations

import io
import struct
from array import array
from collections.abc import Callable
from typing import Any

import av
import pytest

from tests.mp4.material import WRITERS, read, written
from vx.mp4.boxes import Mp4Error, Span, make
from vx.mp4.movie import Track
from vx.mp4.recording import UnderWayError, check_places
from vx.mp4.tables import Chunks, expand


def packets_of(data: bytes) -> list[list[Any]]:
    """libav's packets of each track."""
    with av.open(io.BytesIO(data), "r") as container:
        found: list[list[Any]] = [[] for _ in container.streams]
        for packet in container.demux():
            if packet.size:
                found[packet.stream_index].append(packet)
        return found


def offsets(track: Track) -> list[int]:
    return [offset for offset, _ in track.samples.places()]


@pytest.mark.parametrize("name", WRITERS)
def test_every_sample_is_what_libav_finds(name: str) -> None:
    data = written(name)
    recording = read(data)
    assert recording.is_whole
    assert recording.is_fragmented == ("fragment" in name or "later" in name)
    for track, packets in zip(recording.tracks, packets_of(data), strict=True):
        samples = track.samples
        assert list(samples.sizes) == [packet.size for packet in packets]
        assert offsets(track) == [packet.pos for packet in packets]
        assert [at - track.origin for at in samples.shown()] == [packet.pts for packet in packets]
        assert list(expand(samples.deltas)) == [packet.duration for packet in packets]
        if track.handler == b"vide":
            assert list(samples.keys) == [i for i, packet in enumerate(packets) if packet.is_keyframe]


@pytest.mark.parametrize("name", ["flat with B-frames", "fragments", "H.265"])
def test_what_a_decoder_needs_is_what_libav_finds(name: str) -> None:
    data = written(name)
    with av.open(io.BytesIO(data)) as container:
        for track, stream in zip(read(data).tracks, container.streams, strict=True):
            assert track.description is not None
            assert track.description.configuration == bytes(stream.codec_context.extradata or b"")
            assert track.description.codec == stream.codec_context.name
            assert stream.time_base == pytest.approx(1 / track.timescale)


def test_only_the_tables_are_read() -> None:
    asked: list[tuple[int, int]] = []
    data = written("flat")
    read(data, asked=asked)
    assert sum(length for _, length in asked) < len(data) // 4


def test_what_recorders_put_in_between_does_not_matter() -> None:
    """Boxes of a recorder's own between a file's boxes, and in its moov box."""
    data = written("short fragments")
    plain = read(data)
    strange = make(b"mtxi", bytes(20)) + make(b"uuid", bytes(40))
    boxes = []
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        box = data[at : at + size]
        boxes.append(make(b"moov", strange, box[8:], strange) if kind == b"moov" else box)
        boxes.append(b"" if kind == b"moof" else strange)
        at += size
    again = read(b"".join(boxes))
    for track, other in zip(plain.tracks, again.tracks, strict=True):
        assert track.samples.sizes == other.samples.sizes
        assert track.samples.shown() == other.samples.shown()


def test_a_file_that_is_being_written_ends_with_its_last_whole_fragment() -> None:
    data = written("short fragments")
    whole = len(read(data).tracks[0].samples)
    counts = set()
    for end in range(len(data) // 2, len(data), 997):
        recording = read(data[:end])
        counts.add(len(recording.tracks[0].samples))
        for track in recording.tracks:
            assert all(offset + size <= end for offset, size in track.samples.places())
    assert min(counts) < whole // 2 + 10
    assert len(counts) > 5


def test_a_flat_file_without_its_table_is_under_way() -> None:
    data = written("flat")
    with pytest.raises(UnderWayError, match="still being written"):
        read(data[: len(data) // 2])
    with pytest.raises(Mp4Error, match=r"reach beyond its end|truncated"):
        read(written("table first")[:-1000])
    with pytest.raises(Mp4Error, match="no MP4"):
        read(bytes(1000))


def boxes_in(path: str) -> tuple[int, int]:
    """Where a box of the flat file is, by the boxes that it is in."""
    data = written("flat with B-frames")
    begin, end = 0, len(data)
    for kind in path.split("/"):
        at = begin
        while data[at + 4 : at + 8] != kind.encode():
            at += struct.unpack_from(">I", data, at)[0]
        begin, end = at + 8, at + struct.unpack_from(">I", data, at)[0]
    return begin, end


STBL = "moov/trak/mdia/minf/stbl"


def put(path: str, at: int, number: int) -> bytes:
    """The flat file with another 32-bit number in a box of its first track."""
    data = bytearray(written("flat with B-frames"))
    struct.pack_into(">I", data, boxes_in(path)[0] + at, number)
    return bytes(data)


def rename(kind: str, other: str) -> bytes:
    """The flat file with the first of these names changed."""
    return written("flat with B-frames").replace(kind.encode(), other.encode(), 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: put(f"{STBL}/stsz", 8, 101), "stsz box is cut short"),
        (lambda: put(f"{STBL}/stsz", 8, 0xFFFFFFFF), "4294967295 samples"),
        (lambda: put(f"{STBL}/stsz", 4, 0xFFFF), "more samples than the file has bytes for"),
        (lambda: put(f"{STBL}/stsz", 4, 3), "its samples have 3 bytes each"),
        (lambda: put(f"{STBL}/stsz", 12, 0x7FFFFFFF), "more samples than the file has bytes for"),
        (lambda: put(f"{STBL}/stts", 8, 99), "stts box is of another number"),
        (lambda: put(f"{STBL}/stts", 12, 0), "two of its samples have the same time"),
        (lambda: put(f"{STBL}/ctts", 8, 5), "ctts box is of another number"),
        (lambda: put(f"{STBL}/ctts", 12, 0x70000000), "long after it is decoded"),
        (lambda: put(f"{STBL}/stsc", 8, 2), "stsc box makes no sense"),
        (lambda: put(f"{STBL}/stsc", 16, 2), "stsc box makes no sense"),
        (lambda: put(f"{STBL}/stss", 8, 26), "stss box makes no sense"),
        (lambda: put(f"{STBL}/stco", 8, 8), "not in its mdat boxes"),
        (lambda: put(f"{STBL}/stco", 4, 0xFFFFFF), "cut short"),
        (lambda: put(f"{STBL}/stsd", 4, 2), "2 descriptions"),
        (lambda: put("moov/trak/mdia/mdhd", 12, 0), "0 ticks a second"),
        (lambda: put("moov/trak/mdia/mdhd", 0, 2 << 24), "mdhd box is of version 2"),
        (lambda: put("moov/trak/edts/elst", 4, 3), "an edit list of 3 parts"),
        (lambda: put("moov/trak/edts/elst", 4, 0), "an edit list of 0 parts"),
        (lambda: put("moov/trak/edts/elst", 8, 0), "edit list shows nothing"),
        (lambda: put("moov/trak/edts/elst", 12, 5000), "edit list begins with another picture"),
        (lambda: put(f"{STBL}/stss", 4, 0), "no key frame"),
        (lambda: put(f"{STBL}/stsz", 12, 0), "one of its samples is empty"),
        (lambda: rename("tkhd", "trun"), "'trun' box in the wrong place"),
        (lambda: put("moov/trak/mdia/hdlr", 8, 0), "a track of an unknown kind"),
        (lambda: rename("vmhd", "stbl"), "2 stbl boxes"),
    ],
)
def test_tables_that_make_no_sense_are_refused(change: Callable[[], bytes], says: str) -> None:
    with pytest.raises(Mp4Error, match=says):
        read(change())


def test_samples_that_overlap_are_refused() -> None:
    begin, _ = boxes_in(f"{STBL}/stco")
    data = written("flat with B-frames")
    (second,) = struct.unpack_from(">I", data, begin + 12)
    with pytest.raises(Mp4Error, match=r"overlap|mdat"):
        read(put(f"{STBL}/stco", 8, second - 1))


def test_lengths_of_other_than_four_bytes_are_refused() -> None:
    begin, end = boxes_in(f"{STBL}/stsd")
    data = bytearray(written("flat with B-frames"))
    at = data.index(b"avcC", begin, end)
    data[at + 8] &= ~3
    with pytest.raises(Mp4Error, match="lengths of 1 bytes"):
        read(bytes(data))


def test_fragments_that_go_back_are_refused() -> None:
    data = bytearray(written("short fragments"))
    at = data.rindex(b"tfdt")
    data[at + 8 : at + 16] = bytes(8)
    with pytest.raises(Mp4Error, match="go back in time"):
        read(bytes(data))


def test_fragments_behind_a_sample_that_is_shown_before_it_is_decoded_are_refused() -> None:
    """libav shows all of their pictures later."""
    data = bytearray(written("fragments behind samples"))
    table = data.index(b"ctts")
    struct.pack_into(">i", data, table + 16, -512)
    with pytest.raises(Mp4Error, match="ahead of the fragments is shown before it is decoded"):
        read(bytes(data))


@pytest.mark.parametrize("offset", [101, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_place_outside_is_refused_however_large_its_number_is(offset: int) -> None:
    track = read(written("flat")).tracks[0]
    track.samples.chunks = Chunks(array("Q", [10, offset]), array("Q", [5, 20]), array("I", [1, 1]))
    with pytest.raises(Mp4Error, match="not in its mdat boxes"):
        check_places([track], [Span(0, 100)])


def test_samples_without_an_mdat_box_are_refused() -> None:
    track = read(written("flat")).tracks[0]
    track.samples.chunks = Chunks(array("Q", [0]), array("Q", [0]), array("I", [1]))
    with pytest.raises(Mp4Error, match="not in its mdat boxes"):
        check_places([track], [])
    track.samples.sizes = array("I")
    assert check_places([track], []) == []


def test_what_an_edit_list_leaves_out_at_the_end_is_told() -> None:
    """It may be in the middle: the last picture shown need not be the last one of the file."""
    (video, _) = read(written("flat with B-frames")).tracks
    assert video.whole_until is None
    at = boxes_in(f"{STBL}/ctts")[0] + 12 + 8 * 20
    data = bytearray(written("flat with B-frames"))
    struct.pack_into(">I", data, at, 15 * video.timescale)
    (video, _) = read(bytes(data)).tracks
    assert video.whole_until == video.origin + 4 * video.timescale


def test_an_edit_list_that_ends_where_the_last_sample_begins_leaves_it_out() -> None:
    (_, sound) = read(written("flat")).tracks
    begin = struct.pack(">iI", 1024, 1 << 16)
    data = written("flat")
    at = data.index(begin) - 4
    frame_ms = 1024 * 1000 // sound.timescale
    for less_ms, is_hidden in ((0, False), (2 * frame_ms, True)):
        (length,) = struct.unpack_from(">I", data, at)
        again = data[:at] + struct.pack(">I", length - less_ms) + data[at + 4 :]
        assert (read(again).tracks[1].whole_until is not None) == is_hidden


def test_fragments_of_a_track_that_is_not_there_are_refused() -> None:
    data = bytearray(written("short fragments"))
    at = data.rindex(b"tfhd")
    struct.pack_into(">I", data, at + 8, 9)
    with pytest.raises(Mp4Error, match="of track 9, which it doesn't have"):
        read(bytes(data))


def test_sound_that_no_decoder_is_told_of_is_refused() -> None:
    (_, sound) = read(written("flat")).tracks
    assert sound.description is not None
    config = sound.description.configuration
    # no kind of AAC that there is, a rate of its own, channels that aren't told
    for strange in (b"\xff\xff", b"\x17\x80", b"\x11\x80"):
        with pytest.raises(Mp4Error, match="its sound is of an unusual form"):
            read(written("flat").replace(config, strange + config[2:]))


def test_sound_of_samples_of_one_tick_is_refused() -> None:
    data = written("flat")
    (_, sound) = read(data).tracks
    ((count, _), *_) = sound.samples.deltas
    told = struct.pack(">II", count, 1024)
    again = data.replace(told, struct.pack(">II", count, 1))
    rest = struct.pack(">II", len(sound.samples) - count, sound.samples.deltas[-1][1])
    with pytest.raises(Mp4Error, match="isn't compressed"):
        read(again.replace(rest, struct.pack(">II", len(sound.samples) - count, 1)))
