"""Operations that callers wait for, and the thread that waits for the disk."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import trio

from .view import WriteView

T = TypeVar("T")


class Operation(Generic[T]):
    """A function to run in a batch, and its outcome once `is_over`.

    is_awaited: whether a caller receives its error; otherwise the error is logged.
    on_durable: called on the event loop's thread once it is durable, whether or not the caller still waits.
    """

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
        """Wake the waiting task; result or error is set."""
        self.is_over = True
        if self.waiter is not None:
            trio.lowlevel.reschedule(self.waiter)

    async def durable(self) -> T:
        """Wait until it is durable; returns its result or raises its error. Await it once."""
        if self.is_over:
            await trio.lowlevel.cancel_shielded_checkpoint()  # it wrote nothing, so it is over already
        else:
            self.waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        error, self.error = self.error, None
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error  # otherwise this frame and the error's traceback keep each other alive

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        # The operation is carried out all the same.
        self.waiter = None
        self.is_awaited = False
        return trio.lowlevel.Abort.SUCCEEDED


_Job = tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]
"""Work for the thread, and what its outcome is reported to."""


class Committer:
    """A thread for everything that waits for the disk: commits and disk space. One job at a time.

    It runs from its construction until `stop`, and reports to an event loop. Reports for a loop that has
    ended are kept until `move_here`.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger
        self._token = trio.lowlevel.current_trio_token()
        self._undelivered: list[Callable[[], object]] = []
        self._guard = threading.Lock()  # for the two above
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon thread, so that the process ends even if its event loop died without stopping the store.
        self._thread = threading.Thread(target=self._run, name="agentd-store-committer", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], T], then: Callable[[T | None, BaseException | None], None]) -> None:
        """Run `work` in the thread, then call `then` with its outcome on the event loop's thread."""
        self._jobs.put((work, then))

    def run_soon(self, function: Callable[[], object]) -> None:
        """Call a function in a later turn of the event loop."""
        with self._guard:
            try:
                self._token.run_sync_soon(function)
            except trio.RunFinishedError:
                self._log.warning("the event loop ended before the store was stopped")
                self._undelivered.append(function)

    def move_here(self) -> None:
        """Report to the calling event loop from now on; a no-op if it is the same."""
        with self._guard:
            self._token = trio.lowlevel.current_trio_token()
            undelivered, self._undelivered = self._undelivered, []
        for function in undelivered:
            self._token.run_sync_soon(function)

    def stop(self) -> None:
        """End the thread, which must have no job left."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, then = job
            result, failure = None, None
            try:
                result = work()
            except BaseException as error:  # of any kind: a caller waits for the outcome
                failure = error
            self.run_soon(partial(then, result, failure))
