"""One state of a data file that another process may be writing to: no lock, no map, nothing left behind.

LMDB overwrites no page of the last commit, nor of the one before; it takes the pages that commit n freed in
commit n + 2 at the earliest (`mdb_page_alloc`), and writes them before it shows that commit. So what was read
of commit n is whole as long as the file shows n or n + 1 afterwards. A reader of LMDB's own would be simpler,
but it enters a table that the agent shares: killed in the middle, it would keep the agent from using any page
again.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentd_client.errors import StoreDamagedError

from .inspection import structural_problems
from .meta_pages import HEAD_BYTES, REMEDY, Meta, check_data_file
from .tree_pages import Root, Tree

COPIED_BYTES = 64 * 1024 * 1024
"""What is in use of a file up to this size is copied into memory first, some milliseconds, so that a busy
agent does not overtake the reading. Larger ones are read in place."""

COPY_ATTEMPTS = 200
HEAD_ATTEMPTS = 20
PAUSE_SECONDS = 0.002

_PAGE_HEADER_BYTES = 16
_ROOT = struct.Struct("=24x48x6xH24xQQ")  # of a meta page: DEPTH, ENTRIES, ROOT of the second database


class OvertakenError(Exception):
    """The agent wrote faster than the file could be read; nothing is known of it."""


class Snapshot:
    """A data file as one commit left it; `require_still` says whether what was read of it counts."""

    def __init__(self, live: int, file: int, head: bytes, meta: Meta) -> None:
        self.meta = meta
        self._live, self._file, self._head = live, file, head

    def problems(self) -> list[str]:
        """What is wrong with the structure, in LMDB's terms; takes some six seconds per million sessions."""
        return structural_problems(f"/proc/self/fd/{self._file}")

    def tree(self) -> Tree:
        """The entries."""
        slot = self.meta.transaction % 2 * self.meta.page_bytes  # a commit writes the meta page of its parity
        depth, _, page = _ROOT.unpack_from(self._head, slot + _PAGE_HEADER_BYTES)
        return Tree(self._read_at, self.meta.page_bytes, Root(page, depth, self.meta.last_page))

    @property
    def entries(self) -> int:
        """How many entries there are, counts and header included, as the file says."""
        slot = self.meta.transaction % 2 * self.meta.page_bytes
        return int(_ROOT.unpack_from(self._head, slot + _PAGE_HEADER_BYTES)[1])

    def require_still(self) -> None:
        """Raise OvertakenError where what was read so far may be a mixture of commits."""
        if self._file != self._live:
            return  # a copy, which was seen to be whole
        if not _is_still(self._live, self.meta):
            raise OvertakenError

    def _read_at(self, offset: int, size: int) -> bytes:
        left = self.meta.file_bytes - offset  # whatever a damaged page says
        return os.pread(self._file, min(size, left), offset) if left > 0 else b""


@contextmanager
def snapshot(data_file: Path) -> Iterator[Snapshot]:
    """The last commit of a data file, for reading.

    Raises:
        StoreDamagedError: the file is empty, cut short, or no data file of this LMDB; says what to do.
        OvertakenError: the agent writes faster than the file can be copied.
        OSError: the file cannot be read.
    """
    live = os.open(data_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    copy = -1
    try:
        if not stat.S_ISREG(os.fstat(live).st_mode):
            raise StoreDamagedError(f"{data_file} is not a regular file; {REMEDY}")
        head, meta = _head(live, data_file)
        if meta.file_bytes <= COPIED_BYTES:
            copy = os.memfd_create("agentd-snapshot", os.MFD_CLOEXEC)
            for _ in range(COPY_ATTEMPTS):
                _copy(live, copy, head, meta)
                if _is_still(live, meta):
                    break
                time.sleep(PAUSE_SECONDS)
                head, meta = _head(live, data_file)
            else:
                raise OvertakenError
        yield Snapshot(live, live if copy < 0 else copy, head, meta)
    finally:
        os.close(live)
        if copy >= 0:
            os.close(copy)


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
