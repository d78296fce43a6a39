"""Reading: in short transactions that begin and end within one call, or in the pinned one."""

from __future__ import annotations

from collections.abc import Iterable

import lmdb

from .errors import store_error
from .keypath import KeyRange

Pair = tuple[bytes, bytes]
"""A stored key and its sealed value."""


class Reader:
    """Reads on the event loop's thread only, which `DB` checks.

    The map is replaced on that thread too, and only between reads.
    """

    def __init__(self, environment: lmdb.Environment) -> None:
        self._begin = environment.begin
        self._pinned: lmdb.Transaction[bytes] | None = None

    def pin(self) -> None:
        """Read the present snapshot until `unpin`, whatever is committed meanwhile.

        A commit writes to no page of the snapshot before it, so that can be read during the commit. It has to
        be released before the next write transaction begins, which may reuse its pages.
        """
        self._pinned = self._transaction()

    def unpin(self) -> None:
        """Read the latest commit again."""
        pinned, self._pinned = self._pinned, None
        if pinned is not None:
            pinned.abort()

    def get(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The sealed values of some keys, all from one snapshot."""
        # Every verification passes here: no context manager, no frame for each key.
        txn = self._pinned or self._transaction()
        try:
            return list(map(txn.get, keys))
        except lmdb.Error as error:
            raise store_error(error) from error
        finally:
            if txn is not self._pinned:
                txn.abort()

    def scan(self, keys: KeyRange, *, reverse: bool = False, limit: int | None = None) -> list[Pair]:
        """What is stored in a range, all from one snapshot."""
        txn = self._pinned or self._transaction()
        try:
            return scan(txn, keys, reverse, limit)
        except lmdb.Error as error:
            raise store_error(error) from error
        finally:
            if txn is not self._pinned:
                txn.abort()

    def _transaction(self) -> lmdb.Transaction[bytes]:
        try:
            return self._begin()
        except lmdb.Error as error:
            raise store_error(error) from error


def scan(txn: lmdb.Transaction[bytes], keys: KeyRange, reverse: bool, limit: int | None) -> list[Pair]:
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
