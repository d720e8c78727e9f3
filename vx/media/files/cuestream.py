"""Subtitles as packets: SubRip in Matroska, timed text (`mov_text`) in MP4.

libavformat's MP4 writer compares the end of the last cue, in ticks of its track, with the times of other packets, in
the ticks of theirs. Where a cue seems to be over it writes an empty one, which fails (see `files.subtitles`). So the
ticks of the subtitles are much finer than those of any other track: whatever goes on there, a cue counts more.

As it ends a fragment it also looks at the cue that waits to be the track's first, and reckons how long the track is by
then, which comes out below 0 unless that cue is before 0: it writes an empty one then, and aborts. With B-frames, whose
decoding begins before 0, a fragment may end so early. So the first cue of MP4 is an empty one a tick before 0.

A cue has a length, and is written when that is known, which is when it is over: other packets wait for it. In a live
clip they don't, so that a cue of MP4 is written when it begins. It lasts until the next one then, whatever was said.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from av.container import OutputContainer
from av.packet import Packet
from av.stream import Disposition

from vx.jobs import Container
from vx.media.files.subtitles import timed_text
from vx.media.packets.plan import SECOND_US, TimeBase

_CODECS = {"mp4": "mov_text", "mkv": "subrip"}
_LONGEST = (1 << 32) - 1
"""Ticks that a sample of MP4 can last."""
_NOTHING = b"\0\0"
"""A sample of timed text that is empty."""
_FINER = 10
_AT_LEAST_US = 200_000
"""What is said of the length of a cue that is written when it begins: the file mustn't seem longer than its pictures.
In ticks that are ten times as fine as others it is two seconds of those, and the next cue comes after one."""
_STYLE = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
"""White, along the lower edge: what libav's encoders, which are opened but never used here, write their header from."""


class CueStream:
    """The subtitle track of an output that has all its other tracks already. It is shown unless the viewer says no."""

    def __init__(self, output: OutputContainer, container: Container, title: str, *, live: bool) -> None:
        self._in_mp4 = container == "mp4"
        self._ahead = self._in_mp4 and live
        finest = max(stream.time_base.denominator if stream.time_base else 1 for stream in output.streams)
        self._fraction = Fraction(1, max(SECOND_US, _FINER * finest) if self._in_mp4 else 1000)
        self._base = TimeBase(1, self._fraction.denominator)
        self._open: tuple[int, int, str] | None = None
        """From when to when which text is shown."""
        self._began = False
        stream: Any = output.add_stream(_CODECS[container])
        stream.codec_context.subtitle_header = _STYLE
        stream.time_base = self._fraction
        stream.disposition = Disposition.default
        stream.metadata["title"] = title
        stream.metadata["handler_name"] = title
        self._stream = stream

    def show(self, at_us: int, until_us: int, text: str) -> list[Packet[Any]]:
        """What has to be written so that a text is shown from a time of the file on: `until_us`, unless something else
        is shown or `end` comes before.
        """
        packets = [] if self._began or not self._in_mp4 else [self._packet(_NOTHING, self._base.ticks(at_us) - 1, 1)]
        self._began = True
        before, self._open = self._open, (at_us, until_us, text)
        if self._ahead:
            packets += self._packets(at_us, until_us, text)
        elif before is not None:
            packets += self._packets(before[0], at_us, before[2])
        return packets

    def end(self, at_us: int) -> list[Packet[Any]]:
        """The same for nothing to be shown from a time on."""
        before, self._open = self._open, None
        if before is None:
            return []
        last = [] if self._ahead else self._packets(before[0], at_us, before[2])
        # libavformat would invent how long its own empty sample lasts
        return [*last, self._packet(_NOTHING, self._base.ticks(at_us), 1)] if self._in_mp4 else last

    def _packets(self, at_us: int, until_us: int, text: str) -> list[Packet[Any]]:
        """A text that is shown from a time to another one; more than one packet where it stands long."""
        begin, end = self._base.ticks(at_us), self._base.ticks(until_us)
        data = timed_text(text) if self._in_mp4 else text.encode()
        packets = []
        while begin < end:
            duration = min(end - begin, _LONGEST) if self._in_mp4 else end - begin
            packets.append(self._packet(data, begin, duration))
            begin += duration
        if self._ahead:
            packets[-1].duration = min(packets[-1].duration or 1, self._base.ticks(_AT_LEAST_US))
        return packets

    def _packet(self, data: bytes, pts: int, duration: int) -> Packet[Any]:
        packet: Packet[Any] = Packet(data)
        packet.pts = packet.dts = pts
        packet.duration, packet.time_base, packet.stream = duration, self._fraction, self._stream
        return packet
