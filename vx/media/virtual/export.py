"""The way in: whether a job qualifies, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vx.jobs import ClipJob, Coding, Ended, Link, Note, Progress, Source, SourceEnded
from vx.media.files import labels
from vx.media.packets.plan import Join
from vx.media.virtual import limits, storing
from vx.media.virtual.files import FileBuilder, VirtualFile
from vx.media.virtual.joining import Joiner, Telling, begins_us, caption, read_source
from vx.media.virtual.loading import Loader
from vx.media.virtual.storing import LeaseError
from vx.media.virtual.stretches import DoubtError, Stretch


def export_virtual(job: ClipJob, link: Link) -> Ended | None:
    """Export a clip without copying it, as `clips.clip.export_clip` would; None where it has to be copied.

    Nothing is left behind then, and the server's log says why. DoubtError where the recordings' tables are the reason,
    VxError where results can't be written.
    """
    obstacle = _obstacle(job)
    if not obstacle:
        clip = _Clip(job, link)
        try:
            clip.compute()
            if not clip.files:
                return None  # there is nothing: the copy says so
            clip.store()
            return Ended(succeeded=True)
        except LeaseError as error:
            obstacle = str(error)
        except DoubtError as error:
            link.send(_told(str(error)))
            raise
        finally:
            clip.close()
    link.send(_told(obstacle))
    return None


def _told(obstacle: str) -> Note:
    return Note(level="info", text=f"copied, for it can't be served from the recordings: {obstacle}")


def _obstacle(job: ClipJob) -> str:
    """Why what is asked for isn't what was recorded; empty where it is."""
    if not is_plain(job):
        return "something of it is encoded or added"
    if len(job.sources) > 1 and not job.discrete and job.gaps != "keep":
        return "gaps of several cameras aren't kept"
    return ""


def is_plain(job: ClipJob) -> bool:
    """Whether nothing is asked for beyond what was recorded."""
    return job == ClipJob(
        coding=Coding(threads=job.coding.threads),
        sources=tuple(_plain(source) for source in job.sources),
        **{name: getattr(job, name) for name in _PLAIN_JOB},
    )


_PLAIN_JOB = (
    *("folder", "start_us", "end_us", "container", "reject_audio", "words", "max_file_size", "discrete"),
    *("cut", "gaps", "gap_us", "virtual", "copied", "held", "index", "subtitles"),
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
        self._telling = Telling(job)
        self.files: list[tuple[Sequence[int], VirtualFile]] = []
        """Each with the numbers of its sources."""
        self._shown: set[int] = set()
        """The sources that have something to show."""
        self._loader = Loader.of(job, link)

    def close(self) -> None:
        """Read no more."""
        self._loader.close()

    def compute(self) -> None:
        """Find out what there is, and put it together. DoubtError."""
        job = self._job
        everyone = range(len(job.sources))
        for numbers in [[number] for number in everyone] if job.discrete else [everyone]:
            files = self._one(numbers[0]) if len(numbers) == 1 else self._several(numbers)
            self.files += [(numbers, file) for file in files]

    def store(self) -> None:
        """Have the results in the session's folder, and tell of them. LeaseError, VxError."""
        job, link = self._job, self._link
        named = [(", ".join(job.sources[i].name for i in numbers), file) for numbers, file in self.files]
        stored = storing.store(job.folder, named, held=job.held)
        self._telling.send(link)
        for part, (numbers, file) in zip(stored, self.files, strict=True):
            link.send(Progress(last_frame_us=file.last_us, source=numbers[0] if len(numbers) == 1 else None))
            link.send(part.done(file.size, file.last_us))
        for number in range(len(job.sources)):
            warned = self._telling.warned.get(number, "")
            error = "" if number in self._shown else labels.nothing_recorded(job, warned)
            link.send(SourceEnded(source=number, error=error))

    def _stretches(self, number: int) -> Iterator[Stretch]:
        for stretch in read_source(self._job, number, self._loader.load, self._telling):
            self._shown.add(number)
            yield stretch
            if self._link.stopping.is_set():
                return

    def _one(self, number: int) -> Iterator[VirtualFile]:
        """The files of one source."""
        joiner = Joiner(self._job, number, self._telling)
        under_way: FileBuilder | None = None
        held: list[Stretch] = []
        for stretch in self._stretches(number):
            builder = joiner.add(stretch)
            if under_way is not None and builder is not under_way:
                yield from self._finish(number, joiner, under_way, held)
                held = []
            under_way = builder
            if self._job.max_file_size:  # else they are most of the memory that a long clip takes
                held.append(stretch)
        if under_way is not None:
            yield from self._finish(number, joiner, under_way, held)
            if not self._link.stopping.is_set():
                joiner.end()

    def _finish(
        self, number: int, joiner: Joiner, builder: FileBuilder, stretches: list[Stretch]
    ) -> Iterator[VirtualFile]:
        limit = self._job.max_file_size
        sources = [self._job.sources[number]]
        file = self._build(builder, sources)
        if not limit or file.size <= limit:
            yield file
            return

        def build(part: list[Stretch]) -> VirtualFile:
            builder = joiner.begin(part[0])
            for stretch in part:
                joiner.append(builder, stretch)
            return self._build(builder, sources)

        yield from limits.split(stretches, limit, build)

    def _build(self, builder: FileBuilder, sources: Sequence[Source]) -> VirtualFile:
        return builder.finish(labels.metadata(self._job, sources, builder.first_us))

    def _several(self, numbers: Sequence[int]) -> Iterator[VirtualFile]:
        """One file of several sources."""
        job = self._job
        sources = [job.sources[number] for number in numbers]
        of_each = [list(self._stretches(number)) for number in numbers]
        firsts = [stretches[0] if stretches else None for stretches in of_each]
        if not any(firsts):
            return
        first_us = min(begins_us(stretch) for stretch in firsts if stretch is not None)
        names = [source.name for source in sources]
        builder = FileBuilder(list(zip(names, firsts, strict=True)), first_us, caption(job, sources))
        for number, (source, stretches) in enumerate(zip(sources, of_each, strict=True)):
            ranges_us = job.ranges_us(source)
            until_us = ranges_us[0][0]
            for i, stretch in enumerate(stretches):
                if i and not builder.can_hold(number, stretch):
                    raise DoubtError(f"{stretch.name}: a new file begins with it")
                if stretch.placement.join is not Join.CONTIGUOUS:
                    self._telling.gap(number, until_us, stretch.placement.origin_us, stretch.wanted_us[0])
                builder.add(number, stretch)
                until_us = builder.shown_until_us(number)
            begin_us, end_us = ranges_us[-1]
            self._telling.gap(number, until_us, end_us, begin_us)
        file = self._build(builder, sources)
        if job.max_file_size and file.size > job.max_file_size:
            raise DoubtError("several cameras don't fit into one file of max_file_size")
        yield file
