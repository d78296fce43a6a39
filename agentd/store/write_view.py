"""What an operation sees in the writing thread: sealing, and the counts that go with every change.

The number of entries exactly one part below a path is a small sealed record of its own kind, changed in
the same nested transaction as what it counts: rolled back with it, and true after any crash.
"""

from __future__ import annotations

from collections import Counter

from agentd_client.errors import StoreDamagedError, TransactionEndedError

from .batch import NestedTransaction
from .key_range import KeyRange, check_limit, key_range
from .keypath import KeyPath, decode_key, encode_path, parent_count_key, readable
from .reader import Pair
from .sealing import Sealer, checked_value
from .view import Entry

_COUNT_BYTES = 8


class WriteView:
    """A `View` of the store within one nested write transaction; over when its operation ends."""

    def __init__(self, txn: NestedTransaction, sealer: Sealer) -> None:
        self._open_txn: NestedTransaction | None = txn
        self._sealer = sealer
        self._changes: Counter[bytes] = Counter()

    @property
    def _txn(self) -> NestedTransaction:
        if self._open_txn is None:
            raise TransactionEndedError("the operation that this view belonged to is over")
        return self._open_txn

    def get(self, path: KeyPath) -> bytes | None:
        """See `View.get`."""
        key = encode_path(path)
        sealed = self._txn.get(key)
        return None if sealed is None else self._sealer.open(key, sealed)

    def put(self, path: KeyPath, value: bytes) -> None:
        """See `View.put`."""
        self.put_key(encode_path(path), checked_value(value))

    def delete(self, path: KeyPath) -> bool:
        """See `View.delete`."""
        return self.delete_key(encode_path(path))

    def clear(self, prefix: KeyPath = ()) -> int:
        """See `View.clear`. Values are not opened: what is damaged can be cleared."""
        return self.clear_some(prefix, None)

    def clear_some(self, prefix: KeyPath, limit: int | None) -> int:
        """Remove the first entries at and below `prefix`; how many."""
        pairs = self._txn.scan(key_range(prefix), limit=limit)
        for key, _ in pairs:
            self.delete_key(key)
        return len(pairs)

    def iterate(
        self,
        prefix: KeyPath = (),
        *,
        after: KeyPath | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Entry]:
        """See `View.iterate`."""
        check_limit(limit)
        pairs = self._txn.scan(key_range(prefix, after, reverse=reverse), reverse=reverse, limit=limit)
        return [(decode_key(key), self._sealer.open(key, sealed)) for key, sealed in pairs]

    def sealed(self, key: bytes) -> bytes | None:
        """The sealed value of a stored key, as it is."""
        return self._txn.get(key)

    def scan(self, keys: KeyRange) -> list[Pair]:
        """The stored keys of a range with their sealed values, as they are."""
        return self._txn.scan(keys)

    def put_key(self, key: bytes, value: bytes) -> None:
        """Seal and set the value of a stored key."""
        txn = self._txn
        sealed = self._sealer.seal(key, value)
        if txn.insert(key, sealed):
            self._changes[parent_count_key(key)] += 1
        else:
            txn.replace(key, sealed, txn.get(key))

    def delete_key(self, key: bytes) -> bool:
        """Remove a stored key; whether it was there."""
        found = self._txn.delete(key)
        if found:
            self._changes[parent_count_key(key)] -= 1
        return found

    def finish(self) -> None:
        """Bring the counts up to date, once per parent however many entries were changed."""
        for key, change in self._changes.items():
            if change:
                self._set_count(key, change)

    def close(self) -> None:
        """End the view: from now on it refuses."""
        self._open_txn = None

    def _set_count(self, key: bytes, change: int) -> None:
        before = self._txn.get(key)
        count = read_count(self._sealer, key, before) + change
        if count < 0:
            raise StoreDamagedError(
                f"{readable(key)} is lower than what was removed; restore the store, "
                "or begin anew with `agentd init --fresh`"
            )
        if count:
            self._txn.replace(key, self._sealer.seal(key, count.to_bytes(_COUNT_BYTES, "big")), before)
        else:
            self._txn.delete(key)


def read_count(sealer: Sealer, key: bytes, sealed: bytes | None) -> int:
    """The number in a count's record; 0 where there is none."""
    return 0 if sealed is None else int.from_bytes(sealer.open(key, sealed), "big")
