"""The file that a clip could be served as, written: one source's samples are copied in blocks, without being parsed.

It is how recordings that are MP4 become a clip that is MP4 where that can't be served from them. The file grows by
fragments (vx.mp4.growing) and is flat in the end; a clip of hours begins to be written with its first recording.

A thread copies, while the worker's own thread waits for it, or for StopSession: what is written then is finalised, also
while a read hangs. Whoever works on the files has `_Turn`, which the copying thread gives away while it reads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from vx.errors import VxError
from vx.jobs import ClipJob, FileOpened, Link, Note, Progress, SourceEnded
from vx.media.files import labels, results, salvage
from vx.media.files.progress import Teller
from vx.media.files.results import Target
from vx.media.virtual.export import is_plain
from vx.media.virtual.files import FileBuilder, Item
from vx.media.virtual.fragments import Fragments
from vx.media.virtual.joining import Joiner, Telling, read_source
from vx.media.virtual.loading import Loader
from vx.media.virtual.stretches import DoubtError, Origin, Stretch

_FRAGMENT = 2 << 20
"""Bytes: of a worker that is killed no more is lost, and StopSession waits for no more."""
_BLOCK = 1 << 20
_UNSYNCED = 16 << 20
"""Bytes that may wait for a disk that is slower than the copy: what is left of them, StopSession waits for."""
_PATIENCE_S = 0.2
"""For how long what is under way may be completed once the session was stopped."""


def copy_in_blocks(job: ClipJob, number: int, open_target: Callable[[int], Target], link: Link) -> int | None:
    """Write the files of one source; returns how many there are. None: its packets have to be read.

    Nothing is left behind then. `open_target`: where a file is written whose first picture is shown at that time.
    VxError where results can't be written; what could be is kept.
    """
    is_possible = job.container == "mp4" and not job.max_file_size and not job.may_join(job.sources[number])
    if not is_possible or not is_plain(replace(job, password="")) or link.stopping.is_set():
        return None
    return _Copy(job, number, open_target, link).run()


class _TakenError(Exception):
    """Somebody else has the files now."""


class _Turn:
    """Who may work on the files. `with` it in the thread that copies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._taken:
            self._lock.release()
            raise _TakenError

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextmanager
    def given_away(self) -> Iterator[None]:
        """Within the turn: not now. _TakenError where it doesn't come back."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
        if self._taken:
            raise _TakenError

    def take(self) -> None:
        """Have it for good, as soon as it is given away."""
        with self._lock:
            self._taken = True


class _Copy:
    """A source on its way into files."""

    def __init__(self, job: ClipJob, number: int, open_target: Callable[[int], Target], link: Link) -> None:
        self._job = job
        self._number = number
        self._open_target = open_target
        self._link = link
        self._turn = _Turn()
        self._telling = Telling(job)
        self._joiner = Joiner(job, number, self._telling, _FRAGMENT)
        self._loader = Loader.of(job, link)
        self._teller = Teller(link)
        self._file: _File | None = None
        self._flat: list[_Flat] = []
        self._error: Exception | None = None
        self._over = threading.Event()

    def run(self) -> int | None:
        """Copy until the end of the range, or until stopped."""
        self._link.call_on_stop(self._over.set)
        copying = threading.Thread(target=self._copy, name="copying", daemon=True)
        with self._teller:
            copying.start()
            self._over.wait()
            if self._stopped:
                copying.join(_PATIENCE_S)
            self._turn.take()
            return self._end()

    @property
    def _stopped(self) -> bool:
        return self._link.stopping.is_set()

    def _end(self) -> int | None:
        error = self._error
        try:
            if error is not None and not (isinstance(error, DoubtError) and self._stopped):
                raise error
            self._finish()
            if not self._flat:
                return None
            if not self._stopped:
                self._joiner.end()
            kept = self._keep()
        except DoubtError as error:
            if self._discard():
                name = self._job.sources[self._number].name
                self._link.send(Note(level="info", text=f"{name}: begun anew, packet by packet: {error}"))
            return None
        except VxError as error:
            self._keep_what_is_readable()
            self._link.send(SourceEnded(source=self._number, error=str(error)))
            raise
        self._link.send(SourceEnded(source=self._number))
        return kept

    def _keep_what_is_readable(self) -> None:
        """After an error, which is the one to be told of: what else the disk refuses now is lost."""
        while self._flat:
            with suppress(VxError):
                self._keep()
        file, self._file = self._file, None
        if file is not None:
            file.give_up()
            with suppress(VxError):
                salvage.keep(file.target, self._link)

    def _keep(self) -> int:
        """Have the files that are finished in the folder, and tell of everything; returns how many there are."""
        self._telling.send(self._link)
        kept = 0
        while self._flat:
            file = self._flat.pop(0)
            try:
                size = file.target.complete()
            except VxError:
                file.target.discard()
                raise
            self._teller.now(Progress(last_frame_us=file.last_us, source=self._number))
            self._link.send(file.target.part.done(size, file.last_us))
            kept += 1
        return kept

    def _discard(self) -> bool:
        """Whether there was anything."""
        targets = [file.target for file in self._flat]
        if self._file is not None:
            self._file.give_up()
            targets.append(self._file.target)
        for target in targets:
            target.discard()
        self._flat, self._file = [], None
        return bool(targets)

    # ---- in the thread that copies

    def _copy(self) -> None:
        try:
            for stretch in read_source(self._job, self._number, self._loader.load, self._telling):
                with self._turn:
                    self._take(stretch)
                if self._stopped:
                    break
        except _TakenError:
            pass
        except Exception as error:  # noqa: BLE001 - the worker's thread has it
            self._error = error
        finally:
            self._loader.close()
            self._over.set()

    def _take(self, stretch: Stretch) -> None:
        builder = self._joiner.add(stretch)
        if self._file is None or builder is not self._file.builder:
            self._finish()
            self._file = self._open(builder)
            self._link.send(FileOpened(part=self._file.target.part))
        self._file.write(self._go_on)

    def _open(self, builder: FileBuilder) -> _File:
        said = labels.metadata(self._job, [self._job.sources[self._number]], builder.first_us)
        target = self._open_target(builder.first_us)
        try:
            return _File(target, builder, said, self._turn)
        except (VxError, DoubtError):
            target.discard()
            raise

    def _go_on(self, file: _File) -> bool:
        """Tell how far the file is; whether there is to be more of it."""
        self._teller.soon(Progress(last_frame_us=file.last_us, source=self._number, written=file.size))
        return not self._stopped

    def _finish(self) -> None:
        """Have the file under way finished, if it holds a picture."""
        file = self._file
        if file is None:
            return
        if file.finish():
            self._flat.append(_Flat(file.target, file.last_us))
        else:
            file.target.discard()
        self._file = None


class _Flat(NamedTuple):
    """A file that is finished, and has yet to get its name."""

    target: Target
    last_us: int


class _File:
    """A file under way. VxError where the disk refuses."""

    def __init__(self, target: Target, builder: FileBuilder, said: Mapping[str, str], turn: _Turn) -> None:
        """`builder` holds its first stretch already; `said` is what the file says of itself."""
        self.target = target
        self.builder = builder
        self.last_us = builder.first_us
        """When the last picture of what is whole of it is shown."""
        self._turn = turn
        self._fragments = Fragments(builder, said)
        self._syncing = results.Syncing(Path(target.path), results.SYNC_BYTES, 0, most=_UNSYNCED)
        self._block = memoryview(bytearray(_BLOCK))
        self._fd = -1
        self.size = 0
        """Bytes of what is whole of it."""
        try:
            with self._refusing():
                self._fd = os.open(target.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
                self.size = self._put(self._fragments.opening, 0)
        except VxError:
            self.give_up()
            raise

    def write(self, go_on: Callable[[_File], bool]) -> None:
        """Copy the stretch that came last, a fragment at a time, for as long as that is wanted.

        DoubtError where it can't be read.
        """
        self._fragments.gather()
        with ExitStack() as opened:
            recording: _Recording | None = None
            for item in self.builder.take_items():
                if item.origin is not None and recording is None:
                    recording = opened.enter_context(_Recording(item.origin, self._turn))
                self._write(item, recording)
                if not go_on(self):
                    return

    def _write(self, item: Item, recording: _Recording | None) -> None:
        head, texts = self._fragments.build(item)
        with self._refusing():
            begin = at = self._put(head, self.size)
            if item.lead is not None:
                at = self._put(self.builder.made(item.lead), at)
            for run in item.runs:
                if item.origin is None:
                    at = self._put(self.builder.made(run), at)
                    continue
                assert recording is not None, "it was opened for the first item that is from it"
                for offset in range(run.begin, run.end, _BLOCK):
                    block = self._block[: min(_BLOCK, run.end - offset)]
                    recording.read(block, offset)
                    at = self._put(block, at)
            if recording is not None:
                recording.check()
            self.size = self._put(texts, at)
            self.last_us = self._fragments.commit(item, begin)
            self._syncing.go_on()

    def finish(self) -> bool:
        """Make it flat; False: it holds no picture, and is closed as it is. DoubtError where a time is too large."""
        end = self._fragments.finish(self.size)
        if end is None:
            self.give_up()
            return False
        self.last_us = self.builder.last_us
        with self._refusing():
            os.ftruncate(self._fd, self.size)
            self._put(end.table, self.size)
            os.fdatasync(self._fd)  # the table has to be there before anything relies on it
            self._put(end.head, end.room)
            self._close()
        return True

    def give_up(self) -> None:
        """Write no more; what is whole of it can be read."""
        with suppress(OSError):
            os.ftruncate(self._fd, self.size)
        with suppress(OSError):
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _put(self, data: bytes | memoryview, at: int) -> int:
        """Write it there; returns where it ends. OSError."""
        left = memoryview(data)
        while left:
            count = os.pwrite(self._fd, left, at)
            left, at = left[count:], at + count
        return at

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Within it the disk's errors become ours, also those that were met while the file was synced."""
        try:
            yield
            if self._syncing.error is not None:
                raise self._syncing.error
        except OSError as error:
            raise results.write_error(self.target.part.name, error) from error


class _Recording:
    """A recording that is being copied from; it is closed with the block. DoubtError where it isn't what it was."""

    def __init__(self, origin: Origin, turn: _Turn) -> None:
        self._origin = origin
        self._turn = turn
        self._fd = -1

    def __enter__(self) -> _Recording:
        try:
            with self._asking():
                self._fd = os.open(self._origin.path, os.O_RDONLY | os.O_CLOEXEC)
            self.check()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read(self, block: memoryview, offset: int) -> None:
        """Fill the block with what is there."""
        while block:
            with self._asking():
                count = os.preadv(self._fd, [block], offset)
            if not count:
                raise DoubtError(f"{self._origin.path}: it became shorter while it was copied")
            block, offset = block[count:], offset + count

    def check(self) -> None:
        """Look whether it is still what its tables were read of."""
        with self._asking():
            is_unchanged = self._origin.is_unchanged(self._fd)
        if not is_unchanged:
            raise DoubtError(f"{self._origin.path}: it changed while it was read")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Its disk may take any time, or refuse."""
        try:
            with self._turn.given_away():
                yield
        except OSError as error:
            raise DoubtError(f"{self._origin.path}: {error.strerror}") from None
