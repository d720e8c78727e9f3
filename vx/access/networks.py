"""Which network a client comes from: what is counted, and held off, instead of its address. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_OWN_PART = 64
"""Bits of an IPv6 address that a client does not choose by itself (RFC 6177)."""


def network_of(host: str) -> str:
    """An IPv4 address, also of one that is mapped into IPv6; the network of an IPv6 address; of others the text."""
    address = _address(host)
    if address is None or isinstance(address, IPv4Address):
        return str(address or host)
    return str(IPv6Network((int(address), _OWN_PART), strict=False))


def is_this_machine(host: str) -> bool:
    """A loopback address: behind it may be a proxy that speaks for many."""
    address = _address(host)
    return address is not None and address.is_loopback


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
