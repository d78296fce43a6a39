"""Locked memory for keys: whole pages, out of swap and core dumps, cut into slots of 32 bytes.

Pages of their own because locking works by page: unlocking one key on a shared page would unlock its
neighbours. A page lives as long as its owner; a slot is zeroed when its key is wiped, and used again.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentd_client.errors import KeyUnavailableError

from ..crypto import KEY_BYTES, lock_memory, wipe


class SecretMemory:
    """Key slots; `locked` says whether the system granted every lock so far (RLIMIT_MEMLOCK)."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self.locked = True
        self._add_page()

    def new_key(self) -> SecretKey:
        """A key of 32 zero bytes, to be filled by whoever asked for it."""
        if not self._free:
            self._add_page()
        slot = self._free.pop()
        return SecretKey(slot, lambda: self._free.append(slot))

    def lend(self, size: int) -> memoryview:
        """`size` bytes on pages of their own, for something else than a key; the borrower wipes them."""
        page = memoryview(mmap.mmap(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE))
        self.locked = lock_memory(page) and self.locked
        return page[:size]

    @contextmanager
    def lent(self, size: int) -> Iterator[memoryview]:
        """`lend` for the time of a `with`, wiped at its end."""
        room = self.lend(size)
        try:
            yield room
        finally:
            wipe(room)

    def _add_page(self) -> None:
        page = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
        self.locked = lock_memory(page) and self.locked
        self._free += [page[at : at + KEY_BYTES] for at in range(0, mmap.PAGESIZE, KEY_BYTES)]


class SecretKey:
    """A handle on 32 bytes of locked memory: `len()` is 32, `bytes()` is a copy for the caller to guard.

    Inside a `with` the key is a buffer that cannot be wiped meanwhile: libsodium runs without the GIL, and
    a wipe in one thread must not turn the key into zeros in the middle of another thread's sealing. A wipe
    from within it is done at its end. Once wiped, every use raises `KeyUnavailableError`.
    """

    def __init__(self, view: memoryview, released: Callable[[], None]) -> None:
        self._view = view
        self._released = released
        self._guard = threading.RLock()
        self._uses = 0
        self._is_wiped = False

    def __enter__(self) -> memoryview:
        self._guard.acquire()
        if self._is_wiped:
            self._guard.release()
            raise KeyUnavailableError
        self._uses += 1
        return self._view

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
        return f"<{type(self).__name__}, {'wiped' if self._is_wiped else 'in memory'}>"

    @property
    def is_wiped(self) -> bool:
        """Whether the key is gone."""
        return self._is_wiped

    def wipe(self) -> None:
        """Zero the key and refuse every use from now on; wiping twice does nothing."""
        with self._guard:
            if not self._is_wiped:
                self._is_wiped = True
                if not self._uses:
                    self._zero()

    def _zero(self) -> None:
        wipe(self._view)
        self._released()
