"""The way into the worker's side: one job in, its outcome out."""

from __future__ import annotations

from PIL import Image, TiffImagePlugin  # noqa: F401  # the latter writes EXIF, and would be loaded then

from vx.errors import VxError
from vx.jobs import ClipJob, Ended, Job, Link, Note, ProbeJob, SnapshotJob
from vx.media.clips.clip import export_clip
from vx.media.clips.probe import probe
from vx.media.files.salvage import salvage
from vx.media.live.clip import export_live_clip
from vx.media.live.snapshot import export_live_snapshots
from vx.media.snapshots.snapshot import export_snapshots
from vx.media.virtual.export import export_virtual
from vx.media.virtual.stretches import DoubtError

Image.preinit()  # here, before workers are forked: saving a picture does that, and it takes as long as the rest of it


def run(job: Job, link: Link) -> Ended:
    """Do the job, reporting on `link`; returns the last event, which the caller sends.

    Blocks until the work is done or `link.stopping` is set. Bad recordings and a disk that refuses are outcomes, not
    exceptions. A thread that hangs in a read may be left behind: the caller ends the process with os._exit.
    """
    try:
        if isinstance(job, ClipJob):
            if job.live is not None:
                return export_live_clip(job, link)
            return _export_recorded(job, link)
        if isinstance(job, SnapshotJob):
            return export_snapshots(job, link) if job.live is None else export_live_snapshots(job, link)
        if isinstance(job, ProbeJob):
            return probe(job, link)
        return salvage(job, link)
    except VxError as error:
        return Ended(succeeded=False, reason=str(error))


def _export_recorded(job: ClipJob, link: Link) -> Ended:
    if job.copied:
        link.send(Note(level="info", text=f"copied: {job.copied}"))
    in_blocks = True
    if job.virtual:
        try:
            ended = export_virtual(job, link)
        except DoubtError:
            in_blocks = False
        else:
            if ended is not None:
                return ended
    return export_clip(job, link, in_blocks=in_blocks)
