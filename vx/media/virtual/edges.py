"""The few pictures at an exact start or end that have to be encoded, and the parameter sets that go with them."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import av

from vx.media.encoding import cutting
from vx.media.encoding.cutting import CannotCutError
from vx.media.packets import nal
from vx.media.packets.messages import Begin, TimedPacket, Track, detached
from vx.media.packets.plan import Join, Placement, TimeBase
from vx.media.packets.recording import open_recording, video_stream
from vx.mp4.boxes import Mp4Error
from vx.mp4.description import Description
from vx.mp4.tables import Chunks, Samples, compress


class Picture(NamedTuple):
    """A picture as it is recorded; its times are ticks from the recording's origin."""

    data: bytes
    decoded: int
    shown: int
    lasts: int
    is_key: bool


def is_fresh(description: Description, key_frame: bytes) -> bool:
    """Whether nothing from this key frame on refers to what came before it."""
    form = _form(description)
    return form.starts_anew(_units(form, key_frame))


def is_key(description: Description, picture: bytes) -> bool:
    """Whether it can be decoded by itself, whatever the table calls it."""
    form = _form(description)
    try:
        return form.stands_alone(_units(form, picture))
    except ValueError:
        return False


def _form(description: Description) -> nal.Form:
    form = nal.Form.of(description.codec, description.configuration)
    if form is None:
        raise Mp4Error("its decoder configuration makes no sense")
    return form


def _units(form: nal.Form, picture: bytes) -> list[bytes]:
    try:
        return form.split(picture)
    except (ValueError, IndexError):
        raise Mp4Error("a picture can't be taken apart") from None


class Edge:
    """Pictures of one recording, at a border."""

    def __init__(self, path: str, number: int, description: Description, base: TimeBase) -> None:
        """`number`: which of the recording's tracks of pictures."""
        self._path = path
        self._number = number
        self._description = description
        self._base = base

    def missing_sets(self, key_frame: bytes) -> bytes:
        """What has to stand in front of a copied key frame behind encoded pictures: its own parameter sets."""
        form = _form(self._description)
        try:
            sets = form.sets(self._description.configuration)
        except (ValueError, IndexError):
            raise Mp4Error("its decoder configuration makes no sense") from None
        if any(form.is_set(unit) for unit in _units(form, key_frame)):
            return b""
        return form.join(sets)

    def encode(self, pictures: Sequence[Picture], wanted: set[int], delay: int) -> tuple[bytes, Samples]:
        """Those of the pictures that are shown at the wanted times, encoded anew as a group of their own.

        `pictures` begin with a key frame; `delay` is how much later than decoded they are shown. Returns the bytes, one
        picture behind the other, and their tables. Mp4Error where it can't be done.
        """
        segment = self._segment()
        packets: list[TimedPacket] = [
            cutting.make_packet(segment, p.data, p.shown, p.decoded, p.lasts, key=p.is_key) for p in pictures
        ]
        lasting = {p.shown: p.lasts for p in pictures if p.shown in wanted}
        try:
            made, _ = cutting.encode_group(segment, packets, lasting, delay)
        except (CannotCutError, av.FFmpegError, ValueError, IndexError) as error:
            raise Mp4Error(f"its edge can't be cut exactly: {error}") from None
        data = [bytes(packet) for packet in made]  # type: ignore[call-overload]
        times = [packet.dts for packet in made]
        steps = [after - at for at, after in itertools.pairwise(times)]
        if any(step <= 0 for step in steps):
            raise Mp4Error("its edge can't be cut exactly: its frames are in an unusual order")
        sizes = array("I", map(len, data))
        whole = b"".join(data)
        return whole, Samples(
            start=times[0],
            sizes=sizes,
            deltas=compress([*steps, made[-1].duration]),
            shifts=compress([packet.pts - packet.dts for packet in made]),
            keys=array("I", [i for i, packet in enumerate(made) if packet.is_keyframe]),
            chunks=Chunks(array("Q", [0]), array("Q", [len(whole)]), array("I", [len(made)])),
        )

    def _segment(self) -> Begin:
        """The recording as the encoder wants to know it."""
        try:
            with open_recording(self._path) as container:
                stream = video_stream(container, self._number)
                template = detached(stream)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise Mp4Error(f"its edge can't be cut exactly: {error}") from None
        track = Track((), template, self._description.configuration, self._base)
        return Begin(self._path, Placement(Join.FIRST, 0), track, None, 0)
