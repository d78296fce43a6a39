"""Checks of the data file before LMDB maps it.

LMDB trusts its file: a page that is not what its parent says ends the process, by an assertion or SIGSEGV.
py-lmdb's verifier walks the whole structure without LMDB (some 1.6 s per million sessions). A clean stop
therefore leaves a mark: a file that is still exactly what the mark describes needs no verification, and a
file that is older than the mark is refused, because sessions that have ended would be valid again.

The mark is sealed, so a damaged one counts as none. It does not detect a whole folder, mark included, put
back.
"""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import StoreDamagedError

from .errors import RESTORE
from .files import STOP_MARK_NAME
from .keypath import STOP
from .sealing import Sealer, Unsealer

_PAGE = struct.Struct("=Q2xH4x")  # PAGE NUMBER, pad, FLAGS, bounds
# magic, version, address, map size, PAGE SIZE (md_pad of the first database), rest of both databases,
# last page number, transaction number
_META = struct.Struct("=II8x8xI44x48xQQ")
_MAGIC = 0xBEEFC0DE
_VERSION = 1
_META_FLAG = 0x08
_PAGE_SIZES = tuple(1 << bits for bits in range(8, 17))

HEAD_BYTES = _PAGE_SIZES[-1] + _PAGE.size + _META.size
"""How much of the file's beginning holds both meta pages, whatever the page size."""

MAX_VERIFIED_PAGES = 128 * 1024
"""Half a gibibyte, three seconds: a service manager does not wait for ever for a start."""

_MAX_MARK_BYTES = 512


class Meta(NamedTuple):
    """One meta page."""

    page_bytes: int
    last_page: int
    transaction: int

    @property
    def file_bytes(self) -> int:
        """The smallest file that holds all of its pages."""
        return (self.last_page + 1) * self.page_bytes


class StopMark(NamedTuple):
    """The data file after a clean stop: the number of its last commit, and its stat(2) fields."""

    transaction: int
    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int


def newest_meta(name: str, head: bytes, size_bytes: int) -> Meta:
    """The meta page that LMDB will use.

    Args:
        name: the file's path, for the error.
        head: its first `HEAD_BYTES` bytes, or all of a smaller file.
        size_bytes: its size.

    Raises:
        StoreDamagedError: the file is empty, cut short, or no data file of this LMDB; names the remedy.
    """
    if not size_bytes:
        raise StoreDamagedError(f"{name} is empty; {RESTORE}")
    first = _parse(name, head, 0, 0)
    second = _parse(name, head, 1, first.page_bytes)
    if second.page_bytes != first.page_bytes:
        raise StoreDamagedError(f"{name}: its two meta pages differ in page size; {RESTORE}")
    # Commit n writes meta page n % 2, so an undamaged file shows the last two commits. Anything else could
    # make LMDB use an older state than the newest.
    even, odd = first.transaction, second.transaction
    if not (even == odd == 0 or (even % 2 == 0 and abs(even - odd) == 1)):
        raise StoreDamagedError(
            f"{name}: its meta pages are of the commits {even} and {odd}, "
            f"which do not follow each other; {RESTORE}"
        )
    # mdb_env_pick_meta: the second only if its number is greater.
    newest = second if first.transaction < second.transaction else first
    if size_bytes < newest.file_bytes:
        raise StoreDamagedError(
            f"{name} is cut short: {size_bytes} bytes of at least {newest.file_bytes}; {RESTORE}"
        )
    return newest


def _parse(name: str, head: bytes, number: int, offset: int) -> Meta:
    if len(head) < offset + _PAGE.size + _META.size:
        raise StoreDamagedError(f"{name} is cut short within its meta pages; {RESTORE}")
    own_number, flags = _PAGE.unpack_from(head, offset)
    magic, version, page_bytes, last_page, transaction = _META.unpack_from(head, offset + _PAGE.size)
    if not flags & _META_FLAG or magic != _MAGIC:
        raise StoreDamagedError(f"{name} is not an LMDB data file of this kind of machine; {RESTORE}")
    if version != _VERSION:
        raise StoreDamagedError(f"{name} has LMDB data version {version}, not {_VERSION}; {RESTORE}")
    if page_bytes not in _PAGE_SIZES:
        raise StoreDamagedError(f"{name} claims pages of {page_bytes} bytes; {RESTORE}")
    if own_number != number:
        raise StoreDamagedError(f"{name}: its meta page {number} is page {own_number}; {RESTORE}")
    return Meta(page_bytes, last_page, transaction)


def verify_data_file(data_file: Path, mark: StopMark | None, logger: logging.Logger) -> None:
    """Refuse a data file that would crash LMDB, or that has lost commits since the last clean stop.

    Args:
        data_file: no other process may write to it.
        mark: of the last clean stop, if there is one.
        logger: says when a file is too large to be verified.

    Raises:
        StoreDamagedError: names the damage and the remedy.
        OSError: the file cannot be read.
    """
    with open(data_file, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        meta = newest_meta(str(data_file), file.read(HEAD_BYTES), size_bytes)
    check_not_older(data_file, mark, meta.transaction)
    if mark == mark_of(data_file, meta.transaction):
        return
    if meta.last_page >= MAX_VERIFIED_PAGES:
        logger.warning("%s is too large to be verified after a stop that was not clean", data_file)
        return
    problems = structural_problems(str(data_file))
    if problems:
        raise StoreDamagedError(f"{data_file} is damaged inside ({problems[0]}); {RESTORE}")


def structural_problems(path: str) -> list[str]:
    """What py-lmdb's verifier finds wrong with a data file, without opening it in LMDB."""
    from lmdb.verify import VerifyError, verify

    try:
        return list(verify(path, subdir=False))  # type: ignore[no-untyped-call]
    except (VerifyError, struct.error, IndexError, RecursionError) as error:
        return [f"{error}"]


def mark_of(data_file: Path, transaction: int) -> StopMark:
    """The mark of a data file that no process is writing to."""
    found = os.lstat(data_file)
    return StopMark(
        transaction, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev
    )


def write_mark(folder: Path, mark: StopMark, sealer: Sealer) -> None:
    """Write the mark of a clean stop, unsynced: a mark that is lost or torn costs only a verification.

    Raises:
        OSError: for example on a full disk.
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
    """The mark of the last clean stop; None unless it is there and genuine."""
    try:
        fd = os.open(folder / STOP_MARK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return StopMark(*map(int, sealer.open(STOP, os.read(fd, _MAX_MARK_BYTES)).split()))
    except (OSError, StoreDamagedError):
        return None
    finally:
        os.close(fd)


def check_not_older(data_file: Path, mark: StopMark | None, transaction: int) -> None:
    """Refuse a data file that has lost commits since the last clean stop; the error names the remedies."""
    if mark is not None and transaction < mark.transaction:
        raise StoreDamagedError(
            f"{data_file} is older than when the agent last stopped (commit {transaction} of "
            f"{mark.transaction}), so sessions that have ended would be valid again; restore the whole "
            "folder, start over with `agentd init --fresh`, or, to use it all the same, delete "
            f"{data_file.parent / STOP_MARK_NAME}"
        )
