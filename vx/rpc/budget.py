"""What a peer may cause that brings nothing, before it is told ENHANCE_YOUR_CALM and closed."""

from __future__ import annotations

import h2.events
from hyperframe.frame import Frame, SettingsFrame

_SETTINGS_COST = 10
_CALL_FRAMES = 8
"""Frames that go with a call without being extra work: its HEADERS, small and empty DATA, updates of both windows, and
the PINGs with which some clients measure the line."""
_FULL_FRAME = 1024
"""Bytes from which on a DATA frame costs nothing."""
BYTES_PER_UPDATE = 2048
"""Bytes sent for each of which a reader may update a window."""


class Budget:
    """How much unasked-for work a peer may cause: a token bucket.

    `burst` tokens are there at first and at most; `per_s` come back each second. Times are on trio's clock.
    """

    def __init__(self, burst: int, per_s: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._at = now

    def give(self, tokens: float) -> None:
        self._left = min(self._burst, self._left + tokens)

    def take(self, tokens: float, now: float) -> bool:
        """Whether it was still affordable."""
        self.give((now - self._at) * self._per_s)
        self._at = now
        self._left -= tokens
        return self._left >= 0


class Conduct:
    """What one peer has done that brings nothing.

    The numbers for resets are those that nghttp2 documents for its servers (a burst of 1,000, then 33 a second). Of
    frames, each costs a token (a SETTINGS frame `_SETTINGS_COST`), and what brings something is given tokens back: a
    call for the handful of frames that go with it, full DATA frames, and bytes sent for the windows that a reader
    updates, in proportion, so that reading a byte at a time is not for free.
    """

    def __init__(self, now: float) -> None:
        self._resets = Budget(1000, 33, now)
        self._frames = Budget(2000, 1000, now)

    def takes_frame(self, frame: Frame, now: float) -> bool:
        """Whether one more frame is still tolerable."""
        return self._frames.take(_SETTINGS_COST if type(frame) is SettingsFrame else 1, now)

    def takes_reset(self, now: float) -> bool:
        """Whether one more call that was begun in vain is still tolerable."""
        return self._resets.take(1, now)

    def has_called(self) -> None:
        self._frames.give(_CALL_FRAMES)

    def has_sent(self, event: h2.events.DataReceived) -> None:
        if len(event.data) >= _FULL_FRAME:
            self._frames.give(1)

    def is_sent(self, size: int) -> None:
        """So many bytes go to the peer."""
        self._frames.give(size / BYTES_PER_UPDATE)
