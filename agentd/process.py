"""What `agentd serve` makes of its own process.

Never called by the embedded core: a library leaves its host's process alone.
"""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4


def harden() -> None:
    """Refuse core dumps, and other processes of the same user a look into this one's memory.

    PR_SET_DUMPABLE 0 (prctl(2)) also closes /proc/PID/{mem,environ,fd} and ptrace(2). An exec resets it,
    so it is set here, in the process that serves, and not by whoever starts it.

    Raises OSError where the kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
