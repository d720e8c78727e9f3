"""A source's recordings: which samples of each the clip shows, and when.

Which frames these are, and where a recording lies on the wall clock, is decided as for a copy (`packets.reading`,
`encoding.cutting`); here it is done for whole tables instead of packet by packet.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from vx.archive.segments import Found, Recordings, Segment
from vx.media.encoding.cutting import LARGEST_GOP
from vx.media.packets import plan
from vx.media.packets.plan import Join, Placement, TimeBase
from vx.media.virtual.edges import Edge, Picture, is_fresh, is_key
from vx.mp4.boxes import Mp4Error
from vx.mp4.description import Description
from vx.mp4.movie import Track
from vx.mp4.recording import Recording, UnderWayError
from vx.mp4.tables import Samples
from vx.virtual import Identity

_HEAD = 64
"""Samples behind a key frame within which those are that are shown ahead of it."""
_AHEAD = 8
"""Recordings that are read before their turn, at most."""
_ABSURD_US = 20_000_000
"""No frame is predicted from one that is shown so much later."""


class DoubtError(Exception):
    """The tables of the recordings don't suffice: their packets have to be read. The text says why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A recording that a clip takes samples from."""

    path: str
    identity: Identity
    grows: bool
    """It is still being written."""

    def is_unchanged(self, fd: int) -> bool:
        """Whether the open file is what its tables were read of. OSError."""
        return self.identity.is_of(os.fstat(fd), grows=self.grows)


@dataclass(slots=True)
class Tables:
    """What a recording holds."""

    origin: Origin
    recording: Recording


@dataclass(frozen=True, slots=True)
class Form:
    """What two recordings must have in common to share a track."""

    description: Description
    timescale: int
    matrix: bytes
    size: tuple[int, int]

    @property
    def base(self) -> TimeBase:
        return TimeBase(1, self.timescale)


@dataclass(slots=True)
class Take:
    """Samples that lie in one place: a recording, or (None) what was made for this clip.

    Their times count from the stretch's origin, in ticks of their track.
    """

    origin: Origin | None
    samples: Samples
    made: bytes = b""
    """What was made for it: all of its bytes, or what stands in front of the first sample and is a part of it."""


@dataclass(slots=True)
class Stretch:
    """What the clip shows of one recording."""

    name: str
    placement: Placement
    wanted_us: tuple[int, int]
    video: Form
    audio: Form | None
    """None: it has no sound."""
    pictures: list[Take] = field(default_factory=list)
    sound: Take | None = None
    recording: Recording | None = None
    lead: int = 0
    """Ticks that pictures of the recording are decoded later than the first one of all, against when they are shown."""


Load = Callable[[str, Sequence[str]], Tables]
"""What a recording holds, given its path and those of the next ones. UnderWayError, Mp4Error, OSError."""


