"""Truncated and bit-flipped recordings through a real worker process: it ends clearly, and what is good is all there.

VX_FUZZ=50 makes fifty rounds of it instead of two.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.material import SECOND, STEM, T0, numbered, numbers_of_all, source
from tools.make_recordings import Form, Piece, cut
from vx.jobs import ClipJob, Ended, FileDone, Note
from vx.worker import WorkerLimits, WorkerPool

FORM = Form(width=256, height=64, gop=5, audio=True, b_frames=1)
SEGMENTS = 201
ROUNDS = int(os.environ.get("VX_FUZZ", "2"))
SEED = 20260511


def damaged(content: bytes, dice: random.Random) -> bytes:
    """What a bad disk, a power cut or an attacker makes of it."""
    broken = bytearray(content)
    # the first and last kilobytes are where most of a container's structure is
    where = dice.choice(
        (range(len(broken)), range(min(1500, len(broken))), range(max(0, len(broken) - 2500), len(broken)))
    )
    for _ in range(dice.choice((0, 1, 3, 30))):
        broken[dice.choice(where)] = dice.choice((0, 0xFF, 0x7F, dice.randrange(256)))
    match dice.randrange(6):
        case 0:
            del broken[dice.randrange(len(broken)) :]
        case 1:
            begin = dice.randrange(len(broken))
            del broken[begin : begin + dice.randrange(1, 2000)]
        case 2:
            begin = dice.randrange(len(broken))
            broken[begin:begin] = broken[dice.randrange(len(broken)) :][: dice.randrange(1, 2000)]
    return bytes(broken)


@pytest.mark.parametrize("kind", ["mp4", "fmp4", "mkv", "ts"])
async def test_every_other_recording_is_damaged(tmp_path: Path, kind: str) -> None:
    pattern = tmp_path / "rec" / f"{STEM}.{kind}"
    step = SECOND // 5
    pieces = [Piece(i * step, (i + 1) * step) for i in range(SEGMENTS)]
    paths = cut(numbered(FORM, 5 * SEGMENTS), str(pattern), T0, pieces, kind=kind)
    assert len(paths) == SEGMENTS
    contents = [path.read_bytes() for path in paths]
    good = {5 * i + n for i in range(0, SEGMENTS, 2) for n in range(5)}
    pool = WorkerPool(WorkerLimits(nice=0, memory=768 << 20))
    for number in range(ROUNDS):
        dice = random.Random(SEED + number)
        for path, content in zip(paths[1::2], contents[1::2], strict=True):
            path.write_bytes(damaged(content, dice))
        folder = tmp_path / f"out{number}"
        folder.mkdir()
        job = ClipJob(
            folder=str(folder),
            sources=(source(pattern),),
            start_us=T0,
            end_us=T0 + SEGMENTS * step,
            container="mkv" if number % 2 else "mp4",
        )
        events = []
        async with pool.open_worker(job) as worker:
            while (event := await worker.receive()) is not None:
                events.append(event)
        assert isinstance(events[-1], Ended), (number, events[-3:])
        assert events[-1].succeeded, (number, events[-1].reason)
        assert not [event.text for event in events if isinstance(event, Note) and event.level == "error"]
        files = [folder / event.name for event in events if isinstance(event, FileDone)]
        found = {n for numbers in numbers_of_all(files, damaged=(FORM.width, FORM.height)) for n in numbers}
        assert good <= found, (number, sorted(good - found))
