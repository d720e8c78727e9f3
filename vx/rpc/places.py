"""How many connections there may be: of all clients together, and of each network address. Pure."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_OWN_NETWORK = 64
"""Bits of an IPv6 address that a client does not choose by itself (RFC 6177)."""


def network_of(host: str) -> str:
    """Whose connection it is, for counting: an IPv4 address, or the network of an IPv6 one.

    Empty for loopback addresses and Unix sockets (which have no host): on this machine, it may be a proxy that speaks
    for many.
    """
    if not host:
        return ""
    address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        return ""
    return str(address if address.version == 4 else IPv6Network((int(address), _OWN_NETWORK), strict=False))


class Places:
    """Places for connections: `total` of them, and at most `each` for one network (see `network_of`)."""

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
