"""One write transaction for many operations, and how much of the map it has to leave."""

from __future__ import annotations

from collections.abc import Iterable

import lmdb

from .errors import MapFull, lmdb_errors_translated, store_error

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

SealedWrite = tuple[bytes, bytes | None]
"""A stored key and its sealed value; None removes the entry."""


class Batch:
    """A write transaction that holds the work of many. Only `commit` may be called in another thread.

    After any error the whole batch is to be aborted: part of an operation may be in it.

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
        self.is_empty = True
        self.txn = environment.begin(write=True)

    def apply(
        self, writes: Iterable[SealedWrite], *, may_use_reserve: bool
    ) -> tuple[list[bytes], list[bytes]]:
        """Carry out an operation's writes; the keys that came and those that went.

        Raises:
            MapFull: a larger map may be all that is missing.
            StoreFullError: it exceeds what LMDB can write in one transaction.
            StoreError: LMDB failed.
        """
        txn, page_bytes = self.txn, self._page_bytes
        came: list[bytes] = []
        went: list[bytes] = []
        has_grown = False
        pages_at_most = 0
        try:
            for key, sealed in writes:
                pages_at_most += _PAGES_PER_CHANGE
                if sealed is None:
                    if txn.delete(key):
                        went.append(key)
                    continue
                pages_at_most += len(sealed) // page_bytes
                if txn.put(key, sealed, overwrite=False):
                    came.append(key)
                else:
                    has_grown |= len(txn.get(key) or b"") < len(sealed)
                    txn.put(key, sealed)
        except lmdb.MapFullError as error:
            raise MapFull from error
        except lmdb.Error as error:
            raise store_error(error) from error
        if pages_at_most:
            self.is_empty = False
            self._untouched_pages -= pages_at_most
            share = 1 if (has_grown or came) and not may_use_reserve else LAST_SHARE
            self._pages_to_leave = max(self._pages_to_leave, self._reserve_pages // share)
        return came, went

    def rewrite(self, key: bytes) -> None:
        """Replace a value that is there by itself; raises `MapFull` where there is no room for that."""
        try:
            self.txn.put(key, self.txn.get(key) or b"")
        except lmdb.MapFullError as error:
            raise MapFull from error
        except lmdb.Error as error:
            raise store_error(error) from error

    def check_reserve(self) -> None:
        """Raise `MapFull` where a commit would leave less than it has to."""
        if not self._leaves(self._pages_to_leave):
            raise MapFull

    def commit(self) -> None:
        """Make all of it durable: LMDB writes and syncs the pages, then the meta page. In any one thread.

        Raises:
            MapFull: nothing was written; the transaction is over.
            StoreError: nothing was written, as far as anyone can tell; the transaction is over.
        """
        try:
            self.txn.commit()
        except lmdb.MapFullError as error:
            raise MapFull from error
        except lmdb.Error as error:
            raise store_error(error) from error

    def abort(self) -> None:
        """Give all of it up; nothing where it is over."""
        self.txn.abort()

    def _leaves(self, pages: int) -> bool:
        """Whether so many more pages could be written in this very transaction.

        Counted where that is certain; else tried, in a nested transaction that is given up, because
        nothing else tells what of LMDB's list of free pages this transaction may use.
        """
        if self._untouched_pages >= pages or not pages:
            return True
        page = bytes(self._page_bytes - _PAGE_HEAD_BYTES)
        with lmdb_errors_translated(), self._environment.begin(parent=self.txn, write=True) as probe:
            try:
                probe.cursor().putmulti([(b"%d" % number, page) for number in range(pages)])
            except (lmdb.MapFullError, lmdb.TxnFullError):
                return False
            finally:
                probe.abort()
        return True
