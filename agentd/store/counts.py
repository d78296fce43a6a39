"""Counts: how many entries stand exactly one part below a path.

Each is a small sealed record of its own kind, brought up to date at the end of a batch, in the transaction
of what it counts: true after any crash, and written once for all the entries that came and went together.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentd_client.errors import StoreDamagedError

from .batch import NestedTransaction
from .keypath import readable
from .sealing import Sealer

_COUNT_BYTES = 8


def apply_changes(txn: NestedTransaction, sealer: Sealer, changes: Mapping[bytes, int]) -> None:
    """Bring counts up to date.

    Raises:
        StoreDamagedError: a count was not sealed by this agent at its place, or is lower than what went.
    """
    for key, change in changes.items():
        if change:
            _set_count(txn, sealer, key, change)


def read_count(sealer: Sealer, key: bytes, sealed: bytes | None) -> int:
    """The number in a count's record; 0 where there is none."""
    return 0 if sealed is None else int.from_bytes(sealer.open(key, sealed), "big")


def _set_count(txn: NestedTransaction, sealer: Sealer, key: bytes, change: int) -> None:
    before = txn.get(key)
    count = read_count(sealer, key, before) + change
    if count < 0:
        raise StoreDamagedError(
            f"{readable(key)} is lower than what was removed; restore the store, "
            "or begin anew with `agentd init --fresh`"
        )
    if count:
        txn.replace(key, sealer.seal(key, count.to_bytes(_COUNT_BYTES, "big")), before)
    else:
        txn.delete(key)
