"""A transaction: an overlay of pending writes, and everything that was read to come to them.

No LMDB transaction stands behind it, so it may live across awaits. What it wrote is seen through it only;
at its end the writer compares what it read with what is there then, and writes all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import trio

from agentd_client.errors import TransactionConflictError, TransactionEndedError, WrongLoopError

from .key_range import KeyRange, check_limit, key_range
from .keypath import KeyPath, decode_key, encode_path, readable
from .reader import Pair, Reader
from .sealing import Sealer, checked_value
from .view import Entry
from .write_view import WriteView
from .writer import Writer

DEFAULT_MAX_LIFE_SECONDS = 60.0
"""Longer than any request may take; what lives on is a task that hangs or forgot its transaction."""


class Transaction:
    """A `View` of the store and of its own pending writes; made by `DB.transaction`.

    `async with` commits at the end; an exception rolls back. Where two transactions wrote the same path
    and neither read it, the last one wins. One that only read is not validated: each of its reads was
    true when it was made. Cancelled before the end, it is rolled back; while the commit is under way, the
    outcome stands and only the waiting ends.

    Raises:
        TransactionConflictError: at the end; what was read has been changed since, nothing was written.
        TransactionEndedError: used before its beginning, after its end, after its maximum life, or after the
            store was stopped and started again.
        DBNotRunningError: used while the store is not open.
        WrongLoopError: used from another event loop than the store's.
    """

    def __init__(
        self,
        owner: object,
        reader: Callable[[], Reader],
        sealer: Sealer,
        writer: Callable[[], Writer],
        max_life_seconds: float,
    ) -> None:
        self._owner = owner
        self._reader = reader
        self._sealer = sealer
        self._present_writer = writer
        self._writer: Writer | None = None  # the one of this start of the store
        self._on_durable: list[Callable[[], object]] = []
        self._max_life_seconds = max_life_seconds
        self._deadline = 0.0
        self._ended = False
        self._writes: dict[bytes, bytes | None] = {}
        self._reads: dict[bytes, bytes | None] = {}  # as first seen, sealed
        self._ranges: list[tuple[KeyRange, list[Pair]]] = []

    async def __aenter__(self) -> Self:
        if self._writer is not None:
            raise TransactionEndedError("a transaction is entered once; begin another")
        self._writer = self._present_writer()  # a store that is not open is refused here
        self._deadline = trio.current_time() + self._max_life_seconds
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_here = True
        try:
            if kind is None:
                self.require_open()
        except WrongLoopError:
            is_here = False  # it goes on where it belongs
            raise
        finally:
            self._ended = self._ended or is_here
        if kind is None and self._writes:
            assert self._writer is not None
            await self._writer.write(self._commit, on_durable=self._tell)

    def on_durable(self, function: Callable[[], object]) -> None:
        """Have a function called on the event loop's thread once this is committed, and only then.

        Also where the task that commits was cancelled meanwhile. It must not wait.
        """
        self.require_open()
        self._on_durable.append(function)

    def require_open(self) -> None:
        """Raise what is named above unless it can be used now."""
        if self._ended:
            raise TransactionEndedError("the transaction is over; begin another")
        if self._writer is None:
            raise TransactionEndedError("the transaction has not begun; use `async with`")
        if self._present_writer() is not self._writer:
            raise TransactionEndedError(
                "the store was started again since the transaction began; begin another"
            )
        if trio.current_time() >= self._deadline:
            raise TransactionEndedError(
                f"the transaction outlived its {self._max_life_seconds:g} seconds; nothing was written"
            )

    def is_of(self, owner: object) -> bool:
        """Whether it is a transaction of that store."""
        return self._owner is owner

    def get(self, path: KeyPath) -> bytes | None:
        """See `View.get`."""
        self.require_open()
        key = encode_path(path)
        if key in self._writes:
            return self._writes[key]
        sealed = self._read(key)
        return None if sealed is None else self._sealer.open(key, sealed)

    def put(self, path: KeyPath, value: bytes) -> None:
        """See `View.put`; reads nothing."""
        self.require_open()
        self._writes[encode_path(path)] = checked_value(value)

    def delete(self, path: KeyPath) -> bool:
        """See `View.delete`; whether there was an entry counts as read."""
        self.require_open()
        key = encode_path(path)
        is_pending = key in self._writes
        found = (self._writes[key] if is_pending else self._read(key)) is not None
        if found:
            self._writes[key] = None
        return found

    def clear(self, prefix: KeyPath = ()) -> int:
        """See `View.clear`; what is removed counts as read."""
        self.require_open()
        found = self._merged(key_range(prefix), reverse=False, limit=None)
        self._writes.update(dict.fromkeys((key for key, _, _ in found), None))
        return len(found)

    def iterate(
        self,
        prefix: KeyPath = (),
        *,
        after: KeyPath | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Entry]:
        """See `View.iterate`; the whole stretch that was looked at counts as read, gaps included."""
        self.require_open()
        check_limit(limit)
        return [
            (decode_key(key), self._sealer.open(key, data) if is_sealed else data)
            for key, data, is_sealed in self._merged(
                key_range(prefix, after, reverse=reverse), reverse=reverse, limit=limit
            )
        ]

    def _read(self, key: bytes) -> bytes | None:
        if key not in self._reads:
            (self._reads[key],) = self._reader().get((key,))
        return self._reads[key]

    def _merged(self, keys: KeyRange, *, reverse: bool, limit: int | None) -> list[tuple[bytes, bytes, bool]]:
        """Store and overlay in one order: stored key, value, whether that is still sealed."""
        if limit == 0:
            return []
        pending = {key: value for key, value in self._writes.items() if key in keys}
        # Each pending key can hide one stored entry; with so many more read, `limit` are left.
        enough = None if limit is None else limit + len(pending)
        seen = self._reader().scan(keys, reverse=reverse, limit=enough)
        merged = [(key, sealed, True) for key, sealed in seen if key not in pending]
        merged += [(key, value, False) for key, value in pending.items() if value is not None]
        merged.sort(key=lambda entry: entry[0], reverse=reverse)
        if limit is not None and len(merged) >= limit:
            del merged[limit:]
            # Past the last entry nothing was shown, so what happens there is no conflict.
            keys = keys.up_to(merged[-1][0], reverse=reverse)
            seen = [pair for pair in seen if pair[0] in keys]
        # In ascending order, as the commit reads it.
        self._ranges.append((keys, seen[::-1] if reverse else seen))
        return merged

    def _tell(self) -> None:
        for function in self._on_durable:
            function()

    def _commit(self, view: WriteView) -> None:
        """Validate and apply, in the writing thread; changes nothing of its own, so it can run again."""
        for key, sealed in self._reads.items():
            if view.sealed(key) != sealed:
                raise TransactionConflictError(f"{readable(key)} was changed meanwhile; nothing was written")
        for keys, seen in self._ranges:
            if view.scan(keys) != seen:
                raise TransactionConflictError(
                    f"entries from {readable(keys.low) or 'the first'} on were changed meanwhile"
                )
        for key, value in self._writes.items():
            if value is None:
                view.delete_key(key)
            else:
                view.put_key(key, value)
