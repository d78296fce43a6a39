"""A function on its way through a batch, and the task that waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from .overlay import WriteView

T = TypeVar("T")


class Operation(Generic[T]):
    """A function to be carried out, and what came of it once `is_over`.

    is_awaited: whether somebody takes its error; otherwise that is logged.
    on_durable: called on the event loop's thread once it is durable, whether or not anybody still waits.
    """

    __slots__ = (
        "error",
        "function",
        "is_awaited",
        "is_over",
        "may_use_reserve",
        "on_durable",
        "result",
        "waiter",
    )

    result: T

    def __init__(
        self,
        function: Callable[[WriteView], T],
        *,
        is_awaited: bool,
        may_use_reserve: bool = False,
        on_durable: Callable[[], object] | None = None,
    ) -> None:
        self.function = function
        self.on_durable = on_durable
        self.may_use_reserve = may_use_reserve
        self.is_awaited = is_awaited
        self.is_over = False
        self.waiter: trio.lowlevel.Task | None = None
        self.error: BaseException | None = None

    def end(self) -> None:
        """Wake up whoever waits; result or error is there."""
        self.is_over = True
        if self.waiter is not None:
            trio.lowlevel.reschedule(self.waiter)

    async def durable(self) -> T:
        """Wait until it is durable; its result, or its error. To be awaited once."""
        if self.is_over:
            await trio.lowlevel.cancel_shielded_checkpoint()  # it wrote nothing, and its answer is there
        else:
            self.waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._wait_no_longer)
        error, self.error = self.error, None
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error  # else this frame and the error's traceback would keep each other alive

    def _wait_no_longer(self, _: object) -> trio.lowlevel.Abort:
        # It is carried out all the same.
        self.waiter = None
        self.is_awaited = False
        return trio.lowlevel.Abort.SUCCEEDED
