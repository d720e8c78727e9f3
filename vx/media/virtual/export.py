"""The way in: whether a job qualifies, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vx.archive.segments import Recordings
from vx.captions import Caption
from vx.jobs import ClipJob, Coding, Ended, FileDone, Gap, Link, Note, Progress, Source, SourceEnded
from vx.media.files import labels
from vx.media.packets import plan
from vx.media.packets.plan import Join
from vx.media.virtual import limits, storing
from vx.media.virtual.files import FileBuilder, VirtualFile
from vx.media.virtual.index import Index
from vx.media.virtual.loading import Loader
from vx.media.virtual.stretches import CopyInsteadError, SourceReader, Stretch


def export_virtual(job: ClipJob, link: Link) -> Ended | None:
    """Export a clip without copying it, as `clips.clip.export_clip` would; None where it has to be copied.

    Nothing is left behind then, and the server's log says why. VxError where results can't be written.
    """
    try:
        _check(job)
        clip = _Clip(job, link)
        try:
            clip.compute()
        finally:
            clip.close()
        if not clip.files:
            return None  # there is nothing: the copy says so
        clip.store()
    except CopyInsteadError as error:
        link.send(Note(level="info", text=f"copied, for it can't be served from the recordings: {error}"))
        return None
    return Ended(succeeded=True)


def _check(job: ClipJob) -> None:
    """CopyInsteadError where what is asked for isn't what was recorded."""
    plain = ClipJob(
        coding=Coding(threads=job.coding.threads),
        sources=tuple(_plain(source) for source in job.sources),
        **{name: getattr(job, name) for name in _PLAIN_JOB},
    )
    if job != plain:
        raise CopyInsteadError("something of it is encoded or added")
    if len(job.sources) > 1 and not job.discrete and job.gaps != "keep":
        raise CopyInsteadError("gaps of several cameras aren't kept")


_PLAIN_JOB = (
    *("folder", "start_us", "end_us", "container", "reject_audio", "words", "max_file_size", "discrete"),
    *("cut", "gaps", "gap_us", "virtual", "held", "index", "subtitles"),
)
_PLAIN_SOURCE = ("origin", "name", "pattern", "timezone", "id", "location", "ranges_us", "video", "audio")
"""What is honoured here; where a job says anything beyond that, its clip is copied."""


def _plain(source: Source) -> Source:
    return Source(**{name: getattr(source, name) for name in _PLAIN_SOURCE})


