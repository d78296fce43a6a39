"""What LMDB's errors mean to everyone else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lmdb

from agentd_client.errors import StoreDamagedError, StoreError, StoreFullError

from .files import NO_ROOM


class MapFull(Exception):  # noqa: N818 - a signal to the writer, which grows the map; never leaves this package
    """The map has no room for what is being written."""


def store_error(error: lmdb.Error) -> StoreError:
    """What an error of LMDB's is to everyone else; its words never hold a key or a value."""
    code = getattr(error, "code", 0)
    if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)) or code in NO_ROOM:
        return StoreFullError("the store has no room; nothing was written. Free some disk space")
    if isinstance(error, lmdb.TxnFullError):
        return StoreFullError("that is too much for one transaction; nothing was written")
    damaged = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)
    if isinstance(error, damaged):
        return StoreDamagedError(f"{error}; restore the store, or begin anew with `agentd init --fresh`")
    return StoreError(f"the store failed: {error}")


@contextmanager
def lmdb_errors_translated() -> Iterator[None]:
    """Raise what LMDB raises as the store's own errors."""
    try:
        yield
    except lmdb.Error as error:
        raise store_error(error) from error
