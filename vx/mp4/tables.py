"""One track's samples, as compact as the file has them: times are runs of equal steps, and stay that way.

A *run* is (count, value). `deltas` are runs of a sample's distance to the next one in decoding order, `shifts` runs of
how much later than it is decoded a sample is shown. All in the track's ticks.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import add, itemgetter

import numpy as np

Run = tuple[int, int]
Runs = list[Run]

_NEAR = 64
"""Samples from an end within which the first one shown, or the last one, is found."""


@dataclass(slots=True)
class Chunks:
    """Stretches of samples that lie one behind the other, as columns: a recording of an hour may have 200,000."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    """Of the first byte of each. They rise."""
    lengths: array[int] = field(default_factory=lambda: array("Q"))
    """In bytes."""
    counts: array[int] = field(default_factory=lambda: array("I"))
    """Of samples."""

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, offset: int, length: int, count: int) -> None:
        """One more."""
        self.offsets.append(offset)
        self.lengths.append(length)
        self.counts.append(count)


def chunk_lengths(sizes: array[int], counts: array[int]) -> array[int]:
    """How long the chunks are that have so many of these samples each, one or more; all samples are in one."""
    if len(counts) == len(sizes):
        return array("Q", sizes)
    if not counts:
        return array("Q")
    numbers = np.asarray(counts)
    firsts = numbers.cumsum(dtype=np.int64) - numbers
    return array("Q", np.add.reduceat(np.asarray(sizes), firsts, dtype=np.int64).tobytes())


def from_big_endian(data: bytes, kind: str = "I") -> array[int]:
    """Big-endian numbers; `kind` as of `array`."""
    numbers = array(kind, data)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def to_big_endian(numbers: array[int]) -> bytes:
    """Their bytes."""
    if sys.byteorder == "little":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def shifted(offsets: array[int], by: int) -> array[int]:
    """64-bit numbers below 2^63, each of them greater by as much (and still not negative)."""
    return array("Q", (np.asarray(offsets).view(np.int64) + by).tobytes())


def extend(runs: Runs, more: Iterable[Run]) -> None:
    """Append runs; what is equal becomes one."""
    for run in more:
        count, value = run
        if runs and runs[-1][1] == value:
            runs[-1] = (runs[-1][0] + count, value)
        elif count:
            runs.append(run)


def cut(runs: Sequence[Run], begin: int, end: int) -> Runs:
    """The runs of the items begin <= i < end."""
    found: Runs = []
    at = 0
    for count, value in runs:
        if at >= end:
            break
        until = at + count
        taken = min(until, end) - max(at, begin)
        if taken > 0:
            found.append((taken, value))
        at = until
    return found


def cut_end(runs: Sequence[Run], count: int) -> Runs:
    """The runs of the last `count` items, which are found without going through all others."""
    found: Runs = []
    for length, value in reversed(runs):
        if count <= 0:
            break
        found.append((min(length, count), value))
        count -= length
    found.reverse()
    return found


def total(runs: Iterable[Run]) -> int:
    """The sum of all values."""
    return sum(count * value for count, value in runs)


def replace_last(runs: Runs, value: int) -> None:
    """Give the last item another value."""
    count, old = runs[-1]
    if old == value:
        return
    if count == 1:
        runs.pop()
    else:
        runs[-1] = (count - 1, old)
    extend(runs, [(1, value)])


def expand(runs: Iterable[Run]) -> Iterator[int]:
    """Each item's value."""
    return itertools.chain.from_iterable(itertools.repeat(value, count) for count, value in runs)


def compress(values: Sequence[int]) -> Runs:
    """Runs of these values, which have 64 bits at most."""
    if not values:
        return []
    numbers = np.asarray(values)
    borders = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(values)]
    return [(end - begin, values[begin]) for begin, end in itertools.pairwise(borders)]


