"""What libav says of a recording, as the judge of what vx.mp4 has read of the same bytes."""

from __future__ import annotations

import io
import json
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av

from vx.mp4.movie import Track
from vx.mp4.recording import Recording

_KINDS = {b"vide": "video", b"soun": "audio"}
_OPTIONS = {
    "probesize": "32",  # the tables are judged, not what they point to
    "analyzeduration": "0",
    "fflags": "noparse+nofillin",
}


class Packet(NamedTuple):
    """A sample, as libav's demuxer gives it."""

    place: int
    size: int
    shown: int
    decoded: int
    is_key: bool
    data: bytes = b""


class Stream(NamedTuple):
    """A track, as libav sees it."""

    kind: str
    codec: str
    extradata: bytes
    time_base: Fraction | None
    packets: list[Packet]


_READ = {
    b"": (b"ftyp", b"moov", b"moof", b"mdat"),
    b"moov": (b"mvhd", b"trak", b"mvex"),
    b"trak": (b"tkhd", b"edts", b"mdia"),
    b"edts": (b"elst",),
    b"mdia": (b"mdhd", b"hdlr", b"minf"),
    b"minf": (b"dinf", b"stbl"),
    b"dinf": (b"dref",),
    b"stbl": (b"stsd", b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"co64", b"stss"),
    b"mvex": (b"trex",),
    b"moof": (b"mfhd", b"traf"),
    b"traf": (b"tfhd", b"tfdt", b"trun"),
}
"""What is read of each box."""


def _tables_alone(data: bytes) -> bytes:
    """The file with `free` boxes in the place of all that isn't read."""
    kept = bytearray(data)

    def blank(at: int, end: int, parent: bytes) -> None:
        while at + 8 <= end:
            size, kind = struct.unpack_from(">I4s", data, at)
            length = 8
            if size == 1 and at + 16 <= end:
                (size,) = struct.unpack_from(">Q", data, at + 8)
                length = 16
            size = size or end - at
            if kind not in _READ[parent]:
                kept[at + 4 : at + 8] = b"free"
            elif kind in _READ:
                blank(at + length, min(end, at + size), kind)
            at += size

    blank(0, len(data), b"")
    return bytes(kept)


def streams_of(data: bytes, *, with_data: bool = False) -> dict[int, Stream]:
    """All tracks by their numbers, as PyAV's libav finds them. av.FFmpegError or MemoryError where it fails.

    Where it fails, that may be for the sake of damage to what isn't read here (indexes, notes): then it is asked about
    the tables alone.
    """
    try:
        return _streams_of(data, with_data=with_data)
    except av.FFmpegError:
        return _streams_of(_tables_alone(data), with_data=with_data)


def _streams_of(data: bytes, *, with_data: bool) -> dict[int, Stream]:
    with av.open(io.BytesIO(data), "r", format="mp4", options=_OPTIONS, metadata_errors="replace") as container:
        found: dict[int, Stream] = {}
        by_index: dict[int, Stream] = {}
        for stream in container.streams:
            context: Any = stream.codec_context
            codec, extradata = ("", b"") if context is None else (context.name, bytes(context.extradata or b""))
            told = Stream(stream.type, codec, extradata, stream.time_base, [])
            found[stream.id & 0xFFFFFFFF] = by_index[stream.index] = told
        packet: Any
        for packet in container.demux():
            if packet.size:
                content = bytes(packet) if with_data else b""
                by_index[packet.stream_index].packets.append(
                    Packet(packet.pos, packet.size, packet.pts, packet.dts, packet.is_keyframe, content)
                )
        return found


def is_usable(recording: Recording) -> bool:
    """Whether clips are served from such a recording at all; what stands in the way is said by vx.media.virtual.

    Edit lists that hide something, tracks of other codecs: libav leaves out what is hidden, and vx has libav do it.
    """
    tracks = [track for track in recording.tracks if track.handler in _KINDS]
    pictures = [track for track in tracks if track.handler == b"vide" and len(track.samples)]
    return (
        bool(pictures)
        and all(min(track.samples.shown()) >= track.origin for track in pictures)
        and all(track.description is not None and track.whole_until is None for track in tracks)
        and all(track.origin - track.samples.start <= track.timescale for track in tracks if track.handler == b"soun")
    )


def difference(recording: Recording, data: bytes) -> str:
    """What libav sees otherwise in these bytes; empty: nothing. `recording` is usable.

    Where a file ends within a fragment, libav takes what it finds of it; only what is ahead of it is judged. Of sound
    every sample counts as a key frame. How long a sample lasts is until the next one is decoded; of the last one libav
    says what it likes.
    """
    tracks = [track for track in recording.tracks if track.description is not None]
    if not recording.is_whole:
        data = data[: max(at + size for track in tracks for at, size in track.samples.places())]
    try:
        streams = streams_of(data)
    except (av.FFmpegError, MemoryError, ValueError) as error:
        return f"libav fails: {error}"
    for track in tracks:
        if track.id not in streams:
            return f"there is no track {track.id}"
        told = _difference(track, streams[track.id])
        if told:
            return f"{track.handler.decode()}: {told}"
    return ""


def _difference(track: Track, stream: Stream) -> str:
    about = track.description
    assert about is not None, "the caller has looked"
    kind = _KINDS[track.handler], about.codec, about.configuration, Fraction(1, track.timescale)
    if kind != stream[:4]:
        return f"{kind} is {stream[:4]}"
    return _difference_of_samples(track, stream.packets)


def _difference_of_samples(track: Track, packets: list[Packet]) -> str:
    samples = track.samples
    if len(samples) != len(packets):
        return f"{len(samples)} samples are {len(packets)}"
    shown = [at - track.origin for at in samples.shown()]
    keys = set(samples.keys) if track.handler == b"vide" else range(len(samples))
    delay = samples.start - packets[0].decoded if packets else 0
    columns = zip(samples.places(), shown, samples.decoded(), packets, strict=True)
    for number, (place, at, decoded, packet) in enumerate(columns):
        ours = Packet(*place, at, decoded - delay, number in keys)
        theirs = packet if track.handler == b"vide" else packet._replace(is_key=True)
        if ours != theirs:
            return f"sample {number} is {theirs}, and not {ours}"
    return ""


def difference_by_ffprobe(recording: Recording, path: Path) -> str:
    """The same by Debian's ffprobe, of a whole recording on the disk."""
    options = "-v quiet -f mp4 -fflags +noparse+nofillin -probesize 32 -analyzeduration 0 -show_packets -show_streams"
    command = ["ffprobe", *options.split(), "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        return "ffprobe fails"
    told = json.loads(done.stdout)
    packets: dict[int, list[Packet]] = {int(each["id"], 0) & 0xFFFFFFFF: [] for each in told["streams"]}
    numbers = {each["index"]: int(each["id"], 0) & 0xFFFFFFFF for each in told["streams"]}
    for each in told["packets"]:
        if int(each["size"]):
            packets[numbers[each["stream_index"]]].append(
                Packet(int(each["pos"]), int(each["size"]), each["pts"], each["dts"], "K" in each["flags"])
            )
    for track in recording.tracks:
        if track.description is not None and (told := _difference_of_samples(track, packets[track.id])):
            return f"{track.handler.decode()}: {told}"
    return ""
