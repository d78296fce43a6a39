"""Views: the store as an operation or a transaction sees it, with its own pending writes on top.

Nothing reaches LMDB before the end. Dropping the pending writes therefore undoes an operation, and a
transaction can live across awaits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import lmdb

from agentd_client.errors import TransactionEndedError

from .errors import store_error
from .keypath import Entry, KeyPath, KeyRange, check_limit, decode_key, encode_path, key_range
from .reader import Pair, scan
from .sealing import Sealer, checked_value


class View(ABC):
    """The store with pending writes on top. Every method is synchronous.

    `writes` holds the pending writes by stored key: the value, or None for an entry to be removed.

    Raises:
        InvalidPathError: a path is not valid.
        StoreDamagedError: a value was not sealed by this agent at its path.
        TransactionEndedError: the view is used after its end.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.writes: dict[bytes, bytes | None] = {}

    @abstractmethod
    def require_open(self) -> None:
        """Raise if this view may not be used any more."""

    @abstractmethod
    def stored(self, key: bytes) -> bytes | None:
        """The stored bytes of a key, without pending writes."""

    @abstractmethod
    def stored_in(self, keys: KeyRange, *, reverse: bool = False, limit: int | None = None) -> list[Pair]:
        """The stored keys of a range with their sealed values, without pending writes."""

    def _on_range_read(  # noqa: B027 - only a transaction keeps what it read
        self, keys: KeyRange, seen: list[Pair]
    ) -> None:
        """Called with each range that was read and what was stored there, in ascending order."""

    def get(self, path: KeyPath) -> bytes | None:
        """The value, or None if there is none."""
        self.require_open()
        key = encode_path(path)
        if key in self.writes:
            return self.writes[key]
        sealed = self.stored(key)
        return None if sealed is None else self._sealer.open(key, sealed)

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
        self.writes[encode_path(path)] = checked_value(value)

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
            (decode_key(key), self._sealer.open(key, data) if is_sealed else data)
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
        self._on_range_read(keys, seen[::-1] if reverse else seen)
        return merged


class WriteView(View):
    """A view of the batch in progress, for one operation; it ends with the operation.

    `failure` is the first error of LMDB: the batch must then be aborted, even if the operation caught it.
    """

    def __init__(self, txn: lmdb.Transaction[bytes], sealer: Sealer) -> None:
        super().__init__(sealer)
        self._txn: lmdb.Transaction[bytes] | None = txn
        self.failure: lmdb.Error | None = None

    def close(self) -> None:
        """End the view; it refuses every use from now on."""
        self._txn = None

    def require_open(self) -> None:
        """Raise `TransactionEndedError` once its operation is over."""
        self._open_txn()

    def _open_txn(self) -> lmdb.Transaction[bytes]:
        if self._txn is None:
            raise TransactionEndedError("the operation that this view belonged to is over")
        return self._txn

    def stored(self, key: bytes) -> bytes | None:
        """See `View.stored`; includes the writes of earlier operations in the batch."""
        txn = self._open_txn()
        try:
            return txn.get(key)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def stored_in(self, keys: KeyRange, *, reverse: bool = False, limit: int | None = None) -> list[Pair]:
        """See `View.stored_in`; includes the writes of earlier operations in the batch."""
        txn = self._open_txn()
        try:
            return scan(txn, keys, reverse, limit)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: lmdb.Error) -> Exception:
        self.failure = self.failure or error
        return store_error(error)
