"""Why an agent is locked, and what locks it automatically: idleness, a signal, suspend and screen lock."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

ASKED = "asked"
"""A client asked for it."""

START = "start"
"""It has not been unlocked since it started."""

SUSPEND = "suspend"
"""The machine is about to sleep."""

SCREEN_LOCK = "screen lock"
"""One of the user's sessions at this machine was locked."""

IDLE = "idle"
"""No token was created or verified for the configured time."""

SIGNAL = "signal"
"""The agent received the signal that locks it."""

Lock = Callable[[str], Awaitable[None]]
"""Locks the agent for one of the reasons above; returns when the keys are gone from memory.

It may be called when the agent is locked already, and while another call is in progress.
"""

CHECK_SECONDS = 15.0
"""How often idle time is checked. trio's clock stops while the machine is suspended, so this is how long
after resuming an agent may stay unlocked whose time ran out during the suspend."""

_TOLERANCE_SECONDS = 0.001  # a shorter sleep may end before the clock has moved


def _boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class IdleTimer:
    """Locks an agent that has not been used for some time, suspended time included.

    Args:
        seconds: how long; None is never.
        now: seconds on a clock that cannot be set and that runs while the machine is suspended.
    """

    def __init__(self, seconds: float | None, *, now: Callable[[], float] = _boot_seconds) -> None:
        self._seconds = seconds
        self._now = now
        self._touched = now()
        self._next_use: trio.Event | None = None

    def touch(self) -> None:
        """The agent was used: a token was created or verified. On the event loop's thread only."""
        self._touched = self._now()
        if self._next_use is not None:
            self._next_use.set()
            self._next_use = None

    async def run(self, lock: Lock) -> None:
        """Lock the agent whenever its time is up, until cancelled; returns at once if that is never.

        After a lock it waits for the next use, so unlocking has to call `touch`. Raises what `lock` raises.
        """
        if self._seconds is None:
            return
        self._touched = self._now()
        while True:
            left_seconds = self._touched + self._seconds - self._now()
            if left_seconds > _TOLERANCE_SECONDS:
                await trio.sleep(min(left_seconds, CHECK_SECONDS))
                continue
            # Created before locking: a use during the lock was still answered, and counts.
            self._next_use = next_use = trio.Event()
            await lock(IDLE)
            await next_use.wait()


async def watch_signal(lock: Lock, signals: AsyncIterator[int]) -> None:
    """Lock the agent at every signal, until cancelled or until there are no more.

    Args:
        lock: locks the agent; what it raises is raised here.
        signals: from `trio.open_signal_receiver`, for the signals that lock and no others. Open it before the
            agent reports that it is ready: until then such a signal ends the process.
    """
    async for _ in signals:
        await lock(SIGNAL)


async def watch_logind(lock: Lock, *, on_suspend: bool, on_screen_lock: bool, logger: logging.Logger) -> None:
    """Lock the agent at logind's signals, until cancelled; reconnects when the bus goes away.

    Without a bus, logind or jeepney the agent runs all the same, and its log says once that suspend and
    screen lock do not lock it. Returns if there is nothing to wait for: both are off, or jeepney is missing.

    Args:
        lock: locks the agent. What it raises is logged, and the machine sleeps all the same.
        on_suspend: whether to lock before the machine sleeps, and to delay the suspend for that.
        on_screen_lock: whether to lock when one of this user's sessions is locked.
        logger: receives failures, and once each what is missing.
    """
    if not (on_suspend or on_screen_lock):
        return
    try:
        from .logind import LogindWatch  # jeepney is optional
    except ImportError as error:
        from ..distribution import how_installed

        logger.warning(
            "suspend and screen lock do not lock the agent: %s is not installed; `%s` installs it",
            error.name,
            how_installed().to_add("jeepney"),
        )
        return
    await LogindWatch(lock, on_suspend=on_suspend, on_screen_lock=on_screen_lock, logger=logger).run()