@dataclass(slots=True)
class Samples:
    """Some samples of a track, in decoding order."""

    start: int = 0
    """When the first one is decoded."""
    sizes: array[int] = field(default_factory=lambda: array("I"))
    deltas: Runs = field(default_factory=list)
    """The last one is how long the last sample lasts."""
    shifts: Runs = field(default_factory=list)
    keys: array[int] = field(default_factory=lambda: array("I"))
    """Numbers of the key frames, from 0 on. Of sound every sample is one, and none is listed."""
    chunks: Chunks = field(default_factory=Chunks)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def end(self) -> int:
        """Up to when the last one lasts, counted from when it is decoded."""
        return self.start + total(self.deltas)

    @property
    def last(self) -> int:
        """When the last one is decoded."""
        return self.end - self.deltas[-1][1]

    def first_shown(self) -> int:
        """When the first one of all is shown."""
        if len(self.shifts) < 2:
            return self.start + self.shifts[0][1]
        return min(self.shown(0, _NEAR))

    def last_shown(self) -> int:
        """When the last one of all is shown."""
        if len(self.shifts) < 2:
            return self.last + self.shifts[0][1]
        return max(self.shown(max(0, len(self) - _NEAR)))

    def shown_until(self) -> int:
        """Up to when the last one of all is shown."""
        if len(self.shifts) < 2:
            return self.end + self.shifts[0][1]
        tail = max(0, len(self) - _NEAR)
        return max(at + lasts for at, lasts in zip(self.shown(tail), self.lasting(tail), strict=True))

    def shows_after(self, moment: int) -> bool:
        """Whether any sample, wherever it is, is shown at that time or later."""
        if not self.shifts:
            return False
        tail = max(0, len(self) - _NEAR)
        if max(self.shown(tail)) >= moment:
            return True
        latest = max(map(itemgetter(1), self.shifts))
        return tail > 0 and self.decoded_at(tail - 1) + latest >= moment and max(self.shown(0, tail)) >= moment

    def decoded_at(self, number: int) -> int:
        """When a sample is decoded."""
        return self.start + total(cut(self.deltas, 0, number))

    def find(self, moment: int) -> int:
        """The number of the first sample that is decoded at that time or later; their count where there is none."""
        at, number = self.start, 0
        for count, delta in self.deltas:
            if at + count * delta > moment:
                return number + max(0, -((at - moment) // delta))
            at += count * delta
            number += count
        return number

    def decoded(self, begin: int = 0, end: int | None = None) -> list[int]:
        """When each one is decoded; of those with begin <= i < end, which are all if nothing is said."""
        if begin == 0 and (end is None or end >= len(self)):
            start, deltas = self.start, self.deltas
        else:
            start, deltas = self.decoded_at(begin), self._cut(self.deltas, begin, end)
        times = list(itertools.accumulate(expand(deltas), initial=start))
        times.pop()
        return times

    def shown(self, begin: int = 0, end: int | None = None) -> list[int]:
        """When each one is shown; as `decoded`."""
        decoded = self.decoded(begin, end)
        shifts = self.shifts if len(self.shifts) < 2 else self._cut(self.shifts, begin, end)
        if len(shifts) < 2:
            shift = shifts[0][1] if shifts else 0
            return [at + shift for at in decoded] if shift else decoded
        return list(map(add, decoded, expand(shifts)))

    def lasting(self, begin: int = 0, end: int | None = None) -> list[int]:
        """How long each one lasts; as `decoded`."""
        return list(expand(self._cut(self.deltas, begin, end)))

    def _cut(self, runs: Runs, begin: int, end: int | None) -> Runs:
        if end is None or end >= len(self):
            return cut_end(runs, len(self) - begin)
        return cut(runs, begin, end)

    def slice(self, begin: int, end: int) -> Samples:
        """The samples begin <= i < end."""
        if begin == 0 and end == len(self):
            return self
        first, last = bisect_left(self.keys, begin), bisect_left(self.keys, end)
        return Samples(
            start=self.decoded_at(begin),
            sizes=self.sizes[begin:end],
            deltas=cut(self.deltas, begin, end),
            shifts=cut(self.shifts, begin, end),
            keys=array("I", [key - begin for key in self.keys[first:last]]),
            chunks=self._cut_chunks(begin, end),
        )

    def _cut_chunks(self, begin: int, end: int) -> Chunks:
        """The chunks of these samples; the first and the last one may be cut."""
        chunks = self.chunks
        if len(chunks) == len(self):  # one for each sample
            return Chunks(chunks.offsets[begin:end], chunks.lengths[begin:end], chunks.counts[begin:end])
        firsts = list(itertools.accumulate(chunks.counts, initial=0))
        low, high = bisect_right(firsts, begin) - 1, bisect_left(firsts, end)
        cut_off, kept = begin - firsts[low], end - firsts[high - 1]
        found = Chunks(chunks.offsets[low:high], chunks.lengths[low:high], chunks.counts[low:high])
        if kept != found.counts[-1]:
            found.lengths[-1] = sum(self.sizes[firsts[high - 1] : end])
            found.counts[-1] = kept
        if cut_off:
            skipped = sum(self.sizes[firsts[low] : begin])
            found.offsets[0] += skipped
            found.lengths[0] -= skipped
            found.counts[0] -= cut_off
        return found

    def divided(self, most: int) -> Chunks:
        """The chunks, of which those of more than `most` bytes come in several parts of whole samples."""
        chunks = self.chunks
        if not chunks or max(chunks.lengths) <= most:
            return chunks
        found = Chunks()
        sizes = iter(self.sizes)
        for offset, length, count in zip(chunks.offsets, chunks.lengths, chunks.counts, strict=True):
            at, end, held = offset, offset, 0
            for size in itertools.islice(sizes, count):
                if held and length > most and end + size - at > most:
                    found.add(at, end - at, held)
                    at, held = end, 0
                end, held = end + size, held + 1
            found.add(at, end - at, held)
        return found

    def places(self) -> Iterator[tuple[int, int]]:
        """The offset and size of each sample."""
        sizes = iter(self.sizes)
        for offset, count in zip(self.chunks.offsets, self.chunks.counts, strict=True):
            at = offset
            for size in itertools.islice(sizes, count):
                yield at, size
                at += size
