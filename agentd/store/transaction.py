"""Optimistic transactions: pending writes, and everything that was read to decide on them.

No LMDB transaction is open behind one, so it may live across awaits. Its writes are visible through it only;
at its end the writer compares what it read with what is stored then, and writes all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import trio

from agentd_client.errors import TransactionConflictError, TransactionEndedError, WrongLoopError

from .keypath import KeyRange, readable
from .reader import Pair, Reader
from .sealing import Sealer
from .view import View, WriteView
from .writer import Writer

DEFAULT_MAX_LIFE_SECONDS = 60.0
"""Longer than any request may take; a transaction that is older belongs to a task that hangs or forgot it."""


class Transaction(View):
    """A view of the store with pending writes; made by `DB.transaction`.

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
        reader: Callable[[], Reader],
        sealer: Sealer,
        writer: Callable[[], Writer],
        max_life_seconds: float,
    ) -> None:
        super().__init__(sealer)
        self._owner = owner
        self._reader = reader
        self._current_writer = writer
        self._writer: Writer | None = None  # of the start of the store in which the transaction began
        self._on_durable: list[Callable[[], object]] = []
        self._max_life_seconds = max_life_seconds
        self._deadline = 0.0
        self._ended = False
        self._reads: dict[bytes, bytes | None] = {}  # as first seen, sealed
        self._ranges: list[tuple[KeyRange, list[Pair]]] = []

    async def __aenter__(self) -> Self:
        if self._writer is not None:
            raise TransactionEndedError("a transaction can be entered only once; begin another")
        self._writer = self._current_writer()  # raises if the store is not open
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
            assert self._writer is not None
            await self._writer.write(self._commit, on_durable=self._call_on_durable)

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
        if self._writer is None:
            raise TransactionEndedError("the transaction has not begun; use `async with`")
        if self._current_writer() is not self._writer:
            raise TransactionEndedError(
                "the store was started again since the transaction began; begin another"
            )
        if trio.current_time() >= self._deadline:
            raise TransactionEndedError(
                f"the transaction outlived its {self._max_life_seconds:g} seconds; nothing was written"
            )

    def is_of(self, owner: object) -> bool:
        """Whether it is a transaction of this store."""
        return self._owner is owner

    def stored(self, key: bytes) -> bytes | None:
        """See `View.stored`; each key is read once, and validated at the commit."""
        if key not in self._reads:
            (self._reads[key],) = self._reader().get((key,))
        return self._reads[key]

    def stored_in(self, keys: KeyRange, *, reverse: bool = False, limit: int | None = None) -> list[Pair]:
        """See `View.stored_in`."""
        return self._reader().scan(keys, reverse=reverse, limit=limit)

    def _on_range_read(self, keys: KeyRange, seen: list[Pair]) -> None:
        self._ranges.append((keys, seen))

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
