"""The one writing thread: operations run serially, and many share one commit (group commit).

What is queued when a batch begins, and what arrives while it runs, goes into the batch; what arrives
while its commit is being synced waits for the next one. Each operation has a nested transaction of its
own, so an exception undoes that operation alone. An operation is answered after the commit, with one hop
to the event loop for the whole batch.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import trio

from agentd_client.errors import AgentdError, DBNotRunningError, StoreDamagedError, StoreError, StoreFullError

from .batch import Batch
from .counts import apply_changes
from .environment import Environment
from .keypath import HEADER
from .lmdb_errors import MapFull, store_error
from .operation import Operation, Pending
from .sealing import Sealer
from .write_view import WriteView

T = TypeVar("T")

MAX_BATCH_OPERATIONS = 256
"""Bounds how long the first of a batch waits for the last; syncing is shared well before that."""

_generations = itertools.count()


class _CountsError(Exception):
    """A count is damaged: whatever changes it is refused, and nothing else."""

    def __init__(self, found: StoreDamagedError) -> None:
        super().__init__()
        self.found = found


class Writer:
    """Runs operations in a thread of its own, from `start` to `stop`.

    `generation` changes with every commit, is None while one is under way, and no two writers of a process
    share one. `commits` and `operations` count what was made durable, `failed` is the error after which
    nothing is carried out any more. `on_failure` is called on the event loop's thread when that happens.
    """

    def __init__(
        self,
        environment: Environment,
        sealer: Sealer,
        *,
        on_failure: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._environment = environment
        self._sealer = sealer
        self._on_failure = on_failure
        self._log = logger
        self._queue: queue.SimpleQueue[Operation[Any] | None] = queue.SimpleQueue()
        # A daemon thread: where an event loop dies without stopping the store, the process still ends.
        self._thread = threading.Thread(target=self._run, name="agentd-store-writer", daemon=True)
        self._token = trio.lowlevel.current_trio_token()
        self._refusing = False  # the event loop's: nothing is queued any more
        self._is_settled = False  # the thread's: nothing was freed since the last turn-over
        self._has_grown = True  # the thread's: what keeps it from growing is logged once
        self._last_seen = False  # the thread's: nothing is left in the queue
        self.failed: StoreError | None = None
        self.commits = 0
        self.operations = 0
        self.generation: int | None = next(_generations)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Finish what is queued and end the thread; call it shielded from cancellation.

        From whatever event loop, so that a writer can be stopped whose own loop has ended.
        """
        self._refusing = True
        self._queue.put(None)
        await trio.to_thread.run_sync(self._thread.join)

    async def write(
        self,
        function: Callable[[WriteView], T],
        *,
        may_use_reserve: bool = False,
        on_durable: Callable[[], object] | None = None,
    ) -> T:
        """Hand an operation over and wait until it is durable.

        Cancelled before the hand-over, nothing happens; after it, the operation is carried out all the
        same and only its answer is dropped.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self.begin(function, may_use_reserve=may_use_reserve, on_durable=on_durable).durable()

    def begin(
        self,
        function: Callable[[WriteView], T],
        *,
        may_use_reserve: bool = False,
        on_durable: Callable[[], object] | None = None,
    ) -> Pending[T]:
        """Hand an operation over, for the present task to wait for: without a checkpoint in between."""
        operation = Operation(function, trio.lowlevel.current_task(), may_use_reserve, on_durable)
        self._hand_over(operation)
        return Pending(operation)

    def submit(self, function: Callable[[WriteView], object]) -> None:
        """Hand an operation over; a failure is logged."""
        self._hand_over(Operation(function, None))

    def _hand_over(self, operation: Operation[Any]) -> None:
        if self._refusing:
            raise DBNotRunningError
        self._queue.put(operation)

    # --- the writing thread ---

    def _run(self) -> None:
        while not self._last_seen:
            operation = self._queue.get()
            if operation is None:
                break
            self._run_batch([operation])

    def _run_batch(self, operations: list[Operation[Any]], *, is_open: bool = True) -> None:
        """Carry out a batch that begins with what is given, and answer it. Raises nothing.

        Args:
            operations: grows by what arrives in the meantime.
            is_open: whether anything may be added.
        """
        try:
            if self.failed is None:
                self._commit_batch(operations, is_open)
            else:
                _refuse(operations, self.failed)
        except (StoreFullError, _CountsError) as error:
            if len(operations) > 1:
                # One by one: some need less room, and some may use what is kept from the others; and a count
                # that is damaged is in the way of those only that change it.
                for operation in operations:
                    self._run_batch([operation], is_open=False)
                return
            _refuse(operations, error.found if isinstance(error, _CountsError) else error)
        except BaseException as error:
            # Whatever it was, each of them is owed an answer, and nothing after it can be trusted: LMDB
            # itself goes on after a failed sync as if the pages had reached the disk.
            self.failed = _fatal(error)
            told = None if isinstance(error, StoreError) else error  # what has a sentence needs no traceback
            self._log.error("the store's writer failed: %s", self.failed.sentence, exc_info=told)
            self._on_loop(self._on_failure)
            _refuse(operations, self.failed)
        self._on_loop(self._answer, operations)

    def _commit_batch(self, operations: list[Operation[Any]], is_open: bool) -> None:
        while True:  # once more after every growth, until the map holds it or can grow no more
            batch = self._environment.begin()
            changes = Counter[bytes]()
            try:
                self._fill(batch, operations, is_open, changes)
                self._count(batch, changes)
                # While the commit is under way readers see the store of before or that of after, and have to
                # ask it each time: what one has seen, the next must not take back.
                self.generation = None
                batch.commit()
            except MapFull:
                batch.abort()
                if not (self._settle() or self._grow()):
                    raise StoreFullError(
                        "the store has no room; nothing was written. Free some disk space"
                    ) from None
            except BaseException:
                batch.abort()
                raise
            else:
                self._is_settled = False
                self.commits += 1
                self.operations += len(operations)
                return
            finally:
                # Before anyone is answered: who asks after an answer sees another generation.
                self.generation = next(_generations)

    def _fill(
        self, batch: Batch, operations: list[Operation[Any]], is_open: bool, changes: Counter[bytes]
    ) -> None:
        for operation in operations:
            self._run_operation(batch, operation, changes)
        while is_open and len(operations) < MAX_BATCH_OPERATIONS and not self._last_seen:
            try:
                arrived = self._queue.get_nowait()
            except queue.Empty:
                return
            if arrived is None:
                self._last_seen = True
            else:
                operations.append(arrived)
                self._run_operation(batch, arrived, changes)

    def _count(self, batch: Batch, changes: Counter[bytes]) -> None:
        if not any(changes.values()):
            return
        nested = batch.nested()
        try:
            apply_changes(nested, self._sealer, changes)
            if nested.failure is None:
                # Whatever an operation may use, its count may use too.
                batch.add(nested, may_use_reserve=True)
        except StoreDamagedError as error:
            raise _CountsError(error) from error
        finally:
            nested.abort()
        if nested.is_map_full:
            raise MapFull
        if nested.failure is not None:
            raise store_error(nested.failure)

    def _run_operation(self, batch: Batch, operation: Operation[Any], changes: Counter[bytes]) -> None:
        operation.result = operation.error = None  # of an earlier attempt
        nested = batch.nested()
        view = WriteView(nested, self._sealer)
        try:
            operation.result = operation.function(view)
            if nested.failure is None:
                batch.add(nested, may_use_reserve=operation.may_use_reserve)
                changes.update(view.changes)
        except BaseException as error:  # the function's own, or the store's: the waiter's to deal with
            operation.error = error
        finally:
            view.close()
            nested.abort()
        if nested.failure is None:
            return
        if nested.is_map_full:
            raise MapFull
        operation.error = store_error(nested.failure)
        if not nested.is_too_large:
            raise operation.error

    def _settle(self) -> bool:
        """Let what the last commit freed be used; whether that can have made room."""
        if self._is_settled:
            return False
        self._is_settled = True
        try:
            self._environment.turn_over(HEADER)
        except (MapFull, StoreFullError):
            return False
        return True

    def _grow(self) -> bool:
        try:
            target = self._environment.prepare_growth()
        except StoreError as error:
            if self._has_grown:
                self._log.warning("the store cannot grow: %s", error.sentence)
            self._has_grown = False
            return False
        # The map may be replaced only while no transaction lives anywhere in the process. This thread has
        # none now; those of the event loop's thread live within one call each, so there is none while that
        # thread is here.
        try:
            trio.from_thread.run_sync(self._environment.grow, target, trio_token=self._token)
        except trio.RunFinishedError:
            self._environment.grow(target)  # that loop has ended, and no other may read
        self._has_grown = True
        return True

    def _on_loop(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._token.run_sync_soon(function, *arguments)
        except trio.RunFinishedError:
            self._log.warning("the event loop ended before the store was stopped")

    # --- the event loop's thread ---

    def _answer(self, operations: Sequence[Operation[Any]]) -> None:
        for operation in operations:
            if operation.error is None and operation.on_durable is not None:
                self._call(operation.on_durable)
            if operation.waiter is not None:
                trio.lowlevel.reschedule(operation.waiter)
            elif operation.error is not None:
                self._log_failure(operation.error)

    def _call(self, on_durable: Callable[[], object]) -> None:
        try:
            on_durable()
        except Exception:  # raised here it would end the event loop, and the others are owed their answers
            self._log.exception("what was to follow a write failed")

    def _log_failure(self, error: BaseException) -> None:
        if isinstance(error, AgentdError):  # what has a sentence needs no traceback
            self._log.error("a write that nobody waits for failed: %s", error.sentence)
        else:
            self._log.error("a write that nobody waits for failed", exc_info=error)


def _refuse(operations: Sequence[Operation[Any]], error: StoreError) -> None:
    for operation in operations:
        # One exception each: raised in several tasks, a single one would collect all their tracebacks.
        operation.error = type(error)(error.sentence)
        operation.error.__cause__ = error.__cause__


def _fatal(error: BaseException) -> StoreError:
    kind = type(error) if isinstance(error, StoreError) else StoreError
    found = kind(
        f"{error.sentence if isinstance(error, StoreError) else type(error).__name__}; "
        "the store accepts nothing more until the agent is restarted"
    )
    found.__cause__ = error
    return found
