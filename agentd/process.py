"""What the command `agentd` sets for its own process: a library leaves its host's process alone.

A module of its own because `__main__` imports it before anything else.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import sys

_PR_SET_DUMPABLE = 4


_core_limit_before: int | None = None


def harden() -> None:
    """Disable core dumps, and keep other processes of the same user out of this one's memory.

    PR_SET_DUMPABLE 0 (prctl(2)) also closes /proc/PID/{mem,environ,fd} and ptrace(2). An exec resets it,
    so the process that serves sets it, not its parent. Calling it again does no harm.

    Raises OSError if the kernel refuses.
    """
    global _core_limit_before
    _core_limit_before = core_limit_of_caller()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def core_limit_of_caller() -> int:
    """The soft limit for core dumps that this process was started with."""
    before = _core_limit_before
    return resource.getrlimit(resource.RLIMIT_CORE)[0] if before is None else before


def allow_descriptors(most: int) -> bool:
    """Raise the soft limit of open files to `most` if it is lower; False if the hard limit is lower too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= most or soft == resource.RLIM_INFINITY:
        return True
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed == most


def explain_aborts() -> None:
    """Write Python's stacks (lines, no values) to standard error if a signal kills the process.

    systemd sends SIGABRT to an agent that has not fed its watchdog: the journal then shows where it hung.
    """
    if sys.stderr is not None:  # closed by the parent
        faulthandler.enable()
