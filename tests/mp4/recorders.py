"""Recordings as the recorders of the field write them, box by box: what is public of their formats, in small.

The footage is numbered (tests.material); each file holds whole groups of pictures from a second on, and the sound that
goes with them.
"""

from __future__ import annotations

import functools
import io
import itertools
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av

from tests.material import numbered
from tools.make_recordings import SAMPLE_RATE, Form
from vx.mp4.boxes import make, make_full

RATE = 25
_MOVIE_SCALE = 1000
_KEY, _NO_KEY = 0x02000000, 0x01010000
_AAC_FRAME = 1024
_UPRIGHT = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
TURNED = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 320 << 16, 0, 0x40000000)
"""By 90 degrees, clockwise, as a phone that is held upright says it."""


@dataclass(frozen=True)
class Sample:
    """Times in ticks of its track."""

    data: bytes
    decoded: int
    shown: int
    is_key: bool


@dataclass(frozen=True)
class TrackOf:
    """A track of a recording to be written."""

    id: int
    handler: bytes
    timescale: int
    entry: bytes
    samples: Sequence[Sample]
    matrix: bytes = _UPRIGHT
    edits: Sequence[tuple[int, int]] = ()
    """Duration in ticks of the movie, and where in the media it begins."""
    last: int = 0
    """How long the last sample lasts."""
    size: tuple[int, int] = (0, 0)

    @property
    def lasting(self) -> list[int]:
        """How long each sample lasts."""
        times = [sample.decoded for sample in self.samples]
        return [b - a for a, b in itertools.pairwise(times)] + [self.last]


@functools.cache
def _packets(form: Form, frames: int) -> tuple[list[tuple[int, bytes, bool]], list[bytes], bytes, bytes]:
    """Pictures with the number of the frame that they show, sound, and what decoders need."""
    with av.open(io.BytesIO(numbered(form, frames)), "r") as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        pictures: list[tuple[int, bytes, bool]] = []
        sound: list[bytes] = []
        packet: Any
        for packet in container.demux():
            if packet.size and packet.stream.type == "video":
                number = round(packet.pts * packet.time_base * RATE)
                pictures.append((number, bytes(packet), packet.is_keyframe))
            elif packet.size:
                sound.append(bytes(packet))
        extradata = bytes(video.codec_context.extradata or b""), bytes(audio.codec_context.extradata or b"")
        return pictures, sound, *extradata


def tracks(form: Form, begin_s: int, end_s: int, *, timescale: int = 90_000) -> tuple[TrackOf, TrackOf]:
    """Pictures and sound of some seconds, the first picture of which is shown at 0."""
    pictures, sound, avcc, asc = _packets(form, 300)
    taken = [(n - begin_s * RATE, data, key) for n, data, key in pictures if begin_s * RATE <= n < end_s * RATE]
    step = timescale // RATE
    delay = max(place - number for place, (number, _, _) in enumerate(taken))
    samples = [
        Sample(data, (place - delay) * step, number * step, key) for place, (number, data, key) in enumerate(taken)
    ]
    video = TrackOf(
        1, b"vide", timescale, _avc1(form, avcc), samples, last=step, size=(form.width << 16, form.height << 16)
    )
    first, last = (at * SAMPLE_RATE // _AAC_FRAME for at in (begin_s, end_s))
    begin = first * _AAC_FRAME - begin_s * SAMPLE_RATE
    heard = [
        Sample(data, max(0, begin) + i * _AAC_FRAME, max(0, begin) + i * _AAC_FRAME, True)
        for i, data in enumerate(sound[first:last])
    ]
    return video, TrackOf(2, b"soun", SAMPLE_RATE, _mp4a(asc), heard, last=_AAC_FRAME)


def from_zero(track: TrackOf) -> TrackOf:
    """The track with the first sample decoded at 0, and shown so much later: what a file can say without edit lists."""
    early = track.samples[0].decoded
    moved = [replace(each, decoded=each.decoded - early, shown=each.shown - early) for each in track.samples]
    return replace(track, samples=moved)


def _avc1(form: Form, avcc: bytes) -> bytes:
    fields = struct.pack(">6xH16xHHIII H32xHh", 1, form.width, form.height, 0x480000, 0x480000, 0, 1, 0x18, -1)
    colours = make(b"colr", b"nclx", struct.pack(">HHHB", 6, 6, 6, 0))
    return make(b"avc1", fields, make(b"avcC", avcc), colours, make(b"pasp", struct.pack(">II", 1, 1)))


def _mp4a(asc: bytes) -> bytes:
    own = bytes([5, len(asc)]) + asc
    decoder = struct.pack(">BBBHII", 0x40, 0x15, 0, 768, 128_000, 96_000) + own
    stream = struct.pack(">HB", 2, 0) + bytes([4, len(decoder)]) + decoder + b"\x06\x01\x02"
    esds = make_full(b"esds", 0, 0, bytes([3, len(stream)]) + stream)
    return make(b"mp4a", struct.pack(">6xH8xHH4xI", 1, 1, 16, SAMPLE_RATE << 16), esds)


def _mvhd(duration: int) -> bytes:
    return make_full(
        b"mvhd", 0, 0, struct.pack(">IIIIIH10x", 0, 0, _MOVIE_SCALE, duration, 0x10000, 0x100), _UPRIGHT, bytes(28)
    )


def _trak(track: TrackOf, tables: bytes, duration: int) -> bytes:
    head = struct.pack(">IIIII8xHHHH", 0, 0, track.id, 0, duration, 0, 0, 0x100 if track.handler == b"soun" else 0, 0)
    parts = [make_full(b"tkhd", 0, 7, head, track.matrix, struct.pack(">II", *track.size))]
    if track.edits:
        edits = b"".join(struct.pack(">IiI", length, begin, 0x10000) for length, begin in track.edits)
        parts.append(make(b"edts", make_full(b"elst", 0, 0, struct.pack(">I", len(track.edits)), edits)))
    mdhd = make_full(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, track.timescale, 0, 0x55C4, 0))
    hdlr = make_full(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, track.handler), b"Handler\0")
    kind = make_full(b"vmhd", 0, 1, bytes(8)) if track.handler == b"vide" else make_full(b"smhd", 0, 0, bytes(4))
    dinf = make(b"dinf", make_full(b"dref", 0, 0, struct.pack(">I", 1), make_full(b"url ", 0, 1)))
    return make(b"trak", *parts, make(b"mdia", mdhd, hdlr, make(b"minf", kind, dinf, make(b"stbl", tables))))


