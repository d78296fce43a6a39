"""Group commit: operations run one after the other on the event loop's thread, and many share one commit.

Each sees its batch's write transaction through a view of its own, so an exception undoes that operation
alone. The finished transaction goes to the committing thread; operations that arrive meanwhile form the next
batch. Each caller is answered once its operation is on the disk.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import trio

from agentd_client.errors import AgentdError, DBNotRunningError, StoreDamagedError, StoreError, StoreFullError

from .committer import Committer, Operation
from .entries import HEADER, KeyRing, parent_count_key, readable, seal, seal_count, unseal_count
from .environment import Batch, Environment
from .errors import STORE_FULL, MapFull, damaged, lmdb_errors_translated, store_error
from .view import WriteView

MAX_BATCH_OPERATIONS = 256
"""Operations in one batch; far fewer already share the cost of syncing."""

TURN_SECONDS = 0.004
"""Of the event loop's time for one batch. Operations that are left go into the next one."""

_revisions = itertools.count()


class _CountsError(Exception):
    """A count is damaged: only operations that change it are refused."""

    def __init__(self, damage: StoreDamagedError) -> None:
        super().__init__()
        self.damage = damage


class Writer:
    """Carries out operations on the event loop's thread, from its construction until `stop`.

    revision: changes with every commit; no two writers of a process share one.
    commits: batches that were made durable.
    counts: how many entries there are exactly one part below a path, by the stored key of that count. Each is
        a small sealed record, written once for each batch that changes it. Those that have changed stay here,
        as the last commit left them, except those that are 0.
    failed: the error after which nothing is carried out any more; `has_failed` is set then.
    """

    def __init__(self, environment: Environment, key_ring: KeyRing, logger: logging.Logger) -> None:
        self.environment = environment
        self._key_ring = key_ring
        self._log = logger
        self._committer = Committer(logger)
        self._waiting: deque[Operation[Any]] = deque()
        self._alone: deque[Operation[Any]] = deque()  # each in a batch of its own, before those waiting
        self._is_busy = False  # a batch is being carried out or committed
        self._is_recycled = False  # no pages were freed since the last recycling commit
        self._may_log_full = True  # that the map cannot grow is logged once
        self._stopped: trio.Event | None = None
        self.counts: dict[bytes, int] = {}
        self.failed: StoreError | None = None
        self.has_failed = trio.Event()
        self.commits = 0
        self.revision = next(_revisions)

    async def stop(self) -> None:
        """Finish the operations handed over and refuse later ones; call it shielded from cancellation.

        From any event loop, so that a writer whose own loop has ended can be stopped.
        """
        self._stopped = trio.Event()
        if self._is_busy:
            self._committer.move_here()
            await self._stopped.wait()
        self._committer.stop()

    def hand_over(self, operation: Operation[Any], *, is_next: bool = False) -> None:
        """Carry out an operation after those that wait, or before them; raises once it is stopping."""
        if self._stopped is not None:
            raise DBNotRunningError
        if is_next:
            self._waiting.appendleft(operation)
        else:
            self._waiting.append(operation)
        if not self._is_busy:
            self._proceed()

    # Ctrl-C must not interrupt it in the middle of a batch.
    @trio.lowlevel.enable_ki_protection
    def _proceed(self) -> None:
        """Carry out the next batch, if there is one."""
        self._is_busy = True
        if self._alone:
            self._run_batch([self._alone.popleft()], is_open=False)
        elif self._waiting:
            self._run_batch([], is_open=True)
        else:
            self._is_busy = False
            if self._stopped is not None:
                self._stopped.set()

    def _proceed_later(self) -> None:
        if self._alone or self._waiting:
            self._committer.run_soon(self._proceed)  # after other tasks had a turn
        else:
            self._proceed()

    def _run_batch(self, operations: list[Operation[Any]], *, is_open: bool) -> None:
        """Carry out a batch; one that writes nothing is answered at once.

        Args:
            operations: the first ones of the batch.
            is_open: whether waiting operations may be added.
        """
        batch: Batch | None = None
        try:
            batch = self.environment.begin()
            counts = self._count(batch, self._fill(batch, operations, is_open))
            batch.check_reserve()
            if not batch.is_empty:
                self._commit(batch, partial(self._end_batch, operations, counts))
                return
            batch.abort()
        except BaseException as error:
            if batch is not None:
                batch.abort()
            self._handle_failure(operations, error)
        else:
            self._answer(operations)
            self._proceed_later()

    def _fill(self, batch: Batch, operations: list[Operation[Any]], is_open: bool) -> dict[bytes, int]:
        """Run operations; returns by how much each count changes."""
        changes: defaultdict[bytes, int] = defaultdict(int)
        for operation in operations:
            self._run_operation(batch, operation, changes)
        end = perf_counter() + TURN_SECONDS
        while is_open and self._waiting and len(operations) < MAX_BATCH_OPERATIONS:
            operation = self._waiting.popleft()
            operations.append(operation)
            self._run_operation(batch, operation, changes)
            is_open = perf_counter() < end
        return changes

    def _run_operation(
        self, batch: Batch, operation: Operation[Any], changes: defaultdict[bytes, int]
    ) -> None:
        operation.error = None  # of an earlier attempt
        view = WriteView(batch.txn, self._key_ring)
        try:
            operation.result = operation.function(view)
            # Everything is sealed before the first write: a value that cannot be sealed undoes only this one.
            sealed = [
                (key, None if value is None else seal(self._key_ring, key, value))
                for key, value in view.writes.items()
            ]
        except BaseException as error:  # of the function itself: the caller's to handle
            operation.error = error
            sealed = []
        finally:
            view.is_over = True
        if view.failure is not None:
            raise store_error(view.failure) from view.failure
        if sealed:
            added, removed = batch.apply(sealed, may_use_reserve=operation.may_use_reserve)
            for key in added:
                changes[parent_count_key(key)] += 1
            for key in removed:
                changes[parent_count_key(key)] -= 1

    def _count(self, batch: Batch, changes: dict[bytes, int]) -> dict[bytes, int]:
        """Write the counts that change; returns their new values, to be kept once they are committed."""
        counts = {}
        for key, change in changes.items():
            if change:
                before = self.counts.get(key)
                if before is None:
                    before = self._stored_count(batch, key)
                if before + change < 0:
                    raise _CountsError(damaged(f"{readable(key)} is lower than what was removed"))
                counts[key] = before + change
        # A count may always use the reserve, or an operation that may could still fail.
        batch.apply(
            [(key, seal_count(self._key_ring, key, count)) for key, count in counts.items()],
            may_use_reserve=True,
        )
        return counts

    def _stored_count(self, batch: Batch, key: bytes) -> int:
        with lmdb_errors_translated():
            sealed = batch.txn.get(key)
        try:
            return unseal_count(self._key_ring, key, sealed)
        except StoreDamagedError as error:
            raise _CountsError(error) from error

    def _commit(self, batch: Batch, then: Callable[[BaseException | None], None]) -> None:
        """Hand a batch over. Readers see the previous commit until `then` is called.

        Raises if the previous commit cannot be pinned; the batch is then still the caller's.
        """
        self.environment.pin()

        def committed(_: None, error: BaseException | None) -> None:
            self.environment.unpin()
            # Before callers are answered, so that the revision has changed when they read again.
            self.revision = next(_revisions)
            then(error)

        self._committer.run(batch.commit, committed)

    def _end_batch(
        self, operations: list[Operation[Any]], counts: dict[bytes, int], error: BaseException | None
    ) -> None:
        if error is None:
            self._is_recycled = False
            self.commits += 1
            for key, count in counts.items():
                if count:
                    self.counts[key] = count
                else:
                    self.counts.pop(key, None)
            self._answer(operations)
            self._proceed()
        else:
            self._handle_failure(operations, error)

    def _handle_failure(self, operations: list[Operation[Any]], error: BaseException) -> None:
        """Make room for a batch, have its operations carried out one by one, or refuse it."""
        if isinstance(error, MapFull):
            self._make_room(operations)
            return
        if isinstance(error, (StoreFullError, _CountsError)):
            if len(operations) > 1:
                # One by one: some need less room, some may use the reserve, and a damaged count concerns
                # only those that change it.
                self._alone.extendleft(reversed(operations))
            else:
                self._fail(operations, error.damage if isinstance(error, _CountsError) else error)
            self._proceed_later()
            return
        # Fatal, because nothing after it can be trusted: LMDB itself goes on after a failed sync as if the
        # pages had reached the disk.
        kind, sentence = StoreError, type(error).__name__
        if isinstance(error, StoreError):
            kind, sentence = type(error), error.sentence
        failed = kind(f"{sentence}; the store accepts nothing more until the agent is restarted")
        failed.__cause__ = error
        self.failed = failed
        traceback = None if isinstance(error, StoreError) else error  # our own errors explain themselves
        self._log.error("the store's writer failed: %s", failed.sentence, exc_info=traceback)
        self.has_failed.set()
        refused = [*operations, *self._alone, *self._waiting]
        self._alone.clear()
        self._waiting.clear()
        self._fail(refused, failed)
        self._proceed_later()

    # --- room ---

    def _make_room(self, operations: list[Operation[Any]]) -> None:
        """Make freed pages usable; if that is done already, grow the map. The batch is then run again."""
        if self._is_recycled:
            self._committer.run(self.environment.prepare_growth, partial(self._grow, operations))
            return
        self._is_recycled = True
        batch: Batch | None = None
        try:
            # LMDB reuses a freed page only in the second transaction after the one that freed it.
            batch = self.environment.begin()
            batch.rewrite(HEADER)
            self._commit(batch, partial(self._recycled, operations))
        except BaseException as error:
            if batch is not None:
                batch.abort()
            self._handle_failure(operations, error)

    def _recycled(self, operations: list[Operation[Any]], error: BaseException | None) -> None:
        if error is None or isinstance(error, (MapFull, StoreFullError)):
            self._run_again(operations)
        else:
            self._handle_failure(operations, error)

    def _grow(
        self, operations: list[Operation[Any]], target: int | None, error: BaseException | None
    ) -> None:
        if target is not None:
            try:
                # No transaction is open now: there is no batch, and reads end within one call of this thread.
                self.environment.grow(target)
            except BaseException as failure:
                self._handle_failure(operations, failure)
            else:
                self._may_log_full = True
                self._run_again(operations)
            return
        if isinstance(error, StoreError):
            if self._may_log_full:
                self._log.warning("the store cannot grow: %s", error.sentence)
            self._may_log_full = False
            error = StoreFullError(STORE_FULL)
        assert error is not None
        self._handle_failure(operations, error)

    def _run_again(self, operations: list[Operation[Any]]) -> None:
        self._run_batch(operations, is_open=len(operations) > 1)

    # --- answers ---

    def _fail(self, operations: Sequence[Operation[Any]], error: StoreError) -> None:
        for operation in operations:
            # One exception each: a shared one would collect the tracebacks of all tasks that raise it.
            operation.error = type(error)(error.sentence)
            operation.error.__cause__ = error.__cause__
        self._answer(operations)

    def _answer(self, operations: Sequence[Operation[Any]]) -> None:
        for operation in operations:
            if operation.error is None and operation.on_durable is not None:
                try:
                    operation.on_durable()
                except Exception:  # must not end the event loop, and the others still have to be answered
                    self._log.exception("a callback after a write failed")
            operation.end()
            if operation.error is None or operation.is_awaited:
                continue
            if isinstance(operation.error, AgentdError):  # our own errors explain themselves
                self._log.error("background write failed: %s", operation.error.sentence)
            else:
                self._log.error("background write failed", exc_info=operation.error)
