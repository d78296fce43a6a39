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

from agentd_client.errors import StoreDamagedError

from .meta_pages import HEAD_BYTES, REMEDY, Meta, check_data_file
from .stop_mark import StopMark, check_not_older, mark_of

MAX_VERIFIED_PAGES = 128 * 1024
"""Half a gibibyte, three seconds: a service manager waits for a start, but not for ever."""


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
