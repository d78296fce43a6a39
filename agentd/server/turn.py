"""Fair scheduling: places for requests that compete, and time slices for connections."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable

from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule, wait_task_rescheduled

from agentd_client.protocol.limits import READ_BYTES

SLICE_SECONDS = 0.001
"""Enough for some dozens of verifications. A time and not a number of messages, because a message costs from
one microsecond to some hundreds."""

BUSY_READ_BYTES = 2 * 1024
"""One read of a connection that sends more than fits its slices. A read is decoded as a whole, which takes at
most half a millisecond if it is filled with the smallest messages."""


class FairQueue:
    """A bounded number of places for requests under way, shared fairly among processes.

    A free place goes to the processes in turn, and within a process to its oldest request. So a process with
    thousands of requests, on however many connections, delays another process by one request. `waiting` and
    `taken` are how many wait for a place and how many have one.

    A place is handed over and never left free while a request waits, so no later request overtakes.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken = 0
        # In the order of their turns; processes without a waiting request are left out.
        self._waiting: dict[Hashable, deque[Task]] = {}

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a place."""
        return sum(map(len, self._waiting.values()))

    async def take(self, process: Hashable) -> None:
        """Take a place, for `give_back` later; wait if none is free. If cancelled, it has taken none."""
        if self.taken < self._places:
            self.taken += 1
        else:
            await self._wait(process)

    def give_back(self) -> None:
        """Hand the place to the next in turn."""
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
            # Only called while it waits: once it has a place it is rescheduled, and can no longer be aborted.
            tasks = self._waiting[process]
            tasks.remove(task)
            if not tasks:
                del self._waiting[process]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(leave)


class Turns:
    """The time slices of all connections of one socket.

    A connection handles what it reads at once, for at most a slice. One that needs more is busy until it has
    caught up with its peer. In each turn of the event loop one of the busy ones has a slice, process by
    process. So peers that send as fast as they can, on however many connections, take one slice of each turn
    together, which is what another peer's request waits for.

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
    """One connection's share of them.

    If it `is_busy`, call `take_place` first. Then `begin`, read `read_bytes`, handle them until `clock()`
    reaches `until`, then `leave` and `resume`. If it is busy then, call `end` once the read is handled. A
    connection that is not busy and sends one request at a time needs none of this, which would slow down a
    verification.
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
        """Let another connection go on."""
        if self._has_place:
            self._has_place = False
            self._busy.give_back()

    async def resume(self) -> None:
        """Wait for this connection's turn, and begin another slice for what was read."""
        self.is_busy = True
        await self.take_place()
        self.begin()

    def end(self, read: int) -> None:
        """A read of so many bytes is handled. If it was not full, the peer has sent nothing more."""
        self.leave()
        if self.is_busy and read < self.read_bytes:
            self.is_busy = False
        self.read_bytes = BUSY_READ_BYTES if self.is_busy else READ_BYTES

    async def take_place(self) -> None:
        """Wait until this is the busy connection that has a slice in this turn of the loop."""
        await self._busy.take(self._process)
        self._has_place = True
        # A place that is free may have been used in this very turn of the loop.
        await checkpoint()
