"""`grpc.health.v1.Health`: whether the server, or one of its services, takes calls.

All of them do from the start until the server drains. A watcher is then told so and its call ends, for a call that
lasted would hold the shutdown up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import trio

from vx.errors import Kind, VxError
from vx.rpc.calls import StreamsResponses
from vx.rpc.generated.grpc.health.v1 import (
    HealthBase,
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)


class HealthService(StreamsResponses, HealthBase):
    """Answers for the services named; an empty name is the whole server."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {"", *names}
        self._draining = trio.Event()

    def drain(self) -> None:
        """From now on NOT_SERVING."""
        self._draining.set()

    async def check(self, health_check_request: HealthCheckRequest) -> HealthCheckResponse:
        if health_check_request.service not in self._names:
            raise VxError(Kind.NOT_FOUND, f"there is no service {health_check_request.service!r}", field="service")
        return self._status(health_check_request.service)

    async def watch(self, health_check_request: HealthCheckRequest) -> AsyncIterator[HealthCheckResponse]:
        name = health_check_request.service
        yield self._status(name)
        if not self._draining.is_set():
            await self._draining.wait()
            if name in self._names:
                yield self._status(name)
        raise VxError(Kind.UNAVAILABLE, "the server is going down")

    def _status(self, name: str) -> HealthCheckResponse:
        statuses = HealthCheckResponseServingStatus
        if name not in self._names:
            return HealthCheckResponse(status=statuses.SERVICE_UNKNOWN)
        return HealthCheckResponse(status=statuses.NOT_SERVING if self._draining.is_set() else statuses.SERVING)
