"""`DB`: the store's life cycle, reads and writes."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import trio

from agentd_client.errors import (
    DBDestroyedError,
    DBNotRunningError,
    DBRunningError,
    ForeignTransactionError,
    StoreError,
)

from ..lifecycle import Component, EventLoop, LoopLifecycle
from .committer import Operation
from .entries import (
    Entry,
    EntryPath,
    KeyPath,
    KeyRing,
    check_limit,
    count_key,
    decode_key,
    encode_path,
    key_range,
    unseal,
    unseal_count,
)
from .environment import DEFAULT_MAP_BYTES, MAX_MAP_BYTES
from .folder import StoreFolder
from .view import DEFAULT_MAX_LIFE_SECONDS, Transaction, View
from .writer import Writer

T = TypeVar("T")

CLEAR_STEP = 256
"""Entries that `clear` removes in one operation: a few milliseconds of the event loop's time."""


class DB(Component):
    """A store of sealed values under key paths. Create it with `create_db`; leaving it stops it.

    Reads (`get`, `iterate`, `paths`, `count`, `sealed`) are synchronous and short: each shows one snapshot
    and ends within the call. Writes are durable when they return. Use from any other event loop or thread
    raises `WrongLoopError`; the child of a fork must not use it.

    Args:
        db_path: the store's folder; created with mode 0700 if it is missing.
        key_ring: seals every value; must be running before `start`.
        logger: receives failures of background writes; never a value.
        map_bytes: the initial map and disk space.
        max_map_bytes: how far the map may grow.
        served_at: the agent's socket, shown to another agent that finds the store in use.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str],
        key_ring: KeyRing,
        logger: logging.Logger | None = None,
        *,
        map_bytes: int = DEFAULT_MAP_BYTES,
        max_map_bytes: int = MAX_MAP_BYTES,
        served_at: str = "",
    ) -> None:
        self.path = Path(db_path)
        self._log = logger or logging.getLogger("agentd.store")
        self._key_ring = key_ring
        self._folder = StoreFolder(
            self.path,
            key_ring,
            map_bytes=map_bytes,
            max_map_bytes=max_map_bytes,
            served_at=served_at,
            logger=self._log,
        )
        self._lifecycle = LoopLifecycle(
            "the store", running=DBRunningError, destroyed=DBDestroyedError, not_running=DBNotRunningError
        )
        self._writer: Writer | None = None

    # --- life cycle ---

    @classmethod
    async def create_db(
        cls,
        *,
        db_path: str | os.PathLike[str],
        key_ring: KeyRing,
        fresh: bool = False,
        logger: logging.Logger | None = None,
        served_at: str = "",
    ) -> Self:
        """Construct and start; raises what `start` raises."""
        db = cls(db_path, key_ring, logger, served_at=served_at)
        await db.start(fresh=fresh)
        return db

    async def start(self, *, fresh: bool = False) -> None:
        """Lock the folder and open the store; create one if there is none.

        Args:
            fresh: start with an empty store, whatever is there, damaged or sealed with another key.

        Raises:
            StoreInUseError: another agent, or another DB of this process, has it open.
            StoreKeyMismatchError: it was sealed with another root key; nothing was changed.
            StoreDamagedError: it is damaged; names the remedy.
            StoreError: a file belongs to another user or is open to others, or the disk failed.
            DBDestroyedError: it was destroyed.
        """
        async with self._lifecycle.start() as needed:
            if needed:
                # Not abandoned on cancellation, so an opened environment is always closed.
                environment = await trio.to_thread.run_sync(self._folder.open, fresh)
                try:
                    self._writer = Writer(environment, self._key_ring, self._log)
                except BaseException:
                    self._folder.close(environment, is_clean=False)
                    raise

    async def stop(self) -> None:
        """Finish queued writes, refuse later ones, close the store and release its lock.

        Shielded from cancellation, so a disk that hangs holds it up. It can be stopped from another event
        loop if the one that started it has ended.
        """
        async with self._lifecycle.stop() as needed:
            if needed:
                writer = self._writer
                assert writer is not None
                await writer.stop()
                self._writer = None  # so that nobody reads while the worker thread unmaps the file
                close = partial(self._folder.close, writer.environment, is_clean=writer.failed is None)
                await trio.to_thread.run_sync(close)

    async def destroy(self) -> None:
        """Remove the store's files and its folder.

        Raises:
            DBRunningError: stop it first.
            StoreInUseError: another agent has it open.
        """
        async with self._lifecycle.destroy() as needed:
            if needed:
                await trio.to_thread.run_sync(self._folder.remove)

    @property
    def failed(self) -> StoreError | None:
        """The error after which the store refuses everything until it is stopped and started."""
        return None if self._writer is None else self._writer.failed

    async def failure(self) -> StoreError:
        """Wait until the open store fails; returns the error."""
        self._lifecycle.require_running()
        writer = self._writer
        assert writer is not None
        await writer.has_failed.wait()
        assert writer.failed is not None
        return writer.failed

    @property
    def size_bytes(self) -> int:
        """The data file's size, including the space reserved in it; 0 if there is none."""
        try:
            return os.stat(self._folder.data_file).st_size
        except FileNotFoundError:
            return 0

    @property
    def commits(self) -> int:
        """How many batches were made durable since the start."""
        return 0 if self._writer is None else self._writer.commits

    # --- reads ---

    @property
    def revision(self) -> int | None:
        """A number that changes with every commit and with nothing else; None while the store is not open.

        Nobody else can write, because the folder is locked. While a commit is in progress, reads see the
        previous state, and this is its revision.
        """
        writer = self._writer
        return None if writer is None or writer.failed is not None else writer.revision

    def get(self, path: KeyPath) -> bytes | None:
        """The value, or None if there is none."""
        key = encode_path(path)
        (sealed,) = self._running().environment.get((key,))
        return None if sealed is None else unseal(self._key_ring, key, sealed)

    def iterate(
        self,
        prefix: KeyPath = (),
        *,
        after: KeyPath | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Entry]:
        """See `View.iterate`; all from one snapshot. Blocks the event loop: page with `limit` and `after`."""
        check_limit(limit)
        pairs = self._running().environment.scan(
            key_range(prefix, after, reverse=reverse), reverse=reverse, limit=limit
        )
        return [(decode_key(key), unseal(self._key_ring, key, sealed)) for key, sealed in pairs]

    def paths(self, prefix: KeyPath = (), *, limit: int) -> list[EntryPath]:
        """The first paths at and below `prefix`; their values are not opened."""
        check_limit(limit)
        pairs = self._running().environment.scan(key_range(prefix), limit=limit)
        return [decode_key(key) for key, _ in pairs]

    def count(self, parent: KeyPath = ()) -> int:
        """The number of entries exactly one part below `parent`, in constant time."""
        key = count_key(parent)
        writer = self._running()
        known = writer.counts.get(key)
        return unseal_count(self._key_ring, key, *writer.environment.get((key,))) if known is None else known

    def sealed(self, *paths: KeyPath) -> list[bytes | None]:
        """The stored bytes, still sealed, all from one snapshot: equal bytes mean an unchanged value."""
        return self._running().environment.get(map(encode_path, paths))

    def unseal(self, path: KeyPath, sealed: bytes) -> bytes:
        """Open what `sealed` returned for a path."""
        return unseal(self._key_ring, encode_path(path), sealed)

    # --- writes ---

    async def put(self, path: KeyPath, value: bytes) -> None:
        """Set a value."""
        await self.write(lambda view: view.put(path, value))

    async def delete(self, path: KeyPath) -> bool:
        """Remove an entry; whether there was one."""
        return await self.write(lambda view: view.delete(path))

    async def clear(self, prefix: KeyPath = ()) -> int:
        """Remove the entry at `prefix` and all below it; how many there were.

        In steps, each durable by itself, so that any number of entries can be cleared within the reserve of a
        full store; a crash in between leaves the rest. `View.clear` is all or nothing.
        """
        cleared = 0
        while True:
            step = await self.write(lambda view: view.clear(prefix, CLEAR_STEP))
            cleared += step
            if step < CLEAR_STEP:
                return cleared

    async def write(
        self,
        function: Callable[[View], T],
        *,
        reserved: bool = False,
        on_durable: Callable[[], object] | None = None,
    ) -> T:
        """Run a function in a write transaction; durable on return.

        `function` runs on the event loop's thread, at once or after the commit in progress, and must be
        short. It may run more than once (after the map grew, the batch is run again): it must change nothing
        but the view, and not keep it. If it raises, its writes are undone and the exception is raised here.
        Cancelled after it was handed over, it is carried out all the same.

        A reserve is kept for operations that leave the store no larger than it was (they delete, or replace
        values by values of the same length) and for those that are `reserved`.

        Args:
            function: the operation.
            reserved: it may use the reserve although it adds a little, to succeed in a full store.
            on_durable: called on the event loop's thread once it is durable, even if cancelled meanwhile.

        Raises:
            StoreFullError: no room; nothing was written.
            StoreError: the commit failed.
            DBNotRunningError: the store is not open, or is stopping.
        """
        EventLoop.here()  # on the right thread, this may still not be a trio task
        writer = self._running()
        await trio.lowlevel.checkpoint_if_cancelled()
        operation = Operation(function, is_awaited=True, may_use_reserve=reserved, on_durable=on_durable)
        writer.hand_over(operation)
        return await operation.durable()

    def submit(
        self,
        function: Callable[[View], object],
        *,
        is_next: bool = False,
        on_durable: Callable[[], object] | None = None,
    ) -> None:
        """Like `write` without waiting; a failure is logged. `is_next`: before all waiting operations."""
        operation = Operation(function, is_awaited=False, on_durable=on_durable)
        self._running().hand_over(operation, is_next=is_next)

    def transaction(self, *, max_life_seconds: float = DEFAULT_MAX_LIFE_SECONDS) -> Transaction:
        """A transaction to be entered with `async with`.

        Args:
            max_life_seconds: on trio's clock; afterwards it can neither be used nor committed.
        """
        if not (math.isfinite(max_life_seconds) and max_life_seconds > 0):
            raise ValueError(f"a maximum life is a number of seconds above 0: {max_life_seconds!r}")
        return Transaction(
            self, lambda: self._running().environment, self._key_ring, self.write, max_life_seconds
        )

    def require_own(self, tran: Transaction) -> None:
        """Check that a transaction belongs to this store and is open; call it before using one.

        Raises:
            ForeignTransactionError: it belongs to another `DB`.
            TransactionEndedError, DBNotRunningError, WrongLoopError: see `Transaction`.
        """
        if not isinstance(tran, Transaction):
            raise TypeError(f"a transaction comes from `DB.transaction()`, not a {type(tran).__name__}")
        if tran.owner is not self:
            raise ForeignTransactionError("the transaction belongs to another store; nothing was written")
        tran.require_open()

    # --- inside ---

    def _running(self) -> Writer:
        self._lifecycle.require_running()
        writer = self._writer
        if writer is None:
            raise DBNotRunningError
        if writer.failed is not None:
            # A new one each time: a shared exception would collect the traceback of every caller.
            raise type(writer.failed)(writer.failed.sentence)
        return writer
