"""What is asked of a data file before LMDB maps it, because afterwards it is too late.

LMDB trusts its file: a page that is not what the page above it says ends the process, by an assertion or by
SIGSEGV. py-lmdb's verifier walks the whole structure without LMDB (some 1.6 s per million sessions), so
it is spared where the file is, to the nanosecond, what this agent left when it last stopped.
"""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path
from typing import NamedTuple

from agentd_client.errors import StoreDamagedError

from .stop_mark import StopMark, check_not_older, mark_of

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

REMEDY = "restore it from a copy, or begin anew with `agentd init --fresh`"

MAX_VERIFIED_PAGES = 128 * 1024
"""Half a gibibyte, three seconds: a service manager waits for a start, but not for ever."""


class Meta(NamedTuple):
    """One meta page."""

    page_bytes: int
    last_page: int
    transaction: int

    @property
    def file_bytes(self) -> int:
        """The size below which the file does not hold all of its pages."""
        return (self.last_page + 1) * self.page_bytes


def check_data_file(name: str, head: bytes, size_bytes: int) -> Meta:
    """The meta page that LMDB will go by.

    Args:
        name: the file's path, for the error.
        head: its first `HEAD_BYTES` bytes, or all of a smaller one.
        size_bytes: its size.

    Raises:
        StoreDamagedError: the file is empty, cut short, or no data file of this LMDB; says what to do.
    """
    if not size_bytes:
        raise StoreDamagedError(f"{name} is empty; {REMEDY}")
    first = _parse(name, head, 0, 0)
    second = _parse(name, head, 1, first.page_bytes)
    if second.page_bytes != first.page_bytes:
        raise StoreDamagedError(f"{name}: its two meta pages differ in page size; {REMEDY}")
    # Each commit has a number one higher than the last and writes the meta page that its number tells, so
    # a whole file shows the last two. Anything else could let LMDB go by an older state than the newest.
    even, odd = first.transaction, second.transaction
    if not (even == odd == 0 or (even % 2 == 0 and abs(even - odd) == 1)):
        raise StoreDamagedError(
            f"{name}: its meta pages are of the commits {even} and {odd}, "
            f"which do not follow each other; {REMEDY}"
        )
    # mdb_env_pick_meta: the second only where its number is greater.
    newest = second if first.transaction < second.transaction else first
    if size_bytes < newest.file_bytes:
        raise StoreDamagedError(
            f"{name} is cut short: {size_bytes} bytes of at least {newest.file_bytes}; {REMEDY}"
        )
    return newest


def _parse(name: str, head: bytes, number: int, offset: int) -> Meta:
    if len(head) < offset + _PAGE.size + _META.size:
        raise StoreDamagedError(f"{name} is cut short within its meta pages; {REMEDY}")
    own_number, flags = _PAGE.unpack_from(head, offset)
    magic, version, page_bytes, last_page, transaction = _META.unpack_from(head, offset + _PAGE.size)
    if not flags & _META_FLAG or magic != _MAGIC:
        raise StoreDamagedError(f"{name} is not an LMDB data file of this kind of machine; {REMEDY}")
    if version != _VERSION:
        raise StoreDamagedError(f"{name} has LMDB data version {version}, not {_VERSION}; {REMEDY}")
    if page_bytes not in _PAGE_SIZES:
        raise StoreDamagedError(f"{name} claims pages of {page_bytes} bytes; {REMEDY}")
    if own_number != number:
        raise StoreDamagedError(f"{name}: its meta page {number} is page {own_number}; {REMEDY}")
    return Meta(page_bytes, last_page, transaction)


def inspect(data_file: Path, mark: StopMark | None, logger: logging.Logger) -> None:
    """Refuse a data file that LMDB had better not see, or that has lost commits since the last stop.

    Args:
        data_file: nobody else may write to it.
        mark: of the last clean stop, if there is one.
        logger: where to say that a file is too large to be verified.

    Raises:
        StoreDamagedError: says what is wrong and what to do.
        OSError: the file cannot be read.
    """
    meta = _read_meta(data_file)
    check_not_older(data_file, mark, meta.transaction)
    if mark == mark_of(data_file, meta.transaction):
        return
    if meta.last_page >= MAX_VERIFIED_PAGES:
        logger.warning("%s is too large to be verified after a stop that was not clean", data_file)
        return
    problems = structural_problems(str(data_file))
    if problems:
        raise StoreDamagedError(f"{data_file} is damaged inside ({problems[0]}); {REMEDY}")


def _read_meta(data_file: Path) -> Meta:
    with open(data_file, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        return check_data_file(str(data_file), file.read(HEAD_BYTES), size_bytes)


def structural_problems(path: str) -> list[str]:
    """What py-lmdb's verifier finds wrong with a data file, without LMDB; nothing where it is sound."""
    from lmdb.verify import VerifyError, verify

    try:
        return list(verify(path, subdir=False))  # type: ignore[no-untyped-call]
    except (VerifyError, struct.error, IndexError, RecursionError) as error:
        return [f"{error}"]
