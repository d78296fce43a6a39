"""flock(2) with a deadline.

The system call has none, and asking again and again is unfair: where many write, the lock is free for
microseconds only, and whoever looks once a millisecond may never meet it. So the waiting is done in the
kernel, which wakes those who wait, by a thread that is left behind when the time is up.
"""

from __future__ import annotations

import fcntl
import os


def lock_within(descriptor: int, seconds: float) -> bool:
    """Lock an open file exclusively; False where another held it for all of `seconds`.

    Raises OSError as flock(2) gives it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return seconds > 0 and _Waiting(descriptor).granted_within(seconds)
    return True


class _Waiting:
    """A thread in flock(2), on a descriptor of its own for the same open file, which is what is locked."""

    def __init__(self, descriptor: int) -> None:
        import threading  # needed by those who have to wait

        self._descriptor = os.dup(descriptor)
        self._decision = threading.Lock()
        self._granted = threading.Event()
        self._given_up = False
        threading.Thread(target=self._wait, name="agentd-file-lock", daemon=True).start()

    def granted_within(self, seconds: float) -> bool:
        """Wait for the lock; what comes later is let go again."""
        try:
            self._granted.wait(seconds)
        finally:  # also where Ctrl-C ends the wait
            with self._decision:
                self._given_up = not self._granted.is_set()
        return not self._given_up

    def _wait(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            with self._decision:
                if self._given_up:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                else:
                    self._granted.set()
        finally:
            os.close(self._descriptor)
