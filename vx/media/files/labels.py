"""What is said of a clip: in its file, and in the log while it is made."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from vx.jobs import ClipJob, Gap, Note, Source
from vx.media.packets.plan import GAP_WORTH_A_NOTE_US
from vx.timestamps import describe_range, to_datetime

SOFTWARE = f"vx {version('vx')}"  # looked up here, before workers are forked: it takes milliseconds


def metadata(job: ClipJob, sources: Sequence[Source], first_us: int) -> dict[str, str]:
    """What the file says of itself. MP4 has no tags of its own for most of it, so the description holds all."""
    ids = [f"{source.id} {source.origin}".strip() for source in sources]
    offset = job.words.offset_min
    zone = f"UTC{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    tags = {
        "title": ", ".join(source.name for source in sources),
        "comment": job.words.comment,
        "creation_time": to_datetime(first_us).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "description": f"Camera: {', '.join(ids)}. Time zone: {zone}. Software: {SOFTWARE}.",
    }
    if job.container == "mkv":
        tags |= {"camera_id": ", ".join(ids), "time_zone": zone, "software": SOFTWARE}
    return {name: value for name, value in tags.items() if value}


def warning(source: Source, number: int, text: str) -> Note:
    """Of what is wrong with a source, which has this number."""
    return Note(level="warning", text=f"{source.name}: {text}", source=number)


def gap(number: int, recorded_until_us: int, begin_us: int, end_us: int) -> list[Gap]:
    """That a source has nothing up to `end_us`, wanted from `begin_us` on; none where that isn't worth a note."""
    begin_us = max(begin_us, recorded_until_us)
    worth = end_us - begin_us > GAP_WORTH_A_NOTE_US
    return [Gap(source=number, begin_us=begin_us, end_us=end_us)] if worth else []


def overlaps(name: str) -> str:
    """Of a recording."""
    return f"{name}: it begins before the recording ahead of it ends; a new file begins with it"


def other_form(name: str) -> str:
    """Of a recording."""
    return f"{name}: its picture or sound is of another form; a new file begins with it"


def nothing_recorded(job: ClipJob, obstacle: str = "") -> str:
    """Of a source, or of all. `obstacle`: what was warned of first, if anything was."""
    what = "no key frame" if job.coding.key_fps else "nothing"
    nothing = f"{what} was recorded from {describe_range(job.start_us, job.end_us)}"
    return readable(nothing, obstacle)


def readable(nothing: str, obstacle: str) -> str:
    """That there is nothing, where something might have been there but for an obstacle."""
    return f"{nothing} that can be read ({obstacle})" if obstacle else nothing
