"""The LMDB environment: opening a file that was inspected first, and growing its map.

Threads: everything happens on the event loop's thread but the commit, which another may carry out. LMDB's
lock table is not used: the folder's own lock keeps other processes out, and without the table a write
transaction belongs to no thread. What LMDB then no longer looks after is kept by construction; see
docs/design.md. An environment must not be used after `fork`: the child shares the parent's map and file
descriptors.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import lmdb

from agentd_client.errors import StoreFullError

from .batch import Batch
from .errors import lmdb_errors_translated
from .files import DATA_NAME
from .growth import Growth, reserve, reserve_for_new
from .reader import Reader

DEFAULT_MAP_BYTES = 16 * 1024 * 1024
"""The first map, and what a new store takes of the disk: some 30,000 sessions."""

MAX_MAP_BYTES = 64 * 1024**3
"""Where growth ends; address space only until it is needed."""

ENGINE = 0
"""LMDB 0.9. Named, because py-lmdb also carries 1.0, which is of another format, and an environment
variable could choose it."""


class Environment:
    """One open LMDB environment.

    Args:
        folder: holds a private data file that was inspected.
        map_bytes: the map to begin with; larger where the file is larger.
        max_map_bytes: what growth stops at.
        is_new: the data file is empty, for LMDB to fill.
        clock: seconds that only go forward.

    Raises:
        StoreDamagedError: LMDB finds the data file damaged.
        StoreFullError: it is new, and the disk has no room for the smallest of stores.
        StoreError: LMDB cannot open it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        map_bytes: int,
        max_map_bytes: int,
        is_new: bool,
        clock: Callable[[], float],
        logger: logging.Logger,
    ) -> None:
        data_file = folder / DATA_NAME
        self._growth = Growth(data_file, max_map_bytes, clock)
        self.map_bytes = map_bytes if is_new else _reserved_map(data_file, map_bytes, logger)
        with lmdb_errors_translated():
            self._lmdb = lmdb.open(
                str(folder),
                map_size=self.map_bytes,
                create=False,
                lock=False,
                mode=0o600,
                max_spare_txns=2,  # a read transaction that is used again costs half of a new one
                lib_version=ENGINE,
            )
        try:
            if is_new:  # afterwards, because LMDB takes only an empty file for a new one
                self.grow(reserve_for_new(data_file, map_bytes))
            self._page_bytes = self._lmdb.stat()["psize"]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the map and the files; no transaction may be open."""
        self._lmdb.close()

    @property
    def transaction(self) -> int:
        """The number of the last commit."""
        with lmdb_errors_translated():
            return int(self._lmdb.info()["last_txnid"])

    def reader(self) -> Reader:
        """The way to read."""
        return Reader(self._lmdb)

    def begin(self) -> Batch:
        """Begin a write transaction; the one before must have ended."""
        with lmdb_errors_translated():
            pages = self.map_bytes // self._page_bytes
            return Batch(self._lmdb, pages, pages - 1 - self._lmdb.info()["last_pgno"], self._page_bytes)

    def write_first(self, key: bytes, sealed: bytes) -> None:
        """Write one key, durably, in the calling thread."""
        with lmdb_errors_translated(), self._lmdb.begin(write=True) as txn:
            txn.put(key, sealed)

    def turn_over(self, key: bytes) -> Batch:
        """A batch that writes the value of `key` once more: its commit makes freed pages usable.

        LMDB uses a freed page again only in the second transaction after the one that freed it.

        Raises:
            MapFull: there is not even room for that.
        """
        batch = self.begin()
        try:
            batch.rewrite(key)
        except BaseException:
            batch.abort()
            raise
        return batch

    def prepare_growth(self) -> int:
        """Take the disk space of a larger map, whose size is returned; see `Growth.take`."""
        return self._growth.take(self.map_bytes)

    def grow(self, map_bytes: int) -> None:
        """Replace the map by one of another size. There must be no transaction open in the whole process.

        LMDB moves the map without looking for one: a transaction that is alive goes on in unmapped memory.
        Where the system gives no larger one, py-lmdb closes the environment.
        """
        with lmdb_errors_translated():
            self._lmdb.set_mapsize(map_bytes)
        self.map_bytes = map_bytes


def _reserved_map(data_file: Path, map_bytes: int, logger: logging.Logger) -> int:
    """The map of an existing store: what it wants, or on a full disk what the file already holds."""
    size_bytes = os.lstat(data_file).st_size
    try:
        reserve(data_file, max(map_bytes, size_bytes))
    except StoreFullError as error:
        # A store on a full disk must open all the same: what its pages hold can be read, and ended.
        logger.warning("%s", error.sentence)
        return size_bytes
    return max(map_bytes, size_bytes)
