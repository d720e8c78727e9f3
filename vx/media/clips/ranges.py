"""Ranges of a mask that lie near each other: none of a recording's pictures comes twice.

A range that can't begin exactly begins with the key frame before its start. Where that is in a range before it, what
follows there goes on: the pictures between the two are in the clip, for they are needed, and each of them once.
"""

from __future__ import annotations

from collections.abc import Iterator

from vx.media.packets.messages import Begin, Message, Packets, TimedPacket

_NEVER = -(1 << 62)


def joined(messages: Iterator[Message]) -> Iterator[Message]:
    """The stage: drops what the range before gave already, and the Begin of a range that goes on from there."""
    return _Joiner().run(messages)


class _Joiner:
    def __init__(self) -> None:
        self._segment: Begin | None = None
        """The one that was given out last."""
        self._key: tuple[int, int] | None = None
        """pts and dts of its last key frame."""
        self._decoded = self._heard = _NEVER
        """dts of its last picture, pts of its last sound."""
        self._waiting: Begin | None = None
        """Whether it goes on from there shows with its first picture."""
        self._held: list[TimedPacket] = []
        self._repeats = False

    def run(self, messages: Iterator[Message]) -> Iterator[Message]:
        for message in messages:
            if isinstance(message, Begin):
                yield from self._give_up()
                if self._may_repeat(message):
                    self._waiting = message
                else:
                    yield self._begin(message)
            elif self._waiting is not None:
                yield from self._look(self._waiting, message.packets)
            elif self._repeats:
                yield from self._given(self._new(message.packets))
            else:
                yield from self._given(message.packets)
        yield from self._give_up()

    def _may_repeat(self, segment: Begin) -> bool:
        before = self._segment
        return (
            before is not None
            and segment.name == before.name
            and segment.origin_us == before.origin_us
            and segment.video.key == before.video.key
            and segment.to_wall is None
        )

    def _begin(self, segment: Begin) -> Begin:
        self._segment, self._waiting = segment, None
        self._key, self._decoded, self._heard, self._repeats = None, _NEVER, _NEVER, False
        return segment

    def _look(self, segment: Begin, packets: list[TimedPacket]) -> Iterator[Message]:
        self._held += packets
        first = next((p for p in self._held if p.stream_index == segment.video_index), None)
        if first is None:
            return
        if (first.pts, first.dts) != self._key:
            yield from self._give_up()
            return
        held, self._held, self._waiting, self._repeats = self._held, [], None, True
        yield from self._given(self._new(held))

    def _give_up(self) -> Iterator[Message]:
        """It doesn't go on from there."""
        held, self._held = self._held, []
        if self._waiting is not None:
            yield self._begin(self._waiting)
            yield from self._given(held)

    def _new(self, packets: list[TimedPacket]) -> list[TimedPacket]:
        """Those that weren't given out."""
        segment = self._segment
        assert segment is not None
        new = [p for p in packets if (p.dts > self._decoded if _is_picture(p, segment) else p.pts > self._heard)]
        self._repeats = not any(_is_picture(p, segment) for p in new)
        return new

    def _given(self, packets: list[TimedPacket]) -> Iterator[Message]:
        segment = self._segment
        for packet in packets:
            if segment is None or not _is_picture(packet, segment):
                self._heard = max(self._heard, packet.pts)
                continue
            self._decoded = max(self._decoded, packet.dts)
            if packet.is_keyframe:
                self._key = packet.pts, packet.dts
        if packets:
            yield Packets(packets)


def _is_picture(packet: TimedPacket, segment: Begin) -> bool:
    return packet.stream_index == segment.video_index
