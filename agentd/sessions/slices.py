"""Work whose length depends on how much is stored is done in slices of the event loop's time."""

from __future__ import annotations

import time
from collections.abc import Callable

from trio.lowlevel import checkpoint

SLICE_SECONDS = 0.001
"""For which one scan holds the event loop. Time and not records: a record costs from ten microseconds to
two hundred, by the sessions above it and by what its label is compared with."""

CHUNK_RECORDS = 16
"""Records that are read from the store in one go, between which the time is not looked at."""


class Slices:
    """One scan's share of the event loop. Create it after a checkpoint, where its first slice begins.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._until = clock() + SLICE_SECONDS

    async def pause_if_over(self) -> bool:
        """Where the slice is used up, let everything else have a turn and begin another; whether it was.

        What was read from the store before may be out of date then, and the store may have been closed.
        """
        if self._clock() < self._until:
            return False
        await checkpoint()
        self._until = self._clock() + SLICE_SECONDS
        return True
