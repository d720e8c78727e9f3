"""Boxes: a length, four letters, content."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

MOST_BOXES = 4096
"""In one box; real files have a few dozen."""

_PLACES: dict[bytes, tuple[bytes, ...]] = {
    b"moov": (b"",),
    b"moof": (b"",),
    b"mdat": (b"",),
    **dict.fromkeys((b"mvhd", b"trak", b"mvex"), (b"moov",)),
    b"trex": (b"mvex",),
    **dict.fromkeys((b"tkhd", b"edts", b"mdia", b"tref"), (b"trak",)),
    b"elst": (b"edts",),
    **dict.fromkeys((b"mdhd", b"minf"), (b"mdia",)),
    b"hdlr": (b"mdia", b"minf", b"meta"),
    b"dinf": (b"minf", b"meta"),
    b"dref": (b"dinf",),
    b"stbl": (b"minf",),
    **dict.fromkeys((b"stsd", b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"co64", b"stss"), (b"stbl",)),
    b"traf": (b"moof",),
    **dict.fromkeys((b"tfhd", b"tfdt", b"trun"), (b"traf",)),
}
"""What the boxes that make up the tables are found in; of the file itself it is said as b"".

libav reads them wherever they are. One that has lost its way is a sign of damage: what it means is in doubt.
"""

_header = struct.Struct(">I4s").unpack_from
_large = struct.Struct(">Q").unpack_from


class Mp4Error(ValueError):
    """The bytes are not what this package takes; the text says why."""


class Span(NamedTuple):
    """The content of a box, as positions in the bytes around it."""

    begin: int
    end: int


class Head(NamedTuple):
    """A box's first bytes: its kind, how many bytes they are, and how many the whole box has; 0: all that follow."""

    kind: bytes
    length: int
    size: int


def read_head(data: bytes, at: int = 0) -> Head:
    """The box that begins there. Mp4Error where the bytes are too few, or the size can't be."""
    if at + 8 > len(data):
        raise Mp4Error("a box is cut short")
    size, kind = _header(data, at)
    length = 8
    if size == 1:
        if at + 16 > len(data):
            raise Mp4Error("a box is cut short")
        (size,) = _large(data, at + 8)
        length = 16
    if size and size < length:
        raise Mp4Error(f"a {kind!r} box of {size} bytes can't be")
    return Head(kind, length, size)


def check_place(kind: bytes, parent: bytes) -> None:
    """Mp4Error where a box has no business in that one; b"": in no other box."""
    if kind in _PLACES and parent not in _PLACES[kind]:
        raise Mp4Error(f"a {kind!r} box in the wrong place")


def children(data: bytes, span: Span, parent: bytes) -> dict[bytes, list[Span]]:
    """The boxes in a box of the kind `parent`, by kind.

    Mp4Error where they don't fill it, are too many, or belong elsewhere.
    """
    found: dict[bytes, list[Span]] = {}
    at, end = span
    count = 0
    while at + 8 <= end:
        size, kind = _header(data, at)
        length = 8
        if size < 8:
            kind, length, size = read_head(data, at)
        until = at + size
        if not size or until > end:
            raise Mp4Error(f"a {kind!r} box reaches beyond the box that it is in")
        inside = Span(at + length, until)
        if kind in found:
            found[kind].append(inside)
        else:
            check_place(kind, parent)
            found[kind] = [inside]
        at = until
        count += 1
        if count > MOST_BOXES:
            raise Mp4Error(f"more than {MOST_BOXES} boxes in one")
    if at != end and any(data[at:end]):  # QuickTime ends some lists with four zero bytes
        raise Mp4Error("bytes behind the last box")
    return found


def only(boxes: Mapping[bytes, list[Span]], kind: bytes) -> Span:
    """The one box of a kind. Mp4Error where there is none, or more."""
    spans = boxes.get(kind, ())
    if len(spans) != 1:
        raise Mp4Error(f"{len(spans)} {kind.decode('latin-1')} boxes where there should be one")
    return spans[0]


def at_most_one(boxes: Mapping[bytes, list[Span]], kind: bytes) -> Span | None:
    """The same where there need be none."""
    return only(boxes, kind) if kind in boxes else None


def need(span: Span, size: int, kind: str) -> None:
    """Mp4Error where a box has less content than `size` bytes."""
    if span.end - span.begin < size:
        raise Mp4Error(f"its {kind} box is cut short")


def is_long(data: bytes, span: Span, kind: str) -> bool:
    """Whether the numbers in a box that begins with a version have 64 bits. Mp4Error where that isn't known."""
    version = data[span.begin]
    if version > 1:
        raise Mp4Error(f"its {kind} box is of version {version}")
    return version == 1


def make(kind: bytes, *parts: bytes) -> bytes:
    """A box."""
    size = 8 + sum(map(len, parts))
    return b"".join((struct.pack(">I4s", size, kind), *parts))


def make_full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """A box with a version and flags."""
    return make(kind, struct.pack(">I", version << 24 | flags), *parts)
