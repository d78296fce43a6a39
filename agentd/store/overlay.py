"""Pending writes over what is stored: how an operation and a transaction see the store.

Nothing reaches LMDB before the end. So an exception undoes an operation by dropping its overlay, and a
transaction can live across awaits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import lmdb

from agentd_client.errors import TransactionEndedError

from .errors import store_error
from .keypath import KeyPath, KeyRange, check_limit, decode_key, encode_path, key_range
from .reader import Pair, scan
from .sealing import Sealer, checked_value

if TYPE_CHECKING:
    from .view import Entry


class Overlay(ABC):
    """A `View` of the store and of its own pending writes.

    `writes` holds them by stored key: the value, or None for an entry to be removed.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.writes: dict[bytes, bytes | None] = {}

    @abstractmethod
    def require_open(self) -> None:
        """Raise where this view may not be used any more."""

    @abstractmethod
    def _read(self, key: bytes) -> bytes | None:
        """The stored bytes of a key, without pending writes."""

    @abstractmethod
    def _scan(self, keys: KeyRange, reverse: bool, limit: int | None) -> list[Pair]:
        """What is stored in a range, without pending writes."""

    def _note_range(  # noqa: B027 - nothing to do, unless a view remembers what it read
        self, keys: KeyRange, seen: list[Pair]
    ) -> None:
        """Called with each range that was read and what was stored there, in ascending order."""

    def get(self, path: KeyPath) -> bytes | None:
        """See `View.get`."""
        self.require_open()
        key = encode_path(path)
        if key in self.writes:
            return self.writes[key]
        sealed = self._read(key)
        return None if sealed is None else self._sealer.open(key, sealed)

    def sealed(self, path: KeyPath) -> bytes | None:
        """See `View.sealed`."""
        self.require_open()
        key = encode_path(path)
        return None if key in self.writes else self._read(key)

    def put(self, path: KeyPath, value: bytes) -> None:
        """See `View.put`; reads nothing."""
        self.require_open()
        self.writes[encode_path(path)] = checked_value(value)

    def delete(self, path: KeyPath) -> bool:
        """See `View.delete`; whether there was an entry counts as read."""
        self.require_open()
        key = encode_path(path)
        found = (self.writes[key] if key in self.writes else self._read(key)) is not None
        if found:
            self.writes[key] = None
        return found

    def clear(self, prefix: KeyPath = ()) -> int:
        """See `View.clear`. Values are not opened: what is damaged can be cleared."""
        return self.clear_some(prefix, None)

    def clear_some(self, prefix: KeyPath, limit: int | None) -> int:
        """Remove the first entries at and below `prefix`; how many."""
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
        """See `View.iterate`; the whole stretch that was looked at counts as read, gaps included."""
        self.require_open()
        check_limit(limit)
        return [
            (decode_key(key), self._sealer.open(key, data) if is_sealed else data)
            for key, data, is_sealed in self._merged(
                key_range(prefix, after, reverse=reverse), reverse=reverse, limit=limit
            )
        ]

    def _merged(self, keys: KeyRange, *, reverse: bool, limit: int | None) -> list[tuple[bytes, bytes, bool]]:
        """Store and overlay in one order: stored key, value, whether that is still sealed."""
        if limit == 0:
            return []
        pending = {key: value for key, value in self.writes.items() if key in keys}
        # Each pending key can hide one stored entry; with so many more read, `limit` are left.
        enough = None if limit is None else limit + len(pending)
        seen = self._scan(keys, reverse, enough)
        merged = [(key, sealed, True) for key, sealed in seen if key not in pending]
        merged += [(key, value, False) for key, value in pending.items() if value is not None]
        merged.sort(key=lambda entry: entry[0], reverse=reverse)
        if limit is not None and len(merged) >= limit:
            del merged[limit:]
            # Past the last entry nothing was shown, so what happens there is no conflict.
            keys = keys.up_to(merged[-1][0], reverse=reverse)
            seen = [pair for pair in seen if pair[0] in keys]
        self._note_range(keys, seen[::-1] if reverse else seen)
        return merged


class WriteView(Overlay):
    """A `View` of what the batch holds so far; over when its operation ends.

    `failure` is LMDB's first error: after one nothing of this may be kept, even if whoever read went on.
    """

    def __init__(self, txn: lmdb.Transaction[bytes], sealer: Sealer) -> None:
        super().__init__(sealer)
        self._txn: lmdb.Transaction[bytes] | None = txn
        self.failure: lmdb.Error | None = None

    def stored(self, key: bytes) -> bytes | None:
        """The stored bytes of a key, as earlier operations of the batch left them."""
        return self._read(key)

    def stored_in(self, keys: KeyRange) -> list[Pair]:
        """The stored keys of a range with their sealed values."""
        return self._scan(keys, False, None)

    def close(self) -> None:
        """End the view: from now on it refuses."""
        self._txn = None

    def require_open(self) -> None:
        """Raise `TransactionEndedError` once its operation is over."""
        if self._txn is None:
            raise TransactionEndedError("the operation that this view belonged to is over")

    def _read(self, key: bytes) -> bytes | None:
        self.require_open()
        assert self._txn is not None
        try:
            return self._txn.get(key)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def _scan(self, keys: KeyRange, reverse: bool, limit: int | None) -> list[Pair]:
        self.require_open()
        assert self._txn is not None
        try:
            return scan(self._txn, keys, reverse, limit)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: lmdb.Error) -> Exception:
        self.failure = self.failure or error
        return store_error(error)
