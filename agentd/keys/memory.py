"""Memory for keys: pages that no other process can read (`pages.py`), cut into slots of 32 bytes.

A page lives as long as its owner or a key on it. A slot is zeroed when its key is wiped, then reused. The
child of a fork(2) gets none of the pages: every key made before the fork is gone there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from agentd_client.errors import KeyUnavailableError

from ..crypto import KEY_BYTES, wipe
from .pages import new_pages, this_process


class SecretMemory:
    """Slots for keys, and buffers for other secrets.

    locked: whether all pages so far are kept out of swap. secret: whether all are memfd_secret(2)'s.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._keys: set[SecretKey] = set()
        self._forks = this_process.forks
        self.locked = self.secret = True

    def new_key(self) -> SecretKey:
        """A key of 32 zero bytes, for the caller to fill."""
        if self._forks != this_process.forks:
            self._free, self._forks = [], this_process.forks  # the parent's pages are not mapped here
        if not self._free:
            self._add_page()
        slot = self._free.pop()
        key = SecretKey(slot, lambda: self._free_slot(key, slot), self.allocate)
        self._keys.add(key)
        return key

    def wipe(self) -> None:
        """Wipe every key."""
        for key in tuple(self._keys):
            key.wipe()

    def allocate(self, size: int) -> memoryview:
        """`size` bytes on pages of their own, for anything but a key; the caller wipes them."""
        return self._new_pages(size)[:size]

    @contextmanager
    def allocated(self, size: int) -> Iterator[memoryview]:
        """`allocate` for the duration of a `with`, wiped at its end."""
        buffer = self.allocate(size)
        try:
            yield buffer
        finally:
            wipe(buffer)

    def _free_slot(self, key: SecretKey, slot: memoryview) -> None:
        self._keys.discard(key)
        self._free.append(slot)

    def _add_page(self) -> None:
        page = self._new_pages(KEY_BYTES)
        self._free += [page[at : at + KEY_BYTES] for at in range(0, len(page), KEY_BYTES)]

    def _new_pages(self, size: int) -> memoryview:
        pages = new_pages(size)
        self.locked = self.locked and pages.is_locked
        self.secret = self.secret and pages.is_secret
        return pages.view


_NO_MEMORY = memoryview(b"")


def _do_nothing() -> None: ...


def _refuse_allocation(_: int) -> memoryview:
    raise KeyUnavailableError


class SecretKey:
    """A handle on 32 bytes of secret memory: `len()` is 32, `bytes()` is a copy for the caller to guard.

    Inside a `with` the key is a buffer that cannot be wiped: libsodium runs without the GIL, and a wipe in
    one thread must not zero a key that another thread is sealing with. A wipe from within takes effect at the
    end of the `with`. Once wiped, every use raises `KeyUnavailableError`; so does every use in the child of
    a fork, which has no such pages.

    Use the `with` form in code that ends soon and keeps nothing. All other code gets `locked_copy`, which a
    wipe releases: using it then is an error and never shows zeros or another key.
    """

    def __init__(
        self, view: memoryview, on_zeroed: Callable[[], None], allocate: Callable[[int], memoryview]
    ) -> None:
        self._view = view
        self._on_zeroed = on_zeroed
        self._allocate = allocate
        self._guard = threading.RLock()
        self._uses = 0
        self._forks = this_process.forks
        self._is_wiped = False
        self._copies: list[memoryview] = []

    def __enter__(self) -> memoryview:
        self._guard.acquire()
        if self._is_wiped or self._forks != this_process.forks:  # `is_wiped`, inlined: every seal passes here
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
        return f"<{type(self).__name__}, {'wiped' if self.is_wiped else 'in memory'}>"

    def locked_copy(self) -> memoryview:
        """A read-only copy in locked memory; after `release_copy` or the wipe, using it raises ValueError.

        Its page is unmapped with the last view of it. A view made of the copy, or a call in another thread
        that has it, goes on showing the key: like `bytes(key)`, that is the caller's to guard.
        """
        with self as view, self._allocate(KEY_BYTES) as buffer:
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
        return self._is_wiped or self._forks != this_process.forks

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
        if self._forks == this_process.forks:
            wipe(self._view)
            self._on_zeroed()
        # A wiped key keeps no page mapped.
        self._view, self._on_zeroed, self._allocate = _NO_MEMORY, _do_nothing, _refuse_allocation
