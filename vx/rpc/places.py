"""How many connections there may be: of all clients together, and of each network address. Pure."""

from __future__ import annotations

from collections import Counter

from vx.access.networks import is_this_machine, network_of


def counted_as(host: str) -> str:
    """The client's network. Empty for this machine itself: loopback addresses, and Unix sockets, which have no host."""
    return "" if is_this_machine(host) else network_of(host)


class Places:
    """Places for connections: `total` of them, and at most `each` for one network (see `counted_as`)."""

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._taken = 0
        self._taken_by: Counter[str] = Counter()

    def take(self, network: str) -> str:
        """Have a place; empty, or why there is none."""
        if self._taken >= self._total:
            return f"there are {self._taken} already"
        if network and self._taken_by[network] >= self._each:
            return f"there are {self._taken_by[network]} from {network} already"
        self._taken += 1
        if network:
            self._taken_by[network] += 1
        return ""

    def give_back(self, network: str) -> None:
        """Once for each that was taken."""
        self._taken -= 1
        if network:
            self._taken_by[network] -= 1
            if not self._taken_by[network]:
                del self._taken_by[network]
