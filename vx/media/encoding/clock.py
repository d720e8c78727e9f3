"""The clip's clock: the wall clock, or that of a time lapse."""

from __future__ import annotations

from fractions import Fraction

from vx.jobs import ClipJob


class Clock:
    """The clip's clock: the wall clock, or one that runs `speed` times as fast from `start_us` on."""

    def __init__(self, start_us: int, speed: Fraction) -> None:
        self._start_us = start_us
        self._speed = speed

    @property
    def is_wall(self) -> bool:
        return self._speed == 1

    def clip_us(self, wall_us: int) -> int:
        """When the clip shows what was recorded at a time."""
        if self._speed == 1:
            return wall_us
        return self._start_us + round((wall_us - self._start_us) / self._speed)

    def wall_us(self, clip_us: int) -> int:
        """When it was recorded."""
        return self._start_us + round((clip_us - self._start_us) * self._speed)

    def show(self, at_us: int, until_us: int) -> tuple[int, int]:
        """From when to when the clip shows the next frame, which was to be seen for that time."""
        return self.clip_us(at_us), self.clip_us(until_us)


class _Steps(Clock):
    """The clock of frames that follow each other at a fixed rate, whenever they were recorded."""

    def __init__(self, start_us: int, rate: Fraction) -> None:
        super().__init__(start_us, Fraction(1))
        self._step_us = 1_000_000 / rate
        self._shown_us: list[int] = []

    @property
    def is_wall(self) -> bool:
        return False

    def clip_us(self, wall_us: int) -> int:
        """That of the next frame."""
        return self._at(len(self._shown_us))

    def wall_us(self, clip_us: int) -> int:
        step = round((clip_us - self._start_us) / self._step_us)
        return self._shown_us[min(max(step, 0), len(self._shown_us) - 1)]

    def show(self, at_us: int, until_us: int) -> tuple[int, int]:
        self._shown_us.append(at_us)
        return self._at(len(self._shown_us) - 1), self._at(len(self._shown_us))

    def _at(self, step: int) -> int:
        return self._start_us + round(step * self._step_us)


def clip_clock(job: ClipJob) -> Clock:
    coding = job.coding
    if coding.speed == 0:
        return _Steps(job.start_us, Fraction(coding.key_fps).limit_denominator(1001))
    return Clock(job.start_us, Fraction(coding.speed).limit_denominator(1000))
