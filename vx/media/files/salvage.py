"""What a killed worker, or a full disk, left behind: kept where it can be played."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import av

from vx.jobs import Ended, Link, Note, SalvageJob
from vx.media.files.results import Target
from vx.media.packets.recording import BrokenError, demux, open_recording, time_base, translate, video_stream

_BOX = struct.Struct(">I4s")
"""A box of an MP4 begins with its length, this included, and its kind."""


def salvage(job: SalvageJob, link: Link) -> Ended:
    """Keep each part that holds a picture under its final name, remove the others. VxError where the disk refuses."""
    kept = sum(keep(Target(job.folder, part), link) for part in job.parts)
    if kept:
        return Ended(succeeded=True)
    return Ended(succeeded=False, reason="nothing of the files under way could be kept")


def keep(target: Target, link: Link) -> bool:
    """Keep what was written if it holds a picture: complete it, report it done. Else delete it, with a note.

    VxError where the disk refuses.
    """
    part, path = target.part, Path(target.path)
    try:
        if target.mime_type == "video/mp4":
            _cut_after_last_fragment(path)
        last_us = part.first_us + (_shown_us(str(path)) if target.mime_type.startswith("video/") else _whole(path))
    except Exception as error:  # noqa: BLE001 - bad bytes make libav and PyAV raise anything
        target.discard()
        link.send(Note(level="warning", text=f"{part.name}: {translate(error)}; nothing of it can be kept"))
        return False
    size = target.complete()
    link.send(part.done(size, last_us))
    return True


def _cut_after_last_fragment(path: Path) -> None:
    """Cut off what there is of a last fragment that isn't whole, unless it is all that there is.

    Of its pictures the last one would be torn, and of its sound there may be none. Where not even its table is whole,
    libav takes the file for empty; what that describes was never written.
    """
    size = path.stat().st_size
    with path.open("r+b") as file:
        at = 0
        fragments = [0, 0]
        """Where the first one and the last one begin."""
        while at + _BOX.size <= size:
            file.seek(at)
            length, kind = _BOX.unpack(file.read(_BOX.size))
            if length < _BOX.size:
                return  # of 64 bits, or up to the end of the file: no table of ours
            if kind == b"moof":
                fragments = [fragments[0] or at, at]
            if at + length > size:
                first, last = fragments
                if kind == b"moof" or (kind == b"mdat" and last > first):
                    file.truncate(last)
                return
            at += length


def _shown_us(path: str) -> int:
    """How long after the first frame the last one is shown. Any exception where there is none."""
    first: int | None = None
    last = 0
    with open_recording(path) as container:
        video = video_stream(container)
        try:
            for packet in demux(container, video):
                shown = packet.pts if packet.pts is not None else packet.dts  # AVI has but one time
                if shown is not None:
                    first = shown if first is None else min(first, shown)
                    last = max(last, shown)
        except (BrokenError, av.FFmpegError):
            if first is None:
                raise
            # the cut end of a file that was being written; what is ahead of it can be played
        if first is None:
            raise BrokenError("it holds no picture")
        return time_base(video).us(last - first)


def _whole(path: Path) -> int:
    """A ZIP file is of use when it is whole; up to when what is in it is shown, nobody can tell."""
    if zipfile.is_zipfile(path):
        return 0
    raise BrokenError(f"it is not complete ({path.stat().st_size} bytes)")
