"""Files of a limited size: each takes as many whole groups of pictures as fit, with their sound. Pure."""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from vx.media.packets.plan import GroupStart
from vx.media.virtual.files import VirtualFile
from vx.media.virtual.stretches import DoubtError, Stretch

_SMALLEST_HEADER = 1000


class _Place(NamedTuple):
    """Where a file may begin: in which stretch, at which sample of which of its takes."""

    stretch: int
    take: int
    sample: int


_START = (0, 0)


def split(
    stretches: Sequence[Stretch], limit: int, build: Callable[[list[Stretch]], VirtualFile]
) -> Iterator[VirtualFile]:
    """Files of at most `limit` bytes that show these stretches. DoubtError where a group fits into none."""
    places = [_Place(0, 0, 0), *itertools.islice(_places(stretches), 1, None)]
    places.append(_Place(len(stretches), 0, 0))
    parts = [_between(stretches, *pair) for pair in itertools.pairwise(places)]
    weights = list(itertools.accumulate((_payload(part) for part in parts), initial=0))
    at = 0
    while at < len(parts):
        most = bisect_right(weights, weights[at] + limit - _SMALLEST_HEADER) - 1 - at
        count = max(1, most)
        best: VirtualFile | None = None
        while best is None:
            file = build(_between(stretches, places[at], places[at + count]))
            if file.size <= limit:
                best = file
            elif count == 1:
                raise DoubtError("max_file_size is too small for one of its groups of pictures")
            else:
                mean = (weights[at + count] - weights[at]) // count
                count = max(1, count - max(1, (file.size - limit) // max(mean, 1)))
        while count < most:
            file = build(_between(stretches, places[at], places[at + count + 1]))
            if file.size > limit:
                break
            best, count = file, count + 1
        yield best
        at += count


def _places(stretches: Sequence[Stretch]) -> Iterator[_Place]:
    """The key frames that nothing behind them looks back past."""
    starts = GroupStart()
    key: _Place | None = None
    for number, stretch in enumerate(stretches):
        origin_us, base = stretch.placement.origin_us, stretch.video.base
        for which, take in enumerate(stretch.pictures):
            keys = iter([*take.samples.keys, -1])
            next_key = next(keys)
            for sample, shown in enumerate(take.samples.shown()):
                shown_us = origin_us + base.us(shown)
                if starts.closed(shown_us) and key is not None:
                    yield key
                if sample == next_key:
                    next_key = next(keys)
                    starts.key(shown_us)
                    key = _Place(number, which, sample)
    if key is not None:
        yield key


def _between(stretches: Sequence[Stretch], begin: _Place, end: _Place) -> list[Stretch]:
    """What is shown from one place up to another."""
    last = end.stretch if end[1:] != _START else end.stretch - 1
    return [
        _cut(
            stretches[number],
            begin[1:] if number == begin.stretch else _START,
            end[1:] if number == end.stretch and end[1:] != _START else None,
        )
        for number in range(begin.stretch, last + 1)
    ]


def _cut(stretch: Stretch, begin: tuple[int, int], end: tuple[int, int] | None) -> Stretch:
    if begin == _START and end is None:
        return stretch
    pictures = []
    for which, take in enumerate(stretch.pictures):
        count = len(take.samples)
        low = begin[1] if which == begin[0] else 0 if which > begin[0] else count
        high = count if end is None or which < end[0] else end[1] if which == end[0] else 0
        if low < high:
            samples = take.samples.slice(low, high)
            pictures.append(dataclasses.replace(take, samples=samples, made=b"" if low else take.made))
    sound = stretch.sound
    if sound is not None and stretch.audio is not None:
        base = stretch.audio.base
        low = 0 if begin == _START else sound.samples.find(base.ticks(_shown_us(stretch, begin)))
        high = len(sound.samples) if end is None else sound.samples.find(base.ticks(_shown_us(stretch, end)))
        sound = dataclasses.replace(sound, samples=sound.samples.slice(low, high)) if low < high else None
    return dataclasses.replace(stretch, pictures=pictures, sound=sound)


def _shown_us(stretch: Stretch, place: tuple[int, int]) -> int:
    which, sample = place
    samples = stretch.pictures[which].samples
    (shown,) = samples.shown(sample, sample + 1)
    return stretch.video.base.us(shown)


def _payload(part: list[Stretch]) -> int:
    takes = [take for stretch in part for take in (*stretch.pictures, stretch.sound) if take is not None]
    return sum(sum(take.samples.sizes) + (len(take.made) if take.origin else 0) for take in takes)
