"""A clip: packets of cameras' recordings, written into one file, or several where one can't hold them.

Each source has a pipeline of its own, pulled by the writer in the writer's thread:

    Reader (a thread) -> stage -> stage -> Feed -> writer

A stage is a generator (`messages.Stage`): it takes the messages of the one before it and yields messages of the same
kind. `pipeline` puts a source's stages together, in this order: transcode what has to be, cut exactly, join ranges that
can't be told apart.

- `Begin` says what follows: `video` and `audio` are Tracks (a template stream with the codec's parameters, its
  extradata, its time base). The writer opens a file with them and starts a new one when a `key` changes, so a stage
  that re-encodes yields a Begin with a Track of its own, the same (equal key) for every segment it encodes alike, and
  drops `audio` (None) or replaces it just so. It may leave either as it is, segment by segment.
- `Packets` belong to the last Begin, in decoding order, picture and sound mixed. pts and dts count in the Track's ticks
  from the Begin's `origin_us`; both, the duration, `time_base` and `is_keyframe` must be set. A packet made here gets
  its `stream_index` by `assign_stream`: `Begin.video_index` for the picture, any other for sound.
- The reader hands over from the key frame at or before the start of the range, and at its end up to what the last
  frames are predicted from. A stage that decodes keeps to `Begin.wanted_us`. What it passes undecoded it leaves whole:
  the exact cut behind it does that.
- A Begin may come without the one before it having been at its end (a gap, a change of form, the next range of a mask):
  a stage that holds frames back yields them before it yields the new Begin. `placement.join` is CONTIGUOUS where the
  segment goes on without a hole, and then an encoder may go on too (yielding the new Begin first and counting from its
  origin).
- A clock other than the wall clock (time lapse): origins and packets run on the clip's clock, which is then the
  stage's, and `Begin.to_wall` leads back for what is reported.
- Packets without any say that a live source has nothing at the moment, before its first Begin too: pass them on at
  once, whatever is held back.
- The messages end with the source, or at once on StopSession: flush what is held and return. `GeneratorExit` means
  that the file has failed: let go.
- Notes for people go through the `note` that the stage was made with; a VxError ends the export and keeps what is
  written.

The writer takes from the source whose next packets are the earliest. Where a new file has to begin (another form, a
gap, a clock set back, the size), the other sources first finish their groups of pictures in the old one, so that every
track begins with a key frame and nothing is lost or doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from vx.archive.segments import Recordings
from vx.captions import Caption
from vx.drawing import needs_painting
from vx.errors import Kind, VxError
from vx.jobs import ClipJob, Ended, FileOpened, Link, Note, Progress, Source, SourceEnded
from vx.media.clips.feeding import Chunk, Feed, TooLargeError
from vx.media.clips.file import ClipFile
from vx.media.clips.ranges import joined
from vx.media.encoding.cutting import exact_cut
from vx.media.encoding.pictures import Draw
from vx.media.encoding.transcode import transcoding
from vx.media.files import labels, muxing, results, salvage
from vx.media.files.avi import AviFile
from vx.media.files.muxing import ResultFile
from vx.media.files.progress import Teller
from vx.media.files.results import Target
from vx.media.packets.messages import Begin, Message, Stage
from vx.media.packets.plan import Budget, Join
from vx.media.packets.reading import Reader
from vx.media.virtual.copying import copy_in_blocks
from vx.timestamps import format_timestamp


def export_clip(job: ClipJob, link: Link, *, in_blocks: bool = True) -> Ended:
    """Export all sources into one file, or each on its own, one after the other. VxError where it can't be written.

    `in_blocks`: copy without reading packet by packet what can be (vx.media.virtual.copying).
    """
    apart = job.discrete or job.container == "avi"
    everyone = range(len(job.sources))
    files, obstacle = 0, ""
    for numbers in [[number] for number in everyone] if apart else [everyone]:
        if link.stopping.is_set():
            break
        if in_blocks and len(numbers) == 1:
            name = job.sources[numbers[0]].name
            copied = copy_in_blocks(job, numbers[0], partial(open_target, job, name), link)
            if copied is not None:
                files += copied
                continue
        lanes = [Lane(job, number, link) for number in numbers]
        files += Clip(job, lanes, link).run()
        obstacle = obstacle or next((lane.warned for lane in lanes if lane.warned), "")
    if files:
        return Ended(succeeded=True)
    if link.stopping.is_set():
        return Ended(succeeded=False, reason="stopped before anything was written")
    names = ", ".join(source.name for source in job.sources)
    return Ended(succeeded=False, reason=f"{names}: {labels.nothing_recorded(job, obstacle)}")


def open_target(job: ClipJob, name: str, first_us: int) -> Target:
    """Where a file is written that shows the cameras of this name from then on. VxError where the disk refuses."""
    if not job.password:
        return Target(job.folder, results.plan_file(job.folder, name, job.container, first_us))
    from vx.media.files.locked import LockedTarget  # and with it what encrypts

    part = results.plan_file(job.folder, name, "zip", first_us)
    entry = f"{Path(part.name).stem}.{job.container}"
    return LockedTarget(job.folder, part, entry, results.MIME_TYPES[job.container], job.password)


def pipeline(
    job: ClipJob,
    source: Source,
    messages: Iterator[Message],
    warn: Callable[[str], None],
    inform: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Iterator[Message]:
    """One source's messages, as they come out of its stages."""
    draws: list[Draw] = []
    if needs_painting(source.drawing):
        from vx.media.painting.overlay import Painter  # and with it Pillow's fonts: 2 MB of a worker

        draws.append(Painter(source.drawing, Caption.of(job.words, [source]), warn))
    stages: list[Stage] = [transcoding(job, warn, inform, stopping, draws)]
    if job.cut == "exact":
        stages.append(lambda messages: exact_cut(messages, warn))
    if len(job.ranges_us(source)) > 1:
        stages.append(joined)
    for stage in stages:
        messages = stage(messages)
    return messages


