"""Checks of the data file: its meta pages and structure before LMDB maps it, then whose store it is.

LMDB trusts its file: a page that is not what its parent says ends the process, by an assertion or SIGSEGV.
py-lmdb's verifier walks the whole structure without LMDB (some 1.6 s per million sessions). A clean stop
therefore leaves a mark: a file that is still exactly what the mark describes needs no verification, and a
file that is older than the mark is refused, because sessions that have ended would be valid again.

The mark is sealed, so a damaged one counts as none. It does not detect a whole folder, mark included, put
back.

The header record holds the store's format and the id of the agent it belongs to. It is the first value sealed
into a new store and the first one opened at every start, so a store sealed with another root key is refused
before anything is written to it.
"""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import StoreDamagedError, StoreError, StoreKeyMismatchError

from .entries import HEADER, STOP, KeyRing, ReadOnlyKeys, seal, unseal
from .errors import damaged

STOP_MARK_NAME = "stopped"

FORMAT_VERSION = 1
"""Incremented by any change that an older agentd would misread."""

_FORMAT = f"agentd store {FORMAT_VERSION}"

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
        raise damaged(f"{name} is empty")
    first = _parse(name, head, 0, 0)
    second = _parse(name, head, 1, first.page_bytes)
    if second.page_bytes != first.page_bytes:
        raise damaged(f"{name}: its two meta pages differ in page size")
    # Commit n writes meta page n % 2, so an undamaged file shows the last two commits. Anything else could
    # make LMDB use an older state than the newest.
    even, odd = first.transaction, second.transaction
    if not (even == odd == 0 or (even % 2 == 0 and abs(even - odd) == 1)):
        raise damaged(
            f"{name}: its meta pages are of the commits {even} and {odd}, which do not follow each other"
        )
    # mdb_env_pick_meta: the second only if its number is greater.
    newest = second if first.transaction < second.transaction else first
    if size_bytes < newest.file_bytes:
        raise damaged(f"{name} is cut short: {size_bytes} bytes of at least {newest.file_bytes}")
    return newest


def _parse(name: str, head: bytes, number: int, offset: int) -> Meta:
    if len(head) < offset + _PAGE.size + _META.size:
        raise damaged(f"{name} is cut short within its meta pages")
    own_number, flags = _PAGE.unpack_from(head, offset)
    magic, version, page_bytes, last_page, transaction = _META.unpack_from(head, offset + _PAGE.size)
    if not flags & _META_FLAG or magic != _MAGIC:
        raise damaged(f"{name} is not an LMDB data file of this kind of machine")
    if version != _VERSION:
        raise damaged(f"{name} has LMDB data version {version}, not {_VERSION}")
    if page_bytes not in _PAGE_SIZES:
        raise damaged(f"{name} claims pages of {page_bytes} bytes")
    if own_number != number:
        raise damaged(f"{name}: its meta page {number} is page {own_number}")
    return Meta(page_bytes, last_page, transaction)


def verify_data_file(data_file: Path, keys: ReadOnlyKeys, logger: logging.Logger) -> None:
    """Refuse a data file that would crash LMDB, or that has lost commits since the last clean stop.

    Args:
        data_file: no other process may write to it.
        keys: open the mark of that stop.
        logger: says when a file is too large to be verified.

    Raises:
        StoreDamagedError: names the damage and the remedy.
        OSError: the file cannot be read.
    """
    with open(data_file, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        meta = newest_meta(str(data_file), file.read(HEAD_BYTES), size_bytes)
    mark = check_not_older(data_file, keys, meta.transaction)
    if mark == _mark_of(data_file, meta.transaction):
        return
    if meta.last_page >= MAX_VERIFIED_PAGES:
        logger.warning("%s is too large to be verified after a stop that was not clean", data_file)
        return
    problems = structural_problems(str(data_file))
    if problems:
        raise damaged(f"{data_file} is damaged inside ({problems[0]})")


def structural_problems(path: str) -> list[str]:
    """What py-lmdb's verifier finds wrong with a data file, without opening it in LMDB."""
    from lmdb.verify import VerifyError, verify

    try:
        return list(verify(path, subdir=False))  # type: ignore[no-untyped-call]
    except (VerifyError, struct.error, IndexError, RecursionError) as error:
        return [f"{error}"]


def check_not_older(data_file: Path, keys: ReadOnlyKeys, transaction: int) -> StopMark | None:
    """Refuse a data file that has lost commits since the last clean stop; returns the mark of that stop."""
    mark = _read_mark(data_file, keys)
    if mark is not None and transaction < mark.transaction:
        raise StoreDamagedError(
            f"{data_file} is older than when the agent last stopped (commit {transaction} of "
            f"{mark.transaction}), so sessions that have ended would be valid again; restore the whole "
            "folder, start over with `agentd init --fresh`, or, to use it all the same, delete "
            f"{data_file.with_name(STOP_MARK_NAME)}"
        )
    return mark


def write_mark(data_file: Path, transaction: int, key_ring: KeyRing) -> None:
    """Write the mark of a clean stop, unsynced: a mark that is lost or torn costs only a verification.

    Raises:
        OSError: for example on a full disk.
    """
    mark = _mark_of(data_file, transaction)
    sealed = seal(key_ring, STOP, " ".join(map(str, mark)).encode())
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(data_file.with_name(STOP_MARK_NAME), flags, 0o600)
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, sealed)
    finally:
        os.close(fd)


def _mark_of(data_file: Path, transaction: int) -> StopMark:
    found = os.lstat(data_file)
    return StopMark(
        transaction, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev
    )


def _read_mark(data_file: Path, keys: ReadOnlyKeys) -> StopMark | None:
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(data_file.with_name(STOP_MARK_NAME), flags)
    except OSError:
        return None
    try:
        return StopMark(*map(int, unseal(keys, STOP, os.read(fd, _MAX_MARK_BYTES)).split()))
    except (OSError, StoreDamagedError):
        return None
    finally:
        os.close(fd)


def new_header(key_ring: KeyRing) -> bytes:
    """The sealed header of a new store."""
    return seal(key_ring, HEADER, f"{_FORMAT}\n{key_ring.agent_id}".encode())


def check_header(path: Path, sealed: bytes | None, keys: ReadOnlyKeys) -> None:
    """Check that this agent can use the store in the folder `path`.

    Raises:
        StoreDamagedError: there is no header.
        StoreKeyMismatchError: it was sealed with another root key.
        StoreError: it has another format version.
    """
    if sealed is None:
        raise damaged(f"{path} holds a data file without a header")
    mismatch = StoreKeyMismatchError(
        f"{path} was sealed with another root key; put back the key file it was created with, "
        "or start over with `agentd init --fresh`"
    )
    try:
        header = unseal(keys, HEADER, sealed)
    except StoreDamagedError:
        raise mismatch from None
    described, _, owner = header.decode(errors="replace").partition("\n")
    if described != _FORMAT:
        raise StoreError(f"{path} has a format unknown to this agentd ({described!r}); update agentd")
    if owner != keys.agent_id:
        raise mismatch
