"""What an operation sees of the write transaction of its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lmdb

from agentd_client.errors import TransactionEndedError

from .lmdb_errors import store_error
from .overlay import Overlay
from .reader import Pair, scan

if TYPE_CHECKING:
    from .key_range import KeyRange
    from .sealing import Sealer


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
