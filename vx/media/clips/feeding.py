"""One source's packets on their way into files: in batches as they come, or in whole groups of pictures.

Where the size of files is limited, whole groups are gathered: what belongs together must be weighed before the first
byte of it is written. Without a limit nothing is gathered, and a file may begin at any key frame that nothing behind it
looks back past.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vx.media.packets import plan
from vx.media.packets.messages import Begin, Message, TimedPacket
from vx.media.packets.plan import Budget, GroupStart, Join

Run = tuple[Begin, list[TimedPacket]]
"""Packets of one segment."""
_Item = tuple[TimedPacket, Begin]
_Group = list[_Item]


class TooLargeError(Exception):
    """A group of pictures that fits into no file: it is not even gathered."""

    def __init__(self, begins_us: int, payload: int) -> None:
        super().__init__(begins_us, payload)
        self.begins_us = begins_us
        self.payload = payload


@dataclass(frozen=True)
class Load:
    """What a group of pictures weighs."""

    payload: int
    packets: int
    lasts_us: int

    def cost(self, budget: Budget) -> int:
        """What it takes in a file."""
        return budget.cost(self.payload, self.packets, self.lasts_us)

    def fits(self, budget: Budget) -> bool:
        """Whether the file still has room for it."""
        return budget.fits(self.cost(budget))


@dataclass
class Chunk:
    """Some packets of one source that are written in one go. It is never empty."""

    runs: list[Run]
    opens: bool
    """It is the first of its segment."""
    load: Load | None = None
    """Of a whole group."""

    @property
    def segment(self) -> Begin:
        """That of its first packet."""
        return self.runs[0][0]

    @property
    def begins_us(self) -> int:
        """The clip's time at its first packet."""
        segment, packets = self.runs[0]
        return clip_us(packets[0], segment)

    def first_key_us(self) -> int | None:
        """The clip's time of its first key frame, which is where a file can begin; None: it has none."""
        for segment, packets in self.runs:
            for packet in packets:
                if packet.is_keyframe and packet.stream_index == segment.video_index:
                    return clip_us(packet, segment)
        return None


class Feed:
    """A source's chunks, with a look at the next one."""

    def __init__(self, messages: Iterator[Message], max_group: int) -> None:
        """`max_group`: gather groups of pictures, none larger than so many bytes; 0: don't."""
        self._chunks = _groups(messages, max_group) if max_group else _batches(messages)
        self._gathers = bool(max_group)
        self._ahead: list[Chunk] = []
        self.ended = False
        """There will be no more."""

    def peek(self) -> Chunk | None:
        """The next chunk; None at the end, and where a live source has none yet: `ended` tells which.

        TooLargeError where it would be too large.
        """
        if not self._ahead:
            chunk = next(self._chunks, self)
            if chunk is self:
                self.ended = True
            elif chunk is not None:
                assert isinstance(chunk, Chunk)
                self._ahead.append(chunk)
        return self._ahead[0] if self._ahead else None

    def take(self) -> Chunk | None:
        """The same, and the one behind it is next."""
        chunk = self.peek()
        if chunk is not None:
            self._ahead.pop(0)
        return chunk

    def rest_of_group(self) -> Iterator[Chunk]:
        """What has to go into the file in which the last chunk went: up to where another file can begin."""
        while not self._gathers and (chunk := self.peek()) is not None:
            segment, packets = chunk.runs[0]
            if chunk.opens and (not _contiguous(segment) or _starts_with_key(segment, packets)):
                return
            at = _group_start(segment, packets)
            if at is None and (key := _last_key(segment, packets)) is not None:
                # whether anything looks back past that key frame shows with the next picture
                del self._ahead[0]
                following = self.peek()
                if following is None or following.opens:
                    at = key
                else:
                    self._ahead[0] = chunk = Chunk([(segment, [*packets, *following.runs[0][1]])], chunk.opens)
                    continue
                self._ahead.insert(0, chunk)
            del self._ahead[0]
            if at is None:
                yield chunk
                continue
            self._ahead.insert(0, Chunk([(segment, packets[at:])], opens=False))
            if at:
                yield Chunk([(segment, packets[:at])], chunk.opens)
            return


def clip_us(packet: TimedPacket, segment: Begin) -> int:
    """The time of the clip at which a packet is shown or heard."""
    base = packet.time_base
    return segment.origin_us + plan.TimeBase(base.numerator, base.denominator).us(packet.pts)


def goes_on(segment: Begin, previous: Begin | None) -> bool:
    """Whether a segment's pictures may refer to those of the one before it."""
    return (
        previous is not None
        and segment.placement.join is Join.CONTIGUOUS
        and segment.wanted_us == previous.wanted_us
        and segment.video.key == previous.video.key
    )


def _contiguous(segment: Begin) -> bool:
    return segment.placement.join is Join.CONTIGUOUS


def _starts_with_key(segment: Begin, packets: list[TimedPacket]) -> bool:
    first = next((p for p in packets if p.stream_index == segment.video_index), None)
    return first is not None and first.is_keyframe


