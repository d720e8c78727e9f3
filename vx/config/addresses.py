"""Where a server listens, and the names by which clients call cameras and what belongs to them."""

from __future__ import annotations

import ipaddress
import os

import msgspec

DEFAULT_PORT = 20109


class Address(msgspec.Struct, frozen=True):
    """Where a server listens: a host (without brackets) and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    unix_path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`, `[::1]:PORT` or `unix:///PATH`. ValueError where it is none of them."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix://")
            # A socket's address has room for 108 bytes, the last of which is NUL.
            if not path.startswith("/") or path.endswith("/") or len(os.fsencode(path)) > 107 or "\0" in path:
                raise ValueError("not the absolute path of a socket, at most 107 bytes")
            return cls(unix_path=path)
        host, colon, digits = text.rpartition(":")
        if not (colon and digits.isascii() and digits.isdigit() and int(digits) < 1 << 16):
            raise ValueError("no port from 0 to 65535 after the host")
        if host.startswith("[") and host.endswith("]"):
            host = str(ipaddress.IPv6Address(host[1:-1]))
        elif not host or not host.isprintable() or any(mark in host for mark in " :/[]@"):
            raise ValueError("no host, or one that is neither a name nor an address")
        return cls(host=host, port=int(digits))

    @property
    def is_local(self) -> bool:
        """Only processes of this machine can reach it."""
        if self.unix_path or self.host == "localhost":
            return True
        try:
            ip = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return (mapped or ip).is_loopback

    def __str__(self) -> str:
        if self.unix_path:
            return f"unix://{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def access_point_key(access_point: str) -> str:
    """What access points are compared by: the text without the leading `hosts/`, which clients may leave out."""
    return access_point.removeprefix("hosts/")


def node_of(access_point: str) -> str:
    """The machine that an access point names."""
    return access_point_key(access_point).partition("/")[0]