class _Clip:
    """A clip that is computed as a whole before anything of it is written."""

    def __init__(self, job: ClipJob, link: Link) -> None:
        self._job = job
        self._link = link
        self._told: list[Note | Gap] = []
        """What is told once it is certain that nothing has to be copied."""
        self.files: list[tuple[Sequence[int], VirtualFile]] = []
        """Each with the numbers of its sources."""
        self._shown: set[int] = set()
        """The sources that have something to show."""
        self._warned: dict[int, str] = {}
        """The first warning about each source."""
        self._index: Index | None = None
        if job.index is not None:
            folder, most = job.index.folder, job.index.size
            self._index = Index(folder, most, lambda text: link.send(Note(level="warning", text=text)))
        self._loader = Loader(self._index)

    def close(self) -> None:
        """Read no more, and leave the index as it is to be."""
        self._loader.close()
        if self._index is not None:
            self._index.trim()

    def compute(self) -> None:
        """Find out what there is, and put it together. CopyInsteadError."""
        job = self._job
        everyone = range(len(job.sources))
        for numbers in [[number] for number in everyone] if job.discrete else [everyone]:
            files = self._one(numbers[0]) if len(numbers) == 1 else self._several(numbers)
            self.files += [(numbers, file) for file in files]

    def store(self) -> None:
        """Have the results in the session's folder, and tell of them. CopyInsteadError, VxError."""
        job, link = self._job, self._link
        named = [(", ".join(job.sources[i].name for i in numbers), file) for numbers, file in self.files]
        stored = storing.store(job.folder, named, held=job.held)
        for event in self._told:
            link.send(event)
        for part, (numbers, file) in zip(stored, self.files, strict=True):
            link.send(Progress(last_frame_us=file.last_us, source=numbers[0] if len(numbers) == 1 else None))
            link.send(
                FileDone(
                    name=part.name,
                    size=file.size,
                    mime_type=part.mime_type,
                    first_us=part.first_us,
                    last_us=file.last_us,
                )
            )
        for number in range(len(job.sources)):
            error = "" if number in self._shown else labels.nothing_recorded(job, self._warned.get(number, ""))
            link.send(SourceEnded(source=number, error=error))

    def _stretches(self, number: int) -> Iterator[Stretch]:
        job = self._job
        source = job.sources[number]
        reader = SourceReader(
            Recordings.of(source.pattern, source.timezone),
            job.ranges_us(source),
            video=source.video,
            audio=None if job.reject_audio else source.audio,
            exact=job.cut == "exact",
            load=self._loader.load,
            note=lambda text: self._warn(number, text),
        )
        for stretch in reader.read():
            self._shown.add(number)
            yield stretch
            if self._link.stopping.is_set():
                return

    def _warn(self, number: int, text: str) -> None:
        self._warned.setdefault(number, text)
        self._told.append(Note(level="warning", text=f"{self._job.sources[number].name}: {text}", source=number))

    def _tell_gap(self, number: int, recorded_until_us: int, until_us: int, begin_us: int) -> None:
        begin_us = max(begin_us, recorded_until_us)
        if until_us - begin_us > plan.GAP_WORTH_A_NOTE_US:
            self._told.append(Gap(source=number, begin_us=begin_us, end_us=until_us))

    def _one(self, number: int) -> Iterator[VirtualFile]:
        """The files of one source."""
        job = self._job
        source = job.sources[number]
        builder: FileBuilder | None = None
        held: list[Stretch] = []
        ranges_us = job.ranges_us(source)
        until_us = ranges_us[0][0]
        for stretch in self._stretches(number):
            if stretch.placement.join is Join.OVERLAP:
                self._warn(number, labels.overlaps(stretch.name))
            if stretch.placement.join is not Join.CONTIGUOUS:
                self._tell_gap(number, until_us, stretch.placement.origin_us, stretch.wanted_us[0])
            if builder is not None and self._needs_another_file(builder, number, stretch):
                yield from self._finish(source, builder, held)
                builder = None
            if builder is None:
                builder, held = self._begin(source, stretch), []
            self._add(builder, stretch)
            held.append(stretch)
            until_us = builder.shown_until_us(0)
        if builder is not None:
            yield from self._finish(source, builder, held)
            if not self._link.stopping.is_set():
                begin_us, end_us = ranges_us[-1]
                self._tell_gap(number, until_us, end_us, begin_us)

    def _begin(self, source: Source, stretch: Stretch) -> FileBuilder:
        return FileBuilder([(source.name, stretch)], _begins_us(stretch), self._caption([source]))

    def _caption(self, sources: Sequence[Source]) -> Caption | None:
        return Caption.of(self._job.words, sources) if self._job.subtitles else None

    def _add(self, builder: FileBuilder, stretch: Stretch) -> None:
        gap_us = _begins_us(stretch) - builder.end_us if builder.has_begun else 0
        if self._job.gaps == "close" and gap_us > self._job.gap_us:
            builder.close_gap(gap_us)
        builder.add(0, stretch)

    def _needs_another_file(self, builder: FileBuilder, number: int, stretch: Stretch) -> bool:
        if not builder.can_hold(0, stretch):
            if stretch.placement.join is not Join.OVERLAP:
                self._warn(number, labels.other_form(stretch.name))
            return True
        gap_us = _begins_us(stretch) - builder.end_us
        return self._job.gaps == "split" and gap_us > self._job.gap_us

    def _finish(self, source: Source, builder: FileBuilder, stretches: list[Stretch]) -> Iterator[VirtualFile]:
        limit = self._job.max_file_size
        file = builder.finish(self._tags([source]))
        if not limit or file.size <= limit:
            yield file
            return

        def build(part: list[Stretch]) -> VirtualFile:
            builder = self._begin(source, part[0])
            for stretch in part:
                self._add(builder, stretch)
            return builder.finish(self._tags([source]))

        yield from limits.split(stretches, limit, build)

    def _several(self, numbers: Sequence[int]) -> Iterator[VirtualFile]:
        """One file of several sources."""
        job = self._job
        sources = [job.sources[number] for number in numbers]
        of_each = [list(self._stretches(number)) for number in numbers]
        firsts = [stretches[0] if stretches else None for stretches in of_each]
        if not any(firsts):
            return
        first_us = min(_begins_us(stretch) for stretch in firsts if stretch is not None)
        names = [source.name for source in sources]
        builder = FileBuilder(list(zip(names, firsts, strict=True)), first_us, self._caption(sources))
        for number, (source, stretches) in enumerate(zip(sources, of_each, strict=True)):
            ranges_us = job.ranges_us(source)
            until_us = ranges_us[0][0]
            for i, stretch in enumerate(stretches):
                if i and not builder.can_hold(number, stretch):
                    raise CopyInsteadError(f"{stretch.name}: a new file begins with it")
                if stretch.placement.join is not Join.CONTIGUOUS:
                    self._tell_gap(number, until_us, stretch.placement.origin_us, stretch.wanted_us[0])
                builder.add(number, stretch)
                until_us = builder.shown_until_us(number)
            begin_us, end_us = ranges_us[-1]
            self._tell_gap(number, until_us, end_us, begin_us)
        file = builder.finish(self._tags(sources))
        if job.max_file_size and file.size > job.max_file_size:
            raise CopyInsteadError("several cameras don't fit into one file of max_file_size")
        yield file

    def _tags(self, sources: Sequence[Source]) -> Callable[[int], dict[str, str]]:
        return lambda first_us: labels.metadata(self._job, sources, first_us)


def _begins_us(stretch: Stretch) -> int:
    """When its first picture is shown."""
    samples = stretch.pictures[0].samples
    (shown,) = samples.shown(0, 1)
    return stretch.placement.origin_us + stretch.video.base.us(shown)
