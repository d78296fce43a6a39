"""Whose turn it is: places for work that many ask for, and how long a connection has the event loop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable

from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule, wait_task_rescheduled

from agentd_client.protocol.limits import READ_BYTES

SLICE_SECONDS = 0.001
"""Enough for some dozens of verifications. Time and not messages: one of them costs from one microsecond to
some hundreds."""

BUSY_READ_BYTES = 2 * 1024
"""One read of a connection that sends more than its slices suffice for. A read is decoded as a whole, which
takes half a millisecond at the most where it is filled with the smallest messages."""


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
        self._waiting: dict[Hashable, deque[Task]] = {}

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
        reschedule(tasks.popleft())
        if tasks:
            self._waiting[process] = tasks  # behind the others

    async def _wait(self, process: Hashable) -> None:
        task = current_task()
        self._waiting.setdefault(process, deque()).append(task)

        def leave(_: object) -> Abort:
            # Only while it waits: once it was handed a place it is rescheduled, and no longer asked to leave.
            tasks = self._waiting[process]
            tasks.remove(task)
            if not tasks:
                del self._waiting[process]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(leave)


class Turns:
    """What the connections of one socket share.

    A connection begins at once with what it reads, and may work on it for a slice. One that needs more is
    busy until it has caught up with what its peer sends. In each turn of the event loop one of the busy ones
    has a slice, process by process. So peers who send as fast as they can, on however many connections, take
    one slice of each turn together, and whoever sends a request beside them waits for that.

    Args:
        slice_seconds: how long a slice is.
        clock: seconds that only go forward.
    """

    def __init__(
        self, slice_seconds: float = SLICE_SECONDS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.slice_seconds = slice_seconds
        self.clock = clock
        self.busy = FairQueue(1)


class Turn:
    """One connection's part in it.

    Where it `is_busy`, `take_place`. `begin`; read `read_bytes` and work on them until `clock()` comes to
    `until`, then `leave` and `resume`. Where it is busy then, `end` when all of the read is dealt with. A
    connection that is not busy and sends one request at a time needs none of this: a verification would feel
    it.
    """

    def __init__(self, turns: Turns, process: Hashable) -> None:
        self.clock = turns.clock
        self.until = 0.0
        self.read_bytes = READ_BYTES
        self._seconds = turns.slice_seconds
        self.is_busy = False
        self._busy = turns.busy
        self._process = process
        self._has_place = False

    def begin(self) -> None:
        """Begin a slice."""
        self.until = self.clock() + self._seconds

    def leave(self) -> None:
        """Let another one go on."""
        if self._has_place:
            self._has_place = False
            self._busy.give_back()

    async def resume(self) -> None:
        """Begin another slice for what was read, when it is this connection's turn."""
        self.is_busy = True
        await self.take_place()
        self.begin()

    def end(self, read: int) -> None:
        """All of a read, of so many bytes, is dealt with: short of a whole one, the peer has nothing more."""
        self.leave()
        if self.is_busy and read < self.read_bytes:
            self.is_busy = False
        self.read_bytes = BUSY_READ_BYTES if self.is_busy else READ_BYTES

    async def take_place(self) -> None:
        """Wait until this is the one of the busy connections that has a slice in this turn of the loop."""
        await self._busy.take(self._process)
        self._has_place = True
        # A place that was free is taken in the very turn in which another connection had its slice.
        await checkpoint()
