"""Memory for keys: pages that no other process can read, cut into slots of 32 bytes.

The pages are the kernel's secret memory if it is available, otherwise ordinary locked pages. memfd_secret(2)
removes its pages from the kernel's own memory map: no process can read them through /proc/PID/mem, ptrace(2)
or process_vm_readv(2), not even through a /proc/PID/mem that was opened before the agent made itself
non-dumpable. They are always locked and left out of dumps, and count against RLIMIT_MEMLOCK. While there are
any, the kernel refuses to hibernate.

A page lives as long as its owner or a key on it. A slot is zeroed when its key is wiped, then reused. The
child of a fork(2) gets no page of either kind, so every key made before the fork is gone there. Secret pages
are shared memory: a child that wiped its keys on exit would wipe its parent's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from contextlib import suppress
from typing import NamedTuple

from agentd_client.errors import KeyUnavailableError

from ..crypto import KEY_BYTES, lock_memory, view_of_memory, wipe

_SYS_MEMFD_SECRET = 447  # on every architecture that Linux has it on
_NO_DESCRIPTOR = -1
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


_forks = 0  # since this module was imported; pages, and keys on them, are valid in the same process only


def _count_fork() -> None:
    global _forks
    _forks += 1


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
    made_by = _forks

    def release() -> None:
        if made_by == _forks:  # in a child, other memory may be at this address
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


class SecretMemory:
    """Slots for keys, and buffers for other secrets.

    locked: whether all pages so far are kept out of swap. secret: whether all are memfd_secret(2)'s.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._keys: set[SecretKey] = set()
        self._forks = _forks
        self.locked = self.secret = True

    def new_key(self) -> SecretKey:
        """A key of 32 zero bytes, for the caller to fill."""
        if self._forks != _forks:
            self._free, self._forks = [], _forks  # the parent's pages are not mapped here
        if not self._free:
            page = self.allocate(mmap.PAGESIZE)
            self._free = [page[at : at + KEY_BYTES] for at in range(0, mmap.PAGESIZE, KEY_BYTES)]
        key = SecretKey(self, self._free.pop())
        self._keys.add(key)
        return key

    def wipe(self) -> None:
        """Wipe every key."""
        for key in tuple(self._keys):
            key.wipe()

    def allocate(self, size: int) -> memoryview:
        """`size` bytes on pages of their own, for anything but a key; the caller wipes them."""
        pages = new_pages(size)
        self.locked = self.locked and pages.is_locked
        self.secret = self.secret and pages.is_secret
        return pages.view[:size]

    def take_back(self, key: SecretKey, slot: memoryview) -> None:
        """Reuse the slot of a key that was wiped."""
        self._keys.discard(key)
        self._free.append(slot)


class SecretKey:
    """A handle on 32 bytes of secret memory: `len()` is 32, `bytes()` is a copy for the caller to guard.

    Inside a `with` the key is a buffer that cannot be wiped: libsodium runs without the GIL, and a wipe in
    one thread must not zero a key that another thread is sealing with. A wipe from within takes effect at the
    end of the `with`. Once wiped, every use raises `KeyUnavailableError`; so does every use in the child of
    a fork, which has no such pages.

    Use the `with` form in code that ends soon and keeps nothing. All other code gets `locked_copy`, which a
    wipe releases: using it then is an error and never shows zeros or another key.
    """

    def __init__(self, memory: SecretMemory, slot: memoryview) -> None:
        self._memory = memory
        self._slot = slot
        self._guard = threading.RLock()
        self._uses = 0
        self._forks = _forks
        self._is_wiped = False
        self._copies: list[memoryview] = []

    def __enter__(self) -> memoryview:
        self._guard.acquire()
        if self._is_wiped or self._forks != _forks:  # `is_wiped`, inlined: every seal passes here
            self._guard.release()
            raise KeyUnavailableError
        self._uses += 1
        return self._slot

    def __exit__(self, *exc: object) -> None:
        self._uses -= 1
        if self._is_wiped and not self._uses:
            self._zero()
        self._guard.release()

    def __len__(self) -> int:
        return KEY_BYTES

    def __bytes__(self) -> bytes:
        with self as view:
            return bytes(view)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {'wiped' if self.is_wiped else 'in memory'}>"

    def locked_copy(self) -> memoryview:
        """A read-only copy in locked memory; after `release_copy` or the wipe, using it raises ValueError.

        Its page is unmapped with the last view of it. A view made of the copy, or a call in another thread
        that has it, goes on showing the key: like `bytes(key)`, that is the caller's to guard.
        """
        with self as view, self._memory.allocate(KEY_BYTES) as buffer:
            buffer[:] = view
            copy = buffer.toreadonly()
            self._copies.append(copy)
            return copy

    def release_copy(self, copy: memoryview) -> None:
        """End the use of a copy that `locked_copy` returned."""
        with self._guard:
            self._copies = [other for other in self._copies if other is not copy]
            with suppress(BufferError):  # a call in another thread is using it
                copy.release()

    @property
    def is_wiped(self) -> bool:
        """Whether the key is gone."""
        return self._is_wiped or self._forks != _forks

    def wipe(self) -> None:
        """Zero the key and refuse every use from now on; wiping twice does nothing."""
        with self._guard:
            if not self._is_wiped:
                self._is_wiped = True
                for copy in self._copies:
                    self.release_copy(copy)
                if not self._uses:
                    self._zero()

    def _zero(self) -> None:
        if self._forks == _forks:
            wipe(self._slot)
            self._memory.take_back(self, self._slot)
        self._memory, self._slot = SecretMemory(), memoryview(b"")  # a wiped key keeps no page mapped
