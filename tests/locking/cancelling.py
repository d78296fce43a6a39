"""Cancel a task at every step it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class CancelAt(trio.abc.Instrument):
    """Cancels its scope before the tasks of one nursery, and those below them, take their nth step."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self.nursery: trio.Nursery | None = None
        self.left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._is_watched(task):
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()

    def _is_watched(self, task: trio.lowlevel.Task) -> bool:
        nursery = task.parent_nursery
        while nursery is not None and nursery is not self.nursery:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None


async def cancelled_at(step: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run it, cancelled at that step; whether there was such a step."""
    cancelling = CancelAt(step)
    trio.lowlevel.add_instrument(cancelling)
    try:
        with cancelling.scope:
            async with trio.open_nursery() as cancelling.nursery:
                cancelling.nursery.start_soon(work)
    finally:
        trio.lowlevel.remove_instrument(cancelling)
    return cancelling.left <= 0