def _table(kind: bytes, *rows: Sequence[int], width: str = "I") -> bytes:
    return make_full(
        kind, 0, 0, struct.pack(">I", len(rows)), *(struct.pack(f">{len(row)}{width}", *row) for row in rows)
    )


def _stsd(track: TrackOf) -> bytes:
    return make_full(b"stsd", 0, 0, struct.pack(">I", 1), track.entry)


def _flat_tables(track: TrackOf, offsets: Sequence[int], per_chunk: int) -> bytes:
    """As a flat file has them, with 64-bit places."""
    runs = [(len(list(group)), value) for value, group in itertools.groupby(track.lasting)]
    shifts = [sample.shown - sample.decoded for sample in track.samples]
    keys = [(number + 1,) for number, sample in enumerate(track.samples) if sample.is_key]
    full, rest = divmod(len(track.samples), per_chunk)
    chunks = [(1, per_chunk, 1)] * bool(full) + [(full + 1, rest, 1)] * bool(rest)
    sizes = struct.pack(f">II{len(track.samples)}I", 0, len(track.samples), *(len(s.data) for s in track.samples))
    return b"".join(
        [
            _stsd(track),
            _table(b"stts", *runs),
            _table(b"ctts", *((1, shift) for shift in shifts)) if any(shifts) else b"",
            _table(b"stss", *keys) if track.handler == b"vide" else b"",
            make_full(b"stsz", 0, 0, sizes),
            _table(b"stsc", *chunks),
            _table(b"co64", *((at,) for at in offsets), width="Q"),
        ]
    )


