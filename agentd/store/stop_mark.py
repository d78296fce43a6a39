"""The mark of a clean stop: what the data file was when this agent last closed it.

It answers two questions at the next start, both without reading the store. Is the file as this agent left
it? Then its structure need not be verified. And is it older? A file that went back behind its last stop
would let ended sessions count again. After a crash there is no mark, and neither can be told.

The mark is sealed, so a damaged one is none. It does not stop whoever puts a whole folder back, mark and all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import StoreDamagedError

from .files import STOP_MARK_NAME
from .keypath import STOP
from .sealing import Sealer, Unsealer

_MAX_BYTES = 512


class StopMark(NamedTuple):
    """A data file at rest: the number of its last commit, and what the file system says of it."""

    transaction: int
    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int


def mark_of(data_file: Path, transaction: int) -> StopMark:
    """The mark of a data file that nobody writes to."""
    found = os.lstat(data_file)
    return StopMark(
        transaction, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev
    )


def write_mark(folder: Path, mark: StopMark, sealer: Sealer) -> None:
    """Leave the mark. Not synced: one that is lost or torn is none, which costs a verification.

    Raises:
        OSError: a full disk, for one.
    """
    sealed = sealer.seal(STOP, " ".join(map(str, mark)).encode())
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(folder / STOP_MARK_NAME, flags, 0o600)
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, sealed)
    finally:
        os.close(fd)


def read_mark(folder: Path, sealer: Unsealer) -> StopMark | None:
    """The mark that was left; None where there is none that is genuine."""
    path = folder / STOP_MARK_NAME
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # whatever stands there instead, this agent did not leave it
    try:
        sealed = os.read(fd, _MAX_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)
    try:
        mark = StopMark(*map(int, sealer.open(STOP, sealed).split()))
    except StoreDamagedError:
        return None
    return mark


def check_not_older(data_file: Path, mark: StopMark | None, transaction: int) -> None:
    """Refuse a data file that has lost commits since this agent stopped; the error says what to do."""
    if mark is not None and transaction < mark.transaction:
        raise StoreDamagedError(
            f"{data_file} is older than when the agent last stopped (commit {transaction} of "
            f"{mark.transaction}), so sessions that have ended would be valid again; restore the whole "
            "folder, begin anew with `agentd init --fresh`, or, to go back all the same, delete "
            f"{data_file.parent / STOP_MARK_NAME}"
        )
