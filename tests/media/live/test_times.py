"""When a live camera's frames were taken, from made-up packets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from tests.material import SECOND, T0
from vx.media.live.times import Stamp, Times, TrackTime

FRAME = 40_000


@dataclass(frozen=True)
class Frame:
    """`taken` is when it really was, from T0 on; `media` is what the camera says of that."""

    taken: int
    media: int | None
    delay: int = 20_000
    sender: int | None = None
    """How far the sender's clock is ahead of ours; None: it sends no reports."""


def stamps(frames: Iterable[Frame], offset: int = T0, **track: int) -> tuple[list[Stamp], TrackTime]:
    time = TrackTime(FRAME, offset, **track)
    made = [
        time.stamp(
            Times(
                pts=frame.media,
                dts=frame.media,
                duration=FRAME,
                arrival=T0 + frame.taken + frame.delay,
                sender=None if frame.sender is None else T0 + frame.taken + frame.sender,
            )
        )
        for frame in frames
    ]
    return made, time


def even(count: int, **more: int) -> list[Frame]:
    return [Frame(n * FRAME, n * FRAME, **more) for n in range(count)]


def test_an_even_camera_stays_even_whatever_the_network_does() -> None:
    frames = [Frame(n * FRAME, n * FRAME, delay=20_000 + n * 7919 % 80_000) for n in range(500)]
    made, _ = stamps(frames)
    assert [stamp.pts for stamp in made] == [T0 + n * FRAME for n in range(500)]


def test_the_first_report_moves_the_times_slowly() -> None:
    frames = [Frame(n * FRAME, n * FRAME, sender=-30_000 if n > 50 else None) for n in range(300)]
    made, time = stamps(frames)
    assert time.by_sender
    assert [stamp.pts for stamp in made[:50]] == [T0 + n * FRAME for n in range(50)]
    assert abs(made[-1].pts - (T0 + 299 * FRAME - 30_000)) <= 2_000
    assert all(FRAME * 0.95 <= after.pts - before.pts <= FRAME * 1.05 for before, after in pairwise(made))


def test_a_clock_that_is_not_set_is_not_believed() -> None:
    made, time = stamps(even(200, sender=-3600 * SECOND))
    assert time.distrusted
    assert not time.by_sender
    assert [stamp.pts for stamp in made] == [T0 + n * FRAME for n in range(200)]


@pytest.mark.parametrize("jump", [-20 * SECOND, -SECOND, 5 * SECOND, 95_443 * SECOND])
def test_times_that_jump_go_on_where_they_were(jump: int) -> None:
    frames = [Frame(n * FRAME, n * FRAME + (jump if n >= 100 else 0)) for n in range(300)]
    made, _ = stamps(frames)
    assert [stamp.pts for stamp in made] == [T0 + n * FRAME for n in range(300)]


def test_a_hole_is_no_jump() -> None:
    frames = [*even(100), *(Frame(n * FRAME, n * FRAME) for n in range(250, 300))]
    made, _ = stamps(frames)
    assert [stamp.pts for stamp in made[100:]] == [T0 + n * FRAME for n in range(250, 300)]


def test_what_a_stall_held_up_is_not_moved() -> None:
    """8 s of frames come late and all at once, then it goes on in time."""
    frames = [Frame(n * FRAME, n * FRAME, delay=max(20_000, (300 - n) * FRAME if n >= 100 else 0)) for n in range(500)]
    made, _ = stamps(frames)
    assert [stamp.pts for stamp in made] == [T0 + n * FRAME for n in range(500)]


@pytest.mark.parametrize("per_mille", [-3, 3])
def test_a_clock_that_drifts_is_followed(per_mille: int) -> None:
    frames = [Frame(n * FRAME, n * FRAME * (1000 + per_mille) // 1000) for n in range(25 * 600)]
    made, _ = stamps(frames)
    off = [stamp.pts - (T0 + frame.taken) for stamp, frame in zip(made, frames, strict=True)]
    assert max(abs(each) for each in off) < 250_000
    assert all(after.dts > before.dts for before, after in pairwise(made))


def test_missing_times_are_filled_in() -> None:
    frames = [Frame(n * FRAME, None if n % 7 == 3 else n * FRAME) for n in range(100)]
    made, _ = stamps(frames)
    assert [stamp.pts for stamp in made] == [T0 + n * FRAME for n in range(100)]


def test_b_frames_keep_their_order() -> None:
    time = TrackTime(FRAME, T0)
    order = [0, 3, 1, 2, 6, 4, 5]
    made = [
        time.stamp(Times((pts + 2) * FRAME, dts * FRAME, FRAME, T0 + dts * FRAME + 20_000))
        for dts, pts in enumerate(order)
    ]
    assert [stamp.pts for stamp in made] == [T0 + (pts + 2) * FRAME for pts in order]
    assert [stamp.dts for stamp in made] == [T0 + dts * FRAME for dts in range(7)]
