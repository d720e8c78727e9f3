"""A track's sample description: what a decoder has to know, and what of it makes two recordings alike.

What differs between recordings of the same form (bit rates, remarks of the recorder) is left out, so that equal
descriptions have equal bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vx.mp4.boxes import Mp4Error, Span, children, make, make_full, need, only, read_head

_VISUAL = 78
_AUDIO = 28
"""Bytes of an entry's own fields, ahead of the boxes in it."""
_CONFIGURATION = {b"avc1": b"avcC", b"avc3": b"avcC", b"hvc1": b"hvcC", b"hev1": b"hvcC"}
_CODECS = {b"avcC": "h264", b"hvcC": "hevc"}
_KEPT = (b"pasp", b"colr", b"fiel", b"mdcv", b"clli")
_CHANGES_THE_PICTURE = (b"clap", b"sinf")
"""The part of the picture that is shown; encryption."""
_AAC = 0x40
_AAC_OBJECTS = (1, 2, 3, 4, 5, 29)
"""Main, LC, SSR, LTP; and SBR and PS, by which AAC becomes HE-AAC."""
_LAST_RATE = 12
"""The rates' numbers end here; 15 stands for any other."""


@dataclass(frozen=True)
class Description:
    """What all samples of a track have in common."""

    codec: str
    """libav's name: h264, hevc, aac."""
    entry: bytes
    """The box to write; equal for recordings of the same form."""
    configuration: bytes
    """The decoder's: the content of avcC or hvcC, or an AudioSpecificConfig."""


def read_description(data: bytes, stsd: Span, handler: bytes) -> Description | None:
    """The one description of a track; None where it is of another codec. Mp4Error where it can't be understood."""
    need(stsd, 16, "stsd")
    (count,) = struct.unpack_from(">I", data, stsd.begin + 4)
    if count != 1:
        raise Mp4Error(f"a track has {count} descriptions")
    head = read_head(data, stsd.begin + 8)
    begin, end = stsd.begin + 8 + head.length, stsd.begin + 8 + head.size
    if end > stsd.end or not head.size:
        raise Mp4Error("its stsd box is cut short")
    entry = Span(begin, end)
    if handler == b"vide":
        return _read_visual(data, head.kind, entry) if head.kind in _CONFIGURATION else None
    return _read_audio(data, entry) if head.kind == b"mp4a" else None


def _reference(data: bytes, entry: Span) -> None:
    (index,) = struct.unpack_from(">H", data, entry.begin + 6)
    if index != 1:
        raise Mp4Error("its samples are in another file")


def _read_visual(data: bytes, kind: bytes, entry: Span) -> Description:
    need(entry, _VISUAL, kind.decode())
    _reference(data, entry)
    boxes = children(data, Span(entry.begin + _VISUAL, entry.end), kind)
    for other in _CHANGES_THE_PICTURE:
        if other in boxes:
            raise Mp4Error(f"it has a {other.decode()} box")
    name = _CONFIGURATION[kind]
    span = only(boxes, name)
    configuration = bytes(data[span.begin : span.end])
    if name == b"avcC":
        if len(configuration) < 7 or configuration[0] != 1:
            raise Mp4Error("its avcC box makes no sense")
        length_size = (configuration[4] & 3) + 1
    else:
        if len(configuration) < 23:
            raise Mp4Error("its hvcC box makes no sense")
        length_size = (configuration[21] & 3) + 1
    if length_size != 4:
        raise Mp4Error(f"its NAL units have lengths of {length_size} bytes")
    width, height = struct.unpack_from(">HH", data, entry.begin + 24)
    fields = struct.pack(">6xH16xHHIII H32xHh", 1, width, height, 0x480000, 0x480000, 0, 1, 0x18, -1)
    kept = [make(other, data[at.begin : at.end]) for other in _KEPT for at in boxes.get(other, ())]
    return Description(_CODECS[name], make(kind, fields, make(name, configuration), *kept), configuration)


def _read_audio(data: bytes, entry: Span) -> Description | None:
    need(entry, _AUDIO, "mp4a")
    _reference(data, entry)
    version, channels, bits, rate = struct.unpack_from(">H6xHH4xI", data, entry.begin + 8)
    if version != 0:
        raise Mp4Error("its mp4a box is QuickTime's")
    esds = only(children(data, Span(entry.begin + _AUDIO, entry.end), b"mp4a"), b"esds")
    kind, config = _decoder_config(data[esds.begin : esds.end])
    if kind != _AAC:
        return None
    _check_config(config)
    fields = struct.pack(">6xH8xHH4xI", 1, channels, bits, rate)
    return Description("aac", make(b"mp4a", fields, _esds(config)), config)


def _decoder_config(esds: bytes) -> tuple[int, bytes]:
    """The object type and the AudioSpecificConfig."""
    try:
        stream, at = _descriptor(esds, 4, 3)
        flags = esds[at + 2]
        at += 3
        if flags & 0xE0:
            raise Mp4Error("its esds box depends on other streams")
        config, at = _descriptor(esds, at, 4)
        kind = esds[at]
        own, begin = _descriptor(esds, at + 13, 5)
    except IndexError:
        raise Mp4Error("its esds box is cut short") from None
    if not begin < own <= config <= stream <= len(esds):
        raise Mp4Error("its esds box makes no sense")
    return kind, bytes(esds[begin:own])


def _check_config(config: bytes) -> None:
    """An AudioSpecificConfig (ISO/IEC 14496-3) of AAC, at one of the usual rates, with one of the usual channels."""
    if len(config) < 2:
        raise Mp4Error("its esds box is cut short")
    kind, rate, channels = config[0] >> 3, (config[0] & 7) << 1 | config[1] >> 7, config[1] >> 3 & 15
    if kind not in _AAC_OBJECTS or rate > _LAST_RATE or not 0 < channels < 8:
        raise Mp4Error("its sound is of an unusual form")


def _descriptor(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the descriptor there ends, and where its content begins."""
    if data[at] != tag:
        raise Mp4Error("its esds box makes no sense")
    size = 0
    for i in range(1, 5):
        size = size << 7 | data[at + i] & 0x7F
        if not data[at + i] & 0x80:
            return at + i + 1 + size, at + i + 1
    raise Mp4Error("its esds box makes no sense")


def _esds(config: bytes) -> bytes:
    own = _tagged(5, config)
    # audio stream, up to 6144 bits a channel in a sample's buffer; bit rates that nobody knows
    decoder = _tagged(4, struct.pack(">BB3xII", _AAC, 0x15, 0, 0), own)
    return make_full(b"esds", 0, 0, _tagged(3, struct.pack(">HB", 1, 0), decoder, _tagged(6, b"\x02")))


def _tagged(tag: int, *parts: bytes) -> bytes:
    size = sum(map(len, parts))
    if size > 0x3FFF:
        raise Mp4Error("its esds box is too large")
    length = bytes([size]) if size < 0x80 else bytes([0x80 | size >> 7, size & 0x7F])
    return b"".join((bytes([tag]), length, *parts))
