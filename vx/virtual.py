"""A result that isn't a file: its bytes lie in recordings, and in one file of its own for those that were made for it.

On the disk it is a directory with the result's name. In it are `made`, which ends with a description of the whole, and
a link to each recording that it takes bytes from. The bytes of the result are a sequence of pieces, each from one of
these; where the recordings couldn't be linked to, they are where they were recorded. `made` may be replaced, by one
rename, with another one that holds more of the same bytes itself; what it no longer names is removed then.

Both sides of the border know this file: workers write results, the server serves them.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

MADE = "made"
CHANGED = "was truncated or rewritten after the export"
"""What is said of a recording that isn't what it was."""
_MAGIC = b"vx-virtual-1"
_tail = struct.Struct(">Q12s")


class Identity(msgspec.Struct, frozen=True):
    """What tells a recording from another one that has taken its place, and from itself after a change."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def is_of(self, status: os.stat_result, *, grows: bool = False) -> bool:
        """Whether it is that recording, unchanged. `grows`: one that is being written may have become longer."""
        if grows:
            return (status.st_dev, status.st_ino) == (self.device, self.inode) and status.st_size >= self.size
        return self == Identity.of(status)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that bytes of the result lie in."""

    path: str
    """Where it was recorded."""
    identity: Identity
    """Of what is read: the recording, or a copy of it that shares its blocks."""
    grows: bool = False
    """It was still being written."""
    cloned: bool = False
    """The lease is a clone of the recording's blocks; else it is another name of the recording itself."""
    lease: str = ""
    """Its name beside `made`; empty: it couldn't be linked to, and has to be held open."""

    def is_unchanged(self, fd: int) -> bool:
        """Whether the open file is what the result was made of. OSError."""
        return self.identity.is_of(os.fstat(fd), grows=self.grows)


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """Where the bytes of a result lie."""

    size: int
    origins: tuple[Origin, ...]
    """Number 0 is `made`, 1 the first of these."""
    begins: bytes
    """Where in the result each piece begins; 64-bit numbers of this machine."""
    numbers: bytes
    """Of the origin of each piece; 32-bit numbers."""
    offsets: bytes
    """Where in the origin each piece begins; 64-bit numbers."""


class Pieces:
    """The pieces of a result, in their order."""

    def __init__(self) -> None:
        self.size = 0
        self._begins, self._numbers, self._offsets = array("Q"), array("I"), array("Q")

    @classmethod
    def of(cls, description: Description) -> Pieces:
        pieces = cls()
        pieces.size = description.size
        pieces._begins.frombytes(description.begins)
        pieces._numbers.frombytes(description.numbers)
        pieces._offsets.frombytes(description.offsets)
        return pieces

    def __len__(self) -> int:
        return len(self._begins)

    def add(self, number: int, offset: int, length: int) -> None:
        """The next bytes of the result are these of an origin."""
        goes_on = bool(self._begins) and self._numbers[-1] == number
        if not goes_on or self._offsets[-1] + self.size - self._begins[-1] != offset:
            self._begins.append(self.size)
            self._numbers.append(number)
            self._offsets.append(offset)
        self.size += length

    def find(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(origin's number, offset in it, length) of the parts that these bytes lie in."""
        at = bisect_right(self._begins, offset) - 1
        until = offset + length
        while offset < until:
            end = self._begins[at + 1] if at + 1 < len(self._begins) else self.size
            count = min(end, until) - offset
            yield self._numbers[at], self._offsets[at] + offset - self._begins[at], count
            offset += count
            at += 1

    def describe(self, origins: tuple[Origin, ...]) -> Description:
        return Description(
            size=self.size,
            origins=origins,
            begins=self._begins.tobytes(),
            numbers=self._numbers.tobytes(),
            offsets=self._offsets.tobytes(),
        )


def write_made(path: Path, parts: list[bytes], description: Description) -> None:
    """Write `made`, and have it on the disk. OSError."""
    with path.open("xb") as file:
        file.writelines(parts)
        end_made(file, description)


def end_made(file: BinaryIO, description: Description) -> None:
    """Write what makes a `made` of the bytes so far, and have all of it on the disk. OSError."""
    told = _encode(description)
    file.write(told)
    file.write(_tail.pack(len(told), _MAGIC))
    file.flush()
    os.fsync(file.fileno())


def read_description(fd: int) -> Description:
    """What the file `made` says of its result. OSError or ValueError where it isn't what it was."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, _tail.size, max(0, size - _tail.size))
    if len(tail) != _tail.size:
        raise ValueError("it is cut short")
    length, magic = _tail.unpack(tail)
    if magic != _MAGIC or length > size:
        raise ValueError("it is not what vx wrote")
    description = _decode(os.pread(fd, length, size - _tail.size - length))
    if any(origin.lease in (".", "..", MADE) or "/" in origin.lease for origin in description.origins):
        raise ValueError("it has leases elsewhere")  # a worker wrote it, and is trusted with no other file
    return description


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Description).decode
