"""Samples copied in blocks: the clip is the one that is made packet by packet, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pyzipper

from tests.material import SECOND, T0, FakeLink, Outcome, do, judge, numbered, numbers, source
from tests.media.virtual import test_export
from tests.media.virtual.test_export import cues, record
from tests.mp4 import recorders
from tests.mp4.material import read_file
from tools.make_recordings import MEDIAMTX, Form, Piece, cut, segment_path
from vx.drawing import Words
from vx.jobs import ClipJob, Event, FileOpened, PartFile, Progress, SalvageJob, Source
from vx.media.export import run
from vx.media.files import progress
from vx.media.virtual import copying, fragments
from vx.media.virtual.stretches import SourceReader

FRAME = SECOND // 25
FORM = Form(audio=True, b_frames=2)
SUBTITLES: dict[str, Any] = {
    "subtitles": True,
    "words": Words(pattern="{CameraName} {Timestamp}", time_format="%H:%M:%S.%f"),
}
H265 = (("preset", "ultrafast"), ("x265-params", "log-level=none:open-gop=0:keyint=25:min-keyint=25"))


def job(pattern: Path, folder: Path, **more: Any) -> ClipJob:
    return test_export.job(pattern, folder, **({"virtual": False} | more))


def export(pattern: Path, folder: Path, link: FakeLink | None = None, **more: Any) -> Outcome:
    return do(job(pattern, folder, **more), link)


def is_in_blocks(path: Path) -> bool:
    """Whether it is by our own hand: libav names another brand."""
    return path.read_bytes()[8:12] == b"iso4"


def texts(path: Path) -> list[str]:
    """What the subtitles say, and when each begins: when one ends, libav often finds out from the one behind it."""
    return [line.partition(" -->")[0] for line in cues(path)]


def told(made: Outcome) -> list[object]:
    """What the server gets to know of the results, but for their size."""
    return [msgspec.structs.replace(done, size=0) for done in made.link.done]


@pytest.fixture(params=[20_000, 2 << 20], ids=["small fragments", "fragments"])
def small_and_large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_FRAGMENT", request.param)
    monkeypatch.setattr(copying, "_BLOCK", 3000)


@pytest.mark.usefixtures("small_and_large")
@pytest.mark.parametrize(
    ("form", "kind", "more"),
    [
        (FORM, "mp4", {}),
        (FORM, "fmp4", {}),
        (Form(audio=True), "mp4", {"reject_audio": True}),
        (FORM, "mp4", {"start_us": T0 + 520_000, "end_us": T0 + 5_300_000}),
        (FORM, "fmp4", {"start_us": T0 + 520_000, "end_us": T0 + 5_300_000, "cut": "keyframe"}),
        (Form(codec="libx265", audio=True, options=H265), "fmp4", {"start_us": T0 + 520_000}),
        (Form(drops=3), "mp4", {"end_us": T0 + 3 * SECOND}),
        (FORM, "mp4", {"start_us": T0 + 520_000, **SUBTITLES}),
    ],
)
def test_it_is_the_clip_that_is_made_packet_by_packet(
    tmp_path: Path, form: Form, kind: str, more: dict[str, Any]
) -> None:
    pattern = record(tmp_path / "rec", form, kind)
    copied = export(pattern, tmp_path / "copied", **more)
    packets = do(job(pattern, tmp_path / "packets", **more), in_blocks=False)
    assert (is_in_blocks(copied.file), is_in_blocks(packets.file)) == (True, False)
    assert told(copied) == told(packets)
    assert copied.link.notes == packets.link.notes
    assert copied.link.sources == packets.link.sources
    assert copied.link.done[0].size == copied.file.stat().st_size
    assert numbers(copied.file) == numbers(packets.file)
    ours, theirs = judge(copied.file), judge(packets.file)
    assert ours.frames == pytest.approx(theirs.frames, abs=0.0011)
    assert ours.sound == pytest.approx(theirs.sound, abs=0.0011)
    if "subtitles" in more:
        assert texts(copied.file) == texts(packets.file)
    theirs.tags.pop("encoder")
    brands = ("major_brand", "minor_version", "compatible_brands")
    assert {k: v for k, v in ours.tags.items() if k not in brands} == {
        k: v for k, v in theirs.tags.items() if k not in brands
    }


@pytest.mark.usefixtures("small_and_large")
@pytest.mark.parametrize("gaps", ["keep", "split", "close"])
def test_gaps_are_those_of_the_other_way(tmp_path: Path, gaps: str) -> None:
    pattern = record(tmp_path / "rec", seconds=10)
    sorted((tmp_path / "rec").iterdir())[2].unlink()
    copied = export(pattern, tmp_path / "copied", gaps=gaps, **SUBTITLES)
    packets = do(job(pattern, tmp_path / "packets", gaps=gaps, **SUBTITLES), in_blocks=False)
    assert all(map(is_in_blocks, copied.files))
    assert len(copied.files) == (2 if gaps == "split" else 1)
    assert told(copied) == told(packets)
    assert copied.link.notes == packets.link.notes
    for ours, theirs in zip(copied.files, packets.files, strict=True):
        assert numbers(ours) == numbers(theirs)
        assert texts(ours) == texts(theirs)
        assert judge(ours).frames == pytest.approx(judge(theirs).frames, abs=0.0011)
        assert judge(ours).sound == pytest.approx(judge(theirs).sound, abs=0.0011)


@pytest.mark.parametrize("target", ["copied", "served", "packets"])
@pytest.mark.parametrize(("gaps", "files"), [("keep", 2), ("close", 1)])
def test_behind_a_gap_of_hours_it_goes_on_in_another_file(tmp_path: Path, target: str, gaps: str, files: int) -> None:
    """No sample lasts for 31 bits of ticks: 6.6 hours at the 90 kHz of most recorders."""
    (tmp_path / "rec").mkdir()
    for begin_s in (0, 2):
        path = segment_path(f"{tmp_path}/rec/{MEDIAMTX}", T0 + begin_s * 4 * 3600 * SECOND)
        path.write_bytes(recorders.mediamtx(Form(audio=True), begin_s, begin_s + 2))
        os.utime(path, (0, 0))
    made = do(
        job(
            tmp_path / "rec" / MEDIAMTX,
            tmp_path / "out",
            end_us=T0 + 9 * 3600 * SECOND,
            gaps=gaps,
            virtual=target == "served",
            **SUBTITLES,
        ),
        in_blocks=target != "packets",
    )
    assert (len(made.files), bool(made.served)) == (files, target == "served")
    assert [is_in_blocks(path) for path in made.files] == [target != "packets"] * files
    assert [number for path in made.files for number in numbers(path)] == list(range(100))
    assert made.link.done[-1].last_us == T0 + 8 * 3600 * SECOND + 49 * FRAME
    assert judge(made.files[-1]).frames[-1] == pytest.approx(1.96 if files == 2 else 3.96, abs=0.0011)


@pytest.mark.parametrize(
    ("start", "ranges", "shown"),
    [
        (1.52, [], [*range(38, 50), *range(100, 150)]),
        (0, [(0.2, 0.6), (4.0, 5.0)], [*range(5, 15), *range(100, 125)]),
        (0, [(0.2, 1.0), (4.0, 5.0)], [*range(5, 25), *range(100, 125)]),
    ],
    ids=["up to a gap", "a range of a mask", "up to a key frame"],
)
@pytest.mark.parametrize("served", [False, True])
def test_what_is_copied_behind_encoded_pictures_has_its_own_parameter_sets(
    tmp_path: Path, served: bool, start: float, ranges: list[tuple[float, float]], shown: list[int]
) -> None:
    """Also where nothing was recorded, or nothing is wanted, in between. Those of H.265 have the same numbers."""
    pattern = record(tmp_path / "rec", Form(codec="libx265", options=H265))
    sorted((tmp_path / "rec").iterdir())[1].unlink()
    ranges_us = tuple((T0 + round(a * SECOND), T0 + round(b * SECOND)) for a, b in ranges)
    made = do(
        job(
            pattern,
            tmp_path / "out",
            sources=(msgspec.structs.replace(source(pattern), ranges_us=ranges_us),),
            start_us=T0 + round(start * SECOND),
            virtual=served,
        )
    )
    assert bool(made.served) == served
    assert is_in_blocks(made.file)
    assert numbers(made.file) == shown


@pytest.mark.parametrize(("later", "first"), [(False, 0), (True, 0), (False, 38)])
def test_what_is_there_of_it_can_be_read_while_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: bool, first: int
) -> None:
    """As a killed worker leaves it: at its times, also where the sound only comes with the second recording, or the
    pictures in another order than shown.
    """
    pattern = record(tmp_path / "rec", seconds=8)
    real, silent = SourceReader._sound, iter(range(1 if later else 0))

    def sound(*args: Any) -> Any:
        return real(*args) if next(silent, None) is None else None

    monkeypatch.setattr(SourceReader, "_sound", sound)
    link, taken = FakeLink(), tmp_path / "taken.mp4"

    def take(event: Event) -> None:
        if isinstance(event, Progress) and event.written and event.last_frame_us > T0 + 5 * SECOND:
            (part,) = (tmp_path / "out").iterdir()
            if part.suffix == ".part" and not taken.exists():
                shutil.copy(part, taken)

    monkeypatch.setattr(progress, "INTERVAL_S", 0)
    link.on_event = take
    made = export(pattern, tmp_path / "out", link, start_us=T0 + first * FRAME, **SUBTITLES)
    assert is_in_blocks(made.file)
    whole, found = judge(made.file), judge(taken)
    assert len(texts(taken)) > 11
    assert texts(made.file)[: len(texts(taken))] == texts(taken)
    assert numbers(taken) == list(range(first, first + len(found.frames)))
    assert 125 < first + len(found.frames) < 200
    assert found.frames == pytest.approx(whole.frames[: len(found.frames)], abs=0.0011)
    assert found.sound == pytest.approx(whole.sound[: len(found.sound)], abs=0.0011)
    assert whole.sound[0] == pytest.approx(2 if later else 0, abs=0.022)
    assert found.tags["title"] == "Entrance"


def test_it_goes_into_a_zip_file_too(tmp_path: Path) -> None:
    pattern = record(tmp_path / "rec")
    plain = export(pattern, tmp_path / "plain")
    made = export(pattern, tmp_path / "out", password="secret")
    with pyzipper.AESZipFile(made.file) as archive:
        archive.setpassword(b"secret")
        (name,) = archive.namelist()
        assert archive.read(name) == plain.file.read_bytes()
    assert zipfile.is_zipfile(made.file)


@pytest.mark.parametrize("place", [1, 3000])
def test_a_fragment_that_is_cut_off_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """As a killed worker leaves it, too: else the last picture were torn, and its sound missing."""
    pattern = record(tmp_path / "rec", seconds=8)
    folder = tmp_path / "kept"
    folder.mkdir()
    part = PartFile(part_name="a.mp4.part", name="a.mp4", mime_type="video/mp4", first_us=T0)
    real, fragments = os.pwrite, iter(range(3))

    def pwrite(fd: int, data: Any, at: int) -> int:
        if bytes(data[4:8]) == b"moof" and next(fragments, None) == 2:
            real(fd, data, at)
            real(fd, bytes(place), at + len(data))
            shutil.copy(f"/proc/self/fd/{fd}", folder / part.part_name)
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    export(pattern, tmp_path / "out")
    link = FakeLink()
    assert run(SalvageJob(folder=str(folder), parts=(part,)), link).succeeded
    assert numbers(folder / part.name) == list(range(100))
    (done,) = link.done
    assert done.last_us == T0 + 99 * FRAME


@pytest.mark.usefixtures("small_and_large")
@pytest.mark.parametrize("form", [FORM, Form(audio=True)], ids=["B-frames", "none"])
def test_stop_ends_it_with_what_is_written_and_no_picture_is_missing(tmp_path: Path, form: Form) -> None:
    pattern = record(tmp_path / "rec", form, seconds=8)
    for count in range(1, 6):
        link, left = FakeLink(), iter(range(count))

        def stop(event: Event, link: FakeLink = link, left: Iterator[int] = left) -> None:
            if isinstance(event, Progress) and next(left, None) is None:
                link.stop()

        link.on_event = stop
        made = export(pattern, tmp_path / f"{count}", link, start_us=T0 + 520_000, **SUBTITLES)
        assert made.ended.succeeded
        found = numbers(made.file)
        assert found == list(range(13, 13 + len(found)))
        (done,) = link.done
        assert done.last_us == T0 + found[-1] * FRAME
        judged = judge(made.file)
        assert judged.sound[-1] <= judged.frames[-1] + 0.5
        *_, last = [line for line in texts(made.file) if line.startswith("00:00:")]
        assert 0 < judged.frames[-1] + 0.04 - float(last[6:].replace(",", ".")) < 1.001


def test_stop_while_a_disk_hangs_keeps_what_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = record(tmp_path / "rec", seconds=8)
    link, never = FakeLink(), threading.Event()
    real, calls = os.preadv, iter(range(2))
    left_behind: list[threading.Thread] = []

    def preadv(*args: Any) -> int:
        if next(calls, None) is None:
            left_behind.append(threading.current_thread())
            link.stop()
            never.wait()
        return real(*args)

    monkeypatch.setattr(os, "preadv", preadv)
    try:
        made = export(pattern, tmp_path / "out", link, **SUBTITLES)
        before = made.file.read_bytes()
    finally:
        never.set()
    left_behind[0].join()
    assert made.ended.succeeded
    assert numbers(made.file) == list(range(100))
    assert made.file.read_bytes() == before, "who was left behind touches nothing any more"


def test_stop_while_a_recording_is_rewritten_keeps_what_was_copied_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = record(tmp_path / "rec", seconds=8)
    _, second, *_ = sorted((tmp_path / "rec").iterdir())
    link, real = FakeLink(), os.preadv

    def preadv(fd: int, buffers: Any, offset: int) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink() == second:
            second.touch()
            link.stop()
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    made = export(pattern, tmp_path / "out", link)
    assert made.ended.succeeded
    assert numbers(made.file) == list(range(50))


def test_one_large_chunk_is_copied_in_several_fragments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures without sound lie in one."""
    pattern = record(tmp_path / "rec", Form(), seconds=2)
    (track,) = read_file(next((tmp_path / "rec").iterdir())).tracks
    assert len(track.samples.chunks) == 1
    monkeypatch.setattr(copying, "_FRAGMENT", sum(track.samples.sizes) // 6)
    link = FakeLink()
    link.on_event = lambda event: link.stop() if isinstance(event, Progress) else None
    stopped = export(pattern, tmp_path / "stopped", link)
    found = numbers(stopped.file)
    assert 0 < len(found) < 25
    assert found == list(range(len(found)))
    assert numbers(export(pattern, tmp_path / "out").file) == list(range(50))


def test_a_table_that_is_in_doubt_begins_all_anew_packet_by_packet(tmp_path: Path) -> None:
    """Nothing of what was begun is left, nothing is told twice."""
    pattern = record(tmp_path / "rec", seconds=12)
    sorted((tmp_path / "rec").iterdir())[1].unlink()
    last = max((tmp_path / "rec").iterdir())
    spare = tmp_path / "spare" / MEDIAMTX
    (mpeg4,) = cut(numbered(Form(codec="mpeg4", gop=25), 50), str(spare), T0, [Piece(0, 2 * SECOND)])
    mpeg4.rename(last)
    copied = export(pattern, tmp_path / "copied", gaps="split")
    packets = do(job(pattern, tmp_path / "packets", gaps="split"), in_blocks=False)
    assert not any(map(is_in_blocks, copied.files))
    assert told(copied) == told(packets)
    first, *rest = copied.link.notes.splitlines()
    assert "begun anew, packet by packet: " in first
    assert last.name in first
    assert rest == packets.link.notes.splitlines()
    assert sorted(path.name for path in copied.folder.iterdir()) == sorted(done.name for done in copied.link.done)


def descriptors() -> list[str]:
    """What of the tests' own files is open."""
    opened = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sorted(path for path in opened if "pytest-of-" in path)


@pytest.mark.parametrize(
    ("fault", "locked"),
    [("shorter", False), ("rewritten", False), ("rewritten", True), ("unreadable", False), ("gone", False)],
)
def test_a_recording_that_is_not_what_it_was_is_read_packet_by_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, locked: bool
) -> None:
    pattern = record(tmp_path / "rec", seconds=8)
    paths = sorted((tmp_path / "rec").iterdir())
    link = FakeLink()

    def change(event: Event) -> None:
        if isinstance(event, FileOpened) and len([e for e in link.events if isinstance(e, FileOpened)]) == 1:
            if fault == "shorter":
                os.truncate(paths[0], 2000)
            elif fault == "rewritten":
                paths[0].touch()
            elif fault == "gone":
                paths[0].unlink()

    def unreadable(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    link.on_event = change
    if fault == "unreadable":
        monkeypatch.setattr(os, "preadv", unreadable)
    opened = descriptors()
    made = export(pattern, tmp_path / "out", link, password="secret" if locked else "")
    assert descriptors() == opened
    if locked:
        return
    assert made.ended.succeeded, made.ended.reason
    assert not is_in_blocks(made.file)
    expected = list(range(200))
    assert numbers(made.file) == (expected if fault in ("rewritten", "unreadable") else expected[50:])
    assert f"begun anew, packet by packet: {paths[0]}: " in link.notes


def test_each_source_goes_its_own_way(tmp_path: Path) -> None:
    first = record(tmp_path / "one", seconds=4)
    second = record(tmp_path / "two", Form(codec="mpeg4", gop=25), seconds=4)
    folder = tmp_path / "out"
    folder.mkdir()
    sources: tuple[Source, ...] = (source(first), source(second, "Yard"), source(tmp_path / "no" / MEDIAMTX, "Gate"))
    made = do(ClipJob(folder=str(folder), sources=sources, start_us=T0, end_us=T0 + 60 * SECOND, container="mp4"))
    assert made.ended.succeeded
    assert [is_in_blocks(path) for path in made.files] == [True, False]
    assert [numbers(path) for path in made.files] == [list(range(100))] * 2
    assert "begun anew" not in made.link.notes
    assert [error == "" for _, error in sorted(made.link.sources.items())] == [True, True, False]


def test_a_file_that_was_finished_before_the_disk_filled_up_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = record(tmp_path / "rec", seconds=12)
    sorted((tmp_path / "rec").iterdir())[2].unlink()
    real = os.pwrite
    written = 0

    def pwrite(fd: int, data: Any, at: int) -> int:
        nonlocal written
        written += len(data)
        if written > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    made = export(pattern, tmp_path / "out", gaps="split")
    assert not made.ended.succeeded
    assert "the disk for results is full" in made.ended.reason
    assert [numbers(path, flawless=False) for path in made.files] == [list(range(100)), list(range(150, 200))]
    assert made.link.sources[0] == made.ended.reason
    assert len(list(made.folder.iterdir())) == 2


@pytest.mark.parametrize("password", ["", "secret"])
def test_a_result_that_the_disk_refuses_in_the_end_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    pattern = record(tmp_path / "rec", seconds=10)
    for path in sorted((tmp_path / "rec").iterdir())[1::2]:
        path.unlink()
    real, calls = os.fsync, iter(range(2))

    def fsync(fd: int) -> None:
        if ".part" in str(Path(f"/proc/self/fd/{fd}").readlink()) and next(calls, None) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    opened = descriptors()
    made = export(pattern, tmp_path / "out", gaps="split", password=password)
    assert not made.ended.succeeded
    assert "the disk for results is full" in made.ended.reason
    assert made.link.sources == {0: made.ended.reason}
    assert len({done.name for done in made.link.done}) == len(made.link.done) == 2
    assert sorted(path.name for path in made.folder.iterdir()) == sorted(done.name for done in made.link.done)
    assert descriptors() == opened


def test_a_disk_that_takes_nothing_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    opened = descriptors()
    made = export(record(tmp_path / "rec"), tmp_path / "out")
    assert "the disk for results is full" in made.ended.reason
    assert descriptors() == opened
    assert not list(made.folder.iterdir())


def test_a_fragment_as_large_as_none_may_be_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "LARGEST_FRAGMENT", 10_000)
    made = export(record(tmp_path / "rec"), tmp_path / "out")
    assert not is_in_blocks(made.file)
    assert numbers(made.file) == list(range(150))
