"""Which file a process executes, without a question to the file system that it is on.

stat(2) asks the file system. One in user space (fuse(4), which needs no privileges in a user namespace)
answers when it likes, and the event loop would wait. So this takes what the kernel knows, with statx(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from ..process_identity import PROC

_AT_FDCWD = -100
_AT_STATX_DONT_SYNC = 0x4000
_STATX_INO, _STATX_BTIME = 0x100, 0x800
_SIZE = 256
_INO, _BTIME, _DEVICE = struct.Struct("32xQ"), struct.Struct("80xqI"), struct.Struct("136xII")


class Executable(NamedTuple):
    """A file, whatever its path.

    born: when it was made, in seconds and nanoseconds, because inodes are used again; zero if the file system
    does not tell.
    """

    device: tuple[int, int]
    inode: int
    born: tuple[int, int]


def executable_of(pid: int) -> Executable | None:
    """The file that a process executes now; None if it has ended, or cannot be seen."""
    statx = _statx()
    if statx is None:
        return None
    found = ctypes.create_string_buffer(_SIZE)
    path = os.fsencode(f"{PROC}/{pid}/exe")
    if statx(_AT_FDCWD, path, _AT_STATX_DONT_SYNC, _STATX_INO | _STATX_BTIME, found) != 0:
        return None
    mask: int = struct.unpack_from("I", found)[0]
    if not mask & _STATX_INO:
        return None
    (inode,) = _INO.unpack_from(found)
    born = _BTIME.unpack_from(found) if mask & _STATX_BTIME else (0, 0)
    return Executable(_DEVICE.unpack_from(found), inode, born)


@lru_cache(1)
def _statx() -> Callable[..., int] | None:
    try:
        statx: Callable[..., int] = ctypes.CDLL(None).statx
    except AttributeError:  # the C library is too old
        return None
    return statx
