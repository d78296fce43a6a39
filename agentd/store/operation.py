"""A function on its way through the writing thread, and the task that waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

import trio

from .write_view import WriteView

T = TypeVar("T")


class Operation(Generic[T]):
    """A function on its way through the writer, and whoever waits for it.

    `on_durable` is called on the event loop's thread once it is durable, whether or not anybody still waits.
    """

    __slots__ = ("error", "function", "may_use_reserve", "on_durable", "result", "waiter")

    def __init__(
        self,
        function: Callable[[WriteView], T],
        waiter: trio.lowlevel.Task | None,
        may_use_reserve: bool = False,
        on_durable: Callable[[], object] | None = None,
    ) -> None:
        self.function = function
        self.on_durable = on_durable
        self.waiter = waiter
        self.may_use_reserve = may_use_reserve
        self.result: T | None = None
        self.error: BaseException | None = None


class Pending(Generic[T]):
    """An operation that was handed over, and that the task which did so is about to wait for.

    The answer comes through the event loop, so what the task does before it waits runs beside the commit.
    """

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation

    async def durable(self) -> T:
        """Wait until it is durable; its result, or its error. To be awaited once, before anything else is."""
        operation = self._operation

        def no_longer_waiting(_: object) -> trio.lowlevel.Abort:
            operation.waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

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
        self._operation.waiter = None