class SourceReader:
    """Goes through one source's recordings."""

    def __init__(
        self,
        recordings: Recordings,
        ranges_us: Sequence[tuple[int, int]],
        *,
        video: int,
        audio: int | None,
        exact: bool,
        load: Load,
        note: Callable[[str], None],
    ) -> None:
        """`load` reads the tables of a recording; `note` is told of what can't be used."""
        self._recordings = recordings
        self._ranges_us = ranges_us
        self._video = video
        self._audio = audio
        self._exact = exact
        self._load = load
        self._note = note
        self._tolerance_us = plan.tolerance_us(recordings.pattern.resolution_us)
        self._start_us, self._end_us = ranges_us[0]
        self._previous_end_us: int | None = None
        self._between_ranges = False
        self._previous: tuple[str, int] | None = None
        self._shown_last: Form | None = None
        """The form of what the range has shown so far."""
        self._behind_encoded = False
        """It was encoded up to its recording's end: the next picture must not refer to it."""
        self._encoded_last: Form | None = None
        """The form of the last picture, if that was encoded: the next copied one brings its parameter sets along."""

    def read(self) -> Iterator[Stretch]:
        """All stretches, in their order. DoubtError where anything is in doubt."""
        for number, (start_us, end_us) in enumerate(self._ranges_us):
            self._start_us, self._end_us = start_us, end_us
            self._between_ranges = number > 0
            self._previous_end_us = None
            self._shown_last, self._behind_encoded = None, False
            for found in self._recordings.find(start_us, end_us):
                for note in found.notes:
                    self._note(note)
                yield from self._read_found(found)

    def _read_found(self, found: Found) -> Iterator[Stretch]:
        segments = deque(found.segments)
        while segments:
            segment = segments.popleft()
            tables = self._tables(segment, [other.path for other in itertools.islice(segments, _AHEAD)])
            if tables is not None:
                stretch = self._take(segment, tables)
                if stretch is not None:
                    yield stretch
            elif segment.start_us <= self._start_us:
                # what covers the start of the range may have begun before the one that can't be read
                segments.extendleft(self._recordings.last_before(segment.start_us).segments)

    def _tables(self, segment: Segment, following: Sequence[str]) -> Tables | None:
        """None where there is nothing in it yet, or it is gone."""
        try:
            tables = self._load(segment.path, following)
        except UnderWayError as error:
            text = str(error)
        except FileNotFoundError:
            text = "it has vanished"
        except (Mp4Error, OSError) as error:
            raise DoubtError(f"{segment.path}: {getattr(error, 'strerror', None) or error}") from None
        else:
            if not tables.recording.is_whole and not tables.origin.grows:
                self._note(f"{segment.path}: it is truncated; its last fragment is left out")
            return tables
        self._note(f"{segment.path}: {text}; left out what can't be read")
        return None

    def _place(self, segment: Segment) -> Placement:
        if not self._between_ranges:
            return plan.place(segment.start_us, self._previous_end_us, self._tolerance_us)
        self._between_ranges = False
        if self._previous is not None and self._previous[0] == segment.path:
            return Placement(Join.GAP, self._previous[1])
        return Placement(Join.GAP, segment.start_us)

    def _take(self, segment: Segment, tables: Tables) -> Stretch | None:
        try:
            return self._take_in(segment, tables)
        except (Mp4Error, OverflowError) as error:
            raise DoubtError(f"{segment.path}: {error}") from None

    def _take_in(self, segment: Segment, tables: Tables) -> Stretch | None:
        video, audio = _pick(tables.recording.tracks, self._video, self._audio)
        samples = video.samples
        if not len(samples):
            if tables.origin.grows:
                return None  # its first fragment is still to come
            raise Mp4Error("it holds no picture")
        base = TimeBase(1, video.timescale)
        first_shown = plan.first_shown(samples.shown(0, _HEAD))
        if first_shown < video.origin or video.whole_until is not None:
            raise Mp4Error("its edit list hides pictures")
        if audio is not None and (
            audio.origin - audio.samples.start > audio.timescale or audio.whole_until is not None
        ):
            # libav has a decoder hear up to a second of what is hidden, and leaves out the rest
            raise Mp4Error("its edit list hides sound")
        placement = self._place(segment)
        self._previous = (segment.path, placement.origin_us)
        span = _Span(samples, first_shown)
        end_us = placement.origin_us + base.us(span.end)
        self._previous_end_us = max(end_us, self._previous_end_us or end_us)
        start = base.last_tick_at(self._start_us - placement.origin_us)
        end = base.first_tick_at(self._end_us - placement.origin_us)
        if start >= span.end > 0 or end <= 0:
            return None
        form = _form(video)
        stretch = Stretch(
            name=segment.path,
            placement=placement,
            wanted_us=(self._start_us, self._end_us),
            video=form,
            audio=None if audio is None else _form(audio),
            recording=tables.recording,
            lead=max(0, first_shown - samples.start - min(shift for _, shift in samples.shifts)),
        )
        follows = placement.join is Join.CONTIGUOUS and self._shown_last == form
        fresh, self._behind_encoded = follows and self._behind_encoded, False
        sets = self._encoded_last == form
        begin = base.first_tick_at(self._start_us - placement.origin_us)
        cutter = _Cutter(tables.origin, video, self._video, span, begin)
        if begin <= 0 and span.last_shown < end:
            first = 0
            self._check_begin(cutter, 0, follows=follows, fresh=fresh)
            stretch.pictures = [cutter.copied(0, len(samples), sets=sets)]
        else:
            first = self._cut(cutter, stretch, max(start, 0), end, follows=follows, fresh=fresh, sets=sets)
        if not stretch.pictures:
            return None
        self._encoded_last = form if stretch.pictures[-1].origin is None else None
        self._shown_last = form
        if audio is not None and len(audio.samples):
            key_us = None if start <= 0 else base.us(cutter.shown[first])
            zero = first_shown - video.origin
            stretch.sound = self._sound(tables.origin, audio, zero, base, placement, key_us)
        return stretch

    def _check_begin(self, cutter: _Cutter, first: int, *, follows: bool, fresh: bool) -> None:
        """Whether what is copied from a sample on can be decoded."""
        if follows and not fresh:
            return
        cutter.check_key(first)
        if fresh:
            cutter.check_fresh(first)

    def _cut(
        self, cutter: _Cutter, stretch: Stretch, start: int, end: int, *, follows: bool, fresh: bool, sets: bool
    ) -> int:
        """The pictures of a recording in which the range begins or ends; returns the sample they begin with.

        `start` and `end` in ticks from its origin; what is before `end` is shown. `sets`: what is copied first brings
        its parameter sets along.
        """
        keys, shown = cutter.samples.keys, cutter.shown
        first = 0
        begin = cutter.begin
        if start > 0 or begin > 0:
            before = [key for key in keys if shown[key] <= start]
            if not before:
                raise Mp4Error("its start comes without a key frame")
            first = before[-1]
        if self._exact and shown[first] < begin:
            following = next((key for key in keys if key > first), None)
            stop = len(shown) if following is None else following
            limit = end if following is None else min(end, shown[following])
            wanted = {i for i in range(first, stop) if begin <= shown[i] < limit}
            if following is not None:
                cutter.check_key(following)
                cutter.check_fresh(following)
            elif max(shown[first:]) < end:
                self._behind_encoded = True
            if wanted:
                stretch.pictures.append(cutter.encoded(first, max(wanted) + 1, wanted))
                sets = True
            if following is None or shown[following] >= end:
                return first
            self._copy_until(cutter, stretch, following, end, sets=sets)
            return first
        self._check_begin(cutter, first, follows=follows and first == 0, fresh=fresh and first == 0)
        self._copy_until(cutter, stretch, first, end, sets=sets)
        return first

    def _copy_until(self, cutter: _Cutter, stretch: Stretch, first: int, end: int, *, sets: bool) -> None:
        shown = cutter.shown
        last = next((i for i in range(first, len(shown)) if shown[i] >= end), len(shown))
        needed = {i for i in range(last, len(shown)) if shown[i] < end}
        if needed and not self._exact:
            last = max(needed) + 1
            if max(shown[first:last]) >= end + cutter.base.ticks(_ABSURD_US):
                raise Mp4Error("one of its pictures has an absurd time")
        if last > first:
            stretch.pictures.append(cutter.copied(first, last, sets=sets))
        if needed and self._exact:
            group = cutter.samples.keys[bisect_right(cutter.samples.keys, last) - 1]
            if group < first or (last > first and min(shown[i] for i in needed) <= max(shown[first:last])):
                raise Mp4Error("its frames are in an unusual order")
            stretch.pictures.append(cutter.encoded(group, max(needed) + 1, needed))

    def _sound(
        self,
        origin: Origin,
        audio: Track,
        zero: int,
        base: TimeBase,
        placement: Placement,
        key_us: int | None,
    ) -> Take | None:
        """The sound of the range. `zero`: the recording's time at its origin, in ticks of `base`; `key_us`: when the
        picture is shown from which on it is copied or decoded, at a start.
        """
        own = TimeBase(1, audio.timescale)
        samples = dataclasses.replace(audio.samples, start=audio.samples.start - audio.origin - base.rescale(zero, own))
        if any(shift for _, shift in samples.shifts):
            raise Mp4Error("its sound is in an unusual order")
        low, high = 0, samples.find(own.first_tick_at(self._end_us - placement.origin_us))
        if key_us is not None:
            begin = own.ticks(key_us)
            if self._exact:
                begin = max(begin, own.ticks(self._start_us - placement.origin_us) - samples.deltas[0][1] // 2)
            low = samples.find(begin)
        return Take(origin, samples.slice(low, high)) if low < high else None


def _pick(tracks: list[Track], video: int, audio: int | None) -> tuple[Track, Track | None]:
    """The wanted tracks. Mp4Error where it isn't plain which they are, or they can't be taken as they are."""
    pictures = [track for track in tracks if track.handler == b"vide"]
    if video >= len(pictures):
        raise Mp4Error(f"it has no track video:{video}")
    sounds = [track for track in tracks if track.handler == b"soun"]
    if audio is None or audio >= len(sounds):
        chosen = [*pictures[: video + 1]]
        sound = None
    else:
        sound = sounds[audio]
        chosen = [*pictures[: video + 1], *sounds[: audio + 1]]
    if any(track.description is None for track in chosen):
        raise Mp4Error("it has a track of another codec than H.264, H.265 or AAC")
    return pictures[video], sound


def _form(track: Track) -> Form:
    assert track.description is not None, "it was picked for having one"
    return Form(track.description, track.timescale, track.matrix, track.size)


class _Span:
    """From when to when a track is shown, counted from its first picture."""

    def __init__(self, samples: Samples, first_shown: int) -> None:
        self.samples = dataclasses.replace(samples, start=samples.start - first_shown)
        self.last_shown = self.samples.last_shown()
        self.end = self.samples.shown_until()


class _Cutter:
    """Takes pictures out of one recording."""

    def __init__(self, origin: Origin, video: Track, number: int, span: _Span, begin: int) -> None:
        """`begin`: where the range begins, in ticks from the recording's origin."""
        self._origin = origin
        self._video = video
        self._number = number
        self.samples = span.samples
        self.base = TimeBase(1, video.timescale)
        self.begin = begin
        self._shown: list[int] | None = None

    @property
    def shown(self) -> list[int]:
        """When each sample is shown."""
        if self._shown is None:
            self._shown = self.samples.shown()
        return self._shown

    def copied(self, begin: int, end: int, *, sets: bool) -> Take:
        """These samples as they are; `sets`: the first one brings its parameter sets along."""
        lead = b""
        if sets:
            (picture,) = self._read(begin, begin + 1)
            lead = self._edge().missing_sets(picture.data)
        return Take(self._origin, self.samples.slice(begin, end), lead)

    def encoded(self, begin: int, end: int, wanted: set[int]) -> Take:
        """Of these samples the wanted ones, encoded anew."""
        if sum(self.samples.sizes[begin:end]) > LARGEST_GOP:
            raise DoubtError(f"{self._origin.path}: there is no other key frame for too long")
        delay = self.shown[begin] - self.samples.decoded_at(begin)
        data, samples = self._edge().encode(self._read(begin, end), {self.shown[i] for i in wanted}, delay)
        return Take(None, samples, data)

    def check_key(self, number: int) -> None:
        """Mp4Error unless a key frame is there which no picture behind it looks back past."""
        if number not in self.samples.keys[: bisect_right(self.samples.keys, number)]:
            raise Mp4Error("it begins without a key frame")
        near = self.samples.shown(number, min(number + _HEAD, len(self.samples)))
        if min(near) < near[0]:
            raise Mp4Error("pictures behind its key frame refer to what lies before it")
        # where all are called so, the recorder may not know
        suspects = [number, number + 1] if len(near) > 1 and len(self.samples.keys) == len(self.samples) else [number]
        for suspect in suspects:
            (picture,) = self._read(suspect, suspect + 1)
            if not is_key(self._description, picture.data):
                raise Mp4Error("one of its pictures is no key frame, but called so")

    def check_fresh(self, number: int) -> None:
        """Mp4Error unless the key frame there ends all references."""
        (picture,) = self._read(number, number + 1)
        if not is_fresh(self._description, picture.data):
            raise Mp4Error("the next key frame is not independent of what lies before it")

    @property
    def _description(self) -> Description:
        assert self._video.description is not None, "it was picked for having one"
        return self._video.description

    def _edge(self) -> Edge:
        return Edge(self._origin.path, self._number, self._description, self.base)

    def _read(self, begin: int, end: int) -> list[Picture]:
        part = self.samples.slice(begin, end)
        keys = set(part.keys)
        with _opened(self._origin) as fd:
            data = [os.pread(fd, size, at) for at, size in part.places()]
        if list(map(len, data)) != list(part.sizes):
            raise Mp4Error("it became shorter while it was read")
        times = zip(data, part.decoded(), part.shown(), part.lasting(), strict=True)
        return [Picture(*each, i in keys) for i, each in enumerate(times)]


@contextmanager
def _opened(origin: Origin) -> Iterator[int]:
    fd = os.open(origin.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not origin.is_unchanged(fd):
            raise Mp4Error("it changed while it was read")
        yield fd
    finally:
        os.close(fd)
