"""Offline, read-only check of a store: its structure, its seals, how new it is.

It takes no lock and changes nothing, so it can run while an agent in another process serves the same store.
The check reads a copy of one commit. LMDB cannot read the live file here: without a lock table the writer
would not know of this reader and would reuse its pages. The copy is consistent because LMDB reuses the pages
freed by commit n in commit n + 2 at the earliest (`mdb_page_alloc`), and writes them before it publishes that
commit: a copy of commit n is whole if the file shows n or n + 1 afterwards.

Time and memory are bounded, by `MAX_COPIED_BYTES` for the structure and `MAX_OPENED` for the seals.
"""

from __future__ import annotations

import os
import random
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import lmdb

from agentd_client.errors import StoreDamagedError, StoreError

from .data_file import HEAD_BYTES, Meta, check_header, check_not_older, newest_meta, structural_problems
from .entries import HEADER, EntryPath, KeyPath, ReadOnlyKeys, decode_key, key_range, readable, unseal
from .environment import DATA_NAME, ENGINE, scan
from .errors import damaged, lmdb_errors_translated

MAX_COPIED_BYTES = 256 * 1024 * 1024
"""Of memory, for some half a million sessions; copying them takes a few hundred milliseconds at most."""

MAX_OPENED = 100_000
"""Values that are opened, in about a second; of a larger store, a random sample."""

MAX_EXAMPLES = 3
"""Broken values that are named; there may be as many as values."""

COPY_ATTEMPTS = 200
HEAD_ATTEMPTS = 20
PAUSE_SECONDS = 0.002


class Seals(NamedTuple):
    """How many values were opened, of how many, how many were broken, and the paths of the first few."""

    opened: int
    of: int
    broken: int
    examples: list[str]


class OfflineCheck(NamedTuple):
    """The result of a check.

    meta: of the commit that was checked; None if nothing could be read, or the file is no store.
    error: why it could not be read, as the agent itself would say it.
    overtaken: the agent wrote faster than the file could be copied, so nothing is known.
    problems: of the structure, in LMDB's terms; None if it was not checked because of its size.
    key_error: the keys do not fit the store, or the store is older than its last stop.
    seals: None without keys, or if the structure was not checked or is damaged.
    newest: for each prefix asked for, the last path below it.
    """

    meta: Meta | None = None
    error: StoreError | None = None
    overtaken: bool = False
    problems: list[str] | None = None
    key_error: StoreError | None = None
    seals: Seals | None = None
    newest: tuple[EntryPath, ...] = ()


class OvertakenError(Exception):
    """The agent wrote faster than the file could be copied."""


def check_offline(
    folder: Path,
    keys: ReadOnlyKeys | None,
    *,
    newest_below: Sequence[KeyPath] = (),
    max_opened: int = MAX_OPENED,
) -> OfflineCheck:
    """Check the store in `folder`.

    Args:
        folder: of the store.
        keys: open the values; None leaves them sealed.
        newest_below: prefixes whose last path is wanted.
        max_opened: values, at most.

    Raises:
        OSError: there is no data file, or it cannot be read.
    """
    try:
        with snapshot(folder / DATA_NAME) as (meta, path):
            if path is None:
                return OfflineCheck(meta)
            problems = structural_problems(path)
            if problems:
                return OfflineCheck(meta, problems=problems)
            with (
                lmdb_errors_translated(),
                lmdb.open(
                    path, subdir=False, readonly=True, create=False, lock=False, lib_version=ENGINE
                ) as environment,
                environment.begin() as txn,
            ):
                newest = tuple(
                    decode_key(key)
                    for prefix in newest_below
                    for key, _ in scan(txn, key_range(prefix), reverse=True, limit=1)
                )
                found = OfflineCheck(meta, problems=[], newest=newest)
                if keys is None:
                    return found
                try:
                    check_header(folder, txn.get(HEADER), keys)
                    check_not_older(folder / DATA_NAME, keys, meta.transaction)
                except StoreError as error:
                    return found._replace(key_error=error)
                return found._replace(seals=_check_seals(txn, keys, max_opened))
    except OvertakenError:
        return OfflineCheck(overtaken=True)
    except StoreError as error:
        return OfflineCheck(error=error)


def _check_seals(txn: lmdb.Transaction[bytes], keys: ReadOnlyKeys, max_opened: int) -> Seals:
    of = txn.stat()["entries"]
    sample = set(random.sample(range(of), max_opened)) if of > max_opened else range(of)
    broken = 0
    examples: list[str] = []
    for number, (key, sealed) in enumerate(txn.cursor()):
        if number in sample:
            try:
                unseal(keys, key, sealed)
            except StoreDamagedError:
                broken += 1
                if len(examples) < MAX_EXAMPLES:
                    examples.append(readable(key))
    return Seals(len(sample), of, broken, examples)


@contextmanager
def snapshot(data_file: Path) -> Iterator[tuple[Meta, str | None]]:
    """The last commit of a data file, and the path of a copy in memory; None if it is too large to be copied.

    Raises:
        StoreDamagedError: the file is empty, cut short, or no data file of this LMDB; names the remedy.
        OvertakenError: the agent writes faster than the file can be copied.
        OSError: the file cannot be read.
    """
    live = os.open(data_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(live).st_mode):
            raise damaged(f"{data_file} is not a regular file")
        copy = os.memfd_create("agentd-snapshot", os.MFD_CLOEXEC)
        try:
            meta = _copy_commit(live, copy, data_file)
            yield meta, f"/proc/self/fd/{copy}" if meta.file_bytes <= MAX_COPIED_BYTES else None
        finally:
            os.close(copy)
    finally:
        os.close(live)


def _copy_commit(live: int, copy: int, data_file: Path) -> Meta:
    for _ in range(COPY_ATTEMPTS):
        head, meta = _read_head(live, data_file)
        if meta.file_bytes > MAX_COPIED_BYTES:
            return meta
        _copy(live, copy, head, meta)
        if _is_still_whole(live, meta):
            return meta
        time.sleep(PAUSE_SECONDS)
    raise OvertakenError


def _read_head(live: int, data_file: Path) -> tuple[bytes, Meta]:
    # A read in the middle of a commit may see half of a meta page: it is damage only if it stays so.
    before = b""
    for _ in range(HEAD_ATTEMPTS):
        head = os.pread(live, HEAD_BYTES, 0)
        try:
            return head, newest_meta(str(data_file), head, os.fstat(live).st_size)
        except StoreDamagedError:
            if head == before:
                raise
        before = head
        time.sleep(PAUSE_SECONDS)
    raise OvertakenError


def _copy(live: int, copy: int, head: bytes, meta: Meta) -> None:
    os.ftruncate(copy, 0)
    os.lseek(copy, 0, os.SEEK_SET)
    offset = 0
    while offset < meta.file_bytes:
        moved = os.sendfile(copy, live, offset, meta.file_bytes - offset)
        if not moved:  # the size was checked, so the file was truncated meanwhile
            raise OvertakenError
        offset += moved
    os.pwrite(copy, head[: 2 * meta.page_bytes], 0)  # the meta pages that were checked, not newer ones


def _is_still_whole(live: int, meta: Meta) -> bool:
    try:
        now = newest_meta("", os.pread(live, HEAD_BYTES, 0), os.fstat(live).st_size)
    except StoreDamagedError:
        return False
    return now.transaction <= meta.transaction + 1
