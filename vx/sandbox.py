"""Landlock: what of the file system and the network a process may still use, once it has given up the rest.

A small layer over the kernel's three system calls (linux/landlock.h), by ctypes: the kernel says which version it has,
and what that one can't restrict stays as it is. The restriction is the calling thread's and that of all it starts; it
has no way back, and asks for no privilege.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_VERSION_1 = (1 << 13) - 1
_REFER = 1 << 13  # version 2
_TRUNCATE = 1 << 14  # version 3
_NETWORK = 0b11  # version 4: to bind, and to connect, TCP
_IOCTL_DEV = 1 << 15  # version 5

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
_LINK = _READ | _WRITE_FILE | _TRUNCATE | _REFER
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Of the kernel's Landlock; 0 where it has none."""
    found: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(0, found)


def confine(
    *, readable: Iterable[str], writable: Iterable[str], linkable: Iterable[str] = (), network: bool = False
) -> None:
    """From here on, files below these directories alone, and TCP only with `network`. OSError.

    `linkable`: files there may get another name below the writable ones. The kernel allows that only where a file does
    not become writable by it, so what is there can be written to as well; but nothing can be made or removed. What does
    not exist, or cannot be reached, is left out. Nothing happens where the kernel has no Landlock.
    """
    known = version()
    if not known:
        return
    files = _VERSION_1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        files |= right if known >= since else 0
    net = _NETWORK if known >= 4 and not network else 0
    with _ruleset(files, net) as ruleset:
        for rights, paths in ((_READ, readable), (_WRITE, writable), (_LINK, linkable)):
            for path in paths:
                _allow(ruleset, path, rights & files)
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call(_RESTRICT_SELF, ruleset, 0)


@contextmanager
def _ruleset(files: int, net: int) -> Iterator[int]:
    attributes = struct.pack("=QQ", files, net)
    size = ctypes.c_size_t(len(attributes) if net else 8)  # kernels before version 4 know the first member only
    ruleset = _call(_CREATE_RULESET, attributes, size, 0)
    try:
        yield ruleset
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # this process could not use it before either
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112
            rights &= _OF_FILES
        _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
