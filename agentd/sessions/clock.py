"""Time as an argument: a wall clock for people, and within one boot a clock that nobody can set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple, Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Instant(NamedTuple):
    """One reading of both clocks.

    wall: seconds since 1970 (UTC); a person or NTP may set it forward or back.
    boot: seconds since the machine started, suspended time included (clock_gettime(2), CLOCK_BOOTTIME).
    boot_id: which boot that was (random(4)); empty where it cannot be known.
    """

    wall: float
    boot: float
    boot_id: str


class Clock(Protocol):
    """Where the session manager reads the time; tests hand in one that they set."""

    def read(self) -> Instant:
        """Both clocks, now."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        try:
            self._boot_id = _BOOT_ID.read_text().strip()
        except OSError:  # no /proc: expiry then rests on the wall clock alone
            self._boot_id = ""

    def read(self) -> Instant:
        """Both clocks, now."""
        return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), self._boot_id)