def open_reader(job: ClipJob, source: Source, warn: Callable[[str], None]) -> Reader:
    """The reader of what the job wants of a source; it isn't started."""
    return Reader(
        Recordings.of(source.pattern, source.timezone),
        job.ranges_us(source),
        video=source.video,
        audio=job.audio(source),
        fixed_rate=job.container == "avi",
        note=warn,
    )


class SourceReader(Protocol):
    """Where a source's messages come from."""

    def start(self) -> None: ...
    def abandon(self) -> None: ...
    def __iter__(self) -> Iterator[Message]: ...


class Lane:
    """One source of the clip: its reader, and what was told about it."""

    def __init__(self, job: ClipJob, number: int, link: Link) -> None:
        self.source = source = job.sources[number]
        self.number = number
        """The source's, in the job."""
        self.wrote = False
        self.warned = ""
        """The first warning."""
        self.ranges_us = job.ranges_us(source)
        self._link = link
        self.reader = self._open(job)
        messages = pipeline(job, source, iter(self.reader), self.warn, self.inform, link.stopping.is_set)
        self.feed = Feed(messages, job.max_file_size)

    def _open(self, job: ClipJob) -> SourceReader:
        return open_reader(job, self.source, self.warn)

    def warn(self, text: str) -> None:
        """Tell of what is wrong. Callable from any thread."""
        self.warned = self.warned or text
        self._link.send(labels.warning(self.source, self.number, text))

    def inform(self, text: str) -> None:
        """Tell of what is done."""
        self._link.send(Note(level="info", text=f"{self.source.name}: {text}", source=self.number))

    def tell_gap(self, recorded_until_us: int, segment: Begin | None) -> None:
        """Tell of what wasn't recorded between the last frame and this segment (None: the end of the last range)."""
        if segment is None:
            begin_us, end_us = self.ranges_us[-1]
        else:
            begin_us, end_us = segment.wanted_us[0], segment.wall_us(segment.origin_us)
        for gap in labels.gap(self.number, recorded_until_us, begin_us, end_us):
            self._link.send(gap)


