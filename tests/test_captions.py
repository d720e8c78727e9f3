"""The text of a moment, and the cues of a stretch of time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vx.captions import Caption, Cue, check_time_format, clean, cues, format_time
from vx.drawing import Words
from vx.jobs import Source

AT = 1_778_486_651_155_999
"""2026-05-11T08:04:11.155999Z"""


def camera(name: str, **fields: Any) -> Source:
    return Source(origin="hosts/Server1/x", name=name, pattern="/x/%s.mp4", timezone="UTC", **fields)


def caption(pattern: str, *sources: Source, **words: object) -> Caption:
    return Caption.of(Words(pattern=pattern, **words), sources or (camera("Entrance"),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("time_format", "offset_min", "text"),
    [
        (Words().time_format, 0, "2026-May-11 08:04:11"),
        ("%d.%m.%Y %H:%M:%S.%f", 120, "11.05.2026 10:04:11.155"),
        ("%a %A %B %y %I%p %e %j %F %T %z %%", -8 * 60, "Mon Monday May 26 12AM 11 131 2026-05-11 00:04:11 -08:00 %"),
        ("%H:%M%z", 345, "13:49+05:45"),
        ("taken", 0, "taken"),
    ],
)
def test_a_time_is_written_in_local_time(time_format: str, offset_min: int, text: str) -> None:
    check_time_format(time_format)
    assert format_time(AT, time_format, offset_min) == text


@pytest.mark.parametrize(("time_format", "named"), [("%Q", "'%Q'"), ("%H:%", "'%'"), ("%s", "'%s'"), ("%-d", "'%-'")])
def test_a_format_that_is_not_known_is_named(time_format: str, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} is not known; known are %Y "):
        check_time_format(time_format)


def test_wildcards() -> None:
    source = camera("Gate", id="7", location="North wall")
    pattern = "{CameraId}|{CameraName}|{CameraLocation}|{CurrentUser}|{BookmarkInfo}|{ExportComment}|{Else}|{Timestamp}"
    text = caption(pattern, source, user="ann", comment="{Timestamp} {CameraName}", time_format="%H").at(AT)
    assert text == "7|Gate|North wall|ann||{Timestamp} {CameraName}|{Else}|08"


def test_cameras_in_one_file_are_named_once_each() -> None:
    assert caption("{CameraName}", camera("Gate"), camera("Yard"), camera("Gate"), camera("")).at(AT) == "Gate, Yard"


def test_what_cannot_be_drawn_goes() -> None:
    assert clean("a\tb\r\n\r\n \x00c\x1b[1m\u202ed\n") == "a b\nc [1m d"
    assert clean("क्\u200dष") == "क्\u200dष"


def test_a_stretch_has_a_cue_for_each_second() -> None:
    made = list(cues(caption("{Timestamp}", time_format="%S.%f"), AT, AT + 2_000_000))
    second = AT - AT % 1_000_000
    assert made == [
        Cue(AT, second + 1_000_000, "11.155"),
        Cue(second + 1_000_000, second + 2_000_000, "12.000"),
        Cue(second + 2_000_000, AT + 2_000_000, "13.000"),
    ]


@given(st.integers(-(10**15), 10**15), st.integers(0, 10_000_000))
def test_cues_follow_each_other_without_a_hole(begin_us: int, length_us: int) -> None:
    end_us = begin_us + length_us
    made = list(cues(caption("{Timestamp}"), begin_us, end_us))
    assert sum(cue.end_us - cue.begin_us for cue in made) == length_us
    assert all(one.end_us == other.begin_us for one, other in itertools.pairwise(made))
    assert all(0 < cue.end_us - cue.begin_us <= 1_000_000 for cue in made)


@given(st.text(), st.integers(-(2**55), 2**55), st.integers(-840, 840))
def test_any_text_and_time_can_be_written(comment: str, us: int, offset_min: int) -> None:
    text = caption("{ExportComment} {Timestamp}", comment=comment, offset_min=offset_min).at(us)
    assert "\x00" not in text
    assert clean(text) == text
