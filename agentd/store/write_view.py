"""What an operation sees in the writing thread: values sealed and opened, and how many came and went."""

from __future__ import annotations

from collections import Counter

from agentd_client.errors import TransactionEndedError

from .batch import NestedTransaction
from .key_range import KeyRange, check_limit, key_range
from .keypath import KeyPath, decode_key, encode_path, parent_count_key
from .reader import Pair
from .sealing import Sealer, checked_value
from .view import Entry


class WriteView:
    """A `View` of the store within one nested write transaction; over when its operation ends."""

    def __init__(self, txn: NestedTransaction, sealer: Sealer) -> None:
        self._open_txn: NestedTransaction | None = txn
        self._sealer = sealer
        self.changes: Counter[bytes] = Counter()
        """How many entries came or went, by the stored keys of the counts that this changes."""

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
            self.changes[parent_count_key(key)] += 1
        else:
            txn.replace(key, sealed, txn.get(key))

    def delete_key(self, key: bytes) -> bool:
        """Remove a stored key; whether it was there."""
        found = self._txn.delete(key)
        if found:
            self.changes[parent_count_key(key)] -= 1
        return found

    def close(self) -> None:
        """End the view: from now on it refuses."""
        self._open_txn = None
