"""What the server's process gives up: root, core files, debuggers, files that others can read, unused memory."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import pwd
import resource

log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def become(name: str) -> None:
    """Go on as this user, with its groups, without a way back. OSError. Nothing is done where one is that user."""
    user = pwd.getpwnam(name)
    if os.geteuid() == user.pw_uid:
        return
    os.initgroups(name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    log.info("went on as %s", name)


def give_up_privileges() -> None:
    """No new privileges by any program that is started, no core file, no look at the memory from outside."""
    os.umask(0o077)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    keep_memory_private()


def keep_memory_private() -> None:
    """Of this process, not of programs that it starts: what cameras saw, passwords and keys are in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The limit says nothing where the kernel hands core files to a program.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def give_memory_back() -> None:
    """What starting took and nobody needs now: a megabyte, which glibc would keep for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)