class Clip:
    """The writer's side of a clip of some sources. Owns the file under way."""

    def __init__(self, job: ClipJob, lanes: Sequence[Lane], link: Link) -> None:
        self._job = job
        self._link = link
        self._lanes = lanes
        self._name = ", ".join(lane.source.name for lane in lanes)
        with_subtitles = job.subtitles and job.container != "avi"
        self._caption = Caption.of(job.words, [lane.source for lane in lanes]) if with_subtitles else None
        self._file: ClipFile | None = None
        self._refused: Begin | None = None
        """A segment for which libav opens no file."""
        self._files = 0
        self._recorded_until_us = [lane.ranges_us[0][0] for lane in self._lanes]
        self._teller = Teller(link)

    def run(self) -> int:
        """Write until the end of the range, or until stopped; returns how many files were made."""
        for lane in self._lanes:
            self._link.call_on_stop(lane.reader.abandon)
            lane.reader.start()
        with self._teller:
            try:
                self._write_ready()
                self._finish_file()
            except VxError as error:
                self._keep_what_is_readable()
                self._tell_ends(str(error))
                raise
            finally:
                for lane in self._lanes:
                    lane.reader.abandon()
        if self._files and not self._link.stopping.is_set():
            for lane, recorded_until_us in zip(self._lanes, self._recorded_until_us, strict=True):
                lane.tell_gap(recorded_until_us, None)
        self._tell_ends()
        return self._files

    def _tell_ends(self, error: str = "") -> None:
        """Tell that it is over with all sources, for this error or because they are at their end."""
        for lane in self._lanes:
            self._link.send(SourceEnded(source=lane.number, error=error or ("" if lane.wrote else self._nothing(lane))))

    def _nothing(self, lane: Lane) -> str:
        """Why nothing of a source was written."""
        stopped = self._link.stopping.is_set()
        return "stopped before anything was written" if stopped else labels.nothing_recorded(self._job, lane.warned)

    def _write_ready(self) -> None:
        """Write all that the sources have to give: up to their end, or of live ones, what has come so far."""
        try:
            while (number := self._next()) is not None:
                chunk = self._lanes[number].feed.take()
                assert chunk is not None, "it was just looked at"
                self._take(number, chunk)
                self._report_progress()
        except TooLargeError as error:
            raise self._too_small(error.begins_us, error.payload) from None

    def _next(self) -> int | None:
        """The source whose next packets are the earliest; None: none has any."""
        if len(self._lanes) == 1:
            return None if self._lanes[0].feed.peek() is None else 0
        heads = ((lane.feed.peek(), number) for number, lane in enumerate(self._lanes))
        return min(((chunk.begins_us, number) for chunk, number in heads if chunk is not None), default=(0, None))[1]

    def _take(self, number: int, chunk: Chunk) -> None:
        if chunk.opens:
            self._tell(number, chunk.segment)
        file = self._file
        if file is not None and self._needs_another_file(file, number, chunk):
            for other, lane in enumerate(self._lanes):
                if other != number and file.sources[other] is not None:
                    for rest in self._rest_of_group(lane):
                        self._write(other, rest)
            self._finish_file()
        if self._file is None and chunk.segment is not self._refused:
            self._file = self._open_or_refuse(number, chunk)
        self._write(number, chunk)

    def _rest_of_group(self, lane: Lane) -> Iterator[Chunk]:
        return lane.feed.rest_of_group()

    def _write(self, number: int, chunk: Chunk) -> None:
        if self._file is None:
            return  # there is no key frame yet, or libav refuses the segment
        try:
            self._file.write(number, chunk)
            self._lanes[number].wrote = True
        except muxing.RefusedError as error:
            self._lanes[number].warn(f"{chunk.segment.name}: {error}; a new file goes on behind it")
            self._keep_what_is_readable()

    def _open_or_refuse(self, number: int, chunk: Chunk) -> ClipFile | None:
        everyone = range(len(self._lanes))
        for others in (everyone, ()) if len(self._lanes) > 1 else ((),):
            try:
                return self._open(number, chunk, others)
            except muxing.RefusedError as error:
                told = error  # it may be another source's track; that one gets a file of its own when it is due
        self._lanes[number].warn(f"{chunk.segment.name}: {told}; it is left out")
        self._refused = chunk.segment
        return None

    def _needs_another_file(self, file: ClipFile, number: int, chunk: Chunk) -> bool:
        if chunk.load is not None and not chunk.load.fits(file.budget):
            return True
        if file.sources[number] is None:
            return True  # it couldn't be opened together with this source
        if not chunk.opens:
            return False
        segment = chunk.segment
        if not file.can_hold(number, segment):
            if segment.placement.join is not Join.OVERLAP:
                self._lanes[number].warn(labels.other_form(segment.name))
            return True
        gap_us = chunk.begins_us - file.end_us
        is_kept = self._job.gaps == "keep" or gap_us <= self._job.gap_us
        if not file.bridges(segment, gap_us if is_kept else 0):
            return True
        if is_kept:
            return False
        if self._job.gaps == "split":
            return True
        file.close_gap(gap_us)
        return False

    def _tell(self, number: int, segment: Begin) -> None:
        lane = self._lanes[number]
        if segment.placement.join is Join.OVERLAP:
            lane.warn(labels.overlaps(segment.name))
        self._note_ends()
        if segment.placement.join is not Join.CONTIGUOUS or segment.placement.gap_us:
            lane.tell_gap(self._recorded_until_us[number], segment)

    def _note_ends(self) -> None:
        """Remember up to when each source's frames in the file are shown."""
        file = self._file
        if file is None:
            return
        for number, tracks in enumerate(file.sources):
            if tracks is not None and tracks.entered:
                until_us = tracks.segment.wall_us(file.to_clip(tracks.shown_until_us))
                self._recorded_until_us[number] = until_us

    def _open(self, number: int, chunk: Chunk, others: Sequence[int]) -> ClipFile | None:
        """A file that begins with this chunk, with tracks for these other sources; None where it holds no key frame."""
        if chunk.first_key_us() is None:
            return None
        heads = [
            chunk if other == number else lane.feed.peek() if other in others else None
            for other, lane in enumerate(self._lanes)
        ]
        keys = [(at, head.segment) for head in heads if head is not None and (at := head.first_key_us()) is not None]
        begin_us, first = min(keys, key=lambda key: key[0])
        segments = [
            head.segment if head is not None else self._absent(other) if other in others else None
            for other, head in enumerate(heads)
        ]
        first_us = first.wall_us(begin_us)
        tracks = []
        for lane, segment in zip(self._lanes, segments, strict=True):
            if segment is not None:
                if not muxing.supports(self._job.container, segment.video):
                    codec = segment.video.template.codec_context.name
                    text = f"{segment.name}: {self._job.container} can't hold its video ({codec})"
                    raise VxError(Kind.UNSUPPORTED, text)
                tracks += [(t, lane.source.name) for t in (segment.video, segment.audio) if t is not None]
        metadata = labels.metadata(self._job, [lane.source for lane in self._lanes], first_us)
        caption = self._caption
        overhead = muxing.overhead(
            self._job.container,
            tracks,
            metadata,
            longest_cue=0 if caption is None else caption.longest(first_us),
            locked=bool(self._job.password),
            live=self._is_live,
        )
        budget = Budget(self._job.max_file_size, overhead)
        if chunk.load is not None and not chunk.load.fits(budget):
            raise self._too_small(first_us, budget.overhead.fixed + chunk.load.cost(budget))
        fitting = _fitting(budget, number, heads, others)
        if len(fitting) < len(others):
            return self._open(number, chunk, fitting)  # it would be a track without anything in it
        target = open_target(self._job, self._name, first_us)
        if self._job.container == "avi":
            result: ResultFile = AviFile(target, tracks, metadata, live=self._is_live)
        else:
            subtitles = self._name if caption is not None else ""
            result = ResultFile(target, self._job.container, tracks, metadata, subtitles=subtitles, live=self._is_live)
        self._link.send(FileOpened(part=target.part))
        return ClipFile(result, segments, begin_us, budget, caption)

    def _absent(self, number: int) -> Begin | None:
        """What tracks a file has for a source that has nothing to give as it is opened; None: it has none."""
        return None

    @property
    def _is_live(self) -> bool:
        return self._job.live is not None

    def _finish_file(self) -> None:
        file = self._file
        if file is None:
            return
        self._note_ends()
        last_us = file.last_us
        self._file = None
        try:
            size = file.close()
        except muxing.RefusedError as error:
            self._lanes[0].warn(f"{error}; kept is what can be read of it")
            self._files += salvage.keep(file.result.target, self._link)
            return
        except VxError:
            self._file = file
            raise
        self._files += 1
        part = file.result.target.part
        self._teller.now(Progress(last_frame_us=last_us, source=self._whose))
        self._link.send(part.done(size, last_us))

    def _keep_what_is_readable(self) -> None:
        """After an error: a file that isn't hurt is finished; of one that is, what reached the disk is kept."""
        file, self._file = self._file, None
        if file is None:
            return
        if file.result.failed:
            self._files += salvage.keep(file.result.target, self._link)
        else:
            self._file = file
            self._finish_file()

    @property
    def _whose(self) -> int | None:
        return self._lanes[0].number if len(self._lanes) == 1 else None

    def _report_progress(self) -> None:
        if self._file is None:
            return
        self._file.result.sync_some()
        written = self._file.result.size
        self._teller.soon(Progress(last_frame_us=self._file.last_us, source=self._whose, written=written))

    def _too_small(self, at_us: int, needed: int) -> VxError:
        return VxError(
            Kind.EXHAUSTED,
            f"max_file_size of {self._job.max_file_size} bytes is too small: the pictures from the key frame at "
            f"{format_timestamp(at_us)} up to the next one need {needed} bytes",
        )


def _fitting(budget: Budget, number: int, heads: Sequence[Chunk | None], others: Sequence[int]) -> list[int]:
    """Of these sources, those whose first packets get into a file that begins with source `number`, as far as is known.

    They are written as they are due; with the first that doesn't fit another file begins.
    """

    def when(other: int) -> tuple[bool, int, int]:
        head = heads[other]
        return other != number, 0 if head is None else head.begins_us, other

    fitting, cost = [], 0
    for other in sorted(others, key=when):
        head = heads[other]
        if head is not None and head.load is not None:
            cost += head.load.cost(budget)
            if other != number and not budget.fits(cost):
                break
        fitting.append(other)
    return fitting
