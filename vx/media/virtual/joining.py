"""One source's stretches in files: when the next one begins, and what is told of it.

By the rules of the copy (`clips.clip`): another form, a clock that was set back, and a gap where a new file is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vx.archive.segments import Recordings
from vx.captions import Caption
from vx.jobs import ClipJob, Gap, Link, Note, Source
from vx.media.files import labels
from vx.media.packets.plan import Join
from vx.media.virtual.files import FileBuilder
from vx.media.virtual.stretches import Load, SourceReader, Stretch


class Telling:
    """What is told of a job's sources, which is kept until it is certain that their packets need not be read."""

    def __init__(self, job: ClipJob) -> None:
        self._job = job
        self._told: list[Note | Gap] = []
        self.warned: dict[int, str] = {}
        """The first warning about each source."""

    def warn(self, number: int, text: str) -> None:
        self.warned.setdefault(number, text)
        self._told.append(labels.warning(self._job.sources[number], number, text))

    def gap(self, number: int, recorded_until_us: int, until_us: int, begin_us: int) -> None:
        """A source has nothing up to `until_us`: `begin_us` is when it was wanted from."""
        self._told += labels.gap(number, recorded_until_us, begin_us, until_us)

    def send(self, link: Link) -> None:
        """Tell all of it."""
        for event in self._told:
            link.send(event)
        self._told.clear()


def read_source(job: ClipJob, number: int, load: Load, telling: Telling) -> Iterator[Stretch]:
    """What the clip shows of a source. DoubtError."""
    source = job.sources[number]
    return SourceReader(
        Recordings.of(source.pattern, source.timezone),
        job.ranges_us(source),
        video=source.video,
        audio=job.audio(source),
        exact=job.cut == "exact",
        load=load,
        note=lambda text: telling.warn(number, text),
    ).read()


def begins_us(stretch: Stretch) -> int:
    """When its first picture is shown."""
    (shown,) = stretch.pictures[0].samples.shown(0, 1)
    return stretch.placement.origin_us + stretch.video.base.us(shown)


class Joiner:
    """Puts the stretches of one source into files."""

    def __init__(self, job: ClipJob, number: int, telling: Telling, most: int = 0) -> None:
        """`most` as for FileBuilder."""
        self._job = job
        self._number = number
        self._telling = telling
        self._most = most
        self._ranges_us = job.ranges_us(job.sources[number])
        self._until_us = self._ranges_us[0][0]
        self._file: FileBuilder | None = None

    def add(self, stretch: Stretch) -> FileBuilder:
        """The next stretch; returns the file that it is in now: the one of the stretch before it, or a new one."""
        number = self._number
        if stretch.placement.join is Join.OVERLAP:
            self._telling.warn(number, labels.overlaps(stretch.name))
        if stretch.placement.join is not Join.CONTIGUOUS:
            self._telling.gap(number, self._until_us, stretch.placement.origin_us, stretch.wanted_us[0])
        if self._file is None or self._needs_another(self._file, stretch):
            self._file = self.begin(stretch)
        self.append(self._file, stretch)
        self._until_us = self._file.shown_until_us(0)
        return self._file

    def end(self) -> None:
        """There are no more: tell of what is missing up to the end of the range."""
        begin_us, end_us = self._ranges_us[-1]
        self._telling.gap(self._number, self._until_us, end_us, begin_us)

    def begin(self, stretch: Stretch) -> FileBuilder:
        """A file that is to begin with this stretch."""
        source = self._job.sources[self._number]
        return FileBuilder([(source.name, stretch)], begins_us(stretch), caption(self._job, [source]), self._most)

    def append(self, file: FileBuilder, stretch: Stretch) -> None:
        """Have the stretch behind what is in the file."""
        gap_us = begins_us(stretch) - file.end_us if file.has_begun else 0
        if self._job.gaps == "close" and gap_us > self._job.gap_us:
            file.close_gap(gap_us)
        file.add(0, stretch)

    def _needs_another(self, file: FileBuilder, stretch: Stretch) -> bool:
        if not file.can_hold(0, stretch):
            if stretch.placement.join is not Join.OVERLAP:
                self._telling.warn(self._number, labels.other_form(stretch.name))
            return True
        gap_us = begins_us(stretch) - file.end_us
        if gap_us > self._job.gap_us and self._job.gaps != "keep":
            return self._job.gaps == "split"
        return not file.bridges(gap_us)


def caption(job: ClipJob, sources: Sequence[Source]) -> Caption | None:
    """What the subtitles of these sources' file say; None: it has none."""
    return Caption.of(job.words, sources) if job.subtitles else None
