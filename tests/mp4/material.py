"""Recordings as recorders write them, for tests of vx.mp4: made once, by Debian's ffmpeg and by hand."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

from vx.mp4.recording import Recording, read_recording

_SOURCES = "-f lavfi -i testsrc2=s=160x96:r=25 -f lavfi -i sine=440:r=48000 -t 4 -pix_fmt yuv420p -c:a aac"
_H264 = "-c:v libx264 -preset veryfast -g 25"
_H265 = "-c:v libx265 -preset ultrafast -tag:v hvc1 -x265-params log-level=none:open-gop=0:keyint=25:min-keyint=25"
WRITERS = {
    "flat": f"{_H264} -bf 0",
    "flat with B-frames": f"{_H264} -bf 2",
    "table first": f"{_H264} -bf 2 -movflags faststart",
    "signed shifts": f"{_H264} -bf 2 -movflags negative_cts_offsets",
    "fragments": f"{_H264} -bf 2 -movflags frag_keyframe+empty_moov+default_base_moof",
    "fragments by position": f"{_H264} -bf 2 -movflags frag_keyframe+empty_moov",
    "fragments behind samples": f"{_H264} -bf 2 -movflags frag_keyframe",
    "fragments with an edit list": f"{_H264} -bf 2 -movflags frag_keyframe+delay_moov+default_base_moof",
    "short fragments": f"{_H264} -bf 0 -frag_duration 200000 -movflags empty_moov+default_base_moof",
    "a later part": f"{_H264} -bf 2 -output_ts_offset 7.3 -movflags frag_keyframe+empty_moov",
    "H.265": _H265,
    "H.265 in fragments": f"{_H265} -movflags frag_keyframe+empty_moov",
}
"""How ffmpeg is told to write them."""


@functools.cache
def written(name: str) -> bytes:
    """One of `WRITERS`' files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recording.mp4")
        command = f"ffmpeg -v error -nostdin -y {_SOURCES} {WRITERS[name]}"
        subprocess.run([*command.split(), str(path)], check=True)
        return path.read_bytes()


def read(data: bytes, *, asked: list[tuple[int, int]] | None = None) -> Recording:
    """Read a recording from memory; `asked` gets what was read of it."""

    def read_at(offset: int, length: int) -> bytes:
        if asked is not None:
            asked.append((offset, length))
        return data[offset : offset + length]

    return read_recording(read_at, len(data))


def read_file(path: Path) -> Recording:
    """Read one from the disk."""
    with path.open("rb") as file:
        return read_recording(lambda offset, length: os.pread(file.fileno(), length, offset), path.stat().st_size)