def phone(form: Form, begin_s: int, end_s: int, *, trimmed_s: int = 0) -> bytes:
    """As Android's camera writes it: the table last, 64-bit places, uneven times, turned, sound that begins later.

    Its video track has a rate of its own that jitters by a few ticks; an empty edit says when the sound begins.
    `trimmed_s`: its owner has cut off so much of the begin, which an edit list says.
    """
    video, audio = tracks(form, begin_s, end_s)
    uneven = [
        replace(sample, decoded=sample.decoded + wobble, shown=sample.shown + wobble)
        for sample, wobble in zip(video.samples, itertools.cycle((0, 7, -11, 4, 13)), strict=False)
    ]
    length = (end_s - begin_s) * _MOVIE_SCALE
    late = 23 * _MOVIE_SCALE // 1000
    video = replace(from_zero(replace(video, samples=uneven)), matrix=TURNED)
    begin = min(sample.shown for sample in video.samples)
    video = replace(video, edits=[(length, begin + trimmed_s * video.timescale)] if begin + trimmed_s else ())
    audio = replace(audio, edits=[(late, -1), (length + 50, 0)])
    ftyp = make(b"ftyp", b"mp42", bytes(4), b"isom", b"mp42")
    at = len(ftyp) + 64 + 16
    media: list[bytes] = []
    offsets: dict[int, list[int]] = {1: [], 2: []}
    for number in range(0, len(video.samples), 5):
        for track, chunk in (
            (video, video.samples[number : number + 5]),
            (audio, audio.samples[number // 5 * 9 : number // 5 * 9 + 9]),
        ):
            if chunk:
                offsets[track.id].append(at)
                media += [sample.data for sample in chunk]
                at += sum(len(sample.data) for sample in chunk)
    audio = replace(audio, samples=audio.samples[: 9 * len(offsets[2])])
    keys = make_full(b"keys", 0, 0, struct.pack(">II4s", 1, 27, b"mdta"), b"com.android.version")
    hdlr = make_full(b"hdlr", 0, 0, struct.pack(">I4s13x", 0, b"mdta"))
    moov = make(
        b"moov",
        _mvhd(length),
        make(b"meta", bytes(4), hdlr, keys),
        _trak(video, _flat_tables(video, offsets[1], 5), length),
        _trak(audio, _flat_tables(audio, offsets[2], 9), length),
        make(b"udta", make(b"\xa9xyz", struct.pack(">HH", 18, 0x15C7), b"+50.0000+010.0000/")),
    )
    mdat = struct.pack(">I4sQ", 1, b"mdat", 16 + sum(map(len, media)))
    return b"".join([ftyp, make(b"free", bytes(56)), mdat, *media, moov])


def _empty_moov(of: Sequence[TrackOf], *more: bytes, length: int = 0) -> bytes:
    """The table of a file in fragments."""
    traks = []
    for track in of:
        tables = [_stsd(track), *(make_full(kind, 0, 0, bytes(4)) for kind in (b"stts", b"stsc", b"stco"))]
        traks.append(_trak(track, b"".join([*tables, make_full(b"stsz", 0, 0, bytes(8))]), 0))
    trex = [
        make_full(b"trex", 0, 0, struct.pack(">5I", t.id, 1, t.last, 0, _KEY if t.handler == b"soun" else _NO_KEY))
        for t in of
    ]
    return make(b"moov", _mvhd(length), *traks, make(b"mvex", *trex), *more)


def _in_seconds(track: TrackOf, length_s: float) -> list[list[tuple[Sample, int]]]:
    """Its samples, and how long they last, of each stretch of so many seconds, by when they are decoded."""
    parts: dict[int, list[tuple[Sample, int]]] = {}
    begin = track.samples[0].decoded
    for sample, lasts in zip(track.samples, track.lasting, strict=True):
        parts.setdefault(int((sample.decoded - begin) / track.timescale / length_s), []).append((sample, lasts))
    return [parts[number] for number in sorted(parts)]


def mediamtx(form: Form, begin_s: int, end_s: int, *, all_keys: bool = False) -> bytes:
    """As MediaMTX writes it: parts of a second, each with a run for each track; a box of its own names the stream.

    `all_keys`: as by recorders that don't know which pictures are key frames, and call them all so.
    """
    of = [from_zero(track) for track in tracks(form, begin_s, end_s)]
    if all_keys:
        of[0] = replace(of[0], samples=[replace(sample, is_key=True) for sample in of[0].samples])
    mtxi = make_full(b"mtxi", 0, 0, bytes(16), struct.pack(">QQQ", 3, 0, 1_778_486_400_000_000_000))
    ftyp = make(b"ftyp", b"mp42", struct.pack(">I", 1), b"mp41", b"mp42", b"isom", b"hlsf")
    moov = _empty_moov(of, make(b"udta", mtxi), length=(end_s - begin_s) * _MOVIE_SCALE)
    boxes = [ftyp, moov]
    for number, parts in enumerate(zip(*(_in_seconds(track, 1) for track in of), strict=False)):
        boxes += _part(number, list(zip(of, parts, strict=True)))
    return b"".join(boxes)


def _part(number: int, parts: Sequence[tuple[TrackOf, list[tuple[Sample, int]]]]) -> list[bytes]:
    """A moof that says all of each sample, relative to itself, and its mdat."""

    def moof(offset: int) -> bytes:
        trafs = []
        for track, samples in parts:
            rows = b"".join(
                struct.pack(">IIIi", lasts, len(s.data), _KEY if s.is_key else _NO_KEY, s.shown - s.decoded)
                for s, lasts in samples
            )
            tfhd = make_full(b"tfhd", 0, 0x020000, struct.pack(">I", track.id))
            tfdt = make_full(b"tfdt", 1, 0, struct.pack(">Q", samples[0][0].decoded))
            trafs.append(
                make(b"traf", tfhd, tfdt, make_full(b"trun", 1, 0xF01, struct.pack(">Ii", len(samples), offset), rows))
            )
            offset += sum(len(s.data) for s, _ in samples)
        return make(b"moof", make_full(b"mfhd", 0, 0, struct.pack(">I", number)), *trafs)

    return [moof(len(moof(0)) + 8), make(b"mdat", *(s.data for _, samples in parts for s, _ in samples))]


def camera(form: Form, begin_s: int, end_s: int) -> bytes:
    """As cameras, Axis' among them, write it: an index ahead of each part, boxes of their own between and within.

    Two runs to a track, places from the file's begin, and what the samples have in common said once.
    """
    of = [from_zero(track) for track in tracks(form, begin_s, end_s)]
    own = make(b"uuid", b"a camera's notes", bytes(24))
    boxes = [make(b"ftyp", b"iso6", bytes(4), b"iso6", b"mp41"), own, _empty_moov(of, own), own]
    at = sum(map(len, boxes))
    for number, parts in enumerate(zip(*(_in_seconds(track, 0.5) for track in of), strict=False)):
        styp = make(b"styp", b"msdh", bytes(4), b"msdh", b"msix")
        body = b"".join(s.data for samples in parts for s, _ in samples)
        sidx = _sidx(of[0], parts[0], len(_camera_moof(number, of, parts, own, 0)) + len(body) + 8)
        ahead = [styp, sidx, make(b"free", bytes(5))]
        moof = _camera_moof(number, of, parts, own, at + sum(map(len, ahead)))
        found = [*ahead, moof, make(b"mdat", body), own]
        boxes += found
        at += sum(map(len, found))
    return b"".join(boxes)


def _sidx(track: TrackOf, samples: list[tuple[Sample, int]], size: int) -> bytes:
    first = min(sample.shown for sample, _ in samples)
    length = sum(lasts for _, lasts in samples)
    fields = struct.pack(">IIQQHHIII", track.id, track.timescale, first, 0, 0, 1, size, length, 0x90000000)
    return make_full(b"sidx", 1, 0, fields)


def _camera_moof(
    number: int, of: Sequence[TrackOf], parts: Sequence[list[tuple[Sample, int]]], own: bytes, at: int
) -> bytes:
    def moof(base: int) -> bytes:
        trafs = []
        for track, samples in zip(of, parts, strict=True):
            head = struct.pack(">IQII", track.id, base, track.last, _KEY if track.handler == b"soun" else _NO_KEY)
            boxes = [make_full(b"tfhd", 0, 0x29, head)]
            boxes.append(make_full(b"tfdt", 0, 0, struct.pack(">I", samples[0][0].decoded)))
            offset = 0
            for run in (samples[: len(samples) // 2], samples[len(samples) // 2 :]):
                first = _KEY if run[0][0].is_key else _NO_KEY
                rows = b"".join(struct.pack(">II", len(s.data), s.shown - s.decoded) for s, _ in run)
                boxes.append(make_full(b"trun", 0, 0xA05, struct.pack(">IiI", len(run), offset, first), rows))
                offset += sum(len(s.data) for s, _ in run)
            base += offset
            trafs.append(make(b"traf", *boxes, own))
        return make(b"moof", make_full(b"mfhd", 0, 0, struct.pack(">I", number + 1)), own, *trafs)

    return moof(at + len(moof(0)) + 8)


def segmenter(form: Form, seconds: int, length: int, options: str) -> list[bytes]:
    """As ffmpeg's segmenter, which Frigate calls, writes it: files of so many seconds, each begins with a key frame."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "footage.mkv")
        source.write_bytes(numbered(form, seconds * RATE))
        command = f"ffmpeg -v error -nostdin -i {source} -c copy -f segment -segment_time {length} -segment_format mp4"
        subprocess.run([*command.split(), *options.split(), f"{folder}/%03d.mp4"], check=True)
        return [path.read_bytes() for path in sorted(Path(folder).glob("*.mp4"))]
