"""Which sessions there are, in the order of their numbers, and who may touch them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice

from vx.errors import Kind, VxError
from vx.model import Caller, Record
from vx.session.session import Session

NO_SESSION = "There is no session with provided ID"


class Roster:
    """The sessions that exist, and those whose start is being saved. Iterated over, it gives the former in order."""

    def __init__(self) -> None:
        self.last_number = 0
        """The highest number ever given."""
        self._sessions: dict[str, Session] = {}
        self._starting: dict[str, Session] = {}
        self._numbers: list[int] = []
        self._by_number: dict[int, Session] = {}

    def __contains__(self, session: Session) -> bool:
        """Whether it exists."""
        return self._sessions.get(session.record.id) is session

    def __iter__(self) -> Iterator[Session]:
        return (self._by_number[number] for number in self._numbers)

    def get(self, session_id: str) -> Session | None:
        """One that exists or starts."""
        return self._sessions.get(session_id) or self._starting.get(session_id)

    def find(self, session_id: str, caller: Caller) -> Session:
        """One that exists for the caller. VxError(NOT_FOUND)."""
        session = self._sessions.get(session_id)
        is_gone = session is None or (session.destruction and session.completed.is_set())
        if session is None or is_gone or not _may_touch(caller, session.record):
            raise VxError(Kind.NOT_FOUND, NO_SESSION)
        return session

    def page(self, after: int, size: int, caller: Caller) -> list[Record]:
        """Up to `size` of the caller's sessions with a number above `after`, in order.

        None is shown before all that have a lower number can be: who goes on behind it would never see those.
        """
        begin, end = bisect_right(self._numbers, after), len(self._numbers)
        if self._starting:
            lowest = min(session.record.number for session in self._starting.values())
            end = bisect_left(self._numbers, lowest)
        records = (self._by_number[self._numbers[index]].record for index in range(begin, end))
        return list(islice((record for record in records if _may_touch(caller, record)), size))

    def announce(self, session: Session) -> None:
        """A session whose start is about to be saved; `add` or `withdraw` it then. Its number is taken for good."""
        self._starting[session.record.id] = session
        self.last_number = session.record.number

    def withdraw(self, session: Session) -> None:
        """It could not be saved."""
        del self._starting[session.record.id]

    def add(self, session: Session) -> None:
        """It exists from now on."""
        record = session.record
        self._starting.pop(record.id, None)
        self._sessions[record.id] = self._by_number[record.number] = session
        at = bisect_left(self._numbers, record.number)
        self._numbers.insert(at, record.number)  # at the end, but for starts that are saved out of order

    def remove(self, session: Session) -> None:
        """It exists no more."""
        record = session.record
        del self._sessions[record.id], self._by_number[record.number]
        del self._numbers[bisect_left(self._numbers, record.number)]


def _may_touch(caller: Caller, record: Record) -> bool:
    """Whether the session exists for the caller."""
    return caller.rights.supervisor or caller.name == record.started_by.name
