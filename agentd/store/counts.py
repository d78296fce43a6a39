"""Counts: how many entries there are exactly one part below a path.

Each is a small sealed record, written in the batch that changes it, so it is right after any crash, and
written once for all the entries that the batch adds and removes. Counts that have changed stay in memory,
except those that are 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import lmdb

from agentd_client.errors import StoreDamagedError

from .environment import SealedWrite
from .errors import RESTORE, lmdb_errors_translated
from .keypath import readable
from .sealing import Sealer

_COUNT_BYTES = 8


class Counts:
    """The counts of one open store, as its last commit left them."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._known: dict[bytes, int] = {}

    def changed(self, txn: lmdb.Transaction[bytes], changes: Mapping[bytes, int]) -> dict[bytes, int]:
        """The new values of the counts that change; pass them to `keep` once they are committed.

        Raises:
            StoreDamagedError: a count was not sealed by this agent at its place, or would become negative.
        """
        found = {}
        for key, change in changes.items():
            if change:
                before = self._known.get(key)
                if before is None:
                    with lmdb_errors_translated():
                        before = self.read(key, txn.get(key))
                if before + change < 0:
                    raise StoreDamagedError(f"{readable(key)} is lower than what was removed; {RESTORE}")
                found[key] = before + change
        return found

    def sealed(self, counts: Mapping[bytes, int]) -> list[SealedWrite]:
        """What to write for them; a count of 0 has no record."""
        return [
            (key, self._sealer.seal(key, count.to_bytes(_COUNT_BYTES, "big")) if count else None)
            for key, count in counts.items()
        ]

    def keep(self, counts: Mapping[bytes, int]) -> None:
        """Keep what was committed in memory."""
        self._known.update(counts)
        for key, count in counts.items():
            if not count:
                del self._known[key]

    def known(self, key: bytes) -> int | None:
        """The count, if it is in memory."""
        return self._known.get(key)

    def read(self, key: bytes, sealed: bytes | None) -> int:
        """The number in a count's record; 0 if there is none."""
        return 0 if sealed is None else int.from_bytes(self._sealer.open(key, sealed), "big")
