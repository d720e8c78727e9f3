"""Completed sessions with virtual results, for tests of what they keep."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tests.session.fakes import COMPLETED, ORIGIN
from vx.model import ResultFile
from vx.report import Report, SourceReport
from vx.session.session import Session
from vx.virtual import MADE, Identity, Origin, Pieces, write_made

SIZE = 100_000
"""Of a recording."""


def session(folder: Path, name: str, *, lease: bool = True, used: int = SIZE, files: int = 1) -> tuple[Session, Path]:
    """One whose files take `used` bytes from the middle of a recording, and that recording."""
    recording = folder / f"recording of {name}"
    recording.write_bytes(os.urandom(SIZE))
    results = [ResultFile(f"clip {i}.mp4", 10 + used, "video/mp4", 0, 1) for i in range(files)]
    for file in results:
        result = folder / name / file.id
        result.mkdir(parents=True)
        if lease:
            os.link(recording, result / "1")
        pieces = Pieces()
        pieces.add(0, 0, 10)
        pieces.add(1, (SIZE - used) // 2, used)
        origin = Origin(path=str(recording), identity=Identity.of(recording.stat()), lease="1" if lease else "")
        write_made(result / MADE, [b"ten bytes."], pieces.describe((origin,)))
    report = Report((SourceReport(ORIGIN, "Gate"),))
    return Session(replace(COMPLETED, id=name, files=tuple(results), report=report), folder / name), recording
