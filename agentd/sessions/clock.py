"""Time: the clocks that sessions expire by, and the slices in which long scans share the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from trio.lowlevel import checkpoint

from ..process_identity import boot_id

SLICE_SECONDS = 0.001
"""How long a scan may hold the event loop. It is a time and not a number of records, because one record takes
from ten to two hundred microseconds, depending on its ancestors and on the label pattern."""

CHUNK_RECORDS = 16
"""Records read from the store at once; within a chunk the time is not checked."""


class Instant(NamedTuple):
    """One reading of both clocks.

    wall: seconds since 1970 (UTC); a person or NTP may set it forward or back.
    boot: seconds since the machine started, suspended time included (clock_gettime(2), CLOCK_BOOTTIME).
    boot_id: which boot that was (random(4)); empty if unknown, and expiry then depends on `wall` alone.
    """

    wall: float
    boot: float
    boot_id: str


class Clock(Protocol):
    """Where the session manager reads the time. Tests pass one that they set."""

    def read(self) -> Instant:
        """Both clocks, now."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._boot_id = boot_id()

    def read(self) -> Instant:
        """Both clocks, now."""
        return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), self._boot_id)


class Slices:
    """One scan's share of the event loop. Create it after a checkpoint, where its first slice begins.

    Args:
        clock: a monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._until = clock() + SLICE_SECONDS

    async def pause_if_over(self) -> bool:
        """If the slice is used up, yield to other tasks and begin another; whether it did.

        After a pause, what was read from the store may be out of date, and the store may be closed.
        """
        if self._clock() < self._until:
            return False
        await checkpoint()
        self._until = self._clock() + SLICE_SECONDS
        return True
