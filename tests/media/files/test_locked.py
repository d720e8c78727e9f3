"""Clips in encrypted ZIP files: 7-Zip opens them, and nothing plain is ever to be found on the disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import pyzipper

from tests.material import SECOND, T0, FakeLink, Outcome, clip_job, do, numbered, numbers, source
from tools.make_recordings import MEDIAMTX, Form, Piece, cut
from vx.jobs import Container, Event, FileOpened, PartFile, Progress, SalvageJob

PASSWORD = "пароль s3cret"
CONTAINERS: list[Container] = ["mp4", "mkv", "avi"]


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pattern = tmp_path_factory.mktemp("rec") / MEDIAMTX
    cut(numbered(Form(width=256, height=64), 200), str(pattern), T0, [Piece(0, 8 * SECOND)])
    return pattern


def export(
    pattern: Path, folder: Path, container: Container, *, link: FakeLink | None = None, max_file_size: int = 0
) -> Outcome:
    more = {"max_file_size": max_file_size, "subtitles": True, "password": PASSWORD}
    return do(clip_job(folder, [source(pattern, "Вход")], 0, 8, container, **more), link)


def unpacked(path: Path, folder: Path, password: str = PASSWORD) -> Path:
    """The file in a ZIP file, as 7-Zip unpacks it."""
    folder.mkdir()
    done = subprocess.run(["7z", "x", f"-p{password}", f"-o{folder}", path], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = folder.iterdir()
    return found


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_clip_comes_out_of_its_zip_file(tmp_path: Path, pattern: Path, container: Container) -> None:
    made = export(pattern, tmp_path / "out", container)
    assert made.ended.succeeded, made.ended.reason
    assert made.file.name == "Вход_20260511T080000.000Z.zip"
    (done,) = made.link.done
    assert (done.mime_type, done.size) == ("application/zip", made.file.stat().st_size)
    assert (done.first_us, done.last_us) == (T0, T0 + 199 * SECOND // 25)
    listed = subprocess.run(["7z", "l", "-slt", made.file], capture_output=True, check=True, text=True).stdout
    assert "Method = AES-256 Store" in listed
    assert b"\x99\x07\x00\x02\x00AE\x03" in made.file.read_bytes()  # AE-2, with a key of 256 bits
    clip = unpacked(made.file, tmp_path / "plain")
    assert clip.name == f"Вход_20260511T080000.000Z.{container}"
    assert numbers(clip) == list(range(200))
    with pytest.raises(AssertionError, match="Wrong password"):
        unpacked(made.file, tmp_path / "wrong", "s3cret")


def test_no_file_of_it_is_larger_than_the_limit(tmp_path: Path, pattern: Path) -> None:
    made = export(pattern, tmp_path / "out", "mp4", max_file_size=40 << 10)
    assert made.ended.succeeded, made.ended.reason
    assert len(made.files) > 1
    assert max(path.stat().st_size for path in made.files) <= 40 << 10
    shown = [n for i, path in enumerate(made.files) for n in numbers(unpacked(path, tmp_path / str(i)))]
    assert shown == list(range(200))


def test_while_it_is_written_the_disk_has_no_name_for_it(tmp_path: Path, pattern: Path) -> None:
    seen: list[list[str]] = []
    folder = tmp_path / "out"

    def look(event: Event) -> None:
        if isinstance(event, (FileOpened, Progress)):
            seen.append([path.name for path in folder.iterdir() if not path.name.endswith(".zip")])

    made = export(pattern, folder, "mp4", link=FakeLink(on_event=look))
    assert made.ended.succeeded
    assert seen
    assert all(names == [] for names in seen)


def test_a_full_disk_leaves_nothing_plain(tmp_path: Path, pattern: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyzipper.AESZipFile, "open", full)
    made = export(pattern, tmp_path / "out", "mkv")
    assert not made.ended.succeeded
    assert "the disk for results is full" in made.ended.reason
    assert list((tmp_path / "out").iterdir()) == []


def test_of_a_worker_that_died_nothing_but_a_whole_zip_file_is_kept(tmp_path: Path, pattern: Path) -> None:
    whole = export(pattern, tmp_path / "out", "mp4").file.read_bytes()
    name = "x.zip"
    part = PartFile(part_name=f"{name}.part", name=name, mime_type="application/zip", first_us=T0)
    for number, (content, kept) in enumerate([(whole, True), (whole[:-30], False), (None, False)]):
        folder = tmp_path / f"left-{number}"
        folder.mkdir()
        if content is not None:
            (folder / part.part_name).write_bytes(content)
        made = do(SalvageJob(folder=str(folder), parts=(part,)))
        assert made.ended.succeeded == kept
        assert [path.name for path in folder.iterdir()] == ([name] if kept else [])
