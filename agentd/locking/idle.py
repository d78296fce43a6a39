"""Locking after a time in which nobody used the agent."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from .reasons import IDLE, Lock

LOOK_SECONDS = 15.0
"""trio's clock stands still while the machine is suspended: the time that counts is looked at this often, so
that an agent whose time was over while the machine slept is locked this soon after it woke up."""

_CLOSE_ENOUGH_SECONDS = 0.001  # too little to sleep for: rounded, the clock need not have moved afterwards


def _boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class IdleTimer:
    """Locks an agent that nobody used for some time, suspended time included.

    Args:
        seconds: how long; None or 0 is never.
        now: seconds on a clock that nobody can set and that runs while the machine is suspended.
    """

    def __init__(self, seconds: float | None, *, now: Callable[[], float] = _boot_seconds) -> None:
        self._seconds = seconds or None
        self._now = now
        self._touched = now()
        self._next_use: trio.Event | None = None

    def touch(self) -> None:
        """The agent is used at this moment: a token is made or verified. On the event loop's thread only."""
        self._touched = self._now()
        if self._next_use is not None:
            self._next_use.set()
            self._next_use = None

    async def run(self, lock: Lock) -> None:
        """Lock the agent whenever its time is over, until cancelled; return at once where that is never.

        After that it waits for the next use, which is why unlocking is one (`touch`). What `lock` raises is
        raised here.
        """
        if self._seconds is None:
            return
        self._touched = self._now()
        while True:
            left_seconds = self._touched + self._seconds - self._now()
            if left_seconds > _CLOSE_ENOUGH_SECONDS:
                await trio.sleep(min(left_seconds, LOOK_SECONDS))
                continue
            # From before the lock: a use in the middle of it was still answered, and counts.
            self._next_use = next_use = trio.Event()
            await lock(IDLE)
            await next_use.wait()