def _group_start(segment: Begin, packets: list[TimedPacket]) -> int | None:
    """Where in them a file may begin."""
    starts = GroupStart()
    at = 0
    for i, packet in enumerate(packets):
        if packet.stream_index != segment.video_index:
            continue
        if starts.closed(packet.pts):
            return at
        if packet.is_keyframe:
            starts.key(packet.pts)
            at = i
    return None


def _last_key(segment: Begin, packets: list[TimedPacket]) -> int | None:
    """The position of the last picture, if it is a key frame."""
    for i in range(len(packets) - 1, -1, -1):
        if packets[i].stream_index == segment.video_index:
            return i if packets[i].is_keyframe else None
    return None


def _batches(messages: Iterator[Message]) -> Iterator[Chunk | None]:
    """None: there is nothing yet."""
    segment: Begin | None = None
    opens = False
    for message in messages:
        if isinstance(message, Begin):
            segment, opens = message, True
        elif not message.packets:
            yield None
        elif segment is not None:
            yield Chunk([(segment, message.packets)], opens)
            opens = False


def _groups(messages: Iterator[Message], max_group: int) -> Iterator[Chunk | None]:
    """None: there is nothing yet."""
    groups = _Groups()
    segment: Begin | None = None
    for message in messages:
        if isinstance(message, Begin):
            if not goes_on(message, segment) or not _same_sound(message, segment):
                yield from groups.flush()
            segment = message
            continue
        if not message.packets:
            yield None
        for packet in message.packets:
            assert segment is not None, "packets come after a Begin"
            groups.add(packet, segment)
            yield from groups.complete()
            if groups.payload > max_group:  # don't gather in memory what will never fit
                begins_us, payload = groups.begins_us, groups.payload
                yield from groups.give_up()
                raise TooLargeError(begins_us, payload)
    yield from groups.flush()


def _same_sound(segment: Begin, previous: Begin | None) -> bool:
    if segment.audio is None:
        return True
    return previous is not None and previous.audio is not None and segment.audio.key == previous.audio.key


class _Groups:
    """Gathers packets into groups of pictures, each with the sound that belongs to it.

    Sound is stored a little behind its picture: what belongs to a group is found among the packets of the next one, so
    a group is given out when the next one is complete.
    """

    def __init__(self) -> None:
        self._starts = GroupStart()
        self._ready: list[_Group] = []
        self._last: _Group | None = None
        self._open: _Group = []
        self._key_at: int | None = None
        self._given: Begin | None = None
        self.payload = 0
        """Bytes of the group that is being gathered."""

    def add(self, packet: TimedPacket, segment: Begin) -> None:
        """The next packet of the source."""
        if packet.stream_index == segment.video_index:
            shown_us = segment.video.time_base.us(packet.pts) + segment.origin_us
            if self._starts.closed(shown_us) and self._key_at:
                head, self._open = self._open[: self._key_at], self._open[self._key_at :]
                self._close(head)
                self.payload = sum(p.size for p, _ in self._open)
            if packet.is_keyframe:
                self._starts.key(shown_us)
                self._key_at = len(self._open)
        self._open.append((packet, segment))
        self.payload += packet.size

    @property
    def begins_us(self) -> int:
        """When the group that is being gathered begins."""
        return clip_us(*self._open[0])

    def give_up(self) -> Iterator[Chunk]:
        """All but the group that is being gathered."""
        self._open, self._key_at, self.payload = [], None, 0
        return self.flush()

    def complete(self) -> Iterator[Chunk]:
        """The groups that nothing can be added to any more."""
        ready, self._ready = self._ready, []
        for group in ready:
            chunk = _chunk(group)
            chunk.opens = chunk.segment is not self._given
            self._given = group[-1][1]
            yield chunk

    def flush(self) -> Iterator[Chunk]:
        """All that was gathered; what follows begins anew."""
        self._close(self._open)
        if self._last is not None:
            self._ready.append(self._last)
        self._starts = GroupStart()
        self._last, self._open, self._key_at, self.payload = None, [], None, 0
        return self.complete()

    def _close(self, group: _Group) -> None:
        if not group:
            return
        if self._last is not None:
            begins_us = clip_us(*group[0])
            late = [item for item in group if _is_sound(item) and clip_us(*item) < begins_us]
            if late:
                self._last += late
                group = [item for item in group if not _is_sound(item) or clip_us(*item) >= begins_us]
            self._ready.append(self._last)
        self._last = group


def _chunk(group: _Group) -> Chunk:
    load = Load(
        payload=sum(packet.size for packet, _ in group),
        packets=len(group),
        lasts_us=clip_us(*group[-1]) - clip_us(*group[0]),
    )
    runs: list[Run] = []
    for packet, segment in group:
        if not runs or runs[-1][0] is not segment:
            runs.append((segment, []))
        runs[-1][1].append(packet)
    return Chunk(runs, False, load)


def _is_sound(item: _Item) -> bool:
    packet, segment = item
    return packet.stream_index != segment.video_index
