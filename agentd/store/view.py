"""Views: the store as an operation or a transaction sees it, with its own pending writes on top.

Nothing reaches LMDB before the end. Dropping the pending writes therefore undoes an operation, and a
transaction can live across awaits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Self

import lmdb
import trio

from agentd_client.errors import TransactionConflictError, TransactionEndedError, WrongLoopError

from .entries import (
    Entry,
    KeyPath,
    KeyRange,
    KeyRing,
    check_limit,
    decode_key,
    encode_path,
    key_range,
    readable,
    unseal,
)
from .environment import Environment, Pair, scan
from .errors import store_error

DEFAULT_MAX_LIFE_SECONDS = 60.0
"""Longer than any request may take; a transaction that is older belongs to a task that hangs or forgot it."""


class View(ABC):
    """The store with pending writes on top. Every method is synchronous.

    `writes` holds the pending writes by stored key: the value, or None for an entry to be removed.

    Raises:
        InvalidPathError: a path is not valid.
        StoreDamagedError: a value was not sealed by this agent at its path.
        TransactionEndedError: the view is used after its end.
    """

    def __init__(self, key_ring: KeyRing) -> None:
        self._key_ring = key_ring
        self.writes: dict[bytes, bytes | None] = {}
        self._ranges: list[tuple[KeyRange, list[Pair]]] = []  # that were read, and what was stored there

    @abstractmethod
    def require_open(self) -> None:
        """Raise if this view may not be used any more."""

    @abstractmethod
    def stored(self, key: bytes) -> bytes | None:
        """The stored bytes of a key, without pending writes."""

    @abstractmethod
    def stored_in(self, keys: KeyRange, *, reverse: bool = False, limit: int | None = None) -> list[Pair]:
        """The stored keys of a range with their sealed values, without pending writes."""

    def get(self, path: KeyPath) -> bytes | None:
        """The value, or None if there is none."""
        self.require_open()
        key = encode_path(path)
        if key in self.writes:
            return self.writes[key]
        sealed = self.stored(key)
        return None if sealed is None else unseal(self._key_ring, key, sealed)

    def sealed(self, path: KeyPath) -> bytes | None:
        """The stored bytes, still sealed: equal bytes mean an unchanged value.

        None if there is no entry, or if this view itself has changed it.
        """
        self.require_open()
        key = encode_path(path)
        return None if key in self.writes else self.stored(key)

    def put(self, path: KeyPath, value: bytes) -> None:
        """Set the value; reads nothing."""
        self.require_open()
        key = encode_path(path)
        if type(value) is not bytes:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        self.writes[key] = value

    def delete(self, path: KeyPath) -> bool:
        """Remove the entry; whether there was one, which counts as read."""
        self.require_open()
        key = encode_path(path)
        found = (self.writes[key] if key in self.writes else self.stored(key)) is not None
        if found:
            self.writes[key] = None
        return found

    def clear(self, prefix: KeyPath = (), limit: int | None = None) -> int:
        """Remove the entry at `prefix` and all below it, or the first `limit` of them; how many there were.

        Values are not opened, so damaged ones can be cleared.
        """
        self.require_open()
        found = self._merged(key_range(prefix), reverse=False, limit=limit)
        self.writes.update((key, None) for key, _, _ in found)
        return len(found)

    def iterate(
        self,
        prefix: KeyPath = (),
        *,
        after: KeyPath | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Entry]:
        """The entry at `prefix` and all below it, in the order of their paths.

        The whole range counts as read, gaps included.

        Args:
            prefix: `()` is the whole store.
            after: begin strictly past this path, in the direction of reading; it need not exist.
            reverse: from the last to the first.
            limit: at most so many entries; None for all.
        """
        self.require_open()
        check_limit(limit)
        return [
            (decode_key(key), unseal(self._key_ring, key, data) if is_sealed else data)
            for key, data, is_sealed in self._merged(
                key_range(prefix, after, reverse=reverse), reverse=reverse, limit=limit
            )
        ]

    def _merged(self, keys: KeyRange, *, reverse: bool, limit: int | None) -> list[tuple[bytes, bytes, bool]]:
        """Store and pending writes in one order: stored key, value, whether that is still sealed."""
        if limit == 0:
            return []
        pending = {key: value for key, value in self.writes.items() if key in keys}
        # Each pending key hides at most one stored entry, so this many leave `limit` of them.
        enough = None if limit is None else limit + len(pending)
        seen = self.stored_in(keys, reverse=reverse, limit=enough)
        merged = [(key, sealed, True) for key, sealed in seen if key not in pending]
        merged += [(key, value, False) for key, value in pending.items() if value is not None]
        merged.sort(key=lambda entry: entry[0], reverse=reverse)
        if limit is not None and len(merged) >= limit:
            del merged[limit:]
            # The caller sees nothing past the last entry, so a change there is no conflict.
            keys = keys.up_to(merged[-1][0], reverse=reverse)
            seen = [pair for pair in seen if pair[0] in keys]
        self._ranges.append((keys, seen[::-1] if reverse else seen))
        return merged


class WriteView(View):
    """A view of the batch in progress, for one operation, until that `is_over`.

    `failure` is the first error of LMDB: the batch must then be aborted, even if the operation caught it.
    """

    def __init__(self, txn: lmdb.Transaction[bytes], key_ring: KeyRing) -> None:
        super().__init__(key_ring)
        self._txn = txn
        self.is_over = False
        self.failure: lmdb.Error | None = None

    def require_open(self) -> None:
        """Raise `TransactionEndedError` once its operation is over."""
        if self.is_over:
            raise TransactionEndedError("the operation that this view belonged to is over")

    def stored(self, key: bytes) -> bytes | None:
        """See `View.stored`; includes the writes of earlier operations in the batch."""
        try:
            return self._txn.get(key)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def stored_in(self, keys: KeyRange, *, reverse: bool = False, limit: int | None = None) -> list[Pair]:
        """See `View.stored_in`; includes the writes of earlier operations in the batch."""
        try:
            return scan(self._txn, keys, reverse, limit)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: lmdb.Error) -> Exception:
        self.failure = self.failure or error
        return store_error(error)


class Transaction(View):
    """An optimistic transaction: pending writes, and everything that was read to decide on them.

    No LMDB transaction is open behind one, so it may live across awaits; `DB.transaction` makes it. Its
    writes are visible through it only. At its end the writer compares what it read with what is stored then,
    and writes all of it or nothing.

    `async with` commits at the end; an exception rolls back. If two transactions write the same path and
    neither read it, the last one wins. A transaction that only read is not validated: each of its reads was
    true when it was made. Cancelled before its end, it is rolled back; cancelled during the commit, it
    commits and only the waiting ends.

    Raises:
        TransactionConflictError: at the end; something it read has changed since, and nothing was written.
        TransactionEndedError: used before its beginning, after its end, past its maximum life, or after the
            store was stopped and started again.
        DBNotRunningError: the store is not open.
        WrongLoopError: used from another event loop than the store's.
    """

    def __init__(
        self,
        owner: object,
        environment: Callable[[], Environment],
        key_ring: KeyRing,
        write: Callable[..., Coroutine[Any, Any, None]],
        max_life_seconds: float,
    ) -> None:
        super().__init__(key_ring)
        self.owner = owner
        self._current_environment = environment
        self._environment: Environment | None = None  # of the run of the store in which it began
        self._write = write
        self._on_durable: list[Callable[[], object]] = []
        self._max_life_seconds = max_life_seconds
        self._deadline = 0.0
        self._ended = False
        self._reads: dict[bytes, bytes | None] = {}  # as first seen, sealed

    async def __aenter__(self) -> Self:
        if self._environment is not None:
            raise TransactionEndedError("a transaction can be entered only once; begin another")
        self._environment = self._current_environment()  # raises if the store is not open
        self._deadline = trio.current_time() + self._max_life_seconds
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_here = True
        try:
            if kind is None:
                self.require_open()
        except WrongLoopError:
            is_here = False  # it stays open on its own event loop
            raise
        finally:
            self._ended = self._ended or is_here
        if kind is None and self.writes:
            await self._write(self._commit, on_durable=self._call_on_durable)

    def on_durable(self, function: Callable[[], object]) -> None:
        """Call a function on the event loop's thread once this is committed, and only then.

        It is called even if the committing task was cancelled meanwhile. It must not block.
        """
        self.require_open()
        self._on_durable.append(function)

    def require_open(self) -> None:
        """Raise, as listed above, unless it can be used now."""
        if self._ended:
            raise TransactionEndedError("the transaction is over; begin another")
        if self._environment is None:
            raise TransactionEndedError("the transaction has not begun; use `async with`")
        if self._current_environment() is not self._environment:
            raise TransactionEndedError(
                "the store was started again since the transaction began; begin another"
            )
        if trio.current_time() >= self._deadline:
            raise TransactionEndedError(
                f"the transaction outlived its {self._max_life_seconds:g} seconds; nothing was written"
            )

    def stored(self, key: bytes) -> bytes | None:
        """See `View.stored`; each key is read once, and validated at the commit."""
        if key not in self._reads:
            (self._reads[key],) = self._current_environment().get((key,))
        return self._reads[key]

    def stored_in(self, keys: KeyRange, *, reverse: bool = False, limit: int | None = None) -> list[Pair]:
        """See `View.stored_in`."""
        return self._current_environment().scan(keys, reverse=reverse, limit=limit)

    def _call_on_durable(self) -> None:
        for function in self._on_durable:
            function()

    def _commit(self, view: WriteView) -> None:
        """Validate and apply; may run more than once, because it changes only the view."""
        for key, sealed in self._reads.items():
            if view.stored(key) != sealed:
                raise TransactionConflictError(f"{readable(key)} was changed meanwhile; nothing was written")
        for keys, seen in self._ranges:
            if view.stored_in(keys) != seen:
                raise TransactionConflictError(
                    f"entries from {readable(keys.low) or 'the first'} on were changed meanwhile"
                )
        view.writes.update(self.writes)
