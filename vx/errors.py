"""One family of errors, told apart by kind.

Code anywhere in vx raises `VxError` with the kind that says whose fault it is; the rpc layer maps the kind to a gRPC
status in one place, the command line maps it to an exit status. Foreign exceptions are translated once, where they
are met.
"""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """What went wrong, from the caller's point of view."""

    INVALID = enum.auto()
    """The request can never work as it is: a field's value is wrong."""
    NOT_FOUND = enum.auto()
    """It names a thing that does not exist (any more)."""
    UNAUTHENTICATED = enum.auto()
    """It doesn't say who asks, or not so that it can be believed."""
    DENIED = enum.auto()
    """Who asks may not do this."""
    EXHAUSTED = enum.auto()
    """A limit is reached; the same request may work later."""
    UNSUPPORTED = enum.auto()
    """The contract knows it, this server cannot do it."""
    PRECONDITION = enum.auto()
    """The thing exists, but not in a state that allows this."""
    OUT_OF_RANGE = enum.auto()
    """A position behind the end."""
    ABORTED = enum.auto()
    """It was under way and somebody else ended it."""
    UNAVAILABLE = enum.auto()
    """The server is going down, or cannot be reached."""
    DATA_LOSS = enum.auto()
    """Bytes that had been promised are gone or changed."""


class VxError(Exception):
    """An error that is told to the user.

    `text` says what is wrong and what is allowed; `field`, if any, is the path of the offending field in the request
    or in the configuration (`session_options.archive.sources[0].origin`) and stands in front of the text.
    """

    def __init__(self, kind: Kind, text: str, *, field: str | None = None) -> None:
        super().__init__(f"{field}: {text}" if field else text)
        self.kind = kind
        self.field = field
