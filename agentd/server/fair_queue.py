"""Places for work that many ask for at once: whoever waits is served process by process."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from trio import lowlevel


class FairQueue:
    """A bounded number of requests that are worked on at once, whoever sent them.

    A place that becomes free goes to the processes in turn, and among the requests of one process to the
    oldest. So one with thousands of requests, on however many connections, holds up another process by one
    request of its own. `waiting` and `taken` say how many wait for a place and how many have one.

    A place is handed over, never left free while somebody waits; so nobody who comes later is quicker.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken = 0
        # In the order of their turns; a process that has nobody waiting is left out.
        self._waiting: dict[Hashable, deque[lowlevel.Task]] = {}

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return sum(map(len, self._waiting.values()))

    async def take(self, process: Hashable) -> None:
        """Take a place, for `give_back` later; wait only where none is free. Cancelled, it has taken none."""
        if self.taken < self._places:
            self.taken += 1
        else:
            await self._wait(process)

    def give_back(self) -> None:
        """Hand the place to whoever's turn it is."""
        if not self._waiting:
            self.taken -= 1
            return
        process = next(iter(self._waiting))
        tasks = self._waiting.pop(process)
        lowlevel.reschedule(tasks.popleft())
        if tasks:
            self._waiting[process] = tasks  # behind the others

    async def _wait(self, process: Hashable) -> None:
        task = lowlevel.current_task()
        self._waiting.setdefault(process, deque()).append(task)

        def leave(_: object) -> lowlevel.Abort:
            # Only while it waits: once it was handed a place it is rescheduled, and no longer asked to leave.
            tasks = self._waiting[process]
            tasks.remove(task)
            if not tasks:
                del self._waiting[process]
            return lowlevel.Abort.SUCCEEDED

        await lowlevel.wait_task_rescheduled(leave)
