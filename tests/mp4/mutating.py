"""Damage to the tables of recordings: numbers changed, boxes removed or overwritten, a file cut off."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from tests.mp4 import recorders
from tests.mp4.material import WRITERS, written
from tools.make_recordings import Form

_FORM = Form(audio=True, b_frames=2)
_RECORDERS = {"a phone": recorders.phone, "MediaMTX": recorders.mediamtx, "a camera": recorders.camera}
NAMES = [*WRITERS, *_RECORDERS]
"""Of the recordings that are damaged."""
_INTERESTING = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x400, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_STEPS = (-1, 1, 4, -4, 256, -1024)
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"mvex", b"moof", b"traf")
_SCALE = 1 << 16
_KINDS = 10


@functools.cache
def whole(name: str) -> bytes:
    """A recording that nothing has happened to."""
    return _RECORDERS[name](_FORM, 0, 4) if name in _RECORDERS else written(name)


class Edit(NamedTuple):
    """One piece of damage: what it is, and three numbers below 65536 that say where and how."""

    kind: int
    box: int
    place: int
    value: int


class Box(NamedTuple):
    kind: bytes
    begin: int
    end: int


@functools.cache
def _boxes_of(name: str) -> list[Box]:
    """All boxes of a recording but what is in its mdat."""
    return list(_boxes(whole(name), 0, len(whole(name))))


def _boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
        if kind == b"mdat":
            yield Box(kind, at, at + 16)
        else:
            yield Box(kind, at, at + size)
            if kind in _CONTAINERS:
                yield from _boxes(data, at + 8, at + size)
        at += size


def damaged(name: str, edits: Sequence[Edit]) -> bytes:
    """One of the recordings after all of this."""
    boxes = _boxes_of(name)
    data = bytearray(whole(name))
    for edit in edits:
        _damage(data, boxes, edit)
    return bytes(data)


def _damage(data: bytearray, boxes: Sequence[Box], edit: Edit) -> None:
    box = boxes[edit.box * len(boxes) // _SCALE]
    end = min(box.end, len(data))
    words = (end - box.begin) // 4
    if words < 2:
        return  # the file was cut off ahead of it
    at = box.begin + 4 * (edit.place * words // _SCALE)
    (old,) = struct.unpack_from(">I", data, at)
    match edit.kind:
        case 0 | 1 | 2:
            struct.pack_into(">I", data, at, _INTERESTING[edit.value % len(_INTERESTING)])
        case 3 | 4:
            struct.pack_into(">I", data, at, (old + _STEPS[edit.value % len(_STEPS)]) & 0xFFFFFFFF)
        case 5:
            struct.pack_into(">I", data, at, old ^ 1 << edit.value % 32)
        case 6:  # what stands elsewhere in the tables
            other = boxes[edit.value * len(boxes) // _SCALE]
            length = min(end - at, 4 + edit.value % 40, len(data) - other.begin)
            data[at : at + length] = data[other.begin : other.begin + length]
        case 7:  # a box that nobody reads any more
            data[box.begin + 4 : box.begin + 8] = b"free"
        case 8:  # two words change places
            behind = min(at + 4, end - 4)
            data[at : at + 4], data[behind : behind + 4] = data[behind : behind + 4], data[at : at + 4]
        case _ if edit.value < _SCALE // 8:
            del data[max(64, at) :]


def mutants(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many damaged recordings, with the names of what they were."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, _SCALE, (count, 5, 4), dtype=np.int64)
    numbers[:, :, 0] = rng.integers(0, _KINDS, (count, 5))
    lengths = rng.choice([1, 1, 1, 2, 5], count)
    for i, (edits, length) in enumerate(zip(numbers.tolist(), lengths.tolist(), strict=True)):
        name = NAMES[i % len(NAMES)]
        yield name, damaged(name, [Edit(*edit) for edit in edits[:length]])


_number = st.integers(0, _SCALE - 1)
edits = st.lists(st.builds(Edit, st.integers(0, _KINDS - 1), _number, _number, _number), min_size=1, max_size=4)
"""Damage, for hypothesis, which finds the smallest that does harm."""
