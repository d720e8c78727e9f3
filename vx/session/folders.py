"""The sessions' folders on the disk: `SESSIONS/ID/FILE`. Plain blocking functions, called in threads.

A folder belongs to a session that the store knows, and in it the files that the session's record names; all else is
what a server that was killed left behind.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from vx import disk
from vx.jobs import PartFile
from vx.logs import about
from vx.model import Record, ResultFile, State
from vx.timestamps import now_us
from vx.virtual import MADE, Description, read_description

log = logging.getLogger(__name__)


def make(folder: Path) -> None:
    """A session's folder; `vx.disk.sync` of the one that it is in has its name on the disk. OSError."""
    folder.mkdir(mode=0o700, parents=True)


def remove(folder: Path) -> None:
    """Delete a folder; what cannot be deleted is logged, and removed by the next server's sweep."""

    def report(_function: object, path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
        if not isinstance(info[1], FileNotFoundError):
            log.warning("cannot remove %s: %s", path, info[1])

    shutil.rmtree(folder, onerror=report)


def remove_files(folder: Path, names: list[str]) -> None:
    """Delete some files of a session; as `remove`."""
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():  # a virtual result, or what was to become one
            remove(path)
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove %s: %s", path, error)


def strays(root: Path, known: Mapping[str, Record]) -> list[Path]:
    """The folders of sessions that have none by their record, or no record. OSError."""
    return [folder for folder in _all(root) if _is_stray(known.get(folder.name))]


def sweep(root: Path, known: Mapping[str, Record]) -> None:
    """Delete what no record names. A listed file that is not there as it was is logged. OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in _all(root):
        record = known.get(folder.name)
        if _is_stray(record):
            about(log, folder.name).info("nobody knows it: its files are removed")
            remove(folder)
        elif record is not None and record.state is State.COMPLETED:
            clear(folder, [file.id for file in record.files if not file.path])
    for record in known.values():
        for file in record.files:
            if not file.path and result_size(root / record.id / file.id) != file.size:
                about(log, record.id).error("its file %s is not what it was: gone, or cut short", file.id)


def _is_stray(record: Record | None) -> bool:
    return record is None or record.state is State.REMOVED


def _all(root: Path) -> list[Path]:
    """Symbolic links are neither followed nor touched."""
    if not root.exists():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())


def clear(folder: Path, results: Sequence[str]) -> None:
    """Delete what lies in a session's folder beside its results; what can't be deleted is logged. OSError."""
    stray = [path.name for path in folder.iterdir() if path.name not in results]
    stray += [f"{name}/{other}" for name in results for other in _strays(folder / name)]
    if stray:
        about(log, folder.name).info("removing what is no result: %s", ", ".join(sorted(stray)))
        remove_files(folder, stray)


def set_aside(root: Path, database: Path) -> None:
    """Keep folders of sessions whose database is gone: without it a sweep would take them all for strays. OSError."""
    if database.exists() or not root.is_dir() or not any(root.iterdir()):
        return
    aside = root.with_name(f"{root.name}-without-database-{now_us()}")
    root.rename(aside)
    disk.sync(root.parent)
    log.warning("there is no database %s any more: the results that lay there are kept in %s", database, aside)


def wait_unused(folder: Path) -> None:
    """Wait until no worker of a server that was killed is at work in the folder. OSError where it is gone."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # a worker has it shared
    finally:
        os.close(fd)


def sizes(folders: Mapping[str, Path]) -> dict[str, int]:
    """Bytes in each folder; 0 for one that cannot be looked at."""
    return {key: _content(folder) for key, folder in folders.items()}


def _strays(result: Path) -> list[str]:
    """What lies in a virtual result and is no part of it; nothing where it isn't one, or can't be understood."""
    try:
        description = described(result)
        if description is None:
            return []
        named = {MADE, *(origin.lease for origin in description.origins)}
        return [path.name for path in result.iterdir() if path.name not in named]
    except (OSError, ValueError):
        return []


def described(result: Path) -> Description | None:
    """What a virtual result consists of; None for a plain file. OSError, ValueError."""
    if not result.is_dir() or result.is_symlink():
        return None
    fd = os.open(result / MADE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return read_description(fd)
    finally:
        os.close(fd)


def result_size(path: Path) -> int | None:
    """The size of a result, be it a file or virtual; None where it is gone."""
    try:
        description = described(path)
        return path.lstat().st_size if description is None else description.size
    except (OSError, ValueError):
        return None


def taken(folder: Path, files: Sequence[ResultFile]) -> int:
    """Bytes that these results take on the disk: of a virtual one only what was made for it."""
    return sum(_taken(folder / file.id, file.size) for file in files if not file.path)


def _taken(path: Path, size: int) -> int:
    return (_size(path / MADE) or 0) if path.is_dir() else size


def _content(folder: Path) -> int:
    try:
        return sum(_size(path) or 0 for path in folder.iterdir())
    except OSError:
        return 0


def left_behind(folder: Path, parts: tuple[PartFile, ...]) -> tuple[list[ResultFile], list[PartFile]]:
    """What a worker that died made of `parts`: files that are complete, and those of which something may be readable.

    A worker completes a file by renaming it, and may have had no time to say so. A ZIP file is then known as a whole; a
    clip has to be looked at, under the name it has by now.
    """
    complete: list[ResultFile] = []
    readable: list[PartFile] = []
    for part in parts:
        if (folder / part.part_name).exists():
            readable.append(part)
            continue
        size = _size(folder / part.name)
        if size is None:
            continue
        if not part.mime_type.startswith("video/"):
            complete.append(ResultFile(part.name, size, part.mime_type, part.first_us, part.first_us))
        else:
            readable.append(
                PartFile(part_name=part.name, name=part.name, mime_type=part.mime_type, first_us=part.first_us)
            )
    return complete, readable


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None
