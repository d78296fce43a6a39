"""Locking when the machine is about to sleep and when the user's screen is locked, as logind reports.

While the machine is awake the agent holds a delay inhibitor: logind waits with the suspend until it is closed
(org.freedesktop.login1(5), "Inhibitor Locks"), which the agent does once the keys are gone.
"""

from __future__ import annotations

import logging

import trio

from .triggers import Lock

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0
"""Between attempts to connect to the bus, doubled each time."""


async def watch_logind(lock: Lock, *, on_suspend: bool, on_screen_lock: bool, logger: logging.Logger) -> None:
    """Lock the agent at logind's signals, until cancelled; reconnects when the bus goes away.

    Without a bus, logind or jeepney the agent runs all the same, and its log says once that suspend and
    screen lock do not lock it. Returns if there is nothing to wait for: both are off, or jeepney is missing.

    Args:
        lock: locks the agent. What it raises is logged, and the machine sleeps all the same.
        on_suspend: whether to lock before the machine sleeps, and to delay the suspend for that.
        on_screen_lock: whether to lock when one of this user's sessions is locked.
        logger: says what is missing.
    """
    if not (on_suspend or on_screen_lock):
        return
    try:
        # jeepney is optional.
        from .logind_watch import LogindWatch, system_bus
    except ImportError as error:
        logger.warning(
            "suspend and screen lock do not lock the agent: %s is not installed; install agentd[logind]",
            error.name,
        )
        return
    async with trio.open_nursery() as locks:
        watch = LogindWatch(lock, locks, on_suspend=on_suspend, on_screen_lock=on_screen_lock, logger=logger)
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            began = trio.current_time()
            try:
                async with system_bus() as bus:
                    await watch.run(bus)
            # No failure of the bus may end the agent.
            except* Exception as errors:
                watch.log_state(
                    logging.WARNING,
                    "no system bus: until there is one, suspend and screen lock do not lock the agent",
                    _first(errors),
                )
            if trio.current_time() - began > MAX_PAUSE_SECONDS:  # it was connected
                pause_seconds = FIRST_PAUSE_SECONDS
            await trio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
