"""Whose turn it is: which sessions run, and which wait. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vx.errors import Kind, VxError


@dataclass(frozen=True, slots=True)
class _Ticket:
    key: str
    client: str
    agent: str
    limit: int | None
    """The client may have so many running."""


class Turns:
    """Places for running sessions, in all and for each agent, and a queue for those that find none.

    The queue is fair among clients: a free place goes to the client who has the fewest sessions running, of several
    to the one who was served longest ago; a client's own sessions go in their order, but one whose agent is busy
    doesn't hold up those of other agents.
    """

    def __init__(self, max_running: int, max_queued: int, agents: Mapping[str, int] | None = None) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._agents = dict(agents or {})
        self._running: dict[str, _Ticket] = {}
        self._waiting: dict[str, _Ticket] = {}
        self._served: dict[str, int] = {}
        self._count = 0

    def enter(self, key: str, client: str, agent: str, limit: int | None = None) -> None:
        """Join the queue; `grant` says when it is its turn. VxError as `check`."""
        self.check(client, agent, limit)
        self._waiting[key] = _Ticket(key, client, agent, limit)

    def check(self, client: str, agent: str, limit: int | None = None) -> bool:
        """Whether one who came now had to wait; one does also while `limit` of the client's own are running.

        VxError(EXHAUSTED) where there is no room to wait in.
        """
        ticket = _Ticket("", client, agent, limit)
        waits = not self._has_room(ticket)
        if waits and len(self._waiting) >= self._max_queued:
            raise VxError(Kind.EXHAUSTED, self._full(ticket))
        return waits

    def ahead(self, key: str) -> int | None:
        """How many came earlier and wait too, though a fair queue may let others go first; None: it doesn't wait."""
        return list(self._waiting).index(key) if key in self._waiting else None

    def leave(self, key: str) -> None:
        """It is done, or waits no more."""
        ticket = self._running.pop(key, None) or self._waiting.pop(key, None)
        if ticket and not any(other.client == ticket.client for other in self._all()):
            self._served.pop(ticket.client, None)

    def grant(self) -> list[str]:
        """Those whose turn it is now, in this order; they count as running from here on."""
        granted = []
        while (ticket := self._next()) is not None:
            del self._waiting[ticket.key]
            self._running[ticket.key] = ticket
            self._count += 1
            self._served[ticket.client] = self._count
            granted.append(ticket.key)
        return granted

    def _next(self) -> _Ticket | None:
        if len(self._running) >= self._max_running:
            return None
        running: dict[str, int] = {}
        for ticket in self._running.values():
            running[ticket.client] = running.get(ticket.client, 0) + 1
        return min(  # of a client's own, min takes the first one
            (ticket for ticket in self._waiting.values() if self._has_room(ticket)),
            key=lambda ticket: (running.get(ticket.client, 0), self._served.get(ticket.client, 0)),
            default=None,
        )

    def _has_room(self, ticket: _Ticket) -> bool:
        limit = self._agents.get(ticket.agent, self._max_running)
        return (
            len(self._running) < self._max_running
            and self._running_at(ticket.agent) < limit
            and (ticket.limit is None or self._running_of(ticket.client) < ticket.limit)
        )

    def _running_of(self, client: str) -> int:
        return sum(ticket.client == client for ticket in self._running.values())

    def _running_at(self, agent: str) -> int:
        return sum(ticket.agent == agent for ticket in self._running.values())

    def _full(self, ticket: _Ticket) -> str:
        if len(self._running) >= self._max_running:
            text = f"{len(self._running)} sessions are running, and at most {self._max_running} may at a time"
        elif ticket.limit is not None and self._running_of(ticket.client) >= ticket.limit:
            text = f"{self._running_of(ticket.client)} sessions of yours are running, and at most {ticket.limit} may"
        else:
            text = (
                f"{self._running_at(ticket.agent)} sessions are running at {ticket.agent}, and at most "
                f"{self._agents[ticket.agent]} may at a time"
            )
        return f"{text}; {len(self._waiting)} wait, and at most {self._max_queued} may" if self._max_queued else text

    def _all(self) -> list[_Ticket]:
        return [*self._running.values(), *self._waiting.values()]
