"""The thread that waits for the disk: commits, and taking disk space. One job at a time."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import trio

T = TypeVar("T")


class _Job(NamedTuple):
    work: Callable[[], Any]
    then: Callable[[Any, BaseException | None], None]


class Committer:
    """Runs jobs in a thread of its own, from its construction until `stop`, and reports to an event loop.

    What a loop that has ended can no longer take is kept for the one that it is moved to.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger
        self._token = trio.lowlevel.current_trio_token()
        self._untaken: list[Callable[[], object]] = []
        self._guard = threading.Lock()  # of the two above; held for a moment
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon thread: where an event loop dies without stopping the store, the process still ends.
        self._thread = threading.Thread(target=self._run, name="agentd-store-committer", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], T], then: Callable[[T | None, BaseException | None], None]) -> None:
        """Have `work` done in the thread, and `then` called on the event loop's thread with its outcome."""
        self._jobs.put(_Job(work, then))

    def run_soon(self, function: Callable[[], object]) -> None:
        """Have a function called in a later turn of the event loop."""
        with self._guard:
            try:
                self._token.run_sync_soon(function)
            except trio.RunFinishedError:
                self._log.warning("the event loop ended before the store was stopped")
                self._untaken.append(function)

    def move_here(self) -> None:
        """Report to the calling event loop from now on; nothing where it is the same."""
        with self._guard:
            self._token = trio.lowlevel.current_trio_token()
            untaken, self._untaken = self._untaken, []
        for function in untaken:
            self._token.run_sync_soon(function)

    def stop(self) -> None:
        """End the thread, which must have nothing to do any more."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            result, failure = None, None
            try:
                result = job.work()
            except BaseException as error:  # whatever it was, somebody waits for the outcome
                failure = error
            self.run_soon(partial(job.then, result, failure))
