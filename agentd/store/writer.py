"""Group commit: operations run one after the other on the event loop's thread, and many share one commit.

Each sees its batch's write transaction through an overlay of its own, so an exception undoes that operation
alone. The finished transaction goes to the committing thread. What arrives meanwhile forms the next batch,
and everyone is answered once theirs is on the disk.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

from agentd_client.errors import AgentdError, DBNotRunningError, StoreDamagedError, StoreError, StoreFullError

from .batch import Batch
from .committer import Committer
from .counts import Counts
from .environment import Environment
from .errors import MapFull, store_error
from .keypath import HEADER, parent_count_key
from .operation import Operation
from .overlay import WriteView
from .reader import Reader
from .sealing import Sealer

T = TypeVar("T")

MAX_BATCH_OPERATIONS = 256
"""Operations in one batch. Syncing is shared well before that."""

TURN_SECONDS = 0.004
"""Of the event loop's time for one batch. What has not had its turn goes into the next one."""

_revisions = itertools.count()


class _CountsError(Exception):
    """A count is damaged: whatever changes it is refused, and nothing else."""

    def __init__(self, found: StoreDamagedError) -> None:
        super().__init__()
        self.found = found


class Writer:
    """Carries out operations, from its construction to `stop`, on the event loop's thread.

    `revision` changes with every commit, and no two writers of a process share one. `commits` and
    `operations` count what was made durable, `failed` is the error after which nothing is carried out any
    more. `on_failure` is called when that happens.
    """

    def __init__(
        self,
        environment: Environment,
        reader: Reader,
        sealer: Sealer,
        *,
        on_failure: Callable[[], None],
        logger: logging.Logger,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._environment = environment
        self._reader = reader
        self._sealer = sealer
        self._on_failure = on_failure
        self._log = logger
        self._clock = clock
        self._committer = Committer(logger)
        self.counts = Counts(sealer)
        self._waiting: deque[Operation[Any]] = deque()
        self._alone: deque[Operation[Any]] = deque()  # each in a batch of its own, before what waits
        self._is_busy = False  # a batch is being carried out or committed
        self._is_settled = False  # nothing was freed since the last turn-over
        self._has_grown = True  # what keeps the map from growing is logged once
        self._stopped: trio.Event | None = None
        self.failed: StoreError | None = None
        self.commits = 0
        self.operations = 0
        self.revision = next(_revisions)

    async def stop(self) -> None:
        """Finish what was handed over and refuse what comes later; call it shielded from cancellation.

        From whatever event loop, so that a writer can be stopped whose own loop has ended.
        """
        self._stopped = trio.Event()
        if self._is_busy:
            self._committer.move_here()
            await self._stopped.wait()
        self._committer.stop()

    async def write(
        self,
        function: Callable[[WriteView], T],
        *,
        may_use_reserve: bool = False,
        on_durable: Callable[[], object] | None = None,
    ) -> T:
        """Carry out an operation and wait until it is durable.

        Cancelled before the hand-over, nothing happens; after it, the operation is carried out all the
        same and only its answer is dropped.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        operation = Operation(
            function, is_awaited=True, may_use_reserve=may_use_reserve, on_durable=on_durable
        )
        self._hand_over(operation)
        return await operation.durable()

    def submit(self, function: Callable[[WriteView], object], *, is_next: bool) -> None:
        """Hand an operation over; a failure is logged."""
        self._hand_over(Operation(function, is_awaited=False), is_next=is_next)

    def _hand_over(self, operation: Operation[Any], *, is_next: bool = False) -> None:
        if self._stopped is not None:
            raise DBNotRunningError
        if is_next:
            self._waiting.appendleft(operation)
        else:
            self._waiting.append(operation)
        if not self._is_busy:
            self._proceed()

    # Ctrl-C must not end it half way through a batch.
    @trio.lowlevel.enable_ki_protection
    def _proceed(self) -> None:
        """Carry out the next batch."""
        self._is_busy = True
        if self._alone:
            is_committing = self._run_batch([self._alone.popleft()], is_open=False)
        else:
            is_committing = bool(self._waiting) and self._run_batch([], is_open=True)
        if is_committing:
            return
        if self._alone or self._waiting:
            self._committer.run_soon(self._proceed)  # others have a turn first
            return
        self._is_busy = False
        if self._stopped is not None:
            self._stopped.set()

    def _run_batch(self, operations: list[Operation[Any]], *, is_open: bool) -> bool:
        """Carry out a batch; whether the committing thread has it now. Otherwise it has been answered.

        Args:
            operations: it begins with these.
            is_open: whether what waits may be added.
        """
        if self.failed is not None:
            operations.extend(self._waiting)
            self._waiting.clear()
            self._refuse(operations, self.failed)
            return False
        batch: Batch | None = None
        try:
            batch = self._environment.begin()
            changes = self._fill(batch, operations, is_open)
            counts = self._count(batch, changes)
            batch.check_reserve()
            if not batch.is_empty:
                self._commit(batch, partial(self._end_batch, operations, counts))
                return True
        except BaseException as error:
            if batch is not None:
                batch.abort()
            return self._handle_failure(operations, error)
        batch.abort()
        self._answer(operations)
        return False

    def _fill(self, batch: Batch, operations: list[Operation[Any]], is_open: bool) -> dict[bytes, int]:
        """Run the operations; how many entries came, less those that went, by the counts' keys."""
        changes: defaultdict[bytes, int] = defaultdict(int)
        for operation in operations:
            self._run_operation(batch, operation, changes)
        end = self._clock() + TURN_SECONDS
        while is_open and self._waiting and len(operations) < MAX_BATCH_OPERATIONS:
            operation = self._waiting.popleft()
            operations.append(operation)
            self._run_operation(batch, operation, changes)
            is_open = self._clock() < end
        return changes

    def _run_operation(
        self, batch: Batch, operation: Operation[Any], changes: defaultdict[bytes, int]
    ) -> None:
        operation.error = None  # of an earlier attempt
        seal = self._sealer.seal
        view = WriteView(batch.txn, self._sealer)
        try:
            operation.result = operation.function(view)
            # All of it before the first write: a value that cannot be sealed undoes the operation alone.
            sealed = [
                (key, None if value is None else seal(key, value)) for key, value in view.writes.items()
            ]
        except BaseException as error:  # the function's own: the waiter's to deal with
            operation.error = error
            sealed = []
        finally:
            view.close()
        if view.failure is not None:
            raise store_error(view.failure) from view.failure
        if sealed:
            came, went = batch.apply(sealed, may_use_reserve=operation.may_use_reserve)
            for key in came:
                changes[parent_count_key(key)] += 1
            for key in went:
                changes[parent_count_key(key)] -= 1

    def _count(self, batch: Batch, changes: dict[bytes, int]) -> dict[bytes, int]:
        try:
            counts = self.counts.changed(batch.txn, changes)
        except StoreDamagedError as error:
            raise _CountsError(error) from error
        # Whatever an operation may use, its count may use too.
        batch.apply(self.counts.sealed(counts), may_use_reserve=True)
        return counts

    def _commit(self, batch: Batch, then: Callable[[BaseException | None], None]) -> None:
        """Hand a batch over. Readers see the last commit until `then` is called.

        Where the snapshot cannot be had, that is raised, and the batch is still the caller's.
        """
        self._reader.pin()

        def committed(_: None, error: BaseException | None) -> None:
            self._reader.unpin()
            # Before anyone is answered: who asks after an answer sees another revision.
            self.revision = next(_revisions)
            then(error)

        self._committer.run(batch.commit, committed)

    def _end_batch(
        self, operations: list[Operation[Any]], counts: dict[bytes, int], error: BaseException | None
    ) -> None:
        if error is None:
            self._is_settled = False
            self.commits += 1
            self.operations += len(operations)
            self.counts.keep(counts)
            self._answer(operations)
            self._proceed()
        elif not self._handle_failure(operations, error):
            self._proceed()

    def _handle_failure(self, operations: list[Operation[Any]], error: BaseException) -> bool:
        """Make room for a batch, or answer it; whether the committing thread has something to do for it."""
        if isinstance(error, MapFull):
            return self._make_room(operations)
        if isinstance(error, (StoreFullError, _CountsError)):
            if len(operations) > 1:
                # One by one: some need less room, and some may use what is kept from the others; and a count
                # that is damaged is in the way of those only that change it.
                self._alone.extendleft(reversed(operations))
            else:
                self._refuse(operations, error.found if isinstance(error, _CountsError) else error)
            return False
        # Whatever it was, each of them is owed an answer, and nothing after it can be trusted: LMDB
        # itself goes on after a failed sync as if the pages had reached the disk.
        self.failed = _fatal(error)
        told = None if isinstance(error, StoreError) else error  # what has a sentence needs no traceback
        self._log.error("the store's writer failed: %s", self.failed.sentence, exc_info=told)
        self._on_failure()
        self._refuse(operations, self.failed)
        return False

    # --- room ---

    def _make_room(self, operations: list[Operation[Any]]) -> bool:
        """Let what the last commit freed be used, then let the map grow; the batch is carried out again."""
        if not self._is_settled:
            self._is_settled = True
            batch: Batch | None = None
            try:
                batch = self._environment.turn_over(HEADER)
                self._commit(batch, partial(self._settled, operations))
                return True
            except MapFull:
                pass
            except BaseException as error:
                if batch is not None:
                    batch.abort()
                return self._handle_failure(operations, error)
        self._committer.run(self._environment.prepare_growth, partial(self._grow, operations))
        return True

    def _settled(self, operations: list[Operation[Any]], error: BaseException | None) -> None:
        if error is None or isinstance(error, (MapFull, StoreFullError)):
            self._run_again(operations)
        elif not self._handle_failure(operations, error):
            self._proceed()

    def _grow(
        self, operations: list[Operation[Any]], target: int | None, error: BaseException | None
    ) -> None:
        try:
            if error is None:
                assert target is not None
                # The map may be replaced only while no transaction lives anywhere: there is no batch now, and
                # readers end within one call of this thread.
                self._environment.grow(target)
                self._has_grown = True
        except BaseException as failure:
            error = failure
        else:
            if error is None:
                self._run_again(operations)
                return
            if isinstance(error, StoreError):
                if self._has_grown:
                    self._log.warning("the store cannot grow: %s", error.sentence)
                self._has_grown = False
                error = StoreFullError("the store has no room; nothing was written. Free some disk space")
        if not self._handle_failure(operations, error):
            self._proceed()

    def _run_again(self, operations: list[Operation[Any]]) -> None:
        is_open = len(operations) > 1
        if not self._run_batch(operations, is_open=is_open):
            self._proceed()

    # --- answers ---

    def _refuse(self, operations: Sequence[Operation[Any]], error: StoreError) -> None:
        for operation in operations:
            # One exception each: raised in several tasks, a single one would collect all their tracebacks.
            operation.error = type(error)(error.sentence)
            operation.error.__cause__ = error.__cause__
        self._answer(operations)

    def _answer(self, operations: Sequence[Operation[Any]]) -> None:
        for operation in operations:
            if operation.error is None and operation.on_durable is not None:
                self._call(operation.on_durable)
            operation.end()
            if operation.error is not None and not operation.is_awaited:
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


def _fatal(error: BaseException) -> StoreError:
    kind = type(error) if isinstance(error, StoreError) else StoreError
    found = kind(
        f"{error.sentence if isinstance(error, StoreError) else type(error).__name__}; "
        "the store accepts nothing more until the agent is restarted"
    )
    found.__cause__ = error
    return found
