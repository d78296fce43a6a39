"""A forked child that does one thing and ends: whatever happens in it, it does not go on as a second pytest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def fork(act: Callable[[], object]) -> int:
    """Do it in a child, whose pid this returns; the child's status is 0 unless it raises."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(60)  # it does not wait for ever either
            act()
            status = 0
        finally:
            os._exit(status)
    return child


def in_child(act: Callable[[], object]) -> None:
    """Do it in a child, and wait for its end."""
    assert os.waitpid(fork(act), 0)[1] == 0, "the child failed"
