"""Where sessions are remembered."""

from __future__ import annotations

from typing import Protocol

from vx.model import Record


class Store(Protocol):
    """What the registry needs of a memory. A change is durable when the call returns."""

    async def load(self) -> list[Record]:
        """All sessions, in the order of their numbers."""

    async def save(self, record: Record) -> None:
        """Remember `record` instead of what was known of that session."""

    async def delete(self, session_id: str) -> None:
        """Forget a session; no error if it is unknown."""


class MemoryStore:
    """Remembers for as long as the process lives."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    async def load(self) -> list[Record]:
        return sorted(self._records.values(), key=lambda record: record.number)

    async def save(self, record: Record) -> None:
        self._records[record.id] = record

    async def delete(self, session_id: str) -> None:
        self._records.pop(session_id, None)
