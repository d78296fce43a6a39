"""A function on its way through a batch, and the task that waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

import trio

from .write_view import WriteView

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
        self.result: T | None = None
        self.error: BaseException | None = None

    def end(self) -> None:
        """Wake up whoever waits; result or error is there."""
        self.is_over = True
        if self.waiter is not None:
            trio.lowlevel.reschedule(self.waiter)


class Pending(Generic[T]):
    """An operation that was handed over; what is done before `durable` is awaited runs beside the commit."""

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation

    async def durable(self) -> T:
        """Wait until it is durable; its result, or its error. To be awaited once."""
        operation = self._operation

        def no_longer_waiting(_: object) -> trio.lowlevel.Abort:
            operation.waiter = None
            operation.is_awaited = False
            return trio.lowlevel.Abort.SUCCEEDED

        if operation.is_over:
            await trio.lowlevel.cancel_shielded_checkpoint()  # it wrote nothing, and its answer is there
        else:
            operation.waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(no_longer_waiting)
        error, operation.error = operation.error, None
        if error is None:
            return cast("T", operation.result)
        try:
            raise error
        finally:
            del error  # else this frame and the error's traceback would keep each other alive

    def give_up(self) -> None:
        """Do not wait after all; it is carried out all the same, and a failure is logged."""
        self._operation.is_awaited = False
