"""The LMDB environment: reads, write transactions (`Batch`), and growing its map.

While it is open, everything runs on the event loop's thread except what waits for the disk: `Batch.commit`
and `Environment.prepare_growth` may run in another. LMDB's lock table is not used: the folder lock keeps
other processes out, and without the table a write transaction is not bound to a thread. docs/design.md says
how the store guarantees what LMDB then no longer checks. An environment must not be used after `fork`: the
child shares the parent's map and file descriptors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import lmdb

from .entries import KeyRange
from .errors import MapFull, lmdb_errors_translated, store_error
from .growth import Growth, reserve_for_existing, reserve_for_new

DATA_NAME = "data.mdb"  # LMDB's own name

DEFAULT_MAP_BYTES = 16 * 1024 * 1024
"""The first map, and the disk space of a new store: some 30,000 sessions."""

MAX_MAP_BYTES = 64 * 1024**3
"""Where growth ends; only address space until it is needed."""

ENGINE = 0
"""LMDB 0.9. Explicit, because py-lmdb also carries 1.0, which has another format and which an environment
variable could select."""

RESERVE_PAGES = 128
"""What a batch that grows the store has to leave: room for all others while the map cannot grow.

An operation that changes a single entry takes some twenty pages at most (each level of the tree, its
neighbour there, the count's branch, LMDB's list of free pages); what it frees comes back two commits later.
"""

RESERVE_SHARE = 8
"""A map of less than four mebibytes keeps an eighth instead."""

LAST_SHARE = 4
"""The part of the reserve that no batch may touch: with it, freed pages can always be made usable."""

_PAGES_PER_CHANGE = 16
"""No change of one entry takes more, not counting its value: a path of at most six pages, each split or
merged, and the next two levels of the list of free pages."""

_PAGE_HEAD_BYTES = 16  # LMDB 0.9: before the value on its first page

Pair = tuple[bytes, bytes]
"""A stored key and its sealed value."""

SealedWrite = tuple[bytes, bytes | None]
"""A stored key and its sealed value; None removes the entry."""


class Batch:
    """A write transaction that holds the work of many operations.

    After any error the whole batch has to be aborted: part of an operation may be in it.
    """

    def __init__(self, environment: lmdb.Environment, map_bytes: int, page_bytes: int) -> None:
        pages = map_bytes // page_bytes
        self._environment = environment
        self._page_bytes = page_bytes
        self._reserve_pages = min(RESERVE_PAGES, pages // RESERVE_SHARE)
        self._untouched_pages = pages - 1 - environment.info()["last_pgno"]
        self._pages_to_leave = 0
        self.is_empty = True
        self.txn = environment.begin(write=True)

    def apply(
        self, writes: Iterable[SealedWrite], *, may_use_reserve: bool
    ) -> tuple[list[bytes], list[bytes]]:
        """Carry out an operation's writes; returns the keys that were added and those that were removed.

        Raises:
            MapFull: a larger map may be all that is missing.
            StoreFullError: it exceeds what LMDB can write in one transaction.
            StoreError: LMDB failed.
        """
        txn, page_bytes = self.txn, self._page_bytes
        added: list[bytes] = []
        removed: list[bytes] = []
        has_grown = False
        pages_at_most = 0
        try:
            for key, sealed in writes:
                pages_at_most += _PAGES_PER_CHANGE
                if sealed is None:
                    if txn.delete(key):
                        removed.append(key)
                    continue
                pages_at_most += len(sealed) // page_bytes
                if txn.put(key, sealed, overwrite=False):
                    added.append(key)
                else:
                    has_grown |= len(txn.get(key) or b"") < len(sealed)
                    txn.put(key, sealed)
        except lmdb.Error as error:
            raise _batch_error(error) from error
        if pages_at_most:
            self.is_empty = False
            self._untouched_pages -= pages_at_most
            share = 1 if (has_grown or added) and not may_use_reserve else LAST_SHARE
            self._pages_to_leave = max(self._pages_to_leave, self._reserve_pages // share)
        return added, removed

    def rewrite(self, key: bytes) -> None:
        """Write the value of a key once more; raises `MapFull` if there is no room for that."""
        try:
            self.txn.put(key, self.txn.get(key) or b"")
        except lmdb.Error as error:
            raise _batch_error(error) from error

    def check_reserve(self) -> None:
        """Raise `MapFull` if a commit would leave fewer pages than it has to.

        Counted if that is certain. Otherwise tried in a nested transaction that is aborted, because nothing
        else shows which of LMDB's free pages this transaction may use.
        """
        pages = self._pages_to_leave
        if self._untouched_pages >= pages or not pages:
            return
        page = bytes(self._page_bytes - _PAGE_HEAD_BYTES)
        with lmdb_errors_translated():
            probe = self._environment.begin(parent=self.txn, write=True)
            try:
                probe.cursor().putmulti([(b"%d" % number, page) for number in range(pages)])
            except (lmdb.MapFullError, lmdb.TxnFullError):
                raise MapFull from None
            finally:
                probe.abort()

    def commit(self) -> None:
        """Make it durable: LMDB writes and syncs the pages, then the meta page. May run in another thread.

        Raises:
            MapFull: nothing was written; the transaction is over.
            StoreError: nothing was written, as far as can be known; the transaction is over.
        """
        try:
            self.txn.commit()
        except lmdb.Error as error:
            raise _batch_error(error) from error

    def abort(self) -> None:
        """Drop it; a no-op once it is over."""
        self.txn.abort()


def _batch_error(error: lmdb.Error) -> Exception:
    return MapFull() if isinstance(error, lmdb.MapFullError) else store_error(error)


class Environment:
    """One open LMDB environment, in a folder whose data file was verified, or is new: empty.

    Raises:
        StoreDamagedError: LMDB finds the data file damaged.
        StoreFullError: it is new, and the disk has no room for even the smallest store.
        StoreError: LMDB cannot open it.
    """

    def __init__(
        self, folder: Path, *, map_bytes: int, max_map_bytes: int, is_new: bool, logger: logging.Logger
    ) -> None:
        data_file = folder / DATA_NAME
        self._growth = Growth(data_file, max_map_bytes)
        self.map_bytes = map_bytes if is_new else reserve_for_existing(data_file, map_bytes, logger)
        self._pinned: lmdb.Transaction[bytes] | None = None
        with lmdb_errors_translated():
            self._lmdb = lmdb.open(
                str(folder),
                map_size=self.map_bytes,
                create=False,
                lock=False,
                mode=0o600,
                max_spare_txns=2,  # reusing a read transaction costs half of a new one
                lib_version=ENGINE,
            )
        try:
            if is_new:  # not before, because LMDB takes only an empty file for a new one
                self.grow(reserve_for_new(data_file, map_bytes))
            self._page_bytes = self._lmdb.stat()["psize"]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the map and the files; no transaction may be open."""
        self._lmdb.close()

    @property
    def transaction(self) -> int:
        """The number of the last commit."""
        with lmdb_errors_translated():
            return int(self._lmdb.info()["last_txnid"])

    # --- reads: each in a transaction that ends within the call, or in the pinned one ---

    def pin(self) -> None:
        """Read the present snapshot until `unpin`, whatever is committed meanwhile.

        A commit writes to no page of the snapshot before it, so that can be read during the commit. It has to
        be released before the next write transaction begins, which may reuse its pages.
        """
        self._pinned = self._begin_read()

    def unpin(self) -> None:
        """Read the latest commit again."""
        pinned, self._pinned = self._pinned, None
        if pinned is not None:
            pinned.abort()

    def get(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The sealed values of some keys, all from one snapshot."""
        # Every verification passes here: no context manager, no frame for each key.
        txn = self._pinned or self._begin_read()
        try:
            return list(map(txn.get, keys))
        except lmdb.Error as error:
            raise store_error(error) from error
        finally:
            if txn is not self._pinned:
                txn.abort()

    def scan(self, keys: KeyRange, *, reverse: bool = False, limit: int | None = None) -> list[Pair]:
        """What is stored in a range, all from one snapshot."""
        with lmdb_errors_translated():
            if self._pinned is not None:
                return scan(self._pinned, keys, reverse, limit)
            with self._lmdb.begin() as txn:
                return scan(txn, keys, reverse, limit)

    def _begin_read(self) -> lmdb.Transaction[bytes]:
        try:
            return self._lmdb.begin()
        except lmdb.Error as error:
            raise store_error(error) from error

    # --- writes ---

    def begin(self) -> Batch:
        """Begin a write transaction; the previous one must have ended."""
        try:
            return Batch(self._lmdb, self.map_bytes, self._page_bytes)
        except lmdb.Error as error:
            raise store_error(error) from error

    def write_first(self, key: bytes, sealed: bytes) -> None:
        """Write one key, durably, in the calling thread."""
        with lmdb_errors_translated(), self._lmdb.begin(write=True) as txn:
            txn.put(key, sealed)

    def prepare_growth(self) -> int:
        """Reserve the disk space of a larger map, and return its size; see `Growth.take`."""
        return self._growth.take(self.map_bytes)

    def grow(self, map_bytes: int) -> None:
        """Replace the map by one of another size. No transaction may be open in the whole process.

        LMDB does not check: a transaction that is open would go on in unmapped memory. If the system refuses
        the larger map, py-lmdb closes the environment.
        """
        with lmdb_errors_translated():
            self._lmdb.set_mapsize(map_bytes)
        self.map_bytes = map_bytes


def scan(
    txn: lmdb.Transaction[bytes], keys: KeyRange, reverse: bool = False, limit: int | None = None
) -> list[Pair]:
    """The stored keys of a range and their sealed values, in the direction asked for."""
    pairs: list[Pair] = []
    if limit == 0 or keys.low >= keys.high:
        return pairs
    with txn.cursor() as cursor:
        if reverse:
            found = cursor.prev() if cursor.set_range(keys.high) else cursor.last()
        else:
            found = cursor.set_range(keys.low)
        while found:
            pair = cursor.item()
            if pair[0] not in keys:
                break
            pairs.append(pair)
            if len(pairs) == limit:
                break
            found = cursor.prev() if reverse else cursor.next()
    return pairs
