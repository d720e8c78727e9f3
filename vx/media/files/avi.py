"""AVI files: pictures at a fixed rate, and sound without any times.

A picture's time is its number: the file's clock is kept in step with the wall clock by empty packets, which libavformat
writes for the numbers that are left out and which players take for "the same picture again". Sound plays from the
first byte to the last: where nothing was recorded there is silence, in the sound's own codec.

Pictures that are stored in another order than they are shown come out of a decoder later than their number says, by
as many pictures as it has to hold back; the sound waits for them. Across a hole those that it holds would come only
after the hole, so such a file ends there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.bitstream import BitStreamFilterContext
from av.packet import Packet

from vx.media.files.muxing import DEFAULT_RATE, ResultFile
from vx.media.files.results import Target
from vx.media.packets.messages import Track, detached
from vx.media.packets.nal import Form
from vx.media.packets.plan import SECOND_US, TimeBase

TICK = TimeBase(1, 90_000)
LONGEST_HOLE_US = 60 * SECOND_US
"""A longer one begins a new file: each second of it takes as many empty packets as a second of video has pictures."""
SHORT_HOLE_US = SECOND_US
_OFF_US = 15_000
"""How far sound may be off before silence is put in, or some of it is left out."""
_PCM_SILENCE = {"pcm_alaw": b"\xd5", "pcm_mulaw": b"\xff", "pcm_s16le": b"\0\0"}
_SILENT_PACKET_S = Fraction(1, 25)


class AviFile(ResultFile):
    """A file under way, with one picture and perhaps one sound."""

    def __init__(
        self,
        target: Target,
        tracks: Sequence[tuple[Track, str]],
        metadata: Mapping[str, str],
        *,
        live: bool = False,
    ) -> None:
        self._unpack: BitStreamFilterContext | None = None
        self._sets = b""
        """Parameter sets that still have to stand in front of the first picture."""
        self._rate = tracks[0][0].rate or DEFAULT_RATE
        self._delay: int | None = None
        self._sound = tracks[1][0] if len(tracks) > 1 else None
        self._silence: _Silence | None = None
        self._heard_until = 0
        self._next_number = 0
        metadata = {**metadata, "date": metadata.get("creation_time", "")}
        super().__init__(target, "avi", tracks, metadata, live=live)
        self._sound_base = self.bases[1] if len(tracks) > 1 else None
        self.bases = [TICK for _ in tracks]  # AVI's own are too coarse to reckon with

    def _add(self, track: Track, title: str) -> Any:
        stream = super()._add(track, title)
        if stream.type == "video":
            stream.time_base = 1 / self._rate
            if track.template.codec_context.codec.canonical_name == "h264" and track.extradata[:1] == b"\1":
                self._unpack = BitStreamFilterContext("h264_mp4toannexb", _described(track))
                stream.codec_context.extradata = None  # it stands in front of each key frame then: of an IDR picture
                self._sets = _start_sets(track.extradata)
        return stream

    def bridges(self, gap_us: int, video: Track, *, limited: bool) -> bool:
        """Whether what comes `gap_us` after the end of what it holds can be written to it."""
        if video.rate is not None and video.rate > self._rate * Fraction(1001, 1000):
            return False  # its pictures would get numbers later and later
        longest_us = LONGEST_HOLE_US if not self._delay and not limited else SHORT_HOLE_US
        return gap_us <= longest_us

    def write(self, track: int, packet: Any, pts: int, dts: int, duration: int | None) -> None:
        """Write a packet to a track, by its number, with these times in the track's ticks."""
        if track == 0:
            self._write_picture(packet, dts)
        else:
            self._write_sound(packet, pts)

    def _write_picture(self, packet: Any, dts: int) -> None:
        number = round(dts * self._rate / TICK.den)
        if self._delay is None:
            self._delay = max(0, -number)
        number = max(number + self._delay, self._next_number)
        self._next_number = number + 1
        for unpacked in self._unpack.filter(packet) if self._unpack is not None else (packet,):
            if self._sets:
                unpacked = Packet(self._sets + bytes(unpacked))  # of a set that comes twice the second is the same
                self._sets = b""
            unpacked.is_keyframe = packet.is_keyframe
            super().write(0, unpacked, number, number, 1)

    def _write_sound(self, packet: Any, pts: int) -> None:
        base = self._sound_base
        assert base is not None
        at_us = TICK.us(pts) + round((self._delay or 0) * SECOND_US / self._rate)
        off_us = at_us - base.us(self._heard_until)
        if off_us < -_OFF_US:
            return
        if off_us > _OFF_US:
            off = base.ticks(off_us)
            if self._silence is None:
                assert self._sound is not None
                self._silence = _Silence(self._sound, packet)
            while off > 0:
                silent, ticks = self._silence.make(off)
                self._append(silent, ticks)
                off -= ticks
        self._append(packet, self._ticks(packet))

    def _append(self, sound: Any, ticks: int) -> None:
        super().write(1, sound, self._heard_until, self._heard_until, ticks)
        self._heard_until += ticks

    def _ticks(self, packet: Any) -> int:
        """How long a packet of sound is: libavformat counts samples of PCM, and packets of all else."""
        assert self._sound is not None
        context: Any = self._sound.template.codec_context
        silent = _PCM_SILENCE.get(context.codec.canonical_name)
        return 1 if silent is None else packet.size // (len(silent) * len(context.layout.channels))


def _start_sets(extradata: bytes) -> bytes:
    """H.264's parameter sets, as they stand in front of a picture; nothing where they can't be understood."""
    form = Form.of("h264", extradata)
    try:
        return b"" if form is None else Form("h264", 0).join(form.sets(extradata))
    except (ValueError, IndexError):
        return b""


def _described(track: Track) -> Any:
    """The track's template with its decoder's configuration, which it may lack."""
    template: Any = detached(track.template)
    template.codec_context.extradata = track.extradata
    template.container.start_encoding()
    return template


class _Silence:
    """Makes packets of silence that fit between those of a track."""

    def __init__(self, track: Track, example: Any) -> None:
        context: Any = track.template.codec_context
        self._pcm = _PCM_SILENCE.get(context.codec.canonical_name)
        self._channels = len(context.layout.channels)
        self._longest = int(_SILENT_PACKET_S * context.sample_rate)
        self._packet = b"" if self._pcm is not None else _silent_mp2(context, example.size)

    def make(self, ticks: int) -> tuple[Packet[Any], int]:
        """A packet of at most `ticks`, and its ticks."""
        if self._pcm is None:
            return Packet(self._packet), 1
        count = min(ticks, self._longest)
        return Packet(self._pcm * (self._channels * count)), count


def _silent_mp2(context: Any, size: int) -> bytes:
    """A packet of silence of the same rate and, more or less, the same size."""
    with av.open(BytesIO(), "w", format="mp2") as carrier:
        stream: Any = carrier.add_stream("mp2", rate=context.sample_rate)
        stream.layout = context.layout.name
        stream.bit_rate = round(size * 8 * context.sample_rate / 1152 / 8000) * 8000
        encoder = stream.codec_context
        packets: list[Any] = []
        for number in range(3):  # the first ones carry what the encoder was primed with
            frame = AudioFrame(encoder.format.name, encoder.layout.name, encoder.frame_size or 1152)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts = context.sample_rate, number * 1152
            packets += encoder.encode(frame)
        return bytes(packets[-1])
