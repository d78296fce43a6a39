"""Memory for keys: whole pages that nobody else reads (`pages.py`), cut into slots of 32 bytes.

A page lives as long as its owner or a key on it; a slot is zeroed when its key is wiped, and used again. No
page reaches the child of a fork(2): to the child every key made before is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from agentd_client.errors import KeyUnavailableError

from ..crypto import KEY_BYTES, wipe
from .pages import here, new_pages


class SecretMemory:
    """Key slots.

    locked: whether all pages so far are kept out of swap. secret: whether they are in the kernel's secret
    memory.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._keys: set[SecretKey] = set()
        self._forks = here.forks
        self.locked = self.secret = True

    def new_key(self) -> SecretKey:
        """A key of 32 zero bytes, to be filled by whoever asked for it."""
        if self._forks != here.forks:
            self._free, self._forks = [], here.forks  # the parent's pages are not there
        if not self._free:
            self._add_page()
        slot = self._free.pop()
        key = SecretKey(slot, lambda: self._take_back(key, slot), self.lend)
        self._keys.add(key)
        return key

    def wipe(self) -> None:
        """Wipe every key."""
        for key in tuple(self._keys):
            key.wipe()

    def lend(self, size: int) -> memoryview:
        """`size` bytes on pages of their own, for something else than a key; the borrower wipes them."""
        return self._new_pages(size)[:size]

    @contextmanager
    def lent(self, size: int) -> Iterator[memoryview]:
        """`lend` for the time of a `with`, wiped at its end."""
        room = self.lend(size)
        try:
            yield room
        finally:
            wipe(room)

    def _take_back(self, key: SecretKey, slot: memoryview) -> None:
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


_NOTHING = memoryview(b"")


def _do_nothing() -> None: ...


def _no_room(_: int) -> memoryview:
    raise KeyUnavailableError


class SecretKey:
    """A handle on 32 bytes of secret memory: `len()` is 32, `bytes()` is a copy for the caller to guard.

    Inside a `with` the key is a buffer that cannot be wiped meanwhile: libsodium runs without the GIL, and
    a wipe in one thread must not turn the key into zeros in the middle of another thread's sealing. A wipe
    from within it is done at its end. Once wiped, every use raises `KeyUnavailableError`; so it does in the
    child of a fork, where the pages are missing.

    That is for code that ends soon and keeps nothing. Everybody else is lent a copy in locked memory of its
    own, which a wipe takes back: from then on using it is an error, and never shows zeros or another key.
    """

    def __init__(
        self, view: memoryview, released: Callable[[], None], room: Callable[[int], memoryview]
    ) -> None:
        self._view = view
        self._released = released
        self._room = room
        self._guard = threading.RLock()
        self._uses = 0
        self._forks = here.forks
        self._is_wiped = False
        self._lent: list[memoryview] = []

    def __enter__(self) -> memoryview:
        self._guard.acquire()
        if self._is_wiped or self._forks != here.forks:  # `is_wiped`; every seal waits for this
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

    def lend(self) -> memoryview:
        """A read-only copy in locked memory, until `take_back` or the wipe: then using it raises ValueError.

        Its page is given back to the system with the last view of it. What the borrower made of the view, or
        handed to a call in another thread, goes on showing the key, and is as much its own as `bytes(key)`.
        """
        with self as view, self._room(KEY_BYTES) as room:
            room[:] = view
            lent = room.toreadonly()
            self._lent.append(lent)
            return lent

    def take_back(self, lent: memoryview) -> None:
        """End a loan."""
        with self._guard:
            self._lent = [other for other in self._lent if other is not lent]
            with suppress(BufferError):  # a call in another thread uses it at this moment
                lent.release()

    @property
    def is_wiped(self) -> bool:
        """Whether the key is gone."""
        return self._is_wiped or self._forks != here.forks

    def wipe(self) -> None:
        """Zero the key and refuse every use from now on; wiping twice does nothing."""
        with self._guard:
            if not self._is_wiped:
                self._is_wiped = True
                for lent in self._lent:
                    self.take_back(lent)
                if not self._uses:
                    self._zero()

    def _zero(self) -> None:
        if self._forks == here.forks:
            wipe(self._view)
            self._released()
        # Whoever still holds this holds no page.
        self._view, self._released, self._room = _NOTHING, _do_nothing, _no_room
