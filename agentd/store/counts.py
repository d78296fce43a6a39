"""Counts: how many entries stand exactly one part below a path.

Each is a small sealed record of its own kind, written with the batch that changes it: true after any crash,
and written once for all the entries that came and went together. What was written or read is kept in memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import lmdb

from agentd_client.errors import StoreDamagedError

from .batch import SealedWrite
from .errors import lmdb_errors_translated
from .keypath import readable
from .sealing import Sealer

_COUNT_BYTES = 8


class Counts:
    """The counts of one open store, as its last commit left them."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._known: dict[bytes, int] = {}

    def changed(self, txn: lmdb.Transaction[bytes], changes: Mapping[bytes, int]) -> dict[bytes, int]:
        """The new counts of what changes; to be given to `keep` once they are committed.

        Raises:
            StoreDamagedError: a count was not sealed by this agent at its place, or is lower than what went.
        """
        found = {}
        for key, change in changes.items():
            if change:
                before = self._known.get(key)
                if before is None:
                    with lmdb_errors_translated():
                        before = self.read(key, txn.get(key))
                if before + change < 0:
                    raise StoreDamagedError(
                        f"{readable(key)} is lower than what was removed; restore the store, "
                        "or begin anew with `agentd init --fresh`"
                    )
                found[key] = before + change
        return found

    def sealed(self, counts: Mapping[bytes, int]) -> list[SealedWrite]:
        """What to write for them; a count of none has no record."""
        return [
            (key, self._sealer.seal(key, count.to_bytes(_COUNT_BYTES, "big")) if count else None)
            for key, count in counts.items()
        ]

    def keep(self, counts: Mapping[bytes, int]) -> None:
        """Remember what was committed."""
        self._known.update(counts)
        for key, count in counts.items():
            if not count:
                del self._known[key]

    def known(self, key: bytes) -> int | None:
        """A count that is in memory."""
        return self._known.get(key)

    def read(self, key: bytes, sealed: bytes | None) -> int:
        """The number in a count's record; 0 where there is none."""
        return 0 if sealed is None else int.from_bytes(self._sealer.open(key, sealed), "big")
