"""What an export is expected to take, from what is recorded and what a rehearsal of its first seconds found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.session.fakes import CLIP
from vx.jobs import Probed
from vx.session.budget import Recorded, Survey
from vx.session.prospect import Prospect

S = 1_000_000
MINUTE = Recorded(((0, 60 * S),), 6_000_000)


def prospect(**probed: Any) -> Prospect:
    found = [Probed(source=0, **probed)] if probed else []
    return Prospect(CLIP, Survey(need=1, recorded=[MINUTE]), found, "", False)


@pytest.mark.parametrize(
    ("probed", "expected"),
    [
        # all of it was rehearsed
        ({"video": "copied", "sample_bytes": 70_000, "sample_us": S, "is_whole": True}, 70_000),
        ({"video": "encoded", "sample_bytes": 70_000, "sample_us": S, "is_whole": True}, 70_000),
        # the rest takes what its recordings take, or as much as what was encoded
        ({"video": "copied", "sample_bytes": 100_000, "sample_us": 15 * S}, 100_000 + 4_500_000),
        ({"video": "encoded", "sample_bytes": 100_000, "sample_us": 4 * S}, 1_500_000),
        # the names say that less was recorded than there is
        ({"video": "copied", "sample_bytes": 100_000, "sample_us": 70 * S}, 100_000),
        # nothing could be rehearsed
        ({"video": "copied"}, 6_000_000),
        ({}, 6_000_000),
    ],
)
def test_what_is_expected(probed: dict[str, Any], expected: int) -> None:
    assert prospect(**probed).expected_bytes == expected


def test_what_is_encrypted_takes_no_more_than_what_is_not() -> None:
    """Only while it is made there has to be room for it twice, which is what is needed."""
    known = prospect(video="copied", sample_bytes=70_000, sample_us=S, is_whole=True)
    locked = replace(known, job=msgspec.structs.replace(CLIP, password="secret"))
    assert locked.expected_bytes == known.expected_bytes
