"""The clocks that sessions expire by: the only place that reads them, and what tests replace."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from ..process_identity import boot_id


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
