"""What a clip's stages hand each other: the packets of a source's segments, and what there is to know of them.

`Begin` announces a segment, `Packets` are some of its packets. What a stage may rely on and has to keep stands in
`clips.clip`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any, Protocol

import av
from av.packet import Packet
from av.stream import Stream

from vx.media.packets.plan import Placement, TimeBase


class TimedPacket(Protocol):
    """An av.Packet whose times are all known."""

    pts: int
    dts: int
    duration: int
    time_base: Fraction
    size: int
    stream_index: int
    is_keyframe: bool


@dataclass(frozen=True, eq=False)
class Track:
    """A stream's parameters, independent of the file they were read from. Equal `key`s fit into one output track."""

    key: tuple[object, ...]
    template: Stream
    extradata: bytes
    """The decoder's configuration; `template` may lack it."""
    time_base: TimeBase
    rate: Fraction | None = None
    """Frames a second where none is missing, as far as the file tells."""
    rotated: bool = False
    """Players turn the picture. Only known where somebody had to look."""


@dataclass(frozen=True, eq=False)
class Begin:
    """A segment's packets follow; their times count from `origin_us`."""

    name: str
    placement: Placement
    video: Track
    audio: Track | None
    video_index: int
    """`stream_index` of the picture's packets; all others are sound. `assign_stream` sets it on a packet."""
    wanted_us: tuple[int, int] = (-(2**62), 2**62)
    """The clip shows begin <= t < end, on the wall clock. Packets before and behind it are there to be decoded."""
    to_wall: Callable[[int], int] | None = None
    """From the clip's clock to the wall clock, in microseconds; None: they are the same. Only for what is reported."""

    @property
    def origin_us(self) -> int:
        """The clip's time from which the packets' times count: the wall time of the segment's first shown frame."""
        return self.placement.origin_us

    def wall_us(self, clip_us: int) -> int:
        """The wall time of a time of the clip."""
        return clip_us if self.to_wall is None else self.to_wall(clip_us)


@dataclass(frozen=True)
class Packets:
    """Some of the segment's packets in decoding order; none: a live source has none at the moment."""

    packets: list[TimedPacket]


Message = Begin | Packets

Stage = Callable[[Iterator[Message]], Iterator[Message]]
"""A step between a reader and the file's writer; the contract stands in `clips.clip`."""


@functools.lru_cache(maxsize=64)
def _marker(index: int) -> Stream:
    carrier = av.open(BytesIO(), "w", format="nut")
    return [carrier.add_stream("rawvideo") for _ in range(index + 1)][index]


def assign_stream(packet: Packet[Any], index: int) -> None:
    """Give a packet that was made here the `stream_index` by which picture and sound are told apart."""
    packet.stream = _marker(index)


def detached(stream: Stream) -> Stream:
    """A stream with the same parameters that outlives its file: result files are made from it in another thread."""
    carrier = av.open(BytesIO(), "w", format="nut")  # which holds any codec
    return carrier.add_stream_from_template(stream, opaque=True)
