"""The subtitle track of a clip: a cue for each second, which says when it was filmed.

One track serves all sources of a file: they share its clock. The cues follow each other without a hole, for the sake of
MP4: libavformat puts an empty sample into each hole, and in a fragmented file gives it a length that the next cue may
contradict, upon which it aborts the process. So a cue is written before anything that comes later than its end, and
where nothing was recorded a cue says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vx.captions import Caption
from vx.media.packets.plan import SECOND_US

LONGEST_STILL_US = 600 * SECOND_US
"""Pictures further apart are taken for a gap."""

_LONGEST_TEXT = (1 << 16) - 1
"""Bytes, whose number stands in front in 16 bits."""

ToWall = Callable[[int], int]
"""From the clip's clock to the wall clock, in microseconds."""


def timed_text(text: str) -> bytes:
    """A sample of MP4's timed text (3GPP TS 26.245, 5.17), cut where it is too long for one."""
    data = text.encode()[:_LONGEST_TEXT].decode(errors="ignore").encode()
    return len(data).to_bytes(2, "big") + data


class Screen(Protocol):
    """Where texts are shown. Times are the file's, in microseconds, and rise."""

    def show_text(self, at_us: int, until_us: int, text: str) -> None:
        """A text is shown from a time on: up to another time, unless something else comes before."""

    def end_text(self, at_us: int) -> None:
        """Nothing is shown from a time on."""


class Subtitles:
    """The cues of one file, shown as its clock goes on. Times are the file's unless the name says otherwise."""

    def __init__(self, caption: Caption, first_clip_us: int, screen: Screen) -> None:
        """`first_clip_us`: the clip's time at the file's begin."""
        self._caption = caption
        self._offset_us = first_clip_us
        self._screen = screen
        self._shown_us = -1
        """When the cue that is shown began."""
        self.due_us = 0
        """When the next one is to be shown."""

    def reach(self, file_us: int, to_wall: ToWall) -> None:
        """Packets of this time follow: show what is due by then."""
        if file_us - self.due_us > LONGEST_STILL_US:
            self.pause(self.due_us, file_us, to_wall)
        while self.due_us <= file_us:
            clip_us = self._offset_us + self.due_us
            self._show(SECOND_US - clip_us % SECOND_US, self._caption.at(to_wall(clip_us)))

    def pause(self, from_us: int, until_us: int, to_wall: ToWall) -> None:
        """Nothing was recorded from one time to another one."""
        self._go_to(from_us, to_wall)
        if until_us > self.due_us:
            self._show(until_us - self.due_us, self._caption.gap(to_wall(self._offset_us + self.due_us)))

    def finish(self, file_us: int, to_wall: ToWall) -> None:
        """The pictures end at this time, for good."""
        self._go_to(file_us, to_wall)
        self._screen.end_text(self.due_us)

    def close_gap(self, file_us: int, gap_us: int, to_wall: ToWall) -> None:
        """What comes at this time was recorded so much later than the file's clock says."""
        self._go_to(file_us, to_wall)
        self._offset_us += gap_us

    def _go_to(self, file_us: int, to_wall: ToWall) -> None:
        """Something else is due at this time, or as soon as it can be."""
        self.reach(file_us - 1, to_wall)
        self.due_us = max(file_us, self._shown_us + 1)

    def _show(self, lasts_us: int, text: str) -> None:
        self._screen.show_text(self.due_us, self.due_us + lasts_us, text)
        self._shown_us = self.due_us
        self.due_us += lasts_us
