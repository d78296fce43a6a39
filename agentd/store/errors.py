"""What errors of LMDB and of the operating system mean to users of the store."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import lmdb

from agentd_client.errors import StoreDamagedError, StoreError, StoreFullError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk, the user's quota, or the limit of file sizes is used up."""

STORE_FULL = "the store has no room; nothing was written. Free some disk space"


def damaged(what: str) -> StoreDamagedError:
    """The error for a damaged store, with the remedy."""
    return StoreDamagedError(
        f"{what}; restore the store from a copy, or start over with `agentd init --fresh`"
    )


class MapFull(Exception):  # noqa: N818 - a signal to the writer, which grows the map; never leaves this package
    """The map has no room for what is being written."""


def store_error(error: lmdb.Error) -> StoreError:
    """The public error for one of LMDB's, whose text never holds a key or a value."""
    code = getattr(error, "code", 0)
    if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)) or code in NO_ROOM:
        return StoreFullError(STORE_FULL)
    if isinstance(error, lmdb.TxnFullError):
        return StoreFullError("that is too much for one transaction; nothing was written")
    damages = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)
    if isinstance(error, damages):
        return damaged(f"{error}")
    return StoreError(f"the store failed: {error}")


@contextmanager
def lmdb_errors_translated() -> Iterator[None]:
    """Raise errors of LMDB as the store's own."""
    try:
        yield
    except lmdb.Error as error:
        raise store_error(error) from error


@contextmanager
def os_errors_translated() -> Iterator[None]:
    """Raise errors of the operating system as `StoreFullError` or `StoreError`, naming the file."""
    try:
        yield
    except OSError as error:
        kind = StoreFullError if error.errno in NO_ROOM else StoreError
        raise kind(f"{error.filename or 'the store'}: {error.strerror}") from error
