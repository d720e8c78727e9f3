"""The life of a session as a table: (state, event) → state. Pure; the registry acts on it.

docs/sessions.md has a picture of it, which tools/lifecycle draws from this table. A session is destroyed by stopping it
and waiting for its end first.
"""

from __future__ import annotations

import enum

from vx.model import State


class Event(enum.Enum):
    """What can happen to a session."""

    TURN = "turn"
    """Its agent has a place for it."""
    STOP = "stop"
    """Somebody, or the clock, asked it to end."""
    ENDED = "ended"
    """Its work is over, well or not."""
    PURGED = "purged"
    """Its files were deleted for their age."""
    EXPIRED = "expired"
    """Its row was deleted for its age."""
    DESTROYED = "destroyed"
    """A client asked for both."""


FIRST = State.QUEUED

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.TURN): State.RUNNING,
    (State.QUEUED, Event.STOP): State.STOPPING,
    (State.QUEUED, Event.ENDED): State.COMPLETED,
    (State.RUNNING, Event.STOP): State.STOPPING,
    (State.RUNNING, Event.ENDED): State.COMPLETED,
    (State.STOPPING, Event.STOP): State.STOPPING,
    (State.STOPPING, Event.ENDED): State.COMPLETED,
    (State.COMPLETED, Event.STOP): State.COMPLETED,
    (State.COMPLETED, Event.PURGED): State.REMOVED,
    (State.COMPLETED, Event.DESTROYED): State.FORGOTTEN,
    (State.REMOVED, Event.STOP): State.REMOVED,
    (State.REMOVED, Event.EXPIRED): State.FORGOTTEN,
    (State.REMOVED, Event.DESTROYED): State.FORGOTTEN,
}


class IllegalTransitionError(Exception):
    """A fault of vx itself: the event cannot happen in this state."""


def advance(state: State, event: Event) -> State:
    """The state after `event`. IllegalTransitionError if the table has no such row."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(f"{event.name} cannot happen to a session that is {state.name}") from None
