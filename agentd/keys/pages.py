"""Pages that hold secrets: the kernel's secret memory if it is available, otherwise ordinary locked pages.

memfd_secret(2) removes its pages from the kernel's own memory map. No process can read them through
/proc/PID/mem, ptrace(2) or process_vm_readv(2), not even through a /proc/PID/mem that was opened before the
agent made itself non-dumpable. They are always locked and left out of dumps, and count against
RLIMIT_MEMLOCK. While there are any, the kernel refuses to hibernate.

The child of a fork(2) gets no page of either kind. Secret pages are shared memory: a child that wiped its
keys on exit would wipe its parent's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import NamedTuple

from ..crypto import lock_memory, view_of_memory

_SYS_MEMFD_SECRET = 447  # on every architecture that Linux has it on
_NO_DESCRIPTOR = -1
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _Process:
    """The current process.

    forks: the number of forks since this module was imported. Pages, and keys on them, are valid only in the
    process with the number they were made with.
    """

    forks = 0


this_process = _Process()


def _count_fork() -> None:
    this_process.forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Pages(NamedTuple):
    """Zeroed pages, unmapped once no view of them is left.

    is_secret: from memfd_secret(2). is_locked: kept out of swap; False if RLIMIT_MEMLOCK is too low.
    """

    view: memoryview
    is_secret: bool
    is_locked: bool


def new_pages(size: int) -> Pages:
    """At least `size` bytes on pages of their own; raises MemoryError."""
    whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    view = _secret_view(whole)
    if view is not None:
        return Pages(view, is_secret=True, is_locked=True)
    view = _mapped(whole, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, _NO_DESCRIPTOR)
    if view is None:
        raise MemoryError
    return Pages(view, is_secret=False, is_locked=lock_memory(view))


def _secret_view(size: int) -> memoryview | None:
    """Secret memory; None if the kernel, a system call filter or a limit refuses it."""
    descriptor = _libc.syscall(_SYS_MEMFD_SECRET, os.O_CLOEXEC)
    if descriptor < 0:
        return None
    try:
        os.ftruncate(descriptor, size)
        view = _mapped(size, mmap.MAP_SHARED, descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)  # the mapping does not need it, and whoever got it could map the pages too
    return view if view is not None and _is_backed(view) else None


def _mapped(size: int, flags: int, descriptor: int) -> memoryview | None:
    address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, 0)
    if address == _MAP_FAILED:
        return None
    made_by = this_process.forks

    def release() -> None:
        if made_by == this_process.forks:  # in a child, other memory may be at this address
            _libc.munmap(address, size)

    view = view_of_memory(address, size, release)
    return view if _libc.madvise(address, size, mmap.MADV_DONTFORK) == 0 else None


def _is_backed(view: memoryview) -> bool:
    # The kernel allocates each page at the first write. If it cannot, a write by this process is a fatal
    # SIGBUS, but a write by the kernel is an error that can be handled: so let read(2) write.
    try:
        reading, writing = os.pipe()
    except OSError:
        return False
    try:
        for at in range(0, len(view), mmap.PAGESIZE):
            os.write(writing, b"\0")
            os.readv(reading, [view[at : at + 1]])
    except OSError:
        return False
    finally:
        os.close(reading)
        os.close(writing)
    return True
