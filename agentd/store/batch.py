"""Writing: one transaction for many operations, a nested one for each. All of it in the writing thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lmdb

from .key_range import KeyRange
from .lmdb_errors import MapFull, lmdb_errors_translated, store_error
from .reader import Pair, scan

RESERVE_PAGES = 128
"""What a batch that grows the store has to leave: room for all others while the map cannot grow.

An operation that changes a single entry takes some twenty pages at the most (each level of the tree, its
neighbour there, the count's branch, LMDB's list of free pages); what it frees comes back two commits later.
"""

RESERVE_SHARE = 8
"""A map of less than four mebibytes keeps an eighth instead."""

LAST_SHARE = 4
"""The part of the reserve that no batch may touch: with it what was freed can always be made usable."""

_PAGES_PER_CHANGE = 16
"""No change of one entry, leaving its value aside, takes more: a path of at most six pages, each split or
merged, and the next two levels of the list of free pages."""

_PAGE_HEAD_BYTES = 16  # LMDB 0.9: before the value on its first page


class Batch:
    """A write transaction that holds the work of many, each in a nested one.

    Args:
        environment: LMDB's.
        map_pages: what the map holds.
        untouched_pages: the end of the map, which no transaction has used yet.
        page_bytes: the size of a page.
    """

    def __init__(
        self, environment: lmdb.Environment, map_pages: int, untouched_pages: int, page_bytes: int
    ) -> None:
        self._environment = environment
        self._reserve_pages = min(RESERVE_PAGES, map_pages // RESERVE_SHARE)
        self._untouched_pages = untouched_pages
        self._page_bytes = page_bytes
        self._pages_to_leave = 0
        self._txn = environment.begin(write=True)

    def nested(self) -> NestedTransaction:
        """Begin the next nested transaction; the one before must have ended."""
        with lmdb_errors_translated():
            return NestedTransaction(self._environment.begin(parent=self._txn, write=True), self._page_bytes)

    def add(self, nested: NestedTransaction, *, may_use_reserve: bool) -> None:
        """Commit a nested transaction into this; what it did decides how much has to be left."""
        nested.commit()
        self._untouched_pages -= nested.pages_at_most
        if nested.pages_at_most:
            share = 1 if nested.has_grown and not may_use_reserve else LAST_SHARE
            self._pages_to_leave = max(self._pages_to_leave, self._reserve_pages // share)

    def rewrite(self, key: bytes) -> None:
        """Replace a value that is there by itself; raises `MapFull` where there is no room for that."""
        try:
            self._txn.put(key, self._txn.get(key) or b"")
        except lmdb.MapFullError as error:
            raise MapFull from error
        except lmdb.Error as error:
            raise store_error(error) from error

    def commit(self) -> None:
        """Make all of it durable: LMDB writes and syncs the pages, then the meta page.

        Raises:
            MapFull: nothing was written; the transaction is over.
            StoreError: nothing was written, as far as anyone can tell; the transaction is over.
        """
        if not self._leaves(self._pages_to_leave):
            raise MapFull
        try:
            self._txn.commit()
        except lmdb.MapFullError as error:
            raise MapFull from error
        except lmdb.Error as error:
            raise store_error(error) from error

    def abort(self) -> None:
        """Give all of it up; nothing where it is over."""
        self._txn.abort()

    def _leaves(self, pages: int) -> bool:
        """Whether so many more pages could be written in this very transaction.

        Counted where that is certain; else tried, in a nested transaction that is given up, because
        nothing else tells what of LMDB's list of free pages this transaction may use.
        """
        if self._untouched_pages >= pages or not pages:
            return True
        page = bytes(self._page_bytes - _PAGE_HEAD_BYTES)
        with lmdb_errors_translated(), self._environment.begin(parent=self._txn, write=True) as probe:
            try:
                probe.cursor().putmulti([(b"%d" % number, page) for number in range(pages)])
            except (lmdb.MapFullError, lmdb.TxnFullError):
                return False
            finally:
                probe.abort()
        return True


class NestedTransaction:
    """One operation's part of a batch.

    `failure` is LMDB's first error: after one nothing here may be kept, even if whoever wrote went on.
    `has_grown` tells whether a key was added or a value became longer, `pages_at_most` how many pages all
    of it can have taken.
    """

    def __init__(self, txn: lmdb.Transaction[bytes], page_bytes: int) -> None:
        self._txn = txn
        self._page_bytes = page_bytes
        self.failure: lmdb.Error | None = None
        self.has_grown = False
        self.pages_at_most = 0

    def get(self, key: bytes) -> bytes | None:
        """The sealed value of a key."""
        with self._watched():
            return self._txn.get(key)

    def insert(self, key: bytes, sealed: bytes) -> bool:
        """Set a sealed value where there is none; whether there was none."""
        with self._watched():
            is_new = self._txn.put(key, sealed, overwrite=False)
        self.has_grown |= is_new
        self._count(sealed)
        return is_new

    def replace(self, key: bytes, sealed: bytes, before: bytes | None) -> None:
        """Set a sealed value in place of the one there was."""
        with self._watched():
            self._txn.put(key, sealed)
        self.has_grown |= before is None or len(before) < len(sealed)
        self._count(sealed)

    def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there."""
        self._count(b"")
        with self._watched():
            return self._txn.delete(key)

    def scan(self, keys: KeyRange, *, reverse: bool = False, limit: int | None = None) -> list[Pair]:
        """What is stored in a range."""
        with self._watched():
            return scan(self._txn, keys, reverse, limit)

    def commit(self) -> None:
        """Add this to the batch."""
        with self._watched():
            self._txn.commit()

    def abort(self) -> None:
        """Take this out of the batch; nothing where it is over."""
        self._txn.abort()

    @property
    def is_map_full(self) -> bool:
        """Whether a larger map may be all that is missing."""
        return isinstance(self.failure, lmdb.MapFullError)

    @property
    def is_too_large(self) -> bool:
        """Whether this alone exceeds what LMDB can write in one transaction."""
        return isinstance(self.failure, lmdb.TxnFullError)

    def _count(self, sealed: bytes) -> None:
        self.pages_at_most += _PAGES_PER_CHANGE + len(sealed) // self._page_bytes

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            self.failure = self.failure or error
            raise store_error(error) from error
