"""A copy of one commit of a data file that another process may be writing to: no lock, nothing left behind.

LMDB overwrites no page of the last commit, nor of the one before; it takes the pages that commit n freed in
commit n + 2 at the earliest (`mdb_page_alloc`), and writes them before it shows that commit. So a copy that
was made of commit n is whole where the file shows n or n + 1 afterwards. LMDB cannot read the file itself
here: the writer would not know of the reader, and use its pages again.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import StoreDamagedError

from .inspection import HEAD_BYTES, REMEDY, Meta, check_data_file

MAX_COPIED_BYTES = 256 * 1024 * 1024
"""Of memory, for some half a million sessions; copying them takes a few hundred milliseconds at the most."""

COPY_ATTEMPTS = 200
HEAD_ATTEMPTS = 20
PAUSE_SECONDS = 0.002


class OvertakenError(Exception):
    """The agent wrote faster than the file could be read; nothing is known of it."""


class Snapshot(NamedTuple):
    """A data file as one commit left it, at `path` in memory; "" where it is too large to be copied."""

    meta: Meta
    path: str


@contextmanager
def snapshot(data_file: Path) -> Iterator[Snapshot]:
    """The last commit of a data file.

    Raises:
        StoreDamagedError: the file is empty, cut short, or no data file of this LMDB; says what to do.
        OvertakenError: the agent writes faster than the file can be copied.
        OSError: the file cannot be read.
    """
    live = os.open(data_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(live).st_mode):
            raise StoreDamagedError(f"{data_file} is not a regular file; {REMEDY}")
        copy = os.memfd_create("agentd-snapshot", os.MFD_CLOEXEC)
        try:
            meta = _copied(live, copy, data_file)
            is_copied = meta.file_bytes <= MAX_COPIED_BYTES
            yield Snapshot(meta, f"/proc/self/fd/{copy}" if is_copied else "")
        finally:
            os.close(copy)
    finally:
        os.close(live)


def _copied(live: int, copy: int, data_file: Path) -> Meta:
    for _ in range(COPY_ATTEMPTS):
        head, meta = _head(live, data_file)
        if meta.file_bytes > MAX_COPIED_BYTES:
            return meta
        _copy(live, copy, head, meta)
        if _is_still(live, meta):
            return meta
        time.sleep(PAUSE_SECONDS)
    raise OvertakenError


def _head(live: int, data_file: Path) -> tuple[bytes, Meta]:
    # A read in the middle of a commit may see half of a meta page: only what stays so is damage.
    before = b""
    for _ in range(HEAD_ATTEMPTS):
        head = os.pread(live, HEAD_BYTES, 0)
        try:
            return head, check_data_file(str(data_file), head, os.fstat(live).st_size)
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
        if not moved:  # somebody made the file smaller: the size was looked at
            raise OvertakenError
        offset += moved
    os.pwrite(copy, head[: 2 * meta.page_bytes], 0)  # those that were judged, whatever was written meanwhile


def _is_still(live: int, meta: Meta) -> bool:
    try:
        now = check_data_file("", os.pread(live, HEAD_BYTES, 0), os.fstat(live).st_size)
    except StoreDamagedError:
        return False
    return now.transaction <= meta.transaction + 1
