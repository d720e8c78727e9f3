"""Sound that can't stay as it was recorded: decoded, brought to another rate, tempo or codec, encoded again.

The encoded samples are counted from a time on the clip's clock. Recorded sound comes in stretches; within one the
samples follow each other without a gap, though the clocks of picture and sound drift apart: what they are off by more
than `_DRIFT_US` is made up for with silence, or by leaving out samples. Between stretches there is nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.codec.context import Flags
from av.filter import Graph
from av.packet import Packet

from vx.media.encoding.recipe import EncodeSound
from vx.media.packets.messages import TimedPacket, Track, detached
from vx.media.packets.plan import SECOND_US, TimeBase

_DRIFT_US = 15_000
_HOLE_US = 500_000
"""A longer hole ends a stretch."""
_CHUNK_S = Fraction(1, 25)
"""The length of a packet where the codec has none of its own."""
_LAYOUTS = {1: "mono", 2: "stereo"}

Samples = npt.NDArray[Any]
"""Floats, channels x samples."""


class SoundEncoder:
    """The sound of one run of segments in another form. Packets out count from `base_us` in ticks of `track`."""

    def __init__(
        self,
        recipe: EncodeSound,
        source: Track,
        base_us: int,
        wanted_us: tuple[int, int],
        note: Callable[[str], None],
        *,
        global_header: bool,
    ) -> None:
        """`base_us` and `wanted_us` are wall time; `note` is told once if some of it can't be decoded."""
        self._recipe = recipe
        self._base_us = base_us
        self._begin_us, self._end_us = wanted_us
        self._note: Callable[[str], None] | None = note
        self._source_base = source.time_base
        self._decoder_stream = detached(source.template)
        self._decoder: Any = self._decoder_stream.codec_context
        if source.extradata:
            self._decoder.extradata = source.extradata
        self._carrier = av.open(BytesIO(), "w", format="nut")
        stream: Any = self._carrier.add_stream(recipe.encoder, rate=recipe.rate)
        stream.layout = _LAYOUTS[recipe.channels]
        if recipe.bit_rate:
            stream.bit_rate = recipe.bit_rate
        self._encoder: Any = stream.codec_context
        self._encoder.time_base = Fraction(1, recipe.rate)
        if not global_header:
            self._encoder.flags &= ~Flags.global_header
        self._carrier.start_encoding()
        self._layout = _LAYOUTS[recipe.channels]
        self._frame_size = self._encoder.frame_size or int(_CHUNK_S * recipe.rate)
        self._fixed_size = bool(self._encoder.frame_size)
        self._to_encoder: AudioResampler | None = None
        if self._encoder.format.name != "fltp":
            self._to_encoder = AudioResampler(self._encoder.format, self._layout, recipe.rate)
        extradata = bytes(self._encoder.extradata or b"")
        self.track = Track(
            key=("encoded", recipe.codec, recipe.rate, recipe.channels, recipe.bit_rate, extradata),
            template=stream,
            extradata=extradata,
            time_base=TimeBase(1, recipe.rate),
        )
        self._stretch: _Stretch | None = None
        self._fifo: list[Samples] = []
        self._fifo_length = 0
        self._position = -(2**62)
        """Of the first sample in the fifo."""

    def put(self, packet: TimedPacket, origin_us: int) -> list[Packet[Any]]:
        """The next packet of the source, whose times count from `origin_us`; returns what is encoded by now."""
        at_us = origin_us + self._source_base.us(packet.pts)
        packet.pts = packet.dts = at_us
        try:
            frames = self._decoder.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            self._complain(error)
            return []
        made: list[Packet[Any]] = []
        for frame in frames:
            made += self._take(frame, frame.pts if frame.pts is not None else at_us)
        return made

    def flush(self) -> list[Packet[Any]]:
        """All that is held back; the encoder can't be used afterwards."""
        made = self._end_stretch()
        with contextlib.suppress(av.EOFError):
            made += self._encoder.encode(None)
        return made

    def _complain(self, error: Exception) -> None:
        note, self._note = self._note, None
        if note is not None:
            note(f"some of the sound can't be decoded: {getattr(error, 'strerror', None) or error}")

    def _take(self, frame: AudioFrame, at_us: int) -> list[Packet[Any]]:
        rate, count = frame.sample_rate, frame.samples
        first = max(0, -((at_us - self._begin_us) * rate // SECOND_US))
        last = min(count, -((at_us - self._end_us) * rate // SECOND_US))
        made: list[Packet[Any]] = []
        stretch = self._stretch
        if stretch is not None:
            off_us = at_us - stretch.end_us(rate)
            if off_us > _HOLE_US or stretch.rate != rate:
                made += self._end_stretch()
                stretch = None
            elif off_us > _DRIFT_US:
                self._append(stretch.put(_silence(frame, off_us * rate // SECOND_US)))
            elif off_us < -_DRIFT_US:
                first = max(first, min(count, -off_us * rate // SECOND_US))
        if first >= last:
            return made
        if stretch is None:
            begins_us = at_us + first * SECOND_US // rate
            stretch = self._begin_stretch(begins_us, rate)
        if (first, last) != (0, count):
            frame = _part(frame, first, last)
        self._append(stretch.put(frame))
        return made + self._encode()

    def _begin_stretch(self, begins_us: int, rate: int) -> _Stretch:
        clip_us = (begins_us - self._base_us) / self._recipe.tempo
        position = round(clip_us * self._recipe.rate / SECOND_US) + _tempo_lead(self._recipe)
        self._position = max(self._position, position)
        self._stretch = _Stretch(begins_us, rate, self._layout, self._recipe)
        return self._stretch

    def _end_stretch(self) -> list[Packet[Any]]:
        stretch, self._stretch = self._stretch, None
        if stretch is None:
            return []
        self._append(stretch.flush())
        rest = self._fifo_length % self._frame_size
        if rest and self._fixed_size:
            self._append([np.zeros((self._recipe.channels, self._frame_size - rest), np.float32)])
        return self._encode(everything=True)

    def _append(self, samples: list[Samples]) -> None:
        self._fifo += samples
        self._fifo_length += sum(each.shape[1] for each in samples)

    def _encode(self, *, everything: bool = False) -> list[Packet[Any]]:
        if self._fifo_length < (1 if everything else self._frame_size):
            return []
        samples = np.concatenate(self._fifo, axis=1) if len(self._fifo) > 1 else self._fifo[0]
        made: list[Packet[Any]] = []
        at = 0
        while samples.shape[1] - at >= (1 if everything else self._frame_size):
            chunk = samples[:, at : at + self._frame_size]
            at += chunk.shape[1]
            made += self._encode_chunk(chunk)
        rest = samples[:, at:]
        self._fifo, self._fifo_length = [rest], rest.shape[1]
        return made

    def _encode_chunk(self, chunk: Samples) -> list[Packet[Any]]:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(chunk), "fltp", self._layout)
        frame.sample_rate = self._recipe.rate
        if self._to_encoder is not None:
            (frame,) = self._to_encoder.resample(frame)
        frame.pts, frame.time_base = self._position, Fraction(1, self._recipe.rate)
        self._position += chunk.shape[1]
        return list(self._encoder.encode(frame))


class _Stretch:
    """Samples that follow each other: from the source's form to float planes of the encoder's rate and tempo."""

    def __init__(self, begins_us: int, rate: int, layout: str, recipe: EncodeSound) -> None:
        self.rate = rate
        self._begins_us = begins_us
        self._samples = 0
        self._resampler = AudioResampler("fltp", layout, recipe.rate)
        self._graph = None if recipe.tempo == 1 else _tempo_graph(recipe, layout)
        self._sent = 0
        self._recipe = recipe

    def end_us(self, rate: int) -> int:
        """The wall time up to which it goes."""
        return self._begins_us + self._samples * SECOND_US // rate

    def put(self, frame: AudioFrame) -> list[Samples]:
        self._samples += frame.samples
        frame.pts = None
        return self._change_tempo(self._resampler.resample(frame))

    def flush(self) -> list[Samples]:
        made = self._change_tempo(self._resampler.resample(None))
        if self._graph is not None:
            self._graph.push(None)
            made += list(self._pull())
        return made

    def _change_tempo(self, frames: list[AudioFrame]) -> list[Samples]:
        if self._graph is None:
            return [frame.to_ndarray() for frame in frames]
        made: list[Samples] = []
        for frame in frames:
            frame.pts, frame.time_base = self._sent, Fraction(1, self._recipe.rate)
            self._sent += frame.samples
            self._graph.push(frame)
            made += self._pull()
        return made

    def _pull(self) -> Iterator[Samples]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(frame, AudioFrame)
            yield frame.to_ndarray()


def _tempo_lead(recipe: EncodeSound) -> int:
    """By how many samples to put off what libavfilter's atempo made: in the course of its first window it comes to run
    ahead by nearly a window (at half the speed; less at a higher one, as measured). The middle is never far off."""
    if recipe.tempo == 1:
        return 0
    window = 1 << (recipe.rate // 24 - 1).bit_length()
    return round(0.23 * window / recipe.tempo)


def _tempo_graph(recipe: EncodeSound, layout: str) -> Graph:
    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=recipe.rate, format="fltp", layout=layout, time_base=Fraction(1, recipe.rate)
    )
    tempo = graph.add("atempo", str(recipe.tempo))
    planes = graph.add("aformat", "sample_fmts=fltp")  # atempo gives out packed samples
    sink = graph.add("abuffersink")
    source.link_to(tempo)
    tempo.link_to(planes)
    planes.link_to(sink)
    graph.configure()
    return graph


def _part(frame: AudioFrame, first: int, last: int) -> AudioFrame:
    """Some of a frame's samples."""
    samples = frame.to_ndarray()
    step = 1 if frame.format.is_planar else len(frame.layout.channels)
    return _like(frame, samples[:, first * step : last * step])


def _silence(frame: AudioFrame, count: int) -> AudioFrame:
    """As many samples of silence in the form of `frame`."""
    samples = frame.to_ndarray()
    step = 1 if frame.format.is_planar else len(frame.layout.channels)
    still = 128 if samples.dtype == np.uint8 else 0
    return _like(frame, np.full((samples.shape[0], count * step), still, samples.dtype))


def _like(frame: AudioFrame, samples: npt.NDArray[Any]) -> AudioFrame:
    made = AudioFrame.from_ndarray(np.ascontiguousarray(samples), frame.format.name, frame.layout.name)
    made.sample_rate = frame.sample_rate
    return made
