"""What the command `agentd` makes of its own process.

Never called by the embedded core: a library leaves its host's process alone.
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
    """Refuse core dumps, and other processes of the same user a look into this one's memory.

    PR_SET_DUMPABLE 0 (prctl(2)) also closes /proc/PID/{mem,environ,fd} and ptrace(2). An exec resets it,
    so it is set here, in the process that serves, and not by whoever starts it. Doing it again does no harm.

    Raises OSError where the kernel refuses.
    """
    global _core_limit_before
    _core_limit_before = core_limit_of_caller()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def core_limit_of_caller() -> int:
    """The soft limit for core dumps that this process was started with, whether it is hardened or not."""
    before = _core_limit_before
    return resource.getrlimit(resource.RLIMIT_CORE)[0] if before is None else before


def explain_aborts() -> None:
    """Have Python's stacks written to standard error where a signal kills the process; no values, only lines.

    systemd ends an agent that has not fed its watchdog with SIGABRT: the journal then says where it hung.
    """
    if sys.stderr is not None:  # closed by whoever started it
        faulthandler.enable()
