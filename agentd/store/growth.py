"""Disk space: reserving it before it is needed, and deciding how much more to reserve.

A commit writes only to blocks that were reserved in advance, so a full disk does no harm. File systems that
copy on write (btrfs, ZFS) cannot guarantee that.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from time import monotonic

from agentd_client.errors import StoreFullError

from .errors import NO_ROOM, os_errors_translated

MIN_GROWTH_BYTES = 1024 * 1024
"""The smallest step of growth on a nearly full disk, and the smallest new store."""

RETRY_SECONDS = 1.0
"""How long to wait before an allocation that was refused is tried again. Needed for limits that statvfs(3)
does not show (a quota, a file size limit); short for a user who has just made room."""

_PAGE_ALIGNMENT = 64 * 1024  # a multiple of every page size that LMDB takes from the system

_CANNOT_RESERVE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def reserve(data_file: Path, size_bytes: int) -> None:
    """Reserve the disk blocks of the file's first `size_bytes` bytes; a no-op if the file system cannot.

    Raises:
        StoreFullError: there is no room; the file is unchanged.
        StoreError: the disk failed.
    """
    with os_errors_translated():
        fd = os.open(data_file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            before_bytes = os.fstat(fd).st_size
            os.posix_fallocate(fd, 0, size_bytes)
        except OSError as error:
            if error.errno in NO_ROOM:
                # ext4 keeps what it could allocate, and with it the last free blocks.
                os.ftruncate(fd, before_bytes)
                raise StoreFullError(
                    f"{data_file}: no room for {size_bytes} bytes; free some disk space"
                ) from error
            if error.errno not in _CANNOT_RESERVE:
                raise OSError(error.errno, error.strerror, str(data_file)) from error
        finally:
            os.close(fd)


def reserve_for_new(data_file: Path, map_bytes: int) -> int:
    """Reserve the blocks of a new store, fewer on a nearly full disk; returns how many bytes.

    Raises:
        StoreFullError: there is not even room for `MIN_GROWTH_BYTES`.
    """
    while True:
        try:
            reserve(data_file, map_bytes)
        except StoreFullError:
            if map_bytes // 2 < MIN_GROWTH_BYTES:
                raise
            map_bytes //= 2
        else:
            return map_bytes


def reserve_for_existing(data_file: Path, map_bytes: int, logger: logging.Logger) -> int:
    """Reserve the blocks of an existing store, all of its file included; returns how many bytes.

    On a full disk, no more than the file already holds: its sessions can still be read, and ended.
    """
    size_bytes = os.lstat(data_file).st_size
    wanted_bytes = max(map_bytes, size_bytes)
    try:
        reserve(data_file, wanted_bytes)
    except StoreFullError as error:
        logger.warning("%s", error.sentence)
        return size_bytes
    return wanted_bytes


class Growth:
    """Reserves disk space for larger maps, up to `max_map_bytes`."""

    def __init__(self, data_file: Path, max_map_bytes: int) -> None:
        self._data_file = data_file
        self._max_map_bytes = max_map_bytes
        self._not_before = 0.0

    def take(self, map_bytes: int) -> int:
        """Reserve the blocks of a larger map, twice as large if possible; returns its size. May block.

        Raises:
            StoreFullError: the map has reached its limit, or the disk has no room.
            StoreError: the disk failed.
        """
        step = min(map_bytes, self._max_map_bytes - map_bytes)
        if step <= 0:
            raise StoreFullError(f"the store has reached its limit of {self._max_map_bytes} bytes")
        step = self._affordable(step)
        now = monotonic()
        if step <= 0 or now < self._not_before:
            raise StoreFullError(f"{self._data_file}: no room to grow; free some disk space")
        target = map_bytes + step
        try:
            reserve(self._data_file, target)
        except StoreFullError:
            self._not_before = now + RETRY_SECONDS
            raise
        return target

    def _affordable(self, step: int) -> int:
        """`step`, or less to leave half of the free space to other programs; 0 if that is too little."""
        with os_errors_translated():
            found = os.statvfs(self._data_file)
        if not found.f_blocks:  # tmpfs without a limit, and some file systems over a network
            return step
        half = (found.f_bavail if os.geteuid() else found.f_bfree) * found.f_frsize // 2
        if step <= half:
            return step
        affordable = half // _PAGE_ALIGNMENT * _PAGE_ALIGNMENT
        return affordable if affordable >= min(step, MIN_GROWTH_BYTES) else 0
